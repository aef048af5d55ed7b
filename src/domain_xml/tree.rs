//! An XML document as a tree that comes back as it went in: qualified names and attributes are kept verbatim and in
//! order, so that what Drover does not know (`qemu:commandline`, other programs' metadata) survives an edit.
//!
//! Reading is bounded in size, depth and number of nodes, knows no document types and no entities but the five of XML
//! itself: a hostile definition gives an error, not an exhausted machine.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::fmt::Write as _;

/// Largest document that is read, in bytes. Definitions of real machines have some kilobytes.
pub const BYTES_MAX: usize = 1 << 20;

/// Deepest nesting that is read; real definitions have about ten levels.
pub const DEPTH_MAX: usize = 64;

/// Most elements that are read in one document; a machine with 255 vCPUs and hundreds of devices has about 5,000.
/// Comparing and editing take time that grows with the square of it at worst.
pub const ELEMENTS_MAX: usize = 20_000;

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name as written, prefix included: `disk`, `qemu:arg`.
    pub name: String,
    /// Its attributes as written, namespace declarations among them, in order.
    pub attributes: Vec<(String, String)>,
    /// What is in it. Text that is only layout is left out.
    pub children: Vec<Node>,
}

/// What an element holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// An element.
    Element(Element),
    /// Text, resolved; sections of character data too.
    Text(String),
    /// A comment.
    Comment(String),
    /// A processing instruction.
    Instruction(String),
}

/// Why a text is not a document that Drover reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} (at byte {at})")]
pub struct XmlError {
    /// What is wrong.
    pub why: String,
    /// Where, in bytes from the start.
    pub at: u64,
}

/// Reads a document.
///
/// # Errors
/// When the text is not well-formed, has a document type, an unknown entity, or passes one of the limits above.
pub fn parse(text: &str) -> Result<Element, XmlError> {
    if text.len() > BYTES_MAX {
        return Err(XmlError {
            why: format!("the document has {} bytes; at most {BYTES_MAX} are read", text.len()),
            at: 0,
        });
    }
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut root: Option<Element> = None;
    let mut elements = 0usize;
    loop {
        let at = reader.buffer_position();
        let error = |why: String| XmlError { why, at };
        let event = reader.read_event().map_err(|e| XmlError { why: e.to_string(), at: reader.error_position() })?;
        match event {
            Event::Start(start) | Event::Empty(start) if root.is_some() && open.is_empty() => {
                return Err(error(format!("`{}` comes after the end of the document", start.name().as_ref())));
            }
            Event::Start(start) => {
                elements += 1;
                if open.len() >= DEPTH_MAX {
                    return Err(error(format!("elements are nested deeper than {DEPTH_MAX}")));
                }
                if elements > ELEMENTS_MAX {
                    return Err(error(format!("more than {ELEMENTS_MAX} elements")));
                }
                open.push(element(&start).map_err(error)?);
            }
            Event::Empty(start) => {
                elements += 1;
                if elements > ELEMENTS_MAX {
                    return Err(error(format!("more than {ELEMENTS_MAX} elements")));
                }
                close(element(&start).map_err(error)?, &mut open, &mut root);
            }
            // The reader has checked that the names match.
            Event::End(_) => {
                if let Some(mut done) = open.pop() {
                    done.drop_layout();
                    close(done, &mut open, &mut root);
                }
            }
            Event::Text(text) => {
                add_text(&text.xml10_content(), &mut open).map_err(error)?;
            }
            Event::CData(text) => add_text(&text.xml10_content(), &mut open).map_err(error)?,
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref().map_err(|e| error(e.to_string()))? {
                    Some(c) if is_xml_char(c) => c.to_string(),
                    Some(c) => return Err(error(format!("U+{:04X} is not allowed in XML", u32::from(c)))),
                    None => match reference.xml10_content().as_ref() {
                        "lt" => "<".into(),
                        "gt" => ">".into(),
                        "amp" => "&".into(),
                        "apos" => "'".into(),
                        "quot" => "\"".into(),
                        other => return Err(error(format!("`&{other};` is not an entity of XML"))),
                    },
                };
                add_text(&resolved, &mut open).map_err(error)?;
            }
            Event::Comment(comment) => {
                if let Some(parent) = open.last_mut() {
                    parent.children.push(Node::Comment(comment.xml10_content().into_owned()));
                }
            }
            Event::PI(instruction) => {
                if let Some(parent) = open.last_mut() {
                    parent.children.push(Node::Instruction(instruction.into_inner().into_owned()));
                }
            }
            Event::Decl(_) => {}
            Event::DocType(_) => return Err(error("document types are not read".into())),
            Event::Eof => break,
        }
    }
    if let Some(left) = open.last() {
        return Err(XmlError { why: format!("`{}` is not closed", left.name), at: text.len() as u64 });
    }
    root.ok_or(XmlError { why: "there is no element".into(), at: text.len() as u64 })
}

