//! What the tests of this kind share.

use super::VirtualMachineSpec;
use crate::domain_xml;
use crate::kind::Resources;
use crate::model::{Manifest, Metadata, Origin};
use crate::observed::{DomainState, HostState, OwnerMark, PoolState, RunState};

/// A manifest from the YAML of its spec.
pub(crate) fn machine(name: &str, spec: &str) -> Manifest<VirtualMachineSpec> {
    Manifest {
        kind: <VirtualMachineSpec as crate::kind::Spec>::KIND,
        metadata: Metadata { name: name.into(), ..Default::default() },
        spec: serde_yaml::from_str(spec).unwrap(),
        origin: Origin::default(),
    }
}

/// A host with QEMU 10.0.
pub(crate) fn host() -> HostState {
    let mut host = HostState {
        hostname: "kvm-a".into(),
        driver: "QEMU".into(),
        libvirt_version: "11.3.0".into(),
        arch: "x86_64".into(),
        domain_types: vec!["kvm".into(), "qemu".into()],
        ..Default::default()
    };
    for (alias, name) in [("q35", "pc-q35-10.0"), ("pc", "pc-i440fx-10.0")] {
        host.machine_aliases.insert(alias.into(), name.into());
    }
    let target = Some("/var/lib/libvirt/images".into());
    host.pools.insert("images".into(), PoolState { active: true, target, ..Default::default() });
    host
}

/// The pools `images` (a folder), `shared` (NFS) and `vg` (LVM).
pub(crate) fn resources() -> Resources {
    let mut resources = Resources::default();
    for (name, spec) in [
        ("images", "{hosts: [kvm-a], type: dir, target: /var/lib/libvirt/images}"),
        ("shared", "{hosts: [kvm-a, kvm-b], type: netfs, target: /srv/shared, shared: true}"),
        ("vg", "{hosts: [kvm-a], type: logical, source: {name: vg0}}"),
    ] {
        let manifest = Manifest {
            kind: "StoragePool".into(),
            metadata: Metadata { name: name.into(), ..Default::default() },
            spec: serde_yaml::from_str(spec).unwrap(),
            origin: Origin::default(),
        };
        resources.storage_pools.insert(name.into(), manifest);
    }
    resources
}

/// The mark of a machine of this name.
pub(crate) fn mark(name: &str) -> OwnerMark {
    OwnerMark { fleet: "default".into(), name: name.into(), delete: false, volumes: Vec::new() }
}

/// A domain with these definitions; running where there is a live one.
pub(crate) fn domain(persistent: Option<&str>, live: Option<&str>) -> DomainState {
    let tree = domain_xml::parse(persistent.or(live).unwrap()).unwrap();
    let state = if live.is_some() { RunState::Running } else { RunState::Off };
    let (name, uuid) = (tree.text_at("name").unwrap(), tree.text_at("uuid").unwrap().parse().unwrap());
    DomainState {
        live_xml: live.map(Into::into),
        persistent_xml: persistent.map(Into::into),
        owner: domain_xml::owner_of(&tree),
        ..DomainState::new(name, uuid, state, String::new(), persistent.is_some())
    }
}
