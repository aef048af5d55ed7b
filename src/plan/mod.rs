//! The plan: what would be done, in which order, and why. [`plan`] is a pure function of what is wanted, what is there
//! and the time; nothing else comes in, and equal inputs give equal bytes.

mod capacity;
mod check;
mod draft;
mod evacuation;
mod graph;
mod guard;
pub mod precopy;
mod types;

pub use check::{Check, Precheck, Treatment, Verdict};
pub use draft::{Context, DraftId, Drafts, Fact, Load, StepDraft};
pub use guard::closed;
pub use types::*;

use crate::finding::{self, Code, Finding};
use crate::kind::Desired;
use crate::kind::virtual_machine::Survey;
use crate::model::ResourceId;
use crate::observed::Observed;
use jiff::Timestamp;
use precopy::PastMove;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Everything a plan is computed from.
pub struct PlanInput<'a> {
    /// What is wanted.
    pub desired: &'a Desired,
    /// What is there.
    pub observed: &'a Observed,
    /// The time, for windows, back-off and the age of the observation.
    pub now: Timestamp,
    /// What the operator says beyond Git.
    pub options: PlanOptions,
}

/// What the operator says beyond Git.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanOptions {
    /// Names of machines whose existing domain may be taken over (`--adopt`; the annotation `drover/adopt: "true"` does
    /// the same).
    pub adopt: BTreeSet<String>,
    /// Steps that failed lately: by step id, until when they rest and what they failed with.
    pub backing_off: BTreeMap<String, BackOff>,
    /// Steps that an earlier run began and that are still under way. One that the plan does not have by itself (a
    /// migration whose machine has arrived, and whose last touches nobody made) is followed to its end before anything
    /// else is done to its resource.
    pub under_way: Vec<Step>,
    /// Whether this pass follows no new commit: it corrects drift, and that only with `selfHeal`.
    pub drift_only: bool,
    /// Resources whose manifests changed since the last revision that was carried out. A difference on any other resource
    /// is drift. `None` for "not known": every difference is taken for a wish of Git.
    pub changed: Option<BTreeSet<ResourceId>>,
    /// How the last moves of each machine went, newest first, by the machine's UUID: they make the next prediction better.
    pub past_moves: BTreeMap<Uuid, Vec<PastMove>>,
    /// Whether machines that may stay may move for balance (`--rebalance`), whatever Settings say.
    pub rebalance: bool,
}

impl PlanOptions {
    /// Whether a difference on this resource was made by hand, as far as can be told.
    pub fn is_drift(&self, id: &ResourceId) -> bool {
        self.drift_only || self.changed.as_ref().is_some_and(|c| !c.contains(id))
    }
}

/// A step that rests after a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct BackOff {
    /// Not before.
    pub until: Timestamp,
    /// What it failed with.
    pub error: String,
    /// How often it failed in a row.
    pub failures: u32,
}

/// How old an observation may be before the plan says so.
const STALE_SECONDS: i64 = 3600;

/// Computes the plan.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let resources = &input.desired.resources;
    let settings = resources.the_settings();
    let ctx = Context {
        resources,
        observed: input.observed,
        settings: &settings,
        now: input.now,
        options: &input.options,
        commit: input.desired.revision.commit.as_deref(),
        survey: Survey::new(resources, input.observed, input.options.rebalance),
    };
    let mut drafts = Drafts::default();
    for (id, origin, _) in resources.ids() {
        drafts.report(&id, Some(origin.source()));
    }
    resources.draft(&ctx, &mut drafts);
    if let Some(age) = stale(input) {
        drafts.finding(
            Finding::new(Code::StaleObservation, format!("the observation is {age} old"))
                .hint("what was done since is not in this plan; observe anew"),
        );
    }
    let mut steps = graph::order(&mut drafts, |steps, edges| capacity::hold(steps, edges, &ctx));
    guard::apply(&mut steps, input, &settings);
    drafts.count_moves(&steps);
    let mut findings = drafts.findings;
    findings.extend(evacuation::tell(&steps, &ctx));
    finding::sort(&mut findings);
    let resources: Vec<ResourceReport> = drafts.reports.into_values().collect();
    let mut plan = Plan {
        format_version: FORMAT_VERSION.into(),
        hash: String::new(),
        revision: input.desired.revision.clone(),
        observed_at: input.observed.taken_at,
        summary: Summary::default(),
        resources,
        steps,
        findings,
    };
    plan.adopt(&input.options.under_way);
    plan.seal();
    plan
}

/// The observation's age in words, when it is old.
fn stale(input: &PlanInput<'_>) -> Option<String> {
    let age = input.now.as_second() - input.observed.taken_at.as_second();
    let words = match age / 3600 {
        hours @ 0..=47 => format!("{hours} h {} min", age / 60 % 60),
        hours => format!("{} days", hours / 24),
    };
    (age > STALE_SECONDS).then_some(words)
}

impl Plan {
    /// Whether there is nothing to do and nothing held back.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether a target could not be read.
    pub fn is_incomplete(&self) -> bool {
        self.summary.unknown > 0
    }

