//! A machine that should be on another host.

use super::super::survey::Copy;
use super::super::{PowerState, RestartPolicy};
use super::errand::{Errand, temporary_blocks};
use super::{Chain, Draft, Here, MIGRATION, place};
use crate::action::{Backing, MachineAction, MigratedVolume, Migration, MigrationWay};
use crate::domain_xml;
use crate::finding::Code;
use crate::kind::Resources;
use crate::kind::migration_policy::{CopyStorage, MigrationPolicySpec, Mode};
use crate::kind::virtual_machine::{disk_path, domain_name, volumes};
use crate::model::Rate;
use crate::observed::{HostState, RunState};
use crate::plan::{Block, Disruption, Drafts, Effect, Estimate, Fact, Operation, closed};

/// Taken for the link where neither host says its bandwidth and the policy sets no limit.
const ASSUMED_LINK: Rate = Rate(1_000_000_000);
/// Seconds that a live migration takes beside the transfer (measured: 0.9 s for a machine without memory to speak of).
const LIVE_OVERHEAD: f64 = 1.0;
/// libvirt's default for the longest pause.
const DEFAULT_DOWNTIME: u64 = 300;

impl<'a> Draft<'a> {
    /// Moves it to `target`, after what is in the chain.
    pub(super) fn migrate(&self, here: Here<'a>, target: &'a str, restart: bool, chain: &mut Chain, out: &mut Drafts) {
        let policy = self.policy();
        let mut way = match policy.mode {
            Mode::Offline => MigrationWay::Offline,
            Mode::Live => MigrationWay::Live,
            Mode::Auto if here.domain.is_active() => MigrationWay::Live,
            Mode::Auto => MigrationWay::Offline,
        };
        let wanted = self.m.spec.power_state;
        // A machine that is to be off, or to be restarted anyway, moves while it is off.
        if here.domain.is_active() && (wanted == PowerState::Stopped || restart) {
            way = MigrationWay::Offline;
        }
        self.note(Operation::Migrate, out);
        let effect = if way == MigrationWay::Live { Effect::Live } else { Effect::Restart };
        let effect = if here.domain.is_active() { effect } else { Effect::None };
        self.moves_from(here.host, target, effect, out);
        let was_active = here.domain.is_active();
        if way == MigrationWay::Offline && was_active {
            let mut step = self.shut_down(here, "it moves while it is off");
            if wanted != PowerState::Stopped && self.m.spec.restart_policy != RestartPolicy::Allow {
                step.blocked_by.push(Block {
                    code: Code::RestartNotAllowed,
                    reason: "the migration policy says Offline, and the machine runs".into(),
                    way_out: "set `restartPolicy: Allow`, stop the machine, or use `mode: Auto`".into(),
                });
            }
            chain.push(step, out);
            self.rename_off(here, chain, out);
        }
        let (migration, mut blocks) = self.migration(here, target, way, &policy);
        if way == MigrationWay::Live && !was_active {
            blocks.push(Block {
                code: Code::CannotMove,
                reason: "the migration policy says Live, and the machine is off".into(),
                way_out: "start it, or use `mode: Auto`".into(),
            });
        }
        if !was_active {
            blocks.extend(self.elsewhere(here));
        }
        if let Some(reason) = closed(&policy.windows, self.ctx.now) {
            blocks.push(Block {
                code: Code::WindowClosed,
                reason,
                way_out: "wait for the window, or change `windows` in the migration policy".into(),
            });
        }
        if self.errand.as_ref().is_some_and(|e| !e.is_permanent()) {
            let home = matches!(self.errand, Some(Errand::Home { .. }));
            let found = temporary_blocks(here, way, !migration.copy.is_empty());
            blocks.extend(found.into_iter().filter(|_| !home));
        }
        let copied: u64 = migration.copy.iter().map(|v| v.capacity).sum();
        let copied_to: Vec<String> = migration.copy.iter().map(|v| v.to_pool.clone()).collect();
        let mut step = self.step(
            MachineAction::MigrateVirtualMachine(Box::new(migration)),
            self.route(here.host, target, way),
            match &self.errand {
                Some(errand) => errand.why(),
                None => {
                    let verb = if was_active { "runs" } else { "is" };
                    format!("the manifest says `{target}`; it {verb} on {}", here.host)
                }
            },
        );
        step.estimate = self.estimate(here, target, way, &policy, copied);
        step.disruption = if way == MigrationWay::Live { Disruption::Brief } else { Disruption::None };
        step.interruption = MIGRATION;
        step.blocked_by = blocks;
        for wish in
            self.ctx.observed.host(target).and_then(|t| volumes(self.m, t, self.ctx.resources).ok()).unwrap_or_default()
        {
            step.needs.push(Fact::PoolActive { host: target.into(), pool: wish.libvirt_pool });
        }
        // A disk that the manifest wants elsewhere is copied to where it is now.
        step.needs.extend(copied_to.into_iter().map(|pool| Fact::PoolActive { host: target.into(), pool }));
        if self.errand.as_ref().is_none_or(Errand::is_permanent) {
            step.offers.push(Fact::MachineOff { host: here.host.into(), machine: self.m.name().into() });
        }
        chain.push(step, out);
        self.power_after(here, target, way, chain, out);
    }

