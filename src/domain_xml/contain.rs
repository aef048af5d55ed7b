//! Whether a definition has everything that another asks for: the comparison behind `xml` and `xmlPatches`. What is
//! observed may have more, because libvirt fills in a lot; it must not have less, nor something else.

use super::edit::Edit;
use super::tree::{Element, Node};
use std::collections::BTreeMap;

/// What is equal in libvirt's eyes although the text differs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Equivalence<'a> {
    /// Machine type aliases to canonical names, as the host has them.
    pub machine_aliases: Option<&'a BTreeMap<String, String>>,
    /// Whether what is observed is a live definition, in which libvirt has expanded the CPU model.
    pub live: bool,
}

/// Something that is asked for and is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where in the observed definition, as a selector.
    pub at: String,
    /// What.
    pub what: GapKind,
}

/// What is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// An attribute that is missing or has another value.
    Attribute {
        /// Its name.
        name: String,
        /// The value that is asked for.
        wanted: String,
        /// The value that is there.
        found: Option<String>,
    },
    /// Another text.
    Text {
        /// The text that is asked for.
        wanted: String,
        /// The text that is there.
        found: String,
    },
    /// A child element that is missing below `at`.
    Element {
        /// The element that is asked for.
        wanted: Element,
    },
}

impl Gap {
    /// The edit that closes it.
    pub fn edit(&self) -> Edit {
        let at = self.at.clone();
        match &self.what {
            GapKind::Attribute { name, wanted, .. } => {
                Edit::SetAttribute { at, name: name.clone(), value: wanted.clone() }
            }
            GapKind::Text { wanted, .. } => Edit::SetText { at, text: wanted.clone() },
            GapKind::Element { wanted } => Edit::Add { at, xml: wanted.to_xml() },
        }
    }
}

/// Everything that `desired` asks for and `observed` does not have, in the order of `desired`. Both are whole definitions
/// or elements of one name. Empty means that `observed` contains `desired`.
pub fn contains(desired: &Element, observed: &Element, equivalence: Equivalence<'_>) -> Vec<Gap> {
    let mut walk = Walk { equivalence, gaps: Vec::new() };
    let scopes = (Scope { element: desired, outer: None }, Scope { element: observed, outer: None });
    walk.element(&scopes.0, &scopes.1, &format!("/{}", observed.name));
    walk.gaps
}

struct Walk<'a> {
    equivalence: Equivalence<'a>,
    gaps: Vec<Gap>,
}

/// An element with those around it, for the namespaces of its prefixes.
struct Scope<'a> {
    element: &'a Element,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    /// Name with the prefix resolved. A prefix without a declaration stands for itself.
    fn name<'n>(&'n self, name: &'n str) -> (Option<&'n str>, &'n str) {
        let Some((prefix, local)) = name.split_once(':') else { return (None, name) };
        let declaration = format!("xmlns:{prefix}");
        let mut at = Some(self);
        while let Some(scope) = at {
            if let Some(uri) = scope.element.attribute(&declaration) {
                return (Some(uri), local);
            }
            at = scope.outer;
        }
        (Some(prefix), local)
    }
}

