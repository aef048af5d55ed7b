//! Any machine against any manifest: new ones are as they should be, and edits make the others so.

use super::super::testing::{domain, host, machine, mark, resources};
use super::super::*;
use crate::domain_xml::{apply, parse};
use crate::model::Manifest;
use crate::plan::Definition;
use proptest::prelude::*;
use serde_json::{Value, json};

fn one_of(choices: &[&str]) -> impl Strategy<Value = Value> + use<> {
    let parsed: Vec<Value> = choices.iter().map(|c| serde_yaml::from_str(c).unwrap()).collect();
    prop::sample::select(parsed)
}

fn disk(name: &'static str) -> impl Strategy<Value = Value> {
    let place = one_of(&[
        "{pool: images, size: 1Gi}",
        "{pool: shared, size: 1Gi, format: raw}",
        "{pool: vg, size: 1Gi}",
        "{file: /a.raw}",
        "{block: /dev/sdz, bus: scsi}",
        "{file: /a.iso, device: cdrom}",
        "{device: cdrom}",
    ]);
    let more = one_of(&[
        "{}",
        "{cache: none}",
        "{cache: writeback, serial: s1}",
        "{readOnly: true}",
        "{shareable: true}",
        "{shareable: false}",
    ]);
    (place, more).prop_map(move |(place, more)| {
        let mut disk = json!({"name": name});
        for part in [place, more] {
            disk.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        disk
    })
}

fn disks() -> impl Strategy<Value = Value> {
    let all = (disk("root"), disk("data"), disk("log.1"));
    (all, prop::sample::subsequence(vec![0usize, 1, 2], 0..=3), any::<bool>()).prop_map(|((a, b, c), keep, turn)| {
        let mut list: Vec<Value> = keep.into_iter().map(|i| [&a, &b, &c][i].clone()).collect();
        if turn {
            list.reverse();
        }
        Value::Array(list)
    })
}

fn spec() -> impl Strategy<Value = Value> {
    let fields: Vec<(&'static str, BoxedStrategy<Value>)> = vec![
        ("cpus", one_of(&["1", "2", "3"]).boxed()),
        ("maxCpus", one_of(&["3", "4"]).boxed()),
        ("maxMemory", one_of(&["2Gi", "4Gi"]).boxed()),
        ("machine", one_of(&["q35", "pc", "pc-q35-7.2"]).boxed()),
        ("type", one_of(&["kvm", "qemu"]).boxed()),
        ("firmware", one_of(&["bios", "uefi"]).boxed()),
        ("secureBoot", one_of(&["true", "false"]).boxed()),
        (
            "cpu",
            one_of(&[
                "{mode: host-model}",
                "{mode: host-passthrough, features: [{name: vmx, policy: disable}]}",
                "{mode: custom, model: Nehalem, features: [{name: vmx}, {name: aes, policy: optional}]}",
                "{mode: custom, model: Haswell}",
                "{mode: maximum, topology: {sockets: 1, cores: 4, threads: 1}}",
            ])
            .boxed(),
        ),
        ("kernel", one_of(&["{image: /k, cmdline: quiet}", "{image: /k2, initrd: /i}"]).boxed()),
        ("disks", disks().boxed()),
        (
            "interfaces",
            one_of(&[
                "[]",
                "[{network: default}]",
                "[{network: lan, model: virtio}, {bridge: br0, mac: '52:54:00:00:00:01'}]",
                "[{bridge: br0, mac: '52:54:00:00:00:01', mtu: 9000}, {direct: {dev: eth0}}]",
                "[{direct: {dev: eth0, mode: vepa}, bootOrder: 2}]",
            ])
            .boxed(),
        ),
        ("console", one_of(&["serial", "virtio"]).boxed()),
        (
            "serials",
            one_of(&["[]", "[{type: pty}]", "[{type: udp, host: a, port: 9}, {type: file, path: /l}]"]).boxed(),
        ),
        (
            "graphics",
            one_of(&["{type: vnc}", "{type: spice, listen: 0.0.0.0}", "{type: vnc, port: 5950, listen: '::1'}"])
                .boxed(),
        ),
        ("video", one_of(&["virtio", "vga", "none"]).boxed()),
        ("rng", one_of(&["{device: /dev/urandom}", "{device: /dev/hwrng}"]).boxed()),
        ("tpm", one_of(&["{model: tpm-crb, version: '2.0'}", "{model: tpm-tis}"]).boxed()),
        ("guestAgent", one_of(&["true", "false"]).boxed()),
        ("title", one_of(&["A <title>", "''"]).boxed()),
        ("description", one_of(&["\"two\\nlines\""]).boxed()),
        (
            "xmlPatches",
            one_of(&[
                "[{op: add, at: /domain/devices, xml: \"<watchdog model='i6300esb' action='reset'/>\"}]",
                "[{op: setText, at: /domain/vcpu, text: '5'}, {op: removeAttribute, at: /domain/vcpu, name: current}]",
                "[{op: remove, at: /domain/devices/memballoon}, {op: setText, at: /domain/on_crash, text: restart}]",
            ])
            .boxed(),
        ),
    ];
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, values)| prop::option::of(values).prop_map(move |v| v.map(|v| (name, v))))
        .collect();
    (one_of(&["1Gi", "1536Mi", "2Gi"]), fields).prop_map(|(memory, fields)| {
        let mut spec = json!({"memory": memory});
        for (name, value) in fields.into_iter().flatten() {
            spec[name] = value;
        }
        spec
    })
}

fn manifest(spec: &Value) -> Manifest<VirtualMachineSpec> {
    let mut m = machine("web-1", "{}");
    m.spec = serde_json::from_value(spec.clone()).unwrap();
    m
}

