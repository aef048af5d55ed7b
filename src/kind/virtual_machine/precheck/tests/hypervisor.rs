//! The hypervisors and machine types of both hosts.

use super::*;

#[test]
fn the_hosts_are_two_of_one_kind() {
    World::new().with(|w| w.b.uuid = w.a.uuid.clone()).is(P::HostIdentity, Block, &["one host"]);
    World::new().with(|w| w.b.driver = "XEN".into()).is(P::Hypervisor, Block, &["XEN", "QEMU"]);
    World::new().with(|w| w.b.arch = "aarch64".into()).is(P::Hypervisor, Block, &["x86_64", "aarch64"]);
    World::new().with(|w| w.b.domain_types = vec!["qemu".into()]).is(P::Hypervisor, Block, &["`kvm`", "qemu"]);
    World::new().with(|w| w.b.emulators = vec!["/usr/libexec/qemu-kvm".into()]).is(
        P::Hypervisor,
        Block,
        &["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"],
    );
    // A program of somebody's own is in no capabilities, on neither host.
    World::new()
        .with(|w| (w.a.emulators, w.b.emulators) = (vec!["/usr/bin/qemu".into()], vec!["/usr/libexec/qemu-kvm".into()]))
        .is(P::Hypervisor, Pass, &[]);
    World::new().with(|w| w.b.libvirt_version = "9.0.0".into()).is(P::Versions, Warn, &["libvirt 11.3.0 to 9.0.0"]);
    World::new().with(|w| w.a.libvirt_version = "9.0.0".into()).is(P::Versions, Pass, &["9.0.0 to 11.3.0"]);
}

/// QEMU before 10.1: "Postcopy is not yet compatible with multifd".
#[test]
fn parallel_connections_are_left_out_where_post_copy_is_asked_for_and_qemu_has_one_of_both() {
    use crate::kind::migration_policy::{ParallelConnections, PostCopy, TimeoutAction};
    let asked = |here: &str, there: &str| {
        let (here, there) = (here.to_owned(), there.to_owned());
        World::new().with(|w| {
            w.policy.parallel_connections = Some(ParallelConnections::Count(4));
            (w.a.hypervisor_version, w.b.hypervisor_version) = (here, there);
        })
    };
    let post_copy =
        |w: &mut World| w.policy.post_copy = Some(PostCopy { after: None, passes: Some(3), bandwidth: None });
    asked("10.0.2", "10.0.2").is(P::Versions, Pass, &[]);
    asked("10.0.2", "10.1.0").with(post_copy).is(P::Versions, Warn, &["one connection is used", "10.0.2", "10.1"]);
    asked("10.0.2", "10.0.2").with(|w| w.policy.timeout.action = TimeoutAction::PostCopy).is(
        P::Versions,
        Warn,
        &["one connection is used"],
    );
    asked("10.1.0", "11.0.0").with(post_copy).is(P::Versions, Pass, &[]);
    asked("10.0.2", "10.0.2").with(post_copy).off().is(P::Versions, Pass, &[]);
}

/// Before libvirt 8.5 the destination's half of a machine in post-copy ends with the connection of whoever drives the move.
#[test]
fn post_copy_is_left_out_where_it_would_end_with_drover() {
    use crate::kind::migration_policy::{Control, PostCopy, TimeoutAction};
    let asked = |here: &str, there: &str| {
        let (here, there) = (here.to_owned(), there.to_owned());
        World::new().with(|w| {
            w.policy.control = Control::Managed;
            w.policy.post_copy = Some(PostCopy { after: None, passes: Some(3), bandwidth: None });
            (w.a.libvirt_version, w.b.libvirt_version) = (here, there);
        })
    };
    let words = ["post-copy is left out", "8.0.0", "PeerToPeer"];
    let world = asked("8.0.0", "8.5.0").is(P::Versions, Warn, &words[..2]);
    let hints = world.look().checks.into_iter().filter_map(|c| c.hint).collect::<String>();
    assert!(hints.contains(words[2]), "{hints}");
    asked("8.5.0", "8.4.0").is(P::Versions, Warn, &words[..1]);
    asked("8.5.0", "11.3.0").is(P::Versions, Pass, &[]);
    asked("8.0.0", "8.0.0").with(|w| w.policy.control = Control::Auto).is(P::Versions, Pass, &[]);
    asked("8.0.0", "8.0.0").with(|w| w.policy.post_copy = None).is(P::Versions, Pass, &[]);
    let at_the_end = |w: &mut World| {
        (w.policy.post_copy, w.policy.timeout.action) = (None, TimeoutAction::PostCopy);
    };
    asked("8.0.0", "8.0.0").with(at_the_end).is(P::Versions, Warn, &words[..1]);
}

#[test]
fn a_machine_type_must_be_known_for_a_machine_that_is_off_as_well() {
    let old = || World::new().with(|w| w.b.machine_types = vec!["pc-q35-7.2".into(), "pc-q35-8.1".into()]);
    old().is(P::MachineType, Block, &["pc-q35-10.0", "newest of that family is pc-q35-8.1"]);
    old().off().is(P::MachineType, Block, &["pc-q35-10.0"]);
}