impl Walk<'_> {
    fn element(&mut self, desired: &Scope<'_>, observed: &Scope<'_>, at: &str) {
        let (d, o) = (desired.element, observed.element);
        for (name, wanted) in &d.attributes {
            if self.is_ignored(d, name) {
                continue;
            }
            let found = o.attribute(name);
            if found.is_none() && self.is_of_no_medium(observed, name) {
                continue;
            }
            if !found.is_some_and(|found| self.attribute_equal(d, name, wanted, found)) {
                self.gaps.push(Gap {
                    at: at.to_owned(),
                    what: GapKind::Attribute {
                        name: name.clone(),
                        wanted: wanted.clone(),
                        found: found.map(ToOwned::to_owned),
                    },
                });
            }
        }
        let has_elements = d.elements().next().is_some();
        if !has_elements {
            let (wanted, found) = (d.text(), o.text());
            if !wanted.is_empty() && !text_equal(d, o, &wanted, &found) {
                self.gaps.push(Gap { at: at.to_owned(), what: GapKind::Text { wanted, found } });
                // The text was meant in the unit that stands beside it.
                if let Some(unit) = d.attribute("unit") {
                    self.gaps.push(Gap {
                        at: at.to_owned(),
                        what: GapKind::Attribute {
                            name: "unit".into(),
                            wanted: unit.into(),
                            found: o.attribute("unit").map(Into::into),
                        },
                    });
                }
            }
            return;
        }
        self.children(desired, observed, at);
    }

    fn children(&mut self, desired: &Scope<'_>, observed: &Scope<'_>, at: &str) {
        let mut used = vec![false; observed.element.children.len()];
        let mut of_name: BTreeMap<&str, usize> = BTreeMap::new();
        for child in desired.element.elements() {
            *of_name.entry(child.name.as_str()).or_default() += 1;
        }
        for child in desired.element.elements() {
            if self.equivalence.live && child.name == "cpu" && child.attribute("mode") == Some("host-model") {
                continue;
            }
            let wanted = Scope { element: child, outer: Some(desired) };
            let name = wanted.name(&child.name);
            // Children of the same name that nothing else was found in, with their position among those of the name as
            // written.
            let mut position: BTreeMap<&str, usize> = BTreeMap::new();
            let mut candidates = Vec::new();
            for (index, node) in observed.element.children.iter().enumerate() {
                let Node::Element(e) = node else { continue };
                let n = position.entry(e.name.as_str()).or_insert(0);
                *n += 1;
                let scope = Scope { element: e, outer: Some(observed) };
                if !used[index] && scope.name(&e.name) == name {
                    candidates.push((index, *n, e));
                }
            }
            let of_name = of_name.get(child.name.as_str()).copied().unwrap_or(0);
            match self.partner(&wanted, observed, &candidates, of_name) {
                Some((index, n, e)) => {
                    used[index] = true;
                    let count = observed.element.all(&e.name).count();
                    let step = if count > 1 { format!("{at}/{}[{n}]", e.name) } else { format!("{at}/{}", e.name) };
                    let found = Scope { element: e, outer: Some(observed) };
                    self.element(&wanted, &found, &step);
                }
                None => self.gaps.push(Gap { at: at.to_owned(), what: GapKind::Element { wanted: child.clone() } }),
            }
        }
    }

    /// The observed child that a desired one is about: the one with the same identity; without an identity the first that
    /// contains it; and where each side has but one of the name, that one.
    fn partner<'e>(
        &self,
        wanted: &Scope<'_>,
        observed: &Scope<'_>,
        candidates: &[(usize, usize, &'e Element)],
        of_name: usize,
    ) -> Option<(usize, usize, &'e Element)> {
        if let Some(identity) = identity(wanted.element) {
            return candidates.iter().find(|c| identity.fits(c.2)).copied();
        }
        let fitting = candidates.iter().find(|c| {
            let mut trial = Walk { equivalence: self.equivalence, gaps: Vec::new() };
            trial.element(wanted, &Scope { element: c.2, outer: Some(observed) }, "");
            trial.gaps.is_empty()
        });
        fitting.or_else(|| candidates.first().filter(|_| candidates.len() == 1 && of_name == 1)).copied()
    }

    fn is_ignored(&self, element: &Element, attribute: &str) -> bool {
        match attribute {
            _ if attribute == "xmlns" || attribute.starts_with("xmlns:") => true,
            "unit" => true,
            "id" => element.name == "domain",
            // Not shown to readers without the right to see secrets, and Drover reads without it.
            "passwd" | "passwdValidTo" => element.name == "graphics",
            // Chosen by libvirt when the display is `autoport`.
            "port" => element.name == "graphics" && element.attribute("autoport") == Some("yes"),
            "check" => element.name == "cpu" && self.equivalence.live,
            _ => false,
        }
    }

    /// A drive without a medium has no format in a live definition (libvirt 9.0).
    fn is_of_no_medium(&self, observed: &Scope<'_>, attribute: &str) -> bool {
        self.equivalence.live
            && attribute == "type"
            && observed.element.name == "driver"
            && observed.outer.is_some_and(|disk| disk.element.name == "disk" && disk.element.get("source").is_none())
    }

    fn attribute_equal(&self, element: &Element, name: &str, wanted: &str, found: &str) -> bool {
        wanted == found
            || match (element.name.as_str(), name) {
                ("type", "machine") => machine_equal(wanted, found, self.equivalence.machine_aliases),
                ("mac", "address") => wanted.eq_ignore_ascii_case(found),
                ("address", _) => match (number(wanted), number(found)) {
                    (Some(a), Some(b)) => a == b,
                    _ => false,
                },
                _ => false,
            }
    }
}

