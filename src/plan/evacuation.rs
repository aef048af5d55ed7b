//! What becomes of a host that is being emptied, in one finding: how many machines will move, and who cannot, and why.

use super::{Context, Step};
use crate::action::{Action, MachineAction};
use crate::finding::{Code, Finding, Severity};
use crate::kind::host::Maintenance;
use crate::kind::virtual_machine::{Located, Target};
use crate::observed::DomainState;
use std::collections::BTreeMap;
use std::fmt::Write;
use uuid::Uuid;

/// Most machines that are named in one finding.
const NAMED: usize = 8;

/// What becomes of a machine.
enum Fate {
    /// It moves.
    Moves,
    /// A guard rail holds its move back.
    Waits(String),
    /// It does not move.
    Stays(String),
}

/// One finding for each host that is being emptied. Steps come as they would be carried out.
pub(super) fn tell(steps: &[Step], ctx: &Context<'_>) -> Vec<Finding> {
    let evacuated = ctx.resources.hosts.values().filter(|h| h.spec.maintenance == Maintenance::Evacuate);
    let mut moves: BTreeMap<(&str, Uuid), &Step> = BTreeMap::new();
    let mut findings = Vec::new();
    for host in evacuated {
        let Some(state) = ctx.observed.host(host.name()) else { continue };
        if moves.is_empty() {
            for step in steps {
                match &step.action {
                    Action::Machine(MachineAction::MigrateVirtualMachine(m)) => {
                        moves.insert((&m.from, m.uuid), step);
                    }
                    Action::Machine(MachineAction::AwaitMigration { host, uuid }) => {
                        moves.entry((host, *uuid)).or_insert(step);
                    }
                    Action::Machine(_) | Action::Cluster(_) => {}
                }
            }
        }
        let (mut will, mut wait, mut stay) = (0, Vec::new(), Vec::new());
        for domain in state.domains.iter().filter(|d| !d.moved_away()) {
            let step = moves.get(&(host.name(), domain.uuid));
            match fate(host.name(), domain, step.copied(), ctx) {
                Some((_, Fate::Moves)) => will += 1,
                Some((name, Fate::Waits(why))) => wait.push((name, why)),
                Some((name, Fate::Stays(why))) => stay.push((name, why)),
                None => {}
            }
        }
        let all = will + wait.len() + stay.len();
        let mut message = match all {
            0 => format!("`{}` is empty", host.name()),
            1 => format!("`{}` is being emptied: {will} of 1 machine will move", host.name()),
            _ => format!("`{}` is being emptied: {will} of {all} machines will move", host.name()),
        };
        if !wait.is_empty() {
            let _ = write!(message, "; {} held back for now: {}", wait.len(), named(&wait));
        }
        if !stay.is_empty() {
            let _ = write!(message, "; {} cannot: {}", stay.len(), named(&stay));
        }
        let mut finding = Finding::new(Code::Evacuation, message).of(host, "spec.maintenance");
        if all == 0 {
            finding = finding.hint("its maintenance can begin; ending it moves nothing back (docs/placement.md)");
        } else if !stay.is_empty() {
            finding = finding.severity(Severity::Warning).hint(
                "the others go all the same; what is named has to be moved or stopped by hand, or given a place to go",
            );
        }
        findings.push(finding);
    }
    findings
}

/// What becomes of one machine; nothing to say of what does not count.
fn fate<'a>(host: &str, domain: &'a DomainState, step: Option<&Step>, ctx: &Context<'a>) -> Option<(&'a str, Fate)> {
    let mark = domain.owner.as_ref().filter(|o| o.fleet == ctx.resources.fleet());
    let machine = mark.and_then(|o| ctx.resources.virtual_machines.get(&o.name)).or_else(|| {
        // One that is about to be adopted.
        let named = ctx.resources.virtual_machines.get(&domain.name)?;
        matches!(ctx.survey.located(named.name()), Located::Foreign { copy } if copy.host == host).then_some(named)
    });
    let name = machine.map_or(domain.name.as_str(), |m| m.name());
    if let Some(step) = step {
        let Some(block) = step.blocked_by.first() else { return Some((name, Fate::Moves)) };
        let by_rail = matches!(block.code, Code::GuardRail | Code::WindowClosed | Code::Suspended | Code::BackingOff);
        let why = block.reason.clone();
        return Some((name, if by_rail { Fate::Waits(why) } else { Fate::Stays(why) }));
    }
    let why = match machine {
        // Nobody has to empty a host of definitions that are nobody's.
        None if !domain.is_active() => return None,
        None => "it has no manifest".to_owned(),
        Some(m) if m.spec.host.as_deref() == Some(host) => "`host` pins it there".to_owned(),
        Some(m) => match ctx.survey.target(m.name()) {
            Some(Target::Nowhere { why }) => why.clone(),
            _ => "see what is said of it".to_owned(),
        },
    };
    Some((name, Fate::Stays(why)))
}

/// `web-1 (why), web-2 (why)`; the same reason is told once.
fn named(machines: &[(&str, String)]) -> String {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, why) in machines.iter().take(NAMED) {
        match by_reason.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, names)) => names.push(name),
            None => by_reason.push((why, vec![name])),
        }
    }
    let mut text: Vec<String> = by_reason.iter().map(|(why, names)| format!("{} ({why})", names.join(", "))).collect();
    if machines.len() > NAMED {
        text.push(format!("and {} more", machines.len() - NAMED));
    }
    text.join("; ")
}
