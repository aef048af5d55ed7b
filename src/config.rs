//! The operator's configuration: defaults, TOML file, environment, flags, in this order; later ones win.
//!
//! One name for each setting in all places: `git.token-file` in the file is `DROVER_GIT_TOKEN_FILE` in the environment
//! (the flags are the command line's matter). Unknown keys of the file are errors with their line. Credentials stand in
//! files of their own or in the environment, never in the configuration file.
//!
//! It says with which *powers* Drover acts; what it does is said by Git alone.

mod layer;

pub use layer::{GitLayer, KubernetesLayer, Layer, LibvirtLayer, LogLayer, SecretsLayer, SimLayer, WebhookLayer};

use crate::model::{Secret, Span};
use crate::source::SecretSource;
use crate::source::git::{FetchLimits, GitAccess, Reference, SshAccess};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct ConfigError {
    /// `file:line:column`, the environment variable, or the setting.
    pub place: String,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ConfigError {
    fn new(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: place.into(), why: why.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The repository that the daemon follows: path or URL.
    pub repo: Option<String>,
    /// What of it is followed.
    pub reference: Reference,
    /// Folder in the repository that holds the manifests; empty for all.
    pub path: String,
    /// Folder for the journal, the mirror and the lock.
    pub state_dir: PathBuf,
    /// Where health, metrics and the API are served; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// How often the repository is asked for news when nothing else tells of them.
    pub poll_interval: Duration,
    /// By which part of itself each poll interval is lengthened or shortened at random, 0 to 1.
    pub poll_jitter: f64,
    /// How often everything is observed and compared without a new commit or an event of a host.
    pub drift_interval: Duration,
    /// How long running steps may go on after SIGTERM.
    pub grace_time: Duration,
    /// What webhooks must be signed with; without one they are refused.
    pub webhook_secret: Option<SecretSource>,
    /// How Git servers are talked to.
    pub git: GitAccess,
    /// Limits of a fetch.
    pub fetch: FetchLimits,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How libvirt hosts may be talked to.
    pub libvirt: LibvirtPowers,
    /// What kubeconfigs may make Drover do.
    pub kubernetes: KubernetesPowers,
    /// Which secrets manifests may name.
    pub secrets: SecretPowers,
    /// Where simulated hosts keep their state between runs; in memory only where not given.
    pub sim_state: Option<PathBuf>,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The form.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `drover=debug,warn`.
    pub level: Option<String>,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is not a log format; write `human` or `json`")),
        }
    }
}

/// What a Host's `uri` may make Drover do. The repository says which hosts; the operator says with which powers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibvirtPowers {
    /// Private key for `qemu+ssh://`.
    pub ssh_key: Option<PathBuf>,
    /// Keys of known servers for `qemu+ssh://`.
    pub known_hosts: Option<PathBuf>,
    /// Parameters of libvirt's URIs (libvirt.org/uri.html) by name, added to every `qemu+ssh://` and `qemu+tls://`
    /// connection. A manifest can set none.
    pub uri_parameters: BTreeMap<String, String>,
}

/// What a kubeconfig may make Drover do: each is off unless the operator says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KubernetesPowers {
    /// Run programs for its credentials (`exec`).
    pub allow_exec: bool,
    /// Name files on Drover's machine.
    pub allow_files: bool,
    /// Leave the server's certificate unchecked, or speak plain HTTP.
    pub allow_insecure: bool,
}

/// What a `secretRef` may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretPowers {
    /// Environment variables: names, or beginnings of names followed by `*`.
    pub env: Vec<String>,
    /// Folders: files in them and below.
    pub folders: Vec<PathBuf>,
    /// Clusters whose Secrets may be read, or `*`.
    pub clusters: Vec<String>,
}

