//! Disks that change their pool, and pools that are not what they are declared to be, on the simulator.

use super::converge::{converge, plan_for, steps};
use super::scenario::{desired, ground, id, manifest};
use super::support::{Run, paused, reason};
use drover::action::{Action, DiskPlace, MachineAction, Order};
use drover::finding::Code;
use drover::journal::{Journal, Outcome};
use drover::kind::storage_pool::{PoolSource, PoolType};
use drover::kind::virtual_machine::{Disk, DiskFormat, PowerState, VirtualMachineSpec};
use drover::kind::{Resources, orders};
use drover::model::{Bytes, Rate};
use drover::observed::{OwnedVolume, RunState};
use drover::plan::{Disruption, Effect, Plan};
use drover::provider::simulator::World;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// One machine with a root disk in a pool, on a host.
fn wish(host: &str, pool: &str, size: u64) -> Resources {
    let mut all = ground();
    let root = Disk {
        name: "root".into(),
        pool: Some(pool.into()),
        size: Some(Bytes(size)),
        format: Some(DiskFormat::Qcow2),
        ..Default::default()
    };
    let spec = VirtualMachineSpec {
        host: Some(host.into()),
        memory: Some(Bytes(256 << 20)),
        machine: Some("q35".into()),
        disks: Some(vec![root]),
        ..Default::default()
    };
    all.virtual_machines.insert("web".into(), manifest("web", spec));
    all
}

fn keeping(mut all: Resources) -> Resources {
    all.migration_policies.values_mut().for_each(|p| p.spec.delete_source_copies = false);
    all
}

fn world() -> World {
    let world = World::new();
    super::scenario::HOSTS.iter().for_each(|h| world.add_host(h));
    world
}

fn journal() -> Arc<dyn Journal> {
    Arc::new(drover::journal::Memory::new())
}

fn actions(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(|s| s.action.name()).collect()
}

fn has(world: &World, host: &str, pool: &str) -> bool {
    world.view(host).unwrap().pools[pool].volumes.contains_key("web-root.qcow2")
}

#[test]
fn a_disk_goes_onto_shared_storage_and_then_its_machine_to_another_host_in_one_plan() {
    paused(async {
        let (world, journal) = (world(), journal());
        converge(&world, &desired(keeping(wish("a", "local", 1 << 30))), &journal).await.unwrap();
        let wanted = desired(keeping(wish("b", "shared", 2 << 30)));
        let plan = plan_for(&world, &wanted, &[]).await;
        assert_eq!(actions(&plan), ["MoveDisk", "ResizeVolume", "MigrateVirtualMachine"], "{}", steps(&plan));
        let [disk, grow, migrate] = &plan.steps[..] else { panic!() };
        assert!(grow.depends_on.contains(&disk.id) && migrate.depends_on.contains(&grow.id));
        assert_eq!((disk.disruption, disk.is_blocked()), (Disruption::Brief, false));
        assert!(disk.why.contains("the old volume web-root.qcow2 stays in pool local"), "{}", disk.why);
        let change = &plan.resources.iter().find(|r| r.name == "web").unwrap().changes;
        let change = change.iter().find(|c| c.path == "spec.disks[root].pool").unwrap();
        assert_eq!((change.before.as_str(), change.effect), (Some("local"), Effect::Live));

        assert_eq!(converge(&world, &wanted, &journal).await, Ok(1));
        let at = world.find(id("web"));
        assert_eq!((at.len(), at[0].0.as_str()), (1, "b"));
        assert!(at[0].1.live_xml.as_ref().unwrap().contains("/srv/images/web-root.qcow2"));
        assert!(has(&world, "a", "local"), "the old volume is kept");
        let mark = at[0].1.owner.clone().unwrap();
        let both = ["local", "shared"].map(|p| OwnedVolume { pool: p.into(), volume: "web-root.qcow2".into() });
        assert_eq!(mark.volumes, both);
        // Back again: the old volume is in the way, and nothing is overwritten.
        let back = desired(keeping(wish("a", "local", 2 << 30)));
        converge(&world, &desired(keeping(wish("a", "shared", 2 << 30))), &journal).await.unwrap();
        let plan = plan_for(&world, &back, &[]).await;
        let step = plan.steps.iter().find(|s| s.action.name() == "MoveDisk").unwrap();
        assert!(step.blocked_by[0].reason.contains("already, and it is not overwritten"), "{:?}", step.blocked_by);
        assert!(plan.findings.iter().any(|f| f.code == Code::CannotMove));
    });
}

