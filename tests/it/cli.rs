//! The program as people and scripts call it: exit codes, outputs, help. The environment is empty and the folder is new.

mod import;

use assert_cmd::Command;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;

/// A folder for one test, and the program in it.
struct World {
    folder: TempDir,
}

const HOSTS: &str = "\
apiVersion: drover/v1alpha1
kind: Host
metadata: {name: kvm-a}
spec: {uri: 'sim://a'}
---
apiVersion: drover/v1alpha1
kind: Host
metadata: {name: kvm-b}
spec: {uri: 'sim://b'}
";

const MACHINE: &str = "\
apiVersion: drover/v1alpha1
kind: VirtualMachine
metadata: {name: web-1}
spec:
  host: kvm-a
  cpus: 2
  memory: 1Gi
";

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn with(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn drover(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        command.args(args).current_dir(self.path()).env_clear().env("HOME", self.path());
        command
    }

    /// Exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let out = self.drover(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    }
}

fn host(domains: Value) -> Value {
    json!({"Present": {"hostname": "h", "driver": "SIM", "arch": "x86_64", "cpus": 8, "memory": 34359738368u64,
        "freeMemory": 34359738368u64, "domainTypes": ["kvm"], "machineTypes": ["pc-q35-10.0"],
        "machineAliases": {"q35": "pc-q35-10.0"}, "domains": domains}})
}

/// An observation of two hosts, of now, so that it is not stale.
fn observation(a: Value, b: Value) -> String {
    let now = jiff::Timestamp::now();
    // The variants of a reading are written in camelCase.
    let lower = |v: Value| match v {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(k, v)| (k[..1].to_lowercase() + &k[1..], v)).collect())
        }
        other => other,
    };
    json!({"formatVersion": "1.0", "takenAt": now, "hosts": {"kvm-a": lower(a), "kvm-b": lower(b)}}).to_string()
}

fn empty_hosts() -> String {
    observation(host(json!([])), host(json!([])))
}

fn fleet() -> World {
    World::new().with("fleet/hosts.yaml", HOSTS).with("fleet/vms.yaml", MACHINE)
}

// One test for each row of the contract's table.

