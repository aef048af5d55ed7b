//! `drover plan`: what would be done.

use super::args::{Global, PlanArgs, PlanFormat};
use super::engine::{self, Engine};
use super::exit::{self, CliError, Exit};
use super::output::Output;
use super::source::{self, Opened};
use super::{manifests, settings};
use crate::config::Config;
use crate::journal::{Journal, PAST_MOVES, Sqlite};
use crate::kind::Desired;
use crate::observed::Observed;
use crate::plan::precopy::PastMove;
use crate::plan::{Plan, PlanOptions};
use crate::render::{json, markdown, text};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use uuid::Uuid;

/// Runs the command.
pub fn run(args: &PlanArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let Some((head, base)) = desired(args, &config, out)? else { return Ok(Exit::Invalid) };
    let past_moves = past_moves(&config);
    let options = PlanOptions { past_moves: past_moves.clone(), ..engine::options(&args.adopt, &head)? };
    let observed = observed(args, &config, &head, &options)?;
    let mut plan = engine::plan(&head, &observed, options);
    if let Some(base) = base {
        let mut options = PlanOptions { past_moves, ..engine::options(&args.adopt, &head)? };
        options.adopt.retain(|name| base.resources.virtual_machines.contains_key(name));
        plan = plan.since(&engine::plan(&base, &observed, options));
    }
    if let Some(path) = &args.out {
        save(&plan, path)?;
    }
    match args.output {
        PlanFormat::Text => {
            let options = text::Options { colour: out.paint.0, full: args.full };
            text::write(&mut out.prose(), &plan, options)?;
        }
        PlanFormat::Markdown => markdown::write(&mut out.stdout, &plan)?,
        PlanFormat::Json => json::write(&mut out.stdout, &plan)?,
    }
    Ok(exit::of_plan(&plan, args.detailed_exitcode))
}

/// What is wanted, and what the older revision wants that it is compared with. `None` when one of them is not valid.
fn desired(args: &PlanArgs, config: &Config, out: &Output) -> Result<Option<(Desired, Option<Desired>)>, CliError> {
    let Some(base) = &args.base else {
        let opened = source::open(&args.source, config)?;
        return Ok(manifests::load(&opened, out)?.map(|d| (d, None)));
    };
    let (base, head) = source::open_two(&args.source, base, args.head.as_deref().unwrap_or("HEAD"), config)?;
    let Some(head) = manifests::load(&head, out)? else { return Ok(None) };
    Ok(Some((head, Some(valid_base(&base, out)?))))
}

/// The older revision. What is wrong with it is not what the user asks about, but without it there is no comparison.
fn valid_base(base: &Opened, out: &Output) -> Result<Desired, CliError> {
    manifests::load(base, out)?.ok_or_else(|| {
        let commit = base.revision.commit.as_deref().unwrap_or("?");
        CliError::failed(format!(
            "the manifests of the base commit {commit} are not valid, so nothing can be compared with it"
        ))
        .hint("plan without --base to see everything that would be done")
    })
}

/// How machines moved before, where a journal is at hand: they make predictions better, and nothing else depends on them.
fn past_moves(config: &Config) -> BTreeMap<Uuid, Vec<PastMove>> {
    let path = settings::journal_that_is_there(config);
    if !path.exists() {
        return BTreeMap::new();
    }
    Sqlite::open_read_only(path).and_then(|journal| journal.past_moves(PAST_MOVES)).unwrap_or_else(|error| {
        tracing::debug!(%error, "earlier moves could not be read");
        BTreeMap::new()
    })
}

fn observed(args: &PlanArgs, config: &Config, desired: &Desired, options: &PlanOptions) -> Result<Observed, CliError> {
    match &args.observed {
        Some(path) => engine::read_observed(path),
        None => Ok(Engine::new(config)?.observe_for(desired, options)),
    }
}

fn save(plan: &Plan, path: &Path) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("the plan could not be saved to `{}`", path.display())).caused_by(error)
    };
    let mut file = File::create(path).map_err(failed)?;
    json::write(&mut file, plan).map_err(failed)
}
