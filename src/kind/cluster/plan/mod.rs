//! From what is there to what a Cluster's manifest says. [`want`] lists the objects, [`compare`] holds each against what is
//! there, and the files beside them draft one part each: what is in the way ([`check`]), the operator and its controller
//! ([`install`]), remote clusters on the control cluster ([`register`]), exemptions for rsync pods ([`network`]), taking all
//! of it away ([`remove`]), and how it does ([`health`]).

mod chain;
mod check;
mod compare;
mod health;
mod install;
mod network;
mod register;
mod remove;
mod scene;
mod sweep;
#[cfg(test)]
mod tests;
mod want;

pub use sweep::sweep;

use super::ClusterSpec;
use crate::finding::{Code, Finding};
use crate::kind::Resources;
use crate::kind::settings::Drift;
use crate::model::Manifest;
use crate::observed::{ClusterQuestions, ClusterState, Observed};
use crate::plan::{Context, Drafts, Health, Operation, Sync};
use scene::{Scene, find};

/// Drafts what brings a cluster to what its manifest says.
pub fn draft(m: &Manifest<ClusterSpec>, ctx: &Context<'_>, out: &mut Drafts) {
    let scene = Scene { resources: ctx.resources, observed: ctx.observed };
    let Some(state) = ctx.observed.cluster(m.name()) else {
        let report = out.report(&m.id(), None);
        (report.sync, report.health) = (Sync::Unknown, Health::Unknown);
        let why = scene.unknown(m.name()).unwrap_or("it was not looked at");
        out.finding(
            Finding::new(Code::ClusterUnknown, format!("`{}` could not be read: {why}", m.name()))
                .of(m, "spec")
                .hint("nothing on it is touched, and nothing that depends on it is done"),
        );
        return;
    };
    let site = Site { m, state, scene };
    let blocks = check::check(&site, ctx, out);
    let mark = out.mark();
    match remove::is_leaving(&site, ctx, out) {
        true => {
            network::draft(&site, &blocks, out);
            remove::draft(&site, &blocks, out);
        }
        false => {
            install::draft(&site, &blocks, out);
            register::draft(&site, &blocks, out);
            if m.spec.migration_toolkit.is_some() {
                network::draft(&site, &blocks, out);
            }
        }
    }
    if ctx.settings.drift == Drift::Report && ctx.options.is_drift(&m.id()) && !out.since(mark).is_empty() {
        out.take_back(mark);
        out.report(&m.id(), None).operation = Operation::None;
        out.finding(Finding::new(Code::Drift, format!("`{}` was changed by hand", m.name())).of(m, "spec").hint(
            "`drift` in Settings says `Report`, so it stays as it is; a new commit of its manifest puts it right",
        ));
    }
    health::tell(&site, out);
}

/// One cluster that was read.
pub(super) struct Site<'a> {
    m: &'a Manifest<ClusterSpec>,
    state: &'a ClusterState,
    scene: Scene<'a>,
}

impl Site<'_> {
    fn name(&self) -> &str {
        self.m.name()
    }

    fn fleet(&self) -> &str {
        self.scene.resources.fleet()
    }
}

/// Groups whose kinds every API server serves.
const BUILT_IN: &[&str] = &["", "apps", "rbac.authorization.k8s.io", "apiextensions.k8s.io", "networking.k8s.io"];

/// What is to be asked of clusters for a plan from this observation: what would become of each object that is wanted, and
/// whether secret values are as they should be. Nothing that was asked already, and nothing that cannot be answered yet.
pub fn questions(resources: &Resources, observed: &Observed) -> ClusterQuestions {
    let scene = Scene { resources, observed };
    let mut questions = ClusterQuestions::new();
    for m in resources.clusters.values() {
        for want in want::all(m, &scene).into_iter().filter(|w| !w.create_only) {
            let Some(state) = observed.cluster(&want.cluster) else { continue };
            let id = &want.id;
            let has_place = id.namespace.as_ref().is_none_or(|n| state.namespaces.contains_key(n));
            let is_served = BUILT_IN.contains(&id.group()) || state.serves(&id.api_version, &id.kind);
            let asked = |question: &_| state.answer_to(question).is_some();
            let mut ask = |question| questions.push((want.cluster.clone(), question));
            if has_place && is_served && state.denied.is_empty() && !asked(&want.question()) {
                ask(want.question());
            }
            if let Some(question) = want.secrets_question()
                && find(state, id).is_some()
                && !asked(&question)
            {
                ask(question);
            }
        }
    }
    questions
}
