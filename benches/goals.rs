//! Measurements of whole processes: `make bench`. Each case runs in a process of its own, so that its CPU time and its
//! largest memory are its own; figures are medians of `DROVER_BENCH_RUNS` runs (5).
//!
//! CPU time is user and system together, from /proc/self/stat (10 ms steps), because wall time on a shared machine says
//! more about the others. Peers run on the same manifests where they are installed; a peer that is not there is named.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, missing_docs)]

use drover::execute::{ExecuteLimits, Stop, execute};
use drover::journal::{Journal, Sqlite};
use drover::load::{Limits, load};
use drover::model::Revision;
use drover::observed::Observed;
use drover::plan::{PlanInput, PlanOptions, plan};
use drover::provider::simulator::World;
use drover::source::folder::FolderTree;
use jiff::Timestamp;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(i) = args.iter().position(|a| a == "--case") {
        return case(&args[i + 1], &args[i + 2..]);
    }
    // `cargo test --all-targets` runs benches too: there they only show that they run.
    let is_test = !args.iter().any(|a| a == "--bench");
    let scratch = tempfile::tempdir().unwrap();
    if is_test {
        generate(&scratch.path().join("20"), 20);
        let folder = scratch.path().join("20");
        let figures = run("plan", &[folder.to_str().unwrap()]);
        assert!(figures.steps > 0, "the plan of 20 machines has steps");
        println!("benches: the smallest case runs; `cargo bench` measures");
        return;
    }
    report(scratch.path());
}

/// What one process took.
#[derive(Clone, Copy, Default)]
struct Figures {
    cpu: f64,
    wall: f64,
    mib: f64,
    steps: usize,
}

fn report(scratch: &Path) {
    let sizes = [1_000, 5_000, 10_000, 50_000];
    for n in sizes {
        generate(&scratch.join(n.to_string()), n);
    }
    let folder = |n: usize| scratch.join(n.to_string()).to_str().unwrap().to_owned();
    println!("| case | CPU s | wall s | peak MiB | note |\n| --- | --- | --- | --- | --- |");
    let row = |name: &str, f: Figures, note: &str| {
        println!("| {name} | {:.3} | {:.3} | {:.0} | {note} |", f.cpu, f.wall, f.mib);
    };
    let mut validate = Vec::new();
    for n in sizes {
        let f = median("validate", &[&folder(n)]);
        row(&format!("validate {n} manifests"), f, &format!("{:.0} a CPU second", n as f64 / f.cpu.max(0.01)));
        validate.push(f);
    }
    let growth = validate[3].cpu / validate[1].cpu.max(0.01);
    println!("| growth 5,000 to 50,000 | {growth:.1} times | | | goal G3: at most 11 |");
    for n in [1_000, 10_000] {
        row(&format!("validate and plan {n}, nothing there"), median("plan", &[&folder(n)]), "");
    }
    let f = median("execute", &["1000"]);
    row(
        "plan and run 1,000 instant steps, synced journal",
        f,
        &format!("{:.2} ms a step; goal G8: at most 3", f.wall * 1000.0 / f.steps.max(1) as f64),
    );
    for (name, text) in hostile() {
        let file = scratch.join("hostile").join(name);
        fs::create_dir_all(&file).unwrap();
        fs::write(file.join("x.yaml"), &text).unwrap();
        let f = median("validate", &[file.to_str().unwrap()]);
        let mb = text.len() as f64 / 1e6;
        row(
            &format!("hostile: {name} ({mb:.1} MB)"),
            f,
            &format!("{:.0} ms; goal G10: at most {:.0} ms more than nothing", f.cpu * 1000.0, (mb * 50.0).max(50.0)),
        );
    }
    peers(scratch, &validate);
}

