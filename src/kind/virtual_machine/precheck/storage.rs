//! The pools that a machine's disks are in.

use super::{Move, Sheet};
use crate::kind::Resources;
use crate::kind::virtual_machine::{VirtualMachineSpec, VolumeWish, volumes};
use crate::model::Manifest;
use crate::observed::HostState;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    pools(mv, sheet);
}

fn pools(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    let Some(machine) = mv.machine else { return };
    for wish in missing_pools(machine, mv.ctx.resources, mv.to, mv.destination) {
        sheet.fail(
            Precheck::Pools,
            format!("`{}` does not have the pool `{}` of disk `{}`", mv.to, wish.libvirt_pool, wish.disk),
            format!("add `{}` to the pool's `hosts`", mv.to),
        );
    }
    sheet.otherwise(Precheck::Pools, format!("`{}` has the pools of its disks, or is given them", mv.to));
}

/// Volumes in pools that a machine's disks need on a host and that nothing brings there.
pub(crate) fn missing_pools(
    machine: &Manifest<VirtualMachineSpec>,
    resources: &Resources,
    host: &str,
    state: &HostState,
) -> Vec<VolumeWish> {
    let mut wishes = volumes(machine, state, resources).unwrap_or_default();
    wishes.retain(|wish| {
        let pool = resources.storage_pools.get(&wish.pool);
        let is_brought = pool.is_some_and(|p| p.spec.hosts.iter().any(|h| h == host));
        !is_brought && !state.pools.get(&wish.libvirt_pool).is_some_and(|p| p.active)
    });
    wishes
}
