//! The fields of a machine that are not devices: type, CPUs, memory, firmware, boot, texts.

use super::sheet::{Settled, Sheet, Side, Subject, Way, size, text, word};
use super::{Cpu, CpuMode, FeaturePolicy, Firmware, Kernel};
use crate::action::LiveChange;
use crate::domain_xml::{Element, bytes, machine_equal};
use serde_json::{Value, json};

/// Said of changes of the hardware that an installed guest may stumble over.
const MAY_NOT_BOOT: &str = "an installed guest may not boot with it";

/// Compares every stated field with a definition.
pub(super) fn compare(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) {
    platform(subject, domain, sheet);
    cpus(subject, domain, sheet);
    memory(subject, domain, sheet);
    firmware(subject, domain, sheet);
    if let Some(kernel) = &subject.spec().kernel {
        direct_kernel(kernel, domain, sheet);
    }
    if let Some(cpu) = &subject.spec().cpu {
        cpu_model(subject, cpu, domain, sheet);
    }
    if subject.side != Side::Live {
        texts(subject, domain, sheet);
    }
}

fn platform(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) {
    let spec = subject.spec();
    if let Some(wanted) = &spec.r#type {
        let wanted = word(wanted);
        if sheet.field("spec.type", text(domain.attribute("type")), wanted.as_str(), Way::Restart) {
            sheet.set("/domain", "type", wanted);
            // Another type may come with another program; libvirt finds it again.
            sheet.remove("/domain/devices/emulator");
        }
    }
    if subject.is_test() {
        return;
    }
    if let Some(wanted) = &spec.arch {
        let found = domain.attribute_at("os/type", "arch");
        if subject.side == Side::New {
            sheet.set("/domain/os/type", "arch", wanted);
        } else {
            sheet.field("spec.arch", text(found), wanted.as_str(), Way::Recreate);
        }
    }
    if let Some(wanted) = &spec.machine {
        let found = domain.attribute_at("os/type", "machine").unwrap_or_default();
        if !machine_equal(wanted, found, Some(&subject.host.machine_aliases)) {
            sheet.diff("spec.machine", text(Some(found)), json!(wanted), Way::Restart);
            sheet.note(MAY_NOT_BOOT);
            sheet.set("/domain/os/type", "machine", wanted);
            if subject.side != Side::New {
                // Buses and addresses belong to the old board. libvirt makes them anew.
                sheet.remove("/domain/devices/controller[@type='pci']");
                sheet.remove("/domain/devices/controller[@type='sata']");
                sheet.remove("/domain/devices/controller[@type='ide']");
                sheet.remove("/domain/devices/*/address[@type='pci']");
                // Part of q35's chipset; libvirt lists it there of its own accord and refuses it anywhere else.
                sheet.remove("/domain/devices/watchdog[@model='itco']");
            }
        }
    }
}

/// `(in use, at most)`.
pub(super) fn vcpus(domain: &Element) -> (u32, u32) {
    let max = domain.text_at("vcpu").and_then(|t| t.parse().ok()).unwrap_or(1);
    let current = domain.attribute_at("vcpu", "current").and_then(|t| t.parse().ok()).unwrap_or(max);
    (current, max)
}

fn cpus(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) {
    let spec = subject.spec();
    let (current, max) = vcpus(domain);
    let Some(wanted) = spec.cpus.or(spec.max_cpus.map(|m| m.min(current))) else { return };
    // A maximum that is not stated follows: it is raised where it must be, and goes down with what is in use where the two
    // were one. A maximum that somebody set beside it stays.
    let follows = current == max && current != wanted;
    let wanted_max = match spec.max_cpus {
        Some(stated) => stated.max(wanted),
        None if wanted > max || follows || subject.side == Side::New => wanted,
        None => max,
    };
    let max_differs = max != wanted_max && (spec.max_cpus.is_some() || wanted > max || subject.side != Side::Live);
    if wanted != current {
        let way = if wanted > max || (wanted < current && wanted < unpluggable_below(domain, current)) {
            Way::Restart
        } else {
            subject.live(|| LiveChange::Vcpus { count: wanted }, format!("use {wanted} vCPUs instead of {current}"))
        };
        sheet.diff("spec.cpus", json!(current), json!(wanted), way);
    }
    if spec.max_cpus.is_some() && max != wanted_max {
        sheet.diff("spec.maxCpus", json!(max), json!(wanted_max), Way::Restart);
    }
    if wanted != current || max_differs {
        sheet.set_text("/domain/vcpu", wanted_max.to_string());
        if wanted < wanted_max {
            sheet.set("/domain/vcpu", "current", wanted.to_string());
        } else {
            sheet.unset("/domain/vcpu", "current");
        }
        // The list of single vCPUs would contradict the new numbers; libvirt makes it anew.
        sheet.remove("/domain/vcpus");
        let stated = spec.cpu.as_ref().is_some_and(|c| c.topology.is_some());
        if max != wanted_max && !stated && topology(domain).is_some_and(|(s, c, t)| s * c * t != wanted_max) {
            sheet.remove("/domain/cpu/topology");
        }
    }
}

