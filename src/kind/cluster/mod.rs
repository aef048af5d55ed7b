//! `Cluster`: a Kubernetes or OpenShift cluster, and the Migration Toolkit for Containers on it.

mod controller;
pub mod objects;
mod platform;
pub mod reads;
mod rules;
mod spec;

pub use controller::{ControllerSpec, EndpointType, Groups, Limit, NoProxy, RESERVED, VARIABLES, Variable, Where};
pub use platform::{Platform, PlatformError};
pub use spec::*;
