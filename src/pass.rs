//! The core loop. A pass is: load → observe → plan → execute → report. [`Engine`] has the parts; the dry run is the
//! same parts without the last, and with handles that cannot write.

use crate::execute::{Event, ExecuteError, ExecuteLimits, Report, Stop, execute};
use crate::journal::{Journal, Outcome};
use crate::kind::host::{HostSpec, parse_uri};
use crate::kind::virtual_machine::questions;
use crate::kind::{Desired, Resources};
use crate::observed::{Observed, Questions};
use crate::plan::{BackOff, Plan, PlanInput, PlanOptions, plan};
use crate::provider::simulator::World;
use crate::provider::{Actor, Observer, ReadFleet, TellChange, WriteFleet, libvirt};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// First rest of a step that failed; doubles with each failure in a row.
const FIRST_REST: Duration = Duration::from_secs(30);
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_secs(15 * 60);

/// How often hosts are asked on for one plan: each time because an answer made another host the right one for a machine.
const ROUNDS: usize = 8;

/// What the operator gives Drover to work with.
#[derive(Clone)]
pub struct Powers {
    /// For hosts reached through libvirt.
    pub libvirt: libvirt::Options,
    /// For `sim:` hosts.
    pub world: World,
    /// How long one host may take to be read.
    pub observe_deadline: Duration,
}

/// Takes events while a plan is carried out.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// The connections of a set of hosts, for as long as the hosts stay as they are.
struct Kept<T>(Mutex<Option<Connections<T>>>);

/// Hosts, and the connections to them.
type Connections<T> = (BTreeMap<String, HostSpec>, Arc<T>);

impl<T> Kept<T> {
    /// Those of these hosts: the ones that are there, or new ones.
    fn of(&self, hosts: &BTreeMap<String, HostSpec>, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((known, connections)) if known == hosts => connections.clone(),
            _ => {
                let connections = Arc::new(make());
                *kept = Some((hosts.clone(), connections.clone()));
                connections
            }
        }
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// The parts of a pass, and what is kept between passes: connections, and which steps rest after a failure.
pub struct Engine {
    powers: Powers,
    reader: Kept<libvirt::Reader>,
    writer: Kept<libvirt::Writer>,
    resting: Mutex<BTreeMap<String, BackOff>>,
    /// Steps that were refused, and not done since.
    refused: Mutex<BTreeSet<String>>,
    watcher: Option<libvirt::Watcher>,
}

/// What a pass did.
#[derive(Debug)]
pub struct PassResult {
    /// What was there.
    pub observed: Observed,
    /// What was to be done.
    pub plan: Plan,
    /// What was done.
    pub report: Report,
}

impl Engine {
    /// An engine with these powers.
    pub fn new(powers: Powers) -> Self {
        Self {
            powers,
            reader: Kept::default(),
            writer: Kept::default(),
            resting: Mutex::default(),
            refused: Mutex::default(),
            watcher: None,
        }
    }

    /// Also listens to hosts, from [`Engine::listen`] on. Simulated hosts have nothing to tell.
    #[must_use]
    pub fn listening(self, tell: TellChange) -> Self {
        Self { watcher: Some(libvirt::Watcher::new(self.powers.libvirt.clone(), tell)), ..self }
    }

    /// Listens to the hosts of these manifests from now on, and to no others.
    pub fn listen(&self, resources: &Resources) {
        if let Some(watcher) = &self.watcher {
            watcher.follow(&self.split(resources).1);
        }
    }

    /// The hosts for reading only: what a dry run is given.
    pub fn readers(&self, resources: &Resources) -> ReadFleet {
        let (simulated, real) = self.split(resources);
        let mut fleet: BTreeMap<String, Arc<dyn Observer>> = BTreeMap::new();
        let reader: Arc<dyn Observer> =
            self.reader.of(&real, || libvirt::Reader::new(real.clone(), self.powers.libvirt.clone()));
        fleet.extend(real.into_keys().map(|h| (h, reader.clone())));
        fleet.extend(simulated.into_iter().map(|h| (h, self.powers.world.observer())));
        ReadFleet::new(fleet)
    }

