//! What a machine that has arrived shows of itself: its disks give no errors, its network has been heard of, its agent
//! answers where one was connected before.
//!
//! *Promise*: only asks. What is not in order is said; the move is done all the same, and undoing it would help nobody.

use crate::action::Migration;
use crate::domain_xml::{self, Element};
use crate::observed::{DomainState, RunState};
use crate::provider::Note;
use crate::provider::libvirt::connect::Host;
use crate::provider::libvirt::error::{During, Fault};
use crate::provider::libvirt::{domain, ffi};
use std::time::{Duration, Instant};
use uuid::Uuid;
use virt_sys as sys;

/// How long the network may take: QEMU announces a guest that arrives five times within half a second
/// (`announce-initial`, `announce-rounds`).
const NETWORK_WITHIN: Duration = Duration::from_secs(3);

/// How long the agent may take in all: the guest's side of the channel is opened anew.
const AGENT_WITHIN: Duration = Duration::from_secs(20);

/// How long one question to the agent may take: libvirt gives the first one on a new channel five seconds. A later one to
/// an agent that has fallen silent it waits on for ever, and nothing else gets through to the agent meanwhile (seen).
const AGENT_CALL: Duration = Duration::from_secs(8);

const AGAIN: Duration = Duration::from_millis(250);

/// What is not in order with a machine that has just moved; empty where all is well, or where it does not run.
pub(super) async fn prove(to: &Host, m: &Migration, before: Option<&DomainState>) -> Vec<Note> {
    // It is not asked before the move: an agent that is silent would hold libvirt's call for ever.
    let had_agent = before.and_then(|b| b.live_xml.as_deref()).is_some_and(has_agent);
    let begun = Instant::now();
    let runs = before.is_some_and(|b| b.state == RunState::Running) && !m.arrive_paused;
    let mut flaws = loop {
        match look(to, m.uuid, runs).await {
            Ok(None) => return Vec::new(),
            Ok(Some(found)) => {
                // What may still come is waited for; what is wrong for good is not.
                if found.iter().all(|f| f.passing.is_none_or(|limit| begun.elapsed() >= limit)) {
                    break found;
                }
            }
            Err(fault) => return vec![unseen(&m.to, &fault)],
        }
        tokio::time::sleep(AGAIN).await;
    };
    if had_agent {
        flaws.extend(agent(to, m.uuid).await);
    }
    flaws.into_iter().map(|f| f.note).collect()
}

fn unseen(host: &str, fault: &Fault) -> Note {
    let text = format!("what it does on `{host}` could not be looked at after the move: {fault}");
    let hint = fault.hint().unwrap_or_else(|| "look at the machine yourself".into());
    Note { text, hint }
}

/// Something that is not as it should be.
struct Flaw {
    note: Note,
    /// Until when it may go away by itself.
    passing: Option<Duration>,
}

impl Flaw {
    fn new(passing: Option<Duration>, text: String, hint: &str) -> Self {
        Self { note: Note { text, hint: hint.into() }, passing }
    }
}

/// `None` where the machine does not run here, and did not run before (`runs`).
async fn look(to: &Host, uuid: Uuid, runs: bool) -> Result<Option<Vec<Flaw>>, Fault> {
    to.call("look at the machine after its move", move |c| {
        let Some((found, state)) = domain::find_with_state(c, uuid)? else { return Ok(None) };
        if state.state != RunState::Running {
            if !runs {
                return Ok(None);
            }
            // QEMU stops a guest whose disk gives an error (`werror=stop`), and only then knows which it was.
            let mut flaws = if state.is_active() { disks(&found)? } else { Vec::new() };
            let has_errors = !flaws.is_empty();
            flaws.push(stands_still(&state, has_errors));
            return Ok(Some(flaws));
        }
        let xml = found.xml_desc(0).during("read its definition")?;
        let mut flaws = disks(&found)?;
        flaws.extend(networks(&found, &xml));
        Ok(Some(flaws))
    })
    .await
}

/// A machine that ran before it moved, and does not now. libvirt, busy with letting it run, does not always say that it was
/// an error of a disk.
fn stands_still(state: &DomainState, has_errors: bool) -> Flaw {
    let passing = (state.state == RunState::Paused).then_some(NETWORK_WITHIN);
    let hint = match state.reason.as_str() {
        reason if has_errors || reason == "io-error" => {
            "one of its disks gives errors: look at the free space and the rights of its pool, then `virsh resume`"
        }
        _ => {
            "its log at the destination says more (/var/log/libvirt/qemu); Drover starts it again where its manifest wants it running"
        }
    };
    Flaw::new(passing, format!("it ran before, and is {} now", domain::word(state)), hint)
}

