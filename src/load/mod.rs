//! From text to [`Desired`](crate::kind::Desired): documents with positions, schemas, types, references and rules. All
//! errors of all files in one run.

mod decode;
mod diagnose;
mod encoding;
mod gather;
pub mod schema;
mod text;
pub mod tree;

pub use crate::yaml::Limits;
pub use gather::load;
pub use tree::MemoryTree;

use crate::finding::Finding;
use crate::kind::Desired;

/// A folder, a Git revision or standard input, read as a tree of files. Implementations never follow symbolic links and
/// never leave the tree.
pub trait Tree {
    /// Every regular file below the configured path that a manifest may be in (`*.yaml`, `*.yml`), sorted by path, with
    /// its size; and notes about what was left out.
    fn list(&self) -> Result<Listing, TreeError>;
    /// The bytes of a regular file; refuses one larger than `limit`, a link, or a path that leaves the tree. `path` is
    /// relative to the tree's root, as in [`Entry::path`].
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError>;
}

/// What a tree has.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The files.
    pub files: Vec<Entry>,
    /// What was left out, and why (links, submodules).
    pub notes: Vec<Finding>,
}

/// A file in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path below the root, with `/`.
    pub path: String,
    /// Size in bytes, known without reading it.
    pub size: u64,
    /// The Git blob, where it is one.
    pub blob: Option<String>,
}

/// Why a tree or a file in it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// No such file.
    #[error("`{0}` is not there")]
    Missing(String),
    /// It is a link, a folder, a submodule, or outside the tree.
    #[error("`{path}` is {what}, not a regular file of the repository")]
    NotAFile {
        /// The path.
        path: String,
        /// What it is instead.
        what: String,
    },
    /// Larger than allowed.
    #[error("`{path}` has {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// The path.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The system said no.
    #[error("`{path}`: {why}")]
    Io {
        /// The path.
        path: String,
        /// What it said.
        why: String,
    },
}

/// What loading gives.
#[derive(Debug)]
pub struct Loaded {
    /// The resources; only when there is no error.
    pub desired: Option<Desired>,
    /// Everything there is to say, sorted by place.
    pub findings: Vec<Finding>,
}
