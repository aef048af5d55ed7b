//! One fetch: connect, ask what there is, bring what is missing, within limits.

use super::access::GitAccess;
use super::error::{GitError, GitErrorKind, on_disk, quoted};
use super::local::open_at;
use super::mirror::{FOLLOWED, FetchLimits, Fetched, GOOD, Reference, commit_of};
use super::said::{cancelled, empty, timeout, understand, wrong_token};
use super::ssh::SshSession;
use super::url::GitUrl;
use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, ProxyOptions,
    RemoteCallbacks, Repository,
};
use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Where a fetch puts what it got, before it counts.
const INCOMING: &str = "refs/drover/incoming";
/// libgit2's depth that turns a shallow repository into a full one.
const UNSHALLOW: i32 = i32::MAX;

/// One fetch, with its limits.
pub(super) struct Fetch<'m> {
    pub(super) url: &'m GitUrl,
    pub(super) access: &'m GitAccess,
    pub(super) limits: FetchLimits,
    pub(super) deadline: Instant,
    pub(super) cancel: &'m CancellationToken,
}

impl<'m> Fetch<'m> {
    /// Fetches `reference` into the repository at `git_dir`. `all_history` overrides a shallow first fetch.
    pub(super) fn bring(&self, git_dir: &Path, reference: &Reference, all_history: bool) -> Result<Fetched, GitError> {
        let repository = open_at(git_dir)?;
        let previous = commit_of(&repository, FOLLOWED);
        let smart = self.url.local().is_none();
        let received = RefCell::new(0);
        let commit = self.connected(&repository, &received, |remote, callbacks, heads| {
            if let Reference::Commit(id) = reference {
                let id = Oid::from_str(id).ok().filter(|_| id.len() == 40).ok_or_else(|| {
                    GitError::new(GitErrorKind::Refused, format!("`{}` is not the full id of a commit", quoted(id)))
                })?;
                if repository.find_commit(id).is_err() {
                    download(remote, &EVERYTHING, callbacks(), if repository.is_shallow() { UNSHALLOW } else { 0 })?;
                }
                return repository.find_commit(id).map(|c| c.id()).map_err(|_| {
                    let why = format!("no branch or tag of `{}` leads to the commit {id}", self.url);
                    Failure::Known(GitError::new(GitErrorKind::NoReference, why))
                });
            }
            let (name, tip) = self.find(reference, heads)?;
            let known = repository.find_object(tip, None).and_then(|o| o.peel_to_commit()).map(|c| c.id());
            if let Ok(commit) = known
                && (Some(commit) == previous || commit_of(&repository, GOOD) == Some(commit))
            {
                return Ok(commit);
            }
            let first = previous.is_none() && !repository.is_shallow();
            let depth = i32::from(smart && first && self.limits.shallow && !all_history);
            download(remote, &[format!("+{name}:{INCOMING}")], callbacks(), depth)?;
            let incoming =
                repository.find_reference(INCOMING).and_then(|r| r.peel_to_commit()).map_err(Failure::Git)?;
            Ok(incoming.id())
        })?;
        let rewritten = previous.is_some_and(|old| {
            old != commit
                && repository.find_commit(old).is_ok()
                && !repository.graph_descendant_of(commit, old).unwrap_or(true)
        });
        // A quiet repository causes no writes.
        if previous != Some(commit) {
            repository
                .reference(FOLLOWED, commit, true, "fetched")
                .map_err(|e| on_disk(&format!("the mirror `{}` cannot be written", git_dir.display()), &e))?;
        }
        Ok(Fetched {
            commit: commit.to_string(),
            previous: previous.map(|p| p.to_string()),
            rewritten,
            made_anew: false,
            received_bytes: received.into_inner(),
        })
    }

    pub(super) fn everything(&self, git_dir: &Path) -> Result<(), GitError> {
        let repository = open_at(git_dir)?;
        self.connected(&repository, &RefCell::new(0), |remote, callbacks, heads| {
            if heads.is_empty() {
                return Err(Failure::Known(empty(self.url)));
            }
            download(remote, &EVERYTHING, callbacks(), if repository.is_shallow() { UNSHALLOW } else { 0 })
                .map_err(Failure::Git)
        })
    }

