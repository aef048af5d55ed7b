//! The lab (`tests/lab`) for tests: real libvirt hosts and QEMU guests.
//!
//! One lab serves the whole test binary. It comes up with the first test that asks for it and is taken down when the
//! binary ends, however it ends. It is the binary's own: runs side by side do not meet.
//!
//! ```ignore
//! let Some(lab) = Lab::shared() else { return };        // Lab::alone() for a test that breaks hosts or links
//! let vm = lab.guest("web");                            // a name and a heartbeat port of its own, cleaned up on drop
//! vm.define("a", &["mem=256"]);
//! vm.start("a");
//! vm.wait_beats(3);
//! let out = lab.drover(&["plan", "."]).output().unwrap(); // runs in the client machine, where the hosts can be reached
//! ```

#![allow(dead_code, reason = "a tool box: which tools are in use changes with the tests")]

use serde::Deserialize;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The first heartbeat port; the client listens on a thousand of them.
const FIRST_PORT: u16 = 9000;

/// Hosts of the test binary's lab.
pub const HOSTS: [&str; 2] = ["a", "b"];

/// The lab as a test holds it: together with other tests, or alone.
pub struct Lab {
    world: &'static World,
    turn: Turn,
}

enum Turn {
    Shared(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

static TURNS: RwLock<()> = RwLock::new(());
static OTHER_TURNS: RwLock<()> = RwLock::new(());

/// A lab that came up; none, with the reason, where it could not.
fn ready(world: &'static Result<World, String>) -> Option<&'static World> {
    match world {
        Ok(world) => Some(world),
        Err(reason) => {
            assert!(std::env::var("DROVER_REQUIRE_LAB").as_deref() != Ok("1"), "the lab is required here: {reason}");
            // Not by the macro: the test harness would swallow it for a test that passes.
            let _ = std::io::stderr().write_all(format!("skipped: no lab: {reason}\n").as_bytes());
            None
        }
    }
}

impl Lab {
    /// The lab, for a test that leaves hosts and links as they are. `None`, with the reason on standard error, where this
    /// machine cannot have one; a panic instead where `DROVER_REQUIRE_LAB=1`.
    pub fn shared() -> Option<Self> {
        let world = World::of_this_binary()?;
        let turn = Turn::Shared(TURNS.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        Some(Self { world, turn })
    }

    /// Two hosts of different releases, a the older one: bookworm and its backports. A lab of its own, for one test at a
    /// time. `None`, with the reason, where this machine cannot have one: its own release must still run bookworm's.
    pub fn of_two_releases() -> Option<Self> {
        static MIXED: OnceLock<Result<World, String>> = OnceLock::new();
        let world = MIXED.get_or_init(|| {
            if let Some(reason) = why_no_lab() {
                return Err(reason);
            }
            let release = Command::new(script("release.sh")).arg("default").output().map_err(|e| e.to_string())?;
            match text(&release.stdout).trim() {
                "bookworm-backports" => World::start(
                    &format!("it-mixed-{}", std::process::id()),
                    &["--hosts", "2", "--release", "a=bookworm,b=bookworm-backports"],
                ),
                other => {
                    Err(format!("the older release that is known to work goes with bookworm-backports, not {other}"))
                }
            }
        });
        let world = ready(world)?;
        Some(Self { world, turn: Turn::Alone(OTHER_TURNS.write().unwrap_or_else(std::sync::PoisonError::into_inner)) })
    }

    /// The lab, while no other test uses it: for cut links, dead daemons and crashed hosts. All is made good afterwards.
    pub fn alone() -> Option<Self> {
        let world = World::of_this_binary()?;
        let turn = Turn::Alone(TURNS.write().unwrap_or_else(std::sync::PoisonError::into_inner));
        Some(Self { world, turn })
    }
}

impl std::ops::Deref for Lab {
    type Target = World;

    fn deref(&self) -> &World {
        self.world
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if matches!(self.turn, Turn::Alone(_)) {
            self.world.mend();
        }
    }
}

/// A running lab.
pub struct World {
    state: PathBuf,
    hosts: Vec<String>,
    next_guest: AtomicU16,
    /// As long as this pipe is open the lab stays. The kernel closes it when this process ends, also by SIGKILL.
    life: ChildStdin,
    reaper: Child,
}

impl World {
    fn of_this_binary() -> Option<&'static Self> {
        static WORLD: OnceLock<Result<World, String>> = OnceLock::new();
        ready(WORLD.get_or_init(|| {
            let hosts = ["--hosts", &HOSTS.len().to_string()];
            why_no_lab().map_or_else(|| World::start(&format!("it-{}", std::process::id()), &hosts), Err)
        }))
    }

    /// Brings a lab up, with these arguments of `lab.sh up`.
    fn start(name: &str, how: &[&str]) -> Result<Self, String> {
        let state = std::env::temp_dir().join(format!("drover-lab-{name}"));
        std::fs::create_dir_all(&state).map_err(|e| format!("{}: {e}", state.display()))?;
        // In a session of its own, so that Ctrl-C on the tests does not end it first.
        let mut reaper = Command::new("setsid")
            .arg(script("lab.sh"))
            .arg("reap")
            .env("DROVER_LAB_STATE", &state)
            .env_remove("DROVER_LAB_PREFIX")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("setsid: {e}"))?;
        let life = reaper.stdin.take().ok_or("no pipe to the reaper")?;
        let mut world = Self { state, hosts: Vec::new(), next_guest: AtomicU16::new(1), life, reaper };
        let up = world.command(600, &[&["up"], how].concat()).output().map_err(|e| e.to_string())?;
        if !up.status.success() {
            return Err(format!("lab.sh up failed: {}", text(&up.stderr)));
        }
        world.hosts = world.run(&["hosts"]).split_whitespace().map(str::to_owned).collect();
        Ok(world)
    }

    /// A `lab.sh` verb, ended after `seconds`.
    fn command(&self, seconds: u32, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &seconds.to_string()]).arg(script("lab.sh")).args(args);
        command.env("DROVER_LAB_STATE", &self.state).env_remove("DROVER_LAB_PREFIX").stdin(Stdio::null());
        command
    }

