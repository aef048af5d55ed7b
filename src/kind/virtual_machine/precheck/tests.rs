//! Each precheck passed, failed and unknown, over two hosts and a machine that are as plain as can be.

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

#[test]
fn the_hosts_are_two_of_one_kind() {
    World::new().with(|w| w.b.uuid = w.a.uuid.clone()).is(P::HostIdentity, Block, &["one host"]);
    World::new().with(|w| w.b.driver = "XEN".into()).is(P::Hypervisor, Block, &["XEN", "QEMU"]);
    World::new().with(|w| w.b.arch = "aarch64".into()).is(P::Hypervisor, Block, &["x86_64", "aarch64"]);
    World::new().with(|w| w.b.domain_types = vec!["qemu".into()]).is(P::Hypervisor, Block, &["`kvm`", "qemu"]);
    World::new().with(|w| w.b.emulators = vec!["/usr/libexec/qemu-kvm".into()]).is(
        P::Hypervisor,
        Block,
        &["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"],
    );
    // A program of somebody's own is in no capabilities, on neither host.
    World::new()
        .with(|w| (w.a.emulators, w.b.emulators) = (vec!["/usr/bin/qemu".into()], vec!["/usr/libexec/qemu-kvm".into()]))
        .is(P::Hypervisor, Pass, &[]);
    World::new().with(|w| w.b.libvirt_version = "9.0.0".into()).is(P::Versions, Warn, &["libvirt 11.3.0 to 9.0.0"]);
    World::new().with(|w| w.a.libvirt_version = "9.0.0".into()).is(P::Versions, Pass, &["9.0.0 to 11.3.0"]);
}

#[test]
fn a_machine_type_must_be_known_for_a_machine_that_is_off_as_well() {
    let old = || World::new().with(|w| w.b.machine_types = vec!["pc-q35-7.2".into(), "pc-q35-8.1".into()]);
    old().is(P::MachineType, Block, &["pc-q35-10.0", "newest of that family is pc-q35-8.1"]);
    old().off().is(P::MachineType, Block, &["pc-q35-10.0"]);
}

#[test]
fn pairs_of_releases_are_those_of_the_table() {
    let pair = |a: &str, b: &str| {
        World::new().with(|w| {
            for (host, release) in [("a", a), ("b", b)] {
                w.resources.hosts.get_mut(host).unwrap().spec.release = Some(release.into());
            }
        })
    };
    pair("rhel-8.1", "rhel-8.6").is(P::Release, Pass, &["rhel 8.1", "rhel 8.6", "forward, minor"]);
    pair("rhel-8.6", "rhel-9.2").is(P::Release, Block, &["no such way", "pc-q35-10.0"]);
    pair("rhel-8.6", "rhel-9.2").off().is(P::Release, Pass, &[]);
    pair("rhel-8.6", "rhel-9.2").says(P::Release, Treatment::Warn).is(P::Release, Warn, &[]);
    pair("debian-12", "debian-12").is(P::Release, Pass, &["the same"]);
    pair("debian-12", "debian-13").is(P::Release, Warn, &["says nothing of debian"]);
    pair("debian-13", "debian-12").is(P::Release, Block, &["older"]);
    pair("rhel-9.0", "debian-12").is(P::Release, Block, &["another distribution"]);
    pair("rhel-9.0", "sid").is(P::Release, Unknown, &["sid"]);
    // RHEL's machine types tell what nobody declared.
    World::new()
        .with(|w| {
            (w.a.machine_types, w.b.machine_types) = (vec!["pc-q35-rhel8.6.0".into()], vec!["pc-q35-rhel9.2.0".into()]);
        })
        .is(P::Release, Block, &["rhel 8.6", "rhel 9.2"]);
}

