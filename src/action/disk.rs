//! Disks of a machine that change their pool on the host that they are on.

use crate::observed::OwnerMark;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One disk's way from a pool to another of the same host. A machine that runs goes on running: its disk is mirrored
/// (`virDomainBlockCopy`) and switched over (`virDomainBlockJobAbort` with `PIVOT`). One that is off has its volume copied
/// (`virStorageVolCreateXMLFrom`) and its definition changed. Nothing that is there is overwritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskMove {
    /// Where.
    pub host: String,
    /// The domain.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// The disk's target in the guest (`vda`).
    pub target: String,
    /// Where the disk is. `None` where it is at its new place already and an earlier move only has to be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DiskPlace>,
    /// Where it goes.
    pub to: DiskPlace,
    /// Whether the new place is a block device and not a file.
    #[serde(default)]
    pub block: bool,
    /// The new volume's format, `qcow2` or `raw`.
    pub format: String,
    /// Delete the volume that the disk leaves, once the machine is seen to be off it.
    #[serde(default)]
    pub delete_source: bool,
    /// Limit of the live copy in MiB/s (`VIR_DOMAIN_BLOCK_COPY_BANDWIDTH`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mib: Option<u64>,
    /// The ownership mark that the machine has afterwards, with the new volume in it.
    pub owner: OwnerMark,
}

/// A volume, and its path on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskPlace {
    /// The pool.
    pub pool: String,
    /// The volume's name.
    pub volume: String,
    /// Its path.
    pub path: String,
}
