//! Where a machine may be: its host or placement, its pools, its migration policy.

use super::Say;
use crate::finding::{Code, Finding, Severity};
use crate::kind::host::{HostSpec, Maintenance};
use crate::kind::migration_policy::MigrationPolicySpec;
use crate::kind::storage_pool::StoragePoolSpec;
use crate::kind::virtual_machine::Placement;
use crate::kind::{Resources, Spec};
use crate::model::Manifest;

pub(super) fn check(say: &mut Say<'_>, all: &Resources) {
    let spec = say.spec();
    if let Some(policy) = &spec.migration_policy {
        all.check_reference(say.manifest, "spec.migrationPolicy", &MigrationPolicySpec::KIND, policy, say.findings);
    }
    for (i, disk) in spec.disks.iter().flatten().enumerate() {
        if let Some(pool) = &disk.pool {
            all.check_reference(
                say.manifest,
                &format!("spec.disks[{i}].pool"),
                &StoragePoolSpec::KIND,
                pool,
                say.findings,
            );
        }
    }
    for (i, host) in spec.cpu.iter().flat_map(|cpu| &cpu.hosts).enumerate() {
        all.check_reference(say.manifest, &format!("spec.cpu.hosts[{i}]"), &HostSpec::KIND, host, say.findings);
    }
    match (&spec.host, &spec.placement) {
        (Some(_), Some(_)) => say.at(
            Code::Contradiction,
            "spec.placement",
            "`host` pins the machine, so there is nothing left for `placement` to choose",
            "keep one of them",
        ),
        (None, None) => say.at(
            Code::MissingField,
            "spec",
            format!("nothing says where `{}` runs", say.manifest.name()),
            "add `host`, or `placement` to let Drover choose",
        ),
        (Some(host), None) => pinned(say, all, host),
        (None, Some(placement)) => placed(say, all, placement),
    }
}

fn pinned(say: &mut Say<'_>, all: &Resources, host: &str) {
    all.check_reference(say.manifest, "spec.host", &HostSpec::KIND, host, say.findings);
    if let Some(h) = all.hosts.get(host)
        && h.spec.maintenance == Maintenance::Evacuate
    {
        say.add(
            Finding::new(
                Code::Conflict,
                format!("`{}` is pinned to `{host}`, which is being emptied: it stays there", say.manifest.name()),
            )
            .severity(Severity::Warning)
            .of(say.manifest, "spec.host")
            .see(h.origin.source_of("spec.maintenance"))
            .hint("name another host, or use `placement`"),
        );
    }
    for (i, disk) in say.spec().disks.iter().flatten().enumerate() {
        let Some(pool) = disk.pool.as_ref().and_then(|p| all.storage_pools.get(p)) else { continue };
        if !pool.spec.hosts.iter().any(|h| h == host) {
            say.add(
                Finding::new(Code::Conflict, format!("the pool `{}` is not on the host `{host}`", pool.name()))
                    .of(say.manifest, &format!("spec.disks[{i}].pool"))
                    .see(pool.origin.source_of("spec.hosts"))
                    .hint(format!("add `{host}` to the pool's `hosts`, or use a pool of that host")),
            );
        }
    }
}

fn placed(say: &mut Say<'_>, all: &Resources, placement: &Placement) {
    if let Some(policy) = &placement.migration_policy {
        let path = "spec.placement.migrationPolicy";
        all.check_reference(say.manifest, path, &MigrationPolicySpec::KIND, policy, say.findings);
    }
    for (i, key) in placement.anti_affinity.iter().enumerate() {
        if !say.manifest.metadata.labels.contains_key(key) {
            say.add(
                Finding::new(
                    Code::Contradiction,
                    format!("the machine has no label `{}`, so nothing keeps it apart from others", key.escape_debug()),
                )
                .severity(Severity::Warning)
                .of(say.manifest, &format!("spec.placement.antiAffinity[{i}]"))
                .hint("add the label, or take the key out"),
            );
        }
    }
    for (i, key) in placement.affinity.iter().enumerate() {
        let path = format!("spec.placement.affinity[{i}]");
        if placement.anti_affinity.contains(key) {
            say.at(
                Code::Contradiction,
                &path,
                format!("`{}` keeps machines both together and apart", key.escape_debug()),
                "keep one of them",
            );
        } else if !say.manifest.metadata.labels.contains_key(key) {
            say.add(
                Finding::new(
                    Code::Contradiction,
                    format!("the machine has no label `{}`, so nothing keeps it with others", key.escape_debug()),
                )
                .severity(Severity::Warning)
                .of(say.manifest, &path)
                .hint("add the label, or take the key out"),
            );
        }
    }
    // A Host with an error may be the one that matches.
    if all.incomplete || all.unusable.iter().any(|id| id.kind == HostSpec::KIND) {
        return;
    }
    let matching: Vec<&Manifest<HostSpec>> = hosts_of(placement, all).collect();
    let path = "spec.placement.hosts";
    if matching.is_empty() {
        say.at(
            Code::MissingReference,
            path,
            "no Host has the labels that `placement` asks for",
            "label a Host, or ask for less",
        );
        return;
    }
    if matching.iter().all(|h| h.spec.maintenance != Maintenance::None) {
        say.add(
            Finding::new(
                Code::Conflict,
                "every host that `placement` allows is in maintenance: none takes the machine",
            )
            .severity(Severity::Warning)
            .of(say.manifest, path)
            .hint("allow another host, or end the maintenance of one"),
        );
    }
    let pools: Vec<&Manifest<StoragePoolSpec>> =
        say.spec().disks.iter().flatten().filter_map(|d| all.storage_pools.get(d.pool.as_ref()?)).collect();
    let has_all = |h: &&Manifest<HostSpec>| pools.iter().all(|p| p.spec.hosts.iter().any(|name| name == h.name()));
    if !matching.iter().any(has_all) {
        let names: Vec<String> = pools.iter().map(|p| format!("`{}`", p.name())).collect();
        let mut finding = Finding::new(
            Code::Conflict,
            format!("no host that `placement` allows has the machine's pools ({})", names.join(", ")),
        )
        .of(say.manifest, path)
        .hint("allow a host that has them, or add one to their `hosts`");
        for pool in &pools {
            finding = finding.see(pool.origin.source_of("spec.hosts"));
        }
        say.add(finding);
    }
}

/// The hosts that a placement allows.
pub(super) fn hosts_of<'a>(
    placement: &'a Placement,
    all: &'a Resources,
) -> impl Iterator<Item = &'a Manifest<HostSpec>> + use<'a> {
    all.hosts.values().filter(|h| placement.hosts.matches(&h.metadata.labels))
}
