//! The devices of a machine that there is one of, and its serial ports. None of them is changed while it runs.

use super::sheet::{Sheet, Side, Subject, Way, text, word};
use super::{Console, Graphics, Rng, Serial, Tpm};
use crate::domain_xml::{Element, Equivalence, contains};
use serde_json::{Value, json};

/// The channel of the QEMU guest agent (wiki.qemu.org/Features/GuestAgent).
pub(super) const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// Address of a display that states none: this host only.
const LOOPBACK: &str = "127.0.0.1";

/// Compares the stated devices with those of a definition.
pub(super) fn compare(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) {
    let spec = subject.spec();
    if let Some(serials) = &spec.serials {
        self::serials(subject, serials, domain, sheet);
    }
    if let Some(wanted) = spec.console {
        console(wanted, spec.serials.as_deref(), domain, sheet);
    }
    if let Some(graphics) = &spec.graphics {
        display(subject, graphics, domain, sheet);
    }
    if let Some(wanted) = &spec.video {
        let found = domain.attribute_at("devices/video/model", "type");
        if sheet.field("spec.video", text(found), wanted.as_str(), Way::Restart) {
            let model = Element::new("video").child(Element::new("model").with("type", wanted));
            sheet.replace(first("video", domain), &model);
        }
    }
    if let Some(Rng { device }) = &spec.rng {
        let found = domain.text_at("devices/rng/backend");
        if sheet.field("spec.rng.device", text(found), device.as_str(), Way::Restart) {
            let backend = Element::new("backend").with("model", "random").text_of(device);
            let rng = Element::new("rng").with("model", "virtio").child(backend);
            sheet.replace(first("rng", domain), &rng);
        }
    }
    if let Some(tpm) = &spec.tpm {
        self::tpm(tpm, domain, sheet);
    }
    if let Some(wanted) = spec.guest_agent {
        let found = channels(domain).any(is_agent);
        if sheet.field("spec.guestAgent", found, wanted, Way::Restart) {
            if wanted {
                let target = Element::new("target").with("type", "virtio").with("name", AGENT_CHANNEL);
                sheet.add("/domain/devices", &Element::new("channel").with("type", "unix").child(target));
            } else {
                sheet.remove(format!("/domain/devices/channel[target/@name='{AGENT_CHANNEL}']"));
            }
        }
    }
}

/// The selector of the first device of a name, for `Replace`.
fn first(name: &str, domain: &Element) -> String {
    let count = domain.get("devices").map_or(0, |d| d.all(name).count());
    if count > 1 { format!("/domain/devices/{name}[1]") } else { format!("/domain/devices/{name}") }
}

fn channels(domain: &Element) -> impl Iterator<Item = &Element> {
    domain.get("devices").into_iter().flat_map(|d| d.all("channel"))
}

fn is_agent(channel: &Element) -> bool {
    channel.attribute_at("target", "name") == Some(AGENT_CHANNEL)
}

/// The XML of a serial port. Its number is its place in the list.
pub(super) fn serial_port(serial: &Serial, port: usize) -> Element {
    let mut element = Element::new("serial");
    match serial {
        Serial::Pty => element.set("type", "pty"),
        Serial::File { path } => {
            element.set("type", "file");
            element = element.child(Element::new("source").with("path", path));
        }
        Serial::Udp { host, port } => {
            element.set("type", "udp");
            let source = Element::new("source").with("mode", "connect").with("host", host);
            element = element.child(source.with("service", port.to_string()));
        }
    }
    element.child(Element::new("target").with("port", port.to_string()))
}

/// A serial port as the manifest writes it. A pseudo-terminal's path is libvirt's choice.
fn seen_port(port: &Element) -> Value {
    let source = |name| port.attribute_at("source", name);
    match port.attribute("type") {
        Some("file") => json!({"type": "file", "path": source("path")}),
        Some("udp") => {
            // libvirt prints the receiving end (`mode='bind'`) as a second source.
            let connect = port.all("source").find(|s| s.attribute("mode") != Some("bind"));
            let of = |name: &str| connect.and_then(|s| s.attribute(name));
            let number = of("service").and_then(|s| s.parse::<u16>().ok());
            json!({"type": "udp", "host": of("host"), "port": number})
        }
        Some(other) => json!({"type": other}),
        None => Value::Null,
    }
}

fn serials(subject: &Subject<'_>, wanted: &[Serial], domain: &Element, sheet: &mut Sheet) {
    let found: Vec<&Element> = domain.get("devices").into_iter().flat_map(|d| d.all("serial")).collect();
    let before = sheet.diffs.len();
    // From the last to the first, so that positions stay true while ports go.
    for (i, port) in found.iter().enumerate().skip(wanted.len()).rev() {
        let asked_for = subject.baseline.and_then(|b| b.get("devices")).is_some_and(|d| {
            d.all("serial").skip(wanted.len()).any(|w| contains(w, port, Equivalence::default()).is_empty())
        });
        if !asked_for {
            sheet.diff(format!("spec.serials[{i}]"), seen_port(port), Value::Null, Way::Restart);
            sheet.remove(format!("/domain/devices/serial[{}]", i + 1));
        }
    }
    for (i, serial) in wanted.iter().enumerate() {
        let after = serde_json::to_value(serial).unwrap_or(Value::Null);
        let port = serial_port(serial, i);
        match found.get(i) {
            Some(there) => {
                let seen = seen_port(there);
                if seen != after {
                    sheet.diff(format!("spec.serials[{i}]"), seen, after, Way::Restart);
                    sheet.replace(format!("/domain/devices/serial[{}]", i + 1), &port);
                }
            }
            None => {
                sheet.diff(format!("spec.serials[{i}]"), Value::Null, after, Way::Restart);
                sheet.add("/domain/devices", &port);
            }
        }
    }
    if sheet.diffs.len() > before {
        // A copy of the first port, which libvirt makes anew.
        sheet.remove("/domain/devices/console[target/@type='serial']");
    }
}

