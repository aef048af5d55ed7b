//! One commit's files, read from the object database: nothing is checked out, no link is followed, no filter is run.

use super::error::{GitError, GitErrorKind, on_disk, quoted};
use super::local::open_at;
use crate::finding::{Code, Finding, Source};
use crate::load::{Entry, Limits, Listing, Tree, TreeError};
use git2::{ObjectType, Oid, Repository};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Depth of folders; Git itself has none, and a hostile tree may refer to one folder very often.
pub(super) const MAX_DEPTH: usize = 64;
/// Entries that are looked at in one tree, folders and other files included.
pub(super) const MAX_ENTRIES: usize = 2_000_000;
/// Notes about links and submodules; the rest is counted.
const MAX_NOTES: usize = 50;

const LINK: i32 = 0o120_000;
const SUBMODULE: i32 = 0o160_000;
const FOLDER: i32 = 0o040_000;

/// The files of a commit below a folder. Paths are relative to the repository's root, so that findings name files as
/// people see them in their clone.
pub struct GitTree {
    repository: Mutex<Repository>,
    commit: String,
    root: Oid,
    /// The folder, without slashes at its ends; empty for all.
    prefix: String,
    limits: Limits,
    /// What `list` found, so that reading a listed file needs no second walk.
    index: OnceLock<BTreeMap<String, (Oid, u64)>>,
}

/// The id of a commit's tree.
pub(super) fn tree_of(repository: &Repository, commit: &str) -> Result<Oid, GitError> {
    let id = Oid::from_str(commit).map_err(|_| {
        GitError::new(GitErrorKind::NoReference, format!("`{}` is not the full id of a commit", quoted(commit)))
    })?;
    let place = repository.path().display();
    let commit = repository.find_commit(id).map_err(|e| match e.code() {
        git2::ErrorCode::NotFound => {
            GitError::new(GitErrorKind::NoReference, format!("`{place}` does not have the commit {commit}"))
        }
        _ => on_disk(&format!("the commit {commit} of `{place}` cannot be read"), &e),
    })?;
    Ok(commit.tree_id())
}

impl GitTree {
    /// Opens a commit of the repository at `git_dir`; `path` is a folder in it, or empty.
    pub fn open(git_dir: &Path, commit: &str, path: &str) -> Result<Self, GitError> {
        let repository = open_at(git_dir)?;
        let tree = tree_of(&repository, commit)?;
        let prefix = clean_prefix(path)?;
        let root = match prefix.as_str() {
            "" => tree,
            folder => {
                let (mode, oid) = find(&repository, tree, folder)
                    .map_err(|e| GitError::new(GitErrorKind::Corrupt, format!("commit {commit}: {e}")))?
                    .ok_or_else(|| {
                        GitError::new(GitErrorKind::NoFolder, format!("commit {commit} has no folder `{folder}`"))
                            .hint("`path` names a folder in the repository; was it renamed?")
                    })?;
                if mode != FOLDER {
                    return Err(GitError::new(
                        GitErrorKind::NoFolder,
                        format!("`{folder}` of commit {commit} is {}, not a folder", what(mode)),
                    ));
                }
                oid
            }
        };
        Ok(Self {
            repository: Mutex::new(repository),
            commit: commit.to_owned(),
            root,
            prefix,
            limits: Limits::default(),
            index: OnceLock::new(),
        })
    }

    /// With other limits on the number of files.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The commit's full id.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The id of the folder's tree: two commits with one id have the same files there.
    pub fn tree_id(&self) -> String {
        self.root.to_string()
    }

    fn repository(&self) -> MutexGuard<'_, Repository> {
        self.repository.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every file, so that damage is found: libgit2 compares each object with its name as it reads it.
    pub(super) fn check(&self) -> Result<(), TreeError> {
        let repository = self.repository();
        let odb = repository.odb().map_err(|e| io(&self.prefix, &e))?;
        let mut walk = Walk::new(&repository, usize::MAX);
        walk.every_file = true;
        walk.folder(self.root, &self.prefix, 0)?;
        for (path, (oid, size)) in &walk.files {
            if *size <= self.limits.file_bytes {
                odb.read(*oid).map_err(|e| io(path, &e))?;
            }
        }
        Ok(())
    }
}

