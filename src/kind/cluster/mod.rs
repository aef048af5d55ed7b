//! `Cluster`: a Kubernetes or OpenShift cluster, and the Migration Toolkit for Containers on it.

mod controller;
mod documents;
pub mod objects;
mod platform;
pub mod reads;
mod rights;
mod rules;
mod spec;

pub use controller::{ControllerSpec, EndpointType, Groups, Limit, NoProxy, RESERVED, VARIABLES, Variable, Where};
pub use documents::{Document, Unusable, documents};
pub use platform::{Platform, PlatformError};
pub use rights::{rbac, rights};
pub use spec::*;
