//! What the tests of the simulation share: steps and plans by hand, a world with two hosts, and one way to run a plan.

use drover::action::{Action, MachineAction, Migration, MigrationWay};
use drover::execute::{Event, ExecuteError, ExecuteLimits, Report, Stop, execute};
use drover::journal::{Journal, Memory, Outcome};
use drover::model::{KindName, ResourceId, Revision};
use drover::plan::{Disruption, Estimate, FORMAT_VERSION, Interruption, Plan, Step, Summary};
use drover::provider::WriteFleet;
use drover::provider::simulator::World;
use jiff::Timestamp;
use std::future::Future;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// Runs a test in paused time.
pub fn paused<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(test)
}

pub fn step(id: &str, action: MachineAction, depends_on: &[&str]) -> Step {
    let interruption = match action {
        MachineAction::MigrateVirtualMachine(_) | MachineAction::AwaitMigration { .. } => Interruption::Drainable,
        _ => Interruption::Interruptible,
    };
    Step {
        id: id.into(),
        action: Action::Machine(action),
        resource: ResourceId::new(KindName::new("VirtualMachine"), id),
        summary: id.into(),
        why: String::new(),
        depends_on: depends_on.iter().map(|d| (*d).to_owned()).collect(),
        disruption: Disruption::None,
        interruption,
        undo: None,
        estimate: Estimate::default(),
        blocked_by: Vec::new(),
        checks: Vec::new(),
    }
}

pub fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        format_version: FORMAT_VERSION.into(),
        hash: "0".into(),
        revision: Revision::default(),
        observed_at: now(),
        summary: Summary::default(),
        resources: Vec::new(),
        steps,
        findings: Vec::new(),
    }
}

pub fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x0bad_cafe_0000_4000_8000_0000_0000_0000 + n)
}

/// A machine of 512 MiB without disks.
pub fn xml(n: u128) -> String {
    xml_with(n, "")
}

pub fn xml_with(n: u128, devices: &str) -> String {
    format!(
        "<domain type='kvm'><name>vm-{n}</name><uuid>{}</uuid><memory unit='MiB'>512</memory>\
         <vcpu current='1'>4</vcpu><os><type machine='q35'>hvm</type></os><devices>{devices}\
         <interface type='network'><source network='default'/></interface></devices></domain>",
        uuid(n)
    )
}

/// Hosts `a`, `b` and `c`.
pub fn world() -> World {
    let world = World::new();
    for host in ["a", "b", "c"] {
        world.add_host(host);
    }
    world
}

/// A machine that runs on a host.
pub async fn running(world: &World, host: &str, n: u128) -> Uuid {
    let uuid = world.define(host, &xml(n)).unwrap();
    carry_out(world, vec![step("start", start(host, n), &[])]).await;
    uuid
}

pub fn define(host: &str, n: u128) -> MachineAction {
    MachineAction::DefineDomain { host: host.into(), name: format!("vm-{n}"), uuid: uuid(n), xml: xml(n) }
}

pub fn start(host: &str, n: u128) -> MachineAction {
    MachineAction::StartDomain { host: host.into(), uuid: uuid(n), paused: false }
}

pub fn shutdown(host: &str, n: u128, force: bool) -> MachineAction {
    MachineAction::ShutdownDomain { host: host.into(), uuid: uuid(n), timeout_millis: 30_000, force }
}

pub fn migration(n: u128, from: &str, to: &str, way: MigrationWay) -> Migration {
    Migration {
        timeout_millis: 600_000,
        autostart: true,
        ..Migration::new(uuid(n), &format!("vm-{n}"), [from, to], way, format!("sim:{to}"))
    }
}

pub fn migrate(n: u128, from: &str, to: &str) -> MachineAction {
    MachineAction::MigrateVirtualMachine(Box::new(migration(n, from, to, MigrationWay::Live)))
}

/// One execution with everything that a test may want to set or see.
pub struct Run {
    pub journal: Arc<dyn Journal>,
    pub limits: ExecuteLimits,
    pub stop: Stop,
    pub events: Arc<Mutex<Vec<Event>>>,
    /// Called with each event, to act at a moment of the run.
    pub on_event: Arc<dyn Fn(&Event) + Send + Sync>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            journal: Arc::new(Memory::new()),
            limits: ExecuteLimits::default(),
            stop: Stop::default(),
            events: Arc::default(),
            on_event: Arc::new(|_| {}),
        }
    }
}

impl Run {
    pub async fn go(&self, fleet: &WriteFleet, steps: Vec<Step>) -> Result<Report, ExecuteError> {
        self.go_plan(fleet, &plan(steps)).await
    }

    pub async fn go_plan(&self, fleet: &WriteFleet, plan: &Plan) -> Result<Report, ExecuteError> {
        let (events, on_event) = (self.events.clone(), self.on_event.clone());
        let events: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(move |event| {
            on_event(&event);
            events.lock().unwrap().push(event);
        });
        execute(plan, fleet, self.journal.clone(), &self.limits, events, self.stop.clone(), Arc::new(now)).await
    }

    /// Ids of steps in the order in which they began or ended.
    pub fn order(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let line = |e: &Event| match e {
            Event::Started { step, .. } => Some(format!("+{step}")),
            Event::Finished { step, .. } => Some(format!("-{step}")),
            _ => None,
        };
        events.iter().filter_map(line).collect()
    }
}

/// Carries steps out and expects all of them to succeed.
pub async fn carry_out(world: &World, steps: Vec<Step>) -> Report {
    let report = Run::default().go(&world.fleet(), steps).await.unwrap();
    assert!(report.succeeded(), "{report:?}");
    report
}

pub fn reason(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused { reason } | Outcome::Skipped { reason } => reason.clone(),
        Outcome::Failed { error, .. } => error.clone(),
        other => format!("{other:?}"),
    }
}
