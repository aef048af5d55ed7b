//! Carries a plan out: ready set, limits for each host and in all, deadlines, retry, verification, journal.
//!
//! A step's way through the executor:
//!
//! ```text
//!                                      ┌────────────── transient error: pause, look again ◀─────────────┐
//!                                      ▼                                                                │
//! waiting ──▶ ready ──▶ slot free ──▶ look ─▶ Ready, Running ─▶ journal.started ─▶ act ─▶ verify ─▶ Done, Failed
//!    │                                 ├────▶ AlreadyDone
//!    └── a step before it did not ─────┴────▶ Refused
//!        happen: Skipped
//! ```
//!
//! *Guarantees*: nothing acts before its intent is on disk; a step acts only after every step it depends on is done; an
//! error or a panic in one step ends that step and what depends on it, nothing else; once the journal cannot be written,
//! nothing new begins. *Assumptions*: actions are repeatable ([`crate::provider::Actor`]), and one executor runs at a
//! time on one set of hosts (the daemon's lock).

mod limits;
mod recover;
mod run;
mod step;

pub use recover::{Found, Recovered, recover, under_way};
pub use run::execute;

use crate::journal::{JournalError, Outcome};
use crate::model::ResourceId;
use crate::observed::Progress;
use crate::provider::Orders;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What happens while a plan is carried out, for the terminal, the log and the API.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step begins.
    Started {
        /// Its id.
        step: String,
        /// Its resource.
        resource: ResourceId,
        /// Its one-line summary.
        summary: String,
    },
    /// A step goes on.
    Progress {
        /// Its id.
        step: String,
        /// How far it is.
        progress: Progress,
    },
    /// A step goes well, and has something to say all the same.
    Noted {
        /// Its id.
        step: String,
        /// What.
        text: String,
        /// What to do about it.
        hint: String,
    },
    /// A step failed and will be tried again.
    Retrying {
        /// Its id.
        step: String,
        /// What it failed with.
        error: String,
        /// After so long.
        after: Duration,
    },
    /// A step ended.
    Finished {
        /// Its id.
        step: String,
        /// How.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
}

/// How a running execution is asked to end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Start nothing new; let what runs go on to its end. A newer commit or the first SIGTERM.
    pub drain: CancellationToken,
    /// As `drain`, because a newer commit came: the history then says `superseded` instead of `interrupted`.
    pub superseded: CancellationToken,
    /// Leave what runs, too: interruptible steps end, a peer-to-peer migration goes on by itself and is adopted later.
    pub leave: CancellationToken,
    /// What a newer commit says to what runs.
    pub orders: Orders,
}

impl Stop {
    /// Tells whether nothing new may begin.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled() || self.superseded.is_cancelled() || self.leave.is_cancelled()
    }

    /// Waits until nothing new may begin.
    pub async fn draining(&self) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.superseded.cancelled() => {}
            () = self.leave.cancelled() => {}
        }
    }
}

/// Limits of an execution. A limit of 0 lets nothing of its sort begin.
#[derive(Clone, Debug)]
pub struct ExecuteLimits {
    /// Steps at once over all hosts.
    pub max_concurrent: usize,
    /// Migrations that may leave and arrive at once, by host; 2 and 2 where a host is not named.
    pub migrations: BTreeMap<String, (usize, usize)>,
    /// Migrations at once for one resource, where it says how many.
    pub together: BTreeMap<ResourceId, usize>,
    /// Other steps at once on one host.
    pub per_host: usize,
    /// Attempts at a step that fails transiently.
    pub attempts: u32,
    /// First pause between attempts; doubles, with jitter.
    pub backoff: Duration,
    /// How long a step may take that has no time-out of its own.
    pub step_deadline: Duration,
}

impl Default for ExecuteLimits {
    fn default() -> Self {
        Self {
            max_concurrent: 8,
            migrations: BTreeMap::new(),
            together: BTreeMap::new(),
            per_host: 4,
            attempts: 3,
            backoff: Duration::from_secs(1),
            step_deadline: Duration::from_secs(300),
        }
    }
}

/// How an execution ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Every step of the plan that was not blocked, by id.
    pub outcomes: BTreeMap<String, Outcome>,
}

impl Report {
    /// Whether nothing failed, was refused, skipped or interrupted.
    pub fn succeeded(&self) -> bool {
        self.outcomes.values().all(|o| matches!(o, Outcome::Done | Outcome::AlreadyDone))
    }
}

/// Why a plan was not carried out to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The plan contradicts itself: it was edited or damaged. Nothing was begun.
    #[error("the plan cannot be carried out: {0}; make it anew with `drover plan`")]
    Plan(String),
    /// The journal could not be written. What ran was let go on to its end, nothing else was begun.
    #[error("nothing more was begun, because what is begun must be written down first")]
    Journal {
        /// What the journal said.
        #[source]
        source: JournalError,
        /// How the steps ended that ran.
        report: Report,
    },
}
