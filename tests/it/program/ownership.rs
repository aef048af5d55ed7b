//! A domain that Drover has not made: refused, or taken over where somebody says so.

use super::*;
use drover::finding::Code;

#[test]
fn a_domain_of_somebody_elses_is_refused_until_its_adoption_is_asked_for() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "foreign");
    let asked = fleet.bare_machine("asked", "a");
    let noted = fleet.bare_machine("noted", "a");
    // More than the mark differs.
    fleet.change(&asked, "cpus: 1", "cpus: 1\n  maxCpus: 2");
    for vm in [&asked, &noted] {
        vm.define("a", &["boot=none", "mem=64"]);
        vm.start("a");
    }
    let all = |vm: &Guest<'_>| {
        let args = [&["domid"][..], &["domuuid"], &["dumpxml"], &["dumpxml", "--inactive"]];
        args.map(|verb| lab.virsh_ok("a", &[verb, &[vm.name()]].concat()))
    };
    // Number and UUID: whoever has the same ones has not been restarted or replaced.
    let which = |vm: &Guest<'_>| [lab.virsh_ok("a", &["domid", vm.name()]), lab.virsh_ok("a", &["domuuid", vm.name()])];
    let is_marked = |vm: &Guest<'_>| {
        let xml = lab.virsh_ok("a", &["dumpxml", "--inactive", vm.name()]);
        xml.contains("fleet=\"foreign\"") || xml.contains("fleet='foreign'")
    };
    let (before, ids) = ([all(&asked), all(&noted)], [which(&asked), which(&noted)]);

    let first = fleet.push("two machines whose names are taken");
    let not_drovers = format!("`{}` on `kvm-a` exists and is not Drover's", asked.name());
    fleet.plan(&[]).exits(4).says(&["D0402", &not_drovers, "--adopt", "drover/adopt"]);
    fleet.start();
    let refused = |s: &DaemonStatus| {
        let findings = s.last.iter().filter(|_| s.current.is_none()).flat_map(|l| &l.summary.findings);
        findings.filter(|f| f.code == Code::NotOwned).count()
    };
    fleet.until("both are refused", |s| refused(s) == 2);
    fleet.status_text().exits(0).says(&["D0402", &not_drovers, "--adopt", "drover/adopt"]);
    let state = fleet.state_folder().display().to_string();
    assert_eq!([all(&asked), all(&noted)], before, "something was done to them");

    // By annotation, through Git: that one, and not the other.
    let annotated = format!("name: {}\n  annotations: {{drover/adopt: \"true\"}}", noted.name());
    fleet.change(&noted, &format!("name: {}", noted.name()), &annotated);
    let commit = fleet.push("take one over");
    assert_ne!(first, commit);
    fleet.until("one is refused", |s| refused(s) == 1 && s.last.as_ref().is_some_and(|l| l.commit == commit));
    assert!(is_marked(&noted));
    assert_eq!(all(&asked), before[0], "something was done to the other");

    // By `--adopt`, by hand.
    assert_eq!(fleet.terminate(), 0);
    let apply = ["apply", &fleet.work(), "--auto-approve", "--state", &state];
    fleet.drover(&apply).exits(4).says(&[&not_drovers]);
    fleet
        .drover(&[&apply[..], &["--adopt", asked.name()]].concat())
        .exits(0)
        .says(&[&format!("adopt {}", asked.name())]);
    assert!(is_marked(&asked));
    assert_eq!([which(&asked), which(&noted)], ids, "they were restarted or replaced");
    fleet.has_nothing_to_do();
    fleet.start();
    fleet.settles(&commit);
    assert_eq!([which(&asked), which(&noted)], ids, "they were restarted or replaced");
}
