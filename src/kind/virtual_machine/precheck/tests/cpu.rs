//! The CPU.

use super::*;

#[test]
fn a_cpu_is_compared_with_what_the_destination_offers() {
    let cpu = "<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>EPYC</model></cpu>";
    let at_b = |answer: Reading<CpuFit>| {
        World::new().machine("", cpu).with(move |w| drop(w.a.domains[0].cpu_at.insert("b".into(), answer)))
    };
    at_b(Reading::Present(CpuFit::Fits)).is(P::Cpu, Pass, &["`b` offers all", "EPYC"]);
    let misses = || Reading::Present(CpuFit::Misses { what: "missing features: avx512f".into() });
    at_b(misses()).is(P::Cpu, Block, &["`b` cannot give it its CPU", "avx512f"]);
    at_b(misses()).says(P::Cpu, Treatment::Warn).is(P::Cpu, Warn, &["avx512f"]);
    at_b(misses()).off().is(P::Cpu, Pass, &["while it is off"]);
    at_b(Reading::Unknown { why: "no answer".into() }).is(P::Cpu, Unknown, &["no answer"]);
    World::new().machine("", cpu).is(P::Cpu, Unknown, &["was not compared"]);
}

#[test]
fn the_hosts_own_cpu_moves_between_equal_hosts_only() {
    let own = |change: fn(&mut HostCpu)| {
        World::new().machine("", "<cpu mode='host-passthrough' check='none'/>").with(move |w| {
            let cpu = HostCpu {
                model: "Skylake-Server-v1".into(),
                vendor: "Intel".into(),
                microcode: "1".into(),
                signature: "6/106/6".into(),
                features: ["vaes".to_owned()].into(),
            };
            w.a.cpu = Some(cpu.clone());
            let there = w.b.cpu.insert(cpu);
            change(there);
        })
    };
    own(|_| ()).is(P::Cpu, Pass, &["both hosts have Intel Skylake-Server-v1 (6/106/6)"]);
    own(|c| c.signature = "6/85/4".into()).is(P::Cpu, Block, &["(6/106/6)", "(6/85/4)"]);
    own(|c| c.features.clear()).is(P::Cpu, Block, &["they differ in vaes"]);
    own(|c| c.microcode = "2".into()).is(P::Cpu, Warn, &["microcode 1 and 2"]);
    own(|_| ()).with(|w| w.b.libvirt_version = "9.0.0".into()).is(P::Cpu, Warn, &["libvirt 11.3.0 and 9.0.0"]);
    own(|_| ()).with(|w| w.b.cpu = None).is(P::Cpu, Unknown, &["not known"]);
}
