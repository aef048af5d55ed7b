//! The choice itself, in plain numbers: which machine goes to which host. It knows no manifests and no libvirt, so that it
//! can be held against an exact answer (`tests.rs`).
//!
//! *Rules*. What may stay stays. An item that has to go, or is new, goes to one of its `options` whose memory and CPUs
//! suffice once everybody is where they should be, and where nobody is it must be kept apart from. Only where there is no
//! other way does an item that could stay move too, and then as few as can be found.
//!
//! *Method*. First each item in turn takes the host that ranks best (balance), in the order of priority and size; then
//! the same with the tightest host first (best-fit decreasing). Where both leave somebody out, a depth-first search with
//! iterative deepening over the number of items that have to make way is tried: ejection chains, most constrained item
//! first. It is exact while its budget of [`BUDGET`] looks lasts, which it does for small cases (see the tests); after
//! that the best that was found counts. No random numbers, no clock: equal input gives equal places.

use std::cmp::Reverse;

/// Looks at an item's options that the search may take in one go.
pub const BUDGET: u32 = 20_000;

/// Most items that may be asked to make way in one search.
const MOST_EJECTIONS: u32 = 6;

/// A quantity that is not known, and so no limit.
pub const UNLIMITED: i64 = i64::MAX / 4;

/// A host.
#[derive(Clone, Debug, Default)]
pub struct Bin {
    /// Memory for items, in bytes: what fixed load leaves. Negative where that is too much already.
    pub memory: i64,
    /// CPUs for items, as for memory.
    pub cpus: i64,
    /// Memory that is free at once, before anybody has left.
    pub now: i64,
    /// All of its memory, for balance.
    pub total: i64,
    /// Whether it takes machines, so that load may be balanced with it.
    pub open: bool,
}

/// A machine, or several that have to be together.
#[derive(Clone, Debug, Default)]
pub struct Item {
    /// Memory in bytes.
    pub memory: i64,
    /// CPUs.
    pub cpus: i64,
    /// Where it is: its moves away from there are what is saved.
    pub current: Option<usize>,
    /// Whether it uses memory there already: staying needs no room then.
    pub resident: bool,
    /// Whether it may stay there.
    pub may_stay: bool,
    /// Hosts that it may go to, ascending. `current` is among them only where it may stay and is not resident.
    pub options: Vec<usize>,
    /// Higher ones are placed first.
    pub priority: i32,
    /// Hosts among `options` that are tried last, because their CPU is another than the one it has now.
    pub strange: Vec<usize>,
    /// What moving it costs: the number of machines that move.
    pub moves: u32,
    /// Groups whose members are kept apart, and whether this one asks for it: two that do not ask may share a host.
    pub apart: Vec<(usize, bool)>,
    /// Spreads that it counts in.
    pub spreads: Vec<usize>,
    /// For one whose machines are on several hosts: how many are on which. They are brought together.
    pub homes: Vec<(usize, u32)>,
    /// Whether it probably cannot move at all: such come last, and never make way.
    pub stuck: bool,
}

/// Members of a group that should be spread over domains of hosts.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// The domain of each host; hosts without the label are one domain of their own each.
    pub domain: Vec<usize>,
    /// Members in each domain that are not items.
    pub fixed: Vec<u32>,
}

/// A case to be solved.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// The hosts.
    pub bins: Vec<Bin>,
    /// The machines.
    pub items: Vec<Item>,
    /// Number of groups to be kept apart.
    pub groups: usize,
    /// Members of a group that are not items, by host: `(host, group, asks)`.
    pub fixed: Vec<(usize, usize, bool)>,
    /// Spreads.
    pub spreads: Vec<Spread>,
}

/// Where each item should be; `None` for one that has no place (and stays where it is, if anywhere).
pub type Places = Vec<Option<usize>>;

