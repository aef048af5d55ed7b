//! `drover apply`: plan, ask, carry out.

use super::args::{AdoptArgs, ApplyArgs, Global, SourceArgs};
use super::engine::{self, Engine};
use super::exit::{self, CliError, Exit};
use super::output::Output;
use super::progress::Progress;
use super::{manifests, settings, source};
use crate::action::{Action, MachineAction};
use crate::config::Config;
use crate::execute::{Found, Recovered, Report, under_way};
use crate::journal::{Journal, Outcome, PAST_MOVES, Sqlite};
use crate::kind::Desired;
use crate::kind::host::parse_uri;
use crate::model::ResourceId;
use crate::pass::Events;
use crate::plan::{Plan, PlanOptions, Step};
use crate::render::escape::line as terminal;
use crate::render::text;
use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

/// Plans that are carried out one after the other where nobody is asked: some steps are due only when others are done (a
/// definition is removed once the machine is known to run elsewhere).
const ROUNDS: usize = 4;

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
    if !args.auto_approve {
        can_ask(&source)?;
    }
    let way = Way { auto_approve: args.auto_approve, full: args.full, saved: saved.as_ref(), only: None };
    work(&desired, &config, options, &way, out)
}

/// How a plan is carried out from the command line.
pub(super) struct Way<'a> {
    /// Nobody is asked.
    pub auto_approve: bool,
    /// Long values are shown whole.
    pub full: bool,
    /// The plan that was approved beforehand.
    pub saved: Option<&'a Plan>,
    /// The one resource whose steps are meant.
    pub only: Option<&'a ResourceId>,
}

/// Plans, shows, asks, and carries out.
pub(super) fn work(
    desired: &Desired,
    config: &Config,
    mut options: PlanOptions,
    way: &Way<'_>,
    out: &mut Output,
) -> Result<Exit, CliError> {
    let (state, _lock) = settings::take_state(config)?;
    let journal: Arc<dyn Journal> = Arc::new(
        Sqlite::open(settings::journal_in(config, &state))
            .map_err(|e| CliError::failed("the journal cannot be used").caused_by(e))?,
    );
    let engine = Engine::new(config)?;
    let found = engine.recover(desired, &journal)?;
    found.iter().for_each(|one| out.note(&recovered(one)));
    options.under_way = under_way(&found);
    options.past_moves = journal.past_moves(PAST_MOVES).unwrap_or_default();
    let planned = || {
        let plan = engine.plan(desired, &engine.observe_to_act(desired, &options), options.clone());
        match way.only {
            Some(id) => plan.only(id),
            None => plan,
        }
    };
    let plan = planned();
    if let Some(saved) = way.saved {
        check_same(saved, &plan, "the saved plan does not fit what is there now")?;
    }
    show(&plan, way, out)?;
    let runnable = plan.runnable().count();
    if runnable == 0 {
        return Ok(exit::of_plan(&plan, false));
    }
    let mut plan = plan;
    if !way.auto_approve {
        ask(runnable, out)?;
        // Somebody thought about it, for minutes perhaps. What was approved is what is done, or nothing is.
        let fresh = planned();
        check_same(&plan, &fresh, "what is there changed while you were asked")?;
        plan = fresh;
    }
    if config.sim_state.is_none() && plan.runnable().any(|s| is_simulated(desired, s)) {
        out.warn("simulated hosts live in memory: what is done on them is gone with this process, unless `sim.state` names a file");
    }
    let rounds = if way.auto_approve && way.saved.is_none() { ROUNDS } else { 1 };
    let mut exit = Exit::Done;
    for round in 1..=rounds {
        let report = carry_out(&engine, desired, &plan, &journal, out)?;
        let next = planned();
        let due = next.runnable().count();
        let goes_on = due > 0 && round < rounds && report.succeeded();
        // What was done is done, whether or not somebody still reads.
        match conclude(&plan, &report, if goes_on { 0 } else { due }, out) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e.into()),
            _ => {}
        }
        exit = exit::of_outcomes(&plan, report.outcomes.values());
        if !goes_on {
            break;
        }
        show(&next, way, out)?;
        plan = next;
    }
    Ok(exit)
}