#[test]
fn the_policy_deletes_what_a_disk_leaves_behind() {
    paused(async {
        let (world, journal) = (world(), journal());
        converge(&world, &desired(wish("a", "local", 1 << 30)), &journal).await.unwrap();
        let wanted = desired(wish("a", "shared", 1 << 30));
        let plan = plan_for(&world, &wanted, &[]).await;
        assert!(plan.steps[0].why.contains("is deleted afterwards"), "{}", steps(&plan));
        converge(&world, &wanted, &journal).await.unwrap();
        assert!(has(&world, "a", "shared") && !has(&world, "a", "local"));
        let mark = world.find(id("web"))[0].1.owner.clone().unwrap();
        assert_eq!(mark.volumes, [OwnedVolume { pool: "shared".into(), volume: "web-root.qcow2".into() }]);
    });
}

/// Somebody's own domain has the image: two guests that write to it would destroy it.
#[test]
fn a_machine_is_not_started_on_an_image_that_another_guest_writes_to() {
    paused(async {
        for (pool, host, is_in_use) in [("local", "a", true), ("shared", "b", true), ("local", "b", false)] {
            let (world, journal) = (world(), journal());
            converge(&world, &desired(wish("a", pool, 1 << 30)), &journal).await.unwrap();
            let by_hand = |state: RunState| {
                world.edit("a", |h| {
                    let domain = &mut h.domains[0];
                    let own = id("web").to_string();
                    let other = |xml: &mut Option<String>| {
                        if let Some(xml) = xml {
                            *xml = xml.replace(&own, "0bad0bad-0000-4000-8000-000000000000").replace(">web<", ">mine<");
                        }
                    };
                    let theirs = Uuid::parse_str("0bad0bad-0000-4000-8000-000000000000").unwrap();
                    (domain.uuid, domain.name, domain.owner) = (theirs, "mine".into(), None);
                    domain.state = state;
                    other(&mut domain.persistent_xml);
                    domain.live_xml = domain.persistent_xml.clone().filter(|_| state == RunState::Running);
                });
            };
            by_hand(RunState::Running);
            let wanted = desired(wish(host, pool, 1 << 30));
            let plan = plan_for(&world, &wanted, &[]).await;
            let start = plan.steps.iter().find(|s| s.action.name() == "StartDomain").unwrap();
            let blocks: Vec<_> = start.blocked_by.iter().map(|b| (b.code, b.reason.as_str())).collect();
            if !is_in_use {
                assert_eq!(blocks, [], "{pool} {host}");
                continue;
            }
            let [(Code::StorageInUse, reason)] = blocks[..] else { panic!("{pool} {host}: {blocks:?}") };
            assert!(reason.starts_with("`mine` on `a` runs and writes to its disk /"), "{reason}");
            by_hand(RunState::Off);
            let plan = plan_for(&world, &wanted, &[]).await;
            assert!(plan.steps.iter().all(|s| !s.is_blocked()), "{}", steps(&plan));
            // Defined while the other was off, and started while it runs.
            let mut off = wish(host, pool, 1 << 30);
            off.virtual_machines.values_mut().for_each(|m| m.spec.power_state = PowerState::Stopped);
            converge(&world, &desired(off), &journal).await.unwrap();
            by_hand(RunState::Running);
            let plan = plan_for(&world, &wanted, &[]).await;
            let start = plan.steps.iter().find(|s| s.action.name() == "StartDomain").unwrap();
            assert_eq!(start.blocked_by[0].code, Code::StorageInUse);
        }
    });
}

