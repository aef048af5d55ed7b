//! The simulated world as plain data: hosts as an observer would see them, the storage behind their pools, and what is
//! under way. Time comes in as an argument; what is under way goes on by itself whenever anybody looks.

use super::define;
use crate::action::Migration;
use crate::domain_xml;
use crate::observed::{DomainState, HostState, RunState, VolumeState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Version of the saved form.
pub(super) const FORMAT_VERSION: &str = "1.0";

/// Everything there is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub format_version: String,
    pub hosts: BTreeMap<String, Host>,
    /// Volumes by the storage they are on ([`State::storage_key`]), whatever pools show them.
    pub storage: BTreeMap<String, BTreeMap<String, VolumeState>>,
    /// Markers by the storage they are on.
    #[serde(default)]
    pub markers: BTreeMap<String, BTreeSet<Uuid>>,
    /// Folders that are one file system on every host.
    pub shared_paths: BTreeSet<String>,
    /// Whether every image that a volume is to be filled from is there.
    pub has_every_image: bool,
    /// Migrations by machine: under way, or ended and not yet begun anew.
    pub moves: BTreeMap<Uuid, Move>,
    /// Guests that were asked to shut down.
    pub shutdowns: BTreeMap<Uuid, Shutdown>,
    /// Guests that ignore it.
    pub stubborn: BTreeSet<Uuid>,
    /// Bytes that guests write to their memory in a second, where somebody said so.
    #[serde(default)]
    pub dirty_rates: BTreeMap<Uuid, u64>,
    /// Machines that were seen running in two places; never forgotten.
    pub ran_twice: BTreeSet<String>,
    /// Actions that were carried out though their preconditions did not hold; never forgotten.
    pub violations: Vec<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            format_version: FORMAT_VERSION.into(),
            hosts: BTreeMap::new(),
            storage: BTreeMap::new(),
            markers: BTreeMap::new(),
            // As if one file server were mounted there on every host.
            shared_paths: ["/srv".to_owned()].into(),
            has_every_image: false,
            moves: BTreeMap::new(),
            shutdowns: BTreeMap::new(),
            stubborn: BTreeSet::new(),
            dirty_rates: BTreeMap::new(),
            ran_twice: BTreeSet::new(),
            violations: Vec::new(),
        }
    }
}

/// A host: what it is, and whether Drover can reach it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Host {
    /// Its pools have no volumes here; those are in [`State::storage`].
    pub state: HostState,
    /// Why it cannot be reached, if so. It goes on living.
    pub unreachable: Option<String>,
}

/// How long something has been under way, over restarts of the program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Timer {
    pub elapsed_millis: u64,
    #[serde(skip)]
    since: Option<Instant>,
}

impl Timer {
    pub fn start(now: Instant) -> Self {
        Self { elapsed_millis: 0, since: Some(now) }
    }

    /// Goes on from what was saved.
    pub fn elapsed(&mut self, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        Duration::from_millis(self.elapsed_millis) + now.saturating_duration_since(since)
    }

    /// Notes the elapsed time.
    fn note(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        self.elapsed_millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.since = Some(now);
    }
}

/// A live migration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Move {
    pub migration: Migration,
    pub timer: Timer,
    pub takes_millis: u64,
    pub bytes: u64,
    /// Volumes that were made at the destination for it.
    pub made: Vec<String>,
    /// It breaks when this part of it (in hundredths) is done.
    pub breaks_at: Option<u64>,
    /// It leaves the source's definition behind.
    pub leaves_definition: bool,
    pub end: Option<Result<(), String>>,
}

/// A shutdown under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shutdown {
    pub host: String,
    pub timer: Timer,
    pub takes_millis: u64,
}

impl State {
    pub fn host(&self, name: &str) -> Option<&HostState> {
        self.hosts.get(name).map(|h| &h.state)
    }

    pub fn domain(&self, host: &str, uuid: Uuid) -> Option<&DomainState> {
        self.host(host)?.domains.iter().find(|d| d.uuid == uuid)
    }

    pub fn domain_mut(&mut self, host: &str, uuid: Uuid) -> Option<&mut DomainState> {
        self.hosts.get_mut(host)?.state.domains.iter_mut().find(|d| d.uuid == uuid)
    }

