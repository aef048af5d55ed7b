//! Connections and threads. No libvirt call is bounded by itself (a dropped SYN costs two minutes, a stopped daemon costs
//! for ever), so each runs on a thread of its own and whoever waits for it is freed at a deadline.
//!
//! *Guarantees*: nothing here blocks an executor thread. A call that hangs holds its own thread and no other; how many a
//! host may hold is bounded ([`Options::max_hung_calls`]), after which the host is refused at once until one comes back. A
//! connection over which a call hung or broke is not used again.

use super::error::{During, Fault};
use super::hardware::Silence;
use super::{Options, ffi};
use crate::kind::host::{Connection, HostSpec, Transport, parse_uri};
use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, oneshot};
use virt::connect::Connect;

/// Keepalive of a connection: a dead peer is noticed after interval × (count + 1) = 30 s.
const KEEPALIVE_INTERVAL_SECONDS: i32 = 5;
const KEEPALIVE_COUNT: u32 = 5;

/// How long a failure to connect is told to others before the next attempt: those who waited for the same attempt get its
/// answer, and do not each wait for the deadline again.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// Whether connections may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// `virConnectOpenReadOnly`: libvirt itself refuses every change.
    ReadOnly,
    /// `virConnectOpen`.
    Full,
}

/// The hosts of a provider, by the manifest's name.
pub(super) struct Hosts {
    by_name: BTreeMap<String, Arc<Host>>,
}

impl Hosts {
    /// Opens nothing yet.
    pub(super) fn new(specs: BTreeMap<String, HostSpec>, options: Options, access: Access) -> Self {
        let options = Arc::new(options);
        let by_name = specs
            .into_iter()
            .map(|(name, spec)| {
                let host = Arc::new(Host::new(&name, spec, options.clone(), access));
                (name, host)
            })
            .collect();
        Self { by_name }
    }

    /// A host.
    pub(super) fn get(&self, name: &str) -> Result<&Arc<Host>, Fault> {
        self.by_name.get(name).ok_or_else(|| Fault::Unreachable {
            host: name.to_owned(),
            why: "it is not among the hosts of this provider".into(),
        })
    }

    /// Every other host.
    pub(super) fn others<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Host>> {
        self.by_name.values().filter(move |h| &*h.name != name)
    }
}

/// One host: its address, its connection, and the threads that it holds.
pub(super) struct Host {
    pub(super) name: Arc<str>,
    pub(super) spec: HostSpec,
    options: Arc<Options>,
    access: Access,
    cached: Mutex<Cached>,
    hung: Arc<AtomicUsize>,
    /// The last connection over SSH was waited for in vain.
    silent: AtomicBool,
    /// The last probe of its migration port was waited for in vain.
    pub(super) silence: Silence,
}

enum Cached {
    Nothing,
    Open(Arc<Session>),
    Failed(Instant, Fault),
}

/// An open connection. Dropping it closes the connection on a thread of its own, because a close is a call like any other.
pub(super) struct Session {
    connect: Option<Connect>,
}

impl Session {
    fn new(connect: Connect) -> Self {
        Self { connect: Some(connect) }
    }

    /// The connection; there as long as the session is.
    pub(super) fn connect(&self) -> Option<&Connect> {
        self.connect.as_ref()
    }

    /// Whether the connection is open, as far as this side knows. Asks nobody.
    fn is_alive(&self) -> bool {
        self.connect().is_some_and(|c| c.is_alive().unwrap_or(false))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connect) = self.connect.take() {
            // Where no thread can be had, the closure and the connection in it are dropped here: late is better than leaked.
            let _ = std::thread::Builder::new().name("libvirt-close".into()).spawn(move || drop(connect));
        }
    }
}

impl Host {
    /// Opens nothing yet.
    pub(super) fn new(name: &str, spec: HostSpec, options: Arc<Options>, access: Access) -> Self {
        Self {
            name: name.into(),
            spec,
            options,
            access,
            cached: Mutex::new(Cached::Nothing),
            hung: Arc::new(AtomicUsize::new(0)),
            silent: AtomicBool::new(false),
            silence: Silence::default(),
        }
    }

    /// Whether the operator lets ports be tried.
    pub(super) fn probes_ports(&self) -> bool {
        self.options.probe_ports
    }

    /// The deadline of an ordinary call.
    pub(super) fn call_deadline(&self) -> Duration {
        self.options.call_deadline
    }

