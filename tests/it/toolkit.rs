//! The Migration Toolkit for Containers by manifest alone, with the program, on real API servers: the procedures of the
//! migration guide's installation chapter (3.2, 3.3, 3.4, 3.6), each from nothing to installed, changed and removed, with a plan
//! before and an empty plan after. What OLM and MTC's own controllers do is the stand-in's (`standin`).

use crate::controlplane::{Server, crds, named};
use crate::standin::{Kind, NAMESPACE, Release, StandIn};
use assert_cmd::Command;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// OpenShift's cluster: platform objects of a release, a catalogue, and nothing of MTC.
pub struct Ocp {
    pub server: Server,
    pub client: kube::Client,
}

impl Ocp {
    /// A cluster of this OpenShift release, alone. `None` where this machine has no API server.
    pub async fn new(name: &str, release: &str) -> Option<Self> {
        let server = Server::alone(name)?;
        let client = server.client().await;
        let groups = ["config.openshift.io", "network.openshift.io", "operators.coreos.com", "route.openshift.io"];
        let platform: Vec<String> = groups.iter().flat_map(|g| crds::in_group(g)).collect();
        crds::install_named(&client, &platform).await;
        let ocp = Self { server, client };
        for namespace in ["kube-system", "openshift-marketplace", "openshift-config"] {
            ocp.namespace(namespace).await;
        }
        let source = Kind::CATALOG_SOURCE.object("redhat-operators", json!({"spec": {"sourceType": "grpc"}}));
        let sources = Kind::CATALOG_SOURCE.within(&ocp.client, "openshift-marketplace");
        sources.create(&PostParams::default(), &source).await.unwrap();
        ocp.version(release).await;
        Some(ocp)
    }

    pub async fn namespace(&self, name: &str) {
        let namespace = Namespace { metadata: named(name), ..Default::default() };
        let api = Api::<Namespace>::all(self.client.clone());
        if api.get_opt(name).await.unwrap().is_none() {
            api.create(&PostParams::default(), &namespace).await.unwrap();
        }
    }

    async fn version(&self, release: &str) {
        let kind = Kind("config.openshift.io", "v1", "ClusterVersion", "clusterversions");
        let api = kind.everywhere(&self.client);
        let id = "0bad0bad-0000-4000-8000-000000000000";
        let version = kind.object("version", json!({"spec": {"clusterID": id}}));
        api.create(&PostParams::default(), &version).await.unwrap();
        let time = "2026-01-01T00:00:00Z";
        let status = json!({
            "desired": {"version": release, "image": "i"}, "observedGeneration": 1, "versionHash": "h", "availableUpdates": [],
            "history": [{"state": "Completed", "version": release, "image": "i", "startedTime": time,
                         "completionTime": time, "verified": true}],
        });
        let patch = json!({"status": status});
        api.patch_status("version", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// An object of MTC's namespace; null where it is not there.
    pub async fn get(&self, kind: Kind, name: &str) -> Value {
        self.get_in(kind, NAMESPACE, name).await
    }

    pub async fn get_in(&self, kind: Kind, namespace: &str, name: &str) -> Value {
        match kind.within(&self.client, namespace).get_opt(name).await {
            Ok(found) => found.map_or(Value::Null, |o| serde_json::to_value(o).unwrap()),
            // Not served yet: 404, or 429 while the server takes the definition in.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => Value::Null,
            Err(e) => panic!("{e}"),
        }
    }

    pub async fn patch(&self, kind: Kind, name: &str, patch: Value) {
        let api = kind.within(&self.client, NAMESPACE);
        let as_people = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        api.patch(name, &as_people, &Patch::Merge(patch)).await.unwrap();
    }

    /// Creates what a text of YAML documents has, as `kubectl create -f -` does.
    pub async fn create_all(&self, text: &str) {
        for document in text.split("---\n").filter(|d| d.contains("kind:")) {
            let object: DynamicObject = serde_yaml::from_str(document).unwrap_or_else(|e| panic!("{e}: {document}"));
            let types = object.types.clone().unwrap();
            let gvk = kube::api::GroupVersionKind::try_from(&types).unwrap();
            let resource = kube::api::ApiResource::from_gvk(&gvk);
            let api: Api<DynamicObject> = match &object.metadata.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            match api.create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                other => drop(other.unwrap()),
            }
        }
    }

    /// Names of the CRDs of MTC and Velero.
    pub async fn toolkit_crds(&self) -> Vec<String> {
        let kind = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
        let all: Vec<DynamicObject> = kind.everywhere(&self.client).list(&Default::default()).await.unwrap().items;
        let names = all.into_iter().filter_map(|crd| crd.metadata.name);
        names.filter(|n| n.ends_with(".migration.openshift.io") || n.ends_with(".velero.io")).collect()
    }
}

/// A repository, and the program beside it.
pub struct Repo {
    folder: TempDir,
    env: BTreeMap<String, String>,
}

impl Repo {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), env: BTreeMap::new() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join("fleet").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The kubeconfig of a server, as a secret.
    pub fn admin(&mut self, name: &str, server: &Server) {
        self.secret(name, &kubeconfig(server, &server.admin_token()));
    }

