//! A bare mirror of a repository, kept on disk: one remote, one thing followed.
//!
//! *Guarantees*: [`Mirror::fetch`] either gives a commit whose files are all there, or leaves everything as it was; the
//! commit that was marked good stays readable whatever happens on the server. A damaged mirror is put aside only once a
//! new one has been fetched completely. One fetch runs at a time, also between processes.
//!
//! *Assumptions*: the folder belongs to Drover alone; the mirror is a cache, and all that is lost with it is time.

use super::access::GitAccess;
use super::error::{GitError, GitErrorKind, on_disk, quoted};
use super::local::{open_at, resolve};
use super::ssh::SshSession;
use super::tree::GitTree;
use super::url::GitUrl;
use super::{Changed, library};
use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, ProxyOptions,
    RemoteCallbacks, Repository, RepositoryInitOptions,
};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What was fetched last.
const FOLLOWED: &str = "refs/drover/followed";
/// The last commit whose manifests were valid.
const GOOD: &str = "refs/drover/good";
/// Where a fetch puts what it got, before it counts.
const INCOMING: &str = "refs/drover/incoming";
/// libgit2's depth that turns a shallow repository into a full one.
const UNSHALLOW: i32 = i32::MAX;
/// Objects arrive in packs, one a fetch; so many are put together into one.
const MAX_PACKS: usize = 40;

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reference {
    /// The branch that the repository's `HEAD` names.
    Head,
    /// A branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// One commit, by its full id.
    Commit(String),
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head => f.write_str("the default branch"),
            Self::Branch(name) => write!(f, "branch `{name}`"),
            Self::Tag(name) => write!(f, "tag `{name}`"),
            Self::Commit(id) => write!(f, "commit {id}"),
        }
    }
}

/// Limits of one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// How long it may take.
    pub timeout: Duration,
    /// How many bytes may arrive.
    pub bytes: u64,
    /// Whether the first fetch from a server brings the newest commit only. Later ones bring what came after it.
    pub shallow: bool,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(120), bytes: 1 << 30, shallow: true }
    }
}

/// What a fetch found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fetched {
    /// The commit that is followed now.
    pub commit: String,
    /// The commit that was followed before; `None` for the first fetch, also of a mirror made anew.
    pub previous: Option<String>,
    /// Whether history was rewritten: the commit does not descend from the one before.
    pub rewritten: bool,
    /// Whether the mirror was damaged and had to be made anew.
    pub made_anew: bool,
    /// Bytes that arrived.
    pub received_bytes: u64,
}

/// A mirror on disk.
pub struct Mirror {
    url: GitUrl,
    dir: PathBuf,
    access: GitAccess,
    limits: FetchLimits,
    busy: Mutex<()>,
    /// Whether what is on disk must be read completely before it is relied on.
    suspect: AtomicBool,
}

impl Mirror {
    /// Prepares the mirror of `url` in the folder `dir`, which is made, with mode 0700, when it is not there. Talks to
    /// nobody. Refuses an address that is not allowed, and a folder that others can write to. A mirror of another address
    /// is put aside.
    pub fn open(url: &str, dir: &Path, access: &GitAccess, limits: FetchLimits) -> Result<Self, GitError> {
        library::initialise()?;
        let mut url = GitUrl::parse(url, access.allow_insecure)?;
        if let GitUrl::Local(path) = &mut url
            && let Ok(absolute) = std::path::absolute(&path)
        {
            *path = absolute;
        }
        if access.token.is_some() && matches!(url, GitUrl::Insecure(_)) {
            return Err(GitError::new(
                GitErrorKind::Refused,
                format!("a token is not sent to `{url}`, where anyone could read it"),
            )
            .hint("use https://, or take the token out of the configuration"));
        }
        if let (GitUrl::Https(_), Some(ca_file)) = (&url, &access.ca_file) {
            library::trust(ca_file)?;
        }
        private_folder(dir)?;
        let mirror = Self {
            url,
            dir: dir.to_owned(),
            access: access.clone(),
            limits,
            busy: Mutex::new(()),
            suspect: AtomicBool::new(true),
        };
        if mirror.git_dir().exists() && !mirror.is_of_this_url() {
            mirror.put_aside()?;
        }
        Ok(mirror)
    }

