//! From a cluster with MTC to a manifest that says the same: nothing differs afterwards, and nothing of it is marked as
//! Drover's until something is changed.

use super::controller::{ControllerSpec, RESERVED, VARIABLES};
use super::objects::{MTC, NAMESPACE};
use super::{Approval, ClusterSpec, Install, MigrationToolkit, Registration, Role};
use crate::finding::{Code, Finding};
use crate::kind::Resources;
use crate::model::{Manifest, ObjectRef};
use crate::observed::{ClusterState, ObjectState, Observed};
use serde_json::{Map, Value, json};

/// Packages of MTC: the vendor's, and upstream's.
const PACKAGES: &[&str] = &["mtc-operator", "crane-operator"];

/// What a manifest was made of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The whole spec: how it is reached, as it was said, and what is there.
    pub spec: ClusterSpec,
    /// What no field can say, and what is left out.
    pub findings: Vec<Finding>,
}

/// Makes the manifest of a cluster that was read. `manifest` says how it is reached; what it says of MTC is replaced.
/// `declared`: the other manifests, for the control cluster that knows it. None where it was not read.
pub fn import(manifest: &Manifest<ClusterSpec>, observed: &Observed, declared: &Resources) -> Option<Imported> {
    let state = observed.cluster(manifest.name())?;
    let mut import = Import { manifest, findings: Vec::new() };
    let mut spec = ClusterSpec { migration_toolkit: None, role: Role::Remote, ..manifest.spec.clone() };
    let Some(controller) = of_mtc(state, "migration.openshift.io", "MigrationController").next() else {
        import.say(
            "there is no MigrationController in `openshift-migration`",
            "the manifest says nothing of MTC; add `migrationToolkit` to have it installed",
        );
        return Some(Imported { spec, findings: import.findings });
    };
    let variables = controller.value["spec"].as_object().cloned().unwrap_or_default();
    if is_on(variables.get("migration_controller")) {
        spec.role = Role::Control;
    }
    let mut toolkit = import.operator(state);
    if toolkit.install != Install::None {
        match import.controller(&variables, spec.role) {
            Some(controller) => toolkit.controller = controller,
            None => toolkit = MigrationToolkit::default(),
        }
    }
    if spec.role == Role::Remote {
        let control = declared.clusters.values().find(|c| c.spec.role == Role::Control && c.name() != manifest.name());
        if let Some(there) = control.and_then(|c| observed.cluster(c.name())) {
            toolkit.registration = import.registration(state, there);
        }
    }
    spec.migration_toolkit = Some(toolkit);
    Some(Imported { spec, findings: import.findings })
}

fn of_mtc<'a>(state: &'a ClusterState, group: &'a str, kind: &'a str) -> impl Iterator<Item = &'a ObjectState> {
    state.of_kind(group, kind).filter(|o| o.id.namespace.as_deref() == Some(NAMESPACE))
}

fn is_on(value: Option<&Value>) -> bool {
    value.is_some_and(|v| *v == true || v.as_str().is_some_and(|s| s.eq_ignore_ascii_case("true")))
}

struct Import<'a> {
    manifest: &'a Manifest<ClusterSpec>,
    findings: Vec<Finding>,
}

