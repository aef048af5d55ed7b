//! Who drives a migration, and what it is told while it runs.

use super::moves::{act, born, in_client, local_pool, migration, moved, slow, stayed, while_under_way, writer};
use super::*;
use crate::lab::Lab;
use drover::action::{Backing, Control, MigratedVolume, Migration, MigrationWay, Order, Tuning};
use drover::observed::RunState;
use drover::provider::Orders;
use std::time::SystemTime;

/// Drover drives the move itself where it is told to, and where the source's daemon has no way to the destination's.
#[test]
fn a_move_is_driven_by_the_hosts_or_by_drover() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("managed");
    let uuid = born(&lab, &vm, "a", &["mem=160", "dirty=8", "rate=4"]);
    vm.wait_beats(10);
    let since = SystemTime::now();
    let nowhere = "qemu+tcp://nowhere.invalid/system";
    let nobody_listens = "qemu+tcp://10.77.0.2:1/system";
    in_client(&lab, async || {
        let writer = writer();
        // What the page cache holds is free for guests.
        let host = observe(&writer, "a").await;
        let free = lab.virsh_ok("a", &["freecell"]);
        let free: u64 = free.split_whitespace().find_map(|w| w.parse().ok()).unwrap();
        assert!(free * 1024 < host.free_memory + (64 << 20) && host.free_memory <= host.memory, "{host:?} {free}");
        let to_b = migration(&lab, &vm, uuid);
        // Told to go from daemon to daemon, and there is no way: it stays, and the reason is said.
        let m = Migration { destination_uri: nowhere.into(), control: Control::PeerToPeer, ..to_b.clone() };
        let error = act(&writer, &m, &step(Duration::from_secs(60))).await.unwrap_err();
        assert!(error.message.contains("nowhere.invalid"), "{error}");
        stayed(&writer, &m).await;
        let mut here = ["a", "b"];
        for (control, uri) in [
            (Control::Managed, nowhere.to_owned()),
            (Control::Auto, nowhere.to_owned()),
            (Control::Auto, nobody_listens.to_owned()),
            (Control::PeerToPeer, lab.uri("a")),
        ] {
            let [from, to] = here.map(str::to_owned);
            let m = Migration { from, to, destination_uri: uri.clone(), control, ..to_b.clone() };
            act(&writer, &m, &step(Duration::from_secs(120)))
                .await
                .unwrap_or_else(|e| panic!("{control:?} {uri}: {e}"));
            assert_eq!(moved(&writer, &m).await.state, RunState::Running, "{control:?} {uri}");
            here.reverse();
        }
    });
    vm.wait_beats(5);
    assert_eq!(vm.gap(since).back, 0);
}

#[test]
fn a_machine_that_is_off_moves_over_drovers_own_connections() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("managed-off");
    let uuid = born(&lab, &vm, "a", &["boot=none", "mem=64"]);
    lab.virsh_ok("a", &["destroy", vm.name()]);
    let m = Migration {
        way: MigrationWay::Offline,
        control: Control::Managed,
        destination_uri: "qemu+tcp://nowhere.invalid/system".into(),
        ..migration(&lab, &vm, uuid)
    };
    in_client(&lab, async || {
        let writer = writer();
        act(&writer, &m, &step(Duration::from_secs(60))).await.unwrap();
        assert_eq!(moved(&writer, &m).await.state, RunState::Off);
    });
}

