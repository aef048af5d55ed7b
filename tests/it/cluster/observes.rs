//! What is read of a cluster.

use super::{Site, read};
use crate::controlplane::{Role, Server, allow, named};
use drover::model::ObjectRef;
use drover::observed::Right;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

/// Writes an object with a manager, and its status where it has one.
pub(super) async fn put(client: &kube::Client, id: &ObjectRef, fields: Value) {
    let kind = GroupVersionKind::gvk(id.group(), id.version(), &id.kind);
    let (resource, _) = kube::discovery::pinned_kind(client, &kind).await.unwrap();
    let api: Api<DynamicObject> = of(client, id, &resource);
    let mut object = json!({"apiVersion": id.api_version, "kind": id.kind, "metadata": {"name": id.name}});
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let params = PatchParams::apply("somebody").force();
    api.patch(&id.name, &params, &Patch::Apply(&object)).await.unwrap();
    if let Some(status) = fields.get("status") {
        let patch = Patch::Merge(json!({"status": status}));
        match api.patch_status(&id.name, &PatchParams::default(), &patch).await {
            // Kinds without that subresource have it already.
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            other => drop(other.unwrap()),
        }
    }
}

fn of(client: &kube::Client, id: &ObjectRef, resource: &ApiResource) -> Api<DynamicObject> {
    match &id.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

pub(super) async fn make_namespace(client: &kube::Client, name: &str) {
    let namespace = Namespace { metadata: named(name), ..Default::default() };
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

const TOOLKIT: &str = "migrationToolkit: {install: OLM, channel: release-v1.7}\nrole: Control";

#[tokio::test]
async fn all_that_a_plan_needs_and_no_secret() {
    let Some(server) = Server::alone("observes") else { return };
    let empty = Site::of(&server, TOOLKIT).read().await.unwrap();
    assert!(
        !empty.serves("migration.openshift.io/v1alpha1", "MigCluster") && empty.crds.is_empty(),
        "{:?}",
        empty.served
    );
    assert!(empty.platform.starts_with("kubernetes-1.") && empty.serves("v1", "Secret"), "{}", empty.platform);
    assert!(empty.objects.is_empty(), "{:?}", empty.objects);

    server.install_crds().await;
    let client = server.client().await;
    make_namespace(&client, "openshift-migration").await;
    let mtc =
        |kind: &str, name: &str| ObjectRef::new("migration.openshift.io/v1alpha1", kind, "openshift-migration", name);
    let controller = mtc("MigrationController", "migration-controller");
    put(&client, &controller, json!({"spec": {"migration_velero": true, "stunnel_tcp_proxy": "http://u:canary@p:1", "http_proxy": "http://u:canary@h:1"}})).await;
    let cluster = mtc("MigCluster", "ocp3");
    put(&client, &cluster, json!({"spec": {"isHostCluster": false, "url": "https://x:6443"}})).await;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "canary"}},
        "type": "Opaque", "stringData": {"saToken": "canary"},
    }))
    .unwrap();
    Api::namespaced(client.clone(), "openshift-migration").create(&PostParams::default(), &secret).await.unwrap();
    let version = ObjectRef::cluster_wide("config.openshift.io/v1", "ClusterVersion", "version");
    let status = json!({
        "availableUpdates": [], "observedGeneration": 1, "versionHash": "x", "desired": {"version": "4.10.21", "image": "i"},
        "history": [{"state": "Completed", "version": "4.10.21", "image": "i", "startedTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:00Z", "verified": true}],
    });
    put(&client, &version, json!({"spec": {"clusterID": "00000000-0000-4000-8000-000000000000"}, "status": status}))
        .await;
    let network = ObjectRef::cluster_wide("config.openshift.io/v1", "Network", "cluster");
    put(
        &client,
        &network,
        json!({"spec": {"networkType": "OVNKubernetes"}, "status": {"networkType": "OVNKubernetes"}}),
    )
    .await;

    let state = Site::of(&server, TOOLKIT).read().await.unwrap();
    let uid = Api::<Namespace>::all(client.clone()).get("kube-system").await.ok().and_then(|n| n.metadata.uid);
    assert_eq!(state.uid, uid.unwrap_or_default());
    assert_eq!((state.platform.as_str(), state.openshift_version.as_deref()), ("openshift-4.10", Some("4.10.21")));
    assert_eq!(state.network_type.as_deref(), Some("OVNKubernetes"));
    assert!(state.clock_skew_millis.unwrap().abs() < 5_000 && state.version.starts_with("v1."));
    let read = state.object(&controller).expect("the controller is read");
    assert!(read.managers["somebody"].contains("spec.migration_velero"), "{:?}", read.managers);
    assert!(!read.value["spec"]["stunnel_tcp_proxy"].is_null(), "that it is set is no secret");
    assert_eq!(state.of_kind("migration.openshift.io", "MigCluster").count(), 1);
    assert!(state.object(&ObjectRef::cluster_wide("v1", "Namespace", "openshift-migration")).is_some());
    let keys = &state.object(&ObjectRef::new("v1", "Secret", "openshift-migration", "s")).unwrap().value["data"];
    assert!(keys.get("saToken").is_some());
    let crd = &state.crds["migclusters.migration.openshift.io"];
    assert!(crd.established && crd.instances == Some(1), "{crd:?}");
    assert!(state.crds.keys().all(|name| !name.contains("subscriptions")), "{:?}", state.crds.keys());
    assert!(!serde_json::to_string(&state).unwrap().contains("canary"));
}

