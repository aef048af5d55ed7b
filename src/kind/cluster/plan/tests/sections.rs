//! 3.2, 3.3, 3.4.1 to 3.4.3, 3.6.

use super::*;
use crate::kind::cluster::objects::{NAMESPACE, RANGES_ANNOTATION};
use crate::model::ObjectRef;
use crate::plan::{Disruption, Health, Sync};
use serde_json::json;

const OPERATOR: &str = "apiVersion: v1
kind: Namespace
metadata: {name: openshift-migration}
---
apiVersion: authorization.openshift.io/v1
kind: RoleBinding
metadata: {name: 'system:deployers', namespace: openshift-migration}
roleRef: {name: 'system:deployer'}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: 'system:image-pullers', namespace: openshift-migration}
roleRef: {kind: ClusterRole, name: 'system:image-puller'}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: migration-operator, namespace: openshift-migration}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: migrationcontrollers.migration.openshift.io}
spec: {group: migration.openshift.io}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: migration-operator, namespace: openshift-migration}
spec: {replicas: 1}
";

const CONTROLLER: &str = "apiVersion: migration.openshift.io/v1alpha1
kind: MigrationController
metadata: {name: migration-controller, namespace: openshift-migration}
spec: {migration_velero: true, migration_log_reader: true, restic_timeout: 1h}
";

fn legacy(more: &str) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    format!(
        "migrationToolkit: {{install: Manifests, manifests: {{operator: {{inline: {}}}, controller: {{inline: {}}}}}{more}}}",
        quoted(OPERATOR),
        quoted(CONTROLLER)
    )
}

#[test]
fn section_3_2_the_legacy_operator_from_its_files() {
    let mut world = World::new(&[("ocp3", "openshift-4.5", &legacy(""))]);
    // One of the role bindings is there already, as the guide says it may be.
    let binding = ObjectRef::new("rbac.authorization.k8s.io/v1", "RoleBinding", NAMESPACE, "system:image-pullers");
    world.fake.on("ocp3").put("platform", binding.clone(), json!({"roleRef": {"name": "theirs"}}));
    let plan = world.converge();
    assert_eq!(
        steps(&plan),
        [
            "apply Namespace openshift-migration on ocp3",
            "create RoleBinding openshift-migration/system:deployers on ocp3",
            "apply ServiceAccount openshift-migration/migration-operator on ocp3",
            "apply CustomResourceDefinition migrationcontrollers.migration.openshift.io on ocp3",
            "apply Deployment openshift-migration/migration-operator on ocp3",
            "wait until Deployment openshift-migration/migration-operator on ocp3 is available",
            "wait until CustomResourceDefinition migrationcontrollers.migration.openshift.io on ocp3 is Established",
            "apply MigrationController openshift-migration/migration-controller on ocp3",
            "wait until Deployment openshift-migration/velero on ocp3 is available",
            "wait until DaemonSet openshift-migration/restic on ocp3 is available",
            "wait until Deployment openshift-migration/migration-log-reader on ocp3 is available",
        ]
    );
    assert_eq!(world.fake.on("ocp3").objects[&binding].value["roleRef"]["name"], "theirs");
    // The manifest's settings are laid over those of controller.yml.
    world.says(&[("ocp3", &legacy(", controller: {resticTimeout: 2h, veleroDebug: true}"))]);
    let plan = world.converge();
    assert_eq!(
        changes(&plan),
        [
            "MigrationController[openshift-migration/migration-controller].spec.restic_timeout: 2h",
            "MigrationController[openshift-migration/migration-controller].spec.velero_debug: true",
        ]
    );
    world.says(&[("ocp3", "migrationToolkit: {install: None, prune: true}")]);
    world.converge();
    assert!(world.fake.on("ocp3").objects.keys().all(|o| o.namespace.as_deref() != Some(NAMESPACE)));
}

