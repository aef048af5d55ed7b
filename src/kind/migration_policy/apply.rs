//! A policy's fields, put into a migration.

use super::{AutoConverge, Control, MigrationPolicySpec, ParallelConnections, Throttle, TimeoutAction, Transport};
use crate::action::{self, AtTimeout, Migration, Tuning};
use crate::model::Rate;

/// How often the longest pause is raised where the policy does not say: oVirt's steps are of that order.
const RAISE_EVERY_MILLIS: u64 = 60_000;

impl MigrationPolicySpec {
    /// Gives a migration what the policy says, but for what depends on the machine and its disks. `link` is the slower of
    /// the two hosts' links.
    pub fn apply(&self, link: Rate, m: &mut Migration) {
        m.parallel = self.parallel_connections.map(|p| match p {
            ParallelConnections::Count(n) => n,
            ParallelConnections::Auto(_) => u32::try_from(link.0.div_ceil(10_000_000_000).clamp(2, 255)).unwrap_or(2),
        });
        m.tuning = self.tuning();
        m.bandwidth_mib = self.bandwidth.map(Rate::mebibytes_per_second);
        m.max_downtime_millis = self.max_downtime.map(|d| d.0);
        m.auto_converge = self.auto_converge.is_on();
        m.post_copy_after_millis = self.post_copy.as_ref().and_then(|p| p.after).map(|after| after.0);
        m.timeout_millis = self.timeout.after.0;
        m.retries = self.retries;
        m.control = match self.control {
            Control::Auto => action::Control::Auto,
            Control::PeerToPeer => action::Control::PeerToPeer,
            Control::Managed => action::Control::Managed,
        };
    }

    /// How a live migration converges and travels.
    fn tuning(&self) -> Tuning {
        let throttle = match self.auto_converge {
            AutoConverge::By(throttle) => throttle,
            AutoConverge::Switch(_) => Throttle::default(),
        };
        let post_copy = self.post_copy.as_ref();
        Tuning {
            downtime_up_to_millis: self.raise_downtime.map(|r| r.up_to.0),
            downtime_every_millis: self.raise_downtime.map(|r| r.every.map_or(RAISE_EVERY_MILLIS, |e| e.0)),
            throttle_initial: throttle.initial,
            throttle_increment: throttle.increment,
            compression: self.compression.map(|c| c.method().to_owned()),
            zero_copy: self.zero_copy,
            tls: self.transport == Transport::Tls,
            tunnelled: self.transport == Transport::Tunnelled,
            post_copy_passes: post_copy.and_then(|p| p.passes),
            post_copy_bandwidth_mib: post_copy.and_then(|p| p.bandwidth).map(Rate::mebibytes_per_second),
            synchronous_writes: self.synchronous_writes,
            at_timeout: match self.timeout.action {
                TimeoutAction::Abort => AtTimeout::Abort,
                TimeoutAction::PostCopy => AtTimeout::PostCopy,
                TimeoutAction::Suspend => AtTimeout::Suspend,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::MigrationWay;
    use crate::model::Rate;

    /// Parallel connections of a move over a link of so many Mbit/s.
    fn connections(policy: &str, mbit: u64) -> Option<u32> {
        let policy: MigrationPolicySpec = serde_yaml::from_str(policy).unwrap();
        let mut m = Migration::new(uuid::Uuid::nil(), "web-1", ["a", "b"], MigrationWay::Live, String::new());
        policy.apply(Rate(mbit * 1_000_000), &mut m);
        m.parallel
    }

    /// The guide's figures: one for each 10 Gbit/s, and at least 2.
    #[test]
    fn there_is_a_connection_for_each_ten_gigabits() {
        let auto = "{parallelConnections: Auto}";
        let of = [100, 1_000, 10_000, 20_000, 20_001, 40_000, 100_000, 400_000].map(|mbit| connections(auto, mbit));
        assert_eq!(of, [2, 2, 2, 2, 3, 4, 10, 40].map(Some));
        assert_eq!(connections(auto, 10_000_000), Some(255), "QEMU takes no more");
        assert_eq!(connections("{parallelConnections: 7}", 100_000), Some(7));
        assert_eq!(connections("{}", 100_000), None);
    }
}
