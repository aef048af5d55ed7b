//! How MTC does on a cluster, and what is to be done about it, from conditions that others wrote.

use super::Site;
use super::install::installed;
use super::scene::{find, is_available, ours, said, shorten, text};
use super::want::{self, control_of, controller_of, groups};
use crate::finding::{Code, Finding, Severity};
use crate::kind::cluster::objects::{MTC, NAMESPACE};
use crate::kind::cluster::{ClusterSpec, Install, MigrationToolkit, Role};
use crate::model::{Manifest, ObjectRef};
use crate::observed::{ClusterState, ObjectState};
use crate::plan::{Drafts, Health};
use serde_json::Value;

/// Conditions of a Subscription that say why nothing comes of it.
const SUBSCRIPTION: &[&str] =
    &["CatalogSourcesUnhealthy", "ResolutionFailed", "BundleUnpackFailed", "InstallPlanFailed"];

/// What the controller writes where a proxy does not let its commands through (migration guide, 3.4.1.3).
const UPGRADE: &str = "upgrade request required";

/// Says how a cluster does.
pub(super) fn tell(site: &Site<'_>, out: &mut Drafts) {
    let Some(toolkit) = &site.m.spec.migration_toolkit else { return };
    if toolkit.install == Install::None && toolkit.prune {
        return;
    }
    let mut worst = Health::Healthy;
    if controller_of(site.state).is_none() {
        let is_wanted = toolkit.install != Install::None;
        worst = if is_wanted { Health::Missing } else { Health::Healthy };
    }
    let mut say = Say { site, out, worst };
    if toolkit.install == Install::OLM {
        say.operator(toolkit);
    }
    say.controller();
    if toolkit.install != Install::None {
        say.pods(toolkit);
    }
    say.registered();
    say.versions();
    say.spdy();
    let worst = say.worst;
    let report = out.report(&site.m.id(), None);
    if report.health == Health::Healthy {
        report.health = worst;
    }
}

struct Say<'s, 'o> {
    site: &'s Site<'s>,
    out: &'o mut Drafts,
    worst: Health,
}

impl Say<'_, '_> {
    fn add(&mut self, health: Health, finding: Finding, path: &str, hint: impl Into<String>) {
        self.out.finding(finding.of(self.site.m, path).hint(hint));
        self.is(health);
    }

    /// Notes a state of health: the worst counts.
    fn is(&mut self, health: Health) {
        let rank = |h: Health| match h {
            Health::Degraded => 3,
            Health::Missing => 2,
            Health::Progressing => 1,
            _ => 0,
        };
        if rank(health) > rank(self.worst) {
            self.worst = health;
        }
    }

    fn operator(&mut self, toolkit: &MigrationToolkit) {
        let (name, state) = (self.site.name(), self.site.state);
        let path = "spec.migrationToolkit";
        let here = groups(state);
        if here.len() > 1 {
            let names: Vec<&str> = here.iter().map(|g| g.id.name.as_str()).collect();
            let what = format!("`{NAMESPACE}` on `{name}` has {} OperatorGroups: {}", here.len(), names.join(", "));
            self.add(
                Health::Degraded,
                Finding::new(Code::OperatorTrouble, what),
                path,
                "delete all but one: OLM installs nothing in a namespace with two",
            );
        }
        for subscription in ours(state, "operators.coreos.com", "Subscription") {
            for kind in SUBSCRIPTION {
                let Some(condition) = subscription.condition(kind).filter(|c| c["status"] == "True") else { continue };
                let what = format!("Subscription {} on `{name}`: {kind}: {}", subscription.id.name, said(condition));
                self.add(Health::Degraded, Finding::new(Code::OperatorTrouble, what), path, hint_of(kind));
            }
        }
        for csv in ours(state, "operators.coreos.com", "ClusterServiceVersion") {
            if text(&csv.value, "/status/phase") == Some("Failed") {
                let what = format!("{} on `{name}` has failed: {}", csv.id.name, said(&csv.value["status"]));
                let hint = match text(&csv.value, "/status/reason") {
                    Some("TooManyOperatorGroups") => "delete all OperatorGroups of the namespace but one",
                    _ => "see its events and the pods of its Deployment; OLM tries again by itself where it can",
                };
                self.add(Health::Degraded, Finding::new(Code::OperatorTrouble, what), path, hint);
            }
        }
        if controller_of(state).is_some() && installed(state, toolkit).is_none() {
            self.is(Health::Progressing);
        }
    }

