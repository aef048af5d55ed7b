//! A front: a proxy before an API server that misbehaves on demand.
//!
//! It speaks TLS with a certificate of the server's CA and HTTP/1.1, and hands requests on with the credentials that they
//! carry: that must be a token, a client certificate does not get through. It runs on a thread of its own, so programs and
//! other runtimes can use it. It keeps a list of what it saw, so a test can say what must never have been asked.
//!
//! Faults of connections: [`Front::refuse`], [`Front::hang`], [`Front::cut`], an expired certificate. Faults of requests:
//! [`Rule`]s, of which the first that fits is used, and used up if it was for so many times only.

use super::{Kubeconfig, Server};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What a request wants, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    /// A whole object replaced: PUT.
    Update,
    /// Also server-side apply.
    Patch,
    Delete,
    DeleteCollection,
    /// Not about a resource: discovery, version, health.
    Other,
}

impl Verb {
    const WRITES: [Self; 5] = [Self::Create, Self::Update, Self::Patch, Self::Delete, Self::DeleteCollection];
}

/// A request that the front has seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub verb: Verb,
    /// The API group; empty for the core.
    pub group: String,
    /// Plural, with its subresource: `configmaps`, `migclusters`, `namespaces/finalize`.
    pub resource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// Path and query as sent.
    pub target: String,
    /// The answer's code; none while it is on its way and where there was none.
    pub code: Option<u16>,
}

impl Seen {
    fn of(method: &Method, uri: &Uri) -> Self {
        let target = uri.path_and_query().map_or_else(|| uri.path().to_owned(), |t| t.as_str().to_owned());
        let mut parts = uri.path().split('/').filter(|p| !p.is_empty());
        let group = match parts.next() {
            Some("api") => Some(String::new()),
            Some("apis") => parts.next().map(str::to_owned),
            _ => None,
        };
        let mut rest: Vec<&str> = parts.skip(1).collect(); // without the version
        let mut namespace = None;
        if rest.len() > 2 && rest[0] == "namespaces" && !matches!(rest[2], "status" | "finalize") {
            namespace = Some(rest[1].to_owned());
            rest.drain(..2);
        }
        let name = rest.get(1).map(|n| (*n).to_owned());
        let (Some(group), Some(plural)) = (group, rest.first()) else {
            let (group, resource, namespace, name) = Default::default();
            return Self { verb: Verb::Other, group, resource, namespace, name, target, code: None };
        };
        let resource = rest.get(2).map_or_else(|| (*plural).to_owned(), |sub| format!("{plural}/{sub}"));
        let query = uri.query().unwrap_or_default();
        let verb = match (method, &name) {
            (&Method::GET, _) if query.split('&').any(|q| matches!(q, "watch=true" | "watch=1" | "watch")) => {
                Verb::Watch
            }
            (&Method::GET, Some(_)) => Verb::Get,
            (&Method::GET, None) => Verb::List,
            (&Method::POST, _) => Verb::Create,
            (&Method::PUT, _) => Verb::Update,
            (&Method::PATCH, _) => Verb::Patch,
            (&Method::DELETE, Some(_)) => Verb::Delete,
            (&Method::DELETE, None) => Verb::DeleteCollection,
            _ => Verb::Other,
        };
        Self { verb, group, resource, namespace, name, target, code: None }
    }

    /// Whether it asks for a further page of a list.
    fn is_continued(&self) -> bool {
        self.verb == Verb::List && self.target.contains("continue=")
    }
}

/// Which requests go wrong, how, and how often.
#[derive(Clone, Debug)]
pub struct Rule {
    verbs: Option<Vec<Verb>>,
    resource: Option<String>,
    name: Option<String>,
    only_continued: bool,
    skip: u32,
    times: Option<u32>,
    answer: Answer,
}

/// What becomes of such a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The server is not asked; this status comes back.
    Status { code: u16, reason: &'static str, message: String, retry_after: Option<u32> },
    /// A watch that starts well and then says that its beginning is too old (410, in the stream).
    GoneInWatch,
    /// The server is asked so much later.
    Delay(Duration),
    /// No answer, and the connection stays open.
    Hang,
    /// The connection is cut; the server was not asked.
    Cut,
    /// The server does it, and the connection is cut before its answer arrives.
    DoneAndCut,
    /// The server's answer is cut after so many bytes.
    CutAfter(usize),
}

impl Answer {
    fn status(code: u16, reason: &'static str, message: &str) -> Self {
        Self::Status { code, reason, message: message.to_owned(), retry_after: None }
    }

