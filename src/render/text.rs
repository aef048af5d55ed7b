//! A plan for the terminal, in the manner of Terraform: a legend of the symbols in use, each resource with its fields,
//! the steps in order, what there is to say, and one last line that sums up.

use super::escape::line as terminal;
use super::prechecks::{self, Prechecks, Who};
use super::value::{Shown, Sign};
use super::view::{self, FieldView, ResourceView, StepView, Symbol, View};
use super::{Paint, moves};
use crate::finding::{Finding, Severity};
use crate::plan::{Check, Disruption, Interruption, Plan, Step, Verdict};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// How a plan is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// With colour.
    pub colour: bool,
    /// Every line of multi-line values, where two lines around each difference are shown otherwise, and every precheck.
    pub full: bool,
}

/// Writes a plan.
pub fn write(out: &mut dyn Write, plan: &Plan, options: Options) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(1 << 16, out);
    let view = View::new(plan);
    let writer = Writer { paint: Paint(options.colour), full: options.full };
    writer.head(&mut out, &view)?;
    let many = moves::are_many(&view);
    for resource in view.resources.iter().filter(|r| !many || !moves::only_moves(r)) {
        writer.resource(&mut out, &view, resource)?;
    }
    if many {
        moves::write(&mut out, &view, writer.paint)?;
        writer.held_back_moves(&mut out, &view)?;
    }
    let prechecks = Prechecks::new(&view, options.full);
    writer.steps(&mut out, &view, &prechecks)?;
    writer.alike(&mut out, &prechecks)?;
    writer.findings(&mut out, &view)?;
    writeln!(out, "{}", writer.paint.bold(&terminal(&view.conclusion())))?;
    out.flush()
}

/// Writes findings as a plan shows them.
pub fn findings(out: &mut dyn Write, findings: &[Finding], paint: Paint) -> io::Result<()> {
    let writer = Writer { paint, full: false };
    findings.iter().try_for_each(|f| writer.finding(out, f, ""))
}

struct Writer {
    paint: Paint,
    full: bool,
}

impl Writer {
    fn head(&self, out: &mut dyn Write, view: &View<'_>) -> io::Result<()> {
        writeln!(out, "Plan for {}, observed at {}.", terminal(&view.revision()), view::time(view.plan.observed_at))?;
        if !view.symbols.is_empty() {
            writeln!(out, "\nSymbols:")?;
            for symbol in &view.symbols {
                writeln!(out, "  {} {}", self.symbol(*symbol), symbol.meaning())?;
            }
        }
        writeln!(out)
    }

    fn symbol(&self, symbol: Symbol) -> String {
        self.by_symbol(symbol, &symbol.sign().to_string())
    }

    fn by_symbol(&self, symbol: Symbol, text: &str) -> String {
        match symbol {
            Symbol::Create | Symbol::Adopt => self.paint.green(text),
            Symbol::Update | Symbol::Unknown | Symbol::Run => self.paint.yellow(text),
            Symbol::Migrate => self.paint.cyan(text),
            Symbol::Delete => self.paint.red(text),
        }
        .into_owned()
    }

    fn resource(&self, out: &mut dyn Write, view: &View<'_>, resource: &ResourceView<'_>) -> io::Result<()> {
        let id = resource.id.to_string();
        let id = terminal(&id);
        let heading = format!("# {id} {}", terminal(&resource.phrase));
        writeln!(out, "  {}", self.paint.bold(&heading))?;
        let place = match &resource.report.source {
            Some(source) => terminal(&source.to_string()).into_owned(),
            None => "no manifest".into(),
        };
        let state = format!("({place}; {:?}, {:?})", resource.report.sync, resource.report.health);
        let symbol = resource.symbol.map_or(" ".into(), |s| self.symbol(s));
        writeln!(out, "  {symbol} {id} {}", self.paint.dim(&state))?;
        for field in resource.fields(self.full) {
            self.field(out, &field)?;
        }
        // Each reason once; that later steps wait for the one that is held back goes without saying.
        let held: Vec<_> = resource.held_back.iter().filter_map(|n| view.steps.get(n - 1)).collect();
        let blocks = || held.iter().flat_map(|s| &s.step.blocked_by);
        let has_own = blocks().any(|b| !b.is_of_an_earlier_step());
        let mut told = Vec::new();
        for step in &held {
            let is_new =
                step.step.blocked_by.iter().any(|b| !(told.contains(&b) || has_own && b.is_of_an_earlier_step()));
            if is_new || (step.step.blocked_by.is_empty() && !has_own) {
                self.held_back(out, step, "      ")?;
            }
            told.extend(&step.step.blocked_by);
        }
        writeln!(out)
    }

