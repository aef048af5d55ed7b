//! What the destination is: another host than the source, of the same kind, not older, with the machine type.

use super::{Move, Sheet};
use crate::domain_xml::Element;
use crate::kind::migration_policy::{Control, MigrationPolicySpec, TimeoutAction};
use crate::observed::HostState;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    identity(mv, sheet);
    kind(mv, xml, sheet);
    versions(mv, sheet);
    machine_type(mv, xml, sheet);
}

fn identity(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    let (here, there) = (&mv.source.uuid, &mv.destination.uuid);
    if here.is_empty() || there.is_empty() {
        sheet.unknown(Precheck::HostIdentity, "libvirt does not tell the UUID of both hosts");
    } else if here == there {
        sheet.fail(
            Precheck::HostIdentity,
            format!("`{}` and `{}` are one host: both have the UUID {there}", mv.to, mv.from),
            "give each host a `host_uuid` of its own in libvirtd.conf, or declare it once",
        );
    } else {
        sheet.pass(Precheck::HostIdentity, format!("host UUIDs {here} and {there}"));
    }
}

/// Driver, architecture, domain type, emulator.
fn kind(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::Hypervisor;
    let there = mv.destination;
    if mv.source.driver != there.driver {
        return sheet.fail(
            name,
            format!("`{}` runs {}, `{}` runs {}", mv.to, there.driver, mv.from, mv.source.driver),
            "choose a host of the same kind",
        );
    }
    let arch = xml.attribute_at("os/type", "arch").unwrap_or(&mv.source.arch);
    if arch == mv.source.arch && !there.arch.is_empty() && arch != there.arch {
        sheet.fail(
            name,
            format!("it is a machine for {arch}, and `{}` is {}", mv.to, there.arch),
            "choose a host of that architecture",
        );
    }
    let wanted = xml.attribute("type").unwrap_or_default();
    if !there.domain_types.is_empty() && !there.domain_types.iter().any(|t| t == wanted) {
        sheet.fail(
            name,
            format!("it is a `{wanted}` machine, and `{}` offers {}", mv.to, there.domain_types.join(", ")),
            "choose a host that offers it; KVM may be switched off in the firmware",
        );
    }
    // A program of somebody's own stands in no capabilities.
    if let Some(emulator) = xml.text_at("devices/emulator")
        && mv.source.emulators.contains(&emulator)
        && !there.emulators.is_empty()
        && !there.emulators.contains(&emulator)
    {
        sheet.fail(
            name,
            format!("its emulator is {emulator}, and `{}` has {}", mv.to, there.emulators.join(", ")),
            "give the machine an emulator that both hosts have, under the same path",
        );
    }
    sheet.otherwise(name, format!("both run {}, and `{}` takes `{wanted}` machines for {arch}", there.driver, mv.to));
}

fn versions(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    let mut parts = Vec::new();
    let mut older = Vec::new();
    for (what, here, there) in [
        ("libvirt", &mv.source.libvirt_version, &mv.destination.libvirt_version),
        ("hypervisor", &mv.source.hypervisor_version, &mv.destination.hypervisor_version),
    ] {
        let (Some(a), Some(b)) = (numbers(here), numbers(there)) else { continue };
        let shown = format!("{what} {here} to {there}");
        if b < a {
            older.push(shown);
        } else {
            parts.push(shown);
        }
    }
    let left_out = post_copy_needs_drover(mv.policy, mv.source, mv.destination);
    if mv.is_live() && !left_out && splits_connections(mv.policy, mv.source, mv.destination) {
        sheet.fail(
            Precheck::Versions,
            format!(
                "`parallelConnections` are left out, and one connection is used: `{}` has QEMU {}, `{}` has {}, and with \
                 `postCopy` they need 10.1 on both",
                mv.from, mv.source.hypervisor_version, mv.to, mv.destination.hypervisor_version
            ),
            "take `postCopy` (or `timeout.action: PostCopy`) out of the policy where the connections matter more",
        );
    }
    if mv.is_live() && left_out {
        sheet.fail(
            Precheck::Versions,
            format!(
                "post-copy is left out: with `control: Managed` Drover drives the move, and before libvirt 8.5 the machine's \
                 memory would go with Drover; `{}` has libvirt {}, `{}` has {}",
                mv.from, mv.source.libvirt_version, mv.to, mv.destination.libvirt_version
            ),
            "use `control: PeerToPeer`, or update libvirt on both hosts",
        );
    }
    if !older.is_empty() {
        sheet.fail(
            Precheck::Versions,
            format!("`{}` has an older release: {}", mv.to, older.join(", ")),
            "update the destination first, or try it with a machine that matters little",
        );
    } else if parts.is_empty() {
        sheet.unknown(Precheck::Versions, "the hosts do not tell their versions");
    } else {
        sheet.otherwise(Precheck::Versions, parts.join(", "));
    }
}

/// Whether a policy asks for parallel connections and post-copy at once on hosts whose QEMU has only one of both at a time:
/// "Postcopy is not yet compatible with multifd", until QEMU 10.1 (its changelog).
pub(crate) fn splits_connections(policy: &MigrationPolicySpec, here: &HostState, there: &HostState) -> bool {
    let is_asked = policy.parallel_connections.is_some()
        && (policy.post_copy.is_some() || policy.timeout.action == TimeoutAction::PostCopy);
    let is_old = |host: &HostState| numbers(&host.hypervisor_version).is_some_and(|v| v < vec![10, 1]);
    is_asked && (is_old(here) || is_old(there))
}

/// Whether a policy has Drover itself drive a move that may switch to post-copy, on a libvirt that does not keep the two
/// halves together when whoever drives it is gone: that came with the recovery of post-copy (libvirt 8.5).
pub(crate) fn post_copy_needs_drover(policy: &MigrationPolicySpec, here: &HostState, there: &HostState) -> bool {
    let is_asked = policy.control == Control::Managed
        && (policy.post_copy.is_some() || policy.timeout.action == TimeoutAction::PostCopy);
    let is_old = |host: &HostState| numbers(&host.libvirt_version).is_some_and(|v| v < vec![8, 5]);
    is_asked && (is_old(here) || is_old(there))
}

/// A version's numbers: `11.3.0`.
pub(super) fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|n| n.parse().ok()).collect()
}

fn machine_type(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let there = mv.destination;
    let Some(machine) = xml.attribute_at("os/type", "machine") else {
        return sheet.unknown(Precheck::MachineType, "the definition names no machine type");
    };
    if there.machine_types.is_empty() {
        sheet.unknown(Precheck::MachineType, format!("`{}` does not tell its machine types", mv.to));
    } else if there.machine_types.iter().any(|m| m == machine) || there.machine_aliases.contains_key(machine) {
        sheet.pass(Precheck::MachineType, format!("`{}` knows {machine}", mv.to));
    } else {
        let family: String = machine.chars().take_while(|c| !c.is_ascii_digit()).collect();
        let newest = there.machine_types.iter().filter(|m| m.starts_with(&family));
        let newest = newest.max_by_key(|m| m.get(family.len()..).and_then(numbers));
        sheet.fail(
            Precheck::MachineType,
            format!(
                "`{}` does not know the machine type {machine}; {}",
                mv.to,
                newest.map_or_else(
                    || format!("it knows {} others", there.machine_types.len()),
                    |n| format!("its newest of that family is {n}")
                )
            ),
            "update its hypervisor, or give the machine an older type and restart it",
        );
    }
}
