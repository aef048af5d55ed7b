//! What the two hosts say, and what it means: a pure function, because everything about a migration is decided by it,
//! before, during and after. A call's own result decides nothing.
//!
//! ```text
//! source              destination         meaning
//! active, no job      –                   Here (Ready, or the move failed)
//! active, job out     migrating or –      Moving
//! paused (migrating)  running, no job     HandingOver: the source's half is about to go
//! paused (postcopy)   running (postcopy)  Moving, past the point of no return
//! … postcopy-failed on either side        Broken: a person decides; nothing is destroyed
//! –                   there               There
//! off                 active              There, with a definition left behind
//! off                 off                 Here (an old definition waits at the destination)
//! active              active, no job      Twice: alarm
//! –                   –                   Nowhere
//! ```

use crate::observed::{DomainState, JobOperation, RunState};
use crate::provider::libvirt::domain::word;

/// Both halves of a migration, read from both hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Sides {
    /// The machine on the source.
    pub source: Option<DomainState>,
    /// The machine on the destination, by UUID.
    pub destination: Option<DomainState>,
    /// Another machine on the destination that has the name.
    pub name_taken: bool,
}

/// Where a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the source; nothing is under way.
    Here,
    /// On its way, with a job on the source.
    Moving {
        /// Memory is already split over both hosts: it must go forward.
        post_copy: bool,
    },
    /// It runs at the destination, and the source has not let go of its half yet, which stands still: a moment, unless the
    /// source's daemon died in it.
    HandingOver,
    /// At the destination. The source may have kept an old definition.
    There,
    /// The destination's half is still there although the source has no job for it any more; it goes away by itself.
    Clearing,
    /// A post-copy migration broke.
    Broken,
    /// It runs at both.
    Twice,
    /// At neither.
    Nowhere,
}

fn has_reason(state: Option<&DomainState>, reason: &str) -> bool {
    state.is_some_and(|s| s.is_active() && s.reason == reason)
}

/// Whether a migration leaves from here.
pub(super) fn is_leaving(state: &DomainState) -> bool {
    state.job.as_ref().is_some_and(|j| j.operation == JobOperation::MigrationOut)
}

impl Sides {
    /// Where the machine is.
    pub(super) fn place(&self) -> Place {
        let (source, destination) = (self.source.as_ref(), self.destination.as_ref());
        let either = |reason| has_reason(source, reason) || has_reason(destination, reason);
        if either("postcopy-failed") {
            return Place::Broken;
        }
        let leaving = source.is_some_and(is_leaving);
        if either("postcopy") {
            // In post-copy the destination runs and the source waits. Once the source is gone, the rest is bookkeeping.
            return match source.is_some_and(DomainState::is_active) {
                true => Place::Moving { post_copy: true },
                false => Place::There,
            };
        }
        if leaving {
            return Place::Moving { post_copy: false };
        }
        let source_active = source.is_some_and(DomainState::is_active);
        let arriving = destination.is_some_and(DomainState::is_in_migration);
        let destination_active = destination.is_some_and(DomainState::is_active) && !arriving;
        let let_go = source.is_some_and(|s| s.state == RunState::Paused && s.reason == "migrating");
        match (source, destination) {
            (None, None) => Place::Nowhere,
            (_, Some(_)) if arriving => Place::Clearing,
            (Some(_), Some(_)) if let_go && destination_active => Place::HandingOver,
            (Some(_), Some(_)) if source_active && destination_active => Place::Twice,
            (Some(_), Some(_)) if destination_active => Place::There,
            (Some(_), _) => Place::Here,
            (None, Some(_)) => Place::There,
        }
    }

    /// Both hosts' words on the machine: `kvm-a: running (booted); kvm-b: not there`.
    pub(super) fn words(&self, from: &str, to: &str) -> String {
        let one = |s: &Option<DomainState>| s.as_ref().map_or_else(|| "not there".to_owned(), word);
        format!("it is {} on `{from}` and {} on `{to}`", one(&self.source), one(&self.destination))
    }

