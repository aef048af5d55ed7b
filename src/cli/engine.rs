//! Between the commands and the engine: what a command asks for, in the engine's words.

use super::args::AdoptArgs;
use super::exit::CliError;
use crate::kind::Desired;
use crate::observed::{FORMAT_VERSION, Observed};
use crate::plan::{self, Plan, PlanInput, PlanOptions};
use jiff::Timestamp;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes of a saved plan or observation.
const MOST: u64 = 512 << 20;

/// Plans from an observation. Opens no connection.
pub fn plan(desired: &Desired, observed: &Observed, options: PlanOptions) -> Plan {
    plan::plan(&PlanInput { desired, observed, now: Timestamp::now(), options })
}

/// What the operator says beyond Git. A machine that is not declared is a typing error.
pub fn options(adopt: &AdoptArgs, desired: &Desired) -> Result<PlanOptions, CliError> {
    for name in &adopt.adopt {
        if !desired.resources.virtual_machines.contains_key(name) {
            return Err(CliError::usage(format!("`--adopt {name}`: there is no VirtualMachine `{name}`"))
                .hint("name a VirtualMachine of the manifests"));
        }
    }
    Ok(PlanOptions { adopt: adopt.adopt.iter().cloned().collect(), ..PlanOptions::default() })
}

/// Reads a saved observation.
pub fn read_observed(path: &Path) -> Result<Observed, CliError> {
    let text = read(path)?;
    let hint = "save one with `drover observe -o json`";
    let not = |error: serde_json::Error| {
        CliError::failed(format!("`{}` is not an observation", path.display())).caused_by(error).hint(hint)
    };
    // YAML is not read back: one form for programs is enough.
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(not)?;
    check_version(path, value.get("formatVersion"), FORMAT_VERSION, hint)?;
    serde_json::from_value(value).map_err(not)
}

/// Reads a saved plan.
pub fn read_plan(path: &Path) -> Result<Plan, CliError> {
    let text = read(path)?;
    let hint = "save one with `drover plan --out FILE`";
    let not = |error: serde_json::Error| {
        CliError::failed(format!("`{}` is not a plan", path.display())).caused_by(error).hint(hint)
    };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(not)?;
    check_version(path, value.get("formatVersion"), plan::FORMAT_VERSION, hint)?;
    serde_json::from_value(value).map_err(not)
}

/// Keys are only added within a major version, so another one means another meaning.
fn check_version(path: &Path, found: Option<&serde_json::Value>, known: &str, hint: &str) -> Result<(), CliError> {
    let major = |v: &str| v.split('.').next().map(str::to_owned);
    match found.and_then(|v| v.as_str()) {
        Some(version) if major(version) == major(known) => Ok(()),
        Some(version) => Err(CliError::failed(format!(
            "`{}` has format version {version}; this Drover reads {known}",
            path.display()
        ))
        .hint("use the Drover that wrote it, or write it anew")),
        None => Err(CliError::failed(format!("`{}` has no `formatVersion`", path.display())).hint(hint)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed =
        |error: std::io::Error| CliError::failed(format!("`{}` could not be read", path.display())).caused_by(error);
    let mut text = Vec::new();
    let n = File::open(path).and_then(|f| f.take(MOST + 1).read_to_end(&mut text)).map_err(failed)?;
    if n as u64 > MOST {
        return Err(CliError::failed(format!("`{}` has more than {MOST} bytes", path.display())));
    }
    Ok(text)
}

/// The engine, for commands that talk to hosts.
pub struct Engine {}

impl Engine {
    /// To read hosts.
    pub fn for_reading(_config: &crate::config::Config) -> Result<Self, CliError> {
        Err(CliError::failed("reading hosts comes with the engine").hint("give --observed FILE"))
    }

    /// Reads every host.
    pub fn observe(&self, _desired: &Desired) -> Result<Observed, CliError> {
        Err(CliError::failed("reading hosts comes with the engine"))
    }
}
