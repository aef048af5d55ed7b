//! Between the commands and the engine: what a command asks for, in the engine's words.

use super::args::AdoptArgs;
use super::exit::CliError;
use super::powers::powers;
use crate::config::Config;
use crate::daemon;
use crate::execute::{ExecuteError, Recovered, Report, Stop, recover};
use crate::journal::Journal;
use crate::kind::Desired;
use crate::observed::{FORMAT_VERSION, Observed};
use crate::pass::{self, Events};
use crate::plan::{self, Plan, PlanInput, PlanOptions};
use jiff::Timestamp;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// Signals closer together than this are one.
const ONE_WISH: Duration = Duration::from_millis(500);

/// Most bytes of a saved plan or observation.
const MOST: u64 = 512 << 20;

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
    Ok(PlanOptions { adopt: adopt.adopt.iter().cloned().collect(), ..PlanOptions::default() })
}

/// Reads a saved observation.
pub fn read_observed(path: &Path) -> Result<Observed, CliError> {
    let text = read(path)?;
    let hint = "save one with `drover observe -o json`";
    let not = |error: serde_json::Error| {
        CliError::failed(format!("`{}` is not an observation", path.display())).caused_by(error).hint(hint)
    };
    // YAML is not read back: one form for programs is enough.
    let form: Form = serde_json::from_slice(&text).map_err(not)?;
    check_version(path, form.format_version.as_ref(), FORMAT_VERSION, hint)?;
    serde_json::from_slice(&text).map_err(not)
}

/// Reads a saved plan.
pub fn read_plan(path: &Path) -> Result<Plan, CliError> {
    let text = read(path)?;
    let hint = "save one with `drover plan --out FILE`";
    let not = |error: serde_json::Error| {
        CliError::failed(format!("`{}` is not a plan", path.display())).caused_by(error).hint(hint)
    };
    let form: Form = serde_json::from_slice(&text).map_err(not)?;
    check_version(path, form.format_version.as_ref(), plan::FORMAT_VERSION, hint)?;
    serde_json::from_slice(&text).map_err(not)
}

/// What a saved value says about its own form; the rest is read only when that is known.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    format_version: Option<serde_json::Value>,
}

/// Keys are only added within a major version, so another one means another meaning.
fn check_version(path: &Path, found: Option<&serde_json::Value>, known: &str, hint: &str) -> Result<(), CliError> {
    let major = |v: &str| v.split('.').next().map(str::to_owned);
    match found.and_then(|v| v.as_str()) {
        Some(version) if major(version) == major(known) => Ok(()),
        Some(version) => Err(CliError::failed(format!(
            "`{}` has format version {version}; this Drover reads {known}",
            path.display()
        ))
        .hint("use the Drover that wrote it, or write it anew")),
        None => Err(CliError::failed(format!("`{}` has no `formatVersion`", path.display())).hint(hint)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed =
        |error: std::io::Error| CliError::failed(format!("`{}` could not be read", path.display())).caused_by(error);
    // Its size first: a buffer that grows as it goes is copied, and for a moment there twice.
    let size = std::fs::metadata(path).map_err(failed)?.len().min(MOST);
    let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    let n = File::open(path).and_then(|f| f.take(MOST + 1).read_to_end(&mut text)).map_err(failed)?;
    if n as u64 > MOST {
        return Err(CliError::failed(format!("`{}` has more than {MOST} bytes", path.display())));
    }
    Ok(text)
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
        self.block_on(self.inner.observe(&desired.resources))
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