impl Tree for GitTree {
    fn list(&self) -> Result<Listing, TreeError> {
        let repository = self.repository();
        let mut walk = Walk::new(&repository, self.limits.files);
        walk.folder(self.root, &self.prefix, 0)?;
        let mut notes = walk.notes;
        if walk.more_notes > 0 {
            notes.push(Finding::new(
                Code::Ignored,
                format!("and {} more links and submodules are not read", walk.more_notes),
            ));
        }
        let files = walk
            .files
            .iter()
            .map(|(path, (oid, size))| Entry { path: path.clone(), size: *size, blob: Some(oid.to_string()) })
            .collect();
        // A second `list` finds the same: the commit does not change.
        let _ = self.index.set(walk.files);
        Ok(Listing { files, notes })
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError> {
        let repository = self.repository();
        let (oid, size) = match self.index.get().and_then(|i| i.get(path)) {
            Some(found) => *found,
            None => self.locate(&repository, path)?,
        };
        if size > limit {
            return Err(TreeError::TooLarge { path: path.into(), size, limit });
        }
        let odb = repository.odb().map_err(|e| io(path, &e))?;
        let object = odb.read(oid).map_err(|e| io(path, &e))?;
        let bytes = object.data().to_vec();
        if bytes.len() < 1024 && bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
            return Err(TreeError::NotAFile {
                path: path.into(),
                what: "a Git LFS pointer (Drover reads no LFS objects)".into(),
            });
        }
        Ok(bytes)
    }
}

impl GitTree {
    /// Finds a file that was not listed, and its size.
    fn locate(&self, repository: &Repository, path: &str) -> Result<(Oid, u64), TreeError> {
        let outside = |what: &str| TreeError::NotAFile { path: path.into(), what: what.into() };
        let inside = match self.prefix.as_str() {
            "" => path,
            prefix => path
                .strip_prefix(prefix)
                .and_then(|p| p.strip_prefix('/'))
                .ok_or_else(|| outside(&format!("outside the folder `{prefix}`")))?,
        };
        if inside.split('/').any(|part| hostile_name(part.as_bytes()).is_some()) {
            return Err(outside("a path that leads outside the repository"));
        }
        let (mode, oid) = find(repository, self.root, inside)
            .map_err(|why| TreeError::Io { path: path.into(), why })?
            .ok_or_else(|| TreeError::Missing(path.into()))?;
        if !is_file(mode) {
            return Err(outside(what(mode)));
        }
        Ok((oid, size_of(repository, oid, path)?))
    }
}

/// A walk through a commit's folders, within limits.
struct Walk<'r> {
    repository: &'r Repository,
    files: BTreeMap<String, (Oid, u64)>,
    max_files: usize,
    entries: usize,
    notes: Vec<Finding>,
    more_notes: usize,
    /// All regular files, not only manifests.
    every_file: bool,
}

impl<'r> Walk<'r> {
    fn new(repository: &'r Repository, max_files: usize) -> Self {
        Self {
            repository,
            files: BTreeMap::new(),
            max_files,
            entries: 0,
            notes: Vec::new(),
            more_notes: 0,
            every_file: false,
        }
    }

    fn note(&mut self, path: &str, what: &str) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(Finding::new(Code::Ignored, format!("`{path}` is {what}: it is not read")).at(Source {
                file: path.into(),
                line: 1,
                column: 1,
            }));
        } else {
            self.more_notes += 1;
        }
    }

    fn folder(&mut self, oid: Oid, path: &str, depth: usize) -> Result<(), TreeError> {
        let refuse = |path: &str, why: String| TreeError::Io { path: path.into(), why };
        if depth > MAX_DEPTH {
            return Err(refuse(path, format!("folders are nested more than {MAX_DEPTH} deep")));
        }
        let tree = self.repository.find_tree(oid).map_err(|e| io(path, &e))?;
        let mut names = BTreeSet::new();
        for entry in &tree {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(refuse(path, format!("the commit has more than {MAX_ENTRIES} entries")));
            }
            let raw = entry.name_bytes();
            let name = String::from_utf8_lossy(raw).into_owned();
            let full = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            // Git's own tools do not make such entries: they are made by hand to lead a reader astray.
            if let Some(why) = hostile_name(raw) {
                return Err(TreeError::NotAFile {
                    path: quoted(&full),
                    what: format!("an entry whose name {why}: the commit is refused"),
                });
            }
            if !names.insert(raw.to_vec()) {
                return Err(TreeError::NotAFile {
                    path: quoted(&full),
                    what: "an entry that is there twice: the commit is refused".into(),
                });
            }
            let mode = entry.filemode_raw();
            let unreadable = std::str::from_utf8(raw).map_or(true, |n| n.chars().any(char::is_control));
            if unreadable && (mode == FOLDER || is_manifest(raw)) && !self.every_file {
                self.note(&quoted(&full), "an entry whose name is not UTF-8 or has a control character in it");
                continue;
            }
            match mode {
                FOLDER => self.folder(entry.id(), &full, depth + 1)?,
                LINK => self.note(&quoted(&full), "a symbolic link"),
                SUBMODULE => self.note(&quoted(&full), "a submodule"),
                _ if self.every_file || is_manifest(raw) => {
                    if self.files.len() >= self.max_files {
                        return Err(refuse(
                            path,
                            format!("the commit has more than {} manifest files", self.max_files),
                        ));
                    }
                    let size = size_of(self.repository, entry.id(), &full)?;
                    self.files.insert(full, (entry.id(), size));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Why a name may not be in a tree, if it may not.
pub(super) fn hostile_name(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("is empty"),
        b"." | b".." => Some("leads out of its folder"),
        n if n.eq_ignore_ascii_case(b".git") => Some("is Git's own"),
        n if n.contains(&b'/') => Some("has a slash in it"),
        n if n.contains(&b'\\') => Some("has a backslash in it"),
        _ => None,
    }
}

fn is_manifest(name: &[u8]) -> bool {
    name.ends_with(b".yaml") || name.ends_with(b".yml")
}

fn is_file(mode: i32) -> bool {
    !matches!(mode, LINK | SUBMODULE | FOLDER)
}

fn what(mode: i32) -> &'static str {
    match mode {
        LINK => "a symbolic link",
        SUBMODULE => "a submodule",
        FOLDER => "a folder",
        _ => "a file",
    }
}

/// A configured folder without `./`, doubled slashes and slashes at the ends.
pub(super) fn clean_prefix(path: &str) -> Result<String, GitError> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.iter().any(|p| hostile_name(p.as_bytes()).is_some()) {
        return Err(GitError::new(
            GitErrorKind::Refused,
            format!("`{}` is not a folder in the repository", quoted(path)),
        )
        .hint("`path` is relative to the repository's root, without `..`"));
    }
    Ok(parts.join("/"))
}

