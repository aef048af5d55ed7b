//! Questions to two real hosts: CPUs and dirty rates, over the connections of a dry run.

use super::moves::{born, in_client, uris};
use super::*;
use crate::lab::Lab;
use drover::domain_xml::guest_cpu;
use drover::observed::{Answer, CpuFit, DirtyRateMode, MeasureDirtyRate, Observed, Platform, Question, Questions};
use drover::provider::ReadFleet;
use jiff::Timestamp;
use std::collections::BTreeSet;

const LONG: Duration = Duration::from_secs(60);

pub(super) fn emulated() -> Platform {
    Platform { arch: Some("x86_64".into()), machine: Some("q35".into()), virt_type: Some("qemu".into()) }
}

fn fleet() -> ReadFleet {
    let reader: Arc<dyn Observer> = Arc::new(Reader::new(uris(), Options::default()));
    ReadFleet::new(["a", "b"].into_iter().map(|h| (h.to_owned(), reader.clone())).collect())
}

pub(super) async fn asked(questions: Questions) -> Observed {
    let fleet = fleet();
    let mut observed = fleet.observe(Timestamp::now(), LONG).await;
    fleet.ask(questions, &mut observed, LONG).await;
    observed
}

/// What is common to both is accepted by both, and what one has not is named.
#[test]
fn the_common_cpu_of_two_hosts_is_accepted_by_both() {
    let Some(lab) = Lab::shared() else { return };
    in_client(&lab, async || {
        let hosts: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        // As a manifest asks that says nothing: libvirt's own choice would be kvm, which is not there.
        let wish = (hosts, Platform::default());
        let questions = Questions { baselines: BTreeSet::from([wish]), ..Questions::default() };
        let observed = asked(questions).await;
        let [found] = observed.cpu_baselines.as_slice() else { panic!("{:?}", observed.cpu_baselines) };
        let Reading::Present(baseline) = &found.answer else { panic!("{found:?}") };
        let cpu = guest_cpu(&baseline.cpu).unwrap();
        assert!(cpu.required().count() > 5, "{cpu:?}");
        assert!(
            baseline.hosts.values().all(|o| o.model == cpu.model && o.lacks.is_empty()),
            "equal hosts: {baseline:?}"
        );
        let reader = Reader::new(uris(), Options::default());
        for host in ["a", "b"] {
            let question = Question::Compare(emulated(), cpu.element().to_xml());
            assert_eq!(reader.ask(host, question, LONG).await.unwrap(), Answer::Fit(CpuFit::Fits), "{host}");
            let more = "<cpu><model>EPYC</model><feature policy='require' name='avx512f'/></cpu>";
            let answer = reader.ask(host, Question::Compare(emulated(), more.into()), LONG).await.unwrap();
            let Answer::Fit(CpuFit::Misses { what }) = answer else { panic!("{answer:?}") };
            assert!(what.contains("avx512f"), "{what}");
        }
        // A host that had less would lower it.
        let less = baseline.cpu.replace("<feature policy='require' name='pku'/>", "");
        assert_ne!(less, baseline.cpu);
        let cpus = vec![baseline.cpu.clone(), less];
        let question = Question::Baseline { platform: emulated(), cpus, expand: false };
        let Answer::Cpu(lower) = reader.ask("a", question, LONG).await.unwrap() else { panic!("not a CPU") };
        assert!(!guest_cpu(&lower).unwrap().required().any(|f| f == "pku"), "{lower}");
    });
}

/// A guest that writes 40 MiB a second is measured as one, and a machine that is gone as an error.
#[test]
fn a_dirty_rate_is_what_the_guest_writes() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("dirties");
    let uuid = born(&lab, &vm, "a", &["mem=256", "dirty=160", "rate=40"]);
    vm.wait_beats(30);
    in_client(&lab, async || {
        let wish = |uuid| MeasureDirtyRate { uuid, host: "a".into(), seconds: 2, mode: DirtyRateMode::PageSampling };
        let questions = Questions { dirty_rates: vec![wish(uuid)], ..Questions::default() };
        let mut observed = asked(questions).await;
        let domain = observed.domain_mut("a", uuid).unwrap();
        let Some(Reading::Present(rate)) = &domain.dirty_rate else { panic!("{:?}", domain.dirty_rate) };
        // QEMU looks at 128 pages of these 256 MiB: each stands for two mebibytes, and a busy machine writes less.
        let mib = rate.bytes_per_second >> 20;
        assert!((15..=70).contains(&mib), "{mib} MiB/s");
        assert!(rate.resident.is_some_and(|r| r > 160 << 20), "{rate:?}");
        let reader = Reader::new(uris(), Options::default());
        let gone = reader.ask("a", Question::DirtyRate(wish(Uuid::nil())), LONG).await.unwrap_err();
        assert!(gone.contains("not on it any more"), "{gone}");
    });
}

/// The images that libvirt chooses from are told, and stand in the observation; asked once, they are not asked for again.
#[test]
fn the_firmware_that_a_host_offers_is_told() {
    let Some(lab) = Lab::shared() else { return };
    let listed = lab.virsh_ok("a", &["domcapabilities", "--machine", "q35", "--virttype", "qemu"]);
    in_client(&lab, async || {
        let firmware = [("a".to_owned(), emulated())].into();
        let observed = asked(Questions { firmware, ..Questions::default() }).await;
        let images = observed.host("a").unwrap().firmware.clone().unwrap();
        assert_eq!(images.is_empty(), !listed.contains("OVMF"), "{images:?}");
        assert!(images.iter().all(|i| listed.contains(&format!("<value>{i}</value>"))), "{images:?}");
        assert!(observed.host("b").unwrap().firmware.is_none(), "nobody asked for it");
    });
}
