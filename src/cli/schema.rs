//! `drover schema`: the JSON Schemas that manifests are checked against, and those of what Drover writes.

use super::args::SchemaArgs;
use super::exit::{CliError, Exit};
use super::explain::find_kind;
use super::output::Output;
use crate::kind::KINDS;
use crate::load::schema;
use crate::render::table::Table;
use std::path::Path;

/// Runs the command.
pub fn run(args: &SchemaArgs, out: &mut Output) -> Result<Exit, CliError> {
    match (&args.kind, &args.write) {
        (_, Some(folder)) => write_all(folder, out)?,
        (Some(kind), None) => {
            match schema::all().into_iter().find(|(file, _)| file.strip_suffix(".schema.json") == Some(kind)) {
                // `plan` and `observed` are no kinds, and have schemas.
                Some((_, document)) => out.stdout.write_all(schema::to_text(&document).as_bytes())?,
                None => {
                    let document = schema::document_schema(find_kind(kind)?);
                    out.stdout.write_all(schema::to_text(&document).as_bytes())?;
                }
            }
        }
        (None, None) => {
            let mut table = Table::new(&["KIND", "SCHEMA", "SAYS"]);
            for kind in KINDS {
                table.row([kind.name.as_str(), &schema::file_name(kind), kind.summary]);
            }
            table.write(&mut out.stdout, out.paint)?;
        }
    }
    Ok(Exit::Done)
}

fn write_all(folder: &Path, out: &Output) -> Result<(), CliError> {
    let failed = |path: &Path, error: std::io::Error| {
        CliError::failed(format!("`{}` could not be written", path.display())).caused_by(error)
    };
    std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
    let all = schema::all();
    for (name, document) in &all {
        let path = folder.join(name);
        std::fs::write(&path, schema::to_text(document)).map_err(|e| failed(&path, e))?;
    }
    out.note(&format!("{} schemas written to {}", all.len(), folder.display()));
    Ok(())
}
