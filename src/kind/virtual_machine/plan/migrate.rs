//! A machine that should be on another host.

use super::super::precheck::{self, Move, Prechecked};
use super::super::survey::{Copy, Located, Target};
use super::super::writers::definition;
use super::super::{PowerState, RestartPolicy, VirtualMachineSpec};
use super::errand::{Errand, temporary_blocks};
use super::{Chain, Draft, Here, MIGRATION, place};
use crate::action::{MachineAction, Migration, MigrationWay};
use crate::domain_xml;
use crate::finding::Code;
use crate::kind::Resources;
use crate::kind::migration_policy::{CopyStorage, MigrationPolicySpec, Mode};
use crate::kind::virtual_machine::{domain_name, footprint, policy_of_move, volumes};
use crate::model::{Manifest, Rate};
use crate::observed::{DomainState, RunState};
use crate::plan::precopy::Prediction;
use crate::plan::{Block, Check, Disruption, Drafts, Effect, Estimate, Fact, Load, Operation, closed};

/// Taken for the link where neither host says its bandwidth and the policy sets no limit.
const ASSUMED_LINK: Rate = Rate(1_000_000_000);
/// Seconds that a live migration takes beside the transfer (measured: 0.9 s for a machine without memory to speak of).
const LIVE_OVERHEAD: f64 = 1.0;
/// Seconds that Drover reads both hosts before and after a live migration (measured).
const AROUND: f64 = 0.6;
/// libvirt's default for the longest pause.
const DEFAULT_DOWNTIME: u64 = 300;

/// A migration as it is planned.
pub(super) struct Planned {
    pub migration: Migration,
    /// What was looked at beforehand.
    pub checks: Vec<Check>,
    pub prediction: Option<Prediction>,
    /// What must hold before it starts.
    needs: Vec<Fact>,
}

