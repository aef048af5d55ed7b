//! Actions on hypervisor hosts: pools, volumes, domains, migrations. Each names its host by the Host manifest's name.

use super::disk::{DiskMove, DiskPlace};
use super::migration::Migration;
use crate::observed::{MoveMark, OwnerMark};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::domain_xml::Edit as DomainXmlEdit;

/// An action on a hypervisor host. The serialised form is the plan's `action` and `parameters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "action", content = "parameters", rename_all_fields = "camelCase")]
pub enum MachineAction {
    /// Defines a pool that is not there, and builds its target where the type needs it (`virStoragePoolDefineXML`).
    DefineStoragePool {
        /// Where.
        host: String,
        /// The pool's name.
        pool: String,
        /// Its definition.
        xml: String,
        /// Whether it starts with the host.
        autostart: bool,
    },
    /// Starts a pool (`virStoragePoolCreate`).
    StartStoragePool {
        /// Where.
        host: String,
        /// The pool's name.
        pool: String,
    },
    /// Sets whether a pool starts with its host.
    SetStoragePoolAutostart {
        /// Where.
        host: String,
        /// The pool's name.
        pool: String,
        /// On or off.
        autostart: bool,
    },
    /// Writes a host's own marker into a pool, so that other hosts can tell whether they have the same storage: an empty
    /// volume [`POOL_MARKER`](crate::observed::POOL_MARKER) with an id.
    MarkStoragePool {
        /// Where.
        host: String,
        /// The pool's name.
        pool: String,
        /// The marker's id.
        marker: Uuid,
    },
    /// Looks in a pool for a marker that another host wrote. It is not the same storage where none is found; then the
    /// host's own marker is written, which says so to whoever looks later, and the step fails.
    VerifySharedPool {
        /// Where it is looked for.
        host: String,
        /// The pool's name.
        pool: String,
        /// The host whose markers are looked for.
        with: String,
        /// Ids of the markers of which any is enough.
        markers: Vec<Uuid>,
        /// This host's own.
        own: Uuid,
    },
    /// Creates a volume, empty or filled from an image. Never overwrites: a volume of the name that is already there is
    /// the action's success when size and format fit, and its refusal when they do not.
    CreateVolume {
        /// Where.
        host: String,
        /// The pool.
        pool: String,
        /// The volume's name.
        volume: String,
        /// Size that the guest sees, in bytes. At least the image's.
        capacity: u64,
        /// `qcow2` or `raw`.
        format: String,
        /// Filled from this image.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<ImageSource>,
        /// An overlay over this image, which then must never change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backing: Option<ImageSource>,
    },
    /// Grows a volume (`virStorageVolResize`); through the domain where one runs on it (`virDomainBlockResize`).
    ResizeVolume {
        /// Where.
        host: String,
        /// The pool.
        pool: String,
        /// The volume's name.
        volume: String,
        /// New size in bytes; never smaller.
        capacity: u64,
        /// The running domain that has it, and the disk's target there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        running: Option<(Uuid, String)>,
    },
    /// Deletes a volume.
    DeleteVolume {
        /// Where.
        host: String,
        /// The pool.
        pool: String,
        /// The volume's name.
        volume: String,
        /// Its path when the plan was made: another path now is a refusal.
        path: String,
    },
    /// Defines a domain that is not there. `look` refuses when its name or UUID is taken.
    DefineDomain {
        /// Where.
        host: String,
        /// The domain's name.
        name: String,
        /// Its UUID.
        uuid: Uuid,
        /// The whole definition, with the ownership mark.
        xml: String,
    },
    /// Changes a persistent definition: reads it anew with its secrets, applies the edits, defines it.
    UpdateDomain {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// What to change.
        edits: Vec<DomainXmlEdit>,
        /// Digest of the persistent definition the plan was made from; another one now is a refusal. Empty for a domain
        /// without a persistent definition (transient), which gets one.
        expect: String,
    },
    /// Writes the ownership mark into a domain (adoption), live and persistent.
    SetOwner {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// The mark.
        owner: OwnerMark,
    },
    /// Takes the ownership mark out of a domain, live and persistent: Drover lets go of it.
    RemoveOwner {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
    },
    /// Writes the marks of moves into a domain, live and persistent, in the place of those that it has; none takes the
    /// element out.
    SetMoves {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// All of them.
        moves: Vec<MoveMark>,
    },
    /// Renames a domain that is off (`virDomainRename`).
    RenameDomain {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// The new name.
        name: String,
    },
    /// Changes a running domain without a restart.
    ChangeLive {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// What.
        change: LiveChange,
    },
    /// Sets whether a domain starts with its host.
    SetAutostart {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// On or off.
        autostart: bool,
    },
    /// Starts a domain that is off.
    StartDomain {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// Started, but not running yet.
        paused: bool,
    },
    /// Resumes a paused domain.
    ResumeDomain {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
    },
    /// Pauses a running domain.
    PauseDomain {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
    },
    /// Asks the guest to shut down (agent or ACPI) and waits. Without `force` a guest that does not obey fails the step.
    ShutdownDomain {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// How long to wait, in milliseconds.
        timeout_millis: u64,
        /// Cut the power after that.
        force: bool,
    },
    /// Undefines a domain that is off. Its volumes stay; NVRAM goes with it only when `nvram` says so.
    UndefineDomain {
        /// Where.
        host: String,
        /// Which.
        uuid: Uuid,
        /// Delete the NVRAM file too.
        nvram: bool,
    },
    /// Moves a disk of a machine to another pool of its host.
    MoveDisk(Box<DiskMove>),
    /// Aborts a move of a disk that is not wanted any more, and removes the half copy.
    CancelDiskMove {
        /// Where.
        host: String,
        /// Which machine.
        uuid: Uuid,
        /// The disk's target in the guest.
        target: String,
        /// What the disk is being copied to.
        to: DiskPlace,
    },
    /// Moves a machine to another host.
    MigrateVirtualMachine(Box<Migration>),
    /// Aborts a migration that nobody wants any more (`virDomainAbortJob`), as long as the guest's memory is not split over
    /// both hosts, and clears away what it made at the destination.
    AbortMigration(Box<Migration>),
    /// Follows a migration that somebody else started, to its end.
    AwaitMigration {
        /// The host it leaves.
        host: String,
        /// Which.
        uuid: Uuid,
    },
}

