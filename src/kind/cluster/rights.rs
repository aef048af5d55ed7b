//! What Drover needs to be allowed on a cluster for what the manifests say, and nothing beyond: as rights, which the provider
//! asks the API server for (SelfSubjectAccessReview), and as RBAC objects, which an administrator applies.

use super::objects::NAMESPACE;
use super::reads::reads;
use super::{Approval, ClusterSpec, Exemption, Install, MigrationToolkit, Platform, Role};
use crate::kind::Resources;
use crate::model::SecretRef;
use crate::observed::Right;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Reading, and being told of changes.
const READ: &[&str] = &["get", "list", "watch"];

/// Server-side apply: a patch, which may make the object.
const APPLY: &[&str] = &["create", "patch"];

/// Kinds of MTC.
const MTC_KINDS: &[&str] = &[
    "directimagemigrations",
    "directimagestreammigrations",
    "directvolumemigrationprogresses",
    "directvolumemigrations",
    "miganalytics",
    "migclusters",
    "mighooks",
    "migmigrations",
    "migplans",
    "migrationcontrollers",
    "migstorages",
];

/// Kinds of Velero, of both its generations.
const VELERO_KINDS: &[&str] = &[
    "backuprepositories",
    "backups",
    "backupstoragelocations",
    "deletebackuprequests",
    "downloadrequests",
    "podvolumebackups",
    "podvolumerestores",
    "resticrepositories",
    "restores",
    "schedules",
    "serverstatusrequests",
    "volumesnapshotlocations",
];

/// The namespace of Drover's service account, as [`rbac`] makes it.
const DROVER: &str = "drover";

/// What is wanted of the clusters: their specs, by name; where nothing is said of MTC any more and Settings prune, as if
/// its removal was asked for. What is read of a cluster, and the rights for it, follow from this.
pub fn in_force(all: &Resources) -> BTreeMap<String, ClusterSpec> {
    let prunes = all.the_settings().prune;
    let mut specs: BTreeMap<String, ClusterSpec> =
        all.clusters.iter().map(|(name, m)| (name.clone(), m.spec.clone())).collect();
    for spec in specs.values_mut().filter(|s| prunes && s.migration_toolkit.is_none() && !is_plain(s)) {
        spec.migration_toolkit = Some(MigrationToolkit { prune: true, ..MigrationToolkit::default() });
    }
    specs
}

/// Whether a cluster is declared as one without OpenShift.
fn is_plain(spec: &ClusterSpec) -> bool {
    matches!(spec.platform.as_deref().map(str::parse), Some(Ok(Platform::Kubernetes { .. })))
}

/// What Drover needs on a cluster, ordered. `all`: as [`in_force`] gives them.
pub fn rights(name: &str, all: &BTreeMap<String, ClusterSpec>) -> Vec<Right> {
    let mut rights = BTreeSet::new();
    for Grant { namespace, group, resource, verbs } in grants(name, all) {
        for verb in verbs {
            rights.insert(Right {
                verb: (*verb).to_owned(),
                group: group.to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.clone(),
            });
        }
    }
    rights.into_iter().collect()
}

/// The same as Kubernetes objects: a service account with a token, and roles that allow as much. In the order in which they
/// are to be applied.
pub fn rbac(name: &str, all: &BTreeMap<String, ClusterSpec>) -> Vec<Value> {
    // By where, then by group and verbs: the resources.
    let mut verbs: BTreeMap<(Option<String>, &str, &str), BTreeSet<&str>> = BTreeMap::new();
    for grant in grants(name, all) {
        verbs.entry((grant.namespace, grant.group, grant.resource)).or_default().extend(grant.verbs);
    }
    type Rules<'a> = BTreeMap<(&'a str, BTreeSet<&'a str>), Vec<&'a str>>;
    let mut rules: BTreeMap<Option<String>, Rules<'_>> = BTreeMap::new();
    for ((namespace, group, resource), verbs) in verbs {
        rules.entry(namespace).or_default().entry((group, verbs)).or_default().push(resource);
    }
    let subject = json!([{"kind": "ServiceAccount", "name": DROVER, "namespace": DROVER}]);
    let api = "rbac.authorization.k8s.io/v1";
    let mut documents = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": DROVER}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DROVER, "namespace": DROVER}}),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": "drover-token", "namespace": DROVER,
                "annotations": {"kubernetes.io/service-account.name": DROVER},
            },
        }),
    ];
    // A Role needs its namespace; those of the platform and of applications are there.
    if rules.contains_key(&Some(NAMESPACE.to_owned())) {
        documents.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}));
    }
    for (namespace, rules) in rules {
        let rules: Vec<Value> = rules
            .into_iter()
            .map(|((group, verbs), resources)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}))
            .collect();
        let (role, binding) = match namespace {
            None => ("ClusterRole", "ClusterRoleBinding"),
            Some(_) => ("Role", "RoleBinding"),
        };
        let metadata = match namespace {
            None => json!({"name": DROVER}),
            Some(namespace) => json!({"name": DROVER, "namespace": namespace}),
        };
        documents.push(json!({"apiVersion": api, "kind": role, "metadata": metadata, "rules": rules}));
        documents.push(json!({
            "apiVersion": api, "kind": binding, "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": DROVER}, "subjects": subject,
        }));
    }
    documents
}

