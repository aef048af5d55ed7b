//! Prechecks of a plan's moves, read for showing. What several moves have alike is told once, with the machines that it is
//! about; a move keeps to itself what is its own.

use super::view::{View, migration};
use crate::plan::{Check, Precheck, Step, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Most machines that are named; the rest is counted.
const NAMED: usize = 12;

/// The prechecks of all steps of a plan.
pub(super) struct Prechecks<'a> {
    /// Steps that have prechecks.
    of: usize,
    full: bool,
    /// What is alike: in the order of the steps, and at each of the prechecks.
    alike: Vec<(&'a Check, Vec<&'a Step>)>,
    told: BTreeSet<Key<'a>>,
    counts: Vec<(String, Vec<&'a Step>)>,
    counted: BTreeSet<&'a str>,
}

type Key<'a> = (Precheck, Verdict, &'a str, Option<&'a str>);

/// What a step's prechecks say that is told nowhere else.
pub(super) struct Own<'a> {
    /// Counts, and the names of what is not known; `None` where they are told once for several steps.
    pub summary: Option<String>,
    /// Those in words.
    pub checks: Vec<&'a Check>,
}

impl<'a> Prechecks<'a> {
    /// Reads them. `full`: every precheck is shown, and not only what was not passed.
    pub fn new(view: &View<'a>, full: bool) -> Self {
        let steps: Vec<&'a Step> = view.steps.iter().map(|s| s.step).filter(|s| !s.checks.is_empty()).collect();
        let mut by_text: BTreeMap<Key<'a>, (usize, &'a Check, Vec<&'a Step>)> = BTreeMap::new();
        for (check, step) in steps.iter().flat_map(|s| shown(s, full).map(move |c| (c, *s))) {
            let first = by_text.len();
            let (.., with) = by_text.entry(key(check)).or_insert((first, check, Vec::new()));
            if with.last().is_none_or(|last| last.id != step.id) {
                with.push(step);
            }
        }
        by_text.retain(|_, (.., with)| with.len() > 1);
        let told: BTreeSet<Key<'a>> = by_text.keys().copied().collect();
        let mut alike: Vec<_> = by_text.into_values().collect();
        alike.sort_by_key(|(first, ..)| *first);
        let mut read = Self {
            of: steps.len(),
            full,
            alike: alike.into_iter().map(|(_, check, with)| (check, with)).collect(),
            told,
            counts: Vec::new(),
            counted: BTreeSet::new(),
        };
        let mut counts: Vec<(String, Vec<&'a Step>)> = Vec::new();
        let mut place: BTreeMap<String, usize> = BTreeMap::new();
        for step in steps {
            // A step that has something of its own to say has its counts beside it.
            if read.own_checks(step).next().is_none() {
                let text = summary(step);
                let at = *place.entry(text.clone()).or_insert(counts.len());
                match counts.get_mut(at) {
                    Some((_, with)) => with.push(step),
                    None => counts.push((text, vec![step])),
                }
            }
        }
        counts.retain(|(_, with)| with.len() > 1);
        read.counted = counts.iter().flat_map(|(_, with)| with.iter().map(|s| s.id.as_str())).collect();
        read.counts = counts;
        read
    }

    fn own_checks(&self, step: &'a Step) -> impl Iterator<Item = &'a Check> {
        shown(step, self.full).filter(|c| !self.told.contains(&key(c)))
    }

    /// What is to be said at the step itself; nothing where it has no prechecks, or others tell all of it.
    pub fn own(&self, step: &'a Step) -> Option<Own<'a>> {
        if step.checks.is_empty() || self.counted.contains(step.id.as_str()) {
            return None;
        }
        Some(Own { summary: Some(summary(step)), checks: self.own_checks(step).collect() })
    }

    /// Counts that several steps have alike.
    pub fn counts(&self) -> impl Iterator<Item = (&str, Who)> {
        self.counts.iter().map(|(text, steps)| (text.as_str(), self.who(steps)))
    }

    /// Prechecks that say the same of several steps, and of which.
    pub fn alike(&self) -> impl Iterator<Item = (&'a Check, Who)> + '_ {
        self.alike.iter().map(|(check, steps)| (*check, self.who(steps)))
    }

    fn who(&self, steps: &[&'a Step]) -> Who {
        if steps.len() == self.of {
            return Who { count: format!("all {} moves", self.of), machines: None };
        }
        let names: Vec<&str> = steps.iter().take(NAMED).map(|s| machine(s)).collect();
        let more = match steps.len().saturating_sub(NAMED) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        Who { count: format!("{} of {} moves", steps.len(), self.of), machines: Some(names.join(", ") + &more) }
    }
}

/// Of which moves something is said.
pub(super) struct Who {
    /// `all 8 moves`, `5 of 8 moves`.
    pub count: String,
    /// Their machines, where it is not all of them.
    pub machines: Option<String>,
}

impl Who {
    /// In one line: `5 of 8 moves: db-1, db-2, …`.
    pub fn words(&self) -> String {
        self.machines.as_ref().map_or_else(|| self.count.clone(), |names| format!("{}: {names}", self.count))
    }
}

fn key(check: &Check) -> Key<'_> {
    (check.name, check.verdict, &check.message, check.hint.as_deref())
}

fn shown(step: &Step, full: bool) -> impl Iterator<Item = &Check> {
    step.checks.iter().filter(move |c| full || matches!(c.verdict, Verdict::Warn | Verdict::Block))
}

/// The machine that a step is about: a migration's steps are about the machines that it moves.
pub(super) fn machine(step: &Step) -> &str {
    match migration(step) {
        Some(m) if step.resource.kind.as_str() != "VirtualMachine" => &m.name,
        _ => &step.resource.name,
    }
}

/// `14 passed, 1 warning, 2 not known (mtu, segment)`.
fn summary(step: &Step) -> String {
    let of = |verdict: Verdict| step.checks.iter().filter(move |c| c.verdict == verdict);
    let mut parts = vec![format!("{} passed", of(Verdict::Pass).count())];
    let mut count = |verdict: Verdict, one: &str, many: &str| {
        let n = of(verdict).count();
        if n > 0 {
            parts.push(format!("{n} {}", if n == 1 { one } else { many }));
        }
    };
    count(Verdict::Block, "not passed", "not passed");
    count(Verdict::Warn, "warning", "warnings");
    for (verdict, word) in [(Verdict::Unknown, "not known"), (Verdict::Ignored, "ignored")] {
        let mut names: Vec<&str> = of(verdict).map(|c| c.name.as_str()).collect();
        names.dedup();
        if !names.is_empty() {
            parts.push(format!("{} {word} ({})", names.len(), names.join(", ")));
        }
    }
    parts.join(", ")
}

/// A verdict in a word.
pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "passed",
        Verdict::Ignored => "ignored",
        Verdict::Unknown => "not known",
        Verdict::Warn => "warning",
        Verdict::Block => "not passed",
    }
}
