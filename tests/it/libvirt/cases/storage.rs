//! Disks that move along, and what hinders them.

use super::super::moves::while_under_way;
use super::*;
use drover::action::MigratedVolume;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

fn image(lab: &Lab, vm: &Guest, host: &str) -> PathBuf {
    lab.local_folder(host).join(format!("{}.img", vm.name()))
}

/// A machine on host a whose only disk has 2 MiB of data at the start of 8, and its move with the disk.
fn with_disk(lab: &Lab, vm: &Guest) -> Migration {
    let disk = vm.local_disk("a", 8);
    std::fs::OpenOptions::new()
        .write(true)
        .open(image(lab, vm, "a"))
        .and_then(|mut f| std::io::Write::write_all(&mut f, &[5; 2 << 20]))
        .unwrap();
    let uuid = bare(lab, vm, &[&format!("disk={disk}")]);
    Migration { copy: vec![copied(vm, 8)], delete_source_copies: true, ..migration(lab, vm, uuid) }
}

/// Nothing of a machine's disk, and of its marker, is there.
#[track_caller]
fn no_litter(lab: &Lab, vm: &Guest, host: &str) {
    let names = std::fs::read_dir(lab.local_folder(host)).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = names.filter(|n| n.to_string_lossy().starts_with(vm.name())).collect();
    assert!(left.is_empty(), "left on {host}: {left:?}");
}

/// Cases 33, 34 and 35.
#[test]
fn what_is_at_the_disks_place_is_kept_unless_it_is_half_a_copy() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("place");
    let m = with_disk(&lab, &vm);
    let there = image(&lab, &vm, "b");
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        // No pool.
        let nowhere = MigratedVolume { to_pool: "nowhere".into(), ..copied(&vm, 8) };
        let error = fails(&lab, &writer, &Migration { copy: vec![nowhere], ..m.clone() }).await;
        assert!(error.message.contains("nowhere") && error.hint.is_some() && !error.transient, "{error}");
        no_litter(&lab, &vm, "b");
        // Somebody's images, smaller and larger.
        for mib in [4, 16] {
            std::fs::write(&there, vec![7; mib << 20]).unwrap();
            let error = fails(&lab, &writer, &m).await;
            assert!(error.message.contains("is already in pool `local`") && !error.transient, "{error}");
            assert_eq!(std::fs::metadata(&there).unwrap().len(), (mib as u64) << 20);
        }
        // libvirt still lists the image, and it is not there any more.
        lab.virsh_ok("b", &["pool-refresh", "local"]);
        std::fs::remove_file(&there).unwrap();
        arrives(&lab, &writer, &m).await;
        no_litter(&lab, &vm, "a");
        // Half a copy of another size, of a move that was cut off: made anew.
        let back = back(&lab, &m);
        std::fs::write(image(&lab, &vm, "a"), vec![7; 4 << 20]).unwrap();
        std::fs::write(lab.local_folder("a").join(format!("{}.img.drover-incoming", vm.name())), []).unwrap();
        arrives(&lab, &writer, &back).await;
        no_litter(&lab, &vm, "b");
    });
    let bytes = std::fs::read(image(&lab, &vm, "a")).unwrap();
    assert!(bytes.len() == 8 << 20 && bytes[..2 << 20].iter().all(|b| *b == 5), "the disk is another");
}

