//! Devices whose state nobody can send: those of the host, and those that QEMU does not migrate (migration guide, 10.3).

use super::{Move, Sheet, devices};
use crate::domain_xml::Element;
use crate::observed::HostState;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    for device in immovable_devices(xml, mv.source) {
        if mv.is_live() {
            sheet.fail(
                Precheck::Devices,
                format!("it has a device of the host: {device}"),
                "detach it, or move the machine while it is off",
            );
        } else {
            sheet.doubt(
                Precheck::Devices,
                format!("it has a device of `{}`: {device}; `{}` must have the same for it to start", mv.from, mv.to),
                "detach it, or make sure that the destination has one under the same address",
            );
        }
    }
    sheet.otherwise(Precheck::Devices, "it has no device of its host");
}

/// Everything of a running machine that cannot be sent away from a host, in words.
pub(crate) fn immovable_devices(xml: &Element, source: &HostState) -> Vec<String> {
    devices(xml).filter_map(|d| immovable(d, source)).chain(encrypted(xml)).collect()
}

/// What about a device cannot be sent.
fn immovable(device: &Element, source: &HostState) -> Option<String> {
    let kind = device.attribute("type").unwrap_or_default();
    // The stand-by half of a pair is unplugged for the move, and plugged in again after it.
    if device.get("teaming").is_some_and(|t| t.attribute("type") == Some("transient")) {
        return None;
    }
    match device.name.as_str() {
        "hostdev" => Some(format!("hostdev ({}){}", if kind.is_empty() { "capability" } else { kind }, place(device))),
        "interface" => match kind {
            "hostdev" => Some(format!("interface (hostdev){}", place(device))),
            "vdpa" => Some("interface (vdpa)".into()),
            "vhostuser" => {
                Some(format!("interface (vhostuser, {})", device.attribute_at("source", "path").unwrap_or("no socket")))
            }
            "network" => {
                let network = device.attribute_at("source", "network")?;
                let pool = source.network_states.get(network).filter(|n| n.forward == "hostdev")?;
                Some(format!("interface (network `{network}` hands out host devices: forward mode {})", pool.forward))
            }
            _ => None,
        },
        "disk" => match kind {
            "nvme" => Some(format!("disk {} (nvme: a PCI device)", target(device))),
            "vhostuser" | "vhostvdpa" => Some(format!("disk {} ({kind})", target(device))),
            _ => None,
        },
        "filesystem" => match device.attribute_at("driver", "type") {
            Some("virtiofs") => {
                Some(format!("filesystem {} (virtiofs)", device.attribute_at("target", "dir").unwrap_or("?")))
            }
            _ if kind == "mount" || kind.is_empty() => {
                Some(format!("filesystem {} (9p)", device.attribute_at("target", "dir").unwrap_or("?")))
            }
            _ => None,
        },
        "shmem" => Some(format!("shmem {}", device.attribute("name").unwrap_or_default()).trim().to_owned()),
        "smartcard" => {
            let mode = device.attribute("mode").unwrap_or_default();
            mode.starts_with("host").then(|| format!("smartcard ({mode})"))
        }
        "video" => {
            let accelerated = device.get("model/acceleration").and_then(|a| a.attribute("accel3d")) == Some("yes");
            accelerated.then(|| "video (3D acceleration of the host)".into())
        }
        _ => None,
    }
}

/// Memory that is encrypted with a key of the host's CPU.
fn encrypted(xml: &Element) -> Option<String> {
    let kind = xml.get("launchSecurity")?.attribute("type").unwrap_or("?");
    Some(format!("launchSecurity ({kind}): memory that only this host's CPU can read"))
}

/// The address of a device on its host.
fn place(device: &Element) -> String {
    let Some(source) = device.get("source") else { return String::new() };
    let Some(address) = source.get("address") else {
        let part = |name: &str| source.attribute_at(name, "id").map(|id| format!("{name} {id}"));
        let parts: Vec<String> = ["vendor", "product"].into_iter().filter_map(part).collect();
        return if parts.is_empty() { String::new() } else { format!(" {}", parts.join(" ")) };
    };
    let part = |name: &str| address.attribute(name).map(|v| v.trim_start_matches("0x"));
    match (part("domain"), part("bus"), part("slot"), part("function"), part("uuid")) {
        (_, _, _, _, Some(uuid)) => format!(" {uuid}"),
        (domain, Some(bus), Some(slot), Some(function), _) => {
            format!(" {}:{bus}:{slot}.{function}", domain.unwrap_or("0000"))
        }
        (_, Some(bus), ..) => format!(" bus {bus} device {}", part("device").unwrap_or("?")),
        _ => String::new(),
    }
}

fn target(disk: &Element) -> &str {
    disk.attribute_at("target", "dev").unwrap_or("?")
}
