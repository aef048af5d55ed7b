//! Watches clusters: what changed there makes the daemon look sooner, and what did not change is not read again.
//!
//! *Guarantees*
//! - A watch carries metadata only, and nothing is concluded from an event: it says that a list has to be read again.
//! - A list is used again only while its watch has been open since before it was read and has told of nothing since, and for
//!   [`RESYNC`] at most. A watch that broke, or began too late (410), counts as a change of all that it covers.
//! - Memory: at most [`KEPT`] objects of a list are kept; a longer list is read each time.
//! - Each cluster has a task of its own: one that is away slows no other.
//!
//! *No guarantee*: that every change is told at once. Kinds that come and go all the time (Pods) are not watched, and a
//! periodic pass reads what events did not tell of.

use super::client::{Ask, Connection};
use super::clusters::{Clusters, connected};
use super::error::{Fault, FaultKind};
use super::kinds::{Kinds, collection};
use super::list::Listing;
use super::{Declared, KubernetesOptions};
use crate::kind::cluster::reads::{self, GROUPS, Read, Which};
use crate::observed::ObjectState;
use crate::provider::{HostChange, TellChange};
use futures::stream::{FuturesUnordered, StreamExt as _};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a list may be used again.
const RESYNC: Duration = Duration::from_secs(600);
/// Most objects of a list that are kept.
const KEPT: usize = 2_000;
/// How long a server may keep a watch open; then it is opened again where it was.
const OPEN: Duration = Duration::from_secs(290);
/// What a watch may take beyond that.
const MARGIN: Duration = Duration::from_secs(30);
/// Longest line of a watch.
const LINE: usize = 4 << 20;
/// How long a burst of events is gathered.
const BURST: Duration = Duration::from_millis(300);
/// How long connecting and finding out what is served may take.
const SETUP: Duration = Duration::from_secs(60);
/// First pause before a cluster is tried again; doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What has not changed since it was read.
#[derive(Clone, Default)]
pub struct Watched(Arc<Mutex<BTreeMap<String, Lists>>>);

/// The lists of one cluster.
type Lists = BTreeMap<Read, Arc<Covered>>;

/// One list, and the watch over it.
#[derive(Default)]
struct Covered {
    /// Whether the watch is open.
    is_open: AtomicBool,
    /// Counts what has changed.
    changes: AtomicU64,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    /// [`Covered::changes`] when it was read.
    at_change: u64,
    read_at: Instant,
    objects: Arc<Vec<ObjectState>>,
}

impl Covered {
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// A reading of one list that begins.
pub(super) struct Beginning {
    covered: Option<Arc<Covered>>,
    at_change: u64,
}

impl Watched {
    /// A reading begins.
    pub(super) fn begin(&self, cluster: &str, read: &Read) -> Beginning {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let covered = all.get(cluster).and_then(|c| c.get(read)).filter(|c| c.is_open.load(Ordering::SeqCst)).cloned();
        let at_change = covered.as_ref().map_or(0, |c| c.changes.load(Ordering::SeqCst));
        Beginning { covered, at_change }
    }

    /// Drover wrote there: what it wrote may not have been told yet.
    pub(super) fn written(&self, cluster: &str) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(cluster).into_iter().flat_map(BTreeMap::values).for_each(|c| c.changed());
    }

    fn cover(&self, cluster: &str, read: &Read) -> Arc<Covered> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(cluster.to_owned()).or_default().entry(read.clone()).or_default().clone()
    }

    fn drop_cluster(&self, cluster: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster);
    }
}

impl Beginning {
    /// What was read before, where nothing has changed since.
    pub(super) fn objects(&self) -> Option<Arc<Vec<ObjectState>>> {
        let kept = self.covered.as_ref()?.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_ref()?;
        (kept.at_change == self.at_change && kept.read_at.elapsed() < RESYNC).then(|| kept.objects.clone())
    }