/// Verbs on one resource, in a namespace or everywhere.
struct Grant {
    namespace: Option<String>,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
}

#[derive(Default)]
struct Grants(Vec<Grant>);

impl Grants {
    fn everywhere(&mut self, group: &'static str, resources: &[&'static str], verbs: &'static [&'static str]) {
        self.0.extend(resources.iter().map(|resource| Grant { namespace: None, group, resource, verbs }));
    }

    fn within(
        &mut self,
        namespace: &str,
        group: &'static str,
        resources: &[&'static str],
        verbs: &'static [&'static str],
    ) {
        let namespace = Some(namespace.to_owned());
        self.0.extend(resources.iter().map(|resource| Grant { namespace: namespace.clone(), group, resource, verbs }));
    }
}

fn grants(name: &str, all: &BTreeMap<String, ClusterSpec>) -> Vec<Grant> {
    let mut grants = Grants::default();
    for read in reads(name, all) {
        let right = read.right();
        grants.0.push(Grant { namespace: right.namespace, group: read.group, resource: read.resource, verbs: READ });
    }
    let Some(spec) = all.get(name) else { return grants.0 };
    if let Some(toolkit) = &spec.migration_toolkit {
        install(&mut grants, toolkit);
        exempt(&mut grants, toolkit);
        if spec.role == Role::Control {
            register(&mut grants, name, all);
        } else if !is_leaving(toolkit) {
            grants.within(NAMESPACE, "", &["secrets"], APPLY);
        }
        if is_leaving(toolkit) {
            remove(&mut grants);
        }
    }
    secrets(&mut grants, name, all);
    grants.0
}

fn install(grants: &mut Grants, toolkit: &MigrationToolkit) {
    match toolkit.install {
        Install::None => return,
        Install::OLM => {
            grants.within(NAMESPACE, "operators.coreos.com", &["operatorgroups", "subscriptions"], APPLY);
            if toolkit.approval == Approval::Manual && toolkit.approve.is_some() {
                grants.within(NAMESPACE, "operators.coreos.com", &["installplans"], &["patch"]);
            }
        }
        // What operator.yml has (mig-legacy-operator). It gives its operator rights that Drover itself does not have: that
        // takes `bind` and `escalate`.
        Install::Manifests => {
            let rbac = "rbac.authorization.k8s.io";
            grants.within(NAMESPACE, "", &["serviceaccounts"], APPLY);
            grants.within(NAMESPACE, "apps", &["deployments"], APPLY);
            grants.within(NAMESPACE, rbac, &["rolebindings"], APPLY);
            grants.within(NAMESPACE, rbac, &["roles"], &["bind", "create", "escalate", "patch"]);
            grants.within(
                NAMESPACE,
                "authorization.openshift.io",
                &["rolebindings"],
                &["create", "get", "list", "watch"],
            );
            grants.everywhere(rbac, &["clusterrolebindings"], APPLY);
            grants.everywhere(rbac, &["clusterroles"], &["bind", "create", "escalate", "patch"]);
            grants.everywhere("apiextensions.k8s.io", &["customresourcedefinitions"], APPLY);
        }
    }
    grants.everywhere("", &["namespaces"], APPLY);
    grants.within(NAMESPACE, "migration.openshift.io", &["migrationcontrollers"], APPLY);
}

/// Exemptions: in whatever namespace a migration has, and taken back where none has any more.
fn exempt(grants: &mut Grants, toolkit: &MigrationToolkit) {
    if toolkit.rsync_network_policies.lasting() != Exemption::None {
        grants.everywhere("networking.k8s.io", &["networkpolicies"], &["create", "delete", "patch"]);
    }
    if toolkit.egress.is_some() {
        for (group, resource) in [("network.openshift.io", "egressnetworkpolicies"), ("k8s.ovn.org", "egressfirewalls")]
        {
            grants.everywhere(group, &[resource], &["patch"]);
        }
    }
}

