//! One daemon for each state folder, and on one machine one for each repository. The locks belong to the process and go
//! with it, however it ends: there is no stale lock file to clean up.

use sha2::{Digest as _, Sha256};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon uses it.
    #[error("the state folder `{}` is in use by another Drover daemon (process {holder})", dir.display())]
    Held {
        /// The folder.
        dir: PathBuf,
        /// The other's process id, or `unknown`.
        holder: String,
    },
    /// Another daemon on this machine follows the same folder of the same repository.
    #[error("another Drover daemon on this machine follows {what}")]
    Followed {
        /// The repository, its reference and folder.
        what: String,
    },
    /// Others could write to it.
    #[error("the state folder `{}` can be written by other users (mode {mode:04o}): run `chmod 700` on it", dir.display())]
    Open {
        /// The folder.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The system said no.
    #[error("the state folder `{}` cannot be used: {why}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What it said.
        why: std::io::Error,
    },
}

impl LockError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Held { .. } => {
                "stop the other one; if this one follows another repository, give it its own folder with `--state`"
            }
            Self::Followed { .. } => "stop the other one: two daemons would do everything twice",
            Self::Open { .. } => "whoever writes there decides what Drover does",
            Self::Io { .. } => "name a folder that Drover can write to with `--state`",
        }
    }
}

/// The lock on what a daemon follows, held until it is dropped or the process ends. It holds on one machine (and in one
/// network namespace): an abstract socket, which has no file that could be left behind (unix(7)).
#[derive(Debug)]
pub struct FollowLock {
    _socket: UnixListener,
}

impl FollowLock {
    /// Takes the lock on a folder of a repository's branch or tag, or says that somebody has it.
    pub fn take(repository: &str, reference: &str, path: &str) -> Result<Self, LockError> {
        let what = match path {
            "" => format!("`{repository}` ({reference})"),
            path => format!("`{path}` of `{repository}` ({reference})"),
        };
        let name: String = Sha256::digest(format!("{repository}\0{reference}\0{path}"))
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let address = SocketAddr::from_abstract_name(format!("drover/{name}"));
        match address.and_then(|address| UnixListener::bind_addr(&address)) {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(LockError::Followed { what }),
            Err(why) => Err(LockError::Io { dir: PathBuf::from(what), why }),
        }
    }
}

/// The lock on a state folder, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

impl StateLock {
    /// Makes the folder (mode 0700) when it is not there, and takes its lock, or says who has it.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let io = |why| LockError::Io { dir: dir.to_owned(), why };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let mode = std::fs::metadata(dir).map_err(io)?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(LockError::Open { dir: dir.to_owned(), mode });
        }
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("daemon.lock"))
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Only for the message: the lock itself says that it is held.
                let _ = (&mut file).take(32).read_to_string(&mut text);
                let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
                let holder = if digits.is_empty() { "unknown".into() } else { digits };
                return Err(LockError::Held { dir: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(why)) => return Err(io(why)),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { file })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // The name in it is only for messages; the lock ends with the file.
        let _ = self.file.set_len(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_daemon_is_told_who_holds_the_folder_and_may_have_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = StateLock::take(&state).unwrap();
        let error = StateLock::take(&state).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        StateLock::take(&state).unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_folder_of_a_repository_has_one_daemon() {
        let repository = format!("/srv/fleet-{}.git", std::process::id());
        let first = FollowLock::take(&repository, "main", "").unwrap();
        let error = FollowLock::take(&repository, "main", "").unwrap_err();
        assert!(error.to_string().contains(&repository), "{error}");
        FollowLock::take(&repository, "main", "site-b").unwrap();
        drop(first);
        FollowLock::take(&repository, "main", "").unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(StateLock::take(dir.path()), Err(LockError::Open { .. })));
    }
}