/// The smallest number of vCPUs that unplugging reaches: those that were there at the start of QEMU cannot be unplugged
/// (libvirt.org/formatdomain.html#cpu-allocation, `hotpluggable`).
fn unpluggable_below(domain: &Element, current: u32) -> u32 {
    match domain.get("vcpus") {
        Some(list) => {
            let fixed = list
                .all("vcpu")
                .filter(|v| v.attribute("enabled") == Some("yes") && v.attribute("hotpluggable") != Some("yes"))
                .count();
            u32::try_from(fixed).unwrap_or(u32::MAX)
        }
        None => current,
    }
}

fn memory(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) {
    let spec = subject.spec();
    // Live definitions show whole KiB only.
    let kib = |bytes: u64| bytes.div_ceil(1024) * 1024;
    let max = domain.get("memory").and_then(bytes).unwrap_or(0);
    let current = domain.get("currentMemory").and_then(bytes).unwrap_or(max);
    let Some(wanted) = spec.memory.map(|m| kib(m.0)).or(spec.max_memory.map(|m| kib(m.0).min(current))) else {
        return;
    };
    let follows = current == max && current != wanted;
    let wanted_max = match spec.max_memory {
        Some(stated) => kib(stated.0).max(wanted),
        None if wanted > max || follows || subject.side == Side::New => wanted,
        None => max,
    };
    if wanted != current {
        let has_balloon = domain.attribute_at("devices/memballoon", "model").is_some_and(|m| m != "none");
        let way = if wanted > max || !has_balloon {
            Way::Restart
        } else {
            let summary = format!("set memory in use to {}", crate::model::Bytes(wanted));
            subject.live(|| LiveChange::Memory { kib: wanted / 1024 }, summary)
        };
        sheet.diff("spec.memory", size(current), size(wanted), way);
        if current == max && wanted < max {
            // A guest gives memory back when its balloon driver is loaded: some time after the start, or never. Once asked,
            // one that still has all of it is left alone; asking again in each pass would help nobody.
            let would_stay = spec.max_memory.is_some_and(|m| kib(m.0) == max);
            sheet.if_settled(if would_stay { Settled::Ignored } else { Settled::Restart });
        }
    }
    if spec.max_memory.is_some() && max != wanted_max {
        sheet.diff("spec.maxMemory", size(max), size(wanted_max), Way::Restart);
    }
    if wanted != current || max != wanted_max {
        for (at, bytes) in [("/domain/memory", wanted_max), ("/domain/currentMemory", wanted)] {
            sheet.set_text(at, (bytes / 1024).to_string());
            sheet.set(at, "unit", "KiB");
        }
    }
}

