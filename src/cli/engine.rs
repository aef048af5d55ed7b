//! Between the commands and the engine: what a command asks for, in the engine's words.

use super::args::AdoptArgs;
use super::exit::CliError;
use super::powers::powers;
use crate::config::Config;
use crate::daemon;
use crate::execute::{ExecuteError, Recovered, Report, Stop, recover};
use crate::journal::Journal;
use crate::kind::Desired;
use crate::observed::{FORMAT_VERSION, Observed, Questions};
use crate::pass::{self, Events};
use crate::plan::{self, Plan, PlanInput, PlanOptions};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// Signals closer together than this are one.
const ONE_WISH: Duration = Duration::from_millis(500);

/// Most bytes of a saved plan or observation.
const MOST: u64 = 512 << 20;

/// Bytes of one that are read at a time.
const BUFFER: usize = 64 << 10;

/// Plans from an observation. Opens no connection.
pub fn plan(desired: &Desired, observed: &Observed, options: PlanOptions) -> Plan {
    plan::plan(&PlanInput { desired, observed, now: Timestamp::now(), options })
}

/// What the operator says beyond Git. A machine that is not declared is a typing error.
pub fn options(adopt: &AdoptArgs, desired: &Desired) -> Result<PlanOptions, CliError> {
    for name in &adopt.adopt {
        if !desired.resources.virtual_machines.contains_key(name) {
            return Err(CliError::usage(format!("`--adopt {name}`: there is no VirtualMachine `{name}`"))
                .hint("name a VirtualMachine of the manifests"));
        }
    }
    let names = adopt.adopt.iter().cloned().collect();
    Ok(PlanOptions { adopt: names, rebalance: adopt.rebalance, ..PlanOptions::default() })
}

/// Reads a saved observation.
pub fn read_observed(path: &Path) -> Result<Observed, CliError> {
    let hint = "save one with `drover observe -o json`";
    read(
        path,
        &Saved { what: "an observation", known: FORMAT_VERSION, version: |o: &Observed| &o.format_version, hint },
    )
}

/// Reads a saved plan.
pub fn read_plan(path: &Path) -> Result<Plan, CliError> {
    let hint = "save one with `drover plan --out FILE`";
    read(path, &Saved { what: "a plan", known: plan::FORMAT_VERSION, version: |p: &Plan| &p.format_version, hint })
}

/// A sort of value that is saved.
struct Saved<T> {
    what: &'static str,
    /// The version of its form that is read.
    known: &'static str,
    /// The version that a value says of itself.
    version: fn(&T) -> &str,
    /// How to come by one.
    hint: &'static str,
}

/// What a saved value says about its own form, whatever that is.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    format_version: Option<serde_json::Value>,
}

