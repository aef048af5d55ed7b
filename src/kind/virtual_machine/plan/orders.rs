//! What a newer commit says to a migration, or to a disk's copy, that is under way.

use crate::action::{DiskMove, DiskPlace, Migration, Order};
use crate::kind::Resources;
use crate::kind::virtual_machine::{PowerState, policy_name, volume_name};
use crate::kind::virtual_machine_migration::MIGRATION_KIND;
use crate::model::ResourceId;
use crate::plan::Step;

/// The orders for a step of a machine's that runs while a newer commit comes. `None`: it goes on as it is.
pub fn order(step: &Step, migration: &Migration, all: &Resources) -> Option<Order> {
    if step.resource.kind == MIGRATION_KIND {
        return of_migration(&step.resource.name, migration, all);
    }
    let machine = all.virtual_machines.get(name_of(&step.resource)?)?;
    if machine.spec.host.as_ref() == Some(&migration.from) && machine.spec.power_state != PowerState::Stopped {
        let why = format!("the manifest says `{}` again", migration.from);
        return Some(Order::Abort { why });
    }
    Some(limits(policy_name(machine, all), migration, all))
}

/// The order for a disk that is on its way to another pool. `None`: its machine's manifest is gone; the copy goes on, and
/// what is left is planned after that.
pub fn disk_order(step: &Step, disk: &DiskMove, all: &Resources) -> Option<Order> {
    let machine = all.virtual_machines.get(name_of(&step.resource)?)?;
    let wants = |place: &DiskPlace| {
        machine.spec.disks.iter().flatten().any(|wish| {
            let pool = wish.pool.as_ref().and_then(|name| all.storage_pools.get(name));
            pool.is_some_and(|p| {
                p.spec.libvirt_name(p.name()) == place.pool && volume_name(machine, wish, Some(&p.spec)) == place.volume
            })
        })
    };
    if !wants(&disk.to) {
        let why = match disk.from.as_ref().filter(|from| wants(from)) {
            Some(from) => format!("the manifest says `{}` again", from.pool),
            None => format!("the manifest does not ask for pool `{}` any more", disk.to.pool),
        };
        return Some(Order::Abort { why });
    }
    let policy = policy_name(machine, all).and_then(|p| all.migration_policies.get(p));
    // Always told: whether an earlier commit said otherwise meanwhile is not known here.
    Some(Order::CopyRate(policy.and_then(|p| super::disk::copy_rate(&p.spec))))
}

/// A move for the sake of a VirtualMachineMigration: it ends where that is gone, suspended or says something else now.
fn of_migration(name: &str, migration: &Migration, all: &Resources) -> Option<Order> {
    // On its way home: whatever a newer commit says, that is where it is looked at next.
    let mark = migration.mark.as_ref()?;
    let abort = |why: String| Some(Order::Abort { why });
    let Some(m) = all.virtual_machine_migrations.get(name) else {
        return abort(format!("`{name}` is not in Git any more"));
    };
    if m.spec.suspend {
        return abort(format!("`{name}` is suspended"));
    }
    if m.spec.revision(all) != mark.revision {
        return abort(format!("`{name}` says something else now"));
    }
    let machine = all.virtual_machines.values().find(|v| super::super::domain_name(v) == migration.name);
    let own = machine.and_then(|v| v.spec.policy_name());
    let default = all.settings.values().next().and_then(|s| s.spec.migration_policy.as_ref());
    Some(limits(m.spec.migration_policy.as_ref().or(own).or(default), migration, all))
}

/// A migration with the limits that a policy has now. Also where they are those that it began with: a commit in between may
/// have changed them.
fn limits(policy: Option<&String>, migration: &Migration, all: &Resources) -> Order {
    let spec = policy.and_then(|p| all.migration_policies.get(p)).map(|p| p.spec.clone()).unwrap_or_default();
    let mut wanted = migration.clone();
    spec.apply(super::migrate::link(all, &migration.from, &migration.to), &mut wanted);
    Order::Limits(Box::new(wanted))
}

fn name_of(id: &ResourceId) -> Option<&str> {
    (id.kind.as_str() == "VirtualMachine").then_some(id.name.as_str())
}
