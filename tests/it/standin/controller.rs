//! MTC's controllers: MigCluster and MigStorage, on the control cluster.
//!
//! Every write replaces the whole object with PUT, status included, and resets `spec.refresh`; a lost race is left to the
//! next round. Conditions that a round does not find vanish. A MigCluster is tested by really calling the cluster with the
//! token of its Secret: `/version`, then whether the token may do everything with MTC's and Velero's kinds, then the
//! version of the operator there. Not played: the registry route ([`super::Mood::critical`] can say it failed). Whether a
//! MigStorage's bucket answers is said by [`super::Behaviour::storage_fails`].

use super::{Hand, Kind, Mood, NAMESPACE, Stop, name_of, now};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long the result of a test is good. The real ones test every 60 s (clusters) and 30 s (storages).
const TEST_AGAIN: Duration = Duration::from_millis(500);

/// The real controller gives a cluster as much time to answer.
const CONNECT: Duration = Duration::from_secs(5);

/// What is remembered between rounds: the last test of each MigCluster, for what it was made, and when.
#[derive(Default)]
pub struct Controller {
    tests: HashMap<String, (String, Instant, Found)>,
}

/// What a look at an object found.
#[derive(Clone, Default)]
struct Found {
    /// Type, category, reason, message.
    conditions: Vec<(String, &'static str, String, String)>,
    operator_version: Option<String>,
}

impl Found {
    fn critical(kind: &str, reason: &str, message: &str) -> Self {
        Self {
            conditions: vec![(kind.to_owned(), "Critical", reason.to_owned(), message.to_owned())],
            operator_version: None,
        }
    }
}

impl Controller {
    /// One look at each object. Nothing happens where the controller's Deployment is not there.
    pub async fn round(&mut self, hand: &Hand) -> Result<(), Stop> {
        if !hand.exists(Kind::DEPLOYMENT, NAMESPACE, "migration-controller").await? {
            return Ok(());
        }
        for cluster in here(hand.list(Kind::MIG_CLUSTER).await?) {
            let found = self.test_cluster(hand, &cluster).await?;
            write(hand, Kind::MIG_CLUSTER, cluster, found).await?;
        }
        for storage in here(hand.list(Kind::MIG_STORAGE).await?) {
            let found = test_storage(hand, &storage).await?;
            write(hand, Kind::MIG_STORAGE, storage, found).await?;
        }
        Ok(())
    }

