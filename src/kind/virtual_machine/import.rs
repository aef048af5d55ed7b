//! From a domain that is there to the manifest that says the same, so that the plan after an import is empty. Fields are
//! read where they can say what the definition says; every one of them is tried against [`compare`](super::compare()) and
//! left out where it would differ. What no field can say keeps its definition beside the manifest (`xml`).

use super::fields::vcpus;
use super::storage::same_storage;
use super::{
    Cpu, CpuFeature, CpuMode, Direct, Disk, DiskDevice, DomainXml, Firmware, Graphics, Interface, Kernel, PowerState,
    Rng, Serial, Topology, Tpm, VirtualMachineSpec, compare, devices, identity,
};
use crate::domain_xml::{self, Element, bytes, owner_index};
use crate::finding::{Code, Finding};
use crate::kind::{Resources, Spec};
use crate::model::{Bytes, Manifest, Metadata, Origin};
use crate::observed::{DomainState, HostState, OwnerMark, RunState};
use crate::plan::Change;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The annotation that lets Drover take a domain over that it did not make.
pub const ADOPT: &str = "drover/adopt";

/// Value of [`ADOPT`]: it is taken over with the first change that it needs, and left untouched until then.
pub const ADOPT_ON_CHANGE: &str = "on-change";

/// What was made of a domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The manifest. Where there is `xml`, its `spec.xml` has the text inline.
    pub manifest: Manifest<VirtualMachineSpec>,
    /// What of the definition no field can say; it is kept by `xml`.
    pub beyond: Vec<String>,
    /// Fields that could be read and would still show as a difference, so they are not stated.
    pub unstated: Vec<String>,
}

/// Makes the manifest of a domain on a host. `name` is the manifest's; `resources` has the pools of the host.
///
/// # Errors
/// A finding when the definition cannot be read, or the domain is one half of a migration.
pub fn import(
    name: &str,
    domain: &DomainState,
    on: &str,
    host: &HostState,
    resources: &Resources,
) -> Result<Imported, Finding> {
    let refuse = |message: String, hint: &str| Err(Finding::new(Code::BadXml, message).hint(hint));
    if domain.is_in_migration() {
        return refuse(format!("`{}` on `{on}` is being moved", domain.name), "import it when the migration has ended");
    }
    let Some(text) = domain.persistent_xml.as_deref().or(domain.live_xml.as_deref()) else {
        return refuse(format!("the definition of `{}` on `{on}` could not be read", domain.name), "try again");
    };
    let tree = match domain_xml::parse(text) {
        Ok(tree) => tree,
        Err(e) => {
            return refuse(
                format!("the definition of `{}` on `{on}` cannot be read: {e}", domain.name),
                "look at it with `virsh dumpxml`",
            );
        }
    };
    let mut metadata = Metadata { name: name.into(), ..Metadata::default() };
    if domain.owner.is_none() {
        metadata.annotations.insert(ADOPT.into(), ADOPT_ON_CHANGE.into());
    }
    let mut manifest = Manifest {
        kind: VirtualMachineSpec::KIND,
        metadata,
        spec: VirtualMachineSpec::default(),
        origin: Origin::default(),
    };
    let beyond = beyond(&tree);
    manifest.spec = read(&tree, domain, on, host, resources);
    if domain.name != name {
        manifest.spec.domain_name = Some(domain.name.clone());
    }
    if identity::uuid(&manifest) != domain.uuid {
        manifest.spec.uuid = Some(domain.uuid);
    }
    if !beyond.is_empty() {
        manifest.spec.xml = Some(DomainXml { inline: Some(kept(&tree)), file: None });
    }
    let unstated = settle(&mut manifest, domain, host, resources)?;
    Ok(Imported { manifest, beyond, unstated })
}

