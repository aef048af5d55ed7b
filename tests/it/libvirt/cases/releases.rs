//! Hosts of two releases: a has libvirt 9.0 and QEMU 7.2, b has libvirt 11.3 and QEMU 10.0. Under software emulation QEMU 7.2
//! loses pages of a guest that it sends, so the machines here have nothing in their memory.

use super::super::asks::{asked, emulated};
use super::super::moves::uris;
use super::*;
use drover::observed::{Answer, CpuFit, Question, Questions};

/// Cases 52 and 53: an old machine type goes forth and back, a new one does not go to the older host, live or off.
#[test]
fn a_new_machine_type_does_not_go_to_an_older_host_and_an_old_one_goes_both_ways() {
    let Some(lab) = Lab::of_two_releases() else { return };
    let (old, new) = (lab.guest("old-type"), lab.guest("new-type"));
    let uuid = bare(&lab, &old, &["machine=pc-q35-7.2"]);
    let m = migration(&lab, &old, uuid);
    in_client(&lab, async || {
        let writer = writer();
        let (here, there) = (observe(&writer, "a").await, observe(&writer, "b").await);
        assert!(here.libvirt_version.starts_with("9.") && there.libvirt_version.starts_with("11."), "{here:?}");
        arrives(&lab, &writer, &m).await;
        arrives(&lab, &writer, &back(&lab, &m)).await;
        let xml = lab.virsh_ok("a", &["dumpxml", old.name()]);
        assert!(xml.contains("pc-q35-7.2"), "{xml}");

        let uuid = born(&lab, &new, "b", &["boot=none", "mem=64", "machine=pc-q35-10.0"]);
        let m = back(&lab, &migration(&lab, &new, uuid));
        let error = fails(&lab, &writer, &m).await;
        eprintln!("{error} / {:?}", error.hint);
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("spec.machine")), "{error} {:?}", error.hint);
        lab.virsh_ok("b", &["destroy", new.name()]);
        let off = Migration { way: MigrationWay::Offline, ..m };
        assert!(refusal(&writer, &moving(&off)).await.contains("`a` does not know the machine type pc-q35-10.0"));
    });
}

/// Case 50: what host-model became on the newer host the older one does not have; what is common to both moves.
#[test]
fn a_cpu_of_the_newer_host_stays_there_and_the_common_one_moves() {
    let Some(lab) = Lab::of_two_releases() else { return };
    let vm = lab.guest("model");
    let cpu = "cpu=<cpu mode='host-model'/>";
    let uuid = born(&lab, &vm, "b", &["boot=none", "mem=64", "machine=pc-q35-7.2", cpu]);
    in_client(&lab, async || {
        let writer = writer();
        let m = back(&lab, &migration(&lab, &vm, uuid));
        let error = fails(&lab, &writer, &m).await;
        eprintln!("{error} / {:?}", error.hint);
        assert!(!error.transient && error.hint.as_ref().is_some_and(|h| h.contains("cpu")), "{error} {:?}", error.hint);

        // A plan asks beforehand, and gets the same answer.
        let reader = Reader::new(uris(), Options::default());
        let xml = lab.virsh_ok("b", &["dumpxml", vm.name()]);
        let own = xml.split_once("<cpu ").and_then(|(_, rest)| rest.split_once("</cpu>")).unwrap().0;
        let question = Question::Compare(emulated(), format!("<cpu {own}</cpu>"));
        let answer = reader.ask("a", question, SOON).await.unwrap();
        assert!(matches!(answer, Answer::Fit(CpuFit::Misses { .. })), "{answer:?}");

        // What `cpu: {mode: Baseline, hosts: [a, b]}` becomes goes there, and back.
        let wish = (["a", "b"].map(str::to_owned).into(), emulated());
        let observed = asked(Questions { baselines: [wish].into(), ..Questions::default() }).await;
        let [found] = observed.cpu_baselines.as_slice() else { panic!("{:?}", observed.cpu_baselines) };
        let Reading::Present(baseline) = &found.answer else { panic!("{found:?}") };
        let common = drover::domain_xml::guest_cpu(&baseline.cpu).unwrap().element().to_xml();
        let plain = lab.guest("common");
        let uuid = born(&lab, &plain, "b", &["boot=none", "mem=64", "machine=pc-q35-7.2", &format!("cpu={common}")]);
        let m = back(&lab, &migration(&lab, &plain, uuid));
        arrives(&lab, &writer, &m).await;
        arrives(&lab, &writer, &back(&lab, &m)).await;
    });
}