/// Whether a machine type is the wanted one: the same, the alias's canonical name, or an older canonical name of the
/// alias's family. libvirt writes the canonical name of the day into a definition and keeps it: `pc-q35-7.2` is `q35` as it
/// was when the machine was made, and not drift.
pub fn machine_equal(wanted: &str, found: &str, aliases: Option<&BTreeMap<String, String>>) -> bool {
    if wanted == found {
        return true;
    }
    // libvirt's test driver and hosts that could not be asked list no aliases; these two are QEMU's on every x86 host.
    let canonical = aliases.and_then(|a| a.get(wanted)).map(String::as_str).or(match wanted {
        "q35" => Some("pc-q35-0"),
        "pc" => Some("pc-i440fx-0"),
        _ => None,
    });
    canonical.is_some_and(|canonical| {
        canonical == found
            || matches!((canonical.rsplit_once('-'), found.rsplit_once('-')), (Some((a, _)), Some((b, _))) if a == b)
    })
}

/// What tells an element from its siblings of the same name.
struct Identity<'a> {
    /// Names of the path to the element that has the attribute; empty for the element itself.
    path: &'static str,
    attributes: Vec<(&'static str, &'a str)>,
}

impl Identity<'_> {
    fn fits(&self, element: &Element) -> bool {
        let at = if self.path.is_empty() { Some(element) } else { element.get(self.path) };
        at.is_some_and(|e| {
            self.attributes.iter().all(|(n, v)| e.attribute(n).is_some_and(|found| found.eq_ignore_ascii_case(v)))
        })
    }
}

/// Identifying attributes by element: those that libvirt keeps unique, or counts by. None: there is one at most.
const IDENTITIES: &[(&str, &str, &[&str])] = &[
    ("disk", "alias", &["name"]),
    ("disk", "target", &["dev"]),
    ("interface", "mac", &["address"]),
    ("controller", "", &["type", "index"]),
    ("channel", "target", &["name"]),
    ("serial", "target", &["port"]),
    ("parallel", "target", &["port"]),
    ("console", "target", &["type", "port"]),
    ("filesystem", "target", &["dir"]),
    ("feature", "", &["name"]),
    ("timer", "", &["name"]),
    ("vcpu", "", &["id"]),
    ("vcpupin", "", &["vcpu"]),
    ("iothreadpin", "", &["iothread"]),
    ("iothread", "", &["id"]),
    ("cell", "", &["id"]),
    ("memnode", "", &["cellid"]),
    ("seclabel", "", &["model"]),
    ("graphics", "", &["type"]),
    ("watchdog", "", &["model"]),
    // At most one of each.
    ("memballoon", "", &[]),
    ("tpm", "", &[]),
    ("vsock", "", &[]),
    ("iommu", "", &[]),
];

/// Whether two elements of one name are about the same thing, though they may say different things about it.
pub(crate) fn same_thing(wanted: &Element, found: &Element) -> bool {
    identity(wanted).is_some_and(|identity| identity.fits(found))
}

fn identity(element: &Element) -> Option<Identity<'_>> {
    for (_, path, attributes) in IDENTITIES.iter().filter(|(name, _, _)| *name == element.name) {
        let at = if path.is_empty() { Some(element) } else { element.get(path) };
        let values: Option<Vec<_>> = attributes.iter().map(|a| Some((*a, at.and_then(|e| e.attribute(a))?))).collect();
        if let Some(attributes) = values {
            // An alias that libvirt gives itself changes from start to start; only a user's own is kept.
            if *path == "alias" && !attributes.iter().all(|(_, v)| v.starts_with("ua-")) {
                continue;
            }
            return Some(Identity { path, attributes });
        }
    }
    None
}

