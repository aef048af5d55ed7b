//! Devices of the host, and TPMs.

use super::*;

#[test]
fn devices_of_the_host_hold_a_running_machine_back() {
    let pci =
        "<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x06' slot='0x02' function='0x0'/>
               </source></hostdev>";
    World::new().machine(pci, "").is(P::Devices, Block, &["hostdev (pci) 0000:06:02.0"]);
    World::new().machine(pci, "").off().is(P::Devices, Warn, &["must have the same"]);
    for (device, word) in [
        (
            "<hostdev mode='subsystem' type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>",
            "c2177883",
        ),
        (
            "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>",
            "vendor 0x1234 product 0xbeef",
        ),
        (
            "<interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x1'/></source></interface>",
            "0000:01:10.1",
        ),
        ("<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>", "vdpa"),
        ("<interface type='vhostuser'><source type='unix' path='/tmp/s0' mode='server'/></interface>", "/tmp/s0"),
        (
            "<filesystem type='mount'><driver type='virtiofs'/><source dir='/x'/><target dir='share'/></filesystem>",
            "share (virtiofs)",
        ),
        ("<filesystem type='mount'><source dir='/x'/><target dir='share'/></filesystem>", "share (9p)"),
        ("<shmem name='glass'><model type='ivshmem-plain'/></shmem>", "shmem glass"),
        ("<disk type='nvme' device='disk'><target dev='vda'/></disk>", "vda (nvme"),
        ("<disk type='vhostuser' device='disk'><target dev='vda'/></disk>", "vda (vhostuser)"),
        ("<smartcard mode='host'/>", "smartcard"),
    ] {
        World::new().machine(device, "").is(P::Devices, Block, &[word]);
    }
    World::new().machine("", "<launchSecurity type='sev'/>").is(P::Devices, Block, &["launchSecurity (sev)"]);
    // The stand-by half of a failover pair is unplugged by libvirt.
    World::new()
        .machine(
            "<interface type='hostdev'><teaming type='transient' persistent='ua-0'/></interface>
             <interface type='bridge'><source bridge='br0'/><teaming type='persistent'/></interface>
             <redirdev bus='usb' type='spicevmc'/><smartcard mode='passthrough' type='spicevmc'/>",
            "",
        )
        .is(P::Devices, Pass, &[]);
    // A network that hands out host devices is one in disguise.
    let pool = || World::new().machine("<interface type='network'><source network='sriov'/></interface>", "");
    pool()
        .with(|w| {
            let state = NetworkState { forward: "hostdev".into(), ..Default::default() };
            w.a.network_states.insert("sriov".into(), state);
        })
        .is(P::Devices, Block, &["sriov"]);
}

#[test]
fn a_tpm_s_state_goes_along_only_live() {
    let tpm =
        |backend: &str| World::new().machine(&format!("<tpm model='tpm-crb'><backend type='{backend}'/></tpm>"), "");
    tpm("emulator").is(P::Tpm, Pass, &["sent with its memory"]);
    tpm("emulator").off().is(P::Tpm, Block, &["stays on `a`"]);
    tpm("emulator").off().says(P::Tpm, Treatment::Ignore).is(P::Tpm, Block, &[]);
    tpm("passthrough").is(P::Tpm, Block, &["device of `a`"]);
    tpm("external").is(P::Tpm, Unknown, &["external"]);
}
