//! Real Git servers on the loopback interface, each with its own port, keys and folder, ended when dropped.

use drover::source::git::{FetchLimits, GitAccess, GitError, Mirror, SshAccess};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs git without anybody's configuration and gives its output.
pub fn git(dir: &Path, args: &[&str]) -> String {
    git_with_input(dir, args, b"")
}

pub fn git_with_input(dir: &Path, args: &[&str], input: &[u8]) -> String {
    use std::io::Write;
    let mut child = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "t"), ("GIT_AUTHOR_EMAIL", "t@example.com")])
        .envs([("GIT_COMMITTER_NAME", "t"), ("GIT_COMMITTER_EMAIL", "t@example.com")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits for a state, at most so long.
pub fn wait_for(what: &str, mut state: impl FnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(20);
    while !state() {
        assert!(Instant::now() < by, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A bare repository and a clone to push from.
pub struct Origin {
    pub dir: tempfile::TempDir,
}

impl Origin {
    /// An empty repository.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A server that runs as another user could not enter it otherwise.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        git(dir.path(), &["init", "-q", "--bare", "-b", "main", "fleet.git"]);
        git(dir.path(), &["init", "-q", "-b", "main", "work"]);
        git(&dir.path().join("work"), &["remote", "add", "origin", "../fleet.git"]);
        Self { dir }
    }

    /// A repository with one commit.
    pub fn new() -> Self {
        let origin = Self::empty();
        origin.push("a.yaml", "one");
        origin
    }

    pub fn bare(&self) -> PathBuf {
        self.dir.path().join("fleet.git")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Commits a file, pushes to `main`, and gives the commit.
    pub fn push(&self, path: &str, content: &str) -> String {
        self.commit(path, content);
        git(&self.work(), &["push", "-q", "-f", "origin", "HEAD:main"]);
        git(&self.work(), &["rev-parse", "HEAD"])
    }

    pub fn commit(&self, path: &str, content: &str) {
        let file = self.work().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        git(&self.work(), &["add", "-A"]);
        git(&self.work(), &["commit", "-q", "-m", path]);
    }

    /// Replaces the last commit by another.
    pub fn force_push(&self, content: &str) -> String {
        std::fs::write(self.work().join("a.yaml"), content).unwrap();
        git(&self.work(), &["commit", "-q", "-a", "--amend", "-m", "amended"]);
        git(&self.work(), &["push", "-q", "-f", "origin", "HEAD:main"]);
        git(&self.work(), &["rev-parse", "HEAD"])
    }
}

/// A child process that ends with the test.
pub struct Server {
    child: Child,
    pub port: u16,
    // Keys and configuration.
    _dir: Option<tempfile::TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for_port(port: u16, child: &mut Child) {
    wait_for("the server listens", || {
        assert!(child.try_wait().unwrap().is_none(), "the server ended at once");
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

/// `git daemon`.
pub fn git_daemon(root: &Path) -> Server {
    let program = Path::new(&git(root, &["--exec-path"])).join("git-daemon");
    let port = free_port();
    let mut child = Command::new(program)
        .args(["--listen=127.0.0.1", &format!("--port={port}"), "--reuseaddr", "--export-all"])
        .arg(format!("--base-path={}", root.display()))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_port(port, &mut child);
    Server { child, port, _dir: None }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// git-http-backend behind TLS with an authority of its own.
pub struct Https {
    pub server: Server,
    pub dir: PathBuf,
}

impl Https {
    pub fn start(root: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=test authority",
                "-keyout",
                &at("ca.key"),
                "-out",
                &at("ca.pem"),
            ],
        );
        run(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                "/CN=localhost",
                "-keyout",
                &at("server.key"),
                "-out",
                &at("server.csr"),
            ],
        );
        std::fs::write(at("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &at("server.csr"),
                "-CA",
                &at("ca.pem"),
                "-CAkey",
                &at("ca.key"),
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                &at("ext"),
                "-out",
                &at("server.pem"),
            ],
        );
        std::fs::write(at("token"), "").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/git/https_server.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args([&root.display().to_string(), &at("server.pem"), &at("server.key"), &at("token")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        let path = dir.path().to_owned();
        Self { server: Server { child, port, _dir: Some(dir) }, dir: path }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.server.port)
    }

    /// What the server asks for from now on; nothing when empty.
    pub fn require(&self, token: &str) {
        std::fs::write(self.dir.join("token"), token).unwrap();
    }

    /// Trusts the server's authority.
    pub fn access(&self) -> GitAccess {
        GitAccess { ca_file: Some(self.dir.join("ca.pem")), ..GitAccess::default() }
    }
}

/// An SSH server of the test's own: port, host keys, and one key that may log in.
pub struct Sshd {
    pub server: Server,
    pub dir: PathBuf,
    pub user: String,
}

impl Sshd {
    /// `None`, after saying so, where there is no SSH server installed.
    pub fn start() -> Option<Self> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|p| Path::new(p).exists());
        let Some(program) = program else {
            let required = std::env::var_os("DROVER_REQUIRE_LAB").is_some();
            assert!(!required, "sshd is missing: install openssh-server");
            println!("skipped: there is no sshd; install openssh-server");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for (name, kind) in
            [("host_ed25519", "ed25519"), ("host_ecdsa", "ecdsa"), ("user", "ed25519"), ("stranger", "ed25519")]
        {
            run("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", "test", "-f", &at(name)]);
        }
        std::fs::copy(at("user.pub"), at("authorized")).unwrap();
        let port = free_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n",
            at("host_ed25519"),
            at("host_ecdsa"),
            at("authorized")
        );
        std::fs::write(at("config"), config).unwrap();
        // Debian's sshd wants this folder when it runs as root; its own service makes it at boot.
        let _ = std::fs::create_dir_all("/run/sshd");
        let mut child =
            Command::new(program).args(["-D", "-e", "-f", &at("config")]).stderr(Stdio::null()).spawn().unwrap();
        wait_for_port(port, &mut child);
        let user = Command::new("id").arg("-un").output().unwrap();
        let path = dir.path().to_owned();
        let sshd = Self {
            server: Server { child, port, _dir: Some(dir) },
            dir: path,
            user: String::from_utf8(user.stdout).unwrap().trim().to_owned(),
        };
        sshd.know("host_ed25519.pub");
        Some(sshd)
    }

    pub fn url(&self, path: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.server.port, path.display())
    }

    /// Writes a known_hosts file with exactly this key.
    pub fn know(&self, public_key: &str) {
        let key = std::fs::read_to_string(self.dir.join(public_key)).unwrap();
        std::fs::write(self.dir.join("known"), format!("[127.0.0.1]:{} {key}", self.server.port)).unwrap();
    }

    pub fn access(&self) -> GitAccess {
        let ssh = SshAccess {
            key_file: Some(self.dir.join("user")),
            agent: false,
            known_hosts: Some(self.dir.join("known")),
        };
        GitAccess { ssh, ..GitAccess::default() }
    }
}

/// A mirror in a folder of its own.
pub struct Client {
    pub dir: tempfile::TempDir,
    pub mirror: Mirror,
}

impl Client {
    pub fn new(url: &str, access: &GitAccess) -> Self {
        Self::with_limits(url, access, FetchLimits { timeout: Duration::from_secs(30), ..FetchLimits::default() })
            .unwrap()
    }

    pub fn with_limits(url: &str, access: &GitAccess, limits: FetchLimits) -> Result<Self, GitError> {
        let dir = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(url, &dir.path().join("git"), access, limits)?;
        Ok(Self { dir, mirror })
    }
}
