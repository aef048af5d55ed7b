//! `drover migrate`: a VirtualMachineMigration for people who think in commands; with `--now` it is carried out, too.

use super::apply::{self, Way};
use super::args::{Global, MigrateArgs};
use super::engine::Engine;
use super::exit::{CliError, Exit};
use super::output::Output;
use super::source::Opened;
use super::{import, manifests, settings, source};
use crate::config::Config;
use crate::finding::Finding;
use crate::kind::host::parse_uri;
use crate::kind::import::Document;
use crate::kind::virtual_machine::VirtualMachineSpec;
use crate::kind::virtual_machine_migration::VirtualMachineMigrationSpec;
use crate::kind::{API_VERSION, Desired, Resources, Spec};
use crate::model::{Manifest, Metadata, NAME_MAX, Origin, check_name};
use crate::observed::{Observed, Reading};
use crate::plan::PlanOptions;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// Lines around the one to change, in the diff.
const CONTEXT: usize = 3;

/// Where its manifest stands, as findings say.
const COMMAND: &str = "drover migrate";

/// Runs the command.
pub fn run(args: &MigrateArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, args.state.as_ref())?;
    settings::log(&config, true)?;
    let opened = source::open(&args.source, &config)?;
    let Some(mut desired) = manifests::load(&opened, out)? else { return Ok(Exit::Invalid) };
    let mut documents = Vec::new();
    let to = host(&args.to, &mut desired.resources, &mut documents)?;
    let from = args.from.as_ref().map(|h| host(h, &mut desired.resources, &mut documents)).transpose()?;
    let machine = desired.resources.virtual_machines.get(&args.machine);
    if let Some(m) = machine
        && let Some(home) = m.spec.host.clone()
    {
        if home == to && args.temporary {
            return Err(CliError::usage(format!("`{to}` is the home of `{}`", args.machine))
                .hint("a machine that is elsewhere for a while comes home when its migration is taken out of Git"));
        }
        if !args.temporary {
            return pinned(m, &home, &to, &opened, args.now, out);
        }
    }
    let has_manifest = machine.is_some();
    let from = match from {
        None if !has_manifest => match find(&args.machine, &to, &desired, &config, out)? {
            Found::At(host) => Some(host),
            Found::There => {
                out.note(&format!("`{}` is on `{to}` already", args.machine));
                return Ok(Exit::Done);
            }
            Found::Unknown => return Ok(Exit::Incomplete),
        },
        given => given,
    };
    let mut spec = VirtualMachineMigrationSpec {
        machine: Some(args.machine.clone()),
        from,
        to: to.clone(),
        migration_policy: args.policy.clone(),
        ..VirtualMachineMigrationSpec::default()
    };
    if spec.is_permanent(&desired.resources) == args.temporary {
        spec.permanent = Some(!args.temporary);
    }
    let name = match &args.name {
        Some(name) => {
            check_name(name)
                .map_err(|e| CliError::usage(format!("`{name}` cannot be the name of a manifest")).caused_by(e))?;
            name.clone()
        }
        None => name_of(&args.machine, &to),
    };
    let id = crate::model::ResourceId::new(VirtualMachineMigrationSpec::KIND, name.clone());
    if let Some(there) = desired.resources.virtual_machine_migrations.get(&name) {
        return Err(CliError::refused(format!(
            "there is a VirtualMachineMigration `{name}` already, at {}",
            there.origin.source()
        ))
        .hint("take it out once it is done, and it can be made anew; or give another --name"));
    }
    documents.push(document(&name, &spec)?);
    let metadata = Metadata { name: name.clone(), ..Metadata::default() };
    let origin = Origin { file: COMMAND.into(), line: 1, column: 1, ..Origin::default() };
    let manifest = Manifest { kind: VirtualMachineMigrationSpec::KIND, metadata, spec, origin };
    desired.resources.virtual_machine_migrations.insert(name, manifest);
    let mut findings = Vec::new();
    desired.resources.check(&mut findings);
    // Also what is said of another manifest because of this one: of two that fight, the later name has the finding.
    findings.retain(|f| f.resource.as_ref() == Some(&id) || f.related.iter().any(|place| place.file == COMMAND));
    crate::finding::sort(&mut findings);
    let text = crate::render::findings::text(&findings, &|_| None, out.err_paint.0);
    let _ = io::stderr().write_all(text.as_bytes());
    if findings.iter().any(Finding::is_error) {
        return Ok(Exit::Invalid);
    }
    if args.now && !args.auto_approve {
        apply::can_ask(&args.source)?;
    }
    match &args.out {
        Some(folder) => import::write_files(folder, &documents, out)?,
        None if args.now => {}
        None => import::print(&documents, out)?,
    }
    if !args.now {
        return Ok(Exit::Done);
    }
    let way = Way { auto_approve: args.auto_approve, full: args.full, saved: None, only: Some(&id) };
    let exit = apply::work(&desired, &config, PlanOptions::default(), &way, out)?;
    if args.out.is_none() && !args.temporary && exit == Exit::Done {
        // Its manifest was this command, so the notes in the domain are of no more use.
        desired.resources.virtual_machine_migrations.remove(&id.name);
        apply::tidy(&desired, &config, &id)?;
    }
    if args.out.is_none() && args.temporary {
        out.note(&format!(
            "its manifest is nowhere: whoever carries the manifests of {} out next brings `{}` home; -o DIR writes it",
            args.source.path, args.machine
        ));
    }
    Ok(exit)
}

