//! What libvirt makes of a definition: defaults and identities that it fills in, and what a started domain has more.
//! After libvirt 11.3 on x86_64; only as much of it as a comparison could trip over.

use crate::domain_xml::{self, Element, Node};
use crate::observed::{HostCpu, HostState, MoveMark, OwnerMark};
use uuid::Uuid;

/// Name and UUID of a definition.
pub(super) fn identity(xml: &str) -> Result<(String, Uuid), String> {
    let root = domain_xml::parse(xml).map_err(|e| format!("XML error: {e}"))?;
    identity_of(&root)
}

fn identity_of(root: &Element) -> Result<(String, Uuid), String> {
    let name = root.text_at("name").filter(|n| !n.is_empty()).ok_or("XML error: domain has no name")?;
    let uuid = root.text_at("uuid").ok_or("XML error: domain has no UUID")?;
    Ok((name, uuid.parse().map_err(|_| format!("XML error: malformed uuid `{uuid}`"))?))
}

/// The marks of moves in a domain: those of its live definition where it runs.
pub(super) fn moves(domain: &crate::observed::DomainState) -> Vec<MoveMark> {
    let xml = domain.live_xml.as_deref().or(domain.persistent_xml.as_deref());
    xml.and_then(|xml| domain_xml::parse(xml).ok()).map(|root| domain_xml::moves_of(&root)).unwrap_or_default()
}

/// Puts marks of moves into a definition.
pub(super) fn set_moves(xml: &str, moves: &[MoveMark]) -> Result<String, String> {
    change(xml, |root| domain_xml::with_moves(root, moves))
}

/// The ownership mark in a definition.
pub(super) fn owner(xml: &str) -> Option<OwnerMark> {
    domain_xml::owner_of(&domain_xml::parse(xml).ok()?)
}

/// A definition as libvirt prints it after it was defined. Defining it again changes nothing.
pub(super) fn fill_in(xml: &str, host: &HostState) -> Result<String, String> {
    let mut root = domain_xml::parse(xml).map_err(|e| format!("XML error: {e}"))?;
    if root.name != "domain" {
        return Err(format!("XML error: unexpected root element <{}>, expecting <domain>", root.name));
    }
    root.unset("id");
    let name = root.text_at("name").filter(|n| !n.is_empty()).ok_or("XML error: domain has no name")?;
    if name.contains('/') || name.contains('\n') {
        return Err(format!("XML error: name {name} cannot contain '/'"));
    }
    if root.text_at("uuid").is_none() {
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("sim:{}/{name}", host.hostname).as_bytes());
        root.ensure("uuid").set_text(uuid.to_string());
    }
    identity_of(&root)?;
    let domain_type = root.attribute("type").unwrap_or("qemu").to_owned();
    if !host.domain_types.contains(&domain_type) {
        return Err(format!(
            "invalid argument: could not get preferred machine for virt type '{domain_type}' on {}",
            host.hostname
        ));
    }
    root.set("type", domain_type);
    memory(&mut root)?;
    if root.text_at("vcpu").is_none() {
        root.ensure("vcpu").set_text("1");
    }
    let vcpu = root.ensure("vcpu");
    if vcpu.attribute("placement").is_none() {
        vcpu.attributes.insert(0, ("placement".into(), "static".into()));
    }
    if vcpu.attribute("current").is_some_and(|c| c == vcpu.text()) {
        vcpu.unset("current");
    }
    os(&mut root, host)?;
    for (event, action) in [("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")] {
        if root.get(event).is_none() {
            root.ensure(event).set_text(action);
        }
    }
    if root.get("clock").is_none() {
        root.ensure("clock").set("offset", "utc");
    }
    if let Some(cpu) = root.elements_mut().find(|e| e.name == "cpu") {
        let check = match cpu.attribute("mode") {
            Some("host-model") => Some("partial"),
            Some("host-passthrough" | "maximum") => Some("none"),
            _ => None,
        };
        if let Some(check) = check.filter(|_| cpu.attribute("check").is_none()) {
            cpu.set("check", check);
        }
    }
    devices(&mut root, &name, host);
    strip_live(&mut root);
    Ok(root.to_xml())
}

/// Memory in KiB, and the balloon's target where none is given.
fn memory(root: &mut Element) -> Result<(), String> {
    let kib = |e: &Element| domain_xml::memory_bytes(&Element::new("domain").child(e.clone()).to_xml()) / 1024;
    let total =
        root.get("memory").map(kib).filter(|k| *k > 0).ok_or("XML error: missing element or attribute: memory")?;
    let current = root.get("currentMemory").map_or(total, |e| {
        let mut as_memory = e.clone();
        as_memory.name = "memory".into();
        kib(&as_memory)
    });
    if current > total {
        return Err(format!("unsupported configuration: current memory '{current}k' exceeds maximum '{total}k'"));
    }
    for (name, value) in [("memory", total), ("currentMemory", current)] {
        let element = root.ensure(name);
        element.set("unit", "KiB");
        element.set_text(value.to_string());
    }
    Ok(())
}