    /// Runs a `lab.sh` verb that has to succeed; what it printed.
    fn run(&self, args: &[&str]) -> String {
        let out = self.command(180, args).output().unwrap();
        assert!(out.status.success(), "lab.sh {}: {}{}", args.join(" "), text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }

    /// The hosts' names: `a`, `b`.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The folder that all hosts have as /srv/shared, as seen from here.
    pub fn shared_folder(&self) -> PathBuf {
        self.state.join("shared")
    }

    /// The folder that this host has as /srv/local, as seen from here.
    pub fn local_folder(&self, host: &str) -> PathBuf {
        self.state.join("hosts").join(host).join("local")
    }

    /// The private SSH key that opens all hosts.
    pub fn ssh_key(&self) -> PathBuf {
        self.state.join("ssh/client_key")
    }

    /// The hosts' SSH keys.
    pub fn known_hosts(&self) -> PathBuf {
        self.state.join("ssh/known_hosts")
    }

    /// libvirt's URI of a host, over plain TCP.
    pub fn uri(&self, host: &str) -> String {
        self.uri_over(host, "tcp")
    }

    /// libvirt's URI of a host, over `tcp`, `tls` or `ssh`.
    pub fn uri_over(&self, host: &str, transport: &str) -> String {
        self.run(&["uri", host, transport]).trim().to_owned()
    }

    /// Runs virsh on a host's own daemon, for at most two minutes.
    pub fn virsh(&self, host: &str, args: &[&str]) -> Output {
        self.command(120, &[&["virsh", host, "-q"], args].concat()).output().unwrap()
    }

    /// Runs virsh on a host's own daemon; it has to succeed. What it printed.
    pub fn virsh_ok(&self, host: &str, args: &[&str]) -> String {
        let out = self.virsh(host, args);
        assert!(out.status.success(), "virsh {} on {host}: {}", args.join(" "), text(&out.stderr));
        text(&out.stdout).trim().to_owned()
    }

    /// Runs a command inside a host, for at most two minutes.
    pub fn inside(&self, host: &str, args: &[&str]) -> Output {
        self.command(120, &[&["in", host], args].concat()).output().unwrap()
    }

    /// What a domain is doing: `running`, `paused`, `shut off`; `absent` where the host does not know it.
    pub fn domstate(&self, host: &str, name: &str) -> String {
        let out = self.virsh(host, &["domstate", name]);
        let error = text(&out.stderr);
        match out.status.success() {
            true => text(&out.stdout).trim().to_owned(),
            // The second where it goes away between the look-up and the question.
            false if error.contains("failed to get domain") || error.contains("Domain not found") => {
                "absent".to_owned()
            }
            false => panic!("domstate {name} on {host}: {error}"),
        }
    }

    /// Hosts on which a QEMU process for this domain is there, whatever libvirt says of it. During a migration that is
    /// both. Hosts that are down have none.
    pub fn processes(&self, name: &str) -> Vec<String> {
        let pattern = format!("guest={name},");
        let has = |h: &&String| self.inside(h, &["pgrep", "-f", &pattern]).status.success();
        self.hosts.iter().filter(has).cloned().collect()
    }

    /// A program in the client machine, from which the hosts can be reached, in this process's current folder. Its
    /// process id is the child's own, so that `kill` reaches it.
    pub fn client_command(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let folder = std::env::current_dir().unwrap();
        self.client_command_in(&folder, program, args)
    }

    /// A program in the client machine, in this folder. (`Command::current_dir` has no effect on it.)
    pub fn client_command_in(&self, folder: &Path, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let pid = std::fs::read_to_string(self.state.join("hosts/c/pid")).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["-t", pid.trim(), "-m", "-u", "-n", "-i", "--", "env", "-C"]).arg(folder);
        command.arg(program.as_ref()).args(args);
        command
    }

