//! One step: look, write the intent down, act, verify, write the outcome down.

use super::{Event, ExecuteLimits, Stop};
use crate::action::{Action, ClusterAction, MachineAction, MigrationWay};
use crate::journal::{Journal, JournalError, Outcome};
use crate::observed::Progress;
use crate::plan::precopy::{self, Measured, PastMove};
use crate::plan::{Interruption, Step};
use crate::provider::{ActError, Actor, Look, Note, StepCtx};
use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a migration may take beyond its own time-out: the switch-over, the definitions, reading both hosts.
const MIGRATION_MARGIN: Duration = Duration::from_secs(60);

/// What a shutdown may take beyond its own time-out.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(30);

/// How long somebody else's migration is followed in one pass (a MigrationPolicy's default time-out).
const FOLLOW: Duration = Duration::from_secs(1800);

/// Rate that a step which moves bytes may count on for its deadline, in bytes a second: a slow disk's.
const SLOWEST_RATE: u64 = 10_000_000;

/// How long an actor may overrun the deadline it was given before it is cut off: its own error says more than ours.
const OVERRUN: Duration = Duration::from_secs(10);

/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How a step ended, and whether its outcome is in the journal.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) journal: Option<JournalError>,
}

/// Everything that one step needs.
pub(super) struct Runner {
    pub(super) step: Arc<Step>,
    pub(super) pass: i64,
    pub(super) actor: Arc<dyn Actor>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) limits: ExecuteLimits,
    pub(super) events: Arc<dyn Fn(Event) + Send + Sync>,
    pub(super) stop: Stop,
    pub(super) now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// The last that was heard of its progress.
    pub(super) last: Arc<Mutex<Option<Progress>>>,
}

/// How long `act` may take.
pub(super) fn act_deadline(step: &Step, limits: &ExecuteLimits) -> Duration {
    match &step.action {
        Action::Machine(MachineAction::MigrateVirtualMachine(m)) => match m.way {
            MigrationWay::Live => Duration::from_millis(m.timeout_millis) + MIGRATION_MARGIN,
            MigrationWay::Offline => {
                limits.step_deadline.max(Duration::from_millis(m.timeout_millis)) + MIGRATION_MARGIN
            }
        },
        Action::Machine(MachineAction::ShutdownDomain { timeout_millis, .. }) => {
            Duration::from_millis(*timeout_millis) + SHUTDOWN_MARGIN
        }
        Action::Machine(MachineAction::AwaitMigration { .. }) => limits.step_deadline.max(FOLLOW),
        // Twice what its limit takes: that bounds the average, and there are pauses.
        Action::Machine(MachineAction::MoveDisk(m)) => {
            let rate = m.bandwidth_mib.map_or(SLOWEST_RATE, |mib| (mib << 20).clamp(1, 2 * SLOWEST_RATE) / 2).max(1);
            limits.step_deadline + Duration::from_secs(step.estimate.bytes / rate)
        }
        Action::Cluster(
            ClusterAction::AwaitObject { timeout_millis, .. }
            | ClusterAction::ApproveInstallPlan { timeout_millis, .. },
        ) => Duration::from_millis(*timeout_millis),
        Action::Machine(_) | Action::Cluster(_) => {
            limits.step_deadline + Duration::from_secs(step.estimate.bytes / SLOWEST_RATE)
        }
    }
}

/// Further attempts at a step: as many as its policy says, where it says.
fn retries(step: &Step, limits: &ExecuteLimits) -> u32 {
    match &step.action {
        Action::Machine(MachineAction::MigrateVirtualMachine(m)) => m.retries,
        Action::Machine(_) | Action::Cluster(_) => None,
    }
    .unwrap_or(limits.attempts.saturating_sub(1))
}

/// Runs a journal call where it may block.
pub(super) async fn on_disk<T: Send + 'static>(
    journal: &Arc<dyn Journal>,
    call: impl FnOnce(&dyn Journal) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let journal = journal.clone();
    tokio::task::spawn_blocking(move || call(journal.as_ref()))
        .await
        .unwrap_or_else(|e| Err(JournalError { path: String::new(), why: format!("a call to it ended early: {e}") }))
}

