//! What planning and asking both look at: the manifests, and what was observed. And small looks at objects.

use crate::kind::Resources;
use crate::kind::cluster::ClusterSpec;
use crate::kind::cluster::objects::NAMESPACE;
use crate::model::{Manifest, ObjectRef};
use crate::observed::{ClusterState, ObjectState, Observed, Reading};
use serde_json::Value;

/// Manifests and observation.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub resources: &'a Resources,
    pub observed: &'a Observed,
}

impl<'a> Scene<'a> {
    /// Why a cluster is not known, where it is not.
    pub fn unknown(&self, name: &str) -> Option<&'a str> {
        match self.observed.clusters.get(name) {
            Some(Reading::Present(_)) => None,
            Some(Reading::Unknown { why }) => Some(why),
            None => Some("it was not looked at"),
        }
    }

    /// Other Clusters that are the same cluster.
    pub fn same_as(&self, m: &Manifest<ClusterSpec>) -> Vec<&'a str> {
        let Some(uid) = self.observed.cluster(m.name()).map(|s| s.uid.as_str()).filter(|u| !u.is_empty()) else {
            return Vec::new();
        };
        let is_it = |name: &&String| self.observed.cluster(name).is_some_and(|s| s.uid == uid);
        let others = self.resources.clusters.keys().filter(|n| *n != m.name());
        others.filter(is_it).map(String::as_str).collect()
    }
}

/// An object by its identity; the version of its API may be another one.
pub(super) fn find<'a>(state: &'a ClusterState, id: &ObjectRef) -> Option<&'a ObjectState> {
    let same = |o: &&ObjectState| {
        o.id.name == id.name && o.id.namespace == id.namespace && o.id.kind == id.kind && o.id.group() == id.group()
    };
    state.object(id).or_else(|| state.objects.iter().find(same))
}

/// Objects of a kind in MTC's namespace.
pub(super) fn ours<'a>(
    state: &'a ClusterState,
    group: &'a str,
    kind: &'a str,
) -> impl Iterator<Item = &'a ObjectState> {
    state.of_kind(group, kind).filter(|o| o.id.namespace.as_deref() == Some(NAMESPACE))
}

/// Whether a value is there and says something.
pub(super) fn is_there(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// A text in an object.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|s| !s.is_empty())
}

/// Whether a workload has as many ready pods as it wants.
pub(super) fn is_available(object: &ObjectState) -> bool {
    let number = |pointer: &str| object.value.pointer(pointer).and_then(Value::as_i64);
    let seen = number("/status/observedGeneration").unwrap_or(0) >= number("/metadata/generation").unwrap_or(0);
    let enough = match object.id.kind.as_str() {
        "DaemonSet" => {
            let wanted = number("/status/desiredNumberScheduled").unwrap_or(0);
            number("/status/numberReady").unwrap_or(0) >= wanted
        }
        _ => number("/status/availableReplicas").unwrap_or(0) >= number("/spec/replicas").unwrap_or(1),
    };
    seen && enough
}

/// A condition's text: its reason and message, shortened.
pub(super) fn said(condition: &Value) -> String {
    let reason = condition["reason"].as_str().unwrap_or_default();
    let message = condition["message"].as_str().unwrap_or_default();
    let text = match (reason, message) {
        ("", m) | (m, "") => m.to_owned(),
        (r, m) => format!("{r}: {m}"),
    };
    shorten(&text)
}

/// A foreign text in a message: one line of at most 300 characters. Showing it escapes the rest.
pub(super) fn shorten(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
