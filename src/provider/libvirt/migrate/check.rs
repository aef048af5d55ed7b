//! What is asked of the two hosts beside the machine itself, where libvirt's own answer would be wrong or come too late.

use super::super::connect::Host;
use super::super::error::{During, Fault};
use super::super::{domain, observe};
use super::Migration;
use crate::domain_xml;
use crate::observed::HostState;
use virt_sys as sys;

/// The first libvirt with `VIR_MIGRATE_PARAM_MIGRATE_DISKS_DETECT_ZEROES`, as libvirt numbers its releases.
const DETECTS_ZEROES: u32 = 10_009_000;

/// The first libvirt that leaves both halves of a machine in post-copy as they are when the connection is gone over which the
/// migration is driven, so that it ends by itself (seen with 9.0 and 11.3); before, the destination's half ended with it.
const KEEPS_HALVES: u32 = 8_005_000;

/// What a host says of itself in its capabilities.
async fn facts(host: &Host) -> Result<HostState, Fault> {
    host.call("read its capabilities", |c| {
        let mut state = HostState::default();
        observe::capabilities(&mut state, &c.capabilities().during("read its capabilities")?)?;
        Ok(state)
    })
    .await
}

/// Why two manifests are about one host, if they are: a machine that "runs on both" then is one machine, and stopping
/// either would stop the only one.
pub(super) async fn one_host(from: &Host, to: &Host) -> Result<Option<String>, Fault> {
    let (here, there) = tokio::try_join!(facts(from), facts(to))?;
    Ok((!here.uuid.is_empty() && here.uuid == there.uuid)
        .then(|| format!("`{}` and `{}` are one host: both have the UUID {}", from.name, to.name, here.uuid)))
}

/// Why a machine that is off could not be started at the destination, if so. A running one libvirt refuses itself; the
/// definition of one that is off it takes, and fails at the next start.
pub(super) async fn unstartable(from: &Host, to: &Host, m: &Migration) -> Result<Option<String>, Fault> {
    let uuid = m.uuid;
    let machine = from.call("read the machine's definition", move |c| {
        let what = "read its definition";
        let Some(domain) = domain::find(c, uuid)? else { return Ok(None) };
        let xml = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).during(what)?;
        Ok(domain_xml::machine_type(&xml))
    });
    let (machine, there) = tokio::try_join!(machine, facts(to))?;
    let Some(machine) = machine else { return Ok(None) };
    let is_known = there.machine_types.is_empty()
        || there.machine_types.contains(&machine)
        || there.machine_aliases.contains_key(&machine);
    Ok((!is_known).then(|| format!("`{}` does not know the machine type {machine}", to.name)))
}

/// Whether holes of copied disks can be kept: both daemons have to know the parameter.
pub(super) async fn keeps_holes(from: &Host, to: &Host) -> bool {
    let (here, there) = tokio::join!(detects_zeroes(from), detects_zeroes(to));
    here && there
}

async fn detects_zeroes(host: &Host) -> bool {
    is_at_least(host, DETECTS_ZEROES).await
}

/// Whether a machine in post-copy outlives whoever drives its migration, on both hosts.
pub(super) async fn keeps_halves(from: &Host, to: &Host) -> bool {
    let (here, there) = tokio::join!(is_at_least(from, KEEPS_HALVES), is_at_least(to, KEEPS_HALVES));
    here && there
}

/// Whether the daemon is of this version or a later one, as far as it tells.
async fn is_at_least(host: &Host, version: u32) -> bool {
    let what = "read libvirt's version";
    host.call(what, move |c| c.lib_version().during(what)).await.is_ok_and(|v| v >= version)
}
