//! What is asked of hosts beyond their reading, because a manifest asks for it: a baseline for `cpu.mode: Baseline`; for a
//! machine that runs and is to be on another host, whether its CPU can be had there and how fast its guest writes to its
//! memory. Pure; asking is the providers' part.

use super::baseline;
use super::survey::{Located, Survey, Target};
use crate::domain_xml;
use crate::kind::Resources;
use crate::kind::migration_policy::{MigrationPolicySpec, Mode};
use crate::observed::{CompareCpu, DomainState, MeasureDirtyRate, Observed, Platform, Questions, Reading, RunState};

/// What has to be asked for a plan from this observation.
pub fn questions(resources: &Resources, observed: &Observed) -> Questions {
    let mut questions = Questions::default();
    let survey = Survey::new(resources, observed, false);
    for m in resources.virtual_machines.values() {
        if baseline::is_asked(m) {
            questions.baselines.insert((baseline::hosts(m, resources), baseline::platform(m)));
        }
        let (Located::At { copy, .. } | Located::Foreign { copy }, Some(Target::Host(target))) =
            (survey.located(m.name()), survey.target(m.name()))
        else {
            continue;
        };
        if let Some(domain) = copy.domain(observed)
            && copy.host != *target
        {
            let policy = super::policy(m, resources);
            of_move(domain, &copy.host, target, &policy, observed, &mut questions);
        }
    }
    questions
}

/// What has to be asked before a live move of a domain to another host. Nothing, where it does not run or that host could
/// not be read.
pub fn of_move(
    domain: &DomainState,
    from: &str,
    to: &str,
    policy: &MigrationPolicySpec,
    observed: &Observed,
    questions: &mut Questions,
) {
    if !domain.is_active()
        || domain.is_in_migration()
        || policy.mode == Mode::Offline
        || !matches!(observed.hosts.get(to), Some(Reading::Present(_)))
    {
        return;
    }
    let tree = domain.live_xml.as_deref().and_then(|xml| domain_xml::parse(xml).ok());
    if let Some(tree) = &tree
        && let Some(cpu) = tree.get("cpu").filter(|cpu| cpu.get("model").is_some())
    {
        let text = |value: Option<&str>| value.map(str::to_owned);
        let platform = Platform {
            arch: text(tree.attribute_at("os/type", "arch")),
            machine: text(tree.attribute_at("os/type", "machine")),
            virt_type: text(tree.attribute("type")),
        };
        let (from, to) = (from.to_owned(), to.to_owned());
        questions.comparisons.push(CompareCpu { uuid: domain.uuid, from, to, platform, cpu: cpu.to_xml() });
    }
    if domain.state == RunState::Running
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
