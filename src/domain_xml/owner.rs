//! The ownership mark: an element in a domain's `<metadata>`. libvirt keeps it over restarts and carries it along in
//! migrations; its absence means that Drover does not own the domain.
//!
//! ```xml
//! <drover:machine xmlns:drover='https://drover.dev/xmlns/libvirt/1' fleet='default' name='web-1' delete='no'>
//!   <drover:volume pool='images' name='web-1-root.qcow2'/>
//! </drover:machine>
//! ```

use super::tree::{self, Element, Node};
use crate::observed::{OWNER_NAMESPACE, OWNER_PREFIX, OwnedVolume, OwnerMark};

/// The mark as an element, for a definition or for `virDomainSetMetadata`.
pub fn owner_element(mark: &OwnerMark) -> Element {
    let mut element = Element::new(format!("{OWNER_PREFIX}:machine"))
        .with(&format!("xmlns:{OWNER_PREFIX}"), OWNER_NAMESPACE)
        .with("fleet", &mark.fleet)
        .with("name", &mark.name)
        .with("delete", if mark.delete { "yes" } else { "no" });
    for volume in &mark.volumes {
        let volume =
            Element::new(format!("{OWNER_PREFIX}:volume")).with("pool", &volume.pool).with("name", &volume.volume);
        element.children.push(Node::Element(volume));
    }
    element
}

/// The mark as text, for `virDomainSetMetadata` (key [`OWNER_PREFIX`], URI [`OWNER_NAMESPACE`]).
pub fn owner_xml(mark: &OwnerMark) -> String {
    owner_element(mark).to_xml()
}

/// The mark in a domain's definition. `None` where there is none, or one without fleet or name.
pub fn owner_of(domain: &Element) -> Option<OwnerMark> {
    let metadata = domain.get("metadata")?;
    let scopes = [domain, metadata];
    metadata.elements().find_map(|e| read(e, &scopes))
}

/// The mark from what `virDomainGetMetadata` gives: the element alone. libvirt strips the prefix from it there, so only
/// the local name counts.
pub fn parse_owner(xml: &str) -> Option<OwnerMark> {
    let element = tree::parse(xml).ok()?;
    (local(&element.name) == "machine").then(|| fields(&element)).flatten()
}

/// Where in `<metadata>` the mark stands, as a child's index.
pub(crate) fn owner_index(domain: &Element) -> Option<usize> {
    let metadata = domain.get("metadata")?;
    let scopes = [domain, metadata];
    metadata.elements().position(|e| is_mark(e, &scopes))
}

fn read(element: &Element, scopes: &[&Element]) -> Option<OwnerMark> {
    is_mark(element, scopes).then(|| fields(element)).flatten()
}

fn is_mark(element: &Element, scopes: &[&Element]) -> bool {
    let declaration = match element.name.split_once(':') {
        Some((prefix, "machine")) => format!("xmlns:{prefix}"),
        None if element.name == "machine" => "xmlns".to_owned(),
        _ => return false,
    };
    // The nearest declaration counts: the element's own, then those around it from the inside out.
    std::iter::once(element).chain(scopes.iter().rev().copied()).find_map(|e| e.attribute(&declaration))
        == Some(OWNER_NAMESPACE)
}

fn fields(element: &Element) -> Option<OwnerMark> {
    Some(OwnerMark {
        fleet: element.attribute("fleet")?.to_owned(),
        name: element.attribute("name")?.to_owned(),
        delete: element.attribute("delete") == Some("yes"),
        volumes: element
            .elements()
            .filter(|e| local(&e.name) == "volume")
            .filter_map(|e| {
                Some(OwnedVolume { pool: e.attribute("pool")?.to_owned(), volume: e.attribute("name")?.to_owned() })
            })
            .collect(),
    })
}

fn local(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, local)| local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> OwnerMark {
        OwnerMark {
            fleet: "prod".into(),
            name: "web-1".into(),
            delete: true,
            volumes: vec![OwnedVolume { pool: "images".into(), volume: "web-1-root.qcow2".into() }],
        }
    }

    #[test]
    fn the_mark_comes_back_however_libvirt_prints_it() {
        let domain = Element::new("domain").child(Element::new("metadata").child(owner_element(&mark())));
        assert_eq!(owner_of(&domain), Some(mark()));
        let printed = domain.to_xml().replace("drover:", "d:").replace("xmlns:drover", "xmlns:d");
        assert_eq!(owner_of(&tree::parse(&printed).unwrap()), Some(mark()));
        // virDomainGetMetadata drops the prefix of the outer element, its declaration included.
        let bare =
            "<machine fleet='prod' name='web-1' delete='yes'><volume pool='images' name='web-1-root.qcow2'/></machine>";
        assert_eq!(parse_owner(bare), Some(mark()));
        assert_eq!(parse_owner(&owner_xml(&mark())), Some(mark()));
    }

    #[test]
    fn another_programs_element_is_not_a_mark() {
        for metadata in [
            "<machine fleet='a' name='b'/>",
            "<x:machine xmlns:x='urn:other' fleet='a' name='b'/>",
            "<drover:machine xmlns:drover='https://drover.dev/xmlns/libvirt/1' name='b'/>",
            "<drover:other xmlns:drover='https://drover.dev/xmlns/libvirt/1' fleet='a' name='b'/>",
        ] {
            let domain = tree::parse(&format!("<domain><metadata>{metadata}</metadata></domain>")).unwrap();
            assert_eq!(owner_of(&domain), None, "{metadata}");
        }
    }
}