#[test]
fn devices_of_the_host_hold_a_running_machine_back() {
    let pci =
        "<hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x06' slot='0x02' function='0x0'/>
               </source></hostdev>";
    World::new().machine(pci, "").is(P::Devices, Block, &["hostdev (pci) 0000:06:02.0"]);
    World::new().machine(pci, "").off().is(P::Devices, Warn, &["must have the same"]);
    for (device, word) in [
        (
            "<hostdev mode='subsystem' type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>",
            "c2177883",
        ),
        (
            "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>",
            "vendor 0x1234 product 0xbeef",
        ),
        (
            "<interface type='hostdev'><source><address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x1'/></source></interface>",
            "0000:01:10.1",
        ),
        ("<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>", "vdpa"),
        ("<interface type='vhostuser'><source type='unix' path='/tmp/s0' mode='server'/></interface>", "/tmp/s0"),
        (
            "<filesystem type='mount'><driver type='virtiofs'/><source dir='/x'/><target dir='share'/></filesystem>",
            "share (virtiofs)",
        ),
        ("<filesystem type='mount'><source dir='/x'/><target dir='share'/></filesystem>", "share (9p)"),
        ("<shmem name='glass'><model type='ivshmem-plain'/></shmem>", "shmem glass"),
        ("<disk type='nvme' device='disk'><target dev='vda'/></disk>", "vda (nvme"),
        ("<disk type='vhostuser' device='disk'><target dev='vda'/></disk>", "vda (vhostuser)"),
        ("<smartcard mode='host'/>", "smartcard"),
    ] {
        World::new().machine(device, "").is(P::Devices, Block, &[word]);
    }
    World::new().machine("", "<launchSecurity type='sev'/>").is(P::Devices, Block, &["launchSecurity (sev)"]);
    // The stand-by half of a failover pair is unplugged by libvirt.
    World::new()
        .machine(
            "<interface type='hostdev'><teaming type='transient' persistent='ua-0'/></interface>
             <interface type='bridge'><source bridge='br0'/><teaming type='persistent'/></interface>
             <redirdev bus='usb' type='spicevmc'/><smartcard mode='passthrough' type='spicevmc'/>",
            "",
        )
        .is(P::Devices, Pass, &[]);
    // A network that hands out host devices is one in disguise.
    let pool = || World::new().machine("<interface type='network'><source network='sriov'/></interface>", "");
    pool()
        .with(|w| {
            let state = NetworkState { forward: "hostdev".into(), ..Default::default() };
            w.a.network_states.insert("sriov".into(), state);
        })
        .is(P::Devices, Block, &["sriov"]);
}

#[test]
fn a_tpm_s_state_goes_along_only_live() {
    let tpm =
        |backend: &str| World::new().machine(&format!("<tpm model='tpm-crb'><backend type='{backend}'/></tpm>"), "");
    tpm("emulator").is(P::Tpm, Pass, &["sent with its memory"]);
    tpm("emulator").off().is(P::Tpm, Block, &["stays on `a`"]);
    tpm("emulator").off().says(P::Tpm, Treatment::Ignore).is(P::Tpm, Block, &[]);
    tpm("passthrough").is(P::Tpm, Block, &["device of `a`"]);
    tpm("external").is(P::Tpm, Unknown, &["external"]);
}

#[test]
fn uefi_variables_go_along_only_live() {
    let uefi = || {
        World::new().with(|w| {
            let text = xml("", "").replace(
                "</type></os>",
                "</type><loader type='pflash'>/usr/share/OVMF/CODE.fd</loader><nvram>/var/lib/libvirt/qemu/nvram/web.fd</nvram></os>",
            );
            w.a.domains[0].live_xml = Some(text.clone());
            w.a.domains[0].persistent_xml = Some(text);
        })
    };
    uefi().is(P::Firmware, Unknown, &["/usr/share/OVMF/CODE.fd", "sent with its memory"]);
    uefi().off().is(P::Firmware, Block, &["/var/lib/libvirt/qemu/nvram/web.fd", "stay on `a`"]);
    uefi().off().says(P::Firmware, Treatment::Warn).is(P::Firmware, Warn, &[]);
    uefi().with(|w| w.b.firmware = Some(vec!["/usr/share/OVMF/CODE.fd".into()])).is(P::Firmware, Pass, &[]);
    let shared = "type: dir, target: /var/lib/libvirt/qemu/nvram, shared: true";
    let folder = || pool("dir", "", "/var/lib/libvirt/qemu/nvram", &[]);
    uefi().off().pool(shared, folder(), folder()).is(P::Firmware, Unknown, &["on shared storage"]);
}

