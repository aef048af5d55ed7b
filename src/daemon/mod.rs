//! Decides when to run a pass, and with which commit. What a pass does is a [`PassRunner`]'s matter.
//!
//! ```text
//!  start, poll, notify, webhook, SIGHUP ──→ fetch ──→ new commit? ──→ check ──→ invalid: shown loudly, nothing changes
//!                                                                       │
//!                                                                       └─→ valid: it is in force from now on
//!  drift timer, host event, SIGHUP, retry ─────────────────────────────────→ pass, with the commit in force
//! ```
//!
//! *Guarantees*
//! - One fetch, one check and one pass at a time. Whatever asks for more of them while one runs is remembered once.
//! - A commit is checked completely before it has any effect. An invalid one does not even stop the pass that runs.
//! - A newer valid commit makes the running pass start no further step ([`Stop::drain`]); the next pass begins when the
//!   steps that run have ended. That pass counts as superseded, not as failed. A commit that changes nothing in the
//!   followed folder supersedes nothing.
//! - What hosts tell makes a pass for drift come sooner, and no more often than `events.rs` allows: what Drover's own steps
//!   cause is no reason for a pass once it has been read. Nothing depends on it; the drift timer runs anyway.
//! - Nothing is inferred from a repository that cannot be read: the commit in force stays, and drift is still corrected.
//! - After SIGTERM nothing new begins. After the grace time, or a second signal, running steps are left (a migration goes
//!   on by itself and is adopted at the next start), and [`LEAVE_TIME`] later [`Daemon::run`] returns whatever happens.
//!
//! *Assumptions*: both traits may be slow but return when told to stop; time is tokio's, so that tests can pause it.

mod check;
mod events;
mod lock;
mod look;
mod metrics;
mod moves;
mod passes;
mod report;
mod runner;
mod signals;
mod source;
mod status;
mod timing;
mod watch;

pub use lock::{FollowLock, LockError, StateLock};
pub use metrics::Metrics;
pub use moves::{MACHINES, MachineMove, MoveRun};
pub use report::{PassWatch, StopReason};
pub use runner::Runner;
pub use signals::{Signal, listen};
pub use source::{Found, GitSource, RevisionSource};
pub use status::*;
pub use timing::{LEAVE_TIME, Timing};

use crate::action::Order;
use crate::execute::Stop;
use crate::finding::{Code, Finding};
use crate::plan::Plan;
use crate::provider::HostChange;
use crate::source::git::GitError;
use async_trait::async_trait;
use jiff::Timestamp;
use passes::RunningPass;
use report::Readings;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use timing::HEARTBEAT;
use tokio::sync::{Notify, mpsc, watch as channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Carries commits out. Implemented by the pass; tests have their own.
#[async_trait]
pub trait PassRunner: Send + Sync + 'static {
    /// Loads a commit's manifests and tells whether they are valid. Touches nothing outside.
    async fn check(&self, commit: &str) -> Checked;

    /// Runs one pass. Heeds `stop` at the next safe point. What happens is told to `watch`.
    async fn run(&self, request: PassRequest, watch: PassWatch, stop: Stop) -> PassSummary;

    /// What a newer, valid commit says to the steps of a plan that is being carried out.
    async fn orders(&self, _newer: &str, _running: Arc<Plan>) -> BTreeMap<String, Order> {
        BTreeMap::new()
    }
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq)]
pub enum Checked {
    /// The manifests are valid; warnings do not matter here.
    Valid,
    /// They are not.
    Invalid(Vec<Finding>),
    /// They could not be read: the mirror, and not the commit, has a fault.
    Unreadable(String),
}

/// What a pass is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassRequest {
    /// The commit to carry out.
    pub commit: String,
    /// Why; for logs.
    pub reason: Reason,
    /// Whether this commit was carried out completely before, so that all that differs is drift.
    pub drift_only: bool,
}

/// Something from outside that may mean work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The repository may have news (a webhook).
    Look,
    /// Something changed on a host (a libvirt event).
    HostChanged(HostChange),
}

/// Takes hints, and the daemon's end of it. Full means that enough of them wait already: use `try_send` and drop what does
/// not fit.
pub fn hints() -> (mpsc::Sender<Hint>, mpsc::Receiver<Hint>) {
    mpsc::channel(64)
}

/// How the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything that ran had ended.
    Clean,
    /// Running steps were left; the next start adopts them.
    Left,
}

/// What others need of a running daemon: http, the providers, tests.
#[derive(Clone)]
pub struct Handles {
    /// Takes hints. Full means that enough of them wait already: use `try_send` and drop what does not fit.
    pub hints: mpsc::Sender<Hint>,
    /// The status.
    pub status: channel::Receiver<DaemonStatus>,
    /// The last pass's plan.
    pub plan: channel::Receiver<Option<Arc<Plan>>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the loop is alive.
    pub heartbeat: Arc<Heartbeat>,
}

/// The last sign of life of the loop.
#[derive(Debug)]
pub struct Heartbeat {
    began: Instant,
    beat: AtomicU64,
}

