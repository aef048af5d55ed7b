//! A disk that goes to another pool of its host. A running machine's is mirrored for as long as its bytes take, and its
//! mirror stays where Drover dies meanwhile; that of a machine that is off is copied at once.

use super::act::{set_owner, volume_path, with_domain};
use super::look::{self, refused};
use super::state::State;
use crate::action::{DiskMove, DiskPlace};
use crate::domain_xml::{self, Element, Node, mirror_of_disk, path_of_disk};
use crate::observed::{DomainState, HALF_COPY, Progress, VolumeState};
use crate::provider::Look;
use std::time::Duration;
use uuid::Uuid;

/// Where the definitions of a machine have a disk.
fn places(domain: &DomainState, target: &str) -> Vec<Option<String>> {
    [&domain.live_xml, &domain.persistent_xml]
        .into_iter()
        .flatten()
        .map(|xml| Some(path_of_disk(&domain_xml::parse(xml).ok()?, target)?.to_owned()))
        .collect()
}

/// Whether the running machine's disk is being copied to a path.
fn is_copied_to(domain: &DomainState, target: &str, path: &str) -> bool {
    let live = domain.live_xml.as_deref().and_then(|xml| domain_xml::parse(xml).ok());
    live.and_then(|tree| mirror_of_disk(&tree, target)).is_some_and(|m| m.path.as_deref() == Some(path))
}

fn is_half(state: &State, host: &str, place: &DiskPlace) -> bool {
    let marker = format!("{}{HALF_COPY}", place.volume);
    state.volumes(host, &place.pool).is_some_and(|v| v.contains_key(&marker))
}

fn discard(state: &mut State, host: &str, place: &DiskPlace, with_volume: bool) {
    if let Some(volumes) = state.volumes_mut(host, &place.pool) {
        if with_volume {
            volumes.remove(&place.volume);
        }
        volumes.remove(&format!("{}{HALF_COPY}", place.volume));
    }
}

pub(super) fn look_cancel(state: &State, host: &str, uuid: Uuid, target: &str, to: &DiskPlace) -> Result<Look, Look> {
    let domain = look::domain(state, host, uuid)?;
    let is_there = places(domain, target).iter().any(|p| p.as_deref() == Some(&to.path));
    Ok(match is_copied_to(domain, target, &to.path) || is_half(state, host, to) && !is_there {
        true => Look::Ready,
        false => Look::AlreadyDone,
    })
}

pub(super) fn cancel(state: &mut State, host: &str, uuid: Uuid, target: &str, to: &DiskPlace) -> Result<(), String> {
    with_domain(state, host, uuid, |d| {
        let without = d.live_xml.as_deref().and_then(|xml| change_mirror(xml, target, None).ok());
        if let Some(xml) = without {
            d.live_xml = Some(xml);
        }
    })?;
    discard(state, host, to, true);
    Ok(())
}

/// Bytes a second that a copy without a limit makes.
const COPY_RATE: u64 = 100_000_000;

/// Begins to mirror a running machine's disk, or finds that under way: the bytes to copy. `None` where there is nothing
/// that takes time.
pub(super) fn begin(state: &mut State, m: &DiskMove) -> Result<Option<u64>, String> {
    let Some(domain) = state.domain(&m.host, m.uuid) else { return Ok(None) };
    let is_there = places(domain, &m.target).iter().all(|p| p.as_deref() == Some(&m.to.path));
    if !domain.is_active() || is_there {
        return Ok(None);
    }
    if !is_copied_to(domain, &m.target, &m.to.path) {
        let action = crate::action::MachineAction::MoveDisk(Box::new(m.clone()));
        if look::look(state, &action) != Look::Ready {
            return Ok(None);
        }
        leave_half(state, &m.host, m.uuid, &m.target, &m.to)?;
    }
    let from = m.from.as_ref().and_then(|from| state.volumes(&m.host, &from.pool)?.get(&from.volume));
    Ok(Some(from.map_or(0, |v| v.allocation)))
}

