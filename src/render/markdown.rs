//! A plan as a comment on a pull request: a marker by which the comment is found again, the counts first, what cannot be
//! undone and what is held back in plain sight, everything else folded.
//!
//! *Promise*: no plan gives more than [`LIMIT`] characters. What is too much is cut from the details, the largest pieces
//! first, and the comment says so; counts, deletions, held back steps and errors stay. Where even those are too many to
//! be listed, as many as fit are, and the rest is counted.

use super::escape::{line as terminal, markdown as md, markdown_code as code};
use super::moves;
use super::prechecks::Prechecks;
use super::value::{Shown, Sign};
use super::view::{self, BlockView, ResourceView, StepView, Symbol, View};
use crate::finding::{Finding, Severity};
use crate::plan::{Check, Disruption, Interruption, Operation, Plan, Step, Verdict};
use std::fmt::Write as _;
use std::io::{self, Write};

/// The first line: what a job looks for to edit its comment instead of adding one.
pub const MARKER: &str = "<!-- drover-plan -->";

/// Most characters of a comment. GitHub refuses more than 65,536; the rest is for what a job adds around it. Measured in
/// bytes, which are never fewer.
pub const LIMIT: usize = 60_000;

/// What errors, held back steps and irreversible steps may take together before they are shortened.
const MUST_SEE: usize = 42_000;

/// What the lines about what was cut may take.
const CUT_NOTES: usize = 4_000;

/// Writes a plan.
pub fn write(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    out.write_all(render(plan).as_bytes())
}

/// A plan as Markdown.
pub fn render(plan: &Plan) -> String {
    let view = View::new(plan);
    let mut out = head(&view);
    let foot = foot(plan);

    let errors = view.plan.findings.iter().filter(|f| f.severity == Severity::Error);
    let blocks = view::blocks(&view);
    let lists = [
        List { title: "Errors", what: "errors", items: errors.map(finding).collect() },
        List { title: "Deletions and points of no return", what: "steps", items: irreversible(&view) },
        List { title: "Held back", what: "reasons", items: blocks.iter().map(block).collect() },
    ];
    for section in fit(lists, MUST_SEE) {
        out.push_str(&section);
    }

    if moves::are_many(&view) {
        out.push_str(&moves::markdown(&view));
    }

    let room = LIMIT.saturating_sub(out.len() + foot.len() + CUT_NOTES);
    let mut sections = details(&view);
    cut(&mut sections, room);
    for section in &sections {
        section.push_to(&mut out);
    }
    out.push_str(&foot);
    out
}

fn head(view: &View<'_>) -> String {
    let s = view.plan.summary;
    let mut out = format!(
        "{MARKER}\n### Drover plan\n\n\
         | create | update | migrate | delete | run | unchanged | blocked | unknown |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n\
         | {} | {} | {} | {} | {} | {} | {} | {} |\n\n",
        s.create, s.update, s.migrate, s.delete, s.run, s.unchanged, s.blocked, s.unknown
    );
    let _ = writeln!(
        out,
        "**{}**\n\nFor {}, observed at {}.\n",
        text(&clip(&view.conclusion(), 300)),
        text(&clip(&view.revision(), 300)),
        view::time(view.plan.observed_at)
    );
    out
}

fn foot(plan: &Plan) -> String {
    format!("Plan hash {}.\n", code(&clip(&plan.hash, 80)))
}

/// A list that is never cut silently.
struct List {
    title: &'static str,
    what: &'static str,
    items: Vec<Item>,
}

/// An entry in full, and shortened for when there are too many.
struct Item {
    full: String,
    short: String,
}

/// The lists as text, within `budget` together. A list that needs less leaves the rest to the others.
fn fit<const N: usize>(lists: [List; N], budget: usize) -> Vec<String> {
    let full: Vec<usize> = lists.iter().map(|l| l.items.iter().map(|i| i.full.len()).sum()).collect();
    let mut order: Vec<usize> = (0..N).collect();
    order.sort_by_key(|&i| full[i]);
    let mut shares = [0; N];
    let mut left = budget;
    for (rank, &i) in order.iter().enumerate() {
        shares[i] = full[i].min(left / (N - rank));
        left -= shares[i];
    }
    lists
        .iter()
        .zip(shares)
        .filter(|(list, _)| !list.items.is_empty())
        .map(|(list, share)| {
            let count = list.items.len();
            let mut text = format!("#### {} ({count})\n\n", list.title);
            let short: usize = list.items.iter().map(|i| i.short.len()).sum();
            let full: usize = list.items.iter().map(|i| i.full.len()).sum();
            let mut shown = 0;
            let mut room = share;
            for item in &list.items {
                let entry = if full <= share { &item.full } else { &item.short };
                let Some(rest) = room.checked_sub(entry.len()) else { break };
                room = rest;
                text.push_str(entry);
                shown += 1;
            }
            if shown < count {
                let _ = writeln!(text, "- **and {} more {}**, too many for a comment", count - shown, list.what);
            } else if full > share {
                let _ = writeln!(text, "\nShortened: in full these take {full} characters instead of {short}.");
            }
            text.push('\n');
            text
        })
        .collect()
}

