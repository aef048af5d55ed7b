//! What cannot go along.

use super::*;

#[test]
fn what_cannot_go_along_holds_back() {
    let with = |change: fn(&mut DomainState)| World::new().with(|w| change(&mut w.a.domains[0]));
    with(|d| d.managed_save = true).is(P::ManagedSave, Block, &[]);
    with(|d| d.snapshots = 1).is(P::Snapshots, Block, &["1 snapshot,"]);
    with(|d| d.checkpoints = 3).is(P::Checkpoints, Block, &["3 checkpoints"]);
    let progress = Progress { elapsed_millis: 4000, remaining: 3 << 20, ..Default::default() };
    let job = JobState { operation: JobOperation::Other, progress };
    World::new().with(|w| w.a.domains[0].job = Some(job)).is(P::Jobs, Block, &["for 4 s", "3Mi"]);
    let mirror = disk("/x", "").replace("<target", "<mirror type='file' job='copy'/><target");
    World::new().machine(&mirror, "").is(P::BlockJobs, Block, &["(copy)", "vda"]);
}
