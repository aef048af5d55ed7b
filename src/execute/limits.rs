//! Who may begin now: steps at once in all and on each host, migrations that leave and arrive. One scheduler holds every
//! slot and begins a step only when all that it needs are free, so that no two steps can wait for each other.

use super::ExecuteLimits;
use crate::action::{Action, MachineAction};
use crate::model::ResourceId;
use crate::plan::Step;
use std::collections::{BTreeMap, BTreeSet};

/// Migrations at once that leave or arrive at a host that is not named: oVirt's and KubeVirt's default.
const DEFAULT_MIGRATIONS: (usize, usize) = (2, 2);

/// What a step needs slots of. Steps of one lane are alike: if the first does not fit, none does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// A step on one host.
    Host(String),
    /// A step on one cluster.
    Cluster(String),
    /// A migration: one leaves, one arrives; of a resource that says how many of its own move at once, that too.
    Migration { from: String, to: String, of: Option<ResourceId> },
    /// Somebody else's migration that is followed: it runs already, so it never waits, but it counts as leaving.
    Followed(String),
}

impl Lane {
    pub(super) fn of(step: &Step, limits: &ExecuteLimits) -> Self {
        match &step.action {
            Action::Machine(MachineAction::MigrateVirtualMachine(m)) => {
                let of = limits.together.contains_key(&step.resource).then(|| step.resource.clone());
                Self::Migration { from: m.from.clone(), to: m.to.clone(), of }
            }
            Action::Machine(MachineAction::AwaitMigration { host, .. }) => Self::Followed(host.clone()),
            Action::Cluster(a) => Self::Cluster(a.cluster().to_owned()),
            Action::Machine(other) => Self::Host(other.hosts().first().copied().unwrap_or_default().to_owned()),
        }
    }
}

/// The slots that are taken.
#[derive(Debug)]
pub(super) struct Slots {
    limits: ExecuteLimits,
    running: usize,
    on_host: BTreeMap<String, usize>,
    on_cluster: BTreeMap<String, usize>,
    leaving: BTreeMap<String, usize>,
    arriving: BTreeMap<String, usize>,
    of: BTreeMap<ResourceId, usize>,
}

fn count(of: &BTreeMap<String, usize>, host: &str) -> usize {
    of.get(host).copied().unwrap_or(0)
}

fn give_back(to: &mut BTreeMap<String, usize>, host: &str) {
    if let Some(taken) = to.get_mut(host) {
        *taken = taken.saturating_sub(1);
    }
}

impl Slots {
    pub(super) fn new(limits: &ExecuteLimits) -> Self {
        Self {
            limits: limits.clone(),
            running: 0,
            on_host: BTreeMap::new(),
            on_cluster: BTreeMap::new(),
            leaving: BTreeMap::new(),
            arriving: BTreeMap::new(),
            of: BTreeMap::new(),
        }
    }

    pub(super) fn any_free(&self) -> bool {
        self.running < self.limits.max_concurrent
    }

    fn migrations(&self, host: &str) -> (usize, usize) {
        self.limits.migrations.get(host).copied().unwrap_or(DEFAULT_MIGRATIONS)
    }

    pub(super) fn fits(&self, lane: &Lane) -> bool {
        self.any_free()
            && match lane {
                Lane::Host(host) => count(&self.on_host, host) < self.limits.per_host,
                Lane::Cluster(cluster) => count(&self.on_cluster, cluster) < self.limits.per_host,
                Lane::Migration { from, to, of } => {
                    let turn = of.as_ref().is_none_or(|of| {
                        let most = self.limits.together.get(of).copied().unwrap_or(usize::MAX);
                        self.of.get(of).copied().unwrap_or(0) < most
                    });
                    turn && count(&self.leaving, from) < self.migrations(from).0
                        && count(&self.arriving, to) < self.migrations(to).1
                }
                Lane::Followed(_) => true,
            }
    }

    pub(super) fn take(&mut self, lane: &Lane) {
        self.running += 1;
        match lane {
            Lane::Host(host) => *self.on_host.entry(host.clone()).or_default() += 1,
            Lane::Cluster(cluster) => *self.on_cluster.entry(cluster.clone()).or_default() += 1,
            Lane::Migration { from, to, of } => {
                of.iter().for_each(|of| *self.of.entry(of.clone()).or_default() += 1);
                *self.leaving.entry(from.clone()).or_default() += 1;
                *self.arriving.entry(to.clone()).or_default() += 1;
            }
            Lane::Followed(host) => *self.leaving.entry(host.clone()).or_default() += 1,
        }
    }

