//! The fields of a MigrationPolicy, each with libvirt's parameter for it, and its rules.

use super::prechecks::{self, Prechecks};
use crate::finding::{Code, Finding};
use crate::kind::settings::{SyncWindow, check_windows};
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest, Rate, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How machines move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MigrationPolicySpec {
    /// Live (`VIR_MIGRATE_LIVE`), offline (`VIR_MIGRATE_OFFLINE`), or by what the machine is doing.
    pub mode: Mode,
    /// Whether the machine belongs to the destination afterwards (`VIR_MIGRATE_PERSIST_DEST`,
    /// `VIR_MIGRATE_UNDEFINE_SOURCE`), where a VirtualMachineMigration does not say. A machine that moves because its own
    /// `host:` or placement changes always moves for good: that says where it is at home.
    pub permanent: bool,
    /// Parallel connections, "multi-FD" (`VIR_MIGRATE_PARALLEL`, `VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS`): a number, or
    /// `Auto` for one per 10 Gbit/s of the hosts' migration bandwidth, at least 2 (migration guide, 10.4). One connection
    /// where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_connections: Option<ParallelConnections>,
    /// Longest pause of the guest (`virDomainMigrateSetMaxDowntime`); libvirt's 300 ms where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_downtime: Option<Span>,
    /// Upper limit of the transfer (`VIR_MIGRATE_PARAM_BANDWIDTH`; `virDomainMigrateSetMaxSpeed` while it runs).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Rate>,
    /// Raise the longest pause while the migration runs and does not converge (`virDomainMigrateSetMaxDowntime`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raise_downtime: Option<RaiseDowntime>,
    /// Slow the guest's CPUs down until the migration converges (`VIR_MIGRATE_AUTO_CONVERGE`): `true`, or by how much.
    pub auto_converge: AutoConverge,
    /// Compress memory pages (`VIR_MIGRATE_COMPRESSED`, `VIR_MIGRATE_PARAM_COMPRESSION`). What QEMU offers differs between
    /// releases: `mt` went with 9.1, `zstd` and `zlib` need parallel connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Send memory without copying it in the kernel (`VIR_MIGRATE_ZEROCOPY`); needs parallel connections.
    pub zero_copy: bool,
    /// How memory and disks travel (`VIR_MIGRATE_TLS`, `VIR_MIGRATE_TUNNELLED`; neither for `Direct`).
    pub transport: Transport,
    /// Switch to post-copy (`VIR_MIGRATE_POSTCOPY`, `virDomainMigrateStartPostCopy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_copy: Option<PostCopy>,
    /// What happens to disks that are not on shared storage (`VIR_MIGRATE_NON_SHARED_DISK`, `VIR_MIGRATE_NON_SHARED_INC`).
    /// For a machine that is off libvirt copies none, and Drover does (`virStorageVolDownload`, `virStorageVolUpload`).
    pub copy_storage: CopyStorage,
    /// While disks are copied, a write of the guest is done when it is done on both sides
    /// (`VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES`): the copy always converges, and the guest writes more slowly.
    pub synchronous_writes: bool,
    /// Delete the source's disks after they were copied and the machine runs at the destination (`virStorageVolDelete`;
    /// libvirt's migration leaves them). Otherwise they stay, and the plan names them.
    pub delete_source_copies: bool,
    /// Only these disks are copied, by their names in the manifest or their targets (`vda`;
    /// `VIR_MIGRATE_PARAM_MIGRATE_DISKS`). A machine that has another disk on storage that the hosts do not share is not
    /// moved. Every disk that needs it where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_disks: Option<Vec<String>>,
    /// When to give up, and what then (virsh's `--timeout`; Drover keeps the time, no parameter of libvirt does).
    pub timeout: Timeout,
    /// Who drives the move: the source's libvirt daemon (`VIR_MIGRATE_PEER2PEER`), or Drover (`virDomainMigrate3`).
    pub control: Control,
    /// So many further attempts after one that failed, was aborted at its time-out included, and left the machine where it
    /// was. Failures that pass by themselves are tried again twice where not given. No parameter of libvirt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 20))]
    pub retries: Option<u32>,
    /// When machines with this policy may move, beside the `syncWindows` of Settings; any time where none is given. No
    /// parameter of libvirt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<SyncWindow>,
    /// What happens where a precheck is not passed, by its name: `Ignore`, `Warn`, `Block`, or `Require` (what could not be
    /// read holds the move back as well). docs/prechecks.md lists them with what each does by itself; those that keep data
    /// from being lost and machines from running twice can only be made stricter. No parameter of libvirt.
    #[serde(skip_serializing_if = "Prechecks::is_empty")]
    pub prechecks: Prechecks,
    /// Whether it is measured, while a plan is made that moves the machine live, how fast its guest writes to its memory
    /// (`virDomainStartDirtyRateCalc`), for the prediction of the move: `true`, `false`, or over how long and in which way.
    pub dirty_rate: super::DirtyRatePolicy,
}

