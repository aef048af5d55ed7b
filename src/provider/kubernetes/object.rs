//! From an object as an API server sends it to what is observed of it: without secret values, with its fields' managers as
//! plain paths.
//!
//! Secret, and taken out: the values of Secrets; the annotation in which `kubectl apply` keeps a copy of what was applied; what
//! MTC writes its proxy's password into (mtc-operator: the variable `stunnel_tcp_proxy`, which ends in a ConfigMap); and
//! what stands between `://` and `@` in any text.

use super::error::{Fault, FaultKind};
use crate::model::ObjectRef;
use crate::observed::{NamespaceState, ObjectState};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What stands in the place of a secret value.
pub(super) const HIDDEN: &str = "<secret>";

/// kubectl's copy of what was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields and keys that are a proxy's URL with its password, by MTC's names.
const PROXY_SECRETS: [&str; 2] = ["stunnel_tcp_proxy", "STUNNEL_TCP_PROXY"];

/// Reads one object of a kind.
pub(super) fn read(cluster: &str, api_version: &str, kind: &str, value: Value) -> Result<ObjectState, Fault> {
    let odd = |what: &str| {
        Fault::new(
            cluster,
            format!("read {kind}"),
            FaultKind::BadAnswer,
            format!("an object in the answer has no {what}"),
        )
    };
    let Value::Object(mut object) = value else { return Err(odd("fields")) };
    // Items of a list do not say what they are.
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return Err(odd("metadata")) };
    let managers = metadata.remove("managedFields").map(|m| managers(&m)).unwrap_or_default();
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
    let id = ObjectRef {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: text("namespace"),
        name: text("name").ok_or_else(|| odd("name"))?,
    };
    let uid = text("uid").ok_or_else(|| odd("UID"))?;
    let resource_version = text("resourceVersion").unwrap_or_default();
    let deleting = metadata.contains_key("deletionTimestamp");
    let finalizers = strings(metadata.get("finalizers"));
    hide(&mut object);
    Ok(ObjectState { id, uid, resource_version, deleting, finalizers, managers, value: object.into() })
}

/// Takes everything secret out of an object.
pub(super) fn hide(object: &mut Map<String, Value>) {
    if let Some(Value::Object(annotations)) = object.get_mut("metadata").and_then(|m| m.get_mut("annotations")) {
        annotations.remove(LAST_APPLIED);
    }
    if object.get("kind").is_some_and(|k| k == "Secret") {
        for part in ["data", "stringData"] {
            if let Some(Value::Object(data)) = object.get_mut(part) {
                data.values_mut().for_each(|v| *v = HIDDEN.into());
            }
        }
    }
    object.values_mut().for_each(hide_within);
}

