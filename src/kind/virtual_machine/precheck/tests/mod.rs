//! Each precheck passed, failed and unknown, over two hosts and a machine that are as plain as can be.
mod baggage;
mod convergence;
mod cpu;
mod devices;
mod disks;
mod firmware;
mod hypervisor;
mod identity;
mod networks;
mod paths;
mod reach;
mod release;
mod room;
mod storage;
mod topology;

use super::{Move, Prechecked, run};
use crate::action::MigrationWay;
use crate::kind::migration_policy::{CopyStorage, MigrationPolicySpec, Prechecks};
use crate::kind::settings::SettingsSpec;
use crate::kind::virtual_machine::Survey;
use crate::kind::{Resources, Spec};
use crate::model::{Manifest, Metadata, Origin};
use crate::observed::{
    CellState, CpuFit, DirtyRate, DomainState, HostCpu, HostState, InterfaceState, JobOperation, JobState,
    NetworkState, Observed, PagesState, PoolState, ProbeOutcome, ProbeState, Progress, Reading, RunState, VolumeState,
};
use crate::plan::{Context, Load, PlanOptions, Precheck, Treatment, Verdict};
use jiff::Timestamp;
use std::collections::BTreeMap;
use uuid::Uuid;

const GIB: u64 = 1 << 30;
const UUID: &str = "11111111-1111-4111-8111-111111111111";

/// Two hosts, `a` with a running machine and `b` to which it goes.
struct World {
    resources: Resources,
    a: HostState,
    b: HostState,
    policy: MigrationPolicySpec,
    way: MigrationWay,
    starts: bool,
    arriving: Vec<Load>,
}