/// The same manifests through what others use, where it is installed.
fn peers(scratch: &Path, ours: &[Figures]) {
    println!("\n| peer, 1,000 manifests | CPU s | ratio to `validate` |\n| --- | --- | --- |");
    let folder = scratch.join("1000");
    let mut list = String::from("resources:\n");
    for entry in walk(&folder) {
        let _ = writeln!(list, "- {}", Path::new(&entry).strip_prefix(&folder).unwrap().display());
    }
    let kustomize = scratch.join("kustomize");
    let _ = Command::new("cp").args(["-r", folder.to_str().unwrap(), kustomize.to_str().unwrap()]).status();
    fs::write(kustomize.join("kustomization.yaml"), list).unwrap();
    let python = format!(
        "import glob, yaml\nfor f in glob.glob({:?} + '/**/*.yaml', recursive=True):\n    list(yaml.load_all(open(f), yaml.CSafeLoader))",
        folder.to_str().unwrap()
    );
    let commands: [(&str, Vec<&str>); 3] = [
        ("kubectl", vec!["kustomize", kustomize.to_str().unwrap()]),
        ("kpt", vec!["fn", "source", folder.to_str().unwrap()]),
        ("python3", vec!["-c", &python]),
    ];
    for (program, args) in commands {
        // Children's CPU time is read as the difference of the shell's own `times`.
        let script = "\"$0\" \"$@\" >/dev/null 2>&1; s=$?; times; exit $s";
        let output = Command::new("bash").arg("-c").arg(script).arg(program).args(&args).stderr(Stdio::null()).output();
        match output {
            Ok(o) if o.status.success() => {
                let text = String::from_utf8_lossy(&o.stdout);
                let cpu: f64 = text.lines().nth(1).unwrap_or_default().split_whitespace().map(seconds).sum();
                println!("| {program} {} | {cpu:.2} | {:.0} |", args[0], cpu / ours[0].cpu.max(0.01));
            }
            _ => println!("| {program} | not installed, or it failed | |"),
        }
    }
}

/// `0m1.234s` in seconds.
fn seconds(text: &str) -> f64 {
    let (m, s) = text.trim_end_matches('s').split_once('m').unwrap_or(("0", "0"));
    m.parse::<f64>().unwrap_or(0.0) * 60.0 + s.parse::<f64>().unwrap_or(0.0)
}

fn walk(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path.to_str().unwrap().to_owned());
        }
    }
    files.sort();
    files
}

fn median(case: &str, args: &[&str]) -> Figures {
    let runs = std::env::var("DROVER_BENCH_RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(5usize).max(1);
    let mut all: Vec<Figures> = (0..runs).map(|_| run(case, args)).collect();
    all.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    all[runs / 2]
}

fn run(case: &str, args: &[&str]) -> Figures {
    let began = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap()).arg("--case").arg(case).args(args).output().unwrap();
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    Figures {
        cpu: value["cpu"].as_f64().unwrap(),
        mib: value["mib"].as_f64().unwrap(),
        steps: usize::try_from(value["steps"].as_u64().unwrap()).unwrap(),
        wall: value["wall"].as_f64().unwrap_or_else(|| began.elapsed().as_secs_f64()),
    }
}

/// One case, in its own process; prints its figures.
fn case(name: &str, args: &[String]) {
    let began = Instant::now();
    let mut steps = 0;
    match name {
        "validate" => {
            let tree = FolderTree::open(Path::new(&args[0])).unwrap();
            let loaded = load(&tree, Revision::default(), &Limits::default());
            std::hint::black_box(&loaded);
        }
        "plan" => steps = planned(&args[0]),
        "execute" => steps = executed(args[0].parse().unwrap()),
        other => panic!("no case {other}"),
    }
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib: f64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    println!(
        "{}",
        serde_json::json!({"cpu": ticks / 100.0, "mib": kib / 1024.0, "steps": steps, "wall": began.elapsed().as_secs_f64()})
    );
}

fn planned(folder: &str) -> usize {
    let tree = FolderTree::open(Path::new(folder)).unwrap();
    let desired =
        load(&tree, Revision::default(), &Limits::default()).desired.expect("the generated manifests are valid");
    let world = World::new();
    for host in desired.resources.hosts.keys() {
        world.add_host(host);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let observed: Observed =
        runtime.block_on(world.fleet().read().observe(Timestamp::UNIX_EPOCH, std::time::Duration::from_secs(60)));
    let input = PlanInput {
        desired: &desired,
        observed: &observed,
        now: Timestamp::UNIX_EPOCH,
        options: PlanOptions::default(),
    };
    plan(&input).steps.len()
}

/// Plans and runs about `steps` steps in the simulator, each with its two synced records.
fn executed(steps: usize) -> usize {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("m");
    generate(&folder, steps / 3);
    let tree = FolderTree::open(&folder).unwrap();
    let desired =
        load(&tree, Revision::default(), &Limits::default()).desired.expect("the generated manifests are valid");
    let world = World::new();
    for host in desired.resources.hosts.keys() {
        world.add_host(host);
    }
    let journal: Arc<dyn Journal> = Arc::new(Sqlite::open(scratch.path().join("journal.sqlite")).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fleet = world.fleet();
        let observed = fleet.read().observe(Timestamp::now(), std::time::Duration::from_secs(60)).await;
        let plan = plan(&PlanInput {
            desired: &desired,
            observed: &observed,
            now: Timestamp::now(),
            options: PlanOptions::default(),
        });
        let report = execute(
            &plan,
            &fleet,
            journal,
            &ExecuteLimits::default(),
            Arc::new(|_| {}),
            Stop::default(),
            Arc::new(Timestamp::now),
        )
        .await
        .unwrap();
        assert!(
            report.succeeded(),
            "{:?}",
            report.outcomes.values().find(|o| !matches!(o, drover::journal::Outcome::Done))
        );
        plan.steps.len()
    })
}

