//! Migrations in the simulated world. A live one goes on by itself once it was begun (peer-to-peer): who began it only
//! watches, and may go away.
//!
//! ```text
//!            begin                        time passes                        tail
//!  on A ─────────────▶ A: running, job ─────────────────▶ B: running ─────────────────▶ B: autostart, A: nothing
//!                      B: paused (migrating),   │
//!                         transient             └ breaks, aborted ─▶ A: running, B: nothing but copied volumes
//! ```

use super::act::{says, volume_path};
use super::define;
use super::look::{self, Tail};
use super::state::{Move, State, Timer};
use crate::action::{MachineAction, Migration, MigrationWay};
use crate::domain_xml;
use crate::observed::{DomainState, JobOperation, JobState, Progress, RunState, VolumeState};
use crate::provider::{ActError, Look};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Bytes a second that a simulated migration moves: a link of 1 Gbit/s.
const LINK: u64 = 125_000_000;

/// What a live migration takes beside the transfer, in milliseconds.
const OVERHEAD_MILLIS: u64 = 1_000;

/// How a migration goes wrong, when it is to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mishap {
    pub breaks_at: Option<u64>,
    pub leaves_definition: bool,
}

/// Begins a move: a live one is then under way, an offline one is over but for its tail.
pub(super) fn begin(state: &mut State, m: &Migration, mishap: Mishap, now: Instant) -> Result<(), ActError> {
    let action = MachineAction::MigrateVirtualMachine(Box::new(m.clone()));
    match look::look(state, &action) {
        Look::Ready => {}
        Look::AlreadyDone | Look::Running => return Ok(()),
        Look::Refused { reason } => {
            state.violations.push(format!("{}: {reason}", action.name()));
            return Err(ActError::permanent(format!("{}: {reason}", action.name())));
        }
    }
    let Some(source) = state.domain(&m.from, m.uuid).cloned() else {
        return Err(says(&m.from, "Domain not found"));
    };
    possible(state, m, &source).map_err(|why| says(&m.from, why))?;
    let xml = source.live_xml.as_deref().or(source.persistent_xml.as_deref()).unwrap_or_default();
    let memory = domain_xml::memory_bytes(xml);
    let (made, copied) = make_volumes(state, m).map_err(|why| says(&m.to, why))?;
    if m.way == MigrationWay::Offline {
        return offline(state, m, source);
    }
    let rate = m.bandwidth_mib.map_or(LINK, |mib| (mib << 20).min(LINK)).max(1);
    let bytes = memory + copied;
    let takes_millis = OVERHEAD_MILLIS + bytes.saturating_mul(1000) / rate;
    let live = moved(&source.live_xml, m, state).map_err(|why| says(&m.to, why))?;
    let arriving = DomainState {
        state: RunState::Paused,
        reason: "migrating".into(),
        persistent: state.domain(&m.to, m.uuid).is_some_and(|d| d.persistent),
        persistent_xml: state.domain(&m.to, m.uuid).and_then(|d| d.persistent_xml.clone()),
        autostart: state.domain(&m.to, m.uuid).is_some_and(|d| d.autostart),
        live_xml: live,
        job: Some(JobState { operation: JobOperation::MigrationIn, progress: Progress::default() }),
        ..source
    };
    state.put_domain(&m.to, arriving);
    if let Some(domain) = state.domain_mut(&m.from, m.uuid) {
        domain.job = Some(JobState { operation: JobOperation::MigrationOut, progress: Progress::default() });
    }
    let migration = Move {
        migration: m.clone(),
        timer: Timer::start(now),
        takes_millis,
        bytes,
        made,
        breaks_at: mishap.breaks_at,
        leaves_definition: mishap.leaves_definition,
        end: None,
    };
    state.moves.insert(m.uuid, migration);
    state.settle(now);
    Ok(())
}

/// libvirt's own objections.
fn possible(state: &State, m: &Migration, source: &DomainState) -> Result<(), String> {
    let (Some(from), Some(to)) = (state.host(&m.from), state.host(&m.to)) else { return Err("no such host".into()) };
    if from.uuid == to.uuid {
        return Err(format!("internal error: Attempt to migrate guest to the same host {}", to.uuid));
    }
    let xml = source.live_xml.as_deref().or(source.persistent_xml.as_deref()).unwrap_or_default();
    if let Some(machine) = domain_xml::machine_type(xml)
        && !to.machine_types.contains(&machine)
    {
        return Err(format!("unsupported configuration: Emulator does not support machine type '{machine}'"));
    }
    if m.way == MigrationWay::Offline {
        return Ok(());
    }
    for network in domain_xml::networks(xml) {
        if to.networks.get(&network) != Some(&true) {
            return Err(format!("Network not found: no network with matching name '{network}'"));
        }
    }
    for disk in domain_xml::local_disks(xml) {
        let copied = m.copy.iter().any(|c| c.path == disk.path || c.target == disk.target);
        if !copied && !disk.read_only && !state.share_path(&m.from, &m.to, &disk.path) {
            return Err(format!(
                "Unsafe migration: Migration without shared storage is unsafe (disk {} at {})",
                disk.target, disk.path
            ));
        }
        if !copied && state.misses_file(&m.to, &disk.path) {
            return Err(format!("Cannot access storage file '{}': No such file or directory", disk.path));
        }
    }
    Ok(())
}

