//! One document to one manifest: which kind it is, whether it fits the kind's schema, its name, its fields as types.

use super::{diagnose, schema, text};
use crate::finding::{Code, Finding, Source, nearest};
use crate::kind::{API_VERSION, KINDS, KindInfo};
use crate::model::{Metadata, Origin, ResourceId, check_name};
use crate::yaml::Document;
use serde_json::Value;
use std::sync::Arc;

/// A document of a known kind with a name.
pub(super) struct Checked {
    /// Its kind.
    pub kind: &'static KindInfo,
    /// Its identity.
    pub id: ResourceId,
    /// Its place.
    pub origin: Origin,
    /// The place of its name.
    pub name_at: Source,
    /// The whole document, when nothing is wrong with it.
    pub value: Option<Value>,
}

/// Checks a document by itself. `None`: not even its identity is known; there is a finding.
pub(super) fn check(
    document: Document,
    file: &Arc<str>,
    blob: Option<&Arc<str>>,
    findings: &mut Vec<Finding>,
) -> Option<Checked> {
    let at = |pointer: &str| {
        let (line, column) = document.positions.nearest(pointer).unwrap_or((document.line, document.column));
        Source { file: file.to_string(), line, column }
    };
    let kind = match identify(&document.value, &at) {
        Ok(kind) => kind,
        Err(finding) => {
            // A document that is broken already has its finding.
            if document.marks.is_empty() {
                findings.push(*finding);
            }
            return None;
        }
    };
    let name = document.value.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    let id = name.map(|name| ResourceId::new(kind.name.clone(), name));
    let mut fits = document.marks.is_empty();
    if let Some(compiled) = schema::compiled(kind.name.as_str()) {
        let before = findings.len();
        fits &= diagnose::validate(&document, file, id.as_ref(), compiled, findings);
        // What the reader had to say about a node is enough about it.
        let mut said = findings.split_off(before);
        said.retain(|f| !f.source.as_ref().is_some_and(|s| document.marks.contains(&(s.line, s.column))));
        findings.append(&mut said);
    }
    let id = id?;
    let name_at = at("/metadata/name");
    if let Err(e) = check_name(&id.name) {
        fits = false;
        let mut finding = Finding::new(Code::BadName, format!("`{}` is not a name: {e}", text::shorten(&id.name)))
            .at(name_at.clone())
            .hint("use lower-case letters, digits, `-` and `.`, at most 63 bytes");
        finding.path = Some("metadata.name".into());
        findings.push(finding);
    }
    let origin = Origin {
        file: Arc::clone(file),
        blob: blob.map(Arc::clone),
        line: document.line,
        column: document.column,
        positions: document.positions,
    };
    Some(Checked { kind, id, origin, name_at, value: fits.then_some(document.value) })
}

/// Which kind a document is of.
fn identify(value: &Value, at: &dyn Fn(&str) -> Source) -> Result<&'static KindInfo, Box<Finding>> {
    let header = format!("a manifest begins with `apiVersion: {API_VERSION}` and `kind:`");
    let refuse = |code, message: String, pointer: &str, hint: String| {
        let mut finding = Finding::new(code, message).at(at(pointer)).hint(hint);
        finding.path = pointer.strip_prefix('/').map(str::to_owned);
        Box::new(finding)
    };
    let Some(map) = value.as_object() else {
        return Err(refuse(Code::NotUnderstood, "the document is not a mapping of fields".into(), "", header));
    };
    let version = match (map.get("apiVersion"), map.get("kind")) {
        (None, None) => {
            return Err(refuse(
                Code::NotUnderstood,
                "the document has no `apiVersion` and no `kind`".into(),
                "",
                header,
            ));
        }
        (None, _) => return Err(refuse(Code::NotUnderstood, "the document has no `apiVersion`".into(), "", header)),
        (Some(version), _) => version,
    };
    if version.as_str() != Some(API_VERSION) {
        let message = match version.as_str() {
            Some(other) => format!("`{}` is not a version that this Drover knows", text::shorten(other)),
            None => "`apiVersion` is not text".into(),
        };
        let hint = match version.as_str() {
            Some(other) if !other.starts_with("drover/") => format!(
                "write `apiVersion: {API_VERSION}`; a file of another program is kept out of the path, or named by a manifest"
            ),
            _ => format!("write `apiVersion: {API_VERSION}`"),
        };
        return Err(refuse(Code::UnknownKind, message, "/apiVersion", hint));
    }
    let Some(kind) = map.get("kind") else {
        return Err(refuse(Code::NotUnderstood, "the document has no `kind`".into(), "", header));
    };
    let names = KINDS.iter().map(|k| k.name.as_str());
    let Some(kind) = kind.as_str() else {
        return Err(refuse(
            Code::NotUnderstood,
            "`kind` is not text".into(),
            "/kind",
            format!("kinds are {}", text::list(names)),
        ));
    };
    KINDS.iter().find(|k| k.name.as_str() == kind).ok_or_else(|| {
        let hint = match nearest(kind, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("kinds are {}", text::list(names.clone())),
        };
        refuse(Code::UnknownKind, format!("there is no kind `{}`", text::shorten(kind)), "/kind", hint)
    })
}

/// Takes metadata and spec out of a document that fits its schema.
pub(super) fn parts(mut value: Value) -> (Option<Metadata>, Value) {
    let mut take = |key: &str| value.get_mut(key).map_or(Value::Null, Value::take);
    let metadata = serde_json::from_value(take("metadata")).ok();
    (metadata, take("spec"))
}

/// What serde says about a spec that fits its schema: a number that is too large, a quantity that overflows.
pub(super) fn finding(
    error: &serde_path_to_error::Error<serde_json::Error>,
    origin: &Origin,
    id: &ResourceId,
) -> Finding {
    let path = match error.path().to_string() {
        p if p == "." => "spec".to_owned(),
        p if p.starts_with('[') => format!("spec{p}"),
        p => format!("spec.{p}"),
    };
    let said = error.inner().to_string();
    let message = match said.strip_prefix("invalid type: ").or_else(|| said.strip_prefix("invalid value: ")) {
        Some(rest) => match rest.split_once(", expected ") {
            Some((what, wanted)) => {
                let wanted = match wanted {
                    "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number in range",
                    "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number in range",
                    other => other,
                };
                format!("`{path}` is {what}, but {wanted} is wanted")
            }
            None => format!("`{path}`: {rest}"),
        },
        None => format!("`{path}`: {said}"),
    };
    let mut finding = Finding::new(Code::WrongValue, message).on(id.clone()).at(origin.source_of(&path));
    finding.path = Some(path);
    finding
}