#[test]
fn media_and_files_must_be_there() {
    let drive = |policy: &str| {
        World::new().machine(
            &format!(
                "<disk type='file' device='cdrom'><source file='/iso/x.iso'{policy}/><target dev='sda'/><readonly/></disk>"
            ),
            "",
        )
    };
    let iso = "type: dir, target: /iso";
    let has = |files: &[&str]| pool("dir", "", "/iso", files);
    drive("").pool(iso, has(&["x.iso"]), has(&["x.iso"])).is(P::HostPaths, Pass, &["/iso/x.iso"]).is(
        P::Disks,
        Pass,
        &[],
    );
    drive("").pool(iso, has(&["x.iso"]), has(&[])).is(P::HostPaths, Block, &["/iso/x.iso", "pool `p` of `b`"]);
    drive(" startupPolicy='optional'").pool(iso, has(&["x.iso"]), has(&[])).is(P::HostPaths, Warn, &["empty"]);
    drive("").pool("type: dir, target: /iso, shared: true", has(&["x.iso"]), has(&[])).is(
        P::HostPaths,
        Pass,
        &["shared"],
    );
    // In no pool: a live migration looks for itself before it begins, for a machine that is off nobody does.
    drive("").is(P::HostPaths, Unknown, &["cannot be read"]);
    drive("").off().is(P::HostPaths, Block, &["cannot be read"]);
    let files = "<serial type='file'><source path='/logs/web.log'/></serial><console type='file'><source path='/logs/web.log'/></console>
                 <channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channel/agent'/></channel>";
    World::new().machine(files, "").is(P::HostPaths, Unknown, &["serial file /logs/web.log"]);
    let kernel = World::new().with(|w| {
        let text = xml("", "").replace("</type></os>", "</type><kernel>/boot/vmlinuz</kernel></os>");
        w.a.domains[0].live_xml = Some(text);
    });
    kernel.pool("type: dir, target: /boot", pool("dir", "", "/boot", &["vmlinuz"]), pool("dir", "", "/boot", &[])).is(
        P::HostPaths,
        Block,
        &["kernel /boot/vmlinuz"],
    );
}

#[test]
fn pinning_needs_the_cpus_and_nodes() {
    let pinned = |more: &str| World::new().machine("", more);
    pinned("<cputune><vcpupin vcpu='0' cpuset='2-3'/></cputune>").is(P::Pinning, Pass, &["1 NUMA nodes with 4 CPUs"]);
    pinned("<cputune><vcpupin vcpu='0' cpuset='3-5'/></cputune>").is(
        P::Pinning,
        Block,
        &["CPUs 3-5", "4 CPUs", "not 4-5"],
    );
    pinned("<cputune><emulatorpin cpuset='9'/></cputune>").is(P::Pinning, Block, &["not 9"]);
    pinned("<numatune><memory mode='strict' nodeset='1'/></numatune>").is(P::Pinning, Block, &["NUMA nodes 1"]);
    pinned("<numatune><memory mode='preferred' nodeset='1'/></numatune>").is(P::Pinning, Warn, &["prefers"]);
    pinned("<numatune><memory mode='strict' placement='auto'/></numatune>").is(P::Pinning, Pass, &["pinned to no"]);
    pinned("<cputune><vcpupin vcpu='0' cpuset='0'/></cputune>").with(|w| w.b.cells.clear()).is(
        P::Pinning,
        Unknown,
        &[],
    );
    pinned("<cputune><vcpupin vcpu='0' cpuset='0'/></cputune>")
        .with(|w| w.b.cells = vec![CellState { cpus: (0..8).collect(), ..Default::default() }])
        .is(P::Pinning, Warn, &["4 CPUs on `a`", "8 CPUs on `b`"]);
}

#[test]
fn huge_pages_must_be_free() {
    let huge = |pages: &str| {
        World::new().machine("", &format!("<memoryBacking><hugepages>{pages}</hugepages></memoryBacking>"))
    };
    let pages = |total, free| {
        move |w: &mut World| {
            w.b.cells[0].huge_pages = [(2048, PagesState { total, free })].into();
            w.b.free_memory = 0;
        }
    };
    huge("").with(pages(600, Some(512))).is(P::HugePages, Pass, &["512 of 600", "needs 512"]);
    huge("").with(pages(600, Some(511))).is(P::HugePages, Block, &["511 of 600 huge pages of 2Mi", "needs 512 (1Gi)"]);
    huge("").with(pages(600, None)).is(P::HugePages, Unknown, &["600"]);
    huge("").with(pages(100, None)).is(P::HugePages, Block, &["100", "in all"]);
    huge("").is(P::HugePages, Block, &["0 of 0"]);
    huge("<page size='1' unit='G'/>").with(pages(600, Some(600))).is(P::HugePages, Block, &["1Gi", "needs 1"]);
    huge("").with(|w| w.b.cells.clear()).is(P::HugePages, Unknown, &[]);
    // They are counted for themselves.
    huge("").with(pages(600, Some(600))).is(P::Memory, Pass, &["huge pages"]);
}

