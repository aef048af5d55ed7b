//! Every way of access, and what is refused of it.

use super::{PATIENCE, Site, read, read_file};
use crate::controlplane::proxy::ForwardProxy;
use crate::controlplane::{Role, Server, named};
use drover::provider::kubernetes::Pod;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing_subscriber::fmt::MakeWriter;

fn kubeconfig(server: &Server, cluster: Value, user: Value) -> String {
    let mut place = json!({"server": server.url(), "certificate-authority-data": base64(&server.ca())});
    place.as_object_mut().unwrap().extend(cluster.as_object().unwrap().clone());
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "admin",
        "clusters": [{"name": "it", "cluster": place}, {"name": "no", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "me", "user": user}],
        "contexts": [
            {"name": "admin", "context": {"cluster": "it", "user": "me"}},
            {"name": "elsewhere", "context": {"cluster": "no", "user": "me"}},
        ],
    })
    .to_string()
}

fn base64(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap()
}

/// What is read by a kubeconfig, or why nothing is.
async fn by(server: &Server, cluster: Value, user: Value, allow: impl Fn(&mut Site)) -> Result<String, String> {
    let mut site = Site::new();
    allow(&mut site);
    let file = site.secret("kubeconfig", &kubeconfig(server, cluster, user));
    let site = site.with("c", &format!("kubeconfig: {{secretRef: {{file: {file}}}}}"));
    site.read().await.map(|state| state.uid)
}

#[tokio::test]
async fn a_kubeconfig_in_any_form_that_needs_nobodys_leave() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let token = json!({"token": server.admin_token()});
    let uid = by(server, json!({}), token.clone(), |_| ()).await.unwrap();
    assert!(!uid.is_empty());
    // A client certificate; and it says when it ends.
    let site = Site::new();
    let file = site.secret("admin", &read_file(server.admin().path()));
    let site = site.with("c", &format!("kubeconfig: {{secretRef: {{file: {file}}}}}"));
    let state = site.read().await.unwrap();
    assert_eq!(state.uid, uid);
    assert!(state.credentials_end.is_some_and(|end| end > jiff::Timestamp::now()), "{:?}", state.credentials_end);
    // Another name on the certificate.
    assert_eq!(by(server, json!({"tls-server-name": "localhost"}), token.clone(), |_| ()).await.unwrap(), uid);
    let error = by(server, json!({"tls-server-name": "other.example"}), token.clone(), |_| ()).await.unwrap_err();
    assert!(error.contains("tlsServerName"), "{error}");
    // A context by its name.
    let site = Site::new();
    let file = site.secret("kubeconfig", &kubeconfig(server, json!({}), token));
    for (context, expected) in [("elsewhere", "nothing listens there"), ("none", "it has `admin`, `elsewhere`")] {
        let site = Site::new();
        let copy = site.secret("kubeconfig", &read_file(file.as_ref()));
        let site = site.with("c", &format!("kubeconfig: {{secretRef: {{file: {copy}}}, context: {context}}}"));
        let error = site.read().await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn programs_files_and_unchecked_certificates_only_by_the_operators_leave() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let folder = tempfile::tempdir().unwrap();
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": server.admin_token()},
    });
    let trace = folder.path().join("ran");
    let script = format!("touch {}; echo '{credential}'", trace.display());
    let exec = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}});
    let error = by(server, json!({}), exec.clone(), |_| ()).await.unwrap_err();
    assert!(error.contains("`sh`") && error.contains("allow-exec") && !trace.exists(), "{error}");
    by(server, json!({}), exec, |s| s.options.allow_exec = true).await.unwrap();
    assert!(trace.exists());
    // A plugin that fails after it printed something secret.
    let fails = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", "echo canary-stdout; echo canary-stderr >&2; exit 3"], "interactiveMode": "Never"}});
    let error = by(server, json!({}), fails, |s| s.options.allow_exec = true).await.unwrap_err();
    assert!(error.contains("credential plugin") && !error.contains("canary-stdout"), "{error}");

    let file = folder.path().join("token");
    std::fs::write(&file, server.admin_token()).unwrap();
    let named = json!({"tokenFile": file});
    let error = by(server, json!({}), named.clone(), |_| ()).await.unwrap_err();
    assert!(error.contains("`tokenFile`") && error.contains("allow-files"), "{error}");
    by(server, json!({}), named, |s| s.options.allow_files = true).await.unwrap();
    let ca = json!({"certificate-authority": server.folder().join("ca.crt"), "certificate-authority-data": null});
    let token = json!({"token": server.admin_token()});
    assert!(by(server, ca.clone(), token.clone(), |_| ()).await.unwrap_err().contains("`certificate-authority`"));
    by(server, ca, token.clone(), |s| s.options.allow_files = true).await.unwrap();

    let unchecked = json!({"insecure-skip-tls-verify": true, "certificate-authority-data": null});
    let error = by(server, unchecked.clone(), token.clone(), |_| ()).await.unwrap_err();
    assert!(error.contains("allow-insecure"), "{error}");
    by(server, unchecked, token, |s| s.options.allow_insecure = true).await.unwrap();
    let provider = json!({"auth-provider": {"name": "oidc"}});
    let all = |s: &mut Site| (s.options.allow_exec, s.options.allow_files) = (true, true);
    assert!(by(server, json!({}), provider, all).await.unwrap_err().contains("`oidc`, which is not supported"));
}

