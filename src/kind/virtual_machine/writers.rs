//! Who writes to which storage: the disks of the domains that run. Two guests that write to one image destroy it, and
//! libvirt's own locks are off by default (`lock_manager` of qemu.conf) or do not reach as far as the storage does.

use crate::domain_xml::{self, Element};
use crate::kind::Resources;
use crate::kind::storage_pool::StoragePoolSpec;
use crate::model::Manifest;
use crate::observed::{DomainState, HostState, Observed, Reading};
use std::collections::HashMap;
use uuid::Uuid;

/// A running domain that writes to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    /// Its host.
    pub(super) host: String,
    /// Its UUID.
    pub(super) uuid: Uuid,
    /// Its name.
    pub(super) name: String,
}

/// Every running domain's disks, by path. Disks that a guest only reads, and those that several may have, are not in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Writers(HashMap<String, Vec<Writer>>);

impl Writers {
    /// Reads the definitions of all domains that run.
    pub(super) fn new(observed: &Observed) -> Self {
        let mut by_path: HashMap<String, Vec<Writer>> = HashMap::new();
        for (host, reading) in &observed.hosts {
            let Reading::Present(state) = reading else { continue };
            for domain in state.domains.iter().filter(|d| d.is_active()) {
                let Some(xml) = &domain.live_xml else { continue };
                for path in written(xml, state) {
                    let writer = Writer { host: host.clone(), uuid: domain.uuid, name: domain.name.clone() };
                    by_path.entry(path).or_default().push(writer);
                }
            }
        }
        Self(by_path)
    }

    /// A domain, other than the one that is meant, that writes to one of these disks, and which disk. On other hosts only what
    /// is in a pool that is declared as shared is the same disk.
    pub(super) fn other_than(
        &self,
        uuid: Uuid,
        (host, state): (&str, &HostState),
        paths: Vec<String>,
        resources: &Resources,
        observed: &Observed,
    ) -> Option<(&Writer, String)> {
        for path in paths {
            let here = self.of(&path).iter().find(|w| w.uuid != uuid && w.host == host);
            if let Some(writer) = here.or_else(|| self.elsewhere(uuid, (host, state), &path, resources, observed)) {
                return Some((writer, path));
            }
        }
        None
    }

    fn of(&self, path: &str) -> &[Writer] {
        self.0.get(path).map(Vec::as_slice).unwrap_or_default()
    }

    fn elsewhere(
        &self,
        uuid: Uuid,
        (host, state): (&str, &HostState),
        path: &str,
        resources: &Resources,
        observed: &Observed,
    ) -> Option<&Writer> {
        let in_pool = state.pools.iter().find_map(|(pool, p)| {
            // A file has its volume's name; to look through all of a large pool is for the others.
            let by_name = path.rsplit('/').next().and_then(|file| p.volumes.get_key_value(file));
            let by_name = by_name.filter(|(_, v)| v.path == path);
            let found = by_name.or_else(|| p.volumes.iter().find(|(_, v)| v.path == path));
            Some((pool, found?.0))
        });
        let (pool, volume) = in_pool?;
        let mut pools = resources.storage_pools.values();
        let is_it = |p: &&Manifest<StoragePoolSpec>| {
            p.spec.shared && p.spec.libvirt_name(p.name()) == pool && p.spec.hosts.iter().any(|h| h == host)
        };
        let manifest = pools.find(is_it)?;
        manifest.spec.hosts.iter().filter(|other| *other != host).find_map(|other| {
            let there = observed.host(other)?.pools.get(pool)?.volumes.get(volume)?;
            self.of(&there.path).iter().find(|w| w.uuid != uuid && w.host == *other)
        })
    }
}

/// The paths of the disks that a guest of this definition writes to and has for itself.
pub(super) fn written(xml: &str, host: &HostState) -> Vec<String> {
    let Ok(tree) = domain_xml::parse(xml) else { return Vec::new() };
    let disks = tree.get("devices").into_iter().flat_map(|d| d.all("disk"));
    let own = disks.filter(|d| {
        let is_read = d.get("readonly").is_some() || matches!(d.attribute("device"), Some("cdrom" | "floppy"));
        !is_read && d.get("shareable").is_none() && d.get("transient").is_none()
    });
    own.filter_map(|d| path(d, host)).collect()
}

fn path(disk: &Element, host: &HostState) -> Option<String> {
    let source = disk.get("source")?;
    if let Some(path) = source.attribute("file").or(source.attribute("dev")) {
        return Some(path.to_owned()).filter(|p| !p.is_empty());
    }
    let (pool, volume) = (source.attribute("pool")?, source.attribute("volume")?);
    Some(host.pools.get(pool)?.volumes.get(volume)?.path.clone())
}

/// The definition by which a domain that is off will start.
pub(super) fn definition(domain: &DomainState) -> &str {
    domain.persistent_xml.as_deref().or(domain.live_xml.as_deref()).unwrap_or_default()
}
