//! `drover explain`: a kind or a field in words, from the same schemas that manifests are checked against.

use super::args::ExplainArgs;
use super::exit::{CliError, Exit};
use super::output::Output;
use crate::finding::nearest;
use crate::kind::{API_VERSION, KINDS, KindInfo};
use crate::load::schema;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::Write as _;

/// Runs the command.
pub fn run(args: &ExplainArgs, out: &mut Output) -> Result<Exit, CliError> {
    let (kind, path) = args.what.split_once('.').unwrap_or((&args.what, ""));
    let kind = find_kind(kind)?;
    let document = schema::document_schema(kind);
    write!(out.stdout, "{}", explain(kind.name.as_str(), &document, path)?)?;
    Ok(Exit::Done)
}

/// The kind of this name, in whatever case it is written.
pub fn find_kind(name: &str) -> Result<&'static KindInfo, CliError> {
    let wanted = name.to_lowercase();
    KINDS.iter().find(|k| k.name.as_str().to_lowercase() == wanted).ok_or_else(|| {
        let names: Vec<_> = KINDS.iter().map(|k| format!("`{}`", k.name)).collect();
        CliError::usage(format!("there is no kind `{name}`")).hint(format!("the kinds are {}", names.join(", ")))
    })
}

/// Explains the node at `path` (dotted; list items may be written `[]`, `[0]` or not at all).
fn explain(kind: &str, document: &Value, path: &str) -> Result<String, CliError> {
    let schema = Schema { document };
    let steps: Vec<&str> = path.split(['.', '[', ']']).filter(|s| !s.is_empty() && s.parse::<u32>().is_err()).collect();
    let root = schema.resolve(document);
    // `VirtualMachine.host` is what people write who do not think of `spec`.
    let in_spec = steps.first().is_some_and(|s| schema.child(&root, s).is_none());
    let steps: Vec<&str> = if in_spec { std::iter::once("spec").chain(steps).collect() } else { steps };
    let mut node = root;
    let mut required = true;
    for (i, step) in steps.iter().enumerate() {
        let Some(child) = schema.child(&node, step) else {
            let parent = if i == 0 { kind.to_owned() } else { format!("{kind}.{}", steps[..i].join(".")) };
            let names = schema.names(&node);
            let error = CliError::usage(format!("`{parent}` has no field `{step}`"));
            return Err(match nearest(step, names.iter().map(String::as_str)) {
                _ if names.is_empty() => error.hint(format!("`{parent}` has no fields of its own")),
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("its fields are {}", names.join(", "))),
            });
        };
        required = schema.requires(&node, step);
        node = child;
    }
    let mut text = format!("KIND:     {kind}\nVERSION:  {API_VERSION}\n\n");
    if !steps.is_empty() {
        let needed = if required { ", required" } else { "" };
        let _ = writeln!(text, "FIELD:    {} <{}{needed}>\n", steps.join("."), schema.type_of(&node));
    }
    let _ = writeln!(text, "DESCRIPTION:\n{}", indented(description(&node), 4));
    for (label, value) in schema.facts(&node) {
        let _ = writeln!(text, "\n{label}:\n    {value}");
    }
    // Of a whole kind, `spec` is what differs from the other kinds.
    let (node, heading) = match schema.child(&node, "spec") {
        Some(spec) if steps.is_empty() => (spec, "FIELDS of spec"),
        _ => (node, "FIELDS"),
    };
    let fields = schema.names(&node);
    if !fields.is_empty() {
        let _ = writeln!(text, "\n{heading}:");
        for name in fields {
            let Some(field) = schema.child(&node, &name) else { continue };
            let needed = if schema.requires(&node, &name) { ", required" } else { "" };
            let _ = writeln!(text, "  {name} <{}{needed}>", schema.type_of(&field));
            let about = description(&field);
            let first = about.split("\n\n").next().unwrap_or_default();
            let _ = writeln!(text, "{}", indented(first, 6));
        }
    }
    Ok(text)
}

fn description(node: &Map<String, Value>) -> &str {
    node.get("description").and_then(Value::as_str).unwrap_or("(not described)")
}

fn indented(text: &str, by: usize) -> String {
    let pad = " ".repeat(by);
    text.lines().map(|l| if l.is_empty() { String::new() } else { format!("{pad}{l}") }).collect::<Vec<_>>().join("\n")
}

struct Schema<'a> {
    document: &'a Value,
}

