//! A journal that is gone with the process: for one-off runs without a state folder, and for tests.

use super::{Errand, InDoubt, Journal, JournalError, MoveRecord, Outcome, PassRecord, StepRecord};
use crate::plan::precopy::PastMove;
use crate::plan::{Plan, Step};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// A journal in memory.
#[derive(Debug, Default)]
pub struct Memory {
    passes: Mutex<BTreeMap<i64, Pass>>,
}

#[derive(Debug)]
struct Pass {
    commit: Option<String>,
    plan_hash: String,
    began_at: Timestamp,
    ended: Option<(Timestamp, String)>,
    steps: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    position: usize,
    action: &'static str,
    resource: String,
    summary: String,
    /// When it was started, and the step while it is in doubt.
    started: Option<(Timestamp, Option<Step>)>,
    ended: Option<(Timestamp, Outcome)>,
    figures: Option<(Uuid, PastMove)>,
    errand: Option<Errand>,
}

impl Entry {
    fn new(position: usize, step: &Step) -> Self {
        Self {
            position,
            action: step.action.name(),
            resource: step.resource.to_string(),
            summary: step.summary.clone(),
            started: None,
            ended: None,
            figures: None,
            errand: None,
        }
    }

    fn end(&mut self, outcome: &Outcome, now: Timestamp) {
        self.ended = Some((now, outcome.clone()));
        if let Some((_, step)) = &mut self.started {
            *step = None;
        }
    }
}

impl Memory {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    fn passes(&self) -> MutexGuard<'_, BTreeMap<i64, Pass>> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn error(why: impl Into<String>) -> JournalError {
    JournalError { path: "in memory".into(), why: why.into() }
}

fn find(passes: &mut BTreeMap<i64, Pass>, pass: i64) -> Result<&mut Pass, JournalError> {
    passes.get_mut(&pass).ok_or_else(|| error(format!("there is no pass {pass}")))
}

impl Journal for Memory {
    fn begin(&self, plan: &Plan, now: Timestamp) -> Result<i64, JournalError> {
        let mut passes = self.passes();
        for cut_off in passes.values_mut().filter(|p| p.ended.is_none()) {
            cut_off.ended = Some((now, "interrupted".into()));
        }
        let number = passes.keys().next_back().map_or(1, |last| last + 1);
        let steps = plan.steps.iter().filter(|s| !s.is_blocked()).enumerate();
        let pass = Pass {
            commit: plan.revision.commit.clone(),
            plan_hash: plan.hash.clone(),
            began_at: now,
            ended: None,
            steps: steps.map(|(i, step)| (step.id.clone(), Entry::new(i, step))).collect(),
        };
        passes.insert(number, pass);
        Ok(number)
    }

    fn started(&self, pass: i64, step: &Step, now: Timestamp) -> Result<(), JournalError> {
        let mut passes = self.passes();
        for (_, older) in passes.iter_mut().filter(|(number, _)| **number != pass) {
            if let Some(entry) = older.steps.get_mut(&step.id)
                && entry.started.is_some()
                && entry.ended.is_none()
            {
                entry.end(&Outcome::Interrupted, now);
            }
        }
        let pass = find(&mut passes, pass)?;
        let position = pass.steps.len();
        let entry = pass.steps.entry(step.id.clone()).or_insert_with(|| Entry::new(position, step));
        entry.started = Some((now, Some(step.clone())));
        entry.errand = Errand::of(step);
        entry.ended = None;
        Ok(())
    }

