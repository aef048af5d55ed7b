//! Whether places can be reached: one machine after the other, each with room and without neighbours from whom it must be
//! kept apart at the moment when it arrives. Places that cannot be reached are not chosen: others would move for their sake,
//! and move again when the plan is made anew.
//!
//! This is about machines with `placement` among each other. What pinned machines and held back steps add to it is seen when
//! the steps are ordered ([`crate::plan`]'s `capacity`), which has the last word.

use super::solve::{Places, Problem};

/// Items that never get where they should be.
pub fn stuck(problem: &Problem, places: &Places) -> Vec<usize> {
    let mut free: Vec<i64> = problem.bins.iter().map(|b| b.memory).collect();
    let mut members = vec![(0_u32, 0_u32); problem.bins.len() * problem.groups];
    let count = |members: &mut Vec<(u32, u32)>, host: usize, apart: &[(usize, bool)], by: i32| {
        for (group, asks) in apart {
            let (all, asking) = &mut members[host * problem.groups + group];
            *all = all.saturating_add_signed(by);
            *asking = asking.saturating_add_signed(if *asks { by } else { 0 });
        }
    };
    for (host, group, asks) in &problem.fixed {
        count(&mut members, *host, &[(*group, *asks)], 1);
    }
    for item in &problem.items {
        if let Some(host) = item.current {
            free[host] -= if item.resident { item.memory } else { 0 };
            count(&mut members, host, &item.apart, 1);
        }
    }
    for (free, bin) in free.iter_mut().zip(&problem.bins) {
        *free = (*free).max(bin.now);
    }
    let goes = |i: &usize| places[*i].is_some_and(|h| problem.items[*i].current != Some(h));
    let mut waiting: Vec<usize> = (0..places.len()).filter(goes).collect();
    loop {
        let before = waiting.len();
        waiting.retain(|i| {
            let item = &problem.items[*i];
            let Some(to) = places[*i] else { return false };
            let apart = item.apart.iter().all(|(group, asks)| {
                let (all, asking) = members[to * problem.groups + group];
                if *asks { all == 0 } else { asking == 0 }
            });
            if !apart || item.memory > 0 && free[to] < item.memory {
                return true;
            }
            free[to] -= item.memory;
            count(&mut members, to, &item.apart, 1);
            if let Some(from) = item.current {
                free[from] += if item.resident { item.memory } else { 0 };
                count(&mut members, from, &item.apart, -1);
            }
            false
        });
        if waiting.len() == before {
            return waiting;
        }
    }
}
