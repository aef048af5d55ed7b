//! The volumes that a migration copies: made at the destination beforehand, with the right size and sparse (libvirt's own
//! would be fully allocated, and only where its pool's cache is fresh), and cleared away again on either side.
//!
//! A made volume has a marker beside it (`<volume>.drover-incoming`, empty) until the machine runs there. A Drover that
//! was killed in between so knows, without a record of its own, which image at the destination is half a copy and which
//! is somebody's data: only what has a marker, and what no domain uses, is ever removed.

use crate::action::MigratedVolume;
use crate::provider::libvirt::connect::Host;
use crate::provider::libvirt::error::{During, Fault};
use crate::provider::libvirt::{domain, volume};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;
use virt::connect::Connect;
use virt::storage_vol::StorageVol;

/// What a marker's name ends in.
const MARKER: &str = crate::observed::HALF_COPY;

/// Deleting a large image may take the storage a while.
const DELETE_WITHIN: Duration = Duration::from_secs(120);

fn marker(volume: &MigratedVolume) -> String {
    format!("{}{MARKER}", volume.volume)
}

/// Sizes of the volumes as they really are now, in the order of `copy`: the plan's may be old, and QEMU refuses to mirror
/// into an image of another size.
pub(super) async fn measure(
    from: &Host,
    uuid: Uuid,
    live: bool,
    copy: &[MigratedVolume],
) -> Result<Vec<Source>, Fault> {
    let copy = copy.to_vec();
    from.call("measure its disks", move |c| copy.iter().map(|v| measure_one(c, uuid, live, v)).collect()).await
}

/// When each volume was last written to, where it is a file; devices do not tell.
pub(super) async fn written(from: &Host, copy: &[MigratedVolume]) -> Result<Vec<Option<String>>, Fault> {
    let copy = copy.to_vec();
    from.call("look at its disks", move |c| {
        let one = |v: &MigratedVolume| {
            let pool = volume::active_pool(c, &v.pool)?;
            let found = volume::find(&pool, &v.volume)?.ok_or_else(|| {
                Fault::refused(format!("volume `{}` is not in pool `{}` any more", v.volume, v.pool), "plan again")
            })?;
            volume::written_at(&found, &v.volume)
        };
        copy.iter().map(one).collect()
    })
    .await
}

/// A volume at the source, as it is.
pub(super) struct Source {
    /// What the guest sees, in bytes.
    pub capacity: u64,
    /// What it takes, in bytes.
    pub allocation: u64,
    /// The image below it.
    pub backing: Option<String>,
}

fn measure_one(c: &Connect, uuid: Uuid, live: bool, v: &MigratedVolume) -> Result<Source, Fault> {
    let what = format!("read volume `{}`", v.volume);
    let pool = volume::active_pool(c, &v.pool)?;
    let found = volume::find(&pool, &v.volume)?.ok_or_else(|| {
        Fault::refused(format!("volume `{}` is not in pool `{}` any more", v.volume, v.pool), "plan again")
    })?;
    let state = volume::state(&found, &v.volume)?;
    if state.format != v.format {
        let why = format!("volume `{}` is {} now and not {}", v.volume, state.format, v.format);
        return Err(Fault::refused(why, "plan again"));
    }
    let capacity = match live {
        // A running machine's disk may have grown without its pool noticing.
        true => {
            let domain = c.lookup_domain_by_uuid_string(&uuid.to_string()).during(&what)?;
            domain.block_info(&v.target, 0).during(format!("measure disk `{}`", v.target))?.capacity
        }
        false => state.capacity,
    };
    Ok(Source { capacity, allocation: state.allocation, backing: state.backing })
}

/// Makes the volumes at the destination, each with its marker. A half copy of an earlier attempt is made anew.
pub(super) async fn prepare(to: &Host, live: bool, copy: &[MigratedVolume], sources: &[Source]) -> Result<(), Fault> {
    // What was made before takes its room only when it is filled.
    let mut promised: BTreeMap<&str, u64> = BTreeMap::new();
    for (v, source) in copy.iter().zip(sources) {
        let promised = promised.entry(&v.to_pool).or_default();
        *promised = promised.saturating_add(source.allocation);
        let needed = *promised;
        let (v, capacity) = (v.clone(), source.capacity);
        // libvirt flattens what it copies live; a file that is copied as it is keeps the image below it, by path.
        let backing = if live { v.backing.as_ref().map(|b| b.path.clone()) } else { source.backing.clone() };
        if let Some(planned) = &v.backing
            && source.backing.as_ref() != Some(&planned.path)
        {
            let why = format!("volume `{}` does not lie over `{}` any more", v.volume, planned.path);
            return Err(Fault::refused(why, "plan again"));
        }
        if let (None, Some(below), false) = (&v.backing, &source.backing, live) {
            // Nobody has compared it with what the destination has at that path.
            let why = format!("volume `{}` lies over `{below}` now, of which the plan knows nothing", v.volume);
            return Err(Fault::refused(why, "plan again"));
        }
        to.call_within("make room for its disks", DELETE_WITHIN, move |c| {
            prepare_one(c, &v, capacity, needed, backing.as_deref(), live)
        })
        .await?;
    }
    Ok(())
}

