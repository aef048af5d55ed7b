//! `drover status`: what a daemon is doing, and how its last pass went.

use super::args::{Global, RecordFormat, StatusArgs};
use super::exit::{CliError, Exit};
use super::history;
use super::output::Output;
use super::{bars, fetch};
use crate::daemon::{DaemonStatus, MoveRun, PassResult, Phase, STATUS_VERSION};
use crate::finding::Code;
use crate::journal::Outcome;
use crate::render::Paint;
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
    hosts(out, status)?;
    clusters(out, status)
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
    let mut steps = steps.peekable();
    if steps.peek().is_some() {
        writeln!(prose, "\n{}", paint.bold("Running:"))?;
    }
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
    let paint = out.paint;
    let notable = &status.resources.notable;
    let moves = notable.iter().any(|one| one.moves.is_some());
    let held = notable.iter().any(|one| one.held_back.is_some());
    let mut table = Table::new(match (moves, held) {
        (true, true) => &["RESOURCE", "SYNC", "HEALTH", "MOVES", "HELD BACK"],
        (true, false) => &["RESOURCE", "SYNC", "HEALTH", "MOVES"],
        (false, true) => &["RESOURCE", "SYNC", "HEALTH", "HELD BACK"],
        (false, false) => &["RESOURCE", "SYNC", "HEALTH"],
    });
    for one in notable {
        let moved = one.moves.map_or_else(|| "-".to_owned(), |m| m.words());
        let held_back = one.held_back.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![one.resource.to_string(), format!("{:?}", one.sync), format!("{:?}", one.health)];
        row.extend(moves.then_some(moved));
        row.extend(held.then_some(held_back));
        table.row(row);
    }
    let mut prose = out.prose();
    table.write(&mut prose, paint)?;
    prose.flush()?;
    status.resources.notable.iter().filter_map(|one| Some((one, one.run.as_ref()?))).try_for_each(|(one, run)| {
        let mut prose = out.prose();
        run_of(&mut prose, &one.resource.to_string(), run, paint)?;
        prose.flush()
    })
}