    pub fn secret(&mut self, name: &str, value: &str) {
        self.env.insert(format!("DROVER_SECRET_{name}"), value.to_owned());
    }

    pub fn drover(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        command.args(args).current_dir(self.path()).env_clear().env("HOME", self.path()).envs(&self.env);
        command
    }

    /// Exit code, and all that was said. No secret may be in it.
    pub async fn run(&self, args: &[&str]) -> (i32, String) {
        let mut command = self.drover(args);
        let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        for (name, value) in &self.env {
            let config: Value = serde_json::from_str(value).unwrap_or_default();
            let secret = config.pointer("/users/0/user/token").and_then(Value::as_str).unwrap_or(value);
            assert!(!text.contains(secret), "the value of {name} is in what `drover {args:?}` wrote");
        }
        (out.status.code().unwrap_or(-1), text)
    }

    pub async fn plan(&self) -> (i32, String) {
        self.run(&["plan", "fleet", "--detailed-exitcode"]).await
    }

    /// Plans, and expects these lines in it.
    #[track_caller]
    pub fn expect<'a>(&'a self, lines: &'a [&'a str]) -> impl Future<Output = String> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let (code, text) = self.plan().await;
            assert_eq!(code, 2, "{place}: {text}");
            for line in lines {
                assert!(text.contains(line), "{place}: `{line}` is not in it\n{text}");
            }
            text
        }
    }

    pub async fn apply(&self) -> String {
        let (code, text) = self.run(&["apply", "fleet", "--auto-approve", "--state", "state"]).await;
        assert_eq!(code, 0, "{text}");
        text
    }

    pub async fn settled(&self) {
        let (code, text) = self.plan().await;
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("No changes"), "{text}");
    }
}

/// A kubeconfig with everything in it, as Drover takes it by default.
fn kubeconfig(server: &Server, token: &str) -> String {
    let ca = serde_json::to_value(k8s_openapi::ByteString(server.ca().into_bytes())).unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server.url(), "certificate-authority-data": ca}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    config.to_string()
}

fn cluster(name: &str, rest: &str) -> String {
    let secret = format!("DROVER_SECRET_{}", name.to_uppercase());
    format!(
        "apiVersion: drover/v1alpha1\nkind: Cluster\nmetadata: {{name: {name}}}\nspec:\n  kubeconfig: {{secretRef: {{env: {secret}}}}}\n{rest}"
    )
}

