//! The MTC stand-in: plays, on a real API server, what OLM, MTC's operator and MTC's controllers would do.
//!
//! It writes what they write, in the manner in which they write it (the controllers of MTC replace whole objects with PUT,
//! reset `spec.refresh`, and let conditions vanish; OLM and the operator use the status subresource), so that Drover meets
//! the same objects, the same order and the same conflicts. It imitates:
//!
//! - [`olm`]: Subscription → InstallPlan (automatic or manual approval) → ClusterServiceVersions with their phases → CRDs
//!   and the operator's Deployment; catalogues that are not there, packages and channels that are not known, too many
//!   OperatorGroups, bundles that do not unpack, installations that fail.
//! - [`operator`]: MigrationController → namespace objects, workloads and the host MigCluster; modern (with OADP) and
//!   legacy (without, and without status); required variables; what goes when the MigrationController goes.
//! - [`tokens`]: Kubernetes' own token controller.
//! - [`controller`]: MigCluster (really calls the cluster with the token of its Secret) and MigStorage.
//!
//! It does not: run any pod (Deployments get the status of a running one; [`Behaviour::no_pods`] leaves it out), touch an object
//! store (whether a bucket answers is said by [`Behaviour::storage_fails`]), serve routes or registries, follow OLM's upgrade
//! graph, collect garbage by owner. Plans and migrations are not played yet. What it knows was read in the sources of MTC
//! 1.7 and 1.8, not observed on a cluster; times are shortened to fractions of a second.
//!
//! ```ignore
//! let standin = StandIn::of(&server).olm().operator(Release::Modern).controller().start();
//! standin.behave(|b| b.mood("source").never_ready = true);
//! ```

#![allow(dead_code, reason = "a tool box: which tools are in use changes with the tests")]

pub mod controller;
pub mod olm;
pub mod operator;
mod tests;
pub mod tokens;

use crate::controlplane::{Kubeconfig, Server};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The namespace of MTC on every cluster.
pub const NAMESPACE: &str = "openshift-migration";

/// How the players behave; may change while they run.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Time between two rounds. In each round every object goes at most one step on.
    pub pace: Duration,
    /// The players die before their write after so many more: in the middle of whatever they do.
    pub crash_after: Option<u32>,
    /// MTC's controllers write every object in every round, as with the annotation `openshift.io/touch`: who updates with
    /// a resource version loses the race. (409 on literally every write: a rule of the faults front.)
    pub restless: bool,
    /// Workloads are made and never get a ready pod.
    pub no_pods: bool,
    /// Buckets do not answer, with this message.
    pub storage_fails: Option<String>,
    /// OLM: the bundle does not unpack.
    pub unpack_fails: bool,
    /// OLM: the ClusterServiceVersion ends in `Failed` with this reason and message.
    pub csv_fails: Option<(String, String)>,
    /// The operator's playbook stops at this task.
    pub playbook_fails: Option<String>,
    /// `OPERATOR_VERSION` of this cluster, and the version in the name of the ClusterServiceVersion.
    pub version: String,
    moods: BTreeMap<String, Mood>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            pace: Duration::from_millis(30),
            crash_after: None,
            restless: false,
            no_pods: false,
            storage_fails: None,
            unpack_fails: false,
            csv_fails: None,
            playbook_fails: None,
            version: "1.8.4".to_owned(),
            moods: BTreeMap::new(),
        }
    }
}

impl Behaviour {
    /// How MTC's controllers treat the MigCluster or MigStorage of this name.
    pub fn mood(&mut self, name: &str) -> &mut Mood {
        self.moods.entry(name.to_owned()).or_default()
    }
}

/// What is special about one object of MTC.
#[derive(Clone, Debug, Default)]
pub struct Mood {
    /// It has no condition at all.
    pub never_ready: bool,
    /// It has this Critical condition: type, reason, message.
    pub critical: Option<(String, String, String)>,
    /// `Ready` is there in every other round only.
    pub blinking: bool,
}

