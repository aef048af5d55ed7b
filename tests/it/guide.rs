//! Chapter 3 of the migration guide on real API servers, by manifests alone and by the program itself: from empty to installed
//! to changed to removed, each with a plan before and an empty plan after. OLM, MTC's operators and controllers are the
//! stand-in's.

mod legacy;
mod modern;

use crate::controlplane::{Server, crds, named};
use crate::standin::{Kind, NAMESPACE};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::process::{Command, Output};
use tempfile::TempDir;

const CLUSTER_VERSION: Kind = Kind("config.openshift.io", "v1", "ClusterVersion", "clusterversions");
const NETWORK_POLICY: Kind = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies");

/// An operator's folders: secrets, and manifests.
struct Desk {
    secrets: TempDir,
    manifests: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { secrets: tempfile::tempdir().unwrap(), manifests: tempfile::tempdir().unwrap() };
        let folder = desk.secrets.path().display();
        let config = format!("state-dir = '{folder}/state'\n[secrets]\nenv = ['STUNNEL']\nfolders = ['{folder}']\n");
        desk.secret("drover.toml", &config);
        desk
    }

    /// A file of the operator's: its path.
    fn secret(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.secrets.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a cluster's manifest: how the server is reached, and what else is said.
    fn says(&self, name: &str, server: &Server, more: &str) {
        let token = self.secret(&format!("{name}.token"), &server.admin_token());
        let ca = self.secret(&format!("{name}.crt"), &server.ca());
        let text = format!(
            "apiVersion: drover/v1alpha1\nkind: Cluster\nmetadata: {{name: {name}}}\nspec:\n  serviceAccount:\n    server: {}\n    \
             token: {{secretRef: {{file: '{token}'}}}}\n    ca: {{secretRef: {{file: '{ca}'}}}}\n{more}",
            server.url()
        );
        self.file(&format!("{name}.yaml"), &text);
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.manifests.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn drover(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        command.arg("--config").arg(self.secrets.path().join("drover.toml")).args(arguments);
        command.arg(self.manifests.path()).env_clear().env("STUNNEL", "http://user:hunter2@proxy.example.com:8080");
        command.output().unwrap()
    }

    fn plan(&self) -> Value {
        let out = self.drover(&["plan", "-o", "json"]);
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Applies: there was something to do, it is done, and then there is nothing to do. Gives the steps.
    #[track_caller]
    fn apply(&self) -> Vec<String> {
        let plan = self.plan();
        let steps = summaries(&plan);
        assert!(!steps.is_empty(), "{plan:#}");
        let out = self.drover(&["apply", "--auto-approve"]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{said}");
        assert!(!said.contains("hunter2") && !plan.to_string().contains("hunter2"), "{said}");
        let after = self.plan();
        assert_eq!(summaries(&after), Vec::<String>::new(), "{after:#}");
        steps
    }
}

fn summaries(plan: &Value) -> Vec<String> {
    plan["steps"].as_array().unwrap().iter().map(|s| s["summary"].as_str().unwrap().to_owned()).collect()
}

fn has(steps: &[String], step: &str) -> bool {
    steps.iter().any(|s| s == step)
}

/// What an OpenShift of this version has before MTC comes.
async fn openshift(server: &Server, version: &str, with_olm: bool) -> kube::Client {
    let client = server.client().await;
    crds::install_named(&client, &crds::in_group("config.openshift.io")).await;
    let mut namespaces = vec!["openshift-config", "shop"];
    if with_olm {
        crds::install_named(&client, &crds::in_group("operators.coreos.com")).await;
        namespaces.push("openshift-marketplace");
    }
    for name in namespaces {
        let namespace = Namespace { metadata: named(name), ..Default::default() };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }
    if with_olm {
        let source = Kind::CATALOG_SOURCE.object("redhat-operators", json!({ "spec": { "sourceType": "grpc" } }));
        let api = Kind::CATALOG_SOURCE.within(&client, "openshift-marketplace");
        api.create(&PostParams::default(), &source).await.unwrap();
    }
    let id = "11111111-2222-3333-4444-555555555555";
    let api = CLUSTER_VERSION.everywhere(&client);
    let object = CLUSTER_VERSION.object("version", json!({ "spec": { "clusterID": id } }));
    api.create(&PostParams::default(), &object).await.unwrap();
    let status = json!({ "status": {
        "desired": { "version": version, "image": "example.com/release" }, "availableUpdates": [], "observedGeneration": 1, "versionHash": "x",
        "history": [{
            "state": "Completed", "version": version, "image": "example.com/release", "verified": false,
            "startedTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T01:00:00Z",
        }],
    }});
    api.patch_status("version", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    client
}

async fn get(client: &kube::Client, kind: Kind, namespace: &str, name: &str) -> Value {
    let found = kind.within(client, namespace).get_opt(name).await.unwrap();
    found.map_or(Value::Null, |o| serde_json::to_value(o).unwrap())
}

async fn is_namespace_gone(client: &kube::Client) -> bool {
    Api::<Namespace>::all(client.clone()).get_opt(NAMESPACE).await.unwrap().is_none()
}
