//! Moves of machines that are off.

use super::*;
use drover::action::{Backing, MigratedVolume};
use std::sync::atomic::{AtomicBool, Ordering};

/// Cases 2, 3, 4, 6 and 28.
#[test]
fn a_machine_that_is_off_moves_by_either_way_and_over_its_old_definition() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("off");
    let uuid = bare(&lab, &vm, &[]);
    let off = Migration { way: MigrationWay::Offline, autostart: true, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        // libvirt would take it while it runs, and leave a second copy that can be started.
        assert!(refusal(&writer, &moving(&off)).await.contains("a move while off was planned"));
        let error = act(&writer, &off, &step(SOON)).await.unwrap_err();
        assert!(error.message.contains("a move while off was planned") && !error.transient, "{error}");
        runs_on_alone(&lab, &writer, &migration(&lab, &vm, uuid)).await;
        lab.virsh_ok("a", &["destroy", vm.name()]);

        let there = arrives(&lab, &writer, &Migration { control: Control::PeerToPeer, ..off.clone() }).await;
        assert_eq!(there.state, RunState::Off);
        // Back by Drover's own connections, to where somebody has left an old definition of it.
        vm.define("a", &["boot=none", "mem=96", &format!("meta={}", owner_xml(&mark(vm.name())))]);
        arrives(&lab, &writer, &Migration { control: Control::Managed, ..back(&lab, &off) }).await;
        let xml = lab.virsh_ok("a", &["dumpxml", "--inactive", vm.name()]);
        assert!(xml.contains(&format!(">{}<", 64 << 10)), "the old definition has stayed: {xml}");
        // How memory travels is of no matter to a machine that has none: libvirt would refuse each of these.
        let tuning = Tuning {
            tunnelled: true,
            tls: true,
            compression: Some("zstd".into()),
            at_timeout: AtTimeout::PostCopy,
            ..Tuning::default()
        };
        arrives(&lab, &writer, &Migration { tuning, parallel: Some(2), ..off.clone() }).await;
    });
}

/// Case 7: libvirt moves the definition, and the image stays behind; the machine then boots and has lost what it did.
#[test]
fn a_machine_with_a_saved_memory_image_does_not_move_without_it() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("saved");
    let uuid = bare(&lab, &vm, &[]);
    let m = Migration { way: MigrationWay::Offline, ..migration(&lab, &vm, uuid) };
    lab.virsh_ok("a", &["managedsave", vm.name()]);
    in_client(&lab, async || {
        let writer = writer();
        assert!(refusal(&writer, &moving(&m)).await.contains("managed save"));
        let error = act(&writer, &m, &step(SOON)).await.unwrap_err();
        assert!(error.message.contains("managed save") && !error.transient, "{error}");
        let here = domain(&writer, "a", uuid).await.unwrap();
        assert_eq!((here.state, here.managed_save), (RunState::Off, true));
        assert!(domain(&writer, "b", uuid).await.is_none(), "the destination has something of it");
        lab.virsh_ok("a", &["managedsave-remove", vm.name()]);
        arrives(&lab, &writer, &m).await;
    });
}

/// Asserts that a machine that is off is where it was, and that nothing of it or of its disk is at the destination.
#[track_caller]
fn stayed_off(lab: &Lab, vm: &Guest) {
    assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("shut off", "absent"));
    let names = std::fs::read_dir(lab.local_folder("b")).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = names.filter(|n| n.to_string_lossy().starts_with(&format!("{}.", vm.name()))).collect();
    assert!(left.is_empty(), "left on b: {left:?}");
}

/// Case 39, of a machine that is off: its file is copied as it is, and with it the path of the image below. Whatever lies
/// there becomes part of the disk.
#[test]
fn an_overlay_finds_the_same_image_below_it_or_does_not_move() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("overlay-off");
    let base = |host: &str| lab.local_folder(host).join(format!("{}-base.img", vm.name()));
    let (base_path, path) = (format!("/srv/local/{}-base.img", vm.name()), format!("/srv/local/{}.img", vm.name()));
    std::fs::write(base("a"), vec![9; 8 << 20]).unwrap();
    let make = format!(
        "qemu-img create -q -f qcow2 -b {base_path} -F raw {path} && qemu-io -f qcow2 -c 'write -P 5 1M 1M' {path}"
    );
    let made = lab.inside("a", &["sh", "-c", &make]);
    assert!(made.status.success(), "{made:?}");
    let uuid = bare(&lab, &vm, &[&format!("disk={path}"), "fmt=qcow2"]);
    lab.virsh_ok("a", &["destroy", vm.name()]);
    let backing = Backing { path: base_path.clone(), format: "raw".into(), capacity: 8 << 20 };
    let volume = MigratedVolume { format: "qcow2".into(), backing: Some(backing), ..copied(&vm, 8) };
    let m = Migration { way: MigrationWay::Offline, copy: vec![volume.clone()], ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        let refused = async |m: &Migration, words: &str| {
            let error = act(&writer, m, &step(SOON)).await.unwrap_err();
            eprintln!("{error} / {:?}", error.hint);
            assert!(error.message.contains(words) && !error.transient, "{error}");
            stayed_off(&lab, &vm);
        };
        // None there, and another one.
        refused(&m, &base_path).await;
        std::fs::write(base("b"), vec![9; 4 << 20]).unwrap();
        refused(&m, "is not the image that volume").await;
        std::fs::write(base("b"), vec![9; 8 << 20]).unwrap();
        // It was laid over an image after the plan was made, so nobody has compared that.
        let unaware = MigratedVolume { backing: None, ..volume.clone() };
        refused(&Migration { copy: vec![unaware], ..m.clone() }, "of which the plan knows nothing").await;
        arrives(&lab, &writer, &m).await;
    });
    let read = format!("qemu-io -r -f qcow2 -c 'read -P 9 0 1M' -c 'read -P 5 1M 1M' -c 'read -P 9 2M 6M' {path}");
    let read = lab.inside("b", &["sh", "-c", &read]);
    let said = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success() && !said.contains("failed"), "another content: {said}");
}

/// A copy that somebody wrote into meanwhile is of no one moment, and no disk to start from.
#[test]
fn a_disk_that_is_written_to_while_it_is_copied_keeps_its_machine_here() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("touched");
    let disk = vm.local_disk("a", 64);
    let image = lab.local_folder("a").join(format!("{}.img", vm.name()));
    std::fs::write(&image, vec![7; 64 << 20]).unwrap();
    let uuid = bare(&lab, &vm, &[&format!("disk={disk}")]);
    lab.virsh_ok("a", &["destroy", vm.name()]);
    let m = Migration { way: MigrationWay::Offline, copy: vec![copied(&vm, 64)], ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        // As a machine does that is started and stopped again.
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let file = std::fs::OpenOptions::new().write(true).open(&image).unwrap();
        let writes = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                std::os::unix::fs::FileExt::write_all_at(&file, &[7], 0).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let result = act(&writer, &m, &step(SOON)).await;
        over.store(true, Ordering::Relaxed);
        writes.join().unwrap();
        let error = result.unwrap_err();
        eprintln!("{error} / {:?}", error.hint);
        assert!(error.message.contains("written to while they were copied") && error.hint.is_some(), "{error}");
        stayed_off(&lab, &vm);
        arrives(&lab, &writer, &m).await;
    });
    let there = std::fs::read(lab.local_folder("b").join(format!("{}.img", vm.name()))).unwrap();
    assert!(there.len() == 64 << 20 && there.iter().all(|b| *b == 7), "the copy differs");
}
