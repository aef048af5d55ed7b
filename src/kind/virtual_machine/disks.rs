//! The disks of a machine: which disk of a definition is which of the manifest's, what differs, and the XML of each.
//!
//! A disk that Drover defines carries its name as a user alias (`ua-root`), so it is known again whatever happens to its
//! place in the list, its target or its path. Others (adopted machines, hosts that keep no user aliases) are known by
//! stated target, by path, and by the target that Drover would give.

use super::sheet::{Sheet, Side, Subject, Way, text, word};
use super::storage::{DiskSource, disk_path, format_of, same_storage, volume_name};
use super::{CacheMode, Disk, DiskBus, DiskDevice, DiskFormat, VirtualMachineSpec};
use crate::action::LiveChange;
use crate::domain_xml::{self, Edit, Element, Equivalence, contains, literal};
use crate::finding::Finding;
use crate::kind::Resources;
use crate::model::Manifest;
use crate::observed::{DomainState, HostState};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Prefix of the aliases that libvirt lets users give (libvirt.org/formatdomain.html#devices).
const USER_ALIAS: &str = "ua-";

/// A disk as the manifest wants it on this host.
pub(super) struct Wish<'a> {
    pub(super) disk: &'a Disk,
    pub(super) source: DiskSource,
    /// The format to write for a disk that is new in the definition.
    format: DiskFormat,
    /// The format of the volume that is there, where it is known.
    volume_format: Option<String>,
    shared: bool,
}

/// The wishes of a machine, in order.
pub(super) fn wishes<'a>(subject: &Subject<'a>) -> Result<Vec<Wish<'a>>, Finding> {
    let mut wishes = Vec::new();
    for (index, disk) in subject.spec().disks.iter().flatten().enumerate() {
        let source = disk_path(subject.m, index, disk, subject.host, subject.resources)?;
        let manifest = disk.pool.as_ref().and_then(|name| Some((name, subject.resources.storage_pools.get(name)?)));
        let pool = manifest.map(|(_, m)| &m.spec);
        let there = manifest.and_then(|(name, m)| {
            let state = subject.host.pools.get(m.spec.libvirt_name(name))?;
            state.volumes.get(&volume_name(subject.m, disk, pool))
        });
        let volume_format = there.map(|v| v.format.clone()).filter(|f| !f.is_empty());
        // A disk without a stated format is read as what it is.
        let format = match (disk.format, volume_format.as_deref()) {
            (None, Some("raw")) => DiskFormat::Raw,
            (None, Some("qcow2")) => DiskFormat::Qcow2,
            _ => format_of(disk, pool),
        };
        let shared = pool.is_some_and(|p| p.shared);
        wishes.push(Wish { disk, source, format, volume_format, shared });
    }
    Ok(wishes)
}

/// The alias that a disk carries: its name, with what libvirt does not allow in an alias written as `_` and its code.
pub fn disk_alias(name: &str) -> String {
    let mut alias = USER_ALIAS.to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            alias.push(char::from(byte));
        } else {
            alias.push_str(&format!("_{byte:02x}"));
        }
    }
    alias
}

/// Compares the disks, where the manifest states them. The list is owned as a whole: a disk that is not in it is taken out
/// of the definition; its volume is never touched.
pub(super) fn compare(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) -> Result<(), Finding> {
    if subject.spec().disks.is_none() {
        return Ok(());
    }
    let wishes = wishes(subject)?;
    let seen: Vec<&Element> = domain.get("devices").into_iter().flat_map(|d| d.all("disk")).collect();
    let (partners, extra) = pair(subject, &wishes, &seen);

    // What leaves goes first: its target may be wanted by what comes.
    let mut taken: BTreeSet<String> = subject.taken.iter().cloned().collect();
    taken.extend(seen.iter().filter_map(|d| target(d)).map(ToOwned::to_owned));
    for index in extra {
        let disk = seen[index];
        if is_in_baseline(subject, disk) {
            continue;
        }
        remove(subject, disk, sheet);
    }
    taken.extend(wishes.iter().filter_map(|w| w.disk.target.clone()));
    for (wish, partner) in wishes.iter().zip(&partners) {
        match partner {
            Some(index) => change(subject, wish, seen[*index], &mut taken, sheet),
            None => add(subject, wish, &mut taken, sheet),
        }
    }
    Ok(())
}

