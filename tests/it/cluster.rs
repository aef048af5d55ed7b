//! The Kubernetes provider on real API servers: every way of access, what is read, what is done, and every fault.

mod acts;
mod faults;
mod observes;
mod program;
mod reaches;
mod scale;
mod watches;

use crate::controlplane::Server;
use crate::controlplane::faults::Front;
use drover::action::{Action, ClusterAction};
use drover::kind::cluster::ClusterSpec;
use drover::model::ObjectRef;
use drover::observed::{ClusterState, Reading, Right};
use drover::provider::kubernetes::{Declared, KubernetesOptions, Reader, Writer};
use drover::provider::secrets::SecretBounds;
use drover::provider::{ActError, Actor as _, ClusterObserver as _, Look, StepCtx, StepOrders};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// How long a reading may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A folder with secrets, as an operator has it, and clusters that are reached by what is in it.
struct Site {
    folder: TempDir,
    options: KubernetesOptions,
    clusters: BTreeMap<String, Declared>,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secrets = SecretBounds { folders: vec![folder.path().to_owned()], ..SecretBounds::default() };
        Self {
            options: KubernetesOptions { secrets, ..KubernetesOptions::default() },
            folder,
            clusters: BTreeMap::new(),
        }
    }

    /// A secret in a file of the operator's: its path.
    fn secret(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The fields of a Cluster's manifest that reach a server at this address by a token.
    fn by_token(&self, name: &str, server: &Server, url: &str, token: &str) -> String {
        let (token, ca) =
            (self.secret(&format!("{name}-token"), token), self.secret(&format!("{name}-ca"), &server.ca()));
        format!(
            "serviceAccount: {{server: '{url}', token: {{secretRef: {{file: {token}}}}}, ca: {{secretRef: {{file: {ca}}}}}}}"
        )
    }

    /// Adds a cluster with these fields of its manifest.
    fn with(mut self, name: &str, fields: &str) -> Self {
        // By way of JSON's values, as manifests are read: YAML's own form of a choice is a tag.
        let value: Value = serde_yaml::from_str(fields).unwrap();
        let spec: ClusterSpec = serde_json::from_value(value).unwrap();
        self.clusters.insert(name.to_owned(), Declared { spec, rights: Vec::new() });
        self
    }

    /// The server as `c`, by its administrator's token.
    fn of(server: &Server, more: &str) -> Self {
        let site = Self::new();
        let fields = site.by_token("c", server, &server.url(), &server.admin_token());
        site.with("c", &format!("{fields}\n{more}"))
    }

    /// The server as `c`, through a front.
    fn through(front: &Front<'_>, server: &Server, more: &str) -> Self {
        let site = Self::new();
        let fields = site.by_token("c", server, &front.url(), &server.admin_token());
        site.with("c", &format!("{fields}\n{more}"))
    }

    fn needing(mut self, rights: &[Right]) -> Self {
        self.clusters.values_mut().for_each(|c| c.rights = rights.to_vec());
        self
    }

    fn reader(&self) -> Reader {
        Reader::new(self.clusters.clone(), self.options.clone(), None)
    }

    fn writer(&self) -> Writer {
        Writer::new(self.clusters.clone(), self.options.clone(), None)
    }

    /// What is read of `c`, or why it is not.
    async fn read(&self) -> Result<ClusterState, String> {
        read(&self.reader(), "c", PATIENCE).await
    }
}

async fn read(reader: &Reader, cluster: &str, deadline: Duration) -> Result<ClusterState, String> {
    match reader.observe(cluster, deadline).await {
        Reading::Present(state) => Ok(state),
        Reading::Unknown { why } => Err(why),
    }
}

/// A step's surroundings, and what it tells.
fn step(deadline: Duration) -> (StepCtx, Arc<Mutex<Vec<String>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let phases = told.clone();
    let ctx = StepCtx {
        deadline,
        cancel: Default::default(),
        progress: Arc::new(move |p| phases.lock().unwrap().push(p.phase)),
        orders: StepOrders::default(),
        note: Arc::new(|_| {}),
    };
    (ctx, told)
}

async fn look(writer: &Writer, action: &ClusterAction) -> Result<Look, ActError> {
    writer.look(&Action::Cluster(action.clone()), &step(PATIENCE).0).await
}

async fn act(writer: &Writer, action: &ClusterAction) -> Result<(), ActError> {
    writer.act(&Action::Cluster(action.clone()), &step(PATIENCE).0).await
}

async fn verify(writer: &Writer, action: &ClusterAction) -> Result<(), ActError> {
    writer.verify(&Action::Cluster(action.clone()), &step(PATIENCE).0).await
}

/// The way of a step that goes well.
async fn done(writer: &Writer, action: &ClusterAction) {
    assert_eq!(look(writer, action).await.unwrap(), Look::Ready, "{action:?}");
    act(writer, action).await.unwrap();
    verify(writer, action).await.unwrap();
    assert_eq!(look(writer, action).await.unwrap(), Look::AlreadyDone, "{action:?}");
}

fn config_map(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::new("v1", "ConfigMap", namespace, name)
}

fn apply(id: &ObjectRef, fields: Value, force: bool) -> ClusterAction {
    let mut object = serde_json::json!({
        "apiVersion": id.api_version, "kind": id.kind, "metadata": {"name": id.name, "namespace": id.namespace},
    });
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    ClusterAction::ApplyObject { cluster: "c".into(), id: id.clone(), object, force, secrets: BTreeMap::new() }
}

/// A file's text with nothing secret in its name.
fn read_file(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
