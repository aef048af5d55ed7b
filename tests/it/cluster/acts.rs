//! What is done to a cluster, whatever comes in between.

use super::{PATIENCE, Site, act, apply, config_map, done, look, step, verify};
use crate::controlplane::faults::{Answer, Front, Rule, Verb};
use crate::controlplane::webhook::{Verdict, Webhook};
use crate::controlplane::{Role, Server, named};
use drover::action::{Action, ClusterAction, Until};
use drover::model::{ObjectRef, SecretRef, SecretSource};
use drover::observed::{ClusterAnswer, ClusterQuestion, FieldConflict};
use drover::provider::{Actor as _, ClusterObserver as _, Look};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

async fn maps(server: &Server, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(server.client().await, namespace)
}

#[tokio::test]
async fn applied_and_applied_again_without_a_change() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("apply").await;
    let front = Front::of(server);
    let site = Site::through(&front, server, "");
    let writer = site.writer();
    let id = config_map(&namespace, "settings");
    done(&writer, &apply(&id, json!({"data": {"a": "1", "b": "2"}}), false)).await;
    // A field that is not wanted any more goes, one of somebody else stays.
    let api = maps(server, &namespace).await;
    let theirs = Patch::Merge(json!({"data": {"theirs": "x"}}));
    api.patch("settings", &PatchParams { field_manager: Some("hand".into()), ..Default::default() }, &theirs)
        .await
        .unwrap();
    done(&writer, &apply(&id, json!({"data": {"a": "1"}}), false)).await;
    let data = api.get("settings").await.unwrap().data.unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["a", "theirs"]);
    // Drift in a field of ours.
    let drift = Patch::Merge(json!({"data": {"a": "changed"}}));
    api.patch("settings", &PatchParams { field_manager: Some("hand".into()), ..Default::default() }, &drift)
        .await
        .unwrap();
    let wanted = apply(&id, json!({"data": {"a": "1"}}), false);
    let Look::Refused { reason } = look(&writer, &wanted).await.unwrap() else { panic!("somebody else has set it") };
    assert!(reason.contains(".data.a (`hand`)"), "{reason}");
    done(&writer, &apply(&id, json!({"data": {"a": "1"}}), true)).await;
    assert!(front.seen().iter().all(|s| s.verb != Verb::Update), "an object was replaced as a whole");
}

#[tokio::test]
async fn questions_change_nothing_and_say_what_would_be() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("asks").await;
    let site = Site::of(server, "");
    let reader = site.reader();
    let id = config_map(&namespace, "q");
    let ask = async |id: &ObjectRef, fields: Value, force| {
        let ClusterAction::ApplyObject { object, .. } = apply(id, fields, force) else { unreachable!() };
        reader.ask("c", &ClusterQuestion::Apply { id: id.clone(), object, force }, PATIENCE).await
    };
    let Ok(ClusterAnswer::WouldBe(value)) = ask(&id, json!({"data": {"a": "1"}}), false).await else { panic!() };
    assert!(value["data"]["a"] == "1" && value["metadata"]["managedFields"].is_null(), "{value}");
    let api = maps(server, &namespace).await;
    assert!(api.get_opt("q").await.unwrap().is_none(), "a question has written");
    let theirs =
        Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "q"}, "data": {"a": "2"}}));
    api.patch("q", &PatchParams::apply("other"), &theirs).await.unwrap();
    let conflict = ask(&id, json!({"data": {"a": "1"}}), false).await.unwrap();
    assert_eq!(
        conflict,
        ClusterAnswer::Conflict(vec![FieldConflict { manager: "other".into(), field: ".data.a".into() }])
    );
    let Ok(ClusterAnswer::WouldBe(value)) = ask(&id, json!({"data": {"a": "1"}}), true).await else { panic!() };
    assert_eq!(value["data"]["a"], "1");
    let webhook = Webhook::on(server, &namespace, "", "configmaps", Verdict::Deny("by policy 7".into())).await;
    let refused = ask(&id, json!({"data": {"b": "1"}}), false).await.unwrap();
    assert!(matches!(&refused, ClusterAnswer::Refused(why) if why.contains("by policy 7")), "{refused:?}");
    let writer = site.writer();
    let error = act(&writer, &apply(&id, json!({"data": {"b": "1"}}), false)).await.unwrap_err();
    assert!(
        error.message.contains("by policy 7") && error.hint.unwrap().contains("rule of the cluster"),
        "{}",
        error.message
    );
    webhook.remove().await;
    let silent = Webhook::on(server, &namespace, "", "configmaps", Verdict::Silence).await;
    let error = ask(&id, json!({"data": {"b": "1"}}), false).await.unwrap_err();
    assert!(error.contains("does not answer"), "{error}");
    silent.remove().await;
}