/// Where a definition has a disk of the manifest.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its target.
    pub(super) target: String,
    /// Its path on the host.
    pub(super) path: String,
    /// Whether that is where the manifest wants it, or an overlay over it.
    pub(super) is_wanted: bool,
    /// Whether the guest may only read it.
    pub(super) read_only: bool,
    /// Whether several machines may have it.
    pub(super) shareable: bool,
    /// Why a copy of its bytes would not be the same disk.
    pub(super) peculiar: Option<&'static str>,
}

/// Where a machine has the disks of its manifest, in their order: in what runs, or in its definition.
///
/// # Errors
/// A finding when the manifest's disks have no place on the host.
pub(super) fn places(
    m: &Manifest<VirtualMachineSpec>,
    domain: &DomainState,
    host: &HostState,
    resources: &Resources,
) -> Result<Vec<Option<Place>>, Finding> {
    let text = domain.live_xml.as_deref().or(domain.persistent_xml.as_deref()).unwrap_or_default();
    let Ok(tree) = domain_xml::parse(text) else { return Ok(Vec::new()) };
    let seen: Vec<&Element> = tree.get("devices").into_iter().flat_map(|d| d.all("disk")).collect();
    let chains: Vec<_> = seen.iter().map(|d| chain(d)).collect();
    let side = if domain.live_xml.is_some() { Side::Live } else { Side::Persistent };
    let subject = Subject { m, host, resources, baseline: None, side, chains: &chains, taken: &[] };
    let wishes = wishes(&subject)?;
    let (partners, _) = pair(&subject, &wishes, &seen);
    let place = |wish: &Wish<'_>, partner: &Option<usize>| {
        let disk = *seen.get((*partner)?)?;
        let target = target(disk)?.to_owned();
        Some(Place {
            path: path_of(&subject, disk)?,
            is_wanted: is_wanted_storage(&subject, disk, &wish.source),
            read_only: disk.get("readonly").is_some(),
            shareable: disk.get("shareable").is_some(),
            peculiar: peculiar(disk),
            target,
        })
    };
    Ok(wishes.iter().zip(&partners).map(|(w, p)| place(w, p)).collect())
}

/// What makes a disk more than the bytes at its path.
fn peculiar(disk: &Element) -> Option<&'static str> {
    let says = |name: &str| disk.get(name).is_some() || disk.get("source").is_some_and(|s| s.get(name).is_some());
    match () {
        () if says("encryption") => Some("encrypted by QEMU"),
        () if says("slices") => Some("a slice of its image"),
        () if says("transient") => Some("transient (what the guest writes is thrown away)"),
        () => None,
    }
}

fn target(disk: &Element) -> Option<&str> {
    disk.attribute_at("target", "dev")
}

/// The path of a disk's storage; a volume by pool and name is looked up.
pub(super) fn path_of(subject: &Subject<'_>, disk: &Element) -> Option<String> {
    let source = disk.get("source")?;
    if let Some(path) = source.attribute("file").or(source.attribute("dev")) {
        return Some(path.to_owned()).filter(|p| !p.is_empty());
    }
    let (pool, volume) = (source.attribute("pool")?, source.attribute("volume")?);
    Some(subject.host.pools.get(pool)?.volumes.get(volume)?.path.clone())
}

/// The backing chain of a disk in a live definition, the disk's own path first.
pub(super) fn chain(disk: &Element) -> Vec<String> {
    let mut paths = Vec::new();
    let mut at = Some(disk);
    while let Some(element) = at {
        let path = element.get("source").and_then(|s| s.attribute("file").or(s.attribute("dev")));
        paths.extend(path.map(ToOwned::to_owned));
        at = element.get("backingStore");
    }
    paths
}

fn is_wanted_storage(subject: &Subject<'_>, disk: &Element, wanted: &DiskSource) -> bool {
    match (path_of(subject, disk), wanted.path()) {
        (None, None) => true,
        (Some(found), Some(wanted)) => {
            let chain = subject.chains.iter().find(|c| c.first() == Some(&found)).cloned().unwrap_or_default();
            same_storage(&found, wanted, &chain, subject.host)
        }
        _ => false,
    }
}

