//! What a migration still has to do, how far it is, and what becomes of what it has done when it is gone.

use super::VirtualMachineMigrationSpec;
use super::members::{Member, Stage, wish};
use crate::action::{Action, MachineAction};
use crate::finding::{Code, Finding, Severity};
use crate::kind::Spec;
use crate::kind::virtual_machine::{
    Copy, Errand, Located, PowerState, Target, VirtualMachineSpec, go, locate, under_way,
};
use crate::model::{KindName, Manifest, Metadata, Origin, ResourceId};
use crate::observed::{DomainState, MoveMark, Reading, RunState};
use crate::plan::{Context, Drafts, Health, MoveCounts, Operation, StepDraft, Sync};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The kind's name.
pub const MIGRATION_KIND: KindName = KindName::new("VirtualMachineMigration");

type Migration = Manifest<VirtualMachineMigrationSpec>;

/// A manifest for a domain that has none: it wants the domain to be what it is.
pub fn stand_in(domain: &DomainState) -> Manifest<VirtualMachineSpec> {
    Manifest {
        kind: VirtualMachineSpec::KIND,
        metadata: Metadata { name: domain.name.clone(), ..Metadata::default() },
        spec: VirtualMachineSpec {
            uuid: Some(domain.uuid),
            domain_name: Some(domain.name.clone()),
            power_state: match domain.state {
                RunState::Running | RunState::ShuttingDown | RunState::Suspended => PowerState::Running,
                RunState::Paused => PowerState::Paused,
                RunState::Off | RunState::Crashed => PowerState::Stopped,
            },
            ..VirtualMachineSpec::default()
        },
        origin: Origin::default(),
    }
}

/// Drafts the moves of machines without a manifest, and reports on all.
pub fn draft(m: &Migration, ctx: &Context<'_>, out: &mut Drafts) {
    let id = m.id();
    let members = ctx.survey.moves().members(m.name());
    let mut counts = MoveCounts { total: u32::try_from(members.len()).unwrap_or(u32::MAX), ..MoveCounts::default() };
    let report = out.report(&id, None);
    report.health = Health::Healthy;
    for member in members {
        one(m, member, ctx, &mut counts, out);
    }
    if members.is_empty() {
        out.finding(
            Finding::new(Code::Ignored, format!("`{}` finds no machine to move", m.name()))
                .of(m, "spec")
                .hint("check the labels, or the host that it looks on"),
        );
    }
    let report = out.report(&id, None);
    if counts.unknown > 0 {
        report.sync = Sync::Unknown;
    } else if counts.waiting + counts.moving + counts.failed > 0 {
        report.sync = Sync::OutOfSync;
    }
    report.health = match () {
        () if counts.failed > 0 => Health::Degraded,
        () if counts.moving > 0 => Health::Progressing,
        () if counts.unknown > 0 => Health::Unknown,
        () if counts.waiting > 0 && m.spec.suspend => Health::Suspended,
        () if counts.waiting > 0 => Health::Progressing,
        () => Health::Healthy,
    };
    report.moves = Some(counts);
}