#[test]
fn section_3_3_the_operator_by_olm() {
    let mut world = World::new(&[("ocp4", "openshift-4.10", &format!("role: Control, {OLM}"))]);
    let plan = world.converge();
    assert_eq!(
        steps(&plan),
        [
            "apply Namespace openshift-migration on ocp4",
            "apply OperatorGroup openshift-migration/openshift-migration on ocp4",
            "apply Subscription openshift-migration/mtc-operator on ocp4",
            "wait until Subscription openshift-migration/mtc-operator on ocp4 is installed",
            "wait until CustomResourceDefinition migrationcontrollers.migration.openshift.io on ocp4 is Established",
            "apply MigrationController openshift-migration/migration-controller on ocp4",
            "wait until MigrationController openshift-migration/migration-controller on ocp4 is Successful",
            "wait until Deployment openshift-migration/velero on ocp4 is available",
            "wait until DaemonSet openshift-migration/restic on ocp4 is available",
            "wait until Deployment openshift-migration/migration-log-reader on ocp4 is available",
            "wait until Deployment openshift-migration/migration-controller on ocp4 is available",
            "wait until Deployment openshift-migration/migration-ui on ocp4 is available",
            "wait until MigCluster openshift-migration/host on ocp4 is Ready",
        ]
    );
    assert_eq!((plan.summary.create, plan.resources[0].health), (1, Health::Missing));
    let after = world.plan();
    assert_eq!((after.resources[0].sync, after.resources[0].health), (Sync::Synced, Health::Healthy));
    assert_eq!(after.findings, []);
    // A version that a person has to approve: exactly the one that the manifest names.
    let manual = "role: Control, migrationToolkit: {install: OLM, channel: release-v1.7, approval: Manual";
    let mut world = World::new(&[("ocp4", "openshift-4.10", &format!("{manual}, approve: mtc-operator.v1.7.4}}"))]);
    let plan = world.converge();
    assert!(steps(&plan).contains(&"approve the InstallPlan of mtc-operator.v1.7.4 on ocp4".to_owned()), "{plan:#?}");
    // A later version is not approved.
    world.fake.on("ocp4").mtc_version = "1.7.5".into();
    world.fake.play();
    assert_eq!(steps(&world.plan()), Vec::<String>::new());
    // Nobody approves, so what comes after waits.
    let world = World::new(&[("ocp4", "openshift-4.10", &format!("{manual}}}"))]);
    let plan = world.plan();
    let free: Vec<_> = plan.runnable().map(|s| s.summary.as_str()).collect();
    assert_eq!(free.last(), Some(&"apply Subscription openshift-migration/mtc-operator on ocp4"));
    assert!(plan.findings.iter().any(|f| f.code == crate::finding::Code::ApprovalPending));
}

#[test]
fn an_operator_group_that_is_there_is_used_as_it_is() {
    let mut world = World::new(&[("ocp4", "openshift-4.10", OLM)]);
    let ns = ObjectRef::cluster_wide("v1", "Namespace", NAMESPACE);
    let group = ObjectRef::new("operators.coreos.com/v1", "OperatorGroup", NAMESPACE, "openshift-migration-x2k4f");
    world.fake.on("ocp4").put("console", ns, json!({}));
    world.fake.on("ocp4").put("console", group, json!({"spec": {"targetNamespaces": [NAMESPACE]}}));
    let plan = world.converge();
    assert!(!steps(&plan).iter().any(|s| s.contains("OperatorGroup")), "{plan:#?}");
}

