//! VirtualMachineMigrations: they run once, they are satisfied, they can be taken back, and a machine that is elsewhere for a
//! while is neither a twin nor drift.

use super::converge::{converge, plan_for, steps};
use super::scenario::{Dice, by_hand, desired, ground, id, machine as any_machine};
use super::support::{Run, now, paused, running, world};
use drover::action::{Action, MachineAction, Migration, MigrationWay};
use drover::execute::recover;
use drover::finding::Code;
use drover::journal::{Journal, Memory};
use drover::kind::virtual_machine::{PowerState, VirtualMachineSpec};
use drover::kind::virtual_machine_migration::VirtualMachineMigrationSpec;
use drover::kind::{Resources, Spec};
use drover::model::{Manifest, Metadata, Origin};
use drover::observed::{DomainState, RunState};
use drover::plan::{Plan, Sync};
use drover::provider::simulator::{Call, Effect, Fault, World};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn manifest<S: Spec>(name: &str, spec: S) -> Manifest<S> {
    let metadata = Metadata { name: name.into(), ..Default::default() };
    Manifest { kind: S::KIND, metadata, spec, origin: Origin { file: "all.yaml".into(), ..Default::default() } }
}

/// Adds a migration, or puts it in the place of the one of its name.
fn migration(all: &mut Resources, name: &str, spec: &str) {
    let spec: VirtualMachineMigrationSpec = serde_yaml::from_str(&format!("{{{spec}}}")).unwrap();
    all.virtual_machine_migrations.insert(name.into(), manifest(name, spec));
}

/// Adds a machine without disks, pinned to host `a`.
fn pinned(all: &mut Resources, name: &str) {
    let spec = serde_yaml::from_str(
        "{host: a, cpus: 1, memory: 256Mi, machine: q35, interfaces: [{network: default}], autostart: true}",
    );
    all.virtual_machines.insert(name.into(), manifest(name, spec.unwrap()));
}

/// What must hold of the manifests themselves.
fn valid(all: &Resources) {
    let mut findings = Vec::new();
    all.check(&mut findings);
    assert!(findings.iter().all(|f| !f.is_error()), "{findings:#?}");
}

/// Carries it out with a journal that knows nothing: what was done must not be known from there.
async fn settle(world: &World, all: &Resources) -> usize {
    valid(all);
    let journal: Arc<dyn Journal> = Arc::new(Memory::new());
    let passes = converge(world, &desired(all.clone()), &journal).await.unwrap();
    let again = plan_for(world, &desired(all.clone()), &[]).await;
    assert!(again.steps.is_empty(), "{}\n{:#?}", steps(&again), again.findings);
    passes
}

/// Hosts whose pools are as the manifests say.
async fn quiet() -> World {
    let world = world();
    settle(&world, &ground()).await;
    world
}

fn at(world: &World, uuid: Uuid) -> Vec<(String, RunState, bool)> {
    world.find(uuid).into_iter().map(|(host, d)| (host, d.state, d.persistent)).collect()
}

fn domain(world: &World, host: &str, uuid: Uuid) -> DomainState {
    world.find(uuid).into_iter().find(|(h, _)| h == host).unwrap_or_else(|| panic!("nothing on {host}")).1
}

fn running_at(host: &str) -> Vec<(String, RunState, bool)> {
    vec![(host.into(), RunState::Running, true)]
}

/// It runs on `b`, and its definition is at home on `a`.
fn away() -> Vec<(String, RunState, bool)> {
    vec![("a".into(), RunState::Off, true), ("b".into(), RunState::Running, false)]
}

async fn moved_by_hand(world: &World, uuid: Uuid, name: &str, from: &str, to: &str) {
    let m = Migration::new(uuid, name, [from, to], MigrationWay::Live, format!("sim:{to}"));
    assert!(by_hand(world, MachineAction::MigrateVirtualMachine(Box::new(m))).await);
}

fn report<'p>(plan: &'p Plan, name: &str) -> &'p drover::plan::ResourceReport {
    plan.resources.iter().find(|r| r.kind == "VirtualMachineMigration" && r.name == name).unwrap()
}

