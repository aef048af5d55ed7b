//! Machines that Drover owns and that have no manifest any more: named; removed only with `prune`, and then as the mark
//! on the machine says.

use super::super::VirtualMachineSpec;
use super::super::survey::Copy;
use crate::action::{Action, MachineAction};
use crate::finding::{Code, Finding};
use crate::kind::Spec;
use crate::model::ResourceId;
use crate::observed::{DomainState, HostState, OwnerMark, Reading};
use crate::plan::{Block, Context, Disruption, Drafts, Effect, Health, Interruption, Operation, StepDraft, Sync};
use serde_json::{Value, json};

/// Drafts what becomes of them.
pub fn sweep(ctx: &Context<'_>, out: &mut Drafts) {
    for (host, reading) in &ctx.observed.hosts {
        let Reading::Present(state) = reading else { continue };
        for (index, domain) in state.domains.iter().enumerate() {
            let ours = domain.owner.as_ref().filter(|o| o.fleet == ctx.resources.fleet());
            if let Some(mark) = ours
                && !ctx.survey.is_claimed(&Copy { host: host.clone(), index })
            {
                unmanaged(ctx, host, state, domain, mark, out);
            }
        }
    }
}

fn unmanaged(
    ctx: &Context<'_>,
    host: &str,
    state: &HostState,
    domain: &DomainState,
    mark: &OwnerMark,
    out: &mut Drafts,
) {
    let has_manifest = ctx.resources.virtual_machines.contains_key(&mark.name);
    let id = ResourceId::new(VirtualMachineSpec::KIND, mark.name.clone());
    if has_manifest {
        // A second domain with the mark of a machine that has a manifest: somebody copied the mark, or cloned the domain.
        out.finding(
            Finding::new(
                Code::NotOwned,
                format!(
                    "`{}` on `{host}` carries the mark of `{}` and is another machine ({})",
                    domain.name, mark.name, domain.uuid
                ),
            )
            .severity(crate::finding::Severity::Warning)
            .on(id)
            .hint("a clone keeps the mark: take it out of the clone's metadata"),
        );
        return;
    }
    let report = out.report(&id, None);
    report.sync = Sync::OutOfSync;
    report.health = Health::Healthy;
    if !ctx.settings.prune {
        out.finding(
            Finding::new(Code::Unmanaged, format!("`{}` on `{host}` has no manifest any more", mark.name)).on(id).hint(
                "it is left alone; `prune: true` in Settings removes such machines as their `deletionPolicy` said",
            ),
        );
        return;
    }
    let mut blocks = Vec::new();
    if let Some((unknown, why)) = ctx.survey.unknown().iter().next() {
        blocks.push(Block {
            code: Code::HostUnknown,
            reason: format!("`{unknown}` could not be read ({why}), so not everything about this machine is known"),
            way_out: "bring the host back".into(),
        });
    }
    if domain.is_in_migration() {
        blocks.push(Block {
            code: Code::InProgress,
            reason: "it is being moved".into(),
            way_out: "wait for the end of the move".into(),
        });
    }
    let report = out.report(&id, None);
    report.operation = if mark.delete { Operation::Delete } else { Operation::Release };
    let machine = |action, summary: String, why: String| {
        let mut step = StepDraft::new(Action::Machine(action), id.clone(), summary, why);
        step.blocked_by.clone_from(&blocks);
        step
    };
    let why = "its manifest is gone, and `prune` is on".to_owned();
    if !mark.delete {
        change(&id, "metadata.owner", json!(mark.name), Value::Null, out);
        let step = machine(
            MachineAction::RemoveOwner { host: host.into(), uuid: domain.uuid },
            format!("let go of {} on {host}", mark.name),
            format!("{why}; its `deletionPolicy` was Orphan"),
        );
        out.step(step);
        return;
    }
    change(&id, "spec.host", json!(host), Value::Null, out);
    let mut last = Vec::new();
    if domain.is_active() {
        let mut step = machine(
            MachineAction::ShutdownDomain {
                host: host.into(),
                uuid: domain.uuid,
                timeout_millis: 120_000,
                force: false,
            },
            format!("shut down {} on {host}", mark.name),
            format!("{why}; its `deletionPolicy` was Delete"),
        );
        step.disruption = Disruption::Downtime;
        last = vec![out.step(step)];
    }
    let mut step = machine(
        MachineAction::UndefineDomain { host: host.into(), uuid: domain.uuid, nvram: true },
        format!("undefine {} on {host}", mark.name),
        format!("{why}; its `deletionPolicy` was Delete"),
    );
    step.disruption = Disruption::Destructive;
    step.interruption = Interruption::PointOfNoReturn;
    step.after = last;
    let undefine = out.step(step);
    for owned in &mark.volumes {
        let Some(volume) = state.pools.get(&owned.pool).and_then(|p| p.volumes.get(&owned.volume)) else { continue };
        change(&id, &format!("volumes[{}/{}]", owned.pool, owned.volume), json!(volume.path), Value::Null, out);
        let mut step = machine(
            MachineAction::DeleteVolume {
                host: host.into(),
                pool: owned.pool.clone(),
                volume: owned.volume.clone(),
                path: volume.path.clone(),
            },
            format!("delete volume {} from pool {} on {host}", owned.volume, owned.pool),
            "Drover made it for this machine".to_owned(),
        );
        step.disruption = Disruption::Destructive;
        step.interruption = Interruption::PointOfNoReturn;
        step.after.push(undefine);
        out.step(step);
    }
}

fn change(id: &ResourceId, path: &str, before: Value, after: Value, out: &mut Drafts) {
    out.change(
        id,
        None,
        crate::plan::Change { path: path.into(), before, after, effect: Effect::None, definition: None, note: None },
    );
}