impl Schema<'_> {
    /// A node with its references followed; what stands beside a reference goes before what it refers to.
    fn resolve(&self, node: &Value) -> Map<String, Value> {
        let mut found = Map::new();
        let mut next = Some(node.clone());
        // A reference that leads back to itself would be a mistake in the schema; eight are more than any has.
        for _ in 0..8 {
            let Some(Value::Object(map)) = next.take() else { break };
            let all_of = match map.get("allOf") {
                Some(Value::Array(parts)) if parts.len() == 1 => parts.first().cloned(),
                _ => None,
            };
            next = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| self.document.pointer(r.strip_prefix('#')?))
                .cloned()
                .or(all_of);
            for (key, value) in map {
                if key != "$ref" && key != "allOf" {
                    found.entry(key).or_insert(value);
                }
            }
        }
        found
    }

    /// Where the fields of a node are: in itself, in the items of a list, in an alternative that is a mapping.
    fn holder(&self, node: &Map<String, Value>) -> Map<String, Value> {
        if node.contains_key("properties") {
            return node.clone();
        }
        if let Some(items) = node.get("items") {
            return self.holder(&self.resolve(items));
        }
        for key in ["anyOf", "oneOf"] {
            for branch in node.get(key).and_then(Value::as_array).into_iter().flatten() {
                let branch = self.holder(&self.resolve(branch));
                if branch.contains_key("properties") {
                    return branch;
                }
            }
        }
        Map::new()
    }

    fn child(&self, node: &Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
        Some(self.resolve(self.holder(node).get("properties")?.get(name)?))
    }

    fn requires(&self, node: &Map<String, Value>, name: &str) -> bool {
        let holder = self.holder(node);
        holder.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|n| n == name))
    }

    fn names(&self, node: &Map<String, Value>) -> Vec<String> {
        let holder = self.holder(node);
        holder.get("properties").and_then(Value::as_object).map(|p| p.keys().cloned().collect()).unwrap_or_default()
    }

    /// `string`, `integer or string`, `list of mapping`.
    fn type_of(&self, node: &Map<String, Value>) -> String {
        let named = |t: &str| match t {
            "object" => "mapping".to_owned(),
            "array" => match node.get("items") {
                Some(items) => format!("list of {}", self.type_of(&self.resolve(items))),
                None => "list".to_owned(),
            },
            other => other.to_owned(),
        };
        match node.get("type") {
            Some(Value::String(t)) => named(t),
            Some(Value::Array(types)) => {
                types.iter().filter_map(Value::as_str).map(named).collect::<Vec<_>>().join(" or ")
            }
            _ => {
                let mut types = Vec::new();
                for key in ["anyOf", "oneOf"] {
                    for branch in node.get(key).and_then(Value::as_array).into_iter().flatten() {
                        let t = self.type_of(&self.resolve(branch));
                        if !types.contains(&t) {
                            types.push(t);
                        }
                    }
                }
                match (types.is_empty(), node.get("const"), node.get("enum").and_then(|e| e.get(0))) {
                    (false, ..) => types.join(" or "),
                    (true, Some(Value::String(_)), _) | (true, _, Some(Value::String(_))) => "string".into(),
                    _ => "any".into(),
                }
            }
        }
    }

    /// Default, allowed values and limits.
    fn facts(&self, node: &Map<String, Value>) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if let Some(default) = node.get("default").filter(|d| !d.is_null()) {
            facts.push(("DEFAULT", default.to_string()));
        }
        let mut allowed: Vec<String> = Vec::new();
        self.collect_allowed(node, &mut allowed);
        if !allowed.is_empty() {
            facts.push(("ALLOWED VALUES", allowed.join(", ")));
        }
        for (key, label) in [
            ("minimum", "AT LEAST"),
            ("maximum", "AT MOST"),
            ("minItems", "ENTRIES, AT LEAST"),
            ("maxLength", "CHARACTERS, AT MOST"),
            ("pattern", "FORM (regular expression)"),
        ] {
            match node.get(key) {
                Some(Value::String(s)) => facts.push((label, s.clone())),
                Some(n @ Value::Number(_)) => facts.push((label, n.to_string())),
                _ => {}
            }
        }
        facts
    }

    fn collect_allowed(&self, node: &Map<String, Value>, allowed: &mut Vec<String>) {
        let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        allowed.extend(node.get("const").map(word));
        allowed.extend(node.get("enum").and_then(Value::as_array).into_iter().flatten().map(word));
        for key in ["anyOf", "oneOf"] {
            for branch in node.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.collect_allowed(&self.resolve(branch), allowed);
            }
        }
        if let Some(items) = node.get("items") {
            let items = self.resolve(items);
            if !items.contains_key("properties") {
                self.collect_allowed(&items, allowed);
            }
        }
    }
}
