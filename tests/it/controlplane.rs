//! Kubernetes API servers (`tests/controlplane`) for tests: real ones, on loopback.
//!
//! Servers belong to the test binary and end with it, however it ends. Three are shared by all tests that keep to names
//! of their own; a test that breaks a server, or needs the fixed names of MTC to itself, has one alone.
//!
//! ```ignore
//! let Some(source) = Server::shared(Role::Source) else { return };  // with all CRDs; started by the first who asks
//! let namespace = source.namespace("shop").await;                   // a name in use nowhere else
//! let Some(mut server) = Server::alone("breaks") else { return };   // ended on drop
//! server.install_crds().await;
//! let limited = server.service_account("tests", "reader", rules).await;  // a kubeconfig; `.path()` for the program
//! let front = Front::of(&server);                                   // a proxy with faults: faults.rs
//! front.fault(Rule::on_writes().answers(Answer::conflict()));
//! ```

#![allow(dead_code, reason = "a tool box: which tools are in use changes with the tests")]

pub mod crds;
pub mod faults;
pub mod proxy;
mod shape;
mod smoke;
pub mod webhook;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::KubeConfigOptions;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything in these servers may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The part that a shared server plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where applications are moved from.
    Source,
    /// Where they are moved to.
    Target,
    /// Where MTC's controllers run.
    Control,
}

/// The folder of this binary's servers, and its guard.
struct World {
    folder: PathBuf,
    /// As long as this pipe is open the servers stay. The kernel closes it when this process ends, also by SIGKILL.
    life: ChildStdin,
    reaper: Child,
}

impl World {
    fn of_this_binary() -> Option<&'static Self> {
        static WORLD: OnceLock<Result<World, String>> = OnceLock::new();
        let world = WORLD.get_or_init(|| {
            let found = Command::new(script("programs.sh")).arg("find").output().map_err(|e| e.to_string())?;
            if !found.status.success() {
                return Err(text(&found.stderr));
            }
            Self::start(&format!("it-{}", std::process::id()))
        });
        match world {
            Ok(world) => Some(world),
            Err(reason) => {
                refuse_or_say(reason);
                None
            }
        }
    }

    fn start(name: &str) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("drover-kube-{name}"));
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        // In a session of its own, so that Ctrl-C on the tests does not end it first.
        let mut reaper = Command::new("setsid")
            .arg(script("controlplane.sh"))
            .arg("reap")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("setsid: {e}"))?;
        let life = reaper.stdin.take().ok_or("no pipe to the reaper")?;
        Ok(Self { folder, life, reaper })
    }

    fn server(&self, name: &str, flags: &[&str]) -> Result<Server, String> {
        let server = Server { folder: self.folder.join(name), shared: false };
        server.start(flags)?;
        Ok(server)
    }
}

/// Without a server: a panic where the lab is required, else the reason on standard error, past the test harness.
fn refuse_or_say(reason: &str) {
    assert!(
        std::env::var("DROVER_REQUIRE_LAB").as_deref() != Ok("1"),
        "an API server for tests is required here: {reason}"
    );
    let _ = std::io::stderr().write_all(format!("skipped: no API server: {}\n", reason.trim()).as_bytes());
}

/// One API server with its etcd. Methods that start, stop or break it block until it is done.
pub struct Server {
    folder: PathBuf,
    shared: bool,
}

