//! A Git repository as a source of manifests: mirrored on disk, never checked out, read from its object database.
//!
//! *Promises*: nothing of the user's or the system's Git configuration has an effect (no `insteadOf`, no hook, no
//! credential helper). A fetch that fails leaves the last good commit in place. A server is only talked to after its key
//! or certificate was checked. Every fetch has a limit in time and in bytes. No credential is part of an error.
//!
//! All calls block; async callers use `tokio::task::spawn_blocking`.

mod access;
mod diff;
mod error;
mod fetch;
mod library;
mod local;
mod mirror;
mod said;
mod ssh;
#[cfg(test)]
mod testing;
mod tree;
mod url;

pub use access::{GitAccess, SshAccess};
pub use diff::{Changed, ChangedPath, changed_paths};
pub use error::{GitError, GitErrorKind};
pub use local::{LocalRepository, open_local};
pub use mirror::{FetchLimits, Fetched, Mirror, Reference};
pub use tree::GitTree;
pub use url::GitUrl;
