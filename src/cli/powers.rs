//! From the operator's configuration to the powers of the engine.

use super::exit::CliError;
use crate::config::Config;
use crate::pass::Powers;
use crate::provider::libvirt;
use crate::provider::simulator::World;
use std::time::Duration;

/// How long one host may take to be read.
const OBSERVE_DEADLINE: Duration = Duration::from_secs(60);

/// The powers that a configuration gives.
pub fn powers(config: &Config) -> Result<Powers, CliError> {
    let world = match &config.sim_state {
        None => World::new(),
        Some(path) => World::keep_in(path).map_err(|e| {
            CliError::failed(format!("the simulated hosts' state `{}` cannot be used", path.display())).caused_by(e)
        })?,
    };
    let libvirt = libvirt::Options {
        keyfile: config.libvirt.ssh_key.clone(),
        known_hosts: config.libvirt.known_hosts.clone(),
        ..libvirt::Options::default()
    };
    Ok(Powers { libvirt, world, observe_deadline: OBSERVE_DEADLINE })
}
