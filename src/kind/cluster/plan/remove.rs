//! Taking MTC away (migration guide, 3.6; what the guide leaves out is from the operators' sources): plans are closed and
//! MTC's objects go while its controller runs, Velero's while Velero runs, then the MigrationController, the operator, the
//! definitions, roles and bindings, and at last the namespace. Remote clusters come before their control cluster. Each thing
//! is a step of its own, so that the plan is the list of what is lost.

use super::Site;
use super::chain::{Chain, GONE};
use super::register;
use super::scene::{find, ours, text};
use super::want::{controller_of, is_ours, owner, owner_of};
use crate::action::Until;
use crate::finding::{Code, Finding, Severity};
use crate::kind::cluster::objects::NAMESPACE;
use crate::kind::cluster::{ClusterSpec, Install, MigrationToolkit, Role};
use crate::model::{Manifest, ObjectRef};
use crate::observed::{ClusterState, ObjectState};
use crate::plan::{Block, Change, Context, Drafts, Effect, Fact, Operation};
use serde_json::{Value, json};

/// The annotation of a manifest by which what somebody else made is taken over, here to be removed.
const ADOPT: &str = "drover/adopt";

/// Kinds of MTC's that go while the controller runs, in this order.
const OBJECTS: &[&str] = &[
    "MigMigration",
    "DirectVolumeMigrationProgress",
    "DirectVolumeMigration",
    "DirectImageStreamMigration",
    "DirectImageMigration",
    "MigPlan",
    "MigAnalytic",
    "MigHook",
    "MigStorage",
    "MigCluster",
];

/// Kinds of Velero's that go while Velero runs: some have finalizers that only it takes off.
const VELERO: &[&str] = &[
    "DownloadRequest",
    "ServerStatusRequest",
    "Schedule",
    "Restore",
    "Backup",
    "DeleteBackupRequest",
    "PodVolumeRestore",
    "PodVolumeBackup",
    "BackupRepository",
    "ResticRepository",
    "VolumeSnapshotLocation",
    "BackupStorageLocation",
];

/// What MTC has on every cluster while it runs.
const WORKLOADS: &[(&str, &str)] = &[
    ("Deployment", "migration-controller"),
    ("Deployment", "migration-ui"),
    ("Deployment", "migration-log-reader"),
    ("Deployment", "velero"),
    ("DaemonSet", "restic"),
    ("DaemonSet", "node-agent"),
];

/// Packages that MTC's brings along.
const OADP: &[&str] = &["redhat-oadp-operator", "oadp-operator"];

/// Packages of MTC's: the vendor's and upstream's.
const PACKAGES: &[&str] = &["mtc-operator", "crane-operator"];

const CLOSED: u64 = 10 * 60_000;

fn leaves(toolkit: &MigrationToolkit) -> bool {
    toolkit.install == Install::None && toolkit.prune
}

/// Whether MTC is to go from a cluster. Says so where Drover made it, nothing is said of it any more, and it stays.
pub(super) fn is_leaving(site: &Site<'_>, ctx: &Context<'_>, out: &mut Drafts) -> bool {
    match &site.m.spec.migration_toolkit {
        Some(toolkit) => leaves(toolkit),
        None if !is_made_by_us(site) => false,
        None if ctx.settings.prune => true,
        None => {
            out.finding(
                Finding::new(
                    Code::Unmanaged,
                    format!("Drover has installed MTC on `{}`, and its manifest says nothing of it any more", site.name()),
                )
                .of(site.m, "spec")
                .hint("it stays as it is. `migrationToolkit: {install: None, prune: true}`, or `prune` in Settings, uninstalls it; `install: None` alone takes it as it is"),
            );
            false
        }
    }
}

/// Whether what is there bears this manifest's marks.
fn is_made_by_us(site: &Site<'_>) -> bool {
    let mine = |value: &Value| is_ours(value, site.fleet(), site.name());
    let namespace = site.state.namespaces.get(NAMESPACE).map(|n| json!({"metadata": {"labels": n.labels}}));
    namespace.is_some_and(|n| mine(&n))
        || controller_of(site.state).is_some_and(|c| mine(&c.value))
        || ours(site.state, "operators.coreos.com", "Subscription").any(|s| mine(&s.value))
}

