//! Storage that both hosts have: the pools of a machine's disks, whether what is called shared is the same, and whether it
//! is used in a way that a migration stands.

use super::hypervisor::numbers;
use super::shared::by_markers;
use super::{Move, Sheet, devices, mebibytes};
use crate::domain_xml::{self, Element};
use crate::kind::Resources;
use crate::kind::storage_pool::{Sharing, StoragePoolSpec, compare_by_hand};
use crate::kind::virtual_machine::{VirtualMachineSpec, VolumeWish, volumes};
use crate::model::Manifest;
use crate::observed::{HostState, PoolState};
use crate::plan::Precheck;
use std::collections::BTreeMap;

/// The first QEMU that drops what it has cached of an image when a migration ends (`drop-cache`).
const DROPS_CACHE: [u32; 2] = [3, 0];

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    pools(mv, sheet);
    let mut used: BTreeMap<&str, &Manifest<StoragePoolSpec>> = BTreeMap::new();
    for disk in domain_xml::local_disks(mv.lasting_xml()) {
        if let Some(pool) = shared_pool(mv, &disk.path) {
            used.insert(pool.name(), pool);
        }
    }
    for pool in used.values() {
        same(mv, pool, sheet);
        locks(mv, pool, sheet);
    }
    caches(mv, xml, sheet);
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

/// The pool that a path is in and that both hosts share, by the manifests' word.
pub(super) fn shared_pool<'a>(mv: &Move<'a>, path: &str) -> Option<&'a Manifest<StoragePoolSpec>> {
    pool_of(mv, path).filter(|p| p.spec.shared)
}

/// The pool that a path is in, of those that the manifests give to both hosts.
pub(super) fn pool_of<'a>(mv: &Move<'a>, path: &str) -> Option<&'a Manifest<StoragePoolSpec>> {
    let holds = |state: &PoolState| state.volumes.values().any(|v| v.path == path);
    let found = mv.source.pools.iter().find(|(_, p)| holds(p)).map(|(name, _)| name.as_str());
    mv.ctx.resources.storage_pools.values().find(|p| {
        let on = |h: &str| p.spec.hosts.iter().any(|x| x == h);
        let is_in = p.spec.target.as_ref().is_some_and(|t| path.starts_with(&format!("{t}/")));
        (found == Some(p.spec.libvirt_name(p.name())) || is_in) && on(mv.from) && on(mv.to)
    })
}

/// Whether what the manifests call shared is the same on both hosts. Names prove nothing: what counts is where each host
/// says that its pool comes from.
fn same(mv: &Move<'_>, pool: &Manifest<StoragePoolSpec>, sheet: &mut Sheet<'_>) {
    let name = Precheck::SharedStorage;
    let libvirt_name = pool.spec.libvirt_name(pool.name());
    let of = |state: &HostState| state.pools.get(libvirt_name).filter(|p| p.active).cloned();
    let (Some(here), Some(there)) = (of(mv.source), of(mv.destination)) else {
        return sheet.unknown(
            name,
            format!("pool `{libvirt_name}` is not started on both hosts yet: whether it is one storage was not read"),
        );
    };
    let (Some(a), Some(b)) = (origin(&here), origin(&there)) else {
        return sheet.unknown(name, format!("the definition of pool `{libvirt_name}` could not be read"));
    };
    let hint = "make both pools come from the same server and folder, or take `shared: true` away";
    // A marker that both see proves more than any definition; only the path has to be the same as well.
    let proof = by_markers(mv, pool);
    if proof == Sharing::Different {
        let what = match here.markers.is_empty() {
            true => "volumes (LVM's or SCSI's own numbers)",
            false => "a marker",
        };
        let why = format!(
            "pool `{libvirt_name}` is not one storage: `{}` and `{}` each see {what} that the other does not",
            mv.from, mv.to
        );
        return sheet.fail(name, why, hint);
    }
    let differs: Vec<String> = a
        .iter()
        .filter(|(part, _)| proof != Sharing::Same || **part == "target")
        .filter_map(|(part, value)| {
            let other = b.get(part)?;
            (value != other).then(|| format!("{part} `{value}` on `{}`, `{other}` on `{}`", mv.from, mv.to))
        })
        .collect();
    if !differs.is_empty() {
        return sheet.fail(name, format!("pool `{libvirt_name}` is not one storage: {}", differs.join("; ")), hint);
    }
    if proof == Sharing::Same {
        let what = match here.markers.is_empty() {
            true => "list volumes with the same numbers of LVM's or SCSI's own",
            false => "see the same marker",
        };
        return sheet.pass(name, format!("pool `{libvirt_name}` is one storage: both hosts {what} in it"));
    }
    if here.capacity != there.capacity {
        return sheet.fail(
            name,
            format!(
                "pool `{libvirt_name}` is not one storage: it holds {} on `{}` and {} on `{}`",
                mebibytes(here.capacity),
                mv.from,
                mebibytes(there.capacity),
                mv.to
            ),
            hint,
        );
    }
    let kind = a.get("type").map_or("", String::as_str);
    if matches!(kind, "logical" | "disk" | "zfs" | "scsi" | "mpath") {
        return sheet.unknown(
            name,
            format!(
                "pool `{libvirt_name}` ({kind}) is shared by the manifest's word, and nothing that libvirt tells proves it: {}",
                compare_by_hand(pool)
            ),
        );
    }
    if matches!(kind, "dir" | "fs") {
        sheet.pass(
            name,
            format!(
                "pool `{libvirt_name}` ({kind}) is shared by the manifest's word; both hosts see {}",
                mebibytes(here.capacity)
            ),
        );
    } else {
        let parts: Vec<&str> = ["server", "source"].iter().filter_map(|p| a.get(*p)).map(String::as_str).collect();
        sheet.pass(name, format!("pool `{libvirt_name}` ({kind}) comes from {} on both hosts", parts.join(":")));
    }
}

