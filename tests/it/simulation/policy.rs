//! What a MigrationPolicy decides in the plan, and what a newer commit says to migrations that are under way.

use super::converge::{converge, plan_for, steps};
use super::guards::fleet;
use super::scenario::{HOSTS, desired};
use super::support::{Run, migration, now, paused, running, step, world};
use drover::action::{Action, MachineAction, Migration, MigrationWay, Order};
use drover::execute::Event;
use drover::finding::Code;
use drover::journal::{Journal, Memory, Outcome};
use drover::kind::migration_policy::{CopyStorage, MigrationPolicySpec};
use drover::kind::settings::{SyncWindow, WindowKind};
use drover::kind::{Resources, orders};
use drover::model::{Rate, Span};
use drover::plan::Plan;
use drover::provider::simulator::{Call, Effect, Fault, World};
use std::sync::Arc;

/// A machine whose disk is in the pool `local`, which every host has for itself, moves from the first host to the second.
fn moves(policy: impl FnOnce(&mut MigrationPolicySpec)) -> (Plan, Resources) {
    moves_between("11.3.0", policy)
}

/// The same, between hosts with this libvirt.
fn moves_between(libvirt: &str, policy: impl FnOnce(&mut MigrationPolicySpec)) -> (Plan, Resources) {
    let mut before = fleet(1);
    for machine in before.virtual_machines.values_mut() {
        machine.spec.disks.as_mut().unwrap()[0].pool = Some("local".into());
    }
    let mut after = before.clone();
    after.virtual_machines.get_mut("vm-0").unwrap().spec.host = Some(HOSTS[1].into());
    policy(&mut after.migration_policies.get_mut("copy").unwrap().spec);
    let wanted = desired(after.clone());
    let plan = paused(async {
        let world = World::new();
        HOSTS.iter().for_each(|h| world.add_host(h));
        let journal: Arc<dyn Journal> = Arc::new(Memory::new());
        converge(&world, &desired(before), &journal).await.unwrap();
        HOSTS.iter().for_each(|h| world.edit(h, |state| state.libvirt_version = libvirt.into()));
        plan_for(&world, &wanted, &[]).await
    });
    (plan, after)
}

fn held_back(plan: &Plan) -> Vec<(Code, String)> {
    plan.steps.iter().flat_map(|s| &s.blocked_by).map(|b| (b.code, b.reason.clone())).collect()
}

fn the_move(plan: &Plan) -> &drover::action::Migration {
    let is_move =
        |s: &&drover::plan::Step| matches!(s.action, Action::Machine(MachineAction::MigrateVirtualMachine(_)));
    match &plan.steps.iter().find(is_move).unwrap_or_else(|| panic!("{}", steps(plan))).action {
        Action::Machine(MachineAction::MigrateVirtualMachine(m)) => m,
        Action::Machine(_) | Action::Cluster(_) => unreachable!(),
    }
}

#[test]
fn machines_move_in_the_windows_of_their_policy() {
    // The tests' time is 2027-01-15 08:00 UTC.
    let window = |kind, start: &str| SyncWindow { kind, days: vec![], start: start.into(), duration: Span(3_600_000) };
    let (plan, _) = moves(|p| p.windows = vec![window(WindowKind::Allow, "07:30")]);
    assert_eq!(held_back(&plan), []);
    for closed in [window(WindowKind::Allow, "22:00"), window(WindowKind::Deny, "07:30")] {
        let (plan, _) = moves(|p| p.windows = vec![closed.clone()]);
        let found = held_back(&plan);
        assert!(found.iter().any(|(code, _)| *code == Code::WindowClosed), "{found:?} at {}", now());
        assert_eq!(plan.runnable().count(), 0, "{}", steps(&plan));
    }
}

