//! `POST /webhook`: a forge tells that something was pushed.
//!
//! The size of the body is limited before it is read, the time to read it too; the signature is checked over the raw
//! bytes; and then the body is thrown away: a webhook chooses no commit, branch or address, it only makes the daemon look
//! now. Replaying one does no more than that.

use super::Shared;
use crate::daemon::Hint;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;

/// Largest body. GitHub's own limit is 25 MB; a push of a thousand commits has less than this.
const MAX_BODY: usize = 1 << 20;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

pub(super) async fn receive(State(shared): State<Shared>, request: Request) -> (StatusCode, &'static str) {
    let (code, result, text) = handle(&shared, request).await;
    shared.handles.metrics.webhook(result);
    if code.is_client_error() || code.is_server_error() {
        // Whoever can reach the port can make it fail: the first, the second, the fourth … failure is logged.
        let count = shared.rejected.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(result, rejected_so_far = count, "a webhook was not accepted: {}", text.trim());
        }
    }
    (code, text)
}

async fn handle(shared: &Shared, request: Request) -> (StatusCode, &'static str, &'static str) {
    let Some(source) = shared.webhook_secret.clone() else {
        return (
            StatusCode::FORBIDDEN,
            "not-configured",
            "webhooks are off: name a file with the secret as `webhook.secret-file`, or set DROVER_WEBHOOK_SECRET\n",
        );
    };
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > MAX_BODY as u64) {
        return too_large();
    }
    let body = match tokio::time::timeout(BODY_TIME, read(body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return refusal,
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "too-slow", "the body took too long\n"),
    };
    // Read at each call, so that a new secret works without a restart.
    let secret = match tokio::task::spawn_blocking(move || source.read()).await {
        Ok(Ok(secret)) => secret,
        Ok(Err(e)) => {
            tracing::error!("{e}");
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                "no-secret",
                "the webhook secret cannot be read; see the log\n",
            );
        }
        Err(_) => return (StatusCode::INTERNAL_SERVER_ERROR, "no-secret", "the webhook secret cannot be read\n"),
    };
    match check(&parts.headers, &body, secret.expose().as_bytes()) {
        Verdict::Signed => {}
        Verdict::Unsigned => {
            return (
                StatusCode::UNAUTHORIZED,
                "unsigned",
                "no signature: set the secret in the forge's webhook settings (X-Hub-Signature-256, X-Gitlab-Token or X-Gitea-Signature)\n",
            );
        }
        Verdict::Wrong => return (StatusCode::FORBIDDEN, "wrong-signature", "the signature is wrong\n"),
    }
    match shared.handles.hints.try_send(Hint::Look) {
        // A full channel means that a look is due anyway.
        Ok(()) | Err(TrySendError::Full(_)) => (StatusCode::ACCEPTED, "accepted", "looking\n"),
        Err(TrySendError::Closed(_)) => (StatusCode::SERVICE_UNAVAILABLE, "ending", "the daemon is ending\n"),
    }
}

fn too_large() -> (StatusCode, &'static str, &'static str) {
    (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is larger than 1 MiB\n")
}

async fn read(body: Body) -> Result<axum::body::Bytes, (StatusCode, &'static str, &'static str)> {
    // The one other error is a caller that went away, who does not read the answer.
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| too_large())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Signed,
    Unsigned,
    Wrong,
}

/// Headers that carry an HMAC-SHA256 of the body in hex, and what stands before it. SHA-1 (`X-Hub-Signature`) does not
/// count.
const SIGNATURES: [(&str, &str); 4] = [
    ("x-hub-signature-256", "sha256="),
    ("x-gitea-signature", ""),
    ("x-forgejo-signature", ""),
    ("x-gogs-signature", ""),
];

/// Whether a call comes from somebody who knows the secret. Comparisons take the same time wherever they fail.
fn check(headers: &HeaderMap, body: &[u8], secret: &[u8]) -> Verdict {
    let mut verdict = Verdict::Unsigned;
    for (name, prefix) in SIGNATURES {
        for value in headers.get_all(name) {
            let given = value.to_str().ok().and_then(|v| hex(v.strip_prefix(prefix)?));
            if given.is_some_and(|given| mac(secret, body).is_some_and(|m| m.verify_slice(&given).is_ok())) {
                return Verdict::Signed;
            }
            verdict = Verdict::Wrong;
        }
    }
    for token in headers.get_all("x-gitlab-token") {
        // GitLab sends the secret itself. Comparing keyed digests hides its length as well.
        let (ours, theirs) = (mac(secret, secret), mac(secret, token.as_bytes()));
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours.verify(&theirs.finalize().into_bytes()).is_ok()
        {
            return Verdict::Signed;
        }
        verdict = Verdict::Wrong;
    }
    verdict
}

