//! Passes that hosts cause by telling of changes: soon, and never in a circle.

use super::*;
use drover::daemon::{Runner, hints};
use drover::journal::Memory;
use drover::pass::{Engine, Powers};
use drover::provider::libvirt;
use drover::provider::simulator::World;

/// A runner whose passes act on a host for two rounds, as the real one's do: read, act, read again. What it does makes the
/// host tell of changes, some time later.
struct Echo {
    hints: mpsc::Sender<Hint>,
    /// When its steps are told of, after the act.
    told_after: Duration,
    /// How many passes act; those after find nothing to do.
    acts: AtomicUsize,
    reads: bool,
    passes: Mutex<Vec<(Reason, Instant)>>,
}

impl Echo {
    fn new(hints: mpsc::Sender<Hint>, told_after: Duration, acts: usize) -> Arc<Self> {
        Arc::new(Self { hints, told_after, acts: AtomicUsize::new(acts), reads: true, passes: Mutex::default() })
    }

    async fn read(&self, watch: &PassWatch) {
        watch.phase(Phase::Observing);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let reading = if self.reads {
            Reading::Present(HostState::default())
        } else {
            Reading::Unknown { why: "it is off".into() }
        };
        watch.observed(&Observed {
            hosts: BTreeMap::from([("kvm-a".into(), reading)]),
            ..Observed::empty(Timestamp::now())
        });
    }

    fn passes(&self) -> Vec<Reason> {
        self.passes.lock().unwrap().iter().map(|p| p.0).collect()
    }
}

#[async_trait]
impl PassRunner for Echo {
    async fn check(&self, _: &str) -> Checked {
        Checked::Valid
    }