#[test]
fn memory_counts_what_the_plan_brings_there_before() {
    World::new().is(P::Memory, Pass, &["8Gi of memory free", "needs 1Gi"]);
    let crowd = |memory| {
        World::new()
            .with(move |w| w.arriving = [memory, GIB].map(|memory| Load { host: "b".into(), memory, vcpus: 4 }).into())
    };
    crowd(6 * GIB).is(P::Memory, Pass, &["after 7Gi for 2"]);
    crowd(7 * GIB).is(P::Memory, Block, &["8Gi of memory free, after 8Gi for 2 that this plan brings there before it"]);
    crowd(7 * GIB).off().with(|w| w.starts = false).is(P::Memory, Pass, &["stays off"]);
    crowd(7 * GIB).off().is(P::Memory, Block, &[]);
    World::new().with(|w| w.b.cpus = 1).is(P::Vcpus, Warn, &["it has 2 CPUs, and `b` has 1"]);
}

/// What runs there, what arrives before it, and it: together they may use `vcpusPerCpu` (10) for each CPU.
#[test]
fn virtual_cpus_are_summed_with_what_is_there_and_what_arrives_before() {
    let crowd = |arriving: [u32; 2], there: u32| {
        World::new().with(move |w| {
            w.b.cpus = 2;
            w.arriving = arriving.map(|vcpus| Load { host: "b".into(), memory: 0, vcpus }).into();
            let mut other = w.a.domains[0].clone();
            other.uuid = "00000000-0000-4000-8000-0000000000ff".parse().unwrap();
            let xml = format!("<domain><vcpu current='{there}'>64</vcpu></domain>");
            (other.live_xml, other.persistent_xml) = (Some(xml.clone()), Some(xml));
            w.b.domains = vec![other];
        })
    };
    let figures = "20 vCPUs may be in use there (`vcpusPerCpu: 10`), 4 are, 14 more come";
    crowd([8, 6], 4).is(P::Vcpus, Pass, &[figures, "and it has 2"]);
    crowd([8, 7], 4).is(P::Vcpus, Warn, &["15 more come", "vcpusPerCpu"]);
    crowd([8, 6], 5).is(P::Vcpus, Warn, &["5 are"]);
    crowd([0, 0], 19).is(P::Vcpus, Warn, &["19 are, and it has 2"]);
    // What does not run takes none.
    crowd([8, 7], 4).with(|w| w.b.domains[0].state = RunState::Off).is(P::Vcpus, Pass, &["0 are"]);
    crowd([8, 7], 4).off().with(|w| w.starts = false).is(P::Vcpus, Pass, &[]);
}

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
fn shared_storage_is_what_comes_from_one_place() {
    let same = || on_nfs("", pool("netfs", NFS, "/images", &["web"]));
    same().is(P::SharedStorage, Pass, &["nfs:/srv on both hosts"]).is(P::Disks, Pass, &["shared pool `p`"]);
    assert!(same().look().copy.is_empty());
    let other = |source: &str| on_nfs("", pool("netfs", source, "/images", &["web"]));
    other("<host name='other'/><dir path='/srv'/>").is(
        P::SharedStorage,
        Block,
        &["server `nfs` on `a`, `other` on `b`"],
    );
    other("<host name='NFS'/><dir path='/srv/'/>").is(P::SharedStorage, Pass, &[]);
    other("<host name='nfs'/><dir path='/else'/>").is(
        P::SharedStorage,
        Block,
        &["source `/srv` on `a`, `/else` on `b`"],
    );
    on_nfs("", pool("dir", "", "/images", &["web"])).is(
        P::SharedStorage,
        Block,
        &["type `netfs` on `a`, `dir` on `b`"],
    );
    same().with(|w| w.b.pools.get_mut("p").unwrap().capacity = GIB).is(P::SharedStorage, Block, &["100Gi", "1Gi"]);
    same().with(|w| w.b.pools.get_mut("p").unwrap().active = false).is(
        P::SharedStorage,
        Unknown,
        &["not started on both"],
    );
    // A folder that both hosts share by other means: the manifest's word, and the sizes.
    let folder = || pool("dir", "", "/images", &["web"]);
    World::new()
        .machine(&disk("/images/web", ""), "")
        .pool("type: dir, target: /images, shared: true", folder(), folder())
        .is(P::SharedStorage, Pass, &["manifest's word", "100Gi"]);
}

