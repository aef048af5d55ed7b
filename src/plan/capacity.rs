//! Capacity after every step: who arrives at a host waits for the room that others leave there.
//!
//! Memory is the measure, because a host that runs out of it kills guests. A machine that migrates live counts on both
//! hosts until it has arrived; one that is started counts from then on; one that was shut down does not any more.
//!
//! *Method*. The steps are gone through in an order in which each can be done. Each arrival is given its bytes out of what
//! is free at the start, or out of what a departure before it freed; in the latter case it depends on that departure. No
//! byte is given twice, so capacity holds in every order that the dependencies allow, whatever runs at once, and when
//! steps fail or are held back. A dependency always goes to a step that was gone through before, so there are no circles.
//! The same way nobody arrives at a host before those have left from whom it must be kept apart.
//!
//! *What there is room for*. Machines with `placement`: what the host's memory, less the reserve and less what all guests
//! there may use, leaves; and no more than is free as observed. Machines that are pinned are a wish of Git: a live
//! migration needs what is free as observed, as always, and a start is not held back.

use super::{Block, Check, Context, Precheck, StepDraft, Verdict};
use crate::action::{Action, MachineAction, MigrationWay};
use crate::finding::Code;
use crate::kind::Spec as _;
use crate::kind::virtual_machine::{Copy, Located, VirtualMachineSpec, footprint};
use crate::model::{Bytes, Manifest};
use crate::observed::DomainState;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

type Machine = Manifest<VirtualMachineSpec>;

/// Taken for room that is not known.
const UNLIMITED: i64 = i64::MAX / 4;

/// What a step does to hosts.
#[derive(Clone, Debug, Default)]
struct Effect<'a> {
    /// Takes memory here, from its beginning.
    takes: Option<(&'a str, i64)>,
    /// Frees memory here, at its end.
    frees: Option<(&'a str, i64)>,
    /// The host that the machine comes to and the one that it leaves, running or not.
    moves: Option<(&'a str, &'a str)>,
    machine: Option<&'a Machine>,
    is_start: bool,
}

/// A host's room.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// By what guests may use.
    committed: i64,
    /// As observed.
    free: i64,
}

/// Adds the dependencies without which a host would be too full in between, and holds back what finds no room.
/// `edges`: for each step those it comes after.
pub(super) fn hold(steps: &mut [StepDraft], edges: &mut [BTreeSet<usize>], ctx: &Context<'_>) {
    if !steps.iter().any(|s| is_arrival(&s.action)) {
        return;
    }
    let Some((after, blocks)) = find(steps, edges, ctx) else { return };
    for (step, before) in after {
        edges[step].insert(before);
    }
    for (step, block) in blocks {
        steps[step].blocked_by.push(block);
    }
}

/// Steps and what they come after for the sake of room, and the blocks of those that find none.
type Found = (Vec<(usize, usize)>, Vec<(usize, Block)>);

fn find(steps: &[StepDraft], edges: &[BTreeSet<usize>], ctx: &Context<'_>) -> Option<Found> {
    let effects = effects(steps, ctx);
    let rooms = rooms(&effects, ctx);
    let apart = kept_apart(&effects);
    let known = rooms.values().any(|r| r.committed < UNLIMITED || r.free < UNLIMITED);
    if !known && apart.iter().all(Vec::is_empty) {
        return None;
    }
    let walk = Walk { steps, edges, effects: &effects, rooms: &rooms, apart: &apart };
    let mut way = walk.go(&BTreeSet::new());
    if !way.stuck.is_empty() {
        // Once more, with those first whose leaving makes room for others.
        let full: BTreeSet<&str> = way.stuck.iter().filter_map(|i| effects[*i].takes.map(|(h, _)| h)).collect();
        let again = walk.go(&full);
        if again.stuck.len() < way.stuck.len() {
            way = again;
        }
    }
    let blocks = way.stuck.iter().map(|i| (*i, walk.block(*i, &way))).collect();
    Some((way.after, blocks))
}

fn is_arrival(action: &Action) -> bool {
    matches!(action, Action::Machine(MachineAction::MigrateVirtualMachine(_) | MachineAction::StartDomain { .. }))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(UNLIMITED).min(UNLIMITED)
}

