//! VirtualMachineMigrations and `drover migrate` on real hosts, by the program itself.

use super::*;
use drover::plan::MoveCounts;

const MARK: &str = "https://drover.dev/xmlns/libvirt/moves/1";
const OWNER: &str = "https://drover.dev/xmlns/libvirt/1";

impl Fleet<'_> {
    /// Writes a migration.
    fn migration(&self, name: &str, spec: &str) {
        let head = "apiVersion: drover/v1alpha1\nkind: VirtualMachineMigration\nmetadata";
        self.write(&format!("{name}.yaml"), &format!("{head}: {{name: {name}}}\nspec: {{{spec}}}\n"));
    }

    fn no_migration(&self, name: &str) {
        std::fs::remove_file(self.origin.work().join(format!("{name}.yaml"))).unwrap();
    }

    /// How far a migration is, by the plan.
    fn counts(&self, name: &str) -> MoveCounts {
        let plan = self.plan(&["-o", "json"]).json();
        let resources = plan["resources"].as_array().unwrap();
        let one = resources.iter().find(|r| r["kind"] == "VirtualMachineMigration" && r["name"] == name).unwrap();
        serde_json::from_value(one["moves"].clone()).unwrap()
    }

    /// Waits until a machine is in these states on a and b.
    #[track_caller]
    fn comes_to(&self, vm: &Guest<'_>, expected: [&str; 2]) {
        wait_for("a machine's states", PATIENCE, || match HOSTS.map(|h| vm.state(h)) {
            states if states == expected => Ok(()),
            states => Err(format!("{} is {states:?}, not {expected:?}\n{}", vm.name(), self.log_text())),
        });
    }

    /// Asserts that a machine runs on b without a definition there, and that its home a has one.
    #[track_caller]
    fn is_away(&self, vm: &Guest<'_>) {
        let persistent = |host: &str| {
            let info = self.lab.virsh_ok(host, &["dominfo", vm.name()]);
            info.lines().find_map(|l| l.strip_prefix("Persistent:")).map(|p| p.trim().to_owned()).unwrap()
        };
        assert_eq!(HOSTS.map(|h| vm.state(h)), ["shut off", "running"]);
        assert_eq!(HOSTS.map(persistent), ["yes", "no"]);
        assert_eq!(self.lab.processes(vm.name()), ["b"]);
    }
}

fn by_hand(lab: &Lab, vm: &Guest<'_>, from: &str, to: &str) {
    lab.virsh_ok(from, &["migrate", "--live", "--p2p", "--persistent", "--undefinesource", vm.name(), &lab.uri(to)]);
}

