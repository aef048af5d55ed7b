//! What Drover can do to a system, as plain data: every action carries each value it needs, so that carrying a plan out
//! leaves nothing to decide. One file for each family of actions; this file is the list.

mod cluster;
mod disk;
mod machine;
mod migration;
mod order;

pub use cluster::{ClusterAction, Until};
pub use disk::{DiskMove, DiskPlace};
pub use machine::{DomainXmlEdit, ImageSource, LiveChange, MachineAction, PoolRef};
pub use migration::{AtTimeout, Backing, Control, MigratedVolume, Migration, MigrationWay, Tuning};
pub use order::Order;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One typed thing that a provider can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Action {
    /// Hosts, storage pools, volumes and domains: carried out by libvirt or by the simulator.
    Machine(MachineAction),
    /// Kubernetes clusters: carried out through their API servers.
    Cluster(ClusterAction),
}

impl Action {
    /// The action's name, as the plan shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Machine(a) => a.name(),
            Self::Cluster(a) => a.name(),
        }
    }

    /// What undoes it, where one thing does.
    pub fn undo(&self) -> Option<String> {
        match self {
            Self::Machine(a) => a.undo(),
            Self::Cluster(a) => a.undo(),
        }
    }

    /// The targets whose limits it counts against: host names, source first; or the cluster.
    pub fn targets(&self) -> Vec<&str> {
        match self {
            Self::Machine(a) => a.hosts(),
            Self::Cluster(a) => vec![a.cluster()],
        }
    }

    /// What it does to machines and their hosts, where it does that.
    pub fn machine(&self) -> Option<&MachineAction> {
        match self {
            Self::Machine(a) => Some(a),
            Self::Cluster(_) => None,
        }
    }
}
