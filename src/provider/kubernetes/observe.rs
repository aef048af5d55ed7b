//! Reads one cluster: what the pure list of its reads says, page by page. The reading is complete or there is none.

use super::client::{Ask, Connection};
use super::clusters::{Clusters, connected};
use super::error::{Fault, FaultKind};
use super::kinds::{Kinds, Resource, collection, path};
use super::list::Listing;
use super::object;
use crate::kind::cluster::objects::NAMESPACE;
use crate::kind::cluster::reads::{self, GROUPS, Read, Which};
use crate::model::ObjectRef;
use crate::observed::{ClusterState, CrdState, ObjectState, Right};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// Lists of one cluster that are under way at once.
const AT_ONCE: usize = 6;

/// Reads a cluster, by `deadline`.
pub(super) async fn observe(clusters: &Clusters, cluster: &str, deadline: Instant) -> Result<ClusterState, Fault> {
    connected!(clusters, cluster, deadline, connection => whole(clusters, connection, deadline))
}

async fn whole(clusters: &Clusters, connection: &Connection, deadline: Instant) -> Result<ClusterState, Fault> {
    let cluster = connection.cluster.as_str();
    let version = connection.ask::<Version>(Ask::get("ask for the version", "/version"), deadline).await?;
    let kinds = Kinds::of(connection, GROUPS, deadline).await?;
    let wanted = reads::reads(cluster, &clusters.specs);
    // Which of them are served, with the version that is.
    let served: Vec<(Read, String, Resource)> = wanted
        .into_iter()
        .filter_map(|read| {
            let (api_version, resource) = kinds.first(read.group, read.versions, read.kind)?;
            let resource = resource.clone();
            Some((read, api_version, resource))
        })
        .collect();
    let lists = served.iter().map(|(read, api_version, resource)| async move {
        let cached = clusters.watched.as_ref().map(|w| w.begin(cluster, read));
        if let Some(objects) = cached.as_ref().and_then(|c| c.objects()) {
            return Ok((read, objects));
        }
        let objects = Arc::new(one(connection, read, api_version, resource, deadline).await?);
        if let Some(cached) = cached {
            cached.keep(&objects);
        }
        Ok::<_, Fault>((read, objects))
    });
    // The first error ends all of it.
    let lists = in_order(lists.collect()).await;
    let lists = match lists {
        Ok(lists) => lists,
        Err(fault) if fault.kind == FaultKind::Forbidden => {
            return Err(with_all_missing(connection, &served, fault, deadline).await);
        }
        Err(fault) => return Err(fault),
    };
    let mut state = ClusterState {
        server: connection.server.clone(),
        ca: connection.ca.clone(),
        version: version.value.git_version.clone(),
        served: kinds.all().collect(),
        credentials_end: connection.credentials_end,
        clock_skew_millis: version.skew_millis,
        ..ClusterState::default()
    };
    for (read, objects) in lists {
        match read.kind {
            "Namespace" => {
                for object in objects.iter() {
                    state.namespaces.insert(object.id.name.clone(), object::namespace(object));
                    if object.id.name == NAMESPACE {
                        state.objects.push(object.clone());
                    }
                }
            }
            "CustomResourceDefinition" => state.crds.extend(crds(connection, &kinds, &objects, deadline).await?),
            _ => state.objects.extend(objects.iter().cloned()),
        }
    }
    state.objects.sort_by(|a, b| a.id.cmp(&b.id));
    state.objects.dedup_by(|a, b| a.id == b.id);
    state.uid = state.namespaces.get("kube-system").map(|n| n.uid.clone()).unwrap_or_default();
    platform(&mut state, &kinds, &version.value);
    let needed = clusters.rights.get(cluster).map(Vec::as_slice).unwrap_or_default();
    state.denied = denied(connection, needed, deadline).await?;
    Ok(state)
}

/// What these come to, in their order, some at once. (The futures are made first: a stream that makes them by a closure
/// could not move between threads.)
async fn in_order<T>(work: Vec<impl Future<Output = Result<T, Fault>>>) -> Result<Vec<T>, Fault> {
    stream::iter(work).buffered(AT_ONCE).try_collect().await
}

