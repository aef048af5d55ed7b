//! Compares a StoragePool with each of its hosts, and drafts the steps.

use super::sharing::{Sharing, compare_by_hand, own_marker, sharing, state, takes_markers};
use super::{PoolSource, PoolType, StoragePoolSpec};
use crate::action::{Action, MachineAction};
use crate::domain_xml::{self, Element};
use crate::finding::{Code, Finding};
use crate::model::Manifest;
use crate::observed::{HostState, PoolState, Reading};
use crate::plan::{Change, Context, Drafts, Effect, Fact, Health, Operation, StepDraft, Sync};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Drafts what brings the pool to each of its hosts.
pub fn draft(manifest: &Manifest<StoragePoolSpec>, ctx: &Context<'_>, out: &mut Drafts) {
    for host in &manifest.spec.hosts {
        match ctx.observed.hosts.get(host) {
            Some(Reading::Present(state)) => {
                let pool = state.pools.get(manifest.spec.libvirt_name(manifest.name()));
                on_host(manifest, host, pool, out);
                let is_confined = state.security_models.iter().any(|m| m == "selinux");
                if manifest.spec.r#type == PoolType::Netfs && is_confined && !pool.is_some_and(|p| p.active) {
                    out.finding(
                        Finding::new(
                            Code::StorageAccess,
                            format!("SELinux confines machines on `{host}`, and libvirt does not tell whether `virt_use_nfs` is on there"),
                        )
                        .of(manifest, "spec.type")
                        .hint("`setsebool -P virt_use_nfs 1` on the host, or machines may not open their disks (migration guide, 10.6)"),
                    );
                }
            }
            _ => {
                let report = out.report(&manifest.id(), None);
                report.sync = Sync::Unknown;
                report.health = Health::Unknown;
            }
        }
    }
    verify(manifest, ctx, out);
}

