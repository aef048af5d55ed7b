//! Which files two commits differ in. Folders with equal ids are skipped unread, so that the work depends on the change
//! and not on the size of the repository (libgit2's own comparison reads every folder).

use super::error::{GitError, GitErrorKind, on_disk};
use super::local::open_at;
use super::tree::{MAX_DEPTH, MAX_ENTRIES, clean_prefix, find, hostile_name, tree_of};
use git2::{Oid, Repository};
use std::collections::BTreeMap;
use std::path::Path;

/// What two commits differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// Files that differ, sorted by path, at most as many as asked for.
    pub paths: Vec<ChangedPath>,
    /// Files that differ beyond that.
    pub more: usize,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct ChangedPath {
    /// Its path below the repository's root.
    pub path: String,
    /// Its blob in the old commit; `None` when it is new.
    pub old: Option<String>,
    /// Its blob in the new commit; `None` when it is gone.
    pub new: Option<String>,
}

/// Compares two commits of the repository at `git_dir` below the folder `path` (empty for all), and names at most `limit`
/// files. A folder that one of them does not have counts as empty.
pub fn changed_paths(git_dir: &Path, old: &str, new: &str, path: &str, limit: usize) -> Result<Changed, GitError> {
    let repository = open_at(git_dir)?;
    let prefix = clean_prefix(path)?;
    let sides = (side(&repository, old, &prefix)?, side(&repository, new, &prefix)?);
    let mut compare = Compare { repository: &repository, changed: Changed::default(), limit, entries: 0 };
    compare.entry(sides.0, sides.1, &prefix, 0)?;
    compare.changed.paths.sort();
    Ok(compare.changed)
}

const FOLDER: i32 = 0o040_000;

type Side = Option<(i32, Oid)>;

/// A commit's tree, or its folder.
fn side(repository: &Repository, commit: &str, prefix: &str) -> Result<Side, GitError> {
    let tree = tree_of(repository, commit)?;
    if prefix.is_empty() {
        return Ok(Some((FOLDER, tree)));
    }
    find(repository, tree, prefix).map_err(|e| GitError::new(GitErrorKind::Corrupt, format!("commit {commit}: {e}")))
}

struct Compare<'r> {
    repository: &'r Repository,
    changed: Changed,
    limit: usize,
    entries: usize,
}

impl Compare<'_> {
    fn entry(&mut self, old: Side, new: Side, path: &str, depth: usize) -> Result<(), GitError> {
        if old == new {
            return Ok(());
        }
        self.entries += 1;
        if depth > MAX_DEPTH || self.entries > MAX_ENTRIES {
            return Err(GitError::new(
                GitErrorKind::TooLarge,
                format!("`{path}`: too many or too deep folders to compare"),
            ));
        }
        let folder = |side: Side| side.filter(|s| s.0 == FOLDER).map(|s| s.1);
        let file = |side: Side| side.filter(|s| s.0 != FOLDER).map(|s| s.1.to_string());
        let (old_file, new_file) = (file(old), file(new));
        if old_file.is_some() || new_file.is_some() {
            if self.changed.paths.len() < self.limit {
                self.changed.paths.push(ChangedPath { path: path.into(), old: old_file, new: new_file });
            } else {
                self.changed.more += 1;
            }
        }
        if folder(old).is_none() && folder(new).is_none() {
            return Ok(());
        }
        let mut names: BTreeMap<Vec<u8>, (Side, Side)> = BTreeMap::new();
        self.children(folder(old), path, &mut names, |pair, found| pair.0 = Some(found))?;
        self.children(folder(new), path, &mut names, |pair, found| pair.1 = Some(found))?;
        for (name, (old, new)) in names {
            if old == new || hostile_name(&name).is_some() {
                continue;
            }
            let name = String::from_utf8_lossy(&name);
            let full = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
            self.entry(old, new, &full, depth + 1)?;
        }
        Ok(())
    }

    fn children(
        &self,
        tree: Option<Oid>,
        path: &str,
        names: &mut BTreeMap<Vec<u8>, (Side, Side)>,
        put: impl Fn(&mut (Side, Side), (i32, Oid)),
    ) -> Result<(), GitError> {
        let Some(oid) = tree else { return Ok(()) };
        let tree =
            self.repository.find_tree(oid).map_err(|e| on_disk(&format!("the folder `{path}` cannot be read"), &e))?;
        for entry in &tree {
            put(names.entry(entry.name_bytes().to_vec()).or_default(), (entry.filemode_raw(), entry.id()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::git::testing::Repo;

    #[test]
    fn names_what_was_added_changed_removed_and_turned_from_a_file_into_a_folder() {
        let repo = Repo::new();
        let old = repo.commit(&[("a.yaml", "1"), ("same/x.yaml", "1"), ("gone.yaml", "1"), ("turn", "1")]);
        let new = repo.commit(&[("a.yaml", "2"), ("same/x.yaml", "1"), ("new/y.yaml", "1"), ("turn/z.yaml", "1")]);
        let changed = changed_paths(repo.git_dir(), &old, &new, "", 100).unwrap();
        let shown: Vec<_> = changed.paths.iter().map(|p| (p.path.as_str(), p.old.is_some(), p.new.is_some())).collect();
        assert_eq!(
            shown,
            [
                ("a.yaml", true, true),
                ("gone.yaml", true, false),
                ("new/y.yaml", false, true),
                ("turn", true, false),
                ("turn/z.yaml", false, true)
            ]
        );
        assert_eq!(changed_paths(repo.git_dir(), &old, &new, "same", 100).unwrap(), Changed::default());
        assert_eq!(changed_paths(repo.git_dir(), &old, &new, "new", 100).unwrap().paths.len(), 1);
        let cut = changed_paths(repo.git_dir(), &old, &new, "", 2).unwrap();
        assert_eq!((cut.paths.len(), cut.more), (2, 3));
    }

    #[test]
    fn a_commit_that_is_not_there_is_named() {
        let repo = Repo::new();
        let here = repo.commit(&[("a.yaml", "1")]);
        let error = changed_paths(repo.git_dir(), &"0".repeat(40), &here, "", 1).unwrap_err();
        assert_eq!(error.kind, GitErrorKind::NoReference);
    }
}