impl Import<'_> {
    fn say(&mut self, what: impl std::fmt::Display, hint: impl Into<String>) {
        let finding = Finding::new(Code::Imported, format!("`{}`: {what}", self.manifest.name()));
        self.findings.push(finding.on(self.manifest.id()).hint(hint));
    }

    /// How the operator came.
    fn operator(&mut self, state: &ClusterState) -> MigrationToolkit {
        let mut toolkit = MigrationToolkit::default();
        let package = |s: &&ObjectState| s.value["spec"]["name"].as_str().is_some_and(|n| PACKAGES.contains(&n));
        let Some(subscription) = of_mtc(state, "operators.coreos.com", "Subscription").find(package) else {
            self.say(
                "the operator was not installed by a Subscription",
                "the manifest takes it as it is (`install: None`). With the legacy operator's files in the repository, `install: Manifests` manages it",
            );
            return toolkit;
        };
        let text = |field: &str| subscription.value["spec"][field].as_str().map(str::to_owned);
        toolkit.install = Install::OLM;
        toolkit.package = text("name").unwrap_or(toolkit.package);
        toolkit.source = text("source").unwrap_or(toolkit.source);
        toolkit.source_namespace = text("sourceNamespace").unwrap_or(toolkit.source_namespace);
        toolkit.channel = text("channel");
        toolkit.starting_csv = text("startingCSV");
        if text("installPlanApproval").as_deref() == Some("Manual") {
            toolkit.approval = Approval::Manual;
            toolkit.approve = subscription.value["status"]["installedCSV"].as_str().map(str::to_owned);
        }
        if toolkit.channel.is_none() {
            self.say("its Subscription names no channel", "add `channel`: OLM has chosen the package's default one");
        }
        toolkit
    }

    /// The variables as fields; none where a variable that Drover sets by itself has another value.
    fn controller(&mut self, variables: &Map<String, Value>, role: Role) -> Option<ControllerSpec> {
        let is_control = role == Role::Control;
        let set = [
            ("migration_velero", json!(true)),
            ("migration_controller", json!(is_control)),
            ("migration_ui", json!(is_control)),
            ("cluster_name", json!("host")),
        ];
        let mut fields = Map::new();
        let mut others = Map::new();
        for (name, value) in variables {
            if let Some((_, ours)) = set.iter().find(|(n, _)| n == name) {
                let is_needed = name != "cluster_name" || is_control;
                match (ours == value, name.as_str()) {
                    (true, _) => {}
                    (false, "migration_ui") if is_control && *value == false => {
                        fields.insert("console".into(), false.into());
                    }
                    (false, _) if !is_needed => {}
                    (false, _) => {
                        self.say(
                            format!("its MigrationController has `{name}: {value}`, where Drover sets {ours}"),
                            "the manifest takes it as it is (`install: None`); change the variable on the cluster, and import it again",
                        );
                        return None;
                    }
                }
                continue;
            }
            if name == "version" {
                continue;
            }
            let is_secret = name == "stunnel_tcp_proxy" || value.as_str().is_some_and(|v| v.contains("<secret>"));
            if is_secret {
                let field = VARIABLES.iter().find(|v| v.name == name).map_or("stunnelTcpProxy", |v| v.field);
                self.say(
                    format!("`{name}` has a password in it and is left out"),
                    format!("it stays on the cluster as it is; to manage it, name where its value stands: `{field}: {{secretRef: …}}`"),
                );
            } else if RESERVED.iter().any(|(reserved, _)| reserved == name) {
                self.say(format!("`{name}` is left out"), "it stays on the cluster as it is");
            } else if let Some(variable) = VARIABLES.iter().find(|v| v.name == name) {
                match field(variable.field, name, value) {
                    Some(as_field) => drop(fields.insert(variable.field.into(), as_field)),
                    None => self.say(
                        format!("`{name}: {value}` does not fit the field `{}` and is left out", variable.field),
                        "it stays on the cluster as it is; state it by hand where it matters",
                    ),
                }
            } else {
                others.insert(name.clone(), value.clone());
            }
        }
        if !others.is_empty() {
            fields.insert("variables".into(), others.into());
        }
        serde_json::from_value(fields.into()).ok()
    }

    /// How the control cluster knows it.
    fn registration(&mut self, state: &ClusterState, there: &ClusterState) -> Registration {
        let id = ObjectRef::new(MTC, "MigCluster", NAMESPACE, self.manifest.name());
        let Some(known) = there.object(&id).map(|o| &o.value["spec"]) else {
            self.say(
                "the control cluster has no MigCluster of this name",
                "the next plan registers it; where it is known by another name, give the manifest that name",
            );
            return Registration::default();
        };
        let text = |field: &str| known[field].as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        Registration {
            url: text("url").filter(|url| *url != state.server),
            ca: None,
            insecure: known["insecure"] == true,
            exposed_registry: text("exposedRegistryPath"),
            azure_resource_group: text("azureResourceGroup"),
            restart_restic: known["restartRestic"].as_bool(),
            secret_namespace: None,
        }
    }
}

/// A variable's value as its field has it: the one of several forms that becomes the same value again.
fn field(field: &str, name: &str, value: &Value) -> Option<Value> {
    let mut forms = vec![value.clone()];
    if let Some(text) = value.as_str() {
        let parts = || text.split(',').map(str::trim);
        forms.extend(text.parse::<u32>().ok().map(Value::from));
        forms.push(parts().filter_map(|p| p.parse::<u32>().ok()).collect::<Vec<_>>().into());
        forms.push(parts().map(str::to_owned).collect::<Vec<_>>().into());
    }
    forms.into_iter().find(|form| {
        let mut fields = Map::new();
        fields.insert(field.to_owned(), form.clone());
        serde_json::from_value::<ControllerSpec>(fields.into()).is_ok_and(|spec| spec.given().get(name) == Some(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_fields_that_become_the_same_values() {
        for (name, in_field, value) in [
            ("src_supplemental_groups", "sourceSupplementalGroups", json!("1000,2000")),
            ("no_proxy", "noProxy", json!(".a.com,10.0.0.0/8")),
            ("mig_pod_limit", "podLimit", json!("5")),
            ("rsync_opt_bwlimit", "rsyncBandwidthLimit", json!(100)),
            ("rsync_opt_delete", "rsyncDelete", json!(false)),
            ("restic_supplemental_groups", "resticSupplementalGroups", json!([5])),
        ] {
            let form = field(in_field, name, &value).unwrap_or_else(|| panic!("{name}"));
            let spec: ControllerSpec = serde_json::from_value(json!({in_field: form})).unwrap();
            assert_eq!(spec.given()[name], value);
        }
        // A blank makes it another text.
        assert_eq!(field("sourceSupplementalGroups", "src_supplemental_groups", &json!("1000, 2000")), None);
        assert_eq!(field("rsyncDelete", "rsync_opt_delete", &json!("no")), None);
    }
}