/// Solves a case.
pub fn solve(problem: &Problem) -> Places {
    let mut search = Search::new(problem);
    let mut homeless: Vec<usize> = (0..problem.items.len()).filter(|i| search.place[*i].is_none()).collect();
    homeless.sort_by(|a, b| {
        let (x, y) = (&problem.items[*a], &problem.items[*b]);
        (x.stuck, Reverse(x.priority), Reverse(x.memory), Reverse(x.cpus), a).cmp(&(
            y.stuck,
            Reverse(y.priority),
            Reverse(y.memory),
            Reverse(y.cpus),
            b,
        ))
    });
    if homeless.is_empty() {
        return search.place;
    }
    let could_stay = homeless.iter().any(|i| problem.items[*i].may_stay);
    let mut greedy = None;
    for rank in [Rank::Balanced, Rank::Tight] {
        let mut attempt = search.clone();
        attempt.rank = rank;
        if attempt.greedy(&homeless) == 0 {
            greedy = Some(attempt.place);
            break;
        }
    }
    match greedy {
        // Nobody moves who could have stayed: there is nothing better.
        Some(places) if !could_stay => return places,
        _ => {}
    }
    // Nobody can be placed who has nowhere to go; the search is for the others.
    let (hopeful, hopeless): (Vec<usize>, Vec<usize>) =
        homeless.iter().copied().partition(|i| search.hosts(*i).next().is_some());
    search.budget = BUDGET;
    hopeless.iter().for_each(|i| search.stay(*i, 1));
    if search.all(&hopeful) {
        return search.place;
    }
    match greedy {
        Some(places) => places,
        None => search.some(hopeful),
    }
}

/// Which of several hosts is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// The one that is emptiest afterwards.
    Balanced,
    /// The one that is fullest afterwards.
    Tight,
}

#[derive(Clone)]
struct Search<'p> {
    problem: &'p Problem,
    place: Places,
    memory: Vec<i64>,
    cpus: Vec<i64>,
    /// Memory that has not been promised to arrivals, of what is free at once.
    now: Vec<i64>,
    /// Items on each host that use memory there only then.
    arrivals: Vec<u32>,
    /// Members of each group on each host: all, and those who ask to be apart.
    members: Vec<(u32, u32)>,
    /// Members of each spread in each domain.
    spread: Vec<Vec<u32>>,
    /// Items on each host that could stay and might make way.
    stayers: Vec<Vec<usize>>,
    /// Items that were asked to make way.
    ejected: Vec<bool>,
    rank: Rank,
    budget: u32,
}

impl<'p> Search<'p> {
    fn new(problem: &'p Problem) -> Self {
        let hosts = problem.bins.len();
        let mut search = Self {
            problem,
            place: vec![None; problem.items.len()],
            memory: problem.bins.iter().map(|b| b.memory).collect(),
            cpus: problem.bins.iter().map(|b| b.cpus).collect(),
            now: problem.bins.iter().map(|b| b.now).collect(),
            arrivals: vec![0; hosts],
            members: vec![(0, 0); hosts * problem.groups],
            spread: problem.spreads.iter().map(|s| s.fixed.clone()).collect(),
            stayers: vec![Vec::new(); hosts],
            ejected: vec![false; problem.items.len()],
            rank: Rank::Balanced,
            budget: 0,
        };
        for (host, group, asks) in &problem.fixed {
            search.count(*host, *group, *asks, 1);
        }
        // Who may stay stays: the residents first, for whom there is room by definition. Of several that must be kept
        // apart and are together, the most important stays, then the one that is most work to move.
        let mut stay: Vec<usize> = (0..problem.items.len()).filter(|i| problem.items[*i].may_stay).collect();
        stay.sort_by_key(|i| {
            let item = &problem.items[*i];
            (!item.resident, Reverse((item.stuck, item.priority, item.memory)), *i)
        });
        for i in stay {
            let item = &problem.items[i];
            let Some(host) = item.current else { continue };
            if search.together(i, host) && (item.resident || search.has_room(i, host)) {
                search.put(i, host);
                if !item.stuck {
                    search.stayers[host].push(i);
                }
            }
        }
        search
    }

    fn count(&mut self, host: usize, group: usize, asks: bool, by: i32) {
        let (all, asking) = &mut self.members[host * self.problem.groups + group];
        *all = all.saturating_add_signed(by);
        if asks {
            *asking = asking.saturating_add_signed(by);
        }
    }

    fn put(&mut self, i: usize, host: usize) {
        self.change(i, host, 1);
        self.place[i] = Some(host);
    }

    fn take(&mut self, i: usize) {
        if let Some(host) = self.place[i].take() {
            self.change(i, host, -1);
        }
    }

