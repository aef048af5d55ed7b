//! Whether a pool really is one storage on its hosts: read off the markers that its hosts see in it.
//!
//! A host's own marker has an id that is made of the pool and the host's UUID, so no two hosts write the same one. A host
//! that sees another's marker has the other's storage; hosts that both see markers, and none in common, have not. A host
//! that sees none has not been looked at yet.

use super::{PoolType, StoragePoolSpec};
use crate::model::Manifest;
use crate::observed::{HostState, Observed, PoolState};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What is known of a pool on two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The same storage.
    Same,
    /// Two storages.
    Different,
    /// Nobody has looked.
    NotKnown,
}

/// What the markers say of a pool on two hosts.
pub fn sharing(pool: &Manifest<StoragePoolSpec>, observed: &Observed, one: &str, other: &str) -> Sharing {
    match (state(pool, observed, one), state(pool, observed, other)) {
        (Some(a), Some(b)) => of_markers(&a.markers, &b.markers),
        _ => Sharing::NotKnown,
    }
}

pub(super) fn of_markers(one: &BTreeSet<Uuid>, other: &BTreeSet<Uuid>) -> Sharing {
    match () {
        () if !one.is_disjoint(other) => Sharing::Same,
        () if one.is_empty() || other.is_empty() => Sharing::NotKnown,
        () => Sharing::Different,
    }
}

/// The pool on a host, where it is started: what a stopped one has is not known.
pub(super) fn state<'o>(pool: &Manifest<StoragePoolSpec>, observed: &'o Observed, host: &str) -> Option<&'o PoolState> {
    observed.host(host)?.pools.get(pool.spec.libvirt_name(pool.name())).filter(|p| p.active)
}

/// Whether markers can be laid into pools of this type, and say something: volumes are files there. Elsewhere a volume is
/// a partition or a device, and nobody wants one for this.
pub(super) fn takes_markers(kind: PoolType) -> bool {
    matches!(kind, PoolType::Dir | PoolType::Fs | PoolType::Netfs)
}

/// The id of a host's own marker in a pool.
pub(super) fn own_marker(fleet: &str, pool: &Manifest<StoragePoolSpec>, host: &str, state: &HostState) -> Uuid {
    let host = if state.uuid.is_empty() { host } else { &state.uuid };
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("drover-pool:{fleet}/{}/{host}", pool.name()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_share_what_they_see_the_same_marker_in() {
        let set = |ids: &[u128]| ids.iter().map(|n| Uuid::from_u128(*n)).collect::<BTreeSet<_>>();
        assert_eq!(of_markers(&set(&[1]), &set(&[1, 2])), Sharing::Same);
        assert_eq!(of_markers(&set(&[1]), &set(&[2])), Sharing::Different);
        assert_eq!(of_markers(&set(&[1]), &set(&[])), Sharing::NotKnown);
        assert_eq!(of_markers(&set(&[]), &set(&[])), Sharing::NotKnown);
    }
}
