//! `drover validate`: schema, references and rules of all manifests, without looking at the world.

use super::args::{FindingsFormat, Global, ValidateArgs};
use super::exit::{CliError, Exit};
use super::output::Output;
use super::{manifests, settings, source};
use crate::render::findings;

/// Runs the command. What is found is the result, so it goes to standard output.
pub fn run(args: &ValidateArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let opened = source::open(&args.source, &config)?;
    let loaded = manifests::read(&opened);
    let text = match args.output {
        FindingsFormat::Text => {
            findings::text(&loaded.findings, &|file| manifests::text_of(&opened, file), out.paint.0)
        }
        FindingsFormat::Json => findings::json_text(&loaded.findings),
        FindingsFormat::Github => findings::github(&loaded.findings),
        FindingsFormat::Sarif => findings::sarif(&loaded.findings),
    };
    out.stdout.write_all(text.as_bytes())?;
    let Some(desired) = loaded.desired else { return Ok(Exit::Invalid) };
    let count = desired.resources.len();
    out.note(&format!("{count} {} valid", if count == 1 { "resource is" } else { "resources are" }));
    Ok(Exit::Done)
}