    /// Why a migration that would start now must not, if so.
    pub(super) fn objection(&self, live: bool, permanent: bool) -> Option<String> {
        let source = self.source.as_ref()?;
        let name = &source.name;
        if self.name_taken {
            return Some(format!("another machine is called `{name}` at the destination"));
        }
        if let Some(there) = &self.destination
            && there.owner != source.owner
        {
            let owner = there
                .owner
                .as_ref()
                .map_or("nobody that Drover knows".into(), |o| format!("`{}` of fleet `{}`", o.name, o.fleet));
            return Some(format!("a machine of this UUID is defined at the destination, and belongs to {owner}"));
        }
        let has_home = source.persistent || self.destination.as_ref().is_some_and(|d| d.persistent);
        if !permanent && !live {
            return Some(format!("`{name}` is off: only a machine that runs is elsewhere for a while"));
        }
        if !permanent && !has_home {
            return Some(format!("`{name}` has no definition on either host: it would vanish when it stops"));
        }
        if let Some(job) = &source.job {
            return Some(format!("another job ({:?}) runs on `{name}`", job.operation));
        }
        if source.snapshots > 0 {
            return Some(format!("`{name}` has {} snapshots, which libvirt does not move", source.snapshots));
        }
        match (live, source.state) {
            (true, RunState::Running | RunState::Paused | RunState::Suspended) => {
                source.is_in_migration().then(|| format!("`{name}` is {}", word(source)))
            }
            (true, _) => Some(format!("`{name}` is {}, and a live migration was planned", word(source))),
            // libvirt would take it, and leave a second copy that can be started.
            (false, _) if source.is_active() => {
                Some(format!("`{name}` is {}, and a move while off was planned", word(source)))
            }
            (false, _) if source.managed_save => {
                Some(format!("`{name}` has a saved memory image (managed save), which would be lost"))
            }
            (false, _) if !source.persistent => Some(format!("`{name}` has no persistent definition to move")),
            (false, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{JobState, OwnerMark, Progress};
    use uuid::Uuid;

    fn domain(state: RunState, reason: &str) -> DomainState {
        DomainState::new("web-1".into(), Uuid::nil(), state, reason.into(), true)
    }

    fn leaving(state: RunState, reason: &str) -> DomainState {
        let job = JobState { operation: JobOperation::MigrationOut, progress: Progress::default() };
        DomainState { job: Some(job), ..domain(state, reason) }
    }

    fn sides(source: Option<DomainState>, destination: Option<DomainState>) -> Sides {
        Sides { source, destination, name_taken: false }
    }

    use RunState::{Off, Paused, Running};

    /// Every row seen on real hosts (two libvirt 11.3, faults injected).
    #[test]
    fn where_a_machine_is() {
        for (source, destination, place) in [
            (Some(domain(Running, "booted")), None, Place::Here),
            (Some(domain(Off, "shutdown")), None, Place::Here),
            (Some(domain(Off, "shutdown")), Some(domain(Off, "unknown")), Place::Here),
            (Some(domain(Running, "booted")), Some(domain(Off, "unknown")), Place::Here),
            (Some(leaving(Running, "booted")), None, Place::Moving { post_copy: false }),
            (Some(leaving(Running, "booted")), Some(domain(Paused, "migrating")), Place::Moving { post_copy: false }),
            (Some(leaving(Paused, "migrating")), Some(domain(Running, "migrated")), Place::Moving { post_copy: false }),
            (Some(domain(Paused, "migrating")), Some(domain(Running, "migrated")), Place::HandingOver),
            (Some(domain(Paused, "user")), Some(domain(Running, "migrated")), Place::Twice),
            (Some(leaving(Paused, "postcopy")), Some(domain(Running, "postcopy")), Place::Moving { post_copy: true }),
            (Some(domain(Paused, "postcopy-failed")), Some(domain(Running, "postcopy")), Place::Broken),
            (Some(domain(Paused, "postcopy-failed")), Some(domain(Running, "postcopy-failed")), Place::Broken),
            (None, Some(domain(Running, "migrated")), Place::There),
            (None, Some(domain(Off, "unknown")), Place::There),
            (Some(domain(Off, "migrated")), Some(domain(Running, "migrated")), Place::There),
            (Some(domain(Off, "migrated")), Some(domain(Running, "postcopy")), Place::There),
            (Some(domain(Running, "migration-canceled")), Some(domain(Paused, "migrating")), Place::Clearing),
            (Some(domain(Running, "booted")), Some(domain(Running, "booted")), Place::Twice),
            (None, None, Place::Nowhere),
        ] {
            let sides = sides(source, destination);
            assert_eq!(sides.place(), place, "{}", sides.words("a", "b"));
        }
    }

    #[test]
    fn what_must_not_start() {
        let running = || Some(domain(Running, "booted"));
        assert_eq!(sides(running(), None).objection(true, true), None);
        assert!(sides(running(), None).objection(false, true).unwrap().contains("move while off"));
        assert!(sides(Some(domain(Off, "shutdown")), None).objection(true, true).unwrap().contains("live migration"));
        assert_eq!(sides(Some(domain(Off, "shutdown")), None).objection(false, true), None);
        let saved = DomainState { managed_save: true, ..domain(Off, "saved") };
        assert!(sides(Some(saved), None).objection(false, true).unwrap().contains("managed save"));
        let foreign = DomainState {
            owner: Some(OwnerMark { fleet: "other".into(), name: "x".into(), delete: false, volumes: vec![] }),
            ..domain(Off, "unknown")
        };
        assert!(sides(running(), Some(foreign)).objection(true, true).unwrap().contains("fleet `other`"));
        let taken = Sides { name_taken: true, ..sides(running(), None) };
        assert!(taken.objection(true, true).unwrap().contains("called `web-1`"));
        let transient = DomainState { persistent: false, ..domain(Running, "migrated") };
        assert!(sides(Some(transient.clone()), None).objection(true, false).unwrap().contains("would vanish"));
        let home = Some(domain(Off, "migrated"));
        assert_eq!(sides(Some(transient), home).objection(true, false), None, "it goes home");
        assert!(sides(Some(domain(Off, "shutdown")), None).objection(false, false).unwrap().contains("is off"));
        let backup = JobState { operation: JobOperation::Other, progress: Progress::default() };
        let busy = DomainState { job: Some(backup), ..domain(Running, "booted") };
        assert!(sides(Some(busy), None).objection(true, true).unwrap().contains("another job"));
    }
}