fn element(start: &BytesStart<'_>) -> Result<Element, String> {
    let name = start.name().as_ref().to_owned();
    if !is_name(&name) {
        return Err(format!("`{name}` is not a name"));
    }
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let name = attribute.key.as_ref().to_owned();
        if !is_name(&name) {
            return Err(format!("`{name}` is not a name"));
        }
        let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(|e| e.to_string())?;
        check_chars(&value)?;
        attributes.push((name, value.into_owned()));
    }
    Ok(Element { name, attributes, children: Vec::new() })
}

/// Names are not checked to the letter of the standard, but enough that what is written is what was read.
fn is_name(name: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && (name.as_bytes().iter().all(plain)
            || name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')))
}

/// Refuses a character that XML does not allow.
fn check_chars(text: &str) -> Result<(), String> {
    // Bytes from a blank on are fine but for 0xEF, with which the two that are not (U+FFFE, U+FFFF) begin.
    if text.bytes().all(|b| b >= b' ' && b != 0xEF) {
        return Ok(());
    }
    match text.chars().find(|c| !is_xml_char(*c)) {
        Some(c) => Err(format!("U+{:04X} is not allowed in XML", u32::from(c))),
        None => Ok(()),
    }
}

/// The characters that XML 1.0 allows (section 2.2).
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && !matches!(c, '\u{FFFE}' | '\u{FFFF}'))
}

fn close(done: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(Node::Element(done)),
        None => *root = Some(done),
    }
}

fn add_text(text: &str, open: &mut [Element]) -> Result<(), String> {
    check_chars(text)?;
    match open.last_mut() {
        Some(parent) => match parent.children.last_mut() {
            Some(Node::Text(before)) => before.push_str(text),
            _ => parent.children.push(Node::Text(text.to_owned())),
        },
        None if text.trim().is_empty() => {}
        None => return Err("there is text outside the document's element".into()),
    }
    Ok(())
}

impl Element {
    /// An empty element.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// With a child.
    #[must_use]
    pub fn child(mut self, child: Element) -> Self {
        self.children.push(Node::Element(child));
        self
    }

    /// With text in place of what it holds.
    #[must_use]
    pub fn text_of(mut self, text: impl Into<String>) -> Self {
        self.set_text(text);
        self
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Sets an attribute, in its place where it is there already.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.attributes.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => *v = value,
            None => self.attributes.push((name.to_owned(), value)),
        }
    }

    /// Removes an attribute.
    pub fn unset(&mut self, name: &str) {
        self.attributes.retain(|(n, _)| n != name);
    }

    /// Its text, without blanks around it; empty where it has none.
    pub fn text(&self) -> String {
        let mut all = String::new();
        for child in &self.children {
            if let Node::Text(text) = child {
                all.push_str(text);
            }
        }
        all.trim().to_owned()
    }

    /// Puts text in the place of everything it holds.
    pub fn set_text(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.children.clear();
        if !text.is_empty() {
            self.children.push(Node::Text(text));
        }
    }

    /// Its child elements.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|c| if let Node::Element(e) = c { Some(e) } else { None })
    }

    /// Its child elements, to change.
    pub fn elements_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.children.iter_mut().filter_map(|c| if let Node::Element(e) = c { Some(e) } else { None })
    }

    /// Its child elements of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.elements().filter(move |e| e.name == name)
    }

    /// The first descendant along a path of names: `get("os/type")`.
    pub fn get(&self, path: &str) -> Option<&Element> {
        path.split('/').try_fold(self, |at, name| at.elements().find(|e| e.name == name))
    }

    /// The first child of a name, to change; made where there is none.
    pub fn ensure(&mut self, name: &str) -> &mut Element {
        let is_it = |c: &Node| matches!(c, Node::Element(e) if e.name == name);
        let index = self.children.iter().position(is_it).unwrap_or(self.children.len());
        if index == self.children.len() {
            self.children.push(Node::Element(Element::new(name)));
        }
        match &mut self.children[index] {
            Node::Element(e) => e,
            Node::Text(_) | Node::Comment(_) | Node::Instruction(_) => unreachable!("the index is that of an element"),
        }
    }

    /// The text of a descendant: `text_at("os/type")`.
    pub fn text_at(&self, path: &str) -> Option<String> {
        self.get(path).map(Element::text)
    }

    /// An attribute of a descendant: `attribute_at("os/type", "machine")`.
    pub fn attribute_at(&self, path: &str, name: &str) -> Option<&str> {
        self.get(path)?.attribute(name)
    }

    /// Removes every child element of a name; tells whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.children.len();
        self.children.retain(|c| !matches!(c, Node::Element(e) if e.name == name));
        self.children.len() != before
    }

    /// Writes it as a document of its own, two blanks a level, as libvirt does.
    pub fn to_xml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn drop_layout(&mut self) {
        if self.children.iter().any(|c| !matches!(c, Node::Text(_))) {
            self.children.retain(|c| !matches!(c, Node::Text(t) if t.trim().is_empty()));
        }
    }

    fn write(&self, out: &mut String, level: usize) {
        let _ = write!(out, "{:1$}<{2}", "", level * 2, self.name);
        for (name, value) in &self.attributes {
            let _ = write!(out, " {name}='");
            escape(value, true, out);
            out.push('\'');
        }
        if self.children.is_empty() {
            out.push_str("/>\n");
            return;
        }
        out.push('>');
        // Text is kept to the letter, so an element that has some is written without layout.
        if self.children.iter().any(|c| matches!(c, Node::Text(_))) {
            for child in &self.children {
                match child {
                    Node::Element(e) => {
                        let mut inner = String::new();
                        e.write_flat(&mut inner);
                        out.push_str(&inner);
                    }
                    other => other.write(out),
                }
            }
        } else {
            out.push('\n');
            for child in &self.children {
                match child {
                    Node::Element(e) => e.write(out, level + 1),
                    other => {
                        let _ = write!(out, "{:1$}", "", (level + 1) * 2);
                        other.write(out);
                        out.push('\n');
                    }
                }
            }
            let _ = write!(out, "{:1$}", "", level * 2);
        }
        let _ = writeln!(out, "</{}>", self.name);
    }

    fn write_flat(&self, out: &mut String) {
        let _ = write!(out, "<{}", self.name);
        for (name, value) in &self.attributes {
            let _ = write!(out, " {name}='");
            escape(value, true, out);
            out.push('\'');
        }
        if self.children.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for child in &self.children {
            match child {
                Node::Element(e) => e.write_flat(out),
                other => other.write(out),
            }
        }
        let _ = write!(out, "</{}>", self.name);
    }
}

