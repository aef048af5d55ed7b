//! The MigrationController's variables. The server keeps unknown fields and so catches no typing mistake: Drover knows the
//! names and checks them (mig-operator 1.7 and 1.8, roles/migrationcontroller/defaults; migration guide, 3.4).

use crate::model::FromSecret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Which cluster a variable has a meaning on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Every cluster.
    All,
    /// The one that runs the controller.
    Control,
    /// Read by the controller from the cluster that a migration goes to.
    Destination,
}

/// A variable of the MigrationController.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The field of the manifest.
    pub field: &'static str,
    /// The operator's name for it.
    pub name: &'static str,
    /// Where it has a meaning.
    pub on: Where,
}

macro_rules! variables {
    ($($(#[$doc:meta])+ $field:ident($camel:literal): $type:ty = $name:literal on $on:ident),+ $(,)?) => {
        /// Settings of the MigrationController. What is not given here is the operator's own choice, named as "default".
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct ControllerSpec {
            /// `stunnel_tcp_proxy`, on the control cluster: the TCP proxy through which direct volume migration reaches the
            /// other cluster, `http://user:password@ip:port`. One proxy, basic authentication only; it has to tunnel TCP
            /// and leave TLS alone (migration guide, 3.4.1). It has a password in it, so it stands elsewhere.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub stunnel_tcp_proxy: Option<FromSecret>,
            $($(#[$doc])+
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<$type>,)+
            /// Variables that have no field here, by the operator's names: `some_new_variable: 5`. Not checked.
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            pub variables: BTreeMap<String, Value>,
        }

        /// Every variable that has a field, in the order of the fields.
        pub const VARIABLES: &[Variable] = &[$(Variable { field: $camel, name: $name, on: Where::$on }),+];

        impl ControllerSpec {
            /// The variables that are given, by the operator's names, without the secret one.
            pub fn given(&self) -> Map<String, Value> {
                let mut map = Map::new();
                $(if let Some(value) = &self.$field {
                    map.insert($name.into(), Variables::value(value));
                })+
                map.extend(self.variables.clone());
                map
            }
        }
    };
}

/// How a field is written for the operator.
trait Variables {
    fn value(&self) -> Value;
}

impl Variables for bool {
    fn value(&self) -> Value {
        (*self).into()
    }
}

impl Variables for String {
    fn value(&self) -> Value {
        self.as_str().into()
    }
}

impl Variables for u32 {
    fn value(&self) -> Value {
        (*self).into()
    }
}

impl Variables for Limit {
    // The operator puts it into an environment variable as it is, and its own defaults are texts.
    fn value(&self) -> Value {
        self.0.to_string().into()
    }
}

impl Variables for Vec<String> {
    fn value(&self) -> Value {
        self.clone().into()
    }
}

impl Variables for Vec<u32> {
    fn value(&self) -> Value {
        self.clone().into()
    }
}

impl Variables for BTreeMap<String, String> {
    fn value(&self) -> Value {
        self.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect::<Map<_, _>>().into()
    }
}

impl Variables for EndpointType {
    fn value(&self) -> Value {
        match self {
            Self::Route => "Route",
            Self::NodePort => "NodePort",
            Self::ClusterIP => "ClusterIP",
        }
        .into()
    }
}

impl Variables for Groups {
    fn value(&self) -> Value {
        self.0.iter().map(u32::to_string).collect::<Vec<_>>().join(",").into()
    }
}

impl Variables for NoProxy {
    fn value(&self) -> Value {
        self.0.join(",").into()
    }
}

/// A number that the operator takes as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Limit(#[schemars(range(min = 1))] pub u32);

/// Supplemental groups, by their numbers. The operator wants them in one text, without blanks: its controller reads each
/// piece as a number and does not start otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Groups(pub Vec<u32>);

/// Destinations that are reached without the proxy: names, `.domains`, addresses, CIDRs, or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct NoProxy(pub Vec<String>);

/// How rsync's server at the destination is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndpointType {
    /// An OpenShift Route.
    Route,
    /// A port of the nodes.
    NodePort,
    /// An address within the cluster: only for one cluster, or joined networks.
    ClusterIP,
}

variables! {
    /// `http_proxy`: proxy for the controller and the registries. Default: the cluster-wide Proxy (OpenShift 4.2 and later;
    /// older ones have none).
    http_proxy("httpProxy"): String = "http_proxy" on All,
    /// `https_proxy`: the same for HTTPS.
    https_proxy("httpsProxy"): String = "https_proxy" on All,
    /// `no_proxy`: what is reached without them: `.y.com` matches subdomains of y.com only, `*` everything. Machine networks
    /// that are not in the installation's `networking.machineNetwork` have to be added. Ignored where there is no proxy.
    no_proxy("noProxy"): NoProxy = "no_proxy" on All,

    /// `rsync_endpoint_type`: how rsync at the destination is reached. Default: Route.
    rsync_endpoint_type("rsyncEndpointType"): EndpointType = "rsync_endpoint_type" on Destination,
    /// `cluster_subdomain`: builds the host names of Routes, where namespace and name are too long for DNS.
    cluster_subdomain("clusterSubdomain"): String = "cluster_subdomain" on Destination,
    /// `src_supplemental_groups`: groups of the rsync pods at the source, for shared storage.
    source_supplemental_groups("sourceSupplementalGroups"): Groups = "src_supplemental_groups" on Control,
    /// `target_supplemental_groups`: groups of the rsync pods at the target.
    target_supplemental_groups("targetSupplementalGroups"): Groups = "target_supplemental_groups" on Control,
    /// `migration_rsync_privileged`: rsync runs as root, in privileged containers. Default: false.
    rsync_privileged("rsyncPrivileged"): bool = "migration_rsync_privileged" on All,
    /// `migration_rsync_super_privileged`: and with the SELinux type `spc_t`. Default: false.
    rsync_super_privileged("rsyncSuperPrivileged"): bool = "migration_rsync_super_privileged" on All,
    /// `rsync_opt_bwlimit`: limit of each rsync in kB/s.
    rsync_bandwidth_limit("rsyncBandwidthLimit"): u32 = "rsync_opt_bwlimit" on Control,
    /// `rsync_opt_partial`: keeps what came over of a file that broke off. Default: true.
    rsync_partial("rsyncPartial"): bool = "rsync_opt_partial" on Control,
    /// `rsync_opt_archive`. Default: true.
    rsync_archive("rsyncArchive"): bool = "rsync_opt_archive" on Control,
    /// `rsync_opt_delete`: files that are only at the target are deleted. Default: true.
    rsync_delete("rsyncDelete"): bool = "rsync_opt_delete" on Control,
    /// `rsync_opt_hardlinks`. Default: true.
    rsync_hard_links("rsyncHardLinks"): bool = "rsync_opt_hardlinks" on Control,
    /// `rsync_opt_info`: rsync's `--info`.
    rsync_info("rsyncInfo"): String = "rsync_opt_info" on Control,
    /// `rsync_opt_extras`: further flags.
    rsync_extra_options("rsyncExtraOptions"): String = "rsync_opt_extras" on Control,
    /// `rsync_backoff_limit`: tries for each volume. Default: 20.
    rsync_backoff_limit("rsyncBackoffLimit"): u32 = "rsync_backoff_limit" on Control,
    /// `source_rsync_pod_cpu_limits`. Default: 1.
    source_rsync_cpu_limit("sourceRsyncCpuLimit"): String = "source_rsync_pod_cpu_limits" on Control,
    /// `source_rsync_pod_memory_limits`. Default: 1Gi.
    source_rsync_memory_limit("sourceRsyncMemoryLimit"): String = "source_rsync_pod_memory_limits" on Control,
    /// `source_rsync_pod_cpu_requests`. Default: 100m.
    source_rsync_cpu_request("sourceRsyncCpuRequest"): String = "source_rsync_pod_cpu_requests" on Control,
    /// `source_rsync_pod_memory_requests`. Default: 1Gi.
    source_rsync_memory_request("sourceRsyncMemoryRequest"): String = "source_rsync_pod_memory_requests" on Control,
    /// `target_rsync_pod_cpu_limits`. Default: 1.
    target_rsync_cpu_limit("targetRsyncCpuLimit"): String = "target_rsync_pod_cpu_limits" on Control,
    /// `target_rsync_pod_memory_limits`. Default: 1Gi.
    target_rsync_memory_limit("targetRsyncMemoryLimit"): String = "target_rsync_pod_memory_limits" on Control,
    /// `target_rsync_pod_cpu_requests`. Default: 100m.
    target_rsync_cpu_request("targetRsyncCpuRequest"): String = "target_rsync_pod_cpu_requests" on Control,
    /// `target_rsync_pod_memory_requests`. Default: 1Gi.
    target_rsync_memory_request("targetRsyncMemoryRequest"): String = "target_rsync_pod_memory_requests" on Control,
    /// `stunnel_pod_cpu_limits`. Default: 1.
    stunnel_cpu_limit("stunnelCpuLimit"): String = "stunnel_pod_cpu_limits" on Control,
    /// `stunnel_pod_memory_limits`. Default: 1Gi.
    stunnel_memory_limit("stunnelMemoryLimit"): String = "stunnel_pod_memory_limits" on Control,
    /// `stunnel_pod_cpu_requests`. Default: 100m.
    stunnel_cpu_request("stunnelCpuRequest"): String = "stunnel_pod_cpu_requests" on Control,
    /// `stunnel_pod_memory_requests`. Default: 1Gi.
    stunnel_memory_request("stunnelMemoryRequest"): String = "stunnel_pod_memory_requests" on Control,
    /// `stunnel_verify_ca`. Default: true. Not used by the controller of 1.8.
    stunnel_verify_ca("stunnelVerifyCa"): bool = "stunnel_verify_ca" on Control,
    /// `stunnel_verify_ca_level`. Default: 2. Not used by the controller of 1.8.
    stunnel_verify_ca_level("stunnelVerifyCaLevel"): String = "stunnel_verify_ca_level" on Control,

    /// `enable_intelligent_pv_resize`: measures volumes before a migration and proposes capacities. Default: true.
    volume_analysis("volumeAnalysis"): bool = "enable_intelligent_pv_resize" on Control,
    /// `enable_dvm_pv_resizing`: uses the proposed capacities. Default: false.
    volume_resizing("volumeResizing"): bool = "enable_dvm_pv_resizing" on Control,
    /// `pv_resizing_threshold`: percent of free room that count as too little. Default: 3.
    volume_resizing_threshold("volumeResizingThreshold"): u32 = "pv_resizing_threshold" on Control,
    /// `mig_pv_move_storageclasses`: storage classes whose volumes may be moved, besides NFS and EBS.
    movable_storage_classes("movableStorageClasses"): Vec<String> = "mig_pv_move_storageclasses" on Control,
    /// `disable_pv_migration`: leaves volumes and claims out. Default: false.
    disable_volume_migration("disableVolumeMigration"): bool = "disable_pv_migration" on Control,
    /// `disable_image_migration`: leaves image streams out. Default: false.
    disable_image_migration("disableImageMigration"): bool = "disable_image_migration" on Control,
    /// `disable_image_copy`: image streams without their images. Default: false.
    disable_image_copy("disableImageCopy"): bool = "disable_image_copy" on Control,
    /// `migration_registry_readiness_timeout`: seconds. Default: 300.
    registry_readiness_timeout("registryReadinessTimeout"): u32 = "migration_registry_readiness_timeout" on All,
    /// `migration_registry_liveness_timeout`: seconds. Default: 300.
    registry_liveness_timeout("registryLivenessTimeout"): u32 = "migration_registry_liveness_timeout" on All,
    /// `exposed_registry_validation_path`: what is asked of an exposed registry. Default: `/v2/_catalog?n=5`.
    exposed_registry_validation_path("exposedRegistryValidationPath"): String = "exposed_registry_validation_path" on All,

    /// `mig_namespace_limit`: with more namespaces a plan is blocked. Default: 10.
    namespace_limit("namespaceLimit"): Limit = "mig_namespace_limit" on Control,
    /// `mig_pod_limit`: with more pods a plan has a warning. Default: 100.
    pod_limit("podLimit"): Limit = "mig_pod_limit" on Control,
    /// `mig_pv_limit`: with more volumes a plan has a warning. Default: 100.
    volume_limit("volumeLimit"): Limit = "mig_pv_limit" on Control,
    /// `excluded_resources`: kinds that are never migrated, in place of the operator's own list. Prefer
    /// `additionalExcludedResources`.
    excluded_resources("excludedResources"): Vec<String> = "excluded_resources" on Control,
    /// `additional_excluded_resources`: further kinds that are never migrated.
    additional_excluded_resources("additionalExcludedResources"): Vec<String> = "additional_excluded_resources" on Control,

    /// `restic_timeout`: for a pod's volumes in one backup: `1h`, the default.
    restic_timeout("resticTimeout"): String = "restic_timeout" on All,
    /// `restic_supplemental_groups`: needed for NFS with root squash.
    restic_supplemental_groups("resticSupplementalGroups"): Vec<u32> = "restic_supplemental_groups" on All,
    /// `restic_requests_cpu`. Default: 100m.
    restic_cpu_request("resticCpuRequest"): String = "restic_requests_cpu" on All,
    /// `restic_requests_memory`.
    restic_memory_request("resticMemoryRequest"): String = "restic_requests_memory" on All,
    /// `restic_limits_cpu`.
    restic_cpu_limit("resticCpuLimit"): String = "restic_limits_cpu" on All,
    /// `restic_limits_memory`.
    restic_memory_limit("resticMemoryLimit"): String = "restic_limits_memory" on All,
    /// `restic_pv_host_path`: where the kubelet has its pods' volumes; the legacy operator's.
    restic_host_path("resticHostPath"): String = "restic_pv_host_path" on All,
    /// `host_cluster_restart_restic`: restarts restic before a backup, on the control cluster.
    restart_restic("restartRestic"): bool = "host_cluster_restart_restic" on Control,
    /// `velero_requests_cpu`. Default: 100m.
    velero_cpu_request("veleroCpuRequest"): String = "velero_requests_cpu" on All,
    /// `velero_requests_memory`.
    velero_memory_request("veleroMemoryRequest"): String = "velero_requests_memory" on All,
    /// `velero_limits_cpu`.
    velero_cpu_limit("veleroCpuLimit"): String = "velero_limits_cpu" on All,
    /// `velero_limits_memory`.
    velero_memory_limit("veleroMemoryLimit"): String = "velero_limits_memory" on All,
    /// `velero_log_level`, of MTC 1.8.
    velero_log_level("veleroLogLevel"): String = "velero_log_level" on All,
    /// `velero_debug`, of MTC 1.7. Default: false.
    velero_debug("veleroDebug"): bool = "velero_debug" on All,
    /// `velero_use_legacy_aws`, of MTC 1.8: the older AWS plugin, which some S3-compatible stores need. Default: false.
    velero_legacy_aws("veleroLegacyAws"): bool = "velero_use_legacy_aws" on All,
    /// `daemonset_node_selector`: the nodes that restic (the node agent) runs on.
    node_selector("nodeSelector"): BTreeMap<String, String> = "daemonset_node_selector" on All,

    /// `migration_log_reader`: installs the log reader. Default: true.
    log_reader("logReader"): bool = "migration_log_reader" on All,
    /// `migration_ui`: installs the web console. Default: true on the control cluster.
    console("console"): bool = "migration_ui" on Control,
    /// `azure_resource_group`: the resource group of the control cluster's volumes.
    azure_resource_group("azureResourceGroup"): String = "azure_resource_group" on Control,
    /// `mig_ui_cluster_api_endpoint`: the address of the API that the console uses.
    console_api_endpoint("consoleApiEndpoint"): String = "mig_ui_cluster_api_endpoint" on Control,
    /// `mig_ui_oauth_user_scope`. Default: `user:full`.
    console_oauth_scope("consoleOauthScope"): String = "mig_ui_oauth_user_scope" on Control,
    /// `mig_controller_enable_cache`: keeps what it reads of remote clusters: faster, with more memory. Default: false.
    controller_cache("controllerCache"): bool = "mig_controller_enable_cache" on Control,
    /// `mig_controller_limits_cpu`. Default: 1.
    controller_cpu_limit("controllerCpuLimit"): String = "mig_controller_limits_cpu" on Control,
    /// `mig_controller_limits_memory`. Default: 10Gi.
    controller_memory_limit("controllerMemoryLimit"): String = "mig_controller_limits_memory" on Control,
    /// `mig_controller_requests_cpu`. Default: 100m.
    controller_cpu_request("controllerCpuRequest"): String = "mig_controller_requests_cpu" on Control,
    /// `mig_controller_requests_memory`. Default: 350Mi.
    controller_memory_request("controllerMemoryRequest"): String = "mig_controller_requests_memory" on Control,
    /// `discovery_collect_events`. Default: true.
    discovery_collect_events("discoveryCollectEvents"): bool = "discovery_collect_events" on Control,
    /// `discovery_volume_path`. Default: `/var/cache/discovery`.
    discovery_volume_path("discoveryVolumePath"): String = "discovery_volume_path" on Control,
    /// `jaeger_enabled`: tracing. Default: "false".
    jaeger("jaeger"): String = "jaeger_enabled" on Control,
    /// `image_pull_policy`. Default: Always.
    image_pull_policy("imagePullPolicy"): String = "image_pull_policy" on All,
}

/// Variables that Drover sets by itself or leaves alone.
pub const RESERVED: &[(&str, &str)] = &[
    ("migration_velero", "every cluster has Velero"),
    ("migration_controller", "`role` says so"),
    ("cluster_name", "the control cluster's own MigCluster is called `host`"),
    ("mig_namespace", "MTC knows one namespace only, `openshift-migration`"),
    ("stunnel_tcp_proxy", "it has a password in it: use `stunnelTcpProxy` with a `secretRef`"),
    ("version", "the operator writes it"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: Value) -> ControllerSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_field_becomes_its_variable() {
        let all = serde_json::to_value(schemars::schema_for!(ControllerSpec)).unwrap();
        let fields: Vec<&str> = all["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        for v in VARIABLES {
            assert!(fields.contains(&v.field), "{}", v.field);
            let doc = all["properties"][v.field]["description"].as_str().unwrap();
            assert!(doc.starts_with(&format!("`{}`", v.name)), "{}: {doc}", v.field);
        }
        assert_eq!(fields.len(), VARIABLES.len() + 2, "stunnelTcpProxy and variables are apart");
    }

    #[test]
    fn values_are_written_as_the_operator_reads_them() {
        let given = spec(json!({
            "noProxy": [".example.com", "10.0.0.0/8"], "rsyncEndpointType": "NodePort", "namespaceLimit": 50,
            "sourceSupplementalGroups": [1000, 2000], "resticSupplementalGroups": [5], "rsyncDelete": false,
            "nodeSelector": {"disk": "ssd"}, "variables": {"new_one": {"a": 1}},
        }))
        .given();
        assert_eq!(
            Value::from(given),
            json!({
                "no_proxy": ".example.com,10.0.0.0/8", "rsync_endpoint_type": "NodePort", "mig_namespace_limit": "50",
                "src_supplemental_groups": "1000,2000", "restic_supplemental_groups": [5], "rsync_opt_delete": false,
                "daemonset_node_selector": {"disk": "ssd"}, "new_one": {"a": 1},
            })
        );
    }

    #[test]
    fn the_secret_one_is_never_among_them() {
        let given = spec(json!({"stunnelTcpProxy": {"secretRef": {"env": "PROXY"}}})).given();
        assert!(given.is_empty(), "{given:?}");
    }
}
