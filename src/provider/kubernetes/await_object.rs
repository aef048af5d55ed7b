//! Waits for an object to be as it should, and tells on the way what it waits for: conditions, the state of an installation,
//! pods that do not start. What can be told to never come ends the waiting.

use super::act::tell;
use super::client::Connection;
use super::clusters::{Clusters, connected, get};
use super::error::{Fault, explain};
use super::kinds::{Kinds, collection};
use super::list::Listing;
use super::object;
use crate::action::Until;
use crate::model::ObjectRef;
use crate::observed::ObjectState;
use crate::provider::{ActError, StepCtx};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// First pause between two looks; grows.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How many looks in a row have to see it: conditions of MTC that are not durable vanish and come back (they blink).
const SURE: u32 = 2;
/// How many looks in a row have to see that it will never come.
const SURE_NEVER: u32 = 3;
/// Pods whose state is told.
const PODS: usize = 3;

/// How an object stands to what is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// It is as it should.
    Yes,
    /// Not yet: what it says.
    NotYet(String),
    /// It will not come: what it says, and what to do.
    Never(String, Option<String>),
}

/// One look.
pub(super) async fn look(
    clusters: &Clusters,
    cluster: &str,
    id: &ObjectRef,
    until: &Until,
    deadline: Instant,
) -> Result<Met, Fault> {
    connected!(clusters, cluster, deadline, connection => one(connection, id, until, deadline))
}

async fn one(connection: &Connection, id: &ObjectRef, until: &Until, deadline: Instant) -> Result<Met, Fault> {
    let Some(object) = get(connection, id, deadline).await? else {
        return Ok(if *until == Until::Gone { Met::Yes } else { Met::NotYet("it is not there".into()) });
    };
    Ok(match (until, meets(&object, until)) {
        (Until::Installed, Met::Yes) => {
            let csv = object.value["status"]["installedCSV"].as_str().unwrap_or_default();
            let namespace = id.namespace.as_deref().unwrap_or_default();
            let csv = ObjectRef::new("operators.coreos.com/v1alpha1", "ClusterServiceVersion", namespace, csv);
            match get(connection, &csv, deadline).await? {
                None => Met::NotYet(format!("{} is not there", csv.name)),
                Some(csv) => version(&csv),
            }
        }
        (Until::Available, Met::NotYet(what)) => match pods(connection, &object, deadline).await {
            // The figures are there without them.
            Err(_) | Ok(None) => Met::NotYet(what),
            Ok(Some(pods)) => Met::NotYet(format!("{what}; {pods}")),
        },
        (_, met) => met,
    })
}