fn firmware(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) {
    let spec = subject.spec();
    let is_uefi = domain.attribute_at("os", "firmware") == Some("efi")
        || domain.attribute_at("os/loader", "type") == Some("pflash");
    let found = if is_uefi { Firmware::Uefi } else { Firmware::Bios };
    let mut chosen_anew = false;
    if let Some(wanted) = spec.firmware
        && sheet.field("spec.firmware", word(&found), word(&wanted), Way::Restart)
    {
        sheet.note(MAY_NOT_BOOT);
        match wanted {
            Firmware::Uefi => sheet.set("/domain/os", "firmware", "efi"),
            Firmware::Bios => {
                sheet.unset("/domain/os", "firmware");
                sheet.remove("/domain/os/firmware");
            }
        }
        chosen_anew = true;
    }
    if let Some(wanted) = spec.secure_boot
        && (spec.firmware == Some(Firmware::Uefi) || (spec.firmware.is_none() && is_uefi))
    {
        let feature = domain
            .get("os/firmware")
            .and_then(|f| f.all("feature").find(|f| f.attribute("name") == Some("secure-boot")))
            .and_then(|f| f.attribute("enabled"));
        let found = feature == Some("yes") || domain.attribute_at("os/loader", "secure") == Some("yes");
        if sheet.field("spec.secureBoot", found, wanted, Way::Restart) || (chosen_anew && wanted) {
            let enabled = if wanted { "yes" } else { "no" };
            sheet.set("/domain/os", "firmware", "efi");
            for name in ["enrolled-keys", "secure-boot"] {
                sheet.set(&format!("/domain/os/firmware/feature[@name='{name}']"), "enabled", enabled);
            }
            if wanted {
                // Without it the guest's kernel could change the variables that secure boot rests on.
                sheet.set("/domain/features/smm", "state", "on");
            }
            chosen_anew = true;
        }
    }
    if chosen_anew && subject.side != Side::New {
        // The images of the old firmware; libvirt chooses those of the new one.
        sheet.remove("/domain/os/loader");
        sheet.remove("/domain/os/nvram");
    }
}

fn direct_kernel(kernel: &Kernel, domain: &Element, sheet: &mut Sheet) {
    let parts = [
        ("kernel", "spec.kernel.image", Some(&kernel.image)),
        ("initrd", "spec.kernel.initrd", kernel.initrd.as_ref()),
        ("cmdline", "spec.kernel.cmdline", kernel.cmdline.as_ref()),
    ];
    for (element, path, wanted) in parts {
        let found = domain.get("os").and_then(|os| os.text_at(element)).filter(|t| !t.is_empty());
        let wanted = wanted.map(|w| w.trim()).filter(|w| !w.is_empty());
        if sheet.field(path, text(found), text(wanted), Way::Restart) {
            let at = format!("/domain/os/{element}");
            match wanted {
                Some(wanted) => sheet.set_text(&at, wanted),
                None => sheet.remove(at),
            }
        }
    }
}

fn topology(domain: &Element) -> Option<(u32, u32, u32)> {
    let topology = domain.get("cpu/topology")?;
    let count = |name| topology.attribute(name).and_then(|v| v.parse::<u32>().ok()).unwrap_or(1);
    Some((
        count("sockets"),
        count("cores").saturating_mul(count("dies")).saturating_mul(count("clusters")),
        count("threads"),
    ))
}

fn cpu_model(subject: &Subject<'_>, cpu: &Cpu, domain: &Element, sheet: &mut Sheet) {
    let is_live = subject.side == Side::Live;
    let found_mode = domain.attribute_at("cpu", "mode").or(domain.get("cpu/model").map(|_| "custom"));
    let wanted_mode = word(&cpu.mode);
    // A live definition has the model that `host-model` became.
    let expanded = is_live && cpu.mode == CpuMode::HostModel && found_mode == Some("custom");
    let mode_differs = found_mode != Some(wanted_mode.as_str()) && !expanded;
    if mode_differs {
        sheet.diff("spec.cpu.mode", text(found_mode), json!(wanted_mode), Way::Restart);
        // What belongs to the old mode would contradict the new one.
        let keep = domain.get("cpu").map(|c| {
            let mut kept = Element::new("cpu");
            kept.children = c
                .children
                .iter()
                .filter(|n| {
                    matches!(n, crate::domain_xml::Node::Element(e)
                if matches!(e.name.as_str(), "topology" | "numa" | "cache" | "maxphysaddr"))
                })
                .cloned()
                .collect();
            kept
        });
        let mut element = keep.unwrap_or_else(|| Element::new("cpu"));
        element.set("mode", wanted_mode);
        if cpu.mode == CpuMode::Custom {
            element.set("match", "exact");
        }
        sheet.replace("/domain/cpu", &element);
    }
    if let (CpuMode::Custom, Some(wanted)) = (cpu.mode, &cpu.model) {
        let found = domain.text_at("cpu/model").filter(|_| !mode_differs);
        if found.as_deref() != Some(wanted) {
            sheet.diff("spec.cpu.model", text(found), json!(wanted), Way::Restart);
            sheet.set_text("/domain/cpu/model", wanted);
            sheet.set("/domain/cpu/model", "fallback", "forbid");
        }
    }
    if !expanded || subject.side != Side::Live {
        cpu_features(subject, cpu, domain, mode_differs, sheet);
    }
    if let Some(wanted) = &cpu.topology {
        let product = (wanted.sockets, wanted.cores, wanted.threads);
        if topology(domain) != Some(product) {
            let shown = |(sockets, cores, threads): (u32, u32, u32)| json!({"sockets": sockets, "cores": cores, "threads": threads});
            sheet.diff("spec.cpu.topology", topology(domain).map_or(Value::Null, shown), shown(product), Way::Restart);
            let mut element = Element::new("topology");
            for (name, count) in [("sockets", wanted.sockets), ("cores", wanted.cores), ("threads", wanted.threads)] {
                element.set(name, count.to_string());
            }
            sheet.replace("/domain/cpu/topology", &element);
        }
    }
}

