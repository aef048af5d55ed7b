//! One reading of a plan for all who show it: what happens to each resource in words, which symbols are used, which steps
//! are held back and by what.

use super::value::{self, Shown};
use crate::action::{Action, MachineAction, Migration};
use crate::finding::{Code, Severity};
use crate::model::ResourceId;
use crate::plan::{
    Change, Definition, Disruption, Effect, Estimate, Health, Interruption, Operation, Plan, ResourceReport,
};
use crate::plan::{Step, Summary, Sync};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What stands in front of a resource or a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symbol {
    /// It is made.
    Create,
    /// It is changed in place.
    Update,
    /// It is moved.
    Migrate,
    /// It is taken over.
    Adopt,
    /// It is run once.
    Run,
    /// It is removed.
    Delete,
    /// It could not be read.
    Unknown,
}

impl Symbol {
    /// The symbol.
    pub fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update => '~',
            Self::Migrate => '>',
            Self::Adopt => '&',
            Self::Run => '*',
            Self::Delete => '-',
            Self::Unknown => '?',
        }
    }

    /// What it means, for the legend.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update in place",
            Self::Migrate => "migrate",
            Self::Adopt => "adopt",
            Self::Run => "run once",
            Self::Delete => "delete",
            Self::Unknown => "could not be read",
        }
    }

    fn of(operation: Operation) -> Option<Self> {
        match operation {
            Operation::None => None,
            Operation::Adopt => Some(Self::Adopt),
            Operation::Update | Operation::Release => Some(Self::Update),
            Operation::Create => Some(Self::Create),
            Operation::Migrate => Some(Self::Migrate),
            Operation::Delete => Some(Self::Delete),
            Operation::Run => Some(Self::Run),
        }
    }
}

/// A plan, read for showing.
pub struct View<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Resources that there is something to say about, in the plan's order.
    pub resources: Vec<ResourceView<'a>>,
    /// Every step, in order.
    pub steps: Vec<StepView<'a>>,
    /// Symbols in use, in the order of the legend.
    pub symbols: BTreeSet<Symbol>,
}

/// A resource in a plan.
pub struct ResourceView<'a> {
    /// Its report.
    pub report: &'a ResourceReport,
    /// Its identity.
    pub id: ResourceId,
    /// The symbol of what happens to it; `None` where nothing does.
    pub symbol: Option<Symbol>,
    /// What happens to it: `will be migrated from kvm-a to kvm-b`.
    pub phrase: String,
    /// Numbers of its steps (from 1) that are held back.
    pub held_back: Vec<usize>,
}

/// A field that differs.
pub struct FieldView<'a> {
    /// The change.
    pub change: &'a Change,
    /// Its symbol.
    pub symbol: Symbol,
    /// Its values.
    pub shown: Shown,
    /// What it takes and which definition differs: `live`, `at the next restart, persistent definition`.
    pub notes: Vec<String>,
}

/// A step in a plan.
pub struct StepView<'a> {
    /// From 1, in the plan's order.
    pub number: usize,
    /// The step.
    pub step: &'a Step,
    /// Numbers of the steps that it waits for.
    pub waits_for: Vec<usize>,
    /// Whether it, or a step that it waits for, is held back: it will not run.
    pub held_back: bool,
    /// Those of `waits_for` that are held back.
    pub held_by: Vec<usize>,
}

