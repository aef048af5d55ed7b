//! MTC's operator: MigrationController → what it deploys.
//!
//! Modern: acts where its Deployment is there; a playbook run shows as conditions `Running` and `Successful`, or `Failure` with
//! the failing task. Legacy: the same without OADP and without any status. It makes namespace objects, workloads (with the
//! status of running ones; a run does not wait for them), the settings of the cluster, the service account for remote
//! access with its rights, and on the control cluster the host MigCluster. What goes when the MigrationController goes:
//! workloads, settings, DPA; the service account and the rights stay, as do CRDs, Secrets and whatever users made.

use super::{Hand, Kind, NAMESPACE, Release, Stop, now, run_workload};
use kube::api::DynamicObject;
use serde_json::{Value, json};

/// Variables that have no default: the playbook stops at the first task that reads a missing one.
const REQUIRED: [&str; 3] = ["migration_velero", "migration_controller", "migration_ui"];

/// One look at the MigrationController of this cluster.
pub async fn round(hand: &Hand, release: Release) -> Result<(), Stop> {
    if !hand.exists(Kind::DEPLOYMENT, NAMESPACE, "migration-operator").await? {
        return Ok(());
    }
    if release == Release::Legacy {
        // Its own Deployment comes by manifest, without anybody who would run its pods.
        run_workload(hand, Kind::DEPLOYMENT, NAMESPACE, "migration-operator").await?;
    }
    let all = hand.list(Kind::MIGRATION_CONTROLLER).await?;
    match all.into_iter().find(|m| m.metadata.namespace.as_deref() == Some(NAMESPACE)) {
        Some(object) => play(hand, release, object).await,
        None => take_down(hand).await,
    }
}

/// A variable of the playbook: the operator turns camel case into snake case.
fn variable<'spec>(spec: &'spec Value, name: &str) -> Option<&'spec Value> {
    let camel: String =
        name.split('_').enumerate().map(|(i, part)| if i == 0 { part.to_owned() } else { capital(part) }).collect();
    spec.get(name).or_else(|| spec.get(camel)).filter(|v| !v.is_null())
}

fn capital(part: &str) -> String {
    part[..1].to_uppercase() + &part[1..]
}

fn is_on(spec: &Value, name: &str) -> bool {
    variable(spec, name).is_some_and(|v| *v == true || v.as_str().is_some_and(|s| s.eq_ignore_ascii_case("true")))
}

