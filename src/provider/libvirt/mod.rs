//! The libvirt provider.
//!
//! - [`Reader`] observes over read-only connections: libvirt itself would refuse a change. A dry run is given this. Only
//!   what libvirt tells nobody over those (`ask.rs`) is asked over another one.
//! - [`Writer`] also carries actions out.
//! - [`Watcher`] listens to what hosts tell of themselves.
//!
//! *Promises*: no call blocks an executor thread, and none is waited for longer than its deadline (`connect.rs`). A reading
//! is complete or it is `Unknown` (`observe.rs`). Every action is looked at again at the last moment (`act.rs`), can be
//! repeated, and is judged by what the hosts say afterwards, never by a call's own result. A machine never runs twice by
//! Drover's doing (`migrate/`). `unsafe` lives in `ffi` and nowhere else.

mod act;
mod ask;
mod connect;
mod disk;
mod domain;
mod error;
mod ffi;
mod hardware;
mod migrate;
mod observe;
mod pool;
mod power;
mod volume;
mod watch;
mod xml;

pub use watch::Watcher;

use super::{ActError, Actor, Look, Observer, StepCtx};
use crate::action::Action;
use crate::kind::host::HostSpec;
use crate::observed::{Answer, HostState, Question, Reading};
use async_trait::async_trait;
use connect::{Access, Hosts};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The operator's settings for connections to hosts. A manifest cannot change any of these.
#[derive(Clone, Debug)]
pub struct Options {
    /// The private key for `qemu+ssh` (libvirt's `keyfile=`).
    pub keyfile: Option<PathBuf>,
    /// The known hosts for `qemu+ssh`. With this, libvirt's libssh transport is used in the place of ssh(1), because only
    /// that lets them be named; ssh(1) uses those of the user that Drover runs as.
    pub known_hosts: Option<PathBuf>,
    /// How long opening a connection may take.
    pub connect_deadline: Duration,
    /// How long an ordinary call may take. Longer than libvirt's own 30 s for a lock on a domain, so that its answer is
    /// heard.
    pub call_deadline: Duration,
    /// Parameters added to `qemu+ssh` and `qemu+tls` URIs (libvirt.org/uri.html).
    pub uri_parameters: BTreeMap<String, String>,
    /// Calls to one host that may hang before it is not asked any more.
    pub max_hung_calls: usize,
    /// Whether the port is tried before libvirt connects. Off where ssh reaches hosts through a jump host.
    pub probe_ports: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keyfile: None,
            known_hosts: None,
            connect_deadline: Duration::from_secs(10),
            call_deadline: Duration::from_secs(40),
            uri_parameters: BTreeMap::new(),
            max_hung_calls: 8,
            probe_ports: true,
        }
    }
}

/// Reads hosts, and cannot do anything else.
pub struct Reader {
    hosts: Hosts,
    /// For questions that libvirt answers over full connections only. Opened when one is asked.
    asking: Hosts,
}

impl Reader {
    /// A reader of these hosts, by the manifest's name. Opens no connection yet.
    pub fn new(hosts: BTreeMap<String, HostSpec>, options: Options) -> Self {
        let asking = Hosts::new(hosts.clone(), options.clone(), Access::Full);
        Self { hosts: Hosts::new(hosts, options, Access::ReadOnly), asking }
    }
}

#[async_trait]
impl Observer for Reader {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    async fn observe(&self, host: &str, deadline: Duration) -> Reading<HostState> {
        observe_one(&self.hosts, host, deadline).await
    }

    async fn ask(&self, host: &str, question: Question, deadline: Duration) -> Result<Answer, String> {
        ask_one(&self.asking, host, question, deadline).await
    }
}

/// Reads hosts and carries actions out on them.
pub struct Writer {
    hosts: Hosts,
}

impl Writer {
    /// A writer of these hosts, by the manifest's name. Opens no connection yet.
    pub fn new(hosts: BTreeMap<String, HostSpec>, options: Options) -> Self {
        Self { hosts: Hosts::new(hosts, options, Access::Full) }
    }
}

#[async_trait]
impl Observer for Writer {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    async fn observe(&self, host: &str, deadline: Duration) -> Reading<HostState> {
        observe_one(&self.hosts, host, deadline).await
    }

    async fn ask(&self, host: &str, question: Question, deadline: Duration) -> Result<Answer, String> {
        ask_one(&self.hosts, host, question, deadline).await
    }
}

#[async_trait]
impl Actor for Writer {
    async fn look(&self, action: &Action, _ctx: &StepCtx) -> Result<Look, ActError> {
        act::look(&self.hosts, action).await
    }

    async fn act(&self, action: &Action, ctx: &StepCtx) -> Result<(), ActError> {
        act::act(&self.hosts, action, ctx).await
    }

    async fn verify(&self, action: &Action, _ctx: &StepCtx) -> Result<(), ActError> {
        act::verify(&self.hosts, action).await
    }
}

async fn observe_one(hosts: &Hosts, host: &str, deadline: Duration) -> Reading<HostState> {
    match hosts.get(host) {
        Ok(host) => observe::observe(host, deadline).await,
        Err(fault) => Reading::Unknown { why: fault.to_string() },
    }
}

async fn ask_one(hosts: &Hosts, host: &str, question: Question, deadline: Duration) -> Result<Answer, String> {
    match hosts.get(host) {
        Ok(host) => ask::ask(host, question, deadline).await.map_err(|fault| fault.to_string()),
        Err(fault) => Err(fault.to_string()),
    }
}