    /// The address, without credentials.
    pub fn url(&self) -> &GitUrl {
        &self.url
    }

    /// The mirror's repository folder.
    pub fn git_dir(&self) -> PathBuf {
        self.dir.join("mirror.git")
    }

    fn is_of_this_url(&self) -> bool {
        open_at(&self.git_dir())
            .and_then(|r| r.config().and_then(|c| c.get_string("drover.url")).map_err(|e| on_disk("config", &e)))
            // A mirror that cannot be opened is damaged, not another's: `fetch` sees to that.
            .map_or(true, |url| url == self.url.to_string())
    }

    /// Makes the next fetch read the whole commit from disk first: something in it could not be read.
    pub fn distrust(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Finds the commit that `reference` names on the server, and brings what is missing of it.
    ///
    /// Where nothing is new this is one question to the server. `cancel` ends it early: within 50 ms for `ssh://`, with
    /// the next bytes that arrive, or after 30 s of silence, for other servers.
    pub fn fetch(&self, reference: &Reference, cancel: &CancellationToken) -> Result<Fetched, GitError> {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + self.limits.timeout;
        let _lock = self.lock(deadline, cancel)?;
        let fetch = Fetch::new(self, deadline, cancel);
        let git_dir = self.git_dir();
        if !git_dir.exists() {
            // The first fetch is as careful as a repair: a mirror that is there is complete.
            let found = self.make_anew(&fetch, reference)?;
            self.suspect.store(false, Ordering::Relaxed);
            return Ok(found);
        }
        remove_remains(&git_dir);
        let result = fetch.bring(&git_dir, reference, false);
        let damaged = match &result {
            Ok(found) if self.suspect.load(Ordering::Relaxed) => damage(&git_dir, &found.commit),
            Ok(_) => None,
            Err(e) => match e.kind {
                GitErrorKind::Corrupt | GitErrorKind::NoRepository | GitErrorKind::Other => damage_of_all(&git_dir),
                _ => None,
            },
        };
        let mut result = result;
        if let Some(why) = damaged {
            tracing::warn!(mirror = %git_dir.display(), %why, "the mirror is damaged and is made anew");
            let mut found = self.make_anew(&fetch, reference)?;
            found.made_anew = true;
            result = Ok(found);
        }
        if let Ok(found) = &result {
            self.suspect.store(false, Ordering::Relaxed);
            if found.previous.as_deref() != Some(&found.commit) && count_packs(&git_dir) > MAX_PACKS {
                // Only for speed: many small packs are slow to search.
                if let Err(e) = repack(&git_dir) {
                    tracing::warn!(error = %e, "the mirror's packs could not be put together");
                }
            }
        }
        result
    }

    /// Brings every branch and tag with their whole history, for [`Mirror::resolve`].
    pub fn fetch_everything(&self, cancel: &CancellationToken) -> Result<(), GitError> {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + self.limits.timeout;
        let _lock = self.lock(deadline, cancel)?;
        let git_dir = self.git_dir();
        if !git_dir.exists() {
            initialise_at(&git_dir, &self.url)?;
        }
        Fetch::new(self, deadline, cancel).everything(&git_dir)
    }

    /// The full id of the commit that a revision names among what was fetched.
    pub fn resolve(&self, revision: &str) -> Result<String, GitError> {
        resolve(&open_at(&self.git_dir())?, revision, &self.url.to_string())
    }

    /// A fetched commit's files below `path` (empty for all).
    pub fn tree(&self, commit: &str, path: &str) -> Result<GitTree, GitError> {
        GitTree::open(&self.git_dir(), commit, path)
    }

    /// Paths that differ between two fetched commits below `path`; see [`super::changed_paths`].
    pub fn changed(&self, old: &str, new: &str, path: &str, limit: usize) -> Result<Changed, GitError> {
        super::changed_paths(&self.git_dir(), old, new, path, limit)
    }

    /// The last commit that was marked good and can still be read.
    pub fn good(&self) -> Option<String> {
        let repository = open_at(&self.git_dir()).ok()?;
        commit_of(&repository, GOOD).map(|id| id.to_string())
    }

    /// Remembers, over restarts, that a commit's manifests are valid.
    pub fn mark_good(&self, commit: &str) -> Result<(), GitError> {
        let what = format!("the commit {commit} cannot be marked as good");
        let repository = open_at(&self.git_dir())?;
        let id = Oid::from_str(commit).map_err(|e| on_disk(&what, &e))?;
        repository.reference(GOOD, id, true, "valid").map_err(|e| on_disk(&what, &e))?;
        Ok(())
    }

    /// Fetches into a new folder, with all history where a good commit must be kept, and puts it in the old one's place.
    fn make_anew(&self, fetch: &Fetch<'_>, reference: &Reference) -> Result<Fetched, GitError> {
        let good = self.good();
        let fresh = self.dir.join("mirror.new");
        remove(&fresh)?;
        initialise_at(&fresh, &self.url)?;
        let found = fetch.bring(&fresh, reference, good.is_some())?;
        if let Some(good) = good
            && let Ok(repository) = open_at(&fresh)
            && let Ok(id) = Oid::from_str(&good)
            && repository.find_commit(id).is_ok()
            && let Err(e) = repository.reference(GOOD, id, true, "kept")
        {
            tracing::warn!(commit = %good, error = %e, "the last good commit could not be kept");
        }
        self.put_aside()?;
        std::fs::rename(&fresh, self.git_dir()).map_err(|e| disk_error(&self.git_dir(), &e))?;
        Ok(found)
    }

    /// Renames the mirror to `mirror.broken`, for whoever wants to know why; an older one is removed.
    fn put_aside(&self) -> Result<(), GitError> {
        let (now, aside) = (self.git_dir(), self.dir.join("mirror.broken"));
        if now.exists() {
            remove(&aside)?;
            std::fs::rename(&now, &aside).map_err(|e| disk_error(&now, &e))?;
        }
        Ok(())
    }

    /// The lock between processes.
    fn lock(&self, deadline: Instant, cancel: &CancellationToken) -> Result<File, GitError> {
        let path = self.dir.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| disk_error(&path, &e))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => {
                    if cancel.is_cancelled() {
                        return Err(cancelled(&self.url));
                    }
                    if Instant::now() > deadline {
                        return Err(GitError::new(
                            GitErrorKind::Timeout,
                            format!("another process has been fetching into `{}` all the time", self.dir.display()),
                        ));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(std::fs::TryLockError::Error(e)) => return Err(disk_error(&path, &e)),
            }
        }
    }
}

