//! `StoragePool`: a libvirt storage pool on one or more hosts.

mod import;
mod plan;
mod rules;
mod sharing;
mod spec;

pub use import::import;
pub use sharing::{Sharing, sharing};
pub use spec::{PoolSource, PoolType, StoragePoolSpec};
