//! `VirtualMachine`: hardware, disks, interfaces, power state, and where it runs.
//!
//! [`render`] makes the definition of a new domain, [`compare`] finds what differs in one that is there. Both use the same
//! code for each field (`sheet`, `fields`, `disks`, `interfaces`, `devices`).

mod compare;
mod devices;
mod disks;
mod fields;
mod identity;
mod import;
mod interfaces;
mod plan;
mod precheck;
mod render;
mod rules;
mod sheet;
mod spec;
mod storage;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use compare::{Difference, compare};
pub use disks::disk_alias;
pub use identity::{domain_name, first_name, mac, uuid};
pub use import::{ADOPT, ADOPT_ON_CHANGE, Imported, import, manifest_name};
pub use plan::order;
pub use render::render;
pub use spec::*;
pub use storage::{DiskSource, VolumeWish, disk_path, volume_name, volumes};
pub use survey::{Copy, Located, Survey, Target};
