//! Cases that use the library: each runs in a process of its own.

use crate::fleet;
use crate::measure::own_cpu;
use drover::execute::{ExecuteLimits, Stop, execute};
use drover::journal::{Journal, Memory, Outcome, Sqlite};
use drover::kind::Desired;
use drover::load::{Limits, load};
use drover::model::Revision;
use drover::observed::Observed;
use drover::plan::{Plan, PlanInput, PlanOptions, plan};
use drover::provider::simulator::World;
use drover::render::{json, markdown, text};
use drover::source::folder::FolderTree;
use jiff::Timestamp;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Runs a case; what it has to say goes to standard output.
pub fn case(name: &str, args: &[String]) {
    match name {
        "prepare" => prepare(Path::new(&args[0]), Path::new(&args[1]), Path::new(&args[2])),
        "execute" => println!("{}", executed(Path::new(&args[0]))),
        "render" => rendered(Path::new(&args[0])),
        other => panic!("no case {other}"),
    }
}

fn read(folder: &Path) -> Desired {
    let tree = FolderTree::open(folder).unwrap();
    let loaded = load(&tree, Revision::default(), &Limits::default());
    loaded.desired.unwrap_or_else(|| panic!("{:?}", loaded.findings.first()))
}

fn empty_world(desired: &Desired) -> World {
    let world = World::new();
    desired.resources.hosts.keys().for_each(|host| world.add_host(host));
    world
}

async fn observe(world: &World) -> Observed {
    world.fleet().read().observe(Timestamp::now(), Duration::from_secs(60)).await
}

fn plan_for(desired: &Desired, observed: &Observed) -> Plan {
    plan(&PlanInput { desired, observed, now: Timestamp::now(), options: PlanOptions::default() })
}

async fn carry_out(plan: &Plan, world: &World, journal: Arc<dyn Journal>) {
    let limits = ExecuteLimits { max_concurrent: 64, ..ExecuteLimits::default() };
    let (events, now) = (Arc::new(|_| {}), Arc::new(Timestamp::now));
    let report = execute(plan, &world.fleet(), journal, &limits, events, Stop::default(), now).await.unwrap();
    let wrong = report.outcomes.values().find(|o| !matches!(o, Outcome::Done));
    assert!(report.succeeded(), "{wrong:?}");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Makes the world that a folder wants, and saves it and what is observed of it.
fn prepare(folder: &Path, world_file: &Path, observed_file: &Path) {
    let desired = read(folder);
    let world = empty_world(&desired);
    runtime().block_on(async {
        let plan = plan_for(&desired, &observe(&world).await);
        carry_out(&plan, &world, Arc::new(Memory::default())).await;
        let observed = observe(&world).await;
        assert!(plan_for(&desired, &observed).is_empty());
        json::write(&mut File::create(observed_file).unwrap(), &observed).unwrap();
    });
    world.save(world_file).unwrap();
}

/// Plans and runs everything that a folder wants in the simulator, each step with its two records on disk. Gives the
/// number of steps and the seconds that they took, without loading and planning.
fn executed(folder: &Path) -> String {
    let desired = read(folder);
    let world = empty_world(&desired);
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let journal: Arc<dyn Journal> = Arc::new(Sqlite::open(scratch.path().join("journal.sqlite")).unwrap());
    runtime().block_on(async {
        let plan = plan_for(&desired, &observe(&world).await);
        let began = Instant::now();
        carry_out(&plan, &world, journal).await;
        format!("{} {}", plan.steps.len(), began.elapsed().as_secs_f64())
    })
}

/// The CPU seconds of planning everything that a folder wants, and of writing that plan in each form.
fn rendered(folder: &Path) {
    let desired = read(folder);
    let observed = runtime().block_on(observe(&empty_world(&desired)));
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let began = own_cpu();
        work();
        println!("{what} {}", own_cpu() - began);
    };
    let mut planned = None;
    timed("plan", &mut || planned = Some(plan_for(&desired, &observed)));
    let plan = planned.unwrap();
    let options = text::Options { colour: false, full: false };
    timed("text", &mut || text::write(&mut io::sink(), &plan, options).unwrap());
    timed("Markdown", &mut || markdown::write(&mut io::sink(), &plan).unwrap());
    timed("JSON", &mut || json::write(&mut io::sink(), &plan).unwrap());
}

/// For `cargo test --all-targets`: shows that the cases run.
pub fn smallest() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fleet::generate(&at("fleet"), 20);
    prepare(&at("fleet"), &at("world.json"), &at("observed.json"));
    assert!(at("observed.json").exists());
    for (name, text) in fleet::hostile() {
        assert!(text.len() <= 4 << 20, "{name}");
    }
}
