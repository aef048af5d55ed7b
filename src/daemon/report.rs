//! How a pass tells what it does: to the status, to the metrics, and to whoever asks for its plan.

use super::Metrics;
use super::moves::MoveRun;
use super::status::{DaemonStatus, Phase, ResourceStates};
use crate::execute::Event;
use crate::observed::{Observed, Reading};
use crate::plan::Plan;
use crate::provider::HostChange;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch as channel;
use tokio::time::Instant;

/// The name of the action that moves a machine.
const MOVE: &str = "MigrateVirtualMachine";

/// How a pass tells what it does.
#[derive(Clone)]
pub struct PassWatch {
    pub(super) status: channel::Sender<DaemonStatus>,
    pub(super) plan: channel::Sender<Option<Arc<Plan>>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stopped: Arc<Mutex<Option<StopReason>>>,
    /// The names of the actions of this pass's plan, by step.
    pub(super) actions: Arc<Mutex<HashMap<String, &'static str>>>,
    pub(super) readings: Arc<Mutex<Readings>>,
}

/// When hosts were read.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// When the reading that goes on, or the last one, began.
    began: Option<Instant>,
    /// When the last complete reading of each host began.
    pub(super) complete: BTreeMap<String, Instant>,
}

/// Why a pass was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A newer commit came.
    Superseded,
    /// The daemon is to end.
    ShuttingDown,
}

impl PassWatch {
    /// What goes on now. A pass that was asked to stop stays in [`Phase::Draining`].
    pub fn phase(&self, phase: Phase) {
        if phase == Phase::Observing {
            self.readings.lock().unwrap_or_else(PoisonError::into_inner).began = Some(Instant::now());
        }
        self.status.send_if_modified(|s| {
            let changed = s.phase != phase && s.phase != Phase::Draining;
            if changed {
                s.phase = phase;
            }
            changed
        });
    }

    /// What was observed, since [`Phase::Observing`] was told.
    pub fn observed(&self, observed: &Observed) {
        {
            let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
            let began = readings.began;
            let hosts = observed.hosts.iter().map(|(name, r)| (name.clone(), matches!(r, Reading::Present(_))));
            let clusters = observed
                .clusters
                .iter()
                .map(|(name, r)| (HostChange::cluster_name(name), matches!(r, Reading::Present(_))));
            // One that could not be read keeps the time of its last complete reading.
            let mut before = std::mem::take(&mut readings.complete);
            let read = hosts.chain(clusters).filter_map(|(name, is_complete)| {
                let at = if is_complete { began } else { before.remove(&name) };
                Some((name, at?))
            });
            readings.complete = read.collect();
        }
        self.status.send_modify(|s| s.observe(observed));
        self.metrics.hosts(&self.status.borrow());
    }

    /// What is going to be done.
    pub fn planned(&self, plan: Arc<Plan>) {
        let runnable = plan.steps.iter().filter(|s| !s.is_blocked()).count();
        let states = ResourceStates::of(&plan);
        self.status.send_modify(|s| {
            s.resources = states;
            if let Some(pass) = &mut s.current {
                pass.steps_total = u32::try_from(runnable).unwrap_or(u32::MAX);
            }
        });
        let actions = plan.steps.iter().map(|s| (s.id.clone(), s.action.name())).collect();
        *self.actions.lock().unwrap_or_else(PoisonError::into_inner) = actions;
        self.plan.send_replace(Some(plan));
    }

    /// What migrations have done so far, by the journal.
    pub fn ran(&self, runs: &BTreeMap<String, MoveRun>) {
        self.status.send_modify(|s| s.resources.ran(runs));
    }

    /// What happens to a step.
    pub fn event(&self, event: &Event) {
        let of = |step: &String| self.actions.lock().unwrap_or_else(PoisonError::into_inner).get(step).copied();
        let begun = match event {
            Event::Started { step, .. } => of(step),
            _ => None,
        };
        let action = match event {
            Event::Finished { step, .. } => of(step),
            _ => None,
        };
        self.status.send_modify(|s| {
            if begun.or(action) == Some(MOVE) {
                s.count_move(event);
            }
            s.step(event, Timestamp::now());
        });
        self.metrics.step(event, action);
    }

    /// Why the pass was asked to stop, if it was.
    pub fn stopped_because(&self) -> Option<StopReason> {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