/// Plans on a control cluster that cannot be closed now: a migration runs. With `of`, only those of one remote cluster,
/// which also must not be in use by a plan that is open.
pub(super) fn plans_in_the_way(state: &ClusterState, control: &str, of: Option<&str>) -> Vec<Block> {
    let refers = |plan: &ObjectState| {
        of.is_none_or(|name| {
            ["srcMigClusterRef", "destMigClusterRef"].iter().any(|r| plan.value["spec"][*r]["name"] == name)
        })
    };
    let plans: Vec<&ObjectState> = ours(state, "migration.openshift.io", "MigPlan").filter(|p| refers(p)).collect();
    let is_of = |m: &&ObjectState| {
        of.is_none() || plans.iter().any(|p| m.value["spec"]["migPlanRef"]["name"] == p.id.name.as_str())
    };
    let running: Vec<&str> = ours(state, "migration.openshift.io", "MigMigration")
        .filter(|m| !is_finished(m))
        .filter(is_of)
        .map(|m| m.id.name.as_str())
        .collect();
    let mut blocks = Vec::new();
    if !running.is_empty() {
        blocks.push(Block {
            code: Code::StillInUse,
            reason: format!("migrations run on `{control}`: {}", running.join(", ")),
            way_out: "let them end, or cancel them (`spec.canceled: true`)".into(),
        });
    }
    let open: Vec<&str> =
        plans.iter().filter(|p| p.value["spec"]["closed"] != true).map(|p| p.id.name.as_str()).collect();
    if let Some(name) = of
        && !open.is_empty()
    {
        blocks.push(Block {
            code: Code::StillInUse,
            reason: format!("plans on `{control}` have `{name}` as source or destination: {}", open.join(", ")),
            way_out: "close them first (`spec.closed: true`), so that the controller takes its helpers away while it reaches the cluster".into(),
        });
    }
    blocks
}

/// Whether a migration has ended. A canceled one also has `Succeeded`; any of them will do here.
fn is_finished(migration: &ObjectState) -> bool {
    text(&migration.value, "/status/phase") == Some("Completed")
        || ["Canceled", "Failed", "Succeeded", "SucceededWithWarnings"].iter().any(|c| migration.is(c))
}

pub(super) fn draft(site: &Site<'_>, blocks: &[Block], out: &mut Drafts) {
    let (name, state) = (site.name(), site.state);
    let mut blocks = blocks.to_vec();
    if let Some(block) = not_ours(site) {
        blocks.push(block);
    }
    if site.m.spec.role == Role::Control {
        blocks.extend(plans_in_the_way(state, name, None));
    }
    blocks.extend(register::withdraw(site, &blocks, out));
    let mut chain = Chain::new(site.m, site.scene);
    chain.need(Fact::Unregistered { cluster: name.into() });
    objects(site, &mut chain, out);
    velero(site, &mut chain, out);
    if site.m.spec.role == Role::Control {
        // What the controller has on other clusters it takes away with its objects, so those clusters wait for that.
        for m in site.scene.resources.clusters.values().filter(|m| m.spec.role == Role::Remote) {
            chain.offer(Fact::Unregistered { cluster: m.name().into() });
            if site.scene.observed.cluster(m.name()).is_none() && m.spec.migration_toolkit.as_ref().is_some_and(leaves)
            {
                blocks.push(Block {
                    code: Code::ClusterUnknown,
                    reason: format!("`{}` leaves MTC as well and could not be read: the controller of `{name}` is still needed there", m.name()),
                    way_out: format!("bring `{}` back, or take its manifest away", m.name()),
                });
            }
        }
        // Their controllers' helpers and agents are reached from here as long as this one runs.
        let remote = site.scene.resources.clusters.values().filter(|m| m.spec.role == Role::Remote);
        for m in remote.filter(|m| m.spec.migration_toolkit.as_ref().is_none_or(leaves)) {
            chain.need(Fact::ToolkitGone { cluster: m.name().into() });
        }
    }
    controller(site, &mut chain, out);
    operator(site, &mut chain, out);
    definitions(site, &mut chain, &mut blocks, out);
    namespace(site, &mut chain, out);
    if chain.writes() {
        note(site, out);
    }
    chain.finish(&[Fact::ToolkitGone { cluster: name.into() }], &blocks, out);
}

/// The report: what goes.
fn note(site: &Site<'_>, out: &mut Drafts) {
    let id = site.m.id();
    let change = Change {
        path: "spec.migrationToolkit".into(),
        before: json!("installed"),
        after: Value::Null,
        effect: Effect::Live,
        definition: None,
        note: Some("with all objects of MTC and Velero".into()),
    };
    out.change(&id, None, change);
    let report = out.report(&id, None);
    report.operation = report.operation.max(Operation::Delete);
}