    /// One line: what moves whither.
    pub(super) fn route(&self, from: &str, to: &str, way: MigrationWay) -> String {
        let verb = if way == MigrationWay::Live { "live-migrate" } else { "move" };
        let words = self.errand.as_ref().map_or("", Errand::words);
        format!("{verb} {} from {from} to {to}{words}", self.m.name())
    }

    /// Notes that it moves, at the resource for whose sake it does.
    pub(super) fn moves_from(&self, from: &str, to: &str, effect: Effect, out: &mut Drafts) {
        let mut change = place(from, to, effect);
        if self.errand.is_some() {
            change.path = format!("machines[{}]", self.m.name());
        }
        out.change(&self.id, None, change);
    }

    /// What it should be doing once it is there.
    fn power_after(&self, here: Here<'_>, target: &str, way: MigrationWay, chain: &mut Chain, out: &mut Drafts) {
        let uuid = here.domain.uuid;
        let state = if way == MigrationWay::Offline { RunState::Off } else { here.domain.state };
        let action = match (self.m.spec.power_state, state) {
            (wanted @ (PowerState::Running | PowerState::Paused), RunState::Off | RunState::Crashed) => {
                MachineAction::StartDomain { host: target.into(), uuid, paused: wanted == PowerState::Paused }
            }
            (PowerState::Running, RunState::Paused) if matches!(here.domain.reason.as_str(), "user" | "") => {
                MachineAction::ResumeDomain { host: target.into(), uuid }
            }
            // One that is to be paused arrives so.
            _ => return,
        };
        let verb = match action {
            MachineAction::StartDomain { .. } => "start",
            _ => "resume",
        };
        let step = self.step(
            action,
            format!("{verb} {} on {target}", self.m.name()),
            format!("`powerState` is {:?}", self.m.spec.power_state),
        );
        chain.push(step, out);
    }

    /// A migration under way: the same step as the one that began it, where it goes to the right host; else only awaited.
    pub(super) fn follow(&self, from: &'a Copy, to: Option<&str>, out: &mut Drafts) {
        let Some(here) = self.here(from) else { return };
        self.note(Operation::Migrate, out);
        let wanted = self.target().ok();
        let step = if let (Some(to), Some(target)) = (to, wanted)
            && to == target
        {
            let policy = self.policy();
            out.change(&self.id, None, place(here.host, target, Effect::Live));
            let (migration, _) = self.migration(here, target, MigrationWay::Live, &policy);
            let mut step = self.step(
                MachineAction::MigrateVirtualMachine(Box::new(migration)),
                format!("live-migrate {} from {} to {target}", self.m.name(), here.host),
                "it is already under way, and is followed to its end",
            );
            step.estimate = self.estimate(here, target, MigrationWay::Live, &policy, 0);
            step
        } else {
            self.step(
                MachineAction::AwaitMigration { host: here.host.into(), uuid: here.domain.uuid },
                format!("follow the migration of {} away from {}", self.m.name(), here.host),
                "somebody else moves it; what remains is planned after that",
            )
        };
        out.step(crate::plan::StepDraft { disruption: Disruption::Brief, interruption: MIGRATION, ..step });
    }

    /// The policy in force: the machine's, that of Settings, or the default.
    pub(super) fn policy(&self) -> MigrationPolicySpec {
        let named = match &self.errand {
            Some(Errand::There(wish)) => wish.policy.as_ref(),
            _ => None,
        };
        let own = self.m.spec.migration_policy.as_ref().or(self.ctx.settings.migration_policy.as_ref());
        named
            .or(own)
            .and_then(|n| self.ctx.resources.migration_policies.get(n))
            .map(|p| p.spec.clone())
            .unwrap_or_default()
    }

