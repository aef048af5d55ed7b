//! Whether what a patch asks for holds already.

use super::contain::{Equivalence, contains, same_thing};
use super::edit::{Edit, EditError};
use super::select::{Selector, at};
use super::tree::{self, Element, Node};

/// The edits that are left to do of a patch on a definition; none where what it asks for holds already.
///
/// A patch that adds an element which is there with other contents gives an edit that replaces it, so that a definition
/// changed by hand does not end with the element twice.
pub(crate) fn unmet(patch: &Edit, root: &Element, equivalence: Equivalence<'_>) -> Result<Vec<Edit>, EditError> {
    let whole = || Ok(vec![patch.clone()]);
    let selected = |selector: &str| -> Result<Vec<Element>, EditError> {
        let places = Selector::parse(selector)?.select(root);
        Ok(places.iter().filter_map(|p| at(root, p).cloned()).collect())
    };
    match patch {
        Edit::SetText { at, text } => {
            let found = selected(at)?;
            let holds = !found.is_empty()
                && found.iter().all(|e| {
                    let mut wanted = Element::new(&e.name).text_of(text);
                    wanted.attributes.clone_from(&e.attributes);
                    e.text() == text.trim() || (!text.is_empty() && contains(&wanted, e, equivalence).is_empty())
                });
            if holds { Ok(Vec::new()) } else { whole() }
        }
        Edit::SetAttribute { at, name, value } => {
            let found = selected(at)?;
            let holds = !found.is_empty()
                && found.iter().all(|e| contains(&Element::new(&e.name).with(name, value), e, equivalence).is_empty());
            if holds { Ok(Vec::new()) } else { whole() }
        }
        Edit::RemoveAttribute { at, name } => {
            let holds = selected(at)?.iter().all(|e| e.attribute(name).is_none());
            if holds { Ok(Vec::new()) } else { whole() }
        }
        Edit::Remove { at } => {
            if selected(at)?.is_empty() {
                Ok(Vec::new())
            } else {
                whole()
            }
        }
        Edit::Replace { at, xml } => {
            let wanted = fragment(xml)?;
            let holds = match selected(at)?.as_slice() {
                [one] => one.name == wanted.name && contains(&wanted, one, equivalence).is_empty(),
                // The new element may not fit the selector any more (another target, another type).
                [] => siblings(at, root)?
                    .iter()
                    .any(|e| e.name == wanted.name && contains(&wanted, e, equivalence).is_empty()),
                _ => false,
            };
            if holds { Ok(Vec::new()) } else { whole() }
        }
        Edit::Add { at: parent, xml } => {
            let wanted = fragment(xml)?;
            let found = selected(parent)?;
            let [one] = found.as_slice() else { return whole() };
            let of_name: Vec<&Element> = one.all(&wanted.name).collect();
            if of_name.iter().any(|e| contains(&wanted, e, equivalence).is_empty()) {
                return Ok(Vec::new());
            }
            match of_name.iter().position(|e| same_thing(&wanted, e)) {
                Some(n) => {
                    Ok(vec![Edit::Replace { at: format!("{parent}/{}[{}]", wanted.name, n + 1), xml: xml.clone() }])
                }
                None => whole(),
            }
        }
    }
}

fn fragment(xml: &str) -> Result<Element, EditError> {
    tree::parse(xml).map_err(|e| EditError::NotXml(e.to_string()))
}

/// The children of the parents of what a selector is about.
fn siblings(selector: &str, root: &Element) -> Result<Vec<Element>, EditError> {
    let selector = Selector::parse(selector)?;
    let parents = selector.select_steps(root, selector.steps.len().saturating_sub(1));
    Ok(parents
        .iter()
        .filter_map(|p| at(root, p))
        .flat_map(|e| e.children.iter())
        .filter_map(|n| if let Node::Element(e) = n { Some(e.clone()) } else { None })
        .collect())
}