/// Where a pool comes from, by its definition.
fn origin(pool: &PoolState) -> Option<BTreeMap<&'static str, String>> {
    let root = domain_xml::parse(&pool.xml).ok()?;
    let mut parts = BTreeMap::new();
    parts.insert("type", root.attribute("type")?.to_owned());
    parts.insert("target", root.text_at("target/path").unwrap_or_default());
    let source = root.get("source");
    let attribute =
        |path: &str, name: &str| source.and_then(|s| s.attribute_at(path, name)).unwrap_or_default().to_owned();
    parts.insert("server", attribute("host", "name").to_lowercase());
    // A trailing slash and the like mean nothing.
    let folder = attribute("dir", "path");
    let name = source.and_then(|s| s.text_at("name")).unwrap_or_default();
    let device = attribute("device", "path");
    let from: Vec<&str> =
        [folder.trim_end_matches('/'), &name, &device].into_iter().filter(|p| !p.is_empty()).collect();
    // A local file system's device has another name on each host.
    let is_local = matches!(parts.get("type").map(String::as_str), Some("fs" | "logical" | "disk" | "zfs"));
    parts.insert("source", if is_local { name.clone() } else { from.join(" ") });
    Some(parts)
}

/// File locks on NFS: what the pool's own definition tells. `nolock` and `local_lock` are of NFS 3 (nfs(5)); NFS 4 has its
/// locks built in. Without a version in the definition the client and the server agree on one, and libvirt does not tell
/// which.
fn locks(mv: &Move<'_>, pool: &Manifest<StoragePoolSpec>, sheet: &mut Sheet<'_>) {
    let name = Precheck::StorageLocks;
    let libvirt_name = pool.spec.libvirt_name(pool.name());
    for (host, state) in [(mv.from, mv.source), (mv.to, mv.destination)] {
        let Some(root) = state.pools.get(libvirt_name).and_then(|p| domain_xml::parse(&p.xml).ok()) else { continue };
        if root.attribute("type") != Some("netfs")
            || matches!(root.attribute_at("source/format", "type"), Some("cifs" | "glusterfs"))
        {
            continue;
        }
        let options: Vec<String> = root
            .elements()
            .filter(|e| e.name.ends_with("mount_opts"))
            .flat_map(Element::elements)
            .filter_map(|o| o.attribute("name").map(str::to_owned))
            .collect();
        let has = |option: &str| options.iter().any(|o| o == option);
        let stated = options.iter().find_map(|o| o.strip_prefix("vers=").or_else(|| o.strip_prefix("nfsvers=")));
        let version = stated.or(root.attribute_at("source/protocol", "ver")).unwrap_or_default();
        let is_without = has("nolock") || has("local_lock=all") || has("local_lock=posix");
        let (is_three, is_four) = (version.starts_with('3'), version.starts_with('4'));
        if is_four {
            sheet.fail(
                name,
                format!("pool `{libvirt_name}` on `{host}` is mounted by NFS {version}, whose locks cannot be switched off"),
                "mount it with `protocolVersion: \"3\"` and `nolock`, or say `prechecks: {storageLocks: Ignore}` if you know that it works",
            );
        } else if is_without && is_three {
            sheet.pass(name, format!("pool `{libvirt_name}` on `{host}` is mounted without NFS locks"));
        } else if is_without {
            sheet.unknown(
                name,
                format!(
                    "pool `{libvirt_name}` on `{host}` is to be mounted without NFS locks, which only NFS 3 heeds, and its version is not told by libvirt: write `protocolVersion: \"3\"`"
                ),
            );
        } else if has("lock") {
            sheet.fail(
                name,
                format!("pool `{libvirt_name}` on `{host}` is mounted with NFS locks"),
                "mount it with `nolock`, or say `prechecks: {storageLocks: Ignore}` if you know that it works",
            );
        } else {
            sheet.unknown(
                name,
                format!("whether pool `{libvirt_name}` on `{host}` is mounted with NFS locks is not told by libvirt"),
            );
        }
    }
}

/// Caches of the host over storage that another host writes to next.
fn caches(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::DiskCache;
    if !mv.is_live() {
        return sheet.pass(name, "it is off when it moves: nothing of its disks is cached by a running hypervisor");
    }
    let drops = numbers(&mv.source.hypervisor_version).is_some_and(|v| v.as_slice() >= DROPS_CACHE.as_slice());
    for disk in devices(xml).filter(|d| d.name == "disk" && d.get("readonly").is_none() && d.get("shareable").is_none())
    {
        let Some(path) = disk.get("source").and_then(|s| s.attribute("file").or_else(|| s.attribute("dev"))) else {
            continue;
        };
        if shared_pool(mv, path).is_none() {
            continue;
        }
        let target = disk.attribute_at("target", "dev").unwrap_or("?");
        match disk.attribute_at("driver", "cache").unwrap_or("default") {
            cache @ ("none" | "directsync") => sheet.pass(name, format!("disk {target} has `cache: {cache}`")),
            "default" if drops => {
                sheet.pass(
                    name,
                    format!("disk {target} has QEMU's own cache mode, which it drops at the end of a move"),
                );
            }
            cache => sheet.fail(
                name,
                format!("disk {target} has `cache: {cache}` on shared storage: the destination may read old data"),
                "set `cache: none` for the disk",
            ),
        }
    }
    sheet.otherwise(name, "it has no disk on shared storage that the host caches");
}
