//! Small worlds by the number: what Git wants, what is there, and what people did to it by hand. Everything follows from
//! one seed, so a failure is replayed with it.

use drover::action::{Action, MachineAction, Migration, MigrationWay};
use drover::kind::host::{HostSpec, Maintenance};
use drover::kind::migration_policy::{CopyStorage, MigrationPolicySpec};
use drover::kind::settings::SettingsSpec;
use drover::kind::storage_pool::{PoolType, StoragePoolSpec};
use drover::kind::virtual_machine::{Disk, DiskFormat, Interface, PowerState, RestartPolicy, VirtualMachineSpec, uuid};
use drover::kind::{Desired, Resources, Spec};
use drover::model::{Bytes, Manifest, Metadata, Origin, Revision};
use drover::observed::{DomainState, RunState};
use drover::provider::simulator::World;
use drover::provider::{Look, StepCtx, StepOrders};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const HOSTS: [&str; 3] = ["a", "b", "c"];

/// A stream of numbers that depends on its seed only (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()].clone()
    }
}

pub fn manifest<S: Spec>(name: &str, spec: S) -> Manifest<S> {
    Manifest {
        kind: S::KIND,
        metadata: Metadata { name: name.into(), ..Default::default() },
        spec,
        origin: Origin { file: "all.yaml".into(), line: 1, column: 1, ..Default::default() },
    }
}

/// Three hosts, a shared and a local pool, a policy that copies local disks; no machines.
pub fn ground() -> Resources {
    let mut all = Resources::default();
    for host in HOSTS {
        let spec = HostSpec {
            uri: format!("sim:{host}"),
            release: None,
            maintenance: Maintenance::None,
            fenced: false,
            migration: Default::default(),
        };
        all.hosts.insert(host.into(), manifest(host, spec));
    }
    for (name, target, shared) in [("shared", "/srv/images", true), ("local", "/var/lib/images", false)] {
        let spec = StoragePoolSpec {
            hosts: HOSTS.map(str::to_owned).to_vec(),
            r#type: PoolType::Dir,
            source: None,
            target: Some(target.into()),
            shared,
            mount_options: Vec::new(),
            autostart: true,
            pool_name: None,
        };
        all.storage_pools.insert(name.into(), manifest(name, spec));
    }
    let policy =
        MigrationPolicySpec { copy_storage: CopyStorage::All, delete_source_copies: true, ..Default::default() };
    all.migration_policies.insert("copy".into(), manifest("copy", policy));
    let settings =
        SettingsSpec { migration_policy: Some("copy".into()), prune: true, max_deletes: 100, ..Default::default() };
    all.settings.insert("default".into(), manifest("default", settings));
    all
}

pub fn desired(resources: Resources) -> Desired {
    Desired { revision: Revision { commit: Some("c0ffee".into()), base: None, path: "sim".into() }, resources }
}

/// A machine as somebody might write it.
pub fn machine(dice: &mut Dice) -> VirtualMachineSpec {
    let disk = |name: &str, pool: &str| Disk {
        name: name.into(),
        pool: Some(pool.into()),
        size: Some(Bytes(1 << 30)),
        format: Some(DiskFormat::Qcow2),
        ..Default::default()
    };
    let disks = match dice.roll(5) {
        0 => None,
        1 | 2 => Some(vec![disk("root", "shared")]),
        3 => Some(vec![disk("root", "local")]),
        _ => Some(vec![disk("root", "shared"), disk("data", "local")]),
    };
    VirtualMachineSpec {
        host: Some(dice.pick(&HOSTS).into()),
        power_state: dice.pick(&[
            PowerState::Running,
            PowerState::Running,
            PowerState::Running,
            PowerState::Stopped,
            PowerState::Paused,
        ]),
        cpus: Some(dice.pick(&[1, 2, 4])),
        max_cpus: Some(4),
        memory: Some(dice.pick(&[Bytes(256 << 20), Bytes(512 << 20)])),
        max_memory: Some(Bytes(512 << 20)),
        machine: Some("q35".into()),
        disks,
        interfaces: Some(vec![Interface { network: Some("default".into()), ..Default::default() }]),
        autostart: dice.pick(&[None, Some(true), Some(false)]),
        title: dice.pick(&[None, Some("one".into()), Some("two".into())]),
        restart_policy: dice.pick(&[RestartPolicy::Allow, RestartPolicy::Never]),
        ..Default::default()
    }
}

/// Up to three machines, each of which may be left out.
pub fn machines(dice: &mut Dice, resources: &mut Resources) {
    for n in 0..3 {
        if !dice.one_in(5) {
            let name = format!("vm-{n}");
            let spec = machine(dice);
            resources.virtual_machines.insert(name.clone(), manifest(&name, spec));
        }
    }
}

/// The UUID that a machine of this name has.
pub fn id(name: &str) -> Uuid {
    uuid(&manifest(name, VirtualMachineSpec::default()))
}

