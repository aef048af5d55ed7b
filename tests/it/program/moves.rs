//! The main job: a pushed commit moves a running machine.

use super::*;
use drover::observed::POOL_MARKER;

#[test]
fn a_pushed_commit_moves_a_running_machine_and_leaves_nothing_to_do() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "push");
    let vm = fleet.machine("web");
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  autostart: true");
    let first = fleet.push("web on kvm-a");
    fleet.plan(&[]).exits(2).says(&["kvm-a", vm.name()]);
    fleet.start();
    fleet.settles(&first);
    fleet.runs_only_on(&vm, "a");
    fleet.has_nothing_to_do();
    vm.wait_beats(5);

    // The dry run, before the push: one migration, and nothing is touched by it.
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let commit = fleet.commit("web moves to kvm-b");
    let change = ["plan", &fleet.work(), "--base", "HEAD~1", "--head", "HEAD"];
    fleet.drover(&change).exits(0).says(&[&format!("live-migrate {} from kvm-a to kvm-b", vm.name())]);
    let plan = fleet.drover(&[&change[..], &["-o", "json", "--detailed-exitcode"]].concat()).exits(2).json();
    let actions: Vec<_> = plan["steps"].as_array().unwrap().iter().map(|s| s["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["MigrateVirtualMachine"], "{plan:#}");
    let counts = &plan["summary"];
    let count = |what: &str| counts[what].as_u64().unwrap();
    assert_eq!((count("migrate"), count("create") + count("update") + count("delete") + count("blocked")), (1, 0));
    fleet.runs_only_on(&vm, "a");

    let since = SystemTime::now();
    fleet.send();
    let status = fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    let heard = fleet.has_lived(&vm, since, "b");
    assert_eq!((heard.lost, heard.sources.len()), (0, 2), "{heard:?}");
    fleet.has_nothing_to_do();
    // What libvirt alone does not carry along, and what says whose it is.
    let info = lab.virsh_ok("b", &["dominfo", vm.name()]);
    let is = |key: &str| info.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
    assert_eq!((is("Persistent:"), is("Autostart:")), (Some("yes"), Some("enable")), "{info}");
    for which in [&["dumpxml", vm.name()][..], &["dumpxml", "--inactive", vm.name()]] {
        let xml = lab.virsh_ok("b", which);
        assert!(xml.contains("fleet=\"push\"") || xml.contains("fleet='push'"), "{xml}");
    }
    // What it says of itself.
    assert_eq!((status.failures, status.last.unwrap().summary.error), (0, None));
    let done = format!("live-migrate {} from kvm-a to kvm-b", vm.name());
    let state = fleet.state_folder().display().to_string();
    fleet.drover(&["history", "--state", &state]).exits(0).says(&["succeeded", "done", &done]);
    // Not whether it is idle: a pass for drift, or for what a host told, may run at this moment.
    fleet.status_text().exits(0).says(&[&commit[..7], "kvm-a", "kvm-b"]);

    // The state folder is taken: a second daemon, or an apply, would be a second hand on the same machines.
    let pid = fleet.running().pid();
    let second = fleet.daemon_command(&fleet.state_folder());
    let second: Vec<&str> = second.iter().map(String::as_str).collect();
    fleet.drover(&second).exits(1).says(&["does not start", &format!("process {pid}"), "--state"]);
    fleet.drover(&["apply", &fleet.work(), "--auto-approve", "--state", &state]).exits(4).says(&["another Drover"]);

    assert_eq!(fleet.terminate(), 0);
    lab.virsh_ok("b", &["destroy", vm.name()]);
    let folder = lab.shared_folder().join("push");
    let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    // Beside the marker that tells that the folder is one on both hosts.
    let is_image = |p: &std::path::PathBuf| !p.file_name().unwrap().to_string_lossy().starts_with(POOL_MARKER);
    let images: Vec<_> = files.filter(is_image).collect();
    let [image] = images.as_slice() else { panic!("{images:?}") };
    let disk = vm.check_disk(image);
    assert!(disk.complete && disk.highest >= heard.writes, "{disk:?} {heard:?}");
}

/// How far a move is, and how long it will still take, stands in the status and in the lines of an apply.
#[test]
fn a_move_tells_how_far_it_is_and_what_is_left() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "progress");
    let vm = fleet.machine("web");
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  migrationPolicy: slow");
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(10);
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let there = fleet.push("to kvm-b");
    fleet.is_under_way(&vm, "a");
    // Percent, rate, pass, and what is left.
    let is_figures =
        |line: &str| [" % ", " MiB of ", "MiB/s, pass ", ", about ", " left"].iter().all(|part| line.contains(part));
    let route = |from, to| format!("{} from kvm-{from} to kvm-{to}: ", vm.name());
    wait_for("figures in the status", PATIENCE, || {
        let told = fleet.status_text().out;
        let line = told.lines().find(|l| l.contains(&route("a", "b"))).unwrap_or_default();
        if is_figures(line) { Ok(()) } else { Err(told) }
    });
    fleet.hurry(&vm, "a");
    fleet.settles(&there);
    assert_eq!(fleet.terminate(), 0);

    fleet.change(&vm, "host: kvm-b", "host: kvm-a");
    let state = fleet.state_folder().display().to_string();
    let ran = fleet.drover(&["apply", &fleet.work(), "--auto-approve", "--state", &state]).exits(0);
    let label = format!("migrating {} kvm-b -> kvm-a: ", vm.name());
    let lines: Vec<_> = ran.err.lines().filter(|l| l.contains(&label)).collect();
    assert!(lines.iter().any(|l| is_figures(l)) && lines.last().unwrap().contains("done in "), "{}", ran.err);
    fleet.runs_only_on(&vm, "a");
}

