//! Small helpers for the XML that this provider reads and writes itself: pools, volumes, capabilities.

use super::error::Fault;
use xmltree::{Element, EmitterConfig, XMLNode};

/// Parses what libvirt sent. `what` completes "while trying to …".
pub(super) fn parse(text: &str, what: &str) -> Result<Element, Fault> {
    Element::parse(text.as_bytes()).map_err(|e| Fault::odd(what, format!("it is not XML: {e}")))
}

/// An element as text, without a declaration.
pub(super) fn text(element: &Element) -> String {
    let mut out = Vec::new();
    let config = EmitterConfig::new().write_document_declaration(false);
    // Writing to memory fails only for a tree that is not well-formed, which the typed tree rules out.
    if element.write_with_config(&mut out, config).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The element at a path of names.
pub(super) fn at<'a>(root: &'a Element, path: &[&str]) -> Option<&'a Element> {
    path.iter().try_fold(root, |e, name| e.get_child(*name))
}

/// The trimmed text at a path of names, where there is some.
pub(super) fn text_at(root: &Element, path: &[&str]) -> Option<String> {
    let text = at(root, path)?.get_text()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// An attribute of the element at a path of names.
pub(super) fn attribute_at<'a>(root: &'a Element, path: &[&str], name: &str) -> Option<&'a str> {
    at(root, path)?.attributes.get(name).map(String::as_str)
}

/// The child elements of a name.
pub(super) fn children<'a>(root: &'a Element, name: &'a str) -> impl Iterator<Item = &'a Element> {
    root.children.iter().filter_map(XMLNode::as_element).filter(move |e| e.name == name)
}

/// An element with text in it.
pub(super) fn leaf(name: &str, text: impl Into<String>) -> Element {
    let mut e = Element::new(name);
    e.children.push(XMLNode::Text(text.into()));
    e
}

/// An element with children.
pub(super) fn branch(name: &str, children: Vec<Element>) -> Element {
    let mut e = Element::new(name);
    e.children = children.into_iter().map(XMLNode::Element).collect();
    e
}

/// An element with one more attribute.
pub(super) fn with(mut element: Element, attribute: &str, value: &str) -> Element {
    element.attributes.insert(attribute.into(), value.into());
    element
}