/// How the last run of a migration went: when, which revision, and each machine, with why where it did not move.
fn run_of(out: &mut dyn Write, resource: &str, run: &MoveRun, paint: Paint) -> io::Result<()> {
    let took = match run.ended_at {
        Some(end) => format!(", {}", seconds(end.duration_since(run.began_at).as_secs_f64())),
        None => ", not at its end".to_owned(),
    };
    let commit = run.commit.as_deref().map_or_else(String::new, |c| format!(", commit {}", short_id(c)));
    let head = format!("ran at {}{took}{commit}, revision {}", time(run.began_at), run.revision);
    writeln!(out, "\n{} {}", paint.bold(&terminal(resource)), terminal(&head))?;
    let mut table = Table::new(&["MACHINE", "FROM", "TO", "OUTCOME", "TOOK", "WHY"]);
    for one in &run.machines {
        let (outcome, why) = match &one.outcome {
            None => ("under way", "-"),
            Some(Outcome::Done | Outcome::AlreadyDone) => ("moved", "-"),
            Some(Outcome::Failed { error, .. }) => ("failed", error.as_str()),
            Some(Outcome::Refused { reason }) => ("refused", reason.as_str()),
            Some(Outcome::Skipped { reason }) => ("skipped", reason.as_str()),
            Some(Outcome::Interrupted) => ("left", "Drover was asked to end, or a newer commit came"),
        };
        let took =
            one.ended_at.map_or_else(|| "-".to_owned(), |end| seconds(end.duration_since(one.began_at).as_secs_f64()));
        table.row([one.machine.as_str(), &one.from, &one.to, outcome, &took, why]);
    }
    let mut text = Vec::new();
    table.write(&mut text, paint)?;
    for line in text.split_inclusive(|b| *b == b'\n') {
        out.write_all(b"  ")?;
        out.write_all(line)?;
    }
    Ok(())
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

fn clusters(out: &mut Output, status: &DaemonStatus) -> io::Result<()> {
    if status.clusters.is_empty() {
        return Ok(());
    }
    writeln!(out.stdout)?;
    let mut table = Table::new(&["CLUSTER", "STATE", "PLATFORM", "SINCE", "CREDENTIALS", "WHY"]);
    for (name, cluster) in &status.clusters {
        let state = if cluster.known { "read" } else { "unknown" };
        let platform = if cluster.platform.is_empty() { "-" } else { &cluster.platform };
        let end = cluster.credentials_end.map_or_else(|| "-".to_owned(), |end| format!("until {}", time(end)));
        let denied = (cluster.denied > 0).then(|| format!("{} rights are missing", cluster.denied));
        let why = cluster.why.clone().or(denied).unwrap_or_else(|| "-".to_owned());
        table.row([name.as_str(), state, platform, &time(cluster.since), &end, &why]);
    }
    table.write(&mut out.stdout, out.paint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{CurrentPass, MachineMove, Reason, ResourceStates, ResourceStatus, StepStatus};
    use crate::model::ResourceId;
    use crate::observed::Progress;
    use crate::plan::{Health, MoveCounts, Sync};
    use jiff::Timestamp;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Seen(Rc<RefCell<Vec<u8>>>);

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(status: &DaemonStatus, width: Option<usize>) -> String {
        let seen = Seen::default();
        write(&mut Output::into(Box::new(seen.clone()), width), status).unwrap();
        let text = seen.0.borrow().clone();
        String::from_utf8(text).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn one(kind: &str, name: &str) -> ResourceStatus {
        ResourceStatus {
            resource: ResourceId::new(kind.into(), name),
            sync: Sync::OutOfSync,
            health: Health::Progressing,
            held_back: None,
            moves: None,
            run: None,
        }
    }

    fn with(notable: Vec<ResourceStatus>) -> DaemonStatus {
        DaemonStatus { resources: ResourceStates { notable, ..Default::default() }, ..Default::default() }
    }

    #[test]
    fn how_far_a_migration_is_has_a_column_where_there_is_one() {
        let plain = shown(&with(vec![one("VirtualMachine", "web-1")]), None);
        assert!(plain.contains("RESOURCE") && !plain.contains("MOVES") && !plain.contains("HELD BACK"), "{plain}");
        let counts = MoveCounts { total: 3, moved: 1, waiting: 2, ..MoveCounts::default() };
        let trip = ResourceStatus { moves: Some(counts), ..one("VirtualMachineMigration", "trip") };
        let held = ResourceStatus { held_back: Some("a window; wait".into()), ..one("VirtualMachine", "web-1") };
        let both = shown(&with(vec![held, trip.clone()]), None);
        let row = |name: &str| both.lines().find(|l| l.contains(name)).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row("RESOURCE"), ["RESOURCE", "SYNC", "HEALTH", "MOVES", "HELD", "BACK"]);
        assert_eq!(row("trip")[3..].join(" "), "1 of 3 moved, 2 waiting -", "{both}");
        assert_eq!(row("web-1")[3..].join(" "), "- a window; wait", "{both}");
        // Nothing held back, no column for it: then it fits the narrowest of terminals.
        let narrow = shown(&with(vec![trip]), Some(80));
        assert!(!narrow.contains("HELD BACK") && narrow.lines().all(|l| l.len() <= 80), "{narrow}");
    }

    #[test]
    fn what_a_migration_has_done_is_told_machine_by_machine() {
        let moved = |machine: &str, began, ended: Option<i64>, outcome| MachineMove {
            machine: machine.into(),
            from: "kvm-a".into(),
            to: "kvm-b".into(),
            began_at: at(began),
            ended_at: ended.map(at),
            outcome,
        };
        let failed = Outcome::Failed { error: "kvm-a: no\nlink".into(), transient: true };
        let run = MoveRun {
            revision: "0123456789abcdef".into(),
            commit: Some("7e78587b445ce09ebfac004ad897202b562c5cb2".into()),
            began_at: at(0),
            ended_at: None,
            machines: vec![
                moved("web-1", 0, Some(4), Some(Outcome::Done)),
                moved("web-2", 1, Some(9), Some(failed)),
                moved("web-3", 10, None, None),
            ],
        };
        let counts = Some(MoveCounts { total: 3, ..MoveCounts::default() });
        let text = shown(
            &with(vec![ResourceStatus { moves: counts, run: Some(run), ..one("VirtualMachineMigration", "trip") }]),
            None,
        );
        let told = text.split("VirtualMachineMigration/trip ran").nth(1).unwrap_or_else(|| panic!("{text}"));
        assert!(
            told.starts_with(" at 2027-01-15 08:00:00Z, not at its end, commit 7e78587, revision 0123456789abcdef\n"),
            "{text}"
        );
        let rows: Vec<Vec<&str>> = told.lines().skip(2).map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["web-1", "kvm-a", "kvm-b", "moved", "4.0", "s", "-"]);
        assert_eq!(rows[1][..6], ["web-2", "kvm-a", "kvm-b", "failed", "8.0", "s"]);
        assert!(told.contains("kvm-a: no") && told.lines().count() == 5, "one line, whatever was said: {told}");
        assert_eq!(rows[2], ["web-3", "kvm-a", "kvm-b", "under", "way", "-", "-"]);
    }

    #[test]
    fn bars_of_several_migrations_stand_below_each_other() {
        let running = |name: &str, remaining: u64| {
            let progress = Progress {
                phase: "copying memory".into(),
                remaining: remaining << 20,
                total: 8192 << 20,
                rate: 118 << 20,
                iteration: 1,
                ..Progress::default()
            };
            let step = StepStatus {
                resource: ResourceId::new("VirtualMachine".into(), name),
                summary: format!("live-migrate {name} from kvm-a to kvm-b"),
                started_at: at(0),
                progress: Some(progress),
                retrying: None,
            };
            (name.to_owned(), step)
        };
        let steps = [running("db-1", 8000), running("db-2", 512)].into();
        let pass = CurrentPass {
            commit: "c0ffee".into(),
            reason: Reason::Commit,
            drift_only: false,
            began_at: at(0),
            steps,
            steps_done: 0,
            steps_failed: 0,
            steps_total: 2,
        };
        let status = DaemonStatus { current: Some(pass), ..with(vec![]) };
        for width in [80, 120] {
            let text = shown(&status, Some(width));
            assert!(text.contains("\nRunning:\n  live-migrate db-1 from kvm-a to kvm-b\n    ["), "{text}");
            let bars: Vec<&str> = text.lines().filter(|l| l.starts_with("    [")).collect();
            let columns: Vec<_> =
                bars.iter().map(|l| (l.find('['), l.find(']'), l.find('%'), l.find("about"))).collect();
            assert!(columns.len() == 2 && columns[0] == columns[1] && columns[0].3.is_some(), "{text}");
            assert!(text.lines().all(|l| l.chars().count() <= width), "{text}");
        }
    }
}
