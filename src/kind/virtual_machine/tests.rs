//! The comparison against what libvirt really prints. tests/fixtures/domains/ has, for each case, a spec, the definition
//! that Drover makes of it (`defined.xml`), and both definitions as libvirt 9.0 and 11.3 print them after `virsh define`
//! and `virsh start --paused`; its README says how they are captured.

mod imports;
mod properties;

use super::testing::{domain, host, machine, mark, resources};
use super::*;
use crate::domain_xml::{Edit, apply, digest, owner_of, parse};
use crate::finding::Code;
use crate::model::Manifest;
use crate::observed::{HostState, OwnedVolume, VolumeState};
use crate::plan::{Definition, Effect};
use serde_json::{Value, json};
use std::path::PathBuf;

const CASES: &[&str] = &["full", "i440fx", "kernel", "minimal", "uefi", "xml"];
const RELEASES: &[&str] = &["9.0", "11.3"];

fn path(case: &str, file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/domains", case, file].iter().collect()
}

fn file(case: &str, name: &str) -> String {
    let path = path(case, name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn case(name: &str) -> Manifest<VirtualMachineSpec> {
    machine(name, &file(name, "spec.yaml"))
}

/// A host without hardware virtualisation, as the one the files were captured on.
fn tcg() -> HostState {
    HostState { domain_types: vec!["qemu".into()], ..host() }
}

fn live(case: &str, release: &str) -> String {
    file(case, &format!("live-{release}.xml"))
}

fn stored(case: &str, release: &str) -> String {
    file(case, &format!("inactive-{release}.xml"))
}

fn compared(m: &Manifest<VirtualMachineSpec>, persistent: Option<&str>, live: Option<&str>) -> Difference {
    let name = m.name().to_owned();
    compare(m, &domain(persistent, live), &tcg(), &resources(), &mark(&name)).unwrap()
}

#[test]
fn definitions_are_made_as_they_were_captured() {
    for name in CASES {
        let made = render(&case(name), &tcg(), &resources(), &mark(name)).unwrap();
        assert_eq!(made, file(name, "defined.xml"), "{name}: capture the fixtures anew, see their README");
    }
}

#[test]
fn what_libvirt_fills_in_is_not_drift() {
    for name in CASES {
        for release in RELEASES {
            let (stored, live) = (stored(name, release), live(name, release));
            let m = case(name);
            assert_eq!(compared(&m, Some(&stored), None), Difference::default(), "{name} {release}, off");
            assert_eq!(compared(&m, Some(&stored), Some(&live)), Difference::default(), "{name} {release}, running");
        }
    }
}

/// The manifest of a case with some nodes of its spec changed; `null` takes one out.
fn changed(name: &str, changes: &[(&str, Value)]) -> Manifest<VirtualMachineSpec> {
    let mut m = case(name);
    let mut spec = serde_json::to_value(&m.spec).unwrap();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match (spec.pointer_mut(parent).unwrap(), key.parse::<usize>()) {
            (Value::Object(map), _) if value.is_null() => {
                map.remove(key);
            }
            (Value::Object(map), _) => {
                map.insert(key.into(), value.clone());
            }
            (Value::Array(list), Ok(i)) if value.is_null() => {
                list.remove(i);
            }
            (Value::Array(list), Ok(i)) if i < list.len() => list[i] = value.clone(),
            (Value::Array(list), _) => list.push(value.clone()),
            other => panic!("{pointer}: {other:?}"),
        }
    }
    m.spec = serde_json::from_value(spec).unwrap();
    m
}

/// Applies a difference to the persistent definition.
fn edited(stored: &str, difference: &Difference) -> String {
    apply(stored, &difference.edits).unwrap()
}

/// The live changes in short.
fn acts(difference: &Difference) -> Vec<&'static str> {
    use crate::action::LiveChange as L;
    let name = |c: &L| match c {
        L::Vcpus { .. } => "vcpus",
        L::Memory { .. } => "memory",
        L::Attach { .. } => "attach",
        L::Detach { .. } => "detach",
        L::Update { .. } => "update",
    };
    difference.live.iter().map(|(c, _)| name(c)).collect()
}