/// Holds a removal back of what Drover did not install.
fn not_ours(site: &Site<'_>) -> Option<Block> {
    let adopted = site.m.metadata.annotations.get(ADOPT).is_some_and(|v| v == "true");
    let is_fine = adopted || is_made_by_us(site);
    (!is_fine).then(|| Block {
        code: Code::NotOwned,
        reason: format!("MTC on `{}` was not installed by Drover for this manifest", site.name()),
        way_out: format!("if it is meant to go, say so with the annotation `{ADOPT}: \"true\"` on the Cluster"),
    })
}

/// MTC's own objects, on the control cluster.
fn objects(site: &Site<'_>, chain: &mut Chain<'_>, out: &mut Drafts) {
    let (name, state) = (site.name(), site.state);
    let runs = find(state, &ObjectRef::new("apps/v1", "Deployment", NAMESPACE, "migration-controller")).is_some();
    let open = |p: &&ObjectState| !p.deleting && p.value["spec"]["closed"] != true;
    for plan in ours(state, "migration.openshift.io", "MigPlan").filter(open).filter(|_| runs) {
        let patch = vec![json!({"op": "add", "path": "/spec/closed", "value": true})];
        let why = "the controller takes its helper objects off all clusters when a plan is closed".to_owned();
        chain.patch(name, &plan.id, patch, format!("close {} on {name}", plan.id), why);
        let until = Until::Condition { name: "Closed".into(), fatal: Vec::new() };
        chain.wait(name, &plan.id, until, CLOSED, plan.is("Closed"), "its helpers are gone then");
    }
    for kind in OBJECTS {
        for object in ours(state, "migration.openshift.io", kind) {
            // The operator makes the cluster's own one, and takes it away.
            if *kind == "MigCluster" && object.value["spec"]["isHostCluster"] == true {
                continue;
            }
            chain.delete(name, object, "it goes while the controller runs that looks after it".into(), out);
        }
    }
    let elsewhere = |o: &&ObjectState| o.id.namespace.as_deref() != Some(NAMESPACE);
    let of_fleet =
        |o: &&ObjectState| owner_of(&o.value).is_some_and(|(f, r)| f == site.fleet() && r.starts_with("Cluster."));
    for secret in state.of_kind("", "Secret").filter(elsewhere).filter(of_fleet) {
        chain.delete(name, secret, "Drover made it for a MigCluster".into(), out);
    }
}

fn velero(site: &Site<'_>, chain: &mut Chain<'_>, out: &mut Drafts) {
    for kind in VELERO {
        for object in ours(site.state, "velero.io", kind) {
            chain.delete(site.name(), object, "it goes while Velero runs, which takes its finalizers off".into(), out);
        }
    }
}

/// The MigrationController, and what the operator made for it.
fn controller(site: &Site<'_>, chain: &mut Chain<'_>, out: &mut Drafts) {
    let (name, state) = (site.name(), site.state);
    for controller in ours(state, "migration.openshift.io", "MigrationController") {
        let why = "first of all, so that the operator takes away what it made (migration guide, 3.6)".to_owned();
        chain.delete(name, controller, why, out);
        chain.wait(name, &controller.id, Until::Gone, GONE, false, "the operator takes away what it made");
    }
    for dpa in ours(state, "oadp.openshift.io", "DataProtectionApplication") {
        chain.delete(name, dpa, "Velero goes with it".into(), out);
    }
    for (kind, workload) in WORKLOADS {
        let id = ObjectRef::new("apps/v1", kind, NAMESPACE, workload);
        if find(state, &id).is_some() {
            chain.wait(name, &id, Until::Gone, GONE, false, "nothing of MTC runs any more then");
        }
    }
}