    pub(super) fn release(&mut self, lane: &Lane) {
        self.running = self.running.saturating_sub(1);
        match lane {
            Lane::Host(host) => give_back(&mut self.on_host, host),
            Lane::Cluster(cluster) => give_back(&mut self.on_cluster, cluster),
            Lane::Migration { from, to, of } => {
                if let Some(taken) = of.as_ref().and_then(|of| self.of.get_mut(of)) {
                    *taken = taken.saturating_sub(1);
                }
                give_back(&mut self.leaving, from);
                give_back(&mut self.arriving, to);
            }
            Lane::Followed(host) => give_back(&mut self.leaving, host),
        }
    }
}

/// Steps that wait for nothing but a slot, by lane, each lane in the plan's order.
#[derive(Debug, Default)]
pub(super) struct Ready(BTreeMap<Lane, BTreeSet<usize>>);

impl Ready {
    pub(super) fn add(&mut self, lane: Lane, step: usize) {
        self.0.entry(lane).or_default().insert(step);
    }

    /// Takes the first step, in the plan's order, whose slots are free, and the slots.
    pub(super) fn next(&mut self, slots: &mut Slots) -> Option<(usize, Lane)> {
        let fitting = self.0.iter().filter(|(lane, _)| slots.fits(lane));
        let (step, lane) = fitting.filter_map(|(lane, steps)| Some((*steps.first()?, lane))).min()?;
        let lane = lane.clone();
        if let Some(steps) = self.0.get_mut(&lane) {
            steps.remove(&step);
            if steps.is_empty() {
                self.0.remove(&lane);
            }
        }
        slots.take(&lane);
        Some((step, lane))
    }

    /// Takes everything.
    pub(super) fn drain(&mut self) -> Vec<usize> {
        let all: BTreeSet<usize> = std::mem::take(&mut self.0).into_values().flatten().collect();
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn move_lane(from: &str, to: &str) -> Lane {
        Lane::Migration { from: from.into(), to: to.into(), of: None }
    }

    fn begin_all(limits: &ExecuteLimits, lanes: Vec<Lane>) -> Vec<usize> {
        let mut ready = Ready::default();
        for (i, lane) in lanes.into_iter().enumerate() {
            ready.add(lane, i);
        }
        let mut slots = Slots::new(limits);
        std::iter::from_fn(|| ready.next(&mut slots).map(|(i, _)| i)).collect()
    }

    #[test]
    fn a_migration_needs_room_at_both_ends() {
        let limits = ExecuteLimits { migrations: [("c".to_owned(), (2, 1))].into(), ..Default::default() };
        let lanes = vec![
            move_lane("a", "c"),
            move_lane("b", "c"),
            move_lane("a", "b"),
            move_lane("a", "b"),
            move_lane("c", "a"),
        ];
        // 1 finds no room at `c`, 3 none at `a`; neither holds up those behind it.
        assert_eq!(begin_all(&limits, lanes), [0, 2, 4]);
    }

    #[test]
    fn a_resource_that_says_how_many_of_its_own_move_at_once_is_obeyed_in_the_plan_s_order() {
        let one = ResourceId::new("VirtualMachineMigration".into(), "one");
        let limits = ExecuteLimits {
            migrations: [("a".to_owned(), (9, 9)), ("b".to_owned(), (9, 9))].into(),
            together: [(one.clone(), 2)].into(),
            ..Default::default()
        };
        let of = |of: Option<&ResourceId>| Lane::Migration { from: "a".into(), to: "b".into(), of: of.cloned() };
        let lanes = || vec![of(Some(&one)), of(Some(&one)), of(Some(&one)), of(None)];
        assert_eq!(begin_all(&limits, lanes()), [0, 1, 3]);
        let mut slots = Slots::new(&limits);
        (0..2).for_each(|_| slots.take(&lanes()[0]));
        assert!(!slots.fits(&lanes()[0]));
        slots.release(&lanes()[0]);
        assert!(slots.fits(&lanes()[0]));
    }

    #[test]
    fn a_busy_host_and_the_total_hold_back() {
        let limits = ExecuteLimits { max_concurrent: 4, per_host: 2, ..Default::default() };
        let host = |h: &str| Lane::Host(h.into());
        let lanes = vec![host("a"), host("a"), host("a"), host("b"), Lane::Followed("a".into()), host("b")];
        assert_eq!(begin_all(&limits, lanes), [0, 1, 3, 4]);
    }

    #[test]
    fn a_followed_migration_counts_as_leaving_and_never_waits() {
        let limits = ExecuteLimits { migrations: [("a".to_owned(), (1, 1))].into(), ..Default::default() };
        let followed = || Lane::Followed("a".into());
        assert_eq!(begin_all(&limits, vec![followed(), followed(), move_lane("a", "b")]), [0, 1]);
    }
}
