//! What manifests want of clusters, as objects: the one list that questions and steps are both made from, so that what was
//! asked is what is done.

use super::scene::{Scene, find, is_there};
use crate::action::ClusterAction;
use crate::kind::cluster::objects::{self, FLEET_LABEL, NAMESPACE, OWNER_LABEL, Object, Owner};
use crate::kind::cluster::{Approval, ClusterSpec, Document, Exemption, Install, MigrationToolkit, Role, documents};
use crate::model::{Manifest, ObjectRef, SecretSource};
use crate::observed::{ClusterQuestion, ClusterState, ObjectState};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// An object that is wanted on a cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Want {
    /// The cluster.
    pub cluster: String,
    /// Which object.
    pub id: ObjectRef,
    /// The fields that are set.
    pub value: Value,
    /// Secret values, by pointer.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Made where it is not there, and left as it is otherwise.
    pub create_only: bool,
    /// Fields of other managers are taken over.
    pub force: bool,
}

impl Want {
    fn new(cluster: &str, object: Object, force: bool) -> Self {
        let Object { id, value } = object;
        Self { cluster: cluster.into(), id, value, secrets: BTreeMap::new(), create_only: false, force }
    }

    fn with(mut self, pointer: &str, secret: SecretSource) -> Self {
        self.secrets.insert(pointer.into(), secret);
        self
    }

    /// What would become of it.
    pub fn question(&self) -> ClusterQuestion {
        ClusterQuestion::Apply { id: self.id.clone(), object: self.value.clone(), force: self.force }
    }

    /// Whether its secret values are there.
    pub fn secrets_question(&self) -> Option<ClusterQuestion> {
        (!self.secrets.is_empty())
            .then(|| ClusterQuestion::Secrets { id: self.id.clone(), values: self.secrets.clone() })
    }

    /// What brings it about. `force`: also where others have set fields that are to be set.
    pub fn action(&self, force: bool) -> ClusterAction {
        let (cluster, id, object) = (self.cluster.clone(), self.id.clone(), self.value.clone());
        match self.create_only {
            true => ClusterAction::CreateObject { cluster, id, object },
            false => ClusterAction::ApplyObject {
                cluster,
                id,
                object,
                force: force || self.force,
                secrets: self.secrets.clone(),
            },
        }
    }
}

/// Whose objects those of a cluster's manifest are: the value of [`OWNER_LABEL`]. A label's value has at most 63 characters;
/// a longer name ends in its digest.
pub(super) fn owner(name: &str) -> String {
    let full = format!("Cluster.{name}");
    if full.len() <= 63 {
        return full;
    }
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(name.as_bytes());
    let tail: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
    let head: String = full.chars().take(50).collect();
    format!("{head}-{tail}")
}

/// Whose an object is: fleet and resource.
pub(super) fn owner_of(value: &Value) -> Option<(&str, &str)> {
    let labels = value.get("metadata")?.get("labels")?;
    Some((labels.get(FLEET_LABEL)?.as_str()?, labels.get(OWNER_LABEL)?.as_str()?))
}

/// Whether an object bears the marks of this manifest.
pub(super) fn is_ours(value: &Value, fleet: &str, name: &str) -> bool {
    owner_of(value) == Some((fleet, owner(name).as_str()))
}