fn os(root: &mut Element, host: &HostState) -> Result<(), String> {
    let os = root.ensure("os");
    let kind = os.ensure("type");
    if kind.text().is_empty() {
        kind.set_text("hvm");
    }
    if kind.attribute("arch").is_none() {
        kind.set("arch", host.arch.clone());
    }
    let machine = kind.attribute("machine").unwrap_or("pc").to_owned();
    let machine = host.machine_aliases.get(&machine).unwrap_or(&machine).clone();
    if !host.machine_types.contains(&machine) {
        return Err(format!(
            "unsupported configuration: Emulator '/usr/bin/qemu-system-{}' does not support machine type '{machine}'",
            host.arch
        ));
    }
    kind.set("machine", machine);
    if os.get("boot").is_none() && os.get("kernel").is_none() && os.get("loader").is_none() {
        os.children.push(Node::Element(Element::new("boot").with("dev", "hd")));
    }
    Ok(())
}

fn devices(root: &mut Element, domain: &str, host: &HostState) {
    let devices = root.ensure("devices");
    if devices.get("emulator").is_none() {
        let emulator = Element::new("emulator").text_of(format!("/usr/bin/qemu-system-{}", host.arch));
        devices.children.insert(0, Node::Element(emulator));
    }
    if let Some(serial) = devices.get("serial").cloned()
        && devices.get("console").is_none()
    {
        let kind = serial.attribute("type").unwrap_or("pty").to_owned();
        let target = Element::new("target").with("type", "serial").with("port", "0");
        devices.children.push(Node::Element(Element::new("console").with("type", kind).child(target)));
    }
    for (kind, index, model) in [("usb", "0", "qemu-xhci"), ("pci", "0", "pcie-root")] {
        let has = devices.all("controller").any(|c| c.attribute("type") == Some(kind));
        if !has {
            let controller = Element::new("controller").with("type", kind).with("index", index).with("model", model);
            devices.children.push(Node::Element(controller));
        }
    }
    for (name, attribute, value) in
        [("input", "type", "mouse"), ("audio", "type", "none"), ("memballoon", "model", "virtio")]
    {
        if devices.get(name).is_none() {
            devices.children.push(Node::Element(Element::new(name).with(attribute, value)));
        }
    }
    let mut interfaces = 0;
    for device in devices.elements_mut() {
        match device.name.as_str() {
            "disk" => {
                if device.attribute("device").is_none() {
                    device.set("device", "disk");
                }
                let driver = device.ensure("driver");
                if driver.attribute("name").is_none() {
                    driver.attributes.insert(0, ("name".into(), "qemu".into()));
                }
            }
            "interface" => {
                interfaces += 1;
                if device.get("mac").is_none() {
                    let seed = format!("sim-mac:{domain}/{interfaces}");
                    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, seed.as_bytes()).into_bytes();
                    let mac = format!("52:54:00:{:02x}:{:02x}:{:02x}", id[0], id[1], id[2]);
                    device.children.insert(0, Node::Element(Element::new("mac").with("address", mac)));
                }
            }
            _ => {}
        }
    }
    addresses(devices);
}

/// PCI slots for devices that have no address yet, in order, leaving taken ones alone.
fn addresses(devices: &mut Element) {
    let has_pci = |d: &Element| match d.name.as_str() {
        "disk" => d.attribute_at("target", "bus").unwrap_or("virtio") == "virtio",
        "interface" | "memballoon" | "rng" => true,
        "controller" => d.attribute("type") == Some("usb"),
        _ => false,
    };
    let slot = |d: &Element| d.get("address").and_then(|a| a.attribute("slot")).map(str::to_owned);
    let mut taken: Vec<String> = devices.elements().filter_map(slot).collect();
    for device in devices.elements_mut().filter(|d| has_pci(d)) {
        if device.get("address").is_some() {
            continue;
        }
        let Some(free) = (1..=0x1f_u32).map(|n| format!("0x{n:02x}")).find(|s| !taken.contains(s)) else { return };
        let address = Element::new("address")
            .with("type", "pci")
            .with("domain", "0x0000")
            .with("bus", "0x00")
            .with("slot", free.clone())
            .with("function", "0x0");
        taken.push(free);
        device.children.push(Node::Element(address));
    }
}

