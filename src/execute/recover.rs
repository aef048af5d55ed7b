//! After a crash: what became of the steps that were begun and whose end nobody saw. Nothing is replayed here. Each is
//! looked at, its record is closed by what is really there, and planning anew does the rest.

use super::step::on_disk;
use crate::journal::{InDoubt, Journal, JournalError, Outcome};
use crate::plan::Step;
use crate::provider::{Look, StepCtx, StepOrders, WriteFleet};
use futures::StreamExt;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long looking at one step may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many steps are looked at together.
const TOGETHER: usize = 16;

/// A step that was in doubt, and what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// The record.
    pub record: InDoubt,
    /// What was found.
    pub found: Found,
}

/// What became of a step in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was done after all, and verified. Its record is closed.
    Done,
    /// It is still under way, and its record stays open until a step of the same id is carried out: the plan has one, or
    /// is given it ([`PlanOptions::under_way`](crate::plan::PlanOptions::under_way), from [`under_way`]). Its `look`
    /// says [`Look::Running`], and its `act` follows it to its end.
    Running,
    /// Nothing of it is there; a new plan does it again if it is still wanted. Its record is closed.
    NotDone,
    /// It can neither be found nor done any more. Its record is closed.
    Refused(String),
    /// Its outcome is there, but not as it should be. Its record is closed.
    Failed(String),
    /// No host of the fleet is its any more. Its record is closed.
    Undeclared,
    /// Its host cannot be read. Its record stays open.
    Unknown(String),
}

impl Found {
    /// The outcome that closes the record; `None` where it stays open.
    fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Done => Some(Outcome::Done),
            Self::NotDone | Self::Undeclared => Some(Outcome::Interrupted),
            Self::Refused(reason) => Some(Outcome::Refused { reason: reason.clone() }),
            Self::Failed(error) => Some(Outcome::Failed { error: error.clone(), transient: false }),
            Self::Running | Self::Unknown(_) => None,
        }
    }
}

/// The steps that are still under way, for [`PlanOptions::under_way`](crate::plan::PlanOptions::under_way).
pub fn under_way(recovered: &[Recovered]) -> Vec<Step> {
    let running = recovered.iter().filter(|r| r.found == Found::Running);
    running.map(|r| r.record.step.clone()).collect()
}

/// Looks at every step in doubt and closes the records whose end can be told. Run before each pass; costs one read of the
/// journal where nothing is in doubt. Changes nothing at the hosts.
///
/// # Errors
/// When the journal cannot be read or written.
pub async fn recover(
    journal: Arc<dyn Journal>,
    fleet: &WriteFleet,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
) -> Result<Vec<Recovered>, JournalError> {
    let records = on_disk(&journal, |j| j.in_doubt()).await?;
    let look = |record: InDoubt| async move {
        let found = find(&record, fleet).await;
        Recovered { record, found }
    };
    let recovered: Vec<_> = futures::stream::iter(records).map(look).buffered(TOGETHER).collect().await;
    for Recovered { record, found } in &recovered {
        if let Some(outcome) = found.outcome() {
            let (pass, step, now) = (record.pass, record.step.id.clone(), now());
            on_disk(&journal, move |j| j.resolve(pass, &step, &outcome, now)).await?;
        }
    }
    Ok(recovered)
}

async fn find(record: &InDoubt, fleet: &WriteFleet) -> Found {
    let action = &record.step.action;
    let Some(actor) = fleet.actor(action) else { return Found::Undeclared };
    let ctx = StepCtx {
        deadline: DEADLINE,
        cancel: CancellationToken::new(),
        progress: Arc::new(|_| {}),
        orders: StepOrders::default(),
        note: Arc::new(|_| {}),
    };
    let late = || Found::Unknown(format!("no answer within {} s", DEADLINE.as_secs()));
    match tokio::time::timeout(DEADLINE, actor.look(action, &ctx)).await {
        Err(_) => late(),
        Ok(Err(error)) => Found::Unknown(error.to_string()),
        Ok(Ok(Look::Ready)) => Found::NotDone,
        Ok(Ok(Look::Running)) => Found::Running,
        Ok(Ok(Look::Refused { reason })) => Found::Refused(reason),
        Ok(Ok(Look::AlreadyDone)) => match tokio::time::timeout(DEADLINE, actor.verify(action, &ctx)).await {
            Err(_) => late(),
            Ok(Ok(())) => Found::Done,
            Ok(Err(error)) if error.transient => Found::Unknown(error.to_string()),
            Ok(Err(error)) => Found::Failed(error.to_string()),
        },
    }
}
