//! What hosts tell of themselves, over a real connection: soon, once a burst, and again after the connection broke.

use super::moves::in_client;
use super::*;
use crate::lab::Lab;
use drover::provider::HostChange;
use drover::provider::libvirt::Watcher;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Listens to hosts of the lab.
fn listen(names: &[&str]) -> (Watcher, UnboundedReceiver<HostChange>) {
    let (send, heard) = unbounded_channel();
    let watcher = Watcher::new(Options::default(), Arc::new(move |change| drop(send.send(change))));
    watcher.follow(&super::moves::uris().into_iter().filter(|(n, _)| names.contains(&n.as_str())).collect());
    (watcher, heard)
}

async fn next(heard: &mut UnboundedReceiver<HostChange>, within: Duration) -> Option<HostChange> {
    timeout(within, heard.recv()).await.ok().flatten()
}

/// Waits until nothing has been told for two seconds.
async fn quiet(heard: &mut UnboundedReceiver<HostChange>) {
    while next(heard, Duration::from_secs(2)).await.is_some() {}
}

/// Does something by hand until it is told: after a connection was opened nobody says when it is registered.
async fn until_told(lab: &Lab, heard: &mut UnboundedReceiver<HostChange>, vm: &str) {
    for _ in 0..30 {
        lab.virsh_ok("a", &["suspend", vm]);
        lab.virsh_ok("a", &["resume", vm]);
        if next(heard, Duration::from_secs(1)).await.is_some() {
            return quiet(heard).await;
        }
    }
    panic!("nothing is told");
}

#[test]
fn a_guest_that_is_destroyed_by_hand_is_told_of_within_two_seconds_also_after_the_daemon_died() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("told");
    vm.define("a", &["boot=none", "mem=64"]);
    vm.start("a");
    in_client(&lab, async || {
        let (watcher, mut heard) = listen(&["a"]);
        until_told(&lab, &mut heard, vm.name()).await;

        let done = Instant::now();
        lab.virsh_ok("a", &["destroy", vm.name()]);
        let change = next(&mut heard, Duration::from_secs(2)).await.expect("nothing was told of the destroy");
        println!("destroy: told after {:?}", done.elapsed());
        assert_eq!(change.host, "a");
        assert_eq!(next(&mut heard, Duration::from_secs(2)).await, None, "one burst is one change");

        // The daemon dies: told at once. While it is away nothing more is told; when it is back, that is.
        let killed = Instant::now();
        lab.daemon("a", "kill");
        next(&mut heard, Duration::from_secs(5)).await.expect("nothing was told of the broken connection");
        println!("kill: told after {:?}", killed.elapsed());
        assert_eq!(next(&mut heard, Duration::from_secs(3)).await, None);
        let started = Instant::now();
        lab.daemon("a", "start");
        next(&mut heard, Duration::from_secs(15)).await.expect("nothing was told of the daemon's return");
        println!("start: told after {:?}", started.elapsed());

        // And events come as before.
        quiet(&mut heard).await;
        let done = Instant::now();
        lab.virsh_ok("a", &["start", vm.name()]);
        next(&mut heard, Duration::from_secs(4)).await.expect("nothing was told of the start");
        println!("start of the guest: told after {:?}", done.elapsed());
        quiet(&mut heard).await;
        lab.virsh_ok("a", &["destroy", vm.name()]);
        next(&mut heard, Duration::from_secs(2)).await.expect("nothing was told of the second destroy");

        drop(watcher);
        assert_eq!(timeout(Duration::from_secs(5), heard.recv()).await, Ok(None), "the watcher's end ends its tasks");
    });
}

#[test]
fn a_dead_link_is_noticed_and_made_good_and_a_move_tells_few_changes() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("burst");
    vm.define("a", &["boot=none", "mem=64"]);
    vm.start("a");
    in_client(&lab, async || {
        let (_watcher, mut heard) = listen(&["a", "b"]);
        until_told(&lab, &mut heard, vm.name()).await;
        let flags = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource"];
        lab.virsh_ok("a", &[&flags[..], &[vm.name(), &lab.uri("b")]].concat());
        let mut hosts = BTreeMap::new();
        while let Some(change) = next(&mut heard, Duration::from_secs(3)).await {
            *hosts.entry(change.host).or_insert(0) += 1;
        }
        assert!(hosts.keys().eq(["a", "b"]) && hosts.values().all(|n| *n <= 3), "{hosts:?}");

        // Nobody says goodbye: keepalive finds out.
        let cut = Instant::now();
        lab.cut("b");
        let change = next(&mut heard, Duration::from_secs(45)).await.expect("a dead link was not noticed");
        println!("cut: told after {:?}", cut.elapsed());
        assert_eq!(change.host, "b");
        // The other host is listened to as before.
        let other = lab.guest("other");
        other.define("a", &["boot=none", "mem=64"]);
        assert_eq!(next(&mut heard, Duration::from_secs(2)).await.map(|c| c.host).as_deref(), Some("a"));
        lab.heal("b");
        let change = next(&mut heard, Duration::from_secs(60)).await.expect("the link's return was not noticed");
        assert_eq!(change.host, "b");
    });
}