/// Leaves out what would differ. Gives the names of those fields.
fn settle(
    manifest: &mut Manifest<VirtualMachineSpec>,
    domain: &DomainState,
    host: &HostState,
    resources: &Resources,
) -> Result<Vec<String>, Finding> {
    let owner = domain.owner.clone().unwrap_or_else(|| OwnerMark {
        fleet: resources.fleet().into(),
        name: manifest.name().into(),
        delete: false,
        volumes: Vec::new(),
    });
    let mut unstated = BTreeSet::new();
    // Each round takes at least one field out.
    for _ in 0..64 {
        let changes = match compare(manifest, domain, host, resources, &owner) {
            Ok(difference) => difference.changes,
            // A list of disks whose pools are not known here, say.
            Err(finding) => match finding.path.as_deref().and_then(field_of).filter(|f| clear(&mut manifest.spec, f)) {
                Some(field) => {
                    unstated.insert(field.to_owned());
                    continue;
                }
                None => return Err(finding),
            },
        };
        let differing: BTreeSet<&str> =
            changes.iter().filter(|c| !is_mark(c)).filter_map(|c| field_of(&c.path)).collect();
        let mut taken = false;
        for field in differing {
            if clear(&mut manifest.spec, field) {
                unstated.insert(field.to_owned());
                taken = true;
            }
        }
        if !taken {
            break;
        }
    }
    Ok(unstated.into_iter().collect())
}

/// The mark that Drover writes is no difference of the machine.
fn is_mark(change: &Change) -> bool {
    change.path.starts_with("metadata.")
}

/// `spec.disks[0].size` is about `disks`, `spec.xml:/domain/…` about `xml`.
fn field_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("spec.")?;
    let end = rest.find(['.', '[', ':', '@']).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// Takes a field out; tells whether it was there. What says who or where it is stays.
fn clear(spec: &mut VirtualMachineSpec, field: &str) -> bool {
    if matches!(field, "host" | "uuid" | "powerState" | "domainName") {
        return false;
    }
    let Ok(Value::Object(mut map)) = serde_json::to_value(&*spec) else { return false };
    let before = map.clone();
    map.remove(field);
    match serde_json::from_value::<VirtualMachineSpec>(Value::Object(map)) {
        Ok(without) if serde_json::to_value(&without).ok().as_ref() != Some(&Value::Object(before)) => {
            *spec = without;
            true
        }
        _ => false,
    }
}

/// A word of the XML as a field's enum, where the field knows it.
fn known<T: DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(Value::String(word.to_owned())).ok()
}

fn read(tree: &Element, domain: &DomainState, on: &str, host: &HostState, resources: &Resources) -> VirtualMachineSpec {
    let (cpus, max_cpus) = vcpus(tree);
    let max_memory = tree.get("memory").and_then(bytes).map(Bytes);
    let memory = tree.get("currentMemory").and_then(bytes).map(Bytes).or(max_memory);
    let attribute = |path: &str, name: &str| tree.attribute_at(path, name);
    let is_test = super::sheet::is_test(host);
    let best = host.domain_types.first().map(String::as_str);
    let text = |name: &str| tree.text_at(name).filter(|t| !t.trim().is_empty());
    let nodes = || tree.get("devices");
    VirtualMachineSpec {
        host: Some(on.to_owned()),
        power_state: match domain.state {
            RunState::Running | RunState::Suspended => PowerState::Running,
            RunState::Paused => PowerState::Paused,
            RunState::ShuttingDown | RunState::Off | RunState::Crashed => PowerState::Stopped,
        },
        cpus: Some(cpus),
        max_cpus: Some(max_cpus).filter(|m| *m != cpus),
        max_memory: max_memory.filter(|m| Some(*m) != memory),
        memory,
        r#type: tree.attribute("type").filter(|t| Some(*t) != best && !is_test).and_then(known),
        arch: attribute("os/type", "arch").filter(|a| *a != host.arch && !is_test).map(str::to_owned),
        machine: attribute("os/type", "machine").filter(|_| !is_test).map(str::to_owned),
        firmware: (attribute("os", "firmware") == Some("efi") || attribute("os/loader", "type") == Some("pflash"))
            .then_some(Firmware::Uefi),
        secure_boot: attribute("os/loader", "secure").map(|s| s == "yes"),
        cpu: tree.get("cpu").and_then(cpu),
        kernel: text("os/kernel").map(|image| Kernel { image, initrd: text("os/initrd"), cmdline: text("os/cmdline") }),
        disks: nodes().and_then(|d| d.all("disk").map(|disk| self::disk(disk, on, host, resources)).collect()),
        interfaces: nodes().and_then(|d| d.all("interface").map(interface).collect()),
        console: None,
        serials: nodes().filter(|d| d.get("serial").is_some()).and_then(|d| d.all("serial").map(serial).collect()),
        graphics: nodes().filter(|d| d.all("graphics").count() == 1).and_then(|d| graphics(d.get("graphics")?)),
        video: attribute("devices/video/model", "type").map(str::to_owned),
        rng: nodes().and_then(|d| d.get("rng")).and_then(rng),
        tpm: nodes().and_then(|d| d.get("tpm")).and_then(tpm),
        guest_agent: nodes()
            .is_some_and(|d| d.all("channel").any(|c| c.attribute_at("target", "name") == Some(devices::AGENT_CHANNEL)))
            .then_some(true),
        title: text("title"),
        description: text("description"),
        autostart: domain.persistent.then_some(domain.autostart),
        ..VirtualMachineSpec::default()
    }
}

