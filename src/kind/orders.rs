//! What a newer commit says to the steps that are under way.

use super::Resources;
use super::virtual_machine;
use crate::action::{Action, MachineAction, Order};
use crate::plan::{Plan, Step};
use std::collections::BTreeMap;

/// The orders for the steps of a plan that is being carried out, by step id; steps that go on as they are have none.
pub fn orders(running: &Plan, newer: &Resources) -> BTreeMap<String, Order> {
    let order = |step: &Step| match &step.action {
        Action::Machine(MachineAction::MigrateVirtualMachine(m)) => virtual_machine::order(step, m, newer),
        Action::Machine(MachineAction::MoveDisk(m)) => virtual_machine::disk_order(step, m, newer),
        Action::Machine(_) | Action::Cluster(_) => None,
    };
    running.steps.iter().filter_map(|step| Some((step.id.clone(), order(step)?))).collect()
}