    async fn test_cluster(&mut self, hand: &Hand, cluster: &DynamicObject) -> Result<Found, Stop> {
        let spec = &cluster.data["spec"];
        let ours = operator_version(&hand.client).await;
        if spec["isHostCluster"] == true {
            return Ok(Found { conditions: vec![], operator_version: ours });
        }
        let url = spec["url"].as_str().unwrap_or_default();
        if url.is_empty() {
            return Ok(Found::critical("InvalidURL", "NotSet", "The `url` is not set."));
        }
        let Ok(address) = url.parse::<hyper::Uri>() else {
            return Ok(Found::critical("InvalidURL", "Malformed", &format!("The `url` is malformed: {url}")));
        };
        if !matches!(address.scheme_str(), Some("http" | "https")) {
            return Ok(Found::critical("InvalidURL", "InvalidScheme", "The `url` must have scheme http or https."));
        }
        let Some(secret) = secret(hand, &spec["serviceAccountSecretRef"]).await? else {
            let reason = if spec["serviceAccountSecretRef"].is_null() { "NotSet" } else { "NotFound" };
            return Ok(Found::critical(
                "InvalidSaSecretRef",
                reason,
                "The `serviceAccountSecretRef` must reference a `secret`.",
            ));
        };
        let token = match value(&secret, "saToken") {
            None => {
                return Ok(Found::critical(
                    "InvalidSaToken",
                    "NotFound",
                    "The `saToken` not found in `serviceAccountSecretRef` secret.",
                ));
            }
            Some(token) if token.is_empty() => {
                return Ok(Found::critical(
                    "InvalidSaToken",
                    "NotSet",
                    "The `saToken` found in `serviceAccountSecretRef` secret is empty.",
                ));
            }
            Some(token) => token,
        };
        let version = secret.metadata.resource_version.clone().unwrap_or_default();
        let key = format!("{}{version}", digest(spec));
        if let Some((tested, when, found)) = self.tests.get(name_of(cluster))
            && *tested == key
            && when.elapsed() < TEST_AGAIN
            && spec["refresh"] != true
        {
            return Ok(found.clone());
        }
        let mut found = connect(address, spec, token).await;
        if found.conditions.is_empty() && found.operator_version.is_none() {
            found.conditions.push(warning(
                "ClusterOperatorVersionNotFound",
                "VersionNotFound",
                "The operator version could not be found on this cluster.",
            ));
        } else if found.operator_version.is_some() && found.operator_version != ours {
            found.conditions.push(warning(
                "OperatorVersionMismatch",
                "VersionCheckFailed",
                "The operator version of this cluster is not that of the host cluster.",
            ));
        }
        self.tests.insert(name_of(cluster).to_owned(), (key, Instant::now(), found.clone()));
        Ok(found)
    }
}

fn warning(kind: &str, reason: &str, message: &str) -> (String, &'static str, String, String) {
    (kind.to_owned(), "Warn", reason.to_owned(), message.to_owned())
}

fn here(objects: Vec<DynamicObject>) -> impl Iterator<Item = DynamicObject> {
    objects
        .into_iter()
        .filter(|o| o.metadata.namespace.as_deref() == Some(NAMESPACE) && o.metadata.deletion_timestamp.is_none())
}

async fn secret(hand: &Hand, reference: &Value) -> Result<Option<DynamicObject>, Stop> {
    match (reference["namespace"].as_str(), reference["name"].as_str()) {
        (Some(namespace), Some(name)) => hand.get(Kind::SECRET, namespace, name).await,
        _ => Ok(None),
    }
}

/// A value of a Secret, as text.
fn value(secret: &DynamicObject, key: &str) -> Option<String> {
    let encoded = secret.data["data"].get(key)?.clone();
    let bytes: k8s_openapi::ByteString = serde_json::from_value(encoded).ok()?;
    String::from_utf8(bytes.0).ok()
}

async fn operator_version(client: &kube::Client) -> Option<String> {
    let map = Kind::CONFIG_MAP.within(client, NAMESPACE).get_opt("migration-cluster-config").await.ok()??;
    map.data["data"]["OPERATOR_VERSION"].as_str().map(str::to_owned)
}

/// The test of a remote cluster.
async fn connect(address: hyper::Uri, spec: &Value, token: String) -> Found {
    let mut config = kube::Config::new(address);
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(CONNECT);
    config.accept_invalid_certs = spec["insecure"] == true;
    config.auth_info.token = Some(token.into());
    let bundle: Option<k8s_openapi::ByteString> = serde_json::from_value(spec["caBundle"].clone()).ok().flatten();
    if let Some(bundle) = bundle {
        use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
        config.root_cert =
            CertificateDer::pem_slice_iter(&bundle.0).map(|c| c.map(|c| c.to_vec())).collect::<Result<_, _>>().ok();
    }
    let failed = |error: &kube::Error| {
        let mut message = format!("Test connect failed: {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            message += &format!(": {error}");
            cause = error.source();
        }
        Found::critical("TestConnectFailed", "ConnectFailed", &message)
    };
    let client = match kube::Client::try_from(config) {
        Ok(client) => client,
        Err(error) => return failed(&error),
    };
    if let Err(error) = client.apiserver_version().await {
        return failed(&error);
    }
    for group in ["migration.openshift.io", "velero.io"] {
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some("*".to_owned()),
            verb: Some("*".to_owned()),
            version: Some("*".to_owned()),
            ..Default::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..Default::default()
        };
        match Api::all(client.clone()).create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|s| s.allowed) => {}
            Ok(_) => {
                let message = "The `saToken` has insufficient privileges.";
                return Found::critical("SaTokenNotPrivileged", "Unauthorized", message);
            }
            Err(error) => return failed(&error),
        }
    }
    Found { conditions: vec![], operator_version: operator_version(&client).await }
}