impl SecretPowers {
    fn from_layer(layer: SecretsLayer) -> Result<Self, ConfigError> {
        let powers = Self {
            env: layer.env.unwrap_or_else(|| vec!["DROVER_SECRET_*".into()]),
            folders: layer.folders.unwrap_or_else(|| vec!["/etc/drover/secrets".into()]),
            clusters: layer.clusters.unwrap_or_default(),
        };
        if let Some(folder) = powers.folders.iter().find(|f| !f.is_absolute()) {
            let why = format!("`{}` is not an absolute path", folder.display());
            return Err(ConfigError::new("secrets.folders", why).hint("write it like `/etc/drover/secrets`"));
        }
        if let Some(pattern) = powers.env.iter().find(|p| p.trim_end_matches('*').contains('*')) {
            let why = format!("`{pattern}` has a `*` that is not at its end");
            return Err(ConfigError::new("secrets.env", why).hint("write a name, or the beginning of names and a `*`"));
        }
        Ok(powers)
    }
}

impl Config {
    /// Reads file and environment and puts `flags` over them. A file that is named must be there; where none is named,
    /// none is read.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        flags: Layer,
    ) -> Result<Self, ConfigError> {
        let file = file.map(Layer::from_file).transpose()?.unwrap_or_default();
        Self::resolve(flags.merge(Layer::from_env(env)?).merge(file))
    }

    /// Fills in the defaults and checks the whole.
    pub fn resolve(layer: Layer) -> Result<Self, ConfigError> {
        let reference = match (layer.branch, layer.tag, layer.commit) {
            (None, None, None) => Reference::Head,
            (Some(name), None, None) => Reference::Branch(name),
            (None, Some(name), None) => Reference::Tag(name),
            (None, None, Some(id)) => Reference::Commit(id),
            _ => return Err(ConfigError::new("branch", "only one of `branch`, `tag` and `commit` can be followed")),
        };
        let listen = match layer.listen.as_deref() {
            None => Some(SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))),
            Some("off") => None,
            Some(text) => Some(text.parse().map_err(|_| {
                ConfigError::new("listen", format!("`{text}` is not an address and a port"))
                    .hint("write `127.0.0.1:9470`, `[::1]:9470`, or `off`")
            })?),
        };
        let jitter = layer.poll_jitter.unwrap_or(0.1);
        if !(0.0..=1.0).contains(&jitter) {
            return Err(ConfigError::new("poll-jitter", format!("`{jitter}` is not between 0 and 1")));
        }
        let at_least_a_second = |name: &str, span: Option<Span>, default: u64| match span {
            Some(span) if span.duration() < Duration::from_secs(1) => {
                Err(ConfigError::new(name, format!("`{span}` is less than a second")))
            }
            span => Ok(span.unwrap_or(Span::seconds(default)).duration()),
        };
        let secret = |file: Option<PathBuf>, value: Option<Secret<String>>| {
            value.map(SecretSource::Value).or(file.map(SecretSource::File))
        };
        let limits = FetchLimits::default();
        let git = layer.git;
        Ok(Self {
            repo: layer.repo,
            reference,
            path: layer.path.unwrap_or_default(),
            state_dir: layer.state_dir.unwrap_or_else(|| "/var/lib/drover".into()),
            listen,
            poll_interval: at_least_a_second("poll-interval", layer.poll_interval, 30)?,
            poll_jitter: jitter,
            drift_interval: at_least_a_second("drift-interval", layer.drift_interval, 300)?,
            grace_time: layer.grace_time.unwrap_or(Span::seconds(30)).duration(),
            webhook_secret: secret(layer.webhook.secret_file, layer.webhook.secret),
            fetch: FetchLimits {
                timeout: at_least_a_second("git.timeout", git.timeout, limits.timeout.as_secs())?,
                bytes: git.max_fetch.map_or(limits.bytes, |b| b.0),
                shallow: git.shallow.unwrap_or(limits.shallow),
            },
            git: GitAccess {
                ssh: SshAccess {
                    key_file: git.ssh_key,
                    agent: git.ssh_agent.unwrap_or(true),
                    known_hosts: git.known_hosts,
                },
                token: secret(git.token_file, git.token),
                username: git.username.unwrap_or_else(|| "git".into()),
                ca_file: git.ca_file,
                proxy: git.proxy,
                allow_insecure: git.allow_insecure.unwrap_or(false),
            },
            log: LogConfig { format: layer.log.format.unwrap_or_default(), level: layer.log.level },
            libvirt: LibvirtPowers {
                ssh_key: layer.libvirt.ssh_key,
                known_hosts: layer.libvirt.known_hosts,
                uri_parameters: uri_parameters(&layer.libvirt.uri_parameters.unwrap_or_default())?,
            },
            kubernetes: KubernetesPowers {
                allow_exec: layer.kubernetes.allow_exec.unwrap_or(false),
                allow_files: layer.kubernetes.allow_files.unwrap_or(false),
                allow_insecure: layer.kubernetes.allow_insecure.unwrap_or(false),
            },
            secrets: SecretPowers::from_layer(layer.secrets)?,
            sim_state: layer.sim.state,
        })
    }

    /// Where the mirror of the followed repository is kept.
    pub fn mirror_dir(&self) -> PathBuf {
        self.state_dir.join("git")
    }

    /// Where the journal is kept.
    pub fn journal_file(&self) -> PathBuf {
        self.state_dir.join("journal.sqlite")
    }
}

