//! What a machine needs of a host, and what a host offers, as far as manifests and observation tell. This is for choosing
//! among hosts: it is quick, and leaves the last word to the prechecks of the move itself.

use super::super::precheck::immovable_devices;
use super::super::{VirtualMachineSpec, identity};
use crate::domain_xml::{self, Element};
use crate::kind::Resources;
use crate::kind::host::{HostSpec, Maintenance};
use crate::kind::migration_policy::CopyStorage;
use crate::kind::storage_pool::{Sharing, StoragePoolSpec, sharing};
use crate::model::Manifest;
use crate::observed::{CpuFit, DomainState, HostState, Observed, Reading};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::OnceLock;
use uuid::Uuid;

/// Memory and CPUs that a machine uses while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Memory that it may use without a restart, in bytes: a guest may be given all of it at any time.
    pub memory: u64,
    /// Virtual CPUs in use.
    pub cpus: u32,
}

/// What a machine uses: as its manifest says, else as its definition does.
pub fn footprint(machine: Option<&Manifest<VirtualMachineSpec>>, domain: Option<&DomainState>) -> Footprint {
    let spec = machine.map(|m| &m.spec);
    let stated = Footprint {
        memory: spec.and_then(|s| s.max_memory.or(s.memory)).map_or(0, |m| m.0),
        cpus: spec.and_then(|s| s.cpus).unwrap_or(0),
    };
    if stated.memory > 0 && stated.cpus > 0 {
        return stated;
    }
    let inline = spec.and_then(|s| s.xml.as_ref()).and_then(|x| x.inline.as_deref());
    let xml = domain.and_then(|d| d.live_xml.as_deref().or(d.persistent_xml.as_deref())).or(inline);
    let Some(root) = xml.and_then(|xml| domain_xml::parse(xml).ok()) else { return stated };
    let written = of_definition(&root);
    Footprint {
        memory: if stated.memory > 0 { stated.memory } else { written.memory },
        cpus: if stated.cpus > 0 { stated.cpus } else { written.cpus },
    }
}

fn of_definition(root: &Element) -> Footprint {
    let vcpu = root.get("vcpu");
    let cpus = vcpu.and_then(|v| v.attribute("current").map_or_else(|| v.text().parse().ok(), |c| c.parse().ok()));
    Footprint { memory: root.get("memory").and_then(domain_xml::bytes).unwrap_or(0), cpus: cpus.unwrap_or(1) }
}

/// A declared host.
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) manifest: &'a Manifest<HostSpec>,
    /// What was read of it.
    pub(super) state: Option<&'a HostState>,
    /// UUIDs of its domains by name.
    names: HashMap<&'a str, Uuid>,
}

/// All declared hosts, in order.
pub(super) struct Ground<'a> {
    pub(super) places: Vec<Place<'a>>,
    index: BTreeMap<&'a str, usize>,
    /// StoragePools by name.
    pools: BTreeMap<&'a str, Reach<'a>>,
    observed: &'a Observed,
}

/// Where a StoragePool is.
struct Reach<'a> {
    pool: &'a Manifest<StoragePoolSpec>,
    /// Whether each host is among its `hosts`.
    on: Vec<bool>,
    /// For each host, the hosts on which the pool is known to be another storage; looked at once, and only where asked.
    apart: Vec<OnceLock<Vec<bool>>>,
}

impl<'a> Ground<'a> {
    pub(super) fn new(resources: &'a Resources, observed: &'a Observed) -> Self {
        let places: Vec<Place<'a>> = resources
            .hosts
            .iter()
            .map(|(name, manifest)| {
                let state = observed.host(name);
                let names = state.map(|s| s.domains.iter().map(|d| (d.name.as_str(), d.uuid)).collect());
                Place { name, manifest, state, names: names.unwrap_or_default() }
            })
            .collect();
        let index: BTreeMap<&str, usize> = places.iter().enumerate().map(|(i, p)| (p.name, i)).collect();
        let pools = resources
            .storage_pools
            .iter()
            .map(|(name, pool)| {
                let mut on = vec![false; places.len()];
                for host in pool.spec.hosts.iter().filter_map(|h| index.get(h.as_str())) {
                    on[*host] = true;
                }
                let apart = places.iter().map(|_| OnceLock::new()).collect();
                (name.as_str(), Reach { pool, on, apart })
            })
            .collect();
        Self { places, index, pools, observed }
    }

