//! Prechecks of a move: what is looked at before a machine leaves its host, and what became of it. They are read from what
//! was observed and change nothing; each has a name (a key of `MigrationPolicy.spec.prechecks`), a finding code, and a
//! treatment that a policy may change. docs/prechecks.md is checked against this list by a test.

use super::Block;
use crate::finding::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! prechecks {
    ($($name:ident $text:literal $code:ident $treatment:ident $safety:ident : $doc:literal),+ $(,)?) => {
        /// One thing that is looked at before a machine moves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Precheck { $(#[doc = $doc] #[serde(rename = $text)] $name),+ }

        impl Precheck {
            /// Every precheck, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name, as in a policy: `machineType`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What it asks, in one sentence.
            pub fn question(self) -> &'static str {
                match self { $(Self::$name => $doc),+ }
            }

            /// The code of what it finds.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code),+ }
            }

            /// What happens where it is not passed, unless a policy says otherwise.
            pub fn treatment(self) -> Treatment {
                match self { $(Self::$name => Treatment::$treatment),+ }
            }

            /// Whether a policy may make it milder. Not where that could lose data or run a machine twice.
            pub fn is_fixed(self) -> bool {
                match self { $(Self::$name => Safety::$safety == Safety::Fixed),+ }
            }
        }
    };
}

#[derive(PartialEq)]
enum Safety {
    Fixed,
    Free,
}

prechecks! {
    HostRead "hostRead" HostUnknown Block Fixed: "Both hosts were read completely.",
    HostIdentity "hostIdentity" OneHost Block Fixed: "The hosts are two: their UUIDs differ.",
    Hypervisor "hypervisor" OtherHypervisor Block Free: "The destination has the same driver, architecture and domain type.",
    Versions "versions" OlderVersion Warn Free: "libvirt and the hypervisor at the destination are not older than at the source.",
    Release "release" ReleasePair Block Free: "The pair of releases is one that table 10.2 of the migration guide supports.",
    MachineType "machineType" MachineTypeUnknown Block Free: "The destination knows the machine type.",
    Cpu "cpu" CpuMismatch Block Free: "The destination's CPU offers what the machine uses.",
    Devices "devices" HostDevice Block Free: "It has no device of its host.",
    Tpm "tpm" TpmState Block Fixed: "The state of its TPM goes with it.",
    Firmware "firmware" FirmwareState Block Free: "Its firmware is at the destination, and its UEFI variables go with it.",
    HostPaths "hostPaths" HostPath Block Free: "Other files of the host that it names are at the destination: media, kernels, logs, sockets.",
    Pinning "pinning" Pinning Block Free: "The CPUs and NUMA nodes that it is pinned to exist at the destination.",
    HugePages "hugePages" HugePagesMissing Block Free: "The destination has enough free huge pages of the size.",
    Memory "memory" NoMemory Block Free: "The destination has the memory free.",
    Vcpus "vcpus" TooFewCpus Warn Free: "The destination has as many CPUs as the machine, and vCPUs to spare within `vcpusPerCpu`.",
    Disks "disks" DiskNotShared Block Fixed: "Every disk is on storage that both hosts share, or is copied.",
    SharedStorage "sharedStorage" NotTheSameStorage Block Fixed: "What the manifests call shared is the same storage on both hosts.",
    StorageRoom "storageRoom" NoStorageRoom Block Free: "The destination has room for the disks that are copied.",
    CopyTarget "copyTarget" CopyInTheWay Block Fixed: "Nothing lies where a disk is to be copied.",
    DiskCache "diskCache" UnsafeCache Warn Free: "The disks' cache modes are safe for a live migration.",
    StorageLocks "storageLocks" StorageLocking Warn Free: "Nothing is known of file locks on shared storage that a migration would trip over.",
    Pools "pools" PoolMissing Block Free: "The destination has, or is given, the storage pools of the machine's disks.",
    Networks "networks" NetworkMissing Block Free: "The destination has the libvirt networks, and they are started.",
    Bridges "bridges" BridgeMissing Block Free: "The destination has the bridges and devices that interfaces are on.",
    Mtu "mtu" MtuDiffers Block Free: "Interfaces keep their MTU.",
    Segment "segment" OtherSegment Block Free: "Bridges and networks of one name are the same network segment.",
    Name "name" NameTaken Block Fixed: "No other domain at the destination has its name.",
    Uuid "uuid" UuidTaken Block Fixed: "Its UUID is not in use at the destination.",
    Mac "mac" MacTaken Block Free: "No other domain at the destination has one of its MAC addresses.",
    ManagedSave "managedSave" SavedImage Block Fixed: "It has no saved memory image, which would stay behind.",
    Snapshots "snapshots" SnapshotsStay Block Fixed: "It has no snapshots, which libvirt does not move.",
    Checkpoints "checkpoints" CheckpointsStay Block Fixed: "It has no checkpoints, which libvirt does not move.",
    BlockJobs "blockJobs" BlockJobRunning Block Fixed: "No block job runs on its disks.",
    Jobs "jobs" JobRunning Block Fixed: "No other job runs on it.",
    Tls "tls" TlsNotReady Block Free: "Both hosts have what an encrypted migration needs.",
    Reachability "reachability" NotReachable Block Free: "The source can reach the destination's daemon and migration ports.",
    Convergence "convergence" NoConvergence Warn Free: "The machine changes its memory more slowly than it can be sent.",
}

impl fmt::Display for Precheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens where a precheck is not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Treatment {
    /// It is only listed.
    Ignore,
    /// The plan warns, and the machine moves.
    Warn,
    /// The move is held back. What could not be read is said, and holds nothing back.
    Block,
    /// The move is held back unless the precheck is passed: what could not be read holds it back as well.
    Require,
}

/// What became of a precheck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// It is as it must be.
    Pass,
    /// It is not, and the policy says `Ignore`.
    Ignored,
    /// What it rests on could not be read: it is neither passed nor failed.
    Unknown,
    /// It is not as it should be, and the machine moves all the same.
    Warn,
    /// The move is held back.
    Block,
}

/// A precheck and what became of it. One that looks at several things (disks, networks) is there once for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which.
    pub name: Precheck,
    /// The code of what it finds.
    pub code: Code,
    /// What became of it.
    pub verdict: Verdict,
    /// What was found, with figures: what is needed and what is there.
    pub message: String,
    /// What to do about it, where it is not passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    /// The reason for holding the step back, where it is one.
    pub fn block(&self) -> Option<Block> {
        (self.verdict == Verdict::Block).then(|| Block {
            code: self.code,
            reason: self.message.clone(),
            way_out: self.hint.clone().unwrap_or_else(|| {
                format!("mend it, or set `prechecks: {{{}: Warn}}` in the migration policy", self.name)
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_codes_are_unique_and_stable_in_json() {
        let names: BTreeSet<_> = Precheck::ALL.iter().map(|p| p.as_str()).collect();
        let codes: BTreeSet<_> = Precheck::ALL.iter().map(|p| p.code()).collect();
        assert_eq!((names.len(), codes.len()), (Precheck::ALL.len(), Precheck::ALL.len()));
        for precheck in Precheck::ALL {
            assert_eq!(serde_json::to_value(precheck).unwrap(), precheck.as_str());
        }
    }

    #[test]
    fn what_protects_data_blocks() {
        for precheck in Precheck::ALL.iter().filter(|p| p.is_fixed()) {
            assert_eq!(precheck.treatment(), Treatment::Block, "{precheck}");
        }
    }
}
