//! Rules of a StoragePool.

use super::StoragePoolSpec;
use crate::finding::Finding;
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest};
use crate::plan::{Context, Drafts};

impl Spec for StoragePoolSpec {
    const KIND: KindName = KindName::new("StoragePool");
    const SUMMARY: &'static str = "a libvirt storage pool on one or more hosts";

    fn check(_manifest: &Manifest<Self>, _all: &Resources, _findings: &mut Vec<Finding>) {}

    fn draft(manifest: &Manifest<Self>, ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::draft(manifest, ctx, out);
    }
}