    /// Keeps what was read since the beginning.
    pub(super) fn keep(self, objects: &Arc<Vec<ObjectState>>) {
        let Some(covered) = self.covered else { return };
        let kept = (objects.len() <= KEPT).then(|| Kept {
            at_change: self.at_change,
            read_at: Instant::now(),
            objects: objects.clone(),
        });
        *covered.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

/// Watches a set of clusters that may change. Dropping it ends all watching.
pub struct Watcher {
    options: KubernetesOptions,
    tell: TellChange,
    watched: Watched,
    following: Mutex<Option<(BTreeMap<String, Declared>, DropGuard)>>,
}

impl Watcher {
    /// Watches nothing yet.
    pub fn new(options: KubernetesOptions, tell: TellChange) -> Self {
        Self { options, tell, watched: Watched::default(), following: Mutex::default() }
    }

    /// What has not changed since it was read.
    pub fn watched(&self) -> Watched {
        self.watched.clone()
    }

    /// Watches these clusters from now on, and no others. To be called within a runtime; returns at once.
    pub fn follow(&self, clusters: &BTreeMap<String, Declared>) {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        if following.as_ref().is_some_and(|(known, _)| known == clusters) {
            return;
        }
        // What is read of one cluster depends on the others, so all begin anew.
        let gone = following.take().map(|(known, _)| known).unwrap_or_default();
        gone.keys().for_each(|name| self.watched.drop_cluster(name));
        let stop = CancellationToken::new();
        // Connections of their own: what hangs here does not count against a pass.
        let all = Clusters::new(clusters.clone(), self.options.clone(), None);
        for name in clusters.keys() {
            let (all, name, tell) = (all.clone(), name.clone(), self.tell.clone());
            let (watched, stopped) = (self.watched.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stopped.cancelled() => tracing::debug!(cluster = name, "not watched any more"),
                    () = watch(&all, &name, &watched, &tell) => {}
                }
            });
        }
        *following = Some((clusters.clone(), stop.drop_guard()));
    }
}

/// Watches one cluster for ever.
async fn watch(clusters: &Clusters, cluster: &str, watched: &Watched, tell: &TellChange) {
    let mut failures = 0u32;
    loop {
        let began = Instant::now();
        let ended = session(clusters, cluster, watched, tell, failures > 0).await;
        watched.drop_cluster(cluster);
        match ended {
            // What is served has changed: another set of watches.
            Ok(()) => failures = 0,
            Err(fault) => {
                if began.elapsed() > LONGEST_PAUSE {
                    failures = 0;
                }
                failures = failures.saturating_add(1);
                // Once is news, the same every minute is noise; a pass tells of a cluster that cannot be read.
                if failures == 1 {
                    tracing::warn!(cluster, error = %fault, "changes of the cluster are noticed by the next full pass only");
                    tell_now(cluster, tell);
                } else {
                    tracing::debug!(cluster, failures, error = %fault, "still not watched");
                }
            }
        }
        sleep(pause(failures)).await;
    }
}

fn tell_now(cluster: &str, tell: &TellChange) {
    tell(HostChange::of_cluster(cluster, Instant::now()));
}

/// How long to wait after so many failures in a row: doubled each time, and up to a quarter more or less.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    let random = RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64;
    doubled.mul_f64(0.75 + random / 2.0)
}

/// Whether a read is watched: lists whose changes mean something to a plan.
fn is_watched(read: &Read) -> bool {
    match read.which {
        Which::In(_) | Which::All | Which::Labelled => read.kind != "Pod",
        // Definitions come and go, and with them what can be watched.
        Which::Matching(_) => read.kind == "CustomResourceDefinition",
        Which::Named { .. } => false,
    }
}

