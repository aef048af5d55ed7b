//! Rules of a VirtualMachine.

use drover::finding::{Code, Finding, Severity};
use drover::load::{Limits, MemoryTree, load};
use drover::model::Revision;

const HOSTS: &str = "
--- {apiVersion: drover/v1alpha1, kind: Host, metadata: {name: kvm-a, labels: {rack: r1}}, spec: {uri: 'sim:'}}
--- {apiVersion: drover/v1alpha1, kind: Host, metadata: {name: kvm-b, labels: {rack: r1}}, spec: {uri: 'sim:'}}
--- {apiVersion: drover/v1alpha1, kind: Host, metadata: {name: kvm-c, labels: {rack: r2}}, spec: {uri: 'sim:', maintenance: Evacuate}}
--- {apiVersion: drover/v1alpha1, kind: StoragePool, metadata: {name: nfs},
 spec: {hosts: [kvm-a, kvm-b], type: netfs, source: {host: n, path: /x}, target: /nfs, shared: true}}
--- {apiVersion: drover/v1alpha1, kind: StoragePool, metadata: {name: local}, spec: {hosts: [kvm-a, kvm-b], type: dir, target: /local}}
--- {apiVersion: drover/v1alpha1, kind: StoragePool, metadata: {name: only-b}, spec: {hosts: [kvm-b], type: dir, target: /only}}
";

fn find(machines: &[(&str, &str)]) -> Vec<Finding> {
    let mut text = HOSTS.to_owned();
    for (name, spec) in machines {
        text += &format!(
            "--- {{apiVersion: drover/v1alpha1, kind: VirtualMachine, metadata: {{name: {name}, labels: {{app: web}}}}, spec: {{{spec}}}}}\n"
        );
    }
    let loaded = load(&MemoryTree::new().with("a.yaml", text), Revision::default(), &Limits::default());
    assert_eq!(loaded.desired.is_none(), loaded.findings.iter().any(Finding::is_error));
    loaded.findings
}

/// The one finding about one machine on `kvm-a` with memory and these further fields.
fn one(spec: &str) -> (Code, String, String) {
    let spec =
        format!("{spec}{}", if spec.contains("memory:") || spec.contains("xml: {") { "" } else { ", memory: 1Gi" });
    let spec =
        if spec.contains("host:") || spec.contains("placement:") { spec } else { format!("host: kvm-a, {spec}") };
    let found = find(&[("vm", &spec)]);
    assert_eq!(found.len(), 1, "{spec}: {found:#?}");
    let f = &found[0];
    assert!(f.hint.is_some() && f.source.is_some() && f.resource.is_some(), "{f:?}");
    (f.code, f.path.clone().unwrap_or_default(), f.message.clone())
}

fn expect(spec: &str, code: Code, path: &str, message: &str) {
    let found = one(spec);
    assert!(found.0 == code && found.1 == path && found.2.contains(message), "{spec}: {found:?}");
}

