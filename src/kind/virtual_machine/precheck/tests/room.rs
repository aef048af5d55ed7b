//! Memory and CPUs.

use super::*;

#[test]
fn memory_counts_what_the_plan_brings_there_before() {
    World::new().is(P::Memory, Pass, &["8Gi of memory free", "needs 1Gi"]);
    let crowd = |memory| {
        World::new()
            .with(move |w| w.arriving = [memory, GIB].map(|memory| Load { host: "b".into(), memory, vcpus: 4 }).into())
    };
    crowd(6 * GIB).is(P::Memory, Pass, &["after 7Gi for 2"]);
    crowd(7 * GIB).is(P::Memory, Block, &["8Gi of memory free, after 8Gi for 2 that this plan brings there before it"]);
    crowd(7 * GIB).off().with(|w| w.starts = false).is(P::Memory, Pass, &["stays off"]);
    crowd(7 * GIB).off().is(P::Memory, Block, &[]);
    World::new().with(|w| w.b.cpus = 1).is(P::Vcpus, Warn, &["it has 2 CPUs, and `b` has 1"]);
}

/// What runs there, what arrives before it, and it: together they may use `vcpusPerCpu` (10) for each CPU.
#[test]
fn virtual_cpus_are_summed_with_what_is_there_and_what_arrives_before() {
    let crowd = |arriving: [u32; 2], there: u32| {
        World::new().with(move |w| {
            w.b.cpus = 2;
            w.arriving = arriving.map(|vcpus| Load { host: "b".into(), memory: 0, vcpus }).into();
            let mut other = w.a.domains[0].clone();
            other.uuid = "00000000-0000-4000-8000-0000000000ff".parse().unwrap();
            let xml = format!("<domain><vcpu current='{there}'>64</vcpu></domain>");
            (other.live_xml, other.persistent_xml) = (Some(xml.clone()), Some(xml));
            w.b.domains = vec![other];
        })
    };
    let figures = "20 vCPUs may be in use there (`vcpusPerCpu: 10`), 4 are, 14 more come";
    crowd([8, 6], 4).is(P::Vcpus, Pass, &[figures, "and it has 2"]);
    crowd([8, 7], 4).is(P::Vcpus, Warn, &["15 more come", "vcpusPerCpu"]);
    crowd([8, 6], 5).is(P::Vcpus, Warn, &["5 are"]);
    crowd([0, 0], 19).is(P::Vcpus, Warn, &["19 are, and it has 2"]);
    // What does not run takes none.
    crowd([8, 7], 4).with(|w| w.b.domains[0].state = RunState::Off).is(P::Vcpus, Pass, &["0 are"]);
    crowd([8, 7], 4).off().with(|w| w.starts = false).is(P::Vcpus, Pass, &[]);
}
