//! What a machine is: names, CPUs, memory, firmware, XML.

use super::Say;
use crate::domain_xml;
use crate::finding::Code;
use crate::kind::virtual_machine::{ADOPT, ADOPT_ON_CHANGE, CpuMode, Firmware};
use crate::model::check_name;
use std::collections::BTreeSet;

pub(super) fn check(say: &mut Say<'_>) {
    names(say);
    cpus(say);
    memory(say);
    firmware(say);
    xml(say);
}

fn names(say: &mut Say<'_>) {
    let spec = say.spec();
    if let Some(value) = say.manifest.metadata.annotations.get(ADOPT)
        && value != "true"
        && value != ADOPT_ON_CHANGE
    {
        say.at(
            Code::WrongValue,
            &format!("metadata.annotations[\"{ADOPT}\"]"),
            format!("`{ADOPT}` cannot be `{}`", value.escape_debug()),
            "`\"true\"` takes the domain over at once, `on-change` with the first change that it needs",
        );
    }
    if let Some(name) = &spec.domain_name {
        // libvirt refuses `/` and line breaks (virDomainDefPostParse); the name also becomes part of file names.
        let bad = name.is_empty()
            || name.len() > 200
            || name.starts_with(['.', '-'])
            || name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
        if bad {
            say.at(
                Code::BadName,
                "spec.domainName",
                format!("`{}` cannot be the name of a domain", name.escape_debug()),
                "use letters, digits, `-`, `_` and `.`, at most 200 bytes",
            );
        }
    }
    if spec.uuid.is_some_and(|u| u.is_nil()) {
        say.at(
            Code::WrongValue,
            "spec.uuid",
            "a UUID of zeros is no identity",
            "leave it out: the machine then gets a stable one",
        );
    }
    let mut seen = BTreeSet::new();
    for (i, name) in spec.former_names.iter().enumerate() {
        let path = format!("spec.formerNames[{i}]");
        if let Err(e) = check_name(name) {
            say.at(
                Code::BadName,
                &path,
                format!("`{}` is not a name: {e}", name.escape_debug()),
                "write the name that the manifest had",
            );
        } else if name == say.manifest.name() {
            say.at(Code::Contradiction, &path, format!("`{name}` is its name now, not a former one"), "take it out");
        } else if !seen.insert(name) {
            say.at(
                Code::Contradiction,
                &path,
                format!("the former name `{name}` is written twice"),
                "keep one of them",
            );
        }
    }
}

fn cpus(say: &mut Say<'_>) {
    let spec = say.spec();
    if let (Some(cpus), Some(max)) = (spec.cpus, spec.max_cpus)
        && cpus > max
    {
        say.at(
            Code::Contradiction,
            "spec.cpus",
            format!("{cpus} CPUs are in use, but `maxCpus` is {max}"),
            "raise `maxCpus`, or lower `cpus`",
        );
    }
    let Some(cpu) = &spec.cpu else { return };
    match (cpu.mode, &cpu.model) {
        (CpuMode::Custom, None) => {
            say.at(Code::MissingField, "spec.cpu", "`mode: custom` needs a `model`", "name one, or use `host-model`")
        }
        (CpuMode::Custom, Some(_)) | (_, None) => {}
        (_, Some(_)) => say.at(
            Code::Contradiction,
            "spec.cpu.model",
            "a `model` goes with `mode: custom` only",
            "take it out, or write `mode: custom`",
        ),
    }
    if !cpu.hosts.is_empty() && cpu.mode != CpuMode::Baseline {
        say.at(
            Code::Contradiction,
            "spec.cpu.hosts",
            "`hosts` says whose common CPU it is, which only `mode: Baseline` asks for",
            "take it out, or write `mode: Baseline`",
        );
    }
    let mut seen = BTreeSet::new();
    for (i, feature) in cpu.features.iter().enumerate() {
        if !seen.insert(&feature.name) {
            let path = format!("spec.cpu.features[{i}]");
            say.at(
                Code::Contradiction,
                &path,
                format!("the feature `{}` is written twice", feature.name.escape_debug()),
                "keep one of them",
            );
        }
    }
    if let (Some(t), Some(max)) = (&cpu.topology, spec.max_cpus.or(spec.cpus)) {
        // Three 32-bit factors fit 96 bits.
        let product = u128::from(t.sockets) * u128::from(t.cores) * u128::from(t.threads);
        if product != u128::from(max) {
            say.at(
                Code::Contradiction,
                "spec.cpu.topology",
                format!(
                    "{} sockets of {} cores of {} threads are {product} CPUs, but the machine has up to {max}",
                    t.sockets, t.cores, t.threads
                ),
                "the product has to be `maxCpus`, or `cpus` where that is not written",
            );
        }
    }
}

fn memory(say: &mut Say<'_>) {
    let spec = say.spec();
    match spec.memory {
        None if spec.xml.is_none() => {
            say.at(
                Code::MissingField,
                "spec.memory",
                "the machine has no `memory`",
                "add `memory: 2Gi`, or give the whole definition in `xml`",
            );
        }
        Some(m) if m.0 < 1 << 20 => {
            say.at(
                Code::WrongValue,
                "spec.memory",
                format!("{m} of memory is too little to start"),
                "write a unit: `2Gi`",
            );
        }
        _ => {}
    }
    if let (Some(memory), Some(max)) = (spec.memory, spec.max_memory)
        && memory > max
    {
        say.at(
            Code::Contradiction,
            "spec.memory",
            format!("{memory} are in use, but `maxMemory` is {max}"),
            "raise `maxMemory`, or lower `memory`",
        );
    }
}

fn firmware(say: &mut Say<'_>) {
    let spec = say.spec();
    if spec.secure_boot == Some(true)
        && spec.firmware != Some(Firmware::Uefi)
        && (spec.firmware.is_some() || spec.xml.is_none())
    {
        say.at(Code::Contradiction, "spec.secureBoot", "secure boot needs UEFI firmware", "write `firmware: uefi`");
    }
}

fn xml(say: &mut Say<'_>) {
    let spec = say.spec();
    if let Some(xml) = &spec.xml {
        let path = if xml.file.is_some() { "spec.xml.file" } else { "spec.xml.inline" };
        // A `file` has been read into `inline` by now; both at once are refused before that.
        match &xml.inline {
            None => {
                say.at(Code::MissingField, "spec.xml", "`xml` has neither `inline` nor `file`", "write one of them")
            }
            Some(text) => match domain_xml::parse(text) {
                Err(e) => say.at(
                    Code::BadXml,
                    path,
                    format!("the definition cannot be read: {e}"),
                    "check it with `virsh define --validate`",
                ),
                Ok(root) if root.name != "domain" => say.at(
                    Code::BadXml,
                    path,
                    format!("the definition is a `{}`, not a `domain`", root.name.escape_debug()),
                    "give what `virsh dumpxml` prints",
                ),
                Ok(_) => {}
            },
        }
    }
    for (i, patch) in spec.xml_patches.iter().enumerate() {
        if let Err(e) = patch.check() {
            say.at(
                Code::BadXml,
                &format!("spec.xmlPatches[{i}]"),
                e.to_string(),
                "select with `/domain/…`, such as `/domain/devices/disk[target/@dev='vda']/driver`",
            );
        }
    }
}
