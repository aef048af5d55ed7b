//! The one place where this provider edits a domain's definition: through [`crate::domain_xml`].

use crate::action::DomainXmlEdit;
use crate::domain_xml::EditError;
use xmltree::{Element, XMLNode};

/// Applies edits to a definition.
pub(super) fn apply(definition: &str, edits: &[DomainXmlEdit]) -> Result<String, EditError> {
    let mut root = Element::parse(definition.as_bytes()).map_err(|e| EditError::NotXml(e.to_string()))?;
    for edit in edits {
        match edit {
            DomainXmlEdit::SetText { at, text } => {
                let e = select(&mut root, at)?;
                e.children = vec![XMLNode::Text(text.clone())];
            }
            DomainXmlEdit::SetAttribute { at, name, value } => {
                select(&mut root, at)?.attributes.insert(name.clone(), value.clone());
            }
            DomainXmlEdit::RemoveAttribute { at, name } => {
                select(&mut root, at)?.attributes.shift_remove(name);
            }
            DomainXmlEdit::Add { at, .. } | DomainXmlEdit::Replace { at, .. } | DomainXmlEdit::Remove { at } => {
                return Err(EditError::Nothing(at.clone()));
            }
        }
    }
    Ok(super::xml::text(&root))
}

fn select<'a>(root: &'a mut Element, at: &str) -> Result<&'a mut Element, EditError> {
    let nothing = || EditError::Nothing(at.to_owned());
    let mut element = root;
    for name in at.trim_start_matches('/').split('/').skip(1) {
        if element.get_child(name).is_none() {
            element.children.push(XMLNode::Element(Element::new(name)));
        }
        element = element.get_mut_child(name).ok_or_else(nothing)?;
    }
    Ok(element)
}

/// Whether two definitions say the same, blanks between elements apart.
pub(super) fn same(one: &str, other: &str) -> bool {
    fn bare(element: &mut Element) {
        element
            .children
            .retain(|c| !matches!(c, XMLNode::Comment(_)) && !c.as_text().is_some_and(|t| t.trim().is_empty()));
        for child in element.children.iter_mut().filter_map(XMLNode::as_mut_element) {
            bare(child);
        }
    }
    match (Element::parse(one.as_bytes()), Element::parse(other.as_bytes())) {
        (Ok(mut one), Ok(mut other)) => {
            bare(&mut one);
            bare(&mut other);
            one == other
        }
        _ => false,
    }
}
