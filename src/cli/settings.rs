//! From flags to the configuration in force: defaults, file, environment, flags.

use super::args::{DaemonArgs, Global, LogFormat};
use super::exit::CliError;
use crate::config::{self, Config, ConfigError, Layer};
use crate::telemetry;
use std::path::PathBuf;

/// The configuration for a command that is not the daemon.
pub fn load(global: &Global, state: Option<&PathBuf>) -> Result<Config, CliError> {
    resolve(global, Layer { state_dir: state.cloned(), ..Layer::default() })
}

/// The configuration for the daemon.
pub fn load_daemon(global: &Global, args: &DaemonArgs) -> Result<Config, CliError> {
    let DaemonArgs { repo, branch, tag, path, state, listen, poll_interval, drift_interval, grace_time } = args.clone();
    let flags = Layer {
        repo,
        branch,
        tag,
        path,
        state_dir: state,
        listen,
        poll_interval,
        drift_interval,
        grace_time,
        ..Layer::default()
    };
    resolve(global, flags)
}

fn resolve(global: &Global, mut flags: Layer) -> Result<Config, CliError> {
    flags.log.format = global.log_format.map(|f| match f {
        LogFormat::Human => config::LogFormat::Human,
        LogFormat::Json => config::LogFormat::Json,
    });
    if let Some(level) = level(global.verbose) {
        flags.log.level = Some(level.into());
    }
    // A variable that is not text cannot be one of ours.
    let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    Ok(Config::load(global.config.as_deref(), env, flags)?)
}

fn level(verbose: u8) -> Option<&'static str> {
    match verbose {
        0 => None,
        1 => Some("debug"),
        _ => Some("trace"),
    }
}

/// Sets the log up. A command for people logs warnings only, unless told otherwise; the daemon logs what its operator
/// will want to read later.
pub fn log(config: &Config, quiet: bool) -> Result<(), CliError> {
    let mut log = config.log.clone();
    if quiet && log.level.is_none() {
        log.level = Some("warn".into());
    }
    match telemetry::initialise(&log) {
        // In tests of the library several commands run in one process.
        Ok(()) | Err(telemetry::TelemetryError::Twice) => Ok(()),
        Err(error) => Err(CliError::usage("the log cannot be set up").caused_by(error)),
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint.clone();
        let this = Self::usage(format!("the configuration cannot be used: {error}"));
        match hint {
            Some(hint) => this.hint(hint),
            None => this,
        }
    }
}
