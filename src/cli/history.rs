//! `drover history`: the last passes with their steps, from the journal of a daemon or of `drover apply`.

use super::args::{Global, HistoryArgs, RecordFormat};
use super::exit::{CliError, Exit};
use super::output::Output;
use super::settings;
use crate::journal::{Journal, Outcome, PassRecord, Sqlite, StepRecord};
use crate::plan::precopy;
use crate::render::escape::line as terminal;
use crate::render::json;
use crate::render::view::{seconds, short_id, time};
use jiff::Timestamp;
use std::io::{self, Write};
use std::path::PathBuf;

/// Runs the command.
pub fn run(args: &HistoryArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let passes = from_journal(args.state.as_ref(), args.limit, global)?;
    match args.output {
        RecordFormat::Json => json::write(&mut out.stdout, &passes)?,
        RecordFormat::Text if passes.is_empty() => out.note("no pass has changed anything yet"),
        RecordFormat::Text => passes.iter().try_for_each(|p| pass(out, p))?,
    }
    Ok(Exit::Done)
}

/// Reads the journal in a state folder, the configured one where none is given; also beside a running daemon.
pub fn from_journal(state: Option<&PathBuf>, limit: usize, global: &Global) -> Result<Vec<PassRecord>, CliError> {
    let path = settings::journal_that_is_there(&settings::load(global, state)?);
    if !path.exists() {
        return Err(CliError::failed(format!("there is no journal at `{}`", path.display()))
            .hint("give the folder that `drover daemon` or `drover apply` was given with --state"));
    }
    let failed = |e| CliError::failed("the history could not be read").caused_by(e);
    Sqlite::open_read_only(path).map_err(failed)?.history(limit).map_err(failed)
}

/// Writes one pass.
pub fn pass(out: &mut Output, pass: &PassRecord) -> io::Result<()> {
    let paint = out.paint;
    let result = match (&pass.result, pass.ended_at) {
        (Some(result), _) => result.as_str(),
        (None, Some(_)) => "ended",
        (None, None) => "running, or cut off",
    };
    let result = terminal(result);
    let result = match result.as_ref() {
        "succeeded" => paint.green(&result),
        "failed" => paint.red(&result),
        _ => paint.yellow(&result),
    };
    let commit = pass.commit.as_deref().map_or_else(|| "no commit".into(), |c| format!("commit {}", short_id(c)));
    let took = took(pass.began_at, pass.ended_at);
    let heading = format!("pass {}", pass.pass);
    writeln!(out.stdout, "{}  {}  {}  {result}{took}", paint.bold(&heading), time(pass.began_at), terminal(&commit))?;
    for step in &pass.steps {
        writeln!(out.stdout, "  {}", self::step(step))?;
    }
    Ok(())
}

fn step(step: &StepRecord) -> String {
    let (how, why) = match &step.outcome {
        None => ("in doubt", None),
        Some(Outcome::Done) => ("done", None),
        Some(Outcome::AlreadyDone) => ("nothing to do", None),
        Some(Outcome::Refused { reason }) => ("refused", Some(reason)),
        Some(Outcome::Failed { error, .. }) => ("failed", Some(error)),
        Some(Outcome::Interrupted) => ("left", None),
        Some(Outcome::Skipped { reason }) => ("skipped", Some(reason)),
    };
    let why = why.map_or_else(String::new, |w| format!(": {}", terminal(w)));
    let took = took(step.started_at, step.finished_at);
    let why = step.figures.as_ref().map_or(why, |f| format!(": {}", precopy::words(f)));
    format!("{how:<13} {} {}{took}{why}", terminal(&step.resource), terminal(&step.summary))
}

fn took(from: Timestamp, to: Option<Timestamp>) -> String {
    to.map_or_else(String::new, |to| format!(", {}", seconds(to.duration_since(from).as_secs_f64())))
}