    /// The migration, and why it cannot be.
    pub(super) fn migration(
        &self,
        here: Here<'_>,
        target: &str,
        way: MigrationWay,
        policy: &MigrationPolicySpec,
    ) -> (Migration, Vec<Block>) {
        let mut blocks = self.cordoned(target);
        let to = self.ctx.resources.hosts.get(target).map(|h| &h.spec);
        let there = to.map(|t| t.migration.clone()).unwrap_or_default();
        let mut copy = Vec::new();
        match self.ctx.observed.host(target) {
            None => blocks.push(Block {
                code: Code::HostUnknown,
                reason: format!(
                    "`{target}` could not be read: {}",
                    self.ctx.survey.unknown().get(target).map_or("it is fenced", String::as_str)
                ),
                way_out: "bring it back, or choose another host".into(),
            }),
            Some(there) => {
                blocks.extend(self.incompatible(here, target, there, way));
                blocks.extend(self.unmet(target, there));
                match self.copies(here, target, there, policy) {
                    Ok(volumes) => copy = volumes,
                    Err(block) => blocks.push(block),
                }
            }
        }
        let uri = to.map(|t| t.migration.uri.clone().unwrap_or_else(|| t.uri.clone())).unwrap_or_default();
        let mut migration = Migration {
            listen_uri: there
                .address
                .as_ref()
                .map(|a| if a.contains(':') { format!("tcp://[{a}]") } else { format!("tcp://{a}") }),
            delete_source_copies: policy.delete_source_copies && !copy.is_empty(),
            copy,
            autostart: self.m.spec.autostart.unwrap_or(here.domain.autostart),
            incremental: policy.copy_storage == CopyStorage::Incremental,
            permanent: self.errand.as_ref().is_none_or(Errand::is_permanent),
            mark: self.errand.as_ref().and_then(Errand::mark),
            // It takes its manifest's name along, which a machine that runs gets in no other way.
            rename: (way == MigrationWay::Live && self.renames_on_the_way(here))
                .then(|| domain_name(self.m).to_owned()),
            // Nobody wants it to run for a moment before it is paused.
            arrive_paused: way == MigrationWay::Live
                && here.domain.state == RunState::Running
                && self.m.spec.power_state == PowerState::Paused,
            ..Migration::new(here.domain.uuid, &here.domain.name, [here.host, target], way, uri)
        };
        policy.apply(link(self.ctx.resources, here.host, target), &mut migration);
        (migration, blocks)
    }

    /// Whether it gets another name by moving. One that is only away keeps the name that its home knows it by.
    fn renames_on_the_way(&self, here: Here<'_>) -> bool {
        here.domain.is_active()
            && here.domain.name != domain_name(self.m)
            && self.errand.as_ref().is_none_or(Errand::is_permanent)
    }