/// QEMU has parallel connections or post-copy, and both from 10.1 on. A policy that wants both gets what ends the move.
#[test]
fn parallel_connections_give_way_to_post_copy() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "both");
    let policy = "---\napiVersion: drover/v1alpha1\nkind: MigrationPolicy\nmetadata: {name: both}\nspec: {bandwidth: 16Mbit/s, \
                  parallelConnections: 2, compression: zstd, postCopy: {after: 2s}, timeout: {after: 5m}}\n";
    fleet.write("both.yaml", policy);
    let vm = fleet.machine("web");
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  migrationPolicy: both");
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(5);
    let since = SystemTime::now();
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let commit = fleet.commit("web moves to kvm-b");
    fleet.plan(&[]).exits(2).says(&["one connection is used", "10.1 on both"]);
    let plan = fleet.plan(&["-o", "json"]).exits(2).json();
    let parameters = &plan["steps"][0]["parameters"];
    assert_eq!(parameters["postCopyAfterMillis"], 2_000, "{plan:#}");
    assert!(parameters["parallel"].is_null() && parameters["tuning"]["compression"].is_null(), "{parameters:#}");
    fleet.send();
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    fleet.has_lived(&vm, since, "b");
    assert!(fleet.log_text().contains("switched to post-copy"), "{}", fleet.log_text());
    fleet.has_nothing_to_do();
}

#[test]
fn two_daemons_that_should_not_be_there_together_do_not_make_two_machines_of_one() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "two");
    let vm = fleet.bare_machine("web", "a");
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    // On one machine the same branch has one daemon, whatever its state folder is. Another branch tells of none.
    let state = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", fleet.port);
    let other = format!("127.0.0.1:{}", fleet.port + 10_000);
    let mut args = fleet.daemon_command(&state.path().join("state"));
    args.iter_mut().filter(|a| **a == listen).for_each(|a| a.clone_from(&other));
    let same: Vec<&str> = args.iter().map(String::as_str).collect();
    fleet.drover(&same).exits(1).says(&["does not start", "another Drover daemon on this machine follows"]);
    args.iter_mut().filter(|a| *a == "main").for_each(|a| "twin".clone_into(a));
    let twin = |fleet: &Fleet<'_>| git(&fleet.origin.work(), &["push", "-q", "-f", "origin", "HEAD:twin"]);
    twin(&fleet);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let log = File::create(state.path().join("log")).unwrap();
    let _second = Daemon(lab.drover(&args).stdin(Stdio::null()).stderr(log).spawn().unwrap());
    let settled = |fleet: &Fleet<'_>, commit: &str| {
        wait_for("the second daemon, too, has nothing left to do", PATIENCE, || {
            let ran = fleet.drover(&["status", "-o", "json", "--server", &format!("http://{other}")]);
            let status: DaemonStatus = serde_json::from_str(&ran.out).map_err(|e| format!("{e}: {}", ran.err))?;
            if status.settled.as_deref() == Some(commit) { Ok(()) } else { Err(format!("{status:#?}")) }
        });
    };
    settled(&fleet, &first);
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "b")] {
        fleet.change(&vm, &format!("host: kvm-{from}"), &format!("host: kvm-{to}"));
        let commit = fleet.push(&format!("to kvm-{to}"));
        twin(&fleet);
        fleet.settles(&commit);
        settled(&fleet, &commit);
        fleet.runs_only_on(&vm, to);
    }
    fleet.has_nothing_to_do();
}