    fn finished(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError> {
        let mut passes = self.passes();
        let entry = find(&mut passes, pass)?
            .steps
            .get_mut(step)
            .ok_or_else(|| error(format!("pass {pass} has no step `{step}`")))?;
        entry.end(outcome, now);
        Ok(())
    }

    fn end(&self, pass: i64, result: &str, now: Timestamp) -> Result<(), JournalError> {
        find(&mut self.passes(), pass)?.ended = Some((now, result.to_owned()));
        Ok(())
    }

    fn in_doubt(&self) -> Result<Vec<InDoubt>, JournalError> {
        let passes = self.passes();
        let mut found: Vec<_> = passes
            .iter()
            .flat_map(|(number, pass)| pass.steps.values().map(move |entry| (*number, entry)))
            .filter_map(|(pass, entry)| match (&entry.started, &entry.ended) {
                (Some((at, Some(step))), None) => {
                    Some((entry.position, InDoubt { pass, step: step.clone(), started_at: *at }))
                }
                _ => None,
            })
            .collect();
        found.sort_by_key(|(position, d)| (d.pass, *position));
        Ok(found.into_iter().map(|(_, d)| d).collect())
    }

    fn resolve(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError> {
        self.finished(pass, step, outcome, now)
    }

    fn measured(&self, pass: i64, step: &str, machine: Uuid, figures: &PastMove) -> Result<(), JournalError> {
        if let Some(entry) = find(&mut self.passes(), pass)?.steps.get_mut(step) {
            entry.figures = Some((machine, *figures));
        }
        Ok(())
    }

    fn past_moves(&self, limit: usize) -> Result<BTreeMap<Uuid, Vec<PastMove>>, JournalError> {
        let mut found: BTreeMap<Uuid, Vec<PastMove>> = BTreeMap::new();
        for (machine, figures) in self.passes().values().rev().flat_map(|p| p.steps.values()).filter_map(|e| e.figures)
        {
            let of = found.entry(machine).or_default();
            if of.len() < limit {
                of.push(figures);
            }
        }
        Ok(found)
    }

    fn moves(&self) -> Result<Vec<MoveRecord>, JournalError> {
        let mut found = Vec::new();
        for pass in self.passes().values().rev() {
            let mut moves: Vec<MoveRecord> = Vec::new();
            for entry in pass.steps.values() {
                let (Some(errand), Some((started_at, _))) = (&entry.errand, &entry.started) else { continue };
                let Errand { machine, from, to, revision } = errand.clone();
                moves.push(MoveRecord {
                    commit: pass.commit.clone(),
                    resource: entry.resource.clone(),
                    machine,
                    from,
                    to,
                    revision,
                    started_at: *started_at,
                    finished_at: entry.ended.as_ref().map(|e| e.0),
                    outcome: entry.ended.as_ref().map(|e| e.1.clone()),
                });
            }
            moves.sort_by(|a, b| b.started_at.cmp(&a.started_at).then_with(|| a.machine.cmp(&b.machine)));
            found.extend(moves);
        }
        Ok(found)
    }

    fn history(&self, limit: usize) -> Result<Vec<PassRecord>, JournalError> {
        let passes = self.passes();
        let record = |(number, pass): (&i64, &Pass)| {
            let mut steps: Vec<_> = pass.steps.iter().collect();
            steps.sort_by_key(|(_, entry)| entry.position);
            PassRecord {
                pass: *number,
                commit: pass.commit.clone(),
                plan_hash: pass.plan_hash.clone(),
                began_at: pass.began_at,
                ended_at: pass.ended.as_ref().map(|e| e.0),
                result: pass.ended.as_ref().map(|e| e.1.clone()),
                steps: steps.into_iter().filter_map(|(id, entry)| step_record(id, entry)).collect(),
            }
        };
        Ok(passes.iter().rev().take(limit).map(record).collect())
    }
}

/// A step that was neither started nor judged has nothing to tell.
fn step_record(id: &str, entry: &Entry) -> Option<StepRecord> {
    let judged_at = entry.ended.as_ref().map(|e| e.0);
    Some(StepRecord {
        id: id.to_owned(),
        action: entry.action.to_owned(),
        resource: entry.resource.clone(),
        summary: entry.summary.clone(),
        started_at: entry.started.as_ref().map(|s| s.0).or(judged_at)?,
        finished_at: judged_at,
        outcome: entry.ended.as_ref().map(|e| e.1.clone()),
        figures: entry.figures.map(|f| f.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::contract;

    #[test]
    fn keeps_the_contract() {
        contract::a_step_is_in_doubt_from_started_to_finished(&Memory::new());
        contract::a_new_attempt_takes_the_place_of_the_old_one(&Memory::new());
        contract::history_tells_what_was_judged(&Memory::new());
        contract::what_a_move_was_stands_beside_what_was_predicted(&Memory::new());
        contract::moves_of_a_migration_are_kept_with_its_revision(&Memory::new());
    }
}
