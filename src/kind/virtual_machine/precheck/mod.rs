//! Prechecks of a move, one file a subject. Each reads a [`Move`] (two hosts and a machine, as they were observed) and
//! writes what it found on a [`Sheet`]; none of them changes anything or asks a host.
//!
//! *Promise*: what was not read is `Unknown`, never passed. A subject says for each of its prechecks what became of it, with
//! figures. What a policy makes of a precheck that is not passed is decided in one place ([`Sheet`]).
//!
//! A new subject is one file and one line in `SUBJECTS`; a new precheck one line in `plan/check.rs`.

mod baggage;
mod convergence;
mod cpu;
mod devices;
mod disks;
mod firmware;
mod hypervisor;
mod identity;
mod networks;
mod paths;
mod reach;
mod release;
mod room;
mod shared;
mod storage;
#[cfg(test)]
mod tests;
mod topology;

pub(crate) use devices::immovable_devices;
pub(crate) use hypervisor::{post_copy_needs_drover, splits_connections};
pub(crate) use storage::missing_pools;

use super::VirtualMachineSpec;
use crate::action::{MigratedVolume, MigrationWay};
use crate::domain_xml::{self, Element};
use crate::kind::migration_policy::MigrationPolicySpec;
use crate::model::{Bytes, Manifest};
use crate::observed::{DomainState, HostState};
use crate::plan::precopy::Prediction;
use crate::plan::{Check, Context, Fact, Load, Precheck, Treatment, Verdict};

/// Every subject, in the order in which they are looked at.
const SUBJECTS: &[fn(&Move<'_>, &Element, &mut Sheet<'_>)] = &[
    hypervisor::check,
    release::check,
    cpu::check,
    devices::check,
    firmware::check,
    paths::check,
    topology::check,
    room::check,
    storage::check,
    networks::check,
    |mv, _, sheet| identity::check(mv, sheet),
    baggage::check,
    |mv, _, sheet| reach::check(mv, sheet),
];

/// A move that is looked at: a machine, where it is, and where it is to be.
pub(crate) struct Move<'a> {
    /// Everything that is wanted and observed.
    pub ctx: &'a Context<'a>,
    /// The machine's manifest; none for a machine that is moved without one.
    pub machine: Option<&'a Manifest<VirtualMachineSpec>>,
    /// The machine.
    pub domain: &'a DomainState,
    /// The host that it leaves, by its manifest's name.
    pub from: &'a str,
    /// That host.
    pub source: &'a HostState,
    /// The host that it goes to, by its manifest's name.
    pub to: &'a str,
    /// That host.
    pub destination: &'a HostState,
    /// Live or offline.
    pub way: MigrationWay,
    /// Whether it runs at the destination afterwards: it moves live, or is started there.
    pub starts: bool,
    /// The policy in force.
    pub policy: &'a MigrationPolicySpec,
    /// What else the plan brings to the destination before it.
    pub arriving: Vec<Load>,
}

/// What the prechecks found.
#[derive(Default)]
pub(crate) struct Prechecked {
    /// Each of them, in the order of [`Precheck::ALL`].
    pub checks: Vec<Check>,
    /// The disks that have to be copied; none where one of them cannot be.
    pub copy: Vec<MigratedVolume>,
    /// What a live move is expected to be.
    pub prediction: Option<Prediction>,
    /// What must be so before the move starts, and is found out by steps.
    pub needs: Vec<Fact>,
}

/// Looks at everything.
pub(crate) fn run(mv: &Move<'_>) -> Prechecked {
    let mut sheet = Sheet::new(mv.policy);
    let Ok(xml) = domain_xml::parse(mv.running_xml()) else {
        sheet.fail(
            Precheck::HostRead,
            format!("the definition of `{}` on `{}` could not be read", mv.domain.name, mv.from),
            "plan again; if it stays so, `virsh dumpxml` says more",
        );
        return Prechecked { checks: sheet.finish(), ..Prechecked::default() };
    };
    sheet.pass(Precheck::HostRead, format!("`{}` and `{}` were read completely", mv.from, mv.to));
    for subject in SUBJECTS {
        subject(mv, &xml, &mut sheet);
    }
    let copy = disks::check(mv, &mut sheet);
    let prediction = convergence::check(mv, &copy, &mut sheet);
    Prechecked { checks: sheet.finish(), copy, prediction, needs: shared::needs(mv) }
}