/// What each step does to hosts.
fn effects<'a>(steps: &'a [StepDraft], ctx: &Context<'a>) -> Vec<Effect<'a>> {
    let mut started: BTreeSet<(&str, Uuid)> = BTreeSet::new();
    let mut shut: BTreeSet<(&str, Uuid)> = BTreeSet::new();
    for step in steps {
        match &step.action {
            Action::Machine(MachineAction::StartDomain { host, uuid, .. }) => drop(started.insert((host, *uuid))),
            Action::Machine(MachineAction::ShutdownDomain { host, uuid, .. }) => drop(shut.insert((host, *uuid))),
            Action::Machine(_) | Action::Cluster(_) => {}
        }
    }
    let domain = |host: &str, uuid: Uuid| ctx.observed.host(host)?.domains.iter().find(|d| d.uuid == uuid);
    let of = |step: &'a StepDraft| {
        let is_machine = step.resource.kind == VirtualMachineSpec::KIND;
        let machine = ctx.resources.virtual_machines.get(&step.resource.name).filter(|_| is_machine);
        let needs = |domain: Option<&DomainState>| signed(footprint(machine, domain).memory);
        let mut effect = Effect { machine, ..Effect::default() };
        match &step.action {
            Action::Machine(MachineAction::MigrateVirtualMachine(m)) => {
                effect.moves = Some((&m.to, &m.from));
                let here = domain(&m.from, m.uuid);
                // One that is under way has its memory at both ends already.
                let under_way = domain(&m.to, m.uuid).is_some_and(DomainState::is_active);
                if m.way == MigrationWay::Live {
                    effect.takes = (!under_way).then(|| (m.to.as_str(), needs(here)));
                    effect.frees = Some((&m.from, needs(here)));
                }
            }
            Action::Machine(MachineAction::StartDomain { host, uuid, .. }) if !shut.contains(&(host, *uuid)) => {
                effect.takes = Some((host, needs(domain(host, *uuid))));
                effect.is_start = true;
            }
            // A restart gives nothing to anybody: it takes the same memory again.
            Action::Machine(MachineAction::ShutdownDomain { host, uuid, .. }) if !started.contains(&(host, *uuid)) => {
                effect.frees = domain(host, *uuid).filter(|d| d.is_active()).map(|d| (host.as_str(), needs(Some(d))));
            }
            Action::Machine(_) | Action::Cluster(_) => {}
        }
        effect
    };
    steps.iter().map(of).collect()
}

/// The room on each host that somebody arrives at.
fn rooms<'a>(effects: &[Effect<'a>], ctx: &Context<'_>) -> BTreeMap<&'a str, Room> {
    let mut rooms = BTreeMap::new();
    for (host, _) in effects.iter().filter_map(|e| e.takes) {
        if rooms.contains_key(host) {
            continue;
        }
        let Some(state) = ctx.observed.host(host) else { continue };
        let committed = if state.memory == 0 {
            UNLIMITED
        } else {
            let active = state.domains.iter().enumerate().filter(|(_, d)| d.is_active());
            let used: i64 =
                active.map(|(index, d)| signed(footprint(machine_of(host, index, d, ctx), Some(d)).memory)).sum();
            signed(state.memory) - signed(ctx.settings.placement.memory_reserve.0) - used
        };
        let free = if state.free_memory == 0 { UNLIMITED } else { signed(state.free_memory) };
        rooms.insert(host, Room { committed, free });
    }
    rooms
}

/// The manifest of a domain, by its mark.
fn machine_of<'a>(host: &str, index: usize, domain: &DomainState, ctx: &Context<'a>) -> Option<&'a Machine> {
    let name = &domain.owner.as_ref()?.name;
    let machine = ctx.resources.virtual_machines.get(name)?;
    let is = |copy: &Copy| copy.host == host && copy.index == index;
    match ctx.survey.located(name) {
        Located::At { copy, .. } if is(copy) => Some(machine),
        Located::Moving { from, to } if from.iter().chain(to).any(is) => Some(machine),
        _ => None,
    }
}

/// For each step that brings a machine to a host: those that first take away whom it must be kept apart from.
fn kept_apart(effects: &[Effect<'_>]) -> Vec<Vec<usize>> {
    let mut apart = vec![Vec::new(); effects.len()];
    let asks = |m: &Machine| m.spec.placement.as_ref().is_some_and(|p| !p.anti_affinity.is_empty());
    if !effects.iter().any(|e| e.machine.is_some_and(asks)) {
        return apart;
    }
    let mut leaving: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, (_, from)) in effects.iter().enumerate().filter_map(|(i, e)| Some((i, e.moves?))) {
        leaving.entry(from).or_default().push(i);
    }
    for (i, effect) in effects.iter().enumerate() {
        let (Some((to, _)), Some(machine)) = (effect.moves, effect.machine) else { continue };
        for other in leaving.get(to).into_iter().flatten().filter(|o| **o != i) {
            if effects[*other].machine.is_some_and(|m| must_part(machine, m) || must_part(m, machine)) {
                apart[i].push(*other);
            }
        }
    }
    apart
}

