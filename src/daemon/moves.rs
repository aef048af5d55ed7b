//! What VirtualMachineMigrations have done, as the status shows it: from the journal, so that a daemon that was started anew
//! knows it, too.

use crate::journal::{MoveRecord, Outcome};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most machines of one run that the status names.
pub const MACHINES: usize = 100;

/// How a migration's last run went: what its newest revision that began anything has done, over all passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoveRun {
    /// The revision of its spec, in hexadecimal digits.
    pub revision: String,
    /// The commit that was carried out when its newest move began.
    pub commit: Option<String>,
    /// When its first move began.
    pub began_at: Timestamp,
    /// When its last move ended; `None` while one is under way or in doubt.
    pub ended_at: Option<Timestamp>,
    /// Each machine's newest move, in the order in which they began; at most [`MACHINES`].
    pub machines: Vec<MachineMove>,
}

/// One machine's move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineMove {
    /// The machine's libvirt name.
    pub machine: String,
    /// The host that it left.
    pub from: String,
    /// The host that it went to.
    pub to: String,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended, with why.
    pub outcome: Option<Outcome>,
}

/// The last run of each resource, by `VirtualMachineMigration/name`, from records that come newest first.
pub fn runs(records: Vec<MoveRecord>) -> BTreeMap<String, MoveRun> {
    let mut runs: BTreeMap<String, MoveRun> = BTreeMap::new();
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for record in records {
        let run = runs.entry(record.resource.clone()).or_insert_with(|| MoveRun {
            revision: record.revision.clone(),
            commit: record.commit.clone(),
            began_at: record.started_at,
            ended_at: None,
            machines: Vec::new(),
        });
        if run.revision != record.revision {
            continue;
        }
        run.began_at = run.began_at.min(record.started_at);
        if seen.insert((record.resource, record.machine.clone())) {
            run.machines.push(MachineMove {
                machine: record.machine,
                from: record.from,
                to: record.to,
                began_at: record.started_at,
                ended_at: record.finished_at.filter(|_| record.outcome.is_some()),
                outcome: record.outcome,
            });
        }
    }
    for run in runs.values_mut() {
        let ends: Option<Vec<Timestamp>> = run.machines.iter().map(|m| m.ended_at).collect();
        run.ended_at = ends.and_then(|ends| ends.into_iter().max());
        run.machines.sort_by(|a, b| a.began_at.cmp(&b.began_at).then_with(|| a.machine.cmp(&b.machine)));
        run.machines.truncate(MACHINES);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(machine: &str, revision: &str, started: i64, outcome: Option<Outcome>) -> MoveRecord {
        let at = |second| Timestamp::from_second(second).unwrap();
        MoveRecord {
            commit: Some(format!("commit-{started}")),
            resource: "VirtualMachineMigration/trip".into(),
            machine: machine.into(),
            from: "kvm-a".into(),
            to: "kvm-b".into(),
            revision: revision.into(),
            started_at: at(started),
            finished_at: outcome.as_ref().map(|_| at(started + 5)),
            outcome,
        }
    }

    #[test]
    fn a_run_is_the_newest_revision_s_and_the_newest_move_of_a_machine_counts() {
        let failed = Outcome::Failed { error: "no link".into(), transient: true };
        let records = vec![
            record("web-2", "new", 40, Some(Outcome::Done)),
            record("web-1", "new", 30, Some(failed.clone())),
            record("web-2", "new", 20, Some(failed.clone())),
            record("web-3", "old", 10, Some(Outcome::Done)),
        ];
        let found = runs(records);
        let run = &found["VirtualMachineMigration/trip"];
        assert_eq!((run.revision.as_str(), run.commit.as_deref()), ("new", Some("commit-40")));
        let machines: Vec<_> = run.machines.iter().map(|m| (m.machine.as_str(), m.outcome.clone().unwrap())).collect();
        assert_eq!(machines, [("web-1", failed), ("web-2", Outcome::Done)]);
        assert_eq!((run.began_at.as_second(), run.ended_at.map(Timestamp::as_second)), (20, Some(45)));
        // One that is under way keeps the run open.
        let found = runs(vec![record("web-1", "new", 50, None), record("web-2", "new", 40, Some(Outcome::Done))]);
        assert_eq!(found["VirtualMachineMigration/trip"].ended_at, None);
    }
}
