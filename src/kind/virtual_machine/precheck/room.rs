//! Room at the destination: memory and CPUs.

use super::super::PowerState;
use super::super::survey::{Located, Target};
use super::topology::has_huge_pages;
use super::{Move, Sheet, mebibytes};
use crate::domain_xml::{self, Element};
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    memory(mv, xml, sheet);
    cpus(mv, xml, sheet);
}

fn memory(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::Memory;
    if !mv.starts {
        return sheet.pass(name, "it stays off: it takes no memory");
    }
    if has_huge_pages(xml) {
        return sheet.pass(name, "its memory is in huge pages, which are counted by themselves");
    }
    let (needed, free) = (domain_xml::memory_bytes(mv.running_xml()), mv.destination.free_memory);
    if free == 0 {
        return sheet.unknown(name, format!("`{}` does not tell how much memory is free", mv.to));
    }
    // What leaves the host may leave it later: only what arrives is counted.
    let arriving: u64 = mv.arriving.iter().map(|a| a.memory).sum();
    let others = match mv.arriving.len() {
        0 => String::new(),
        1 => format!(", after {} for one that this plan brings there before it", mebibytes(arriving)),
        n => format!(", after {} for {n} that this plan brings there before it", mebibytes(arriving)),
    };
    let figures =
        format!("`{}` has {} of memory free{others}, and it needs {}", mv.to, mebibytes(free), mebibytes(needed));
    let is_short = needed > free.saturating_sub(arriving);
    if is_short && somebody_leaves(mv) {
        // Whether that is enough, and who waits for whom, is worked out for all steps at once (plan/capacity.rs).
        sheet.unknown(name, format!("{figures}: it waits for machines that leave"));
    } else if is_short {
        sheet.fail(name, figures, "free memory there, or choose another host");
    } else {
        sheet.pass(name, figures);
    }
}

fn cpus(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::Vcpus;
    let Some(vcpu) = xml.get("vcpu") else {
        return sheet.unknown(name, "the definition does not say how many CPUs it has");
    };
    let current = vcpu.attribute("current").and_then(|c| c.parse().ok());
    let Some(wanted) = current.or_else(|| vcpu.text().parse::<u32>().ok()) else {
        return sheet.unknown(name, "the definition does not say how many CPUs it has");
    };
    let there = mv.destination.cpus;
    let figures = format!(
        "it has {}, and `{}` has {there}",
        if wanted == 1 { "1 CPU".to_owned() } else { format!("{wanted} CPUs") },
        mv.to
    );
    if there == 0 {
        return sheet.unknown(name, format!("`{}` does not tell how many CPUs it has", mv.to));
    }
    if wanted > there {
        return sheet.fail(name, figures, "it runs there, and slowly; choose a larger host");
    }
    let staying = mv.ctx.survey.staying_vcpus(mv.to, mv.ctx.resources, mv.ctx.observed);
    let arriving: u64 = mv.arriving.iter().map(|a| u64::from(a.vcpus)).sum();
    if !mv.starts || staying + arriving == 0 {
        return sheet.pass(name, figures);
    }
    let ratio = mv.ctx.settings.placement.vcpus_per_cpu;
    let limit = u64::from(there) * u64::from(ratio);
    let before = match arriving {
        0 => String::new(),
        n => format!(", {n} more come with what this plan brings there before it"),
    };
    let figures = format!(
        "{figures}: {limit} vCPUs may be in use there (`vcpusPerCpu: {ratio}`), {staying} are{before}, and it has {wanted}"
    );
    if staying + arriving + u64::from(wanted) > limit {
        let hint =
            "it runs there, and all of them slowly; choose another host, or raise `placement.vcpusPerCpu` in Settings";
        sheet.fail(name, figures, hint);
    } else {
        sheet.pass(name, figures);
    }
}

/// Whether a machine that uses memory at the destination is to leave it, or to be shut down.
fn somebody_leaves(mv: &Move<'_>) -> bool {
    mv.ctx.resources.virtual_machines.values().any(|m| {
        let Located::At { copy, .. } = mv.ctx.survey.located(m.name()) else { return false };
        copy.host == mv.to
            && copy.domain(mv.ctx.observed).is_some_and(crate::observed::DomainState::is_active)
            && (m.spec.power_state == PowerState::Stopped
                || matches!(mv.ctx.survey.target(m.name()), Some(Target::Host(host)) if host != mv.to))
    })
}
