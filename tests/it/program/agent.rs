//! A machine with a guest agent by its manifest: shut down through it, moved with it, and missed when it falls silent.

use super::*;

/// Sends the agent a command that it answers with nothing; `Err` while it cannot be reached.
fn ask(lab: &Lab, vm: &Guest<'_>, host: &str, command: &str) -> Result<(), String> {
    let out = lab.virsh(host, &["qemu-agent-command", vm.name(), &format!("{{\"execute\":\"{command}\"}}")]);
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

#[test]
fn a_machine_is_shut_down_by_its_agent_and_one_that_falls_silent_is_told_of_in_the_status() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "agent");
    let vm = fleet.machine("web");
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  guestAgent: true\n  powerState: Running\n  migrationPolicy: slow");
    let first = fleet.push("web on kvm-a, with an agent");
    fleet.start();
    fleet.settles(&first);
    fleet.has_nothing_to_do();
    let answers = || wait_for("the agent answers", PATIENCE, || ask(&lab, &vm, "a", "guest-ping"));
    answers();

    // The guest does not hear ACPI: only its agent can shut it down.
    fleet.change(&vm, "powerState: Running", "powerState: Stopped");
    let off = fleet.push("web is shut down");
    fleet.settles(&off);
    assert_eq!(vm.state("a"), "shut off");
    fleet.change(&vm, "powerState: Stopped", "powerState: Running");
    let on = fleet.push("web runs again");
    fleet.settles(&on);
    answers();

    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let commit = fleet.push("web moves to kvm-b");
    fleet.is_under_way(&vm, "a");
    ask(&lab, &vm, "a", "lab-mute").unwrap();
    fleet.hurry(&vm, "a");
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    let silent = "its guest agent was connected before the move and does not answer now";
    fleet.status_text().exits(0).says(&["D0418", vm.name(), silent, "qemu-guest-agent"]);
}
