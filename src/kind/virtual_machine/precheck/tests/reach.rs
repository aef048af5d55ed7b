//! The way to the destination.

use super::*;

#[test]
fn what_drover_sees_of_the_way_there_is_called_that() {
    World::new().is(P::Reachability, Pass, &["as seen from Drover", "cannot be tried"]);
    let silent = |outcome| World::new().with(move |w| w.b.probe.as_mut().unwrap().outcome = outcome);
    silent(ProbeOutcome::Silent).is(P::Reachability, Unknown, &["b.example.com:49215"]);
    silent(ProbeOutcome::Unreachable).is(P::Reachability, Unknown, &["no way"]);
    World::new().with(|w| w.b.probe = None).is(P::Reachability, Unknown, &["49152-49215", "not tried"]);
    World::new().with(|w| w.b.hostname = "localhost".into()).is(P::Reachability, Block, &["calls itself `localhost`"]);
    let uri = |spec: &str| {
        let spec = spec.to_owned();
        World::new().with(move |w| drop(w.resources.hosts.insert("b".into(), manifest("b", &spec))))
    };
    uri("{uri: 'qemu:///system'}").is(P::Reachability, Warn, &["that host itself"]);
    uri("{uri: 'qemu:///system'}").with(|w| w.policy.control = crate::kind::migration_policy::Control::PeerToPeer).is(
        P::Reachability,
        Block,
        &["that host itself"],
    );
    uri("{uri: 'qemu:///system', migration: {uri: 'qemu+tls://b/system'}}").is(P::Reachability, Pass, &[]);
    uri("{uri: 'qemu+tcp://127.0.0.1:1/system', migration: {address: '127.0.0.1'}}").is(
        P::Reachability,
        Block,
        &["127.0.0.1"],
    );
    assert_eq!(World::new().result(P::Tls).0, None);
    World::new().with(|w| w.policy.transport = crate::kind::migration_policy::Transport::Tls).is(
        P::Tls,
        Unknown,
        &["certificates"],
    );
}
