//! The program itself on real hosts: `drover daemon`, `plan` and `apply` as child processes in the lab's client machine,
//! a repository like examples/quickstart, two libvirt hosts. What is asserted is what a user sees: heartbeats from
//! outside, domain states on both hosts, status, plan, history, exit codes.

mod agent;
mod cases;
mod cpu;
mod crash;
mod drift;
mod evacuate;
mod faults;
mod hosts;
mod import;
mod journal;
mod live;
mod migrations;
mod moves;
mod ownership;
mod prechecks;
mod repository;
mod retune;
mod storage;

use crate::git::servers::{Origin, git};
use crate::lab::{Gap, Guest, HOSTS, Lab, wait_for};
use drover::daemon::DaemonStatus;
use drover::journal::{Journal as _, PassRecord, Sqlite};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// How long the daemon may take to carry a commit out, guests under software emulation and a busy machine included.
const PATIENCE: Duration = Duration::from_secs(150);

/// A repository, its machines, and the daemon that follows it. Everything of it ends with the value, the daemon first.
struct Fleet<'lab> {
    daemon: Option<Daemon>,
    lab: &'lab Lab,
    name: String,
    origin: Origin,
    state: tempfile::TempDir,
    log: PathBuf,
    port: u16,
    machines: Vec<Rc<Guest<'lab>>>,
}

/// A running daemon; killed when dropped.
struct Daemon(Child);

impl Daemon {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a command ended, and what it said.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(command: &mut Command) -> Self {
        let out = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: out.status.code().unwrap_or(-1), out: text(&out.stdout), err: text(&out.stderr) }
    }

    /// Asserts the exit code.
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self
    }

    /// Asserts that all of these were said, on whatever stream.
    #[track_caller]
    fn says(self, what: &[&str]) -> Self {
        for text in what {
            assert!(self.out.contains(text) || self.err.contains(text), "`{text}` in\n{}\n{}", self.out, self.err);
        }
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }
}

fn quickstart(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart").join(file);
    std::fs::read_to_string(path).unwrap()
}

/// Replaces what must be there.
#[track_caller]
fn swap(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in\n{text}");
    text.replace(from, to)
}

impl<'lab> Fleet<'lab> {
    /// The repository of examples/quickstart without its machine, under a name and with a storage folder of its own.
    fn new(lab: &'lab Lab, name: &str) -> Self {
        let origin = Origin::empty();
        let folder = lab.shared_folder().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let state = tempfile::tempdir().unwrap();
        let log = state.path().join("daemon.log");
        let fleet = Self { daemon: None, lab, name: name.into(), origin, state, log, port: 0, machines: Vec::new() };
        fleet.write("hosts.yaml", &quickstart("hosts.yaml"));
        let slow = "---\napiVersion: drover/v1alpha1\nkind: MigrationPolicy\nmetadata: {name: slow}\n\
                    spec: {bandwidth: 40Mbit/s, timeout: {after: 5m}}\n";
        fleet.write(
            "policies.yaml",
            &(swap(&quickstart("policies.yaml"), "name: quickstart", &format!("name: {name}")) + slow),
        );
        let pool = swap(&quickstart("storage.yaml"), "name: images", &format!("name: {name}"));
        fleet.write("storage.yaml", &swap(&pool, "/srv/shared", &format!("/srv/shared/{name}")));
        fleet
    }

