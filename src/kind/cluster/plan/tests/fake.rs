//! API servers in memory, as far as plans need them: server-side apply with field managers and conflicts, dry runs, JSON
//! patches, finalizers; and, played after each write, what OLM, the operators and MTC's controllers do. Pure and at once.

use crate::action::{Action, ClusterAction, Until};
use crate::kind::cluster::objects::{FIELD_MANAGER, NAMESPACE};
use crate::model::{ObjectRef, SecretSource};
use crate::observed::{
    ClusterAnswer, ClusterQuestion, ClusterState, CrdState, FieldConflict, NamespaceState, ObjectState, Right,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

const MTC_KINDS: &[&str] =
    &["MigrationController", "MigCluster", "MigStorage", "MigPlan", "MigMigration", "MigHook", "MigAnalytic"];
const VELERO_KINDS: &[&str] = &["Backup", "Restore", "BackupStorageLocation"];
const OLM: &str = "operators.coreos.com/v1alpha1";
const MTC: &str = "migration.openshift.io/v1alpha1";

#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub value: Value,
    uid: String,
    owned: BTreeMap<String, BTreeSet<String>>,
    pub finalizers: Vec<String>,
    deleting: bool,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct Server {
    pub platform: String,
    pub uid: String,
    pub objects: BTreeMap<ObjectRef, Stored>,
    pub denied: Vec<Right>,
    /// What webhooks and schemas refuse: kinds.
    pub refuses: Option<String>,
    pub mtc_version: String,
    /// Whether the control cluster gets through to it.
    pub reachable: bool,
    writes: u64,
}

impl Server {
    pub fn new(platform: &str, uid: &str) -> Self {
        let mut server = Self {
            platform: platform.into(),
            uid: uid.into(),
            objects: BTreeMap::new(),
            denied: Vec::new(),
            refuses: None,
            mtc_version: "1.7.4".into(),
            reachable: true,
            writes: 0,
        };
        for name in ["kube-system", "default", "openshift-config"] {
            server.put("test", ObjectRef::cluster_wide("v1", "Namespace", name), json!({}));
        }
        server
    }

    fn is_modern(&self) -> bool {
        self.platform.parse::<crate::kind::cluster::Platform>().is_ok_and(|p| !p.is_legacy())
    }

    fn serves(&self, id: &ObjectRef) -> bool {
        let has = |suffix: &str| {
            self.objects.keys().any(|o| o.kind == "CustomResourceDefinition" && o.name.ends_with(suffix))
        };
        match id.group() {
            "operators.coreos.com" => self.is_modern(),
            "migration.openshift.io" => has(&format!("{}s.migration.openshift.io", id.kind.to_lowercase())),
            "velero.io" => has(".velero.io"),
            _ => true,
        }
    }

    /// Another hand writes fields: all of them are its own.
    pub fn put(&mut self, manager: &str, id: ObjectRef, fields: Value) {
        self.merge(manager, &id, &fields);
    }

    fn merge(&mut self, manager: &str, id: &ObjectRef, fields: &Value) {
        self.writes += 1;
        let uid = format!("{}-{}", id.name, self.writes);
        let stored = self.objects.entry(id.clone()).or_insert_with(|| {
            let mut metadata = json!({"name": id.name});
            if let Some(namespace) = &id.namespace {
                metadata["namespace"] = json!(namespace);
            }
            let value = json!({"apiVersion": id.api_version, "kind": id.kind, "metadata": metadata});
            Stored { value, uid, ..Stored::default() }
        });
        for (path, value) in flat(fields) {
            set(&mut stored.value, &path, value);
            for (other, paths) in &mut stored.owned {
                if other != manager {
                    paths.remove(&path.join("."));
                }
            }
            stored.owned.entry(manager.into()).or_default().insert(path.join("."));
        }
    }

    pub fn state(&self) -> ClusterState {
        let mut state = ClusterState {
            uid: self.uid.clone(),
            server: format!("https://api.{}.example.com:6443", self.uid),
            version: "v1.23.5".into(),
            platform: self.platform.clone(),
            denied: self.denied.clone(),
            ..ClusterState::default()
        };
        state.served.insert("apiextensions.k8s.io/v1/CustomResourceDefinition".into());
        for (api, kinds) in [
            (OLM, &["Subscription", "ClusterServiceVersion", "InstallPlan"][..]),
            ("operators.coreos.com/v1", &["OperatorGroup"]),
            (MTC, MTC_KINDS),
        ] {
            for kind in kinds.iter().filter(|k| self.serves(&ObjectRef::cluster_wide(api, k, "x"))) {
                state.served.insert(format!("{api}/{kind}"));
            }
        }
        for (id, stored) in &self.objects {
            match id.kind.as_str() {
                "Namespace" => {
                    let labels = stored.value.pointer("/metadata/labels").cloned().unwrap_or(json!({}));
                    let namespace = NamespaceState {
                        uid: stored.uid.clone(),
                        terminating: stored.deleting.then(|| "2026-11-22T00:00:00Z".into()),
                        remaining: if stored.deleting {
                            vec!["backups.velero.io has 1 resource instances".into()]
                        } else {
                            Vec::new()
                        },
                        labels: serde_json::from_value(labels).unwrap(),
                    };
                    state.namespaces.insert(id.name.clone(), namespace);
                    continue;
                }
                "CustomResourceDefinition" => {
                    let (plural, group) = id.name.split_once('.').unwrap();
                    let of_it = |o: &&ObjectRef| o.group() == group && format!("{}s", o.kind.to_lowercase()) == plural;
                    let instances = Some(self.objects.keys().filter(of_it).count() as u64);
                    state
                        .crds
                        .insert(id.name.clone(), CrdState { uid: stored.uid.clone(), established: true, instances });
                }
                _ => {}
            }
            state.objects.push(ObjectState {
                id: id.clone(),
                uid: stored.uid.clone(),
                resource_version: "1".into(),
                deleting: stored.deleting,
                finalizers: stored.finalizers.clone(),
                managers: stored.owned.clone(),
                value: redacted(id, &stored.value),
            });
        }
        state.objects.sort_by(|a, b| a.id.cmp(&b.id));
        state
    }

    pub fn ask(&self, question: &ClusterQuestion) -> ClusterAnswer {
        match question {
            ClusterQuestion::Apply { id, object, force } => {
                if self.refuses.as_deref() == Some(&id.kind) {
                    return ClusterAnswer::Refused("admission webhook \"no.example.com\" denied the request".into());
                }
                let mut copy = self.clone();
                match copy.apply(id, object, *force, &BTreeMap::new()) {
                    Ok(()) => ClusterAnswer::WouldBe(redacted(id, &copy.objects[id].value)),
                    Err(conflicts) => ClusterAnswer::Conflict(conflicts),
                }
            }
            ClusterQuestion::Secrets { id, values } => {
                let there = self.objects.get(id).map(|o| &o.value);
                let same = |pointer: &str, source: &SecretSource| {
                    there.and_then(|v| v.pointer(pointer)) == Some(&json!(format!("value of {source:?}")))
                };
                ClusterAnswer::Same(values.iter().map(|(p, s)| (p.clone(), same(p, s))).collect())
            }
        }
    }

    fn apply(
        &mut self,
        id: &ObjectRef,
        object: &Value,
        force: bool,
        secrets: &BTreeMap<String, SecretSource>,
    ) -> Result<(), Vec<FieldConflict>> {
        assert!(self.serves(id), "{id} is not served");
        let home = id.namespace.as_ref().map(|n| ObjectRef::cluster_wide("v1", "Namespace", n));
        assert!(home.is_none_or(|h| self.objects.contains_key(&h)), "{id} has no namespace");
        let mut fields = object.clone();
        for (pointer, source) in secrets {
            let path: Vec<String> = pointer.split('/').skip(1).map(str::to_owned).collect();
            set(&mut fields, &path, json!(format!("value of {source:?}")));
        }
        for key in ["apiVersion", "kind"] {
            fields.as_object_mut().unwrap().remove(key);
        }
        for key in ["name", "namespace"] {
            fields["metadata"].as_object_mut().unwrap().remove(key);
        }
        let new: BTreeMap<Vec<String>, Value> = flat(&fields).into_iter().collect();
        if let Some(stored) = self.objects.get(id) {
            let mut conflicts = Vec::new();
            for (path, value) in &new {
                let dotted = path.join(".");
                if get(&stored.value, path) == Some(value) {
                    continue;
                }
                for (manager, _) in stored.owned.iter().filter(|(m, p)| *m != FIELD_MANAGER && p.contains(&dotted)) {
                    conflicts.push(FieldConflict { manager: manager.clone(), field: format!(".{dotted}") });
                }
            }
            if !conflicts.is_empty() && !force {
                return Err(conflicts);
            }
        }
        self.writes += 1;
        let owned: BTreeSet<String> = new.keys().map(|p| p.join(".")).collect();
        let shared: BTreeMap<String, BTreeSet<String>> = match self.objects.get(id) {
            Some(stored) => {
                let same = |p: &String| get(&stored.value, &dots(p)) == new.get(&dots(p));
                stored
                    .owned
                    .iter()
                    .map(|(m, p)| (m.clone(), p.iter().filter(|p| !owned.contains(*p) || same(p)).cloned().collect()))
                    .collect()
            }
            None => BTreeMap::new(),
        };
        self.merge(FIELD_MANAGER, id, &fields);
        let stored = self.objects.get_mut(id).unwrap();
        let before = shared.get(FIELD_MANAGER).cloned().unwrap_or_default();
        stored.owned = shared;
        stored.owned.insert(FIELD_MANAGER.into(), owned.clone());
        for path in before.difference(&owned) {
            if !stored.owned.iter().any(|(m, p)| m != FIELD_MANAGER && p.contains(path)) {
                unset(&mut stored.value, &dots(path));
            }
        }
        Ok(())
    }

    fn delete(&mut self, id: &ObjectRef) {
        let Some(stored) = self.objects.get_mut(id) else { return };
        if !stored.finalizers.is_empty() {
            stored.deleting = true;
            return;
        }
        match id.kind.as_str() {
            "Namespace" => {
                let is_in = |o: &ObjectRef| o.namespace.as_ref() == Some(&id.name);
                if self.objects.iter().any(|(o, s)| is_in(o) && !s.finalizers.is_empty()) {
                    self.objects.get_mut(id).unwrap().deleting = true;
                    return;
                }
                self.objects.retain(|o, _| !is_in(o));
            }
            "CustomResourceDefinition" => {
                let (plural, group) = id.name.split_once('.').unwrap();
                self.objects.retain(|o, _| o.group() != group || format!("{}s", o.kind.to_lowercase()) != plural);
            }
            _ => {}
        }
        self.objects.remove(id);
    }
}

/// Clusters by name.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    pub servers: BTreeMap<String, Server>,
}

