//! The daemon's loop with a runner of the test's own, and its signals.

mod events;
mod http;

use crate::git::servers::{Origin, git};
use async_trait::async_trait;
use drover::daemon::{
    Checked, Daemon, DaemonStatus, Exit, Found, GitSource, Handles, Hint, PassRequest, PassResult, PassRunner,
    PassSummary, PassWatch, Phase, Reason, RevisionSource, Signal, StopReason, Timing,
};
use drover::execute::{Event, Stop};
use drover::finding::{Code, Finding};
use drover::journal::Outcome;
use drover::model::ResourceId;
use drover::observed::{HostState, Observed, Reading};
use drover::provider::HostChange;
use drover::source::git::{FetchLimits, GitAccess, GitError, GitErrorKind, Mirror, Reference};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(3600);

/// A repository that is a variable.
struct FakeSource {
    tip: Mutex<Result<Found, GitError>>,
    good: Mutex<Option<Found>>,
    fetches: AtomicUsize,
    distrusted: AtomicUsize,
}

impl FakeSource {
    fn at(commit: &str) -> Arc<Self> {
        Arc::new(Self {
            tip: Mutex::new(Ok(found(commit))),
            good: Mutex::default(),
            fetches: AtomicUsize::new(0),
            distrusted: AtomicUsize::new(0),
        })
    }

    fn push(&self, commit: &str) {
        *self.tip.lock().unwrap() = Ok(found(commit));
    }

    fn fail(&self) {
        *self.tip.lock().unwrap() = Err(GitError::new(GitErrorKind::Unreachable, "gone fishing").hint("wait"));
    }
}

fn found(commit: &str) -> Found {
    // Commits `x1`, `x2` have the same tree `x`.
    Found { commit: commit.into(), tree: Some(commit[..1].into()), ..Found::default() }
}

#[async_trait]
impl RevisionSource for FakeSource {
    async fn fetch(&self, _: &CancellationToken) -> Result<Found, GitError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.tip.lock().unwrap().clone()
    }
    async fn good(&self) -> Option<Found> {
        self.good.lock().unwrap().clone()
    }
    async fn mark_good(&self, commit: &str) -> Result<(), GitError> {
        *self.good.lock().unwrap() = Some(found(commit));
        Ok(())
    }
    fn distrust(&self) {
        self.distrusted.fetch_add(1, Ordering::SeqCst);
    }
    fn watched(&self) -> Option<PathBuf> {
        None
    }
    fn describe(&self) -> (String, String, String) {
        ("fake".into(), "branch `main`".into(), String::new())
    }
}

/// How a pass of the fake runner goes.
#[derive(Clone)]
enum Act {
    /// It ends at once.
    End(PassResult),
    /// It goes on until it is told to drain, then until `release`.
    UntilDrained,
    /// It goes on until it is told to leave.
    UntilLeft,
    /// It never ends.
    Never,
    Panic,
}

struct FakeRunner {
    acts: Mutex<BTreeMap<String, Act>>,
    checks: Mutex<BTreeMap<String, Checked>>,
    passes: Mutex<Vec<(PassRequest, Instant)>>,
    stopped: Mutex<Vec<Option<StopReason>>>,
    release: Notify,
    again_at: Mutex<Option<Timestamp>>,
}

impl FakeRunner {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            acts: Mutex::default(),
            checks: Mutex::default(),
            passes: Mutex::default(),
            stopped: Mutex::default(),
            release: Notify::new(),
            again_at: Mutex::default(),
        })
    }

    fn act(&self, commit: &str, act: Act) {
        self.acts.lock().unwrap().insert(commit.into(), act);
    }

    fn invalid(&self, commit: &str) {
        let finding = Finding::new(Code::UnknownField, "unknown field `memroy`").hint("did you mean `memory`?");
        self.checks.lock().unwrap().insert(commit.into(), Checked::Invalid(vec![finding]));
    }

    fn commits(&self) -> Vec<String> {
        self.passes.lock().unwrap().iter().map(|(p, _)| p.commit.clone()).collect()
    }

    fn requests(&self) -> Vec<PassRequest> {
        self.passes.lock().unwrap().iter().map(|(p, _)| p.clone()).collect()
    }
}