#[test]
fn a_machine_without_a_manifest_moves_once_and_stays_somebody_else_s() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "foreign-move");
    let vm = fleet.guest("legacy");
    vm.define("a", &["boot=none", "mem=64"]);
    vm.start("a");
    lab.virsh_ok("a", &["autostart", vm.name()]);
    let uuid = lab.virsh_ok("a", &["domuuid", vm.name()]);
    let before = lab.virsh_ok("a", &["dumpxml", "--inactive", vm.name()]);
    fleet.migration("one", &format!("machine: {}, to: kvm-b", vm.name()));
    let first = fleet.push("legacy to kvm-b");
    fleet.plan(&[]).exits(2).says(&[
        "VirtualMachineMigration/one",
        "0 of 1 moved, 1 waiting",
        &format!("live-migrate {} from kvm-a to kvm-b", vm.name()),
    ]);
    // Its CPU was compared and its dirty rate measured, though no manifest names it.
    let checks = super::prechecks::checks(&fleet.plan(&["-o", "json"]).json(), "one");
    let of = |name: &str| checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{checks:#?}"));
    assert_eq!((&of("cpu")["verdict"], &of("convergence")["verdict"]), (&"Pass".into(), &"Pass".into()), "{checks:#?}");
    let words = of("convergence")["message"].as_str().unwrap();
    assert!(words.starts_with("it writes ") && words.contains("can be sent"), "{words}");
    assert!(of("cpu")["message"].as_str().unwrap().contains("`kvm-b` offers all that its CPU"), "{checks:#?}");
    fleet.start();
    fleet.settles(&first);
    fleet.runs_only_on(&vm, "b");
    fleet.has_nothing_to_do();
    assert_eq!(fleet.counts("one"), MoveCounts { total: 1, moved: 1, ..MoveCounts::default() });
    let info = lab.virsh_ok("b", &["dominfo", vm.name()]);
    assert!(info.contains("Autostart:      enable") && info.contains("Persistent:     yes"), "{info}");
    assert_eq!(lab.virsh_ok("b", &["domuuid", vm.name()]), uuid);
    for which in [&["dumpxml", vm.name()][..], &["dumpxml", "--inactive", vm.name()]] {
        let xml = lab.virsh_ok("b", which);
        assert!(xml.contains(MARK) && !xml.contains(OWNER), "{xml}");
    }
    let state = fleet.state_folder().display().to_string();
    let done = format!("live-migrate {} from kvm-a to kvm-b", vm.name());
    fleet.drover(&["history", "--state", &state]).exits(0).says(&[&done, "done"]);

    // Moved away again by somebody; the journal deleted, too: this revision has had its turn.
    assert_eq!(fleet.terminate(), 0);
    std::fs::remove_dir_all(fleet.state_folder()).unwrap();
    by_hand(&lab, &vm, "b", "a");
    fleet.start();
    fleet.settles(&first);
    fleet.runs_only_on(&vm, "a");
    fleet.has_nothing_to_do();
    // Another revision runs; and once it is gone, nothing of it is left.
    fleet.migration("one", &format!("machine: {}, to: kvm-b, run: again", vm.name()));
    let again = fleet.push("again");
    fleet.settles(&again);
    fleet.runs_only_on(&vm, "b");
    // What it did is in the status, also of a daemon that was started after that.
    assert_eq!(fleet.terminate(), 0);
    fleet.start();
    fleet.settles(&again);
    let told = fleet.status_text().exits(0).out;
    let run = told.split("VirtualMachineMigration/one ran at ").nth(1).unwrap_or_else(|| panic!("{told}"));
    let rows: Vec<Vec<&str>> = run.lines().map(|l| l.split_whitespace().collect()).collect();
    assert!(told.contains("1 of 1 moved") && run.lines().next().unwrap().contains(&again[..7]), "{told}");
    assert_eq!(rows[2][..4], [vm.name(), "kvm-a", "kvm-b", "moved"], "{told}");
    fleet.no_migration("one");
    let gone = fleet.push("done with it");
    fleet.settles(&gone);
    fleet.runs_only_on(&vm, "b");
    let after = lab.virsh_ok("b", &["dumpxml", "--inactive", vm.name()]);
    assert!(!after.contains("drover"), "{after}");
    assert_eq!(after.replace("<metadata>\n  </metadata>\n", ""), before);
}

#[test]
fn a_selector_s_machines_are_elsewhere_for_a_while_in_order_and_one_at_a_time() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "stay");
    let machines: Vec<_> = ["one", "two", "three"].into_iter().map(|n| fleet.bare_machine(n, "a")).collect();
    for vm in &machines {
        fleet.change(vm, &format!("name: {}", vm.name()), &format!("name: {}\n  labels: {{app: web}}", vm.name()));
        fleet.change(vm, "cpus: 1", "cpus: 1\n  autostart: true");
    }
    let first = fleet.push("three machines at home");
    fleet.start();
    fleet.settles(&first);
    let [one, two, three] = [0, 1, 2].map(|i| machines[i].name().to_owned());
    fleet.migration(
        "trip",
        &format!(
            "selector: {{matchLabels: {{app: web}}}}, to: kvm-b, permanent: false, parallelism: 1, order: [{three}, {one}]"
        ),
    );
    let trip = fleet.push("to kvm-b for a while");
    fleet.settles(&trip);
    for vm in &machines {
        fleet.is_away(vm);
    }
    fleet.has_nothing_to_do();
    let moves: Vec<(String, jiff::Timestamp, Option<jiff::Timestamp>)> = fleet
        .history()
        .into_iter()
        .flat_map(|p| p.steps)
        .filter(|s| s.action == "MigrateVirtualMachine")
        .map(|s| (s.summary, s.started_at, s.finished_at))
        .collect();
    let mut moves = moves;
    moves.sort_by_key(|m| m.1);
    let names: Vec<_> = moves.iter().map(|m| m.0.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(names, [three, one, two], "{moves:?}");
    assert!(moves.windows(2).all(|w| w[0].2.is_some_and(|end| end <= w[1].1)), "two at once: {moves:?}");

    // One goes off there: it is its home's again, which starts it, and is not moved a second time.
    lab.virsh_ok("b", &["destroy", machines[0].name()]);
    fleet.comes_to(&machines[0], ["running", "absent"]);
    fleet.look_now();
    std::thread::sleep(Duration::from_secs(8));
    fleet.runs_only_on(&machines[0], "a");
    fleet.is_away(&machines[1]);

    // An update while it is away is one of its definition at home.
    fleet.change(&machines[1], "cpus: 1", "cpus: 1\n  title: changed");
    let changed = fleet.push("a title");
    fleet.settles(&changed);
    fleet.is_away(&machines[1]);
    assert!(lab.virsh_ok("a", &["dumpxml", machines[1].name()]).contains("<title>changed</title>"));

    // Nobody wants them elsewhere any more.
    fleet.no_migration("trip");
    let home = fleet.push("home");
    fleet.settles(&home);
    for vm in &machines {
        fleet.runs_only_on(vm, "a");
        let info = lab.virsh_ok("a", &["dominfo", vm.name()]);
        assert!(info.contains("Autostart:      enable") && info.contains("Persistent:     yes"), "{info}");
        assert!(!lab.virsh_ok("a", &["dumpxml", vm.name()]).contains(MARK));
    }
    fleet.has_nothing_to_do();
}