fn on(m: &Manifest<VirtualMachineSpec>, stored: Option<&str>, live: Option<&str>) -> Difference {
    compare(m, &domain(stored, live), &host(), &resources(), &mark("web-1")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_new_machine_is_as_it_should_be(spec in spec()) {
        let m = manifest(&spec);
        let stored = filled::stored(&render(&m, &host(), &resources(), &mark("web-1")).unwrap());
        prop_assert_eq!(on(&m, Some(&stored), None), Difference::default(), "{}", stored);
        let live = filled::live(&stored);
        prop_assert_eq!(on(&m, Some(&stored), Some(&live)), Difference::default(), "{}", live);
    }

    #[test]
    fn edits_make_any_machine_what_it_should_be(before in spec(), after in spec()) {
        let stored = filled::stored(&render(&manifest(&before), &host(), &resources(), &mark("web-1")).unwrap());
        let live = filled::live(&stored);
        let m = manifest(&after);
        let running = on(&m, Some(&stored), Some(&live));
        let off = on(&m, Some(&stored), None);
        prop_assert!(off.live.is_empty() && off.restart.is_empty());
        prop_assert_eq!(&off.edits, &on(&m, Some(&stored), None).edits, "the same on every run");
        let there: Vec<_> = running.changes.iter().filter(|c| c.definition != Some(Definition::Live)).collect();
        prop_assert_eq!(there.is_empty(), off.changes.is_empty());

        let edited = filled::stored(&apply(&stored, &off.edits).unwrap());
        prop_assert_eq!(on(&m, Some(&edited), None), Difference::default(), "{}", edited);
        // After a restart nothing is left, in either definition.
        let restarted = filled::live(&edited);
        prop_assert_eq!(on(&m, Some(&edited), Some(&restarted)), Difference::default(), "{}", restarted);
        // Targets are unique, as libvirt demands.
        let tree = parse(&edited).unwrap();
        let mut targets: Vec<_> = tree.get("devices").unwrap().all("disk").map(|d| d.attribute_at("target", "dev").unwrap().to_owned()).collect();
        let count = targets.len();
        targets.sort();
        targets.dedup();
        prop_assert_eq!(targets.len(), count, "{}", edited);
    }
}

/// What libvirt fills in: a stand-in for `virsh define` and `virsh start`, for machines that no fixture has.
mod filled {
    use crate::domain_xml::{Element, Node, parse};

    pub(super) fn stored(xml: &str) -> String {
        let mut domain = parse(xml).unwrap();
        if let Some("q35" | "pc") = domain.attribute_at("os/type", "machine") {
            let kind = domain.ensure("os").ensure("type");
            let canonical = if kind.attribute("machine") == Some("pc") { "pc-i440fx-10.0" } else { "pc-q35-10.0" };
            kind.set("machine", canonical);
        }
        if domain.get("currentMemory").is_none() {
            let memory = domain.get("memory").unwrap().clone();
            domain.children.push(Node::Element(Element { name: "currentMemory".into(), ..memory }));
        }
        domain.ensure("vcpu").set("placement", "static");
        let devices = domain.ensure("devices");
        let first_serial = devices.get("serial").is_some();
        if first_serial && !devices.all("console").any(|c| c.attribute_at("target", "type") == Some("serial")) {
            let target = Element::new("target").with("type", "serial").with("port", "0");
            devices.children.push(Node::Element(Element::new("console").with("type", "pty").child(target)));
        }
        if devices.get("graphics").is_some() && devices.get("video").is_none() {
            let model = Element::new("model").with("type", "vga").with("vram", "16384");
            devices.children.push(Node::Element(Element::new("video").child(model)));
        }
        devices.ensure("emulator").set_text("/usr/bin/qemu-system-x86_64");
        for (i, device) in devices.elements_mut().enumerate() {
            let address = Element::new("address").with("type", "pci").with("bus", format!("0x{i:02x}"));
            match device.name.as_str() {
                "disk" | "interface" | "rng" | "memballoon" | "video" if device.get("address").is_none() => {
                    device.children.push(Node::Element(address));
                }
                "graphics" if device.attribute("autoport") == Some("yes") => device.set("port", "-1"),
                _ => {}
            }
        }
        // Disks are sorted by target.
        let mut disks: Vec<Node> = Vec::new();
        devices.children.retain(|n| {
            let is_disk = matches!(n, Node::Element(e) if e.name == "disk");
            if is_disk {
                disks.push(n.clone());
            }
            !is_disk
        });
        disks.sort_by_key(|n| match n {
            Node::Element(e) => e.attribute_at("target", "dev").map(ToOwned::to_owned),
            _ => None,
        });
        devices.children.extend(disks);
        domain.to_xml()
    }

    pub(super) fn live(stored: &str) -> String {
        let mut domain = parse(stored).unwrap();
        domain.set("id", "3");
        if domain.attribute_at("cpu", "mode") == Some("host-model") {
            let cpu = domain.ensure("cpu");
            cpu.set("mode", "custom");
            cpu.set("match", "exact");
            cpu.set("check", "full");
            cpu.ensure("model").set_text("EPYC-Rome");
        }
        for (i, device) in domain.ensure("devices").elements_mut().enumerate() {
            if device.get("alias").is_none() {
                device.ensure("alias").set("name", format!("dev{i}"));
            }
            match device.name.as_str() {
                "disk" if device.get("source").is_some() => {
                    device.ensure("source").set("index", "1");
                    device.ensure("backingStore");
                }
                "interface" => device.ensure("target").set("dev", format!("vnet{i}")),
                "serial" if device.attribute("type") == Some("pty") => {
                    device.ensure("source").set("path", "/dev/pts/1")
                }
                "graphics" if device.attribute("autoport") == Some("yes") => device.set("port", "5900"),
                _ => {}
            }
        }
        domain.to_xml()
    }
}