    /// Whether a pool is known to be another storage on a host than on another, whatever its manifest says.
    fn is_apart(&self, reach: &Reach<'_>, from: usize, to: usize) -> bool {
        let differs =
            |to: &Place<'_>| sharing(reach.pool, self.observed, self.places[from].name, to.name) == Sharing::Different;
        let row = reach.apart[from].get_or_init(|| self.places.iter().map(differs).collect());
        row.get(to).copied().unwrap_or(false)
    }

    pub(super) fn index(&self, host: &str) -> Option<usize> {
        self.index.get(host).copied()
    }

    pub(super) fn name(&self, host: usize) -> &'a str {
        self.places[host].name
    }
}

/// Why a host is not for a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    /// Its labels are not those that `placement` asks for.
    Labels,
    /// It could not be read.
    Unread,
    /// It is said to be fenced.
    Fenced,
    /// It is in maintenance.
    Maintenance(&'static str),
    /// Another hypervisor, architecture or domain type.
    Hypervisor(String),
    /// Its CPU cannot be given what the machine uses, in libvirt's words.
    Cpu(String),
    /// It does not know the machine type.
    MachineType(String),
    /// It does not have a network, or that is not started.
    Network(String),
    /// It does not have a pool.
    Pool(String),
    /// A disk is on storage that it does not share, and the policy does not copy.
    LocalDisk(String),
    /// A pool that is called shared is another storage there than where the machine is.
    OtherStorage(String),
    /// Another domain has the name.
    NameTaken(String),
    /// Somebody there must be kept apart from it.
    Apart(String),
    /// It is not where those are that `affinity` keeps it together with, or these cannot be together.
    Affinity,
    /// It would fit in the end, and cannot get there one step after the other.
    NoWay,
    /// Too little memory: free with all that should be there, and all of it.
    Memory {
        /// What is left.
        free: i64,
        /// All of it.
        total: i64,
    },
    /// Too few CPUs within `vcpusPerCpu`: left, and allowed in all.
    Cpus {
        /// What is left.
        free: i64,
        /// What may be used in all.
        limit: i64,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Labels => write!(f, "does not have the labels that `placement` asks for"),
            Self::Unread => write!(f, "could not be read"),
            Self::Fenced => write!(f, "is fenced"),
            Self::Maintenance(which) => write!(f, "is in maintenance ({which})"),
            Self::Hypervisor(what) => write!(f, "{what}"),
            Self::Cpu(what) => write!(f, "does not offer the machine's CPU ({what})"),
            Self::MachineType(machine) => write!(f, "does not know the machine type {machine}"),
            Self::Network(network) => write!(f, "has no active network `{network}`"),
            Self::Pool(pool) => write!(f, "does not have the pool `{pool}`"),
            Self::LocalDisk(disk) => {
                write!(f, "does not share the storage of disk {disk}, which the policy does not copy")
            }
            Self::OtherStorage(pool) => {
                write!(f, "has another storage in the pool `{pool}`, which is declared as shared")
            }
            Self::NameTaken(name) => write!(f, "has another domain of the name `{name}`"),
            Self::Apart(other) => write!(f, "has {other}, which it must be kept apart from"),
            Self::Affinity => write!(f, "does not have all that `affinity` keeps it together with"),
            Self::NoWay => write!(f, "has no room for it until others have left, who wait for it themselves"),
            Self::Memory { free, total } => write!(f, "has {} of {} free", size(*free), size(*total)),
            Self::Cpus { free, limit } => write!(f, "has {} of {limit} vCPUs left", (*free).max(0)),
        }
    }
}

/// A number of bytes with one decimal: a figure in a sentence.
pub(super) fn size(bytes: i64) -> String {
    let bytes = bytes.max(0);
    #[expect(clippy::cast_precision_loss, reason = "a figure with one decimal")]
    let of = |unit: i64| bytes as f64 / unit as f64;
    match bytes {
        0 => "nothing".into(),
        b if b >= 1 << 40 => format!("{:.1} TiB", of(1 << 40)),
        b if b >= 1 << 30 => format!("{:.1} GiB", of(1 << 30)),
        b => format!("{} MiB", b >> 20),
    }
}

