//! The operator, by OLM or from its files, and the MigrationController (migration guide, 3.2 to 3.4).

use super::Site;
use super::chain::Chain;
use super::scene::{find, is_available, ours, text};
use super::want::{self, controller_of, subscription_of};
use crate::action::{ClusterAction, Until};
use crate::finding::{Code, Finding};
use crate::kind::cluster::objects::{MTC, NAMESPACE};
use crate::kind::cluster::{Approval, Install, MigrationToolkit, Role};
use crate::model::ObjectRef;
use crate::observed::ClusterState;
use crate::plan::{Block, Drafts, Fact, Health};
use serde_json::Value;

/// OLM unpacks a bundle in a job and pulls images.
const INSTALLED: u64 = 20 * 60_000;
const ESTABLISHED: u64 = 2 * 60_000;
/// A run of the operator's playbook waits for what it makes.
const RECONCILED: u64 = 20 * 60_000;
const PODS: u64 = 10 * 60_000;
/// The controller tests a cluster again every minute.
pub(super) const READY: u64 = 5 * 60_000;

/// The definition of the MigrationController.
const DEFINITION: &str = "migrationcontrollers.migration.openshift.io";

pub(super) fn draft(site: &Site<'_>, blocks: &[Block], out: &mut Drafts) {
    let Some(toolkit) = &site.m.spec.migration_toolkit else { return };
    if toolkit.install == Install::None {
        return;
    }
    let (name, state) = (site.name(), site.state);
    let mut chain = Chain::new(site.m, site.scene);
    for want in want::operator(site.m, toolkit, &site.scene) {
        chain.apply(&want, state, out);
    }
    let controller = want::controller(site.m, toolkit, &site.scene);
    match toolkit.install {
        Install::OLM => by_olm(site, toolkit, &mut chain, out),
        Install::Manifests => {
            let operator = ObjectRef::new("apps/v1", "Deployment", NAMESPACE, "migration-operator");
            let runs = find(state, &operator).is_some_and(is_available);
            chain.wait(name, &operator, Until::Available, PODS, runs, "the operator does what follows");
        }
        Install::None => {}
    }
    let version =
        if state.served.contains("apiextensions.k8s.io/v1/CustomResourceDefinition") { "v1" } else { "v1beta1" };
    let definition =
        ObjectRef::cluster_wide(&format!("apiextensions.k8s.io/{version}"), "CustomResourceDefinition", DEFINITION);
    let until = Until::Condition { name: "Established".into(), fatal: Vec::new() };
    let is_served = state.crds.get(DEFINITION).is_some_and(|c| c.established);
    chain.wait(name, &definition, until, ESTABLISHED, is_served, "the operator brings the kind MigrationController");
    let Some(controller) = controller else { return };
    chain.apply(&controller, state, out);
    // The legacy operator does not write the status.
    if toolkit.install == Install::OLM {
        let until = Until::Condition { name: "Successful".into(), fatal: vec!["Failure".into()] };
        let is_so = controller_of(state).is_some_and(|c| c.is("Successful") && !c.is("Failure"));
        chain.wait(name, &controller.id, until, RECONCILED, is_so, "the operator carries the settings out");
    }
    for workload in want::workloads(site.m, toolkit, state) {
        let runs = find(state, &workload).is_some_and(is_available);
        chain.wait(name, &workload, Until::Available, PODS, runs, "MTC is installed once its pods run");
    }
    if site.m.spec.role == Role::Control {
        let host = ObjectRef::new(MTC, "MigCluster", NAMESPACE, "host");
        let is_ready = find(state, &host).is_some_and(|h| h.is("Ready"));
        let until = Until::Condition { name: "Ready".into(), fatal: Vec::new() };
        chain.wait(name, &host, until, READY, is_ready, "the controller has taken up its work");
    }
    if controller_of(state).is_none() {
        out.report(&site.m.id(), None).health = Health::Missing;
    }
    chain.finish(&[Fact::ToolkitReady { cluster: name.into() }], blocks, out);
}

/// The version that a Subscription has installed, once it has succeeded.
pub(super) fn installed<'a>(state: &'a ClusterState, toolkit: &MigrationToolkit) -> Option<&'a str> {
    let csv = text(&subscription_of(state, toolkit)?.value, "/status/installedCSV")?;
    let object = ours(state, "operators.coreos.com", "ClusterServiceVersion").find(|o| o.id.name == csv)?;
    (text(&object.value, "/status/phase") == Some("Succeeded")).then_some(csv)
}

/// Numbers of a version's name: `mtc-operator.v1.7.4` is 1, 7, 4.
fn numbers(csv: &str) -> Vec<u64> {
    let version = csv.split_once(".v").map_or("", |(_, v)| v);
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|p| p.parse().ok()).collect()
}

fn by_olm(site: &Site<'_>, toolkit: &MigrationToolkit, chain: &mut Chain<'_>, out: &mut Drafts) {
    let (name, state) = (site.name(), site.state);
    let there = subscription_of(state, toolkit);
    let subscription = match there {
        Some(s) => s.id.clone(),
        None => ObjectRef::new("operators.coreos.com/v1alpha1", "Subscription", NAMESPACE, &toolkit.package),
    };
    let installed = installed(state, toolkit);
    if toolkit.approval == Approval::Manual {
        match &toolkit.approve {
            Some(csv) => {
                let is_done = installed.is_some_and(|i| numbers(i) >= numbers(csv)) || is_approved(state, csv);
                if !is_done {
                    let action = ClusterAction::ApproveInstallPlan {
                        cluster: name.into(),
                        id: subscription.clone(),
                        csv: csv.clone(),
                        timeout_millis: INSTALLED,
                    };
                    let why = "`approval` is Manual, and the manifest names this version".to_owned();
                    chain.act(action, format!("approve the InstallPlan of {csv} on {name}"), why);
                }
            }
            None if installed.is_none() => {
                let waiting = waiting(state).unwrap_or_else(|| "the version that it will offer".into());
                let message = format!("an InstallPlan on `{name}` waits for a person to approve {waiting}");
                let hint = "name the version that Drover approves: `approve: mtc-operator.v1.7.4`; or approve it on the cluster";
                chain.hold(Block { code: Code::ApprovalPending, reason: message.clone(), way_out: hint.into() });
                out.finding(
                    Finding::new(Code::ApprovalPending, message).of(site.m, "spec.migrationToolkit.approve").hint(hint),
                );
            }
            None => {}
        }
    }
    let why = "what the operator brings is there once it has succeeded";
    chain.wait(name, &subscription, Until::Installed, INSTALLED, installed.is_some(), why);
}

/// Whether OLM has been told that it may install a version.
fn is_approved(state: &ClusterState, csv: &str) -> bool {
    ours(state, "operators.coreos.com", "InstallPlan")
        .any(|p| p.value["spec"]["approved"] == true && versions(&p.value).any(|v| v == csv))
}

fn versions(plan: &Value) -> impl Iterator<Item = &str> {
    plan.pointer("/spec/clusterServiceVersionNames")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// The versions of an InstallPlan that nobody has approved.
pub(super) fn waiting(state: &ClusterState) -> Option<String> {
    let plan = ours(state, "operators.coreos.com", "InstallPlan").find(|p| p.value["spec"]["approved"] == false)?;
    Some(versions(&plan.value).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("mtc-operator.v1.7.10") > numbers("mtc-operator.v1.7.9"));
        assert_eq!(numbers("mtc-operator.v1.8.4-1"), [1, 8, 4, 1]);
        assert_eq!(numbers("nothing"), [0u64; 0]);
    }
}
