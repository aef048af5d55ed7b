//! A disk that goes to another pool of its host. In the simulation the copy takes no time.

use super::act::{set_owner, volume_path, with_domain};
use super::look::{self, refused};
use super::state::State;
use crate::action::DiskMove;
use crate::domain_xml::{self, path_of_disk};
use crate::observed::{DomainState, VolumeState};
use crate::provider::Look;

/// Where the definitions of a machine have a disk.
fn places(domain: &DomainState, target: &str) -> Vec<Option<String>> {
    [&domain.live_xml, &domain.persistent_xml]
        .into_iter()
        .flatten()
        .map(|xml| Some(path_of_disk(&domain_xml::parse(xml).ok()?, target)?.to_owned()))
        .collect()
}

pub(super) fn look(state: &State, m: &DiskMove) -> Result<Look, Look> {
    let domain = look::domain(state, &m.host, m.uuid)?;
    let places = places(domain, &m.target);
    let all_at = |path: &str| places.iter().all(|p| p.as_deref() == Some(path));
    let left = |state: &State| {
        let from = m.from.as_ref()?;
        state.volumes(&m.host, &from.pool)?.get(&from.volume).filter(|v| v.path == from.path).map(drop)
    };
    if all_at(&m.to.path) {
        let done = domain.owner.as_ref() == Some(&m.owner) && !(m.delete_source && left(state).is_some());
        return Ok(if done { Look::AlreadyDone } else { Look::Ready });
    }
    look::not_moving(domain)?;
    let Some(from) = m.from.as_ref().filter(|f| all_at(&f.path)) else {
        return Err(refused(format!("disk `{}` of `{}` is elsewhere now", m.target, domain.name)));
    };
    if domain.managed_save || domain.snapshots > 0 {
        return Err(refused(format!("`{}` has a saved memory image or snapshots", domain.name)));
    }
    if !look::active_pool(state, &m.host, &from.pool)?.contains_key(&from.volume) {
        return Err(refused(format!("pool `{}` on `{}` has no volume `{}`", from.pool, m.host, from.volume)));
    }
    if look::active_pool(state, &m.host, &m.to.pool)?.contains_key(&m.to.volume) {
        return Err(refused(format!("pool `{}` on `{}` has a volume `{}` already", m.to.pool, m.host, m.to.volume)));
    }
    let key = state.storage_key(&m.host, &from.pool).unwrap_or_default();
    match state.users_of(&key, &from.path).as_slice() {
        [_] => Ok(Look::Ready),
        users => Err(refused(format!("volume `{}` is a disk of {}", from.volume, users.join(", ")))),
    }
}

pub(super) fn act(state: &mut State, m: &DiskMove) -> Result<(), String> {
    let path = volume_path(state, &m.host, &m.to.pool, &m.to.volume);
    if path != m.to.path {
        return Err(format!("volume `{}` comes to be at {path} and not at {}", m.to.volume, m.to.path));
    }
    if let Some(from) = &m.from {
        let there = state.volumes(&m.host, &m.to.pool).is_some_and(|v| v.contains_key(&m.to.volume));
        let source = state.volumes(&m.host, &from.pool).and_then(|v| v.get(&from.volume)).cloned();
        if !there {
            let source = source.ok_or("Storage volume not found")?;
            let copy = VolumeState { path, format: m.format.clone(), backing: None, ..source };
            let volumes = state.volumes_mut(&m.host, &m.to.pool).ok_or("Storage pool not found")?;
            volumes.insert(m.to.volume.clone(), copy);
        }
    }
    let moved = |xml: &Option<String>| -> Result<Option<String>, String> {
        let Some(xml) = xml else { return Ok(None) };
        let moved = domain_xml::with_disk_at(xml, &m.target, &m.to.path, m.block, &m.format);
        moved.map_err(|e| format!("XML error: {e}"))?.ok_or_else(|| format!("disk '{}' not found", m.target)).map(Some)
    };
    let domain = state.domain(&m.host, m.uuid).ok_or("Domain not found")?;
    let (live, persistent) = (moved(&domain.live_xml)?, moved(&domain.persistent_xml)?);
    with_domain(state, &m.host, m.uuid, |d| (d.live_xml, d.persistent_xml) = (live, persistent))?;
    set_owner(state, &m.host, m.uuid, Some(&m.owner))?;
    if let Some(from) = m.from.as_ref().filter(|_| m.delete_source)
        && let Some(volumes) = state.volumes_mut(&m.host, &from.pool)
    {
        volumes.remove(&from.volume);
    }
    Ok(())
}
