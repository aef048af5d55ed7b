//! The clusters of a revision, each with its connection, made when it is first needed and again when its credentials are not
//! good any more.

use super::access::{Access, access};
use super::client::{Ask, Connection};
use super::error::{Fault, FaultKind};
use super::kinds::{Kinds, path};
use super::object;
use super::{Declared, KubernetesOptions, Watched, ends};
use crate::kind::cluster::ClusterSpec;
use crate::model::{ObjectRef, Secret, SecretKey, SecretRef, SecretSource};
use crate::observed::{ObjectState, Right};
use crate::provider::secrets::{SecretFault, SecretKeys};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Does something with the connection to a cluster. Where the cluster does not know who asks (401), the credentials are read
/// anew, once: they may have been renewed since. (No function with a closure: the compiler cannot tell yet that the future of
/// an `AsyncFn` may move between threads.)
macro_rules! connected {
    ($clusters:expr, $cluster:expr, $deadline:expr, $connection:ident => $work:expr) => {{
        let mut is_again = false;
        loop {
            let connection = $clusters.connection($cluster, $deadline).await?;
            let result = {
                let $connection = &*connection;
                $work.await
            };
            match result {
                Err(fault) if fault.kind == $crate::provider::kubernetes::FaultKind::Unauthorized && !is_again => {
                    is_again = true;
                    $clusters.forget($cluster, &connection).await;
                }
                other => break other,
            }
        }
    }};
}
pub(super) use connected;

/// What a token's Secret has the token under (Kubernetes, `ServiceAccountTokenKey`).
const TOKEN_KEY: &str = "token";

/// A set of clusters.
pub(super) struct Clusters {
    pub specs: BTreeMap<String, ClusterSpec>,
    /// What Drover has to be allowed, by cluster.
    pub rights: BTreeMap<String, Vec<Right>>,
    options: KubernetesOptions,
    pub watched: Option<Watched>,
    connections: BTreeMap<String, Mutex<Option<Arc<Connection>>>>,
}

impl Clusters {
    pub fn new(
        declared: BTreeMap<String, Declared>,
        options: KubernetesOptions,
        watched: Option<Watched>,
    ) -> Arc<Self> {
        let connections = declared.keys().map(|name| (name.clone(), Mutex::default())).collect();
        let (mut specs, mut rights) = (BTreeMap::new(), BTreeMap::new());
        for (name, cluster) in declared {
            rights.insert(name.clone(), cluster.rights);
            specs.insert(name, cluster.spec);
        }
        Arc::new(Self { specs, rights, options, watched, connections })
    }

    /// The connection to a cluster, by `deadline`.
    pub async fn connection(&self, cluster: &str, deadline: Instant) -> Result<Arc<Connection>, Fault> {
        self.connect(cluster, &[], deadline).await
    }

