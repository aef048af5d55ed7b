//! The hosts and clusters of a revision, each with the provider that serves it.

use super::{Actor, ClusterObserver, Observer};
use crate::action::Action;
use crate::observed::{ClusterQuestions, FORMAT_VERSION, Observed, Reading};
use futures::future::{join, join_all};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Hosts and clusters that can be read. What a dry run is given: there is no way from here to a write.
#[derive(Clone, Default)]
pub struct ReadFleet {
    pub(super) by_host: BTreeMap<String, Arc<dyn Observer>>,
    by_cluster: BTreeMap<String, Arc<dyn ClusterObserver>>,
}

impl ReadFleet {
    /// A fleet of these hosts.
    pub fn new(by_host: BTreeMap<String, Arc<dyn Observer>>) -> Self {
        Self { by_host, by_cluster: BTreeMap::new() }
    }

    /// The same, and these clusters.
    #[must_use]
    pub fn with_clusters(self, by_cluster: BTreeMap<String, Arc<dyn ClusterObserver>>) -> Self {
        Self { by_cluster, ..self }
    }

    /// Reads every host and cluster at once, each within `deadline`. One that cannot be read slows no other.
    pub async fn observe(&self, taken_at: Timestamp, deadline: Duration) -> Observed {
        let hosts = join_all(self.by_host.iter().map(|(host, observer)| async move {
            (host.clone(), within(deadline, observer.observe(host, deadline)).await)
        }));
        let clusters = join_all(self.by_cluster.iter().map(|(cluster, observer)| async move {
            (cluster.clone(), within(deadline, observer.observe(cluster, deadline)).await)
        }));
        let (hosts, clusters) = join(hosts, clusters).await;
        Observed {
            format_version: FORMAT_VERSION.into(),
            taken_at,
            hosts: hosts.into_iter().collect(),
            cpu_baselines: Vec::new(),
            clusters: clusters.into_iter().collect(),
        }
    }

    /// Asks clusters everything at once, each question within `deadline`. What has no answer is unknown; it makes no cluster
    /// unknown.
    pub async fn ask_clusters(&self, questions: ClusterQuestions, observed: &mut Observed, deadline: Duration) {
        let answers = join_all(questions.into_iter().map(|(cluster, question)| async move {
            let answer = match self.by_cluster.get(&cluster) {
                None => Err(format!("no Cluster `{cluster}` is declared")),
                Some(observer) => tokio::time::timeout(deadline, observer.ask(&cluster, &question, deadline))
                    .await
                    .unwrap_or_else(|_| Err(format!("`{cluster}` did not answer within {} s", deadline.as_secs_f64()))),
            };
            let answer = answer.map_or_else(|why| Reading::Unknown { why }, Reading::Present);
            (cluster, question, answer)
        }));
        for (cluster, question, answer) in answers.await {
            if let Some(Reading::Present(state)) = observed.clusters.get_mut(&cluster) {
                state.answer(question, answer);
            }
        }
    }
}

async fn within<T>(deadline: Duration, reading: impl Future<Output = Reading<T>>) -> Reading<T> {
    tokio::time::timeout(deadline, reading)
        .await
        .unwrap_or_else(|_| Reading::Unknown { why: format!("no answer within {} s", deadline.as_secs_f64()) })
}

/// Hosts and clusters that can be changed.
#[derive(Clone, Default)]
pub struct WriteFleet {
    read: ReadFleet,
    by_host: BTreeMap<String, Arc<dyn Actor>>,
    by_cluster: BTreeMap<String, Arc<dyn Actor>>,
}

impl WriteFleet {
    /// A fleet of these hosts, and how they are read.
    pub fn new(read: ReadFleet, by_host: BTreeMap<String, Arc<dyn Actor>>) -> Self {
        Self { read, by_host, by_cluster: BTreeMap::new() }
    }

    /// The same, and these clusters.
    #[must_use]
    pub fn with_clusters(self, by_cluster: BTreeMap<String, Arc<dyn Actor>>) -> Self {
        Self { by_cluster, ..self }
    }

    /// The same hosts and clusters, for reading.
    pub fn read(&self) -> ReadFleet {
        self.read.clone()
    }

    /// Who carries an action out: the provider of its cluster, or of its first host.
    pub fn actor(&self, action: &Action) -> Option<Arc<dyn Actor>> {
        let by_name = match action {
            Action::Machine(_) => &self.by_host,
            Action::Cluster(_) => &self.by_cluster,
        };
        by_name.get(*action.targets().first()?).cloned()
    }
}