fn host(name: &str, number: u32) -> HostState {
    HostState {
        hostname: format!("{name}.example.com"),
        uuid: format!("00000000-0000-4000-8000-00000000000{number}"),
        driver: "QEMU".into(),
        libvirt_version: "11.3.0".into(),
        hypervisor_version: "10.0.2".into(),
        arch: "x86_64".into(),
        cpus: 4,
        memory: 16 * GIB,
        free_memory: 8 * GIB,
        domain_types: vec!["kvm".into(), "qemu".into()],
        emulators: vec!["/usr/bin/qemu-system-x86_64".into()],
        machine_types: vec!["pc-q35-10.0".into(), "pc-q35-7.2".into()],
        interfaces: Some([("br0".to_owned(), InterfaceState { r#type: "bridge".into(), mtu: Some(1500) })].into()),
        cells: vec![CellState {
            id: 0,
            memory: 16 * GIB,
            free_memory: Some(8 * GIB),
            cpus: (0..4).collect(),
            ..Default::default()
        }],
        probe: Some(ProbeState {
            address: format!("{name}.example.com"),
            port: 49215,
            outcome: ProbeOutcome::Refused,
            detail: String::new(),
        }),
        ..Default::default()
    }
}

fn manifest<S: Spec>(name: &str, spec: &str) -> Manifest<S> {
    Manifest {
        kind: S::KIND,
        metadata: Metadata { name: name.into(), ..Default::default() },
        spec: serde_yaml::from_str(spec).unwrap(),
        origin: Origin::default(),
    }
}

/// A machine of 1 GiB with two CPUs, and these devices and other parts.
fn xml(devices: &str, more: &str) -> String {
    format!(
        "<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><memory unit='GiB'>1</memory><vcpu>2</vcpu>{more}
         <os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
         <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices></domain>"
    )
}

/// A guest that takes 512 MiB of its host and writes so many mebibytes a second.
fn writes(mib: u64) -> DirtyRate {
    DirtyRate { bytes_per_second: mib << 20, seconds: 1, resident: Some(512 << 20) }
}

fn pool(kind: &str, source: &str, target: &str, files: &[&str]) -> PoolState {
    let volumes = files.iter().map(|f| {
        let state = VolumeState {
            path: format!("{target}/{f}"),
            format: "qcow2".into(),
            capacity: 20 * GIB,
            allocation: 5 * GIB,
            backing: None,
        };
        ((*f).to_owned(), state)
    });
    PoolState {
        active: true,
        persistent: true,
        xml: format!(
            "<pool type='{kind}'><name>p</name><source>{source}</source><target><path>{target}</path></target></pool>"
        ),
        target: Some(target.into()),
        capacity: 100 * GIB,
        available: 50 * GIB,
        volumes: volumes.collect(),
        ..Default::default()
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            resources: Resources::default(),
            a: host("a", 1),
            b: host("b", 2),
            policy: MigrationPolicySpec::default(),
            way: MigrationWay::Live,
            starts: true,
            arriving: Vec::new(),
        };
        for name in ["a", "b"] {
            let host = manifest(name, &format!("{{uri: 'qemu+ssh://root@{name}.example.com/system'}}"));
            world.resources.hosts.insert(name.into(), host);
        }
        world.machine("", "")
    }

    /// With a machine that has these devices and other parts.
    fn machine(mut self, devices: &str, more: &str) -> Self {
        let text = xml(devices, more);
        let mut domain =
            DomainState::new("web".into(), UUID.parse().unwrap(), RunState::Running, "booted".into(), true);
        (domain.live_xml, domain.persistent_xml) = (Some(text.clone()), Some(text));
        domain.dirty_rate = Some(Reading::Present(writes(1)));
        self.a.domains = vec![domain];
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn off(mut self) -> Self {
        self.way = MigrationWay::Offline;
        self.a.domains[0].state = RunState::Off;
        self.a.domains[0].live_xml = None;
        self
    }

    /// A pool with these files on `a` and those on `b`, declared on both.
    fn pool(mut self, spec: &str, a: PoolState, b: PoolState) -> Self {
        let spec = format!("{{hosts: [a, b], {spec}}}");
        self.resources.storage_pools.insert("p".into(), manifest("p", &spec));
        self.a.pools.insert("p".into(), a);
        self.b.pools.insert("p".into(), b);
        self
    }

    fn says(mut self, precheck: Precheck, treatment: Treatment) -> Self {
        self.policy.prechecks = Prechecks::from_iter([(precheck, treatment)]);
        self
    }

    fn look(&self) -> Prechecked {
        let mut observed = Observed::empty(Timestamp::UNIX_EPOCH);
        for (name, state) in [("a", &self.a), ("b", &self.b)] {
            observed.hosts.insert(name.into(), Reading::Present(state.clone()));
        }
        let (settings, options) = (SettingsSpec::default(), PlanOptions::default());
        let ctx = Context {
            resources: &self.resources,
            observed: &observed,
            settings: &settings,
            now: Timestamp::UNIX_EPOCH,
            options: &options,
            commit: None,
            survey: Survey::new(&self.resources, &observed, false),
        };
        run(&Move {
            ctx: &ctx,
            machine: None,
            domain: &self.a.domains[0],
            from: "a",
            source: &self.a,
            to: "b",
            destination: &self.b,
            way: self.way,
            starts: self.starts,
            policy: &self.policy,
            arriving: self.arriving.clone(),
        })
    }

    /// The worst that became of a precheck, and everything that was said of it.
    fn result(&self, precheck: Precheck) -> (Option<Verdict>, String) {
        let checks = self.look().checks;
        let of: Vec<_> = checks.iter().filter(|c| c.name == precheck).collect();
        let text: Vec<&str> = of.iter().map(|c| c.message.as_str()).collect();
        (of.iter().map(|c| c.verdict).max(), text.join("\n"))
    }

    #[track_caller]
    fn is(self, precheck: Precheck, verdict: Verdict, words: &[&str]) -> Self {
        let (found, text) = self.result(precheck);
        assert_eq!(found, Some(verdict), "{precheck}: {text}");
        for word in words {
            assert!(text.contains(word), "{precheck}: `{word}` in `{text}`");
        }
        self
    }
}

use Precheck as P;
use Verdict::{Block, Ignored, Pass, Unknown, Warn};

fn disk(path: &str, driver: &str) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'{driver}/><source file='{path}'/><target dev='vda'/></disk>"
    )
}

const NFS: &str = "<host name='nfs'/><dir path='/srv'/><format type='nfs'/>";

fn on_nfs(driver: &str, b: PoolState) -> World {
    let spec = "type: netfs, source: {host: nfs, path: /srv}, target: /images, shared: true";
    World::new().machine(&disk("/images/web", driver), "").pool(spec, pool("netfs", NFS, "/images", &["web"]), b)
}

#[test]
fn a_plain_machine_passes_everything_that_can_be_read() {
    let checks = World::new().look().checks;
    let odd: Vec<_> = checks.iter().filter(|c| c.verdict != Pass).map(|c| (c.name, c.verdict)).collect();
    assert_eq!(odd, [(P::Release, Unknown)], "{checks:#?}");
    let mut sorted = checks.clone();
    sorted.sort_by_key(|c| c.name);
    assert_eq!(checks, sorted);
    assert!(checks.iter().all(|c| c.code == c.name.code() && !c.message.is_empty()));
}

#[test]
fn nothing_is_passed_of_what_was_not_read() {
    let blind = World::new().machine("<interface type='bridge'><source bridge='br0'/></interface>", "").with(|w| {
        let domains = std::mem::take(&mut w.a.domains);
        (w.a, w.b) = (HostState::default(), HostState::default());
        (w.a.driver, w.b.driver) = ("QEMU".into(), "QEMU".into());
        w.a.domains = domains;
    });
    for precheck in
        [P::HostIdentity, P::Versions, P::Release, P::MachineType, P::Memory, P::Vcpus, P::Bridges, P::Segment]
    {
        let (verdict, text) = blind.result(precheck);
        assert_eq!(verdict, Some(Unknown), "{precheck}: {text}");
    }
    // What is unknown holds back only where a policy asks for that.
    let (verdict, _) = blind.says(P::Memory, Treatment::Require).result(P::Memory);
    assert_eq!(verdict, Some(Block));
}

#[test]
fn a_definition_that_cannot_be_read_moves_nowhere() {
    let world = World::new().with(|w| w.a.domains[0].live_xml = Some("<domain".into()));
    assert_eq!(world.look().checks.len(), 1);
    world.is(P::HostRead, Block, &["`web` on `a`"]);
}

#[test]
fn a_policy_makes_milder_or_stricter_what_it_may() {
    let small = || World::new().with(|w| w.b.free_memory = GIB / 2);
    small().is(P::Memory, Block, &["512Mi", "1Gi"]);
    small().says(P::Memory, Treatment::Warn).is(P::Memory, Warn, &[]);
    small().says(P::Memory, Treatment::Ignore).is(P::Memory, Ignored, &[]);
    World::new().with(|w| w.b.cpus = 1).says(P::Vcpus, Treatment::Block).is(P::Vcpus, Block, &["2", "1"]);
    // A policy that validation would have refused still cannot take the protection away.
    World::new().with(|w| w.a.domains[0].snapshots = 2).says(P::Snapshots, Treatment::Ignore).is(
        P::Snapshots,
        Block,
        &["2 snapshots"],
    );
}