    /// Which of the server's references is meant, and what it points to.
    fn find(&self, reference: &Reference, heads: &[(String, Oid)]) -> Result<(String, Oid), GitError> {
        let url = self.url;
        if heads.is_empty() {
            return Err(empty(url));
        }
        let (prefix, short) = match reference {
            Reference::Head | Reference::Commit(_) => ("", "HEAD"),
            Reference::Branch(name) => ("refs/heads/", name.as_str()),
            Reference::Tag(name) => ("refs/tags/", name.as_str()),
        };
        let name = format!("{prefix}{short}");
        if name != "HEAD" && !git2::Reference::is_valid_name(&name) {
            return Err(GitError::new(
                GitErrorKind::Refused,
                format!("`{}` is not a name that Git allows", quoted(short)),
            ));
        }
        if let Some((_, oid)) = heads.iter().find(|(n, _)| *n == name) {
            return Ok((name, *oid));
        }
        let mut there: Vec<&str> = heads
            .iter()
            .filter_map(|(n, _)| n.strip_prefix(if prefix.is_empty() { "refs/heads/" } else { prefix }))
            .filter(|n| !n.ends_with("^{}"))
            .collect();
        there.sort_unstable();
        let more = there.len().saturating_sub(8);
        there.truncate(8);
        let list = match (there.is_empty(), more) {
            (true, _) => "none of that sort".to_owned(),
            (false, 0) => quoted(&there.join(", ")),
            (false, more) => format!("{} and {more} more", quoted(&there.join(", "))),
        };
        Err(GitError::new(
            GitErrorKind::NoReference,
            format!("`{url}` has no {}", super::said::without_article(reference)),
        )
        .hint(format!("it has {list}; was it deleted or renamed? The last good commit stays in force")))
    }

    /// Connects, and runs `work` with the server's references; understands what went wrong.
    fn connected<T>(
        &self,
        repository: &Repository,
        received: &RefCell<u64>,
        work: impl FnOnce(&mut git2::Remote<'_>, &dyn Fn() -> RemoteCallbacks<'m>, &[(String, Oid)]) -> Result<T, Failure>,
    ) -> Result<T, GitError> {
        let url = self.url;
        let address = match url {
            GitUrl::Local(path) => {
                if !path.exists() {
                    return Err(GitError::new(
                        GitErrorKind::NoRepository,
                        format!("there is no repository at `{}`", path.display()),
                    )
                    .hint("was it moved? It is looked for again at each poll"));
                }
                path.to_str()
                    .ok_or_else(|| GitError::new(GitErrorKind::Refused, format!("the path `{url}` is not UTF-8")))?
                    .to_owned()
            }
            // The real address goes to OpenSSH through the session; this one only chooses the transport.
            GitUrl::Ssh(ssh) => format!("ssh://{}/", ssh.host),
            GitUrl::Https(web) | GitUrl::Insecure(web) => web.url.clone(),
        };
        let session = match url {
            GitUrl::Ssh(ssh) => Some(SshSession::new(self.access.ssh.clone(), ssh.clone())),
            _ => None,
        };
        let _entered = session.as_ref().map(SshSession::enter);
        let _watch = session.as_ref().map(|s| Watchdog::start(s.clone(), self.deadline, self.cancel.clone()));
        let shared = Arc::new(Mutex::new(Shared::default()));
        let callbacks = || self.callbacks(&shared);
        let attempt = || -> Result<T, Failure> {
            let mut remote = repository.remote_anonymous(&address).map_err(Failure::Git)?;
            let mut connection =
                remote.connect_auth(Direction::Fetch, Some(callbacks()), Some(self.proxy())).map_err(Failure::Git)?;
            let heads: Vec<(String, Oid)> =
                connection.list().map_err(Failure::Git)?.iter().map(|h| (h.name().to_owned(), h.oid())).collect();
            work(connection.remote(), &callbacks, &heads)
        };
        let result = attempt();
        let shared = std::mem::take(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner));
        *received.borrow_mut() = shared.received;
        result.map_err(|failure| {
            // What a callback or the clock decided explains what libgit2 saw.
            if let Some(stopped) = shared.stopped {
                return stopped;
            }
            if self.cancel.is_cancelled() {
                return cancelled(url);
            }
            if let Failure::Known(e) = failure {
                return e;
            }
            if Instant::now() >= self.deadline {
                return timeout(url, self.limits.timeout);
            }
            let Failure::Git(e) = failure else { return cancelled(url) };
            session.as_ref().and_then(|s| s.failure()).unwrap_or_else(|| understand(url, &e, shared.asked > 0))
        })
    }

    fn callbacks(&self, shared: &Arc<Mutex<Shared>>) -> RemoteCallbacks<'m> {
        let mut callbacks = RemoteCallbacks::new();
        let (url, access, limits) = (self.url, self.access, self.limits);
        let (cancel, deadline) = (self.cancel, self.deadline);
        let state = shared.clone();
        callbacks.credentials(move |_, _, allowed| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.asked += 1;
            let refuse = |e: GitError, state: &mut Shared| {
                let shown = git2::Error::new(ErrorCode::Auth, ErrorClass::Http, &e.message);
                state.stopped = Some(e);
                Err(shown)
            };
            let Some(token) = &access.token else {
                return refuse(
                    GitError::new(GitErrorKind::Auth, format!("`{}` asks for credentials, and none are configured", url))
                        .hint("put a token that may read the repository into a file and name it as `git.token-file`, or set DROVER_GIT_TOKEN; is the path right? Servers also ask for private and for missing repositories"),
                    &mut state,
                );
            };
            if state.asked > 1 {
                return refuse(wrong_token(url), &mut state);
            }
            if !allowed.contains(CredentialType::USER_PASS_PLAINTEXT) {
                return refuse(
                    GitError::new(GitErrorKind::Auth, format!("`{}` wants credentials of another sort than a token", url)),
                    &mut state,
                );
            }
            match token.read() {
                Ok(token) => Cred::userpass_plaintext(&access.username, token.expose()),
                Err(e) => refuse(GitError::new(GitErrorKind::Auth, e.to_string()), &mut state),
            }
        });
        let state = shared.clone();
        callbacks.transfer_progress(move |progress| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.received = progress.received_bytes() as u64;
            let stopped = if cancel.is_cancelled() {
                cancelled(url)
            } else if Instant::now() >= deadline {
                timeout(url, limits.timeout)
            } else if state.received > limits.bytes {
                GitError::new(
                    GitErrorKind::TooLarge,
                    format!("`{}` sends more than the allowed {} bytes", url, limits.bytes),
                )
                .hint("raise `git.max-fetch` if the repository is meant to be that large")
            } else {
                return true;
            };
            state.stopped = Some(stopped);
            false
        });
        callbacks
    }

    fn proxy(&self) -> ProxyOptions<'m> {
        let mut options = ProxyOptions::new();
        if let Some(proxy) = &self.access.proxy {
            options.url(proxy);
        }
        options
    }
}