/// Finds each wish's disk; gives the disks that no wish is about, too.
fn pair(subject: &Subject<'_>, wishes: &[Wish<'_>], seen: &[&Element]) -> (Vec<Option<usize>>, Vec<usize>) {
    let mut partners: Vec<Option<usize>> = vec![None; wishes.len()];
    let mut free: Vec<bool> = vec![true; seen.len()];
    let alias = |d: &Element| d.attribute_at("alias", "name").filter(|a| a.starts_with(USER_ALIAS)).map(String::from);
    let own: BTreeSet<String> = wishes.iter().map(|w| disk_alias(&w.disk.name)).collect();
    let defaults: Vec<String> = {
        let mut taken: BTreeSet<String> = wishes.iter().filter_map(|w| w.disk.target.clone()).collect();
        wishes.iter().map(|w| target_for(w, &mut taken)).collect()
    };
    // The target that Drover would give says something only where no disk carries a name: a disk without one among named
    // disks was plugged in by hand.
    let passes = if seen.iter().any(|d| alias(d).is_some()) { 3 } else { 4 };
    for pass in 0..passes {
        for (i, wish) in wishes.iter().enumerate() {
            if partners[i].is_some() {
                continue;
            }
            let name = disk_alias(&wish.disk.name);
            let fits = |d: &Element| {
                let found_alias = alias(d);
                if pass == 0 {
                    return found_alias.as_deref() == Some(name.as_str());
                }
                // A disk that carries another wish's name is that one's.
                if found_alias.is_some_and(|a| own.contains(&a)) {
                    return false;
                }
                match pass {
                    1 => wish.disk.target.is_some() && target(d) == wish.disk.target.as_deref(),
                    2 => wish.source != DiskSource::Empty && is_wanted_storage(subject, d, &wish.source),
                    _ => {
                        wish.disk.target.is_none()
                            && target(d) == Some(defaults[i].as_str())
                            && device(d) == word(&wish.disk.device)
                    }
                }
            };
            let found = (0..seen.len()).find(|s| free[*s] && fits(seen[*s]));
            if let Some(s) = found {
                free[s] = false;
                partners[i] = Some(s);
            }
        }
    }
    (partners, (0..seen.len()).filter(|s| free[*s]).collect())
}

fn device(disk: &Element) -> &str {
    disk.attribute("device").unwrap_or("disk")
}

/// Whether `xml` or `xmlPatches` ask for the disk.
fn is_in_baseline(subject: &Subject<'_>, disk: &Element) -> bool {
    let equivalence = Equivalence::default();
    subject
        .baseline
        .and_then(|b| b.get("devices"))
        .is_some_and(|d| d.all("disk").any(|wanted| contains(wanted, disk, equivalence).is_empty()))
}

fn bus(disk: &Disk) -> DiskBus {
    disk.bus.unwrap_or(match (disk.device, disk.target.as_deref()) {
        (_, Some(target)) if target.starts_with("vd") => DiskBus::Virtio,
        (_, Some(target)) if target.starts_with("hd") => DiskBus::Ide,
        (DiskDevice::Cdrom, _) => DiskBus::Sata,
        (DiskDevice::Disk, Some(target)) if target.starts_with("sd") => DiskBus::Sata,
        (DiskDevice::Disk, _) => DiskBus::Virtio,
    })
}

/// The target that a wish gets: the stated one, else the first of its bus that is free; it is taken then.
fn target_for(wish: &Wish<'_>, taken: &mut BTreeSet<String>) -> String {
    if let Some(stated) = &wish.disk.target {
        return stated.clone();
    }
    let prefix = match bus(wish.disk) {
        DiskBus::Virtio => "vd",
        DiskBus::Scsi | DiskBus::Sata | DiskBus::Usb => "sd",
        DiskBus::Ide => "hd",
    };
    let free = (0u32..26 * 27).map(|n| format!("{prefix}{}", letters(n))).find(|t| !taken.contains(t));
    // More than 702 disks of one bus: libvirt refuses the doubled target and says so.
    let target = free.unwrap_or_else(|| format!("{prefix}a"));
    taken.insert(target.clone());
    target
}

/// a, b, … z, aa, ab, …
fn letters(n: u32) -> String {
    let letter = |n: u32| char::from(b'a' + u8::try_from(n % 26).unwrap_or(0));
    if n < 26 { letter(n).to_string() } else { format!("{}{}", letter(n / 26 - 1), letter(n)) }
}

/// Whether a disk can come and go while the machine runs.
fn is_pluggable(device: &str, bus: Option<&str>) -> bool {
    device == "disk" && matches!(bus, Some("virtio" | "scsi" | "usb"))
}