#[test]
fn exit_0_when_there_is_nothing_to_do() {
    let world = World::new().with("fleet/hosts.yaml", HOSTS).with("seen.json", empty_hosts());
    let (code, out, err) = world.run(&["plan", "fleet", "--observed", "seen.json", "--detailed-exitcode"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(out.lines().last(), Some("No changes. The world matches the manifests in fleet."));
}

#[test]
fn exit_1_when_something_fails() {
    let (code, out, err) = fleet().run(&["plan", "fleet", "--observed", "nowhere.json"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("error: `nowhere.json` could not be read: No such file"), "{err}");
}

#[test]
fn exit_2_for_changes_only_when_asked() {
    let world = fleet().with("seen.json", empty_hosts());
    let (code, out, err) = world.run(&["plan", "fleet", "--observed", "seen.json", "--detailed-exitcode"]);
    assert_eq!(code, 2, "{out}{err}");
    assert!(out.contains("# VirtualMachine/web-1 will be created"), "{out}");
    assert!(out.trim_end().ends_with("2 unchanged, 0 blocked, 0 unknown."), "{out}");
    let (code, ..) = world.run(&["plan", "fleet", "--observed", "seen.json"]);
    assert_eq!(code, 0);
}

#[test]
fn exit_3_for_manifests_with_errors() {
    let world = fleet().with("fleet/bad.yaml", MACHINE.replace("memory", "memroy").replace("web-1", "web-2"));
    for command in
        [&["validate", "fleet"][..], &["plan", "fleet"], &["apply", "fleet", "--auto-approve"], &["observe", "fleet"]]
    {
        let (code, out, err) = world.run(command);
        assert_eq!(code, 3, "{command:?}: {out}{err}");
        let said = if command[0] == "validate" { out } else { err };
        assert!(said.contains("bad.yaml:7:3") && said.contains("did you mean `memory`?"), "{command:?}: {said}");
    }
}

#[test]
fn exit_4_when_a_policy_refuses() {
    // A domain of the name is there, and Drover does not own it.
    let stranger = json!({"name": "web-1", "uuid": "6b8b4567-327b-43c6-a643-c98663643c98", "state": "Running",
        "persistent": true, "liveXml": "<domain type='kvm'><name>web-1</name></domain>",
        "persistentXml": "<domain type='kvm'><name>web-1</name></domain>"});
    let world = fleet().with("seen.json", observation(host(json!([stranger])), host(json!([]))));
    let (code, out, err) = world.run(&["plan", "fleet", "--observed", "seen.json", "--detailed-exitcode"]);
    assert_eq!(code, 4, "{out}{err}");
    assert!(out.contains("D0402") && out.contains("--adopt"), "{out}");
}

#[test]
fn exit_5_when_a_host_could_not_be_read() {
    let world = fleet().with("seen.json", observation(json!({"Unknown": {"why": "no route"}}), host(json!([]))));
    let (code, out, err) = world.run(&["plan", "fleet", "--observed", "seen.json", "--detailed-exitcode"]);
    assert_eq!(code, 5, "{out}{err}");
    assert!(out.contains("no route"), "{out}");
}

#[test]
fn exit_64_for_wrong_usage_and_never_claps_2() {
    let world = fleet();
    for args in [
        &[][..],
        &["frobnicate"],
        &["plan", "--frobnicate"],
        &["plan", "-o", "yaml"],
        &["plan", "--head", "main"],
        &["explain", "Frob"],
        &["explain", "VirtualMachine.frob"],
        &["schema", "Frob"],
        &["plan", "fleet", "--adopt", "nobody", "--observed", "seen.json"],
        &["status", "--server", "nowhere"],
        &["history", "-n", "many"],
    ] {
        if args.contains(&"seen.json") {
            std::fs::write(world.path().join("seen.json"), empty_hosts()).unwrap();
        }
        let (code, out, err) = world.run(args);
        assert_eq!(code, 64, "{args:?}: {out}{err}");
        assert_eq!(out, "", "{args:?}: usage errors are no results");
        assert!(!err.is_empty());
    }
}

#[test]
fn help_and_version_are_results_and_no_errors() {
    let world = World::new();
    let (code, out, err) = world.run(&["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for command in [
        "validate",
        "plan",
        "apply",
        "daemon",
        "observe",
        "import",
        "status",
        "history",
        "schema",
        "explain",
        "completions",
    ] {
        assert!(out.lines().any(|l| l.trim_start().starts_with(command)), "{command} is missing:\n{out}");
        let (code, help, _) = world.run(&[command, "--help"]);
        assert!(code == 0 && help.contains("Usage: drover"), "{command}");
    }
    for row in
        ["0   done", "1   failed", "2   there are changes", "3   invalid", "4   refused", "5   incomplete", "64  wrong"]
    {
        assert!(out.contains(row), "{row} is missing:\n{out}");
    }
    let (code, out, _) = world.run(&["--version"]);
    assert_eq!((code, out.as_str()), (0, concat!("drover ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let world = fleet().with("seen.json", empty_hosts());
    for args in [
        &["schema", "VirtualMachine"][..],
        &["explain", "VirtualMachine"],
        &["plan", "fleet", "--observed", "seen.json"],
        &["plan", "fleet", "--observed", "seen.json", "-o", "json"],
        &["completions", "bash"],
        &["--help"],
        &["validate", "fleet", "-o", "sarif"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
        command.args(args).current_dir(world.path()).env_clear().stdin(Stdio::null());
        let out = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(!err.contains("panicked") && !err.contains("error"), "{args:?}: {err}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let world = World::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(["schema", "Host"]).current_dir(world.path()).env_clear();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8(out.stderr).unwrap().contains("No space left"));
}

#[test]
fn it_runs_without_home_terminal_and_standard_input() {
    let world = fleet();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(["validate", "fleet"]).current_dir(world.path()).env_clear().stdin(Stdio::null());
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

#[test]
fn colour_is_asked_for_or_comes_from_a_terminal() {
    let world = fleet().with("seen.json", empty_hosts());
    let args = ["plan", "fleet", "--observed", "seen.json"];
    let plain = world.run(&args).1;
    assert!(!plain.contains('\u{1b}'));
    let coloured = world.run(&[&args[..], &["--color", "always"]].concat()).1;
    assert!(coloured.contains("\u{1b}[32m"));
    let out = world.drover(&args).env("NO_COLOR", "1").env("DROVER_COLOR", "auto").output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), plain);
}

#[test]
fn manifests_come_from_standard_input() {
    let world = World::new();
    let out = world.drover(&["validate", "-"]).write_stdin(format!("{HOSTS}---\n{MACHINE}")).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let bad = world.drover(&["validate", "-"]).write_stdin("kind: [\n").output().unwrap();
    assert_eq!(bad.status.code(), Some(3), "{bad:?}");
    assert!(String::from_utf8(bad.stdout).unwrap().contains("-:"));
}

#[test]
fn a_path_that_is_not_there_says_what_to_give() {
    let (code, _, err) = World::new().run(&["validate", "nowhere"]);
    assert_eq!(code, 1);
    assert!(err.contains("`nowhere` is not there") && err.contains("hint: give a folder"), "{err}");
}

/// A small corpus: what is wrong, and what each form must say of it.
#[test]
fn validate_says_the_same_in_every_form() {
    let world = World::new().with("fleet/hosts.yaml", HOSTS).with(
        "fleet/vms.yaml",
        MACHINE.replace("kvm-a", "kvm-9")
            + "---\n"
            + &MACHINE.replace("web-1", "web-2").replace("cpus: 2", "cpus: two"),
    );
    let (code, text, _) = world.run(&["validate", "fleet"]);
    assert_eq!(code, 3);
    assert!(text.contains("D0302") && text.contains("vms.yaml:5:") && text.contains("D0204"), "{text}");

    let (code, out, _) = world.run(&["validate", "fleet", "-o", "json"]);
    assert_eq!(code, 3);
    let value: Value = serde_json::from_str(&out).unwrap();
    let codes: Vec<&str> = value["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"D0302") && codes.contains(&"D0204"), "{codes:?}");

    let (code, out, _) = world.run(&["validate", "fleet", "-o", "github"]);
    assert_eq!(code, 3);
    assert!(out.lines().any(|l| l.starts_with("::error file=") && l.contains("line=5")), "{out}");

    let (code, out, _) = world.run(&["validate", "fleet", "-o", "sarif"]);
    assert_eq!(code, 3);
    let sarif: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let rules: Vec<&str> =
        sarif["runs"][0]["results"].as_array().unwrap().iter().map(|r| r["ruleId"].as_str().unwrap()).collect();
    assert_eq!(rules.len(), codes.len());
}

#[test]
fn validate_in_json_is_json_also_when_all_is_well() {
    let (code, out, _) = fleet().run(&["validate", "fleet", "-o", "json"]);
    assert_eq!(code, 0);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["summary"]["errors"], 0);
}

#[test]
fn explain_tells_type_default_allowed_values_and_whether_it_is_needed() {
    let world = World::new();
    let (code, out, _) = world.run(&["explain", "VirtualMachine.powerState"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!(out);
    let (_, with_spec, _) = world.run(&["explain", "virtualmachine.spec.powerState"]);
    assert_eq!(with_spec, out, "`spec.` may be left out, and case does not matter");
    let (_, disk, _) = world.run(&["explain", "VirtualMachine.disks[0].size"]);
    assert!(disk.contains("FIELD:    spec.disks.size <string or integer>"), "{disk}");
    let (_, uri, _) = world.run(&["explain", "Host.uri"]);
    assert!(uri.contains("<string, required>"), "{uri}");
    let (code, _, err) = world.run(&["explain", "VirtualMachine.disks.siez"]);
    assert_eq!(code, 64);
    assert!(err.contains("did you mean `size`?"), "{err}");
    for kind in ["Host", "StoragePool", "VirtualMachine", "MigrationPolicy", "Settings"] {
        let (code, out, _) = world.run(&["explain", kind]);
        assert!(code == 0 && out.contains("FIELDS of spec:") && !out.contains("(not described)"), "{kind}: {out}");
    }
}

#[test]
fn schema_prints_what_schema_write_writes() {
    let world = World::new();
    let (code, list, _) = world.run(&["schema"]);
    assert!(code == 0 && list.contains("virtual-machine.schema.json"), "{list}");
    let (code, out, _) = world.run(&["schema", "VirtualMachine"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["title"], "VirtualMachine");
    let (code, ..) = world.run(&["schema", "--write", "schemas"]);
    assert_eq!(code, 0);
    assert_eq!(std::fs::read_to_string(world.path().join("schemas/virtual-machine.schema.json")).unwrap(), out);
    let (_, plan, _) = world.run(&["schema", "plan"]);
    assert_eq!(std::fs::read_to_string(world.path().join("schemas/plan.schema.json")).unwrap(), plan);
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = World::new().run(&["completions", shell]);
        assert!(code == 0 && out.contains("observe") && out.contains("detailed-exitcode"), "{shell}");
    }
}

#[test]
fn plan_has_three_forms_of_one_content() {
    let world = fleet().with("seen.json", empty_hosts());
    let args = |form| ["plan", "fleet", "--observed", "seen.json", "-o", form];
    let (_, markdown, _) = world.run(&args("markdown"));
    assert!(markdown.starts_with("<!-- drover-plan -->\n"), "{markdown}");
    let (_, out, _) = world.run(&args("json"));
    let plan: drover::plan::Plan = serde_json::from_str(&out).unwrap();
    assert_eq!(plan.summary.create, 1);
    assert!(markdown.contains(&plan.hash));
    assert_eq!(world.run(&args("json")).1, out, "the same to the byte");
}

#[test]
fn a_saved_plan_is_the_plan_that_was_shown() {
    let world = fleet().with("seen.json", empty_hosts());
    let (_, out, _) = world.run(&["plan", "fleet", "--observed", "seen.json", "-o", "json", "--out", "plan.json"]);
    assert_eq!(std::fs::read_to_string(world.path().join("plan.json")).unwrap(), out);
}

#[test]
fn what_is_no_observation_is_refused_with_the_reason() {
    let said = |text: &str| {
        let (code, _, err) = fleet().with("x.json", text).run(&["plan", "fleet", "--observed", "x.json"]);
        assert_eq!(code, 1, "{err}");
        err
    };
    assert!(said("hello").contains("`x.json` is not an observation"));
    assert!(said("{}").contains("has no `formatVersion`"));
    assert!(said(r#"{"formatVersion":"2.0"}"#).contains("format version 2.0; this Drover reads 1."));
    assert!(said(r#"{"formatVersion":"1.0"}"#).contains("missing field"));
}

#[test]
fn plan_from_an_observation_opens_no_socket() {
    // A host that nobody answers for, and no network at all: the plan comes at once all the same.
    let world = World::new()
        .with("fleet/hosts.yaml", HOSTS.replace("sim://a", "qemu+tls://192.0.2.1/system"))
        .with("seen.json", empty_hosts());
    let strace = std::process::Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let args = ["plan", "fleet", "--observed", "seen.json"];
    if strace.is_ok_and(|s| s.success()) {
        let mut command = std::process::Command::new("strace");
        command.args(["-f", "-e", "trace=socket,connect", "-o", "trace.txt", env!("CARGO_BIN_EXE_drover")]).args(args);
        let status = command.current_dir(world.path()).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(0));
        let trace = std::fs::read_to_string(world.path().join("trace.txt")).unwrap();
        assert!(!trace.contains("socket("), "{trace}");
    } else {
        let start = std::time::Instant::now();
        assert_eq!(world.run(&args).0, 0);
        assert!(start.elapsed().as_secs() < 5, "it waited for somebody");
    }
}

#[test]
fn status_says_when_no_daemon_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (code, _, err) = World::new().run(&["status", "--server", &address]);
    assert_eq!(code, 1);
    assert!(err.contains(&format!("the daemon at {address} does not answer")) && err.contains("--server"), "{err}");
}

#[test]
fn history_reads_a_journal_and_says_where_none_is() {
    let world = World::new();
    let (code, _, err) = world.run(&["history", "--state", "."]);
    assert!(code == 1 && err.contains("there is no journal"), "{err}");
}

#[test]
fn the_configuration_file_is_checked() {
    let world = fleet().with("drover.toml", "poll-intervall = \"5s\"\n");
    let (code, _, err) = world.run(&["validate", "fleet", "--config", "drover.toml"]);
    assert_eq!(code, 64);
    assert!(err.contains("drover.toml:1:1") && err.contains("poll-intervall"), "{err}");
}

#[test]
fn apply_without_a_terminal_asks_for_auto_approve() {
    let (code, out, err) = fleet().run(&["apply", "fleet"]);
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.contains("--auto-approve"), "{err}");
}

/// Git, without what the machine's user has configured.
fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = std::process::Command::new("git");
    command.args(args).current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", folder).env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@example.com");
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn base_and_head_show_what_a_change_does() {
    let world = World::new().with("repo/hosts.yaml", HOSTS).with("seen.json", empty_hosts());
    let repo = world.path().join("repo");
    git(&repo, &["init", "-q", "-b", "main"]);
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-q", "-m", "hosts"]);
    let base = git(&repo, &["rev-parse", "HEAD"]);
    std::fs::write(repo.join("vms.yaml"), MACHINE).unwrap();
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-q", "-m", "a machine"]);
    let head = git(&repo, &["rev-parse", "HEAD"]);
    let (code, out, err) = world.run(&["plan", "repo", "--observed", "seen.json", "--base", &base, "-o", "json"]);
    assert_eq!(code, 0, "{err}");
    let plan: drover::plan::Plan = serde_json::from_str(&out).unwrap();
    assert_eq!(plan.revision.commit.as_deref(), Some(head.as_str()));
    assert_eq!(plan.revision.base.as_deref(), Some(base.as_str()));
    assert_eq!(plan.summary.create, 1);
    let same = ["plan", "repo", "--observed", "seen.json", "--base", &head, "--head", "main", "--detailed-exitcode"];
    let (code, out, _) = world.run(&same);
    assert_eq!(code, 0, "{out}");
    let short = &head[..7];
    let line = format!("No changes. Commit {short} does nothing that commit {short} does not do.");
    assert_eq!(out.lines().last(), Some(line.as_str()));
    // A revision is read from the object database: files in the folder do not matter.
    std::fs::write(repo.join("vms.yaml"), "kind: [\n").unwrap();
    assert_eq!(world.run(&["validate", "repo", "--rev", "main"]).0, 0);
    assert_eq!(world.run(&["validate", "repo"]).0, 3);
}

#[test]
fn a_bare_repository_needs_a_revision() {
    let world = World::new();
    git(world.path(), &["init", "-q", "--bare", "fleet.git"]);
    let (code, _, err) = world.run(&["validate", "fleet.git"]);
    assert_eq!(code, 64);
    assert!(err.contains("--rev HEAD"), "{err}");
}

/// Hosts that are kept in a file, so that one run sees what another did.
fn simulated(world: &World, args: &[&str]) -> (i32, String, String) {
    let mut command = world.drover(args);
    command.env("DROVER_SIM_STATE", world.path().join("sim.json"));
    let out = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

const APPLY: &[&str] = &["apply", "fleet", "--auto-approve", "--state", "state"];

#[test]
fn apply_makes_it_so_and_the_next_plan_is_empty() {
    let world = fleet();
    let (code, out, err) = simulated(&world, APPLY);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("will be created") && out.contains("Applied:") && out.contains(" 0 failed"), "{out}");
    assert!(err.lines().any(|l| l.contains("/") && l.contains("done in")), "progress has a line for each end: {err}");
    let (code, out, err) = simulated(&world, &["plan", "fleet", "--detailed-exitcode"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("No changes."), "{out}");

    // One line moves the machine, and the plan says so before.
    world_write(&world, "fleet/vms.yaml", &MACHINE.replace("kvm-a", "kvm-b"));
    let (code, out, _) = simulated(&world, &["plan", "fleet", "--detailed-exitcode"]);
    assert_eq!(code, 2);
    assert!(out.contains("# VirtualMachine/web-1 will be migrated from kvm-a to kvm-b"), "{out}");
    let (code, out, err) = simulated(&world, APPLY);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("migrating web-1 kvm-a -> kvm-b: done in"), "{err}");
    let (_, out, _) = simulated(&world, &["observe", "fleet"]);
    assert!(out.lines().any(|l| l.starts_with("kvm-b") && l.contains("web-1") && l.contains("running")), "{out}");

    let (code, out, _) = simulated(&world, &["history", "--state", "state"]);
    assert_eq!(code, 0);
    assert!(out.contains("pass 2") && out.contains("succeeded") && out.contains("VirtualMachine/web-1"), "{out}");
    let (code, out, _) = simulated(&world, &["status", "--state", "state"]);
    assert!(code == 0 && out.contains("pass 2") && !out.contains("pass 1"), "{out}");
}

const POOL: &str = "\
---
apiVersion: drover/v1alpha1
kind: StoragePool
metadata: {name: images}
spec: {type: dir, target: /srv/images, shared: true, hosts: [kvm-a, kvm-b]}
";

/// A volume that is missing is made where the machine is, after its move: two plans, one command.
#[test]
fn apply_goes_on_until_nothing_is_due_where_nobody_is_asked() {
    let world = fleet();
    world_write(&world, "fleet/pool.yaml", POOL);
    assert_eq!(simulated(&world, APPLY).0, 0);
    let disk = "  disks: [{name: data, pool: images, size: 1Gi, format: qcow2}]\n";
    world_write(&world, "fleet/vms.yaml", &(MACHINE.replace("kvm-a", "kvm-b") + disk));
    let (code, out, err) = simulated(&world, APPLY);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(out.matches("Applied:").count(), 2, "{out}");
    assert!(!out.contains("again"), "{out}");
    let (code, out, _) = simulated(&world, &["plan", "fleet", "--detailed-exitcode"]);
    assert_eq!(code, 0, "{out}");
}

fn world_write(world: &World, name: &str, text: &str) {
    std::fs::write(world.path().join(name), text).unwrap();
}

#[test]
fn a_saved_observation_plans_as_the_hosts_do() {
    let world = fleet();
    for form in ["json", "yaml"] {
        let (code, out, err) = simulated(&world, &["observe", "fleet", "-o", form]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("formatVersion") && out.contains("kvm-b"), "{out}");
        world_write(&world, &format!("seen.{form}"), &out);
    }
    let direct = simulated(&world, &["plan", "fleet", "-o", "json"]).1;
    let saved = simulated(&world, &["plan", "fleet", "-o", "json", "--observed", "seen.json"]).1;
    let hash = |text: &str| serde_json::from_str::<Value>(text).unwrap()["hash"].clone();
    assert_eq!(hash(&direct), hash(&saved));
}

#[test]
fn a_saved_plan_that_no_longer_fits_is_refused_and_says_what_differs() {
    let world = fleet();
    simulated(&world, &["plan", "fleet", "--out", "plan.json"]);
    world_write(&world, "fleet/more.yaml", &MACHINE.replace("web-1", "web-2"));
    let apply = ["apply", "plan.json", "--auto-approve", "--state", "state"];
    let (code, out, err) = simulated(&world, &apply);
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.contains("does not fit what is there now") && err.contains("new:") && err.contains("web-2"), "{err}");
    assert!(simulated(&world, &["observe", "fleet"]).1.lines().all(|l| !l.contains("web-1")), "nothing was done");
    // As it was: then it fits.
    std::fs::remove_file(world.path().join("fleet/more.yaml")).unwrap();
    let (code, out, err) = simulated(&world, &apply);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_saved_plan_that_somebody_edited_is_refused() {
    let world = fleet();
    let (code, ..) = simulated(&world, &["plan", "fleet", "--out", "plan.json"]);
    assert_eq!(code, 0);
    let text = std::fs::read_to_string(world.path().join("plan.json")).unwrap();
    for (from, to) in [("\"create\": 1", "\"create\": 0"), ("\"host\": \"kvm-a\"", "\"host\": \"kvm-b\"")] {
        assert!(text.contains(from), "{text}");
        world_write(&world, "plan.json", &text.replacen(from, to, 1));
        let (code, _, err) = simulated(&world, &["apply", "plan.json", "--auto-approve", "--state", "state"]);
        assert_eq!(code, 4, "{err}");
        assert!(err.contains("was changed after it was saved"), "{err}");
    }
}

#[test]
fn a_new_machine_shows_what_it_will_be_and_an_image_that_is_not_there_is_told() {
    let world = fleet();
    world_write(&world, "fleet/pool.yaml", POOL);
    assert_eq!(simulated(&world, APPLY).0, 0);
    let new =
        MACHINE.replace("web-1", "web-2") + "  disks: [{name: root, pool: images, size: 2Gi, image: dbian.qcow2}]\n";
    world_write(&world, "fleet/new.yaml", &new);
    let (code, out, err) = simulated(&world, &["plan", "fleet"]);
    assert_eq!(code, 0, "{out}{err}");
    for line in ["+ spec.cpus: 2", "+ spec.memory: 1Gi", "+ spec.disks[0]", "does not list the image `dbian.qcow2`"] {
        assert!(out.contains(line), "{line}: {out}");
    }
}

#[test]
fn nothing_declared_is_said() {
    let world = World::new().with("empty/README", "no manifests here");
    let (code, _, err) = world.run(&["plan", "empty"]);
    assert_eq!(code, 0);
    assert!(err.contains("warning") && err.contains("there is no manifest"), "{err}");
}

#[test]
fn two_that_act_with_one_state_folder_are_one_too_many() {
    let world = fleet();
    let _lock = drover::daemon::StateLock::take(&world.path().join("state")).unwrap();
    let (code, _, err) = simulated(&world, APPLY);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("another Drover is at work") && err.contains(&std::process::id().to_string()), "{err}");
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let world = fleet();
    assert_eq!(world.run(&["plan", "fleet"]).0, 0);
    assert_eq!(world.run(&["observe", "fleet"]).0, 0);
    let there: Vec<_> = std::fs::read_dir(world.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(there, ["fleet"]);
}

#[test]
fn apply_goes_on_when_nobody_reads_its_output() {
    let world = fleet();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(APPLY).current_dir(world.path()).env_clear().env("DROVER_SIM_STATE", world.path().join("sim.json"));
    let status = command.stdout(writer).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(simulated(&world, &["plan", "fleet"]).1.contains("No changes."), "exit 0 means that it was done");
}

/// Of two migrations that fight, the one whose name is later has the finding.
#[test]
fn a_migration_that_another_one_contradicts_is_refused() {
    let other = "apiVersion: drover/v1alpha1\nkind: VirtualMachineMigration\nmetadata: {name: web-on-a-visit}\n\
                 spec: {machine: web-1, to: kvm-b, permanent: false}\n";
    let world = fleet().with("fleet/visit.yaml", other);
    for more in [&[][..], &["--name", "zzz"]] {
        let args = [&["migrate", "web-1", "fleet", "--to", "kvm-b", "--temporary"], more].concat();
        let (code, out, err) = world.run(&args);
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        assert!(err.contains("web-on-a-visit") && err.contains("both move `web-1`"), "{err}");
    }
    let (code, out, err) = fleet().run(&["migrate", "web-1", "fleet", "--to", "kvm-b", "--temporary"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("permanent: false"), "{out}");
}
