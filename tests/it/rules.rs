//! Each rule of the kinds by a manifest that breaks it, through the loader, so that place and message are checked as people
//! see them.

mod cluster;
mod host;
mod machine;
mod migration;
mod policy;
mod pool;