fn mac(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC takes keys of any length, so this is always `Some`; an error would mean "not signed".
    Some(Hmac::<Sha256>::new_from_slice(key).ok()?.chain_update(message))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.trim().as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    bytes
        .chunks(2)
        .map(|pair| match pair {
            [a, b] => {
                let digit = |c: &u8| (*c as char).to_digit(16);
                u8::try_from(digit(a)? * 16 + digit(b)?).ok()
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};
    use std::sync::Arc;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_bytes(v.as_bytes()).unwrap()))
            .collect()
    }

    // From GitHub's documentation of webhook validation.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const DIGEST: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn the_forges_signatures_are_accepted() {
        let github = format!("sha256={DIGEST}");
        assert_eq!(check(&headers(&[("x-hub-signature-256", &github)]), BODY, SECRET), Verdict::Signed);
        assert_eq!(check(&headers(&[("x-gitea-signature", DIGEST)]), BODY, SECRET), Verdict::Signed);
        assert_eq!(check(&headers(&[("x-gitlab-token", "It's a Secret to Everybody")]), BODY, SECRET), Verdict::Signed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let (daemon, handles) = crate::daemon::Daemon::new(Arc::new(Nothing), Arc::new(Nothing), Default::default());
        let webhook_secret = Some(crate::source::SecretSource::Value(crate::model::Secret::new("s".into())));
        let shared = Shared { handles, webhook_secret, rejected: Arc::default() };
        let body = Body::from_stream(futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>());
        let began = tokio::time::Instant::now();
        let (code, _) = receive(State(shared.clone()), Request::new(body)).await;
        assert_eq!((code, began.elapsed()), (StatusCode::REQUEST_TIMEOUT, BODY_TIME));
        // One that never ends is cut at the limit.
        let chunk = || Some((Ok::<_, std::io::Error>(axum::body::Bytes::from_static(&[b'x'; 65536])), ()));
        let endless = Body::from_stream(futures::stream::unfold((), move |()| std::future::ready(chunk())));
        let (code, _) = receive(State(shared.clone()), Request::new(endless)).await;
        assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(shared.handles.metrics.encode().unwrap().contains("drover_webhooks_total{result=\"too-slow\"} 1"));
        drop(daemon);
    }

    struct Nothing;

    #[async_trait::async_trait]
    impl crate::daemon::RevisionSource for Nothing {
        async fn fetch(
            &self,
            _: &tokio_util::sync::CancellationToken,
        ) -> Result<crate::daemon::Found, crate::source::git::GitError> {
            std::future::pending().await
        }
        async fn good(&self) -> Option<crate::daemon::Found> {
            None
        }
        async fn mark_good(&self, _: &str) -> Result<(), crate::source::git::GitError> {
            Ok(())
        }
        fn distrust(&self) {}
        fn watched(&self) -> Option<std::path::PathBuf> {
            None
        }
        fn describe(&self) -> (String, String, String) {
            Default::default()
        }
    }

    #[async_trait::async_trait]
    impl crate::daemon::PassRunner for Nothing {
        async fn check(&self, _: &str) -> crate::daemon::Checked {
            crate::daemon::Checked::Valid
        }
        async fn run(
            &self,
            _: crate::daemon::PassRequest,
            _: crate::daemon::PassWatch,
            _: crate::execute::Stop,
        ) -> crate::daemon::PassSummary {
            crate::daemon::PassSummary::default()
        }
    }

    #[test]
    fn everything_else_is_not() {
        let github = format!("sha256={DIGEST}");
        assert_eq!(check(&headers(&[]), BODY, SECRET), Verdict::Unsigned);
        assert_eq!(check(&headers(&[("x-hub-signature", "sha1=00")]), BODY, SECRET), Verdict::Unsigned);
        for (name, value) in [
            ("x-hub-signature-256", DIGEST),
            ("x-hub-signature-256", "sha256="),
            ("x-hub-signature-256", "sha256=zz"),
            ("x-hub-signature-256", "sha256=é"),
            ("x-gitea-signature", &DIGEST[..62]),
            ("x-gitea-signature", ""),
            ("x-gitlab-token", ""),
            ("x-gitlab-token", "It's a Secret to Everybod"),
            ("x-gitlab-token", "It's a Secret to Everybody "),
        ] {
            assert_eq!(check(&headers(&[(name, value)]), BODY, SECRET), Verdict::Wrong, "{name}: {value}");
        }
        assert_eq!(check(&headers(&[("x-hub-signature-256", &github)]), b"Hello, World?", SECRET), Verdict::Wrong);
        assert_eq!(check(&headers(&[("x-hub-signature-256", &github)]), BODY, b"other"), Verdict::Wrong);
    }
}