/// Mode and id of an entry below a tree, component by component; links are not followed.
pub(super) fn find(repository: &Repository, root: Oid, path: &str) -> Result<Option<(i32, Oid)>, String> {
    let mut found = (FOLDER, root);
    for part in path.split('/') {
        if found.0 != FOLDER {
            return Ok(None);
        }
        let tree = repository.find_tree(found.1).map_err(|e| quoted(e.message()))?;
        let Some(entry) = tree.iter().find(|e| e.name_bytes() == part.as_bytes()) else { return Ok(None) };
        found = (entry.filemode_raw(), entry.id());
    }
    Ok(Some(found))
}

/// A blob's size from its header, without inflating it.
fn size_of(repository: &Repository, oid: Oid, path: &str) -> Result<u64, TreeError> {
    let odb = repository.odb().map_err(|e| io(path, &e))?;
    // The binding panics when a damaged header names no type of object. Nothing is shared that a panic could leave half
    // done: libgit2 has returned before that.
    let header = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| odb.read_header(oid))).map_err(|_| {
        TreeError::Io { path: path.into(), why: "the object database is damaged: an object has no known type".into() }
    })?;
    match header.map_err(|e| io(path, &e))? {
        (size, ObjectType::Blob) => Ok(size as u64),
        (_, other) => Err(TreeError::NotAFile { path: path.into(), what: format!("an object of type {other}") }),
    }
}

