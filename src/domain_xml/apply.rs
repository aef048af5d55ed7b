//! Carries [`Edit`]s out.

use super::edit::{Edit, EditError};
use super::select::{Place, Selector, at_mut};
use super::tree::{self, Element, Node};
use sha2::{Digest as _, Sha256};

/// Namespace of QEMU's additions to domain XML (libvirt.org/drvqemu.html#pass-through-of-arbitrary-qemu-commands).
const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// Applies edits, each to what the ones before it left.
///
/// - `SetText` and `SetAttribute` change every element that is selected; where there is none it is made, with the plain
///   elements on the way to it. The last step of the selector may carry conditions on its own attributes
///   (`/domain/cpu/feature[@name='vmx']`), which the new element then has; nothing is made from other conditions.
/// - `Add` and `Replace` need exactly one place.
/// - `Remove` and `RemoveAttribute` of what is not there succeed: what they ask for holds. An edit that is applied twice
///   thus does no harm, `Add` excepted.
///
/// # Errors
/// [`EditError`]; the definition is then unchanged.
pub fn apply(xml: &str, edits: &[Edit]) -> Result<String, EditError> {
    let mut root = tree::parse(xml).map_err(|e| EditError::NotXml(e.to_string()))?;
    for edit in edits {
        apply_one(&mut root, edit)?;
    }
    declare_qemu(&mut root);
    Ok(root.to_xml())
}

/// A digest of a definition's text as given: SHA-256, in hexadecimal. Two readings with one digest are one definition.
pub fn digest(xml: &str) -> String {
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(xml.as_bytes()) {
        use std::fmt::Write as _;
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Applies one edit to a tree.
pub(crate) fn apply_one(root: &mut Element, edit: &Edit) -> Result<(), EditError> {
    match edit {
        Edit::SetText { at, text } => {
            for place in select_or_make(root, at)? {
                if let Some(e) = at_mut(root, &place) {
                    e.set_text(text);
                }
            }
        }
        Edit::SetAttribute { at, name, value } => {
            for place in select_or_make(root, at)? {
                if let Some(e) = at_mut(root, &place) {
                    e.set(name, value);
                }
            }
        }
        Edit::RemoveAttribute { at, name } => {
            for place in Selector::parse(at)?.select(root) {
                if let Some(e) = at_mut(root, &place) {
                    e.unset(name);
                }
            }
        }
        Edit::Add { at, xml } => {
            let new = fragment(xml)?;
            let selector = Selector::parse(at)?;
            let place = match only(&selector, at, root)? {
                Some(place) => place,
                None => make(root, &selector, selector.steps.len(), at)?,
            };
            if let Some(parent) = at_mut(root, &place) {
                parent.children.push(Node::Element(new));
            }
        }
        Edit::Replace { at, xml } => {
            let new = fragment(xml)?;
            let selector = Selector::parse(at)?;
            match only(&selector, at, root)? {
                Some(place) => {
                    if let Some(old) = at_mut(root, &place) {
                        *old = new;
                    }
                }
                None if selector.steps.len() > 1 => {
                    let parent = make(root, &selector, selector.steps.len() - 1, at)?;
                    if let Some(parent) = at_mut(root, &parent) {
                        parent.children.push(Node::Element(new));
                    }
                }
                None => return Err(EditError::Nothing(at.clone())),
            }
        }
        Edit::Remove { at } => {
            // From the last to the first, so that the places before stay true.
            for place in Selector::parse(at)?.select(root).iter().rev() {
                match place.split_last() {
                    Some((index, parent)) => {
                        if let Some(parent) = at_mut(root, parent) {
                            parent.children.remove(*index);
                        }
                    }
                    None => {
                        return Err(EditError::Selector {
                            selector: at.clone(),
                            why: "the definition itself cannot be removed".into(),
                        });
                    }
                }
            }
        }
    }
    Ok(())
}

impl Edit {
    /// Checks what can be known of an edit without a definition: that its selector is one, begins at the definition, and
    /// that what it adds is one element.
    ///
    /// # Errors
    /// [`EditError::Selector`] and [`EditError::NotXml`].
    pub fn check(&self) -> Result<(), EditError> {
        let (at, xml) = match self {
            Self::Add { at, xml } | Self::Replace { at, xml } => (at, Some(xml)),
            Self::SetText { at, .. }
            | Self::SetAttribute { at, .. }
            | Self::RemoveAttribute { at, .. }
            | Self::Remove { at } => (at, None),
        };
        Selector::parse(at)?;
        if at != "/domain" && !at.starts_with("/domain/") && !at.starts_with("/domain[") {
            return Err(EditError::Selector { selector: at.clone(), why: "it does not begin with `/domain`".into() });
        }
        xml.map_or(Ok(()), |xml| fragment(xml).map(drop))
    }
}

fn fragment(xml: &str) -> Result<Element, EditError> {
    tree::parse(xml).map_err(|e| EditError::NotXml(e.to_string()))
}

/// The one place that is selected, or none.
fn only(selector: &Selector, text: &str, root: &Element) -> Result<Option<Place>, EditError> {
    let mut found = selector.select(root);
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.pop()),
        n => Err(EditError::Selector {
            selector: text.to_owned(),
            why: format!("it selects {n} elements and must select one; say which with `[n]` or another condition"),
        }),
    }
}

fn select_or_make(root: &mut Element, text: &str) -> Result<Vec<Place>, EditError> {
    let selector = Selector::parse(text)?;
    let found = selector.select(root);
    if found.is_empty() { Ok(vec![make(root, &selector, selector.steps.len(), text)?]) } else { Ok(found) }
}

