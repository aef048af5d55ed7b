//! What is asked of clusters beyond their reading, because manifests ask for it, and what they answered. Asking changes
//! nothing there.

use super::Reading;
use crate::model::{ObjectRef, SecretSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is to be asked: by cluster, in the order of the manifests.
pub type ClusterQuestions = Vec<(String, ClusterQuestion)>;

/// A question to a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ClusterQuestion {
    /// What an object would be if these fields were applied: a server-side dry run, so that defaults, webhooks and other
    /// field managers have their say.
    Apply {
        /// Which object.
        id: ObjectRef,
        /// The fields, as the action `ApplyObject` has them.
        object: Value,
        /// Whether fields of others are taken over.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Whether an object has these secret values. They are read and compared by the provider; neither they nor a hash of them
    /// comes back.
    Secrets {
        /// Which object.
        id: ObjectRef,
        /// The values, by where they stand in it (JSON pointers).
        values: BTreeMap<String, SecretSource>,
    },
}

/// A cluster's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ClusterAnswer {
    /// The object as it would be, without the values of Secrets and without `metadata.managedFields`.
    WouldBe(Value),
    /// Other field managers have set fields that are to be set.
    Conflict(Vec<FieldConflict>),
    /// The API server, or a webhook, does not accept it: in its words.
    Refused(String),
    /// By pointer, whether each secret value is there already. An object that is not there has none.
    Same(BTreeMap<String, bool>),
}

/// A field that another manager has set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldConflict {
    /// The other manager, `kubectl-client-side-apply`.
    pub manager: String,
    /// The field, `.spec.channel`.
    pub field: String,
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// What was asked.
    pub question: ClusterQuestion,
    /// What was answered, or why there is no answer.
    pub answer: Reading<ClusterAnswer>,
}
