//! Where manifests come from: a folder, standard input, or a Git repository that is never checked out.

pub mod folder;
pub mod git;
mod secret;
pub mod stdin;

pub use secret::{SecretError, SecretSource};
