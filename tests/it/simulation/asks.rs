//! What a plan asks of hosts before machines move, for whosever sake they do, and what it makes of the answers.

use super::converge::{converge, observe, plan_for, steps};
use super::scenario::{desired, ground, id, manifest};
use super::support::{now, paused, running, world};
use drover::journal::{Journal, Memory};
use drover::kind::Resources;
use drover::kind::host::Maintenance;
use drover::kind::virtual_machine::questions;
use drover::observed::Reading;
use drover::plan::{Check, Plan, PlanInput, PlanOptions, Precheck, Verdict, plan};
use drover::provider::simulator::{Call, Effect, Fault, World};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// Adds a machine that names no CPU, so that it gets its host's model when it starts.
fn machine(all: &mut Resources, name: &str, place: &str) {
    let spec = format!("{{{place}, cpus: 1, memory: 256Mi, machine: q35, interfaces: [{{network: default}}]}}");
    all.virtual_machines.insert(name.into(), manifest(name, serde_yaml::from_str(&spec).unwrap()));
}

fn migration(all: &mut Resources, spec: &str) {
    let spec = serde_yaml::from_str(&format!("{{{spec}}}")).unwrap();
    all.virtual_machine_migrations.insert("m".into(), manifest("m", spec));
}

async fn settle(world: &World, all: &Resources) {
    let journal: Arc<dyn Journal> = Arc::new(Memory::new());
    converge(world, &desired(all.clone()), &journal).await.unwrap();
}

fn check<'p>(plan: &'p Plan, summary: &str, name: Precheck) -> &'p Check {
    let step = plan.steps.iter().find(|s| s.summary == summary).unwrap_or_else(|| panic!("{}", steps(plan)));
    step.checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{:#?}", step.checks))
}

/// The CPU fits, and the convergence is foretold with this dirty rate.
fn is_known(plan: &Plan, summary: &str, writes: &str) {
    let cpu = check(plan, summary, Precheck::Cpu);
    assert_eq!(cpu.verdict, Verdict::Pass, "{cpu:?}");
    assert!(cpu.message.contains("Cascadelake"), "compared, and not waved through: {cpu:?}");
    let convergence = check(plan, summary, Precheck::Convergence);
    assert_eq!(convergence.verdict, Verdict::Pass, "{convergence:?}");
    assert!(convergence.message.starts_with(&format!("it writes {writes}/s, and ")), "{convergence:?}");
    let step = plan.steps.iter().find(|s| s.summary == summary).unwrap();
    assert!(step.estimate.prediction.is_some_and(|p| p.dirty_rate.is_some()), "{:?}", step.estimate);
}

#[test]
fn a_move_is_foretold_for_whosever_sake_a_machine_makes_it() {
    paused(async {
        let world = world();
        let mut all = ground();
        machine(&mut all, "web", "host: a");
        settle(&world, &all).await;
        world.set_dirty_rate(id("web"), 7 * MIB);
        // Its manifest.
        all.virtual_machines.get_mut("web").unwrap().spec.host = Some("b".into());
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        is_known(&plan, "live-migrate web from a to b", "7Mi");
        all.virtual_machines.get_mut("web").unwrap().spec.host = Some("a".into());
        // A migration, there and home again.
        migration(&mut all, "machine: web, to: c, permanent: false");
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        is_known(&plan, "live-migrate web from a to c, for a while", "7Mi");
        settle(&world, &all).await;
        all.virtual_machine_migrations.clear();
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        is_known(&plan, "live-migrate web from c to a, its home", "7Mi");
        settle(&world, &all).await;

        // What has no manifest: for good, for a while, and home.
        all.virtual_machines.clear();
        let name = world.find(id("web"))[0].1.name.clone();
        migration(&mut all, &format!("machine: {name}, to: b"));
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        is_known(&plan, "live-migrate web from a to b", "7Mi");
        migration(&mut all, "all: true, from: a, to: b, permanent: false");
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        is_known(&plan, "live-migrate web from a to b, for a while", "7Mi");
    });
}

#[test]
fn a_stray_machine_s_way_home_is_foretold() {
    paused(async {
        let world = world();
        let uuid = running(&world, "a", 9).await;
        world.set_dirty_rate(uuid, 3 * MIB);
        let mut all = ground();
        migration(&mut all, "machine: vm-9, to: b, permanent: false");
        settle(&world, &all).await;
        all.virtual_machine_migrations.clear();
        let plan = plan_for(&world, &desired(all), &[]).await;
        let convergence = check(&plan, "live-migrate vm-9 from b to a, its home", Precheck::Convergence);
        assert!(convergence.message.starts_with("it writes 3Mi/s"), "{convergence:?}");
    });
}

