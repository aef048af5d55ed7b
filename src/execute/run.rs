//! The scheduler: keeps the ready set, hands out slots, and settles what depends on what.

use super::limits::{Lane, Ready, Slots};
use super::step::{Ended, Runner, on_disk};
use super::{Event, ExecuteError, ExecuteLimits, Report, Stop};
use crate::journal::{Journal, JournalError, Outcome};
use crate::plan::{Plan, Step};
use crate::provider::WriteFleet;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Carries a plan out.
///
/// Returns when every step ended, was skipped, or was left because `stop` said so. Blocked steps are not begun and not
/// reported; what depends on one is skipped. A plan in which nothing can be begun leaves no trace in the journal.
///
/// *Guarantees*: see the module. Dropping the future is a crash: steps end where they stand, what was begun stays in
/// doubt in the journal, and the next run finds it.
///
/// # Errors
/// [`ExecuteError::Plan`] before anything is begun, for a plan that contradicts itself; [`ExecuteError::Journal`] when an
/// intent or an outcome could not be written down.
pub async fn execute(
    plan: &Plan,
    fleet: &WriteFleet,
    journal: Arc<dyn Journal>,
    limits: &ExecuteLimits,
    events: Arc<dyn Fn(Event) + Send + Sync>,
    stop: Stop,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
) -> Result<Report, ExecuteError> {
    let graph = Graph::new(plan)?;
    if plan.steps.iter().all(Step::is_blocked) {
        return Ok(Report::default());
    }
    let pass = {
        let (plan, now) = (plan.clone(), now());
        on_disk(&journal, move |j| j.begin(&plan, now))
            .await
            .map_err(|source| ExecuteError::Journal { source, report: Report::default() })?
    };
    let mut scheduler = Scheduler {
        outcomes: BTreeMap::new(),
        waiting_for: graph.waiting_for,
        dependents: graph.dependents,
        ready: Ready::default(),
        slots: Slots::new(limits),
        running: HashMap::new(),
        tasks: JoinSet::new(),
        trouble: None,
        plan,
        pass,
        fleet,
        journal: &journal,
        limits,
        events: &events,
        stop: &stop,
        now: &now,
    };
    scheduler.run().await;
    let (report, trouble) = (Report { outcomes: scheduler.outcomes }, scheduler.trouble);
    let result = result_word(&report, &stop);
    // An end that cannot be written leaves the pass without one: the next pass closes it as interrupted.
    let end = {
        let now = now();
        on_disk(&journal, move |j| j.end(pass, result, now)).await
    };
    match trouble.or(end.err()) {
        Some(source) => Err(ExecuteError::Journal { source, report }),
        None => Ok(report),
    }
}

fn result_word(report: &Report, stop: &Stop) -> &'static str {
    let failed = |o: &Outcome| matches!(o, Outcome::Failed { .. } | Outcome::Refused { .. });
    if report.succeeded() {
        "succeeded"
    } else if stop.superseded.is_cancelled() {
        "superseded"
    } else if stop.is_draining() && !report.outcomes.values().any(failed) {
        "interrupted"
    } else {
        "failed"
    }
}

/// What waits for what, by place in the plan.
struct Graph {
    waiting_for: Vec<usize>,
    dependents: Vec<Vec<usize>>,
}

impl Graph {
    /// Reads the order out of a plan; a plan from a file may be anything.
    fn new(plan: &Plan) -> Result<Self, ExecuteError> {
        let mut places = HashMap::with_capacity(plan.steps.len());
        for (i, step) in plan.steps.iter().enumerate() {
            if places.insert(step.id.as_str(), i).is_some() {
                return Err(ExecuteError::Plan(format!("step `{}` is in it twice", step.id)));
            }
        }
        let mut graph = Self { waiting_for: vec![0; plan.steps.len()], dependents: vec![Vec::new(); plan.steps.len()] };
        for (i, step) in plan.steps.iter().enumerate() {
            for needed in &step.depends_on {
                let Some(&place) = places.get(needed.as_str()) else {
                    return Err(ExecuteError::Plan(format!(
                        "step `{}` depends on `{needed}`, which is not in it",
                        step.id
                    )));
                };
                // The plan's own order is a topological one; requiring it excludes every cycle.
                if place >= i {
                    return Err(ExecuteError::Plan(format!(
                        "step `{}` depends on `{needed}`, which does not come before it",
                        step.id
                    )));
                }
                graph.waiting_for[i] += 1;
                graph.dependents[place].push(i);
            }
        }
        Ok(graph)
    }
}

