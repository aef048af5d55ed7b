//! Every action on the simulator: looked at, carried out, verified, and carried out again. And what libvirt's semantics
//! are where it matters: what a running machine keeps, what a move leaves behind, and that nothing stops a VM from
//! running twice but Drover.

use super::support::*;
use drover::action::{
    Action, DiskMove, DiskPlace, DomainXmlEdit, ImageSource, LiveChange, MachineAction, MigratedVolume, MigrationWay,
};
use drover::domain_xml::{digest, owner_of, parse};
use drover::observed::{JobOperation, MoveMark, OwnerMark, RunState};
use drover::provider::simulator::{Call, Effect, Fault, World};
use drover::provider::{Look, StepCtx, StepOrders};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const POOL: &str = "<pool type='dir'><name>images</name><target><path>/var/lib/images</path></target></pool>";
const DISK: &str = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
    <source file='/var/lib/images/root.qcow2'/><target dev='vda' bus='virtio'/></disk>";
const DATA: &str = "<disk type='file' device='disk'><source file='/var/lib/images/data.qcow2'/><target dev='vdb' bus='virtio'/></disk>";

fn ctx() -> StepCtx {
    StepCtx {
        deadline: Duration::from_secs(600),
        cancel: CancellationToken::new(),
        progress: Arc::new(|_| {}),
        orders: StepOrders::default(),
        note: Arc::new(|_| {}),
    }
}

async fn look(world: &World, action: &MachineAction) -> Look {
    world.actor().look(&Action::Machine(action.clone()), &ctx()).await.unwrap()
}

async fn act(world: &World, action: &MachineAction) {
    world.actor().act(&Action::Machine(action.clone()), &ctx()).await.unwrap();
}

async fn verify(world: &World, action: &MachineAction) {
    let verified = world.actor().verify(&Action::Machine(action.clone()), &ctx()).await;
    verified.unwrap_or_else(|e| panic!("{}: {e}", action.name()));
}

fn pool(host: &str) -> MachineAction {
    MachineAction::DefineStoragePool { host: host.into(), pool: "images".into(), xml: POOL.into(), autostart: true }
}

fn start_pool(host: &str) -> MachineAction {
    MachineAction::StartStoragePool { host: host.into(), pool: "images".into() }
}

fn volume(name: &str) -> MachineAction {
    MachineAction::CreateVolume {
        host: "a".into(),
        pool: "images".into(),
        volume: name.into(),
        capacity: 10 << 30,
        format: "qcow2".into(),
        image: None,
        backing: None,
    }
}

/// A machine with a disk on a local pool of `a`; the pool is on `b`, too.
async fn with_disk(world: &World) {
    for action in [pool("a"), start_pool("a"), pool("b"), start_pool("b"), volume("root.qcow2"), volume("data.qcow2")] {
        act(world, &action).await;
    }
    world.define("a", &xml_with(1, DISK)).unwrap();
}

fn copying() -> MachineAction {
    let mut m = migration(1, "a", "b", MigrationWay::Live);
    m.copy = vec![MigratedVolume {
        backing: None,
        target: "vda".into(),
        pool: "images".into(),
        volume: "root.qcow2".into(),
        path: "/var/lib/images/root.qcow2".into(),
        to_pool: "images".into(),
        capacity: 10 << 30,
        format: "qcow2".into(),
    }];
    m.delete_source_copies = true;
    MachineAction::MigrateVirtualMachine(Box::new(m))
}

fn mark() -> OwnerMark {
    OwnerMark { fleet: "default".into(), name: "vm-1".into(), delete: false, volumes: Vec::new() }
}

fn moved() -> MoveMark {
    MoveMark {
        fleet: "default".into(),
        migration: "m".into(),
        revision: "1".into(),
        from: "c".into(),
        to: "a".into(),
        temporary: false,
        done: true,
    }
}

fn edit() -> DomainXmlEdit {
    DomainXmlEdit::SetText { at: "/domain/currentMemory".into(), text: "262144".into() }
}

/// Where the disk goes in the cases: a second pool of the host.
fn elsewhere() -> DiskPlace {
    DiskPlace { pool: "other".into(), volume: "root.qcow2".into(), path: "/var/lib/other/root.qcow2".into() }
}

