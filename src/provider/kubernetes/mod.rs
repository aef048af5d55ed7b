//! Clusters through the Kubernetes API.
//!
//! [`Reader`] reads and cannot write; [`Writer`] does both. Connections are kept; a cluster that is away slows no other.
//!
//! *Guarantees*: a cluster is read completely or not at all: an error on any page of any list makes it Unknown. No secret
//! value leaves this room: values of Secrets, and what MTC writes credentials into, are taken out as they are read. No object
//! is ever replaced as a whole (PUT).

mod access;
mod act;
mod approve;
mod ask;
mod await_object;
mod client;
mod clusters;
mod ends;
mod error;
mod kinds;
mod list;
mod object;
mod observe;
mod patch;
mod status;
mod watch;

pub use error::{Fault, FaultKind, explain};
pub use watch::{Watched, Watcher};

use super::secrets::SecretBounds;
use super::{ActError, Actor, ClusterObserver, Look, StepCtx};
use crate::action::Action;
use crate::kind::cluster::ClusterSpec;
use crate::observed::{ClusterAnswer, ClusterQuestion, ClusterState, Reading, Right};
use async_trait::async_trait;
use clusters::Clusters;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Drover's field manager: under this name the fields stand that it sets.
pub const FIELD_MANAGER: &str = "drover";

/// What the operator allows (`[kubernetes]` and `[secrets]` of the configuration).
#[derive(Clone, Debug, Default)]
pub struct KubernetesOptions {
    /// What `secretRef`s may name.
    pub secrets: SecretBounds,
    /// Kubeconfigs may run programs for their credentials.
    pub allow_exec: bool,
    /// Kubeconfigs may name files.
    pub allow_files: bool,
    /// Kubeconfigs may leave certificates unchecked, and servers may speak plain HTTP.
    pub allow_insecure: bool,
    /// How the pod that Drover runs in knows its cluster.
    pub pod: Pod,
}

/// What the kubelet gives a pod to reach its own cluster.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `KUBERNETES_SERVICE_HOST`.
    pub host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`.
    pub port: Option<String>,
    /// Where its service account's token and CA are.
    pub folder: PathBuf,
}

impl Default for Pod {
    fn default() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        Self {
            host: variable("KUBERNETES_SERVICE_HOST"),
            port: variable("KUBERNETES_SERVICE_PORT"),
            folder: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
        }
    }
}

/// A cluster of a revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// What its manifest says.
    pub spec: ClusterSpec,
    /// What Drover has to be allowed there: asked for with each reading, so that a right that is missing shows in the plan.
    pub rights: Vec<Right>,
}

/// Reads clusters.
pub struct Reader {
    clusters: Arc<Clusters>,
}

impl Reader {
    /// For these clusters, by name. Opens no connection yet. What is `watched` and has not changed since it was read last is
    /// not read again.
    pub fn new(clusters: BTreeMap<String, Declared>, options: KubernetesOptions, watched: Option<Watched>) -> Self {
        Self { clusters: Clusters::new(clusters, options, watched) }
    }
}

/// Reads and changes clusters.
pub struct Writer {
    clusters: Arc<Clusters>,
}

impl Writer {
    /// For these clusters, by name. Opens no connection yet. What is `watched` and has not changed since it was read last is
    /// not read again.
    pub fn new(clusters: BTreeMap<String, Declared>, options: KubernetesOptions, watched: Option<Watched>) -> Self {
        Self { clusters: Clusters::new(clusters, options, watched) }
    }
}

async fn observe_one(clusters: &Clusters, cluster: &str, deadline: Duration) -> Reading<ClusterState> {
    match observe::observe(clusters, cluster, Instant::now() + deadline).await {
        Ok(state) => Reading::Present(state),
        Err(fault) => Reading::Unknown { why: fault.in_full() },
    }
}

#[async_trait]
impl ClusterObserver for Reader {
    async fn observe(&self, cluster: &str, deadline: Duration) -> Reading<ClusterState> {
        observe_one(&self.clusters, cluster, deadline).await
    }

    async fn ask(
        &self,
        cluster: &str,
        question: &ClusterQuestion,
        deadline: Duration,
    ) -> Result<ClusterAnswer, String> {
        ask::ask(&self.clusters, cluster, question, Instant::now() + deadline).await.map_err(|f| f.in_full())
    }
}

#[async_trait]
impl ClusterObserver for Writer {
    async fn observe(&self, cluster: &str, deadline: Duration) -> Reading<ClusterState> {
        observe_one(&self.clusters, cluster, deadline).await
    }

    async fn ask(
        &self,
        cluster: &str,
        question: &ClusterQuestion,
        deadline: Duration,
    ) -> Result<ClusterAnswer, String> {
        ask::ask(&self.clusters, cluster, question, Instant::now() + deadline).await.map_err(|f| f.in_full())
    }
}

#[async_trait]
impl Actor for Writer {
    async fn look(&self, action: &Action, ctx: &StepCtx) -> Result<Look, ActError> {
        act::look(&self.clusters, of_cluster(action)?, ctx).await
    }

    async fn act(&self, action: &Action, ctx: &StepCtx) -> Result<(), ActError> {
        act::act(&self.clusters, of_cluster(action)?, ctx).await
    }

    async fn verify(&self, action: &Action, ctx: &StepCtx) -> Result<(), ActError> {
        act::verify(&self.clusters, of_cluster(action)?, ctx).await
    }
}

fn of_cluster(action: &Action) -> Result<&crate::action::ClusterAction, ActError> {
    match action {
        Action::Cluster(action) => Ok(action),
        Action::Machine(_) => Err(ActError::not_of("kubernetes", action)),
    }
}