/// 3.3: OLM, the operator, the MigrationController, its pods. Then a variable is changed in Git, another by hand; 3.6: all of
/// it goes, in order.
#[tokio::test(flavor = "multi_thread")]
async fn the_toolkit_comes_by_olm_is_changed_and_goes_again() {
    let Some(ocp) = Ocp::new("ocp4", "4.10.21").await else { return };
    let _players = StandIn::of(&ocp.server).olm().operator(Release::Modern).controller().start();
    let mut repo = Repo::new();
    repo.admin("OCP4", &ocp.server);
    let with = |controller: &str| {
        cluster(
            "ocp4",
            &format!(
                "  role: Control\n  platform: openshift-4.10\n  migrationToolkit:\n    install: OLM\n    channel: release-v1.8\n{controller}"
            ),
        )
    };
    repo.write("ocp4.yaml", &with(""));
    repo.expect(&["Cluster/ocp4", "Subscription", "OperatorGroup", "MigrationController"]).await;
    repo.apply().await;
    repo.settled().await;
    let subscription = ocp.get(Kind::SUBSCRIPTION, "mtc-operator").await;
    assert_eq!(subscription["spec"]["channel"], "release-v1.8");
    assert_eq!(subscription["status"]["state"], "AtLatestKnown");
    let controller = ocp.get(Kind::MIGRATION_CONTROLLER, "migration-controller").await;
    assert_eq!(controller["spec"]["migration_controller"], true);

    // A variable in Git, and one by hand that Git does not have: it stays.
    ocp.patch(Kind::MIGRATION_CONTROLLER, "migration-controller", json!({"spec": {"mig_namespace_limit": "20"}})).await;
    repo.settled().await;
    repo.write("ocp4.yaml", &with("    controller: {podLimit: 50, rsyncEndpointType: NodePort}\n"));
    repo.expect(&["mig_pod_limit", "rsync_endpoint_type", "NodePort"]).await;
    repo.apply().await;
    repo.settled().await;
    let controller = ocp.get(Kind::MIGRATION_CONTROLLER, "migration-controller").await;
    assert_eq!(controller["spec"]["rsync_endpoint_type"], "NodePort");
    assert_eq!(controller["spec"]["mig_namespace_limit"], "20");

    // What Git has is put back.
    let by_hand = json!({"spec": {"rsync_endpoint_type": "ClusterIP"}});
    ocp.patch(Kind::MIGRATION_CONTROLLER, "migration-controller", by_hand).await;
    let text = repo.expect(&["ClusterIP", "NodePort"]).await;
    assert!(text.contains("rsync_endpoint_type"), "{text}");

    // 3.6
    repo.write("ocp4.yaml", &cluster("ocp4", "  role: Control\n  migrationToolkit: {install: None, prune: true}\n"));
    let text = repo.expect(&["MigrationController", "migplans.migration.openshift.io"]).await;
    assert!(text.contains("destructive"), "{text}");
    repo.write(
        "settings.yaml",
        "apiVersion: drover/v1alpha1\nkind: Settings\nmetadata: {name: default}\nspec: {prune: true, maxDeletes: 500}\n",
    );
    repo.apply().await;
    repo.settled().await;
    assert_eq!(ocp.get(Kind::MIGRATION_CONTROLLER, "migration-controller").await, Value::Null);
    assert_eq!(ocp.get(Kind::SUBSCRIPTION, "mtc-operator").await, Value::Null);
    assert_eq!(ocp.toolkit_crds().await, [""; 0]);
}

/// 3.2: the legacy operator's files, in their order; two role bindings are there already.
#[tokio::test(flavor = "multi_thread")]
async fn the_legacy_operator_comes_from_its_files() {
    let Some(ocp) = Ocp::new("ocp3", "4.5.41").await else { return };
    let _players = StandIn::of(&ocp.server).operator(Release::Legacy).start();
    ocp.namespace(NAMESPACE).await;
    let binding = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings");
    for name in ["system:image-builders", "system:image-pullers"] {
        let theirs = json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
        let api = binding.within(&ocp.client, NAMESPACE);
        api.create(&PostParams::default(), &binding.object(name, theirs)).await.unwrap();
    }
    let mut repo = Repo::new();
    repo.admin("OCP3", &ocp.server);
    repo.write("mtc/operator.yml", OPERATOR);
    repo.write("mtc/controller.yml", CONTROLLER);
    repo.write(
        "ocp3.yaml",
        &cluster(
            "ocp3",
            "  platform: openshift-4.5\n  migrationToolkit:\n    install: Manifests\n    manifests: {operator: {file: mtc/operator.yml}, controller: {file: mtc/controller.yml}}\n",
        ),
    );
    repo.expect(&["Deployment", "MigrationController"]).await;
    repo.apply().await;
    repo.settled().await;
    let kept = ocp.get(binding, "system:image-builders").await;
    assert!(kept["subjects"].is_null(), "somebody else's binding is left as it is: {kept}");
    assert!(!ocp.get(Kind::DEPLOYMENT, "migration-operator").await.is_null());
    let controller = ocp.get(Kind::MIGRATION_CONTROLLER, "migration-controller").await;
    assert_eq!(controller["spec"]["migration_velero"], true);
}