/// Case 33: a pool of the name is there, and what is made in it would not be where the machine's definition says.
#[test]
fn a_pool_that_is_elsewhere_there_gets_no_copy() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("elsewhere");
    let name = vm.name().to_owned();
    let place = |host: &str| format!("/srv/local/{name}-{host}");
    for host in ["a", "b"] {
        assert!(lab.inside(host, &["mkdir", &place(host)]).status.success());
    }
    let disk = format!("{}/{name}.img", place("a"));
    std::fs::write(lab.local_folder("a").join(format!("{name}-a/{name}.img")), [5; 1 << 20]).unwrap();
    let uuid = bare(&lab, &vm, &[&format!("disk={disk}")]);
    let volume = MigratedVolume { pool: name.clone(), to_pool: name.clone(), path: disk, ..copied(&vm, 1) };
    let m = Migration { copy: vec![volume], ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        for host in ["a", "b"] {
            pool(&writer, host, &name, &place(host)).await;
        }
        let is_refused = |error: ActError| {
            let there = format!("{}/{name}.img", place("b"));
            assert!(error.message.contains(&there) && !error.transient, "{error}");
            assert!(error.hint.as_ref().is_some_and(|h| h.contains("target path")), "{:?}", error.hint);
            let left = lab.inside("b", &["ls", "-A", &place("b")]);
            assert_eq!(String::from_utf8_lossy(&left.stdout), "", "left behind");
        };
        is_refused(fails(&lab, &writer, &m).await);
        // Off, libvirt would take the definition, and the machine would have no disk.
        lab.virsh_ok("a", &["destroy", &name]);
        let off = Migration { way: MigrationWay::Offline, ..m };
        is_refused(act(&writer, &off, &step(SOON)).await.unwrap_err());
    });
    assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("shut off", "absent"));
    for host in ["a", "b"] {
        lab.virsh_ok(host, &["pool-destroy", &name]);
        lab.virsh_ok(host, &["pool-undefine", &name]);
        assert!(lab.inside(host, &["rm", "-r", &place(host)]).status.success());
    }
}

/// A disk whose holes reach the file below it.
fn sparse(path: &str, target: &str) -> String {
    format!(
        "extra=<disk type='file' device='disk'><driver name='qemu' type='raw' discard='unmap'/><source file='{path}'/>\
         <target dev='{target}' bus='virtio'/></disk>"
    )
}

/// What the source's QEMU says of itself while it sends memory, after the disks: its connections, whether its mirrors are
/// written to together with the disks, and its objects.
async fn sending(lab: &Lab, vm: &Guest<'_>, host: &str) -> (u64, Vec<bool>, String) {
    let ask = |command: &str, arguments: &str| -> serde_json::Value {
        let text = format!("{{\"execute\": \"{command}\"{arguments}}}");
        serde_json::from_str(&lab.virsh_ok(host, &["qemu-monitor-command", vm.name(), &text])).unwrap()
    };
    let begun = std::time::Instant::now();
    while ask("query-migrate", "")["return"]["ram"]["transferred"].as_u64().is_none_or(|bytes| bytes == 0) {
        assert!(begun.elapsed() < SOON, "no memory flows: {}", ask("query-migrate", ""));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let jobs = ask("query-block-jobs", "");
    let synced = jobs["return"].as_array().unwrap().iter().map(|j| j["actively-synced"] == true).collect();
    let parameters = ask("query-migrate-parameters", "");
    let capabilities = ask("query-migrate-capabilities", "");
    let is_on =
        capabilities["return"].as_array().unwrap().iter().any(|c| c["capability"] == "multifd" && c["state"] == true);
    let connections = if is_on { parameters["return"]["multifd-channels"].as_u64().unwrap() } else { 1 };
    let objects = ask("qom-list", ", \"arguments\": {\"path\": \"/objects\"}");
    (connections, synced, objects.to_string())
}

/// Cases 41 and 42: a raw and a qcow2 disk, each way of copying; what was a hole stays one.
#[test]
fn disks_are_copied_by_each_way_and_stay_sparse() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("copied");
    let (first, second) = (format!("{}.img", vm.name()), format!("{}-second.img", vm.name()));
    let path = |file: &str| format!("/srv/local/{file}");
    let make = format!(
        "qemu-img create -q -f qcow2 {0} 64M && qemu-io -f qcow2 -c 'write -P 6 32M 2M' {0} && \
         qemu-img create -q -f raw {1} 64M && qemu-io -f raw -c 'write -P 5 32M 2M' {1}",
        path(&first),
        path(&second)
    );
    let made = lab.inside("a", &["sh", "-c", &make]);
    assert!(made.status.success(), "{made:?}");
    let disk = format!("disk={}", path(&first));
    let uuid = bare(&lab, &vm, &[&disk, "fmt=qcow2", &sparse(&path(&second), "vdb"), "mem=2048"]);
    let copy = [("vda", &first, "qcow2"), ("vdb", &second, "raw")].map(|(target, volume, format)| MigratedVolume {
        target: target.into(),
        volume: volume.clone(),
        path: path(volume),
        format: format.into(),
        ..copied(&vm, 64)
    });
    let mut next = Migration { copy: copy.into(), delete_source_copies: true, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        for (parallel, tuning) in [
            (None, Tuning { tls: true, ..Tuning::default() }),
            (Some(2), Tuning::default()),
            (None, Tuning { synchronous_writes: true, ..Tuning::default() }),
        ] {
            let m = Migration { parallel, tuning, bandwidth_mib: Some(1), ..next.clone() };
            let (step, mut seen) = (step(SOON), None);
            while_under_way(act(&writer, &m, &step), &step, async || {
                seen = Some(sending(&lab, &vm, &m.from).await);
                hurry(&lab, &vm, &m.from);
            })
            .await
            .unwrap();
            moved(&writer, &m).await;
            let (connections, synced, objects) = seen.unwrap();
            assert_eq!(connections, parallel.map_or(1, u64::from), "{:?}", m.tuning);
            assert_eq!(synced, [m.tuning.synchronous_writes; 2], "{:?}", m.tuning);
            assert_eq!(objects.contains("_tls0"), m.tuning.tls, "{:?}: {objects}", m.tuning);
            no_litter(&lab, &vm, &m.from);
            for file in [&first, &second] {
                let taken = std::fs::metadata(lab.local_folder(&m.to).join(file)).unwrap().blocks() * 512;
                assert!((2 << 20..8 << 20).contains(&taken), "{:?}: {file} takes {taken} bytes", m.tuning);
            }
            next = back(&lab, &m);
        }
    });
    lab.virsh_ok("b", &["destroy", vm.name()]);
    let read = format!(
        "qemu-io -r -f qcow2 -c 'read -P 6 32M 2M' {} && qemu-io -r -f raw -c 'read -P 5 32M 2M' {}",
        path(&first),
        path(&second)
    );
    let read = lab.inside("b", &["sh", "-c", &read]);
    let said = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success() && !said.contains("failed"), "another content: {said}");
}

