//! Every metric, its name and its labels. No label takes a value from a repository or a host, so that their number is
//! bounded whatever anybody writes.

use super::status::{DaemonStatus, PassSummary};
use crate::execute::Event;
use crate::journal::Outcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStep {
    action: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOperation {
    operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReading {
    reading: String,
}

/// The daemon's metrics.
pub struct Metrics {
    registry: Registry,
    passes: Family<ByResult, Counter>,
    pass_seconds: Histogram,
    steps: Family<ByStep, Counter>,
    step_seconds: Histogram,
    steps_running: Gauge,
    fetches: Family<ByResult, Counter>,
    fetch_seconds: Histogram,
    rewritten: Counter,
    webhooks: Family<ByResult, Counter>,
    host_changes: Family<ByResult, Counter>,
    last_fetch: Gauge<f64, AtomicU64>,
    last_pass: Gauge<f64, AtomicU64>,
    last_success: Gauge<f64, AtomicU64>,
    plan_resources: Family<ByOperation, Gauge>,
    hosts: Family<ByReading, Gauge>,
    revision_valid: Gauge,
    in_sync: Gauge,
    failures: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let short = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
        let long = [0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
        let mut m = Self {
            registry: Registry::with_prefix("drover"),
            passes: Family::default(),
            pass_seconds: Histogram::new(long),
            steps: Family::default(),
            step_seconds: Histogram::new(long),
            steps_running: Gauge::default(),
            fetches: Family::default(),
            fetch_seconds: Histogram::new(short),
            rewritten: Counter::default(),
            webhooks: Family::default(),
            host_changes: Family::default(),
            last_fetch: Gauge::default(),
            last_pass: Gauge::default(),
            last_success: Gauge::default(),
            plan_resources: Family::default(),
            hosts: Family::default(),
            revision_valid: Gauge::default(),
            in_sync: Gauge::default(),
            failures: Gauge::default(),
        };
        let r = &mut m.registry;
        r.register("build", "Version of Drover", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("passes", "Passes by how they ended", m.passes.clone());
        r.register_with_unit("pass_duration", "How long passes took", Unit::Seconds, m.pass_seconds.clone());
        r.register("steps", "Steps by action and outcome", m.steps.clone());
        r.register_with_unit("step_duration", "How long steps took", Unit::Seconds, m.step_seconds.clone());
        r.register("steps_running", "Steps that run now", m.steps_running.clone());
        r.register("fetches", "Fetches by result: ok, or the sort of error", m.fetches.clone());
        r.register_with_unit("fetch_duration", "How long fetches took", Unit::Seconds, m.fetch_seconds.clone());
        r.register("history_rewritten", "New commits that did not descend from the one before", m.rewritten.clone());
        r.register("webhooks", "Webhook calls by result", m.webhooks.clone());
        r.register(
            "host_changes",
            "Changes that hosts told of: news, or known because the host was read since",
            m.host_changes.clone(),
        );
        r.register("last_fetch_timestamp_seconds", "When the repository answered last", m.last_fetch.clone());
        r.register("last_pass_timestamp_seconds", "When a pass ended last", m.last_pass.clone());
        r.register("last_success_timestamp_seconds", "When a pass succeeded last", m.last_success.clone());
        r.register("plan_resources", "Resources of the last plan by what happens to them", m.plan_resources.clone());
        r.register("hosts", "Hosts by whether they could be read: known, unknown", m.hosts.clone());
        r.register(
            "revision_valid",
            "1 when the newest commit is valid, 0 when it is not in force",
            m.revision_valid.clone(),
        );
        r.register("in_sync", "1 when the last pass found or made everything as Git says", m.in_sync.clone());
        r.register("failures_in_a_row", "Passes that did not succeed, in a row", m.failures.clone());
        // Series that alerts are written on are there from the beginning.
        for result in ["succeeded", "failed", "incomplete"] {
            let _ = m.passes.get_or_create(&ByResult { result: result.into() });
        }
        let _ = m.fetches.get_or_create(&ByResult { result: "ok".into() });
        for result in ["news", "known"] {
            let _ = m.host_changes.get_or_create(&ByResult { result: result.into() });
        }
        m.revision_valid.set(1);
        m
    }
}

fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

impl Metrics {
    /// In the OpenMetrics text form.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(super) fn fetched(&self, result: &str, took: Duration, at: jiff::Timestamp) {
        self.fetches.get_or_create(&ByResult { result: result.into() }).inc();
        self.fetch_seconds.observe(took.as_secs_f64());
        if result == "ok" {
            self.last_fetch.set(seconds(at));
        }
    }

    pub(super) fn host_change(&self, news: bool) {
        let result = if news { "news" } else { "known" };
        self.host_changes.get_or_create(&ByResult { result: result.into() }).inc();
    }

    pub(super) fn rewritten(&self) {
        self.rewritten.inc();
    }

    pub(super) fn valid(&self, valid: bool) {
        self.revision_valid.set(i64::from(valid));
    }

    pub(super) fn step(&self, event: &Event, action: Option<&str>) {
        match event {
            Event::Started { .. } => {
                self.steps_running.inc();
            }
            Event::Finished { outcome, took, .. } => {
                self.steps_running.dec();
                self.step_seconds.observe(took.as_secs_f64());
                let outcome = match outcome {
                    Outcome::Done => "done",
                    Outcome::AlreadyDone => "already-done",
                    Outcome::Refused { .. } => "refused",
                    Outcome::Failed { .. } => "failed",
                    Outcome::Interrupted => "interrupted",
                    Outcome::Skipped { .. } => "skipped",
                };
                let action = action.unwrap_or("unknown");
                self.steps.get_or_create(&ByStep { action: action.into(), outcome: outcome.into() }).inc();
            }
            Event::Progress { .. } | Event::Noted { .. } | Event::Retrying { .. } => {}
        }
    }

    pub(super) fn passed(&self, summary: &PassSummary, took: Duration, status: &DaemonStatus, at: jiff::Timestamp) {
        use super::status::PassResult::Succeeded;
        self.passes.get_or_create(&ByResult { result: summary.result.as_str().into() }).inc();
        self.pass_seconds.observe(took.as_secs_f64());
        self.last_pass.set(seconds(at));
        if summary.result == Succeeded {
            self.last_success.set(seconds(at));
        }
        self.in_sync.set(i64::from(summary.result == Succeeded));
        self.failures.set(i64::from(status.failures));
        // A pass that was cut off does not report the end of every step.
        self.steps_running.set(0);
        if let Some(c) = &summary.counts {
            for (operation, n) in [
                ("create", c.create),
                ("update", c.update),
                ("migrate", c.migrate),
                ("delete", c.delete),
                ("run", c.run),
                ("unchanged", c.unchanged),
                ("blocked", c.blocked),
                ("unknown", c.unknown),
            ] {
                self.plan_resources.get_or_create(&ByOperation { operation: operation.into() }).set(i64::from(n));
            }
        }
        self.hosts(status);
    }

    pub(super) fn hosts(&self, status: &DaemonStatus) {
        let known = status.hosts.values().filter(|h| h.known).count();
        for (reading, n) in [("known", known), ("unknown", status.hosts.len() - known)] {
            self.hosts.get_or_create(&ByReading { reading: reading.into() }).set(i64::try_from(n).unwrap_or(i64::MAX));
        }
    }

    /// Counts a webhook call; `result` is one of a fixed set of words.
    pub(crate) fn webhook(&self, result: &'static str) {
        self.webhooks.get_or_create(&ByResult { result: result.into() }).inc();
    }
}
