//! What the providers read: plain data that serialises, so that a plan can be computed from a saved observation.
//!
//! Three-valued throughout: a host is read completely or it is [`Reading::Unknown`]. Absence is only ever concluded from
//! a complete reading. Nothing here is secret: providers read domain XML without its security-sensitive parts.

mod asked;
mod cluster;
mod cluster_asked;

pub use asked::{
    Answer, Baseline, CompareCpu, CpuBaseline, CpuFit, DirtyRate, DirtyRateMode, HostCpu, MeasureDirtyRate, Offer,
    Platform, Question, Questions,
};
pub use cluster::{ClusterState, CrdState, NamespaceState, ObjectState, Right};
pub use cluster_asked::{Answered, ClusterAnswer, ClusterQuestion, ClusterQuestions, FieldConflict};
mod hardware;

pub use hardware::{CellState, InterfaceState, NetworkState, PagesState, ProbeOutcome, ProbeState};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The version of the saved form; another major version is refused.
pub const FORMAT_VERSION: &str = "1.0";

/// Everything that was read in one observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Version of this form ([`FORMAT_VERSION`]).
    pub format_version: String,
    /// When the reading began.
    #[schemars(with = "String")]
    pub taken_at: Timestamp,
    /// One reading for each host that is declared, by the manifest's name.
    pub hosts: BTreeMap<String, Reading<HostState>>,
    /// CPUs that are common to several hosts, where a manifest asks for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_baselines: Vec<CpuBaseline>,
    /// One reading for each cluster that is declared, by the manifest's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clusters: BTreeMap<String, Reading<ClusterState>>,
}

impl Observed {
    /// An observation of nothing.
    pub fn empty(taken_at: Timestamp) -> Self {
        Self {
            format_version: FORMAT_VERSION.into(),
            taken_at,
            hosts: BTreeMap::new(),
            cpu_baselines: Vec::new(),
            clusters: BTreeMap::new(),
        }
    }

    /// A host's state, if it could be read.
    pub fn host(&self, name: &str) -> Option<&HostState> {
        match self.hosts.get(name) {
            Some(Reading::Present(state)) => Some(state),
            _ => None,
        }
    }

    /// A cluster's state, if it could be read.
    pub fn cluster(&self, name: &str) -> Option<&ClusterState> {
        match self.clusters.get(name) {
            Some(Reading::Present(state)) => Some(state),
            _ => None,
        }
    }

    /// A domain on a host that was read, to add an answer to it.
    pub fn domain_mut(&mut self, host: &str, uuid: Uuid) -> Option<&mut DomainState> {
        match self.hosts.get_mut(host) {
            Some(Reading::Present(state)) => state.domains.iter_mut().find(|d| d.uuid == uuid),
            _ => None,
        }
    }
}

/// A complete reading, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reading<T> {
    /// Read completely.
    Present(T),
    /// Could not be read completely: nothing may be concluded.
    Unknown {
        /// What went wrong, in words for the operator.
        why: String,
    },
}

/// A hypervisor host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HostState {
    /// The host's own name.
    pub hostname: String,
    /// libvirt's host UUID; two hosts with one UUID are one host.
    pub uuid: String,
    /// The hypervisor driver: `QEMU`, `TEST`, `SIM`.
    pub driver: String,
    /// libvirt's version on the host, `11.3.0`.
    pub libvirt_version: String,
    /// The hypervisor's version, `10.0.2`.
    pub hypervisor_version: String,
    /// CPU architecture, `x86_64`.
    pub arch: String,
    /// Its own CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<HostCpu>,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Free memory in bytes.
    pub free_memory: u64,
    /// Domain types it offers (`kvm`, `qemu`), best first.
    pub domain_types: Vec<String>,
    /// The programs that run its machines, by their paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub emulators: Vec<String>,
    /// Machine types it offers, canonical names.
    pub machine_types: Vec<String>,
    /// Machine type aliases to canonical names (`q35` to `pc-q35-10.0`).
    pub machine_aliases: BTreeMap<String, String>,
    /// Security drivers that confine its machines (`selinux`, `apparmor`, `dac`), from its capabilities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_models: Vec<String>,
    /// Networks by name, and whether each is active.
    pub networks: BTreeMap<String, bool>,
    /// What those networks are; only those whose definition could be read.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub network_states: BTreeMap<String, NetworkState>,
    /// Network interfaces by name; none where libvirt cannot tell (a daemon without interface driver). The devices of
    /// guests are among them as far as libvirt lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<BTreeMap<String, InterfaceState>>,
    /// NUMA cells; empty where the host does not tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<CellState>,
    /// Firmware images that libvirt offers for guests. Asked for where a machine that has one is to move there; none where
    /// it was not, and empty where libvirt does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Vec<String>>,
    /// What Drover found when it tried the migration address; none where it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeState>,
    /// Storage pools by name.
    pub pools: BTreeMap<String, PoolState>,
    /// Domains, ordered by name.
    pub domains: Vec<DomainState>,
}

