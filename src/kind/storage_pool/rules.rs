//! Rules of a StoragePool.

use super::StoragePoolSpec;
use crate::finding::Finding;
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest};

impl Spec for StoragePoolSpec {
    const KIND: KindName = KindName::new("StoragePool");
    const SUMMARY: &'static str = "a libvirt storage pool on one or more hosts";

    fn check(_manifest: &Manifest<Self>, _all: &Resources, _findings: &mut Vec<Finding>) {}
}
