//! CPUs and predictions, with the program itself: the common CPU of the hosts as a command and as `cpu.mode: Baseline`, and
//! what a move was beside what was predicted of it.

use super::*;
use drover::plan::precopy::{Convergence, Prediction};

/// The step of a plan that moves a machine: its prediction, and what was found about a precheck.
fn move_of(plan: &serde_json::Value, check: &str) -> (Prediction, String, String) {
    let steps = plan["steps"].as_array().unwrap();
    let step = steps.iter().find(|s| s["action"] == "MigrateVirtualMachine").unwrap_or_else(|| panic!("{plan:#}"));
    let prediction = serde_json::from_value(step["estimate"]["prediction"].clone()).unwrap();
    let found = step["checks"].as_array().unwrap().iter().find(|c| c["name"] == check).unwrap();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (prediction, text("verdict"), format!("{} {}", text("message"), text("hint")))
}

#[test]
fn the_common_cpu_is_told_in_every_form() {
    let Some(lab) = Lab::shared() else { return };
    let fleet = Fleet::new(&lab, "cpus");
    let ask =
        |more: &[&str]| fleet.drover(&[&["cpu-baseline", "--hosts", "kvm-a,kvm-b", &fleet.work()], more].concat());
    ask(&[]).exits(0).says(&["model", "computed", "kvm-a", "restricts nothing"]);
    let xml = ask(&["-o", "xml"]).exits(0).out;
    let cpu = drover::domain_xml::guest_cpu(&xml).unwrap_or_else(|| panic!("{xml}"));
    let yaml = ask(&["-o", "yaml"]).exits(0).out;
    assert!(yaml.starts_with("cpu:\n") && yaml.contains(&format!("model: {}", cpu.model)), "{yaml}");
    let json = ask(&["-o", "json"]).exits(0).json();
    assert_eq!(json["cpu"]["features"].as_array().map_or(0, Vec::len), cpu.features.len());
    assert_eq!(json["hosts"].as_object().unwrap().len(), 2);
    // Hosts without a manifest, of which one is not there.
    let (a, gone) = (format!("x={}", lab.uri("a")), "y=qemu+tcp://10.77.0.77/system");
    fleet.drover(&["cpu-baseline", "--hosts", &a]).exits(0);
    fleet
        .drover(&["cpu-baseline", "--hosts", &a, "--hosts", gone])
        .exits(5)
        .says(&["`y` could not be read", "not known"]);
    fleet.drover(&["cpu-baseline", "--hosts", "kvm-z", &fleet.work()]).exits(64).says(&["no Host `kvm-z`"]);
    fleet.drover(&["cpu-baseline", "--hosts", &a, "--type", "xen"]).exits(1).says(&["no `xen` machines"]);
}

#[test]
fn a_machine_with_the_common_cpu_is_restarted_once_and_moves_there_and_back() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "baseline");
    let vm = fleet.bare_machine("cpu", "a");
    let state = fleet.state_folder().display().to_string();
    let apply =
        |fleet: &Fleet<'_>| fleet.drover(&["apply", &fleet.work(), "--auto-approve", "--state", &state]).exits(0);
    apply(&fleet);
    // The machine has no guest that would answer a shutdown.
    fleet.change(
        &vm,
        "  cpus: 1\n",
        "  cpus: 1\n  cpu: {mode: Baseline}\n  forceShutdown: true\n  shutdownTimeout: 3s\n",
    );
    fleet.plan(&[]).exits(2).says(&["Baseline (", "the common CPU of kvm-a, kvm-b", "needs a restart", "D0405"]);
    fleet.runs_only_on(&vm, "a");
    fleet.change(&vm, "  cpus: 1\n", "  cpus: 1\n  restartPolicy: Allow\n");
    apply(&fleet).says(&["start"]);
    fleet.has_nothing_to_do();
    let model = |host: &str| {
        let xml = lab.virsh_ok(host, &["dumpxml", vm.name()]);
        drover::domain_xml::cpu_of(&xml).unwrap().text_at("model").unwrap()
    };
    let before = model("a");
    for (from, to) in [("a", "b"), ("b", "a")] {
        fleet.change(&vm, &format!("host: kvm-{from}"), &format!("host: kvm-{to}"));
        let plan = fleet.plan(&["-o", "json"]).exits(2).json();
        let (_, verdict, found) = move_of(&plan, "cpu");
        assert!(verdict == "Pass" && found.contains(&before), "{verdict} {found}");
        apply(&fleet);
        fleet.runs_only_on(&vm, to);
        assert_eq!(model(to), before);
        fleet.has_nothing_to_do();
    }
    // A host that cannot be read: not computed, and nothing changed.
    fleet.edit("hosts.yaml", "root@kvm-b/", "root@kvm-z/");
    fleet.plan(&[]).says(&["D0417", "stays as it is"]);
}