fn disks(found: &virt::domain::Domain) -> Result<Vec<Flaw>, Fault> {
    let errors = match ffi::disk_errors(found).during("ask for errors of its disks") {
        Err(fault) if fault.is_unsupported() => return Ok(Vec::new()),
        other => other?,
    };
    Ok(errors
        .into_iter()
        .map(|(disk, what)| {
            let text = format!("disk {disk} cannot be written to since the move: {what}");
            Flaw::new(None, text, "look at the free space and the rights of the disk's pool at the destination")
        })
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
            let text = format!(
                "interface {mac} ({device}) has sent nothing since the move: the network may not know where it is now"
            );
            let hint = "see whether the bridge at the destination is on the same segment, and let the guest send something (a ping from inside)";
            Flaw::new(Some(NETWORK_WITHIN), text, hint)
        })
    });
    silent.collect()
}

/// Whether a machine has a channel for the guest agent, and the guest has opened it.
fn has_agent(xml: &str) -> bool {
    let Ok(tree) = domain_xml::parse(xml) else { return false };
    tree.get("devices").into_iter().flat_map(Element::elements).filter(|e| e.name == "channel").any(|channel| {
        channel.attribute_at("target", "name") == Some("org.qemu.guest_agent.0")
            && channel.attribute_at("target", "state") == Some("connected")
    })
}

/// Waits for the agent's answer. Any answer will do: one that refuses the question is alive, too.
async fn agent(to: &Host, uuid: Uuid) -> Option<Flaw> {
    let begun = Instant::now();
    loop {
        let asked = to
            .call_within("ask its guest agent", AGENT_CALL, move |c| {
                let Some((found, state)) = domain::find_with_state(c, uuid)? else { return Ok(()) };
                // Stopped or paused meanwhile: nobody can answer.
                if state.state != RunState::Running {
                    return Ok(());
                }
                found.time(0).map(drop).during("ask its guest agent")
            })
            .await;
        let (why, may_come) = match asked {
            Ok(()) => return None,
            Err(fault) if is_silent(&fault) => (fault.words(), true),
            // Asked again, it would hang again.
            Err(Fault::Hung { after, .. }) => (format!("no answer within {} s", after.as_secs()), false),
            Err(fault) if fault.broke_connection() => {
                return Some(Flaw { note: unseen(&to.name, &fault), passing: None });
            }
            Err(fault) => {
                tracing::debug!(%uuid, error = %fault, "the guest agent refuses the question");
                return None;
            }
        };
        if !may_come || begun.elapsed() >= AGENT_WITHIN {
            let text = format!("its guest agent was connected before the move and does not answer now: {why}");
            let hint =
                "look at the agent's service in the guest (`systemctl status qemu-guest-agent`), and start it again";
            return Some(Flaw::new(None, text, hint));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether a fault is the agent's silence, and not what it said.
fn is_silent(fault: &Fault) -> bool {
    matches!(
        fault.code(),
        Some(sys::VIR_ERR_AGENT_UNRESPONSIVE | sys::VIR_ERR_AGENT_UNSYNCED | sys::VIR_ERR_AGENT_COMMAND_TIMEOUT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(state: RunState, reason: &str) -> DomainState {
        DomainState::new("web-1".into(), Uuid::nil(), state, reason.into(), true)
    }

    #[test]
    fn a_machine_that_stands_still_is_waited_for_only_where_it_may_go_on() {
        let paused = stands_still(&domain(RunState::Paused, "io-error"), false);
        assert_eq!(paused.note.text, "it ran before, and is paused (io-error) now");
        assert!(paused.note.hint.contains("free space") && paused.passing == Some(NETWORK_WITHIN));
        let in_between = stands_still(&domain(RunState::Paused, "user"), true);
        assert!(in_between.note.hint.contains("free space"), "{}", in_between.note.hint);
        let off = stands_still(&domain(RunState::Off, "crashed"), false);
        assert_eq!(off.note.text, "it ran before, and is off (crashed) now");
        assert!(off.note.hint.contains("/var/log/libvirt/qemu") && off.passing.is_none());
    }

    #[test]
    fn an_agent_is_asked_where_the_guest_has_opened_its_channel() {
        let xml = |name: &str, state: &str| {
            format!(
                "<domain><devices><channel type='unix'><target type='virtio' name='{name}' state='{state}'/></channel></devices></domain>"
            )
        };
        assert!(has_agent(&xml("org.qemu.guest_agent.0", "connected")));
        assert!(!has_agent(&xml("org.qemu.guest_agent.0", "disconnected")));
        assert!(!has_agent(&xml("com.redhat.spice.0", "connected")));
        assert!(!has_agent("<domain"));
    }
}
