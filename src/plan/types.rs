//! The plan as data: the JSON of the contract (`schemas/plan.schema.json`).

use super::Check;
use super::precopy::Prediction;
use crate::action::{Action, MachineAction};
use crate::finding::{Finding, Source};
use crate::model::{ResourceId, Revision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the plan's JSON form: keys are only added within a major version.
pub const FORMAT_VERSION: &str = "1.0";

/// What would be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Version of this form.
    pub format_version: String,
    /// Hash of the content (steps with parameters, changes, blocks): equal plans have equal hashes, whenever and wherever
    /// they were computed.
    pub hash: String,
    /// Which state of the repository.
    pub revision: Revision,
    /// When the observation was made that it rests on.
    #[schemars(with = "String")]
    pub observed_at: jiff::Timestamp,
    /// Counts.
    pub summary: Summary,
    /// Every resource with its state; those that differ with their changes.
    pub resources: Vec<ResourceReport>,
    /// What would be done, each step after those it depends on.
    pub steps: Vec<Step>,
    /// What there is to say.
    pub findings: Vec<Finding>,
}

/// Counts of resources by what happens to them, and of what cannot happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Made.
    pub create: u32,
    /// Changed in place.
    pub update: u32,
    /// Moved.
    pub migrate: u32,
    /// Removed.
    pub delete: u32,
    /// Run once.
    pub run: u32,
    /// As they should be.
    pub unchanged: u32,
    /// With a step that is held back.
    pub blocked: u32,
    /// That could not be read.
    pub unknown: u32,
}

impl Summary {
    /// Resources that something happens to.
    pub fn changes(&self) -> u32 {
        self.create + self.update + self.migrate + self.delete + self.run
    }
}

/// A resource's state in a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceReport {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// Where its manifest stands; `null` for one that has none any more.
    pub source: Option<Source>,
    /// What happens to it.
    pub operation: Operation,
    /// Does the world match Git?
    pub sync: Sync,
    /// Does it do what it should?
    pub health: Health,
    /// Fields that differ.
    pub changes: Vec<Change>,
    /// How far it is, of a resource that moves machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<MoveCounts>,
}

/// How many of its machines a migration has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MoveCounts {
    /// Machines that it names.
    pub total: u32,
    /// Those that it has moved, or that were there already.
    pub moved: u32,
    /// Those on their way.
    pub moving: u32,
    /// Those that are still to move.
    pub waiting: u32,
    /// Those that something holds back: a guard rail, a precheck, a window.
    pub held_back: u32,
    /// Those whose move failed, or that cannot be moved at all.
    pub failed: u32,
    /// Those that are not where it would take them from.
    pub elsewhere: u32,
    /// Those of which it is not known where they are.
    pub unknown: u32,
}

impl MoveCounts {
    /// In words: `3 of 8 moved, 1 moving, 4 waiting`.
    pub fn words(&self) -> String {
        let parts = [
            (self.moving, "moving"),
            (self.waiting, "waiting"),
            (self.held_back, "held back"),
            (self.failed, "failed"),
            (self.elsewhere, "elsewhere"),
            (self.unknown, "unknown"),
        ];
        let mut words = format!("{} of {} moved", self.moved, self.total);
        for (n, what) in parts.into_iter().filter(|(n, _)| *n > 0) {
            words.push_str(&format!(", {n} {what}"));
        }
        words
    }
}

/// What happens to a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Operation {
    /// Nothing.
    #[default]
    None,
    /// It is taken over.
    Adopt,
    /// It is changed in place.
    Update,
    /// It is made.
    Create,
    /// Drover lets go of it; it stays as it is.
    Release,
    /// It is moved.
    Migrate,
    /// It is removed.
    Delete,
    /// It is run once.
    Run,
}

/// Does the world match Git?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Sync {
    #[default]
    Synced,
    OutOfSync,
    Unknown,
}

