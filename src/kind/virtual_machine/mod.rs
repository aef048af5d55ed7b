//! `VirtualMachine`: hardware, disks, interfaces, power state, and where it runs.

mod rules;
mod spec;

pub use spec::*;
