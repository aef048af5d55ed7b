//! From where a machine is and what it is to the steps that make it as its manifest says. This file decides which of
//! the cases of [`Survey`](super::Survey) it is; the files beside it draft one case each.

mod change;
mod create;
mod disk;
mod errand;
mod migrate;
mod orders;
mod power;
mod storage;
mod sweep;

pub(in crate::kind) use errand::{Errand, go, under_way};
pub use orders::{disk_order, order};
pub use sweep::sweep;

use super::baseline;
use super::import::{ADOPT, ADOPT_ON_CHANGE};
use super::survey::{Copy, Located, Target};
use super::{PowerState, VirtualMachineSpec};
use crate::action::{Action, MachineAction};
use crate::finding::{Code, Finding, Severity};
use crate::kind::settings::Drift;
use crate::model::{Manifest, ResourceId};
use crate::observed::{DomainState, HostState, OwnedVolume, OwnerMark, RunState};
use crate::plan::{
    Block, Change, Context, Definition, DraftId, Drafts, Effect, Health, Interruption, Operation, StepDraft, Sync,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// One machine while its steps are drafted.
pub(super) struct Draft<'a> {
    pub m: &'a Manifest<VirtualMachineSpec>,
    pub id: ResourceId,
    pub ctx: &'a Context<'a>,
    /// For whose sake it moves, where that is not its manifest's.
    pub errand: Option<Errand>,
    /// The baseline that `m` has in the place of `cpu.mode: Baseline`, in words; or why it is not known.
    pub baseline: Option<&'a Result<String, String>>,
}

/// A domain that was found, on a host that was read.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub host: &'a str,
    pub state: &'a HostState,
    pub domain: &'a DomainState,
    /// The host that has its definition: another one only while it is elsewhere for a while.
    pub keeper: &'a str,
}

/// Drafts what brings a machine to what its manifest says.
pub fn draft(m: &Manifest<VirtualMachineSpec>, ctx: &Context<'_>, out: &mut Drafts) {
    let resolved = baseline::resolve(m, ctx.resources, ctx.observed);
    let m = resolved.as_ref().map_or(m, |r| &r.manifest);
    let d = Draft { m, id: m.id(), ctx, baseline: resolved.as_ref().map(|r| &r.found), errand: None };
    if let Some(Err(why)) = d.baseline {
        out.finding(
            Finding::new(
                Code::BaselineUnknown,
                format!("the common CPU that `{}` should have is not known: {why}", m.name()),
            )
            .of(m, "spec.cpu")
            .hint("its CPU stays as it is; bring the hosts back, or name those that count in `spec.cpu.hosts`"),
        );
    }
    let located = ctx.survey.located(m.name());
    if let Located::Twice { hosts } | Located::DefinedTwice { hosts } = located
        && let Some(uuid) = d.one_host(hosts)
    {
        return d.needs_a_person(
            Code::NeedsAPerson,
            format!("`{}` is seen twice, and {} are one host: both have the UUID {uuid}", m.name(), hosts.join(" and ")),
            "declare the host once, or give each a `host_uuid` of its own in libvirtd.conf. To stop either copy would be to stop the only one",
            out,
        );
    }
    match located {
        Located::Unknown { hosts } => d.unknown(hosts, out),
        Located::Broken { hosts } => d.needs_a_person(
            Code::NeedsAPerson,
            format!("`{}`: a post-copy migration broke; half of its memory is on each of {}", m.name(), hosts.join(", ")),
            "heal the link between the hosts: QEMU goes on by itself once its connection is back, which can take minutes; where the link is up (whoever drove the migration was stopped) it is sending already. Destroying either side loses the machine's memory; `virsh migrate --postcopy-resume` crashed libvirtd 11.3 and failed with 9.0 when it was tried",
            out,
        ),
        Located::Twice { hosts } => d.needs_a_person(
            Code::RunningTwice,
            format!("`{}` runs on {} at once", m.name(), hosts.join(" and ")),
            "stop the copy that should not run (`virsh destroy`), and check the disks: both may have written to them",
            out,
        ),
        Located::DefinedTwice { hosts } => d.needs_a_person(
            Code::DefinedTwice,
            format!("`{}` is off and defined on {}; which one is right cannot be told", m.name(), hosts.join(" and ")),
            "undefine the copies that should not be (`virsh undefine`)",
            out,
        ),
        Located::Foreign { copy } => d.foreign(copy, out),
        Located::Moving { from, to } => d.moving(from.as_ref(), to.as_ref(), out),
        // With any other CPU it would have to be restarted once the right one is known.
        Located::Absent if matches!(d.baseline, Some(Err(_))) => {
            let report = out.report(&d.id, None);
            report.sync = Sync::OutOfSync;
            report.health = Health::Missing;
        }
        Located::Absent => match d.target() {
            Ok(host) => d.create(host, out),
            Err(block) => d.nowhere(None, block, out),
        },
        Located::At { copy, stale } => {
            if let Some(away) = ctx.survey.moves().away(m.name()) {
                d.away(copy, away, out);
                return;
            }
            let Some(here) = d.here(copy) else { return };
            d.health(here, out);
            let cleared = d.leftovers(here, stale, out);
            d.present(here, Chain { last: cleared, ..Chain::default() }, out);
        }
    }
}