#[tokio::test]
async fn secret_values_arrive_and_are_compared_without_being_seen() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("secrets").await;
    let site = Site::of(server, "");
    let file = site.secret("value", "canary-value");
    let source = SecretSource::Ref(SecretRef::File(file));
    let id = ObjectRef::new("v1", "Secret", &namespace, "token");
    let ClusterAction::ApplyObject { cluster, object, force, .. } = apply(&id, json!({"type": "Opaque"}), false) else {
        unreachable!()
    };
    let secrets: BTreeMap<String, SecretSource> = [("/data/saToken".to_owned(), source)].into();
    let action = ClusterAction::ApplyObject { cluster, id: id.clone(), object, force, secrets: secrets.clone() };
    let writer = site.writer();
    let question = ClusterQuestion::Secrets { id: id.clone(), values: secrets };
    let same = async || match writer.ask("c", &question, PATIENCE).await.unwrap() {
        ClusterAnswer::Same(same) => same["/data/saToken"],
        other => panic!("{other:?}"),
    };
    assert!(!same().await);
    done(&writer, &action).await;
    assert!(same().await);
    let api: Api<Secret> = Api::namespaced(server.client().await, &namespace);
    assert_eq!(api.get("token").await.unwrap().data.unwrap()["saToken"].0, b"canary-value");
    site.secret("value", "canary-other");
    assert!(!same().await);
    assert_eq!(look(&writer, &action).await.unwrap(), Look::Ready, "it is to be renewed");
    // A refusal that quotes the value.
    let front = Front::of(server);
    let through = Site::through(&front, server, "");
    through.secret("value", "canary-value");
    let quoting = Answer::Status {
        code: 422,
        reason: "Invalid",
        message: "Invalid value: Y2FuYXJ5LXZhbHVl canary-value".into(),
        retry_after: None,
    };
    front.fault(Rule::on(&[Verb::Patch]).answers(quoting));
    let ClusterAction::ApplyObject { cluster, id, object, force, .. } = action else { unreachable!() };
    let source = SecretSource::Ref(SecretRef::File(through.folder.path().join("value").to_str().unwrap().to_owned()));
    let action = ClusterAction::ApplyObject {
        cluster,
        id,
        object,
        force,
        secrets: [("/data/saToken".to_owned(), source)].into(),
    };
    let error = act(&through.writer(), &action).await.unwrap_err();
    assert!(error.message.contains("<secret> <secret>") && !format!("{error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn a_lost_answer_a_conflict_and_too_many_requests_come_to_the_same() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("lost").await;
    let front = Front::of(server);
    let site = Site::through(&front, server, "");
    let writer = site.writer();
    let id = config_map(&namespace, "a");
    let action = apply(&id, json!({"data": {"a": "1"}}), false);
    assert_eq!(look(&writer, &action).await.unwrap(), Look::Ready);
    // The write happens, and its answer is lost: the next look finds it done, and nothing is written twice.
    front.fault(Rule::on(&[Verb::Patch]).times(1).answers(Answer::DoneAndCut));
    let error = act(&writer, &action).await.unwrap_err();
    assert!(error.transient, "{error:?}");
    assert_eq!(look(&writer, &action).await.unwrap(), Look::AlreadyDone);
    let written = front.writes().iter().filter(|s| !s.target.contains("dryRun")).count();
    assert_eq!(written, 1);

    let create = |name: &str| {
        let id = config_map(&namespace, name);
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}});
        ClusterAction::CreateObject { cluster: "c".into(), id, object }
    };
    front.fault(Rule::on(&[Verb::Create]).times(1).answers(Answer::DoneAndCut));
    assert!(act(&writer, &create("b")).await.unwrap_err().transient);
    act(&writer, &create("b")).await.unwrap();
    verify(&writer, &create("b")).await.unwrap();
    front.fault(Rule::on(&[Verb::Create]).times(2).answers(Answer::too_many_requests(1)));
    done(&writer, &create("c")).await;

    // Somebody writes in between, three times.
    let patch = |value: &str| ClusterAction::PatchObject {
        cluster: "c".into(),
        id: id.clone(),
        patch: vec![
            json!({"op": "test", "path": "/data/a", "value": "1"}),
            json!({"op": "replace", "path": "/data/a", "value": value}),
        ],
    };
    front.fault(Rule::on(&[Verb::Patch]).times(3).answers(Answer::conflict()));
    done(&writer, &patch("2")).await;
    let Look::Refused { reason } = look(&writer, &patch("3")).await.unwrap() else { panic!("it is stale") };
    assert!(reason.contains("`/data/a` has changed"), "{reason}");
    let error = act(&writer, &patch("3")).await.unwrap_err();
    assert!(!error.transient && error.message.contains("has changed since"), "{error:?}");
    assert!(front.seen().iter().all(|s| s.verb != Verb::Update));
}