fn one(m: &Migration, member: &Member, ctx: &Context<'_>, counts: &mut MoveCounts, out: &mut Drafts) {
    let name = &member.name;
    let say = |severity: Severity, code: Code, message: String, hint: &str, out: &mut Drafts| {
        out.finding(Finding::new(code, message).severity(severity).of(m, "spec").hint(hint));
    };
    match &member.stage {
        Stage::Moved { is_there: true } => counts.moved += 1,
        Stage::Moved { is_there: false } => {
            counts.moved += 1;
            say(
                Severity::Info,
                Code::Drift,
                format!("`{name}` was moved to `{}`, and is {} now", m.spec.to, place(&member.located)),
                "it is not moved a second time; another `run:` makes another revision, which runs again",
                out,
            );
        }
        Stage::There { .. } => counts.moved += 1,
        Stage::Elsewhere { host } => {
            counts.elsewhere += 1;
            say(
                Severity::Info,
                Code::Drift,
                format!(
                    "`{name}` is on `{host}` and not on `{}`: it stays where it is",
                    m.spec.from.as_deref().unwrap_or_default()
                ),
                "take `from` out to move it from wherever it is",
                out,
            );
        }
        Stage::Pending { from } => pending(m, member, from, ctx, counts, out),
        Stage::Moving => {
            counts.moving += 1;
            if let (false, Located::Moving { from, to }) = (member.has_manifest, &member.located)
                && let Some(domain) = from.as_ref().or(to.as_ref()).and_then(|c| c.domain(ctx.observed))
            {
                under_way(&stand_in(domain), ctx, from.as_ref(), to.as_ref(), &m.id(), out);
            }
        }
        Stage::Missing if member.has_manifest => {
            counts.waiting += 1;
            let message = format!("`{name}` is not there yet: it moves once it was made");
            say(Severity::Info, Code::InProgress, message, "nothing has to be done", out);
        }
        Stage::Missing => {
            counts.failed += 1;
            let on = m.spec.from.as_ref().map_or_else(|| "any host".to_owned(), |h| format!("`{h}`"));
            let message = format!("there is neither a VirtualMachine `{name}` nor a domain of this name on {on}");
            say(
                Severity::Error,
                Code::CannotMove,
                message,
                "check the name; `drover observe` shows what is there",
                out,
            );
        }
        Stage::Unknown { why } => {
            counts.unknown += 1;
            say(Severity::Error, Code::HostUnknown, format!("`{name}`: {why}"), "bring the host back", out);
        }
        Stage::Taken { by } => {
            counts.failed += 1;
            say(
                Severity::Error,
                Code::Conflict,
                format!("`{name}` is moved by `{by}` already"),
                "take one of the two migrations out",
                out,
            );
        }
        Stage::NotOurs { owner } => {
            counts.failed += 1;
            let message = format!("`{name}` belongs to {owner}, whose Drover would move it back");
            say(Severity::Error, Code::NotOwned, message, "move it by that fleet's manifests", out);
        }
        Stage::Trouble { why } => {
            counts.failed += 1;
            say(
                Severity::Error,
                Code::NeedsAPerson,
                format!("`{name}`: {why}"),
                "this is put right by hand first",
                out,
            );
        }
    }
}

/// A machine that is to move. One with a manifest is drafted there; here is only said why it does not move yet.
fn pending(m: &Migration, member: &Member, from: &str, ctx: &Context<'_>, counts: &mut MoveCounts, out: &mut Drafts) {
    counts.waiting += 1;
    if m.spec.suspend {
        return;
    }
    let (Located::At { copy, .. } | Located::Foreign { copy }) = &member.located else { return };
    let waits = |why: String, hint: &str, out: &mut Drafts| {
        out.finding(
            Finding::new(Code::CannotMove, format!("`{}` stays on `{from}`: {why}", member.name))
                .of(m, "spec.to")
                .hint(hint),
        );
    };
    let permanent = m.spec.is_permanent(ctx.resources);
    if member.has_manifest {
        let target = ctx.survey.target(&member.name);
        if permanent && target != Some(&Target::Host(m.spec.to.clone())) {
            let why = format!("its `placement` finds no room for it on `{}` now", m.spec.to);
            waits(why, "end the maintenance there, or move the machines away that it is kept apart from", out);
        }
        return;
    }
    let Some(domain) = copy.domain(ctx.observed) else { return };
    let away = ctx.survey.moves().away_from(
        &member.located,
        false,
        &member.name,
        ctx.resources,
        ctx.observed,
        ctx.survey.unknown(),
    );
    if let Some(away) = away {
        // Another migration has it there; it comes home first.
        let why = format!("`{}` has it there for a while", away.migration);
        waits(why, "it comes home once that migration is gone, and moves then", out);
        return;
    }
    if let Some(wish) = wish(m, member, ctx.resources) {
        go(&stand_in(domain), ctx, copy, m.name(), Errand::There(wish), out);
    }
}

fn place(located: &Located) -> String {
    match located {
        Located::At { copy, .. } | Located::Foreign { copy } => format!("on `{}`", copy.host),
        _ => "elsewhere".into(),
    }
}

/// Brings home what nobody wants elsewhere any more, completes marks of moves that were made, and takes the marks of
/// migrations out that are gone: the same manifest is a new one then.
pub fn sweep(ctx: &Context<'_>, out: &mut Drafts) {
    let mut machines: BTreeMap<Uuid, Vec<(Copy, &DomainState)>> = BTreeMap::new();
    for (host, reading) in &ctx.observed.hosts {
        let Reading::Present(state) = reading else { continue };
        for (index, domain) in state.domains.iter().enumerate().filter(|(_, d)| !d.moves.is_empty()) {
            machines.entry(domain.uuid).or_default().push((Copy { host: host.clone(), index }, domain));
        }
    }
    for (uuid, marked) in machines {
        machine(ctx, uuid, &marked, out);
    }
    for m in ctx.resources.virtual_machine_migrations.values() {
        if let Some(parallelism) = m.spec.parallelism {
            out.take_turns(&m.id(), parallelism);
        }
    }
}

