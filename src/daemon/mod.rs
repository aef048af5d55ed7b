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
//! - Nothing is inferred from a repository that cannot be read: the commit in force stays, and drift is still corrected.
//! - After SIGTERM nothing new begins. After the grace time, or a second signal, running steps are left (a migration goes
//!   on by itself and is adopted at the next start), and [`LEAVE_TIME`] later [`Daemon::run`] returns whatever happens.
//!
//! *Assumptions*: both traits may be slow but return when told to stop; time is tokio's, so that tests can pause it.

mod lock;
mod metrics;
mod runner;
mod signals;
mod source;
mod status;
mod watch;

pub use lock::{LockError, StateLock};
pub use metrics::Metrics;
pub use runner::Runner;
pub use signals::{Signal, listen};
pub use source::{Found, GitSource, RevisionSource};
pub use status::*;

use crate::config::Config;
use crate::execute::{Event, Stop};
use crate::finding::{Code, Finding};
use crate::observed::Observed;
use crate::plan::Plan;
use crate::source::git::GitError;
use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
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
    HostChanged {
        /// The host's name.
        host: String,
    },
}

/// How a pass tells what it does.
#[derive(Clone)]
pub struct PassWatch {
    status: channel::Sender<DaemonStatus>,
    plan: channel::Sender<Option<Arc<Plan>>>,
    metrics: Arc<Metrics>,
    stopped: Arc<Mutex<Option<StopReason>>>,
    /// The names of the actions of this pass's plan, by step.
    actions: Arc<Mutex<HashMap<String, &'static str>>>,
}

/// Why a pass was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A newer commit came.
    Superseded,
    /// The daemon is to end.
    ShuttingDown,
}

impl PassWatch {
    /// What goes on now. A pass that was asked to stop stays in [`Phase::Draining`].
    pub fn phase(&self, phase: Phase) {
        self.status.send_if_modified(|s| {
            let changed = s.phase != phase && s.phase != Phase::Draining;
            if changed {
                s.phase = phase;
            }
            changed
        });
    }

    /// What was observed.
    pub fn observed(&self, observed: &Observed) {
        self.status.send_modify(|s| s.observe(observed));
        self.metrics.hosts(&self.status.borrow());
    }

    /// What is going to be done.
    pub fn planned(&self, plan: Arc<Plan>) {
        let runnable = plan.steps.iter().filter(|s| !s.is_blocked()).count();
        self.status.send_modify(|s| {
            if let Some(pass) = &mut s.current {
                pass.steps_total = u32::try_from(runnable).unwrap_or(u32::MAX);
            }
        });
        let actions = plan.steps.iter().map(|s| (s.id.clone(), s.action.name())).collect();
        *self.actions.lock().unwrap_or_else(PoisonError::into_inner) = actions;
        self.plan.send_replace(Some(plan));
    }

    /// What happens to a step.
    pub fn event(&self, event: &Event) {
        self.status.send_modify(|s| s.step(event, Timestamp::now()));
        let action = match event {
            Event::Finished { step, .. } => {
                self.actions.lock().unwrap_or_else(PoisonError::into_inner).get(step).copied()
            }
            _ => None,
        };
        self.metrics.step(event, action);
    }

    /// Why the pass was asked to stop, if it was.
    pub fn stopped_because(&self) -> Option<StopReason> {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the daemon does what.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Between two polls.
    pub poll: Duration,
    /// Part of it by which each interval varies, 0 to 1.
    pub jitter: f64,
    /// Between two passes without a new commit.
    pub drift: Duration,
    /// How long running steps may go on after SIGTERM.
    pub grace: Duration,
    /// First pause after a pass that did not succeed; doubles up to `drift`.
    pub retry: Duration,
    /// How long to wait for the rest of a burst of file events.
    pub settle: Duration,
}

impl From<&Config> for Timing {
    fn from(config: &Config) -> Self {
        Self {
            poll: config.poll_interval,
            jitter: config.poll_jitter,
            drift: config.drift_interval,
            grace: config.grace_time,
            ..Self::default()
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(30),
            jitter: 0.1,
            drift: Duration::from_secs(300),
            grace: Duration::from_secs(30),
            retry: Duration::from_secs(5),
            settle: Duration::from_millis(50),
        }
    }
}

/// How long left steps and a fetch have to let go before the daemon ends without them.
pub const LEAVE_TIME: Duration = Duration::from_secs(5);
/// How often the loop shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Least time between two looks that a webhook or a file event asks for.
const LOOK_SPACING: Duration = Duration::from_millis(200);
/// How long to wait for more events of hosts, and how long after a pass: its own steps cause events, too.
const EVENT_SPACING: Duration = Duration::from_secs(2);
/// First pause after a fetch that failed; doubles up to the poll interval.
const FETCH_RETRY: Duration = Duration::from_secs(2);

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
    event_at: Option<Instant>,
    asked: bool,
    failures: u32,
    // The end.
    ending: Option<Ending>,
}

