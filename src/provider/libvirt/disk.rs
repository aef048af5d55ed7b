//! Disks that go to another pool of their host, while their machine runs or while it is off.
//!
//! ```text
//!            ┌─ runs ─► marker, volume ─► mirror ─► ready ─► pivot ──────────┐
//!   Ready ───┤                                                               ├─► mark, old volume, marker ─► done
//!            └─ off ──► marker, copied volume ─► definition ─► still off? ───┘
//! ```
//!
//! *Guarantees*: a volume that is there is never written to, unless it carries the marker of a half copy and no domain has
//! it. A machine's definitions, live and persistent, name the new volume before the old one may be deleted. A machine that
//! is started while its volume is copied keeps the old one. Killed at any moment, the next Drover finds the block job and
//! follows it, or the half copy and begins anew, or the disk at its new place and finishes.

use super::connect::Hosts;
use super::domain::{self, word};
use super::error::{During, Fault};
use super::{ffi, volume, xml};
use crate::action::{DiskMove, DiskPlace, Order};
use crate::domain_xml::{self, Element, mirror_of_disk, path_of_disk};
use crate::observed::{DomainState, HALF_COPY, Progress};
use crate::provider::{ActError, Look, StepCtx, StepOrders};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::storage_vol::StorageVol;
use virt_sys as sys;

/// How often a block job is asked for its progress.
const POLL: Duration = Duration::from_millis(300);

/// How long a copy may stand still before it is given up.
const STALL: Duration = Duration::from_secs(120);

/// Where a domain has a disk.
struct Where {
    live: Option<String>,
    persistent: Option<String>,
    mirror: Option<domain_xml::Mirror>,
}

impl Where {
    fn of(state: &DomainState, target: &str) -> Result<Self, Fault> {
        let read = |text: &Option<String>| {
            text.as_deref().map(|t| xml::parse(t, &format!("read the definition of `{}`", state.name))).transpose()
        };
        let (live, persistent) = (read(&state.live_xml)?.filter(|_| state.is_active()), read(&state.persistent_xml)?);
        let place = |tree: &Option<Element>| Some(path_of_disk(tree.as_ref()?, target)?.to_owned());
        Ok(Self {
            live: place(&live),
            persistent: place(&persistent),
            mirror: live.as_ref().and_then(|tree| mirror_of_disk(tree, target)),
        })
    }

    /// Whether all definitions that there are have the disk at this path.
    fn all_at(&self, state: &DomainState, path: &str) -> bool {
        let is_at = |there: &Option<String>| there.as_deref() == Some(path);
        (!state.is_active() || is_at(&self.live)) && (!state.persistent || is_at(&self.persistent))
    }

    /// What counts: where the running machine has it, else its definition.
    fn now(&self, state: &DomainState) -> Option<&str> {
        if state.is_active() { self.live.as_deref() } else { self.persistent.as_deref() }
    }

    fn is_copied_to(&self, path: &str) -> bool {
        self.mirror.as_ref().is_some_and(|m| m.path.as_deref() == Some(path))
    }
}

fn marker(place: &DiskPlace) -> String {
    format!("{}{HALF_COPY}", place.volume)
}

/// Whether the place has a half copy's marker.
fn is_half(c: &Connect, place: &DiskPlace) -> Result<bool, Fault> {
    let pool = volume::active_pool(c, &place.pool)?;
    Ok(volume::find(&pool, &marker(place))?.is_some())
}