fn move_disk(delete_source: bool) -> MachineAction {
    let path = "/var/lib/images/root.qcow2".to_owned();
    MachineAction::MoveDisk(Box::new(DiskMove {
        host: "a".into(),
        uuid: uuid(1),
        name: "vm-1".into(),
        target: "vda".into(),
        from: Some(DiskPlace { pool: "images".into(), volume: "root.qcow2".into(), path }),
        to: elsewhere(),
        block: false,
        format: "qcow2".into(),
        delete_source,
        bandwidth_mib: None,
        owner: mark(),
    }))
}

/// Every action with a world in which it is ready. `running` starts the machine first.
fn cases() -> Vec<(bool, MachineAction)> {
    let host = || "a".to_owned();
    let id = uuid(1);
    let live = |change| MachineAction::ChangeLive { host: host(), uuid: id, change };
    vec![
        (
            false,
            MachineAction::DefineStoragePool {
                host: "c".into(),
                pool: "images".into(),
                xml: POOL.into(),
                autostart: true,
            },
        ),
        (false, MachineAction::StartStoragePool { host: host(), pool: "stopped".into() }),
        (false, MachineAction::SetStoragePoolAutostart { host: host(), pool: "images".into(), autostart: false }),
        (false, volume("new.qcow2")),
        (
            true,
            MachineAction::ResizeVolume {
                host: host(),
                pool: "images".into(),
                volume: "root.qcow2".into(),
                capacity: 20 << 30,
                running: Some((id, "vda".into())),
            },
        ),
        (
            false,
            MachineAction::DeleteVolume {
                host: host(),
                pool: "images".into(),
                volume: "data.qcow2".into(),
                path: "/var/lib/images/data.qcow2".into(),
            },
        ),
        (false, define("a", 2)),
        (
            true,
            MachineAction::UpdateDomain { host: host(), uuid: id, edits: vec![edit()], expect: "its digest".into() },
        ),
        (true, MachineAction::SetOwner { host: host(), uuid: id, owner: mark() }),
        (true, MachineAction::RemoveOwner { host: host(), uuid: id }),
        (true, MachineAction::SetMoves { host: host(), uuid: id, moves: vec![moved()] }),
        (true, MachineAction::AbortMigration(Box::new(migration(1, "a", "b", MigrationWay::Live)))),
        (false, MachineAction::RenameDomain { host: host(), uuid: id, name: "renamed".into() }),
        (true, live(LiveChange::Vcpus { count: 2 })),
        (true, live(LiveChange::Memory { kib: 262_144 })),
        (true, live(LiveChange::Attach { xml: DATA.into() })),
        (true, live(LiveChange::Detach { xml: DISK.into() })),
        (true, live(LiveChange::Update { xml: DISK.replace("type='qcow2'", "type='qcow2' cache='none'") })),
        (false, MachineAction::SetAutostart { host: host(), uuid: id, autostart: true }),
        (false, start("a", 1)),
        (false, MachineAction::StartDomain { host: host(), uuid: id, paused: true }),
        (true, MachineAction::ResumeDomain { host: host(), uuid: id }),
        (true, MachineAction::PauseDomain { host: host(), uuid: id }),
        (true, shutdown("a", 1, false)),
        (false, MachineAction::UndefineDomain { host: host(), uuid: id, nvram: true }),
        (false, MachineAction::MarkStoragePool { host: host(), pool: "images".into(), marker: id }),
        (
            false,
            MachineAction::VerifySharedPool {
                host: host(),
                pool: "other".into(),
                with: "b".into(),
                markers: vec![uuid(8)],
                own: uuid(9),
            },
        ),
        (true, move_disk(false)),
        (false, move_disk(true)),
        (true, MachineAction::CancelDiskMove { host: host(), uuid: id, target: "vda".into(), to: elsewhere() }),
        (true, copying()),
        (false, MachineAction::MigrateVirtualMachine(Box::new(migration(1, "a", "b", MigrationWay::Offline)))),
        (true, MachineAction::AwaitMigration { host: host(), uuid: id }),
    ]
}