/// Makes the elements of the first `count` steps that are missing, and gives the place of the last.
fn make(root: &mut Element, selector: &Selector, count: usize, text: &str) -> Result<Place, EditError> {
    let nothing = || EditError::Nothing(text.to_owned());
    // The longest part of the way that is there, and is one place.
    let mut there = count;
    let mut place = loop {
        if there == 0 {
            return Err(nothing());
        }
        let mut found = selector.select_steps(root, there);
        match found.len() {
            0 => there -= 1,
            1 => break found.swap_remove(0),
            n => {
                return Err(EditError::Selector {
                    selector: text.to_owned(),
                    why: format!("{n} elements could be the parent of what is missing"),
                });
            }
        }
    };
    for (i, step) in selector.steps.iter().enumerate().take(count).skip(there) {
        // An element on the way that has conditions (`disk[target/@dev='vda']`) is a thing that should be there; an empty
        // one in its place would be nonsense. The last one may have attributes.
        let new = step.makes().filter(|_| i + 1 == count || step.conditions.is_empty()).ok_or_else(nothing)?;
        let parent = at_mut(root, &place).ok_or_else(nothing)?;
        parent.children.push(Node::Element(new));
        place.push(parent.children.len() - 1);
    }
    Ok(place)
}

/// libvirt wants QEMU's namespace declared on the root and prints it so; a patch that adds `qemu:commandline` need not.
pub(crate) fn declare_qemu(root: &mut Element) {
    let used =
        root.elements().any(|e| e.name.starts_with("qemu:") && !e.attributes.iter().any(|(n, _)| n == "xmlns:qemu"));
    if used && root.attribute("xmlns:qemu").is_none() {
        root.set("xmlns:qemu", QEMU_NAMESPACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='kvm'><name>a</name><devices>\
        <disk><driver name='qemu'/><target dev='vda'/></disk><disk><target dev='vdb'/></disk></devices></domain>";

    fn edited(edits: &[Edit]) -> Result<Element, EditError> {
        apply(XML, edits).map(|x| tree::parse(&x).unwrap())
    }

    #[test]
    fn edits_do_what_they_say() {
        let tree = edited(&[
            Edit::SetText { at: "/domain/title".into(), text: "A < B".into() },
            Edit::SetAttribute {
                at: "/domain/devices/disk[target/@dev='vda']/driver".into(),
                name: "cache".into(),
                value: "none".into(),
            },
            Edit::SetAttribute {
                at: "/domain/cpu/feature[@name='vmx']".into(),
                name: "policy".into(),
                value: "disable".into(),
            },
            Edit::Remove { at: "/domain/devices/disk[target/@dev='vdb']".into() },
            Edit::Remove { at: "/domain/devices/disk[target/@dev='vdz']".into() },
            Edit::Add { at: "/domain/devices".into(), xml: "<watchdog model='itco'/>".into() },
            Edit::Replace { at: "/domain/devices/rng".into(), xml: "<rng model='virtio'/>".into() },
            Edit::Replace { at: "/domain/devices/watchdog".into(), xml: "<watchdog model='i6300esb'/>".into() },
            Edit::Add { at: "/domain/qemu:commandline".into(), xml: "<qemu:arg value='-no-hpet'/>".into() },
            Edit::RemoveAttribute { at: "/domain/devices/disk/driver".into(), name: "name".into() },
        ])
        .unwrap();
        assert_eq!(tree.text_at("title").unwrap(), "A < B");
        assert_eq!(tree.attribute_at("devices/disk/driver", "cache"), Some("none"));
        assert_eq!(tree.attribute_at("devices/disk/driver", "name"), None);
        assert_eq!(tree.attribute_at("cpu/feature", "name"), Some("vmx"));
        assert_eq!(tree.attribute_at("cpu/feature", "policy"), Some("disable"));
        assert_eq!(tree.get("devices").unwrap().all("disk").count(), 1);
        assert_eq!(tree.attribute_at("devices/watchdog", "model"), Some("i6300esb"));
        assert_eq!(tree.attribute_at("devices/rng", "model"), Some("virtio"));
        assert_eq!(tree.attribute("xmlns:qemu"), Some(QEMU_NAMESPACE));
    }

    #[test]
    fn a_device_that_is_not_there_is_not_made_up() {
        let at = "/domain/devices/disk[target/@dev='vdx']/driver";
        let set = Edit::SetAttribute { at: at.into(), name: "cache".into(), value: "none".into() };
        assert_eq!(edited(&[set]), Err(EditError::Nothing(at.into())));
        let add = Edit::Add { at: "/network".into(), xml: "<x/>".into() };
        assert_eq!(edited(&[add]), Err(EditError::Nothing("/network".into())));
    }

    #[test]
    fn an_edit_that_could_mean_several_places_is_refused() {
        for edit in [
            Edit::Replace { at: "/domain/devices/disk".into(), xml: "<disk/>".into() },
            Edit::SetText { at: "/domain/devices/disk/serial".into(), text: "1".into() },
            Edit::Remove { at: "/domain".into() },
        ] {
            assert!(matches!(edited(std::slice::from_ref(&edit)), Err(EditError::Selector { .. })), "{edit:?}");
        }
        assert!(matches!(apply("<domain", &[]), Err(EditError::NotXml(_))));
        let bad = Edit::Add { at: "/domain".into(), xml: "<a>".into() };
        assert!(matches!(bad.check(), Err(EditError::NotXml(_))));
        assert!(matches!(Edit::Remove { at: "disk".into() }.check(), Err(EditError::Selector { .. })));
        assert_eq!(Edit::Remove { at: "/domain/nothing".into() }.check(), Ok(()));
        assert!(matches!(edited(&[bad]), Err(EditError::NotXml(_))));
    }

    #[test]
    fn the_digest_is_that_of_the_text() {
        assert_eq!(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_ne!(digest("<a/>"), digest("<a />"));
    }
}
