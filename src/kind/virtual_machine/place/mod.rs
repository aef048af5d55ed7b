//! Where machines with `placement` should be. docs/placement.md has the rules for people.
//!
//! ```text
//!  manifests, observation ─ wants ─▶ what each machine needs, what each host offers
//!                         ─ case ──▶ numbers: hosts with room, machines (or groups of them) with options
//!                         ─ solve ─▶ places                     ─ balance ─▶ fewer places, if rebalancing was asked for
//!                         ─ why ───▶ targets with the reasons, or why each host was refused
//! ```
//! Only the end is chosen here. That capacity holds after every step on the way there is the matter of
//! [`crate::plan`]'s `capacity`, which orders the steps that were drafted.

mod balance;
mod case;
mod solve;
#[cfg(test)]
mod tests;
mod wants;
mod why;

pub use case::priority;
pub use wants::{Footprint, footprint};

use super::survey::{Survey, Target};
use crate::kind::Resources;
use crate::kind::settings::Rebalance;
use crate::observed::Observed;
use case::Case;
use std::collections::BTreeMap;

/// Where machines should be, and why.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The host of each machine that says where it runs.
    pub targets: BTreeMap<String, Target>,
    /// Why it was chosen, for machines that are not where they should be.
    pub reasons: BTreeMap<String, String>,
}

/// Chooses a host for every machine: pinned ones have theirs; the others stay where they may, and go where the rules of
/// the module send them where they may not. `rebalance`: whether those that could stay may move for balance.
pub fn choose(resources: &Resources, observed: &Observed, survey: &Survey, rebalance: bool) -> Places {
    let mut places = Places::default();
    let mut placed = false;
    for machine in resources.virtual_machines.values() {
        match (&machine.spec.host, &machine.spec.placement) {
            (Some(host), _) => {
                places.targets.insert(machine.name().into(), Target::Host(host.clone()));
            }
            (None, Some(_)) => placed = true,
            (None, None) => {}
        }
    }
    if !placed {
        return places;
    }
    let settings = resources.settings.values().next().map(|s| s.spec.placement.clone()).unwrap_or_default();
    let mut case = Case::new(resources, observed, survey, &settings);
    let mut found = solve::solve(&case.problem);
    if found.iter().any(Option::is_none) && case.let_stayers_make_way(&found) {
        found = solve::solve(&case.problem);
    }
    let balanced = if rebalance || settings.rebalance == Rebalance::Always {
        case.let_all_move();
        balance::balance(&case.problem, &mut found, settings.imbalance)
    } else {
        Vec::new()
    };
    why::tell(&case, &found, &balanced, &mut places);
    places
}
