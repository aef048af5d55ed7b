//! Failures that break neither host nor link.

use super::super::moves::while_under_way;
use super::*;

/// Case 73.
#[test]
fn a_destination_qemu_that_dies_leaves_the_machine_where_it_was() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("halfdead");
    let uuid = vast(&lab, &vm);
    let m = Migration { bandwidth_mib: Some(1), ..migration(&lab, &vm, uuid) };
    in_client(&lab, async || {
        let (writer, step) = (writer(), step(SOON));
        let kill = async || {
            let killed = lab.inside("b", &["pkill", "-9", "-f", &format!("guest={},", vm.name())]);
            assert!(killed.status.success(), "{killed:?}");
        };
        let error = while_under_way(act(&writer, &m, &step), &step, kill).await.unwrap_err();
        eprintln!("{error} / {:?}", error.hint);
        assert!(error.message.contains("it is running"), "{error}");
        runs_on_alone(&lab, &writer, &m).await;
        arrives(&lab, &writer, &Migration { bandwidth_mib: None, ..m.clone() }).await;
    });
}