/// The operator's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// 4.6 and later: by OLM, with OADP, with a status.
    Modern,
    /// 4.5 and earlier: by manifests, without OADP, without a status.
    Legacy,
}

/// Who plays on a server.
pub struct Builder {
    kubeconfig: Kubeconfig,
    olm: bool,
    operator: Option<Release>,
    controller: bool,
    behaviour: Behaviour,
}

impl Builder {
    /// OLM plays, with the catalogue of [`olm`].
    #[must_use]
    pub fn olm(self) -> Self {
        Self { olm: true, ..self }
    }

    /// MTC's operator plays, as soon as its Deployment is there.
    #[must_use]
    pub fn operator(self, release: Release) -> Self {
        Self { operator: Some(release), ..self }
    }

    /// MTC's controllers play, as soon as their Deployment is there.
    #[must_use]
    pub fn controller(self) -> Self {
        Self { controller: true, ..self }
    }

    /// How they behave from the beginning.
    #[must_use]
    pub fn behaving(mut self, change: impl FnOnce(&mut Behaviour)) -> Self {
        change(&mut self.behaviour);
        self
    }

    /// They begin, on a thread of their own.
    pub fn start(self) -> StandIn {
        let behaviour = Arc::new(Mutex::new(self.behaviour));
        let stop = CancellationToken::new();
        let (theirs, ended) = (Arc::clone(&behaviour), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let hand = Hand::new(self.kubeconfig.client().await, theirs);
                let play = async {
                    let mut clusters = controller::Controller::default();
                    loop {
                        let round =
                            round(&hand, self.olm, self.operator, self.controller.then_some(&mut clusters)).await;
                        if let Err(Stop::Crash) = round {
                            return;
                        }
                        // Anything else is tried again, as controllers do: the server may be down for a while.
                        tokio::time::sleep(hand.behaviour().pace).await;
                    }
                };
                tokio::select! {
                    () = play => {}
                    () = ended.cancelled() => {}
                }
            });
        });
        StandIn { behaviour, stop, thread: Some(thread) }
    }
}

async fn round(
    hand: &Hand,
    olm: bool,
    operator: Option<Release>,
    controller: Option<&mut controller::Controller>,
) -> Result<(), Stop> {
    hand.rounds.fetch_add(1, Ordering::Relaxed);
    tokens::round(hand).await?;
    if olm {
        olm::round(hand).await?;
    }
    if let Some(release) = operator {
        operator::round(hand, release).await?;
    }
    if let Some(controller) = controller {
        controller.round(hand).await?;
    }
    Ok(())
}

/// The players on one server. They end when the value is dropped.
pub struct StandIn {
    behaviour: Arc<Mutex<Behaviour>>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl StandIn {
    /// Nobody plays yet.
    pub fn of(server: &Server) -> Builder {
        let kubeconfig = server.admin();
        Builder { kubeconfig, olm: false, operator: None, controller: false, behaviour: Behaviour::default() }
    }

    /// Changes how they behave from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.behaviour));
    }

    /// Whether they have died of [`Behaviour::crash_after`].
    pub fn has_crashed(&self) -> bool {
        self.thread.as_ref().is_some_and(std::thread::JoinHandle::is_finished)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.cancel();
        let panicked = self.thread.take().is_some_and(|t| t.join().is_err());
        assert!(!panicked || std::thread::panicking(), "the stand-in panicked (above)");
    }
}

/// Why a round ended.
pub enum Stop {
    /// It was told to die here.
    Crash,
    /// The server did not do it; the next round tries again.
    Failed(kube::Error),
}

