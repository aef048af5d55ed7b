//! Volumes: made (empty, from an image, over a backing image), grown, deleted, copied between hosts.
//!
//! *Promises*: nothing that is there is ever overwritten or shrunk, and nothing that a domain of the host uses is deleted.

use super::connect::{Host, Session};
use super::error::{During, Fault};
use super::{ffi, observe, pool, xml};
use crate::action::{ImageSource, MigratedVolume};
use crate::domain_xml::Element;
use crate::observed::{Progress, VolumeState};
use crate::provider::Look;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use virt::connect::Connect;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;
use virt_sys as sys;

/// What a volume must be.
pub(super) struct Wanted<'a> {
    pub pool: &'a str,
    pub volume: &'a str,
    /// Bytes.
    pub capacity: u64,
    pub format: &'a str,
    pub image: Option<&'a ImageSource>,
    pub backing: Option<&'a ImageSource>,
}

/// An active pool, refreshed, so that what it lists is what is there.
pub(super) fn active_pool(connect: &Connect, name: &str) -> Result<StoragePool, Fault> {
    let Some(pool) = pool::find(connect, name)? else {
        return Err(Fault::refused(format!("there is no pool `{name}`"), "declare it on this host (StoragePool)"));
    };
    if !pool.is_active().during(format!("read pool `{name}`"))? {
        return Err(Fault::refused(format!("pool `{name}` is not started"), "start it"));
    }
    refresh(&pool, name)?;
    Ok(pool)
}

/// Lets the pool read its storage anew. A pool in which a volume is just being made cannot, and need not.
fn refresh(pool: &StoragePool, name: &str) -> Result<(), Fault> {
    match pool.refresh(0).during(format!("refresh pool `{name}`")) {
        Err(fault) if fault.code() == Some(sys::VIR_ERR_INTERNAL_ERROR) && fault.says("asynchronous jobs") => Ok(()),
        Err(fault) if fault.is_transient() && fault.says("asynchronous") => Ok(()),
        other => other,
    }
}

