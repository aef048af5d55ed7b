//! Where a move goes: names, addresses, ports, and what is in the way at the destination.

use super::*;
use std::time::Instant;

/// Cases 26 and 65.
#[test]
fn a_destination_that_cannot_be_reached_is_named_soon_and_the_machine_stays() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("nowhere");
    let uuid = bare(&lab, &vm, &[]);
    let m = Migration { control: Control::PeerToPeer, ..migration(&lab, &vm, uuid) };
    let uri = |uri: &str| Migration { destination_uri: uri.into(), ..m.clone() };
    let listen = |uri: &str| Migration { listen_uri: Some(uri.into()), ..m.clone() };
    in_client(&lab, async || {
        let writer = writer();
        for (name, m, words) in [
            ("unresolvable", uri("qemu+tcp://nowhere.invalid/system"), "nowhere.invalid"),
            ("nobody has the address", uri("qemu+tcp://10.77.0.99/system"), "10.77.0.99"),
            ("TLS where TCP is spoken", uri("qemu+tls://10.77.0.2:16509/system"), "TLS handshake"),
            ("nobody listens", uri("qemu+tcp://10.77.0.2:1/system"), "nothing listens"),
            ("QEMU where no host is", listen("tcp://10.77.0.99"), "10.77.0.99"),
            ("QEMU beyond every route", listen("tcp://203.0.113.9"), "203.0.113.9"),
        ] {
            let begun = Instant::now();
            let error = fails(&lab, &writer, &m).await;
            eprintln!("{name}: {:?} {error} / {:?}", begun.elapsed(), error.hint);
            assert!(error.message.contains(words) && error.hint.is_some(), "{name}: {error} {:?}", error.hint);
            assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {:?}", begun.elapsed());
        }
        arrives(&lab, &writer, &m).await;
    });
}

/// Case 76: a firewall that swallows what goes to QEMU's port. libvirt's call waits for TCP, and holds its locks meanwhile.
#[test]
fn a_port_that_swallows_everything_costs_time_and_no_machine() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("filtered");
    let uuid = bare(&lab, &vm, &[]);
    // An address that the source sends to and nobody has; and TCP gives up after 15 s in the place of two minutes.
    let retries = "/proc/sys/net/ipv4/tcp_syn_retries";
    let silent =
        format!("cat {retries}; echo 3 >{retries}; ip neigh replace 10.77.0.210 lladdr 02:00:00:00:00:01 dev eth0");
    let before = lab.inside("a", &["sh", "-ec", &silent]);
    assert!(before.status.success(), "{before:?}");
    let m =
        Migration { listen_uri: Some("tcp://10.77.0.210".into()), timeout_millis: 3_000, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let writer = writer();
        let begun = Instant::now();
        let error = fails(&lab, &writer, &m).await;
        eprintln!("{:?} {error} / {:?}", begun.elapsed(), error.hint);
        assert!(error.transient && error.hint.is_some(), "{error}");
        let words = ["so it was aborted", "timed out"];
        assert!(words.iter().any(|w| error.message.contains(w)), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
        arrives(&lab, &writer, &migration(&lab, &vm, uuid)).await;
    });
    let before = String::from_utf8_lossy(&before.stdout).trim().to_owned();
    let loud = format!("echo {before} >{retries}; ip neigh del 10.77.0.210 dev eth0");
    assert!(lab.inside("a", &["sh", "-ec", &loud]).status.success());
}

/// Case 23: two Host manifests, one host.
#[test]
fn a_machine_is_not_moved_to_the_host_that_it_is_on() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("same");
    let uuid = bare(&lab, &vm, &[]);
    let m = migration(&lab, &vm, uuid);
    in_client(&lab, async || {
        // By the manifests.
        let one = hosts(&[("a", "qemu+tcp://10.77.0.1/system"), ("b", "qemu+tcp://10.77.0.1:16509/system")]);
        let confused = Writer::new(one, Options::default());
        let reason = refusal(&confused, &moving(&m)).await;
        assert!(reason.contains("`a` and `b` are one host"), "{reason}");
        let error = act(&confused, &m, &step(SOON)).await.unwrap_err();
        assert!(error.message.contains("are one host") && !error.transient, "{error}");
        // By the address that the source is given.
        let writer = writer();
        let m = Migration { control: Control::PeerToPeer, ..m.clone() };
        for uri in [lab.uri("a"), "qemu:///system".into(), "qemu+tcp://localhost/system".into()] {
            let error = fails(&lab, &writer, &Migration { destination_uri: uri.clone(), ..m.clone() }).await;
            eprintln!("{uri}: {error} / {:?}", error.hint);
            assert!(error.hint.is_some_and(|h| h.contains("one machine") || h.contains("spec.migration")), "{uri}");
        }
    });
}

