//! Rules of a Cluster: how it is reached ([`access`]), what may be installed on it ([`toolkit`]), the controller's variables
//! ([`variables`]), and what clusters are to each other ([`fleet`]).

mod access;
mod fleet;
mod toolkit;
mod variables;

use super::ClusterSpec;
use crate::finding::{Code, Finding, Severity};
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest};
use crate::plan::{Context, Drafts};

impl Spec for ClusterSpec {
    const KIND: KindName = KindName::new("Cluster");
    const SUMMARY: &'static str = "a Kubernetes or OpenShift cluster, and the Migration Toolkit for Containers on it";
    const FILE_FIELDS: &'static [&'static str] =
        &["migrationToolkit.manifests.operator.file", "migrationToolkit.manifests.controller.file"];

    fn check(manifest: &Manifest<Self>, all: &Resources, findings: &mut Vec<Finding>) {
        let mut say = Say { manifest, findings };
        access::check(&mut say, all);
        toolkit::check(&mut say);
        variables::check(&mut say);
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

/// Findings about one cluster.
struct Say<'a> {
    manifest: &'a Manifest<ClusterSpec>,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Say<'a> {
    fn spec(&self) -> &'a ClusterSpec {
        &self.manifest.spec
    }

    /// Adds a finding at a node of the manifest.
    fn at(&mut self, code: Code, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(Finding::new(code, message).of(self.manifest, path).hint(hint));
    }

    /// Adds a warning at a node of the manifest.
    fn warn(&mut self, code: Code, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        let finding = Finding::new(code, message).severity(Severity::Warning);
        self.findings.push(finding.of(self.manifest, path).hint(hint));
    }
}
