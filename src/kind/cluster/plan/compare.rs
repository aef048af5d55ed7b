//! What is wanted of an object against what is there. With a server's answer (a dry run of the apply, so that defaults and
//! webhooks have had their say) its word counts; without one, what is wanted has to be among what is there.

use super::scene::{Scene, find};
use super::want::{Want, owner_of};
use crate::kind::cluster::objects::{FIELD_MANAGER, FLEET_LABEL, OWNER_LABEL};
use crate::model::ObjectRef;
use crate::observed::{ClusterAnswer, ClusterState, FieldConflict, ObjectState, Reading};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What stands for a value that is not shown.
pub(super) const HIDDEN: &str = "(secret)";

/// One field of an object that differs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldChange {
    /// Below the object: `spec.channel`.
    pub path: String,
    pub before: Value,
    pub after: Value,
}

/// How an object differs from what is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compared {
    /// Whether it is there at all.
    pub exists: bool,
    /// What would change; nothing where all is as it should be.
    pub changes: Vec<FieldChange>,
    /// Why it cannot be changed as it is.
    pub obstacle: Option<Obstacle>,
    /// Secret values of which it is not known whether they are there.
    pub unsure: bool,
    /// Whether fields that people have set by hand are to be taken back.
    pub by_hand: bool,
}

/// Why an object cannot be brought to what is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Obstacle {
    /// Fields are somebody else's.
    Conflict(Vec<FieldConflict>),
    /// The server does not take it.
    Refused(String),
    /// It is being deleted; its finalizers.
    Going(Vec<String>),
    /// It belongs to another fleet.
    Foreign(String),
}

impl Compared {
    /// Whether there is something to do.
    pub fn differs(&self) -> bool {
        !self.exists || !self.changes.is_empty()
    }

    /// What is to become of conflicts: what a person has changed by hand on an object of ours is drift, and is put back; the
    /// fields of other managers are theirs.
    fn settle(&mut self, conflicts: Vec<FieldConflict>, want: &Want, value: &Value, scene: &Scene<'_>) {
        if conflicts.is_empty() || want.force {
            return;
        }
        let is_ours = owner_of(value).is_some_and(|(fleet, _)| fleet == scene.resources.fleet());
        match is_ours && conflicts.iter().all(|c| is_by_hand(&c.manager)) {
            true => self.by_hand = true,
            false => self.obstacle = Some(Obstacle::Conflict(conflicts)),
        }
    }

    fn same() -> Self {
        Self { exists: true, changes: Vec::new(), obstacle: None, unsure: false, by_hand: false }
    }
}

/// Whether a field manager is what people change an object with by hand: `kubectl edit` and `oc edit`, `patch` and the like,
/// and OpenShift's console, whose manager is its user agent. `kubectl apply` is not: a pipeline calls it, too.
fn is_by_hand(manager: &str) -> bool {
    let verbs = ["edit", "patch", "replace", "set", "label", "annotate", "scale"];
    manager.strip_prefix("kubectl-").is_some_and(|verb| verbs.contains(&verb)) || manager.starts_with("Mozilla")
}

/// How an object is named in fields: `Subscription[openshift-migration/mtc-operator]`.
pub(super) fn name(id: &ObjectRef) -> String {
    match &id.namespace {
        Some(namespace) => format!("{}[{namespace}/{}]", id.kind, id.name),
        None => format!("{}[{}]", id.kind, id.name),
    }
}

