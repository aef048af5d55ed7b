//! What somebody does by hand: put right, or told of.

use super::*;
use drover::finding::Code;

#[test]
fn what_is_done_by_hand_is_undone_or_reported() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "drift");
    let kept = fleet.bare_machine("kept", "a");
    let told = fleet.bare_machine("told", "a");
    fleet.change(&told, "cpus: 1", "cpus: 1\n  drift: Report");
    let first = fleet.push("two machines");
    fleet.start();
    fleet.settles(&first);

    // Moved by hand.
    for vm in [&kept, &told] {
        let flags = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource", vm.name(), &lab.uri("b")];
        lab.virsh_ok("a", &flags);
    }
    wait_for("it is moved back", PATIENCE, || match HOSTS.map(|h| kept.state(h)) {
        [a, b] if a == "running" && b == "absent" => Ok(()),
        states => Err(format!("{states:?}\n{}", fleet.log_text())),
    });
    let drifted = |s: &DaemonStatus| {
        let drift = |f: &drover::finding::Finding| f.code == Code::Drift && f.message.contains(told.name());
        s.current.is_none() && s.last.as_ref().is_some_and(|l| l.summary.findings.iter().any(drift))
    };
    fleet.until("the other is told of", drifted);
    fleet.runs_only_on(&kept, "a");
    fleet.runs_only_on(&told, "b");

    // Stopped by hand.
    lab.virsh_ok("a", &["destroy", kept.name()]);
    lab.virsh_ok("b", &["destroy", told.name()]);
    wait_for("it is started again", PATIENCE, || match kept.state("a").as_str() {
        "running" => Ok(()),
        other => Err(format!("{other}\n{}", fleet.log_text())),
    });
    let now = SystemTime::now();
    fleet.until("a whole pass afterwards", |s| {
        let began = s.last.as_ref().map(|l| SystemTime::from(l.began_at));
        drifted(s) && began.is_some_and(|b| b > now)
    });
    assert_eq!(told.state("b"), "shut off");
    fleet.status_text().exits(0);
    assert!(fleet.in_doubt().is_empty());
}

#[test]
fn what_fails_rests_until_somebody_asks_or_a_commit_mends_it() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "rest");
    let vm = fleet.bare_machine("web", "a");
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  powerState: Stopped\n  kernel: {image: /srv/guest/nothing}");
    let first = fleet.push("off, with a kernel that is not there");
    let attempts = |fleet: &Fleet<'_>| fleet.log_text().matches(&format!("start {} on kvm-a", vm.name())).count();
    fleet.start();
    fleet.settles(&first);
    fleet.change(&vm, "powerState: Stopped", "powerState: Running");
    fleet.push("on");
    let status = fleet.until("it failed", |s| {
        s.current.is_none() && s.last.as_ref().is_some_and(|l| !l.summary.backing_off.is_empty())
    });
    let resting = status.last.unwrap().summary.backing_off;
    assert!(resting.values().all(|r| r.error.contains("/srv/guest/nothing") && r.failures == 1), "{resting:?}");
    let before = attempts(&fleet);
    // Passes for drift come and go, and do not try it.
    let passes = |fleet: &Fleet<'_>| fleet.log_text().matches("a pass begins").count();
    let seen = passes(&fleet);
    wait_for("two more passes", PATIENCE, || if passes(&fleet) >= seen + 3 { Ok(()) } else { Err(fleet.log_text()) });
    assert_eq!(attempts(&fleet), before, "{}", fleet.log_text());
    fleet.status_text().exits(0).says(&["waits:", "failed once, rests until", "/srv/guest/nothing"]);

    fleet.look_now();
    wait_for("it is tried at once", Duration::from_secs(20), || {
        if attempts(&fleet) > before { Ok(()) } else { Err(fleet.log_text()) }
    });
    fleet.change(&vm, "/srv/guest/nothing", "/srv/guest/vmlinuz");
    let mended = fleet.push("one that is there");
    fleet.settles(&mended);
    fleet.runs_only_on(&vm, "a");
}