impl Fake {
    pub fn on(&mut self, cluster: &str) -> &mut Server {
        self.servers.get_mut(cluster).unwrap()
    }

    /// Does what a step says. Panics where a real server would refuse, and where a wait would not end.
    pub fn act(&mut self, action: &Action) {
        let Action::Cluster(action) = action else { panic!("{action:?}") };
        let server = self.servers.get_mut(action.cluster()).unwrap();
        match action {
            ClusterAction::ApplyObject { id, object, force, secrets, .. } => {
                server.apply(id, object, *force, secrets).unwrap_or_else(|c| panic!("{id}: {c:?}"));
            }
            ClusterAction::CreateObject { id, object, .. } => {
                if !server.objects.contains_key(id) {
                    server.apply(id, object, false, &BTreeMap::new()).unwrap();
                }
            }
            ClusterAction::PatchObject { id, patch, .. } => {
                let stored = server.objects.get_mut(id).unwrap();
                for op in patch {
                    let path: Vec<String> =
                        op["path"].as_str().unwrap().split('/').skip(1).map(|p| p.replace("~1", "/")).collect();
                    match op["op"].as_str().unwrap() {
                        "test" => assert_eq!(get(&stored.value, &path), Some(&op["value"]), "{op}"),
                        "remove" => unset(&mut stored.value, &path),
                        _ => set(&mut stored.value, &path, op["value"].clone()),
                    }
                }
            }
            ClusterAction::ApproveInstallPlan { csv, .. } => {
                let is_it = |v: &Value| {
                    v["spec"]["clusterServiceVersionNames"].as_array().is_some_and(|n| n.contains(&json!(csv)))
                };
                let plan = server.objects.iter_mut().find(|(id, s)| id.kind == "InstallPlan" && is_it(&s.value));
                plan.unwrap_or_else(|| panic!("no InstallPlan of {csv}")).1.value["spec"]["approved"] = json!(true);
            }
            ClusterAction::DeleteObject { id, uid, .. } => {
                if let Some(stored) = server.objects.get(id) {
                    assert_eq!(stored.uid, *uid, "another {id} than the one that was observed");
                    server.delete(id);
                }
            }
            ClusterAction::AwaitObject { id, until, .. } => {
                let there = server.objects.get(id);
                let is = |c: &str| {
                    let conditions = there.and_then(|s| s.value.pointer("/status/conditions")?.as_array().cloned());
                    conditions.unwrap_or_default().iter().any(|k| k["type"] == c && k["status"] == "True")
                };
                let done = match until {
                    Until::Exists => there.is_some(),
                    Until::Gone => there.is_none(),
                    Until::Condition { .. } if id.kind == "CustomResourceDefinition" => there.is_some(),
                    Until::Condition { name, .. } => is(name),
                    Until::Installed => there.is_some_and(|s| s.value.pointer("/status/installedCSV").is_some()),
                    Until::Available => there.is_some_and(|s| {
                        s.value["status"]["numberReady"] == 1 || s.value["status"]["availableReplicas"] == 1
                    }),
                };
                assert!(done, "it would wait for ever: {id} {until:?}");
            }
        }
        self.play();
    }