pub(super) fn look(c: &Connect, m: &DiskMove) -> Result<Look, Fault> {
    domain::look(c, m.uuid, |_, state| {
        let refused = |reason: String| Ok(Look::Refused { reason });
        let at = Where::of(state, &m.target)?;
        if at.is_copied_to(&m.to.path) {
            return Ok(Look::Running);
        }
        if at.mirror.is_some() {
            return refused(format!("disk `{}` of `{}` is being copied to another place", m.target, state.name));
        }
        if at.now(state) == Some(&m.to.path) {
            let done = at.all_at(state, &m.to.path)
                && state.owner.as_ref() == Some(&m.owner)
                && !is_half(c, &m.to)?
                && !(m.delete_source && is_left(c, m)?);
            return Ok(if done { Look::AlreadyDone } else { Look::Running });
        }
        let Some(from) = m.from.as_ref().filter(|f| at.all_at(state, &f.path)) else {
            let there = at.now(state).unwrap_or("nowhere on the host");
            return refused(format!("disk `{}` of `{}` is at {there} now", m.target, state.name));
        };
        if state.managed_save || state.snapshots > 0 || state.checkpoints > 0 {
            let why = "has a saved memory image, snapshots or checkpoints, which name the old disk";
            return refused(format!("`{}` {why}", state.name));
        }
        let users = volume::users_and_arriving(c, |d| d.is(&from.pool, &from.volume, &from.path))?;
        let others: Vec<_> = users.into_iter().filter(|u| u.uuid != m.uuid).collect();
        if !others.is_empty() {
            return refused(format!("volume `{}` is also in use by {}", from.volume, volume::names(&others)));
        }
        let pool = match volume::active_pool(c, &m.to.pool) {
            Err(Fault::Refused { why, .. }) => return refused(why),
            other => other?,
        };
        let there = volume::find(&pool, &m.to.volume)?.is_some();
        if there && volume::find(&pool, &marker(&m.to))?.is_none() {
            return refused(format!(
                "pool `{}` has a volume `{}` already, and it is not overwritten",
                m.to.pool, m.to.volume
            ));
        }
        Ok(Look::Ready)
    })
}

/// Whether the volume that the disk left is still there.
fn is_left(c: &Connect, m: &DiskMove) -> Result<bool, Fault> {
    let Some(from) = &m.from else { return Ok(false) };
    let pool = volume::active_pool(c, &from.pool)?;
    Ok(match volume::find(&pool, &from.volume)? {
        Some(found) => found.path().during(format!("read volume `{}`", from.volume))? == from.path,
        None => false,
    })
}

/// What a copy that runs tells and heeds.
struct Watch {
    until: Instant,
    cancel: CancellationToken,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
    orders: StepOrders,
    begun: Instant,
}

impl Watch {
    /// Refuses to go on where a newer commit says so, before the disk is at its new place.
    fn heed(&mut self, m: &DiskMove) -> Result<Option<Option<u64>>, Fault> {
        match self.orders.news() {
            Some(Order::Abort { why }) => Err(Fault::refused(
                format!(
                    "the move of disk `{}` of `{}` is not wanted any more: {why}; the machine keeps its old disk",
                    m.target, m.name
                ),
                "nothing is to be done: it is what the newer commit says",
            )),
            Some(Order::CopyRate(mib)) => Ok(Some(mib)),
            Some(Order::Limits(_)) | None => Ok(None),
        }
    }
}

/// Changes the limit of a copy that runs. Where libvirt does not take it, the copy goes on as it was.
fn set_rate(domain: &Domain, m: &DiskMove, mib: Option<u64>) {
    let bytes = mib.map_or(0, |mib| mib.saturating_mul(1 << 20));
    match ffi::set_block_job_speed(domain, &m.target, bytes).during("change the bandwidth of a disk's copy") {
        Ok(()) => tracing::info!(domain = m.name, disk = m.target, mib, "bandwidth of a disk's copy is another now"),
        Err(fault) => {
            tracing::warn!(domain = m.name, disk = m.target, error = %fault, "the copy goes on with its old bandwidth");
        }
    }
}

pub(super) async fn act(hosts: &Hosts, m: &DiskMove, ctx: &StepCtx) -> Result<(), ActError> {
    let (host, m) = (hosts.get(&m.host)?, m.clone());
    let now = Instant::now();
    let mut watch = Watch {
        until: now + ctx.deadline,
        cancel: ctx.cancel.clone(),
        progress: ctx.progress.clone(),
        orders: ctx.orders.clone(),
        begun: now,
    };
    let what = format!("move disk `{}` of `{}`", m.target, m.name);
    host.call_alone(&what, ctx.deadline, move |c| move_disk(c, &m, &mut watch)).await?;
    Ok(())
}