#[tokio::test]
async fn rights_are_asked_for_and_a_reading_says_all_that_it_lacks() {
    let Some(server) = Server::alone("rights") else { return };
    make_namespace(&server.client().await, "tests").await;
    let reader = vec![allow("", &["namespaces", "pods", "configmaps"], &["get", "list"])];
    let kubeconfig = server.service_account("tests", "reader", reader).await;
    let token = read_token(&kubeconfig.config().await);
    let site = Site::new();
    let fields = site.by_token("c", &server, &server.url(), &token);
    let error = site.with("c", &fields).read().await.unwrap_err();
    // Two of several, each with its place, and what prints the role.
    assert!(error.contains("list customresourcedefinitions.apiextensions.k8s.io"), "{error}");
    assert!(error.contains("list deployments.apps in openshift-migration"), "{error}");
    assert!(error.contains("drover rbac cluster c") && !error.contains("list pods"), "{error}");

    let right = |verb: &str, resource: &str| Right {
        verb: verb.into(),
        group: String::new(),
        resource: resource.into(),
        namespace: Some("openshift-migration".into()),
    };
    let everything = allow("*", &["*"], &["get", "list"]);
    let kubeconfig = server.service_account("tests", "viewer", vec![everything]).await;
    let site = Site::new();
    let fields = site.by_token("c", &server, &server.url(), &read_token(&kubeconfig.config().await));
    let site = site.with("c", &fields).needing(&[right("list", "secrets"), right("create", "secrets")]);
    assert_eq!(site.read().await.unwrap().denied, [right("create", "secrets")]);
}

fn read_token(config: &kube::Config) -> String {
    serde_json::to_value(&config.auth_info).unwrap()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_dead_cluster_slows_no_other() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("https://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let site = Site::new();
    let (a, c) =
        (site.by_token("a", server, &dead, "t"), site.by_token("c", server, &server.url(), &server.admin_token()));
    let site = site.with("a", &a).with("c", &c);
    let reader = site.reader();
    let began = std::time::Instant::now();
    let deadline = std::time::Duration::from_secs(20);
    let (dead, alive) = tokio::join!(read(&reader, "a", deadline), async {
        let state = read(&reader, "c", deadline).await;
        (state, began.elapsed())
    });
    assert!(alive.0.is_ok() && alive.1 < deadline, "{:?}", alive.1);
    let why = dead.unwrap_err();
    assert!(why.contains("`a`"), "{why}");
}