/// Carries out what there is to do for one resource and says nothing of it: loose ends of something that was approved.
pub(super) fn tidy(desired: &Desired, config: &Config, id: &ResourceId) -> Result<(), CliError> {
    let (state, _lock) = settings::take_state(config)?;
    let journal: Arc<dyn Journal> = Arc::new(
        Sqlite::open(settings::journal_in(config, &state))
            .map_err(|e| CliError::failed("the journal cannot be used").caused_by(e))?,
    );
    let engine = Engine::new(config)?;
    let plan =
        engine.plan(desired, &engine.observe_to_act(desired, &PlanOptions::default()), PlanOptions::default()).only(id);
    if plan.runnable().next().is_some() {
        engine.carry_out(desired, &plan, journal, Arc::new(|_| {}), |_| {})?;
    }
    Ok(())
}

/// Carries a plan out and shows how it goes.
fn carry_out(
    engine: &Engine,
    desired: &Desired,
    plan: &Plan,
    journal: &Arc<dyn Journal>,
    out: &Output,
) -> Result<Report, CliError> {
    let progress = Arc::new(Progress::new(plan, out.bars, out.err_paint));
    let (events, note) = (progress.clone(), progress.clone());
    let told: Events = Arc::new(move |event| events.event(&event));
    let report = engine.carry_out(desired, plan, journal.clone(), told, move |text| note.note(text));
    progress.finish();
    report
}

/// Shows the plan. Who approved it beforehand need not read it; otherwise nothing is done that could not be seen.
fn show(plan: &Plan, args: &Way<'_>, out: &mut Output) -> Result<(), CliError> {
    let options = text::Options { colour: out.paint.0, full: args.full };
    match text::write(&mut out.prose(), plan, options) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe && args.auto_approve => Ok(()),
        Err(e) => Err(CliError::failed("the plan could not be shown, so nothing was done").caused_by(e)),
        Ok(()) => Ok(()),
    }
}

fn is_simulated(desired: &Desired, step: &Step) -> bool {
    let host = step.action.targets().first().and_then(|h| desired.resources.hosts.get(*h));
    host.is_some_and(|h| parse_uri(&h.spec.uri).is_ok_and(|uri| uri.driver == "sim"))
}

/// What became of a step of an earlier run.
fn recovered(recovered: &Recovered) -> String {
    let what = &recovered.record.step.summary;
    match &recovered.found {
        Found::Done => format!("an earlier run was cut off; it did this: {what}"),
        Found::Running => format!("an earlier run was cut off; this still goes on and is followed: {what}"),
        Found::NotDone => format!("an earlier run was cut off; it did not do this: {what}"),
        Found::Refused(why) => format!("an earlier run was cut off; this cannot be done any more: {what}: {why}"),
        Found::Failed(why) => format!("an earlier run was cut off; this is not as it should be: {what}: {why}"),
        Found::Undeclared => format!("an earlier run was cut off; the host is not declared any more: {what}"),
        Found::Unknown(why) => format!("an earlier run was cut off; what became of this is not known: {what}: {why}"),
    }
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
    let plan = engine::read_plan(path)?;
    if !plan.is_intact() {
        return Err(CliError::refused(format!("`{}` was changed after it was saved", path.display()))
            .hint("plan again, look at it, and apply that plan"));
    }
    Ok(Some(plan))
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
        if matches!(step.action, Action::Machine(MachineAction::SetOwner { .. }))
            && !adopt.adopt.contains(&step.resource.name)
        {
            adopt.adopt.push(step.resource.name.clone());
        }
    }
    adopt
}

