//! What went wrong, and what that means: whether it may pass, and what to do about it. libvirt's wording changes between
//! releases, so this matches on its error numbers and on short fragments, never on whole sentences.

use crate::provider::ActError;
use std::time::Duration;
use virt::error::Error;
use virt_sys as sys;

/// Why something on a host could not be done or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// libvirt said no.
    #[error("cannot {what} on host `{host}`: {message}")]
    Libvirt {
        /// On which host.
        host: String,
        /// What was being tried.
        what: String,
        /// `virErrorNumber`.
        code: u32,
        /// libvirt's words.
        message: String,
    },
    /// No connection.
    #[error("host `{host}` cannot be reached: {why}")]
    Unreachable {
        /// Which host.
        host: String,
        /// Why.
        why: String,
    },
    /// The call did not come back in time. It may still take effect.
    #[error("host `{host}` did not answer within {} while trying to {what}", seconds(*.after))]
    Hung {
        /// Which host.
        host: String,
        /// What was being tried.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// So many calls to the host hang that no more are made.
    #[error("host `{host}` is not asked: {calls} earlier calls to it still hang")]
    Exhausted {
        /// Which host.
        host: String,
        /// How many.
        calls: usize,
    },
    /// libvirt's answer makes no sense.
    #[error("host `{host}` gave an answer that cannot be used while trying to {what}: {why}")]
    Odd {
        /// Which host.
        host: String,
        /// What was being read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A rule of Drover's own says no.
    #[error("host `{host}`: {why}")]
    Refused {
        /// Which host.
        host: String,
        /// Which rule, and what is there instead.
        why: String,
        /// What to do.
        hint: String,
    },
    /// Not waited for any longer; what was begun may still come about.
    #[error("host `{host}`: {why}")]
    Left {
        /// Which host.
        host: String,
        /// What is left going on.
        why: String,
    },
}

fn seconds(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 10.0).round() / 10.0)
}

/// Adds what was being tried to a libvirt error.
pub(super) trait During<T> {
    /// `what` completes "cannot …": `start domain `web-1``.
    fn during(self, what: impl Into<String>) -> Result<T, Fault>;
}

impl<T> During<T> for Result<T, Error> {
    fn during(self, what: impl Into<String>) -> Result<T, Fault> {
        self.map_err(|e| Fault::Libvirt {
            host: String::new(),
            what: what.into(),
            code: e.code().to_raw(),
            message: e.message().to_owned(),
        })
    }
}

/// Fragments of messages by which a broken connection or a passing trouble is known, whatever number libvirt gave it.
const PASSING: &[&str] = &[
    "client socket is closed",
    "hangup",
    "keepalive",
    "connection reset",
    "connection refused",
    "connection timed out",
    "timed out",
    "broken pipe",
    "end of file while reading",
    "no route to host",
    "network is unreachable",
    "cannot acquire state change lock",
    "failed to get \"write\" lock",
    "asynchronous job",
    "another migration job",
];

/// Fragments by which a host that does not let Drover in is told from one that cannot be reached.
const REFUSED: &[&str] = &["host key", "permission denied", "authentication failed", "certificate"];