/// A machine's own policy comes before that of its placement, which comes before that of Settings.
#[test]
fn a_placement_has_a_policy_of_its_own() {
    use drover::kind::virtual_machine::Placement;
    let with = |own: Option<&str>, placement: Option<&str>| {
        let mut before = fleet(1);
        let policies = &mut before.migration_policies;
        for (name, millis) in [("own", 11), ("placed", 22)] {
            let mut policy = policies["copy"].clone();
            policy.metadata.name = name.into();
            policy.spec.max_downtime = Some(Span(millis));
            policies.insert(name.into(), policy);
        }
        policies.get_mut("copy").unwrap().spec.max_downtime = Some(Span(33));
        for settings in before.settings.values_mut() {
            settings.spec.migration_policy = Some("copy".into());
        }
        let machine = &mut before.virtual_machines.get_mut("vm-0").unwrap().spec;
        machine.migration_policy = own.map(Into::into);
        let mut after = before.clone();
        let machine = &mut after.virtual_machines.get_mut("vm-0").unwrap().spec;
        machine.host = None;
        machine.placement = Some(Placement { migration_policy: placement.map(Into::into), ..Placement::default() });
        after.hosts.get_mut(HOSTS[0]).unwrap().spec.maintenance = drover::kind::host::Maintenance::Evacuate;
        let plan = paused(async {
            let world = World::new();
            HOSTS.iter().for_each(|h| world.add_host(h));
            let journal: Arc<dyn Journal> = Arc::new(Memory::new());
            converge(&world, &desired(before), &journal).await.unwrap();
            plan_for(&world, &desired(after), &[]).await
        });
        the_move(&plan).max_downtime_millis
    };
    assert_eq!(with(Some("own"), Some("placed")), Some(11));
    assert_eq!(with(None, Some("placed")), Some(22));
    assert_eq!(with(None, None), Some(33));
}

#[test]
fn only_the_disks_that_a_policy_names_are_copied() {
    for (named, is_free) in [("root", true), ("vda", true), ("data", false)] {
        let (plan, _) = moves(|p| p.copy_disks = Some(vec![named.into()]));
        let found = held_back(&plan);
        assert_eq!(found.is_empty(), is_free, "{named}: {found:?}");
        if !is_free {
            assert!(found[0].1.contains("not among the `copyDisks`"), "{found:?}");
        }
    }
}

/// The simulated hosts have QEMU 10.0, which has parallel connections or post-copy.
#[test]
fn post_copy_takes_the_place_of_parallel_connections_and_what_needs_them() {
    use drover::kind::migration_policy::{Compression, ParallelConnections, PostCopy};
    let tuned = |post_copy: bool| {
        let (plan, _) = moves(|p| {
            p.copy_storage = CopyStorage::All;
            p.parallel_connections = Some(ParallelConnections::Count(4));
            p.compression = Some(Compression::Zstd);
            p.post_copy = post_copy.then_some(PostCopy { after: Some(Span(60_000)), passes: None, bandwidth: None });
        });
        assert_eq!(held_back(&plan), []);
        let m = the_move(&plan).clone();
        let is_told = plan.steps.iter().flat_map(|s| &s.checks).any(|c| c.message.contains("one connection is used"));
        (m.parallel, m.tuning.compression.clone(), m.may_post_copy(), is_told)
    };
    assert_eq!(tuned(false), (Some(4), Some("zstd".into()), false, false));
    assert_eq!(tuned(true), (None, None, true, true));
}

/// Before libvirt 8.5 a machine in post-copy does not outlive the Drover that drives its move. Parallel connections need not
/// give way to what is left out.
#[test]
fn post_copy_is_left_out_of_a_move_that_an_older_libvirt_would_lose_with_drover() {
    use drover::action::AtTimeout;
    use drover::kind::migration_policy::{Control, ParallelConnections, PostCopy, TimeoutAction};
    let tuned = |libvirt: &str, control| {
        let (plan, _) = moves_between(libvirt, |p| {
            p.copy_storage = CopyStorage::All;
            p.control = control;
            p.parallel_connections = Some(ParallelConnections::Count(4));
            p.timeout.action = TimeoutAction::PostCopy;
            p.post_copy = Some(PostCopy { after: Some(Span(60_000)), passes: Some(9), bandwidth: None });
        });
        assert_eq!(held_back(&plan), []);
        let m = the_move(&plan).clone();
        let is_told = plan.steps.iter().flat_map(|s| &s.checks).any(|c| c.message.contains("post-copy is left out"));
        (m.may_post_copy(), m.tuning.at_timeout, m.parallel, is_told)
    };
    assert_eq!(tuned("8.0.0", Control::Managed), (false, AtTimeout::Abort, Some(4), true));
    assert_eq!(tuned("8.0.0", Control::PeerToPeer), (true, AtTimeout::PostCopy, None, false));
    assert_eq!(tuned("8.5.0", Control::Managed), (true, AtTimeout::PostCopy, None, false));
}

