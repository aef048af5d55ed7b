//! Who a machine is: its UUID, its name in libvirt, its MAC addresses. All of them are the same on every run and on
//! every host, and survive a rename of the manifest.

use super::VirtualMachineSpec;
use crate::model::Manifest;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Namespace of the UUIDs (version 5) that Drover gives: itself the version 5 UUID of `https://drover.dev/virtual-machine`
/// in RFC 9562's URL namespace. Never to be changed: it is the identity of every machine without a stated UUID.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d69_fa63_f2f5_5fb2_a500_a1d6_4f1a_73c5);

/// The name that identity rests on: the oldest that the manifest tells of (`formerNames` begins with it), so that a rename
/// changes neither UUID nor MAC addresses nor the names of volumes.
pub fn first_name(m: &Manifest<VirtualMachineSpec>) -> &str {
    m.spec.former_names.first().map_or(m.name(), String::as_str)
}

/// The machine's UUID: the stated one, or one that is made from its first name.
pub fn uuid(m: &Manifest<VirtualMachineSpec>) -> Uuid {
    m.spec.uuid.unwrap_or_else(|| Uuid::new_v5(&NAMESPACE, first_name(m).as_bytes()))
}

/// The machine's name in libvirt.
pub fn domain_name(m: &Manifest<VirtualMachineSpec>) -> &str {
    m.spec.domain_name.as_deref().unwrap_or(m.name())
}

/// The MAC address of the interface at an index, where the manifest states none: 24 bits of a hash of UUID and index below
/// `52:54:00`, the prefix that QEMU and libvirt use for addresses of their own making.
pub fn mac(m: &Manifest<VirtualMachineSpec>, index: usize) -> String {
    let mut hash = Sha256::new();
    hash.update(uuid(m).as_bytes());
    hash.update((index as u64).to_be_bytes());
    let hash = hash.finalize();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", hash[0], hash[1], hash[2])
}

#[cfg(test)]
mod tests {
    use super::super::testing::machine;
    use super::*;

    #[test]
    fn a_rename_changes_nothing_but_the_name() {
        let before = machine("web-1", "{memory: 1Gi}");
        let after = machine("shop-1", "{memory: 1Gi, formerNames: [web-1, www]}");
        assert_eq!(uuid(&before), uuid(&after));
        assert_eq!(mac(&before, 0), mac(&after, 0));
        assert_ne!(mac(&before, 0), mac(&before, 1));
        assert_ne!(uuid(&before), uuid(&machine("web-2", "{memory: 1Gi}")));
        assert_eq!(domain_name(&after), "shop-1");
        assert!(mac(&before, 0).starts_with("52:54:00:"));
        // Fixed for ever: machines that exist are known by it.
        assert_eq!(uuid(&before).get_version_num(), 5);
        assert_eq!(uuid(&before).to_string(), "ddbed3b3-8968-5892-bce0-44410fbaeff0");
    }

    #[test]
    fn a_stated_uuid_wins() {
        let m = machine("a", "{memory: 1Gi, uuid: 0b5f7c3e-6a59-4c0a-9c4f-0d8f4a3f1c11}");
        assert_eq!(uuid(&m).to_string(), "0b5f7c3e-6a59-4c0a-9c4f-0d8f4a3f1c11");
    }
}
