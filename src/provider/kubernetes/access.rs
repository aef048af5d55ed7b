//! From a Cluster's manifest to a client: everything that says where Drover connects to, and as who, is checked here before
//! the client library sees it. A kubeconfig can name programs to run and files to read; which of that is allowed is the
//! operator's word, not the manifest's.
//!
//! Nothing is taken from the environment (`KUBECONFIG`, `HTTPS_PROXY`): the manifest and the operator's configuration say all.

use super::error::{Fault, FaultKind};
use super::{KubernetesOptions, ends};
use crate::kind::cluster::{ClusterSpec, Kubeconfig, Proxy, ServiceAccount};
use crate::model::{Secret, SecretRef};
use crate::provider::secrets::{SecretFault, SecretKeys};
use jiff::Timestamp;
use kube::config::{AuthInfo, Cluster, Config, Kubeconfig as File};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(10);

const DURING: &str = "connect";

/// What a connection is made of.
pub(super) struct Access {
    /// For the client library.
    pub config: Config,
    /// Where it leads.
    pub server: String,
    /// When its credentials end, where they say.
    pub credentials_end: Option<Timestamp>,
    /// The CA in it, as a kubeconfig writes it.
    pub ca: Option<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Where and as who, by `deadline`.
pub(super) async fn access(
    cluster: &str,
    spec: &ClusterSpec,
    options: &KubernetesOptions,
    keys: &dyn SecretKeys,
    deadline: Instant,
) -> Result<Access, Fault> {
    let maker = Maker { cluster, options, keys, deadline };
    let mut access = match (&spec.kubeconfig, &spec.service_account, spec.in_cluster) {
        (Some(kubeconfig), None, false) => maker.kubeconfig(kubeconfig).await?,
        (None, Some(account), false) => maker.service_account(account).await?,
        (None, None, true) => maker.in_cluster()?,
        _ => {
            return Err(maker
                .fault("the manifest has to say in one way how it is reached")
                .hint("see `drover explain Cluster`"));
        }
    };
    if let Some(proxy) = &spec.proxy {
        access.config.proxy_url = Some(maker.proxy(proxy).await?);
    }
    let config = &mut access.config;
    config.connect_timeout = Some(CONNECT);
    // Deadlines are set for each request, and the way a request is tried again is ours.
    (config.read_timeout, config.write_timeout) = (None, Some(spec.limits.timeout.duration()));
    config.default_retry = false;
    Ok(access)
}

struct Maker<'a> {
    cluster: &'a str,
    options: &'a KubernetesOptions,
    keys: &'a dyn SecretKeys,
    deadline: Instant,
}

