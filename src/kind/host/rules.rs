//! Rules of a Host: what its URI may be.

use super::HostSpec;
use crate::finding::{Code, Finding};
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest};
use crate::plan::{Context, Drafts};
use std::collections::HashMap;

impl Spec for HostSpec {
    const KIND: KindName = KindName::new("Host");
    const SUMMARY: &'static str = "a hypervisor host, reached through libvirt";

    fn check(manifest: &Manifest<Self>, _all: &Resources, findings: &mut Vec<Finding>) {
        for (path, uri) in
            [("spec.uri", Some(&manifest.spec.uri)), ("spec.migration.uri", manifest.spec.migration.uri.as_ref())]
        {
            let Some(uri) = uri else { continue };
            match parse_uri(uri) {
                Err(e) => findings.push(
                    Finding::new(Code::ForbiddenConnection, format!("`{}` is not a URI that Drover connects to: {e}", e.redacted))
                        .of(manifest, path)
                        .hint("write `qemu+ssh://user@host/system`, `qemu+tls://host/system`, `qemu:///system`, `test:///default` or `sim:`"),
                ),
                Ok(c) if c.transport == Transport::Tcp => findings.push(
                    Finding::new(Code::InsecureConnection, format!("`{uri}` is neither encrypted nor authenticated by itself"))
                        .of(manifest, path)
                        .hint("use `qemu+tls://` or `qemu+ssh://`, or keep the port on a private network"),
                ),
                Ok(_) => {}
            }
        }
        let ports = &manifest.spec.migration.ports;
        let range = ports.split_once('-').and_then(|(a, b)| Some((a.parse::<u16>().ok()?, b.parse::<u16>().ok()?)));
        if !range.is_some_and(|(a, b)| a > 0 && a <= b) {
            findings.push(
                Finding::new(Code::WrongValue, format!("`{ports}` is not a range of ports"))
                    .of(manifest, "spec.migration.ports")
                    .hint("write the first and the last port: `49152-49215`"),
            );
        }
    }

    fn check_all(all: &Resources, findings: &mut Vec<Finding>) {
        same_machine(all, findings);
    }

    fn draft(manifest: &Manifest<Self>, ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::draft(manifest, ctx, out);
    }
}

/// Two Hosts that are one machine: each would see the other's domains as its own. Simulated hosts and libvirt's test
/// driver are a world for each name.
fn same_machine(all: &Resources, findings: &mut Vec<Finding>) {
    let mut seen = HashMap::new();
    for host in all.hosts.values() {
        let Ok(c) = parse_uri(&host.spec.uri) else { continue };
        if c.driver != "qemu" {
            continue;
        }
        // Whatever user and transport: the same daemon.
        let first: &Manifest<HostSpec> = seen.entry((c.host.to_lowercase(), c.port, c.path)).or_insert(host);
        if !std::ptr::eq(first, host) {
            findings.push(
                Finding::new(
                    Code::Conflict,
                    format!("the Host `{}` has this URI too: they are one machine", first.name()),
                )
                .of(host, "spec.uri")
                .see(first.origin.source_of("spec.uri"))
                .hint("keep one of them"),
            );
        }
    }
}

/// A URI taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The driver: `qemu`, `test`, `sim`.
    pub driver: String,
    /// How the daemon is reached.
    pub transport: Transport,
    /// The user, for SSH.
    pub user: Option<String>,
    /// The host; empty for the local one.
    pub host: String,
    /// The port, where given.
    pub port: Option<u16>,
    /// The path: `/system`.
    pub path: String,
}

/// How a libvirt daemon is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A local socket, or inside this process.
    Local,
    /// SSH.
    Ssh,
    /// TLS with certificates.
    Tls,
    /// Plain TCP.
    Tcp,
}

/// Why a URI is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct UriError {
    /// What is wrong.
    pub why: String,
    /// The URI without its query and user information.
    pub redacted: String,
}

