//! `drover status`: what a daemon is doing, and how its last pass went.

use super::args::{Global, RecordFormat, StatusArgs};
use super::exit::{CliError, Exit};
use super::history;
use super::output::Output;
use super::{bars, fetch};
use crate::daemon::{DaemonStatus, PassResult, Phase, STATUS_VERSION};
use crate::finding::Code;
use crate::journal::Outcome;
use crate::render::escape::line as terminal;
use crate::render::json;
use crate::render::table::Table;
use crate::render::view::{seconds, short_id, summary, time};
use std::io::{self, Write};

/// Runs the command.
pub fn run(args: &StatusArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    if let Some(state) = &args.server.state {
        return from_journal(args, state, global, out);
    }
    let server = &args.server.server;
    let answer = fetch::get(server, "/api/v1/status", args.server.timeout)?;
    let status: DaemonStatus =
        serde_json::from_slice(&answer).map_err(|e| fetch::not_understood(server, "status", e))?;
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if major(&status.format_version) != major(STATUS_VERSION) {
        return Err(CliError::failed(format!(
            "the daemon at {server} speaks version {} of the status; this Drover reads {STATUS_VERSION}",
            status.format_version
        )));
    }
    match args.output {
        // As it was answered: a newer daemon may say more than this Drover knows.
        RecordFormat::Json => {
            let value: serde_json::Value =
                serde_json::from_slice(&answer).map_err(|e| fetch::not_understood(server, "status", e))?;
            json::write(&mut out.stdout, &value)?;
        }
        RecordFormat::Text => write(out, &status)?,
    }
    Ok(Exit::Done)
}

/// Without a daemon: the last pass that its journal knows.
fn from_journal(
    args: &StatusArgs,
    state: &std::path::PathBuf,
    global: &Global,
    out: &mut Output,
) -> Result<Exit, CliError> {
    let passes = history::from_journal(Some(state), 1, global)?;
    match (args.output, passes.first()) {
        (RecordFormat::Json, last) => json::write(&mut out.stdout, &last)?,
        (RecordFormat::Text, Some(last)) => history::pass(out, last)?,
        (RecordFormat::Text, None) => out.note("no pass has changed anything yet"),
    }
    Ok(Exit::Done)
}

fn write(out: &mut Output, status: &DaemonStatus) -> io::Result<()> {
    let paint = out.paint;
    let mut lines: Vec<(&str, String)> = Vec::new();
    let folder = if status.path.is_empty() { String::new() } else { format!(", folder {}", status.path) };
    lines.push(("Repository", format!("{} ({}{folder})", status.repository, status.reference)));
    lines.push(("Daemon", daemon(status)));
    if let Some(seen) = &status.revision {
        let rewritten = if seen.rewritten { ", history was rewritten" } else { "" };
        lines.push(("Newest commit", format!("{} seen {}{rewritten}", short_id(&seen.commit), time(seen.seen_at))));
    }
    let commit = |c: &Option<String>| c.as_deref().map_or("none yet".to_owned(), |c| short_id(c).to_owned());
    lines.push(("In force", commit(&status.good)));
    lines.push(("Carried out", commit(&status.settled)));
    lines.push(("Now", doing(status)));
    if let Some(last) = &status.last {
        let took = last.ended_at.duration_since(last.began_at).as_secs_f64();
        let error = last.summary.error.as_ref().map_or_else(String::new, |e| format!(": {e}"));
        lines.push((
            "Last pass",
            format!(
                "{} commit {} at {}, {}{error}",
                last.summary.result.as_str(),
                short_id(&last.commit),
                time(last.began_at),
                seconds(took)
            ),
        ));
        if let Some(counts) = &last.summary.counts {
            lines.push(("Last plan", summary(counts)));
        }
    }
    let counted = |counts: &std::collections::BTreeMap<String, u32>| {
        counts.iter().map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ")
    };
    if !status.resources.sync.is_empty() {
        lines.push(("Sync", counted(&status.resources.sync)));
        lines.push(("Health", counted(&status.resources.health)));
    }
    if let Some(at) = status.retry_at {
        lines.push(("Tries again", time(at)));
    }
    if let Some(at) = status.next_drift_at {
        lines.push(("Looks for drift", time(at)));
    }
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
    for (label, text) in &lines {
        let label = format!("{label}:{}", " ".repeat(width - label.len()));
        writeln!(out.stdout, "{} {}", paint.bold(&label), terminal(text))?;
    }
    troubles(out, status)?;
    resources(out, status)?;
    hosts(out, status)
}

fn daemon(status: &DaemonStatus) -> String {
    let since = status.started_at.map_or_else(String::new, |at| format!(", since {}", time(at)));
    format!("drover {}, process {}{since}", status.version, status.pid)
}

