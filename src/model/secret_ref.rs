//! Where a secret value stands. A manifest never has the value itself.

use super::ObjectRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a secret value stands: one of `env`, `file` and `kubernetes`. Which variables, files and clusters may be named is
/// bounded by the operator's configuration (`secrets`), because a manifest could otherwise read whatever Drover can.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SecretRef {
    /// An environment variable of Drover's.
    Env(String),
    /// A file on the machine that Drover runs on: an absolute path.
    File(String),
    /// A key of a Secret in a cluster that has a manifest.
    Kubernetes(SecretKey),
}

/// A key of a Secret in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKey {
    /// The Cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// The key in its data.
    pub key: String,
}

/// Where a secret value comes from that Drover hands on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SecretSource {
    /// As a manifest says.
    Ref(SecretRef),
    /// The token that a cluster has put into a Secret of its own.
    Token {
        /// The cluster.
        cluster: String,
        /// The Secret.
        secret: ObjectRef,
    },
}

/// A value that is not in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FromSecret {
    /// Where it stands.
    pub secret_ref: SecretRef,
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable `{name}`"),
            Self::File(path) => write!(f, "the file `{path}`"),
            Self::Kubernetes(k) => {
                write!(f, "the key `{}` of the Secret `{}/{}` in `{}`", k.key, k.namespace, k.name, k.cluster)
            }
        }
    }
}
