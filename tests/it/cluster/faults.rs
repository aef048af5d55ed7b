//! Faults of servers and of the way to them: what is said, and that nothing is concluded from half a reading.

use super::{PATIENCE, Site, read};
use crate::controlplane::faults::{Answer, Front, Rule, Verb};
use crate::controlplane::{Role, Server};
use std::time::{Duration, Instant};

const TOOLKIT: &str = "migrationToolkit: {}";

#[tokio::test]
async fn a_server_that_is_down_hangs_or_comes_back() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let front = Front::of(server);
    let site = Site::through(&front, server, "limits: {timeout: 2s}");
    let reader = site.reader();
    front.refuse();
    let error = read(&reader, "c", PATIENCE).await.unwrap_err();
    assert!(error.contains("nothing listens there") && error.contains("`c`"), "{error}");
    // Known to be away: it costs nothing to ask, and says since when.
    let mut resting = false;
    for _ in 0..5 {
        let began = Instant::now();
        let error = read(&reader, "c", PATIENCE).await.unwrap_err();
        resting |= error.contains("in a row") && began.elapsed() < Duration::from_millis(200);
    }
    assert!(resting, "it is left alone");
    front.heal();
    let deadline = Instant::now() + PATIENCE;
    while read(&reader, "c", PATIENCE).await.is_err() {
        assert!(Instant::now() < deadline, "it is asked again");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // It hangs: the time of one request bounds it.
    front.hang();
    let began = Instant::now();
    let error = read(&site.reader(), "c", Duration::from_secs(30)).await.unwrap_err();
    assert!(error.contains("limits.timeout") || error.contains("no connection"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    front.heal();
}

#[tokio::test]
async fn too_many_requests_are_waited_out() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let front = Front::of(server);
    let site = Site::through(&front, server, TOOLKIT);
    front.fault(Rule::on(&[Verb::List]).of("namespaces").times(1).answers(Answer::too_many_requests(2)));
    let began = Instant::now();
    site.read().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    // Without end: the reading ends, and says so.
    front.fault(Rule::on(&[Verb::List]).of("namespaces").answers(Answer::too_many_requests(1)));
    let error = site.read().await.unwrap_err();
    assert!(error.contains("too many requests"), "{error}");
}

#[tokio::test]
async fn an_error_on_a_later_page_is_never_taken_for_absence() {
    let Some(server) = Server::alone("pages") else { return };
    // More than a page of namespaces.
    let client = server.client().await;
    let made = (0..260).map(|i| {
        let client = client.clone();
        async move { super::observes::make_namespace(&client, &format!("n-{i}")).await }
    });
    futures::future::join_all(made).await;
    let front = Front::of(&server);
    let site = Site::through(&front, &server, "");
    let whole = site.read().await.unwrap().namespaces.len();
    assert!(whole >= 260 && front.seen().iter().any(|s| s.target.contains("continue=")), "{whole}");
    for answer in [Answer::internal_error(), Answer::CutAfter(40), Answer::Cut] {
        front.fault(Rule::on_further_pages().answers(answer.clone()));
        let error = site.read().await.unwrap_err();
        assert!(error.contains("list namespaces"), "{answer:?}: {error}");
        front.heal();
    }
    // Its beginning is compacted away: once is begun anew, always is an error.
    front.fault(Rule::on_further_pages().times(1).answers(Answer::expired()));
    assert_eq!(site.read().await.unwrap().namespaces.len(), whole);
    front.fault(Rule::on_further_pages().answers(Answer::expired()));
    let error = site.read().await.unwrap_err();
    assert!(error.contains("too old"), "{error}");
}

#[tokio::test]
async fn credentials_and_certificates_that_ended_are_told_apart() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let namespace = server.namespace("expired").await;
    let client = server.client().await;
    let account: k8s_openapi::api::core::v1::ServiceAccount =
        serde_json::from_value(serde_json::json!({"metadata": {"name": "old"}})).unwrap();
    kube::Api::namespaced(client, &namespace).create(&Default::default(), &account).await.unwrap();
    let config = server.expired_token(&namespace, "old").await.config().await;
    let token = serde_json::to_value(&config.auth_info).unwrap()["token"].as_str().unwrap().to_owned();
    let site = Site::new();
    let fields = site.by_token("c", server, &server.url(), &token);
    let error = site.with("c", &fields).read().await.unwrap_err();
    assert!(error.contains("renew the credentials") && !error.contains(&token), "{error}");

    let front = Front::with_expired_certificate(server);
    let error = Site::through(&front, server, "").read().await.unwrap_err();
    assert!(error.contains("certificate ended") && error.contains("clock"), "{error}");
    // A client certificate that ended, with which the server knows nobody.
    let site = Site::new();
    let text = super::read_file(server.expired_user("late", &["system:masters"]).path());
    let file = site.secret("late", &text);
    let mut site = site.with("c", &format!("kubeconfig: {{secretRef: {{file: {file}}}}}"));
    site.options.allow_files = true;
    let error = site.read().await.unwrap_err();
    assert!(error.contains("renew"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_renewed_counts_without_a_restart() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let site = Site::new();
    let fields = site.by_token("c", server, &server.url(), "not-a-token");
    let site = site.with("c", &fields);
    let reader = site.reader();
    assert!(read(&reader, "c", PATIENCE).await.is_err());
    site.secret("c-token", &server.admin_token());
    read(&reader, "c", PATIENCE).await.unwrap();
}

#[tokio::test]
async fn what_answers_in_the_place_of_the_server_is_not_believed() {
    let Some(server) = Server::shared(Role::Source) else { return };
    let front = Front::of(server);
    let site = Site::through(&front, server, "");
    front.fault(Rule::on(&[Verb::List]).of("namespaces").answers(Answer::Status {
        code: 200,
        reason: "",
        message: String::new(),
        retry_after: None,
    }));
    // A Status where a list should be: no list, and not an empty one.
    let error = site.read().await.unwrap_err();
    assert!(error.contains("the answer is no list"), "{error}");
    front.heal();
    // A reset connection is read past.
    front.fault(Rule::on(&[Verb::List]).times(2).answers(Answer::Cut));
    site.read().await.unwrap();
}
