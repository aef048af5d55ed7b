//! The daemon's HTTP server: health, readiness, status, metrics, webhooks, and what hostile clients send.

use super::*;
use drover::model::Secret;
use drover::source::SecretSource;
use hmac::{Hmac, Mac};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

struct Served {
    running: Running,
    address: SocketAddr,
    runner: Arc<FakeRunner>,
    source: Arc<FakeSource>,
}

const SECRET: &str = "w3bhook-s3cret";

async fn served(secret: Option<&str>) -> Served {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    let running = Running::start(source.clone(), runner.clone(), quiet());
    let listener = drover::http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let secret = secret.map(|s| SecretSource::Value(Secret::new(s.to_owned())));
    tokio::spawn(drover::http::serve(listener, running.handles.clone(), secret, std::future::pending()));
    Served { running, address, runner, source }
}

impl Served {
    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if method == "POST" {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        let bytes = [format!("{request}\r\n").as_bytes(), body].concat();
        let address = self.address;
        tokio::task::spawn_blocking(move || raw(address, &bytes)).await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let (code, body) = self.call("GET", path, &[], b"").await;
        (code, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")))
    }
}

/// Sends bytes, and gives status and body of what comes back.
fn raw(address: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let code = text.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
    (code, text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default())
}

fn signature(secret: &str, body: &[u8]) -> String {
    let mac =
        Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body).finalize().into_bytes();
    mac.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_readiness_status_and_metrics_are_served() {
    let mut served = served(None).await;
    served.running.until("the first pass", passed("a")).await;
    let (code, health) = served.get("/healthz").await;
    assert_eq!((code, &health["healthy"]), (200, &true.into()));
    assert_eq!(served.get("/readyz").await, (200, serde_json::json!({"ready": true})));
    let (code, status) = served.get("/api/v1/status").await;
    assert_eq!(code, 200);
    assert_eq!((&status["good"], &status["phase"]), (&"a".into(), &"Idle".into()));
    assert_eq!(status["last"]["result"], "Succeeded");
    assert_eq!(served.get("/api/v1/plan").await.0, 404);
    let (code, metrics) = served.call("GET", "/metrics", &[], b"").await;
    assert_eq!(code, 200);
    for line in ["drover_passes_total{result=\"succeeded\"} 1", "drover_revision_valid 1", "drover_in_sync 1"] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(metrics.trim_end().ends_with("# EOF"));
    assert_eq!(served.call("GET", "/nothing", &[], b"").await.0, 404);
    assert_eq!(served.call("POST", "/api/v1/plan", &[], b"").await.0, 405);
    // An invalid commit shows in the status and does not make the daemon unready.
    served.runner.invalid("b");
    served.source.push("b");
    look(&served.running);
    served.running.until("b is invalid", |s| s.invalid.is_some()).await;
    assert_eq!(served.get("/readyz").await.0, 200);
    let (_, status) = served.get("/api/v1/status").await;
    assert_eq!(status["invalid"]["findings"][0]["code"], Code::UnknownField.as_str());
    served.running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_not_ready_before_the_repository_answered_and_a_pass_ended() {
    let runner = FakeRunner::new();
    let source = FakeSource::at("a");
    source.fail();
    let mut running = Running::start(source.clone(), runner, quiet());
    running.until("the error", |s| s.fetch.error.is_some()).await;
    let listener = drover::http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(drover::http::serve(listener, running.handles.clone(), None, std::future::pending()));
    let waiting = Served { running, address, runner: FakeRunner::new(), source };
    let (code, body) = waiting.get("/readyz").await;
    assert_eq!((code, &body["ready"]), (503, &false.into()));
    assert_eq!(body["waiting"].as_array().unwrap().len(), 2);
    assert_eq!(waiting.get("/healthz").await.0, 200, "no reason to restart it");
    waiting.running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_webhook_makes_the_daemon_look_now() {
    let mut served = served(Some(SECRET)).await;
    served.running.until("the first pass", passed("a")).await;
    let body = br#"{"ref": "refs/heads/main", "after": "whatever", "repository": 7}"#;
    let hex = signature(SECRET, body);
    let github = format!("sha256={hex}");
    for (commit, name, value) in [
        ("b", "X-Hub-Signature-256", github.as_str()),
        ("c", "X-Gitlab-Token", SECRET),
        ("d", "X-Gitea-Signature", hex.as_str()),
    ] {
        served.source.push(commit);
        let (code, text) = served.call("POST", "/webhook", &[(name, value)], body).await;
        assert_eq!(code, 202, "{name}: {text}");
        served.running.until("the pass for the push", passed(commit)).await;
    }
    // Whatever the body says, it is the followed branch's commit that counts.
    assert_eq!(served.runner.commits(), ["a", "b", "c", "d"]);
    served.running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_is_not_signed_is_refused_and_does_nothing() {
    let mut served = served(Some(SECRET)).await;
    served.running.until("the first pass", passed("a")).await;
    let fetches = served.source.fetches.load(Ordering::SeqCst);
    let body = b"{}";
    let wrong = format!("sha256={}", signature("other", body));
    let right = format!("sha256={}", signature(SECRET, b"another body"));
    assert_eq!(served.call("POST", "/webhook", &[], body).await.0, 401);
    for headers in [
        [("X-Hub-Signature-256", wrong.as_str())],
        [("X-Hub-Signature-256", right.as_str())],
        [("X-Gitlab-Token", "w3bhook")],
        [("X-Gitea-Signature", "00")],
    ] {
        let (code, text) = served.call("POST", "/webhook", &headers, body).await;
        assert_eq!(code, 403, "{headers:?}: {text}");
        assert!(!text.contains(SECRET));
    }
    assert_eq!(served.call("GET", "/webhook", &[], b"").await.0, 405);
    assert_eq!(served.source.fetches.load(Ordering::SeqCst), fetches);
    let off = self::served(None).await;
    let (code, text) = off.call("POST", "/webhook", &[("X-Gitlab-Token", "")], body).await;
    assert!(code == 403 && text.contains("DROVER_WEBHOOK_SECRET"), "{code}: {text}");
    off.running.end().await;
    served.running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_are_refused_and_the_server_goes_on() {
    let served = served(Some(SECRET)).await;
    let address = served.address;
    let large = vec![b'x'; (1 << 20) + 1];
    assert_eq!(served.call("POST", "/webhook", &[], &large).await.0, 413);
    let bytes = [
        // A length that is a lie, without any body: refused before it is waited for.
        b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n".to_vec(),
        // Chunks without end.
        [
            b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            b"10000\r\n".to_vec(),
            vec![b'x'; 0x10000],
            b"\r\n".to_vec(),
            [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat().repeat(20),
        ]
        .concat(),
    ];
    for request in bytes {
        let code = tokio::task::spawn_blocking(move || raw(address, &request).0).await.unwrap();
        assert_eq!(code, 413);
    }
    for garbage in [
        b"\0\xff\xfe\x80 / HTTP/9\r\n\r\n".to_vec(),
        b"GET /\x1b[31m HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /%00%ff%2e%2e/ HTTP/1.1\r\nHost: \xff\r\n\r\n".to_vec(),
        [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(5000), b"\r\n".to_vec()].concat(),
        vec![b'A'; 1 << 20],
        b"POST /webhook HTTP/1.1\r\nContent-Length: -1\r\nX-Hub-Signature-256: sha256=\xff\r\n\r\n".to_vec(),
    ] {
        let code = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(&garbage);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer.split(' ').nth(1).and_then(|c| c.parse::<u16>().ok()).unwrap_or(0)
        })
        .await
        .unwrap();
        assert!(code == 0 || (400..500).contains(&code), "{code}");
    }
    assert_eq!(served.get("/healthz").await.0, 200);
    served.running.end().await;
}
