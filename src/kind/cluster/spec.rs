//! The fields of a Cluster.

use super::controller::ControllerSpec;
use crate::model::{FromSecret, SecretRef, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Kubernetes or OpenShift cluster, and the Migration Toolkit for Containers (MTC) on it. One of `kubeconfig`,
/// `serviceAccount` and `inCluster` says how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// A kubeconfig. Programs, files and providers that it names for its credentials are refused unless the operator's
    /// configuration allows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<Kubeconfig>,
    /// The address of the API server and a service account's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
    /// The cluster in which Drover itself runs as a pod.
    #[serde(skip_serializing_if = "is_false")]
    pub in_cluster: bool,
    /// Proxy between Drover and the API server: `http://`, `https://` or `socks5://`. One with a password stands elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// How much Drover asks of the API server.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// Whether migrations are driven from here. One cluster is `Control`; it should be the one with the newest platform.
    pub role: Role,
    /// The platform, where a rule is to hold before the cluster can be read: `openshift-4.10`, `openshift-3.11`,
    /// `kubernetes-1.29`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The Migration Toolkit for Containers. Left alone where not given, and where it was given before, removed only with
    /// `prune`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration_toolkit: Option<MigrationToolkit>,
}

fn is_false(b: &bool) -> bool {
    !b
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What a cluster is in migrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// The controller runs here, and the objects of all migrations are here. It may be source or destination as well.
    Control,
    /// A source or a destination.
    #[default]
    Remote,
}

/// A kubeconfig, and which of its contexts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubeconfig {
    /// Where it stands.
    pub secret_ref: SecretRef,
    /// The context; the current one where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// A service account of the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    /// The API server: `https://api.ocp4.example.com:6443`.
    pub server: String,
    /// Its token.
    pub token: FromSecret,
    /// The CA of the API server's certificate, in PEM; those that the system trusts where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<FromSecret>,
    /// The name that the certificate has to carry, where the address is another one (a tunnel).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
}

/// A proxy: `url`, or `secretRef` where the URL has a password in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Proxy {
    /// The proxy, without user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where its URL stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// How much is asked of an API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Requests a second, on average.
    #[schemars(range(min = 1, max = 10_000))]
    pub requests_per_second: u32,
    /// Requests that may come at once.
    #[schemars(range(min = 1, max = 10_000))]
    pub burst: u32,
    /// How long one request may take.
    pub timeout: Span,
}

impl Default for Limits {
    fn default() -> Self {
        // Of the order of kubectl's own (50 a second, bursts of 300), for one cluster among several.
        Self { requests_per_second: 50, burst: 100, timeout: Span(30_000) }
    }
}

/// The Migration Toolkit for Containers on a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MigrationToolkit {
    /// How the operator comes onto the cluster, or whether it is taken away.
    pub install: Install,
    /// With `install: OLM`: the channel, `release-v1.7` or `release-v1.8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The package; upstream's is `crane-operator`.
    pub package: String,
    /// The CatalogSource; upstream's is `community-operators`, and disconnected clusters have one of their own.
    pub source: String,
    /// The namespace of the CatalogSource.
    pub source_namespace: String,
    /// The version to begin with: `mtc-operator.v1.7.4`. The channel's newest where not given.
    #[serde(rename = "startingCSV", skip_serializing_if = "Option::is_none")]
    pub starting_csv: Option<String>,
    /// Whether upgrades need an approval.
    pub approval: Approval,
    /// With `approval: Manual`: approve the InstallPlan of this version (`mtc-operator.v1.7.4`), and of no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approve: Option<String>,
    /// With `install: Manifests`: the legacy operator's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Manifests>,
    /// With `install: None`: uninstall what Drover installed, with all objects of MTC and Velero. Without it an installation
    /// is left as it is.
    #[serde(skip_serializing_if = "is_false")]
    pub prune: bool,
    /// Settings of the MigrationController.
    #[serde(skip_serializing_if = "is_default")]
    pub controller: ControllerSpec,
    /// How a `Remote` cluster is known on the control cluster.
    #[serde(skip_serializing_if = "is_default")]
    pub registration: Registration,
    /// NetworkPolicies that let the rsync pods of direct volume migration through, in the namespaces of migrations.
    #[serde(skip_serializing_if = "is_default")]
    pub rsync_network_policies: RsyncNetworkPolicies,
    /// Rules that let the rsync pods through egress firewalls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Namespaces that have these exemptions without a migration, too: both policies, and rules for all other clusters.
    /// Those of migrations have them by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exempted_namespaces: Vec<String>,
    /// Take fields over that another field manager has set. Otherwise such a conflict holds the step back and is shown.
    #[serde(skip_serializing_if = "is_false")]
    pub force_conflicts: bool,
}

