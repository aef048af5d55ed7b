//! The list of finding codes. Each has one cause and one cure; docs/findings.md is checked against this list by a test.
//!
//! D01xx reading a file; D02xx one manifest; D03xx manifests together; D04xx the world; D05xx guard rails and policy; D06xx
//! the prechecks of a move (docs/prechecks.md).

use super::Severity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

macro_rules! codes {
    ($($code:ident $severity:ident $name:ident : $doc:literal),+ $(,)?) => {
        /// A stable finding code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $doc] $name),+ }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$name),+];

            /// The code as shown: `D0103`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => stringify!($code)),+ }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$name => $doc),+ }
            }

            /// The severity it has unless a policy says otherwise.
            pub fn severity(self) -> Severity {
                match self { $(Code::$name => Severity::$severity),+ }
            }
        }
    };
}

codes! {
    D0101 Error Unreadable: "A file or the repository could not be read.",
    D0102 Error NotUtf8: "A file is not UTF-8 text.",
    D0103 Error Syntax: "A file is not YAML.",
    D0104 Error Limit: "A file, a document or the repository is larger or deeper than allowed.",
    D0105 Error Forbidden: "A YAML feature that manifests may not use: anchors, aliases, tags, merge keys, keys that are not text.",
    D0106 Error DuplicateKey: "A mapping has the same key twice.",
    D0107 Info Ignored: "Something in the repository is not read: an empty document, a symbolic link, a submodule.",
    D0108 Error OutsideTree: "A manifest refers to a file outside the repository, or that is not a regular file.",
    D0109 Error NotUnderstood: "A document is not a manifest: `apiVersion`, `kind` or `metadata.name` is missing or wrong.",
    D0201 Error UnknownKind: "No such kind, or a version this Drover does not know.",
    D0202 Error UnknownField: "A field that the kind does not have.",
    D0203 Error MissingField: "A field that must be there is not.",
    D0204 Error WrongValue: "A value of the wrong type, form or range.",
    D0205 Error BadName: "A name that is not allowed.",
    D0206 Error Contradiction: "Fields of one manifest contradict each other.",
    D0207 Error ForbiddenConnection: "A connection that the operator's configuration does not allow.",
    D0208 Warning InsecureConnection: "A connection that anyone on the network can read or change.",
    D0209 Error BadXml: "Domain XML, or a patch to it, that cannot be used.",
    D0301 Error DuplicateName: "Two manifests have one identity.",
    D0302 Error MissingReference: "A manifest refers to one that is not there.",
    D0303 Error Conflict: "Manifests contradict each other.",
    D0304 Error Cycle: "Manifests depend on each other in a circle.",
    D0305 Error TooManySettings: "More than one Settings manifest.",
    D0401 Error HostUnknown: "A host could not be read: nothing that may be on it is touched.",
    D0402 Error NotOwned: "Something of this name exists that Drover does not own.",
    D0403 Error RunningTwice: "A machine runs in two places.",
    D0404 Warning Drift: "What is there was changed by hand.",
    D0405 Info WaitsForRestart: "A change takes effect at the next restart.",
    D0406 Error CannotMove: "A machine cannot be moved as its manifest asks.",
    D0407 Warning Leftover: "Something that a former run left behind.",
    D0408 Info InProgress: "An operation that is already running is waited for.",
    D0409 Error BackingOff: "A step failed and is tried again later.",
    D0410 Error RecreateNeeded: "A change that cannot be made to the existing thing.",
    D0411 Warning Unmanaged: "Something that Drover owns has no manifest any more.",
    D0412 Error Incompatible: "A host does not offer what a machine needs.",
    D0413 Warning StaleObservation: "A plan is computed from an old observation.",
    D0414 Error DefinedTwice: "A machine that is off is defined on several hosts, and none can be told to be the right one.",
    D0415 Error NeedsAPerson: "A state that Drover must not touch, because every automatic way out could lose data.",
    D0416 Info Imported: "What an import could not put into fields.",
    D0417 Warning BaselineUnknown: "The CPU that is common to a machine's hosts is not known.",
    D0418 Warning AfterMove: "A machine that has moved does not show that all is well with it.",
    D0419 Error StorageInUse: "A machine is not started, because another one that runs writes to one of its disks.",
    D0420 Info Evacuation: "A host is being emptied: how many machines will move, and who cannot.",
    D0430 Info StorageAccess: "A host needs a setting for network storage that cannot be read through libvirt.",
    D0501 Error GuardRail: "A step is held back by a guard rail of Settings.",
    D0502 Info Suspended: "A resource is suspended: it is observed, not changed.",
    D0503 Info WindowClosed: "A step waits for its sync window.",
    D0504 Error RestartNotAllowed: "A change needs a restart that the manifest does not allow.",
    D0601 Error OneHost: "Source and destination of a move are one host.",
    D0602 Error OtherHypervisor: "The destination has another hypervisor, architecture or domain type.",
    D0603 Warning OlderVersion: "The destination's libvirt or hypervisor is older than the source's.",
    D0604 Error ReleasePair: "Moves between these two releases are not supported.",
    D0605 Error MachineTypeUnknown: "The destination does not know the machine type.",
    D0606 Error CpuMismatch: "The destination's CPU does not offer what the machine uses.",
    D0607 Error HostDevice: "A machine has a device of its host that cannot move.",
    D0608 Error TpmState: "The state of a machine's TPM would not go with it.",
    D0609 Error FirmwareState: "A machine's firmware is not at the destination, or its UEFI variables would not go with it.",
    D0610 Error HostPath: "A machine names a file of its host that the destination does not have.",
    D0611 Error Pinning: "A machine is pinned to CPUs or NUMA nodes that the destination does not have.",
    D0612 Error HugePagesMissing: "The destination has too few free huge pages.",
    D0613 Error NoMemory: "The destination has too little free memory.",
    D0614 Warning TooFewCpus: "The destination has fewer CPUs than the machine, or too few for all virtual CPUs in use there.",
    D0615 Error DiskNotShared: "A disk is neither on storage that both hosts share nor copied.",
    D0616 Error NotTheSameStorage: "What the manifests call shared storage is not the same on both hosts.",
    D0617 Error NoStorageRoom: "The destination has too little room for a disk that is copied.",
    D0618 Error CopyInTheWay: "Where a disk is to be copied, something lies already.",
    D0619 Warning UnsafeCache: "A disk's cache mode is not safe for a live migration.",
    D0620 Warning StorageLocking: "File locks on shared storage may stop a migration.",
    D0621 Error PoolMissing: "The destination does not have a storage pool of the machine.",
    D0622 Error NetworkMissing: "The destination does not have a network of the machine.",
    D0623 Error BridgeMissing: "The destination does not have a bridge or device of the machine.",
    D0624 Error MtuDiffers: "An interface would get another MTU at the destination.",
    D0625 Error OtherSegment: "A network of the same name is another segment at the destination.",
    D0626 Error NameTaken: "Another domain at the destination has the machine's name.",
    D0627 Error UuidTaken: "A domain at the destination has the machine's UUID.",
    D0628 Error MacTaken: "Another domain at the destination has a MAC address of the machine.",
    D0629 Error SavedImage: "A saved memory image would stay behind.",
    D0630 Error SnapshotsStay: "libvirt does not move a machine with snapshots.",
    D0631 Error CheckpointsStay: "libvirt does not move a machine with checkpoints.",
    D0632 Error BlockJobRunning: "A block job runs on a disk of the machine.",
    D0633 Error JobRunning: "Another job runs on the machine.",
    D0634 Error TlsNotReady: "A host lacks what an encrypted migration needs.",
    D0635 Error NotReachable: "The destination cannot be reached for a migration.",
    D0636 Warning NoConvergence: "A machine changes its memory faster than it can be sent.",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|c| c.as_str() == text)
            .ok_or_else(|| format!("no finding has the code `{text}`"))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Code {
    fn schema_name() -> Cow<'static, str> {
        "Code".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^D[0-9]{4}$", "description": "A finding's stable code; see docs/findings.md."})
    }
}
