//! Moves of machines that are paused, or become so.

use super::super::moves::while_under_way;
use super::*;

/// Cases 16, 17 and 20.
#[test]
fn a_paused_machine_moves_paused_and_stays_paused_when_its_move_is_aborted() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("paused");
    let uuid = vast(&lab, &vm);
    lab.virsh_ok("a", &["suspend", vm.name()]);
    let m = migration(&lab, &vm, uuid);
    in_client(&lab, async || {
        let writer = writer();
        let (step, orders) = commanded(SOON);
        let slow = Migration { bandwidth_mib: Some(1), ..m.clone() };
        let result = while_under_way(act(&writer, &slow, &step), &step, async || abort(&orders)).await;
        assert!(result.unwrap_err().message.contains("so it was aborted"));
        let here = domain(&writer, "a", uuid).await.unwrap();
        assert_eq!((here.state, here.job.is_none(), here.owner), (RunState::Paused, true, Some(mark(vm.name()))));
        assert!(domain(&writer, "b", uuid).await.is_none(), "the destination has something of it");
        // A policy with post-copy is no hindrance, which libvirt refuses for a paused machine.
        let tuning = Tuning { post_copy_passes: Some(1), at_timeout: AtTimeout::PostCopy, ..Tuning::default() };
        let there = arrives(&lab, &writer, &Migration { tuning, ..m }).await;
        assert_eq!(there.state, RunState::Paused);
    });
}

/// Case 19: what virsh does without `--live` is a time-out of nothing with `action: Suspend`.
#[test]
fn a_machine_that_is_paused_from_the_start_of_its_move_runs_at_its_end() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("nonlive");
    let uuid = vast(&lab, &vm);
    let tuning = Tuning { at_timeout: AtTimeout::Suspend, ..Tuning::default() };
    let m = Migration { bandwidth_mib: Some(1), timeout_millis: 1, tuning, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(SOON));
        while_under_way(act(&writer, &m, &step), &step, async || {
            wait_for("it is paused", Duration::from_secs(5), || match vm.state("a").as_str() {
                "paused" => Ok(()),
                other => Err(other.to_owned()),
            });
            hurry(&lab, &vm, "a");
        })
        .await
        .unwrap();
        assert_eq!(moved(&writer, &m).await.state, RunState::Running);
        assert_eq!(lab.processes(vm.name()), ["b"]);
    });
}
