//! A folder as a tree. Never follows a symbolic link, never leaves the folder, skips what is hidden.

use crate::finding::{Code, Finding, Source};
use crate::load::tree::is_manifest_path;
use crate::load::{Entry, Listing, Tree, TreeError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Folders below the root that are looked into; a tree of manifests is not nested deeper.
const DEPTH: usize = 64;

/// A folder, or one file of it.
#[derive(Clone, Debug)]
pub struct FolderTree {
    root: PathBuf,
    only: Option<String>,
}

impl FolderTree {
    /// Opens a folder; or a single file, which then is the only manifest of its folder. The path itself may be a link,
    /// because the operator named it; nothing below it may.
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let shown = path.display().to_string();
        let root = path.canonicalize().map_err(|e| io_error(&shown, &e))?;
        if !root.is_file() {
            return Ok(Self { root, only: None });
        }
        let (folder, name) = (root.parent(), root.file_name().and_then(|n| n.to_str()));
        match (folder, name) {
            (Some(folder), Some(name)) => Ok(Self { root: folder.to_owned(), only: Some(name.to_owned()) }),
            _ => Err(TreeError::NotAFile { path: shown, what: "a file whose name is not UTF-8".into() }),
        }
    }

    /// Opens a regular file of the tree, no step on the way to which is a link; gives its size as well.
    fn open_regular(&self, path: &str) -> Result<(File, u64), TreeError> {
        let refuse = |what: &str| TreeError::NotAFile { path: path.to_owned(), what: what.to_owned() };
        let mut full = self.root.clone();
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, "" | "." | "..") || part.contains('\0') {
                return Err(refuse("outside of the folder"));
            }
            full.push(part);
            let kind = fs::symlink_metadata(&full).map_err(|e| io_error(path, &e))?.file_type();
            if kind.is_symlink() {
                return Err(refuse("a symbolic link"));
            }
            if parts.peek().is_some() && !kind.is_dir() {
                return Err(refuse("below something that is not a folder"));
            }
        }
        // The look above and the opening are two calls: a link put there in between is not followed either, and a pipe
        // does not make the opening wait.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&full)
            .map_err(|e| {
                if e.raw_os_error() == Some(libc::ELOOP) { refuse("a symbolic link") } else { io_error(path, &e) }
            })?;
        let meta = file.metadata().map_err(|e| io_error(path, &e))?;
        if !meta.is_file() {
            return Err(refuse(if meta.is_dir() { "a folder" } else { "a device, a pipe or a socket" }));
        }
        Ok((file, meta.len()))
    }
}

