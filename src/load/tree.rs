//! Trees without I/O: paths within a tree, and a tree in memory.

use super::{Entry, Listing, Tree, TreeError};
use std::collections::BTreeMap;

/// The name that standard input has as a file.
pub const STDIN: &str = "-";

/// Tells whether a path (below the configured one, with `/`) is one that a manifest may be in: `*.yaml` or `*.yml`, and
/// neither it nor a folder on the way to it is hidden. Every kind of tree lists by this one rule.
pub fn is_manifest_path(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let fits = matches!(name.rsplit_once('.'), Some((stem, "yaml" | "yml")) if !stem.is_empty());
    fits && !path.split('/').any(|part| part.starts_with('.'))
}

/// The path that `reference` means when it stands in the file `from`: relative to that file's folder, and never outside
/// of the tree.
pub fn resolve(from: &str, reference: &str) -> Result<String, TreeError> {
    let refuse = |what: &str| TreeError::NotAFile { path: reference.to_owned(), what: what.to_owned() };
    if reference.is_empty() {
        return Err(refuse("empty"));
    }
    if reference.starts_with('/') {
        return Err(refuse("an absolute path"));
    }
    if reference.contains('\\') || reference.chars().any(char::is_control) {
        return Err(refuse("a path with a backslash or a control character"));
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in reference.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(refuse("outside of the repository"));
                }
            }
            ".git" => return Err(refuse("part of the repository's own data")),
            part => parts.push(part),
        }
    }
    if parts.is_empty() || reference.ends_with('/') {
        return Err(refuse("a folder"));
    }
    Ok(parts.join("/"))
}

/// A tree in memory: standard input, tests, and what other programs hand over.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    files: BTreeMap<String, Vec<u8>>,
}

impl MemoryTree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    #[must_use]
    pub fn with(mut self, path: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }

    /// A tree that has nothing but standard input.
    pub fn stdin(text: impl Into<Vec<u8>>) -> Self {
        Self::new().with(STDIN, text)
    }
}

impl Tree for MemoryTree {
    fn list(&self) -> Result<Listing, TreeError> {
        let files = self
            .files
            .iter()
            .filter(|(path, _)| is_manifest_path(path) || *path == STDIN)
            .map(|(path, text)| Entry { path: path.clone(), size: text.len() as u64, blob: None })
            .collect();
        Ok(Listing { files, notes: Vec::new() })
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError> {
        let text = self.files.get(path).ok_or_else(|| TreeError::Missing(path.to_owned()))?;
        let size = text.len() as u64;
        if size > limit {
            return Err(TreeError::TooLarge { path: path.to_owned(), size, limit });
        }
        Ok(text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_things_and_other_endings_are_not_manifests() {
        for good in ["a.yaml", "a/b/c.yml", "a.b.yaml"] {
            assert!(is_manifest_path(good), "{good}");
        }
        for bad in ["a.yaml/b.json", ".git/x.yaml", "a/.hidden/x.yaml", ".x.yaml", ".yaml", "yaml", "a.yaml.bak", "-"] {
            assert!(!is_manifest_path(bad), "{bad}");
        }
    }

    #[test]
    fn a_reference_never_leaves_the_tree() {
        assert_eq!(resolve("prod/vms.yaml", "xml/web.xml").as_deref(), Ok("prod/xml/web.xml"));
        assert_eq!(resolve("prod/vms.yaml", "../xml/./web.xml").as_deref(), Ok("xml/web.xml"));
        for bad in ["", "/etc/passwd", "../../etc/passwd", "..", "x/", "../.git/config", "a\\b", "a\0b", "x/../../../y"]
        {
            assert!(resolve("prod/vms.yaml", bad).is_err(), "{bad:?}");
        }
        assert!(resolve(STDIN, "../x").is_err());
    }
}
