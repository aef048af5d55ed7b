//! From flags to the configuration in force: defaults, file, environment, flags.

use super::args::{DaemonArgs, Global, LogFormat};
use super::exit::CliError;
use crate::config::{self, Config, ConfigError, Layer};
use crate::daemon::{LockError, StateLock};
use crate::telemetry;
use std::path::{Path, PathBuf};

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

/// Where the journal is: in the configured folder. Where none is configured and the system's is not this user's to write,
/// in the user's own.
fn state_folders(config: &Config) -> Vec<PathBuf> {
    let mut folders = vec![config.state_dir.clone()];
    let not_configured = Config::resolve(Layer::default()).is_ok_and(|d| d.state_dir == config.state_dir);
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if not_configured {
        let own = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|h| h.join(".local/state")));
        folders.extend(own.map(|p| p.join("drover")));
    }
    folders
}

/// Takes the state folder for this process, which then is the only Drover that acts with it.
pub fn take_state(config: &Config) -> Result<(PathBuf, StateLock), CliError> {
    let folders = state_folders(config);
    for (i, folder) in folders.iter().enumerate() {
        match StateLock::take(folder) {
            Ok(lock) => return Ok((folder.clone(), lock)),
            Err(LockError::Io { why, .. })
                if i + 1 < folders.len() && why.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error @ LockError::Held { .. }) => {
                return Err(CliError::refused("another Drover is at work").caused_by(error).hint(
                    "let the daemon do it, or wait for it; another folder with --state would let two act at once",
                ));
            }
            Err(error) => {
                let hint = error.hint();
                return Err(CliError::failed("the journal has no place").caused_by(error).hint(hint));
            }
        }
    }
    Err(CliError::failed("the journal has no place").hint("name a folder with --state"))
}

/// The journal's file in a state folder.
pub fn journal_in(config: &Config, state: &Path) -> PathBuf {
    Config { state_dir: state.to_owned(), ..config.clone() }.journal_file()
}

/// The journal that is there, of those that could be meant.
pub fn journal_that_is_there(config: &Config) -> PathBuf {
    let files: Vec<PathBuf> = state_folders(config).iter().map(|f| journal_in(config, f)).collect();
    files.iter().find(|f| f.exists()).unwrap_or(&files[0]).clone()
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
