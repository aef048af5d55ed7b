//! Rules of a VirtualMachine.

use super::VirtualMachineSpec;
use crate::finding::Finding;
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest};
use crate::plan::{Context, Drafts};

impl Spec for VirtualMachineSpec {
    const KIND: KindName = KindName::new("VirtualMachine");
    const SUMMARY: &'static str = "a virtual machine: hardware, disks, interfaces, power state, and where it runs";
    const FILE_FIELDS: &'static [&'static str] = &["xml.file"];

    fn check(_manifest: &Manifest<Self>, _all: &Resources, _findings: &mut Vec<Finding>) {}

    fn draft(manifest: &Manifest<Self>, ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::draft(manifest, ctx, out);
    }

    fn sweep(ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::sweep(ctx, out);
    }
}
