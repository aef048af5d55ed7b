//! What is looked at before anything is done on a cluster: what holds its steps back.

use super::Site;
use super::scene::Scene;
use crate::finding::{Code, Finding, Severity};
use crate::kind::cluster::compatibility::unfit;
use crate::kind::cluster::objects::NAMESPACE;
use crate::kind::cluster::{ClusterSpec, Install, Platform};
use crate::model::Manifest;
use crate::observed::Right;
use crate::plan::{Block, Context, Drafts};

/// More rights than these are counted.
const MOST_RIGHTS: usize = 6;

/// Something that is in the way.
struct Problem {
    code: Code,
    path: &'static str,
    message: String,
    hint: String,
}

/// Checks a cluster: says what is wrong, and gives what holds back its steps.
pub(super) fn check(site: &Site<'_>, ctx: &Context<'_>, out: &mut Drafts) -> Vec<Block> {
    let problems = problems(site.m, &site.scene);
    let has_wishes = site.m.spec.migration_toolkit.is_some();
    for p in &problems {
        // Rights for what nobody asks for are missed by nobody.
        if p.code == Code::RightMissing && !has_wishes {
            continue;
        }
        out.finding(Finding::new(p.code, p.message.clone()).of(site.m, p.path).hint(p.hint.clone()));
    }
    differing_platform(site, out);
    clocks(site, ctx, out);
    problems.into_iter().map(block).collect()
}

/// What holds steps back that another cluster's manifest has on this one.
pub(super) fn blocks_of(m: &Manifest<ClusterSpec>, scene: &Scene<'_>) -> Vec<Block> {
    problems(m, scene).into_iter().map(block).collect()
}

fn block(p: Problem) -> Block {
    Block { code: p.code, reason: p.message, way_out: p.hint }
}

fn problems(m: &Manifest<ClusterSpec>, scene: &Scene<'_>) -> Vec<Problem> {
    let Some(state) = scene.observed.cluster(m.name()) else { return Vec::new() };
    let name = m.name();
    let mut found = Vec::new();
    let same = scene.same_as(m);
    if !same.is_empty() {
        let others: Vec<String> = same.iter().map(|o| format!("`{o}`")).collect();
        found.push(Problem {
            code: Code::SameCluster,
            path: "spec",
            message: format!(
                "`{name}` and {} are one cluster: the namespace kube-system has the UID {} in both",
                others.join(", "),
                state.uid
            ),
            hint: "declare it once; see what each says of how it is reached".into(),
        });
    }
    let platform = state.platform.parse::<Platform>().ok();
    let leaves = |t: &crate::kind::cluster::MigrationToolkit| t.install == Install::None && t.prune;
    let toolkit = m.spec.migration_toolkit.as_ref().filter(|t| !leaves(t));
    for what in platform.into_iter().flat_map(|p| unfit(p, m.spec.role, toolkit)) {
        found.push(Problem {
            code: Code::WrongPlatform,
            path: what.path,
            message: format!("`{name}`: {}", what.message),
            hint: what.hint.into(),
        });
    }
    if !state.denied.is_empty() {
        found.push(Problem {
            code: Code::RightMissing,
            path: "spec",
            message: format!("Drover may not {} on `{name}`", rights(&state.denied)),
            hint: format!("`drover rbac cluster {name} | kubectl apply -f -`, as an administrator of the cluster, gives it what the manifests need"),
        });
    }
    if let Some(namespace) = state.namespaces.get(NAMESPACE)
        && let Some(since) = &namespace.terminating
        && toolkit.is_some_and(|t| t.install != Install::None)
    {
        let what = if namespace.remaining.is_empty() {
            "nothing is said of what is left in it".to_owned()
        } else {
            namespace.remaining.join("; ")
        };
        found.push(Problem {
            code: Code::Deleting,
            path: "spec.migrationToolkit",
            message: format!("the namespace `{NAMESPACE}` on `{name}` is being deleted since {since}: {what}"),
            hint: "let it go first; what is left in it has finalizers, which a controller that still runs takes off"
                .into(),
        });
    }
    found
}

/// Rights in words: `create subscriptions.operators.coreos.com in openshift-migration, …`.
fn rights(denied: &[Right]) -> String {
    let one = |r: &Right| {
        let group = if r.group.is_empty() { String::new() } else { format!(".{}", r.group) };
        let place = r.namespace.as_ref().map(|n| format!(" in {n}")).unwrap_or_default();
        format!("{} {}{group}{place}", r.verb, r.resource)
    };
    let mut text = denied.iter().take(MOST_RIGHTS).map(one).collect::<Vec<_>>().join(", ");
    if denied.len() > MOST_RIGHTS {
        text += &format!(" and {} more", denied.len() - MOST_RIGHTS);
    }
    text
}

/// The platform that the manifest declares, and the one that is there.
fn differing_platform(site: &Site<'_>, out: &mut Drafts) {
    let Some(declared) = &site.m.spec.platform else { return };
    let (Ok(said), Ok(seen)) = (declared.parse::<Platform>(), site.state.platform.parse::<Platform>()) else { return };
    if said != seen {
        out.finding(
            Finding::new(Code::WrongPlatform, format!("`{}` is declared as {said}, and is {seen}", site.name()))
                .severity(Severity::Warning)
                .of(site.m, "spec.platform")
                .hint("leave `platform` out to have it read, or see that this is the cluster that is meant"),
        );
    }
}

/// Credentials that end, and a clock that differs.
fn clocks(site: &Site<'_>, ctx: &Context<'_>, out: &mut Drafts) {
    const WEEK: i64 = 7 * 24 * 3600;
    const SKEW: i64 = 60_000;
    if let Some(end) = site.state.credentials_end
        && end.as_second() - ctx.now.as_second() < WEEK
    {
        let words = if end < ctx.now { "have ended" } else { "end within a week" };
        out.finding(
            Finding::new(Code::CredentialsEnd, format!("the credentials for `{}` {words}: {end}", site.name()))
                .of(site.m, "spec")
                .hint("renew them where `secretRef` names them; Drover reads them anew on each pass"),
        );
    }
    if let Some(skew) = site.state.clock_skew_millis.filter(|s| s.abs() > SKEW) {
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        out.finding(
            Finding::new(
                Code::ClockSkew,
                format!("the clock of `{}` is {} s {direction} Drover's", site.name(), skew.abs() / 1000),
            )
            .of(site.m, "spec")
            .hint("tokens and certificates are checked by the clock: set both by NTP"),
        );
    }
}