fn prepare_one(
    c: &Connect,
    v: &MigratedVolume,
    capacity: u64,
    needed: u64,
    backing: Option<&str>,
    live: bool,
) -> Result<(), Fault> {
    let pool = volume::active_pool(c, &v.to_pool)?;
    if let Some(path) = backing {
        let below = c
            .lookup_storage_vol_by_path(path)
            .during(format!("find `{path}`, the image below volume `{}`", v.volume))?;
        let there = volume::state(&below, path)?;
        if let Some(planned) = &v.backing
            && (there.capacity, &there.format) != (planned.capacity, &planned.format)
        {
            let why = format!("`{path}` at the destination is not the image that volume `{}` lies over", v.volume);
            return Err(Fault::refused(why, "bring the same image there, or set `copyStorage: All`"));
        }
    }
    if let Some(there) = volume::find(&pool, &v.volume)? {
        if volume::find(&pool, &marker(v))?.is_none() {
            let why = format!(
                "a volume `{}` is already in pool `{}`, and nothing says that it is a copy",
                v.volume, v.to_pool
            );
            return Err(Fault::refused(why, "look at what it is, and remove or rename it; nothing is overwritten"));
        }
        volume::delete_unused(c, &v.to_pool, &there, &v.volume)?;
    }
    let what = format!("read pool `{}`", v.to_pool);
    let available = pool.info().during(what)?.available;
    if available < needed {
        let why = format!(
            "pool `{}` has {available} bytes left, and the machine's volumes take {needed} up to `{}`",
            v.to_pool, v.volume
        );
        return Err(Fault::refused(why, "make room in the pool"));
    }
    if volume::find(&pool, &marker(v))?.is_none() {
        let definition = volume::definition(&marker(v), MARKER_BYTES, "raw", true, None);
        StorageVol::create_xml(&pool, &definition, 0).during(format!("mark volume `{}` as a copy", v.volume))?;
    }
    // QEMU writes only what lies above the backing image, so that has to be below from the start.
    let below = v.backing.as_ref().filter(|_| live).map(|b| (b.path.as_str(), b.format.as_str()));
    let definition = volume::definition(&v.volume, capacity, &v.format, true, below);
    let made = StorageVol::create_xml(&pool, &definition, 0).during(format!("make volume `{}`", v.volume))?;
    // The machine's definition says where its disk is, and goes along as it is.
    let path = made.path().during(format!("read volume `{}`", v.volume))?;
    if path != v.path {
        // It has its marker, so that whoever gives the move up removes it.
        let why = format!(
            "pool `{}` has volume `{}` at `{path}` there, and the machine's disk is `{}`",
            v.to_pool, v.volume, v.path
        );
        return Err(Fault::refused(why, "give the pool the same target path on both hosts"));
    }
    Ok(())
}

/// Size of a marker: some pool types have no volume of nothing.
const MARKER_BYTES: u64 = 4096;

/// Removes half copies after a failure: those with a marker that no domain uses.
pub(super) async fn discard(to: &Host, copy: &[MigratedVolume]) -> Result<(), Fault> {
    for v in copy.iter().cloned() {
        to.call_within("remove a half copy", DELETE_WITHIN, move |c| {
            let pool = volume::active_pool(c, &v.to_pool)?;
            let Some(marked) = volume::find(&pool, &marker(&v))? else { return Ok(()) };
            if let Some(found) = volume::find(&pool, &v.volume)? {
                volume::delete_unused(c, &v.to_pool, &found, &v.volume)?;
            }
            marked.delete(0).during(format!("remove the marker of volume `{}`", v.volume))
        })
        .await?;
    }
    Ok(())
}

/// Takes the markers away: the copies are the machine's disks now.
pub(super) async fn settle(to: &Host, copy: &[MigratedVolume]) -> Result<(), Fault> {
    for v in copy.iter().cloned() {
        to.call("remove a marker", move |c| {
            let pool = volume::active_pool(c, &v.to_pool)?;
            match volume::find(&pool, &marker(&v))? {
                Some(found) => found.delete(0).during(format!("remove the marker of volume `{}`", v.volume)),
                None => Ok(()),
            }
        })
        .await?;
    }
    Ok(())
}