    /// The program under test, in the client machine.
    pub fn drover(&self, args: &[&str]) -> Command {
        self.client_command(env!("CARGO_BIN_EXE_drover"), args)
    }

    /// Takes a host's management link down: daemon, SSH and migrations. Guests go on.
    pub fn cut(&self, host: &str) {
        self.run(&["cut", host]);
    }

    /// Brings a host's management link up again.
    pub fn heal(&self, host: &str) {
        self.run(&["heal", host]);
    }

    /// Two hosts lose each other; the client reaches both.
    pub fn cut_between(&self, host: &str, peer: &str) {
        self.run(&["cut", host, peer]);
    }

    /// Two hosts find each other again.
    pub fn heal_between(&self, host: &str, peer: &str) {
        self.run(&["heal", host, peer]);
    }

    /// Limits a host's management link to so many kbit/s, both directions; `None` lifts it.
    pub fn rate(&self, host: &str, kbit: Option<u32>) {
        let rate = kbit.map_or_else(|| "off".to_owned(), |k| k.to_string());
        self.run(&["rate", host, &rate]);
    }

    /// Does `start`, `stop`, `kill`, `pause`, `cont` or `restart` to a host's libvirt daemon.
    pub fn daemon(&self, host: &str, what: &str) {
        self.run(&["daemon", host, what]);
    }

    /// A host dies at once, with its guests.
    pub fn crash(&self, host: &str) {
        self.run(&["crash", host]);
    }

    /// A crashed host boots again.
    pub fn boot(&self, host: &str) {
        self.run(&["host", host]);
    }

    /// Links, daemons and hosts as they were at the start.
    fn mend(&self) {
        for host in &self.hosts {
            let quietly = |args: &[&str]| drop(self.command(120, args).output());
            quietly(&["heal", host]);
            self.hosts.iter().filter(|p| *p != host).for_each(|p| quietly(&["heal", host, p]));
            quietly(&["rate", host, "off"]);
            quietly(&["host", host]);
            quietly(&["daemon", host, "cont"]);
            if !self.command(30, &["virsh", host, "version"]).output().is_ok_and(|o| o.status.success()) {
                quietly(&["daemon", host, "start"]);
            }
        }
    }

