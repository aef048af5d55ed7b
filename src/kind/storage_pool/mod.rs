//! `StoragePool`: a libvirt storage pool on one or more hosts.

mod import;
mod plan;
mod rules;
mod spec;

pub use import::import;
pub use spec::{PoolSource, PoolType, StoragePoolSpec};
