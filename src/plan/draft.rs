//! What kinds write while they compare: reports, findings and drafts of steps. Order between kinds comes from facts that
//! a draft offers and another needs; order within a kind from the ids that [`Drafts::step`] gives.

use super::{
    Block, Change, Check, Disruption, Estimate, Health, Interruption, Operation, PlanOptions, ResourceReport, Sync,
};
use crate::action::{Action, MachineAction};
use crate::finding::{Finding, Source};
use crate::kind::Resources;
use crate::kind::settings::SettingsSpec;
use crate::kind::virtual_machine::Survey;
use crate::model::ResourceId;
use crate::observed::Observed;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a kind may know while it drafts.
pub struct Context<'a> {
    /// Every resource.
    pub resources: &'a Resources,
    /// What is there.
    pub observed: &'a Observed,
    /// The Settings in force.
    pub settings: &'a SettingsSpec,
    /// The time.
    pub now: Timestamp,
    /// What the operator says beyond Git.
    pub options: &'a PlanOptions,
    /// The commit, for texts.
    pub commit: Option<&'a str>,
    /// Where the machines are and where they should be.
    pub survey: Survey,
}

/// Something that is true, or will be after a step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Fact {
    /// A pool is started on a host (libvirt's name of the pool).
    PoolActive {
        /// The host.
        host: String,
        /// The pool.
        pool: String,
    },
    /// A pool was looked at, and is the same storage on this host as on the others.
    PoolShared {
        /// The host.
        host: String,
        /// The pool.
        pool: String,
    },
    /// A volume is there.
    VolumeReady {
        /// The host.
        host: String,
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
    },
    /// A machine does not use a host any more: it moved away, or is gone.
    MachineOff {
        /// The host.
        host: String,
        /// The machine's manifest.
        machine: String,
    },
    /// MTC runs on a cluster.
    ToolkitReady {
        /// The cluster.
        cluster: String,
    },
    /// The control cluster does not know a remote cluster any more.
    Unregistered {
        /// The remote cluster.
        cluster: String,
    },
    /// MTC is gone from a cluster.
    ToolkitGone {
        /// The cluster.
        cluster: String,
    },
    /// A pool is not used by a machine any more.
    PoolUnused {
        /// The host.
        host: String,
        /// The pool.
        pool: String,
    },
}

/// Names a draft within one [`Drafts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DraftId(pub(super) usize);

/// What a step takes of a host once it is done: what later drafts find less of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The host.
    pub host: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual CPUs in use.
    pub vcpus: u32,
}

/// A step before its order, id and guard rails are known.
#[derive(Clone, Debug, PartialEq)]
pub struct StepDraft {
    /// What is done.
    pub action: Action,
    /// For which resource.
    pub resource: ResourceId,
    /// One line: what is done.
    pub summary: String,
    /// One line: why.
    pub why: String,
    /// How much it disturbs.
    pub disruption: Disruption,
    /// What can be done about it while it runs.
    pub interruption: Interruption,
    /// What it would take to undo it; at first what its action says of itself.
    pub undo: Option<String>,
    /// What it is expected to take.
    pub estimate: Estimate,
    /// Drafts that must be done before.
    pub after: Vec<DraftId>,
    /// What is true after it.
    pub offers: Vec<Fact>,
    /// What must be true before it; a fact that no draft offers is taken to be true already.
    pub needs: Vec<Fact>,
    /// Why it is held back.
    pub blocked_by: Vec<Block>,
    /// Of steps that could begin at once those of a higher rank come first (`placement.priority`; the turns of a
    /// VirtualMachineMigration are below zero).
    pub rank: i32,
    /// For a move: what was looked at beforehand ([`StepDraft::checked`] adds them, and what holds the step back).
    pub checks: Vec<Check>,
    /// What it takes of a host, for a move and a start.
    pub load: Option<Load>,
}

impl StepDraft {
    /// A draft that disturbs nothing and depends on nothing.
    pub fn new(action: Action, resource: ResourceId, summary: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            undo: action.undo(),
            action,
            resource,
            summary: summary.into(),
            why: why.into(),
            disruption: Disruption::None,
            interruption: Interruption::Interruptible,
            estimate: Estimate::default(),
            after: Vec::new(),
            offers: Vec::new(),
            needs: Vec::new(),
            blocked_by: Vec::new(),
            rank: 0,
            checks: Vec::new(),
            load: None,
        }
    }

    /// Adds prechecks; those that were not passed and must be hold the step back.
    pub fn checked(&mut self, checks: Vec<Check>) {
        self.blocked_by.extend(checks.iter().filter_map(Check::block));
        self.checks.extend(checks);
    }
}

