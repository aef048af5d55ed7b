//! The daemon's passes: a commit of the mirror, loaded, observed, planned, carried out, until nothing is left to do.

use super::moves;
use super::{Checked, PassRequest, PassResult, PassRunner, PassSummary, PassWatch, Phase, Reason, Resting, StopReason};
use crate::action::{Action, MachineAction, Order};
use crate::execute::{Event, ExecuteError, Report, Stop, recover, under_way};
use crate::finding::{Code, Finding};
use crate::journal::{Journal, Outcome, PAST_MOVES};
use crate::kind::settings::Drift;
use crate::kind::{Desired, Resources};
use crate::load::{Limits, load};
use crate::model::{ResourceId, Revision};
use crate::pass::{Engine, Events};
use crate::plan::{Plan, PlanOptions, ResourceReport, Sync};
use crate::source::git::{GitError, GitErrorKind, Mirror};
use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Rounds of one pass: what a round's end shows for the first time (a leftover, a definition that changed under a step) is
/// put right by the next. More would be a fight with somebody else.
const ROUNDS: usize = 4;

/// Runs passes for commits of a mirror.
pub struct Runner {
    mirror: Arc<Mirror>,
    path: String,
    engine: Arc<Engine>,
    journal: Arc<dyn Journal>,
    loaded: Mutex<Option<Arc<Desired>>>,
    carried_out: Mutex<Option<CarriedOut>>,
    /// The commit of the last pass, however it ended.
    attempted: Mutex<Option<String>>,
    /// What was said of machines that have moved, and for which commit.
    notes: Mutex<(String, Vec<Finding>)>,
}

/// What a pass brought about.
#[derive(Clone)]
struct CarriedOut {
    desired: Arc<Desired>,
    /// Resources that Git has changed and that still wait for it: their host could not be read, or a step is held back.
    pending: BTreeSet<ResourceId>,
}

/// What loading a commit gave.
enum Read {
    Desired(Arc<Desired>),
    Invalid(Vec<Finding>),
    Unreadable(String),
}

