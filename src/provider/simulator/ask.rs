//! What simulated hosts answer beyond their reading: their CPUs compared and put together, and how fast a guest writes to
//! its memory. Models are those of libvirt's CPU map, with the features by which each differs from the one before it that
//! matter to a guest; which features a real model has is libvirt's knowledge alone.

use super::state::State;
use crate::domain_xml::{self, Element, GuestCpu, guest_cpu};
use crate::observed::{Answer, CpuFit, DirtyRate, HostCpu, HostState, MeasureDirtyRate, Question, RunState};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Models of a maker, from old to new, each with what it has more than the one before.
type Line = (&'static str, &'static [(&'static str, &'static [&'static str])]);

const LINES: &[Line] = &[
    (
        "Intel",
        &[
            ("Nehalem", &["cx16", "popcnt", "sse4.1", "sse4.2", "ssse3"]),
            ("Westmere", &["aes"]),
            ("SandyBridge", &["avx", "pclmuldq", "tsc-deadline", "x2apic", "xsave"]),
            ("IvyBridge", &["erms", "f16c", "fsgsbase", "rdrand", "smep"]),
            ("Haswell-noTSX", &["avx2", "bmi1", "bmi2", "fma", "invpcid", "movbe", "pcid"]),
            ("Broadwell-noTSX", &["3dnowprefetch", "adx", "rdseed", "smap"]),
            (
                "Skylake-Server-noTSX-IBRS",
                &["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "clwb", "spec-ctrl", "xsavec"],
            ),
            ("Cascadelake-Server-noTSX", &["avx512vnni", "pku", "ssbd"]),
            ("Icelake-Server-noTSX", &["avx512-vbmi2", "avx512vbmi", "gfni", "la57", "umip", "vaes", "vpclmulqdq"]),
        ],
    ),
    (
        "AMD",
        &[
            (
                "EPYC",
                &[
                    "3dnowprefetch",
                    "adx",
                    "aes",
                    "avx",
                    "avx2",
                    "bmi1",
                    "bmi2",
                    "cx16",
                    "f16c",
                    "fma",
                    "fsgsbase",
                    "movbe",
                    "pclmuldq",
                    "popcnt",
                    "rdrand",
                    "rdseed",
                    "sha-ni",
                    "smap",
                    "smep",
                    "sse4.1",
                    "sse4.2",
                    "ssse3",
                    "xsave",
                    "xsavec",
                ],
            ),
            ("EPYC-Rome", &["amd-stibp", "clwb", "rdpid", "umip", "wbnoinvd"]),
            ("EPYC-Milan", &["erms", "fsrm", "ibrs", "invpcid", "pcid", "pku", "ssbd"]),
            ("EPYC-Genoa", &["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "avx512vnni", "gfni", "vaes"]),
        ],
    ),
];

/// The CPU that a host has where nobody says another one.
pub(super) fn default_cpu() -> HostCpu {
    HostCpu {
        model: "Cascadelake-Server-noTSX".into(),
        vendor: "Intel".into(),
        signature: "6/85/7".into(),
        ..HostCpu::default()
    }
}

/// Answers for a host. The measurement of a dirty rate takes no time.
pub(super) fn answer(state: &State, host: &str, question: Question) -> Result<Answer, String> {
    let of = state.host(host).ok_or_else(|| format!("there is no simulated host `{host}`"))?;
    match question {
        Question::OfferedCpu(platform) => {
            if let Some(kind) = platform.virt_type.filter(|kind| !of.domain_types.contains(kind)) {
                return Err(format!("host `{host}` has no `{kind}` machines"));
            }
            Ok(Answer::Cpu(host_model(own_cpu(of)?).to_xml()))
        }
        Question::Baseline { cpus, expand, .. } => baseline(&cpus, expand).map(Answer::Cpu),
        Question::Compare(_, cpu) => compare(own_cpu(of)?, &cpu).map(Answer::Fit),
        Question::Firmware(_) => Ok(Answer::Firmware(of.firmware.clone().unwrap_or_default())),
        Question::DirtyRate(wish) => dirty_rate(state, host, &wish).map(Answer::DirtyRate),
    }
}

fn own_cpu(host: &HostState) -> Result<&HostCpu, String> {
    host.cpu.as_ref().ok_or_else(|| format!("the CPU of the simulated host `{}` is not known", host.hostname))
}

/// What `host-model` becomes on a host, as a definition has it.
pub(super) fn host_model(cpu: &HostCpu) -> Element {
    let features = cpu.features.iter().map(|f| (f.clone(), "require".to_owned())).collect();
    GuestCpu { model: cpu.model.clone(), vendor: Some(cpu.vendor.clone()), features }.element()
}

/// A model's maker and all its features; nothing for a model that is not known.
fn model(name: &str) -> Option<(&'static str, BTreeSet<String>)> {
    LINES.iter().find_map(|(vendor, models)| {
        let at = models.iter().position(|(model, _)| *model == name)?;
        let features = models.iter().take(at + 1).flat_map(|(_, more)| more.iter().map(|f| (*f).to_owned()));
        Some((*vendor, features.collect()))
    })
}

fn features_of_host(cpu: &HostCpu) -> BTreeSet<String> {
    let mut all = model(&cpu.model).map(|(_, features)| features).unwrap_or_default();
    all.extend(cpu.features.iter().cloned());
    all
}

fn features_of(cpu: &GuestCpu) -> BTreeSet<String> {
    let mut all = model(&cpu.model).map(|(_, features)| features).unwrap_or_default();
    all.extend(cpu.required().map(str::to_owned));
    for off in cpu.disabled() {
        all.remove(off);
    }
    all
}

fn read(cpu: &str) -> Result<GuestCpu, String> {
    guest_cpu(cpu).ok_or_else(|| "XML error: not a CPU with a model".to_owned())
}

/// In libvirt's words.
fn compare(host: &HostCpu, cpu: &str) -> Result<CpuFit, String> {
    let guest = read(cpu)?;
    let misses = |what: String| Ok(CpuFit::Misses { what: format!("the CPU is incompatible with host CPU: {what}") });
    let vendor = guest.vendor.as_deref().or_else(|| model(&guest.model).map(|(vendor, _)| vendor));
    if let Some(vendor) = vendor.filter(|v| *v != host.vendor) {
        return misses(format!("host CPU vendor does not match required CPU vendor {vendor}"));
    }
    if model(&guest.model).is_none() && guest.model != host.model {
        return Ok(CpuFit::Misses { what: format!("unsupported configuration: Unknown CPU model {}", guest.model) });
    }
    let own = features_of_host(host);
    let missing: Vec<String> = features_of(&guest).into_iter().filter(|f| !own.contains(f)).collect();
    if missing.is_empty() {
        return Ok(CpuFit::Fits);
    }
    misses(format!("Host CPU does not provide required features: {}", missing.join(", ")))
}

/// What all these CPUs have: the newest model that none of them lacks a feature of, and what they have in common beyond it.
fn baseline(cpus: &[String], expand: bool) -> Result<String, String> {
    let cpus = cpus.iter().map(|cpu| read(cpu)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = cpus.first() else { return Err("invalid argument: no CPUs given".into()) };
    let vendor = |cpu: &GuestCpu| {
        cpu.vendor.clone().or_else(|| model(&cpu.model).map(|(v, _)| v.to_owned())).unwrap_or_default()
    };
    if cpus.iter().any(|cpu| vendor(cpu) != vendor(first)) {
        return Err("operation failed: CPU vendors do not match".into());
    }
    let mut common = features_of(first);
    for cpu in &cpus {
        let own = features_of(cpu);
        common.retain(|feature| own.contains(feature));
    }
    let line = LINES.iter().find(|(name, _)| *name == vendor(first)).map_or(&[][..], |(_, models)| models);
    let fits = |name: &str| model(name).filter(|(_, features)| features.is_subset(&common));
    let newest = line.iter().rev().find_map(|(name, _)| Some(((*name).to_owned(), fits(name)?.1)));
    let same = || cpus.iter().all(|cpu| cpu.model == first.model).then(|| (first.model.clone(), BTreeSet::new()));
    let (name, has) = newest.or_else(same).ok_or("operation failed: no CPU model is compatible with all these CPUs")?;
    let more = common.iter().filter(|f| expand || !has.contains(*f));
    let features = more.map(|f| (f.clone(), "require".to_owned())).collect();
    Ok(GuestCpu { model: name, vendor: Some(vendor(first)), features }.element().to_xml())
}

fn dirty_rate(state: &State, host: &str, wish: &MeasureDirtyRate) -> Result<DirtyRate, String> {
    let domain = state.domain(host, wish.uuid).ok_or("Domain not found")?;
    if !domain.is_active() || domain.state == RunState::Paused {
        return Err("Requested operation is not valid: domain is not running".into());
    }
    let memory = domain.live_xml.as_deref().map_or(0, domain_xml::memory_bytes);
    let set = state.dirty_rates.get(&wish.uuid).copied();
    Ok(DirtyRate {
        bytes_per_second: set.unwrap_or_else(|| usual_rate(wish.uuid, memory)),
        seconds: wish.seconds,
        resident: None,
    })
}

/// What a guest writes in a second where nobody says otherwise: from 1/512 to 8/512 of its memory, each machine its own
/// part, in whole MiB as QEMU counts.
fn usual_rate(uuid: Uuid, memory: u64) -> u64 {
    let part = u64::from(uuid.as_bytes()[15] % 8) + 1;
    (memory / 512 * part).max(1 << 20) >> 20 << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(model: &str, features: &[&str]) -> HostCpu {
        let vendor = super::model(model).map_or("Acme", |(vendor, _)| vendor);
        let features = features.iter().map(|f| (*f).to_owned()).collect();
        HostCpu { model: model.into(), vendor: vendor.into(), features, ..HostCpu::default() }
    }

    fn offered(model: &str, features: &[&str]) -> String {
        host_model(&host(model, features)).to_xml()
    }

    #[test]
    fn an_older_host_cannot_give_what_a_newer_one_has_and_says_what_is_missing() {
        let (old, new) = (host("Haswell-noTSX", &[]), host("Broadwell-noTSX", &["vmx"]));
        assert_eq!(compare(&new, &offered("Haswell-noTSX", &[])).unwrap(), CpuFit::Fits);
        let CpuFit::Misses { what } = compare(&old, &offered("Broadwell-noTSX", &["vmx"])).unwrap() else { panic!() };
        assert!(what.ends_with("required features: 3dnowprefetch, adx, rdseed, smap, vmx"), "{what}");
        let CpuFit::Misses { what } = compare(&old, &offered("EPYC", &[])).unwrap() else { panic!() };
        assert!(what.contains("vendor AMD"), "{what}");
        let CpuFit::Misses { what } = compare(&old, "<cpu><model>z15</model></cpu>").unwrap() else { panic!() };
        assert!(what.contains("Unknown CPU model z15"), "{what}");
        // A newer model without its newer features is an older one.
        let less = "<cpu><model>Westmere</model><feature policy='disable' name='aes'/></cpu>";
        assert_eq!(compare(&host("Nehalem", &[]), less).unwrap(), CpuFit::Fits);
    }

    #[test]
    fn a_baseline_is_the_newest_model_that_all_have_and_what_they_share_beyond_it() {
        let cpus = [offered("Skylake-Server-noTSX-IBRS", &["vmx", "pku"]), offered("Icelake-Server-noTSX", &["vmx"])];
        let found = guest_cpu(&baseline(&cpus, false).unwrap()).unwrap();
        assert_eq!(found.model, "Skylake-Server-noTSX-IBRS");
        assert_eq!(found.required().collect::<Vec<_>>(), ["pku", "vmx"], "pku is in the newer model");
        let all = guest_cpu(&baseline(&cpus, true).unwrap()).unwrap();
        assert!(all.required().any(|f| f == "avx512f") && !all.required().any(|f| f == "vaes"), "{all:?}");
        for cpu in [&found, &all] {
            for model in [host("Skylake-Server-noTSX-IBRS", &["vmx", "pku"]), host("Icelake-Server-noTSX", &["vmx"])] {
                assert_eq!(compare(&model, &cpu.element().to_xml()).unwrap(), CpuFit::Fits);
            }
        }
        assert!(baseline(&[offered("EPYC", &[]), offered("Nehalem", &[])], false).unwrap_err().contains("vendors"));
        let own = [offered("acme-1", &["a", "b"]), offered("acme-1", &["b"])];
        let own = guest_cpu(&baseline(&own, false).unwrap()).unwrap();
        assert_eq!((own.model.as_str(), own.required().collect::<Vec<_>>()), ("acme-1", vec!["b"]));
        assert!(baseline(&[offered("acme-1", &[]), offered("acme-2", &[])], false).is_err());
    }

    #[test]
    fn a_guest_s_usual_rate_is_its_own_and_the_same_each_time() {
        let rate = |n: u128, memory: u64| usual_rate(Uuid::from_u128(n), memory) >> 20;
        assert_eq!([0, 1, 7, 8].map(|n| rate(n, 2 << 30)), [4, 8, 32, 4]);
        assert_eq!(rate(7, 1 << 20), 1, "never nothing");
    }
}
