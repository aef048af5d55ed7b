//! The disks: each is on storage that both hosts share, or is copied.

use super::paths::{Presence, is_medium, presence};
use super::shared::by_markers;
use super::storage::pool_of;
use super::{Move, Sheet, mebibytes};
use crate::action::{Backing, MigratedVolume};
use crate::domain_xml::{self, LocalDisk};
use crate::kind::migration_policy::CopyStorage;
use crate::kind::storage_pool::Sharing;
use crate::kind::virtual_machine::disk_path;
use crate::observed::{HALF_COPY, HostState, PoolState};
use crate::plan::Precheck;
use std::collections::BTreeMap;

/// The longest chain of images below a disk that is followed.
const CHAIN_MAX: usize = 64;

/// The disks that have to be copied, because the two hosts do not share what they are on; none where one cannot be.
pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) -> Vec<MigratedVolume> {
    let mut copies = Vec::new();
    let mut taken = BTreeMap::new();
    let mut is_complete = true;
    for disk in domain_xml::local_disks(mv.lasting_xml()).iter().filter(|d| !is_medium(mv, d)) {
        match disk_of(mv, disk, &mut taken, sheet) {
            Disk::Stays => {}
            Disk::Copied(volume) => copies.push(*volume),
            Disk::Refused => is_complete = false,
        }
    }
    if is_complete {
        sheet.otherwise(Precheck::Disks, "it has no disk on a file or device of its host");
    }
    if is_complete { copies } else { Vec::new() }
}

enum Disk {
    /// It is where it is, and seen from both hosts.
    Stays,
    Copied(Box<MigratedVolume>),
    Refused,
}

/// `taken` has what disks before it take of the destination's pools.
fn disk_of(mv: &Move<'_>, disk: &LocalDisk, taken: &mut BTreeMap<String, u64>, sheet: &mut Sheet<'_>) -> Disk {
    let name = Precheck::Disks;
    let (from, to) = (mv.from, mv.to);
    let what = format!("disk {} ({})", disk.target, disk.path);
    let manifest = pool_of(mv, &disk.path);
    if let Some(pool) = manifest.filter(|p| !p.spec.shared && by_markers(mv, p) == Sharing::Same) {
        sheet.fail(
            Precheck::SharedStorage,
            format!(
                "{what} is in pool `{}`, which is one storage on `{from}` and `{to}`: a copy would be written onto itself",
                pool.name()
            ),
            "write `shared: true` in the StoragePool",
        );
        return Disk::Refused;
    }
    if let Some(pool) = manifest.filter(|p| p.spec.shared) {
        if let Some(missing) = missing_below(mv, &disk.path) {
            sheet.fail(
                name,
                format!(
                    "{what} is on the shared pool `{}`, and {missing}, which lies below it, is not on `{to}`",
                    pool.name()
                ),
                "put the whole chain of images on shared storage, or flatten it (`virsh blockpull`)",
            );
            return Disk::Refused;
        }
        sheet.pass(name, format!("{what} is on the shared pool `{}`", pool.name()));
        return Disk::Stays;
    }
    if disk.read_only && presence(mv, &disk.path) == Presence::There {
        sheet.pass(name, format!("{what} is read-only, and `{to}` has it as well"));
        return Disk::Stays;
    }
    if mv.policy.copy_storage == CopyStorage::None {
        sheet.fail(
            name,
            format!("{what} is not on storage that `{from}` and `{to}` share"),
            "put it in a StoragePool that both hosts have with `shared: true`, or set `copyStorage: All` in the migration policy",
        );
        return Disk::Refused;
    }
    let found = mv.source.pools.iter().find_map(|(pool, p)| {
        p.volumes.iter().find(|(_, v)| v.path == disk.path).map(|(volume, state)| (pool, volume, state))
    });
    let (Some((pool, volume, state)), Some(manifest)) = (found, manifest) else {
        sheet.fail(
            name,
            format!("{what} is in no StoragePool that both `{from}` and `{to}` have, so it cannot be copied"),
            "declare the pool on both hosts",
        );
        return Disk::Refused;
    };
    if disk.shareable {
        sheet.fail(
            name,
            format!("disk {} is shareable: a copy would be another disk", disk.target),
            "put it on shared storage",
        );
        return Disk::Refused;
    }
    if mv.policy.copy_disks.as_ref().is_some_and(|chosen| !is_chosen(mv, chosen, disk)) {
        sheet.fail(
            name,
            format!(
                "{what} is not on storage that `{from}` and `{to}` share, and not among the `copyDisks` of its migration \
                 policy"
            ),
            "name it there, or put it on shared storage",
        );
        return Disk::Refused;
    }
    let backing = match &state.backing {
        // libvirt makes one image of what it copies live; a file that is copied as it is keeps the image below it, by path.
        Some(path) if mv.policy.copy_storage == CopyStorage::Incremental || !mv.is_live() => {
            match backing(path, mv.source, mv.destination) {
                Ok(backing) => Some(backing),
                Err(reason) => {
                    let (how, else_) = match mv.is_live() {
                        true => ("cannot be copied incrementally", "set `copyStorage: All`"),
                        false => {
                            ("cannot be copied while its machine is off", "move it while it runs (`copyStorage: All`)")
                        }
                    };
                    sheet.fail(
                        name,
                        format!("disk {} {how}: {reason}", disk.target),
                        format!(
                            "bring the backing image there first (a StoragePool with `shared: true`, or a copy at the same \
                             path), or {else_}"
                        ),
                    );
                    return Disk::Refused;
                }
            }
        }
        _ => None,
    };
    let copy = MigratedVolume {
        backing,
        target: disk.target.clone(),
        pool: pool.clone(),
        volume: volume.clone(),
        path: disk.path.clone(),
        to_pool: manifest.spec.libvirt_name(manifest.name()).to_owned(),
        capacity: state.capacity,
        format: state.format.clone(),
    };
    if !has_room(mv, &copy, state.allocation, taken, sheet) || !is_free(mv, &copy, sheet) {
        return Disk::Refused;
    }
    sheet.pass(name, format!("{what} is copied: {}, {}", mebibytes(state.capacity), copy.format));
    Disk::Copied(Box::new(copy))
}