/// Remote clusters, on the control cluster.
fn register(grants: &mut Grants, control: &str, all: &BTreeMap<String, ClusterSpec>) {
    let remote = all.iter().filter(|(name, spec)| *name != control && spec.role == Role::Remote);
    for toolkit in remote.filter_map(|(_, spec)| spec.migration_toolkit.as_ref()) {
        let namespace = toolkit.registration.secret_namespace.as_deref().unwrap_or("openshift-config");
        let verbs: &'static [&'static str] = if is_leaving(toolkit) { &["delete"] } else { APPLY };
        grants.within(namespace, "", &["secrets"], verbs);
        grants.within(NAMESPACE, "migration.openshift.io", &["migclusters"], verbs);
    }
}

fn is_leaving(toolkit: &MigrationToolkit) -> bool {
    toolkit.install == Install::None && toolkit.prune
}

/// Uninstalling (migration guide, 3.6). What goes with a definition is counted before.
fn remove(grants: &mut Grants) {
    const GO: &[&str] = &["delete"];
    grants.everywhere("migration.openshift.io", MTC_KINDS, &["list"]);
    grants.everywhere("velero.io", VELERO_KINDS, &["list"]);
    grants.everywhere("oadp.openshift.io", &["dataprotectionapplications"], &["list"]);
    grants.within(NAMESPACE, "apps", &["deployments"], GO);
    grants.within(
        NAMESPACE,
        "operators.coreos.com",
        &["clusterserviceversions", "operatorgroups", "subscriptions"],
        GO,
    );
    grants.within("openshift-config", "", &["secrets"], GO);
    grants.within(NAMESPACE, "migration.openshift.io", MTC_KINDS, GO);
    grants.within(NAMESPACE, "migration.openshift.io", &["migplans"], &["patch"]);
    grants.within(NAMESPACE, "velero.io", VELERO_KINDS, GO);
    grants.within(NAMESPACE, "oadp.openshift.io", &["dataprotectionapplications"], GO);
    grants.everywhere("", &["namespaces"], GO);
    grants.everywhere("apiextensions.k8s.io", &["customresourcedefinitions"], GO);
    grants.everywhere("rbac.authorization.k8s.io", &["clusterrolebindings", "clusterroles"], GO);
    grants.everywhere("oauth.openshift.io", &["oauthclients"], GO);
    grants.everywhere("security.openshift.io", &["securitycontextconstraints"], GO);
}

