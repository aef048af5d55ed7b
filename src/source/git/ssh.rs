//! `ssh://` through OpenSSH's client, as a transport of libgit2.
//!
//! Why not the SSH library that libgit2 can be built with: it chooses the kind of host key without regard for the known
//! hosts that Drover was given (a server that is known by its Ed25519 key is then refused for its ECDSA key), knows no
//! certificate authorities, revoked keys or hardware keys, and a connection cannot be cut short. OpenSSH checks the key as
//! administrators expect, and a process can be ended at its deadline.
//!
//! libgit2 makes transports through a process-wide factory; which connection it is to make is passed through a variable
//! of the thread that fetches.

use super::access::SshAccess;
use super::error::{GitError, GitErrorKind, quoted};
use super::url::SshUrl;
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

thread_local! {
    static CURRENT: RefCell<Option<Arc<SshSession>>> = const { RefCell::new(None) };
}

/// Most of the client's messages that are kept.
const MAX_MESSAGES: usize = 16 << 10;

/// One connection to a server, from before it is made until what it said has been understood.
pub(super) struct SshSession {
    access: SshAccess,
    url: SshUrl,
    client: Mutex<Option<Child>>,
    messages: Arc<Mutex<String>>,
    ended: Mutex<bool>,
}

/// While it lives, `ssh://` transports of this thread use its session.
pub(super) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|c| c.take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SshSession {
    pub(super) fn new(access: SshAccess, url: SshUrl) -> Arc<Self> {
        Arc::new(Self { access, url, client: Mutex::default(), messages: Arc::default(), ended: Mutex::new(false) })
    }

    /// Makes this the session of the current thread.
    pub(super) fn enter(self: &Arc<Self>) -> Entered {
        CURRENT.with(|c| c.replace(Some(self.clone())));
        Entered(())
    }

    /// Ends the client, if it runs; a reader then sees the end of the stream. May be called from any thread, and again.
    pub(super) fn end(&self) {
        *lock(&self.ended) = true;
        if let Some(mut child) = lock(&self.client).take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The command. Its arguments come from the operator's configuration and from a checked address only.
    fn command(&self) -> Result<Command, GitError> {
        let mut options: Vec<String> = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "UpdateHostKeys=no",
            "VerifyHostKeyDNS=no",
            "PreferredAuthentications=publickey",
            "PasswordAuthentication=no",
            "KbdInteractiveAuthentication=no",
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "ControlMaster=no",
            "ControlPath=none",
            "RequestTTY=no",
            "ConnectTimeout=10",
            "ServerAliveInterval=10",
            "ServerAliveCountMax=3",
            "LogLevel=INFO",
        ]
        .map(str::to_owned)
        .into();
        if let Some(file) = &self.access.known_hosts {
            options.push(format!("UserKnownHostsFile={}", config_path(file)?));
            options.push("GlobalKnownHostsFile=none".into());
        }
        match &self.access.key_file {
            Some(file) => {
                options.push(format!("IdentityFile={}", config_path(file)?));
                options.push("IdentitiesOnly=yes".into());
            }
            None => options.push("IdentityFile=none".into()),
        }
        if !self.access.agent {
            options.push("IdentityAgent=none".into());
        }
        let mut command = Command::new("ssh");
        command.arg("-F").arg("none").arg("-T");
        for option in &options {
            command.arg("-o").arg(option);
        }
        if let Some(user) = &self.url.user {
            command.arg("-l").arg(user);
        }
        if let Some(port) = self.url.port {
            command.arg("-p").arg(port.to_string());
        }
        command.arg("--").arg(&self.url.host).arg(format!("git-upload-pack {}", shell_quote(&self.url.path)));
        command.env_clear().env("LC_ALL", "C");
        for name in ["PATH", "HOME", "USER", "LOGNAME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if self.access.agent
            && let Some(socket) = std::env::var_os("SSH_AUTH_SOCK")
        {
            command.env("SSH_AUTH_SOCK", socket);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    fn start(&self) -> Result<Stream, GitError> {
        let mut client = lock(&self.client);
        if *lock(&self.ended) {
            return Err(GitError::new(GitErrorKind::Cancelled, "the connection was ended before it was made"));
        }
        let mut child = self.command()?.spawn().map_err(|e| {
            GitError::new(GitErrorKind::Other, format!("the SSH client `ssh` cannot be started: {e}"))
                .hint("install OpenSSH's client (Debian: openssh-client)")
        })?;
        let (Some(to), Some(from), Some(err)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(GitError::new(GitErrorKind::Other, "the SSH client has no pipes"));
        };
        let messages = self.messages.clone();
        let reader = std::thread::Builder::new().name("ssh-messages".into()).spawn(move || {
            let mut buffer = [0; 1024];
            let mut err = err;
            while let Ok(n @ 1..) = err.read(&mut buffer) {
                let mut text = lock(&messages);
                if text.len() < MAX_MESSAGES {
                    text.push_str(&String::from_utf8_lossy(&buffer[..n]));
                }
            }
        });
        let reader =
            reader.map_err(|e| GitError::new(GitErrorKind::Other, format!("no thread for the SSH client: {e}")))?;
        *client = Some(child);
        Ok(Stream { to, from, reader: Some(reader) })
    }

    /// What the client said about a connection that did not work, if it says more than libgit2 knows.
    pub(super) fn failure(&self) -> Option<GitError> {
        self.end();
        let said = lock(&self.messages).clone();
        understand(&said, &self.access, &self.url)
    }
}

/// Turns OpenSSH's messages into an error that tells what to do.
fn understand(said: &str, access: &SshAccess, url: &SshUrl) -> Option<GitError> {
    let server = match url.port {
        Some(port) => format!("[{}]:{port}", url.host),
        None => url.host.clone(),
    };
    let file = access.known_hosts.as_ref().map_or("~/.ssh/known_hosts".into(), |f| f.display().to_string());
    let port = url.port.map(|p| format!("-p {p} ")).unwrap_or_default();
    if said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") || said.contains("REVOKED HOST KEY") {
        let fingerprint = said
            .split_whitespace()
            .find(|w| w.starts_with("SHA256:"))
            .map(|f| format!(" (it showed {})", f.trim_end_matches('.')))
            .unwrap_or_default();
        return Some(
            GitError::new(
                GitErrorKind::HostKey,
                format!("the SSH server `{server}` has another key{fingerprint} than `{file}` says: refused"),
            )
            .hint(format!(
                "either somebody is between you and the server, or its key was renewed: ask its administrator for the new \
                 fingerprint; only then remove the old line (`ssh-keygen -R '{server}' -f {file}`) and add the new one"
            )),
        );
    }
    if said.contains("Host key verification failed") || said.contains("host key is known for") {
        return Some(
            GitError::new(GitErrorKind::HostKey, format!("the key of the SSH server `{server}` is not in `{file}`: refused")).hint(
                format!(
                    "get it with `ssh-keyscan {port}{}`, compare its fingerprint (`ssh-keygen -lf -`) with what the server's \
                     administrator publishes, and append it to `{file}`",
                    url.host
                ),
            ),
        );
    }
    if said.contains("Permission denied")
        || said.contains("Too many authentication failures")
        || said.contains("bad permissions")
    {
        let who = url.user.as_deref().unwrap_or("the login name");
        let with = match (&access.key_file, access.agent) {
            (Some(key), _) => format!("the key `{}`", key.display()),
            (None, true) => "the agent's keys".into(),
            (None, false) => "no key at all".into(),
        };
        let error =
            GitError::new(GitErrorKind::Auth, format!("the SSH server `{server}` does not accept {with} for `{who}`"));
        return Some(if said.contains("bad permissions") {
            error.hint("the key file can be read by others: run `chmod 600` on it")
        } else {
            error.hint("give the server the public key as a read-only deploy key, or name another with `git.ssh-key`")
        });
    }
    for word in
        ["Could not resolve hostname", "Connection refused", "timed out", "No route to host", "Network is unreachable"]
    {
        if said.contains(word) {
            return Some(GitError::new(
                GitErrorKind::Unreachable,
                format!("the SSH server `{server}` cannot be reached: {}", quoted(last_line(said))),
            ));
        }
    }
    for word in ["does not appear to be a git repository", "not found", "does not exist", "No such file"] {
        if said.contains(word) {
            return Some(
                GitError::new(
                    GitErrorKind::NoRepository,
                    format!("the server `{server}` has no repository `{}`: {}", url.path, quoted(last_line(said))),
                )
                .hint("check the path, and that the key may read this repository"),
            );
        }
    }
    let said = said.trim();
    (!said.is_empty()).then(|| {
        GitError::new(GitErrorKind::Other, format!("the SSH connection to `{server}` failed: {}", quoted(said)))
    })
}

fn last_line(text: &str) -> &str {
    text.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or("it said nothing")
}

/// A path as a value in OpenSSH's configuration language: quoted, with `%` taken literally.
fn config_path(path: &Path) -> Result<String, GitError> {
    let text = path.to_str().filter(|t| !t.contains(['"', '\n', '$'])).ok_or_else(|| {
        GitError::new(GitErrorKind::Refused, format!("the path `{}` cannot be given to OpenSSH", path.display()))
            .hint("use a path without quotes, `$` and line ends")
    })?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

/// A word for the shell on the other side, as git quotes it.
fn shell_quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('!', r"'\!'"))
}

/// The factory that libgit2 calls for `ssh://`.
pub(super) fn transport(remote: &git2::Remote<'_>) -> Result<Transport, git2::Error> {
    let session = CURRENT
        .with(|c| c.borrow().clone())
        .ok_or_else(|| git2::Error::from_str("no SSH session was prepared for this remote"))?;
    Transport::smart(remote, false, Subtransport(session))
}

struct Subtransport(Arc<SshSession>);

impl SmartSubtransport for Subtransport {
    fn action(&self, _url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match service {
            Service::UploadPackLs | Service::UploadPack => {
                let stream = self.0.start().map_err(|e| {
                    lock(&self.0.messages).push_str(&e.full());
                    git2::Error::from_str(&e.message)
                })?;
                Ok(Box::new(stream))
            }
            Service::ReceivePackLs | Service::ReceivePack => Err(git2::Error::from_str("Drover does not push")),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

struct Stream {
    to: ChildStdin,
    from: ChildStdout,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        // At the end of the stream, wait until what the client said about it has been read: it is the better message.
        if n == 0
            && let Some(reader) = self.reader.take()
        {
            let by = std::time::Instant::now() + Duration::from_secs(2);
            while !reader.is_finished() && std::time::Instant::now() < by {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(n)
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.to.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> SshUrl {
        SshUrl {
            user: Some("git".into()),
            host: "git.example.com".into(),
            port: Some(2222),
            path: "/srv/it's.git".into(),
        }
    }

    #[test]
    fn the_client_gets_the_given_settings_and_no_others() {
        let access = SshAccess {
            key_file: Some("/etc/drover/id 100%".into()),
            agent: false,
            known_hosts: Some("/etc/drover/known".into()),
        };
        let session = SshSession::new(access, url());
        let command = session.command().unwrap();
        let args: Vec<_> = command.get_args().map(|a| a.to_str().unwrap()).collect();
        for expected in [
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "UserKnownHostsFile=\"/etc/drover/known\"",
            "GlobalKnownHostsFile=none",
            "IdentityFile=\"/etc/drover/id 100%%\"",
            "IdentityAgent=none",
        ] {
            assert!(args.contains(&expected), "{expected} in {args:?}");
        }
        assert_eq!(&args[..2], ["-F", "none"]);
        assert_eq!(&args[args.len() - 3..], ["--", "git.example.com", r"git-upload-pack '/srv/it'\''s.git'"]);
    }

    #[test]
    fn messages_say_what_to_do() {
        let access = SshAccess { key_file: None, agent: true, known_hosts: Some("/k".into()) };
        let changed = understand(
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nThe fingerprint is\nSHA256:abc.\nHost key verification failed.",
            &access,
            &url(),
        )
        .unwrap();
        assert_eq!(changed.kind, GitErrorKind::HostKey);
        assert!(
            changed.full().contains("SHA256:abc)")
                && changed.full().contains("ssh-keygen -R '[git.example.com]:2222' -f /k")
        );
        let unknown =
            understand("No ED25519 host key is known for x.\nHost key verification failed.", &access, &url()).unwrap();
        assert!(unknown.full().contains("ssh-keyscan -p 2222 git.example.com"), "{}", unknown.full());
        let denied = understand("git@x: Permission denied (publickey).", &access, &url()).unwrap();
        assert_eq!(denied.kind, GitErrorKind::Auth);
        assert!(understand("", &access, &url()).is_none());
    }
}
