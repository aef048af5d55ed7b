//! What must be unique among all machines. One pass over everything: tens of thousands of machines are checked at once.

use super::super::{Disk, DiskDevice, VirtualMachineSpec, identity, storage};
use super::place::hosts_of;
use crate::finding::{Code, Finding};
use crate::kind::Resources;
use crate::kind::storage_pool::PoolType;
use crate::model::Manifest;
use std::collections::HashMap;
use std::hash::Hash;
use uuid::Uuid;

type Machine = Manifest<VirtualMachineSpec>;

pub(super) fn check(all: &Resources, findings: &mut Vec<Finding>) {
    let mut uuids = HashMap::new();
    let mut domains = HashMap::new();
    let mut macs = HashMap::new();
    let mut former = HashMap::new();
    for m in all.virtual_machines.values() {
        unique(findings, &mut uuids, m.spec.uuid, m, "spec.uuid", "UUID");
        let domain = m.spec.domain_name.as_deref().unwrap_or(m.name());
        unique(findings, &mut domains, Some(domain), m, "spec.domainName", "libvirt name");
        for (i, interface) in m.spec.interfaces.iter().flatten().enumerate() {
            unique(
                findings,
                &mut macs,
                interface.mac.as_deref(),
                m,
                &format!("spec.interfaces[{i}].mac"),
                "MAC address",
            );
        }
        for (i, name) in m.spec.former_names.iter().enumerate().filter(|(_, n)| *n != m.name()) {
            let path = format!("spec.formerNames[{i}]");
            if let Some(other) = all.virtual_machines.get(name) {
                findings.push(
                    Finding::new(
                        Code::Conflict,
                        format!("`{name}` is a machine of its own, so it is no former name of `{}`", m.name()),
                    )
                    .of(m, &path)
                    .see(other.origin.source_of("metadata.name"))
                    .hint("take the former name out, or remove the other manifest"),
                );
            }
            unique(findings, &mut former, Some(name.as_str()), m, &path, "former name");
        }
    }
    given(all, &uuids, findings);
    disks(all, findings);
}

/// A stated UUID that is the one another machine is given.
fn given(all: &Resources, stated: &HashMap<Uuid, (&Machine, String)>, findings: &mut Vec<Finding>) {
    if stated.is_empty() {
        return;
    }
    for m in all.virtual_machines.values().filter(|m| m.spec.uuid.is_none()) {
        let Some((other, path)) = stated.get(&identity::uuid(m)) else { continue };
        findings.push(
            Finding::new(Code::Conflict, format!("the UUID is the one that `{}` is given by its name", m.name()))
                .of(other, path)
                .see(m.origin.source_of("metadata.name"))
                .hint("give each its own"),
        );
    }
}

/// Reports a value that another machine has.
fn unique<'a, K: Hash + Eq + std::fmt::Display>(
    findings: &mut Vec<Finding>,
    seen: &mut HashMap<K, (&'a Machine, String)>,
    value: Option<K>,
    m: &'a Machine,
    path: &str,
    what: &str,
) {
    let Some(value) = value else { return };
    let Some((first, first_path)) = seen.get(&value) else {
        seen.insert(value, (m, path.to_owned()));
        return;
    };
    // Twice in one machine is said where the former names are checked by themselves.
    if std::ptr::eq(*first, m) && what == "former name" {
        return;
    }
    let whose = if std::ptr::eq(*first, m) { "this machine" } else { first.name() };
    findings.push(
        Finding::new(Code::Conflict, format!("the {what} `{value}` is taken by `{whose}` already"))
            .of(m, path)
            .see(first.origin.source_of(first_path))
            .hint("give each its own"),
    );
}

/// Storage as it can be told from the manifests alone.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Storage<'a> {
    /// A path on a host.
    Path(String),
    /// A volume of a pool whose path is not known.
    Volume(&'a str, String),
}

/// Where it is: on every host of its pool at once, or on one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Where<'a> {
    Shared,
    On(&'a str),
}

/// Who uses it.
#[derive(Clone, Copy)]
struct Use<'a> {
    machine: &'a Machine,
    disk: usize,
    /// Other machines may use it at the same time.
    together: bool,
}