#[test]
fn a_machine_without_a_manifest_moves_once_for_each_revision_and_nothing_but_its_place_changes() {
    paused(async {
        let world = quiet().await;
        let uuid = running(&world, "a", 9).await;
        let before = domain(&world, "a", uuid);
        let mut all = ground();
        migration(&mut all, "m", "machine: vm-9, to: b");
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert_eq!(plan.steps.len(), 1, "{}", steps(&plan));
        assert_eq!(plan.steps[0].resource.to_string(), "VirtualMachineMigration/m");
        assert_eq!(plan.steps[0].summary, "live-migrate vm-9 from a to b");
        assert_eq!(report(&plan, "m").moves.unwrap().words(), "0 of 1 moved, 1 waiting");
        settle(&world, &all).await;
        assert_eq!(at(&world, uuid), running_at("b"));
        let there = domain(&world, "b", uuid);
        assert_eq!((there.owner, there.autostart), (None, before.autostart));
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert_eq!(report(&plan, "m").moves.unwrap().words(), "1 of 1 moved");
        assert_eq!(report(&plan, "m").sync, Sync::Synced);

        // Somebody moves it away again: this revision has had its turn.
        moved_by_hand(&world, uuid, "vm-9", "b", "c").await;
        assert_eq!(settle(&world, &all).await, 0);
        assert_eq!(at(&world, uuid), running_at("c"));
        // How it would be done is no other revision; whom and whither is.
        migration(&mut all, "m", "machine: vm-9, to: b, parallelism: 1, migrationPolicy: copy, order: BySize");
        assert_eq!(settle(&world, &all).await, 0);
        migration(&mut all, "m", "machine: vm-9, to: b, run: again");
        settle(&world, &all).await;
        assert_eq!(at(&world, uuid), running_at("b"));

        // Gone, it leaves no trace; there again, it is a new one.
        all.virtual_machine_migrations.clear();
        settle(&world, &all).await;
        let there = domain(&world, "b", uuid);
        assert_eq!((there.moves, there.persistent_xml), (vec![], before.persistent_xml));
        moved_by_hand(&world, uuid, "vm-9", "b", "a").await;
        migration(&mut all, "m", "machine: vm-9, to: b, run: again");
        settle(&world, &all).await;
        assert_eq!(at(&world, uuid), running_at("b"));
    });
}

#[test]
fn it_is_satisfied_by_what_is_there_already_and_says_what_it_cannot_find_or_read() {
    paused(async {
        let world = quiet().await;
        let uuid = running(&world, "b", 9).await;
        let mut all = ground();
        migration(&mut all, "m", "machine: vm-9, from: a, to: b");
        assert_eq!(settle(&world, &all).await, 0);
        assert_eq!(domain(&world, "b", uuid).moves, [], "what was not moved is not marked");
        // Elsewhere than where it should leave.
        migration(&mut all, "m", "machine: vm-9, from: a, to: c");
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert!(plan.steps.is_empty() && plan.findings.iter().any(|f| f.code == Code::CannotMove), "{plan:#?}");
        migration(&mut all, "m", "domains: [vm-9, vm-8], from: a, to: c");
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert_eq!(report(&plan, "m").moves.unwrap().words(), "0 of 2 moved, 2 failed");
        world.cut_off("a", "no route to host");
        let plan = plan_for(&world, &desired(all), &[]).await;
        assert!(plan.steps.is_empty() && plan.is_incomplete(), "{plan:#?}");
        assert_eq!(report(&plan, "m").moves.unwrap().words(), "0 of 2 moved, 2 unknown");
    });
}

