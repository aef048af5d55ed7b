//! UEFI variables.

use super::*;

#[test]
fn uefi_variables_go_along_only_live() {
    let uefi = || {
        World::new().with(|w| {
            let text = xml("", "").replace(
                "</type></os>",
                "</type><loader type='pflash'>/usr/share/OVMF/CODE.fd</loader><nvram>/var/lib/libvirt/qemu/nvram/web.fd</nvram></os>",
            );
            w.a.domains[0].live_xml = Some(text.clone());
            w.a.domains[0].persistent_xml = Some(text);
        })
    };
    uefi().is(P::Firmware, Unknown, &["/usr/share/OVMF/CODE.fd", "sent with its memory"]);
    uefi().off().is(P::Firmware, Block, &["/var/lib/libvirt/qemu/nvram/web.fd", "stay on `a`"]);
    uefi().off().says(P::Firmware, Treatment::Warn).is(P::Firmware, Warn, &[]);
    uefi().with(|w| w.b.firmware = Some(vec!["/usr/share/OVMF/CODE.fd".into()])).is(P::Firmware, Pass, &[]);
    let shared = "type: dir, target: /var/lib/libvirt/qemu/nvram, shared: true";
    let folder = || pool("dir", "", "/var/lib/libvirt/qemu/nvram", &[]);
    uefi().off().pool(shared, folder(), folder()).is(P::Firmware, Unknown, &["on shared storage"]);
}
