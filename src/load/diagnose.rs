//! What is wrong with a document, in people's words: errors of the schema validator become findings with the place of
//! the offending node and a way out.
//!
//! Values are not repeated in messages, because a secret may stand where it does not belong, and findings end up in pull
//! requests; the place shows them to whoever may read the repository. Exceptions are what cannot be a secret: words
//! where one of a few words is wanted, numbers, `true` and `false`.

use super::schema::Compiled;
use super::text::{self, shorten};
use crate::finding::{Code, Finding, Source, nearest};
use crate::model::{Positions, ResourceId};
use crate::yaml::Document;
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;
use std::collections::BTreeSet;

/// Documents with more values than this get their first error only: collecting takes memory for each error, and no
/// manifest that a person wrote is so large.
const COLLECT_UP_TO: usize = 10_000;

/// Unknown fields of one mapping that are named one by one.
const NAMED_FIELDS: usize = 20;

/// Checks a document against its kind's schema. Returns whether it fits.
pub(super) fn validate(
    document: &Document,
    file: &str,
    id: Option<&ResourceId>,
    compiled: &Compiled,
    findings: &mut Vec<Finding>,
) -> bool {
    let valid = compiled.validator.is_valid(&document.value);
    if valid && !document.fractions {
        return true;
    }
    let schema = &compiled.schema;
    let keys = Positions::from_pointers(document.keys.clone());
    let mut diagnosis = Diagnosis { document, keys, file, id, schema, suggested: BTreeSet::new(), out: Vec::new() };
    if valid {
        // To JSON Schema `1.0` is an integer; to the types it is not. No kind has a field that takes a fraction.
        diagnosis.fractions(&document.value, &mut String::new());
    } else if document.nodes > COLLECT_UP_TO {
        if let Err(first) = compiled.validator.validate(&document.value) {
            diagnosis.error(&first);
        }
    } else {
        let errors: Vec<_> = compiled.validator.iter_errors(&document.value).collect();
        // Unknown fields first: what they probably mean is then not reported as missing.
        let unknown = |e: &&ValidationError<'_>| matches!(e.kind(), ValidationErrorKind::AdditionalProperties { .. });
        errors.iter().filter(unknown).for_each(|e| diagnosis.error(e));
        errors.iter().filter(|e| !unknown(e)).for_each(|e| diagnosis.error(e));
    }
    let fits = valid && diagnosis.out.is_empty();
    findings.append(&mut diagnosis.out);
    fits
}

struct Diagnosis<'a> {
    document: &'a Document,
    /// Where each key stands.
    keys: Positions,
    file: &'a str,
    id: Option<&'a ResourceId>,
    schema: &'a Value,
    /// Pointers of fields that a misspelt one probably means.
    suggested: BTreeSet<String>,
    out: Vec<Finding>,
}

