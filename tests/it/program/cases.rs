//! Cases of docs/migration-cases.md that are about the plan, or about the program as a whole.

use super::*;
use drover::observed::OwnerMark;
use std::time::Instant;

/// The actions of a plan, in its order.
fn actions(plan: &serde_json::Value) -> Vec<String> {
    plan["steps"].as_array().unwrap().iter().map(|s| s["action"].as_str().unwrap().to_owned()).collect()
}

/// Carries out what is in the working folder.
fn apply(fleet: &Fleet<'_>) -> Ran {
    let state = fleet.state_folder().display().to_string();
    fleet.drover(&["apply", &fleet.work(), "--auto-approve", "--state", &state])
}

/// A machine's number on a host: another one after a restart.
fn number(fleet: &Fleet<'_>, vm: &Guest<'_>, host: &str) -> String {
    fleet.lab.virsh_ok(host, &["domid", vm.name()])
}

/// Case 80: two machines change places, and a third follows one of them, all at the same time.
#[test]
fn machines_change_places_at_once() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "swap");
    fleet.edit("policies.yaml", "maxDisruptive: 1", "maxDisruptive: 3");
    let here = [fleet.bare_machine("first", "a"), fleet.bare_machine("third", "a")];
    let there = fleet.bare_machine("second", "b");
    apply(&fleet).exits(0);
    here.iter().for_each(|vm| fleet.change(vm, "host: kvm-a", "host: kvm-b"));
    fleet.change(&there, "host: kvm-b", "host: kvm-a");
    fleet.plan(&[]).exits(2).says(&["3 to migrate"]);
    apply(&fleet).exits(0);
    here.iter().for_each(|vm| fleet.runs_only_on(vm, "b"));
    fleet.runs_only_on(&there, "a");
    fleet.has_nothing_to_do();
}

/// Case 82, and 29 as a plan tells it.
#[test]
fn a_second_definition_goes_if_it_is_ours_and_off_and_the_machine_runs_elsewhere() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "twice");
    let vm = fleet.bare_machine("web", "a");
    apply(&fleet).exits(0);
    let running = number(&fleet, &vm, "a");
    let file = fleet.state_folder().join("twin.xml");
    let ours = lab.virsh_ok("a", &["dumpxml", "--inactive", vm.name()]);
    let define = |xml: &str| {
        std::fs::write(&file, xml).unwrap();
        lab.virsh_ok("b", &["define", file.to_str().unwrap()]);
    };
    let nothing_happened = || {
        assert_eq!((number(&fleet, &vm, "a").as_str(), vm.state("b").as_str()), (running.as_str(), "shut off"));
    };

    // Somebody else's, or of another fleet: it stays, and so does the machine.
    let (from, to) = (ours.find("<metadata>").unwrap(), ours.find("</metadata>").unwrap());
    let foreign = format!("{}{}", &ours[..from], &ours[to + "</metadata>".len()..]);
    let other = OwnerMark { fleet: "other".into(), name: vm.name().into(), delete: false, volumes: vec![] };
    let others = format!("{}<metadata>{}{}", &ours[..from], drover::domain_xml::owner_xml(&other), &ours[to..]);
    for xml in [foreign, others] {
        define(&xml);
        let plan = fleet.plan(&["-o", "json"]).json();
        assert!(!actions(&plan).iter().any(|a| a == "UndefineDomain"), "{plan:#}");
        apply(&fleet);
        nothing_happened();
        lab.virsh_ok("b", &["undefine", vm.name()]);
    }

    // Ours: the one that runs is right.
    define(&ours);
    fleet.plan(&[]).exits(2).says(&[&format!("remove the definition of {} that was left on kvm-b", vm.name())]);
    apply(&fleet).exits(0);
    fleet.runs_only_on(&vm, "a");
    assert_eq!(number(&fleet, &vm, "a"), running, "it was restarted");
    fleet.has_nothing_to_do();

    // Both run: an alarm, and nothing is done, also not to what else the manifest says.
    define(&ours);
    vm.start("b");
    fleet.change(&vm, "host: kvm-a", "host: kvm-b\n  autostart: true");
    fleet.plan(&[]).says(&["D0403", "runs on kvm-a and kvm-b at once"]);
    apply(&fleet);
    assert_eq!(lab.processes(vm.name()), ["a", "b"]);
    // Neither runs, and both are ours: nobody can tell.
    lab.virsh_ok("a", &["destroy", vm.name()]);
    lab.virsh_ok("b", &["destroy", vm.name()]);
    fleet.plan(&[]).says(&["D0414", "which one is right cannot be told"]);
    apply(&fleet);
    assert_eq!(HOSTS.map(|h| vm.state(h)), ["shut off", "shut off"], "one was started or removed");
}

