//! The cases of docs/migration-cases.md that no other test is about, at the level of the driver and on two real hosts.
//!
//! Most machines here have no disk and no operating system: they start and move in a second. One that has to take its time
//! has a lot of memory with nothing in it: of each page only that it is empty is sent, which is work enough at 1 MiB/s.

mod broken;
mod devices;
mod during;
mod failures;
mod limits;
mod network;
mod offline;
mod paused;
mod phases;
mod releases;
mod storage;

use super::moves::{act, born, copied, in_client, local_pool, mark, migration, moved, moving, pool, stayed, writer};
use super::*;
use crate::lab::{Guest, Lab, wait_for};
use drover::action::{AtTimeout, Control, Migration, MigrationWay, Order, Tuning};
use drover::domain_xml::owner_xml;
use drover::observed::RunState;
use drover::provider::Orders;

/// How long a move of a machine without content may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A machine without content that runs on host a, with further settings.
fn bare(lab: &Lab, vm: &Guest, settings: &[&str]) -> Uuid {
    born(lab, vm, "a", &[&["boot=none", "mem=64"], settings].concat())
}

/// A machine that runs on host a and whose move takes about ten seconds at 1 MiB/s.
fn vast(lab: &Lab, vm: &Guest) -> Uuid {
    born(lab, vm, "a", &["boot=none", "mem=4096"])
}

/// The way back of a move.
fn back(lab: &Lab, m: &Migration) -> Migration {
    Migration { from: m.to.clone(), to: m.from.clone(), destination_uri: lab.uri(&m.from), ..m.clone() }
}

/// Moves a machine; it is there alone afterwards.
async fn arrives(lab: &Lab, writer: &Writer, m: &Migration) -> drover::observed::DomainState {
    assert_eq!(look(writer, &moving(m)).await.unwrap(), Look::Ready);
    act(writer, m, &step(SOON)).await.unwrap_or_else(|e| panic!("{m:?}: {e} ({:?})", e.hint));
    let there = moved(writer, m).await;
    assert_eq!(lab.processes(&m.name), there.is_active().then(|| m.to.clone()).into_iter().collect::<Vec<_>>());
    there
}

/// Tries to move a machine that runs; it fails, and the machine runs where it was, with its mark, and nowhere else.
async fn fails(lab: &Lab, writer: &Writer, m: &Migration) -> ActError {
    let error = act(writer, m, &step(SOON)).await.expect_err("it was to fail");
    runs_on_alone(lab, writer, m).await;
    error
}

/// Asserts that a machine runs where it was, with its mark, that nothing of it is elsewhere, and that it may move.
async fn runs_on_alone(lab: &Lab, writer: &Writer, m: &Migration) {
    stayed(writer, m).await;
    let here = domain(writer, &m.from, m.uuid).await.unwrap();
    assert_eq!((here.persistent, here.owner), (true, Some(mark(&m.name))));
    assert_eq!(lab.processes(&m.name), [m.from.as_str()]);
}

/// A step that can be given orders while it runs.
fn commanded(deadline: Duration) -> (Step, Orders) {
    let (mut step, orders) = (step(deadline), Orders::default());
    step.ctx.orders = orders.of("x");
    (step, orders)
}

/// Asks for a migration to be aborted, as a newer commit does.
fn abort(orders: &Orders) {
    orders.give([("x".to_owned(), Order::Abort { why: "the manifest says `a` again".into() })].into());
}

/// Lets a slow migration that leaves a host end soon.
fn hurry(lab: &Lab, vm: &Guest, host: &str) {
    let _ = lab.virsh(host, &["migrate-setspeed", vm.name(), "1000"]);
}