    /// OLM, operators and controllers, until nothing is new.
    pub fn play(&mut self) {
        for _ in 0..6 {
            for server in self.servers.values_mut() {
                server.play();
            }
            let reach: BTreeMap<String, bool> = self.servers.iter().map(|(n, s)| (n.clone(), s.reachable)).collect();
            for server in self.servers.values_mut() {
                server.play_clusters(&reach);
            }
        }
    }
}

impl Server {
    fn here(&self, api: &str, kind: &str) -> Vec<ObjectRef> {
        self.objects
            .keys()
            .filter(|o| o.api_version == api && o.kind == kind && o.namespace.as_deref() == Some(NAMESPACE))
            .cloned()
            .collect()
    }

    fn make(&mut self, id: ObjectRef, fields: Value) {
        if !self.objects.contains_key(&id) {
            self.merge("operators", &id, &fields);
        }
    }

    fn workload(&mut self, kind: &str, name: &str) {
        let status = match kind {
            "DaemonSet" => json!({"desiredNumberScheduled": 1, "numberReady": 1}),
            _ => json!({"availableReplicas": 1}),
        };
        let id = ObjectRef::new("apps/v1", kind, NAMESPACE, name);
        self.make(id.clone(), json!({"spec": {"replicas": 1}}));
        self.objects.get_mut(&id).unwrap().value["status"] = status;
    }