/// A migration that would take minutes ends in seconds once it is told of more bandwidth and a longer pause.
#[test]
fn limits_of_a_running_migration_can_be_changed() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("retuned");
    let uuid = slow(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(1), max_downtime_millis: Some(50), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, orders) = (writer(), Orders::default());
        let mut step = step(Duration::from_secs(120));
        step.ctx.orders = orders.of("x");
        let read = |what: &str| lab.virsh_ok("a", &[what, vm.name()]);
        let limits = |downtime, speed: Option<&str>| {
            let seen = (read("migrate-getmaxdowntime"), read("migrate-getspeed"));
            if seen.0 == downtime && speed.is_none_or(|s| s == seen.1) { Ok(()) } else { Err(format!("{seen:?}")) }
        };
        let until = async |downtime, speed| {
            let begun = std::time::Instant::now();
            while let Err(seen) = limits(downtime, speed) {
                assert!(begun.elapsed() < Duration::from_secs(20), "not {downtime} ms and {speed:?} MiB/s: {seen}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let give = |newer: &Migration| orders.give([("x".to_owned(), Order::Limits(Box::new(newer.clone())))].into());
        let result = while_under_way(act(&writer, &m, &step), &step, async || {
            // What it began with, one after the other, and then what lets it end.
            until("50", Some("1")).await;
            let longer = Migration { max_downtime_millis: Some(2_000), ..m.clone() };
            give(&longer);
            until("2000", Some("1")).await;
            give(&Migration { max_downtime_millis: None, ..m.clone() });
            until("300", Some("1")).await;
            give(&Migration { bandwidth_mib: Some(2), ..longer.clone() });
            until("2000", Some("2")).await;
            give(&Migration { bandwidth_mib: Some(300), ..longer });
            tokio::time::sleep(Duration::from_millis(600)).await;
        });
        tokio::time::timeout(Duration::from_secs(40), result).await.expect("it goes on as slowly as it began").unwrap();
        assert_eq!(moved(&writer, &m).await.state, RunState::Running);
    });
}

#[test]
fn a_running_migration_that_is_not_wanted_any_more_is_aborted() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("unwanted");
    let uuid = slow(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(1), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, orders) = (writer(), Orders::default());
        let mut step = step(Duration::from_secs(120));
        step.ctx.orders = orders.of("x");
        let result = while_under_way(act(&writer, &m, &step), &step, async || {
            orders.give([("x".to_owned(), Order::Abort { why: "the manifest says `a` again".into() })].into());
        });
        let error = result.await.unwrap_err();
        assert!(
            error.message.contains("not wanted any more: the manifest says `a` again, so it was aborted"),
            "{error}"
        );
        assert!(!error.transient, "it would be tried again");
        stayed(&writer, &m).await;
    });
    vm.wait_beats(3);
}

