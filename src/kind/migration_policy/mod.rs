//! `MigrationPolicy`: how machines move.

mod spec;

pub use spec::{CopyStorage, MigrationPolicySpec, Mode, ParallelConnections, PostCopy, Timeout, TimeoutAction};
