//! Listens to hosts: libvirt's events, so that drift is noticed sooner than by the next full pass.
//!
//! *Guarantees*
//! - One connection for each host, read-only, with a task of its own: a host that is dead or hangs slows no other.
//! - A burst of events (a migration makes a dozen) is told as one change: after [`QUIET`] without a further one, and
//!   [`LONGEST`] after its first one at the latest.
//! - A connection that breaks is told as a change, and opened again with growing, jittered pauses. When it is back that is
//!   told, too: nobody knows what happened meanwhile.
//!
//! *No guarantee*: that every change is told. What happens before the first connection is there, and what libvirt has no
//! event for (a volume, the memory of a running domain), is found by the periodic pass. Nothing may depend on an event.

use super::connect::{Access, Host};
use super::error::{During, Fault};
use super::{Options, ffi};
use crate::kind::host::HostSpec;
use crate::provider::{HostChange, TellChange};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a burst has to be silent before it is told.
const QUIET: Duration = Duration::from_millis(300);
/// How long after its first event a burst is told at the latest.
const LONGEST: Duration = Duration::from_secs(1);
/// Events that may wait for a listener; more say nothing new.
const WAITING: usize = 64;
/// First pause before a connection is tried again; doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A connection that lived as long as this was a good one: its loss begins a new row of failures.
const GOOD: Duration = Duration::from_secs(60);

/// Listens to a set of hosts that may change. Dropping it ends all listening.
pub struct Watcher {
    options: Options,
    tell: TellChange,
    watched: Mutex<BTreeMap<String, Watched>>,
}

struct Watched {
    uri: String,
    _stop: DropGuard,
}

impl Watcher {
    /// Listens to nobody yet.
    pub fn new(options: Options, tell: TellChange) -> Self {
        Self { options, tell, watched: Mutex::default() }
    }

    /// Listens to these hosts from now on, and to no others. Those whose address stays as it is are not disturbed. To be
    /// called within a runtime; returns at once.
    pub fn follow(&self, hosts: &BTreeMap<String, HostSpec>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|name, w| hosts.get(name).is_some_and(|h| h.uri == w.uri));
        for (name, spec) in hosts {
            if watched.contains_key(name) {
                continue;
            }
            let stop = CancellationToken::new();
            // Hosts of its own: calls that hang here do not count against those of a pass.
            let host = Host::new(name, spec.clone(), Arc::new(self.options.clone()), Access::ReadOnly);
            let (tell, stopped) = (self.tell.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stopped.cancelled() => tracing::debug!(host = &*host.name, "not listened to any more"),
                    () = watch(&host, &tell) => {}
                }
            });
            watched.insert(name.clone(), Watched { uri: spec.uri.clone(), _stop: stop.drop_guard() });
        }
    }
}

/// Listens to one host for ever.
async fn watch(host: &Host, tell: &TellChange) {
    let name: &str = &host.name;
    let mut failures = 0u32;
    loop {
        match listen(host).await {
            Ok((listener, mut events)) => {
                if failures > 0 {
                    tracing::info!(host = name, "changes on the host are listened to again");
                    tell_now(name, tell);
                } else {
                    tracing::debug!(host = name, "changes on the host are listened to");
                }
                let began = Instant::now();
                relay(name, &mut events, tell).await;
                drop(listener);
                if began.elapsed() >= GOOD {
                    failures = 0;
                }
                failures = failures.saturating_add(1);
                tracing::warn!(host = name, "the connection for events broke; it is opened again");
                // The host goes, or its daemon comes back as another one: worth a look.
                tell_now(name, tell);
            }
            Err(fault) => {
                failures = failures.saturating_add(1);
                // Once is news, the same every minute is noise; a pass tells of a host that cannot be read.
                if failures == 1 {
                    tracing::warn!(host = name, error = %fault, "changes on the host are noticed by the next full pass only");
                } else {
                    tracing::debug!(host = name, failures, error = %fault, "still no connection for events");
                }
            }
        }
        sleep(pause(failures)).await;
    }
}

fn tell_now(host: &str, tell: &TellChange) {
    tell(HostChange { host: host.to_owned(), at: Instant::now() });
}

/// Tells of bursts until the connection breaks.
async fn relay(host: &str, events: &mut mpsc::Receiver<ffi::Told>, tell: &TellChange) {
    while let Some(first) = events.recv().await {
        log(host, &first);
        let begun = Instant::now();
        let mut last = begun;
        let broken = loop {
            match timeout_at((last + QUIET).min(begun + LONGEST), events.recv()).await {
                Ok(Some(more)) => {
                    log(host, &more);
                    last = Instant::now();
                }
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        tell(HostChange { host: host.to_owned(), at: last });
        if broken {
            return;
        }
    }
}

fn log(host: &str, told: &ffi::Told) {
    // Names are the host's: as quoted text they cannot break a line.
    tracing::debug!(host, of = told.of, name = ?told.name, what = told.what, "an event");
}

/// How long to wait after so many failures in a row: doubled each time, and up to a quarter more or less, so that many
/// listeners do not all come back to a host in one moment.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    // The standard library's hash keys are random for each use: enough for this, without a generator.
    let random = RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64;
    doubled.mul_f64(0.75 + random / 2.0)
}

/// Callbacks on an open connection. Deregistering and closing are calls like any others: dropped on a thread of its own.
struct Listener(Option<ffi::Listening>);

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(listening) = self.0.take() {
            // Where no thread can be had, it is dropped here with the closure: late is better than leaked.
            let _ = std::thread::Builder::new().name("libvirt-close".into()).spawn(move || drop(listening));
        }
    }
}

