//! What is said of a machine that has just moved, and is not well. (Its agent: `agent.rs`.)

use super::moves::{act, born, in_client, migration, moved, moving, while_under_way, writer};
use super::*;
use crate::lab::{Guest, Lab};
use drover::action::Migration;

/// Runs a script on a host, which has to succeed.
#[track_caller]
fn on(lab: &Lab, host: &str, script: &str) {
    let out = lab.inside(host, &["sh", "-ec", script]);
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Serves a disk of 16 MiB on a host's own port, until [`end`].
fn serve(lab: &Lab, vm: &Guest, host: &str) {
    let (name, port) = (vm.name(), vm.port() + 1000);
    on(
        lab,
        host,
        &format!(
            "truncate -s 16M /srv/local/{name}.img
             qemu-nbd --fork --persistent -e 9 -f raw -x disk -p {port} --pid-file=/run/{name}.pid /srv/local/{name}.img"
        ),
    );
}

fn end(lab: &Lab, vm: &Guest, host: &str) {
    let _ = lab.inside(host, &["sh", "-c", &format!("kill -9 $(cat /run/{}.pid)", vm.name())]);
}

/// A disk that answers at home and gives errors there: the machine has moved, stands still, and both is said.
#[test]
fn a_disk_that_cannot_be_written_to_there_is_named() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("unwritable");
    ["a", "b"].iter().for_each(|host| serve(&lab, &vm, host));
    let disk = format!(
        "extra=<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none' error_policy='stop'/>\
         <source protocol='nbd' name='disk'><host name='localhost' port='{}'/></source><target dev='vda' bus='virtio'/></disk>",
        vm.port() + 1000
    );
    let uuid = born(&lab, &vm, "a", &[&disk, "drate=1024", "mem=160", "dirty=48", "rate=2"]);
    let begun = vm.wait_beats(10);
    assert!(begun.writes > 0, "{begun:?}");
    let m = Migration { bandwidth_mib: Some(16), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(Duration::from_secs(120)));
        while_under_way(act(&writer, &m, &step), &step, async || end(&lab, &vm, "b")).await.unwrap();
        moved(&writer, &m).await;
        let notes = step.notes.lock().unwrap().clone();
        let says = |words: &str| notes.iter().any(|n| n.text.contains(words) && !n.hint.is_empty());
        let begins = format!("`{}` has moved to `b`: ", vm.name());
        assert!(notes.iter().all(|n| n.text.starts_with(&begins)), "{notes:?}");
        assert!(says("disk vda cannot be written to since the move: "), "{notes:?}");
        // QEMU stops it; libvirt may be in the middle of letting it run, and then has another word for why it does not.
        assert!(says("it ran before, and is paused ("), "{notes:?}");
        assert!(notes.iter().all(|n| n.hint.contains("free space")), "{notes:?}");
    });
    assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("absent", "paused"));
    end(&lab, &vm, "a");
}

/// Drover died between the machine's arrival and the look at it: the next one cleans up, and looks.
#[test]
fn a_machine_that_had_arrived_already_is_looked_at_all_the_same() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("arrived");
    let uuid = born(&lab, &vm, "a", &["boot=none", "mem=64", "net=1"]);
    let m = Migration { autostart: true, ..migration(&lab, &vm, uuid) };
    let uri = lab.uri("b");
    lab.virsh_ok("a", &["migrate", "--live", "--p2p", "--persistent", "--undefinesource", vm.name(), &uri]);
    // It announces every interface that it has in the first half second, and not this one.
    std::thread::sleep(Duration::from_secs(2));
    let second =
        ["attach-interface", vm.name(), "bridge", "br0", "--model", "virtio", "--mac", "52:54:00:0a:0b:0c", "--live"];
    lab.virsh_ok("b", &second);
    in_client(&lab, async || {
        let writer = writer();
        assert_eq!(look(&writer, &moving(&m)).await.unwrap(), Look::Running, "autostart is still to be set");
        let step = step(Duration::from_secs(60));
        act(&writer, &m, &step).await.unwrap();
        moved(&writer, &m).await;
        let notes = step.notes.lock().unwrap().clone();
        let [Note { text, hint }] = notes.as_slice() else { panic!("{notes:?}") };
        assert!(text.contains("52:54:00:0a:0b:0c") && text.contains("has sent nothing since the move"), "{text}");
        assert!(hint.contains("segment"), "{hint}");
    });
}