#[test]
fn every_domain_without_a_manifest_leaves_a_host_in_order_and_so_many_at_once() {
    paused(async {
        let world = quiet().await;
        let mut all = ground();
        pinned(&mut all, "stays");
        settle(&world, &all).await;
        let mut machines = Vec::new();
        for n in [1, 2, 3, 4] {
            machines.push(running(&world, "a", n).await);
        }
        // One that stays behind holds nobody up.
        let fails = Effect::Fails { message: "no".into(), transient: false };
        let fault = Fault { nth: Some(3), ..Fault::on(Call::Act, fails).action("MigrateVirtualMachine") };
        world.inject(fault);
        migration(&mut all, "empty", "all: true, from: a, to: b, order: [vm-3, vm-1], parallelism: 1");
        valid(&all);
        let wanted = desired(all.clone());
        let plan = plan_for(&world, &wanted, &[]).await;
        let summaries: Vec<_> = plan.steps.iter().map(|s| s.summary.split(' ').nth(1).unwrap()).collect();
        assert_eq!(summaries, ["vm-3", "vm-1", "vm-2", "vm-4"]);
        let run = Run::default();
        let limits = drover::execute::ExecuteLimits {
            together: [(plan.steps[0].resource.clone(), 1)].into(),
            ..Default::default()
        };
        let run = Run { limits, ..run };
        run.go_plan(&world.fleet(), &plan).await.unwrap();
        let order: Vec<String> = run.order();
        for (i, pair) in order.chunks(2).enumerate() {
            let id = &plan.steps[i].id;
            assert_eq!(pair, [format!("+{id}"), format!("-{id}")], "one at a time, in order: {order:?}");
        }
        let there = |n: usize| at(&world, machines[n - 1])[0].0.clone();
        assert_eq!([3, 1, 2, 4].map(there), ["b", "b", "a", "b"]);
        let plan = plan_for(&world, &wanted, &[]).await;
        assert_eq!(report(&plan, "empty").moves.unwrap().words(), "3 of 4 moved, 1 waiting");
        settle(&world, &all).await;
        assert_eq!(at(&world, id("stays")), running_at("a"));
    });
}

#[test]
fn a_machine_is_elsewhere_for_a_while_and_its_home_s_again_when_it_shuts_down_there() {
    paused(async {
        let world = quiet().await;
        let mut all = ground();
        pinned(&mut all, "web");
        settle(&world, &all).await;
        let uuid = id("web");
        migration(&mut all, "trip", "machine: web, to: b, permanent: false");
        settle(&world, &all).await;
        assert_eq!(at(&world, uuid), away());

        // Its manifest still counts: the definition is changed at home, the running machine where it runs.
        let spec = &mut all.virtual_machines.get_mut("web").unwrap().spec;
        (spec.title, spec.autostart, spec.max_cpus) = (Some("new".into()), Some(false), Some(2));
        settle(&world, &all).await;
        assert_eq!(at(&world, uuid), away());
        let home = domain(&world, "a", uuid);
        assert!(home.persistent_xml.unwrap().contains("<title>new</title>") && !home.autostart);

        assert!(
            by_hand(
                &world,
                MachineAction::ShutdownDomain { host: "b".into(), uuid, timeout_millis: 60_000, force: false }
            )
            .await
        );
        assert_eq!(at(&world, uuid), [("a".to_owned(), RunState::Off, true)]);
        // Nobody starts it at home while the other host cannot be read: it may run there.
        world.cut_off("b", "no route to host");
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert!(plan.runnable().next().is_none(), "{}", steps(&plan));
        world.bring_back("b");
        settle(&world, &all).await;
        assert_eq!(at(&world, uuid), running_at("a"), "at home, and not moved a second time");
        migration(&mut all, "trip", "machine: web, to: b, permanent: false, run: twice");
        settle(&world, &all).await;
        assert_eq!(at(&world, uuid), away());
    });
}

