//! Carries single actions out on the state, with libvirt's semantics. Migrations and shutdowns take time and are in
//! files of their own.

use super::define::{self, Devices};
use super::disk;
use super::look;
use super::state::State;
use crate::action::{LiveChange, MachineAction};
use crate::domain_xml::{self, apply};
use crate::observed::{DomainState, PoolState, RunState, VolumeState};
use crate::provider::{ActError, Look};
use uuid::Uuid;

/// Capacity of a simulated pool, in bytes.
const POOL_CAPACITY: u64 = 1 << 40;

/// Size of an image in a world that has every image, in bytes.
const ANY_IMAGE: u64 = 2 << 30;

/// What the hypervisor says when it does not do something.
pub(super) fn says(host: &str, message: impl std::fmt::Display) -> ActError {
    ActError::permanent(format!("{host}: {message}"))
}

/// Does it. What is done already is no error; what must not be done is noted for ever and refused.
pub(super) fn act(state: &mut State, action: &MachineAction) -> Result<(), ActError> {
    match look::look(state, action) {
        Look::AlreadyDone | Look::Running => return Ok(()),
        Look::Ready => {}
        Look::Refused { reason } => {
            state.violations.push(format!("{}: {reason}", action.name()));
            return Err(ActError::permanent(format!("{}: {reason}", action.name())));
        }
    }
    let host = action.hosts().first().copied().unwrap_or_default().to_owned();
    let result = mutate(state, action, &host);
    state.audit();
    result.map_err(|message| says(&host, message))
}

fn mutate(state: &mut State, action: &MachineAction, host: &str) -> Result<(), String> {
    use MachineAction as A;
    match action {
        A::DefineStoragePool { pool, xml, autostart, .. } => define_pool(state, host, pool, xml, *autostart),
        A::StartStoragePool { pool, .. } => with_pool(state, host, pool, |p| p.active = true),
        A::SetStoragePoolAutostart { pool, autostart, .. } => {
            with_pool(state, host, pool, |p| p.autostart = *autostart)
        }
        A::MarkStoragePool { pool, marker, .. } => state.put_marker(host, pool, *marker),
        A::VerifySharedPool { pool, with, own, .. } => {
            // Not found: `look` would have said so.
            state.put_marker(host, pool, *own)?;
            Err(format!("pool `{pool}` is not the same storage as on host `{with}`"))
        }
        A::MoveDisk(m) => disk::act(state, m),
        A::CancelDiskMove { uuid, target, to, .. } => disk::cancel(state, host, *uuid, target, to),
        A::CreateVolume { pool, volume, capacity, format, image, backing, .. } => {
            let of = |s: &State, source: &crate::action::ImageSource| {
                let found = s.volumes(host, &source.pool).and_then(|v| v.get(&source.volume)).cloned();
                found.unwrap_or_else(|| VolumeState {
                    path: volume_path(s, host, &source.pool, &source.volume),
                    format: "qcow2".into(),
                    capacity: ANY_IMAGE,
                    allocation: ANY_IMAGE / 4,
                    backing: None,
                })
            };
            let image = image.as_ref().map(|i| of(state, i));
            let backing = backing.as_ref().map(|b| of(state, b).path);
            // 0: as large as the image.
            let capacity = if *capacity == 0 { image.as_ref().map_or(0, |i| i.capacity) } else { *capacity };
            if let Some(image) = image.as_ref().filter(|i| i.capacity > capacity) {
                return Err(format!("the image has {} bytes, more than the volume's {capacity}", image.capacity));
            }
            let path = volume_path(state, host, pool, volume);
            let empty = if format == "raw" { capacity } else { 196_616 };
            let allocation = image.map_or(empty, |i| i.allocation);
            let made = VolumeState { path, format: format.clone(), capacity, allocation, backing };
            let volumes = state.volumes_mut(host, pool).ok_or("Storage pool not found")?;
            volumes.insert(volume.clone(), made);
            Ok(())
        }
        A::ResizeVolume { pool, volume, capacity, .. } => {
            let there = state.volumes_mut(host, pool).and_then(|v| v.get_mut(volume));
            there.ok_or("Storage volume not found")?.capacity = *capacity;
            Ok(())
        }
        A::DeleteVolume { pool, volume, .. } => {
            state.volumes_mut(host, pool).ok_or("Storage pool not found")?.remove(volume);
            Ok(())
        }
        A::DefineDomain { name, uuid, xml, .. } => {
            let xml = define::fill_in(xml, state.host(host).ok_or("no such host")?)?;
            if define::identity(&xml)? != (name.clone(), *uuid) {
                return Err("the definition is of another machine than the action".into());
            }
            let domain = off(name.clone(), *uuid, xml);
            state.put_domain(host, domain);
            Ok(())
        }
        A::UpdateDomain { uuid, edits, .. } => update(state, host, *uuid, edits),
        A::SetOwner { uuid, owner, .. } => set_owner(state, host, *uuid, Some(owner)),
        A::RemoveOwner { uuid, .. } => set_owner(state, host, *uuid, None),
        A::SetMoves { uuid, moves, .. } => set_moves(state, host, *uuid, moves),
        A::AbortMigration(m) => {
            state.abort(m.uuid, "canceled by client");
            super::migrate::clean(state, m.uuid);
            Ok(())
        }
        A::RenameDomain { uuid, name, .. } => {
            let mut domain = state.domain(host, *uuid).cloned().ok_or("Domain not found")?;
            if let Some(xml) = &domain.persistent_xml {
                domain.persistent_xml = Some(define::change(xml, |root| root.ensure("name").set_text(name.clone()))?);
            }
            domain.name.clone_from(name);
            state.put_domain(host, domain);
            Ok(())
        }
        A::ChangeLive { uuid, change, .. } => change_live(state, host, *uuid, change),
        A::SetAutostart { uuid, autostart, .. } => with_domain(state, host, *uuid, |d| d.autostart = *autostart),
        A::StartDomain { uuid, paused, .. } => start(state, host, *uuid, *paused),
        A::ResumeDomain { uuid, .. } => with_domain(state, host, *uuid, |d| {
            d.state = RunState::Running;
            d.reason = "unpaused".into();
        }),
        A::PauseDomain { uuid, .. } => with_domain(state, host, *uuid, |d| {
            d.state = RunState::Paused;
            d.reason = "user".into();
        }),
        A::UndefineDomain { uuid, .. } => {
            state.remove_domain(host, *uuid);
            Ok(())
        }
        A::ShutdownDomain { .. } | A::MigrateVirtualMachine(_) | A::AwaitMigration { .. } => {
            Err("this takes time and is carried out elsewhere".into())
        }
    }
}

