//! Networks, bridges and segments.

use super::*;

#[test]
fn networks_and_bridges_must_be_there() {
    let network = || World::new().machine("<interface type='network'><source network='lan'/></interface>", "");
    let lan = |active: bool, forward: &str| {
        let forward = forward.to_owned();
        move |w: &mut World| {
            for (host, is) in [(&mut w.a, "bridge"), (&mut w.b, forward.as_str())] {
                host.networks.insert("lan".into(), true);
                host.network_states.insert("lan".into(), NetworkState { forward: is.into(), ..Default::default() });
            }
            w.b.networks.insert("lan".into(), active);
        }
    };
    network().with(|w| w.b.networks = [("other".to_owned(), true)].into()).is(
        P::Networks,
        Block,
        &["no network `lan`", "other"],
    );
    network().with(lan(false, "bridge")).is(P::Networks, Block, &["not started"]);
    network().with(lan(true, "bridge")).is(P::Networks, Pass, &[]).is(P::Segment, Unknown, &["drover/segment.lan"]);
    network().with(lan(true, "nat")).is(P::Segment, Block, &["`bridge` on `a`", "`nat` on `b`"]);
    let island = |w: &mut World| {
        lan(true, "nat")(w);
        w.a.network_states.get_mut("lan").unwrap().forward = "nat".into();
    };
    network().with(island).is(P::Segment, Warn, &["connections of the machine break"]);
    network().with(island).off().is(P::Segment, Pass, &[]);

    let bridge = |name: &str| {
        World::new().machine(&format!("<interface type='bridge'><source bridge='{name}'/></interface>"), "")
    };
    bridge("br0").is(P::Bridges, Pass, &["br0"]).is(P::Mtu, Pass, &["1500"]).is(P::Segment, Unknown, &[]);
    bridge("br9").is(P::Bridges, Block, &["no bridge `br9`", "it has br0"]);
    bridge("br9").with(|w| w.b.interfaces = None).is(P::Bridges, Unknown, &["no interface driver"]);
    bridge("br0").with(|w| w.b.interfaces.as_mut().unwrap().get_mut("br0").unwrap().mtu = Some(9000)).is(
        P::Mtu,
        Block,
        &["1500 on `a` and 9000 on `b`"],
    );
    bridge("br0").with(|w| w.a.interfaces = None).is(P::Mtu, Unknown, &[]);
    World::new().machine("<interface type='direct'><source dev='eth7'/></interface>", "").is(
        P::Bridges,
        Block,
        &["eth7"],
    );
}

#[test]
fn labels_say_which_segment_a_bridge_is_on() {
    let labelled = |a: &[(&str, &str)], b: &[(&str, &str)]| {
        let labels = |of: &[(&str, &str)]| -> BTreeMap<String, String> {
            of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let (a, b) = (labels(a), labels(b));
        World::new().machine("<interface type='bridge'><source bridge='br0'/></interface>", "").with(move |w| {
            w.resources.hosts.get_mut("a").unwrap().metadata.labels = a;
            w.resources.hosts.get_mut("b").unwrap().metadata.labels = b;
        })
    };
    labelled(&[("drover/segment", "x")], &[("drover/segment", "x")]).is(P::Segment, Pass, &["`x`"]);
    labelled(&[("drover/segment", "x")], &[("drover/segment", "y")]).is(
        P::Segment,
        Block,
        &["`x` on `a`", "`y` on `b`"],
    );
    labelled(&[("drover/segment", "x")], &[("drover/segment", "x"), ("drover/segment.br0", "y")]).is(
        P::Segment,
        Block,
        &[],
    );
    labelled(&[("drover/segment", "x")], &[]).is(P::Segment, Unknown, &[]);
}
