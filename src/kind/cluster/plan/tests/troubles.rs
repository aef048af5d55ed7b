//! What is in the way, and what is not well.

use super::*;
use crate::finding::{Code, Finding, Severity};
use crate::kind::cluster::objects::NAMESPACE;
use crate::model::ObjectRef;
use crate::observed::Right;
use crate::plan::{Health, Sync};
use serde_json::json;

fn control() -> String {
    format!("role: Control, {OLM}")
}

fn hub() -> World {
    World::new(&[("hub", "openshift-4.10", &control())])
}

#[track_caller]
fn held_by(plan: &Plan, code: Code) -> String {
    let first = plan.steps.first().expect("there are steps");
    assert_eq!(plan.runnable().count(), 0, "nothing is done");
    let block = first.blocked_by.iter().find(|b| b.code == code);
    block.map(|b| format!("{}; {}", b.reason, b.way_out)).unwrap_or_else(|| panic!("{:#?}", first.blocked_by))
}

#[track_caller]
fn finding(plan: &Plan, code: Code) -> Finding {
    plan.findings.iter().find(|f| f.code == code).cloned().unwrap_or_else(|| panic!("{:#?}", plan.findings))
}

#[test]
fn a_cluster_that_could_not_be_read_is_not_touched_and_holds_only_what_depends_on_it() {
    let mut world = World::new(&[("hub", "openshift-4.10", &control()), ("two", "openshift-4.10", OLM)]);
    world.converge();
    let mut observed = world.asked();
    observed.clusters.insert("hub".into(), Reading::Unknown { why: "connection refused".into() });
    let plan = world.plan_from(&observed);
    assert_eq!(steps(&plan), Vec::<String>::new());
    let report = |name: &str| plan.resources.iter().find(|r| r.name == name).unwrap();
    assert_eq!((report("hub").sync, report("hub").health), (Sync::Unknown, Health::Unknown));
    assert_eq!(report("two").sync, Sync::Unknown, "whether it is registered is not known");
    assert!(finding(&plan, Code::ClusterUnknown).message.contains("connection refused"));
}

#[test]
fn a_missing_right_is_a_precheck_with_the_way_out() {
    let mut world = hub();
    world.fake.on("hub").denied = vec![Right {
        verb: "create".into(),
        group: "operators.coreos.com".into(),
        resource: "subscriptions".into(),
        namespace: Some(NAMESPACE.into()),
    }];
    let said = held_by(&world.plan(), Code::RightMissing);
    assert!(said.contains("create subscriptions.operators.coreos.com in openshift-migration"), "{said}");
    assert!(said.contains("drover rbac cluster hub | kubectl apply -f -"), "{said}");
}

#[test]
fn table_3_1_holds_for_what_was_observed() {
    for (platform, spec) in [
        ("openshift-4.5", OLM.to_owned()),
        ("openshift-4.5", control()),
        ("openshift-4.9", "migrationToolkit: {install: OLM, channel: release-v1.8}".to_owned()),
        ("kubernetes-1.29", OLM.to_owned()),
    ] {
        let world = World::new(&[("c", platform, &spec)]);
        held_by(&world.plan_from(&world.look()), Code::WrongPlatform);
    }
    let declared = World::new(&[("c", "openshift-4.11", "platform: openshift-4.10")]);
    assert_eq!(finding(&declared.plan(), Code::WrongPlatform).severity, Severity::Warning);
}

#[test]
fn two_manifests_of_one_cluster_do_nothing() {
    let mut world = World::new(&[("a", "openshift-4.10", OLM), ("b", "openshift-4.10", OLM)]);
    world.fake.on("b").uid = "a".into();
    let said = held_by(&world.plan(), Code::SameCluster);
    assert!(said.contains("`a` and `b` are one cluster"), "{said}");
}

#[test]
fn a_foreign_field_is_a_conflict_unless_it_is_forced() {
    let mut world = hub();
    world.converge();
    let subscription = ObjectRef::new("operators.coreos.com/v1alpha1", "Subscription", NAMESPACE, "mtc-operator");
    world.fake.on("hub").put("argocd-controller", subscription.clone(), json!({"spec": {"channel": "release-v1.8"}}));
    for plan in [world.plan(), world.plan_from(&world.look())] {
        let said = held_by(&plan, Code::FieldConflict);
        assert!(said.contains("`.spec.channel` (argocd-controller)") && said.contains("forceConflicts"), "{said}");
    }
    world.says(&[("hub", &control().replace("install: OLM", "install: OLM, forceConflicts: true"))]);
    world.converge();
    assert_eq!(world.fake.on("hub").objects[&subscription].value["spec"]["channel"], "release-v1.7");
}