/// A domain that was just defined.
fn off(name: String, uuid: Uuid, xml: String) -> DomainState {
    DomainState {
        owner: define::owner(&xml),
        persistent_xml: Some(xml),
        ..DomainState::new(name, uuid, RunState::Off, "unknown".into(), true)
    }
}

fn with_pool(state: &mut State, host: &str, pool: &str, work: impl FnOnce(&mut PoolState)) -> Result<(), String> {
    let pools = state.hosts.get_mut(host).map(|h| &mut h.state.pools);
    work(pools.and_then(|p| p.get_mut(pool)).ok_or("Storage pool not found")?);
    Ok(())
}

pub(super) fn with_domain(
    state: &mut State,
    host: &str,
    uuid: Uuid,
    work: impl FnOnce(&mut DomainState),
) -> Result<(), String> {
    work(state.domain_mut(host, uuid).ok_or("Domain not found")?);
    Ok(())
}

/// Where a volume of a pool is.
pub(super) fn volume_path(state: &State, host: &str, pool: &str, volume: &str) -> String {
    let target = state.host(host).and_then(|h| h.pools.get(pool)).and_then(|p| p.target.as_deref());
    format!("{}/{volume}", target.unwrap_or("/dev").trim_end_matches('/'))
}

fn define_pool(state: &mut State, host: &str, pool: &str, xml: &str, autostart: bool) -> Result<(), String> {
    let target = domain_xml::parse(xml).map_err(|e| format!("XML error: {e}"))?.text_at("target/path");
    let uuid = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("sim-pool:{host}/{pool}").as_bytes()).to_string();
    let xml = define::change(xml, |root| {
        root.ensure("name").set_text(pool);
        root.ensure("uuid").set_text(uuid.clone());
    })?;
    let active = state.host(host).and_then(|h| h.pools.get(pool)).is_some_and(|p| p.active);
    let made = PoolState {
        uuid,
        active,
        persistent: true,
        autostart,
        xml,
        target,
        capacity: POOL_CAPACITY,
        available: POOL_CAPACITY,
        ..PoolState::default()
    };
    state.hosts.get_mut(host).ok_or("no such host")?.state.pools.insert(pool.to_owned(), made);
    Ok(())
}

