//! The daemon is killed with -9 before, during and just after a migration, and its next start puts things right.

use super::*;
use std::io::{BufRead as _, BufReader};
use std::time::Instant;

/// Waits, without a pause, until a migration's intent is in the journal.
fn wait_for_intent(fleet: &Fleet<'_>) {
    let begun = Instant::now();
    while !fleet.in_doubt().iter().any(|s| s.contains("live-migrate")) {
        assert!(begun.elapsed() < PATIENCE, "{}", fleet.log_text());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Hears a host's libvirt say that a machine runs there now.
struct Arrivals {
    virsh: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Arrivals {
    fn at(lab: &Lab, host: &str) -> Self {
        let uri = lab.uri(host);
        let event = ["-oL", "virsh", "-c", &uri, "event", "--event", "lifecycle", "--loop"];
        let mut virsh = lab.client_command("stdbuf", &event).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(virsh.stdout.take().unwrap()).lines();
        Self { virsh, lines }
    }

    fn wait_for(&mut self, vm: &Guest<'_>) {
        let arrived = |l: &String| l.contains(&format!("'{}'", vm.name())) && l.contains("Resumed");
        assert!(self.lines.by_ref().map(Result::unwrap).any(|l| arrived(&l)), "no word of its arrival");
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        let _ = self.virsh.kill();
        let _ = self.virsh.wait();
    }
}

#[test]
fn a_daemon_that_is_killed_around_a_migration_is_made_good_by_the_next() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "crash");
    let vm = fleet.machine("web");
    fleet.change(&vm, "cpus: 1", "cpus: 1\n  autostart: true");
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);
    vm.wait_beats(3);
    let since = SystemTime::now();

    // Right after the intent, before libvirt was asked for anything.
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let commit = fleet.push("to kvm-b");
    wait_for_intent(&fleet);
    fleet.kill();
    fleet.runs_only_on(&vm, "a");
    assert_eq!(fleet.in_doubt().len(), 1, "the intent is not in the journal");
    fleet.start();
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    fleet.has_nothing_to_do();
    fleet.has_lived(&vm, since, "b");

    // While memory flows: the migration goes on by itself, and the next daemon follows it instead of beginning another.
    fleet.change(&vm, "host: kvm-b", "host: kvm-a\n  migrationPolicy: slow");
    let commit = fleet.push("slowly to kvm-a");
    fleet.is_under_way(&vm, "b");
    fleet.kill();
    fleet.is_under_way(&vm, "b");
    assert_eq!((vm.state("b").as_str(), vm.state("a").as_str()), ("running", "paused"));
    let killed_at = fleet.log_text().len();
    fleet.start();
    fleet.until("the migration is followed", |s| {
        s.current
            .as_ref()
            .is_some_and(|c| c.steps.values().any(|s| s.progress.as_ref().is_some_and(|p| p.processed > 0)))
    });
    fleet.hurry(&vm, "b");
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "a");
    fleet.has_nothing_to_do();
    fleet.has_lived(&vm, since, "a");
    let log = fleet.log_text().split_off(killed_at);
    assert!(log.contains("taking up a migration that is under way"), "{log}");

    // When it runs there and the daemon has not heard so yet: the rest of the move is still to be done.
    let mut arrivals = Arrivals::at(&lab, "b");
    fleet.change(&vm, "host: kvm-a\n  migrationPolicy: slow", "host: kvm-b");
    let commit = fleet.push("back to kvm-b");
    arrivals.wait_for(&vm);
    fleet.kill();
    assert_eq!(fleet.in_doubt().len(), 1, "the outcome was written before the daemon was killed");
    fleet.start();
    fleet.settles(&commit);
    fleet.runs_only_on(&vm, "b");
    fleet.has_nothing_to_do();
    let info = lab.virsh_ok("b", &["dominfo", vm.name()]);
    let autostart = info.lines().find_map(|l| l.strip_prefix("Autostart:")).map(str::trim);
    assert_eq!(autostart, Some("enable"), "{info}");
    let heard = fleet.has_lived(&vm, since, "b");
    assert_eq!(heard.sources, ["10.77.0.1", "10.77.0.2", "10.77.0.1", "10.77.0.2"], "{heard:?}");

    assert!(fleet.in_doubt().is_empty());
    let cut_off = |p: &PassRecord| p.result.as_deref() == Some("interrupted");
    assert_eq!(fleet.history().iter().filter(|p| cut_off(p)).count(), 3, "{:#?}", fleet.history());
}
