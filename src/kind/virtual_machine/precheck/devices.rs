//! Devices of the host, whose state nobody can send.

use super::{Move, Sheet};
use crate::domain_xml;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    for device in domain_xml::immovable_devices(mv.running_xml()) {
        if mv.is_live() {
            sheet.fail(
                Precheck::Devices,
                format!("it has a device of the host: {device}"),
                "detach it, or move the machine while it is off",
            );
        } else {
            sheet.doubt(
                Precheck::Devices,
                format!("it has a device of `{}`: {device}; `{}` must have the same to start it", mv.from, mv.to),
                "detach it, or make sure that the destination has one under the same address",
            );
        }
    }
    sheet.otherwise(Precheck::Devices, "it has no device of its host");
}
