//! Follows a migration's job on the source: progress, the longest pause, the switch to post-copy, the time-out. It asks
//! over another connection than the one the migration's call holds, because that one waits for hours.

use super::judge::is_leaving;
use super::retune;
use crate::action::{AtTimeout, Migration, Order};
use crate::observed::JobOperation;
use crate::provider::StepCtx;
use crate::provider::libvirt::connect::Host;
use crate::provider::libvirt::error::{During, Fault};
use crate::provider::libvirt::{domain, ffi, observe};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virt_sys as sys;

/// How often the job is asked for its progress.
const POLL: Duration = Duration::from_millis(500);

/// How long a source that does not answer is asked again. A filtered migration port keeps its daemon's lock for 136 s.
const SILENCE: Duration = Duration::from_secs(240);

/// How long a migration may move nothing before it is aborted. Nothing in libvirt or QEMU watches the data connection:
/// behind a dead link a copy of disks waits for TCP to give up, a quarter of an hour.
const STALL: Duration = Duration::from_secs(60);

/// How long an abort may take before it is left to itself: a filtered port holds libvirt's lock for 136 s, a dead link its
/// copy of disks for longer.
const ABORT_WITHIN: Duration = Duration::from_secs(150);

/// How often an abort or a switch that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// libvirt's and QEMU's own limit of the pause, in ms.
pub(super) const LONGEST_PAUSE: u64 = 300;

/// How following ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// No job of the machine is left on the source.
    Ended {
        /// Why Drover aborted it, if it did.
        aborted: Option<String>,
    },
    /// It goes on without being followed.
    Left {
        /// Why it is not followed any more.
        why: String,
    },
}

/// One look at the job.
enum Seen {
    Job { progress: crate::observed::Progress, post_copy: bool },
    NoJob,
}

