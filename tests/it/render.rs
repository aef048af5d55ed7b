//! What people see of a plan: snapshots of each form, hostile text, and plans of any size.

use drover::action::{Action, MachineAction, Migration, MigrationWay};
use drover::finding::{Code, Finding, Source};
use drover::model::{KindName, ResourceId, Revision};
use drover::observed::{DomainState, HostState, Observed, OwnerMark, PoolState, Reading, RunState};
use drover::plan::{
    Block, Change, Check, Definition, Disruption, Effect, Estimate, FORMAT_VERSION, Health, Interruption, Operation,
    Plan, Precheck, ResourceReport, Step, Summary, Sync, Verdict,
};
use drover::render::{Paint, json, markdown, table, text};
use serde_json::{Value, json};
use uuid::Uuid;

const COMMIT: &str = "abc1234def5678900000000000000000000000ff";

fn machine(name: &str) -> ResourceId {
    ResourceId::new(KindName::new("VirtualMachine"), name)
}

fn plan() -> Plan {
    Plan {
        format_version: FORMAT_VERSION.into(),
        hash: "5d41402abc4b2a76".into(),
        revision: Revision { commit: Some(COMMIT.into()), base: None, path: "fleet".into() },
        observed_at: "2026-11-22T07:00:00Z".parse().unwrap(),
        summary: Summary::default(),
        resources: Vec::new(),
        steps: Vec::new(),
        findings: Vec::new(),
    }
}

fn report(name: &str, line: u32, operation: Operation) -> ResourceReport {
    ResourceReport {
        kind: "VirtualMachine".into(),
        name: name.into(),
        source: Some(Source { file: "vms.yaml".into(), line, column: 1 }),
        operation,
        sync: if operation == Operation::None { Sync::Synced } else { Sync::OutOfSync },
        health: Health::Healthy,
        changes: Vec::new(),
        moves: None,
    }
}

fn change(path: &str, before: Value, after: Value, effect: Effect) -> Change {
    Change { path: path.into(), before, after, effect, definition: None, note: None }
}

fn step(id: &str, name: &str, action: MachineAction, summary: &str) -> Step {
    Step {
        id: id.into(),
        action: Action::Machine(action),
        resource: machine(name),
        summary: summary.into(),
        why: "the manifest says so".into(),
        depends_on: Vec::new(),
        disruption: Disruption::None,
        interruption: Interruption::Interruptible,
        undo: Some("put the old manifest back".into()),
        estimate: Estimate::default(),
        blocked_by: Vec::new(),
        checks: Vec::new(),
    }
}

fn migrate(id: &str, name: &str, from: &str, to: &str) -> Step {
    let migration = Migration {
        max_downtime_millis: Some(300),
        timeout_millis: 1_800_000,
        autostart: true,
        ..Migration::new(Uuid::nil(), name, [from, to], MigrationWay::Live, format!("qemu+tls://{to}/system"))
    };
    Step {
        why: "`spec.host` was kvm-a and is kvm-b".into(),
        disruption: Disruption::Brief,
        interruption: Interruption::Drainable,
        undo: Some("move it back".into()),
        estimate: Estimate { seconds: 5.2, downtime_millis: 300, bytes: 536_870_912, ..Estimate::default() },
        ..step(
            id,
            name,
            MachineAction::MigrateVirtualMachine(Box::new(migration)),
            &format!("migrate `{name}` live from {from} to {to}"),
        )
    }
}

