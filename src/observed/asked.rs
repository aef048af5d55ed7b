//! What is asked of hosts beyond their reading, because manifests ask for it, and what they answered. Questions are plain
//! data that a kind derives from manifests and a reading; asking changes nothing on a host.

use super::{HostState, Reading};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The CPU of a host itself, as its capabilities say: what `host-passthrough` gives to a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HostCpu {
    /// libvirt's nearest named model.
    pub model: String,
    /// The maker.
    pub vendor: String,
    /// Version of the microcode.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub microcode: String,
    /// Family, model and stepping as the maker numbers them, `6/106/6`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signature: String,
    /// Features beyond those of the model.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub features: BTreeSet<String>,
}

/// Which of a host's hypervisors is meant. What is not given, libvirt chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Platform {
    /// Guest architecture, `x86_64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Machine type or its alias, `q35`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Domain type, `kvm` or `qemu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virt_type: Option<String>,
}

impl Platform {
    /// The same, with what is not given taken from what all of these hosts offer: their architecture, their best domain
    /// type that all have, q35 where all have it. libvirt's own choice would be `kvm`, there or not.
    ///
    /// # Errors
    /// Why the hosts have no hypervisor in common.
    pub fn common(&self, hosts: &BTreeMap<&str, &HostState>) -> Result<Self, String> {
        let Some((first_name, first)) = hosts.first_key_value() else { return Ok(self.clone()) };
        if let Some((name, other)) = hosts.iter().find(|(_, h)| h.arch != first.arch) {
            return Err(format!("`{first_name}` is {}, and `{name}` is {}", first.arch, other.arch));
        }
        let has = |t: &String| hosts.values().all(|h| h.domain_types.contains(t));
        let virt_type = match &self.virt_type {
            Some(wanted) => match hosts.iter().find(|(_, h)| !h.domain_types.contains(wanted)) {
                Some((name, _)) => return Err(format!("`{name}` has no `{wanted}` machines")),
                None => wanted.clone(),
            },
            None => match first.domain_types.iter().find(|t| has(t)) {
                Some(common) => common.clone(),
                None => return Err("they have no domain type in common".into()),
            },
        };
        let q35 = "q35";
        Ok(Self {
            arch: self.arch.clone().or_else(|| (!first.arch.is_empty()).then(|| first.arch.clone())),
            machine: self
                .machine
                .clone()
                .or_else(|| hosts.values().all(|h| h.machine_aliases.contains_key(q35)).then(|| q35.to_owned())),
            virt_type: Some(virt_type),
        })
    }
}

/// The CPU that is common to several hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CpuBaseline {
    /// Over which hosts.
    pub hosts: BTreeSet<String>,
    /// For which hypervisor on each.
    pub platform: Platform,
    /// The answer, or why there is none: a host that could not be asked leaves the whole unknown.
    pub answer: Reading<Baseline>,
}

/// A baseline that was computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// The `<cpu>` element for a guest.
    pub cpu: String,
    /// The host that computed it: the one with the newest libvirt, because an older one may not know every feature.
    pub computed_on: String,
    /// What each host brings to it.
    pub hosts: BTreeMap<String, Offer>,
}

/// What a host offers to a guest at most (`host-model` of its domain capabilities).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Offer {
    /// The model.
    pub model: String,
    /// Features that another of the hosts has and this one has not: by these it restricts the baseline.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub lacks: BTreeSet<String>,
}

/// Whether a host's hypervisor can give a running machine's CPU to a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CpuFit {
    /// It can.
    Fits,
    /// It cannot.
    Misses {
        /// What is missing, in libvirt's words.
        what: String,
    },
}

/// How fast a guest writes to its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DirtyRate {
    /// Bytes of pages that are written to in a second, each page once (`dirtyrate.megabytes_per_second`).
    pub bytes_per_second: u64,
    /// Over how long it was measured, in seconds.
    pub seconds: u32,
    /// Memory of the host that the guest takes, in bytes (`balloon.rss`): what has never been touched is sent as zero pages,
    /// which cost next to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident: Option<u64>,
}

/// What is to be asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Questions {
    /// Baselines, by hosts and hypervisor.
    pub baselines: BTreeSet<(BTreeSet<String>, Platform)>,
    /// Whether a machine's CPU can be had on another host.
    pub comparisons: Vec<CompareCpu>,
    /// How fast machines write to their memory.
    pub dirty_rates: Vec<MeasureDirtyRate>,
    /// Which firmware images hosts offer, by host; for the hypervisor of a machine that is to have one there.
    pub firmware: BTreeMap<String, Platform>,
}

impl Questions {
    /// Whether nothing is to be asked.
    pub fn is_empty(&self) -> bool {
        self.baselines.is_empty()
            && self.comparisons.is_empty()
            && self.dirty_rates.is_empty()
            && self.firmware.is_empty()
    }
}

/// Asks whether a running machine's CPU can be had on another host.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareCpu {
    /// The machine.
    pub uuid: Uuid,
    /// The host it is on.
    pub from: String,
    /// The host that is asked.
    pub to: String,
    /// The machine's hypervisor.
    pub platform: Platform,
    /// Its CPU: the `<cpu>` element of its live definition.
    pub cpu: String,
}

/// Asks how fast a running machine writes to its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureDirtyRate {
    /// The machine.
    pub uuid: Uuid,
    /// The host it is on.
    pub host: String,
    /// Over how long, 1 to 60 s.
    pub seconds: u32,
    /// In which way.
    pub mode: DirtyRateMode,
}

/// How a dirty rate is measured (`virDomainDirtyRateCalcFlags`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DirtyRateMode {
    /// By hashing a sample of the pages twice: for every guest, at next to no cost.
    #[default]
    PageSampling,
    /// By KVM's log of written pages: exact, and the guest is slower meanwhile. Reports nothing under software emulation.
    DirtyBitmap,
    /// By KVM's dirty ring, for guests that have one (`<dirty-ring>`).
    DirtyRing,
}

/// One question to one host.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// What it offers to a guest at most.
    OfferedCpu(Platform),
    /// The baseline of these CPUs.
    Baseline {
        /// For which hypervisor.
        platform: Platform,
        /// The CPUs, `<cpu>` elements.
        cpus: Vec<String>,
        /// Whether the features of its model are listed, too.
        expand: bool,
    },
    /// Whether it can give this CPU to a guest.
    Compare(Platform, String),
    /// How fast a machine writes to its memory.
    DirtyRate(MeasureDirtyRate),
    /// Which firmware images it offers.
    Firmware(Platform),
}

/// Its answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A `<cpu>` element.
    Cpu(String),
    /// Whether a CPU can be had.
    Fit(CpuFit),
    /// A dirty rate.
    DirtyRate(DirtyRate),
    /// Paths of firmware images.
    Firmware(Vec<String>),
}