impl Runner {
    /// Runs passes for the folder `path` of the mirror's commits.
    pub fn new(mirror: Arc<Mirror>, path: impl Into<String>, engine: Arc<Engine>, journal: Arc<dyn Journal>) -> Self {
        Self {
            mirror,
            path: path.into(),
            engine,
            journal,
            loaded: Mutex::default(),
            carried_out: Mutex::default(),
            attempted: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// What earlier passes for this commit had to say of machines that have moved.
    fn notes_of(&self, commit: &str) -> Vec<Finding> {
        let kept = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 == commit { kept.1.clone() } else { Vec::new() }
    }

    /// Reads a commit's manifests; the last one read is kept.
    async fn read(&self, commit: &str) -> Read {
        let kept = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(desired) = kept
            && desired.revision.commit.as_deref() == Some(commit)
        {
            return Read::Desired(desired);
        }
        let (mirror, path, id) = (self.mirror.clone(), self.path.clone(), commit.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let tree = mirror.tree(&id, &path)?;
            let revision = Revision { commit: Some(id), base: None, path: mirror.url().to_string() };
            let mut loaded = load(&tree, revision, &Limits::default());
            // It is kept until the next commit.
            if let Some(desired) = &mut loaded.desired {
                desired.resources.pack();
            }
            Ok::<_, GitError>(loaded)
        })
        .await;
        match read {
            Err(e) => Read::Unreadable(format!("the thread that reads the manifests ended: {e}")),
            // A folder that was renamed or removed is the commit's fault, and no reason to doubt the mirror.
            Ok(Err(e)) if e.kind == GitErrorKind::NoFolder => {
                let finding = Finding::new(Code::Unreadable, e.message);
                Read::Invalid(vec![match e.hint {
                    Some(hint) => finding.hint(hint),
                    None => finding,
                }])
            }
            Ok(Err(e)) => Read::Unreadable(e.full()),
            Ok(Ok(loaded)) => match loaded.desired {
                None => Read::Invalid(loaded.findings),
                // Every manifest gone at once is a mistake of somebody's (a wrong folder, a bad merge) more often than a wish.
                Some(desired) if desired.resources.is_empty() => Read::Invalid(vec![
                    Finding::new(Code::NotUnderstood, "the commit declares nothing: there is no manifest in it")
                        .hint("bring the manifests back, or check `--path`; to give a fleet up, stop the daemon"),
                ]),
                Some(desired) => {
                    let desired = Arc::new(desired);
                    *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(desired.clone());
                    Read::Desired(desired)
                }
            },
        }
    }

    /// What the last pass carried out; that of an earlier run by the journal's word. One that was cut off did not.
    async fn before(&self) -> Option<CarriedOut> {
        if let Some(before) = &*self.carried_out.lock().unwrap_or_else(PoisonError::into_inner) {
            return Some(before.clone());
        }
        let journal = self.journal.clone();
        let passes = tokio::task::spawn_blocking(move || journal.history(20)).await.ok()?.ok()?;
        let commit = passes.into_iter().find(|p| p.result.as_deref() == Some("succeeded")).and_then(|p| p.commit)?;
        match self.read(&commit).await {
            Read::Desired(desired) => Some(CarriedOut { desired, pending: BTreeSet::new() }),
            Read::Invalid(_) | Read::Unreadable(_) => None,
        }
    }

    /// What Git changed since the last pass. Without a record of one, a difference on a machine whose drift is only to be
    /// reported counts as drift, and every other one as a wish of Git.
    async fn changed(&self, desired: &Desired) -> Option<BTreeSet<ResourceId>> {
        match self.before().await {
            Some(before) => {
                let mut changed = desired.resources.changed_since(&before.desired.resources);
                changed.extend(before.pending);
                Some(changed)
            }
            None => Some(all_but_reported(&desired.resources)),
        }
    }

    /// Tells what migrations have done, by the journal. Only shown: that it cannot be read stops nothing.
    async fn tell_runs(&self, watch: &PassWatch) {
        let journal = self.journal.clone();
        let read = tokio::task::spawn_blocking(move || journal.moves()).await;
        match read {
            Ok(Ok(records)) => watch.ran(&moves::runs(records)),
            Ok(Err(error)) => tracing::debug!(%error, "what migrations did could not be read"),
            Err(error) => tracing::debug!(%error, "what migrations did was not read"),
        }
    }

    /// One round: observe, plan, carry out. Gives the plan and what was done.
    async fn round(
        &self,
        desired: &Arc<Desired>,
        options: &PlanOptions,
        watch: &PassWatch,
        stop: &Stop,
    ) -> Result<(Arc<Plan>, Report, Vec<Finding>), ExecuteError> {
        let fleet = self.engine.writers(&desired.resources);
        let now = Arc::new(Timestamp::now);
        let recovered = recover(self.journal.clone(), &fleet, now)
            .await
            .map_err(|source| ExecuteError::Journal { source, report: Report::default() })?;
        for one in &recovered {
            tracing::info!(step = one.record.step.id, found = ?one.found, "an earlier run was cut off: {}", one.record.step.summary);
        }
        watch.phase(Phase::Observing);
        let observed = self.engine.observe(&desired.resources, false).await;
        watch.observed(&observed);
        watch.phase(Phase::Planning);
        // Thousands of machines are more than a moment's work.
        let (engine, wanted) = (self.engine.clone(), desired.clone());
        let mut chosen = PlanOptions { under_way: under_way(&recovered), ..options.clone() };
        let journal = self.journal.clone();
        let plan = tokio::task::spawn_blocking(move || {
            // Without them the next prediction is no better than the first; nothing else depends on them.
            chosen.past_moves = journal.past_moves(PAST_MOVES).unwrap_or_default();
            engine.plan(&wanted, &observed, chosen)
        })
        .await;
        let plan = Arc::new(plan.map_err(|e| ExecuteError::Plan(format!("planning ended: {e}")))?);
        watch.planned(plan.clone());
        self.tell_runs(watch).await;
        if plan.runnable().next().is_none() || stop.drain.is_cancelled() {
            return Ok((plan, Report::default(), Vec::new()));
        }
        watch.phase(Phase::Executing);
        tracing::info!(
            commit = desired.revision.commit,
            hash = plan.hash,
            steps = plan.steps.len(),
            "carrying out a plan"
        );
        let teller = watch.clone();
        let (notes, of) = (Arc::new(Mutex::new(Vec::new())), plan.clone());
        let jot = notes.clone();
        let events: Events = Arc::new(move |event| {
            log(&event);
            if let Event::Noted { step, text, hint } = &event {
                let mut finding = Finding::new(Code::AfterMove, text.clone()).hint(hint.clone());
                finding.resource = of.steps.iter().find(|s| s.id == *step).map(|s| s.resource.clone());
                jot.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
            }
            teller.event(&event);
        });
        let report = self.engine.carry_out(desired, &plan, self.journal.clone(), events, stop.clone()).await?;
        self.tell_runs(watch).await;
        let notes = std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((plan, report, notes))
    }
}

#[async_trait]
impl PassRunner for Runner {
    async fn check(&self, commit: &str) -> Checked {
        match self.read(commit).await {
            Read::Desired(_) => Checked::Valid,
            Read::Invalid(findings) => Checked::Invalid(findings),
            Read::Unreadable(why) => Checked::Unreadable(why),
        }
    }