/// The definition of a domain that runs on a host with this CPU.
pub(super) fn live(persistent: &str, id: u64, host: Option<&HostCpu>) -> Result<String, String> {
    let mut root = domain_xml::parse(persistent).map_err(|e| format!("XML error: {e}"))?;
    root.set("id", id.to_string());
    if let (Some(cpu), Some(host)) = (root.elements_mut().find(|e| e.name == "cpu"), host) {
        take_model(cpu, host);
    }
    let devices = root.ensure("devices");
    let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for device in devices.elements_mut().filter(|d| d.name != "emulator") {
        let n = counts.entry(device.name.clone()).or_default();
        enliven(device, *n);
        *n += 1;
    }
    Ok(root.to_xml())
}

/// `host-model` becomes the host's CPU when a domain starts, and stays that wherever the domain goes.
fn take_model(cpu: &mut Element, host: &HostCpu) {
    if cpu.attribute("mode") != Some("host-model") {
        return;
    }
    for (name, value) in [("mode", "custom"), ("match", "exact"), ("check", "full")] {
        cpu.set(name, value);
    }
    let own: Vec<String> = cpu.all("feature").filter_map(|f| f.attribute("name").map(str::to_owned)).collect();
    let is_new = |e: &&Element| e.attribute("name").is_none_or(|name| !own.iter().any(|o| o == name));
    let model: Vec<Node> =
        super::ask::host_model(host).elements().filter(is_new).map(|e| Node::Element(e.clone())).collect();
    cpu.children.splice(0..0, model);
}

/// What a device of a running domain has more than its definition.
fn enliven(device: &mut Element, index: usize) {
    match device.name.as_str() {
        "disk" => {
            if let Some(source) = device.elements_mut().find(|e| e.name == "source") {
                source.set("index", (index + 1).to_string());
            }
        }
        "interface" if device.get("target").is_none() => {
            device.children.push(Node::Element(Element::new("target").with("dev", format!("vnet{index}"))));
        }
        "graphics" => device.set("port", (5900 + index).to_string()),
        _ => {}
    }
    if device.get("alias").is_none() {
        device.children.push(Node::Element(Element::new("alias").with("name", format!("{}{index}", device.name))));
    }
}

/// Takes out what only a running domain has; a definition that is made from a live one has none of it.
fn strip_live(root: &mut Element) {
    let devices = root.ensure("devices");
    for device in devices.elements_mut() {
        if device.get("alias").is_some_and(|a| !a.attribute("name").unwrap_or_default().starts_with("ua-")) {
            device.remove("alias");
        }
        match device.name.as_str() {
            "disk" => {
                if let Some(source) = device.elements_mut().find(|e| e.name == "source") {
                    source.unset("index");
                }
            }
            "interface" if device.attribute_at("target", "dev").is_some_and(|d| d.starts_with("vnet")) => {
                device.remove("target");
            }
            "graphics" if device.attribute("autoport") == Some("yes") => device.set("port", "-1"),
            _ => {}
        }
    }
}

/// Whether `have` says everything that `want` says; what it says beyond that was filled in.
pub(super) fn covers(have: &Element, want: &Element) -> bool {
    have.name == want.name
        && want.attributes.iter().all(|(name, value)| have.attribute(name) == Some(value))
        && (want.elements().next().is_some() || want.text() == have.text() || want.text().is_empty())
        && want.elements().all(|w| have.elements().any(|h| covers(h, w)))
}

/// The same device: by what a guest knows it by, or by all that is said about it.
fn is_device(have: &Element, want: &Element) -> bool {
    if have.name != want.name {
        return false;
    }
    let key = match want.name.as_str() {
        "disk" => ("target", "dev"),
        "interface" => ("mac", "address"),
        _ => return covers(have, want),
    };
    match (have.attribute_at(key.0, key.1), want.attribute_at(key.0, key.1)) {
        (Some(a), Some(b)) => a == b,
        _ => covers(have, want),
    }
}

/// A device of a definition, and the one that is asked for.
pub(super) struct Devices {
    root: Element,
    want: Element,
}

impl Devices {
    pub fn read(xml: &str, device: &str) -> Result<Self, String> {
        let parse = |text| domain_xml::parse(text).map_err(|e| format!("XML error: {e}"));
        let mut want = parse(device)?;
        want.remove("alias");
        if let Some(source) = want.elements_mut().find(|e| e.name == "source") {
            source.unset("index");
        }
        Ok(Self { root: parse(xml)?, want })
    }

