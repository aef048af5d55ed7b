//! What a machine has: disks, interfaces, and the small things.

use super::Say;
use crate::finding::Code;
use crate::kind::virtual_machine::{Disk, DiskBus, DiskDevice, DiskFormat, Serial};
use crate::model::check_name;
use std::collections::BTreeMap;

pub(super) fn check(say: &mut Say<'_>) {
    let spec = say.spec();
    let mut names = BTreeMap::new();
    let mut targets = BTreeMap::new();
    let mut boot = BTreeMap::new();
    for (i, disk) in spec.disks.iter().flatten().enumerate() {
        let path = format!("spec.disks[{i}]");
        disk_by_itself(say, disk, &path);
        unique(say, &mut names, Some(disk.name.as_str()).filter(|n| !n.is_empty()), &path, "name", "disk name");
        unique(say, &mut targets, disk.target.as_deref(), &path, "target", "target");
        unique(say, &mut boot, disk.boot_order, &path, "bootOrder", "place in the boot order");
    }
    for (i, interface) in spec.interfaces.iter().flatten().enumerate() {
        let path = format!("spec.interfaces[{i}]");
        let written: Vec<&str> = [
            interface.network.as_ref().map(|_| "network"),
            interface.bridge.as_ref().map(|_| "bridge"),
            interface.direct.as_ref().map(|_| "direct"),
        ]
        .into_iter()
        .flatten()
        .collect();
        match written.as_slice() {
            [_] => {}
            [] => say.at(
                Code::MissingField,
                &path,
                "the interface is not connected to anything",
                "write `network`, `bridge` or `direct`",
            ),
            [_, second, ..] => say.at(
                Code::Contradiction,
                &format!("{path}.{second}"),
                format!("the interface has {}", both(&written)),
                "keep one of them",
            ),
        }
        // The lowest bit of the first byte marks a group address, which libvirt refuses for a card.
        let group =
            interface.mac.as_deref().and_then(|m| u8::from_str_radix(m.get(..2)?, 16).ok()).is_some_and(|b| b & 1 == 1);
        if group {
            say.at(
                Code::WrongValue,
                &format!("{path}.mac"),
                "the MAC address is one of a group, not of a card",
                "the second digit has to be even; addresses that begin with `52:54:00:` are customary",
            );
        }
        unique(say, &mut boot, interface.boot_order, &path, "bootOrder", "place in the boot order");
    }
    small_things(say);
}

fn disk_by_itself(say: &mut Say<'_>, disk: &Disk, path: &str) {
    let at = |field: &str| format!("{path}.{field}");
    if disk.name.is_empty() {
        say.at(
            Code::MissingField,
            &at("name"),
            "the disk has no name",
            "add `name: root`; it follows the disk when the list is reordered",
        );
    } else if let Err(e) = check_name(&disk.name) {
        let hint = "use lower-case letters, digits, `-` and `.`";
        say.at(Code::BadName, &at("name"), format!("`{}` is not a name: {e}", disk.name.escape_debug()), hint);
    }
    let cdrom = disk.device == DiskDevice::Cdrom;
    let places: Vec<&str> =
        [disk.pool.as_ref().map(|_| "pool"), disk.file.as_ref().map(|_| "file"), disk.block.as_ref().map(|_| "block")]
            .into_iter()
            .flatten()
            .collect();
    match places.as_slice() {
        // A drive without a medium.
        [] if cdrom => {}
        [] => say.at(Code::MissingField, path, "the disk is nowhere", "write `pool`, `file` or `block`"),
        [_] => {}
        [_, second, ..] => {
            say.at(Code::Contradiction, &at(second), format!("the disk has {}", both(&places)), "keep one of them");
        }
    }
    for (field, value, inner) in
        [("volume", &disk.volume, false), ("image", &disk.image, true), ("backingImage", &disk.backing_image, true)]
    {
        let Some(value) = value else { continue };
        if disk.pool.is_none() {
            say.at(
                Code::Contradiction,
                &at(field),
                format!("`{field}` names a volume, but there is no `pool`"),
                "add `pool`, or take it out",
            );
        }
        if !is_volume(value, inner) {
            say.at(
                Code::WrongValue,
                &at(field),
                format!("`{}` is not the name of a volume in the pool", value.escape_debug()),
                "write its name as `virsh vol-list` shows it, without a path that leaves the pool",
            );
        }
    }
    if disk.image.is_some() && disk.backing_image.is_some() {
        say.at(
            Code::Contradiction,
            &at("backingImage"),
            "a volume is filled from an `image`, or an overlay of a `backingImage`, not both",
            "keep one of them",
        );
    }
    if disk.pool.is_some() && disk.volume.is_none() {
        if cdrom {
            say.at(
                Code::MissingField,
                &at("volume"),
                "a CD-ROM in a pool needs its `volume`",
                "name the ISO image, or take `pool` out for an empty drive",
            );
        } else if disk.size.is_none() && disk.image.is_none() && disk.backing_image.is_none() {
            say.at(
                Code::MissingField,
                &at("size"),
                "the volume would have to be made, but nothing says how large",
                "add `size` or `image`, or name an existing `volume`",
            );
        }
    }
    if disk.size.is_some_and(|s| s.0 == 0) {
        say.at(Code::WrongValue, &at("size"), "a disk of no size holds nothing", "write a size such as `20Gi`");
    }
    if disk.backing_image.is_some() && disk.format == Some(DiskFormat::Raw) {
        say.at(
            Code::Contradiction,
            &at("format"),
            "an overlay of a `backingImage` cannot be `raw`",
            "write `format: qcow2`",
        );
    }
    if disk.shareable == Some(true) && disk.read_only != Some(true) && disk.format == Some(DiskFormat::Qcow2) {
        // libvirt refuses it (qemuDomainValidateDef): qcow2 keeps metadata in memory.
        say.at(
            Code::Contradiction,
            &at("shareable"),
            "a disk that several machines write to has to be `raw`",
            "write `format: raw`",
        );
    }
    if cdrom && disk.bus == Some(DiskBus::Virtio) {
        say.at(Code::Contradiction, &at("bus"), "a CD-ROM cannot be on `virtio`", "write `sata` or `scsi`");
    }
    if cdrom && disk.read_only == Some(false) {
        say.at(
            Code::Contradiction,
            &at("readOnly"),
            "a CD-ROM cannot be written to",
            "take it out, or write `device: disk`",
        );
    }
}