/// One change to a manifest, and what must come of it.
struct Row {
    case: &'static str,
    changes: Vec<(&'static str, Value)>,
    path: &'static str,
    before: Value,
    after: Value,
    effect: Effect,
    live: &'static [&'static str],
}

fn row(
    case: &'static str,
    pointer: &'static str,
    value: Value,
    change: (&'static str, Value, Value),
    effect: Effect,
    live: &'static [&'static str],
) -> Row {
    let (path, before, after) = change;
    Row { case, changes: vec![(pointer, value)], path, before, after, effect, live }
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use Effect::{Live, Restart, None as Nothing};
    let off = Value::Null;
    vec![
        row("full", "/cpus", json!(3), ("spec.cpus", json!(2), json!(3)), Live, &["vcpus"]),
        row("full", "/cpus", json!(1), ("spec.cpus", json!(2), json!(1)), Restart, &[]),
        row("minimal", "/cpus", json!(2), ("spec.cpus", json!(1), json!(2)), Restart, &[]),
        row("minimal", "/maxCpus", json!(4), ("spec.maxCpus", json!(1), json!(4)), Restart, &[]),
        row("full", "/memory", json!("256Mi"), ("spec.memory", json!("192Mi"), json!("256Mi")), Live, &["memory"]),
        row("full", "/memory", json!("128Mi"), ("spec.memory", json!("192Mi"), json!("128Mi")), Live, &["memory"]),
        row("full", "/maxMemory", json!("512Mi"), ("spec.maxMemory", json!("256Mi"), json!("512Mi")), Restart, &[]),
        row("minimal", "/memory", json!("512Mi"), ("spec.memory", json!("256Mi"), json!("512Mi")), Restart, &[]),
        row("minimal", "/memory", json!("128Mi"), ("spec.memory", json!("256Mi"), json!("128Mi")), Live, &["memory"]),
        row("full", "/type", json!("kvm"), ("spec.type", json!("qemu"), json!("kvm")), Restart, &[]),
        row("full", "/machine", json!("pc"), ("spec.machine", json!("pc-q35-10.0"), json!("pc")), Restart, &[]),
        row("minimal", "/machine", json!("pc-q35-6.2"), ("spec.machine", json!("pc-q35-10.0"), json!("pc-q35-6.2")), Restart, &[]),
        row("full", "/firmware", json!("uefi"), ("spec.firmware", json!("bios"), json!("uefi")), Restart, &[]),
        row("uefi", "/secureBoot", json!(false), ("spec.secureBoot", json!(true), json!(false)), Restart, &[]),
        row("full", "/cpu/model", json!("Nehalem"), ("spec.cpu.model", json!("qemu64"), json!("Nehalem")), Restart, &[]),
        row("full", "/cpu", json!({"mode": "maximum", "topology": {"sockets": 1, "cores": 2, "threads": 2}}),
            ("spec.cpu.mode", json!("custom"), json!("maximum")), Restart, &[]),
        row("full", "/cpu/topology", json!({"sockets": 4, "cores": 1, "threads": 1}), ("spec.cpu.topology",
            json!({"sockets": 1, "cores": 2, "threads": 2}), json!({"sockets": 4, "cores": 1, "threads": 1})), Restart, &[]),
        row("full", "/cpu/features/1/policy", json!("disable"), ("spec.cpu.features[ssse3]", json!("require"), json!("disable")), Restart, &[]),
        row("kernel", "/kernel/cmdline", json!("quiet"), ("spec.kernel.cmdline", json!("console=ttyS0  quiet"), json!("quiet")), Restart, &[]),
        row("kernel", "/kernel/initrd", Value::Null, ("spec.kernel.initrd", json!("/srv/vm/initrd"), off.clone()), Restart, &[]),
        row("full", "/title", json!("Other"), ("spec.title", json!("A machine with everything"), json!("Other")), Nothing, &[]),
        row("full", "/disks/0/cache", json!("writeback"), ("spec.disks[root].cache", json!("none"), json!("writeback")), Restart, &[]),
        row("full", "/disks/0/bootOrder", json!(4), ("spec.disks[root].bootOrder", json!(1), json!(4)), Restart, &[]),
        row("full", "/disks/0/serial", json!("x"), ("spec.disks[root].serial", json!("root-1"), json!("x")), Restart, &[]),
        row("full", "/disks/0/readOnly", json!(true), ("spec.disks[root].readOnly", json!(false), json!(true)), Restart, &[]),
        row("full", "/disks/2/shareable", json!(false), ("spec.disks[old.disk].shareable", json!(true), json!(false)), Restart, &[]),
        row("full", "/disks/0/bus", json!("scsi"), ("spec.disks[root].bus", json!("virtio"), json!("scsi")), Restart, &[]),
        row("full", "/disks/2/target", json!("sdk"), ("spec.disks[old.disk].target", json!("sdd"), json!("sdk")), Restart, &[]),
        row("full", "/disks/0/volume", json!("new.qcow2"), ("spec.disks[root].volume",
            json!("/var/lib/libvirt/images/full-root.qcow2"), json!("/var/lib/libvirt/images/new.qcow2")), Restart, &[]),
        row("full", "/disks/3/file", json!("/srv/vm/b.iso"), ("spec.disks[cd].file", json!("/srv/vm/cd.iso"), json!("/srv/vm/b.iso")), Live, &["update"]),
        row("full", "/disks/3/file", Value::Null, ("spec.disks[cd].file", json!("/srv/vm/cd.iso"), off.clone()), Live, &["update"]),
        row("full", "/disks/4/file", json!("/srv/vm/b.iso"), ("spec.disks[tray].file", off.clone(), json!("/srv/vm/b.iso")), Live, &["update"]),
        row("full", "/disks/5", json!({"name": "more", "pool": "images", "size": "1Gi"}), ("spec.disks[more]", off.clone(),
            json!({"name": "more", "pool": "images", "size": "1Gi", "device": "disk"})), Live, &["attach"]),
        row("full", "/disks/5", json!({"name": "more", "file": "/x.raw", "bus": "sata"}), ("spec.disks[more]", off.clone(),
            json!({"name": "more", "file": "/x.raw", "device": "disk", "bus": "sata"})), Restart, &[]),
        row("full", "/disks/1", Value::Null, ("spec.disks[data]",
            json!({"target": "sda", "device": "disk", "source": "/var/lib/libvirt/images/full-data.raw"}), off.clone()), Live, &["detach"]),
        row("full", "/disks/2", Value::Null, ("spec.disks[old_2edisk]",
            json!({"target": "sdd", "device": "disk", "source": "/srv/vm/old.raw"}), off.clone()), Restart, &[]),
        row("full", "/interfaces/0/network", json!("dmz"), ("spec.interfaces[0].network", json!("lan"), json!("dmz")), Live, &["update"]),
        row("full", "/interfaces/1", json!({"network": "lan", "mac": "52:54:00:12:34:ab"}),
            ("spec.interfaces[1]", json!({"bridge": "br0"}), json!({"network": "lan"})), Live, &["update"]),
        row("full", "/interfaces/1", json!({"direct": {"dev": "eth0"}, "mac": "52:54:00:12:34:ab"}),
            ("spec.interfaces[1]", json!({"bridge": "br0"}), json!({"direct": {"dev": "eth0", "mode": "bridge"}})), Restart, &[]),
        row("full", "/interfaces/1/model", json!("virtio"), ("spec.interfaces[1].model", json!("e1000e"), json!("virtio")), Restart, &[]),
        row("full", "/interfaces/1/mtu", json!(9000), ("spec.interfaces[1].mtu", json!(1400), json!(9000)), Restart, &[]),
        row("full", "/interfaces/0/bootOrder", json!(7), ("spec.interfaces[0].bootOrder", json!(3), json!(7)), Restart, &[]),
        row("full", "/interfaces/2", json!({"network": "lan"}), ("spec.interfaces[2]", off.clone(), json!({"network": "lan"})), Live, &["attach"]),
        row("full", "/interfaces/1", Value::Null, ("spec.interfaces[52:54:00:12:34:ab]",
            json!({"bridge": "br0", "mac": "52:54:00:12:34:ab"}), off.clone()), Live, &["detach"]),
        row("uefi", "/console", json!("serial"), ("spec.console", json!("virtio"), json!("serial")), Restart, &[]),
        row("full", "/console", json!("virtio"), ("spec.console", json!("serial"), json!("virtio")), Restart, &[]),
        row("full", "/serials/0/port", json!(9005), ("spec.serials[0]", json!({"type": "udp", "host": "127.0.0.1", "port": 9000}),
            json!({"type": "udp", "host": "127.0.0.1", "port": 9005})), Restart, &[]),
        row("full", "/serials/2", Value::Null, ("spec.serials[2]", json!({"type": "pty"}), off.clone()), Restart, &[]),
        row("full", "/serials/3", json!({"type": "pty"}), ("spec.serials[3]", off.clone(), json!({"type": "pty"})), Restart, &[]),
        row("full", "/graphics/type", json!("spice"), ("spec.graphics.type", json!("vnc"), json!("spice")), Restart, &[]),
        row("full", "/graphics/listen", json!("0.0.0.0"), ("spec.graphics.listen", json!("127.0.0.1"), json!("0.0.0.0")), Restart, &[]),
        row("full", "/graphics/port", json!(5999), ("spec.graphics.port", json!(5900), json!(5999)), Restart, &[]),
        row("full", "/video", json!("vga"), ("spec.video", json!("virtio"), json!("vga")), Restart, &[]),
        row("full", "/rng/device", json!("/dev/hwrng"), ("spec.rng.device", json!("/dev/urandom"), json!("/dev/hwrng")), Restart, &[]),
        row("uefi", "/tpm/model", json!("tpm-tis"), ("spec.tpm.model", json!("tpm-crb"), json!("tpm-tis")), Restart, &[]),
        row("full", "/tpm", json!({"model": "tpm-crb"}), ("spec.tpm.model", off.clone(), json!("tpm-crb")), Restart, &[]),
        row("full", "/guestAgent", json!(false), ("spec.guestAgent", json!(true), json!(false)), Restart, &[]),
        row("minimal", "/guestAgent", json!(true), ("spec.guestAgent", json!(false), json!(true)), Restart, &[]),
    ]
}