struct Scheduler<'a> {
    outcomes: BTreeMap<String, Outcome>,
    waiting_for: Vec<usize>,
    dependents: Vec<Vec<usize>>,
    ready: Ready,
    slots: Slots,
    running: HashMap<Id, (usize, Lane, Instant)>,
    /// Dropped with the scheduler, and with it every task.
    tasks: JoinSet<Ended>,
    trouble: Option<JournalError>,
    plan: &'a Plan,
    pass: i64,
    fleet: &'a WriteFleet,
    journal: &'a Arc<dyn Journal>,
    limits: &'a ExecuteLimits,
    events: &'a Arc<dyn Fn(Event) + Send + Sync>,
    stop: &'a Stop,
    now: &'a Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Scheduler<'_> {
    async fn run(&mut self) {
        let mut skipped = Vec::new();
        for (i, step) in self.plan.steps.iter().enumerate() {
            if step.is_blocked() {
                self.skip_dependents(i, &format!("`{}` is held back", step.id), &mut skipped);
            }
        }
        for i in 0..self.plan.steps.len() {
            let step = &self.plan.steps[i];
            if self.waiting_for[i] == 0 && !step.is_blocked() && !self.outcomes.contains_key(&step.id) {
                self.ready.add(Lane::of(step, self.limits), i);
            }
        }
        loop {
            while self.trouble.is_none() && !self.stop.is_draining() {
                let Some((i, lane)) = self.ready.next(&mut self.slots) else { break };
                self.begin(i, lane);
            }
            let Some(joined) = self.tasks.join_next_with_id().await else { break };
            self.settle(joined, &mut skipped).await;
        }
        let why = self.why_the_rest_is_left();
        for i in self.ready.drain() {
            self.skip(i, &why, &mut skipped);
            self.skip_dependents(i, &why, &mut skipped);
        }
        self.record(skipped).await;
    }

    fn why_the_rest_is_left(&self) -> String {
        match &self.trouble {
            Some(error) => format!("nothing is begun any more: {error}"),
            None if self.stop.superseded.is_cancelled() => "a newer commit came".into(),
            None if self.stop.is_draining() => "Drover was asked to end".into(),
            None => "its host's limits let nothing of this sort begin".into(),
        }
    }

    fn begin(&mut self, i: usize, lane: Lane) {
        let step = &self.plan.steps[i];
        (self.events)(Event::Started {
            step: step.id.clone(),
            resource: step.resource.clone(),
            summary: step.summary.clone(),
        });
        let actor = self.fleet.actor(&step.action);
        let handle = match actor {
            Some(actor) => {
                let runner = Runner {
                    step: Arc::new(step.clone()),
                    pass: self.pass,
                    actor,
                    journal: self.journal.clone(),
                    limits: self.limits.clone(),
                    events: self.events.clone(),
                    stop: self.stop.clone(),
                    now: self.now.clone(),
                };
                self.tasks.spawn(runner.run())
            }
            None => {
                let hosts = step.action.targets().join("`, `");
                let reason = format!("there is no connection to `{hosts}`");
                let (journal, pass, id, now) = (self.journal.clone(), self.pass, step.id.clone(), (self.now)());
                self.tasks.spawn(async move {
                    let outcome = Outcome::Refused { reason };
                    let recorded = outcome.clone();
                    let journal = on_disk(&journal, move |j| j.finished(pass, &id, &recorded, now)).await.err();
                    Ended { outcome, journal }
                })
            }
        };
        self.running.insert(handle.id(), (i, lane, Instant::now()));
    }

    async fn settle(&mut self, joined: Result<(Id, Ended), JoinError>, skipped: &mut Vec<usize>) {
        let (id, ended) = match joined {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some((i, lane, begun)) = self.running.remove(&id) else { return };
        self.slots.release(&lane);
        let step = &self.plan.steps[i];
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => self.crashed(step, error).await,
        };
        if let Some(error) = ended.journal {
            self.trouble.get_or_insert(error);
        }
        self.settle_dependents(i, &ended.outcome, skipped);
        self.finish(i, ended.outcome, begun.elapsed());
    }

    /// A panic is a fault of Drover; it ends one step and not the pass.
    async fn crashed(&self, step: &Step, error: JoinError) -> Ended {
        let what = match error.try_into_panic() {
            Ok(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                format!("internal error: the step panicked: {text}")
            }
            Err(_) => "internal error: the step was cut off".into(),
        };
        tracing::error!(step = %step.id, resource = %step.resource, "{what}");
        let outcome = Outcome::Failed { error: what, transient: false };
        let (pass, id, recorded, now) = (self.pass, step.id.clone(), outcome.clone(), (self.now)());
        let journal = on_disk(self.journal, move |j| j.finished(pass, &id, &recorded, now)).await.err();
        Ended { outcome, journal }
    }

    fn settle_dependents(&mut self, i: usize, outcome: &Outcome, skipped: &mut Vec<usize>) {
        let id = &self.plan.steps[i].id;
        let why = match outcome {
            Outcome::Done | Outcome::AlreadyDone => {
                for next in self.dependents[i].clone() {
                    self.waiting_for[next] = self.waiting_for[next].saturating_sub(1);
                    let step = &self.plan.steps[next];
                    if self.waiting_for[next] == 0 && !step.is_blocked() && !self.outcomes.contains_key(&step.id) {
                        self.ready.add(Lane::of(step, self.limits), next);
                    }
                }
                return;
            }
            Outcome::Refused { .. } => format!("`{id}` was refused"),
            Outcome::Failed { .. } => format!("`{id}` failed"),
            Outcome::Interrupted => format!("`{id}` was left"),
            Outcome::Skipped { .. } => format!("`{id}` was skipped"),
        };
        self.skip_dependents(i, &why, skipped);
    }

    /// Skips everything that waits for step `i`, directly or not; the reason is the same all the way down.
    fn skip_dependents(&mut self, i: usize, why: &str, skipped: &mut Vec<usize>) {
        let mut reached = self.dependents[i].clone();
        while let Some(next) = reached.pop() {
            if self.skip(next, why, skipped) {
                reached.extend(&self.dependents[next]);
            }
        }
    }

    fn skip(&mut self, i: usize, why: &str, skipped: &mut Vec<usize>) -> bool {
        let step = &self.plan.steps[i];
        if step.is_blocked() || self.outcomes.contains_key(&step.id) {
            return false;
        }
        skipped.push(i);
        self.finish(i, Outcome::Skipped { reason: why.to_owned() }, Duration::ZERO);
        true
    }

    fn finish(&mut self, i: usize, outcome: Outcome, took: Duration) {
        let step = self.plan.steps[i].id.clone();
        self.outcomes.insert(step.clone(), outcome.clone());
        (self.events)(Event::Finished { step, outcome, took });
    }

    /// Writes down what was skipped, for the history. Nothing rests on it, so an earlier error of the journal keeps it
    /// from being tried.
    async fn record(&mut self, mut skipped: Vec<usize>) {
        if skipped.is_empty() || self.trouble.is_some() {
            return;
        }
        skipped.sort_unstable();
        let outcome = |i: usize| {
            let id = self.plan.steps[i].id.clone();
            self.outcomes.get(&id).cloned().map(|outcome| (id, outcome))
        };
        let records: Vec<_> = skipped.into_iter().filter_map(outcome).collect();
        let (pass, now) = (self.pass, (self.now)());
        let written = on_disk(self.journal, move |j| {
            let steps: Vec<_> = records.iter().map(|(id, outcome)| (id.as_str(), outcome.clone())).collect();
            j.finished_all(pass, &steps, now)
        });
        self.trouble = written.await.err();
    }
}