impl Heartbeat {
    fn new() -> Self {
        Self { began: Instant::now(), beat: AtomicU64::new(0) }
    }

    fn beat(&self) {
        self.beat.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago it was.
    pub fn age(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.beat.load(Ordering::Relaxed)))
    }

    /// Whether the loop turned within the last half minute; it does so every five seconds when there is nothing to do.
    pub fn is_alive(&self) -> bool {
        self.age() < Duration::from_secs(30)
    }
}

/// The reconcile loop.
pub struct Daemon {
    source: Arc<dyn RevisionSource>,
    runner: Arc<dyn PassRunner>,
    timing: Timing,
    hints: mpsc::Receiver<Hint>,
    status: channel::Sender<DaemonStatus>,
    plan: channel::Sender<Option<Arc<Plan>>>,
    metrics: Arc<Metrics>,
    heartbeat: Arc<Heartbeat>,
    /// Told by the file watch.
    changed: Arc<Notify>,
    watch: Option<watch::RefWatch>,
    readings: Arc<Mutex<Readings>>,
    state: State,
}

/// What the loop knows. Instants are when something is due; `None` is never.
struct State {
    began: Instant,
    // The repository.
    look_at: Option<Instant>,
    looked_at: Option<Instant>,
    poll_at: Instant,
    fetch_failures: u32,
    /// The newest commit, and whether it has been checked.
    tip: Option<Found>,
    checked: bool,
    /// The commit in force.
    good: Option<Found>,
    // Passes.
    /// The commit of the last pass that was begun.
    attempted: Option<String>,
    /// The commit that was carried out completely.
    settled: Option<String>,
    drift_at: Instant,
    retry_at: Option<Instant>,
    changes: events::Changes,
    asked: bool,
    failures: u32,
    // The end.
    ending: Option<Ending>,
}

struct Ending {
    leave_at: Instant,
    left: bool,
}

