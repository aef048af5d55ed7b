//! Whether what a manifest calls shared storage is the same on both hosts, and what it calls separate is not.

use super::{Move, Sheet};
use crate::kind::storage_pool::{Sharing, StoragePoolSpec, sharing, takes_markers};
use crate::model::Manifest;
use crate::plan::{Fact, Precheck};

/// Looks at a pool that a disk is in, on both hosts. `false` where the disk must not be moved by what the manifest says.
pub(super) fn check(mv: &Move<'_>, pool: &Manifest<StoragePoolSpec>, disk: &str, sheet: &mut Sheet<'_>) -> bool {
    let name = pool.spec.libvirt_name(pool.name());
    match (pool.spec.shared, sharing(pool, mv.ctx.observed, mv.from, mv.to)) {
        (true, Sharing::Same) => sheet.pass(
            Precheck::SharedStorage,
            format!(
                "pool `{name}` of disk {disk} is the same storage on `{}` and `{}`: both see its marker",
                mv.from, mv.to
            ),
        ),
        (true, Sharing::NotKnown) if !takes_markers(pool.spec.r#type) => sheet.unknown(
            Precheck::SharedStorage,
            format!(
                "pool `{name}` of disk {disk} is declared as shared; for pools of its type that cannot be looked at"
            ),
        ),
        (true, Sharing::NotKnown) => sheet.unknown(
            Precheck::SharedStorage,
            format!("nobody has looked yet whether pool `{name}` of disk {disk} is the same storage on both hosts"),
        ),
        (true, Sharing::Different) => {
            sheet.fail(
                Precheck::SharedStorage,
                format!("pool `{name}` of disk {disk} is one storage on `{}` and another on `{}`", mv.from, mv.to),
                "mount the same storage on both and refresh the pool (`virsh pool-refresh`), or take `shared: true` out of the StoragePool",
            );
            return false;
        }
        (false, Sharing::Same) => {
            sheet.fail(
                Precheck::SharedStorage,
                format!(
                    "pool `{name}` of disk {disk} is the same storage on `{}` and `{}`: a copy would be written onto itself",
                    mv.from, mv.to
                ),
                "write `shared: true` in the StoragePool",
            );
            return false;
        }
        (false, Sharing::Different | Sharing::NotKnown) => {}
    }
    true
}

/// What must have been looked at before a machine moves over shared pools.
pub(crate) fn needs(mv: &Move<'_>) -> Vec<Fact> {
    let mut facts = Vec::new();
    for disk in crate::domain_xml::local_disks(mv.lasting_xml()) {
        // A folder of media may be one that nobody can write a marker to, and no data is lost on it.
        let pool = super::disks::pool_of(mv, &disk).filter(|p| p.spec.shared && !disk.read_only);
        let Some(pool) = pool else { continue };
        for host in [mv.from, mv.to] {
            let pool = pool.spec.libvirt_name(pool.name()).to_owned();
            facts.push(Fact::PoolShared { host: host.into(), pool });
        }
    }
    facts
}