/// Takes `name=value` apart. What libvirt makes of the value is its own matter.
fn uri_parameters(list: &[String]) -> Result<BTreeMap<String, String>, ConfigError> {
    const PLACE: &str = "libvirt.uri-parameters";
    let mut parameters = BTreeMap::new();
    for entry in list {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || value.is_empty() || !name.chars().all(is_plain) || value.chars().any(char::is_control) {
            return Err(ConfigError::new(PLACE, format!("`{}` is no parameter with its value", entry.escape_debug()))
                .hint("write `name=value`, for example `proxy=native`; libvirt.org/uri.html has the names"));
        }
        if parameters.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(ConfigError::new(PLACE, format!("`{name}` is given twice")).hint("keep one of them"));
        }
    }
    Ok(parameters)
}

/// Where the daemon listens unless told otherwise, on 127.0.0.1.
pub const DEFAULT_PORT: u16 = 9470;

#[cfg(test)]
mod tests {
    use super::layer::{Form, VARIABLES, variable};
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn nothing_said_gives_the_documented_defaults() {
        let config = Config::load(None, env(&[]), Layer::default()).unwrap();
        assert_eq!(config.state_dir, Path::new("/var/lib/drover"));
        assert_eq!(config.listen.unwrap().to_string(), "127.0.0.1:9470");
        assert_eq!((config.poll_interval.as_secs(), config.drift_interval.as_secs()), (30, 300));
        assert_eq!(config.reference, Reference::Head);
        assert!(!config.git.allow_insecure && config.webhook_secret.is_none());
    }

