//! Media and other files of the host.

use super::*;

#[test]
fn media_and_files_must_be_there() {
    let drive = |policy: &str| {
        World::new().machine(
            &format!(
                "<disk type='file' device='cdrom'><source file='/iso/x.iso'{policy}/><target dev='sda'/><readonly/></disk>"
            ),
            "",
        )
    };
    let iso = "type: dir, target: /iso";
    let has = |files: &[&str]| pool("dir", "", "/iso", files);
    drive("").pool(iso, has(&["x.iso"]), has(&["x.iso"])).is(P::HostPaths, Pass, &["/iso/x.iso"]).is(
        P::Disks,
        Pass,
        &[],
    );
    drive("").pool(iso, has(&["x.iso"]), has(&[])).is(P::HostPaths, Block, &["/iso/x.iso", "pool `p` of `b`"]);
    drive(" startupPolicy='optional'").pool(iso, has(&["x.iso"]), has(&[])).is(P::HostPaths, Warn, &["empty"]);
    drive("").pool("type: dir, target: /iso, shared: true", has(&["x.iso"]), has(&[])).is(
        P::HostPaths,
        Pass,
        &["shared"],
    );
    // In no pool: a live migration looks for itself before it begins, for a machine that is off nobody does.
    drive("").is(P::HostPaths, Unknown, &["cannot be read"]);
    drive("").off().is(P::HostPaths, Block, &["cannot be read"]);
    let files = "<serial type='file'><source path='/logs/web.log'/></serial><console type='file'><source path='/logs/web.log'/></console>
                 <channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channel/agent'/></channel>";
    World::new().machine(files, "").is(P::HostPaths, Unknown, &["serial file /logs/web.log"]);
    let kernel = World::new().with(|w| {
        let text = xml("", "").replace("</type></os>", "</type><kernel>/boot/vmlinuz</kernel></os>");
        w.a.domains[0].live_xml = Some(text);
    });
    kernel.pool("type: dir, target: /boot", pool("dir", "", "/boot", &["vmlinuz"]), pool("dir", "", "/boot", &[])).is(
        P::HostPaths,
        Block,
        &["kernel /boot/vmlinuz"],
    );
}