/// The measurement is the policy's that counts for this move, and what does not move is left in peace.
#[test]
fn a_migration_s_own_policy_says_how_it_is_measured() {
    paused(async {
        let world = world();
        let mut all = ground();
        machine(&mut all, "web", "host: a");
        machine(&mut all, "stays", "host: a");
        settle(&world, &all).await;
        let slow = serde_yaml::from_str("{dirtyRate: {period: 5s}}").unwrap();
        all.migration_policies.insert("slow".into(), manifest("slow", slow));
        migration(&mut all, "machine: web, to: c, permanent: false, migrationPolicy: slow");
        let mut observed = world.fleet().read().observe(now(), std::time::Duration::from_secs(1)).await;
        let asked = questions(&all, &observed, false);
        let [rate] = asked.dirty_rates.as_slice() else { panic!("{asked:?}") };
        assert_eq!((rate.uuid, rate.seconds), (id("web"), 5));
        assert_eq!(asked.comparisons.iter().map(|c| (c.uuid, c.to.as_str())).collect::<Vec<_>>(), [(id("web"), "c")]);
        // Nothing is asked twice.
        world.fleet().read().ask(asked, &mut observed, std::time::Duration::from_secs(1)).await;
        assert!(questions(&all, &observed, false).is_empty());
        all.virtual_machine_migrations.get_mut("m").unwrap().spec.suspend = true;
        let observed = world.fleet().read().observe(now(), std::time::Duration::from_secs(1)).await;
        assert!(questions(&all, &observed, false).is_empty(), "what is suspended moves nothing");
    });
}

/// `--rebalance` moves what could stay: that is asked about, too.
#[test]
fn moves_for_balance_are_asked_about() {
    paused(async {
        let world = world();
        let mut all = ground();
        for n in 0..4 {
            machine(&mut all, &format!("web-{n}"), "host: a");
        }
        settle(&world, &all).await;
        for n in 0..4 {
            machine(&mut all, &format!("web-{n}"), "placement: {}");
        }
        for host in ["a", "b", "c"] {
            world.edit(host, |h| h.memory = 2048 * MIB);
        }
        let (wanted, fleet) = (desired(all.clone()), world.fleet().read());
        let mut observed = fleet.observe(now(), std::time::Duration::from_secs(1)).await;
        assert!(questions(&all, &observed, false).is_empty());
        let asked = questions(&all, &observed, true);
        fleet.ask(asked, &mut observed, std::time::Duration::from_secs(1)).await;
        let options = PlanOptions { rebalance: true, ..Default::default() };
        let plan = plan(&PlanInput { desired: &wanted, observed: &observed, now: now(), options });
        let moves: Vec<_> = plan.steps.iter().filter(|s| s.summary.starts_with("live-migrate")).collect();
        assert!(!moves.is_empty(), "{}", steps(&plan));
        for step in moves {
            assert!(step.checks.iter().any(|c| c.name == Precheck::Cpu && c.verdict == Verdict::Pass), "{step:#?}");
        }
    });
}

/// A machine that has to leave goes to the host that can give it its CPU, and what that host answers is known, too.
#[test]
fn an_evacuation_looks_further_when_a_host_cannot_give_the_cpu() {
    paused(async {
        let world = world();
        let mut all = ground();
        machine(&mut all, "web", "placement: {}");
        all.hosts.get_mut("b").unwrap().spec.maintenance = Maintenance::Cordon;
        all.hosts.get_mut("c").unwrap().spec.maintenance = Maintenance::Cordon;
        settle(&world, &all).await;
        assert_eq!(world.find(id("web"))[0].0, "a");
        for host in ["b", "c"] {
            all.hosts.get_mut(host).unwrap().spec.maintenance = Maintenance::None;
        }
        all.hosts.get_mut("a").unwrap().spec.maintenance = Maintenance::Evacuate;
        let plan = plan_for(&world, &desired(all.clone()), &[]).await;
        let first = plan.steps[0].summary.rsplit(' ').next().unwrap().to_owned();
        let other = if first == "b" { "c" } else { "b" };
        // Older than what the machine was started with, and that is found out by asking only: both are as unlike `a`.
        for (host, model) in [(first.as_str(), "Broadwell-noTSX"), (other, "Icelake-Server-noTSX")] {
            world.edit(host, |h| h.cpu.as_mut().unwrap().model = model.into());
        }
        let observed = observe(&world, &desired(all.clone())).await;
        let domain = &observed.host("a").unwrap().domains[0];
        let asked: Vec<_> = domain.cpu_at.iter().map(|(h, a)| (h.as_str(), matches!(a, Reading::Present(_)))).collect();
        assert_eq!(asked, [("b", true), ("c", true)]);
        let plan = plan_for(&world, &desired(all), &[]).await;
        let cpu = check(&plan, &format!("live-migrate web from a to {other}"), Precheck::Cpu);
        assert_eq!(cpu.verdict, Verdict::Pass, "{cpu:?}");
    });
}