    async fn run(&self, request: PassRequest, watch: PassWatch, _: Stop) -> PassSummary {
        self.passes.lock().unwrap().push((request.reason, Instant::now()));
        self.read(&watch).await;
        let acts = self.acts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if acts {
            watch.phase(Phase::Executing);
            tokio::time::sleep(Duration::from_secs(3)).await;
            let (hints, after) = (self.hints.clone(), self.told_after);
            tokio::spawn(async move {
                let at = Instant::now();
                tokio::time::sleep(after).await;
                let _ = hints.send(Hint::HostChanged(HostChange { host: "kvm-a".into(), at })).await;
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.read(&watch).await;
        }
        PassSummary { result: PassResult::Succeeded, ..PassSummary::default() }
    }
}

/// A daemon with such a runner.
fn echoing(told_after: Duration, acts: usize) -> (Running, Arc<Echo>) {
    let channel = hints();
    let runner = Echo::new(channel.0.clone(), told_after, acts);
    let (daemon, handles) = Daemon::with_hints(FakeSource::at("a"), runner.clone(), quiet(), channel);
    let (signals, from) = mpsc::channel(4);
    (Running { handles, signals, task: tokio::spawn(daemon.run(from)) }, runner)
}

const MINUTES: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn what_a_pass_itself_caused_brings_no_further_pass_once_it_was_read() {
    for told_after in [Duration::ZERO, Duration::from_secs(1)] {
        let (running, runner) = echoing(told_after, 1);
        tokio::time::sleep(MINUTES).await;
        assert_eq!(runner.passes(), [Reason::FirstPass], "told {told_after:?} after the act");
        assert_eq!(
            count(&running.handles, "drover_host_changes_total{result=\"news\"}"),
            u64::from(told_after.is_zero())
        );
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_after_the_reading_brings_one_pass_within_a_second_and_then_it_is_quiet() {
    let (running, runner) = echoing(Duration::ZERO, 0);
    tokio::time::sleep(MINUTES).await;
    let told = Instant::now();
    running.handles.hints.send(changed("kvm-a")).await.unwrap();
    tokio::time::sleep(MINUTES).await;
    assert_eq!(runner.passes(), [Reason::FirstPass, Reason::HostEvent]);
    let took = runner.passes.lock().unwrap()[1].1 - told;
    assert!(took < Duration::from_secs(1), "{took:?}");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_fight_over_a_host_is_bounded() {
    // Somebody undoes at once, and for ever, what each pass does.
    let (running, runner) = echoing(Duration::from_millis(500), usize::MAX);
    let hints = running.handles.hints.clone();
    let somebody = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            hints.send(changed("kvm-a")).await.unwrap();
        }
    });
    tokio::time::sleep(MINUTES).await;
    let passes = runner.passes().len();
    assert!((20..=27).contains(&passes), "{passes} passes in ten minutes");
    somebody.abort();
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_tells_and_cannot_be_read_is_not_asked_again_and_again() {
    let channel = hints();
    let mut echo = Echo::new(channel.0.clone(), Duration::ZERO, 0);
    Arc::get_mut(&mut echo).unwrap().reads = false;
    let (daemon, handles) = Daemon::with_hints(FakeSource::at("a"), echo.clone(), quiet(), channel);
    let (signals, from) = mpsc::channel(4);
    let running = Running { handles, signals, task: tokio::spawn(daemon.run(from)) };
    tokio::time::sleep(Duration::from_secs(60)).await;
    running.handles.hints.send(changed("kvm-a")).await.unwrap();
    tokio::time::sleep(MINUTES).await;
    assert_eq!(echo.passes(), [Reason::FirstPass, Reason::HostEvent]);
    running.end().await;
}

const FLEET: &str = "\
apiVersion: drover/v1alpha1
kind: Settings
metadata: {name: listened-to}
spec: {}
---
apiVersion: drover/v1alpha1
kind: Host
metadata: {name: t}
spec: {uri: 'test:///default'}
---
apiVersion: drover/v1alpha1
kind: VirtualMachine
metadata: {name: listened-to}
spec: {host: t, cpus: 1, memory: 64Mi}
";

/// The whole way, with libvirt's test driver: a machine that is stopped by hand is started again, an hour before the next
/// pass for drift.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_stopped_by_hand_is_started_again_long_before_the_next_full_pass() {
    let (origin, state) = (Origin::empty(), tempfile::tempdir().unwrap());
    origin.push("fleet.yaml", FLEET);
    let url = origin.bare().display().to_string();
    let mirror = Mirror::open(&url, &state.path().join("git"), &GitAccess::default(), FetchLimits::default()).unwrap();
    let mirror = Arc::new(mirror);
    let channel = hints();
    let powers = Powers {
        libvirt: libvirt::Options::default(),
        kubernetes: drover::provider::kubernetes::KubernetesOptions::default(),
        world: World::new(),
        observe_deadline: Duration::from_secs(20),
    };
    let tell = channel.0.clone();
    let tell = Arc::new(move |change| drop(tell.try_send(Hint::HostChanged(change))));
    let engine = Arc::new(Engine::new(powers).listening(tell));
    let runner = Arc::new(Runner::new(mirror.clone(), "", engine, Arc::new(Memory::default())));
    let source = Arc::new(GitSource::new(mirror, Reference::Branch("main".into()), ""));
    let (daemon, handles) = Daemon::with_hints(source, runner, quiet(), channel);
    let (signals, from) = mpsc::channel(4);
    let mut running = Running { handles, signals, task: tokio::spawn(daemon.run(from)) };
    let status = running.until("the first pass", |s| s.last.is_some()).await;
    let connect = virt::connect::Connect::open(Some("test:///default")).unwrap();
    let domain = connect.lookup_domain_by_name("listened-to").unwrap_or_else(|e| panic!("{e}: {:#?}", status.last));
    assert!(domain.is_active().unwrap());
    assert!(!status.last.unwrap().drift_only);

    for _ in 0..2 {
        let stopped = std::time::Instant::now();
        domain.destroy().unwrap();
        while !domain.is_active().unwrap() {
            assert!(stopped.elapsed() < Duration::from_secs(20), "{:#?}", running.handles.status.borrow());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("started again after {:?}", stopped.elapsed());
    }
    let reason = Reason::HostEvent;
    running.until("its pass ends", |s| s.last.as_ref().is_some_and(|l| l.reason == reason)).await;
    running.end().await;
    domain.destroy().unwrap();
    domain.undefine().unwrap();
}
