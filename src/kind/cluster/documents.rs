//! The legacy operator's files (operator.yml, controller.yml): read, and held against what such files have, before anything
//! of them is applied. A repository could otherwise have Drover apply whatever its account may.

use super::ManifestText;
use super::objects::{MTC, NAMESPACE};
use crate::model::ObjectRef;
use crate::yaml::{Limits, Next, Reader};
use serde_json::Value;

/// Kinds that operator.yml and controller.yml may have, by group and kind, and whether they stand in a namespace.
const KINDS: &[(&str, &str, bool)] = &[
    ("", "Namespace", false),
    ("", "ServiceAccount", true),
    ("apiextensions.k8s.io", "CustomResourceDefinition", false),
    ("apps", "Deployment", true),
    ("authorization.openshift.io", "RoleBinding", true),
    ("rbac.authorization.k8s.io", "ClusterRole", false),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", false),
    ("rbac.authorization.k8s.io", "Role", true),
    ("rbac.authorization.k8s.io", "RoleBinding", true),
    ("migration.openshift.io", "MigrationController", true),
];

/// Far more than the files have: a definition with its schema is deep and long.
const LIMITS: Limits = Limits {
    file_bytes: 4 << 20,
    files: 1,
    total_bytes: 4 << 20,
    documents: 100,
    nodes: 100_000,
    depth: 100,
    findings: 20,
};

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Which.
    pub id: ObjectRef,
    /// All of it, as written; its namespace filled in.
    pub value: Value,
}

impl Document {
    /// Whether it may be there already, made by the platform: role bindings that operator.yml brings for platforms that are
    /// older than they (migration guide, 3.2, "You can ignore Error from server (AlreadyExists) messages").
    pub fn may_exist(&self) -> bool {
        self.id.kind == "RoleBinding" && self.id.name.starts_with("system:")
    }

    /// Whether it is the MigrationController.
    pub fn is_controller(&self) -> bool {
        self.id.api_version == MTC && self.id.kind == "MigrationController"
    }
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unusable {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

fn refuse(what: impl Into<String>, hint: impl Into<String>) -> Unusable {
    Unusable { what: what.into(), hint: hint.into() }
}

/// The objects of a file, in order. `name`: for messages.
pub fn documents(text: &ManifestText, name: &str) -> Result<Vec<Document>, Unusable> {
    let Some(inline) = &text.inline else {
        return Err(refuse(
            format!("there is no text for {name}"),
            format!("name the file, relative to the manifest's folder: `file: mtc/{name}`"),
        ));
    };
    let mut reader = Reader::new(name, inline, &LIMITS);
    let mut found: Vec<Document> = Vec::new();
    while let Some(next) = reader.next_document() {
        match next {
            Next::Empty => {}
            Next::Document(document) if document.marks.is_empty() => {
                found.push(object(document.value).map_err(|mut e| {
                    e.what = format!("{name}, line {}: {}", document.line, e.what);
                    e
                })?);
            }
            Next::Document(_) | Next::Lost => {
                let first = reader.findings.first();
                let line = first.and_then(|f| f.source.as_ref()).map_or(1, |s| s.line);
                let what = first.map_or("it cannot be read", |f| f.message.as_str());
                return Err(refuse(
                    format!("{name}, line {line}: {what}"),
                    "use the file as it is in the operator's image (migration guide, 3.2)",
                ));
            }
        }
    }
    if let Some(again) = found.iter().enumerate().find(|(i, d)| found[..*i].iter().any(|o| o.id == d.id)) {
        return Err(refuse(format!("{name}: {} is there twice", again.1.id), "keep one of them"));
    }
    Ok(found)
}

fn object(mut value: Value) -> Result<Document, Unusable> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let (Some(api_version), Some(kind), Some(name)) = (text("/apiVersion"), text("/kind"), text("/metadata/name"))
    else {
        return Err(refuse(
            "the document is no Kubernetes object: `apiVersion`, `kind` or `metadata.name` is missing",
            "use the file as it is in the operator's image (migration guide, 3.2)",
        ));
    };
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let shown = format!("{} {}", crate::yaml::shorten(&kind), crate::yaml::shorten(&name));
    let Some((.., namespaced)) = KINDS.iter().find(|(g, k, _)| *g == group && *k == kind) else {
        return Err(refuse(
            format!("{shown} is nothing that the operator's files have"),
            "take it out; Drover applies no other objects",
        ));
    };
    let said = text("/metadata/namespace");
    let is_ours = match (kind.as_str(), *namespaced) {
        (_, true) => said.as_deref().is_none_or(|n| n == NAMESPACE),
        ("Namespace", _) => name == NAMESPACE,
        ("ClusterRole" | "ClusterRoleBinding", _) => name == "migration-operator",
        ("CustomResourceDefinition", _) => name.ends_with(".migration.openshift.io") || name.ends_with(".velero.io"),
        _ => true,
    };
    if !is_ours {
        return Err(refuse(
            format!("{shown} is not of MTC"),
            format!("take it out: all of MTC is in the namespace `{NAMESPACE}`"),
        ));
    }
    if *namespaced && let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.insert("namespace".into(), NAMESPACE.into());
    }
    let namespace = namespaced.then(|| NAMESPACE.to_owned());
    Ok(Document { id: ObjectRef { api_version, kind, namespace, name }, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Document>, Unusable> {
        documents(&ManifestText { file: None, inline: Some(text.into()) }, "operator.yml")
    }

    #[test]
    fn documents_come_in_order_with_their_namespace() {
        let found = read(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: openshift-migration}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: 'system:image-pullers'}\n---\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: migration-operator, namespace: openshift-migration}\n",
        )
        .unwrap();
        let ids: Vec<String> = found.iter().map(|d| d.id.to_string()).collect();
        assert_eq!(
            ids,
            [
                "Namespace openshift-migration",
                "RoleBinding openshift-migration/system:image-pullers",
                "Deployment openshift-migration/migration-operator",
            ]
        );
        assert_eq!(found.iter().map(Document::may_exist).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(found[1].value["metadata"]["namespace"], NAMESPACE);
    }

    #[test]
    fn nothing_else_is_applied() {
        for (text, what) in [
            ("{apiVersion: v1, kind: Secret, metadata: {name: x}}", "nothing that the operator's files have"),
            ("{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}", "is not of MTC"),
            ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: x, namespace: default}}", "is not of MTC"),
            ("{kind: Namespace}", "no Kubernetes object"),
            ("a: [", "line 1"),
            ("a: &b {c: 1}", "anchors"),
            (
                "{apiVersion: v1, kind: ServiceAccount, metadata: {name: x}}\n---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: x}}",
                "there twice",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.what.contains(what), "{text}: {error}");
        }
        assert!(documents(&ManifestText::default(), "operator.yml").unwrap_err().hint.contains("mtc/operator.yml"));
    }
}