/// Secrets that manifests name in this cluster.
fn secrets(grants: &mut Grants, cluster: &str, all: &BTreeMap<String, ClusterSpec>) {
    let mut namespaces = BTreeSet::new();
    for spec in all.values() {
        let account = spec.service_account.as_ref();
        let toolkit = spec.migration_toolkit.as_ref();
        let refs = [
            spec.kubeconfig.as_ref().map(|k| &k.secret_ref),
            spec.proxy.as_ref().and_then(|p| p.secret_ref.as_ref()),
            account.map(|a| &a.token.secret_ref),
            account.and_then(|a| a.ca.as_ref()).map(|c| &c.secret_ref),
            toolkit.and_then(|t| t.controller.stunnel_tcp_proxy.as_ref()).map(|s| &s.secret_ref),
            toolkit.and_then(|t| t.registration.ca.as_ref()).map(|c| &c.secret_ref),
        ];
        for secret in refs.into_iter().flatten() {
            if let SecretRef::Kubernetes(key) = secret
                && key.cluster == cluster
            {
                namespaces.insert(key.namespace.as_str());
            }
        }
    }
    for namespace in namespaces {
        grants.within(namespace, "", &["secrets"], &["get"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::cluster::testing::clusters as all;

    fn of(all: &Resources, name: &str) -> BTreeSet<String> {
        let text = |r: Right| {
            let namespace = r.namespace.map(|n| format!(" in {n}")).unwrap_or_default();
            format!("{} {}{}{}", r.verb, r.resource, if r.group.is_empty() { "" } else { "." }, r.group) + &namespace
        };
        rights(name, &in_force(all)).into_iter().map(text).collect()
    }

    fn may_write(rights: &BTreeSet<String>) -> Vec<&str> {
        let reads = ["get ", "list ", "watch "];
        rights.iter().map(String::as_str).filter(|r| !reads.iter().any(|p| r.starts_with(p))).collect()
    }

    #[test]
    fn what_is_only_looked_at_is_only_read() {
        let all = all(&[("k8s", "platform: kubernetes-1.29"), ("ocp", "role: Remote")]);
        for cluster in ["k8s", "ocp"] {
            let rights = of(&all, cluster);
            assert_eq!(may_write(&rights), Vec::<&str>::new());
            assert!(!rights.iter().any(|r| r.contains("secrets")), "{rights:#?}");
            assert!(rights.contains("list backupstoragelocations.velero.io in openshift-migration"), "{rights:#?}");
        }
    }

    #[test]
    fn each_section_of_the_guide_takes_its_own_rights() {
        let olm = "migrationToolkit: {install: OLM, channel: release-v1.7";
        let with = |rest: &str| of(&all(&[("c", &format!("{olm}{rest}}}"))]), "c");
        let plain = with("");
        assert_eq!(
            may_write(&plain),
            [
                "create migrationcontrollers.migration.openshift.io in openshift-migration",
                "create namespaces",
                "create operatorgroups.operators.coreos.com in openshift-migration",
                "create secrets in openshift-migration",
                "create subscriptions.operators.coreos.com in openshift-migration",
                "patch migrationcontrollers.migration.openshift.io in openshift-migration",
                "patch namespaces",
                "patch operatorgroups.operators.coreos.com in openshift-migration",
                "patch secrets in openshift-migration",
                "patch subscriptions.operators.coreos.com in openshift-migration",
            ]
        );
        for (rest, right) in [
            (
                ", approval: Manual, approve: mtc-operator.v1.7.4",
                "patch installplans.operators.coreos.com in openshift-migration",
            ),
            (", rsyncNetworkPolicies: true", "delete networkpolicies.networking.k8s.io"),
            (", egress: {cidrs: [], rules: Keep}", "patch egressfirewalls.k8s.ovn.org"),
        ] {
            assert!(!plain.contains(right) && with(rest).contains(right), "{right}");
        }
        let legacy = of(&all(&[("c", "migrationToolkit: {install: Manifests}")]), "c");
        assert!(legacy.contains("escalate clusterroles.rbac.authorization.k8s.io"), "{legacy:#?}");
        assert!(
            !may_write(&legacy).iter().any(|r| r.starts_with("delete") || r.contains("subscriptions")),
            "{legacy:#?}"
        );
        let gone = of(&all(&[("c", "migrationToolkit: {install: None, prune: true}")]), "c");
        assert!(gone.contains("delete customresourcedefinitions.apiextensions.k8s.io"), "{gone:#?}");
        let left = of(&all(&[("c", "migrationToolkit: {install: None}")]), "c");
        assert!(!left.iter().any(|r| r.starts_with("delete")), "{left:#?}");
    }

    #[test]
    fn the_control_cluster_takes_rights_for_each_remote_one() {
        let control = ("hub", "role: Control, migrationToolkit: {install: None}");
        let right = "create migclusters.migration.openshift.io in openshift-migration";
        assert!(!of(&all(&[control]), "hub").contains(right));
        let remote = ("ocp3", "migrationToolkit: {install: None, registration: {secretNamespace: tokens}}");
        let both = all(&[control, remote]);
        assert!(of(&both, "hub").contains(right));
        assert!(of(&both, "hub").contains("create secrets in tokens"));
        assert!(!of(&both, "ocp3").contains(right));
        let named = "{kubernetes: {cluster: hub, namespace: vault, name: n, key: k}}";
        let spec = format!("migrationToolkit: {{install: None, registration: {{ca: {{secretRef: {named}}}}}}}");
        assert!(of(&all(&[control, ("ocp3", &spec)]), "hub").contains("get secrets in vault"));
    }

    #[test]
    fn roles_allow_exactly_the_rights() {
        let all = all(&[
            (
                "hub",
                "role: Control, migrationToolkit: {install: OLM, channel: release-v1.7, rsyncNetworkPolicies: Keep}",
            ),
            ("ocp3", "migrationToolkit: {install: Manifests}"),
        ]);
        let specs = in_force(&all);
        for name in specs.keys() {
            let mut allowed = BTreeSet::new();
            for role in rbac(name, &specs).iter().filter(|d| d["kind"] == "Role" || d["kind"] == "ClusterRole") {
                let words = |v: &Value| -> Vec<String> {
                    v.as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect()
                };
                let namespace = role["metadata"]["namespace"].as_str().map(str::to_owned);
                for rule in role["rules"].as_array().unwrap() {
                    for group in words(&rule["apiGroups"]) {
                        for resource in words(&rule["resources"]) {
                            for verb in words(&rule["verbs"]) {
                                let (group, resource) = (group.clone(), resource.clone());
                                allowed.insert(Right { verb, group, resource, namespace: namespace.clone() });
                            }
                        }
                    }
                }
            }
            assert_eq!(allowed.into_iter().collect::<Vec<_>>(), rights(name, &specs));
        }
    }
}
