//! The outside world behind two small traits: [`Observer`] reads and cannot write, [`Actor`] writes. A dry run is given
//! observers only. Providers know the model and the actions, and not each other.

mod ask;
mod fleet;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "libvirt")]
pub mod libvirt;
mod orders;
pub mod secrets;
pub mod simulator;

pub use fleet::{ReadFleet, WriteFleet};
pub use orders::{Orders, StepOrders};

use crate::action::Action;
use crate::observed::{Answer, ClusterAnswer, ClusterQuestion, ClusterState, HostState, Progress, Question, Reading};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Something changed on a host or a cluster, by what it told of itself: a hint to look there, and never a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostChange {
    /// The host's name in the manifests; of a cluster, [`HostChange::cluster_name`].
    pub host: String,
    /// When it was told last. A reading that began later has the change in it.
    pub at: Instant,
}

impl HostChange {
    /// A change of a cluster.
    pub fn of_cluster(cluster: &str, at: Instant) -> Self {
        Self { host: Self::cluster_name(cluster), at }
    }

    /// The name under which a cluster stands where hosts stand by their names: it can be no Host's.
    pub fn cluster_name(cluster: &str) -> String {
        format!("Cluster/{cluster}")
    }
}

/// Takes changes. Has to return at once.
pub type TellChange = Arc<dyn Fn(HostChange) + Send + Sync>;

/// Reads hosts.
#[async_trait]
pub trait Observer: Send + Sync {
    /// The provider's name, for logs: `libvirt`, `simulator`.
    fn name(&self) -> &'static str;

    /// Reads one host completely, within `deadline`, or says why it could not. Never blocks the executor's threads.
    async fn observe(&self, host: &str, deadline: Duration) -> Reading<HostState>;

    /// Asks one host, within `deadline`, for something that a reading does not have. Changes nothing there.
    ///
    /// # Errors
    /// Why there is no answer, in words for the operator.
    async fn ask(&self, host: &str, _question: Question, _deadline: Duration) -> Result<Answer, String> {
        Err(format!("the provider `{}` of host `{host}` answers no such question", self.name()))
    }
}

/// Reads clusters.
#[async_trait]
pub trait ClusterObserver: Send + Sync {
    /// Reads one cluster completely, within `deadline`, or says why it could not.
    async fn observe(&self, cluster: &str, deadline: Duration) -> Reading<ClusterState>;

    /// Asks one cluster, within `deadline`, for something that a reading does not have. Changes nothing there.
    ///
    /// # Errors
    /// Why there is no answer, in words for the operator.
    async fn ask(&self, cluster: &str, question: &ClusterQuestion, deadline: Duration)
    -> Result<ClusterAnswer, String>;
}

/// Carries actions out.
///
/// *Guarantees*: `look` changes nothing. `act` may be called again after any crash; what it began goes on or is found by
/// the next `look`. `verify` reads the truth anew, from every host the action touches.
#[async_trait]
pub trait Actor: Send + Sync {
    /// Checks at the last moment what an action would meet.
    async fn look(&self, action: &Action, ctx: &StepCtx) -> Result<Look, ActError>;

    /// Carries the action out, or follows it where [`Look::Running`] found it under way, until its end.
    async fn act(&self, action: &Action, ctx: &StepCtx) -> Result<(), ActError>;

    /// Tells whether the action's outcome is really there.
    async fn verify(&self, action: &Action, ctx: &StepCtx) -> Result<(), ActError>;
}

/// What an action meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It can be carried out.
    Ready,
    /// Its outcome is there already.
    AlreadyDone,
    /// It is under way (begun by an earlier Drover): `act` follows it.
    Running,
    /// Its preconditions do not hold any more.
    Refused {
        /// Which, and what is there instead.
        reason: String,
    },
}

/// What a step is given.
#[derive(Clone)]
pub struct StepCtx {
    /// How long the step may take.
    pub deadline: Duration,
    /// Cancelled when the step should end early; a step heeds it only where that is safe.
    pub cancel: CancellationToken,
    /// Takes progress.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// What a newer commit says to this step while it runs.
    pub orders: StepOrders,
    /// Takes what is worth saying of a step that goes well all the same.
    pub note: Arc<dyn Fn(Note) + Send + Sync>,
}

/// What is worth saying of a step that goes well all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What is not as it should be.
    pub text: String,
    /// What to do about it.
    pub hint: String,
}

/// Why an action failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ActError {
    /// What failed, on which host, with what the system said.
    pub message: String,
    /// Whether it may succeed when tried again.
    pub transient: bool,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ActError {
    /// An error that may pass.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { message: message.into(), transient: true, hint: None }
    }

    /// An error that stays until somebody does something.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), transient: false, hint: None }
    }

    /// Of an action that is another provider's. The fleet gives each its own, so this is a fault of Drover's.
    pub(crate) fn not_of(provider: &str, action: &Action) -> Self {
        Self::permanent(format!("internal error: the provider `{provider}` was given {}", action.name()))
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