/// The objects of one read.
async fn one(
    connection: &Connection,
    read: &Read,
    api_version: &str,
    resource: &Resource,
    deadline: Instant,
) -> Result<Vec<ObjectState>, Fault> {
    let cluster = connection.cluster.as_str();
    if let Which::Named { namespace, name } = &read.which {
        let id = ObjectRef {
            api_version: api_version.to_owned(),
            kind: read.kind.to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
        };
        return match connection.ask::<Value>(Ask::get("read", path(&id, resource)).of(&id), deadline).await {
            Ok(answer) => Ok(vec![object::read(cluster, api_version, read.kind, answer.value)?]),
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(Vec::new()),
            Err(fault) => Err(fault),
        };
    }
    let namespace = match &read.which {
        Which::In(namespace) => Some(namespace.as_str()),
        _ => None,
    };
    let during = match namespace {
        Some(namespace) => format!("list {} in {namespace}", read.resource),
        None => format!("list {}", read.resource),
    };
    let marks = match read.which {
        Which::Matching(marks) => Some(marks),
        _ => None,
    };
    let listing = Listing {
        during: &during,
        path: collection(api_version, &resource.plural, namespace),
        labels: read.selector(),
        // A definition is large, and its name is all that is of interest.
        metadata_only: marks.is_some() && read.kind == "CustomResourceDefinition",
    };
    let listed = listing.each(connection, deadline, |value| {
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        if marks.is_some_and(|marks| !marks.iter().any(|m| name.contains(m))) {
            return Ok(None);
        }
        object::read(cluster, api_version, read.kind, value).map(Some)
    });
    match listed.await {
        // A resource that went since it was asked what is served has no objects.
        Err(fault) if fault.kind == FaultKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The definitions, with how many objects of each there are.
async fn crds(
    connection: &Connection,
    kinds: &Kinds,
    objects: &[ObjectState],
    deadline: Instant,
) -> Result<BTreeMap<String, CrdState>, Fault> {
    let counted = objects.iter().map(|crd| async move {
        let (plural, group) = crd.id.name.split_once('.').unwrap_or((&crd.id.name, ""));
        let version = kinds.version_of(group, plural);
        let established = version.is_some();
        let instances = match version {
            None => None,
            Some(api_version) => {
                let during = format!("count {plural}.{group}");
                let path = collection(&api_version, plural, None);
                let listing = Listing { during: &during, path, labels: None, metadata_only: true };
                match listing.count(connection, deadline).await {
                    Ok(count) => count,
                    // What cannot be counted may be there: no number, and no failure of the whole.
                    Err(fault) if matches!(fault.kind, FaultKind::Forbidden | FaultKind::NotFound) => None,
                    Err(fault) => return Err(fault),
                }
            }
        };
        Ok((crd.id.name.clone(), CrdState { uid: crd.uid.clone(), established, instances }))
    });
    Ok(in_order(counted.collect()).await?.into_iter().collect())
}

/// `/version`, as far as it is used.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    major: String,
    minor: String,
    git_version: String,
}

/// What the platform is. OpenShift 4 says so itself (ClusterVersion); OpenShift 3 is known by its own API groups, and its
/// minor version is that of its Kubernetes (3.11 has 1.11).
fn platform(state: &mut ClusterState, kinds: &Kinds, version: &Version) {
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let (major, minor) = (number(&version.major), number(&version.minor));
    let text = |state: &ClusterState, kind: &str, pointer: &str| {
        let mut of_kind = state.objects.iter().filter(|o| o.id.kind == kind);
        of_kind.find_map(|o| o.value.pointer(pointer)?.as_str().map(str::to_owned))
    };
    let is_openshift = kinds.has_group("config.openshift.io") || kinds.has_group("apps.openshift.io");
    let clusterversion = state.objects.iter().find(|o| o.id.kind == "ClusterVersion").and_then(installed_version);
    state.platform = match &clusterversion {
        Some(installed) => {
            let mut parts = installed.split('.');
            let (major, minor) = (parts.next().unwrap_or("4"), parts.next().unwrap_or("0"));
            format!("openshift-{}.{}", number(major), number(minor))
        }
        None if is_openshift && !kinds.has_group("config.openshift.io") => format!("openshift-3.{minor}"),
        None => format!("kubernetes-{major}.{minor}"),
    };
    state.openshift_version = clusterversion;
    state.network_type =
        text(state, "Network", "/status/networkType").or_else(|| text(state, "Network", "/spec/networkType")).or_else(
            // OpenShift 3: the plugin by its name.
            || text(state, "ClusterNetwork", "/pluginName").map(|_| "OpenShiftSDN".to_owned()),
        );
}

/// The version that a ClusterVersion has come to: while an update runs, the one before it.
fn installed_version(object: &ObjectState) -> Option<String> {
    let history = object.value["status"]["history"].as_array();
    let completed = history.into_iter().flatten().find(|h| h["state"] == "Completed");
    let desired = || object.value["status"]["desired"]["version"].as_str();
    completed.and_then(|h| h["version"].as_str()).or_else(desired).map(str::to_owned)
}

/// Asks whether Drover has rights, and gives those that it does not have.
async fn denied(connection: &Connection, rights: &[Right], deadline: Instant) -> Result<Vec<Right>, Fault> {
    let asked = rights.iter().map(|right| async move {
        if connection.is_known_to_allow(right) {
            return Ok(None);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": right.verb, "group": right.group, "resource": right.resource, "namespace": right.namespace,
            }},
        });
        let target = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = connection.ask::<Value>(Ask::create("ask for Drover's rights", target, &review), deadline).await?;
        let is_allowed = answer.value["status"]["allowed"] == true;
        if is_allowed {
            connection.allows(right);
        }
        Ok::<_, Fault>((!is_allowed).then(|| right.clone()))
    });
    let missing: Vec<Option<Right>> = in_order(asked.collect()).await?;
    Ok(missing.into_iter().flatten().collect())
}

