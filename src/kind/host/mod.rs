//! `Host`: a hypervisor host, reached through libvirt.

mod plan;
mod rules;
mod spec;

pub use rules::{Connection, Transport, UriError, parse_uri};
pub use spec::{HostMigration, HostSpec, Maintenance};