#[async_trait]
impl PassRunner for FakeRunner {
    async fn check(&self, commit: &str) -> Checked {
        self.checks.lock().unwrap().get(commit).cloned().unwrap_or(Checked::Valid)
    }

    async fn run(&self, request: PassRequest, watch: PassWatch, stop: Stop) -> PassSummary {
        let act = self.acts.lock().unwrap().get(&request.commit).cloned().unwrap_or(Act::End(PassResult::Succeeded));
        self.passes.lock().unwrap().push((request, Instant::now()));
        watch.phase(Phase::Executing);
        let result = match act {
            Act::End(result) => result,
            Act::UntilDrained => {
                stop.drain.cancelled().await;
                self.release.notified().await;
                PassResult::Incomplete
            }
            Act::UntilLeft => {
                stop.leave.cancelled().await;
                PassResult::Incomplete
            }
            Act::Never => std::future::pending().await,
            Act::Panic => panic!("a fault on purpose"),
        };
        self.stopped.lock().unwrap().push(watch.stopped_because());
        PassSummary { result, again_at: *self.again_at.lock().unwrap(), ..PassSummary::default() }
    }
}

struct Running {
    handles: Handles,
    signals: mpsc::Sender<Signal>,
    task: JoinHandle<Exit>,
}

impl Running {
    fn start(source: Arc<dyn RevisionSource>, runner: Arc<dyn PassRunner>, timing: Timing) -> Self {
        let (daemon, handles) = Daemon::new(source, runner, timing);
        let (signals, from) = mpsc::channel(4);
        Self { handles, signals, task: tokio::spawn(daemon.run(from)) }
    }

    async fn until(&mut self, what: &str, state: impl FnMut(&DaemonStatus) -> bool) -> DaemonStatus {
        // Hours pass at once where the clock is paused, which it cannot be with several threads.
        let real = tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread;
        let patience = if real { Duration::from_secs(20) } else { LONG * 2 };
        let seen =
            timeout(patience, self.handles.status.wait_for(state)).await.map(|s| s.expect("the daemon runs").clone());
        seen.unwrap_or_else(|_| panic!("did not happen: {what}; {:#?}", *self.handles.status.borrow()))
    }

    async fn end(self) -> Exit {
        self.signals.send(Signal::Terminate).await.unwrap();
        timeout(Duration::from_secs(60), self.task).await.expect("the daemon ends").unwrap()
    }
}

fn quiet() -> Timing {
    Timing { poll: LONG, drift: LONG, jitter: 0.0, ..Timing::default() }
}

fn passed(commit: &str) -> impl Fn(&DaemonStatus) -> bool {
    move |s| s.last.as_ref().is_some_and(|l| l.commit == commit) && s.current.is_none()
}

fn changed(host: &str) -> Hint {
    Hint::HostChanged(HostChange { host: host.into(), at: Instant::now() })
}

fn look(running: &Running) {
    running.handles.hints.try_send(Hint::Look).unwrap();
}

// ---- a real repository