#[test]
fn what_a_person_changes_by_hand_is_drift_and_is_put_back() {
    for tool in ["kubectl-edit", "kubectl-patch", "Mozilla"] {
        let mut world = hub();
        world.converge();
        let subscription = ObjectRef::new("operators.coreos.com/v1alpha1", "Subscription", NAMESPACE, "mtc-operator");
        world.fake.on("hub").put(tool, subscription.clone(), json!({"spec": {"channel": "release-v1.8"}}));
        for plan in [world.plan(), world.plan_from(&world.look())] {
            assert!(plan.steps.iter().all(|s| !s.is_blocked()), "{tool}: {:?}", plan.steps);
        }
        world.converge();
        assert_eq!(world.fake.on("hub").objects[&subscription].value["spec"]["channel"], "release-v1.7", "{tool}");
    }
}

#[test]
fn a_webhook_that_refuses_holds_the_step_back_in_its_words() {
    let mut world = hub();
    world.converge();
    world.fake.on("hub").refuses = Some("MigrationController".into());
    world.says(&[("hub", &control().replace("install: OLM", "install: OLM, controller: {podLimit: 5}"))]);
    assert!(held_by(&world.plan(), Code::ServerRefuses).contains("no.example.com"));
}

#[test]
fn a_namespace_that_does_not_go_is_named_with_what_is_left() {
    let mut world = hub();
    world.converge();
    let backup = ObjectRef::new("velero.io/v1", "Backup", NAMESPACE, "stuck");
    world.fake.on("hub").put("velero", backup.clone(), json!({"spec": {"x": 1}}));
    world.fake.on("hub").objects.get_mut(&backup).unwrap().finalizers = vec!["velero.io/x".into()];
    let namespace = ObjectRef::cluster_wide("v1", "Namespace", NAMESPACE);
    let uid = world.look().cluster("hub").unwrap().namespaces[NAMESPACE].uid.clone();
    let delete = crate::action::ClusterAction::DeleteObject { cluster: "hub".into(), id: namespace, uid };
    world.fake.act(&Action::Cluster(delete));
    let plan = world.plan();
    assert!(finding(&plan, Code::Deleting).message.contains("backups.velero.io has 1 resource instances"));
    world.says(&[("hub", "role: Control, migrationToolkit: {install: None, prune: true}")]);
    assert_eq!(steps(&world.plan()).last().unwrap(), "wait until Namespace openshift-migration on hub is gone");
}

#[test]
fn what_still_runs_or_was_not_made_by_drover_is_not_removed() {
    let gone = "role: Control, migrationToolkit: {install: None, prune: true}";
    let mut world = hub();
    world.converge();
    let running = ObjectRef::new("migration.openshift.io/v1alpha1", "MigMigration", NAMESPACE, "m1");
    world.fake.on("hub").put("console", running, json!({"spec": {"stage": true}}));
    world.says(&[("hub", gone)]);
    assert!(held_by(&world.plan(), Code::StillInUse).contains("m1"));

    // Of somebody else's making: only with the annotation.
    let mut world = hub();
    world.converge();
    for stored in world.fake.on("hub").objects.values_mut() {
        stored.value["metadata"].as_object_mut().unwrap().remove("labels");
    }
    assert_eq!(steps(&world.plan()), Vec::<String>::new(), "what is right is left as it is, without marks");
    world.says(&[("hub", gone)]);
    assert!(held_by(&world.plan(), Code::NotOwned).contains("drover/adopt"));
    let manifest = world.resources.clusters.get_mut("hub").unwrap();
    manifest.metadata.annotations.insert("drover/adopt".into(), "true".into());
    assert!(world.plan().runnable().count() > 10);
}