/// Compares.
pub(super) fn compare(want: &Want, state: &ClusterState, scene: &Scene<'_>) -> Compared {
    let there = known(want, state);
    let answer = match state.answer_to(&want.question()) {
        Some(Reading::Present(answer)) => Some(answer),
        Some(Reading::Unknown { .. }) | None => None,
    };
    let Some(there) = there else {
        let obstacle = match answer {
            Some(ClusterAnswer::Refused(why)) => Some(Obstacle::Refused(why.clone())),
            _ => None,
        };
        let mut changes = Vec::new();
        leaves(&shown(&want.value), &mut Vec::new(), &mut |path, value| {
            changes.push(FieldChange { path: written(path), before: Value::Null, after: value.clone() });
        });
        changes.extend(want.secrets.keys().map(|pointer| FieldChange {
            path: pointer.trim_start_matches('/').replace('/', "."),
            before: Value::Null,
            after: json!(HIDDEN),
        }));
        return Compared { exists: false, changes, obstacle, ..Compared::same() };
    };
    let There { value, deleting, object } = there;
    if deleting {
        let finalizers = object.map(|o| o.finalizers.clone()).unwrap_or_default();
        return Compared { exists: false, obstacle: Some(Obstacle::Going(finalizers)), ..Compared::same() };
    }
    if want.create_only || value.is_null() {
        return Compared::same();
    }
    if let Some((fleet, resource)) = owner_of(&value)
        && fleet != scene.resources.fleet()
    {
        let obstacle = Some(Obstacle::Foreign(format!("`{resource}` of the fleet `{fleet}`")));
        return Compared { obstacle, ..Compared::same() };
    }
    let mut compared = Compared::same();
    let owned = object.map(owned_paths).unwrap_or_default();
    let mut changes = match answer {
        Some(ClusterAnswer::WouldBe(after)) => by_server(want, &value, after, &owned),
        Some(ClusterAnswer::Conflict(conflicts)) => {
            let changes = by_hand(want, &value, &owned);
            compared.settle(conflicts.clone(), want, &value, scene);
            changes
        }
        Some(ClusterAnswer::Refused(why)) => {
            let changes = by_hand(want, &value, &owned);
            compared.obstacle = (!changes.is_empty()).then(|| Obstacle::Refused(why.clone()));
            changes
        }
        Some(ClusterAnswer::Same(_)) | None => {
            let changes = by_hand(want, &value, &owned);
            let conflicts = object.map(|o| conflicts(&changes, o)).unwrap_or_default();
            compared.settle(conflicts, want, &value, scene);
            changes
        }
    };
    // Nothing of it is Drover's yet and it is what it should be: it stays as it is, without marks.
    if owner_of(&value).is_none() && changes.iter().all(|c| is_mark(&c.path)) {
        changes.clear();
    }
    secrets(want, state, &value, &mut changes, &mut compared.unsure);
    compared.changes = changes;
    compared
}

/// An object as far as it is known.
struct There<'a> {
    value: Value,
    deleting: bool,
    object: Option<&'a ObjectState>,
}

/// What is there. Of namespaces and definitions there is less to see than of other objects; a definition's content is
/// not compared then (`value` is null).
fn known<'a>(want: &Want, state: &'a ClusterState) -> Option<There<'a>> {
    if let Some(object) = find(state, &want.id) {
        return Some(There { value: object.value.clone(), deleting: object.deleting, object: Some(object) });
    }
    match want.id.kind.as_str() {
        "Namespace" => state.namespaces.get(&want.id.name).map(|n| There {
            value: json!({"metadata": {"name": want.id.name, "labels": n.labels}}),
            deleting: n.terminating.is_some(),
            object: None,
        }),
        "CustomResourceDefinition" => {
            state.crds.get(&want.id.name).map(|_| There { value: Value::Null, deleting: false, object: None })
        }
        // One role binding shows in two groups on OpenShift.
        "RoleBinding" if want.create_only => {
            let same = |o: &&ObjectState| {
                o.id.kind == "RoleBinding" && o.id.name == want.id.name && o.id.namespace == want.id.namespace
            };
            let object = state.objects.iter().find(same)?;
            Some(There { value: object.value.clone(), deleting: object.deleting, object: Some(object) })
        }
        _ => None,
    }
}