impl<'a> Draft<'a> {
    /// The host's name and state, and the domain, of a copy.
    fn here(&self, copy: &'a Copy) -> Option<Here<'a>> {
        Some(Here {
            host: &copy.host,
            state: self.ctx.observed.host(&copy.host)?,
            domain: copy.domain(self.ctx.observed)?,
            keeper: &copy.host,
        })
    }

    /// The host it should be on, or why there is none.
    fn target(&self) -> Result<&'a str, Block> {
        let why = match self.ctx.survey.target(self.m.name()) {
            Some(Target::Host(host)) => return Ok(host),
            Some(Target::Nowhere { why }) => why.clone(),
            None => "the manifest says neither `host` nor `placement`".into(),
        };
        Err(Block { code: Code::CannotMove, reason: why, way_out: "add a host, free one, or widen `placement`".into() })
    }

    /// The ownership mark it should carry. `volumes` are those that Drover made or is about to make for it.
    fn owner(&self, domain: Option<&DomainState>, made: Vec<OwnedVolume>) -> OwnerMark {
        let persistent = domain.and_then(|d| crate::domain_xml::parse(d.persistent_xml.as_deref()?).ok());
        self.owner_from(domain, persistent.as_ref().and_then(crate::domain_xml::owner_of), made)
    }

    /// [`Draft::owner`], with the mark of the persistent definition at hand.
    fn owner_from(
        &self,
        domain: Option<&DomainState>,
        persistent: Option<OwnerMark>,
        made: Vec<OwnedVolume>,
    ) -> OwnerMark {
        // The mark of a running machine is that of its live definition; the persistent one may know of more volumes.
        let marks = domain.and_then(|d| d.owner.clone()).into_iter().chain(persistent);
        let mut volumes: Vec<OwnedVolume> = marks.flat_map(|mark| mark.volumes).chain(made).collect();
        volumes.sort();
        volumes.dedup();
        OwnerMark {
            fleet: self.ctx.resources.fleet().into(),
            name: self.m.name().into(),
            delete: self.m.spec.deletion_policy == super::DeletionPolicy::Delete,
            volumes,
        }
    }

    /// A draft for this machine.
    fn step(&self, action: MachineAction, summary: impl Into<String>, why: impl Into<String>) -> StepDraft {
        let mut step = StepDraft::new(Action::Machine(action), self.id.clone(), summary, why);
        // Those of one migration take their turns.
        step.rank = self.errand.as_ref().map_or_else(
            || super::priority(self.m),
            |errand| i32::try_from(errand.rank()).map_or(i32::MIN, std::ops::Neg::neg),
        );
        step
    }

    fn note(&self, operation: Operation, out: &mut Drafts) {
        let report = out.report(&self.id, None);
        report.operation = report.operation.max(operation);
    }

    fn change(&self, path: &str, before: Value, after: Value, effect: Effect, out: &mut Drafts) {
        out.change(&self.id, None, Change { path: path.into(), before, after, effect, definition: None, note: None });
    }

