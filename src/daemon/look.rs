//! Looking at the repository: when, and what a look brought.

use super::timing::{FETCH_RETRY, LOOK_SPACING, jittered};
use super::*;

impl Daemon {
    /// Has the repository looked at by `at`, but not right after the last look.
    pub(super) fn look_no_later_than(&mut self, at: Instant) {
        let spaced = self.state.looked_at.map_or(at, |last| at.max(last + LOOK_SPACING));
        self.state.look_at = Some(self.state.look_at.map_or(spaced, |due| due.min(spaced)));
    }

    /// Whether it is time to look.
    pub(super) fn look_due(&self, now: Instant) -> bool {
        self.state.look_at.is_some_and(|at| at <= now) || self.state.poll_at <= now
    }

    /// Begins to look.
    pub(super) fn start_fetch(
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

    /// Takes what a look brought, and says when the next one is.
    pub(super) fn fetch_ended(&mut self, result: Result<(Result<Found, GitError>, Duration), tokio::task::JoinError>) {
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
    pub(super) fn see(&mut self, found: Found, now: Timestamp) {
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

    /// Watches the repository's folder for pushes, where it is a local one.
    pub(super) fn arm_watch(&mut self) {
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
}
