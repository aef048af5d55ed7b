//! What a machine that has arrived shows of itself: its disks give no errors, its network has been heard of, its agent
//! answers where one did before.
//!
//! *Promise*: only asks. What is not in order is said; the move is done all the same, and undoing it would help nobody.

use crate::action::Migration;
use crate::domain_xml::{self, Element};
use crate::observed::{DomainState, RunState};
use crate::provider::libvirt::connect::Host;
use crate::provider::libvirt::error::{During, Fault};
use crate::provider::libvirt::{domain, ffi};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long the network may take: QEMU announces a guest that arrives five times within half a second
/// (`announce-initial`, `announce-rounds`).
const NETWORK_WITHIN: Duration = Duration::from_secs(3);

/// How long the agent may take: the guest's side of the channel is opened anew, and libvirt gives a call five seconds.
const AGENT_WITHIN: Duration = Duration::from_secs(20);

const AGAIN: Duration = Duration::from_millis(250);

/// What is not in order with a machine that has just moved, in words; empty where all is well, or where it does not run.
pub(super) async fn prove(to: &Host, m: &Migration, before: Option<&DomainState>) -> Vec<String> {
    let had_agent = before.and_then(|b| b.live_xml.as_deref()).is_some_and(|xml| has_agent(xml, true));
    let begun = Instant::now();
    let mut last;
    loop {
        match look(to, m.uuid, had_agent).await {
            Ok(found) => {
                last = found;
                let limit = |f: &Flaw| match f {
                    Flaw::Disk(_) => Duration::ZERO,
                    Flaw::Network(_) => NETWORK_WITHIN,
                    Flaw::Agent(_) => AGENT_WITHIN,
                };
                // What may still come is waited for; what is wrong for good is not.
                if last.iter().all(|f| begun.elapsed() >= limit(f)) {
                    break;
                }
            }
            Err(fault) => {
                return vec![format!("what it does on `{}` could not be looked at after the move: {fault}", m.to)];
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    last.into_iter().map(Flaw::words).collect()
}

/// Something that is not as it should be.
enum Flaw {
    Disk(String),
    Network(String),
    Agent(String),
}

impl Flaw {
    fn words(self) -> String {
        match self {
            Self::Disk(words) | Self::Network(words) | Self::Agent(words) => words,
        }
    }
}

async fn look(to: &Host, uuid: Uuid, had_agent: bool) -> Result<Vec<Flaw>, Fault> {
    to.call("look at the machine after its move", move |c| {
        let Some((found, state)) = domain::find_with_state(c, uuid)? else { return Ok(Vec::new()) };
        if state.state != RunState::Running {
            return Ok(Vec::new());
        }
        let xml = found.xml_desc(0).during("read its definition")?;
        let mut flaws = disks(&found)?;
        flaws.extend(networks(&found, &xml));
        if had_agent {
            flaws.extend(agent(&found, &xml));
        }
        Ok(flaws)
    })
    .await
}

fn disks(found: &virt::domain::Domain) -> Result<Vec<Flaw>, Fault> {
    let errors = match ffi::disk_errors(found).during("ask for errors of its disks") {
        Err(fault) if fault.is_unsupported() => return Ok(Vec::new()),
        other => other?,
    };
    Ok(errors
        .into_iter()
        .map(|(disk, what)| Flaw::Disk(format!("disk {disk} cannot be written to since the move: {what}")))
        .collect())
}

/// Interfaces whose link is up and that have sent nothing: neither the guest nor QEMU has announced them, so the network
/// goes on sending to the old host until something else teaches it.
fn networks(found: &virt::domain::Domain, xml: &str) -> Vec<Flaw> {
    let Ok(tree) = domain_xml::parse(xml) else { return Vec::new() };
    let interfaces = tree.get("devices").into_iter().flat_map(Element::elements).filter(|e| e.name == "interface");
    let silent = interfaces.filter_map(|interface| {
        let device = interface.attribute_at("target", "dev")?;
        let is_down = interface.attribute_at("link", "state") == Some("down");
        let sent = found.interface_stats(device).ok()?;
        let mac = interface.attribute_at("mac", "address").unwrap_or_default();
        (!is_down && sent.tx_packets == 0).then(|| {
            Flaw::Network(format!(
                "interface {mac} ({device}) has sent nothing since the move: the network may not know where it is now"
            ))
        })
    });
    silent.collect()
}

/// Whether a definition has the guest agent's channel; `connected`: and the guest has opened it.
fn has_agent(xml: &str, connected: bool) -> bool {
    let Ok(tree) = domain_xml::parse(xml) else { return false };
    tree.get("devices").into_iter().flat_map(Element::elements).filter(|e| e.name == "channel").any(|channel| {
        channel.attribute_at("target", "name") == Some("org.qemu.guest_agent.0")
            && (!connected || channel.attribute_at("target", "state") == Some("connected"))
    })
}

fn agent(found: &virt::domain::Domain, xml: &str) -> Option<Flaw> {
    if !has_agent(xml, false) {
        return None;
    }
    let why = match found.time(0) {
        Ok(_) => return None,
        Err(error) => error.message().to_owned(),
    };
    Some(Flaw::Agent(format!("its guest agent answered before the move and does not now: {why}")))
}
