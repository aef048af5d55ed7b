//! Plain values that every other room shares: identities, labels, quantities, secrets, and a manifest with its place in
//! the repository. Knows nothing about any one kind and does no I/O.

mod id;
mod labels;
mod manifest;
mod object;
mod quantity;
mod secret;
mod secret_ref;

pub use id::{KindName, NAME_MAX, NameError, ResourceId, check_name};
pub use labels::{LabelSelector, Operator, Requirement};
pub use manifest::{Manifest, Metadata, Origin, Pointer, Positions, Revision};
pub use object::ObjectRef;
pub use quantity::{Bytes, QuantityError, Rate, Span};
pub use secret::Secret;
pub use secret_ref::{FromSecret, SecretKey, SecretRef, SecretSource};