/// A remote cluster on the control cluster: its token, its MigCluster, Ready; then its token is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_cluster_is_registered_on_the_control_cluster() {
    let (Some(control), Some(remote)) = (Ocp::new("ctl", "4.10.21").await, Ocp::new("src", "4.11.3").await) else {
        return;
    };
    let _near = StandIn::of(&control.server).olm().operator(Release::Modern).controller().start();
    let _far = StandIn::of(&remote.server).olm().operator(Release::Modern).start();
    let mut repo = Repo::new();
    repo.admin("CTL", &control.server);
    repo.admin("SRC", &remote.server);
    let toolkit = "  migrationToolkit:\n    install: OLM\n    channel: release-v1.8\n";
    repo.write("ctl.yaml", &cluster("ctl", &format!("  role: Control\n{toolkit}")));
    let registered = format!("{toolkit}    registration: {{exposedRegistry: 'registry.apps.src.example.com:443'}}\n");
    repo.write("src.yaml", &cluster("src", &registered));
    repo.expect(&["MigCluster", "src"]).await;
    repo.apply().await;
    repo.settled().await;
    let seen = control.get(Kind::MIG_CLUSTER, "src").await;
    assert_eq!(seen["spec"]["url"], remote.server.url());
    assert_eq!(seen["spec"]["exposedRegistryPath"], "registry.apps.src.example.com:443");
    let conditions = seen["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{seen}");
}

/// 3.4.1.1, 3.4.2.3, 3.4.2.4, 3.4.3: proxies, endpoint and groups; the proxy's password stands in no output.
#[tokio::test(flavor = "multi_thread")]
async fn proxies_endpoints_and_groups_are_variables_of_the_controller() {
    let Some(ocp) = Ocp::new("proxied", "4.10.21").await else { return };
    let _players = StandIn::of(&ocp.server).olm().operator(Release::Modern).controller().start();
    let mut repo = Repo::new();
    repo.admin("PROXIED", &ocp.server);
    repo.secret("STUNNEL", "http://mover:hunter2@203.0.113.9:3128");
    repo.write(
        "proxied.yaml",
        &cluster(
            "proxied",
            "  role: Control\n  migrationToolkit:\n    install: OLM\n    channel: release-v1.8\n    controller:\n      \
             stunnelTcpProxy: {secretRef: {env: DROVER_SECRET_STUNNEL}}\n      httpProxy: http://proxy.example.com:3128\n      \
             noProxy: [.example.com, 10.0.0.0/16]\n      rsyncEndpointType: ClusterIP\n      \
             sourceSupplementalGroups: [1000, 2000]\n      targetSupplementalGroups: [2000, 3000]\n",
        ),
    );
    repo.apply().await;
    repo.settled().await;
    let controller = ocp.get(Kind::MIGRATION_CONTROLLER, "migration-controller").await;
    let spec = &controller["spec"];
    assert_eq!(spec["stunnel_tcp_proxy"], "http://mover:hunter2@203.0.113.9:3128");
    assert_eq!(spec["src_supplemental_groups"], "1000,2000");
    assert_eq!(spec["target_supplemental_groups"], "2000,3000");
    assert_eq!(spec["rsync_endpoint_type"], "ClusterIP");
    // A new password is a difference, without a word of either.
    repo.secret("STUNNEL", "http://mover:correcthorse@203.0.113.9:3128");
    let text = repo.expect(&["stunnel_tcp_proxy"]).await;
    assert!(!text.contains("hunter2") && !text.contains("correcthorse"), "{text}");
    repo.apply().await;
    repo.settled().await;
    let controller = ocp.get(Kind::MIGRATION_CONTROLLER, "migration-controller").await;
    assert_eq!(controller["spec"]["stunnel_tcp_proxy"], "http://mover:correcthorse@203.0.113.9:3128");
}