/// Reads a saved value from a file or a pipe. Its text, which is larger than what is made of it, is never in memory as a
/// whole. YAML is not read back: one form for programs is enough.
fn read<T: DeserializeOwned>(path: &Path, saved: &Saved<T>) -> Result<T, CliError> {
    let unreadable =
        |error: std::io::Error| CliError::failed(format!("`{}` could not be read", path.display())).caused_by(error);
    let too_large = || CliError::failed(format!("`{}` has more than {MOST} bytes", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() > MOST {
        return Err(too_large());
    }
    let mut text = file.by_ref().take(MOST + 1);
    match serde_json::from_reader(BufReader::with_capacity(BUFFER, &mut text)) {
        Ok(_) if text.limit() == 0 => Err(too_large()),
        Ok(value) => check_version(path, Some((saved.version)(&value)), saved).map(|()| value),
        Err(_) if text.limit() == 0 => Err(too_large()),
        Err(error) if error.is_io() => Err(unreadable(error.into())),
        Err(error) => {
            // What another version wrote need not read; then that is the reason to tell. A pipe cannot be looked at again.
            if file.rewind().is_ok()
                && let Ok(form) = serde_json::from_reader::<_, Form>(BufReader::with_capacity(BUFFER, file))
            {
                check_version(path, form.format_version.as_ref().and_then(|v| v.as_str()), saved)?;
            }
            let what = format!("`{}` is not {}", path.display(), saved.what);
            Err(CliError::failed(what).caused_by(error).hint(saved.hint))
        }
    }
}

/// Keys are only added within a major version, so another one means another meaning.
fn check_version<T>(path: &Path, found: Option<&str>, saved: &Saved<T>) -> Result<(), CliError> {
    let major = |v: &str| v.split('.').next().map(str::to_owned);
    let path = path.display();
    match found {
        Some(version) if major(version) == major(saved.known) => Ok(()),
        Some(version) => {
            Err(CliError::failed(format!("`{path}` has format version {version}; this Drover reads {}", saved.known))
                .hint("use the Drover that wrote it, or write it anew"))
        }
        None => Err(CliError::failed(format!("`{path}` has no `formatVersion`")).hint(saved.hint)),
    }
}

/// The engine with threads of its own, for commands that talk to hosts.
pub struct Engine {
    inner: pass::Engine,
    // An option only to be taken when dropped.
    runtime: Option<Runtime>,
}

impl Engine {
    /// An engine with the operator's powers. Talks to nobody yet.
    pub fn new(config: &Config) -> Result<Self, CliError> {
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| CliError::failed("threads do not start").caused_by(e))?;
        Ok(Self { inner: pass::Engine::new(powers(config)?), runtime: Some(runtime) })
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            // Gone only while this is dropped; nobody calls it then.
            None => tokio::runtime::Handle::current().block_on(future),
        }
    }

    /// Reads every host, with handles that cannot write.
    pub fn observe(&self, desired: &Desired) -> Observed {
        self.observe_for(desired, &PlanOptions::default())
    }

    /// Reads every host for a plan with these options.
    pub fn observe_for(&self, desired: &Desired, options: &PlanOptions) -> Observed {
        self.block_on(self.inner.observe(&desired.resources, options.rebalance))
    }

    /// Reads every host for a plan with these options that is to be carried out.
    pub fn observe_to_act(&self, desired: &Desired, options: &PlanOptions) -> Observed {
        self.block_on(self.inner.observe_to_act(&desired.resources, options.rebalance))
    }

    /// Asks hosts that were read for more.
    pub fn ask(&self, desired: &Desired, questions: Questions, observed: &mut Observed) {
        self.block_on(self.inner.ask(&desired.resources, questions, observed));
    }

    /// Plans from an observation.
    pub fn plan(&self, desired: &Desired, observed: &Observed, options: PlanOptions) -> Plan {
        self.inner.plan(desired, observed, options)
    }

    /// Looks for what an earlier run began and did not see end.
    pub fn recover(&self, desired: &Desired, journal: &Arc<dyn Journal>) -> Result<Vec<Recovered>, CliError> {
        let fleet = self.inner.writers(&desired.resources);
        self.block_on(recover(journal.clone(), &fleet, Arc::new(Timestamp::now)))
            .map_err(|e| CliError::failed("the journal cannot be used").caused_by(e))
    }

    /// Carries a plan out. The first SIGINT or SIGTERM lets running steps end and starts no new one; the second one leaves
    /// them. `told` is called at each.
    pub fn carry_out(
        &self,
        desired: &Desired,
        plan: &Plan,
        journal: Arc<dyn Journal>,
        events: Events,
        told: impl Fn(&str) + Send + 'static,
    ) -> Result<Report, CliError> {
        self.block_on(async {
            let mut signals =
                daemon::listen().map_err(|e| CliError::failed("signals cannot be listened to").caused_by(e))?;
            let stop = Stop::default();
            let asked = stop.clone();
            let listener = tokio::spawn(async move {
                let mut first: Option<Instant> = None;
                while let Some(signal) = signals.recv().await {
                    match signal {
                        daemon::Signal::Hangup => {}
                        // A process and its group are often signalled together (timeout(1)): that is one wish.
                        daemon::Signal::Terminate if first.is_some_and(|f| f.elapsed() < ONE_WISH) => {}
                        daemon::Signal::Terminate if first.is_none() => {
                            first = Some(Instant::now());
                            told("ending: what runs goes on to its end, nothing new begins; once more to leave it");
                            asked.drain.cancel();
                        }
                        daemon::Signal::Terminate => {
                            told("leaving what runs; a migration goes on by itself, and the next run finds it");
                            asked.leave.cancel();
                        }
                    }
                }
            });
            let result = self.inner.carry_out(desired, plan, journal, events, stop).await;
            listener.abort();
            match result {
                Ok(report) => Ok(report),
                Err(error @ ExecuteError::Plan(_)) => {
                    Err(CliError::failed("the plan cannot be carried out").caused_by(error))
                }
                Err(error) => Err(CliError::failed(
                    "the journal failed while the plan was carried out, so no step was begun after that",
                )
                .caused_by(error)
                .hint("see to the state folder's disk, then run `drover apply` again: it looks at what was begun")),
            }
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A call to a host that hangs must not keep the process.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
