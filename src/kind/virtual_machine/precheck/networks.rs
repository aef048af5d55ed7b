//! The networks that a machine's interfaces are on.

use super::{Move, Sheet};
use crate::domain_xml;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    for network in domain_xml::networks(mv.running_xml()) {
        match mv.destination.networks.get(&network) {
            Some(true) => sheet.pass(Precheck::Networks, format!("network `{network}` is started on `{}`", mv.to)),
            Some(false) => sheet.fail(
                Precheck::Networks,
                format!("network `{network}` on `{}` is not started", mv.to),
                "start it (`virsh net-start`)",
            ),
            None => sheet.fail(
                Precheck::Networks,
                format!("`{}` has no network `{network}`", mv.to),
                "define it there, or choose another host",
            ),
        }
    }
    sheet.otherwise(Precheck::Networks, "it is on no libvirt network");
}