fn remove(subject: &Subject<'_>, disk: &Element, sheet: &mut Sheet) {
    let Some(dev) = target(disk) else { return };
    let Some(quoted) = literal(dev) else { return };
    let name = disk.attribute_at("alias", "name").and_then(|a| a.strip_prefix(USER_ALIAS)).unwrap_or(dev);
    let before = json!({"target": dev, "device": device(disk), "source": path_of(subject, disk)});
    let way = if is_pluggable(device(disk), disk.attribute_at("target", "bus")) {
        subject.live(|| LiveChange::Detach { xml: disk.to_xml() }, format!("unplug disk `{name}` ({dev})"))
    } else {
        Way::Restart
    };
    sheet.diff(format!("spec.disks[{name}]"), before, Value::Null, way);
    sheet.note("the disk is taken out of the machine; its volume stays");
    sheet.remove(format!("/domain/devices/disk[target/@dev={quoted}]"));
}

fn add(subject: &Subject<'_>, wish: &Wish<'_>, taken: &mut BTreeSet<String>, sheet: &mut Sheet) {
    let target = target_for(wish, taken);
    let element = lay(subject, wish, None, &target);
    let name = &wish.disk.name;
    let way = if is_pluggable(&word(&wish.disk.device), Some(&word(&bus(wish.disk)))) {
        subject.live(|| LiveChange::Attach { xml: element.to_xml() }, format!("plug in disk `{name}` as {target}"))
    } else {
        Way::Restart
    };
    let after = serde_json::to_value(wish.disk).unwrap_or(Value::Null);
    sheet.diff(format!("spec.disks[{name}]"), Value::Null, after, way);
    sheet.edit(Edit::Add { at: "/domain/devices".into(), xml: element.to_xml() });
    if wish.disk.boot_order.is_some() {
        // libvirt takes either the order of the devices or that of the classes, not both.
        sheet.remove("/domain/os/boot");
    }
}

fn change(subject: &Subject<'_>, wish: &Wish<'_>, disk: &Element, taken: &mut BTreeSet<String>, sheet: &mut Sheet) {
    let stated = wish.disk;
    let path = |field: &str| format!("spec.disks[{}].{field}", stated.name);
    let before = sheet.diffs.len();
    let driver = |name| disk.attribute_at("driver", name);
    let found_dev = target(disk).unwrap_or_default().to_owned();

    sheet.field(&path("device"), device(disk), word(&stated.device), Way::Restart);
    if let Some(bus) = stated.bus {
        sheet.field(&path("bus"), text(disk.attribute_at("target", "bus")), word(&bus), Way::Restart);
    }
    if let Some(dev) = &stated.target {
        sheet.field(&path("target"), found_dev.as_str(), dev.as_str(), Way::Restart);
    }
    let mut medium = false;
    if !is_wanted_storage(subject, disk, &wish.source) {
        medium = true;
        let field = if stated.pool.is_some() {
            "volume"
        } else if stated.block.is_some() {
            "block"
        } else {
            "file"
        };
        let way = if stated.device == DiskDevice::Cdrom && device(disk) == "cdrom" {
            let mut with_medium = disk.clone();
            set_source(&mut with_medium, &wish.source);
            let summary = match wish.source.path() {
                Some(path) => format!("put `{path}` into CD-ROM `{}`", stated.name),
                None => format!("take the medium out of CD-ROM `{}`", stated.name),
            };
            subject.live(|| LiveChange::Update { xml: with_medium.to_xml() }, summary)
        } else {
            Way::Restart
        };
        sheet.diff(path(field), text(path_of(subject, disk)), text(wish.source.path()), way);
    }
    if let Some(format) = stated.format {
        let wanted = word(&format);
        match &wish.volume_format {
            Some(there) if *there != wanted => {
                sheet.diff(path("format"), json!(there), json!(wanted), Way::Recreate);
                sheet.note("the volume has another format; Drover converts none");
            }
            // A new medium brings its format along.
            _ if !medium && stated.device == DiskDevice::Disk => {
                sheet.field(&path("format"), driver("type").unwrap_or("raw"), wanted.as_str(), Way::Restart);
            }
            _ => {}
        }
    }
    if let Some(cache) = stated.cache {
        sheet.field(&path("cache"), text(driver("cache")), word(&cache), Way::Restart);
    }
    if let Some(order) = stated.boot_order {
        let found = disk.attribute_at("boot", "order").and_then(|o| o.parse::<u32>().ok());
        sheet.field(&path("bootOrder"), found.map_or(Value::Null, Value::from), order, Way::Restart);
    }
    if let Some(read_only) = stated.read_only {
        sheet.field(&path("readOnly"), disk.get("readonly").is_some(), read_only, Way::Restart);
    }
    if let Some(shareable) = stated.shareable {
        sheet.field(&path("shareable"), disk.get("shareable").is_some(), shareable, Way::Restart);
    }
    if let Some(serial) = &stated.serial {
        sheet.field(&path("serial"), text(disk.text_at("serial")), serial.as_str(), Way::Restart);
    }

    let changed = sheet.diffs[before..].iter().any(|d| d.way != Way::Recreate);
    if !changed {
        return;
    }
    let bus_differs = stated.bus.is_some_and(|b| disk.attribute_at("target", "bus") != Some(&word(&b)));
    let dev = if bus_differs { target_for(wish, taken) } else { stated.target.clone().unwrap_or(found_dev.clone()) };
    let element = lay(subject, wish, Some(disk), &dev);
    if let Some(quoted) = literal(&found_dev) {
        sheet.replace(format!("/domain/devices/disk[target/@dev={quoted}]"), &element);
    }
    if stated.boot_order.is_some() {
        sheet.remove("/domain/os/boot");
    }
}