/// In the shape of the legacy operator's own files (migration guide, 3.2).
const OPERATOR: &str = include_str!("toolkit/operator.yml");
const CONTROLLER: &str = include_str!("toolkit/controller.yml");

/// What `drover rbac cluster` prints is enough, and is all that is needed: with a right less, the plan says so and nothing is
/// done.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_rights_are_enough_and_a_missing_one_is_a_precheck() {
    let Some(ocp) = Ocp::new("least", "4.10.21").await else { return };
    let _players = StandIn::of(&ocp.server).olm().operator(Release::Modern).controller().start();
    let mut repo = Repo::new();
    let manifest = cluster(
        "least",
        "  role: Control\n  platform: openshift-4.10\n  migrationToolkit: {install: OLM, channel: release-v1.8}\n",
    );
    repo.write("least.yaml", &manifest);
    let (code, printed) = repo.run(&["rbac", "cluster", "least", "fleet"]).await;
    assert_eq!(code, 0, "{printed}");
    ocp.create_all(&printed).await;
    let token = ocp.server.token("drover", "drover", 3600).await;
    repo.secret("LEAST", &kubeconfig(&ocp.server, &token));

    // A right less.
    let role = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles").within(&ocp.client, NAMESPACE);
    let mut cut: DynamicObject = role.get("drover").await.unwrap();
    let whole = cut.data["rules"].clone();
    for rule in cut.data["rules"].as_array_mut().unwrap() {
        rule["resources"].as_array_mut().unwrap().retain(|r| r != "subscriptions");
    }
    let put = |rules: Value| json!({"rules": rules});
    let cut =
        put(cut.data["rules"].as_array().unwrap().iter().filter(|r| r["resources"] != json!([])).cloned().collect());
    role.patch("drover", &PatchParams::default(), &Patch::Merge(cut)).await.unwrap();
    let (code, text) = repo.plan().await;
    assert!(text.contains("subscriptions") && text.contains("drover rbac cluster least"), "{code}: {text}");
    let (code, text) = repo.run(&["apply", "fleet", "--auto-approve", "--state", "state"]).await;
    assert_ne!(code, 0, "{text}");
    assert_eq!(ocp.get(Kind::SUBSCRIPTION, "mtc-operator").await, Value::Null);

    role.patch("drover", &PatchParams::default(), &Patch::Merge(put(whole))).await.unwrap();
    repo.apply().await;
    repo.settled().await;
}

/// A cluster that cannot be reached is Unknown; the other one is seen to. Back again, it is seen to as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_down_holds_nobody_else_up() {
    let (Some(up), Some(down)) = (Ocp::new("up", "4.10.21").await, Ocp::new("down", "4.10.21").await) else { return };
    let _players = StandIn::of(&up.server).olm().operator(Release::Modern).controller().start();
    let mut repo = Repo::new();
    repo.admin("UP", &up.server);
    repo.admin("DOWN", &down.server);
    let toolkit = "  migrationToolkit: {install: OLM, channel: release-v1.8}\n";
    repo.write("up.yaml", &cluster("up", &format!("  role: Control\n{toolkit}")));
    repo.write("down.yaml", &cluster("down", toolkit));
    for pause in [false, true] {
        if pause {
            down.server.restart()
        } else {
            down.server.kill()
        }
        if pause {
            down.server.pause();
        }
        let began = std::time::Instant::now();
        let (code, text) = repo.plan().await;
        assert_eq!(code, 5, "{text}");
        assert!(began.elapsed().as_secs() < 60 && text.contains("Cluster/down"), "{:?}: {text}", began.elapsed());
        if !pause {
            let (code, text) = repo.run(&["apply", "fleet", "--auto-approve", "--state", "state"]).await;
            assert_eq!(code, 5, "{text}");
        }
        assert_eq!(up.get(Kind::SUBSCRIPTION, "mtc-operator").await["spec"]["channel"], "release-v1.8");
    }
    down.server.resume();
    let _far = StandIn::of(&down.server).olm().operator(Release::Modern).start();
    repo.apply().await;
    repo.settled().await;
}

