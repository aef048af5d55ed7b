//! JSON Schemas: one for the documents of each kind, generated from the Rust types and compiled once.
//!
//! The published schemas (`schemas/`) are the same values that manifests are checked against. They come from the binary
//! and never from the watched repository; references to other documents cannot be resolved, neither over the network nor
//! from files; patterns run on a linear-time engine.

use crate::kind::{API_VERSION, KINDS, KindInfo};
use crate::model::{Metadata, NAME_MAX};
use jsonschema::{PatternOptions, Validator};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::sync::{LazyLock, OnceLock};

/// A kind's schema, as text to read and compiled.
pub(super) struct Compiled {
    /// The schema.
    pub schema: Value,
    /// The schema, compiled.
    pub validator: Validator,
}

/// The schema of a kind's documents, compiled on first use; `None` for no such kind.
pub(super) fn compiled(kind: &str) -> Option<&'static Compiled> {
    static ALL: LazyLock<Vec<OnceLock<Compiled>>> = LazyLock::new(|| KINDS.iter().map(|_| OnceLock::new()).collect());
    let i = KINDS.iter().position(|k| k.name.as_str() == kind)?;
    ALL.get(i).map(|slot| slot.get_or_init(|| compile(document_schema(&KINDS[i]))))
}

fn compile(schema: Value) -> Compiled {
    #[expect(clippy::expect_used, reason = "the schemas are part of the binary, and a test compiles every one of them")]
    let validator = validator(&schema).expect("the schemas of the binary compile");
    Compiled { schema, validator }
}

/// Compiles a schema. Nothing outside of it can be referred to.
fn validator(schema: &Value) -> Result<Validator, jsonschema::ValidationError<'static>> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .offline()
        .build(schema)
}

/// Every schema that is published, by file name.
pub fn all() -> Vec<(String, Value)> {
    let mut all: Vec<_> = KINDS.iter().map(|k| (file_name(k), document_schema(k))).collect();
    all.push((
        "plan.schema.json".into(),
        published::<crate::plan::Plan>("Drover's plan, as `drover plan -o json` writes it."),
    ));
    all.push((
        "observed.schema.json".into(),
        published::<crate::observed::Observed>(
            "What Drover read from the hosts, as `drover observe -o json` writes it.",
        ),
    ));
    all
}

/// A schema as the text of its file.
pub fn to_text(schema: &Value) -> String {
    // The alternate form of a JSON value is its pretty one.
    format!("{schema:#}\n")
}

/// The name of a kind's schema file: `virtual-machine.schema.json`.
pub fn file_name(kind: &KindInfo) -> String {
    let mut name = String::new();
    for c in kind.name.as_str().chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name + ".schema.json"
}

/// The schema of a kind's documents: `apiVersion`, `kind`, `metadata` and `spec`.
pub fn document_schema(kind: &KindInfo) -> Value {
    let mut defs = Map::new();
    let spec = take_defs((kind.spec_schema)().to_value(), &mut defs);
    let metadata = take_defs(root_of::<Metadata>(), &mut defs);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.name.as_str(),
        "description": format!("{}{}.", kind.summary[..1].to_uppercase(), &kind.summary[1..]),
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION, "description": "The version of this form."},
            "kind": {"const": kind.name.as_str(), "description": "The kind of the resource."},
            "metadata": metadata,
            "spec": spec,
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
    });
    if let Some(name) = schema.pointer_mut("/properties/metadata/properties/name").and_then(Value::as_object_mut) {
        // For editors; `model::check_name` says more, so the reader's own message comes from there.
        name.insert("pattern".into(), "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$".into());
        name.insert("maxLength".into(), NAME_MAX.into());
    }
    if !defs.is_empty() {
        schema["$defs"] = Value::Object(defs);
    }
    plain(&mut schema);
    schema
}

fn root_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

fn published<T: JsonSchema>(description: &str) -> Value {
    let mut schema = root_of::<T>();
    schema["description"] = description.into();
    schema
}