#[test]
fn each_field_gives_its_change_and_its_edits_make_it_so() {
    for release in RELEASES {
        for row in rows() {
            let what = format!("{} {:?} on {release}", row.case, row.changes);
            let m = changed(row.case, &row.changes);
            // As captured, the guest has not given memory back yet; here it has.
            let live = live(row.case, release).replace(
                "<currentMemory unit='KiB'>262144<",
                &format!("<currentMemory unit='KiB'>{}<", if row.case == "full" { 196_608 } else { 262_144 }),
            );
            let stored = stored(row.case, release);
            let difference = compared(&m, Some(&stored), Some(&live));
            let paths: Vec<_> = difference.changes.iter().map(|c| c.path.as_str()).collect();
            assert_eq!(paths, [row.path], "{what}");
            let change = &difference.changes[0];
            let version = if *release == "9.0" { "7.2" } else { "10.0" };
            let before = match row.before.as_str() {
                Some("pc-q35-10.0") => json!(format!("pc-q35-{version}")),
                _ => row.before.clone(),
            };
            assert_eq!((&change.before, &change.after, change.effect), (&before, &row.after, row.effect), "{what}");
            assert_eq!(acts(&difference), row.live, "{what}");
            let texts = matches!(row.path, "spec.title" | "spec.description");
            let definition = if texts { Definition::Persistent } else { Definition::Both };
            assert_eq!(change.definition, Some(definition), "{what}");
            let waits = if row.effect == Effect::Restart { vec![row.path.to_owned()] } else { Vec::new() };
            assert_eq!(difference.restart, waits, "{what}");

            // Off, the same edits are all there is to do, and they do it.
            let off = compared(&m, Some(&stored), None);
            assert_eq!(off.edits, difference.edits, "{what}");
            assert!(off.live.is_empty() && off.restart.is_empty(), "{what}");
            assert_eq!(off.changes[0].effect, Effect::None, "{what}");
            let after = edited(&stored, &off);
            assert_eq!(compared(&m, Some(&after), None), Difference::default(), "{what}\n{after}");

            // Edited while it runs: what waits for the restart is still told, and nothing else is left to do.
            let waiting = compared(&m, Some(&after), Some(&live));
            assert_eq!(waiting.edits, [], "{what}");
            // A guest that was asked for memory and has all of it still is not asked again.
            let asked = row.case == "minimal" && row.path == "spec.memory";
            assert_eq!(!waiting.restart.is_empty(), row.effect == Effect::Restart || asked, "{what}");
            assert_eq!(waiting.live.is_empty(), row.effect != Effect::Live || asked, "{what}");
        }
    }
}