/// The volume of a name, if there is one.
pub(super) fn find(pool: &StoragePool, name: &str) -> Result<Option<StorageVol>, Fault> {
    match pool.lookup_storage_vol_by_name(name).during(format!("look volume `{name}` up")) {
        Ok(volume) => Ok(Some(volume)),
        Err(fault) if fault.is_absent() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Reads a volume.
pub(super) fn state(volume: &StorageVol, name: &str) -> Result<VolumeState, Fault> {
    observe::volume_state(&volume.xml_desc(0).during(format!("read volume `{name}`"))?)
}

/// When a volume was last written to, where it is a file; nothing of a device.
pub(super) fn written_at(volume: &StorageVol, name: &str) -> Result<Option<String>, Fault> {
    let what = format!("read volume `{name}`");
    let root = xml::parse(&volume.xml_desc(0).during(&what)?, &what)?;
    Ok(xml::text_at(&root, "target/timestamps/mtime"))
}

pub(super) fn look_create(connect: &Connect, wanted: &Wanted) -> Result<Look, Fault> {
    let Wanted { pool: pool_name, volume: name, capacity, format, .. } = *wanted;
    let refused = |reason| Ok(Look::Refused { reason });
    let pool = match active_pool(connect, pool_name) {
        Err(Fault::Refused { why, .. }) => return refused(why),
        other => other?,
    };
    if let Some(volume) = find(&pool, name)? {
        let there = state(&volume, name)?;
        let found = format!("volume `{name}` of pool `{pool_name}` is already there");
        if there.format != format {
            return refused(format!("{found}, as {} and not as {format}", there.format));
        }
        if there.capacity < capacity {
            let half = if wanted.image.is_some() { "; it may be half of an earlier attempt" } else { "" };
            return refused(format!("{found}, with {} bytes instead of {capacity}{half}", there.capacity));
        }
        return Ok(Look::AlreadyDone);
    }
    for source in wanted.image.iter().chain(&wanted.backing) {
        // A folder in front is looked into when it is needed: that takes a pool, and looking changes nothing.
        if !source.volume.contains('/') {
            let from = match active_pool(connect, &source.pool) {
                Err(Fault::Refused { why, .. }) => return refused(why),
                other => other?,
            };
            let Some(image) = find(&from, &source.volume)? else {
                return refused(format!("image `{}` is not in pool `{}`", source.volume, source.pool));
            };
            let size = state(&image, &source.volume)?.capacity;
            if size > capacity {
                return refused(format!("image `{}` has {size} bytes, more than {capacity}", source.volume));
            }
        }
    }
    Ok(Look::Ready)
}

pub(super) fn create(connect: &Connect, wanted: &Wanted) -> Result<(), Fault> {
    let Wanted { pool: pool_name, volume: name, capacity, format, image, backing } = *wanted;
    let what = format!("make volume `{name}` in pool `{pool_name}`");
    let pool = active_pool(connect, pool_name)?;
    let sparse = is_made_of_files(&pool::description(&pool, pool_name)?);
    match (image, backing) {
        (None, None) => {
            let definition = definition(name, capacity, format, sparse, None);
            StorageVol::create_xml(&pool, &definition, 0).during(what)?;
        }
        (None, Some(backing)) => {
            let (path, kind) = with_image(connect, backing, |vol| {
                let image = state(vol, &backing.volume)?;
                at_least(capacity, &image, &backing.volume)?;
                Ok((image.path, image.format))
            })?;
            let definition = definition(name, capacity, format, sparse, Some((&path, &kind)));
            StorageVol::create_xml(&pool, &definition, 0).during(what)?;
        }
        (Some(image), None) => with_image(connect, image, |source| {
            let size = {
                let image_state = state(source, &image.volume)?;
                at_least(capacity, &image_state, &image.volume)?;
                image_state.capacity
            };
            // Filled at the image's own size and grown as the last thing: one that was only half filled when the host
            // went down is smaller than asked for, and does not pass for done.
            let definition = definition(name, size, format, sparse, None);
            let made = StorageVol::create_xml_from(&pool, &definition, source, 0).during(what.clone())?;
            let grown = match state(&made, name)?.capacity < capacity {
                true => made.resize(capacity, 0).during(format!("grow the new volume `{name}`")),
                false => Ok(()),
            };
            if grown.is_err() {
                // Made by this very call, so it holds nothing of anybody's.
                let _ = made.delete(0);
            }
            grown
        })?,
        (Some(_), Some(_)) => {
            return Err(Fault::refused(
                format!("volume `{name}` cannot be filled from an image and laid over another at once"),
                "give `image` or `backingImage`",
            ));
        }
    }
    Ok(())
}

fn at_least(capacity: u64, image: &VolumeState, name: &str) -> Result<(), Fault> {
    if image.capacity <= capacity {
        return Ok(());
    }
    let why = format!("image `{name}` has {} bytes, more than the {capacity} that were asked for", image.capacity);
    Err(Fault::refused(why, "give the disk at least the image's size"))
}

/// Whether volumes are files. On the others (LVM) an allocation of nothing would mean a thin volume.
pub(super) fn is_made_of_files(pool: &Element) -> bool {
    matches!(pool.attribute("type"), Some("dir" | "fs" | "netfs" | "gluster" | "vstorage"))
}

/// The XML of a volume to be made.
pub(super) fn definition(
    name: &str,
    capacity: u64,
    format: &str,
    sparse: bool,
    backing: Option<(&str, &str)>,
) -> String {
    let kind = |format: &str| Element::new("format").with("type", format);
    let bytes = |name: &str, n: u64| Element::new(name).with("unit", "bytes").text_of(n.to_string());
    let mut volume =
        Element::new("volume").child(Element::new("name").text_of(name)).child(bytes("capacity", capacity));
    if sparse {
        volume = volume.child(bytes("allocation", 0));
    }
    volume = volume.child(Element::new("target").child(kind(format)));
    if let Some((path, format)) = backing {
        let path = Element::new("path").text_of(path);
        volume = volume.child(Element::new("backingStore").child(path).child(kind(format)));
    }
    volume.to_xml()
}

/// Does something with an image. One with a folder in front (`base/debian-12.qcow2`) is found through the pool at that
/// folder, which is made for the purpose and unmade again where there is none: libvirt's pools do not look into folders.
fn with_image<T>(
    connect: &Connect,
    source: &ImageSource,
    mut job: impl FnMut(&StorageVol) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let missing = || {
        Fault::refused(
            format!("image `{}` is not in pool `{}`", source.volume, source.pool),
            "put it there, or correct the name",
        )
    };
    let Some((folder, name)) = source.volume.rsplit_once('/') else {
        let pool = active_pool(connect, &source.pool)?;
        return job(&find(&pool, &source.volume)?.ok_or_else(missing)?);
    };
    if folder.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Fault::refused(format!("`{folder}` is not a folder inside the pool"), "name one without `..`"));
    }
    let outer = active_pool(connect, &source.pool)?;
    let target = xml::text_at(&pool::description(&outer, &source.pool)?, "target/path").ok_or_else(missing)?;
    let path = format!("{}/{folder}", target.trim_end_matches('/'));
    let digest: String = Sha256::digest(path.as_bytes()).iter().take(6).map(|b| format!("{b:02x}")).collect();
    let own_name = format!("drover-images-{digest}");
    let mut attempts = 3;
    loop {
        attempts -= 1;
        let pool = pool_at(connect, &path, &own_name)?;
        let result = refresh(&pool, &own_name).and_then(|()| job(&find(&pool, name)?.ok_or_else(missing)?));
        if pool.name().is_ok_and(|n| n == own_name) {
            // Refused while another volume is being filled from it; whoever ends last succeeds.
            let _ = pool.destroy();
        }
        match result {
            // Another call was through with the folder and took the pool away.
            Err(fault) if fault.is_absent() && attempts > 0 => {}
            other => return other,
        }
    }
}

