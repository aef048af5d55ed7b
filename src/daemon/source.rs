//! Where the daemon gets commits from.

use crate::source::git::{GitError, GitErrorKind, GitUrl, Mirror, Reference, open_local};
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A commit that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its full id.
    pub commit: String,
    /// The id of the followed folder's tree in it: two commits with one id want the same. `None` where that is not known,
    /// for example because the commit has no such folder.
    pub tree: Option<String>,
    /// Whether it does not descend from the commit before.
    pub rewritten: bool,
    /// Whether the mirror was damaged and made anew.
    pub made_anew: bool,
}

/// What the daemon follows. Implemented by [`GitSource`]; tests have their own.
#[async_trait]
pub trait RevisionSource: Send + Sync {
    /// Asks for the newest commit.
    async fn fetch(&self, cancel: &CancellationToken) -> Result<Found, GitError>;
    /// The commit that was in force when the daemon ended last.
    async fn good(&self) -> Option<Found>;
    /// Remembers the commit that is in force.
    async fn mark_good(&self, commit: &str) -> Result<(), GitError>;
    /// Something could not be read: the next fetch checks everything on disk.
    fn distrust(&self);
    /// The folder whose references tell of a push, where the repository is on this machine.
    fn watched(&self) -> Option<PathBuf>;
    /// The repository, without credentials; what of it is followed; the folder in it.
    fn describe(&self) -> (String, String, String);
}

/// A mirror and what of it is followed.
pub struct GitSource {
    mirror: Arc<Mirror>,
    reference: Reference,
    path: String,
}

impl GitSource {
    /// Follows `reference` of a mirror, and the folder `path` in it.
    pub fn new(mirror: Arc<Mirror>, reference: Reference, path: impl Into<String>) -> Self {
        Self { mirror, reference, path: path.into() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mirror, &Reference, &str) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, GitError> {
        let (mirror, reference, path) = (self.mirror.clone(), self.reference.clone(), self.path.clone());
        tokio::task::spawn_blocking(move || work(&mirror, &reference, &path)).await.map_err(|e| {
            GitError::new(GitErrorKind::Other, format!("the thread that reads the repository ended: {e}"))
        })?
    }
}

/// How long a fetch may go on after its own deadline. A server that answers a byte now and then is not noticed by libgit2
/// until objects arrive; its thread is left to itself, and the next fetch waits for it within its own deadline.
const FETCH_SLACK: Duration = Duration::from_secs(2);

fn tree_of(mirror: &Mirror, commit: &str, path: &str) -> Option<String> {
    mirror.tree(commit, path).ok().map(|t| t.tree_id())
}

#[async_trait]
impl RevisionSource for GitSource {
    async fn fetch(&self, cancel: &CancellationToken) -> Result<Found, GitError> {
        let cancel = cancel.clone();
        let limit = self.mirror.limits().timeout + FETCH_SLACK;
        let work = self.blocking(move |mirror, reference, path| {
            let fetched = mirror.fetch(reference, &cancel)?;
            Ok(Found {
                tree: tree_of(mirror, &fetched.commit, path),
                commit: fetched.commit,
                rewritten: fetched.rewritten,
                made_anew: fetched.made_anew,
            })
        });
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let url = self.mirror.url();
            Err(GitError::new(GitErrorKind::Timeout, format!("`{url}` keeps a connection open without getting on"))
                .hint("the fetch is left alone and tried again; the last good commit stays in force"))
        })
    }

    async fn good(&self) -> Option<Found> {
        self.blocking(|mirror, _, path| {
            Ok(mirror.good().map(|commit| Found { tree: tree_of(mirror, &commit, path), commit, ..Found::default() }))
        })
        .await
        .ok()
        .flatten()
    }

    async fn mark_good(&self, commit: &str) -> Result<(), GitError> {
        let commit = commit.to_owned();
        self.blocking(move |mirror, _, _| mirror.mark_good(&commit)).await
    }

    fn distrust(&self) {
        self.mirror.distrust();
    }

    fn watched(&self) -> Option<PathBuf> {
        match self.mirror.url() {
            GitUrl::Local(path) => open_local(path).ok().map(|r| r.references_dir().to_owned()),
            _ => None,
        }
    }

    fn describe(&self) -> (String, String, String) {
        (self.mirror.url().to_string(), self.reference.to_string(), self.path.clone())
    }
}