/// Both clusters leave in one commit: the control cluster closes its plans first, while its controller still reaches the other.
#[test]
fn a_pair_that_leaves_at_once_goes_in_order_or_not_at_all() {
    let both = || World::new(&[("hub", "openshift-4.10", &control()), ("two", "openshift-4.10", OLM)]);
    let gone = "migrationToolkit: {install: None, prune: true}";
    let leave = |world: &mut World| world.says(&[("hub", &format!("role: Control, {gone}")), ("two", gone)]);
    let mut world = both();
    world.converge();
    let mig = |kind: &str, name: &str| ObjectRef::new("migration.openshift.io/v1alpha1", kind, NAMESPACE, name);
    world.fake.on("hub").put("console", mig("MigPlan", "shop"), json!({"spec": {"namespaces": ["shop"]}}));
    leave(&mut world);
    let all = steps(&world.plan());
    let at = |what: &str| all.iter().position(|s| s == what).unwrap_or_else(|| panic!("{what}: {all:#?}"));
    let controller = "delete MigrationController openshift-migration/migration-controller";
    assert!(at("delete MigPlan openshift-migration/shop on hub") < at(&format!("{controller} on two")));
    assert!(at(&format!("{controller} on two")) < at(&format!("{controller} on hub")));

    // A migration runs: neither goes.
    world.fake.on("hub").put("console", mig("MigMigration", "m1"), json!({"spec": {"stage": true}}));
    assert_eq!(world.plan().runnable().count(), 0, "{:#?}", steps(&world.plan()));
    // Of the control cluster nothing is known: the other stays.
    let mut observed = world.asked();
    observed.clusters.insert("hub".into(), Reading::Unknown { why: "no route".into() });
    assert!(held_by(&world.plan_from(&observed), Code::ClusterUnknown).contains("`hub` could not be read"));
    // And the other way round.
    let mut observed = world.asked();
    observed.clusters.insert("two".into(), Reading::Unknown { why: "no route".into() });
    assert!(held_by(&world.plan_from(&observed), Code::ClusterUnknown).contains("`two` leaves MTC as well"));
}

#[test]
fn a_velero_of_others_keeps_its_definitions() {
    let mut world = hub();
    world.converge();
    let theirs = ObjectRef::new("velero.io/v1", "BackupStorageLocation", "openshift-adp", "default");
    world.fake.on("hub").put("oadp", theirs.clone(), json!({"spec": {"x": 1}}));
    let role = ObjectRef::cluster_wide("rbac.authorization.k8s.io/v1", "ClusterRole", "my-velero-reader");
    world.fake.on("hub").put("admin", role.clone(), json!({"x": 1}));
    world.says(&[("hub", "role: Control, migrationToolkit: {install: None, prune: true}")]);
    let plan = world.converge();
    assert!(finding(&plan, Code::StillInUse).message.contains("1 BackupStorageLocation in openshift-adp"));
    assert!(finding(&plan, Code::Leftover).message.contains("my-velero-reader"));
    let objects = &world.fake.on("hub").objects;
    assert!(objects.contains_key(&theirs) && objects.contains_key(&role));
    assert!(objects.keys().any(|o| o.name == "backupstoragelocations.velero.io"));
    assert!(!objects.keys().any(|o| o.name.ends_with(".migration.openshift.io")));
}

#[test]
fn objects_that_could_not_be_counted_hold_their_definition() {
    let mut world = hub();
    world.converge();
    world.says(&[("hub", "role: Control, migrationToolkit: {install: None, prune: true}")]);
    let mut observed = world.asked();
    let Some(Reading::Present(state)) = observed.clusters.get_mut("hub") else { panic!() };
    state.crds.get_mut("migplans.migration.openshift.io").unwrap().instances = None;
    assert!(held_by(&world.plan_from(&observed), Code::StillInUse).contains("migplans.migration.openshift.io"));
}

#[test]
fn a_cluster_out_of_reach_is_told_with_the_tunnel() {
    let hub = "role: Control, kubeconfig: {secretRef: {file: /k}, context: admin@hub}, migrationToolkit: {install: OLM, channel: release-v1.7, controller: {httpsProxy: 'http://proxy.example.com:3128'}}";
    let mut world = World::new(&[("hub", "openshift-4.10", &control()), ("far", "openshift-4.10", OLM)]);
    world.converge();
    let spec = serde_json::from_value(value(&format!("{{{hub}}}"))).unwrap();
    world.resources.clusters.get_mut("hub").unwrap().spec = spec;
    world.fake.on("far").reachable = false;
    world.fake.play();
    let plan = world.plan();
    let told = finding(&plan, Code::NoWayToCluster);
    let hint = told.hint.unwrap();
    let command = "crane tunnel-api --namespace openvpn-far --source-context far --destination-context admin@hub --proxy-host proxy.example.com --proxy-port 3128";
    assert!(hint.contains(command) && hint.contains("https://api.far.example.com:6443"), "{hint}");
    assert_eq!(plan.resources.iter().find(|r| r.name == "far").unwrap().health, Health::Degraded);
}