/// Whether one machine asks to be kept apart from the other.
fn must_part(one: &Machine, other: &Machine) -> bool {
    one.spec.placement.as_ref().is_some_and(|p| {
        p.anti_affinity.iter().any(|key| {
            let value = one.metadata.labels.get(key);
            value.is_some() && other.metadata.labels.get(key) == value
        })
    })
}

/// The steps and what they do.
struct Walk<'s> {
    steps: &'s [StepDraft],
    edges: &'s [BTreeSet<usize>],
    effects: &'s [Effect<'s>],
    rooms: &'s BTreeMap<&'s str, Room>,
    apart: &'s [Vec<usize>],
}

/// What going through the steps gave.
#[derive(Default)]
struct Way {
    /// Steps and what they come after for the sake of room.
    after: Vec<(usize, usize)>,
    /// Arrivals for which there is no room.
    stuck: Vec<usize>,
    done: Vec<bool>,
    /// Room on each host in the end.
    ledgers: BTreeMap<String, Ledger>,
}

/// The bytes of a host while the steps are gone through.
#[derive(Clone, Debug)]
struct Ledger {
    /// What is left of what was free at the start; negative where the host was too full already.
    initial: i64,
    /// Departures, and what is left of what they freed.
    freed: Vec<(usize, i64)>,
    /// Departures that only made good for a host that was too full: everybody who arrives comes after them.
    settled: Vec<usize>,
    /// What arrivals took so far.
    taken: i64,
}

impl Ledger {
    fn new(room: Room) -> Self {
        Self { initial: room.committed.min(room.free), freed: Vec::new(), settled: Vec::new(), taken: 0 }
    }

    fn has(&self, bytes: i64) -> bool {
        self.initial.saturating_add(self.freed.iter().map(|(_, b)| b).sum()) >= bytes && self.initial >= 0
    }

    /// Takes bytes that are there; the departures that freed them.
    fn take(&mut self, bytes: i64) -> Vec<usize> {
        let mut from = self.settled.clone();
        self.taken += bytes;
        let first = bytes.min(self.initial);
        self.initial -= first;
        let mut left = bytes - first;
        for (step, freed) in &mut self.freed {
            if left == 0 {
                break;
            }
            let part = left.min(*freed);
            if part > 0 {
                *freed -= part;
                left -= part;
                from.push(*step);
            }
        }
        self.freed.retain(|(_, freed)| *freed > 0);
        from
    }

    fn free(&mut self, step: usize, bytes: i64) {
        let owed = bytes.min(self.initial.min(0).saturating_neg());
        if owed > 0 {
            self.initial += owed;
            self.settled.push(step);
        }
        if bytes > owed {
            self.freed.push((step, bytes - owed));
        }
    }
}