/// A world for one case, and the action as it fits there.
async fn world_for(runs: bool, action: MachineAction) -> (World, MachineAction) {
    let world = world();
    with_disk(&world).await;
    let stopped = POOL.replace("images", "stopped");
    act(
        &world,
        &MachineAction::DefineStoragePool { host: "a".into(), pool: "stopped".into(), xml: stopped, autostart: true },
    )
    .await;
    let other = POOL.replace("images", "other");
    act(
        &world,
        &MachineAction::DefineStoragePool { host: "a".into(), pool: "other".into(), xml: other, autostart: true },
    )
    .await;
    act(&world, &MachineAction::StartStoragePool { host: "a".into(), pool: "other".into() }).await;
    if runs {
        act(&world, &start("a", 1)).await;
    }
    let persistent = world.find(uuid(1))[0].1.persistent_xml.clone().unwrap();
    let action = match action {
        MachineAction::UpdateDomain { host, uuid, edits, .. } => {
            MachineAction::UpdateDomain { host, uuid, edits, expect: digest(&persistent) }
        }
        other => other,
    };
    match &action {
        MachineAction::RemoveOwner { host, uuid } => {
            act(&world, &MachineAction::SetOwner { host: host.clone(), uuid: *uuid, owner: mark() }).await;
        }
        MachineAction::ResumeDomain { host, uuid } => {
            act(&world, &MachineAction::PauseDomain { host: host.clone(), uuid: *uuid }).await;
        }
        MachineAction::VerifySharedPool { host, pool, markers, .. } => {
            act(&world, &MachineAction::MarkStoragePool { host: host.clone(), pool: pool.clone(), marker: markers[0] })
                .await;
        }
        MachineAction::CancelDiskMove { host, uuid, target, to } => {
            assert!(world.leave_half_copy(host, *uuid, target, to));
        }
        MachineAction::AwaitMigration { .. } | MachineAction::AbortMigration(_) => begin(&world, &copying()).await,
        _ => {}
    }
    (world, action)
}

/// Begins a migration and goes away.
async fn begin(world: &World, action: &MachineAction) {
    let act = tokio::time::timeout(Duration::from_millis(300), act(world, action)).await;
    assert!(act.is_err(), "it takes longer than that");
}