async fn play(hand: &Hand, release: Release, mut object: DynamicObject) -> Result<(), Stop> {
    let spec = object.data["spec"].clone();
    let is_control = is_on(&spec, "migration_controller");
    let behaviour = hand.behaviour();
    let modern = release == Release::Modern;
    if modern {
        let required: Vec<&str> = REQUIRED.into_iter().chain(is_control.then_some("cluster_name")).collect();
        if let Some(absent) = required.iter().find(|name| variable(&spec, name).is_none()) {
            let message = format!(
                "The task includes an option with an undefined variable. The error was: '{absent}' is undefined"
            );
            return status(hand, object, Some(&message)).await;
        }
        if hand.list(Kind::CSV).await?.iter().all(|c| c.data["spec"]["displayName"] != "OADP Operator") {
            let message =
                "The task includes an option with an undefined variable. The error was: 'oadp_version' is undefined";
            return status(hand, object, Some(message)).await;
        }
        if let Some(task) = &behaviour.playbook_fails {
            return status(hand, object, Some(task)).await;
        }
    }

    for secret in ["cloud-credentials", "cloud-credentials-gcp", "cloud-credentials-azure"] {
        hand.create(Kind::SECRET, within(Kind::SECRET.object(secret, json!({ "type": "Opaque" })))).await?;
    }
    remote_access(hand).await?;
    let text = |name: &str, default: &str| {
        variable(&spec, name)
            .map_or_else(|| default.to_owned(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
    };
    let settings = json!({
        "OPERATOR_VERSION": behaviour.version,
        "RSYNC_ENDPOINT_TYPE": text("rsync_endpoint_type", "Route"),
        "CLUSTER_SUBDOMAIN": text("cluster_subdomain", ""),
        "RSYNC_PRIVILEGED": text("migration_rsync_privileged", "false"),
    });
    settings_are(hand, "migration-cluster-config", settings).await?;

    if is_on(&spec, "migration_velero") {
        if modern {
            let dpa = json!({ "spec": { "configuration": { "velero": { "defaultPlugins": ["openshift"] } } } });
            hand.create(Kind::DPA, within(Kind::DPA.object("velero", dpa))).await?;
            reconciled(hand).await?;
        }
        run_workload(hand, Kind::DEPLOYMENT, NAMESPACE, "velero").await?;
        // With OADP 1.2 and later the daemon has a new name.
        let agent = if modern && !behaviour.version.starts_with("1.7") { "node-agent" } else { "restic" };
        run_workload(hand, Kind::DAEMON_SET, NAMESPACE, agent).await?;
    }
    let log_reader = variable(&spec, "migration_log_reader").is_none_or(|v| *v != false);
    wanted(hand, "migration-log-reader", log_reader).await?;
    wanted(hand, "migration-controller", is_control).await?;
    wanted(hand, "migration-ui", is_on(&spec, "migration_ui")).await?;
    if is_control {
        let environment = json!({
            "HTTP_PROXY": text("http_proxy", ""), "HTTPS_PROXY": text("https_proxy", ""), "NO_PROXY": text("no_proxy", ""),
            "STUNNEL_TCP_PROXY": text("stunnel_tcp_proxy", ""), "MIG_NAMESPACE_LIMIT": text("mig_namespace_limit", "10"),
        });
        settings_are(hand, "migration-controller", environment).await?;
        let host = json!({ "spec": { "isHostCluster": true, "azureResourceGroup": text("azure_resource_group", "") } });
        hand.create(Kind::MIG_CLUSTER, within(Kind::MIG_CLUSTER.object(&text("cluster_name", "host"), host))).await?;
    }
    if !modern {
        return Ok(()); // it does not manage the status
    }
    let version = json!(behaviour.version);
    if object.data["spec"]["version"] != version {
        object.data["spec"]["version"] = version;
        return hand.put(Kind::MIGRATION_CONTROLLER, &object).await;
    }
    status(hand, object, None).await
}

fn within(mut object: DynamicObject) -> DynamicObject {
    object.metadata.namespace = Some(NAMESPACE.to_owned());
    object
}

async fn wanted(hand: &Hand, deployment: &str, is_wanted: bool) -> Result<(), Stop> {
    if is_wanted {
        return run_workload(hand, Kind::DEPLOYMENT, NAMESPACE, deployment).await.map(drop);
    }
    hand.delete(Kind::DEPLOYMENT, Some(NAMESPACE), deployment).await
}

async fn settings_are(hand: &Hand, name: &str, data: Value) -> Result<(), Stop> {
    if hand.create(Kind::CONFIG_MAP, within(Kind::CONFIG_MAP.object(name, json!({ "data": data })))).await? {
        return Ok(());
    }
    match hand.get(Kind::CONFIG_MAP, NAMESPACE, name).await? {
        Some(mut map) if map.data["data"] != data => {
            map.data["data"] = data;
            hand.put(Kind::CONFIG_MAP, &map).await
        }
        _ => Ok(()),
    }
}

/// The service account whose token a control cluster is given.
async fn remote_access(hand: &Hand) -> Result<(), Stop> {
    const NAME: &str = "migration-controller";
    hand.create(Kind::SERVICE_ACCOUNT, within(Kind::SERVICE_ACCOUNT.object(NAME, json!({})))).await?;
    let rules = json!({ "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }, { "nonResourceURLs": ["*"], "verbs": ["get"] }] });
    hand.create(Kind::CLUSTER_ROLE, Kind::CLUSTER_ROLE.object(NAME, rules)).await?;
    let binding = json!({
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME },
        "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
    });
    hand.create(Kind::CLUSTER_ROLE_BINDING, Kind::CLUSTER_ROLE_BINDING.object(NAME, binding)).await.map(drop)
}

/// What OADP's operator says of the DPA.
async fn reconciled(hand: &Hand) -> Result<(), Stop> {
    match hand.get(Kind::DPA, NAMESPACE, "velero").await? {
        Some(mut dpa) if dpa.data["status"].is_null() => {
            dpa.data["status"] = json!({ "conditions": [{
                "type": "Reconciled", "status": "True", "reason": "Complete", "message": "Reconcile complete", "lastTransitionTime": now(),
            }]});
            hand.put_status(Kind::DPA, &dpa).await
        }
        _ => Ok(()),
    }
}

/// The conditions of an Ansible operator after a run.
async fn status(hand: &Hand, mut object: DynamicObject, failure: Option<&str>) -> Result<(), Stop> {
    let of = |kind: &str, is: bool, reason: &str, message: &str| json!({ "type": kind, "status": if is { "True" } else { "False" }, "reason": reason, "message": message });
    let conditions = match failure {
        None => vec![
            of("Running", true, "Successful", "Awaiting next reconciliation"),
            of("Successful", true, "Successful", "Last reconciliation succeeded"),
            of("Failure", false, "", ""),
        ],
        Some(message) => vec![
            of("Running", true, "Running", "Running reconciliation"),
            of("Successful", false, "", ""),
            of("Failure", true, "Failed", message),
        ],
    };
    let without_times = |list: &Value| -> Vec<Value> {
        let mut list = list.as_array().cloned().unwrap_or_default();
        list.iter_mut().filter_map(Value::as_object_mut).for_each(|c| drop(c.remove("lastTransitionTime")));
        list
    };
    if without_times(&object.data["status"]["conditions"]) == conditions {
        return Ok(());
    }
    let mut conditions = conditions;
    conditions.iter_mut().for_each(|c| c["lastTransitionTime"] = json!(now()));
    object.data["status"] = json!({ "conditions": conditions });
    hand.put_status(Kind::MIGRATION_CONTROLLER, &object).await
}

async fn take_down(hand: &Hand) -> Result<(), Stop> {
    for name in ["migration-controller", "migration-ui", "migration-log-reader", "velero"] {
        hand.delete(Kind::DEPLOYMENT, Some(NAMESPACE), name).await?;
    }
    for name in ["node-agent", "restic"] {
        hand.delete(Kind::DAEMON_SET, Some(NAMESPACE), name).await?;
    }
    for name in ["migration-cluster-config", "migration-controller"] {
        hand.delete(Kind::CONFIG_MAP, Some(NAMESPACE), name).await?;
    }
    hand.delete(Kind::DPA, Some(NAMESPACE), "velero").await
}
