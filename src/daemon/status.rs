//! What the daemon is doing, as one plain value: published on a watch channel, served by http, shown by the CLI.

use super::moves::MoveRun;
use crate::execute::Event;
use crate::finding::Finding;
use crate::journal::Outcome;
use crate::model::ResourceId;
use crate::observed::{Observed, Progress, Reading};
use crate::plan::{Health, MoveCounts, Plan, Summary, Sync};
use crate::source::git::GitErrorKind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the status' JSON form; keys are only added within a major version.
pub const STATUS_VERSION: &str = "1.0";

/// The whole status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonStatus {
    /// Version of this form.
    pub format_version: String,
    /// Drover's version.
    pub version: String,
    /// When the daemon began.
    pub started_at: Option<Timestamp>,
    /// Its process.
    pub pid: u32,
    /// The repository, without credentials.
    pub repository: String,
    /// What of it is followed.
    pub reference: String,
    /// The folder in it.
    pub path: String,
    /// What goes on.
    pub phase: Phase,
    /// The newest commit that was seen.
    pub revision: Option<SeenRevision>,
    /// The commit in force: the newest one whose manifests are valid.
    pub good: Option<String>,
    /// The newest commit that was carried out completely.
    pub settled: Option<String>,
    /// Why the newest commit is not in force, where it is not.
    pub invalid: Option<InvalidRevision>,
    /// How fetching goes.
    pub fetch: FetchStatus,
    /// The pass that runs.
    pub current: Option<CurrentPass>,
    /// The pass that ended last.
    pub last: Option<LastPass>,
    /// Hosts as they were read last.
    pub hosts: BTreeMap<String, HostReading>,
    /// Clusters as they were read last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clusters: BTreeMap<String, ClusterReading>,
    /// Resources as they were compared last.
    pub resources: ResourceStates,
    /// When drift is looked for next.
    pub next_drift_at: Option<Timestamp>,
    /// When what failed is tried again.
    pub retry_at: Option<Timestamp>,
    /// Passes that did not succeed, in a row.
    pub failures: u32,
}

/// Sync and health of the resources of the commit that was planned last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceStates {
    /// Resources by sync state; states that no resource is in are left out.
    pub sync: BTreeMap<String, u32>,
    /// Resources by health.
    pub health: BTreeMap<String, u32>,
    /// Those that are not both `Synced` and `Healthy`, and those that move machines, at most [`NOTABLE`] of them.
    pub notable: Vec<ResourceStatus>,
}

/// Most resources that the status names one by one.
pub const NOTABLE: usize = 100;

/// Sync and health of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// Which.
    pub resource: ResourceId,
    /// Does the world match Git?
    pub sync: Sync,
    /// Does it do what it should?
    pub health: Health,
    /// Why something about it is held back, and the way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// How far it is, of a resource that moves machines: those are named also when nothing is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<MoveCounts>,
    /// How its last run went, of a resource that moves machines and has moved one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<MoveRun>,
}

impl ResourceStates {
    /// Notes how the last runs went of those that move machines.
    pub(super) fn ran(&mut self, runs: &BTreeMap<String, MoveRun>) {
        for one in self.notable.iter_mut().filter(|one| one.moves.is_some()) {
            one.run = runs.get(&one.resource.to_string()).cloned();
        }
    }

    /// Counts what a plan found.
    pub(super) fn of(plan: &Plan) -> Self {
        let mut states = Self::default();
        let mut held: BTreeMap<&ResourceId, &crate::plan::Block> = BTreeMap::new();
        for step in &plan.steps {
            if let Some(block) = step.blocked_by.first() {
                held.entry(&step.resource).or_insert(block);
            }
        }
        for report in &plan.resources {
            *states.sync.entry(format!("{:?}", report.sync)).or_default() += 1;
            *states.health.entry(format!("{:?}", report.health)).or_default() += 1;
            let is_fine = report.sync == Sync::Synced && report.health == Health::Healthy;
            if (!is_fine || report.moves.is_some()) && states.notable.len() < NOTABLE {
                let (resource, sync, health) = (report.id(), report.sync, report.health);
                let held_back = held.get(&resource).map(|b| format!("{}; {}", b.reason, b.way_out));
                let moves = report.moves;
                states.notable.push(ResourceStatus { resource, sync, health, held_back, moves, run: None });
            }
        }
        states
    }
}

