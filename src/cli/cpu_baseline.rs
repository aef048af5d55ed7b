//! `drover cpu-baseline`: the CPU that guests can have on all of several hosts (migration guide, 10.7).

use super::args::{CpuBaselineArgs, CpuFormat, Global};
use super::engine::Engine;
use super::exit::{CliError, Exit};
use super::output::Output;
use super::{hosts, manifests, settings, source};
use crate::domain_xml::{GuestCpu, guest_cpu};
use crate::kind::virtual_machine::custom_cpu;
use crate::kind::{Desired, Resources};
use crate::model::Revision;
use crate::observed::{Baseline, CpuBaseline, Observed, Platform, Questions, Reading};
use crate::render::escape::line as terminal;
use crate::render::json;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// Runs the command.
pub fn run(args: &CpuBaselineArgs, global: &Global, out: &mut Output) -> Result<Exit, CliError> {
    let config = settings::load(global, None)?;
    settings::log(&config, true)?;
    let declared = if args.hosts.iter().all(|h| h.contains('=')) {
        Resources::default()
    } else {
        let opened = source::open(&args.source, &config)?;
        let Some(desired) = manifests::load(&opened, out)? else { return Ok(Exit::Invalid) };
        desired.resources
    };
    let named = args.hosts.iter().map(|h| hosts::named(h, &declared)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let names: BTreeSet<String> = named.keys().cloned().collect();
    let revision = Revision { commit: None, base: None, path: "cpu-baseline".into() };
    let desired = Desired { revision, resources: hosts::alone(&named, &declared)? };
    let engine = Engine::new(&config)?;
    let mut observed = engine.observe(&desired);
    let mut complete = true;
    for (host, reading) in &observed.hosts {
        if let Reading::Unknown { why } = reading {
            complete = false;
            out.warn(&format!("`{host}` could not be read: {why}"));
        }
    }
    if !complete {
        out.warn(
            "the common CPU is not known: it takes every host, and a host less could make it more than one of them has",
        );
        return Ok(Exit::Incomplete);
    }
    let platform =
        Platform { arch: args.arch.clone(), machine: args.machine.clone(), virt_type: args.virt_type.clone() };
    engine.ask(
        &desired,
        Questions { baselines: BTreeSet::from([(names, platform)]), ..Questions::default() },
        &mut observed,
    );
    let Some(CpuBaseline { platform, answer, .. }) = observed.cpu_baselines.first() else {
        return Err(CliError::failed("the hosts were not asked"));
    };
    let found = match answer {
        Reading::Present(found) => found,
        Reading::Unknown { why } => {
            return Err(CliError::failed(format!("there is no common CPU: {why}"))
                .hint("hosts of different makers or architectures have none; leave one out"));
        }
    };
    let Some(cpu) = guest_cpu(&found.cpu) else {
        return Err(CliError::failed(format!("`{}` gave an answer that names no CPU model", found.computed_on)));
    };
    match args.output {
        CpuFormat::Text => text(out, &observed, found, &cpu)?,
        CpuFormat::Xml => writeln!(out.stdout, "{}", cpu.element().to_xml())?,
        CpuFormat::Yaml => {
            let text = serde_yaml::to_string(&json!({"cpu": custom_cpu(&cpu)}))
                .map_err(|e| CliError::failed("the CPU cannot be written as YAML").caused_by(e))?;
            out.stdout.write_all(text.as_bytes())?;
        }
        CpuFormat::Json => {
            let value = json!({
                "cpu": custom_cpu(&cpu), "xml": cpu.element().to_xml(), "computedOn": found.computed_on,
                "platform": platform, "hosts": found.hosts,
            });
            json::write(&mut out.stdout, &value)?;
        }
    }
    Ok(Exit::Done)
}

/// For people.
fn text(out: &mut Output, observed: &Observed, found: &Baseline, cpu: &GuestCpu) -> io::Result<()> {
    let paint = out.paint;
    let vendor = cpu.vendor.as_ref().map_or_else(String::new, |v| format!(" ({v})"));
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    writeln!(out.stdout, "{}    {}", paint.bold("model"), terminal(&format!("{}{vendor}", cpu.model)))?;
    for (title, names) in [("features", cpu.required().collect()), ("without ", cpu.disabled().collect())] {
        writeln!(out.stdout, "{} {}", paint.bold(title), terminal(&list(names)))?;
    }
    let version = observed.host(&found.computed_on).map_or("", |h| h.libvirt_version.as_str());
    let computed = format!("{} (libvirt {version}; no other host has a newer one)", found.computed_on);
    writeln!(out.stdout, "{} {}", paint.bold("computed"), terminal(&format!("on {computed}")))?;
    writeln!(out.stdout)?;
    let width = found.hosts.keys().map(|h| h.chars().count()).max().unwrap_or(0);
    for (host, offer) in &found.hosts {
        let lacks = if offer.lacks.is_empty() {
            "restricts nothing".to_owned()
        } else {
            let names: Vec<&str> = offer.lacks.iter().map(String::as_str).collect();
            format!("restricts it: lacks {}", names.join(", "))
        };
        let line = format!("{host:width$}  {}: {lacks}", offer.model);
        let line = terminal(&line);
        writeln!(out.stdout, "{}", if offer.lacks.is_empty() { line } else { paint.yellow(&line) })?;
    }
    Ok(())
}