impl Walk<'_> {
    /// Goes through the steps. Those that leave one of the hosts in `full` come before others that arrive somewhere.
    fn go(&self, full: &BTreeSet<&str>) -> Way {
        let n = self.steps.len();
        let mut way = Way { done: vec![false; n], ..Way::default() };
        way.ledgers = self.rooms.iter().map(|(host, room)| ((*host).to_owned(), Ledger::new(*room))).collect();
        let mut waiting_for: Vec<usize> = self.edges.iter().map(BTreeSet::len).collect();
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); n];
        for (i, before) in self.edges.iter().enumerate() {
            before.iter().for_each(|d| followers[*d].push(i));
        }
        let key = |i: usize| {
            let makes_room = self.effects[i].frees.is_some_and(|(host, _)| full.contains(host));
            (!makes_room, Reverse(self.steps[i].rank), i)
        };
        let may = |i: &usize| self.steps[*i].blocked_by.is_empty();
        let mut ready: BTreeSet<_> = (0..n).filter(|i| waiting_for[*i] == 0).filter(may).map(key).collect();
        let mut waiting: BTreeSet<(bool, Reverse<i32>, usize)> = BTreeSet::new();
        loop {
            while let Some((a, b, i)) = ready.pop_first() {
                if !self.enter(i, &mut way) {
                    waiting.insert((a, b, i));
                    continue;
                }
                way.done[i] = true;
                if let Some((host, bytes)) = self.effects[i].frees
                    && let Some(ledger) = way.ledgers.get_mut(host)
                {
                    ledger.free(i, bytes);
                }
                if self.effects[i].frees.is_some() || self.effects[i].moves.is_some() {
                    ready.append(&mut waiting);
                }
                for f in &followers[i] {
                    waiting_for[*f] -= 1;
                    if waiting_for[*f] == 0 && may(f) {
                        ready.insert(key(*f));
                    }
                }
            }
            // Nobody leaves any more. Pinned machines are let in as far as that is no worse than what was asked for.
            let Some(next) = waiting.iter().copied().find(|(_, _, i)| self.let_in(*i, &way)) else { break };
            waiting.remove(&next);
            if let Some((host, bytes)) = self.effects[next.2].takes
                && let Some(ledger) = way.ledgers.get_mut(host)
            {
                ledger.initial -= bytes;
                ledger.taken += bytes;
            }
            way.done[next.2] = true;
            if let Some((host, bytes)) = self.effects[next.2].frees
                && let Some(ledger) = way.ledgers.get_mut(host)
            {
                ledger.free(next.2, bytes);
            }
            ready.append(&mut waiting);
            for f in &followers[next.2] {
                waiting_for[*f] -= 1;
                if waiting_for[*f] == 0 && may(f) {
                    ready.insert(key(*f));
                }
            }
        }
        way.stuck = waiting.into_iter().map(|(_, _, i)| i).collect();
        way.stuck.sort_unstable();
        way
    }

    /// Takes what a step needs, if that is there.
    fn enter(&self, i: usize, way: &mut Way) -> bool {
        if !self.apart[i].iter().all(|d| way.done[*d]) {
            return false;
        }
        if let Some((host, bytes)) = self.effects[i].takes
            && let Some(ledger) = way.ledgers.get_mut(host)
            && bytes > 0
        {
            if !ledger.has(bytes) {
                return false;
            }
            let from = ledger.take(bytes);
            way.after.extend(from.into_iter().filter(|d| *d != i).map(|d| (i, d)));
        }
        way.after.extend(self.apart[i].iter().map(|d| (i, *d)));
        true
    }

    /// Whether an arrival for which the ledger has no room is let in all the same.
    fn let_in(&self, i: usize, way: &Way) -> bool {
        let effect = &self.effects[i];
        let Some((host, bytes)) = effect.takes else { return false };
        let (Some(room), Some(ledger)) = (self.rooms.get(host), way.ledgers.get(host)) else { return true };
        if !self.apart[i].iter().all(|d| way.done[*d]) {
            return false;
        }
        let is_placed = effect.machine.is_some_and(|m| m.spec.placement.is_some());
        match (effect.is_start, is_placed) {
            (true, false) => true,
            (true, true) => room.committed >= UNLIMITED || room.committed - ledger.taken >= bytes,
            (false, false) => {
                // A policy may say that the memory is not to be waited for.
                let waived =
                    |c: &Check| c.name == Precheck::Memory && matches!(c.verdict, Verdict::Warn | Verdict::Ignored);
                room.free >= UNLIMITED || room.free - ledger.taken >= bytes || self.steps[i].checks.iter().any(waived)
            }
            (false, true) => false,
        }
    }

    /// Why an arrival is held back.
    fn block(&self, i: usize, way: &Way) -> Block {
        let effect = &self.effects[i];
        let names = |steps: &mut dyn Iterator<Item = usize>| {
            let names: BTreeSet<&str> = steps.map(|d| self.steps[d].resource.name.as_str()).collect();
            let named: Vec<&str> = names.iter().copied().take(3).collect();
            match names.len() {
                0 => None,
                n if n > 3 => Some(format!("{} and {} others", named.join(", "), n - 3)),
                _ => Some(named.join(" and ")),
            }
        };
        let way_out = "make room there, or choose another host; with `placement` Drover chooses one";
        if let Some(others) = names(&mut self.apart[i].iter().copied().filter(|d| !way.done[*d])) {
            let host = effect.moves.map_or("", |(to, _)| to);
            return Block {
                code: Code::CannotMove,
                reason: format!("it must not share `{host}` with {others}, which cannot leave it before"),
                way_out: "see what holds that machine back, or move it by hand first".into(),
            };
        }
        let (host, bytes) = effect.takes.unwrap_or_default();
        let free = way.ledgers.get(host).map_or(0, |l| l.initial.saturating_add(l.freed.iter().map(|(_, b)| b).sum()));
        let mut reason = format!("`{host}` has {} of memory free, and it needs {}", mebibytes(free), mebibytes(bytes));
        let leaves = |d: &usize| !way.done[*d] && self.effects[*d].frees.is_some_and(|(h, _)| h == host);
        if let Some(others) = names(&mut (0..self.steps.len()).filter(leaves)) {
            reason =
                format!("{reason}; more comes free when {others} left, for which there is no room elsewhere before");
        }
        Block { code: Code::NoMemory, reason, way_out: way_out.into() }
    }
}

/// An amount as people write it, in whole mebibytes.
fn mebibytes(bytes: i64) -> String {
    Bytes(u64::try_from(bytes).unwrap_or(0) >> 20 << 20).to_string()
}
