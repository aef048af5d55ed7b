//! The marks of moves: what VirtualMachineMigrations have done to a domain, and what they are about to do. An element of its
//! own in `<metadata>`, because a domain that Drover moves need not be Drover's; libvirt carries it along in migrations.
//!
//! ```xml
//! <drovermoves:moves xmlns:drovermoves='https://drover.dev/xmlns/libvirt/moves/1'>
//!   <drovermoves:move fleet='default' migration='empty-a' revision='…' from='kvm-a' to='kvm-b' temporary='no' done='yes'/>
//! </drovermoves:moves>
//! ```

use super::tree::{self, Element, Node};
use crate::observed::{MOVES_NAMESPACE, MOVES_PREFIX, MoveMark};

/// The marks as an element, for `virDomainSetMetadata`.
pub fn moves_element(marks: &[MoveMark]) -> Element {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let mut element =
        Element::new(format!("{MOVES_PREFIX}:moves")).with(&format!("xmlns:{MOVES_PREFIX}"), MOVES_NAMESPACE);
    for mark in marks {
        let one = Element::new(format!("{MOVES_PREFIX}:move"))
            .with("fleet", &mark.fleet)
            .with("migration", &mark.migration)
            .with("revision", &mark.revision)
            .with("from", &mark.from)
            .with("to", &mark.to)
            .with("temporary", yes(mark.temporary))
            .with("done", yes(mark.done));
        element.children.push(Node::Element(one));
    }
    element
}

/// The marks in a domain's definition, in order.
pub fn moves_of(domain: &Element) -> Vec<MoveMark> {
    let Some(metadata) = domain.get("metadata") else { return Vec::new() };
    let element = moves_index(domain).and_then(|i| metadata.elements().nth(i));
    element.map(marks).unwrap_or_default()
}

/// The marks from what `virDomainGetMetadata` gives: the element alone, its prefix stripped.
pub fn parse_moves(xml: &str) -> Vec<MoveMark> {
    match tree::parse(xml) {
        Ok(element) if local(&element.name) == "moves" => marks(&element),
        _ => Vec::new(),
    }
}

/// A definition with these marks in the place of those that it has; without the element where there are none.
pub fn with_moves(domain: &mut Element, marks: &[MoveMark]) {
    let there = moves_index(domain);
    let metadata = domain.ensure("metadata");
    if let Some(there) = there {
        let mut element = 0;
        metadata.children.retain(|n| {
            let is_element = matches!(n, Node::Element(_));
            element += usize::from(is_element);
            !(is_element && element == there + 1)
        });
    }
    if !marks.is_empty() {
        metadata.children.push(Node::Element(moves_element(marks)));
    }
    if metadata.elements().next().is_none() {
        domain.remove("metadata");
    }
}

/// Where in `<metadata>` the marks stand, as a child's index.
pub(crate) fn moves_index(domain: &Element) -> Option<usize> {
    let metadata = domain.get("metadata")?;
    metadata.elements().position(|e| {
        let declaration = match e.name.split_once(':') {
            Some((prefix, "moves")) => format!("xmlns:{prefix}"),
            None if e.name == "moves" => "xmlns".to_owned(),
            _ => return false,
        };
        [e, metadata, domain].into_iter().find_map(|scope| scope.attribute(&declaration)) == Some(MOVES_NAMESPACE)
    })
}

fn marks(element: &Element) -> Vec<MoveMark> {
    let read = |e: &Element| {
        let text = |name: &str| e.attribute(name).map(str::to_owned);
        Some(MoveMark {
            fleet: text("fleet")?,
            migration: text("migration")?,
            revision: text("revision")?,
            from: text("from")?,
            to: text("to")?,
            temporary: e.attribute("temporary") == Some("yes"),
            done: e.attribute("done") == Some("yes"),
        })
    };
    let mut marks: Vec<_> = element.elements().filter(|e| local(&e.name) == "move").filter_map(read).collect();
    marks.sort();
    marks
}

fn local(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, local)| local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain_xml::owner_of;

    fn mark(migration: &str) -> MoveMark {
        MoveMark {
            fleet: "prod".into(),
            migration: migration.into(),
            revision: "0123".into(),
            from: "a".into(),
            to: "b".into(),
            temporary: true,
            done: false,
        }
    }

    #[test]
    fn marks_come_back_and_disturb_nothing_beside_them() {
        let owner =
            "<drover:machine xmlns:drover='https://drover.dev/xmlns/libvirt/1' fleet='f' name='n' delete='no'/>";
        let text = format!("<domain><metadata><x:y xmlns:x='urn:x'/>{owner}</metadata></domain>");
        let mut domain = tree::parse(&text).unwrap();
        assert!(moves_of(&domain).is_empty());
        with_moves(&mut domain, &[mark("one"), mark("two")]);
        assert_eq!(moves_of(&domain), [mark("one"), mark("two")]);
        let printed = domain.to_xml().replace("drovermoves", "m");
        assert_eq!(moves_of(&tree::parse(&printed).unwrap()), [mark("one"), mark("two")]);
        with_moves(&mut domain, &[mark("two")]);
        assert_eq!(moves_of(&domain), [mark("two")]);
        assert_eq!(owner_of(&domain).unwrap().name, "n");
        with_moves(&mut domain, &[]);
        assert_eq!(domain, tree::parse(&text).unwrap());
    }

    #[test]
    fn a_domain_without_other_metadata_is_what_it_was_once_its_marks_are_gone() {
        let before = tree::parse("<domain><name>x</name></domain>").unwrap();
        let mut domain = before.clone();
        with_moves(&mut domain, &[mark("one")]);
        assert_eq!(parse_moves(&moves_element(&[mark("one")]).to_xml()), [mark("one")]);
        with_moves(&mut domain, &[]);
        assert_eq!(domain, before);
    }
}
