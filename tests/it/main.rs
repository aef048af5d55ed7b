//! The one integration-test binary: each file is an area.

mod architecture;
mod cli;
mod daemon;
mod git;
mod lab;
mod libvirt;
mod load;
mod render;
mod schemas;
mod simulation;
