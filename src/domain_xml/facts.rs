//! Single facts that the planner reads off a definition. A definition that is not XML has none of them.

use super::tree::{self, Element};

/// A disk whose source is a path on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDisk {
    /// Its name in the guest.
    pub target: String,
    /// The path.
    pub path: String,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Whether several machines may have it.
    pub shareable: bool,
    /// What it is to the guest: `disk`, `cdrom`, `floppy`, `lun`.
    pub device: String,
    /// What becomes of it where its source is missing (`startupPolicy`).
    pub startup_policy: Option<String>,
}

fn parse(xml: &str) -> Option<Element> {
    tree::parse(xml).ok()
}

fn devices(root: &Element) -> impl Iterator<Item = &Element> {
    root.get("devices").into_iter().flat_map(Element::elements)
}

fn attribute<'e>(element: &'e Element, child: &str, name: &str) -> Option<&'e str> {
    element.attribute_at(child, name)
}

/// Disks on files and block devices of the host. Network disks, and drives without a medium, are not among them.
pub fn local_disks(xml: &str) -> Vec<LocalDisk> {
    let Some(root) = parse(xml) else { return Vec::new() };
    devices(&root)
        .filter(|d| d.name == "disk")
        .filter_map(|d| {
            let source = d.get("source")?;
            let path = source.attribute("file").or_else(|| source.attribute("dev"))?;
            Some(LocalDisk {
                target: attribute(d, "target", "dev")?.to_owned(),
                path: path.to_owned(),
                read_only: d.get("readonly").is_some(),
                shareable: d.get("shareable").is_some(),
                device: d.attribute("device").unwrap_or("disk").to_owned(),
                startup_policy: source.attribute("startupPolicy").map(str::to_owned),
            })
        })
        .collect()
}

/// The target of the disk at `path`.
pub fn disk_target(xml: &str, path: &str) -> Option<String> {
    local_disks(xml).into_iter().find(|d| d.path == path).map(|d| d.target)
}

/// The machine type, `pc-q35-10.0`.
pub fn machine_type(xml: &str) -> Option<String> {
    parse(xml)?.attribute_at("os/type", "machine").map(str::to_owned)
}

/// The libvirt networks that its interfaces are on, each once, in order.
pub fn networks(xml: &str) -> Vec<String> {
    let Some(root) = parse(xml) else { return Vec::new() };
    let mut names: Vec<String> = devices(&root)
        .filter(|d| d.name == "interface" && d.attribute("type").is_some_and(|t| t == "network"))
        .filter_map(|d| attribute(d, "source", "network").map(str::to_owned))
        .collect();
    names.dedup();
    names
}

/// Memory in use, in bytes (`<currentMemory>`, else `<memory>`).
pub fn memory_bytes(xml: &str) -> u64 {
    let Some(root) = parse(xml) else { return 0 };
    let Some(memory) = root.get("currentMemory").or_else(|| root.get("memory")) else { return 0 };
    super::bytes(memory).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain><currentMemory unit='MiB'>512</currentMemory>
        <os><type machine='pc-q35-10.0'>hvm</type></os><devices>
        <disk type='file'><source file='/a'/><target dev='vda'/></disk>
        <disk type='block'><source dev='/dev/vg/b'/><target dev='vdb'/><readonly/></disk>
        <disk type='network'><source protocol='rbd' name='x'/><target dev='vdc'/></disk>
        <disk type='file' device='cdrom'><target dev='sda'/></disk>
        <interface type='network'><source network='default'/></interface>
        <interface type='bridge'><source bridge='br0'/></interface>
        <hostdev mode='subsystem' type='pci'/>
        <interface type='hostdev'><teaming type='transient'/></interface>
        </devices></domain>";

    #[test]
    fn facts_are_read_off_a_definition() {
        let paths: Vec<_> = local_disks(XML).into_iter().map(|d| (d.target, d.path, d.read_only)).collect();
        assert_eq!(paths, [("vda".into(), "/a".into(), false), ("vdb".into(), "/dev/vg/b".to_owned(), true)]);
        assert_eq!(disk_target(XML, "/a").as_deref(), Some("vda"));
        assert_eq!(machine_type(XML).as_deref(), Some("pc-q35-10.0"));
        assert_eq!(networks(XML), ["default"]);
        assert_eq!(memory_bytes(XML), 512 << 20);
    }

    #[test]
    fn what_is_not_xml_has_no_facts() {
        assert!(local_disks("<domain").is_empty());
        assert_eq!(memory_bytes(""), 0);
    }
}