/// One way of watching a cluster, until what is served changes or something breaks.
async fn session(
    clusters: &Clusters,
    cluster: &str,
    watched: &Watched,
    tell: &TellChange,
    is_again: bool,
) -> Result<(), Fault> {
    let deadline = Instant::now() + SETUP;
    // Whether its credentials are good is known after a question.
    let asked = Ask::get("ask what it serves", "/api");
    connected!(clusters, cluster, deadline, connection => connection.ask::<serde_json::Value>(asked.clone(), deadline))?;
    let connection = clusters.connection(cluster, deadline).await?;
    let kinds = Kinds::of(&connection, GROUPS, deadline).await?;
    let wanted: BTreeSet<Read> = reads::reads(cluster, &clusters.specs).into_iter().filter(is_watched).collect();
    let changed = AtomicBool::new(is_again);
    let mut streams = FuturesUnordered::new();
    for read in wanted {
        let Some((api_version, resource)) = kinds.first(read.group, read.versions, read.kind) else { continue };
        let namespace = match &read.which {
            Which::In(namespace) => Some(namespace.as_str()),
            _ => None,
        };
        let path = collection(&api_version, &resource.plural, namespace);
        let stream = Stream {
            connection: &connection,
            during: format!("watch {}", read.resource),
            path,
            labels: read.selector(),
            covered: watched.cover(cluster, &read),
            changed: &changed,
            ends_session: read.kind == "CustomResourceDefinition",
        };
        streams.push(stream.follow());
    }
    tracing::debug!(cluster, watches = streams.len(), "the cluster is watched");
    let mut burst = tokio::time::interval(BURST);
    loop {
        tokio::select! {
            ended = streams.next() => {
                if changed.swap(false, Ordering::SeqCst) {
                    tell_now(cluster, tell);
                }
                match ended {
                    Some(result) => return result,
                    None => sleep(RESYNC).await,
                }
            }
            _ = burst.tick() => {
                if changed.swap(false, Ordering::SeqCst) {
                    tell_now(cluster, tell);
                }
            }
        }
    }
}

/// A watch over one list.
struct Stream<'a> {
    connection: &'a Connection,
    during: String,
    path: String,
    labels: Option<&'static str>,
    covered: Arc<Covered>,
    changed: &'a AtomicBool,
    ends_session: bool,
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.covered.is_open.store(false, Ordering::SeqCst);
        self.covered.changed();
    }
}

/// What one opening of a watch came to.
enum End {
    /// The server's time for it is over: it goes on where it was.
    Over,
    /// Its beginning is too old: some changes were missed.
    TooOld,
    /// What is served has changed.
    Served,
}

