//! Checking a commit, and putting it into force.

use super::*;

impl Daemon {
    /// Begins to check the newest commit.
    pub(super) fn start_check(&mut self) -> Option<(Found, JoinHandle<Checked>)> {
        self.state.checked = true;
        let found = self.state.tip.clone()?;
        let (runner, commit) = (self.runner.clone(), found.commit.clone());
        Some((found, tokio::spawn(async move { runner.check(&commit).await })))
    }

    /// Takes the result of a check.
    pub(super) async fn check_ended(
        &mut self,
        found: Found,
        result: Result<Checked, tokio::task::JoinError>,
        pass: Option<&RunningPass>,
    ) {
        match result {
            Ok(Checked::Valid) => self.accept(found, pass).await,
            Ok(Checked::Invalid(findings)) => self.reject(found.commit, findings),
            Ok(Checked::Unreadable(why)) => self.unreadable(&found.commit, &why),
            Err(e) => self.unreadable(&found.commit, &format!("checking it ended early: {e}")),
        }
    }

    /// Puts a commit into force.
    pub(super) async fn accept(&mut self, found: Found, pass: Option<&RunningPass>) {
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
            if let Some(plan) = self.plan.borrow().clone() {
                let (runner, newer, orders) = (self.runner.clone(), commit.clone(), pass.stop.orders.clone());
                // It ends with the pass that it speaks to: nobody hears it after that.
                tokio::spawn(async move { orders.give(runner.orders(&newer, plan).await) });
            }
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
    pub(super) fn reject(&mut self, commit: String, findings: Vec<Finding>) {
        // That may be the disk's fault and not the commit's: the next fetch finds out.
        if findings.iter().any(|f| f.code == Code::Unreadable) {
            self.source.distrust();
        }
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
    pub(super) fn unreadable(&mut self, commit: &str, why: &str) {
        tracing::error!(%commit, why, "the commit could not be read; the mirror is checked");
        self.source.distrust();
        self.state.failures += 1;
        self.state.tip = None;
        self.state.checked = true;
        let pause = self.backoff();
        let at = Instant::now() + pause;
        self.state.look_at = Some(self.state.look_at.map_or(at, |due| due.max(at)));
    }
}
