//! The selectors of [`super::Edit`]: a small subset of XPath, from the root, that every libvirt user can read.
//!
//! `/step/step…`; a step is a name (as written, prefix included) or `*`, and any number of conditions:
//! `[@attr='v']`, `[child/@attr='v']`, `[child/child='text']`, `[n]` (the n-th, from 1, of those that the conditions
//! before it leave). Nothing else of XPath is there, so a selector can neither run long nor surprise.

use super::edit::EditError;
use super::tree::{Element, Node};

/// Longest selector, in bytes.
const SELECTOR_MAX: usize = 4096;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// `[child/@attr='v']`; without children for the element's own attribute.
    Attribute { path: Vec<String>, name: String, value: String },
    /// `[child='text']`.
    Text { path: Vec<String>, value: String },
    /// `[n]`.
    Position(usize),
}

/// Where an element is: the index among its parent's children, from the root's children on. Empty for the root.
pub(super) type Place = Vec<usize>;

impl Selector {
    pub(super) fn parse(text: &str) -> Result<Self, EditError> {
        let error = |why: &str| EditError::Selector { selector: text.to_owned(), why: why.to_owned() };
        if text.len() > SELECTOR_MAX {
            return Err(error("it is longer than 4096 bytes"));
        }
        let mut scan = Scan { rest: text };
        let mut steps = Vec::new();
        while !scan.rest.is_empty() {
            if !scan.eat('/') {
                return Err(error(if steps.is_empty() {
                    "it must begin with `/`, like `/domain/devices`"
                } else {
                    "a step must be followed by `/` or `[`"
                }));
            }
            let name = scan.name();
            if name.is_empty() {
                return Err(error("a step has no name"));
            }
            let mut conditions = Vec::new();
            while scan.eat('[') {
                conditions.push(scan.condition().map_err(error)?);
            }
            steps.push(Step { name: name.to_owned(), conditions });
        }
        if steps.is_empty() {
            return Err(error("it must begin with `/`, like `/domain/devices`"));
        }
        Ok(Self { steps })
    }

    /// Every element that it selects, in the order of the document.
    pub(super) fn select(&self, root: &Element) -> Vec<Place> {
        self.select_steps(root, self.steps.len())
    }

    /// As [`Selector::select`], for the first `count` steps.
    pub(super) fn select_steps(&self, root: &Element, count: usize) -> Vec<Place> {
        let mut found: Vec<Place> = Vec::new();
        for (i, step) in self.steps.iter().take(count).enumerate() {
            if i == 0 {
                found = step.of(std::iter::once((0, root))).map(|_| Place::new()).into_iter().collect();
                continue;
            }
            let mut next = Vec::new();
            for place in found {
                let Some(parent) = at(root, &place) else { continue };
                let children = parent.children.iter().enumerate().filter_map(|(i, c)| match c {
                    Node::Element(e) => Some((i, e)),
                    _ => None,
                });
                for index in step.many(children) {
                    let mut child = place.clone();
                    child.push(index);
                    next.push(child);
                }
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn of<'a>(&self, root: impl Iterator<Item = (usize, &'a Element)>) -> Option<usize> {
        self.many(root).first().copied()
    }

    fn many<'a>(&self, siblings: impl Iterator<Item = (usize, &'a Element)>) -> Vec<usize> {
        let mut left: Vec<(usize, &Element)> =
            siblings.filter(|(_, e)| self.name == "*" || e.name == self.name).collect();
        for condition in &self.conditions {
            left = match condition {
                Condition::Position(n) => left.into_iter().skip(n - 1).take(1).collect(),
                other => left.into_iter().filter(|(_, e)| other.holds(e)).collect(),
            };
        }
        left.into_iter().map(|(i, _)| i).collect()
    }

    /// Whether an element can be made from the step alone: a plain name, or a name with attributes of its own.
    pub(super) fn makes(&self) -> Option<Element> {
        if self.name == "*" {
            return None;
        }
        let mut made = Element::new(&self.name);
        for condition in &self.conditions {
            match condition {
                Condition::Attribute { path, name, value } if path.is_empty() => made.set(name, value),
                _ => return None,
            }
        }
        Some(made)
    }
}

impl Condition {
    fn holds(&self, element: &Element) -> bool {
        match self {
            Self::Attribute { path, name, value } => {
                any(element, path, &mut |e| e.attribute(name) == Some(value.as_str()))
            }
            Self::Text { path, value } => any(element, path, &mut |e| e.text() == *value),
            Self::Position(_) => true,
        }
    }
}

/// Whether some descendant along the path fits.
fn any(element: &Element, path: &[String], fits: &mut impl FnMut(&Element) -> bool) -> bool {
    match path.split_first() {
        None => fits(element),
        Some((first, rest)) => element.all(first).any(|child| any(child, rest, fits)),
    }
}