/// An image below a disk on shared storage that the destination does not have, as far as pools tell.
fn missing_below(mv: &Move<'_>, path: &str) -> Option<String> {
    let backing = |path: &str| {
        mv.source.pools.values().flat_map(|p| p.volumes.values()).find(|v| v.path == path)?.backing.clone()
    };
    let mut next = backing(path);
    for _ in 0..CHAIN_MAX {
        let below = next?;
        if matches!(presence(mv, &below), Presence::Absent(_)) {
            return Some(below);
        }
        next = backing(&below);
    }
    None
}

/// Whether the disk is copied, as far as room goes: a policy may try it all the same.
fn has_room(
    mv: &Move<'_>,
    copy: &MigratedVolume,
    needed: u64,
    taken: &mut BTreeMap<String, u64>,
    sheet: &mut Sheet<'_>,
) -> bool {
    let name = Precheck::StorageRoom;
    let (pool, to) = (&copy.to_pool, mv.to);
    let before = taken.entry(pool.clone()).or_default();
    let Some(there) = mv.destination.pools.get(pool).filter(|p| p.active) else {
        sheet.unknown(name, format!("pool `{pool}` is not started on `{to}` yet: how much is free there is not known"));
        return true;
    };
    let others =
        if *before > 0 { format!(", {} of it for disks before it", mebibytes(*before)) } else { String::new() };
    let figures = format!(
        "pool `{pool}` on `{to}` has {} free{others}, disk {} takes {}",
        mebibytes(there.available),
        copy.target,
        mebibytes(needed)
    );
    let fits = needed <= there.available.saturating_sub(*before);
    *before = before.saturating_add(needed);
    if fits {
        sheet.pass(name, figures);
        return true;
    }
    sheet.fail(name, figures, "make room there, or choose another host");
    !sheet.blocks(name)
}

/// Whether nothing lies where the disk is to be copied. Nothing is ever overwritten.
fn is_free(mv: &Move<'_>, copy: &MigratedVolume, sheet: &mut Sheet<'_>) -> bool {
    let name = Precheck::CopyTarget;
    let (pool, volume) = (&copy.to_pool, &copy.volume);
    let Some(there) = mv.destination.pools.get(pool).filter(|p| p.active) else {
        sheet.unknown(name, format!("pool `{pool}` is not started on `{}` yet: what lies in it is not known", mv.to));
        return true;
    };
    // The machine's definition goes along as it is, and with it the disk's path.
    let target = |pool: Option<&PoolState>| pool.and_then(|p| p.target.clone());
    let (here, elsewhere) = (target(mv.source.pools.get(&copy.pool)), target(Some(there)));
    if let (Some(here), Some(elsewhere)) = (here, elsewhere)
        && here.trim_end_matches('/') != elsewhere.trim_end_matches('/')
    {
        sheet.fail(
            name,
            format!(
                "pool `{}` is at {here} on `{}` and pool `{pool}` at {elsewhere} on `{}`, so disk {} would not be where the \
                 machine's definition says",
                copy.pool, mv.from, mv.to, copy.target
            ),
            "give the pool the same target path on both hosts",
        );
        return false;
    }
    match there.volumes.get(volume) {
        None => sheet.pass(name, format!("pool `{pool}` on `{}` has no volume `{volume}`", mv.to)),
        Some(_) if there.volumes.contains_key(&format!("{volume}{HALF_COPY}")) => {
            sheet.pass(
                name,
                format!(
                    "volume `{volume}` of pool `{pool}` on `{}` is half a copy of an earlier attempt, and is made anew",
                    mv.to
                ),
            );
        }
        Some(found) => {
            sheet.fail(
                name,
                format!(
                    "a volume `{volume}` of {} is already in pool `{pool}` on `{}`; the disk has {}",
                    mebibytes(found.capacity),
                    mv.to,
                    mebibytes(copy.capacity)
                ),
                "look at what it is, and remove or rename it; nothing is overwritten",
            );
            return false;
        }
    }
    true
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
