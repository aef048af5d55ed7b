//! Limits and ways of travelling: those that work, and those that libvirt or QEMU refuse.

use super::super::moves::while_under_way;
use super::*;
use std::time::Instant;

/// Cases 59, 60 and 61: parallel connections, compression, zero-copy.
#[test]
fn ways_that_do_not_go_together_are_refused_and_the_machine_stays() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("refused");
    let uuid = bare(&lab, &vm, &[]);
    let m = migration(&lab, &vm, uuid);
    let compressed = |method: &str| Tuning { compression: Some(method.into()), ..Tuning::default() };
    let zero_copy = Tuning { zero_copy: true, ..Tuning::default() };
    in_client(&lab, async || {
        let writer = writer();
        for (name, parallel, tuning, words) in [
            ("no connection at all", Some(0), Tuning::default(), "multifd"),
            ("more than QEMU takes", Some(256), Tuning::default(), "multifd"),
            ("mt went with QEMU 9.1", None, compressed("mt"), "compress"),
            ("xbzrle over several connections", Some(2), compressed("xbzrle"), "compress"),
            ("zstd over one connection", None, compressed("zstd"), "compress"),
            (
                "post-copy over several connections, before QEMU 10.1",
                Some(2),
                Tuning { post_copy_passes: Some(9), ..Tuning::default() },
                "multifd",
            ),
            ("zero-copy over one connection", None, zero_copy.clone(), "zero"),
            ("zero-copy, encrypted", Some(2), Tuning { tls: true, ..zero_copy.clone() }, "zero"),
            (
                "zero-copy, compressed",
                Some(2),
                Tuning { compression: Some("zstd".into()), ..zero_copy.clone() },
                "zero",
            ),
        ] {
            let error = fails(&lab, &writer, &Migration { parallel, tuning, ..m.clone() }).await;
            eprintln!("{name}: {error} / {:?}", error.hint);
            assert!(error.message.to_lowercase().contains(words) && !error.transient, "{name}: {error}");
        }
        // What is left in place by none of them.
        arrives(&lab, &writer, &Migration { parallel: Some(4), ..m.clone() }).await;
    });
}

/// Case 54: a bandwidth that is more than a number can hold, and one that is kept to.
#[test]
fn a_bandwidth_is_kept_to_and_one_without_measure_is_refused() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("bandwidth");
    let uuid = vast(&lab, &vm);
    let m = migration(&lab, &vm, uuid);
    in_client(&lab, async || {
        let writer = writer();
        // libvirt checks the limit for post-copy, and lets the other one overflow. No manifest gets there: the largest rate
        // that can be written is this.
        let largest = (u64::MAX / 8) >> 20;
        let tuning = Tuning {
            post_copy_passes: Some(9),
            post_copy_bandwidth_mib: Some((u64::MAX >> 20) + 1),
            ..Tuning::default()
        };
        let error = fails(&lab, &writer, &Migration { tuning, ..m.clone() }).await;
        assert!(error.message.contains("overflow") && !error.transient, "{error}");
        let begun = Instant::now();
        arrives(&lab, &writer, &Migration { bandwidth_mib: Some(2), ..m.clone() }).await;
        assert!(begun.elapsed() > Duration::from_secs(3), "9 MiB at 2 MiB/s: {:?}", begun.elapsed());
        arrives(&lab, &writer, &Migration { bandwidth_mib: Some(largest), ..back(&lab, &m) }).await;
    });
}

/// Case 58: a person on the host switches to post-copy, where the policy would have done so much later.
#[test]
fn a_switch_to_post_copy_by_hand_is_followed_to_its_end() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("byhand");
    let uuid = vast(&lab, &vm);
    let tuning = Tuning { post_copy_passes: Some(1000), ..Tuning::default() };
    let m = Migration { bandwidth_mib: Some(1), tuning, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(SOON));
        let switch = async || drop(lab.virsh_ok("a", &["migrate-postcopy", vm.name()]));
        let begun = Instant::now();
        while_under_way(act(&writer, &m, &step), &step, switch).await.unwrap();
        eprintln!("{:?}", begun.elapsed());
        assert_eq!(moved(&writer, &m).await.state, RunState::Running);
        assert_eq!(lab.processes(vm.name()), ["b"]);
    });
}

/// Case 57: a guest that writes faster than the link carries is slowed down, by as much as the policy says at first.
#[test]
fn a_guest_that_does_not_converge_is_throttled_as_the_policy_says() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("throttled");
    let uuid = born(&lab, &vm, "a", &["dirty=96", "rate=200", "mem=192"]);
    vm.wait_beats(10);
    let tuning = Tuning { throttle_initial: Some(37), throttle_increment: Some(11), ..Tuning::default() };
    let m = Migration { bandwidth_mib: Some(20), auto_converge: true, tuning, ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(SOON));
        while_under_way(act(&writer, &m, &step), &step, async || {
            wait_for("the guest is throttled", Duration::from_secs(40), || {
                let job = lab.virsh_ok("a", &["domjobinfo", vm.name()]);
                let throttle = job.lines().find_map(|l| l.strip_prefix("Auto converge throttle:"));
                let by: Option<u32> = throttle.and_then(|t| t.trim().trim_end_matches('%').trim().parse().ok());
                match by {
                    Some(37 | 48 | 59) => Ok(()),
                    _ => Err(job),
                }
            });
            hurry(&lab, &vm, "a");
        })
        .await
        .unwrap();
        moved(&writer, &m).await;
    });
    vm.wait_beats(3);
}
