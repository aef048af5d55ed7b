//! Hosts, links and configurations that are broken: each of these has the lab to itself.

use super::super::moves::{ready, while_under_way};
use super::network::Holder;
use super::*;
use std::time::Instant;

/// Runs a script on a host, which has to succeed.
#[track_caller]
pub(super) fn on(lab: &Lab, host: &str, script: &str) -> String {
    let out = lab.inside(host, &["sh", "-ec", script]);
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Cases 24 and 25.
#[test]
fn hosts_that_look_like_one_or_like_nobody_get_no_machine() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("lookalike");
    let uuid = bare(&lab, &vm, &[]);
    let m = migration(&lab, &vm, uuid);
    in_client(&lab, async || {
        let writer = writer();
        // A destination that calls itself localhost can only be reached by an address that is given.
        on(&lab, "b", "hostname localhost");
        let error = fails(&lab, &writer, &m).await;
        eprintln!("{error} / {:?}", error.hint);
        assert!(error.hint.is_some_and(|h| h.contains("spec.migration.address")), "{}", error.message);
        arrives(&lab, &writer, &Migration { listen_uri: Some("tcp://10.77.0.2".into()), ..m.clone() }).await;
        on(&lab, "b", "hostname host-b");
        arrives(&lab, &writer, &back(&lab, &m)).await;
    });
    // Two hosts, one UUID: cloned from one image.
    let conf = "/etc/libvirt/libvirtd.conf";
    on(&lab, "b", &format!("cp {conf} /run/kept.conf; sed -i 's/0000000000d2\"/0000000000d1\"/' {conf}"));
    lab.daemon("b", "restart");
    in_client(&lab, async || {
        let writer = writer();
        let error = fails(&lab, &writer, &m).await;
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("host_uuid")), "{error} {:?}", error.hint);
        assert!(!error.transient, "{error}");
        on(&lab, "b", &format!("cp /run/kept.conf {conf}"));
        lab.daemon("b", "restart");
        ready(&writer, &m).await;
        runs_on_alone(&lab, &writer, &m).await;
        arrives(&lab, &writer, &m).await;
    });
}

/// Case 62: what is encrypted needs certificates that fit.
#[test]
fn an_encrypted_move_needs_certificates_that_fit() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("sealed");
    let uuid = bare(&lab, &vm, &[]);
    let plain = migration(&lab, &vm, uuid);
    let m = Migration { tuning: Tuning { tls: true, ..Tuning::default() }, ..plain.clone() };
    in_client(&lab, async || {
        let writer = writer();
        on(&lab, "b", "cp -a /etc/pki/qemu /run/kept-pki");
        // Another issuer.
        on(
            &lab,
            "b",
            "cd /etc/pki/qemu; openssl req -x509 -newkey rsa:2048 -nodes -keyout server-key.pem -out server-cert.pem -days 2 \
             -subj /CN=host-b -addext subjectAltName=DNS:host-b,IP:10.77.0.2 -addext basicConstraints=critical,CA:FALSE \
             2>/dev/null",
        );
        let error = fails(&lab, &writer, &m).await;
        eprintln!("unknown issuer: {error} / {:?}", error.hint);
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("certificate")), "{error} {:?}", error.hint);
        // None.
        on(&lab, "b", "rm /etc/pki/qemu/server-cert.pem");
        let error = fails(&lab, &writer, &m).await;
        eprintln!("missing: {error} / {:?}", error.hint);
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("certificate")), "{error} {:?}", error.hint);
        on(&lab, "b", "cp -a /run/kept-pki/. /etc/pki/qemu");
        // Another name: host a's.
        let other = "/etc/pki/libvirt";
        on(&lab, "a", &format!("cp {other}/servercert.pem /srv/shared/a.pem"));
        on(&lab, "b", "cp /srv/shared/a.pem /etc/pki/qemu/server-cert.pem");
        let error = fails(&lab, &writer, &m).await;
        eprintln!("another name: {error} / {:?}", error.hint);
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("certificate")), "{error} {:?}", error.hint);
        on(&lab, "b", "cp -a /run/kept-pki/. /etc/pki/qemu");
        arrives(&lab, &writer, &m).await;
        // A host that demands it.
        on(
            &lab,
            "b",
            "cp /etc/libvirt/qemu.conf /run/kept-qemu.conf; echo 'migrate_tls_force = 1' >>/etc/libvirt/qemu.conf",
        );
        lab.daemon("b", "restart");
        let home = back(&lab, &plain);
        ready(&writer, &home).await;
        let error = fails(&lab, &writer, &home).await;
        eprintln!("forced: {error} / {:?}", error.hint);
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("transport: Tls")), "{error} {:?}", error.hint);
        arrives(&lab, &writer, &back(&lab, &m)).await;
        on(&lab, "b", "cp /run/kept-qemu.conf /etc/libvirt/qemu.conf");
        lab.daemon("b", "restart");
    });
    let _ = std::fs::remove_file(lab.shared_folder().join("a.pem"));
}

/// Case 64: every port for migrations is taken.
#[test]
fn a_destination_without_a_free_port_is_named() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("portless");
    let uuid = bare(&lab, &vm, &[]);
    let m = migration(&lab, &vm, uuid);
    let holder = Holder::of(&lab, "b", 49152..=49215);
    in_client(&lab, async || {
        let writer = writer();
        let error = fails(&lab, &writer, &m).await;
        eprintln!("{error} / {:?}", error.hint);
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("port")), "{error} {:?}", error.hint);
        drop(holder);
        arrives(&lab, &writer, &m).await;
    });
}