impl Default for MigrationToolkit {
    fn default() -> Self {
        // The vendor's catalogue (migration guide, 3.3).
        Self {
            install: Install::default(),
            channel: None,
            package: "mtc-operator".into(),
            source: "redhat-operators".into(),
            source_namespace: "openshift-marketplace".into(),
            starting_csv: None,
            approval: Approval::default(),
            approve: None,
            manifests: None,
            prune: false,
            controller: ControllerSpec::default(),
            registration: Registration::default(),
            rsync_network_policies: RsyncNetworkPolicies::default(),
            egress: None,
            exempted_namespaces: Vec::new(),
            force_conflicts: false,
        }
    }
}

impl MigrationToolkit {
    /// The release that the channel has (`release-v1.8`: 1.8), or 1.7 for the legacy operator's files, which have no other.
    pub fn release(&self) -> Option<(u32, u32)> {
        match self.install {
            Install::Manifests => Some((1, 7)),
            Install::None => None,
            Install::OLM => {
                let (major, minor) = self.channel.as_ref()?.strip_prefix("release-v")?.split_once('.')?;
                Some((major.parse().ok()?, minor.parse().ok()?))
            }
        }
    }
}

/// Whether NetworkPolicies for rsync pods are made, and how long they stay: `true` is `Migration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RsyncNetworkPolicies {
    /// Whether they are there while a migration has their namespace.
    Switch(bool),
    /// How long they are there.
    Lasting(Exemption),
}

impl Default for RsyncNetworkPolicies {
    fn default() -> Self {
        Self::Switch(false)
    }
}

impl RsyncNetworkPolicies {
    /// How long they are there.
    pub fn lasting(self) -> Exemption {
        match self {
            Self::Switch(true) => Exemption::Migration,
            Self::Switch(false) => Exemption::None,
            Self::Lasting(e) => e,
        }
    }
}

/// How the operator comes onto a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Install {
    /// By the Operator Lifecycle Manager: OpenShift 4.6 and later (migration guide, 3.3).
    OLM,
    /// From the legacy operator's files: OpenShift 4.5 and earlier (migration guide, 3.2).
    Manifests,
    /// Not by Drover.
    #[default]
    None,
}

/// Who approves an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Approval {
    /// Nobody needs to.
    #[default]
    Automatic,
    /// A person, or `approve`.
    Manual,
}

/// The legacy operator's files. They may lie among the manifests: what a manifest names is none itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifests {
    /// `operator.yml`, from the root of the operator's image.
    pub operator: ManifestText,
    /// `controller.yml`. What `controller` says is laid over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ManifestText>,
}

/// Kubernetes manifests: one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ManifestText {
    /// A file in the repository, relative to this manifest's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The text itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
}

/// How a remote cluster is known on the control cluster: its MigCluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Registration {
    /// The address of its API server as the control cluster reaches it (`url`): that of a tunnel, for example. The one that
    /// Drover uses where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The CA of that address, in PEM (`caBundle`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<FromSecret>,
    /// Do not check its certificate (`insecure`).
    #[serde(skip_serializing_if = "is_false")]
    pub insecure: bool,
    /// Its exposed image registry, `host[:port]` (`exposedRegistryPath`): needed for direct image migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_registry: Option<String>,
    /// On Azure, the resource group of its disks (`azureResourceGroup`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_resource_group: Option<String>,
    /// Restart restic before a backup (`restartRestic`): old clusters, whose restic does not see new mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_restic: Option<bool>,
    /// The namespace on the control cluster for the Secret with its token; `openshift-config` where that exists, else
    /// `openshift-migration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_namespace: Option<String>,
}

/// How long an exemption is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Exemption {
    /// None is made.
    #[default]
    None,
    /// While a migration has its namespace.
    Migration,
    /// Also after it.
    Keep,
}

/// Rules in egress firewalls (EgressNetworkPolicy, EgressFirewall).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Egress {
    /// Addresses of this cluster that the rsync pods of other clusters must reach: `203.0.113.0/24`.
    pub cidrs: Vec<String>,
    /// How long the rules are there.
    pub rules: Exemption,
}