fn ctx() -> StepCtx {
    StepCtx {
        deadline: Duration::from_secs(3600),
        cancel: CancellationToken::new(),
        progress: Arc::new(|_| {}),
        orders: StepOrders::default(),
        note: Arc::new(|_| {}),
    }
}

/// Does something by hand if it can be done; gives whether it was.
pub async fn by_hand(world: &World, action: MachineAction) -> bool {
    let action = Action::Machine(action);
    let actor = world.actor();
    actor.look(&action, &ctx()).await == Ok(Look::Ready) && actor.act(&action, &ctx()).await.is_ok()
}

/// Moves a machine as `virsh migrate --live` does, with or without the flag that removes the old definition.
fn moving(domain: &DomainState, from: &str, to: &str, way: MigrationWay) -> MachineAction {
    MachineAction::MigrateVirtualMachine(Box::new(Migration {
        bandwidth_mib: Some(16),
        ..Migration::new(domain.uuid, &domain.name, [from, to], way, format!("sim:{to}"))
    }))
}

/// What people do to machines behind Drover's back.
pub async fn meddle(dice: &mut Dice, world: &World) -> String {
    let name = format!("vm-{}", dice.roll(3));
    let uuid = id(&name);
    let Some((host, domain)) = world.find(uuid).into_iter().next() else {
        let (host, pool) = (dice.pick(&HOSTS), dice.pick(&["shared", "local"]));
        world.edit(host, |h| h.pools.get_mut(pool).into_iter().for_each(|p| p.active = false));
        return format!("stop pool {pool} on {host}");
    };
    let to = dice.pick(&HOSTS.into_iter().filter(|h| *h != host).collect::<Vec<_>>());
    let change = |what: &dyn Fn(&mut DomainState)| {
        world.edit(&host, |h| h.domains.iter_mut().filter(|d| d.uuid == uuid).for_each(what));
    };
    let off = |d: &mut DomainState| {
        (d.state, d.reason, d.live_xml, d.job) = (RunState::Off, "destroyed".into(), None, None);
    };
    let busy = domain.is_in_migration();
    let runs = world.find(uuid).iter().any(|(_, d)| d.is_active());
    let what = dice.roll(11);
    match what {
        0 if !busy && domain.persistent => change(&off),
        1 if !busy => {
            by_hand(world, MachineAction::PauseDomain { host: host.clone(), uuid }).await;
        }
        // Nobody starts a second copy: that is a case of its own, and nothing converges from it.
        2 if !busy && !runs => {
            by_hand(world, MachineAction::StartDomain { host: host.clone(), uuid, paused: false }).await;
        }
        // `virsh undefine` of a running machine makes it transient.
        3 if domain.is_active() && !busy => {
            change(&|d| (d.persistent, d.autostart, d.persistent_xml) = (false, false, None));
        }
        4 if !domain.is_active() => {
            by_hand(world, MachineAction::UndefineDomain { host: host.clone(), uuid, nvram: false }).await;
        }
        5 if domain.is_active() && !busy => {
            by_hand(world, moving(&domain, &host, to, MigrationWay::Live)).await;
        }
        6 if domain.is_active() && !busy => {
            let action = Action::Machine(moving(&domain, &host, to, MigrationWay::Live));
            let actor = world.actor();
            if actor.look(&action, &ctx()).await == Ok(Look::Ready) {
                // Begun, and still under way when Drover looks.
                let _ = tokio::time::timeout(Duration::from_secs(2), actor.act(&action, &ctx())).await;
            }
        }
        // `virsh migrate --live --persistent` without `--undefinesource`.
        7 if domain.is_active() && domain.persistent && !busy => {
            if by_hand(world, moving(&domain, &host, to, MigrationWay::Live)).await {
                let mut stale = domain.clone();
                (stale.state, stale.reason, stale.live_xml) = (RunState::Off, "migrated".into(), None);
                world.edit(&host, |h| h.domains.push(stale));
            }
        }
        8 if !busy => {
            by_hand(world, MachineAction::SetAutostart { host: host.clone(), uuid, autostart: !domain.autostart })
                .await;
        }
        9 if !busy => change(&|d| {
            for xml in [&mut d.live_xml, &mut d.persistent_xml].into_iter().flatten() {
                *xml = xml.replace("<title>one</title>", "<title>by hand</title>").replace(">262144<", ">131072<");
            }
        }),
        // With its disks: who leaves them behind has broken the machine.
        10 if !busy && !runs && !domain.persistent_xml.as_deref().unwrap_or_default().contains("/var/lib/images") => {
            by_hand(world, moving(&domain, &host, to, MigrationWay::Offline)).await;
        }
        _ => return format!("nothing to {name}"),
    }
    format!("{what} to {name} on {host} (towards {to})")
}