#[test]
fn section_3_4_1_a_tcp_proxy_whose_password_is_nowhere_to_be_seen() {
    let with = |controller: &str| {
        format!(
            "role: Control, migrationToolkit: {{install: OLM, channel: release-v1.7, controller: {{{controller}}}}}"
        )
    };
    let proxy = "stunnelTcpProxy: {secretRef: {env: STUNNEL}}";
    let mut world = World::new(&[("ocp4", "openshift-4.10", &with(""))]);
    world.converge();
    world.says(&[("ocp4", &with(proxy))]);
    let plan = world.converge();
    assert_eq!(
        changes(&plan),
        ["MigrationController[openshift-migration/migration-controller].spec.stunnel_tcp_proxy: (secret)"]
    );
    // Another secret is another value.
    world.says(&[("ocp4", &with("stunnelTcpProxy: {secretRef: {env: OTHER}}"))]);
    let plan = world.converge();
    assert_eq!(steps(&plan)[0], "apply MigrationController openshift-migration/migration-controller on ocp4");
    world.says(&[("ocp4", &with(""))]);
    let plan = world.converge();
    assert_eq!(
        changes(&plan),
        ["MigrationController[openshift-migration/migration-controller].spec.stunnel_tcp_proxy: null"]
    );
}

#[test]
fn section_3_4_2_1_network_policies_for_rsync_pods() {
    let with = |policies: &str| format!("migrationToolkit: {{install: OLM, channel: release-v1.7, {policies}}}");
    let mut world = World::new(&[("ocp4", "openshift-4.10", OLM)]);
    world.converge();
    world.fake.on("ocp4").put("owner", ObjectRef::cluster_wide("v1", "Namespace", "shop"), json!({}));
    let theirs = ObjectRef::new("networking.k8s.io/v1", "NetworkPolicy", "shop", "deny-all");
    world.fake.on("ocp4").put("owner", theirs.clone(), json!({"spec": {"podSelector": {}}}));
    world.says(&[("ocp4", &with("rsyncNetworkPolicies: true, exemptedNamespaces: [shop, later]"))]);
    let plan = world.converge();
    assert_eq!(
        steps(&plan),
        [
            "apply NetworkPolicy shop/drover-rsync-egress on ocp4",
            "apply NetworkPolicy shop/drover-rsync-ingress on ocp4",
        ]
    );
    assert!(plan.findings.iter().any(|f| f.message.contains("no namespace `later`")), "{:#?}", plan.findings);
    // Kept: they stay when nobody names the namespace any more. Otherwise they go, and theirs stays.
    world.says(&[("ocp4", &with("rsyncNetworkPolicies: Keep"))]);
    assert_eq!(steps(&world.plan()), Vec::<String>::new());
    world.says(&[("ocp4", &with("rsyncNetworkPolicies: Migration"))]);
    let plan = world.converge();
    assert_eq!(
        steps(&plan),
        [
            "delete NetworkPolicy shop/drover-rsync-egress on ocp4",
            "delete NetworkPolicy shop/drover-rsync-ingress on ocp4",
        ]
    );
    assert!(world.fake.on("ocp4").objects.contains_key(&theirs));
}

#[test]
fn section_3_4_2_2_rules_in_an_egress_firewall_of_somebody_elses() {
    let ocp4 = |rules: &str| {
        format!(
            "migrationToolkit: {{install: OLM, channel: release-v1.7, egress: {{cidrs: [198.51.100.0/24], rules: {rules}}}, exemptedNamespaces: [shop]}}"
        )
    };
    let other = "migrationToolkit: {install: None, egress: {cidrs: [203.0.113.0/24], rules: None}}";
    let mut world = World::new(&[("ocp3", "openshift-4.9", other), ("ocp4", "openshift-4.10", &ocp4("Migration"))]);
    world.fake.on("ocp4").put("owner", ObjectRef::cluster_wide("v1", "Namespace", "shop"), json!({}));
    let firewall = ObjectRef::new("network.openshift.io/v1", "EgressNetworkPolicy", "shop", "default");
    let theirs = json!([{"type": "Deny", "to": {"cidrSelector": "0.0.0.0/0"}}]);
    world.fake.on("ocp4").put("owner", firewall.clone(), json!({"spec": {"egress": theirs}}));
    let plan = world.converge();
    assert!(
        steps(&plan)
            .contains(&"allow the other clusters' addresses in EgressNetworkPolicy shop/default on ocp4".to_owned())
    );
    let value = &world.fake.on("ocp4").objects[&firewall].value;
    assert_eq!(value["spec"]["egress"][0], json!({"type": "Allow", "to": {"cidrSelector": "203.0.113.0/24"}}));
    assert_eq!(value["spec"]["egress"][1], theirs[0]);
    assert_eq!(value["metadata"]["annotations"][RANGES_ANNOTATION], "203.0.113.0/24");
    world.says(&[("ocp3", other), ("ocp4", &ocp4("None"))]);
    let plan = world.converge();
    assert_eq!(steps(&plan), ["take Drover's rules out of EgressNetworkPolicy shop/default on ocp4"]);
    assert_eq!(world.fake.on("ocp4").objects[&firewall].value["spec"]["egress"], theirs);
}