/// A host that is declared, or one that is said here.
fn host(argument: &str, all: &mut Resources, documents: &mut Vec<Document>) -> Result<String, CliError> {
    let Some((name, uri)) = argument.split_once('=') else {
        if !all.hosts.contains_key(argument) {
            let hint = match crate::finding::nearest(argument, all.hosts.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "say where it is, `{argument}=qemu+ssh://root@{argument}/system`; or give PATH with its manifest"
                ),
            };
            return Err(CliError::usage(format!("no Host `{argument}` is declared")).hint(hint));
        }
        return Ok(argument.to_owned());
    };
    check_name(name).map_err(|e| CliError::usage(format!("`{name}` cannot be the name of a Host")).caused_by(e))?;
    parse_uri(uri).map_err(|e| CliError::usage(format!("`{uri}` is not a libvirt URI: {e}")))?;
    match all.hosts.get(name) {
        Some(m) if m.spec.uri != uri => {
            return Err(CliError::usage(format!("the Host `{name}` is declared with another URI"))
                .hint("give its name alone, or another name"));
        }
        Some(_) => {}
        None => {
            let spec = serde_json::json!({"uri": uri});
            let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
            all.insert("Host", metadata, spec.clone(), Origin::default()).map_err(|e| {
                CliError::failed(format!("the host `{name}` cannot be described")).caused_by(e.into_inner())
            })?;
            documents.push(whole("Host", name, spec));
        }
    }
    Ok(name.to_owned())
}

