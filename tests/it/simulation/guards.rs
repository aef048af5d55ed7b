//! Guard rails hold back whole changes: nothing is disturbed for the sake of a step that may not come.

use super::converge::{converge, plan_for, steps};
use super::scenario::{HOSTS, desired, ground};
use super::support::paused;
use drover::action::{Action, MachineAction};
use drover::journal::{Journal, Memory};
use drover::kind::Resources;
use drover::kind::migration_policy::Mode;
use drover::kind::settings::SettingsSpec;
use drover::kind::virtual_machine::{DeletionPolicy, Disk, DiskFormat, RestartPolicy, VirtualMachineSpec};
use drover::model::{Bytes, Manifest};
use drover::plan::Plan;
use drover::provider::simulator::World;
use std::sync::Arc;

/// `n` running machines, each with a volume of its own, that go when their manifests go.
pub fn fleet(n: usize) -> Resources {
    let mut all = ground();
    for i in 0..n {
        let name = format!("vm-{i}");
        let disk = Disk {
            name: "root".into(),
            pool: Some("shared".into()),
            size: Some(Bytes(1 << 30)),
            format: Some(DiskFormat::Qcow2),
            ..Disk::default()
        };
        let spec = VirtualMachineSpec {
            host: Some(HOSTS[0].into()),
            memory: Some(Bytes(256 << 20)),
            disks: Some(vec![disk]),
            deletion_policy: DeletionPolicy::Delete,
            ..VirtualMachineSpec::default()
        };
        let text = serde_json::json!({"metadata": {"name": name}, "spec": spec});
        let manifest: Manifest<VirtualMachineSpec> = Manifest {
            kind: <VirtualMachineSpec as drover::kind::Spec>::KIND,
            metadata: serde_json::from_value(text["metadata"].clone()).unwrap(),
            spec,
            origin: Default::default(),
        };
        all.virtual_machines.insert(name, manifest);
    }
    all
}

fn settings(resources: &mut Resources, change: impl FnOnce(&mut SettingsSpec)) {
    change(&mut resources.settings.values_mut().next().unwrap().spec);
}

/// A world in which the fleet runs, and the plan for another wish.
fn then(before: Resources, after: Resources) -> Plan {
    paused(async {
        let world = World::new();
        HOSTS.iter().for_each(|h| world.add_host(h));
        let journal: Arc<dyn Journal> = Arc::new(Memory::new());
        converge(&world, &desired(before), &journal).await.unwrap();
        plan_for(&world, &desired(after), &[]).await
    })
}

fn runnable(plan: &Plan) -> usize {
    plan.runnable().count()
}

#[test]
fn a_machine_is_not_shut_down_for_a_deletion_that_is_held_back() {
    for (machines, max_deletes) in [(1, 0), (2, 1), (3, 2)] {
        let mut after = ground();
        settings(&mut after, |s| s.max_deletes = max_deletes);
        let plan = then(fleet(machines), after);
        assert_eq!(plan.steps.len(), 3 * machines, "{}", steps(&plan));
        assert_eq!(runnable(&plan), 0, "{}", steps(&plan));
        assert_eq!(plan.summary.blocked as usize, machines);
        let told = format!("{machines} thing{} would be deleted at once", if machines == 1 { "" } else { "s" });
        assert!(plan.steps.iter().flat_map(|s| &s.blocked_by).any(|b| b.reason.contains(&told)), "{}", steps(&plan));
    }
}

#[test]
fn a_machine_and_what_was_made_for_it_are_one_deletion() {
    let mut after = ground();
    settings(&mut after, |s| s.max_deletes = SettingsSpec::default().max_deletes);
    let plan = then(fleet(1), after);
    assert_eq!((plan.steps.len(), runnable(&plan)), (3, 3), "{}", steps(&plan));
    assert_eq!(plan.summary.delete, 1);
}

#[test]
fn a_machine_is_not_shut_down_for_a_move_that_comes_later() {
    // An offline move of a running machine disturbs it twice, and is one disturbance.
    let mut after = fleet(2);
    settings(&mut after, |s| s.max_disruptive = Some(1));
    for policy in after.migration_policies.values_mut() {
        policy.spec.mode = Mode::Offline;
    }
    for machine in after.virtual_machines.values_mut() {
        machine.spec.host = Some(HOSTS[1].into());
        machine.spec.restart_policy = RestartPolicy::Allow;
    }
    let plan = then(fleet(2), after);
    let of = |name: &str| plan.steps.iter().filter(|s| s.resource.name == name).collect::<Vec<_>>();
    assert!(of("vm-0").len() >= 2, "{}", steps(&plan));
    assert!(of("vm-0").iter().all(|s| !s.is_blocked()), "{}", steps(&plan));
    assert!(of("vm-1").iter().all(|s| s.is_blocked()), "{}", steps(&plan));
    let shut_down = |a: &Action| matches!(a, Action::Machine(MachineAction::ShutdownDomain { .. }));
    assert!(of("vm-1").iter().any(|s| shut_down(&s.action)), "{}", steps(&plan));
}

#[test]
fn a_machine_that_is_let_go_is_not_called_deleted() {
    let mut before = fleet(1);
    before.virtual_machines.values_mut().for_each(|m| m.spec.deletion_policy = DeletionPolicy::Orphan);
    let mut after = ground();
    settings(&mut after, |s| s.max_deletes = 0);
    let plan = then(before, after);
    assert_eq!((plan.summary.delete, plan.summary.update, runnable(&plan)), (0, 1, 1), "{}", steps(&plan));
    let mut text = Vec::new();
    drover::render::text::write(&mut text, &plan, drover::render::text::Options { colour: false, full: false })
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("# VirtualMachine/vm-0 will be let go, and stays as it is"), "{text}");
}
