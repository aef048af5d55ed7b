//! What of a host's hardware and networks decides whether a machine can move there: NUMA cells with their huge pages,
//! interfaces, networks, and whether its migration ports answer. A few calls for a whole host; what a driver cannot tell is
//! left out, and the planner takes it for unknown.

use super::connect::Host;
use super::error::{During, Fault};
use super::xml;
use crate::domain_xml::Element;
use crate::kind::host::{HostSpec, parse_uri};
use crate::observed::{CellState, HostState, InterfaceState, NetworkState, PagesState, ProbeOutcome, ProbeState};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use virt::connect::Connect;
use virt::network::Network;
use virt_sys as sys;

/// Pages of this size are ordinary ones, in KiB.
const SMALL_PAGE_KIB: u64 = 4;

/// How long a probe waits for an answer. A reading takes about as long, and goes on meanwhile.
const PROBE_WITHIN: Duration = Duration::from_millis(500);

/// How long a port that did not answer is not tried again.
const SILENCE_HOLDS: Duration = Duration::from_secs(60);

/// The narrowest range of ports of which one is tried.
const PROBED_RANGE: u16 = 8;

/// NUMA cells, as the capabilities tell them.
pub(super) fn cells(capabilities: &Element) -> Vec<CellState> {
    let Some(cells) = capabilities.get("host/topology/cells") else { return Vec::new() };
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<u64>().ok());
    cells
        .all("cell")
        .map(|cell| {
            // A size of which there are none is told all the same.
            let pages = cell.all("pages").filter_map(|p| {
                let size = number(p.attribute("size"))?;
                let total = p.text().parse().unwrap_or(0);
                (size > SMALL_PAGE_KIB && total > 0).then_some((size, PagesState { total, free: None }))
            });
            let cpus = cell.get("cpus").into_iter().flat_map(|c| c.all("cpu"));
            CellState {
                id: number(cell.attribute("id")).and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
                // Without a unit it is KiB, like everywhere in the capabilities.
                memory: cell.get("memory").and_then(crate::domain_xml::bytes).unwrap_or_default(),
                free_memory: None,
                cpus: cpus.filter_map(|c| c.attribute("id")?.parse().ok()).collect(),
                huge_pages: pages.collect(),
            }
        })
        .collect()
}

/// Adds what of the cells is free. Not asked of a host with one cell and no huge pages: it is known already.
pub(super) fn free(connect: &Connect, state: &mut HostState) -> Result<(), Fault> {
    if let [only] = state.cells.as_mut_slice() {
        only.free_memory = (state.free_memory > 0).then_some(state.free_memory);
    } else if let Some(last) = state.cells.iter().map(|c| c.id).max() {
        let count = i32::try_from(last).unwrap_or(0).saturating_add(1);
        let read = connect.cells_free_memory(0, count).during("read the free memory of its NUMA cells");
        for (id, free) in (0..).zip(tolerate(read)?.unwrap_or_default()) {
            state.cells.iter_mut().filter(|c| c.id == id).for_each(|c| c.free_memory = Some(free));
        }
    }
    for cell in &mut state.cells {
        let sizes: Vec<u32> = cell.huge_pages.keys().filter_map(|s| u32::try_from(*s).ok()).collect();
        if sizes.is_empty() {
            continue;
        }
        let read = connect.free_pages(&sizes, cell.id, 1, 0).during("read its free huge pages");
        for (pages, free) in cell.huge_pages.values_mut().zip(tolerate(read)?.unwrap_or_default()) {
            pages.free = Some(free);
        }
    }
    Ok(())
}

