//! What is said of a migration that did not come about: where the machine is, why, and what to do.

use super::judge::{Place, Sides};
use super::{Ended, NOT_WANTED};
use crate::action::Migration;
use crate::observed::DomainState;
use crate::provider::ActError;
use crate::provider::libvirt::domain::word;
use crate::provider::libvirt::error::Fault;
use virt_sys as sys;

pub(super) fn left(m: &Migration, why: &str) -> ActError {
    ActError::transient(format!(
        "the migration of `{}` from `{}` to `{}` is left going on: {why}",
        m.name, m.from, m.to
    ))
}

fn said(ended: &Ended) -> String {
    ended.fault.as_ref().map(|f| format!(": {}", f.words())).unwrap_or_default()
}

/// The machine is where it was, and the destination cannot be read.
pub(super) fn stayed_alone(m: &Migration, source: &DomainState, unread: &Fault, ended: &Ended) -> ActError {
    ActError::transient(format!(
        "the migration of `{}` from `{}` to `{}` failed{}; it is {} on `{}`, and {unread}",
        m.name,
        m.from,
        m.to,
        said(ended),
        word(source),
        m.from
    ))
    .hint("bring the destination back; what a failed copy left there is cleared by the next attempt")
}

/// Nobody can tell where the machine is.
pub(super) fn untold(m: &Migration, unread: &Fault, ended: &Ended) -> ActError {
    ActError::transient(format!("where `{}` is now cannot be told{}; {unread}", m.name, said(ended)))
        .hint("nothing is started or removed before both hosts can be read")
}

/// The machine is where it was.
pub(super) fn failed(m: &Migration, words: &str, ended: Ended) -> ActError {
    let Ended { fault, aborted } = ended;
    let head = format!("the migration of `{}` from `{}` to `{}` failed", m.name, m.from, m.to);
    if let Some(why) = aborted {
        let mut error = ActError::permanent(format!("{head}: {why}, so it was aborted; {words}"));
        if why.starts_with(NOT_WANTED) {
            return error.hint("nothing is to be done: it is what the newer commit says");
        }
        // What did not end in time may another time, where the policy says to try.
        error.transient = m.retries.is_some_and(|n| n > 0);
        return error.hint(
            "give its policy more time or bandwidth, a longer pause (`maxDowntime`), `autoConverge`, or `postCopy`; where \
             nothing moved, check the ports between the hosts (`spec.migration.ports`)",
        );
    }
    match fault {
        Some(fault) => {
            let aborted = fault.code() == Some(sys::VIR_ERR_OPERATION_ABORTED);
            let hint = fault.hint().or_else(|| aborted.then(|| "somebody aborted it on the host".to_owned()));
            ActError { message: format!("{head}: {}; {words}", fault.words()), transient: fault.is_transient(), hint }
        }
        None => {
            ActError::transient(format!("{head}; {words}")).hint("the source's libvirt log says why (/var/log/libvirt)")
        }
    }
}

/// A person is needed.
pub(super) fn stop(m: &Migration, place: Place, sides: &Sides, fault: Option<&Fault>) -> ActError {
    let words = sides.words(&m.from, &m.to);
    let said = fault.map(|f| format!(" ({})", f.words())).unwrap_or_default();
    let error = |text: &str| ActError::permanent(format!("`{}`: {text}{said}; {words}", m.name));
    match place {
        Place::Broken | Place::Moving { post_copy: true } => error("its post-copy migration broke").hint(
            "heal the link between the hosts: QEMU goes on by itself, also where Drover drove the move and was stopped. Do not destroy, undefine or restart either side: \
             each holds a part of its memory",
        ),
        Place::HandingOver => {
            let mut e =
                error("it runs at the destination, and the source keeps its half, which stands still").hint(format!(
                    "see that it works on `{}`; then, and only then, `virsh destroy {}` on `{}`. Never resume it there",
                    m.to, m.name, m.from
                ));
            // A source that was slow, or whose daemon comes back, lets go of it by itself.
            e.transient = true;
            e
        }
        Place::Twice => error("it runs on both hosts").hint("find out which copy is the right one and stop the other"),
        Place::Nowhere => error("it is on neither host").hint("look for it on other hosts before it is defined anew"),
        Place::Clearing | Place::Moving { post_copy: false } => {
            let mut e = error("a half of its migration is still there");
            e.transient = true;
            e
        }
        Place::Here | Place::There => error("it has changed since it was looked at"),
    }
}
