//! Who the machine is: nothing else at the destination may be it.

use super::{Move, Sheet};
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
}