fn move_disk(c: &Connect, m: &DiskMove, watch: &mut Watch) -> Result<(), Fault> {
    let (domain, state) = domain::get(c, m.uuid)?;
    let at = Where::of(&state, &m.target)?;
    if at.now(&state) != Some(&m.to.path) {
        let moved = if state.is_active() {
            let begun = if at.is_copied_to(&m.to.path) {
                // An earlier run's: it may have had another limit.
                set_rate(&domain, m, m.bandwidth_mib);
                Ok(())
            } else {
                begin(c, m, &domain)
            };
            begun.and_then(|()| follow(c, m, watch))
        } else {
            copy_off(c, m, watch)
        };
        if let Err(fault) = moved {
            // Left going on: the next Drover finds it there.
            if !matches!(fault, Fault::Left { .. }) {
                let _ = discard(c, &m.to);
            }
            return Err(fault);
        }
    }
    finish(c, m)
}

/// Makes the volume that is mirrored into, and begins.
fn begin(c: &Connect, m: &DiskMove, domain: &Domain) -> Result<(), Fault> {
    let from = origin(m)?;
    let what = format!("copy disk `{}` of `{}`", m.target, m.name);
    // A running machine's disk may have grown without its pool noticing.
    let info = domain.block_info(&m.target, 0).during(&what)?;
    let pool = prepare(c, &m.to, info.allocation)?;
    let sparse = volume::is_made_of_files(&super::pool::description(&pool, &m.to.pool)?);
    let definition = volume::definition(&m.to.volume, info.capacity, &m.format, sparse, None);
    let made = StorageVol::create_xml(&pool, &definition, 0).during(format!("make volume `{}`", m.to.volume));
    is_where_planned(&ours(&pool, &m.to, made)?, &m.to)?;
    let destination = destination(m);
    let bandwidth = m.bandwidth_mib.map(|mib| mib.saturating_mul(1 << 20));
    let flags = sys::VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | sys::VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB;
    tracing::debug!(domain = m.name, from = from.path, to = m.to.path, "a disk is copied while its machine runs");
    // What the guest writes goes to both: a copy of a disk that is written to faster than the new storage takes it would
    // never be complete. libvirt has that since 8.0.
    let synchronous = flags | sys::VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES;
    match ffi::block_copy(domain, &m.target, &destination, bandwidth, synchronous).during(&what) {
        Err(fault) if fault.says("unsupported flags") => {
            ffi::block_copy(domain, &m.target, &destination, bandwidth, flags).during(what)
        }
        other => other,
    }
}

fn origin(m: &DiskMove) -> Result<&DiskPlace, Fault> {
    m.from.as_ref().ok_or_else(|| {
        Fault::refused(format!("disk `{}` of `{}` is not at {} any more", m.target, m.name, m.to.path), "plan again")
    })
}

/// The new place as libvirt takes it.
fn destination(m: &DiskMove) -> String {
    let (kind, attribute) = if m.block { ("block", "dev") } else { ("file", "file") };
    Element::new("disk")
        .with("type", kind)
        .child(Element::new("source").with(attribute, m.to.path.as_str()))
        .child(Element::new("driver").with("name", "qemu").with("type", m.format.as_str()))
        .to_xml()
}

/// Clears a half copy of an earlier attempt away, sees that there is room, and sets the marker.
fn prepare(c: &Connect, to: &DiskPlace, needs: u64) -> Result<virt::storage_pool::StoragePool, Fault> {
    let pool = volume::active_pool(c, &to.pool)?;
    let is_marked = volume::find(&pool, &marker(to))?.is_some();
    if let Some(there) = volume::find(&pool, &to.volume)? {
        if !is_marked {
            let why = format!("pool `{}` has a volume `{}` already, and it is not overwritten", to.pool, to.volume);
            return Err(Fault::refused(why, "look at what it is, and remove or rename it; or move the disk elsewhere"));
        }
        volume::delete_unused(c, &to.pool, &there, &to.volume)?;
    }
    let available = pool.info().during(format!("read pool `{}`", to.pool))?.available;
    if available < needs {
        let why = format!("pool `{}` has {available} bytes left, and volume `{}` takes {needs}", to.pool, to.volume);
        return Err(Fault::refused(why, "make room in the pool"));
    }
    if !is_marked {
        let definition = volume::definition(&marker(to), MARKER_BYTES, "raw", true, None);
        StorageVol::create_xml(&pool, &definition, 0).during(format!("mark volume `{}` as a copy", to.volume))?;
    }
    Ok(pool)
}