    /// Whether differences are only shown: they were made by hand, and drift is to be reported.
    fn only_reports(&self) -> bool {
        self.ctx.options.is_drift(&self.id) && self.m.spec.drift.unwrap_or(self.ctx.settings.drift) == Drift::Report
    }

    fn unknown(&self, hosts: &[String], out: &mut Drafts) {
        let report = out.report(&self.id, None);
        report.sync = Sync::Unknown;
        report.health = Health::Unknown;
        let why = hosts.iter().find_map(|h| self.ctx.survey.unknown().get(h)).cloned().unwrap_or_default();
        out.finding(
            Finding::new(
                Code::HostUnknown,
                format!(
                    "`{}` was not found, and may be on {}, which could not be read: {why}",
                    self.m.name(),
                    hosts.join(", ")
                ),
            )
            .of(self.m, "spec.host")
            .hint("bring the host back; if it is really off, say `fenced: true` in its manifest"),
        );
    }

    /// The UUID of these hosts, where they all have the same: several manifests of one host, or hosts that libvirt takes
    /// for one.
    fn one_host(&self, hosts: &[String]) -> Option<&str> {
        let mut uuids = hosts.iter().map(|h| self.ctx.observed.host(h).map_or("", |h| h.uuid.as_str()));
        let first = uuids.next().filter(|u| !u.is_empty())?;
        uuids.all(|u| u == first).then_some(first)
    }

    fn needs_a_person(&self, code: Code, message: String, hint: &str, out: &mut Drafts) {
        let report = out.report(&self.id, None);
        report.sync = Sync::OutOfSync;
        report.health = Health::Degraded;
        out.finding(Finding::new(code, message).of(self.m, "metadata.name").hint(hint));
    }

    /// No host takes it: it is not made, or stays where it must not.
    fn nowhere(&self, here: Option<Here<'_>>, block: Block, out: &mut Drafts) {
        let report = out.report(&self.id, None);
        report.sync = Sync::OutOfSync;
        let message = match here {
            None => {
                report.health = Health::Missing;
                format!("`{}` has no host: {}", self.m.name(), block.reason)
            }
            Some(here) => format!("`{}` has to leave `{}`, and cannot: {}", self.m.name(), here.host, block.reason),
        };
        out.finding(Finding::new(block.code, message).of(self.m, "spec.placement").hint(block.way_out));
    }

    /// A domain of its name or UUID that is not Drover's: taken over where that was asked for, refused otherwise.
    fn foreign(&self, copy: &'a Copy, out: &mut Drafts) {
        let Some(here) = self.here(copy) else { return };
        let annotation = self.m.metadata.annotations.get(ADOPT).map(String::as_str);
        let now = self.ctx.options.adopt.contains(self.m.name()) || annotation == Some("true");
        let asked = now || annotation == Some(ADOPT_ON_CHANGE);
        let owner = here.domain.owner.as_ref().map_or_else(
            || "no Drover made it".to_owned(),
            |o| format!("it belongs to `{}` of the fleet `{}`", o.name, o.fleet),
        );
        if !asked {
            let report = out.report(&self.id, None);
            report.sync = Sync::OutOfSync;
            report.health = Health::Degraded;
            out.finding(
                Finding::new(
                    Code::NotOwned,
                    format!("`{}` on `{}` exists and is not Drover's: {owner}", here.domain.name, here.host),
                )
                .of(self.m, "metadata.name")
                .hint("give the manifest another name or `domainName`; or let Drover take the domain over with the annotation `drover/adopt: \"true\"` or `--adopt`"),
            );
            return;
        }
        let before = out.mark();
        self.note(Operation::Adopt, out);
        self.change("metadata.owner", json!(here.domain.owner), json!(self.ctx.resources.fleet()), Effect::Live, out);
        self.health(here, out);
        self.present(here, Chain { adopt: Some(format!("adoption was asked for; {owner}")), ..Chain::default() }, out);
        let is_adoption = |s: &StepDraft| matches!(s.action, Action::Machine(MachineAction::SetOwner { .. }));
        if !now && out.since(before).iter().all(is_adoption) {
            // It was imported, and is as its manifest says: the first change takes it over.
            out.take_back(before);
            let report = out.report(&self.id, None);
            report.operation = Operation::None;
            report.changes.retain(|c| !c.path.starts_with("metadata."));
            if report.changes.is_empty() {
                report.sync = Sync::Synced;
            }
        }
    }