#[test]
fn an_image_below_a_shared_disk_must_be_there_too() {
    let chain = |b: &[&str]| {
        let b: Vec<String> = b.iter().map(|s| (*s).to_owned()).collect();
        on_nfs("", pool("netfs", NFS, "/images", &["web"])).with(move |w| {
            w.a.pools.get_mut("p").unwrap().volumes.get_mut("web").unwrap().backing = Some("/base/debian".into());
            w.a.pools.insert("base".into(), pool("dir", "", "/base", &["debian"]));
            let files: Vec<&str> = b.iter().map(String::as_str).collect();
            w.b.pools.insert("base".into(), pool("dir", "", "/base", &files));
        })
    };
    chain(&["debian"]).is(P::Disks, Pass, &[]);
    chain(&[]).is(P::Disks, Block, &["/base/debian", "below"]);
}

#[test]
fn caches_over_shared_storage_are_warned_of() {
    let cached = |driver: &str| on_nfs(driver, pool("netfs", NFS, "/images", &["web"]));
    cached(" cache='none'").is(P::DiskCache, Pass, &["none"]);
    cached(" cache='writeback'").is(P::DiskCache, Warn, &["vda", "writeback"]);
    cached(" cache='unsafe'").says(P::DiskCache, Treatment::Block).is(P::DiskCache, Block, &["unsafe"]);
    cached("").is(P::DiskCache, Pass, &["QEMU's own"]);
    cached("").with(|w| w.a.hypervisor_version = "2.11.0".into()).is(P::DiskCache, Warn, &["default"]);
    cached(" cache='writeback'").off().is(P::DiskCache, Pass, &[]);
}

#[test]
fn nfs_locks_are_told_as_far_as_the_options_tell() {
    let mounted = |options: &str| {
        let xml = format!(
            "<fs:mount_opts xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'>{options}</fs:mount_opts></pool>"
        );
        on_nfs("", pool("netfs", NFS, "/images", &["web"])).with(move |w| {
            for host in [&mut w.a, &mut w.b] {
                let pool = host.pools.get_mut("p").unwrap();
                pool.xml = pool.xml.replace("</pool>", &xml);
            }
        })
    };
    mounted("").is(P::StorageLocks, Unknown, &["`p` on `a`"]);
    mounted("<fs:option name='nolock'/>").is(P::StorageLocks, Pass, &[]);
    mounted("<fs:option name='lock'/>").is(P::StorageLocks, Warn, &["with NFS locks"]);
}

#[test]
fn a_disk_that_is_not_shared_is_copied_or_holds_back() {
    let local = |b: &[&str]| {
        let here = pool("dir", "", "/local", &["web"]);
        World::new().machine(&disk("/local/web", ""), "").pool(
            "type: dir, target: /local",
            here,
            pool("dir", "", "/local", b),
        )
    };
    let copied = |b: &[&str]| local(b).with(|w| w.policy.copy_storage = CopyStorage::All);
    local(&[]).is(P::Disks, Block, &["vda (/local/web)"]);
    local(&[]).says(P::Disks, Treatment::Warn).is(P::Disks, Block, &[]);
    let world = copied(&[]).is(P::Disks, Pass, &["copied: 20Gi"]).is(P::StorageRoom, Pass, &["50Gi free", "takes 5Gi"]);
    assert_eq!(world.look().copy.len(), 1);
    copied(&["web"]).is(P::CopyTarget, Block, &["20Gi", "already"]);
    copied(&["web", "web.drover-incoming"]).is(P::CopyTarget, Pass, &["half a copy"]);
    let full = |w: &mut World| w.b.pools.get_mut("p").unwrap().available = GIB;
    let world = copied(&[]).with(full).is(P::StorageRoom, Block, &["1Gi free", "takes 5Gi"]);
    assert!(world.look().copy.is_empty());
    // A policy that lets it be tried does not leave the disk behind.
    let world = copied(&[]).with(full).says(P::StorageRoom, Treatment::Warn).is(P::StorageRoom, Warn, &[]);
    assert_eq!(world.look().copy.len(), 1);
    copied(&[])
        .with(|w| w.b.pools.get_mut("p").unwrap().active = false)
        .is(P::StorageRoom, Unknown, &["not started"])
        .is(P::CopyTarget, Unknown, &[]);
    // Names prove nothing: the pool is declared on the source only.
    copied(&[]).with(|w| w.resources.storage_pools.get_mut("p").unwrap().spec.hosts = vec!["a".into()]).is(
        P::Disks,
        Block,
        &["in no StoragePool that both"],
    );
    copied(&[]).with(|w| w.policy.copy_disks = Some(vec!["vdb".into()])).is(P::Disks, Block, &["copyDisks"]);
    // Two disks need the room of both.
    let two = disk("/local/web", "") + &disk("/local/db", "").replace("vda", "vdb");
    World::new()
        .machine(&two, "")
        .pool("type: dir, target: /local", pool("dir", "", "/local", &["web", "db"]), pool("dir", "", "/local", &[]))
        .with(|w| {
            w.policy.copy_storage = CopyStorage::All;
            w.b.pools.get_mut("p").unwrap().available = 8 * GIB;
        })
        .is(
            P::StorageRoom,
            Block,
            &["disk vda takes 5Gi", "8Gi free, 5Gi of it for disks before it, disk vdb takes 5Gi"],
        );
}

