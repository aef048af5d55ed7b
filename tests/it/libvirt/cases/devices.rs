//! What a machine is attached to, and what of that is not at the destination.

use super::*;

/// Case 46, as libvirt tells it where a plan has not. (What a plan tells of it beforehand: `program`.)
#[test]
fn a_bridge_or_network_that_is_only_here_keeps_the_machine_here() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("bridged");
    let bridge = "drvonly0";
    let network = format!("{}-net", vm.name());
    let made = lab.inside("a", &["sh", "-c", &format!("ip link add {bridge} type bridge && ip link set {bridge} up")]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = lab.local_folder("a").join(format!("{}-net.xml", vm.name()));
    let xml = format!("<network><name>{network}</name><forward mode='bridge'/><bridge name='br0'/></network>");
    std::fs::write(&file, xml).unwrap();
    lab.virsh_ok("a", &["net-define", file.to_str().unwrap()]);
    lab.virsh_ok("a", &["net-start", &network]);
    for (source, words, hint) in [
        (format!("<interface type='bridge'><source bridge='{bridge}'/></interface>"), bridge, "bridge"),
        (format!("<interface type='network'><source network='{network}'/></interface>"), network.as_str(), "network"),
    ] {
        let uuid = bare(&lab, &vm, &[&format!("extra={source}")]);
        let m = migration(&lab, &vm, uuid);
        in_client(&lab, async || {
            let writer = writer();
            let error = fails(&lab, &writer, &m).await;
            eprintln!("{error} / {:?}", error.hint);
            assert!(error.message.contains(words) && !error.transient, "{error}");
            assert!(error.hint.as_ref().is_some_and(|h| h.contains(hint)), "{:?}", error.hint);
        });
        lab.virsh_ok("a", &["destroy", vm.name()]);
        lab.virsh_ok("a", &["undefine", vm.name()]);
    }
    for verb in ["net-destroy", "net-undefine"] {
        lab.virsh_ok("a", &[verb, &network]);
    }
    lab.inside("a", &["ip", "link", "del", bridge]);
}

/// Case 47: a medium that is only here, by what the machine's definition says of that.
#[test]
fn a_medium_that_is_only_here_keeps_the_machine_here_if_it_is_mandatory() {
    let Some(lab) = Lab::shared() else { return };
    for (policy, is_to_move) in [("mandatory", false), ("requisite", true), ("optional", true)] {
        let vm = lab.guest(policy);
        let medium = vm.local_disk("a", 1);
        let cdrom = format!(
            "extra=<disk type='file' device='cdrom'><source file='{medium}' startupPolicy='{policy}'/>\
             <target dev='sda' bus='sata'/><readonly/></disk>"
        );
        let uuid = bare(&lab, &vm, &[&cdrom]);
        let m = migration(&lab, &vm, uuid);
        in_client(&lab, async || {
            let writer = writer();
            if is_to_move {
                arrives(&lab, &writer, &m).await;
                let media = lab.virsh_ok("b", &["domblklist", vm.name()]);
                assert!(!media.contains(&medium), "{policy}: {media}");
            } else {
                let error = fails(&lab, &writer, &m).await;
                assert!(error.message.contains(&medium) && error.hint.is_some(), "{error} {:?}", error.hint);
            }
        });
    }
}

/// Case 44: a TPM's state goes along with the memory, and is the same TPM's afterwards; a machine that is off would lose it.
#[test]
fn a_machine_with_a_tpm_moves_with_what_the_tpm_keeps() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("tpm");
    let tpm = "extra=<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>";
    let uuid = bare(&lab, &vm, &[tpm]);
    let m = migration(&lab, &vm, uuid);
    // The seeds that the TPM has made up for itself when it was new, and all keys of the guest are made from, are in here. A
    // counter or two may have changed; another TPM's file differs in more than half of its bytes.
    let kept =
        |host: &str| lab.inside(host, &["cat", &format!("/var/lib/libvirt/swtpm/{uuid}/tpm2/tpm2-00.permall")]).stdout;
    let before = kept("a");
    assert!(before.len() > 1000, "no TPM: {before:?}");
    let is_the_same = |now: Vec<u8>| {
        let others = before.iter().zip(&now).filter(|(a, b)| a != b).count();
        assert!(now.len() == before.len() && others < before.len() / 10, "{} bytes, {others} others", now.len());
    };
    in_client(&lab, async || {
        let writer = writer();
        arrives(&lab, &writer, &m).await;
        is_the_same(kept("b"));
        assert!(kept("a").is_empty(), "the source keeps a copy of its secrets");
        arrives(&lab, &writer, &back(&lab, &m)).await;
        is_the_same(kept("a"));
    });
}