    /// Takes a domain over, if that is what the chain is for. After its definition was updated: the update is made from
    /// the definition that was observed, and refuses another one, which the mark would make of it. Tells whether it did.
    fn adopt(&self, here: Here<'_>, made: Vec<OwnedVolume>, chain: &mut Chain, out: &mut Drafts) -> bool {
        let Some(why) = chain.adopt.take() else { return false };
        let owner = self.owner(Some(here.domain), made);
        let action = MachineAction::SetOwner { host: here.host.into(), uuid: here.domain.uuid, owner };
        chain.push(self.step(action, format!("adopt {} on {}", here.domain.name, here.host), why), out);
        true
    }

    /// A migration that is under way: followed, and nothing else done to the machine meanwhile.
    fn moving(&self, from: Option<&Copy>, to: Option<&Copy>, out: &mut Drafts) {
        let report = out.report(&self.id, None);
        report.health = Health::Progressing;
        report.sync = Sync::OutOfSync;
        let Some(from) = from.and_then(|c| self.here(c).map(|_| c)) else {
            report.sync = Sync::Unknown;
            out.finding(
                Finding::new(
                    Code::InProgress,
                    format!(
                        "`{}` is arriving at `{}`; the host it comes from could not be read",
                        self.m.name(),
                        to.map_or("?", |c| c.host.as_str())
                    ),
                )
                .of(self.m, "metadata.name")
                .hint("it is left alone until the migration has ended or both hosts can be read"),
            );
            return;
        };
        if self.errand_under_way(from, to, true, out) {
            return;
        }
        let goal = to.map(|c| c.host.as_str());
        out.finding(
            Finding::new(
                Code::InProgress,
                format!(
                    "`{}` is on its way from `{}` to `{}`",
                    self.m.name(),
                    from.host,
                    goal.unwrap_or("another host")
                ),
            )
            .of(self.m, "metadata.name")
            .hint("the migration is followed to its end; then the rest is planned anew"),
        );
        self.follow(from, goal, out);
    }

    fn health(&self, here: Here<'_>, out: &mut Drafts) {
        let wanted = self.m.spec.power_state;
        let health = match (wanted, here.domain.state) {
            (PowerState::Running, RunState::Running)
            | (PowerState::Stopped, RunState::Off | RunState::Crashed)
            | (PowerState::Paused, RunState::Paused) => Health::Healthy,
            (_, RunState::ShuttingDown) => Health::Progressing,
            (PowerState::Running, RunState::Paused | RunState::Suspended) => Health::Suspended,
            _ => Health::Degraded,
        };
        out.report(&self.id, None).health = health;
    }

    /// Whether a domain carries this machine's mark.
    fn is_mine(&self, domain: &DomainState) -> bool {
        domain.owner.as_ref().is_some_and(|o| {
            o.fleet == self.ctx.resources.fleet()
                && (o.name == self.m.name() || self.m.spec.former_names.contains(&o.name))
        })
    }