/// Follows the job of a machine on its source until it ends. `orders` are the limits of the migration, where it is ours
/// to limit. `over` is cancelled when the migration's call has come back, for a migration that was started here: until
/// then the absence of a job, which may not have begun yet, is no end.
pub(super) async fn follow(
    from: &Host,
    uuid: Uuid,
    orders: Option<&Migration>,
    ctx: &StepCtx,
    over: Option<&CancellationToken>,
) -> Followed {
    let never = CancellationToken::new();
    let (started, over) = (over.is_some(), over.unwrap_or(&never));
    let mut orders = orders.cloned();
    let mut news = ctx.orders.clone();
    let begun = Instant::now();
    let mut last_answer = Instant::now();
    let mut limited = orders.as_ref().is_none_or(|o| o.max_downtime_millis.is_none());
    // Whether it was begun in a way that lets it switch cannot be changed any more.
    let may_switch = orders.as_ref().is_some_and(Migration::may_post_copy);
    let mut switched = false;
    let mut stale = StalePasses::default();
    let mut raise = orders.as_ref().and_then(Raise::of);
    let mut suspended = false;
    let mut order: Option<Abort> = None;
    let mut moved = (Instant::now(), (0, 0, 0));
    let mut tried_switch: Option<Instant> = None;
    loop {
        if ctx.cancel.is_cancelled() {
            return Followed::Left { why: "it goes on by itself, and the next run of Drover takes it up again".into() };
        }
        if begun.elapsed() >= ctx.deadline {
            let why = format!("it still goes on after {} s, the step's deadline", ctx.deadline.as_secs());
            return Followed::Left { why };
        }
        let mut in_post_copy = false;
        let mut elapsed = begun.elapsed();
        let mut passes = 0;
        let seen = tokio::select! {
            () = over.cancelled() => return Followed::Ended { aborted: order.map(|o| o.why) },
            seen = look(from, uuid) => seen,
        };
        match seen {
            Ok(Seen::Job { progress, post_copy }) => {
                last_answer = Instant::now();
                in_post_copy = post_copy;
                elapsed = elapsed.max(Duration::from_millis(progress.elapsed_millis));
                passes = progress.iteration;
                let now = (progress.processed, progress.remaining, progress.iteration);
                stale.see(progress.iteration, progress.remaining);
                // While the destination is made ready (huge pages, disks) nothing moves yet: that is the time-out's matter.
                if now != moved.1 || progress.processed == 0 {
                    moved = (Instant::now(), now);
                }
                (ctx.progress)(progress);
                if !limited && let Some(millis) = orders.as_ref().and_then(|o| o.max_downtime_millis) {
                    limited = set_downtime(from, uuid, millis).await;
                }
                if let Some(raise) = &mut raise
                    && let Some(millis) = raise.due(elapsed)
                    && set_downtime(from, uuid, millis).await
                {
                    tracing::info!(host = %from.name, %uuid, millis, "the longest pause was raised");
                    raise.done(millis, elapsed);
                }
            }
            Ok(Seen::NoJob) if !started => return Followed::Ended { aborted: order.map(|o| o.why) },
            Ok(Seen::NoJob) => (last_answer, moved.0) = (Instant::now(), Instant::now()),
            Err(fault) if last_answer.elapsed() < SILENCE => {
                tracing::debug!(host = %from.name, error = %fault, "no progress to be had")
            }
            Err(fault) => return Followed::Left { why: format!("its progress cannot be read: {fault}") },
        }
        match news.news() {
            Some(Order::Limits(newer)) => {
                if let Some(now) = &mut orders {
                    let mut then = now.clone();
                    retune::take(&mut then, (*newer).clone(), may_switch);
                    if newer.may_post_copy() && !may_switch {
                        tracing::warn!(
                            host = %from.name, %uuid,
                            "the policy allows post-copy now, and this migration began without it: it goes on in pre-copy"
                        );
                    }
                    // Most newer commits say nothing else than the one by which it began.
                    if then != *now {
                        retune::retune(from, now, &then).await;
                        limited |= then.max_downtime_millis != now.max_downtime_millis;
                        if Raise::of(&then) != Raise::of(now) {
                            raise = Raise::of(&then);
                        }
                        *now = then;
                    }
                }
            }
            Some(Order::Abort { why }) if in_post_copy => {
                tracing::warn!(host = %from.name, %uuid, why, "past its point of no return: in post-copy a migration can only go on");
            }
            Some(Order::Abort { why }) if orders.is_some() => {
                let why = format!("{}: {why}", super::NOT_WANTED);
                order.get_or_insert(Abort { why, first: Instant::now(), last: None });
            }
            Some(Order::Abort { .. } | Order::CopyRate(_)) | None => {}
        }
        if let Some(orders) = &orders
            && !in_post_copy
        {
            let timeout = Duration::from_millis(orders.timeout_millis);
            // A guest that is paused changes nothing any more: what is left to send is what there is, and it ends.
            let limit = if elapsed >= timeout {
                at_timeout(orders, switched || !may_switch, suspended)
            } else {
                AtTimeout::Abort
            };
            if order.is_none() {
                let timeout = if limit == AtTimeout::Abort && !suspended { timeout } else { Duration::MAX };
                order = Abort::needed(elapsed, timeout, moved.0.elapsed());
            }
            if order.is_none() && limit == AtTimeout::Suspend {
                suspended = suspend(from, uuid).await;
            }
            if let Some(order) = &mut order {
                if order.first.elapsed() >= ABORT_WITHIN {
                    return Followed::Left { why: format!("{}, and aborting it has not come about yet", order.why) };
                }
                if order.last.is_none_or(|at| at.elapsed() >= TRY_AGAIN) {
                    // One that has not begun yet is aborted as soon as it has.
                    order.last = abort(from, uuid).await.then(Instant::now);
                }
            } else if !switched
                && may_switch
                // Before the first pass QEMU has not begun: the destination is made ready, or disks are copied.
                && passes > 0
                && wants_switch(orders, elapsed, stale.count)
                && tried_switch.is_none_or(|at| at.elapsed() >= TRY_AGAIN)
            {
                tried_switch = Some(Instant::now());
                switched = switch(from, uuid).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = ctx.cancel.cancelled() => {}
            () = over.cancelled() => {}
        }
    }
}

/// What is to be done about a migration whose time is up: what its policy says, as long as that has not been done.
fn at_timeout(orders: &Migration, switched: bool, suspended: bool) -> AtTimeout {
    match orders.tuning.at_timeout {
        // Once it has switched there is no abort any more; until it has, it is tried.
        AtTimeout::PostCopy if !switched => AtTimeout::PostCopy,
        AtTimeout::Suspend if !suspended => AtTimeout::Suspend,
        _ => AtTimeout::Abort,
    }
}

/// Counts the passes over the memory that brought a migration no further.
#[derive(Debug, Default)]
struct StalePasses {
    pass: u64,
    /// The least that was left to send at the beginning of a pass.
    least: u64,
    count: u64,
}

impl StalePasses {
    /// What is left has to have become less by a tenth to be progress: that of an idle guest halves, and that of a busy one
    /// goes to and fro.
    fn see(&mut self, pass: u64, remaining: u64) {
        if pass <= self.pass {
            return;
        }
        if self.pass == 0 || remaining < self.least - self.least / 10 {
            (self.least, self.count) = (remaining, 0);
        } else {
            // Short passes may come between two looks.
            self.count += pass - self.pass;
        }
        self.pass = pass;
    }
}

/// Whether it is time to switch to post-copy: by time, by passes without progress, or because the time is up.
fn wants_switch(orders: &Migration, elapsed: Duration, stale: u64) -> bool {
    let after = |millis: u64| elapsed >= Duration::from_millis(millis);
    orders.post_copy_after_millis.is_some_and(after)
        || orders.tuning.post_copy_passes.is_some_and(|n| stale >= u64::from(n))
        || orders.tuning.at_timeout == AtTimeout::PostCopy && after(orders.timeout_millis)
}

/// The longest pause, raised in steps.
#[derive(Debug, PartialEq, Eq)]
struct Raise {
    now: u64,
    up_to: u64,
    every: Duration,
    last: Duration,
}

impl Raise {
    /// What a migration's policy says, if it says so.
    fn of(m: &Migration) -> Option<Self> {
        Some(Self {
            now: m.max_downtime_millis.unwrap_or(LONGEST_PAUSE),
            up_to: m.tuning.downtime_up_to_millis?,
            every: Duration::from_millis(m.tuning.downtime_every_millis?.max(1)),
            last: Duration::ZERO,
        })
    }

    /// The next limit, when it is time for it.
    fn due(&self, elapsed: Duration) -> Option<u64> {
        let is_due = self.now < self.up_to && elapsed.saturating_sub(self.last) >= self.every;
        is_due.then(|| self.now.saturating_mul(2).min(self.up_to))
    }

    fn done(&mut self, millis: u64, elapsed: Duration) {
        (self.now, self.last) = (millis, elapsed);
    }
}

/// An abort that was decided on.
struct Abort {
    why: String,
    first: Instant,
    last: Option<Instant>,
}

impl Abort {
    /// Whether a migration has run too long, or moved nothing for too long.
    fn needed(elapsed: Duration, timeout: Duration, still: Duration) -> Option<Self> {
        let why = if elapsed >= timeout {
            format!("it was not done within {} s", timeout.as_secs())
        } else if still >= STALL {
            format!("it moved nothing for {} s", STALL.as_secs())
        } else {
            return None;
        };
        Some(Self { why, first: Instant::now(), last: None })
    }
}

/// Reads the job and tells whether the guest's memory is split over both hosts already.
async fn look(from: &Host, uuid: Uuid) -> Result<Seen, Fault> {
    from.call("read the migration's progress", move |c| {
        let Some(domain) = domain::find(c, uuid)? else { return Ok(Seen::NoJob) };
        let read = || -> Result<Seen, Fault> {
            let Some(job) = observe::job(&domain, &uuid.to_string())? else { return Ok(Seen::NoJob) };
            if job.operation != JobOperation::MigrationOut {
                return Ok(Seen::NoJob);
            }
            let (state, reason) = ffi::state(&domain).during("read its state")?;
            let mut progress = job.progress;
            let post_copy = matches!(observe::reason_word(state, reason).as_str(), "postcopy" | "postcopy-failed");
            if post_copy {
                progress.phase = "post-copy".into();
            }
            Ok(Seen::Job { progress, post_copy })
        };
        match read() {
            // It ended between the look-up and the read.
            Err(fault) if fault.is_absent() => Ok(Seen::NoJob),
            other => other,
        }
    })
    .await
}

/// Sets the longest pause; libvirt takes it only for a while that depends on the driver, so it is tried until it does.
pub(super) async fn set_downtime(from: &Host, uuid: Uuid, millis: u64) -> bool {
    let set = from
        .call("set the longest pause", move |c| {
            c.lookup_domain_by_uuid_string(&uuid.to_string())
                .and_then(|d| d.migrate_set_max_downtime(millis, 0))
                .during("set the longest pause")
        })
        .await;
    match set {
        Ok(_) => true,
        Err(fault) => {
            tracing::debug!(host = %from.name, error = %fault, "the longest pause is not set yet");
            // What libvirt does not know it will not learn.
            fault.is_unsupported()
        }
    }
}

/// Switches to post-copy. From here on the machine can only go forward.
async fn switch(from: &Host, uuid: Uuid) -> bool {
    let done = from
        .call("switch to post-copy", move |c| {
            let domain = c.lookup_domain_by_uuid_string(&uuid.to_string()).during("look it up")?;
            ffi::start_post_copy(&domain).during("switch to post-copy")
        })
        .await;
    match done {
        Ok(()) => {
            tracing::info!(host = %from.name, %uuid, "switched to post-copy");
            true
        }
        Err(fault) => {
            tracing::warn!(host = %from.name, %uuid, error = %fault, "cannot switch to post-copy");
            // Begun without post-copy: asking again changes nothing.
            fault.code() == Some(sys::VIR_ERR_OPERATION_INVALID) && fault.says("vir_migrate_postcopy")
        }
    }
}

/// Pauses the guest, so that its migration ends.
async fn suspend(from: &Host, uuid: Uuid) -> bool {
    let done = from
        .call("pause the guest", move |c| {
            let Some((domain, state)) = domain::find_with_state(c, uuid)? else { return Ok(()) };
            if !is_leaving(&state) || state.state != crate::observed::RunState::Running {
                return Ok(());
            }
            domain.suspend().map(drop).during("pause the guest")
        })
        .await;
    match done {
        Ok(()) => {
            tracing::info!(host = %from.name, %uuid, "the time is up: the guest is paused until it is there");
            true
        }
        Err(fault) => {
            tracing::warn!(host = %from.name, %uuid, error = %fault, "cannot pause the guest yet");
            false
        }
    }
}

/// Aborts an outgoing migration; whether there was one to abort. libvirt itself refuses it in post-copy, where it would
/// cost the machine's memory.
pub(super) async fn abort(from: &Host, uuid: Uuid) -> bool {
    let done = from
        .call("abort the migration", move |c| {
            let Some((domain, state)) = domain::find_with_state(c, uuid)? else { return Ok(false) };
            // Only ever this kind of job, and not once the memory is split.
            if !is_leaving(&state) || matches!(state.reason.as_str(), "postcopy" | "postcopy-failed") {
                return Ok(false);
            }
            ffi::abort_job(&domain).during("abort the migration").map(|()| true)
        })
        .await;
    match done {
        Ok(true) => {
            tracing::info!(host = %from.name, %uuid, "migration aborted");
            true
        }
        Ok(false) => false,
        Err(fault) => {
            tracing::warn!(host = %from.name, %uuid, error = %fault, "cannot abort the migration yet");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Tuning;

    fn orders(tuning: Tuning) -> Migration {
        let way = crate::action::MigrationWay::Live;
        Migration {
            tuning,
            timeout_millis: 60_000,
            ..Migration::new(Uuid::nil(), "web-1", ["a", "b"], way, String::new())
        }
    }

    #[test]
    fn the_longest_pause_doubles_up_to_its_limit() {
        let tuning =
            Tuning { downtime_up_to_millis: Some(1000), downtime_every_millis: Some(10_000), ..Tuning::default() };
        let mut raise = Raise::of(&orders(tuning)).unwrap();
        let mut seen = Vec::new();
        for second in 0..100 {
            let at = Duration::from_secs(second);
            if let Some(millis) = raise.due(at) {
                raise.done(millis, at);
                seen.push((second, millis));
            }
        }
        assert_eq!(seen, [(10, 600), (20, 1000)]);
        assert_eq!(Raise::of(&orders(Tuning::default())), None);
    }

    #[test]
    fn the_switch_comes_by_time_by_passes_or_when_the_time_is_up() {
        let seconds = Duration::from_secs;
        let by_time = Migration { post_copy_after_millis: Some(5_000), ..orders(Tuning::default()) };
        assert!(!wants_switch(&by_time, seconds(4), 99) && wants_switch(&by_time, seconds(5), 0));
        let by_passes = orders(Tuning { post_copy_passes: Some(3), ..Tuning::default() });
        assert!(!wants_switch(&by_passes, seconds(99), 2) && wants_switch(&by_passes, seconds(1), 3));
        let at_the_end = orders(Tuning { at_timeout: AtTimeout::PostCopy, ..Tuning::default() });
        assert!(!wants_switch(&at_the_end, seconds(59), 99) && wants_switch(&at_the_end, seconds(60), 1));
        assert_eq!(at_timeout(&at_the_end, false, false), AtTimeout::PostCopy, "not aborted while it can switch");
        let pause = orders(Tuning { at_timeout: AtTimeout::Suspend, ..Tuning::default() });
        assert_eq!(at_timeout(&pause, true, false), AtTimeout::Suspend);
    }

    #[test]
    fn passes_count_that_bring_it_no_further() {
        let counts = |seen: &[(u64, u64)]| {
            let mut stale = StalePasses::default();
            seen.iter()
                .map(|(pass, left)| {
                    stale.see(*pass, *left);
                    stale.count
                })
                .collect::<Vec<_>>()
        };
        // One that converges, however long it takes.
        assert_eq!(counts(&[(1, 1000), (1, 400), (2, 500), (3, 250), (3, 10), (4, 125)]), [0, 0, 0, 0, 0, 0]);
        // One whose guest writes as fast as it is sent; a pass that nobody saw counts as well.
        assert_eq!(counts(&[(1, 1000), (2, 600), (3, 590), (4, 610), (6, 560)]), [0, 0, 1, 2, 4]);
        // It comes on again.
        assert_eq!(counts(&[(1, 1000), (2, 990), (3, 500), (4, 495)]), [0, 1, 0, 1]);
    }

    #[test]
    fn a_migration_is_aborted_when_its_time_is_up_or_nothing_moves() {
        let seconds = Duration::from_secs;
        let why = |elapsed, still| Abort::needed(seconds(elapsed), seconds(1800), seconds(still)).map(|a| a.why);
        assert_eq!(why(10, 5), None);
        assert_eq!(why(1700, 59), None);
        assert_eq!(why(1800, 0).as_deref(), Some("it was not done within 1800 s"));
        assert_eq!(why(100, 60).as_deref(), Some("it moved nothing for 60 s"));
    }
}