fn replaced(xml: &str, from: &str, to: &str) -> String {
    assert!(xml.contains(from), "{from}");
    xml.replace(from, to)
}

fn paths(difference: &Difference) -> Vec<(&str, Effect, Option<Definition>)> {
    difference.changes.iter().map(|c| (c.path.as_str(), c.effect, c.definition)).collect()
}

#[test]
fn what_was_changed_by_hand_says_in_which_definition() {
    let m = case("full");
    let (stored, running) = (stored("full", "11.3"), live("full", "11.3"));
    // `virsh edit`: only the next start would show it.
    let edited_by_hand = replaced(&stored, "cache='none'", "cache='writeback'");
    let d = compared(&m, Some(&edited_by_hand), Some(&running));
    assert_eq!(paths(&d), [("spec.disks[root].cache", Effect::None, Some(Definition::Persistent))]);
    assert_eq!(compared(&m, Some(&edited(&edited_by_hand, &d)), Some(&running)), Difference::default());
    // `virsh attach-disk --live` and `virsh setvcpus --live`: the next start would undo it, Drover does so now.
    // The list of vCPUs is what libvirt prints after that: those of the start cannot be unplugged.
    let by_hand = replaced(
        &running,
        "current='2'>4</vcpu>",
        "current='3'>4</vcpu><vcpus><vcpu id='0' enabled='yes' hotpluggable='no' order='1'/>\
         <vcpu id='1' enabled='yes' hotpluggable='no' order='2'/><vcpu id='2' enabled='yes' hotpluggable='yes' order='3'/>\
         <vcpu id='3' enabled='no' hotpluggable='yes'/></vcpus>",
    );
    let by_hand = replaced(
        &by_hand,
        "<controller type='usb'",
        "<disk type='file' device='disk'><source file='/x.raw'/><target dev='vdx' bus='virtio'/>\
         <alias name='virtio-disk23'/></disk><controller type='usb'",
    );
    let d = compared(&m, Some(&stored), Some(&by_hand));
    assert_eq!(
        paths(&d),
        [
            ("spec.cpus", Effect::Live, Some(Definition::Live)),
            ("spec.disks[vdx]", Effect::Live, Some(Definition::Live)),
        ]
    );
    assert_eq!((d.edits.as_slice(), acts(&d)), ([].as_slice(), vec!["vcpus", "detach"]));
    // Both, each in its own way.
    let d = compared(&m, Some(&replaced(&stored, "current='2'>4<", "current='4'>4<")), Some(&by_hand));
    let change = &d.changes[0];
    assert_eq!((&change.before, change.definition), (&json!(3), Some(Definition::Both)));
    assert_eq!(change.note.as_deref(), Some("the persistent definition has 4"));
}

