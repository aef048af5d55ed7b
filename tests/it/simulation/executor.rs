//! What the executor promises, one behaviour a test.

use super::support::*;
use drover::action::MachineAction;
use drover::execute::{Event, ExecuteError, ExecuteLimits, Found, Stop, recover};
use drover::finding::Code;
use drover::journal::{InDoubt, Journal, JournalError, Memory, Outcome, PassRecord};
use drover::plan::{Block, Plan, Step};
use drover::provider::simulator::{Call, Effect, Fault};
use jiff::Timestamp;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn fails(transient: bool) -> Effect {
    Effect::Fails { message: "the daemon said no".into(), transient }
}

#[test]
fn a_step_begins_when_all_it_depends_on_is_done() {
    paused(async {
        let world = world();
        let run = Run::default();
        let steps = vec![
            step("define", define("a", 1), &[]),
            step("start", start("a", 1), &["define"]),
            step("move", migrate(1, "a", "b"), &["start"]),
            step("other", define("b", 2), &[]),
        ];
        let report = run.go(&world.fleet(), steps).await.unwrap();
        assert!(report.succeeded(), "{report:?}");
        let order = run.order();
        let place = |what: &str| order.iter().position(|o| o == what).unwrap();
        assert!(place("-define") < place("+start") && place("-start") < place("+move"), "{order:?}");
        assert!(place("+other") < place("-define"), "what depends on nothing waits for nothing: {order:?}");
        assert_eq!(world.find(uuid(1))[0].0, "b");
        world.check().unwrap();
    });
}

#[test]
fn a_failure_skips_what_depends_on_it_and_nothing_else() {
    paused(async {
        let world = world();
        world.inject(Fault::on(Call::Act, fails(false)).action("DefineDomain").host("a"));
        let steps = vec![
            step("define-1", define("a", 1), &[]),
            step("start-1", start("a", 1), &["define-1"]),
            step("move-1", migrate(1, "a", "b"), &["start-1"]),
            step("define-2", define("b", 2), &[]),
            step("start-2", start("b", 2), &["define-2"]),
        ];
        let journal = Arc::new(Memory::new());
        let run = Run { journal: journal.clone(), ..Default::default() };
        let report = run.go(&world.fleet(), steps).await.unwrap();
        assert_eq!(reason(&report.outcomes["define-1"]), "the daemon said no");
        for skipped in ["start-1", "move-1"] {
            assert_eq!(report.outcomes[skipped], Outcome::Skipped { reason: "`define-1` failed".into() });
        }
        assert_eq!(report.outcomes["start-2"], Outcome::Done);
        let pass = &journal.history(1).unwrap()[0];
        assert_eq!(pass.result.as_deref(), Some("failed"));
        assert_eq!(pass.steps.len(), 5, "the history has the skipped ones, too");
        assert!(journal.in_doubt().unwrap().is_empty());
    });
}

#[test]
fn blocked_steps_are_not_begun_and_hold_up_only_what_depends_on_them() {
    paused(async {
        let world = world();
        let mut blocked = step("define-1", define("a", 1), &[]);
        blocked.blocked_by = vec![Block { code: Code::GuardRail, reason: "held".into(), way_out: "wait".into() }];
        let steps =
            vec![blocked.clone(), step("start-1", start("a", 1), &["define-1"]), step("define-2", define("a", 2), &[])];
        let report = Run::default().go(&world.fleet(), steps).await.unwrap();
        assert!(!report.outcomes.contains_key("define-1"));
        assert_eq!(reason(&report.outcomes["start-1"]), "`define-1` is held back");
        assert_eq!(report.outcomes["define-2"], Outcome::Done);
        assert!(world.find(uuid(1)).is_empty());

        let run = Run::default();
        let report = run.go(&world.fleet(), vec![blocked]).await.unwrap();
        assert!(report.outcomes.is_empty() && run.journal.history(9).unwrap().is_empty(), "nothing to do, no trace");
    });
}

