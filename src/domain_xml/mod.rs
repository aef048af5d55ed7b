//! Domain XML as a tree: reading, selecting, editing, comparing, writing. Pure; used by the VirtualMachine kind, the
//! simulator and the libvirt provider alike.

mod edit;

pub use edit::{Edit, EditError};