    /// Definitions that a move left behind, with this machine's mark and nothing in them that would be lost: removed once
    /// the machine is known to be elsewhere. Gives the steps that the rest waits for: a machine must not arrive on a host that is about to take its old definition away.
    fn leftovers(&self, here: Here<'_>, stale: &'a [Copy], out: &mut Drafts) -> Vec<DraftId> {
        let mut cleared = Vec::new();
        for copy in stale {
            let Some(old) = self.here(copy) else { continue };
            if !self.is_mine(old.domain) {
                let owner = old.domain.owner.as_ref();
                let whose = owner
                    .map_or("nobody's mark".into(), |o| format!("the mark of `{}` of fleet `{}`", o.name, o.fleet));
                out.finding(
                    Finding::new(
                        Code::NotOwned,
                        format!(
                            "a second definition of `{}`, off, is on `{}` and carries {whose}",
                            self.m.name(),
                            old.host
                        ),
                    )
                    .severity(Severity::Warning)
                    .of(self.m, "spec.host")
                    .hint("it is left alone, and could be started by mistake: undefine it if it is not needed (`virsh undefine`)"),
                );
                continue;
            }
            let evidence = here.domain.is_active() || here.domain.persistent && old.domain.moved_away();
            let mut step = self.step(
                MachineAction::UndefineDomain { host: old.host.into(), uuid: old.domain.uuid, nvram: false },
                format!("remove the definition of {} that was left on {}", old.domain.name, old.host),
                format!("{} is on {}; a second definition could be started by mistake", self.m.name(), here.host),
            );
            step.undo = Some("nothing is lost: the machine's definition is where it runs".into());
            if !evidence || !here.domain.persistent {
                step.blocked_by.push(Block {
                    code: Code::DefinedTwice,
                    reason: format!("the machine on `{}` has no definition of its own yet", here.host),
                    way_out: "it is given one first; this follows".into(),
                });
            }
            let kept = match (old.domain.managed_save, old.domain.snapshots) {
                (true, _) => Some("a saved memory image".to_owned()),
                (false, n) if n > 0 => Some(format!("{n} snapshots")),
                _ => None,
            };
            if let Some(kept) = kept {
                step.blocked_by.push(Block {
                    code: Code::Leftover,
                    reason: format!("the definition on `{}` has {kept}, which would go with it", old.host),
                    way_out: "look at what it is, and remove it by hand".into(),
                });
            }
            out.finding(
                Finding::new(Code::Leftover, format!("`{}` is also defined, off, on `{}`", self.m.name(), old.host))
                    .of(self.m, "spec.host")
                    .hint("it is undefined; disks stay"),
            );
            self.note(Operation::Update, out);
            self.change(&format!("status.definitions[{}]", old.host), json!("off"), Value::Null, Effect::Live, out);
            let blocked = !step.blocked_by.is_empty();
            let step = out.step(step);
            if !blocked {
                cleared.push(step);
            }
        }
        cleared
    }

    /// Everything about a machine that was found: its definition, its state and its place. What is in the chain comes
    /// before all.
    fn present(&self, here: Here<'a>, mut chain: Chain, out: &mut Drafts) {
        let stated = self.m.spec.uuid.filter(|u| *u != here.domain.uuid);
        if let Some(uuid) = stated {
            self.refuse_uuid(uuid, here, out);
            return;
        }
        let target = match self.target() {
            Ok(target) => target,
            Err(block) => {
                self.nowhere(Some(here), block, out);
                return;
            }
        };
        if self.only_reports() {
            self.adopt(here, Vec::new(), &mut chain, out);
            let wish = self.wish(here, target);
            self.report_drift(here, if wish.is_some() { here.host } else { target }, out);
            if let Some(wish) = wish {
                self.on(&wish.migration, Errand::There(wish.clone())).migrate(here, &wish.to, false, &mut chain, out);
            }
            return;
        }
        // A volume that were made here first would have to be moved, or copied, by a migration that does not know of it
        // yet. So a machine that lacks one moves first; the next plan makes the rest where it is then. One without a
        // definition gets that before anything else: it might have to be shut down to move, and would vanish.
        let moves = self.disk_moves(here);
        let mut settled = here;
        let restart = if target == here.host || !self.lacks_volumes(here, &moves, target) {
            let Some(restart) = self.in_place(here, &moves, &mut chain, out) else { return };
            settled.domain = moves.after.as_ref().unwrap_or(here.domain);
            restart
        } else {
            if !here.domain.persistent {
                self.note(Operation::Update, out);
                self.change("status.persistent", json!(false), json!(true), Effect::Live, out);
                chain.push(self.definition(here, Vec::new()), out);
            }
            self.adopt(here, Vec::new(), &mut chain, out);
            let why = "its machine moves to another host first, and cannot while a disk is copied";
            self.end_copies(here, &moves.under_way, why, &mut chain, out);
            false
        };
        let wish = self.wish(here, target);
        let mover = wish.map(|w| self.on(&w.migration, Errand::There(w.clone())));
        match (target == here.host, wish, mover) {
            // At home, and on its way to somewhere else for a while, unless it is restarted first.
            (true, wish, mover) => {
                self.power(here, restart, &mut chain, out);
                if let (Some(wish), Some(mover), false) = (wish, mover, restart) {
                    mover.migrate(settled, &wish.to, false, &mut chain, out);
                }
            }
            (false, Some(_), Some(mover)) => mover.migrate(settled, target, restart, &mut chain, out),
            (false, ..) => self.migrate(settled, target, restart, &mut chain, out),
        }
        let drifted = out.report(&self.id, None).sync == Sync::OutOfSync && self.ctx.options.is_drift(&self.id);
        if drifted {
            let fields = out.report(&self.id, None).changes.iter().map(|c| c.path.clone()).collect::<Vec<_>>();
            out.finding(
                Finding::new(
                    Code::Drift,
                    format!("`{}` was changed outside Git: {}", self.m.name(), fields.join(", ")),
                )
                .of(self.m, "spec")
                .hint("it is put back as Git says; with `drift: Report` it would only be shown"),
            );
        }
    }