impl Tree for FolderTree {
    fn list(&self) -> Result<Listing, TreeError> {
        let mut listing = Listing::default();
        if let Some(only) = &self.only {
            let (_, size) = self.open_regular(only)?;
            listing.files.push(Entry { path: only.clone(), size, blob: None });
            return Ok(listing);
        }
        let mut folders = vec![(self.root.clone(), String::new(), 0)];
        while let Some((folder, below, depth)) = folders.pop() {
            let shown = if below.is_empty() { "." } else { &below };
            for entry in fs::read_dir(&folder).map_err(|e| io_error(shown, &e))? {
                let entry = entry.map_err(|e| io_error(shown, &e))?;
                let name = entry.file_name();
                if name.as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let Some(name) = name.to_str() else {
                    listing.notes.push(left_out(
                        shown,
                        format!("`{}` is not read: its name is not UTF-8", name.to_string_lossy()),
                    ));
                    continue;
                };
                let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
                // Of the entry itself, not of what a link points at.
                let meta = fs::symlink_metadata(entry.path()).map_err(|e| io_error(&path, &e))?;
                let kind = meta.file_type();
                if kind.is_symlink() {
                    listing.notes.push(left_out(&path, "a symbolic link is not followed".into()));
                } else if kind.is_dir() && depth < DEPTH {
                    folders.push((entry.path(), path, depth + 1));
                } else if kind.is_dir() {
                    listing.notes.push(left_out(&path, format!("folders more than {DEPTH} deep are not read")));
                } else if is_manifest_path(&path) && kind.is_file() {
                    listing.files.push(Entry { path, size: meta.len(), blob: None });
                } else if is_manifest_path(&path) {
                    listing.notes.push(left_out(&path, "it is not a regular file".into()));
                }
            }
        }
        listing.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError> {
        let (file, size) = self.open_regular(path)?;
        if size > limit {
            return Err(TreeError::TooLarge { path: path.to_owned(), size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        // The file may grow meanwhile.
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| io_error(path, &e))?;
        if bytes.len() as u64 > limit {
            return Err(TreeError::TooLarge { path: path.to_owned(), size: bytes.len() as u64, limit });
        }
        Ok(bytes)
    }
}

fn left_out(path: &str, why: String) -> Finding {
    Finding::new(Code::Ignored, why).at(Source { file: path.to_owned(), line: 1, column: 1 })
}

fn io_error(path: &str, error: &io::Error) -> TreeError {
    match error.kind() {
        io::ErrorKind::NotFound => TreeError::Missing(path.to_owned()),
        _ => TreeError::Io { path: path.to_owned(), why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn paths(tree: &FolderTree) -> Vec<String> {
        tree.list().unwrap().files.into_iter().map(|f| f.path).collect()
    }

    #[test]
    fn manifests_are_listed_in_order_and_hidden_folders_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b.yaml", "a/z.yml", "a/a.yaml", ".git/x.yaml", ".github/ci.yaml", "README.md", "a.json"] {
            let full = dir.path().join(path);
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, "x").unwrap();
        }
        let tree = FolderTree::open(dir.path()).unwrap();
        assert_eq!(paths(&tree), ["a/a.yaml", "a/z.yml", "b.yaml"]);
        assert_eq!(tree.list().unwrap().files[0].size, 1);
    }

    #[test]
    fn one_file_is_a_tree_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.txt"), "x").unwrap();
        fs::write(dir.path().join("b.yaml"), "x").unwrap();
        let tree = FolderTree::open(&dir.path().join("a.txt")).unwrap();
        assert_eq!(paths(&tree), ["a.txt"]);
        assert_eq!(tree.read("b.yaml", 10).unwrap(), b"x");
    }

    #[test]
    fn links_are_named_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::write(at("real.yaml"), "x").unwrap();
        symlink("/etc/passwd", at("passwd.yaml")).unwrap();
        symlink("/etc", at("etc")).unwrap();
        symlink("real.yaml", at("twin.yaml")).unwrap();
        symlink("nowhere", at("dangling.yaml")).unwrap();
        symlink("loop.yaml", at("loop.yaml")).unwrap();
        symlink("..", at("up")).unwrap();
        let tree = FolderTree::open(dir.path()).unwrap();
        assert_eq!(paths(&tree), ["real.yaml"]);
        assert_eq!(tree.list().unwrap().notes.len(), 6);
        for path in ["passwd.yaml", "etc/passwd", "twin.yaml", "loop.yaml", "up/x", "../x", "/etc/passwd", ""] {
            assert!(matches!(tree.read(path, 1 << 20), Err(TreeError::NotAFile { .. })), "{path}");
        }
    }

    #[test]
    fn size_is_checked_before_and_while_reading_and_a_pipe_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("big.yaml"), "0123456789").unwrap();
        let pipe = dir.path().join("pipe.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let tree = FolderTree::open(dir.path()).unwrap();
        assert!(matches!(tree.read("big.yaml", 9), Err(TreeError::TooLarge { size: 10, .. })));
        assert!(matches!(tree.read("pipe.yaml", 9), Err(TreeError::NotAFile { .. })));
        assert_eq!(paths(&tree), ["big.yaml"]);
        assert!(matches!(tree.read("none.yaml", 9), Err(TreeError::Missing(_))));
    }
}
