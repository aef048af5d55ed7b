//! What of a host's hardware and networks decides whether a machine can move there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A NUMA cell of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CellState {
    /// libvirt's number of it; not always without gaps.
    pub id: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Free memory in bytes; none where it was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<u64>,
    /// Its CPUs, by the host's numbers.
    pub cpus: Vec<u32>,
    /// Huge pages by size in KiB; only sizes of which there are any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub huge_pages: BTreeMap<u64, PagesState>,
}

/// Huge pages of one size in a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PagesState {
    /// How many there are.
    pub total: u64,
    /// How many of them are free; none where that was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
}

/// A network interface of a host: a bridge, a card, a bond, a VLAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InterfaceState {
    /// libvirt's type: `bridge`, `ethernet`, `bond`, `vlan`.
    pub r#type: String,
    /// Its MTU, where libvirt tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What a libvirt network of a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkState {
    /// How it reaches the outside: `nat`, `route`, `bridge`, `isolated`, ….
    pub forward: String,
    /// Its bridge, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Its MTU, where it says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What Drover found when it tried a host's migration address itself. That is not what another host would find: libvirt has
/// no call by which one host tries another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeState {
    /// The address that was tried: the Host's `migration.address`, or the host of its URI.
    pub address: String,
    /// The port: the first of the Host's `migration.ports`.
    pub port: u16,
    /// What became of it.
    pub outcome: ProbeOutcome,
    /// What the system said, where it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProbeOutcome {
    /// Something listens.
    Open,
    /// The host answered that nothing listens: it can be reached, and nothing filters the port. Usual while nothing
    /// migrates.
    Refused,
    /// No answer: the host is off, or something filters the port.
    Silent,
    /// There is no way there, or the name means nothing.
    Unreachable,
}
