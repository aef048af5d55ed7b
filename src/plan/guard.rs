//! Guard rails: what holds steps back that could otherwise be carried out. Each block says the way out.

use super::{Block, Disruption, PlanInput, Step};
use crate::action::{Action, MachineAction};
use crate::finding::Code;
use crate::kind::settings::{SettingsSpec, SyncWindow, Weekday, WindowKind};
use crate::kind::virtual_machine_migration::MIGRATION_KIND;
use crate::model::ResourceId;
use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};
use std::collections::{BTreeMap, BTreeSet};

/// Holds back what the guard rails do not allow. Steps come ordered.
pub fn apply(steps: &mut [Step], input: &PlanInput<'_>, settings: &SettingsSpec) {
    for step in steps.iter_mut() {
        let id = step.resource.to_string();
        let any = format!("{}/*", step.resource.kind);
        let moved = moved_machine(step);
        let id = moved.into_iter().find(|m| settings.suspended.contains(m)).unwrap_or(id);
        if settings.suspended.iter().any(|s| *s == id || *s == any) {
            step.blocked_by.push(Block {
                code: Code::Suspended,
                reason: format!("`{id}` is suspended in Settings"),
                way_out: "take it out of `suspended`".into(),
            });
        }
        if input.options.drift_only && !settings.self_heal {
            step.blocked_by.push(Block {
                code: Code::Drift,
                reason: "there is no new commit, and `selfHeal` is off".into(),
                way_out: "set `selfHeal: true`, push a commit, or run `drover apply`".into(),
            });
        }
        if let Some(rest) = input.options.backing_off.get(&step.id)
            && rest.until > input.now
        {
            step.blocked_by.push(Block {
                code: Code::BackingOff,
                reason: format!("it failed {} times, last with: {}", rest.failures, rest.error),
                way_out: format!("it is tried again after {}; a new commit tries at once", rest.until),
            });
        }
        if step.disruption > Disruption::None
            && let Some(reason) = closed(&settings.sync_windows, input.now)
        {
            step.blocked_by.push(Block {
                code: Code::WindowClosed,
                reason,
                way_out: "wait for the window, or change `syncWindows`".into(),
            });
        }
    }
    settle(steps);
    let doomed = disturbed(steps, |s| s.disruption == Disruption::Destructive);
    if doomed.len() > settings.max_deletes as usize {
        let things = if doomed.len() == 1 { "thing" } else { "things" };
        let block = Block {
            code: Code::GuardRail,
            reason: format!(
                "{} {things} would be deleted at once; `maxDeletes` allows {}",
                doomed.len(),
                settings.max_deletes
            ),
            way_out: "if they are all meant, raise `maxDeletes` in Settings".into(),
        };
        for step in steps.iter_mut().filter(|s| s.disruption == Disruption::Destructive) {
            step.blocked_by.push(block.clone());
        }
        settle(steps);
    }
    if let Some(max) = settings.max_disruptive {
        for (n, resource) in
            disturbed(steps, |s| s.disruption > Disruption::None).into_iter().enumerate().skip(max as usize)
        {
            let block = Block {
                code: Code::GuardRail,
                reason: format!(
                    "it is number {} of those that are disturbed; `maxDisruptive` allows {max} in one pass",
                    n + 1
                ),
                way_out: "it comes in a later pass, or raise `maxDisruptive` in Settings".into(),
            };
            let of_it = |s: &&mut Step| subject(s) == resource && s.disruption > Disruption::None && !s.is_blocked();
            if let Some(first) = steps.iter_mut().find(of_it) {
                first.blocked_by.push(block);
            }
        }
        settle(steps);
    }
}

/// What a step disturbs: its resource, or one of the machines that its resource moves.
type Subject = (ResourceId, Option<uuid::Uuid>);

fn subject(step: &Step) -> Subject {
    let machine = step.machine().filter(|_| step.resource.kind == MIGRATION_KIND);
    (step.resource.clone(), machine)
}

/// The machine that a step moves for another resource's sake, as Settings name it.
fn moved_machine(step: &Step) -> Option<String> {
    match &step.action {
        Action::Machine(MachineAction::MigrateVirtualMachine(m)) if step.resource.kind == MIGRATION_KIND => {
            Some(format!("VirtualMachine/{}", m.name))
        }
        Action::Machine(_) | Action::Cluster(_) => None,
    }
}

/// What free steps of a kind disturb, each once, in the order of the steps.
fn disturbed(steps: &[Step], test: fn(&Step) -> bool) -> Vec<Subject> {
    let mut seen = BTreeSet::new();
    let free = steps.iter().filter(|s| !s.is_blocked() && test(s));
    free.map(subject).filter(|s| seen.insert(s.clone())).collect()
}

