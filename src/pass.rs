//! The core loop. A pass is: load → observe → plan → execute → report. [`Engine`] has the parts; the dry run is the
//! same parts without the last, and with handles that cannot write.

use crate::execute::{Event, ExecuteError, ExecuteLimits, Report, Stop, execute};
use crate::journal::{Journal, Outcome};
use crate::kind::cluster;
use crate::kind::host::{HostSpec, parse_uri};
use crate::kind::virtual_machine::questions;
use crate::kind::{Desired, Resources};
use crate::observed::{Observed, Questions};
use crate::plan::{BackOff, Plan, PlanInput, PlanOptions, plan};
use crate::provider::simulator::World;
use crate::provider::{Actor, ClusterObserver, Observer, ReadFleet, TellChange, WriteFleet, kubernetes, libvirt};
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
    /// For clusters.
    pub kubernetes: kubernetes::KubernetesOptions,
    /// For `sim:` hosts.
    pub world: World,
    /// How long one host or cluster may take to be read.
    pub observe_deadline: Duration,
}

/// Takes events while a plan is carried out.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// The connections of a set of hosts or clusters, for as long as these stay as they are.
struct Kept<S, T>(Mutex<Option<Connections<S, T>>>);

/// Hosts or clusters, and the connections to them.
type Connections<S, T> = (BTreeMap<String, S>, Arc<T>);

impl<S: Clone + PartialEq, T> Kept<S, T> {
    /// Those of these hosts: the ones that are there, or new ones.
    fn of(&self, hosts: &BTreeMap<String, S>, make: impl FnOnce() -> T) -> Arc<T> {
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

impl<S, T> Default for Kept<S, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// The parts of a pass, and what is kept between passes: connections, and which steps rest after a failure.
pub struct Engine {
    powers: Powers,
    reader: Kept<HostSpec, libvirt::Reader>,
    writer: Kept<HostSpec, libvirt::Writer>,
    cluster_reader: Kept<kubernetes::Declared, kubernetes::Reader>,
    cluster_writer: Kept<kubernetes::Declared, kubernetes::Writer>,
    resting: Mutex<BTreeMap<String, BackOff>>,
    /// Steps that were refused, and not done since.
    refused: Mutex<BTreeSet<String>>,
    watcher: Option<libvirt::Watcher>,
    cluster_watcher: Option<kubernetes::Watcher>,
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
            cluster_reader: Kept::default(),
            cluster_writer: Kept::default(),
            resting: Mutex::default(),
            refused: Mutex::default(),
            watcher: None,
            cluster_watcher: None,
        }
    }

    /// Also listens to hosts and clusters, from [`Engine::listen`] on. Simulated hosts have nothing to tell.
    #[must_use]
    pub fn listening(self, tell: TellChange) -> Self {
        let clusters = kubernetes::Watcher::new(self.powers.kubernetes.clone(), tell.clone());
        let hosts = libvirt::Watcher::new(self.powers.libvirt.clone(), tell);
        Self { watcher: Some(hosts), cluster_watcher: Some(clusters), ..self }
    }

    /// Listens to the hosts and clusters of these manifests from now on, and to no others.
    pub fn listen(&self, resources: &Resources) {
        if let Some(watcher) = &self.watcher {
            watcher.follow(&self.split(resources).1);
        }
        if let Some(watcher) = &self.cluster_watcher {
            watcher.follow(&clusters(resources));
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
        let clusters = clusters(resources);
        let reader: Arc<dyn ClusterObserver> = self.cluster_reader.of(&clusters, || {
            kubernetes::Reader::new(clusters.clone(), self.powers.kubernetes.clone(), self.watched())
        });
        ReadFleet::new(fleet).with_clusters(clusters.into_keys().map(|c| (c, reader.clone())).collect())
    }

    /// What is known not to have changed on clusters since it was read.
    fn watched(&self) -> Option<kubernetes::Watched> {
        self.cluster_watcher.as_ref().map(kubernetes::Watcher::watched)
    }

    /// The hosts for reading and writing. Connections are kept while the hosts stay as they are.
    pub fn writers(&self, resources: &Resources) -> WriteFleet {
        let (simulated, real) = self.split(resources);
        let writer = self.writer.of(&real, || libvirt::Writer::new(real.clone(), self.powers.libvirt.clone()));
        let mut read: BTreeMap<String, Arc<dyn Observer>> = BTreeMap::new();
        let mut write: BTreeMap<String, Arc<dyn Actor>> = BTreeMap::new();
        for host in real.into_keys() {
            read.insert(host.clone(), writer.clone());
            write.insert(host, writer.clone());
        }
        for host in simulated {
            read.insert(host.clone(), self.powers.world.observer());
            write.insert(host, self.powers.world.actor());
        }
        let clusters = clusters(resources);
        let writer = self.cluster_writer.of(&clusters, || {
            kubernetes::Writer::new(clusters.clone(), self.powers.kubernetes.clone(), self.watched())
        });
        let (mut read_clusters, mut write_clusters) = (BTreeMap::new(), BTreeMap::new());
        for cluster in clusters.into_keys() {
            read_clusters.insert(cluster.clone(), writer.clone() as Arc<dyn ClusterObserver>);
            write_clusters.insert(cluster, writer.clone() as Arc<dyn Actor>);
        }
        WriteFleet::new(ReadFleet::new(read).with_clusters(read_clusters), write).with_clusters(write_clusters)
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
        for _ in 0..ROUNDS {
            let questions = cluster::questions(resources, &observed);
            if questions.is_empty() {
                break;
            }
            fleet.ask_clusters(questions, &mut observed, self.powers.observe_deadline).await;
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

/// The clusters that the manifests declare, with what Drover has to be allowed there.
fn clusters(resources: &Resources) -> BTreeMap<String, kubernetes::Declared> {
    let specs = cluster::in_force(resources);
    let rights: BTreeMap<String, _> = specs.keys().map(|name| (name.clone(), cluster::rights(name, &specs))).collect();
    let declared = specs.into_iter().zip(rights.into_values());
    declared.map(|((name, spec), rights)| (name, kubernetes::Declared { spec, rights })).collect()
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
        let kubernetes = kubernetes::KubernetesOptions::default();
        Engine::new(Powers { libvirt, kubernetes, world, observe_deadline: Duration::from_secs(1) })
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
