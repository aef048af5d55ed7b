//! What of a cluster is read, as a pure list: kinds, and where their objects are. What is not on the list is neither read nor
//! does Drover need a right to it.

use super::objects::{FLEET_LABEL, NAMESPACE};
use super::{ClusterSpec, Install, Role};
use crate::observed::Right;
use std::collections::BTreeMap;

/// Objects of one kind that are read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Read {
    /// The group; empty for the core.
    pub group: &'static str,
    /// Versions that will do, the one that Drover writes first.
    pub versions: &'static [&'static str],
    /// `Subscription`.
    pub kind: &'static str,
    /// `subscriptions`.
    pub resource: &'static str,
    /// Which of them.
    pub which: Which,
}

/// Which objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// All in a namespace.
    In(String),
    /// All in the cluster.
    All,
    /// All in the cluster that have the label of a fleet ([`FLEET_LABEL`]).
    Labelled,
    /// One, where it is there.
    Named {
        /// None for what is cluster-scoped.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// Those of the whole cluster whose name has one of these in it; their metadata only.
    Matching(&'static [&'static str]),
}

impl Read {
    const fn new(
        group: &'static str,
        versions: &'static [&'static str],
        kind: &'static str,
        resource: &'static str,
        which: Which,
    ) -> Self {
        Self { group, versions, kind, resource, which }
    }

    /// What has to be allowed for it.
    pub fn right(&self) -> Right {
        let (verb, namespace) = match &self.which {
            Which::In(namespace) => ("list", Some(namespace.clone())),
            Which::All | Which::Labelled | Which::Matching(_) => ("list", None),
            Which::Named { namespace, .. } => ("get", namespace.clone()),
        };
        Right { verb: verb.into(), group: self.group.into(), resource: self.resource.into(), namespace }
    }

    /// The selector of what is listed.
    pub fn selector(&self) -> Option<&'static str> {
        (self.which == Which::Labelled).then_some(FLEET_LABEL)
    }
}

/// The group of MTC's own kinds.
pub const MTC_GROUP: &str = "migration.openshift.io";

/// Names of definitions, roles and bindings that MTC and Velero have (migration guide, 3.6).
pub const MARKS: &[&str] = &["migration.openshift.io", "velero", "migration-operator", "migration-controller", "oadp"];

/// The namespace that credentials of remote clusters are in by convention.
pub const CONFIG_NAMESPACE: &str = "openshift-config";

/// The groups that are looked at for what is served.
pub const GROUPS: &[&str] = &[
    "",
    "apps",
    "apiextensions.k8s.io",
    "rbac.authorization.k8s.io",
    "networking.k8s.io",
    MTC_GROUP,
    "velero.io",
    "oadp.openshift.io",
    "operators.coreos.com",
    "config.openshift.io",
    "apps.openshift.io",
    "network.openshift.io",
    "k8s.ovn.org",
    "oauth.openshift.io",
    "security.openshift.io",
];