/// A new pool that the destination does not have: the machine takes its old disk along, and the disk moves there.
#[test]
fn a_machine_moves_first_where_the_disk_s_new_pool_is_not_shared() {
    paused(async {
        let (world, journal) = (world(), journal());
        converge(&world, &desired(wish("a", "shared", 1 << 30)), &journal).await.unwrap();
        let wanted = desired(wish("b", "local", 1 << 30));
        let plan = plan_for(&world, &wanted, &[]).await;
        assert_eq!(actions(&plan), ["MigrateVirtualMachine"], "{}", steps(&plan));
        assert_eq!(converge(&world, &wanted, &journal).await, Ok(2));
        assert!(has(&world, "b", "local") && !has(&world, "a", "local") && !has(&world, "a", "shared"));
    });
}

/// A Drover that died while it copied a disk: the copy is taken up where Git still wants it, and cleared away where not.
#[test]
fn half_a_copy_is_finished_or_cleared_away() {
    paused(async {
        for (wants, expected) in [("shared", "MoveDisk"), ("local", "CancelDiskMove")] {
            let (world, journal) = (world(), journal());
            converge(&world, &desired(wish("a", "local", 1 << 30)), &journal).await.unwrap();
            let to = DiskPlace {
                pool: "shared".into(),
                volume: "web-root.qcow2".into(),
                path: "/srv/images/web-root.qcow2".into(),
            };
            assert!(world.leave_half_copy("a", id("web"), "vda", &to));
            let wanted = desired(wish("a", wants, 1 << 30));
            let plan = plan_for(&world, &wanted, &[]).await;
            assert_eq!(actions(&plan), [expected], "{}", steps(&plan));
            assert_eq!(converge(&world, &wanted, &journal).await, Ok(1));
            assert_eq!((has(&world, "a", "shared"), has(&world, "a", "local")), (wants == "shared", wants == "local"));
            let litter = &world.view("a").unwrap().pools["shared"].volumes;
            assert!(!litter.keys().any(|v| v.ends_with("incoming")), "{litter:?}");
        }
    });
}

/// A machine whose disk of 512 MiB takes 64 s to another pool, and the plan that moves it.
async fn copying() -> (World, Arc<dyn Journal>, Resources, Plan) {
    let (world, journal) = (world(), journal());
    let slow = |pool: &str| {
        let mut all = keeping(wish("a", pool, 512 << 20));
        all.virtual_machines.get_mut("web").unwrap().spec.disks.as_mut().unwrap()[0].format = Some(DiskFormat::Raw);
        all.migration_policies.values_mut().for_each(|p| p.spec.bandwidth = Some(Rate(8 << 23)));
        all
    };
    converge(&world, &desired(slow("local")), &journal).await.unwrap();
    let moves = slow("shared");
    let plan = plan_for(&world, &desired(moves.clone()), &[]).await;
    assert_eq!(actions(&plan), ["MoveDisk"], "{}", steps(&plan));
    (world, journal, moves, plan)
}

/// Carries a plan out, gives orders after 10 s, and tells how it ended and how long it took.
async fn told(world: &World, journal: &Arc<dyn Journal>, plan: &Plan, newer: &Resources) -> (Outcome, u64) {
    let run = Run { journal: journal.clone(), ..Default::default() };
    let begun = tokio::time::Instant::now();
    let (given, fleet) = (orders(plan, newer), world.fleet());
    let later = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        run.stop.orders.give(given);
    };
    let (report, ()) = tokio::join!(run.go_plan(&fleet, plan), later);
    let outcome = report.unwrap().outcomes.into_values().next().unwrap();
    (outcome, begun.elapsed().as_secs())
}

