//! `drover import`: manifests for what is there.

use super::args::{Global, ImportArgs, ImportHostArgs, Importable, SourceArgs};
use super::engine::Engine;
use super::exit::{CliError, Exit};
use super::output::Output;
use super::{manifests, settings, source};
use crate::finding::Finding;
use crate::kind::host::{HostSpec, parse_uri};
use crate::kind::import::{Document, Import, Wanted, import};
use crate::kind::{Desired, Resources};
use crate::model::{Revision, check_name};
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
    }
}

fn host(args: &ImportHostArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let Some(declared) = declared(args, &config, out)? else { return Ok(Exit::Invalid) };
    let wanted = Wanted { hosts: hosts(args, &declared)?, machines: args.vms.iter().cloned().collect() };
    // The hosts alone are asked, as a repository with nothing else would have them.
    let mut asked = Resources::default();
    asked.hosts.extend(declared.hosts.clone());
    asked.hosts.retain(|name, _| wanted.hosts.contains_key(name));
    for (name, spec) in &wanted.hosts {
        let value = serde_json::to_value(spec)
            .map_err(|e| CliError::failed(format!("the host `{name}` cannot be described")).caused_by(e))?;
        if !asked.hosts.contains_key(name) {
            let metadata = crate::model::Metadata { name: name.clone(), ..Default::default() };
            asked.insert("Host", metadata, value, Default::default()).map_err(|e| {
                CliError::failed(format!("the host `{name}` cannot be described")).caused_by(e.into_inner())
            })?;
        }
    }
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
    let mut hosts = BTreeMap::new();
    for argument in &args.hosts {
        let (name, spec) = match argument.split_once('=') {
            None => {
                let manifest = declared.hosts.get(argument).ok_or_else(|| {
                    CliError::usage(format!("no Host `{argument}` is declared")).hint(format!(
                        "say where it is, `{argument}=qemu+ssh://root@{argument}/system`; or give --path with its manifest"
                    ))
                })?;
                (argument.as_str(), manifest.spec.clone())
            }
            Some((name, uri)) => {
                check_name(name)
                    .map_err(|e| CliError::usage(format!("`{name}` cannot be the name of a Host")).caused_by(e))?;
                parse_uri(uri).map_err(|e| CliError::usage(format!("`{uri}` is not a libvirt URI: {e}")))?;
                if declared.hosts.get(name).is_some_and(|m| m.spec.uri != uri) {
                    return Err(CliError::usage(format!("the Host `{name}` is declared with another URI"))
                        .hint("give its name alone, or another name"));
                }
                let spec = declared.hosts.get(name).map_or_else(|| described(uri), |m| Ok(m.spec.clone()))?;
                (name, spec)
            }
        };
        hosts.insert(name.to_owned(), spec);
    }
    Ok(hosts)
}

/// A host of which only the URI is known.
fn described(uri: &str) -> Result<HostSpec, CliError> {
    serde_json::from_value(serde_json::json!({"uri": uri}))
        .map_err(|e| CliError::failed(format!("a Host with the URI `{uri}` cannot be described")).caused_by(e))
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
fn print(documents: &[Document], out: &mut Output) -> Result<(), CliError> {
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
fn write_files(folder: &Path, documents: &[Document], out: &mut Output) -> Result<(), CliError> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for document in documents {
        let below = folder.join(match document.kind.as_str() {
            "Host" => "hosts",
            "StoragePool" => "pools",
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
