//! The test world does what it says: servers, rights, faults, and that nothing is left behind.

use super::faults::{Answer, Front, Rule, Verb};
use super::proxy::ForwardProxy;
use super::webhook::{Verdict, Webhook};
use super::{Role, Server, World, allow, eventually, named};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{
    Api, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use std::time::{Duration, Instant};

/// A ConfigMap with one key.
fn config(name: &str, value: &str) -> ConfigMap {
    let data = [("key".to_owned(), value.to_owned())].into();
    ConfigMap { metadata: named(name), data: Some(data), ..Default::default() }
}

/// The code of an answer that is a failure.
fn code<T: std::fmt::Debug>(answer: Result<T, kube::Error>) -> u16 {
    match answer {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("not an answer of the API: {other:?}"),
    }
}

/// Whether the call ended without an answer of the API: refused, cut, broken.
fn is_broken<T: std::fmt::Debug>(answer: &Result<T, kube::Error>) -> bool {
    matches!(answer, Err(e) if !matches!(e, kube::Error::Api(_)))
}

#[tokio::test]
async fn two_clusters_at_once() {
    let (Some(source), Some(target)) = (Server::shared(Role::Source), Server::shared(Role::Target)) else { return };
    let (here, there) = (source.client().await, target.client().await);
    let namespace = source.namespace("two").await;

    // Server-side apply, seen by a watch.
    let maps: Api<ConfigMap> = Api::namespaced(here.clone(), &namespace);
    let events = watcher(maps.clone(), watcher::Config::default()).applied_objects();
    let mut events = std::pin::pin!(events);
    let apply = Patch::Apply(
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": { "key": "one" } }),
    );
    let applied = maps.patch("settings", &PatchParams::apply("test"), &apply).await.unwrap();
    let managers = applied.metadata.managed_fields.unwrap();
    assert_eq!((managers[0].manager.as_deref(), managers[0].operation.as_deref()), (Some("test"), Some("Apply")));
    let seen = tokio::time::timeout(super::PATIENCE, events.try_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(seen.data.unwrap()["key"], "one");

    // Another manager's field: a conflict that names its owner.
    let other = Patch::Apply(
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": { "key": "two" } }),
    );
    match maps.patch("settings", &PatchParams::apply("other"), &other).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 409);
            assert!(status.message.contains("\"test\""), "{}", status.message);
        }
        answer => panic!("{answer:?}"),
    }

    // The other cluster has none of it.
    let names = Api::<Namespace>::all(there).list(&ListParams::default()).await.unwrap();
    assert!(names.items.iter().all(|n| n.metadata.name.as_ref() != Some(&namespace)));

    // An object of a CRD, by its discovered type; what its schema forbids is refused.
    let kind = GroupVersionKind::gvk("migration.openshift.io", "v1alpha1", "MigCluster");
    let (resource, _) = kube::discovery::pinned_kind(&here, &kind).await.unwrap();
    let clusters: Api<DynamicObject> = Api::namespaced_with(here.clone(), &namespace, &resource);
    let spec = json!({ "isHostCluster": false, "url": "https://source.example:6443" });
    let object = DynamicObject::new("source", &resource).data(json!({ "spec": spec }));
    let made = clusters.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(made.data["spec"]["url"], "https://source.example:6443");
    let wrong = DynamicObject::new("wrong", &resource).data(json!({ "spec": { "url": "https://x" } }));
    assert_eq!(code(clusters.create(&PostParams::default(), &wrong).await), 422);
}

#[tokio::test]
async fn rights_are_what_was_given() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("rights").await;
    let rules = vec![allow("", &["configmaps"], &["get", "list"])];
    let reader = server.service_account(&namespace, "reader", rules).await.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(reader, &namespace);
    maps.list(&ListParams::default()).await.unwrap();
    let Err(kube::Error::Api(status)) = maps.create(&PostParams::default(), &config("a", "1")).await else {
        panic!("a reader may write")
    };
    assert_eq!(status.code, 403);
    let account = format!("system:serviceaccount:{namespace}:reader");
    assert!(status.message.contains(&account), "{}", status.message);

    let nobody = server.user("nobody", &["guests"]).client().await;
    assert_eq!(code(Api::<Namespace>::all(nobody).list(&ListParams::default()).await), 403);
    let late = server.expired_user("late", &["system:masters"]).client().await;
    assert_eq!(code(Api::<Namespace>::all(late).list(&ListParams::default()).await), 401);
    let unknown = server.with_token("unknown", &server.url(), "not-a-token").client().await;
    assert_eq!(code(Api::<Namespace>::all(unknown).list(&ListParams::default()).await), 401);
    let expired = server.expired_token(&namespace, "reader").await.client().await;
    assert_eq!(code(Api::<Namespace>::all(expired).list(&ListParams::default()).await), 401);
}

