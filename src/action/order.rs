//! What is said to an action that is under way.

use super::Migration;

/// What a newer wish means for an action that is under way.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// The migration goes on with the limits of this one: pauses, bandwidth, the switch to post-copy, the time-out. What is
    /// settled at a migration's start (connections, compression, disks) is not looked at.
    Limits(Box<Migration>),
    /// The copy of a disk goes on with this limit in MiB/s, or without one.
    CopyRate(Option<u64>),
    /// It is not wanted any more and is aborted, where it still can be.
    Abort {
        /// Why; completes "it was aborted: …".
        why: String,
    },
}