impl<'a> View<'a> {
    /// Reads a plan.
    pub fn new(plan: &'a Plan) -> Self {
        let number: HashMap<&str, usize> = plan.steps.iter().enumerate().map(|(i, s)| (s.id.as_str(), i + 1)).collect();
        let mut steps: Vec<StepView<'a>> = Vec::with_capacity(plan.steps.len());
        let mut by_resource: BTreeMap<&ResourceId, Vec<usize>> = BTreeMap::new();
        for (i, step) in plan.steps.iter().enumerate() {
            let waits_for: Vec<usize> =
                step.depends_on.iter().filter_map(|id| number.get(id.as_str()).copied()).collect();
            // Steps stand after those they wait for, so what those are is known already.
            let held_by: Vec<usize> =
                waits_for.iter().copied().filter(|n| steps.get(n - 1).is_some_and(|s| s.held_back)).collect();
            let held_back = step.is_blocked() || !held_by.is_empty();
            by_resource.entry(&step.resource).or_default().push(i + 1);
            steps.push(StepView { number: i + 1, step, waits_for, held_back, held_by });
        }
        let mut symbols = BTreeSet::new();
        let mut resources = Vec::new();
        for report in &plan.resources {
            let id = report.id();
            let own: Vec<&StepView<'a>> =
                by_resource.get(&id).into_iter().flatten().filter_map(|n| steps.get(n - 1)).collect();
            let silent = report.operation == Operation::None && report.changes.is_empty() && own.is_empty();
            // In a comparison of two commits, a difference that is there in both is no change and not shown.
            if silent
                && (report.sync == Sync::Synced || (report.sync == Sync::OutOfSync && plan.revision.base.is_some()))
            {
                continue;
            }
            let view = ResourceView::new(report, id, &own);
            symbols.extend(view.symbol);
            symbols.extend(report.changes.iter().map(|c| field_symbol(report, c)));
            resources.push(view);
        }
        Self { plan, resources, steps, symbols }
    }

    /// Where the desired state comes from: `commit abc1234 (since def5678)`, or the path.
    pub fn revision(&self) -> String {
        let revision = &self.plan.revision;
        match (&revision.commit, &revision.base) {
            (Some(commit), Some(base)) => format!("commit {} (since {})", short_id(commit), short_id(base)),
            (Some(commit), None) => format!("commit {}", short_id(commit)),
            (None, _) if revision.path == "-" => "the manifests from standard input".into(),
            (None, _) => format!("the manifests in {}", revision.path),
        }
    }

    /// The last line: counts, or that there is nothing to do.
    pub fn conclusion(&self) -> String {
        let Summary { blocked, unknown, .. } = self.plan.summary;
        if self.plan.steps.is_empty() && self.plan.summary.changes() == 0 && blocked == 0 && unknown == 0 {
            if let (Some(commit), Some(base)) = (&self.plan.revision.commit, &self.plan.revision.base) {
                return format!(
                    "No changes. Commit {} does nothing that commit {} does not do.",
                    short_id(commit),
                    short_id(base)
                );
            }
            let differing = self.resources.iter().filter(|r| r.report.sync != Sync::Synced).count();
            return match differing {
                0 => format!("No changes. The world matches {}.", self.revision()),
                1 => "No changes. 1 resource differs and is left as it is.".into(),
                n => format!("No changes. {n} resources differ and are left as they are."),
            };
        }
        format!("Plan: {}.", summary(&self.plan.summary))
    }

    /// Number of findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.plan.findings.iter().filter(|f| f.severity == severity).count()
    }
}

/// Counts in words: `1 to create, 0 to update, …; 2 unchanged, 0 blocked, 0 unknown`.
pub fn summary(summary: &Summary) -> String {
    let Summary { create, update, migrate, delete, run, unchanged, blocked, unknown } = summary;
    let run = if *run > 0 { format!(", {run} to run") } else { String::new() };
    format!(
        "{create} to create, {update} to update, {migrate} to migrate, {delete} to delete{run}; \
         {unchanged} unchanged, {blocked} blocked, {unknown} unknown"
    )
}

