//! A remote cluster on its control cluster: the token of its service account, its Secret there, its MigCluster.

use super::Site;
use super::chain::Chain;
use super::compare::{FieldChange, HIDDEN};
use super::install::READY;
use super::scene::{find, ours};
use super::want::{self, Registered, is_ours};
use super::{check, remove};
use crate::action::Until;
use crate::finding::Code;
use crate::kind::cluster::objects::{NAMESPACE, SERVICE_ACCOUNT};
use crate::kind::cluster::{ClusterSpec, Install};
use crate::model::{Manifest, ObjectRef};
use crate::observed::ClusterState;
use crate::plan::{Block, Drafts, Fact, Sync};
use serde_json::json;

/// The operator makes the service account early in its run.
const ACCOUNT: u64 = 10 * 60_000;

pub(super) fn draft(site: &Site<'_>, blocks: &[Block], out: &mut Drafts) {
    let Some(toolkit) = &site.m.spec.migration_toolkit else { return };
    let Some(control) = want::control_of(site.m, &site.scene) else { return };
    let Some(there) = site.scene.observed.cluster(control.name()) else {
        // How it is registered is not known, and so not whether all is as it should be.
        out.report(&site.m.id(), None).sync = Sync::Unknown;
        return;
    };
    let Some(Registered { control, source, token, mig_cluster }) = want::registration(site.m, toolkit, &site.scene)
    else {
        return;
    };
    let name = site.name();
    let mut chain = Chain::new(site.m, site.scene);
    chain.need(Fact::ToolkitReady { cluster: name.into() });
    chain.need(Fact::ToolkitReady { cluster: control.name().into() });
    let mut is_new_source = false;
    if let Some(source) = source {
        let account = ObjectRef::new("v1", "ServiceAccount", NAMESPACE, SERVICE_ACCOUNT);
        let is_there = find(site.state, &account).is_some();
        chain.wait(
            name,
            &account,
            Until::Exists,
            ACCOUNT,
            is_there,
            "its token is the controller's way to this cluster",
        );
        is_new_source = chain.apply(&source, site.state, out) && find(site.state, &source.id).is_none();
    }
    if let Some(token) = token {
        let stale = is_new_source && find(there, &token.id).is_some();
        let path = "data.saToken".to_owned();
        let more = FieldChange { path, before: json!(HIDDEN), after: json!(format!("{HIDDEN}, another one")) };
        chain.apply_with(&token, there, stale.then_some(more).into_iter().collect(), out);
    }
    let is_new = find(there, &mig_cluster.id).is_none();
    chain.apply(&mig_cluster, there, out);
    // Of one that was there the conditions are those of before, until the controller has looked again.
    let fatal = match is_new {
        true => ["InvalidURL", "InvalidSaSecretRef", "InvalidSaToken"].map(String::from).to_vec(),
        false => Vec::new(),
    };
    let is_ready = find(there, &mig_cluster.id).is_some_and(|c| c.is("Ready"));
    let until = Until::Condition { name: "Ready".into(), fatal };
    chain.wait(control.name(), &mig_cluster.id, until, READY, is_ready, "the control cluster tests the connection");
    let blocks: Vec<Block> = blocks.iter().cloned().chain(check::blocks_of(control, &site.scene)).collect();
    chain.finish(&[], &blocks, out);
}

/// Takes a remote cluster off its control cluster: before MTC goes from it, while the controller can still reach it.
/// Gives what holds the rest of the removal back.
pub(super) fn withdraw(site: &Site<'_>, blocks: &[Block], out: &mut Drafts) -> Vec<Block> {
    let Some(control) = want::control_of(site.m, &site.scene) else { return Vec::new() };
    let Some(there) = site.scene.observed.cluster(control.name()) else {
        // A migration may run there, and its controller may be at work here.
        return vec![Block {
            code: Code::ClusterUnknown,
            reason: format!(
                "the control cluster `{}` could not be read: whether it still uses `{}` is not known",
                control.name(),
                site.name()
            ),
            way_out: "bring the control cluster back; its MigCluster and Secret of this cluster go first".into(),
        }];
    };
    // Where that one goes as well, its own steps take all that MTC knows away.
    if control.spec.migration_toolkit.as_ref().is_some_and(|t| t.install == Install::None && t.prune) {
        return Vec::new();
    }
    let mut chain = Chain::new(site.m, site.scene);
    let mut blocks: Vec<Block> = blocks.iter().cloned().chain(check::blocks_of(control, &site.scene)).collect();
    blocks.extend(remove::plans_in_the_way(there, control.name(), Some(site.name())));
    delete(site.m, &mut chain, there, control, site.fleet(), out);
    chain.finish(&[Fact::Unregistered { cluster: site.name().into() }], &blocks, out);
    blocks
}

/// The MigCluster and the Secret of a remote cluster.
fn delete(
    m: &Manifest<ClusterSpec>,
    chain: &mut Chain<'_>,
    there: &ClusterState,
    control: &Manifest<ClusterSpec>,
    fleet: &str,
    out: &mut Drafts,
) {
    let why = || format!("`{}` leaves MTC", m.name());
    let own = |value: &serde_json::Value| is_ours(value, fleet, m.name());
    for object in ours(there, "migration.openshift.io", "MigCluster").filter(|o| own(&o.value)) {
        chain.delete(control.name(), object, why(), out);
    }
    for object in there.of_kind("", "Secret").filter(|o| own(&o.value)) {
        chain.delete(control.name(), object, why(), out);
    }
}