#[test]
fn sections_3_4_2_3_to_3_4_3_settings_of_the_controller() {
    let with = |controller: &str| {
        format!(
            "role: Control, migrationToolkit: {{install: OLM, channel: release-v1.7, controller: {{{controller}}}}}"
        )
    };
    let mut world = World::new(&[("ocp4", "openshift-4.10", &with(""))]);
    world.converge();
    let settings = "rsyncEndpointType: NodePort, sourceSupplementalGroups: [1000, 2000], targetSupplementalGroups: [2000, 3000], \
                    httpProxy: 'http://proxy:3128', noProxy: [.example.com, 10.0.0.0/16]";
    world.says(&[("ocp4", &with(settings))]);
    let plan = world.converge();
    let controller = "MigrationController[openshift-migration/migration-controller].spec";
    assert_eq!(
        changes(&plan),
        [
            format!("{controller}.http_proxy: http://proxy:3128"),
            format!("{controller}.no_proxy: .example.com,10.0.0.0/16"),
            format!("{controller}.rsync_endpoint_type: NodePort"),
            format!("{controller}.src_supplemental_groups: 1000,2000"),
            format!("{controller}.target_supplemental_groups: 2000,3000"),
        ]
    );
    // The restart of the controller is waited for.
    assert_eq!(
        steps(&plan)[1],
        "wait until MigrationController openshift-migration/migration-controller on ocp4 is Successful"
    );
    world.says(&[("ocp4", &with(""))]);
    let plan = world.converge();
    assert_eq!(changes(&plan).len(), 5);
    assert!(changes(&plan).iter().all(|c| c.ends_with(": null")));
    // What the operator itself writes is left alone.
    let id =
        ObjectRef::new("migration.openshift.io/v1alpha1", "MigrationController", NAMESPACE, "migration-controller");
    assert_eq!(world.fake.on("ocp4").objects[&id].value["spec"]["version"], "1.7.4");
}

fn pair() -> World {
    World::new(&[
        ("hub", "openshift-4.10", &format!("role: Control, {OLM}")),
        (
            "old",
            "openshift-4.5",
            &legacy(", registration: {exposedRegistry: 'registry.old.example.com', insecure: true}"),
        ),
    ])
}

#[test]
fn a_remote_cluster_is_registered_once_both_have_mtc() {
    let mut world = pair();
    let plan = world.converge();
    let all = steps(&plan);
    let at = |text: &str| all.iter().position(|s| s == text).unwrap_or_else(|| panic!("{text}: {all:#?}"));
    let ready = at("wait until MigCluster openshift-migration/host on hub is Ready");
    let source = at("apply Secret openshift-migration/drover-migration-controller-token on old");
    let token = at("apply Secret openshift-config/drover-old-token on hub");
    let cluster = at("apply MigCluster openshift-migration/old on hub");
    assert!(ready < source && source < token && token < cluster);
    assert_eq!(all.last().unwrap(), "wait until MigCluster openshift-migration/old on hub is Ready");
    assert!(at("wait until Deployment openshift-migration/velero on old is available") < source);
    let id = ObjectRef::new("migration.openshift.io/v1alpha1", "MigCluster", NAMESPACE, "old");
    let spec = world.fake.on("hub").objects[&id].value["spec"].clone();
    assert_eq!(spec["url"], "https://api.old.example.com:6443");
    assert_eq!(spec["exposedRegistryPath"], "registry.old.example.com");
    assert_eq!(spec["refresh"], false, "what the controller writes stays");
    let shown = serde_json::to_string(&plan).unwrap();
    assert!(!shown.contains("value of"), "no secret value is in a plan");
}