    /// Steps that can be carried out.
    pub fn runnable(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|s| !s.is_blocked())
    }

    /// Adds the steps that are under way and that the plan does not have by itself.
    fn adopt(&mut self, under_way: &[Step]) {
        let known: BTreeSet<String> = self.steps.iter().map(|s| s.id.clone()).collect();
        let is_wanted = |s: &&Step| !known.contains(&s.id) && !self.steps.iter().any(|own| own.cancels(s));
        let mut adopted: Vec<Step> = under_way.iter().filter(is_wanted).cloned().collect();
        for step in &mut adopted {
            step.depends_on.clear();
            step.blocked_by.clear();
            step.why = "an earlier run began it; it is followed to its end".into();
        }
        for step in &mut self.steps {
            let same = |a: &&Step| match (a.machine(), step.machine()) {
                (Some(a), Some(s)) => a == s,
                _ => a.resource == step.resource,
            };
            let before: Vec<String> = adopted.iter().filter(same).map(|a| a.id.clone()).collect();
            step.depends_on.extend(before);
            step.depends_on.sort();
        }
        adopted.append(&mut self.steps);
        self.steps = adopted;
    }

    /// What it does for one resource, and nothing else.
    #[must_use]
    pub fn only(mut self, id: &ResourceId) -> Plan {
        self.steps.retain(|s| s.resource == *id);
        let kept: BTreeSet<String> = self.steps.iter().map(|s| s.id.clone()).collect();
        for step in &mut self.steps {
            step.depends_on.retain(|d| kept.contains(d));
        }
        self.resources.retain(|r| r.id() == *id);
        self.findings.retain(|f| f.resource.as_ref() == Some(id));
        self.seal();
        self
    }

    /// What the change from `base` to this plan's revision does: the steps that `base`'s plan, made from the same
    /// observation, does not have. What would be done anyway is counted in a finding.
    #[must_use]
    pub fn since(mut self, base: &Plan) -> Plan {
        let known: BTreeMap<&str, &Step> = base.steps.iter().map(|s| (s.id.as_str(), s)).collect();
        let before = self.steps.len();
        self.steps.retain(|s| known.get(s.id.as_str()).is_none_or(|k| k.action != s.action));
        let kept: BTreeSet<String> = self.steps.iter().map(|s| s.id.clone()).collect();
        for step in &mut self.steps {
            step.depends_on.retain(|d| kept.contains(d));
        }
        let anyway = before - self.steps.len();
        if anyway > 0 {
            self.findings.push(
                Finding::new(Code::Drift, format!("{anyway} further steps are due whether this is merged or not"))
                    .severity(crate::finding::Severity::Info)
                    .hint("plan without `--base` to see them"),
            );
        }
        let reports: BTreeMap<ResourceId, &ResourceReport> = base.resources.iter().map(|r| (r.id(), r)).collect();
        let touched: BTreeSet<ResourceId> = self.steps.iter().map(|s| s.resource.clone()).collect();
        for report in &mut self.resources {
            if let Some(old) = reports.get(&report.id()) {
                report.changes.retain(|c| !old.changes.contains(c));
            }
            if !touched.contains(&report.id()) {
                report.operation = Operation::None;
            }
        }
        self.findings.retain(|f| f.code == Code::Drift || !base.findings.contains(f));
        self.revision.base.clone_from(&base.revision.commit);
        self.seal();
        self
    }

    /// Whether the content is what the hash was made of: a saved plan that somebody edited is another plan.
    pub fn is_intact(&self) -> bool {
        let mut again = self.clone();
        again.seal();
        again.hash == self.hash && again.summary == self.summary
    }

    /// Counts and hashes the content.
    fn seal(&mut self) {
        let mut summary = Summary::default();
        let mut held: BTreeMap<&ResourceId, (bool, bool)> = BTreeMap::new();
        for step in &self.steps {
            let (blocked, free) = held.entry(&step.resource).or_default();
            *blocked |= step.is_blocked();
            *free |= !step.is_blocked();
        }
        for report in &self.resources {
            let id = report.id();
            let (blocked, free) = held.get(&id).copied().unwrap_or_default();
            summary.blocked += u32::from(blocked);
            if report.sync == Sync::Unknown {
                summary.unknown += 1;
            } else if free {
                match report.operation {
                    Operation::None | Operation::Update | Operation::Adopt | Operation::Release => summary.update += 1,
                    Operation::Create => summary.create += 1,
                    Operation::Migrate => summary.migrate += 1,
                    Operation::Delete => summary.delete += 1,
                    Operation::Run => summary.run += 1,
                }
            } else if !blocked {
                // What differs and is left as it is waits for somebody: a restart, a decision, a manifest.
                let waits = report.sync == Sync::OutOfSync
                    && (!report.changes.is_empty()
                        || self.findings.iter().any(|f| f.is_error() && f.resource.as_ref() == Some(&id)));
                if waits {
                    summary.blocked += 1;
                } else {
                    summary.unchanged += 1;
                }
            }
        }
        self.summary = summary;
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|s| Step { estimate: Estimate::default(), checks: Vec::new(), ..s.clone() })
            .collect();
        let content = serde_json::json!({
            "steps": steps,
            "changes": self.resources.iter().filter(|r| !r.changes.is_empty()).collect::<Vec<_>>(),
        });
        self.hash = graph::hex(&Sha256::digest(content.to_string()), 32);
    }
}