impl<'a> ResourceView<'a> {
    fn new(report: &'a ResourceReport, id: ResourceId, own: &[&StepView<'a>]) -> Self {
        let held_back: Vec<usize> = own.iter().filter(|s| s.held_back).map(|s| s.number).collect();
        let all_held_back = !own.is_empty() && held_back.len() == own.len();
        let (done, extra) = match report.operation {
            Operation::Create => ("created", String::new()),
            Operation::Update => ("updated in place", String::new()),
            Operation::Adopt => ("adopted", String::new()),
            Operation::Delete => ("deleted", String::new()),
            Operation::Release => ("let go", ", and stays as it is".to_owned()),
            Operation::Run => ("run", String::new()),
            Operation::Migrate => ("migrated", route(report, own)),
            Operation::None => ("", String::new()),
        };
        let phrase = match report.operation {
            Operation::None if report.sync == Sync::Unknown => "could not be read".into(),
            Operation::None if all_held_back => "is held back".into(),
            Operation::None if own.is_empty() && report.changes.iter().any(|c| c.effect == Effect::Restart) => {
                "differs until it is restarted".into()
            }
            Operation::None if own.is_empty() && report.sync == Sync::OutOfSync => {
                "differs and is left as it is".into()
            }
            Operation::None if own.is_empty() => "is as it should be".to_owned(),
            Operation::None => "will be put in order".into(),
            _ if all_held_back => format!("would be {done}{extra}, but is held back"),
            _ if held_back.is_empty() => format!("will be {done}{extra}"),
            _ => format!("will be {done}{extra}, in part: {} of {} steps held back", held_back.len(), own.len()),
        };
        let phrase = match &report.moves {
            Some(counts) => format!("{}: {}", phrase_of_moves(report, own, &held_back), counts.words()),
            None => phrase,
        };
        let symbol = match report.operation {
            Operation::None if report.sync == Sync::Unknown => Some(Symbol::Unknown),
            Operation::None if !own.is_empty() => Some(Symbol::Update),
            operation => Symbol::of(operation),
        };
        Self { report, id, symbol, phrase, held_back }
    }

    /// Its fields that differ.
    pub fn fields(&self, full: bool) -> impl Iterator<Item = FieldView<'a>> + '_ {
        self.report.changes.iter().map(move |change| FieldView {
            change,
            symbol: field_symbol(self.report, change),
            shown: value::show(&change.before, &change.after, full),
            notes: notes(change),
        })
    }
}

