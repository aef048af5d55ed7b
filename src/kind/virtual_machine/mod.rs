//! `VirtualMachine`: hardware, disks, interfaces, power state, and where it runs.

mod compare;
mod identity;
mod plan;
mod render;
mod rules;
mod spec;
mod survey;
mod volumes;

pub use spec::*;
pub use survey::{Copy, Located, Survey, Target};
