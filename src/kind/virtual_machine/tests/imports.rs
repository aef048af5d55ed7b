//! What is imported is what is there: the comparison after an import finds nothing, for the definitions as libvirt prints
//! them and for what no field can say.

use super::super::testing::{domain, mark, resources};
use super::{CASES, RELEASES, live, stored, tcg};
use crate::kind::virtual_machine::{ADOPT, ADOPT_ON_CHANGE, Imported, compare, import, manifest_name, render};
use crate::observed::{DomainState, VolumeState};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Imports, and compares with what was imported.
fn imported(domain: &DomainState) -> Imported {
    let (host, resources) = (tcg(), resources());
    let name = manifest_name(&domain.name, domain.uuid, &BTreeSet::new());
    let imported = import(&name, domain, "kvm-a", &host, &resources).unwrap();
    let text = serde_json::to_string(&imported.manifest.spec).unwrap();
    let mut again = imported.manifest.clone();
    again.spec = serde_json::from_str(&text).unwrap();
    assert_eq!(again.spec, imported.manifest.spec, "what is written is what is read");
    let owner = domain.owner.clone().unwrap_or_else(|| mark(&name));
    let difference = compare(&again, domain, &host, &resources, &owner).unwrap();
    let changes: Vec<_> = difference.changes.iter().filter(|c| !c.path.starts_with("metadata.")).collect();
    assert!(changes.is_empty(), "{name}: {changes:#?}");
    imported
}

#[test]
fn nothing_differs_after_an_import() {
    for case in CASES {
        for release in RELEASES {
            let (stored, live) = (stored(case, release), live(case, release));
            let off = imported(&domain(Some(&stored), None));
            let running = imported(&domain(Some(&stored), Some(&live)));
            for one in [&off, &running] {
                assert_eq!(one.unstated, Vec::<String>::new(), "{case} {release}");
                let spec = &one.manifest.spec;
                assert!(spec.cpus.is_some() && spec.memory.is_some() && spec.machine.is_some(), "{case} {release}");
                assert!(spec.interfaces.is_some() && spec.disks.is_some(), "{case} {release}: {spec:#?}");
            }
        }
    }
}

#[test]
fn an_import_can_be_made_anew_elsewhere() {
    for case in CASES {
        let stored = stored(case, "11.3");
        let one = imported(&domain(Some(&stored), None));
        let text = render(&one.manifest, &tcg(), &resources(), &mark("x")).unwrap();
        let there = domain(Some(&stored), None);
        let difference = compare(&one.manifest, &domain(Some(&text), None), &tcg(), &resources(), &mark("x")).unwrap();
        assert_eq!(difference.changes, [], "{case}");
        assert!(text.contains(&there.uuid.to_string()), "{case}: it keeps its identity");
    }
}

#[test]
fn what_no_field_can_say_is_kept_as_it_is() {
    let plain = stored("minimal", "11.3");
    let device = |xml: &str| plain.replace("</devices>", &format!("{xml}</devices>"));
    let cases = [
        (
            device("<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source></hostdev>"),
            "devices/hostdev (pci)",
        ),
        (
            device("<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='rbd' name='p/i'><host name='m' port='6789'/></source><target dev='vdz' bus='virtio'/></disk>"),
            "devices/disk (network)",
        ),
        (
            device("<interface type='vdpa'><mac address='52:54:00:00:00:99'/><source dev='/dev/vhost-vdpa-0'/></interface>"),
            "devices/interface (vdpa)",
        ),
        (
            device("<filesystem type='mount'><driver type='virtiofs'/><source dir='/x'/><target dir='y'/></filesystem>"),
            "devices/filesystem (mount)",
        ),
        (
            plain.replace("<os>", "<numatune><memory mode='strict' nodeset='0'/></numatune><cputune><vcpupin vcpu='0' cpuset='1'/></cputune><os>"),
            "cputune",
        ),
        (plain.replace("</features>", "<hyperv mode='custom'><relaxed state='on'/></hyperv></features>"), "features/hyperv"),
        (
            plain.replace("<metadata>", "<metadata><x:y xmlns:x='http://example.com/x'>z</x:y>"),
            "metadata/x:y",
        ),
    ];
    for (xml, beyond) in cases {
        assert_ne!(xml, plain, "{beyond}: the fixture has changed");
        let one = imported(&domain(Some(&xml), None));
        assert!(one.beyond.iter().any(|b| b == beyond), "{beyond}: {:?}", one.beyond);
        let kept = one.manifest.spec.xml.as_ref().and_then(|x| x.inline.as_deref()).unwrap();
        assert!(!kept.contains("drover:machine"), "the mark is Drover's to write");
        // Made anew it has the device again.
        let anew = render(&one.manifest, &tcg(), &resources(), &mark("x")).unwrap();
        let word = beyond.rsplit('/').next().unwrap().split(' ').next().unwrap();
        assert!(anew.contains(&format!("<{word}")), "{beyond}: {anew}");
    }
}

#[test]
fn a_volume_of_a_pool_is_named_by_pool_and_volume() {
    let path = "/var/lib/libvirt/images/a.qcow2";
    let disk = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vdq' bus='virtio'/></disk>"
    );
    let xml = stored("minimal", "11.3").replace("</devices>", &format!("{disk}</devices>"));
    let found = domain(Some(&xml), None);
    let mut host = tcg();
    let volume = VolumeState { path: path.into(), format: "qcow2".into(), ..VolumeState::default() };
    host.pools.get_mut("images").unwrap().volumes.insert("a.qcow2".into(), volume);
    let one = import("a", &found, "kvm-a", &host, &resources()).unwrap();
    let disk = one.manifest.spec.disks.as_deref().unwrap().iter().find(|d| d.target.as_deref() == Some("vdq")).unwrap();
    assert_eq!((disk.pool.as_deref(), disk.volume.as_deref()), (Some("images"), Some("a.qcow2")));
    assert_eq!(disk.name, "vdq");
}

#[test]
fn who_owns_it_decides_whether_it_is_to_be_adopted() {
    let xml = stored("minimal", "11.3");
    let mut found = domain(Some(&xml), None);
    found.owner = None;
    let one = import("a", &found, "kvm-a", &tcg(), &resources()).unwrap();
    assert_eq!(one.manifest.metadata.annotations.get(ADOPT).map(String::as_str), Some(ADOPT_ON_CHANGE));
    found.owner = Some(mark("a"));
    let one = import("a", &found, "kvm-a", &tcg(), &resources()).unwrap();
    assert!(one.manifest.metadata.annotations.is_empty());
}

#[test]
fn names_are_ones_that_manifests_may_have() {
    let none = BTreeSet::new();
    for (domain, name) in
        [("web-1", "web-1"), ("Web_1 (old)", "web-1-old"), ("..", "vm"), ("ÄÖ", "vm"), ("a--b", "a-b")]
    {
        assert_eq!(manifest_name(domain, Uuid::nil(), &none), name, "{domain}");
        crate::model::check_name(name).unwrap();
    }
    let taken = BTreeSet::from(["web-1".to_owned()]);
    let uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    assert_eq!(manifest_name("WEB-1", uuid, &taken), "web-1-01234567");
}
