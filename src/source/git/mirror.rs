//! A bare mirror of a repository, kept on disk: one remote, one thing followed.
//!
//! *Guarantees*: [`Mirror::fetch`] either gives a commit whose files are all there, or leaves everything as it was; the
//! commit that was marked good stays readable whatever happens on the server. A damaged mirror is put aside only once a
//! new one has been fetched completely. One fetch runs at a time, also between processes.
//!
//! *Assumptions*: the folder belongs to Drover alone; the mirror is a cache, and all that is lost with it is time.

use super::access::GitAccess;
use super::error::{GitError, GitErrorKind, on_disk};
use super::fetch::Fetch;
use super::local::{open_at, resolve};
use super::said::cancelled;
use super::tree::GitTree;
use super::url::GitUrl;
use super::{Changed, library};
use git2::{Oid, Repository, RepositoryInitOptions};
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What was fetched last.
pub(super) const FOLLOWED: &str = "refs/drover/followed";
/// The last commit whose manifests were valid.
pub(super) const GOOD: &str = "refs/drover/good";
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

    /// The limits of its fetches.
    pub fn limits(&self) -> FetchLimits {
        self.limits
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
        let deadline = Instant::now() + self.limits.timeout;
        let _alone = self.alone(deadline, cancel)?;
        let fetch = self.start(deadline, cancel);
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
        let deadline = Instant::now() + self.limits.timeout;
        let _alone = self.alone(deadline, cancel)?;
        let git_dir = self.git_dir();
        if !git_dir.exists() {
            initialise_at(&git_dir, &self.url)?;
        }
        self.start(deadline, cancel).everything(&git_dir)
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

    fn start<'m>(&'m self, deadline: Instant, cancel: &'m CancellationToken) -> Fetch<'m> {
        Fetch { url: &self.url, access: &self.access, limits: self.limits, deadline, cancel }
    }

    /// Waits until no other fetch goes on, in this process or another.
    fn alone(&self, deadline: Instant, cancel: &CancellationToken) -> Result<(MutexGuard<'_, ()>, File), GitError> {
        let path = self.dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| disk_error(&path, &e))?;
        let mut mine = None;
        loop {
            mine = mine.or_else(|| match self.busy.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            });
            if let Some(guard) = mine.take() {
                match file.try_lock() {
                    Ok(()) => return Ok((guard, file)),
                    Err(std::fs::TryLockError::WouldBlock) => mine = Some(guard),
                    Err(std::fs::TryLockError::Error(e)) => return Err(disk_error(&path, &e)),
                }
            }
            if cancel.is_cancelled() {
                return Err(cancelled(&self.url));
            }
            if Instant::now() > deadline {
                return Err(GitError::new(
                    GitErrorKind::Timeout,
                    format!("another fetch into `{}` has not ended all the time", self.dir.display()),
                )
                .hint("does the server still answer, slowly? Does another Drover use this folder?"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn disk_error(path: &Path, e: &std::io::Error) -> GitError {
    GitError::new(GitErrorKind::Disk, format!("`{}`: {e}", path.display()))
}

/// The commit that a reference of ours leads to, if it and its tree are there.
pub(super) fn commit_of(repository: &Repository, reference: &str) -> Option<Oid> {
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