/// A bit of everything.
fn full_plan() -> Plan {
    let mut plan = plan();
    plan.revision.base = Some("0123456789abcdef".into());
    plan.summary =
        Summary { create: 1, update: 2, migrate: 1, delete: 1, run: 0, unchanged: 2, blocked: 1, unknown: 1 };

    let mut new = report("api-1", 1, Operation::Create);
    new.health = Health::Missing;
    new.changes = vec![
        change("spec.host", Value::Null, json!("kvm-b"), Effect::None),
        change("spec.memory", Value::Null, json!("4Gi"), Effect::None),
        change("spec.disks[root]", Value::Null, json!({"pool": "images", "size": "20Gi"}), Effect::None),
    ];
    let mut restart = report("db-1", 20, Operation::Update);
    restart.changes = vec![
        Change {
            definition: Some(Definition::Persistent),
            note: Some("takes effect at the next restart".into()),
            ..change("spec.machine", json!("pc-q35-7.2"), json!("pc-q35-10.0"), Effect::Restart)
        },
        Change { definition: Some(Definition::Both), ..change("spec.cpus", json!(2), json!(4), Effect::Live) },
        change(
            "spec.xml",
            json!("<domain>\n  <a/>\n  <b/>\n  <c/>\n  <d/>\n</domain>\n"),
            json!("<domain>\n  <a/>\n  <b/>\n  <x/>\n  <d/>\n</domain>\n"),
            Effect::Restart,
        ),
        change("spec.title", json!("a database"), Value::Null, Effect::Live),
    ];
    let mut gone = report("old-1", 0, Operation::Delete);
    gone.source = None;
    let mut moved = report("web-1", 40, Operation::Migrate);
    moved.changes = vec![change("spec.host", json!("kvm-a"), json!("kvm-b"), Effect::Live)];
    let mut lost = report("web-9", 60, Operation::None);
    lost.sync = Sync::Unknown;
    lost.health = Health::Unknown;
    plan.resources = vec![new, restart, gone, report("same-1", 30, Operation::None), moved, lost];

    let host = || "kvm-b".to_owned();
    let volume = MachineAction::CreateVolume {
        host: host(),
        pool: "images".into(),
        volume: "api-1-root.qcow2".into(),
        capacity: 20 << 30,
        format: "qcow2".into(),
        image: None,
        backing: None,
    };
    let define =
        MachineAction::DefineDomain { host: host(), name: "api-1".into(), uuid: Uuid::nil(), xml: "<domain/>".into() };
    let mut defined = step("s2", "api-1", define, "define `api-1` on kvm-b");
    defined.depends_on = vec!["s1".into()];
    let vcpus = MachineAction::ChangeLive {
        host: host(),
        uuid: Uuid::nil(),
        change: drover::action::LiveChange::Vcpus { count: 4 },
    };
    let mut undefine = step(
        "s5",
        "old-1",
        MachineAction::UndefineDomain { host: host(), uuid: Uuid::nil(), nvram: false },
        "undefine `old-1` on kvm-b",
    );
    undefine.disruption = Disruption::Destructive;
    undefine.interruption = Interruption::PointOfNoReturn;
    undefine.undo = None;
    undefine.why = "its manifest is gone and it said `deletionPolicy: Delete`".into();
    undefine.blocked_by = vec![Block {
        code: Code::GuardRail,
        reason: "1 deletion in this pass, and `maxDeletes` is 0".into(),
        way_out: "raise `maxDeletes` in Settings, or put the manifest back".into(),
    }];
    let mut clean = step(
        "s6",
        "old-1",
        MachineAction::DeleteVolume {
            host: host(),
            pool: "images".into(),
            volume: "old-1-root.qcow2".into(),
            path: "/srv/images/old-1-root.qcow2".into(),
        },
        "delete volume `old-1-root.qcow2` of pool `images` on kvm-b",
    );
    clean.depends_on = vec!["s5".into()];
    clean.disruption = Disruption::Destructive;
    clean.undo = None;
    plan.steps = vec![
        step("s1", "api-1", volume, "create volume `api-1-root.qcow2` (20 GiB, qcow2) in pool `images` on kvm-b"),
        defined,
        step("s3", "db-1", vcpus, "set 4 vCPUs on `db-1`"),
        migrate("s4", "web-1", "kvm-a", "kvm-b"),
        undefine,
        clean,
    ];
    plan.findings = vec![
        Finding::new(Code::HostUnknown, "host `kvm-c` could not be read: no answer within 10 s")
            .on(ResourceId::new(KindName::new("Host"), "kvm-c"))
            .at(Source { file: "hosts.yaml".into(), line: 12, column: 1 })
            .hint("nothing on it is touched; see whether libvirtd runs there"),
        Finding::new(Code::Drift, "`db-1` was given 2 vCPUs by hand").on(machine("db-1")),
        Finding::new(Code::WaitsForRestart, "`spec.machine` takes effect at the next restart").on(machine("db-1")),
    ];
    plan
}