/// What is to be on the cluster itself before the MigrationController, in order.
pub(super) fn operator(m: &Manifest<ClusterSpec>, toolkit: &MigrationToolkit, scene: &Scene<'_>) -> Vec<Want> {
    let resource = owner(m.name());
    let owner = Owner { fleet: scene.resources.fleet(), resource: &resource };
    let want = |object: Object| Want::new(m.name(), object, toolkit.force_conflicts);
    match toolkit.install {
        Install::None => Vec::new(),
        Install::OLM => {
            let state = scene.observed.cluster(m.name());
            let mut wants = vec![want(objects::namespace(owner))];
            let foreign = state.is_some_and(|s| groups(s).iter().any(|g| !is_ours(&g.value, owner.fleet, m.name())));
            if !foreign {
                wants.push(want(objects::operator_group(owner)));
            }
            let mut subscription = objects::subscription(toolkit, owner);
            // The console lets people choose the name: a second one for the same package would be a second installation.
            if let Some(there) = state.and_then(|s| subscription_of(s, toolkit)) {
                rename(&mut subscription, &there.id.name);
                // Not said means the same to OLM.
                if toolkit.approval == Approval::Automatic
                    && there.value["spec"]["installPlanApproval"].is_null()
                    && let Some(spec) = subscription.value["spec"].as_object_mut()
                {
                    spec.remove("installPlanApproval");
                }
            }
            wants.push(want(subscription));
            wants
        }
        Install::Manifests => {
            let Some(Ok(documents)) = toolkit.manifests.as_ref().map(|f| documents(&f.operator, "operator.yml")) else {
                return Vec::new();
            };
            let mut wants: Vec<Want> = documents
                .into_iter()
                .filter(|d| !d.is_controller())
                .map(|d| {
                    let create_only = d.may_exist();
                    let mut want = want(marked(d, owner));
                    want.create_only = create_only;
                    want
                })
                .collect();
            if !wants.iter().any(|w| w.id.kind == "Namespace") {
                wants.insert(0, want(objects::namespace(owner)));
            }
            wants
        }
    }
}

/// A document with the owner's marks.
fn marked(document: Document, owner: Owner<'_>) -> Object {
    let Document { id, mut value } = document;
    // Written by the cluster; in a file they are leftovers of an export.
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    let labels = &mut value["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    labels[FLEET_LABEL] = owner.fleet.into();
    labels[OWNER_LABEL] = owner.resource.into();
    Object { id, value }
}

fn rename(object: &mut Object, name: &str) {
    object.id.name = name.into();
    object.value["metadata"]["name"] = name.into();
}

/// OperatorGroups in MTC's namespace.
pub(super) fn groups(state: &ClusterState) -> Vec<&ObjectState> {
    let here = |o: &&ObjectState| o.id.namespace.as_deref() == Some(NAMESPACE) && !o.deleting;
    state.of_kind("operators.coreos.com", "OperatorGroup").filter(here).collect()
}

/// The Subscription to MTC's package.
pub(super) fn subscription_of<'a>(state: &'a ClusterState, toolkit: &MigrationToolkit) -> Option<&'a ObjectState> {
    let here = |o: &&ObjectState| o.id.namespace.as_deref() == Some(NAMESPACE);
    state
        .of_kind("operators.coreos.com", "Subscription")
        .filter(here)
        .find(|s| s.value.pointer("/spec/name").and_then(Value::as_str) == Some(&toolkit.package))
}

/// The MigrationController that is there, whatever its name.
pub(super) fn controller_of(state: &ClusterState) -> Option<&ObjectState> {
    let here = |o: &&ObjectState| o.id.namespace.as_deref() == Some(NAMESPACE);
    let mut all = state.of_kind("migration.openshift.io", "MigrationController").filter(here);
    let first = all.next();
    first.into_iter().chain(all).max_by_key(|o| o.id.name == "migration-controller")
}

/// The MigrationController.
pub(super) fn controller(m: &Manifest<ClusterSpec>, toolkit: &MigrationToolkit, scene: &Scene<'_>) -> Option<Want> {
    if toolkit.install == Install::None {
        return None;
    }
    let resource = owner(m.name());
    let owner = Owner { fleet: scene.resources.fleet(), resource: &resource };
    let ours = objects::controller(&m.spec, toolkit, owner);
    let file = toolkit.manifests.as_ref().filter(|_| toolkit.install == Install::Manifests);
    let given = file.and_then(|f| {
        let own = f.controller.as_ref().map(|text| documents(text, "controller.yml"));
        let all = own.into_iter().chain([documents(&f.operator, "operator.yml")]);
        all.filter_map(Result::ok).flatten().find(Document::is_controller)
    });
    let mut object = match given {
        // What the manifest says is laid over what the file has.
        Some(document) => {
            let mut object = marked(document, owner);
            if !object.value["spec"].is_object() {
                object.value["spec"] = json!({});
            }
            if let (Some(spec), Some(said)) = (object.value["spec"].as_object_mut(), ours.value["spec"].as_object()) {
                spec.extend(said.clone());
            }
            object
        }
        None => ours,
    };
    if let Some(there) = scene.observed.cluster(m.name()).and_then(controller_of) {
        rename(&mut object, &there.id.name);
    }
    let want = Want::new(m.name(), object, toolkit.force_conflicts);
    Some(match &toolkit.controller.stunnel_tcp_proxy {
        Some(proxy) => want.with("/spec/stunnel_tcp_proxy", SecretSource::Ref(proxy.secret_ref.clone())),
        None => want,
    })
}

