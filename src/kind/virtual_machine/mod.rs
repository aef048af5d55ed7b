//! `VirtualMachine`: hardware, disks, interfaces, power state, and where it runs.
//!
//! [`render`] makes the definition of a new domain, [`compare`] finds what differs in one that is there. Both use the same
//! code for each field (`sheet`, `fields`, `disks`, `interfaces`, `devices`).

mod baseline;
mod compare;
mod devices;
mod disks;
mod fields;
mod identity;
mod import;
mod interfaces;
mod place;
mod plan;
mod precheck;
mod questions;
mod render;
mod rules;
mod sheet;
mod spec;
mod storage;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writers;

pub use baseline::custom_cpu;
pub use compare::{Difference, compare};
pub use disks::disk_alias;
pub use identity::{domain_name, first_name, mac, uuid};
pub use import::{ADOPT, ADOPT_ON_CHANGE, Imported, import, manifest_name};
pub use place::{Footprint, footprint, priority};
pub(in crate::kind) use plan::{Errand, go, under_way};
pub use plan::{disk_order, order};
pub use questions::questions;
pub use render::render;
pub use spec::*;
pub use storage::{DiskSource, VolumeWish, disk_path, volume_name, volumes};
pub(in crate::kind) use survey::locate;
pub use survey::{Copy, Located, Survey, Target};

use crate::kind::Resources;
use crate::kind::migration_policy::MigrationPolicySpec;
use crate::model::Manifest;

/// The name of the migration policy in force for a machine: its own, that of its placement, or that of Settings.
pub(crate) fn policy_name<'a>(m: &'a Manifest<VirtualMachineSpec>, resources: &'a Resources) -> Option<&'a String> {
    m.spec.policy_name().or_else(|| resources.settings.values().next()?.spec.migration_policy.as_ref())
}

/// The migration policy in force for one move of a machine: the one that a migration names, else that of the machine.
pub(crate) fn policy_of_move(
    m: &Manifest<VirtualMachineSpec>,
    named: Option<&String>,
    resources: &Resources,
) -> MigrationPolicySpec {
    match named.and_then(|n| resources.migration_policies.get(n)) {
        Some(policy) => policy.spec.clone(),
        None => policy(m, resources),
    }
}

/// The migration policy in force for a machine, or the default.
pub(crate) fn policy(m: &Manifest<VirtualMachineSpec>, resources: &Resources) -> MigrationPolicySpec {
    let name = policy_name(m, resources);
    name.and_then(|n| resources.migration_policies.get(n)).map(|p| p.spec.clone()).unwrap_or_default()
}