#[test]
fn a_migration_that_is_taken_out_of_git_while_it_runs_is_aborted() {
    let Some(lab) = Lab::shared() else { return };
    for killed in [false, true] {
        let mut fleet = Fleet::new(&lab, if killed { "cancel-dead" } else { "cancel" });
        let vm = fleet.machine("web");
        fleet.edit("policies.yaml", "bandwidth: 40Mbit/s", "bandwidth: 8Mbit/s");
        let first = fleet.push("web on kvm-a");
        fleet.start();
        fleet.settles(&first);
        vm.wait_beats(10);
        let since = SystemTime::now();
        let spec = format!("machine: {}, to: kvm-b, permanent: false, migrationPolicy: slow", vm.name());
        fleet.migration("trip", &spec);
        let trip = fleet.push("to kvm-b");
        fleet.until("memory flows", |s| {
            s.current.as_ref().is_some_and(|c| c.commit == trip)
                && lab.virsh_ok("a", &["domjobinfo", vm.name()]).contains("Memory processed")
        });
        if killed {
            // And its memory with it: what is known is known from the machine.
            fleet.kill();
            std::fs::remove_dir_all(fleet.state_folder()).unwrap();
        }
        fleet.no_migration("trip");
        let taken_back = fleet.push("no, stay");
        if killed {
            fleet.start();
        }
        fleet.settles(&taken_back);
        fleet.runs_only_on(&vm, "a");
        vm.wait_beats(3);
        let gap = vm.gap(since);
        assert_eq!((gap.sources.len(), gap.back), (1, 0), "it has been on the other host: {gap:?}");
        let log = fleet.log_text();
        assert!(log.contains("`trip` is not in Git any more") || log.contains("abort the migration of"), "{log}");
        fleet.has_nothing_to_do();
        assert!(!lab.virsh_ok("a", &["dumpxml", vm.name()]).contains(MARK));
    }
}

/// `suspend: true` half way: who has moved stays there, the move that runs is aborted, and no other begins. It goes on where
/// it stopped when the line is gone.
#[test]
fn a_migration_that_is_suspended_half_way_stops_there_and_goes_on_later() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "suspend");
    fleet.edit("policies.yaml", "bandwidth: 40Mbit/s", "bandwidth: 8Mbit/s");
    let (first, last) = (fleet.bare_machine("first", "a"), fleet.bare_machine("last", "a"));
    for vm in [&first, &last] {
        fleet.change(vm, &format!("name: {}", vm.name()), &format!("name: {}\n  labels: {{app: web}}", vm.name()));
    }
    let web = fleet.machine("web");
    let commit = fleet.push("three machines at home");
    fleet.start();
    fleet.settles(&commit);
    web.wait_beats(10);
    let since = SystemTime::now();
    let spec = format!(
        "selector: {{matchLabels: {{app: web}}}}, to: kvm-b, permanent: false, migrationPolicy: slow, parallelism: 1, \
         order: [{}, {}, {}]",
        first.name(),
        web.name(),
        last.name()
    );
    fleet.migration("trip", &spec);
    fleet.push("to kvm-b for a while");
    fleet.is_under_way(&web, "a");
    fleet.migration("trip", &format!("{spec}, suspend: true"));
    let stop = fleet.push("stop");
    fleet.settles(&stop);
    fleet.is_away(&first);
    fleet.runs_only_on(&web, "a");
    fleet.runs_only_on(&last, "a");
    web.wait_beats(3);
    assert_eq!(web.gap(since).sources.len(), 1, "it has been on the other host");
    assert_eq!(fleet.counts("trip"), MoveCounts { total: 3, moved: 1, waiting: 2, ..MoveCounts::default() });
    fleet.status_text().says(&["Suspended", "1 of 3 moved"]);
    fleet.has_nothing_to_do();

    fleet.edit("policies.yaml", "bandwidth: 8Mbit/s", "bandwidth: 2Gbit/s");
    fleet.migration("trip", &spec);
    let on = fleet.push("and on");
    fleet.settles(&on);
    for vm in [&first, &web, &last] {
        fleet.is_away(vm);
    }
    assert_eq!(web.gap(since).back, 0);
    fleet.has_nothing_to_do();
}

