//! Rules of a StoragePool: what each type needs (libvirt.org/storage.html), and what pools must not share.

use super::{PoolType, StoragePoolSpec};
use crate::finding::{Code, Finding, Severity};
use crate::kind::host::HostSpec;
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest};
use crate::plan::{Context, Drafts};
use std::collections::{BTreeSet, HashMap};

impl Spec for StoragePoolSpec {
    const KIND: KindName = KindName::new("StoragePool");
    const SUMMARY: &'static str = "a libvirt storage pool on one or more hosts";

    fn check(manifest: &Manifest<Self>, all: &Resources, findings: &mut Vec<Finding>) {
        let spec = &manifest.spec;
        let mut seen = BTreeSet::new();
        for (i, host) in spec.hosts.iter().enumerate() {
            let path = format!("spec.hosts[{i}]");
            all.check_reference(manifest, &path, &HostSpec::KIND, host, findings);
            if !seen.insert(host) {
                findings.push(
                    Finding::new(Code::Contradiction, format!("the host `{}` is written twice", host.escape_debug()))
                        .of(manifest, &path)
                        .hint("keep one of them"),
                );
            }
        }
        needs(manifest, findings);
        mounting(manifest, findings);
        names(manifest, findings);
        sharing(manifest, findings);
    }

    fn check_all(all: &Resources, findings: &mut Vec<Finding>) {
        let mut names = HashMap::new();
        let mut targets = HashMap::new();
        for pool in all.storage_pools.values() {
            let (mut said_name, mut said_target) = (false, false);
            for host in &pool.spec.hosts {
                let name = pool.spec.libvirt_name(pool.name());
                if let Some(first) = taken(&mut names, (host, name), pool).filter(|_| !said_name) {
                    said_name = true;
                    findings.push(
                        Finding::new(
                            Code::Conflict,
                            format!("the pool `{}` has the same libvirt name on `{host}`", first.name()),
                        )
                        .of(pool, "spec.poolName")
                        .see(first.origin.source_of("spec.poolName"))
                        .hint("give one of them another `poolName`"),
                    );
                }
                let Some(target) = pool.spec.target.as_deref().filter(|_| has_own_target(pool.spec.r#type)) else {
                    continue;
                };
                let target = target.trim_end_matches('/');
                if let Some(first) = taken(&mut targets, (host, target), pool).filter(|_| !said_target) {
                    said_target = true;
                    findings.push(
                        Finding::new(
                            Code::Conflict,
                            format!("the pool `{}` has the same target on `{host}`", first.name()),
                        )
                        .of(pool, "spec.target")
                        .see(first.origin.source_of("spec.target"))
                        .hint("give each pool its own folder: libvirt refuses two pools in one"),
                    );
                }
            }
        }
    }

    fn draft(manifest: &Manifest<Self>, ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::draft(manifest, ctx, out);
    }
}

type Pool = Manifest<StoragePoolSpec>;

/// The pool that has the key already, unless it is this one.
fn taken<'a, K: std::hash::Hash + Eq>(seen: &mut HashMap<K, &'a Pool>, key: K, pool: &'a Pool) -> Option<&'a Pool> {
    let first = *seen.entry(key).or_insert(pool);
    (!std::ptr::eq(first, pool)).then_some(first)
}

/// Whether the target is a folder that is the pool's alone; `/dev/disk/by-path` and the like are everybody's.
fn has_own_target(kind: PoolType) -> bool {
    matches!(kind, PoolType::Dir | PoolType::Fs | PoolType::Netfs | PoolType::Logical)
}

/// What the type needs.
fn needs(pool: &Pool, findings: &mut Vec<Finding>) {
    let spec = &pool.spec;
    let source = spec.source.clone().unwrap_or_default();
    let needed: &[&str] = match spec.r#type {
        PoolType::Dir => &["target"],
        PoolType::Fs => &["source.devices", "target"],
        PoolType::Netfs => &["source.host", "source.path", "target"],
        PoolType::Logical => &["source.name"],
        PoolType::Disk => &["source.devices", "target"],
        PoolType::Iscsi => &["source.host", "source.devices", "target"],
        PoolType::Scsi => &["source.adapter", "target"],
        PoolType::Mpath => &["target"],
        PoolType::Rbd => &["source.host", "source.name"],
        PoolType::Zfs => &["source.name"],
    };
    let written = |field: &str| match field {
        "target" => spec.target.is_some(),
        "source.host" => source.host.is_some(),
        "source.path" => source.path.is_some(),
        "source.name" => source.name.is_some(),
        "source.adapter" => source.adapter.is_some(),
        "source.devices" => !source.devices.is_empty(),
        _ => true,
    };
    let kind = serde_json::to_value(spec.r#type).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    for field in needed.iter().filter(|f| !written(f)) {
        findings.push(
            Finding::new(Code::MissingField, format!("a pool of type `{kind}` needs `{field}`"))
                .of(pool, &format!("spec.{field}"))
                .hint(format!("add `{field}`{}", example(spec.r#type, field))),
        );
    }
    if spec.r#type == PoolType::Dir && spec.source.is_some() {
        findings.push(
            Finding::new(Code::Contradiction, "a pool of type `dir` has no `source`: it is the folder `target`")
                .of(pool, "spec.source")
                .hint("take it out, or write `type: netfs` or `type: fs`"),
        );
    }
    if let Some(path) = source.path.as_ref().filter(|p| !p.starts_with('/')) {
        findings.push(
            Finding::new(Code::WrongValue, format!("the path `{}` is not absolute", path.escape_debug()))
                .of(pool, "spec.source.path")
                .hint("write it as the server exports it"),
        );
    }
}

/// Options of the mount: only where there is one, and nothing that could be read as more than an option.
fn mounting(pool: &Pool, findings: &mut Vec<Finding>) {
    let spec = &pool.spec;
    if !spec.mount_options.is_empty() && !matches!(spec.r#type, PoolType::Fs | PoolType::Netfs) {
        findings.push(
            Finding::new(Code::Contradiction, "only pools of type `fs` and `netfs` are mounted")
                .of(pool, "spec.mountOptions")
                .hint("take `mountOptions` out"),
        );
    }
    for (i, option) in spec.mount_options.iter().enumerate() {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-=.:/+@%".contains(c);
        if option.is_empty() || option.starts_with('-') || !option.chars().all(fits) {
            findings.push(
                Finding::new(Code::WrongValue, format!("`{}` cannot be a mount option", option.escape_debug()))
                    .of(pool, &format!("spec.mountOptions[{i}]"))
                    .hint("write one option an entry, such as `nolock` or `timeo=50`"),
            );
        }
    }
    let version = spec.source.as_ref().and_then(|s| s.protocol_version.as_ref());
    if version.is_some() && spec.r#type != PoolType::Netfs {
        findings.push(
            Finding::new(Code::Contradiction, "only a pool of type `netfs` has a `protocolVersion`")
                .of(pool, "spec.source.protocolVersion")
                .hint("take it out"),
        );
    }
}

fn example(kind: PoolType, field: &str) -> &'static str {
    match (kind, field) {
        (PoolType::Scsi | PoolType::Iscsi | PoolType::Mpath, "target") => ", such as `/dev/disk/by-path`",
        (PoolType::Disk, "target") => ", such as `/dev`",
        (PoolType::Iscsi, "source.devices") => ", the target's IQN",
        (_, "target") => ", such as `/var/lib/libvirt/images`",
        (_, "source.host") => ", the server's name or address",
        (PoolType::Logical, "source.name") => ", the volume group",
        _ => "",
    }
}