/// Cases 8 and 53: a machine type that the destination does not know.
#[test]
fn a_machine_type_that_the_destination_does_not_know_keeps_the_machine_here() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("modern");
    let uuid = bare(&lab, &vm, &["machine=pc-q35-7.2"]);
    let m = migration(&lab, &vm, uuid);
    // Both hosts are of one release. What libvirt takes its QEMU to know stands in a file.
    let cache = "/var/cache/libvirt/qemu/capabilities";
    let forget = format!("cp -a {cache} /run/kept-capabilities; sed -i \"/name='pc-q35-7.2'/d\" {cache}/*.xml");
    lab.daemon("b", "stop");
    on(&lab, "b", &forget);
    lab.daemon("b", "start");
    in_client(&lab, async || {
        let writer = writer();
        let error = fails(&lab, &writer, &m).await;
        eprintln!("{error} / {:?}", error.hint);
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("spec.machine")), "{error} {:?}", error.hint);
        // libvirt takes its definition all the same when it is off; it would fail at its next start.
        lab.virsh_ok("a", &["destroy", vm.name()]);
        let off = Migration { way: MigrationWay::Offline, ..m.clone() };
        let words = "`b` does not know the machine type pc-q35-7.2";
        assert!(refusal(&writer, &moving(&off)).await.contains(words));
        let error = act(&writer, &off, &step(SOON)).await.unwrap_err();
        assert!(error.message.contains(words) && !error.transient, "{error}");
        assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("shut off", "absent"));
    });
    lab.daemon("b", "stop");
    on(&lab, "b", &format!("cp -a /run/kept-capabilities/. {cache}"));
    lab.daemon("b", "start");
    in_client(&lab, async || {
        // An old type, known to both: forth and back (case 52).
        let writer = writer();
        lab.virsh_ok("a", &["start", vm.name()]);
        arrives(&lab, &writer, &m).await;
        arrives(&lab, &writer, &back(&lab, &m)).await;
        let xml = lab.virsh_ok("a", &["dumpxml", vm.name()]);
        assert!(xml.contains("pc-q35-7.2"), "{xml}");
    });
}

/// Case 74.
#[test]
fn a_host_that_dies_during_a_move_takes_the_machine_along_only_if_it_was_the_source() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("crashes");
    let uuid = vast(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(1), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(SOON));
        let result = while_under_way(act(&writer, &m, &step), &step, async || lab.crash("b")).await;
        let error = result.unwrap_err();
        eprintln!("destination: {error} / {:?}", error.hint);
        assert!(error.transient && error.message.contains("it is running"), "{error}");
        assert_eq!(domain(&writer, "a", uuid).await.unwrap().state, RunState::Running);
        lab.boot("b");
        ready(&writer, &m).await;
        runs_on_alone(&lab, &writer, &m).await;

        let step = super::step(SOON);
        let result = while_under_way(act(&writer, &m, &step), &step, async || lab.crash("a")).await;
        let error = result.unwrap_err();
        eprintln!("source: {error} / {:?}", error.hint);
        assert!(error.transient, "{error}");
        lab.boot("a");
        wait_for("the destination lets go of its half", Duration::from_secs(60), || match vm.state("b").as_str() {
            "absent" => Ok(()),
            other => Err(other.to_owned()),
        });
        // A host that was out of reach a moment ago is not asked again at once.
        let begun = Instant::now();
        while let Reading::Unknown { why } = writer.observe("a", SOON).await {
            assert!(begun.elapsed() < SOON, "{why}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // It is where it was, off: its memory went with the host.
        let here = domain(&writer, "a", uuid).await.unwrap();
        assert_eq!((here.state, here.persistent, here.owner), (RunState::Off, true, Some(mark(vm.name()))));
        assert!(lab.processes(vm.name()).is_empty());
        assert!(refusal(&writer, &moving(&m)).await.contains("a live migration was planned"));
    });
}

/// Case 75: a cut that is shorter than the daemons' patience.
#[test]
fn a_short_cut_of_the_link_does_not_end_a_move() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("shortcut");
    let uuid = vast(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(1), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(Duration::from_secs(120)));
        let begun = Instant::now();
        let result = while_under_way(act(&writer, &m, &step), &step, async || {
            lab.cut_between("a", "b");
            tokio::time::sleep(Duration::from_secs(8)).await;
            lab.heal_between("a", "b");
            hurry(&lab, &vm, "a");
        });
        result.await.unwrap();
        eprintln!("{:?}", begun.elapsed());
        assert_eq!(moved(&writer, &m).await.state, RunState::Running);
        assert_eq!(lab.processes(vm.name()), ["b"]);
    });
}

/// Case 76: the destination's daemon hangs in the middle of a move. The call would wait without limit.
#[test]
fn a_move_to_a_daemon_that_hangs_is_left_at_the_steps_deadline_and_taken_up_again() {
    let Some(lab) = Lab::alone() else { return };
    let vm = lab.guest("hung");
    let uuid = vast(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(1), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(Duration::from_secs(12)));
        let begun = Instant::now();
        let result = while_under_way(act(&writer, &m, &step), &step, async || {
            lab.daemon("b", "pause");
            hurry(&lab, &vm, "a");
        });
        let error = result.await.unwrap_err();
        eprintln!("{:?}: {error} / {:?}", begun.elapsed(), error.hint);
        assert!(error.transient && error.message.contains("left going on"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
        lab.daemon("b", "cont");
        // Whatever has become of it, the next attempt ends it.
        let again = super::writer();
        let begun = Instant::now();
        while let Err(error) = act(&again, &m, &super::step(SOON)).await {
            assert!(error.transient && begun.elapsed() < Duration::from_secs(90), "{error}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(moved(&again, &m).await.state, RunState::Running);
        assert_eq!(lab.processes(vm.name()), ["b"]);
    });
}
