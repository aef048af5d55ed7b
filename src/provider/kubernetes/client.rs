//! Requests to one API server: each with a deadline, at the pace that the manifest allows, and none while the server is known
//! to be away.
//!
//! *Guarantees*
//! - Every request ends by its deadline; an answer has at most [`MAX_BODY`] bytes.
//! - What was asked too much for (429) was not done, whatever it was: it is asked again after as long as the server says,
//!   within the deadline. A read is also tried again where the way broke or the server had a fault. **A write is not**: its
//!   answer may have been lost after the deed was done, so whoever wrote looks first (the executor does, before each attempt).
//! - After [`FAILURES`] failures of the way in a row the server is left alone for a while, which grows; requests then fail at
//!   once, so one dead cluster costs a pass nothing.
//! - No object is ever replaced as a whole (PUT): there is no method for it.

use super::error::{Fault, FaultKind};
use super::status::Status;
use crate::kind::cluster::Limits;
use crate::model::ObjectRef;
use crate::observed::Right;
use http::header::{ACCEPT, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most bytes of an answer: a page of large objects is a few MiB.
pub(super) const MAX_BODY: usize = 64 << 20;
/// Most attempts at a request.
const ATTEMPTS: u32 = 4;
/// Pause before a read is tried again; doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest time that a server can make Drover wait by one Retry-After.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Failures of the way in a row after which a server is left alone.
const FAILURES: u32 = 5;
/// How long it is left alone at first; doubles with each further failure.
const FIRST_REST: Duration = Duration::from_secs(5);
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long a right that Drover has is not asked for again. One that it does not have is asked for each time.
const ALLOWED: Duration = Duration::from_secs(300);

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    /// In words: `list Subscription`.
    pub during: &'a str,
    /// The object, where it is about one.
    pub object: Option<&'a ObjectRef>,
    method: Method,
    /// Path and query.
    target: String,
    body: Option<(&'static str, Vec<u8>)>,
    accept: &'static str,
}

impl<'a> Ask<'a> {
    /// A read.
    pub fn get(during: &'a str, target: impl Into<String>) -> Self {
        let target = target.into();
        Self { during, object: None, method: Method::GET, target, body: None, accept: "application/json" }
    }

    /// A new object.
    pub fn create(during: &'a str, target: impl Into<String>, object: &Value) -> Self {
        let body = Some(("application/json", object.to_string().into_bytes()));
        Self { method: Method::POST, body, ..Self::get(during, target) }
    }

    /// A server-side apply.
    pub fn apply(during: &'a str, target: impl Into<String>, object: &Value) -> Self {
        // JSON is YAML; the server wants the name of this form.
        let body = Some(("application/apply-patch+yaml", object.to_string().into_bytes()));
        Self { method: Method::PATCH, body, ..Self::get(during, target) }
    }

    /// A JSON Patch.
    pub fn patch(during: &'a str, target: impl Into<String>, operations: &[Value]) -> Self {
        let body = Some(("application/json-patch+json", Value::from(operations.to_vec()).to_string().into_bytes()));
        Self { method: Method::PATCH, body, ..Self::get(during, target) }
    }

    /// A deletion.
    pub fn delete(during: &'a str, target: impl Into<String>, options: &Value) -> Self {
        let body = Some(("application/json", options.to_string().into_bytes()));
        Self { method: Method::DELETE, body, ..Self::get(during, target) }
    }

    /// About this object.
    pub fn of(self, object: &'a ObjectRef) -> Self {
        Self { object: Some(object), ..self }
    }

    /// Only the metadata of objects.
    pub fn metadata_only(self) -> Self {
        Self { accept: "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json", ..self }
    }

    /// A watch that carries the metadata of objects only.
    pub fn metadata_only_events(self) -> Self {
        Self { accept: "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json", ..self }
    }

    /// A question in the form of an object (a review): it changes nothing and can be asked again.
    fn is_read(&self) -> bool {
        self.method == Method::GET
            || self.target.contains("/selfsubjectaccessreviews")
            || self.target.contains("dryRun=All")
    }
}

/// An answer that is a success.
#[derive(Debug)]
pub(super) struct Answer<T> {
    /// The body.
    pub value: T,
    /// How far the server's clock is from ours, in milliseconds: positive where it is ahead. To about a second.
    pub skew_millis: Option<i64>,
}

/// A connection to one API server.
pub(super) struct Connection {
    pub cluster: String,
    /// Where it leads.
    pub server: String,
    /// When its credentials end.
    pub credentials_end: Option<Timestamp>,
    /// The CA of the address, as a kubeconfig writes it.
    pub ca: Option<String>,
    client: kube::Client,
    timeout: Duration,
    pace: Pace,
    breaker: Breaker,
    /// Rights that Drover has, and when it was told so.
    allowed: Mutex<BTreeMap<Right, Instant>>,
}

impl Connection {
    pub fn new(
        cluster: &str,
        server: String,
        (credentials_end, ca): (Option<Timestamp>, Option<String>),
        client: kube::Client,
        limits: &Limits,
    ) -> Self {
        let timeout = limits.timeout.duration().max(Duration::from_millis(1));
        let (pace, breaker) = (Pace::new(limits), Breaker::default());
        let cluster = cluster.to_owned();
        Self { cluster, server, credentials_end, ca, client, timeout, pace, breaker, allowed: Mutex::default() }
    }

    /// Whether Drover has been told lately that it has a right.
    pub fn is_known_to_allow(&self, right: &Right) -> bool {
        let allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        allowed.get(right).is_some_and(|told| told.elapsed() < ALLOWED)
    }

    /// Drover has a right.
    pub fn allows(&self, right: &Right) {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner).insert(right.clone(), Instant::now());
    }

    /// Asks, by `deadline` at the latest.
    pub async fn ask<T: DeserializeOwned>(&self, ask: Ask<'_>, deadline: Instant) -> Result<Answer<T>, Fault> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let fault = match self.once(&ask, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let wait = match fault.kind {
                // It was not done, so it can be asked again, whatever it is.
                FaultKind::TooMany => fault.after.unwrap_or(pause).min(LONGEST_WAIT),
                FaultKind::Connection | FaultKind::Server if ask.is_read() => {
                    fault.after.unwrap_or(pause).min(LONGEST_WAIT)
                }
                _ => return Err(fault),
            };
            let wait = jittered(wait);
            if attempt >= ATTEMPTS || Instant::now() + wait >= deadline {
                return Err(fault);
            }
            tracing::debug!(cluster = self.cluster, error = %fault, wait = ?wait, "asked again after a pause");
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        unreachable!("the loop ends by its number of attempts")
    }

    /// Opens a stream of lines (a watch): the response as soon as it begins.
    pub async fn open(&self, ask: Ask<'_>, deadline: Instant) -> Result<Response<Body>, Fault> {
        let response = self.send(&ask, deadline).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = self.collect(&ask, body, deadline).await?;
        Err(self.refusal(&ask, parts.status.as_u16(), &parts.headers, &bytes))
    }

    async fn once<T: DeserializeOwned>(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Answer<T>, Fault> {
        let deadline = deadline.min(Instant::now() + self.timeout);
        let response = self.send(ask, deadline).await?;
        let (parts, body) = response.into_parts();
        let bytes = self.collect(ask, body, deadline).await?;
        if !parts.status.is_success() {
            return Err(self.refusal(ask, parts.status.as_u16(), &parts.headers, &bytes));
        }
        let value = serde_json::from_slice(&bytes).map_err(|e| {
            // Not its text: it may have a secret in it.
            let what =
                if bytes.trim_ascii_start().starts_with(b"<") { "an HTML page" } else { "no JSON that is known" };
            let why = format!("the answer is {what} (at byte {} of {})", e.column(), bytes.len());
            self.fault(ask, FaultKind::BadAnswer, why).hint(
                "look whether something between here and the API server answers in its place: a proxy, a login page",
            )
        })?;
        Ok(Answer { value, skew_millis: skew(&parts.headers) })
    }

    async fn send(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Response<Body>, Fault> {
        self.breaker.check().map_err(|(left, why)| {
            let why = format!(
                "not asked for another {} s, because it failed {FAILURES} times in a row: {why}",
                left.as_secs() + 1
            );
            self.fault(ask, FaultKind::Resting, why)
        })?;
        let late = |what: &str| self.fault(ask, FaultKind::Timeout, what.to_owned());
        if !self.pace.turn(deadline).await {
            return Err(late("its turn did not come in time").hint("raise `limits.requestsPerSecond` of the Cluster"));
        }
        let mut request = Request::builder().method(ask.method.clone()).uri(&ask.target).header(ACCEPT, ask.accept);
        let body = match &ask.body {
            None => Body::empty(),
            Some((form, bytes)) => {
                request = request.header(CONTENT_TYPE, *form);
                Body::from(bytes.clone())
            }
        };
        let request = request
            .body(body)
            .map_err(|e| self.fault(ask, FaultKind::Invalid, format!("this cannot be asked: {e}")))?;
        let began = Instant::now();
        let sent = tokio::time::timeout_at(deadline, self.client.send(request)).await;
        let result = match sent {
            Err(_) => {
                let seconds = began.elapsed().as_secs_f64();
                Err(late(&format!("no answer within {seconds:.1} s")).hint(
                    "look whether the API server hangs, or a firewall drops the packets; `limits.timeout` says how long one \
                     request may take",
                ))
            }
            Ok(Err(e)) => Err(Fault::of_client(&self.cluster, ask.during, ask.object, &e)),
            Ok(Ok(response)) => Ok(response),
        };
        match &result {
            Err(fault) => self.breaker.failed(fault),
            Ok(_) => self.breaker.went_well(),
        }
        result
    }

    async fn collect(&self, ask: &Ask<'_>, mut body: Body, deadline: Instant) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        loop {
            let frame = tokio::time::timeout_at(deadline, body.frame()).await;
            let frame = match frame {
                Err(_) => return Err(self.fault(ask, FaultKind::Timeout, "the answer stopped in the middle")),
                Ok(None) => return Ok(bytes),
                Ok(Some(Err(e))) => {
                    let fault = Fault::of_client(&self.cluster, ask.during, ask.object, &e);
                    self.breaker.failed(&fault);
                    return Err(fault);
                }
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > MAX_BODY {
                    let why = format!("the answer has more than {MAX_BODY} bytes");
                    return Err(self.fault(ask, FaultKind::BadAnswer, why));
                }
                bytes.extend_from_slice(&data);
            }
        }
    }

    fn refusal(&self, ask: &Ask<'_>, code: u16, headers: &HeaderMap, bytes: &[u8]) -> Fault {
        let mut status: Status = serde_json::from_slice(bytes).unwrap_or_default();
        if status.message.is_empty() && !bytes.trim_ascii_start().starts_with(b"{") {
            // A proxy's own words, as far as they are few.
            let text = String::from_utf8_lossy(bytes);
            status.message = match text.trim() {
                short if short.len() <= 200 && !short.is_empty() => format!("HTTP {code}: {short}"),
                _ => format!("HTTP {code}"),
            };
        }
        status.code = code;
        let after = headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse().ok());
        let after = after.or(status.details.as_ref().and_then(|d| d.retry_after_seconds)).map(Duration::from_secs);
        let mut fault = Fault::of_status(&self.cluster, ask.during, ask.object, status);
        fault.after = after;
        fault
    }

    fn fault(&self, ask: &Ask<'_>, kind: FaultKind, why: impl Into<String>) -> Fault {
        Fault::new(&self.cluster, ask.during, kind, why).of(ask.object)
    }
}

