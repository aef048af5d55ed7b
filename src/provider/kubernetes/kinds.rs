//! What an API server serves: groups, versions, kinds and their resources. Asked anew for each reading, because a CRD can
//! come or go at any time.

use super::client::{Ask, Connection, escaped};
use super::error::{Fault, FaultKind};
use crate::model::ObjectRef;
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// A kind of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// `subscriptions`.
    pub plural: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

/// What is served, by `apiVersion` and kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds {
    by_version: BTreeMap<String, BTreeMap<String, Resource>>,
    /// Groups that the server knows, with their versions, the preferred one first.
    groups: BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GroupList {
    groups: Vec<Group>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Group {
    name: String,
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version {
    version: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourceList {
    resources: Vec<ResourceEntry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourceEntry {
    name: String,
    kind: String,
    namespaced: bool,
}

impl Kinds {
    /// Asks for these groups.
    pub async fn of(connection: &Connection, wanted: &[&str], deadline: Instant) -> Result<Self, Fault> {
        let answer = connection.ask::<GroupList>(Ask::get("list the API groups", "/apis"), deadline).await?;
        let mut kinds = Self::default();
        kinds.groups.insert(String::new(), vec!["v1".into()]);
        for group in answer.value.groups {
            let preferred = group.preferred_version.map(|v| v.version);
            let others = group.versions.into_iter().map(|v| v.version).filter(|v| Some(v) != preferred.as_ref());
            let versions = preferred.clone().into_iter().chain(others).collect();
            kinds.groups.insert(group.name, versions);
        }
        for group in wanted {
            for version in kinds.groups.get(*group).cloned().unwrap_or_default() {
                let api_version = if group.is_empty() { version } else { format!("{group}/{version}") };
                kinds.look_up(connection, &api_version, deadline).await?;
            }
        }
        Ok(kinds)
    }

    /// Asks for the kinds of one version; a version that is not there has none.
    async fn look_up(&mut self, connection: &Connection, api_version: &str, deadline: Instant) -> Result<(), Fault> {
        let during = format!("list the kinds of {api_version}");
        let path = base(api_version);
        let found = match connection.ask::<ResourceList>(Ask::get(&during, path), deadline).await {
            Ok(answer) => answer.value.resources,
            Err(fault) if fault.kind == FaultKind::NotFound => Vec::new(),
            Err(fault) => return Err(fault),
        };
        // `pods/log` and its like are parts of a resource.
        let found = found.into_iter().filter(|r| !r.name.contains('/'));
        let by_kind = found.map(|r| (r.kind, Resource { plural: r.name, namespaced: r.namespaced })).collect();
        self.by_version.insert(api_version.to_owned(), by_kind);
        Ok(())
    }

    /// A kind of a version, where it is served.
    pub fn get(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.by_version.get(api_version)?.get(kind)
    }

    /// The first of these versions of a group that serves a kind, as `apiVersion`.
    pub fn first(&self, group: &str, versions: &[&str], kind: &str) -> Option<(String, &Resource)> {
        versions.iter().find_map(|version| {
            let api_version = if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
            let resource = self.get(&api_version, kind)?;
            Some((api_version, resource))
        })
    }

    /// Whether the server knows a group.
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// A version, as `apiVersion`, in which a resource of a group is served.
    pub fn version_of(&self, group: &str, plural: &str) -> Option<String> {
        let of_group = |api_version: &str| api_version.split_once('/').map_or(group.is_empty(), |(g, _)| g == group);
        let mut serving = self
            .by_version
            .iter()
            .filter(|(api_version, kinds)| of_group(api_version) && kinds.values().any(|r| r.plural == plural));
        serving.next().map(|(api_version, _)| api_version.clone())
    }

    /// All that is served, as `apiVersion/Kind`.
    pub fn all(&self) -> impl Iterator<Item = String> {
        self.by_version.iter().flat_map(|(version, kinds)| kinds.keys().map(move |kind| format!("{version}/{kind}")))
    }

    /// The kind of one object.
    pub async fn one(connection: &Connection, id: &ObjectRef, deadline: Instant) -> Result<Resource, Fault> {
        let mut kinds = Self::default();
        kinds.look_up(connection, &id.api_version, deadline).await.map_err(|f| f.of(Some(id)))?;
        kinds.get(&id.api_version, &id.kind).cloned().ok_or_else(|| not_served(&connection.cluster, id))
    }
}

/// The fault of a kind that a cluster does not have.
pub(super) fn not_served(cluster: &str, id: &ObjectRef) -> Fault {
    let why = format!("the cluster does not serve {} of {}", id.kind, id.api_version);
    Fault::new(cluster, "find", FaultKind::NotServed, why)
        .of(Some(id))
        .hint("its CustomResourceDefinition is not there, or not established: install what brings it first")
}

/// The path of a version.
fn base(api_version: &str) -> String {
    let parts: Vec<String> = api_version.split('/').map(escaped).collect();
    let root = if parts.len() > 1 { "/apis" } else { "/api" };
    format!("{root}/{}", parts.join("/"))
}

/// The path of a resource's collection.
pub(super) fn collection(api_version: &str, plural: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("{}/namespaces/{}/{}", base(api_version), escaped(namespace), escaped(plural)),
        None => format!("{}/{}", base(api_version), escaped(plural)),
    }
}

/// The path of an object.
pub(super) fn path(id: &ObjectRef, resource: &Resource) -> String {
    let namespace = id.namespace.as_deref().filter(|_| resource.namespaced);
    format!("{}/{}", collection(&id.api_version, &resource.plural, namespace), escaped(&id.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let pods = Resource { plural: "pods".into(), namespaced: true };
        assert_eq!(path(&ObjectRef::new("v1", "Pod", "a", "b"), &pods), "/api/v1/namespaces/a/pods/b");
        let roles = Resource { plural: "clusterroles".into(), namespaced: false };
        let id = ObjectRef::cluster_wide("rbac.authorization.k8s.io/v1", "ClusterRole", "system:x");
        assert_eq!(path(&id, &roles), "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Ax");
        let namespaces = Resource { plural: "namespaces".into(), namespaced: false };
        let id = ObjectRef::cluster_wide("v1", "Namespace", "../x");
        assert_eq!(path(&id, &namespaces), "/api/v1/namespaces/..%2Fx");
    }
}