impl Node {
    fn write(&self, out: &mut String) {
        match self {
            Self::Element(e) => e.write_flat(out),
            Self::Text(text) => escape(text, false, out),
            Self::Comment(text) => {
                let _ = write!(out, "<!--{text}-->");
            }
            Self::Instruction(text) => {
                let _ = write!(out, "<?{text}?>");
            }
        }
    }
}

fn escape(text: &str, attribute: bool, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' if attribute => out.push_str("&apos;"),
            // A reader makes blanks of these in attributes, and drops a carriage return anywhere.
            '\n' | '\t' if attribute => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_prefixes_and_text_survive_a_round_trip() {
        let text = "<?xml version='1.0'?>\n<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n\
             <name>a&amp;b &lt;c&gt;</name><!-- by hand -->\n<metadata><app:x xmlns:app='urn:app' app:y='1' y='2'>\n\
             mixed <b>text</b> stays </app:x></metadata>\
             <description>  two\n lines &#13; </description>\
             <qemu:commandline><qemu:arg value='-S &quot;&apos;&#10;'/></qemu:commandline></domain>";
        let tree = parse(text).unwrap();
        let written = tree.to_xml();
        assert_eq!(parse(&written).unwrap(), tree, "{written}");
        assert_eq!(tree.text_at("name").unwrap(), "a&b <c>");
        let app = tree.get("metadata/app:x").unwrap();
        assert_eq!((app.attribute("app:y"), app.attribute("y")), (Some("1"), Some("2")));
        assert_eq!(tree.attribute_at("qemu:commandline/qemu:arg", "value"), Some("-S \"'\n"));
        assert!(written.contains("mixed <b>text</b> stays "), "{written}");
        assert!(written.contains("<!-- by hand -->"), "{written}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn whatever_is_read_comes_back_as_it_was(text in "(<[a-c!?/]{0,2}[ a='\"&;#x0-9]{0,6}/?>|[a&;<>\\]\\[!-]{0,4}|</a>|<a>|<!--|-->|é){0,12}") {
            if let Ok(tree) = parse(&format!("<a>{text}</a>")) {
                let written = tree.to_xml();
                proptest::prop_assert_eq!(parse(&written).ok(), Some(tree), "{}", written);
            }
            let _ = parse(&text);
        }
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "<a>".repeat(100_000);
        let bomb = "<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>";
        for (text, why) in [
            (deep.as_str(), "deeper"),
            (bomb, "document types"),
            ("<a>&b;</a>", "not an entity"),
            ("<a b='&c;'/>", "c"),
            ("<a>&#0;</a>", ""),
            ("<a>&#1;</a>", "not allowed"),
            ("<a></b>", "b"),
            ("<a/><b/>", "after the end"),
            ("<a/>x", "outside"),
            ("", "no element"),
            ("<a", ""),
            ("<a b='1' b='2'/>", ""),
            ("<a", ""),
            ("<a><b></a>", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.why.contains(why), "{text:.40}: {error}");
        }
        let wide = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS_MAX));
        assert!(parse(&wide).unwrap_err().why.contains("elements"));
        assert!(parse(&"x".repeat(BYTES_MAX + 1)).unwrap_err().why.contains("bytes"));
    }
}