impl Stream<'_> {
    /// Follows it until something breaks, or what is served changes.
    async fn follow(self) -> Result<(), Fault> {
        loop {
            let deadline = Instant::now() + SETUP;
            let listing =
                Listing { during: &self.during, path: self.path.clone(), labels: self.labels, metadata_only: true };
            let mut version = listing.version(self.connection, deadline).await?;
            let end = loop {
                match self.once(&mut version).await? {
                    End::Over => {}
                    other => break other,
                }
            };
            self.covered.is_open.store(false, Ordering::SeqCst);
            self.told();
            match end {
                End::Served => return Ok(()),
                // 410: from the present on, as after a list.
                End::TooOld | End::Over => tracing::debug!(
                    cluster = self.connection.cluster,
                    watch = self.during,
                    "the watch was too old and begins anew"
                ),
            }
        }
    }

    fn told(&self) {
        self.covered.changed();
        self.changed.store(true, Ordering::SeqCst);
    }

    async fn once(&self, version: &mut String) -> Result<End, Fault> {
        let mut target = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            self.path,
            OPEN.as_secs(),
            super::client::escaped(version)
        );
        if let Some(labels) = self.labels {
            target.push_str(&format!("&labelSelector={}", super::client::escaped(labels)));
        }
        let deadline = Instant::now() + OPEN + MARGIN;
        let ask = Ask::get(&self.during, target).metadata_only_events();
        let response = match self.connection.open(ask, Instant::now() + SETUP).await {
            Err(fault) if fault.kind == FaultKind::Gone => return Ok(End::TooOld),
            other => other?,
        };
        // From here on nothing is missed: what happens after `version` is told.
        self.covered.is_open.store(true, Ordering::SeqCst);
        let broken = |why: &str| Fault::new(&self.connection.cluster, &*self.during, FaultKind::Connection, why);
        let (mut body, mut line) = (response.into_body(), Vec::new());
        loop {
            let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
                Err(_) => return Err(broken("the server does not end it as it should")),
                Ok(None) => return Ok(End::Over),
                Ok(Some(Err(e))) => return Err(Fault::of_client(&self.connection.cluster, &self.during, None, &e)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            for byte in data.split_inclusive(|b| *b == b'\n') {
                if line.len() + byte.len() > LINE {
                    return Err(broken("an event has more bytes than any object"));
                }
                line.extend_from_slice(byte);
                if !line.ends_with(b"\n") {
                    continue;
                }
                let event: Event = serde_json::from_slice(&line).map_err(|_| broken("an event is no JSON"))?;
                line.clear();
                match event.kind.as_str() {
                    "ERROR" if event.object.code == 410 => return Ok(End::TooOld),
                    "ERROR" => return Err(broken(&format!("the watch ended: {}", event.object.message))),
                    kind => {
                        if !event.object.metadata.resource_version.is_empty() {
                            *version = event.object.metadata.resource_version;
                        }
                        if kind != "BOOKMARK" {
                            self.told();
                            // Changes of a definition do not change what is served, its coming and going does.
                            if self.ends_session && kind != "MODIFIED" {
                                return Ok(End::Served);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: EventObject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EventObject {
    metadata: EventMetadata,
    code: u16,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventMetadata {
    resource_version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> Read {
        reads::reads("x", &BTreeMap::new()).into_iter().find(is_watched).unwrap()
    }

    #[test]
    fn a_list_is_used_again_only_while_its_watch_tells_of_nothing() {
        let (watched, read) = (Watched::default(), read());
        let objects = Arc::new(Vec::new());
        watched.begin("x", &read).keep(&objects);
        assert!(watched.begin("x", &read).objects().is_none(), "not watched");
        let covered = watched.cover("x", &read);
        covered.is_open.store(true, Ordering::SeqCst);
        watched.begin("x", &read).keep(&objects);
        assert!(watched.begin("x", &read).objects().is_some());
        covered.changed();
        assert!(watched.begin("x", &read).objects().is_none(), "something changed");
        // A change while it was read: it may or may not be in it.
        let beginning = watched.begin("x", &read);
        covered.changed();
        beginning.keep(&objects);
        assert!(watched.begin("x", &read).objects().is_none());
        watched.begin("x", &read).keep(&objects);
        watched.written("x");
        assert!(watched.begin("x", &read).objects().is_none(), "Drover wrote");
        watched.begin("x", &read).keep(&objects);
        covered.is_open.store(false, Ordering::SeqCst);
        assert!(watched.begin("x", &read).objects().is_none(), "the watch broke");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_read_again_after_a_while() {
        let (watched, read) = (Watched::default(), read());
        watched.cover("x", &read).is_open.store(true, Ordering::SeqCst);
        watched.begin("x", &read).keep(&Arc::new(Vec::new()));
        assert!(watched.begin("x", &read).objects().is_some());
        tokio::time::advance(RESYNC).await;
        assert!(watched.begin("x", &read).objects().is_none());
    }

    #[test]
    fn pods_and_single_objects_are_not_watched() {
        let watched: Vec<_> = reads::reads("x", &BTreeMap::new()).into_iter().filter(is_watched).collect();
        assert!(watched.iter().any(|r| r.kind == "MigCluster") && watched.iter().all(|r| r.kind != "Pod"));
    }
}