/// Waits, and tells how it goes.
pub(super) async fn wait(
    clusters: &Clusters,
    cluster: &str,
    id: &ObjectRef,
    until: &Until,
    deadline: Instant,
    ctx: &StepCtx,
) -> Result<(), ActError> {
    let began = Instant::now();
    let (mut pause, mut sure, mut never, mut last) = (FIRST_PAUSE, 0, 0, String::new());
    let blinks = matches!(until, Until::Condition { .. });
    loop {
        // The last look may take a little longer than there is time.
        let time = (deadline + LONGEST_PAUSE).max(Instant::now() + LONGEST_PAUSE);
        match look(clusters, cluster, id, until, time).await {
            Ok(Met::Yes) => {
                (sure, never) = (sure + 1, 0);
                if sure >= if blinks { SURE } else { 1 } {
                    return Ok(());
                }
            }
            Ok(Met::NotYet(what)) => {
                (sure, never) = (0, 0);
                tell(ctx, &what, began);
                last = what;
            }
            Ok(Met::Never(what, hint)) => {
                (sure, never) = (0, never + 1);
                if never >= SURE_NEVER {
                    let hint = hint.or_else(|| explain(&what).map(str::to_owned));
                    let error = ActError::permanent(format!("`{cluster}`: {id} will not be {}: {what}", words(until)));
                    return Err(match hint {
                        Some(hint) => error.hint(hint),
                        None => error,
                    });
                }
                tell(ctx, &what, began);
                last = what;
            }
            // A server that is away for a while is no reason to give up.
            Err(fault) if fault.is_transient() => {
                (sure, never) = (0, 0);
                last = fault.to_string();
                tell(ctx, &last, began);
            }
            Err(fault) => return Err(fault.into_act()),
        }
        if Instant::now() + pause >= deadline {
            let seconds = began.elapsed().as_secs();
            let text = format!("`{cluster}`: {id} is not {} after {seconds} s: {last}", words(until));
            // The next pass waits on where it is still wanted.
            let error = ActError::permanent(text);
            return Err(match explain(&last) {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = ctx.cancel.cancelled() => return Err(ActError::transient(format!("`{cluster}`: waiting for {id} was ended"))),
        }
        // What has been seen once is looked at again soon.
        pause = if sure > 0 || never > 0 { FIRST_PAUSE * 2 } else { (pause * 3 / 2).min(LONGEST_PAUSE) };
    }
}

fn words(until: &Until) -> String {
    match until {
        Until::Exists => "there".into(),
        Until::Gone => "gone".into(),
        Until::Condition { name, .. } => format!("`{name}`"),
        Until::Installed => "installed".into(),
        Until::Available => "available".into(),
    }
}

/// Where it stands by itself.
pub(super) fn meets(object: &ObjectState, until: &Until) -> Met {
    match until {
        Until::Exists if object.deleting => Met::NotYet("it is being deleted".into()),
        Until::Exists => Met::Yes,
        Until::Gone => {
            let mut what = if object.deleting { "it is being deleted" } else { "it is there" }.to_owned();
            if !object.finalizers.is_empty() {
                what.push_str(&format!("; finalizers: {}", object.finalizers.join(", ")));
            }
            let remaining = object::namespace(object).remaining;
            if object.id.kind == "Namespace" && !remaining.is_empty() {
                what.push_str(&format!("; in it: {}", remaining.join("; ")));
            }
            Met::NotYet(what)
        }
        Until::Condition { name, fatal } => condition(object, name, fatal),
        Until::Installed => subscription(object),
        Until::Available => available(object),
    }
}

/// Whether what an object says is about what it is now.
fn is_current(object: &ObjectState, condition: &Value) -> bool {
    let generation = object.value["metadata"]["generation"].as_i64();
    let observed = condition["observedGeneration"].as_i64().or(object.value["status"]["observedGeneration"].as_i64());
    match (generation, observed) {
        (Some(generation), Some(observed)) => observed >= generation,
        _ => true,
    }
}

fn condition(object: &ObjectState, name: &str, fatal: &[String]) -> Met {
    let all: Vec<&Value> = object.value["status"]["conditions"].as_array().into_iter().flatten().collect();
    // The web console's and the controller's own word that it looks again: what it says now is of before.
    if object.value["spec"]["refresh"] == true {
        return Met::NotYet("it is looked at anew".into());
    }
    let is_true = |c: &&&Value| c["status"] == "True";
    if let Some(c) = all.iter().filter(is_true).find(|c| fatal.iter().any(|f| c["type"] == f.as_str())) {
        return Met::Never(said(c), None);
    }
    if let Some(c) = all.iter().filter(is_true).find(|c| c["type"] == name)
        && is_current(object, c)
    {
        return Met::Yes;
    }
    let list: Vec<String> = all.iter().map(|c| said(c)).collect();
    Met::NotYet(if list.is_empty() { "it has no conditions yet".into() } else { list.join("; ") })
}

/// A condition in words: `SaTokenNotPrivileged (Critical, Unauthorized): The token …`.
fn said(condition: &Value) -> String {
    let text = |key: &str| condition[key].as_str().filter(|t| !t.is_empty());
    let mut words = text("type").unwrap_or("?").to_owned();
    if condition["status"] != "True" {
        words.push_str(&format!("={}", text("status").unwrap_or("?")));
    }
    let more: Vec<&str> = [text("category"), text("reason")].into_iter().flatten().collect();
    if !more.is_empty() {
        words.push_str(&format!(" ({})", more.join(", ")));
    }
    if let Some(message) = text("message") {
        words.push_str(&format!(": {message}"));
    }
    words
}

/// An installation by OLM (OLM's documentation of Subscription; mtc-api, 4.1).
fn subscription(object: &ObjectState) -> Met {
    let status = &object.value["status"];
    let all: Vec<&Value> = status["conditions"].as_array().into_iter().flatten().collect();
    let has = |name: &str| all.iter().find(|c| c["type"] == name && c["status"] == "True");
    for fatal in ["BundleUnpackFailed", "InstallPlanFailed"] {
        if let Some(c) = has(fatal) {
            return Met::Never(said(c), None);
        }
    }
    let installed = status["installedCSV"].as_str().filter(|c| !c.is_empty());
    let current = status["currentCSV"].as_str().unwrap_or_default();
    match (installed, status["state"].as_str()) {
        (Some(_), Some("AtLatestKnown")) => return Met::Yes,
        // A newer one is there, and nobody has approved it: what was asked for is installed all the same.
        (Some(installed), Some("UpgradePending")) if installed != current => return Met::Yes,
        _ => {}
    }
    let mut what = format!("state {}", status["state"].as_str().unwrap_or("unknown"));
    if !current.is_empty() {
        what.push_str(&format!(", on the way to {current}"));
    }
    let manual = object.value["spec"]["installPlanApproval"] == "Manual";
    if let Some(plan) = status["installPlanRef"]["name"].as_str().filter(|_| manual && installed.is_none()) {
        what.push_str(&format!(", and the InstallPlan {plan} waits for its approval"));
    }
    for name in ["CatalogSourcesUnhealthy", "ResolutionFailed", "InstallPlanPending"] {
        if let Some(c) = has(name) {
            what.push_str(&format!("; {}", said(c)));
        }
    }
    Met::NotYet(what)
}

/// A ClusterServiceVersion.
fn version(object: &ObjectState) -> Met {
    let status = &object.value["status"];
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let what = format!("{} is {} ({}): {}", object.id.name, text("phase"), text("reason"), text("message"));
    match text("phase") {
        "Succeeded" => Met::Yes,
        "Failed" => {
            let hint = match text("reason") {
                "TooManyOperatorGroups" => {
                    Some("only one OperatorGroup may be in the namespace: remove the other ones".to_owned())
                }
                "UnsupportedOperatorGroup" => {
                    Some("the OperatorGroup has to target its own namespace alone (`spec.targetNamespaces`)".to_owned())
                }
                _ => None,
            };
            Met::Never(what, hint)
        }
        _ => Met::NotYet(what),
    }
}

/// Deployments, DaemonSets, StatefulSets: as many pods are ready as are wanted, of the present template.
fn available(object: &ObjectState) -> Met {
    let number = |pointer: &str| object.value.pointer(pointer).and_then(Value::as_i64);
    let (wanted, ready, updated) = match object.id.kind.as_str() {
        "DaemonSet" => (
            number("/status/desiredNumberScheduled"),
            number("/status/numberReady"),
            number("/status/updatedNumberScheduled"),
        ),
        "StatefulSet" => {
            (number("/spec/replicas").or(Some(1)), number("/status/readyReplicas"), number("/status/updatedReplicas"))
        }
        _ => (
            number("/spec/replicas").or(Some(1)),
            number("/status/availableReplicas"),
            number("/status/updatedReplicas"),
        ),
    };
    let generation = number("/metadata/generation").unwrap_or_default();
    let observed = number("/status/observedGeneration");
    let Some(wanted) = wanted.filter(|_| observed.is_none_or(|o| o >= generation)) else {
        return Met::NotYet("its controller has not looked at it yet".into());
    };
    // No controller, no status: nothing is known.
    if observed.is_none() && object.value["status"].as_object().is_none_or(|s| s.is_empty()) {
        return Met::NotYet("its controller has not looked at it yet".into());
    }
    let (ready, updated) = (ready.unwrap_or_default(), updated.unwrap_or(wanted));
    match ready >= wanted && updated >= wanted {
        true => Met::Yes,
        false => Met::NotYet(format!("{ready} of {wanted} pods are ready")),
    }
}

/// Why pods of a workload do not start, for the first of them.
async fn pods(connection: &Connection, workload: &ObjectState, deadline: Instant) -> Result<Option<String>, Fault> {
    let Some(namespace) = &workload.id.namespace else { return Ok(None) };
    let labels = workload.value["spec"]["selector"]["matchLabels"].as_object();
    let labels: Vec<String> =
        labels.into_iter().flatten().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?))).collect();
    if labels.is_empty() {
        return Ok(None);
    }
    let id = ObjectRef::new("v1", "Pod", namespace, "any");
    let resource = Kinds::one(connection, &id, deadline).await?;
    let listing = Listing {
        during: "list its pods",
        path: collection("v1", &resource.plural, Some(namespace)),
        labels: Some(&labels.join(",")),
        metadata_only: false,
    };
    let told = listing.each(connection, deadline, |pod| Ok(trouble(&pod))).await?;
    let mut text: Vec<String> = told.iter().take(PODS).cloned().collect();
    if told.len() > PODS {
        text.push(format!("and {} more", told.len() - PODS));
    }
    Ok((!text.is_empty()).then(|| text.join("; ")))
}

