//! What an action would meet: its outcome, the way free, something under way, or a precondition that does not hold.

use super::define::{self, Devices};
use super::disk;
use super::state::State;
use crate::action::{DomainXmlEdit, LiveChange, MachineAction, Migration, MigrationWay};
use crate::domain_xml::{self, apply, digest};
use crate::observed::{DomainState, HostState, JobOperation, RunState};
use crate::provider::Look;
use uuid::Uuid;

pub(super) fn refused(reason: impl Into<String>) -> Look {
    Look::Refused { reason: reason.into() }
}

fn done_if(condition: bool) -> Look {
    if condition { Look::AlreadyDone } else { Look::Ready }
}

/// Looks, and changes nothing.
pub(super) fn look(state: &State, action: &MachineAction) -> Look {
    for host in action.hosts() {
        if state.host(host).is_none() {
            return refused(format!("there is no simulated host `{host}`"));
        }
    }
    look_at(state, action).unwrap_or_else(|refusal| refusal)
}

/// `Err` carries a refusal too: it lets a missing thing end the judgement with `?`.
fn look_at(state: &State, action: &MachineAction) -> Result<Look, Look> {
    use MachineAction as A;
    Ok(match action {
        A::DefineStoragePool { host, pool, xml, autostart } => define_pool(state, host, pool, xml, *autostart),
        A::StartStoragePool { host, pool } => {
            let there = state.host(host).and_then(|h| h.pools.get(pool));
            done_if(there.ok_or_else(|| refused(format!("`{host}` has no storage pool `{pool}`")))?.active)
        }
        A::SetStoragePoolAutostart { host, pool, autostart } => {
            let there = state.host(host).and_then(|h| h.pools.get(pool));
            let there = there.ok_or_else(|| refused(format!("`{host}` has no storage pool `{pool}`")))?;
            done_if(there.autostart == *autostart)
        }
        A::MarkStoragePool { host, pool, marker } => {
            active_pool(state, host, pool)?;
            done_if(state.markers(host, pool).contains(marker))
        }
        A::VerifySharedPool { host, pool, markers, .. } => {
            active_pool(state, host, pool)?;
            let there = state.markers(host, pool);
            done_if(markers.iter().any(|id| there.contains(id)))
        }
        A::MoveDisk(m) => disk::look(state, m)?,
        A::CancelDiskMove { host, uuid, target, to } => disk::look_cancel(state, host, *uuid, target, to)?,
        A::CreateVolume { host, pool, volume, capacity, format, image, backing } => {
            let volumes = active_pool(state, host, pool)?;
            if let Some(there) = volumes.get(volume) {
                return Ok(if there.capacity >= *capacity && there.format == *format {
                    Look::AlreadyDone
                } else {
                    refused(format!(
                        "pool `{pool}` on `{host}` has a volume `{volume}` already, {} of {} bytes, and it is not overwritten",
                        there.format, there.capacity
                    ))
                });
            }
            for source in [image, backing].into_iter().flatten() {
                let has = state.volumes(host, &source.pool).is_some_and(|v| v.contains_key(&source.volume));
                if !has && !state.has_every_image {
                    return Ok(refused(format!("pool `{}` on `{host}` has no image `{}`", source.pool, source.volume)));
                }
            }
            Look::Ready
        }
        A::ResizeVolume { host, pool, volume, capacity, running } => {
            let volumes = active_pool(state, host, pool)?;
            let there = volumes.get(volume);
            let there = there.ok_or_else(|| refused(format!("pool `{pool}` on `{host}` has no volume `{volume}`")))?;
            if there.capacity >= *capacity {
                return Ok(Look::AlreadyDone);
            }
            let holder = running_on(state, host, &there.path);
            match (running, holder) {
                (Some((uuid, _)), Some(holder)) if *uuid == holder.uuid => {
                    not_moving(holder)?;
                    Look::Ready
                }
                (None, None) => Look::Ready,
                (_, Some(holder)) => refused(format!("`{}` runs on volume `{volume}`", holder.name)),
                (Some(_), None) => refused(format!("the machine that had volume `{volume}` does not run any more")),
            }
        }
        A::DeleteVolume { host, pool, volume, path } => {
            let volumes = active_pool(state, host, pool)?;
            let Some(there) = volumes.get(volume) else { return Ok(Look::AlreadyDone) };
            if there.path != *path {
                return Ok(refused(format!("volume `{volume}` is at {} now, not at {path}", there.path)));
            }
            let key = state.storage_key(host, pool).unwrap_or_default();
            match state.users_of(&key, path).as_slice() {
                [] => Look::Ready,
                users => refused(format!("volume `{volume}` is a disk of {}", users.join(", "))),
            }
        }
        A::DefineDomain { host, name, uuid, xml } => define_domain(state, host, name, *uuid, xml),
        A::UpdateDomain { host, uuid, edits, expect } => {
            let domain = domain(state, host, *uuid)?;
            not_moving(domain)?;
            let host = state.host(host).ok_or_else(|| refused(format!("there is no simulated host `{host}`")))?;
            update(host, domain, edits, expect)
        }
        A::SetOwner { host, uuid, owner } => {
            let domain = domain(state, host, *uuid)?;
            if definitions(domain).all(|xml| define::owner(xml).as_ref() == Some(owner)) {
                return Ok(Look::AlreadyDone);
            }
            not_moving(domain)?;
            Look::Ready
        }
        A::RemoveOwner { host, uuid } => {
            let Some(domain) = state.domain(host, *uuid) else { return Ok(Look::AlreadyDone) };
            if definitions(domain).all(|xml| define::owner(xml).is_none()) {
                return Ok(Look::AlreadyDone);
            }
            not_moving(domain)?;
            Look::Ready
        }
        A::SetMoves { host, uuid, moves } => {
            let domain = domain(state, host, *uuid)?;
            let same = |xml: &String| define::set_moves(xml, moves).is_ok_and(|with| with == *xml);
            if definitions(domain).all(same) {
                return Ok(Look::AlreadyDone);
            }
            not_moving(domain)?;
            Look::Ready
        }
        A::RenameDomain { host, uuid, name } => {
            let domain = domain(state, host, *uuid)?;
            if domain.name == *name {
                return Ok(Look::AlreadyDone);
            }
            if domain.is_active() {
                return Ok(refused(format!("`{}` runs; only a machine that is off is renamed", domain.name)));
            }
            free_name(state, host, name, *uuid)?;
            Look::Ready
        }
        A::ChangeLive { host, uuid, change } => {
            let domain = domain(state, host, *uuid)?;
            not_moving(domain)?;
            let xml = domain.live_xml.as_deref();
            live_change(xml.ok_or_else(|| refused(format!("`{}` does not run", domain.name)))?, change)
        }
        A::SetAutostart { host, uuid, autostart } => {
            let domain = domain(state, host, *uuid)?;
            if domain.autostart == *autostart {
                return Ok(Look::AlreadyDone);
            }
            not_moving(domain)?;
            if !domain.persistent {
                return Ok(refused(format!("cannot set autostart for transient domain `{}`", domain.name)));
            }
            Look::Ready
        }
        A::StartDomain { host, uuid, paused } => {
            let domain = domain(state, host, *uuid)?;
            not_moving(domain)?;
            match domain.state {
                RunState::Off | RunState::Crashed => Look::Ready,
                RunState::Paused if *paused => Look::AlreadyDone,
                RunState::Running if !*paused => Look::AlreadyDone,
                other => refused(format!("`{}` is not off but {other:?}", domain.name)),
            }
        }
        A::ResumeDomain { host, uuid } => {
            let domain = domain(state, host, *uuid)?;
            not_moving(domain)?;
            match domain.state {
                RunState::Running => Look::AlreadyDone,
                RunState::Paused => Look::Ready,
                other => refused(format!("`{}` is not paused but {other:?}", domain.name)),
            }
        }
        A::PauseDomain { host, uuid } => {
            let domain = domain(state, host, *uuid)?;
            not_moving(domain)?;
            match domain.state {
                RunState::Paused => Look::AlreadyDone,
                RunState::Running => Look::Ready,
                other => refused(format!("`{}` does not run but is {other:?}", domain.name)),
            }
        }
        A::ShutdownDomain { host, uuid, .. } => {
            let Some(domain) = state.domain(host, *uuid) else { return Ok(Look::AlreadyDone) };
            not_moving(domain)?;
            done_if(!domain.is_active())
        }
        A::UndefineDomain { host, uuid, .. } => {
            let Some(domain) = state.domain(host, *uuid) else { return Ok(Look::AlreadyDone) };
            not_moving(domain)?;
            if domain.is_active() {
                return Ok(refused(format!("`{}` on `{host}` is not off", domain.name)));
            }
            if domain.managed_save || domain.snapshots > 0 {
                let what = if domain.managed_save { "a saved memory image" } else { "snapshots" };
                return Ok(refused(format!("`{}` on `{host}` has {what}", domain.name)));
            }
            Look::Ready
        }
        A::MigrateVirtualMachine(m) => migration(state, m)?,
        A::AbortMigration(m) => match state.domain(&m.from, m.uuid) {
            Some(d) if leaves(d) => Look::Ready,
            _ => Look::AlreadyDone,
        },
        A::AwaitMigration { host, uuid } => match state.domain(host, *uuid) {
            Some(d) if leaves(d) => Look::Running,
            _ => Look::AlreadyDone,
        },
    })
}

