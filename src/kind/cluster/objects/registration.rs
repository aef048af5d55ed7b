//! A remote cluster on the control cluster: the token's source, its Secret, its MigCluster.

use super::{MTC, NAMESPACE, Object, Owner};
use crate::kind::cluster::Registration;
use crate::model::ObjectRef;
use serde_json::{Map, Value, json};

/// The service account that the operator makes on each cluster, by whose token the controller reaches it.
pub const SERVICE_ACCOUNT: &str = "migration-controller";

/// The Secret on the remote cluster that Kubernetes fills with a token of the service account's. It does not expire, unlike
/// a requested one; clusters before Kubernetes 1.24 have one already.
pub fn token_source(owner: Owner<'_>) -> Object {
    let id = ObjectRef::new("v1", "Secret", NAMESPACE, "drover-migration-controller-token");
    let mut object = Object::new(id, owner, json!({"type": "kubernetes.io/service-account-token"}));
    object.value["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": SERVICE_ACCOUNT});
    object
}

/// The Secret on the control cluster that has the token of a remote one, without its value, which is under `saToken`.
pub fn token_secret(cluster: &str, namespace: &str, owner: Owner<'_>) -> Object {
    let id = ObjectRef::new("v1", "Secret", namespace, &format!("drover-{cluster}-token"));
    Object::new(id, owner, json!({"type": "Opaque"}))
}

/// The MigCluster of a remote cluster. `url`: how the control cluster reaches it; `ca`: in PEM, base64-encoded.
pub fn mig_cluster(
    cluster: &str,
    url: &str,
    ca: Option<&str>,
    registration: &Registration,
    secret: &ObjectRef,
    owner: Owner<'_>,
) -> Object {
    let mut spec: Map<String, Value> = Map::new();
    spec.insert("isHostCluster".into(), false.into());
    spec.insert("url".into(), url.into());
    spec.insert("serviceAccountSecretRef".into(), json!({"name": secret.name, "namespace": secret.namespace}));
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            spec.insert(key.into(), value);
        }
    };
    // The controller leaves a `false` out when it writes the object anew, and would fight one that is set.
    set("insecure", registration.insecure.then_some(true.into()));
    set("caBundle", ca.map(Into::into));
    set("exposedRegistryPath", registration.exposed_registry.clone().map(Into::into));
    set("azureResourceGroup", registration.azure_resource_group.clone().map(Into::into));
    set("restartRestic", registration.restart_restic.map(Into::into));
    Object::new(ObjectRef::new(MTC, "MigCluster", NAMESPACE, cluster), owner, json!({"spec": spec}))
}