    fn change(&mut self, i: usize, host: usize, by: i32) {
        let item = &self.problem.items[i];
        let sign = i64::from(by);
        self.memory[host] -= sign * item.memory;
        self.cpus[host] -= sign * item.cpus;
        if !(item.resident && item.current == Some(host)) {
            self.now[host] -= sign * item.memory;
            self.arrivals[host] = self.arrivals[host].saturating_add_signed(by);
        }
        for (group, asks) in &item.apart {
            self.count(host, *group, *asks, by);
        }
        for s in &item.spreads {
            let domain = self.problem.spreads[*s].domain[host];
            let members = &mut self.spread[*s][domain];
            *members = members.saturating_add_signed(by);
        }
    }

    /// Whether nobody is on a host that the item must be kept apart from.
    fn together(&self, i: usize, host: usize) -> bool {
        self.problem.items[i].apart.iter().all(|(group, asks)| {
            let (all, asking) = self.members[host * self.problem.groups + group];
            if *asks { all == 0 } else { asking == 0 }
        })
    }

    fn has_room(&self, i: usize, host: usize) -> bool {
        let item = &self.problem.items[i];
        (item.memory == 0 || self.memory[host] >= item.memory) && (item.cpus == 0 || self.cpus[host] >= item.cpus)
    }

    fn fits(&self, i: usize, host: usize) -> bool {
        let item = &self.problem.items[i];
        // Who is there already may stay however full it is; it is not made fuller by arrivals then.
        let stays = item.resident && item.current == Some(host) && self.arrivals[host] == 0;
        (stays || self.has_room(i, host)) && self.together(i, host)
    }

    /// What is tried first: hosts with most of its machines, hosts with room at once, then those where fewest of its spread are, then by balance.
    fn rank(&self, i: usize, host: usize) -> (Reverse<u32>, bool, bool, u32, i64, usize) {
        let item = &self.problem.items[i];
        let at_home = item.homes.iter().find(|(h, _)| *h == host).map_or(0, |(_, n)| *n);
        let waits = self.now[host] < item.memory;
        let spread = item.spreads.iter().map(|s| self.spread[*s][self.problem.spreads[*s].domain[host]]).sum();
        let bin = &self.problem.bins[host];
        // Millionths of the host that are free afterwards.
        let free = i128::from(self.memory[host] - item.memory) * 1_000_000 / i128::from(bin.total.max(1));
        let free = i64::try_from(free).unwrap_or(i64::MAX / 2);
        (
            Reverse(at_home),
            waits,
            item.strange.contains(&host),
            spread,
            if self.rank == Rank::Balanced { -free } else { free },
            host,
        )
    }

    /// Where an item may be: its options, and where it may stay unless it was asked to make way there.
    fn hosts(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        let item = &self.problem.items[i];
        let home = item.current.filter(|_| item.may_stay && !self.ejected[i]);
        home.into_iter().chain(item.options.iter().copied().filter(move |h| Some(*h) != home))
    }

    /// What it costs to have it there: it was not asked to go, and could have stayed.
    fn cost(&self, i: usize, host: usize) -> u32 {
        let item = &self.problem.items[i];
        if item.may_stay && !self.ejected[i] && item.current != Some(host) { item.moves } else { 0 }
    }

    /// The hosts that an item fits on now at no more than this cost, best first.
    fn fitting(&self, i: usize, most: u32) -> Vec<usize> {
        let mut fitting: Vec<usize> = self.hosts(i).filter(|h| self.cost(i, *h) <= most && self.fits(i, *h)).collect();
        fitting.sort_by_cached_key(|h| (self.cost(i, *h), self.rank(i, *h)));
        fitting
    }

    /// Each item in turn to the host that ranks best; how many found none.
    fn greedy(&mut self, items: &[usize]) -> usize {
        let mut left = 0;
        for i in items {
            let options = self.problem.items[*i].options.iter().copied().filter(|h| self.fits(*i, *h));
            match options.min_by_key(|h| self.rank(*i, *h)) {
                Some(host) => self.put(*i, host),
                None => left += 1,
            }
        }
        left
    }

