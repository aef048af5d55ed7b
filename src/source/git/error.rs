//! Why something with Git failed, in words for the operator.

use std::fmt;

/// An error with what to do about it. It never contains a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GitError {
    /// What sort of error, for decisions and metrics.
    pub kind: GitErrorKind,
    /// What failed, on which repository, and what was said.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Sorts of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GitErrorKind {
    /// A URL or name that is not allowed, or not without the operator's word.
    Refused,
    /// The server wants other credentials.
    Auth,
    /// The server's SSH key is not known, or not the known one.
    HostKey,
    /// The server's TLS certificate is not trusted.
    Certificate,
    /// The server does not answer.
    Unreachable,
    /// There is no such repository.
    NoRepository,
    /// The repository has no such branch, tag or commit.
    NoReference,
    /// The commit has no such folder.
    NoFolder,
    /// The repository has no commit at all.
    Empty,
    /// The repository or the mirror is damaged.
    Corrupt,
    /// More than the allowed bytes.
    TooLarge,
    /// Not done within the allowed time.
    Timeout,
    /// Drover was asked to stop.
    Cancelled,
    /// Owned or writable by somebody else.
    Owner,
    /// The disk is full or cannot be written.
    Disk,
    /// Anything else.
    Other,
}

impl GitError {
    /// An error of a sort.
    pub fn new(kind: GitErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Message and hint on one line, for a log or the status.
    pub fn full(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for GitErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Auth => "auth",
            Self::HostKey => "host-key",
            Self::Certificate => "certificate",
            Self::Unreachable => "unreachable",
            Self::NoRepository => "no-repository",
            Self::NoReference => "no-reference",
            Self::NoFolder => "no-folder",
            Self::Empty => "empty",
            Self::Corrupt => "corrupt",
            Self::TooLarge => "too-large",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Owner => "owner",
            Self::Disk => "disk",
            Self::Other => "other",
        })
    }
}

/// What a server or a library said, on one line, without control characters, cut at 300 characters.
pub(super) fn quoted(text: &str) -> String {
    let mut line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) { ' ' } else { c })
        .take(300)
        .collect();
    while line.contains("  ") {
        line = line.replace("  ", " ");
    }
    line
}

/// Classifies an error of libgit2 that came from reading or writing a repository on this machine.
pub(super) fn on_disk(what: &str, e: &git2::Error) -> GitError {
    let said = quoted(e.message());
    let kind = match (e.code(), e.class()) {
        (git2::ErrorCode::Owner, _) => GitErrorKind::Owner,
        _ if said.contains("No space left")
            || said.contains("Disk quota")
            || said.contains("Read-only file system") =>
        {
            GitErrorKind::Disk
        }
        (git2::ErrorCode::NotFound, git2::ErrorClass::Repository | git2::ErrorClass::Os) => GitErrorKind::NoRepository,
        _ => GitErrorKind::Corrupt,
    };
    let error = GitError::new(kind, format!("{what}: {said}"));
    match kind {
        GitErrorKind::Owner => error.hint(
            "the repository belongs to another user: run Drover as its owner, change its owner, or serve it over ssh:// or https://",
        ),
        GitErrorKind::Disk => error.hint("make space, or make the folder writable; the last good commit stays in force"),
        _ => error,
    }
}
