//! A repository on this machine that is read in place: `drover plan --base REV --head REV` in a clone.

use super::error::{GitError, GitErrorKind, on_disk, quoted};
use super::library;
use super::tree::GitTree;
use git2::{Repository, RepositoryOpenFlags};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A repository that is read in place, and the folder inside it that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRepository {
    git_dir: PathBuf,
    references_dir: PathBuf,
    prefix: String,
}

/// Opens the repository that a path is in: a bare repository, a work tree, or a folder inside a work tree. Git's
/// environment variables have no effect, and a repository that belongs to another user is refused.
pub fn open_local(path: &Path) -> Result<LocalRepository, GitError> {
    library::initialise()?;
    let what = format!("`{}` cannot be opened as a Git repository", path.display());
    let none: [&OsStr; 0] = [];
    let repository = Repository::open_ext(path, RepositoryOpenFlags::empty(), none).map_err(|e| {
        let error = on_disk(&what, &e);
        if error.kind == GitErrorKind::NoRepository {
            error.hint("give a clone, a folder inside one, or a bare repository")
        } else {
            error
        }
    })?;
    let io = |e: std::io::Error| GitError::new(GitErrorKind::Other, format!("{what}: {e}"));
    let prefix = match repository.workdir() {
        Some(work) => {
            let (path, work) = (path.canonicalize().map_err(io)?, work.canonicalize().map_err(io)?);
            match path.strip_prefix(&work) {
                Ok(inside) => inside.to_string_lossy().into_owned(),
                // The `.git` folder itself was given.
                Err(_) => String::new(),
            }
        }
        None => String::new(),
    };
    let (git_dir, references_dir) = (repository.path().to_owned(), repository.commondir().to_owned());
    Ok(LocalRepository { git_dir, references_dir, prefix })
}

impl LocalRepository {
    /// The repository's own folder (`.git`, or the bare repository).
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The folder that holds the references: the repository's own, or, for a linked work tree, its main repository's.
    pub fn references_dir(&self) -> &Path {
        &self.references_dir
    }

    /// The folder that was asked for, below the repository's root; empty for the root.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The full id of the commit that a revision names (`main`, `v1.2`, `HEAD~3`, an id).
    pub fn resolve(&self, revision: &str) -> Result<String, GitError> {
        resolve(&open_at(&self.git_dir)?, revision, &self.git_dir.display().to_string())
    }

    /// A commit's files below `path` (relative to the repository's root).
    pub fn tree(&self, commit: &str, path: &str) -> Result<GitTree, GitError> {
        GitTree::open(&self.git_dir, commit, path)
    }

    /// Paths that differ between two commits below `path`; see [`super::changed_paths`].
    pub fn changed(&self, old: &str, new: &str, path: &str, limit: usize) -> Result<super::Changed, GitError> {
        super::changed_paths(&self.git_dir, old, new, path, limit)
    }
}

/// Opens exactly this repository folder.
pub(super) fn open_at(git_dir: &Path) -> Result<Repository, GitError> {
    library::initialise()?;
    let none: [&OsStr; 0] = [];
    Repository::open_ext(git_dir, RepositoryOpenFlags::NO_SEARCH | RepositoryOpenFlags::NO_DOTGIT, none)
        .map_err(|e| on_disk(&format!("the repository `{}` cannot be opened", git_dir.display()), &e))
}

/// Finds the commit that a revision names, also among the branches of a mirrored remote.
pub(super) fn resolve(repository: &Repository, revision: &str, place: &str) -> Result<String, GitError> {
    let missing = |why: &str| {
        GitError::new(GitErrorKind::NoReference, format!("`{}` names no commit of `{place}`: {why}", quoted(revision)))
            .hint("give a branch, a tag, or a commit id that was fetched")
    };
    if revision.is_empty() || revision.starts_with('-') || revision.chars().any(char::is_control) {
        return Err(missing("it is not a revision"));
    }
    // The remote's branches first: in a mirror there are no others, and `HEAD` of a mirror means nothing.
    let found = repository
        .revparse_single(revision)
        .or_else(|first| repository.revparse_single(&format!("refs/remotes/origin/{revision}")).map_err(|_| first))
        .map_err(|e| missing(&quoted(e.message())))?;
    let commit = found.peel_to_commit().map_err(|e| missing(&quoted(e.message())))?;
    Ok(commit.id().to_string())
}
