//! With which powers Drover talks to a Git server. All of it is the operator's word; nothing comes from a repository.

use crate::source::SecretSource;
use std::path::PathBuf;

/// Credentials, trust and permissions for one remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitAccess {
    /// For `ssh://` and `user@host:path`.
    pub ssh: SshAccess,
    /// Token or password for `https://`. It is sent only to the host of the URL, and only over TLS.
    pub token: Option<SecretSource>,
    /// User name that goes with the token. GitHub, GitLab and Gitea take any; Bitbucket wants `x-token-auth`.
    pub username: String,
    /// PEM file with certificate authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy for `https://`. The environment's proxy variables have no effect.
    pub proxy: Option<String>,
    /// Whether `git://` and `http://`, which anyone on the network can read and change, may be used.
    pub allow_insecure: bool,
}

impl Default for GitAccess {
    fn default() -> Self {
        Self {
            ssh: SshAccess::default(),
            token: None,
            username: "git".into(),
            ca_file: None,
            proxy: None,
            allow_insecure: false,
        }
    }
}

/// How an SSH server is talked to: through OpenSSH's client, with nothing but these settings (no `~/.ssh/config`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAccess {
    /// Private key.
    pub key_file: Option<PathBuf>,
    /// Whether the keys of the agent at `SSH_AUTH_SOCK` may be used.
    pub agent: bool,
    /// File with the keys of known servers; OpenSSH's own files where none is given. A server that is not in it, or has
    /// another key, is refused: there is no switch to turn that off.
    pub known_hosts: Option<PathBuf>,
}

impl Default for SshAccess {
    fn default() -> Self {
        Self { key_file: None, agent: true, known_hosts: None }
    }
}
