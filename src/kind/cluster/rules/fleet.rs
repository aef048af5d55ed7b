//! What clusters are to each other: one control cluster, one release of MTC (migration guide, 3.1; vendor's release notes of
//! 1.8: "the same Y release on source and target").

use crate::finding::{Code, Finding};
use crate::kind::Resources;
use crate::kind::cluster::{ClusterSpec, Role};
use crate::model::Manifest;

pub(super) fn check(all: &Resources, findings: &mut Vec<Finding>) {
    let mut control: Option<&Manifest<ClusterSpec>> = None;
    let mut released: Option<(&Manifest<ClusterSpec>, (u32, u32))> = None;
    for cluster in all.clusters.values() {
        if cluster.spec.role == Role::Control {
            match control {
                None => control = Some(cluster),
                Some(first) => findings.push(
                    Finding::new(Code::Conflict, format!("`{}` is the control cluster already", first.name()))
                        .of(cluster, "spec.role")
                        .see(first.origin.source_of("spec.role"))
                        .hint("one cluster drives all migrations; make the others `Remote`"),
                ),
            }
        }
        let Some(release) = cluster.spec.migration_toolkit.as_ref().and_then(|t| t.release()) else { continue };
        match released {
            None => released = Some((cluster, release)),
            Some((first, other)) if other != release => findings.push(
                Finding::new(
                    Code::Unsupported,
                    format!(
                        "MTC {}.{} and MTC {}.{} of `{}` do not migrate with each other",
                        release.0,
                        release.1,
                        other.0,
                        other.1,
                        first.name()
                    ),
                )
                .of(cluster, "spec.migrationToolkit.channel")
                .see(first.origin.source_of("spec.migrationToolkit.channel"))
                .hint("use one channel on all clusters; with a legacy cluster, `release-v1.7`"),
            ),
            Some(_) => {}
        }
    }
}
