//! A daemon that follows a repository: its memory, its idle time, how soon it sees a push.

use crate::git::{Repository, Running, free_port};
use crate::measure::{cpu_of, memory_of};
use jiff::Timestamp;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon is left alone after its first pass: what only that needed has gone by then, and so have idle threads.
const SETTLING: Duration = Duration::from_secs(12);

/// What was seen of a daemon with simulated hosts.
pub struct Seen {
    /// Part of a core that it took while there was nothing to do.
    pub idle: f64,
    /// Seconds from the push until the commit was noticed, and until its plan was carried out; medians.
    pub noticed: f64,
    pub settled: f64,
}

/// Memory of a daemon, in MiB.
pub struct Resident {
    /// After the first pass.
    pub all: f64,
    /// The part of it that is the program's file and its libraries' files.
    pub files: f64,
    /// The most until then.
    pub most: f64,
}

/// Starts a daemon that follows a repository and looks once.
fn start(folder: &Path, repository: &Repository, config: &str) -> (Running, u16) {
    let file = folder.join("drover.toml");
    fs::write(&file, config).unwrap();
    let port = free_port();
    let daemon = Running(
        Command::new(env!("CARGO_BIN_EXE_drover"))
            .args(["daemon", "--config"])
            .arg(&file)
            .arg("--repo")
            .arg(&repository.bare)
            .arg("--state")
            .arg(folder.join("state"))
            .args(["--listen", &format!("127.0.0.1:{port}"), "--poll-interval", "1h", "--drift-interval", "1h"])
            .env("DROVER_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("daemon.log")).unwrap())
            .spawn()
            .unwrap(),
    );
    (daemon, port)
}

/// The memory of a daemon that knows all manifests, and a plan in which every machine is unknown, because no host answers:
/// simulated hosts would take more of its memory than it does itself.
pub fn resident(folder: &Path, manifests: &Path) -> Resident {
    let (daemon, port) = start(folder, &Repository::new(folder, manifests), "");
    until(port, "the first pass has ended", |s| !s["last"].is_null() && s["phase"] == "Idle");
    std::thread::sleep(SETTLING);
    let memory = |line| memory_of(daemon.0.id(), line);
    Resident { all: memory("VmRSS"), files: memory("RssFile"), most: memory("VmHWM") }
}

/// Starts a daemon on the manifests, in a world where everything is as they say.
pub fn watch(folder: &Path, manifests: &Path, world: &Path, idle: Duration, pushes: usize) -> Seen {
    let repository = Repository::new(folder, manifests);
    let kept = folder.join("world.json");
    fs::copy(world, &kept).unwrap();
    let (daemon, port) = start(folder, &repository, &format!("[sim]\nstate = {:?}\n", kept.to_str().unwrap()));
    let pid = daemon.0.id();
    until(port, "the first commit is settled", |s| !s["settled"].is_null() && s["phase"] == "Idle");
    std::thread::sleep(SETTLING);
    let before = cpu_of(pid);
    std::thread::sleep(idle);
    let idle = (cpu_of(pid) - before) / idle.as_secs_f64();
    let (mut noticed, mut settled) = (Vec::new(), Vec::new());
    for push in 0..pushes {
        let commit = repository.move_machine(push, (push + 1) % crate::fleet::HOSTS);
        let pushed = Timestamp::now();
        repository.publish(&commit);
        let status = until(port, "a push is settled", |s| s["settled"] == commit.as_str() && s["phase"] == "Idle");
        let since = |at: &Value| {
            let at: Timestamp = at.as_str().unwrap().parse().unwrap();
            at.duration_since(pushed).as_secs_f64()
        };
        noticed.push(since(&status["revision"]["seenAt"]));
        settled.push(since(&status["last"]["endedAt"]));
    }
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    Seen { idle, noticed: middle(noticed), settled: middle(settled) }
}

/// Asks until the status is as wanted.
fn until(port: u16, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let by = Instant::now() + Duration::from_secs(120);
    loop {
        let answer = ureq::get(format!("http://127.0.0.1:{port}/api/v1/status")).call();
        let status = answer.ok().and_then(|mut a| a.body_mut().read_to_string().ok());
        let status: Value = status.and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < by, "{what}: {status:#}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
