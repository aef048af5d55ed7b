//! What a newer commit says to a migration that is under way.

use super::*;

/// A machine in the middle of a move from a to b that would take minutes, with further fields of its policy.
fn moving<'lab>(fleet: &mut Fleet<'lab>, policy: &str) -> Rc<Guest<'lab>> {
    let vm = fleet.machine("web");
    fleet.change(&vm, "  host: kvm-a", "  migrationPolicy: slow\n  host: kvm-a");
    fleet.edit("policies.yaml", "bandwidth: 40Mbit/s", &format!("bandwidth: 8Mbit/s{policy}"));
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(10);
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let moves = fleet.push("web to kvm-b");
    let lab = fleet.lab;
    fleet.until("memory flows", |s| {
        s.current.as_ref().is_some_and(|c| c.commit == moves)
            && lab.virsh_ok("a", &["domjobinfo", vm.name()]).contains("Memory processed")
    });
    vm
}

/// The bandwidth of the policy is raised in Git while the machine moves: the move that runs gets it.
#[test]
fn a_policy_that_changes_in_git_changes_the_migration_that_runs() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "retune");
    let vm = moving(&mut fleet, "");
    fleet.edit("policies.yaml", "bandwidth: 8Mbit/s", "bandwidth: 2Gbit/s");
    let faster = fleet.push("faster");
    let begun = std::time::Instant::now();
    fleet.settles(&faster);
    assert!(begun.elapsed() < Duration::from_secs(40), "at 8 Mbit/s it takes minutes: {:?}", begun.elapsed());
    fleet.runs_only_on(&vm, "b");
    assert!(fleet.log_text().contains("bandwidth of a running migration is another now"), "{}", fleet.log_text());
    fleet.has_nothing_to_do();
}

/// The longest pause and the switch to post-copy, changed in Git while the machine moves: libvirt has them.
#[test]
fn a_pause_and_a_switch_that_change_in_git_change_the_migration_that_runs() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "repause");
    let since = SystemTime::now();
    let vm = moving(&mut fleet, ", maxDowntime: 40ms, postCopy: {after: 4m, bandwidth: 4Mbit/s}");
    let pause_is = |millis: &str| {
        wait_for(&format!("a longest pause of {millis} ms"), PATIENCE, || {
            let seen = lab.virsh_ok("a", &["migrate-getmaxdowntime", vm.name()]);
            if seen == millis { Ok(()) } else { Err(seen) }
        });
    };
    pause_is("40");
    fleet.edit("policies.yaml", "maxDowntime: 40ms", "maxDowntime: 70ms");
    fleet.push("a longer pause");
    pause_is("70");
    fleet.edit("policies.yaml", "maxDowntime: 70ms, ", "");
    fleet.push("libvirt's own");
    pause_is("300");
    // It is in pre-copy still, and would be for minutes.
    let reasons = || HOSTS.map(|h| lab.virsh_ok(h, &["domstate", "--reason", vm.name()]));
    assert!(reasons()[0].starts_with("running"), "{:?}", reasons());
    fleet.edit("policies.yaml", "after: 4m", "after: 1s");
    fleet.push("switch now");
    wait_for("post-copy, with the guest running on b", PATIENCE, || match reasons() {
        states if states[0].contains("post-copy") && states[1].starts_with("running") => Ok(()),
        states => Err(format!("{states:?}\n{}", fleet.log_text())),
    });
    fleet.edit("policies.yaml", "bandwidth: 4Mbit/s", "bandwidth: 2Gbit/s");
    let last = fleet.push("and be quick");
    fleet.settles(&last);
    fleet.runs_only_on(&vm, "b");
    fleet.has_lived(&vm, since, "b");
    fleet.has_nothing_to_do();
}

/// `git revert` while the machine moves: it stays where it is, and is not moved there and back.
#[test]
fn a_move_that_is_reverted_in_git_is_aborted() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "reverted");
    let since = SystemTime::now();
    let vm = moving(&mut fleet, "");
    fleet.change(&vm, "host: kvm-b", "host: kvm-a");
    let back = fleet.push("no, stay");
    fleet.settles(&back);
    fleet.runs_only_on(&vm, "a");
    vm.wait_beats(3);
    let gap = vm.gap(since);
    assert_eq!(gap.sources.len(), 1, "it has been on the other host: {gap:?}");
    let log = fleet.log_text();
    assert!(log.contains("not wanted any more: the manifest says `kvm-a` again"), "{log}");
    fleet.has_nothing_to_do();
}