#[test]
fn one_that_a_person_registered_keeps_its_credentials() {
    let mut world = pair();
    world.converge();
    let hub = world.fake.on("hub");
    let id = ObjectRef::new("migration.openshift.io/v1alpha1", "MigCluster", NAMESPACE, "old");
    hub.objects.remove(&id);
    let secret = ObjectRef::new("v1", "Secret", "openshift-config", "old-x7f2k");
    hub.objects.remove(&ObjectRef::new("v1", "Secret", "openshift-config", "drover-old-token"));
    hub.put("console", secret, json!({"data": {"saToken": "eA=="}}));
    let spec = json!({
        "isHostCluster": false, "url": "https://api.old.example.com:6443", "insecure": true,
        "exposedRegistryPath": "registry.old.example.com",
        "serviceAccountSecretRef": {"name": "old-x7f2k", "namespace": "openshift-config"},
    });
    hub.put("console", id.clone(), json!({"spec": spec}));
    world.fake.play();
    assert_eq!(steps(&world.plan()), Vec::<String>::new());
}

#[test]
fn section_3_6_everything_goes_in_order_and_only_with_prune() {
    let mut world = pair();
    world.converge();
    let registration = "openshift-migration/old";
    world.says(&[("hub", &format!("role: Control, {OLM}")), ("old", "migrationToolkit: {install: None}")]);
    assert!(!steps(&world.plan()).iter().any(|s| s.starts_with("delete")), "without `prune` all of it stays");
    // First the remote cluster.
    let gone = "migrationToolkit: {install: None, prune: true}";
    world.says(&[("hub", &format!("role: Control, {OLM}")), ("old", gone)]);
    let plan = world.converge();
    let all = steps(&plan);
    assert_eq!(all[0], format!("delete MigCluster {registration} on hub"));
    assert_eq!(all[1], "delete Secret openshift-config/drover-old-token on hub");
    assert_eq!(all[2], "delete MigrationController openshift-migration/migration-controller on old");
    for step in &plan.steps {
        let deletes = step.action.name() == "DeleteObject";
        assert_eq!(step.disruption == Disruption::Destructive, deletes, "{}", step.summary);
    }
    assert_eq!(plan.summary.delete, 1);
    // Then the control cluster, with what a person made there.
    let mig = |kind: &str, name: &str| ObjectRef::new("migration.openshift.io/v1alpha1", kind, NAMESPACE, name);
    world.fake.on("hub").put("console", mig("MigPlan", "shop"), json!({"spec": {"namespaces": ["shop"]}}));
    world.fake.on("hub").put("console", mig("MigMigration", "shop-1"), json!({"status": {"phase": "Completed"}}));
    let backup = ObjectRef::new("velero.io/v1", "Backup", NAMESPACE, "b");
    world.fake.on("hub").put("velero", backup, json!({"spec": {"x": 1}}));
    let location = ObjectRef::new("velero.io/v1", "BackupStorageLocation", NAMESPACE, "l");
    world.fake.on("hub").put("velero", location, json!({"spec": {"x": 1}}));
    world.says(&[("hub", &format!("role: Control, {gone}")), ("old", gone)]);
    let plan = world.plan();
    let removed = |s: &String| s.strip_prefix("delete ").and_then(|s| s.strip_suffix(" on hub")).map(str::to_owned);
    let gone: Vec<String> = steps(&plan).iter().filter_map(removed).collect();
    assert_eq!(
        gone,
        [
            "MigMigration openshift-migration/shop-1",
            "MigPlan openshift-migration/shop",
            "Backup openshift-migration/b",
            "BackupStorageLocation openshift-migration/l",
            "MigrationController openshift-migration/migration-controller",
            "Subscription openshift-migration/mtc-operator",
            "Subscription openshift-migration/redhat-oadp-operator-stable-1.0",
            "ClusterServiceVersion openshift-migration/mtc-operator.v1.7.4",
            "ClusterServiceVersion openshift-migration/oadp-operator.v1.0.3",
            "OperatorGroup openshift-migration/openshift-migration",
            "CustomResourceDefinition miganalytics.migration.openshift.io",
            "CustomResourceDefinition migclusters.migration.openshift.io",
            "CustomResourceDefinition mighooks.migration.openshift.io",
            "CustomResourceDefinition migmigrations.migration.openshift.io",
            "CustomResourceDefinition migplans.migration.openshift.io",
            "CustomResourceDefinition migrationcontrollers.migration.openshift.io",
            "CustomResourceDefinition migstorages.migration.openshift.io",
            "CustomResourceDefinition backups.velero.io",
            "CustomResourceDefinition backupstoragelocations.velero.io",
            "CustomResourceDefinition restores.velero.io",
            "ClusterRole migplans.migration.openshift.io-v1-admin",
            "ClusterRole migration-controller",
            "ClusterRole backups.velero.io-v1-admin",
            "ClusterRoleBinding migplans.migration.openshift.io-v1-admin",
            "ClusterRoleBinding migration-controller",
            "ClusterRoleBinding backups.velero.io-v1-admin",
            "Namespace openshift-migration",
        ]
        .map(str::to_owned)
    );
    assert_eq!(steps(&plan)[0], "close MigPlan openshift-migration/shop on hub");
    let plans = plan
        .steps
        .iter()
        .find(|s| s.summary.contains("migplans.migration") && s.summary.starts_with("delete Custom"))
        .unwrap();
    assert!(plans.why.contains("1 object of it is there now"), "{}", plans.why);
    world.converge();
    assert!(
        world.fake.on("hub").objects.keys().all(|o| o.kind == "Namespace"),
        "{:#?}",
        world.fake.on("hub").objects.keys()
    );
}