    async fn orders(&self, newer: &str, running: Arc<Plan>) -> BTreeMap<String, Order> {
        match self.read(newer).await {
            Read::Desired(desired) => crate::kind::orders(&running, &desired.resources),
            Read::Invalid(_) | Read::Unreadable(_) => BTreeMap::new(),
        }
    }

    async fn run(&self, request: PassRequest, watch: PassWatch, stop: Stop) -> PassSummary {
        watch.phase(Phase::Loading);
        let desired = match self.read(&request.commit).await {
            Read::Desired(desired) => desired,
            Read::Invalid(findings) => {
                return PassSummary { result: PassResult::Invalid, findings, ..PassSummary::default() };
            }
            Read::Unreadable(why) => {
                return PassSummary { result: PassResult::Unreadable, error: Some(why), ..PassSummary::default() };
            }
        };
        self.engine.listen(&desired.resources);
        let before = self.attempted.lock().unwrap_or_else(PoisonError::into_inner).replace(request.commit.clone());
        if request.reason == Reason::Requested || before.as_ref() != Some(&request.commit) {
            self.engine.wake_all();
        }
        let options = PlanOptions {
            drift_only: request.drift_only,
            changed: self.changed(&desired).await,
            ..PlanOptions::default()
        };
        let mut summary = PassSummary { result: PassResult::Succeeded, ..PassSummary::default() };
        let (mut pending, mut notes) = (BTreeSet::new(), self.notes_of(&request.commit));
        for _ in 0..ROUNDS {
            match self.round(&desired, &options, &watch, &stop).await {
                Ok((plan, report, said)) => {
                    // What was said of a machine holds until it has moved again.
                    notes.retain(|n| !n.resource.as_ref().is_some_and(|r| has_moved(&plan, &report, r)));
                    notes.extend(said);
                    let acted = report.outcomes.values().any(|o| matches!(o, Outcome::Done | Outcome::Refused { .. }));
                    summary.plan_hash = Some(plan.hash.clone());
                    summary.counts = Some(plan.summary);
                    summary.findings.clone_from(&plan.findings);
                    summary.findings.extend(notes.iter().cloned());
                    summary.result = judge(&plan, &report, &watch);
                    pending = waiting(&plan, options.changed.as_ref());
                    summary.outcomes.extend(report.outcomes);
                    if !acted || matches!(summary.result, PassResult::Superseded | PassResult::Interrupted) {
                        break;
                    }
                }
                Err(error) => {
                    summary.result = PassResult::Failed;
                    let source = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
                    summary.error = Some(format!("{error}{source}"));
                    tracing::error!(error = summary.error, "a pass could not go on");
                    break;
                }
            }
        }
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner) = (request.commit.clone(), notes);
        let finished = matches!(summary.result, PassResult::Succeeded | PassResult::Incomplete);
        if finished {
            *self.carried_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(CarriedOut { desired, pending });
        }
        let resting = self.engine.resting();
        summary.again_at = resting.values().map(|b| b.until).min();
        summary.backing_off = resting
            .into_iter()
            .map(|(id, b)| (id, Resting { until: b.until, error: b.error, failures: b.failures }))
            .collect();
        summary
    }
}