#[test]
fn a_guest_that_gives_no_memory_back_is_not_asked_for_ever() {
    // As captured, before the guest's balloon driver is loaded: all of `maxMemory` is in use.
    let running = live("full", "11.3");
    assert!(running.contains("<currentMemory unit='KiB'>262144<"));
    assert_eq!(compared(&case("full"), Some(&stored("full", "11.3")), Some(&running)), Difference::default());
    // Without a balloon nothing can be asked of it.
    let m = changed("full", &[("/memory", json!("128Mi"))]);
    let bare =
        replaced(&replaced(&running, "262144<", "196608<"), "memballoon model='virtio'", "memballoon model='none'");
    let bare = replaced(&bare, "<memory unit='KiB'>196608<", "<memory unit='KiB'>262144<");
    let d = compared(&m, Some(&stored("full", "11.3")), Some(&bare));
    assert_eq!(paths(&d), [("spec.memory", Effect::Restart, Some(Definition::Both))]);
}

#[test]
fn only_what_is_stated_is_compared() {
    let m = machine("full", "{memory: 192Mi}");
    for release in RELEASES {
        let running =
            live("full", release).replace("<currentMemory unit='KiB'>262144<", "<currentMemory unit='KiB'>196608<");
        let d = compared(&m, Some(&stored("full", release)), Some(&running));
        assert_eq!(d, Difference::default(), "{release}");
    }
}

