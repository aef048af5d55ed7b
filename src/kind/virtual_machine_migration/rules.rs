//! Rules of a VirtualMachineMigration: what it may say by itself, and that it fights no other manifest.

use super::VirtualMachineMigrationSpec;
use crate::finding::{Code, Finding, Severity};
use crate::kind::host::{HostSpec, Maintenance};
use crate::kind::migration_policy::{CopyStorage, MigrationPolicySpec, Mode};
use crate::kind::virtual_machine::{VirtualMachineSpec, domain_name};
use crate::kind::{Resources, Spec};
use crate::model::{KindName, Manifest};
use crate::plan::{Context, Drafts};
use std::collections::{BTreeMap, BTreeSet};

type Migration = Manifest<VirtualMachineMigrationSpec>;

impl Spec for VirtualMachineMigrationSpec {
    const KIND: KindName = super::MIGRATION_KIND;
    const SUMMARY: &'static str = "one explicit move of a machine, or of several, also of machines without a manifest";

    fn check(m: &Manifest<Self>, all: &Resources, findings: &mut Vec<Finding>) {
        whom(m, findings);
        whither(m, all, findings);
        how(m, all, findings);
        for machine in machines(m, all) {
            fights(m, machine, all, findings);
        }
    }

    fn check_all(all: &Resources, findings: &mut Vec<Finding>) {
        twice(all, findings);
    }

    fn draft(m: &Manifest<Self>, ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::draft(m, ctx, out);
    }

    fn sweep(ctx: &Context<'_>, out: &mut Drafts) {
        super::plan::sweep(ctx, out);
    }
}

/// The machines with a manifest that a migration names, in the order of their names.
pub(super) fn machines<'a>(m: &Migration, all: &'a Resources) -> Vec<&'a Manifest<VirtualMachineSpec>> {
    let spec = &m.spec;
    if let Some(name) = &spec.machine {
        return all.virtual_machines.get(name).into_iter().collect();
    }
    if let Some(selector) = &spec.selector {
        return all.virtual_machines.values().filter(|v| selector.matches(&v.metadata.labels)).collect();
    }
    if spec.domains.is_empty() {
        return Vec::new();
    }
    let named: BTreeSet<&str> = spec.domains.iter().map(String::as_str).collect();
    // Another host's domain of the same name is another machine.
    let may_be = |v: &Manifest<VirtualMachineSpec>| {
        v.spec.host.is_none() || v.spec.host == spec.from || v.spec.host.as_ref() == Some(&spec.to)
    };
    all.virtual_machines.values().filter(|v| named.contains(domain_name(v)) && may_be(v)).collect()
}

fn whom(m: &Migration, findings: &mut Vec<Finding>) {
    let spec = &m.spec;
    let said: Vec<&str> = [
        ("machine", spec.machine.is_some()),
        ("selector", spec.selector.is_some()),
        ("domains", !spec.domains.is_empty()),
        ("all", spec.all),
    ]
    .into_iter()
    .filter_map(|(name, is)| is.then_some(name))
    .collect();
    match said.as_slice() {
        [] => findings.push(
            Finding::new(Code::MissingField, format!("nothing says what `{}` moves", m.name()))
                .of(m, "spec")
                .hint("add `machine`, `selector`, `domains` or `all: true`"),
        ),
        [_] => {}
        [first, rest @ ..] => findings.push(
            Finding::new(
                Code::Contradiction,
                format!("`{first}` and `{}` both say what is moved", rest.join("` and `")),
            )
            .of(m, &format!("spec.{}", rest.last().unwrap_or(first)))
            .hint("keep one of them, or make two migrations"),
        ),
    }
    if spec.from.is_none() && (spec.all || !spec.domains.is_empty()) {
        findings.push(
            Finding::new(Code::MissingField, "domains without a manifest are found on the host that they leave")
                .of(m, if spec.all { "spec.all" } else { "spec.domains" })
                .hint("add `from`, the name of a Host"),
        );
    }
    let mut seen = BTreeSet::new();
    for (i, name) in spec.domains.iter().enumerate().filter(|(_, n)| !seen.insert(n.as_str())) {
        findings.push(
            Finding::new(Code::Contradiction, format!("`{}` is named twice", name.escape_debug()))
                .of(m, &format!("spec.domains[{i}]"))
                .hint("take one of them out"),
        );
    }
    if spec.parallelism == Some(0) {
        findings.push(
            Finding::new(Code::WrongValue, "with a parallelism of zero nothing would ever move")
                .of(m, "spec.parallelism")
                .hint("`suspend: true` is how to hold it back"),
        );
    }
}

