//! Rebalancing: moves that bring the memory use of hosts nearer to each other, as few as can be found.
//!
//! A machine goes from one host to another only while the share of memory in use differs by more than the threshold
//! between them, and only if that makes the sum of the squares of all shares smaller. So every move is an improvement of
//! the same quantity, and a machine cannot be moved to and fro: neither within one plan nor from one plan to the next.

use super::solve::{Places, Problem, UNLIMITED};

/// Moves items in `places`; gives those whose place changed. `threshold`: per cent of a host's memory.
pub fn balance(problem: &Problem, places: &mut Places, threshold: u32) -> Vec<usize> {
    let before = places.clone();
    let mut state = State::new(problem, places);
    // Each round makes the sum smaller; the limit is for the time it may take, not for the end.
    for _ in 0..problem.items.len().saturating_mul(2) {
        let Some((item, to)) = state.best(problem, places, i64::from(threshold) * 10_000) else { break };
        state.change(problem, item, places[item], -1);
        places[item] = Some(to);
        state.change(problem, item, places[item], 1);
    }
    (0..places.len()).filter(|i| places[*i] != before[*i]).collect()
}

struct State {
    memory: Vec<i64>,
    cpus: Vec<i64>,
    members: Vec<(u32, u32)>,
    spread: Vec<Vec<u32>>,
}

impl State {
    fn new(problem: &Problem, places: &Places) -> Self {
        let mut state = Self {
            memory: problem.bins.iter().map(|b| b.memory).collect(),
            cpus: problem.bins.iter().map(|b| b.cpus).collect(),
            members: vec![(0, 0); problem.bins.len() * problem.groups],
            spread: problem.spreads.iter().map(|s| s.fixed.clone()).collect(),
        };
        for (host, group, asks) in &problem.fixed {
            let (all, asking) = &mut state.members[host * problem.groups + group];
            *all += 1;
            *asking += u32::from(*asks);
        }
        for (i, item) in problem.items.iter().enumerate() {
            // Those without a place stay where they are.
            state.change(problem, i, places[i].or(item.current), 1);
        }
        state
    }

    fn change(&mut self, problem: &Problem, i: usize, host: Option<usize>, by: i32) {
        let Some(host) = host else { return };
        let item = &problem.items[i];
        self.memory[host] -= i64::from(by) * item.memory;
        self.cpus[host] -= i64::from(by) * item.cpus;
        for (group, asks) in &item.apart {
            let (all, asking) = &mut self.members[host * problem.groups + group];
            *all = all.saturating_add_signed(by);
            if *asks {
                *asking = asking.saturating_add_signed(by);
            }
        }
        for s in &item.spreads {
            let members = &mut self.spread[*s][problem.spreads[*s].domain[host]];
            *members = members.saturating_add_signed(by);
        }
    }

    /// Millionths of a host's memory that are in use.
    fn share(&self, problem: &Problem, host: usize, more: i64) -> i64 {
        let total = problem.bins[host].total.max(1);
        let used = i128::from(total) - i128::from(self.memory[host]) + i128::from(more);
        i64::try_from(used * 1_000_000 / i128::from(total)).unwrap_or(i64::MAX / 2)
    }

    /// The move that makes the sum of squares smallest, for each machine that has to move for it.
    fn best(&self, problem: &Problem, places: &Places, threshold: i64) -> Option<(usize, usize)> {
        let shares: Vec<i64> = (0..problem.bins.len()).map(|h| self.share(problem, h, 0)).collect();
        let counts = |h: usize| problem.bins[h].open && problem.bins[h].total < UNLIMITED;
        let square = |share: i64| i128::from(share) * i128::from(share);
        let mut best: Option<(i128, usize, usize)> = None;
        for (i, item) in problem.items.iter().enumerate() {
            let Some(from) = places[i].filter(|h| counts(*h)) else { continue };
            if item.stuck || item.memory == 0 {
                continue;
            }
            for to in item.options.iter().copied().chain(item.current).filter(|h| *h != from && counts(*h)) {
                if shares[from] - shares[to] <= threshold
                    || !self.fits(problem, i, to)
                    || !self.spreads(problem, i, from, to)
                {
                    continue;
                }
                let (less, more) = (self.share(problem, from, -item.memory), self.share(problem, to, item.memory));
                let gain = square(shares[from]) + square(shares[to]) - square(less) - square(more);
                let gain = gain / i128::from(item.moves.max(1));
                if gain > 0 && best.is_none_or(|(g, _, _)| gain > g) {
                    best = Some((gain, i, to));
                }
            }
        }
        best.map(|(_, i, to)| (i, to))
    }

    fn fits(&self, problem: &Problem, i: usize, host: usize) -> bool {
        let item = &problem.items[i];
        let apart = item.apart.iter().all(|(group, asks)| {
            let (all, asking) = self.members[host * problem.groups + group];
            if *asks { all == 0 } else { asking == 0 }
        });
        // A machine that only went away in this plan may come back: it may stay where it is.
        let allowed = item.options.contains(&host) || item.may_stay && item.current == Some(host);
        allowed && apart && self.memory[host] >= item.memory && self.cpus[host] >= item.cpus
    }

    /// Whether the move leaves the item's spreads as even as they are.
    fn spreads(&self, problem: &Problem, i: usize, from: usize, to: usize) -> bool {
        problem.items[i].spreads.iter().all(|s| {
            let domain = &problem.spreads[*s].domain;
            domain[from] == domain[to] || self.spread[*s][domain[to]] < self.spread[*s][domain[from]]
        })
    }
}
