//! `MigrationPolicy`: how machines move.

mod apply;
mod prechecks;
mod spec;

pub use prechecks::Prechecks;
pub use spec::{
    AutoConverge, Compression, Control, CopyStorage, MigrationPolicySpec, Mode, ParallelConnections, PostCopy,
    RaiseDowntime, Throttle, Timeout, TimeoutAction, Transport,
};