fn text_equal(desired: &Element, observed: &Element, wanted: &str, found: &str) -> bool {
    if wanted == found {
        return true;
    }
    if desired.name == "uuid" {
        let plain = |t: &str| t.replace('-', "").to_ascii_lowercase();
        return plain(wanted) == plain(found);
    }
    match (bytes(desired), bytes(observed)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// The number of bytes that an element with a number and perhaps a `unit` stands for; without one libvirt counts in KiB
/// (libvirt.org/formatdomain.html#memory-allocation). `None` for what is not such an element.
pub fn bytes(element: &Element) -> Option<u64> {
    let has_unit = element.attribute("unit").is_some();
    let counts = matches!(
        element.name.as_str(),
        "memory" | "currentMemory" | "maxMemory" | "hard_limit" | "soft_limit" | "swap_hard_limit" | "min_guarantee"
    );
    if !has_unit && !counts {
        return None;
    }
    let number: u64 = element.text().parse().ok()?;
    let factor: u64 = match element.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1_000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{apply, parse};
    use super::*;

    const OBSERVED: &str = "<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>a</name>\
        <uuid>0b5f7c3e-6a59-4c0a-9c4f-0d8f4a3f1c11</uuid><memory unit='KiB'>2097152</memory>\
        <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><cpu mode='custom' check='full'>\
        <feature policy='require' name='vmx'/></cpu><devices>\
        <disk type='file'><driver name='qemu' type='qcow2'/><target dev='vda' bus='virtio'/>\
        <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/></disk>\
        <disk type='file'><driver name='qemu' type='raw'/><target dev='vdb' bus='virtio'/></disk>\
        <interface type='network'><mac address='52:54:00:aa:bb:cc'/></interface><rng model='virtio'/></devices>\
        <qemu:commandline><qemu:arg value='-a'/><qemu:arg value='-b'/></qemu:commandline></domain>";

    fn gaps(desired: &str) -> Vec<Gap> {
        let aliases = BTreeMap::from([("q35".to_owned(), "pc-q35-10.0".to_owned())]);
        let equivalence = Equivalence { machine_aliases: Some(&aliases), live: false };
        contains(&parse(desired).unwrap(), &parse(OBSERVED).unwrap(), equivalence)
    }

    #[test]
    fn what_libvirt_fills_in_or_writes_otherwise_is_no_gap() {
        let same = "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>\
            <uuid>0B5F7C3E6A594C0A9C4F0D8F4A3F1C11</uuid><memory unit='GiB'>2</memory>\
            <os><type machine='q35'>hvm</type></os><devices>\
            <disk type='file'><target dev='vdb'/><driver type='raw'/></disk>\
            <disk><target dev='vda'/><address type='pci' bus='4' slot='0'/></disk>\
            <interface type='network'><mac address='52:54:00:AA:BB:CC'/></interface></devices>\
            <q:commandline><q:arg value='-b'/></q:commandline></domain>";
        assert_eq!(gaps(same), []);
    }

    #[test]
    fn each_gap_says_where_and_its_edit_closes_it() {
        let desired = "<domain type='qemu'><memory>1048576</memory><os><type machine='pc'>hvm</type></os>\
            <cpu><feature policy='disable' name='vmx'/><feature policy='require' name='x2apic'/></cpu><devices>\
            <disk><driver type='qcow2'/><target dev='vdb'/></disk><disk type='block'><target dev='vdc'/></disk>\
            <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>";
        let found = gaps(desired);
        let places: Vec<_> = found
            .iter()
            .map(|g| match &g.what {
                GapKind::Attribute { name, .. } => format!("{}@{name}", g.at),
                GapKind::Text { .. } => format!("{}=", g.at),
                GapKind::Element { wanted } => format!("{}+{}", g.at, wanted.name),
            })
            .collect();
        assert_eq!(
            places,
            [
                "/domain@type",
                "/domain/memory=",
                "/domain/os/type@machine",
                "/domain/cpu/feature@policy",
                "/domain/cpu+feature",
                "/domain/devices/disk[2]/driver@type",
                "/domain/devices+disk",
                "/domain/devices/rng+backend",
            ]
        );
        let edits: Vec<_> = found.iter().map(Gap::edit).collect();
        let after = apply(OBSERVED, &edits).unwrap();
        // The memory was meant in KiB, libvirt's unit where none is written, and stands so already.
        let left = contains(&parse(desired).unwrap(), &parse(&after).unwrap(), Equivalence::default());
        assert_eq!(left, []);
    }

    #[test]
    fn an_older_machine_of_the_aliass_family_is_the_alias() {
        let aliases = BTreeMap::from([("q35".to_owned(), "pc-q35-rhel9.6.0".to_owned())]);
        for (wanted, found, equal) in [
            ("q35", "pc-q35-rhel9.6.0", true),
            ("q35", "pc-q35-7.2", true),
            ("q35", "pc-i440fx-7.2", false),
            ("pc-q35-7.2", "pc-q35-8.0", false),
            ("pc", "pc-i440fx-6.1", true),
            ("microvm", "pc-q35-7.2", false),
        ] {
            assert_eq!(machine_equal(wanted, found, Some(&aliases)), equal, "{wanted} {found}");
        }
    }
}
