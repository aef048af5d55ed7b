//! Which repository: a URL as the operator writes it, taken apart and checked before anything is opened.

use super::error::{GitError, GitErrorKind, quoted};
use std::fmt;
use std::path::PathBuf;

/// A repository's address. Its `Display` has no credentials, because a URL with credentials is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitUrl {
    /// A folder on this machine: a bare repository, or a work tree.
    Local(PathBuf),
    /// `ssh://[user@]host[:port]/path` or `[user@]host:path`.
    Ssh(SshUrl),
    /// `https://host[:port]/path`.
    Https(WebUrl),
    /// `git://` or `http://`: only where the operator allows it.
    Insecure(WebUrl),
}

/// An SSH address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshUrl {
    /// Login name; OpenSSH's default where none is given.
    pub user: Option<String>,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, where it is not 22.
    pub port: Option<u16>,
    /// Path on the server; relative to the home folder when it does not begin with `/`.
    pub path: String,
}

/// An address of a TCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl {
    /// The URL as given, without credentials.
    pub url: String,
    /// `https`, `http` or `git`.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
}

impl GitUrl {
    /// Takes a URL apart. Refuses everything but the forms above: `ext::` and other remote helpers, a leading `-`,
    /// control characters, credentials, unknown schemes, and `git://` or `http://` unless `allow_insecure`.
    pub fn parse(text: &str, allow_insecure: bool) -> Result<Self, GitError> {
        let refuse = |why: &str| GitError::new(GitErrorKind::Refused, format!("the repository address {why}"));
        if text.trim().is_empty() {
            return Err(refuse("is empty").hint("give a path, file://, ssh:// or https:// URL"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() && c != ' ') {
            return Err(refuse("has a line end or another control character in it"));
        }
        if text.starts_with('-') {
            return Err(refuse("begins with `-`").hint("write a path as `./-name`"));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Self::with_scheme(text, scheme, rest, allow_insecure);
        }
        if let Some((helper, _)) = text.split_once("::")
            && helper.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            return Err(refuse(&format!("uses the remote helper `{helper}::`, which can run any program"))
                .hint("use a path, file://, ssh:// or https:// URL"));
        }
        match text.split_once(':') {
            Some((host, path)) if !host.contains('/') => Self::scp_like(host, path),
            _ => Ok(Self::Local(PathBuf::from(text))),
        }
    }

    fn with_scheme(text: &str, scheme: &str, rest: &str, allow_insecure: bool) -> Result<Self, GitError> {
        let refuse = |why: String| GitError::new(GitErrorKind::Refused, format!("the repository address {why}"));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                if !authority.is_empty() && authority != "localhost" {
                    return Err(refuse(format!("names the host `{}` in a file:// URL", quoted(host_port)))
                        .hint("write `file:///path` with three slashes"));
                }
                let path =
                    decode(path).ok_or_else(|| refuse("has a `%` that is not followed by two hex digits".into()))?;
                Ok(Self::Local(PathBuf::from(path)))
            }
            "ssh" | "git+ssh" | "ssh+git" => {
                if userinfo.is_some_and(|u| u.contains(':')) {
                    return Err(refuse(format!(
                        "has a password in it (`ssh://<user>:<password>@{}…`)",
                        quoted(host_port)
                    ))
                    .hint("use a key file (`git.ssh-key`) or an agent"));
                }
                let (host, port) =
                    split_port(host_port).ok_or_else(|| refuse("has a port that is not a number".into()))?;
                let path =
                    decode(path).ok_or_else(|| refuse("has a `%` that is not followed by two hex digits".into()))?;
                // `/~user/…` and `/~/…` are relative to a home folder, as in git.
                let path = match path.strip_prefix('/') {
                    Some(home) if home.starts_with('~') => home.to_owned(),
                    _ => path,
                };
                Self::ssh(userinfo.map(str::to_owned), host, port, path)
            }
            web @ ("https" | "http" | "git") => {
                if userinfo.is_some() {
                    return Err(refuse(format!("has credentials in it (`{web}://<credentials>@{}…`)", quoted(host_port)))
                        .hint("put the token into a file that only Drover can read and name it as `git.token-file`, or set DROVER_GIT_TOKEN"));
                }
                if host_port.is_empty() || host_port.starts_with('-') || split_port(host_port).is_none() {
                    return Err(refuse(format!("has no usable host (`{}`)", quoted(host_port))));
                }
                if path.len() < 2 {
                    return Err(
                        refuse("has no path".into()).hint(format!("write `{web}://{host_port}/owner/repository.git`"))
                    );
                }
                let url = WebUrl {
                    url: format!("{web}://{host_port}{path}"),
                    scheme: web.into(),
                    authority: host_port.into(),
                };
                match web {
                    "https" => Ok(Self::Https(url)),
                    _ if allow_insecure => Ok(Self::Insecure(url)),
                    _ => Err(refuse(format!("uses {web}://, which anyone on the network can read and change")).hint(
                        "use https:// or ssh://, or set `git.allow-insecure = true` in Drover's own configuration",
                    )),
                }
            }
            other => Err(refuse(format!(
                "has the scheme `{}`, which Drover does not speak (in `{}`)",
                quoted(other),
                safe(text)
            ))
            .hint("use a path, file://, ssh:// or https:// URL")),
        }
    }

    fn scp_like(host: &str, path: &str) -> Result<Self, GitError> {
        let (user, host) = match host.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, host),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self::ssh(user, host, None, path.to_owned())
    }

    fn ssh(user: Option<String>, host: String, port: Option<u16>, path: String) -> Result<Self, GitError> {
        let refuse = |why: &str| {
            GitError::new(GitErrorKind::Refused, format!("the repository address {why}"))
                .hint("write `ssh://user@host:port/path` or `user@host:path`")
        };
        // OpenSSH and the shell on the other side must see names, never options.
        let plain = |s: &str| {
            !s.is_empty() && !s.starts_with('-') && s.chars().all(|c| c.is_alphanumeric() || "._-:%".contains(c))
        };
        if !plain(&host) {
            return Err(refuse("has no usable host name"));
        }
        if user.as_deref().is_some_and(|u| !plain(u)) {
            return Err(refuse("has a user name that cannot be used"));
        }
        if path.is_empty() || path == "/" || path.starts_with('-') {
            return Err(refuse("has no usable path"));
        }
        Ok(Self::Ssh(SshUrl { user, host, port, path }))
    }

    /// The folder, when it is on this machine.
    pub fn local(&self) -> Option<&std::path::Path> {
        match self {
            Self::Local(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Ssh(ssh) => {
                let relative = !ssh.path.starts_with('/');
                let scp_like = relative && ssh.port.is_none();
                if !scp_like {
                    f.write_str("ssh://")?;
                }
                if let Some(user) = &ssh.user {
                    write!(f, "{user}@")?;
                }
                if ssh.host.contains(':') {
                    write!(f, "[{}]", ssh.host)?
                } else {
                    f.write_str(&ssh.host)?
                }
                if let Some(port) = ssh.port {
                    write!(f, ":{port}")?;
                }
                match (scp_like, relative) {
                    (true, _) => write!(f, ":{}", ssh.path),
                    (false, true) => write!(f, "/{}", ssh.path),
                    (false, false) => f.write_str(&ssh.path),
                }
            }
            Self::Https(web) | Self::Insecure(web) => f.write_str(&web.url),
        }
    }
}

