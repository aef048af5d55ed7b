//! YAML text to JSON values with positions, in one pass over the parser's events, within limits.
//!
//! Manifests use a subset of YAML 1.2: no anchors, aliases, tags, merge keys, directives, no keys that are not text, and
//! no key twice. Plain scalars are typed by the core schema (YAML 1.2.2, section 10.3.2), except that a decimal number
//! with a leading zero stays text: `017` is 15 to one reader and 17 to another. Nothing is ever rounded or dropped: what
//! cannot be kept exactly is a finding. After an error reading goes on with the next document.
//!
//! Time and memory are bounded by the size of the text and by [`Limits`]: the depth is checked while events arrive, and
//! there is nothing that could expand.

mod scalar;

use crate::finding::{Code, Finding, Source};
use crate::model::{Pointer, Positions};
use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, StrInput, options};
use scalar::{Plain, resolve};
use serde_json::map::Entry;
use serde_json::{Map, Value};

/// Limits on input, so that a hostile repository gets an error and not an exhausted machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Files in a tree.
    pub files: usize,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Documents in one file.
    pub documents: usize,
    /// Nodes in one document.
    pub nodes: usize,
    /// Depth of nesting.
    pub depth: usize,
    /// Findings that are kept; the rest is counted.
    pub findings: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 4 << 20,
            files: 100_000,
            total_bytes: 512 << 20,
            documents: 10_000,
            nodes: 20_000,
            depth: 32,
            findings: 500,
        }
    }
}

/// Findings about one document after which the rest of it is not looked at: it is not a manifest anybody wrote.
const FINDINGS_PER_DOCUMENT: usize = 20;

/// A document as a tree.
#[derive(Debug)]
pub(crate) struct Document {
    /// The tree.
    pub value: Value,
    /// First line, from 1.
    pub line: u32,
    /// First column, from 1.
    pub column: u32,
    /// Where each value stands: a value that begins on a later line than its key stands where the key does.
    pub positions: Positions,
    /// Where each key stands: put in order only for a document that has errors.
    pub keys: Vec<(Pointer, u32, u32)>,
    /// How many values it has.
    pub nodes: usize,
    /// Whether some number has a fraction or an exponent.
    pub fractions: bool,
    /// Where there is a finding already; the document is not of use then, but what else is wrong with it can be said.
    pub marks: Vec<(u32, u32)>,
}

/// What the next document is.
#[derive(Debug)]
pub(crate) enum Next {
    /// A tree.
    Document(Document),
    /// Nothing, or `null`.
    Empty,
    /// It could not be read to its end; there is a finding.
    Lost,
}

/// Reads the documents of one file.
pub(crate) struct Reader<'a> {
    file: &'a str,
    /// What the parser was given: the file from some document on.
    text: &'a str,
    /// Lines of the file before that.
    lines: u32,
    parser: Parser<'a, StrInput<'a>>,
    limits: Limits,
    documents: usize,
    over: bool,
    /// What there is to say so far.
    pub findings: Vec<Finding>,
    /// How much was said about the file's documents elsewhere.
    pub said_elsewhere: usize,
}

/// A node that is not complete yet.
struct Frame {
    node: Open,
    pointer: Pointer,
}

enum Open {
    Mapping { map: Map<String, Value>, key: Option<Key> },
    Sequence(Vec<Value>),
}

/// A key whose value is still to come.
struct Key {
    text: String,
    /// That of the value.
    pointer: Pointer,
    line: u32,
    column: u32,
}

/// Where a node is put.
struct Slot {
    pointer: Pointer,
    /// The key's place, for a value of a mapping.
    key: Option<(u32, u32)>,
}

/// A document under construction.
struct Builder {
    stack: Vec<Frame>,
    root: Option<Value>,
    start: (u32, u32),
    positions: Vec<(Pointer, u32, u32)>,
    keys: Vec<(Pointer, u32, u32)>,
    nodes: usize,
    /// Where there is a finding already.
    marks: Vec<(u32, u32)>,
    fractions: bool,
}

/// Why a document is not read on; the finding is made.
enum Abandon {
    /// The parser cannot go on.
    Broken,
    /// The parser could, but it is enough, here.
    Enough(Place),
}

/// A place in the file.
#[derive(Clone, Copy)]
struct Place {
    /// From 1.
    line: u32,
    /// From 1.
    column: u32,
    /// Bytes before it, as far as they are known.
    offset: Option<usize>,
}

impl<'a> Reader<'a> {
    /// Begins to read.
    pub fn new(file: &'a str, text: &'a str, limits: &Limits) -> Self {
        Self {
            file,
            text,
            lines: 0,
            parser: parser(text, limits),
            limits: *limits,
            documents: 0,
            over: false,
            findings: Vec::new(),
            said_elsewhere: 0,
        }
    }

