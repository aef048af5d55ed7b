//! Domain XML as a tree: reading, selecting, editing, comparing, writing. Pure; used by the VirtualMachine kind, the
//! simulator and the libvirt provider alike.

mod apply;
mod contain;
mod cpu;
mod disk;
mod edit;
mod facts;
mod moves;
mod owner;
mod select;
mod tree;
mod unmet;

pub use apply::{apply, digest};
pub(crate) use apply::{apply_one, declare_qemu};
pub use contain::{Equivalence, Gap, GapKind, bytes, contains, machine_equal};
pub use cpu::{GuestCpu, cpu_of, guest_cpu};
pub use disk::{Mirror, mirror_of_disk, mirrors, path_of_disk, with_disk_at};
pub use edit::{Edit, EditError};
pub use facts::{LocalDisk, disk_target, local_disks, machine_type, memory_bytes, networks};
pub(crate) use moves::moves_index;
pub use moves::{moves_element, moves_of, parse_moves, with_moves};
pub(crate) use owner::owner_index;
pub use owner::{owner_element, owner_of, owner_xml, parse_owner};
pub(crate) use select::literal;
pub use tree::{BYTES_MAX, DEPTH_MAX, ELEMENTS_MAX, Element, Node, XmlError, parse};
pub(crate) use unmet::unmet;
