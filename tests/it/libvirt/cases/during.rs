//! What else happens to a machine while it moves.

use super::super::moves::while_under_way;
use super::*;
use drover::action::LiveChange;
use std::time::Instant;

/// Cases 67, 69 and 70.
#[test]
fn a_machine_that_moves_can_be_read_and_suspended_and_is_not_changed_nor_moved_twice() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("busy");
    let uuid = born(&lab, &vm, "a", &["boot=none", "mem=12288"]);
    let m = Migration { bandwidth_mib: Some(1), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(SOON));
        let (other, mut aborts) = (super::writer(), None);
        let result = while_under_way(act(&writer, &m, &step), &step, async || {
            // Read at once, on both sides.
            let begun = Instant::now();
            let (here, there) = tokio::join!(domain(&other, "a", uuid), domain(&other, "b", uuid));
            assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
            assert!(here.unwrap().job.is_some() && there.unwrap().is_in_migration());
            // What libvirt would hold up for 30 s, or take, is refused at once, on both sides.
            let actions = ["a", "b"].map(|host| forbidden(host, uuid, vm.name())).concat();
            let begun = Instant::now();
            let looks = actions.iter().map(|action| look(&other, action));
            for (action, looked) in actions.iter().zip(futures::future::join_all(looks).await) {
                let Ok(Look::Refused { reason }) = looked else { panic!("{action:?}: {looked:?}") };
                assert!(reason.contains("migrat"), "{action:?}: {reason}");
            }
            assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
            // A second Drover takes it up instead of starting another; virsh is refused by libvirt.
            assert_eq!(look(&other, &moving(&m)).await.unwrap(), Look::Running);
            let second = lab.virsh("a", &["migrate", "--live", "--p2p", vm.name(), &lab.uri("b")]);
            assert!(!second.status.success(), "two migrations of one machine");
            // The destination's half cannot end it: libvirt lets the call wait until there is no job any more.
            let abort = ["-c", &lab.uri("b"), "domjobabort", vm.name()];
            aborts = Some(lab.client_command("virsh", &abort).spawn().unwrap());
            // Suspended it changes nothing any more; libvirt lets it go on at the destination.
            lab.virsh_ok("a", &["suspend", vm.name()]);
            hurry(&lab, &vm, "a");
        });
        result.await.unwrap();
        assert!(!aborts.unwrap().wait().unwrap().success(), "it was aborted at the destination");
        assert_eq!(moved(&writer, &m).await.state, RunState::Running, "libvirt lets it go on there");
        assert_eq!(lab.processes(vm.name()), ["b"]);
    });
}

/// What must not be done to half of a migration.
fn forbidden(host: &str, uuid: Uuid, name: &str) -> Vec<MachineAction> {
    let host = || host.to_owned();
    vec![
        MachineAction::PauseDomain { host: host(), uuid },
        MachineAction::ShutdownDomain { host: host(), uuid, timeout_millis: 1, force: true },
        MachineAction::SetOwner { host: host(), uuid, owner: mark("somebody") },
        MachineAction::RemoveOwner { host: host(), uuid },
        MachineAction::RenameDomain { host: host(), uuid, name: format!("{name}-else") },
        MachineAction::SetAutostart { host: host(), uuid, autostart: true },
        MachineAction::ChangeLive { host: host(), uuid, change: LiveChange::Memory { kib: 65_536 } },
        MachineAction::UpdateDomain { host: host(), uuid, edits: vec![], expect: String::new() },
        MachineAction::UndefineDomain { host: host(), uuid, nvram: false },
    ]
}

/// Case 69: the power goes while it moves.
#[test]
fn a_machine_that_ends_while_it_moves_is_off_where_it_was() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("ends");
    let uuid = vast(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(1), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(SOON));
        let end = async || drop(lab.virsh_ok("a", &["destroy", vm.name()]));
        let error = while_under_way(act(&writer, &m, &step), &step, end).await.unwrap_err();
        assert!(error.message.contains("it is off ("), "{error}");
        let here = domain(&writer, "a", uuid).await.unwrap();
        assert_eq!((here.state, here.persistent, here.owner), (RunState::Off, true, Some(mark(vm.name()))));
        assert!(domain(&writer, "b", uuid).await.is_none(), "the destination has something of it");
        assert!(lab.processes(vm.name()).is_empty());
        assert!(refusal(&writer, &moving(&m)).await.contains("a live migration was planned"));
    });
}

/// Case 66: an abort that comes before there is anything to abort.
#[test]
fn a_move_that_is_aborted_before_it_has_begun_does_not_take_place() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("early");
    let uuid = vast(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(1), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        let (step, orders) = commanded(SOON);
        abort(&orders);
        let begun = Instant::now();
        let error = act(&writer, &m, &step).await.unwrap_err();
        assert!(error.message.contains("not wanted any more") && !error.transient, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        runs_on_alone(&lab, &writer, &m).await;
    });
}

/// Cases 55, 66 and 68: what an aborted move was given is not there for the next.
#[test]
fn a_move_after_an_aborted_one_starts_with_nothing_of_it() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("again");
    let uuid = vast(&lab, &vm);
    let m = migration(&lab, &vm, uuid);
    let longest = || lab.virsh_ok("a", &["migrate-getmaxdowntime", vm.name()]);
    let speed = || lab.virsh_ok("a", &["migrate-getspeed", vm.name()]);
    let unlimited = speed();
    in_client(&lab, async || {
        let writer = writer();
        let first = Migration { bandwidth_mib: Some(1), max_downtime_millis: Some(2_500), ..m.clone() };
        let (step, orders) = commanded(SOON);
        let result = while_under_way(act(&writer, &first, &step), &step, async || {
            assert_eq!((longest().as_str(), speed().as_str()), ("2500", "1"));
            abort(&orders);
        });
        assert!(result.await.unwrap_err().message.contains("so it was aborted"));
        runs_on_alone(&lab, &writer, &m).await;

        assert_eq!((longest(), speed()), ("300".to_owned(), unlimited.clone()), "libvirt's own limits");
        let step = super::step(SOON);
        let second = Migration { bandwidth_mib: Some(1), ..m.clone() };
        let result = while_under_way(act(&writer, &second, &step), &step, async || {
            assert_eq!(longest(), "300", "libvirt's own limit");
            hurry(&lab, &vm, "a");
        });
        result.await.unwrap();
        moved(&writer, &m).await;
        // Nothing runs any more: there is nothing to abort.
        assert!(!lab.virsh("b", &["domjobabort", vm.name()]).status.success());
    });
}