/// The pool at a folder: the one that is there, or a transient one.
fn pool_at(connect: &Connect, path: &str, own_name: &str) -> Result<StoragePool, Fault> {
    let what = format!("look into `{path}`");
    match connect.lookup_storage_pool_by_target_path(path).during(&what) {
        Ok(pool) => return Ok(pool),
        Err(fault) if fault.is_absent() || fault.is_unsupported() => {}
        Err(fault) => return Err(fault),
    }
    let definition = Element::new("pool")
        .with("type", "dir")
        .child(Element::new("name").text_of(own_name))
        .child(Element::new("target").child(Element::new("path").text_of(path)));
    match connect.create_storage_pool_xml(&definition.to_xml(), 0).during(&what) {
        Ok(pool) => Ok(pool),
        // Another call made it first.
        Err(_) if pool::find(connect, own_name)?.is_some() => {
            connect.lookup_storage_pool_by_name(own_name).during(what)
        }
        Err(fault) => Err(fault),
    }
}

pub(super) fn look_resize(
    connect: &Connect,
    pool: &str,
    name: &str,
    capacity: u64,
    running: Option<&(Uuid, String)>,
) -> Result<Look, Fault> {
    let opened = match active_pool(connect, pool) {
        Err(Fault::Refused { why, .. }) => return Ok(Look::Refused { reason: why }),
        other => other?,
    };
    let Some(volume) = find(&opened, name)? else {
        return Ok(Look::Refused { reason: format!("there is no volume `{name}` in pool `{pool}`") });
    };
    let there = state(&volume, name)?;
    if there.capacity >= capacity {
        return Ok(Look::AlreadyDone);
    }
    let users = users(connect, |disk| disk.is(pool, name, &there.path))?;
    let active: Vec<_> = users.iter().filter(|u| u.active).cloned().collect();
    match running {
        None if !active.is_empty() => {
            let reason =
                format!("volume `{name}` is in use by {}, and would be changed behind its back", names(&active));
            Ok(Look::Refused { reason })
        }
        Some((uuid, _)) if !active.iter().any(|u| u.uuid == *uuid) => {
            Ok(Look::Refused { reason: format!("the domain that had volume `{name}` open does not run here any more") })
        }
        _ => Ok(Look::Ready),
    }
}

