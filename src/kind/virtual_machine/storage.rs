//! Where a machine's disks are: from `pool` and `volume`, `file` or `block` to a path on a host.

use super::identity::first_name;
use super::{Disk, DiskDevice, DiskFormat, VirtualMachineSpec};
use crate::finding::{Code, Finding};
use crate::kind::Resources;
use crate::kind::storage_pool::{PoolType, StoragePoolSpec};
use crate::model::Manifest;
use crate::observed::HostState;

/// Where a disk is on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskSource {
    /// A file.
    File(String),
    /// A block device.
    Block(String),
    /// Nowhere: a CD-ROM drive without a medium.
    Empty,
}

impl DiskSource {
    /// The path on the host.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::File(path) | Self::Block(path) => Some(path),
            Self::Empty => None,
        }
    }

    /// libvirt's type of the disk, and the attribute of `<source>` that holds its path.
    pub(super) fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::Block(_) => ("block", "dev"),
            Self::File(_) | Self::Empty => ("file", "file"),
        }
    }
}

/// A volume that a machine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeWish {
    /// The disk's name in the manifest.
    pub disk: String,
    /// Its place in the list of disks.
    pub index: usize,
    /// The name of the StoragePool manifest.
    pub pool: String,
    /// The pool's name in libvirt.
    pub libvirt_pool: String,
    /// The volume's name.
    pub volume: String,
    /// Size that the guest sees, in bytes: the stated one, or the image's. `None` where neither is known: then a volume
    /// that is missing cannot be made.
    pub capacity: Option<u64>,
    /// The format that a missing volume is made in.
    pub format: DiskFormat,
    /// Whether the manifest states the format; a volume that is there is only held to a stated one.
    pub format_is_stated: bool,
    /// The volume that a missing one is filled from.
    pub image: Option<String>,
    /// The volume that a missing one is an overlay of.
    pub backing: Option<String>,
    /// Its path on the host.
    pub path: String,
    /// Whether the pool is the same storage on all its hosts.
    pub shared: bool,
    /// Whether the manifest expects the volume to be there: a CD-ROM image, or a disk without size, image and backing
    /// image.
    pub must_exist: bool,
}

/// The volumes that a machine needs on a host, in the order of its disks.
///
/// # Errors
/// A finding at the disk whose place cannot be told.
pub fn volumes(
    m: &Manifest<VirtualMachineSpec>,
    host: &HostState,
    resources: &Resources,
) -> Result<Vec<VolumeWish>, Finding> {
    let mut wishes = Vec::new();
    for (index, disk) in m.spec.disks.iter().flatten().enumerate() {
        let Some((pool, manifest)) = pool_of(m, disk, index, resources)? else { continue };
        let libvirt_pool = pool.libvirt_name(manifest).to_owned();
        let volume = volume_name(m, disk, Some(pool));
        let path = volume_path(m, index, pool, &libvirt_pool, &volume, host)?;
        let state = host.pools.get(&libvirt_pool);
        let source = disk.image.as_ref().or(disk.backing_image.as_ref());
        let capacity = disk.size.map(|s| s.0).or_else(|| Some(state?.volumes.get(source?)?.capacity));
        wishes.push(VolumeWish {
            disk: disk.name.clone(),
            index,
            pool: manifest.to_owned(),
            capacity,
            format: format_of(disk, Some(pool)),
            format_is_stated: disk.format.is_some(),
            image: disk.image.clone(),
            backing: disk.backing_image.clone(),
            path,
            shared: pool.shared,
            must_exist: disk.device == DiskDevice::Cdrom || (disk.size.is_none() && source.is_none()),
            libvirt_pool,
            volume,
        });
    }
    Ok(wishes)
}

