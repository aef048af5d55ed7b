//! What a newer commit says to a migration that is under way.

use super::*;

/// A machine in the middle of a move from a to b that would take minutes.
fn moving<'lab>(fleet: &mut Fleet<'lab>) -> Rc<Guest<'lab>> {
    let vm = fleet.machine("web");
    fleet.change(&vm, "  host: kvm-a", "  migrationPolicy: slow\n  host: kvm-a");
    fleet.edit("policies.yaml", "bandwidth: 40Mbit/s", "bandwidth: 8Mbit/s");
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
    let vm = moving(&mut fleet);
    fleet.edit("policies.yaml", "bandwidth: 8Mbit/s", "bandwidth: 2Gbit/s");
    let faster = fleet.push("faster");
    let begun = std::time::Instant::now();
    fleet.settles(&faster);
    assert!(begun.elapsed() < Duration::from_secs(40), "at 8 Mbit/s it takes minutes: {:?}", begun.elapsed());
    fleet.runs_only_on(&vm, "b");
    assert!(fleet.log_text().contains("bandwidth of a running migration is another now"), "{}", fleet.log_text());
    fleet.has_nothing_to_do();
}

/// `git revert` while the machine moves: it stays where it is, and is not moved there and back.
#[test]
fn a_move_that_is_reverted_in_git_is_aborted() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "reverted");
    let since = SystemTime::now();
    let vm = moving(&mut fleet);
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