fn whole(kind: &str, name: &str, spec: serde_json::Value) -> Document {
    let value = serde_json::json!({
        "apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    Document { kind: kind.to_owned(), name: name.to_owned(), value, xml: None }
}

fn document(name: &str, spec: &VirtualMachineMigrationSpec) -> Result<Document, CliError> {
    let spec = serde_json::to_value(spec)
        .map_err(|e| CliError::failed(format!("`{name}` cannot be written as YAML")).caused_by(e))?;
    Ok(whole(VirtualMachineMigrationSpec::KIND.as_str(), name, spec))
}

/// `web-1-to-kvm-b`, whatever libvirt lets a domain be called.
fn name_of(machine: &str, to: &str) -> String {
    let tail = format!("-to-{to}");
    let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let clean: String =
        machine.to_ascii_lowercase().chars().map(|c| if is_fine(c) { c } else { '-' }).collect::<String>();
    let clean = clean.trim_matches(['-', '.']);
    let room = NAME_MAX.saturating_sub(tail.len()).max(1);
    let start: String = clean.chars().take(room).collect();
    let start = start.trim_end_matches(['-', '.']);
    let name = format!("{}{tail}", if start.is_empty() { "domain" } else { start });
    name.chars().take(NAME_MAX).collect()
}

/// Where a domain without a manifest is.
enum Found {
    At(String),
    There,
    Unknown,
}

fn find(name: &str, to: &str, desired: &Desired, config: &Config, out: &mut Output) -> Result<Found, CliError> {
    let engine = Engine::new(config)?;
    let observed: Observed = engine.observe(desired);
    let mut unread = Vec::new();
    let mut uuids = BTreeSet::new();
    let (mut at, mut there) = (BTreeSet::new(), false);
    for (host, reading) in &observed.hosts {
        let state = match reading {
            Reading::Present(state) => state,
            Reading::Unknown { why } => {
                unread.push(format!("`{host}` could not be read: {why}"));
                continue;
            }
        };
        for domain in state.domains.iter().filter(|d| d.name == name && !d.moved_away()) {
            uuids.insert(domain.uuid);
            if host == to {
                there = true;
            } else {
                at.insert(host.clone());
            }
        }
    }
    unread.iter().for_each(|why| out.warn(why));
    let mut hosts = at.into_iter();
    match (hosts.next(), hosts.next(), there) {
        (Some(host), None, false) => Ok(Found::At(host)),
        (None, _, true) => Ok(Found::There),
        (None, _, false) if !unread.is_empty() => {
            out.warn(&format!("`{name}` was not found on the hosts that could be read"));
            Ok(Found::Unknown)
        }
        (None, _, false) => {
            Err(CliError::failed(format!("there is neither a VirtualMachine `{name}` nor a domain of this name"))
                .hint("check the name; `drover observe` shows what is there; a host that PATH does not declare can be given with --from"))
        }
        (Some(_), ..) => Err(CliError::usage(format!("several hosts have a domain `{name}`"))
            .hint("say which one is meant with --from")),
    }
}

/// A machine whose manifest pins it moves because that line changes: says which line, as a diff.
fn pinned(
    m: &Manifest<VirtualMachineSpec>,
    home: &str,
    to: &str,
    opened: &Opened,
    now: bool,
    out: &mut Output,
) -> Result<Exit, CliError> {
    if home == to {
        out.note(&format!("the manifest of `{}` says `host: {to}` already; `drover plan` shows what is due", m.name()));
        return Ok(Exit::Done);
    }
    let place = m.origin.source_of("spec.host");
    out.note(&format!("`{}` is pinned by its own manifest ({place}): `host: {to}` there moves it for good", m.name()));
    out.note("--temporary moves it for a while, its home stays the same");
    if let Some(text) = manifests::text_of(opened, &place.file)
        && let Some(diff) = diff(&text, &place.file, place.line as usize, home, to)
    {
        out.stdout.write_all(diff.as_bytes())?;
    }
    Ok(if now { Exit::Refused } else { Exit::Done })
}

/// The change of one line, as `git apply` takes it.
fn diff(text: &str, file: &str, line: usize, home: &str, to: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let at = line.checked_sub(1)?;
    let old = *lines.get(at)?;
    let value = old.find("host:").map_or(0, |i| i + "host:".len());
    let start = value + old.get(value..)?.find(home)?;
    let new = format!("{}{to}{}", old.get(..start)?, old.get(start + home.len()..)?);
    let (first, last) = (at.saturating_sub(CONTEXT), (at + CONTEXT).min(lines.len() - 1));
    let count = last - first + 1;
    let mut diff = format!("--- a/{file}\n+++ b/{file}\n@@ -{},{count} +{},{count} @@\n", first + 1, first + 1);
    for (i, line) in lines.iter().enumerate().take(last + 1).skip(first) {
        match i == at {
            true => diff.push_str(&format!("-{old}\n+{new}\n")),
            false => diff.push_str(&format!(" {line}\n")),
        }
    }
    Some(diff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_s_name_is_one_that_a_manifest_may_have() {
        assert_eq!(name_of("web-1", "kvm-b"), "web-1-to-kvm-b");
        for (machine, to) in [("Büro VM (alt)", "b"), ("___", "b"), (&"x".repeat(200), "kvm-b"), ("a", &"h".repeat(63))]
        {
            let name = name_of(machine, to);
            check_name(&name).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn the_line_to_change_is_a_diff_that_changes_nothing_else() {
        let text = "kind: VirtualMachine\nmetadata: {name: a}\nspec:\n  host: kvm-a   # rack 1\n  cpus: 1\n";
        let diff = diff(text, "vms/a.yaml", 4, "kvm-a", "kvm-b").unwrap();
        assert!(diff.starts_with("--- a/vms/a.yaml\n+++ b/vms/a.yaml\n@@ -1,5 +1,5 @@\n"), "{diff}");
        assert!(diff.contains("-  host: kvm-a   # rack 1\n+  host: kvm-b   # rack 1\n"), "{diff}");
        assert_eq!(super::diff(text, "x", 4, "other", "b"), None);
    }
}
