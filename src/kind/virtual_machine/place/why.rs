//! What was chosen, in words: why this host, and where none fits, why each was refused.

use super::super::survey::Target;
use super::Places;
use super::case::Case;
use super::solve::{Places as Found, UNLIMITED};
use super::wants::{Misfit, size};
use crate::kind::host::Maintenance;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Most hosts that are named one by one; more are counted.
const NAMED: usize = 4;

/// Writes targets and reasons. `balanced`: items that only move for balance.
pub(super) fn tell(case: &Case<'_>, found: &Found, balanced: &[usize], out: &mut Places) {
    let left = Left::new(case, found);
    for (i, unit) in case.units.iter().enumerate() {
        let target = found[i];
        let refused = target.is_none().then(|| nowhere(case, &left, i));
        for member in &unit.members {
            let name = member.machine.name();
            let here = member.here.map(|(h, _)| h);
            let place = match (target, &refused) {
                (Some(host), _) => {
                    if here != Some(host) {
                        out.reasons.insert(name.to_owned(), chosen(case, &left, i, here, host, balanced.contains(&i)));
                    }
                    Target::Host(case.ground.name(host).to_owned())
                }
                (None, why) => Target::Nowhere { why: why.clone().unwrap_or_default() },
            };
            out.targets.insert(name.to_owned(), place);
        }
    }
    for (machine, host) in &case.settled {
        let target = match host {
            Some(host) => Target::Host((*host).to_owned()),
            None => Target::Nowhere { why: "it is not known where it is".into() },
        };
        out.targets.insert(machine.name().to_owned(), target);
    }
}

/// What is left of each host when everybody is where they should be.
struct Left<'a> {
    memory: Vec<i64>,
    cpus: Vec<i64>,
    /// A member of each group on each host.
    members: BTreeMap<(usize, usize), &'a str>,
}

impl<'a> Left<'a> {
    fn new(case: &Case<'a>, found: &Found) -> Self {
        let mut left = Self {
            memory: case.problem.bins.iter().map(|b| b.memory).collect(),
            cpus: case.problem.bins.iter().map(|b| b.cpus).collect(),
            members: case.neighbours.clone(),
        };
        for (i, item) in case.problem.items.iter().enumerate() {
            let Some(host) = found[i].or(item.current) else { continue };
            left.memory[host] -= item.memory;
            left.cpus[host] -= item.cpus;
            for (group, _) in &item.apart {
                let name = case.units[i].members.first().map_or("", |m| m.machine.name());
                left.members.entry((host, *group)).or_insert(name);
            }
        }
        left
    }
}

/// Why a machine goes where it goes.
fn chosen(case: &Case<'_>, left: &Left<'_>, i: usize, here: Option<usize>, host: usize, balances: bool) -> String {
    let name = case.ground.name(host);
    let item = &case.problem.items[i];
    let mut why = match here {
        None => String::new(),
        Some(h) => format!("{}; ", leaves(case, i, h, balances)),
    };
    let bin = &case.problem.bins[host];
    let _ = match item.options.len() {
        0 | 1 => write!(why, "`{name}` is the only host that fits"),
        n => write!(why, "`{name}` was chosen of {n} hosts that fit"),
    };
    if bin.total < UNLIMITED {
        let _ = write!(why, " and has {} of {} left with all that come", size(left.memory[host]), size(bin.total));
    }
    for spread in item.spreads.iter().map(|s| &case.problem.spreads[*s]) {
        let several = spread.domain.iter().any(|d| *d != spread.domain[host]);
        if several
            && let Some(rule) =
                case.units[i].members.iter().find_map(|m| m.machine.spec.placement.as_ref()?.spread.first())
        {
            if let Some(value) = case.ground.places[host].manifest.metadata.labels.get(&rule.over) {
                let _ = write!(why, " ({}={value})", rule.over);
            }
            break;
        }
    }
    if case.units[i].members.len() > 1 {
        let _ = write!(why, "; `affinity` keeps {} machines together", case.units[i].members.len());
    }
    why
}

/// Why it does not stay where it is.
fn leaves(case: &Case<'_>, i: usize, here: usize, balances: bool) -> String {
    let place = &case.ground.places[here];
    let (item, unit) = (&case.problem.items[i], &case.units[i]);
    let labels = &place.manifest.metadata.labels;
    if place.manifest.spec.maintenance == Maintenance::Evacuate {
        return format!("`{}` is being emptied", place.name);
    }
    if unit.members.iter().filter_map(|m| m.machine.spec.placement.as_ref()).any(|p| !p.hosts.matches(labels)) {
        return format!("`{}` does not have the labels that `placement` asks for", place.name);
    }
    if balances {
        return format!("rebalancing takes load off `{}`", place.name);
    }
    if unit.displaced {
        return format!("`{}` has no room for it beside the machines that are pinned there", place.name);
    }
    if !item.may_stay {
        return "`affinity` brings it together with others".into();
    }
    let others = item.apart.iter().filter_map(|(g, _)| case.neighbours.get(&(here, *g)));
    let peers = case.problem.items.iter().zip(&case.units).filter(|(other, u)| {
        other.current == Some(here)
            && !std::ptr::eq(*u, unit)
            && other.apart.iter().any(|(g, asks)| item.apart.iter().any(|(own, asked)| own == g && (*asks || *asked)))
    });
    let peers = peers.filter_map(|(_, u)| u.members.first().map(|m| m.machine.name()));
    if let Some(other) = others.copied().chain(peers).next() {
        return format!("it must not share `{}` with {other} (`antiAffinity`)", place.name);
    }
    if !item.resident {
        return format!("`{}` has no room for it to start", place.name);
    }
    format!("it makes way on `{}` for a machine that fits nowhere else", place.name)
}