/// One fetch, with its limits.
struct Fetch<'m> {
    mirror: &'m Mirror,
    deadline: Instant,
    cancel: &'m CancellationToken,
}

impl<'m> Fetch<'m> {
    fn new(mirror: &'m Mirror, deadline: Instant, cancel: &'m CancellationToken) -> Self {
        Self { mirror, deadline, cancel }
    }

    /// Fetches `reference` into the repository at `git_dir`. `all_history` overrides a shallow first fetch.
    fn bring(&self, git_dir: &Path, reference: &Reference, all_history: bool) -> Result<Fetched, GitError> {
        let repository = open_at(git_dir)?;
        let previous = commit_of(&repository, FOLLOWED);
        let smart = self.mirror.url.local().is_none();
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
                    let why = format!("no branch or tag of `{}` leads to the commit {id}", self.mirror.url);
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
            let depth = i32::from(smart && first && self.mirror.limits.shallow && !all_history);
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
        repository
            .reference(FOLLOWED, commit, true, "fetched")
            .map_err(|e| on_disk(&format!("the mirror `{}` cannot be written", git_dir.display()), &e))?;
        Ok(Fetched {
            commit: commit.to_string(),
            previous: previous.map(|p| p.to_string()),
            rewritten,
            made_anew: false,
            received_bytes: received.into_inner(),
        })
    }

    fn everything(&self, git_dir: &Path) -> Result<(), GitError> {
        let repository = open_at(git_dir)?;
        self.connected(&repository, &RefCell::new(0), |remote, callbacks, heads| {
            if heads.is_empty() {
                return Err(Failure::Known(empty(&self.mirror.url)));
            }
            download(remote, &EVERYTHING, callbacks(), if repository.is_shallow() { UNSHALLOW } else { 0 })
                .map_err(Failure::Git)
        })
    }