/// Steps that lose something for good or that have no way back, with what deletes in the first place.
fn irreversible(view: &View<'_>) -> Vec<Item> {
    let is = |s: &Step| s.disruption == Disruption::Destructive || s.interruption == Interruption::PointOfNoReturn;
    let mut steps: Vec<&StepView<'_>> = view.steps.iter().filter(|s| is(s.step)).collect();
    steps.sort_by_key(|s| s.step.disruption != Disruption::Destructive);
    let mut items: Vec<Item> = steps
        .iter()
        .map(|s| {
            let what = format!(
                "- **{}** {}{}",
                text(&clip(&s.step.resource.to_string(), 140)),
                prose(&clip(&s.step.summary, 300)),
                if s.held_back { " (held back)" } else { "" }
            );
            let full = format!(
                "{what}\n  - {}; why: {}; undo: {}\n",
                view::costs(s.step).join(", "),
                prose(&clip(&s.step.why, 400)),
                prose(&clip(s.step.undo.as_deref().unwrap_or("nothing undoes it"), 300)),
            );
            Item { full, short: format!("{what}\n") }
        })
        .collect();
    // A resource that goes away without such a step (its definition only) is a deletion all the same.
    let named: std::collections::BTreeSet<_> = steps.iter().map(|s| &s.step.resource).collect();
    items.extend(
        view.resources
            .iter()
            .filter(|r| r.report.operation == Operation::Delete && !named.contains(&r.id))
            .map(|r| format!("- **{}** {}\n", text(&clip(&r.id.to_string(), 140)), text(&clip(&r.phrase, 200))))
            .map(|text| Item { full: text.clone(), short: text }),
    );
    items
}

fn block(block: &BlockView<'_>) -> Item {
    const NAMED: usize = 10;
    let mut unique: Vec<String> = block.steps.iter().map(|s| text(&clip(&s.resource.to_string(), 140))).collect();
    unique.dedup();
    let what = |named: usize| {
        let more = unique.len().saturating_sub(named);
        let mut text = unique.iter().take(named).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 {
            let _ = write!(text, " and {more} more");
        }
        text
    };
    let reason = prose(&clip(block.reason, 400));
    Item {
        full: format!(
            "- **{}** {reason}\n  - way out: {}\n  - holds back: {}\n",
            block.code,
            prose(&clip(block.way_out, 400)),
            what(NAMED)
        ),
        short: format!("- **{}** {reason} ({})\n", block.code, what(1)),
    }
}

fn finding(finding: &Finding) -> Item {
    let place = match (&finding.source, &finding.resource) {
        (Some(source), _) => format!(" ({})", code(&clip(&source.to_string(), 200))),
        (None, Some(resource)) => format!(" ({})", code(&clip(&resource.to_string(), 200))),
        (None, None) => String::new(),
    };
    let short = format!("- **{}** {}{place}\n", finding.code, prose(&clip(&finding.message, 400)));
    let full = match &finding.hint {
        Some(hint) => format!("{short}  - hint: {}\n", prose(&clip(hint, 400))),
        None => short.clone(),
    };
    Item { full, short }
}

/// A folded section: pieces that can be left out one by one.
struct Section {
    title: String,
    before: String,
    after: &'static str,
    pieces: Vec<Piece>,
    cut: Vec<String>,
}

struct Piece {
    name: String,
    text: String,
}