struct Ending {
    leave_at: Instant,
    left: bool,
}

struct RunningPass {
    request: PassRequest,
    found: Found,
    began: Instant,
    began_at: Timestamp,
    stop: Stop,
    stopped: Arc<Mutex<Option<StopReason>>>,
    task: JoinHandle<PassSummary>,
}

impl RunningPass {
    fn drain(&self, why: StopReason) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of the daemon is the stronger reason.
        if *stopped != Some(StopReason::ShuttingDown) {
            *stopped = Some(why);
        }
        self.stop.drain.cancel();
    }
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
        let (repository, reference, path) = source.describe();
        let (hint_sender, hints) = mpsc::channel(64);
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
            event_at: None,
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
                    Some(Hint::HostChanged { host }) => {
                        tracing::debug!(%host, "a host tells of a change");
                        self.state.event_at.get_or_insert(Instant::now() + EVENT_SPACING);
                    }
                    None => hints_open = false,
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    // ---- the repository

    fn look_no_later_than(&mut self, at: Instant) {
        let spaced = self.state.looked_at.map_or(at, |last| at.max(last + LOOK_SPACING));
        self.state.look_at = Some(self.state.look_at.map_or(spaced, |due| due.min(spaced)));
    }

    fn look_due(&self, now: Instant) -> bool {
        self.state.look_at.is_some_and(|at| at <= now) || self.state.poll_at <= now
    }

    fn start_fetch(
        &mut self,
        now: Instant,
        cancel: &CancellationToken,
    ) -> JoinHandle<(Result<Found, GitError>, Duration)> {
        self.state.look_at = None;
        self.state.looked_at = Some(now);
        self.state.poll_at = now + jittered(self.timing.poll, self.timing.jitter);
        let (source, cancel) = (self.source.clone(), cancel.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let result = source.fetch(&cancel).await;
            (result, began.elapsed())
        })
    }

    fn fetch_ended(&mut self, result: Result<(Result<Found, GitError>, Duration), tokio::task::JoinError>) {
        let now = Timestamp::now();
        let (result, took) = match result {
            Ok(both) => both,
            Err(e) => {
                let why = format!("the task that reads the repository ended: {e}");
                (Err(GitError::new(crate::source::git::GitErrorKind::Other, why)), Duration::ZERO)
            }
        };
        match result {
            Ok(found) => {
                self.metrics.fetched("ok", took, now);
                if self.state.fetch_failures > 0 {
                    tracing::info!(after_failures = self.state.fetch_failures, "the repository can be read again");
                }
                self.state.fetch_failures = 0;
                self.status.send_modify(|s| {
                    s.fetch.succeeded_at = Some(now);
                    s.fetch.error = None;
                });
                self.arm_watch();
                self.see(found, now);
            }
            Err(e) => {
                self.metrics.fetched(&e.kind.to_string(), took, now);
                self.state.fetch_failures += 1;
                let failures = self.state.fetch_failures;
                let pause = FETCH_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.timing.poll);
                self.state.poll_at = Instant::now() + jittered(pause, self.timing.jitter);
                let in_force = self.state.good.as_ref().map_or("none", |g| &g.commit);
                // Once is news, the same every half minute is noise.
                if failures.is_power_of_two() {
                    tracing::error!(
                        kind = %e.kind, failures, in_force, hint = e.hint.as_deref().unwrap_or_default(),
                        "the repository cannot be read: {e}"
                    );
                }
                self.status.send_modify(|s| {
                    let since = s.fetch.error.as_ref().map_or(now, |e| e.since);
                    s.fetch.error =
                        Some(FetchError { kind: e.kind, message: e.message, hint: e.hint, since, failures });
                });
            }
        }
    }

    /// Takes note of the commit that a fetch found.
    fn see(&mut self, found: Found, now: Timestamp) {
        if found.made_anew {
            tracing::warn!(commit = %found.commit, "the mirror was damaged and has been made anew");
        }
        if self.state.tip.as_ref().is_some_and(|tip| tip.commit == found.commit) {
            // What the damaged mirror made of a commit is not its last word.
            self.state.checked &= !found.made_anew;
            return;
        }
        if found.rewritten {
            self.metrics.rewritten();
            tracing::warn!(
                commit = %found.commit,
                before = self.state.tip.as_ref().map(|t| t.commit.as_str()).unwrap_or_default(),
                "history was rewritten: the new commit does not descend from the one before; it is followed"
            );
        }
        tracing::info!(commit = %found.commit, "new commit");
        self.status.send_modify(|s| {
            s.revision = Some(SeenRevision { commit: found.commit.clone(), seen_at: now, rewritten: found.rewritten });
        });
        self.state.tip = Some(found);
        self.state.checked = false;
    }

    fn arm_watch(&mut self) {
        if self.watch.as_ref().is_some_and(watch::RefWatch::is_current) {
            return;
        }
        self.watch = self.source.watched().and_then(|dir| match watch::RefWatch::start(&dir, self.changed.clone()) {
            Ok(watch) => Some(watch),
            Err(e) => {
                tracing::warn!(dir = %dir.display(), error = %e, "pushes are noticed by polling only");
                None
            }
        });
        let watching = self.watch.is_some();
        self.status.send_modify(|s| s.fetch.watching = watching);
    }

    // ---- checking

    fn start_check(&mut self) -> Option<(Found, JoinHandle<Checked>)> {
        self.state.checked = true;
        let found = self.state.tip.clone()?;
        let (runner, commit) = (self.runner.clone(), found.commit.clone());
        Some((found, tokio::spawn(async move { runner.check(&commit).await })))
    }

    async fn check_ended(
        &mut self,
        found: Found,
        result: Result<Checked, tokio::task::JoinError>,
        pass: Option<&RunningPass>,
    ) {
        match result {
            Ok(Checked::Valid) => self.accept(found, pass).await,
            Ok(Checked::Invalid(findings)) => {
                // That may be the disk's fault and not the commit's: the next fetch finds out.
                if findings.iter().any(|f| f.code == Code::Unreadable) {
                    self.source.distrust();
                }
                self.reject(found.commit, findings);
            }
            Ok(Checked::Unreadable(why)) => self.unreadable(&found.commit, &why),
            Err(e) => self.unreadable(&found.commit, &format!("checking it ended early: {e}")),
        }
    }

    /// Puts a commit into force.
    async fn accept(&mut self, found: Found, pass: Option<&RunningPass>) {
        let commit = found.commit.clone();
        self.metrics.valid(true);
        if let Err(e) = self.source.mark_good(&commit).await {
            tracing::warn!(%commit, error = %e, "the commit in force could not be remembered for the next start");
        }
        let same = |tree: &Option<String>| tree.is_some() && *tree == found.tree;
        if let Some(before) = &self.state.good
            && before.commit != commit
            && same(&before.tree)
        {
            tracing::info!(%commit, "the new commit changes nothing in the followed folder");
            for known in [&mut self.state.attempted, &mut self.state.settled] {
                if known.as_ref() == Some(&before.commit) {
                    *known = Some(commit.clone());
                }
            }
        }
        if let Some(pass) = pass
            && pass.request.commit != commit
            && !same(&pass.found.tree)
        {
            tracing::info!(%commit, superseded = %pass.request.commit, "a newer commit: the running pass starts nothing new");
            pass.drain(StopReason::Superseded);
            self.status.send_modify(|s| s.phase = Phase::Draining);
        }
        if self.state.good.as_ref().is_none_or(|before| before.commit != commit) {
            // What failed before belongs to the old commit.
            self.state.failures = 0;
            self.state.retry_at = None;
        }
        self.state.good = Some(found);
        self.status.send_modify(|s| s.invalid = None);
    }

    /// Leaves the last good commit in force.
    fn reject(&mut self, commit: String, findings: Vec<Finding>) {
        let errors = findings.iter().filter(|f| f.is_error()).count();
        let in_force = self.state.good.as_ref().map_or("none", |g| &g.commit);
        tracing::error!(%commit, errors, in_force, "the new commit is invalid and changes nothing");
        for finding in findings.iter().filter(|f| f.is_error()).take(20) {
            let place = finding.source.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::error!(code = %finding.code, %place, "{}", finding.message);
        }
        self.metrics.valid(false);
        self.status.send_modify(|s| s.invalid = Some(InvalidRevision { commit, since: Timestamp::now(), findings }));
    }

    /// The files of a commit cannot be read: the mirror is looked at, and the commit is tried again.
    fn unreadable(&mut self, commit: &str, why: &str) {
        tracing::error!(%commit, why, "the commit could not be read; the mirror is checked");
        self.source.distrust();
        self.state.failures += 1;
        self.state.tip = None;
        self.state.checked = true;
        let pause = self.backoff();
        let at = Instant::now() + pause;
        self.state.look_at = Some(self.state.look_at.map_or(at, |due| due.max(at)));
    }

    // ---- passes

    /// Begins a pass if one is due.
    fn start_pass(&mut self, now: Instant) -> Option<RunningPass> {
        let found = self.state.good.clone()?;
        // At the start the repository is asked first; what was in force before is used only if that fails.
        let nothing_failed = self.state.fetch_failures == 0 && self.state.failures == 0;
        if self.state.tip.is_none() && nothing_failed && self.state.attempted.is_none() {
            return None;
        }
        let commit = found.commit.clone();
        let is_new = self.state.attempted.as_ref() != Some(&commit);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let reason = if is_new && self.state.attempted.is_none() {
            Reason::FirstPass
        } else if is_new {
            Reason::Commit
        } else if self.state.asked {
            Reason::Requested
        } else if due(self.state.retry_at) {
            Reason::Retry
        } else if due(self.state.event_at) {
            Reason::HostEvent
        } else if self.state.drift_at <= now {
            Reason::Drift
        } else {
            return None;
        };
        let drift_only = self.state.settled.as_ref() == Some(&commit);
        (self.state.asked, self.state.event_at, self.state.retry_at) = (false, None, None);
        self.state.attempted = Some(commit.clone());
        let began_at = Timestamp::now();
        let request = PassRequest { commit, reason, drift_only };
        tracing::info!(commit = %request.commit, ?reason, drift_only, "a pass begins");
        self.status.send_modify(|s| {
            s.phase = Phase::Observing;
            s.current = Some(CurrentPass {
                commit: request.commit.clone(),
                reason,
                drift_only,
                began_at,
                steps: std::collections::BTreeMap::new(),
                steps_done: 0,
                steps_failed: 0,
                steps_total: 0,
            });
        });
        let stop = Stop::default();
        let stopped = Arc::new(Mutex::new(None));
        let watch = PassWatch {
            status: self.status.clone(),
            plan: self.plan.clone(),
            metrics: self.metrics.clone(),
            stopped: stopped.clone(),
            actions: Arc::default(),
        };
        let (runner, asked, given) = (self.runner.clone(), request.clone(), stop.clone());
        let task = tokio::spawn(async move { runner.run(asked, watch, given).await });
        Some(RunningPass { request, found, began: now, began_at, stop, stopped, task })
    }

    fn pass_ended(&mut self, pass: RunningPass, summary: Result<PassSummary, tokio::task::JoinError>) {
        let stopped = *pass.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let mut summary = summary.unwrap_or_else(|e| PassSummary {
            result: PassResult::Failed,
            error: Some(format!("the pass ended by a fault of Drover's own: {e}")),
            ..PassSummary::default()
        });
        // A pass that was told to stop did not fail, whatever it left undone.
        summary.result = match (summary.result, stopped) {
            (PassResult::Succeeded, _) | (_, None) => summary.result,
            (_, Some(StopReason::Superseded)) => PassResult::Superseded,
            (_, Some(StopReason::ShuttingDown)) => PassResult::Interrupted,
        };
        let (now, ended_at) = (Instant::now(), Timestamp::now());
        let commit = pass.request.commit.clone();
        let current = self
            .state
            .good
            .as_ref()
            .is_some_and(|g| g.commit == commit || g.tree.is_some() && g.tree == pass.found.tree);
        self.state.drift_at = now + jittered(self.timing.drift, self.timing.jitter / 2.0);
        match summary.result {
            PassResult::Succeeded => {
                self.state.failures = 0;
                self.state.settled =
                    if current { self.state.good.as_ref().map(|g| g.commit.clone()) } else { Some(commit.clone()) };
            }
            PassResult::Superseded | PassResult::Interrupted => {}
            PassResult::Invalid => {
                self.reject(commit.clone(), summary.findings.clone());
            }
            PassResult::Unreadable => {
                self.unreadable(&commit, summary.error.as_deref().unwrap_or("its files could not be read"));
            }
            PassResult::Incomplete | PassResult::Failed => {
                if summary.result == PassResult::Failed {
                    self.state.failures += 1;
                }
            }
        }
        // Waiting is no failure: it ends with the next pass for drift, an event, or when the runner says.
        let pause = match (&summary.again_at, summary.result) {
            (Some(at), _) => Some(until(*at, ended_at)),
            (None, PassResult::Failed | PassResult::Unreadable) => Some(self.backoff()),
            (None, _) => None,
        };
        self.state.retry_at = pause.map(|p| now + p);
        if let Some(at) = &mut self.state.event_at {
            *at = (*at).max(now + EVENT_SPACING);
        }
        let failures = self.state.failures;
        let took = now - pass.began;
        let result = summary.result;
        let error = summary.error.clone().unwrap_or_default();
        let took_millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match result {
            PassResult::Succeeded | PassResult::Superseded | PassResult::Interrupted => {
                tracing::info!(%commit, result = result.as_str(), took_millis, steps = summary.outcomes.len(), "the pass ended");
            }
            _ => tracing::warn!(%commit, result = result.as_str(), took_millis, failures, %error, "the pass ended"),
        }
        self.status.send_modify(|s| {
            s.current = None;
            s.failures = failures;
            s.last = Some(LastPass {
                commit,
                reason: pass.request.reason,
                drift_only: pass.request.drift_only,
                began_at: pass.began_at,
                ended_at,
                summary: summary.clone(),
            });
        });
        self.metrics.passed(&summary, took, &self.status.borrow(), ended_at);
    }

    fn backoff(&self) -> Duration {
        let doubled = self.timing.retry.saturating_mul(1 << self.state.failures.saturating_sub(1).min(16));
        jittered(doubled.min(self.timing.drift), self.timing.jitter)
    }

    // ---- time and the end

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
            due.extend(self.state.event_at);
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