    /// Runs a short job on the shared connection. `what` completes "while trying to …".
    pub(super) async fn call<T, F>(&self, what: &str, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    {
        self.call_within(what, self.options.call_deadline, job).await
    }

    /// Runs a job on the shared connection, waiting for it no longer than `deadline`.
    pub(super) async fn call_within<T, F>(&self, what: &str, deadline: Duration, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    {
        let begun = Instant::now();
        let session = self.session(deadline).await?;
        let result = self.on_session(what, deadline.saturating_sub(begun.elapsed()), session.clone(), job).await;
        if result.as_ref().is_err_and(Fault::broke_connection) {
            self.forget(&session).await;
        }
        result
    }

    /// Runs a long job on a connection of its own: libvirt serves five calls of a connection at once, and a hanging one
    /// must not take others with it.
    pub(super) async fn call_alone<T, F>(&self, what: &str, deadline: Duration, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    {
        let session = self.open(deadline).await?;
        self.on_session(what, deadline, session, job).await
    }

    /// A connection of its own, for a caller that works on two hosts at once.
    pub(super) async fn dedicated(&self, deadline: Duration) -> Result<Arc<Session>, Fault> {
        self.open(deadline).await
    }

    /// Runs a job on a connection, waiting for it no longer than `deadline`.
    pub(super) async fn on_session<T, F>(
        &self,
        what: &str,
        deadline: Duration,
        session: Arc<Session>,
        job: F,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    {
        self.on_thread(what, deadline, move || match session.connect() {
            Some(connect) => job(connect),
            None => Err(Fault::odd("connect", "the connection is closed")),
        })
        .await
    }

    /// The shared connection, opened where there is none that lives.
    async fn session(&self, deadline: Duration) -> Result<Arc<Session>, Fault> {
        // Whoever holds the lock is opening, and that is bounded; the others wait and take what comes of it.
        let mut cached = self.cached.lock().await;
        match &*cached {
            Cached::Open(session) if session.is_alive() => return Ok(session.clone()),
            Cached::Failed(at, fault) if at.elapsed() < FAILURE_HOLDS => return Err(fault.clone()),
            _ => {}
        }
        match self.open(deadline).await {
            Ok(session) => {
                *cached = Cached::Open(session.clone());
                Ok(session)
            }
            Err(fault) => {
                *cached = Cached::Failed(Instant::now(), fault.clone());
                Err(fault)
            }
        }
    }

    async fn forget(&self, session: &Arc<Session>) {
        let mut cached = self.cached.lock().await;
        if matches!(&*cached, Cached::Open(s) if Arc::ptr_eq(s, session)) {
            *cached = Cached::Nothing;
        }
    }

    /// Opens a connection within the connect deadline, or `deadline` where that is shorter.
    async fn open(&self, deadline: Duration) -> Result<Arc<Session>, Fault> {
        let unreachable = |why: String| Fault::Unreachable { host: self.name.to_string(), why };
        let connection = parse_uri(&self.spec.uri).map_err(|e| unreachable(e.to_string()))?;
        let uri = full_uri(&connection, &self.options);
        let (access, deadline) = (self.access, deadline.min(self.options.connect_deadline));
        // OpenSSH 9.8 and later shut out an address that keeps connecting without logging in (sshd_config(5),
        // PerSourcePenalties), so an ssh server is probed only after it has once let the deadline pass.
        let is_ssh = connection.transport == Transport::Ssh;
        let probe = self.options.probe_ports && (!is_ssh || self.silent.load(Ordering::Acquire));
        let answer = self
            .on_thread("connect", deadline, move || {
                if probe && let Some(port) = port(&connection) {
                    reach(&connection, port, deadline)?;
                }
                ffi::initialise();
                keep_test_driver(&connection);
                let connect = match access {
                    Access::ReadOnly => Connect::open_read_only(Some(&uri)),
                    Access::Full => Connect::open(Some(&uri)),
                }
                .during("connect")?;
                if connection.driver != "test" {
                    // A driver in this process, or a daemon older than keepalive, has none; the deadlines do without.
                    let _ = connect.set_keep_alive(KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_COUNT);
                }
                Ok(Arc::new(Session::new(connect)))
            })
            .await;
        if is_ssh {
            match &answer {
                Ok(_) => self.silent.store(false, Ordering::Release),
                Err(Fault::Hung { .. }) => self.silent.store(true, Ordering::Release),
                Err(_) => {}
            }
        }
        answer.map_err(|fault| match fault {
            Fault::Libvirt { message, .. } => unreachable(message),
            Fault::Hung { after, .. } => unreachable(format!("no connection within {:.1} s", after.as_secs_f64())),
            other => other,
        })
    }

    /// Runs a blocking job on a new thread and waits for it no longer than `deadline`.
    async fn on_thread<T, F>(&self, what: &str, deadline: Duration, job: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Fault> + Send + 'static,
    {
        let hung = self.hung.load(Ordering::Acquire);
        if hung >= self.options.max_hung_calls {
            return Err(Fault::Exhausted { host: self.name.to_string(), calls: hung });
        }
        let (send, receive) = oneshot::channel();
        let wait = Wait { state: Arc::new(AtomicU8::new(RUNNING)), hung: self.hung.clone() };
        let (state, hung) = (wait.state.clone(), wait.hung.clone());
        std::thread::Builder::new()
            .name(format!("libvirt-{}", self.name))
            .spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                if state.swap(FINISHED, Ordering::AcqRel) == ABANDONED {
                    hung.fetch_sub(1, Ordering::AcqRel);
                }
                let _ = send
                    .send(result.unwrap_or_else(|_| Err(Fault::odd("talk to libvirt", "the client library panicked"))));
            })
            .map_err(|e| Fault::Unreachable {
                host: self.name.to_string(),
                why: format!("no thread to ask it: {e}"),
            })?;
        let answer = tokio::time::timeout(deadline, receive).await;
        drop(wait);
        match answer {
            Ok(Ok(result)) => result.map_err(|f| f.at(&self.name)),
            Ok(Err(_)) => Err(Fault::odd(what, "its thread ended without an answer").at(&self.name)),
            Err(_) => Err(Fault::Hung { host: self.name.to_string(), what: what.to_owned(), after: deadline }),
        }
    }
}

const RUNNING: u8 = 0;
const FINISHED: u8 = 1;
const ABANDONED: u8 = 2;

/// Somebody waits for a thread. Dropped before the thread is done (a deadline, a cancelled future), it counts the thread as
/// hung, until the thread comes back and takes itself out of the count.
struct Wait {
    state: Arc<AtomicU8>,
    hung: Arc<AtomicUsize>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        // Counted first: the thread, seeing that it was abandoned, may subtract at any moment after the exchange.
        self.hung.fetch_add(1, Ordering::AcqRel);
        if self.state.compare_exchange(RUNNING, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.hung.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The port that a transport needs; none where nothing is to be probed.
pub(super) fn port(connection: &Connection) -> Option<u16> {
    // 16514 and 16509: libvirt's own, IANA-registered (checked on the wire; the migration guide swaps them).
    let usual = match connection.transport {
        Transport::Local => return None,
        Transport::Ssh => 22,
        Transport::Tls => 16514,
        Transport::Tcp => 16509,
    };
    Some(connection.port.unwrap_or(usual))
}

/// Makes sure that something listens, so that a packet filter that drops costs the deadline and not two minutes.
fn reach(connection: &Connection, port: u16, deadline: Duration) -> Result<(), Fault> {
    let host = connection.host.trim_start_matches('[').trim_end_matches(']');
    let fail = |why: String| Fault::Unreachable { host: String::new(), why };
    let addresses: Vec<_> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        // Perhaps a name that only ssh's own configuration knows.
        Err(_) if connection.transport == Transport::Ssh => return Ok(()),
        Err(e) => return Err(fail(format!("cannot resolve `{host}`: {e}"))),
    };
    // Each address gets its share: the first may be a dead IPv6 one.
    let share = deadline / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX) * 3 / 4;
    let mut last = format!("`{host}` has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, share.max(Duration::from_millis(1))) {
            Ok(_) => return Ok(()),
            Err(e) => last = format!("cannot connect to {address}: {e}"),
        }
    }
    Err(fail(last))
}

/// The test driver lives in this process and dies with its last connection: one is kept for ever.
fn keep_test_driver(connection: &Connection) {
    static KEPT: OnceLock<Option<Connect>> = OnceLock::new();
    if connection.driver == "test" {
        KEPT.get_or_init(|| Connect::open(Some("test:///default")).ok());
    }
}

/// The URI that is opened: the manifest's, with what the operator configured. `parse_uri` let no parameter through.
fn full_uri(connection: &Connection, options: &Options) -> String {
    let Connection { driver, transport, user, host, port, path } = connection;
    let mut parameters: Vec<(&str, String)> = Vec::new();
    let scheme = match transport {
        Transport::Local => return format!("{driver}://{path}"),
        Transport::Tls => "tls",
        Transport::Tcp => "tcp",
        Transport::Ssh => {
            if let Some(file) = &options.keyfile {
                parameters.push(("keyfile", file.display().to_string()));
            }
            match &options.known_hosts {
                // libvirt's `ssh` transport runs ssh(1), whose known hosts cannot be named in the URI; `libssh` can.
                Some(file) => {
                    parameters.push(("known_hosts", file.display().to_string()));
                    parameters.push(("known_hosts_verify", "normal".into()));
                    parameters.push(("sshauth", "privkey,agent".into()));
                    "libssh"
                }
                None => {
                    // Never ask for a password on the terminal.
                    parameters.push(("no_tty", "1".into()));
                    "ssh"
                }
            }
        }
    };
    if *transport != Transport::Tcp {
        parameters.retain(|(name, _)| !options.uri_parameters.contains_key(*name));
        parameters.extend(options.uri_parameters.iter().map(|(k, v)| (k.as_str(), v.clone())));
    }
    let user = user.as_ref().map(|u| format!("{u}@")).unwrap_or_default();
    let port = port.map(|p| format!(":{p}")).unwrap_or_default();
    let query: Vec<_> = parameters.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
    let question = if query.is_empty() { "" } else { "?" };
    format!("{driver}+{scheme}://{user}{host}{port}{path}{question}{}", query.join("&"))
}

/// Percent-encodes what has a meaning in a URI's query.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b',' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn host(uri: &str, options: Options) -> Host {
        let spec = serde_json::from_value(serde_json::json!({ "uri": uri })).unwrap();
        Host::new("h", spec, Arc::new(options), Access::ReadOnly)
    }