fn machine(ctx: &Context<'_>, uuid: Uuid, marked: &[(Copy, &DomainState)], out: &mut Drafts) {
    let moves = ctx.survey.moves();
    let owner = marked.iter().find(|(copy, _)| ctx.survey.is_claimed(copy));
    // By the name that the migrations know it by.
    let (name, has_manifest) = match owner {
        Some((_, domain)) => match ctx.survey.machine_of(uuid) {
            Some(name) => (name.to_owned(), true),
            None => (domain.name.clone(), true),
        },
        None => match marked.first() {
            Some((_, domain)) => (domain.name.clone(), false),
            None => return,
        },
    };
    let located = if has_manifest {
        ctx.survey.located(&name).clone()
    } else {
        let copies = ctx.survey.copies(uuid);
        locate(&copies, ctx.observed, ctx.survey.unknown())
    };
    match &located {
        Located::Moving { from, to } => {
            // What a migration still names is drafted there; what has a manifest of its own, there.
            let begun = marked.iter().find_map(|(_, d)| moves.begun(d));
            if let Some(mark) = begun
                && !has_manifest
                && !moves.names(&mark.migration, false, &name)
                && let Some((_, domain)) = marked.first()
            {
                let id = ResourceId::new(MIGRATION_KIND, mark.migration.clone());
                under_way(&stand_in(domain), ctx, from.as_ref(), to.as_ref(), &id, out);
            }
            return;
        }
        Located::At { copy, .. } => {
            let away =
                moves.away_from(&located, has_manifest, &name, ctx.resources, ctx.observed, ctx.survey.unknown());
            if let Some(away) = away {
                // One with a manifest is brought home in its own chain of steps.
                if away.in_force {
                    complete(ctx, uuid, &name, has_manifest, marked, out);
                } else if let (false, Some(_), Some(domain)) = (has_manifest, &away.home, copy.domain(ctx.observed)) {
                    let errand = Errand::Home { host: away.home_host.clone() };
                    go(&stand_in(domain), ctx, copy, &away.migration, errand, out);
                }
                return;
            }
        }
        Located::Foreign { .. } => {}
        _ => return,
    }
    complete(ctx, uuid, &name, has_manifest, marked, out);
}

/// Puts the marks of a machine that stands still in order: what has arrived is done, what belongs to no migration goes.
fn complete(
    ctx: &Context<'_>,
    uuid: Uuid,
    name: &str,
    has_manifest: bool,
    marked: &[(Copy, &DomainState)],
    out: &mut Drafts,
) {
    // Whatever else happens to it comes first: a mark changes the definition that other steps expect.
    if out.touches(uuid) {
        return;
    }
    let moves = ctx.survey.moves();
    let fleet = ctx.resources.fleet();
    let arrived = |mark: &MoveMark| {
        !mark.done
            && marked.iter().any(|(copy, d)| {
                copy.host == mark.to && (d.is_active() || d.persistent && !mark.temporary) && d.moves.contains(mark)
            })
    };
    for (copy, domain) in marked {
        let mut gone: Option<&MoveMark> = None;
        let mut noted: Option<&MoveMark> = None;
        let mut marks = Vec::new();
        for mark in &domain.moves {
            if mark.fleet == fleet && !moves.names(&mark.migration, has_manifest, name) {
                gone = gone.or(Some(mark));
            } else if mark.fleet == fleet && arrived(mark) {
                noted = noted.or(Some(mark));
                marks.push(MoveMark { done: true, ..mark.clone() });
            } else {
                marks.push(mark.clone());
            }
        }
        let Some(about) = noted.or(gone) else { continue };
        let id = ResourceId::new(MIGRATION_KIND, about.migration.clone());
        let (summary, why) = match noted {
            Some(mark) => {
                (format!("note that {name} has moved to {}", mark.to), "it has arrived, and nobody noted it".to_owned())
            }
            None => (
                format!("take the mark of {} out of {name} on {}", about.migration, copy.host),
                format!("`{}` does not move it any more", about.migration),
            ),
        };
        let report = out.report(&id, None);
        report.sync = Sync::OutOfSync;
        report.operation = report.operation.max(match ctx.resources.virtual_machine_migrations.get(&about.migration) {
            Some(_) => Operation::Update,
            None => Operation::Release,
        });
        let action = MachineAction::SetMoves { host: copy.host.clone(), uuid, moves: marks };
        out.step(StepDraft::new(Action::Machine(action), id, summary, why));
    }
}