fn follow(origin: &Origin, state: &tempfile::TempDir) -> Arc<dyn RevisionSource> {
    let url = origin.bare().display().to_string();
    let mirror = Mirror::open(&url, &state.path().join("git"), &GitAccess::default(), FetchLimits::default()).unwrap();
    Arc::new(GitSource::new(Arc::new(mirror), Reference::Branch("main".into()), ""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_to_a_local_repository_is_noticed_at_once() {
    let (origin, state) = (Origin::new(), tempfile::tempdir().unwrap());
    let runner = FakeRunner::new();
    let mut running = Running::start(follow(&origin, &state), runner.clone(), quiet());
    let first = running.until("the first pass", |s| s.last.is_some()).await;
    assert_eq!(first.last.unwrap().reason, Reason::FirstPass);
    assert!(first.fetch.watching);
    for (i, pack) in [false, true, false].into_iter().enumerate() {
        if pack {
            git(&origin.bare(), &["pack-refs", "--all"]);
        }
        origin.commit("a.yaml", &format!("change {i}"));
        let pushed = std::time::Instant::now();
        git(&origin.work(), &["push", "-q", "origin", "HEAD:main"]);
        let commit = git(&origin.work(), &["rev-parse", "HEAD"]);
        running.until("the pass for the push", passed(&commit)).await;
        let took = pushed.elapsed();
        assert!(took < Duration::from_secs(1), "from push to the end of its pass: {took:?}");
    }
    assert_eq!(running.end().await, Exit::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_the_repository_does_not_wake_the_daemon_again() {
    let (origin, state) = (Origin::new(), tempfile::tempdir().unwrap());
    let mut running = Running::start(follow(&origin, &state), FakeRunner::new(), quiet());
    let commit = origin.push("a.yaml", "x");
    running.until("its pass", passed(&commit)).await;
    // Nothing to wait for: what must not happen has two whole seconds in which it would.
    let fetches = |r: &Running| count(&r.handles, "drover_fetches_total{result=\"ok\"}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = fetches(&running);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(fetches(&running), before);
    assert!(before <= 6, "{before} fetches for one push");
    running.end().await;
}

fn count(handles: &Handles, series: &str) -> u64 {
    let text = handles.metrics.encode().unwrap();
    let value = text.lines().find_map(|l| l.strip_prefix(series)?.trim().parse::<f64>().ok());
    value.map_or(0, |v| v as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_goes_and_comes_back_changes_nothing_meanwhile_and_is_watched_again() {
    let (origin, state) = (Origin::new(), tempfile::tempdir().unwrap());
    let runner = FakeRunner::new();
    let timing = Timing { poll: Duration::from_millis(200), ..quiet() };
    let mut running = Running::start(follow(&origin, &state), runner.clone(), timing);
    let first = running.until("the first pass", |s| s.last.is_some()).await.good.unwrap();
    let away = origin.dir.path().join("away.git");
    std::fs::rename(origin.bare(), &away).unwrap();
    let status = running.until("the error", |s| s.fetch.error.is_some()).await;
    let error = status.fetch.error.unwrap();
    assert_eq!(error.kind, GitErrorKind::NoRepository);
    assert_eq!(status.good.as_ref(), Some(&first));
    // As another repository of the same history, as a restored backup is.
    git(origin.dir.path(), &["clone", "-q", "--bare", away.to_str().unwrap(), "fleet.git"]);
    running.until("it is read again", |s| s.fetch.error.is_none() && s.fetch.watching).await;
    let commit = origin.push("a.yaml", "after");
    running.until("the pass after", passed(&commit)).await;
    assert_eq!(runner.commits(), [first, commit]);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewritten_history_is_followed_and_told() {
    let (origin, state) = (Origin::new(), tempfile::tempdir().unwrap());
    let mut running = Running::start(follow(&origin, &state), FakeRunner::new(), quiet());
    running.until("the first pass", |s| s.last.is_some()).await;
    let forced = origin.force_push("other");
    let status = running.until("the forced commit's pass", passed(&forced)).await;
    assert!(status.revision.unwrap().rewritten);
    assert_eq!(count(&running.handles, "drover_history_rewritten_total"), 1);
    running.end().await;
}

// ---- decisions, under a clock of the test's own

#[tokio::test(start_paused = true)]
async fn a_newer_commit_supersedes_the_pass_that_runs_and_those_between_are_skipped() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    runner.act("a", Act::UntilDrained);
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    running.until("a runs", |s| s.phase == Phase::Executing).await;
    source.push("b");
    look(&running);
    let status = running.until("a drains", |s| s.phase == Phase::Draining).await;
    assert_eq!(status.current.unwrap().commit, "a");
    for commit in ["c", "d"] {
        source.push(commit);
        look(&running);
        running.until("it is seen", |s| s.good.as_deref() == Some(commit)).await;
    }
    assert_eq!(runner.commits(), ["a"], "one pass at a time");
    runner.release.notify_one();
    running.until("d was carried out", passed("d")).await;
    assert_eq!(runner.commits(), ["a", "d"]);
    let status = running.handles.status.borrow().clone();
    assert_eq!((status.failures, status.settled.as_deref()), (0, Some("d")));
    assert_eq!(runner.stopped.lock().unwrap()[0], Some(StopReason::Superseded));
    assert_eq!(count(&running.handles, "drover_passes_total{result=\"superseded\"}"), 1);
    assert_eq!(count(&running.handles, "drover_passes_total{result=\"failed\"}"), 0);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_commit_changes_nothing_not_even_the_pass_that_runs() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    runner.act("a", Act::UntilDrained);
    runner.invalid("b");
    let timing = Timing { drift: Duration::from_secs(300), ..quiet() };
    let mut running = Running::start(source.clone(), runner.clone(), timing);
    running.until("a runs", |s| s.phase == Phase::Executing).await;
    source.push("b");
    look(&running);
    let status = running.until("b is shown as invalid", |s| s.invalid.is_some()).await;
    let invalid = status.invalid.unwrap();
    assert_eq!((invalid.commit.as_str(), invalid.findings[0].code), ("b", Code::UnknownField));
    assert_eq!((status.good.as_deref(), status.phase), (Some("a"), Phase::Executing));
    assert_eq!(count(&running.handles, "drover_revision_valid"), 0);
    // The next valid one ends a's pass and clears the error.
    source.push("c");
    runner.act("c", Act::End(PassResult::Succeeded));
    look(&running);
    running.until("a drains", |s| s.phase == Phase::Draining).await;
    runner.release.notify_one();
    let status = running.until("c was carried out", passed("c")).await;
    assert!(status.invalid.is_none());
    // Once more, with nothing running: drift is corrected as c says.
    runner.invalid("d");
    source.push("d");
    look(&running);
    running.until("d is shown as invalid", |s| s.invalid.is_some()).await;
    running.until("a pass for drift", |s| s.last.as_ref().is_some_and(|l| l.reason == Reason::Drift)).await;
    let last = runner.requests().pop().unwrap();
    assert_eq!((last.commit.as_str(), last.drift_only), ("c", true));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_commit_that_was_in_force_stays_so_when_the_newest_is_invalid_or_the_repository_gone() {
    let (source, runner) = (FakeSource::at("b"), FakeRunner::new());
    source.good.lock().unwrap().replace(found("a"));
    runner.invalid("b");
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    let status = running.until("a pass", passed("a")).await;
    assert_eq!(status.invalid.unwrap().commit, "b");
    running.end().await;

    let runner = FakeRunner::new();
    source.fail();
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    let status = running.until("a pass without the repository", passed("a")).await;
    let error = status.fetch.error.unwrap();
    assert_eq!((error.kind, error.message.as_str()), (GitErrorKind::Unreachable, "gone fishing"));
    source.push("c");
    running.until("the repository is back", passed("c")).await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_changes_nothing_in_the_folder_supersedes_nothing() {
    let (source, runner) = (FakeSource::at("x1"), FakeRunner::new());
    runner.act("x1", Act::UntilDrained);
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    running.until("x1 runs", |s| s.phase == Phase::Executing).await;
    source.push("x2");
    look(&running);
    let status = running.until("x2 is in force", |s| s.good.as_deref() == Some("x2")).await;
    assert_eq!(status.phase, Phase::Executing);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn drift_is_looked_for_and_the_repository_polled_at_their_intervals() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    let timing =
        Timing { poll: Duration::from_secs(30), drift: Duration::from_secs(300), jitter: 0.1, ..Timing::default() };
    let running = Running::start(source.clone(), runner.clone(), timing);
    tokio::time::sleep(LONG).await;
    let requests = runner.requests();
    assert!((11..=14).contains(&requests.len()), "{} passes in an hour", requests.len());
    assert!(!requests[0].drift_only && requests[1..].iter().all(|r| r.drift_only && r.reason == Reason::Drift));
    let fetches = source.fetches.load(Ordering::SeqCst);
    assert!((110..=135).contains(&fetches), "{fetches} polls in an hour");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_fails_is_tried_again_ever_later_and_is_not_drift_until_it_succeeded() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    runner.act("a", Act::End(PassResult::Failed));
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    running.until("five failures", |s| s.failures == 5).await;
    let passes = runner.passes.lock().unwrap().clone();
    let pauses: Vec<u64> = passes.windows(2).map(|w| (w[1].1 - w[0].1).as_secs()).collect();
    assert_eq!(pauses, [5, 10, 20, 40]);
    assert!(passes.iter().all(|(r, _)| !r.drift_only));
    runner.act("a", Act::End(PassResult::Succeeded));
    let status = running.until("success", |s| s.settled.is_some()).await;
    assert_eq!((status.failures, status.retry_at), (0, None));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_looked_at_when_the_runner_says() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    runner.act("a", Act::End(PassResult::Incomplete));
    *runner.again_at.lock().unwrap() = Some(Timestamp::now() + Duration::from_secs(60));
    let mut running = Running::start(source, runner.clone(), quiet());
    running.until("a second pass", |s| s.last.as_ref().is_some_and(|l| l.reason == Reason::Retry)).await;
    let passes = runner.passes.lock().unwrap().clone();
    let pause = (passes[1].1 - passes[0].1).as_secs();
    assert!((55..=61).contains(&pause), "{pause} s");
    assert_eq!(running.handles.status.borrow().failures, 0);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn events_of_hosts_bring_one_pass_and_sighup_one_at_once() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    running.until("the first pass", passed("a")).await;
    for _ in 0..20 {
        running.handles.hints.send(changed("kvm-a")).await.unwrap();
    }
    running.until("a pass for the events", |s| s.last.as_ref().is_some_and(|l| l.reason == Reason::HostEvent)).await;
    let fetches = source.fetches.load(Ordering::SeqCst);
    running.signals.send(Signal::Hangup).await.unwrap();
    running.until("a pass for SIGHUP", |s| s.last.as_ref().is_some_and(|l| l.reason == Reason::Requested)).await;
    assert_eq!(source.fetches.load(Ordering::SeqCst), fetches + 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(runner.commits().len(), 3);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_webhooks_a_second_do_not_make_a_hundred_fetches() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    let mut running = Running::start(source.clone(), runner, quiet());
    running.until("the first pass", passed("a")).await;
    for _ in 0..500 {
        // A full channel is as good.
        let _ = running.handles.hints.try_send(Hint::Look);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let fetches = source.fetches.load(Ordering::SeqCst);
    assert!((10..=27).contains(&fetches), "{fetches} fetches in 5 s");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_fault_in_a_pass_is_a_failed_pass_and_not_the_end() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    runner.act("a", Act::Panic);
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    let status = running.until("it failed", |s| s.failures == 1).await;
    assert!(status.last.unwrap().summary.error.unwrap().contains("fault of Drover's own"));
    source.push("b");
    look(&running);
    running.until("b was carried out", passed("b")).await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_cannot_be_read_makes_the_mirror_suspect_and_is_tried_again() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    runner.checks.lock().unwrap().insert("a".into(), Checked::Unreadable("bit rot".into()));
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    while source.distrusted.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(runner.commits().is_empty() && running.handles.status.borrow().invalid.is_none());
    runner.checks.lock().unwrap().clear();
    running.until("it was read", passed("a")).await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_only_looked_invalid_because_of_a_damaged_mirror_is_checked_again() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    let finding = Finding::new(Code::Unreadable, "`a.yaml`: the object database cannot be read");
    runner.checks.lock().unwrap().insert("a".into(), Checked::Invalid(vec![finding]));
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    running.until("a looks invalid", |s| s.invalid.is_some()).await;
    assert_eq!(source.distrusted.load(Ordering::SeqCst), 1);
    runner.checks.lock().unwrap().clear();
    look(&running);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        running.handles.status.borrow().invalid.is_some(),
        "the same commit of the same mirror is not checked twice"
    );
    *source.tip.lock().unwrap() = Ok(Found { made_anew: true, ..found("a") });
    look(&running);
    let status = running.until("a was carried out", passed("a")).await;
    assert!(status.invalid.is_none());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn sigterm_lets_running_steps_end_within_the_grace_time() {
    let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
    runner.act("a", Act::UntilDrained);
    let mut running = Running::start(source.clone(), runner.clone(), quiet());
    running.until("a runs", |s| s.phase == Phase::Executing).await;
    running.signals.send(Signal::Terminate).await.unwrap();
    running.until("it drains", |s| s.phase == Phase::Draining).await;
    source.push("b");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!running.task.is_finished(), "the step still runs");
    runner.release.notify_one();
    assert_eq!(timeout(Duration::from_secs(1), running.task).await.unwrap().unwrap(), Exit::Clean);
    assert_eq!(runner.commits(), ["a"]);
    assert_eq!(runner.stopped.lock().unwrap()[0], Some(StopReason::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn after_the_grace_time_or_a_second_signal_steps_are_left_and_the_daemon_ends_whatever_they_do() {
    // (what the pass does, a second signal?, how long it may take, how it ends)
    let cases = [
        (Act::UntilLeft, false, 30..31, Exit::Clean),
        (Act::UntilLeft, true, 0..1, Exit::Clean),
        (Act::Never, false, 35..36, Exit::Left),
        (Act::Never, true, 5..6, Exit::Left),
    ];
    for (act, twice, seconds, exit) in cases {
        let (source, runner) = (FakeSource::at("a"), FakeRunner::new());
        runner.act("a", act);
        let mut running = Running::start(source, runner, quiet());
        running.until("a runs", |s| s.phase == Phase::Executing).await;
        let began = Instant::now();
        running.signals.send(Signal::Terminate).await.unwrap();
        if twice {
            running.signals.send(Signal::Terminate).await.unwrap();
        }
        let how = timeout(Duration::from_secs(100), running.task).await.unwrap().unwrap();
        assert_eq!(how, exit);
        assert!(seconds.contains(&began.elapsed().as_secs()), "{:?}, not {seconds:?}", began.elapsed());
    }
}

/// Runs itself again as a process that tells which signals it gets.
#[test]
fn signals_of_the_system_arrive() {
    const CHILD: &str = "DROVER_TEST_SIGNALS";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut signals = drover::daemon::listen().unwrap();
            println!("ready");
            for _ in 0..3 {
                println!("got {:?}", signals.recv().await.unwrap());
            }
        });
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "daemon::signals_of_the_system_arrive", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|l| l.ends_with("ready")));
    for (signal, expected) in [("HUP", "Hangup"), ("INT", "Terminate"), ("TERM", "Terminate")] {
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        assert_eq!(lines.next().unwrap(), format!("got {expected}"));
    }
    assert!(child.wait().unwrap().success());
}

// ---- what a pass tells

struct Telling;

#[async_trait]
impl PassRunner for Telling {
    async fn check(&self, _: &str) -> Checked {
        Checked::Valid
    }
    async fn run(&self, _: PassRequest, watch: PassWatch, stop: Stop) -> PassSummary {
        let mut observed = Observed::empty(Timestamp::now());
        observed.hosts.insert("kvm-a".into(), Reading::Present(HostState::default()));
        observed.hosts.insert("kvm-b".into(), Reading::Unknown { why: "no route to host".into() });
        watch.observed(&observed);
        watch.phase(Phase::Executing);
        let resource = ResourceId::new("VirtualMachine".into(), "web-1");
        watch.event(&Event::Started { step: "s1".into(), resource, summary: "migrate `web-1`".into() });
        stop.drain.cancelled().await;
        let took = Duration::from_secs(3);
        watch.event(&Event::Finished { step: "s1".into(), outcome: Outcome::Done, took });
        PassSummary { result: PassResult::Incomplete, ..PassSummary::default() }
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_and_running_steps_are_in_the_status() {
    let source = FakeSource::at("a");
    let mut running = Running::start(source.clone(), Arc::new(Telling), quiet());
    let status = running.until("a step", |s| s.current.as_ref().is_some_and(|c| !c.steps.is_empty())).await;
    assert_eq!(status.current.unwrap().steps["s1"].summary, "migrate `web-1`");
    assert!(status.hosts["kvm-a"].known);
    assert_eq!(status.hosts["kvm-b"].why.as_deref(), Some("no route to host"));
    assert_eq!(count(&running.handles, "drover_hosts{reading=\"unknown\"}"), 1);
    assert_eq!(count(&running.handles, "drover_steps_running"), 1);
    source.push("b");
    look(&running);
    running.until("a ended", |s| s.last.is_some()).await;
    assert_eq!(count(&running.handles, "drover_steps_total{action=\"unknown\",outcome=\"done\"}"), 1);
    running.end().await;
}