    /// Which of the server's references is meant, and what it points to.
    fn find(&self, reference: &Reference, heads: &[(String, Oid)]) -> Result<(String, Oid), GitError> {
        let url = &self.mirror.url;
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
        Err(GitError::new(GitErrorKind::NoReference, format!("`{url}` has no {}", without_article(reference)))
            .hint(format!("it has {list}; was it deleted or renamed? The last good commit stays in force")))
    }

    /// Connects, and runs `work` with the server's references; understands what went wrong.
    fn connected<T>(
        &self,
        repository: &Repository,
        received: &RefCell<u64>,
        work: impl FnOnce(&mut git2::Remote<'_>, &dyn Fn() -> RemoteCallbacks<'m>, &[(String, Oid)]) -> Result<T, Failure>,
    ) -> Result<T, GitError> {
        let url = &self.mirror.url;
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
            GitUrl::Ssh(ssh) => Some(SshSession::new(self.mirror.access.ssh.clone(), ssh.clone())),
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
                return timeout(url, self.mirror.limits.timeout);
            }
            let Failure::Git(e) = failure else { return cancelled(url) };
            session.as_ref().and_then(|s| s.failure()).unwrap_or_else(|| self.understand(&e, shared.asked))
        })
    }

    fn callbacks(&self, shared: &Arc<Mutex<Shared>>) -> RemoteCallbacks<'m> {
        let mut callbacks = RemoteCallbacks::new();
        let (mirror, cancel, deadline) = (self.mirror, self.cancel, self.deadline);
        let state = shared.clone();
        callbacks.credentials(move |_, _, allowed| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.asked += 1;
            let refuse = |e: GitError, state: &mut Shared| {
                let shown = git2::Error::new(ErrorCode::Auth, ErrorClass::Http, &e.message);
                state.stopped = Some(e);
                Err(shown)
            };
            let Some(token) = &mirror.access.token else {
                return refuse(
                    GitError::new(GitErrorKind::Auth, format!("`{}` asks for credentials, and none are configured", mirror.url))
                        .hint("put a token that may read the repository into a file and name it as `git.token-file`, or set DROVER_GIT_TOKEN; is the path right? Servers also ask for private and for missing repositories"),
                    &mut state,
                );
            };
            if state.asked > 1 {
                return refuse(wrong_token(&mirror.url), &mut state);
            }
            if !allowed.contains(CredentialType::USER_PASS_PLAINTEXT) {
                return refuse(
                    GitError::new(GitErrorKind::Auth, format!("`{}` wants credentials of another sort than a token", mirror.url)),
                    &mut state,
                );
            }
            match token.read() {
                Ok(token) => Cred::userpass_plaintext(&mirror.access.username, token.expose()),
                Err(e) => refuse(GitError::new(GitErrorKind::Auth, e.to_string()), &mut state),
            }
        });
        let state = shared.clone();
        callbacks.transfer_progress(move |progress| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.received = progress.received_bytes() as u64;
            let stopped = if cancel.is_cancelled() {
                cancelled(&mirror.url)
            } else if Instant::now() >= deadline {
                timeout(&mirror.url, mirror.limits.timeout)
            } else if state.received > mirror.limits.bytes {
                GitError::new(
                    GitErrorKind::TooLarge,
                    format!("`{}` sends more than the allowed {} bytes", mirror.url, mirror.limits.bytes),
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
        if let Some(proxy) = &self.mirror.access.proxy {
            options.url(proxy);
        }
        options
    }

    /// Turns what libgit2 says about a connection into an error that tells what to do.
    fn understand(&self, e: &git2::Error, asked: u32) -> GitError {
        let url = &self.mirror.url;
        let said = quoted(e.message());
        let error = |kind, text: String| GitError::new(kind, text);
        let status = |code: &str| said.contains(&format!("status code: {code}")) || said.contains(&format!("{code} "));
        match (e.code(), e.class()) {
            (ErrorCode::Certificate, _) | (_, ErrorClass::Ssl) => {
                error(GitErrorKind::Certificate, format!("the TLS certificate of `{url}` is not trusted: {said}"))
                    .hint("name the file with its certificate authority as `git.ca-file`; there is no switch to skip the check")
            }
            (ErrorCode::Auth, _) if asked > 0 => wrong_token(url),
            (ErrorCode::Owner, _) => on_disk(&format!("`{url}` cannot be opened"), e),
            (_, ErrorClass::Http) if status("401") || status("403") || said.contains("authentication") => {
                if asked > 0 {
                    wrong_token(url)
                } else {
                    error(GitErrorKind::Auth, format!("`{url}` refuses access: {said}"))
                        .hint("check the token's permissions: it needs to read this repository")
                }
            }
            (_, ErrorClass::Http) if status("404") => {
                error(GitErrorKind::NoRepository, format!("there is no repository at `{url}`"))
                    .hint("check the address; servers also say so when the token may not see the repository")
            }
            (_, ErrorClass::Http) if status("301") || status("302") || status("307") || status("308") || said.contains("redirect") => {
                error(GitErrorKind::Refused, format!("`{url}` redirects elsewhere: {said}"))
                    .hint("Drover does not follow redirects: give the address that it redirects to (often with `.git` at the end)")
            }
            (_, ErrorClass::Os | ErrorClass::Repository | ErrorClass::Odb | ErrorClass::Zlib | ErrorClass::Object | ErrorClass::Tree)
                if url.local().is_some() =>
            {
                let mut error = on_disk(&format!("`{url}` cannot be read"), e);
                if error.kind == GitErrorKind::NoRepository {
                    error.hint = Some("it is not a Git repository, or not any more".into());
                }
                error
            }
            (ErrorCode::NotFound, _) if url.local().is_some() => {
                error(GitErrorKind::NoRepository, format!("there is no repository at `{url}`: {said}"))
            }
            (_, ErrorClass::Net) if said.contains("not found") || said.contains("not exported") || said.contains("access denied") => {
                error(GitErrorKind::NoRepository, format!("the server has no repository `{url}`: {said}"))
            }
            (ErrorCode::Timeout, _) => {
                error(GitErrorKind::Timeout, format!("`{url}` was silent for too long: {said}"))
            }
            (_, ErrorClass::Net | ErrorClass::Os | ErrorClass::Http) => match on_disk("", e).kind {
                GitErrorKind::Disk => on_disk(&format!("what `{url}` sent cannot be stored"), e),
                _ => error(GitErrorKind::Unreachable, format!("`{url}` cannot be read: {said}"))
                    .hint("it is tried again; the last good commit stays in force"),
            },
            _ => match on_disk("", e).kind {
                GitErrorKind::Disk => on_disk(&format!("what `{url}` sent cannot be stored"), e),
                _ => error(GitErrorKind::Other, format!("fetching from `{url}` failed: {said}")),
            },
        }
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

const EVERYTHING: [&str; 2] = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];

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

fn without_article(reference: &Reference) -> String {
    match reference {
        Reference::Head => "`HEAD` that leads to a branch".into(),
        other => other.to_string(),
    }
}

fn empty(url: &GitUrl) -> GitError {
    GitError::new(GitErrorKind::Empty, format!("`{url}` is empty: it has no commit yet"))
        .hint("push a first commit; nothing is changed until then")
}

fn wrong_token(url: &GitUrl) -> GitError {
    GitError::new(GitErrorKind::Auth, format!("`{url}` does not accept the configured token"))
        .hint("was it revoked, has it expired, may it read this repository? A new one in the token file is used at the next fetch")
}

fn cancelled(url: &GitUrl) -> GitError {
    GitError::new(GitErrorKind::Cancelled, format!("the fetch from `{url}` was cancelled"))
}

fn timeout(url: &GitUrl, after: Duration) -> GitError {
    GitError::new(GitErrorKind::Timeout, format!("`{url}` did not send everything within {} s", after.as_secs()))
        .hint("raise `git.timeout` if the repository is that large or the line that slow")
}

fn disk_error(path: &Path, e: &std::io::Error) -> GitError {
    GitError::new(GitErrorKind::Disk, format!("`{}`: {e}", path.display()))
}

/// The commit that a reference of ours leads to, if it and its tree are there.
fn commit_of(repository: &Repository, reference: &str) -> Option<Oid> {
    let commit = repository.find_reference(reference).ok()?.peel_to_commit().ok()?;
    commit.tree().ok()?;
    Some(commit.id())
}

/// Makes the folder, for Drover's user only; refuses one that others can write to, because they could then choose what
/// is applied.
fn private_folder(dir: &Path) -> Result<(), GitError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| disk_error(dir, &e))?;
    let meta = std::fs::metadata(dir).map_err(|e| disk_error(dir, &e))?;
    if meta.mode() & 0o022 != 0 {
        return Err(GitError::new(
            GitErrorKind::Owner,
            format!("the folder `{}` can be written by other users (mode {:04o})", dir.display(), meta.mode() & 0o7777),
        )
        .hint(format!("whoever writes there decides what Drover does: run `chmod 700 {}`", dir.display())));
    }
    Ok(())
}