#[test]
fn a_section_that_is_taken_away_is_removed_only_where_settings_prune() {
    let mut world = World::new(&[("ocp4", "openshift-4.10", OLM)]);
    world.converge();
    world.says(&[("ocp4", "")]);
    let plan = world.plan();
    assert_eq!(steps(&plan), Vec::<String>::new());
    assert!(plan.findings.iter().any(|f| f.code == crate::finding::Code::Unmanaged), "{:#?}", plan.findings);
    world.settings("{prune: true}");
    world.converge();
    assert!(world.fake.on("ocp4").objects.keys().all(|o| o.namespace.as_deref() != Some(NAMESPACE)));
}

#[test]
fn a_cluster_whose_manifest_is_gone_is_forgotten_only_where_settings_prune() {
    let mut world = pair();
    world.converge();
    world.says(&[("hub", &format!("role: Control, {OLM}"))]);
    assert!(world.plan().findings.iter().any(|f| f.message.contains("`old` has no manifest any more")));
    world.settings("{prune: true}");
    let plan = world.converge();
    assert_eq!(
        steps(&plan),
        ["delete MigCluster openshift-migration/old on hub", "delete Secret openshift-config/drover-old-token on hub"]
    );
}

#[test]
fn what_was_installed_by_hand_is_imported_and_the_next_plan_is_empty() {
    let mut world = World::new(&[("hub", "openshift-4.10", "role: Control"), ("old", "openshift-4.10", "")]);
    let olm = "operators.coreos.com/v1alpha1";
    for cluster in ["hub", "old"] {
        let server = world.fake.on(cluster);
        server.put("console", ObjectRef::cluster_wide("v1", "Namespace", NAMESPACE), json!({}));
        let group = ObjectRef::new("operators.coreos.com/v1", "OperatorGroup", NAMESPACE, "openshift-migration-abcde");
        server.put("console", group, json!({"spec": {"targetNamespaces": [NAMESPACE]}}));
        let spec = json!({
            "name": "mtc-operator", "channel": "release-v1.7", "source": "mirrored", "sourceNamespace": "openshift-marketplace",
            "installPlanApproval": "Automatic",
        });
        server.put(
            "console",
            ObjectRef::new(olm, "Subscription", NAMESPACE, "migration-toolkit"),
            json!({"spec": spec}),
        );
        let is_hub = cluster == "hub";
        let mut variables = json!({
            "migration_velero": true, "migration_controller": is_hub, "migration_ui": is_hub,
            "src_supplemental_groups": "1000,2000", "mig_namespace_limit": "20", "noProxy": ".example.com", "azure_resource_group": "",
            "something_new": {"a": [1]}, "stunnel_tcp_proxy": "http://u:hunter2@proxy:1",
        });
        if is_hub {
            variables["cluster_name"] = json!("host");
        }
        let id = ObjectRef::new("migration.openshift.io/v1alpha1", "MigrationController", NAMESPACE, "controller");
        server.put("kubectl", id, json!({"spec": variables}));
    }
    world.fake.play();
    let hub = world.fake.on("hub");
    let secret = ObjectRef::new("v1", "Secret", "openshift-config", "old-x7f2k");
    hub.put("console", secret, json!({"data": {"saToken": "eA=="}}));
    let spec = json!({
        "isHostCluster": false, "url": "https://tunnel.example.com:8443", "insecure": true, "exposedRegistryPath": "r.example.com",
        "serviceAccountSecretRef": {"name": "old-x7f2k", "namespace": "openshift-config"},
    });
    let id = ObjectRef::new("migration.openshift.io/v1alpha1", "MigCluster", NAMESPACE, "old");
    hub.put("console", id, json!({"spec": spec}));
    world.fake.play();
    let observed = world.look();
    for cluster in ["hub", "old"] {
        let manifest = world.resources.clusters[cluster].clone();
        let made = crate::kind::cluster::import(&manifest, &observed, &world.resources).unwrap();
        assert!(made.findings.iter().any(|f| f.message.contains("stunnel_tcp_proxy")), "{:#?}", made.findings);
        assert!(!format!("{made:?}").contains("hunter2"));
        assert_eq!(made.spec.kubeconfig, manifest.spec.kubeconfig);
        world.resources.clusters.get_mut(cluster).unwrap().spec = made.spec;
    }
    let toolkit = world.resources.clusters["old"].spec.migration_toolkit.clone().unwrap();
    assert_eq!(toolkit.registration.url.as_deref(), Some("https://tunnel.example.com:8443"));
    assert_eq!((toolkit.source.as_str(), toolkit.controller.variables.len()), ("mirrored", 2));
    let plan = world.plan();
    assert_eq!((steps(&plan), changes(&plan)), (Vec::new(), Vec::new()));
    assert_eq!(steps(&world.plan_from(&world.look())), Vec::<String>::new());
}

#[test]
fn exemptions_go_with_the_toolkit() {
    let with = "migrationToolkit: {install: OLM, channel: release-v1.7, rsyncNetworkPolicies: true, exemptedNamespaces: [default]}";
    let mut world = World::new(&[("ocp4", "openshift-4.10", with)]);
    world.converge();
    let is_policy = |o: &ObjectRef| o.kind == "NetworkPolicy";
    assert_eq!(world.fake.on("ocp4").objects.keys().filter(|o| is_policy(o)).count(), 2);
    world.says(&[("ocp4", "")]);
    assert_eq!(steps(&world.plan()), Vec::<String>::new(), "what nothing is said of stays");
    world.says(&[("ocp4", "migrationToolkit: {install: None, prune: true}")]);
    world.converge();
    assert_eq!(world.fake.on("ocp4").objects.keys().filter(|o| is_policy(o)).count(), 0);
}