/// Opens a connection and registers for its events.
async fn listen(host: &Host) -> Result<(Listener, mpsc::Receiver<ffi::Told>), Fault> {
    let session = host.dedicated(host.call_deadline()).await?;
    let (send, events) = mpsc::channel(WAITING);
    // What comes too late for the deadline is dropped on the thread that it ran on, which deregisters it.
    let listener = host
        .on_session("listen to its events", host.call_deadline(), session, move |connect| {
            ffi::Listening::begin(connect, send).map(|l| Listener(Some(l))).during("listen to its events")
        })
        .await?;
    Ok((listener, events))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(n: usize) -> ffi::Told {
        ffi::Told { of: "domain", name: format!("vm-{n}"), what: "started" }
    }

    /// Sends events after these pauses and gives what was told of them: after how long, and of when.
    async fn bursts(pauses: &[u64]) -> Vec<(u128, u128)> {
        let start = Instant::now();
        let (send, mut events) = mpsc::channel(WAITING);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let list = heard.clone();
        let tell: TellChange = Arc::new(move |change: HostChange| {
            assert_eq!(change.host, "h");
            list.lock().unwrap().push((start.elapsed().as_millis(), (change.at - start).as_millis()));
        });
        let sender = async {
            for (i, pause) in pauses.iter().enumerate() {
                sleep(Duration::from_millis(*pause)).await;
                send.send(told(i)).await.unwrap();
            }
            sleep(LONGEST * 2).await;
            drop(send);
        };
        tokio::join!(sender, relay("h", &mut events, &tell));
        drop(tell);
        Arc::into_inner(heard).map(|h| h.into_inner().unwrap()).expect("nobody tells any more")
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_change_told_once_it_is_over() {
        assert_eq!(bursts(&[0, 10, 10, 200]).await, [(520, 220)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_told_every_second() {
        let heard = bursts(&[100; 30]).await;
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert!(heard.iter().all(|(when, of)| when - of <= 300), "{heard:?}");
        assert!(heard[0].0 <= 100 + LONGEST.as_millis(), "{heard:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn two_changes_far_apart_are_two() {
        assert_eq!(bursts(&[0, 1_000]).await, [(300, 0), (1_300, 1_000)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_before_the_connection_broke_is_not_lost() {
        let (send, mut events) = mpsc::channel(WAITING);
        send.send(told(0)).await.unwrap();
        drop(send);
        let heard = Arc::new(Mutex::new(0));
        let count = heard.clone();
        let tell: TellChange = Arc::new(move |_| *count.lock().unwrap() += 1);
        relay("h", &mut events, &tell).await;
        assert_eq!(*heard.lock().unwrap(), 1);
    }

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let of = |failures| (0..50).map(|_| pause(failures).as_secs_f64()).collect::<Vec<_>>();
        assert!(of(1).iter().all(|s| (0.75..=1.25).contains(s)));
        assert!(of(4).iter().all(|s| (6.0..=10.0).contains(s)));
        let long = of(40);
        assert!(long.iter().all(|s| (45.0..=75.0).contains(s)));
        assert!(long.iter().any(|s| (s - long[0]).abs() > 0.1));
    }

    #[tokio::test]
    async fn a_dead_host_slows_no_other_and_the_set_follows_the_manifests() {
        // It takes connections and never speaks: each attempt costs its whole deadline.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = format!("qemu+tcp://127.0.0.1:{}/system", silent.local_addr().unwrap().port());
        let (send, mut heard) = mpsc::unbounded_channel();
        let tell: TellChange = Arc::new(move |change| drop(send.send(change)));
        let watcher = Watcher::new(Options::default(), tell);
        let spec = |uri: &str| -> HostSpec { serde_json::from_value(serde_json::json!({ "uri": uri })).unwrap() };
        let hosts = |names: &[(&str, &str)]| names.iter().map(|(n, u)| ((*n).to_owned(), spec(u))).collect();
        watcher.follow(&hosts(&[("dead", &dead), ("t", "test:///default")]));

        let touch = || {
            tokio::task::spawn_blocking(|| {
                let connect = virt::connect::Connect::open(Some("test:///default")).unwrap();
                let xml =
                    "<domain type='test'><name>watched</name><memory>1024</memory><os><type>hvm</type></os></domain>";
                let domain = connect.define_domain_xml(xml).unwrap();
                domain.undefine().unwrap();
            })
        };
        // The connection comes some time after `follow`.
        let mut change = None;
        for _ in 0..50 {
            touch().await.unwrap();
            change = tokio::time::timeout(Duration::from_secs(1), heard.recv()).await.ok().flatten();
            if change.is_some() {
                break;
            }
        }
        assert_eq!(change.expect("nothing was told").host, "t");

        // Another name of the same: the old one is not told of any more.
        watcher.follow(&hosts(&[("u", "test:///default")]));
        let mut last = None;
        for _ in 0..50 {
            touch().await.unwrap();
            while let Ok(Some(change)) = tokio::time::timeout(Duration::from_millis(700), heard.recv()).await {
                last = Some(change.host);
            }
            if last.as_deref() == Some("u") {
                break;
            }
        }
        assert_eq!(last.as_deref(), Some("u"));
        drop(watcher);
        let rest = async { while heard.recv().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), rest).await.expect("the tasks end with the watcher");
    }
}