    /// The hosts for reading and writing. Connections are kept while the hosts stay as they are.
    pub fn writers(&self, resources: &Resources) -> WriteFleet {
        let (simulated, real) = self.split(resources);
        let writer = self.writer.of(&real, || libvirt::Writer::new(real.clone(), self.powers.libvirt.clone()));
        let mut fleet: BTreeMap<String, Arc<dyn Actor>> = BTreeMap::new();
        fleet.extend(real.into_keys().map(|h| (h, writer.clone() as Arc<dyn Actor>)));
        fleet.extend(simulated.into_iter().map(|h| (h, self.powers.world.actor())));
        WriteFleet::new(fleet)
    }

    /// Simulated hosts, and those that libvirt serves.
    fn split(&self, resources: &Resources) -> (Vec<String>, BTreeMap<String, HostSpec>) {
        let is_simulated = |h: &HostSpec| parse_uri(&h.uri).is_ok_and(|c| c.driver == "sim");
        let (simulated, real): (Vec<_>, Vec<_>) = resources.hosts.iter().partition(|(_, h)| is_simulated(&h.spec));
        for (name, _) in &simulated {
            self.powers.world.add_host(name);
        }
        (
            simulated.into_iter().map(|(n, _)| n.clone()).collect(),
            real.into_iter().map(|(n, h)| (n.clone(), h.spec.clone())).collect(),
        )
    }

    /// Reads every host, with handles that cannot write, and asks what the manifests make it necessary to ask.
    /// `rebalance`: what [`PlanOptions::rebalance`] will be.
    pub async fn observe(&self, resources: &Resources, rebalance: bool) -> Observed {
        self.read(&self.readers(resources), resources, rebalance).await
    }

    /// The same through the connections by which [`Engine::carry_out`] changes hosts: for who will, right after, and to whom
    /// connecting anew would cost more than reading.
    pub async fn observe_to_act(&self, resources: &Resources, rebalance: bool) -> Observed {
        self.read(&self.writers(resources).read(), resources, rebalance).await
    }

    async fn read(&self, fleet: &ReadFleet, resources: &Resources, rebalance: bool) -> Observed {
        let mut observed = fleet.observe(Timestamp::now(), self.powers.observe_deadline).await;
        // An answer can make another host the right one for a machine, of which other things are asked then.
        for _ in 0..ROUNDS {
            let questions = questions(resources, &observed, rebalance);
            if questions.is_empty() {
                break;
            }
            fleet.ask(questions, &mut observed, self.powers.observe_deadline).await;
        }
        observed
    }

    /// Asks hosts that were read for more, with handles that cannot write; the answers go into the observation.
    pub async fn ask(&self, resources: &Resources, questions: Questions, observed: &mut Observed) {
        self.readers(resources).ask(questions, observed, self.powers.observe_deadline).await;
    }

    /// Plans from an observation. Steps that rest after a failure are held back.
    pub fn plan(&self, desired: &Desired, observed: &Observed, mut options: PlanOptions) -> Plan {
        options.backing_off.extend(self.resting.lock().unwrap_or_else(PoisonError::into_inner).clone());
        plan(&PlanInput { desired, observed, now: Timestamp::now(), options })
    }