/// Whether the mirror is there still; where it is not (the machine went off), the half copy is removed.
pub(super) fn goes_on(state: &mut State, m: &DiskMove) -> bool {
    let goes_on = state.domain(&m.host, m.uuid).is_some_and(|d| is_copied_to(d, &m.target, &m.to.path));
    if !goes_on {
        discard(state, &m.host, &m.to, true);
    }
    goes_on
}

/// Bytes that a copy with a limit in MiB/s makes in a time.
#[expect(clippy::cast_precision_loss, reason = "a simulated copy needs no exact bytes")]
pub(super) fn copied(limit_mib: Option<u64>, elapsed: Duration) -> f64 {
    limit_mib.map_or(COPY_RATE, |mib| (mib << 20).min(COPY_RATE)) as f64 * elapsed.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
pub(super) fn is_copied(copied: f64, bytes: u64) -> bool {
    copied >= bytes as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and cut at the total")]
pub(super) fn progress(copied: f64, bytes: u64) -> Progress {
    let processed = (copied as u64).min(bytes);
    Progress {
        phase: "copying a disk".into(),
        processed,
        remaining: bytes - processed,
        total: bytes,
        ..Progress::default()
    }
}

/// What a Drover leaves that dies while it copies a disk: the mirror in what runs, the new volume and its marker.
pub(super) fn leave_half(
    state: &mut State,
    host: &str,
    uuid: Uuid,
    target: &str,
    to: &DiskPlace,
) -> Result<(), String> {
    let domain = state.domain(host, uuid).ok_or("Domain not found")?;
    let live = domain.live_xml.as_deref().ok_or("domain is not running")?;
    let live = change_mirror(live, target, Some(&to.path))?;
    with_domain(state, host, uuid, |d| d.live_xml = Some(live))?;
    let volumes = state.volumes_mut(host, &to.pool).ok_or("Storage pool not found")?;
    for name in [to.volume.clone(), format!("{}{HALF_COPY}", to.volume)] {
        let path = to.path.replace(&to.volume, &name);
        volumes.insert(name, VolumeState { path, format: "raw".into(), ..VolumeState::default() });
    }
    Ok(())
}

fn change_mirror(xml: &str, target: &str, path: Option<&str>) -> Result<String, String> {
    super::define::change(xml, |root| {
        let mut disks = root.ensure("devices").elements_mut().filter(|d| d.name == "disk");
        let Some(disk) = disks.find(|d| d.attribute_at("target", "dev") == Some(target)) else { return };
        disk.remove("mirror");
        if let Some(path) = path {
            let mirror = Element::new("mirror").with("type", "file").with("job", "copy");
            let mirror = mirror.child(Element::new("source").with("file", path));
            disk.children.push(Node::Element(mirror));
        }
    })
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
        let done = domain.owner.as_ref() == Some(&m.owner)
            && !is_half(state, &m.host, &m.to)
            && !(m.delete_source && left(state).is_some());
        return Ok(if done { Look::AlreadyDone } else { Look::Ready });
    }
    look::not_moving(domain)?;
    if is_copied_to(domain, &m.target, &m.to.path) {
        return Ok(Look::Running);
    }
    let Some(from) = m.from.as_ref().filter(|f| all_at(&f.path)) else {
        return Err(refused(format!("disk `{}` of `{}` is elsewhere now", m.target, domain.name)));
    };
    if domain.managed_save || domain.snapshots > 0 {
        return Err(refused(format!("`{}` has a saved memory image or snapshots", domain.name)));
    }
    if !look::active_pool(state, &m.host, &from.pool)?.contains_key(&from.volume) {
        return Err(refused(format!("pool `{}` on `{}` has no volume `{}`", from.pool, m.host, from.volume)));
    }
    let there = look::active_pool(state, &m.host, &m.to.pool)?.contains_key(&m.to.volume);
    if there && !is_half(state, &m.host, &m.to) {
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
        let source = state.volumes(&m.host, &from.pool).and_then(|v| v.get(&from.volume)).cloned();
        if let Some(source) = source {
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
    discard(state, &m.host, &m.to, false);
    if let Some(from) = m.from.as_ref().filter(|_| m.delete_source)
        && let Some(volumes) = state.volumes_mut(&m.host, &from.pool)
    {
        volumes.remove(&from.volume);
    }
    Ok(())
}
