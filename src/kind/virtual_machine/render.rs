//! From a manifest to the complete definition of a new domain: `xml` where it is given, a skeleton of sensible defaults
//! where it is not, the stated fields laid over it, `xmlPatches`, and the ownership mark.

use super::devices;
use super::sheet::{Sheet, Side, Subject};
use super::{Console, DiskBus, DiskDevice, VirtualMachineSpec, compare, identity};
use crate::domain_xml::{self, Element, Node, owner_element, owner_index};
use crate::finding::{Code, Finding};
use crate::kind::Resources;
use crate::model::Manifest;
use crate::observed::{HostState, OwnerMark};

/// PCIe root ports that a new machine has beyond those that its devices take, so that disks and interfaces can be plugged
/// in while it runs. libvirt adds none of its own accord; virt-install makes 14 in all.
const SPARE_PORTS: usize = 8;

/// PCIe root ports that the devices of every machine take: USB, balloon, serial bus, random numbers, video.
const COMMON_PORTS: usize = 5;

/// The complete definition of a new domain on a host.
///
/// # Errors
/// A finding when something that a new machine needs is not stated, a disk has no place, or `xml` or a patch cannot be
/// used.
pub fn render(
    m: &Manifest<VirtualMachineSpec>,
    host: &HostState,
    resources: &Resources,
    owner: &OwnerMark,
) -> Result<String, Finding> {
    let mut domain = unowned(m, host, resources)?;
    set_owner(&mut domain, owner);
    Ok(domain.to_xml())
}

/// The definition without the mark; its baseline for later comparisons.
pub(super) fn unowned(
    m: &Manifest<VirtualMachineSpec>,
    host: &HostState,
    resources: &Resources,
) -> Result<Element, Finding> {
    let mut domain = with_fields(m, host, resources)?;
    for (i, patch) in m.spec.xml_patches.iter().enumerate() {
        domain_xml::apply_one(&mut domain, patch).map_err(|e| patch_error(m, i, &e))?;
    }
    domain_xml::declare_qemu(&mut domain);
    Ok(domain)
}

/// The definition before patches.
pub(super) fn with_fields(
    m: &Manifest<VirtualMachineSpec>,
    host: &HostState,
    resources: &Resources,
) -> Result<Element, Finding> {
    let mut domain = match base(m)? {
        Some(xml) => xml,
        None => skeleton(m, host, resources)?,
    };
    let given = domain.clone();
    let subject = Subject {
        m,
        host,
        resources,
        // Devices of `xml` that no field is about stay.
        baseline: m.spec.xml.is_some().then_some(&given),
        side: Side::New,
        chains: &[],
        taken: &[],
    };
    if m.spec.r#type.is_none() && domain.attribute("type").is_none() {
        domain.set("type", subject.domain_type());
    }
    domain.unset("id");
    set_first(&mut domain, "uuid", &identity::uuid(m).to_string());
    set_first(&mut domain, "name", identity::domain_name(m));
    let mut sheet = Sheet::default();
    compare::fields(&subject, &domain, &mut sheet)?;
    sheet.lay_over(&subject, &mut domain)?;
    Ok(domain)
}

/// The tree of `xml`, where the manifest gives it.
pub(super) fn base(m: &Manifest<VirtualMachineSpec>) -> Result<Option<Element>, Finding> {
    let Some(xml) = &m.spec.xml else { return Ok(None) };
    let Some(inline) = &xml.inline else {
        let file = xml.file.as_deref().unwrap_or_default();
        return Err(Finding::new(Code::BadXml, format!("the domain XML of `{}` is empty", m.name()))
            .hint(if file.is_empty() {
                "give `inline` or `file`, or leave `xml` out".to_owned()
            } else {
                format!("`{file}` was not read; load the manifest together with its repository")
            })
            .of(m, "spec.xml"));
    };
    let tree = domain_xml::parse(inline).map_err(|e| {
        Finding::new(Code::BadXml, format!("the domain XML of `{}` cannot be read: {e}", m.name()))
            .hint("it must be what `virsh dumpxml --inactive` prints")
            .of(m, "spec.xml")
    })?;
    if tree.name != "domain" {
        return Err(Finding::new(
            Code::BadXml,
            format!("the XML of `{}` is a `{}`, not a `domain`", m.name(), tree.name),
        )
        .hint("it must be what `virsh dumpxml --inactive` prints")
        .of(m, "spec.xml"));
    }
    Ok(Some(tree))
}

/// Why a patch of a manifest cannot be used.
pub(super) fn patch_error(m: &Manifest<VirtualMachineSpec>, index: usize, error: &domain_xml::EditError) -> Finding {
    Finding::new(Code::BadXml, format!("a patch to the definition of `{}` cannot be used: {error}", m.name()))
        .hint("selectors look like `/domain/devices/disk[target/@dev='vda']/driver`; compare with `virsh dumpxml`")
        .of(m, &format!("spec.xmlPatches[{index}]"))
}