fn names(pool: &Pool, findings: &mut Vec<Finding>) {
    if let Some(name) = &pool.spec.pool_name {
        let bad = name.is_empty() || name.starts_with(['.', '-']) || name.chars().any(|c| c.is_control() || c == '/');
        if bad {
            findings.push(
                Finding::new(Code::BadName, format!("`{}` cannot be the name of a pool", name.escape_debug()))
                    .of(pool, "spec.poolName")
                    .hint("use letters, digits, `-`, `_` and `.`"),
            );
        }
    }
    if let Some(target) = &pool.spec.target
        && (target.split('/').any(|p| p == "..")
            || target.chars().any(char::is_control)
            || target.trim_matches('/').is_empty())
    {
        findings.push(
            Finding::new(Code::WrongValue, format!("`{}` cannot be a pool's target", target.escape_debug()))
                .of(pool, "spec.target")
                .hint("write the path of a folder that is the pool's alone, without `..`"),
        );
    }
}

/// What `shared` says, against the number of hosts and the type.
fn sharing(pool: &Pool, findings: &mut Vec<Finding>) {
    let spec = &pool.spec;
    if spec.shared && spec.hosts.len() == 1 {
        findings.push(
            Finding::new(Code::Contradiction, "`shared` says nothing about a pool on one host")
                .severity(Severity::Info)
                .of(pool, "spec.shared")
                .hint("name the other hosts that have it, or take `shared` out"),
        );
    }
    if !spec.shared && spec.hosts.len() > 1 && matches!(spec.r#type, PoolType::Netfs | PoolType::Rbd) {
        findings.push(
            // An error, not advice: a move that copies storage would write each disk onto itself.
            Finding::new(
                Code::Contradiction,
                "the pool is the same network storage on all its hosts, but not `shared`",
            )
            .of(pool, "spec.type")
            .hint("write `shared: true`"),
        );
    }
}
