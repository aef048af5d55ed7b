//! `MigrationPolicy`: how machines move.

mod prechecks;
mod spec;

pub use prechecks::Prechecks;
pub use spec::{
    AutoConverge, Compression, CopyStorage, MigrationPolicySpec, Mode, ParallelConnections, PostCopy, RaiseDowntime,
    Throttle, Timeout, TimeoutAction, Transport,
};
