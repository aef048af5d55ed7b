//! What a Cluster's manifest comes to as Kubernetes objects: only the fields that Drover sets, as it applies them.

mod network;
mod operator;
mod registration;

pub use network::{allow_rsync, with_allowed};
pub use operator::{controller, namespace, operator_group, subscription};
pub use registration::{SERVICE_ACCOUNT, mig_cluster, token_secret, token_source};

use crate::model::ObjectRef;
use serde_json::{Map, Value, json};

/// The namespace of everything that MTC and its Velero have, on every cluster; objects elsewhere are ignored by MTC.
pub const NAMESPACE: &str = "openshift-migration";

/// The API of MTC's objects.
pub const MTC: &str = "migration.openshift.io/v1alpha1";

/// Drover's field manager: under this name the fields stand that it sets (server-side apply).
pub const FIELD_MANAGER: &str = "drover";

/// The annotation of an egress firewall that lists the ranges that Drover has allowed in it, so that it takes those out
/// again and no others.
pub const RANGES_ANNOTATION: &str = "drover.dev/allowed-ranges";

/// The label that says whose an object is: the fleet's name. A second one names the resource.
pub const FLEET_LABEL: &str = "drover.dev/fleet";

/// The label that names the resource that an object is made for: `Cluster.ocp4`.
pub const OWNER_LABEL: &str = "drover.dev/owner";

/// An object as Drover applies it.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Which.
    pub id: ObjectRef,
    /// All of it, `apiVersion`, `kind` and `metadata` included. Never a secret value.
    pub value: Value,
}

/// For whom objects are made.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The fleet.
    pub fleet: &'a str,
    /// The resource, `Cluster.ocp4`.
    pub resource: &'a str,
}

impl Object {
    /// An object of these fields, beside `metadata`.
    fn new(id: ObjectRef, owner: Owner<'_>, fields: Value) -> Self {
        let mut metadata = Map::new();
        metadata.insert("name".into(), id.name.clone().into());
        if let Some(namespace) = &id.namespace {
            metadata.insert("namespace".into(), namespace.clone().into());
        }
        metadata.insert("labels".into(), json!({FLEET_LABEL: owner.fleet, OWNER_LABEL: owner.resource}));
        let mut value = Map::new();
        value.insert("apiVersion".into(), id.api_version.clone().into());
        value.insert("kind".into(), id.kind.clone().into());
        value.insert("metadata".into(), metadata.into());
        if let Value::Object(fields) = fields {
            value.extend(fields);
        }
        Self { id, value: value.into() }
    }
}
