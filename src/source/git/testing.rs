//! Repositories made in memory of the test's own, object by object.

use super::tree::GitTree;
use git2::{Oid, Repository, RepositoryInitOptions, Signature, Time};
use std::path::Path;

pub(super) struct Repo {
    dir: tempfile::TempDir,
    repository: Repository,
}

impl Repo {
    pub(super) fn new() -> Self {
        super::library::initialise().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false).initial_head("main");
        let repository = Repository::init_opts(dir.path(), &options).unwrap();
        Self { dir, repository }
    }

    pub(super) fn git_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn blob(&self, bytes: &[u8]) -> Oid {
        self.repository.blob(bytes).unwrap()
    }

    /// A tree object with exactly these entries, whatever Git's own tools think of them.
    pub(super) fn raw_tree(&self, entries: &[(&str, &str, Oid)]) -> Oid {
        let mut bytes = Vec::new();
        for (mode, name, oid) in entries {
            bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            bytes.extend_from_slice(oid.as_bytes());
        }
        self.repository.odb().unwrap().write(git2::ObjectType::Tree, &bytes).unwrap()
    }

    /// A commit on `main` with this tree.
    pub(super) fn commit_tree(&self, tree: Oid) -> String {
        let head = self.repository.find_reference("refs/heads/main").ok().and_then(|r| r.target());
        let who = Signature::new("t", "t@example.com", &Time::new(1_700_000_000, 0)).unwrap();
        let parent = head.map(|h| format!("parent {h}\n")).unwrap_or_default();
        let text =
            format!("tree {tree}\n{parent}author {who} 1700000000 +0000\ncommitter {who} 1700000000 +0000\n\ntest\n");
        let oid = self.repository.odb().unwrap().write(git2::ObjectType::Commit, text.as_bytes()).unwrap();
        self.repository.reference("refs/heads/main", oid, true, "test").unwrap();
        oid.to_string()
    }

    /// A commit on `main` with exactly these files.
    pub(super) fn commit(&self, files: &[(&str, &str)]) -> String {
        let mut index = git2::Index::new().unwrap();
        for (path, content) in files {
            index
                .add(&git2::IndexEntry {
                    ctime: git2::IndexTime::new(0, 0),
                    mtime: git2::IndexTime::new(0, 0),
                    dev: 0,
                    ino: 0,
                    mode: 0o100_644,
                    uid: 0,
                    gid: 0,
                    file_size: 0,
                    id: self.blob(content.as_bytes()),
                    flags: 0,
                    flags_extended: 0,
                    path: path.as_bytes().to_vec(),
                })
                .unwrap();
        }
        self.commit_tree(index.write_tree_to(&self.repository).unwrap())
    }

    pub(super) fn tree(&self, commit: &str, path: &str) -> GitTree {
        GitTree::open(self.git_dir(), commit, path).unwrap()
    }
}