/// The XML of a disk: a new one, or the one that is there with the stated fields laid over it.
fn lay(subject: &Subject<'_>, wish: &Wish<'_>, there: Option<&Element>, dev: &str) -> Element {
    let stated = wish.disk;
    let is_new = there.is_none();
    let mut disk = there.cloned().unwrap_or_else(|| Element::new("disk"));
    disk.set("type", wish.source.kind().0);
    disk.set("device", word(&stated.device));

    let format_fits = wish.volume_format.as_ref().is_none_or(|there| *there == word(&wish.format));
    let moved = there.is_some_and(|d| !is_wanted_storage(subject, d, &wish.source));
    let driver = disk.ensure("driver");
    if is_new && !subject.is_test() {
        driver.set("name", "qemu");
    }
    if is_new || ((stated.format.is_some() || moved) && format_fits) {
        driver.set("type", word(&wish.format));
    }
    match stated.cache {
        Some(cache) => driver.set("cache", word(&cache)),
        // Machines on shared storage move; without the host's cache that is safe (libvirt refuses it otherwise).
        None if is_new && wish.shared && stated.device == DiskDevice::Disk => {
            driver.set("cache", word(&CacheMode::None))
        }
        None => {}
    }
    if is_new && stated.device == DiskDevice::Disk && !subject.is_test() {
        // What the guest frees is freed on the storage; virt-install's default too.
        driver.set("discard", "unmap");
    }
    if is_new || moved {
        set_source(&mut disk, &wish.source);
    } else if let Some(d) = there {
        // The type belongs to the source that is kept (`volume`, or an overlay on a device).
        disk.set("type", d.attribute("type").unwrap_or("file"));
    }
    let wanted_bus = if is_new { Some(word(&bus(stated))) } else { stated.bus.map(|b| word(&b)) };
    let target = disk.ensure("target");
    let moves_bus = !is_new && wanted_bus.as_deref().is_some_and(|b| target.attribute("bus") != Some(b));
    target.set("dev", dev);
    if let Some(bus) = wanted_bus {
        target.set("bus", bus);
    }
    if moves_bus {
        disk.remove("address");
    }
    for (element, wanted) in [
        ("readonly", stated.read_only.or((is_new && stated.device == DiskDevice::Cdrom).then_some(true))),
        ("shareable", stated.shareable),
    ] {
        match wanted {
            Some(true) => {
                disk.ensure(element);
            }
            Some(false) => {
                disk.remove(element);
            }
            None => {}
        }
    }
    if let Some(serial) = &stated.serial {
        disk.ensure("serial").set_text(serial);
    }
    if let Some(order) = stated.boot_order {
        disk.ensure("boot").set("order", order.to_string());
    }
    if subject.side != Side::Live || is_new {
        name(subject, stated, &mut disk);
    }
    disk
}

/// Gives a disk its name as an alias. The test driver keeps none.
fn name(subject: &Subject<'_>, stated: &Disk, disk: &mut Element) {
    if !subject.is_test() {
        disk.ensure("alias").set("name", disk_alias(&stated.name));
    }
}

fn set_source(disk: &mut Element, source: &DiskSource) {
    // What is known of the old medium does not hold for the new one.
    for child in ["source", "backingStore", "mirror"] {
        disk.remove(child);
    }
    let (kind, attribute) = source.kind();
    disk.set("type", kind);
    if let Some(path) = source.path() {
        disk.children.push(crate::domain_xml::Node::Element(Element::new("source").with(attribute, path)));
    }
}
