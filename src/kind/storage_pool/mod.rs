//! `StoragePool`: a libvirt storage pool on one or more hosts.

mod plan;
mod rules;
mod spec;

pub use spec::{PoolSource, PoolType, StoragePoolSpec};