    fn field(&self, out: &mut dyn Write, field: &FieldView<'_>) -> io::Result<()> {
        let symbol = self.symbol(field.symbol);
        let path = terminal(&field.change.path);
        let notes = if field.notes.is_empty() {
            String::new()
        } else {
            format!("  {}", self.paint.dim(&format!("({})", terminal(&field.notes.join(", ")))))
        };
        match &field.shown {
            Shown::Line(Some(before), Some(after)) => {
                writeln!(out, "      {symbol} {path}: {before} -> {after}{notes}")
            }
            Shown::Line(None, Some(only)) | Shown::Line(Some(only), None) => {
                writeln!(out, "      {symbol} {path}: {only}{notes}")
            }
            Shown::Line(None, None) => writeln!(out, "      {symbol} {path}{notes}"),
            Shown::Lines(lines) => {
                writeln!(out, "      {symbol} {path}:{notes}")?;
                for (sign, line) in lines {
                    let painted = match sign {
                        Sign::Same => format!("  {line}"),
                        Sign::Added => self.paint.green(&format!("+ {line}")).into_owned(),
                        Sign::Removed => self.paint.red(&format!("- {line}")).into_owned(),
                        Sign::Note => self.paint.dim(line).into_owned(),
                    };
                    writeln!(out, "          {}", painted.trim_end())?;
                }
                Ok(())
            }
        }
    }

    /// Why a step is held back, and the way out.
    fn held_back(&self, out: &mut dyn Write, step: &StepView<'_>, indent: &str) -> io::Result<()> {
        let label = self.paint.yellow("held back");
        if step.step.blocked_by.is_empty() {
            let (numbers, verb) = (view::list(&step.held_by), if step.held_by.len() == 1 { "is" } else { "are" });
            return writeln!(out, "{indent}{label}: step {} waits for {numbers}, which {verb} held back", step.number);
        }
        for block in &step.step.blocked_by {
            writeln!(out, "{indent}{label} [{}]: {}", block.code, terminal(&block.reason))?;
            writeln!(out, "{indent}  way out: {}", terminal(&block.way_out))?;
        }
        Ok(())
    }

    /// Why moves are held back that only the table tells of: each reason once.
    fn held_back_moves(&self, out: &mut dyn Write, view: &View<'_>) -> io::Result<()> {
        let only = moves::held_back(view);
        if only.is_empty() {
            return Ok(());
        }
        writeln!(out, "Held back:\n")?;
        for block in view::blocks(view) {
            let names: Vec<&str> =
                block.steps.iter().filter(|s| only.contains(&s.id)).map(|s| prechecks::machine(s)).collect();
            if names.is_empty() {
                continue;
            }
            let label = self.paint.yellow("held back");
            writeln!(out, "  {label} [{}]: {}", block.code, terminal(block.reason))?;
            writeln!(out, "    moves: {}", terminal(&names.join(", ")))?;
            writeln!(out, "    way out: {}", terminal(block.way_out))?;
        }
        for step in view.steps.iter().filter(|s| only.contains(&s.step.id) && s.step.blocked_by.is_empty()) {
            self.held_back(out, step, "  ")?;
        }
        writeln!(out)
    }