/// Case 23 as a plan tells it: to stop "the other copy" would be to stop the machine.
#[test]
fn one_host_under_two_names_is_no_reason_to_stop_a_machine() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "onehost");
    let vm = fleet.bare_machine("web", "a");
    apply(&fleet).exits(0);
    let running = number(&fleet, &vm, "a");
    fleet.edit("hosts.yaml", "qemu+ssh://root@kvm-b/system", "qemu+ssh://root@host-a/system");
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let told = fleet.plan(&[]).says(&["kvm-a and kvm-b are one host", "host_uuid"]);
    assert!(!told.out.contains("virsh destroy") && !told.err.contains("virsh destroy"), "{}\n{}", told.out, told.err);
    apply(&fleet);
    assert_eq!(number(&fleet, &vm, "a"), running);
}

/// Case 84: one commit changes a machine and its host.
#[test]
fn a_machine_that_is_changed_and_moved_by_one_commit_arrives_changed() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "both");
    let live = fleet.bare_machine("live", "a");
    fleet.change(&live, "cpus: 1", "cpus: 1\n  maxCpus: 2");
    let restarts = fleet.bare_machine("restarts", "a");
    let force = "cpus: 1\n  restartPolicy: Allow\n  forceShutdown: true\n  shutdownTimeout: 1s";
    fleet.change(&restarts, "cpus: 1", force);
    apply(&fleet).exits(0);
    let running = number(&fleet, &live, "a");

    // What can be changed while it runs: it is not restarted for it.
    fleet.change(&live, "host: kvm-a", "host: kvm-b");
    fleet.change(&live, "cpus: 1", "cpus: 2\n  autostart: true");
    let order = actions(&fleet.plan(&["-o", "json"]).exits(2).json());
    let at = |what: &str| order.iter().position(|a| a == what).unwrap_or_else(|| panic!("no {what} in {order:?}"));
    assert!(at("ChangeLive") < at("MigrateVirtualMachine"), "{order:?}");
    assert!(!order.iter().any(|a| a == "ShutdownDomain" || a == "StartDomain"), "{order:?}");
    apply(&fleet).exits(0);
    fleet.runs_only_on(&live, "b");
    let cpus = |which: &str| lab.virsh_ok("b", &["vcpucount", live.name(), "--current", which]);
    assert_eq!((cpus("--live").as_str(), cpus("--config").as_str()), ("2", "2"));
    assert!(lab.virsh_ok("b", &["dominfo", live.name()]).contains("enable"));
    assert!(!running.is_empty());
    fleet.has_nothing_to_do();

    // What needs a restart: it moves while it is off, and is changed before it starts again.
    fleet.change(&restarts, "host: kvm-a", "host: kvm-b");
    fleet.change(&restarts, "memory: 64Mi", "memory: 96Mi");
    let order = actions(&fleet.plan(&["-o", "json"]).exits(2).json());
    let at = |what: &str| order.iter().position(|a| a == what).unwrap_or_else(|| panic!("no {what} in {order:?}"));
    assert!(at("ShutdownDomain") < at("MigrateVirtualMachine"), "{order:?}");
    assert!(at("UpdateDomain") < at("StartDomain") && at("MigrateVirtualMachine") < at("StartDomain"), "{order:?}");
    apply(&fleet).exits(0);
    fleet.runs_only_on(&restarts, "b");
    let memory = lab.virsh_ok("b", &["dumpxml", restarts.name()]);
    assert!(memory.contains(&format!("<memory unit='KiB'>{}<", 96 << 10)), "{memory}");
    fleet.has_nothing_to_do();
}