/// Cases 37 and 38: some disks only, and disks that cannot be copied.
#[test]
fn only_disks_that_are_there_and_written_to_are_copied() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("chosen");
    let (local, shared) = (vm.local_disk("a", 8), vm.shared_disk(8));
    let medium = lab.local_folder("a").join(format!("{}-medium.img", vm.name()));
    std::fs::File::create(&medium).unwrap().set_len(1 << 20).unwrap();
    let medium = format!("/srv/local/{}-medium.img", vm.name());
    let cdroms = format!(
        "extra=<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>\
         <disk type='file' device='disk'><source file='{medium}'/><target dev='vdc' bus='virtio'/><readonly/></disk>"
    );
    let uuid = bare(&lab, &vm, &[&format!("disk={local},{shared}"), &cdroms]);
    let m = Migration { copy: vec![copied(&vm, 8)], ..migration(&lab, &vm, uuid) };
    let also = |target: &str, volume: String| {
        let path = format!("/srv/local/{volume}");
        let more = MigratedVolume { target: target.into(), volume, path, ..copied(&vm, 1) };
        Migration { copy: vec![copied(&vm, 8), more], ..m.clone() }
    };
    let read_only = format!("{}-medium.img", vm.name());
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        for (name, m, words) in [
            ("a disk that is not there", also("vdz", read_only.clone()), "vdz"),
            ("a drive without a medium", also("sda", read_only.clone()), "sda"),
            ("a disk that is only read", also("vdc", read_only.clone()), "vdc"),
            ("the disk that is not shared is left out", Migration { copy: vec![], ..m.clone() }, "nsafe"),
        ] {
            let error = fails(&lab, &writer, &m).await;
            eprintln!("{name}: {error} / {:?}", error.hint);
            assert!(error.message.contains(words) && !error.transient, "{name}: {error}");
            no_litter(&lab, &vm, "b");
        }
        // The disk that is only read is there already, and so is the shared one.
        std::fs::write(lab.local_folder("b").join(&read_only), vec![0; 1 << 20]).unwrap();
        arrives(&lab, &writer, &m).await;
    });
    assert!(lab.shared_folder().join(format!("{}.img", vm.name())).exists());
}