/// What to do, by number and by a fragment of the message. The first that fits is given.
const HINTS: &[(Option<sys::virErrorNumber>, &str, &str)] = &[
    (
        None,
        "does not support machine type",
        "give the machine a type that both hosts have (`spec.machine`), or bring the destination's QEMU up to date",
    ),
    (
        None,
        "missing features",
        "give the machine a CPU model that both hosts have (`spec.cpu: {mode: custom, model: …}`)",
    ),
    (
        None,
        "unknown cpu feature",
        "give the machine a CPU model that both hosts have (`spec.cpu: {mode: custom, model: …}`)",
    ),
    (
        Some(sys::VIR_ERR_CPU_INCOMPATIBLE),
        "",
        "give the machine a CPU model that both hosts have (`spec.cpu: {mode: custom, model: …}`)",
    ),
    (
        Some(sys::VIR_ERR_MIGRATE_UNSAFE),
        "",
        "put its disks on shared storage that libvirt recognises (NFS, a network disk, or `shared_filesystems` in qemu.conf), use `cache: none`, or set `copyStorage: All` in its migration policy",
    ),
    (None, "storage pool not found", "declare the pool on the destination too (a StoragePool with both hosts)"),
    (Some(sys::VIR_ERR_NO_STORAGE_POOL), "", "declare the pool on this host (StoragePool), or start it"),
    (
        None,
        "unknown filesystem type",
        "the host's kernel cannot mount it: install what the format needs (`nfs-common` or `nfs-utils` for NFS, `cifs-utils` for CIFS), or load the kernel's module",
    ),
    (
        None,
        "bad option; for several filesystems",
        "the host has no program that mounts it: install `nfs-common` or `nfs-utils` for NFS, `cifs-utils` for CIFS",
    ),
    (
        None,
        "access denied by server while mounting",
        "let the NFS server export the folder to this host (/etc/exports with rw and no_root_squash, then `exportfs -a`)",
    ),
    (
        None,
        "': permission denied",
        "QEMU may not open the image: on NFS see no_root_squash at the server, and on hosts with SELinux `setsebool -P virt_use_nfs 1`",
    ),
    (
        None,
        "different sizes",
        "an image of another size is already at the destination: remove it, or give it the source's size",
    ),
    (
        None,
        "cannot access storage file",
        "the image is not on the destination: check that the pool is the same storage on both hosts (`shared`), or set `copyStorage: All`",
    ),
    (
        None,
        "attempt to migrate guest to the same host",
        "the two Host manifests are one machine, or their host UUIDs are equal (`host_uuid` in libvirtd.conf)",
    ),
    (None, "already exists with uuid", "another machine has that name on the host: rename one of them"),
    (
        None,
        "already active",
        "a machine with this UUID already runs there: find out which copy is the right one before doing anything",
    ),
    (
        None,
        "cannot get interface mtu",
        "the bridge is not on the host: make it there, or give the machine another network",
    ),
    (Some(sys::VIR_ERR_NO_NETWORK), "", "define the network on the host"),
    (
        None,
        "unable to resolve address",
        "the source host cannot resolve the destination's name: set `spec.migration.uri` or `spec.migration.address` of the destination Host",
    ),
    (
        None,
        "requires an fqdn",
        "the destination calls itself localhost: set `spec.migration.address` of the destination Host",
    ),
    (
        None,
        "unable to connect to server at",
        "the source host has no way to that address and port: check `spec.migration.uri`, `spec.migration.address` and `spec.migration.ports` of the destination Host, and the firewalls",
    ),
    (
        None,
        "unable to find an unused port",
        "every port for migrations is taken on the destination: move fewer machines at once (`maxIncoming`), or widen the range (`migration_port_max` in its qemu.conf)",
    ),
    (
        None,
        "only with vir_migrate_tls",
        "the host takes encrypted migrations only (`migrate_tls_force` in its qemu.conf): set `transport: Tls` in the migration policy",
    ),
    (
        None,
        "unexpectedly closed the monitor",
        "the destination's QEMU ended: its log says why (/var/log/libvirt/qemu on that host)",
    ),
    (
        None,
        "empty or read-only disk",
        "only a disk that the machine writes to is copied: leave it out of `copyDisks`, and bring its image to the destination beforehand",
    ),
    (None, "no space left", "make room in the pool"),
    (None, "host key", "add the host's key to the known hosts of the user that Drover runs as"),
    (
        None,
        "kex_exchange_identification",
        "the host's SSH server hangs up on this address: see its log, and MaxStartups and PerSourcePenalties in sshd_config(5)",
    ),
    (
        None,
        "not allowed at this time",
        "the host's SSH server shuts this address out for a while: see PerSourcePenalties in sshd_config(5)",
    ),
    (
        None,
        "tls handshake failed",
        "that port speaks no TLS (libvirt's own: 16514 with, 16509 without), or the certificates of the two sides do not fit",
    ),
    (
        None,
        "certificate",
        "check the certificates on both hosts: QEMU's are in /etc/pki/qemu (or where `migrate_tls_x509_cert_dir` in qemu.conf says), libvirt's in /etc/pki/CA and /etc/pki/libvirt",
    ),
    (
        None,
        "server-cert.pem",
        "the host has no certificate for encrypted migrations: see `migrate_tls_x509_cert_dir` in its qemu.conf, or use `transport: Direct`",
    ),
    (None, "permission denied (", "the host does not accept Drover's SSH key"),
    (Some(sys::VIR_ERR_AUTH_FAILED), "", "check the credentials that Drover connects with"),
    (
        Some(sys::VIR_ERR_ACCESS_DENIED),
        "",
        "libvirt's access rules on the host do not allow this to the user that Drover connects as",
    ),
    (None, "read only access", "this connection only reads"),
    (Some(sys::VIR_ERR_OPERATION_TIMEOUT), "", "another operation holds the domain; it is tried again"),
    (
        None,
        "failed to get \"write\" lock",
        "another process has the image open, perhaps the same machine on another host",
    ),
    (
        Some(sys::VIR_ERR_XML_INVALID_SCHEMA),
        "",
        "the definition is not what libvirt's schema allows: check `xml` and `xmlPatches`",
    ),
];