fn initialise_at(git_dir: &Path, url: &GitUrl) -> Result<(), GitError> {
    let what = format!("the mirror `{}` cannot be made", git_dir.display());
    let mut options = RepositoryInitOptions::new();
    options.bare(true).mkpath(true).external_template(false).initial_head("main");
    let repository = Repository::init_opts(git_dir, &options).map_err(|e| on_disk(&what, &e))?;
    let mut config = repository.config().map_err(|e| on_disk(&what, &e))?;
    config.set_str("drover.url", &url.to_string()).map_err(|e| on_disk(&what, &e))?;
    // The first question to a server has no other switch for this.
    config.set_bool("http.followRedirects", false).map_err(|e| on_disk(&what, &e))?;
    Ok(())
}

/// What is wrong with a commit on disk, if anything is: every file of it is read.
fn damage(git_dir: &Path, commit: &str) -> Option<String> {
    let tree = match GitTree::open(git_dir, commit, "") {
        Ok(tree) => tree,
        Err(e) => return Some(e.message),
    };
    match tree.check() {
        // A tree that somebody made by hand is the repository's fault, not the disk's.
        Ok(()) | Err(crate::load::TreeError::NotAFile { .. }) => None,
        Err(e) => Some(e.to_string()),
    }
}

/// What is wrong with the mirror itself.
fn damage_of_all(git_dir: &Path) -> Option<String> {
    let repository = match open_at(git_dir) {
        Ok(repository) => repository,
        Err(e) => return Some(e.message),
    };
    for name in [FOLLOWED, GOOD] {
        if let Ok(reference) = repository.find_reference(name)
            && let Some(id) = reference.target()
            && let Some(why) = damage(git_dir, &id.to_string())
        {
            return Some(why);
        }
    }
    None
}

