//! A validating admission webhook in the test: the server really calls it, in dry runs too.

use super::faults::server_tls;
use super::{Server, eventually, named, typed};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// What a webhook says to everything that it is asked.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// No, with this message: 403.
    Deny(String),
    /// Yes, with this warning.
    Warn(String),
    /// Nothing; the server gives up after a second: 500.
    Silence,
}

/// A webhook in force. It belongs to the runtime in which it was made, and ends with [`Webhook::remove`] or that runtime.
pub struct Webhook {
    name: String,
    client: kube::Client,
    task: AbortHandle,
}

impl Webhook {
    /// Asks about creations and changes of this resource in this namespace, from now on.
    pub async fn on(server: &Server, namespace: &str, group: &str, resource: &str, verdict: Verdict) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(server_tls(server.folder(), "server")));
        let task = tokio::spawn(serve(listener, acceptor, verdict)).abort_handle();
        let name = format!("{resource}.{namespace}.example.com");
        let bundle = serde_json::to_value(k8s_openapi::ByteString(server.ca().into_bytes())).unwrap();
        // The namespace's own name is a label of it; a probe shows when the server has taken notice.
        let configuration: ValidatingWebhookConfiguration = typed(json!({
            "metadata": { "name": name },
            "webhooks": [{
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 1,
                "failurePolicy": "Fail",
                "clientConfig": { "url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle },
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                "rules": [
                    { "apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": ["CREATE", "UPDATE"] },
                    { "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"] },
                ],
                "matchConditions": [{
                    "name": "not-every-map",
                    "expression": format!("request.resource.resource == '{resource}' || request.name == 'webhook-probe'"),
                }],
            }],
        }));
        let client = server.client().await;
        Api::all(client.clone()).create(&PostParams::default(), &configuration).await.unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let probe = ConfigMap { metadata: named("webhook-probe"), ..Default::default() };
        let dry = PostParams { dry_run: true, ..Default::default() };
        let before = PROBED.load(std::sync::atomic::Ordering::Relaxed);
        eventually("the webhook is asked", async || {
            drop(maps.create(&dry, &probe).await);
            PROBED.load(std::sync::atomic::Ordering::Relaxed) > before
        })
        .await;
        Self { name, client, task }
    }

    /// Takes it out of force.
    pub async fn remove(self) {
        let all: Api<ValidatingWebhookConfiguration> = Api::all(self.client);
        all.delete(&self.name, &DeleteParams::default()).await.unwrap();
        self.task.abort();
    }
}

/// How often any webhook of this binary was asked.
static PROBED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, verdict: Verdict) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, verdict) = (acceptor.clone(), verdict.clone());
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request| answer(request, verdict.clone()));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, verdict: Verdict) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    PROBED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut response = json!({ "uid": review["request"]["uid"], "allowed": true });
    match verdict {
        Verdict::Deny(message) => {
            response["allowed"] = json!(false);
            // As most webhooks answer; without a code the server makes it a 400.
            response["status"] = json!({ "code": 403, "reason": "Forbidden", "message": message });
        }
        Verdict::Warn(message) => response["warnings"] = json!([message]),
        Verdict::Silence => std::future::pending().await,
    }
    let answer = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}
