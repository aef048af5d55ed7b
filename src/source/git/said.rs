//! What servers and libgit2 say, in words that tell the operator what to do.

use super::error::{GitError, GitErrorKind, on_disk, quoted};
use super::mirror::Reference;
use super::url::GitUrl;
use git2::{ErrorClass, ErrorCode};
use std::time::Duration;

/// Turns an error of a connection into one that tells what to do. `asked`: whether the server asked for credentials.
pub(super) fn understand(url: &GitUrl, e: &git2::Error, asked: bool) -> GitError {
    let said = quoted(e.message());
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    let disk = on_disk(&format!("what `{url}` sent cannot be stored"), e);
    if disk.kind == GitErrorKind::Disk {
        return disk;
    }
    match (e.code(), e.class()) {
        (ErrorCode::Certificate, _) | (_, ErrorClass::Ssl) => {
            GitError::new(GitErrorKind::Certificate, format!("the TLS certificate of `{url}` is not trusted: {said}"))
                .hint("name the file with its authority as `git.ca-file`; there is no switch to skip the check")
        }
        (_, ErrorClass::Net | ErrorClass::Http) if has(&["redirect"]) => {
            GitError::new(GitErrorKind::Refused, format!("`{url}` sends Drover elsewhere: {said}"))
                .hint("redirects to another host, or away from https://, are not followed: give the final address")
        }
        (ErrorCode::Auth, _) if asked => wrong_token(url),
        (_, ErrorClass::Http) if has(&["401", "403", "authentication"]) => {
            if asked {
                return wrong_token(url);
            }
            GitError::new(GitErrorKind::Auth, format!("`{url}` refuses access: {said}"))
                .hint("check the token's permissions: it needs to read this repository")
        }
        (_, ErrorClass::Http) if has(&["404"]) => {
            GitError::new(GitErrorKind::NoRepository, format!("there is no repository at `{url}`"))
                .hint("check the address; servers also say so when the token may not see the repository")
        }
        (ErrorCode::Owner, _) => on_disk(&format!("`{url}` cannot be opened"), e),
        _ if url.local().is_some() => local(url, e, &said),
        (_, ErrorClass::Net) if has(&["not found", "not exported", "access denied"]) => {
            GitError::new(GitErrorKind::NoRepository, format!("the server has no repository `{url}`: {said}"))
                .hint("check the address, and that the server offers this repository")
        }
        (ErrorCode::Timeout, _) => {
            GitError::new(GitErrorKind::Timeout, format!("`{url}` was silent for too long: {said}"))
        }
        (_, ErrorClass::Net | ErrorClass::Os | ErrorClass::Http) => {
            GitError::new(GitErrorKind::Unreachable, format!("`{url}` cannot be read: {said}"))
                .hint("it is tried again; the last good commit stays in force")
        }
        _ => GitError::new(GitErrorKind::Other, format!("fetching from `{url}` failed: {said}")),
    }
}

/// The same for a repository on this machine.
fn local(url: &GitUrl, e: &git2::Error, said: &str) -> GitError {
    let error = on_disk(&format!("`{url}` cannot be read"), e);
    if error.kind == GitErrorKind::NoRepository || e.code() == ErrorCode::NotFound {
        return GitError::new(GitErrorKind::NoRepository, format!("there is no repository at `{url}`: {said}"))
            .hint("it is not a Git repository, or not any more");
    }
    error.hint("look at it with `git fsck`; the last good commit stays in force")
}

pub(super) fn without_article(reference: &Reference) -> String {
    match reference {
        Reference::Head => "`HEAD` that leads to a branch".into(),
        other => other.to_string(),
    }
}

pub(super) fn empty(url: &GitUrl) -> GitError {
    GitError::new(GitErrorKind::Empty, format!("`{url}` is empty: it has no commit yet"))
        .hint("push a first commit; nothing is changed until then")
}

pub(super) fn wrong_token(url: &GitUrl) -> GitError {
    GitError::new(GitErrorKind::Auth, format!("`{url}` does not accept the configured token"))
        .hint("was it revoked, has it expired, may it read this repository? A new one in the token file is used at the next fetch")
}

pub(super) fn cancelled(url: &GitUrl) -> GitError {
    GitError::new(GitErrorKind::Cancelled, format!("the fetch from `{url}` was cancelled"))
}

pub(super) fn timeout(url: &GitUrl, after: Duration) -> GitError {
    GitError::new(GitErrorKind::Timeout, format!("`{url}` did not send everything within {} s", after.as_secs()))
        .hint("raise `git.timeout` if the repository is that large or the line that slow")
}