/// Drafts what tells whether a shared pool is one storage on its hosts, and says so where it is known that it is not.
fn verify(manifest: &Manifest<StoragePoolSpec>, ctx: &Context<'_>, out: &mut Drafts) {
    let spec = &manifest.spec;
    let pool = spec.libvirt_name(manifest.name());
    // libvirt's test driver keeps no storage that could be told apart.
    let hosts: Vec<(&String, &HostState)> = spec
        .hosts
        .iter()
        .filter_map(|h| Some((h, ctx.observed.host(h)?)))
        .filter(|(_, state)| state.driver != "TEST")
        .collect();
    if hosts.len() < 2 {
        return;
    }
    let takes_markers = takes_markers(spec.r#type);
    let none = BTreeSet::new();
    let markers = |host: &str| state(manifest, ctx.observed, host).map_or(&none, |p| &p.markers);
    // The one that the others are compared with: it has the most to say, and is the same from pass to pass.
    let has_to_say = |host: &str| {
        state(manifest, ctx.observed, host).is_some_and(|p| !(p.markers.is_empty() && p.numbers.is_empty()))
    };
    let Some((first, first_state)) = hosts.iter().copied().find(|(h, _)| has_to_say(h)).or(hosts.first().copied())
    else {
        return;
    };
    let (mut different, mut same, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for (host, host_state) in hosts.iter().filter(|(h, _)| *h != first) {
        match sharing(manifest, ctx.observed, first, host) {
            Sharing::Same => same.push(host.as_str()),
            Sharing::Different => different.push(host.as_str()),
            Sharing::NotKnown => unknown.push((host.as_str(), *host_state)),
        }
    }
    if !spec.shared {
        if !same.is_empty() {
            out.report(&manifest.id(), None).health = Health::Degraded;
            out.finding(
                Finding::new(
                    Code::NotTheSameStorage,
                    format!(
                        "storage pool `{pool}` is the same storage on `{first}` and {}, and is not declared so",
                        named(&same)
                    ),
                )
                .of(manifest, "spec.shared")
                .hint("write `shared: true`: a move that copies its disks would write each onto itself, and delete the only copy"),
            );
        }
        return;
    }
    if !different.is_empty() {
        out.report(&manifest.id(), None).health = Health::Degraded;
        out.finding(
            Finding::new(
                Code::NotTheSameStorage,
                format!(
                    "storage pool `{pool}` is declared as shared, and is another storage on {} than on `{first}`",
                    named(&different)
                ),
            )
            .of(manifest, "spec.shared")
            .hint(match takes_markers {
                true => "mount the same storage on all its hosts and refresh the pool there (`virsh pool-refresh`), or take `shared: true` out; no machine moves over it until then".to_owned(),
                false => format!(
                    "refresh the pool on its hosts (`virsh pool-refresh`): a list may be old. If it stays so, give them the same devices ({}), or take `shared: true` out; no machine moves over it until then",
                    compare_by_hand(manifest)
                ),
            }),
        );
    }
    if unknown.is_empty() || !takes_markers {
        return;
    }
    let own = |host: &str, state: &HostState| own_marker(ctx.resources.fleet(), manifest, host, state);
    let needs = |host: &str| Fact::PoolActive { host: host.into(), pool: pool.into() };
    let offers = |host: &str| Fact::PoolShared { host: host.into(), pool: pool.into() };
    let mut looked_for: Vec<Uuid> = markers(first).iter().copied().collect();
    let mut after = Vec::new();
    if looked_for.is_empty() {
        let marker = own(first, first_state);
        looked_for.push(marker);
        let mut step = StepDraft::new(
            Action::Machine(MachineAction::MarkStoragePool { host: first.clone(), pool: pool.into(), marker }),
            manifest.id(),
            format!("write a marker into storage pool {pool} on {first}"),
            "it is declared as shared; the marker shows the other hosts whether it is",
        );
        step.needs.push(needs(first));
        step.offers.push(offers(first));
        after.push(out.step(step));
    }
    for (host, host_state) in unknown {
        let mut step = StepDraft::new(
            Action::Machine(MachineAction::VerifySharedPool {
                host: host.into(),
                pool: pool.into(),
                with: first.clone(),
                markers: looked_for.clone(),
                own: own(host, host_state),
            }),
            manifest.id(),
            format!("check that storage pool {pool} on {host} is the same as on {first}"),
            "it is declared as shared, and nobody has looked yet",
        );
        step.needs.push(needs(host));
        step.offers.push(offers(host));
        step.after.clone_from(&after);
        out.step(step);
    }
}

fn named(hosts: &[&str]) -> String {
    hosts.iter().map(|h| format!("`{h}`")).collect::<Vec<_>>().join(", ")
}

fn on_host(manifest: &Manifest<StoragePoolSpec>, host: &str, state: Option<&PoolState>, out: &mut Drafts) {
    let id = manifest.id();
    let spec = &manifest.spec;
    let pool = spec.libvirt_name(manifest.name()).to_owned();
    let active = Fact::PoolActive { host: host.into(), pool: pool.clone() };
    let path = |field: &str| format!("spec.hosts[{host}].{field}");
    let machine = Action::Machine;
    let start = || {
        StepDraft::new(
            machine(MachineAction::StartStoragePool { host: host.into(), pool: pool.clone() }),
            id.clone(),
            format!("start storage pool {pool} on {host}"),
            "machines on this host use its volumes",
        )
    };
    let Some(state) = state else {
        let report = out.report(&id, None);
        report.operation = report.operation.max(Operation::Create);
        report.health = Health::Missing;
        out.change(&id, None, change(path("defined"), Value::Null, json!(true)));
        let define = StepDraft::new(
            machine(MachineAction::DefineStoragePool {
                host: host.into(),
                pool: pool.clone(),
                xml: xml(spec, &pool),
                autostart: spec.autostart,
            }),
            id.clone(),
            format!("define storage pool {pool} on {host}"),
            format!("{host} has no pool of this name"),
        );
        let define = out.step(define);
        let mut start = start();
        start.after.push(define);
        start.offers.push(active);
        out.step(start);
        return;
    };
    for (field, before, after) in differences(spec, state) {
        out.change(
            &id,
            None,
            Change {
                path: path(field),
                before: before.clone(),
                after: after.clone(),
                effect: Effect::Recreate,
                definition: None,
                note: None,
            },
        );
        out.finding(
            Finding::new(
                Code::RecreateNeeded,
                format!("storage pool `{pool}` on `{host}` has {field} {before}, wanted is {after}"),
            )
            .of(manifest, "spec")
            .hint("Drover does not take a pool with volumes apart: undefine it by hand, give this one another `poolName`, or make the manifest say what is there"),
        );
        out.report(&id, None).health = Health::Degraded;
    }
    if state.autostart != spec.autostart {
        let report = out.report(&id, None);
        report.operation = report.operation.max(Operation::Update);
        out.change(&id, None, change(path("autostart"), json!(state.autostart), json!(spec.autostart)));
        out.step(StepDraft::new(
            machine(MachineAction::SetStoragePoolAutostart {
                host: host.into(),
                pool: pool.clone(),
                autostart: spec.autostart,
            }),
            id.clone(),
            format!("turn autostart of storage pool {pool} on {host} {}", if spec.autostart { "on" } else { "off" }),
            "the manifest says so",
        ));
    }
    if !state.active {
        let report = out.report(&id, None);
        report.operation = report.operation.max(Operation::Update);
        report.health = Health::Degraded;
        out.change(&id, None, change(path("active"), json!(false), json!(true)));
        let mut start = start();
        start.offers.push(active);
        out.step(start);
    }
}

fn change(path: String, before: Value, after: Value) -> Change {
    Change { path, before, after, effect: Effect::Live, definition: None, note: None }
}

/// Fields in which an existing pool is another one than the manifest says.
fn differences(spec: &StoragePoolSpec, state: &PoolState) -> Vec<(&'static str, Value, Value)> {
    let Ok(root) = domain_xml::parse(&state.xml) else { return Vec::new() };
    let mut found = Vec::new();
    let mut compare = |field, before: Option<&str>, after: Option<&str>| {
        if let Some(after) = after
            && before != Some(after)
        {
            found.push((field, json!(before), json!(after)));
        }
    };
    compare("type", root.attribute("type"), Some(type_name(spec.r#type)));
    compare("target", state.target.as_deref(), spec.target.as_deref());
    if let Some(source) = &spec.source {
        let attribute = |child: &str, name: &str| root.attribute_at(&format!("source/{child}"), name);
        compare("source.host", attribute("host", "name"), source.host.as_deref());
        compare("source.path", attribute("dir", "path"), source.path.as_deref());
        compare("source.name", root.text_at("source/name").as_deref(), source.name.as_deref());
        compare("source.protocolVersion", attribute("protocol", "ver"), source.protocol_version.as_deref());
    }
    let mounted = mount_options(&root);
    if !spec.mount_options.is_empty() && mounted != spec.mount_options {
        found.push(("mountOptions", json!(mounted), json!(spec.mount_options)));
    }
    found
}

/// The mount options in a pool's definition, whatever prefix their namespace has.
pub(super) fn mount_options(root: &Element) -> Vec<String> {
    fn local(e: &Element) -> &str {
        e.name.rsplit(':').next().unwrap_or_default()
    }
    let options = root.elements().filter(|e| local(e) == "mount_opts").flat_map(Element::elements);
    options.filter(|e| local(e) == "option").filter_map(|e| e.attribute("name").map(str::to_owned)).collect()
}

/// libvirt's name of a pool type.
fn type_name(kind: PoolType) -> &'static str {
    match kind {
        PoolType::Dir => "dir",
        PoolType::Fs => "fs",
        PoolType::Netfs => "netfs",
        PoolType::Logical => "logical",
        PoolType::Disk => "disk",
        PoolType::Iscsi => "iscsi",
        PoolType::Scsi => "scsi",
        PoolType::Mpath => "mpath",
        PoolType::Rbd => "rbd",
        PoolType::Zfs => "zfs",
    }
}

/// The pool's definition (libvirt.org/formatstorage.html).
fn xml(spec: &StoragePoolSpec, name: &str) -> String {
    let mut root = Element::new("pool").with("type", type_name(spec.r#type)).child(Element::new("name").text_of(name));
    if let Some(PoolSource { host, path, format, devices, name, adapter, protocol_version }) = &spec.source {
        let mut source = Element::new("source");
        for (tag, attribute, value) in [
            ("host", "name", host),
            ("dir", "path", path),
            ("adapter", "name", adapter),
            ("format", "type", format),
            ("protocol", "ver", protocol_version),
        ] {
            if let Some(value) = value {
                source = source.child(Element::new(tag).with(attribute, value.as_str()));
            }
        }
        for device in devices {
            source = source.child(Element::new("device").with("path", device.as_str()));
        }
        if let Some(name) = name {
            source = source.child(Element::new("name").text_of(name.as_str()));
        }
        root = root.child(source);
    }
    if let Some(path) = &spec.target {
        root = root.child(Element::new("target").child(Element::new("path").text_of(path.as_str())));
    }
    if !spec.mount_options.is_empty() {
        // Prefix and namespace as libvirt itself writes them.
        root.set("xmlns:fs", "http://libvirt.org/schemas/storagepool/fs/1.0");
        let options = spec.mount_options.iter().map(|o| Element::new("fs:option").with("name", o.as_str()));
        root = root.child(options.fold(Element::new("fs:mount_opts"), Element::child));
    }
    root.to_xml()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_definition_escapes_what_a_manifest_says() {
        let spec = StoragePoolSpec {
            hosts: vec!["a".into()],
            r#type: PoolType::Netfs,
            source: Some(PoolSource {
                host: Some("nfs".into()),
                path: Some("/srv/\"><x".into()),
                format: Some("nfs".into()),
                ..Default::default()
            }),
            target: Some("/var/lib/libvirt/images".into()),
            shared: true,
            mount_options: Vec::new(),
            autostart: true,
            pool_name: None,
        };
        let written = xml(&spec, "images");
        let root = domain_xml::parse(&written).unwrap();
        assert_eq!(root.attribute_at("source/dir", "path"), Some("/srv/\"><x"));
        let state = PoolState { xml: written, target: spec.target.clone(), ..Default::default() };
        assert_eq!(differences(&spec, &state), []);
    }

    /// As libvirt.org/formatstorage.html has it, and as tests/it checks it against libvirt's own schema.
    #[test]
    fn an_nfs_pool_is_written_as_libvirt_takes_it() {
        let spec: StoragePoolSpec = serde_yaml::from_str(
            "{hosts: [a, b], type: netfs, source: {host: nfs.example.com, path: /srv/images, format: nfs, protocolVersion: '3'},
              target: /var/lib/libvirt/images, shared: true, mountOptions: [nolock, soft]}",
        )
        .unwrap();
        let written = xml(&spec, "images");
        assert_eq!(
            written.lines().map(str::trim).collect::<String>(),
            "<pool type='netfs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>images</name>\
             <source><host name='nfs.example.com'/><dir path='/srv/images'/><format type='nfs'/><protocol ver='3'/></source>\
             <target><path>/var/lib/libvirt/images</path></target>\
             <fs:mount_opts><fs:option name='nolock'/><fs:option name='soft'/></fs:mount_opts></pool>"
        );
        let mut state = PoolState { xml: written, target: spec.target.clone(), ..Default::default() };
        assert_eq!(differences(&spec, &state), []);
        state.xml = state.xml.replace("soft", "hard");
        assert_eq!(differences(&spec, &state)[0].0, "mountOptions");
        let imported = super::super::import("images", &state, "a").unwrap();
        assert_eq!(imported.mount_options, ["nolock", "hard"]);
        assert_eq!(imported.source.unwrap().protocol_version.as_deref(), Some("3"));
    }
}
