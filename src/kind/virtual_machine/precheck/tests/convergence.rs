//! Whether the memory ever gets there.

use super::*;

#[test]
fn a_guest_that_outruns_its_link_is_told_and_what_would_help() {
    let busy = |mib| {
        World::new().with(move |w| {
            w.a.domains[0].dirty_rate = Some(Reading::Present(writes(mib)));
            w.policy.bandwidth = Some("40MiB/s".parse().unwrap());
        })
    };
    busy(2).is(P::Convergence, Pass, &["it writes 2Mi/s", "40Mi/s can be sent by policy"]);
    busy(36).is(P::Convergence, Warn, &["it may not converge"]);
    let world = busy(60).is(P::Convergence, Warn, &["it does not converge", "aborted after 30m"]);
    let looked = world.look();
    let hint = looked.checks.iter().find(|c| c.name == P::Convergence).and_then(|c| c.hint.clone()).unwrap();
    for setting in ["`bandwidth` of", "`maxDowntime:", "`autoConverge: true`", "`postCopy:"] {
        assert!(hint.contains(setting), "{hint}");
    }
    assert!(looked.prediction.is_some_and(|p| p.dirty_rate == Some(60 << 20)));
    world.says(P::Convergence, Treatment::Block).is(P::Convergence, Block, &["it does not converge"]);
    let post_copy = |w: &mut World| {
        w.policy = serde_json::from_str(r#"{"bandwidth": "40MiB/s", "postCopy": {"passes": 2}}"#).unwrap();
    };
    busy(60).with(post_copy).is(P::Convergence, Pass, &["post-copy takes over"]);
    let paused = |w: &mut World| {
        let policy = r#"{"bandwidth": "40MiB/s", "timeout": {"after": "9s", "action": "Suspend"}}"#;
        w.policy = serde_json::from_str(policy).unwrap();
    };
    busy(60).with(paused).is(P::Convergence, Warn, &["paused when its time is up"]);
    World::new().with(|w| w.a.domains[0].dirty_rate = None).is(P::Convergence, Unknown, &["not known"]);
    World::new().off().is(P::Convergence, Pass, &["while it is off"]);
    assert!(World::new().off().look().prediction.is_none());
}