/// A storage pool on a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolState {
    /// libvirt's UUID of the pool.
    pub uuid: String,
    /// Whether it is started. The volumes of an inactive pool are not known.
    pub active: bool,
    /// Whether it outlives a restart of the daemon.
    pub persistent: bool,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// Its definition, as libvirt prints it.
    pub xml: String,
    /// Its target path, where it has one.
    pub target: Option<String>,
    /// Capacity in bytes.
    pub capacity: u64,
    /// Free bytes.
    pub available: u64,
    /// Ids of the markers in it, as of the pool's last refresh: volumes that Drover wrote to tell whether two hosts have
    /// the same storage ([`POOL_MARKER`]). They are not among the volumes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub markers: BTreeSet<Uuid>,
    /// Numbers that the storage itself gave its volumes (UUIDs of logical volumes, ids of SCSI units), as of the pool's last
    /// refresh, where libvirt tells them: they are the same on every host that has the storage.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub numbers: BTreeSet<String>,
    /// Volumes by name, as of the pool's last refresh.
    pub volumes: BTreeMap<String, VolumeState>,
}

/// A volume in a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeState {
    /// Its path on the host.
    pub path: String,
    /// `raw`, `qcow2`, ….
    pub format: String,
    /// Size that a guest sees, in bytes.
    pub capacity: u64,
    /// Bytes it takes.
    pub allocation: u64,
    /// The path of its backing image, where it has one.
    pub backing: Option<String>,
}

/// What the name of a pool's marker begins with; its id follows.
pub const POOL_MARKER: &str = ".drover-pool-";

/// What the name of the marker beside a half copy ends in. Its volume is of no use until the marker is gone, and only a
/// volume with a marker that no domain uses is ever removed without being asked for.
pub const HALF_COPY: &str = ".drover-incoming";

/// The id in the name of a pool's marker, where it is one.
pub fn pool_marker(volume: &str) -> Option<Uuid> {
    volume.strip_prefix(POOL_MARKER)?.parse().ok()
}

/// A domain on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainState {
    /// libvirt's name for it.
    pub name: String,
    /// Its UUID: the identity of a machine across hosts.
    pub uuid: Uuid,
    /// What it is doing.
    pub state: RunState,
    /// libvirt's reason for the state, in its own word (`migrated`, `postcopy-failed`, `user`).
    #[serde(default)]
    pub reason: String,
    /// Whether there is a persistent definition.
    pub persistent: bool,
    /// Whether it starts with the host.
    #[serde(default)]
    pub autostart: bool,
    /// The live definition, for an active domain. Without security-sensitive parts. Not to be had of the half of a
    /// migration that arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_xml: Option<String>,
    /// The persistent definition, for a persistent domain. Without security-sensitive parts. Not to be had of the half of a
    /// migration that arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_xml: Option<String>,
    /// The ownership mark in its metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerMark>,
    /// What VirtualMachineMigrations have done to it, or are about to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<MoveMark>,
    /// The job that is running on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobState>,
    /// Whether a saved memory image waits for the next start (`virsh managedsave`).
    #[serde(default)]
    pub managed_save: bool,
    /// Number of snapshots; libvirt refuses to undefine or move a domain with some kinds of them.
    #[serde(default)]
    pub snapshots: u32,
    /// Whether its CPU can be had on another host, by that host's name; asked where its manifest asks for that host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cpu_at: BTreeMap<String, Reading<CpuFit>>,
    /// How fast it writes to its memory; measured where its manifest asks for another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_rate: Option<Reading<DirtyRate>>,
    /// Number of checkpoints (of incremental backups); libvirt refuses to move a domain with them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub checkpoints: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none(number: &u32) -> bool {
    *number == 0
}

impl DomainState {
    /// A domain of which nothing but this is known yet.
    pub fn new(name: String, uuid: Uuid, state: RunState, reason: String, persistent: bool) -> Self {
        Self {
            name,
            uuid,
            state,
            reason,
            persistent,
            autostart: false,
            live_xml: None,
            persistent_xml: None,
            owner: None,
            moves: Vec::new(),
            job: None,
            managed_save: false,
            snapshots: 0,
            cpu_at: BTreeMap::new(),
            dirty_rate: None,
            checkpoints: 0,
        }
    }

