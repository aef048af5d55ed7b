//! A host is emptied for its maintenance, and filled by nobody afterwards.

use super::*;

impl<'lab> Fleet<'lab> {
    /// Changes a host's maintenance.
    #[track_caller]
    fn maintain(&self, host: &str, from: &str, to: &str) {
        let line = |m: &str| {
            let m = if m == "None" { String::new() } else { format!("\n  maintenance: {m}") };
            format!("  uri: qemu+ssh://root@{host}/system{m}\n")
        };
        self.edit("hosts.yaml", &line(from), &line(to));
    }

    /// A fleet whose placed machines have nowhere to go but host a at first. Other tests' guests are on the hosts, too.
    fn placed(lab: &'lab Lab, name: &str) -> Self {
        let fleet = Fleet::new(lab, name);
        fleet.maintain("kvm-b", "None", "Cordon");
        // The hosts' limits are what counts here.
        fleet.edit("policies.yaml", "  maxDisruptive: 1 # one machine moves at a time\n", "");
        fleet
    }
}

#[test]
fn a_host_is_emptied_and_gets_nothing_back() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::placed(&lab, "evacuate");
    let placed: Vec<_> = (0..4).map(|n| fleet.bare_machine(&format!("free-{n}"), "a")).collect();
    for vm in &placed {
        fleet.change(vm, "host: kvm-a", "placement: {}");
    }
    let pinned = fleet.bare_machine("pinned", "a");
    let first = fleet.push("all on kvm-a, because kvm-b takes nothing new");
    fleet.start();
    fleet.settles(&first);
    placed.iter().chain([&pinned]).for_each(|vm| fleet.runs_only_on(vm, "a"));

    // In service: who may stay stays.
    fleet.maintain("kvm-b", "Cordon", "None");
    fleet.has_nothing_to_do();
    fleet.maintain("kvm-a", "None", "Evacuate");
    let commit = fleet.commit("kvm-a is emptied");
    let cannot = format!("{} (`host` pins it there)", pinned.name());
    let shown = fleet.plan(&[]).exits(2).says(&["`kvm-a` is being emptied", "machines will move", &cannot]);
    for vm in &placed {
        assert!(shown.out.contains(&format!("live-migrate {} from kvm-a to kvm-b", vm.name())), "{}", shown.out);
    }
    assert!(shown.out.contains("Moves of 4 machines"), "{}", shown.out);
    let markdown = fleet.plan(&["-o", "markdown"]).exits(2);
    assert!(markdown.out.contains("| step | machine | from | to | way |"), "{}", markdown.out);
    fleet.send();
    fleet.settles(&commit);
    placed.iter().for_each(|vm| fleet.runs_only_on(vm, "b"));
    fleet.runs_only_on(&pinned, "a");
    fleet.has_nothing_to_do();

    fleet.maintain("kvm-a", "Evacuate", "None");
    let commit = fleet.push("kvm-a is in service again");
    fleet.settles(&commit);
    placed.iter().for_each(|vm| fleet.runs_only_on(vm, "b"));
    fleet.has_nothing_to_do();
}

