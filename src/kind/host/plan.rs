//! What a plan says about a Host: whether it could be read.

use super::{HostSpec, Maintenance};
use crate::finding::{Code, Finding, Severity};
use crate::model::Manifest;
use crate::observed::Reading;
use crate::plan::{Context, Drafts, Health, Sync};

/// Reports the host.
pub fn draft(manifest: &Manifest<HostSpec>, ctx: &Context<'_>, out: &mut Drafts) {
    let name = manifest.name();
    let report = out.report(&manifest.id(), None);
    match ctx.observed.hosts.get(name) {
        Some(Reading::Present(_)) if manifest.spec.fenced => {
            report.health = Health::Degraded;
            out.finding(
                Finding::new(Code::HostUnknown, format!("`{name}` is said to be fenced, and it answers"))
                    .severity(Severity::Warning)
                    .of(manifest, "spec.fenced")
                    .hint("take `fenced` out: while it stands, an outage of this host would let its machines start elsewhere"),
            );
        }
        Some(Reading::Present(_)) => {
            if manifest.spec.maintenance != Maintenance::None {
                report.health = Health::Suspended;
            }
        }
        reading => {
            let why = match reading {
                Some(Reading::Unknown { why }) => why.as_str(),
                _ => "it is not in the observation",
            };
            report.sync = Sync::Unknown;
            report.health = Health::Unknown;
            let finding = Finding::new(Code::HostUnknown, format!("`{name}` could not be read: {why}"))
                .of(manifest, "spec.uri")
                .hint("its machines are left alone; the other hosts go on");
            out.finding(if manifest.spec.fenced { finding.severity(Severity::Info) } else { finding });
        }
    }
}
