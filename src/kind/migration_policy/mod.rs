//! `MigrationPolicy`: how machines move.

mod apply;
mod dirty_rate;
mod prechecks;
mod spec;

pub use dirty_rate::{DirtyRatePolicy, Measurement};
pub use prechecks::Prechecks;
pub use spec::{
    AutoConverge, Compression, Control, CopyStorage, MigrationPolicySpec, Mode, ParallelConnections, PostCopy,
    RaiseDowntime, Throttle, Timeout, TimeoutAction, Transport,
};