/// What one attempt came to.
enum Attempt {
    Ended(Outcome),
    /// It may go better later.
    Again(ActError),
    /// The intent could not be written down, and nothing was done.
    NoJournal(JournalError),
}

impl Runner {
    /// Runs the step to its end, or until everything is to be left: then what it began stays in doubt in the journal.
    pub(super) async fn run(self) -> Ended {
        let cancel = CancellationToken::new();
        let mut acted = false;
        let outcome = tokio::select! {
            biased;
            outcome = self.attempts(&cancel, &mut acted) => outcome,
            () = self.stop.leave.cancelled() => {
                // A step that is drainable or past its point of no return is left without a word: to cancel it would
                // be to abort it. It goes on at the host, and the next run finds it there.
                if self.step.interruption == Interruption::Interruptible {
                    cancel.cancel();
                }
                return Ended { outcome: Outcome::Interrupted, journal: None };
            }
        };
        match outcome {
            Ok(outcome) => {
                if outcome == Outcome::Done {
                    self.tell_figures().await;
                }
                let (pass, id, ended, now) = (self.pass, self.step.id.clone(), outcome.clone(), (self.now)());
                let journal = on_disk(&self.journal, move |j| j.finished(pass, &id, &ended, now)).await.err();
                Ended { outcome, journal }
            }
            Err(journal) => {
                let reason = format!("its start could not be written down: {journal}");
                Ended { outcome: Outcome::Skipped { reason }, journal: Some(journal) }
            }
        }
    }

    /// Writes down what a live migration was, beside what was predicted. Where that fails, the history is poorer.
    async fn tell_figures(&self) {
        let Action::Machine(MachineAction::MigrateVirtualMachine(m)) = &self.step.action else { return };
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(measured) = last.and_then(|p| Measured::of(&p)).filter(|_| m.way == MigrationWay::Live) else {
            return;
        };
        let (pass, id, machine) = (self.pass, self.step.id.clone(), m.uuid);
        let figures = PastMove { predicted: self.step.estimate.prediction, measured };
        tracing::info!(step = %self.step.id, "{}", precopy::words(&figures));
        if let Err(error) = on_disk(&self.journal, move |j| j.measured(pass, &id, machine, &figures)).await {
            tracing::warn!(%error, "what a move was could not be written down");
        }
    }

    fn ctx(&self, deadline: Duration, cancel: &CancellationToken) -> StepCtx {
        let (events, step) = (self.events.clone(), self.step.id.clone());
        let (jot, noted) = (events.clone(), step.clone());
        let last = self.last.clone();
        StepCtx {
            deadline,
            cancel: cancel.clone(),
            progress: Arc::new(move |progress| {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
                events(Event::Progress { step: step.clone(), progress });
            }),
            orders: self.stop.orders.of(&self.step.id),
            note: Arc::new(move |Note { text, hint }| jot(Event::Noted { step: noted.clone(), text, hint })),
        }
    }