/// What a dry run says would change. What is neither wanted nor Drover's is shown along, and is no reason by itself: a
/// webhook may write something new each time.
fn by_server(want: &Want, before: &Value, after: &Value, owned: &BTreeSet<String>) -> Vec<FieldChange> {
    let wanted = paths(&want.value);
    let mut changes = Vec::new();
    let mut reason = false;
    difference(&shown(before), &shown(after), &mut Vec::new(), &mut |path, before, after| {
        if is_secret(want, path) {
            // Values of secrets are not in a dry run; whether one goes is seen by what Drover set before.
            let dotted = path.join(".");
            if after.is_null() && !want.secrets.contains_key(&pointer(path)) && owned.contains(&dotted) {
                reason = true;
                changes.push(FieldChange { path: written(path), before: json!(HIDDEN), after: Value::Null });
            }
            return;
        }
        let dotted = path.join(".");
        reason |= touches(&wanted, &dotted) || touches(owned, &dotted);
        changes.push(FieldChange { path: written(path), before: before.clone(), after: after.clone() });
    });
    if reason { changes } else { Vec::new() }
}

/// What is wanted and not there, and what Drover has set and is not wanted any more.
fn by_hand(want: &Want, before: &Value, owned: &BTreeSet<String>) -> Vec<FieldChange> {
    let (before, wanted) = (shown(before), shown(&want.value));
    let mut changes = Vec::new();
    leaves(&wanted, &mut Vec::new(), &mut |path, value| {
        let there = at(&before, path).unwrap_or(&Value::Null);
        if !covers(there, value) {
            changes.push(FieldChange { path: written(path), before: there.clone(), after: value.clone() });
        }
    });
    let wanted = paths(&want.value);
    leaves(&before, &mut Vec::new(), &mut |path, value| {
        let dotted = path.join(".");
        if owned.contains(&dotted) && !touches(&wanted, &dotted) && !want.secrets.contains_key(&pointer(path)) {
            let before = if is_secret(want, path) { json!(HIDDEN) } else { value.clone() };
            changes.push(FieldChange { path: written(path), before, after: Value::Null });
        }
    });
    changes
}

/// Fields that are to be set, and that others have set and Drover has not.
fn conflicts(changes: &[FieldChange], there: &ObjectState) -> Vec<FieldConflict> {
    let mut found = Vec::new();
    for change in changes.iter().filter(|c| !c.before.is_null() && !c.after.is_null()) {
        let holds = |paths: &BTreeSet<String>| paths.iter().any(|p| plain(p) == change.path);
        if there.managers.get(FIELD_MANAGER).is_some_and(holds) {
            continue;
        }
        for (manager, _) in there.managers.iter().filter(|(m, p)| *m != FIELD_MANAGER && holds(p)) {
            found.push(FieldConflict { manager: manager.clone(), field: format!(".{}", change.path) });
        }
    }
    found
}

/// Whether secret values differ.
fn secrets(want: &Want, state: &ClusterState, there: &Value, changes: &mut Vec<FieldChange>, unsure: &mut bool) {
    let Some(question) = want.secrets_question() else { return };
    let said = match state.answer_to(&question) {
        Some(Reading::Present(ClusterAnswer::Same(said))) => said,
        _ => {
            // A value that is not even there is not there for certain.
            for pointer in want.secrets.keys() {
                match there.pointer(pointer) {
                    None => changes.push(hidden(pointer, Value::Null)),
                    Some(_) => *unsure = true,
                }
            }
            return;
        }
    };
    for pointer in want.secrets.keys().filter(|p| said.get(*p) != Some(&true)) {
        let before = if there.pointer(pointer).is_some() { json!(HIDDEN) } else { Value::Null };
        changes.push(hidden(pointer, before));
    }
}

fn hidden(pointer: &str, before: Value) -> FieldChange {
    let path = pointer.trim_start_matches('/').replace('/', ".");
    let after = if before.is_null() { HIDDEN.to_owned() } else { format!("{HIDDEN}, another one") };
    FieldChange { path, before, after: json!(after) }
}

/// Fields whose values are never shown.
fn is_secret(want: &Want, path: &[String]) -> bool {
    let pointer = pointer(path);
    want.secrets.contains_key(&pointer)
        || (want.id.kind == "Secret" && path.first().is_some_and(|p| p == "data" || p == "stringData"))
        || (want.id.kind == "MigrationController" && pointer == "/spec/stunnel_tcp_proxy")
}