/// What goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waiting for something to happen.
    #[default]
    Idle,
    /// Asking the repository for news.
    Fetching,
    /// Checking the manifests of a new commit.
    Loading,
    /// Reading the hosts.
    Observing,
    /// Comparing.
    Planning,
    /// Carrying a plan out.
    Executing,
    /// Letting running steps end, because a newer commit came or the daemon was asked to stop.
    Draining,
}

/// A commit of the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenRevision {
    /// Its id.
    pub commit: String,
    /// When it was seen first.
    pub seen_at: Timestamp,
    /// Whether it does not descend from the one before: somebody pushed with force.
    pub rewritten: bool,
}

/// A commit that changes nothing, because it has errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvalidRevision {
    /// Its id.
    pub commit: String,
    /// When that was found.
    pub since: Timestamp,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// How fetching goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FetchStatus {
    /// When the repository answered last.
    pub succeeded_at: Option<Timestamp>,
    /// Why it does not answer now.
    pub error: Option<FetchError>,
    /// When it is asked next, unless something else tells of news.
    pub next_at: Option<Timestamp>,
    /// Whether changes of a local repository are noticed at once.
    pub watching: bool,
}

/// Why the repository cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchError {
    /// The sort of error.
    pub kind: GitErrorKind,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Attempts in a row.
    pub failures: u32,
}

/// A pass that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CurrentPass {
    /// The commit that it carries out.
    pub commit: String,
    /// Why it runs.
    pub reason: Reason,
    /// Whether it only looks for drift.
    pub drift_only: bool,
    /// When it began.
    pub began_at: Timestamp,
    /// Steps that run now, by id.
    pub steps: BTreeMap<String, StepStatus>,
    /// Steps that ended well.
    pub steps_done: u32,
    /// Steps that ended otherwise.
    pub steps_failed: u32,
    /// Steps of the plan.
    pub steps_total: u32,
}

/// A step that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Its resource.
    pub resource: ResourceId,
    /// Its one-line summary.
    pub summary: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How far it is.
    pub progress: Option<Progress>,
    /// What its last attempt failed with, while it waits for the next.
    pub retrying: Option<String>,
}

/// Why a pass runs. For people; it decides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The daemon has just started.
    FirstPass,
    /// A new commit.
    Commit,
    /// The last pass did not succeed.
    Retry,
    /// It was time to look for drift.
    Drift,
    /// A host told that something changed.
    HostEvent,
    /// Somebody asked (SIGHUP).
    Requested,
}

/// A pass that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastPass {
    /// The commit that it carried out.
    pub commit: String,
    /// Why it ran.
    pub reason: Reason,
    /// Whether it only looked for drift.
    pub drift_only: bool,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How it ended, and what it did.
    #[serde(flatten)]
    pub summary: PassSummary,
}

/// How a pass ended, and what it did: the answer of a [`super::PassRunner`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PassSummary {
    /// How it ended.
    pub result: PassResult,
    /// What went wrong with the pass as a whole.
    pub error: Option<String>,
    /// The plan's hash.
    pub plan_hash: Option<String>,
    /// The plan's counts.
    pub counts: Option<Summary>,
    /// Steps that were begun, by id, and how they ended.
    pub outcomes: BTreeMap<String, Outcome>,
    /// What there is to say.
    pub findings: Vec<Finding>,
    /// Steps that rest after a failure, by id.
    pub backing_off: BTreeMap<String, Resting>,
    /// When to try again; the daemon backs off by itself where that is not said.
    pub again_at: Option<Timestamp>,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PassResult {
    /// Everything is as Git says.
    Succeeded,
    /// Something waits: a host that could not be read, a guard rail, a window.
    Incomplete,
    /// Something failed.
    #[default]
    Failed,
    /// It ended early because a newer commit came.
    Superseded,
    /// It ended early because the daemon was asked to stop.
    Interrupted,
    /// The manifests have errors after all.
    Invalid,
    /// The commit's files could not be read: the mirror is damaged.
    Unreadable,
}