/// How long until a moment of the wall clock: at least a second, so that a clock that is off makes no tight loop, and at
/// most a day, so that it puts nothing off for ever.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now))
        .unwrap_or_default()
        .clamp(Duration::from_secs(1), Duration::from_secs(86_400))
}

/// A duration lengthened or shortened at random by up to `part` of itself, so that many daemons do not ask at once.
fn jittered(duration: Duration, part: f64) -> Duration {
    // The standard library's hash keys are random for each use: enough for this, without a generator.
    let random = RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64;
    duration.mul_f64((1.0 + part.clamp(0.0, 1.0) * (random * 2.0 - 1.0)).max(0.01))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_part() {
        let base = Duration::from_secs(100);
        let many: Vec<f64> = (0..200).map(|_| jittered(base, 0.1).as_secs_f64()).collect();
        assert!(many.iter().all(|s| (90.0..=110.0).contains(s)));
        assert!(many.iter().any(|s| *s < 98.0) && many.iter().any(|s| *s > 102.0));
        assert_eq!(jittered(base, 0.0), base);
    }

    #[test]
    fn a_clock_that_is_off_neither_spins_nor_waits_for_ever() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(until(Timestamp::from_second(10).unwrap(), now), Duration::from_secs(1));
        assert_eq!(until(Timestamp::from_second(1_000_030).unwrap(), now), Duration::from_secs(30));
        assert_eq!(until(Timestamp::from_second(9_000_000_000).unwrap(), now), Duration::from_secs(86_400));
    }
}