#[test]
fn networks_and_bridges_must_be_there() {
    let network = || World::new().machine("<interface type='network'><source network='lan'/></interface>", "");
    let lan = |active: bool, forward: &str| {
        let forward = forward.to_owned();
        move |w: &mut World| {
            for (host, is) in [(&mut w.a, "bridge"), (&mut w.b, forward.as_str())] {
                host.networks.insert("lan".into(), true);
                host.network_states.insert("lan".into(), NetworkState { forward: is.into(), ..Default::default() });
            }
            w.b.networks.insert("lan".into(), active);
        }
    };
    network().with(|w| w.b.networks = [("other".to_owned(), true)].into()).is(
        P::Networks,
        Block,
        &["no network `lan`", "other"],
    );
    network().with(lan(false, "bridge")).is(P::Networks, Block, &["not started"]);
    network().with(lan(true, "bridge")).is(P::Networks, Pass, &[]).is(P::Segment, Unknown, &["drover/segment.lan"]);
    network().with(lan(true, "nat")).is(P::Segment, Block, &["`bridge` on `a`", "`nat` on `b`"]);
    let island = |w: &mut World| {
        lan(true, "nat")(w);
        w.a.network_states.get_mut("lan").unwrap().forward = "nat".into();
    };
    network().with(island).is(P::Segment, Warn, &["connections of the machine break"]);
    network().with(island).off().is(P::Segment, Pass, &[]);

    let bridge = |name: &str| {
        World::new().machine(&format!("<interface type='bridge'><source bridge='{name}'/></interface>"), "")
    };
    bridge("br0").is(P::Bridges, Pass, &["br0"]).is(P::Mtu, Pass, &["1500"]).is(P::Segment, Unknown, &[]);
    bridge("br9").is(P::Bridges, Block, &["no bridge `br9`", "it has br0"]);
    bridge("br9").with(|w| w.b.interfaces = None).is(P::Bridges, Unknown, &["no interface driver"]);
    bridge("br0").with(|w| w.b.interfaces.as_mut().unwrap().get_mut("br0").unwrap().mtu = Some(9000)).is(
        P::Mtu,
        Block,
        &["1500 on `a` and 9000 on `b`"],
    );
    bridge("br0").with(|w| w.a.interfaces = None).is(P::Mtu, Unknown, &[]);
    World::new().machine("<interface type='direct'><source dev='eth7'/></interface>", "").is(
        P::Bridges,
        Block,
        &["eth7"],
    );
}