/// Whether a report has a move of this resource's that is done.
fn has_moved(plan: &Plan, report: &Report, resource: &ResourceId) -> bool {
    plan.steps.iter().any(|s| {
        s.resource == *resource
            && matches!(s.action, Action::Machine(MachineAction::MigrateVirtualMachine(_)))
            && matches!(report.outcomes.get(&s.id), Some(Outcome::Done))
    })
}

/// Resources that Git has changed and that are not yet as it says.
fn waiting(plan: &Plan, changed: Option<&BTreeSet<ResourceId>>) -> BTreeSet<ResourceId> {
    let differ = plan.resources.iter().filter(|r| r.sync != Sync::Synced).map(ResourceReport::id);
    differ.filter(|id| changed.is_some_and(|c| c.contains(id))).collect()
}

/// Every resource but machines whose drift is only to be reported.
fn all_but_reported(resources: &Resources) -> BTreeSet<ResourceId> {
    let default = resources.the_settings().drift;
    let reported: BTreeSet<ResourceId> = resources
        .virtual_machines
        .values()
        .filter(|m| m.spec.drift.unwrap_or(default) == Drift::Report)
        .map(|m| m.id())
        .collect();
    resources.ids().map(|(id, _, _)| id).filter(|id| !reported.contains(id)).collect()
}

/// How a round ended.
fn judge(plan: &Plan, report: &Report, watch: &PassWatch) -> PassResult {
    match watch.stopped_because() {
        Some(StopReason::Superseded) => return PassResult::Superseded,
        Some(StopReason::ShuttingDown) => return PassResult::Interrupted,
        None => {}
    }
    let any = |test: fn(&Outcome) -> bool| report.outcomes.values().any(test);
    if any(|o| matches!(o, Outcome::Failed { .. } | Outcome::Refused { .. })) {
        PassResult::Failed
    } else if plan.is_incomplete()
        || plan.steps.iter().any(crate::plan::Step::is_blocked)
        || plan.findings.iter().any(Finding::is_error)
        || any(|o| matches!(o, Outcome::Skipped { .. } | Outcome::Interrupted))
    {
        PassResult::Incomplete
    } else {
        PassResult::Succeeded
    }
}

/// One line for each step that begins, fails or ends.
fn log(event: &Event) {
    match event {
        Event::Started { step, resource, summary } => tracing::info!(step, %resource, "{summary}"),
        Event::Noted { step, text, hint } => tracing::warn!(step, hint, "{text}"),
        Event::Retrying { step, error, after } => {
            tracing::warn!(step, error, after_seconds = after.as_secs_f64(), "a step is tried again");
        }
        Event::Finished { step, outcome: Outcome::Failed { error, .. }, took } => {
            tracing::error!(step, error, seconds = took.as_secs_f64(), "a step failed");
        }
        Event::Finished { step, outcome: Outcome::Refused { reason }, .. } => {
            tracing::warn!(step, reason, "a step was refused");
        }
        Event::Finished { step, outcome: Outcome::Skipped { reason }, .. } => {
            tracing::warn!(step, reason, "a step was skipped");
        }
        Event::Finished { step, outcome, took } => {
            tracing::info!(step, ?outcome, seconds = took.as_secs_f64(), "a step ended");
        }
        Event::Progress { step, progress } => {
            tracing::debug!(step, processed = progress.processed, remaining = progress.remaining, "progress");
        }
    }
}
