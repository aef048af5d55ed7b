//! How a cluster is reached.

use super::Say;
use crate::finding::Code;
use crate::kind::cluster::ClusterSpec;
use crate::kind::{Resources, Spec};
use crate::model::SecretRef;

pub(super) fn check(say: &mut Say<'_>, all: &Resources) {
    let spec = say.spec();
    let ways = [
        ("kubeconfig", spec.kubeconfig.is_some()),
        ("serviceAccount", spec.service_account.is_some()),
        ("inCluster", spec.in_cluster),
    ];
    match ways.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect::<Vec<_>>().as_slice() {
        [] => say.at(
            Code::MissingField,
            "spec",
            format!("nothing says how `{}` is reached", say.manifest.name()),
            "add `kubeconfig`, `serviceAccount`, or `inCluster: true` for the cluster that Drover runs in",
        ),
        [_] => {}
        [first, .., last] => say.at(
            Code::Contradiction,
            &format!("spec.{last}"),
            format!("`{first}` says how the cluster is reached already"),
            "keep one of them",
        ),
    }
    if let Some(account) = &spec.service_account {
        address(say, "spec.serviceAccount.server", &account.server);
        reference(say, all, "spec.serviceAccount.token", &account.token.secret_ref);
        if let Some(ca) = &account.ca {
            reference(say, all, "spec.serviceAccount.ca", &ca.secret_ref);
        }
    }
    if let Some(kubeconfig) = &spec.kubeconfig {
        reference(say, all, "spec.kubeconfig", &kubeconfig.secret_ref);
    }
    if let Some(proxy) = &spec.proxy {
        match (&proxy.url, &proxy.secret_ref) {
            (Some(url), None) => proxy_url(say, "spec.proxy.url", url, &["http", "https", "socks5"]),
            (None, Some(secret)) => reference(say, all, "spec.proxy", secret),
            (None, None) => {
                say.at(Code::MissingField, "spec.proxy", "no proxy is named", "add `url`, or `secretRef`");
            }
            (Some(_), Some(_)) => say.at(
                Code::Contradiction,
                "spec.proxy.secretRef",
                "`url` and `secretRef` both name the proxy",
                "keep one of them",
            ),
        }
    }
    if let Some(text) = &spec.platform
        && let Err(e) = text.parse::<crate::kind::cluster::Platform>()
    {
        say.at(Code::WrongValue, "spec.platform", e.to_string(), "leave it out to have it read from the cluster");
    }
}

/// The address of an API server.
pub(super) fn address(say: &mut Say<'_>, path: &str, url: &str) {
    match split(url) {
        Some(("https", _)) => {}
        Some(("http", _)) => say.at(
            Code::InsecureConnection,
            path,
            "a token that is sent over plain HTTP can be read by anyone on the network",
            "use `https://`",
        ),
        _ => say.at(
            Code::WrongValue,
            path,
            "this is not the address of an API server",
            "write it like `https://api.ocp4.example.com:6443`, without user and password",
        ),
    }
}

/// A proxy, which must not have a password in it.
pub(super) fn proxy_url(say: &mut Say<'_>, path: &str, url: &str, schemes: &[&str]) {
    if url.contains('@') {
        say.at(
            Code::WrongValue,
            path,
            "a proxy's user and password do not stand in a manifest",
            "take them out, or use `secretRef` where the field has one",
        );
    } else if !split(url).is_some_and(|(scheme, _)| schemes.contains(&scheme)) {
        let like: Vec<String> = schemes.iter().map(|s| format!("`{s}://host:port`")).collect();
        say.at(
            Code::WrongValue,
            path,
            "this is not the URL of a proxy",
            format!("write it like {}", like.join(" or ")),
        );
    }
}

/// Scheme and the rest of a URL that has a host and neither user nor blanks.
fn split(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_fine = !host.is_empty() && !host.contains('@') && !url.chars().any(|c| c.is_whitespace() || c.is_control());
    is_fine.then_some((scheme, rest))
}

/// A secret in a cluster: which has to have a manifest, and to be another one where it says how this one is reached.
pub(super) fn reference(say: &mut Say<'_>, all: &Resources, path: &str, secret: &SecretRef) {
    match secret {
        SecretRef::Kubernetes(key) => {
            let at = format!("{path}.secretRef.kubernetes.cluster");
            if key.cluster == say.manifest.name() {
                say.at(
                    Code::Contradiction,
                    &at,
                    "what is needed to reach the cluster cannot stand in it",
                    "name another cluster, a file, or a variable",
                );
            } else {
                all.check_reference(say.manifest, &at, &ClusterSpec::KIND, &key.cluster, say.findings);
            }
        }
        SecretRef::File(file) if !file.starts_with('/') || file.split('/').any(|part| part == "..") => say.at(
            Code::WrongValue,
            &format!("{path}.secretRef.file"),
            "a secret's file is named by its absolute path",
            "write it like `/etc/drover/ocp4.kubeconfig`",
        ),
        SecretRef::Env(name) if name.is_empty() || name.contains(['=', '\0']) => say.at(
            Code::WrongValue,
            &format!("{path}.secretRef.env"),
            "this is not the name of a variable",
            "write it like `OCP4_TOKEN`",
        ),
        SecretRef::File(_) | SecretRef::Env(_) => {}
    }
}