    fn define(&mut self, kinds: &[&str], group: &str) {
        for kind in kinds {
            let name = format!("{}s.{group}", kind.to_lowercase());
            self.make(
                ObjectRef::cluster_wide("apiextensions.k8s.io/v1", "CustomResourceDefinition", &name),
                json!({"spec": {"group": group}}),
            );
        }
    }

    fn play(&mut self) {
        for id in self.here(OLM, "Subscription") {
            let value = self.objects[&id].value.clone();
            let package = value["spec"]["name"].as_str().unwrap().to_owned();
            if package != "mtc-operator" {
                continue;
            }
            let csv = format!("{package}.v{}", self.mtc_version);
            let plan = ObjectRef::new(OLM, "InstallPlan", NAMESPACE, &format!("install-{}", self.mtc_version));
            let manual = value["spec"]["installPlanApproval"] == "Manual";
            self.make(
                plan.clone(),
                json!({"spec": {"approved": !manual, "clusterServiceVersionNames": [csv, "oadp-operator.v1.0.3"]}}),
            );
            if self.objects[&plan].value["spec"]["approved"] != true {
                continue;
            }
            self.make(
                ObjectRef::new(OLM, "Subscription", NAMESPACE, "redhat-oadp-operator-stable-1.0"),
                json!({"spec": {"name": "redhat-oadp-operator"}}),
            );
            let oadp = ObjectRef::new(OLM, "Subscription", NAMESPACE, "redhat-oadp-operator-stable-1.0");
            for (subscription, csv) in [(id, csv.as_str()), (oadp, "oadp-operator.v1.0.3")] {
                let version = ObjectRef::new(OLM, "ClusterServiceVersion", NAMESPACE, csv);
                self.make(version, json!({"status": {"phase": "Succeeded"}}));
                let status = json!({"state": "AtLatestKnown", "installedCSV": csv});
                self.objects.get_mut(&subscription).unwrap().value["status"] = status;
            }
            self.define(MTC_KINDS, "migration.openshift.io");
            self.define(VELERO_KINDS, "velero.io");
        }
        let csvs = self.here(OLM, "ClusterServiceVersion");
        let operator = ObjectRef::new("apps/v1", "Deployment", NAMESPACE, "migration-operator");
        if csvs.iter().any(|c| c.name.starts_with("mtc-operator")) {
            self.workload("Deployment", "migration-operator");
        } else if self.is_modern() {
            self.objects.remove(&operator);
        } else if self.objects.contains_key(&operator) {
            self.workload("Deployment", "migration-operator");
        }
        if !self.objects.contains_key(&operator) {
            return;
        }
        let controllers = self.here(MTC, "MigrationController");
        let Some(id) = controllers.first().cloned() else {
            for (kind, name) in [
                ("Deployment", "velero"),
                ("Deployment", "migration-log-reader"),
                ("Deployment", "migration-controller"),
                ("Deployment", "migration-ui"),
                ("DaemonSet", "restic"),
            ] {
                self.objects.remove(&ObjectRef::new("apps/v1", kind, NAMESPACE, name));
            }
            return;
        };
        self.define(VELERO_KINDS, "velero.io");
        let spec = self.objects[&id].value["spec"].clone();
        self.workload("Deployment", "velero");
        self.workload("DaemonSet", "restic");
        self.workload("Deployment", "migration-log-reader");
        self.make(
            ObjectRef::new("v1", "ServiceAccount", NAMESPACE, "migration-controller"),
            json!({"metadata": {"labels": {"by": "operator"}}}),
        );
        let version = self.mtc_version.clone();
        self.make(
            ObjectRef::new("v1", "ConfigMap", NAMESPACE, "migration-cluster-config"),
            json!({"data": {"OPERATOR_VERSION": version}}),
        );
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            for name in
                ["migration-controller", "migplans.migration.openshift.io-v1-admin", "backups.velero.io-v1-admin"]
            {
                self.make(ObjectRef::cluster_wide("rbac.authorization.k8s.io/v1", kind, name), json!({"x": "y"}));
            }
        }
        for (name, variable) in [("migration-controller", "migration_controller"), ("migration-ui", "migration_ui")] {
            match spec[variable] == true {
                true => self.workload("Deployment", name),
                false => drop(self.objects.remove(&ObjectRef::new("apps/v1", "Deployment", NAMESPACE, name))),
            }
        }
        if self.is_modern() {
            self.merge("operator", &id, &json!({"spec": {"version": version}}));
            let conditions = json!([{"type": "Running", "status": "True", "reason": "Successful"}, {"type": "Successful", "status": "True"}]);
            self.objects.get_mut(&id).unwrap().value["status"] = json!({"conditions": conditions});
        }
        if spec["migration_controller"] == true {
            let host = ObjectRef::new(MTC, "MigCluster", NAMESPACE, "host");
            self.make(host, json!({"spec": {"isHostCluster": true}}));
        }
        for id in self.here("v1", "Secret") {
            if self.objects[&id].value["type"] == "kubernetes.io/service-account-token" {
                self.merge("tokens", &id, &json!({"data": {"token": "dG9rZW4="}}));
            }
        }
    }

    fn play_clusters(&mut self, reach: &BTreeMap<String, bool>) {
        if !self.objects.contains_key(&ObjectRef::new("apps/v1", "Deployment", NAMESPACE, "migration-controller")) {
            return;
        }
        for id in self.here(MTC, "MigCluster") {
            let value = self.objects[&id].value.clone();
            let secret = &value["spec"]["serviceAccountSecretRef"];
            let token = match (secret["namespace"].as_str(), secret["name"].as_str()) {
                (Some(namespace), Some(name)) => self.objects.get(&ObjectRef::new("v1", "Secret", namespace, name)),
                _ => None,
            };
            let is_host = value["spec"]["isHostCluster"] == true;
            let condition = if !is_host && token.is_none_or(|t| t.value.pointer("/data/saToken").is_none()) {
                json!({"type": "InvalidSaSecretRef", "status": "True", "category": "Critical", "reason": "NotFound", "message": "no secret"})
            } else if !is_host && reach.get(&id.name) == Some(&false) {
                json!({"type": "TestConnectFailed", "status": "True", "category": "Critical", "reason": "ConnectFailed", "message": "dial tcp: i/o timeout"})
            } else {
                json!({"type": "Ready", "status": "True", "category": "Required"})
            };
            self.merge("mig-controller", &id, &json!({"spec": {"refresh": false}}));
            self.objects.get_mut(&id).unwrap().value["status"] = json!({"conditions": [condition]});
        }
        for id in self.here(MTC, "MigPlan") {
            let stored = self.objects.get_mut(&id).unwrap();
            if stored.value["spec"]["closed"] == true {
                stored.value["status"] = json!({"conditions": [{"type": "Closed", "status": "True"}]});
            }
        }
    }
}

