//! What the markers in pools tell of them: see `kind/storage_pool/sharing.rs`.

use super::{Move, storage};
use crate::domain_xml;
use crate::kind::storage_pool::{Sharing, StoragePoolSpec, sharing};
use crate::model::Manifest;
use crate::plan::Fact;

/// Whether a pool is one storage on the two hosts, as far as anybody has looked.
pub(super) fn by_markers(mv: &Move<'_>, pool: &Manifest<StoragePoolSpec>) -> Sharing {
    sharing(pool, mv.ctx.observed, mv.from, mv.to)
}

/// What must have been looked at before a machine moves over shared pools.
pub(super) fn needs(mv: &Move<'_>) -> Vec<Fact> {
    let mut facts = Vec::new();
    for disk in domain_xml::local_disks(mv.lasting_xml()) {
        // A folder of media may be one that nobody can write a marker to, and no data is lost on it.
        let Some(pool) = storage::shared_pool(mv, &disk.path).filter(|_| !disk.read_only) else { continue };
        for host in [mv.from, mv.to] {
            let pool = pool.spec.libvirt_name(pool.name()).to_owned();
            facts.push(Fact::PoolShared { host: host.into(), pool });
        }
    }
    facts
}