    /// The next document; `None` at the end of the file.
    pub fn next_document(&mut self) -> Option<Next> {
        if self.over {
            return None;
        }
        loop {
            let event = self.parser.next_event()?;
            let at = self.place(event.as_ref().map_or_else(|e| *e.marker(), |(_, span)| span.start));
            match event {
                Ok((Event::StreamEnd, _)) => return None,
                // What is kept is full; reading on would only count.
                _ if self.findings.len() + self.said_elsewhere > self.limits.findings => {
                    let message = "the file has too many errors to go on with it".into();
                    return Some(self.end(at, message, "mend those above first"));
                }
                Ok((Event::DocumentStart(..), _)) => {
                    self.documents += 1;
                    if self.documents > self.limits.documents {
                        let message = format!("the file has more than {} documents", self.limits.documents);
                        return Some(self.end(at, message, "split it into several files"));
                    }
                    return Some(match self.document() {
                        Ok(next) => next,
                        Err(Abandon::Broken) => self.recover(),
                        Err(Abandon::Enough(at)) => self.skip(at),
                    });
                }
                Ok(_) => {}
                Err(e) => {
                    self.syntax(&e);
                    return Some(self.recover());
                }
            }
        }
    }

    /// Ends the reading of the file.
    fn end(&mut self, at: Place, message: String, hint: &str) -> Next {
        self.over = true;
        self.say(Code::Limit, at, message, hint);
        Next::Lost
    }

    /// Goes on after a document that cannot be read.
    fn recover(&mut self) -> Next {
        // Only a failing source can make this fail, and the source is a string.
        if self.parser.proceed_next_document().is_err() {
            self.over = true;
        }
        Next::Lost
    }

    /// Goes on after a document of which enough was seen. What is left of it is not parsed: `---` at the beginning of a line
    /// begins a document whatever it stands in (YAML 1.2.2, rule 206, `c-forbidden`).
    fn skip(&mut self, from: Place) -> Next {
        let rest = from.offset.and_then(|offset| self.text.get(offset..)).unwrap_or_default();
        match next_separator(rest) {
            None => self.over = true,
            Some((offset, lines)) => {
                self.text = &rest[offset..];
                self.lines = from.line - 1 + number(lines);
                self.parser = parser(self.text, &self.limits);
            }
        }
        Next::Lost
    }

    /// The place in the file of a place in what the parser was given.
    fn place(&self, at: Marker) -> Place {
        Place {
            line: self.lines.saturating_add(number(at.line())),
            column: number(at.col() + 1),
            offset: at.byte_offset(),
        }
    }