/// Waits for a task that may not be there.
async fn ended<T>(task: Option<&mut JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

impl Daemon {
    /// Puts a daemon together; nothing happens until [`Daemon::run`].
    pub fn new(source: Arc<dyn RevisionSource>, runner: Arc<dyn PassRunner>, timing: Timing) -> (Self, Handles) {
        Self::with_hints(source, runner, timing, hints())
    }

    /// As [`Daemon::new`], for hints of somebody who was there before: a runner, which listens to hosts.
    pub fn with_hints(
        source: Arc<dyn RevisionSource>,
        runner: Arc<dyn PassRunner>,
        timing: Timing,
        (hint_sender, hints): (mpsc::Sender<Hint>, mpsc::Receiver<Hint>),
    ) -> (Self, Handles) {
        let (repository, reference, path) = source.describe();
        let (status, status_receiver) = channel::channel(DaemonStatus {
            format_version: STATUS_VERSION.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: Some(Timestamp::now()),
            pid: std::process::id(),
            repository,
            reference,
            path,
            ..DaemonStatus::default()
        });
        let (plan, plan_receiver) = channel::channel(None);
        let metrics = Arc::new(Metrics::default());
        let heartbeat = Arc::new(Heartbeat::new());
        let handles = Handles {
            hints: hint_sender,
            status: status_receiver,
            plan: plan_receiver,
            metrics: metrics.clone(),
            heartbeat: heartbeat.clone(),
        };
        let now = Instant::now();
        let state = State {
            began: now,
            look_at: Some(now),
            looked_at: None,
            poll_at: now + timing.poll,
            fetch_failures: 0,
            tip: None,
            checked: true,
            good: None,
            attempted: None,
            settled: None,
            drift_at: now + timing.drift,
            retry_at: None,
            changes: events::Changes::default(),
            asked: false,
            failures: 0,
            ending: None,
        };
        let daemon = Self {
            source,
            runner,
            timing,
            hints,
            status,
            plan,
            metrics,
            heartbeat,
            changed: Arc::new(Notify::new()),
            watch: None,
            readings: Arc::default(),
            state,
        };
        (daemon, handles)
    }

    /// Runs until a [`Signal::Terminate`] comes, or until the sender of `signals` is gone.
    pub async fn run(mut self, mut signals: mpsc::Receiver<Signal>) -> Exit {
        let cancel_fetch = CancellationToken::new();
        let mut fetch: Option<JoinHandle<(Result<Found, GitError>, Duration)>> = None;
        let mut check: Option<(Found, JoinHandle<Checked>)> = None;
        let mut pass: Option<RunningPass> = None;
        let (mut hints_open, mut signals_open) = (true, true);
        // The commit that was in force before: it stays so if the repository cannot be read now.
        self.state.good = self.source.good().await;
        self.arm_watch();
        loop {
            self.heartbeat.beat();
            let now = Instant::now();
            if let Some(ending) = &mut self.state.ending {
                match &pass {
                    None => {
                        tracing::info!("ended");
                        return Exit::Clean;
                    }
                    Some(pass) if now >= ending.leave_at && !ending.left => {
                        tracing::warn!("the grace time is over: running steps are left; the next start adopts them");
                        pass.stop.leave.cancel();
                        ending.left = true;
                        ending.leave_at = now + LEAVE_TIME;
                    }
                    Some(pass) if now >= ending.leave_at => {
                        tracing::error!("steps did not let go in time and are left as they are");
                        pass.task.abort();
                        return Exit::Left;
                    }
                    Some(_) => {}
                }
            } else {
                if fetch.is_none() && self.look_due(now) {
                    fetch = Some(self.start_fetch(now, &cancel_fetch));
                }
                if check.is_none() && !self.state.checked {
                    check = self.start_check();
                }
                if pass.is_none() && check.is_none() {
                    pass = self.start_pass(now);
                }
            }
            self.publish(fetch.is_some(), check.is_some(), pass.as_ref());
            let wake = self.next_wake(now, pass.is_some() || check.is_some(), fetch.is_some());
            tokio::select! {
                biased;
                signal = signals.recv(), if signals_open => match signal {
                    Some(Signal::Hangup) => {
                        tracing::info!("asked to look at everything now");
                        self.state.look_at = Some(Instant::now());
                        self.state.asked = true;
                    }
                    Some(Signal::Terminate) | None => {
                        signals_open = signal.is_some();
                        self.end(pass.as_ref());
                        cancel_fetch.cancel();
                        if let Some((_, task)) = check.take() {
                            task.abort();
                        }
                    }
                },
                summary = ended(pass.as_mut().map(|p| &mut p.task)) => {
                    if let Some(pass) = pass.take() {
                        self.pass_ended(pass, summary);
                    }
                }
                result = ended(check.as_mut().map(|c| &mut c.1)) => {
                    if let Some((found, _)) = check.take() {
                        self.check_ended(found, result, pass.as_ref()).await;
                    }
                }
                result = ended(fetch.as_mut()) => {
                    fetch = None;
                    self.fetch_ended(result);
                }
                () = self.changed.notified() => {
                    let at = Instant::now() + self.timing.settle;
                    self.look_no_later_than(at);
                }
                hint = self.hints.recv(), if hints_open => match hint {
                    Some(Hint::Look) => self.look_no_later_than(Instant::now()),
                    Some(Hint::HostChanged(change)) => self.host_changed(change),
                    None => hints_open = false,
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    fn end(&mut self, pass: Option<&RunningPass>) {
        let now = Instant::now();
        match &mut self.state.ending {
            None => {
                tracing::info!(grace_seconds = self.timing.grace.as_secs(), "asked to end: nothing new begins");
                self.state.ending = Some(Ending { leave_at: now + self.timing.grace, left: false });
                if let Some(pass) = pass {
                    pass.drain(StopReason::ShuttingDown);
                    self.status.send_modify(|s| s.phase = Phase::Draining);
                }
            }
            Some(ending) if !ending.left => ending.leave_at = now,
            Some(_) => {}
        }
    }

    fn next_wake(&self, now: Instant, busy: bool, fetching: bool) -> Instant {
        let beat = now + HEARTBEAT;
        if let Some(ending) = &self.state.ending {
            return ending.leave_at.min(beat);
        }
        let mut due = vec![beat];
        if !fetching {
            due.push(self.state.poll_at);
            due.extend(self.state.look_at);
        }
        if !busy && self.state.good.is_some() {
            due.push(self.state.drift_at);
            due.extend(self.state.retry_at);
            due.extend(self.state.changes.due());
        }
        // Never turn without a pause, whatever is due.
        due.into_iter().min().unwrap_or(beat).max(now + Duration::from_millis(1))
    }

    fn publish(&self, fetching: bool, checking: bool, pass: Option<&RunningPass>) {
        let wall = |at: Instant| {
            let from_start = at.saturating_duration_since(Instant::now());
            Timestamp::now().checked_add(jiff::SignedDuration::try_from(from_start).unwrap_or_default()).ok()
        };
        // Whole seconds, so that a status that means the same is the same.
        let whole = |at: Option<Timestamp>| at.and_then(|t| Timestamp::from_second(t.as_second()).ok());
        let next_drift = whole(self.state.good.as_ref().and_then(|_| wall(self.state.drift_at)));
        let retry = whole(self.state.retry_at.and_then(wall));
        let next_poll = whole(wall(self.state.poll_at));
        let (good, settled) = (self.state.good.as_ref().map(|g| g.commit.clone()), self.state.settled.clone());
        self.status.send_if_modified(|s| {
            let before = (s.phase, s.good.clone(), s.settled.clone());
            s.phase = match (pass.is_some(), s.phase) {
                (true, phase) => phase,
                (false, _) if checking => Phase::Loading,
                (false, _) if fetching => Phase::Fetching,
                (false, _) => Phase::Idle,
            };
            (s.good, s.settled) = (good, settled);
            (s.next_drift_at, s.retry_at, s.fetch.next_at) = (next_drift, retry, next_poll);
            before != (s.phase, s.good.clone(), s.settled.clone())
        });
        tracing::trace!(up_seconds = self.state.began.elapsed().as_secs(), "turn");
    }
}
