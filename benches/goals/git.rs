//! A Git server on the loopback interface, and what asking it costs.

use crate::fleet;
use drover::source::git::{FetchLimits, GitAccess, Mirror, Reference};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A bare repository with a fleet, and a clone to commit in.
pub struct Repository {
    pub bare: PathBuf,
    work: PathBuf,
}

impl Repository {
    /// Commits a folder of manifests.
    pub fn new(folder: &Path, manifests: &Path) -> Self {
        let (bare, work) = (folder.join("fleet.git"), folder.join("work"));
        fs::create_dir_all(folder).unwrap();
        assert!(Command::new("cp").arg("-r").args([manifests, &work]).status().unwrap().success());
        git(folder, &["init", "-q", "--bare", "-b", "main", "fleet.git"]);
        git(&work, &["init", "-q", "-b", "main"]);
        let repository = Self { bare, work };
        repository.commit();
        git(&repository.work, &["push", "-q", "../fleet.git", "main"]);
        repository
    }

    fn commit(&self) -> String {
        git(&self.work, &["add", "-A"]);
        git(&self.work, &["commit", "-q", "-m", "a change"]);
        git(&self.work, &["rev-parse", "HEAD"])
    }

    /// Commits another host for a machine, and brings the commit to the server without moving the branch.
    pub fn move_machine(&self, i: usize, host: usize) -> String {
        fs::write(fleet::file_of(&self.work, i), fleet::machine(i, host)).unwrap();
        let commit = self.commit();
        git(&self.work, &["push", "-q", "-f", "../fleet.git", "main:next"]);
        commit
    }

    /// Moves the branch: the moment of the push.
    pub fn publish(&self, commit: &str) {
        git(&self.bare, &["update-ref", "refs/heads/main", commit]);
    }
}

/// Runs git with nobody's configuration.
pub fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "gc.auto=0"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Ended when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `git daemon` for a folder.
fn serve(folder: &Path) -> (Running, u16) {
    let program = Path::new(&git(folder, &["--exec-path"])).join("git-daemon");
    let port = free_port();
    let mut command = Command::new(program);
    command.args(["--listen=127.0.0.1", &format!("--port={port}"), "--reuseaddr", "--export-all"]);
    command.arg(format!("--base-path={}", folder.display())).stderr(Stdio::null());
    let server = Running(command.spawn().unwrap());
    let by = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < by, "git daemon does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    (server, port)
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Wall seconds of asking and of fetching, ours and git's, medians.
pub struct Asking {
    pub poll: f64,
    pub ls_remote: f64,
    pub fetch: f64,
    pub git_fetch: f64,
}

/// Measures a poll that finds nothing, and a fetch of one change, in turn with git.
pub fn asking(folder: &Path, manifests: &Path, rounds: usize) -> Asking {
    let repository = Repository::new(folder, manifests);
    let (_server, port) = serve(folder);
    let url = format!("git://127.0.0.1:{port}/fleet.git");
    let access = GitAccess { allow_insecure: true, ..GitAccess::default() };
    let mirror = Mirror::open(&url, &folder.join("mirror"), &access, FetchLimits::default()).unwrap();
    let main = Reference::Branch("main".into());
    let cancel = CancellationToken::new();
    mirror.fetch(&main, &cancel).unwrap();
    git(folder, &["clone", "-q", "--bare", &url, "clone.git"]);
    let clone = folder.join("clone.git");
    let (mut poll, mut ls_remote, mut fetch, mut git_fetch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let timed = |to: &mut Vec<f64>, work: &dyn Fn()| {
        let began = Instant::now();
        work();
        to.push(began.elapsed().as_secs_f64());
    };
    for round in 0..rounds {
        timed(&mut ls_remote, &|| drop(git(folder, &["ls-remote", &url, "refs/heads/main"])));
        timed(&mut poll, &|| drop(mirror.fetch(&main, &cancel).unwrap()));
        let commit = repository.move_machine(0, 1 + round % 2);
        repository.publish(&commit);
        timed(&mut git_fetch, &|| drop(git(&clone, &["fetch", "-q", &url, "+refs/heads/main:refs/heads/main"])));
        timed(&mut fetch, &|| assert_eq!(mirror.fetch(&main, &cancel).unwrap().commit, commit));
    }
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Asking { poll: middle(poll), ls_remote: middle(ls_remote), fetch: middle(fetch), git_fetch: middle(git_fetch) }
}
