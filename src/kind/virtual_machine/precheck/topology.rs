//! Pinning and huge pages against the destination's topology.

use super::{Move, Sheet, mebibytes};
use crate::domain_xml::{self, Element};
use crate::observed::{CellState, HostState};
use crate::plan::Precheck;
use std::collections::BTreeSet;

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    pinning(mv, xml, sheet);
    huge_pages(mv, xml, sheet);
}

/// What a machine is pinned to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pins {
    cpus: BTreeSet<u32>,
    /// NUMA nodes that it must have its memory from.
    nodes: BTreeSet<u32>,
    /// NUMA nodes that it had best have its memory from.
    preferred: BTreeSet<u32>,
    /// Sets that are not written as libvirt writes them.
    odd: Vec<String>,
}

fn pins(xml: &Element) -> Pins {
    let mut pins = Pins::default();
    let tune = xml.get("cputune").into_iter().flat_map(Element::elements);
    let pinned = tune.filter(|e| matches!(e.name.as_str(), "vcpupin" | "emulatorpin" | "iothreadpin"));
    // With automatic placement the set is what numad found at the last start, and not a wish.
    let vcpu = xml.get("vcpu").filter(|v| v.attribute("placement") != Some("auto"));
    for text in vcpu.into_iter().chain(pinned).filter_map(|e| e.attribute("cpuset")) {
        match set(text) {
            Some(cpus) => pins.cpus.extend(cpus),
            None => pins.odd.push(text.to_owned()),
        }
    }
    let nodes = xml.get("numatune").into_iter().flat_map(Element::elements);
    for memory in nodes.filter(|e| e.attribute("placement") != Some("auto")) {
        let Some(text) = memory.attribute("nodeset") else { continue };
        let is_preferred = memory.attribute("mode") == Some("preferred");
        match set(text) {
            Some(nodes) if is_preferred => pins.preferred.extend(nodes),
            Some(nodes) => pins.nodes.extend(nodes),
            None => pins.odd.push(text.to_owned()),
        }
    }
    pins
}

/// A set as libvirt writes it: `0-3,^2,8`.
fn set(text: &str) -> Option<BTreeSet<u32>> {
    /// No host has more CPUs; a range is written by people.
    const MOST: u32 = 16_384;
    let mut numbers = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (part, is_out) = part.strip_prefix('^').map_or((part, false), |p| (p, true));
        let (first, last) = match part.split_once('-') {
            Some((a, b)) => (a.trim().parse().ok()?, b.trim().parse().ok()?),
            None => {
                let n: u32 = part.parse().ok()?;
                (n, n)
            }
        };
        if first > last || last >= MOST {
            return None;
        }
        for n in first..=last {
            if is_out {
                numbers.remove(&n)
            } else {
                numbers.insert(n)
            };
        }
    }
    Some(numbers)
}

fn pinning(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::Pinning;
    let Pins { cpus, nodes, preferred, odd } = pins(xml);
    if cpus.is_empty() && nodes.is_empty() && preferred.is_empty() && odd.is_empty() {
        return sheet.pass(name, "it is pinned to no CPU and no NUMA node");
    }
    for text in &odd {
        sheet.unknown(name, format!("it is pinned to `{text}`, which is no set of numbers"));
    }
    let cells = &mv.destination.cells;
    if cells.is_empty() {
        return sheet.unknown(name, format!("it is pinned, and `{}` does not tell its topology", mv.to));
    }
    let there: BTreeSet<u32> = cells.iter().flat_map(|c| c.cpus.iter().copied()).collect();
    let there_nodes: BTreeSet<u32> = cells.iter().map(|c| c.id).collect();
    let lacking = |wanted: &BTreeSet<u32>, there: &BTreeSet<u32>| {
        let lacking: BTreeSet<u32> = wanted.difference(there).copied().collect();
        (!lacking.is_empty()).then(|| (ranges(wanted), ranges(&lacking)))
    };
    const CHOOSE: &str = "choose a host of a similar topology, or change what it is pinned to and restart it";
    if let Some((wanted, lacking)) = lacking(&cpus, &there) {
        sheet.fail(
            name,
            format!("it is pinned to the CPUs {wanted}, and `{}` has {} CPUs: not {lacking}", mv.to, there.len()),
            CHOOSE,
        );
    }
    if let Some((wanted, lacking)) = lacking(&nodes, &there_nodes) {
        sheet.fail(
            name,
            format!("its memory is pinned to the NUMA nodes {wanted}, and `{}` has no {lacking}", mv.to),
            CHOOSE,
        );
    }
    if let Some((wanted, lacking)) = lacking(&preferred, &there_nodes) {
        sheet.doubt(
            name,
            format!("it prefers memory of the NUMA nodes {wanted}, and `{}` has no {lacking}", mv.to),
            CHOOSE,
        );
    }
    if shape(mv.source) != shape(mv.destination) {
        sheet.doubt(
            name,
            format!(
                "it is pinned, and the topologies differ: {} on `{}`, {} on `{}`",
                words(mv.source),
                mv.from,
                words(mv.destination),
                mv.to
            ),
            "it runs there, perhaps more slowly; choose a host of the same topology",
        );
    }
    sheet.otherwise(
        name,
        format!("`{}` has the CPUs and NUMA nodes that it is pinned to: {}", mv.to, words(mv.destination)),
    );
}

