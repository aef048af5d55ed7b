//! Many moves at once, an evacuation for example, as one table instead of so many paragraphs.

use super::Paint;
use super::escape::{markdown as md, markdown_code as code};
use super::prechecks::machine;
use super::table::Table;
use super::view::{ResourceView, View, bytes, list, migration, millis, seconds};
use crate::action::MigrationWay;
use crate::plan::Operation;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Fewer than this are told one by one.
const MANY: usize = 3;

/// Most rows of a table in a comment.
const ROWS: usize = 50;

struct Row {
    number: usize,
    machine: String,
    from: String,
    to: String,
    way: &'static str,
    takes: String,
    pause: String,
    bytes: String,
    waits: String,
}

/// Whether a plan's moves are shown as a table.
pub(super) fn are_many(view: &View<'_>) -> bool {
    view.steps.iter().filter(|s| migration(s.step).is_some()).nth(MANY - 1).is_some()
}

/// Whether nothing is to be told of a resource but that it moves: the table says it, and the reasons below it why it does
/// not.
pub(super) fn only_moves(resource: &ResourceView<'_>) -> bool {
    let report = resource.report;
    report.operation == Operation::Migrate
        && report.changes.len() == 1
        && report.changes.iter().all(|c| c.path == "spec.host")
}

/// The steps that are held back of resources that only move.
pub(super) fn held_back<'a>(view: &View<'a>) -> BTreeSet<&'a String> {
    let only = view.resources.iter().filter(|r| only_moves(r));
    only.flat_map(|r| &r.held_back).filter_map(|n| Some(&view.steps.get(n - 1)?.step.id)).collect()
}

fn rows(view: &View<'_>) -> Vec<Row> {
    let shown = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let of = view.steps.iter().filter_map(|s| Some((s, migration(s.step)?)));
    of.map(|(s, m)| Row {
        number: s.number,
        machine: machine(s.step).to_owned(),
        from: m.from.clone(),
        to: m.to.clone(),
        way: if m.way == MigrationWay::Live { "live" } else { "offline" },
        takes: seconds(s.step.estimate.seconds),
        pause: shown(if s.step.estimate.downtime_millis > 0 {
            millis(s.step.estimate.downtime_millis)
        } else {
            String::new()
        }),
        bytes: shown(if s.step.estimate.bytes > 0 { bytes(s.step.estimate.bytes) } else { String::new() }),
        waits: if s.held_back { "held back".to_owned() } else { shown(list(&s.waits_for)) },
    })
    .collect()
}

/// `Moves of 8 machines, 24 GiB, 32 s one after the other`.
fn title(view: &View<'_>) -> String {
    let moves: Vec<_> = view.steps.iter().filter(|s| migration(s.step).is_some()).collect();
    let all: u64 = moves.iter().map(|s| s.step.estimate.bytes).sum();
    let time: f64 = moves.iter().map(|s| s.step.estimate.seconds).sum();
    format!("Moves of {} machines, {}, {} if it were one after the other", moves.len(), bytes(all), seconds(time))
}

/// Writes the table for a terminal.
pub(super) fn write(out: &mut dyn Write, view: &View<'_>, paint: Paint) -> io::Result<()> {
    let mut table = Table::new(&["STEP", "MACHINE", "FROM", "TO", "WAY", "TAKES", "PAUSE", "MOVED", "WAITS FOR"]);
    for row in rows(view) {
        let number = format!("{:>4}", row.number);
        table.row([
            &*number,
            &row.machine,
            &row.from,
            &row.to,
            row.way,
            &row.takes,
            &row.pause,
            &row.bytes,
            &row.waits,
        ]);
    }
    let mut text = Vec::new();
    table.write(&mut text, paint)?;
    writeln!(out, "{}:\n", title(view))?;
    for line in text.split_inclusive(|b| *b == b'\n') {
        out.write_all(b"  ")?;
        out.write_all(line)?;
    }
    writeln!(out)
}

/// The table as Markdown.
pub(super) fn markdown(view: &View<'_>) -> String {
    let rows = rows(view);
    let mut text = format!(
        "#### {}\n\n| step | machine | from | to | way | takes | moved | waits for |\n\
         | ---: | --- | --- | --- | --- | --- | ---: | --- |\n",
        md(&title(view))
    );
    let short = |name: &str| code(&name.chars().take(60).collect::<String>());
    for row in rows.iter().take(ROWS) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.number,
            short(&row.machine),
            short(&row.from),
            short(&row.to),
            row.way,
            if row.pause == "-" { row.takes.clone() } else { format!("{}, {} pause", row.takes, row.pause) },
            row.bytes,
            row.waits.chars().take(80).collect::<String>()
        );
    }
    if rows.len() > ROWS {
        let _ = writeln!(text, "\nAnd {} more, in the steps below.", rows.len() - ROWS);
    }
    text.push('\n');
    text
}