/// Past the switch to post-copy there is no way back: it goes on, and that is said.
#[test]
fn a_migration_in_post_copy_is_not_aborted() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("no-return");
    let uuid = born(&lab, &vm, "a", &["dirty=96", "rate=60", "mem=192"]);
    vm.wait_beats(10);
    let tuning = Tuning { post_copy_bandwidth_mib: Some(8), ..Tuning::default() };
    let m = Migration {
        bandwidth_mib: Some(20),
        post_copy_after_millis: Some(2_000),
        tuning,
        ..migration(&lab, &vm, uuid)
    };
    in_client(&lab, async || {
        let (writer, orders) = (writer(), Orders::default());
        let mut step = step(Duration::from_secs(120));
        step.ctx.orders = orders.of("x");
        let action = act(&writer, &m, &step);
        tokio::pin!(action);
        let in_post_copy = || step.heard.lock().unwrap().iter().any(|p| p.phase == "post-copy");
        while !in_post_copy() {
            tokio::select! {
                result = &mut action => panic!("it ended before post-copy: {result:?}"),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        orders.give([("x".to_owned(), Order::Abort { why: "the manifest says `a` again".into() })].into());
        action.await.unwrap();
        assert_eq!(moved(&writer, &m).await.state, RunState::Running);
    });
    vm.wait_beats(3);
}

/// Only what lies above the backing image travels; the destination has the backing image already.
#[test]
fn a_disk_over_a_backing_image_is_copied_incrementally() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("incremental");
    let (base, image) = (format!("{}-base.img", vm.name()), format!("{}.img", vm.name()));
    // Data that no copy could leave out.
    let bytes: Vec<u8> = (0..24_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
    for host in ["a", "b"] {
        std::fs::write(lab.local_folder(host).join(&base), &bytes).unwrap();
    }
    let (base_path, path) = (format!("/srv/local/{base}"), format!("/srv/local/{image}"));
    let made = lab.inside("a", &["qemu-img", "create", "-q", "-f", "qcow2", "-b", &base_path, "-F", "raw", &path]);
    assert!(made.status.success(), "{made:?}");
    let uuid = born(&lab, &vm, "a", &[&format!("disk={path}"), "fmt=qcow2", "drate=256", "mem=160"]);
    vm.wait_beats(20);
    let volume = MigratedVolume {
        target: "vda".into(),
        pool: "local".into(),
        volume: image.clone(),
        path: path.clone(),
        to_pool: "local".into(),
        capacity: 24 << 20,
        format: "qcow2".into(),
        backing: Some(Backing { path: base_path.clone(), format: "raw".into(), capacity: 24 << 20 }),
    };
    let m = Migration { copy: vec![volume], incremental: true, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        local_pool(&writer, "a").await;
        local_pool(&writer, "b").await;
        // Another image at the backing image's place is not written over, and nothing is laid over it.
        std::fs::write(lab.local_folder("b").join(&base), &bytes[..1 << 20]).unwrap();
        let error = act(&writer, &m, &step(Duration::from_secs(60))).await.unwrap_err();
        assert!(error.message.contains("is not the image that volume"), "{error}");
        stayed(&writer, &m).await;
        std::fs::write(lab.local_folder("b").join(&base), &bytes).unwrap();
        act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap();
        moved(&writer, &m).await;
        let there = observe(&writer, "b").await.pools["local"].volumes[&image].clone();
        assert_eq!(there.backing.as_deref(), Some(base_path.as_str()), "{there:?}");
        assert!(there.allocation < 16 << 20, "the backing image was copied, too: {there:?}");
    });
    vm.wait_beats(5);
    lab.virsh_ok("b", &["destroy", vm.name()]);
    let flat = format!("/srv/local/{}-flat.img", vm.name());
    let out = lab.inside("b", &["qemu-img", "convert", "-O", "raw", &path, &flat]);
    assert!(out.status.success(), "{out:?}");
    let check = vm.check_disk(&lab.local_folder("b").join(format!("{}-flat.img", vm.name())));
    assert!(check.complete && check.blocks > 10, "{check:?}");
}

/// After a move the network learns at once where the machine is, and nothing is found wrong with it.
#[test]
fn a_machine_that_has_moved_is_announced_to_its_network() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("announced");
    let uuid = born(&lab, &vm, "a", &["boot=none", "mem=64", "net=1"]);
    let listing = lab.virsh_ok("a", &["domiflist", vm.name()]);
    let mac = listing.split_whitespace().last().unwrap().to_owned();
    // Reverse ARP requests (EtherType 0x8035) are how QEMU announces a guest that arrives.
    let listen = format!(
        "import socket,time\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(0x8035))\ns.bind(('br0',0))\n\
         s.settimeout(40)\nprint('ready',flush=True)\nend=time.time()+40\nwhile time.time()<end:\n \
         f=s.recv(2000)\n if f[6:12]==bytes.fromhex('{}'): print('heard'); break\n",
        mac.replace(':', "")
    );
    let heard = std::thread::scope(|scope| {
        let listener = scope.spawn(|| lab.inside("b", &["python3", "-c", &listen]));
        std::thread::sleep(Duration::from_secs(1));
        in_client(&lab, async || {
            let (writer, m) = (writer(), migration(&lab, &vm, uuid));
            let step = step(Duration::from_secs(60));
            act(&writer, &m, &step).await.unwrap();
            moved(&writer, &m).await;
            assert_eq!(*step.notes.lock().unwrap(), [] as [Note; 0]);
        });
        listener.join().unwrap()
    });
    let said = String::from_utf8_lossy(&heard.stdout);
    assert!(said.contains("heard"), "{said} {}", String::from_utf8_lossy(&heard.stderr));
}
