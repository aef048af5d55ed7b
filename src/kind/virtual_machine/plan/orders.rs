//! What a newer commit says to a migration that is under way.

use crate::action::{Migration, Order};
use crate::kind::Resources;
use crate::kind::virtual_machine::PowerState;
use crate::model::ResourceId;
use crate::plan::Step;

/// The orders for a step of a machine's that runs while a newer commit comes. `None`: it goes on as it is.
pub fn order(step: &Step, migration: &Migration, all: &Resources) -> Option<Order> {
    let machine = all.virtual_machines.get(name_of(&step.resource)?)?;
    if machine.spec.host.as_ref() == Some(&migration.from) && machine.spec.power_state != PowerState::Stopped {
        let why = format!("the manifest says `{}` again", migration.from);
        return Some(Order::Abort { why });
    }
    let default = all.settings.values().next().and_then(|s| s.spec.migration_policy.as_ref());
    limits(machine.spec.migration_policy.as_ref().or(default), migration, all)
}

/// A migration with the limits that a policy has now, where they are others.
fn limits(policy: Option<&String>, migration: &Migration, all: &Resources) -> Option<Order> {
    let spec = policy.and_then(|p| all.migration_policies.get(p)).map(|p| p.spec.clone()).unwrap_or_default();
    let mut wanted = migration.clone();
    spec.apply(super::migrate::link(all, &migration.from, &migration.to), &mut wanted);
    (wanted != *migration).then(|| Order::Limits(Box::new(wanted)))
}

fn name_of(id: &ResourceId) -> Option<&str> {
    (id.kind.as_str() == "VirtualMachine").then_some(id.name.as_str())
}