/// Refuses a plan that is not what would be planned now, and says what differs.
fn check_same(saved: &Plan, fresh: &Plan, message: &str) -> Result<(), CliError> {
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
    Err(CliError::refused(format!("{message}: {}", lines.join("; ")))
        .hint("plan again, look at it, and apply that plan"))
}

fn differences(saved: &Plan, fresh: &Plan) -> Vec<String> {
    let by_id =
        |plan: &'_ Plan| plan.steps.iter().map(|s| (s.id.clone(), s.clone())).collect::<BTreeMap<String, Step>>();
    let (old, new) = (by_id(saved), by_id(fresh));
    let mut lines = Vec::new();
    for step in &saved.steps {
        match new.get(&step.id) {
            None => lines.push(format!("no longer: {}", step.summary)),
            Some(now) if now.is_blocked() && !step.is_blocked() => {
                lines.push(format!("now held back: {}", step.summary))
            }
            Some(now) if step.is_blocked() && !now.is_blocked() => {
                lines.push(format!("no longer held back: {}", step.summary))
            }
            Some(now) if now.action != step.action => lines.push(format!("done differently: {}", step.summary)),
            Some(now) if now.depends_on != step.depends_on => lines.push(format!("in another order: {}", step.summary)),
            Some(_) => {}
        }
    }
    lines.extend(fresh.steps.iter().filter(|s| !old.contains_key(&s.id)).map(|s| format!("new: {}", s.summary)));
    lines
}

/// Tells whether a person can be asked.
pub(super) fn can_ask(source: &SourceArgs) -> Result<(), CliError> {
    if source.path != "-" && io::stdin().is_terminal() {
        return Ok(());
    }
    Err(CliError::refused("nobody can be asked: standard input is not a terminal")
        .hint("look at `drover plan`, then give --auto-approve"))
}

/// Asks a person, and takes nothing but a clear answer.
fn ask(steps: usize, out: &Output) -> Result<(), CliError> {
    let plural = if steps == 1 { "step" } else { "steps" };
    let question = format!("Carry out {steps} {plural}? Only \"yes\" is accepted: ");
    let mut stderr = io::stderr();
    write!(stderr, "{}", out.err_paint.bold(&question))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(CliError::refused("not approved; nothing was done")) }
}

/// Says what became of the plan: what did not work, then the counts, then whether more is due.
fn conclude(plan: &Plan, report: &Report, left: usize, out: &mut Output) -> io::Result<()> {
    let (mut done, mut failed, mut skipped, mut interrupted) = (0, 0, 0, 0);
    let paint = out.paint;
    writeln!(out.stdout)?;
    for step in &plan.steps {
        let Some(outcome) = report.outcomes.get(&step.id) else { continue };
        let (label, why) = match outcome {
            Outcome::Done | Outcome::AlreadyDone => {
                done += 1;
                continue;
            }
            Outcome::Failed { error, .. } => {
                failed += 1;
                (paint.red("failed:"), Some(error))
            }
            Outcome::Refused { reason } => {
                failed += 1;
                (paint.red("refused:"), Some(reason))
            }
            Outcome::Skipped { reason } => {
                skipped += 1;
                (paint.yellow("skipped:"), Some(reason))
            }
            Outcome::Interrupted => {
                interrupted += 1;
                (paint.yellow("left:"), None)
            }
        };
        let why = why.map_or_else(String::new, |w| format!(": {}", terminal(w)));
        writeln!(out.stdout, "{label} {}{why}", terminal(&step.summary))?;
    }
    let held_back = plan.steps.iter().filter(|s| !report.outcomes.contains_key(&s.id)).count();
    let line =
        format!("Applied: {done} done, {failed} failed, {skipped} skipped, {interrupted} left, {held_back} held back.");
    writeln!(out.stdout, "{}", paint.bold(&line))?;
    if left > 0 && report.succeeded() {
        writeln!(out.stdout, "What is there now asks for {left} more: run `drover apply` again to see and do it.")?;
    }
    Ok(())
}