fn warns(name: Precheck, message: &str, hint: &str) -> Check {
    Check { name, code: name.code(), verdict: Verdict::Warn, message: message.into(), hint: Some(hint.into()) }
}

fn passes(message: &str) -> Check {
    let name = Precheck::HostRead;
    Check { name, code: name.code(), verdict: Verdict::Pass, message: message.into(), hint: None }
}

const SEGMENT: &str = "network `default` is `nat`: connections of the machine break";

/// Eight machines leave a host: all share a warning, two share another one, one has its own, and two are held back.
fn evacuation() -> Plan {
    let mut plan = plan();
    plan.summary = Summary { migrate: 6, blocked: 2, ..Summary::default() };
    let names = ["cache-1", "db-1", "db-2", "mail-1", "queue-1", "web-1", "web-2", "web-3"];
    for (n, name) in (1..).zip(names) {
        let to = if n % 2 == 0 { "kvm-c" } else { "kvm-b" };
        let mut moved = report(name, 10 * n, Operation::Migrate);
        moved.changes = vec![change("spec.host", json!("kvm-a"), json!(to), Effect::Live)];
        plan.resources.push(moved);
        let mut step = migrate(&format!("s{n}"), name, "kvm-a", to);
        // From a cache that is small to a database that writes a lot.
        let bytes = (u64::from(n) * 640) << 20;
        step.estimate = Estimate { seconds: 1.5 + f64::from(n) * 2.5, downtime_millis: 110, bytes, ..step.estimate };
        step.why = format!("`kvm-a` is being emptied; `{to}` was chosen of 2 hosts that fit");
        step.checks = vec![
            passes(&format!("`kvm-a` and `{to}` were read completely")),
            warns(Precheck::Segment, SEGMENT, "put the interface on a bridge that both hosts have"),
        ];
        match name {
            "db-1" | "db-2" => {
                step.checks.push(warns(Precheck::DiskCache, "disk vda has `cache: writeback`", "use `cache: none`"));
            }
            "web-3" => step.checks.push(warns(Precheck::Convergence, "it may not converge", "`autoConverge: true`")),
            _ => {}
        }
        if matches!(name, "web-1" | "web-2") {
            step.blocked_by.push(Block {
                code: Code::GuardRail,
                reason: "`maxDisruptive` is 6".into(),
                way_out: "they follow in the next pass".into(),
            });
        }
        plan.steps.push(step);
    }
    plan
}

#[test]
fn what_several_moves_have_alike_is_told_once_with_the_machines() {
    let plan = evacuation();
    let text = as_text(&plan, text::Options::default());
    insta::assert_snapshot!("text_of_an_evacuation", text);
    let markdown = markdown::render(&plan);
    insta::assert_snapshot!("markdown_of_an_evacuation", markdown);
    let times = |text: &str, what: &str| text.matches(what).count();
    let own = [("connections of the machine break", 1), ("cache: writeback", 1), ("may not converge", 1)];
    for (what, n) in own {
        assert_eq!((times(&text, what), times(&markdown, what)), (n, n), "{what}");
    }
    assert_eq!((times(&text, "maxDisruptive"), times(&markdown, "maxDisruptive")), (1, 1));
    assert!(text.contains("2 of 8 moves: warning[D0619]") && text.contains("moves: db-1, db-2\n"), "{text}");
    // With everything, what was passed is told in the same way; JSON keeps all of it at each step.
    let full = as_text(&plan, text::Options { full: true, ..Default::default() });
    assert_eq!((times(&full, "`kvm-a` and `kvm-b` were read"), times(&full, "`kvm-a` and `kvm-c` were read")), (1, 1));
    let mut out = Vec::new();
    json::write(&mut out, &plan).unwrap();
    assert_eq!(times(&String::from_utf8(out).unwrap(), SEGMENT), 8);
}