    #[test]
    fn flags_beat_environment_beats_file_beats_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("drover.toml");
        std::fs::write(
            &file,
            "repo = 'file'\nbranch = 'main'\npoll-interval = '10s'\ndrift-interval = '1m'\n[git]\nssh-agent = false\ntoken-file = '/t'\n",
        )
        .unwrap();
        let env = env(&[
            ("DROVER_REPO", "env"),
            ("DROVER_POLL_INTERVAL", "20s"),
            ("DROVER_GIT_TOKEN", "hunter2\n"),
            ("DROVER_PATH", ""),
            ("DROVER_SOMETHING_ELSE", "x"),
        ]);
        let flags = Layer { repo: Some("flag".into()), tag: Some("v1".into()), ..Layer::default() };
        let config = Config::load(Some(&file), env, flags).unwrap();
        assert_eq!(config.repo.as_deref(), Some("flag"));
        assert_eq!(config.poll_interval.as_secs(), 20);
        assert_eq!(config.drift_interval.as_secs(), 60);
        // `--tag` replaces the file's branch, and the token of the environment the file's token file.
        assert_eq!(config.reference, Reference::Tag("v1".into()));
        assert_eq!(config.git.token.as_ref().unwrap().read().unwrap().expose(), "hunter2");
        assert!(!config.git.ssh.agent);
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error = Layer::from_toml("drover.toml", "repo = 'x'\n\n[git]\nssh-keey = '/k'\n").unwrap_err();
        assert_eq!(error.place, "drover.toml:4:1");
        assert!(error.why.contains("`ssh-keey`") && error.why.contains("ssh-key"), "{}", error.why);
        let error = Layer::from_toml("drover.toml", "poll-interval = 'soon'\n").unwrap_err();
        assert!(error.place.starts_with("drover.toml:1:") && error.why.contains("`soon`"), "{error}");
    }

    #[test]
    fn a_secret_in_the_file_is_refused_and_not_repeated() {
        for text in ["[git]\ntoken = 'hunter2'\n", "[webhook]\nsecret = 'hunter2'\n"] {
            let error = Layer::from_toml("drover.toml", text).unwrap_err();
            assert!(error.hint.as_ref().unwrap().contains("DROVER_"), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn every_setting_of_the_file_can_be_given_by_the_environment() {
        let sample = |key: &str, form: Form| match (key, form) {
            ("log.format", _) => "json",
            ("git.max-fetch", _) => "1Gi",
            (k, _) if k.ends_with("interval") || k.ends_with("time") || k.ends_with("timeout") => "5s",
            (_, Form::Flag) => "true",
            (_, Form::Number) => "0.5",
            _ => "x",
        };
        let all: Vec<(String, String)> =
            VARIABLES.iter().map(|(k, f)| (variable(k), sample(k, *f).to_owned())).collect();
        let layer = Layer::from_env(all.into_iter()).unwrap();
        // A setting that has no variable would still be `None`.
        assert!(!format!("{layer:?}").contains("None"), "{layer:?}");
        assert_eq!(layer.libvirt.uri_parameters.unwrap(), ["x"]);
    }

    #[test]
    fn the_example_names_every_setting_and_shows_the_defaults() {
        let text = include_str!("../examples/drover.toml");
        // Settings that have a default stand there with it; those that have none, commented out.
        let mut shown = Config::resolve(Layer::from_toml("drover.toml", text).unwrap()).unwrap();
        let default = Config::resolve(Layer::default()).unwrap();
        shown.repo = None;
        assert_eq!(shown, default);
        let all = text.replace("\n# ", "\n").replace("\n#\n", "\n");
        let mut section = "";
        let mut named = std::collections::BTreeSet::new();
        for line in all.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name;
            } else if let Some((key, _)) = line.split_once(" = ") {
                named.insert(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
            }
        }
        for (key, form) in VARIABLES {
            assert_eq!(named.contains(*key), *form != Form::Secret, "{key}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_naming_where_it_stands() {
        let error = Layer::from_env(env(&[("DROVER_GIT_SHALLOW", "maybe")])).unwrap_err();
        assert_eq!(error.place, "DROVER_GIT_SHALLOW");
        let error = Layer::from_env(env(&[("DROVER_DRIFT_INTERVAL", "1 week")])).unwrap_err();
        assert_eq!(error.place, "DROVER_DRIFT_INTERVAL");
        let uri_parameters = |list: &[&str]| {
            let list = list.iter().map(|p| (*p).to_owned()).collect();
            Layer {
                libvirt: LibvirtLayer { uri_parameters: Some(list), ..LibvirtLayer::default() },
                ..Layer::default()
            }
        };
        for (layer, place) in [
            (Layer { listen: Some("localhost".into()), ..Layer::default() }, "listen"),
            (Layer { poll_jitter: Some(2.0), ..Layer::default() }, "poll-jitter"),
            (Layer { poll_interval: Some(Span(1)), ..Layer::default() }, "poll-interval"),
            (Layer { branch: Some("a".into()), tag: Some("b".into()), ..Layer::default() }, "branch"),
            (uri_parameters(&["no_tty"]), "libvirt.uri-parameters"),
            (uri_parameters(&["no_tty="]), "libvirt.uri-parameters"),
            (uri_parameters(&["a&b=1"]), "libvirt.uri-parameters"),
            (uri_parameters(&["mode=direct", "mode=legacy"]), "libvirt.uri-parameters"),
        ] {
            assert_eq!(Config::resolve(layer).unwrap_err().place, place);
        }
        assert!(Config::resolve(Layer { listen: Some("off".into()), ..Layer::default() }).unwrap().listen.is_none());
        assert!(Config::load(Some(Path::new("/none/drover.toml")), env(&[]), Layer::default()).is_err());
    }
}