fn console(wanted: Console, serials: Option<&[Serial]>, domain: &Element, sheet: &mut Sheet) {
    if wanted == Console::Serial && serials.is_some() {
        // The list of serial ports says whether there is one; libvirt puts the console on the first.
        return;
    }
    let devices = domain.get("devices");
    let of_type = |kind: &str| {
        devices.into_iter().flat_map(|d| d.all("console")).any(|c| c.attribute_at("target", "type") == Some(kind))
    };
    let has_virtio = of_type("virtio");
    // libvirt puts the console on the first serial port wherever there is one.
    let has_serial = devices.is_some_and(|d| d.get("serial").is_some());
    let found = match (has_virtio, has_serial || of_type("serial")) {
        (true, _) if wanted == Console::Virtio => json!("virtio"),
        (_, true) => json!("serial"),
        (true, false) => json!("virtio"),
        (false, false) => Value::Null,
    };
    if !sheet.field("spec.console", found, word(&wanted), Way::Restart) {
        return;
    }
    match wanted {
        Console::Serial => sheet.add("/domain/devices", &serial_port(&Serial::Pty, 0)),
        Console::Virtio => {
            let target = Element::new("target").with("type", "virtio");
            sheet.add("/domain/devices", &Element::new("console").with("type", "pty").child(target));
        }
    }
}

fn display(subject: &Subject<'_>, wanted: &Graphics, domain: &Element, sheet: &mut Sheet) {
    let kind = word(&wanted.r#type);
    let found = domain.get("devices/graphics");
    let found_kind = found.and_then(|g| g.attribute("type"));
    let at = first("graphics", domain);
    if found_kind != Some(kind.as_str()) {
        sheet.diff("spec.graphics.type", text(found_kind), json!(kind), Way::Restart);
        let listen = wanted.listen.as_deref().unwrap_or(LOOPBACK);
        let mut graphics = Element::new("graphics").with("type", kind);
        set_port(&mut graphics, wanted.port);
        graphics.set("listen", listen);
        let address = Element::new("listen").with("type", "address").with("address", listen);
        sheet.replace(at, &graphics.child(address));
        return;
    }
    let Some(found) = found else { return };
    if let Some(listen) = &wanted.listen {
        let address = found.attribute("listen").or(found.attribute_at("listen", "address"));
        if sheet.field("spec.graphics.listen", text(address), listen.as_str(), Way::Restart) {
            // Attribute by attribute: the element may hold a password that only libvirt sees.
            sheet.set(&at, "listen", listen);
            sheet.remove(format!("{at}/listen"));
            let address = Element::new("listen").with("type", "address").with("address", listen);
            sheet.add(&at, &address);
        }
    }
    if let Some(port) = wanted.port {
        let is_auto = found.attribute("autoport") == Some("yes") && subject.side != Side::Live;
        let number = found.attribute("port").and_then(|p| p.parse::<u16>().ok()).filter(|_| !is_auto);
        if sheet.field("spec.graphics.port", number.map_or(Value::Null, Value::from), port, Way::Restart) {
            sheet.set(&at, "port", port.to_string());
            sheet.set(&at, "autoport", "no");
        }
    }
}

fn set_port(graphics: &mut Element, port: Option<u16>) {
    match port {
        Some(port) => {
            graphics.set("port", port.to_string());
            graphics.set("autoport", "no");
        }
        None => graphics.set("autoport", "yes"),
    }
}

fn tpm(wanted: &Tpm, domain: &Element, sheet: &mut Sheet) {
    let found = domain.get("devices/tpm");
    let before = sheet.diffs.len();
    let model = found.and_then(|t| t.attribute("model"));
    sheet.field("spec.tpm.model", text(model), wanted.model.as_str(), Way::Restart);
    if let Some(version) = &wanted.version {
        let there = found.and_then(|t| t.attribute_at("backend", "version"));
        sheet.field("spec.tpm.version", text(there), version.as_str(), Way::Restart);
    }
    if sheet.diffs.len() == before {
        return;
    }
    if found.is_none() {
        let mut backend = Element::new("backend").with("type", "emulator");
        if let Some(version) = &wanted.version {
            backend.set("version", version);
        }
        let tpm = Element::new("tpm").with("model", &wanted.model).child(backend);
        sheet.add("/domain/devices", &tpm);
        return;
    }
    sheet.set("/domain/devices/tpm", "model", &wanted.model);
    if let Some(version) = &wanted.version {
        sheet.set("/domain/devices/tpm/backend", "version", version);
    }
}
