//! The executor and the planner in the simulated world: order, limits, faults, crashes, convergence. Every test runs in
//! paused time, so an hour of migration costs nothing, and nothing depends on how busy the machine is.

mod actions;
mod asks;
mod converge;
mod crash;
mod disks;
mod executor;
mod guards;
mod migrations;
mod place;
mod policy;
mod scenario;
mod support;