#[test]
fn a_machine_that_nobody_wants_elsewhere_any_more_comes_home_alive() {
    paused(async {
        for (spec, has_manifest) in [("machine: web", true), ("domains: [vm-9], from: a", false)] {
            let world = quiet().await;
            let mut all = ground();
            let uuid = if has_manifest {
                pinned(&mut all, "web");
                settle(&world, &all).await;
                id("web")
            } else {
                running(&world, "a", 9).await
            };
            let before = domain(&world, "a", uuid);
            migration(&mut all, "trip", &format!("{spec}, to: b, permanent: false"));
            settle(&world, &all).await;
            assert_eq!(at(&world, uuid), away(), "{spec}");
            // While its home cannot be read, nothing is done to it.
            world.cut_off("a", "no route to host");
            all.virtual_machine_migrations.clear();
            let plan = plan_for(&world, &desired(all.clone()), &[]).await;
            assert!(plan.runnable().next().is_none(), "{}", steps(&plan));
            world.bring_back("a");
            settle(&world, &all).await;
            assert_eq!(at(&world, uuid), running_at("a"), "{spec}");
            let home = domain(&world, "a", uuid);
            assert_eq!((home.moves, home.autostart), (vec![], before.autostart), "{spec}");
            assert_eq!(home.persistent_xml, before.persistent_xml, "{spec}");
        }
    });
}

#[test]
fn a_machine_goes_from_one_stay_to_the_next_by_way_of_its_home() {
    paused(async {
        let world = quiet().await;
        let mut all = ground();
        pinned(&mut all, "web");
        settle(&world, &all).await;
        migration(&mut all, "first", "machine: web, to: b, permanent: false");
        settle(&world, &all).await;
        all.virtual_machine_migrations.clear();
        migration(&mut all, "second", "machine: web, to: c, permanent: false");
        settle(&world, &all).await;
        let there = [("a".to_owned(), RunState::Off, true), ("c".into(), RunState::Running, false)];
        assert_eq!(at(&world, id("web")), there);
        // `host:` moves its home, and the machine to it.
        all.virtual_machine_migrations.clear();
        all.virtual_machines.get_mut("web").unwrap().spec.host = Some("b".into());
        settle(&world, &all).await;
        assert_eq!(at(&world, id("web")), running_at("b"));
        // Stopped by its manifest, it is off at home.
        migration(&mut all, "third", "machine: web, to: c, permanent: false");
        settle(&world, &all).await;
        all.virtual_machines.get_mut("web").unwrap().spec.power_state = PowerState::Stopped;
        settle(&world, &all).await;
        assert_eq!(at(&world, id("web")), [("b".to_owned(), RunState::Off, true)]);
    });
}

/// Begins what a plan says, and dies two seconds into it.
async fn begun(world: &World, all: &Resources, journal: &Arc<dyn Journal>) {
    let plan = plan_for(world, &desired(all.clone()), &[]).await;
    let run = Run { journal: journal.clone(), ..Default::default() };
    let _ = tokio::time::timeout(Duration::from_millis(1_500), run.go_plan(&world.fleet(), &plan)).await;
}

#[test]
fn a_move_that_is_taken_back_while_it_runs_is_aborted_whatever_the_journal_knows() {
    paused(async {
        for journal_is_there in [true, false] {
            for (temporary, suspended, has_manifest) in
                [(false, false, false), (false, true, false), (true, false, true), (true, true, true)]
            {
                let told = format!("{journal_is_there} {temporary} {suspended} {has_manifest}");
                let world = quiet().await;
                let mut all = ground();
                let (uuid, name) = if has_manifest {
                    pinned(&mut all, "web");
                    settle(&world, &all).await;
                    (id("web"), "web")
                } else {
                    (running(&world, "a", 9).await, "vm-9")
                };
                let spec = format!("machine: {name}, to: b, permanent: {}", !temporary);
                migration(&mut all, "m", &spec);
                let journal: Arc<dyn Journal> = Arc::new(Memory::new());
                begun(&world, &all, &journal).await;
                assert!(world.find(uuid).iter().any(|(_, d)| d.is_in_migration()), "{told}");
                match suspended {
                    true => migration(&mut all, "m", &format!("{spec}, suspend: true")),
                    false => all.virtual_machine_migrations.clear(),
                }
                let journal = if journal_is_there { journal } else { Arc::new(Memory::new()) };
                let wanted = desired(all.clone());
                let found = recover(journal.clone(), &world.fleet(), Arc::new(now)).await.unwrap();
                let plan = plan_for(&world, &wanted, &found).await;
                let actions: Vec<_> = plan.runnable().map(|s| s.action.name()).collect();
                assert_eq!(actions, ["AbortMigration"], "{told}: {}", steps(&plan));
                converge(&world, &wanted, &journal).await.unwrap();
                assert_eq!(at(&world, uuid), running_at("a"), "{told}");
                assert_eq!(domain(&world, "a", uuid).moves.is_empty(), !suspended, "{told}");
                // Let go on, it does what it was to do.
                if suspended {
                    migration(&mut all, "m", &spec);
                    settle(&world, &all).await;
                    assert_eq!(at(&world, uuid), if temporary { away() } else { running_at("b") }, "{told}");
                }
            }
        }
    });
}

