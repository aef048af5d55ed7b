//! Whether and how it is measured how fast a guest writes to its memory.

use crate::model::Span;
use crate::observed::DirtyRateMode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether and how the dirty rate of a machine that is to move is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DirtyRatePolicy {
    /// Over one second, by a sample of the pages; or not at all.
    Switch(bool),
    /// So.
    By(Measurement),
}

/// How a dirty rate is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Measurement {
    /// Over how long, 1 to 60 s in whole seconds (the seconds of `virDomainStartDirtyRateCalc`). A plan that moves the machine takes as much longer.
    pub period: Span,
    /// In which way (`VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING`, `VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_BITMAP`,
    /// `VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_RING`).
    pub mode: DirtyRateMode,
}

impl Default for Measurement {
    fn default() -> Self {
        Self { period: Span::seconds(1), mode: DirtyRateMode::default() }
    }
}

impl DirtyRatePolicy {
    /// What is to be measured, if anything.
    pub fn measurement(self) -> Option<Measurement> {
        match self {
            Self::Switch(false) => None,
            Self::Switch(true) => Some(Measurement::default()),
            Self::By(measurement) => Some(measurement),
        }
    }
}
