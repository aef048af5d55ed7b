//! The stand-in plays what it says.

use super::{Kind, NAMESPACE, Release, StandIn};
use crate::controlplane::{PATIENCE, Server, allow, crds, eventually, named};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const MARKETPLACE: &str = "openshift-marketplace";
const CONFIG: &str = "openshift-config";

/// A cluster as the test sees it.
struct Cluster {
    client: kube::Client,
}

impl Cluster {
    /// A cluster with OLM, its catalogue, and MTC's namespace with an OperatorGroup.
    async fn with_olm(server: &Server) -> Self {
        let client = server.client().await;
        crds::install_named(&client, &crds::in_group("operators.coreos.com")).await;
        let cluster = Self { client };
        cluster.namespaces(&[NAMESPACE, MARKETPLACE, CONFIG]).await;
        cluster
            .make(Kind::CATALOG_SOURCE, MARKETPLACE, "redhat-operators", json!({ "spec": { "sourceType": "grpc" } }))
            .await;
        cluster
            .make(Kind::OPERATOR_GROUP, NAMESPACE, "mtc", json!({ "spec": { "targetNamespaces": [NAMESPACE] } }))
            .await;
        cluster
    }

    /// A cluster with all CRDs, and the Deployments of MTC's operator and controllers.
    async fn with_mtc(server: &Server) -> Self {
        let client = server.client().await;
        crds::install(&client).await;
        let cluster = Self { client };
        cluster.namespaces(&[NAMESPACE, CONFIG]).await;
        let pod = json!({ "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "a", "image": "a" }] } });
        let spec = json!({ "spec": { "selector": { "matchLabels": { "app": "a" } }, "template": pod } });
        cluster.make(Kind::DEPLOYMENT, NAMESPACE, "migration-controller", spec).await;
        cluster
    }

    async fn namespaces(&self, names: &[&str]) {
        for name in names {
            let namespace = Namespace { metadata: named(name), ..Default::default() };
            Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        }
    }

    async fn make(&self, kind: Kind, namespace: &str, name: &str, content: Value) {
        kind.within(&self.client, namespace).create(&PostParams::default(), &kind.object(name, content)).await.unwrap();
    }

    async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Value {
        let found = kind.within(&self.client, namespace).get_opt(name).await.unwrap();
        found.map_or(Value::Null, |o| serde_json::to_value(o).unwrap())
    }

    async fn patch(&self, kind: Kind, name: &str, patch: Value) {
        let api = kind.within(&self.client, NAMESPACE);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn remove(&self, kind: Kind, name: &str) {
        kind.within(&self.client, NAMESPACE).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the object is so.
    async fn until(&self, kind: Kind, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let object = self.get(kind, NAMESPACE, name).await;
            if is_so(&object) {
                return object;
            }
            assert!(Instant::now() < deadline, "{name} is never {what}: {object:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn subscribe(&self, more: Value) {
        let mut spec = json!({
            "name": "mtc-operator", "channel": "release-v1.8", "source": "redhat-operators", "sourceNamespace": MARKETPLACE,
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.make(Kind::SUBSCRIPTION, NAMESPACE, "mtc-operator", json!({ "spec": spec })).await;
    }

    /// A MigCluster of this name that leads to another server, with the token of its service account.
    async fn register(&self, name: &str, remote: &Server, token: &str) {
        let secret = json!({ "type": "Opaque", "stringData": { "saToken": token } });
        self.make(Kind::SECRET, CONFIG, name, secret).await;
        let ca = serde_json::to_value(k8s_openapi::ByteString(remote.ca().into_bytes())).unwrap();
        let reference = json!({ "namespace": CONFIG, "name": name });
        let spec = json!({ "isHostCluster": false, "url": remote.url(), "caBundle": ca, "serviceAccountSecretRef": reference });
        self.make(Kind::MIG_CLUSTER, NAMESPACE, name, json!({ "spec": spec })).await;
    }
}

/// Whether an object has this condition with status True.
fn is(object: &Value, condition: &str) -> bool {
    let all = object["status"]["conditions"].as_array();
    all.is_some_and(|c| c.iter().any(|c| c["type"] == condition && c["status"] == "True"))
}

fn reason(object: &Value, condition: &str) -> String {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == condition);
    found.and_then(|c| c["reason"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn from_a_subscription_to_a_ready_pair_of_clusters() {
    let (Some(control), Some(remote)) = (Server::alone("control"), Server::alone("remote")) else { return };
    let here = Cluster::with_olm(&control).await;
    let there = Cluster::with_olm(&remote).await;
    let _players = StandIn::of(&control).olm().operator(Release::Modern).controller().start();
    let _far_players = StandIn::of(&remote).olm().operator(Release::Modern).start();

    // Manual approval: nothing is installed before it.
    here.subscribe(json!({ "installPlanApproval": "Manual" })).await;
    let pending =
        here.until(Kind::SUBSCRIPTION, "mtc-operator", "pending", |s| s["status"]["state"] == "UpgradePending").await;
    assert_eq!(reason(&pending, "InstallPlanPending"), "RequiresApproval");
    let plan = pending["status"]["installPlanRef"]["name"].as_str().unwrap().to_owned();
    here.until(Kind::INSTALL_PLAN, &plan, "waiting", |p| p["status"]["phase"] == "RequiresApproval").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(here.get(Kind::CSV, NAMESPACE, "mtc-operator.v1.8.4").await, Value::Null);
    here.patch(Kind::INSTALL_PLAN, &plan, json!({ "spec": { "approved": true } })).await;
    let known = |s: &Value| s["status"]["state"] == "AtLatestKnown";
    let done = here.until(Kind::SUBSCRIPTION, "mtc-operator", "at the latest", known).await;
    assert_eq!(done["status"]["installedCSV"], "mtc-operator.v1.8.4");
    assert_eq!(here.get(Kind::CSV, NAMESPACE, "mtc-operator.v1.8.4").await["status"]["phase"], "Succeeded");
    there.subscribe(json!({})).await;
    there.until(Kind::SUBSCRIPTION, "mtc-operator", "at the latest", known).await;

    // A variable without a default is missing.
    let spec = json!({ "cluster_name": "host", "migration_velero": true, "migration_controller": true });
    here.make(Kind::MIGRATION_CONTROLLER, NAMESPACE, "migration-controller", json!({ "spec": spec })).await;
    here.until(Kind::MIGRATION_CONTROLLER, "migration-controller", "failed", |m| is(m, "Failure")).await;
    here.patch(Kind::MIGRATION_CONTROLLER, "migration-controller", json!({ "spec": { "migrationUi": true } })).await;
    let good = here.until(Kind::MIGRATION_CONTROLLER, "migration-controller", "done", |m| is(m, "Successful")).await;
    assert!(!is(&good, "Failure"));
    here.until(Kind::MIG_CLUSTER, "host", "ready", |c| is(c, "Ready")).await;
    for name in ["velero", "migration-controller", "migration-ui", "migration-log-reader"] {
        here.until(Kind::DEPLOYMENT, name, "available", |d| d["status"]["availableReplicas"] == 1).await;
    }

    // The other cluster, with the token of the account that its operator made.
    let spec = json!({ "migration_velero": true, "migration_controller": false, "migration_ui": false });
    there.make(Kind::MIGRATION_CONTROLLER, NAMESPACE, "migration-controller", json!({ "spec": spec })).await;
    there.until(Kind::MIGRATION_CONTROLLER, "migration-controller", "done", |m| is(m, "Successful")).await;
    assert_eq!(there.get(Kind::DEPLOYMENT, NAMESPACE, "migration-controller").await, Value::Null);
    let token = remote.token(NAMESPACE, "migration-controller", 3600).await;
    here.register("source", &remote, &token).await;
    let ready = here.until(Kind::MIG_CLUSTER, "source", "ready", |c| is(c, "Ready")).await;
    assert_eq!(ready["status"]["operatorVersion"], "1.8.4");
    here.patch(Kind::MIG_CLUSTER, "source", json!({ "spec": { "refresh": true } })).await;
    here.until(Kind::MIG_CLUSTER, "source", "refreshed", |c| c["spec"]["refresh"] == false).await;

    // It goes as it came: with the MigrationController what it deployed, with the CSV the operator.
    there.remove(Kind::MIGRATION_CONTROLLER, "migration-controller").await;
    there.until(Kind::DEPLOYMENT, "velero", "gone", Value::is_null).await;
    there.until(Kind::DAEMON_SET, "node-agent", "gone", Value::is_null).await;
    there.remove(Kind::SUBSCRIPTION, "mtc-operator").await;
    assert_eq!(there.get(Kind::CSV, NAMESPACE, "mtc-operator.v1.8.4").await["status"]["phase"], "Succeeded");
    there.remove(Kind::CSV, "mtc-operator.v1.8.4").await;
    there.until(Kind::DEPLOYMENT, "migration-operator", "gone", Value::is_null).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_remote_cluster_is_a_condition() {
    let (Some(control), Some(remote)) = (Server::alone("conditions"), Server::alone("far")) else { return };
    let here = Cluster::with_mtc(&control).await;
    let there = Cluster::with_mtc(&remote).await;
    let _players = StandIn::of(&control).controller().start();

    remote.service_account(NAMESPACE, "weak", vec![allow("", &["pods"], &["get"])]).await;
    here.register("weak", &remote, &remote.token(NAMESPACE, "weak", 600).await).await;
    here.until(Kind::MIG_CLUSTER, "weak", "refused", |c| reason(c, "SaTokenNotPrivileged") == "Unauthorized").await;
    here.register("unknown", &remote, "no-such-token").await;
    let unknown = here.until(Kind::MIG_CLUSTER, "unknown", "refused", |c| is(c, "TestConnectFailed")).await;
    assert!(!is(&unknown, "Ready"));

    let everything = allow("*", &["*"], &["*"]);
    remote.service_account(NAMESPACE, "strong", vec![everything]).await;
    here.register("good", &remote, &remote.token(NAMESPACE, "strong", 600).await).await;
    let good = here.until(Kind::MIG_CLUSTER, "good", "ready", |c| is(c, "Ready")).await;
    assert!(is(&good, "ClusterOperatorVersionNotFound"), "no operator there: {good:#}");
    there
        .make(
            Kind::CONFIG_MAP,
            NAMESPACE,
            "migration-cluster-config",
            json!({ "data": { "OPERATOR_VERSION": "1.7.14" } }),
        )
        .await;
    here.until(Kind::MIG_CLUSTER, "good", "of another version", |c| is(c, "OperatorVersionMismatch")).await;

    remote.kill();
    let lost = here.until(Kind::MIG_CLUSTER, "good", "lost", |c| is(c, "TestConnectFailed")).await;
    assert!(!is(&lost, "Ready"));
    here.patch(Kind::MIG_CLUSTER, "good", json!({ "spec": { "url": "ftp://x" } })).await;
    here.until(Kind::MIG_CLUSTER, "good", "wrong", |c| reason(c, "InvalidURL") == "InvalidScheme").await;
}

#[tokio::test]
async fn moods_restlessness_and_crashes() {
    let Some(server) = Server::alone("moods") else { return };
    let cluster = Cluster::with_mtc(&server).await;
    let players = StandIn::of(&server).controller().start();
    let credentials = json!({ "stringData": { "aws-access-key-id": "id", "aws-secret-access-key": "key" } });
    cluster.make(Kind::SECRET, CONFIG, "s3", credentials).await;
    let reference = json!({ "namespace": CONFIG, "name": "s3" });
    let config = json!({ "awsBucketName": "b", "credsSecretRef": reference });
    let spec = json!({ "backupStorageProvider": "aws", "backupStorageConfig": config });
    for name in ["plain", "never", "critical", "blinks"] {
        players.behave(|b| match name {
            "never" => b.mood(name).never_ready = true,
            "critical" => {
                let it = ("BackupStorageProviderTestFailed", "TestFailed", "no such bucket");
                b.mood(name).critical = Some((it.0.to_owned(), it.1.to_owned(), it.2.to_owned()));
            }
            "blinks" => b.mood(name).blinking = true,
            _ => {}
        });
        cluster.make(Kind::MIG_STORAGE, NAMESPACE, name, json!({ "spec": spec })).await;
    }
    let plain = cluster.until(Kind::MIG_STORAGE, "plain", "ready", |s| is(s, "Ready")).await;
    let critical = cluster.until(Kind::MIG_STORAGE, "critical", "seen", |s| s["status"]["conditions"].is_array()).await;
    assert!(is(&critical, "BackupStorageProviderTestFailed") && !is(&critical, "Ready"));
    let never = cluster.until(Kind::MIG_STORAGE, "never", "seen", |s| s["status"]["observedDigest"].is_string()).await;
    assert_eq!(never["status"]["observedDigest"], plain["status"]["observedDigest"]);
    assert!(!is(&never, "Ready"));
    cluster.until(Kind::MIG_STORAGE, "blinks", "ready", |s| is(s, "Ready")).await;
    cluster.until(Kind::MIG_STORAGE, "blinks", "not ready", |s| !is(s, "Ready")).await;
    cluster.until(Kind::MIG_STORAGE, "blinks", "ready again", |s| is(s, "Ready")).await;

    players.behave(|b| b.storage_fails = Some("Access Denied".to_owned()));
    cluster.until(Kind::MIG_STORAGE, "plain", "failing", |s| is(s, "BackupStorageProviderTestFailed")).await;
    players.behave(|b| b.storage_fails = None);

    // The controller's PUTs never rest: who writes back what was read a while ago loses, who patches does not.
    players.behave(|b| b.restless = true);
    let api = Kind::MIG_STORAGE.within(&cluster.client, NAMESPACE);
    let stale: DynamicObject = api.get("plain").await.unwrap();
    let version = |o: &DynamicObject| o.metadata.resource_version.clone();
    eventually("it was touched", async || version(&api.get("plain").await.unwrap()) != version(&stale)).await;
    match api.replace("plain", &PostParams::default(), &stale).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 409),
        other => panic!("{other:?}"),
    }
    cluster
        .patch(Kind::MIG_STORAGE, "plain", json!({ "spec": { "backupStorageConfig": { "awsRegion": "eu-1" } } }))
        .await;
    players.behave(|b| b.restless = false);

    // Death in the middle: what was half done is there, and who comes next goes on with it.
    players.behave(|b| b.crash_after = Some(0));
    cluster.patch(Kind::MIG_STORAGE, "plain", json!({ "spec": { "refresh": true } })).await;
    eventually("it has crashed", async || players.has_crashed()).await;
    assert_eq!(cluster.get(Kind::MIG_STORAGE, NAMESPACE, "plain").await["spec"]["refresh"], true);
    drop(players);
    let _next = StandIn::of(&server).controller().start();
    cluster.until(Kind::MIG_STORAGE, "plain", "refreshed", |s| s["spec"]["refresh"] == false && is(s, "Ready")).await;
}

#[tokio::test]
async fn olm_fails_as_olm_does() {
    let Some(server) = Server::alone("olm") else { return };
    let cluster = Cluster::with_olm(&server).await;
    let players = StandIn::of(&server).olm().start();
    let csv = "mtc-operator.v1.8.4";

    let seen = async |more: Value, condition: &str| {
        cluster.subscribe(more).await;
        let found = cluster.until(Kind::SUBSCRIPTION, "mtc-operator", condition, |s| is(s, condition)).await;
        cluster.remove(Kind::SUBSCRIPTION, "mtc-operator").await;
        found
    };
    seen(json!({ "source": "nowhere" }), "CatalogSourcesUnhealthy").await;
    let unresolved = seen(json!({ "channel": "release-v9" }), "ResolutionFailed").await;
    assert_eq!(reason(&unresolved, "ResolutionFailed"), "ConstraintsNotSatisfiable");
    players.behave(|b| b.unpack_fails = true);
    seen(json!({}), "BundleUnpackFailed").await;
    players.behave(|b| b.unpack_fails = false);

    // Two OperatorGroups: the CSV fails, and recovers when one of them goes.
    cluster
        .make(Kind::OPERATOR_GROUP, NAMESPACE, "second", json!({ "spec": { "targetNamespaces": [NAMESPACE] } }))
        .await;
    cluster.subscribe(json!({})).await;
    let failed = cluster.until(Kind::CSV, csv, "failed", |c| c["status"]["phase"] == "Failed").await;
    assert_eq!(failed["status"]["reason"], "TooManyOperatorGroups");
    cluster.remove(Kind::OPERATOR_GROUP, "second").await;
    let mut phases = BTreeSet::new();
    let phase = |c: &Value| c["status"]["phase"].as_str().unwrap_or_default().to_owned();
    let deadline = Instant::now() + PATIENCE;
    while !phases.contains("Succeeded") {
        assert!(Instant::now() < deadline, "only {phases:?}");
        phases.insert(phase(&cluster.get(Kind::CSV, NAMESPACE, csv).await));
    }
    assert!(phases.len() > 2, "one step after the other: {phases:?}");
    cluster.until(Kind::SUBSCRIPTION, "mtc-operator", "known", |s| s["status"]["state"] == "AtLatestKnown").await;

    // An installation that fails stays failed.
    cluster.remove(Kind::SUBSCRIPTION, "mtc-operator").await;
    cluster.remove(Kind::CSV, csv).await;
    players.behave(|b| b.csv_fails = Some(("InstallCheckFailed".to_owned(), "install timeout".to_owned())));
    cluster.subscribe(json!({})).await;
    let failed = cluster.until(Kind::CSV, csv, "failed", |c| phase(c) == "Failed").await;
    assert_eq!(
        (failed["status"]["reason"].as_str(), failed["status"]["message"].as_str()),
        (Some("InstallCheckFailed"), Some("install timeout"))
    );
}