    /// What the destination does not offer, and what libvirt refuses or gets wrong.
    fn incompatible(&self, here: Here<'_>, target: &str, there: &HostState, way: MigrationWay) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut block = |reason: String, way_out: &str| {
            blocks.push(Block { code: Code::Incompatible, reason, way_out: way_out.into() });
        };
        if there.driver != here.state.driver {
            block(
                format!("`{target}` runs {}, `{}` runs {}", there.driver, here.host, here.state.driver),
                "choose a host of the same kind",
            );
        }
        if !there.uuid.is_empty() && there.uuid == here.state.uuid {
            block(
                format!("`{target}` and `{}` are one host: both have the UUID {}", here.host, there.uuid),
                "give each host a `host_uuid` of its own in libvirtd.conf, or declare it once",
            );
        }
        if let Some(other) = there.domains.iter().find(|d| d.name == here.domain.name && d.uuid != here.domain.uuid) {
            block(
                format!("the name `{}` on `{target}` belongs to the domain {}", other.name, other.uuid),
                "rename one of them",
            );
        }
        let xml = here.domain.live_xml.as_deref().or(here.domain.persistent_xml.as_deref()).unwrap_or_default();
        if let Some(machine) = domain_xml::machine_type(xml)
            && !there.machine_types.is_empty()
            && !there.machine_types.contains(&machine)
            && !there.machine_aliases.contains_key(&machine)
        {
            block(
                format!("`{target}` does not know the machine type {machine}"),
                "update its hypervisor, or give the machine an older type and restart it",
            );
        }
        for network in domain_xml::networks(xml) {
            match there.networks.get(&network) {
                Some(true) => {}
                Some(false) => {
                    block(format!("network `{network}` on `{target}` is not started"), "start it (`virsh net-start`)")
                }
                None => {
                    block(format!("`{target}` has no network `{network}`"), "define it there, or choose another host")
                }
            }
        }
        for device in domain_xml::immovable_devices(xml) {
            if way == MigrationWay::Live {
                block(
                    format!("it has a device of the host: {device}"),
                    "detach it, or move the machine while it is off",
                );
            }
        }
        if here.domain.managed_save {
            block(
                "it has a saved memory image, which a move would leave behind".into(),
                "start it, or drop the image (`virsh managedsave-remove`)",
            );
        }
        if here.domain.snapshots > 0 {
            block(
                format!("it has {} snapshots, which libvirt does not move", here.domain.snapshots),
                "delete them (`virsh snapshot-delete`)",
            );
        }
        if way == MigrationWay::Live {
            let needed = domain_xml::memory_bytes(xml);
            if there.free_memory > 0 && needed > there.free_memory {
                block(
                    format!(
                        "`{target}` has {} of memory free, and it needs {}",
                        crate::model::Bytes(there.free_memory >> 20 << 20),
                        crate::model::Bytes(needed)
                    ),
                    "free memory there, or choose another host",
                );
            }
        }
        blocks
    }

    /// The disks that have to be copied, because the two hosts do not share what they are on.
    fn copies(
        &self,
        here: Here<'_>,
        target: &str,
        there: &HostState,
        policy: &MigrationPolicySpec,
    ) -> Result<Vec<MigratedVolume>, Block> {
        let xml = here.domain.persistent_xml.as_deref().or(here.domain.live_xml.as_deref()).unwrap_or_default();
        let mut copies = Vec::new();
        for disk in domain_xml::local_disks(xml) {
            let found =
                here.state.pools.iter().find_map(|(name, p)| {
                    p.volumes.iter().find(|(_, v)| v.path == disk.path).map(|(v, s)| (name, v, s))
                });
            let manifest = self.ctx.resources.storage_pools.values().find(|p| {
                let on = |h: &str| p.spec.hosts.iter().any(|x| x == h);
                let name = p.spec.libvirt_name(p.name());
                let holds = found.is_some_and(|(pool, _, _)| pool == name)
                    || p.spec.target.as_ref().is_some_and(|t| disk.path.starts_with(&format!("{t}/")));
                holds && on(here.host) && on(target)
            });
            if manifest.is_some_and(|p| p.spec.shared) {
                continue;
            }
            if disk.read_only && there.pools.values().any(|p| p.volumes.values().any(|v| v.path == disk.path)) {
                continue;
            }
            let block =
                |reason: String, way_out: &str| Block { code: Code::CannotMove, reason, way_out: way_out.into() };
            if policy.copy_storage == CopyStorage::None {
                return Err(block(
                    format!(
                        "disk {} ({}) is not on storage that `{}` and `{target}` share",
                        disk.target, disk.path, here.host
                    ),
                    "put it in a StoragePool that both hosts have with `shared: true`, or set `copyStorage: All` in the migration policy",
                ));
            }
            let (Some((pool, volume, state)), Some(manifest)) = (found, manifest) else {
                return Err(block(
                    format!(
                        "disk {} ({}) is in no StoragePool that both `{}` and `{target}` have, so it cannot be copied",
                        disk.target, disk.path, here.host
                    ),
                    "declare the pool on both hosts",
                ));
            };
            if disk.shareable {
                return Err(block(
                    format!("disk {} is shareable: a copy would be another disk", disk.target),
                    "put it on shared storage",
                ));
            }
            let to_pool = manifest.spec.libvirt_name(manifest.name());
            if let Some(room) = there.pools.get(to_pool).filter(|p| p.active).map(|p| p.available)
                && room < state.allocation
            {
                return Err(block(
                    format!(
                        "pool `{to_pool}` on `{target}` has {} bytes free, disk {} takes {}",
                        room, disk.target, state.allocation
                    ),
                    "make room there",
                ));
            }
            if policy.copy_disks.as_ref().is_some_and(|chosen| !self.is_chosen(chosen, here, &disk.target, &disk.path))
            {
                return Err(block(
                    format!(
                        "disk {} ({}) is not on storage that `{}` and `{target}` share, and not among the `copyDisks` of \
                         its migration policy",
                        disk.target, disk.path, here.host
                    ),
                    "name it there, or put it on shared storage",
                ));
            }
            let backing = match &state.backing {
                Some(path) if policy.copy_storage == CopyStorage::Incremental => {
                    Some(backing(path, here.state, there).map_err(|reason| {
                        block(
                            format!("disk {} cannot be copied incrementally: {reason}", disk.target),
                            "bring the backing image there first (a StoragePool with `shared: true`, or a copy at the same \
                             path), or set `copyStorage: All`",
                        )
                    })?)
                }
                _ => None,
            };
            copies.push(MigratedVolume {
                backing,
                target: disk.target,
                pool: pool.clone(),
                volume: volume.clone(),
                path: disk.path,
                to_pool: to_pool.into(),
                capacity: state.capacity,
                format: state.format.clone(),
            });
        }
        Ok(copies)
    }

    /// Whether a policy's `copyDisks` names a disk: by its target, or by its name in the manifest.
    fn is_chosen(&self, chosen: &[String], here: Here<'_>, target: &str, path: &str) -> bool {
        let is_it = |name: &String| {
            self.m.spec.disks.iter().flatten().enumerate().filter(|(_, d)| d.name == *name).any(|(i, d)| {
                disk_path(self.m, i, d, here.state, self.ctx.resources).is_ok_and(|p| p.path() == Some(path))
            })
        };
        chosen.iter().any(|c| c == target || is_it(c))
    }

    /// Pools that the machine's disks need on a host and that nothing brings there.
    pub(super) fn unmet(&self, host: &str, state: &HostState) -> Vec<Block> {
        volumes(self.m, state, self.ctx.resources)
            .unwrap_or_default()
            .into_iter()
            .filter(|wish| {
                let declared = self
                    .ctx
                    .resources
                    .storage_pools
                    .get(&wish.pool)
                    .is_some_and(|p| p.spec.hosts.iter().any(|h| h == host));
                !declared && !state.pools.get(&wish.libvirt_pool).is_some_and(|p| p.active)
            })
            .map(|wish| Block {
                code: Code::Incompatible,
                reason: format!("`{host}` does not have the pool `{}` of disk `{}`", wish.libvirt_pool, wish.disk),
                way_out: format!("add `{host}` to the pool's `hosts`"),
            })
            .collect()
    }

    pub(super) fn estimate(
        &self,
        here: Here<'_>,
        target: &str,
        way: MigrationWay,
        policy: &MigrationPolicySpec,
        copied: u64,
    ) -> Estimate {
        let xml = here.domain.live_xml.as_deref().or(here.domain.persistent_xml.as_deref()).unwrap_or_default();
        let memory = if way == MigrationWay::Live { domain_xml::memory_bytes(xml) } else { 0 };
        let link = link(self.ctx.resources, here.host, target);
        let rate = policy.bandwidth.map_or(link, |b| b.min(link)).bytes_per_second().max(1);
        let bytes = memory + copied;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = (bytes as f64 / rate as f64 * 10.0).round() / 10.0;
        let (overhead, downtime) = if way == MigrationWay::Live {
            (LIVE_OVERHEAD, policy.max_downtime.map_or(DEFAULT_DOWNTIME, |d| d.0))
        } else {
            (0.2, 0)
        };
        Estimate { seconds: seconds + overhead, downtime_millis: downtime, bytes }
    }
}