/// A volume that another is filled from or laid over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The pool.
    pub pool: String,
    /// The volume's name in it; may have a folder in front (`base/debian-12.qcow2`).
    pub volume: String,
}

/// A pool on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct PoolRef {
    /// The host.
    pub host: String,
    /// The pool.
    pub pool: String,
}

/// A change to a running domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum LiveChange {
    /// Number of vCPUs (`virDomainSetVcpusFlags`, live).
    Vcpus {
        /// How many.
        count: u32,
    },
    /// Balloon target (`virDomainSetMemoryFlags`, live).
    Memory {
        /// KiB.
        kib: u64,
    },
    /// Plugs a device in (`virDomainAttachDeviceFlags`, live).
    Attach {
        /// The device's XML.
        xml: String,
    },
    /// Unplugs a device (`virDomainDetachDeviceFlags`, live).
    Detach {
        /// The device's XML, as the live definition has it.
        xml: String,
    },
    /// Changes a device in place: medium, link state, network, display password expiry (`virDomainUpdateDeviceFlags`).
    Update {
        /// The device's new XML.
        xml: String,
    },
}

impl MachineAction {
    /// The action's name, as the plan shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DefineStoragePool { .. } => "DefineStoragePool",
            Self::StartStoragePool { .. } => "StartStoragePool",
            Self::SetStoragePoolAutostart { .. } => "SetStoragePoolAutostart",
            Self::CreateVolume { .. } => "CreateVolume",
            Self::ResizeVolume { .. } => "ResizeVolume",
            Self::DeleteVolume { .. } => "DeleteVolume",
            Self::DefineDomain { .. } => "DefineDomain",
            Self::UpdateDomain { .. } => "UpdateDomain",
            Self::SetOwner { .. } => "SetOwner",
            Self::RemoveOwner { .. } => "RemoveOwner",
            Self::SetMoves { .. } => "SetMoves",
            Self::RenameDomain { .. } => "RenameDomain",
            Self::ChangeLive { .. } => "ChangeLive",
            Self::SetAutostart { .. } => "SetAutostart",
            Self::StartDomain { .. } => "StartDomain",
            Self::ResumeDomain { .. } => "ResumeDomain",
            Self::PauseDomain { .. } => "PauseDomain",
            Self::ShutdownDomain { .. } => "ShutdownDomain",
            Self::UndefineDomain { .. } => "UndefineDomain",
            Self::MarkStoragePool { .. } => "MarkStoragePool",
            Self::VerifySharedPool { .. } => "VerifySharedPool",
            Self::MoveDisk(_) => "MoveDisk",
            Self::CancelDiskMove { .. } => "CancelDiskMove",
            Self::MigrateVirtualMachine(_) => "MigrateVirtualMachine",
            Self::AbortMigration(_) => "AbortMigration",
            Self::AwaitMigration { .. } => "AwaitMigration",
        }
    }

    /// What undoes it, where one thing does. A step may know better and say more.
    pub fn undo(&self) -> Option<String> {
        Some(match self {
            Self::DefineStoragePool { host, pool, .. } => {
                format!("virsh pool-destroy {pool}, then virsh pool-undefine {pool} on {host}; its volumes stay")
            }
            Self::StartStoragePool { host, pool } => format!("virsh pool-destroy {pool} on {host}; its volumes stay"),
            Self::SetStoragePoolAutostart { host, pool, autostart } => {
                let back = if *autostart { " --disable" } else { "" };
                format!("virsh pool-autostart {pool}{back} on {host}")
            }
            Self::CreateVolume { host, pool, volume, .. } => {
                format!("virsh vol-delete {volume} --pool {pool} on {host}")
            }
            Self::ResizeVolume { .. } => return None,
            Self::DeleteVolume { .. } => return None,
            Self::DefineDomain { host, name, .. } => format!("virsh undefine {name} on {host}; its volumes stay"),
            Self::UpdateDomain { .. } | Self::ChangeLive { .. } => {
                "git revert; what was there before is in the plan's changes".into()
            }
            Self::SetOwner { .. } => "take the ownership mark out of the domain's metadata".into(),
            Self::RemoveOwner { .. } => "bring the manifest back, with the annotation `drover/adopt: \"true\"`".into(),
            Self::SetMoves { .. } | Self::AbortMigration(_) => return None,
            Self::RenameDomain { host, uuid, .. } => format!("virsh domrename {uuid} to the old name on {host}"),
            Self::SetAutostart { host, uuid, autostart } => {
                let back = if *autostart { " --disable" } else { "" };
                format!("virsh autostart {uuid}{back} on {host}")
            }
            Self::StartDomain { .. } => "`powerState: Stopped`".into(),
            Self::ResumeDomain { .. } => "`powerState: Paused`".into(),
            Self::PauseDomain { .. } | Self::ShutdownDomain { .. } => "`powerState: Running`".into(),
            Self::UndefineDomain { .. } => return None,
            Self::MigrateVirtualMachine(m) if m.mark.is_none() && !m.permanent => {
                format!("bring the VirtualMachineMigration back that had it on `{}`", m.from)
            }
            Self::MigrateVirtualMachine(m) if m.mark.is_some() && !m.permanent => {
                "take the VirtualMachineMigration out of Git: it comes home".into()
            }
            Self::MigrateVirtualMachine(m) if m.mark.is_some() => {
                format!("a VirtualMachineMigration the other way, `to: {}`", m.from)
            }
            Self::MarkStoragePool { host, pool, marker } => {
                format!("virsh vol-delete {}{marker} --pool {pool} on {host}", crate::observed::POOL_MARKER)
            }
            Self::VerifySharedPool { .. } | Self::CancelDiskMove { .. } => return None,
            Self::MoveDisk(m) => format!("move it back: `pool: {}`", m.from.as_ref()?.pool),
            Self::MigrateVirtualMachine(m) => format!("move it back: `host: {}`", m.from),
            // Somebody else began it: the wish that it serves is not known here.
            Self::AwaitMigration { host, uuid, .. } => format!("virsh domjobabort {uuid} on {host} while it runs"),
        })
    }

    /// The domain that it is about, where it is about one.
    pub fn machine(&self) -> Option<Uuid> {
        match self {
            Self::MigrateVirtualMachine(m) | Self::AbortMigration(m) => Some(m.uuid),
            Self::DefineDomain { uuid, .. }
            | Self::UpdateDomain { uuid, .. }
            | Self::SetOwner { uuid, .. }
            | Self::RemoveOwner { uuid, .. }
            | Self::SetMoves { uuid, .. }
            | Self::RenameDomain { uuid, .. }
            | Self::ChangeLive { uuid, .. }
            | Self::SetAutostart { uuid, .. }
            | Self::StartDomain { uuid, .. }
            | Self::ResumeDomain { uuid, .. }
            | Self::PauseDomain { uuid, .. }
            | Self::ShutdownDomain { uuid, .. }
            | Self::UndefineDomain { uuid, .. }
            | Self::CancelDiskMove { uuid, .. }
            | Self::AwaitMigration { uuid, .. } => Some(*uuid),
            Self::MoveDisk(m) => Some(m.uuid),
            Self::DefineStoragePool { .. }
            | Self::StartStoragePool { .. }
            | Self::SetStoragePoolAutostart { .. }
            | Self::MarkStoragePool { .. }
            | Self::VerifySharedPool { .. }
            | Self::CreateVolume { .. }
            | Self::ResizeVolume { .. }
            | Self::DeleteVolume { .. } => None,
        }
    }

    /// The hosts it works on; a migration's source first.
    pub fn hosts(&self) -> Vec<&str> {
        match self {
            Self::MigrateVirtualMachine(m) | Self::AbortMigration(m) => vec![&m.from, &m.to],
            Self::MoveDisk(m) => vec![&m.host],
            Self::DefineStoragePool { host, .. }
            | Self::StartStoragePool { host, .. }
            | Self::SetStoragePoolAutostart { host, .. }
            | Self::MarkStoragePool { host, .. }
            | Self::VerifySharedPool { host, .. }
            | Self::CancelDiskMove { host, .. }
            | Self::CreateVolume { host, .. }
            | Self::ResizeVolume { host, .. }
            | Self::DeleteVolume { host, .. }
            | Self::DefineDomain { host, .. }
            | Self::UpdateDomain { host, .. }
            | Self::SetOwner { host, .. }
            | Self::RemoveOwner { host, .. }
            | Self::SetMoves { host, .. }
            | Self::RenameDomain { host, .. }
            | Self::ChangeLive { host, .. }
            | Self::SetAutostart { host, .. }
            | Self::StartDomain { host, .. }
            | Self::ResumeDomain { host, .. }
            | Self::PauseDomain { host, .. }
            | Self::ShutdownDomain { host, .. }
            | Self::UndefineDomain { host, .. }
            | Self::AwaitMigration { host, .. } => vec![host],
        }
    }
}
