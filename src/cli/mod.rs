//! The command line: arguments as typed ([`args`]), what they mean ([`settings`], [`source`]), one file for each command,
//! and how each ends ([`exit`]). Results go to standard output, everything else to standard error.

mod apply;
mod args;
mod bars;
mod completions;
mod cpu_baseline;
mod daemon;
mod engine;
mod exit;
mod explain;
mod fetch;
mod history;
mod hosts;
mod import;
mod import_cluster;
mod manifests;
mod migrate;
mod observe;
mod output;
mod plan;
mod powers;
mod progress;
mod rbac;
mod schema;
mod settings;
mod source;
mod status;
mod validate;

pub use exit::{CliError, Exit};

use args::{Cli, Command};
use clap::Parser;
use clap::error::ErrorKind;
use output::Output;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with these arguments (the first is its name) and gives its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error. Nobody reading them is none either.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(exit::USAGE),
            };
        }
    };
    let mut output = Output::of_process(&cli.global);
    match dispatch(&cli, &mut output) {
        Ok(exit) => exit.into(),
        Err(error) => {
            if !error.is_broken_pipe() {
                output.error(&error);
            }
            ExitCode::from(error.code())
        }
    }
}

fn dispatch(cli: &Cli, out: &mut Output) -> Result<Exit, CliError> {
    let global = &cli.global;
    match &cli.command {
        Command::Validate(args) => validate::run(args, global, out),
        Command::Schema(args) => schema::run(args, out),
        Command::Explain(args) => explain::run(args, out),
        Command::Completions(args) => completions::run(args, out),
        Command::Plan(args) => plan::run(args, global, out),
        Command::History(args) => history::run(args, global, out),
        Command::Status(args) => status::run(args, global, out),
        Command::Apply(args) => apply::run(args, global, out),
        Command::Rbac(args) => rbac::run(args, global, out),
        Command::Import(args) => import::run(args, global, out),
        Command::CpuBaseline(args) => cpu_baseline::run(args, global, out),
        Command::Migrate(args) => migrate::run(args, global, out),
        Command::Observe(args) => observe::run(args, global, out),
        Command::Daemon(args) => daemon::run(args, global),
    }
}