#[test]
fn an_adopted_machine_keeps_what_it_has_and_gets_the_mark() {
    // Made by somebody else: no user aliases, other MAC addresses, no mark.
    let strange = |xml: &str| {
        let mut tree = parse(xml).unwrap();
        tree.remove("metadata");
        for (i, device) in tree.ensure("devices").elements_mut().enumerate() {
            match device.name.as_str() {
                "disk" => {
                    device.remove("alias");
                }
                "interface" => device.ensure("mac").set("address", format!("52:54:00:00:00:{i:02X}")),
                _ => {}
            }
        }
        tree.to_xml()
    };
    let m = changed("full", &[("/interfaces/1/mac", Value::Null)]);
    let (stored, running) = (strange(&stored("full", "11.3")), strange(&live("full", "11.3")));
    let d = compared(&m, Some(&stored), Some(&running));
    assert_eq!(paths(&d), [("metadata.name", Effect::None, None)]);
    assert!(d.live.is_empty() && d.restart.is_empty());
    let after = edited(&stored, &d);
    assert_eq!(owner_of(&parse(&after).unwrap()), Some(mark("full")));
    assert_eq!(compared(&m, Some(&after), Some(&running)), Difference::default());
    // The next edit of a disk names it.
    let m = changed("full", &[("/interfaces/1/mac", Value::Null), ("/disks/0/cache", json!("writeback"))]);
    let after = edited(&after, &compared(&m, Some(&after), None));
    assert!(after.contains("ua-root") && !after.contains("ua-data"), "{after}");
}

#[test]
fn the_mark_follows_without_a_change() {
    let m = case("minimal");
    let stored = stored("minimal", "11.3");
    let mut owner = mark("minimal");
    owner.delete = true;
    owner.volumes = vec![OwnedVolume { pool: "images".into(), volume: "minimal-root.qcow2".into() }];
    let d = compare(&m, &domain(Some(&stored), None), &tcg(), &resources(), &owner).unwrap();
    assert_eq!((d.changes.as_slice(), d.edits.len()), ([].as_slice(), 1));
    let after = edited(&stored, &d);
    assert_eq!(owner_of(&parse(&after).unwrap()), Some(owner.clone()));
    assert_ne!(digest(&after), digest(&stored));
    let d = compare(&m, &domain(Some(&after), None), &tcg(), &resources(), &owner).unwrap();
    assert!(d.is_empty());
}

#[test]
fn what_cannot_be_changed_says_so_and_touches_nothing() {
    let mut host = tcg();
    let pool = host.pools.get_mut("images").unwrap();
    let path = "/var/lib/libvirt/images/full-root.qcow2".to_owned();
    let volume = VolumeState { path, format: "qcow2".into(), ..Default::default() };
    pool.volumes.insert("full-root.qcow2".into(), volume);
    let m = changed(
        "full",
        &[
            ("/disks/0/format", json!("raw")),
            ("/disks/0/volume", json!("full-root.qcow2")),
            ("/uuid", json!("0b5f7c3e-6a59-4c0a-9c4f-0d8f4a3f1c11")),
            ("/arch", json!("aarch64")),
        ],
    );
    let stored = stored("full", "11.3");
    let d = compare(&m, &domain(Some(&stored), None), &host, &resources(), &mark("full")).unwrap();
    assert_eq!(d.recreate, ["spec.uuid", "spec.arch", "spec.disks[root].format"]);
    assert!(d.changes.iter().all(|c| c.effect == Effect::Recreate));
    assert_eq!(d.edits, []);
}

