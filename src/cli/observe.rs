//! `drover observe`: what is there now.

use super::args::{Global, ObserveArgs, ObservedFormat};
use super::engine::Engine;
use super::exit::{CliError, Exit};
use super::output::Output;
use super::{manifests, settings, source};
use crate::observed::{Observed, Reading};
use crate::render::{json, table};

/// Runs the command.
pub fn run(args: &ObserveArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let opened = source::open(&args.source, &config)?;
    let Some(desired) = manifests::load(&opened, out)? else { return Ok(Exit::Invalid) };
    let observed = Engine::new(&config)?.observe(&desired);
    match args.output {
        ObservedFormat::Table => table::observed(&mut out.stdout, &observed, out.paint)?,
        ObservedFormat::Json => json::write(&mut out.stdout, &observed)?,
        ObservedFormat::Yaml => {
            // By way of JSON's values: the same keys in both forms, and no YAML tags.
            let value = serde_json::to_value(&observed)
                .map_err(|e| CliError::failed("the observation cannot be written as YAML").caused_by(e))?;
            let text = serde_yaml::to_string(&value)
                .map_err(|e| CliError::failed("the observation cannot be written as YAML").caused_by(e))?;
            out.stdout.write_all(text.as_bytes())?;
        }
    }
    Ok(if is_complete(&observed) { Exit::Done } else { Exit::Incomplete })
}

fn is_complete(observed: &Observed) -> bool {
    observed.hosts.values().all(|reading| matches!(reading, Reading::Present(_)))
        && observed.clusters.values().all(|reading| matches!(reading, Reading::Present(_)))
}