#[tokio::test]
async fn a_server_dies_hangs_and_comes_back() {
    let Some(server) = Server::alone("breaks") else { return };
    let client = server.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    maps.create(&PostParams::default(), &config("stays", "1")).await.unwrap();

    server.kill();
    assert_eq!(server.status(), "down");
    assert!(is_broken(&maps.get("stays").await));
    server.restart();
    assert_eq!(maps.get("stays").await.unwrap().data.unwrap()["key"], "1");

    server.pause();
    assert_eq!(server.status(), "hanging");
    assert!(tokio::time::timeout(Duration::from_millis(500), maps.get("stays")).await.is_err(), "it answered");
    server.resume();
    maps.get("stays").await.unwrap();

    let (folder, port) = (server.folder().to_owned(), server.port());
    drop(server);
    assert!(!folder.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn faults_of_requests() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("faults").await;
    let front = Front::of(server);
    let client = front.admin().client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let direct: Api<ConfigMap> = Api::namespaced(server.client().await, &namespace);
    let post = PostParams::default();
    for name in ["a", "b", "c"] {
        maps.create(&post, &config(name, "1")).await.unwrap();
    }

    // Writes conflict, reads do not; another resource is not concerned.
    front.fault(Rule::on_writes().of("configmaps").answers(Answer::conflict()));
    assert_eq!(code(maps.create(&post, &config("d", "1")).await), 409);
    maps.get("a").await.unwrap();
    front.heal();

    // The second page of a list, and only that.
    front.fault(Rule::on_further_pages().answers(Answer::internal_error()));
    let page = maps.list(&ListParams::default().limit(2)).await.unwrap();
    let next = ListParams::default().limit(2).continue_token(page.metadata.continue_.as_deref().unwrap());
    assert_eq!(code(maps.list(&next).await), 500);
    front.heal();
    // kube-root-ca.crt is there too where a controller manager is.
    assert!(!maps.list(&next).await.unwrap().items.is_empty());

    // Once, after two that go well.
    front.fault(Rule::on(&[Verb::Get]).named("a").after(2).times(1).answers(Answer::unauthorized()));
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(maps.get("a").await.map_or_else(|e| code::<()>(Err(e)), |_| 200));
    }
    assert_eq!(codes, [200, 200, 401, 200]);

    // kube's own patience: told so, it waits as long as the server asks.
    let mut config_with_retry = front.admin().config().await;
    config_with_retry.default_retry = true;
    let patient: Api<ConfigMap> = Api::namespaced(kube::Client::try_from(config_with_retry).unwrap(), &namespace);
    front.forget();
    front.fault(Rule::on(&[Verb::Get]).times(1).answers(Answer::too_many_requests(1)));
    let begin = Instant::now();
    patient.get("a").await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(front.seen().iter().map(|s| s.code).collect::<Vec<_>>(), [Some(429), Some(200)]);

    // Done, and nobody was told.
    front.fault(Rule::on(&[Verb::Create]).times(1).answers(Answer::DoneAndCut));
    assert!(is_broken(&maps.create(&post, &config("lost", "1")).await));
    direct.get("lost").await.unwrap();
    front.fault(Rule::on(&[Verb::Create]).times(1).answers(Answer::Cut));
    assert!(is_broken(&maps.create(&post, &config("never", "1")).await));
    assert_eq!(code(direct.get("never").await), 404);

    // Half an answer.
    front.fault(Rule::on(&[Verb::List]).times(1).answers(Answer::CutAfter(100)));
    assert!(is_broken(&maps.list(&ListParams::default()).await));

    // Late, and never.
    front.fault(Rule::on(&[Verb::Get]).times(1).answers(Answer::Delay(Duration::from_millis(300))));
    let begin = Instant::now();
    maps.get("a").await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300));
    front.fault(Rule::on(&[Verb::Get]).times(1).answers(Answer::Hang));
    assert!(tokio::time::timeout(Duration::from_millis(300), maps.get("a")).await.is_err());

    // A watch that has to begin anew.
    front.fault(Rule::on(&[Verb::Watch]).times(1).answers(Answer::GoneInWatch));
    let mut events = maps.watch(&WatchParams::default(), "1").await.unwrap().boxed();
    match events.try_next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!(status.code, 410),
        other => panic!("{other:?}"),
    }

    // What was asked is known.
    front.forget();
    let patch = Patch::Merge(json!({ "data": { "key": "2" } }));
    maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    let seen = front.writes();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].verb, seen[0].group.as_str(), seen[0].resource.as_str()), (Verb::Patch, "", "configmaps"));
    assert_eq!(
        (seen[0].namespace.as_ref(), seen[0].name.as_deref(), seen[0].code),
        (Some(&namespace), Some("a"), Some(200))
    );
}

