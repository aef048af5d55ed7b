//! A host that cannot be reached: unknown is not absent.

use super::*;
use drover::daemon::PassResult;

#[test]
fn a_host_out_of_reach_is_left_alone_with_all_that_may_be_on_it_and_the_rest_goes_on() {
    let Some(lab) = Lab::alone() else { return };
    let mut fleet = Fleet::new(&lab, "reach");
    let here = fleet.bare_machine("here", "a");
    let leaver = fleet.bare_machine("leaver", "a");
    let there = fleet.bare_machine("there", "b");
    // What Git changes is no drift, however long it has to wait.
    fleet.change(&there, "cpus: 1", "cpus: 1\n  drift: Report");
    let first = fleet.push("two here, one there");
    fleet.start();
    fleet.settles(&first);
    let autostart = |host: &str, vm: &Guest<'_>| {
        let info = lab.virsh_ok(host, &["dominfo", vm.name()]);
        info.lines().find_map(|l| l.strip_prefix("Autostart:")).map(|v| v.trim().to_owned()).unwrap()
    };

    lab.cut("b");
    for vm in [&here, &there] {
        fleet.change(vm, "cpus: 1", "cpus: 1\n  autostart: true");
    }
    fleet.change(&leaver, "host: kvm-a", "host: kvm-b");
    let new = fleet.bare_machine("new", "a");
    let commit = fleet.push("something for everyone");
    let status = fleet.until("a pass for it", |s| s.last.as_ref().is_some_and(|l| l.commit == commit));
    assert_eq!(status.last.unwrap().summary.result, PassResult::Incomplete);
    assert!(!status.hosts["kvm-b"].known && status.hosts["kvm-b"].why.is_some() && status.hosts["kvm-a"].known);
    assert_eq!(autostart("a", &here), "enable", "the host that is there goes on");
    assert_eq!((there.state("b").as_str(), autostart("b", &there).as_str()), ("running", "disable"));
    fleet.runs_only_on(&leaver, "a");
    assert_eq!(HOSTS.map(|h| new.state(h)), ["absent", "absent"], "it may be on the host that cannot be read");
    let may_be = format!("`{}` was not found, and may be on kvm-b", there.name());
    fleet.plan(&[]).exits(5).says(&["D0401", &may_be, "bring the host back"]);
    fleet.status_text().exits(0).says(&["kvm-b", "unknown", &may_be]);

    lab.heal("b");
    fleet.look_now();
    fleet.settles(&commit);
    assert_eq!(autostart("b", &there), "enable");
    fleet.runs_only_on(&leaver, "b");
    fleet.runs_only_on(&new, "a");
    fleet.has_nothing_to_do();
}
