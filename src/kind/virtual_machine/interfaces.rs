//! The network interfaces of a machine. They are known by MAC address: the stated one, else the one that Drover gives,
//! else by their order (a machine that was adopted keeps the addresses it has).

use super::sheet::{Sheet, Side, Subject, Way, text, word};
use super::{Direct, Interface, identity};
use crate::action::LiveChange;
use crate::domain_xml::{Edit, Element, Equivalence, Node, contains, literal};
use serde_json::{Value, json};

/// Compares the interfaces, where the manifest states them. The list is owned as a whole.
pub(super) fn compare(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) {
    let Some(wishes) = &subject.spec().interfaces else { return };
    let seen: Vec<&Element> = domain.get("devices").into_iter().flat_map(|d| d.all("interface")).collect();
    let (partners, extra) = pair(subject, wishes, &seen);
    for index in extra {
        if !is_in_baseline(subject, seen[index]) {
            remove(subject, seen[index], sheet);
        }
    }
    for (i, (wish, partner)) in wishes.iter().zip(&partners).enumerate() {
        match partner {
            Some(index) => change(subject, i, wish, seen[*index], sheet),
            None => add(subject, i, wish, sheet),
        }
    }
}

fn mac(interface: &Element) -> String {
    interface.attribute_at("mac", "address").unwrap_or_default().to_ascii_lowercase()
}

fn pair(subject: &Subject<'_>, wishes: &[Interface], seen: &[&Element]) -> (Vec<Option<usize>>, Vec<usize>) {
    let mut partners: Vec<Option<usize>> = vec![None; wishes.len()];
    let mut free = vec![true; seen.len()];
    let stated = |mac: &str| wishes.iter().any(|w| w.mac.as_deref().is_some_and(|m| m.eq_ignore_ascii_case(mac)));
    for pass in 0..3 {
        for (i, wish) in wishes.iter().enumerate() {
            if partners[i].is_some() {
                continue;
            }
            let own = identity::mac(subject.m, i);
            let found = (0..seen.len()).find(|s| {
                let mac = mac(seen[*s]);
                free[*s]
                    && match pass {
                        0 => wish.mac.as_deref().is_some_and(|m| m.eq_ignore_ascii_case(&mac)),
                        1 => wish.mac.is_none() && mac == own,
                        _ => wish.mac.is_none() && !stated(&mac) && !is_in_baseline(subject, seen[*s]),
                    }
            });
            if let Some(s) = found {
                free[s] = false;
                partners[i] = Some(s);
            }
        }
    }
    (partners, (0..seen.len()).filter(|s| free[*s]).collect())
}

fn is_in_baseline(subject: &Subject<'_>, interface: &Element) -> bool {
    subject.baseline.and_then(|b| b.get("devices")).is_some_and(|d| {
        d.all("interface").any(|wanted| contains(wanted, interface, Equivalence::default()).is_empty())
    })
}

/// What an interface is connected to, as the manifest writes it.
fn connection(interface: &Element) -> Value {
    let source = interface.get("source");
    let of = |name| source.and_then(|s| s.attribute(name));
    // A live interface on a network shows the bridge or device that the network led to; the network stays named.
    if let Some(network) = of("network") {
        return json!({"network": network});
    }
    match interface.attribute("type") {
        Some("bridge") => json!({"bridge": of("bridge")}),
        Some("direct") => json!({"direct": {"dev": of("dev"), "mode": of("mode").unwrap_or("vepa")}}),
        Some(other) => json!({"type": other}),
        None => Value::Null,
    }
}

fn wanted_connection(wish: &Interface) -> Option<Value> {
    if let Some(network) = &wish.network {
        return Some(json!({"network": network}));
    }
    if let Some(bridge) = &wish.bridge {
        return Some(json!({"bridge": bridge}));
    }
    wish.direct.as_ref().map(|Direct { dev, mode }| json!({"direct": {"dev": dev, "mode": word(mode)}}))
}

fn set_connection(interface: &mut Element, wish: &Interface) {
    let (kind, source) = if let Some(network) = &wish.network {
        ("network", Element::new("source").with("network", network))
    } else if let Some(bridge) = &wish.bridge {
        ("bridge", Element::new("source").with("bridge", bridge))
    } else if let Some(direct) = &wish.direct {
        ("direct", Element::new("source").with("dev", &direct.dev).with("mode", word(&direct.mode)))
    } else {
        return;
    };
    interface.set("type", kind);
    // What the old connection brought along.
    for child in ["source", "virtualport", "target", "portgroup", "actual"] {
        interface.remove(child);
    }
    interface.children.insert(0, Node::Element(source));
}

fn new_interface(subject: &Subject<'_>, index: usize, wish: &Interface) -> Element {
    let address = wish.mac.as_ref().map_or_else(|| identity::mac(subject.m, index), |m| m.to_ascii_lowercase());
    let mut interface = Element::new("interface").child(Element::new("mac").with("address", address));
    interface.set("type", "network");
    set_connection(&mut interface, wish);
    lay(wish, true, &mut interface);
    interface
}