/// Why no host takes an item: each host with its reason where they are few, else counted with figures.
fn nowhere(case: &Case<'_>, left: &Left<'_>, i: usize) -> String {
    let item = &case.problem.items[i];
    let refused = case.misfits(i);
    let reasons: Vec<(usize, Misfit)> = refused
        .into_iter()
        .enumerate()
        .filter(|(h, _)| item.current != Some(*h) || !item.resident)
        .map(|(h, why)| (h, why.unwrap_or_else(|| no_room(case, left, i, h))))
        .collect();
    let need = format!("{} of memory and {} vCPUs", size(item.memory), item.cpus);
    if reasons.is_empty() {
        return "there is no other host".into();
    }
    if reasons.len() <= NAMED {
        let each: Vec<String> = reasons.iter().map(|(h, why)| format!("`{}` {why}", case.ground.name(*h))).collect();
        return format!("no host takes it (it needs {need}): {}", each.join("; "));
    }
    let mut kinds: BTreeMap<u8, Vec<(usize, &Misfit)>> = BTreeMap::new();
    for (h, why) in &reasons {
        kinds.entry(kind(why)).or_default().push((*h, why));
    }
    let mut parts: Vec<(usize, String)> = kinds.into_values().map(|of| (of.len(), counted(case, &of))).collect();
    parts.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let parts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    format!("none of {} hosts takes it (it needs {need}): {}", reasons.len(), parts.join("; "))
}

/// What an otherwise fitting host lacks.
fn no_room(case: &Case<'_>, left: &Left<'_>, i: usize, host: usize) -> Misfit {
    let item = &case.problem.items[i];
    let apart = item.apart.iter().find_map(|(g, _)| left.members.get(&(host, *g)).map(|other| (*g, *other)));
    if left.memory[host] < item.memory {
        Misfit::Memory { free: left.memory[host], total: case.problem.bins[host].total }
    } else if let Some((group, other)) = apart {
        let (key, value) = case.groups[group];
        Misfit::Apart(format!("{other} ({key}={value})"))
    } else if left.cpus[host] < item.cpus {
        Misfit::Cpus { free: left.cpus[host], limit: case.cpu_limits[host] }
    } else {
        Misfit::NoWay
    }
}

/// Reasons of one sort are counted together.
fn kind(why: &Misfit) -> u8 {
    match why {
        Misfit::Labels => 0,
        Misfit::Unread => 1,
        Misfit::Fenced => 2,
        Misfit::Maintenance(_) => 3,
        Misfit::Hypervisor(_) => 4,
        Misfit::Cpu(_) => 14,
        Misfit::NoWay => 15,
        Misfit::MachineType(_) => 5,
        Misfit::Network(_) => 6,
        Misfit::Pool(_) => 7,
        Misfit::LocalDisk(_) => 8,
        Misfit::OtherStorage(_) => 16,
        Misfit::NameTaken(_) => 9,
        Misfit::Apart(_) => 10,
        Misfit::Affinity => 11,
        Misfit::Memory { .. } => 12,
        Misfit::Cpus { .. } => 13,
    }
}

/// Several hosts with one sort of reason.
fn counted(case: &Case<'_>, of: &[(usize, &Misfit)]) -> String {
    let n = of.len();
    let (is, has, does, lack) = if n == 1 { ("is", "has", "does", "lacks") } else { ("are", "have", "do", "lack") };
    match of.first().map(|(_, why)| *why) {
        None => String::new(),
        Some(Misfit::Labels) => format!("{n} {does} not have the labels that `placement` asks for"),
        Some(Misfit::Unread) => format!("{n} could not be read"),
        Some(Misfit::Fenced) => format!("{n} {is} fenced"),
        Some(Misfit::Maintenance(_)) => format!("{n} {is} in maintenance"),
        Some(Misfit::Hypervisor(_)) => format!("{n} {has} another hypervisor or architecture"),
        Some(Misfit::Cpu(_)) => format!("{n} {does} not offer the machine's CPU"),
        Some(Misfit::MachineType(machine)) => format!("{n} {does} not know the machine type {machine}"),
        Some(Misfit::Network(network)) => format!("{n} {lack} the active network `{network}`"),
        Some(Misfit::Pool(pool)) => format!("{n} {does} not have the pool `{pool}`"),
        Some(Misfit::LocalDisk(disk)) => format!("{n} {does} not share the storage of disk {disk}"),
        Some(Misfit::OtherStorage(pool)) => format!("{n} {has} another storage in the pool `{pool}`"),
        Some(Misfit::NameTaken(name)) => format!("{n} {has} another domain of the name `{name}`"),
        Some(Misfit::Apart(_)) => format!("{n} {has} a machine that it must be kept apart from"),
        Some(Misfit::NoWay) => format!("{n} {has} no room until others have left, who wait themselves"),
        Some(Misfit::Affinity) => format!("{n} {does} not have all that `affinity` keeps it together with"),
        Some(Misfit::Memory { .. }) => {
            let most = of.iter().filter_map(|(h, why)| match why {
                Misfit::Memory { free, .. } => Some((*free, std::cmp::Reverse(*h))),
                _ => None,
            });
            let (free, host) = most.max().map_or((0, 0), |(free, h)| (free, h.0));
            format!("{n} {has} too little memory, at most {} on `{}`", size(free), case.ground.name(host))
        }
        Some(Misfit::Cpus { .. }) => format!("{n} {has} too few vCPUs left within `vcpusPerCpu`"),
    }
}