/// What is read of a cluster. `all` are the Clusters of the revision by name, this one among them: the control cluster has
/// something of each other one.
pub fn reads(name: &str, all: &BTreeMap<String, ClusterSpec>) -> Vec<Read> {
    let ours = || Which::In(NAMESPACE.into());
    let one = |namespace: Option<&str>, name: &str| Which::Named {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    };
    const CONFIG: &[&str] = &["v1"];
    const MTC: &[&str] = &["v1alpha1"];
    const OLM: &[&str] = &["v1alpha1"];
    const V1: &[&str] = &["v1"];
    let mut list = vec![
        Read::new("", V1, "Namespace", "namespaces", Which::All),
        Read::new(
            "apiextensions.k8s.io",
            &["v1", "v1beta1"],
            "CustomResourceDefinition",
            "customresourcedefinitions",
            Which::Matching(MARKS),
        ),
        Read::new("config.openshift.io", CONFIG, "ClusterVersion", "clusterversions", one(None, "version")),
        Read::new("config.openshift.io", CONFIG, "Network", "networks", one(None, "cluster")),
        Read::new("config.openshift.io", CONFIG, "Proxy", "proxies", one(None, "cluster")),
        Read::new("config.openshift.io", CONFIG, "Infrastructure", "infrastructures", one(None, "cluster")),
        Read::new("network.openshift.io", V1, "ClusterNetwork", "clusternetworks", one(None, "default")),
        Read::new(MTC_GROUP, MTC, "MigrationController", "migrationcontrollers", ours()),
        Read::new(MTC_GROUP, MTC, "MigCluster", "migclusters", ours()),
        Read::new(MTC_GROUP, MTC, "MigStorage", "migstorages", ours()),
        Read::new(MTC_GROUP, MTC, "MigPlan", "migplans", ours()),
        Read::new(MTC_GROUP, MTC, "MigMigration", "migmigrations", ours()),
        Read::new(MTC_GROUP, MTC, "MigHook", "mighooks", ours()),
        Read::new("operators.coreos.com", &["v1", "v1alpha2"], "OperatorGroup", "operatorgroups", ours()),
        Read::new("operators.coreos.com", OLM, "Subscription", "subscriptions", ours()),
        Read::new("operators.coreos.com", OLM, "ClusterServiceVersion", "clusterserviceversions", ours()),
        Read::new("operators.coreos.com", OLM, "InstallPlan", "installplans", ours()),
        Read::new("oadp.openshift.io", V1_ALPHA, "DataProtectionApplication", "dataprotectionapplications", ours()),
        Read::new("velero.io", V1, "BackupStorageLocation", "backupstoragelocations", ours()),
        Read::new("apps", &["v1", "v1beta1"], "Deployment", "deployments", ours()),
        Read::new("apps", &["v1", "v1beta2"], "DaemonSet", "daemonsets", ours()),
        Read::new("", V1, "Pod", "pods", ours()),
        Read::new("", V1, "ConfigMap", "configmaps", one(Some(NAMESPACE), "migration-cluster-config")),
    ];
    let Some(spec) = all.get(name) else { return list };
    let Some(toolkit) = &spec.migration_toolkit else { return list };
    list.push(Read::new("", V1, "Secret", "secrets", ours()));
    list.push(Read::new("", V1, "ServiceAccount", "serviceaccounts", ours()));
    if toolkit.install == Install::OLM {
        let source = one(Some(&toolkit.source_namespace), &toolkit.source);
        list.push(Read::new("operators.coreos.com", OLM, "CatalogSource", "catalogsources", source));
    }
    // What the legacy operator's files have, and what an uninstallation takes away.
    if toolkit.install == Install::Manifests || toolkit.prune {
        const RBAC: &str = "rbac.authorization.k8s.io";
        // The one that operator.yml has is compared, so all of it is read; what is taken away only has to be known by name.
        let bound = || if toolkit.prune { Which::Matching(MARKS) } else { one(None, "migration-operator") };
        list.push(Read::new(RBAC, V1, "Role", "roles", ours()));
        list.push(Read::new(RBAC, V1, "RoleBinding", "rolebindings", ours()));
        list.push(Read::new(RBAC, V1, "ClusterRole", "clusterroles", bound()));
        list.push(Read::new(RBAC, V1, "ClusterRoleBinding", "clusterrolebindings", bound()));
    }
    if toolkit.prune {
        // What goes while its controller runs that looks after it.
        for (kind, resource) in [
            ("MigAnalytic", "miganalytics"),
            ("DirectVolumeMigration", "directvolumemigrations"),
            ("DirectVolumeMigrationProgress", "directvolumemigrationprogresses"),
            ("DirectImageMigration", "directimagemigrations"),
            ("DirectImageStreamMigration", "directimagestreammigrations"),
        ] {
            list.push(Read::new(MTC_GROUP, MTC, kind, resource, ours()));
        }
        for (kind, resource) in [
            ("Backup", "backups"),
            ("BackupRepository", "backuprepositories"),
            ("DeleteBackupRequest", "deletebackuprequests"),
            ("DownloadRequest", "downloadrequests"),
            ("PodVolumeBackup", "podvolumebackups"),
            ("PodVolumeRestore", "podvolumerestores"),
            ("ResticRepository", "resticrepositories"),
            ("Restore", "restores"),
            ("Schedule", "schedules"),
            ("ServerStatusRequest", "serverstatusrequests"),
            ("VolumeSnapshotLocation", "volumesnapshotlocations"),
        ] {
            list.push(Read::new("velero.io", V1, kind, resource, ours()));
        }
        let oauth = one(None, "migration");
        list.push(Read::new("oauth.openshift.io", V1, "OAuthClient", "oauthclients", oauth));
        let scc = one(None, "rsync-anyuid");
        list.push(Read::new(
            "security.openshift.io",
            V1,
            "SecurityContextConstraints",
            "securitycontextconstraints",
            scc,
        ));
    }
    if spec.role == Role::Control {
        for (remote, spec) in all.iter().filter(|(other, _)| *other != name) {
            let registration = spec.migration_toolkit.as_ref().map(|t| &t.registration);
            let namespace = registration.and_then(|r| r.secret_namespace.as_deref()).unwrap_or(CONFIG_NAMESPACE);
            if namespace != NAMESPACE {
                let secret = one(Some(namespace), &format!("drover-{remote}-token"));
                list.push(Read::new("", V1, "Secret", "secrets", secret));
            }
        }
    }
    // Exemptions that are not wanted any more are taken away, so they are looked for in any case.
    list.push(Read::new("networking.k8s.io", V1, "NetworkPolicy", "networkpolicies", Which::Labelled));
    let has_egress = all.values().filter_map(|s| s.migration_toolkit.as_ref()?.egress.as_ref());
    // Also with `rules: None`, which takes out what was put in before.
    if has_egress.count() > 0 {
        list.push(Read::new("network.openshift.io", V1, "EgressNetworkPolicy", "egressnetworkpolicies", Which::All));
        list.push(Read::new("k8s.ovn.org", V1, "EgressFirewall", "egressfirewalls", Which::All));
    }
    list
}