fn pointer(path: &[String]) -> String {
    path.iter().map(|p| format!("/{}", p.replace('~', "~0").replace('/', "~1"))).collect()
}

/// A path as people write it; a key that has dots or slashes in it stands in quotes.
fn written(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if part.contains(['.', '/', '[']) {
            text += &format!("[\"{part}\"]");
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text += part;
        }
    }
    text
}

/// Whether a field is one of Drover's marks.
fn is_mark(path: &str) -> bool {
    [FLEET_LABEL, OWNER_LABEL].iter().any(|label| path == format!("metadata.labels[\"{label}\"]"))
}

/// The part of an object that is compared: fields that the server keeps by itself, and the status, are not.
fn shown(object: &Value) -> Value {
    let Some(map) = object.as_object() else { return Value::Null };
    let mut out = Map::new();
    for (key, value) in map {
        match key.as_str() {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                let kept: Map<String, Value> = ["labels", "annotations"]
                    .into_iter()
                    .filter_map(|k| Some((k.to_owned(), value.get(k)?.clone())))
                    .collect();
                out.insert(key.clone(), kept.into());
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    out.into()
}

/// Every field that is no mapping, with its path. Lists are one field: in custom resources they are replaced whole.
fn leaves(value: &Value, path: &mut Vec<String>, each: &mut impl FnMut(&[String], &Value)) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(key.clone());
                leaves(value, path, each);
                path.pop();
            }
        }
        Value::Object(_) if path.is_empty() => {}
        // `metadata` without labels says nothing.
        Value::Object(_) if path.len() == 1 && path[0] == "metadata" => {}
        leaf => each(path, leaf),
    }
}

/// Every field in which two values differ.
fn difference(before: &Value, after: &Value, path: &mut Vec<String>, each: &mut impl FnMut(&[String], &Value, &Value)) {
    match (before, after) {
        (Value::Object(b), Value::Object(a)) => {
            let added = a.keys().filter(|k| !b.contains_key(*k));
            for key in b.keys().chain(added) {
                let (before, after) = (b.get(key).unwrap_or(&Value::Null), a.get(key).unwrap_or(&Value::Null));
                path.push(key.clone());
                difference(before, after, path, each);
                path.pop();
            }
        }
        (b, a) if b == a || (is_empty(b) && is_empty(a)) => {}
        (Value::Null, Value::Object(map)) | (Value::Object(map), Value::Null) => {
            let is_new = before.is_null();
            for (key, value) in map {
                path.push(key.clone());
                match is_new {
                    true => difference(&Value::Null, value, path, each),
                    false => difference(value, &Value::Null, path, each),
                }
                path.pop();
            }
        }
        (b, a) => each(path, b, a),
    }
}

/// Nothing, an empty mapping or an empty list: the same to a server that leaves empty fields out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Whether what is there has all that is wanted: items of lists one by one, since servers fill defaults into them.
fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(t), Value::Object(w)) => w.iter().all(|(k, w)| covers(t.get(k).unwrap_or(&Value::Null), w)),
        (Value::Array(t), Value::Array(w)) => t.len() == w.len() && t.iter().zip(w).all(|(t, w)| covers(t, w)),
        (t, w) => t == w || (is_empty(t) && is_empty(w)),
    }
}

fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| value.get(part))
}

/// The dotted paths of an object's fields.
fn paths(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    leaves(&shown(value), &mut Vec::new(), &mut |path, _| {
        found.insert(path.join("."));
    });
    found
}

/// What Drover has set of an object, as dotted paths.
fn owned_paths(object: &ObjectState) -> BTreeSet<String> {
    object.managers.get(FIELD_MANAGER).into_iter().flatten().map(|p| plain(p).to_owned()).collect()
}

/// A dotted path without the dot in front.
fn plain(path: &str) -> &str {
    path.strip_prefix('.').unwrap_or(path)
}