    /// Adds the machine of examples/quickstart, on host a.
    fn machine(&mut self, name: &str) -> Rc<Guest<'lab>> {
        let guest = self.guest(name);
        let mut text = swap(&quickstart("machines.yaml"), "web-1", guest.name());
        for (from, to) in
            [("port: 9001", format!("port: {}", guest.port())), ("pool: images", format!("pool: {}", self.name))]
        {
            text = swap(&text, from, &to);
        }
        self.write(&format!("{}.yaml", guest.name()), &text);
        guest
    }

    /// Adds a machine without disk and operating system, which starts and moves in a second, on a host.
    fn bare_machine(&mut self, name: &str, host: &str) -> Rc<Guest<'lab>> {
        let guest = self.guest(name);
        let text = format!(
            "apiVersion: drover/v1alpha1\nkind: VirtualMachine\nmetadata:\n  name: {}\nspec:\n  host: kvm-{host}\n  \
             type: qemu\n  machine: q35\n  cpus: 1\n  memory: 64Mi\n",
            guest.name()
        );
        self.write(&format!("{}.yaml", guest.name()), &text);
        guest
    }

    fn guest(&mut self, name: &str) -> Rc<Guest<'lab>> {
        let guest = Rc::new(self.lab.guest(name));
        // The heartbeat ports are one to a guest, so these are one to a fleet.
        if self.port == 0 {
            self.port = guest.port() + 10_000;
        }
        self.machines.push(guest.clone());
        guest
    }

    fn work(&self) -> String {
        self.origin.work().display().to_string()
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.origin.work().join(file), text).unwrap();
    }

    /// Changes a file of the repository.
    #[track_caller]
    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.origin.work().join(file)).unwrap();
        self.write(file, &swap(&text, from, to));
    }

    /// Changes a machine's manifest.
    #[track_caller]
    fn change(&self, vm: &Guest<'_>, from: &str, to: &str) {
        self.edit(&format!("{}.yaml", vm.name()), from, to);
    }

    /// A machine's manifest as it is.
    fn machine_text(&self, vm: &Guest<'_>) -> String {
        std::fs::read_to_string(self.origin.work().join(format!("{}.yaml", vm.name()))).unwrap()
    }

    /// Commits what was written; the commit.
    fn commit(&self, message: &str) -> String {
        git(&self.origin.work(), &["add", "-A"]);
        git(&self.origin.work(), &["commit", "-q", "-m", message]);
        git(&self.origin.work(), &["rev-parse", "HEAD"])
    }

    /// Commits what was written, and pushes; the commit.
    fn push(&self, message: &str) -> String {
        let commit = self.commit(message);
        self.send();
        commit
    }

    /// Pushes.
    fn send(&self) {
        git(&self.origin.work(), &["push", "-q", "-f", "origin", "HEAD:main"]);
    }

    fn state_folder(&self) -> PathBuf {
        self.state.path().join("state")
    }

    fn daemon_command(&self, state: &Path) -> Vec<String> {
        let listen = format!("127.0.0.1:{}", self.port);
        let [bare, state] = [&self.origin.bare(), state].map(|p| p.display().to_string());
        let flags = ["--poll-interval", "5s", "--drift-interval", "3s", "--grace-time", "5s"];
        let args =
            [&["daemon", "--repo", &bare, "--branch", "main", "--state", &state, "--listen", &listen], &flags[..]];
        args.concat().into_iter().map(str::to_owned).collect()
    }

    /// Starts the daemon, or starts it again.
    fn start(&mut self) {
        let args = self.daemon_command(&self.state_folder());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.start_as(self.lab.drover(&args));
    }

    fn start_as(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.daemon = Some(Daemon(daemon));
    }

    fn running(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon was started")
    }

    /// Kills the daemon with -9.
    fn kill(&mut self) {
        drop(self.daemon.take().expect("the daemon was started"));
    }

    /// Asks the daemon to look at everything now.
    fn look_now(&self) {
        self.running().signal("HUP");
    }

    /// Asks the daemon to end; its exit code.
    fn terminate(&mut self) -> i32 {
        let mut daemon = self.daemon.take().expect("the daemon was started");
        daemon.signal("TERM");
        wait_for("the daemon ends", Duration::from_secs(30), || match daemon.0.try_wait().unwrap() {
            Some(status) => Ok(status.code().unwrap_or(-1)),
            None => Err("it runs".into()),
        })
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs the program in the client machine.
    fn drover(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.lab.drover(args))
    }

    /// What the daemon's status says, for people.
    fn status_text(&self) -> Ran {
        self.drover(&["status", "--server", &format!("http://127.0.0.1:{}", self.port)])
    }

    fn status(&self) -> Result<DaemonStatus, String> {
        let server = format!("http://127.0.0.1:{}", self.port);
        let ran = self.drover(&["status", "-o", "json", "--server", &server]);
        serde_json::from_str(&ran.out).map_err(|e| format!("{e}: {}", ran.err))
    }

    /// Waits for a status.
    #[track_caller]
    fn until(&mut self, what: &str, state: impl Fn(&DaemonStatus) -> bool) -> DaemonStatus {
        let begun = std::time::Instant::now();
        loop {
            let status = self.status();
            if let Ok(status) = &status
                && state(status)
            {
                return status.clone();
            }
            let daemon = self.daemon.as_mut().expect("the daemon was started");
            let ended = daemon.0.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "{what}: not after {:?} ({ended:?}): {status:#?}\n{}",
                begun.elapsed(),
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a commit is carried out completely.
    #[track_caller]
    fn settles(&mut self, commit: &str) -> DaemonStatus {
        self.until(&format!("{commit} is carried out"), |s| {
            s.settled.as_deref() == Some(commit) && s.current.is_none() && s.good.as_deref() == Some(commit)
        })
    }

    /// `drover plan` of what is in the working folder.
    fn plan(&self, args: &[&str]) -> Ran {
        self.drover(&[&["plan", &self.work(), "--detailed-exitcode"], args].concat())
    }

    /// Asserts that everything is as the working folder says.
    #[track_caller]
    fn has_nothing_to_do(&self) {
        self.plan(&[]).exits(0);
    }

    /// Asserts that a machine runs on this host, and that nothing of it is on the other.
    #[track_caller]
    fn runs_only_on(&self, vm: &Guest<'_>, host: &str) {
        let states = HOSTS.map(|h| vm.state(h));
        let expected = HOSTS.map(|h| if h == host { "running" } else { "absent" });
        assert_eq!(
            (states.each_ref().map(String::as_str), self.lab.processes(vm.name())),
            (expected, vec![host.into()])
        );
    }

    /// Waits for a fresh heartbeat of this host, and asserts that the guest has neither been restarted nor run twice.
    #[track_caller]
    fn has_lived(&self, vm: &Guest<'_>, since: SystemTime, host: &str) -> Gap {
        let address = ["10.77.0.1", "10.77.0.2"][usize::from(host == "b")];
        vm.wait_beats(3);
        let gap = vm.gap(since);
        assert_eq!((gap.sources.last().map(String::as_str), gap.back), (Some(address), 0), "{gap:?}");
        gap
    }

    /// The journal, read beside the daemon.
    fn journal(&self) -> Option<Sqlite> {
        Sqlite::open_read_only(self.state_folder().join("journal.sqlite")).ok()
    }

    /// Summaries of the steps that were begun and whose end nobody wrote down.
    fn in_doubt(&self) -> Vec<String> {
        let steps = self.journal().and_then(|j| j.in_doubt().ok()).unwrap_or_default();
        steps.into_iter().map(|d| d.step.summary).collect()
    }

    /// The last passes, newest first, as `drover history` tells them.
    fn history(&self) -> Vec<PassRecord> {
        let state = self.state_folder().display().to_string();
        serde_json::from_value(self.drover(&["history", "--state", &state, "-o", "json"]).exits(0).json()).unwrap()
    }

    /// Waits until a migration away from a host has moved some of the memory.
    fn is_under_way(&self, vm: &Guest<'_>, from: &str) {
        wait_for("a migration under way", PATIENCE, || {
            let job = self.lab.virsh_ok(from, &["domjobinfo", vm.name()]);
            if job.contains("Memory processed") { Ok(()) } else { Err(format!("{job}\n{}", self.log_text())) }
        });
    }

    /// Lets a slow migration that is under way end soon. It may have ended already.
    fn hurry(&self, vm: &Guest<'_>, from: &str) {
        let _ = self.lab.virsh(from, &["migrate-setspeed", vm.name(), "1000"]);
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        drop(self.daemon.take());
        if std::thread::panicking() {
            // Not by the macro: the lint knows nothing of a test's helper.
            let log = format!("the daemon's log:\n{}\n", self.log_text());
            let _ = std::io::Write::write_all(&mut std::io::stderr(), log.as_bytes());
        }
        for host in HOSTS {
            for pool in [self.name.clone(), format!("{}-local", self.name)] {
                for verb in ["pool-destroy", "pool-undefine"] {
                    let _ = self.lab.virsh(host, &[verb, &pool]);
                }
            }
            let _ = std::fs::remove_dir_all(self.lab.local_folder(host).join(&self.name));
        }
        let _ = std::fs::remove_dir_all(self.lab.shared_folder().join(&self.name));
    }
}