impl Fault {
    /// Fills in the host where the place that knew the call did not know it.
    pub(super) fn at(mut self, name: &str) -> Self {
        let (Self::Libvirt { host, .. }
        | Self::Unreachable { host, .. }
        | Self::Hung { host, .. }
        | Self::Exhausted { host, .. }
        | Self::Odd { host, .. }
        | Self::Refused { host, .. }
        | Self::Left { host, .. }) = &mut self;
        if host.is_empty() {
            name.clone_into(host);
        }
        self
    }

    /// An answer that makes no sense.
    pub(super) fn odd(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Odd { host: String::new(), what: what.into(), why: why.into() }
    }

    /// A refusal of Drover's own.
    pub(super) fn refused(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { host: String::new(), why: why.into(), hint: hint.into() }
    }

    /// Something that is left going on.
    pub(super) fn left(why: impl Into<String>) -> Self {
        Self::Left { host: String::new(), why: why.into() }
    }

    /// What was said, without what was being tried: for a message that says that itself.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Libvirt { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    /// libvirt's error number.
    pub(super) fn code(&self) -> Option<sys::virErrorNumber> {
        match self {
            Self::Libvirt { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether libvirt says that the domain, pool or volume asked for is not there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(
            self.code(),
            Some(
                sys::VIR_ERR_NO_DOMAIN
                    | sys::VIR_ERR_NO_STORAGE_POOL
                    | sys::VIR_ERR_NO_STORAGE_VOL
                    | sys::VIR_ERR_NO_NETWORK
            )
        )
    }

    /// Whether the driver does not know the call at all.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self.code(), Some(sys::VIR_ERR_NO_SUPPORT))
    }

    /// Whether a fragment, in lower case, stands in libvirt's words.
    pub(super) fn says(&self, fragment: &str) -> bool {
        match self {
            Self::Libvirt { message, .. } => message.to_lowercase().contains(fragment),
            Self::Unreachable { why, .. }
            | Self::Odd { why, .. }
            | Self::Refused { why, .. }
            | Self::Left { why, .. } => why.to_lowercase().contains(fragment),
            Self::Hung { .. } | Self::Exhausted { .. } => false,
        }
    }

    /// Whether the connection it came over is of no more use.
    pub(super) fn broke_connection(&self) -> bool {
        match self {
            Self::Libvirt { code, .. } => {
                matches!(*code, sys::VIR_ERR_RPC | sys::VIR_ERR_INVALID_CONN)
                    || PASSING[..9].iter().any(|f| self.says(f)) && *code != sys::VIR_ERR_OPERATION_TIMEOUT
            }
            Self::Hung { .. } => true,
            Self::Unreachable { .. }
            | Self::Exhausted { .. }
            | Self::Odd { .. }
            | Self::Refused { .. }
            | Self::Left { .. } => false,
        }
    }

    /// Whether it may pass by itself.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Libvirt { code, .. } => {
                matches!(
                    *code,
                    sys::VIR_ERR_RPC
                        | sys::VIR_ERR_INVALID_CONN
                        | sys::VIR_ERR_OPERATION_TIMEOUT
                        | sys::VIR_ERR_RESOURCE_BUSY
                        | sys::VIR_ERR_AGENT_UNRESPONSIVE
                        | sys::VIR_ERR_AGENT_COMMAND_TIMEOUT
                        | sys::VIR_ERR_NO_SERVER
                ) || PASSING.iter().any(|f| self.says(f))
            }
            // A key or a password that is refused now is refused again, and again is how accounts get locked.
            Self::Unreachable { .. } => !REFUSED.iter().any(|f| self.says(f)),
            Self::Hung { .. } | Self::Exhausted { .. } | Self::Left { .. } => true,
            Self::Odd { .. } | Self::Refused { .. } => false,
        }
    }

    /// What to do about it.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => (!hint.is_empty()).then(|| hint.clone()),
            Self::Libvirt { code, .. } => HINTS
                .iter()
                .find(|(n, fragment, _)| n.is_none_or(|n| n == *code) && (fragment.is_empty() || self.says(fragment)))
                .map(|(_, _, hint)| (*hint).to_owned()),
            Self::Unreachable { .. } => {
                let known = HINTS.iter().find(|(n, fragment, _)| n.is_none() && self.says(fragment));
                Some(
                    known
                        .map_or("check that the host is up, its libvirt daemon runs, and the URI is right", |h| h.2)
                        .to_owned(),
                )
            }
            Self::Hung { .. } | Self::Exhausted { .. } => {
                Some("look at the libvirt daemon on the host, and at the storage it waits for".to_owned())
            }
            Self::Odd { .. } | Self::Left { .. } => None,
        }
    }
}