pub(super) fn domain<'s>(state: &'s State, host: &str, uuid: Uuid) -> Result<&'s DomainState, Look> {
    state.domain(host, uuid).ok_or_else(|| refused(format!("`{host}` has no domain {uuid}")))
}

pub(super) fn not_moving(domain: &DomainState) -> Result<(), Look> {
    if domain.is_in_migration() { Err(refused(format!("`{}` is being migrated", domain.name))) } else { Ok(()) }
}

fn definitions(domain: &DomainState) -> impl Iterator<Item = &String> {
    [&domain.live_xml, &domain.persistent_xml].into_iter().flatten()
}

pub(super) fn leaves(domain: &DomainState) -> bool {
    domain.job.as_ref().is_some_and(|j| j.operation == JobOperation::MigrationOut)
}

fn arrives(domain: &DomainState) -> bool {
    domain.is_in_migration() && !leaves(domain)
}

fn free_name(state: &State, host: &str, name: &str, uuid: Uuid) -> Result<(), Look> {
    let domains = state.host(host).into_iter().flat_map(|h| &h.domains);
    match domains.into_iter().find(|d| d.name == name && d.uuid != uuid) {
        Some(other) => Err(refused(format!("domain '{name}' already exists on `{host}` with uuid {}", other.uuid))),
        None => Ok(()),
    }
}