fn cpu(element: &Element) -> Option<Cpu> {
    let mode = match element.attribute("mode") {
        Some(mode) => known::<CpuMode>(mode)?,
        None if element.get("model").is_some() => CpuMode::Custom,
        None => return None,
    };
    let number = |e: &Element, name: &str| e.attribute(name).and_then(|v| v.parse::<u32>().ok());
    let features = element.all("feature").map(|f| {
        let policy = known(f.attribute("policy").unwrap_or("require"))?;
        Some(CpuFeature { name: f.attribute("name")?.to_owned(), policy })
    });
    Some(Cpu {
        mode,
        model: element.text_at("model").filter(|_| mode == CpuMode::Custom),
        hosts: Vec::new(),
        features: features.collect::<Option<Vec<_>>>()?,
        topology: element.get("topology").and_then(|t| {
            // Dies and clusters have no field.
            let plain = ["dies", "clusters"].iter().all(|n| number(t, n).is_none_or(|v| v == 1));
            let topology =
                Topology { sockets: number(t, "sockets")?, cores: number(t, "cores")?, threads: number(t, "threads")? };
            plain.then_some(topology)
        }),
    })
}

/// A disk as a field; `None` where no field can say what it is.
fn disk(element: &Element, on: &str, host: &HostState, resources: &Resources) -> Option<Disk> {
    let device: DiskDevice = known(element.attribute("device").unwrap_or("disk"))?;
    let target = element.attribute_at("target", "dev")?.to_owned();
    let alias = element.attribute_at("alias", "name").and_then(|a| a.strip_prefix("ua-"));
    let mut disk = Disk {
        name: alias.map_or_else(|| target.clone(), str::to_owned),
        device,
        bus: Some(known(element.attribute_at("target", "bus")?)?),
        format: element.attribute_at("driver", "type").and_then(known),
        cache: match element.attribute_at("driver", "cache") {
            None | Some("default") => None,
            Some(word) => Some(known(word)?),
        },
        boot_order: element.attribute_at("boot", "order").and_then(|o| o.parse().ok()),
        // A CD-ROM is read-only of itself.
        read_only: (device == DiskDevice::Disk && element.get("readonly").is_some()).then_some(true),
        shareable: element.get("shareable").is_some().then_some(true),
        serial: element.text_at("serial"),
        target: Some(target),
        ..Disk::default()
    };
    let source = element.get("source");
    let of = |name: &str| source.and_then(|s| s.attribute(name)).map(str::to_owned);
    match element.attribute("type") {
        Some("file") => match of("file") {
            Some(path) => match in_pool(&path, on, host, resources) {
                Some((pool, volume)) => (disk.pool, disk.volume) = (Some(pool), Some(volume)),
                None => disk.file = Some(path),
            },
            None if device == DiskDevice::Cdrom => {}
            None => return None,
        },
        Some("block") => {
            let path = of("dev")?;
            match in_pool(&path, on, host, resources) {
                Some((pool, volume)) => (disk.pool, disk.volume) = (Some(pool), Some(volume)),
                None => disk.block = Some(path),
            }
        }
        Some("volume") => {
            let (libvirt_pool, volume) = (of("pool")?, of("volume")?);
            let pools = resources.storage_pools.iter();
            let mut here = pools.filter(|(_, m)| m.spec.hosts.iter().any(|h| h == on));
            disk.pool = Some(here.find(|(name, m)| m.spec.libvirt_name(name) == libvirt_pool)?.0.clone());
            disk.volume = Some(volume);
        }
        _ => return None,
    }
    Some(disk)
}