/// The element at a place.
pub(super) fn at<'a>(root: &'a Element, place: &[usize]) -> Option<&'a Element> {
    place.iter().try_fold(root, |e, i| match e.children.get(*i) {
        Some(Node::Element(child)) => Some(child),
        _ => None,
    })
}

/// The element at a place, to change.
pub(super) fn at_mut<'a>(root: &'a mut Element, place: &[usize]) -> Option<&'a mut Element> {
    place.iter().try_fold(root, |e, i| match e.children.get_mut(*i) {
        Some(Node::Element(child)) => Some(child),
        _ => None,
    })
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn eat(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn name(&mut self) -> &'a str {
        if let Some(rest) = self.rest.strip_prefix('*') {
            let name = &self.rest[..1];
            self.rest = rest;
            return name;
        }
        let end = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }

    /// What stands after `[`, up to and with `]`.
    fn condition(&mut self) -> Result<Condition, &'static str> {
        let digits = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        if digits > 0 {
            let (number, rest) = self.rest.split_at(digits);
            self.rest = rest;
            let n: usize = number.parse().map_err(|_| "a position is too large")?;
            if n == 0 {
                return Err("positions count from 1");
            }
            return if self.eat(']') { Ok(Condition::Position(n)) } else { Err("`]` is missing") };
        }
        let mut path = Vec::new();
        loop {
            if self.eat('@') {
                let name = self.name().to_owned();
                let value = self.value()?;
                return if name.is_empty() {
                    Err("an attribute has no name")
                } else {
                    Ok(Condition::Attribute { path, name, value })
                };
            }
            let name = self.name();
            if name.is_empty() || name == "*" {
                return Err("a condition is `[@attr='v']`, `[child/@attr='v']`, `[child='text']` or `[n]`");
            }
            path.push(name.to_owned());
            if !self.eat('/') {
                let value = self.value()?;
                return Ok(Condition::Text { path, value });
            }
        }
    }

    /// `='v']`.
    fn value(&mut self) -> Result<String, &'static str> {
        if !self.eat('=') {
            return Err("a condition compares with `=`");
        }
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return Err("a value stands in quotes");
        };
        let inner = &self.rest[1..];
        let end = inner.find(quote).ok_or("a quote is not closed")?;
        let value = inner[..end].to_owned();
        self.rest = &inner[end + 1..];
        if self.eat(']') { Ok(value) } else { Err("`]` is missing") }
    }
}

/// Writes a value as a literal of a selector. A value with both kinds of quotes cannot be written.
pub(crate) fn literal(value: &str) -> Option<String> {
    if !value.contains('\'') {
        Some(format!("'{value}'"))
    } else if !value.contains('"') {
        Some(format!("\"{value}\""))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;

    const XML: &str = "<domain><devices>\
        <disk type='file'><target dev='vda'/><serial>one</serial></disk>\
        <disk type='block'><target dev='vdb'/></disk>\
        <disk type='file'><target dev='vdc'/></disk></devices></domain>";

    fn targets(selector: &str) -> Vec<String> {
        let root = parse(XML).unwrap();
        Selector::parse(selector)
            .unwrap()
            .select(&root)
            .iter()
            .map(|p| at(&root, p).unwrap().attribute_at("target", "dev").unwrap_or("-").to_owned())
            .collect()
    }

    #[test]
    fn selectors_find_what_they_say() {
        assert_eq!(targets("/domain/devices/disk"), ["vda", "vdb", "vdc"]);
        assert_eq!(targets("/domain/devices/disk[2]"), ["vdb"]);
        assert_eq!(targets("/domain/devices/disk[@type='file'][2]"), ["vdc"]);
        assert_eq!(targets("/domain/devices/disk[target/@dev=\"vdb\"]"), ["vdb"]);
        assert_eq!(targets("/domain/devices/disk[serial='one']"), ["vda"]);
        assert_eq!(targets("/domain/*/disk[9]"), [""; 0]);
        assert_eq!(targets("/network/devices"), [""; 0]);
        assert_eq!(targets("/domain/*[1]"), ["-"]);
    }

    #[test]
    fn what_is_not_a_selector_says_why() {
        for (selector, why) in [
            ("", "begin with"),
            ("domain", "begin with"),
            ("/domain//disk", "no name"),
            ("/domain/disk[0]", "from 1"),
            ("/domain/disk[@a]", "="),
            ("/domain/disk[@a='b'", "]"),
            ("/domain/disk[@a='b]", "quote"),
            ("/domain/disk[last()]", "="),
            ("/domain/disk[]", "condition"),
            ("/domain/disk[99999999999999999999999]", "too large"),
            ("/domain/disk x", "followed by"),
        ] {
            match Selector::parse(selector) {
                Err(EditError::Selector { why: said, .. }) => assert!(said.contains(why), "{selector}: {said}"),
                other => panic!("{selector}: {other:?}"),
            }
        }
    }
}
