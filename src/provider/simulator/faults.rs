//! Faults that a test asks for.

use std::time::Duration;

/// Which calls a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    Observe,
    Ask,
    Look,
    Act,
    Verify,
}

/// What happens to a call that a fault hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails before anything was done.
    Fails {
        /// What the host says.
        message: String,
        /// Whether it may pass.
        transient: bool,
    },
    /// It is done, and its answer is lost on the way back.
    ReplyLost,
    /// It never comes back, and nothing is done.
    Hangs,
    /// The provider has a bug.
    Panics,
    /// The migration that it begins breaks when so much of it (in hundredths) is done.
    Breaks {
        /// How much.
        at: u64,
    },
    /// The migration that it begins leaves the source's definition behind, "shut off (migrated)".
    LeavesDefinition,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// On which calls.
    pub call: Call,
    /// Only on this action (`MigrateVirtualMachine`).
    pub action: Option<String>,
    /// Only on this host.
    pub host: Option<String>,
    /// On the how-manieth such call, from 1; on every one where not given.
    pub nth: Option<u64>,
    /// What happens.
    pub effect: Effect,
}

impl Fault {
    /// A fault on every call of a sort.
    pub fn on(call: Call, effect: Effect) -> Self {
        Self { call, action: None, host: None, nth: None, effect }
    }

    /// Only on an action.
    #[must_use]
    pub fn action(mut self, action: &str) -> Self {
        self.action = Some(action.to_owned());
        self
    }

    /// Only on a host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Only on the how-manieth such call, from 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = Some(nth);
        self
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// With how many calls each has seen.
    list: Vec<(Fault, u64)>,
    /// How long each call takes.
    pub latency: Duration,
}

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.list.push((fault, 0));
    }

    pub fn heal(&mut self) {
        self.list.clear();
    }

    /// What happens to this call.
    pub fn hit(&mut self, call: Call, action: Option<&str>, hosts: &[&str]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (fault, seen) in &mut self.list {
            let fits = fault.call == call
                && fault.action.as_deref().is_none_or(|a| Some(a) == action)
                && fault.host.as_deref().is_none_or(|h| hosts.contains(&h));
            if fits {
                *seen += 1;
                if fault.nth.is_none_or(|n| n == *seen) {
                    effects.push(fault.effect.clone());
                }
            }
        }
        effects
    }
}
