//! The performance goals (docs/performance.md), measured: `make bench`. Each case is a whole process, most often the
//! program itself; figures are medians of `DROVER_BENCH_RUNS` runs (5), and peers run in turn with Drover where they are
//! installed. CPU time is user and system together: wall time on a shared machine says more about the others.
//!
//! `DROVER_BENCH_ONLY=G2,G9` measures some goals only. `DROVER_BENCH_SLOW=1` adds the peers that take minutes.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod daemon;
mod evacuate;
mod fleet;
mod git;
mod inside;
mod measure;
mod peers;

use measure::{Figures, Job, in_turn};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let text = |i: usize| args.get(i).and_then(|a| a.to_str()).unwrap_or_default();
    match text(1) {
        "--measure" => measure::measure(&args[2], &args[3], &args[4..]),
        "--case" => {
            let rest: Vec<String> = args[3..].iter().map(|a| a.to_str().unwrap().to_owned()).collect();
            inside::case(text(2), &rest);
        }
        // `cargo test --all-targets` runs benches too: there they only show that they run.
        _ if !args.iter().any(|a| a == "--bench") => inside::smallest(),
        _ => report(),
    }
}

/// A goal's name, and what measures it.
type Goal = (&'static str, fn(&Bench));

/// What all goals share.
struct Bench {
    scratch: tempfile::TempDir,
    runs: usize,
    slow: bool,
    only: BTreeSet<String>,
}

fn report() {
    let setting = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let bench = Bench {
        // On a disk: what is measured with a disk's fsync must not land in memory.
        scratch: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
        runs: setting("DROVER_BENCH_RUNS").and_then(|r| r.parse().ok()).unwrap_or(5).max(1),
        slow: setting("DROVER_BENCH_SLOW").is_some(),
        only: setting("DROVER_BENCH_ONLY")
            .into_iter()
            .flat_map(|g| g.split(',').map(str::to_owned).collect::<Vec<_>>())
            .collect(),
    };
    println!("| goal | case | CPU s | wall s | peak MiB | says |\n| --- | --- | --- | --- | --- | --- |");
    let goals: [Goal; 10] = [
        ("G1", Bench::plan_one_change),
        ("G2", Bench::validate),
        ("G3", Bench::load_and_growth),
        ("G4", Bench::load_10_000),
        ("G7", Bench::poll_and_fetch),
        ("G8", Bench::execute),
        ("G9", Bench::resident),
        ("G10", Bench::hostile),
        ("G11", Bench::render),
        ("G12", Bench::moves),
    ];
    for (name, measure) in goals {
        if bench.only.is_empty() || bench.only.contains(name) {
            measure(&bench);
        }
    }
}

fn row(goal: &str, case: &str, f: Figures, says: &str) {
    println!("| {goal} | {case} | {:.3} | {:.3} | {:.1} | {says} |", f.cpu, f.wall, f.mib);
}

fn not_there(goal: &str, peer: &str) {
    println!("| {goal} | {peer} | | | | not installed, or it failed |");
}

impl Bench {
    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A fleet's folder, made on first use.
    fn fleet(&self, machines: usize) -> String {
        let folder = self.at(&format!("fleet-{machines}"));
        if !folder.exists() {
            fleet::generate(&folder, machines);
        }
        folder.to_str().unwrap().to_owned()
    }

    /// The files of a world that is as the fleet's manifests say, and of its observation; made on first use.
    fn world(&self, machines: usize) -> (String, String) {
        let at = |name: &str| self.at(&format!("{name}-{machines}.json")).to_str().unwrap().to_owned();
        let (world, observed) = (at("world"), at("observed"));
        if !Path::new(&world).exists() {
            let folder = self.fleet(machines);
            Job::case("prepare", [&*folder, &world, &observed]).run().expect("the simulator makes the fleet");
        }
        (world, observed)
    }

    fn drover(&self, args: &[&str]) -> Figures {
        Job::drover(args.iter().copied()).median(self.runs).expect("drover does it")
    }

    /// Runs a peer in turn with Drover and says how they compare. Peers take long: three runs.
    fn compare(&self, goal: &str, peer: &str, ours: &Job, theirs: &Job, wanted: &str) {
        match in_turn(ours, theirs, self.runs.min(3)) {
            None => not_there(goal, peer),
            Some((our, their)) => {
                let (cpu, mib) = (their.cpu / our.cpu, their.mib / our.mib);
                let ours = format!("{:.3} s, {:.1} MiB", our.cpu, our.mib);
                row(
                    goal,
                    peer,
                    their,
                    &format!("{cpu:.0} times our CPU, {mib:.1} times our memory ({ours}); {wanted}"),
                );
            }
        }
    }

    /// G1: validate and plan 1,000 machines of which one changed.
    fn plan_one_change(&self) {
        for machines in [1_000, 10_000] {
            let (_, observed) = self.world(machines);
            let changed = self.at(&format!("changed-{machines}"));
            fleet::generate(&changed, machines);
            fs::write(fleet::file_of(&changed, 7), fleet::machine(7, 8)).unwrap();
            let args = ["plan", changed.to_str().unwrap(), "--observed", &observed];
            let job = Job::drover(args);
            let (_, said) = job.run().expect("drover plans");
            assert!(said.contains("1 to migrate") || said.contains("migrate"), "one machine moves: {said}");
            row("G1", &format!("plan {machines}, one changed"), self.drover(&args), "");
            if machines > 1_000 {
                continue;
            }
            let wanted = "goal: 50 times, 8 times";
            match peers::terraform(&self.at("terraform"), machines, true) {
                None => not_there("G1", "terraform plan"),
                Some(folder) => {
                    let theirs = peers::terraform_job(&folder, "plan");
                    self.compare("G1", "terraform plan, one changed", &job, &theirs, wanted);
                }
            }
        }
    }

    /// G2: validate 10,000 manifests, beside other validators with the same schema.
    fn validate(&self) {
        let folder = self.fleet(10_000);
        let ours = Job::drover(["validate", &folder]);
        let f = self.drover(&["validate", &folder]);
        row("G2", "validate 10,000", f, &format!("{:.0} manifests a CPU second", 10_000.0 / f.cpu));
        let goals = ["goal: 5 times", "goal: 7 times", "goal: 100 times"];
        let bad = self.at("bad");
        fleet::generate(&bad, 1);
        let file = fleet::file_of(&bad, 0);
        fs::write(&file, fs::read_to_string(&file).unwrap().replace("  memory:", "  memroy:")).unwrap();
        for (((name, theirs), (_, on_bad)), goal) in
            peers::validators(Path::new(&folder)).into_iter().zip(peers::validators(&bad)).zip(goals)
        {
            if name == "check-jsonschema" && !self.slow {
                println!("| G2 | {name} | | | | takes minutes: DROVER_BENCH_SLOW=1 |");
            } else if on_bad.may_exit_with(&[1]).run().is_none() {
                println!("| G2 | {name} | | | | not installed, or it does not find the bad manifest |");
            } else {
                self.compare("G2", name, &ours, &theirs, goal);
            }
        }
    }

    /// G3: loading grows with the number of manifests and no faster.
    fn load_and_growth(&self) {
        let mut all = Vec::new();
        for machines in [1_000, 5_000, 50_000] {
            let folder = self.fleet(machines);
            let f = self.drover(&["validate", &folder]);
            row(
                "G3",
                &format!("validate {machines}"),
                f,
                &format!("{:.0} manifests a CPU second", machines as f64 / f.cpu),
            );
            all.push(f);
        }
        println!("| G3 | 50,000 to 5,000 | | | | {:.1} times; goal: at most 11 |", all[2].cpu / all[1].cpu);
        let folder = self.fleet(1_000);
        let theirs = peers::kustomize(Path::new(&folder), &self.at("kustomize"));
        self.compare("G3", "kubectl kustomize, 1,000", &Job::drover(["validate", &folder]), &theirs, "goal: 20 times");
    }

    /// G4: load 10,000 manifests.
    fn load_10_000(&self) {
        let folder = self.fleet(10_000);
        let ours = Job::drover(["validate", &folder]);
        self.compare("G4", "kpt fn source, 10,000", &ours, &peers::kpt(Path::new(&folder)), "goal: 5 times, 8 times");
    }

    /// G7: asking a server on the loopback interface.
    fn poll_and_fetch(&self) {
        let folder = self.fleet(1_000);
        let a = git::asking(&self.at("git"), Path::new(&folder), 3 * self.runs);
        let line = |case: &str, ours: f64, theirs: f64, wanted: &str| {
            let (ours, theirs, times) = (ours * 1e3, theirs * 1e3, theirs / ours);
            println!("| G7 | {case} | | | | {ours:.1} ms beside {theirs:.1} ms: {times:.1} times; {wanted} |");
        };
        line("poll without news, beside git ls-remote (wall)", a.poll, a.ls_remote, "goal: 4 times");
        line("fetch of one change, beside git fetch (wall)", a.fetch, a.git_fetch, "goal: 3 times");
    }

    /// G8: steps that take no time, each with its records on disk.
    fn execute(&self) {
        let mut ours = None;
        for machines in [250, 2_500] {
            let folder = self.fleet(machines);
            let mut all: Vec<(f64, f64, Figures)> = (0..self.runs.min(5))
                .map(|_| {
                    let (figures, said) = Job::case("execute", [&*folder]).run().expect("the steps run");
                    let mut fields = said.split_whitespace().map(|f| f.parse::<f64>().unwrap());
                    (fields.next().unwrap(), fields.next().unwrap(), figures)
                })
                .collect();
            all.sort_by(|a, b| a.1.total_cmp(&b.1));
            let (steps, seconds, figures) = all[all.len() / 2];
            let each = seconds * 1e3 / steps;
            row("G8", &format!("plan and run {steps} steps"), figures, &format!("{each:.2} ms a step (wall); goal: 3"));
            ours.get_or_insert((steps, figures));
        }
        let Some((steps, figures)) = ours else { return };
        if !self.slow {
            println!("| G8 | terraform apply | | | | takes minutes: DROVER_BENCH_SLOW=1 |");
            return;
        }
        let theirs = peers::terraform(&self.at("terraform-apply"), 1_000, false)
            .and_then(|folder| peers::terraform_job(&folder, "apply").run());
        match theirs {
            None => not_there("G8", "terraform apply, 1,000"),
            Some((their, _)) => {
                let times = (their.cpu / 1_000.0) / (figures.cpu / steps);
                row("G8", "terraform apply, 1,000", their, &format!("{times:.0} times our CPU a step; goal: 50"));
            }
        }
    }

    /// G9: a daemon at rest, and how soon it sees a push to a repository on its machine.
    fn resident(&self) {
        let mut all = Vec::new();
        for machines in [1_000, 10_000] {
            let away = self.at(&format!("away-{machines}"));
            fleet::generate(&away, machines);
            fleet::send_hosts_away(&away);
            let seen = daemon::resident(&self.at(&format!("resident-{machines}")), &away);
            let limit = 40.0 + machines as f64 * 6.0 / 1024.0;
            println!(
                "| G9 | daemon at rest, {machines} | | | {:.1} | {:.1} MiB resident, of which {:.1} are the files of the \
                 program and its libraries; goal: {limit:.1} |",
                seen.most, seen.all, seen.files
            );
            all.push((machines as f64, seen.all));
            let (world, _) = self.world(machines);
            let folder = self.at(&format!("daemon-{machines}"));
            let idle = Duration::from_secs(if machines == 1_000 { 60 } else { 20 });
            let seen = daemon::watch(&folder, Path::new(&self.fleet(machines)), Path::new(&world), idle, self.runs);
            println!("| G9 | idle, {machines} | | | | {:.3} % of a core; goal: 0.1 % |", seen.idle * 100.0);
            println!(
                "| G9 | push of one change, {machines} | | | | seen after {:.0} ms, settled after {:.0} ms |",
                seen.noticed * 1e3,
                seen.settled * 1e3
            );
        }
        let each = (all[1].1 - all[0].1) * 1024.0 / (all[1].0 - all[0].0);
        println!("| G9 | each further manifest | | | | {each:.1} KiB; goal: 6 |");
    }

    /// G10: inputs that exhaust other readers.
    fn hostile(&self) {
        let folder = |name: &str, text: &str| {
            let folder = self.at(&format!("hostile {name}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("x.yaml"), text).unwrap();
            folder.to_str().unwrap().to_owned()
        };
        let median = |folder: &str| {
            Job::drover(["validate", folder]).may_exit_with(&[0, 3]).median(self.runs).expect("drover says something")
        };
        let nothing = median(&folder("nothing", "a: 1\n"));
        row("G10", "one small file", nothing, "what the others are compared with");
        for (name, text) in fleet::hostile() {
            let f = median(&folder(name, &text));
            let mb = text.len() as f64 / 1e6;
            let (each, extra) = ((f.cpu - nothing.cpu) * 1e3 / mb.max(1.0), f.mib - nothing.mib);
            row(
                "G10",
                &format!("{name}, {mb:.1} MB"),
                f,
                &format!("{each:.0} ms for each MB, {extra:.0} MiB more; goal: 50, 64"),
            );
        }
    }

    /// G12: moves of real guests, beside virsh.
    fn moves(&self) {
        let Some(seen) = evacuate::measured(&self.at("evacuate"), self.runs) else {
            return not_there("G12", "the lab");
        };
        let ms = |seconds: f64| seconds * 1e3;
        println!(
            "| G12 | one move | | {:.3} | | the step {:.0} ms, virsh {:.0} ms: {:.0} ms more, {:.1} %; goal: 300 ms, 5 %; \
             `drover apply` in all {:.0} ms, with nothing to do {:.0} ms |",
            seen.step,
            ms(seen.step),
            ms(seen.virsh),
            ms(seen.step - seen.virsh),
            (seen.step / seen.virsh - 1.0) * 100.0,
            ms(seen.apply),
            ms(seen.nothing)
        );
        println!(
            "| G12 | 8 guests off a host | | {:.3} | | virsh one after the other: {:.3} s, {:.2} times as long |",
            seen.evacuate,
            seen.serial,
            seen.serial / seen.evacuate
        );
    }

    /// G11: writing a large plan.
    fn render(&self) {
        let folder = self.fleet(10_000);
        let (figures, said) = Job::case("render", [&*folder]).run().expect("the plan is written");
        let parts: Vec<(&str, f64)> =
            said.lines().filter_map(|l| l.rsplit_once(' ')).map(|(n, t)| (n, t.parse().unwrap())).collect();
        let all = parts[0].1;
        row(
            "G11",
            "plan of 10,000 new machines, in each form",
            figures,
            &format!("planning: {:.0} ms of CPU", all * 1e3),
        );
        for (name, seconds) in &parts[1..] {
            let part = seconds / all * 100.0;
            println!("| G11 | {name} | {seconds:.3} | | | {part:.0} % of planning; goal: 10 % |");
        }
    }
}
