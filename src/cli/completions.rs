//! `drover completions`: a script that completes commands and options in a shell.

use super::args::{Cli, CompletionsArgs};
use super::exit::{CliError, Exit};
use super::output::Output;
use clap::CommandFactory;

/// Runs the command.
pub fn run(args: &CompletionsArgs, out: &mut Output) -> Result<Exit, CliError> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "drover", &mut script);
    out.stdout.write_all(&script)?;
    Ok(Exit::Done)
}