    fn controller(&mut self) {
        let (name, state) = (self.site.name(), self.site.state);
        let Some(controller) = controller_of(state) else { return };
        if let Some(failure) = controller.condition("Failure").filter(|c| c["status"] == "True") {
            let message = said(failure);
            let what = format!("the operator on `{name}` cannot carry the MigrationController out: {message}");
            let hint = if message.contains("oadp_version") {
                "the operator does not find OADP, which OLM brings along: see its Subscription in the namespace"
            } else {
                "the message is of the operator's playbook; it tries again by itself"
            };
            let finding = Finding::new(Code::ToolkitTrouble, what).severity(Severity::Error);
            self.add(Health::Degraded, finding, "spec.migrationToolkit.controller", hint);
        }
        for dpa in ours(state, "oadp.openshift.io", "DataProtectionApplication") {
            if let Some(condition) = dpa.condition("Reconciled").filter(|c| c["status"] == "False") {
                let what = format!("OADP on `{name}` cannot set Velero up: {}", said(condition));
                let finding = Finding::new(Code::ToolkitTrouble, what).severity(Severity::Error);
                self.add(
                    Health::Degraded,
                    finding,
                    "spec.migrationToolkit",
                    "see the DataProtectionApplication and OADP's pods",
                );
            }
        }
    }

    /// Workloads that do not have their pods, and why.
    fn pods(&mut self, toolkit: &MigrationToolkit) {
        let (name, state) = (self.site.name(), self.site.state);
        if controller_of(state).is_none() {
            return;
        }
        let mut missing = Vec::new();
        for id in want::workloads(self.site.m, toolkit, state) {
            match find(state, &id) {
                Some(object) if is_available(object) => {}
                Some(_) | None => missing.push(id.name),
            }
        }
        if missing.is_empty() {
            return;
        }
        self.is(Health::Progressing);
        let reasons: Vec<String> = ours(state, "", "Pod").filter_map(waiting).collect();
        if !reasons.is_empty() {
            let what = format!("pods of MTC on `{name}` do not run ({}): {}", missing.join(", "), reasons.join("; "));
            let hint = if reasons.iter().any(|r| r.contains("ImagePull")) {
                "the nodes have to be able to pull from the image's registry (migration guide, 3.2): add it to the cluster's pull secret, or mirror it"
            } else {
                "see the pods' events"
            };
            self.add(Health::Degraded, Finding::new(Code::ToolkitTrouble, what), "spec.migrationToolkit", hint);
        }
    }

    /// What the control cluster says of this one.
    fn registered(&mut self) {
        let site = self.site;
        let control = match site.m.spec.role {
            Role::Control => Some(site.m),
            Role::Remote => control_of(site.m, &site.scene),
        };
        let Some((control, state)) = control.and_then(|c| Some((c, site.scene.observed.cluster(c.name())?))) else {
            return;
        };
        let own = if site.m.spec.role == Role::Control { "host" } else { site.name() };
        let id = ObjectRef::new(MTC, "MigCluster", NAMESPACE, own);
        let Some(object) = find(state, &id) else { return };
        let blocking = |c: &&Value| c["status"] == "True" && (c["category"] == "Critical" || c["category"] == "Error");
        let conditions = object.value.pointer("/status/conditions").and_then(Value::as_array);
        let mut is_blocked = false;
        for condition in conditions.into_iter().flatten().filter(blocking) {
            is_blocked = true;
            let kind = condition["type"].as_str().unwrap_or_default();
            let what = format!("`{}` does not accept `{}`: {kind}: {}", control.name(), site.name(), said(condition));
            let (code, hint) = advice(kind, condition, site.m, control, object);
            self.add(Health::Degraded, Finding::new(code, what), "spec.migrationToolkit.registration", hint);
        }
        if !is_blocked && !object.is("Ready") {
            self.is(Health::Progressing);
        }
    }

    /// The version of the operator here, and on the control cluster.
    fn versions(&mut self) {
        let site = self.site;
        let Some(control) = control_of(site.m, &site.scene) else { return };
        let here = operator_version(site.state);
        let there = site.scene.observed.cluster(control.name()).and_then(operator_version);
        let (Some(here), Some(there)) = (here, there) else { return };
        let minor = |v: &str| v.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
        if here == there {
            return;
        }
        let is_other = minor(here) != minor(there);
        let what =
            format!("`{}` has MTC {here}, and its control cluster `{}` has {there}", site.name(), control.name());
        let (severity, hint) = match is_other {
            true => (
                Severity::Error,
                "use one channel on all clusters that migrate with each other; with a legacy cluster, `release-v1.7`",
            ),
            false => (
                Severity::Warning,
                "the controller warns of it, and migrations run; bring both to one version where there is one for both platforms",
            ),
        };
        let health = if is_other { Health::Degraded } else { Health::Healthy };
        self.add(health, Finding::new(Code::VersionsDiffer, what).severity(severity), "spec.migrationToolkit", hint);
    }

