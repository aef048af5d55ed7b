//! `cpu.mode: Baseline`: the CPU that is common to the hosts on which a machine may run.
//!
//! The baseline is computed by libvirt while the fleet is observed, for every set of hosts that a manifest asks for. Here it
//! takes the place of the mode: the machine is rendered and compared as if its manifest named that model and those features
//! (`mode: custom`). What is not known changes nothing.

use super::{Cpu, CpuFeature, CpuMode, Difference, VirtualMachineSpec};
use crate::domain_xml::{GuestCpu, guest_cpu};
use crate::kind::Resources;
use crate::model::Manifest;
use crate::observed::{Observed, Platform, Reading};
use crate::plan::Definition;
use std::collections::BTreeSet;

/// A CPU as a manifest states it.
pub fn custom_cpu(cpu: &GuestCpu) -> Cpu {
    let features = cpu.features.iter().map(|(name, policy)| CpuFeature {
        name: name.clone(),
        policy: serde_json::from_value(policy.as_str().into()).unwrap_or_default(),
    });
    Cpu {
        mode: CpuMode::Custom,
        model: Some(cpu.model.clone()),
        hosts: Vec::new(),
        features: features.collect(),
        topology: None,
    }
}

/// Whether a machine asks for a baseline.
pub(super) fn is_asked(m: &Manifest<VirtualMachineSpec>) -> bool {
    m.spec.cpu.as_ref().is_some_and(|cpu| cpu.mode == CpuMode::Baseline)
}

/// The hosts whose CPUs count: those that `cpu.hosts` names, else those that `placement` allows, else every host.
pub(super) fn hosts(m: &Manifest<VirtualMachineSpec>, resources: &Resources) -> BTreeSet<String> {
    let stated = m.spec.cpu.iter().flat_map(|cpu| &cpu.hosts);
    let stated: BTreeSet<String> = stated.cloned().collect();
    if !stated.is_empty() {
        return stated;
    }
    let allowed = |labels| m.spec.placement.as_ref().is_none_or(|p| p.hosts.matches(labels));
    resources.hosts.values().filter(|h| allowed(&h.metadata.labels)).map(|h| h.name().to_owned()).collect()
}

/// The hypervisor that it is asked for.
pub(super) fn platform(m: &Manifest<VirtualMachineSpec>) -> Platform {
    Platform {
        arch: m.spec.arch.clone(),
        machine: m.spec.machine.clone(),
        virt_type: m.spec.r#type.as_ref().map(super::sheet::word),
    }
}

/// What became of a machine's wish for a baseline.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resolved {
    /// The same manifest, with the baseline's model and features, or without a word about the CPU where it is not known.
    pub(super) manifest: Box<Manifest<VirtualMachineSpec>>,
    /// What the baseline is, in words; or why it is not known.
    pub(super) found: Result<String, String>,
}

/// Puts the baseline in the place of the mode; `None` for a machine that does not ask for one.
pub(super) fn resolve(
    m: &Manifest<VirtualMachineSpec>,
    resources: &Resources,
    observed: &Observed,
) -> Option<Resolved> {
    if !is_asked(m) {
        return None;
    }
    let wanted = m.spec.cpu.as_ref()?;
    let (hosts, platform) = (hosts(m, resources), platform(m));
    let answer = observed.cpu_baselines.iter().find(|b| b.hosts == hosts && b.platform == platform).map(|b| &b.answer);
    let known = match answer {
        None => Err("it is not in the observation".to_owned()),
        Some(Reading::Unknown { why }) => Err(why.clone()),
        Some(Reading::Present(baseline)) => guest_cpu(&baseline.cpu)
            .map(|cpu| (cpu, &baseline.computed_on))
            .ok_or_else(|| format!("`{}` named no CPU model", baseline.computed_on)),
    };
    let mut manifest = Box::new(m.clone());
    let found = known.map(|(found, computed_on)| {
        let mut cpu = custom_cpu(&found);
        // What the manifest says of single features has the last word.
        cpu.features.retain(|f| wanted.features.iter().all(|w| w.name != f.name));
        cpu.features.extend(wanted.features.iter().cloned());
        cpu.topology.clone_from(&wanted.topology);
        manifest.spec.cpu = Some(cpu);
        let hosts = hosts.iter().cloned().collect::<Vec<_>>().join(", ");
        let (more, less) = (found.required().count(), found.disabled().count());
        format!("{} +{more} -{less} features, the common CPU of {hosts} by {computed_on}", found.model)
    });
    if found.is_err() {
        manifest.spec.cpu = None;
    }
    Some(Resolved { manifest, found })
}

/// Shows the changes of a CPU as one: a baseline has dozens of features, and nobody wrote them.
pub(super) fn collapse(difference: &mut Difference, baseline: &str) {
    let is_cpu =
        |path: &str| path == "spec.cpu.mode" || path == "spec.cpu.model" || path.starts_with("spec.cpu.features[");
    let Some(first) = difference.changes.iter().position(|c| is_cpu(&c.path)) else { return };
    let mut one = difference.changes[first].clone();
    for other in difference.changes.iter().filter(|c| is_cpu(&c.path)) {
        one.effect = one.effect.max(other.effect);
        if other.definition != one.definition {
            one.definition = Some(Definition::Both);
        }
    }
    if one.path.starts_with("spec.cpu.features[") {
        one.before = "another set of features".into();
    }
    one.path = "spec.cpu.mode".into();
    one.after = format!("Baseline ({baseline})").into();
    let mut seen = false;
    difference.changes.retain(|c| !is_cpu(&c.path) || !std::mem::replace(&mut seen, true));
    difference.changes[first] = one;
    let waits = difference.restart.iter().any(|path| is_cpu(path));
    difference.restart.retain(|path| !is_cpu(path));
    if waits {
        difference.restart.push("spec.cpu.mode".into());
    }
}
