//! What hangs on a machine and cannot go along.

use super::{Move, Sheet};
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    if mv.domain.managed_save {
        sheet.fail(
            Precheck::ManagedSave,
            "it has a saved memory image, which a move would leave behind",
            "start it, or drop the image (`virsh managedsave-remove`)",
        );
    } else {
        sheet.pass(Precheck::ManagedSave, "it has no saved memory image");
    }
    match mv.domain.snapshots {
        0 => sheet.pass(Precheck::Snapshots, "it has no snapshots"),
        n => sheet.fail(
            Precheck::Snapshots,
            format!("it has {n} snapshots, which libvirt does not move"),
            "delete them (`virsh snapshot-delete`)",
        ),
    }
}