    pub fn remove_domain(&mut self, host: &str, uuid: Uuid) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.state.domains.retain(|d| d.uuid != uuid);
        }
    }

    /// Adds a domain, or puts it in the place of the one with its UUID.
    pub fn put_domain(&mut self, host: &str, domain: DomainState) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.state.domains.retain(|d| d.uuid != domain.uuid);
            host.state.domains.push(domain);
            host.state.domains.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// Which storage a pool is on: that of a server is one wherever it is mounted; a folder is the host's own unless it
    /// is below a shared path.
    pub fn storage_key(&self, host: &str, pool: &str) -> Option<String> {
        let pool = self.host(host)?.pools.get(pool)?;
        let root = domain_xml::parse(&pool.xml).ok()?;
        let kind = root.attribute("type").unwrap_or_default().to_owned();
        if matches!(kind.as_str(), "netfs" | "iscsi" | "rbd" | "gluster" | "sheepdog") {
            let source = root.get("source").map(domain_xml::Element::to_xml).unwrap_or_default();
            return Some(format!("{kind} {source}"));
        }
        let target = pool.target.clone().unwrap_or_default();
        Some(if self.is_shared_path(&target) { format!("shared {target}") } else { format!("{host} {target}") })
    }

    pub fn is_shared_path(&self, path: &str) -> bool {
        self.shared_paths.iter().any(|s| path == s || path.strip_prefix(s.as_str()).is_some_and(|r| r.starts_with('/')))
    }

    pub fn volumes(&self, host: &str, pool: &str) -> Option<&BTreeMap<String, VolumeState>> {
        static NONE: BTreeMap<String, VolumeState> = BTreeMap::new();
        let key = self.storage_key(host, pool)?;
        Some(self.storage.get(&key).unwrap_or(&NONE))
    }

    pub fn volumes_mut(&mut self, host: &str, pool: &str) -> Option<&mut BTreeMap<String, VolumeState>> {
        let key = self.storage_key(host, pool)?;
        Some(self.storage.entry(key).or_default())
    }

    /// The markers in a pool.
    pub fn markers(&self, host: &str, pool: &str) -> BTreeSet<Uuid> {
        self.storage_key(host, pool).and_then(|key| self.markers.get(&key)).cloned().unwrap_or_default()
    }

    /// Writes a marker into a pool.
    pub fn put_marker(&mut self, host: &str, pool: &str, id: Uuid) -> Result<(), String> {
        let key = self.storage_key(host, pool).ok_or("Storage pool not found")?;
        self.markers.entry(key).or_default().insert(id);
        Ok(())
    }

    /// The pool on a host in whose folder a path lies, and the storage it is on.
    pub fn pool_of_path(&self, host: &str, path: &str) -> Option<(String, String)> {
        let pools = &self.host(host)?.pools;
        pools.iter().find_map(|(name, pool)| {
            let target = pool.target.as_ref()?;
            path.strip_prefix(target.as_str()).filter(|rest| rest.starts_with('/'))?;
            Some((name.clone(), self.storage_key(host, name)?))
        })
    }

    /// Whether a file that a disk names is missing, as far as the pools of the host tell.
    pub fn misses_file(&self, host: &str, path: &str) -> bool {
        self.pool_of_path(host, path).is_some_and(|(_, key)| {
            !self.storage.get(&key).is_some_and(|volumes| volumes.values().any(|v| v.path == path))
        })
    }

    /// Whether two hosts see one file at a path.
    pub fn share_path(&self, one: &str, other: &str, path: &str) -> bool {
        if self.is_shared_path(path) {
            return true;
        }
        match (self.pool_of_path(one, path), self.pool_of_path(other, path)) {
            (Some((_, a)), Some((_, b))) => a == b,
            _ => false,
        }
    }

    /// Domains that have a disk at a path on this storage, as `host/name`.
    pub fn users_of(&self, key: &str, path: &str) -> Vec<String> {
        let mut users = Vec::new();
        for (name, host) in &self.hosts {
            let sees = self.pool_of_path(name, path).is_some_and(|(_, k)| k == key);
            for domain in host.state.domains.iter().filter(|_| sees) {
                let definitions = [&domain.live_xml, &domain.persistent_xml];
                if definitions.into_iter().flatten().any(|xml| domain_xml::disk_target(xml, path).is_some()) {
                    users.push(format!("{name}/{}", domain.name));
                }
            }
        }
        users
    }

    /// A host as an observer sees it.
    pub fn view(&self, name: &str) -> Option<HostState> {
        let mut view = self.host(name)?.clone();
        view.domains.iter_mut().for_each(|d| d.moves = define::moves(d));
        for (pool, state) in view.pools.iter_mut().filter(|(_, p)| p.active) {
            state.volumes = self.volumes(name, pool).cloned().unwrap_or_default();
            state.markers = self.markers(name, pool);
            let taken: u64 = state.volumes.values().map(|v| v.allocation).sum();
            state.available = state.capacity.saturating_sub(taken);
        }
        let used: u64 = view
            .domains
            .iter()
            .filter(|d| d.is_active())
            .filter_map(|d| d.live_xml.as_deref())
            .map(domain_xml::memory_bytes)
            .sum();
        view.free_memory = view.memory.saturating_sub(used);
        Some(view)
    }

    /// A machine goes off: what is only in memory is gone with it.
    pub fn power_off(&mut self, host: &str, uuid: Uuid, state: RunState, reason: &str) {
        let Some(domain) = self.domain_mut(host, uuid) else { return };
        if domain.persistent {
            domain.state = state;
            reason.clone_into(&mut domain.reason);
            domain.live_xml = None;
            domain.job = None;
            domain.owner = domain.persistent_xml.as_deref().and_then(define::owner);
        } else {
            self.remove_domain(host, uuid);
        }
        self.shutdowns.remove(&uuid);
    }

    /// Lets everything that is under way go on to this moment.
    pub fn settle(&mut self, now: Instant) {
        if self.moves.is_empty() && self.shutdowns.is_empty() {
            return;
        }
        let mut due = Vec::new();
        for (uuid, shutdown) in &mut self.shutdowns {
            let takes = Duration::from_millis(shutdown.takes_millis);
            if shutdown.timer.elapsed(now) >= takes && !self.stubborn.contains(uuid) {
                due.push((*uuid, shutdown.host.clone()));
            }
        }
        for (uuid, host) in due {
            self.power_off(&host, uuid, RunState::Off, "shutdown");
        }
        self.settle_moves(now);
        self.audit();
    }

    /// Notes how long everything has been under way, so that it can be saved.
    pub fn note_time(&mut self, now: Instant) {
        self.settle(now);
        let timers = self.moves.values_mut().map(|m| &mut m.timer);
        timers.chain(self.shutdowns.values_mut().map(|s| &mut s.timer)).for_each(|timer| timer.note(now));
    }

    /// Lets no time pass until somebody looks.
    pub fn stop_time(&mut self) {
        let timers = self.moves.values_mut().map(|m| &mut m.timer);
        timers.chain(self.shutdowns.values_mut().map(|s| &mut s.timer)).for_each(|timer| timer.since = None);
    }

    /// Looks whether a machine runs in two places: both copies active, and neither the half of a migration that waits.
    /// After every change: what nobody changed cannot have become wrong.
    pub fn audit(&mut self) {
        let waits = |d: &DomainState| d.state == RunState::Paused && d.reason == "migrating";
        let running: Vec<(&str, &DomainState)> = self
            .hosts
            .iter()
            .flat_map(|(name, host)| host.state.domains.iter().map(move |d| (name.as_str(), d)))
            .filter(|(_, d)| d.is_active() && !waits(d))
            .collect();
        let mut seen = HashSet::new();
        let again: BTreeSet<Uuid> = running.iter().map(|(_, d)| d.uuid).filter(|uuid| !seen.insert(*uuid)).collect();
        for uuid in again {
            let copies = || running.iter().filter(|(_, d)| d.uuid == uuid);
            let hosts = copies().map(|(host, _)| *host).collect::<Vec<_>>().join(" and ");
            let name = copies().next().map_or("", |(_, d)| d.name.as_str());
            self.ran_twice.insert(format!("{name} ({uuid}) ran on {hosts} at once"));
        }
    }

    /// What cannot be in any world that libvirt manages.
    pub fn check(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self.ran_twice.iter().cloned().collect();
        wrong.extend(self.violations.iter().map(|v| format!("precondition violated: {v}")));
        for (name, host) in &self.hosts {
            let mut say = |what: String| wrong.push(format!("{name}: {what}"));
            let (mut names, mut uuids) = (BTreeSet::new(), BTreeSet::new());
            for domain in &host.state.domains {
                let who = &domain.name;
                if !names.insert(who) {
                    say(format!("two domains have the name `{who}`"));
                }
                if !uuids.insert(domain.uuid) {
                    say(format!("two domains have the UUID {}", domain.uuid));
                }
                if domain.persistent != domain.persistent_xml.is_some() {
                    say(format!("`{who}`: persistent and its definition disagree"));
                }
                if domain.is_active() != domain.live_xml.is_some() {
                    say(format!("`{who}`: active and its live definition disagree"));
                }
                if !domain.is_active() && !domain.persistent {
                    say(format!("`{who}` is transient and off"));
                }
                if domain.autostart && !domain.persistent {
                    say(format!("`{who}` is transient and starts with its host"));
                }
                for xml in [&domain.live_xml, &domain.persistent_xml].into_iter().flatten() {
                    match define::identity(xml) {
                        Ok((n, u)) if n == *who && u == domain.uuid => {}
                        Ok((n, u)) => say(format!("`{who}`: a definition says {n} {u}")),
                        Err(e) => say(format!("`{who}`: {e}")),
                    }
                }
                let moves = self.moves.get(&domain.uuid).is_some_and(|m| m.end.is_none());
                if domain.is_in_migration() && !moves {
                    say(format!("`{who}` is half of a migration that is not under way"));
                }
            }
            if !host.state.domains.is_sorted_by(|a, b| a.name <= b.name) {
                say("domains are not in order".into());
            }
        }
        wrong
    }
}
