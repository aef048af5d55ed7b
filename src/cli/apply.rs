//! `drover apply`: plan, ask, carry out.

use super::args::{AdoptArgs, ApplyArgs, Global, SourceArgs};
use super::engine::{self, Engine};
use super::exit::{self, CliError, Exit};
use super::output::Output;
use super::progress::Progress;
use super::{manifests, settings, source};
use crate::action::{Action, MachineAction};
use crate::execute::Report;
use crate::journal::Outcome;
use crate::plan::{Plan, Step};
use crate::render::escape::line;
use crate::render::text;
use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

/// Runs the command.
pub fn run(args: &ApplyArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, args.state.as_ref())?;
    settings::log(&config, true)?;
    let saved = saved_plan(&args.source)?;
    let (source, adopt) = match &saved {
        Some(plan) => (source_of(plan)?, adopted(plan, &args.adopt)),
        None => (args.source.clone(), args.adopt.clone()),
    };
    let opened = source::open(&source, &config)?;
    let Some(desired) = manifests::load(&opened, out)? else { return Ok(Exit::Invalid) };
    let options = engine::options(&adopt, &desired)?;
    let engine = Engine::for_writing(&config)?;
    let plan = engine.plan(&desired, options.clone())?;
    if let Some(saved) = &saved {
        check_same(saved, &plan)?;
    }
    text::write(&mut out.stdout, &plan, text::Options { colour: out.paint.0, full: args.full })?;
    let runnable = plan.steps.iter().filter(|s| !s.is_blocked()).count();
    if runnable == 0 {
        return Ok(exit::of_plan(&plan, false));
    }
    if !args.auto_approve {
        ask(runnable, &source, out)?;
    }
    let progress = Arc::new(Progress::new(&plan, out.bars, out.err_paint));
    let report = engine.apply(&desired, options, &plan, progress.clone())?;
    progress.finish();
    // What was done is done, whether or not somebody still reads.
    match conclude(&plan, &report, out) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e.into()),
        _ => {}
    }
    Ok(exit::of_outcomes(&plan, report.outcomes.values()))
}

/// The plan that PATH names, if it names one.
fn saved_plan(source: &SourceArgs) -> Result<Option<Plan>, CliError> {
    let path = Path::new(&source.path);
    let is_plan = path.extension().is_some_and(|e| e == "json") && path.is_file();
    if !is_plan {
        return Ok(None);
    }
    if source.rev.is_some() {
        return Err(CliError::usage("a saved plan has its revision in itself").hint("leave --rev out"));
    }
    engine::read_plan(path).map(Some)
}

/// Where the saved plan's manifests came from.
fn source_of(plan: &Plan) -> Result<SourceArgs, CliError> {
    let revision = &plan.revision;
    if revision.path == "-" {
        return Err(CliError::usage("the plan was made from standard input, which cannot be read again")
            .hint("plan from a folder or a repository"));
    }
    if revision.base.is_some() {
        return Err(CliError::usage("the plan was made with --base and shows only what a change does")
            .hint("plan without --base to get one that can be carried out"));
    }
    Ok(SourceArgs { path: revision.path.clone(), rev: revision.commit.clone(), subdir: None })
}

/// What the saved plan takes over was approved with it.
fn adopted(plan: &Plan, adopt: &AdoptArgs) -> AdoptArgs {
    let mut adopt = adopt.clone();
    for step in &plan.steps {
        if matches!(step.action, Action::Machine(MachineAction::SetOwner { .. })) && !adopt.adopt.contains(&step.resource.name) {
            adopt.adopt.push(step.resource.name.clone());
        }
    }
    adopt
}

/// Refuses a saved plan that is not what would be planned now, and says what differs.
fn check_same(saved: &Plan, fresh: &Plan) -> Result<(), CliError> {
    if saved.hash == fresh.hash {
        return Ok(());
    }
    const SHOWN: usize = 20;
    let mut lines = differences(saved, fresh);
    let more = lines.len().saturating_sub(SHOWN);
    lines.truncate(SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    if lines.is_empty() {
        lines.push("the steps are the same; values of fields that they do not touch differ".into());
    }
    Err(CliError::refused(format!("the saved plan does not fit what is there now: {}", lines.join("; ")))
        .hint("plan again, look at it, and apply that plan"))
}

fn differences(saved: &Plan, fresh: &Plan) -> Vec<String> {
    let by_id = |plan: &'_ Plan| plan.steps.iter().map(|s| (s.id.clone(), s.clone())).collect::<BTreeMap<String, Step>>();
    let (old, new) = (by_id(saved), by_id(fresh));
    let mut lines = Vec::new();
    for step in &saved.steps {
        match new.get(&step.id) {
            None => lines.push(format!("no longer: {}", step.summary)),
            Some(now) if now.is_blocked() && !step.is_blocked() => lines.push(format!("now held back: {}", step.summary)),
            Some(now) if step.is_blocked() && !now.is_blocked() => lines.push(format!("no longer held back: {}", step.summary)),
            Some(now) if now.action != step.action => lines.push(format!("done differently: {}", step.summary)),
            Some(now) if now.depends_on != step.depends_on => lines.push(format!("in another order: {}", step.summary)),
            Some(_) => {}
        }
    }
    lines.extend(fresh.steps.iter().filter(|s| !old.contains_key(&s.id)).map(|s| format!("new: {}", s.summary)));
    lines
}

/// Asks a person, and takes nothing but a clear answer.
fn ask(steps: usize, source: &SourceArgs, out: &Output) -> Result<(), CliError> {
    let stdin = io::stdin();
    if source.path == "-" || !stdin.is_terminal() {
        return Err(CliError::refused("nobody can be asked: standard input is not a terminal")
            .hint("look at `drover plan`, then give --auto-approve"));
    }
    let mut stderr = io::stderr();
    let plural = if steps == 1 { "step" } else { "steps" };
    let question = format!("Carry out {steps} {plural}? Only \"yes\" is accepted: ");
    write!(stderr, "{}", out.err_paint.bold(&question))?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(CliError::refused("not approved; nothing was done")) }
}

/// Says what became of the plan: what did not work, then the counts.
fn conclude(plan: &Plan, report: &Report, out: &mut Output) -> io::Result<()> {
    let (mut done, mut failed, mut skipped, mut interrupted) = (0, 0, 0, 0);
    writeln!(out.stdout)?;
    for step in &plan.steps {
        let Some(outcome) = report.outcomes.get(&step.id) else { continue };
        let trouble = match outcome {
            Outcome::Done | Outcome::AlreadyDone => {
                done += 1;
                continue;
            }
            Outcome::Failed { error, .. } => {
                failed += 1;
                format!("{} {}: {error}", out.paint.red("failed:"), step.summary)
            }
            Outcome::Refused { reason } => {
                failed += 1;
                format!("{} {}: {reason}", out.paint.red("refused:"), step.summary)
            }
            Outcome::Skipped { reason } => {
                skipped += 1;
                format!("{} {}: {reason}", out.paint.yellow("skipped:"), step.summary)
            }
            Outcome::Interrupted => {
                interrupted += 1;
                format!("{} {}", out.paint.yellow("left:"), step.summary)
            }
        };
        writeln!(out.stdout, "{}", if out.paint.0 { trouble.into() } else { line(&trouble) })?;
    }
    let held_back = plan.steps.iter().filter(|s| !report.outcomes.contains_key(&s.id)).count();
    let line = format!(
        "Applied: {done} done, {failed} failed, {skipped} skipped, {interrupted} left, {held_back} held back."
    );
    writeln!(out.stdout, "{}", out.paint.bold(&line))
}
