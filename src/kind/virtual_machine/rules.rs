//! Rules of a VirtualMachine: what its manifest may say by itself ([`definition`], [`devices`]), where it may be
//! ([`place`]), and what must be unique among all machines ([`fleet`]).

mod definition;
mod devices;
mod fleet;
mod place;

use super::VirtualMachineSpec;
use crate::finding::{Code, Finding};
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest};
use crate::plan::{Context, Drafts};

impl Spec for VirtualMachineSpec {
    const KIND: KindName = KindName::new("VirtualMachine");
    const SUMMARY: &'static str = "a virtual machine: hardware, disks, interfaces, power state, and where it runs";
    const FILE_FIELDS: &'static [&'static str] = &["xml.file"];

    fn check(manifest: &Manifest<Self>, all: &Resources, findings: &mut Vec<Finding>) {
        let mut say = Say { manifest, findings };
        definition::check(&mut say);
        devices::check(&mut say);
        place::check(&mut say, all);
    }

    fn check_all(all: &Resources, findings: &mut Vec<Finding>) {
        fleet::check(all, findings);
    }

    fn draft(manifest: &Manifest<Self>, ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::draft(manifest, ctx, out);
    }

    fn sweep(ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::sweep(ctx, out);
    }
}

/// Findings about one machine.
struct Say<'a> {
    manifest: &'a Manifest<VirtualMachineSpec>,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Say<'a> {
    fn spec(&self) -> &'a VirtualMachineSpec {
        &self.manifest.spec
    }

    /// Adds a finding at a node of the manifest.
    fn at(&mut self, code: Code, path: &str, message: impl Into<String>, hint: &str) {
        self.add(Finding::new(code, message).of(self.manifest, path).hint(hint));
    }

    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}
