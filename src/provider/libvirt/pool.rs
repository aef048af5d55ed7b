//! Storage pools: defined, built, started. They are never undefined: libvirt keeps no mark
//! on a pool that would tell whose it is. What is in a pool is never touched here; markers are laid beside it that tell
//! whether two hosts have the same storage.

use super::error::{During, Fault};
use super::{volume, xml};
use crate::domain_xml::Element;
use crate::observed::POOL_MARKER;
use crate::provider::Look;
use std::time::{Duration, Instant};
use uuid::Uuid;
use virt::connect::Connect;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;

/// The pool of a name, if there is one.
pub(super) fn find(connect: &Connect, name: &str) -> Result<Option<StoragePool>, Fault> {
    match connect.lookup_storage_pool_by_name(name).during(format!("look pool `{name}` up")) {
        Ok(pool) => Ok(Some(pool)),
        Err(fault) if fault.is_absent() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// A pool's definition as a tree.
pub(super) fn description(pool: &StoragePool, name: &str) -> Result<Element, Fault> {
    let what = format!("read pool `{name}`");
    xml::parse(&pool.xml_desc(0).during(&what)?, &what)
}

/// What tells one pool from another of the same name: type, source and target.
fn identity(definition: &Element) -> (Option<String>, Option<String>, Option<String>) {
    let source = definition.get("source");
    let place = source.map(|s| {
        let part = |path, name| s.attribute_at(path, name).unwrap_or_default().to_owned();
        let devices: Vec<_> = s.all("device").filter_map(|d| d.attribute("path")).collect();
        let name = xml::text_at(s, "name").unwrap_or_default();
        format!("{}|{}|{}|{name}", part("host", "name"), part("dir", "path"), devices.join(","))
    });
    let place = place.filter(|p| p.chars().any(|c| c != '|'));
    (definition.attribute("type").map(str::to_owned), place, xml::text_at(definition, "target/path"))
}

/// A logical pool's source name and some targets are filled in by libvirt: what was not asked for is not compared.
fn fits(wanted: &Element, there: &Element) -> bool {
    let (kind, place, target) = identity(wanted);
    let (kind_there, place_there, target_there) = identity(there);
    let same_target =
        target.is_none_or(|t| target_there.is_some_and(|u| t.trim_end_matches('/') == u.trim_end_matches('/')));
    kind == kind_there && same_target && place.is_none_or(|p| Some(p) == place_there)
}

pub(super) fn look_define(connect: &Connect, name: &str, definition: &str, autostart: bool) -> Result<Look, Fault> {
    let Some(pool) = find(connect, name)? else { return Ok(Look::Ready) };
    let there = description(&pool, name)?;
    if !fits(&xml::parse(definition, "read the pool's definition")?, &there) {
        let reason = format!("a pool `{name}` of another type, source or target is already defined");
        return Ok(Look::Refused { reason });
    }
    let persistent = pool.is_persistent().during(format!("read pool `{name}`"))?;
    let same = pool.autostart().during(format!("read pool `{name}`"))? == autostart;
    Ok(if persistent && same { Look::AlreadyDone } else { Look::Ready })
}

pub(super) fn define(connect: &Connect, name: &str, definition: &str, autostart: bool) -> Result<(), Fault> {
    let pool = match find(connect, name)? {
        Some(pool) if pool.is_persistent().during(format!("read pool `{name}`"))? => pool,
        _ => connect.define_storage_pool_xml(definition, 0).during(format!("define pool `{name}`"))?,
    };
    build(&pool, name)?;
    pool.set_autostart(autostart).during(format!("set the autostart of pool `{name}`"))
}

/// Makes the folder that the pool's volumes appear in. Other types are never built: `vgcreate` and partition tables
/// destroy what is on a device.
fn build(pool: &StoragePool, name: &str) -> Result<(), Fault> {
    let definition = description(pool, name)?;
    let makes_a_folder = matches!(definition.attribute("type"), Some("dir" | "fs" | "netfs"));
    if !makes_a_folder || pool.is_active().during(format!("read pool `{name}`"))? {
        return Ok(());
    }
    pool.build(0).during(format!("make the folder of pool `{name}`"))
}

pub(super) fn look_start(connect: &Connect, name: &str) -> Result<Look, Fault> {
    let Some(pool) = find(connect, name)? else {
        return Ok(Look::Refused { reason: format!("there is no pool `{name}`") });
    };
    let active = pool.is_active().during(format!("read pool `{name}`"))?;
    Ok(if active { Look::AlreadyDone } else { Look::Ready })
}

pub(super) fn start(connect: &Connect, name: &str) -> Result<(), Fault> {
    let pool = connect.lookup_storage_pool_by_name(name).during(format!("look pool `{name}` up"))?;
    if pool.is_active().during(format!("read pool `{name}`"))? {
        return Ok(());
    }
    // An earlier run may have ended between defining and building.
    build(&pool, name)?;
    pool.create(0).during(format!("start pool `{name}`"))
}

pub(super) fn look_autostart(connect: &Connect, name: &str, autostart: bool) -> Result<Look, Fault> {
    let Some(pool) = find(connect, name)? else {
        return Ok(Look::Refused { reason: format!("there is no pool `{name}`") });
    };
    let same = pool.autostart().during(format!("read pool `{name}`"))? == autostart;
    Ok(if same { Look::AlreadyDone } else { Look::Ready })
}

pub(super) fn set_autostart(connect: &Connect, name: &str, autostart: bool) -> Result<(), Fault> {
    let pool = connect.lookup_storage_pool_by_name(name).during(format!("look pool `{name}` up"))?;
    pool.set_autostart(autostart).during(format!("set the autostart of pool `{name}`"))
}

/// How long a marker that another host has just written is looked for. NFS clients keep what they know of a folder for up
/// to a minute (`acdirmax` in nfs(5)).
const SEEN_WITHIN: Duration = Duration::from_secs(65);

/// How often it is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Size of a marker: some pool types have no volume of nothing.
const MARKER_BYTES: u64 = 4096;

fn marker(id: Uuid) -> String {
    format!("{POOL_MARKER}{id}")
}

/// Whether an active pool, read anew, has one of these markers.
fn has_marker(connect: &Connect, name: &str, ids: &[Uuid]) -> Result<bool, Fault> {
    let pool = volume::active_pool(connect, name)?;
    for id in ids {
        if volume::find(&pool, &marker(*id))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn look_mark(connect: &Connect, name: &str, id: Uuid) -> Result<Look, Fault> {
    look_shared(connect, name, &[id])
}

pub(super) fn look_shared(connect: &Connect, name: &str, ids: &[Uuid]) -> Result<Look, Fault> {
    match has_marker(connect, name, ids) {
        Ok(true) => Ok(Look::AlreadyDone),
        Ok(false) => Ok(Look::Ready),
        Err(Fault::Refused { why, .. }) => Ok(Look::Refused { reason: why }),
        Err(fault) => Err(fault),
    }
}

pub(super) fn mark(connect: &Connect, name: &str, id: Uuid) -> Result<(), Fault> {
    let pool = volume::active_pool(connect, name)?;
    if volume::find(&pool, &marker(id))?.is_some() {
        return Ok(());
    }
    let definition = volume::definition(&marker(id), MARKER_BYTES, "raw", true, None);
    StorageVol::create_xml(&pool, &definition, 0).during(format!("write a marker into pool `{name}`")).map(drop)
}

/// Looks for another host's marker, for as long as a network file system may hide it. Where there is none, this host's own
/// is written, so that whoever looks later knows that they are not the same.
pub(super) fn verify_shared(
    connect: &Connect,
    name: &str,
    with: &str,
    ids: &[Uuid],
    own: Uuid,
    until: Instant,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<(), Fault> {
    let until = until.min(Instant::now() + patience(&description(&find_or_refuse(connect, name)?, name)?));
    loop {
        if has_marker(connect, name, ids)? {
            return Ok(());
        }
        if is_cancelled() {
            return Err(Fault::left(format!("stopped looking for the marker of host `{with}` in pool `{name}`")));
        }
        if Instant::now() + LOOK_AGAIN >= until {
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    mark(connect, name, own)?;
    Err(Fault::refused(
        format!(
            "pool `{name}` is not the same storage as on host `{with}`: the marker that was written there is not here"
        ),
        "mount the same storage on both hosts and refresh the pool (`virsh pool-refresh`), or take `shared: true` out of the StoragePool",
    ))
}

fn find_or_refuse(connect: &Connect, name: &str) -> Result<StoragePool, Fault> {
    find(connect, name)?
        .ok_or_else(|| Fault::refused(format!("there is no pool `{name}`"), "declare it on this host (StoragePool)"))
}

/// Only a folder that comes over the network may be slow to show what is in it. A folder may be one, mounted by hand.
fn patience(definition: &Element) -> Duration {
    match definition.attribute("type") {
        Some("netfs") => SEEN_WITHIN,
        _ => SEEN_WITHIN / 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_fits_when_what_was_asked_for_is_there() {
        let parse = |t: &str| crate::domain_xml::parse(t).unwrap();
        let wanted = parse(
            "<pool type='netfs'><name>p</name><source><host name='n'/><dir path='/x'/></source><target><path>/t</path></target></pool>",
        );
        let there = parse(
            "<pool type='netfs'><name>p</name><uuid>u</uuid><capacity unit='bytes'>0</capacity><source><host name='n'/><dir path='/x'/>
             <format type='auto'/></source><target><path>/t</path><permissions/></target></pool>",
        );
        assert!(fits(&wanted, &there));
        assert!(!fits(&parse("<pool type='dir'><target><path>/t</path></target></pool>"), &there));
        assert!(!fits(&parse("<pool type='netfs'><source><host name='m'/><dir path='/x'/></source></pool>"), &there));
        assert!(!fits(&parse("<pool type='netfs'><target><path>/other</path></target></pool>"), &there));
    }
}