impl PassResult {
    /// As a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Interrupted => "interrupted",
            Self::Invalid => "invalid",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A step that rests after a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resting {
    /// Not before.
    pub until: Timestamp,
    /// What it failed with.
    pub error: String,
    /// How often in a row.
    pub failures: u32,
}

/// A host as it was read last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReading {
    /// Whether it could be read.
    pub known: bool,
    /// Why not.
    pub why: Option<String>,
    /// When it was read, or was tried to be.
    pub read_at: Timestamp,
    /// Since when it has been as `known` says.
    pub since: Timestamp,
    /// Domains on it.
    pub domains: usize,
}

/// A cluster as it was read last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterReading {
    /// Whether it could be read.
    pub known: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it was read, or was tried to be.
    pub read_at: Timestamp,
    /// Since when it has been as `known` says.
    pub since: Timestamp,
    /// `openshift-4.10`, `kubernetes-1.29`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// When the credentials that reach it end, where they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_end: Option<Timestamp>,
    /// How many of the rights that Drover needs there it does not have.
    pub denied: usize,
}

impl DaemonStatus {
    /// Takes over what was observed.
    pub(super) fn observe(&mut self, observed: &Observed) {
        let mut before = std::mem::take(&mut self.hosts);
        for (name, reading) in &observed.hosts {
            let (known, why, domains) = match reading {
                Reading::Present(state) => (true, None, state.domains.len()),
                Reading::Unknown { why } => (false, Some(why.clone()), 0),
            };
            let read_at = observed.taken_at;
            let since = before.remove(name).filter(|b| b.known == known).map_or(read_at, |b| b.since);
            self.hosts.insert(name.clone(), HostReading { known, why, read_at, since, domains });
        }
        let mut before = std::mem::take(&mut self.clusters);
        for (name, reading) in &observed.clusters {
            let read_at = observed.taken_at;
            let state = match reading {
                Reading::Present(state) => Ok(state),
                Reading::Unknown { why } => Err(why.clone()),
            };
            let known = state.is_ok();
            let since = before.remove(name).filter(|b| b.known == known).map_or(read_at, |b| b.since);
            let read = ClusterReading {
                known,
                why: state.as_ref().err().cloned(),
                read_at,
                since,
                platform: state.as_ref().map(|s| s.platform.clone()).unwrap_or_default(),
                credentials_end: state.as_ref().ok().and_then(|s| s.credentials_end),
                denied: state.as_ref().map_or(0, |s| s.denied.len()),
            };
            self.clusters.insert(name.clone(), read);
        }
    }

    /// Counts a move that begins or ends at the resource for whose sake it is made. Before [`DaemonStatus::step`].
    pub(super) fn count_move(&mut self, event: &Event) {
        let resource = match event {
            Event::Started { resource, .. } => Some(resource),
            Event::Finished { step, .. } => {
                self.current.as_ref().and_then(|pass| pass.steps.get(step)).map(|s| &s.resource)
            }
            _ => None,
        };
        let Some(resource) = resource else { return };
        let one = self.resources.notable.iter_mut().find(|one| one.resource == *resource);
        let Some(counts) = one.and_then(|one| one.moves.as_mut()) else { return };
        match event {
            Event::Started { .. } if counts.waiting > 0 => {
                counts.waiting -= 1;
                counts.moving += 1;
            }
            Event::Finished { outcome, .. } if counts.moving > 0 => {
                counts.moving -= 1;
                match outcome {
                    Outcome::Done | Outcome::AlreadyDone => counts.moved += 1,
                    Outcome::Failed { .. } | Outcome::Refused { .. } => counts.failed += 1,
                    Outcome::Interrupted | Outcome::Skipped { .. } => counts.waiting += 1,
                }
            }
            _ => {}
        }
    }