/// A remote cluster on its control cluster.
pub(super) struct Registered<'a> {
    /// The control cluster's manifest.
    pub control: &'a Manifest<ClusterSpec>,
    /// On the remote cluster, the Secret that gets the token. None where somebody else's credentials are used.
    pub source: Option<Want>,
    /// On the control cluster, the Secret with the token.
    pub token: Option<Want>,
    /// On the control cluster.
    pub mig_cluster: Want,
}

/// The control cluster of a remote one, where there is one that has, or is to have, MTC.
pub(super) fn control_of<'a>(m: &Manifest<ClusterSpec>, scene: &Scene<'a>) -> Option<&'a Manifest<ClusterSpec>> {
    if m.spec.role == Role::Control {
        return None;
    }
    scene.resources.clusters.values().find(|c| c.spec.role == Role::Control && c.name() != m.name())
}

/// How a remote cluster is to be known on the control cluster; none where it is not, or cannot be said yet.
pub(super) fn registration<'a>(
    m: &Manifest<ClusterSpec>,
    toolkit: &MigrationToolkit,
    scene: &Scene<'a>,
) -> Option<Registered<'a>> {
    let control = control_of(m, scene)?;
    let leads = control.spec.migration_toolkit.as_ref().is_some_and(|t| !(t.install == Install::None && t.prune));
    if !leads || (toolkit.install == Install::None && toolkit.prune) {
        return None;
    }
    let (here, there) = (scene.observed.cluster(m.name())?, scene.observed.cluster(control.name())?);
    if toolkit.install == Install::None && controller_of(here).is_none() {
        return None;
    }
    let resource = owner(m.name());
    let owner = Owner { fleet: scene.resources.fleet(), resource: &resource };
    let registration = &toolkit.registration;
    let namespace = match &registration.secret_namespace {
        Some(namespace) => namespace.as_str(),
        None if there.namespaces.contains_key("openshift-config") => "openshift-config",
        None => NAMESPACE,
    };
    let token = objects::token_secret(m.name(), namespace, owner);
    let url = registration.url.clone().unwrap_or_else(|| here.server.clone());
    let mut mig_cluster = objects::mig_cluster(m.name(), &url, None, registration, &token.id, owner);
    // One that a person registered keeps the credentials that it was given.
    let named = find(there, &mig_cluster.id).and_then(|o| o.value.pointer("/spec/serviceAccountSecretRef"));
    let foreign = named.filter(|r| is_there(r) && (r["name"] != token.id.name.as_str() || r["namespace"] != namespace));
    let is_foreign = match foreign {
        Some(reference) if find(there, &mig_cluster.id).is_some_and(|o| !is_ours(&o.value, owner.fleet, m.name())) => {
            mig_cluster.value["spec"]["serviceAccountSecretRef"] = reference.clone();
            true
        }
        _ => false,
    };
    let mut mig_cluster = Want::new(control.name(), mig_cluster, toolkit.force_conflicts);
    let own_ca = m.spec.service_account.as_ref().and_then(|a| a.ca.as_ref());
    let ca = registration.ca.as_ref().or(own_ca.filter(|_| registration.url.is_none()));
    if let Some(ca) = ca.filter(|_| !registration.insecure) {
        mig_cluster = mig_cluster.with("/spec/caBundle", SecretSource::Ref(ca.secret_ref.clone()));
    } else if let Some(ca) = here.ca.as_ref().filter(|_| registration.url.is_none() && !registration.insecure) {
        // The CA by which Drover itself reaches that address.
        mig_cluster.value["spec"]["caBundle"] = ca.clone().into();
    }
    if is_foreign {
        return Some(Registered { control, source: None, token: None, mig_cluster });
    }
    let source = objects::token_source(owner);
    let from = SecretSource::Token { cluster: m.name().into(), secret: source.id.clone() };
    Some(Registered {
        control,
        source: Some(Want::new(m.name(), source, toolkit.force_conflicts)),
        token: Some(Want::new(control.name(), token, toolkit.force_conflicts).with("/data/saToken", from)),
        mig_cluster,
    })
}