/// OADP's.
const V1_ALPHA: &[&str] = &["v1alpha1"];

/// What has to be allowed for these reads, each once.
pub fn rights(reads: &[Read]) -> Vec<Right> {
    reads.iter().map(Read::right).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(yaml: &str) -> BTreeMap<String, ClusterSpec> {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn kinds(list: &[Read]) -> Vec<&str> {
        list.iter().map(|r| r.kind).collect()
    }

    #[test]
    fn a_cluster_without_the_toolkit_needs_no_right_to_secrets() {
        let all = fleet("{plain: {}, ocp4: {role: Control, migrationToolkit: {install: OLM}}}");
        let (plain, control) = (reads("plain", &all), reads("ocp4", &all));
        assert!(!kinds(&plain).contains(&"Secret") && kinds(&control).contains(&"CatalogSource"));
        let named: Vec<_> = control.iter().filter(|r| r.kind == "Secret").map(|r| &r.which).collect();
        assert_eq!(
            named,
            [
                &Which::In("openshift-migration".into()),
                &Which::Named { namespace: Some("openshift-config".into()), name: "drover-plain-token".into() }
            ]
        );
    }

    #[test]
    fn roles_are_read_only_where_they_are_made_or_taken_away() {
        let all = fleet(
            "{a: {migrationToolkit: {install: Manifests}}, b: {migrationToolkit: {prune: true}}, c: {migrationToolkit: {}}}",
        );
        assert!(kinds(&reads("a", &all)).contains(&"ClusterRole") && kinds(&reads("b", &all)).contains(&"ClusterRole"));
        assert!(!kinds(&reads("c", &all)).contains(&"ClusterRole"));
    }

    #[test]
    fn every_group_that_is_read_is_looked_at() {
        let all = fleet(
            "{a: {role: Control, migrationToolkit: {install: OLM, prune: true, egress: {cidrs: [], rules: Keep}}}}",
        );
        let list = reads("a", &all);
        assert!(list.iter().all(|r| GROUPS.contains(&r.group)), "{list:?}");
        let rights = rights(&list);
        assert!(rights.contains(&Right {
            verb: "list".into(),
            group: String::new(),
            resource: "namespaces".into(),
            namespace: None
        }));
        assert!(rights.len() <= list.len());
    }
}
