//! What is at the destination already.

use super::*;

fn other(name: &str, uuid: Uuid, state: RunState, xml: &str) -> DomainState {
    let mut domain = DomainState::new(name.into(), uuid, state, String::new(), true);
    domain.persistent_xml = Some(xml.into());
    domain
}

#[test]
fn nothing_else_at_the_destination_may_be_it() {
    let there = |domain: DomainState| {
        World::new()
            .machine(
                "<interface type='bridge'><mac address='52:54:00:AA:bb:01'/><source bridge='br0'/></interface>",
                "",
            )
            .with(|w| w.b.domains = vec![domain])
    };
    let own: Uuid = UUID.parse().unwrap();
    let foreign = Uuid::from_u128(7);
    let mac = "<domain><devices><interface><mac address='52:54:00:aa:bb:01'/></interface></devices></domain>";
    there(other("web", foreign, RunState::Off, "<domain/>")).is(
        P::Name,
        Block,
        &["`web` on `b`", &foreign.to_string()],
    );
    there(other("db", foreign, RunState::Off, "<domain/>")).is(P::Name, Pass, &[]).is(P::Mac, Pass, &[]).is(
        P::Uuid,
        Pass,
        &[],
    );
    there(other("db", foreign, RunState::Off, mac)).is(P::Mac, Block, &["`db` on `b`", "52:54:00:aa:bb:01"]);
    there(other("web", own, RunState::Running, "<domain/>")).is(P::Uuid, Block, &["run twice"]);
    there(other("web", own, RunState::Off, "<domain/>")).is(P::Uuid, Block, &["is off"]);
    there(DomainState { reason: "migrated".into(), ..other("web", own, RunState::Off, mac) })
        .is(P::Uuid, Pass, &["left there"])
        .is(P::Mac, Pass, &[]);
}