/// A part that is not a path's own end: as it stands in a URL (RFC 3986, 2.3; names in Kubernetes have few others).
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// How far the server's clock is ahead, by its `Date` (RFC 9110, 6.6.1), which has whole seconds.
fn skew(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let apart = theirs.as_millisecond() + 500 - Timestamp::now().as_millisecond();
    Some(apart)
}

/// Up to a quarter more, so that many do not come back in one moment.
fn jittered(wait: Duration) -> Duration {
    // The standard library's hash keys are random for each use: enough for this, without a generator.
    let random = RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64;
    wait.mul_f64(1.0 + random / 4.0)
}

/// So many requests a second on average, and so many at once: each has its place in a virtual queue.
struct Pace {
    each: Duration,
    burst: Duration,
    /// Where the queue would end if each request took [`Pace::each`].
    booked: Mutex<Instant>,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        let each = Duration::from_secs(1) / limits.requests_per_second.max(1);
        Self { each, burst: each * limits.burst.max(1), booked: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn; false where that is not before the deadline.
    async fn turn(&self, deadline: Instant) -> bool {
        let at = {
            let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let next = (*booked).max(now) + self.each;
            let at = next.checked_sub(self.burst).unwrap_or(now).max(now);
            if at >= deadline {
                return false;
            }
            *booked = next;
            at
        };
        tokio::time::sleep_until(at).await;
        true
    }
}

/// Whether a server is left alone, because it failed again and again.
#[derive(Default)]
struct Breaker(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    in_a_row: u32,
    until: Option<Instant>,
    why: String,
}

impl Breaker {
    /// How long it still rests, and why. When the time is over, requests go through; the next failure makes it longer.
    fn check(&self) -> Result<(), (Duration, String)> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err((left, failures.why.clone())),
            _ => Ok(()),
        }
    }

    fn failed(&self, fault: &Fault) {
        if !fault.is_of_the_way() {
            return;
        }
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        failures.why.clone_from(&fault.why);
        if let Some(further) = failures.in_a_row.checked_sub(FAILURES) {
            let rest = FIRST_REST.saturating_mul(1 << further.min(8)).min(LONGEST_REST);
            failures.until = Some(Instant::now() + jittered(rest));
        }
    }

    fn went_well(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Failures::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Span;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_through_and_the_rest_at_its_pace() {
        let pace = Pace::new(&Limits { requests_per_second: 10, burst: 5, timeout: Span(1) });
        let start = Instant::now();
        let far = start + Duration::from_secs(60);
        for _ in 0..5 {
            assert!(pace.turn(far).await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            assert!(pace.turn(far).await);
        }
        assert_eq!(start.elapsed().as_millis(), 1000);
        assert!(!pace.turn(Instant::now()).await, "its turn would be after its deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_is_left_alone_for_longer_and_longer() {
        let breaker = Breaker::default();
        let fault = |kind| Fault::new("x", "get", kind, "refused");
        for _ in 0..10 {
            breaker.failed(&fault(FaultKind::Forbidden));
        }
        assert!(breaker.check().is_ok(), "an answer is an answer");
        for _ in 0..FAILURES {
            assert!(breaker.check().is_ok());
            breaker.failed(&fault(FaultKind::Connection));
        }
        let (first, why) = breaker.check().unwrap_err();
        assert!((5..=7).contains(&first.as_secs()) && why == "refused", "{first:?} {why}");
        tokio::time::advance(first).await;
        assert!(breaker.check().is_ok(), "tried again");
        breaker.failed(&fault(FaultKind::Timeout));
        assert!(breaker.check().unwrap_err().0 > first);
        tokio::time::advance(LONGEST_REST).await;
        breaker.went_well();
        breaker.failed(&fault(FaultKind::Connection));
        assert!(breaker.check().is_ok(), "it begins anew");
    }

    #[test]
    fn parts_of_a_path_cannot_leave_it() {
        assert_eq!(escaped("migration-controller.v1"), "migration-controller.v1");
        assert_eq!(escaped("../x?y=z"), "..%2Fx%3Fy%3Dz");
        assert_eq!(escaped("system:x"), "system%3Ax");
    }
}