pub(super) type Volumes = std::collections::BTreeMap<String, crate::observed::VolumeState>;

pub(super) fn active_pool<'s>(state: &'s State, host: &str, pool: &str) -> Result<&'s Volumes, Look> {
    let there = state.host(host).and_then(|h| h.pools.get(pool));
    match there {
        None => Err(refused(format!("`{host}` has no storage pool `{pool}`"))),
        Some(p) if !p.active => Err(refused(format!("storage pool `{pool}` on `{host}` is not active"))),
        Some(_) => state
            .volumes(host, pool)
            .ok_or_else(|| refused(format!("storage pool `{pool}` on `{host}` cannot be read"))),
    }
}

fn running_on<'s>(state: &'s State, host: &str, path: &str) -> Option<&'s DomainState> {
    let has = |d: &&DomainState| d.live_xml.as_deref().is_some_and(|x| domain_xml::disk_target(x, path).is_some());
    state.host(host)?.domains.iter().find(has)
}

fn define_pool(state: &State, host: &str, pool: &str, xml: &str, autostart: bool) -> Look {
    let Ok(want) = domain_xml::parse(xml) else { return refused("the pool's definition is not XML") };
    let pools = state.host(host).map(|h| &h.pools);
    if let Some(there) = pools.and_then(|p| p.get(pool)) {
        let same = domain_xml::parse(&there.xml).is_ok_and(|have| define::covers(&have, &want));
        return if !same {
            refused(format!("`{host}` has another storage pool `{pool}`"))
        } else {
            done_if(there.persistent && there.autostart == autostart)
        };
    }
    let target = want.text_at("target/path");
    match pools.into_iter().flatten().find(|(_, p)| target.is_some() && p.target == target) {
        Some((other, _)) => refused(format!("storage source conflict with pool '{other}' on `{host}`")),
        None => Look::Ready,
    }
}