impl Default for MigrationPolicySpec {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            permanent: true,
            parallel_connections: None,
            max_downtime: None,
            bandwidth: None,
            raise_downtime: None,
            auto_converge: AutoConverge::Switch(false),
            compression: None,
            zero_copy: false,
            transport: Transport::Direct,
            post_copy: None,
            copy_storage: CopyStorage::None,
            synchronous_writes: false,
            delete_source_copies: false,
            copy_disks: None,
            timeout: Timeout::default(),
            control: Control::Auto,
            retries: None,
            windows: Vec::new(),
            prechecks: Prechecks::default(),
            dirty_rate: super::DirtyRatePolicy::Switch(true),
        }
    }
}

/// Live or offline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Live if running, offline if off.
    #[default]
    Auto,
    /// Only while running; a machine that is off waits.
    Live,
    /// Shut down first where it runs and `restartPolicy: Allow` permits it.
    Offline,
}

/// Number of parallel connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ParallelConnections {
    /// So many.
    Count(#[schemars(range(min = 1, max = 255))] u32),
    /// By bandwidth.
    Auto(Auto),
}

/// The word `Auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Auto {
    /// By bandwidth.
    Auto,
}

/// Whether and how much a guest is slowed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AutoConverge {
    /// With QEMU's own figures, or not at all.
    Switch(bool),
    /// With these.
    By(Throttle),
}

impl AutoConverge {
    /// Whether the guest may be slowed down.
    pub fn is_on(self) -> bool {
        !matches!(self, Self::Switch(false))
    }
}

/// How much a guest is slowed down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Throttle {
    /// Per cent at first (`VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL`); QEMU's 20 where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub initial: Option<u32>,
    /// Per cent more each time it does not converge (`VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT`); QEMU's 10 where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub increment: Option<u32>,
}

/// How far and how often the longest pause is raised: doubled each time, from `maxDowntime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RaiseDowntime {
    /// The longest that is acceptable (`virDomainMigrateSetMaxDowntime`).
    pub up_to: Span,
    /// So long between two raises; one minute where not given. No parameter of libvirt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
}

/// How memory pages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Compression {
    Xbzrle,
    Mt,
    Zlib,
    Zstd,
}

impl Compression {
    /// libvirt's name.
    pub fn method(self) -> &'static str {
        match self {
            Self::Xbzrle => "xbzrle",
            Self::Mt => "mt",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// How memory and disks travel between the hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// Between the two QEMUs, in the clear.
    #[default]
    Direct,
    /// Between the two QEMUs, encrypted (`VIR_MIGRATE_TLS`): needs certificates on both hosts.
    Tls,
    /// Through the daemons' own connection (`VIR_MIGRATE_TUNNELLED`): one port, slower; neither disks nor several
    /// connections travel that way.
    Tunnelled,
}

/// When to switch to post-copy: after a time, after a number of passes, or at whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostCopy {
    /// After so long in pre-copy (`virDomainMigrateStartPostCopy` is called then).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Span>,
    /// After so many passes over the memory (as `VIR_DOMAIN_JOB_MEMORY_ITERATION` counts them) without progress: what is left
    /// to send at the beginning of a pass has not become less by a tenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub passes: Option<u32>,
    /// Upper limit of what is sent beforehand in post-copy, besides what the guest asks for
    /// (`VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Rate>,
}

/// What happens to disks that are not on shared storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CopyStorage {
    /// The move is refused.
    #[default]
    None,
    /// They are copied in full (`VIR_MIGRATE_NON_SHARED_DISK`); an image over a backing image becomes one image. A machine that
    /// is off keeps its images as they are, so the destination must have the same backing image at the same path.
    All,
    /// What lies above their backing images is copied (`VIR_MIGRATE_NON_SHARED_INC`). The destination must have the same
    /// backing image at the same path; a disk without one is copied in full.
    Incremental,
}

/// Who drives a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Control {
    /// `PeerToPeer`; `Managed` where the source cannot reach the destination's daemon.
    #[default]
    Auto,
    /// The source's daemon connects to the destination's. The move goes on when Drover stops.
    PeerToPeer,
    /// Drover, over its connections to both. The move is cancelled when Drover stops, and the machine stays where it is; in
    /// post-copy it goes on to its end, with the machine `Degraded` until then. Before libvirt 8.5 post-copy would lose the
    /// machine's memory with Drover, and is left out.
    Managed,
}

