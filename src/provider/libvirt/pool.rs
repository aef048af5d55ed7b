//! Storage pools: defined, built, started. They are never undefined: libvirt keeps no mark
//! on a pool that would tell whose it is. What is in a pool is never touched here.

use super::error::{During, Fault};
use super::xml;
use crate::domain_xml::Element;
use crate::provider::Look;
use virt::connect::Connect;
use virt::storage_pool::StoragePool;

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