    /// Whether a hypervisor process holds it.
    pub fn is_active(&self) -> bool {
        !matches!(self.state, RunState::Off | RunState::Crashed)
    }

    /// Whether it is one half of a running migration or of one that broke in post-copy: it must not be destroyed,
    /// undefined, started or changed.
    pub fn is_in_migration(&self) -> bool {
        self.job.as_ref().is_some_and(|j| matches!(j.operation, JobOperation::MigrationIn | JobOperation::MigrationOut))
            || (self.is_active()
                && matches!(
                    self.reason.as_str(),
                    "migrating" | "migration" | "starting-up" | "postcopy" | "postcopy-failed"
                ))
    }

    /// Whether this is the definition that a migration left behind: off, because it moved away.
    pub fn moved_away(&self) -> bool {
        self.state == RunState::Off && self.reason == "migrated"
    }
}

/// What a domain is doing (`virDomainState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunState {
    /// Running (or blocked on a resource, which libvirt tells apart and nobody else does).
    Running,
    /// Paused.
    Paused,
    /// On its way to being off.
    ShuttingDown,
    /// Off.
    Off,
    /// Off after a crash.
    Crashed,
    /// Suspended by its guest's power management.
    Suspended,
}

/// Who owns a domain: the element that Drover writes into `<metadata>`, and that migrations carry along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerMark {
    /// The fleet, by the name of its Settings manifest (`default` where there is none).
    pub fleet: String,
    /// The name of the VirtualMachine manifest.
    pub name: String,
    /// Whether the manifest said `deletionPolicy: Delete` when it was last applied: what happens to the machine is known
    /// from the machine itself when its manifest is gone.
    #[serde(default)]
    pub delete: bool,
    /// Volumes that Drover made for it: only these are ever deleted with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<OwnedVolume>,
}

/// A volume that Drover made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct OwnedVolume {
    /// The pool's name in libvirt.
    pub pool: String,
    /// The volume's name.
    pub volume: String,
}

/// That a VirtualMachineMigration has moved a domain, or is about to: an element in the domain's `<metadata>` that a
/// migration carries along. It is no ownership mark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoveMark {
    /// The fleet, by the name of its Settings manifest (`default` where there is none).
    pub fleet: String,
    /// The name of the VirtualMachineMigration manifest.
    pub migration: String,
    /// Which revision of its spec.
    pub revision: String,
    /// The host that the domain leaves; of a temporary move its home.
    pub from: String,
    /// The host it goes to.
    pub to: String,
    /// Whether its definition stays at home.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub temporary: bool,
    /// Whether it has arrived.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl MoveMark {
    /// Marks with this one in the place of its migration's older one, in order.
    pub fn put_into(&self, marks: &[MoveMark]) -> Vec<MoveMark> {
        let others = marks.iter().filter(|m| (&m.fleet, &m.migration) != (&self.fleet, &self.migration));
        let mut marks: Vec<MoveMark> = others.cloned().chain([self.clone()]).collect();
        marks.sort();
        marks
    }
}

/// XML namespace of the marks of moves.
pub const MOVES_NAMESPACE: &str = "https://drover.dev/xmlns/libvirt/moves/1";

/// Prefix that the marks of moves are written with.
pub const MOVES_PREFIX: &str = "drovermoves";

/// XML namespace of the ownership mark.
pub const OWNER_NAMESPACE: &str = "https://drover.dev/xmlns/libvirt/1";

/// Prefix that the ownership mark is written with.
pub const OWNER_PREFIX: &str = "drover";

/// A job on a domain (`virDomainGetJobStats`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobState {
    /// What the job does.
    pub operation: JobOperation,
    /// Its progress.
    #[serde(default)]
    pub progress: Progress,
}

/// What a job does (`virDomainJobOperation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobOperation {
    /// A migration to this host.
    MigrationIn,
    /// A migration away from this host.
    MigrationOut,
    /// Anything else: save, dump, snapshot, backup.
    Other,
}

/// How far a long operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// What it is doing now, in a word or two (`copying memory`).
    pub phase: String,
    /// Bytes done, memory and disks together.
    pub processed: u64,
    /// Bytes still to do, as known now.
    pub remaining: u64,
    /// Bytes in all, as known now.
    pub total: u64,
    /// Bytes a second at present.
    pub rate: u64,
    /// Pass over the memory, from 1.
    pub iteration: u64,
    /// Milliseconds since it began.
    pub elapsed_millis: u64,
    /// Expected or measured downtime in milliseconds.
    pub downtime_millis: u64,
    /// Whether these are the figures of the whole job, after it ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub completed: bool,
}