    /// `via`: the clusters that are being connected to, of which each needs a secret that is in the next one.
    async fn connect(&self, cluster: &str, via: &[&str], deadline: Instant) -> Result<Arc<Connection>, Fault> {
        let fault = |kind, why: String| Fault::new(cluster, "connect", kind, why);
        let (Some(spec), Some(slot)) = (self.specs.get(cluster), self.connections.get(cluster)) else {
            return Err(fault(FaultKind::Access, format!("no Cluster `{cluster}` is declared")));
        };
        if via.contains(&cluster) {
            let circle = via.iter().chain([&cluster]).map(|c| format!("`{c}`")).collect::<Vec<_>>().join(" → ");
            return Err(fault(FaultKind::Access, format!("what is needed to reach it stands in it: {circle}"))
                .hint("put one of the secrets into a file or a variable"));
        }
        let late = |_| fault(FaultKind::Timeout, "no connection in time".into());
        let mut slot = tokio::time::timeout_at(deadline, slot.lock()).await.map_err(late)?;
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        let via: Vec<&str> = via.iter().copied().chain([cluster]).collect();
        let keys = Keys { clusters: self, via: &via };
        let access = access(cluster, spec, &self.options, &keys, deadline).await?;
        let Access { config, server, credentials_end, ca } = access;
        // Reading files and running a credential plugin: both may take their time.
        let made = tokio::task::spawn_blocking(move || kube::Client::try_from(config));
        // The client has a task of its own, which belongs to this runtime.
        let client = match tokio::time::timeout_at(deadline, made).await.map_err(late)? {
            Ok(made) => made.map_err(|e| Fault::of_client(cluster, "connect", None, &e))?,
            Err(_) => return Err(fault(FaultKind::Access, "the credentials cannot be used".into())),
        };
        let connection = Arc::new(Connection::new(cluster, server, (credentials_end, ca), client, &spec.limits));
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Forgets a connection whose credentials are not good any more, where nobody did so already: the next one reads them anew.
    pub async fn forget(&self, cluster: &str, old: &Arc<Connection>) {
        if let Some(slot) = self.connections.get(cluster) {
            let mut slot = slot.lock().await;
            if slot.as_ref().is_some_and(|c| Arc::ptr_eq(c, old)) {
                *slot = None;
            }
        }
    }

    /// The secret value of a source.
    pub async fn secret(&self, source: &SecretSource, deadline: Instant) -> Result<Secret<Vec<u8>>, SecretFault> {
        match source {
            SecretSource::Ref(reference) => {
                self.options.secrets.resolve(reference, &Keys { clusters: self, via: &[] }, deadline).await
            }
            // Drover's own doing, and not bounded by what manifests may name.
            SecretSource::Token { cluster, secret } => {
                let key = SecretKey {
                    cluster: cluster.clone(),
                    namespace: secret.namespace.clone().unwrap_or_default(),
                    name: secret.name.clone(),
                    key: TOKEN_KEY.into(),
                };
                Keys { clusters: self, via: &[] }.value(&key, deadline).await
            }
        }
    }
}

/// Reads an object as it is, secret values and managed fields included: not to be handed out. None where it is not there.
pub(super) async fn get_raw(
    connection: &Connection,
    id: &ObjectRef,
    deadline: Instant,
) -> Result<Option<Value>, Fault> {
    let resource = match Kinds::one(connection, id, deadline).await {
        // A kind that is not served has no objects.
        Err(fault) if fault.kind == FaultKind::NotServed => return Ok(None),
        other => other?,
    };
    match connection.ask::<Value>(Ask::get("read", path(id, &resource)).of(id), deadline).await {
        Ok(answer) => Ok(Some(answer.value)),
        Err(fault) if fault.kind == FaultKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Reads an object. None where it is not there.
pub(super) async fn get(
    connection: &Connection,
    id: &ObjectRef,
    deadline: Instant,
) -> Result<Option<ObjectState>, Fault> {
    match get_raw(connection, id, deadline).await? {
        Some(value) => object::read(&connection.cluster, &id.api_version, &id.kind, value).map(Some),
        None => Ok(None),
    }
}

/// Keys of Secrets in these clusters.
struct Keys<'a> {
    clusters: &'a Clusters,
    via: &'a [&'a str],
}

#[async_trait]
impl SecretKeys for Keys<'_> {
    async fn value(&self, key: &SecretKey, deadline: Instant) -> Result<Secret<Vec<u8>>, SecretFault> {
        let fault = |why: String, hint: String, transient| SecretFault {
            what: SecretRef::Kubernetes(key.clone()).to_string(),
            why,
            hint,
            transient,
        };
        let cannot = |f: Fault| {
            let hint = f.hint.clone().unwrap_or_else(|| "see to the cluster".into());
            fault(format!("cannot be read: {f}"), hint, f.is_transient())
        };
        // A future within a future of its own kind: its size is not known, so it is on the heap.
        let connection = Box::pin(self.clusters.connect(&key.cluster, self.via, deadline)).await.map_err(cannot)?;
        let id = ObjectRef::new("v1", "Secret", &key.namespace, &key.name);
        let secret = get_raw(&connection, &id, deadline).await.map_err(cannot)?;
        let Some(secret) = secret else {
            return Err(fault("is not there: there is no such Secret".into(), "create it".into(), true));
        };
        let value = secret["data"][&key.key].as_str().and_then(ends::base64).filter(|v| !v.is_empty());
        value.map(Secret::new).ok_or_else(|| {
            let hint = format!("the Secret needs the key `{}`", key.key);
            fault("is not there: the Secret has no such key, or nothing in it".into(), hint, true)
        })
    }
}