async fn test_storage(hand: &Hand, storage: &DynamicObject) -> Result<Found, Stop> {
    let spec = &storage.data["spec"];
    let config = &spec["backupStorageConfig"];
    let keys: &[&str] = match spec["backupStorageProvider"].as_str() {
        Some("aws") => &["aws-access-key-id", "aws-secret-access-key"],
        Some("gcp") => &["gcp-credentials"],
        Some("azure") => &["azure-credentials"],
        None | Some("") => {
            return Ok(Found::critical(
                "InvalidBackupStorageProvider",
                "NotSet",
                "The `backupStorageProvider` must be: (aws|gcp|azure).",
            ));
        }
        Some(_) => {
            return Ok(Found::critical(
                "InvalidBackupStorageProvider",
                "NotSupported",
                "The `backupStorageProvider` must be: (aws|gcp|azure).",
            ));
        }
    };
    let Some(secret) = secret(hand, &config["credsSecretRef"]).await? else {
        let reason = if config["credsSecretRef"].is_null() { "NotSet" } else { "NotFound" };
        return Ok(Found::critical(
            "InvalidBackupStorageCredsSecretRef",
            reason,
            "The `backupStorageConfig.credsSecretRef` must reference a `secret`.",
        ));
    };
    let bucket = ["awsBucketName", "gcpBucket", "azureStorageAccount"]
        .iter()
        .any(|f| config[*f].as_str().is_some_and(|s| !s.is_empty()));
    if !bucket {
        return Ok(Found::critical(
            "InvalidBackupStorageSettings",
            "NotSupported",
            "The `backupStorageConfig` settings [bucket] not valid.",
        ));
    }
    let test_failed = |message: &str| Ok(Found::critical("BackupStorageProviderTestFailed", "TestFailed", message));
    if let Some(absent) = keys.iter().find(|k| value(&secret, k).is_none_or(|v| v.is_empty() || v.ends_with('\n'))) {
        return test_failed(&format!("Test of the backup storage failed: credentials `{absent}` are not usable"));
    }
    match &hand.behaviour().storage_fails {
        Some(message) => test_failed(message),
        None => Ok(Found::default()),
    }
}

fn digest(spec: &Value) -> String {
    Sha256::digest(spec.to_string()).iter().map(|b| format!("{b:02x}")).collect()
}

/// Replaces the object where it has anything new to say.
async fn write(hand: &Hand, kind: Kind, mut object: DynamicObject, found: Found) -> Result<(), Stop> {
    let behaviour = hand.behaviour();
    let mood = behaviour.moods.get(name_of(&object)).cloned().unwrap_or_default();
    let before = object.clone();
    if object.data["spec"]["refresh"] == true {
        object.data["spec"]["refresh"] = json!(false);
    }
    let mut status = json!({
        "conditions": conditions(&mood, found.conditions, &before.data["status"]["conditions"], hand.is_odd_round()),
        "observedDigest": digest(&object.data["spec"]),
    });
    if let (Kind::MIG_CLUSTER, Some(version)) = (kind, found.operator_version) {
        status["operatorVersion"] = json!(version);
    }
    object.data["status"] = status;
    if object.data != before.data || behaviour.restless {
        let touch = format!("{}-{}", object.metadata.resource_version.clone().unwrap_or_default(), now());
        object.metadata.annotations.get_or_insert_default().insert("openshift.io/touch".to_owned(), touch);
        hand.put(kind, &object).await?;
    }
    Ok(())
}

fn conditions(
    mood: &Mood,
    mut found: Vec<(String, &'static str, String, String)>,
    old: &Value,
    is_odd: bool,
) -> Vec<Value> {
    if mood.never_ready {
        return Vec::new();
    }
    if let Some((kind, reason, message)) = &mood.critical {
        found.push((kind.clone(), "Critical", reason.clone(), message.clone()));
    }
    let blocked = found.iter().any(|c| matches!(c.1, "Critical" | "Error"));
    let blinks_off = mood.blinking && is_odd;
    if !blocked && !blinks_off {
        found.push(("Ready".to_owned(), "Required", String::new(), "The object is ready.".to_owned()));
    }
    let old = old.as_array().cloned().unwrap_or_default();
    let since = |kind: &str, reason: &str| {
        let same = old.iter().find(|c| c["type"] == kind && c["reason"].as_str().unwrap_or_default() == reason);
        same.and_then(|c| c["lastTransitionTime"].as_str().map(str::to_owned)).unwrap_or_else(now)
    };
    let condition = |(kind, category, reason, message): (String, &str, String, String)| {
        let mut condition = json!({
            "type": kind, "status": "True", "category": category, "message": message, "lastTransitionTime": since(&kind, &reason),
        });
        if !reason.is_empty() {
            condition["reason"] = json!(reason);
        }
        condition
    };
    found.into_iter().map(condition).collect()
}