impl<'a> Draft<'a> {
    /// Moves it to `target`, after what is in the chain.
    pub(super) fn migrate(&self, here: Here<'_>, target: &str, restart: bool, chain: &mut Chain, out: &mut Drafts) {
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
        let mut blocks = self.cordoned(target);
        blocks.extend(self.too_near(target));
        let Planned { migration, checks, prediction, needs } =
            self.migration(here, target, way, &policy, out.arriving(target).cloned().collect());
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
            match (&self.errand, self.ctx.survey.reason(self.m.name())) {
                (Some(errand), _) => errand.why(),
                (None, Some(why)) => why.to_owned(),
                (None, None) => {
                    let verb = if was_active { "runs" } else { "is" };
                    format!("the manifest says `{target}`; it {verb} on {}", here.host)
                }
            },
        );
        step.estimate = self.estimate(here, target, way, &policy, copied, prediction);
        step.disruption = if way == MigrationWay::Live { Disruption::Brief } else { Disruption::None };
        step.interruption = MIGRATION;
        if self.m.spec.placement.is_some() {
            step.undo =
                Some(format!("nothing moves it back by itself; `host: {}` in place of `placement` does", here.host));
        }
        step.blocked_by = blocks;
        step.checked(checks);
        if way == MigrationWay::Live || wanted != PowerState::Stopped {
            let xml = here.domain.live_xml.as_deref().or(here.domain.persistent_xml.as_deref()).unwrap_or_default();
            step.load = Some(Load {
                host: target.into(),
                memory: domain_xml::memory_bytes(xml),
                vcpus: footprint(Some(self.m), Some(here.domain)).cpus,
            });
        }
        for wish in
            self.ctx.observed.host(target).and_then(|t| volumes(self.m, t, self.ctx.resources).ok()).unwrap_or_default()
        {
            step.needs.push(Fact::PoolActive { host: target.into(), pool: wish.libvirt_pool });
        }
        // A disk that the manifest wants elsewhere is copied to where it is now.
        step.needs.extend(copied_to.into_iter().map(|pool| Fact::PoolActive { host: target.into(), pool }));
        step.needs.extend(needs);
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
        let starts = matches!(action, MachineAction::StartDomain { .. });
        let mut step = self.step(
            action,
            format!("{verb} {} on {target}", self.m.name()),
            format!("`powerState` is {:?}", self.m.spec.power_state),
        );
        if starts {
            step.blocked_by.extend(self.disk_in_use(target, uuid, definition(here.domain)));
        }
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
            let Planned { migration, prediction, .. } =
                self.migration(here, target, MigrationWay::Live, &policy, Vec::new());
            let mut step = self.step(
                MachineAction::MigrateVirtualMachine(Box::new(migration)),
                format!("live-migrate {} from {} to {target}", self.m.name(), here.host),
                "it is already under way, and is followed to its end",
            );
            step.estimate = self.estimate(here, target, MigrationWay::Live, &policy, 0, prediction);
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
        policy_of_move(self.m, named, self.ctx.resources)
    }

    /// The migration, and what was looked at beforehand.
    pub(super) fn migration(
        &self,
        here: Here<'_>,
        target: &str,
        way: MigrationWay,
        policy: &MigrationPolicySpec,
        arriving: Vec<Load>,
    ) -> Planned {
        let to = self.ctx.resources.hosts.get(target).map(|h| &h.spec);
        let there = to.map(|t| t.migration.clone()).unwrap_or_default();
        let Prechecked { checks, copy, prediction, needs } = match self.ctx.observed.host(target) {
            None => {
                let why = self.ctx.survey.unknown().get(target).map_or("it is fenced", String::as_str);
                Prechecked { checks: precheck::unread(policy, target, why), ..Prechecked::default() }
            }
            Some(destination) => precheck::run(&Move {
                ctx: self.ctx,
                machine: Some(self.m),
                domain: here.domain,
                from: here.host,
                source: here.state,
                to: target,
                destination,
                way,
                starts: way == MigrationWay::Live || self.m.spec.power_state != PowerState::Stopped,
                policy,
                arriving,
            }),
        };
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
        let there = self.ctx.observed.host(target);
        if there.is_some_and(|there| precheck::post_copy_needs_drover(policy, here.state, there)) {
            migration.leave_out_post_copy();
        }
        if migration.may_post_copy()
            && there.is_some_and(|there| precheck::splits_connections(policy, here.state, there))
        {
            // Post-copy is what ends a move that otherwise does not; the connections, and what goes over them only, make it
            // faster.
            migration.parallel = None;
            migration.tuning.zero_copy = false;
            migration.tuning.compression.take_if(|method| matches!(method.as_str(), "zlib" | "zstd"));
        }
        Planned { migration, checks, prediction, needs }
    }

    /// A machine at the destination that asks to be kept apart from this one and is not to leave. (For one that leaves, this
    /// one waits: plan/capacity.rs.) Machines with `placement` are never sent to such a host.
    fn too_near(&self, target: &str) -> Option<Block> {
        self.m.spec.host.as_ref()?;
        let labels = &self.m.metadata.labels;
        let asks = |other: &&Manifest<VirtualMachineSpec>| {
            let keys = other.spec.placement.iter().flat_map(|p| &p.anti_affinity);
            let alike = |key: &String| labels.contains_key(key) && labels.get(key) == other.metadata.labels.get(key);
            let mut keys = keys.filter(|key| alike(key));
            other.name() != self.m.name() && keys.next().is_some()
        };
        let stays = |other: &&Manifest<VirtualMachineSpec>| {
            let Located::At { copy, .. } = self.ctx.survey.located(other.name()) else { return false };
            let leaves = matches!(self.ctx.survey.target(other.name()), Some(Target::Host(host)) if host != target);
            copy.host == target && !leaves && copy.domain(self.ctx.observed).is_some_and(DomainState::is_active)
        };
        let other = self.ctx.resources.virtual_machines.values().filter(asks).find(stays)?;
        Some(Block {
            code: Code::CannotMove,
            reason: format!(
                "`{}` is on `{target}`, asks to be kept apart from it, and has nowhere else to go",
                other.name()
            ),
            way_out: "make room for one of them on another host, or change `antiAffinity`".into(),
        })
    }

    /// Whether it gets another name by moving. One that is only away keeps the name that its home knows it by.
    fn renames_on_the_way(&self, here: Here<'_>) -> bool {
        here.domain.is_active()
            && here.domain.name != domain_name(self.m)
            && self.errand.as_ref().is_none_or(Errand::is_permanent)
    }

    pub(super) fn estimate(
        &self,
        here: Here<'_>,
        target: &str,
        way: MigrationWay,
        policy: &MigrationPolicySpec,
        copied: u64,
        prediction: Option<Prediction>,
    ) -> Estimate {
        if let Some(p) = prediction {
            return Estimate {
                seconds: p.seconds.likely + AROUND,
                downtime_millis: p.downtime_millis.likely,
                bytes: p.bytes.likely,
                prediction,
            };
        }
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
        Estimate { seconds: seconds + overhead, downtime_millis: downtime, bytes, prediction: None }
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