#[test]
fn a_move_that_was_cut_off_is_taken_up_and_made_once() {
    paused(async {
        for journal_is_there in [true, false] {
            for millis in [500, 1_500, 4_000, 7_000] {
                for permanent in [true, false] {
                    let world = quiet().await;
                    let uuid = running(&world, "a", 9).await;
                    let mut all = ground();
                    migration(&mut all, "m", &format!("machine: vm-9, to: b, permanent: {permanent}"));
                    let journal: Arc<dyn Journal> = Arc::new(Memory::new());
                    let plan = plan_for(&world, &desired(all.clone()), &[]).await;
                    world.set_latency(Duration::from_millis(400));
                    let run = Run { journal: journal.clone(), ..Default::default() };
                    let cut = Duration::from_millis(millis);
                    let _ = tokio::time::timeout(cut, run.go_plan(&world.fleet(), &plan)).await;
                    world.set_latency(Duration::ZERO);
                    let journal = if journal_is_there { journal } else { Arc::new(Memory::new()) };
                    converge(&world, &desired(all.clone()), &journal).await.unwrap();
                    assert_eq!(at(&world, uuid), if permanent { running_at("b") } else { away() }, "{millis}");
                    // Back home by itself, and not away again.
                    if permanent {
                        moved_by_hand(&world, uuid, "vm-9", "b", "a").await;
                    } else {
                        let host = "b".to_owned();
                        let off = MachineAction::ShutdownDomain { host, uuid, timeout_millis: 60_000, force: false };
                        assert!(by_hand(&world, off).await);
                    }
                    assert_eq!(settle(&world, &all).await, 0, "{millis} {permanent}");
                    assert_eq!(at(&world, uuid)[0].0, "a");
                }
            }
        }
    });
}

#[test]
fn a_placed_machine_is_taken_somewhere_once_and_its_placement_does_not_take_it_back() {
    paused(async {
        let world = quiet().await;
        let mut all = ground();
        for host in all.hosts.values_mut() {
            host.metadata.labels.insert("rack".into(), "r1".into());
        }
        let placed = "{placement: {hosts: {matchLabels: {rack: r1}}, antiAffinity: [app]}, cpus: 1, memory: 256Mi}";
        for (name, app) in [("web-1", "web"), ("web-2", "web"), ("db", "db")] {
            let mut vm: Manifest<VirtualMachineSpec> = manifest(name, serde_yaml::from_str(placed).unwrap());
            vm.metadata.labels.insert("app".into(), app.into());
            all.virtual_machines.insert(name.into(), vm);
        }
        settle(&world, &all).await;
        let host_of = |name: &str| at(&world, id(name))[0].0.clone();
        let (first, second) = (host_of("web-1"), host_of("web-2"));
        assert_ne!(first, second);
        let free = ["a", "b", "c"].into_iter().find(|h| *h != first && *h != second).unwrap();
        migration(&mut all, "m", &format!("machine: web-1, to: {free}"));
        settle(&world, &all).await;
        assert_eq!(at(&world, id("web-1")), running_at(free));
        // Where it is kept apart from another it is not taken, and the plan says so.
        migration(&mut all, "m", &format!("machine: web-1, to: {second}"));
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert!(plan.steps.is_empty(), "{}", steps(&plan));
        assert!(plan.findings.iter().any(|f| f.code == Code::CannotMove && f.message.contains("no room")), "{plan:#?}");
        // Another host's evacuation is free to move it on, and the migration does not take it back.
        migration(&mut all, "m", &format!("machine: web-1, to: {free}"));
        assert_eq!(settle(&world, &all).await, 0);
        all.hosts.get_mut(free).unwrap().spec.maintenance = drover::kind::host::Maintenance::Evacuate;
        settle(&world, &all).await;
        assert_eq!(at(&world, id("web-1")), running_at(&first));
        all.hosts.get_mut(free).unwrap().spec.maintenance = drover::kind::host::Maintenance::None;
        assert_eq!(settle(&world, &all).await, 0);
        // For a while it can be there, too.
        all.virtual_machine_migrations.clear();
        migration(&mut all, "trip", &format!("machine: db, to: {free}, permanent: false"));
        let home = host_of("db");
        if home != free {
            settle(&world, &all).await;
            assert!(at(&world, id("db")).contains(&(free.to_owned(), RunState::Running, false)));
            all.virtual_machine_migrations.clear();
            settle(&world, &all).await;
            assert_eq!(at(&world, id("db")), running_at(&home));
        }
    });
}

