//! What is asked of hosts beyond their reading, because a manifest asks for it: a baseline for `cpu.mode: Baseline`; for a
//! machine that is to be on another host, for whosever sake, whether its firmware can be had there, and if it runs, its CPU,
//! and how fast its guest writes to its memory. Pure; asking is the providers' part.

use super::survey::{Copy, Located, Survey, Target, locate};
use super::{PowerState, VirtualMachineSpec, baseline, policy_of_move};
use crate::domain_xml::{self, Element};
use crate::kind::Resources;
use crate::kind::migration_policy::{MigrationPolicySpec, Mode};
use crate::kind::virtual_machine_migration::{stand_in, wish};
use crate::model::Manifest;
use crate::observed::{CompareCpu, DomainState, MeasureDirtyRate, Observed, Platform, Questions, Reading, RunState};

/// What still has to be asked for a plan from this observation; nothing that has its answer already. An answer can make
/// another host the right one, so who has asked looks again. `rebalance`: as the plan will be told.
pub fn questions(resources: &Resources, observed: &Observed, rebalance: bool) -> Questions {
    let mut questions = Questions::default();
    let mut asker =
        Asker { resources, observed, survey: Survey::new(resources, observed, rebalance), questions: &mut questions };
    for m in resources.virtual_machines.values() {
        asker.baseline(m);
        asker.with_manifest(m);
    }
    asker.without_manifest();
    asker.home();
    questions
}

struct Asker<'a> {
    resources: &'a Resources,
    observed: &'a Observed,
    survey: Survey,
    questions: &'a mut Questions,
}

impl Asker<'_> {
    fn baseline(&mut self, m: &Manifest<VirtualMachineSpec>) {
        if !baseline::is_asked(m) {
            return;
        }
        let (hosts, platform) = (baseline::hosts(m, self.resources), baseline::platform(m));
        if !self.observed.cpu_baselines.iter().any(|b| b.hosts == hosts && b.platform == platform) {
            self.questions.baselines.insert((hosts, platform));
        }
    }

    /// A machine that moves because of its manifest, because a migration says so, or home again.
    fn with_manifest(&mut self, m: &Manifest<VirtualMachineSpec>) {
        let (located, moves) = (self.survey.located(m.name()), self.survey.moves());
        let (Located::At { copy, .. } | Located::Foreign { copy }) = located else { return };
        if let Some(away) = moves.away(m.name()) {
            if !away.in_force && m.spec.power_state != PowerState::Stopped {
                let (copy, home) = (copy.clone(), away.home_host.clone());
                self.ask(m, &copy, &home, None);
            }
            return;
        }
        let Some(Target::Host(target)) = self.survey.target(m.name()) else { return };
        let wish = moves.wish(m.name());
        let (to, named) = match wish {
            Some(wish) if !wish.permanent && copy.host == *target => (&wish.to, wish.policy.clone()),
            Some(wish) if wish.permanent && wish.to == *target => (target, wish.policy.clone()),
            _ => (target, None),
        };
        let (copy, to) = (copy.clone(), to.clone());
        self.ask(m, &copy, &to, named.as_ref());
    }

    /// Machines without a manifest that a migration moves.
    fn without_manifest(&mut self) {
        for migration in self.resources.virtual_machine_migrations.values().filter(|m| !m.spec.suspend) {
            let members = self.survey.moves().members(migration.name());
            let wishes: Vec<_> = members
                .iter()
                .filter(|member| !member.has_manifest)
                .filter_map(|member| {
                    let wish = wish(migration, member, self.resources)?;
                    match &member.located {
                        // One that another migration has there for a while comes home first.
                        located @ (Located::At { copy, .. } | Located::Foreign { copy })
                            if self.away(located, &member.name).is_none() =>
                        {
                            Some((copy.clone(), wish))
                        }
                        _ => None,
                    }
                })
                .collect();
            for (copy, wish) in wishes {
                if let Some(domain) = copy.domain(self.observed) {
                    self.ask(&stand_in(domain), &copy, &wish.to, wish.policy.as_ref());
                }
            }
        }
    }

    /// Machines without a manifest that nobody wants elsewhere any more.
    fn home(&mut self) {
        for (host, reading) in &self.observed.hosts {
            let Reading::Present(state) = reading else { continue };
            for (index, domain) in state.domains.iter().enumerate() {
                let copy = Copy { host: host.clone(), index };
                if domain.moves.is_empty() || domain.persistent || self.survey.is_claimed(&copy) {
                    continue;
                }
                let located = locate(&self.survey.copies(domain.uuid), self.observed, self.survey.unknown());
                let Some(away) = self.away(&located, &domain.name) else { continue };
                if !away.in_force && away.home.is_some() {
                    self.ask(&stand_in(domain), &copy, &away.home_host, None);
                }
            }
        }
    }

    /// Whether a machine without a manifest is elsewhere for a while.
    fn away(&self, located: &Located, name: &str) -> Option<crate::kind::virtual_machine_migration::Away> {
        self.survey.moves().away_from(located, false, name, self.resources, self.observed, self.survey.unknown())
    }

    /// Asks for a move under the policy that a migration names, else that of the machine.
    fn ask(&mut self, m: &Manifest<VirtualMachineSpec>, copy: &Copy, to: &str, named: Option<&String>) {
        if let Some(domain) = copy.domain(self.observed)
            && copy.host != to
        {
            let policy = policy_of_move(m, named, self.resources);
            of_move(domain, &copy.host, to, &policy, self.observed, self.questions);
        }
    }
}

/// For which hypervisor a definition is.
fn platform(definition: &Element) -> Platform {
    let text = |value: Option<&str>| value.map(str::to_owned);
    Platform {
        arch: text(definition.attribute_at("os/type", "arch")),
        machine: text(definition.attribute_at("os/type", "machine")),
        virt_type: text(definition.attribute("type")),
    }
}

/// What has to be asked before a move of a domain to another host: about its firmware, and before a live one about its CPU
/// and its dirty rate. Nothing, where that host could not be read, and nothing that was answered already.
fn of_move(
    domain: &DomainState,
    from: &str,
    to: &str,
    policy: &MigrationPolicySpec,
    observed: &Observed,
    questions: &mut Questions,
) {
    let Some(Reading::Present(there)) = observed.hosts.get(to) else { return };
    let xml = domain.live_xml.as_deref().or(domain.persistent_xml.as_deref());
    let tree = xml.and_then(|xml| domain_xml::parse(xml).ok());
    if let Some(tree) = &tree
        && there.firmware.is_none()
        && tree.text_at("os/loader").is_some_and(|l| l.starts_with('/'))
    {
        questions.firmware.insert(to.to_owned(), platform(tree));
    }
    if !domain.is_active() || domain.is_in_migration() || policy.mode == Mode::Offline {
        return;
    }
    if let Some(tree) = &tree
        && let Some(cpu) = tree.get("cpu").filter(|cpu| cpu.get("model").is_some())
        && !domain.cpu_at.contains_key(to)
    {
        let (from, to, platform) = (from.to_owned(), to.to_owned(), platform(tree));
        questions.comparisons.push(CompareCpu { uuid: domain.uuid, from, to, platform, cpu: cpu.to_xml() });
    }
    if domain.state == RunState::Running
        && domain.dirty_rate.is_none()
        && let Some(measurement) = policy.dirty_rate.measurement()
    {
        questions.dirty_rates.push(MeasureDirtyRate {
            uuid: domain.uuid,
            host: from.to_owned(),
            seconds: u32::try_from(measurement.period.0 / 1000).unwrap_or(60).clamp(1, 60),
            mode: measurement.mode,
        });
    }
}