fn as_text(plan: &Plan, options: text::Options) -> String {
    let mut out = Vec::new();
    text::write(&mut out, plan, options).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn text_of_a_bit_of_everything() {
    insta::assert_snapshot!(as_text(&full_plan(), text::Options::default()));
}

#[test]
fn markdown_of_a_bit_of_everything() {
    insta::assert_snapshot!(markdown::render(&full_plan()));
}

#[test]
fn json_of_a_migration() {
    let mut plan = plan();
    plan.summary.migrate = 1;
    let mut moved = report("web-1", 40, Operation::Migrate);
    moved.changes = vec![change("spec.host", json!("kvm-a"), json!("kvm-b"), Effect::Live)];
    plan.resources = vec![moved];
    plan.steps = vec![migrate("s1", "web-1", "kvm-a", "kvm-b")];
    let mut out = Vec::new();
    json::write(&mut out, &plan).unwrap();
    let out = String::from_utf8(out).unwrap();
    insta::assert_snapshot!(out);
    assert_eq!(serde_json::from_str::<Plan>(&out).unwrap(), plan, "what was written is read back");
}

#[test]
fn nothing_to_do_is_one_sentence_with_the_commit() {
    let mut plan = plan();
    plan.summary.unchanged = 1;
    plan.resources = vec![report("web-1", 1, Operation::None)];
    let out = as_text(&plan, text::Options::default());
    assert_eq!(out.lines().last(), Some("No changes. The world matches commit abc1234."));
    assert!(!out.contains("web-1") && !out.contains("Symbols"), "{out}");
    assert!(markdown::render(&plan).contains("No changes. The world matches commit abc1234."));

    plan.resources[0].sync = Sync::OutOfSync;
    plan.resources[0].changes = vec![change("spec.cpus", json!(2), json!(4), Effect::Live)];
    let out = as_text(&plan, text::Options::default());
    assert_eq!(out.lines().last(), Some("No changes. 1 resource differs and is left as it is."));
    assert!(out.contains("# VirtualMachine/web-1 differs and is left as it is"), "{out}");
}

#[test]
fn a_host_that_cannot_be_read_is_never_no_changes() {
    let mut plan = plan();
    plan.summary.unknown = 1;
    let out = as_text(&plan, text::Options::default());
    assert_eq!(
        out.lines().last(),
        Some("Plan: 0 to create, 0 to update, 0 to migrate, 0 to delete; 0 unchanged, 0 blocked, 1 unknown.")
    );
}

#[test]
fn colour_adds_to_the_text_and_never_stands_for_it() {
    let plain = as_text(&full_plan(), text::Options::default());
    let coloured = as_text(&full_plan(), text::Options { colour: true, full: false });
    assert!(!plain.contains('\u{1b}'));
    assert!(coloured.contains("\u{1b}[32m"));
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        stripped.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_eq!(stripped, plain);
}

#[test]
fn long_texts_show_the_lines_around_a_difference_and_all_with_full() {
    let before: String = (0..60).map(|n| format!("  <line n='{n}'/>\n")).collect();
    let mut plan = plan();
    let mut one = report("web-1", 1, Operation::Update);
    one.changes = vec![change("spec.xml", json!(before), json!(before.replace("'30'", "'x'")), Effect::Restart)];
    plan.resources = vec![one];
    let short = as_text(&plan, text::Options::default());
    assert!(short.contains("n='29'") && !short.contains("n='27'"), "{short}");
    let full = as_text(&plan, text::Options { colour: false, full: true });
    assert!(full.contains("n='0'") && full.contains("n='59'"), "{full}");
}

/// Text that would do something on a terminal or in a browser.
const HOSTILE: &[&str] = &[
    "\u{1b}]8;;http://evil/\u{7}click\u{1b}]8;;\u{7}",
    "\r\u{1b}[2KPlan: nothing",
    "\u{9b}31m",
    "\u{202e}gpj.exe",
    "zero\u{200b}width\u{2028}line",
    "a`b``c```d",
    "</code></summary></details><script>alert(1)</script>",
    "x | y \\| z",
    "](javascript:alert(1)) [a](http://evil) ![i](http://evil/x.png)",
    "@everyone #1 **bold** ~~gone~~ $x$",
    "line\n```\n# heading\n<!-- drover-plan -->",
];

fn hostile_plan() -> Plan {
    let mut plan = plan();
    for (i, bad) in HOSTILE.iter().enumerate() {
        let mut one = report(bad, i as u32, Operation::Delete);
        one.source = Some(Source { file: bad.to_string(), line: 1, column: 1 });
        one.changes = vec![
            Change { note: Some(bad.to_string()), ..change(bad, json!(bad), json!({ *bad: bad }), Effect::Live) },
            change("spec.xml", json!(format!("a\n{bad}\n")), json!(format!("{bad}\nb\n")), Effect::Live),
        ];
        plan.resources.push(one);
        let mut bad_step = migrate(&format!("s{i}"), bad, bad, bad);
        bad_step.summary = bad.to_string();
        bad_step.why = bad.to_string();
        bad_step.undo = Some(bad.to_string());
        bad_step.disruption = Disruption::Destructive;
        bad_step.blocked_by = vec![Block { code: Code::GuardRail, reason: bad.to_string(), way_out: bad.to_string() }];
        plan.steps.push(bad_step);
        for code in [Code::HostUnknown, Code::Drift] {
            let mut finding = Finding::new(code, *bad).hint(*bad).on(machine(bad));
            finding.path = Some(bad.to_string());
            finding.source = Some(Source { file: bad.to_string(), line: 1, column: 1 });
            plan.findings.push(finding);
        }
    }
    plan
}

fn is_harmless(c: char) -> bool {
    c == '\n'
        || !(c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'))
}

#[test]
fn hostile_text_reaches_the_terminal_escaped() {
    let out = as_text(&hostile_plan(), text::Options::default());
    assert_eq!(out.chars().find(|c| !is_harmless(*c)), None);
    // A line of ours cannot be forged by a line break in a name.
    assert!(!out.lines().any(|l| l.starts_with("```") || l.starts_with("Plan: nothing")), "{out}");
}

#[test]
fn hostile_text_is_text_in_markdown() {
    let out = markdown::render(&hostile_plan());
    assert_eq!(out.chars().find(|c| !is_harmless(*c)), None);
    assert!(out.starts_with(markdown::MARKER));
    let mut fenced = false;
    for line in out.lines().skip(1) {
        // CommonMark: a fence opens and closes with at most three spaces before it.
        let indent = line.len() - line.trim_start_matches(' ').len();
        if indent <= 3 && line.trim_start_matches(' ').starts_with("```") {
            fenced = !fenced;
            assert!(line == "```diff" || line == "```", "{line}");
            continue;
        }
        if fenced {
            continue;
        }
        // What stands between backticks is code, and shown as it is.
        assert_eq!(line.matches('`').count() % 2, 0, "{line}");
        let line: String = line.split('`').step_by(2).collect();
        let html: Vec<&str> = line.match_indices('<').map(|(i, _)| &line[i..]).collect();
        for tag in html {
            let allowed = ["<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>", "<!-- -->"];
            assert!(allowed.iter().any(|a| tag.starts_with(a)), "{line}");
        }
        assert!(!line.contains("@everyone") && !line.contains("](") && !line.contains("!["), "{line}");
        if line.starts_with('|') {
            let cells = line.matches('|').count();
            assert!(cells == 9 || cells == 7, "a name broke the table: {line}");
        }
    }
    assert!(!fenced, "every fence is closed");
}

fn huge_plan(n: usize, with: impl Fn(usize, &mut ResourceReport, &mut Step)) -> Plan {
    let mut plan = plan();
    plan.summary.migrate = n as u32;
    for i in 0..n {
        let name = format!("web-{i:05}");
        let mut one = report(&name, i as u32 + 1, Operation::Migrate);
        one.changes = vec![change("spec.host", json!("kvm-a"), json!("kvm-b"), Effect::Live)];
        let mut step = migrate(&format!("s{i}"), &name, "kvm-a", "kvm-b");
        with(i, &mut one, &mut step);
        plan.resources.push(one);
        plan.steps.push(step);
    }
    plan
}

#[test]
fn a_comment_on_ten_thousand_changes_keeps_its_summary_and_says_what_it_left_out() {
    let out = markdown::render(&huge_plan(10_000, |_, _, _| {}));
    assert!(out.len() <= markdown::LIMIT, "{} bytes", out.len());
    assert!(out.len() > 40_000, "as much as fits is shown: {}", out.len());
    assert!(out.starts_with(markdown::MARKER));
    assert!(out.contains("| 0 | 0 | 10000 | 0 | 0 | 0 | 0 | 0 |"));
    assert!(out.contains("Plan: 0 to create, 0 to update, 10000 to migrate, 0 to delete"));
    assert!(out.contains("of 10000 left out, the largest first"));
    assert!(out.contains("Plan hash"));
    assert_eq!(out.matches("<details>").count(), out.matches("</details>").count());
    assert_eq!(out.matches("```").count() % 2, 0);
}

#[test]
fn a_comment_cuts_the_largest_detail_and_keeps_deletions_blocks_and_errors() {
    let mut plan = full_plan();
    let big: String = (0..5_000).map(|n| format!("<element n='{n}'/>\n")).collect();
    plan.resources[1].changes.push(change("spec.xml", Value::Null, json!(big), Effect::Restart));
    let out = markdown::render(&plan);
    assert!(out.len() <= markdown::LIMIT);
    assert!(!out.contains("n='4999'"));
    assert!(out.contains("1 of 5 left out, the largest first") && out.contains("`VirtualMachine/db-1`"), "{out}");
    assert!(out.contains("# VirtualMachine/web-1 will be migrated from kvm-a to kvm-b"), "the small ones stay");
    assert!(out.contains("Deletions and points of no return (2)") && out.contains("old-1"));
    assert!(out.contains("D0501") && out.contains("D0401"));
}

#[test]
fn a_comment_on_thousands_of_deletions_counts_what_it_cannot_list() {
    let plan = huge_plan(10_000, |i, report, step| {
        report.operation = Operation::Delete;
        step.disruption = Disruption::Destructive;
        step.blocked_by = vec![Block {
            code: Code::GuardRail,
            reason: format!("reason {i} {}", "r".repeat(300)),
            way_out: "w".repeat(300),
        }];
    });
    let out = markdown::render(&plan);
    assert!(out.len() <= markdown::LIMIT, "{} bytes", out.len());
    assert!(out.contains("Deletions and points of no return (10000)"));
    assert!(out.contains("Held back (10000)"));
    assert!(out.contains("more steps**, too many for a comment"));
    assert!(out.contains("more reasons**, too many for a comment"));
    assert!(out.contains("VirtualMachine/web-00000"));
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    assert_eq!(markdown::render(&full_plan()), markdown::render(&full_plan()));
    let options = text::Options::default();
    assert_eq!(as_text(&full_plan(), options), as_text(&full_plan(), options));
}

#[test]
fn an_observation_is_three_tables_and_says_what_could_not_be_read() {
    let mut observed = Observed::empty("2026-11-22T07:00:00Z".parse().unwrap());
    let domain = |name: &str, state, owner: Option<&str>| DomainState {
        owner: owner.map(|name| OwnerMark {
            fleet: "default".into(),
            name: name.into(),
            delete: false,
            volumes: Vec::new(),
        }),
        ..DomainState::new(name.into(), Uuid::nil(), state, String::new(), true)
    };
    let pool = PoolState { active: true, capacity: 1 << 40, available: 1 << 39, ..PoolState::default() };
    let host = HostState {
        driver: "QEMU".into(),
        hypervisor_version: "10.0.2".into(),
        cpus: 8,
        memory: 32 << 30,
        free_memory: 20 << 30,
        pools: [("images".to_owned(), pool), ("old".to_owned(), PoolState::default())].into(),
        domains: vec![domain("a\u{1b}[31m", RunState::Off, None), domain("web-1", RunState::Running, Some("web-1"))],
        ..HostState::default()
    };
    observed.hosts.insert("kvm-a".into(), Reading::Present(host));
    observed.hosts.insert("kvm-b".into(), Reading::Unknown { why: "no answer within 10 s".into() });
    let mut out = Vec::new();
    table::observed(&mut out, &observed, Paint(false)).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}

/// The plan of an example of clusters, from a reading by hand.
fn example_of_clusters(name: &str, states: &[(&str, drover::observed::ClusterState)]) -> Plan {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clusters").join(name);
    let tree = drover::source::folder::FolderTree::open(&folder).unwrap();
    let revision = Revision { path: "fleet".into(), ..Revision::default() };
    let loaded = drover::load::load(&tree, revision, &drover::load::Limits::default());
    let now = "2026-11-22T07:00:00Z".parse().unwrap();
    let mut observed = Observed::empty(now);
    for (cluster, state) in states {
        observed.clusters.insert((*cluster).into(), Reading::Present(state.clone()));
    }
    let desired = loaded.desired.unwrap();
    let options = drover::plan::PlanOptions::default();
    drover::plan::plan(&drover::plan::PlanInput { desired: &desired, observed: &observed, now, options })
}

fn cluster_state(platform: &str) -> drover::observed::ClusterState {
    let namespace = |uid: &str| drover::observed::NamespaceState { uid: uid.into(), ..Default::default() };
    drover::observed::ClusterState {
        uid: "1f6e".into(),
        server: "https://api.ocp4.example.com:6443".into(),
        platform: platform.into(),
        namespaces: [("kube-system".to_owned(), namespace("1f6e")), ("openshift-config".to_owned(), namespace("2a"))]
            .into(),
        ..Default::default()
    }
}

#[test]
fn installing_on_a_cluster_reads_well() {
    let plan = example_of_clusters("3.3-operator-by-olm", &[("ocp4", cluster_state("openshift-4.10"))]);
    insta::assert_snapshot!("text_of_an_installation", as_text(&plan, text::Options::default()));
    insta::assert_snapshot!("markdown_of_an_installation", markdown::render(&plan));
    let step = &serde_json::to_value(&plan).unwrap()["steps"][2];
    insta::assert_snapshot!("json_of_an_apply", serde_json::to_string_pretty(step).unwrap());
}

#[test]
fn uninstalling_lists_what_is_lost() {
    let mut state = cluster_state("openshift-4.10");
    let ours: std::collections::BTreeMap<String, String> =
        [("drover.dev/fleet".into(), "default".into()), ("drover.dev/owner".into(), "Cluster.ocp4".into())].into();
    let namespace = drover::observed::NamespaceState { uid: "3b".into(), labels: ours, ..Default::default() };
    state.namespaces.insert("openshift-migration".into(), namespace);
    let object = |api: &str, kind: &str, name: &str, value: Value| drover::observed::ObjectState {
        id: drover::model::ObjectRef::new(api, kind, "openshift-migration", name),
        uid: format!("uid-{name}"),
        resource_version: "1".into(),
        deleting: false,
        finalizers: Vec::new(),
        managers: Default::default(),
        value,
    };
    let mtc = "migration.openshift.io/v1alpha1";
    state.objects = vec![
        object("apps/v1", "Deployment", "migration-controller", json!({})),
        object(mtc, "MigPlan", "shop", json!({"spec": {"namespaces": ["shop"]}})),
        object(mtc, "MigrationController", "migration-controller", json!({"spec": {"migration_controller": true}})),
    ];
    state.objects.sort_by(|a, b| a.id.cmp(&b.id));
    for (name, instances) in [("migplans.migration.openshift.io", 1), ("backups.velero.io", 12)] {
        let crd = drover::observed::CrdState { uid: name.into(), established: true, instances: Some(instances) };
        state.crds.insert(name.into(), crd);
    }
    let plan = example_of_clusters("3.6-uninstall", &[("ocp4", state)]);
    insta::assert_snapshot!("text_of_an_uninstallation", as_text(&plan, text::Options::default()));
}