/// Case 71, the part that Drover drives itself: it is cancelled with Drover, and begun anew by the next.
#[test]
fn a_move_that_drover_drives_itself_is_cancelled_when_drover_is_killed() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "driven");
    let driven = "---\napiVersion: drover/v1alpha1\nkind: MigrationPolicy\nmetadata: {name: driven}\n\
                  spec: {control: Managed, bandwidth: 8Mbit/s, timeout: {after: 5m}, prechecks: {memory: Ignore}}\n";
    fleet.write("driven.yaml", driven);
    let vm = fleet.bare_machine("web", "a");
    // Nothing but zeroes, and of those a lot.
    fleet.change(&vm, "memory: 64Mi", "memory: 4Gi\n  migrationPolicy: driven");
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    let number = number(&fleet, &vm, "a");
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    fleet.push("to kvm-b");
    fleet.is_under_way(&vm, "a");
    fleet.kill();
    let begun = Instant::now();
    wait_for("the move is cancelled", Duration::from_secs(20), || {
        let none = lab.virsh_ok("a", &["domjobinfo", vm.name()]).contains("None");
        if none && vm.state("b") == "absent" { Ok(()) } else { Err(vm.state("b")) }
    });
    eprintln!("cancelled within {:?}", begun.elapsed());
    fleet.runs_only_on(&vm, "a");
    assert_eq!(lab.virsh_ok("a", &["domid", vm.name()]), number);
    fleet.edit("driven.yaml", "bandwidth: 8Mbit/s", "bandwidth: 8Gbit/s");
    let commit = fleet.push("faster");
    fleet.start();
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    fleet.has_nothing_to_do();
}

/// Case 71, driven by Drover and in post-copy when Drover is killed: libvirt calls it broken, and both halves stay. It is
/// named and left alone, ends by itself, and the next Drover cleans up after it.
#[test]
fn a_move_in_post_copy_that_drover_drives_itself_outlives_drover() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "driven-split");
    let driven = "---\napiVersion: drover/v1alpha1\nkind: MigrationPolicy\nmetadata: {name: driven}\nspec: {control: Managed, \
                  bandwidth: 20Mbit/s, postCopy: {after: 2s, bandwidth: 40Mbit/s}, timeout: {after: 5m}}\n";
    fleet.write("driven.yaml", driven);
    let vm = fleet.machine("web");
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  migrationPolicy: driven");
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(10);
    let since = SystemTime::now();
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let commit = fleet.push("to kvm-b");
    // Before it is on its way there is nothing of it on b.
    let reason =
        |h| String::from_utf8_lossy(&lab.virsh(h, &["domstate", "--reason", vm.name()]).stdout).trim().to_owned();
    let reasons = || HOSTS.map(reason);
    wait_for("post-copy, with the guest running on b", PATIENCE, || match reasons() {
        states if states[0].contains("post-copy") && states[1].starts_with("running") => Ok(()),
        states => Err(format!("{states:?}\n{}", fleet.log_text())),
    });
    fleet.kill();
    wait_for("libvirt notices", Duration::from_secs(20), || match reasons() {
        states if states[0] == "paused (post-copy failed)" && states[1].starts_with("running") => Ok(()),
        states => Err(format!("{states:?}")),
    });
    fleet.plan(&[]).exits(4).says(&["D0415", "whoever drove the migration was stopped"]);
    assert_eq!(lab.processes(vm.name()), ["a", "b"]);
    fleet.start();
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    fleet.has_lived(&vm, since, "b");
    fleet.has_nothing_to_do();
}

/// Case 70 and 69 from the program's side: a plan beside a move under way does nothing to the machine.
#[test]
fn a_plan_beside_a_move_that_somebody_else_began_waits_for_it() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "beside");
    let vm = fleet.bare_machine("web", "a");
    fleet.change(&vm, "memory: 64Mi", "memory: 4Gi");
    fleet.edit("policies.yaml", "maxDowntime: 300ms", "maxDowntime: 300ms\n  prechecks: {memory: Ignore}");
    apply(&fleet).exits(0);
    let uri = lab.uri("b");
    let flags = ["-c", &lab.uri("a"), "migrate", "--live", "--p2p", "--persistent", "--undefinesource"];
    let args = [&flags[..], &["--bandwidth", "1", vm.name(), &uri]].concat();
    let mut virsh = lab.client_command("virsh", &args).spawn().unwrap();
    fleet.is_under_way(&vm, "a");
    // The manifest says kvm-a, and what it says besides waits, too.
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  autostart: true");
    let plan = fleet.plan(&["-o", "json"]).json();
    assert_eq!(actions(&plan), ["AwaitMigration"], "{plan:#}");
    let _ = lab.virsh("a", &["migrate-setspeed", vm.name(), "1000"]);
    apply(&fleet);
    virsh.wait().unwrap();
    apply(&fleet);
    fleet.runs_only_on(&vm, "a");
    fleet.has_nothing_to_do();
}
