//! Daemons and links break in the middle of a migration.

use super::*;

/// A machine of the quick start that runs on host a and moves slowly, and since when it has been watched.
fn slow<'lab>(fleet: &mut Fleet<'lab>, policy: &str) -> (Rc<Guest<'lab>>, SystemTime) {
    let vm = fleet.machine("web");
    fleet.change(&vm, "cpus: 1", &format!("cpus: 1\n  migrationPolicy: {policy}"));
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(3);
    (vm, SystemTime::now())
}

/// Pushes a move, and waits until it is under way.
fn begin_move(fleet: &Fleet<'_>, vm: &Guest<'_>, from: &str, to: &str) -> String {
    fleet.change(vm, &format!("host: kvm-{from}"), &format!("host: kvm-{to}"));
    let commit = fleet.push(&format!("to kvm-{to}"));
    fleet.is_under_way(vm, from);
    commit
}

/// Lets the attempt that is under way end, and asserts that the machine is there, alone, and has lived all the time.
fn arrives(fleet: &mut Fleet<'_>, vm: &Guest<'_>, since: SystemTime, commit: &str, (from, to): (&str, &str)) {
    fleet.is_under_way(vm, from);
    fleet.hurry(vm, from);
    fleet.settles(commit);
    fleet.runs_only_on(vm, to);
    fleet.has_nothing_to_do();
    fleet.has_lived(vm, since, to);
}

#[test]
fn daemons_that_die_and_links_that_are_cut_during_a_migration_cost_a_second_attempt_and_no_machine() {
    let Some(lab) = Lab::alone() else { return };
    let mut fleet = Fleet::new(&lab, "faults");
    let (vm, since) = slow(&mut fleet, "slow");
    for (from, to, fault) in [("a", "b", "its libvirt"), ("b", "a", "the other libvirt"), ("a", "b", "the link")] {
        let before = fleet.log_text().len();
        let commit = begin_move(&fleet, &vm, from, to);
        let failed = format!("the migration of `{}` from `kvm-{from}` to `kvm-{to}` failed", vm.name());
        let is_told = |fleet: &Fleet<'_>| {
            wait_for(&format!("the daemon tells that {fault} failed"), PATIENCE, || {
                let log = fleet.log_text().split_off(before);
                if log.contains(&failed) { Ok(()) } else { Err(log) }
            });
        };
        if fault == "the link" {
            lab.cut(to);
            is_told(&fleet);
            assert_eq!(vm.state(from), "running");
            fleet.has_lived(&vm, since, from);
            lab.heal(to);
            // It may rest after its failures; whoever has mended the link need not wait for that.
            fleet.look_now();
        } else {
            let dies = if fault == "its libvirt" { from } else { to };
            lab.daemon(dies, "kill");
            // A while without it: long enough to be asked in vain.
            std::thread::sleep(Duration::from_secs(2));
            lab.daemon(dies, "start");
            is_told(&fleet);
        }
        arrives(&mut fleet, &vm, since, &commit, (from, to));
    }
}

#[test]
fn a_post_copy_that_loses_its_link_is_left_alone_and_ends_when_the_link_is_back() {
    let Some(lab) = Lab::alone() else { return };
    let mut fleet = Fleet::new(&lab, "postcopy");
    let split = "---\napiVersion: drover/v1alpha1\nkind: MigrationPolicy\nmetadata: {name: split}\n\
                 spec: {bandwidth: 20Mbit/s, postCopy: {after: 2s}, timeout: {after: 5m}}\n";
    fleet.write("split.yaml", split);
    let (vm, since) = slow(&mut fleet, "split");
    // The policy's bandwidth does not hold in post-copy.
    lab.rate("b", Some(20_000));
    let commit = begin_move(&fleet, &vm, "a", "b");
    let reasons = || HOSTS.map(|h| lab.virsh_ok(h, &["domstate", "--reason", vm.name()]));
    wait_for("post-copy, with the guest running on b", PATIENCE, || match reasons() {
        states if states[0].contains("post-copy") && states[1].starts_with("running") => Ok(()),
        states => Err(format!("{states:?}\n{}", fleet.log_text())),
    });
    lab.cut_between("a", "b");
    lab.rate("b", None);
    let broke = |s: &DaemonStatus| {
        s.last.as_ref().is_some_and(|l| {
            l.summary
                .findings
                .iter()
                .any(|f| f.code == drover::finding::Code::NeedsAPerson && f.message.contains(vm.name()))
        })
    };
    fleet.until("the fault is named", broke);
    fleet.status_text().says(&["D0415", "post-copy migration broke", "heal the link", "loses the machine's memory"]);
    fleet.plan(&[]).exits(4).says(&["D0415", "heal the link"]);
    // Both halves are there, and stay.
    let halves = reasons();
    assert!(halves[0].contains("paused (post-copy failed)") && halves[1].contains("post-copy"), "{halves:?}");
    assert_eq!(lab.processes(vm.name()), ["a", "b"]);

    lab.heal_between("a", "b");
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    fleet.has_nothing_to_do();
    fleet.has_lived(&vm, since, "b");
}
