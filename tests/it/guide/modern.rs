//! 3.3, 3.4, 3.6: by OLM.

use super::{Desk, NETWORK_POLICY, get, has, is_namespace_gone, openshift};
use crate::controlplane::Server;
use crate::standin::{Kind, NAMESPACE, Release, StandIn};
use serde_json::Value;

const INSTALLED: &str = "  role: Control\n  migrationToolkit:\n    install: OLM\n    channel: release-v1.7\n";

#[tokio::test(flavor = "multi_thread")]
async fn sections_3_3_3_4_and_3_6_from_empty_to_removed() {
    let Some(server) = Server::alone("guide-modern") else { return };
    let client = openshift(&server, "4.10.21", true).await;
    let playing =
        StandIn::of(&server).olm().operator(Release::Modern).controller().behaving(|b| b.version = "1.7.14".into());
    let _playing = playing.start();
    let desk = Desk::new();
    let controller = async || get(&client, Kind::MIGRATION_CONTROLLER, NAMESPACE, "migration-controller").await;

    // 3.3: installed.
    desk.says("ocp4", &server, INSTALLED);
    let steps = desk.apply();
    assert!(has(&steps, "apply Subscription openshift-migration/mtc-operator on ocp4"), "{steps:#?}");
    assert!(has(&steps, "wait until MigCluster openshift-migration/host on ocp4 is Ready"), "{steps:#?}");
    assert_eq!(controller().await["spec"]["migration_controller"], true);

    // 3.4.1 to 3.4.3: changed, a secret among it.
    let settings = "    controller:\n      stunnelTcpProxy: {secretRef: {env: STUNNEL}}\n      httpProxy: http://proxy.example.com:3128\n      \
                    noProxy: [.example.com]\n      rsyncEndpointType: NodePort\n      sourceSupplementalGroups: [1000, 2000]\n";
    let policies = "    rsyncNetworkPolicies: true\n    exemptedNamespaces: [shop]\n";
    desk.says("ocp4", &server, &format!("{INSTALLED}{settings}{policies}"));
    let steps = desk.apply();
    assert!(has(&steps, "apply NetworkPolicy shop/drover-rsync-egress on ocp4"), "{steps:#?}");
    let spec = controller().await["spec"].clone();
    assert_eq!(spec["stunnel_tcp_proxy"], "http://user:hunter2@proxy.example.com:8080");
    assert_eq!((&spec["src_supplemental_groups"], &spec["no_proxy"]), (&"1000,2000".into(), &".example.com".into()));
    assert_eq!(spec["version"], "1.7.14", "what the operator writes stays");

    // And back.
    desk.says("ocp4", &server, INSTALLED);
    let steps = desk.apply();
    assert!(has(&steps, "delete NetworkPolicy shop/drover-rsync-ingress on ocp4"), "{steps:#?}");
    assert_eq!(controller().await["spec"]["stunnel_tcp_proxy"], Value::Null);
    assert_eq!(get(&client, NETWORK_POLICY, "shop", "drover-rsync-egress").await, Value::Null);

    // 3.6: removed.
    desk.says("ocp4", &server, "  role: Control\n  migrationToolkit: {install: None, prune: true}\n");
    let steps = desk.apply();
    assert!(has(&steps, "delete CustomResourceDefinition migplans.migration.openshift.io on ocp4"), "{steps:#?}");
    assert!(is_namespace_gone(&client).await);
}
