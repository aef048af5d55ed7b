//! Whether a pool really is one storage on its hosts: read off the markers that its hosts see in it.
//!
//! A host's own marker has an id that is made of the pool and the host's UUID, so no two hosts write the same one. A host
//! that sees another's marker has the other's storage; hosts that both see markers, and none in common, have not. A host
//! that sees none has not been looked at yet.
//!
//! A pool of devices takes no markers. What tells there are numbers that the storage itself gave its volumes. Two hosts
//! that list the same numbers have one storage; where they have none in common they have not. Where some are the same it
//! cannot be told: one of the lists may be old, or a host's own disk be a clone of the other's.

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
        (Some(a), Some(b)) => match pool.spec.r#type {
            kind if takes_markers(kind) => of_markers(&a.markers, &b.markers),
            PoolType::Logical | PoolType::Scsi => of_numbers(&a.numbers, &b.numbers),
            // Targets number their units alike (`1IET 00010001`), so the same numbers say nothing; server and name of the
            // target, which the definitions have, do.
            PoolType::Iscsi if of_numbers(&a.numbers, &b.numbers) == Sharing::Different => Sharing::Different,
            _ => Sharing::NotKnown,
        },
        _ => Sharing::NotKnown,
    }
}

fn of_numbers(one: &BTreeSet<String>, other: &BTreeSet<String>) -> Sharing {
    match () {
        () if one.is_empty() || other.is_empty() => Sharing::NotKnown,
        () if one == other => Sharing::Same,
        () if one.is_disjoint(other) => Sharing::Different,
        () => Sharing::NotKnown,
    }
}

/// What a person can compare on two hosts where nothing that libvirt tells does.
pub fn compare_by_hand(pool: &Manifest<StoragePoolSpec>) -> String {
    let source = pool.spec.source.as_ref();
    let name = source.and_then(|s| s.name.as_deref()).unwrap_or(pool.spec.libvirt_name(pool.name()));
    match pool.spec.r#type {
        PoolType::Logical => format!("compare `vgs -o vg_uuid {name}` on both hosts"),
        PoolType::Disk => {
            let device = source.and_then(|s| s.devices.first()).map(|d| format!(" {d}")).unwrap_or_default();
            format!("compare `lsblk -do WWN,SERIAL{device}` on both hosts")
        }
        PoolType::Scsi | PoolType::Mpath | PoolType::Iscsi => {
            "compare `lsblk -do WWN,SERIAL` of its devices on both hosts".into()
        }
        PoolType::Zfs => format!(
            "compare `zpool get guid {name}` on both hosts; a ZFS pool is for one host at a time, and is destroyed by two"
        ),
        PoolType::Rbd => "compare `ceph fsid` on both hosts".into(),
        PoolType::Dir | PoolType::Fs | PoolType::Netfs => "the plan looks for it with a marker".into(),
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

    #[test]
    fn devices_are_the_same_where_all_their_numbers_are() {
        let set = |ids: &[&str]| ids.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(of_numbers(&set(&["x", "y"]), &set(&["x", "y"])), Sharing::Same);
        assert_eq!(of_numbers(&set(&["x"]), &set(&["y"])), Sharing::Different);
        assert_eq!(of_numbers(&set(&["x", "y"]), &set(&["x"])), Sharing::NotKnown, "an old list, or a clone");
        assert_eq!(of_numbers(&set(&[]), &set(&["x"])), Sharing::NotKnown);
    }

    #[test]
    fn what_libvirt_does_not_tell_is_compared_by_hand_with_these_commands() {
        let words = |spec: &str| {
            compare_by_hand(&Manifest {
                kind: "StoragePool".into(),
                metadata: crate::model::Metadata { name: "p".into(), ..Default::default() },
                spec: serde_yaml::from_str(&format!("{{hosts: [a, b], {spec}}}")).unwrap(),
                origin: crate::model::Origin::default(),
            })
        };
        assert_eq!(words("type: logical, source: {name: vg0}"), "compare `vgs -o vg_uuid vg0` on both hosts");
        assert_eq!(
            words("type: disk, source: {devices: [/dev/sdb]}"),
            "compare `lsblk -do WWN,SERIAL /dev/sdb` on both hosts"
        );
        assert_eq!(words("type: disk"), "compare `lsblk -do WWN,SERIAL` on both hosts");
        assert!(words("type: zfs, source: {name: tank}").contains("zpool get guid tank"));
    }
}