fn cpu_features(subject: &Subject<'_>, cpu: &Cpu, domain: &Element, anew: bool, sheet: &mut Sheet) {
    let found: Vec<(&str, &str)> = domain
        .get("cpu")
        .filter(|_| !anew)
        .into_iter()
        .flat_map(|c| c.all("feature"))
        .filter_map(|f| Some((f.attribute("name")?, f.attribute("policy").unwrap_or("require"))))
        .collect();
    for feature in &cpu.features {
        let wanted = word(&feature.policy);
        let policy = found.iter().find(|(n, _)| *n == feature.name).map(|(_, p)| *p);
        let fits = match (subject.side, policy) {
            // A live definition says what the guest got: a feature of the model itself is not listed, and one that was
            // optional is required or disabled.
            (Side::Live, Some(policy)) => match feature.policy {
                FeaturePolicy::Require | FeaturePolicy::Force => matches!(policy, "require" | "force"),
                FeaturePolicy::Disable | FeaturePolicy::Forbid => matches!(policy, "disable" | "forbid"),
                FeaturePolicy::Optional => true,
            },
            (Side::Live, None) => true,
            (Side::New | Side::Persistent, policy) => policy == Some(wanted.as_str()),
        };
        if !fits {
            let path = format!("spec.cpu.features[{}]", feature.name);
            sheet.diff(path, text(policy), json!(wanted), Way::Restart);
            if let Some(name) = crate::domain_xml::literal(&feature.name) {
                sheet.set(&format!("/domain/cpu/feature[@name={name}]"), "policy", wanted);
            }
        }
    }
    // A live definition lists many more; only the persistent one has the user's own.
    if subject.side == Side::Persistent {
        let listed = |name: &str| {
            let in_baseline = subject.baseline.and_then(|b| b.get("cpu"));
            cpu.features.iter().any(|f| f.name == name)
                || in_baseline.is_some_and(|c| c.all("feature").any(|f| f.attribute("name") == Some(name)))
        };
        for (name, policy) in found.iter().filter(|(name, _)| !listed(name)) {
            if let Some(quoted) = crate::domain_xml::literal(name) {
                sheet.diff(format!("spec.cpu.features[{name}]"), json!(policy), Value::Null, Way::Restart);
                sheet.remove(format!("/domain/cpu/feature[@name={quoted}]"));
            }
        }
    }
}

fn texts(subject: &Subject<'_>, domain: &Element, sheet: &mut Sheet) {
    let spec = subject.spec();
    for (element, path, wanted) in
        [("title", "spec.title", &spec.title), ("description", "spec.description", &spec.description)]
    {
        let Some(wanted) = wanted else { continue };
        let found = domain.text_at(element).unwrap_or_default();
        if sheet.field(path, found, wanted.trim(), Way::Free) {
            let at = format!("/domain/{element}");
            if wanted.trim().is_empty() { sheet.remove(at) } else { sheet.set_text(&at, wanted.trim()) }
        }
    }
}
