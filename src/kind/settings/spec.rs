//! The fields of Settings.

use crate::finding::{Code, Finding, Severity};
use crate::kind::migration_policy::MigrationPolicySpec;
use crate::kind::{Resources, Spec};
use crate::model::{Bytes, KindName, Manifest, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Guard rails and defaults for the whole repository. Its `metadata.name` is the fleet's name, written into every
/// ownership mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SettingsSpec {
    /// Most machines that one pass disturbs (`Brief`, `Downtime` or `Destructive`); the rest is held back for the next
    /// pass. No limit where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_disruptive: Option<u32>,
    /// Most machines that one pass deletes, each with what Drover made for it. More are all held back, because that is more often a mistake than a wish.
    pub max_deletes: u32,
    /// Whether what Drover made and what has no manifest any more is removed (machines: as their last `deletionPolicy`
    /// said is not known any more, so they are undefined only when off, and their disks always stay).
    pub prune: bool,
    /// Whether drift is corrected, or only reported, where a machine does not say.
    pub drift: Drift,
    /// Whether passes without a new commit change anything at all.
    pub self_heal: bool,
    /// When steps that disturb a workload may run; any time where none is given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sync_windows: Vec<SyncWindow>,
    /// Resources that are observed and not changed: `Kind/name`, or `Kind/*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suspended: Vec<String>,
    /// Steps at once over all hosts.
    #[schemars(range(min = 1, max = 256))]
    pub max_concurrent: u32,
    /// How machines move where neither they nor anything else says: the name of a MigrationPolicy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration_policy: Option<String>,
    /// How hosts are chosen for machines with `placement`.
    #[serde(skip_serializing_if = "PlacementSettings::is_default")]
    pub placement: PlacementSettings,
}

/// How hosts are chosen for machines with `placement` (docs/placement.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlacementSettings {
    /// Memory of each host that no machine is placed into: for the host itself and for what QEMU takes beside the guests'
    /// memory.
    pub memory_reserve: Bytes,
    /// Most virtual CPUs in use for each CPU of a host.
    #[schemars(range(min = 1, max = 256))]
    pub vcpus_per_cpu: u32,
    /// Whether machines that may stay are moved all the same when hosts are filled unevenly.
    pub rebalance: Rebalance,
    /// How far the shares of memory in use of two hosts may differ before rebalancing moves a machine from one to the
    /// other, in per cent of a host's memory.
    #[schemars(range(min = 1, max = 100))]
    pub imbalance: u32,
}

impl Default for PlacementSettings {
    fn default() -> Self {
        // 512 MiB: Nova's `reserved_host_memory_mb`. 10: KubeVirt's `cpuAllocationRatio`.
        Self { memory_reserve: Bytes(512 << 20), vcpus_per_cpu: 10, rebalance: Rebalance::Never, imbalance: 20 }
    }
}

impl PlacementSettings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether machines move only because hosts are filled unevenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rebalance {
    /// Never: a machine that may stay stays. `drover plan --rebalance` and `drover apply --rebalance` do it once.
    #[default]
    Never,
    /// In every pass, while hosts differ by more than `imbalance`.
    Always,
}

impl Default for SettingsSpec {
    fn default() -> Self {
        Self {
            max_disruptive: None,
            max_deletes: 1,
            prune: false,
            drift: Drift::Correct,
            self_heal: true,
            sync_windows: Vec::new(),
            suspended: Vec::new(),
            max_concurrent: 8,
            migration_policy: None,
            placement: PlacementSettings::default(),
        }
    }
}

/// What happens to drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Drift {
    /// It is corrected.
    #[default]
    Correct,
    /// It is shown, and left alone.
    Report,
}

/// A time in which disturbing steps may, or may not, run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncWindow {
    /// May or may not. A `Deny` that is open beats every `Allow`.
    pub kind: WindowKind,
    /// Days on which it opens; every day where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Weekday>,
    /// When it opens, in UTC: `22:00`.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// How long it stays open, at most 7 days.
    pub duration: Span,
}

/// May or may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WindowKind {
    /// Disturbing steps run only in such windows.
    Allow,
    /// Disturbing steps never run in such windows.
    Deny,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Spec for SettingsSpec {
    const KIND: KindName = KindName::new("Settings");
    const SUMMARY: &'static str = "guard rails and defaults for the whole repository; at most one";

    fn check(manifest: &Manifest<Self>, all: &Resources, findings: &mut Vec<Finding>) {
        if let Some(first) = all.settings.values().next()
            && first.name() != manifest.name()
        {
            findings.push(
                Finding::new(
                    Code::TooManySettings,
                    format!("`{}` is a second Settings; `{}` is the first", manifest.name(), first.name()),
                )
                .of(manifest, "metadata.name")
                .see(first.origin.source())
                .hint("keep one of them"),
            );
        }
        if let Some(policy) = &manifest.spec.migration_policy {
            all.check_reference(manifest, "spec.migrationPolicy", &MigrationPolicySpec::KIND, policy, findings);
        }
        check_windows(manifest, "spec.syncWindows", &manifest.spec.sync_windows, findings);
        for (i, s) in manifest.spec.suspended.iter().enumerate() {
            let named = s.split_once('/').filter(|(_, name)| !name.is_empty());
            let kind = named.and_then(|(kind, _)| crate::kind::KINDS.iter().find(|k| k.name.as_str() == kind));
            if let (Some((_, name)), Some(kind)) = (named, kind)
                && name != "*"
                && all.misses(&kind.name, name)
            {
                // It may be one that has no manifest any more, so this is no error.
                findings.push(
                    Finding::new(
                        Code::MissingReference,
                        format!("there is no {} `{}` to suspend", kind.name, name.escape_debug()),
                    )
                    .severity(Severity::Warning)
                    .of(manifest, &format!("spec.suspended[{i}]"))
                    .hint("check the name, or take the line out"),
                );
            }
            let known = kind.is_some();
            if !known {
                findings.push(
                    Finding::new(Code::WrongValue, format!("`{s}` does not name a resource"))
                        .of(manifest, &format!("spec.suspended[{i}]"))
                        .hint("write `Kind/name` or `Kind/*`"),
                );
            }
        }
    }
}

/// Reports windows that never open, or never close.
pub fn check_windows<S>(manifest: &Manifest<S>, path: &str, windows: &[SyncWindow], findings: &mut Vec<Finding>) {
    for (i, w) in windows.iter().enumerate() {
        if w.duration.0 == 0 || w.duration.0 > 7 * 86_400_000 {
            findings.push(
                Finding::new(Code::WrongValue, "a window is open for more than nothing and at most 7 days")
                    .of(manifest, &format!("{path}[{i}].duration")),
            );
        }
    }
}