/// The slower of two hosts' links.
pub(super) fn link(all: &Resources, from: &str, to: &str) -> Rate {
    let of = |h: &str| all.hosts.get(h).and_then(|h| h.spec.migration.bandwidth);
    match (of(from), of(to)) {
        (Some(a), Some(b)) => a.min(b),
        (Some(a), None) | (None, Some(a)) => a,
        (None, None) => ASSUMED_LINK,
    }
}

/// The image below a disk, where the destination has the same at the same path, as far as can be told.
fn backing(path: &str, here: &HostState, there: &HostState) -> Result<Backing, String> {
    let find =
        |state: &HostState| state.pools.values().flat_map(|p| p.volumes.values()).find(|v| v.path == path).cloned();
    let Some(below) = find(here) else {
        return Err(format!("its backing image {path} is in no pool of the source, so nothing is known of it"));
    };
    let Some(same) = find(there) else {
        return Err(format!("its backing image {path} is in no pool of the destination"));
    };
    if (same.capacity, &same.format) != (below.capacity, &below.format) {
        return Err(format!(
            "its backing image {path} has {} bytes ({}) at the source and {} bytes ({}) at the destination",
            below.capacity, below.format, same.capacity, same.format
        ));
    }
    Ok(Backing { path: path.to_owned(), format: below.format, capacity: below.capacity })
}