    /// Whether the device is there, and as it should be.
    pub fn find(&self) -> Option<bool> {
        let found = self.root.get("devices")?.elements().find(|d| is_device(d, &self.want))?;
        Some(covers(found, &self.want))
    }

    pub fn attach(mut self) -> String {
        let devices = self.root.ensure("devices");
        let index = devices.all(&self.want.name).count();
        devices.children.push(Node::Element(self.want));
        addresses(devices);
        if let Some(Node::Element(new)) = devices.children.last_mut() {
            enliven(new, index);
        }
        self.root.to_xml()
    }

    pub fn detach(mut self) -> String {
        let want = &self.want;
        self.root.ensure("devices").children.retain(|n| !matches!(n, Node::Element(d) if is_device(d, want)));
        self.root.to_xml()
    }

    pub fn update(mut self) -> String {
        let want = self.want;
        let devices = self.root.ensure("devices");
        if let Some(found) = devices.elements_mut().find(|d| is_device(d, &want)) {
            let kept: Vec<Node> = found
                .elements()
                .filter(|e| matches!(e.name.as_str(), "alias" | "address") && want.get(&e.name).is_none())
                .cloned()
                .map(Node::Element)
                .collect();
            *found = want;
            found.children.extend(kept);
        }
        self.root.to_xml()
    }
}

/// vCPUs in use and at most.
pub(super) fn vcpus(xml: &str) -> Option<(u32, u32)> {
    let root = domain_xml::parse(xml).ok()?;
    let vcpu = root.get("vcpu")?;
    let most = vcpu.text().parse().ok()?;
    Some((vcpu.attribute("current").and_then(|c| c.parse().ok()).unwrap_or(most), most))
}

/// Balloon target and memory, in KiB.
pub(super) fn memory_kib(xml: &str) -> Option<(u64, u64)> {
    let root = domain_xml::parse(xml).ok()?;
    let most = root.text_at("memory")?.parse().ok()?;
    Some((root.text_at("currentMemory").and_then(|t| t.parse().ok()).unwrap_or(most), most))
}

/// Changes a definition as a tree.
pub(super) fn change(xml: &str, work: impl FnOnce(&mut Element)) -> Result<String, String> {
    let mut root = domain_xml::parse(xml).map_err(|e| format!("XML error: {e}"))?;
    work(&mut root);
    Ok(root.to_xml())
}

/// Puts an ownership mark into a definition, or takes it out.
pub(super) fn set_owner(xml: &str, mark: Option<&OwnerMark>) -> Result<String, String> {
    change(xml, |root| {
        let is_mark = |e: &Element| {
            let domain = Element::new("domain").child(Element::new("metadata").child(e.clone()));
            domain_xml::owner_of(&domain).is_some()
        };
        let metadata = root.ensure("metadata");
        metadata.children.retain(|n| !matches!(n, Node::Element(e) if is_mark(e)));
        if let Some(mark) = mark {
            metadata.children.push(Node::Element(domain_xml::owner_element(mark)));
        }
        if metadata.children.is_empty() {
            root.remove("metadata");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::default_host;
    use super::*;

    const XML: &str =
        "<domain type='kvm'><name>web-1</name><memory unit='GiB'>1</memory><os><type machine='q35'>hvm</type></os>
        <devices><disk type='file'><source file='/srv/a'/><target dev='vda' bus='virtio'/></disk>
        <interface type='network'><source network='default'/></interface><serial type='pty'/></devices></domain>";

    #[test]
    fn defining_again_changes_nothing() {
        let host = default_host("kvm-a");
        let once = fill_in(XML, &host).unwrap();
        assert_eq!(fill_in(&once, &host).unwrap(), once);
        let root = domain_xml::parse(&once).unwrap();
        assert!(root.attribute_at("os/type", "machine").unwrap().starts_with("pc-q35-"));
        assert_eq!(root.text_at("memory").unwrap(), "1048576");
        assert!(root.get("devices/interface/mac").is_some() && root.get("devices/disk/address").is_some());
        let live = live(&once, 3, None).unwrap();
        assert_eq!(domain_xml::parse(&live).unwrap().attribute("id"), Some("3"));
        assert_eq!(fill_in(&live, &host).unwrap(), once, "a definition made from the live one is the persistent one");
    }

    #[test]
    fn what_libvirt_refuses_is_refused() {
        let host = default_host("kvm-a");
        for (from, to) in [("machine='q35'", "machine='pc-q35-99.0'"), ("type='kvm'", "type='xen'"), ("web-1", "")] {
            assert!(fill_in(&XML.replace(from, to), &host).is_err(), "{to}");
        }
    }
}