#[test]
fn labels_say_which_segment_a_bridge_is_on() {
    let labelled = |a: &[(&str, &str)], b: &[(&str, &str)]| {
        let labels = |of: &[(&str, &str)]| -> BTreeMap<String, String> {
            of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let (a, b) = (labels(a), labels(b));
        World::new().machine("<interface type='bridge'><source bridge='br0'/></interface>", "").with(move |w| {
            w.resources.hosts.get_mut("a").unwrap().metadata.labels = a;
            w.resources.hosts.get_mut("b").unwrap().metadata.labels = b;
        })
    };
    labelled(&[("drover/segment", "x")], &[("drover/segment", "x")]).is(P::Segment, Pass, &["`x`"]);
    labelled(&[("drover/segment", "x")], &[("drover/segment", "y")]).is(
        P::Segment,
        Block,
        &["`x` on `a`", "`y` on `b`"],
    );
    labelled(&[("drover/segment", "x")], &[("drover/segment", "x"), ("drover/segment.br0", "y")]).is(
        P::Segment,
        Block,
        &[],
    );
    labelled(&[("drover/segment", "x")], &[]).is(P::Segment, Unknown, &[]);
}

fn other(name: &str, uuid: Uuid, state: RunState, xml: &str) -> DomainState {
    let mut domain = DomainState::new(name.into(), uuid, state, String::new(), true);
    domain.persistent_xml = Some(xml.into());
    domain
}

#[test]
fn nothing_else_at_the_destination_may_be_it() {
    let there = |domain: DomainState| {
        World::new()
            .machine(
                "<interface type='bridge'><mac address='52:54:00:AA:bb:01'/><source bridge='br0'/></interface>",
                "",
            )
            .with(|w| w.b.domains = vec![domain])
    };
    let own: Uuid = UUID.parse().unwrap();
    let foreign = Uuid::from_u128(7);
    let mac = "<domain><devices><interface><mac address='52:54:00:aa:bb:01'/></interface></devices></domain>";
    there(other("web", foreign, RunState::Off, "<domain/>")).is(
        P::Name,
        Block,
        &["`web` on `b`", &foreign.to_string()],
    );
    there(other("db", foreign, RunState::Off, "<domain/>")).is(P::Name, Pass, &[]).is(P::Mac, Pass, &[]).is(
        P::Uuid,
        Pass,
        &[],
    );
    there(other("db", foreign, RunState::Off, mac)).is(P::Mac, Block, &["`db` on `b`", "52:54:00:aa:bb:01"]);
    there(other("web", own, RunState::Running, "<domain/>")).is(P::Uuid, Block, &["run twice"]);
    there(other("web", own, RunState::Off, "<domain/>")).is(P::Uuid, Block, &["is off"]);
    there(DomainState { reason: "migrated".into(), ..other("web", own, RunState::Off, mac) })
        .is(P::Uuid, Pass, &["left there"])
        .is(P::Mac, Pass, &[]);
}

#[test]
fn what_cannot_go_along_holds_back() {
    let with = |change: fn(&mut DomainState)| World::new().with(|w| change(&mut w.a.domains[0]));
    with(|d| d.managed_save = true).is(P::ManagedSave, Block, &[]);
    with(|d| d.snapshots = 1).is(P::Snapshots, Block, &["1 snapshot,"]);
    with(|d| d.checkpoints = 3).is(P::Checkpoints, Block, &["3 checkpoints"]);
    let progress = Progress { elapsed_millis: 4000, remaining: 3 << 20, ..Default::default() };
    let job = JobState { operation: JobOperation::Other, progress };
    World::new().with(|w| w.a.domains[0].job = Some(job)).is(P::Jobs, Block, &["for 4 s", "3Mi"]);
    let mirror = disk("/x", "").replace("<target", "<mirror type='file' job='copy'/><target");
    World::new().machine(&mirror, "").is(P::BlockJobs, Block, &["(copy)", "vda"]);
}

#[test]
fn what_drover_sees_of_the_way_there_is_called_that() {
    World::new().is(P::Reachability, Pass, &["as seen from Drover", "cannot be tried"]);
    let silent = |outcome| World::new().with(move |w| w.b.probe.as_mut().unwrap().outcome = outcome);
    silent(ProbeOutcome::Silent).is(P::Reachability, Unknown, &["b.example.com:49215"]);
    silent(ProbeOutcome::Unreachable).is(P::Reachability, Unknown, &["no way"]);
    World::new().with(|w| w.b.probe = None).is(P::Reachability, Unknown, &["49152-49215", "not tried"]);
    World::new().with(|w| w.b.hostname = "localhost".into()).is(P::Reachability, Block, &["calls itself `localhost`"]);
    let uri = |spec: &str| {
        let spec = spec.to_owned();
        World::new().with(move |w| drop(w.resources.hosts.insert("b".into(), manifest("b", &spec))))
    };
    uri("{uri: 'qemu:///system'}").is(P::Reachability, Warn, &["that host itself"]);
    uri("{uri: 'qemu:///system'}").with(|w| w.policy.control = crate::kind::migration_policy::Control::PeerToPeer).is(
        P::Reachability,
        Block,
        &["that host itself"],
    );
    uri("{uri: 'qemu:///system', migration: {uri: 'qemu+tls://b/system'}}").is(P::Reachability, Pass, &[]);
    uri("{uri: 'qemu+tcp://127.0.0.1:1/system', migration: {address: '127.0.0.1'}}").is(
        P::Reachability,
        Block,
        &["127.0.0.1"],
    );
    assert_eq!(World::new().result(P::Tls).0, None);
    World::new().with(|w| w.policy.transport = crate::kind::migration_policy::Transport::Tls).is(
        P::Tls,
        Unknown,
        &["certificates"],
    );
}

#[test]
fn a_cpu_is_compared_with_what_the_destination_offers() {
    let cpu = "<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>EPYC</model></cpu>";
    let at_b = |answer: Reading<CpuFit>| {
        World::new().machine("", cpu).with(move |w| drop(w.a.domains[0].cpu_at.insert("b".into(), answer)))
    };
    at_b(Reading::Present(CpuFit::Fits)).is(P::Cpu, Pass, &["`b` offers all", "EPYC"]);
    let misses = || Reading::Present(CpuFit::Misses { what: "missing features: avx512f".into() });
    at_b(misses()).is(P::Cpu, Block, &["`b` cannot give it its CPU", "avx512f"]);
    at_b(misses()).says(P::Cpu, Treatment::Warn).is(P::Cpu, Warn, &["avx512f"]);
    at_b(misses()).off().is(P::Cpu, Pass, &["while it is off"]);
    at_b(Reading::Unknown { why: "no answer".into() }).is(P::Cpu, Unknown, &["no answer"]);
    World::new().machine("", cpu).is(P::Cpu, Unknown, &["was not compared"]);
}

#[test]
fn the_hosts_own_cpu_moves_between_equal_hosts_only() {
    let own = |change: fn(&mut HostCpu)| {
        World::new().machine("", "<cpu mode='host-passthrough' check='none'/>").with(move |w| {
            let cpu = HostCpu {
                model: "Skylake-Server-v1".into(),
                vendor: "Intel".into(),
                microcode: "1".into(),
                signature: "6/106/6".into(),
                features: ["vaes".to_owned()].into(),
            };
            w.a.cpu = Some(cpu.clone());
            let there = w.b.cpu.insert(cpu);
            change(there);
        })
    };
    own(|_| ()).is(P::Cpu, Pass, &["both hosts have Intel Skylake-Server-v1 (6/106/6)"]);
    own(|c| c.signature = "6/85/4".into()).is(P::Cpu, Block, &["(6/106/6)", "(6/85/4)"]);
    own(|c| c.features.clear()).is(P::Cpu, Block, &["they differ in vaes"]);
    own(|c| c.microcode = "2".into()).is(P::Cpu, Warn, &["microcode 1 and 2"]);
    own(|_| ()).with(|w| w.b.libvirt_version = "9.0.0".into()).is(P::Cpu, Warn, &["libvirt 11.3.0 and 9.0.0"]);
    own(|_| ()).with(|w| w.b.cpu = None).is(P::Cpu, Unknown, &["not known"]);
}

#[test]
fn a_guest_that_outruns_its_link_is_told_and_what_would_help() {
    let busy = |mib| {
        World::new().with(move |w| {
            w.a.domains[0].dirty_rate = Some(Reading::Present(writes(mib)));
            w.policy.bandwidth = Some("40MiB/s".parse().unwrap());
        })
    };
    busy(2).is(P::Convergence, Pass, &["it writes 2Mi/s", "40Mi/s can be sent by policy"]);
    busy(36).is(P::Convergence, Warn, &["it may not converge"]);
    let world = busy(60).is(P::Convergence, Warn, &["it does not converge", "aborted after 30m"]);
    let looked = world.look();
    let hint = looked.checks.iter().find(|c| c.name == P::Convergence).and_then(|c| c.hint.clone()).unwrap();
    for setting in ["`bandwidth` of", "`maxDowntime:", "`autoConverge: true`", "`postCopy:"] {
        assert!(hint.contains(setting), "{hint}");
    }
    assert!(looked.prediction.is_some_and(|p| p.dirty_rate == Some(60 << 20)));
    world.says(P::Convergence, Treatment::Block).is(P::Convergence, Block, &["it does not converge"]);
    let post_copy = |w: &mut World| {
        w.policy = serde_json::from_str(r#"{"bandwidth": "40MiB/s", "postCopy": {"passes": 2}}"#).unwrap();
    };
    busy(60).with(post_copy).is(P::Convergence, Pass, &["post-copy takes over"]);
    let paused = |w: &mut World| {
        let policy = r#"{"bandwidth": "40MiB/s", "timeout": {"after": "9s", "action": "Suspend"}}"#;
        w.policy = serde_json::from_str(policy).unwrap();
    };
    busy(60).with(paused).is(P::Convergence, Warn, &["paused when its time is up"]);
    World::new().with(|w| w.a.domains[0].dirty_rate = None).is(P::Convergence, Unknown, &["not known"]);
    World::new().off().is(P::Convergence, Pass, &["while it is off"]);
    assert!(World::new().off().look().prediction.is_none());
}