/// A fault of one right that is missing, with all that are missing for reading: mended at once, not one by one.
async fn with_all_missing(
    connection: &Connection,
    served: &[(Read, String, Resource)],
    fault: Fault,
    deadline: Instant,
) -> Fault {
    let reads: Vec<Read> = served.iter().map(|(read, ..)| read.clone()).collect();
    let Ok(missing) = denied(connection, &reads::rights(&reads), deadline).await else { return fault };
    if missing.is_empty() {
        return fault;
    }
    let list: Vec<String> = missing.iter().map(right_words).collect();
    Fault { why: format!("{}; Drover may not: {}", fault.why, list.join(", ")), ..fault }
}

/// `list secrets in openshift-migration`.
fn right_words(right: &Right) -> String {
    let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
    let namespace = right.namespace.as_ref().map(|n| format!(" in {n}")).unwrap_or_default();
    format!("{} {}{group}{namespace}", right.verb, right.resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster_version(status: Value) -> ObjectState {
        let value = json!({"metadata": {"name": "version", "uid": "u"}, "status": status});
        object::read("c", "config.openshift.io/v1", "ClusterVersion", value).unwrap()
    }

    #[test]
    fn an_update_that_runs_is_not_the_version_yet() {
        let status = json!({"desired": {"version": "4.11.1"}, "history": [
            {"state": "Partial", "version": "4.11.1"}, {"state": "Completed", "version": "4.10.21"}]});
        assert_eq!(installed_version(&cluster_version(status)).unwrap(), "4.10.21");
        let new = json!({"desired": {"version": "4.11.1"}, "history": [{"state": "Partial", "version": "4.11.1"}]});
        assert_eq!(installed_version(&cluster_version(new)).unwrap(), "4.11.1");
    }

    #[test]
    fn rights_are_said_as_they_are_asked_for() {
        let right = |group: &str, namespace: Option<&str>| Right {
            verb: "list".into(),
            group: group.into(),
            resource: "pods".into(),
            namespace: namespace.map(str::to_owned),
        };
        assert_eq!(right_words(&right("", Some("a"))), "list pods in a");
        assert_eq!(right_words(&right("x.io", None)), "list pods.x.io");
    }
}