    fn steps<'a>(&self, out: &mut dyn Write, view: &View<'a>, prechecks: &Prechecks<'a>) -> io::Result<()> {
        if view.steps.is_empty() {
            return Ok(());
        }
        writeln!(out, "Steps, in order:\n")?;
        let many = moves::are_many(view);
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for step in &view.steps {
            // What a move takes is in their table.
            let brief = many && view::migration(step.step).is_some();
            let first = *reasons.entry(&step.step.why).or_insert(step.number);
            let as_step = (brief && first != step.number).then_some(first);
            self.step(out, step, brief, as_step)?;
            self.checks(out, prechecks, step.step)?;
        }
        writeln!(out)
    }

    /// `as_step`: an earlier step that is there for the same reason.
    fn step(&self, out: &mut dyn Write, view: &StepView<'_>, brief: bool, as_step: Option<usize>) -> io::Result<()> {
        let step = view.step;
        let held = if view.held_back { self.paint.yellow(" [held back]") } else { "".into() };
        writeln!(out, "{:>4}. {}{held}", view.number, terminal(&step.summary))?;
        let costs: Vec<String> = view::costs(step)
            .into_iter()
            .map(|part| match part.as_str() {
                p if p == view::disruption(Disruption::Destructive) => self.paint.red(p).into_owned(),
                p if p == view::interruption(Interruption::PointOfNoReturn) => self.paint.red(p).into_owned(),
                _ => part,
            })
            .collect();
        if !brief {
            writeln!(out, "      {}", costs.join(", "))?;
        }
        match as_step {
            Some(number) => writeln!(out, "      why: as step {number}")?,
            None => writeln!(out, "      why: {}", terminal(&step.why))?,
        }
        if !brief {
            writeln!(out, "      undo: {}", terminal(step.undo.as_deref().unwrap_or("nothing undoes it")))?;
        }
        if !view.waits_for.is_empty() {
            writeln!(out, "      waits for: {}", view::list(&view.waits_for))?;
        }
        Ok(())
    }

    /// The prechecks of a move: in one line, and those that were not passed. What holds the step back stands with its
    /// resource as well, with the way out; here it is only named.
    fn checks<'a>(&self, out: &mut dyn Write, prechecks: &Prechecks<'a>, step: &'a Step) -> io::Result<()> {
        let Some(own) = prechecks.own(step) else { return Ok(()) };
        if let Some(summary) = own.summary {
            writeln!(out, "      prechecks: {summary}")?;
        }
        own.checks.into_iter().try_for_each(|check| self.check(out, check, None, "        "))
    }

    /// What the prechecks of several moves say alike.
    fn alike(&self, out: &mut dyn Write, prechecks: &Prechecks<'_>) -> io::Result<()> {
        if prechecks.counts().next().is_none() && prechecks.alike().next().is_none() {
            return Ok(());
        }
        writeln!(out, "Prechecks that several moves have alike:\n")?;
        for (summary, who) in prechecks.counts() {
            writeln!(out, "  {}: {summary}", who.count)?;
            if let Some(machines) = &who.machines {
                writeln!(out, "    moves: {}", terminal(machines))?;
            }
        }
        for (check, who) in prechecks.alike() {
            self.check(out, check, Some(&who), "  ")?;
        }
        writeln!(out)
    }

    fn check(&self, out: &mut dyn Write, check: &Check, who: Option<&Who>, indent: &str) -> io::Result<()> {
        let label = format!("{}[{}]", prechecks::verdict(check.verdict), check.code);
        let label = match check.verdict {
            Verdict::Pass => self.paint.green(&label),
            Verdict::Warn | Verdict::Unknown => self.paint.yellow(&label),
            Verdict::Block => self.paint.red(&label),
            Verdict::Ignored => self.paint.dim(&label),
        };
        let count = who.map_or_else(String::new, |who| format!("{}: ", who.count));
        writeln!(out, "{indent}{count}{label} {}: {}", check.name, terminal(&check.message))?;
        if let Some(machines) = who.and_then(|who| who.machines.as_ref()) {
            writeln!(out, "{indent}  moves: {}", terminal(machines))?;
        }
        if let Some(hint) = check.hint.as_ref().filter(|_| check.verdict == Verdict::Warn) {
            writeln!(out, "{indent}  = hint: {}", terminal(hint))?;
        }
        Ok(())
    }

    fn findings(&self, out: &mut dyn Write, view: &View<'_>) -> io::Result<()> {
        if view.plan.findings.is_empty() {
            return Ok(());
        }
        writeln!(out, "Findings:\n")?;
        for finding in &view.plan.findings {
            self.finding(out, finding, "  ")?;
        }
        writeln!(out)
    }

    fn finding(&self, out: &mut dyn Write, finding: &Finding, indent: &str) -> io::Result<()> {
        let label = format!("{}[{}]", finding.severity, finding.code);
        let label = match finding.severity {
            Severity::Error => self.paint.red(&label),
            Severity::Warning => self.paint.yellow(&label),
            Severity::Info => self.paint.cyan(&label),
        };
        writeln!(out, "{indent}{label}: {}", terminal(&finding.message))?;
        let mut place: Vec<String> = finding.source.iter().map(|s| terminal(&s.to_string()).into_owned()).collect();
        place.extend(finding.resource.iter().map(|r| terminal(&r.to_string()).into_owned()));
        place.extend(finding.path.iter().map(|p| terminal(p).into_owned()));
        if !place.is_empty() {
            writeln!(out, "{indent}  --> {}", place.join(", "))?;
        }
        for other in &finding.related {
            writeln!(out, "{indent}  see {}", terminal(&other.to_string()))?;
        }
        match &finding.hint {
            Some(hint) => writeln!(out, "{indent}  = hint: {}", terminal(hint)),
            None => Ok(()),
        }
    }
}