/// Drover dies in the middle of the installation: the next run finishes it, and makes nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_is_cut_off_is_finished_by_the_next_run() {
    let Some(ocp) = Ocp::new("cut", "4.10.21").await else { return };
    let players = StandIn::of(&ocp.server).olm().operator(Release::Modern).controller().start();
    let mut repo = Repo::new();
    repo.admin("CUT", &ocp.server);
    repo.write(
        "cut.yaml",
        &cluster("cut", "  role: Control\n  migrationToolkit: {install: OLM, channel: release-v1.8}\n"),
    );
    players.behave(|b| b.pace = std::time::Duration::from_millis(400));
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_drover"));
        command.args(["apply", "fleet", "--auto-approve", "--state", "state"]).current_dir(repo.path());
        command.env_clear().env("HOME", repo.path()).envs(&repo.env);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    // Drover: killed as soon as the Subscription is there.
    let mut drover = start();
    crate::controlplane::eventually("the Subscription is there", async || {
        !ocp.get(Kind::SUBSCRIPTION, "mtc-operator").await.is_null()
    })
    .await;
    drover.kill().unwrap();
    drover.wait().unwrap();
    players.behave(|b| b.pace = std::time::Duration::from_millis(30));
    repo.apply().await;
    repo.settled().await;
    let groups = Kind::OPERATOR_GROUP.within(&ocp.client, NAMESPACE).list(&Default::default()).await.unwrap();
    assert_eq!(groups.items.len(), 1);
}

/// Somebody has installed it already: Drover writes the manifest, and the plan after that is empty.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_is_imported_and_the_next_plan_is_empty() {
    let Some(ocp) = Ocp::new("found", "4.10.21").await else { return };
    let _players = StandIn::of(&ocp.server).olm().operator(Release::Modern).controller().start();
    ocp.namespace(NAMESPACE).await;
    let make = async |kind: Kind, name: &str, content: Value| {
        kind.within(&ocp.client, NAMESPACE).create(&PostParams::default(), &kind.object(name, content)).await.unwrap();
    };
    make(Kind::OPERATOR_GROUP, "by-hand", json!({"spec": {"targetNamespaces": [NAMESPACE]}})).await;
    let subscription = json!({"spec": {
        "name": "mtc-operator", "channel": "release-v1.8", "source": "redhat-operators", "sourceNamespace": "openshift-marketplace",
    }});
    make(Kind::SUBSCRIPTION, "mtc-operator", subscription).await;
    crate::controlplane::eventually("MTC is installed", async || {
        ocp.get(Kind::SUBSCRIPTION, "mtc-operator").await["status"]["state"] == "AtLatestKnown"
    })
    .await;
    let variables = json!({"spec": {
        "migration_velero": true, "migration_controller": true, "migration_ui": true, "cluster_name": "host",
        "mig_pod_limit": "42", "something_of_theirs": "kept",
    }});
    make(Kind::MIGRATION_CONTROLLER, "migration-controller", variables).await;
    crate::controlplane::eventually("the host cluster is ready", async || {
        let host = ocp.get(Kind::MIG_CLUSTER, "host").await;
        host["status"]["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Ready"))
    })
    .await;
    let mut repo = Repo::new();
    repo.admin("FOUND", &ocp.server);
    repo.write("found.yaml", &cluster("found", "  role: Control\n"));
    let mut import = repo.drover(&["import", "cluster", "found", "fleet"]);
    let out = tokio::task::spawn_blocking(move || import.output().unwrap()).await.unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && !said.contains("not empty"), "{said}");
    let manifest = String::from_utf8(out.stdout).unwrap();
    assert!(manifest.contains("release-v1.8") && manifest.contains("podLimit: 42"), "{manifest}");
    repo.write("found.yaml", &manifest);
    repo.settled().await;
    let (code, text) = repo.run(&["apply", "fleet", "--auto-approve", "--state", "state"]).await;
    assert_eq!(code, 0, "{text}");
    let controller = ocp.get(Kind::MIGRATION_CONTROLLER, "migration-controller").await;
    assert_eq!(controller["spec"]["something_of_theirs"], "kept");
}