    /// A guest with a name and a heartbeat port of its own. It is not there yet; what is of it, under this name and on
    /// whatever host, goes when the value is dropped.
    pub fn guest<'lab>(&'lab self, name: &str) -> Guest<'lab> {
        let number = self.next_guest.fetch_add(1, Ordering::Relaxed);
        Guest { lab: self, name: format!("{name}-{number}"), port: FIRST_PORT + number }
    }

    /// What was heard from outside on a guest's port since then.
    pub fn gap(&self, port: u16, since: SystemTime) -> Gap {
        let since = since.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        serde_json::from_str(&self.run(&["gap", &port.to_string(), &since.to_string()])).unwrap()
    }
}

/// A guest of one test.
pub struct Guest<'lab> {
    lab: &'lab World,
    name: String,
    port: u16,
}

impl Guest<'_> {
    /// Its domain's name, in use nowhere else.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The UDP port at 10.77.0.3 to which its first serial line goes.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty raw disk of so many MiB in the folder that all hosts share; its path on the hosts.
    pub fn shared_disk(&self, mib: u64) -> String {
        let file = format!("{}.img", self.name);
        std::fs::File::create(self.lab.shared_folder().join(&file)).unwrap().set_len(mib << 20).unwrap();
        format!("/srv/shared/{file}")
    }

    /// Makes an empty raw disk of so many MiB in a host's own folder; its path on the host.
    pub fn local_disk(&self, host: &str, mib: u64) -> String {
        let file = format!("{}.img", self.name);
        std::fs::File::create(self.lab.local_folder(host).join(&file)).unwrap().set_len(mib << 20).unwrap();
        format!("/srv/local/{file}")
    }

    /// Its domain XML, with settings of `tests/lab/domain-xml.py`: `mem=256`, `dirty=64`, `boot=none`.
    pub fn xml(&self, settings: &[&str]) -> String {
        let port = format!("port={}", self.port);
        let out = Command::new(script("domain-xml.py")).args([&self.name, &port]).args(settings).output().unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stdout)
    }

    /// Defines it on a host.
    pub fn define(&self, host: &str, settings: &[&str]) {
        let file = self.lab.state.join(format!("{}.xml", self.name));
        std::fs::write(&file, self.xml(settings)).unwrap();
        self.lab.virsh_ok(host, &["define", file.to_str().unwrap()]);
    }

    /// Starts it on a host.
    pub fn start(&self, host: &str) {
        self.lab.virsh_ok(host, &["start", &self.name]);
    }

    /// What it is doing on a host, as [`World::domstate`].
    pub fn state(&self, host: &str) -> String {
        self.lab.domstate(host, &self.name)
    }

    /// What was heard of it since then.
    pub fn gap(&self, since: SystemTime) -> Gap {
        self.lab.gap(self.port, since)
    }

    /// Waits until so many heartbeats more have come; under emulation a guest boots in 5 to 20 seconds.
    pub fn wait_beats(&self, count: u32) -> Gap {
        let since = SystemTime::now();
        wait_for(&format!("{count} heartbeats of {}", self.name), Duration::from_secs(120), || {
            let gap = self.gap(since);
            if gap.beats >= count { Ok(gap) } else { Err(format!("{gap:?}")) }
        })
    }

    /// What its raw disk holds, of this path as seen from here.
    pub fn check_disk(&self, image: &Path) -> DiskCheck {
        let out = Command::new(script("check-disk.py")).arg(image).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out.stderr)))
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        for host in &self.lab.hosts {
            let _ = self.lab.command(30, &["virsh", host, "destroy", &self.name]).output();
            let _ = self
                .lab
                .command(
                    30,
                    &[
                        "virsh",
                        host,
                        "undefine",
                        "--nvram",
                        "--managed-save",
                        "--snapshots-metadata",
                        "--checkpoints-metadata",
                        &self.name,
                    ],
                )
                .output();
        }
        let folders = self.lab.hosts.iter().map(|h| self.lab.local_folder(h)).chain([self.lab.shared_folder()]);
        for entry in folders.filter_map(|f| std::fs::read_dir(f).ok()).flatten().flatten() {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|n| n.strip_prefix(self.name.as_str()));
            if rest.is_some_and(|r| r.starts_with(['.', '-'])) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// What was heard of a guest from outside.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Heartbeats heard.
    pub beats: u32,
    /// Longest silence between two of them, in ms.
    pub max_gap_ms: u64,
    /// Numbers that never came: datagrams lost, or a guest that lost memory.
    pub lost: u64,
    /// Numbers that came again: the guest restarted, or runs twice.
    pub back: u64,
    /// Addresses that sent, in order of change: `10.77.0.1` is host a.
    pub sources: Vec<String>,
    /// How long ago the last one came, in ms.
    pub since_last_ms: Option<u64>,
    /// Disk blocks that the guest had written by then.
    pub writes: u64,
}

