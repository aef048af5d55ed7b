//! One move of a machine, and how it travels and converges.

use crate::observed::MoveMark;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One move of a machine. libvirt's parameter for each field is named; see virDomainMigrate3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// The domain.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// The host it leaves.
    pub from: String,
    /// The host it goes to.
    pub to: String,
    /// Live or offline.
    pub way: MigrationWay,
    /// Whether the destination gets the definition and the source loses it (`VIR_MIGRATE_PERSIST_DEST`,
    /// `VIR_MIGRATE_UNDEFINE_SOURCE`). Otherwise the source keeps its own, and the machine is the source's again when it
    /// shuts down; on the way home again, the definition there is in force as it was kept.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub permanent: bool,
    /// The mark of the VirtualMachineMigration that it is for: written into the domain before it leaves, and as done once it
    /// has arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<MoveMark>,
    /// It stands still on arrival (`VIR_MIGRATE_PAUSED`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arrive_paused: bool,
    /// Its name at the destination, where that is another (`VIR_MIGRATE_PARAM_DEST_NAME`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<String>,
    /// The destination's URI as the source host reaches it (peer-to-peer).
    pub destination_uri: String,
    /// Where the destination's QEMU listens (`VIR_MIGRATE_PARAM_URI`), `tcp://10.0.0.12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_uri: Option<String>,
    /// Volumes that are copied because they are not on shared storage; made at the destination beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy: Vec<MigratedVolume>,
    /// Delete the source's copies of `copy` after success.
    #[serde(default)]
    pub delete_source_copies: bool,
    /// How a live migration converges and travels, beyond what stands here by itself.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub tuning: Tuning,
    /// Bandwidth in MiB/s (`VIR_MIGRATE_PARAM_BANDWIDTH`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mib: Option<u64>,
    /// Longest pause in milliseconds (`virDomainMigrateSetMaxDowntime`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downtime_millis: Option<u64>,
    /// Parallel connections (`VIR_MIGRATE_PARALLEL`, `VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// Throttle the guest until it converges (`VIR_MIGRATE_AUTO_CONVERGE`).
    #[serde(default)]
    pub auto_converge: bool,
    /// Switch to post-copy after so many milliseconds (`VIR_MIGRATE_POSTCOPY`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_copy_after_millis: Option<u64>,
    /// Abort after so many milliseconds.
    pub timeout_millis: u64,
    /// Whether the machine starts with its host: set on the destination, because libvirt does not carry it over.
    pub autostart: bool,
    /// Who drives it.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub control: Control,
    /// Further attempts after a failure that left the machine where it was; the executor's own where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Copy only what lies above the disks' backing images, which the destination has (`VIR_MIGRATE_NON_SHARED_INC`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incremental: bool,
}

/// How a live migration converges and travels. Plain is what libvirt does of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tuning {
    /// Raise the longest pause up to so many milliseconds while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime_up_to_millis: Option<u64>,
    /// So many milliseconds between two raises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downtime_every_millis: Option<u64>,
    /// `VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL`, per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_initial: Option<u32>,
    /// `VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT`, per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_increment: Option<u32>,
    /// `VIR_MIGRATE_PARAM_COMPRESSION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// `VIR_MIGRATE_ZEROCOPY`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub zero_copy: bool,
    /// `VIR_MIGRATE_TLS`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// `VIR_MIGRATE_TUNNELLED`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tunnelled: bool,
    /// Switch to post-copy after so many passes without progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_copy_passes: Option<u32>,
    /// `VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY`, MiB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_copy_bandwidth_mib: Option<u64>,
    /// `VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub synchronous_writes: bool,
    /// What happens at the time-out.
    #[serde(skip_serializing_if = "is_abort")]
    pub at_timeout: AtTimeout,
}

fn is_auto(control: &Control) -> bool {
    *control == Control::Auto
}

/// Who drives a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Control {
    /// The source's daemon, and Drover where the source cannot reach the destination's daemon.
    #[default]
    Auto,
    /// The source's daemon (`VIR_MIGRATE_PEER2PEER`): it goes on when Drover dies.
    PeerToPeer,
    /// Drover, over its connections to both daemons: it is cancelled when Drover dies.
    Managed,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_yes(is: &bool) -> bool {
    *is
}

fn is_plain(tuning: &Tuning) -> bool {
    *tuning == Tuning::default()
}

fn is_abort(at: &AtTimeout) -> bool {
    *at == AtTimeout::Abort
}

/// What happens when a live migration takes too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AtTimeout {
    /// It is aborted.
    #[default]
    Abort,
    /// It switches to post-copy.
    PostCopy,
    /// The guest is paused until it is there.
    Suspend,
}

impl Migration {
    /// The name that the machine has on arrival.
    pub fn name_there(&self) -> &str {
        self.rename.as_deref().unwrap_or(&self.name)
    }

    /// Whether it may switch to post-copy, which libvirt has to know at the start.
    pub fn may_post_copy(&self) -> bool {
        self.post_copy_after_millis.is_some()
            || self.tuning.post_copy_passes.is_some()
            || self.tuning.at_timeout == AtTimeout::PostCopy
    }

    /// Takes post-copy out of it: what would have switched at its time-out is aborted then.
    pub fn leave_out_post_copy(&mut self) {
        self.post_copy_after_millis = None;
        self.tuning.post_copy_passes = None;
        self.tuning.post_copy_bandwidth_mib = None;
        if self.tuning.at_timeout == AtTimeout::PostCopy {
            self.tuning.at_timeout = AtTimeout::Abort;
        }
    }

    /// A move of `uuid`, called `name`, between two hosts, with libvirt's own defaults and an hour's time.
    pub fn new(uuid: Uuid, name: &str, [from, to]: [&str; 2], way: MigrationWay, destination_uri: String) -> Self {
        Self {
            uuid,
            name: name.into(),
            from: from.into(),
            to: to.into(),
            way,
            permanent: true,
            mark: None,
            arrive_paused: false,
            rename: None,
            destination_uri,
            listen_uri: None,
            copy: Vec::new(),
            delete_source_copies: false,
            tuning: Tuning::default(),
            bandwidth_mib: None,
            max_downtime_millis: None,
            parallel: None,
            auto_converge: false,
            post_copy_after_millis: None,
            timeout_millis: 3_600_000,
            autostart: false,
            control: Control::Auto,
            retries: None,
            incremental: false,
        }
    }
}

/// How a machine moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationWay {
    /// The guest goes on running.
    Live,
    /// The machine is off; its definition moves.
    Offline,
}

/// A volume that a migration copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigratedVolume {
    /// The disk's target in the guest (`vda`; `VIR_MIGRATE_PARAM_MIGRATE_DISKS`).
    pub target: String,
    /// The pool that has it, on the source.
    pub pool: String,
    /// Its name.
    pub volume: String,
    /// Its path on the source.
    pub path: String,
    /// The pool that gets it, on the destination.
    pub to_pool: String,
    /// Size that the guest sees, in bytes.
    pub capacity: u64,
    /// `qcow2` or `raw`.
    pub format: String,
    /// The image below it, which the destination has at the same path; only what lies above it is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<Backing>,
}

/// An image that lies below a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backing {
    /// Its path, on both hosts.
    pub path: String,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Size that it shows, in bytes.
    pub capacity: u64,
}