/// What the kinds have written.
#[derive(Debug, Default)]
pub struct Drafts {
    pub(super) steps: Vec<StepDraft>,
    pub(super) reports: BTreeMap<ResourceId, ResourceReport>,
    pub(super) findings: Vec<Finding>,
}

impl Drafts {
    /// Adds a step.
    pub fn step(&mut self, draft: StepDraft) -> DraftId {
        self.steps.push(draft);
        DraftId(self.steps.len() - 1)
    }

    /// Where the steps end now, for [`Drafts::since`] and [`Drafts::take_back`].
    pub fn mark(&self) -> usize {
        self.steps.len()
    }

    /// What steps that were drafted so far, and that are not held back, bring to a host.
    pub fn arriving<'d>(&'d self, host: &'d str) -> impl Iterator<Item = &'d Load> {
        let free = self.steps.iter().filter(|s| s.blocked_by.is_empty());
        free.filter_map(|s| s.load.as_ref()).filter(move |l| l.host == host)
    }

    /// The steps that were added since a mark.
    pub fn since(&self, mark: usize) -> &[StepDraft] {
        self.steps.get(mark..).unwrap_or_default()
    }

    /// Holds the steps back that were added since a mark.
    pub fn hold_back(&mut self, mark: usize, blocks: &[Block]) {
        for step in self.steps.iter_mut().skip(mark) {
            step.blocked_by.extend_from_slice(blocks);
        }
    }

    /// Takes the steps back that were added since a mark. Nothing may depend on them.
    pub fn take_back(&mut self, mark: usize) {
        self.steps.truncate(mark);
    }

    /// Whether some step is about a domain.
    pub fn touches(&self, uuid: uuid::Uuid) -> bool {
        self.steps.iter().any(|s| s.action.machine().and_then(MachineAction::machine) == Some(uuid))
    }

    /// Has machines of a resource that must be shut down wait for the machines before them, so that no more than so many are
    /// down at once. (How many run their migrations at once is the executor's business.)
    pub fn take_turns(&mut self, id: &ResourceId, at_once: u32) {
        let mut turns: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (i, step) in self.steps.iter().enumerate().filter(|(_, s)| s.resource == *id && s.rank < 0) {
            turns.entry(step.rank.unsigned_abs()).or_default().push(i);
        }
        let turns: Vec<Vec<usize>> = turns.into_values().collect();
        let at_once = at_once.max(1) as usize;
        for (before, now) in turns.iter().zip(turns.iter().skip(at_once)) {
            let goes_down =
                |i: &usize| matches!(&self.steps[*i].action, Action::Machine(MachineAction::ShutdownDomain { .. }));
            if let (true, Some(first), Some(last)) = (now.iter().any(goes_down), now.first(), before.last()) {
                self.steps[*first].after.push(DraftId(*last));
            }
        }
    }

    /// Tells of each migration's machines that wait which are held back, and which failed: known once the guard rails have
    /// spoken.
    pub(super) fn count_moves(&mut self, steps: &[super::Step]) {
        for step in steps.iter().filter(|s| s.is_blocked() && s.action.name() == "MigrateVirtualMachine") {
            let Some(counts) = self.reports.get_mut(&step.resource).and_then(|r| r.moves.as_mut()) else { continue };
            counts.waiting = counts.waiting.saturating_sub(1);
            match step.blocked_by.iter().any(|b| b.code == crate::finding::Code::BackingOff) {
                true => counts.failed += 1,
                false => counts.held_back += 1,
            }
        }
    }

    /// Adds a finding.
    pub fn finding(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// The report of a resource, made on first use as synced, healthy and unchanged.
    pub fn report(&mut self, id: &ResourceId, source: Option<Source>) -> &mut ResourceReport {
        self.reports.entry(id.clone()).or_insert_with(|| ResourceReport {
            kind: id.kind.to_string(),
            name: id.name.clone(),
            source,
            operation: Operation::None,
            sync: Sync::Synced,
            health: Health::Healthy,
            changes: Vec::new(),
            moves: None,
        })
    }

    /// Notes a field that differs; the resource is out of sync.
    pub fn change(&mut self, id: &ResourceId, source: Option<Source>, change: Change) {
        let report = self.report(id, source);
        report.sync = Sync::OutOfSync;
        report.changes.push(change);
    }
}
