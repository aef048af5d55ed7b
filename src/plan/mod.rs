//! The plan: what would be done, in which order, and why. [`plan`] is a pure function of what is wanted, what is there
//! and the time; nothing else comes in, and equal inputs give equal bytes.

mod draft;
mod types;

pub use draft::{Context, DraftId, Drafts, Fact, StepDraft};
pub use types::*;

use crate::kind::Desired;
use crate::observed::Observed;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Everything a plan is computed from.
pub struct PlanInput<'a> {
    /// What is wanted.
    pub desired: &'a Desired,
    /// What is there.
    pub observed: &'a Observed,
    /// The time, for windows, back-off and the age of the observation.
    pub now: Timestamp,
    /// What the operator says beyond Git.
    pub options: PlanOptions,
}

/// What the operator says beyond Git.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanOptions {
    /// Names of machines whose existing domain may be taken over (`--adopt`; the annotation `drover/adopt: "true"` does
    /// the same).
    pub adopt: BTreeSet<String>,
    /// Steps that failed lately: by step id, until when they rest and what they failed with.
    pub backing_off: BTreeMap<String, BackOff>,
    /// Whether this pass follows a new commit; a pass that does not corrects drift only with `selfHeal`.
    pub drift_only: bool,
}

/// A step that rests after a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct BackOff {
    /// Not before.
    pub until: Timestamp,
    /// What it failed with.
    pub error: String,
    /// How often it failed in a row.
    pub failures: u32,
}
