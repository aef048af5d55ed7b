//! Loads manifests for the commands that need them all valid.

use super::exit::CliError;
use super::output::Output;
use super::source::Opened;
use crate::kind::Desired;
use crate::load::{self, Limits, Loaded};

/// Loads; every finding is shown on standard error. `None` when there are errors among them: the command ends with
/// [`super::Exit::Invalid`], and nothing was done.
pub fn load(opened: &Opened, out: &Output) -> Result<Option<Desired>, CliError> {
    let Loaded { desired, findings } = load::load(opened.tree.as_ref(), opened.revision.clone(), &Limits::default());
    out.findings(&findings);
    Ok(desired)
}
