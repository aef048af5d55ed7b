//! `drover daemon`: puts the parts together, in reading order, and runs until a signal comes.

use super::args::{DaemonArgs, Global};
use super::exit::{CliError, Exit};
use super::powers::powers;
use super::settings;
use crate::config::Config;
use crate::daemon::{self, Daemon, GitSource, Hint, Runner, StateLock, Timing};
use crate::http;
use crate::journal::Journal;
use crate::journal::Sqlite;
use crate::pass::Engine;
use crate::provider::TellChange;
use crate::source::git::Mirror;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs the command.
pub fn run(args: &DaemonArgs, global: &Global) -> Result<Exit, CliError> {
    let config = settings::load_daemon(global, args)?;
    settings::log(&config, false)?;
    let Some(repo) = &config.repo else {
        return Err(CliError::usage("no repository is given")
            .hint("give --repo URL, DROVER_REPO, or `repo` in the configuration file"));
    };
    let _lock = StateLock::take(&config.state_dir).map_err(|e| {
        let hint = e.hint();
        CliError::failed("the daemon does not start").caused_by(e).hint(hint)
    })?;
    let journal =
        Sqlite::open(config.journal_file()).map_err(|e| CliError::failed("the daemon does not start").caused_by(e))?;
    let mirror = Mirror::open(repo, &config.mirror_dir(), &config.git, config.fetch)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("the daemon's threads do not start").caused_by(e))?;
    let exit = runtime.block_on(serve(&config, Arc::new(mirror), Arc::new(journal)));
    // A call to a host that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    exit
}

/// Makes hints of what hosts tell. Where too many wait one more says nothing new: a pass looks at every host.
fn teller(hints: mpsc::Sender<Hint>) -> TellChange {
    Arc::new(move |change| drop(hints.try_send(Hint::HostChanged(change))))
}

async fn serve(config: &Config, mirror: Arc<Mirror>, journal: Arc<dyn Journal>) -> Result<Exit, CliError> {
    let failed = |error: std::io::Error| CliError::failed("the daemon does not start").caused_by(error);
    let signals = daemon::listen().map_err(failed)?;
    let hints = daemon::hints();
    let engine = Arc::new(Engine::new(powers(config)?).listening(teller(hints.0.clone())));
    let runner = Runner::new(mirror.clone(), config.path.clone(), engine, journal);
    let source = GitSource::new(mirror, config.reference.clone(), config.path.clone());
    let (daemon, handles) = Daemon::with_hints(Arc::new(source), Arc::new(runner), Timing::from(config), hints);
    let end = CancellationToken::new();
    let server = match config.listen {
        None => None,
        Some(address) => {
            let listener = http::bind(address).await.map_err(|e| {
                let hint = e.hint();
                CliError::failed("the daemon does not start").caused_by(e).hint(hint)
            })?;
            tracing::info!(%address, "serving health, metrics and the API");
            let secret = config.webhook_secret.clone();
            Some(tokio::spawn(http::serve(listener, handles, secret, end.clone().cancelled_owned())))
        }
    };
    let exit = daemon.run(signals).await;
    end.cancel();
    if let Some(server) = server {
        // Connections that stay open do not keep the daemon.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), server).await;
    }
    tracing::info!(?exit, "the daemon ended");
    Ok(Exit::Done)
}
