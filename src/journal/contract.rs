//! What every journal promises.

use super::{Journal, Outcome};
use crate::action::{Action, MachineAction};
use crate::model::{KindName, ResourceId, Revision};
use crate::plan::{Block, Disruption, Estimate, FORMAT_VERSION, Interruption, Plan, Step, Summary};
use jiff::Timestamp;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub fn step(id: &str) -> Step {
    Step {
        id: id.into(),
        action: Action::Machine(MachineAction::ResizeVolume {
            host: "kvm-a".into(),
            pool: "images".into(),
            volume: format!("{id}.qcow2"),
            capacity: 21_474_836_480,
            running: Some((uuid::Uuid::from_u128(7), "vda".into())),
        }),
        resource: ResourceId::new(KindName::new("VirtualMachine"), "web-1"),
        summary: format!("grow {id}"),
        why: "it is too small".into(),
        depends_on: vec![],
        disruption: Disruption::None,
        interruption: Interruption::Interruptible,
        undo: None,
        estimate: Estimate::default(),
        blocked_by: vec![],
        checks: Vec::new(),
    }
}

pub fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        format_version: FORMAT_VERSION.into(),
        hash: "0123456789abcdef".into(),
        revision: Revision { commit: Some("c0ffee".into()), base: None, path: "/srv/repo".into() },
        observed_at: at(0),
        summary: Summary::default(),
        resources: vec![],
        steps,
        findings: vec![],
    }
}

pub fn a_step_is_in_doubt_from_started_to_finished(journal: &dyn Journal) {
    let pass = journal.begin(&plan(vec![step("a"), step("b")]), at(1)).unwrap();
    assert!(journal.in_doubt().unwrap().is_empty(), "a step that was only planned is not in doubt");
    journal.started(pass, &step("b"), at(2)).unwrap();
    journal.started(pass, &step("a"), at(3)).unwrap();
    let doubt = journal.in_doubt().unwrap();
    assert_eq!(doubt.iter().map(|d| d.step.id.as_str()).collect::<Vec<_>>(), ["a", "b"], "in the plan's order");
    assert_eq!(doubt[0].step, step("a"), "the step comes back as it was, with each parameter");
    assert_eq!((doubt[0].pass, doubt[0].started_at), (pass, at(3)));
    journal.finished(pass, "a", &Outcome::Done, at(4)).unwrap();
    journal.resolve(pass, "b", &Outcome::Refused { reason: "gone".into() }, at(5)).unwrap();
    assert!(journal.in_doubt().unwrap().is_empty());
    assert!(journal.finished(pass, "never-planned", &Outcome::Done, at(6)).is_err());
    assert!(journal.started(pass + 1, &step("a"), at(6)).is_err(), "no pass of this number");
}

pub fn a_new_attempt_takes_the_place_of_the_old_one(journal: &dyn Journal) {
    let first = journal.begin(&plan(vec![step("a")]), at(1)).unwrap();
    journal.started(first, &step("a"), at(2)).unwrap();
    let second = journal.begin(&plan(vec![step("a")]), at(3)).unwrap();
    assert!(second > first);
    journal.started(second, &step("a"), at(4)).unwrap();
    let doubt = journal.in_doubt().unwrap();
    assert_eq!(doubt.iter().map(|d| d.pass).collect::<Vec<_>>(), [second]);
    journal.finished(second, "a", &Outcome::Done, at(5)).unwrap();
    assert!(journal.in_doubt().unwrap().is_empty());
    let history = journal.history(10).unwrap();
    assert_eq!(history[1].result.as_deref(), Some("interrupted"), "the pass that was cut off");
    assert_eq!(history[1].ended_at, Some(at(3)));
    assert_eq!(history[1].steps[0].outcome, Some(Outcome::Interrupted));
}