impl Server {
    /// One of the three servers that all tests share, with all CRDs in it. `None`, with the reason on standard error,
    /// where this machine has none; a panic instead where `DROVER_REQUIRE_LAB=1`.
    pub fn shared(role: Role) -> Option<&'static Self> {
        static SERVERS: [OnceLock<Result<Server, String>>; 3] = [const { OnceLock::new() }; 3];
        let world = World::of_this_binary()?;
        let (place, name) = match role {
            Role::Source => (0, "source"),
            Role::Target => (1, "target"),
            Role::Control => (2, "control"),
        };
        let server = SERVERS[place].get_or_init(|| {
            let mut server = world.server(name, &[])?;
            server.shared = true;
            let kubeconfig = server.admin();
            // On a thread and a runtime of its own: whoever asks first may be inside one already.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { crds::install(&kubeconfig.client().await).await });
            })
            .join()
            .map_err(|_| "the CRDs could not be installed (above)".to_owned())?;
            Ok(server)
        });
        match server {
            Ok(server) => Some(server),
            Err(reason) => panic!("the {name} server does not start: {reason}"),
        }
    }

    /// A server of this test's own, empty; it ends when the value is dropped. `None` as [`Server::shared`].
    pub fn alone(name: &str) -> Option<Self> {
        Self::alone_with(name, &[])
    }

    /// A server of this test's own, with further flags.
    pub fn alone_with(name: &str, flags: &[&str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let world = World::of_this_binary()?;
        let name = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Some(world.server(&name, flags).unwrap_or_else(|reason| panic!("the {name} server does not start: {reason}")))
    }

    fn script(&self, verb: &str, args: &[&str]) -> Output {
        let script = script("controlplane.sh");
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "180"]).arg(script).arg(verb).arg(&self.folder).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn run(&self, verb: &str, args: &[&str]) -> String {
        let out = self.script(verb, args);
        assert!(out.status.success(), "controlplane.sh {verb} {}: {}", self.folder.display(), text(&out.stderr));
        text(&out.stdout).trim().to_owned()
    }

    fn start(&self, flags: &[&str]) -> Result<(), String> {
        let out = self.script("start", flags);
        if out.status.success() { Ok(()) } else { Err(text(&out.stderr).trim().to_owned()) }
    }

    fn file(&self, name: &str) -> String {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Everything of this server: certificates, logs, kubeconfigs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its port on 127.0.0.1; the same all its life.
    pub fn port(&self) -> u16 {
        self.file("port").trim().parse().unwrap()
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port())
    }

    /// The CA of its certificate, as PEM.
    pub fn ca(&self) -> String {
        self.file("ca.crt")
    }

    /// The administrator's static token: it outlives restarts.
    pub fn admin_token(&self) -> String {
        self.file("token")
    }

    /// The administrator's kubeconfig, with a client certificate.
    pub fn admin(&self) -> Kubeconfig {
        Kubeconfig(self.folder.join("admin.kubeconfig"))
    }

    /// The administrator's client. It belongs to the runtime in which it was made.
    pub async fn client(&self) -> kube::Client {
        self.admin().client().await
    }

    /// A kubeconfig with a client certificate of this user, and no rights but those of everybody.
    pub fn user(&self, name: &str, groups: &[&str]) -> Kubeconfig {
        Kubeconfig(self.run("user", &[&[name], groups].concat()).into())
    }

    /// A kubeconfig with a client certificate that ended years ago.
    pub fn expired_user(&self, name: &str, groups: &[&str]) -> Kubeconfig {
        Kubeconfig(self.run("user", &[&[name, "--expired"], groups].concat()).into())
    }

    /// A kubeconfig with this bearer token, for the server at this address.
    pub fn with_token(&self, name: &str, url: &str, token: &str) -> Kubeconfig {
        self.kubeconfig(name, url, &json!({ "token": token }))
    }

    /// Writes a kubeconfig with this user entry.
    pub fn kubeconfig(&self, name: &str, url: &str, user: &Value) -> Kubeconfig {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{name}-{number}.kubeconfig"));
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": { "server": url, "certificate-authority": self.folder.join("ca.crt") } }],
            "users": [{ "name": name, "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
            "current-context": "test",
        });
        std::fs::write(&path, content.to_string()).unwrap();
        Kubeconfig(path)
    }

    /// A new service account with exactly these rights in the whole cluster: a kubeconfig with its token, in force.
    pub async fn service_account(&self, namespace: &str, name: &str, rules: Vec<PolicyRule>) -> Kubeconfig {
        let client = self.client().await;
        let account = ServiceAccount { metadata: named(name), ..Default::default() };
        Api::<ServiceAccount>::namespaced(client.clone(), namespace)
            .create(&PostParams::default(), &account)
            .await
            .unwrap();
        let role = ClusterRole {
            metadata: named(&format!("{namespace}-{name}")),
            rules: Some(rules.clone()),
            ..Default::default()
        };
        Api::<ClusterRole>::all(client.clone()).create(&PostParams::default(), &role).await.unwrap();
        let binding: ClusterRoleBinding = typed(json!({
            "metadata": { "name": format!("{namespace}-{name}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("{namespace}-{name}") },
            "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": name }],
        }));
        Api::<ClusterRoleBinding>::all(client.clone()).create(&PostParams::default(), &binding).await.unwrap();
        let token = self.token(namespace, name, 3600).await;
        let kubeconfig = self.with_token(name, &self.url(), &token);
        // The server evaluates rights from caches of its own.
        let theirs = kubeconfig.client().await;
        for rule in &rules {
            eventually("the rights are in force", async || may(&theirs, rule).await).await;
        }
        kubeconfig
    }

    /// A token of an existing service account for so many seconds.
    pub async fn token(&self, namespace: &str, account: &str, seconds: i64) -> String {
        let request = TokenRequest {
            spec: TokenRequestSpec { audiences: vec![], expiration_seconds: Some(seconds), bound_object_ref: None },
            ..Default::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(self.client().await, namespace);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token
    }

    /// A kubeconfig with a token of this service account that was good once and is not any more: 401.
    pub async fn expired_token(&self, namespace: &str, account: &str) -> Kubeconfig {
        let seconds = if self.is_kube_apiserver() { 600 } else { 1 };
        let token = self.token(namespace, account, seconds).await;
        if self.is_kube_apiserver() {
            // It grants no token under 10 minutes; but a token dies with the account that it was made for.
            let accounts = Api::<ServiceAccount>::namespaced(self.client().await, namespace);
            let old = accounts.delete(account, &DeleteParams::default()).await;
            old.unwrap();
            let new = ServiceAccount { metadata: named(account), ..Default::default() };
            accounts.create(&PostParams::default(), &new).await.unwrap();
        }
        let kubeconfig = self.with_token("expired", &self.url(), &token);
        let theirs = kubeconfig.client().await;
        eventually(
            "the token is refused",
            async || matches!(theirs.apiserver_version().await, Err(kube::Error::Api(s)) if s.code == 401),
        )
        .await;
        kubeconfig
    }

    /// A new namespace whose name is in use nowhere else.
    pub async fn namespace(&self, name: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace { metadata: named(&name), ..Default::default() };
        Api::<Namespace>::all(self.client().await).create(&PostParams::default(), &namespace).await.unwrap();
        name
    }

    /// Installs the CRDs of everything that Drover drives: the real ones where they are there, else ours.
    pub async fn install_crds(&self) {
        crds::install(&self.client().await).await;
    }

    /// Whether this is a full kube-apiserver. It has no controllers beside it: a deleted namespace stays Terminating.
    pub fn is_kube_apiserver(&self) -> bool {
        self.file("api.exe").trim().ends_with("kube-apiserver")
    }

    fn may_break(&self) {
        assert!(!self.shared, "other tests use this server: break one of your own (Server::alone)");
    }

    /// The API server dies at once, with all connections; what was stored stays.
    pub fn kill(&self) {
        self.may_break();
        self.run("kill", &[]);
    }

    /// Starts it again, at its port, with what was stored. Tokens of service accounts are not known any more.
    pub fn restart(&self) {
        self.may_break();
        self.start(&[]).unwrap();
    }

    /// It hangs: connections are accepted by the kernel, nothing answers.
    pub fn pause(&self) {
        self.may_break();
        self.run("pause", &[]);
    }

    /// It goes on after a pause.
    pub fn resume(&self) {
        self.may_break();
        self.run("cont", &[]);
    }

    /// `running`, `hanging` or `down`.
    pub fn status(&self) -> String {
        self.run("status", &[])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.shared {
            drop(self.script("stop", &["--purge"]));
        }
    }
}