#[test]
fn an_evacuation_that_is_reverted_begins_nothing_more() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::placed(&lab, "halfway");
    // One after the other, the slow one first.
    fleet.edit(
        "hosts.yaml",
        "  uri: qemu+ssh://root@kvm-a/system\n",
        "  uri: qemu+ssh://root@kvm-a/system\n  migration: {maxOutgoing: 1}\n",
    );
    let web = fleet.machine("web");
    fleet.change(&web, "host: kvm-a", "placement: {priority: 10} #");
    fleet.change(&web, "  type: qemu", "  migrationPolicy: slow\n  type: qemu");
    let others: Vec<_> = (0..2).map(|n| fleet.bare_machine(&format!("later-{n}"), "a")).collect();
    for vm in &others {
        fleet.change(vm, "host: kvm-a", "placement: {}");
    }
    let first = fleet.push("all on kvm-a");
    fleet.start();
    fleet.settles(&first);
    web.wait_beats(5);
    let since = SystemTime::now();

    fleet.maintain("kvm-b", "Cordon", "None");
    let before = std::fs::read_to_string(fleet.origin.work().join("hosts.yaml")).unwrap();
    fleet.edit("hosts.yaml", "root@kvm-a/system\n", "root@kvm-a/system\n  maintenance: Evacuate\n");
    fleet.push("kvm-a is emptied");
    fleet.is_under_way(&web, "a");
    fleet.status_text().exits(0).says(&[&format!("live-migrate {} from kvm-a to kvm-b", web.name())]);
    fleet.write("hosts.yaml", &before);
    let back = fleet.push("no, it is not");
    fleet.until("the newer commit was seen", |s| s.revision.as_ref().is_some_and(|r| r.commit == back));
    fleet.hurry(&web, "a");
    fleet.settles(&back);
    // What ran ended in one place; what had not begun stayed.
    others.iter().for_each(|vm| fleet.runs_only_on(vm, "a"));
    let host = if web.state("b") == "running" { "b" } else { "a" };
    fleet.runs_only_on(&web, host);
    fleet.has_lived(&web, since, host);
    fleet.has_nothing_to_do();
}

/// One of several fails on the way: it stays, running and named, the others go, and it follows them once it can.
#[test]
fn a_machine_that_fails_to_leave_is_named_and_the_others_go() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::placed(&lab, "one-fails");
    // One attempt to a pass.
    fleet.edit("policies.yaml", "timeout: {after: 5m}}", "timeout: {after: 5m}, retries: 0}");
    let web = fleet.machine("web");
    fleet.change(&web, "host: kvm-a", "placement: {priority: 10} #");
    fleet.change(&web, "  type: qemu", "  migrationPolicy: slow\n  type: qemu");
    let others: Vec<_> = (0..3).map(|n| fleet.bare_machine(&format!("other-{n}"), "a")).collect();
    for vm in &others {
        fleet.change(vm, "host: kvm-a", "placement: {}");
    }
    let first = fleet.push("all on kvm-a");
    fleet.start();
    fleet.settles(&first);
    web.wait_beats(5);
    let since = SystemTime::now();
    fleet.maintain("kvm-b", "Cordon", "None");
    fleet.maintain("kvm-a", "None", "Evacuate");
    let commit = fleet.push("kvm-a is emptied");
    fleet.is_under_way(&web, "a");
    assert!(lab.inside("b", &["pkill", "-9", "-f", &format!("guest={},", web.name())]).status.success());
    fleet.until("the others have gone and one rests", |s| {
        s.last.as_ref().is_some_and(|l| l.commit == commit && !l.summary.backing_off.is_empty())
    });
    let failed = format!("the migration of `{}` from `kvm-a` to `kvm-b` failed", web.name());
    fleet.status_text().says(&["failed once, rests until", &failed]);
    let steps = |pass: &PassRecord| {
        let is = |s: &drover::journal::StepRecord| matches!(s.outcome, Some(drover::journal::Outcome::Done));
        (pass.steps.iter().filter(|s| is(s)).count(), pass.steps.iter().filter(|s| !is(s)).count())
    };
    let history = fleet.history();
    assert!(history.iter().any(|pass| steps(pass) == (3, 1)), "one pass, in which three went: {history:?}");
    others.iter().for_each(|vm| fleet.runs_only_on(vm, "b"));
    assert_eq!(web.state("a"), "running");
    fleet.has_lived(&web, since, "a");

    fleet.look_now();
    fleet.is_under_way(&web, "a");
    fleet.hurry(&web, "a");
    fleet.settles(&commit);
    fleet.runs_only_on(&web, "b");
    fleet.has_lived(&web, since, "b");
    fleet.has_nothing_to_do();
}
