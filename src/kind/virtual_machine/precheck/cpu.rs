//! The CPU: whether the destination's hypervisor can give the guest the one that it has.

use super::{Move, Sheet};
use crate::domain_xml::Element;
use crate::observed::{CpuFit, HostCpu, Reading};
use crate::plan::Precheck::Cpu;

pub(super) fn check(mv: &Move<'_>, tree: &Element, sheet: &mut Sheet<'_>) {
    if !mv.is_live() {
        sheet.pass(Cpu, "it moves while it is off, and is given its CPU when it starts");
        return;
    }
    let mode = tree.attribute_at("cpu", "mode").unwrap_or("custom");
    if matches!(mode, "host-passthrough" | "maximum") {
        passthrough(mv, mode, sheet);
        return;
    }
    let model = tree.text_at("cpu/model").filter(|m| !m.is_empty());
    let Some(model) = model else {
        sheet.pass(Cpu, "it has the hypervisor's default CPU");
        return;
    };
    match mv.domain.cpu_at.get(mv.to) {
        Some(Reading::Present(CpuFit::Fits)) => {
            sheet.pass(Cpu, format!("`{}` offers all that its CPU ({model}) has", mv.to));
        }
        Some(Reading::Present(CpuFit::Misses { what })) => sheet.fail(
            Cpu,
            format!("`{}` cannot give it its CPU ({model}): {what}", mv.to),
            "give it a CPU that both hosts have (`cpu: {mode: Baseline}`, or what `drover cpu-baseline` says), which takes a restart; or move it while it is off",
        ),
        Some(Reading::Unknown { why }) => {
            sheet.unknown(Cpu, format!("its CPU ({model}) was not compared with what `{}` offers: {why}", mv.to));
        }
        None => sheet.unknown(Cpu, format!("its CPU ({model}) was not compared with what `{}` offers", mv.to)),
    }
}

/// The host's own CPU moves between equal hosts only, whatever libvirt says of it.
fn passthrough(mv: &Move<'_>, mode: &str, sheet: &mut Sheet<'_>) {
    let (Some(here), Some(there)) = (&mv.source.cpu, &mv.destination.cpu) else {
        sheet.unknown(Cpu, format!("its CPU is its host's own ({mode}), and what CPUs the hosts have is not known"));
        return;
    };
    let name = |cpu: &HostCpu| match cpu.signature.is_empty() {
        true => format!("{} {}", cpu.vendor, cpu.model),
        false => format!("{} {} ({})", cpu.vendor, cpu.model, cpu.signature),
    };
    let differ: Vec<&str> = here.features.symmetric_difference(&there.features).map(String::as_str).collect();
    if (&here.vendor, &here.model, &here.signature) != (&there.vendor, &there.model, &there.signature)
        || !differ.is_empty()
    {
        let also = if differ.is_empty() { String::new() } else { format!("; they differ in {}", differ.join(", ")) };
        sheet.fail(
            Cpu,
            format!(
                "its CPU is its host's own ({mode}): `{}` has {}, `{}` has {}{also}",
                mv.from,
                name(here),
                mv.to,
                name(there)
            ),
            "give it a CPU that both hosts have (`cpu: {mode: Baseline}`), which takes a restart; or move it while it is off",
        );
        return;
    }
    let mut doubts = Vec::new();
    if here.microcode != there.microcode {
        doubts.push(format!("microcode {} and {}", here.microcode, there.microcode));
    }
    for (what, a, b) in [
        ("libvirt", &mv.source.libvirt_version, &mv.destination.libvirt_version),
        ("hypervisor", &mv.source.hypervisor_version, &mv.destination.hypervisor_version),
    ] {
        if a != b {
            doubts.push(format!("{what} {a} and {b}"));
        }
    }
    if doubts.is_empty() {
        sheet.pass(Cpu, format!("its CPU is its host's own ({mode}), and both hosts have {}", name(here)));
        return;
    }
    sheet.doubt(
        Cpu,
        format!("its CPU is its host's own ({mode}), and the hosts differ: {}", doubts.join("; ")),
        "bring the hosts to the same releases, or give it a CPU that both have (`cpu: {mode: Baseline}`)",
    );
}
