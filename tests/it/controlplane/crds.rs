//! The CustomResourceDefinitions of the systems that Drover drives.
//!
//! Ours (`tests/controlplane/crds`) have the fields that Drover writes or reads, in the shape of the real ones. Where
//! `DROVER_TEST_CRDS` names a folder with the real ones, those are installed, and ours only for what has no real one.

use super::PATIENCE;
use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The folders of `DROVER_TEST_CRDS` that are installed: of two releases of one thing, the newer.
const REAL: [&str; 7] = ["mtc", "velero", "oadp", "olm", "openshift", "ovn", "noobaa"];

/// What real clusters serve without a CRD, by an aggregated API server: only ours are there.
pub const WITHOUT_REAL_ONE: [&str; 1] = ["imagestreams.image.openshift.io"];

/// Ours, by name.
pub fn ours() -> &'static BTreeMap<String, Value> {
    static OURS: LazyLock<BTreeMap<String, Value>> =
        LazyLock::new(|| read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/controlplane/crds")));
    &OURS
}

/// The names of ours in this API group.
pub fn in_group(group: &str) -> Vec<String> {
    ours().keys().filter(|name| name.split_once('.').is_some_and(|(_, g)| g == group)).cloned().collect()
}

/// The real ones, by name; the reason where there are none.
pub fn real() -> Result<BTreeMap<String, Value>, String> {
    let Some(folder) = std::env::var_os("DROVER_TEST_CRDS").map(PathBuf::from) else {
        return Err("DROVER_TEST_CRDS names no folder with the real CRDs".to_owned());
    };
    // A variable that is set and leads nowhere is a mistake, not a machine without CRDs.
    assert!(folder.join("mtc").is_dir(), "DROVER_TEST_CRDS={}: it has no folder mtc", folder.display());
    Ok(REAL.iter().flat_map(|part| read(&folder.join(part))).collect())
}

fn read(folder: &Path) -> BTreeMap<String, Value> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "yaml"));
    let mut all = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for document in text.split("\n---\n") {
            let crd: Value = serde_yaml::from_str(document).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            if let Some(name) = crd["metadata"]["name"].as_str() {
                all.insert(name.to_owned(), crd);
            }
        }
    }
    all
}

/// Those that are installed: the real ones where they are there, else ours.
fn all() -> &'static BTreeMap<String, Value> {
    static ALL: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
        let mut all = ours().clone();
        all.extend(real().unwrap_or_default());
        all
    });
    &ALL
}

/// Installs them all and waits until they are established. What is there already stays.
pub async fn install(client: &kube::Client) {
    try_install(client, &all().keys().cloned().collect::<Vec<_>>()).await.unwrap();
}

/// Installs only these, by name.
pub async fn install_named(client: &kube::Client, names: &[String]) {
    try_install(client, names).await.unwrap();
}

/// The same, where the server may be down or go down.
///
/// # Errors
///
/// The server did not answer, or refused a CRD.
pub async fn try_install(client: &kube::Client, names: &[String]) -> Result<(), kube::Error> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<CustomResourceDefinition>(&()));
    let install = names.iter().map(|name| {
        let (api, crd) = (api.clone(), all().get(name).unwrap_or_else(|| panic!("there is no CRD {name}")).clone());
        async move {
            // As it is, and not by the typed one: real files have nulls that a strict type stumbles over.
            let object: DynamicObject = serde_json::from_value(crd).unwrap();
            match api.create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                other => drop(other?),
            }
            let deadline = Instant::now() + PATIENCE;
            loop {
                let crd = api.get(name).await?;
                let conditions = crd.data["status"]["conditions"].as_array();
                if conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Established" && c["status"] == "True")) {
                    return Ok(());
                }
                assert!(Instant::now() < deadline, "{name} is not established within {PATIENCE:?}: {:#}", crd.data);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    try_join_all(install).await.map(drop)
}
