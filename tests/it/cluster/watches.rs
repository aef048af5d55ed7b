//! The daemon's watches: they tell of changes, and spare readings.

use super::{PATIENCE, Site, read};
use crate::controlplane::faults::{Answer, Front, Rule, Verb};
use crate::controlplane::{Role, Server, eventually};
use drover::provider::kubernetes::{Reader, Watcher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[tokio::test]
async fn what_changes_is_told_and_what_does_not_is_not_read_again() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let front = Front::of(server);
    let site = Site::through(&front, server, "");
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    let watcher = Watcher::new(
        site.options.clone(),
        Arc::new(move |change| {
            assert_eq!(change.host, "Cluster/c");
            count.fetch_add(1, Ordering::SeqCst);
        }),
    );
    watcher.follow(&site.clusters);
    let reader = Reader::new(site.clusters.clone(), site.options.clone(), Some(watcher.watched()));
    let lists = |resource: &str| {
        let seen = front.seen();
        let is_whole = |t: &str| t.contains("limit=250");
        seen.iter().filter(|s| s.verb == Verb::List && s.resource == resource && is_whole(&s.target)).count()
    };
    let watched = async |resource: &str| {
        let open =
            || front.seen().iter().any(|s| s.verb == Verb::Watch && s.resource == resource && s.code == Some(200));
        eventually("it is watched", async || open()).await;
    };
    watched("namespaces").await;
    // Other tests make namespaces in this server all the time, so what is counted is a list that only this test could change.
    watched("deployments").await;
    read(&reader, "c", PATIENCE).await.unwrap();
    let before = lists("deployments");
    read(&reader, "c", PATIENCE).await.unwrap();
    assert_eq!(lists("deployments"), before, "nothing changed, and it was read again");
    assert!(lists("pods") >= 2, "pods are read each time");

    let seen = told.load(Ordering::SeqCst);
    let namespace = server.namespace("watched").await;
    eventually("the change is told", async || told.load(Ordering::SeqCst) > seen).await;
    assert!(read(&reader, "c", PATIENCE).await.unwrap().namespaces.contains_key(&namespace));

    // The watch is too old when it is opened again: what it covers is read again.
    front.fault(Rule::on(&[Verb::Watch]).of("deployments").times(1).answers(Answer::GoneInWatch));
    front.forget();
    front.cut();
    let gone = || front.seen().iter().filter(|s| s.verb == Verb::Watch && s.resource == "deployments").count() >= 2;
    eventually("it is opened again", async || gone()).await;
    read(&reader, "c", PATIENCE).await.unwrap();
    assert!(lists("deployments") >= 1, "a watch broke, and its list was believed");

    // Not watched any more: nothing is told, and everything is read.
    watcher.follow(&Default::default());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (seen, before) = (told.load(Ordering::SeqCst), lists("deployments"));
    server.namespace("unwatched").await;
    read(&reader, "c", PATIENCE).await.unwrap();
    assert!(lists("deployments") > before);
    assert_eq!(told.load(Ordering::SeqCst), seen);
}

#[tokio::test]
async fn a_cluster_that_is_away_is_watched_again_when_it_is_back() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let front = Front::of(server);
    front.refuse();
    let site = Site::through(&front, server, "");
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    let watcher = Watcher::new(
        site.options.clone(),
        Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        }),
    );
    watcher.follow(&site.clusters);
    eventually("that it is away is told", async || told.load(Ordering::SeqCst) > 0).await;
    front.heal();
    let seen = told.load(Ordering::SeqCst);
    eventually("that it is back is told", async || told.load(Ordering::SeqCst) > seen).await;
}
