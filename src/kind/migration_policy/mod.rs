//! `MigrationPolicy`: how machines move.

mod spec;

pub use spec::{
    AutoConverge, Compression, CopyStorage, MigrationPolicySpec, Mode, ParallelConnections, PostCopy, RaiseDowntime,
    Throttle, Timeout, TimeoutAction, Transport,
};
