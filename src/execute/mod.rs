//! Carries a plan out: ready set, limits for each host and in all, deadlines, retry, verification, journal.

use crate::journal::Outcome;
use crate::model::ResourceId;
use crate::observed::Progress;
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
    /// Leave what runs, too: interruptible steps end, a peer-to-peer migration goes on by itself and is adopted later.
    pub leave: CancellationToken,
}

/// Limits of an execution.
#[derive(Clone, Debug)]
pub struct ExecuteLimits {
    /// Steps at once over all hosts.
    pub max_concurrent: usize,
    /// Migrations that may leave and arrive at once, by host; 2 and 2 where a host is not named.
    pub migrations: BTreeMap<String, (usize, usize)>,
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