impl Section {
    fn push_to(&self, text: &mut String) {
        if self.pieces.is_empty() && self.cut.is_empty() {
            return;
        }
        let _ = write!(text, "<details>\n<summary>{}</summary>\n\n", self.title);
        if !self.pieces.is_empty() {
            text.push_str(&self.before);
            for piece in &self.pieces {
                text.push_str(&piece.text);
            }
            text.push_str(self.after);
        }
        if !self.cut.is_empty() {
            const NAMED: usize = 5;
            let names: Vec<String> = self.cut.iter().take(NAMED).map(|n| code(&clip(n, 80))).collect();
            let more = match self.cut.len().saturating_sub(NAMED) {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let _ = write!(
                text,
                "\n**{} of {} left out, the largest first, because a comment holds {LIMIT} characters**: {}{more}. \
                 `drover plan` on a terminal and `-o json` show everything.\n",
                self.cut.len(),
                self.cut.len() + self.pieces.len(),
                names.join(", ")
            );
        }
        text.push_str("\n</details>\n\n");
    }

    fn frame(&self) -> usize {
        self.title.len() + self.before.len() + self.after.len() + 60
    }
}

/// Leaves pieces out, the largest first and of equal ones the last, until the rest takes at most `room`.
fn cut(sections: &mut [Section], room: usize) {
    let frames: usize = sections.iter().map(Section::frame).sum();
    let mut total: usize = frames + sections.iter().flat_map(|s| &s.pieces).map(|p| p.text.len()).sum::<usize>();
    if total <= room {
        return;
    }
    let mut order: Vec<(usize, usize, usize)> = sections
        .iter()
        .enumerate()
        .flat_map(|(s, section)| section.pieces.iter().enumerate().map(move |(p, piece)| (piece.text.len(), s, p)))
        .collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    let mut gone: Vec<std::collections::HashSet<usize>> = sections.iter().map(|_| Default::default()).collect();
    for (size, s, p) in order {
        if total <= room {
            break;
        }
        total -= size;
        gone[s].insert(p);
    }
    for (section, gone) in sections.iter_mut().zip(gone) {
        let mut index = 0;
        let mut cut = Vec::new();
        section.pieces.retain_mut(|piece| {
            let keep = !gone.contains(&index);
            if !keep {
                cut.push((piece.text.len(), std::mem::take(&mut piece.name)));
            }
            index += 1;
            keep
        });
        cut.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        section.cut = cut.into_iter().map(|(_, name)| name).collect();
    }
}

fn details(view: &View<'_>) -> Vec<Section> {
    let symbols: Vec<String> =
        view.symbols.iter().map(|s| format!("<code>{}</code> {}", html(&sign(*s).to_string()), s.meaning())).collect();
    let of = |severity: Severity| view.plan.findings.iter().filter(move |f| f.severity == severity);
    let findings = |title: &str, severity: Severity| Section {
        title: format!("{title} ({})", view.count(severity)),
        before: String::new(),
        after: "",
        pieces: of(severity).map(|f| Piece { name: f.code.to_string(), text: finding(f).full }).collect(),
        cut: Vec::new(),
    };
    // What a precheck warns of is a warning like any other.
    let prechecks = Prechecks::new(view, false);
    let mut warnings = findings("Warnings", Severity::Warning);
    let shared = prechecks.alike().map(|(check, who)| (check, prose(&clip(&who.words(), 400))));
    let own = view.steps.iter().flat_map(|s| {
        let own = prechecks.own(s.step).map(|own| own.checks).unwrap_or_default();
        own.into_iter().map(|check| (check, code(&clip(&s.step.resource.to_string(), 200))))
    });
    warnings.pieces.extend(shared.chain(own).filter(|(c, _)| c.verdict == Verdict::Warn).map(doubt));
    warnings.title = format!("Warnings ({})", warnings.pieces.len());
    let legend = if symbols.is_empty() { String::new() } else { format!(": {}", symbols.join(", ")) };
    vec![
        warnings,
        Section {
            title: format!("Resources that differ ({}){legend}", view.resources.len()),
            before: "```diff\n".into(),
            after: "```\n",
            pieces: view.resources.iter().map(|r| Piece { name: r.id.to_string(), text: resource(r) }).collect(),
            cut: Vec::new(),
        },
        Section {
            title: format!("Steps, in order ({})", view.steps.len()),
            before: alike(&prechecks)
                + "| # | step | takes | why | undo | waits for |\n| ---: | --- | --- | --- | --- | --- |\n",
            after: "",
            pieces: view
                .steps
                .iter()
                .map(|s| Piece { name: format!("step {}", s.number), text: step(s, &prechecks) })
                .collect(),
            cut: Vec::new(),
        },
        findings("Notes", Severity::Info),
    ]
}

/// A precheck that warns, and of what.
fn doubt((check, who): (&Check, String)) -> Piece {
    let hint = check.hint.as_ref().map(|h| format!("  - hint: {}\n", prose(&clip(h, 400)))).unwrap_or_default();
    let message = prose(&clip(&check.message, 400));
    Piece { name: check.code.to_string(), text: format!("- **{}** {message} ({who})\n{hint}", check.code) }
}

/// Counts of prechecks that several moves have alike, above the table of steps.
fn alike(prechecks: &Prechecks<'_>) -> String {
    let mut out = String::new();
    for (counts, who) in prechecks.counts() {
        let machines = who.machines.map_or_else(String::new, |names| format!(" ({names})"));
        let _ = writeln!(out, "Prechecks of {}: {counts}.\n", prose(&clip(&(who.count + &machines), 400)));
    }
    out
}

/// The symbol in a `diff` fence, where `!` is what gets a colour of its own for a change.
fn sign(symbol: Symbol) -> char {
    match symbol {
        Symbol::Update => '!',
        other => other.sign(),
    }
}

/// A resource within a `diff` fence. No line begins with fewer than four spaces and a backtick, so none closes the fence.
fn resource(resource: &ResourceView<'_>) -> String {
    let place = match &resource.report.source {
        Some(source) => terminal(&source.to_string()).into_owned(),
        None => "no manifest".into(),
    };
    let mut text = format!(
        "# {} {} ({place}; {:?}, {:?})\n",
        terminal(&resource.id.to_string()),
        terminal(&resource.phrase),
        resource.report.sync,
        resource.report.health
    );
    for field in resource.fields(false) {
        let symbol = sign(field.symbol);
        let path = terminal(&field.change.path);
        let notes = match field.notes.as_slice() {
            [] => String::new(),
            notes => format!(" ({})", terminal(&notes.join(", "))),
        };
        let _ = match &field.shown {
            Shown::Line(Some(before), Some(after)) => writeln!(text, "{symbol} {path}: {before} -> {after}{notes}"),
            Shown::Line(None, Some(only)) | Shown::Line(Some(only), None) => {
                writeln!(text, "{symbol} {path}: {only}{notes}")
            }
            Shown::Line(None, None) => writeln!(text, "{symbol} {path}{notes}"),
            Shown::Lines(_) => writeln!(text, "{symbol} {path}:{notes}"),
        };
        if let Shown::Lines(lines) = &field.shown {
            for (sign, line) in lines {
                let _ = match sign {
                    Sign::Same => writeln!(text, "    {line}"),
                    Sign::Added => writeln!(text, "+   {line}"),
                    Sign::Removed => writeln!(text, "-   {line}"),
                    Sign::Note => writeln!(text, "{line}"),
                };
            }
        }
    }
    text
}

fn step<'a>(view: &StepView<'a>, prechecks: &Prechecks<'a>) -> String {
    let step = view.step;
    let counts = prechecks.own(step).and_then(|own| own.summary);
    let checks = counts.map(|c| format!("<br>prechecks: {c}")).unwrap_or_default();
    format!(
        "| {} | {}{}{checks} | {} | {} | {} | {} |\n",
        view.number,
        prose(&step.summary),
        if view.held_back { " **held back**" } else { "" },
        view::costs(step).join(", "),
        prose(&step.why),
        prose(step.undo.as_deref().unwrap_or("nothing undoes it")),
        view.waits_for.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
    )
}

/// At most `most` characters of a text as a terminal would show it; escaping it for Markdown afterwards makes at most six
/// characters of each.
fn clip(text: &str, most: usize) -> String {
    let text = terminal(text);
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// A sentence of Drover's: names stand in backticks, which become code. Everything between is text.
fn prose(sentence: &str) -> String {
    if !sentence.matches('`').count().is_multiple_of(2) {
        return text(sentence);
    }
    sentence.split('`').enumerate().map(|(i, part)| if i % 2 == 0 { text(part) } else { code(part) }).collect()
}

/// Text in a paragraph or a table. A comment is read in its raw form too (mails, logs), so what is harmless once brackets,
/// angle brackets and backticks are escaped stays as it is.
fn text(text: &str) -> String {
    md(text).replace("&#58; ", ": ").replace("&#40;", "(").replace("&#41;", ")").replace("&#39;", "'")
}

/// Text within an HTML element, harmless for Markdown as well.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in terminal(text).chars() {
        if c.is_ascii_alphanumeric() || matches!(c, ' ' | '/' | '.' | '-' | ',' | '+') || !c.is_ascii() {
            out.push(c);
        } else {
            let _ = write!(out, "&#{};", c as u32);
        }
    }
    out
}