fn shape(host: &HostState) -> Vec<(u32, &[u32])> {
    host.cells.iter().map(|c| (c.id, c.cpus.as_slice())).collect()
}

fn words(host: &HostState) -> String {
    let cpus: usize = host.cells.iter().map(|c| c.cpus.len()).sum();
    format!("{} NUMA nodes with {cpus} CPUs", host.cells.len())
}

/// Numbers as a set is written: `0-3,8`.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for n in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *n => *last = *n,
            _ => parts.push((*n, *n)),
        }
    }
    let shown = parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    shown.collect::<Vec<_>>().join(",")
}

/// Whether a machine has its memory in huge pages.
pub(super) fn has_huge_pages(xml: &Element) -> bool {
    xml.get("memoryBacking/hugepages").is_some()
}

fn huge_pages(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::HugePages;
    if !has_huge_pages(xml) {
        return sheet.pass(name, "its memory is in ordinary pages");
    }
    let cells = &mv.destination.cells;
    if cells.is_empty() {
        return sheet.unknown(name, format!("`{}` does not tell its huge pages", mv.to));
    }
    let needed = xml.get("memory").and_then(domain_xml::bytes).unwrap_or_default();
    let pages: Vec<&Element> = xml.get("memoryBacking/hugepages").into_iter().flat_map(|h| h.all("page")).collect();
    let sizes: BTreeSet<u64> = pages.iter().filter_map(|p| size(p)).collect();
    let size = match (sizes.len(), pages.len()) {
        (1, _) => sizes.first().copied().unwrap_or(DEFAULT_KIB),
        // The host's default size: the only one that it has, or that of its architecture.
        (0, 0) => only_size(cells).unwrap_or(DEFAULT_KIB),
        _ => {
            return sheet.unknown(
                name,
                "it has huge pages of several sizes, and which part is in which is for the host to say",
            );
        }
    };
    // What is pinned to nodes has its pages from there.
    let nodes = pins(xml).nodes;
    let of = cells.iter().filter(|c| nodes.is_empty() || nodes.contains(&c.id)).filter_map(|c| c.huge_pages.get(&size));
    let (total, free) = of.fold((0, Some(0)), |(total, free): (u64, Option<u64>), p| {
        (total + p.total, free.zip(p.free).map(|(a, b)| a + b))
    });
    let wanted = needed.div_ceil(size << 10);
    let unit = crate::model::Bytes(size << 10);
    let hint = "give the destination more (`virsh allocpages`, `vm.nr_hugepages`), or choose another host";
    if !mv.starts {
        return sheet
            .pass(name, format!("it stays off; `{}` has {total} huge pages of {unit}, and it needs {wanted}", mv.to));
    }
    match free {
        Some(free) if free < wanted => sheet.fail(
            name,
            format!(
                "`{}` has {free} of {total} huge pages of {unit} free, and it needs {wanted} ({})",
                mv.to,
                mebibytes(needed)
            ),
            hint,
        ),
        Some(free) => sheet
            .pass(name, format!("`{}` has {free} of {total} huge pages of {unit} free, and it needs {wanted}", mv.to)),
        None if total < wanted => sheet.fail(
            name,
            format!(
                "`{}` has {total} huge pages of {unit} in all, and it needs {wanted} ({})",
                mv.to,
                mebibytes(needed)
            ),
            hint,
        ),
        None => sheet.unknown(
            name,
            format!(
                "how many of the {total} huge pages of {unit} of `{}` are free was not read; it needs {wanted}",
                mv.to
            ),
        ),
    }
}

/// x86's usual huge page, in KiB.
const DEFAULT_KIB: u64 = 2048;

fn only_size(cells: &[CellState]) -> Option<u64> {
    let sizes: BTreeSet<u64> = cells.iter().flat_map(|c| c.huge_pages.keys().copied()).collect();
    (sizes.len() == 1).then(|| sizes.first().copied()).flatten()
}

/// The size of `<page size='1' unit='GiB'/>` in KiB.
fn size(page: &Element) -> Option<u64> {
    let number: u64 = page.attribute("size")?.parse().ok()?;
    let factor = match page.attribute("unit").unwrap_or("KiB") {
        "k" | "KiB" => 1,
        "M" | "MiB" => 1 << 10,
        "G" | "GiB" => 1 << 20,
        "b" | "bytes" => return Some(number >> 10),
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_with_ranges_and_exceptions() {
        let shown = |text: &str| set(text).map(|s| ranges(&s));
        assert_eq!(shown("0-3,^2,8").as_deref(), Some("0-1,3,8"));
        assert_eq!(shown("5").as_deref(), Some("5"));
        for odd in ["", "a", "3-1", "0-99999999", "1-", "-"] {
            assert_eq!(shown(odd), None, "{odd}");
        }
    }
}
