//! Logs: lines for people on standard error, or one JSON object a line. Fields, not sentences; a span for each pass and
//! each step.

use crate::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Why logging could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// The level or filter is not understood.
    #[error("`{filter}` is not a log level or filter ({why}); write `info`, `debug`, or `drover=debug,warn`")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something set it up before; logs go where they went.
    #[error("logging is set up already")]
    Twice,
}

/// Sets logging up for the whole process, on standard error. Colour only where it is a terminal and `NO_COLOR` is not set.
pub fn initialise(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = filter(config.level.as_deref().unwrap_or("info"))?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_target(false);
    match config.format {
        LogFormat::Human => builder.with_ansi(colour).finish().try_init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init()
        }
    }
    .map_err(|_| TelemetryError::Twice)
}

/// A bare level concerns Drover; libraries then speak only when something is wrong.
fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let directives = match text {
        "off" => text.to_owned(),
        // kube logs every request that fails as an error; what came of it Drover says itself.
        "error" | "warn" => format!("{text},kube_client=off"),
        "info" | "debug" | "trace" => format!("warn,drover={text},kube_client=off"),
        filter => filter.to_owned(),
    };
    let error = |why: String| TelemetryError::Filter { filter: text.to_owned(), why };
    // A word that is no level would count as the name of a module, and silence everything.
    if !text.contains(['=', ','])
        && directives == text
        && text.parse::<tracing_subscriber::filter::LevelFilter>().is_err()
    {
        return Err(error("no such level".into()));
    }
    EnvFilter::try_new(directives).map_err(|e| error(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_does_not_exist_is_refused_instead_of_silencing_the_log() {
        assert!(filter("debug").is_ok() && filter("drover=trace,warn").is_ok() && filter("off").is_ok());
        let error = filter("verbose").unwrap_err().to_string();
        assert!(error.contains("`verbose`") && error.contains("drover=debug"), "{error}");
        assert!(filter("drover=loud").is_err());
    }

    #[test]
    fn a_second_set_up_is_an_error_and_no_panic() {
        let config = LogConfig { level: Some("error".into()), ..LogConfig::default() };
        let _ = initialise(&config);
        assert_eq!(initialise(&config), Err(TelemetryError::Twice));
    }
}