impl From<Fault> for ActError {
    fn from(fault: Fault) -> Self {
        ActError { message: fault.to_string(), transient: fault.is_transient(), hint: fault.hint() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: u32, message: &str) -> Fault {
        Fault::Libvirt { host: String::new(), what: "move `web-1`".into(), code, message: message.into() }.at("kvm-a")
    }

    /// Messages as libvirt 9.0 and 11.3 word them.
    #[test]
    fn trouble_that_passes_is_told_from_trouble_that_stays() {
        for (code, message) in [
            (
                68,
                "Timed out during operation: cannot acquire state change lock (held by monitor=remoteDispatchDomainMigratePerform3Params)",
            ),
            (1, "internal error: client socket is closed"),
            (38, "unable to connect to server at 'host-b:49152': Connection refused"),
            (38, "Cannot recv data: Connection reset by peer"),
            (39, "received hangup event on socket"),
        ] {
            assert!(fault(code, message).is_transient(), "{message}");
        }
        for (code, message) in [
            (9, "operation failed: guest CPU doesn't match specification: missing features: pcommit"),
            (67, "unsupported configuration: Emulator '/usr/bin/qemu' does not support machine type 'pc-q35-10.0'"),
            (81, "Unsafe migration: Migration without shared storage is unsafe"),
            (42, "Domain not found"),
        ] {
            assert!(!fault(code, message).is_transient(), "{message}");
        }
    }

    #[test]
    fn the_error_says_where_and_what_to_do() {
        let e = ActError::from(fault(81, "Unsafe migration: Migration without shared storage is unsafe"));
        assert_eq!(
            e.message,
            "cannot move `web-1` on host `kvm-a`: Unsafe migration: Migration without shared storage is unsafe"
        );
        assert!(e.hint.unwrap().contains("copyStorage: All"));
        assert!(ActError::from(fault(9, "missing features: pcommit")).hint.unwrap().contains("CPU model"));
    }

    #[test]
    fn only_a_dead_connection_is_thrown_away() {
        assert!(fault(1, "internal error: client socket is closed").broke_connection());
        assert!(!fault(68, "Timed out during operation: cannot acquire state change lock").broke_connection());
        assert!(!fault(42, "Domain not found").broke_connection());
    }
}
