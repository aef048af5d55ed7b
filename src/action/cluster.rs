//! What can be done to a Kubernetes cluster.

use crate::model::{ObjectRef, SecretSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One thing that can be done to a cluster. None has a secret value in it: a secret is named by where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "action", content = "parameters", rename_all_fields = "camelCase")]
pub enum ClusterAction {
    /// Applies the fields of an object that Drover sets (server-side apply, under Drover's field manager). Fields that
    /// somebody else has set are a conflict, which fails the step unless `force`.
    ApplyObject {
        /// The cluster.
        cluster: String,
        /// Which object.
        id: ObjectRef,
        /// The fields, `apiVersion`, `kind` and `metadata` included.
        object: Value,
        /// Take fields over that another manager has set.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
        /// Secret values, by where they go in the object (JSON pointers); in base64 where the field is of bytes
        /// ([`ClusterAction::is_bytes`]).
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        secrets: BTreeMap<String, SecretSource>,
    },
    /// Creates an object as it is, where it is not there.
    CreateObject {
        /// The cluster.
        cluster: String,
        /// Which object.
        id: ObjectRef,
        /// All of it.
        object: Value,
    },
    /// Changes fields of an object whose controller rewrites it as a whole: each operation after a test of what was
    /// observed (JSON Patch, RFC 6902).
    PatchObject {
        /// The cluster.
        cluster: String,
        /// Which object.
        id: ObjectRef,
        /// The operations.
        patch: Vec<Value>,
    },
    /// Waits until the Operator Lifecycle Manager asks for an approval of exactly this version, and approves it: the
    /// InstallPlan whose `spec.clusterServiceVersionNames` has it, and no other version of its package. Its name is OLM's
    /// choice, so it is looked for when the step runs. Done where the version is installed, or approved, already.
    ApproveInstallPlan {
        /// The cluster.
        cluster: String,
        /// The Subscription.
        id: ObjectRef,
        /// The version: `mtc-operator.v1.7.4`.
        csv: String,
        /// How long is waited for the InstallPlan, in milliseconds.
        timeout_millis: u64,
    },
    /// Deletes an object, the one that was observed and no other.
    DeleteObject {
        /// The cluster.
        cluster: String,
        /// Which object.
        id: ObjectRef,
        /// The UID that was observed.
        uid: String,
    },
    /// Waits for an object to be as it should.
    AwaitObject {
        /// The cluster.
        cluster: String,
        /// Which object.
        id: ObjectRef,
        /// What for.
        until: Until,
        /// How long at most, in milliseconds.
        timeout_millis: u64,
    },
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Until {
    /// It is there.
    Exists,
    /// It is gone.
    Gone,
    /// A condition is `True`.
    Condition {
        /// Its type.
        name: String,
        /// Conditions that end the waiting: with one of them it will not come.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fatal: Vec<String>,
    },
    /// A Subscription has installed its version, and that version has succeeded.
    Installed,
    /// As many pods as are wanted are ready (Deployments, DaemonSets).
    Available,
}

impl ClusterAction {
    /// The action's name, as the plan shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ApplyObject { .. } => "ApplyObject",
            Self::CreateObject { .. } => "CreateObject",
            Self::PatchObject { .. } => "PatchObject",
            Self::ApproveInstallPlan { .. } => "ApproveInstallPlan",
            Self::DeleteObject { .. } => "DeleteObject",
            Self::AwaitObject { .. } => "AwaitObject",
        }
    }

    /// The cluster that it works on.
    pub fn cluster(&self) -> &str {
        match self {
            Self::ApplyObject { cluster, .. }
            | Self::CreateObject { cluster, .. }
            | Self::PatchObject { cluster, .. }
            | Self::ApproveInstallPlan { cluster, .. }
            | Self::DeleteObject { cluster, .. }
            | Self::AwaitObject { cluster, .. } => cluster,
        }
    }

    /// The object that it is about.
    pub fn object(&self) -> &ObjectRef {
        match self {
            Self::ApplyObject { id, .. }
            | Self::CreateObject { id, .. }
            | Self::PatchObject { id, .. }
            | Self::ApproveInstallPlan { id, .. }
            | Self::DeleteObject { id, .. }
            | Self::AwaitObject { id, .. } => id,
        }
    }

    /// Whether a field of an object is of bytes, which JSON has in base64: `data` of a Secret, a MigCluster's CA.
    pub fn is_bytes(id: &ObjectRef, pointer: &str) -> bool {
        match (id.group(), id.kind.as_str()) {
            ("", "Secret") => pointer.starts_with("/data/"),
            ("migration.openshift.io", "MigCluster") => pointer == "/spec/caBundle",
            _ => false,
        }
    }

    /// What undoes it, where one thing does.
    pub fn undo(&self) -> Option<String> {
        let Self::CreateObject { cluster, id, .. } = self else { return None };
        let namespace = id.namespace.as_ref().map(|n| format!(" -n {n}")).unwrap_or_default();
        Some(format!("kubectl delete {} {}{namespace} on {cluster}", id.kind.to_lowercase(), id.name))
    }
}