    #[test]
    fn the_operator_s_parameters_reach_ssh_and_tls_only() {
        let uri = |u: &str, o: &Options| full_uri(&parse_uri(u).unwrap(), o);
        let mut options = Options { keyfile: Some(PathBuf::from("/etc/drover/my key")), ..Options::default() };
        assert_eq!(
            uri("qemu+ssh://root@h:2222/system", &options),
            "qemu+ssh://root@h:2222/system?keyfile=/etc/drover/my%20key&no_tty=1"
        );
        options.uri_parameters.insert("no_tty".into(), "0".into());
        options.uri_parameters.insert("pkipath".into(), "/etc/pki&x".into());
        assert_eq!(uri("qemu+tls://h/system", &options), "qemu+tls://h/system?no_tty=0&pkipath=/etc/pki%26x");
        assert_eq!(uri("qemu+tcp://h/system", &options), "qemu+tcp://h/system");
        assert_eq!(uri("test:///default", &options), "test:///default");
        options = Options { known_hosts: Some(PathBuf::from("/k")), ..Options::default() };
        assert_eq!(
            uri("qemu+ssh://h/system", &options),
            "qemu+libssh://h/system?known_hosts=/k&known_hosts_verify=normal&sshauth=privkey,agent"
        );
    }

    #[tokio::test]
    async fn a_call_that_hangs_frees_its_caller_and_is_bounded() {
        let host = host("test:///default", Options { max_hung_calls: 2, ..Options::default() });
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        for _ in 0..2 {
            let gate = gate.clone();
            let hung = host
                .call_within("wait", Duration::from_millis(200), move |_| {
                    let _ = gate.lock().unwrap().recv();
                    Ok(())
                })
                .await
                .unwrap_err();
            assert!(matches!(hung, Fault::Hung { .. }), "{hung}");
        }
        let refused = host.call("list", |_| Ok(())).await.unwrap_err();
        assert!(matches!(refused, Fault::Exhausted { calls: 2, .. }), "{refused}");
        drop(release);
        // Both threads come back, and the host is asked again.
        for _ in 0..500 {
            if host.call("list", |_| Ok(())).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the host is still refused");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_said_at_once() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let begun = Instant::now();
        let fault = host(&format!("qemu+tcp://127.0.0.1:{free}/system"), Options::default())
            .call("list", |_| Ok(()))
            .await
            .unwrap_err();
        assert!(fault.to_string().contains(&format!("127.0.0.1:{free}")), "{fault}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_listener_that_never_speaks_costs_the_connect_deadline_only() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("qemu+tcp://127.0.0.1:{}/system", silent.local_addr().unwrap().port());
        let options = Options { connect_deadline: Duration::from_millis(500), ..Options::default() };
        let begun = Instant::now();
        let fault = host(&uri, options).call("list", |_| Ok(())).await.unwrap_err();
        assert!(fault.is_transient() && fault.to_string().contains("0.5 s"), "{fault}");
        assert!(begun.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn a_read_only_connection_cannot_write() {
        let host = host("test:///default", Options::default());
        let fault = host
            .call("destroy", |c| c.lookup_domain_by_name("test").during("find it")?.destroy().during("destroy it"))
            .await
            .unwrap_err();
        assert!(fault.says("read only access"), "{fault}");
    }
}
