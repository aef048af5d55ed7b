//! A guest agent: what a move says of it, and what a shutdown owes to it.

use super::moves::{act, born, in_client, migration, moved, while_under_way, writer};
use super::*;
use crate::lab::{Guest, Lab, wait_for};
use drover::action::Migration;

/// Waits until the guest has opened its agent's channel, and the agent answers.
fn wait_for_agent(lab: &Lab, vm: &Guest, host: &str) {
    wait_for("the agent answers", Duration::from_secs(60), || {
        let xml = lab.virsh_ok(host, &["dumpxml", vm.name()]);
        match xml.contains("name='org.qemu.guest_agent.0' state='connected'") {
            true => Ok(()),
            false => Err(xml),
        }
    });
    tell(lab, vm, host, "guest-ping");
}

fn tell(lab: &Lab, vm: &Guest, host: &str, command: &str) {
    let answer = lab.virsh_ok(host, &["qemu-agent-command", vm.name(), &format!("{{\"execute\":\"{command}\"}}")]);
    assert_eq!(answer, "{\"return\":{}}", "{command}");
}

/// Moves, and returns what was said of the machine after it.
async fn notes_of_move(writer: &Writer, m: &Migration) -> Vec<Note> {
    let step = step(Duration::from_secs(120));
    act(writer, m, &step).await.unwrap();
    moved(writer, m).await;
    step.notes.lock().unwrap().clone()
}

#[test]
fn an_agent_that_falls_silent_on_the_way_is_told_of_and_one_that_answers_is_not() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("agent");
    let uuid = born(&lab, &vm, "a", &["agent=1", "mem=256", "dirty=48", "rate=2"]);
    wait_for_agent(&lab, &vm, "a");
    let there = migration(&lab, &vm, uuid);
    let back = Migration { from: "b".into(), to: "a".into(), destination_uri: lab.uri("a"), ..there.clone() };
    in_client(&lab, async || {
        let writer = writer();
        assert_eq!(notes_of_move(&writer, &there).await, []);

        let slow = Migration { bandwidth_mib: Some(16), ..back.clone() };
        let step = step(Duration::from_secs(120));
        while_under_way(act(&writer, &slow, &step), &step, async || tell(&lab, &vm, "b", "lab-mute")).await.unwrap();
        moved(&writer, &slow).await;
        let notes = step.notes.lock().unwrap().clone();
        let [Note { text, hint }] = notes.as_slice() else { panic!("{notes:?}") };
        let begins = format!("`{}` has moved to `a`: its guest agent was connected before the move", vm.name());
        assert!(text.starts_with(&begins) && text.contains("does not answer now: "), "{text}");
        assert!(hint.contains("qemu-guest-agent"), "{hint}");

        // One that had ended before is not missed.
        lab.virsh_ok("a", &["destroy", vm.name()]);
        vm.start("a");
        wait_for_agent(&lab, &vm, "a");
        tell(&lab, &vm, "a", "lab-quit");
        wait_for("the channel is closed", Duration::from_secs(10), || {
            let xml = lab.virsh_ok("a", &["dumpxml", vm.name()]);
            if xml.contains("state='disconnected'") { Ok(()) } else { Err(xml) }
        });
        assert_eq!(notes_of_move(&writer, &there).await, []);
    });
}

/// The lab's guest does not hear ACPI, so that one that shuts down has been told by its agent.
#[test]
fn a_guest_is_shut_down_by_its_agent() {
    let Some(lab) = Lab::shared() else { return };
    let (with, without) = (lab.guest("agent-off"), lab.guest("no-agent"));
    let uuids = [(&with, "agent=1"), (&without, "agent=0")].map(|(vm, agent)| born(&lab, vm, "a", &[agent]));
    wait_for_agent(&lab, &with, "a");
    without.wait_beats(5);
    in_client(&lab, async || {
        let writer = writer();
        let shutdown = |uuid, timeout_millis| MachineAction::ShutdownDomain {
            host: "a".into(),
            uuid,
            timeout_millis,
            force: false,
        };
        let stays = Action::Machine(shutdown(uuids[1], 3_000));
        let error = writer.act(&stays, &step(Duration::from_secs(60)).ctx).await.unwrap_err();
        assert!(error.message.contains("did not shut down within 3 s"), "{error}");
        carry_out(&writer, shutdown(uuids[0], 60_000)).await;
    });
    assert_eq!((with.state("a").as_str(), without.state("a").as_str()), ("shut off", "running"));
}