/// When to give up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeout {
    /// After so long. No parameter of libvirt.
    pub after: Span,
    /// What then (`virDomainAbortJob`, `virDomainMigrateStartPostCopy`, `virDomainSuspend`).
    pub action: TimeoutAction,
}

impl Default for Timeout {
    fn default() -> Self {
        Self { after: Span::seconds(1800), action: TimeoutAction::Abort }
    }
}

/// What happens at the time-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TimeoutAction {
    /// The migration is aborted (`virDomainAbortJob`); the machine stays where it was.
    #[default]
    Abort,
    /// It switches to post-copy, which always ends; the machine then needs both hosts until it has (`VIR_MIGRATE_POSTCOPY`).
    PostCopy,
    /// The guest is paused, so that the migration ends, and goes on at the destination (`virDomainSuspend`).
    Suspend,
}

impl Spec for MigrationPolicySpec {
    const KIND: KindName = KindName::new("MigrationPolicy");
    const SUMMARY: &'static str = "how machines move: live or offline, limits, storage copy, time-out";

    fn check(manifest: &Manifest<Self>, _all: &Resources, findings: &mut Vec<Finding>) {
        let spec = &manifest.spec;
        prechecks::check(manifest, findings);
        if spec.timeout.after.0 == 0 {
            findings.push(
                Finding::new(Code::WrongValue, "a time-out of zero would abort every migration")
                    .of(manifest, "spec.timeout.after")
                    .hint("give the longest a move may take, such as `30m`"),
            );
        }
        if spec.max_downtime.is_some_and(|d| d.0 == 0) {
            findings.push(
                Finding::new(Code::WrongValue, "libvirt refuses a downtime of zero")
                    .of(manifest, "spec.maxDowntime")
                    .hint("libvirt's own default is `300ms`"),
            );
        }
        // QEMU's own limit (MAX_MIGRATE_DOWNTIME_SECONDS): libvirt passes more on, and the pause stays as it was.
        let longest = Span::seconds(2000);
        let up_to = spec.raise_downtime.as_ref().map(|r| r.up_to);
        for (path, pause) in [("spec.maxDowntime", spec.max_downtime), ("spec.raiseDowntime.upTo", up_to)] {
            if pause.is_some_and(|p| p.0 > longest.0) {
                findings.push(
                    Finding::new(Code::WrongValue, "QEMU takes no longer pause than 2000 s")
                        .of(manifest, path)
                        .hint("with `timeout: {action: Suspend}` a guest is paused for as long as it takes"),
                );
            }
        }
        if spec.raise_downtime.as_ref().is_some_and(|r| r.every.is_some_and(|e| e.0 == 0)) {
            findings.push(
                Finding::new(Code::WrongValue, "the pause cannot be raised every moment")
                    .of(manifest, "spec.raiseDowntime.every")
                    .hint("give each step some time, such as `30s`"),
            );
        }
        let post_copy = spec.post_copy.as_ref().and_then(|p| p.bandwidth);
        for (path, rate) in [("spec.bandwidth", spec.bandwidth), ("spec.postCopy.bandwidth", post_copy)] {
            if rate.is_some_and(|r| r.bytes_per_second() == 0) {
                findings.push(
                    Finding::new(Code::WrongValue, "nothing moves at a bandwidth of zero")
                        .of(manifest, path)
                        .hint("leave it out for no limit, or give one such as `1Gbit/s`"),
                );
            }
        }
        let mut say = |code, path: &str, message: &str, hint: &str| {
            findings.push(Finding::new(code, message).of(manifest, path).hint(hint));
        };
        if spec.post_copy.as_ref().is_some_and(|p| p.after.is_none() && p.passes.is_none()) {
            say(
                Code::MissingField,
                "spec.postCopy",
                "`postCopy` says neither after how long nor after how many passes to switch",
                "give `after`, `passes`, or both",
            );
        }
        if spec.control == Control::Managed && spec.transport == Transport::Tunnelled {
            say(
                Code::Contradiction,
                "spec.control",
                "only the source's daemon can tunnel a move through its connection",
                "use `control: PeerToPeer`, or `transport: Tls`",
            );
        }
        if spec.copy_disks.is_some() && spec.copy_storage == CopyStorage::None {
            say(
                Code::Contradiction,
                "spec.copyDisks",
                "`copyDisks` says which disks are copied, and `copyStorage` copies none",
                "set `copyStorage: All` or `Incremental`, or take it out",
            );
        }
        if let super::DirtyRatePolicy::By(m) = spec.dirty_rate
            && !(m.period.0 % 1000 == 0 && (1000..=60_000).contains(&m.period.0))
        {
            say(
                Code::WrongValue,
                "spec.dirtyRate.period",
                "libvirt measures a dirty rate over 1 to 60 whole seconds",
                "`1s` is enough for most guests",
            );
        }
        let is_parallel = spec.parallel_connections.is_some();
        if spec.zero_copy && !is_parallel {
            say(
                Code::Contradiction,
                "spec.zeroCopy",
                "QEMU sends without copying only over parallel connections",
                "add `parallelConnections: Auto`",
            );
        }
        if spec.zero_copy && (spec.compression.is_some() || spec.transport != Transport::Direct) {
            say(
                Code::Contradiction,
                "spec.zeroCopy",
                "what is compressed or encrypted has to be copied",
                "take `compression` out and use `transport: Direct`, or take `zeroCopy` out",
            );
        }
        if matches!(spec.compression, Some(Compression::Zlib | Compression::Zstd)) && !is_parallel {
            say(
                Code::Contradiction,
                "spec.compression",
                "QEMU compresses with zlib and zstd only over parallel connections",
                "add `parallelConnections: Auto`, or use `xbzrle`",
            );
        }
        if spec.compression == Some(Compression::Xbzrle) && is_parallel {
            say(
                Code::Contradiction,
                "spec.compression",
                "QEMU has no xbzrle over parallel connections",
                "use `zstd`, or take `parallelConnections` out",
            );
        }
        if spec.transport == Transport::Tunnelled && (is_parallel || spec.copy_storage != CopyStorage::None) {
            say(
                Code::Contradiction,
                "spec.transport",
                "libvirt tunnels neither parallel connections nor disks",
                "use `transport: Tls`, or take `parallelConnections` and `copyStorage` out",
            );
        }
        if spec.transport == Transport::Tunnelled
            && (spec.post_copy.is_some() || spec.timeout.action == TimeoutAction::PostCopy)
        {
            say(
                Code::Contradiction,
                "spec.transport",
                "post-copy does not go through a tunnel",
                "use `transport: Tls`, or leave post-copy out",
            );
        }
        if spec.synchronous_writes && spec.copy_storage == CopyStorage::None {
            say(
                Code::Contradiction,
                "spec.synchronousWrites",
                "`synchronousWrites` is about disks that are copied, and `copyStorage` copies none",
                "set `copyStorage: All`, or take it out",
            );
        }
        if let Some(raise) = spec.raise_downtime
            && raise.up_to.0 <= spec.max_downtime.map_or(300, |d| d.0)
        {
            say(
                Code::Contradiction,
                "spec.raiseDowntime.upTo",
                "the longest pause is raised to no more than it is at first",
                "make `upTo` longer than `maxDowntime` (libvirt's own is `300ms`)",
            );
        }
        if let Some(p) = &spec.post_copy
            && p.passes.is_none()
            && p.after.is_some_and(|after| after >= spec.timeout.after)
        {
            findings.push(
                Finding::new(
                    Code::Contradiction,
                    "the switch to post-copy comes after the time-out, so it never comes",
                )
                .of(manifest, "spec.postCopy.after")
                .hint("make `timeout.after` longer than `postCopy.after`"),
            );
        }
        if let Some(ParallelConnections::Count(n)) = spec.parallel_connections
            && !(1..=255).contains(&n)
        {
            findings.push(
                Finding::new(Code::WrongValue, format!("{n} parallel connections; QEMU takes 1 to 255"))
                    .of(manifest, "spec.parallelConnections"),
            );
        }
        let only_live = spec.post_copy.is_some()
            || spec.auto_converge.is_on()
            || spec.raise_downtime.is_some()
            || spec.compression.is_some()
            || spec.zero_copy
            || spec.transport != Transport::Direct
            || spec.timeout.action != TimeoutAction::Abort;
        if spec.mode == Mode::Offline && only_live {
            findings.push(
                Finding::new(
                    Code::Contradiction,
                    "an offline move sends no memory: post-copy, auto-converge, compression, transport and what is done at \
                     the time-out are about live ones",
                )
                .of(manifest, "spec.mode")
                .hint("take them out, or use `mode: Auto`"),
            );
        }
        if spec.delete_source_copies && spec.copy_storage == CopyStorage::None {
            findings.push(
                Finding::new(Code::Contradiction, "`deleteSourceCopies` without `copyStorage` has nothing to delete")
                    .of(manifest, "spec.deleteSourceCopies"),
            );
        }
        check_windows(manifest, "spec.windows", &spec.windows, findings);
    }
}
