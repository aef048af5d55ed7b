//! `drover validate`: schema, references and rules of all manifests, without looking at the world.

use super::args::{FindingsFormat, Global, ValidateArgs};
use super::exit::{CliError, Exit};
use super::output::Output;
use super::{settings, source};
use crate::load::{self, Limits};
use crate::render::{json, text};

/// Runs the command. What is found is the result, so it goes to standard output.
pub fn run(args: &ValidateArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let opened = source::open(&args.source, &config)?;
    let loaded = load::load(opened.tree.as_ref(), opened.revision.clone(), &Limits::default());
    match args.output {
        FindingsFormat::Text => text::findings(&mut out.stdout, &loaded.findings, out.paint)?,
        _ => json::write(&mut out.stdout, &loaded.findings)?,
    }
    let Some(desired) = loaded.desired else { return Ok(Exit::Invalid) };
    out.note(&format!("{} resources are valid", desired.resources.len()));
    Ok(Exit::Done)
}