    /// Places all of these, with as few others making way as can be found.
    fn all(&mut self, items: &[usize]) -> bool {
        let moves = |i: &usize| self.problem.items[*i].moves;
        let could_stay = items.iter().filter(|i| self.problem.items[**i].may_stay).map(moves).sum::<u32>();
        let most = could_stay.saturating_add(self.stayers.iter().flatten().map(moves).sum::<u32>().min(MOST_EJECTIONS));
        (0..=most).any(|moves| self.budget > 0 && self.dive(&mut items.to_vec(), moves))
    }

    /// Places as many of these as can be found places for, the most important first and then the smallest. Those that are
    /// left stay where they are, which takes room there.
    fn some(mut self, mut items: Vec<usize>) -> Places {
        let problem = self.problem;
        items.sort_by_key(|i| {
            let item = &problem.items[*i];
            (item.stuck, Reverse(item.priority), item.memory, item.cpus, *i)
        });
        items.iter().for_each(|i| self.stay(*i, 1));
        let mut budget = BUDGET;
        let mut placed = self.clone();
        let mut accepted: Vec<usize> = Vec::new();
        loop {
            let before = accepted.len();
            items.retain(|i| {
                if let Some(host) = placed.fitting(*i, u32::MAX).first().copied() {
                    placed.stay(*i, -1);
                    placed.put(*i, host);
                    accepted.push(*i);
                    return false;
                }
                if budget == 0 {
                    return true;
                }
                // Again from the start, with all that were accepted.
                let mut attempt = self.clone();
                attempt.budget = budget;
                let wanted: Vec<usize> = accepted.iter().copied().chain([*i]).collect();
                wanted.iter().for_each(|i| attempt.stay(*i, -1));
                let done = attempt.all(&wanted);
                budget = attempt.budget;
                if done {
                    accepted.push(*i);
                    placed = attempt;
                }
                !done
            });
            if accepted.len() == before || items.is_empty() {
                return placed.place;
            }
        }
    }

    /// Counts an item without a place where it is, or does not any more.
    fn stay(&mut self, i: usize, by: i32) {
        let item = &self.problem.items[i];
        if let Some(host) = item.current.filter(|_| item.resident) {
            self.change(i, host, by);
        }
    }

    /// Places everything in `todo`, with so many moves of machines that could stay at most, or changes nothing.
    fn dive(&mut self, todo: &mut Vec<usize>, moves: u32) -> bool {
        if self.budget == 0 {
            return false;
        }
        self.budget = self.budget.saturating_sub(u32::try_from(todo.len()).unwrap_or(u32::MAX).max(1));
        // The most constrained one; of several, the largest.
        let mut next: Option<(usize, (usize, i64))> = None;
        for (at, i) in todo.iter().enumerate() {
            let fits = self.hosts(*i).filter(|h| self.cost(*i, *h) <= moves && self.fits(*i, *h)).count();
            let key = (fits, -self.problem.items[*i].memory);
            if next.is_none_or(|(_, least)| key < least) {
                next = Some((at, key));
            }
        }
        let Some((at, (fits, _))) = next else { return true };
        if fits == 0 && moves == 0 {
            return false;
        }
        let i = todo.swap_remove(at);
        for host in self.fitting(i, moves) {
            let cost = self.cost(i, host);
            self.put(i, host);
            if self.dive(todo, moves - cost) {
                return true;
            }
            self.take(i);
        }
        let memory = self.problem.items[i].memory;
        for host in self.hosts(i).collect::<Vec<_>>() {
            // The smallest that is enough by itself first: it is the least work to move.
            let mut candidates = self.stayers[host].clone();
            candidates.retain(|e| {
                let other = &self.problem.items[*e];
                let elsewhere = other.options.iter().any(|h| Some(*h) != other.current);
                !self.ejected[*e] && other.moves <= moves && self.place[*e] == Some(host) && elsewhere
            });
            candidates.sort_by_key(|e| {
                let other = self.problem.items[*e].memory;
                (self.memory[host] + other < memory, other, *e)
            });
            for e in candidates {
                let cost = self.problem.items[e].moves;
                self.take(e);
                self.ejected[e] = true;
                todo.push(e);
                todo.push(i);
                if self.dive(todo, moves - cost) {
                    return true;
                }
                todo.retain(|x| *x != e && *x != i);
                self.ejected[e] = false;
                self.put(e, host);
            }
        }
        todo.push(i);
        false
    }
}