/// Any machines, any migrations of them, meddled with: it converges, and nothing runs twice.
#[test]
fn any_migrations_in_any_world_converge() {
    let mut failed = Vec::new();
    for seed in super::converge::seeds(80) {
        let one = async {
            let mut dice = Dice::new(seed ^ 0x5eed);
            let world = World::new();
            super::scenario::HOSTS.iter().for_each(|h| world.add_host(h));
            let journal: Arc<dyn Journal> = Arc::new(Memory::new());
            let mut told = Vec::new();
            for round in 0..3 {
                let mut all = ground();
                for n in 0..3 {
                    let name = format!("vm-{n}");
                    let mut spec = any_machine(&mut dice);
                    // Local disks cannot be elsewhere for a while; that is held back, and nothing more to see.
                    spec.disks = spec.disks.filter(|d| d.iter().all(|d| d.pool.as_deref() == Some("shared")));
                    all.virtual_machines.insert(name.clone(), manifest(&name, spec.clone()));
                    if dice.one_in(2) {
                        let to = dice.pick(&super::scenario::HOSTS);
                        if spec.host.as_deref() != Some(to) {
                            let suspend = dice.one_in(5);
                            let text = format!("machine: {name}, to: {to}, permanent: false, suspend: {suspend}");
                            migration(&mut all, &format!("m{n}-{}", dice.roll(2)), &text);
                        }
                    }
                }
                valid(&all);
                let wanted = desired(all);
                converge(&world, &wanted, &journal).await.map_err(|e| format!("round {round} after {told:?}: {e}"))?;
                for _ in 0..dice.roll(4) {
                    told.push(super::scenario::meddle(&mut dice, &world).await);
                }
                world.check().map_err(|e| format!("{told:?}: {e}"))?;
            }
            Ok::<_, String>(())
        };
        if let Err(error) = paused(one) {
            failed.push(seed);
            if failed.len() <= 3 {
                println!("=== seed {seed} (DROVER_SEED={seed} replays it)\n{error}");
            }
        }
    }
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
}

#[test]
fn a_planned_move_carries_the_mark_that_it_leaves() {
    paused(async {
        let world = quiet().await;
        let uuid = running(&world, "a", 9).await;
        let mut all = ground();
        migration(&mut all, "m", "machine: vm-9, to: b");
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        let Action::Machine(MachineAction::MigrateVirtualMachine(m)) = &plan.steps[0].action else { panic!() };
        let mark = m.mark.clone().unwrap();
        assert!(!mark.done && mark.migration == "m" && (mark.from.as_str(), mark.to.as_str()) == ("a", "b"));
        settle(&world, &all).await;
        let there = domain(&world, "b", uuid);
        assert_eq!(there.moves, [drover::observed::MoveMark { done: true, ..mark }]);
    });
}
