//! The networks, bridges and devices that a machine's interfaces are on.

use super::{Move, Sheet, devices};
use crate::domain_xml::{self, Element};
use crate::plan::Precheck;
use std::collections::BTreeSet;

/// Label of a Host that names the network segment that its bridges are on; `drover/segment.br0` for one bridge or network.
const SEGMENT: &str = "drover/segment";

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    for network in domain_xml::networks(mv.running_xml()) {
        libvirt_network(mv, &network, sheet);
    }
    sheet.otherwise(Precheck::Networks, "it is on no libvirt network");
    let links: BTreeSet<(&str, String)> = devices(xml).filter(|d| d.name == "interface").filter_map(link).collect();
    for (kind, device) in links {
        host_device(mv, kind, &device, sheet);
    }
    sheet.otherwise(Precheck::Bridges, "it is on no bridge or device of its host by name");
    macs(mv, xml, sheet);
}

/// The bridge or device of the host that an interface names itself.
fn link(interface: &Element) -> Option<(&'static str, String)> {
    match interface.attribute("type")? {
        "bridge" => Some(("bridge", interface.attribute_at("source", "bridge")?.to_owned())),
        "direct" => Some(("device", interface.attribute_at("source", "dev")?.to_owned())),
        _ => None,
    }
}

fn libvirt_network(mv: &Move<'_>, network: &str, sheet: &mut Sheet<'_>) {
    match mv.destination.networks.get(network) {
        Some(true) => sheet.pass(Precheck::Networks, format!("network `{network}` is started on `{}`", mv.to)),
        Some(false) => {
            return sheet.fail(
                Precheck::Networks,
                format!("network `{network}` on `{}` is not started", mv.to),
                "start it (`virsh net-start`)",
            );
        }
        None => {
            let has: Vec<&str> = mv.destination.networks.keys().map(String::as_str).collect();
            return sheet.fail(
                Precheck::Networks,
                format!("`{}` has no network `{network}`; it has {}", mv.to, some(&has)),
                "define it there, or choose another host",
            );
        }
    }
    let (Some(here), Some(there)) = (mv.source.network_states.get(network), mv.destination.network_states.get(network))
    else {
        return sheet.unknown(Precheck::Segment, format!("what network `{network}` is was not read on both hosts"));
    };
    if here.forward != there.forward {
        return sheet.fail(
            Precheck::Segment,
            format!(
                "network `{network}` is `{}` on `{}` and `{}` on `{}`",
                here.forward, mv.from, there.forward, mv.to
            ),
            "make it the same on both hosts, or choose another host",
        );
    }
    match (here.mtu, there.mtu) {
        (Some(a), Some(b)) if a != b => sheet.fail(
            Precheck::Mtu,
            format!("network `{network}` has an MTU of {a} on `{}` and {b} on `{}`", mv.from, mv.to),
            "give both one MTU",
        ),
        (Some(a), Some(_)) => sheet.pass(Precheck::Mtu, format!("network `{network}` has an MTU of {a} on both hosts")),
        _ => {}
    }
    match here.forward.as_str() {
        "nat" | "route" | "isolated" if mv.is_live() => sheet.doubt(
            Precheck::Segment,
            format!(
                "network `{network}` is `{}`: each host has its own, and connections of the machine break",
                here.forward
            ),
            "put the interface on a bridge that both hosts have, if they must last",
        ),
        "nat" | "route" | "isolated" => {
            sheet.pass(
                Precheck::Segment,
                format!("network `{network}` is `{}`, each host's own; the machine is off", here.forward),
            );
        }
        _ => segment(mv, network, sheet),
    }
}