fn doing(status: &DaemonStatus) -> String {
    let Some(pass) = &status.current else {
        return match status.phase {
            Phase::Idle => "idle".into(),
            phase => format!("{phase:?}").to_lowercase(),
        };
    };
    let phase = format!("{:?}", status.phase).to_lowercase();
    format!(
        "{phase} commit {}, {} of {} steps done, {} failed",
        short_id(&pass.commit),
        pass.steps_done,
        pass.steps_total,
        pass.steps_failed
    )
}

/// What runs and what went wrong, each on its own line.
fn troubles(out: &mut Output, status: &DaemonStatus) -> io::Result<()> {
    let paint = out.paint;
    let steps = status.current.iter().flat_map(|p| p.steps.values());
    let width = out.width;
    let mut prose = out.prose();
    bars::write(&mut prose, steps, width, paint)?;
    prose.flush()?;
    if let Some(error) = &status.fetch.error {
        let hint = error.hint.as_ref().map_or_else(String::new, |h| format!("; {h}"));
        let text = format!("since {}: {}{hint}", time(error.since), error.message);
        writeln!(out.stdout, "{} {}", paint.red("The repository cannot be read"), terminal(&text))?;
    }
    if let Some(invalid) = &status.invalid {
        let label = format!("Commit {} is invalid and changes nothing:", short_id(&invalid.commit));
        writeln!(out.stdout, "{}", paint.red(&terminal(&label)))?;
        crate::render::text::findings(&mut out.prose(), &invalid.findings, paint)?;
    }
    let Some(last) = &status.last else { return Ok(()) };
    if last.summary.result == PassResult::Succeeded {
        // All is done, and something of it deserves a look all the same.
        let said = last.summary.findings.iter().filter(|f| f.code == Code::AfterMove).cloned();
        return crate::render::text::findings(&mut out.prose(), &said.collect::<Vec<_>>(), paint);
    }
    for (step, outcome) in &last.summary.outcomes {
        let (label, text) = match outcome {
            Outcome::Failed { error, .. } => ("failed:", error),
            Outcome::Refused { reason } => ("refused:", reason),
            _ => continue,
        };
        writeln!(out.stdout, "{} step {}: {}", paint.red(label), terminal(step), terminal(text))?;
    }
    // The pass in which it failed may be long gone; what it failed with is still why it is not done.
    for (step, rest) in &last.summary.backing_off {
        let times = if rest.failures == 1 { "once".to_owned() } else { format!("{} times", rest.failures) };
        let why = if last.summary.outcomes.contains_key(step) { String::new() } else { format!(": {}", rest.error) };
        let text = format!("failed {times}, rests until {}{why}", time(rest.until));
        writeln!(out.stdout, "{} step {}: {}", paint.yellow("waits:"), terminal(step), terminal(&text))?;
    }
    crate::render::text::findings(&mut out.prose(), &last.summary.findings, paint)
}

/// Resources that are not as they should be.
fn resources(out: &mut Output, status: &DaemonStatus) -> io::Result<()> {
    if status.resources.notable.is_empty() {
        return Ok(());
    }
    writeln!(out.stdout)?;
    let moves = status.resources.notable.iter().any(|one| one.moves.is_some());
    let mut table = Table::new(match moves {
        true => &["RESOURCE", "SYNC", "HEALTH", "MOVES", "HELD BACK"],
        false => &["RESOURCE", "SYNC", "HEALTH", "HELD BACK"],
    });
    for one in &status.resources.notable {
        let held_back = one.held_back.as_deref().unwrap_or("-");
        let (sync, health) = (format!("{:?}", one.sync), format!("{:?}", one.health));
        let (resource, moved) = (one.resource.to_string(), one.moves.map_or_else(|| "-".to_owned(), |m| m.words()));
        match moves {
            true => table.row([resource.as_str(), &sync, &health, &moved, held_back]),
            false => table.row([resource.as_str(), &sync, &health, held_back]),
        }
    }
    table.write(&mut out.stdout, out.paint)
}

fn hosts(out: &mut Output, status: &DaemonStatus) -> io::Result<()> {
    if status.hosts.is_empty() {
        return Ok(());
    }
    writeln!(out.stdout)?;
    let mut table = Table::new(&["HOST", "STATE", "DOMAINS", "SINCE", "WHY"]);
    for (name, host) in &status.hosts {
        let (state, domains) =
            if host.known { ("read", host.domains.to_string()) } else { ("unknown", "-".to_owned()) };
        let why = host.why.as_deref().unwrap_or("-");
        table.row([name.as_str(), state, &domains, &time(host.since), why]);
    }
    table.write(&mut out.stdout, out.paint)
}