/// What the callbacks of one connection leave behind.
#[derive(Default)]
struct Shared {
    /// Why a callback ended the fetch, which libgit2 only knows as "the user said so".
    stopped: Option<GitError>,
    asked: u32,
    received: u64,
}

/// Why a connection's work ended early.
enum Failure {
    Git(git2::Error),
    Known(GitError),
}

impl From<GitError> for Failure {
    fn from(e: GitError) -> Self {
        Self::Known(e)
    }
}

impl From<git2::Error> for Failure {
    fn from(e: git2::Error) -> Self {
        Self::Git(e)
    }
}

/// Ends an SSH client at its deadline or when asked to.
struct Watchdog {
    done: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchdog {
    fn start(session: Arc<SshSession>, deadline: Instant, cancel: CancellationToken) -> Self {
        let (done, wait) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("git-ssh-deadline".into())
            .spawn(move || {
                while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(Duration::from_millis(50))
                {
                    if cancel.is_cancelled() || Instant::now() >= deadline {
                        break;
                    }
                }
                session.end();
            })
            .map_err(|e| tracing::warn!(error = %e, "no thread watches the deadline of this SSH connection"))
            .ok();
        Self { done: Some(done), thread }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.done.take();
        if let Some(thread) = self.thread.take() {
            // It ends at once: its channel is closed.
            let _ = thread.join();
        }
    }
}

/// Every branch and tag, and which branch is the default one.
const EVERYTHING: [&str; 3] =
    ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/remotes/origin/HEAD"];

fn download<S: AsRef<str> + git2::IntoCString + Clone>(
    remote: &mut git2::Remote<'_>,
    refspecs: &[S],
    callbacks: RemoteCallbacks<'_>,
    depth: i32,
) -> Result<(), git2::Error> {
    let mut options = FetchOptions::new();
    options.remote_callbacks(callbacks).download_tags(AutotagOption::None).depth(depth);
    options.follow_redirects(git2::RemoteRedirect::None);
    remote.fetch(refspecs, Some(&mut options), None)
}