fn define_domain(state: &State, host: &str, name: &str, uuid: Uuid, xml: &str) -> Look {
    if let Err(taken) = free_name(state, host, name, uuid) {
        return taken;
    }
    let Some(there) = state.domain(host, uuid) else { return Look::Ready };
    let wanted = state.host(host).and_then(|h| define::fill_in(xml, h).ok());
    let same = |have: &String| match (domain_xml::parse(have), wanted.as_deref().map(domain_xml::parse)) {
        (Ok(have), Some(Ok(want))) => define::covers(&have, &want),
        _ => false,
    };
    if there.name == name && there.persistent_xml.as_ref().is_some_and(same) {
        Look::AlreadyDone
    } else {
        refused(format!("`{host}` has a domain {uuid} already: `{}`", there.name))
    }
}

fn update(host: &HostState, domain: &DomainState, edits: &[DomainXmlEdit], expect: &str) -> Look {
    let Some(xml) = &domain.persistent_xml else {
        return match &domain.live_xml {
            Some(_) if expect.is_empty() => Look::Ready,
            _ => refused(format!("`{}` has no persistent definition", domain.name)),
        };
    };
    if edits.iter().all(|edit| holds(host, xml, edit)) {
        Look::AlreadyDone
    } else if digest(xml) == expect {
        match apply(xml, edits) {
            Ok(_) => Look::Ready,
            Err(e) => refused(format!("`{}`: {e}", domain.name)),
        }
    } else {
        refused(format!("the definition of `{}` was changed since the plan was made", domain.name))
    }
}

/// Whether a definition is as an edit would leave it, once libvirt has filled in what an edit does not say.
fn holds(host: &HostState, xml: &str, edit: &DomainXmlEdit) -> bool {
    let Ok(after) = apply(xml, std::slice::from_ref(edit)) else { return false };
    match edit {
        DomainXmlEdit::Add { .. } => match (domain_xml::parse(xml), domain_xml::parse(&after)) {
            (Ok(have), Ok(want)) => define::covers(&have, &want),
            _ => false,
        },
        _ => define::fill_in(&after, host).is_ok_and(|after| after == xml),
    }
}

/// Whether a definition is another one than an update expected. Edits that add something cannot always be told from what
/// they left; that it is not what it was can.
pub(super) fn was_updated(state: &State, action: &MachineAction) -> bool {
    let MachineAction::UpdateDomain { host, uuid, expect, .. } = action else { return false };
    let definition = state.domain(host, *uuid).and_then(|d| d.persistent_xml.as_deref());
    definition.is_some_and(|xml| digest(xml) != *expect)
}

fn live_change(xml: &str, change: &LiveChange) -> Look {
    let found = |device: &str| Devices::read(xml, device).map(|d| d.find());
    match change {
        LiveChange::Vcpus { count } => match define::vcpus(xml) {
            Some((now, _)) if now == *count => Look::AlreadyDone,
            Some((_, most)) if *count <= most && *count > 0 => Look::Ready,
            other => refused(format!("{count} vCPUs cannot be set where {} are the most", other.unwrap_or_default().1)),
        },
        LiveChange::Memory { kib } => match define::memory_kib(xml) {
            Some((now, _)) if now == *kib => Look::AlreadyDone,
            Some((_, most)) if *kib <= most => Look::Ready,
            other => refused(format!("{kib} KiB cannot be set where {} are the most", other.unwrap_or_default().1)),
        },
        LiveChange::Attach { xml: device } => match found(device) {
            Err(e) => refused(e),
            Ok(None) => Look::Ready,
            Ok(Some(true)) => Look::AlreadyDone,
            Ok(Some(false)) => refused("the machine has another device in its place"),
        },
        LiveChange::Detach { xml: device } => match found(device) {
            Err(e) => refused(e),
            Ok(there) => done_if(there.is_none()),
        },
        LiveChange::Update { xml: device } => match found(device) {
            Err(e) => refused(e),
            Ok(None) => refused("the machine has no such device"),
            Ok(Some(same)) => done_if(same),
        },
    }
}