#[test]
fn an_overlay_of_a_snapshot_is_the_disk() {
    let m = case("full");
    let base = "/var/lib/libvirt/images/full-root.qcow2";
    let top = "/var/lib/libvirt/images/full-root.snap1";
    let stored = replaced(&stored("full", "11.3"), base, top);
    let chain =
        format!("<source file='{top}' index='9'/><backingStore type='file'><source file='{base}'/></backingStore>");
    let running = live("full", "11.3");
    let source = running.lines().find(|l| l.contains(base)).unwrap().trim();
    let running = running.replace(source, &chain);
    assert_eq!(compared(&m, Some(&stored), Some(&running)), Difference::default());
    // Another image is another image.
    let d = compared(&m, Some(&replaced(&stored, top, "/x/other.qcow2")), None);
    assert_eq!(paths(&d), [("spec.disks[root].volume", Effect::None, None)]);
}

#[test]
fn patches_and_xml_are_put_back() {
    let m = case("xml");
    let (stored, running) = (stored("xml", "11.3"), live("xml", "11.3"));
    let damaged = |xml: &str| {
        let xml = replaced(xml, "model='i6300esb' action='reset'", "model='i6300esb' action='poweroff'");
        let xml = replaced(&xml, "<on_crash>restart<", "<on_crash>destroy<");
        let xml = replaced(&xml, "tickpolicy='catchup'", "tickpolicy='delay'");
        replaced(&xml, "-no-user-config", "-nodefaults")
    };
    let (stored, running) = (damaged(&stored), damaged(&running));
    let d = compared(&m, Some(&stored), Some(&running));
    let found: Vec<_> = d.changes.iter().map(|c| (c.path.as_str(), c.effect)).collect();
    assert_eq!(
        found,
        [
            ("spec.xmlPatches[0]", Effect::Restart),
            ("spec.xmlPatches[2]", Effect::Restart),
            ("spec.xml:/domain/clock/timer@tickpolicy", Effect::Restart),
            ("spec.xml:/domain/qemu:commandline/qemu:arg@value", Effect::Restart),
        ]
    );
    let after = edited(&stored, &d);
    assert_eq!(after.matches("<watchdog model='i6300esb'").count(), 1, "put right, not doubled: {after}");
    assert_eq!(compared(&m, Some(&after), None), Difference::default());
}

#[test]
fn a_patch_has_the_last_word_over_a_field() {
    let m = machine(
        "minimal",
        "{memory: 256Mi, cpus: 1, xmlPatches: [{op: setText, at: /domain/vcpu, text: '2'},
          {op: add, at: /domain/devices, xml: \"<disk device='lun' type='block'><source dev='/dev/sdz'/><target dev='sdz' bus='scsi'/></disk>\"}],
          disks: []}",
    );
    let made = render(&m, &tcg(), &resources(), &mark("minimal")).unwrap();
    assert!(made.contains("<vcpu>2</vcpu>"), "{made}");
    assert_eq!(compared(&m, Some(&made), None), Difference::default());
    let d = compared(&m, Some(&replaced(&made, "<vcpu>2<", "<vcpu>3<")), None);
    assert_eq!(edited(&replaced(&made, "<vcpu>2<", "<vcpu>3<"), &d), made);
}

