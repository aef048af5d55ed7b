//! The ownership mark in a domain's `<metadata>`, read and written:
//! `<drover:owner xmlns:drover="https://drover.dev/xmlns/libvirt/1" fleet="default" name="web-1" delete="yes">` with a
//! `<drover:volume pool="…" volume="…"/>` for each volume that Drover made.

use crate::observed::{OWNER_NAMESPACE, OwnedVolume, OwnerMark};
use xmltree::{Element, XMLNode};

/// The mark in a domain's definition.
pub(super) fn read(domain: &Element) -> Option<OwnerMark> {
    let mark = domain
        .get_child("metadata")?
        .children
        .iter()
        .filter_map(XMLNode::as_element)
        .find(|e| e.namespace.as_deref() == Some(OWNER_NAMESPACE) && e.name == "owner")?;
    let volumes = mark
        .children
        .iter()
        .filter_map(XMLNode::as_element)
        .filter(|e| e.name == "volume")
        .filter_map(|e| Some(OwnedVolume { pool: attribute(e, "pool")?, volume: attribute(e, "volume")? }))
        .collect();
    Some(OwnerMark {
        fleet: attribute(mark, "fleet")?,
        name: attribute(mark, "name")?,
        delete: attribute(mark, "delete").is_some_and(|d| d == "yes"),
        volumes,
    })
}

/// The element for `virDomainSetMetadata`, which adds the namespace and prefix itself.
pub(super) fn element(mark: &OwnerMark) -> String {
    let mut root = Element::new("owner");
    root.attributes.insert("fleet".into(), mark.fleet.clone());
    root.attributes.insert("name".into(), mark.name.clone());
    if mark.delete {
        root.attributes.insert("delete".into(), "yes".into());
    }
    for v in &mark.volumes {
        let mut volume = Element::new("volume");
        volume.attributes.insert("pool".into(), v.pool.clone());
        volume.attributes.insert("volume".into(), v.volume.clone());
        root.children.push(XMLNode::Element(volume));
    }
    super::xml::text(&root)
}

fn attribute(e: &Element, name: &str) -> Option<String> {
    e.attributes.get(name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mark = OwnerMark {
            fleet: "a\"<&b".into(),
            name: "web-1".into(),
            delete: true,
            volumes: vec![OwnedVolume { pool: "images".into(), volume: "web-1-root.qcow2".into() }],
        };
        // As libvirt stores it: the prefix and namespace on the root, none on the children.
        let stored = element(&mark)
            .replacen("<owner", &format!("<drover:owner xmlns:drover=\"{OWNER_NAMESPACE}\""), 1)
            .replace("</owner>", "</drover:owner>");
        let domain =
            Element::parse(format!("<domain><metadata><x:y xmlns:x='urn:x'/>{stored}</metadata></domain>").as_bytes())
                .unwrap();
        assert_eq!(read(&domain), Some(mark));
    }

    #[test]
    fn a_mark_of_somebody_else_is_none() {
        let other = "<domain><metadata><owner fleet='x' name='y'/></metadata></domain>";
        assert_eq!(read(&Element::parse(other.as_bytes()).unwrap()), None);
    }
}