/// A disk on a path of the host where the machine is.
struct LocalDisk<'a> {
    target: String,
    path: String,
    read_only: bool,
    shareable: bool,
    /// StoragePools of that host that hold it.
    holders: Vec<&'a str>,
}

/// What a machine needs of a host.
pub(super) struct Wants<'a> {
    machine: &'a Manifest<VirtualMachineSpec>,
    uuid: Uuid,
    name: &'a str,
    pools: Vec<&'a str>,
    networks: Vec<String>,
    machine_type: Option<String>,
    domain_type: Option<String>,
    arch: Option<String>,
    /// Its domain and the state of the host where it is.
    here: Option<(&'a DomainState, &'a HostState)>,
    /// That host.
    from: Option<usize>,
    /// Disks that it has there.
    disks: Vec<LocalDisk<'a>>,
    /// Whether the policy copies disks.
    copies: bool,
    /// Whether something of it most likely cannot move: its prechecks say what.
    pub(super) stuck: bool,
}

impl<'a> Wants<'a> {
    /// What a machine needs; `here`: the host where it is, and its domain.
    pub(super) fn new(
        machine: &'a Manifest<VirtualMachineSpec>,
        here: Option<(usize, &'a DomainState)>,
        ground: &Ground<'a>,
        resources: &Resources,
    ) -> Self {
        let spec = &machine.spec;
        let policy = crate::kind::virtual_machine::policy_name(machine, resources);
        let policy = policy.and_then(|p| resources.migration_policies.get(p));
        let mut wants = Self {
            machine,
            uuid: here.map_or_else(|| identity::uuid(machine), |(_, d)| d.uuid),
            name: here.map_or_else(|| identity::domain_name(machine), |(_, d)| d.name.as_str()),
            pools: spec.disks.iter().flatten().filter_map(|d| d.pool.as_deref()).collect(),
            networks: spec.interfaces.iter().flatten().filter_map(|i| i.network.clone()).collect(),
            machine_type: spec.machine.clone(),
            domain_type: spec.r#type.as_ref().map(super::super::sheet::word),
            arch: spec.arch.clone(),
            here: None,
            from: here.map(|(host, _)| host),
            disks: Vec::new(),
            copies: policy.is_some_and(|p| p.spec.copy_storage != CopyStorage::None),
            stuck: false,
        };
        wants.pools.sort_unstable();
        wants.pools.dedup();
        let Some((host, domain)) = here else { return wants };
        let state = ground.places[host].state;
        wants.here = state.map(|s| (domain, s));
        let xml = domain.live_xml.as_deref().or(domain.persistent_xml.as_deref()).unwrap_or_default();
        wants.networks = domain_xml::networks(xml);
        let root = domain_xml::parse(xml).ok();
        if let Some(root) = &root {
            wants.machine_type = root.attribute_at("os/type", "machine").map(str::to_owned);
            wants.arch = root.attribute_at("os/type", "arch").map(str::to_owned);
            wants.domain_type = root.attribute("type").map(str::to_owned);
        }
        wants.stuck = domain.managed_save
            || domain.snapshots > 0
            || domain.is_active() && state.zip(root.as_ref()).is_some_and(|(s, x)| !immovable_devices(x, s).is_empty());
        wants.disks = domain_xml::local_disks(xml)
            .into_iter()
            .map(|disk| {
                let found = state.and_then(|s| {
                    s.pools.iter().find(|(_, p)| p.volumes.values().any(|v| v.path == disk.path)).map(|(name, _)| name)
                });
                let holds = |(name, Reach { pool, on, .. }): (&&'a str, &Reach<'a>)| {
                    let target = pool.spec.target.as_deref();
                    let below = target.and_then(|t| disk.path.strip_prefix(t)).is_some_and(|r| r.starts_with('/'));
                    let has = found.is_some_and(|f| f == pool.spec.libvirt_name(name)) || below;
                    (on[host] && has).then_some(*name)
                };
                LocalDisk {
                    holders: ground.pools.iter().filter_map(holds).collect(),
                    target: disk.target,
                    path: disk.path,
                    read_only: disk.read_only,
                    shareable: disk.shareable,
                }
            })
            .collect();
        wants
    }

    /// Why a host is not for it, apart from room and neighbours.
    pub(super) fn misfit(&self, host: usize, ground: &Ground<'_>) -> Option<Misfit> {
        let place = &ground.places[host];
        let spec = &place.manifest.spec;
        if !self.machine.spec.placement.as_ref()?.hosts.matches(&place.manifest.metadata.labels) {
            return Some(Misfit::Labels);
        }
        if spec.fenced {
            return Some(Misfit::Fenced);
        }
        match spec.maintenance {
            Maintenance::None => {}
            Maintenance::Cordon => return Some(Misfit::Maintenance("Cordon")),
            Maintenance::Evacuate => return Some(Misfit::Maintenance("Evacuate")),
        }
        let Some(there) = place.state else { return Some(Misfit::Unread) };
        self.hypervisor(place.name, there).or_else(|| self.reach(host, there, ground))
    }

    /// Whether a host has the same CPU as the one where it is: such a host is the safer one to go to.
    pub(super) fn is_alike(&self, there: &HostState) -> bool {
        self.here.is_none_or(|(domain, here)| !domain.is_active() || here.cpu == there.cpu)
    }

    /// Why its hypervisor and CPUs are not for the machine.
    fn hypervisor(&self, name: &str, there: &HostState) -> Option<Misfit> {
        if let Some((_, here)) = self.here.filter(|(_, here)| here.driver != there.driver) {
            return Some(Misfit::Hypervisor(format!("runs {}, not {}", there.driver, here.driver)));
        }
        // What a host was asked and denied. One that was not asked is judged by its prechecks.
        if let Some((domain, _)) = self.here
            && domain.is_active()
            && let Some(Reading::Present(CpuFit::Misses { what })) = domain.cpu_at.get(name)
        {
            return Some(Misfit::Cpu(what.clone()));
        }
        if let Some(arch) = self.arch.as_ref().filter(|a| !there.arch.is_empty() && **a != there.arch) {
            return Some(Misfit::Hypervisor(format!("is {}, not {arch}", there.arch)));
        }
        if let Some(kind) = &self.domain_type
            && !there.domain_types.is_empty()
            && !there.domain_types.contains(kind)
        {
            return Some(Misfit::Hypervisor(format!("does not offer `{kind}`")));
        }
        let known = !there.machine_types.is_empty() || !there.machine_aliases.is_empty();
        self.machine_type
            .as_ref()
            .filter(|m| known && !there.machine_types.contains(m) && !there.machine_aliases.contains_key(*m))
            .filter(|_| self.here.is_none() || !there.machine_types.is_empty())
            .map(|m| Misfit::MachineType(m.clone()))
    }

    /// Why the machine's storage and networks are out of its reach.
    fn reach(&self, host: usize, there: &HostState, ground: &Ground<'_>) -> Option<Misfit> {
        for network in &self.networks {
            if there.networks.get(network) != Some(&true) {
                return Some(Misfit::Network(network.clone()));
            }
        }
        for name in &self.pools {
            let Some(Reach { pool, on, .. }) = ground.pools.get(name) else { continue };
            if !on[host] && !there.pools.get(pool.spec.libvirt_name(name)).is_some_and(|p| p.active) {
                return Some(Misfit::Pool((*name).to_owned()));
            }
        }
        for disk in &self.disks {
            let holders = || disk.holders.iter().filter_map(|name| ground.pools.get(name)).filter(|r| r.on[host]);
            if let Some(shared) = holders().find(|r| r.pool.spec.shared) {
                // By the manifest's word, unless that is known to be wrong.
                if self.from.is_some_and(|from| ground.is_apart(shared, from, host)) {
                    return Some(Misfit::OtherStorage(shared.pool.name().to_owned()));
                }
                continue;
            }
            if self.copies && !disk.shareable && holders().next().is_some() {
                continue;
            }
            let same_path = || there.pools.values().any(|p| p.volumes.values().any(|v| v.path == disk.path));
            if !(disk.read_only && same_path()) {
                return Some(Misfit::LocalDisk(disk.target.clone()));
            }
        }
        match ground.places[host].names.get(self.name) {
            Some(uuid) if *uuid != self.uuid => Some(Misfit::NameTaken(self.name.to_owned())),
            _ => None,
        }
    }
}