    /// 409: somebody else wrote in between.
    pub fn conflict() -> Self {
        Self::status(
            409,
            "Conflict",
            "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 401: the token is not known, or not any more.
    pub fn unauthorized() -> Self {
        Self::status(401, "Unauthorized", "Unauthorized")
    }

    /// 403 as an admission webhook gives it.
    pub fn denied_by_webhook(message: &str) -> Self {
        Self::status(403, "Forbidden", &format!("admission webhook \"test.example.com\" denied the request: {message}"))
    }

    /// 429 with Retry-After.
    pub fn too_many_requests(seconds: u32) -> Self {
        let message = "the server has received too many requests and has asked us to try again later".to_owned();
        Self::Status { code: 429, reason: "TooManyRequests", message, retry_after: Some(seconds) }
    }

    /// 500.
    pub fn internal_error() -> Self {
        Self::status(500, "InternalError", "Internal error occurred: etcdserver: request timed out")
    }

    /// 410 as a list's further page gives it when its beginning is compacted away.
    pub fn expired() -> Self {
        Self::status(410, "Expired", "The provided continue parameter is too old to display a consistent list result.")
    }
}

impl Rule {
    /// Every request about a resource and every other.
    pub fn on_all() -> Self {
        let answer = Answer::Hang;
        Self { verbs: None, resource: None, name: None, only_continued: false, skip: 0, times: None, answer }
    }

    /// Requests of these verbs.
    pub fn on(verbs: &[Verb]) -> Self {
        Self { verbs: Some(verbs.to_vec()), ..Self::on_all() }
    }

    /// Everything that writes.
    pub fn on_writes() -> Self {
        Self::on(&Verb::WRITES)
    }

    /// Further pages of lists.
    pub fn on_further_pages() -> Self {
        Self { only_continued: true, ..Self::on(&[Verb::List]) }
    }

    /// Only of this resource: plural, with its subresource.
    #[must_use]
    pub fn of(self, resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..self }
    }

    /// Only of the object of this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Only after so many that go well.
    #[must_use]
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Only so many times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// What becomes of them.
    #[must_use]
    pub fn answers(self, answer: Answer) -> Self {
        Self { answer, ..self }
    }

    fn fits(&self, seen: &Seen) -> bool {
        self.verbs.as_ref().is_none_or(|v| v.contains(&seen.verb))
            && self.resource.as_ref().is_none_or(|r| *r == seen.resource)
            && (self.name.is_none() || self.name == seen.name)
            && (!self.only_continued || seen.is_continued())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Refuse,
    Hang,
}

struct State {
    upstream: String,
    client: Client<HttpsConnector<HttpConnector>, Incoming>,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    mode: watch::Sender<Mode>,
    /// The connections of now; a new one after each cut.
    open: Mutex<CancellationToken>,
}

/// The front of a server.
pub struct Front<'server> {
    server: &'server Server,
    port: u16,
    state: Arc<State>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl<'server> Front<'server> {
    /// A front that lets everything through.
    pub fn of(server: &'server Server) -> Self {
        Self::with_certificate(server, "server")
    }

    /// A front whose certificate ended years ago.
    pub fn with_expired_certificate(server: &'server Server) -> Self {
        Self::with_certificate(server, "server-expired")
    }

    fn with_certificate(server: &'server Server, certificate: &str) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(server_tls(server.folder(), certificate)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls(server.folder()))
            .https_only()
            .enable_http1()
            .build();
        let state = Arc::new(State {
            upstream: format!("127.0.0.1:{}", server.port()),
            client: Client::builder(TokioExecutor::new()).build(connector),
            rules: Mutex::default(),
            seen: Mutex::default(),
            mode: watch::Sender::new(Mode::Open),
            open: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let (theirs, ended) = (Arc::clone(&state), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, port, acceptor, theirs) => {}
                    () = ended.cancelled() => {}
                }
            });
        });
        Self { server, port, state, stop, thread: Some(thread) }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The administrator's kubeconfig through the front.
    pub fn admin(&self) -> Kubeconfig {
        self.with_token(&self.server.admin_token())
    }

    /// A kubeconfig with this token through the front.
    pub fn with_token(&self, token: &str) -> Kubeconfig {
        self.server.with_token("front", &self.url(), token)
    }

    /// From now on, before the rules that are there.
    pub fn fault(&self, rule: Rule) {
        lock(&self.state.rules).insert(0, rule);
    }

    /// Everything goes through again: no rule, and connections are taken.
    pub fn heal(&self) {
        lock(&self.state.rules).clear();
        self.state.mode.send_replace(Mode::Open);
    }

    /// Nobody listens any more, and open connections are cut.
    pub fn refuse(&self) {
        self.state.mode.send_replace(Mode::Refuse);
        self.cut();
    }

    /// Connections are taken, and nothing more is ever said, in open ones too.
    pub fn hang(&self) {
        self.state.mode.send_replace(Mode::Hang);
    }

    /// Cuts what is open now.
    pub fn cut(&self) {
        std::mem::take(&mut *lock(&self.state.open)).cancel();
    }

    /// All requests until now, in the order of their arrival.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// Forgets what it saw.
    pub fn forget(&self) {
        lock(&self.state.seen).clear();
    }

