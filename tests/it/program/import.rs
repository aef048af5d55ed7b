//! Machines that are there already: their manifests are written by Drover, the plan after that is empty, and the first
//! change in Git takes one over and moves it.

use super::*;

/// What people have on their hosts besides plain machines; each is defined, none is started.
fn realistic(name: &str, devices: &str, more: &str) -> String {
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>128</memory><vcpu placement='static'>2</vcpu>{more}
         <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/><apic/></features>
         <on_poweroff>destroy</on_poweroff><devices>{devices}<graphics type='vnc' autoport='yes'/>
         <video><model type='vga'/></video><memballoon model='virtio'/></devices></domain>"
    )
}

/// UEFI with variables of its own.
fn firmware(xml: &str, name: &str) -> String {
    let loader = format!(
        "<loader readonly='yes' secure='no' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>
         <nvram template='/usr/share/OVMF/OVMF_VARS.fd'>/var/lib/libvirt/qemu/nvram/{name}_VARS.fd</nvram><boot dev='hd'/>"
    );
    swap(xml, "<boot dev='hd'/>", &loader)
}

/// What libvirt has no word for: arguments of QEMU's own, and somebody's metadata.
fn custom(xml: &str) -> String {
    let arguments = "<metadata><app:note xmlns:app='urn:app'>keep me</app:note></metadata><devices>";
    let passed = "</devices><qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
                  <qemu:env name='TZ' value='UTC'/></qemu:commandline>";
    swap(&swap(xml, "<devices>", arguments), "</devices>", passed)
}

#[test]
fn the_plan_after_an_import_is_empty_and_a_machine_moves_when_its_line_changes() {
    let Some(lab) = Lab::alone() else { return };
    let mut fleet = Fleet::new(&lab, "imported");
    // One that runs, as somebody made it with virsh.
    let vm = fleet.guest("there");
    vm.define("a", &["boot=none", "mem=64"]);
    vm.start("a");
    let number = lab.virsh_ok("a", &["domid", vm.name()]);
    // And a set of others: network disks, host devices, NUMA pinning, two displays' worth of devices, odd names.
    let rbd = "<disk type='network' device='disk'><driver name='qemu' type='raw'/>
        <source protocol='rbd' name='p/i'><host name='mon' port='6789'/></source><target dev='vda' bus='virtio'/></disk>";
    let hostdev = "<hostdev mode='subsystem' type='usb' managed='yes'><source><vendor id='0x1234'/>
        <product id='0xbeef'/></source></hostdev>";
    let disks = "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' io='native'/>
        <source file='/var/tmp/x.img'/><target dev='sda' bus='scsi'/><serial>abc</serial></disk>
        <disk type='file' device='cdrom'><target dev='sdb' bus='sata'/><readonly/></disk>
        <controller type='scsi' model='virtio-scsi'/>
        <interface type='network'><source network='default'/><model type='e1000e'/></interface>
        <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
        <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>";
    let guarded = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>
        <source file='/var/tmp/s.qcow2'/><target dev='vda' bus='virtio'/></disk>";
    let pinned = "<cputune><vcpupin vcpu='0' cpuset='0'/></cputune><title>old one</title>";
    let others = [
        (format!("{}_Rbd", vm.name()), realistic(&format!("{}_Rbd", vm.name()), rbd, "")),
        (format!("{}-usb", vm.name()), realistic(&format!("{}-usb", vm.name()), hostdev, "")),
        (format!("{}-disks", vm.name()), realistic(&format!("{}-disks", vm.name()), disks, pinned)),
        (format!("{}-uefi", vm.name()), firmware(&realistic(&format!("{}-uefi", vm.name()), guarded, ""), vm.name())),
        (format!("{}-own", vm.name()), custom(&realistic(&format!("{}-own", vm.name()), "", ""))),
    ];
    struct Defined<'lab>(&'lab Lab, Vec<String>);
    impl Drop for Defined<'_> {
        fn drop(&mut self) {
            for name in &self.1 {
                let _ = self.0.virsh("a", &["undefine", name, "--nvram", "--snapshots-metadata"]);
            }
        }
    }
    let mut defined = Defined(&lab, Vec::new());
    for (name, xml) in &others {
        let file = fleet.state_folder().join("domain.xml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, xml).unwrap();
        lab.virsh_ok("a", &["define", &file.to_string_lossy()]);
        defined.1.push(name.clone());
    }
    // One has a snapshot: libvirt's note of one is enough for that.
    let (uefi, note) = (format!("{}-uefi", vm.name()), fleet.state_folder().join("snapshot.xml"));
    let uuid = lab.virsh_ok("a", &["domuuid", &uefi]);
    let snapshot = format!(
        "<domainsnapshot><name>before</name><state>shutoff</state><creationTime>1700000000</creationTime>
         <domain type='qemu'><name>{uefi}</name><uuid>{}</uuid><memory>131072</memory>
         <os><type arch='x86_64' machine='q35'>hvm</type></os></domain></domainsnapshot>",
        uuid.trim()
    );
    std::fs::write(&note, snapshot).unwrap();
    lab.virsh_ok("a", &["snapshot-create", &uefi, &note.to_string_lossy(), "--redefine"]);

    let into = fleet.state_folder().join("imported");
    let into = into.to_string_lossy().into_owned();
    let names: Vec<&str> = std::iter::once(vm.name()).chain(others.iter().map(|(n, _)| n.as_str())).collect();
    let hosts: Vec<String> = HOSTS.iter().take(2).map(|h| format!("kvm-{h}={}", lab.uri(h))).collect();
    let mut import: Vec<&str> = vec!["import", "host", &hosts[0], &hosts[1], "-o", &into];
    names.iter().for_each(|name| import.extend(["--vm", *name]));
    let told = fleet.drover(&import).exits(0);
    told.says(&[
        "_Rbd".to_lowercase().replace('_', "-").as_str(),
        "devices/hostdev (usb)",
        "devices/disk (network)",
        "cputune",
    ]);
    fleet.drover(&["validate", &into]).exits(0);
    fleet.drover(&["plan", &into, "--detailed-exitcode"]).exits(0).says(&["No changes."]);
    let xml = lab.virsh_ok("a", &["dumpxml", "--inactive", vm.name()]);
    assert!(!xml.contains("drover:machine"), "an import changes nothing");

    // Its line changes: it is taken over, and moves.
    let manifest = format!("{into}/machines/{}.yaml", vm.name());
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, swap(&text, "host: kvm-a", "host: kvm-b")).unwrap();
    let state = fleet.state_folder().join("apply").to_string_lossy().into_owned();
    fleet
        .drover(&["apply", &into, "--auto-approve", "--state", &state])
        .exits(0)
        .says(&[&format!("adopt {}", vm.name()), "live-migrate"]);
    fleet.runs_only_on(&vm, "b");
    assert!(!number.trim().is_empty());
    fleet.drover(&["plan", &into, "--detailed-exitcode"]).exits(0).says(&["No changes."]);
}