#[test]
fn drover_migrate_writes_a_manifest_or_does_it_now() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "command");
    let pinned = fleet.bare_machine("pinned", "a");
    let legacy = fleet.guest("legacy");
    legacy.define("a", &["boot=none", "mem=64"]);
    legacy.start("a");
    fleet.commit("one machine");
    let (work, state) = (fleet.work(), fleet.state_folder().display().to_string());
    fleet.drover(&["apply", &work, "--auto-approve", "--state", &state]).exits(0);

    // The line to change.
    let diff = fleet.drover(&["migrate", pinned.name(), &work, "--to", "kvm-b"]).exits(0);
    assert!(diff.err.contains("`host: kvm-b` there moves it for good"), "{}", diff.err);
    let file = fleet.origin.work().join("move.patch");
    std::fs::write(&file, &diff.out).unwrap();
    git(&fleet.origin.work(), &["apply", "--check", "move.patch"]);
    std::fs::remove_file(file).unwrap();
    fleet.drover(&["migrate", pinned.name(), &work, "--to", "kvm-b", "--now", "--auto-approve"]).exits(4);
    fleet.runs_only_on(&pinned, "a");

    // Written, valid, and what the plan then does.
    let made = fleet.drover(&["migrate", legacy.name(), &work, "--to", "kvm-b"]).exits(0);
    assert!(made.out.contains("kind: VirtualMachineMigration") && made.out.contains("from: kvm-a"), "{}", made.out);
    let name = format!("{}-to-kvm-b", legacy.name());
    assert!(made.out.contains(&format!("name: {name}")), "{}", made.out);
    fleet.drover(&["migrate", "nobody", &work, "--to", "kvm-b"]).exits(1).says(&["neither a VirtualMachine `nobody`"]);
    fleet.drover(&["migrate", legacy.name(), &work, "--to", "kvm-x"]).exits(64).says(&["no Host `kvm-x`"]);

    // Now, for a machine without manifest: asked first, then done, and found done.
    let now = ["migrate", legacy.name(), &work, "--to", "kvm-b", "--now", "--state", &state];
    fleet.drover(&now).exits(4).says(&["nobody can be asked"]);
    fleet
        .drover(&[&now[..], &["--auto-approve"]].concat())
        .exits(0)
        .says(&[&format!("live-migrate {} from kvm-a to kvm-b", legacy.name()), "Applied: 1 done"]);
    fleet.runs_only_on(&legacy, "b");
    fleet.drover(&now).exits(0).says(&["is on `kvm-b` already"]);
    // Hosts by URI, no manifests at all.
    let empty = tempfile::tempdir().unwrap();
    let (a, b) = (format!("kvm-a={}", lab.uri("a")), format!("kvm-b={}", lab.uri("b")));
    let folder = empty.path().display().to_string();
    fleet
        .drover(&[
            "migrate",
            legacy.name(),
            &folder,
            "--from",
            &b,
            "--to",
            &a,
            "--now",
            "--auto-approve",
            "--state",
            &state,
        ])
        .exits(0);
    fleet.runs_only_on(&legacy, "a");

    // For a while, with a manifest of its own, written into the repository, and home again.
    let trip =
        ["migrate", pinned.name(), &work, "--to", "kvm-b", "--temporary", "--now", "--auto-approve", "-o", &work];
    fleet.drover(&[&trip[..], &["--state", &state]].concat()).exits(0).says(&["for a while"]);
    fleet.is_away(&pinned);
    fleet.has_nothing_to_do();
    std::fs::remove_dir_all(fleet.origin.work().join("migrations")).unwrap();
    fleet.drover(&["apply", &work, "--auto-approve", "--state", &state]).exits(0).says(&["its home"]);
    fleet.runs_only_on(&pinned, "a");
    fleet.has_nothing_to_do();
}
