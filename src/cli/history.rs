//! `drover history`: the last passes with their steps, from a daemon or from its journal.

use super::args::{HistoryArgs, RecordFormat, ServerArgs};
use super::exit::{CliError, Exit};
use super::fetch;
use super::output::Output;
use crate::journal::sqlite::Sqlite;
use crate::journal::{Journal, PassRecord};
use crate::render::{json, table};
use std::path::Path;

/// Runs the command.
pub fn run(args: &HistoryArgs, out: &mut Output) -> Result<Exit, CliError> {
    let passes = passes(&args.server, args.limit)?;
    match args.output {
        RecordFormat::Json => json::write(&mut out.stdout, &passes)?,
        RecordFormat::Text => table::history(&mut out.stdout, &passes, out.paint)?,
    }
    Ok(Exit::Done)
}

/// The last passes, newest first.
pub fn passes(server: &ServerArgs, limit: usize) -> Result<Vec<PassRecord>, CliError> {
    if let Some(state) = &server.state {
        return read_journal(state, limit);
    }
    let answer = fetch::get(&server.server, &format!("/api/v1/history?limit={limit}"), server.timeout)?;
    serde_json::from_slice(&answer).map_err(|e| {
        CliError::failed(format!("what {} answered is not a history", server.server))
            .caused_by(e)
            .hint("is it a Drover daemon of this version?")
    })
}

fn read_journal(state: &Path, limit: usize) -> Result<Vec<PassRecord>, CliError> {
    let path = state.join(crate::config::JOURNAL_FILE);
    if !path.exists() {
        return Err(CliError::failed(format!("there is no journal at `{}`", path.display()))
            .hint("give the folder that the daemon was given with --state"));
    }
    let failed = |e| CliError::failed("the history could not be read").caused_by(e);
    Sqlite::open_read_only(path).map_err(failed)?.history(limit).map_err(failed)
}