/// Whether a path is one of these, or above or below one.
fn touches(paths: &BTreeSet<String>, path: &str) -> bool {
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
    paths.iter().any(|p| p == path || below(p, path) || below(path, p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::cluster::testing::clusters;
    use crate::model::{SecretRef, SecretSource};
    use crate::observed::{ClusterQuestion, Observed};
    use std::collections::BTreeMap;

    const API: &str = "operators.coreos.com/v1alpha1";

    fn want() -> Want {
        let id = ObjectRef::new(API, "Subscription", "openshift-migration", "mtc-operator");
        let value = json!({
            "apiVersion": API, "kind": "Subscription",
            "metadata": {
                "name": "mtc-operator", "namespace": "openshift-migration",
                "labels": {FLEET_LABEL: "default", OWNER_LABEL: "Cluster.c"},
            },
            "spec": {"name": "mtc-operator", "channel": "release-v1.8"},
        });
        Want { cluster: "c".into(), id, value, secrets: BTreeMap::new(), create_only: false, force: false }
    }

    fn with(change: impl FnOnce(&mut Value)) -> ObjectState {
        let mut value = want().value;
        value["metadata"]["resourceVersion"] = json!("7");
        value["status"] = json!({"state": "AtLatestKnown"});
        change(&mut value);
        ObjectState {
            id: want().id,
            uid: "u".into(),
            resource_version: "7".into(),
            deleting: false,
            finalizers: Vec::new(),
            managers: BTreeMap::new(),
            value,
        }
    }

    fn compared(want: &Want, objects: Vec<ObjectState>, answers: Vec<(ClusterQuestion, ClusterAnswer)>) -> Compared {
        let mut state = ClusterState { objects, ..ClusterState::default() };
        for (question, answer) in answers {
            state.answer(question, Reading::Present(answer));
        }
        let (resources, observed) = (clusters(&[]), Observed::empty(jiff::Timestamp::UNIX_EPOCH));
        compare(want, &state, &Scene { resources: &resources, observed: &observed })
    }

    fn fields(compared: &Compared) -> Vec<(&str, &Value, &Value)> {
        compared.changes.iter().map(|c| (c.path.as_str(), &c.before, &c.after)).collect()
    }

    fn owning(mut object: ObjectState, manager: &str, paths: &[&str]) -> ObjectState {
        object.managers.insert(manager.into(), paths.iter().map(|p| (*p).to_owned()).collect());
        object
    }

    #[test]
    fn what_is_wanted_has_to_be_among_what_is_there() {
        assert!(!compared(&want(), vec![with(|v| v["spec"]["config"] = json!({"a": 1}))], vec![]).differs());
        let other = with(|v| v["spec"]["channel"] = json!("release-v1.7"));
        let differs = compared(&want(), vec![other], vec![]);
        assert_eq!(fields(&differs), [("spec.channel", &json!("release-v1.7"), &json!("release-v1.8"))]);
        let absent = compared(&want(), vec![], vec![]);
        assert!(absent.differs() && !absent.exists);
    }

    #[test]
    fn what_drover_set_and_does_not_want_any_more_goes_and_what_others_set_stays() {
        let there = with(|v| {
            v["spec"]["startingCSV"] = json!("mtc-operator.v1.8.1");
            v["spec"]["config"] = json!({"resources": {"x": 1}});
        });
        let there = owning(there, FIELD_MANAGER, &[".spec.startingCSV", ".spec.channel", ".spec.name"]);
        let there = owning(there, "console", &[".spec.config.resources.x"]);
        let differs = compared(&want(), vec![there], vec![]);
        assert_eq!(fields(&differs), [("spec.startingCSV", &json!("mtc-operator.v1.8.1"), &Value::Null)]);
    }

    #[test]
    fn a_servers_answer_counts_with_its_defaults_and_webhooks() {
        let there = with(|v| v["spec"]["channel"] = json!("release-v1.7"));
        let mut after = there.value.clone();
        after["spec"]["channel"] = json!("release-v1.8");
        after["spec"]["defaulted"] = json!(5);
        let answer = ClusterAnswer::WouldBe(after);
        let differs = compared(&want(), vec![there.clone()], vec![(want().question(), answer)]);
        assert_eq!(
            differs.changes.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(),
            ["spec.channel", "spec.defaulted"]
        );
        // A webhook that puts the old channel back has its way, and no step tries in vain for ever.
        let answer = ClusterAnswer::WouldBe(there.value.clone());
        assert!(!compared(&want(), vec![there.clone()], vec![(want().question(), answer)]).differs());
        // One that stamps each write is no reason to write.
        let right = with(|_| {});
        let mut stamped = right.value.clone();
        stamped["metadata"]["annotations"] = json!({"stamp": "now"});
        let answer = ClusterAnswer::WouldBe(stamped);
        assert!(!compared(&want(), vec![right], vec![(want().question(), answer)]).differs());
    }

    #[test]
    fn a_conflict_names_the_other_manager() {
        let there = owning(with(|v| v["spec"]["channel"] = json!("release-v1.7")), "argocd", &[".spec.channel"]);
        let offline = compared(&want(), vec![there.clone()], vec![]);
        let conflict = FieldConflict { manager: "argocd".into(), field: ".spec.channel".into() };
        assert_eq!(offline.obstacle, Some(Obstacle::Conflict(vec![conflict.clone()])));
        let asked = ClusterAnswer::Conflict(vec![conflict]);
        let online = compared(&want(), vec![there.clone()], vec![(want().question(), asked)]);
        assert_eq!((&online.obstacle, online.changes.len()), (&offline.obstacle, 1));
        let forced = Want { force: true, ..want() };
        assert_eq!(compared(&forced, vec![there], vec![]).obstacle, None);
    }

    #[test]
    fn what_is_right_already_is_not_marked_and_what_is_anothers_is_not_touched() {
        let bare = with(|v| drop(v["metadata"].as_object_mut().unwrap().remove("labels")));
        assert!(!compared(&want(), vec![bare], vec![]).differs());
        let foreign = with(|v| v["metadata"]["labels"][FLEET_LABEL] = json!("other"));
        let found = compared(&want(), vec![foreign], vec![]);
        assert_eq!(found.obstacle, Some(Obstacle::Foreign("`Cluster.c` of the fleet `other`".into())));
        assert!(!found.differs());
    }

    #[test]
    fn secrets_are_compared_by_the_provider_and_never_shown() {
        let mut want = want();
        want.id.kind = "MigrationController".into();
        let proxy = "/spec/stunnel_tcp_proxy".to_owned();
        let secret = SecretSource::Ref(SecretRef::Env("P".into()));
        want.secrets.insert(proxy.clone(), secret);
        let mut there = with(|v| v["spec"]["stunnel_tcp_proxy"] = json!("http://u:hunter2@x"));
        there.id.kind = "MigrationController".into();
        let there = owning(there, FIELD_MANAGER, &[".spec.stunnel_tcp_proxy", ".spec.channel"]);
        let said = |same| {
            let question = want.secrets_question().unwrap();
            vec![(question, ClusterAnswer::Same([(proxy.clone(), same)].into()))]
        };
        assert!(!compared(&want, vec![there.clone()], said(true)).differs());
        let other = compared(&want, vec![there.clone()], said(false));
        assert_eq!(other.changes[0].path, "spec.stunnel_tcp_proxy");
        assert!(other.differs() && !format!("{other:?}").contains("hunter2"), "{other:?}");
        let offline = compared(&want, vec![there.clone()], vec![]);
        assert!(!offline.differs() && offline.unsure);
        // Once it is not wanted any more it goes, and its old value is not shown.
        want.secrets.clear();
        let gone = compared(&want, vec![there], vec![]);
        assert!(gone.differs() && !format!("{gone:?}").contains("hunter2"), "{gone:?}");
    }

    #[test]
    fn an_object_on_its_way_out_is_waited_for() {
        let mut there = with(|_| {});
        (there.deleting, there.finalizers) = (true, vec!["x/y".into()]);
        assert_eq!(compared(&want(), vec![there], vec![]).obstacle, Some(Obstacle::Going(vec!["x/y".into()])));
    }
}
