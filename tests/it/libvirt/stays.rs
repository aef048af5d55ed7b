//! What a move leaves behind on both hosts: for a while and for good, of machines with and without a definition, arriving
//! paused or under another name. Rows 1 to 5, 9 to 15, 18 and 21 of the checklist.

use super::moves::{act, born, in_client, migration, moved, writer};
use super::*;
use crate::lab::{Guest, Lab};
use drover::action::{Migration, MigrationWay};
use drover::observed::{MoveMark, RunState};
use drover::provider::libvirt::Writer;

/// State and whether there is a definition, on a and on b.
async fn both(writer: &Writer, uuid: Uuid) -> [Option<(RunState, bool)>; 2] {
    let [a, b] = ["a", "b"].map(|host| domain(writer, host, uuid));
    let (a, b) = (a.await, b.await);
    [a, b].map(|d| d.map(|d| (d.state, d.persistent)))
}

fn action(m: &Migration) -> Action {
    Action::Machine(MachineAction::MigrateVirtualMachine(Box::new(m.clone())))
}

async fn goes(writer: &Writer, m: &Migration) {
    act(writer, m, &step(Duration::from_secs(120))).await.unwrap();
    writer.verify(&action(m), &step(Duration::from_secs(60)).ctx).await.unwrap();
    assert_eq!(
        look(writer, &MachineAction::MigrateVirtualMachine(Box::new(m.clone()))).await.unwrap(),
        Look::AlreadyDone
    );
}

async fn refused(writer: &Writer, m: &Migration) -> String {
    match look(writer, &MachineAction::MigrateVirtualMachine(Box::new(m.clone()))).await.unwrap() {
        Look::Refused { reason } => reason,
        other => panic!("{other:?}"),
    }
}

fn back(lab: &Lab, m: &Migration) -> Migration {
    Migration { from: "b".into(), to: "a".into(), destination_uri: lab.uri("a"), mark: None, ..m.clone() }
}

fn mark() -> MoveMark {
    MoveMark {
        fleet: "lab".into(),
        migration: "trip".into(),
        revision: "1".into(),
        from: "a".into(),
        to: "b".into(),
        temporary: true,
        done: false,
    }
}

fn stay(lab: &Lab, vm: &Guest<'_>, uuid: Uuid) -> Migration {
    Migration { permanent: false, mark: Some(mark()), ..migration(lab, vm, uuid) }
}

#[test]
fn a_stay_elsewhere_leaves_the_definition_at_home_and_ends_there_or_by_going_back() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("stay");
    let uuid = born(&lab, &vm, "a", &["mem=160", "dirty=8", "rate=4"]);
    lab.virsh_ok("a", &["autostart", vm.name()]);
    vm.wait_beats(5);
    in_client(&lab, async || {
        let writer = writer();
        let m = stay(&lab, &vm, uuid);
        goes(&writer, &m).await;
        assert_eq!(both(&writer, uuid).await, [Some((RunState::Off, true)), Some((RunState::Running, false))]);
        let (home, there) = (domain(&writer, "a", uuid).await.unwrap(), domain(&writer, "b", uuid).await.unwrap());
        let done = MoveMark { done: true, ..mark() };
        assert_eq!((home.moved_away(), home.autostart, home.moves), (true, true, vec![done.clone()]));
        assert_eq!((there.autostart, there.moves, there.owner), (false, vec![done], home.owner));
        // Home again, alive; nothing is left there, and the definition is the one that was kept.
        let home_again = Migration { timeout_millis: 120_000, ..back(&lab, &m) };
        goes(&writer, &home_again).await;
        assert_eq!(both(&writer, uuid).await, [Some((RunState::Running, true)), None]);
        assert!(domain(&writer, "a", uuid).await.unwrap().autostart);
        // Away once more, and off there: gone there, and startable at home.
        goes(&writer, &stay(&lab, &vm, uuid)).await;
        lab.virsh_ok("b", &["destroy", vm.name()]);
        assert_eq!(both(&writer, uuid).await, [Some((RunState::Off, true)), None]);
        lab.virsh_ok("a", &["start", vm.name()]);
    });
    vm.wait_beats(3);
}

#[test]
fn what_has_no_definition_gets_one_for_good_and_is_not_moved_for_a_while() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("transient");
    let uuid = born(&lab, &vm, "a", &["boot=none", "mem=64"]);
    lab.virsh_ok("a", &["undefine", vm.name()]);
    in_client(&lab, async || {
        let writer = writer();
        // It would vanish when it stops there: with no definition on either side it is no stay but a loss.
        let why = refused(&writer, &stay(&lab, &vm, uuid)).await;
        assert!(why.contains("would vanish when it stops"), "{why}");
        goes(&writer, &migration(&lab, &vm, uuid)).await;
        assert_eq!(both(&writer, uuid).await, [None, Some((RunState::Running, true))]);
    });
}

#[test]
fn a_machine_that_is_off_moves_for_good_only() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("cold");
    let uuid = born(&lab, &vm, "a", &["boot=none", "mem=64"]);
    in_client(&lab, async || {
        let writer = writer();
        let cold = Migration { way: MigrationWay::Offline, ..migration(&lab, &vm, uuid) };
        // libvirt would take a running machine, too, and leave a second copy that can be started.
        assert!(refused(&writer, &cold).await.contains("a move while off was planned"));
        lab.virsh_ok("a", &["destroy", vm.name()]);
        let why = refused(&writer, &Migration { permanent: false, ..cold.clone() }).await;
        assert!(why.contains("only a machine that runs is elsewhere for a while"), "{why}");
        goes(&writer, &cold).await;
        assert_eq!(both(&writer, uuid).await, [None, Some((RunState::Off, true))]);
    });
}

#[test]
fn a_machine_arrives_paused_and_under_another_name() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("renamed");
    let uuid = born(&lab, &vm, "a", &["mem=160"]);
    vm.wait_beats(3);
    let name = format!("{}-new", vm.name());
    in_client(&lab, async || {
        let writer = writer();
        let m = Migration { arrive_paused: true, rename: Some(name.clone()), ..migration(&lab, &vm, uuid) };
        act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap();
        let there = moved(&writer, &m).await;
        assert_eq!((there.state, there.name.as_str()), (RunState::Paused, name.as_str()));
        assert!(lab.virsh_ok("b", &["dumpxml", "--inactive", &name]).contains(&format!("<name>{name}</name>")));
        // And back under its old name, so that it is found again.
        lab.virsh_ok("b", &["resume", &name]);
        let m = Migration { name: name.clone(), rename: Some(vm.name().to_owned()), ..back(&lab, &m) };
        let m = Migration { arrive_paused: false, ..m };
        act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap();
        assert_eq!(domain(&writer, "a", uuid).await.unwrap().name, vm.name());
    });
    vm.wait_beats(3);
}
