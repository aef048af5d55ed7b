//! Signals of the operating system, as messages to the daemon.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What the operating system asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end. The second one: at once.
    Terminate,
    /// SIGHUP: look at everything now.
    Hangup,
}

/// Listens for SIGTERM, SIGINT and SIGHUP from now on.
pub fn listen() -> std::io::Result<mpsc::Receiver<Signal>> {
    let (to, from) = mpsc::channel(8);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                Some(()) = terminate.recv() => Signal::Terminate,
                Some(()) = interrupt.recv() => Signal::Terminate,
                Some(()) = hangup.recv() => Signal::Hangup,
                () = to.closed() => return,
            };
            if to.send(signal).await.is_err() {
                return;
            }
        }
    });
    Ok(from)
}
