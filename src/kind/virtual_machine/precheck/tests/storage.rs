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
    let mounted = |options: &str| {
        let xml = format!(
            "<fs:mount_opts xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'>{options}</fs:mount_opts></pool>"
        );
        on_nfs("", pool("netfs", NFS, "/images", &["web"])).with(move |w| {
            for host in [&mut w.a, &mut w.b] {
                let pool = host.pools.get_mut("p").unwrap();
                pool.xml = pool.xml.replace("</pool>", &xml);
            }
        })
    };
    mounted("").is(P::StorageLocks, Unknown, &["`p` on `a`"]);
    mounted("<fs:option name='nolock'/>").is(P::StorageLocks, Pass, &[]);
    mounted("<fs:option name='lock'/>").is(P::StorageLocks, Warn, &["with NFS locks"]);
}