#[tokio::test]
async fn only_the_object_that_was_observed_is_deleted() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("delete").await;
    let site = Site::of(server, "");
    let writer = site.writer();
    let api = maps(server, &namespace).await;
    let make = async |name: &str, finalizers: Value| {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": name, "finalizers": finalizers}})).unwrap();
        api.create(&PostParams::default(), &map).await.unwrap().metadata.uid.unwrap()
    };
    let delete = |name: &str, uid: &str| ClusterAction::DeleteObject {
        cluster: "c".into(),
        id: config_map(&namespace, name),
        uid: uid.into(),
    };
    let uid = make("a", json!([])).await;
    done(&writer, &delete("a", &uid)).await;
    // Made anew: another one.
    let other = make("a", json!([])).await;
    let Look::Refused { reason } = look(&writer, &delete("a", &uid)).await.unwrap() else {
        panic!("it is another one")
    };
    assert!(reason.contains("made anew"), "{reason}");
    act(&writer, &delete("a", &uid)).await.unwrap();
    assert_eq!(api.get("a").await.unwrap().metadata.uid.unwrap(), other, "it is still there");

    // Something has to happen first: it is told, and it is followed to its end.
    let uid = make("held", json!(["example.com/backup"])).await;
    let (ctx, told) = step(Duration::from_secs(4));
    let action = Action::Cluster(delete("held", &uid));
    let error = writer.act(&action, &ctx).await.unwrap_err();
    assert!(
        error.message.contains("example.com/backup") && error.hint.unwrap().contains("no finalizer"),
        "{}",
        error.message
    );
    assert!(told.lock().unwrap().iter().any(|t| t.contains("finalizers")), "{told:?}");
    assert_eq!(look(&writer, &delete("held", &uid)).await.unwrap(), Look::Running);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let (params, again) = (PatchParams::default(), delete("held", &uid));
    let (freed, ended) = tokio::join!(api.patch("held", &params, &free), act(&writer, &again));
    drop(freed);
    ended.unwrap();
    verify(&writer, &delete("held", &uid)).await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_is_stuck_is_waited_for_and_named() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("stuck").await;
    let client = server.client().await;
    let api = maps(server, &namespace).await;
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "held", "finalizers": ["example.com/x"]}})).unwrap();
    api.create(&PostParams::default(), &map).await.unwrap();
    let all: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
    let uid = all.get(&namespace).await.unwrap().metadata.uid.unwrap();
    let site = Site::of(server, "");
    let writer = site.writer();
    let id = ObjectRef::cluster_wide("v1", "Namespace", &namespace);
    let action = ClusterAction::DeleteObject { cluster: "c".into(), id: id.clone(), uid };
    // What is in it a real cluster says in the namespace's conditions; the server for tests has none.
    let error = writer.act(&Action::Cluster(action), &step(Duration::from_secs(5)).0).await.unwrap_err();
    assert!(error.message.contains(&format!("{namespace} is being deleted")), "{}", error.message);
    // Nothing is made in it, and why is said.
    let error = look(&writer, &apply(&config_map(&namespace, "new"), json!({}), false)).await.unwrap_err();
    assert!(error.message.contains("being terminated"), "{}", error.message);
    let state = Site::of(server, "").read().await.unwrap();
    assert!(state.namespaces[&namespace].terminating.is_some());
    api.patch("held", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    drop(all.delete(&namespace, &DeleteParams::default()).await);
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_said_to_be_missing() {
    let Some(server) = Server::alone("kinds") else { return };
    let site = Site::of(&server, "");
    let writer = site.writer();
    let id = ObjectRef::new("migration.openshift.io/v1alpha1", "MigCluster", "default", "x");
    let error = act(&writer, &apply(&id, json!({"spec": {"isHostCluster": true}}), false)).await.unwrap_err();
    assert!(error.message.contains("does not serve MigCluster"), "{}", error.message);
    assert!(error.hint.unwrap().contains("CustomResourceDefinition"));
    // What is not served has no objects: gone already, and awaited while its definition comes.
    let gone = ClusterAction::DeleteObject { cluster: "c".into(), id: id.clone(), uid: "u".into() };
    assert_eq!(look(&writer, &gone).await.unwrap(), Look::AlreadyDone);
    let wait = ClusterAction::AwaitObject {
        cluster: "c".into(),
        id: id.clone(),
        until: Until::Exists,
        timeout_millis: 60_000,
    };
    let (waited, ()) = tokio::join!(act(&writer, &wait), async {
        server.install_crds().await;
        let client = server.client().await;
        super::observes::put(&client, &id, json!({"spec": {"isHostCluster": true}})).await;
    });
    waited.unwrap();
}

#[tokio::test]
async fn waiting_tells_what_it_waits_for_and_ends_when_it_cannot_come() {
    let Some(server) = Server::shared(Role::Control) else { return };
    let namespace = server.namespace("wait").await;
    let client = server.client().await;
    let front = Front::of(server);
    let site = Site::through(&front, server, "");
    let writer = site.writer();
    let id = ObjectRef::new("migration.openshift.io/v1alpha1", "MigCluster", &namespace, "ocp3");
    let conditions = async |list: Value| {
        let fields = json!({"spec": {"isHostCluster": false, "url": "https://x:6443"}, "status": {"conditions": list}});
        super::observes::put(&client, &id, fields).await;
    };
    let now = "2026-01-01T00:00:00Z";
    let failed = json!([{"type": "TestConnectFailed", "status": "True", "category": "Critical", "reason": "ConnectFailed", "message": "Upgrade request required", "lastTransitionTime": now}]);
    let until = |fatal: &[&str]| Until::Condition {
        name: "Ready".into(),
        fatal: fatal.iter().map(|f| (*f).to_owned()).collect(),
    };
    let wait = |until: Until, seconds: u64| {
        (
            ClusterAction::AwaitObject { cluster: "c".into(), id: id.clone(), until, timeout_millis: 1 },
            Duration::from_secs(seconds),
        )
    };
    conditions(failed.clone()).await;
    let (action, time) = wait(until(&[]), 3);
    let (ctx, told) = step(time);
    let error = writer.act(&Action::Cluster(action), &ctx).await.unwrap_err();
    assert!(
        error.message.contains("TestConnectFailed (Critical, ConnectFailed): Upgrade request required"),
        "{}",
        error.message
    );
    assert!(error.hint.unwrap().contains("SPDY") && !told.lock().unwrap().is_empty());
    let (action, time) = wait(until(&["TestConnectFailed"]), 30);
    let error = writer.act(&Action::Cluster(action), &step(time).0).await.unwrap_err();
    assert!(error.message.contains("will not be `Ready`"), "{}", error.message);
    // It comes while the server is away for a moment.
    let (action, time) = wait(until(&[]), 60);
    let ctx = step(time).0;
    let action = Action::Cluster(action);
    let (waited, ()) = tokio::join!(writer.act(&action, &ctx), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        front.refuse();
        tokio::time::sleep(Duration::from_secs(1)).await;
        front.heal();
        conditions(json!([{"type": "Ready", "status": "True", "category": "Required", "lastTransitionTime": now}]))
            .await;
    });
    waited.unwrap();
    let _ = named("unused");
}
