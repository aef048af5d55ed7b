//! From manifests and observation to the numbers that [`super::solve`] works with.

use super::super::survey::{Copy, Located, Survey};
use super::super::{PowerState, Spread as SpreadRule, VirtualMachineSpec};
use super::solve::{Bin, Item, Problem, Spread, UNLIMITED};
use super::wants::{Footprint, Ground, Misfit, Wants, footprint};
use crate::kind::Resources;
use crate::kind::host::Maintenance;
use crate::kind::settings::PlacementSettings;
use crate::model::Manifest;
use crate::observed::{DomainState, Observed, Reading};
use std::collections::BTreeMap;

type Machine = Manifest<VirtualMachineSpec>;

/// Most machines that are looked at for whether they could make way: each costs the reading of its definition.
const MOST_TO_MAKE_WAY: usize = 400;

/// Machines that are placed as one: one machine, or those that `affinity` keeps together.
pub(super) struct Unit<'a> {
    pub(super) members: Vec<Member<'a>>,
    /// The host of members that are pinned, where it is one.
    pinned: Option<usize>,
    /// Whether pinned members are on different hosts, so that there is no place for the others.
    pub(super) torn: bool,
    /// Whether the options of its item were worked out.
    explored: bool,
}

/// A machine with `placement`.
pub(super) struct Member<'a> {
    pub(super) machine: &'a Machine,
    /// Where it is, and its domain there.
    pub(super) here: Option<(usize, &'a DomainState)>,
    uses: Footprint,
    /// Whether it will use memory at all.
    runs: bool,
}

impl Member<'_> {
    fn is_active(&self) -> bool {
        self.here.is_some_and(|(_, d)| d.is_active())
    }
}