/// What a guest's disk holds.
#[derive(Debug, Deserialize)]
pub struct DiskCheck {
    /// Numbered blocks.
    pub blocks: u64,
    /// The highest number.
    pub highest: u64,
    /// Whether every number up to it is there once.
    pub complete: bool,
}

/// Waits until `look` has a value, looking ten times a second; panics with what was seen last.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > limit => panic!("{what}: not after {limit:?}: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab").join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Why this machine cannot have a lab, if so.
fn why_no_lab() -> Option<String> {
    if std::fs::metadata("/proc/self").map_or(true, |m| m.uid() != 0) {
        return Some("namespaces need root".to_owned());
    }
    let cache =
        std::env::var_os("DROVER_LAB_CACHE").map_or_else(|| PathBuf::from("/var/cache/drover-lab"), PathBuf::from);
    let has_release = std::fs::read_dir(cache.join("suites"))
        .is_ok_and(|releases| releases.flatten().any(|r| r.path().join("done").exists()));
    (!has_release).then(|| "there is no libvirt and QEMU for it; run scripts/setup.sh".to_owned())
}

fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid).join("exe").exists()
}

#[test]
fn every_uri_reaches_every_host_from_the_client() {
    let Some(lab) = Lab::shared() else { return };
    for host in HOSTS {
        for transport in ["tcp", "tls", "ssh"] {
            let uri = lab.uri_over(host, transport);
            let out = lab.client_command("virsh", &["-c", &uri, "hostname"]).output().unwrap();
            assert_eq!(text(&out.stdout).trim(), format!("host-{host}"), "{uri}: {}", text(&out.stderr));
        }
    }
}

#[test]
fn a_guest_on_the_shared_folder_moves_live_and_loses_nothing() {
    let Some(lab) = Lab::shared() else { return };
    let vm = lab.guest("moves");
    let disk = vm.shared_disk(64);
    vm.define("a", &[&format!("disk={disk}"), "drate=64"]);
    vm.start("a");
    vm.wait_beats(5);

    let since = SystemTime::now();
    // Without --unsafe: the hosts know that the folder is shared.
    let flags = ["migrate", "--live", "--p2p", "--persistent", "--undefinesource"];
    lab.virsh_ok("a", &[&flags[..], &[vm.name(), &lab.uri("b")]].concat());
    vm.wait_beats(5);

    assert_eq!((vm.state("a").as_str(), vm.state("b").as_str()), ("absent", "running"));
    assert_eq!(lab.processes(vm.name()), ["b"]);
    let heard = vm.gap(since);
    assert_eq!(heard.sources.last().map(String::as_str), Some("10.77.0.2"), "{heard:?}");
    assert_eq!((heard.lost, heard.back), (0, 0), "{heard:?}");
    lab.virsh_ok("b", &["destroy", vm.name()]);
    let disk = vm.check_disk(&lab.shared_folder().join(format!("{}.img", vm.name())));
    assert!(disk.complete && disk.highest >= heard.writes, "{disk:?} {heard:?}");
}