/// Moves `$defs` of a root schema to those of the document; references keep their form `#/$defs/Name`.
fn take_defs(mut root: Value, defs: &mut Map<String, Value>) -> Value {
    if let Some(map) = root.as_object_mut() {
        map.remove("$schema");
        if let Some(Value::Object(own)) = map.remove("$defs") {
            defs.extend(own);
        }
    }
    root
}

/// Puts a generated schema into the form that people and editors read best:
/// - `null` is not a value: an optional field is left out, never written without a value, because `host:` with nothing
///   behind it is more often half a line than a wish.
/// - An enumeration whose variants have descriptions is one `enum`, with the descriptions in its own.
/// - 32-bit numbers have a maximum.
fn plain(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(map) => {
            without_null(map);
            as_enum(map);
            if map.get("format").and_then(Value::as_str) == Some("uint32") {
                map.entry("maximum").or_insert(u32::MAX.into());
            }
            if map.get("default") == Some(&Value::Null) {
                map.remove("default");
            }
            map.values_mut().for_each(plain);
        }
        _ => {}
    }
}

fn without_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            map.insert("type".into(), one);
        }
    }
    let null = json!({"type": "null"});
    let Some(Value::Array(branches)) = map.get_mut("anyOf") else { return };
    if !branches.contains(&null) {
        return;
    }
    branches.retain(|b| *b != null);
    if let [Value::Object(one)] = branches.as_slice() {
        let one = one.clone();
        map.shift_remove("anyOf");
        for (key, value) in one {
            map.entry(key).or_insert(value);
        }
    }
}

fn as_enum(map: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = map.get("oneOf") else { return };
    let mut words = Vec::new();
    let mut lines = String::new();
    for branch in branches {
        let described = branch.get("description").and_then(Value::as_str).unwrap_or_default();
        // A branch is either one word with its description, or several words without.
        if let Some(word) = branch.get("const").filter(|w| w.is_string()) {
            words.push(word.clone());
            lines += &format!("\n- `{}`: {described}", word.as_str().unwrap_or_default());
        } else if let Some(Value::Array(several)) = branch.get("enum") {
            words.extend(several.iter().cloned());
        } else {
            return;
        }
    }
    map.shift_remove("oneOf");
    let about = map.get("description").and_then(Value::as_str).unwrap_or_default();
    let about = format!("{about}\n{lines}");
    map.insert("description".into(), about.trim().into());
    map.insert("type".into(), "string".into());
    map.insert("enum".into(), words.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_of_the_binary_compiles() {
        for (name, schema) in all() {
            assert!(validator(&schema).is_ok(), "{name}");
        }
    }

    #[test]
    fn nothing_outside_of_a_schema_is_read() {
        for target in
            ["http://127.0.0.1:1/x.json", "https://example.com/x.json", "file:///etc/hostname", "/etc/hostname"]
        {
            assert!(validator(&json!({"$ref": target})).is_err(), "{target}");
        }
    }

    #[test]
    fn patterns_that_could_explode_do_not_compile() {
        assert!(validator(&json!({"pattern": "^(?=a)a+$"})).is_err(), "look-ahead needs a backtracking engine");
        let schema = validator(&json!({"type": "string", "pattern": "^(a+)+$"})).unwrap();
        let text = json!("a".repeat(50_000) + "!");
        let start = std::time::Instant::now();
        assert!(!schema.is_valid(&text));
        assert!(start.elapsed().as_secs() < 2);
    }

    #[test]
    fn optional_fields_have_no_null_and_enumerations_are_words() {
        for kind in KINDS {
            let text = document_schema(kind).to_string();
            assert!(!text.contains("\"null\""), "{}", kind.name);
            // The reader refuses fractions everywhere (`diagnose::validate`).
            assert!(!text.contains("\"type\":\"number\""), "{}", kind.name);
        }
        let host = document_schema(KINDS.iter().find(|k| k.name.as_str() == "Host").unwrap());
        let words = &host["$defs"]["Maintenance"]["enum"];
        assert_eq!(words, &json!(["None", "Cordon", "Evacuate"]));
        assert!(host["$defs"]["Maintenance"]["description"].as_str().unwrap().contains("`Evacuate`: Is emptied."));
    }
}