pub(super) fn resize(
    connect: &Connect,
    pool: &str,
    name: &str,
    capacity: u64,
    running: Option<&(Uuid, String)>,
) -> Result<(), Fault> {
    let opened = active_pool(connect, pool)?;
    let volume = opened.lookup_storage_vol_by_name(name).during(format!("look volume `{name}` up"))?;
    if state(&volume, name)?.capacity >= capacity {
        return Ok(());
    }
    let what = format!("grow volume `{name}` to {capacity} bytes");
    match running {
        Some((uuid, target)) => connect
            .lookup_domain_by_uuid_string(&uuid.to_string())
            .and_then(|d| d.block_resize(target, capacity, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES))
            .during(what)?,
        None => volume.resize(capacity, 0).during(what)?,
    }
    refresh(&opened, pool)
}

pub(super) fn look_delete(connect: &Connect, pool: &str, name: &str, path: &str) -> Result<Look, Fault> {
    let opened = match active_pool(connect, pool) {
        Err(Fault::Refused { why, .. }) => return Ok(Look::Refused { reason: why }),
        other => other?,
    };
    let Some(volume) = find(&opened, name)? else { return Ok(Look::AlreadyDone) };
    let there = volume.path().during(format!("read volume `{name}`"))?;
    if there != path {
        let reason = format!("volume `{name}` is at `{there}` now and not at `{path}` as when the plan was made");
        return Ok(Look::Refused { reason });
    }
    let users = users_and_arriving(connect, |disk| disk.is(pool, name, path))?;
    if let [_, ..] = users.as_slice() {
        return Ok(Look::Refused { reason: format!("volume `{name}` is in use by {}", names(&users)) });
    }
    Ok(match overlay_over(connect, path)? {
        None => Look::Ready,
        Some(above) => Look::Refused { reason: format!("volume `{name}` is the backing image of `{above}`") },
    })
}

pub(super) fn delete(connect: &Connect, pool: &str, name: &str) -> Result<(), Fault> {
    match find(&active_pool(connect, pool)?, name)? {
        Some(volume) => volume.delete(0).during(format!("delete volume `{name}` of pool `{pool}`")),
        None => Ok(()),
    }
}

/// A volume of the host's started pools that is an overlay over an image. The definition of a machine that is off names the
/// overlay only, so its users do not tell.
fn overlay_over(connect: &Connect, path: &str) -> Result<Option<String>, Fault> {
    for pool in connect.list_all_storage_pools(sys::VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE).during("list its pools")? {
        let listed = match pool.list_all_volumes(0).during("list the volumes of a pool") {
            // Stopped since it was asked.
            Err(_) if !pool.is_active().during("read a pool")? => continue,
            listed => listed?,
        };
        for volume in listed {
            let name = volume.name().during("read a volume's name")?;
            match state(&volume, &name) {
                Ok(found) if found.backing.as_deref() == Some(path) => return Ok(Some(name)),
                // Deleted behind the pool's back: the pool lists it until it is refreshed.
                Err(fault) if !(fault.is_absent() || fault.says("no such file")) => return Err(fault),
                _ => {}
            }
        }
    }
    Ok(None)
}

/// Deletes a volume that no domain of the host has, and no other volume is an overlay over.
pub(super) fn delete_unused(c: &Connect, pool: &str, found: &StorageVol, name: &str) -> Result<(), Fault> {
    let path = found.path().during(format!("read volume `{name}`"))?;
    let users = users(c, |d| d.is(pool, name, &path))?;
    if !users.is_empty() {
        let why = format!("volume `{name}` is in use by {}", names(&users));
        return Err(Fault::refused(why, "it is left alone"));
    }
    if let Some(above) = overlay_over(c, &path)? {
        let why = format!("volume `{name}` is the backing image of `{above}`");
        return Err(Fault::refused(why, "it is left alone"));
    }
    found.delete(0).during(format!("delete volume `{name}` of pool `{pool}`"))
}

/// A disk of a domain, as far as it says where its data is.
pub(super) struct DiskSource {
    /// Its file or device.
    pub path: Option<String>,
    /// Its pool, for a disk that names its volume.
    pub pool: Option<String>,
    /// Its volume.
    pub volume: Option<String>,
}