/// Spreads blocks: to everything that depends on a step that is held back, and to what would disturb a resource only for
/// the sake of such a step (nobody's machine is shut down for a move or a deletion that then does not come).
fn settle(steps: &mut [Step]) {
    super::graph::spread(steps);
    // What leads to a step of the same resource that is held back, from the last to the first: steps come ordered.
    let of: BTreeMap<String, Subject> = steps.iter().map(|s| (s.id.clone(), subject(s))).collect();
    let mut leads: BTreeMap<String, String> = BTreeMap::new();
    for step in steps.iter_mut().rev() {
        let held_later = leads.get(&step.id).cloned();
        if let Some(summary) = held_later.as_ref().filter(|_| !step.is_blocked() && step.disruption > Disruption::None)
        {
            step.blocked_by.push(Block {
                code: Code::GuardRail,
                reason: format!("what it is for is held back: {summary}"),
                way_out: "free that step".into(),
            });
        }
        let Some(summary) = step.is_blocked().then(|| step.summary.clone()).or(held_later) else { continue };
        for before in step.depends_on.iter().filter(|d| of.get(*d) == Some(&subject(step))) {
            leads.entry(before.clone()).or_insert_with(|| summary.clone());
        }
    }
    super::graph::spread(steps);
}

/// Why disturbing steps may not run now, if they may not.
pub fn closed(windows: &[SyncWindow], now: Timestamp) -> Option<String> {
    let now = now.to_zoned(TimeZone::UTC);
    let open = |kind| windows.iter().find(|w| w.kind == kind && is_open(w, &now));
    if let Some(w) = open(WindowKind::Deny) {
        return Some(format!(
            "a window that denies disturbing steps is open (from {} UTC for {})",
            w.start, w.duration
        ));
    }
    let allowed: Vec<_> = windows.iter().filter(|w| w.kind == WindowKind::Allow).collect();
    if allowed.is_empty() || open(WindowKind::Allow).is_some() {
        return None;
    }
    let times: Vec<_> = allowed.iter().map(|w| format!("{} UTC for {}", w.start, w.duration)).collect();
    Some(format!("no window that allows disturbing steps is open (they open at {})", times.join(", ")))
}

/// Whether a window is open: it opened today or on one of the seven days before, and has not closed since.
fn is_open(window: &SyncWindow, now: &Zoned) -> bool {
    let Some((h, m)) =
        window.start.split_once(':').and_then(|(h, m)| Some((h.parse::<i8>().ok()?, m.parse::<i8>().ok()?)))
    else {
        return false;
    };
    (0..=7).any(|back| {
        let Ok(day) = now.date().checked_sub(i64::from(back).days()) else { return false };
        if !window.days.is_empty() && !window.days.contains(&weekday(day.weekday())) {
            return false;
        }
        let Ok(start) = day.at(h, m, 0, 0).to_zoned(TimeZone::UTC) else { return false };
        let since = now.timestamp().as_millisecond() - start.timestamp().as_millisecond();
        since >= 0 && u64::try_from(since).is_ok_and(|s| s < window.duration.0)
    })
}

fn weekday(day: jiff::civil::Weekday) -> Weekday {
    use jiff::civil::Weekday as J;
    match day {
        J::Monday => Weekday::Mon,
        J::Tuesday => Weekday::Tue,
        J::Wednesday => Weekday::Wed,
        J::Thursday => Weekday::Thu,
        J::Friday => Weekday::Fri,
        J::Saturday => Weekday::Sat,
        J::Sunday => Weekday::Sun,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    fn window(kind: WindowKind, days: &[Weekday], start: &str, hours: u64) -> SyncWindow {
        SyncWindow { kind, days: days.to_vec(), start: start.into(), duration: Span(hours * 3_600_000) }
    }

    #[test]
    fn a_window_may_reach_over_midnight_and_a_deny_beats_an_allow() {
        let saturday_night = [window(WindowKind::Allow, &[Weekday::Sat], "22:00", 6)];
        // 2026-11-21 is a Saturday.
        let at = |t: &str| t.parse::<Timestamp>().unwrap();
        assert!(closed(&saturday_night, at("2026-11-21T21:59:59Z")).is_some());
        assert!(closed(&saturday_night, at("2026-11-21T22:00:00Z")).is_none());
        assert!(closed(&saturday_night, at("2026-11-22T03:59:59Z")).is_none());
        assert!(closed(&saturday_night, at("2026-11-22T04:00:00Z")).is_some());
        let both = [saturday_night[0].clone(), window(WindowKind::Deny, &[], "23:00", 1)];
        assert!(closed(&both, at("2026-11-21T22:30:00Z")).is_none());
        assert!(closed(&both, at("2026-11-21T23:30:00Z")).is_some());
        assert!(closed(&[], at("2026-11-21T23:30:00Z")).is_none());
    }
}
