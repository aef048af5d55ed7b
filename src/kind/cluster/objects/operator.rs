//! The operator by OLM, and the MigrationController (migration guide, 3.3; mtc-operator's bundle).

use super::{MTC, NAMESPACE, Object, Owner};
use crate::kind::cluster::{Approval, ClusterSpec, Install, MigrationToolkit, Role};
use crate::model::ObjectRef;
use serde_json::{Map, Value, json};

/// The namespace of MTC.
pub fn namespace(owner: Owner<'_>) -> Object {
    Object::new(ObjectRef::cluster_wide("v1", "Namespace", NAMESPACE), owner, json!({}))
}

/// The OperatorGroup. The operator watches its own namespace only, and a second group in the namespace breaks both: one that
/// is there already is used as it is.
pub fn operator_group(owner: Owner<'_>) -> Object {
    let id = ObjectRef::new("operators.coreos.com/v1", "OperatorGroup", NAMESPACE, "openshift-migration");
    Object::new(id, owner, json!({"spec": {"targetNamespaces": [NAMESPACE]}}))
}

/// The Subscription, which has the package's name, as the console makes it.
pub fn subscription(toolkit: &MigrationToolkit, owner: Owner<'_>) -> Object {
    let id = ObjectRef::new("operators.coreos.com/v1alpha1", "Subscription", NAMESPACE, &toolkit.package);
    let mut spec = Map::new();
    spec.insert("name".into(), toolkit.package.clone().into());
    spec.insert("source".into(), toolkit.source.clone().into());
    spec.insert("sourceNamespace".into(), toolkit.source_namespace.clone().into());
    if let Some(channel) = &toolkit.channel {
        spec.insert("channel".into(), channel.clone().into());
    }
    if let Some(csv) = &toolkit.starting_csv {
        spec.insert("startingCSV".into(), csv.clone().into());
    }
    let approval = match toolkit.approval {
        Approval::Automatic => "Automatic",
        Approval::Manual => "Manual",
    };
    spec.insert("installPlanApproval".into(), approval.into());
    Object::new(id, owner, json!({"spec": spec}))
}

/// The MigrationController, without the variable that is secret. Four variables have no default in the operator, and a
/// missing one stops it: they are always written.
pub fn controller(spec: &ClusterSpec, toolkit: &MigrationToolkit, owner: Owner<'_>) -> Object {
    let is_control = spec.role == Role::Control;
    let mut variables: Map<String, Value> = Map::new();
    variables.insert("migration_velero".into(), true.into());
    if toolkit.install != Install::Manifests {
        variables.insert("migration_controller".into(), is_control.into());
        variables.insert("migration_ui".into(), is_control.into());
    }
    if is_control {
        variables.insert("cluster_name".into(), "host".into());
    }
    variables.extend(toolkit.controller.given());
    let id = ObjectRef::new(MTC, "MigrationController", NAMESPACE, "migration-controller");
    Object::new(id, owner, json!({"spec": variables}))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'_> = Owner { fleet: "prod", resource: "Cluster.ocp4" };

    fn spec(yaml: &str) -> ClusterSpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn controller_of(yaml: &str) -> Value {
        let spec = spec(yaml);
        let toolkit = spec.migration_toolkit.clone().unwrap();
        controller(&spec, &toolkit, OWNER).value["spec"].clone()
    }

    #[test]
    fn what_is_subscribed_to_is_what_the_manifest_says() {
        let toolkit = spec(
            "migrationToolkit: {install: OLM, channel: release-v1.7, startingCSV: mtc-operator.v1.7.4, approval: Manual}",
        )
        .migration_toolkit
        .unwrap();
        assert_eq!(
            subscription(&toolkit, OWNER).value,
            json!({
                "apiVersion": "operators.coreos.com/v1alpha1", "kind": "Subscription",
                "metadata": {
                    "name": "mtc-operator", "namespace": "openshift-migration",
                    "labels": {"drover.dev/fleet": "prod", "drover.dev/owner": "Cluster.ocp4"},
                },
                "spec": {
                    "name": "mtc-operator", "source": "redhat-operators", "sourceNamespace": "openshift-marketplace",
                    "channel": "release-v1.7", "startingCSV": "mtc-operator.v1.7.4", "installPlanApproval": "Manual",
                },
            })
        );
    }

    #[test]
    fn the_role_decides_what_runs() {
        assert_eq!(
            controller_of("{role: Control, migrationToolkit: {install: OLM, controller: {podLimit: 5}}}"),
            json!({
                "cluster_name": "host", "migration_velero": true, "migration_controller": true, "migration_ui": true,
                "mig_pod_limit": "5",
            })
        );
        assert_eq!(
            controller_of("{role: Control, migrationToolkit: {install: OLM, controller: {console: false}}}")["migration_ui"],
            json!(false)
        );
        let remote = json!({"migration_velero": true, "migration_controller": false, "migration_ui": false});
        assert_eq!(controller_of("{migrationToolkit: {install: OLM}}"), remote);
        // The legacy operator has no such roles.
        assert_eq!(controller_of("{migrationToolkit: {install: Manifests}}"), json!({"migration_velero": true}));
    }
}