/// A running domain keeps its live definition; a transient one becomes persistent.
fn update(state: &mut State, host: &str, uuid: Uuid, edits: &[crate::domain_xml::Edit]) -> Result<(), String> {
    let machine = state.host(host).ok_or("no such host")?;
    let domain = state.domain(host, uuid).ok_or("Domain not found")?;
    let from = domain.persistent_xml.as_ref().or(domain.live_xml.as_ref()).ok_or("Domain not found")?;
    // Edits are made for the definition as it was read; what only a running domain has goes when it is defined.
    let xml = define::fill_in(&apply(from, edits).map_err(|e| format!("XML error: {e}"))?, machine)?;
    let (name, id) = define::identity(&xml)?;
    if id != uuid || name != domain.name {
        return Err(format!("domain '{}' is already defined with uuid {uuid}", domain.name));
    }
    let mark = define::owner(&xml);
    with_domain(state, host, uuid, |d| {
        if !d.is_active() {
            d.owner = mark;
        }
        d.persistent_xml = Some(xml);
        d.persistent = true;
    })
}

pub(super) fn set_owner(
    state: &mut State,
    host: &str,
    uuid: Uuid,
    mark: Option<&crate::observed::OwnerMark>,
) -> Result<(), String> {
    let domain = state.domain_mut(host, uuid).ok_or("Domain not found")?;
    for xml in [&mut domain.live_xml, &mut domain.persistent_xml].into_iter().flatten() {
        *xml = define::set_owner(xml, mark)?;
    }
    domain.owner = mark.cloned();
    Ok(())
}

/// Writes marks of moves into every definition that there is.
pub(super) fn set_moves(
    state: &mut State,
    host: &str,
    uuid: Uuid,
    moves: &[crate::observed::MoveMark],
) -> Result<(), String> {
    let domain = state.domain_mut(host, uuid).ok_or("Domain not found")?;
    for xml in [&mut domain.live_xml, &mut domain.persistent_xml].into_iter().flatten() {
        *xml = define::set_moves(xml, moves)?;
    }
    Ok(())
}

fn change_live(state: &mut State, host: &str, uuid: Uuid, change: &LiveChange) -> Result<(), String> {
    let live = state.domain(host, uuid).and_then(|d| d.live_xml.clone()).ok_or("domain is not running")?;
    let changed = match change {
        LiveChange::Vcpus { count } => define::change(&live, |root| {
            let vcpu = root.ensure("vcpu");
            if vcpu.text() == count.to_string() {
                vcpu.unset("current");
            } else {
                vcpu.set("current", count.to_string());
            }
        })?,
        LiveChange::Memory { kib } => {
            define::change(&live, |root| root.ensure("currentMemory").set_text(kib.to_string()))?
        }
        LiveChange::Attach { xml } => {
            let device = domain_xml::Element::new("domain")
                .child(domain_xml::Element::new("devices").child(domain_xml::parse(xml).map_err(|e| e.to_string())?));
            for disk in domain_xml::local_disks(&device.to_xml()) {
                if state.misses_file(host, &disk.path) {
                    return Err(format!("Cannot access storage file '{}': No such file or directory", disk.path));
                }
            }
            Devices::read(&live, xml)?.attach()
        }
        LiveChange::Detach { xml } => Devices::read(&live, xml)?.detach(),
        LiveChange::Update { xml } => Devices::read(&live, xml)?.update(),
    };
    with_domain(state, host, uuid, |d| d.live_xml = Some(changed))
}

fn start(state: &mut State, host: &str, uuid: Uuid, paused: bool) -> Result<(), String> {
    let machine = state.host(host).ok_or("no such host")?;
    let id = machine.domains.iter().filter(|d| d.is_active()).count() as u64 + 1;
    let domain = state.domain(host, uuid).ok_or("Domain not found")?;
    let xml = domain.persistent_xml.clone().ok_or("Domain not found")?;
    for disk in domain_xml::local_disks(&xml) {
        if state.misses_file(host, &disk.path) {
            return Err(format!("Cannot access storage file '{}': No such file or directory", disk.path));
        }
    }
    for network in domain_xml::networks(&xml) {
        match machine.networks.get(&network) {
            Some(true) => {}
            Some(false) => return Err(format!("network '{network}' is not active")),
            None => return Err(format!("Network not found: no network with matching name '{network}'")),
        }
    }
    let live = define::live(&xml, id, machine.cpu.as_ref())?;
    with_domain(state, host, uuid, |d| {
        d.owner = define::owner(&live);
        d.live_xml = Some(live);
        d.managed_save = false;
        (d.state, d.reason) =
            if paused { (RunState::Paused, "user".into()) } else { (RunState::Running, "booted".into()) };
    })
}
