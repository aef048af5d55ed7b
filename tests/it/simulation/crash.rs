//! The crash sweep: Drover dies at every journal write and at every call to a host, before and after it took effect, and
//! at every moment of time in between. The world lives on. The next Drover recovers, plans and carries on, and must reach
//! what an undisturbed one reaches, without any machine ever running twice and any precondition violated.

use super::converge::{converge, plan_for, seeds};
use super::scenario::{Dice, HOSTS, desired, ground, id, machines, meddle};
use super::support::{Run, now, paused};
use async_trait::async_trait;
use drover::action::Action;
use drover::execute::recover;
use drover::journal::{InDoubt, Journal, JournalError, Memory, Outcome, PassRecord};
use drover::kind::Desired;
use drover::observed::RunState;
use drover::plan::{Plan, Step};
use drover::provider::simulator::{Frozen, World};
use drover::provider::{ActError, Actor, Look, StepCtx, WriteFleet};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// When one Drover dies: at the how-manieth moment, before or after what happens there.
#[derive(Debug)]
struct Fate {
    moment: AtomicUsize,
    dies_at: usize,
    after: bool,
    dead: CancellationToken,
}

enum Turn {
    Alive,
    DiesBefore,
    DiesAfter,
    Dead,
}

impl Fate {
    fn new(dies_at: usize, after: bool) -> Arc<Self> {
        Arc::new(Self { moment: AtomicUsize::new(0), dies_at, after, dead: CancellationToken::new() })
    }

    fn turn(&self) -> Turn {
        if self.dead.is_cancelled() {
            return Turn::Dead;
        }
        let moment = self.moment.fetch_add(1, Ordering::SeqCst) + 1;
        match (moment == self.dies_at, self.after) {
            (false, _) => Turn::Alive,
            (true, false) => Turn::DiesBefore,
            (true, true) => Turn::DiesAfter,
        }
    }

    /// A synchronous call of a process that may die.
    fn sync<T>(&self, call: impl FnOnce() -> Result<T, JournalError>) -> Result<T, JournalError> {
        let died = || JournalError { path: "dead".into(), why: "the process is dead".into() };
        match self.turn() {
            Turn::Alive => call(),
            Turn::Dead => Err(died()),
            Turn::DiesBefore => {
                self.dead.cancel();
                Err(died())
            }
            Turn::DiesAfter => {
                let _ = call();
                self.dead.cancel();
                Err(died())
            }
        }
    }

    /// An asynchronous one: a dead process never hears an answer.
    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        match self.turn() {
            Turn::Alive => return call.await,
            Turn::Dead => {}
            Turn::DiesBefore => self.dead.cancel(),
            Turn::DiesAfter => {
                call.await;
                self.dead.cancel();
            }
        }
        std::future::pending().await
    }
}

struct MortalJournal(Arc<Fate>, Arc<dyn Journal>);