/// A case, with what its numbers stand for.
pub(super) struct Case<'a> {
    pub(super) resources: &'a Resources,
    pub(super) ground: Ground<'a>,
    pub(super) problem: Problem,
    /// What each item of the problem is.
    pub(super) units: Vec<Unit<'a>>,
    /// Machines that are left alone, and where they are taken to be.
    pub(super) settled: Vec<(&'a Machine, Option<&'a str>)>,
    /// Labels of the groups to be kept apart.
    pub(super) groups: Vec<(&'a str, &'a str)>,
    /// A member of a group that is pinned to a host, for the text.
    pub(super) neighbours: BTreeMap<(usize, usize), &'a str>,
    /// CPUs that each host may have in use.
    pub(super) cpu_limits: Vec<i64>,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        observed: &'a Observed,
        survey: &'a Survey,
        settings: &PlacementSettings,
    ) -> Self {
        let ground = Ground::new(resources, observed);
        let mut case = Self {
            resources,
            problem: Problem::default(),
            units: Vec::new(),
            settled: Vec::new(),
            groups: Vec::new(),
            neighbours: BTreeMap::new(),
            cpu_limits: Vec::new(),
            ground,
        };
        let mut load = Load::new(&case.ground, resources, observed, survey);
        let mut members = Vec::new();
        for machine in resources.virtual_machines.values() {
            if machine.spec.placement.is_none() || machine.spec.host.is_some() {
                continue;
            }
            match case.member(machine, observed, survey) {
                Ok(member) => members.push(member),
                Err(host) => case.settled.push((machine, host)),
            }
        }
        for member in &members {
            // What is placed is not fixed load.
            if let Some((host, _)) = member.here.filter(|_| member.is_active()) {
                load.leave(host, member.uses);
            }
        }
        case.units = units(members, resources, &case.ground);
        case.bins(&load, settings);
        case.items();
        case.neighbourhoods();
        for i in 0..case.units.len() {
            let item = &case.problem.items[i];
            if !(item.may_stay && item.resident) {
                case.explore(i);
            }
        }
        case
    }

    /// A machine that is placed, or where it is left.
    fn member(
        &self,
        machine: &'a Machine,
        observed: &'a Observed,
        survey: &'a Survey,
    ) -> Result<Member<'a>, Option<&'a str>> {
        let here = match survey.located(machine.name()) {
            Located::At { copy, .. } | Located::Foreign { copy } => {
                copy.domain(observed).and_then(|d| Some((self.ground.index(&copy.host)?, d)))
            }
            Located::Absent => None,
            // A move that is under way is followed to its end; whether the machine may stay there is asked then.
            Located::Moving { to: Some(copy), .. } | Located::Moving { from: Some(copy), to: None } => {
                return Err(Some(&copy.host));
            }
            _ => return Err(None),
        };
        let uses = footprint(Some(machine), here.map(|(_, d)| d));
        let runs = machine.spec.power_state != PowerState::Stopped || here.is_some_and(|(_, d)| d.is_active());
        Ok(Member { machine, here, uses, runs })
    }

    fn bins(&mut self, load: &Load, settings: &PlacementSettings) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(UNLIMITED).min(UNLIMITED);
        for (host, place) in self.ground.places.iter().enumerate() {
            let state = place.state;
            let total = state.map_or(0, |s| signed(s.memory));
            let usable = if total == 0 { UNLIMITED } else { total - signed(settings.memory_reserve.0) };
            let cpus = state.map_or(0, |s| i64::from(s.cpus)) * i64::from(settings.vcpus_per_cpu);
            let limit = if cpus == 0 { UNLIMITED } else { cpus };
            let free = state.map_or(0, |s| signed(s.free_memory));
            let now = usable - load.now[host];
            self.cpu_limits.push(limit);
            self.problem.bins.push(Bin {
                memory: usable - load.memory[host],
                cpus: limit - load.cpus[host],
                now: if free > 0 { now.min(free) } else { now },
                total: if total == 0 { UNLIMITED } else { total },
                open: state.is_some()
                    && !place.manifest.spec.fenced
                    && place.manifest.spec.maintenance == Maintenance::None,
            });
        }
    }

    fn items(&mut self) {
        for unit in &self.units {
            let running = || unit.members.iter().filter(|m| m.runs);
            let mut homes: BTreeMap<Option<usize>, u32> = BTreeMap::new();
            for member in &unit.members {
                *homes.entry(member.here.map(|(h, _)| h)).or_default() += 1;
            }
            let home = if homes.len() == 1 { homes.keys().next().copied().flatten() } else { None };
            let may_stay = home.is_some_and(|h| {
                let place = &self.ground.places[h];
                let labels = &place.manifest.metadata.labels;
                place.manifest.spec.maintenance != Maintenance::Evacuate
                    && unit.pinned.is_none_or(|p| p == h)
                    && unit
                        .members
                        .iter()
                        .filter_map(|m| m.machine.spec.placement.as_ref())
                        .all(|p| p.hosts.matches(labels))
            });
            self.problem.items.push(Item {
                memory: running().map(|m| i64::try_from(m.uses.memory).unwrap_or(UNLIMITED)).sum(),
                cpus: running().map(|m| i64::from(m.uses.cpus)).sum(),
                current: home,
                resident: home.is_some() && running().all(Member::is_active),
                may_stay: may_stay && !unit.torn,
                options: Vec::new(),
                priority: unit.members.iter().map(|m| priority(m.machine)).max().unwrap_or(0),
                homes: homes.into_iter().filter_map(|(h, n)| h.map(|h| (h, n))).filter(|_| home.is_none()).collect(),
                strange: Vec::new(),
                moves: u32::try_from(unit.members.len()).unwrap_or(u32::MAX),
                apart: Vec::new(),
                spreads: Vec::new(),
                // Until it is known better: it does not make way.
                stuck: true,
            });
        }
    }

    /// Groups that are kept apart, and spreads, with the members that are not placed.
    fn neighbourhoods(&mut self) {
        let mut groups: BTreeMap<(&'a str, &'a str), usize> = BTreeMap::new();
        let mut keys: Vec<&'a str> = Vec::new();
        let mut rules: Vec<&'a SpreadRule> = Vec::new();
        for member in self.units.iter().flat_map(|u| &u.members) {
            let Some(placement) = &member.machine.spec.placement else { continue };
            for key in &placement.anti_affinity {
                if let Some(value) = member.machine.metadata.labels.get(key) {
                    let next = groups.len();
                    groups.entry((key, value)).or_insert(next);
                    if !keys.contains(&key.as_str()) {
                        keys.push(key);
                    }
                }
            }
            for rule in &placement.spread {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        self.problem.groups = groups.len();
        self.groups = vec![("", ""); groups.len()];
        for (label, group) in &groups {
            self.groups[*group] = *label;
        }
        let of = |machine: &'a Machine| {
            let labels = &machine.metadata.labels;
            let asks = machine.spec.placement.as_ref().map(|p| &p.anti_affinity);
            keys.iter()
                .filter_map(|key| {
                    Some((
                        *groups.get(&(*key, labels.get(*key)?.as_str()))?,
                        asks.is_some_and(|a| a.iter().any(|k| k == key)),
                    ))
                })
                .collect::<Vec<_>>()
        };
        // The values of a spread's group are spreads of their own.
        let mut spreads: BTreeMap<(usize, Option<&'a str>), usize> = BTreeMap::new();
        let mut spreads_of = |machine: &'a Machine, problem: &mut Problem, ground: &Ground<'a>| {
            let mut of = Vec::new();
            for (r, rule) in rules.iter().enumerate() {
                let value = match &rule.among {
                    Some(key) => match machine.metadata.labels.get(key) {
                        Some(value) => Some(value.as_str()),
                        None => continue,
                    },
                    None if machine.spec.placement.as_ref().is_some_and(|p| p.spread.contains(rule)) => None,
                    None => continue,
                };
                let next = spreads.len();
                let spread = *spreads.entry((r, value)).or_insert(next);
                if spread == next {
                    problem.spreads.push(domains(ground, &rule.over));
                }
                of.push(spread);
            }
            of
        };
        let mut torn = Vec::new();
        for (i, unit) in self.units.iter().enumerate() {
            let item = &mut self.problem.items[i];
            for member in &unit.members {
                item.apart.extend(of(member.machine));
            }
            item.apart.sort_unstable();
            // Kept together and kept apart at once.
            if item.apart.windows(2).any(|w| w[0].0 == w[1].0 && (w[0].1 || w[1].1)) {
                item.may_stay = false;
                torn.push(i);
            }
            let mut all = Vec::new();
            for member in &unit.members {
                all.extend(spreads_of(member.machine, &mut self.problem, &self.ground));
            }
            self.problem.items[i].spreads = all;
        }
        torn.into_iter().for_each(|i| self.units[i].torn = true);
        if groups.is_empty() && rules.is_empty() {
            return;
        }
        let pinned = self.resources.virtual_machines.values().filter_map(|m| Some((m, m.spec.host.as_deref()?)));
        let left = self.settled.iter().filter_map(|(m, host)| Some((*m, (*host)?)));
        for (machine, host) in pinned.chain(left) {
            let Some(host) = self.ground.index(host) else { continue };
            for (group, asks) in of(machine) {
                self.problem.fixed.push((host, group, asks));
                self.neighbours.entry((host, group)).or_insert(machine.name());
            }
            for spread in spreads_of(machine, &mut self.problem, &self.ground) {
                let spread = &mut self.problem.spreads[spread];
                spread.fixed[spread.domain[host]] += 1;
            }
        }
    }

    /// Works out where an item could go.
    fn explore(&mut self, i: usize) {
        let wants = self.wants(i);
        let refused = self.refusals(i, &wants);
        let options: Vec<usize> = (0..refused.len()).filter(|h| refused[*h].is_none()).collect();
        let alike = |h: &usize| self.ground.places[*h].state.is_none_or(|s| wants.iter().all(|w| w.is_alike(s)));
        let strange = options.iter().copied().filter(|h| !alike(h)).collect();
        let stuck = wants.iter().any(|w| w.stuck);
        let item = &mut self.problem.items[i];
        item.strange = strange;
        item.options = options;
        if item.resident || !item.may_stay {
            let current = item.current;
            item.options.retain(|h| Some(*h) != current);
        } else if let Some(home) = item.current.filter(|h| !item.options.contains(h)) {
            item.options.push(home);
            item.options.sort_unstable();
        }
        item.stuck = stuck;
        self.units[i].explored = true;
    }

    fn wants(&self, i: usize) -> Vec<Wants<'a>> {
        let members = self.units[i].members.iter();
        members.map(|m| Wants::new(m.machine, m.here, &self.ground, self.resources)).collect()
    }

    /// For each host why it is not for an item, apart from room and neighbours.
    pub(super) fn misfits(&self, i: usize) -> Vec<Option<Misfit>> {
        self.refusals(i, &self.wants(i))
    }

    fn refusals(&self, i: usize, wants: &[Wants<'a>]) -> Vec<Option<Misfit>> {
        let unit = &self.units[i];
        let refused = (0..self.ground.places.len()).map(|host| {
            // Members that are there already stay, whatever the host takes.
            let arrive = unit.members.iter().zip(wants).filter(|(m, _)| m.here.is_none_or(|(h, _)| h != host));
            let misfit = arrive.filter_map(|(_, w)| w.misfit(host, &self.ground)).next();
            misfit.or_else(|| {
                let elsewhere = unit.torn || unit.pinned.is_some_and(|p| p != host);
                elsewhere.then_some(Misfit::Affinity)
            })
        });
        refused.collect()
    }

    /// Works out where those could go who might make way for an item without a place; whether there are any.
    pub(super) fn let_stayers_make_way(&mut self, found: &[Option<usize>]) -> bool {
        let mut wanted = vec![false; self.ground.places.len()];
        for (i, item) in self.problem.items.iter().enumerate().filter(|(i, _)| found[*i].is_none()) {
            debug_assert!(self.units[i].explored);
            item.options.iter().for_each(|h| wanted[*h] = true);
        }
        let mut candidates: Vec<usize> = (0..self.units.len())
            .filter(|i| !self.units[*i].explored && self.problem.items[*i].current.is_some_and(|h| wanted[h]))
            .collect();
        candidates.sort_by_key(|i| (self.problem.items[*i].priority, self.problem.items[*i].memory, *i));
        candidates.truncate(MOST_TO_MAKE_WAY);
        candidates.iter().for_each(|i| self.explore(*i));
        !candidates.is_empty()
    }

    /// Works out where everybody could go.
    pub(super) fn let_all_move(&mut self) {
        for i in 0..self.units.len() {
            if !self.units[i].explored {
                self.explore(i);
            }
        }
    }
}

/// A machine's priority: higher ones are placed and moved first.
pub fn priority(machine: &Machine) -> i32 {
    machine.spec.placement.as_ref().map_or(0, |p| p.priority)
}

/// The domains that a label of hosts makes.
fn domains(ground: &Ground<'_>, over: &str) -> Spread {
    let mut known: BTreeMap<Result<&str, usize>, usize> = BTreeMap::new();
    let domain: Vec<usize> = ground
        .places
        .iter()
        .enumerate()
        .map(|(h, place)| {
            let next = known.len();
            let label = place.manifest.metadata.labels.get(over).map(String::as_str).ok_or(h);
            *known.entry(label).or_insert(next)
        })
        .collect();
    Spread { fixed: vec![0; known.len()], domain }
}

/// Load that is not placed.
struct Load {
    /// Memory in the end, by host.
    memory: Vec<i64>,
    /// CPUs in the end.
    cpus: Vec<i64>,
    /// Memory in use as observed.
    now: Vec<i64>,
}

impl Load {
    /// Everything that runs, and pinned machines where they should be.
    fn new(ground: &Ground<'_>, resources: &Resources, observed: &Observed, survey: &Survey) -> Self {
        let hosts = ground.places.len();
        let mut load = Self { memory: vec![0; hosts], cpus: vec![0; hosts], now: vec![0; hosts] };
        let mut claimed: BTreeMap<Copy, &Machine> = BTreeMap::new();
        for machine in resources.virtual_machines.values() {
            let copies: Vec<&Copy> = match survey.located(machine.name()) {
                Located::At { copy, .. } | Located::Foreign { copy } => vec![copy],
                Located::Moving { from, to } => from.iter().chain(to).collect(),
                _ => Vec::new(),
            };
            claimed.extend(copies.into_iter().map(|c| (c.clone(), machine)));
        }
        for (host, reading) in &observed.hosts {
            let (Some(h), Reading::Present(state)) = (ground.index(host), reading) else { continue };
            for (index, domain) in state.domains.iter().enumerate().filter(|(_, d)| d.is_active()) {
                let machine = claimed.get(&Copy { host: host.clone(), index }).copied();
                let uses = footprint(machine, Some(domain));
                load.now[h] += i64::try_from(uses.memory).unwrap_or(UNLIMITED);
                let leaves = machine.is_some_and(|m| {
                    m.spec
                        .host
                        .as_deref()
                        .is_some_and(|target| target != host || m.spec.power_state == PowerState::Stopped)
                });
                if !leaves {
                    load.arrive(h, uses);
                }
            }
        }
        for machine in resources.virtual_machines.values() {
            let Some(h) = machine.spec.host.as_deref().and_then(|host| ground.index(host)) else { continue };
            let here = match survey.located(machine.name()) {
                Located::At { copy, .. } | Located::Foreign { copy } => copy.domain(observed).map(|d| (copy, d)),
                _ => None,
            };
            let counted = here.is_some_and(|(copy, d)| d.is_active() && copy.host == ground.name(h));
            if machine.spec.power_state != PowerState::Stopped && !counted {
                load.arrive(h, footprint(Some(machine), here.map(|(_, d)| d)));
            }
        }
        load
    }

    fn arrive(&mut self, host: usize, uses: Footprint) {
        self.memory[host] += i64::try_from(uses.memory).unwrap_or(UNLIMITED);
        self.cpus[host] += i64::from(uses.cpus);
    }

    fn leave(&mut self, host: usize, uses: Footprint) {
        self.memory[host] -= i64::try_from(uses.memory).unwrap_or(UNLIMITED);
        self.cpus[host] -= i64::from(uses.cpus);
    }
}

/// Machines that are placed as one. `affinity` joins a machine with all that have the same value of the label.
fn units<'a>(members: Vec<Member<'a>>, resources: &'a Resources, ground: &Ground<'_>) -> Vec<Unit<'a>> {
    let joins = members.iter().any(|m| m.machine.spec.placement.as_ref().is_some_and(|p| !p.affinity.is_empty()));
    if !joins {
        let unit = |m| Unit { members: vec![m], pinned: None, torn: false, explored: false };
        return members.into_iter().map(unit).collect();
    }
    let mut asked: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for member in &members {
        for key in member.machine.spec.placement.iter().flat_map(|p| &p.affinity) {
            if let Some(value) = member.machine.metadata.labels.get(key) {
                asked.entry((key, value)).or_default();
            }
        }
    }
    let has =
        |machine: &Machine, (key, value): (&str, &str)| machine.metadata.labels.get(key).is_some_and(|v| v == value);
    // The leader of each member's unit: the first of them.
    let mut leader: Vec<usize> = (0..members.len()).collect();
    fn root(leader: &[usize], mut i: usize) -> usize {
        while leader[i] != i {
            i = leader[i];
        }
        i
    }
    for (label, with) in &mut asked {
        with.extend(members.iter().enumerate().filter(|(_, m)| has(m.machine, *label)).map(|(i, _)| i));
        for pair in with.windows(2) {
            let (a, b) = (root(&leader, pair[0]), root(&leader, pair[1]));
            leader[a.max(b)] = a.min(b);
        }
    }
    let mut pins: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (label, with) in &asked {
        let Some(first) = with.first() else { continue };
        let pinned = resources.virtual_machines.values().filter(|m| has(m, *label));
        let hosts = pinned.filter_map(|m| ground.index(m.spec.host.as_deref()?));
        pins.entry(root(&leader, *first)).or_default().extend(hosts);
    }
    let leaders: Vec<usize> = (0..members.len()).map(|i| root(&leader, i)).collect();
    let mut units: BTreeMap<usize, Unit<'a>> = BTreeMap::new();
    for (member, leader) in members.into_iter().zip(leaders) {
        let unit = units.entry(leader).or_insert_with(|| {
            let hosts = pins.get(&leader).map_or(&[][..], Vec::as_slice);
            let torn = hosts.iter().any(|h| Some(h) != hosts.first());
            Unit { members: Vec::new(), pinned: hosts.first().copied(), torn, explored: false }
        });
        unit.members.push(member);
    }
    units.into_values().collect()
}
