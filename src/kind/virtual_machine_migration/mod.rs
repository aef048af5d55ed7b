//! `VirtualMachineMigration`: one explicit move of a machine, or of all that a selector names, also of machines that have no
//! manifest.
//!
//! *It runs once for each revision of its spec.* What it has done is written into the domain itself ([`MoveMark`]), so that
//! nothing but the domain has to survive: a machine whose mark says that this revision has moved it is not moved again,
//! wherever it is by now. Once the manifest is gone its marks are taken out, and the same manifest is a new one.
//!
//! [`members`] finds the machines and tells how far each is; [`plan`] drafts their steps. A machine that has a manifest of
//! its own is drafted there, in its chain of steps, and asks [`Moves::wish`].
//!
//! [`MoveMark`]: crate::observed::MoveMark

mod members;
mod plan;
mod rules;
mod spec;

pub(in crate::kind) use members::wish;
pub use members::{Away, Member, Moves, Stage, Wish};
pub use plan::{MIGRATION_KIND, stand_in};
pub use spec::{Order, OrderBy, VirtualMachineMigrationSpec};
