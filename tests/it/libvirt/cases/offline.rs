//! Moves of machines that are off.

use super::*;

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