/// Machines as people write them: about 40 lines each, 250 files a folder, ten hosts, one pool.
fn generate(folder: &Path, machines: usize) {
    fs::create_dir_all(folder).unwrap();
    let hosts: Vec<String> = (0..10).map(|h| format!("kvm-{h}")).collect();
    let mut base = String::new();
    for host in &hosts {
        let _ = write!(
            base,
            "apiVersion: drover/v1alpha1\nkind: Host\nmetadata:\n  name: {host}\nspec:\n  uri: sim:\n---\n"
        );
    }
    let _ = write!(
        base,
        "apiVersion: drover/v1alpha1\nkind: StoragePool\nmetadata:\n  name: images\nspec:\n  hosts: [{}]\n  type: dir\n  target: /srv/images\n  shared: true\n---\napiVersion: drover/v1alpha1\nkind: Settings\nmetadata:\n  name: bench\nspec:\n  maxConcurrent: 64\n",
        hosts.join(", ")
    );
    fs::write(folder.join("base.yaml"), base).unwrap();
    for i in 0..machines {
        let sub = folder.join(format!("rack-{:04}", i / 250));
        fs::create_dir_all(&sub).unwrap();
        let text = format!(
            "# Machine {i} of team {team}: ask them before it is stopped.\napiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata:\n  name: vm-{i:06}\n  labels:\n    app: web\n    team: team-{team}\n    tier: backend\n  annotations:\n    example.com/owner: team-{team}@example.com\n    example.com/ticket: OPS-{i}\nspec:\n  host: kvm-{host}\n  powerState: Running\n  cpus: {cpus}\n  maxCpus: 8\n  memory: {memory}Gi\n  maxMemory: 16Gi\n  machine: q35\n  firmware: bios\n  cpu:\n    mode: host-model\n  disks:\n    - name: root\n      pool: images\n      size: 20Gi\n      format: qcow2\n      bus: virtio\n      cache: none\n      bootOrder: 1\n    - name: data\n      pool: images\n      size: 100Gi\n      format: raw\n      bus: virtio\n  interfaces:\n    - network: default\n      model: virtio\n  guestAgent: true\n  restartPolicy: Never\n  deletionPolicy: Orphan\n",
            team = i % 17,
            host = i % 10,
            cpus = 1 + i % 4,
            memory = 1 + i % 8,
        );
        fs::write(sub.join(format!("vm-{i:06}.yaml")), text).unwrap();
    }
}

/// Inputs that exhaust other parsers.
fn hostile() -> Vec<(&'static str, String)> {
    vec![
        (
            "alias bomb",
            (0..9).fold("a0: &a0 [x, x]\n".to_owned(), |s, i| {
                format!("{s}a{}: &a{} [*a{i}, *a{i}, *a{i}]\n", i + 1, i + 1)
            }),
        ),
        ("100,000 nested flow sequences", format!("a: {}", "[".repeat(100_000))),
        ("50,000 nested flow maps", "{a: ".repeat(50_000)),
        ("200,000 documents", "---\na: 1\n".repeat(200_000)),
        ("3 MB scalar", format!("a: {}\n", "x".repeat(3_000_000))),
        (
            "300,000 keys",
            (0..300_000).fold(String::new(), |mut s, i| {
                let _ = writeln!(s, "k{i}: 1");
                s
            }),
        ),
    ]
}
