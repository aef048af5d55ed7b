//! Whether what is called shared is, and how it is used.

use super::*;

#[test]
fn shared_storage_is_what_comes_from_one_place() {
    let same = || on_nfs("", pool("netfs", NFS, "/images", &["web"]));
    same().is(P::SharedStorage, Pass, &["nfs:/srv on both hosts"]).is(P::Disks, Pass, &["shared pool `p`"]);
    assert!(same().look().copy.is_empty());
    let other = |source: &str| on_nfs("", pool("netfs", source, "/images", &["web"]));
    other("<host name='other'/><dir path='/srv'/>").is(
        P::SharedStorage,
        Block,
        &["server `nfs` on `a`, `other` on `b`"],
    );
    other("<host name='NFS'/><dir path='/srv/'/>").is(P::SharedStorage, Pass, &[]);
    other("<host name='nfs'/><dir path='/else'/>").is(
        P::SharedStorage,
        Block,
        &["source `/srv` on `a`, `/else` on `b`"],
    );
    on_nfs("", pool("dir", "", "/images", &["web"])).is(
        P::SharedStorage,
        Block,
        &["type `netfs` on `a`, `dir` on `b`"],
    );
    same().with(|w| w.b.pools.get_mut("p").unwrap().capacity = GIB).is(P::SharedStorage, Block, &["100Gi", "1Gi"]);
    same().with(|w| w.b.pools.get_mut("p").unwrap().active = false).is(
        P::SharedStorage,
        Unknown,
        &["not started on both"],
    );
    // A folder that both hosts share by other means: the manifest's word, and the sizes.
    let folder = || pool("dir", "", "/images", &["web"]);
    World::new()
        .machine(&disk("/images/web", ""), "")
        .pool("type: dir, target: /images, shared: true", folder(), folder())
        .is(P::SharedStorage, Pass, &["manifest's word", "100Gi"]);
}

/// No marker can be laid into a pool of devices: the storage's own numbers tell, or nobody does.
#[test]
fn devices_are_one_storage_where_their_own_numbers_say_so() {
    let vg = |numbers: &[&str]| {
        let mut vg = pool("logical", "<name>vg0</name>", "/dev/vg0", &["web"]);
        vg.numbers = numbers.iter().map(|n| (*n).to_owned()).collect();
        vg
    };
    let on_lvm = |a: &[&str], b: &[&str]| {
        World::new().machine(&disk("/dev/vg0/web", ""), "").pool(
            "type: logical, source: {name: vg0}, target: /dev/vg0, shared: true",
            vg(a),
            vg(b),
        )
    };
    on_lvm(&["uuid-1", "uuid-2"], &["uuid-1", "uuid-2"]).is(P::SharedStorage, Pass, &["same numbers of LVM's"]);
    on_lvm(&["uuid-1"], &["uuid-9"]).is(P::SharedStorage, Block, &["LVM's or SCSI's own numbers"]);
    on_lvm(&["uuid-1", "uuid-2"], &["uuid-1"]).is(P::SharedStorage, Unknown, &["vgs -o vg_uuid vg0"]);
    on_lvm(&[], &[]).is(P::SharedStorage, Unknown, &["by the manifest's word", "compare `vgs"]);
    on_lvm(&[], &[]).says(P::SharedStorage, Treatment::Require).is(P::SharedStorage, Block, &["compare `vgs"]);
    // A target numbers its units as every other one does: server and name count.
    let lun = |server: &str, number: &str| {
        let source = format!("<host name='{server}'/><device path='iqn.2026-01.com.example:disks'/>");
        let mut lun = pool("iscsi", &source, "/dev/disk/by-path", &["unit:0:0:1"]);
        lun.numbers = [number.to_owned()].into();
        lun
    };
    let on_iscsi = |server: &str, number: &str| {
        World::new().machine(&disk("/dev/disk/by-path/unit:0:0:1", ""), "").pool(
            "type: iscsi, target: /dev/disk/by-path, shared: true",
            lun("san", "1IET"),
            lun(server, number),
        )
    };
    on_iscsi("san", "1IET").is(P::SharedStorage, Pass, &["comes from san"]);
    on_iscsi("other", "1IET").is(P::SharedStorage, Block, &["server `san` on `a`, `other` on `b`"]);
    on_iscsi("san", "2IET").is(P::SharedStorage, Block, &["own numbers"]);
    let raw = || pool("disk", "<device path='/dev/sdb'/>", "/dev", &["sdb1"]);
    World::new()
        .machine(&disk("/dev/sdb1", ""), "")
        .pool("type: disk, source: {devices: [/dev/sdb]}, target: /dev, shared: true", raw(), raw())
        .is(P::SharedStorage, Unknown, &["lsblk -do WWN,SERIAL /dev/sdb"]);
}

#[test]
fn caches_over_shared_storage_are_warned_of() {
    let cached = |driver: &str| on_nfs(driver, pool("netfs", NFS, "/images", &["web"]));
    cached(" cache='none'").is(P::DiskCache, Pass, &["none"]);
    cached(" cache='writeback'").is(P::DiskCache, Warn, &["vda", "writeback"]);
    cached(" cache='unsafe'").says(P::DiskCache, Treatment::Block).is(P::DiskCache, Block, &["unsafe"]);
    cached("").is(P::DiskCache, Pass, &["QEMU's own"]);
    cached("").with(|w| w.a.hypervisor_version = "2.11.0".into()).is(P::DiskCache, Warn, &["default"]);
    cached(" cache='writeback'").off().is(P::DiskCache, Pass, &[]);
}

#[test]
fn nfs_locks_are_told_as_far_as_the_options_tell() {
    let by = |version: &str, options: &str| {
        let protocol = format!("<source><protocol ver='{version}'/>");
        let xml = format!(
            "<fs:mount_opts xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'>{options}</fs:mount_opts></pool>"
        );
        on_nfs("", pool("netfs", NFS, "/images", &["web"])).with(move |w| {
            for host in [&mut w.a, &mut w.b] {
                let pool = host.pools.get_mut("p").unwrap();
                pool.xml = pool.xml.replace("</pool>", &xml);
                if protocol != "<source><protocol ver=''/>" {
                    pool.xml = pool.xml.replace("<source>", &protocol);
                }
            }
        })
    };
    let nolock = "<fs:option name='nolock'/>";
    by("", "").is(P::StorageLocks, Unknown, &["`p` on `a`"]);
    by("3", nolock).is(P::StorageLocks, Pass, &["without NFS locks"]);
    by("", &format!("{nolock}<fs:option name='vers=3'/>")).is(P::StorageLocks, Pass, &[]);
    by("", "<fs:option name='lock'/>").is(P::StorageLocks, Warn, &["with NFS locks"]);
    // Only NFS 3 can do without.
    by("", nolock).is(P::StorageLocks, Unknown, &["its version is not told"]);
    by("4.2", nolock).is(P::StorageLocks, Warn, &["NFS 4.2, whose locks cannot be switched off"]);
}