/// Size of a marker: some pool types have no volume of nothing.
const MARKER_BYTES: u64 = 4096;

/// A volume that was just made. Where somebody else's came to be there first, the marker must not stay beside it: it would
/// make that volume half a copy, which may be removed.
fn ours(
    pool: &virt::storage_pool::StoragePool,
    to: &DiskPlace,
    made: Result<StorageVol, Fault>,
) -> Result<StorageVol, Fault> {
    made.inspect_err(|fault| {
        let is_taken = fault.code() == Some(sys::VIR_ERR_STORAGE_VOL_EXIST) || fault.says("already in use");
        if is_taken && let Ok(Some(marked)) = volume::find(pool, &marker(to)) {
            let _ = marked.delete(0);
        }
    })
}

fn is_where_planned(made: &StorageVol, to: &DiskPlace) -> Result<(), Fault> {
    let path = made.path().during(format!("read volume `{}`", to.volume))?;
    if path == to.path {
        return Ok(());
    }
    let why = format!("volume `{}` came to be at {path} and not at {}", to.volume, to.path);
    Err(Fault::refused(why, "make the StoragePool's `target` say where the pool really is"))
}

/// Follows the mirror until it is complete, and switches the disk over to it.
fn follow(c: &Connect, m: &DiskMove, watch: &mut Watch) -> Result<(), Fault> {
    let what = format!("follow the copy of disk `{}` of `{}`", m.target, m.name);
    let (mut moved_at, mut last, mut rate) = (Instant::now(), 0, m.bandwidth_mib);
    loop {
        let (domain, state) = domain::get(c, m.uuid)?;
        let at = Where::of(&state, &m.target)?;
        if at.now(&state) == Some(&m.to.path) {
            return Ok(());
        }
        let job = ffi::block_job(&domain, &m.target).during(&what)?;
        let Some(job) = job.filter(|_| at.is_copied_to(&m.to.path)) else {
            let why = format!(
                "the copy of disk `{}` of `{}` ended before it was complete; the machine keeps its old disk ({})",
                m.target,
                state.name,
                word(&state)
            );
            return Err(Fault::refused(
                why,
                "see the log of its QEMU on the host; the new storage may be full or gone",
            ));
        };
        (watch.progress)(progress(job, watch.begun.elapsed()));
        if job.done != last {
            (last, moved_at) = (job.done, Instant::now());
        }
        match watch.heed(m) {
            Ok(Some(newer)) if newer != rate => {
                set_rate(&domain, m, newer);
                rate = newer;
            }
            Ok(_) => {}
            Err(not_wanted) => {
                ffi::end_block_job(&domain, &m.target, 0).during("abort the copy of a disk")?;
                return Err(not_wanted);
            }
        }
        if at.mirror.as_ref().is_some_and(|mirror| mirror.ready) {
            return pivot(c, m, &domain);
        }
        if watch.cancel.is_cancelled() {
            return Err(Fault::left(format!(
                "the copy of disk `{}` of `{}` goes on; the next run follows it to its end",
                m.target, m.name
            )));
        }
        if moved_at.elapsed() >= STALL {
            ffi::end_block_job(&domain, &m.target, 0).during("abort the copy of a disk")?;
            let (disk, stall) = (&m.target, STALL.as_secs());
            let why = format!("the copy of disk `{disk}` of `{}` stood still for {stall} s, and was aborted", m.name);
            return Err(Fault::refused(why, "look at the new storage, and at its load"));
        }
        // It moves, so it will end; what has been copied is not thrown away for being slow.
        if Instant::now() + POLL >= watch.until {
            return Err(Fault::left(format!(
                "the copy of disk `{}` of `{}` still goes on, and is followed again",
                m.target, m.name
            )));
        }
        std::thread::sleep(POLL);
    }
}

