//! libgit2's settings that hold for the whole process. The one place of this room with `unsafe`: libgit2 keeps them in
//! plain global variables, and the binding leaves it to the caller that nobody else uses the library at that moment.

use super::error::{GitError, GitErrorKind, quoted};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// How long a connection may take to come up.
pub(super) const CONNECT_TIMEOUT_MILLIS: i32 = 10_000;
/// How long a server may be silent.
pub(super) const SILENCE_TIMEOUT_MILLIS: i32 = 30_000;

/// Makes libgit2 safe to use: no configuration but a repository's own, time-outs on sockets, and OpenSSH for `ssh://`.
/// Every entry of this room calls it first; only the first call does something.
pub(super) fn initialise() -> Result<(), GitError> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| set_up().map_err(|e| quoted(e.message())))
        .clone()
        .map_err(|e| GitError::new(GitErrorKind::Other, format!("libgit2 cannot be set up: {e}")))
}

#[expect(
    unsafe_code,
    reason = "libgit2's global options; called once, under a OnceLock that every other use of libgit2 in this crate waits for"
)]
fn set_up() -> Result<(), git2::Error> {
    use git2::ConfigLevel::{Global, ProgramData, System, XDG};
    git2::opts::strict_hash_verification(true);
    // SAFETY: `initialise` runs this exactly once and before any other call of libgit2: all entries of this room wait for
    // it, and no other room uses git2. So nothing reads these variables while they are written.
    unsafe {
        for level in [ProgramData, System, XDG, Global] {
            git2::opts::set_search_path(level, "")?;
        }
        git2::opts::set_server_connect_timeout_in_milliseconds(CONNECT_TIMEOUT_MILLIS)?;
        git2::opts::set_server_timeout_in_milliseconds(SILENCE_TIMEOUT_MILLIS)?;
        // The name of a scheme; `://` is added to it.
        git2::transport::register("ssh", super::ssh::transport)?;
    }
    Ok(())
}

/// Trusts the certificate authorities of a PEM file for `https://`, besides the system's. For the whole process: libgit2
/// knows no other way. It concerns Git only; a file is added once.
#[expect(unsafe_code, reason = "libgit2's global trust store; see the comment in the block")]
pub(super) fn trust(ca_file: &Path) -> Result<(), GitError> {
    static TRUSTED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    initialise()?;
    let mut trusted = TRUSTED.lock().unwrap_or_else(PoisonError::into_inner);
    if trusted.contains(ca_file) {
        return Ok(());
    }
    // Read here as well, because OpenSSL's words for a missing file help nobody.
    std::fs::read(ca_file).map_err(|e| {
        GitError::new(GitErrorKind::Certificate, format!("the CA file `{}` cannot be read: {e}", ca_file.display()))
            .hint("`git.ca-file` names a PEM file with the authority's certificate")
    })?;
    // SAFETY: the call adds to an OpenSSL trust store, which has its own lock; calls of ours are one at a time under the
    // mutex, and the path is a valid string for the length of the call.
    unsafe { git2::opts::set_ssl_cert_file(ca_file) }.map_err(|e| {
        GitError::new(
            GitErrorKind::Certificate,
            format!("the CA file `{}` cannot be used: {}", ca_file.display(), quoted(e.message())),
        )
        .hint("it must hold certificates in PEM form (`-----BEGIN CERTIFICATE-----`)")
    })?;
    trusted.insert(ca_file.to_owned());
    Ok(())
}