/// Where a migration stands, by what is on both hosts; its own record is not asked.
fn migration(state: &State, m: &Migration) -> Result<Look, Look> {
    if m.from == m.to {
        return Err(refused(format!("`{}` is on `{}` already", m.name, m.to)));
    }
    let (source, destination) = (state.domain(&m.from, m.uuid), state.domain(&m.to, m.uuid));
    if source.is_some_and(leaves) {
        return Ok(match destination {
            Some(d) if arrives(d) => Look::Running,
            _ => refused(format!("`{}` is being migrated from `{}` to another host", m.name, m.from)),
        });
    }
    if destination.is_some_and(arrives) || source.is_some_and(arrives) {
        return Err(refused(format!("`{}` arrives from another host", m.name)));
    }
    let active = |d: Option<&DomainState>| d.is_some_and(DomainState::is_active);
    if active(source) && active(destination) {
        return Err(refused(format!("`{}` runs on `{}` and on `{}`", m.name, m.from, m.to)));
    }
    if let Some(there) = destination
        && !active(source)
        && (there.is_active() || m.way == MigrationWay::Offline && source.is_none())
    {
        // It is there; what may be missing are the definition's end at the source and the odds and ends.
        return Ok(if tail(state, m).is_empty() { Look::AlreadyDone } else { Look::Running });
    }
    let Some(source) = source else {
        return Err(refused(format!("`{}` is not on `{}` any more", m.name, m.from)));
    };
    match m.way {
        MigrationWay::Live if !source.is_active() => {
            return Err(refused(format!("`{}` does not run on `{}` any more", m.name, m.from)));
        }
        MigrationWay::Offline if source.is_active() => {
            return Err(refused(format!("`{}` runs; moved offline, it could run twice", m.name)));
        }
        _ => {}
    }
    let has_home = source.persistent || destination.is_some_and(|d| d.persistent);
    if !m.permanent && (m.way == MigrationWay::Offline || !has_home) {
        return Err(refused(format!("`{}` cannot be elsewhere for a while: it is off, or has no definition", m.name)));
    }
    free_name(state, &m.to, m.name_there(), m.uuid)?;
    for volume in &m.copy {
        let there = active_pool(state, &m.to, &volume.to_pool)?;
        if let Some(other) = there.get(&volume.volume)
            && (other.capacity != volume.capacity || other.format != volume.format)
        {
            return Err(refused(format!(
                "pool `{}` on `{}` has another volume `{}`, and it is not overwritten",
                volume.to_pool, m.to, volume.volume
            )));
        }
    }
    Ok(Look::Ready)
}

/// What is left to do once the machine is at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Give it a definition there.
    Define,
    /// Take the one at the source away.
    Undefine,
    /// Set whether it starts with its host.
    Autostart,
    /// Note that the move is made.
    Mark,
    /// Delete the copies at the source.
    DeleteCopies,
}

pub(super) fn tail(state: &State, m: &Migration) -> Vec<Tail> {
    let mut left = Vec::new();
    let there = state.domain(&m.to, m.uuid);
    if let Some(mark) = &m.mark {
        let done = crate::observed::MoveMark { done: true, ..mark.clone() };
        let home = state.domain(&m.from, m.uuid).filter(|d| !m.permanent && !d.is_active());
        if there.into_iter().chain(home).any(|d| !define::moves(d).contains(&done)) {
            left.push(Tail::Mark);
        }
    }
    if !m.permanent {
        return left;
    }
    if there.is_some_and(|d| !d.persistent) {
        left.push(Tail::Define);
    }
    if state.domain(&m.from, m.uuid).is_some_and(|d| !d.is_active()) {
        left.push(Tail::Undefine);
    }
    if there.is_some_and(|d| d.autostart != m.autostart) {
        left.push(Tail::Autostart);
    }
    let has = |pool: &str, volume: &str| state.volumes(&m.from, pool).is_some_and(|v| v.contains_key(volume));
    if m.delete_source_copies && m.copy.iter().any(|v| has(&v.pool, &v.volume)) {
        left.push(Tail::DeleteCopies);
    }
    left
}
