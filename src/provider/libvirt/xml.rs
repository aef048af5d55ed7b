//! Reading the XML that libvirt sends, as an answer that may make no sense.

use super::error::Fault;
use crate::domain_xml::{self, Element};

/// Parses what libvirt sent. `what` completes "while trying to …".
pub(super) fn parse(text: &str, what: &str) -> Result<Element, Fault> {
    domain_xml::parse(text).map_err(|e| Fault::odd(what, format!("it is not XML: {e}")))
}

/// The text at a path of names, where there is some.
pub(super) fn text_at(root: &Element, path: &str) -> Option<String> {
    root.text_at(path).filter(|t| !t.is_empty())
}

/// The child elements of a child: `below(domain, "devices", "disk")`.
pub(super) fn below<'a>(root: &'a Element, child: &str, name: &'a str) -> impl Iterator<Item = &'a Element> {
    root.get(child).into_iter().flat_map(move |e| e.all(name))
}