/// Switches the disk over. What the call says is not the truth: the definition is.
fn pivot(c: &Connect, m: &DiskMove, domain: &Domain) -> Result<(), Fault> {
    let what = format!("switch disk `{}` of `{}` over to its copy", m.target, m.name);
    let said = ffi::end_block_job(domain, &m.target, sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT).during(what);
    let (_, state) = domain::get(c, m.uuid)?;
    match Where::of(&state, &m.target)?.now(&state) {
        Some(path) if path == m.to.path => Ok(()),
        _ => Err(said.err().unwrap_or_else(|| {
            Fault::odd("switch a disk over to its copy", "libvirt says it did, and the machine has its old disk")
        })),
    }
}

fn progress(job: ffi::BlockJob, elapsed: Duration) -> Progress {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    Progress {
        phase: "copying a disk".into(),
        processed: job.done,
        remaining: job.end.saturating_sub(job.done),
        total: job.end,
        rate: (u128::from(job.done) * 1000 / u128::from(millis.max(1))).try_into().unwrap_or(u64::MAX),
        elapsed_millis: millis,
        ..Progress::default()
    }
}

/// Copies the volume of a machine that is off, and writes the copy into its definition.
fn copy_off(c: &Connect, m: &DiskMove, watch: &mut Watch) -> Result<(), Fault> {
    let from = origin(m)?;
    let source_pool = volume::active_pool(c, &from.pool)?;
    let source = volume::find(&source_pool, &from.volume)?.ok_or_else(|| {
        Fault::refused(format!("volume `{}` is not in pool `{}` any more", from.volume, from.pool), "plan again")
    })?;
    let there = volume::state(&source, &from.volume)?;
    if there.path != from.path {
        let why = format!("volume `{}` is at {} now and not at {}", from.volume, there.path, from.path);
        return Err(Fault::refused(why, "plan again"));
    }
    let pool = wait_until_unused(watch, || prepare(c, &m.to, there.allocation))?;
    let sparse = volume::is_made_of_files(&super::pool::description(&pool, &m.to.pool)?);
    let definition = volume::definition(&m.to.volume, there.capacity, &m.format, sparse, None);
    let since = volume::written_at(&source, &from.volume)?;
    let made = StorageVol::create_xml_from(&pool, &definition, &source, 0)
        .during(format!("copy volume `{}` of pool `{}` to pool `{}`", from.volume, from.pool, m.to.pool));
    is_where_planned(&ours(&pool, &m.to, made)?, &m.to)?;
    // libvirt cannot be made to stop copying a volume: what came meanwhile is heeded now.
    watch.heed(m)?;
    // It may have been started and stopped again meanwhile: then the copy is of no one moment.
    if volume::written_at(&source, &from.volume)? != since {
        let why = format!("volume `{}` was written to while it was copied; the machine keeps it", from.volume);
        return Err(Fault::refused(why, "leave the machine off until its disk has moved, or move it while it runs"));
    }
    let before = put(c, m, &from.path)?;
    // Started in between, it runs on the old volume, and the copy is not what it was.
    let (_, state) = domain::get(c, m.uuid)?;
    if state.is_active() && Where::of(&state, &m.target)?.live.as_deref() != Some(&m.to.path) {
        if let Some(before) = before {
            domain::define(c, &state.name, &before)?;
        }
        return Err(Fault::left(format!("`{}` was started while its disk was copied; it keeps the old one", m.name)));
    }
    Ok(())
}

/// An earlier run's copy may still be under way in the daemon: it cannot be removed before it has ended.
fn wait_until_unused<T>(watch: &Watch, work: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
    loop {
        match work() {
            Err(fault)
                if (fault.says("being allocated") || fault.says("in use"))
                    && matches!(fault, Fault::Libvirt { .. })
                    && Instant::now() < watch.until
                    && !watch.cancel.is_cancelled() =>
            {
                std::thread::sleep(POLL);
            }
            other => return other,
        }
    }
}