/// What is wrong with a pod.
fn trouble(pod: &Value) -> Option<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let containers = statuses.iter().flat_map(|s| pod["status"][s].as_array().into_iter().flatten());
    for container in containers {
        let waiting = &container["state"]["waiting"];
        if let Some(reason) =
            waiting["reason"].as_str().filter(|r| *r != "ContainerCreating" && *r != "PodInitializing")
        {
            let message = waiting["message"].as_str().map(|m| format!(": {m}")).unwrap_or_default();
            return Some(format!("pod {name}: {reason}{message}"));
        }
    }
    let conditions = pod["status"]["conditions"].as_array();
    let scheduled = conditions.into_iter().flatten().find(|c| c["type"] == "PodScheduled" && c["status"] == "False")?;
    Some(format!("pod {name}: {}", said(scheduled)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str, value: Value) -> ObjectState {
        let mut whole = json!({"metadata": {"name": "x", "namespace": "n", "uid": "u", "generation": 2}});
        whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        object::read("c", "v1", kind, whole).unwrap()
    }

    fn ready(fatal: &[&str]) -> Until {
        Until::Condition { name: "Ready".into(), fatal: fatal.iter().map(|f| (*f).to_owned()).collect() }
    }

    #[test]
    fn a_condition_counts_where_it_is_of_now() {
        let of = |conditions: Value| object("MigCluster", json!({"status": {"conditions": conditions}}));
        assert_eq!(meets(&of(json!([{"type": "Ready", "status": "True"}])), &ready(&[])), Met::Yes);
        let stale = of(json!([{"type": "Ready", "status": "True", "observedGeneration": 1}]));
        assert!(matches!(meets(&stale, &ready(&[])), Met::NotYet(_)));
        let mut refreshing = of(json!([{"type": "Ready", "status": "True"}]));
        refreshing.value["spec"] = json!({"refresh": true});
        assert!(matches!(meets(&refreshing, &ready(&[])), Met::NotYet(_)));
        let bad = of(
            json!([{"type": "TestConnectFailed", "status": "True", "category": "Critical", "reason": "ConnectFailed", "message": "no route"}]),
        );
        let said = "TestConnectFailed (Critical, ConnectFailed): no route".to_owned();
        assert_eq!(meets(&bad, &ready(&[])), Met::NotYet(said.clone()));
        assert_eq!(meets(&bad, &ready(&["TestConnectFailed"])), Met::Never(said, None));
    }

    #[test]
    fn an_installation_is_told_step_by_step() {
        let of = |status: Value| {
            meets(
                &object("Subscription", json!({"spec": {"installPlanApproval": "Manual"}, "status": status})),
                &Until::Installed,
            )
        };
        assert!(matches!(of(json!({})), Met::NotYet(_)));
        let Met::NotYet(text) =
            of(json!({"state": "UpgradePending", "currentCSV": "a.v1", "installPlanRef": {"name": "ip-1"}}))
        else {
            panic!()
        };
        assert!(text.contains("ip-1 waits for its approval"), "{text}");
        assert_eq!(of(json!({"state": "AtLatestKnown", "installedCSV": "a.v1", "currentCSV": "a.v1"})), Met::Yes);
        assert_eq!(of(json!({"state": "UpgradePending", "installedCSV": "a.v1", "currentCSV": "a.v2"})), Met::Yes);
        let failed =
            of(json!({"conditions": [{"type": "BundleUnpackFailed", "status": "True", "message": "no image"}]}));
        assert!(matches!(failed, Met::Never(..)), "{failed:?}");
        let csv = object(
            "ClusterServiceVersion",
            json!({"status": {"phase": "Failed", "reason": "TooManyOperatorGroups", "message": "m"}}),
        );
        let Met::Never(_, Some(hint)) = version(&csv) else { panic!() };
        assert!(hint.contains("OperatorGroup"));
    }

    #[test]
    fn pods_are_counted_for_the_present_template() {
        let of = |kind: &str, value: Value| meets(&object(kind, value), &Until::Available);
        assert_eq!(
            of(
                "Deployment",
                json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "availableReplicas": 2, "updatedReplicas": 2}})
            ),
            Met::Yes
        );
        for value in [
            json!({"spec": {"replicas": 2}}),
            json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 1, "availableReplicas": 2, "updatedReplicas": 2}}),
            json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "availableReplicas": 1}}),
            json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "availableReplicas": 2, "updatedReplicas": 1}}),
        ] {
            assert!(matches!(of("Deployment", value.clone()), Met::NotYet(_)), "{value}");
        }
        assert_eq!(
            of(
                "DaemonSet",
                json!({"status": {"observedGeneration": 2, "desiredNumberScheduled": 0, "numberReady": 0}})
            ),
            Met::Yes
        );
    }

    #[test]
    fn a_pod_says_why_it_does_not_start() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no pull secret"}}}]}});
        assert_eq!(trouble(&pod).unwrap(), "pod p: ImagePullBackOff: no pull secret");
        assert_eq!(trouble(&json!({"status": {"containerStatuses": [{"state": {"running": {}}}]}})), None);
    }
}