/// What happens to a resource that moves machines.
fn phrase_of_moves(report: &ResourceReport, own: &[&StepView<'_>], held_back: &[usize]) -> String {
    let moves = own.iter().filter(|s| migration(s.step).is_some()).count();
    match () {
        () if report.sync == Sync::Unknown && moves == 0 => "is not known completely".into(),
        () if moves == 0 && own.is_empty() && report.sync == Sync::Synced => "has nothing to move".into(),
        () if moves == 0 && report.health == Health::Suspended => "is suspended".into(),
        () if moves == 0 && own.is_empty() => "moves nothing now".into(),
        () if moves == 0 => "will be put in order".into(),
        () if held_back.len() == own.len() => "would move machines, but is held back".into(),
        () if moves == 1 => "will move 1 machine".into(),
        () => format!("will move {moves} machines"),
    }
}

/// ` from kvm-a to kvm-b`: as the step says, else as the field does.
fn route(report: &ResourceReport, own: &[&StepView<'_>]) -> String {
    if let Some(Migration { from, to, .. }) = own.iter().find_map(|s| migration(s.step)) {
        return format!(" from {from} to {to}");
    }
    let host = report.changes.iter().find(|c| c.path == "spec.host");
    match host.map(|c| (value::short(&c.before), value::short(&c.after))) {
        Some((Some(from), Some(to))) => format!(" from {from} to {to}"),
        _ => String::new(),
    }
}

/// The move that a step is.
pub fn migration(step: &Step) -> Option<&Migration> {
    match &step.action {
        Action::Machine(MachineAction::MigrateVirtualMachine(m)) => Some(m),
        Action::Machine(_) | Action::Cluster(_) => None,
    }
}

fn field_symbol(report: &ResourceReport, change: &Change) -> Symbol {
    match (change.before.is_null(), change.after.is_null()) {
        (true, false) => Symbol::Create,
        (false, true) => Symbol::Delete,
        _ if report.operation == Operation::Migrate && is_place(&change.path) => Symbol::Migrate,
        _ => Symbol::Update,
    }
}

/// Whether a field says where a machine is.
fn is_place(path: &str) -> bool {
    path == "spec.host" || path.starts_with("machines[")
}

fn notes(change: &Change) -> Vec<String> {
    let mut notes = Vec::new();
    match change.effect {
        Effect::None => {}
        Effect::Live => notes.push("live".to_owned()),
        Effect::Restart => notes.push("needs a restart".to_owned()),
        Effect::Recreate => notes.push("needs a new one in its place".to_owned()),
    }
    match change.definition {
        None => {}
        Some(Definition::Live) => notes.push("live definition".to_owned()),
        Some(Definition::Persistent) => notes.push("persistent definition".to_owned()),
        Some(Definition::Both) => notes.push("both definitions".to_owned()),
    }
    notes.extend(change.note.clone());
    notes
}

/// `step 1`, `steps 1, 2 and 3`.
pub fn list(numbers: &[usize]) -> String {
    let text: Vec<String> = numbers.iter().map(usize::to_string).collect();
    match text.split_last() {
        None => String::new(),
        Some((only, [])) => format!("step {only}"),
        Some((last, rest)) => format!("steps {} and {last}", rest.join(", ")),
    }
}

/// A commit's first seven digits, as Git shows them.
pub fn short_id(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// What a step takes and what can be done about it, part by part: `brief disruption`, `about 5.2 s`, ….
pub fn costs(step: &Step) -> Vec<String> {
    let mut parts = vec![disruption(step.disruption).to_owned()];
    parts.extend(estimate(&step.estimate));
    parts.push(interruption(step.interruption).to_owned());
    parts
}

/// A disruption in words.
pub fn disruption(disruption: Disruption) -> &'static str {
    match disruption {
        Disruption::None => "no disruption",
        Disruption::Brief => "brief disruption",
        Disruption::Downtime => "downtime",
        Disruption::Destructive => "destructive",
    }
}

/// An interruption in words.
pub fn interruption(interruption: Interruption) -> &'static str {
    match interruption {
        Interruption::Interruptible => "interruptible",
        Interruption::Drainable => "drainable",
        Interruption::PointOfNoReturn => "point of no return",
    }
}

/// An estimate in words; nothing for what takes nothing.
pub fn estimate(estimate: &Estimate) -> Vec<String> {
    let mut parts = Vec::new();
    if estimate.seconds > 0.0 {
        parts.push(format!("about {}", seconds(estimate.seconds)));
    }
    if estimate.downtime_millis > 0 {
        parts.push(format!("{} without an answer", millis(estimate.downtime_millis)));
    }
    if estimate.bytes > 0 {
        parts.push(bytes(estimate.bytes));
    }
    parts
}

/// A moment for people, to the second and in UTC: `2026-11-22 07:00:00Z`.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A length of time for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "an unknown time".into();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    // In range: finite, not negative, and `as` saturates.
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Milliseconds for people: `300 ms`, `1.5 s`.
pub fn millis(millis: u64) -> String {
    if millis < 1000 { format!("{millis} ms") } else { seconds(millis as f64 / 1000.0) }
}

/// Bytes for people, in binary units with three digits: `512 MiB`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 would be shown as 1000, which has four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 || value.fract() == 0.0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Blocks of a plan by code, with the steps that each holds back: the same reason is told once.
pub fn blocks<'a>(view: &View<'a>) -> Vec<BlockView<'a>> {
    let mut by_text: BTreeMap<(Code, &'a str, &'a str), Vec<&'a Step>> = BTreeMap::new();
    for step in &view.steps {
        for block in &step.step.blocked_by {
            by_text.entry((block.code, &block.reason, &block.way_out)).or_default().push(step.step);
        }
    }
    by_text.into_iter().map(|((code, reason, way_out), steps)| BlockView { code, reason, way_out, steps }).collect()
}

/// A reason why steps are held back.
pub struct BlockView<'a> {
    /// The finding's code.
    pub code: Code,
    /// Why.
    pub reason: &'a str,
    /// What to do about it.
    pub way_out: &'a str,
    /// Which steps.
    pub steps: Vec<&'a Step>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short_and_exact_enough() {
        let shown: Vec<_> = [0, 1, 999, 1000, 1 << 20, 536_870_912, (3 << 30) / 2, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1 B", "999 B", "0.98 KiB", "1 MiB", "512 MiB", "1.50 GiB", "16 EiB"]);
        let shown: Vec<_> = [0.04, 5.2, 9.96, 59.4, 200.0, 7500.0, f64::NAN].map(seconds).into();
        assert_eq!(shown, ["0.0 s", "5.2 s", "10 s", "59 s", "3 min 20 s", "2 h 5 min", "an unknown time"]);
        assert_eq!(millis(300), "300 ms");
    }
}