    /// A proxy that lets no commands through, wherever the controller wrote of it.
    fn spdy(&mut self) {
        let site = self.site;
        if site.m.spec.role != Role::Control {
            return;
        }
        let about = |object: &ObjectState| {
            let conditions = object.value.pointer("/status/conditions").and_then(Value::as_array)?;
            let errors = object.value.pointer("/status/errors").and_then(Value::as_array);
            let texts = conditions
                .iter()
                .filter_map(|c| c["message"].as_str())
                .chain(errors.into_iter().flatten().filter_map(Value::as_str));
            let mut hit = texts.filter(|t| t.to_lowercase().contains(UPGRADE));
            hit.next().map(|t| (object.id.clone(), shorten(t)))
        };
        let mtc = site.state.objects.iter().filter(|o| o.id.group() == "migration.openshift.io");
        if let Some((id, message)) = mtc.filter_map(about).next() {
            let what = format!("{id} on `{}`: {message}", site.name());
            let hint = "the controller runs commands in pods of the other cluster over SPDY: the proxy or firewall between them has to support SPDY, and to pass the `Upgrade` header to the API server (migration guide, 3.4.1.3)";
            self.add(
                Health::Degraded,
                Finding::new(Code::UpgradeBlocked, what),
                "spec.migrationToolkit.controller",
                hint,
            );
        }
    }
}

/// The version that the operator says it is of.
fn operator_version(state: &ClusterState) -> Option<&str> {
    let map = ObjectRef::new("v1", "ConfigMap", NAMESPACE, "migration-cluster-config");
    text(&find(state, &map)?.value, "/data/OPERATOR_VERSION")
}

fn hint_of(condition: &str) -> &'static str {
    match condition {
        "CatalogSourcesUnhealthy" => {
            "see the CatalogSource that `source` and `sourceNamespace` name: whether it is there, and its pod runs"
        }
        "ResolutionFailed" => {
            "see that the catalogue has the package and the `channel`, and that no other version of OADP is asked for"
        }
        "BundleUnpackFailed" => {
            "the nodes have to be able to pull the bundle's image; OLM tries again after the failed job is deleted"
        }
        _ => "see the InstallPlan that the Subscription names",
    }
}

/// Why a pod's container waits, where that is a fault.
fn waiting(pod: &ObjectState) -> Option<String> {
    let statuses = pod.value.pointer("/status/containerStatuses")?.as_array()?;
    let fault = statuses
        .iter()
        .filter_map(|s| s.pointer("/state/waiting/reason")?.as_str())
        .find(|r| r.contains("BackOff") || r.contains("Err"))?;
    Some(format!("{} is in {fault}", pod.id.name))
}

/// What to do about a condition of a MigCluster.
fn advice(
    kind: &str,
    condition: &Value,
    m: &Manifest<ClusterSpec>,
    control: &Manifest<ClusterSpec>,
    object: &ObjectState,
) -> (Code, String) {
    let message = condition["message"].as_str().unwrap_or_default();
    match kind {
        "TestConnectFailed" if message.contains("x509") => (
            Code::NotRegistered,
            "the certificate of the API server is not known there: name its CA in `registration.ca`, or say `insecure: true`".into(),
        ),
        "TestConnectFailed" => (Code::NoWayToCluster, tunnel(m, control, object)),
        "SaTokenNotPrivileged" => (
            Code::NotRegistered,
            "the token has ended, or its service account has lost its rights: see the ClusterRoleBinding of `migration-controller` on the cluster".into(),
        ),
        "InvalidSaSecretRef" | "InvalidSaToken" => {
            (Code::NotRegistered, "Drover writes the Secret where it is registered by it; see who changed it".into())
        }
        "InvalidRegistryRoute" => (
            Code::NotRegistered,
            "`registration.exposedRegistry` has to be a host, with a port where it is not 443, that the control cluster reaches".into(),
        ),
        "InvalidURL" => (Code::NotRegistered, "write `registration.url` like `https://api.ocp3.example.com:6443`".into()),
        _ => (Code::NotRegistered, "the controller looks again every minute".into()),
    }
}

/// How a cluster is reached that the control cluster has no way to (migration guide, 3.1).
fn tunnel(m: &Manifest<ClusterSpec>, control: &Manifest<ClusterSpec>, object: &ObjectState) -> String {
    let context = |m: &Manifest<ClusterSpec>| {
        let given = m.spec.kubeconfig.as_ref().and_then(|k| k.context.clone());
        given.unwrap_or_else(|| m.name().to_owned())
    };
    let url = text(&object.value, "/spec/url").unwrap_or("its address");
    let toolkit = control.spec.migration_toolkit.as_ref();
    let proxy = toolkit.and_then(|t| t.controller.https_proxy.as_ref().or(t.controller.http_proxy.as_ref()));
    let through = proxy.and_then(|p| {
        let rest = p.split_once("://").map_or(p.as_str(), |(_, rest)| rest);
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
        Some(format!(" --proxy-host {host} --proxy-port {port}"))
    });
    format!(
        "the controller on `{}` has to reach {url}. If a proxy is the way, set `httpsProxy` in the `controller` of `{}`, and see that `noProxy` does \
         not except it. If there is no way, open a tunnel from `{}`: `crane tunnel-api --namespace openvpn-{} --source-context {} --destination-context {}{}`, \
         and set its `registration: {{url: \"https://proxied-cluster.openvpn-{}.svc.cluster.local:8443\"}}`, \
         with the CA of its API server, or `insecure: true`, where its certificate does not carry that name",
        control.name(),
        control.name(),
        m.name(),
        m.name(),
        context(m),
        context(control),
        through.unwrap_or_default(),
        m.name(),
    )
}
