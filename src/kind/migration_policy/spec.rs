//! The fields of a MigrationPolicy, each with libvirt's parameter for it, and its rules.

use crate::finding::{Code, Finding};
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
    /// Parallel connections, "multi-FD" (`VIR_MIGRATE_PARALLEL`): a number, or `Auto` for one per 10 Gbit/s of the hosts'
    /// migration bandwidth, at least 2 (migration guide, 10.4). One connection where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_connections: Option<ParallelConnections>,
    /// Longest pause of the guest (`virDomainMigrateSetMaxDowntime`); libvirt's 300 ms where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_downtime: Option<Span>,
    /// Upper limit of the transfer (`VIR_MIGRATE_PARAM_BANDWIDTH`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Rate>,
    /// Slow the guest's CPUs down until the migration converges (`VIR_MIGRATE_AUTO_CONVERGE`).
    pub auto_converge: bool,
    /// Switch to post-copy (`VIR_MIGRATE_POSTCOPY`, `virDomainMigrateStartPostCopy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_copy: Option<PostCopy>,
    /// What happens to disks that are not on shared storage (`VIR_MIGRATE_NON_SHARED_DISK`).
    pub copy_storage: CopyStorage,
    /// Delete the source's disks after they were copied and the machine runs at the destination. Otherwise they stay,
    /// and the plan names them.
    pub delete_source_copies: bool,
    /// When to give up, and what then.
    pub timeout: Timeout,
}

impl Default for MigrationPolicySpec {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            parallel_connections: None,
            max_downtime: None,
            bandwidth: None,
            auto_converge: false,
            post_copy: None,
            copy_storage: CopyStorage::None,
            delete_source_copies: false,
            timeout: Timeout::default(),
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

/// When to switch to post-copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostCopy {
    /// After so long in pre-copy.
    pub after: Span,
}

/// What happens to disks that are not on shared storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CopyStorage {
    /// The move is refused.
    #[default]
    None,
    /// They are copied in full.
    All,
}

/// When to give up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeout {
    /// After so long.
    pub after: Span,
    /// What then.
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
    /// The migration is aborted; the machine stays where it was.
    #[default]
    Abort,
}

impl Spec for MigrationPolicySpec {
    const KIND: KindName = KindName::new("MigrationPolicy");
    const SUMMARY: &'static str = "how machines move: live or offline, limits, storage copy, time-out";

    fn check(manifest: &Manifest<Self>, _all: &Resources, findings: &mut Vec<Finding>) {
        let spec = &manifest.spec;
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
        if let Some(p) = &spec.post_copy
            && p.after >= spec.timeout.after
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
        if spec.mode == Mode::Offline && (spec.post_copy.is_some() || spec.auto_converge) {
            findings.push(
                Finding::new(Code::Contradiction, "an offline move has neither post-copy nor auto-converge")
                    .of(manifest, "spec.mode")
                    .hint("take `postCopy` and `autoConverge` out, or use `mode: Auto`"),
            );
        }
        if spec.delete_source_copies && spec.copy_storage == CopyStorage::None {
            findings.push(
                Finding::new(Code::Contradiction, "`deleteSourceCopies` without `copyStorage` has nothing to delete")
                    .of(manifest, "spec.deleteSourceCopies"),
            );
        }
    }
}
