//! Pairs of releases.

use super::*;

#[test]
fn pairs_of_releases_are_those_of_the_table() {
    let pair = |a: &str, b: &str| {
        World::new().with(|w| {
            for (host, release) in [("a", a), ("b", b)] {
                w.resources.hosts.get_mut(host).unwrap().spec.release = Some(release.into());
            }
        })
    };
    pair("rhel-8.1", "rhel-8.6").is(P::Release, Pass, &["rhel 8.1", "rhel 8.6", "forward, minor"]);
    pair("rhel-8.6", "rhel-9.2").is(P::Release, Block, &["no such way", "pc-q35-10.0"]);
    pair("rhel-8.6", "rhel-9.2").off().is(P::Release, Pass, &[]);
    pair("rhel-8.6", "rhel-9.2").says(P::Release, Treatment::Warn).is(P::Release, Warn, &[]);
    pair("debian-12", "debian-12").is(P::Release, Pass, &["the same"]);
    pair("debian-12", "debian-13").is(P::Release, Warn, &["says nothing of debian"]);
    pair("debian-13", "debian-12").is(P::Release, Block, &["older"]);
    pair("rhel-9.0", "debian-12").is(P::Release, Block, &["another distribution"]);
    pair("rhel-9.0", "sid").is(P::Release, Unknown, &["sid"]);
    // RHEL's machine types tell what nobody declared.
    World::new()
        .with(|w| {
            (w.a.machine_types, w.b.machine_types) = (vec!["pc-q35-rhel8.6.0".into()], vec!["pc-q35-rhel9.2.0".into()]);
        })
        .is(P::Release, Block, &["rhel 8.6", "rhel 9.2"]);
}
