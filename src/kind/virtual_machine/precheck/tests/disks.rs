//! Disks that are copied, or cannot be.

use super::*;

#[test]
fn an_image_below_a_shared_disk_must_be_there_too() {
    let chain = |b: &[&str]| {
        let b: Vec<String> = b.iter().map(|s| (*s).to_owned()).collect();
        on_nfs("", pool("netfs", NFS, "/images", &["web"])).with(move |w| {
            w.a.pools.get_mut("p").unwrap().volumes.get_mut("web").unwrap().backing = Some("/base/debian".into());
            w.a.pools.insert("base".into(), pool("dir", "", "/base", &["debian"]));
            let files: Vec<&str> = b.iter().map(String::as_str).collect();
            w.b.pools.insert("base".into(), pool("dir", "", "/base", &files));
        })
    };
    chain(&["debian"]).is(P::Disks, Pass, &[]);
    chain(&[]).is(P::Disks, Block, &["/base/debian", "below"]);
}

/// A file that is copied as it is keeps the image below it by its path: whatever lies there becomes part of the disk.
#[test]
fn a_copied_image_finds_the_same_image_below_it() {
    let overlay = |b: Option<u64>| {
        let mut here = pool("dir", "", "/local", &["web", "base"]);
        here.volumes.get_mut("web").unwrap().backing = Some("/local/base".into());
        let mut there = pool("dir", "", "/local", &["base"]);
        match b {
            Some(capacity) => there.volumes.get_mut("base").unwrap().capacity = capacity,
            None => there.volumes.clear(),
        }
        World::new()
            .machine(&disk("/local/web", ""), "")
            .pool("type: dir, target: /local", here, there)
            .with(|w| w.policy.copy_storage = CopyStorage::All)
    };
    overlay(Some(20 * GIB)).off().is(P::Disks, Pass, &["is copied"]);
    let other = overlay(Some(30 * GIB)).off().is(P::Disks, Block, &["while its machine is off", "/local/base"]);
    assert!(other.look().copy.is_empty());
    overlay(None).off().is(P::Disks, Block, &["in no pool of the destination"]);
    // Live, libvirt makes one image of it.
    let live = overlay(None).is(P::Disks, Pass, &["is copied"]);
    assert_eq!(live.look().copy[0].backing, None);
}

#[test]
fn a_disk_that_is_not_shared_is_copied_or_holds_back() {
    let local = |b: &[&str]| {
        let here = pool("dir", "", "/local", &["web"]);
        World::new().machine(&disk("/local/web", ""), "").pool(
            "type: dir, target: /local",
            here,
            pool("dir", "", "/local", b),
        )
    };
    let copied = |b: &[&str]| local(b).with(|w| w.policy.copy_storage = CopyStorage::All);
    local(&[]).is(P::Disks, Block, &["vda (/local/web)"]);
    local(&[]).says(P::Disks, Treatment::Warn).is(P::Disks, Block, &[]);
    let world = copied(&[]).is(P::Disks, Pass, &["copied: 20Gi"]).is(P::StorageRoom, Pass, &["50Gi free", "takes 5Gi"]);
    assert_eq!(world.look().copy.len(), 1);
    copied(&["web"]).is(P::CopyTarget, Block, &["20Gi", "already"]);
    copied(&["web", "web.drover-incoming"]).is(P::CopyTarget, Pass, &["half a copy"]);
    let full = |w: &mut World| w.b.pools.get_mut("p").unwrap().available = GIB;
    let world = copied(&[]).with(full).is(P::StorageRoom, Block, &["1Gi free", "takes 5Gi"]);
    assert!(world.look().copy.is_empty());
    // A policy that lets it be tried does not leave the disk behind.
    let world = copied(&[]).with(full).says(P::StorageRoom, Treatment::Warn).is(P::StorageRoom, Warn, &[]);
    assert_eq!(world.look().copy.len(), 1);
    copied(&[])
        .with(|w| w.b.pools.get_mut("p").unwrap().active = false)
        .is(P::StorageRoom, Unknown, &["not started"])
        .is(P::CopyTarget, Unknown, &[]);
    // Its definition goes along as it is, with the disk's path in it.
    let elsewhere = |w: &mut World| w.b.pools.get_mut("p").unwrap().target = Some("/other".into());
    let world = copied(&[]).with(elsewhere).is(P::CopyTarget, Block, &["/local on `a`", "/other on `b`", "disk vda"]);
    assert!(world.look().copy.is_empty());
    copied(&[]).with(|w| w.b.pools.get_mut("p").unwrap().target = Some("/local/".into())).is(P::CopyTarget, Pass, &[]);
    // Names prove nothing: the pool is declared on the source only.
    copied(&[]).with(|w| w.resources.storage_pools.get_mut("p").unwrap().spec.hosts = vec!["a".into()]).is(
        P::Disks,
        Block,
        &["in no StoragePool that both"],
    );
    copied(&[]).with(|w| w.policy.copy_disks = Some(vec!["vdb".into()])).is(P::Disks, Block, &["copyDisks"]);
    // Two disks need the room of both.
    let two = disk("/local/web", "") + &disk("/local/db", "").replace("vda", "vdb");
    World::new()
        .machine(&two, "")
        .pool("type: dir, target: /local", pool("dir", "", "/local", &["web", "db"]), pool("dir", "", "/local", &[]))
        .with(|w| {
            w.policy.copy_storage = CopyStorage::All;
            w.b.pools.get_mut("p").unwrap().available = 8 * GIB;
        })
        .is(
            P::StorageRoom,
            Block,
            &["disk vda takes 5Gi", "8Gi free, 5Gi of it for disks before it, disk vdb takes 5Gi"],
        );
}
