//! What happens to the repository: a commit with errors, a rewritten history, a repository that is gone for a while.

use super::*;
use drover::finding::Code;

/// Waits until a machine that was destroyed runs again.
fn runs_again(lab: &Lab, vm: &Guest<'_>, host: &str) {
    lab.virsh_ok(host, &["destroy", vm.name()]);
    wait_for("it is started again", PATIENCE, || match vm.state(host).as_str() {
        "running" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn the_last_good_commit_stays_in_force_whatever_becomes_of_the_repository() {
    let Some(lab) = Lab::shared() else { return };
    let mut fleet = Fleet::new(&lab, "repository");
    let vm = fleet.bare_machine("web", "a");
    let first = fleet.push("web on kvm-a");
    fleet.start();
    fleet.settles(&first);

    // A commit with an error, and a wish.
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    fleet.change(&vm, "memory: 64Mi", "memroy: 64Mi");
    let bad = fleet.push("a slip");
    let status = fleet.until("the error", |s| s.invalid.as_ref().is_some_and(|i| i.commit == bad));
    assert_eq!(status.good.as_deref(), Some(first.as_str()));
    assert!(status.invalid.unwrap().findings.iter().any(|f| f.code == Code::UnknownField));
    let label = format!("Commit {} is invalid and changes nothing", &bad[..7]);
    fleet.status_text().exits(0).says(&[&label, "memroy", "did you mean `memory`", &format!("{}.yaml:10", vm.name())]);
    assert!(fleet.log_text().contains("the new commit is invalid and changes nothing"));
    fleet.plan(&[]).exits(3).says(&["memroy"]);
    runs_again(&lab, &vm, "a");
    fleet.runs_only_on(&vm, "a");

    fleet.change(&vm, "memroy: 64Mi", "memory: 64Mi");
    let good = fleet.push("mended");
    let status = fleet.settles(&good);
    assert!(status.invalid.is_none());
    fleet.runs_only_on(&vm, "b");

    // History is rewritten: what is there now counts.
    fleet.change(&vm, "host: kvm-b", "host: kvm-a");
    git(&fleet.origin.work(), &["commit", "-q", "-a", "--amend", "-m", "mended otherwise"]);
    fleet.send();
    let forced = git(&fleet.origin.work(), &["rev-parse", "HEAD"]);
    let status = fleet.settles(&forced);
    assert!(status.revision.unwrap().rewritten);
    fleet.status_text().says(&["history was rewritten"]);
    fleet.runs_only_on(&vm, "a");

    // Gone, and back.
    let away = fleet.origin.dir.path().join("away.git");
    std::fs::rename(fleet.origin.bare(), &away).unwrap();
    fleet.until("the error", |s| s.fetch.error.is_some());
    fleet.status_text().exits(0).says(&["The repository cannot be read", "fleet.git"]);
    runs_again(&lab, &vm, "a");
    std::fs::rename(&away, fleet.origin.bare()).unwrap();
    fleet.change(&vm, "host: kvm-a", "host: kvm-b");
    let last = fleet.push("to kvm-b");
    let status = fleet.settles(&last);
    assert!(status.fetch.error.is_none() && status.invalid.is_none());
    fleet.runs_only_on(&vm, "b");
    fleet.has_nothing_to_do();
}