    async fn attempts(&self, cancel: &CancellationToken, acted: &mut bool) -> Result<Outcome, JournalError> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(self.limits.backoff)
            .with_max_delay(LONGEST_PAUSE.max(self.limits.backoff))
            .with_max_times(usize::try_from(retries(&self.step, &self.limits)).unwrap_or(usize::MAX))
            .with_jitter()
            .with_jitter_seed(jitter_seed(&self.step.id, (self.now)()))
            .build();
        let mut before: Option<ActError> = None;
        loop {
            let error = match self.attempt(cancel, acted, before.as_ref()).await {
                Attempt::Ended(outcome) => return Ok(outcome),
                Attempt::NoJournal(error) => return Err(error),
                Attempt::Again(error) => error,
            };
            let Some(pause) = pauses.next().filter(|_| !self.stop.is_draining()) else {
                return Ok(failed(&error, true));
            };
            (self.events)(Event::Retrying { step: self.step.id.clone(), error: said(&error), after: pause });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.draining() => return Ok(failed(&error, true)),
            }
            before = Some(error);
        }
    }

    async fn attempt(&self, cancel: &CancellationToken, acted: &mut bool, before: Option<&ActError>) -> Attempt {
        match self.look(cancel).await {
            Err(error) if error.transient => return Attempt::Again(error),
            Err(error) => return Attempt::Ended(failed(&error, false)),
            Ok(Look::Refused { reason }) => return Attempt::Ended(refused(reason, before.filter(|_| *acted))),
            Ok(Look::AlreadyDone) if !*acted => return Attempt::Ended(Outcome::AlreadyDone),
            Ok(Look::AlreadyDone) => return self.verify(cancel).await,
            Ok(Look::Ready | Look::Running) => {}
        }
        if !*acted {
            let (pass, step, now) = (self.pass, self.step.clone(), (self.now)());
            if let Err(error) = on_disk(&self.journal, move |j| j.started(pass, &step, now)).await {
                return Attempt::NoJournal(error);
            }
            *acted = true;
        }
        let deadline = act_deadline(&self.step, &self.limits);
        let ctx = self.ctx(deadline, cancel);
        match bounded(deadline + OVERRUN, self.actor.act(&self.step.action, &ctx)).await {
            Some(Ok(())) => self.verify(cancel).await,
            Some(Err(error)) if error.transient => Attempt::Again(error),
            // A permanent error is not the truth either: the answer may have been lost after the deed was done.
            Some(Err(error)) => self.judge(cancel, error).await,
            None => {
                let error = ActError::permanent(format!("no end within {} s", deadline.as_secs()));
                self.judge(cancel, error).await
            }
        }
    }

    /// What is really there after `act` failed for good.
    async fn judge(&self, cancel: &CancellationToken, error: ActError) -> Attempt {
        match self.look(cancel).await {
            Ok(Look::AlreadyDone) => self.verify(cancel).await,
            Ok(Look::Running) => {
                let message = format!("{}; it is still under way, and the next pass follows it", error.message);
                Attempt::Ended(failed(&ActError { message, ..error }, true))
            }
            _ => Attempt::Ended(failed(&error, false)),
        }
    }

    async fn look(&self, cancel: &CancellationToken) -> Result<Look, ActError> {
        let deadline = self.limits.step_deadline;
        let ctx = self.ctx(deadline, cancel);
        bounded(deadline + OVERRUN, self.actor.look(&self.step.action, &ctx))
            .await
            .unwrap_or_else(|| Err(ActError::transient(format!("looking took longer than {} s", deadline.as_secs()))))
    }

    async fn verify(&self, cancel: &CancellationToken) -> Attempt {
        let deadline = self.limits.step_deadline;
        let ctx = self.ctx(deadline, cancel);
        match bounded(deadline + OVERRUN, self.actor.verify(&self.step.action, &ctx)).await {
            Some(Ok(())) => Attempt::Ended(Outcome::Done),
            Some(Err(error)) if error.transient => Attempt::Again(error),
            Some(Err(error)) => Attempt::Ended(failed(&error, false)),
            None => Attempt::Again(ActError::transient(format!("verifying took longer than {} s", deadline.as_secs()))),
        }
    }
}

async fn bounded<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

fn said(error: &ActError) -> String {
    match &error.hint {
        Some(hint) => format!("{} (hint: {hint})", error.message),
        None => error.message.clone(),
    }
}

fn failed(error: &ActError, transient: bool) -> Outcome {
    Outcome::Failed { error: said(error), transient }
}

/// A refusal of a step that has acted is a failure: something was done, and now it does not go on.
fn refused(reason: String, before: Option<&ActError>) -> Outcome {
    match before {
        None => Outcome::Refused { reason },
        Some(error) => Outcome::Failed { error: format!("{}; then {reason}", said(error)), transient: false },
    }
}

/// Steps that failed together do not try again together; the same step at the same time always pauses alike.
fn jitter_seed(step: &str, now: Timestamp) -> u64 {
    let seed = step.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    seed ^ now.as_millisecond().cast_unsigned()
}