impl Maker<'_> {
    fn fault(&self, why: impl Into<String>) -> Fault {
        Fault::new(self.cluster, DURING, FaultKind::Access, why)
    }

    /// What only the operator can allow.
    fn refused(&self, what: &str, setting: &str) -> Fault {
        self.fault(format!("its kubeconfig {what}, which is not allowed")).hint(format!(
            "use a kubeconfig without it (a service account's token, `…-data` in place of files); or have the operator set \
             `{setting} = true` in `[kubernetes]` of Drover's configuration"
        ))
    }

    async fn text(&self, reference: &SecretRef) -> Result<Secret<String>, Fault> {
        let read = self.options.secrets.text(reference, self.keys, self.deadline).await;
        read.map_err(|SecretFault { what, why, hint, transient }| {
            let kind = if transient { FaultKind::Connection } else { FaultKind::Access };
            Fault::new(self.cluster, DURING, kind, format!("{what} {why}")).hint(hint)
        })
    }

    async fn kubeconfig(&self, spec: &Kubeconfig) -> Result<Access, Fault> {
        let text = self.text(&spec.secret_ref).await?;
        // The reader's own message would quote the text.
        let file = File::from_yaml(text.expose()).map_err(|_| {
            self.fault(format!("{} is no kubeconfig", spec.secret_ref))
                .hint("look at it with `kubectl --kubeconfig FILE config view`")
        })?;
        let (cluster, user) = self.chosen(file, spec)?;
        self.check(&cluster, &user)?;
        let server = cluster.server.clone().unwrap_or_default();
        let mut config = Config::new(self.address(&server)?);
        if let Some(data) = &cluster.certificate_authority_data {
            let pem = ends::base64(data).ok_or_else(|| self.fault("`certificate-authority-data` is not base64"))?;
            config.root_cert = Some(self.roots(&pem)?);
        } else if let Some(path) = &cluster.certificate_authority {
            config.root_cert_file = Some(PathBuf::from(path));
        }
        config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
        config.tls_server_name.clone_from(&cluster.tls_server_name);
        if let Some(url) = cluster.proxy_url.as_deref().filter(|u| !u.is_empty()) {
            config.proxy_url = Some(self.proxy_url(url)?);
        }
        let credentials_end = ended(&user);
        config.auth_info = user;
        Ok(Access { config, server, credentials_end, ca: cluster.certificate_authority_data.clone() })
    }

    /// Cluster and user of the context that is meant.
    fn chosen(&self, file: File, spec: &Kubeconfig) -> Result<(Cluster, AuthInfo), Fault> {
        let name = spec.context.clone().or(file.current_context.filter(|c| !c.is_empty())).ok_or_else(|| {
            self.fault("its kubeconfig has no current context").hint("name one: `kubeconfig.context`")
        })?;
        let known: Vec<String> = file.contexts.iter().map(|c| format!("`{}`", c.name)).collect();
        let context = file.contexts.into_iter().find(|c| c.name == name).and_then(|c| c.context).ok_or_else(|| {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            self.fault(format!("its kubeconfig has no context `{name}`")).hint(format!("it has {known}"))
        })?;
        let cluster = file.clusters.into_iter().find(|c| c.name == context.cluster).and_then(|c| c.cluster);
        let cluster = cluster.ok_or_else(|| {
            self.fault(format!(
                "the context `{name}` of its kubeconfig names the cluster `{}`, which is not in it",
                context.cluster
            ))
        })?;
        // kubectl goes on as nobody where the user is missing, and so do clusters that want no credentials.
        let user = file.auth_infos.into_iter().find(|u| Some(&u.name) == context.user.as_ref());
        Ok((cluster, user.and_then(|u| u.auth_info).unwrap_or_default()))
    }

    /// Refuses what the operator has not allowed.
    fn check(&self, cluster: &Cluster, user: &AuthInfo) -> Result<(), Fault> {
        let options = self.options;
        if let Some(exec) = user.exec.as_ref().filter(|_| !options.allow_exec) {
            let program = exec.command.as_deref().unwrap_or("a program").to_owned();
            return Err(
                self.refused(&format!("runs a program for its credentials (`exec`: `{program}`)"), "allow-exec")
            );
        }
        if let Some(provider) = &user.auth_provider {
            let why = format!("its kubeconfig has the auth provider `{}`, which is not supported", provider.name);
            return Err(self.fault(why).hint(
                "Kubernetes has taken auth providers out (1.26): use a service account's token, or a credential plugin (`exec`)",
            ));
        }
        let files = [
            ("tokenFile", &user.token_file),
            ("client-certificate", &user.client_certificate),
            ("client-key", &user.client_key),
            ("certificate-authority", &cluster.certificate_authority),
        ];
        if let Some((field, _)) = files.iter().find(|(_, file)| file.as_ref().is_some_and(|f| !f.is_empty()))
            && !options.allow_files
        {
            return Err(self.refused(&format!("names a file (`{field}`)"), "allow-files"));
        }
        if cluster.insecure_skip_tls_verify == Some(true) && !options.allow_insecure {
            return Err(
                self.refused("does not check the server's certificate (`insecure-skip-tls-verify`)", "allow-insecure")
            );
        }
        Ok(())
    }

    async fn service_account(&self, spec: &ServiceAccount) -> Result<Access, Fault> {
        let token = self.text(&spec.token.secret_ref).await?;
        let mut config = Config::new(self.address(&spec.server)?);
        if let Some(ca) = &spec.ca {
            config.root_cert = Some(self.roots(self.text(&ca.secret_ref).await?.expose().as_bytes())?);
        }
        config.tls_server_name.clone_from(&spec.tls_server_name);
        if !token.expose().chars().all(|c| c.is_ascii_graphic()) {
            let why = format!("{} is not a token: it has blanks or line ends in it", spec.token.secret_ref);
            return Err(self.fault(why).hint("save the token alone, as it is, and not in base64"));
        }
        config.auth_info.token = Some(token.expose().clone().into());
        Ok(Access { config, server: spec.server.clone(), credentials_end: ends::token(token.expose()), ca: None })
    }

    /// The cluster that Drover runs in, by what the kubelet gives every pod. The files are read again as they are renewed.
    fn in_cluster(&self) -> Result<Access, Fault> {
        let pod = &self.options.pod;
        let (Some(host), Some(port)) = (&pod.host, &pod.port) else {
            return Err(self
                .fault("Drover does not run in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
                .hint("with `inCluster: true` the cluster is the one that Drover runs in; else use `kubeconfig` or `serviceAccount`"));
        };
        let (token, ca) = (pod.folder.join("token"), pod.folder.join("ca.crt"));
        let text = std::fs::read_to_string(&token).map_err(|e| {
            self.fault(format!("the pod's token `{}` cannot be read: {e}", token.display()))
                .hint("give the pod a service account, and do not set `automountServiceAccountToken: false`")
        })?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let server = format!("https://{host}:{port}");
        let mut config = Config::new(self.address(&server)?);
        config.root_cert_file = Some(ca);
        config.auth_info.token_file = Some(token.to_string_lossy().into_owned());
        Ok(Access { config, server, credentials_end: ends::token(&text), ca: None })
    }

    fn address(&self, server: &str) -> Result<http::Uri, Fault> {
        let wrong = || {
            self.fault(format!("`{}` is not the address of an API server", hide_user(server)))
                .hint("write it like `https://api.ocp4.example.com:6443`")
        };
        let uri: http::Uri = server.parse().map_err(|_| wrong())?;
        let is_plain = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
        match uri.scheme_str() {
            _ if !is_plain => Err(wrong()),
            Some("https") => Ok(uri),
            Some("http") if self.options.allow_insecure => Ok(uri),
            Some("http") => {
                Err(self
                    .refused("speaks plain HTTP, so that anyone on the way can read the credentials", "allow-insecure"))
            }
            _ => Err(wrong()),
        }
    }

    fn roots(&self, pem: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        let roots = ends::blocks(pem, "CERTIFICATE");
        if roots.is_empty() {
            let fault = self.fault("its CA has no certificate in it");
            return Err(fault.hint("give it in PEM, with the lines BEGIN CERTIFICATE and END CERTIFICATE"));
        }
        Ok(roots)
    }

    async fn proxy(&self, proxy: &Proxy) -> Result<http::Uri, Fault> {
        match (&proxy.url, &proxy.secret_ref) {
            (Some(url), None) => self.proxy_url(url),
            (None, Some(reference)) => self.proxy_url(self.text(reference).await?.expose()),
            _ => Err(self.fault("its `proxy` names none").hint("add `url`, or `secretRef`")),
        }
    }

    /// A proxy. It may have a password in it, so no message has the URL in it.
    fn proxy_url(&self, url: &str) -> Result<http::Uri, Fault> {
        let wrong = || self.fault("the URL of its proxy is none").hint("write it like `http://proxy.example.com:3128`");
        let uri: http::Uri = url.trim().parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        match uri.scheme_str() {
            Some("http" | "https") => Ok(uri),
            Some("socks5") if authority.as_str().contains('@') => Err(self
                .fault("a user and a password for a SOCKS5 proxy are not supported")
                .hint("use an HTTP proxy (`http://user:password@host:port`), or a SOCKS5 proxy that wants none")),
            Some("socks5") => Ok(uri),
            _ => Err(wrong()),
        }
    }
}

/// When the credentials of a kubeconfig end. A program renews its own.
fn ended(user: &AuthInfo) -> Option<Timestamp> {
    if user.exec.is_some() {
        return None;
    }
    // The one way to the token without naming the type that hides it.
    let plain = serde_json::to_value(user).unwrap_or_default();
    let of_token = plain["token"].as_str().and_then(ends::token);
    let data = user.client_certificate_data.as_deref().and_then(ends::base64);
    let file = || std::fs::read(user.client_certificate.as_ref()?).ok();
    let of_certificate = data.or_else(file).and_then(|pem| ends::certificate(&pem));
    of_token.into_iter().chain(of_certificate).min()
}

/// An address without what stands before an `@`.
fn hide_user(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.escape_debug().to_string(),
    }
}