/// Where a disk is on a host.
///
/// # Errors
/// A finding at the disk when its pool is not declared, has no target, or is of a type whose volumes have no path.
pub fn disk_path(
    m: &Manifest<VirtualMachineSpec>,
    index: usize,
    disk: &Disk,
    host: &HostState,
    resources: &Resources,
) -> Result<DiskSource, Finding> {
    if let Some((pool, manifest)) = pool_of(m, disk, index, resources)? {
        let libvirt_pool = pool.libvirt_name(manifest);
        let volume = volume_name(m, disk, Some(pool));
        let path = volume_path(m, index, pool, libvirt_pool, &volume, host)?;
        return Ok(if is_block(pool.r#type) { DiskSource::Block(path) } else { DiskSource::File(path) });
    }
    Ok(match (&disk.file, &disk.block) {
        (Some(file), _) => DiskSource::File(file.clone()),
        (None, Some(block)) => DiskSource::Block(block.clone()),
        (None, None) => DiskSource::Empty,
    })
}

/// The name of a disk's volume: the stated one, or `<machine>-<disk>.<format>` with the machine's first name, so that a
/// rename leaves its volumes alone.
pub fn volume_name(m: &Manifest<VirtualMachineSpec>, disk: &Disk, pool: Option<&StoragePoolSpec>) -> String {
    disk.volume.clone().unwrap_or_else(|| {
        let extension = match format_of(disk, pool) {
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Raw => "raw",
        };
        format!("{}-{}.{extension}", first_name(m), disk.name)
    })
}

/// The format of a disk: the stated one; else `raw` where a file system is missing or the guest reads a CD; else as the
/// file's name says.
pub(super) fn format_of(disk: &Disk, pool: Option<&StoragePoolSpec>) -> DiskFormat {
    let by_name = |name: &str| {
        if name.ends_with(".qcow2") || name.ends_with(".qcow") { DiskFormat::Qcow2 } else { DiskFormat::Raw }
    };
    disk.format.unwrap_or(match (pool, &disk.volume, &disk.file) {
        _ if disk.device == DiskDevice::Cdrom => DiskFormat::Raw,
        (Some(pool), _, _) if is_block(pool.r#type) => DiskFormat::Raw,
        (Some(_), Some(volume), _) if disk.image.is_none() && disk.size.is_none() => by_name(volume),
        (Some(_), _, _) => DiskFormat::Qcow2,
        (None, _, Some(file)) => by_name(file),
        (None, _, None) => DiskFormat::Raw,
    })
}

/// Whether a path is the wanted storage: the path itself, or an overlay over it that a snapshot made. `chain` is the
/// backing chain that the live definition shows.
pub(super) fn same_storage(found: &str, wanted: &str, chain: &[String], host: &HostState) -> bool {
    if found == wanted || chain.iter().any(|path| path == wanted) {
        return true;
    }
    // The pools know the backing image of each volume; a chain longer than this is not one that people make.
    let mut at = found;
    for _ in 0..32 {
        let backing = host.pools.values().flat_map(|p| p.volumes.values()).find(|v| v.path == at);
        match backing.and_then(|v| v.backing.as_deref()) {
            Some(path) if path == wanted => return true,
            Some(path) => at = path,
            None => return false,
        }
    }
    false
}

fn pool_of<'a>(
    m: &Manifest<VirtualMachineSpec>,
    disk: &'a Disk,
    index: usize,
    resources: &'a Resources,
) -> Result<Option<(&'a StoragePoolSpec, &'a str)>, Finding> {
    let Some(name) = &disk.pool else { return Ok(None) };
    match resources.storage_pools.get(name) {
        Some(pool) => Ok(Some((&pool.spec, name))),
        None => Err(Finding::new(
            Code::MissingReference,
            format!("disk `{}` is in pool `{name}`, which is not declared", disk.name),
        )
        .hint(format!("declare a StoragePool `{name}`, or name one that is"))
        .of(m, &format!("spec.disks[{index}].pool"))),
    }
}

fn volume_path(
    m: &Manifest<VirtualMachineSpec>,
    index: usize,
    pool: &StoragePoolSpec,
    libvirt_pool: &str,
    volume: &str,
    host: &HostState,
) -> Result<String, Finding> {
    let state = host.pools.get(libvirt_pool);
    if let Some(there) = state.and_then(|s| s.volumes.get(volume)) {
        return Ok(there.path.clone());
    }
    let source = pool.source.as_ref().and_then(|s| s.name.as_deref()).unwrap_or(libvirt_pool);
    let target = state.and_then(|s| s.target.as_deref()).or(pool.target.as_deref());
    let below = match (pool.r#type, target) {
        (PoolType::Rbd, _) => {
            return Err(Finding::new(
                Code::Incompatible,
                format!("volumes of pool `{libvirt_pool}` have no path on a host: its type is rbd"),
            )
            .hint("write the disk as a network disk in `xml` or `xmlPatches`")
            .of(m, &format!("spec.disks[{index}].pool")));
        }
        // What LVM and ZFS call their devices; a pool's target says the same where it is given.
        (PoolType::Logical, None) => format!("/dev/{source}"),
        (PoolType::Zfs, _) => format!("/dev/zvol/{source}"),
        (_, Some(target)) => target.trim_end_matches('/').to_owned(),
        (_, None) => {
            return Err(Finding::new(
                Code::MissingField,
                format!("where pool `{libvirt_pool}` keeps its volumes is not known: it has no target"),
            )
            .hint("give the StoragePool a `target`")
            .of(m, &format!("spec.disks[{index}].pool")));
        }
    };
    Ok(format!("{below}/{volume}"))
}

pub(super) fn is_block(pool: PoolType) -> bool {
    match pool {
        PoolType::Dir | PoolType::Fs | PoolType::Netfs => false,
        PoolType::Logical
        | PoolType::Disk
        | PoolType::Iscsi
        | PoolType::Scsi
        | PoolType::Mpath
        | PoolType::Rbd
        | PoolType::Zfs => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{host, machine, resources};
    use super::*;
    use crate::observed::VolumeState;

    #[test]
    fn volumes_have_names_and_paths_before_they_are_there() {
        let m = machine(
            "web-1",
            "{formerNames: [www], memory: 1Gi, disks: [{name: root, pool: images, size: 20Gi, image: base.qcow2},
              {name: data, pool: vg, size: 1Gi}, {name: cd, device: cdrom, file: /iso/a.iso},
              {name: old, pool: images, volume: kept.img}]}",
        );
        let (host, resources) = (host(), resources());
        let wishes = volumes(&m, &host, &resources).unwrap();
        let seen: Vec<_> = wishes.iter().map(|w| (w.disk.as_str(), w.path.as_str(), w.format, w.must_exist)).collect();
        assert_eq!(
            seen,
            [
                ("root", "/var/lib/libvirt/images/www-root.qcow2", DiskFormat::Qcow2, false),
                ("data", "/dev/vg0/www-data.raw", DiskFormat::Raw, false),
                ("old", "/var/lib/libvirt/images/kept.img", DiskFormat::Raw, true),
            ]
        );
        let cd = &m.spec.disks.as_ref().unwrap()[2];
        assert_eq!(disk_path(&m, 2, cd, &host, &resources).unwrap(), DiskSource::File("/iso/a.iso".into()));
    }

    #[test]
    fn a_volume_that_is_there_says_where_it_is() {
        let m = machine("a", "{memory: 1Gi, disks: [{name: root, pool: images, image: base.qcow2}]}");
        let mut host = host();
        let pool = host.pools.get_mut("images").unwrap();
        let there = |path: &str| VolumeState { path: path.into(), capacity: 7 << 30, ..Default::default() };
        pool.volumes.insert("a-root.qcow2".into(), there("/mnt/elsewhere/a-root.qcow2"));
        pool.volumes.insert("base.qcow2".into(), there("/mnt/elsewhere/base.qcow2"));
        let wishes = volumes(&m, &host, &resources()).unwrap();
        assert_eq!(wishes[0].path, "/mnt/elsewhere/a-root.qcow2");
        assert_eq!(wishes[0].capacity, Some(7 << 30), "the image's, where none is stated");
    }

    #[test]
    fn a_snapshots_overlay_is_the_same_storage() {
        let mut host = host();
        let pool = host.pools.get_mut("images").unwrap();
        for (path, backing) in [("/i/b", Some("/i/a")), ("/i/c", Some("/i/b")), ("/i/l", Some("/i/l"))] {
            let volume = VolumeState { path: path.into(), backing: backing.map(Into::into), ..Default::default() };
            pool.volumes.insert(path.into(), volume);
        }
        assert!(same_storage("/i/c", "/i/a", &[], &host));
        assert!(!same_storage("/i/a", "/i/c", &[], &host));
        assert!(same_storage("/x/top", "/x/base", &["/x/mid".into(), "/x/base".into()], &host));
        assert!(!same_storage("/i/l", "/i/a", &[], &host), "a loop ends");
    }

    #[test]
    fn a_pool_that_is_not_declared_is_a_finding_at_its_disk() {
        let m = machine("a", "{memory: 1Gi, disks: [{name: root, pool: nowhere}]}");
        let finding = volumes(&m, &host(), &resources()).unwrap_err();
        assert_eq!((finding.code, finding.path.as_deref()), (Code::MissingReference, Some("spec.disks[0].pool")));
    }
}