/// A kubeconfig in a file.
#[derive(Clone, Debug)]
pub struct Kubeconfig(PathBuf);

impl Kubeconfig {
    /// Its file, for a program's arguments or `KUBECONFIG`.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A client that fails at once where kube would try again by itself.
    pub async fn client(&self) -> kube::Client {
        kube::Client::try_from(self.config().await).unwrap()
    }

    /// What kube makes of it, for a client with other settings.
    pub async fn config(&self) -> kube::Config {
        let file = kube::config::Kubeconfig::read_from(&self.0).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        config
    }
}

/// Whether this client may do what the rule says.
async fn may(client: &kube::Client, rule: &PolicyRule) -> bool {
    let first = |list: &Option<Vec<String>>| list.as_ref().and_then(|l| l.first().cloned());
    let (resource, subresource) = match first(&rule.resources) {
        Some(name) => match name.split_once('/') {
            Some((resource, sub)) => (Some(resource.to_owned()), Some(sub.to_owned())),
            None => (Some(name), None),
        },
        None => return true,
    };
    let attributes = ResourceAttributes {
        group: first(&rule.api_groups),
        name: first(&rule.resource_names),
        resource,
        subresource,
        verb: rule.verbs.first().cloned(),
        ..Default::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Default::default()
    };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await;
    answer.is_ok_and(|r| r.status.is_some_and(|s| s.allowed))
}

/// A rule that allows these verbs on these resources of a group.
pub fn allow(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(strings(&[group])),
        resources: Some(strings(resources)),
        verbs: strings(verbs),
        ..Default::default()
    }
}

/// Waits until it is so; panics after [`PATIENCE`].
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Metadata of this name.
pub fn named(name: &str) -> kube::api::ObjectMeta {
    kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}

/// An object of this type, from JSON.
pub fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/controlplane").join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
