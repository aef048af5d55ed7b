//! 3.2, and a legacy cluster that is registered on a modern one.

use super::{Desk, get, has, is_namespace_gone, openshift};
use crate::controlplane::Server;
use crate::standin::{Kind, NAMESPACE, Release, StandIn};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The example's file, with the definition in the version that this API server serves.
fn operator() -> String {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clusters/3.2-legacy-operator/mtc/operator.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let old = "  subresources:\n    status: {}\n  version: v1alpha1\n";
    let new = "  versions:\n    - name: v1alpha1\n      served: true\n      storage: true\n      subresources: {status: {}}\n      schema:\n        \
               openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}\n";
    assert!(text.contains(old), "the example has changed");
    let text = text.replace("apiextensions.k8s.io/v1beta1", "apiextensions.k8s.io/v1").replace(old, new);
    // Nor does it have OpenShift's own kind of role bindings.
    let documents = text.split("---\n").filter(|d| !d.contains("authorization.openshift.io"));
    documents.collect::<Vec<_>>().join("---\n")
}

/// Fills the Secret with a token of the service account, as Kubernetes' token controller does, which these servers are without.
fn tokens(server: Arc<Server>, client: kube::Client) -> tokio_util::task::AbortOnDropHandle<()> {
    let task = tokio::spawn(async move {
        loop {
            let name = "drover-migration-controller-token";
            let secret = get(&client, Kind::SECRET, NAMESPACE, name).await;
            if secret["type"] == "kubernetes.io/service-account-token" && secret["data"]["token"].is_null() {
                let token = server.token(NAMESPACE, "migration-controller", 3600).await;
                let patch = Patch::Merge(json!({ "stringData": { "token": token } }));
                let _ = Kind::SECRET.within(&client, NAMESPACE).patch(name, &PatchParams::default(), &patch).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tokio_util::task::AbortOnDropHandle::new(task)
}

#[tokio::test(flavor = "multi_thread")]
async fn section_3_2_and_the_registration_of_a_remote_cluster() {
    let (Some(hub), Some(old)) = (Server::alone("guide-hub"), Server::alone("guide-old")) else { return };
    let on_hub = openshift(&hub, "4.10.21", true).await;
    let on_old = openshift(&old, "4.5.41", false).await;
    let playing =
        StandIn::of(&hub).olm().operator(Release::Modern).controller().behaving(|b| b.version = "1.7.14".into());
    let _hub = playing.start();
    let _old = StandIn::of(&old).operator(Release::Legacy).behaving(|b| b.version = "1.7.14".into()).start();
    let old = Arc::new(old);
    let _tokens = tokens(Arc::clone(&old), on_old.clone());
    let desk = Desk::new();
    desk.file("mtc/operator.yml", &operator());
    let example = "examples/clusters/3.2-legacy-operator/mtc/controller.yml";
    let controller = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(example)).unwrap();
    desk.file("mtc/controller.yml", &controller);
    let manifests = "  migrationToolkit:\n    install: Manifests\n    manifests: {operator: {file: mtc/operator.yml}, controller: {file: mtc/controller.yml}}\n";
    desk.says("old", &old, manifests);
    let steps = desk.apply();
    assert!(has(&steps, "create RoleBinding openshift-migration/system:image-pullers on old"), "{steps:#?}");

    // Changed: what the manifest says is laid over controller.yml.
    desk.says("old", &old, &format!("{manifests}    controller: {{resticTimeout: 2h}}\n"));
    assert_eq!(desk.apply()[0], "apply MigrationController openshift-migration/migration-controller on old");
    let there = get(&on_old, Kind::MIGRATION_CONTROLLER, NAMESPACE, "migration-controller").await;
    assert_eq!(
        (&there["spec"]["restic_timeout"], &there["spec"]["migration_log_reader"]),
        (&"2h".into(), &true.into())
    );

    // A control cluster comes, and knows it.
    let installed = "  role: Control\n  migrationToolkit: {install: OLM, channel: release-v1.7}\n";
    desk.says("hub", &hub, installed);
    let steps = desk.apply();
    assert_eq!(steps.last().unwrap(), "wait until MigCluster openshift-migration/old on hub is Ready");
    let known = get(&on_hub, Kind::MIG_CLUSTER, NAMESPACE, "old").await;
    assert_eq!(known["spec"]["url"], old.url());

    // The remote one leaves. Files that no manifest names are no business of Drover's, and would be taken for manifests.
    std::fs::remove_dir_all(desk.manifests.path().join("mtc")).unwrap();
    desk.says("old", &old, "  migrationToolkit: {install: None, prune: true}\n");
    let steps = desk.apply();
    assert_eq!(steps[0], "delete MigCluster openshift-migration/old on hub");
    assert!(is_namespace_gone(&on_old).await && !is_namespace_gone(&on_hub).await);
}
