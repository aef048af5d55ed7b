//! Every way in which a policy can make a machine move live, on two real hosts.

use super::moves::{act, born, in_client, migration, moved, writer};
use super::*;
use crate::lab::Lab;
use drover::action::{AtTimeout, Migration, Tuning};
use drover::observed::RunState;
use std::time::SystemTime;

/// One machine moves there and back by each way; none loses a beat.
#[test]
fn a_machine_moves_by_each_way_that_a_policy_names() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("ways");
    let uuid = born(&lab, &vm, "a", &["mem=160", "dirty=8", "rate=4"]);
    vm.wait_beats(10);
    let ways: [(&str, Option<u32>, Tuning); 6] = [
        ("encrypted", None, Tuning { tls: true, ..Tuning::default() }),
        ("through a tunnel", None, Tuning { tunnelled: true, ..Tuning::default() }),
        ("xbzrle", None, Tuning { compression: Some("xbzrle".into()), ..Tuning::default() }),
        ("zstd", Some(2), Tuning { compression: Some("zstd".into()), ..Tuning::default() }),
        ("throttled", None, Tuning { throttle_initial: Some(40), throttle_increment: Some(20), ..Tuning::default() }),
        (
            "with a second limit after the switch",
            None,
            Tuning { post_copy_passes: Some(100), post_copy_bandwidth_mib: Some(100), ..Tuning::default() },
        ),
    ];
    let since = SystemTime::now();
    in_client(&lab, async || {
        let writer = writer();
        let mut here = ["a", "b"];
        for (name, parallel, tuning) in ways {
            let m = Migration {
                from: here[0].into(),
                to: here[1].into(),
                destination_uri: lab.uri(here[1]),
                parallel,
                auto_converge: tuning.throttle_initial.is_some(),
                tuning,
                ..migration(&lab, &vm, uuid)
            };
            act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(moved(&writer, &m).await.state, RunState::Running, "{name}");
            here.reverse();
        }
    });
    vm.wait_beats(5);
    let gap = vm.gap(since);
    assert_eq!(gap.back, 0, "{gap:?}");
}

/// A guest that writes faster than the link carries: what the policy says at the time-out brings it there all the same.
#[test]
fn a_machine_whose_time_is_up_is_paused_and_goes_on_at_the_destination() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("suspended");
    let uuid = born(&lab, &vm, "a", &["dirty=96", "rate=60", "mem=256"]);
    vm.wait_beats(10);
    let m = Migration {
        bandwidth_mib: Some(20),
        timeout_millis: 6_000,
        tuning: Tuning { at_timeout: AtTimeout::Suspend, ..Tuning::default() },
        ..migration(&lab, &vm, uuid)
    };
    let since = SystemTime::now();
    in_client(&lab, async || {
        let writer = writer();
        act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap();
        assert_eq!(moved(&writer, &m).await.state, RunState::Running, "it goes on where it is now");
    });
    vm.wait_beats(5);
    assert_eq!(vm.gap(since).back, 0);
}

#[test]
fn a_machine_switches_to_post_copy_after_passes_or_when_its_time_is_up() {
    let Some(lab) = Lab::shared() else { return };
    for (name, tuning, timeout_millis) in [
        ("passes", Tuning { post_copy_passes: Some(2), ..Tuning::default() }, 120_000),
        ("time-up", Tuning { at_timeout: AtTimeout::PostCopy, ..Tuning::default() }, 5_000),
    ] {
        let vm = lab.guest(name);
        let uuid = born(&lab, &vm, "a", &["dirty=96", "rate=60", "mem=192"]);
        vm.wait_beats(10);
        let m = Migration { bandwidth_mib: Some(20), timeout_millis, tuning, ..migration(&lab, &vm, uuid) };
        in_client(&lab, async || {
            let writer = writer();
            act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(moved(&writer, &m).await.state, RunState::Running, "{name}");
        });
        vm.wait_beats(3);
    }
}

/// The longest pause is raised until the migration fits into it.
#[test]
fn the_longest_pause_is_raised_until_the_machine_is_there() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("raised");
    let uuid = born(&lab, &vm, "a", &["dirty=48", "rate=60", "mem=192"]);
    vm.wait_beats(10);
    let m = Migration {
        bandwidth_mib: Some(20),
        max_downtime_millis: Some(200),
        tuning: Tuning { downtime_up_to_millis: Some(6_400), downtime_every_millis: Some(2_000), ..Tuning::default() },
        ..migration(&lab, &vm, uuid)
    };
    in_client(&lab, async || {
        let writer = writer();
        act(&writer, &m, &step(Duration::from_secs(120))).await.unwrap();
        assert_eq!(moved(&writer, &m).await.state, RunState::Running);
    });
}