impl DiskSource {
    /// Whether it is this volume.
    pub(super) fn is(&self, pool: &str, volume: &str, path: &str) -> bool {
        self.path.as_deref() == Some(path)
            || (self.pool.as_deref() == Some(pool) && self.volume.as_deref() == Some(volume))
    }

    /// Every source in a domain's definition: disks, with the images below them where libvirt lists those.
    pub(super) fn of(domain: &Element) -> Vec<Self> {
        fn collect(element: &Element, into: &mut Vec<DiskSource>) {
            for source in element.all("source") {
                let get = |name: &str| source.attribute(name).map(str::to_owned);
                into.push(DiskSource {
                    path: get("file").or_else(|| get("dev")),
                    pool: get("pool"),
                    volume: get("volume"),
                });
            }
            for below in element.all("backingStore").chain(element.all("mirror")) {
                collect(below, into);
            }
        }
        let mut sources = Vec::new();
        for disk in xml::below(domain, "devices", "disk") {
            collect(disk, &mut sources);
        }
        sources
    }
}

/// A domain that uses a disk.
#[derive(Clone)]
pub(super) struct User {
    pub name: String,
    pub uuid: Uuid,
    pub active: bool,
}

/// The names of users, for a message.
pub(super) fn names(users: &[User]) -> String {
    users.iter().map(|u| format!("`{}`", u.name)).collect::<Vec<_>>().join(", ")
}

/// The domains of the host that use a disk that `is_it` picks, and those that are just arriving, whose disks libvirt does
/// not tell: before anything is taken away, they count as users.
pub(super) fn users_and_arriving(connect: &Connect, is_it: impl Fn(&DiskSource) -> bool) -> Result<Vec<User>, Fault> {
    let mut found = users(connect, is_it)?;
    for domain in connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE).during("list its domains")? {
        match observe::read_domain(&domain) {
            Ok(s) if observe::is_arriving(s.state, &s.reason) => {
                found.push(User { name: s.name, uuid: s.uuid, active: true });
            }
            Err(fault) if !fault.is_absent() => return Err(fault),
            _ => {}
        }
    }
    Ok(found)
}

/// The domains of the host, running or only defined, with a disk that `is_it` picks.
pub(super) fn users(connect: &Connect, is_it: impl Fn(&DiskSource) -> bool) -> Result<Vec<User>, Fault> {
    let mut found = Vec::new();
    for domain in connect.list_all_domains(0).during("list its domains")? {
        let state = match observe::read_domain(&domain) {
            Err(fault) if fault.is_absent() => continue,
            other => other?,
        };
        for text in state.live_xml.iter().chain(&state.persistent_xml) {
            let definition = xml::parse(text, &format!("read the definition of `{}`", state.name))?;
            if DiskSource::of(&definition).iter().any(&is_it) {
                found.push(User { name: state.name.clone(), uuid: state.uuid, active: state.is_active() });
                break;
            }
        }
    }
    Ok(found)
}

