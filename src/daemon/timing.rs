//! When the daemon does what: intervals, spacings and pauses.

use crate::config::Config;
use jiff::Timestamp;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// When the daemon does what.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Between two polls.
    pub poll: Duration,
    /// Part of it by which each interval varies, 0 to 1.
    pub jitter: f64,
    /// Between two passes without a new commit.
    pub drift: Duration,
    /// How long running steps may go on after SIGTERM.
    pub grace: Duration,
    /// First pause after a pass that did not succeed; doubles up to `drift`.
    pub retry: Duration,
    /// How long to wait for the rest of a burst of file events.
    pub settle: Duration,
}

impl From<&Config> for Timing {
    fn from(config: &Config) -> Self {
        Self {
            poll: config.poll_interval,
            jitter: config.poll_jitter,
            drift: config.drift_interval,
            grace: config.grace_time,
            ..Self::default()
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(30),
            jitter: 0.1,
            drift: Duration::from_secs(300),
            grace: Duration::from_secs(30),
            retry: Duration::from_secs(5),
            settle: Duration::from_millis(50),
        }
    }
}

/// How long left steps and a fetch have to let go before the daemon ends without them.
pub const LEAVE_TIME: Duration = Duration::from_secs(5);
/// How often the loop shows that it is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);
/// Least time between two looks that a webhook or a file event asks for.
pub(super) const LOOK_SPACING: Duration = Duration::from_millis(200);
/// First pause after a fetch that failed; doubles up to the poll interval.
pub(super) const FETCH_RETRY: Duration = Duration::from_secs(2);
/// How long until a moment of the wall clock: at least a second, so that a clock that is off makes no tight loop, and at
/// most a day, so that it puts nothing off for ever.
pub(super) fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now))
        .unwrap_or_default()
        .clamp(Duration::from_secs(1), Duration::from_secs(86_400))
}

/// A duration lengthened or shortened at random by up to `part` of itself, so that many daemons do not ask at once.
pub(super) fn jittered(duration: Duration, part: f64) -> Duration {
    // The standard library's hash keys are random for each use: enough for this, without a generator.
    let random = RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64;
    duration.mul_f64((1.0 + part.clamp(0.0, 1.0) * (random * 2.0 - 1.0)).max(0.01))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_part() {
        let base = Duration::from_secs(100);
        let many: Vec<f64> = (0..200).map(|_| jittered(base, 0.1).as_secs_f64()).collect();
        assert!(many.iter().all(|s| (90.0..=110.0).contains(s)));
        assert!(many.iter().any(|s| *s < 98.0) && many.iter().any(|s| *s > 102.0));
        assert_eq!(jittered(base, 0.0), base);
    }

    #[test]
    fn a_clock_that_is_off_neither_spins_nor_waits_for_ever() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(until(Timestamp::from_second(10).unwrap(), now), Duration::from_secs(1));
        assert_eq!(until(Timestamp::from_second(1_000_030).unwrap(), now), Duration::from_secs(30));
        assert_eq!(until(Timestamp::from_second(9_000_000_000).unwrap(), now), Duration::from_secs(86_400));
    }
}