fn whither(m: &Migration, all: &Resources, findings: &mut Vec<Finding>) {
    let spec = &m.spec;
    all.check_reference(m, "spec.to", &HostSpec::KIND, &spec.to, findings);
    if let Some(from) = &spec.from {
        all.check_reference(m, "spec.from", &HostSpec::KIND, from, findings);
        if *from == spec.to {
            findings.push(
                Finding::new(Code::Contradiction, format!("`from` and `to` are both `{from}`"))
                    .of(m, "spec.to")
                    .hint("name another host"),
            );
        }
    }
    let Some(host) = all.hosts.get(&spec.to) else { return };
    // A warning: the plan holds back what has not moved yet, and a migration that is done must not keep a host from being
    // maintained.
    let what = match host.spec.maintenance {
        Maintenance::None if host.spec.fenced => "is said to be powered off (`fenced`)",
        Maintenance::None => return,
        Maintenance::Cordon => "takes no new machines (`maintenance: Cordon`)",
        Maintenance::Evacuate => "is being emptied (`maintenance: Evacuate`)",
    };
    let path = if host.spec.maintenance == Maintenance::None { "spec.fenced" } else { "spec.maintenance" };
    findings.push(
        Finding::new(Code::Conflict, format!("`{}` moves machines to `{}`, which {what}", m.name(), spec.to))
            .severity(Severity::Warning)
            .of(m, "spec.to")
            .see(host.origin.source_of(path))
            .hint("what has not moved yet waits; name another host, or take the migration out once it is done"),
    );
}

fn how(m: &Migration, all: &Resources, findings: &mut Vec<Finding>) {
    let spec = &m.spec;
    if let Some(policy) = &spec.migration_policy {
        all.check_reference(m, "spec.migrationPolicy", &MigrationPolicySpec::KIND, policy, findings);
    }
    if spec.is_permanent(all) {
        return;
    }
    let policy = spec.policy(all);
    // What stands in the policy that this migration itself names; that of Settings may be meant for other machines.
    let named = spec.migration_policy.as_ref().and_then(|n| all.migration_policies.get(n));
    let mut say = |path: &str, message: &str, hint: &str| {
        let mut finding = Finding::new(Code::Contradiction, message).of(m, "spec.permanent").hint(hint);
        if let Some(policy) = named {
            finding = finding.see(policy.origin.source_of(path));
        }
        findings.push(finding);
    };
    if named.is_some() && policy.copy_storage != CopyStorage::None {
        say(
            "spec.copyStorage",
            "a machine that is elsewhere for a while must see its own disks there: what it wrote to copies would be lost when it shuts down",
            "name a policy with `copyStorage: None`, or move it for good",
        );
    }
    if named.is_some() && policy.mode == Mode::Offline {
        say(
            "spec.mode",
            "a machine that is off cannot be elsewhere for a while: only what runs moves temporarily",
            "name a policy with `mode: Auto` or `mode: Live`, or move it for good",
        );
    }
}

/// A migration against the manifest of a machine that it names.
fn fights(m: &Migration, machine: &Manifest<VirtualMachineSpec>, all: &Resources, findings: &mut Vec<Finding>) {
    let (to, permanent) = (&m.spec.to, m.spec.is_permanent(all));
    let mut say = |message: String, path: &str, hint: String| {
        findings.push(
            Finding::new(Code::Conflict, message).of(m, "spec.to").see(machine.origin.source_of(path)).hint(hint),
        );
    };
    if let Some(host) = &machine.spec.host {
        if permanent && host != to {
            say(
                format!(
                    "`{}` moves `{}` to `{to}`, and its own manifest pins it to `{host}`",
                    m.name(),
                    machine.name()
                ),
                "spec.host",
                format!("`host: {to}` in its manifest moves it for good; `permanent: false` here moves it for a while"),
            );
        } else if !permanent && host == to {
            say(
                format!("`{}` is at home on `{to}`: it cannot be there for a while only", machine.name()),
                "spec.host",
                "name another host, or take the machine out".to_owned(),
            );
        }
    }
    if let (Some(placement), Some(host)) = (&machine.spec.placement, all.hosts.get(to))
        && !placement.hosts.matches(&host.metadata.labels)
    {
        say(
            format!("`{}` moves `{}` to `{to}`, which its `placement` does not allow", m.name(), machine.name()),
            "spec.placement.hosts",
            format!("label `{to}` so that the placement matches it, or name another host"),
        );
    }
}

/// Two migrations that name one machine would move it to and fro. One that is suspended fights nobody.
fn twice(all: &Resources, findings: &mut Vec<Finding>) {
    let mut by_machine: BTreeMap<&str, &Migration> = BTreeMap::new();
    let mut by_domain: BTreeMap<(&str, &str), &Migration> = BTreeMap::new();
    for m in all.virtual_machine_migrations.values().filter(|m| !m.spec.suspend) {
        let mut others: BTreeMap<&str, (&Migration, String)> = BTreeMap::new();
        for machine in machines(m, all) {
            match by_machine.get(machine.name()) {
                Some(first) => {
                    others.entry(first.name()).or_insert_with(|| (first, machine.name().to_owned()));
                }
                None => {
                    by_machine.insert(machine.name(), m);
                }
            }
        }
        let named = m.spec.machine.iter().filter(|n| !all.virtual_machines.contains_key(*n)).chain(&m.spec.domains);
        for name in named {
            let key = (m.spec.from.as_deref().unwrap_or_default(), name.as_str());
            match by_domain.get(&key) {
                Some(first) if first.name() != m.name() => {
                    others.entry(first.name()).or_insert_with(|| (first, name.clone()));
                }
                Some(_) => {}
                None => {
                    by_domain.insert(key, m);
                }
            }
        }
        for (first, machine) in others.values() {
            findings.push(
                Finding::new(Code::Conflict, format!("`{}` and `{}` both move `{machine}`", first.name(), m.name()))
                    .of(m, "spec")
                    .see(first.origin.source_of("spec"))
                    .hint("take the older one out once it is done, or suspend one of them"),
            );
        }
    }
}