impl From<kube::Error> for Stop {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

/// A kind that the players know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub &'static str, pub &'static str, pub &'static str, pub &'static str);

impl Kind {
    pub const CONFIG_MAP: Self = Self("", "v1", "ConfigMap", "configmaps");
    pub const SECRET: Self = Self("", "v1", "Secret", "secrets");
    pub const SERVICE_ACCOUNT: Self = Self("", "v1", "ServiceAccount", "serviceaccounts");
    pub const DEPLOYMENT: Self = Self("apps", "v1", "Deployment", "deployments");
    pub const DAEMON_SET: Self = Self("apps", "v1", "DaemonSet", "daemonsets");
    pub const CLUSTER_ROLE: Self = Self("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles");
    pub const CLUSTER_ROLE_BINDING: Self =
        Self("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings");
    pub const SUBSCRIPTION: Self = Self("operators.coreos.com", "v1alpha1", "Subscription", "subscriptions");
    pub const OPERATOR_GROUP: Self = Self("operators.coreos.com", "v1", "OperatorGroup", "operatorgroups");
    pub const CSV: Self = Self("operators.coreos.com", "v1alpha1", "ClusterServiceVersion", "clusterserviceversions");
    pub const INSTALL_PLAN: Self = Self("operators.coreos.com", "v1alpha1", "InstallPlan", "installplans");
    pub const CATALOG_SOURCE: Self = Self("operators.coreos.com", "v1alpha1", "CatalogSource", "catalogsources");
    pub const DPA: Self =
        Self("oadp.openshift.io", "v1alpha1", "DataProtectionApplication", "dataprotectionapplications");
    pub const MIGRATION_CONTROLLER: Self =
        Self("migration.openshift.io", "v1alpha1", "MigrationController", "migrationcontrollers");
    pub const MIG_CLUSTER: Self = Self("migration.openshift.io", "v1alpha1", "MigCluster", "migclusters");
    pub const MIG_STORAGE: Self = Self("migration.openshift.io", "v1alpha1", "MigStorage", "migstorages");

    /// How kube is told of it.
    pub fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.0, self.1, self.2), self.3)
    }

    /// Its objects in a namespace.
    pub fn within(self, client: &kube::Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.resource())
    }

    /// Its objects everywhere; also for kinds without namespaces.
    pub fn everywhere(self, client: &kube::Client) -> Api<DynamicObject> {
        Api::all_with(client.clone(), &self.resource())
    }

    /// An object of it.
    pub fn object(self, name: &str, content: Value) -> DynamicObject {
        DynamicObject::new(name, &self.resource()).data(content)
    }
}

/// The hand that writes: it counts, and dies when it is told to.
pub struct Hand {
    client: kube::Client,
    behaviour: Arc<Mutex<Behaviour>>,
    rounds: AtomicU32,
}

impl Hand {
    fn new(client: kube::Client, behaviour: Arc<Mutex<Behaviour>>) -> Self {
        Self { client, behaviour, rounds: AtomicU32::new(0) }
    }

    fn behaviour(&self) -> Behaviour {
        lock(&self.behaviour).clone()
    }

    fn is_odd_round(&self) -> bool {
        self.rounds.load(Ordering::Relaxed) % 2 == 1
    }