    /// Writes among what it saw.
    pub fn writes(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|s| Verb::WRITES.contains(&s.verb)).collect()
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(first: std::net::TcpListener, port: u16, acceptor: TlsAcceptor, state: Arc<State>) {
    let mut mode = state.mode.subscribe();
    let mut listener = Some(TcpListener::from_std(first).unwrap());
    loop {
        if *mode.borrow_and_update() == Mode::Refuse {
            listener = None;
            mode.changed().await.unwrap();
            continue;
        }
        let taken = match &listener {
            Some(open) => open,
            None => listener.insert(TcpListener::bind(("127.0.0.1", port)).await.unwrap()),
        };
        let stream = tokio::select! {
            accepted = taken.accept() => accepted.unwrap().0,
            changed = mode.changed() => { changed.unwrap(); continue }
        };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        let cut = lock(&state.open).clone();
        tokio::spawn(async move {
            let connection = async {
                go_on(&state).await;
                let Ok(tls) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(|request| answer(request, Arc::clone(&state)));
                // A client that goes away, or a fault that cuts: both are what a front is for.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
            };
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

/// Waits while the front hangs.
async fn go_on(state: &State) {
    let mut mode = state.mode.subscribe();
    let _ = mode.wait_for(|m| *m != Mode::Hang).await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, std::io::Error> {
    go_on(&state).await;
    // A connection that was taken in the very moment in which connections were forbidden.
    if *state.mode.borrow() == Mode::Refuse {
        return Err(cut_off());
    }
    let seen = Seen::of(request.method(), request.uri());
    let number = {
        let mut all = lock(&state.seen);
        all.push(seen.clone());
        all.len() - 1
    };
    let response = match take_rule(&state, &seen) {
        None => forward(request, &state, None).await,
        Some(Answer::Delay(time)) => {
            tokio::time::sleep(time).await;
            forward(request, &state, None).await
        }
        Some(Answer::Status { code, reason, message, retry_after }) => {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code });
            let mut response = Response::builder().status(code).header("content-type", "application/json");
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            Ok(response.body(whole(status.to_string())).unwrap())
        }
        Some(Answer::GoneInWatch) => {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "too old resource version: 1 (2)", "reason": "Expired", "code": 410 });
            let event = json!({ "type": "ERROR", "object": status }).to_string() + "\n";
            Ok(Response::builder().header("content-type", "application/json").body(whole(event)).unwrap())
        }
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::Cut) => Err(cut_off()),
        Some(Answer::DoneAndCut) => {
            let _ = forward(request, &state, None).await?.into_body().collect().await;
            Err(cut_off())
        }
        Some(Answer::CutAfter(bytes)) => forward(request, &state, Some(bytes)).await,
    };
    if let (Ok(response), Some(seen)) = (&response, lock(&state.seen).get_mut(number)) {
        seen.code = Some(response.status().as_u16());
    }
    response
}

/// The first rule that fits, counted.
fn take_rule(state: &State, seen: &Seen) -> Option<Answer> {
    let mut rules = lock(&state.rules);
    let place = rules.iter_mut().position(|rule| {
        if !rule.fits(seen) {
            return false;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            return false;
        }
        rule.times != Some(0)
    })?;
    let rule = &mut rules[place];
    rule.times = rule.times.map(|t| t - 1);
    Some(rule.answer.clone())
}

async fn forward(
    mut request: Request<Incoming>,
    state: &Arc<State>,
    limit: Option<usize>,
) -> Result<Response<Body>, std::io::Error> {
    let target = request.uri().path_and_query().map_or("/", |t| t.as_str());
    let uri = format!("https://{}{target}", state.upstream).parse().unwrap();
    *request.uri_mut() = uri;
    request.headers_mut().remove("host");
    let response = state.client.request(request).await.map_err(std::io::Error::other)?;
    let (parts, incoming) = response.into_parts();
    // Frame by frame as the client takes them, so that a watch can hang or be cut in its middle; and a client that goes
    // away ends the watch at the server too.
    let start = Passing { incoming, left: limit, state: Arc::clone(state) };
    let frames = futures::stream::unfold(start, |mut passing| async move {
        if passing.left == Some(0) {
            return Some((Err(cut_off()), Passing { left: None, ..passing }));
        }
        let mut frame = passing.incoming.frame().await?.map_err(std::io::Error::other);
        go_on(&passing.state).await;
        if let (Some(left), Ok(data)) = (passing.left, frame.as_mut().map(|f| f.data_mut())) {
            let data = data.map(|d| {
                d.truncate(left);
                d.len()
            });
            passing.left = Some(left - data.unwrap_or(0));
        }
        Some((frame, passing))
    });
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

/// An answer on its way through.
struct Passing {
    incoming: Incoming,
    /// Bytes until it is cut.
    left: Option<usize>,
    state: Arc<State>,
}

fn cut_off() -> std::io::Error {
    std::io::Error::other("cut off by the test")
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn server_tls(folder: &Path, certificate: &str) -> ServerConfig {
    let chain = CertificateDer::pem_file_iter(folder.join(format!("{certificate}.crt"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{certificate}.key"))).unwrap();
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap()
}

fn client_tls(folder: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt")).unwrap()).unwrap();
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