#[tokio::test]
async fn a_service_account_a_pod_and_secrets_in_other_clusters() {
    let (Some(server), Some(other)) = (Server::shared(Role::Source), Server::shared(Role::Target)) else { return };
    let namespace = server.namespace("keys").await;
    let token = base64(&other.admin_token());
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "token"}, "data": {"saToken": token}})).unwrap();
    Api::namespaced(server.client().await, &namespace).create(&PostParams::default(), &secret).await.unwrap();

    let site = Site::new();
    let first = site.by_token("a", server, &server.url(), &server.admin_token());
    let ca = site.secret("ca", &other.ca());
    let key = format!("{{kubernetes: {{cluster: a, namespace: {namespace}, name: token, key: saToken}}}}");
    let second = format!(
        "serviceAccount: {{server: '{}', token: {{secretRef: {key}}}, ca: {{secretRef: {{file: {ca}}}}}}}",
        other.url()
    );
    let mut site = site.with("a", &first).with("c", &second);
    let error = site.read().await.unwrap_err();
    assert!(error.contains("add `a` to `clusters`"), "{error}");
    site.options.secrets.clusters.insert("a".into());
    let state = site.read().await.unwrap();
    assert_eq!(state.server, other.url());
    // In a circle.
    let circle = second.replace("cluster: a", "cluster: b");
    let back = second.replace("cluster: a", "cluster: c");
    let mut site = Site::new().with("b", &back).with("c", &circle);
    site.options.secrets.clusters.insert("*".into());
    let error = site.read().await.unwrap_err();
    assert!(error.contains("`c` → `b` → `c`"), "{error}");

    // As a pod.
    let pod = tempfile::tempdir().unwrap();
    std::fs::write(pod.path().join("token"), server.admin_token()).unwrap();
    std::fs::write(pod.path().join("ca.crt"), server.ca()).unwrap();
    let mut site = Site::new().with("c", "inCluster: true");
    site.options.pod = Pod { host: None, port: None, folder: pod.path().into() };
    assert!(site.read().await.unwrap_err().contains("does not run in a pod"));
    site.options.pod =
        Pod { host: Some("127.0.0.1".into()), port: Some(server.port().to_string()), folder: pod.path().into() };
    assert!(!site.read().await.unwrap().uid.is_empty());
    // Without its CA.
    let bare = Site::new();
    let file = bare.secret("t", &server.admin_token());
    let spec = format!("serviceAccount: {{server: '{}', token: {{secretRef: {{file: {file}}}}}}}", server.url());
    let error = bare.with("c", &spec).read().await.unwrap_err();
    assert!(error.contains("x509") && error.contains("`ca`"), "{error}");
    let _ = named("unused");
}

/// A SOCKS5 proxy without authentication (RFC 1928) that notes where it leads to.
async fn socks() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("socks5://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let targets = Arc::new(Mutex::new(Vec::new()));
    let seen = targets.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut greeting = [0; 2];
                stream.read_exact(&mut greeting).await?;
                let mut methods = vec![0; greeting[1].into()];
                stream.read_exact(&mut methods).await?;
                stream.write_all(&[5, 0]).await?;
                let mut head = [0; 4];
                stream.read_exact(&mut head).await?;
                let host = match head[3] {
                    1 => {
                        let mut address = [0; 4];
                        stream.read_exact(&mut address).await?;
                        std::net::Ipv4Addr::from(address).to_string()
                    }
                    _ => {
                        let length = stream.read_u8().await?;
                        let mut name = vec![0; length.into()];
                        stream.read_exact(&mut name).await?;
                        String::from_utf8(name).unwrap()
                    }
                };
                let target = format!("{host}:{}", stream.read_u16().await?);
                seen.lock().unwrap().push(target.clone());
                let mut server = tokio::net::TcpStream::connect(target).await?;
                stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut server).await.map(drop)
            });
        }
    });
    (url, targets)
}

/// Everything that is logged, whoever says it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn through_proxies_and_with_no_secret_in_any_log() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let log = Log::default();
    // This test's thread runs all of it: the runtime is a single-threaded one.
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let token = server.admin_token();
    let site = |proxy: &dyn Fn(&Site) -> String| {
        let site = Site::new();
        let (fields, proxy) = (site.by_token("c", server, &server.url(), &token), proxy(&site));
        site.with("c", &format!("{fields}\n{proxy}"))
    };
    let target = format!("127.0.0.1:{}", server.port());

    let open = ForwardProxy::open().await;
    site(&|_| format!("proxy: {{url: '{}'}}", open.url())).read().await.unwrap();
    assert!(open.targets().contains(&target));

    let (password, basic) = ("canary-p@ss", "dXNlcjpjYW5hcnktcEBzcw==");
    let closed = ForwardProxy::with_credentials(basic).await;
    let error = site(&|_| format!("proxy: {{url: '{}'}}", closed.url())).read().await.unwrap_err();
    assert!(error.contains("`proxy.secretRef`"), "{error}");
    let with_user = closed.url().replace("http://", "http://user:canary-p%40ss@");
    let secret = |s: &Site| format!("proxy: {{secretRef: {{file: {}}}}}", s.secret("proxy", &with_user));
    site(&secret).read().await.unwrap();
    assert_eq!(closed.targets().first(), Some(&target));

    let (socks, targets) = socks().await;
    site(&|_| format!("proxy: {{url: '{socks}'}}")).read().await.unwrap();
    assert!(targets.lock().unwrap().contains(&target));
    let wrong = site(&|s| format!("proxy: {{secretRef: {{file: {}}}}}", s.secret("p", "socks5://u:canary-p@h:1")));
    let wrong = wrong.read().await.unwrap_err();
    assert!(wrong.contains("SOCKS5") && !wrong.contains("canary"), "{wrong}");

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("TRACE"), "nothing was logged at that level");
    for secret in [password, "canary", basic, token.trim()] {
        let at = text.lines().find(|l| l.contains(secret));
        assert_eq!(at, None, "a secret is logged");
    }
    let _ = (PATIENCE, read);
}