/// Takes a host's URI apart. Connection data is code: libvirt's URI parameters name commands, sockets and key files
/// (`command=`, `netcat=`, `socket=`, `pkipath=`, `no_verify=`; libvirt.org/uri.html), so none is accepted from a
/// repository; what the operator allows comes from the daemon's own configuration.
pub fn parse_uri(uri: &str) -> Result<Connection, UriError> {
    let bare = uri.split(['?', '#']).next().unwrap_or_default();
    let redacted: String = match bare.split_once("://").and_then(|(s, r)| r.split_once('@').map(|(_, h)| (s, h))) {
        Some((scheme, rest)) => format!("{scheme}://{rest}"),
        None => bare.to_owned(),
    }
    .escape_debug()
    .to_string();
    let fail = |why: String| UriError { why, redacted: redacted.clone() };
    if uri.chars().any(|c| c.is_control() || c.is_whitespace() || !c.is_ascii()) {
        return Err(fail("it contains blanks, control or non-ASCII characters".into()));
    }
    if let Some((_, query)) = uri.split_once('?') {
        let name = query.split(['=', '&']).next().unwrap_or_default();
        return Err(fail(format!("the parameter `{name}` is not allowed in a manifest")));
    }
    if uri.contains('#') {
        return Err(fail("it has a fragment".into()));
    }
    if let Some(name) = uri.strip_prefix("sim:") {
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || "/.-".contains(c)) {
            return Err(fail("a simulated host's name is plain".into()));
        }
        let path = name.to_owned();
        return Ok(Connection {
            driver: "sim".into(),
            transport: Transport::Local,
            user: None,
            host: String::new(),
            port: None,
            path,
        });
    }
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(fail("it has no `://`".into()));
    };
    let (driver, transport) = match scheme {
        "qemu" => ("qemu", Transport::Local),
        "qemu+unix" => ("qemu", Transport::Local),
        "qemu+ssh" => ("qemu", Transport::Ssh),
        "qemu+tls" => ("qemu", Transport::Tls),
        "qemu+tcp" => ("qemu", Transport::Tcp),
        "test" => ("test", Transport::Local),
        other => {
            return Err(fail(format!(
                "`{other}` is not among qemu, qemu+unix, qemu+ssh, qemu+tls, qemu+tcp, test, sim"
            )));
        }
    };
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let (user, host_port) = match authority.split_once('@') {
        Some((u, h)) => (Some(u), h),
        None => (None, authority),
    };
    if let Some(user) = user {
        if user.is_empty()
            || user.starts_with('-')
            || !user.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            return Err(fail("the user is not a plain name; passwords do not belong in a URI".into()));
        }
        if transport != Transport::Ssh {
            return Err(fail("only `qemu+ssh` takes a user".into()));
        }
    }
    let (host, port) = match host_port.rsplit_once(':') {
        Some((h, p)) if !p.ends_with(']') => {
            (h, Some(p.parse::<u16>().map_err(|_| fail(format!("`{p}` is not a port")))?))
        }
        _ => (host_port, None),
    };
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    if host.starts_with('-') || !plain.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c)) {
        return Err(fail("the host is not a plain name or address".into()));
    }
    if transport == Transport::Local && !host.is_empty() {
        return Err(fail("a host needs a transport: `qemu+ssh`, `qemu+tls` or `qemu+tcp`".into()));
    }
    if transport != Transport::Local && host.is_empty() {
        return Err(fail("the host is missing".into()));
    }
    let path_fits = match driver {
        "qemu" => path == "/system" || path == "/session",
        // The test driver reads a file where it gets another path.
        _ => path == "/default",
    };
    if !path_fits {
        return Err(fail(format!("the path `{path}` is not allowed")));
    }
    Ok(Connection {
        driver: driver.into(),
        transport,
        user: user.map(str::to_owned),
        host: host.into(),
        port,
        path: path.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_that_run_or_read_something_are_refused() {
        for bad in [
            "qemu+ext://host/system?command=/tmp/x",
            "qemu+ssh://host/system?netcat=/tmp/x",
            "qemu+ssh://host/system?no_verify=1",
            "qemu+tls://host/system?pkipath=/tmp",
            "qemu+unix:///system?socket=/tmp/s",
            "qemu+ssh://-oProxyCommand=x/system",
            "qemu+ssh://-x@host/system",
            "qemu+ssh://root:pw@host/system",
            "qemu+libssh2://host/system",
            "test:///etc/passwd",
            "qemu:///embed",
            "qemu+ssh:///system",
            "qemu://host/system",
            "http://169.254.169.254/",
            "qemu:///system\n",
            "",
        ] {
            assert!(parse_uri(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_not_repeated_in_the_message() {
        let e = parse_uri("qemu+ssh://root:hunter2@host/system").unwrap_err();
        assert!(!format!("{e} {}", e.redacted).contains("hunter2"));
    }

    #[test]
    fn ordinary_uris_are_taken_apart() {
        let c = parse_uri("qemu+ssh://root@kvm-a.example.com:2222/system").unwrap();
        assert_eq!(
            (c.transport, c.user.as_deref(), c.host.as_str(), c.port),
            (Transport::Ssh, Some("root"), "kvm-a.example.com", Some(2222))
        );
        for good in [
            "qemu:///system",
            "qemu+tcp://host-a/system",
            "qemu+tls://[::1]/system",
            "test:///default",
            "sim:",
            "sim://a",
        ] {
            assert!(parse_uri(good).is_ok(), "{good}");
        }
    }
}