fn io(path: &str, e: &git2::Error) -> TreeError {
    let path = if path.is_empty() { "the repository" } else { path };
    TreeError::Io { path: path.into(), why: format!("the object database cannot be read: {}", quoted(e.message())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::git::testing::Repo;

    fn names(tree: &GitTree) -> Vec<String> {
        tree.list().unwrap().files.into_iter().map(|f| f.path).collect()
    }

    #[test]
    fn manifests_are_listed_sorted_with_size_and_blob_and_read_without_a_checkout() {
        let repo = Repo::new();
        let commit = repo.commit(&[("b/vm.yml", "two\n"), ("a.yaml", "one"), ("README.md", "no")]);
        let tree = repo.tree(&commit, "");
        let listing = tree.list().unwrap();
        assert_eq!(names(&tree), ["a.yaml", "b/vm.yml"]);
        assert_eq!(listing.files[1].size, 4);
        assert_eq!(listing.files[1].blob.as_deref().map(str::len), Some(40));
        assert_eq!(tree.read("b/vm.yml", 10).unwrap(), b"two\n");
        // A file that is no manifest can be read where a manifest refers to it.
        assert_eq!(tree.read("README.md", 10).unwrap(), b"no");
        assert_eq!(tree.read("nothing.yaml", 10), Err(TreeError::Missing("nothing.yaml".into())));
    }

    #[test]
    fn a_folder_bounds_what_is_seen() {
        let repo = Repo::new();
        let commit = repo.commit(&[("prod/a.yaml", "1"), ("test/b.yaml", "2"), ("prod/x/c.yaml", "3")]);
        let tree = repo.tree(&commit, "./prod/");
        assert_eq!(names(&tree), ["prod/a.yaml", "prod/x/c.yaml"]);
        for outside in ["test/b.yaml", "prod/../test/b.yaml", "/etc/passwd", "prod", "../x"] {
            assert!(matches!(tree.read(outside, 10), Err(TreeError::NotAFile { .. })), "{outside}");
        }
        let Err(missing) = GitTree::open(repo.git_dir(), &commit, "prdo") else { panic!("opened") };
        assert!(missing.full().contains("`prdo`") && missing.kind == GitErrorKind::NoFolder, "{missing}");
        assert!(GitTree::open(repo.git_dir(), &commit, "../..").is_err());
    }

    #[test]
    fn the_size_limit_holds_before_a_file_is_read() {
        let repo = Repo::new();
        let commit = repo.commit(&[("a.yaml", &"x".repeat(1000))]);
        let tree = repo.tree(&commit, "");
        assert_eq!(
            tree.read("a.yaml", 999),
            Err(TreeError::TooLarge { path: "a.yaml".into(), size: 1000, limit: 999 })
        );
        assert_eq!(tree.read("a.yaml", 1000).unwrap().len(), 1000);
        let limits = Limits { files: 1, ..Limits::default() };
        let many = repo.commit(&[("a.yaml", "1"), ("b.yaml", "2")]);
        let error = repo.tree(&many, "").with_limits(limits).list().unwrap_err();
        assert!(error.to_string().contains("more than 1 manifest files"), "{error}");
    }

    #[test]
    fn links_and_submodules_are_noted_and_never_followed() {
        let repo = Repo::new();
        let passwd = repo.blob(b"/etc/passwd");
        let file = repo.blob(b"a: 1");
        let commit = repo.commit_tree(repo.raw_tree(&[
            ("100644", "a.yaml", file),
            ("120000", "link.yaml", passwd),
            ("160000", "sub", Oid::from_str("0123456789012345678901234567890123456789").unwrap()),
        ]));
        let tree = repo.tree(&commit, "");
        let listing = tree.list().unwrap();
        assert_eq!(names(&tree), ["a.yaml"]);
        let notes: Vec<_> = listing.notes.iter().map(|n| (n.code, n.message.as_str())).collect();
        assert_eq!(
            notes,
            [
                (Code::Ignored, "`link.yaml` is a symbolic link: it is not read"),
                (Code::Ignored, "`sub` is a submodule: it is not read")
            ]
        );
        assert!(
            matches!(tree.read("link.yaml", 99), Err(TreeError::NotAFile { what, .. }) if what == "a symbolic link")
        );
    }

    #[test]
    fn a_tree_made_by_hand_to_lead_astray_is_refused() {
        let repo = Repo::new();
        let blob = repo.blob(b"a: 1");
        for (name, why) in [
            ("..", "out of its folder"),
            (".GIT", "Git's own"),
            ("a\\b.yaml", "backslash"),
            ("a/b.yaml", "slash"),
            (".", "out of"),
        ] {
            let commit = repo.commit_tree(repo.raw_tree(&[("100644", name, blob)]));
            let error = repo.tree(&commit, "").list().unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        let twice = repo.commit_tree(repo.raw_tree(&[("100644", "a.yaml", blob), ("120000", "a.yaml", blob)]));
        assert!(repo.tree(&twice, "").list().unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_tree_that_refers_to_itself_many_times_ends_at_a_limit() {
        let repo = Repo::new();
        let mut tree = repo.raw_tree(&[("100644", "a.yaml", repo.blob(b"x"))]);
        for _ in 0..12 {
            let names: Vec<String> = (0..10).map(|i| format!("d{i}")).collect();
            let entries: Vec<_> = names.iter().map(|n| ("40000", n.as_str(), tree)).collect();
            tree = repo.raw_tree(&entries);
        }
        let commit = repo.commit_tree(tree);
        let began = std::time::Instant::now();
        let error = repo.tree(&commit, "").list().unwrap_err().to_string();
        assert!(error.contains("more than 100000 manifest files"), "{error}");
        assert!(began.elapsed().as_secs() < 20);
        let mut deep = repo.raw_tree(&[("100644", "a.yaml", repo.blob(b"x"))]);
        for _ in 0..100 {
            deep = repo.raw_tree(&[("40000", "d", deep)]);
        }
        let error = repo.tree(&repo.commit_tree(deep), "").list().unwrap_err().to_string();
        assert!(error.contains("nested more than 64"), "{error}");
    }

    #[test]
    fn an_lfs_pointer_is_not_taken_for_a_manifest() {
        let repo = Repo::new();
        let commit = repo.commit(&[("a.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")]);
        let error = repo.tree(&commit, "").read("a.yaml", 1000).unwrap_err().to_string();
        assert!(error.contains("LFS"), "{error}");
    }
}