/// Two machines that write to one disk destroy what is on it.
fn disks(all: &Resources, findings: &mut Vec<Finding>) {
    let mut users: HashMap<(Where<'_>, Storage<'_>), Use<'_>> = HashMap::new();
    // Backing images are read by every overlay, and must not be written to by anybody.
    let mut backing: HashMap<(Where<'_>, Storage<'_>), Use<'_>> = HashMap::new();
    for m in all.virtual_machines.values() {
        let hosts: Vec<&str> = match (&m.spec.host, &m.spec.placement) {
            (Some(host), _) => vec![host],
            (None, Some(placement)) => hosts_of(placement, all).map(|h| h.name()).collect(),
            (None, None) => Vec::new(),
        };
        for (i, disk) in m.spec.disks.iter().flatten().enumerate() {
            let read_only = disk.read_only == Some(true) || disk.device == DiskDevice::Cdrom;
            let user = Use { machine: m, disk: i, together: read_only || disk.shareable == Some(true) };
            if let Some((storage, shared)) = place_of(m, disk, None, all) {
                let mut said = false;
                for place in places(shared, &hosts) {
                    let Some(first) = users.get_mut(&(place, storage.clone())) else {
                        users.insert((place, storage.clone()), user);
                        continue;
                    };
                    if first.together && user.together {
                        continue;
                    }
                    if !said {
                        said = true;
                        findings.push(both_use(user, *first));
                    }
                    // Whoever comes next is compared with the one that wants it alone.
                    if first.together {
                        *first = user;
                    }
                }
            }
            if let Some((storage, shared)) =
                disk.backing_image.as_ref().and_then(|image| place_of(m, disk, Some(image), all))
            {
                for place in places(shared, &hosts) {
                    backing.entry((place, storage.clone())).or_insert(user);
                }
            }
        }
    }
    let mut overlaid: Vec<(Use<'_>, Use<'_>)> = backing
        .into_iter()
        .filter_map(|(place, overlay)| Some((*users.get(&place).filter(|u| !u.together)?, overlay)))
        .collect();
    overlaid.sort_by_key(|(writer, _)| (writer.machine.name(), writer.disk));
    overlaid.dedup_by_key(|(writer, _)| (writer.machine.name(), writer.disk));
    for (writer, overlay) in overlaid {
        findings.push(
            Finding::new(
                Code::Conflict,
                format!(
                    "the disk is the backing image of a disk of `{}`: writing to it destroys that",
                    overlay.machine.name()
                ),
            )
            .of(writer.machine, &format!("spec.disks[{}]", writer.disk))
            .see(overlay.machine.origin.source_of(&format!("spec.disks[{}].backingImage", overlay.disk)))
            .hint("make the disk `readOnly`, or give the machine an overlay of its own"),
        );
    }
}

fn both_use(user: Use<'_>, first: Use<'_>) -> Finding {
    let whose = if std::ptr::eq(user.machine, first.machine) {
        format!("the disk `{}` of this machine", disk_name(first))
    } else {
        format!("the disk `{}` of `{}`", disk_name(first), first.machine.name())
    };
    Finding::new(Code::Conflict, format!("{whose} is the same storage"))
        .of(user.machine, &format!("spec.disks[{}]", user.disk))
        .see(first.machine.origin.source_of(&format!("spec.disks[{}]", first.disk)))
        .hint("give each machine its own, or say `shareable` or `readOnly` on both")
}

fn disk_name<'a>(user: Use<'a>) -> &'a str {
    user.machine.spec.disks.as_deref().and_then(|d| d.get(user.disk)).map_or("", |d| d.name.as_str())
}

fn places<'a>(shared: bool, hosts: &[&'a str]) -> Vec<Where<'a>> {
    if shared { vec![Where::Shared] } else { hosts.iter().map(|h| Where::On(h)).collect() }
}

/// What a disk (or `image` in its pool) is stored as, and whether that is the same on several hosts.
fn place_of<'a>(m: &Machine, disk: &'a Disk, image: Option<&str>, all: &Resources) -> Option<(Storage<'a>, bool)> {
    let Some(pool_name) = &disk.pool else {
        let path = disk.file.as_ref().or(disk.block.as_ref())?;
        return image.is_none().then(|| (Storage::Path(path.clone()), false));
    };
    let pool = all.storage_pools.get(pool_name)?;
    let volume = image.map_or_else(|| storage::volume_name(m, disk, Some(&pool.spec)), str::to_owned);
    let storage = match (&pool.spec.target, pool.spec.r#type) {
        (Some(target), PoolType::Dir | PoolType::Fs | PoolType::Netfs) if !pool.spec.shared => {
            Storage::Path(format!("{}/{volume}", target.trim_end_matches('/')))
        }
        _ => Storage::Volume(pool_name, volume),
    };
    Some((storage, pool.spec.shared))
}