#[test]
fn an_image_without_a_backing_image_is_copied_in_full_by_an_incremental_copy() {
    let (plan, _) = moves(|p| p.copy_storage = CopyStorage::Incremental);
    assert_eq!(held_back(&plan), []);
    let m = the_move(&plan);
    assert!(m.incremental && m.copy.len() == 1 && m.copy[0].backing.is_none(), "{m:?}");
}

#[test]
fn a_newer_commit_speaks_to_the_migration_that_runs() {
    let (running, at_b) = moves(|p| p.bandwidth = Some(Rate(8_000_000)));
    // What it began with is told as well: a commit in between may have said something else.
    let told = orders(&running, &at_b);
    assert_eq!(told.values().cloned().collect::<Vec<_>>(), [Order::Limits(Box::new(the_move(&running).clone()))]);
    // The policy is another: the migration hears its limits.
    let mut faster = at_b.clone();
    faster.migration_policies.get_mut("copy").unwrap().spec.bandwidth = Some(Rate(8_000_000_000));
    let told = orders(&running, &faster);
    let Some(Order::Limits(limits)) = told.values().next() else { panic!("{told:?}") };
    assert_eq!((told.len(), limits.bandwidth_mib), (1, Some(953)));
    // The machine is to stay where it is: the migration is aborted.
    let mut reverted = at_b.clone();
    reverted.virtual_machines.get_mut("vm-0").unwrap().spec.host = Some(HOSTS[0].into());
    let told = orders(&running, &reverted);
    assert!(matches!(told.values().next(), Some(Order::Abort { why }) if why.contains("says `a` again")), "{told:?}");
    // Its manifest is gone, or it is to go on to a third host: it goes on, and what is left is planned after that.
    let mut gone = at_b.clone();
    gone.virtual_machines.clear();
    let mut on = at_b.clone();
    on.virtual_machines.get_mut("vm-0").unwrap().spec.host = Some(HOSTS[2].into());
    assert_eq!(orders(&running, &gone), [].into());
    let told = orders(&running, &on);
    assert_eq!(told.values().cloned().collect::<Vec<_>>(), [Order::Limits(Box::new(the_move(&running).clone()))]);
}

#[test]
fn a_migration_that_is_not_wanted_any_more_is_aborted_and_the_machine_stays() {
    paused(async {
        let world = world();
        let uuid = running(&world, "a", 1).await;
        let run = Run::default();
        let m = migration(1, "a", "b", MigrationWay::Live);
        run.stop.orders.give([("x".to_owned(), Order::Abort { why: "the manifest says `a` again".into() })].into());
        let moved = step("x", MachineAction::MigrateVirtualMachine(Box::new(m)), &[]);
        let report = run.go(&world.fleet(), vec![moved]).await.unwrap();
        let Some(Outcome::Failed { error, .. }) = report.outcomes.get("x") else { panic!("{report:?}") };
        assert!(error.contains("the manifest says `a` again"), "{error}");
        let found = world.find(uuid);
        assert!(found.len() == 1 && found[0].0 == "a" && found[0].1.is_active(), "{found:?}");
    });
}

#[test]
fn a_migration_is_tried_again_as_often_as_its_policy_says() {
    paused(async {
        for (retries, attempts) in [(None, 3), (Some(0), 1), (Some(4), 5)] {
            let world = world();
            running(&world, "a", 1).await;
            let no = Effect::Fails { transient: true, message: "the daemon said no".into() };
            world.inject(Fault::on(Call::Act, no).action("MigrateVirtualMachine"));
            let run = Run::default();
            let m = Migration { retries, ..migration(1, "a", "b", MigrationWay::Live) };
            let moved = step("x", MachineAction::MigrateVirtualMachine(Box::new(m)), &[]);
            run.go(&world.fleet(), vec![moved]).await.unwrap();
            let again = run.events.lock().unwrap().iter().filter(|e| matches!(e, Event::Retrying { .. })).count();
            assert_eq!(again + 1, attempts, "{retries:?}");
        }
    });
}
