//! `MigrationPolicy`: how machines move.

mod apply;
mod spec;

pub use spec::{
    AutoConverge, Compression, Control, CopyStorage, MigrationPolicySpec, Mode, ParallelConnections, PostCopy,
    RaiseDowntime, Throttle, Timeout, TimeoutAction, Transport,
};