#[test]
fn every_action_is_ready_then_done_and_can_be_repeated() {
    paused(async {
        let mut tried = BTreeSet::new();
        for (runs, action) in cases() {
            let (world, action) = world_for(runs, action).await;
            let name = action.name();
            let expected = match name {
                "AwaitMigration" => Look::Running,
                // It only looks.
                "VerifySharedPool" => Look::AlreadyDone,
                _ => Look::Ready,
            };
            assert_eq!(look(&world, &action).await, expected, "{name}");
            act(&world, &action).await;
            verify(&world, &action).await;
            assert_eq!(look(&world, &action).await, Look::AlreadyDone, "{name}");
            let before = ["a", "b", "c"].map(|h| world.view(h));
            act(&world, &action).await;
            verify(&world, &action).await;
            assert_eq!(["a", "b", "c"].map(|h| world.view(h)), before, "{name}, once more");
            world.check().unwrap_or_else(|e| panic!("{name}: {e}"));
            tried.insert(name.to_owned());
        }
        // The schema lists every action that there is.
        let schema = serde_json::to_string(&schemars::schema_for!(MachineAction)).unwrap();
        let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
        let all: BTreeSet<String> = schema["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variant| variant["properties"]["action"]["const"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(tried, all, "an action without a case");
    });
}

#[test]
fn the_executor_gets_every_action_done_when_its_reply_is_lost() {
    paused(async {
        for (runs, action) in cases() {
            let (world, action) = world_for(runs, action).await;
            let name = action.name();
            world.inject(Fault::on(Call::Act, Effect::ReplyLost).action(name).nth(1));
            carry_out(&world, vec![step(name, action, &[])]).await;
            world.check().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    });
}

/// The first case of an action.
fn case(name: &str) -> MachineAction {
    cases().into_iter().map(|(_, action)| action).find(|action| action.name() == name).unwrap()
}

#[test]
fn a_running_machine_keeps_its_live_definition_when_the_persistent_one_changes() {
    paused(async {
        let (world, update) = world_for(true, case("UpdateDomain")).await;
        act(&world, &update).await;
        let domain = world.find(uuid(1)).remove(0).1;
        let memory = |xml: &Option<String>| parse(xml.as_deref().unwrap()).unwrap().text_at("currentMemory").unwrap();
        assert_eq!((memory(&domain.live_xml), memory(&domain.persistent_xml)), ("524288".into(), "262144".into()));
        let (after, MachineAction::UpdateDomain { host, uuid, .. }) = (look(&world, &update).await, &update) else {
            panic!()
        };
        assert_eq!(after, Look::AlreadyDone);
        let stale = MachineAction::UpdateDomain {
            host: host.clone(),
            uuid: *uuid,
            edits: vec![DomainXmlEdit::SetText { at: "/domain/title".into(), text: "x".into() }],
            expect: "another".into(),
        };
        assert!(matches!(look(&world, &stale).await, Look::Refused { reason } if reason.contains("changed since")));
        // A restart takes the persistent one over.
        carry_out(&world, vec![step("off", shutdown("a", 1, false), &[]), step("on", start("a", 1), &["off"])]).await;
        assert_eq!(memory(&world.find(*uuid).remove(0).1.live_xml), "262144");
    });
}

#[test]
fn a_live_migration_is_seen_at_both_ends_and_goes_on_without_its_client() {
    paused(async {
        let (world, moving) = world_for(true, copying()).await;
        act(&world, &MachineAction::SetOwner { host: "a".into(), uuid: uuid(1), owner: mark() }).await;
        begin(&world, &moving).await;
        let halves = world.find(uuid(1));
        let (here, there) = (&halves[0].1, &halves[1].1);
        assert_eq!(here.state, RunState::Running);
        assert_eq!(here.job.as_ref().unwrap().operation, JobOperation::MigrationOut);
        assert_eq!((there.state, there.reason.as_str(), there.persistent), (RunState::Paused, "migrating", false));
        assert!(here.is_in_migration() && there.is_in_migration());
        assert_eq!(look(&world, &moving).await, Look::Running);
        for refused in
            [shutdown("a", 1, true), MachineAction::UndefineDomain { host: "b".into(), uuid: uuid(1), nvram: false }]
        {
            assert!(matches!(look(&world, &refused).await, Look::Refused { .. }), "{}", refused.name());
        }
        // Nobody watches; time passes.
        tokio::time::sleep(Duration::from_secs(120)).await;
        let at = world.find(uuid(1));
        assert_eq!((at.len(), at[0].0.as_str(), at[0].1.state, at[0].1.persistent), (1, "b", RunState::Running, true));
        assert!(!at[0].1.autostart, "libvirt does not carry it over");
        assert_eq!(at[0].1.owner, Some(mark()), "metadata goes along");
        assert_eq!(look(&world, &moving).await, Look::Running, "autostart and the source's copies are left to do");
        carry_out(&world, vec![step("move", moving, &[])]).await;
        assert!(world.find(uuid(1))[0].1.autostart);
        assert!(!world.view("a").unwrap().pools["images"].volumes.contains_key("root.qcow2"));
        assert!(world.view("b").unwrap().pools["images"].volumes.contains_key("root.qcow2"));
    });
}

#[test]
fn a_migration_that_breaks_leaves_the_machine_where_it_was_and_no_litter() {
    paused(async {
        let (world, moving) = world_for(true, copying()).await;
        world.inject(Fault::on(Call::Act, Effect::Breaks { at: 60 }).nth(1));
        let seen = Arc::new(Mutex::new(0));
        let counted = seen.clone();
        let on_event = Arc::new(move |e: &drover::execute::Event| {
            if matches!(e, drover::execute::Event::Progress { .. }) {
                *counted.lock().unwrap() += 1;
            }
        });
        let run = Run { on_event, ..Default::default() };
        let report = run.go(&world.fleet(), vec![step("move", moving.clone(), &[])]).await.unwrap();
        assert!(reason(&report.outcomes["move"]).contains("client socket is closed"), "{report:?}");
        assert!(*seen.lock().unwrap() > 2, "progress was told");
        let at = world.find(uuid(1));
        assert_eq!((at.len(), at[0].0.as_str(), at[0].1.state), (1, "a", RunState::Running));
        assert!(world.view("b").unwrap().pools["images"].volumes.is_empty(), "what was copied is removed");
        carry_out(&world, vec![step("move", moving, &[])]).await;
        world.check().unwrap();
    });
}

#[test]
fn a_migration_is_aborted_at_its_time_out() {
    paused(async {
        let (world, moving) = world_for(true, copying()).await;
        let MachineAction::MigrateVirtualMachine(mut m) = moving else { panic!() };
        m.timeout_millis = 3_000;
        let steps = vec![step("move", MachineAction::MigrateVirtualMachine(m), &[])];
        let report = Run::default().go(&world.fleet(), steps).await.unwrap();
        assert!(reason(&report.outcomes["move"]).contains("not done within 3 s, and aborted"), "{report:?}");
        assert_eq!(world.find(uuid(1))[0].0, "a");
        world.check().unwrap();
    });
}

#[test]
fn a_definition_that_libvirt_leaves_behind_is_removed_by_the_migration() {
    paused(async {
        let world = world();
        running(&world, "a", 1).await;
        world.inject(Fault::on(Call::Act, Effect::LeavesDefinition).nth(1));
        begin(&world, &migrate(1, "a", "b")).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let at = world.find(uuid(1));
        assert!(at[0].1.moved_away() && at[1].1.state == RunState::Running, "{at:?}");
        carry_out(&world, vec![step("move", migrate(1, "a", "b"), &[])]).await;
        assert_eq!(world.find(uuid(1)).len(), 1);
        world.check().unwrap();
    });
}

#[test]
fn what_would_run_twice_is_seen_for_ever() {
    paused(async {
        let world = world();
        for host in ["a", "b"] {
            world.define(host, &xml(1)).unwrap();
            act(&world, &start(host, 1)).await;
        }
        act(&world, &shutdown("b", 1, true)).await;
        assert_eq!(world.ran_twice().len(), 1, "libvirt does not stop it, and the world does not forget it");
        assert!(world.check().unwrap_err().contains("ran on a and b at once"));
    });
}

#[test]
fn disks_that_the_destination_cannot_see_are_not_left_behind() {
    paused(async {
        let (world, _) = world_for(true, copying()).await;
        let report = Run::default().go(&world.fleet(), vec![step("move", migrate(1, "a", "b"), &[])]).await.unwrap();
        assert!(reason(&report.outcomes["move"]).contains("Unsafe migration"), "{report:?}");
        world.check().unwrap();
    });
}

#[test]
fn a_guest_that_does_not_shut_down_fails_the_step_unless_it_is_forced() {
    paused(async {
        let world = world();
        running(&world, "a", 1).await;
        world.ignore_shutdown(uuid(1), true);
        let report = Run::default().go(&world.fleet(), vec![step("off", shutdown("a", 1, false), &[])]).await.unwrap();
        assert!(reason(&report.outcomes["off"]).contains("did not shut down within 30 s"), "{report:?}");
        carry_out(&world, vec![step("off", shutdown("a", 1, true), &[])]).await;
        assert_eq!(world.find(uuid(1))[0].1.reason, "destroyed");
    });
}

#[test]
fn a_volume_is_filled_from_an_image_and_never_overwritten() {
    paused(async {
        let (world, _) = world_for(false, start("a", 1)).await;
        let image = || Some(ImageSource { pool: "images".into(), volume: "base/debian.qcow2".into() });
        let create = |volume: &str, capacity| MachineAction::CreateVolume {
            host: "a".into(),
            pool: "images".into(),
            volume: volume.into(),
            capacity,
            format: "qcow2".into(),
            image: image(),
            backing: None,
        };
        assert!(
            matches!(look(&world, &create("x", 4 << 30)).await, Look::Refused { reason } if reason.contains("no image"))
        );
        world.put_volume("a", "images", "base/debian.qcow2", "qcow2", 2 << 30);
        carry_out(&world, vec![step("create", create("x", 4 << 30), &[])]).await;
        let other = look(&world, &create("x", 40 << 30)).await;
        assert!(matches!(other, Look::Refused { reason } if reason.contains("not overwritten")));
    });
}

#[test]
fn a_world_is_saved_and_loaded_with_what_is_under_way() {
    paused(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("world.json");
        {
            let world = World::keep_in(&path).unwrap();
            for host in ["a", "b"] {
                world.add_host(host);
            }
            running(&world, "a", 1).await;
            begin(&world, &migrate(1, "a", "b")).await;
        }
        let world = World::load(&path).unwrap();
        assert_eq!(world.find(uuid(1)).len(), 2, "the migration was saved");
        carry_out(&world, vec![step("move", migrate(1, "a", "b"), &[])]).await;
        assert_eq!(world.find(uuid(1))[0].0, "b");
        let owner = owner_of(&parse(world.find(uuid(1))[0].1.live_xml.as_deref().unwrap()).unwrap());
        assert_eq!(owner, None);
        std::fs::write(&path, b"{").unwrap();
        assert!(World::keep_in(&path).unwrap_err().to_string().contains("not a simulated world"));
        assert_eq!(std::fs::read(&path).unwrap(), b"{", "and it is left as it was");
    });
}
