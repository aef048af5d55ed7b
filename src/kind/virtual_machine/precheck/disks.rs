//! The disks: each is on storage that both hosts share, or is copied.

use super::{Move, Sheet, mebibytes};
use crate::action::{Backing, MigratedVolume};
use crate::domain_xml::{self, LocalDisk};
use crate::kind::migration_policy::CopyStorage;
use crate::kind::storage_pool::StoragePoolSpec;
use crate::kind::virtual_machine::disk_path;
use crate::model::Manifest;
use crate::observed::{HostState, VolumeState};
use crate::plan::Precheck;

/// The disks that have to be copied, because the two hosts do not share what they are on; none where one cannot be.
pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) -> Vec<MigratedVolume> {
    let mut copies = Vec::new();
    let mut is_complete = true;
    for disk in domain_xml::local_disks(mv.lasting_xml()) {
        match disk_of(mv, &disk, sheet) {
            Disk::Stays => {}
            Disk::Copied(volume) => copies.push(volume),
            Disk::Refused => is_complete = false,
        }
    }
    sheet.otherwise(Precheck::Disks, "it has no disk on a file or device of its host");
    if is_complete { copies } else { Vec::new() }
}

enum Disk {
    /// Where it is, and seen from both hosts.
    Stays,
    Copied(MigratedVolume),
    Refused,
}

/// The volume that a disk is, in the source's pools: pool, name and what it is.
fn found<'a>(mv: &Move<'a>, disk: &LocalDisk) -> Option<(&'a String, &'a String, &'a VolumeState)> {
    let mut pools = mv.source.pools.iter();
    pools.find_map(|(name, p)| p.volumes.iter().find(|(_, v)| v.path == disk.path).map(|(v, s)| (name, v, s)))
}

/// The StoragePool of both hosts that a disk is in.
pub(super) fn pool_of<'a>(mv: &Move<'a>, disk: &LocalDisk) -> Option<&'a Manifest<StoragePoolSpec>> {
    let found = found(mv, disk);
    mv.ctx.resources.storage_pools.values().find(|p| {
        let on = |h: &str| p.spec.hosts.iter().any(|x| x == h);
        let name = p.spec.libvirt_name(p.name());
        let holds = found.is_some_and(|(pool, _, _)| pool == name)
            || p.spec.target.as_ref().is_some_and(|t| disk.path.starts_with(&format!("{t}/")));
        holds && on(mv.from) && on(mv.to)
    })
}

fn disk_of(mv: &Move<'_>, disk: &LocalDisk, sheet: &mut Sheet<'_>) -> Disk {
    let (from, to) = (mv.from, mv.to);
    let found = found(mv, disk);
    let manifest = pool_of(mv, disk);
    if let Some(pool) = manifest
        && !super::shared::check(mv, pool, &disk.target, sheet)
    {
        return Disk::Refused;
    }
    if let Some(pool) = manifest.filter(|p| p.spec.shared) {
        sheet.pass(
            Precheck::Disks,
            format!("disk {} ({}) is on the shared pool `{}`", disk.target, disk.path, pool.name()),
        );
        return Disk::Stays;
    }
    if disk.read_only && mv.destination.pools.values().any(|p| p.volumes.values().any(|v| v.path == disk.path)) {
        sheet.pass(Precheck::Disks, format!("disk {} is read-only, and `{to}` has {} as well", disk.target, disk.path));
        return Disk::Stays;
    }
    if mv.policy.copy_storage == CopyStorage::None {
        sheet.fail(
            Precheck::Disks,
            format!("disk {} ({}) is not on storage that `{from}` and `{to}` share", disk.target, disk.path),
            "put it in a StoragePool that both hosts have with `shared: true`, or set `copyStorage: All` in the migration policy",
        );
        return Disk::Refused;
    }
    let (Some((pool, volume, state)), Some(manifest)) = (found, manifest) else {
        sheet.fail(
            Precheck::Disks,
            format!(
                "disk {} ({}) is in no StoragePool that both `{from}` and `{to}` have, so it cannot be copied",
                disk.target, disk.path
            ),
            "declare the pool on both hosts",
        );
        return Disk::Refused;
    };
    if disk.shareable {
        sheet.fail(
            Precheck::Disks,
            format!("disk {} is shareable: a copy would be another disk", disk.target),
            "put it on shared storage",
        );
        return Disk::Refused;
    }
    if mv.policy.copy_disks.as_ref().is_some_and(|chosen| !is_chosen(mv, chosen, disk)) {
        sheet.fail(
            Precheck::Disks,
            format!(
                "disk {} ({}) is not on storage that `{from}` and `{to}` share, and not among the `copyDisks` of its \
                 migration policy",
                disk.target, disk.path
            ),
            "name it there, or put it on shared storage",
        );
        return Disk::Refused;
    }
    let backing = match &state.backing {
        Some(path) if mv.policy.copy_storage == CopyStorage::Incremental => {
            match backing(path, mv.source, mv.destination) {
                Ok(backing) => Some(backing),
                Err(reason) => {
                    sheet.fail(
                        Precheck::Disks,
                        format!("disk {} cannot be copied incrementally: {reason}", disk.target),
                        "bring the backing image there first (a StoragePool with `shared: true`, or a copy at the same \
                         path), or set `copyStorage: All`",
                    );
                    return Disk::Refused;
                }
            }
        }
        _ => None,
    };
    sheet.pass(
        Precheck::Disks,
        format!("disk {} ({}) is copied, {}", disk.target, disk.path, mebibytes(state.capacity)),
    );
    let to_pool = manifest.spec.libvirt_name(manifest.name());
    match mv.destination.pools.get(to_pool).filter(|p| p.active) {
        Some(there) if there.available < state.allocation => {
            sheet.fail(
                Precheck::StorageRoom,
                format!(
                    "pool `{to_pool}` on `{to}` has {} bytes free, disk {} takes {}",
                    there.available, disk.target, state.allocation
                ),
                "make room there",
            );
            return Disk::Refused;
        }
        Some(there) => sheet.pass(
            Precheck::StorageRoom,
            format!(
                "pool `{to_pool}` on `{to}` has {} free, disk {} takes {}",
                mebibytes(there.available),
                disk.target,
                mebibytes(state.allocation)
            ),
        ),
        None => sheet.unknown(
            Precheck::StorageRoom,
            format!("pool `{to_pool}` is not started on `{to}` yet: how much is free there is not known"),
        ),
    }
    Disk::Copied(MigratedVolume {
        backing,
        target: disk.target.clone(),
        pool: pool.clone(),
        volume: volume.clone(),
        path: disk.path.clone(),
        to_pool: to_pool.into(),
        capacity: state.capacity,
        format: state.format.clone(),
    })
}

/// Whether a policy's `copyDisks` names a disk: by its target, or by its name in the manifest.
fn is_chosen(mv: &Move<'_>, chosen: &[String], disk: &LocalDisk) -> bool {
    let is_it = |name: &String| {
        mv.machine.is_some_and(|m| {
            m.spec.disks.iter().flatten().enumerate().filter(|(_, d)| d.name == *name).any(|(i, d)| {
                disk_path(m, i, d, mv.source, mv.ctx.resources).is_ok_and(|p| p.path() == Some(disk.path.as_str()))
            })
        })
    };
    chosen.iter().any(|c| *c == disk.target || is_it(c))
}

/// The image below a disk, where the destination has the same at the same path, as far as can be told.
fn backing(path: &str, here: &HostState, there: &HostState) -> Result<Backing, String> {
    let find =
        |state: &HostState| state.pools.values().flat_map(|p| p.volumes.values()).find(|v| v.path == path).cloned();
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
