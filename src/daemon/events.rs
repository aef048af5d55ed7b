//! When a pass runs because hosts told of changes. Values in, values out: the clock is an argument.
//!
//! Drover's own steps make hosts tell of changes, too. Two rules keep that from becoming a loop:
//! - *What was read since is not news.* A change that was told before the last complete reading of its host began is in
//!   that reading. A pass reads again after its steps, so it has seen what they caused; what is told late brings at most
//!   one further pass, which finds nothing to do and causes nothing.
//! - *A bound.* Passes for changes may be [`BURST`] in a row and then one each [`PERIOD`]: a guest that dies as often as it
//!   is started, or somebody else's machines that come and go all day, do not keep Drover busy.
//!
//! Changes that wait are remembered once. A pass for whatever reason takes them all along.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait for what other hosts have to tell: a migration concerns two.
pub(super) const SETTLE: Duration = Duration::from_millis(300);
/// Least time between the end of a pass and a pass for changes.
pub(super) const SPACING: Duration = Duration::from_secs(2);
/// Passes for changes that may follow each other without a further pause.
const BURST: u32 = 5;
/// After that, one in so long.
const PERIOD: Duration = Duration::from_secs(30);

/// Changes that wait for a pass, and when that may begin.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// When each host told last.
    waiting: BTreeMap<String, Instant>,
    /// When a pass for them is due.
    due: Option<Instant>,
    /// When the last pass ended.
    ended: Option<Instant>,
    /// Where the passes so far would end if each took [`PERIOD`].
    booked_until: Option<Instant>,
}

impl Changes {
    /// A host tells. `read_at` is when its last complete reading began. Says whether it is news.
    pub(super) fn told(&mut self, host: String, at: Instant, read_at: Option<Instant>, now: Instant) -> bool {
        if read_at.is_some_and(|read| at < read) {
            return false;
        }
        let last = self.waiting.entry(host).or_insert(at);
        *last = (*last).max(at);
        let spaced = self.ended.map_or(now, |end| end + SPACING);
        let earliest = (now + SETTLE).max(spaced).max(self.free_at(now));
        self.due.get_or_insert(earliest);
        true
    }

    /// When a pass for changes is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A pass begins, and looks at everything that was told.
    pub(super) fn pass_begins(&mut self, for_changes: bool, now: Instant) {
        self.waiting.clear();
        self.due = None;
        if for_changes {
            self.booked_until = Some(self.booked_until.map_or(now, |until| until.max(now)) + PERIOD);
        }
    }

    /// A pass ended; `read_at` has when each host's last complete reading began.
    pub(super) fn pass_ended(&mut self, read_at: &BTreeMap<String, Instant>, now: Instant) {
        self.ended = Some(now);
        self.waiting.retain(|host, at| read_at.get(host).is_none_or(|read| *at >= *read));
        self.due = match self.due {
            Some(due) if !self.waiting.is_empty() => Some(due.max(now + SPACING).max(self.free_at(now))),
            _ => None,
        };
    }

    /// From when on the bound lets a pass begin.
    fn free_at(&self, now: Instant) -> Instant {
        self.booked_until.and_then(|until| until.checked_sub(PERIOD * (BURST - 1))).unwrap_or(now).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tell(changes: &mut Changes, host: &str, at: Instant) -> bool {
        changes.told(host.into(), at, None, at)
    }

    #[test]
    fn many_changes_are_one_pass_soon_after_the_first() {
        let (mut c, start) = (Changes::default(), Instant::now());
        for i in 0..20 {
            assert!(tell(&mut c, if i % 2 == 0 { "a" } else { "b" }, start + SETTLE / 40 * i));
        }
        assert_eq!(c.due(), Some(start + SETTLE));
        c.pass_begins(true, start + SETTLE);
        assert_eq!(c.due(), None);
    }

    #[test]
    fn what_the_steps_of_a_pass_caused_is_no_news_once_it_was_read() {
        let (mut c, start) = (Changes::default(), Instant::now());
        c.pass_begins(false, start);
        tell(&mut c, "a", start + SECOND);
        tell(&mut c, "b", start + SECOND * 3);
        // Both were read again after two seconds, `c` never.
        let read = BTreeMap::from([("a".to_owned(), start + SECOND * 2), ("b".to_owned(), start + SECOND * 2)]);
        let end = start + SECOND * 4;
        c.pass_ended(&read, end);
        assert_eq!(c.due(), Some(end + SPACING), "b changed after it was read");
        c.waiting.remove("b");
        c.pass_ended(&read, end);
        assert_eq!(c.due(), None, "a's change is in the reading");
        // The same, told late.
        assert!(!c.told("a".into(), start + SECOND, read.get("a").copied(), end));
        assert_eq!(c.due(), None);
        assert!(c.told("c".into(), start + SECOND, None, end));
        assert_eq!(c.due(), Some(end + SPACING), "a host that was not read may have changed");
    }

    #[test]
    fn a_host_that_tells_without_end_brings_a_bounded_number_of_passes() {
        let (mut c, start) = (Changes::default(), Instant::now());
        let (mut now, mut begun) = (start, Vec::new());
        while now < start + SECOND * 600 {
            tell(&mut c, "a", now);
            if c.due().is_some_and(|due| due <= now) {
                begun.push(now);
                c.pass_begins(true, now);
                c.pass_ended(&BTreeMap::new(), now);
            }
            now += SECOND / 10;
        }
        assert!((24..=26).contains(&begun.len()), "{} passes in ten minutes", begun.len());
        assert!(begun[4] < start + SECOND * 10, "the first ones are not held back");
        // After ten quiet minutes it is as at the start.
        let later = now + SECOND * 600;
        tell(&mut c, "a", later);
        assert!(c.due().unwrap() <= now + SECOND * 600 + SETTLE, "{:?}", c.due().unwrap() - later);
    }
}
