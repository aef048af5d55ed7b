//! `Cluster`: a Kubernetes or OpenShift cluster, and the Migration Toolkit for Containers on it.

mod compatibility;
mod controller;
mod documents;
mod import;
pub mod objects;
mod plan;
mod platform;
pub mod reads;
mod rights;
mod rules;
mod spec;
#[cfg(test)]
mod testing;

pub use controller::{ControllerSpec, EndpointType, Groups, Limit, NoProxy, RESERVED, VARIABLES, Variable, Where};
pub use documents::{Document, Unusable, documents};
pub use import::{Imported, import};
pub use plan::{draft, questions, sweep};
pub use platform::{Platform, PlatformError};
pub use rights::{in_force, rbac, rights};
pub use spec::*;