/// Deletes the source's copies. Asked for by the policy, after the machine was seen at the destination; one that any
/// domain of the source still uses stays. A pool that was not declared as shared may be so all the same, and the source's
/// copy then is the machine's only disk: it is tried out with a volume that is made on one side and looked for on the
/// other.
pub(super) async fn delete_sources(from: &Host, to: &Host, copy: &[MigratedVolume]) -> Result<(), Fault> {
    for v in copy {
        let here = v.clone();
        let is_there = from.call("look for the source's copy", move |c| probe_source(c, &here)).await?;
        if !is_there {
            continue;
        }
        let there = v.clone();
        let own = to.call("look for the destination's copy", move |c| has_own_copy(c, &there)).await;
        let (here, from_name) = (v.clone(), from.name.clone());
        from.call_within("delete the source's copy", DELETE_WITHIN, move |c| {
            let pool = volume::active_pool(c, &here.pool)?;
            if let Some(probe) = volume::find(&pool, &format!("{}{PROBE}", here.volume))? {
                probe.delete(0).during(format!("remove the probe beside volume `{}`", here.volume))?;
            }
            if !own? {
                let why = format!(
                    "volume `{}` is not deleted: pool `{}` of the destination is the same storage, or has no copy of it",
                    here.volume, here.to_pool
                );
                let hint = format!("set `shared: true` on the StoragePool if so; nothing was deleted on `{from_name}`");
                return Err(Fault::refused(why, hint));
            }
            match volume::find(&pool, &here.volume)? {
                Some(found) => volume::delete_unused(c, &here.pool, &found, &here.volume),
                None => Ok(()),
            }
        })
        .await?;
    }
    Ok(())
}

/// What a probe's name ends in.
const PROBE: &str = ".drover-leaving";

/// Makes the probe, where the source's copy is still there.
fn probe_source(c: &Connect, v: &MigratedVolume) -> Result<bool, Fault> {
    let pool = volume::active_pool(c, &v.pool)?;
    let Some(found) = volume::find(&pool, &v.volume)? else { return Ok(false) };
    if found.path().during(format!("read volume `{}`", v.volume))? != v.path {
        return Ok(false);
    }
    let name = format!("{}{PROBE}", v.volume);
    if volume::find(&pool, &name)?.is_none() {
        let definition = volume::definition(&name, MARKER_BYTES, "raw", true, None);
        StorageVol::create_xml(&pool, &definition, 0).during(format!("make a probe beside volume `{}`", v.volume))?;
    }
    Ok(true)
}

/// Whether the destination has the volume, on storage of its own.
fn has_own_copy(c: &Connect, v: &MigratedVolume) -> Result<bool, Fault> {
    let pool = volume::active_pool(c, &v.to_pool)?;
    Ok(volume::find(&pool, &v.volume)?.is_some() && volume::find(&pool, &format!("{}{PROBE}", v.volume))?.is_none())
}

/// The source's copies that are still there.
pub(super) async fn left_at_source(from: &Host, copy: &[MigratedVolume]) -> Result<Vec<String>, Fault> {
    let copy = copy.to_vec();
    from.call("look for leftover images", move |c| {
        let mut left = Vec::new();
        for v in &copy {
            let Some(pool) = super::super::pool::find(c, &v.pool)? else { continue };
            if pool.is_active().during(format!("read pool `{}`", v.pool))?
                && let Some(found) = volume::find(&pool, &v.volume)?
                && found.path().during(format!("read volume `{}`", v.volume))? == v.path
            {
                left.push(v.path.clone());
            }
        }
        Ok(left)
    })
    .await
}

/// Removes the definition that a move left behind at its source: off, ours, and without anything in it that would be
/// lost. Returns why it stays, where it stays.
pub(super) async fn remove_stale_definition(from: &Host, uuid: Uuid) -> Result<Option<String>, Fault> {
    from.call("remove the definition that the move left behind", move |c| {
        let Some((_, state)) = domain::find_with_state(c, uuid)? else { return Ok(None) };
        let why = match () {
            () if state.is_active() => format!("it is {}", domain::word(&state)),
            () if state.owner.is_none() && state.moves.is_empty() => "it has no mark of Drover's".to_owned(),
            () if state.managed_save => "it has a saved memory image".to_owned(),
            () if state.snapshots > 0 => format!("it has {} snapshots", state.snapshots),
            () => return domain::undefine(c, uuid, false).map(|()| None),
        };
        Ok(Some(why))
    })
    .await
}