#[test]
fn versions_that_do_not_fit_together_are_told() {
    let mut world = World::new(&[("hub", "openshift-4.10", &control()), ("two", "openshift-4.10", OLM)]);
    world.converge();
    let map = ObjectRef::new("v1", "ConfigMap", NAMESPACE, "migration-cluster-config");
    for (version, severity) in [("1.7.3", Severity::Warning), ("1.8.1", Severity::Error)] {
        world.fake.on("two").put("operator", map.clone(), json!({"data": {"OPERATOR_VERSION": version}}));
        assert_eq!(finding(&world.plan(), Code::VersionsDiffer).severity, severity);
    }
}

#[test]
fn a_proxy_without_spdy_is_recognised() {
    let mut world = hub();
    world.converge();
    let run = ObjectRef::new("migration.openshift.io/v1alpha1", "MigMigration", NAMESPACE, "m1");
    let condition = json!({"type": "Failed", "status": "True", "message": "error: Upgrade request required"});
    world.fake.on("hub").put("controller", run, json!({"status": {"conditions": [condition]}}));
    let told = finding(&world.plan(), Code::UpgradeBlocked);
    assert!(told.hint.unwrap().contains("`Upgrade` header"));
}

#[test]
fn what_olm_and_the_operator_complain_of_is_shown() {
    let mut world = hub();
    world.converge();
    let set = |world: &mut World, kind: &str, name: &str, status: serde_json::Value| {
        let api = if kind == "MigrationController" {
            "migration.openshift.io/v1alpha1"
        } else {
            "operators.coreos.com/v1alpha1"
        };
        let id = ObjectRef::new(api, kind, NAMESPACE, name);
        world.fake.on("hub").objects.get_mut(&id).unwrap().value["status"] = status;
    };
    let condition =
        |kind: &str, message: &str| json!({"conditions": [{"type": kind, "status": "True", "message": message}]});
    set(
        &mut world,
        "Subscription",
        "redhat-oadp-operator-stable-1.0",
        condition("ResolutionFailed", "no operators found"),
    );
    set(&mut world, "MigrationController", "migration-controller", condition("Failure", "'oadp_version' is undefined"));
    let plan = world.plan();
    assert!(finding(&plan, Code::OperatorTrouble).message.contains("no operators found"));
    assert!(finding(&plan, Code::ToolkitTrouble).hint.unwrap().contains("OADP"));
    assert_eq!((steps(&plan).len(), plan.resources[0].health), (0, Health::Degraded), "no step would mend it");
    let group = ObjectRef::new("operators.coreos.com/v1", "OperatorGroup", NAMESPACE, "second");
    world.fake.on("hub").put("somebody", group, json!({"spec": {}}));
    assert!(world.plan().findings.iter().any(|f| f.message.contains("2 OperatorGroups")));
}

#[test]
fn another_fleets_cluster_is_left_alone() {
    let mut world = hub();
    world.converge();
    world.resources.settings.clear();
    world.settings("{}");
    let mut settings = world.resources.settings.remove("default").unwrap();
    settings.metadata.name = "other".into();
    world.resources.settings.insert("other".into(), settings);
    let plan = world.plan();
    assert_eq!(plan.runnable().count(), 0, "{:#?}", steps(&plan));
    assert!(plan.findings.iter().any(|f| f.code == Code::NotOwned), "{:#?}", plan.findings);
}

#[test]
fn drift_is_corrected_or_only_reported() {
    let mut world = hub();
    world.converge();
    let id =
        ObjectRef::new("migration.openshift.io/v1alpha1", "MigrationController", NAMESPACE, "migration-controller");
    let spec = world.fake.on("hub").objects.get_mut(&id).unwrap();
    spec.value["spec"].as_object_mut().unwrap().remove("migration_velero");
    let options = crate::plan::PlanOptions { drift_only: true, ..Default::default() };
    let plan = world.plan_with(&world.look(), options.clone());
    assert_eq!(steps(&plan)[0], "apply MigrationController openshift-migration/migration-controller on hub");
    world.settings("{drift: Report}");
    let plan = world.plan_with(&world.look(), options);
    assert_eq!((steps(&plan), plan.resources[0].sync), (Vec::new(), Sync::OutOfSync));
    assert!(finding(&plan, Code::Drift).message.contains("changed by hand"));
}