/// Every interface, with those that are part of a bridge or bond; nothing where the daemon has no interface driver.
pub(super) fn interfaces(connect: &Connect) -> Result<Option<BTreeMap<String, InterfaceState>>, Fault> {
    let Some(list) = tolerate(connect.list_all_interfaces(0).during("list its network interfaces"))? else {
        return Ok(None);
    };
    let mut found = BTreeMap::new();
    for interface in list {
        let name = interface.name().during("read a network interface's name")?;
        match interface.xml_desc(0).during(format!("read network interface `{name}`")) {
            Ok(text) => gather(&xml::parse(&text, "read a network interface")?, &mut found),
            Err(fault) if fault.broke_connection() => return Err(fault),
            Err(fault) if fault.code() == Some(sys::VIR_ERR_NO_INTERFACE) => {}
            // libvirt makes nothing of it; it is there all the same.
            Err(_) => drop(found.insert(name, InterfaceState::default())),
        }
    }
    Ok(Some(found))
}

fn gather(element: &Element, found: &mut BTreeMap<String, InterfaceState>) {
    if element.name == "interface"
        && let Some(name) = element.attribute("name")
    {
        let mtu = element.attribute_at("mtu", "size").and_then(|m| m.parse().ok());
        let state = InterfaceState { r#type: element.attribute("type").unwrap_or_default().to_owned(), mtu };
        // What is told of an interface by itself is more than what its bridge tells of it.
        let entry = found.entry(name.to_owned()).or_default();
        if entry.mtu.is_none() {
            *entry = state;
        }
    }
    element.elements().for_each(|child| gather(child, found));
}

/// What a network is; nothing for one that cannot be read.
pub(super) fn network(network: &Network) -> Result<Option<NetworkState>, Fault> {
    match tolerate(network.xml_desc(0).during("read a network"))? {
        Some(text) => Ok(Some(network_state(&xml::parse(&text, "read a network")?))),
        None => Ok(None),
    }
}

fn network_state(root: &Element) -> NetworkState {
    let forward = match root.get("forward") {
        None => "isolated",
        // libvirt's default.
        Some(forward) => forward.attribute("mode").unwrap_or("nat"),
    };
    NetworkState {
        forward: forward.to_owned(),
        bridge: root.attribute_at("bridge", "name").map(str::to_owned),
        mtu: root.attribute_at("mtu", "size").and_then(|m| m.parse().ok()),
    }
}

/// Nothing for what libvirt cannot or will not tell; only a lost connection is an error. What rests on it is then unknown
/// to the planner, and the reading is complete all the same: no machine can hide there.
fn tolerate<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.broke_connection() => Err(fault),
        Err(_) => Ok(None),
    }
}

/// The last probe of a host's migration port that found silence, so that a filtered port costs one wait a minute.
#[derive(Debug, Default)]
pub(super) struct Silence(std::sync::Mutex<Option<(Instant, ProbeState)>>);

/// Tries a host's migration address, as seen from here.
///
/// The *last* port of the range: libvirt hands them out from the first, and a QEMU that listens for a migration takes
/// whoever connects first for the source. A range of a few ports may be in use up to its end, and is not tried.
pub(super) async fn probe(host: &Host) -> Option<ProbeState> {
    let (address, port) = target(&host.spec, host.probes_ports())?;
    let remembered = |silence: &Silence| {
        let held = silence.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        held.as_ref().filter(|(at, _)| at.elapsed() < SILENCE_HOLDS).map(|(_, state)| state.clone())
    };
    if let Some(state) = remembered(&host.silence) {
        return Some(state);
    }
    let state = |outcome, detail: String| ProbeState { address: address.clone(), port, outcome, detail };
    let state = match tokio::time::timeout(PROBE_WITHIN, TcpStream::connect((address.as_str(), port))).await {
        Ok(Ok(_)) => state(ProbeOutcome::Open, String::new()),
        Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => state(ProbeOutcome::Refused, String::new()),
        Ok(Err(e)) => state(ProbeOutcome::Unreachable, e.to_string()),
        Err(_) => state(ProbeOutcome::Silent, format!("no answer within {} ms", PROBE_WITHIN.as_millis())),
    };
    let mut held = host.silence.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *held = (state.outcome == ProbeOutcome::Silent).then(|| (Instant::now(), state.clone()));
    Some(state)
}

