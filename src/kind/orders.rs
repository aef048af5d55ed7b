//! What a newer commit says to the steps that are under way.

use super::Resources;
use super::virtual_machine;
use crate::action::{Action, MachineAction, Order};
use crate::plan::Plan;
use std::collections::BTreeMap;

/// The orders for the steps of a plan that is being carried out, by step id; steps that go on as they are have none.
pub fn orders(running: &Plan, newer: &Resources) -> BTreeMap<String, Order> {
    let migrations = running.steps.iter().filter_map(|step| match &step.action {
        Action::Machine(MachineAction::MigrateVirtualMachine(m)) => Some((step, m)),
        Action::Machine(_) => None,
    });
    migrations.filter_map(|(step, m)| Some((step.id.clone(), virtual_machine::order(step, m, newer)?))).collect()
}
