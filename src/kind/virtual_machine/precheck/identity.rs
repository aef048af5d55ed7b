//! Who the machine is: nothing else at the destination may be it.

use super::{Move, Sheet};
use crate::kind::virtual_machine::Located;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    let (name, uuid) = (&mv.domain.name, mv.domain.uuid);
    match mv.destination.domains.iter().find(|d| d.name == *name && d.uuid != uuid) {
        Some(other) => sheet.fail(
            Precheck::Name,
            format!("the name `{}` on `{}` belongs to the domain {}", other.name, mv.to, other.uuid),
            "rename one of them",
        ),
        None => sheet.pass(Precheck::Name, format!("`{}` has no other domain `{name}`", mv.to)),
    }
    let Some(twin) = mv.destination.domains.iter().find(|d| d.uuid == uuid) else {
        return sheet.pass(Precheck::Uuid, format!("`{}` has no domain {uuid}", mv.to));
    };
    // What the machine left there earlier is removed by the plan before it comes back.
    let is_leftover = mv.machine.is_some_and(|m| match mv.ctx.survey.located(m.name()) {
        Located::At { stale, .. } => stale.iter().any(|c| c.host == mv.to),
        _ => false,
    });
    if twin.is_active() {
        sheet.fail(
            Precheck::Uuid,
            format!("`{}` on `{}` has its UUID, and is active: it would run twice", twin.name, mv.to),
            "stop the one that should not run, after a look at which of them has the newest data",
        );
    } else if is_leftover || twin.moved_away() {
        sheet.pass(Precheck::Uuid, format!("`{}` has only the definition that it left there", mv.to));
    } else {
        sheet.fail(
            Precheck::Uuid,
            format!("`{}` on `{}` has its UUID {uuid}, and is off", twin.name, mv.to),
            "find out which of them is the right one, and undefine the other (`virsh undefine`)",
        );
    }
}