    /// Shows the many changes of a CPU that nobody wrote as one.
    fn collapse(&self, difference: &mut super::Difference) {
        if let Some(Ok(words)) = self.baseline {
            baseline::collapse(difference, words);
        }
    }

    fn refuse_uuid(&self, uuid: Uuid, here: Here<'_>, out: &mut Drafts) {
        self.change("spec.uuid", json!(here.domain.uuid), json!(uuid), Effect::Recreate, out);
        out.report(&self.id, None).health = Health::Degraded;
        out.finding(
            Finding::new(
                Code::RecreateNeeded,
                format!("`{}` has the UUID {}; a UUID cannot be changed", self.m.name(), here.domain.uuid),
            )
            .of(self.m, "spec.uuid")
            .hint(format!("write `uuid: {}`, or leave the field out", here.domain.uuid)),
        );
    }

    /// Shows what differs, and does nothing.
    fn report_drift(&self, here: Here<'_>, target: &str, out: &mut Drafts) {
        if let Ok(mut difference) = super::compare(
            self.m,
            here.domain,
            here.state,
            self.ctx.resources,
            &self.owner(Some(here.domain), Vec::new()),
        ) {
            self.collapse(&mut difference);
            for change in difference.changes {
                out.change(&self.id, None, change);
            }
        }
        if target != here.host {
            self.change("spec.host", json!(here.host), json!(target), Effect::None, out);
        }
        if let Some((before, after)) = power::difference(self.m.spec.power_state, here.domain.state) {
            self.change("spec.powerState", json!(before), json!(after), Effect::None, out);
        }
        let report = out.report(&self.id, None);
        if report.sync == Sync::OutOfSync {
            let fields = report.changes.iter().map(|c| c.path.clone()).collect::<Vec<_>>().join(", ");
            out.finding(
                Finding::new(
                    Code::Drift,
                    format!("`{}` was changed outside Git, and is left alone: {fields}", self.m.name()),
                )
                .of(self.m, "spec")
                .hint("make the manifest say what is there, or set `drift: Correct`"),
            );
        }
    }
}

/// Steps of one machine that come one after the other.
#[derive(Default)]
pub(super) struct Chain {
    last: Vec<DraftId>,
    /// Why the machine is taken over, until the step that does it is there.
    adopt: Option<String>,
}

impl Chain {
    /// Adds a step after all before it.
    pub fn push(&mut self, mut step: StepDraft, out: &mut Drafts) -> DraftId {
        step.after.append(&mut self.last);
        let id = out.step(step);
        self.last = vec![id];
        id
    }

    /// Makes what comes next wait for these, too.
    pub fn join(&mut self, ids: impl IntoIterator<Item = DraftId>) {
        self.last.extend(ids);
    }
}

/// A change of the running machine's place or state, for the report.
pub(super) fn place(before: &str, after: &str, effect: Effect) -> Change {
    Change {
        path: "spec.host".into(),
        before: json!(before),
        after: json!(after),
        effect,
        definition: None::<Definition>,
        note: None,
    }
}

/// What can be done about a migration while it runs.
pub(super) const MIGRATION: Interruption = Interruption::Drainable;