/// Namespaces on a cluster whose rsync pods are let through, and by which directions: `(namespace, out, in)`. Those of
/// migrations come with NamespaceMigrations; the others are named.
pub(super) fn exempted(toolkit: &MigrationToolkit) -> BTreeMap<String, (bool, bool)> {
    toolkit.exempted_namespaces.iter().map(|n| (n.clone(), (true, true))).collect()
}

/// Policies that let rsync pods through.
pub(super) fn policies(m: &Manifest<ClusterSpec>, toolkit: &MigrationToolkit, scene: &Scene<'_>) -> Vec<Want> {
    if toolkit.rsync_network_policies.lasting() == Exemption::None {
        return Vec::new();
    }
    let Some(state) = scene.observed.cluster(m.name()) else { return Vec::new() };
    let resource = owner(m.name());
    let owner = Owner { fleet: scene.resources.fleet(), resource: &resource };
    let mut wants = Vec::new();
    for (namespace, (out, into)) in exempted(toolkit) {
        if state.namespaces.get(&namespace).is_none_or(|n| n.terminating.is_some()) {
            continue;
        }
        for direction in [out.then_some(true), into.then_some(false)].into_iter().flatten() {
            let policy = objects::allow_rsync(&namespace, direction, owner);
            wants.push(Want::new(m.name(), policy, toolkit.force_conflicts));
        }
    }
    wants
}

/// Everything that a manifest wants, on whatever cluster.
pub(super) fn all(m: &Manifest<ClusterSpec>, scene: &Scene<'_>) -> Vec<Want> {
    let Some(toolkit) = &m.spec.migration_toolkit else { return Vec::new() };
    let mut wants = operator(m, toolkit, scene);
    wants.extend(controller(m, toolkit, scene));
    if let Some(Registered { source, token, mig_cluster, .. }) = registration(m, toolkit, scene) {
        wants.extend(source.into_iter().chain(token).chain([mig_cluster]));
    }
    wants.extend(policies(m, toolkit, scene));
    wants
}

/// Names of every workload that MTC has on a cluster when it runs, with their kinds.
pub(super) fn workloads(m: &Manifest<ClusterSpec>, toolkit: &MigrationToolkit, state: &ClusterState) -> Vec<ObjectRef> {
    let deployment = |name: &str| ObjectRef::new("apps/v1", "Deployment", NAMESPACE, name);
    let mut found = vec![deployment("velero")];
    let agents: BTreeSet<&str> = state
        .of_kind("apps", "DaemonSet")
        .filter(|d| d.id.namespace.as_deref() == Some(NAMESPACE))
        .map(|d| d.id.name.as_str())
        .filter(|n| ["restic", "node-agent"].contains(n))
        .collect();
    // With OADP 1.2, which came with MTC 1.8, the daemon got a new name. What is there tells it for certain.
    let agent = match (toolkit.install, toolkit.release()) {
        _ if agents.len() == 1 => agents.first().copied(),
        (Install::Manifests, _) | (_, Some((1, ..=7))) => Some("restic"),
        (_, Some(_)) => Some("node-agent"),
        (_, None) => None,
    };
    found.extend(agent.map(|name| ObjectRef::new("apps/v1", "DaemonSet", NAMESPACE, name)));
    if toolkit.controller.log_reader != Some(false) {
        found.push(deployment("migration-log-reader"));
    }
    if m.spec.role == Role::Control && toolkit.install != Install::Manifests {
        found.push(deployment("migration-controller"));
        if toolkit.controller.console != Some(false) {
            found.push(deployment("migration-ui"));
        }
    }
    found
}
