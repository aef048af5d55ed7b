//! Daemons and machines that die in a phase of a move that lasts a moment. It is held: by libvirt's hook, which the daemon
//! waits for, and by a file that it waits to write.
//!
//! ```text
//! begin (source) - prepare (destination: hook `migrate`) - perform - finish (destination: writes the definition) -
//! confirm (source: hook `release`)
//! ```

use super::super::moves::ready;
use super::broken::on;
use super::*;
use std::time::Instant;

/// Waits as long as /run/hold says for this operation; libvirt calls it with the machine's definition as input.
const HOOK: &str = "mkdir -p /etc/libvirt/hooks; cat >/etc/libvirt/hooks/qemu <<'HOOK'
#!/bin/sh
cat >/dev/null
[ \"$2 $3\" = \"$(cat /run/hold 2>/dev/null)\" ] || exit 0
: >/run/held
while [ -e /run/hold ]; do sleep 0.05; done
HOOK
chmod 755 /etc/libvirt/hooks/qemu";

/// Waits until something is so, without holding up what goes on.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < SOON, "{what}: not after {SOON:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The daemons have hooks only if they were there when they started.
fn with_hooks(lab: &Lab) {
    for host in ["a", "b"] {
        on(lab, host, HOOK);
        lab.daemon(host, "restart");
    }
}

fn without_hooks(lab: &Lab) {
    for host in ["a", "b"] {
        on(lab, host, "rm -f /etc/libvirt/hooks/qemu /run/hold /run/held");
        lab.daemon(host, "restart");
    }
}

/// Case 72, prepare: the destination makes its half ready, and either daemon dies.
#[test]
fn a_daemon_that_dies_while_the_destination_prepares_leaves_the_machine_where_it_was() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("prepare");
    with_hooks(&lab);
    let uuid = bare(&lab, &vm, &[]);
    let m = migration(&lab, &vm, uuid);
    in_client(&lab, async || {
        for dies in ["b", "a"] {
            let writer = writer();
            ready(&writer, &m).await;
            on(&lab, "b", "rm -f /run/held; echo 'migrate begin' >/run/hold");
            let disturb = async {
                until("the destination prepares", || lab.inside("b", &["test", "-e", "/run/held"]).status.success())
                    .await;
                lab.daemon(dies, "kill");
                on(&lab, "b", "rm /run/hold");
                tokio::time::sleep(Duration::from_secs(1)).await;
                lab.daemon(dies, "start");
            };
            let step = step(SOON);
            let (result, ()) = tokio::join!(act(&writer, &m, &step), disturb);
            let error = result.unwrap_err();
            eprintln!("{dies} dies: {error} / {:?}", error.hint);
            assert!(error.transient, "{error}");
            ready(&writer, &m).await;
            runs_on_alone(&lab, &writer, &m).await;
        }
        let writer = writer();
        arrives(&lab, &writer, &m).await;
    });
    without_hooks(&lab);
}

/// Cases 72 and 73, finish: all of the memory is there, and the destination's daemon, or its QEMU, dies before the machine
/// runs. The source lets it go on.
#[test]
fn a_destination_that_dies_while_it_finishes_leaves_the_machine_where_it_was() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("finish");
    let uuid = bare(&lab, &vm, &[]);
    let m = migration(&lab, &vm, uuid);
    // The daemon writes the definition here first, before it lets the machine run; a pipe without a reader holds it up.
    let pipe = format!("/etc/libvirt/qemu/{}.xml.new", vm.name());
    in_client(&lab, async || {
        for dies in ["daemon", "QEMU"] {
            let writer = writer();
            ready(&writer, &m).await;
            on(&lab, "b", &format!("mkfifo {pipe}"));
            let disturb = async {
                until("the source waits for the destination", || {
                    let state = lab.virsh_ok("a", &["domstate", "--reason", vm.name()]);
                    state == "paused (migrating)"
                })
                .await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                if dies == "daemon" {
                    lab.daemon("b", "kill");
                    on(&lab, "b", &format!("rm {pipe}"));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    lab.daemon("b", "start");
                } else {
                    let killed = lab.inside("b", &["pkill", "-9", "-f", &format!("guest={},", vm.name())]);
                    assert!(killed.status.success(), "{killed:?}");
                    on(&lab, "b", &format!("timeout 5 cat {pipe} >/dev/null || true; rm -f {pipe}"));
                }
            };
            let step = step(SOON);
            let (result, ()) = tokio::join!(act(&writer, &m, &step), disturb);
            let error = result.unwrap_err();
            eprintln!("{dies} dies: {error} / {:?}", error.hint);
            // What the pipe does to the daemon's file is another matter than a daemon that is gone.
            assert!(error.transient || dies == "QEMU", "{error}");
            assert!(error.message.contains("it is running"), "{error}");
            ready(&writer, &m).await;
            runs_on_alone(&lab, &writer, &m).await;
        }
        let writer = writer();
        arrives(&lab, &writer, &m).await;
    });
}

/// Case 72, confirm: the machine runs at the destination, and the source's daemon dies before it has let go of its half.
#[test]
fn a_source_that_dies_while_it_lets_go_leaves_the_machine_at_the_destination_only() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("confirm");
    with_hooks(&lab);
    let uuid = bare(&lab, &vm, &[]);
    let m = Migration { autostart: true, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        ready(&writer, &m).await;
        on(&lab, "a", "echo 'release end' >/run/hold");
        let disturb = async {
            until("the source lets go", || lab.inside("a", &["test", "-e", "/run/held"]).status.success()).await;
            assert_eq!(vm.state("b"), "running");
            lab.daemon("a", "kill");
            on(&lab, "a", "rm /run/hold");
            tokio::time::sleep(Duration::from_secs(1)).await;
            lab.daemon("a", "start");
        };
        let step = step(SOON);
        let (result, ()) = tokio::join!(act(&writer, &m, &step), disturb);
        eprintln!("{result:?}");
        // Whether this attempt or the next one cleans up: the machine is there, and at home there is nothing left of it.
        let begun = Instant::now();
        while let Err(error) = act(&writer, &m, &super::step(SOON)).await {
            assert!(error.transient && begun.elapsed() < SOON, "{error}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(moved(&writer, &m).await.state, RunState::Running);
        assert_eq!(lab.processes(vm.name()), ["b"]);
    });
    without_hooks(&lab);
}
