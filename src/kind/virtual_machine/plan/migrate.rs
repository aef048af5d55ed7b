//! A machine that should be on another host.

use super::super::precheck::{self, Move, Prechecked};
use super::super::survey::Copy;
use super::super::{PowerState, RestartPolicy};
use super::{Chain, Draft, Here, MIGRATION, place};
use crate::action::{MachineAction, Migration, MigrationWay};
use crate::domain_xml;
use crate::finding::Code;
use crate::kind::Resources;
use crate::kind::migration_policy::{CopyStorage, MigrationPolicySpec, Mode};
use crate::kind::virtual_machine::volumes;
use crate::model::Rate;
use crate::observed::RunState;
use crate::plan::{Block, Check, Disruption, Drafts, Effect, Estimate, Fact, Load, Operation, closed};

/// Taken for the link where neither host says its bandwidth and the policy sets no limit.
const ASSUMED_LINK: Rate = Rate(1_000_000_000);
/// Seconds that a live migration takes beside the transfer (measured: 0.9 s for a machine without memory to speak of).
const LIVE_OVERHEAD: f64 = 1.0;
/// libvirt's default for the longest pause.
const DEFAULT_DOWNTIME: u64 = 300;

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
        out.change(&self.id, None, place(here.host, target, effect));
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
        let (migration, checks, facts) =
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
        let copied: u64 = migration.copy.iter().map(|v| v.capacity).sum();
        let copied_to: Vec<String> = migration.copy.iter().map(|v| v.to_pool.clone()).collect();
        let mut step = self.step(
            MachineAction::MigrateVirtualMachine(Box::new(migration)),
            format!(
                "{} {} from {} to {target}",
                if way == MigrationWay::Live { "live-migrate" } else { "move" },
                self.m.name(),
                here.host
            ),
            match self.ctx.survey.reason(self.m.name()) {
                Some(why) => why.to_owned(),
                None => {
                    format!(
                        "the manifest says `{target}`; it {} on {}",
                        if was_active { "runs" } else { "is" },
                        here.host
                    )
                }
            },
        );
        step.estimate = self.estimate(here, target, way, &policy, copied);
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
            step.load = Some(Load { host: target.into(), memory: domain_xml::memory_bytes(xml) });
        }
        for wish in
            self.ctx.observed.host(target).and_then(|t| volumes(self.m, t, self.ctx.resources).ok()).unwrap_or_default()
        {
            step.needs.push(Fact::PoolActive { host: target.into(), pool: wish.libvirt_pool });
        }
        // A disk that the manifest wants elsewhere is copied to where it is now.
        step.needs.extend(copied_to.into_iter().map(|pool| Fact::PoolActive { host: target.into(), pool }));
        step.needs.extend(facts);
        step.offers.push(Fact::MachineOff { host: here.host.into(), machine: self.m.name().into() });
        chain.push(step, out);
        self.power_after(here, target, way, chain, out);
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
            (PowerState::Paused, RunState::Running) => MachineAction::PauseDomain { host: target.into(), uuid },
            _ => return,
        };
        let verb = match action {
            MachineAction::StartDomain { .. } => "start",
            MachineAction::ResumeDomain { .. } => "resume",
            _ => "pause",
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
            let (migration, _, _) = self.migration(here, target, MigrationWay::Live, &policy, Vec::new());
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
        crate::kind::virtual_machine::policy(self.m, self.ctx.resources)
    }

    /// The migration, and what was looked at beforehand.
    fn migration(
        &self,
        here: Here<'_>,
        target: &str,
        way: MigrationWay,
        policy: &MigrationPolicySpec,
        arriving: Vec<Load>,
    ) -> (Migration, Vec<Check>, Vec<Fact>) {
        let to = self.ctx.resources.hosts.get(target).map(|h| &h.spec);
        let there = to.map(|t| t.migration.clone()).unwrap_or_default();
        let mut facts = Vec::new();
        let Prechecked { checks, copy } = match self.ctx.observed.host(target) {
            None => {
                let why = self.ctx.survey.unknown().get(target).map_or("it is fenced", String::as_str);
                Prechecked { checks: precheck::unread(policy, target, why), copy: Vec::new() }
            }
            Some(destination) => {
                let mv = Move {
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
                };
                facts = precheck::shared_needs(&mv);
                precheck::run(&mv)
            }
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
            ..Migration::new(here.domain.uuid, &here.domain.name, [here.host, target], way, uri)
        };
        policy.apply(link(self.ctx.resources, here.host, target), &mut migration);
        (migration, checks, facts)
    }

    fn estimate(
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