#[test]
fn the_copy_of_a_disk_that_is_reverted_in_git_ends_and_nothing_of_it_stays() {
    paused(async {
        let (world, journal, moves, plan) = copying().await;
        let pool = |name: Option<&str>| {
            let mut all = moves.clone();
            let disks = all.virtual_machines.get_mut("web").unwrap().spec.disks.as_mut().unwrap();
            match name {
                Some(name) => disks[0].pool = Some(name.into()),
                None => disks.clear(),
            }
            all
        };
        let mut gone = moves.clone();
        gone.virtual_machines.clear();
        assert_eq!(orders(&plan, &gone), [].into(), "no manifest, no word: it goes on");
        let words = |newer: &Resources| match orders(&plan, newer).into_values().next() {
            Some(Order::Abort { why }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(words(&pool(None)), "the manifest does not ask for pool `shared` any more");
        let back = pool(Some("local"));
        assert_eq!(words(&back), "the manifest says `local` again");

        let (outcome, seconds) = told(&world, &journal, &plan, &back).await;
        assert!(reason(&outcome).contains("not wanted any more: the manifest says `local` again"), "{outcome:?}");
        assert!(seconds < 20, "it took {seconds} s");
        let shared = &world.view("a").unwrap().pools["shared"].volumes;
        assert!(shared.is_empty(), "{:?}", shared.keys());
        let domain = &world.find(id("web"))[0].1;
        assert!(!domain.live_xml.as_ref().unwrap().contains("<mirror"), "{:?}", domain.live_xml);
        assert!(plan_for(&world, &desired(back), &[]).await.steps.is_empty());
    });
}

#[test]
fn the_copy_of_a_disk_takes_the_bandwidth_that_its_policy_has_now() {
    paused(async {
        let (world, journal, moves, plan) = copying().await;
        let (outcome, seconds) = told(&world, &journal, &plan, &moves).await;
        assert!(outcome == Outcome::Done && seconds >= 60, "the same limit: {outcome:?} after {seconds} s");

        let (world, journal, moves, plan) = copying().await;
        let mut faster = moves;
        faster.migration_policies.values_mut().for_each(|p| p.spec.bandwidth = None);
        let (outcome, seconds) = told(&world, &journal, &plan, &faster).await;
        assert!(outcome == Outcome::Done && seconds < 20, "{outcome:?} after {seconds} s");
        assert!(plan_for(&world, &desired(faster), &[]).await.steps.is_empty());
    });
}

/// A disk that is not in the manifest any more, while a copy of it runs that a dead Drover began: libvirt would not let it
/// be unplugged.
#[test]
fn a_copy_of_a_disk_that_nobody_wants_ends_before_the_disk_goes() {
    paused(async {
        let (world, journal, mut all, _) = copying().await;
        let to =
            DiskPlace { pool: "shared".into(), volume: "web-root.raw".into(), path: "/srv/images/web-root.raw".into() };
        assert!(world.leave_half_copy("a", id("web"), "vda", &to));
        all.virtual_machines.get_mut("web").unwrap().spec.disks = Some(Vec::new());
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert_eq!(actions(&plan)[0], "CancelDiskMove", "{}", steps(&plan));
        converge(&world, &desired(all.clone()), &journal).await.unwrap();
        assert!(world.view("a").unwrap().pools["shared"].volumes.is_empty());
        assert!(
            world.view("a").unwrap().pools["local"].volumes.contains_key("web-root.raw"),
            "a volume is never removed"
        );
        // Its machine is to be elsewhere, where the new pool does not reach: it moves, and no copy is in its way.
        let (world, journal, _, _) = copying().await;
        let mut all = keeping(wish("b", "spare", 512 << 20));
        let mut spare = all.storage_pools["local"].clone();
        spare.metadata.name = "spare".into();
        spare.spec.target = Some("/var/lib/spare".into());
        all.storage_pools.insert("spare".into(), spare);
        all.virtual_machines.get_mut("web").unwrap().spec.disks.as_mut().unwrap()[0].format = Some(DiskFormat::Raw);
        let mut here = all.clone();
        here.virtual_machines.get_mut("web").unwrap().spec.host = Some("a".into());
        here.virtual_machines.get_mut("web").unwrap().spec.disks.as_mut().unwrap()[0].pool = Some("local".into());
        converge(&world, &desired(here), &journal).await.unwrap();
        let to = DiskPlace {
            pool: "spare".into(),
            volume: "web-root.raw".into(),
            path: "/var/lib/spare/web-root.raw".into(),
        };
        assert!(world.leave_half_copy("a", id("web"), "vda", &to));
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert_eq!(actions(&plan), ["CancelDiskMove", "MigrateVirtualMachine"], "{}", steps(&plan));
        assert!(plan.steps[1].depends_on.contains(&plan.steps[0].id));
        converge(&world, &desired(all), &journal).await.unwrap();
        let at = world.find(id("web"));
        assert!(at.len() == 1 && at[0].0 == "b" && at[0].1.live_xml.as_ref().unwrap().contains("/var/lib/spare/"));
    });
}

#[test]
fn a_shared_pool_is_checked_once_and_moves_wait_for_it() {
    paused(async {
        let (world, journal) = (world(), journal());
        let plan = plan_for(&world, &desired(wish("a", "shared", 1 << 30)), &[]).await;
        let checks = |plan: &Plan| {
            let of = |name: &str| actions(plan).iter().filter(|a| **a == name).count();
            (of("MarkStoragePool"), of("VerifySharedPool"))
        };
        assert_eq!(checks(&plan), (1, 2), "{}", steps(&plan));
        let verify = plan.steps.iter().find(|s| s.action.name() == "VerifySharedPool").unwrap();
        let mark = plan.steps.iter().find(|s| s.action.name() == "MarkStoragePool").unwrap();
        assert!(verify.depends_on.contains(&mark.id));
        converge(&world, &desired(wish("a", "shared", 1 << 30)), &journal).await.unwrap();
        let plan = plan_for(&world, &desired(wish("b", "shared", 1 << 30)), &[]).await;
        assert_eq!(actions(&plan), ["MigrateVirtualMachine"], "{}", steps(&plan));
    });
}

/// The trap: pools of one name on storage of each host's own, declared as shared.
#[test]
fn nothing_moves_over_pools_that_are_not_the_same() {
    paused(async {
        let trap = |host: &str| {
            let mut all = wish(host, "local", 1 << 30);
            all.storage_pools.get_mut("local").unwrap().spec.shared = true;
            desired(all)
        };
        let (world, journal) = (world(), journal());
        // The checks fail, and the machine comes up all the same.
        let _ = converge(&world, &trap("a"), &journal).await.unwrap_err();
        assert_eq!(world.find(id("web")).len(), 1);
        let plan = plan_for(&world, &trap("b"), &[]).await;
        let finding = plan.findings.iter().find(|f| f.code == Code::NotTheSameStorage).unwrap();
        assert!(finding.message.contains("another storage on `b`, `c` than on `a`"), "{}", finding.message);
        let step = plan.steps.iter().find(|s| s.action.name() == "MigrateVirtualMachine").unwrap();
        assert!(step.blocked_by.iter().any(|b| b.code == Code::NotTheSameStorage), "{:?}", step.blocked_by);
        assert!(actions(&plan).iter().all(|a| *a != "VerifySharedPool"), "what is known is not looked at again");
    });
}

/// The reverse: one storage that is not declared so. A copy would be written onto itself, and the only one deleted.
#[test]
fn a_pool_that_is_shared_and_does_not_say_so_is_told() {
    paused(async {
        let (world, journal) = (world(), journal());
        converge(&world, &desired(wish("a", "shared", 1 << 30)), &journal).await.unwrap();
        let mut all = wish("b", "shared", 1 << 30);
        all.storage_pools.get_mut("shared").unwrap().spec.shared = false;
        let plan = plan_for(&world, &desired(all), &[]).await;
        assert!(plan.findings.iter().any(|f| f.code == Code::NotTheSameStorage && f.message.contains("not declared")));
        let held = |s: &drover::plan::Step| {
            matches!(&s.action, Action::Machine(MachineAction::MigrateVirtualMachine(_))) && s.is_blocked()
        };
        assert!(plan.steps.iter().any(held), "{}", steps(&plan));
    });
}

#[test]
fn what_cannot_be_read_of_a_host_is_said_while_an_nfs_pool_is_set_up() {
    paused(async {
        let (world, journal) = (world(), journal());
        world.edit("b", |h| h.security_models = vec!["selinux".into(), "dac".into()]);
        let nfs = || {
            let mut all = ground();
            let pool = &mut all.storage_pools.get_mut("shared").unwrap().spec;
            pool.r#type = PoolType::Netfs;
            pool.source =
                Some(PoolSource { host: Some("nfs".into()), path: Some("/srv".into()), ..Default::default() });
            desired(all)
        };
        let plan = plan_for(&world, &nfs(), &[]).await;
        let said: Vec<_> = plan.findings.iter().filter(|f| f.code == Code::StorageAccess).collect();
        assert!(said.len() == 1 && said[0].message.contains("`b`"), "{said:?}");
        assert!(said[0].hint.as_deref().unwrap_or_default().contains("setsebool -P virt_use_nfs 1"), "{said:?}");
        converge(&world, &nfs(), &journal).await.unwrap();
        let plan = plan_for(&world, &nfs(), &[]).await;
        assert!(plan.findings.iter().all(|f| f.code != Code::StorageAccess), "once");
    });
}

fn push(all: &mut Resources, name: &str, spec: &str) {
    let spec = serde_yaml::from_str(&format!("{{{spec}}}")).unwrap();
    all.virtual_machine_migrations.insert(name.into(), manifest(name, spec));
}

/// Elsewhere for a while, and its manifest names another pool: its disk is not touched, no volume is made anywhere, and the
/// plan says why. At home the disk moves.
#[test]
fn a_disk_stays_where_it_is_while_its_machine_is_elsewhere_for_a_while() {
    paused(async {
        let (world, journal) = (world(), journal());
        let mut all = keeping(wish("a", "shared", 1 << 30));
        push(&mut all, "trip", "machine: web, to: b, permanent: false");
        converge(&world, &desired(all.clone()), &journal).await.unwrap();
        converge(&world, &desired(all.clone()), &journal).await.unwrap();
        let places = |world: &World| world.find(id("web")).into_iter().map(|(host, _)| host).collect::<Vec<_>>();
        assert_eq!(places(&world), ["a", "b"], "on b, with its definition at home");
        let before = world.find(id("web"));
        let volumes = |world: &World| {
            super::scenario::HOSTS
                .map(|h| world.view(h).unwrap().pools.into_values().map(|p| p.volumes).collect::<Vec<_>>())
        };
        let had = volumes(&world);

        all.virtual_machines.get_mut("web").unwrap().spec.disks.as_mut().unwrap()[0].pool = Some("local".into());
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        assert_eq!(plan.runnable().count(), 0, "{}", steps(&plan));
        let step = plan.steps.iter().find(|s| s.action.name() == "MoveDisk").unwrap();
        let [held] = &step.blocked_by[..] else { panic!("{:?}", step.blocked_by) };
        assert!(held.reason.contains("elsewhere for a while") && held.way_out.contains("home again"), "{held:?}");
        let said = plan.findings.iter().find(|f| f.message.contains("elsewhere for a while")).unwrap();
        assert_eq!((said.code, said.is_error()), (Code::InProgress, false), "waiting is no error");
        assert_eq!(converge(&world, &desired(all.clone()), &journal).await, Ok(0));
        assert_eq!((world.find(id("web")), volumes(&world)), (before, had));

        all.virtual_machine_migrations.clear();
        converge(&world, &desired(all.clone()), &journal).await.unwrap();
        assert_eq!(places(&world), ["a"]);
        let domain = &world.find(id("web"))[0].1;
        for xml in [&domain.live_xml, &domain.persistent_xml] {
            assert!(xml.as_ref().unwrap().contains("/var/lib/images/web-root.qcow2"), "{xml:?}");
        }
        assert!(has(&world, "a", "local") && !has(&world, "b", "local"));
        assert!(plan_for(&world, &desired(all), &[]).await.steps.is_empty());
    });
}

/// A disk that is new in the manifest, on storage that its home does not share: made where the machine is now, it would be
/// missing at home, and what the guest wrote to it be lost.
#[test]
fn a_disk_that_its_home_would_not_have_is_not_made_elsewhere() {
    paused(async {
        let (world, journal) = (world(), journal());
        let mut all = keeping(wish("a", "shared", 1 << 30));
        push(&mut all, "trip", "machine: web, to: b, permanent: false");
        converge(&world, &desired(all.clone()), &journal).await.unwrap();
        converge(&world, &desired(all.clone()), &journal).await.unwrap();
        let more = |name: &str, pool: &str| Disk {
            name: name.into(),
            pool: Some(pool.into()),
            size: Some(Bytes(1 << 30)),
            format: Some(DiskFormat::Qcow2),
            ..Default::default()
        };
        let disks = all.virtual_machines.get_mut("web").unwrap().spec.disks.as_mut().unwrap();
        disks.extend([more("data", "local"), more("logs", "shared")]);
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        let said = plan.findings.iter().find(|f| f.message.contains("`data`")).unwrap();
        assert!(said.message.contains("`local`") && !said.is_error(), "{said:?}");
        converge(&world, &desired(all.clone()), &journal).await.unwrap();
        let on = |host: &str, pool: &str, name: &str| {
            world.view(host).unwrap().pools[pool].volumes.contains_key(&format!("web-{name}.qcow2"))
        };
        assert!(on("b", "shared", "logs"), "what its home has as well is made at once");
        assert!(!on("a", "local", "data") && !on("b", "local", "data"));
        all.virtual_machine_migrations.clear();
        converge(&world, &desired(all.clone()), &journal).await.unwrap();
        assert!(on("a", "local", "data") && !on("b", "local", "data"));
        assert!(plan_for(&world, &desired(all), &[]).await.steps.is_empty());
    });
}

/// What would not be the same disk any more is not copied, and the plan says what it is.
#[test]
fn a_disk_that_is_more_than_its_bytes_is_not_moved() {
    paused(async {
        for (change, words) in [
            ("<encryption format='luks'/>", "encrypted by QEMU"),
            ("<transient/>", "transient"),
            ("checkpoints", "checkpoints"),
        ] {
            let (world, journal) = (world(), journal());
            converge(&world, &desired(wish("a", "local", 1 << 30)), &journal).await.unwrap();
            world.edit("a", |host| {
                let domain = host.domains.iter_mut().find(|d| d.uuid == id("web")).unwrap();
                if change == "checkpoints" {
                    domain.checkpoints = 1;
                    return;
                }
                for xml in [&mut domain.live_xml, &mut domain.persistent_xml].into_iter().flatten() {
                    *xml = xml.replacen("<target dev=", &format!("{change}<target dev="), 1);
                }
            });
            let plan = plan_for(&world, &desired(wish("a", "shared", 1 << 30)), &[]).await;
            let step = plan.steps.iter().find(|s| s.action.name() == "MoveDisk").unwrap();
            assert!(step.blocked_by.iter().any(|b| b.reason.contains(words)), "{words}: {}", steps(&plan));
            assert!(plan.runnable().all(|s| s.action.name() != "CreateVolume"), "{}", steps(&plan));
        }
    });
}

/// What the policy deletes behind a disk is nobody else's: not another machine's on any host of the pool, not the image
/// below another disk, and not where a host of the pool could not be asked.
#[test]
fn what_a_disk_leaves_behind_is_kept_while_somebody_else_may_have_it() {
    paused(async {
        let other = |world: &World| {
            let xml = world.find(id("web"))[0].1.persistent_xml.clone().unwrap();
            let xml = xml.replace(&id("web").to_string(), &id("thief").to_string());
            let (from, to) = (xml.find("<metadata").unwrap(), xml.find("</metadata>").unwrap());
            let xml = format!("{}{}", &xml[..from], &xml[to + "</metadata>".len()..]);
            world.define("c", &xml.replace("<name>web</name>", "<name>thief</name>")).unwrap();
        };
        let cut = |world: &World| world.cut_off("b", "no route to host");
        for (cuts, words) in [(false, "`thief` on `c`"), (true, "`b`, which may use it, could not be read")] {
            let (world, journal) = (world(), journal());
            converge(&world, &desired(wish("a", "shared", 1 << 30)), &journal).await.unwrap();
            if cuts {
                cut(&world)
            } else {
                other(&world)
            }
            let plan = plan_for(&world, &desired(wish("a", "local", 1 << 30)), &[]).await;
            let step = plan.steps.iter().find(|s| s.action.name() == "MoveDisk").unwrap();
            let Action::Machine(MachineAction::MoveDisk(m)) = &step.action else { panic!() };
            assert!(!m.delete_source && step.why.contains("stays in pool shared, because"), "{}", step.why);
            assert!(step.why.contains(words), "{}", step.why);
            assert!(m.owner.volumes.iter().any(|v| v.pool == "shared"), "it is still known as the machine's");
        }
        // An image over it, of a machine that is off and names the overlay only.
        let (world, journal) = (world(), journal());
        converge(&world, &desired(wish("a", "shared", 1 << 30)), &journal).await.unwrap();
        let over = |pool: &str| {
            let mut all = wish("a", pool, 1 << 30);
            let mut clone = all.virtual_machines["web"].clone();
            clone.metadata.name = "clone".into();
            clone.spec.host = Some("b".into());
            clone.spec.power_state = PowerState::Stopped;
            let disk = &mut clone.spec.disks.as_mut().unwrap()[0];
            (disk.pool, disk.backing_image) = (Some("shared".into()), Some("web-root.qcow2".into()));
            all.virtual_machines.insert("clone".into(), clone);
            desired(all)
        };
        converge(&world, &over("shared"), &journal).await.unwrap();
        let plan = plan_for(&world, &over("local"), &[]).await;
        let step = plan.steps.iter().find(|s| s.action.name() == "MoveDisk").unwrap();
        assert!(step.why.contains("is an overlay over it"), "{}", step.why);
    });
}

/// Another format is another volume: the content goes along, and no empty disk takes its place.
#[test]
fn a_disk_that_is_to_have_another_format_keeps_its_content() {
    paused(async {
        let (world, journal) = (world(), journal());
        let raw = |format| {
            let mut all = keeping(wish("a", "shared", 1 << 30));
            all.virtual_machines.get_mut("web").unwrap().spec.disks.as_mut().unwrap()[0].format = Some(format);
            desired(all)
        };
        converge(&world, &raw(DiskFormat::Raw), &journal).await.unwrap();
        let plan = plan_for(&world, &raw(DiskFormat::Qcow2), &[]).await;
        assert_eq!(actions(&plan), ["MoveDisk"], "{}", steps(&plan));
        assert!(
            plan.steps[0].summary.contains("to volume web-root.qcow2 of its pool shared"),
            "{}",
            plan.steps[0].summary
        );
        assert_eq!(converge(&world, &raw(DiskFormat::Qcow2), &journal).await, Ok(1));
        let at = world.find(id("web"));
        assert!(at[0].1.live_xml.as_ref().unwrap().contains("/srv/images/web-root.qcow2"));
        assert!(world.view("a").unwrap().pools["shared"].volumes.contains_key("web-root.raw"), "the old one is kept");
    });
}