/// Removes what a fetch that was cut off left behind (killed, disk full).
fn remove_remains(git_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(git_dir.join("objects/pack")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("pack_git2_") || name.to_string_lossy().starts_with("tmp_") {
            // Another attempt follows at the next fetch.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn remove(dir: &Path) -> Result<(), GitError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(disk_error(dir, &e)),
        _ => Ok(()),
    }
}

fn packs(git_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(git_dir.join("objects/pack")) else { return Vec::new() };
    entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "pack")).collect()
}

fn count_packs(git_dir: &Path) -> usize {
    packs(git_dir).len()
}

/// Puts what our references reach into one pack and removes the others. Readers that are open find the new pack by
/// themselves; what is reached by nothing any more (rewritten history) goes.
fn repack(git_dir: &Path) -> Result<(), git2::Error> {
    let repository = Repository::open_bare(git_dir)?;
    let old = packs(git_dir);
    let mut builder = repository.packbuilder()?;
    let mut walk = repository.revwalk()?;
    for reference in repository.references()? {
        if let Ok(commit) = reference?.peel_to_commit() {
            walk.push(commit.id())?;
        }
    }
    builder.insert_walk(&mut walk)?;
    builder.write(&git_dir.join("objects/pack"), 0o444)?;
    for pack in old.iter().filter(|p| packs(git_dir).len() > 1 && builder.name().is_ok_and(|n| !is_named(p, n))) {
        // The index goes first: without it the pack is not used any more.
        let _ = std::fs::remove_file(pack.with_extension("idx"));
        let _ = std::fs::remove_file(pack);
    }
    Ok(())
}

fn is_named(pack: &Path, name: Option<&str>) -> bool {
    name.is_some_and(|n| pack.file_name().is_some_and(|f| f.to_string_lossy() == format!("pack-{n}.pack")))
}