/// The operator: by OLM, or from its files.
fn operator(site: &Site<'_>, chain: &mut Chain<'_>, out: &mut Drafts) {
    let (name, state) = (site.name(), site.state);
    let package = |s: &ObjectState| text(&s.value, "/spec/name").unwrap_or_default().to_owned();
    let is_mtc =
        |s: &&ObjectState| PACKAGES.contains(&package(s).as_str()) || is_ours(&s.value, site.fleet(), site.name());
    // OLM names what it brings along after package, channel and catalogue; one of the package's bare name a person made.
    let is_brought = |s: &&ObjectState| {
        let package = package(s);
        OADP.contains(&package.as_str()) && s.id.name.starts_with(&format!("{package}-"))
    };
    let subscriptions: Vec<&ObjectState> = ours(state, "operators.coreos.com", "Subscription").collect();
    let going: Vec<&ObjectState> =
        subscriptions.iter().copied().filter(is_mtc).chain(subscriptions.iter().copied().filter(is_brought)).collect();
    for subscription in &going {
        chain.delete(name, subscription, "without it OLM installs nothing anew".into(), out);
    }
    let installed: Vec<&str> = going.iter().filter_map(|s| text(&s.value, "/status/installedCSV")).collect();
    let is_leftover = |csv: &str| PACKAGES.iter().any(|p| csv.starts_with(&format!("{p}.v")));
    for csv in ours(state, "operators.coreos.com", "ClusterServiceVersion") {
        if installed.contains(&csv.id.name.as_str()) || is_leftover(&csv.id.name) {
            chain.delete(name, csv, "the operator goes with its version".into(), out);
        }
    }
    for group in ours(state, "operators.coreos.com", "OperatorGroup").filter(|g| is_ours(&g.value, site.fleet(), name))
    {
        chain.delete(name, group, "Drover made it for the operator".into(), out);
    }
    let id = ObjectRef::new("apps/v1", "Deployment", NAMESPACE, "migration-operator");
    if let Some(there) = find(state, &id) {
        // One that OLM made goes with its version.
        if !is_there_by_olm(state) {
            chain.delete(name, there, "it would make anew what goes now".into(), out);
        }
        chain.wait(name, &id, Until::Gone, GONE, false, "it would make anew what goes now");
    }
}

fn is_there_by_olm(state: &ClusterState) -> bool {
    let is_mtc = |o: &ObjectState| PACKAGES.iter().any(|p| o.id.name.starts_with(&format!("{p}.v")));
    ours(state, "operators.coreos.com", "ClusterServiceVersion").any(is_mtc)
}

/// What is in the whole cluster, in the guide's order: definitions, then roles, then bindings; of MTC, of its operator, of
/// Velero.
fn definitions(site: &Site<'_>, chain: &mut Chain<'_>, blocks: &mut Vec<Block>, out: &mut Drafts) {
    let (name, state) = (site.name(), site.state);
    let shared = velero_elsewhere(state);
    if let Some(why) = &shared {
        out.finding(
            Finding::new(Code::StillInUse, format!("Velero is used on `{name}` beside MTC: {why}"))
                .severity(Severity::Warning)
                .of(site.m, "spec.migrationToolkit")
                .hint("its definitions, roles and bindings stay"),
        );
    }
    let version =
        if state.served.contains("apiextensions.k8s.io/v1/CustomResourceDefinition") { "v1" } else { "v1beta1" };
    for (group, goes) in [(".migration.openshift.io", true), (".velero.io", shared.is_none())] {
        for (definition, crd) in state.crds.iter().filter(|(n, _)| goes && n.ends_with(group)) {
            let id = ObjectRef::cluster_wide(
                &format!("apiextensions.k8s.io/{version}"),
                "CustomResourceDefinition",
                definition,
            );
            let why = match crd.instances {
                Some(0) => "there are no objects of it".to_owned(),
                Some(1) => "1 object of it is there now; whatever is left then goes with it".to_owned(),
                Some(n) => format!("{n} objects of it are there now; whatever is left then goes with it"),
                None => "its objects could not be counted".to_owned(),
            };
            if crd.instances.is_none() {
                blocks.push(Block {
                    code: Code::StillInUse,
                    reason: format!("it is not known how many objects of {definition} go with it on `{name}`"),
                    way_out: format!("let Drover list them: `drover rbac cluster {name} | kubectl apply -f -`"),
                });
            }
            chain.delete_uid(name, &id, &crd.uid, why);
        }
    }
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        let mut strangers = Vec::new();
        for part in [Part::Toolkit, Part::Operator, Part::Velero] {
            for object in state.of_kind("rbac.authorization.k8s.io", kind) {
                if part_of(&object.id.name) != Some(part) || (part == Part::Velero && shared.is_some()) {
                    continue;
                }
                chain.delete(name, object, "it is of what goes".into(), out);
            }
        }
        for object in state.of_kind("rbac.authorization.k8s.io", kind) {
            if part_of(&object.id.name).is_none() && object.id.name.contains("velero") {
                strangers.push(object.id.name.as_str());
            }
        }
        if !strangers.is_empty() {
            out.finding(
                Finding::new(
                    Code::Leftover,
                    format!(
                        "{kind}s on `{name}` have `velero` in their names and are none that MTC makes: {}",
                        strangers.join(", ")
                    ),
                )
                .of(site.m, "spec.migrationToolkit")
                .hint("they stay; delete them by hand if nobody needs them (the migration guide deletes all of them)"),
            );
        }
    }
    for (group, kind, object) in [
        ("oauth.openshift.io", "OAuthClient", "migration"),
        ("security.openshift.io", "SecurityContextConstraints", "rsync-anyuid"),
    ] {
        for found in state.of_kind(group, kind).filter(|o| o.id.name == object) {
            chain.delete(name, found, "the operator made it, and leaves it".into(), out);
        }
    }
}