#[test]
fn an_ordinary_machine_is_fine() {
    let found = find(&[(
        "web-1",
        "host: kvm-a, memory: 4Gi, maxMemory: 8192Mi, cpus: 2, maxCpus: 4, cpu: {mode: host-model, topology: {sockets: 1, cores: 4, threads: 1}},
         disks: [{name: root, pool: nfs, size: 20Gi, image: base/debian-12.qcow2, bootOrder: 1},
                 {name: iso, device: cdrom}, {name: data, file: /srv/x.img}],
         interfaces: [{network: default, mac: '52:54:00:00:00:01', bootOrder: 2}],
         xmlPatches: [{op: setText, at: /domain/title, text: x}]",
    )]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_machine_is_in_one_place() {
    expect("host: kvm-a, placement: {}", Code::Contradiction, "spec.placement", "`host` pins");
    let found = find(&[("vm", "memory: 1Gi")]);
    assert_eq!((found[0].code, found[0].path.as_deref()), (Code::MissingField, Some("spec")));
    expect("host: kvm-x", Code::MissingReference, "spec.host", "the Host `kvm-x`, which is not declared");
    expect(
        "placement: {hosts: {matchLabels: {rack: r9}}}",
        Code::MissingReference,
        "spec.placement.hosts",
        "no Host has the labels",
    );
    expect("migrationPolicy: gentle", Code::MissingReference, "spec.migrationPolicy", "the MigrationPolicy `gentle`");
    expect(
        "placement: {migrationPolicy: gentle}",
        Code::MissingReference,
        "spec.placement.migrationPolicy",
        "the MigrationPolicy `gentle`",
    );
    expect(
        "disks: [{name: a, pool: nsf, size: 1Gi}]",
        Code::MissingReference,
        "spec.disks[0].pool",
        "the StoragePool `nsf`, which is not declared",
    );
}

#[test]
fn a_missing_reference_names_what_was_probably_meant() {
    assert_eq!(find(&[("vm", "host: kvm-d, memory: 1Gi")])[0].hint.as_deref(), Some("did you mean `kvm-a`?"));
}

#[test]
fn a_pool_is_where_its_machine_is() {
    expect(
        "disks: [{name: a, pool: only-b, size: 1Gi}]",
        Code::Conflict,
        "spec.disks[0].pool",
        "not on the host `kvm-a`",
    );
    assert!(
        find(&[(
            "vm",
            "placement: {hosts: {matchLabels: {rack: r1}}}, memory: 1Gi, disks: [{name: a, pool: only-b, size: 1Gi}]"
        )])
        .is_empty()
    );
    let found = find(&[(
        "vm",
        "placement: {hosts: {matchLabels: {rack: r2}}}, memory: 1Gi, disks: [{name: a, pool: only-b, size: 1Gi}]",
    )]);
    assert!(
        found.iter().any(|f| f.code == Code::Conflict && f.message.contains("(`only-b`)") && f.related.len() == 1),
        "{found:#?}"
    );
}

#[test]
fn maintenance_is_a_warning() {
    for spec in ["host: kvm-c", "placement: {hosts: {matchLabels: {rack: r2}}}"] {
        let found = find(&[("vm", &format!("{spec}, memory: 1Gi"))]);
        assert_eq!(
            (found.len(), found[0].code, found[0].severity),
            (1, Code::Conflict, Severity::Warning),
            "{found:#?}"
        );
    }
    let found = find(&[("vm", "placement: {antiAffinity: [tier]}, memory: 1Gi")]);
    assert_eq!((found[0].code, found[0].severity), (Code::Contradiction, Severity::Warning));
}

#[test]
fn cpus_memory_and_firmware_agree() {
    expect("cpus: 4, maxCpus: 2", Code::Contradiction, "spec.cpus", "`maxCpus` is 2");
    expect("memory: 4Gi, maxMemory: 2Gi", Code::Contradiction, "spec.memory", "`maxMemory` is 2Gi");
    expect("memory: 512", Code::WrongValue, "spec.memory", "too little");
    let found = find(&[("vm", "host: kvm-a")]);
    assert_eq!((found[0].code, found[0].path.as_deref()), (Code::MissingField, Some("spec.memory")));
    let topology = "cpu: {mode: host-model, topology: {sockets: 4294967295, cores: 4294967295, threads: 4294967295}}";
    expect(&format!("cpus: 2, {topology}"), Code::Contradiction, "spec.cpu.topology", "up to 2");
    expect("cpu: {mode: custom}", Code::MissingField, "spec.cpu", "needs a `model`");
    expect("cpu: {mode: host-model, model: x}", Code::Contradiction, "spec.cpu.model", "`mode: custom` only");
    expect(
        "cpu: {mode: host-model, features: [{name: vmx}, {name: vmx}]}",
        Code::Contradiction,
        "spec.cpu.features[1]",
        "twice",
    );
    expect("firmware: bios, secureBoot: true", Code::Contradiction, "spec.secureBoot", "UEFI");
}

#[test]
fn names_are_ones_that_libvirt_takes() {
    expect("domainName: a/b", Code::BadName, "spec.domainName", "cannot be the name of a domain");
    expect("formerNames: [vm]", Code::Contradiction, "spec.formerNames[0]", "its name now");
    expect("formerNames: [a, a]", Code::Contradiction, "spec.formerNames[1]", "twice");
    expect("formerNames: [A]", Code::BadName, "spec.formerNames[0]", "not a name");
    expect("uuid: 00000000-0000-0000-0000-000000000000", Code::WrongValue, "spec.uuid", "zeros");
}

#[test]
fn a_disk_is_in_one_place_and_can_be_made() {
    let disk = |fields: &str, code, path: &str, message: &str| {
        expect(&format!("disks: [{{{fields}}}]"), code, &format!("spec.disks[0]{path}"), message);
    };
    disk("name: a", Code::MissingField, "", "nowhere");
    disk("name: a, file: /x, block: /dev/sda", Code::Contradiction, ".block", "`file` and `block`");
    disk("name: a, pool: nfs", Code::MissingField, ".size", "how large");
    disk("name: a, pool: nfs, device: cdrom", Code::MissingField, ".volume", "CD-ROM");
    disk("name: a, pool: nfs, size: 0", Code::WrongValue, ".size", "no size");
    disk("name: a, file: /x, image: y", Code::Contradiction, ".image", "no `pool`");
    disk("name: a, pool: nfs, image: ../../etc/shadow", Code::WrongValue, ".image", "not the name of a volume");
    disk("name: a, pool: nfs, volume: a/b", Code::WrongValue, ".volume", "not the name of a volume");
    disk("name: a, pool: nfs, image: x, backingImage: y", Code::Contradiction, ".backingImage", "not both");
    disk("name: a, pool: nfs, backingImage: y, format: raw", Code::Contradiction, ".format", "`raw`");
    disk("name: a, file: /x, shareable: true, format: qcow2", Code::Contradiction, ".shareable", "`raw`");
    disk("name: a, file: /x, device: cdrom, bus: virtio", Code::Contradiction, ".bus", "`virtio`");
    disk("name: a, file: /x, device: cdrom, readOnly: false", Code::Contradiction, ".readOnly", "written to");
    disk("file: /x", Code::MissingField, ".name", "no name");
    disk("name: A, file: /x", Code::BadName, ".name", "not a name");
}

#[test]
fn devices_of_a_machine_do_not_collide() {
    expect(
        "disks: [{name: a, file: /x}, {name: a, file: /y}]",
        Code::Contradiction,
        "spec.disks[1].name",
        "taken by `spec.disks[0]`",
    );
    let targets = "disks: [{name: a, file: /x, target: vda}, {name: b, file: /y, target: vda}]";
    expect(targets, Code::Contradiction, "spec.disks[1].target", "`vda`");
    let boot = "disks: [{name: a, file: /x, bootOrder: 1}], interfaces: [{network: default, bootOrder: 1}]";
    expect(boot, Code::Contradiction, "spec.interfaces[0].bootOrder", "boot order `1`");
    expect("interfaces: [{model: virtio}]", Code::MissingField, "spec.interfaces[0]", "not connected");
    expect(
        "interfaces: [{network: a, bridge: b}]",
        Code::Contradiction,
        "spec.interfaces[0].bridge",
        "`network` and `bridge`",
    );
    expect("interfaces: [{network: a, mac: '53:54:00:00:00:01'}]", Code::WrongValue, "spec.interfaces[0].mac", "group");
    expect("serials: [{type: file, path: x}]", Code::WrongValue, "spec.serials[0].path", "begin with `/`");
    expect("rng: {device: /etc/passwd}", Code::WrongValue, "spec.rng.device", "`/dev/`");
    expect("tpm: {model: x}", Code::WrongValue, "spec.tpm.model", "`x`");
    expect("kernel: {image: /k, initrd: i}", Code::WrongValue, "spec.kernel.initrd", "`/`");
}

#[test]
fn xml_is_a_domain() {
    expect("xml: {}", Code::MissingField, "spec.xml", "neither");
    expect("xml: {inline: '<domain>'}", Code::BadXml, "spec.xml.inline", "cannot be read");
    expect("xml: {inline: '<pool/>'}", Code::BadXml, "spec.xml.inline", "a `pool`, not a `domain`");
    expect(
        "xml: {inline: '<!DOCTYPE x [<!ENTITY a \"b\">]><domain/>'}",
        Code::BadXml,
        "spec.xml.inline",
        "cannot be read",
    );
    expect("xmlPatches: [{op: remove, at: '/domain/devices['}]", Code::BadXml, "spec.xmlPatches[0]", "not a selector");
    expect("xmlPatches: [{op: remove, at: '/network/x'}]", Code::BadXml, "spec.xmlPatches[0]", "`/domain`");
    expect("xmlPatches: [{op: add, at: /domain, xml: '<a>'}]", Code::BadXml, "spec.xmlPatches[0]", "not XML");
    assert!(find(&[("vm", "host: kvm-a, xml: {inline: '<domain/>'}")]).is_empty());
}

/// The one finding about machines `a` and `b`, both on `kvm-a`.
fn pair(a: &str, b: &str) -> Option<Finding> {
    let with = |spec: &str| {
        format!(
            "memory: 1Gi, {}{spec}",
            if spec.contains("host:") || spec.contains("placement:") { "" } else { "host: kvm-a, " }
        )
    };
    let mut found = find(&[("a", &with(a)), ("b", &with(b))]);
    assert!(found.len() <= 1, "{found:#?}");
    found.pop().inspect(|f| assert_eq!((f.code, f.related.len()), (Code::Conflict, 1), "{f:?}"))
}

#[test]
fn what_identifies_a_machine_is_its_own() {
    let mac = "interfaces: [{network: n, mac: '52:54:00:00:00:01'}]";
    assert!(pair(mac, mac).unwrap().message.contains("MAC address `52:54:00:00:00:01` is taken by `a`"));
    let uuid = "uuid: 6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    assert!(pair(uuid, uuid).unwrap().message.contains("UUID"));
    assert!(pair("domainName: x", "domainName: x").unwrap().message.contains("libvirt name `x`"));
    assert!(pair("", "domainName: a").unwrap().message.contains("libvirt name `a`"));
    assert!(pair("", "formerNames: [a]").unwrap().message.contains("a machine of its own"));
    assert!(pair("formerNames: [x]", "formerNames: [x]").unwrap().message.contains("former name `x`"));
}

#[test]
fn two_machines_do_not_write_to_one_disk() {
    let file = "disks: [{name: d, file: /srv/x.img}]";
    assert!(pair(file, file).unwrap().message.contains("the disk `d` of `a` is the same storage"));
    assert_eq!(pair(file, &format!("host: kvm-b, {file}")), None, "another host's file is another file");
    assert!(pair(file, &format!("placement: {{}}, {file}")).is_some(), "the placement may choose the same host");
    let shared = "disks: [{name: d, pool: nfs, volume: v}]";
    assert!(pair(shared, &format!("host: kvm-b, {shared}")).is_some(), "a shared pool is the same storage everywhere");
    let local = "disks: [{name: d, pool: local, volume: v.img}]";
    assert_eq!(pair(local, &format!("host: kvm-b, {local}")), None);
    assert!(pair(local, "disks: [{name: d, file: /local/v.img}]").is_some(), "a pool's volume by its path");
    for both in ["readOnly: true", "shareable: true", "device: cdrom"] {
        let disk = format!("disks: [{{name: d, file: /srv/x.img, {both}}}]");
        assert_eq!(pair(&disk, &disk), None, "{both}");
        assert!(pair(&disk, file).is_some(), "one of them wants it alone");
    }
    let own = find(&[("a", "host: kvm-a, memory: 1Gi, disks: [{name: d, file: /x}, {name: e, file: /x}]")]);
    assert!(own[0].message.contains("the disk `d` of this machine"));
}

#[test]
fn names_that_are_put_together_can_meet() {
    let found = find(&[
        ("a", "host: kvm-a, memory: 1Gi, disks: [{name: b-c, pool: nfs, size: 1Gi}]"),
        ("a-b", "host: kvm-a, memory: 1Gi, disks: [{name: c, pool: nfs, size: 1Gi}]"),
    ]);
    assert_eq!((found.len(), found[0].code), (1, Code::Conflict), "{found:#?}");
}

#[test]
fn nobody_writes_to_a_backing_image() {
    let overlay = "disks: [{name: d, pool: nfs, backingImage: base.qcow2}]";
    assert!(
        pair(overlay, "disks: [{name: d, pool: nfs, volume: base.qcow2}]")
            .unwrap()
            .message
            .contains("backing image of a disk of `a`")
    );
    assert_eq!(pair(overlay, "disks: [{name: d, pool: nfs, volume: base.qcow2, readOnly: true}]"), None);
}

#[test]
fn a_reference_to_a_manifest_with_an_error_is_not_missing() {
    let text = "--- {apiVersion: drover/v1alpha1, kind: Host, metadata: {name: kvm-a}, spec: {uri: 'sim:', typo: 1}}
--- {apiVersion: drover/v1alpha1, kind: VirtualMachine, metadata: {name: vm}, spec: {host: kvm-a, memory: 1Gi}}
--- {apiVersion: drover/v1alpha1, kind: VirtualMachine, metadata: {name: vm2}, spec: {host: kvm-b, memory: 1Gi}}
";
    let check =
        |text: String| load(&MemoryTree::new().with("a.yaml", text), Revision::default(), &Limits::default()).findings;
    let codes: Vec<Code> = check(text.to_owned()).iter().map(|f| f.code).collect();
    assert_eq!(codes, [Code::UnknownField, Code::MissingReference], "only `kvm-b` is missing for certain");
    let codes: Vec<Code> = check(format!("{text}---\n[unclosed")).iter().map(|f| f.code).collect();
    assert_eq!(codes, [Code::UnknownField, Code::Syntax], "nothing is known to be missing when a document is lost");
}
