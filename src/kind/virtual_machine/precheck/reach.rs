//! Whether the source can reach the destination. libvirt has no call by which one host tries another: what Drover sees
//! itself stands here, and is called that.

use super::{Move, Sheet};
use crate::kind::host::{Transport, parse_uri};
use crate::kind::migration_policy::{Control, Transport as Travel};
use crate::observed::ProbeOutcome;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    // A simulated host and libvirt's test driver are in this process.
    if mv.destination.driver != "QEMU" {
        return;
    }
    let Some(host) = mv.ctx.resources.hosts.get(mv.to).map(|h| &h.spec) else { return };
    let uri = host.migration.uri.as_deref().unwrap_or(&host.uri);
    daemon(mv, uri, sheet);
    if mv.is_live() {
        ports(mv, host.migration.address.as_deref(), &host.migration.ports, sheet);
        tls(mv, uri, sheet);
    }
}

/// The destination's daemon, by the URI that the source would use.
fn daemon(mv: &Move<'_>, uri: &str, sheet: &mut Sheet<'_>) {
    let name = Precheck::Reachability;
    let Ok(connection) = parse_uri(uri) else {
        return sheet.unknown(name, format!("`{uri}` is not a URI that can be looked at"));
    };
    let is_own = connection.transport == Transport::Local || is_loopback(&connection.host);
    if !is_own || mv.policy.control == Control::Managed {
        return sheet.pass(
            name,
            format!(
                "the daemon of `{}` answered Drover; whether `{}` reaches it as well cannot be asked",
                mv.to, mv.from
            ),
        );
    }
    let message =
        format!("`{uri}` is how `{}` is reached from Drover; from `{}` it means that host itself", mv.to, mv.from);
    let hint = "set `migration.uri` of the Host to a URI that other hosts can use, or `control: Managed` in the migration policy";
    match mv.policy.control {
        Control::PeerToPeer => sheet.fail(name, message, hint),
        _ => sheet.doubt(name, message, hint),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.starts_with("localhost.")
        || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

/// Where the destination's QEMU listens.
fn ports(mv: &Move<'_>, address: Option<&str>, range: &str, sheet: &mut Sheet<'_>) {
    let name = Precheck::Reachability;
    let hostname = &mv.destination.hostname;
    match address {
        None if is_loopback(hostname) => {
            return sheet.fail(
                name,
                format!("`{}` calls itself `{hostname}`, and tells the source to send there", mv.to),
                "set `migration.address` of the Host, or give the host a name that others can resolve",
            );
        }
        Some(address) if is_loopback(address) => {
            return sheet.fail(
                name,
                format!("the migration address of `{}` is `{address}`, which is each host itself", mv.to),
                "set `migration.address` of the Host to one that other hosts reach",
            );
        }
        _ => {}
    }
    let Some(probe) = &mv.destination.probe else {
        let at = address.unwrap_or(hostname);
        return sheet.unknown(name, format!("whether {at} takes migrations on the ports {range} was not tried"));
    };
    let at = format!("{}:{}", probe.address, probe.port);
    match probe.outcome {
        ProbeOutcome::Open => {
            sheet.pass(name, format!("{at} is open as seen from Drover; from `{}` it cannot be tried", mv.from))
        }
        ProbeOutcome::Refused => sheet.pass(
            name,
            format!(
                "{at} is not filtered as seen from Drover (nothing listens yet); from `{}` it cannot be tried",
                mv.from
            ),
        ),
        ProbeOutcome::Silent => sheet.unknown(
            name,
            format!("{at} does not answer Drover: something filters the port, or that network is not Drover's"),
        ),
        ProbeOutcome::Unreachable => {
            sheet.unknown(name, format!("Drover has no way to {at}: {}; `{}` may have one", probe.detail, mv.from));
        }
    }
}

/// What is readable of TLS: the daemon's certificates where it is reached with them. QEMU has its own.
fn tls(mv: &Move<'_>, uri: &str, sheet: &mut Sheet<'_>) {
    if mv.policy.transport != Travel::Tls {
        return;
    }
    let daemon = parse_uri(uri).is_ok_and(|c| c.transport == Transport::Tls);
    sheet.unknown(
        Precheck::Tls,
        format!(
            "whether QEMU has certificates on `{}` and `{}` is not told by libvirt{}",
            mv.from,
            mv.to,
            if daemon { "; the destination's daemon has them" } else { "" }
        ),
    );
}
