//! What is read of a Kubernetes cluster. No secret value is in it: of a Secret there are its type and its keys.

use super::{Answered, ClusterAnswer, ClusterQuestion, Reading};
use crate::model::ObjectRef;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterState {
    /// The UID of the namespace `kube-system`: the identity of a cluster. Two Clusters with one are one cluster.
    pub uid: String,
    /// The address by which Drover reaches its API server.
    pub server: String,
    /// The CA of that address, where its credentials say one: PEM, in base64, as kubeconfigs and MTC write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Kubernetes' version, `v1.23.5`.
    pub version: String,
    /// The platform as manifests write it: `openshift-4.10`, `kubernetes-1.29`.
    pub platform: String,
    /// OpenShift's version, `4.10.21`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openshift_version: Option<String>,
    /// The network plugin: `OpenShiftSDN`, `OVNKubernetes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_type: Option<String>,
    /// The kinds that it serves, of those that Drover deals with, as `apiVersion/Kind`. What is not here is not served, and
    /// there are no objects of it.
    pub served: BTreeSet<String>,
    /// Rights that Drover needs there and does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<Right>,
    /// When the credentials that reach it end, where they say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub credentials_end: Option<Timestamp>,
    /// How far its clock is from Drover's, in milliseconds: positive where it is ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew_millis: Option<i64>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, NamespaceState>,
    /// The objects that Drover deals with, ordered by identity.
    pub objects: Vec<ObjectState>,
    /// Custom resource definitions of MTC and Velero, by name.
    pub crds: BTreeMap<String, CrdState>,
    /// What it was asked beyond this, and what it said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answered>,
}

/// A right, as an API server is asked for it (SelfSubjectAccessReview).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Right {
    /// `create`.
    pub verb: String,
    /// The group; empty for the core.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// `subscriptions`.
    pub resource: String,
    /// The namespace; none for the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceState {
    /// Its UID.
    pub uid: String,
    /// Since when it is on its way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<String>,
    /// What holds it back then, from its conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remaining: Vec<String>,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A custom resource definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CrdState {
    /// Its UID.
    pub uid: String,
    /// Whether it is served (`Established`).
    pub established: bool,
    /// How many objects of it there are. None where they could not be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u64>,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectState {
    /// Which.
    pub id: ObjectRef,
    /// Its UID: one of the same name that was made anew is another one.
    pub uid: String,
    /// Its version, which every write changes.
    pub resource_version: String,
    /// Whether it is being deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// What has to happen before it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    /// Who has set which of its fields: field managers, with dotted paths.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub managers: BTreeMap<String, BTreeSet<String>>,
    /// All of it but the values of Secrets and `metadata.managedFields`.
    pub value: Value,
}

impl ClusterState {
    /// An object, where it is there.
    pub fn object(&self, id: &ObjectRef) -> Option<&ObjectState> {
        self.objects.binary_search_by(|o| o.id.cmp(id)).ok().map(|i| &self.objects[i])
    }

    /// Every object of a kind, whatever the version of its API.
    pub fn of_kind<'a>(&'a self, group: &'a str, kind: &'a str) -> impl Iterator<Item = &'a ObjectState> {
        self.objects.iter().filter(move |o| o.id.group() == group && o.id.kind == kind)
    }

    /// What it said to a question, where it was asked.
    pub fn answer_to(&self, question: &ClusterQuestion) -> Option<&Reading<ClusterAnswer>> {
        self.answers.iter().find(|a| a.question == *question).map(|a| &a.answer)
    }

    /// Notes an answer.
    pub fn answer(&mut self, question: ClusterQuestion, answer: Reading<ClusterAnswer>) {
        self.answers.push(Answered { question, answer });
    }

    /// Whether a kind is served.
    pub fn serves(&self, api_version: &str, kind: &str) -> bool {
        self.served.contains(&format!("{api_version}/{kind}"))
    }
}

impl ObjectState {
    /// A condition's status, where the object has it: `status.conditions[]` by `type`.
    pub fn condition(&self, name: &str) -> Option<&Value> {
        let conditions = self.value.pointer("/status/conditions")?.as_array()?;
        conditions.iter().find(|c| c["type"] == name)
    }

    /// Whether a condition is `True`.
    pub fn is(&self, condition: &str) -> bool {
        self.condition(condition).is_some_and(|c| c["status"] == "True")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str, name: &str, value: Value) -> ObjectState {
        ObjectState {
            id: ObjectRef::new("migration.openshift.io/v1alpha1", kind, "openshift-migration", name),
            uid: name.into(),
            resource_version: "1".into(),
            deleting: false,
            finalizers: Vec::new(),
            managers: BTreeMap::new(),
            value,
        }
    }

    #[test]
    fn objects_are_found_by_identity_and_kind() {
        let ready =
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "False"}]}});
        let mut objects = vec![
            object("MigPlan", "a", json!({})),
            object("MigCluster", "host", ready),
            object("MigCluster", "ocp3", json!({})),
        ];
        objects.sort_by(|a, b| a.id.cmp(&b.id));
        let state = ClusterState { objects, ..ClusterState::default() };
        let host = state.object(&ObjectRef::new(
            "migration.openshift.io/v1alpha1",
            "MigCluster",
            "openshift-migration",
            "host",
        ));
        let host = host.unwrap();
        assert!(host.is("Ready") && !host.is("X") && !host.is("Y") && host.condition("X").is_some());
        assert_eq!(state.of_kind("migration.openshift.io", "MigCluster").count(), 2);
        assert!(state.object(&ObjectRef::cluster_wide("v1", "Namespace", "x")).is_none());
    }
}
