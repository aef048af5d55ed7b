//! Other files of the host that a machine names: media, kernels, logs, sockets. Only what lies in a storage pool can be
//! read over libvirt.

use super::{Move, Sheet, devices};
use crate::domain_xml::{self, Element, LocalDisk};
use crate::kind::migration_policy::CopyStorage;
use crate::plan::Precheck;

/// What is known of a path at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is on storage that both hosts share.
    Shared,
    /// A pool there lists it.
    There,
    /// It would be in this pool, and is not.
    Absent(String),
    /// It is in no pool.
    Unknown,
}

/// What is known of a path at the destination.
pub(super) fn presence(mv: &Move<'_>, path: &str) -> Presence {
    let is_shared = mv.ctx.resources.storage_pools.values().any(|p| {
        let on = |h: &str| p.spec.hosts.iter().any(|x| x == h);
        let is_in = p.spec.target.as_ref().is_some_and(|t| path.starts_with(&format!("{}/", t.trim_end_matches('/'))));
        p.spec.shared && on(mv.from) && on(mv.to) && is_in
    });
    if is_shared {
        return Presence::Shared;
    }
    let pools = mv.destination.pools.iter().filter(|(_, p)| p.active);
    if pools.clone().any(|(_, p)| p.volumes.values().any(|v| v.path == path)) {
        return Presence::There;
    }
    let folder = path.rsplit_once('/').map(|(folder, _)| folder);
    let mut own = pools.filter(|(_, p)| p.target.as_deref().map(|t| t.trim_end_matches('/')) == folder);
    own.next().map_or(Presence::Unknown, |(name, _)| Presence::Absent(name.clone()))
}

/// Whether a disk is a medium in a drive that goes along by being there already, and not by being copied.
pub(super) fn is_medium(mv: &Move<'_>, disk: &LocalDisk) -> bool {
    matches!(disk.device.as_str(), "cdrom" | "floppy") && (mv.is_live() || mv.policy.copy_storage == CopyStorage::None)
}

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    for disk in domain_xml::local_disks(mv.lasting_xml()).iter().filter(|d| is_medium(mv, d)) {
        medium(mv, disk, sheet);
    }
    for (what, path) in named(xml) {
        let name = Precheck::HostPaths;
        match presence(mv, &path) {
            Presence::Shared => sheet.pass(name, format!("its {what} {path} is on shared storage")),
            Presence::There => sheet.pass(name, format!("its {what} {path} is on `{}`", mv.to)),
            Presence::Absent(pool) => sheet.fail(
                name,
                format!("its {what} {path} is not in pool `{pool}` of `{}`", mv.to),
                "put it there under the same path, or take it out of the definition",
            ),
            Presence::Unknown => sheet.unknown(
                name,
                format!("whether `{}` has its {what} {path} cannot be read: it is in no storage pool", mv.to),
            ),
        }
    }
    sheet.otherwise(Precheck::HostPaths, "it names no other file of its host");
}

fn medium(mv: &Move<'_>, disk: &LocalDisk, sheet: &mut Sheet<'_>) {
    let name = Precheck::HostPaths;
    let what = format!("the medium {} in {}", disk.path, disk.target);
    let hint = "eject it, or put the image there under the same path";
    match presence(mv, &disk.path) {
        Presence::Shared => sheet.pass(name, format!("{what} is on shared storage")),
        Presence::There => sheet.pass(name, format!("{what} is on `{}`", mv.to)),
        // libvirt drops such a medium, and the drive is empty at the destination.
        Presence::Absent(pool) if matches!(disk.startup_policy.as_deref(), Some("optional" | "requisite")) => sheet
            .doubt(name, format!("{what} is not in pool `{pool}` of `{}`: the drive will be empty there", mv.to), hint),
        Presence::Absent(pool) => sheet.fail(name, format!("{what} is not in pool `{pool}` of `{}`", mv.to), hint),
        // A live migration looks before it begins. Nobody looks for a machine that is off.
        Presence::Unknown if mv.is_live() => {
            sheet.unknown(name, format!("whether `{}` has {what} cannot be read: it is in no storage pool", mv.to));
        }
        Presence::Unknown => sheet.fail(
            name,
            format!("whether `{}` has {what} cannot be read, and without it the machine does not start", mv.to),
            hint,
        ),
    }
}

/// Files that a definition names and libvirt does not make by itself: what they are, and their paths.
fn named(xml: &Element) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in ["kernel", "initrd", "dtb", "shim"] {
        found.extend(xml.text_at(&format!("os/{part}")).map(|path| (part.to_owned(), path)));
    }
    found.extend(xml.text_at("os/acpi/table").map(|path| ("ACPI table".to_owned(), path)));
    for device in devices(xml) {
        let kind = device.attribute("type").unwrap_or_default();
        match device.name.as_str() {
            "serial" | "parallel" | "console" | "channel" if matches!(kind, "file" | "pipe" | "dev" | "unix") => {
                let path = device.attribute_at("source", "path").map(str::to_owned);
                // A console repeats the first serial line.
                found.extend(path.map(|p| {
                    (format!("{} {kind}", if device.name == "console" { "serial" } else { &device.name }), p)
                }));
            }
            "memory" => {
                let path = device.text_at("source/path");
                found.extend(path.map(|p| ("memory module".to_owned(), p)));
            }
            _ => {}
        }
        found.extend(device.attribute_at("log", "file").map(|p| ("log".to_owned(), p.to_owned())));
    }
    // libvirt and QEMU make these where they start a machine.
    found.retain(|(_, path)| {
        path.starts_with('/')
            && !["/var/lib/libvirt/qemu/", "/run/libvirt/", "/var/run/libvirt/"].iter().any(|p| path.starts_with(p))
    });
    found.sort();
    found.dedup();
    found
}