    /// Lets every resting step be tried at once: a new commit came, or somebody asked.
    pub fn wake_all(&self) {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Steps that rest after a failure, by id.
    pub fn resting(&self) -> BTreeMap<String, BackOff> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Carries a plan out.
    pub async fn carry_out(
        &self,
        desired: &Desired,
        plan: &Plan,
        journal: Arc<dyn Journal>,
        events: Events,
        stop: Stop,
    ) -> Result<Report, ExecuteError> {
        let fleet = self.writers(&desired.resources);
        let report =
            execute(plan, &fleet, journal, &limits(&desired.resources), events, stop, Arc::new(Timestamp::now)).await?;
        self.rest(&report);
        Ok(report)
    }

    /// One pass: observe, plan, carry out.
    pub async fn pass(
        &self,
        desired: &Desired,
        options: PlanOptions,
        journal: Arc<dyn Journal>,
        events: Events,
        stop: Stop,
    ) -> Result<PassResult, ExecuteError> {
        let observed = self.observe_to_act(&desired.resources, options.rebalance).await;
        let plan = self.plan(desired, &observed, options);
        let report = if plan.runnable().next().is_some() {
            self.carry_out(desired, &plan, journal, events, stop).await?
        } else {
            Report::default()
        };
        Ok(PassResult { observed, plan, report })
    }

    /// Notes which steps failed, or were refused twice, so that the next pass does not hammer them.
    fn rest(&self, report: &Report) {
        let now = Timestamp::now();
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for (step, outcome) in &report.outcomes {
            let error = match outcome {
                Outcome::Failed { error, .. } => error,
                Outcome::Done | Outcome::AlreadyDone => {
                    resting.remove(step);
                    refused.remove(step);
                    continue;
                }
                // What was planned was out of date: the next plan knows better. One that is refused again and again does not.
                Outcome::Refused { reason } => {
                    if refused.insert(step.clone()) {
                        continue;
                    }
                    reason
                }
                Outcome::Interrupted | Outcome::Skipped { .. } => continue,
            };
            let failures = resting.get(step).map_or(0, |b| b.failures) + 1;
            let rest = FIRST_REST.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST_REST);
            let until = now.checked_add(rest).unwrap_or(Timestamp::MAX);
            resting.insert(step.clone(), BackOff { until, error: error.clone(), failures });
        }
    }
}

/// The limits that the manifests set.
fn limits(resources: &Resources) -> ExecuteLimits {
    let migrations = resources
        .hosts
        .iter()
        .map(|(name, host)| {
            let m = &host.spec.migration;
            (name.clone(), (m.max_outgoing as usize, m.max_incoming as usize))
        })
        .collect();
    ExecuteLimits {
        max_concurrent: resources.the_settings().max_concurrent as usize,
        migrations,
        together: resources
            .virtual_machine_migrations
            .values()
            .filter_map(|m| Some((m.id(), m.spec.parallelism? as usize)))
            .collect(),
        ..ExecuteLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        let (libvirt, world) = (libvirt::Options::default(), World::new());
        Engine::new(Powers { libvirt, world, observe_deadline: Duration::from_secs(1) })
    }

    fn report(outcome: Outcome) -> Report {
        Report { outcomes: BTreeMap::from([("step".into(), outcome)]) }
    }

    #[test]
    fn a_step_that_is_refused_again_and_again_rests_and_one_that_was_out_of_date_once_does_not() {
        let engine = engine();
        let refused = || report(Outcome::Refused { reason: "the definition changed".into() });
        engine.rest(&refused());
        assert!(engine.resting().is_empty());
        engine.rest(&report(Outcome::Done));
        engine.rest(&refused());
        assert!(engine.resting().is_empty(), "it was done in between");
        engine.rest(&refused());
        assert_eq!(engine.resting()["step"].error, "the definition changed");
        engine.wake_all();
        engine.rest(&refused());
        assert!(engine.resting().is_empty(), "a new commit begins anew");
    }

    #[test]
    fn rests_grow_with_each_failure_in_a_row() {
        let engine = engine();
        let failed = || report(Outcome::Failed { error: "no link".into(), transient: true });
        let mut before = Duration::ZERO;
        for failures in 1..=3 {
            engine.rest(&failed());
            let rest = engine.resting()["step"].clone();
            let left = Duration::try_from(rest.until.duration_since(Timestamp::now())).unwrap();
            assert!(rest.failures == failures && left > before, "{rest:?}");
            before = left;
        }
        (0..20).for_each(|_| engine.rest(&failed()));
        let until = engine.resting()["step"].until;
        assert!(until <= Timestamp::now().checked_add(LONGEST_REST).unwrap());
    }
}