#[tokio::test]
async fn faults_of_connections() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("lines").await;
    let front = Front::of(server);
    let maps: Api<ConfigMap> = Api::namespaced(front.admin().client().await, &namespace);
    let direct: Api<ConfigMap> = Api::namespaced(server.client().await, &namespace);
    maps.create(&PostParams::default(), &config("a", "1")).await.unwrap();

    // An open watch: it goes on, hangs, goes on, and is cut.
    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = maps.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    let touch = async |value: &str| {
        let patch = Patch::Merge(json!({ "data": { "key": value } }));
        direct.patch("a", &PatchParams::default(), &patch).await.unwrap();
    };
    touch("2").await;
    assert!(matches!(events.try_next().await.unwrap().unwrap(), WatchEvent::Modified(_)));
    front.hang();
    touch("3").await;
    assert!(tokio::time::timeout(Duration::from_millis(500), events.try_next()).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(300), maps.get("a")).await.is_err());
    front.heal();
    assert!(matches!(events.try_next().await.unwrap().unwrap(), WatchEvent::Modified(_)));
    front.cut();
    assert!(!matches!(events.try_next().await, Ok(Some(_))), "the watch goes on");

    front.refuse();
    eventually("nobody listens", async || is_broken(&maps.get("a").await)).await;
    front.heal();
    eventually("it listens again", async || maps.get("a").await.is_ok()).await;

    let late = Front::with_expired_certificate(server);
    let Err(error) = late.admin().client().await.apiserver_version().await else { panic!("it was taken") };
    let mut chain = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(e) = cause {
        chain += &format!("{e}: ");
        cause = e.source();
    }
    assert!(chain.contains("expired"), "{chain}");
}

#[tokio::test]
async fn a_webhook_has_the_last_word() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("hooked").await;
    let elsewhere = server.namespace("unhooked").await;
    let client = server.client().await;
    let secret = |name: &str| Secret { metadata: named(name), ..Default::default() };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let dry = PostParams { dry_run: true, ..Default::default() };

    let webhook = Webhook::on(server, &namespace, "", "secrets", Verdict::Deny("not on a Friday".to_owned())).await;
    for how in [&dry, &PostParams::default()] {
        match secrets.create(how, &secret("a")).await {
            Err(kube::Error::Api(status)) => {
                assert_eq!(status.code, 403);
                assert!(status.message.contains("denied the request: not on a Friday"), "{}", status.message);
            }
            answer => panic!("{answer:?}"),
        }
    }
    Api::<Secret>::namespaced(client, &elsewhere).create(&PostParams::default(), &secret("a")).await.unwrap();
    webhook.remove().await;
    eventually("it is not asked any more", async || secrets.create(&dry, &secret("a")).await.is_ok()).await;

    // One that does not answer: the server's failure, not a refusal.
    let silent = Webhook::on(server, &namespace, "", "secrets", Verdict::Silence).await;
    assert_eq!(code(secrets.create(&PostParams::default(), &secret("a")).await), 500);
    silent.remove().await;
}

#[tokio::test]
async fn a_proxy_on_the_way() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let through = async |proxy: &ForwardProxy, credentials: &str| {
        let mut config = server.admin().config().await;
        config.proxy_url = Some(proxy.url().replace("http://", &format!("http://{credentials}")).parse().unwrap());
        kube::Client::try_from(config).unwrap().apiserver_version().await
    };
    let open = ForwardProxy::open().await;
    through(&open, "").await.unwrap();
    assert_eq!(open.targets(), [format!("127.0.0.1:{}", server.port())]);
    let guarded = ForwardProxy::with_credentials("dXNlcjpwYXNz").await; // user:pass
    assert!(is_broken(&through(&guarded, "").await));
    assert!(guarded.targets().is_empty());
    through(&guarded, "user:pass@").await.unwrap();
}

#[tokio::test]
async fn a_namespace_ends_unless_something_in_it_does_not() {
    let Some(server) = Server::shared(Role::Target) else { return };
    if server.is_kube_apiserver() {
        return; // it has no controller that would end it
    }
    let client = server.client().await;
    let namespace = server.namespace("ending").await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let mut held = config("held", "1");
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(&namespace, &Default::default()).await.unwrap();
    eventually("it is held", async || maps.get("held").await.unwrap().metadata.deletion_timestamp.is_some()).await;
    let phase = namespaces.get(&namespace).await.unwrap().status.unwrap().phase;
    assert_eq!(phase.as_deref(), Some("Terminating"));
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("held", &PatchParams::default(), &release).await.unwrap();
    eventually("it has ended", async || namespaces.get_opt(&namespace).await.unwrap().is_none()).await;
}

/// What a test binary leaves behind when it is killed: nothing.
#[test]
fn servers_end_with_the_test_binary() {
    if World::of_this_binary().is_none() {
        return;
    }
    let world = World::start(&format!("end-{}", std::process::id())).unwrap();
    let server = world.server("left", &[]).unwrap();
    let pids = ["api", "etcd"].map(|name| server.file(&format!("{name}.pid")).trim().to_owned());
    // Without `exe`: what is a zombie has ended.
    let runs = |pid: &String| std::path::Path::new("/proc").join(pid).join("exe").exists();
    assert!(pids.iter().all(runs), "{pids:?}");
    std::mem::forget(server);

    // What the kernel does when this process ends: the pipe is closed.
    let World { folder, life, mut reaper } = world;
    drop(life);
    assert!(reaper.wait().unwrap().success());
    assert!(!folder.exists(), "{} is still there", folder.display());
    assert!(!pids.iter().any(runs), "{pids:?} still run");
}