impl Journal for MortalJournal {
    fn begin(&self, plan: &Plan, now: Timestamp) -> Result<i64, JournalError> {
        self.0.sync(|| self.1.begin(plan, now))
    }
    fn started(&self, pass: i64, step: &Step, now: Timestamp) -> Result<(), JournalError> {
        self.0.sync(|| self.1.started(pass, step, now))
    }
    fn finished(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError> {
        self.0.sync(|| self.1.finished(pass, step, outcome, now))
    }
    fn end(&self, pass: i64, result: &str, now: Timestamp) -> Result<(), JournalError> {
        self.0.sync(|| self.1.end(pass, result, now))
    }
    fn in_doubt(&self) -> Result<Vec<InDoubt>, JournalError> {
        self.1.in_doubt()
    }
    fn resolve(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError> {
        self.0.sync(|| self.1.resolve(pass, step, outcome, now))
    }
    fn history(&self, limit: usize) -> Result<Vec<PassRecord>, JournalError> {
        self.1.history(limit)
    }
}

struct MortalActor(Arc<Fate>, Arc<dyn Actor>);

#[async_trait]
impl Actor for MortalActor {
    async fn look(&self, action: &Action, ctx: &StepCtx) -> Result<Look, ActError> {
        self.0.call(self.1.look(action, ctx)).await
    }
    async fn act(&self, action: &Action, ctx: &StepCtx) -> Result<(), ActError> {
        self.0.call(self.1.act(action, ctx)).await
    }
    async fn verify(&self, action: &Action, ctx: &StepCtx) -> Result<(), ActError> {
        self.0.call(self.1.verify(action, ctx)).await
    }
}

/// One life of Drover: passes until there is nothing to do, or death.
async fn live(world: &World, wanted: &Desired, journal: &Arc<dyn Journal>, fate: &Arc<Fate>) {
    let mortal: Arc<dyn Journal> = Arc::new(MortalJournal(fate.clone(), journal.clone()));
    let actor: Arc<dyn Actor> = Arc::new(MortalActor(fate.clone(), world.actor()));
    let fleet: BTreeMap<String, Arc<dyn Actor>> = world.hosts().into_iter().map(|h| (h, actor.clone())).collect();
    let fleet = WriteFleet::new(world.fleet().read(), fleet);
    let passes = async {
        for _ in 0..4 {
            let Ok(found) = recover(mortal.clone(), &fleet, Arc::new(now)).await else { return };
            let plan = plan_for(world, wanted, &found).await;
            if plan.runnable().next().is_none() {
                return;
            }
            let run = Run { journal: mortal.clone(), ..Default::default() };
            let _ = run.go_plan(&fleet, &plan).await;
        }
    };
    tokio::select! {
        biased;
        () = fate.dead.cancelled() => {}
        () = passes => {}
    }
}

/// Where every machine is and what it does, in the end.
fn outcome(world: &World) -> Vec<(String, String, RunState, bool, bool)> {
    let at = |name: &str| world.find(id(name)).into_iter();
    let line = |(host, d): (String, drover::observed::DomainState)| (host, d.name, d.state, d.persistent, d.autostart);
    ["vm-0", "vm-1", "vm-2"].into_iter().flat_map(at).map(line).collect()
}

/// A world that was converged to one wish and meddled with; and the next wish.
async fn prepare(seed: u64) -> (Frozen, Desired) {
    let mut dice = Dice::new(seed);
    let world = World::new();
    HOSTS.iter().for_each(|h| world.add_host(h));
    let journal: Arc<dyn Journal> = Arc::new(Memory::new());
    let mut before = ground();
    machines(&mut dice, &mut before);
    converge(&world, &desired(before), &journal).await.unwrap();
    if dice.one_in(2) {
        meddle(&mut dice, &world).await;
    }
    let mut after = ground();
    machines(&mut dice, &mut after);
    (world.freeze(), desired(after))
}

async fn settle(
    world: &World,
    wanted: &Desired,
    journal: &Arc<dyn Journal>,
    expected: &[(String, String, RunState, bool, bool)],
) -> Result<(), String> {
    world.check()?;
    converge(world, wanted, journal).await?;
    let doubt = journal.in_doubt().map_err(|e| e.to_string())?;
    if !doubt.is_empty() {
        return Err(format!("still in doubt: {doubt:#?}"));
    }
    let ended = outcome(world);
    if ended != expected {
        return Err(format!("ended as {ended:#?}\ninstead of {expected:#?}"));
    }
    Ok(())
}

/// What an undisturbed life comes to.
struct Undisturbed {
    world: Frozen,
    wanted: Desired,
    moments: usize,
    took: Duration,
    expected: Vec<(String, String, RunState, bool, bool)>,
}

async fn undisturbed(seed: u64) -> Undisturbed {
    let (frozen, wanted) = prepare(seed).await;
    let world = frozen.thaw();
    let journal: Arc<dyn Journal> = Arc::new(Memory::new());
    let fate = Fate::new(0, false);
    let begun = tokio::time::Instant::now();
    live(&world, &wanted, &journal, &fate).await;
    let took = begun.elapsed();
    let expected = outcome(&world);
    settle(&world, &wanted, &journal, &expected).await.unwrap();
    Undisturbed { world: frozen, wanted, moments: fate.moment.load(Ordering::SeqCst), took, expected }
}

#[test]
fn drover_may_die_at_every_write_and_every_call() {
    let mut deaths = 0;
    for seed in seeds(4) {
        paused(async {
            let one = undisturbed(seed).await;
            for dies_at in 1..=one.moments {
                for after in [false, true] {
                    let (world, journal): (_, Arc<dyn Journal>) = (one.world.thaw(), Arc::new(Memory::new()));
                    live(&world, &one.wanted, &journal, &Fate::new(dies_at, after)).await;
                    let settled = settle(&world, &one.wanted, &journal, &one.expected).await;
                    let when = if after { "after" } else { "before" };
                    settled.unwrap_or_else(|e| panic!("DROVER_SEED={seed}, death {when} moment {dies_at}: {e}"));
                    deaths += 1;
                }
            }
        });
    }
    println!("{deaths} deaths survived");
    assert!(deaths > 0, "the worlds have nothing in them");
}

#[test]
fn drover_may_die_at_any_time_of_a_migration() {
    for seed in seeds(8) {
        paused(async {
            let one = undisturbed(seed).await;
            // Calls that take time make every phase of an action a moment to die in.
            let tick = (one.took / 30).max(Duration::from_millis(5));
            for n in 1..=30 {
                let (world, journal): (_, Arc<dyn Journal>) = (one.world.thaw(), Arc::new(Memory::new()));
                world.set_latency(Duration::from_millis(3));
                let immortal = Fate::new(0, false);
                let _ = tokio::time::timeout(tick * n, live(&world, &one.wanted, &journal, &immortal)).await;
                let settled = settle(&world, &one.wanted, &journal, &one.expected).await;
                settled.unwrap_or_else(|e| panic!("DROVER_SEED={seed}, death after {:?}: {e}", tick * n));
            }
        });
    }
}

#[test]
fn drover_may_die_again_and_again() {
    for seed in seeds(20) {
        paused(async {
            let one = undisturbed(seed).await;
            let (world, journal): (_, Arc<dyn Journal>) = (one.world.thaw(), Arc::new(Memory::new()));
            let mut dice = Dice::new(seed);
            for _ in 0..20 {
                let dies_at = usize::try_from(dice.roll(one.moments.max(2) as u64)).unwrap() + 1;
                live(&world, &one.wanted, &journal, &Fate::new(dies_at, dice.one_in(2))).await;
                world.check().unwrap_or_else(|e| panic!("DROVER_SEED={seed}: {e}"));
            }
            let settled = settle(&world, &one.wanted, &journal, &one.expected).await;
            settled.unwrap_or_else(|e| panic!("DROVER_SEED={seed}: {e}"));
        });
    }
}