/// Copies the content of a volume to the volume of the same name that is ready on another host, through this process,
/// hole by hole. libvirt moves no storage with a machine that is off.
pub(super) async fn copy_between(
    from: &Host,
    to: &Host,
    volume: &MigratedVolume,
    deadline: Duration,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
    stop: tokio_util::sync::CancellationToken,
) -> Result<(), Fault> {
    let target: Arc<Session> = to.dedicated(deadline).await?;
    let (volume, to_name) = (volume.clone(), to.name.clone());
    let what = format!("copy volume `{}`", volume.volume);
    from.call_alone(&what.clone(), deadline, move |source| {
        let target = target.connect().ok_or_else(|| Fault::odd(what.clone(), "the connection is closed"))?;
        let read =
            source.lookup_storage_vol_by_path(&volume.path).during(format!("look volume `{}` up", volume.volume))?;
        let written = target
            .lookup_storage_pool_by_name(&volume.to_pool)
            .and_then(|p| p.lookup_storage_vol_by_name(&volume.volume))
            .during(format!("look the new volume `{}` up", volume.volume))
            .map_err(|f| f.at(&to_name))?;
        let down = Stream::new(source, 0).during(&what)?;
        let up = Stream::new(target, 0).during(&what).map_err(|f| f.at(&to_name))?;
        read.download(&down, 0, 0, sys::VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM).during(&what)?;
        written
            .upload(&up, 0, 0, sys::VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            .during(&what)
            .map_err(|f| f.at(&to_name))?;
        match pump(&down, &up, volume.capacity, progress.as_ref(), &|| stop.is_cancelled()) {
            Ok(()) => {
                down.finish().during(&what)?;
                up.finish().during(what).map_err(|f| f.at(&to_name))
            }
            Err(fault) => {
                let _ = (down.abort(), up.abort());
                Err(fault)
            }
        }
    })
    .await
}

/// Moves a sparse stream's pieces from one side to the other.
fn pump(
    down: &Stream,
    up: &Stream,
    total: u64,
    progress: &(dyn Fn(Progress) + Send + Sync),
    stop: &dyn Fn() -> bool,
) -> Result<(), Fault> {
    let what = "copy a volume";
    // libvirt's stream packets carry at most 256 KiB.
    let mut buffer = vec![0; 256 * 1024];
    let (begun, mut told) = (Instant::now(), Instant::now());
    let (mut position, mut sent) = (0_u64, 0_u64);
    loop {
        if stop() {
            return Err(Fault::left("the copy was interrupted; the next attempt begins it anew"));
        }
        match ffi::receive(down, &mut buffer).during(what)? {
            ffi::Piece::End => return Ok(()),
            ffi::Piece::Hole(length) => {
                ffi::send_hole(up, length).during(what)?;
                position = position.saturating_add(length.unsigned_abs());
            }
            ffi::Piece::Data(length) => {
                let mut rest = buffer.get(..length).unwrap_or_default();
                while !rest.is_empty() {
                    let n = usize::try_from(up.send(rest).during(what)?).unwrap_or(0);
                    if n == 0 {
                        return Err(Fault::odd(what, "the stream takes no more"));
                    }
                    rest = rest.get(n..).unwrap_or_default();
                }
                position += length as u64;
                sent += length as u64;
            }
        }
        if told.elapsed() >= Duration::from_millis(500) {
            told = Instant::now();
            let elapsed = begun.elapsed();
            progress(Progress {
                phase: "copying disks".into(),
                processed: position,
                remaining: total.saturating_sub(position),
                total: total.max(position),
                rate: (u128::from(sent) * 1000 / elapsed.as_millis().max(1)).try_into().unwrap_or(u64::MAX),
                iteration: 0,
                completed: false,
                elapsed_millis: elapsed.as_millis().try_into().unwrap_or(u64::MAX),
                downtime_millis: 0,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_markup_in_them_stay_names() {
        let text = definition("a<b>&\"", 1 << 30, "qcow2", true, Some(("/base<", "raw")));
        let e = crate::domain_xml::parse(&text).unwrap();
        assert_eq!(xml::text_at(&e, "name").unwrap(), "a<b>&\"");
        assert_eq!(xml::text_at(&e, "capacity").unwrap(), "1073741824");
        assert_eq!(xml::text_at(&e, "backingStore/path").unwrap(), "/base<");
        assert_eq!(e.attribute_at("backingStore/format", "type"), Some("raw"));
    }

    #[test]
    fn a_disk_is_known_by_path_by_volume_and_as_a_backing_image() {
        let domain = crate::domain_xml::parse(
            "<domain><devices>
               <disk type='file'><source file='/p/a'/><backingStore type='file'><source file='/p/base'/></backingStore></disk>
               <disk type='volume'><source pool='images' volume='b'/></disk>
               <disk type='block'><source dev='/dev/vg/c'/></disk></devices></domain>",
        )
        .unwrap();
        let sources = DiskSource::of(&domain);
        let used = |pool, volume, path| sources.iter().any(|s| s.is(pool, volume, path));
        assert!(used("images", "a", "/p/a") && used("images", "base", "/p/base") && used("images", "b", "/p/b"));
        assert!(used("vg", "c", "/dev/vg/c") && !used("images", "d", "/p/d"));
    }
}
