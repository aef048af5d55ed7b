//! Each rule of the kinds by a manifest that breaks it, through the loader, so that place and message are checked as people
//! see them.

mod host;
mod machine;
mod policy;
mod pool;