/// Does a resource do what it should?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Health {
    #[default]
    Healthy,
    Progressing,
    Degraded,
    Suspended,
    Missing,
    Unknown,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The field, as people write it: `spec.disks[root].size`.
    pub path: String,
    /// What is there; `null` for nothing.
    pub before: Value,
    /// What is wanted; `null` for nothing.
    pub after: Value,
    /// What it takes.
    pub effect: Effect,
    /// Which of a domain's two definitions differs, where that matters: `live`, `persistent` or `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// More for the reader: `takes effect at the next restart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Which of a domain's definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Definition {
    Live,
    Persistent,
    Both,
}

/// What a change takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    /// Nothing: the thing is off, new, or the field has no effect on what runs.
    #[default]
    None,
    /// It is made while the thing runs.
    Live,
    /// It waits for a restart.
    Restart,
    /// It needs a new thing in the place of the old one; Drover does not do that by itself.
    Recreate,
}

/// How much a step disturbs the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// Not.
    #[default]
    None,
    /// A pause of a second or less.
    Brief,
    /// The workload is down for a while.
    Downtime,
    /// Something is lost for good.
    Destructive,
}

/// What can be done about a step that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Interruption {
    /// It can be left at any moment without harm.
    #[default]
    Interruptible,
    /// It is let go on to its end, or aborted in an orderly way.
    Drainable,
    /// Once begun there is no way back.
    PointOfNoReturn,
}

/// One action in a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Stable from one computation to the next.
    pub id: String,
    /// What is done, with each value it needs.
    #[serde(flatten)]
    pub action: Action,
    /// The resource it is done for.
    pub resource: ResourceId,
    /// One line: what is done.
    pub summary: String,
    /// One line: why.
    pub why: String,
    /// Ids of steps that must be done before.
    pub depends_on: Vec<String>,
    /// How much it disturbs.
    pub disruption: Disruption,
    /// What can be done about it while it runs.
    pub interruption: Interruption,
    /// What it would take to undo it; `null` where nothing does.
    pub undo: Option<String>,
    /// What it is expected to take.
    pub estimate: Estimate,
    /// Why it is held back; empty where it is not.
    pub blocked_by: Vec<Block>,
    /// For a move: what was looked at beforehand, with figures. Not part of the plan's hash: figures such as free memory
    /// differ from one observation to the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// What a step is expected to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// Seconds.
    pub seconds: f64,
    /// Milliseconds in which the workload does not answer.
    pub downtime_millis: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// For a live migration: what the model of it says, with the bounds within which the outcome should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
}

/// Why a step is held back, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// The finding's code.
    pub code: crate::finding::Code,
    /// Why.
    pub reason: String,
    /// What to do about it.
    pub way_out: String,
}

/// How the reason of a block begins that only says that an earlier step is held back.
pub(super) const AFTER_ANOTHER: &str = "it comes after a step that is held back: ";

impl Block {
    /// Whether it only says that an earlier step is held back.
    pub fn is_of_an_earlier_step(&self) -> bool {
        self.reason.starts_with(AFTER_ANOTHER)
    }
}

impl Step {
    /// The domain that it is about, where it is about one.
    pub fn machine(&self) -> Option<uuid::Uuid> {
        self.action.machine()?.machine()
    }

    /// Whether it ends another step that is under way, which then is not followed.
    pub(super) fn cancels(&self, other: &Step) -> bool {
        let (Action::Machine(action), Action::Machine(ended)) = (&self.action, &other.action) else { return false };
        match (action, ended) {
            (MachineAction::AbortMigration(_), _) => action.machine() == ended.machine(),
            (MachineAction::CancelDiskMove { uuid, to, .. }, MachineAction::MoveDisk(m)) => {
                *uuid == m.uuid && *to == m.to
            }
            _ => false,
        }
    }

    /// Whether it is held back.
    pub fn is_blocked(&self) -> bool {
        !self.blocked_by.is_empty()
    }
}

impl ResourceReport {
    /// Its identity.
    pub fn id(&self) -> ResourceId {
        ResourceId::new(self.kind.as_str().into(), self.name.clone())
    }
}
