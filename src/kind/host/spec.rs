//! The fields of a Host.

use crate::model::Rate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A hypervisor host that libvirt manages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// libvirt URI: `qemu+ssh://root@kvm-a.example.com/system`, `qemu+tls://…`, `qemu:///system`, `test:///default`, or
    /// `sim:` for a simulated host. Parameters are refused unless the operator's configuration allows them.
    pub uri: String,
    /// The host's release, where it cannot be read from the host: `rhel-8.6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Whether the host takes machines.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// Your word that the host is powered off, or cut off from storage and network: nothing runs there. Only then are
    /// machines that may have been on it started elsewhere while it cannot be read.
    #[serde(default)]
    pub fenced: bool,
    /// How machines move to and from it.
    #[serde(default)]
    pub migration: HostMigration,
}

/// Whether a host takes machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Maintenance {
    /// In service.
    #[default]
    None,
    /// Keeps what it has, takes nothing new.
    Cordon,
    /// Is emptied.
    Evacuate,
}

/// How machines move to and from a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostMigration {
    /// Address on which this host's QEMU listens for incoming migrations; the host's name where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Ports for incoming migrations; must be what the host's qemu.conf says.
    #[schemars(regex(pattern = r"^[0-9]{1,5}-[0-9]{1,5}$"))]
    pub ports: String,
    /// Bandwidth of the link that migrations use; for estimates and for `parallelConnections: Auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Rate>,
    /// URI by which other hosts reach this one's libvirt (peer-to-peer); `uri` where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Migrations that may leave it at once.
    #[schemars(range(min = 1, max = 64))]
    pub max_outgoing: u32,
    /// Migrations that may arrive at once.
    #[schemars(range(min = 1, max = 64))]
    pub max_incoming: u32,
}

impl Default for HostMigration {
    fn default() -> Self {
        // 49152-49215: QEMU's range in the migration guide, 10.4; two at once: oVirt's and KubeVirt's default.
        Self {
            address: None,
            ports: "49152-49215".into(),
            bandwidth: None,
            uri: None,
            max_outgoing: 2,
            max_incoming: 2,
        }
    }
}