#[test]
fn a_move_is_as_it_was_predicted_and_one_that_does_not_converge_is_told_beforehand() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "foretold");
    let vm = fleet.machine("told");
    fleet.change(&vm, "dirty=16 rate=4", "dirty=64 rate=12");
    let state = fleet.state_folder().display().to_string();
    let apply =
        |fleet: &Fleet<'_>| fleet.drover(&["apply", &fleet.work(), "--auto-approve", "--state", &state]).exits(0);
    apply(&fleet);
    vm.wait_beats(30);
    // A link on which it would take for ever, and less than a pass in the time that it has.
    let narrow = "---\napiVersion: drover/v1alpha1\nkind: MigrationPolicy\nmetadata: {name: narrow}\n\
                  spec: {bandwidth: 1MiB/s, maxDowntime: 1ms, timeout: {after: 5s}}\n";
    let policies = std::fs::read_to_string(fleet.origin.work().join("policies.yaml")).unwrap();
    fleet.write("policies.yaml", &(policies + narrow));
    fleet.change(&vm, "host: kvm-a", "host: kvm-b\n  migrationPolicy: narrow");
    let plan = fleet.plan(&["-o", "json"]).exits(2).json();
    let (prediction, verdict, found) = move_of(&plan, "convergence");
    assert_eq!(prediction.convergence, Convergence::Never, "{found}");
    assert!(verdict == "Warn" && found.contains("any of these would help") && found.contains("bandwidth"), "{found}");
    assert!(prediction.dirty_rate.is_some(), "{prediction:?}");

    fleet.change(&vm, "\n  migrationPolicy: narrow", "");
    let plan = fleet.plan(&["-o", "json"]).exits(2).json();
    let (prediction, verdict, found) = move_of(&plan, "convergence");
    assert_eq!((verdict.as_str(), prediction.convergence), ("Pass", Convergence::Converges), "{found}");
    apply(&fleet);
    fleet.runs_only_on(&vm, "b");
    let figures = |fleet: &Fleet<'_>| {
        let steps = fleet.history().into_iter().flat_map(|p| p.steps);
        steps.filter_map(|s| s.figures).next().expect("a move is in the history")
    };
    let first = figures(&fleet);
    let predicted = first.predicted.expect("a prediction stands beside it");
    assert!(predicted.seconds.holds(first.measured.seconds), "{first:?}");
    assert!(predicted.bytes.holds(first.measured.bytes), "{first:?}");
    assert!(predicted.downtime_millis.holds(first.measured.downtime_millis), "{first:?}");
    fleet.drover(&["history", "--state", &state]).exits(0).says(&["predicted", "stood still for"]);

    // The way back rests on the way there.
    fleet.change(&vm, "host: kvm-b", "host: kvm-a");
    apply(&fleet);
    let second = figures(&fleet);
    assert_eq!(second.predicted.unwrap().past_moves, 1, "{second:?}");
    assert!(second.predicted.unwrap().seconds.holds(second.measured.seconds), "{second:?}");
}
