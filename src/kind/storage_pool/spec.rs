//! The fields of a StoragePool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A libvirt storage pool, the same on each of its hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoragePoolSpec {
    /// The hosts that have it.
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
    /// libvirt's pool type.
    pub r#type: PoolType,
    /// Where the storage comes from; which fields are needed depends on the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PoolSource>,
    /// The path at which volumes appear on the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/"))]
    pub target: Option<String>,
    /// Whether it is the same storage on all hosts: a machine on it moves without its disks being copied. Pools of files
    /// (`dir`, `fs`, `netfs`) are checked: a marker that is written on one host is looked for on the others, and no machine
    /// moves over a pool in which it is not found.
    #[serde(default)]
    pub shared: bool,
    /// Options of mount(8), in libvirt's own words, such as `nolock` or `soft` (fs, netfs; libvirt 5.1 and later). The
    /// migration guide asks for NFS without file locks: for NFS 3 that is `nolock`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_options: Vec<String>,
    /// Whether it starts with the host.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// The pool's name in libvirt, where it is not the manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_name: Option<String>,
}

fn yes() -> bool {
    true
}

/// libvirt's pool types (libvirt.org/storage.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PoolType {
    /// A folder.
    Dir,
    /// A file system that is mounted.
    Fs,
    /// A network file system that is mounted.
    Netfs,
    /// An LVM volume group.
    Logical,
    /// A whole disk.
    Disk,
    /// An iSCSI target.
    Iscsi,
    /// A SCSI host bus adapter.
    Scsi,
    /// Multipath devices.
    Mpath,
    /// A Ceph pool.
    Rbd,
    /// A ZFS pool.
    Zfs,
}

/// Where a pool's storage comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PoolSource {
    /// The server (netfs, iscsi, rbd).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The exported path (netfs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The version of the protocol that a server is asked for: `3`, `4.2` (netfs with format `nfs`; libvirt 5.1 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub protocol_version: Option<String>,
    /// The format: `nfs`, `cifs`, `ext4`, `xfs`, `lvm2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Devices (fs, disk, logical, iscsi).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// The volume group or pool at the source (logical, rbd, zfs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The adapter (scsi).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
}

impl StoragePoolSpec {
    /// libvirt's name for the pool of a manifest of this name.
    pub fn libvirt_name<'a>(&'a self, manifest: &'a str) -> &'a str {
        self.pool_name.as_deref().unwrap_or(manifest)
    }
}