/// Writes the disk's new path into the persistent definition, where it has the old one. Gives the definition as it was,
/// where it was changed.
fn put(c: &Connect, m: &DiskMove, old: &str) -> Result<Option<String>, Fault> {
    let (domain, state) = domain::get(c, m.uuid)?;
    let what = format!("read the definition of `{}`", state.name);
    // With its secrets: they must survive the change. This text goes back to libvirt and nowhere else.
    let whole = domain.xml_desc(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_INACTIVE).during(&what)?;
    let there = xml::parse(&whole, &what)?;
    match path_of_disk(&there, &m.target) {
        Some(path) if path == m.to.path => return Ok(None),
        Some(path) if path == old => {}
        other => {
            let there = other.unwrap_or("nowhere on the host");
            let why = format!("disk `{}` of `{}` is at {there} in its definition now", m.target, state.name);
            return Err(Fault::refused(why, "plan again"));
        }
    }
    let moved = domain_xml::with_disk_at(&whole, &m.target, &m.to.path, m.block, &m.format)
        .map_err(|e| Fault::odd(what, e.to_string()))?
        .ok_or_else(|| Fault::odd("change a disk's place", "the disk is not in the definition"))?;
    domain::define(c, &state.name, &moved)?;
    Ok(Some(whole))
}

/// What is left to do once the machine has its disk at the new place.
fn finish(c: &Connect, m: &DiskMove) -> Result<(), Fault> {
    let (_, state) = domain::get(c, m.uuid)?;
    let at = Where::of(&state, &m.target)?;
    if at.now(&state) != Some(&m.to.path) {
        return Err(Fault::refused(
            format!("disk `{}` of `{}` is not at {}", m.target, m.name, m.to.path),
            "plan again",
        ));
    }
    // libvirt changes both definitions where they agreed before.
    if state.persistent && at.persistent.as_deref() != Some(&m.to.path) {
        let old = m.from.as_ref().map_or(at.persistent.as_deref(), |f| Some(&f.path)).unwrap_or_default();
        put(c, m, old)?;
    }
    domain::set_owner(c, m.uuid, Some(&m.owner))?;
    if m.delete_source && is_left(c, m)? {
        let from = origin(m)?;
        let pool = volume::active_pool(c, &from.pool)?;
        if let Some(old) = volume::find(&pool, &from.volume)? {
            volume::delete_unused(c, &from.pool, &old, &from.volume)?;
        }
    }
    // One that was left at the old place would make the old volume half a copy to whoever moves a disk there next.
    if let Some(from) = &m.from
        && super::pool::find(c, &from.pool)?.is_some_and(|p| p.is_active().unwrap_or(false))
    {
        unmark(c, from)?;
    }
    unmark(c, &m.to)
}

fn unmark(c: &Connect, place: &DiskPlace) -> Result<(), Fault> {
    match volume::find(&volume::active_pool(c, &place.pool)?, &marker(place))? {
        Some(found) => found.delete(0).during(format!("remove the marker of volume `{}`", place.volume)),
        None => Ok(()),
    }
}

/// Removes a half copy that no domain has, and its marker.
fn discard(c: &Connect, to: &DiskPlace) -> Result<(), Fault> {
    let pool = volume::active_pool(c, &to.pool)?;
    let Some(marked) = volume::find(&pool, &marker(to))? else { return Ok(()) };
    if let Some(half) = volume::find(&pool, &to.volume)? {
        volume::delete_unused(c, &to.pool, &half, &to.volume)?;
    }
    marked.delete(0).during(format!("remove the marker of volume `{}`", to.volume))
}

pub(super) fn look_cancel(c: &Connect, uuid: Uuid, target: &str, to: &DiskPlace) -> Result<Look, Fault> {
    domain::look(c, uuid, |_, state| {
        let at = Where::of(state, target)?;
        if at.is_copied_to(&to.path) {
            // What has no marker is somebody else's copy.
            return Ok(match is_half(c, to)? {
                true => Look::Ready,
                false => Look::Refused { reason: format!("the copy of disk `{target}` is not one of Drover's") },
            });
        }
        Ok(match is_half(c, to)? {
            true if at.now(state) != Some(&to.path) => Look::Ready,
            _ => Look::AlreadyDone,
        })
    })
}

pub(super) fn cancel(c: &Connect, uuid: Uuid, target: &str, to: &DiskPlace) -> Result<(), Fault> {
    let (domain, state) = domain::get(c, uuid)?;
    if Where::of(&state, target)?.is_copied_to(&to.path) && is_half(c, to)? {
        ffi::end_block_job(&domain, target, 0).during(format!("abort the copy of disk `{target}`"))?;
    }
    discard(c, to)
}