/// A pinned machine cannot look further: the plan says what its host's CPU lacks, and the common CPU helps.
#[test]
fn a_cpu_that_cannot_be_had_holds_a_move_back_and_the_common_one_does_not() {
    paused(async {
        let world = world();
        world.edit("b", |h| h.cpu.as_mut().unwrap().model = "Broadwell-noTSX".into());
        let mut all = ground();
        machine(&mut all, "web", "host: a");
        machine(&mut all, "old", "host: a, cpu: {mode: Baseline, hosts: [a, b]}");
        settle(&world, &all).await;
        for name in ["web", "old"] {
            all.virtual_machines.get_mut(name).unwrap().spec.host = Some("b".into());
        }
        let plan = plan_for(&world, &desired(all), &[]).await;
        let cpu = check(&plan, "live-migrate web from a to b", Precheck::Cpu);
        assert_eq!(cpu.verdict, Verdict::Block, "{cpu:?}");
        assert!(cpu.message.contains("avx512f"), "{cpu:?}");
        let cpu = check(&plan, "live-migrate old from a to b", Precheck::Cpu);
        assert_eq!(cpu.verdict, Verdict::Pass, "{cpu:?}");
        assert!(cpu.message.contains("Broadwell-noTSX"), "{cpu:?}");
    });
}

/// No answer is no answer: the move is planned, and the plan says what is not known and why.
#[test]
fn what_a_host_does_not_answer_is_not_known() {
    paused(async {
        let world = world();
        let mut all = ground();
        machine(&mut all, "web", "host: a");
        settle(&world, &all).await;
        all.virtual_machines.get_mut("web").unwrap().spec.host = Some("b".into());
        world.inject(Fault::on(Call::Ask, Effect::Fails { message: "no such job".into(), transient: false }).host("a"));
        world.inject(Fault::on(Call::Ask, Effect::Hangs).host("b"));
        let plan = plan_for(&world, &desired(all), &[]).await;
        let step = "live-migrate web from a to b";
        assert!(!plan.steps[0].is_blocked());
        for (name, words) in [(Precheck::Convergence, "no such job"), (Precheck::Cpu, "did not answer within 10 s")] {
            let one = check(&plan, step, name);
            assert_eq!(one.verdict, Verdict::Unknown, "{one:?}");
            assert!(one.message.contains(words), "{one:?}");
        }
    });
}

/// The images of a host are asked for once, and only where a machine that has one is to be there, running or off.
#[test]
fn firmware_is_asked_for_where_a_machine_that_has_an_image_moves() {
    paused(async {
        let world = world();
        let mut all = ground();
        let loader = "xmlPatches: [{op: add, at: /domain/os, xml: \"<loader type='pflash'>/fw/code.fd</loader>\"}]";
        machine(&mut all, "uefi", &format!("host: a, powerState: Stopped, {loader}"));
        machine(&mut all, "bios", "host: a");
        settle(&world, &all).await;
        for name in ["uefi", "bios"] {
            all.virtual_machines.get_mut(name).unwrap().spec.host = Some("b".into());
        }
        let read = async || world.fleet().read().observe(now(), std::time::Duration::from_secs(1)).await;
        let asked = questions(&all, &read().await, false).firmware;
        assert_eq!(asked.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(asked["b"].machine.as_deref(), Some("pc-q35-10.0"), "as its definition has it");
        let summary = "move uefi from a to b";
        let verdict = |plan: &Plan| check(plan, summary, Precheck::Firmware).verdict;
        assert_eq!(verdict(&plan_for(&world, &desired(all.clone()), &[]).await), Verdict::Unknown);
        world.edit("b", |h| h.firmware = Some(vec!["/fw/code.fd".into()]));
        assert_eq!(verdict(&plan_for(&world, &desired(all.clone()), &[]).await), Verdict::Pass);
        assert!(questions(&all, &read().await, false).firmware.is_empty(), "it is known");
    });
}
