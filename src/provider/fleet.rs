//! The hosts of a revision, each with the provider that serves it.

use super::{Actor, Observer};
use crate::action::Action;
use crate::observed::{FORMAT_VERSION, Observed, Reading};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Hosts that can be read. What a dry run is given: there is no way from here to a write.
#[derive(Clone, Default)]
pub struct ReadFleet {
    pub(super) by_host: BTreeMap<String, Arc<dyn Observer>>,
}

impl ReadFleet {
    /// A fleet of these hosts.
    pub fn new(by_host: BTreeMap<String, Arc<dyn Observer>>) -> Self {
        Self { by_host }
    }

    /// Reads every host at once, each within `deadline`. A host that cannot be read slows no other.
    pub async fn observe(&self, taken_at: Timestamp, deadline: Duration) -> Observed {
        let readings = futures::future::join_all(self.by_host.iter().map(|(host, observer)| async move {
            let reading = tokio::time::timeout(deadline, observer.observe(host, deadline))
                .await
                .unwrap_or_else(|_| Reading::Unknown { why: format!("no answer within {} s", deadline.as_secs_f64()) });
            (host.clone(), reading)
        }))
        .await;
        Observed {
            format_version: FORMAT_VERSION.into(),
            taken_at,
            hosts: readings.into_iter().collect(),
            cpu_baselines: Vec::new(),
        }
    }
}

/// Hosts that can be changed.
#[derive(Clone, Default)]
pub struct WriteFleet {
    by_host: BTreeMap<String, Arc<dyn Actor>>,
}

impl WriteFleet {
    /// A fleet of these hosts.
    pub fn new(by_host: BTreeMap<String, Arc<dyn Actor>>) -> Self {
        Self { by_host }
    }

    /// The same hosts, for reading.
    pub fn read(&self) -> ReadFleet {
        ReadFleet { by_host: self.by_host.iter().map(|(h, a)| (h.clone(), a.clone() as Arc<dyn Observer>)).collect() }
    }

    /// Who carries an action out: the provider of its first host.
    pub fn actor(&self, action: &Action) -> Option<Arc<dyn Actor>> {
        self.by_host.get(*action.targets().first()?).cloned()
    }
}