    fn document(&mut self) -> Result<Next, Abandon> {
        let mut doc = Builder {
            stack: Vec::new(),
            root: None,
            start: (1, 1),
            positions: Vec::new(),
            keys: Vec::new(),
            nodes: 0,
            marks: Vec::new(),
            fractions: false,
        };
        loop {
            let (event, span) = match self.parser.next_event() {
                None => return Err(Abandon::Broken),
                Some(Err(e)) => {
                    self.syntax(&e);
                    return Err(Abandon::Broken);
                }
                Some(Ok(next)) => next,
            };
            let at = self.place(span.start);
            if doc.marks.len() >= FINDINGS_PER_DOCUMENT {
                self.say(
                    Code::Limit,
                    at,
                    "the document has too many errors to go on with it".into(),
                    "mend those above first",
                );
                return Err(Abandon::Enough(at));
            }
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    self.properties(&mut doc, at, anchor, tag.is_some());
                    if style == ScalarStyle::DoubleQuoted
                        && let Some(bad) = text.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
                    {
                        self.mark(
                            &mut doc,
                            Code::Forbidden,
                            at,
                            format!("the text contains the control character U+{:04X}", u32::from(bad)),
                            "no system takes it; leave it out",
                        );
                    }
                    if doc.wants_key() {
                        self.key(&mut doc, at, text.into_owned(), style == ScalarStyle::Plain);
                    } else {
                        let value = if style == ScalarStyle::Plain {
                            self.plain(&mut doc, at, &text).unwrap_or_else(|| Value::String(text.into_owned()))
                        } else {
                            Value::String(text.into_owned())
                        };
                        let slot = self.open(&mut doc, at)?;
                        doc.place(&slot, at);
                        self.close(&mut doc, value);
                    }
                }
                Event::Alias(_) | Event::UnresolvedAlias(_) => {
                    self.mark(
                        &mut doc,
                        Code::Forbidden,
                        at,
                        "aliases are not used in manifests".into(),
                        "write the value out",
                    );
                    if doc.wants_key() {
                        return Err(Abandon::Enough(at));
                    }
                    let slot = self.open(&mut doc, at)?;
                    doc.place(&slot, at);
                    self.close(&mut doc, Value::Null);
                }
                Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) if doc.wants_key() => {
                    self.properties(&mut doc, at, anchor, tag.is_some());
                    self.say(Code::Forbidden, at, "a key is a list or a mapping".into(), "write a key of plain text");
                    return Err(Abandon::Enough(at));
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.properties(&mut doc, at, anchor, tag.is_some());
                    let slot = self.open(&mut doc, at)?;
                    doc.place(&slot, at);
                    doc.stack.push(Frame { node: Open::Sequence(Vec::new()), pointer: slot.pointer });
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.properties(&mut doc, at, anchor, tag.is_some());
                    let slot = self.open(&mut doc, at)?;
                    doc.place(&slot, at);
                    doc.stack.push(Frame { node: Open::Mapping { map: Map::new(), key: None }, pointer: slot.pointer });
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let value = match doc.stack.pop().map(|f| f.node) {
                        Some(Open::Sequence(items)) => Value::Array(items),
                        Some(Open::Mapping { map, .. }) => Value::Object(map),
                        None => return Err(Abandon::Broken),
                    };
                    self.close(&mut doc, value);
                }
                Event::DocumentEnd => break,
                _ => {}
            }
        }
        Ok(match doc.root {
            None | Some(Value::Null) if doc.marks.is_empty() => Next::Empty,
            None => Next::Lost,
            Some(value) => Next::Document(Document {
                value,
                line: doc.start.0,
                column: doc.start.1,
                positions: Positions::from_pointers(doc.positions),
                keys: doc.keys,
                nodes: doc.nodes,
                marks: doc.marks,
                fractions: doc.fractions,
            }),
        })
    }

    /// Refuses anchors and tags.
    fn properties(&mut self, doc: &mut Builder, at: Place, anchor: usize, tag: bool) {
        if anchor != 0 {
            self.mark(
                doc,
                Code::Forbidden,
                at,
                "anchors are not used in manifests".into(),
                "write the value out where it is needed",
            );
        }
        if tag {
            self.mark(
                doc,
                Code::Forbidden,
                at,
                "tags are not used in manifests".into(),
                "take the `!` word out; put text in quotes",
            );
        }
    }

    /// Takes a scalar as the next key.
    fn key(&mut self, doc: &mut Builder, at: Place, text: String, plain: bool) {
        if plain && text == "<<" {
            self.mark(doc, Code::Forbidden, at, "merge keys are not used in manifests".into(), "write the fields out");
        } else if plain && !matches!(resolve(&text), Plain::Text) {
            self.mark(
                doc,
                Code::Forbidden,
                at,
                format!("the key `{}` is not text", shorten(&text)),
                "put it in quotes",
            );
        }
        let Place { line, column, .. } = at;
        if let Some(Frame { node: Open::Mapping { key, .. }, pointer }) = doc.stack.last_mut() {
            let pointer = pointer.key(&text);
            doc.keys.push((pointer, line, column));
            *key = Some(Key { text, pointer, line, column });
        }
    }

    /// Types a plain scalar; `None` for text.
    fn plain(&mut self, doc: &mut Builder, at: Place, text: &str) -> Option<Value> {
        match resolve(text) {
            Plain::Text => None,
            Plain::Value(value) => {
                doc.fractions |= value.is_f64();
                Some(value)
            }
            Plain::NotExact(why) => {
                let shown = shorten(text);
                self.mark(
                    doc,
                    Code::WrongValue,
                    at,
                    format!("`{shown}` {why}"),
                    "put it in quotes if it is meant as text",
                );
                Some(Value::Null)
            }
        }
    }

    /// Finds the place for the next node, and counts it.
    fn open(&mut self, doc: &mut Builder, at: Place) -> Result<Slot, Abandon> {
        doc.nodes += 1;
        if doc.nodes > self.limits.nodes {
            let limit = self.limits.nodes;
            self.say(
                Code::Limit,
                at,
                format!("the document has more than {limit} values"),
                "split it into several documents",
            );
            return Err(Abandon::Enough(at));
        }
        if doc.stack.len() >= self.limits.depth {
            let limit = self.limits.depth;
            self.say(
                Code::Limit,
                at,
                format!("the document is nested more than {limit} deep"),
                "no manifest is nested so deeply",
            );
            return Err(Abandon::Enough(at));
        }
        Ok(match doc.stack.last() {
            None => {
                doc.start = (at.line, at.column);
                Slot { pointer: Pointer::ROOT, key: None }
            }
            Some(Frame { node: Open::Sequence(items), pointer }) => {
                Slot { pointer: pointer.index(items.len()), key: None }
            }
            Some(Frame { node: Open::Mapping { key, .. }, pointer }) => match key {
                Some(k) => Slot { pointer: k.pointer, key: Some((k.line, k.column)) },
                None => Slot { pointer: *pointer, key: None },
            },
        })
    }

    /// Puts a complete node into its parent.
    fn close(&mut self, doc: &mut Builder, value: Value) {
        match doc.stack.last_mut() {
            None => doc.root = Some(value),
            Some(Frame { node: Open::Sequence(items), .. }) => items.push(value),
            Some(Frame { node: Open::Mapping { map, key }, .. }) => {
                let Some(key) = key.take() else { return };
                match map.entry(key.text) {
                    Entry::Vacant(free) => {
                        free.insert(value);
                    }
                    Entry::Occupied(taken) => {
                        let first = doc.keys.iter().find(|k| k.0 == key.pointer).map(|k| (k.1, k.2));
                        let shown = shorten(taken.key());
                        doc.marks.push((key.line, key.column));
                        let mut finding = Finding::new(Code::DuplicateKey, format!("`{shown}` is written twice"))
                            .at(self.source(key.line, key.column))
                            .hint("keep one of them");
                        if let Some((line, column)) = first {
                            finding.message += &format!("; the first is in line {line}");
                            finding = finding.see(self.source(line, column));
                        }
                        self.findings.push(finding);
                    }
                }
            }
        }
    }

    fn syntax(&mut self, error: &granit_parser::ScanError) {
        let at = self.place(*error.marker());
        let (code, message, hint) = match error.kind() {
            ErrorKind::DirectiveDisallowed => (
                Code::Forbidden,
                "directives are not used in manifests".to_owned(),
                "take the line out: manifests are YAML 1.2",
            ),
            ErrorKind::RecursionLimitExceeded => (
                Code::Limit,
                format!("the document is nested more than {} deep", self.limits.depth),
                "no manifest is nested so deeply",
            ),
            _ => {
                let hint = match error.kind() {
                    ErrorKind::TabNotAllowed
                    | ErrorKind::TabInBlockIndentation
                    | ErrorKind::TabInIndentation
                    | ErrorKind::TabAtBlockScalarStart => "indent with blanks, never with tabs",
                    _ => "check indentation, quotes and brackets here and in the line above",
                };
                (Code::Syntax, format!("not YAML: {}", error.info()), hint)
            }
        };
        self.say(code, at, message, hint);
    }

    /// Says something about the document, which then is not of use.
    fn mark(&mut self, doc: &mut Builder, code: Code, at: Place, message: String, hint: &str) {
        doc.marks.push((at.line, at.column));
        self.say(code, at, message, hint);
    }

    fn say(&mut self, code: Code, at: Place, message: String, hint: &str) {
        let source = self.source(at.line, at.column);
        self.findings.push(Finding::new(code, message).at(source).hint(hint));
    }

    fn source(&self, line: u32, column: u32) -> Source {
        Source { file: self.file.to_owned(), line, column }
    }
}