/// Whose a role or binding is, by the names that MTC, its operators and OLM give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Toolkit,
    Operator,
    Velero,
}

fn part_of(name: &str) -> Option<Part> {
    match name {
        "migration-operator" => Some(Part::Operator),
        "migration-controller" => Some(Part::Toolkit),
        "velero" | "migration-velero" => Some(Part::Velero),
        _ if name.contains("migration.openshift.io") => Some(Part::Toolkit),
        // OLM makes roles for each definition: `backups.velero.io-v1-admin`.
        _ if name.contains(".velero.io") => Some(Part::Velero),
        _ if PACKAGES.iter().any(|p| name.starts_with(&format!("{p}.v"))) => Some(Part::Operator),
        _ => None,
    }
}

/// Who else uses Velero on a cluster.
fn velero_elsewhere(state: &ClusterState) -> Option<String> {
    let own = |group, kind| ours(state, group, kind).count() as u64;
    for (definition, group, kind) in [
        ("backupstoragelocations.velero.io", "velero.io", "BackupStorageLocation"),
        ("dataprotectionapplications.oadp.openshift.io", "oadp.openshift.io", "DataProtectionApplication"),
    ] {
        let all = match state.crds.get(definition) {
            Some(crd) => crd.instances.unwrap_or(u64::MAX),
            None => 0,
        };
        let elsewhere: Vec<String> =
            state.of_kind(group, kind).filter_map(|o| o.id.namespace.clone()).filter(|n| n != NAMESPACE).collect();
        let beyond = all.saturating_sub(own(group, kind)).max(elsewhere.len() as u64);
        if beyond > 0 {
            let places = if elsewhere.is_empty() {
                "in other namespaces".to_owned()
            } else {
                format!("in {}", elsewhere.join(", "))
            };
            return Some(format!("{beyond} {kind} {places}"));
        }
    }
    None
}

fn namespace(site: &Site<'_>, chain: &mut Chain<'_>, out: &mut Drafts) {
    let (name, state) = (site.name(), site.state);
    let Some(namespace) = state.namespaces.get(NAMESPACE) else { return };
    let id = ObjectRef::cluster_wide("v1", "Namespace", NAMESPACE);
    match &namespace.terminating {
        Some(since) => {
            let what = if namespace.remaining.is_empty() {
                "nothing is said of what is left in it".into()
            } else {
                namespace.remaining.join("; ")
            };
            out.finding(
                Finding::new(Code::Deleting, format!("the namespace `{NAMESPACE}` on `{name}` is being deleted since {since}: {what}"))
                    .of(site.m, "spec.migrationToolkit")
                    .hint("what is left in it has finalizers, which a controller that still runs takes off; Drover never takes one off itself"),
            );
        }
        None => chain.delete_uid(name, &id, &namespace.uid, "last of all, with whatever is left in it".into()),
    }
    chain.wait(name, &id, Until::Gone, GONE, false, "MTC is gone once its namespace is");
}

/// The MigCluster and Secrets of remote clusters that have no manifest any more: their owner's name, and the objects, by
/// control cluster.
pub(super) fn orphans<'a>(
    control: &'a Manifest<ClusterSpec>,
    state: &'a ClusterState,
    fleet: &'a str,
    is_declared: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = (&'a str, &'a ObjectState)> {
    let of_fleet = move |o: &'a ObjectState| {
        let (f, resource) = owner_of(&o.value)?;
        let name = resource.strip_prefix("Cluster.").filter(|_| f == fleet)?;
        Some((name, o))
    };
    let kinds = [("migration.openshift.io", "MigCluster"), ("", "Secret")];
    kinds
        .into_iter()
        .flat_map(move |(group, kind)| state.of_kind(group, kind))
        .filter_map(of_fleet)
        .filter(move |(name, _)| *name != control.name() && !is_declared(name))
}

/// Whether a name as it stands in a label is that of a declared cluster.
pub(super) fn is_name_of(label: &str, declared: &str) -> bool {
    owner(declared).strip_prefix("Cluster.") == Some(label)
}