/// Cases 27 and 28.
#[test]
fn what_is_at_the_destination_already_is_kept_unless_it_is_the_machine_itself() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("taken");
    let uuid = bare(&lab, &vm, &[]);
    let m = migration(&lab, &vm, uuid);
    let other = "7c1f3f0e-58a1-4a53-9a0f-1f63e7f0ab12";
    in_client(&lab, async || {
        let writer = writer();
        vm.define("b", &["boot=none", "mem=64", &format!("uuid={other}")]);
        assert!(refusal(&writer, &moving(&m)).await.contains("another machine is called"));
        let error = act(&writer, &m, &step(SOON)).await.unwrap_err();
        assert!(error.message.contains("another machine is called") && !error.transient, "{error}");
        assert_eq!(lab.virsh_ok("b", &["domuuid", vm.name()]), other, "somebody else's machine is gone");
        assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("running", "shut off"));
        lab.virsh_ok("b", &["undefine", vm.name()]);
        // The same machine, off, and somebody else's.
        vm.define("b", &["boot=none", "mem=64"]);
        assert!(refusal(&writer, &moving(&m)).await.contains("nobody that Drover knows"));
        assert!(act(&writer, &m, &step(SOON)).await.is_err());
        assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("running", "shut off"));
        lab.virsh_ok("b", &["undefine", vm.name()]);
        // The same machine, off, and ours: an old definition.
        vm.define("b", &["boot=none", "mem=96", &format!("meta={}", owner_xml(&mark(vm.name())))]);
        arrives(&lab, &writer, &m).await;
        let xml = lab.virsh_ok("b", &["dumpxml", "--inactive", vm.name()]);
        assert!(xml.contains(&format!(">{}<", 64 << 10)), "the old definition has stayed: {xml}");
    });
}

/// Case 29.
#[test]
fn a_machine_that_runs_on_both_hosts_is_an_alarm_and_nothing_is_done_to_either() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("both");
    let uuid = bare(&lab, &vm, &[]);
    vm.define("b", &["boot=none", "mem=64", &format!("meta={}", owner_xml(&mark(vm.name())))]);
    vm.start("b");
    let m = migration(&lab, &vm, uuid);
    in_client(&lab, async || {
        let writer = writer();
        for m in [m.clone(), Migration { way: MigrationWay::Offline, ..m }] {
            assert!(refusal(&writer, &moving(&m)).await.contains("it runs on both hosts"));
            let error = act(&writer, &m, &step(SOON)).await.unwrap_err();
            assert!(error.message.contains("it runs on both hosts") && !error.transient, "{error}");
            assert!(error.hint.is_some_and(|h| h.contains("which copy is the right one")));
        }
        assert_eq!(lab.processes(vm.name()), ["a", "b"]);
    });
}

/// Case 64: another program has the port that would be next.
#[test]
fn a_port_that_is_taken_is_passed_over() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("port");
    let uuid = bare(&lab, &vm, &[]);
    let m = migration(&lab, &vm, uuid);
    let holder = Holder::of(&lab, "b", 49152..=49153);
    in_client(&lab, async || {
        let writer = writer();
        arrives(&lab, &writer, &m).await;
    });
    drop(holder);
}

/// Holds ports of a host, and lets go of them when dropped.
pub(super) struct Holder<'lab>(&'lab Lab, &'static str, String);

impl<'lab> Holder<'lab> {
    pub(super) fn of(lab: &'lab Lab, host: &'static str, ports: std::ops::RangeInclusive<u16>) -> Self {
        let file = format!("/run/ports-{}.pid", ports.start());
        let (first, end) = (ports.start(), ports.end() + 1);
        let program = format!(
            "import os, signal, socket\n\
             held = []\n\
             for port in range({first}, {end}):\n\
             \x20   s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
             \x20   try: s.bind(('0.0.0.0', port)); s.listen(); held.append(s)\n\
             \x20   except OSError: pass\n\
             if os.fork(): os._exit(0)\n\
             os.setsid(); os.dup2(os.open('/dev/null', os.O_RDWR), 1); os.dup2(1, 2)\n\
             open('{file}', 'w').write(str(os.getpid()))\n\
             signal.pause()"
        );
        let out = lab.inside(host, &["python3", "-c", &program]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        wait_for("the ports are held", Duration::from_secs(10), || {
            if lab.inside(host, &["test", "-s", &file]).status.success() { Ok(()) } else { Err(file.clone()) }
        });
        Self(lab, host, file)
    }
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        let end = format!("kill $(cat {0}); rm {0}", self.2);
        let _ = self.0.inside(self.1, &["sh", "-c", &end]);
    }
}
