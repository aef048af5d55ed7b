//! The libvirt provider against real libvirt: its in-process test driver, and the lab's QEMU hosts.

mod agent;
mod asks;
mod cases;
mod control;
mod driver;
mod events;
mod moves;
mod pools;
mod proof;
mod reach;
mod stays;
mod ways;

use drover::action::{Action, MachineAction};
use drover::kind::host::HostSpec;
use drover::observed::{DomainState, HostState, Progress, Reading};
use drover::provider::libvirt::{Options, Reader, Writer};
use drover::provider::{ActError, Actor, Look, Note, Observer, StepCtx, StepOrders};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Hosts by name and URI.
fn hosts(uris: &[(&str, &str)]) -> BTreeMap<String, HostSpec> {
    let host = |uri: &str| serde_json::from_value(serde_json::json!({ "uri": uri })).unwrap();
    uris.iter().map(|(name, uri)| ((*name).to_owned(), host(uri))).collect()
}

/// What a step is given, and what it said.
struct Step {
    ctx: StepCtx,
    heard: Arc<Mutex<Vec<Progress>>>,
    notes: Arc<Mutex<Vec<Note>>>,
}

fn step(deadline: Duration) -> Step {
    let (heard, notes) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (tell, jot) = (heard.clone(), notes.clone());
    let progress = Arc::new(move |p| tell.lock().unwrap().push(p));
    let note = Arc::new(move |n| jot.lock().unwrap().push(n));
    let ctx = StepCtx { deadline, cancel: CancellationToken::new(), progress, orders: StepOrders::default(), note };
    Step { ctx, heard, notes }
}

/// Looks at an action.
async fn look(writer: &Writer, action: &MachineAction) -> Result<Look, ActError> {
    writer.look(&Action::Machine(action.clone()), &step(Duration::from_secs(60)).ctx).await
}

/// The reason for which an action is refused.
async fn refusal(writer: &Writer, action: &MachineAction) -> String {
    match look(writer, action).await.unwrap() {
        Look::Refused { reason } => reason,
        other => panic!("{} is not refused but {other:?}", action.name()),
    }
}

/// Carries an action out as the executor does, and makes sure that a second run finds it done.
async fn carry_out(writer: &Writer, action: MachineAction) {
    let (name, action) = (action.name(), Action::Machine(action));
    let ctx = step(Duration::from_secs(120)).ctx;
    assert_eq!(writer.look(&action, &ctx).await.unwrap(), Look::Ready, "{name}");
    writer.act(&action, &ctx).await.unwrap_or_else(|e| panic!("{name}: {e} ({:?})", e.hint));
    writer.verify(&action, &ctx).await.unwrap_or_else(|e| panic!("{name} is not verified: {e}"));
    assert_eq!(writer.look(&action, &ctx).await.unwrap(), Look::AlreadyDone, "{name}, the second time");
}

async fn observe(observer: &dyn Observer, host: &str) -> HostState {
    match observer.observe(host, Duration::from_secs(60)).await {
        Reading::Present(state) => state,
        Reading::Unknown { why } => panic!("{host} is unknown: {why}"),
    }
}

async fn domain(observer: &dyn Observer, host: &str, uuid: Uuid) -> Option<DomainState> {
    observe(observer, host).await.domains.into_iter().find(|d| d.uuid == uuid)
}