    /// Takes over what happened to a step of the current pass.
    pub(super) fn step(&mut self, event: &Event, now: Timestamp) {
        let Some(pass) = &mut self.current else { return };
        match event {
            Event::Started { step, resource, summary } => {
                let status = StepStatus {
                    resource: resource.clone(),
                    summary: summary.clone(),
                    started_at: now,
                    progress: None,
                    retrying: None,
                };
                pass.steps.insert(step.clone(), status);
            }
            Event::Progress { step, progress } => {
                if let Some(status) = pass.steps.get_mut(step) {
                    status.progress = Some(progress.clone());
                    status.retrying = None;
                }
            }
            Event::Noted { .. } => {}
            Event::Retrying { step, error, .. } => {
                if let Some(status) = pass.steps.get_mut(step) {
                    status.retrying = Some(error.clone());
                }
            }
            Event::Finished { step, outcome, .. } => {
                pass.steps.remove(step);
                match outcome {
                    Outcome::Done | Outcome::AlreadyDone => pass.steps_done += 1,
                    _ => pass.steps_failed += 1,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::HostState;

    #[test]
    fn a_host_keeps_the_moment_since_which_it_has_been_unknown() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let unknown = |t| {
            let mut observed = Observed::empty(at(t));
            observed.hosts.insert("a".into(), Reading::Unknown { why: "no route".into() });
            observed
        };
        let mut status = DaemonStatus::default();
        status.observe(&unknown(10));
        status.observe(&unknown(20));
        assert_eq!((status.hosts["a"].since, status.hosts["a"].read_at), (at(10), at(20)));
        let mut known = Observed::empty(at(30));
        known.hosts.insert("a".into(), Reading::Present(HostState::default()));
        status.observe(&known);
        assert!(status.hosts["a"].known && status.hosts["a"].since == at(30));
    }

    #[test]
    fn a_step_is_shown_while_it_runs_and_counted_when_it_ended() {
        let mut status = DaemonStatus {
            current: Some(CurrentPass {
                commit: "c".into(),
                reason: Reason::Commit,
                drift_only: false,
                began_at: Timestamp::UNIX_EPOCH,
                steps: BTreeMap::new(),
                steps_done: 0,
                steps_failed: 0,
                steps_total: 1,
            }),
            ..DaemonStatus::default()
        };
        let resource = ResourceId::new("VirtualMachine".into(), "web-1");
        let now = Timestamp::UNIX_EPOCH;
        status.step(&Event::Started { step: "s".into(), resource, summary: "move it".into() }, now);
        let progress = Progress { processed: 7, ..Progress::default() };
        status.step(&Event::Progress { step: "s".into(), progress: progress.clone() }, now);
        assert_eq!(status.current.as_ref().unwrap().steps["s"].progress, Some(progress));
        let took = std::time::Duration::ZERO;
        status.step(&Event::Finished { step: "s".into(), outcome: Outcome::Done, took }, now);
        let pass = status.current.unwrap();
        assert!(pass.steps.is_empty() && pass.steps_done == 1 && pass.steps_failed == 0);
    }

    #[test]
    fn moves_are_counted_while_they_run() {
        let resource = ResourceId::new("VirtualMachineMigration".into(), "trip");
        let counts = MoveCounts { total: 3, waiting: 3, ..MoveCounts::default() };
        let mut status = DaemonStatus {
            current: Some(CurrentPass {
                commit: "c".into(),
                reason: Reason::Commit,
                drift_only: false,
                began_at: Timestamp::UNIX_EPOCH,
                steps: BTreeMap::new(),
                steps_done: 0,
                steps_failed: 0,
                steps_total: 3,
            }),
            ..DaemonStatus::default()
        };
        status.resources.notable.push(ResourceStatus {
            resource: resource.clone(),
            sync: Sync::OutOfSync,
            health: Health::Progressing,
            held_back: None,
            moves: Some(counts),
            run: None,
        });
        let mut tell = |event: Event| {
            status.count_move(&event);
            status.step(&event, Timestamp::UNIX_EPOCH);
            status.resources.notable[0].moves.unwrap().words()
        };
        let began = |step: &str| Event::Started { step: step.into(), resource: resource.clone(), summary: step.into() };
        let took = std::time::Duration::ZERO;
        let ended = |step: &str, outcome| Event::Finished { step: step.into(), outcome, took };
        tell(began("a"));
        assert_eq!(tell(began("b")), "0 of 3 moved, 2 moving, 1 waiting");
        assert_eq!(tell(ended("a", Outcome::Done)), "1 of 3 moved, 1 moving, 1 waiting");
        let failed = Outcome::Failed { error: "no".into(), transient: false };
        assert_eq!(tell(ended("b", failed)), "1 of 3 moved, 1 waiting, 1 failed");
        // What was never begun changes nothing.
        let skipped = Outcome::Skipped { reason: "b failed".into() };
        assert_eq!(tell(ended("c", skipped)), "1 of 3 moved, 1 waiting, 1 failed");
    }
}
