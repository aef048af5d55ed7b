//! Passes: when one is due, how it begins, and what its end means for the next.

use super::timing::{jittered, until};
use super::*;

/// The pass that runs, and with what.
pub(super) struct RunningPass {
    pub(super) request: PassRequest,
    pub(super) found: Found,
    pub(super) began: Instant,
    pub(super) began_at: Timestamp,
    pub(super) stop: Stop,
    pub(super) stopped: Arc<Mutex<Option<StopReason>>>,
    pub(super) task: JoinHandle<PassSummary>,
}

impl RunningPass {
    /// Has the pass begin nothing new.
    pub(super) fn drain(&self, why: StopReason) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of the daemon is the stronger reason.
        if *stopped != Some(StopReason::ShuttingDown) {
            *stopped = Some(why);
        }
        self.stop.drain.cancel();
    }
}
impl Daemon {
    /// Takes what a host tells.
    pub(super) fn host_changed(&mut self, HostChange { host, at }: HostChange) {
        let read_at = self.readings.lock().unwrap_or_else(PoisonError::into_inner).complete.get(&host).copied();
        let news = self.state.changes.told(host.clone(), at, read_at, Instant::now());
        self.metrics.host_change(news);
        tracing::debug!(host, news, "a host tells of a change");
    }

    /// Begins a pass if one is due.
    pub(super) fn start_pass(&mut self, now: Instant) -> Option<RunningPass> {
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
        } else if due(self.state.changes.due()) {
            Reason::HostEvent
        } else if self.state.drift_at <= now {
            Reason::Drift
        } else {
            return None;
        };
        let drift_only = self.state.settled.as_ref() == Some(&commit);
        (self.state.asked, self.state.retry_at) = (false, None);
        self.state.changes.pass_begins(reason == Reason::HostEvent, now);
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
            readings: self.readings.clone(),
        };
        let (runner, asked, given) = (self.runner.clone(), request.clone(), stop.clone());
        let task = tokio::spawn(async move { runner.run(asked, watch, given).await });
        Some(RunningPass { request, found, began: now, began_at, stop, stopped, task })
    }

    /// Takes what a pass did, and says when the next one is.
    pub(super) fn pass_ended(&mut self, pass: RunningPass, summary: Result<PassSummary, tokio::task::JoinError>) {
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
        self.state.changes.pass_ended(&self.readings.lock().unwrap_or_else(PoisonError::into_inner).complete, now);
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
            // Whoever looks now sees no pass that executes without being there.
            s.phase = Phase::Idle;
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

    /// The pause after as many failures in a row as there were.
    pub(super) fn backoff(&self) -> Duration {
        let doubled = self.timing.retry.saturating_mul(1 << self.state.failures.saturating_sub(1).min(16));
        jittered(doubled.min(self.timing.drift), self.timing.jitter)
    }
}