/// The pool of the manifests, and the volume in it, that a path is; also for an overlay that a snapshot made.
fn in_pool(path: &str, on: &str, host: &HostState, resources: &Resources) -> Option<(String, String)> {
    for (name, manifest) in &resources.storage_pools {
        if !manifest.spec.hosts.iter().any(|h| h == on) {
            continue;
        }
        let Some(pool) = host.pools.get(manifest.spec.libvirt_name(name)) else { continue };
        let found = pool.volumes.iter().find(|(_, v)| v.path == path || same_storage(&v.path, path, &[], host));
        if let Some((volume, _)) = found.filter(|(_, v)| v.path == path) {
            return Some((name.clone(), volume.clone()));
        }
    }
    None
}

fn interface(element: &Element) -> Option<Interface> {
    let source = |name: &str| element.attribute_at("source", name).map(str::to_owned);
    let mut interface = Interface {
        mac: Some(element.attribute_at("mac", "address")?.to_ascii_lowercase()),
        model: element.attribute_at("model", "type").map(str::to_owned),
        boot_order: element.attribute_at("boot", "order").and_then(|o| o.parse().ok()),
        mtu: element.attribute_at("mtu", "size").and_then(|s| s.parse().ok()),
        ..Interface::default()
    };
    match element.attribute("type")? {
        "network" => interface.network = Some(source("network")?),
        "bridge" => interface.bridge = Some(source("bridge")?),
        "direct" => {
            let mode = known(&source("mode").unwrap_or_else(|| "vepa".into()))?;
            interface.direct = Some(Direct { dev: source("dev")?, mode });
        }
        _ => return None,
    }
    Some(interface)
}

fn serial(element: &Element) -> Option<Serial> {
    let source = |name: &str| element.attribute_at("source", name).map(str::to_owned);
    match element.attribute("type")? {
        "pty" => Some(Serial::Pty),
        "file" => Some(Serial::File { path: source("path")? }),
        "udp" => {
            let connect = element.all("source").find(|s| s.attribute("mode") != Some("bind"))?;
            let port = connect.attribute("service")?.parse().ok()?;
            Some(Serial::Udp { host: connect.attribute("host")?.to_owned(), port })
        }
        _ => None,
    }
}

fn graphics(element: &Element) -> Option<Graphics> {
    let is_auto = element.attribute("autoport") != Some("no");
    Some(Graphics {
        r#type: known(element.attribute("type")?)?,
        listen: element.attribute("listen").or(element.attribute_at("listen", "address")).map(str::to_owned),
        port: element.attribute("port").filter(|_| !is_auto).and_then(|p| p.parse().ok()),
    })
}

fn rng(element: &Element) -> Option<Rng> {
    let backend = element.get("backend").filter(|b| b.attribute("model") == Some("random"))?;
    Some(Rng { device: backend.text().trim().to_owned() }).filter(|r| !r.device.is_empty())
}

fn tpm(element: &Element) -> Option<Tpm> {
    let backend = element.get("backend").filter(|b| b.attribute("type") == Some("emulator"))?;
    Some(Tpm {
        model: element.attribute("model")?.to_owned(),
        version: backend.attribute("version").map(str::to_owned),
    })
}

/// The definition that is kept: without the identity that the manifest says itself, and without Drover's mark.
fn kept(tree: &Element) -> String {
    let mut tree = tree.clone();
    tree.unset("id");
    let mark = owner_index(&tree);
    if let (Some(index), Some(metadata)) = (
        mark,
        tree.children.iter_mut().find_map(|n| match n {
            domain_xml::Node::Element(e) if e.name == "metadata" => Some(e),
            _ => None,
        }),
    ) {
        let mut at = 0;
        metadata.children.retain(|n| match n {
            domain_xml::Node::Element(_) => {
                at += 1;
                at - 1 != index
            }
            _ => true,
        });
    }
    tree.to_xml()
}

/// Elements that the fields say, or that libvirt makes of itself for a machine like this.
const SAID: &[&str] = &[
    "name",
    "uuid",
    "title",
    "description",
    "metadata",
    "memory",
    "currentMemory",
    "vcpu",
    "vcpus",
    "os",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "pm",
    "devices",
    "features",
    "resource",
    "seclabel",
];

/// Features that every machine of Drover's has, or that libvirt adds.
const FEATURES: &[&str] = &["acpi", "apic", "pae", "vmport", "smm", "gic"];

