//! Approves the InstallPlan of one version, and of no other (OLM's manual approval).

use super::act::{Hands, patch_object, tell};
use super::client::Connection;
use super::clusters::{connected, get};
use super::error::Fault;
use super::kinds::{Kinds, collection};
use super::list::Listing;
use super::object;
use crate::model::ObjectRef;
use crate::observed::ObjectState;
use crate::provider::{ActError, StepCtx};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked for the InstallPlan.
const LOOK: Duration = Duration::from_secs(1);

/// Where an approval stands.
pub(super) enum Approval {
    /// The version is installed, or approved.
    Done,
    /// This InstallPlan waits for it.
    Waits(ObjectRef, Vec<Value>),
    /// There is none yet that could be approved: what there is.
    NotYet(String),
}

/// Looks.
pub(super) async fn look(hands: &Hands<'_>, id: &ObjectRef, csv: &str) -> Result<Approval, Fault> {
    connected!(hands.clusters, hands.cluster, hands.deadline, c => one(c, id, csv, hands.deadline))
}

async fn one(connection: &Connection, id: &ObjectRef, csv: &str, deadline: Instant) -> Result<Approval, Fault> {
    let Some(subscription) = get(connection, id, deadline).await? else {
        return Ok(Approval::NotYet(format!("{id} is not there")));
    };
    if subscription.value["status"]["installedCSV"] == csv {
        return Ok(Approval::Done);
    }
    let namespace = id.namespace.as_deref().unwrap_or_default();
    let any = ObjectRef::new("operators.coreos.com/v1alpha1", "InstallPlan", namespace, "any");
    let resource = Kinds::one(connection, &any, deadline).await?;
    let listing = Listing {
        during: "list InstallPlans",
        path: collection(&any.api_version, &resource.plural, Some(namespace)),
        labels: None,
        metadata_only: false,
    };
    let plans = listing
        .each(connection, deadline, |value| {
            object::read(&connection.cluster, &any.api_version, &any.kind, value).map(Some)
        })
        .await?;
    Ok(choose(&plans, csv))
}

/// Which InstallPlan it is, of those that are there.
fn choose(plans: &[ObjectState], csv: &str) -> Approval {
    let package = csv.split_once(".v").map_or(csv, |(package, _)| package);
    let is_of_package = |name: &str| name.split_once(".v").is_some_and(|(p, _)| p == package);
    let mut others = Vec::new();
    for plan in plans.iter().filter(|p| !p.deleting) {
        let spec = &plan.value["spec"];
        let names: Vec<&str> =
            spec["clusterServiceVersionNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut of_package = names.iter().filter(|n| is_of_package(n));
        if !names.contains(&csv) || of_package.any(|n| *n != csv) {
            others.extend(names.iter().filter(|n| is_of_package(n)).map(|n| format!("{} ({n})", plan.id.name)));
            continue;
        }
        if spec["approved"] == true {
            return Approval::Done;
        }
        // What was seen is tested, so that a plan that changed meanwhile is not approved.
        let patch = vec![
            json!({"op": "test", "path": "/spec/clusterServiceVersionNames", "value": spec["clusterServiceVersionNames"]}),
            json!({"op": "add", "path": "/spec/approved", "value": true}),
        ];
        return Approval::Waits(plan.id.clone(), patch);
    }
    Approval::NotYet(match others.as_slice() {
        [] => format!("there is no InstallPlan of {csv}"),
        others => format!("there is no InstallPlan of {csv}, only of other versions: {}", others.join(", ")),
    })
}

/// Waits for the InstallPlan, and approves it.
pub(super) async fn act(hands: &Hands<'_>, id: &ObjectRef, csv: &str, ctx: &StepCtx) -> Result<(), ActError> {
    let began = Instant::now();
    loop {
        match look(hands, id, csv).await.map_err(Fault::into_act)? {
            Approval::Done => return Ok(()),
            Approval::Waits(plan, patch) => return patch_object(hands, &plan, &patch).await,
            Approval::NotYet(what) => {
                tell(ctx, &what, began);
                if Instant::now() + LOOK >= hands.deadline {
                    let text = format!("`{}`: {csv} could not be approved: {what}", hands.cluster);
                    return Err(ActError::permanent(text).hint(
                        "look at the Subscription's conditions, and whether its channel has this version: OLM goes by \
                         `startingCSV`, and then from version to version",
                    ));
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ctx.cancel.cancelled() => return Err(ActError::transient(format!("`{}`: waiting for {csv} was ended", hands.cluster))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, versions: &[&str], approved: bool) -> ObjectState {
        let value = json!({
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"clusterServiceVersionNames": versions, "approved": approved},
        });
        object::read("c", "operators.coreos.com/v1alpha1", "InstallPlan", value).unwrap()
    }

    #[test]
    fn exactly_the_named_version_is_approved() {
        let plans = [
            plan("newer", &["mtc-operator.v1.7.5", "oadp-operator.v1.0.4"], false),
            plan("both", &["mtc-operator.v1.7.4", "mtc-operator.v1.7.5"], false),
            plan("right", &["mtc-operator.v1.7.4", "oadp-operator.v1.0.4"], false),
        ];
        let Approval::Waits(id, patch) = choose(&plans, "mtc-operator.v1.7.4") else { panic!() };
        assert_eq!((id.name.as_str(), patch.len()), ("right", 2));
        let Approval::NotYet(what) = choose(&plans[..1], "mtc-operator.v1.7.4") else { panic!() };
        assert!(what.contains("newer (mtc-operator.v1.7.5)") && !what.contains("oadp"), "{what}");
        assert!(matches!(
            choose(&[plan("done", &["mtc-operator.v1.7.4"], true)], "mtc-operator.v1.7.4"),
            Approval::Done
        ));
    }
}
