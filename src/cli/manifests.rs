//! Loads manifests for the commands that need them all valid.

use super::exit::CliError;
use super::output::Output;
use super::source::Opened;
use crate::kind::Desired;
use crate::load::{self, Limits, Loaded};
use std::io::{self, Write};

/// Loads; every finding is shown on standard error. `None` when there are errors among them: the command ends with
/// [`super::Exit::Invalid`], and nothing was done.
pub fn load(opened: &Opened, out: &Output) -> Result<Option<Desired>, CliError> {
    let Loaded { desired, findings } = read(opened);
    let text = crate::render::findings::text(&findings, &|file| text_of(opened, file), out.err_paint.0);
    // Nobody reading the findings does not make the manifests valid or invalid.
    let _ = io::stderr().write_all(text.as_bytes());
    Ok(desired)
}

/// Loads, and says nothing.
pub fn read(opened: &Opened) -> Loaded {
    load::load(opened.tree.as_ref(), opened.revision.clone(), &Limits::default())
}

/// A file's text, for showing the line that a finding is about.
pub fn text_of(opened: &Opened, file: &str) -> Option<String> {
    String::from_utf8(opened.tree.read(file, Limits::default().file_bytes).ok()?).ok()
}