/// What of a definition no field can say, in words.
fn beyond(tree: &Element) -> Vec<String> {
    let mut found = BTreeSet::new();
    for child in tree.elements() {
        match child.name.as_str() {
            "features" => {
                let own = child.elements().filter(|f| !FEATURES.contains(&f.name.as_str()));
                found.extend(own.map(|f| format!("features/{}", f.name)));
            }
            "seclabel" if child.attribute("type") == Some("static") => {
                found.insert("seclabel".into());
            }
            "clock" => clock(child, &mut found),
            "os" => {
                let own = child.elements().filter(|e| {
                    !matches!(
                        e.name.as_str(),
                        "type" | "loader" | "nvram" | "boot" | "kernel" | "initrd" | "cmdline" | "firmware"
                    )
                });
                found.extend(own.map(|e| format!("os/{}", e.name)));
            }
            "cpu" => {
                let own = child
                    .elements()
                    .filter(|e| !matches!(e.name.as_str(), "model" | "vendor" | "feature" | "topology"));
                found.extend(own.map(|e| format!("cpu/{}", e.name)));
            }
            "metadata" => {
                let mark = owner_index(tree);
                let own = child.elements().enumerate().filter(|(i, _)| Some(*i) != mark);
                found.extend(own.map(|(_, e)| format!("metadata/{}", e.name)));
            }
            "devices" => child.elements().filter_map(device_beyond).for_each(|d| {
                found.insert(d);
            }),
            other if SAID.contains(&other) => {}
            other => {
                found.insert(other.to_owned());
            }
        }
    }
    found.into_iter().collect()
}

fn clock(clock: &Element, found: &mut BTreeSet<String>) {
    if clock.attribute("offset").is_some_and(|o| o != "utc") || clock.elements().next().is_some() {
        found.insert("clock".into());
    }
}

/// What a device is called that no field can say.
fn device_beyond(device: &Element) -> Option<String> {
    let kind = device.attribute("type").unwrap_or_default();
    let model = device.attribute("model").unwrap_or_default();
    let said = match device.name.as_str() {
        "emulator" | "console" | "audio" => true,
        "disk" => {
            let plain = ["iotune", "auth", "encryption", "mirror", "geometry", "blockio", "wwn", "vendor", "product"];
            matches!(kind, "file" | "block" | "volume")
                && matches!(device.attribute("device").unwrap_or("disk"), "disk" | "cdrom")
                && plain.iter().all(|p| device.get(p).is_none())
        }
        "interface" => {
            let plain = ["bandwidth", "vlan", "virtualport", "filterref", "tune", "ip", "route", "teaming", "port"];
            matches!(kind, "network" | "bridge" | "direct") && plain.iter().all(|p| device.get(p).is_none())
        }
        "serial" => serial(device).is_some(),
        "graphics" => graphics(device).is_some(),
        "video" => true,
        "rng" => rng(device).is_some() && device.get("rate").is_none(),
        "tpm" => tpm(device).is_some(),
        "channel" => {
            matches!(device.attribute_at("target", "name"), Some(devices::AGENT_CHANNEL | "com.redhat.spice.0"))
        }
        "controller" => matches!(kind, "pci" | "usb" | "sata" | "ide" | "virtio-serial") || model == "virtio-scsi",
        "input" => matches!(device.attribute("bus").unwrap_or_default(), "ps2" | "usb"),
        "memballoon" => matches!(model, "virtio" | "none"),
        // Part of q35's chipset.
        "watchdog" => model == "itco",
        _ => false,
    };
    (!said).then(|| match kind {
        "" => format!("devices/{}", device.name),
        kind => format!("devices/{} ({kind})", device.name),
    })
}

/// A name for a manifest: the domain's own where it is one that manifests may have, else the nearest that is free.
pub fn manifest_name(domain: &str, uuid: Uuid, taken: &BTreeSet<String>) -> String {
    let mut name: String = domain
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
        .take(48)
        .collect();
    while name.contains("..") || name.contains("--") {
        name = name.replace("..", ".").replace("--", "-");
    }
    let name = name.trim_matches(['-', '.']).to_owned();
    let name = if name.is_empty() { "vm".to_owned() } else { name };
    if !taken.contains(&name) {
        return name;
    }
    // The UUID's first group tells it from its namesake, the same on every run.
    let short = uuid.simple().to_string();
    format!("{name}-{}", &short[..8])
}
