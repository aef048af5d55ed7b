//! The one integration-test binary: each file is an area.

mod architecture;
mod cli;
mod daemon;
mod examples;
mod git;
mod lab;
mod libvirt;
mod load;
mod render;
mod rules;
mod schemas;
mod simulation;