/// Lays the stated fields, the connection excepted, over an interface.
fn lay(wish: &Interface, is_new: bool, interface: &mut Element) {
    let model = wish.model.as_deref().or(is_new.then_some("virtio"));
    if let Some(model) = model {
        let moved = interface.attribute_at("model", "type") != Some(model);
        interface.ensure("model").set("type", model);
        if moved {
            // The old card's options and place.
            interface.remove("driver");
            interface.remove("address");
        }
    }
    if let Some(mtu) = wish.mtu {
        interface.ensure("mtu").set("size", mtu.to_string());
    }
    if let Some(order) = wish.boot_order {
        interface.ensure("boot").set("order", order.to_string());
    }
}

fn remove(subject: &Subject<'_>, interface: &Element, sheet: &mut Sheet) {
    let address = mac(interface);
    let mut before = connection(interface);
    if let Value::Object(map) = &mut before {
        map.insert("mac".into(), json!(address));
    }
    let way = subject
        .live(|| LiveChange::Detach { xml: interface.to_xml() }, format!("unplug the interface with MAC {address}"));
    sheet.diff(format!("spec.interfaces[{address}]"), before, Value::Null, way);
    if let Some(at) = place(interface) {
        sheet.remove(at);
    }
}

fn add(subject: &Subject<'_>, index: usize, wish: &Interface, sheet: &mut Sheet) {
    let element = new_interface(subject, index, wish);
    let address = mac(&element);
    let way = subject
        .live(|| LiveChange::Attach { xml: element.to_xml() }, format!("plug in an interface with MAC {address}"));
    let after = serde_json::to_value(wish).unwrap_or(Value::Null);
    sheet.diff(format!("spec.interfaces[{index}]"), Value::Null, after, way);
    sheet.edit(Edit::Add { at: "/domain/devices".into(), xml: element.to_xml() });
    if wish.boot_order.is_some() {
        sheet.remove("/domain/os/boot");
    }
}

fn change(subject: &Subject<'_>, index: usize, wish: &Interface, interface: &Element, sheet: &mut Sheet) {
    let path = |field: &str| format!("spec.interfaces[{index}]{field}");
    let before = sheet.diffs.len();
    let mut moved = false;
    if let Some(wanted) = wanted_connection(wish) {
        let found = connection(interface);
        if found != wanted {
            moved = true;
            // libvirt replugs a running interface between bridges and networks, not to or from macvtap
            // (qemuDomainChangeNet: "unable to change config on 'direct' network type").
            let macvtap = wish.direct.is_some() || interface.attribute("type") == Some("direct");
            let way = if macvtap {
                Way::Restart
            } else {
                let mut replugged = interface.clone();
                set_connection(&mut replugged, wish);
                let summary = format!("connect the interface with MAC {} to {}", mac(interface), shown(&wanted));
                subject.live(|| LiveChange::Update { xml: replugged.to_xml() }, summary)
            };
            let (field, found, wanted) = field_of(found, wanted);
            sheet.diff(path(&field), found, wanted, way);
        }
    }
    if let Some(model) = &wish.model {
        sheet.field(&path(".model"), text(interface.attribute_at("model", "type")), model.as_str(), Way::Restart);
    }
    if let Some(mtu) = wish.mtu {
        let found = interface.attribute_at("mtu", "size").and_then(|s| s.parse::<u32>().ok());
        sheet.field(&path(".mtu"), found.map_or(Value::Null, Value::from), mtu, Way::Restart);
    }
    if let Some(order) = wish.boot_order {
        let found = interface.attribute_at("boot", "order").and_then(|s| s.parse::<u32>().ok());
        sheet.field(&path(".bootOrder"), found.map_or(Value::Null, Value::from), order, Way::Restart);
    }
    if sheet.diffs.len() == before {
        return;
    }
    let mut element = interface.clone();
    if moved {
        set_connection(&mut element, wish);
    }
    lay(wish, false, &mut element);
    if let Some(at) = place(interface) {
        sheet.replace(at, &element);
    }
    if wish.boot_order.is_some() && subject.side != Side::Live {
        sheet.remove("/domain/os/boot");
    }
}

/// `spec.interfaces[0].network: a → b` where only the network's name differs, the whole connection otherwise.
fn field_of(found: Value, wanted: Value) -> (String, Value, Value) {
    if let (Value::Object(f), Value::Object(w)) = (&found, &wanted)
        && let (Some((field, before)), Some((same, after))) = (f.iter().next(), w.iter().next())
        && field == same
    {
        return (format!(".{field}"), before.clone(), after.clone());
    }
    (String::new(), found, wanted)
}

fn shown(connection: &Value) -> String {
    match connection.as_object().and_then(|c| c.iter().next()) {
        Some((kind, Value::String(name))) => format!("{kind} `{name}`"),
        Some((kind, _)) => kind.clone(),
        None => "nothing".into(),
    }
}

fn place(interface: &Element) -> Option<String> {
    let address = interface.attribute_at("mac", "address")?;
    Some(format!("/domain/devices/interface[mac/@address={}]", literal(address)?))
}