#[test]
fn bad_xml_and_patches_are_findings_at_their_place() {
    let refused = |spec: &str| render(&machine("a", spec), &tcg(), &resources(), &mark("a")).unwrap_err();
    for (spec, code, path) in [
        ("{xml: {inline: '<domain'}}", Code::BadXml, "spec.xml"),
        ("{xml: {inline: '<network/>'}}", Code::BadXml, "spec.xml"),
        ("{xml: {file: vm.xml}}", Code::BadXml, "spec.xml"),
        ("{}", Code::MissingField, "spec"),
        ("{memory: 1Gi, xmlPatches: [{op: remove, at: devices}]}", Code::BadXml, "spec.xmlPatches[0]"),
        (
            "{memory: 1Gi, xmlPatches: [{op: setText, at: '/domain/a[b/@c=\"d\"]', text: x}]}",
            Code::BadXml,
            "spec.xmlPatches[0]",
        ),
        ("{memory: 1Gi, disks: [{name: a, pool: no}]}", Code::MissingReference, "spec.disks[0].pool"),
    ] {
        let finding = refused(spec);
        assert_eq!((finding.code, finding.path.as_deref()), (code, Some(path)), "{spec}");
        assert!(finding.hint.is_some(), "{spec}");
    }
    let m = case("minimal");
    let broken = crate::observed::DomainState {
        persistent_xml: Some("<domain><!DOCTYPE x></domain>".into()),
        ..domain(Some(&stored("minimal", "9.0")), None)
    };
    let finding = compare(&m, &broken, &tcg(), &resources(), &mark("minimal")).unwrap_err();
    assert_eq!(finding.code, Code::BadXml);
}

#[test]
fn the_test_driver_gets_nothing_that_it_does_not_know() {
    let host = HostState {
        driver: "TEST".into(),
        arch: "i686".into(),
        domain_types: vec!["test".into()],
        ..Default::default()
    };
    let m = machine(
        "t",
        "{memory: 64Mi, machine: q35, disks: [{name: root, pool: images, size: 1Gi}], interfaces: [{network: default}]}",
    );
    let made = render(&m, &host, &resources(), &mark("t")).unwrap();
    assert!(made.contains("<domain type='test'") && !made.contains("machine=") && !made.contains("ua-"), "{made}");
    let d = compare(&m, &domain(Some(&made), Some(&made)), &host, &resources(), &mark("t")).unwrap();
    assert!(d.is_empty(), "{d:#?}");
    // It plugs nothing in; what could be plugged waits.
    let m = machine(
        "t",
        "{memory: 64Mi, disks: [{name: root, pool: images, size: 1Gi}, {name: b, file: /b.raw}], interfaces: [{network: other}]}",
    );
    let d = compare(&m, &domain(Some(&made), Some(&made)), &host, &resources(), &mark("t")).unwrap();
    assert_eq!((acts(&d).len(), d.restart.len()), (0, 2));
}

#[test]
fn a_password_that_only_libvirt_sees_survives_a_change_of_the_display() {
    let stored = stored("full", "11.3");
    let m = changed("full", &[("/graphics/listen", json!("0.0.0.0"))]);
    let d = compared(&m, Some(&stored), None);
    // The provider applies the edits to the definition with its secrets.
    let secret = replaced(&stored, "<graphics type='vnc'", "<graphics passwd='pw' type='vnc'");
    let after = apply(&secret, &d.edits).unwrap();
    assert!(after.contains("passwd='pw'") && after.contains("0.0.0.0"), "{after}");
    assert!(d.edits.iter().all(|e| !matches!(e, Edit::Replace { .. })));
}

#[test]
fn reordering_the_disks_is_no_change() {
    let mut m = case("full");
    m.spec.disks.as_mut().unwrap().reverse();
    let d = compared(&m, Some(&stored("full", "11.3")), None);
    assert_eq!(d, Difference::default());
}

#[test]
fn a_disk_that_comes_live_gets_the_same_target_in_both_definitions() {
    let m = changed("full", &[("/disks/5", json!({"name": "more", "file": "/m.raw"}))]);
    let (stored, running) = (stored("full", "11.3"), live("full", "11.3"));
    // The live one has a disk that the persistent one lacks, and it is to go: its place is not free yet.
    let running = replaced(
        &running,
        "<controller type='usb'",
        "<disk type='file' device='disk'><source file='/x.raw'/><target dev='vdb' bus='virtio'/></disk><controller type='usb'",
    );
    let d = compared(&m, Some(&stored), Some(&running));
    let plugged = d.live.iter().find_map(|(c, _)| match c {
        crate::action::LiveChange::Attach { xml } => Some(xml.clone()),
        _ => None,
    });
    let plugged = parse(&plugged.unwrap()).unwrap();
    assert_eq!(plugged.attribute_at("target", "dev"), Some("vdc"));
    assert!(edited(&stored, &d).contains("<target dev='vdc'"));
}
