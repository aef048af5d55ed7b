//! Room at the destination: memory and CPUs.

use super::{Move, Sheet, mebibytes};
use crate::domain_xml;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, sheet: &mut Sheet<'_>) {
    let needed = domain_xml::memory_bytes(mv.running_xml());
    let free = mv.destination.free_memory;
    if !mv.starts {
        return sheet.pass(Precheck::Memory, "it stays off: it takes no memory");
    }
    if free == 0 {
        sheet.unknown(Precheck::Memory, format!("`{}` does not tell how much memory is free", mv.to));
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
