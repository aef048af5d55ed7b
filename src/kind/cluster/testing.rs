//! What unit tests of clusters share.

use super::ClusterSpec;
use crate::kind::Resources;
use crate::model::{KindName, Manifest, Metadata, Origin};
use crate::yaml::{Limits, Next, Reader};
use serde_json::Value;

/// A text of YAML as a value, read as manifests are.
pub fn value(text: &str) -> Value {
    let limits = Limits::default();
    let mut reader = Reader::new("test", text, &limits);
    match reader.next_document() {
        Some(Next::Document(document)) => document.value,
        other => panic!("{text}: {other:?}, {:?}", reader.findings),
    }
}

/// Clusters by name, with what their specs say beside how they are reached.
pub fn clusters(specs: &[(&str, &str)]) -> Resources {
    let mut all = Resources::default();
    for (name, spec) in specs {
        let text = format!("{{kubeconfig: {{secretRef: {{file: /k}}}}, {spec}}}");
        let spec: ClusterSpec = serde_json::from_value(value(&text)).unwrap();
        let metadata = Metadata { name: (*name).into(), ..Metadata::default() };
        let manifest = Manifest { kind: KindName::new("Cluster"), metadata, spec, origin: Origin::default() };
        all.clusters.insert((*name).into(), manifest);
    }
    all
}
