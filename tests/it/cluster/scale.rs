//! A large cluster: 1,000 namespaces, 20,000 objects.

use super::{PATIENCE, Site};
use crate::controlplane::{Server, named};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DynamicObject, GroupVersionKind, PostParams};
use serde_json::json;

const NAMESPACES: usize = 1_000;
/// Objects that are not Drover's business, in all namespaces.
const FOREIGN: usize = 15_000;
/// Objects that are read: of the kinds of MTC.
const READ: usize = 4_000;
/// What a reading of it may take beyond what the process has: docs/performance.md.
const LIMIT: u64 = 128 << 20;
/// Requests at once while it is filled.
const AT_ONCE: usize = 24;

/// The most memory that this process has had, in bytes, since it was last asked to forget it.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Minutes, most of them to fill the server: run by itself (`--ignored`), so that no other test's memory is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, and measures the memory of the whole process"]
async fn a_thousand_namespaces_and_twenty_thousand_objects_within_the_stated_memory() {
    let Some(server) = Server::alone("scale") else { return };
    server.install_crds().await;
    let client = server.client().await;
    super::observes::make_namespace(&client, "openshift-migration").await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let make = (0..NAMESPACES).map(|i| {
        let namespaces = namespaces.clone();
        async move {
            let namespace = Namespace { metadata: named(&format!("app-{i:04}")), ..Default::default() };
            namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        }
    });
    futures::stream::iter(make).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    let payload = "x".repeat(1_000);
    let fill = (0..FOREIGN).map(|i| {
        let (client, payload) = (client.clone(), payload.clone());
        async move {
            let api: Api<ConfigMap> = Api::namespaced(client, &format!("app-{:04}", i % NAMESPACES));
            let data = [("x".to_owned(), payload)].into();
            let map = ConfigMap { metadata: named(&format!("m-{i}")), data: Some(data), ..Default::default() };
            api.create(&PostParams::default(), &map).await.unwrap();
        }
    });
    futures::stream::iter(fill).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    let kind = GroupVersionKind::gvk("migration.openshift.io", "v1alpha1", "MigHook");
    let (resource, _) = kube::discovery::pinned_kind(&client, &kind).await.unwrap();
    let hooks: Api<DynamicObject> = Api::namespaced_with(client.clone(), "openshift-migration", &resource);
    let fill = (0..READ).map(|i| {
        let (hooks, resource, payload) = (hooks.clone(), resource.clone(), payload.clone());
        async move {
            let spec = json!({"custom": false, "image": "i", "targetCluster": "source", "playbook": payload});
            let hook = DynamicObject::new(&format!("h-{i}"), &resource).data(json!({ "spec": spec }));
            hooks.create(&PostParams::default(), &hook).await.unwrap();
        }
    });
    futures::stream::iter(fill).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;

    let site = Site::of(&server, "migrationToolkit: {}\nrole: Control");
    // Forget what filling it took.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let began = std::time::Instant::now();
    let state = site.read().await.unwrap();
    let (took, more) = (began.elapsed(), peak().saturating_sub(before));
    println!("{NAMESPACES} namespaces, {READ} of {} objects read in {took:?}, {} MiB more", FOREIGN + READ, more >> 20);
    assert!(state.namespaces.len() > NAMESPACES && state.of_kind("migration.openshift.io", "MigHook").count() == READ);
    assert!(more < LIMIT && took < PATIENCE, "{} MiB", more >> 20);
}