fn host_device(mv: &Move<'_>, kind: &str, device: &str, sheet: &mut Sheet<'_>) {
    let Some(there) = &mv.destination.interfaces else {
        // A libvirt network over the same bridge says that it is there.
        let network = mv.destination.network_states.iter().find(|(_, n)| n.bridge.as_deref() == Some(device));
        match network {
            Some((name, _)) if mv.destination.networks.get(name) == Some(&true) => {
                sheet.pass(Precheck::Bridges, format!("`{device}` is the bridge of network `{name}` on `{}`", mv.to));
            }
            _ => sheet.unknown(
                Precheck::Bridges,
                format!(
                    "whether `{}` has the {kind} `{device}` is not told: its libvirt has no interface driver",
                    mv.to
                ),
            ),
        }
        return segment(mv, device, sheet);
    };
    let Some(found) = there.get(device) else {
        let has: Vec<&str> =
            there.iter().filter(|(_, i)| i.r#type == kind || kind == "device").map(|(n, _)| n.as_str()).collect();
        return sheet.fail(
            Precheck::Bridges,
            format!("`{}` has no {kind} `{device}`; it has {}", mv.to, some(&has)),
            "make it there, or choose another host",
        );
    };
    sheet.pass(Precheck::Bridges, format!("`{}` has the {kind} `{device}`", mv.to));
    let here = mv.source.interfaces.as_ref().and_then(|i| i.get(device)).and_then(|i| i.mtu);
    match (here, found.mtu) {
        (Some(a), Some(b)) if a != b => sheet.fail(
            Precheck::Mtu,
            format!("`{device}` has an MTU of {a} on `{}` and {b} on `{}`", mv.from, mv.to),
            "give both one MTU",
        ),
        (Some(a), Some(_)) => sheet.pass(Precheck::Mtu, format!("`{device}` has an MTU of {a} on both hosts")),
        _ => sheet.unknown(Precheck::Mtu, format!("the MTU of `{device}` was not read on both hosts")),
    }
    segment(mv, device, sheet);
}

/// Whether a name means the same network on both hosts: nobody can read that, and the Hosts' labels can say it.
fn segment(mv: &Move<'_>, name: &str, sheet: &mut Sheet<'_>) {
    let of = |host: &str| {
        let labels = &mv.ctx.resources.hosts.get(host)?.metadata.labels;
        labels.get(&format!("{SEGMENT}.{name}")).or_else(|| labels.get(SEGMENT)).cloned()
    };
    match (of(mv.from), of(mv.to)) {
        (Some(a), Some(b)) if a == b => {
            sheet.pass(Precheck::Segment, format!("`{name}` is on the segment `{a}` on both hosts, by their labels"));
        }
        (Some(a), Some(b)) => sheet.fail(
            Precheck::Segment,
            format!("`{name}` is on the segment `{a}` on `{}` and on `{b}` on `{}`, by their labels", mv.from, mv.to),
            format!("choose a host of the same segment, or correct the label `{SEGMENT}.{name}` of the Hosts"),
        ),
        _ => sheet.unknown(
            Precheck::Segment,
            format!("whether `{name}` is one network on both hosts cannot be read; the label `{SEGMENT}.{name}` of the Hosts can say it"),
        ),
    }
}

fn macs(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::Mac;
    let macs: BTreeSet<String> = devices(xml)
        .filter(|d| d.name == "interface")
        .filter_map(|d| Some(d.attribute_at("mac", "address")?.to_lowercase()))
        .collect();
    for other in mv.destination.domains.iter().filter(|d| d.uuid != mv.domain.uuid) {
        let definitions = || [&other.live_xml, &other.persistent_xml].into_iter().flatten();
        // libvirt prints MAC addresses in lower case, with either quote.
        let has = |mac: &&String| definitions().any(|x| x.contains(&format!("address='{mac}'")));
        if let Some(mac) = macs.iter().find(has) {
            sheet.fail(
                name,
                format!("`{}` on `{}` has the MAC address {mac} as well", other.name, mv.to),
                "change one of them, or say `prechecks: {mac: Warn}` where they are on different segments",
            );
        }
    }
    sheet.otherwise(name, format!("nobody on `{}` has its {} MAC addresses", mv.to, macs.len()));
}

/// A few names out of many.
fn some(names: &[&str]) -> String {
    const NAMED: usize = 6;
    match names.len() {
        0 => "none".into(),
        n if n > NAMED => format!("{} and {} more", names[..NAMED].join(", "), n - NAMED),
        _ => names.join(", "),
    }
}