/// Sets the text of a child of the root, which is put first when it is new.
fn set_first(domain: &mut Element, name: &str, text: &str) {
    if domain.get(name).is_none() {
        domain.children.insert(0, Node::Element(Element::new(name)));
    }
    domain.ensure(name).set_text(text);
}

/// Puts the mark into the metadata, in the place of the one that is there.
pub(super) fn set_owner(domain: &mut Element, owner: &OwnerMark) {
    let there = owner_index(domain);
    let metadata = domain.ensure("metadata");
    match there.and_then(|i| metadata.elements_mut().nth(i)) {
        Some(old) => *old = owner_element(owner),
        None => metadata.children.push(Node::Element(owner_element(owner))),
    }
}

/// A machine without its fields.
fn skeleton(m: &Manifest<VirtualMachineSpec>, host: &HostState, resources: &Resources) -> Result<Element, Finding> {
    let spec = &m.spec;
    let subject = Subject { m, host, resources, baseline: None, side: Side::New, chains: &[], taken: &[] };
    let Some(memory) = spec.memory.or(spec.max_memory) else {
        return Err(Finding::new(Code::MissingField, format!("`{}` is a new machine without `memory`", m.name()))
            .hint("state how much memory it has, like `memory: 2Gi`")
            .of(m, "spec"));
    };
    let is_test = subject.is_test();
    let is_x86 = is_test || matches!(host.arch.as_str(), "" | "x86_64" | "i686");
    let mut domain = Element::new("domain").with("type", subject.domain_type());
    for name in ["name", "uuid"] {
        domain.ensure(name);
    }
    domain.ensure("memory").set("unit", "KiB");
    domain.ensure("memory").set_text(memory.kibibytes().to_string());
    domain.ensure("vcpu").set_text("1");

    let mut kind = Element::new("type").text_of("hvm");
    if !is_test {
        let arch = spec.arch.as_deref().unwrap_or(&host.arch);
        if !arch.is_empty() {
            kind.set("arch", arch);
        }
        match (&spec.machine, arch) {
            (Some(machine), _) => kind.set("machine", machine),
            (None, "x86_64" | "i686" | "") => kind.set("machine", "q35"),
            (None, "aarch64" | "armv7l" | "riscv64") => kind.set("machine", "virt"),
            (None, _) => {}
        }
    }
    let machine = kind.attribute("machine").unwrap_or_default().to_owned();
    domain = domain.child(Element::new("os").child(kind));
    if is_x86 {
        domain = domain.child(Element::new("features").child(Element::new("acpi")).child(Element::new("apic")));
    }
    // libvirt's own default model is as old as QEMU; the host's nearest named model still moves between like hosts.
    if spec.cpu.is_none() && subject.domain_type() == "kvm" {
        domain = domain.child(Element::new("cpu").with("mode", "host-model"));
    }
    domain = domain.child(Element::new("clock").with("offset", "utc"));
    for (name, action) in [("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")] {
        domain = domain.child(Element::new(name).text_of(action));
    }
    domain.children.push(Node::Element(bare_devices(&subject, &machine)));
    Ok(domain)
}

fn bare_devices(subject: &Subject<'_>, machine: &str) -> Element {
    let spec = subject.spec();
    let disks = spec.disks.as_deref().unwrap_or_default();
    let mut list = Element::new("devices");
    let mut add = |element: Element| list.children.push(Node::Element(element));
    let is_pcie =
        machine == "q35" || machine.starts_with("pc-q35") || machine == "virt" || machine.starts_with("virt-");
    if is_pcie {
        let virtio = |d: &&super::Disk| {
            d.device == DiskDevice::Disk && matches!(d.bus.unwrap_or(DiskBus::Virtio), DiskBus::Virtio)
        };
        let plugged = disks.iter().filter(virtio).count() + spec.interfaces.as_deref().map_or(0, <[_]>::len);
        add(Element::new("controller").with("type", "pci").with("index", "0").with("model", "pcie-root"));
        for _ in 0..plugged + COMMON_PORTS + SPARE_PORTS {
            add(Element::new("controller").with("type", "pci").with("model", "pcie-root-port"));
        }
    }
    if !subject.is_test() && disks.iter().any(|d| d.bus == Some(DiskBus::Scsi)) {
        add(Element::new("controller").with("type", "scsi").with("index", "0").with("model", "virtio-scsi"));
    }
    if spec.serials.is_none() && spec.console != Some(Console::Virtio) {
        add(devices::serial_port(&super::Serial::Pty, 0));
    }
    if spec.graphics.is_some() && !subject.is_test() {
        // A pointer with absolute places: without it the pointer of a remote display runs away.
        add(Element::new("input").with("type", "tablet").with("bus", "usb"));
    }
    add(Element::new("memballoon").with("model", if subject.is_test() { "none" } else { "virtio" }));
    list
}