/// Case 36: the destination's storage fills up while the disk is copied, and before.
#[test]
fn a_destination_without_room_keeps_nothing_and_the_machine_stays() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("room");
    // The same place on both hosts, with room for the disk on one of them.
    let place = format!("/srv/{}", vm.name());
    for (host, mib) in [("a", 192), ("b", 96)] {
        let mount = format!("mkdir -p {place} && mount -t tmpfs -o size={mib}m tmpfs {place}");
        let mounted = lab.inside(host, &["sh", "-c", &mount]);
        assert!(mounted.status.success(), "{mounted:?}");
    }
    let disk = format!("{place}/{}.img", vm.name());
    let fill = |host: &str, file: &str, mib: u32| {
        lab.inside(host, &["sh", "-c", &format!("yes drover | head -c {mib}M >{file}")])
    };
    assert!(fill("a", &disk, 64).status.success());
    // With its holes kept, QEMU takes no room for it beforehand.
    let uuid = bare(&lab, &vm, &[&sparse(&disk, "vda")]);
    let volume =
        MigratedVolume { pool: vm.name().into(), to_pool: vm.name().into(), path: disk.clone(), ..copied(&vm, 64) };
    let m = Migration { copy: vec![volume], bandwidth_mib: Some(2), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        for host in ["a", "b"] {
            pool(&writer, host, vm.name(), &place).await;
        }
        let is_empty = || {
            let left = lab.inside("b", &["ls", "-A", &place]);
            assert_eq!(String::from_utf8_lossy(&left.stdout), "", "left behind");
        };
        let step = step(SOON);
        let result = while_under_way(act(&writer, &m, &step), &step, async || {
            fill("b", &format!("{place}/somebodys"), 96);
        });
        let error = result.await.unwrap_err();
        eprintln!("{error} / {:?}", error.hint);
        runs_on_alone(&lab, &writer, &m).await;
        assert!(!lab.inside("b", &["test", "-e", &disk]).status.success(), "half a copy is left");
        // Now the room is known not to be there.
        let error = fails(&lab, &writer, &m).await;
        assert!(error.message.contains("bytes left") && error.hint.is_some() && !error.transient, "{error}");
        assert!(lab.inside("b", &["rm", &format!("{place}/somebodys")]).status.success());
        is_empty();
        // Two disks, of which each would fit.
        let second = format!("{}-second.img", vm.name());
        assert!(fill("a", &format!("{place}/{second}"), 64).status.success());
        lab.virsh_ok("a", &["pool-refresh", vm.name()]);
        let off = MigratedVolume { volume: second.clone(), path: format!("{place}/{second}"), ..m.copy[0].clone() };
        let both = Migration { copy: vec![m.copy[0].clone(), off], way: MigrationWay::Offline, ..m.clone() };
        lab.virsh_ok("a", &["destroy", vm.name()]);
        let error = act(&writer, &both, &super::step(SOON)).await.unwrap_err();
        eprintln!("{error} / {:?}", error.hint);
        assert!(error.message.contains("bytes left") && error.hint.is_some() && !error.transient, "{error}");
        is_empty();
        assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("shut off", "absent"));
        arrives(&lab, &writer, &Migration { way: MigrationWay::Offline, ..m }).await;
    });
    for host in ["a", "b"] {
        lab.virsh_ok(host, &["pool-destroy", vm.name()]);
        lab.virsh_ok(host, &["pool-undefine", vm.name()]);
        assert!(lab.inside(host, &["sh", "-c", &format!("umount {place} && rmdir {place}")]).status.success());
    }
}
