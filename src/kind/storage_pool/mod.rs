//! `StoragePool`: a libvirt storage pool on one or more hosts.

mod import;
mod plan;
mod rules;
mod sharing;
mod spec;

pub use import::import;
pub use sharing::{Sharing, compare_by_hand, sharing};
pub use spec::{PoolSource, PoolType, StoragePoolSpec};
