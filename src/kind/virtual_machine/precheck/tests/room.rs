//! Memory and CPUs.

use super::*;

#[test]
fn memory_counts_what_the_plan_brings_there_before() {
    World::new().is(P::Memory, Pass, &["8Gi of memory free", "needs 1Gi"]);
    let crowd = |memory| {
        World::new()
            .with(move |w| w.arriving = vec![Load { host: "b".into(), memory }, Load { host: "b".into(), memory: GIB }])
    };
    crowd(6 * GIB).is(P::Memory, Pass, &["after 7Gi for 2"]);
    crowd(7 * GIB).is(P::Memory, Block, &["8Gi of memory free, after 8Gi for 2 that this plan brings there before it"]);
    crowd(7 * GIB).off().with(|w| w.starts = false).is(P::Memory, Pass, &["stays off"]);
    crowd(7 * GIB).off().is(P::Memory, Block, &[]);
    World::new().with(|w| w.b.cpus = 1).is(P::Vcpus, Warn, &["it has 2 CPUs, and `b` has 1"]);
}
