//! What a policy says of the disks that are copied: which of them, and how much of each.

use super::Move;
use crate::action::Backing;
use crate::kind::virtual_machine::disk_path;
use crate::observed::HostState;

/// Whether the policy's `copyDisks` leaves a disk out. It names disks by their targets or by their names in the manifest.
pub(super) fn is_left_out(mv: &Move<'_>, target: &str, path: &str) -> bool {
    let Some(chosen) = &mv.policy.copy_disks else { return false };
    let is_it =
        |name: &String| {
            let Some(machine) = mv.machine else { return false };
            machine.spec.disks.iter().flatten().enumerate().filter(|(_, d)| d.name == *name).any(|(i, d)| {
                disk_path(machine, i, d, mv.source, mv.ctx.resources).is_ok_and(|p| p.path() == Some(path))
            })
        };
    !chosen.iter().any(|c| c == target || is_it(c))
}

/// The image below a disk, where the destination has the same at the same path, as far as can be told.
pub(super) fn backing(path: &str, here: &HostState, there: &HostState) -> Result<Backing, String> {
    let find = |state: &HostState| {
        state.pools.values().filter(|p| p.active).flat_map(|p| p.volumes.values()).find(|v| v.path == path).cloned()
    };
    let Some(below) = find(here) else {
        return Err(format!("its backing image {path} is in no pool of the source, so nothing is known of it"));
    };
    let Some(same) = find(there) else {
        return Err(format!("its backing image {path} is in no pool of the destination"));
    };
    if (same.capacity, &same.format) != (below.capacity, &below.format) {
        return Err(format!(
            "its backing image {path} has {} bytes ({}) at the source and {} bytes ({}) at the destination",
            below.capacity, below.format, same.capacity, same.format
        ));
    }
    Ok(Backing { path: path.to_owned(), format: below.format, capacity: below.capacity })
}