/// A URL for an error message: what may be credentials is left out.
fn safe(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{}", quoted(rest)),
        None => quoted(text),
    }
}

/// Host without brackets, and port.
fn split_port(text: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host.into(), Some(port.parse().ok()?))),
            None if after.is_empty() => Some((host.into(), None)),
            None => None,
        };
    }
    match text.rsplit_once(':') {
        Some((host, "")) => Some((host.into(), None)),
        Some((host, port)) => Some((host.into(), Some(port.parse().ok()?))),
        None => Some((text.into(), None)),
    }
}

/// Percent-decoding of a URL's path.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&b, after)) = rest.split_first() {
        if b == b'%' {
            let hex = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok().filter(|&b| b != 0 && b != b'\n')?);
            rest = &after[2..];
        } else {
            bytes.push(b);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        GitUrl::parse(text, false).unwrap().to_string()
    }

    #[test]
    fn every_form_that_people_write_is_understood() {
        assert_eq!(GitUrl::parse("/srv/git/fleet.git", false).unwrap(), GitUrl::Local("/srv/git/fleet.git".into()));
        assert_eq!(GitUrl::parse("file:///srv/a%20b.git", false).unwrap(), GitUrl::Local("/srv/a b.git".into()));
        assert_eq!(GitUrl::parse("./odd:name", false).unwrap(), GitUrl::Local("./odd:name".into()));
        assert_eq!(show("git@github.com:acme/fleet.git"), "git@github.com:acme/fleet.git");
        assert_eq!(show("ssh://git@[::1]:2222/srv/f.git"), "ssh://git@[::1]:2222/srv/f.git");
        assert_eq!(show("ssh://h:22/~joe/f.git"), "ssh://h:22/~joe/f.git");
        assert_eq!(show("https://example.com:8443/a/b.git"), "https://example.com:8443/a/b.git");
        assert!(GitUrl::parse("git://h/x.git", true).is_ok());
    }

    #[test]
    fn what_could_run_a_program_or_leak_is_refused() {
        for bad in [
            "",
            "ext::sh -c touch% /tmp/x",
            "fd::17",
            "-oProxyCommand=x",
            "https://h/x\n",
            "ssh://-oProxyCommand=x/y",
            "-x@h:y",
            "-h:y",
            "h:-upload-pack",
            "ssh://a b/x",
            "ftp://h/x",
            "git://h/x",
            "http://h/x",
            "file://server/share",
            "https://h",
            "https:///x",
            "ssh://h:port/x",
            "ssh://h/%zz",
        ] {
            let error = GitUrl::parse(bad, false).unwrap_err();
            assert_eq!(error.kind, GitErrorKind::Refused, "{bad}");
        }
    }

    #[test]
    fn a_url_with_credentials_is_refused_without_repeating_them() {
        for bad in ["https://joe:hunter2@h/x", "https://hunter2@h/x", "ssh://joe:hunter2@h/x", "ftp://joe:hunter2@h/x"]
        {
            let error = GitUrl::parse(bad, true).unwrap_err();
            assert!(!error.full().contains("hunter2") && !error.full().contains("joe"), "{}", error.full());
        }
        assert!(GitUrl::parse("https://t@h/x", false).unwrap_err().full().contains("git.token-file"));
    }
}