/// Makes the volumes at the destination that are copied; gives those that were not there, and the bytes to copy.
fn make_volumes(state: &mut State, m: &Migration) -> Result<(Vec<String>, u64), String> {
    let (mut made, mut bytes) = (Vec::new(), 0);
    for volume in &m.copy {
        let source = state.volumes(&m.from, &volume.pool).and_then(|v| v.get(&volume.volume));
        let allocation = source.ok_or_else(|| format!("Storage volume not found: '{}'", volume.volume))?.allocation;
        bytes += allocation;
        let path = volume_path(state, &m.to, &volume.to_pool, &volume.volume);
        let there = state.volumes_mut(&m.to, &volume.to_pool).ok_or("Storage pool not found")?;
        if !there.contains_key(&volume.volume) {
            made.push(format!("{}/{}", volume.to_pool, volume.volume));
            let new = VolumeState {
                path,
                format: volume.format.clone(),
                capacity: volume.capacity,
                allocation,
                backing: None,
            };
            there.insert(volume.volume.clone(), new);
        }
    }
    Ok((made, bytes))
}

/// A definition at the destination: disks that were copied to another path are at that path.
fn moved(xml: &Option<String>, m: &Migration, state: &State) -> Result<Option<String>, String> {
    let Some(xml) = xml else { return Ok(None) };
    let paths: Vec<(String, String)> = m
        .copy
        .iter()
        .map(|v| (v.path.clone(), volume_path(state, &m.to, &v.to_pool, &v.volume)))
        .filter(|(old, new)| old != new)
        .collect();
    if paths.is_empty() {
        return Ok(Some(xml.clone()));
    }
    define::change(xml, |root| {
        for disk in root.ensure("devices").elements_mut().filter(|d| d.name == "disk") {
            for source in disk.elements_mut().filter(|e| e.name == "source") {
                for attribute in ["file", "dev"] {
                    if let Some((_, new)) = paths.iter().find(|(old, _)| source.attribute(attribute) == Some(old)) {
                        source.set(attribute, new.clone());
                    }
                }
            }
        }
    })
    .map(Some)
}

fn offline(state: &mut State, m: &Migration, source: DomainState) -> Result<(), ActError> {
    let persistent_xml = moved(&source.persistent_xml, m, state).map_err(|why| says(&m.to, why))?;
    let there = DomainState {
        state: RunState::Off,
        reason: "unknown".into(),
        persistent: true,
        autostart: false,
        live_xml: None,
        persistent_xml,
        job: None,
        managed_save: false,
        snapshots: 0,
        checkpoints: 0,
        ..source
    };
    state.put_domain(&m.to, there);
    state.remove_domain(&m.from, m.uuid);
    state.audit();
    Ok(())
}

