//! `drover import`: manifests for what is there.

use super::args::{Global, ImportArgs, ImportHostArgs, Importable, SourceArgs};
use super::engine::Engine;
use super::exit::{CliError, Exit};
use super::output::Output;
use super::{hosts, manifests, settings, source};
use crate::finding::Finding;
use crate::kind::host::HostSpec;
use crate::kind::import::{Document, Import, Wanted, import};
use crate::kind::{Desired, Resources};
use crate::model::Revision;
use crate::observed::{Observed, Reading};
use crate::plan::PlanOptions;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(args: &ImportArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    match &args.what {
        Importable::Host(args) => host(args, global, out),
        Importable::Cluster(args) => super::import_cluster::run(args, global, out),
    }
}

fn host(args: &ImportHostArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let Some(declared) = declared(args, &config, out)? else { return Ok(Exit::Invalid) };
    let wanted = Wanted { hosts: hosts(args, &declared)?, machines: args.vms.iter().cloned().collect() };
    let asked = hosts::alone(&wanted.hosts, &declared)?;
    let engine = Engine::new(&config)?;
    let observed = engine.observe(&Desired { revision: revision(), resources: asked });
    let complete = complain(&observed, out);
    let made = import(&wanted, &observed, &declared);
    let text = crate::render::findings::text(&made.findings, &|_| None, out.err_paint.0);
    let _ = io::stderr().write_all(text.as_bytes());
    match &args.out {
        Some(folder) => write_files(folder, &made.documents, out)?,
        None => print(&made.documents, out)?,
    }
    let differs = differences(&engine, &made, observed);
    for finding in &differs {
        out.warn(finding);
    }
    if made.findings.iter().any(Finding::is_error) || !differs.is_empty() {
        return Ok(Exit::Failed);
    }
    Ok(if complete { Exit::Done } else { Exit::Incomplete })
}

/// The manifests that are there. A folder that is yet to be made has none.
fn declared(
    args: &ImportHostArgs,
    config: &crate::config::Config,
    out: &Output,
) -> Result<Option<Resources>, CliError> {
    let Some(path) = args.path.as_ref().or(args.out.as_ref()) else { return Ok(Some(Resources::default())) };
    let is_empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == io::ErrorKind::NotFound && args.path.is_none() => true,
        Err(e) => {
            return Err(CliError::failed(format!("`{}` could not be read", path.display())).caused_by(e));
        }
    };
    if is_empty {
        return Ok(Some(Resources::default()));
    }
    let source = SourceArgs { path: path.to_string_lossy().into_owned(), rev: None, subdir: None };
    let opened = source::open(&source, config)?;
    Ok(manifests::load(&opened, out)?.map(|d| d.resources))
}

/// The hosts that are named, with what is said of each.
fn hosts(args: &ImportHostArgs, declared: &Resources) -> Result<BTreeMap<String, HostSpec>, CliError> {
    args.hosts.iter().map(|argument| hosts::named(argument, declared)).collect()
}

fn revision() -> Revision {
    Revision { commit: None, base: None, path: "import".into() }
}

/// Names the hosts that could not be read; tells whether there is none.
fn complain(observed: &Observed, out: &Output) -> bool {
    let mut complete = true;
    for (host, reading) in &observed.hosts {
        if let Reading::Unknown { why } = reading {
            complete = false;
            out.warn(&format!("`{host}` could not be read, and nothing of it was imported: {why}"));
        }
    }
    complete
}

/// Manifests one after the other. A definition that stands in a file of its own stands inline here.
pub(super) fn print(documents: &[Document], out: &mut Output) -> Result<(), CliError> {
    for document in documents {
        let mut document = document.clone();
        if let Some(xml) = document.xml.take() {
            document.value["spec"]["xml"] = serde_json::json!({ "inline": xml });
        }
        writeln!(out.stdout, "---")?;
        out.stdout.write_all(text(&document)?.as_bytes())?;
    }
    Ok(())
}

fn text(document: &Document) -> Result<String, CliError> {
    serde_yaml::to_string(&document.value)
        .map_err(|e| CliError::failed(format!("`{}` cannot be written as YAML", document.name)).caused_by(e))
}

/// One file for each manifest, in a folder for each kind. Nothing is written when one of them is there already.
pub(super) fn write_files(folder: &Path, documents: &[Document], out: &mut Output) -> Result<(), CliError> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for document in documents {
        let below = folder.join(match document.kind.as_str() {
            "Host" => "hosts",
            "StoragePool" => "pools",
            "VirtualMachineMigration" => "migrations",
            _ => "machines",
        });
        if let Some(xml) = &document.xml {
            files.push((below.join(format!("{}.xml", document.name)), format!("{xml}\n")));
        }
        files.push((below.join(format!("{}.yaml", document.name)), text(document)?));
    }
    if let Some((there, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(CliError::refused(format!("`{}` is there already; nothing was written", there.display()))
            .hint("give --path with the folder, so that what it declares is not imported again; or another --out"));
    }
    for (path, text) in files {
        let failed = |e: io::Error| CliError::failed(format!("`{}` could not be written", path.display())).caused_by(e);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        writeln!(out.stdout, "{}", path.display())?;
    }
    Ok(())
}

/// What the next plan would do, in words: nothing, if the import is what it should be.
fn differences(engine: &Engine, made: &Import, observed: Observed) -> Vec<String> {
    let mut resources = made.resources.clone();
    // Of hosts that were not asked nothing is known, and nothing is said.
    resources.hosts.retain(|name, _| matches!(observed.hosts.get(name), Some(Reading::Present(_))));
    let imported = |kind: &str, name: &str| made.documents.iter().any(|d| d.kind == kind && d.name == name);
    resources.virtual_machines.retain(|name, _| imported("VirtualMachine", name));
    resources.storage_pools.retain(|_, m| m.spec.hosts.iter().all(|h| resources.hosts.contains_key(h)));
    let mut findings = Vec::new();
    resources.check(&mut findings);
    let invalid = findings.iter().filter(|f| f.is_error());
    let mut found: Vec<String> = invalid.map(|f| format!("what was written is not valid: {}", f.message)).collect();
    let desired = Desired { revision: revision(), resources };
    let plan = engine.plan(&desired, &observed, PlanOptions::default());
    let due = plan.steps.iter().filter(|s| imported(s.resource.kind.as_str(), &s.resource.name));
    found.extend(due.map(|s| format!("the next plan is not empty: {} ({})", s.summary, s.why)));
    found
}
