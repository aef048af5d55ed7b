//! The one integration-test binary: each file is an area.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics and says where; clippy's own exception does not reach helper functions"
)]

mod architecture;
mod cli;
mod cluster;
mod controlplane;
mod daemon;
mod examples;
mod git;
mod guide;
mod lab;
mod libvirt;
mod load;
mod migration_cases;
mod program;
mod render;
mod rules;
mod schemas;
mod simulation;
mod standin;
mod toolkit;
mod vm_procedures;
