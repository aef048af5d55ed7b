//! Remote clusters that had a manifest, and are still known on the control cluster.

use super::chain::Chain;
use super::check;
use super::remove::{is_name_of, orphans, plans_in_the_way};
use super::scene::Scene;
use crate::finding::{Code, Finding};
use crate::kind::cluster::{ClusterSpec, Role};
use crate::model::{Manifest, ResourceId};
use crate::observed::ObjectState;
use crate::plan::{Context, Drafts, Operation, Sync};
use std::collections::BTreeMap;

/// Drafts what becomes of them.
pub fn sweep(ctx: &Context<'_>, out: &mut Drafts) {
    if ctx.resources.incomplete {
        return;
    }
    let scene = Scene { resources: ctx.resources, observed: ctx.observed };
    let is_declared = |label: &str| {
        let unusable = ctx.resources.unusable.iter().filter(|id| id.kind.as_str() == "Cluster").map(|id| &id.name);
        ctx.resources.clusters.keys().chain(unusable).any(|name| is_name_of(label, name))
    };
    for control in ctx.resources.clusters.values().filter(|m| m.spec.role == Role::Control) {
        let Some(state) = ctx.observed.cluster(control.name()) else { continue };
        let mut found: BTreeMap<&str, Vec<&ObjectState>> = BTreeMap::new();
        for (name, object) in orphans(control, state, ctx.resources.fleet(), is_declared) {
            found.entry(name).or_default().push(object);
        }
        for (name, objects) in found {
            let gone = Manifest {
                kind: control.kind.clone(),
                metadata: crate::model::Metadata { name: name.to_owned(), ..Default::default() },
                spec: ClusterSpec::default(),
                origin: Default::default(),
            };
            forget(&gone, control, &objects, &scene, ctx, out);
        }
    }
}

fn forget(
    gone: &Manifest<ClusterSpec>,
    control: &Manifest<ClusterSpec>,
    objects: &[&ObjectState],
    scene: &Scene<'_>,
    ctx: &Context<'_>,
    out: &mut Drafts,
) {
    let id: ResourceId = gone.id();
    let report = out.report(&id, None);
    report.sync = Sync::OutOfSync;
    let names: Vec<String> = objects.iter().map(|o| o.id.to_string()).collect();
    if !ctx.settings.prune {
        out.finding(
            Finding::new(
                Code::Unmanaged,
                format!("`{}` has no manifest any more, and the control cluster `{}` still knows it: {}", gone.name(), control.name(), names.join(", ")),
            )
            .on(id)
            .hint("they stay; `prune` in Settings takes them away. What is installed on the cluster itself stays in any case"),
        );
        return;
    }
    report.operation = Operation::Delete;
    let mut blocks = check::blocks_of(control, scene);
    if let Some(state) = ctx.observed.cluster(control.name()) {
        blocks.extend(plans_in_the_way(state, control.name(), Some(gone.name())));
    }
    let mut chain = Chain::new(gone, *scene);
    for object in objects {
        chain.delete(control.name(), object, format!("`{}` has no manifest any more", gone.name()), out);
    }
    chain.finish(&[], &blocks, out);
}