impl State {
    /// Lets live migrations go on to this moment, in the order in which they end.
    pub(super) fn settle_moves(&mut self, now: Instant) {
        let mut due: Vec<(Duration, Uuid, bool)> = Vec::new();
        let mut under_way = Vec::new();
        for (uuid, one) in self.moves.iter_mut().filter(|(_, m)| m.end.is_none()) {
            let elapsed = one.timer.elapsed(now);
            let breaks = one.breaks_at.map(|hundredths| Duration::from_millis(one.takes_millis * hundredths / 100));
            let takes = Duration::from_millis(one.takes_millis);
            match breaks {
                Some(at) if elapsed >= at => due.push((elapsed - at, *uuid, false)),
                None if elapsed >= takes => due.push((elapsed - takes, *uuid, true)),
                _ => under_way.push((*uuid, progress(one, elapsed))),
            }
        }
        // The one that ended longest ago comes first.
        due.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, uuid, well) in due {
            if well {
                self.arrive(uuid);
            } else {
                self.abort(uuid, "client socket is closed");
            }
        }
        for (uuid, progress) in under_way {
            let Some(m) = self.moves.get(&uuid).map(|m| m.migration.clone()) else { continue };
            let both_there = self.domain(&m.from, uuid).is_some_and(look::leaves)
                && self.domain(&m.to, uuid).is_some_and(DomainState::is_in_migration);
            if !both_there {
                // Somebody destroyed one half: the other goes, too, or stays where it was.
                self.abort(uuid, "domain is not running");
            } else if let Some(job) = self.domain_mut(&m.from, uuid).and_then(|d| d.job.as_mut()) {
                job.progress = progress;
            }
        }
    }

    /// The switch-over.
    fn arrive(&mut self, uuid: Uuid) {
        let Some((m, leaves_definition)) = self.moves.get(&uuid).map(|m| (m.migration.clone(), m.leaves_definition))
        else {
            return;
        };
        let source = self.domain(&m.from, uuid).filter(|d| look::leaves(d)).cloned();
        let (Some(source), Some(mut there)) = (source, self.domain(&m.to, uuid).cloned()) else {
            self.abort(uuid, "domain is not running");
            return;
        };
        let definition = source.persistent_xml.clone().or_else(|| {
            let host = self.host(&m.to)?;
            define::fill_in(source.live_xml.as_deref()?, host).ok()
        });
        there.persistent_xml = moved(&definition, &m, self).unwrap_or(definition);
        there.persistent = there.persistent_xml.is_some();
        there.live_xml = moved(&source.live_xml, &m, self).ok().flatten().or(there.live_xml);
        (there.state, there.reason) = match source.state {
            RunState::Paused => (RunState::Paused, "user".into()),
            other => (other, "migrated".into()),
        };
        // libvirt does not carry these over.
        there.autostart = false;
        there.managed_save = false;
        there.snapshots = 0;
        there.job = None;
        there.owner = source.owner.clone();
        self.put_domain(&m.to, there);
        if leaves_definition && source.persistent {
            self.power_off(&m.from, uuid, RunState::Off, "migrated");
        } else {
            self.remove_domain(&m.from, uuid);
            self.shutdowns.remove(&uuid);
        }
        if let Some(one) = self.moves.get_mut(&uuid) {
            one.end = Some(Ok(()));
        }
    }

    /// Ends a migration that does not succeed: the machine stays where it was. Volumes that were made stay, too, as
    /// libvirt leaves them.
    pub(super) fn abort(&mut self, uuid: Uuid, why: &str) {
        let Some(m) = self.moves.get(&uuid).map(|m| m.migration.clone()) else { return };
        if let Some(there) = self.domain(&m.to, uuid).filter(|d| d.is_in_migration()).cloned() {
            if there.persistent {
                self.power_off(&m.to, uuid, RunState::Off, "failed");
            } else {
                self.remove_domain(&m.to, uuid);
            }
        }
        if let Some(here) = self.domain_mut(&m.from, uuid) {
            here.job = None;
        }
        if let Some(one) = self.moves.get_mut(&uuid) {
            one.end = Some(Err(why.to_owned()));
        }
    }
}

fn progress(one: &Move, elapsed: Duration) -> Progress {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let part = u128::from(one.bytes) * u128::from(millis.min(one.takes_millis)) / u128::from(one.takes_millis.max(1));
    let processed = u64::try_from(part).unwrap_or(one.bytes);
    Progress {
        phase: if one.migration.copy.is_empty() { "copying memory" } else { "copying disks and memory" }.into(),
        processed,
        remaining: one.bytes - processed,
        total: one.bytes,
        rate: one.bytes * 1000 / one.takes_millis.max(1),
        iteration: 1 + millis * 3 / one.takes_millis.max(1),
        elapsed_millis: millis,
        downtime_millis: 0,
    }
}

/// Removes volumes that a failed migration left at the destination, as far as it made them.
pub(super) fn clean(state: &mut State, uuid: Uuid) {
    let Some(one) = state.moves.get_mut(&uuid) else { return };
    let (made, to) = (std::mem::take(&mut one.made), one.migration.to.clone());
    for name in made {
        if let Some((pool, volume)) = name.split_once('/')
            && let Some(volumes) = state.volumes_mut(&to, pool)
        {
            volumes.remove(volume);
        }
    }
}

/// Does one of the things that are left to do at the end.
pub(super) fn finish(state: &mut State, m: &Migration, what: Tail) -> Result<(), ActError> {
    match what {
        Tail::Define => {
            let host = state.host(&m.to);
            let live = state.domain(&m.to, m.uuid).and_then(|d| d.live_xml.clone());
            let xml = match (host, live) {
                (Some(host), Some(live)) => define::fill_in(&live, host).map_err(|why| says(&m.to, why))?,
                _ => return Err(says(&m.to, "domain is not running")),
            };
            if let Some(domain) = state.domain_mut(&m.to, m.uuid) {
                domain.persistent = true;
                domain.persistent_xml = Some(xml);
            }
        }
        Tail::Undefine => state.remove_domain(&m.from, m.uuid),
        Tail::Autostart => {
            if let Some(domain) = state.domain_mut(&m.to, m.uuid) {
                domain.autostart = m.autostart;
            }
        }
        Tail::DeleteCopies => {
            for volume in &m.copy {
                if let Some(volumes) = state.volumes_mut(&m.from, &volume.pool) {
                    volumes.remove(&volume.volume);
                }
            }
        }
    }
    state.audit();
    Ok(())
}
