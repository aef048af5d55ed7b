//! Health, metrics, API and webhook over HTTP. Reads what the daemon publishes and decides nothing; the one thing that a
//! caller can bring about is that the daemon looks at its repository now.
//!
//! *Promises*: no input makes it panic or use unbounded memory or time: bodies, connections, silence and the length of a
//! connection have limits. Nothing that it serves is secret, yet it listens on the loopback interface unless told
//! otherwise, because names of machines and hosts are nobody else's business.

mod listener;
mod webhook;

use crate::daemon::Handles;
use crate::source::SecretSource;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What the handlers know.
#[derive(Clone)]
struct Shared {
    handles: Handles,
    webhook_secret: Option<SecretSource>,
    /// Webhook calls that were not accepted, for a log that does not grow with every one.
    rejected: Arc<std::sync::atomic::AtomicU64>,
}

/// Binds the address, so that a port that is taken is an error at the start.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).await.map_err(|why| HttpError { address, why })
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct HttpError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub why: std::io::Error,
}

impl HttpError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        "give another address and port with `--listen`, or `--listen off`"
    }
}

/// Serves until `end` is done. Without a webhook secret every webhook is refused.
pub async fn serve(
    listener: TcpListener,
    handles: Handles,
    webhook_secret: Option<SecretSource>,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let shared = Shared { handles, webhook_secret, rejected: Arc::default() };
    let listener = listener::Bounded::new(listener);
    axum::serve(listener, router(shared)).with_graceful_shutdown(end).await
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/plan", get(plan))
        .route("/webhook", post(webhook::receive))
        .with_state(shared)
}

async fn index() -> &'static str {
    "drover\n\n/healthz\n/readyz\n/metrics\n/api/v1/status\n/api/v1/plan\nPOST /webhook\n"
}

fn json<T: Serialize>(code: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            ];
            (code, headers, bytes).into_response()
        }
        Err(e) => {
            tracing::error!(error = %e, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Healthy {
    healthy: bool,
    heartbeat_age_millis: u64,
}

/// Whether the loop turns. A repository or host that does not answer is no reason to restart the daemon.
async fn healthz(State(shared): State<Shared>) -> Response {
    let heartbeat = &shared.handles.heartbeat;
    let healthy = heartbeat.is_alive();
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let heartbeat_age_millis = u64::try_from(heartbeat.age().as_millis()).unwrap_or(u64::MAX);
    json(code, &Healthy { healthy, heartbeat_age_millis })
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<&'static str>,
}

/// Whether the repository has answered once and a first pass has ended. Stays so: a commit that is invalid later shows in
/// the status.
async fn readyz(State(shared): State<Shared>) -> Response {
    let waiting = {
        let status = shared.handles.status.borrow();
        let mut waiting = Vec::new();
        if status.fetch.succeeded_at.is_none() {
            waiting.push("the repository has not answered yet");
        }
        if status.last.is_none() {
            waiting.push(if status.invalid.is_some() {
                "the only commit known is invalid; see /api/v1/status"
            } else {
                "the first pass has not ended yet"
            });
        }
        waiting
    };
    let ready = waiting.is_empty();
    json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &Ready { ready, waiting })
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match shared.handles.metrics.encode() {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(e) => {
            tracing::error!(error = %e, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    // A copy, so that the daemon does not wait for the writing.
    let status = shared.handles.status.borrow().clone();
    json(StatusCode::OK, &status)
}

#[derive(Serialize)]
struct Problem {
    error: &'static str,
}

async fn plan(State(shared): State<Shared>) -> Response {
    let plan = shared.handles.plan.borrow().clone();
    match plan {
        Some(plan) => json(StatusCode::OK, &*plan),
        None => json(StatusCode::NOT_FOUND, &Problem { error: "no plan has been computed yet" }),
    }
}
