//! One disk of a definition: where it is, what it is being copied to, and the definition with the disk elsewhere.

use super::tree::{self, Element, Node, XmlError};

/// A copy of a disk that a block job is making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where it is made; nothing where that is no path on the host.
    pub path: Option<String>,
    /// Whether it is complete and kept so, so that the disk can go over to it.
    pub ready: bool,
}

fn path(source: Option<&Element>) -> Option<&str> {
    let source = source?;
    source.attribute("file").or_else(|| source.attribute("dev")).filter(|p| !p.is_empty())
}

fn disk<'e>(domain: &'e Element, target: &str) -> Option<&'e Element> {
    domain.get("devices")?.all("disk").find(|d| d.attribute_at("target", "dev") == Some(target))
}

/// The path of the disk with a target, where it is one on the host.
pub fn path_of_disk<'e>(domain: &'e Element, target: &str) -> Option<&'e str> {
    path(disk(domain, target)?.get("source"))
}

/// The copy that is being made of the disk with a target.
pub fn mirror_of_disk(domain: &Element, target: &str) -> Option<Mirror> {
    let mirror = disk(domain, target)?.get("mirror")?;
    // Older releases wrote the path as an attribute of the mirror itself.
    let path = path(mirror.get("source")).or_else(|| mirror.attribute("file")).map(str::to_owned);
    Some(Mirror { path, ready: mirror.attribute("ready") == Some("yes") })
}

/// The copies that are being made of a machine's disks: target and path of each.
pub fn mirrors(xml: &str) -> Vec<(String, String)> {
    let Ok(root) = tree::parse(xml) else { return Vec::new() };
    let targets = root.get("devices").into_iter().flat_map(|d| d.all("disk"));
    let targets = targets.filter_map(|d| d.attribute_at("target", "dev"));
    targets.filter_map(|t| Some((t.to_owned(), mirror_of_disk(&root, t)?.path?))).collect()
}

/// A definition in which the disk with a target is at another path. `None` where there is no such disk.
///
/// # Errors
/// When the definition is not XML.
pub fn with_disk_at(
    xml: &str,
    target: &str,
    path: &str,
    block: bool,
    format: &str,
) -> Result<Option<String>, XmlError> {
    let mut root = tree::parse(xml)?;
    let (kind, attribute) = if block { ("block", "dev") } else { ("file", "file") };
    let is_it = |d: &&mut Element| d.name == "disk" && d.attribute_at("target", "dev") == Some(target);
    let Some(disk) =
        root.elements_mut().find(|e| e.name == "devices").and_then(|devices| devices.elements_mut().find(is_it))
    else {
        return Ok(None);
    };
    // Who may open it is the same at the new place.
    let labels: Vec<Element> = disk.get("source").into_iter().flat_map(|s| s.all("seclabel")).cloned().collect();
    for child in ["source", "backingStore", "mirror"] {
        disk.remove(child);
    }
    disk.set("type", kind);
    disk.ensure("driver").set("type", format);
    let source = labels.into_iter().fold(Element::new("source").with(attribute, path), Element::child);
    disk.children.push(Node::Element(source));
    Ok(Some(root.to_xml()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain><name>x</name><devices><disk type='file' device='disk'>
        <driver name='qemu' type='raw' cache='none'/><source file='/a' index='1'><seclabel model='dac' relabel='no'/></source><backingStore type='file'><source file='/base'/></backingStore>
        <mirror type='file' job='copy' ready='yes'><format type='qcow2'/><source file='/b'/></mirror>
        <target dev='vda' bus='virtio'/><alias name='ua-root'/></disk>
        <disk type='block'><source dev='/dev/vg/c'/><target dev='vdb'/></disk></devices></domain>";

    #[test]
    fn a_disk_and_its_copy_are_found_by_target() {
        let root = tree::parse(XML).unwrap();
        assert_eq!(path_of_disk(&root, "vda"), Some("/a"));
        assert_eq!(path_of_disk(&root, "vdb"), Some("/dev/vg/c"));
        assert_eq!(path_of_disk(&root, "vdc"), None);
        assert_eq!(mirror_of_disk(&root, "vda"), Some(Mirror { path: Some("/b".into()), ready: true }));
        assert_eq!(mirror_of_disk(&root, "vdb"), None);
        assert_eq!(mirrors(XML), [("vda".to_owned(), "/b".to_owned())]);
    }

    #[test]
    fn a_disk_that_moved_keeps_all_but_its_place() {
        let moved = with_disk_at(XML, "vda", "/dev/vg/<x", true, "qcow2").unwrap().unwrap();
        let root = tree::parse(&moved).unwrap();
        assert_eq!(path_of_disk(&root, "vda"), Some("/dev/vg/<x"));
        let disk = disk(&root, "vda").unwrap();
        assert_eq!((disk.attribute("type"), disk.attribute("device")), (Some("block"), Some("disk")));
        assert_eq!(disk.attribute_at("driver", "type"), Some("qcow2"));
        assert_eq!(disk.attribute_at("driver", "cache"), Some("none"));
        assert_eq!(disk.attribute_at("alias", "name"), Some("ua-root"));
        assert_eq!(disk.get("source").unwrap().attribute_at("seclabel", "relabel"), Some("no"));
        assert!(disk.get("mirror").is_none() && disk.get("backingStore").is_none());
        assert_eq!(path_of_disk(&root, "vdb"), Some("/dev/vg/c"), "the others stay");
        assert_eq!(with_disk_at(XML, "vdz", "/x", false, "raw").unwrap(), None);
    }
}