pub fn history_tells_what_was_judged(journal: &dyn Journal) {
    let mut blocked = step("blocked");
    blocked.blocked_by = vec![Block { code: crate::finding::Code::GuardRail, reason: "r".into(), way_out: "w".into() }];
    let all = vec![step("z"), step("y"), step("x"), step("never"), blocked];
    let pass = journal.begin(&plan(all), at(1)).unwrap();
    journal.started(pass, &step("z"), at(2)).unwrap();
    let failed = Outcome::Failed { error: "no space".into(), transient: false };
    journal.finished(pass, "z", &failed, at(3)).unwrap();
    journal.finished(pass, "y", &Outcome::AlreadyDone, at(4)).unwrap();
    let skipped = Outcome::Skipped { reason: "`z` failed".into() };
    journal.finished_all(pass, &[("x", skipped.clone())], at(5)).unwrap();
    journal.end(pass, "failed", at(6)).unwrap();
    journal.begin(&plan(vec![]), at(7)).unwrap();

    let history = journal.history(10).unwrap();
    assert_eq!(history.iter().map(|p| p.pass).collect::<Vec<_>>(), [pass + 1, pass], "newest first");
    assert_eq!(journal.history(1).unwrap().len(), 1);
    let record = &history[1];
    assert_eq!((record.began_at, record.ended_at), (at(1), Some(at(6))));
    assert_eq!((record.commit.as_deref(), record.result.as_deref()), (Some("c0ffee"), Some("failed")));
    let steps: Vec<_> = record.steps.iter().map(|s| (s.id.as_str(), s.outcome.clone().unwrap())).collect();
    assert_eq!(steps, [("z", failed), ("y", Outcome::AlreadyDone), ("x", skipped)]);
    assert_eq!(record.steps[0].action, "ResizeVolume");
    assert_eq!(record.steps[0].resource, "VirtualMachine/web-1");
    assert_eq!((record.steps[0].started_at, record.steps[0].finished_at), (at(2), Some(at(3))));
}

pub fn what_a_move_was_stands_beside_what_was_predicted(journal: &dyn Journal) {
    use crate::plan::precopy::{Measured, PastMove};
    let figures = |seconds| PastMove { predicted: None, measured: Measured { seconds, ..Measured::default() } };
    let (web, db) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    for n in 1..=3_u8 {
        let pass = journal.begin(&plan(vec![step("a"), step("b")]), at(i64::from(n))).unwrap();
        for (id, machine) in [("a", web), ("b", db)] {
            journal.started(pass, &step(id), at(9)).unwrap();
            journal.measured(pass, id, machine, &figures(f64::from(n))).unwrap();
            journal.finished(pass, id, &Outcome::Done, at(10)).unwrap();
        }
        journal.end(pass, "succeeded", at(11)).unwrap();
    }
    let past = journal.past_moves(2).unwrap();
    assert_eq!(past.keys().copied().collect::<Vec<_>>(), [web, db]);
    assert_eq!(past[&web], [figures(3.0), figures(2.0)], "newest first");
    assert_eq!(journal.history(1).unwrap()[0].steps[1].figures, Some(figures(3.0)));
}

pub fn moves_of_a_migration_are_kept_with_its_revision(journal: &dyn Journal) {
    use crate::action::{Migration, MigrationWay};
    use crate::observed::MoveMark;
    let step = |machine: &str, revision: Option<&str>| {
        let mark = revision.map(|revision| MoveMark {
            fleet: "f".into(),
            migration: "trip".into(),
            revision: revision.into(),
            from: "kvm-a".into(),
            to: "kvm-b".into(),
            temporary: false,
            done: false,
        });
        let uuid = uuid::Uuid::from_u128(9);
        let m = Migration::new(uuid, machine, ["kvm-a", "kvm-b"], MigrationWay::Live, "sim:kvm-b".into());
        Step {
            action: Action::Machine(MachineAction::MigrateVirtualMachine(Box::new(Migration { mark, ..m }))),
            resource: ResourceId::new(KindName::new("VirtualMachineMigration"), "trip"),
            ..self::step(machine)
        }
    };
    assert!(journal.moves().unwrap().is_empty());
    let steps = vec![step("web-1", Some("r1")), step("web-2", Some("r1")), step("db", None), self::step("x")];
    let pass = journal.begin(&plan(steps.clone()), at(1)).unwrap();
    for (n, step) in (2..).zip(&steps) {
        journal.started(pass, step, at(n)).unwrap();
    }
    let failed = Outcome::Failed { error: "no link".into(), transient: true };
    journal.finished(pass, "web-1", &failed, at(8)).unwrap();
    journal.finished(pass, "db", &Outcome::Done, at(8)).unwrap();
    let again = journal.begin(&plan(vec![step("web-1", Some("r2"))]), at(9)).unwrap();
    journal.started(again, &step("web-1", Some("r2")), at(10)).unwrap();
    journal.finished(again, "web-1", &Outcome::Done, at(11)).unwrap();
    let moves = journal.moves().unwrap();
    let told: Vec<_> = moves.iter().map(|m| (m.machine.as_str(), m.revision.as_str(), m.outcome.clone())).collect();
    let done = Some(Outcome::Done);
    assert_eq!(told, [("web-1", "r2", done), ("web-2", "r1", None), ("web-1", "r1", Some(failed))], "newest first");
    let first = &moves[2];
    assert_eq!(
        (first.from.as_str(), first.to.as_str(), first.resource.as_str()),
        ("kvm-a", "kvm-b", "VirtualMachineMigration/trip")
    );
    assert_eq!((first.started_at, first.finished_at, first.commit.as_deref()), (at(2), Some(at(8)), Some("c0ffee")));
}