#[test]
fn a_plan_that_contradicts_itself_is_refused_before_anything_is_begun() {
    paused(async {
        let world = world();
        let cases = [
            (vec![step("x", define("a", 1), &[]), step("x", define("a", 2), &[])], "twice"),
            (vec![step("x", define("a", 1), &[]), step("y", start("a", 1), &["z"])], "not in it"),
            (vec![step("x", define("a", 1), &["y"]), step("y", start("a", 1), &["x"])], "before it"),
        ];
        for (steps, why) in cases {
            let run = Run::default();
            let error = run.go(&world.fleet(), steps).await.unwrap_err();
            assert!(matches!(error, ExecuteError::Plan(_)) && error.to_string().contains(why), "{error}");
            assert!(run.journal.history(1).unwrap().is_empty());
        }
        assert!(world.view("a").unwrap().domains.is_empty());
    });
}

/// The most steps that ran at once, of those that a filter lets through.
fn most_at_once(run: &Run, counts: impl Fn(&str) -> bool) -> usize {
    let mut now = 0_usize;
    let mut most = 0;
    for line in run.order().iter().filter(|l| counts(&l[1..])) {
        now = if line.starts_with('+') { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

#[test]
fn limits_hold_in_all_and_on_each_host() {
    paused(async {
        let world = world();
        world.set_latency(Duration::from_millis(100));
        let host = |n: u128| if n.is_multiple_of(2) { "a" } else { "b" };
        let steps: Vec<Step> = (0..24).map(|n| step(&format!("{}-{n}", host(n)), define(host(n), n), &[])).collect();
        let limits = ExecuteLimits { max_concurrent: 5, per_host: 3, ..Default::default() };
        let run = Run { limits, ..Default::default() };
        assert!(run.go(&world.fleet(), steps).await.unwrap().succeeded());
        assert_eq!(most_at_once(&run, |_| true), 5);
        assert_eq!(most_at_once(&run, |id| id.starts_with("a-")), 3);
        assert_eq!(most_at_once(&run, |id| id.starts_with("b-")), 3);
    });
}

#[test]
fn migrations_keep_to_the_slots_at_both_ends_and_never_wait_for_each_other() {
    paused(async {
        let world = world();
        // A ring: each host sends to the next, so every slot is wanted by two.
        let ring = [("a", "b"), ("b", "c"), ("c", "a")];
        let mut steps = Vec::new();
        for n in 0..12_u128 {
            let (from, to) = ring[usize::try_from(n).unwrap() % 3];
            running(&world, from, n).await;
            steps.push(step(&format!("{from}{to}-{n}"), migrate(n, from, to), &[]));
        }
        let limits =
            ExecuteLimits { migrations: ["a", "b", "c"].map(|h| (h.to_owned(), (1, 1))).into(), ..Default::default() };
        let run = Run { limits, ..Default::default() };
        assert!(run.go(&world.fleet(), steps).await.unwrap().succeeded());
        for (from, to) in ring {
            assert_eq!(most_at_once(&run, |id| id.starts_with(&format!("{from}{to}-"))), 1);
        }
        assert_eq!(most_at_once(&run, |_| true), 3, "the three links are used at once");
        for n in 0..12_u128 {
            let at = world.find(uuid(n));
            assert_eq!((at.len(), at[0].0.as_str()), (1, ring[usize::try_from(n).unwrap() % 3].1));
        }
        world.check().unwrap();
    });
}

#[test]
fn a_limit_of_none_skips_instead_of_waiting_for_ever() {
    paused(async {
        let world = world();
        running(&world, "a", 1).await;
        let limits = ExecuteLimits { migrations: [("b".to_owned(), (0, 0))].into(), ..Default::default() };
        let run = Run { limits, ..Default::default() };
        let report = run.go(&world.fleet(), vec![step("move", migrate(1, "a", "b"), &[])]).await.unwrap();
        assert!(reason(&report.outcomes["move"]).contains("limits"), "{report:?}");
    });
}

#[test]
fn a_transient_failure_is_tried_again_after_growing_pauses() {
    paused(async {
        let world = world();
        for nth in [1, 2] {
            world.inject(Fault::on(Call::Act, fails(true)).nth(nth));
        }
        let run = Run::default();
        let report = run.go(&world.fleet(), vec![step("define", define("a", 1), &[])]).await.unwrap();
        assert_eq!(report.outcomes["define"], Outcome::Done);
        let events = run.events.lock().unwrap();
        let pause = |e: &Event| match e {
            Event::Retrying { after, error, .. } => Some((*after, error.clone())),
            _ => None,
        };
        let pauses: Vec<_> = events.iter().filter_map(pause).collect();
        assert_eq!(pauses.len(), 2);
        assert_eq!(pauses[0].1, "the daemon said no");
        let backoff = run.limits.backoff;
        assert!(pauses[0].0 >= backoff && pauses[1].0 >= 2 * backoff && pauses[1].0 > pauses[0].0, "{pauses:?}");
    });
}

#[test]
fn attempts_end_and_a_permanent_failure_is_not_tried_again() {
    paused(async {
        for (transient, attempts) in [(true, 3), (false, 1)] {
            let world = world();
            world.inject(Fault::on(Call::Act, fails(transient)));
            let run = Run::default();
            let report = run.go(&world.fleet(), vec![step("define", define("a", 1), &[])]).await.unwrap();
            let failed = Outcome::Failed { error: "the daemon said no".into(), transient };
            assert_eq!(report.outcomes["define"], failed);
            let retries = run.events.lock().unwrap().iter().filter(|e| matches!(e, Event::Retrying { .. })).count();
            assert_eq!(retries + 1, attempts);
        }
    });
}

#[test]
fn a_lost_reply_is_found_out_and_nothing_is_done_twice() {
    paused(async {
        let world = world();
        running(&world, "a", 1).await;
        for action in ["DefineDomain", "MigrateVirtualMachine"] {
            world.inject(Fault::on(Call::Act, Effect::ReplyLost).action(action).nth(1));
        }
        let steps = vec![step("define", define("a", 2), &[]), step("move", migrate(1, "a", "b"), &[])];
        carry_out(&world, steps).await;
        assert_eq!(world.find(uuid(1))[0].0, "b");
        assert_eq!(world.view("a").unwrap().domains.len(), 1);
        world.check().unwrap();
    });
}

#[test]
fn a_stale_precondition_is_refused_without_an_act_or_a_journal_entry_in_doubt() {
    paused(async {
        let world = world();
        running(&world, "a", 1).await;
        let mut offline = migration(1, "a", "b", drover::action::MigrationWay::Offline);
        offline.autostart = false;
        let step = step("move", MachineAction::MigrateVirtualMachine(Box::new(offline)), &[]);
        let run = Run::default();
        let report = run.go(&world.fleet(), vec![step]).await.unwrap();
        assert!(
            matches!(&report.outcomes["move"], Outcome::Refused { reason } if reason.contains("run twice")),
            "{report:?}"
        );
        assert!(run.journal.in_doubt().unwrap().is_empty());
        world.check().unwrap();
    });
}

#[test]
fn what_is_done_already_is_not_done_again() {
    paused(async {
        let world = world();
        running(&world, "a", 1).await;
        world.inject(Fault::on(Call::Act, Effect::Panics));
        let report = Run::default().go(&world.fleet(), vec![step("start", start("a", 1), &[])]).await.unwrap();
        assert_eq!(report.outcomes["start"], Outcome::AlreadyDone);
    });
}

#[test]
fn a_panic_ends_one_step_only() {
    paused(async {
        let world = world();
        world.inject(Fault::on(Call::Act, Effect::Panics).host("a"));
        let steps = vec![
            step("define-1", define("a", 1), &[]),
            step("start-1", start("a", 1), &["define-1"]),
            step("define-2", define("b", 2), &[]),
        ];
        let journal = Arc::new(Memory::new());
        let run = Run { journal: journal.clone(), ..Default::default() };
        let report = run.go(&world.fleet(), steps).await.unwrap();
        assert!(reason(&report.outcomes["define-1"]).contains("panicked: injected into Act"), "{report:?}");
        assert!(matches!(report.outcomes["start-1"], Outcome::Skipped { .. }));
        assert_eq!(report.outcomes["define-2"], Outcome::Done);
        assert!(journal.in_doubt().unwrap().is_empty());
    });
}

#[test]
fn a_step_that_hangs_ends_at_its_deadline() {
    paused(async {
        let world = world();
        world.inject(Fault::on(Call::Act, Effect::Hangs).host("a"));
        let begun = tokio::time::Instant::now();
        let steps = vec![step("define", define("a", 1), &[]), step("other", define("b", 2), &[])];
        let report = Run::default().go(&world.fleet(), steps).await.unwrap();
        assert!(reason(&report.outcomes["define"]).contains("no end within 300 s"), "{report:?}");
        assert_eq!(report.outcomes["other"], Outcome::Done);
        assert!(begun.elapsed() < Duration::from_secs(330));
    });
}

#[test]
fn a_host_that_cannot_be_reached_fails_its_steps_and_no_others() {
    paused(async {
        let world = world();
        world.cut_off("a", "no route to host");
        let steps = vec![step("define-1", define("a", 1), &[]), step("define-2", define("b", 2), &[])];
        let report = Run::default().go(&world.fleet(), steps).await.unwrap();
        let failed = Outcome::Failed { error: "a: no route to host".into(), transient: true };
        assert_eq!(report.outcomes["define-1"], failed);
        assert_eq!(report.outcomes["define-2"], Outcome::Done);
    });
}

#[test]
fn drain_lets_what_runs_end_and_begins_nothing() {
    paused(async {
        for superseded in [false, true] {
            let world = world();
            running(&world, "a", 1).await;
            let stop = Stop::default();
            let token = if superseded { stop.superseded.clone() } else { stop.drain.clone() };
            let on_event = Arc::new(move |e: &Event| {
                if matches!(e, Event::Progress { step, .. } if step == "move") {
                    token.cancel();
                }
            });
            let run = Run { stop, on_event, ..Default::default() };
            let steps =
                vec![step("move", migrate(1, "a", "b"), &[]), step("after", shutdown("b", 1, false), &["move"])];
            let report = run.go(&world.fleet(), steps).await.unwrap();
            assert_eq!(report.outcomes["move"], Outcome::Done);
            assert!(matches!(report.outcomes["after"], Outcome::Skipped { .. }), "{report:?}");
            let expected = if superseded { "superseded" } else { "interrupted" };
            assert_eq!(run.journal.history(1).unwrap()[0].result.as_deref(), Some(expected));
        }
    });
}

#[test]
fn drain_does_not_wait_for_another_attempt() {
    paused(async {
        let world = world();
        world.inject(Fault::on(Call::Act, fails(true)));
        let stop = Stop::default();
        let drain = stop.drain.clone();
        let on_event = Arc::new(move |e: &Event| {
            if matches!(e, Event::Retrying { .. }) {
                drain.cancel();
            }
        });
        let limits = ExecuteLimits { backoff: Duration::from_secs(3600), ..Default::default() };
        let run = Run { stop, on_event, limits, ..Default::default() };
        let begun = tokio::time::Instant::now();
        let report = run.go(&world.fleet(), vec![step("define", define("a", 1), &[])]).await.unwrap();
        assert!(matches!(report.outcomes["define"], Outcome::Failed { transient: true, .. }));
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn leave_ends_at_once_and_a_migration_goes_on_and_is_adopted() {
    paused(async {
        let world = world();
        running(&world, "a", 1).await;
        running(&world, "a", 2).await;
        world.ignore_shutdown(uuid(2), true);
        let stop = Stop::default();
        let leave = stop.leave.clone();
        let on_event = Arc::new(move |e: &Event| {
            if matches!(e, Event::Progress { progress, .. } if progress.processed > progress.total / 4) {
                leave.cancel();
            }
        });
        let journal = Arc::new(Memory::new());
        let run = Run { stop, on_event, journal: journal.clone(), ..Default::default() };
        let steps = vec![step("move", migrate(1, "a", "b"), &[]), step("off", shutdown("a", 2, true), &[])];
        let report = run.go(&world.fleet(), steps.clone()).await.unwrap();
        assert_eq!(report.outcomes["move"], Outcome::Interrupted);
        assert_eq!(report.outcomes["off"], Outcome::Interrupted);
        assert!(world.find(uuid(1)).iter().any(|(h, d)| h == "a" && d.job.is_some()), "it goes on");
        let doubt: Vec<String> = journal.in_doubt().unwrap().into_iter().map(|d| d.step.id).collect();
        assert_eq!(doubt, ["move", "off"]);

        let found = recover(journal.clone(), &world.fleet(), Arc::new(now)).await.unwrap();
        assert_eq!(found.iter().map(|r| r.found.clone()).collect::<Vec<_>>(), [Found::Running, Found::NotDone]);
        let again = Run { journal: journal.clone(), ..Default::default() };
        let report = again.go(&world.fleet(), vec![steps[0].clone()]).await.unwrap();
        assert_eq!(report.outcomes["move"], Outcome::Done, "the next run follows it to its end");
        assert!(journal.in_doubt().unwrap().is_empty());
        assert_eq!(world.find(uuid(1)).len(), 1);
        world.check().unwrap();
    });
}

#[test]
fn recovery_tells_done_from_running_from_unknown() {
    paused(async {
        let world = world();
        let journal: Arc<dyn Journal> = Arc::new(Memory::new());
        running(&world, "a", 1).await;
        let gone = MachineAction::StartDomain { host: "nowhere".into(), uuid: uuid(9), paused: false };
        let steps = vec![
            step("done", start("a", 1), &[]),
            step("not-done", define("a", 2), &[]),
            step("refused", start("a", 7), &[]),
            step("unknown", define("b", 3), &[]),
            step("undeclared", gone, &[]),
        ];
        let pass = journal.begin(&plan(steps.clone()), now()).unwrap();
        for step in &steps {
            journal.started(pass, step, now()).unwrap();
        }
        world.cut_off("b", "no route to host");
        let found = recover(journal.clone(), &world.fleet(), Arc::new(now)).await.unwrap();
        let found: Vec<Found> = found.into_iter().map(|r| r.found).collect();
        let expected = [
            Found::Done,
            Found::NotDone,
            Found::Refused(format!("`a` has no domain {}", uuid(7))),
            Found::Unknown("b: no route to host".into()),
            Found::Undeclared,
        ];
        assert_eq!(found, expected);
        let open: Vec<String> = journal.in_doubt().unwrap().into_iter().map(|d| d.step.id).collect();
        assert_eq!(open, ["unknown"], "unknown is not absent: its record stays");
    });
}

/// A journal that can be written so often, and then its disk is full.
struct Full {
    inner: Memory,
    left: AtomicUsize,
}

impl Full {
    fn write(&self) -> Result<(), JournalError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| JournalError { path: "/j".into(), why: "the disk is full".into() })
    }
}

impl Journal for Full {
    fn begin(&self, plan: &Plan, now: Timestamp) -> Result<i64, JournalError> {
        self.write()?;
        self.inner.begin(plan, now)
    }
    fn started(&self, pass: i64, step: &Step, now: Timestamp) -> Result<(), JournalError> {
        self.write()?;
        self.inner.started(pass, step, now)
    }
    fn finished(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError> {
        self.write()?;
        self.inner.finished(pass, step, outcome, now)
    }
    fn end(&self, pass: i64, result: &str, now: Timestamp) -> Result<(), JournalError> {
        self.write()?;
        self.inner.end(pass, result, now)
    }
    fn in_doubt(&self) -> Result<Vec<InDoubt>, JournalError> {
        self.inner.in_doubt()
    }
    fn resolve(&self, pass: i64, step: &str, outcome: &Outcome, now: Timestamp) -> Result<(), JournalError> {
        self.inner.resolve(pass, step, outcome, now)
    }
    fn history(&self, limit: usize) -> Result<Vec<PassRecord>, JournalError> {
        self.inner.history(limit)
    }
}

#[test]
fn a_full_journal_stops_everything_that_has_not_begun() {
    paused(async {
        // begin; then start and end of each of two steps, one after the other.
        for writes in 0..=5_usize {
            let world = world();
            let journal = Arc::new(Full { inner: Memory::new(), left: AtomicUsize::new(writes) });
            let run = Run { journal: journal.clone(), ..Default::default() };
            let steps = vec![step("one", define("a", 1), &[]), step("two", define("a", 2), &["one"])];
            let error = run.go(&world.fleet(), steps).await.unwrap_err();
            let ExecuteError::Journal { source, report } = error else { panic!("{error}") };
            assert!(source.to_string().contains("the disk is full"));
            let made = world.view("a").unwrap().domains.len();
            // A step acts only once its start is written down: with the 2nd and with the 4th write.
            let expected = usize::from(writes >= 2) + usize::from(writes >= 4);
            assert_eq!(made, expected, "after {writes} writes");
            let doubt: Vec<String> = journal.in_doubt().unwrap().into_iter().map(|d| d.step.id).collect();
            match writes {
                2 => assert_eq!(doubt, ["one"], "done, but its end could not be written"),
                4 => assert_eq!(doubt, ["two"]),
                _ => assert!(doubt.is_empty(), "after {writes} writes: {doubt:?}"),
            }
            if writes == 1 {
                assert!(reason(&report.outcomes["one"]).contains("could not be written down"), "{report:?}");
            }
            if writes > 0 && writes < 4 {
                assert!(matches!(report.outcomes["two"], Outcome::Skipped { .. }), "{report:?}");
            }
        }
    });
}

#[test]
fn an_intent_is_on_disk_before_the_world_changes() {
    paused(async {
        let world = world();
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(drover::journal::Sqlite::open(folder.path().join("journal.db")).unwrap());
        let reader = drover::journal::Sqlite::open_read_only(folder.path().join("journal.db")).unwrap();
        let seen: Arc<Mutex<Option<bool>>> = Arc::default();
        let (saw, watched) = (seen.clone(), world.clone());
        let on_event = Arc::new(move |e: &Event| {
            if matches!(e, Event::Retrying { .. }) {
                // The act failed before it did anything; its intent is there.
                let recorded = reader.in_doubt().unwrap().len() == 1;
                *saw.lock().unwrap() = Some(recorded && watched.find(uuid(1)).is_empty());
            }
        });
        world.inject(Fault::on(Call::Act, fails(true)).nth(1));
        let run = Run { journal, on_event, ..Default::default() };
        assert!(run.go(&world.fleet(), vec![step("define", define("a", 1), &[])]).await.unwrap().succeeded());
        assert_eq!(*seen.lock().unwrap(), Some(true));
    });
}

#[test]
fn nothing_begins_once_everything_is_to_be_left() {
    paused(async {
        let world = world();
        let stop = Stop::default();
        stop.leave.cancel();
        let run = Run { stop, ..Default::default() };
        let report = run.go(&world.fleet(), vec![step("define", define("a", 1), &[])]).await.unwrap();
        assert_eq!(reason(&report.outcomes["define"]), "Drover was asked to end");
        assert!(world.find(uuid(1)).is_empty() && run.journal.in_doubt().unwrap().is_empty());
    });
}