impl<'a> Diagnosis<'a> {
    fn error(&mut self, error: &ValidationError<'_>) {
        use ValidationErrorKind as K;
        let pointer = error.instance_path().as_str().to_owned();
        let subject = subject(&pointer);
        let value = self.document.value.pointer(&pointer).unwrap_or(&Value::Null);
        match error.kind() {
            K::AdditionalProperties { unexpected } | K::UnevaluatedProperties { unexpected } => {
                self.unknown_fields(error, &pointer, unexpected);
            }
            K::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let field = format!("{pointer}/{name}");
                if self.suggested.contains(&field) {
                    return;
                }
                let mut finding = self.at(Code::MissingField, format!("`{name}` is missing in {subject}"), &pointer);
                finding.path = Some(text::path(&field));
                let about = self.schema_at(error).and_then(|s| s["properties"][name]["description"].as_str());
                let about = about.map(first_sentence).filter(|s| !s.is_empty());
                self.out.push(finding.hint(match about {
                    Some(about) => format!("add `{name}`: {about}"),
                    None => format!("add `{name}`"),
                }));
            }
            K::Type { kind } => {
                let about = self.schema_at(error).and_then(|s| s["description"].as_str()).unwrap_or_default();
                self.wrong_type(&pointer, value, kind, about);
            }
            K::Enum { options } => {
                if !value.is_string() && self.schema_at(error).is_some_and(|s| s.get("type").is_some()) {
                    // The type is wrong already, and said to be.
                    return;
                }
                let words: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                self.not_one_of(&pointer, value, &words);
            }
            K::Constant { expected_value } => {
                let words: Vec<&str> = expected_value.as_str().into_iter().collect();
                self.not_one_of(&pointer, value, &words);
            }
            K::Pattern { .. } | K::MaxLength { .. } | K::MinLength { .. } if pointer == "/metadata/name" => {
                // `check_name` says what is wrong with a name.
            }
            K::Pattern { pattern } => {
                let about = self.schema_at(error).and_then(|s| s["description"].as_str()).unwrap_or_default();
                let finding = match about.split_once(", like ") {
                    // Quantities describe themselves: "a size, like `20Gi` or `512Mi`".
                    Some((what, example)) => self
                        .at(Code::WrongValue, format!("{subject} is not {what}"), &pointer)
                        .hint(format!("write it like {example}")),
                    None => {
                        let about = first_sentence(about);
                        self.at(Code::WrongValue, format!("{subject} does not have the form it needs"), &pointer).hint(
                            format!("{about}{}it has to match `{pattern}`", if about.is_empty() { "" } else { "; " }),
                        )
                    }
                };
                self.out.push(finding);
            }
            K::Format { format } => {
                let what = if format == "uuid" { "a UUID" } else { format };
                self.say(&pointer, format!("{subject} is not {what}"), String::new());
            }
            K::Minimum { limit } => {
                self.say(&pointer, format!("{subject} is {value}; at least {limit} is needed"), String::new())
            }
            K::Maximum { limit } => {
                self.say(&pointer, format!("{subject} is {value}; at most {limit} is possible"), String::new())
            }
            K::ExclusiveMinimum { limit } => {
                self.say(&pointer, format!("{subject} is {value}; more than {limit} is needed"), String::new());
            }
            K::ExclusiveMaximum { limit } => {
                self.say(&pointer, format!("{subject} is {value}; less than {limit} is needed"), String::new());
            }
            K::MinItems { limit } => {
                let count = value.as_array().map_or(0, Vec::len);
                self.say(&pointer, format!("{subject} has {count} items; at least {limit} is needed"), String::new());
            }
            K::MaxItems { limit } => {
                let count = value.as_array().map_or(0, Vec::len);
                self.say(&pointer, format!("{subject} has {count} items; at most {limit} are possible"), String::new());
            }
            K::MinLength { limit } => {
                self.say(&pointer, format!("{subject} is shorter than {limit} characters"), String::new())
            }
            K::MaxLength { limit } => {
                self.say(&pointer, format!("{subject} is longer than {limit} characters"), String::new())
            }
            K::AnyOf { context } | K::OneOfNotValid { context } => self.branches(&pointer, value, context),
            _ => self.say(&pointer, format!("{subject}: {}", error.masked()), String::new()),
        }
    }

    /// Refuses every number with a fraction or an exponent.
    fn fractions(&mut self, value: &Value, pointer: &mut String) {
        let length = pointer.len();
        match value {
            Value::Number(n) if n.is_f64() => {
                let message = format!("{} is {n}, but a whole number is wanted", subject(pointer));
                self.say(pointer, message, "write it without fraction and exponent".into());
            }
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    *pointer += &format!("/{i}");
                    self.fractions(item, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Object(map) => {
                for (key, item) in map {
                    *pointer += &format!("/{}", key.replace('~', "~0").replace('/', "~1"));
                    self.fractions(item, pointer);
                    pointer.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn unknown_fields(&mut self, error: &ValidationError<'_>, pointer: &str, unexpected: &[String]) {
        let known: Vec<&str> = self
            .schema_at(error)
            .and_then(|s| s["properties"].as_object())
            .map(|p| p.keys().map(String::as_str).collect())
            .unwrap_or_default();
        for name in unexpected.iter().take(NAMED_FIELDS) {
            let field = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            let place = self.keys.exact(&field);
            let shown = shorten(name);
            let mut finding =
                self.at(Code::UnknownField, format!("unknown field `{shown}` in {}", subject(pointer)), &field);
            if let (Some((line, column)), Some(source)) = (place, finding.source.as_mut()) {
                (source.line, source.column) = (line, column);
            }
            let hint = if let Some(near) = nearest(name, known.iter().copied()) {
                let meant = format!("{pointer}/{near}");
                // Only where it is not written as well.
                if self.document.value.pointer(&meant).is_none() {
                    self.suggested.insert(meant);
                }
                format!("did you mean `{near}`?")
            } else if let Some(elsewhere) = self.elsewhere(pointer, name) {
                format!("it belongs into {elsewhere}")
            } else if known.is_empty() {
                "take it out".into()
            } else if known.len() <= 12 {
                format!("fields here are {}", text::list(known.iter().copied()))
            } else {
                "take it out, or look it up in the kind's schema".into()
            };
            finding = finding.hint(hint);
            self.out.push(finding);
        }
        if let Some(more) = unexpected.len().checked_sub(NAMED_FIELDS).filter(|n| *n > 0) {
            self.out.push(self.at(
                Code::UnknownField,
                format!("{more} more unknown fields in {}", subject(pointer)),
                pointer,
            ));
        }
    }

    /// Where a field belongs that stands at the top of the document or in its metadata.
    fn elsewhere(&self, pointer: &str, name: &str) -> Option<&'static str> {
        let has = |p: &str| self.schema.pointer(p).and_then(Value::as_object).is_some_and(|o| o.contains_key(name));
        match pointer {
            "" | "/metadata" if has("/properties/spec/properties") => Some("`spec`"),
            "" | "/spec" if has("/properties/metadata/properties") => Some("`metadata`"),
            _ => None,
        }
    }

    fn wrong_type(&mut self, pointer: &str, value: &Value, kind: &TypeKind, about: &str) {
        let wanted: Vec<String> = match kind {
            TypeKind::Single(t) => vec![t.to_string()],
            TypeKind::Multiple(set) => set.iter().map(|t| t.to_string()).collect(),
        };
        let wants = |t: &str| wanted.iter().any(|w| w == t);
        let subject = subject(pointer);
        if value.is_null() {
            return self.say(
                pointer,
                format!("nothing is written for {subject}"),
                "give a value, or leave the line out".into(),
            );
        }
        let words = |t: &str| match t {
            "string" => "text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "`true` or `false`",
            "array" => "a list",
            "object" => "a mapping",
            _ => "nothing",
        };
        let mut all: Vec<&str> = wanted.iter().map(|w| words(w)).collect();
        all.sort_unstable();
        let example = about.split_once(", like ").map(|(_, example)| example);
        let hint = match value {
            Value::Bool(_) | Value::Number(_) if example.is_some() => {
                format!("write it like {}", example.unwrap_or_default())
            }
            Value::Bool(_) | Value::Number(_) if wants("string") => format!("put it in quotes: `\"{value}\"`"),
            Value::String(s) if wants("integer") && !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) => {
                if s.len() > 1 && s.starts_with('0') {
                    "take the leading zeros away".into()
                } else {
                    "take the quotes away".into()
                }
            }
            Value::String(s) if wants("boolean") => match s.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => "write `true`; `yes` and `on` are text in YAML 1.2".into(),
                "no" | "off" | "n" => "write `false`; `no` and `off` are text in YAML 1.2".into(),
                _ => String::new(),
            },
            Value::Object(_) if wants("array") => "begin each item with `-`".into(),
            Value::String(_) | Value::Number(_) | Value::Bool(_) if wants("array") => {
                "write it as a list: `[a, b]`".into()
            }
            Value::Array(_) if wants("object") => "take the `-` away".into(),
            _ => String::new(),
        };
        self.say(pointer, format!("{subject} is {}, but {} is wanted", describe(value), all.join(" or ")), hint);
    }

    fn not_one_of(&mut self, pointer: &str, value: &Value, words: &[&str]) {
        let subject = subject(pointer);
        let message = match value {
            Value::Null => format!("nothing is written for {subject}"),
            Value::String(s) => format!("{subject} cannot be `{}`", shorten(s)),
            other => format!("{subject} is {}, but one of a few words is wanted", describe(other)),
        };
        let near = value.as_str().and_then(|s| nearest(s, words.iter().copied()));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write {}", text::list(words.iter().copied())),
        };
        self.say(pointer, message, hint);
    }

    /// Nothing of several possibilities fits: says what is wrong with the one that was probably meant.
    fn branches(&mut self, pointer: &str, value: &Value, context: &[Vec<ValidationError<'static>>]) {
        use ValidationErrorKind as K;
        // A tagged union: the branch whose tag is written. Its errors are the ones to show.
        let tag_of = |errors: &[ValidationError<'static>]| {
            errors.iter().find_map(|e| match e.kind() {
                K::Constant { expected_value } => {
                    let below = e.instance_path().as_str().strip_prefix(pointer)?.strip_prefix('/')?;
                    Some((below.to_owned(), expected_value.as_str()?.to_owned()))
                }
                _ => None,
            })
        };
        let tags: Vec<(String, String)> = context.iter().filter_map(|b| tag_of(b)).collect();
        if value.is_object() && !tags.is_empty() {
            if let Some(meant) = context.iter().find(|b| tag_of(b).is_none()) {
                return meant.iter().for_each(|e| self.error(e));
            }
            let words: Vec<&str> = tags.iter().map(|t| t.1.as_str()).collect();
            let at = format!("{pointer}/{}", tags[0].0);
            let tag = self.document.value.pointer(&at).unwrap_or(&Value::Null).clone();
            return self.not_one_of(&at, &tag, &words);
        }
        // Otherwise the branch whose type fits.
        let type_fits = |b: &&Vec<ValidationError<'static>>| {
            !b.iter().any(|e| matches!(e.kind(), K::Type { .. }) && e.instance_path().as_str() == pointer)
        };
        if let Some(meant) = context.iter().filter(type_fits).min_by_key(|b| b.len()) {
            return meant.iter().for_each(|e| self.error(e));
        }
        // Every branch of a tagged union misses the tag, or the value is of no type that fits.
        match context.first() {
            Some(first) if value.is_object() => first.iter().take(1).for_each(|e| self.error(e)),
            _ => self.say(
                pointer,
                format!("{} is {}, which does not fit here", subject(pointer), describe(value)),
                String::new(),
            ),
        }
    }

    /// The schema that a keyword stands in.
    fn schema_at(&self, error: &ValidationError<'_>) -> Option<&'a Value> {
        let keyword = error.schema_path().as_str();
        self.schema.pointer(&keyword[..keyword.rfind('/')?])
    }

    fn say(&mut self, pointer: &str, message: String, hint: String) {
        let mut finding = self.at(Code::WrongValue, message, pointer);
        if !hint.is_empty() {
            finding = finding.hint(hint);
        }
        self.out.push(finding);
    }

    fn at(&self, code: Code, message: String, pointer: &str) -> Finding {
        let (line, column) =
            self.document.positions.nearest(pointer).unwrap_or((self.document.line, self.document.column));
        let mut finding = Finding::new(code, message).at(Source { file: self.file.to_owned(), line, column });
        finding.resource = self.id.cloned();
        finding.path = Some(text::path(pointer)).filter(|p| !p.is_empty());
        finding
    }
}

/// The node, for the beginning of a sentence.
fn subject(pointer: &str) -> String {
    match text::path(pointer).as_str() {
        "" => "the document".into(),
        path => format!("`{path}`"),
    }
}

/// What a value is, without the value where it may be a secret.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => format!("`{b}`"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(_) => "text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

/// The first sentence of a description, without its full stop.
fn first_sentence(text: &str) -> &str {
    let line = text.split("\n\n").next().unwrap_or(text);
    line.split_once(". ").map_or(line, |(first, _)| first).trim_end_matches('.').trim()
}