fn redacted(id: &ObjectRef, value: &Value) -> Value {
    let mut value = value.clone();
    if id.kind == "Secret"
        && let Some(data) = value.get_mut("data").and_then(Value::as_object_mut)
    {
        data.values_mut().for_each(|v| *v = json!(""));
    }
    if value.pointer("/spec/stunnel_tcp_proxy").is_some() {
        value["spec"]["stunnel_tcp_proxy"] = json!("");
    }
    if id.kind == "MigCluster" && value.pointer("/spec/caBundle").is_some() {
        value["spec"]["caBundle"] = json!("");
    }
    value
}

fn dots(path: &str) -> Vec<String> {
    // The only keys with dots are those of labels and annotations.
    for prefix in ["metadata.labels.", "metadata.annotations."] {
        if let Some(key) = path.strip_prefix(prefix) {
            return prefix.split('.').filter(|p| !p.is_empty()).map(str::to_owned).chain([key.to_owned()]).collect();
        }
    }
    path.split('.').map(str::to_owned).collect()
}

fn flat(value: &Value) -> Vec<(Vec<String>, Value)> {
    fn go(value: &Value, path: &mut Vec<String>, out: &mut Vec<(Vec<String>, Value)>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (k, v) in map {
                    path.push(k.clone());
                    go(v, path, out);
                    path.pop();
                }
            }
            Value::Object(_) if path.len() < 2 => {}
            v => out.push((path.clone(), v.clone())),
        }
    }
    let mut out = Vec::new();
    go(value, &mut Vec::new(), &mut out);
    out
}

fn get<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, p| v.get(p))
}

fn set(value: &mut Value, path: &[String], to: Value) {
    let Some((first, rest)) = path.split_first() else {
        *value = to;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    set(value.as_object_mut().unwrap().entry(first.clone()).or_insert(Value::Null), rest, to);
}

fn unset(value: &mut Value, path: &[String]) {
    if let Some((last, parents)) = path.split_last()
        && let Some(map) = parents.iter().try_fold(value, |v, p| v.get_mut(p)).and_then(Value::as_object_mut)
    {
        map.remove(last);
    }
}