/// A parser for what the limits allow.
fn parser<'a>(text: &'a str, limits: &Limits) -> Parser<'a, StrInput<'a>> {
    let options = options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_comments: false,
        // One more than allowed, so that the finding is ours; the scanner keeps no deeper state.
        flow_nesting_limit: limits.depth + 1,
        block_nesting_limit: limits.depth + 1,
    };
    Parser::new_from_str_with_options(text, options)
}

/// The next line that begins a document: the bytes and the line breaks before it.
fn next_separator(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let breaks = |i: &usize| bytes[*i] == b'\n' || bytes[*i] == b'\r' && bytes.get(i + 1) != Some(&b'\n');
    let begins = |line: &[u8]| {
        line.strip_prefix(b"---").is_some_and(|rest| rest.first().is_none_or(|b| b.is_ascii_whitespace()))
    };
    (0..bytes.len())
        .filter(breaks)
        .enumerate()
        .find(|(_, i)| begins(&bytes[i + 1..]))
        .map(|(lines, i)| (i + 1, lines + 1))
}

impl Builder {
    /// Tells whether the next node is a key.
    fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { node: Open::Mapping { key: None, .. }, .. }))
    }

    /// Notes where a value stands.
    fn place(&mut self, slot: &Slot, at: Place) {
        let own = (at.line, at.column);
        let (line, column) = slot.key.filter(|key| key.0 < own.0).unwrap_or(own);
        self.positions.push((slot.pointer, line, column));
    }
}

/// A foreign text for use in a message: at most 60 characters, control characters escaped.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    // Within backticks quotes need no escape.
    short = short.replace("\\'", "'").replace("\\\"", "\"");
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

/// A line or column number; files are far smaller than 4 GiB.
pub(crate) fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