    fn before_write(&self) -> Result<(), Stop> {
        match &mut lock(&self.behaviour).crash_after {
            Some(0) => Err(Stop::Crash),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// All of a kind; none where the kind is not served.
    async fn list(&self, kind: Kind) -> Result<Vec<DynamicObject>, Stop> {
        match kind.everywhere(&self.client).list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Stop> {
        Ok(kind.within(&self.client, namespace).get_opt(name).await?)
    }

    async fn exists(&self, kind: Kind, namespace: &str, name: &str) -> Result<bool, Stop> {
        Ok(self.get(kind, namespace, name).await?.is_some())
    }

    fn api(&self, kind: Kind, object: &DynamicObject) -> Api<DynamicObject> {
        match &object.metadata.namespace {
            Some(namespace) => kind.within(&self.client, namespace),
            None => kind.everywhere(&self.client),
        }
    }

    /// Makes it where it is not there. Whether it was made.
    async fn create(&self, kind: Kind, object: DynamicObject) -> Result<bool, Stop> {
        let name = object.metadata.name.clone().unwrap_or_default();
        if self.api(kind, &object).get_opt(&name).await?.is_some() {
            return Ok(false);
        }
        self.before_write()?;
        match self.api(kind, &object).create(&PostParams::default(), &object).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the whole object, status and all where it has no subresource. Somebody else's write in between wins.
    async fn put(&self, kind: Kind, object: &DynamicObject) -> Result<(), Stop> {
        self.before_write()?;
        let name = object.metadata.name.as_deref().unwrap_or_default();
        lost_race_is_fine(self.api(kind, object).replace(name, &PostParams::default(), object).await)
    }

    /// Replaces the status by its subresource.
    async fn put_status(&self, kind: Kind, object: &DynamicObject) -> Result<(), Stop> {
        self.before_write()?;
        let name = object.metadata.name.as_deref().unwrap_or_default();
        lost_race_is_fine(self.api(kind, object).replace_status(name, &PostParams::default(), object).await)
    }

    async fn delete(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Result<(), Stop> {
        let api = match namespace {
            Some(namespace) => kind.within(&self.client, namespace),
            None => kind.everywhere(&self.client),
        };
        if api.get_opt(name).await?.is_none() {
            return Ok(());
        }
        self.before_write()?;
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}

fn lost_race_is_fine(answer: Result<DynamicObject, kube::Error>) -> Result<(), Stop> {
    match answer {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// The time, as Kubernetes writes it.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn name_of(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

fn namespace_of(object: &DynamicObject) -> &str {
    object.metadata.namespace.as_deref().unwrap_or_default()
}

/// A workload of the players, as its controller would have written it.
fn workload(kind: Kind, namespace: &str, name: &str) -> DynamicObject {
    let mut spec = json!({
        "selector": { "matchLabels": { "app": name } },
        "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [{ "name": name, "image": "example.com/stand-in" }] } },
    });
    if kind.2 == "Deployment" {
        spec["replicas"] = json!(1);
    }
    let mut object = kind.object(name, json!({ "spec": spec }));
    object.metadata.namespace = Some(namespace.to_owned());
    object.metadata.labels = Some([("app.kubernetes.io/part-of".to_owned(), "openshift-migration".to_owned())].into());
    object
}

/// Makes it where it is not there, and gives it the status of a workload whose pods run. Whether they do.
async fn run_workload(hand: &Hand, kind: Kind, namespace: &str, name: &str) -> Result<bool, Stop> {
    hand.create(kind, workload(kind, namespace, name)).await?;
    let Some(mut object) = hand.get(kind, namespace, name).await? else { return Ok(false) };
    let generation = json!(object.metadata.generation.unwrap_or(1));
    let status = match (hand.behaviour().no_pods, kind.2 == "Deployment") {
        (true, true) => json!({ "observedGeneration": generation, "replicas": 1, "unavailableReplicas": 1 }),
        (false, true) => json!({
            "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "conditions": [{ "type": "Available", "status": "True", "reason": "MinimumReplicasAvailable" }],
        }),
        (no_pods, false) => {
            let ready = i32::from(!no_pods);
            json!({
                "observedGeneration": generation, "desiredNumberScheduled": 1, "currentNumberScheduled": 1, "updatedNumberScheduled": 1,
                "numberReady": ready, "numberAvailable": ready, "numberMisscheduled": 0,
            })
        }
    };
    let is_ready = !hand.behaviour().no_pods;
    let ready = |s: &Value| [s["readyReplicas"].as_i64().unwrap_or(0), s["numberReady"].as_i64().unwrap_or(0)];
    if ready(&object.data["status"]) != ready(&status) || object.data["status"]["observedGeneration"] != generation {
        object.data["status"] = status;
        hand.put_status(kind, &object).await?;
    }
    Ok(is_ready)
}
