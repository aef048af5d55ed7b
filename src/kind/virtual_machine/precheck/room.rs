//! Room at the destination: memory and CPUs.

use super::super::PowerState;
use super::super::survey::{Located, Target};
use super::{Move, Sheet, mebibytes};
use crate::domain_xml;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    let needed = domain_xml::memory_bytes(mv.running_xml());
    let free = mv.destination.free_memory;
    if !mv.is_live() {
        return sheet.pass(Precheck::Memory, "it is off: it takes no memory until it starts");
    }
    if free == 0 {
        sheet.unknown(Precheck::Memory, format!("`{}` does not tell how much memory is free", mv.to));
    } else if needed > free && somebody_leaves(mv) {
        // Whether that is enough, and who waits for whom, is worked out for all steps at once (plan/capacity.rs).
        sheet.unknown(
            Precheck::Memory,
            format!(
                "`{}` has {} of memory free, and it needs {}: it waits for machines that leave",
                mv.to,
                mebibytes(free),
                mebibytes(needed)
            ),
        );
    } else if needed > free {
        sheet.fail(
            Precheck::Memory,
            format!("`{}` has {} of memory free, and it needs {}", mv.to, mebibytes(free), mebibytes(needed)),
            "free memory there, or choose another host",
        );
    } else {
        sheet.pass(
            Precheck::Memory,
            format!("`{}` has {} of memory free, and it needs {}", mv.to, mebibytes(free), mebibytes(needed)),
        );
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