fn hide_within(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if PROXY_SECRETS.contains(&key.as_str()) && !text.is_empty() => {
                        *text = HIDDEN.into();
                    }
                    value => hide_within(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_within),
        Value::String(text) => {
            if let Some(hidden) = without_user(text) {
                *text = hidden;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text without what stands before the `@` of its URLs, where it has such.
pub(super) fn without_user(text: &str) -> Option<String> {
    let (mut rest, mut out, mut found) = (text, String::new(), false);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let word = after.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(after.len());
        let slash = after[..word].find('/').unwrap_or(word);
        // A password may have a `/` in it, whatever the standard says: then what stands before it ends in no port.
        let port = after[..slash].rsplit_once(':').map_or("", |(_, port)| port);
        let is_cut = !after[..slash].contains('@') && port.bytes().any(|b| !b.is_ascii_digit());
        let end = if is_cut { word } else { slash };
        rest = match after[..end].rfind('@') {
            Some(user) => {
                found = true;
                out.push_str(HIDDEN);
                &after[user..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    found.then_some(out)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `metadata.managedFields` as managers with dotted paths. What several entries of one manager have is one set; those of
/// subresources do not count, because nobody's fields are in the way there.
pub(super) fn managers(managed: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in managed.as_array().into_iter().flatten() {
        let is_of_subresource = entry["subresource"].as_str().is_some_and(|s| !s.is_empty());
        let Some(manager) = entry["manager"].as_str().filter(|_| !is_of_subresource) else { continue };
        paths(&entry["fieldsV1"], &mut String::new(), all.entry(manager.to_owned()).or_default());
    }
    all
}

/// The leaves of a `FieldsV1` (`f:` a field, `k:` an item of a list by its keys, `v:` one by its value).
fn paths(fields: &Value, path: &mut String, found: &mut BTreeSet<String>) {
    let Some(fields) = fields.as_object() else { return };
    let mut is_leaf = true;
    for (key, below) in fields {
        let length = path.len();
        match key.split_once(':') {
            Some(("f", name)) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Some(("k" | "v" | "i", item)) => {
                path.push('[');
                path.push_str(item);
                path.push(']');
            }
            // `.`: the item or map itself.
            _ => continue,
        }
        is_leaf = false;
        paths(below, path, found);
        path.truncate(length);
    }
    if is_leaf && !path.is_empty() {
        found.insert(path.clone());
    }
}

/// What is observed of a namespace.
pub(super) fn namespace(object: &ObjectState) -> NamespaceState {
    let metadata = &object.value["metadata"];
    let conditions = object.value["status"]["conditions"].as_array();
    let remaining = conditions.into_iter().flatten().filter(|c| {
        let holds = [
            "NamespaceContentRemaining",
            "NamespaceFinalizersRemaining",
            "NamespaceDeletionDiscoveryFailure",
            "NamespaceDeletionContentFailure",
            "NamespaceDeletionGroupVersionParsingFailure",
        ];
        c["status"] == "True" && holds.iter().any(|h| c["type"] == *h)
    });
    let labels = metadata["labels"].as_object();
    let labels = labels.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
    NamespaceState {
        uid: object.uid.clone(),
        terminating: metadata["deletionTimestamp"].as_str().map(str::to_owned),
        remaining: remaining.filter_map(|c| c["message"].as_str()).map(str::to_owned).collect(),
        labels: labels.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secret_values_do_not_come_in() {
        let secret = json!({
            "metadata": {"name": "s", "uid": "1", "annotations": {LAST_APPLIED: "{\"data\":{\"a\":\"hunter2\"}}", "x": "y"}},
            "type": "Opaque", "data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "hunter2"},
        });
        let controller = json!({
            "metadata": {"name": "m", "uid": "2", "annotations": {"note": "see http://user:hunter2@proxy:3128/x"}},
            "spec": {"stunnel_tcp_proxy": "http://hunter2", "http_proxy": "http://u:hunter2@p:1", "list": ["a://b@hunter2"]},
        });
        let map = json!({"metadata": {"name": "c", "uid": "3"}, "data": {"STUNNEL_TCP_PROXY": "hunter2"}});
        for (kind, value) in [("Secret", secret), ("MigrationController", controller), ("ConfigMap", map)] {
            let state = read("c", "v1", kind, value).unwrap();
            let text = serde_json::to_string(&state).unwrap().replace("@hunter2", "");
            assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
            if kind == "Secret" {
                assert_eq!(state.value["data"], json!({"a": HIDDEN}));
                assert_eq!(state.value["metadata"]["annotations"], json!({"x": "y"}));
            }
        }
    }

    #[test]
    fn only_the_user_of_a_url_is_hidden() {
        assert_eq!(without_user("https://api.example.com:6443/x@y"), None);
        assert_eq!(
            without_user("a http://u:p@h:1 and ftp://x@y").unwrap(),
            "a http://<secret>@h:1 and ftp://<secret>@y"
        );
        assert_eq!(without_user("http://u:pa/ss@h:1/x").unwrap(), "http://<secret>@h:1/x");
    }

    #[test]
    fn managers_have_their_fields_as_paths() {
        let managed = json!([
            {"manager": "drover", "operation": "Apply", "fieldsV1": {
                "f:metadata": {"f:labels": {"f:drover.dev/fleet": {}}},
                "f:spec": {".": {}, "f:channel": {}, "f:list": {"k:{\"name\":\"a\"}": {".": {}, "f:x": {}}, "v:\"z\"": {}}}}},
            {"manager": "olm", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {"f:state": {}}}},
        ]);
        let found = managers(&managed);
        let drover: Vec<&str> = found["drover"].iter().map(String::as_str).collect();
        assert_eq!(
            drover,
            ["metadata.labels.drover.dev/fleet", "spec.channel", "spec.list[\"z\"]", "spec.list[{\"name\":\"a\"}].x"]
        );
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn an_object_without_identity_is_no_object() {
        for value in [json!(1), json!({}), json!({"metadata": {}}), json!({"metadata": {"name": "x"}})] {
            assert_eq!(read("c", "v1", "Pod", value).unwrap_err().kind, FaultKind::BadAnswer);
        }
    }

    #[test]
    fn a_namespace_says_what_holds_it_back() {
        let value = json!({
            "metadata": {"name": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}},
            "status": {"conditions": [
                {"type": "NamespaceContentRemaining", "status": "True", "message": "pods. has 1 resource instances"},
                {"type": "NamespaceDeletionContentFailure", "status": "False", "message": "no"},
            ]},
        });
        let state = namespace(&read("c", "v1", "Namespace", value).unwrap());
        assert_eq!(state.remaining, ["pods. has 1 resource instances"]);
        assert!(state.terminating.is_some() && state.labels["a"] == "b");
    }
}