/// A destination that could not be read: nothing else can be looked at.
pub(crate) fn unread(policy: &MigrationPolicySpec, to: &str, why: &str) -> Vec<Check> {
    let mut sheet = Sheet::new(policy);
    sheet.fail(Precheck::HostRead, format!("`{to}` could not be read: {why}"), "bring it back, or choose another host");
    sheet.finish()
}

impl<'a> Move<'a> {
    /// The definition that a live move sends: the one that runs. Empty where there is none.
    fn running_xml(&self) -> &'a str {
        self.domain.live_xml.as_deref().or(self.domain.persistent_xml.as_deref()).unwrap_or_default()
    }

    /// The definition that lasts. Empty where there is none.
    fn lasting_xml(&self) -> &'a str {
        self.domain.persistent_xml.as_deref().or(self.domain.live_xml.as_deref()).unwrap_or_default()
    }

    fn is_live(&self) -> bool {
        self.way == MigrationWay::Live
    }
}

/// What was found so far, and what the policy makes of it.
pub(crate) struct Sheet<'p> {
    policy: &'p MigrationPolicySpec,
    checks: Vec<Check>,
}

impl<'p> Sheet<'p> {
    /// An empty sheet under a policy.
    pub fn new(policy: &'p MigrationPolicySpec) -> Self {
        Self { policy, checks: Vec::new() }
    }

    /// It is as it must be.
    pub fn pass(&mut self, name: Precheck, message: impl Into<String>) {
        self.put(name, Verdict::Pass, message.into(), None);
    }

    /// It is not as it must be.
    pub fn fail(&mut self, name: Precheck, message: impl Into<String>, hint: impl Into<String>) {
        let verdict = match self.treatment(name) {
            Treatment::Ignore => Verdict::Ignored,
            Treatment::Warn => Verdict::Warn,
            Treatment::Block | Treatment::Require => Verdict::Block,
        };
        self.put(name, verdict, message.into(), Some(hint.into()));
    }

    /// Whether a precheck that is not passed holds the move back.
    pub fn blocks(&self, name: Precheck) -> bool {
        self.treatment(name) >= Treatment::Block
    }

    /// It is not as it should be, and never a reason by itself to hold a move back; a policy can still ask for that.
    pub fn doubt(&mut self, name: Precheck, message: impl Into<String>, hint: impl Into<String>) {
        let verdict = match self.policy.prechecks.get(name) {
            Some(Treatment::Ignore) => Verdict::Ignored,
            Some(Treatment::Block | Treatment::Require) => Verdict::Block,
            Some(Treatment::Warn) | None => Verdict::Warn,
        };
        self.put(name, verdict, message.into(), Some(hint.into()));
    }

    /// It could not be read.
    pub fn unknown(&mut self, name: Precheck, message: impl Into<String>) {
        let verdict = match self.treatment(name) {
            Treatment::Ignore => Verdict::Ignored,
            Treatment::Warn | Treatment::Block => Verdict::Unknown,
            Treatment::Require => Verdict::Block,
        };
        let hint = (verdict == Verdict::Block).then(|| {
            format!("the migration policy says `{name}: Require`; with `Block` what is not known holds nothing back")
        });
        self.put(name, verdict, message.into(), hint);
    }

    /// Passed with this, unless something else was already said of it.
    pub fn otherwise(&mut self, name: Precheck, message: impl Into<String>) {
        if !self.checks.iter().any(|c| c.name == name) {
            self.pass(name, message);
        }
    }

    fn treatment(&self, name: Precheck) -> Treatment {
        let default = name.treatment();
        match self.policy.prechecks.get(name) {
            // Validation refuses that; a plan may come from manifests that another Drover validated.
            Some(asked) if name.is_fixed() => asked.max(default),
            Some(asked) => asked,
            None => default,
        }
    }

    fn put(&mut self, name: Precheck, verdict: Verdict, message: String, hint: Option<String>) {
        self.checks.push(Check { name, code: name.code(), verdict, message, hint });
    }

    /// What was found, in the order of [`Precheck::ALL`].
    pub fn finish(mut self) -> Vec<Check> {
        self.checks.sort_by_key(|c| c.name);
        self.checks
    }
}

/// The devices of a definition.
fn devices(xml: &Element) -> impl Iterator<Item = &Element> {
    xml.get("devices").into_iter().flat_map(Element::elements)
}

/// Bytes for people, to the mebibyte, rounded down.
fn mebibytes(bytes: u64) -> Bytes {
    if bytes >= 1 << 20 { Bytes(bytes >> 20 << 20) } else { Bytes(bytes) }
}