/// Whether a text names a volume of a pool; `inner` ones may have folders in front.
fn is_volume(name: &str, inner: bool) -> bool {
    let part = |p: &str| !p.is_empty() && p != "." && p != ".." && !p.chars().any(|c| c.is_control() || c == '\\');
    if inner { name.split('/').all(part) } else { part(name) && !name.contains('/') }
}

fn small_things(say: &mut Say<'_>) {
    let spec = say.spec();
    for (i, serial) in spec.serials.iter().flatten().enumerate() {
        if let Serial::File { path } = serial {
            absolute(say, Some(path), &format!("spec.serials[{i}].path"), "/");
        }
    }
    absolute(say, spec.kernel.as_ref().and_then(|k| k.initrd.as_ref()), "spec.kernel.initrd", "/");
    absolute(say, spec.rng.as_ref().map(|r| &r.device), "spec.rng.device", "/dev/");
    if let Some(tpm) = &spec.tpm {
        one_of(say, &tpm.model, "spec.tpm.model", &["tpm-crb", "tpm-tis", "tpm-spapr"]);
        if let Some(version) = &tpm.version {
            one_of(say, version, "spec.tpm.version", &["2.0", "1.2"]);
        }
    }
}

fn absolute(say: &mut Say<'_>, value: Option<&String>, path: &str, prefix: &str) {
    if value.is_some_and(|v| !v.starts_with(prefix)) {
        say.at(
            Code::WrongValue,
            path,
            format!("the path does not begin with `{prefix}`"),
            "write a whole path on the host",
        );
    }
}

fn one_of(say: &mut Say<'_>, value: &str, path: &str, words: &[&str]) {
    if !words.contains(&value) {
        let list: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
        say.at(
            Code::WrongValue,
            path,
            format!("it cannot be `{}`", value.escape_debug()),
            &format!("write {}", list.join(" or ")),
        );
    }
}

/// Reports a value that another device of the machine has.
fn unique<K: Ord + std::fmt::Display>(
    say: &mut Say<'_>,
    seen: &mut BTreeMap<K, String>,
    value: Option<K>,
    path: &str,
    field: &str,
    what: &str,
) {
    let Some(value) = value else { return };
    let here = format!("{path}.{field}");
    if let Some(first) = seen.get(&value) {
        let finding =
            crate::finding::Finding::new(Code::Contradiction, format!("the {what} `{value}` is taken by `{first}`"))
                .of(say.manifest, &here)
                .see(say.manifest.origin.source_of(&format!("{first}.{field}")))
                .hint("give each its own");
        say.add(finding);
    } else {
        seen.insert(value, path.to_owned());
    }
}

/// `a` and `b`.
fn both(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" and ")
}