/// The address and port to try, where one is to be tried.
fn target(spec: &HostSpec, allowed: bool) -> Option<(String, u16)> {
    let connection = parse_uri(&spec.uri).ok()?;
    let (first, last) = spec.migration.ports.split_once('-')?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    if !allowed || connection.driver != "qemu" || last.saturating_sub(first) < PROBED_RANGE - 1 {
        return None;
    }
    let address = spec.migration.address.clone().unwrap_or(connection.host);
    let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
    (!address.is_empty()).then_some((address, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain_xml;

    fn tree(text: &str) -> Element {
        domain_xml::parse(text).unwrap()
    }

    #[test]
    fn cells_have_their_memory_cpus_and_huge_pages() {
        let cells = cells(&tree(
            "<capabilities><host><topology><cells num='2'>
             <cell id='0'><memory unit='KiB'>1024</memory><pages unit='KiB' size='4'>100</pages>
               <pages unit='KiB' size='2048'>8</pages><pages unit='KiB' size='1048576'>0</pages>
               <cpus num='2'><cpu id='0'/><cpu id='2'/></cpus></cell>
             <cell id='1'><memory unit='KiB'>2048</memory><cpus num='1'><cpu id='1'/></cpus></cell>
             </cells></topology></host></capabilities>",
        ));
        assert_eq!((cells[0].memory, cells[0].cpus.as_slice()), (1 << 20, [0, 2].as_slice()));
        assert_eq!(cells[0].huge_pages, [(2048, PagesState { total: 8, free: None })].into());
        assert_eq!((cells[1].id, cells[1].memory, cells[1].huge_pages.len()), (1, 2 << 20, 0));
        assert!(super::cells(&tree("<capabilities/>")).is_empty());
    }

    #[test]
    fn what_is_in_a_bridge_is_an_interface_as_well() {
        let mut found = BTreeMap::new();
        gather(
            &tree(
                "<interface type='bridge' name='br0'><mtu size='9000'/><bridge stp='off'>
                 <interface type='ethernet' name='eth1'><mac address='82:28:e5:96:b5:cb'/></interface></bridge></interface>",
            ),
            &mut found,
        );
        gather(&tree("<interface type='ethernet' name='eth1'><mtu size='1500'/></interface>"), &mut found);
        let shown: Vec<_> = found.iter().map(|(n, s)| (n.as_str(), s.r#type.as_str(), s.mtu)).collect();
        assert_eq!(shown, [("br0", "bridge", Some(9000)), ("eth1", "ethernet", Some(1500))]);
    }

    #[test]
    fn a_network_says_how_it_reaches_the_outside() {
        let of = |text: &str| network_state(&tree(text));
        let nat = of("<network><forward/><bridge name='virbr0'/><mtu size='9000'/></network>");
        assert_eq!((nat.forward.as_str(), nat.bridge.as_deref(), nat.mtu), ("nat", Some("virbr0"), Some(9000)));
        assert_eq!(of("<network><forward mode='bridge'/><bridge name='br0'/></network>").forward, "bridge");
        assert_eq!(of("<network/>").forward, "isolated");
    }

    #[test]
    fn the_last_port_of_a_wide_range_is_tried() {
        let target = |text: &str| target(&serde_yaml::from_str(text).unwrap(), true);
        assert_eq!(target("{uri: 'qemu+tcp://h/system'}"), Some(("h".into(), 49215)));
        assert_eq!(
            target("{uri: 'qemu+ssh://root@h/system', migration: {address: 10.0.0.1, ports: 50000-50063}}"),
            Some(("10.0.0.1".into(), 50063))
        );
        assert_eq!(target("{uri: 'qemu+tcp://h/system', migration: {ports: 49152-49155}}"), None);
        assert_eq!(target("{uri: 'qemu:///system'}"), None);
        assert_eq!(target("{uri: 'test:///default'}"), None);
    }
}