#[test]
fn a_program_in_the_client_can_be_killed() {
    let Some(lab) = Lab::shared() else { return };
    let mut child = lab.client_command("sleep", &["1000"]).spawn().unwrap();
    let name = Path::new("/proc").join(child.id().to_string()).join("comm");
    wait_for("sleep runs under the child's own pid", Duration::from_secs(10), || {
        let comm = std::fs::read_to_string(&name).unwrap_or_default();
        if comm.trim() == "sleep" { Ok(()) } else { Err(comm) }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!exists(&child.id().to_string()));
}

#[test]
fn links_daemons_and_hosts_break_and_come_back() {
    let Some(lab) = Lab::alone() else { return };
    let version = |host: &str| {
        let command = ["5", "virsh", "-c", &lab.uri(host), "version"];
        lab.client_command("timeout", &command).output().unwrap().status.success()
    };
    let reaches = |from: &str, to: &str| {
        lab.inside(from, &["timeout", "2", "bash", "-c", &format!("</dev/tcp/host-{to}/16509")]).status.success()
    };
    assert!(version("a") && version("b") && reaches("a", "b"));

    lab.cut("b");
    assert!(version("a") && !version("b") && !reaches("a", "b"), "a cut host is reached");
    lab.heal("b");
    lab.cut_between("a", "b");
    assert!(version("a") && version("b") && !reaches("a", "b") && !reaches("b", "a"), "two hosts lose only each other");
    lab.heal_between("a", "b");
    assert!(reaches("a", "b"));

    let vm = lab.guest("survives");
    vm.define("a", &["boot=none", "mem=64"]);
    vm.start("a");
    lab.daemon("a", "kill");
    assert!(!version("a"), "a dead daemon answers");
    assert_eq!(lab.processes(vm.name()), ["a"], "a guest died with the daemon");
    lab.daemon("a", "start");
    assert_eq!(vm.state("a"), "running");
    lab.daemon("a", "pause");
    assert!(!version("a"), "a stopped daemon answers");
    lab.daemon("a", "cont");
    assert!(version("a"));

    lab.crash("a");
    assert!(!version("a") && lab.processes(vm.name()).is_empty(), "a crashed host lives");
    lab.boot("a");
    assert_eq!(vm.state("a"), "shut off", "definitions outlive a crash");
}

#[test]
fn a_lab_goes_with_its_owner_and_leaves_nothing() {
    if World::of_this_binary().is_none() {
        return;
    }
    let world = World::start(&format!("gone-{}", std::process::id()), &["--hosts", "1"]).unwrap();
    let state = world.state.clone();
    let namespaces = || -> Vec<String> {
        let prefix = Command::new("sh")
            .args(["-c", "printf %s \"$1\" | md5sum | cut -c1-6", "-", state.to_str().unwrap()])
            .output()
            .unwrap();
        let prefix = format!("drv{}-", text(&prefix.stdout).trim());
        let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
        let names = text(&list.stdout);
        let ours = names.lines().filter_map(|l| l.split_whitespace().next()).filter(|n| n.starts_with(&prefix));
        ours.map(str::to_owned).collect()
    };
    let before = namespaces();
    assert_eq!(before.len(), 3, "{before:?}: a, c and the switch");
    let vm = world.guest("left-behind");
    vm.define("a", &["boot=none", "mem=64"]);
    vm.start("a");
    std::mem::forget(vm);
    let mut in_client = world.client_command("sleep", &["1000"]).spawn().unwrap();
    let mut pids: Vec<String> = vec![in_client.id().to_string()];
    for namespace in &before {
        let out = Command::new("ip").args(["netns", "pids", namespace]).output().unwrap();
        pids.extend(text(&out.stdout).split_whitespace().map(str::to_owned));
    }
    assert!(pids.len() > 5, "sshd, libvirtd, QEMU, the collector: {pids:?}");

    // What the kernel does when this process ends: the pipe is closed.
    let World { life, mut reaper, .. } = world;
    drop(life);
    assert!(reaper.wait().unwrap().success());

    assert_eq!(namespaces(), Vec::<String>::new());
    assert!(!state.exists(), "{} is still there", state.display());
    in_client.wait().unwrap();
    let alive: Vec<_> = pids.iter().filter(|p| exists(p)).collect();
    assert!(alive.is_empty(), "processes {alive:?} are still there");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(state.to_str().unwrap()), "a mount is still there");
}
