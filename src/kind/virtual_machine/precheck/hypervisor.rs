//! What the destination is: another host than the source, of the same kind, with the machine type.

use super::{Move, Sheet};
use crate::domain_xml;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    identity(mv, sheet);
    driver(mv, sheet);
    machine_type(mv, sheet);
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

fn driver(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    let (here, there) = (&mv.source.driver, &mv.destination.driver);
    if here != there {
        sheet.fail(
            Precheck::Hypervisor,
            format!("`{}` runs {there}, `{}` runs {here}", mv.to, mv.from),
            "choose a host of the same kind",
        );
    } else {
        sheet.pass(Precheck::Hypervisor, format!("both run {there}"));
    }
}

fn machine_type(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    let there = mv.destination;
    let Some(machine) = domain_xml::machine_type(mv.running_xml()) else {
        return sheet.unknown(Precheck::MachineType, "the definition names no machine type");
    };
    if there.machine_types.is_empty() {
        sheet.unknown(Precheck::MachineType, format!("`{}` does not tell its machine types", mv.to));
    } else if there.machine_types.contains(&machine) || there.machine_aliases.contains_key(&machine) {
        sheet.pass(Precheck::MachineType, format!("`{}` knows {machine}", mv.to));
    } else {
        sheet.fail(
            Precheck::MachineType,
            format!(
                "`{}` does not know the machine type {machine}; it knows {} others",
                mv.to,
                there.machine_types.len()
            ),
            "update its hypervisor, or give the machine an older type and restart it",
        );
    }
}
