//! The journal: what was begun, and how it ended. For crashes and history only: delete it and all that is lost is history.
//!
//! ```text
//!            begin                started               finished
//!   (plan) ─────────▶ recorded ─────────────▶ in doubt ─────────▶ ended
//!                        │                       │  resolve, or `started` of the same step in a later pass
//!                        └── finished (looked at, nothing to do; or never tried) ──▶ ended
//! ```
//!
//! *Guarantees*: a step is in doubt from the moment `started` returns until an outcome is recorded, whatever happens to
//! the process or the machine in between; there is at most one record in doubt for each step id.

mod memory;
mod sqlite;

pub use memory::Memory;
pub use sqlite::{KEEP_PASSES, Sqlite};

use crate::action::{Action, MachineAction};
use crate::plan::precopy::PastMove;
use crate::plan::{Plan, Step};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// So many moves of a machine are looked at for its next prediction.
pub const PAST_MOVES: usize = 5;

/// Where passes and steps are recorded. Calls are synchronous and short; each returns only once the record is durable.
pub trait Journal: Send + Sync {
    /// Begins a pass and gives its number. An earlier pass without an end was cut off: it ends here, as `interrupted`.
    fn begin(&self, plan: &Plan, now: Timestamp) -> Result<i64, JournalError>;
    /// Records that a step is about to act. Nothing is done to the world before this returns. An older record in doubt of
    /// the same step id is closed as [`Outcome::Interrupted`]: this one takes its place.
    fn started(&self, pass: i64, step: &Step, now: Timestamp) -> Result<(), JournalError>;
    /// Records how a step ended.
    fn finished(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError>;
    /// Records how several steps ended that never acted (those that were skipped), in one go.
    fn finished_all(&self, pass: i64, steps: &[(&str, Outcome)], now: Timestamp) -> Result<(), JournalError> {
        steps.iter().try_for_each(|(step, outcome)| self.finished(pass, step, outcome, now))
    }
    /// Ends a pass.
    fn end(&self, pass: i64, result: &str, now: Timestamp) -> Result<(), JournalError>;
    /// Steps that were started and never finished, oldest first.
    fn in_doubt(&self) -> Result<Vec<InDoubt>, JournalError>;
    /// Closes a step in doubt, after what it did was observed.
    fn resolve(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError>;
    /// Records what a machine's move was, beside what was predicted of it. Nothing but history and later predictions rests
    /// on it.
    fn measured(&self, _pass: i64, _step: &str, _machine: Uuid, _figures: &PastMove) -> Result<(), JournalError> {
        Ok(())
    }
    /// The last moves of each machine, at most `limit` of one, newest first.
    fn past_moves(&self, _limit: usize) -> Result<BTreeMap<Uuid, Vec<PastMove>>, JournalError> {
        Ok(BTreeMap::new())
    }
    /// Moves that VirtualMachineMigrations made, newest first: all that the journal knows of.
    fn moves(&self) -> Result<Vec<MoveRecord>, JournalError> {
        Ok(Vec::new())
    }
    /// The last passes, newest first.
    fn history(&self, limit: usize) -> Result<Vec<PassRecord>, JournalError>;
}

/// Why the journal could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the journal {path}: {why}")]
pub struct JournalError {
    /// Its path.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// Done, and verified.
    Done,
    /// There was nothing to do.
    AlreadyDone,
    /// Its preconditions did not hold any more.
    Refused {
        /// Which.
        reason: String,
    },
    /// It failed.
    Failed {
        /// What was said.
        error: String,
        /// Whether it may succeed when tried again.
        transient: bool,
    },
    /// It was left because Drover was asked to end, or a newer commit came; it may still be going on.
    Interrupted,
    /// Something it depends on did not happen.
    Skipped {
        /// What.
        reason: String,
    },
}

/// A step that was started and never finished.
#[derive(Clone, Debug, PartialEq)]
pub struct InDoubt {
    /// Its pass.
    pub pass: i64,
    /// The step.
    pub step: Step,
    /// When it was started.
    pub started_at: Timestamp,
}

/// A pass in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassRecord {
    /// Its number.
    pub pass: i64,
    /// The commit.
    pub commit: Option<String>,
    /// The plan's hash.
    pub plan_hash: String,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended; `None` for one that was cut off or is going on.
    pub ended_at: Option<Timestamp>,
    /// Its result in a word: `succeeded`, `failed`, `superseded`, `interrupted`.
    pub result: Option<String>,
    /// Its steps.
    pub steps: Vec<StepRecord>,
}

/// A step in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Its id.
    pub id: String,
    /// Its action's name.
    pub action: String,
    /// Its resource.
    pub resource: String,
    /// Its one-line summary.
    pub summary: String,
    /// When it began to act; when it was judged, for one that did not act.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// For a live migration: what it was, beside what was predicted of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<PastMove>,
}

/// A move that a VirtualMachineMigration made, from the moment that it began to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveRecord {
    /// The commit that was carried out.
    pub commit: Option<String>,
    /// The migration, `VirtualMachineMigration/name`.
    pub resource: String,
    /// The machine's libvirt name.
    pub machine: String,
    /// The host that it left.
    pub from: String,
    /// The host that it went to.
    pub to: String,
    /// The revision of the migration's spec.
    pub revision: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// What a journal keeps of a step that is such a move.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Errand {
    machine: String,
    from: String,
    to: String,
    revision: String,
}

impl Errand {
    fn of(step: &Step) -> Option<Self> {
        let Action::Machine(MachineAction::MigrateVirtualMachine(m)) = &step.action else { return None };
        let revision = m.mark.as_ref()?.revision.clone();
        Some(Self { machine: m.name.clone(), from: m.from.clone(), to: m.to.clone(), revision })
    }
}

/// What every journal promises, run on each of them.
#[cfg(test)]
mod contract;
