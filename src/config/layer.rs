//! One source of settings: the TOML file, the environment or the flags, read and laid one over the other.

use super::{ConfigError, LogFormat};
use crate::model::{Bytes, Secret, Span};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Declares one layer of settings: every value may be missing, and `over` wins where it has one.
macro_rules! layer {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* } sections { $($(#[$sdoc:meta])* $section:ident: $stype:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$doc])* pub $field: Option<$type>,)*
            $($(#[$sdoc])* pub $section: $stype,)*
        }
        impl $name {
            fn over(self, lower: Self) -> Self {
                Self {
                    $($field: self.$field.or(lower.$field),)*
                    $($section: self.$section.over(lower.$section),)*
                }
            }
        }
    };
}

layer! {
    /// One source of settings: the file, the environment or the flags.
    Layer {
        /// The repository: path or URL.
        repo: String,
        /// The branch that is followed; the repository's default branch where nothing is named.
        branch: String,
        /// The tag that is followed.
        tag: String,
        /// The commit that is used.
        commit: String,
        /// Folder in the repository.
        path: String,
        /// Folder for journal, mirror and lock.
        state_dir: PathBuf,
        /// `address:port`, or `off`.
        listen: String,
        /// How often the repository is asked.
        poll_interval: Span,
        /// Part of the interval, 0 to 1.
        poll_jitter: f64,
        /// How often drift is looked for.
        drift_interval: Span,
        /// How long running steps may go on after SIGTERM.
        grace_time: Span,
    } sections {
        /// Git servers.
        git: GitLayer,
        /// Webhooks.
        webhook: WebhookLayer,
        /// The log.
        log: LogLayer,
        /// libvirt hosts.
        libvirt: LibvirtLayer,
        /// Kubernetes clusters.
        kubernetes: KubernetesLayer,
        /// Secrets that manifests name.
        secrets: SecretsLayer,
        /// Simulated hosts.
        sim: SimLayer,
    }
}
layer! {
    /// `[git]`.
    GitLayer {
        /// Private key for `ssh://`.
        ssh_key: PathBuf,
        /// Whether the SSH agent's keys may be used.
        ssh_agent: bool,
        /// Keys of known SSH servers.
        known_hosts: PathBuf,
        /// File with a token for `https://`.
        token_file: PathBuf,
        /// The token itself; from the environment only.
        #[serde(skip)]
        token: Secret<String>,
        /// User name that goes with the token.
        username: String,
        /// Certificate authorities for `https://`.
        ca_file: PathBuf,
        /// Proxy for `https://`.
        proxy: String,
        /// Whether `git://` and `http://` may be used.
        allow_insecure: bool,
        /// How long a fetch may take.
        timeout: Span,
        /// How many bytes a fetch may bring.
        max_fetch: Bytes,
        /// Whether the first fetch brings the newest commit only.
        shallow: bool,
    } sections {}
}
layer! {
    /// `[webhook]`.
    WebhookLayer {
        /// File with the secret that webhooks are signed with.
        secret_file: PathBuf,
        /// The secret itself; from the environment only.
        #[serde(skip)]
        secret: Secret<String>,
    } sections {}
}
layer! {
    /// `[log]`.
    LogLayer {
        /// `human` or `json`.
        format: LogFormat,
        /// Level or filter.
        level: String,
    } sections {}
}
layer! {
    /// `[libvirt]`.
    LibvirtLayer {
        /// Private key for `qemu+ssh://`.
        ssh_key: PathBuf,
        /// Keys of known servers.
        known_hosts: PathBuf,
        /// Parameters added to URIs, each as `name=value`.
        uri_parameters: Vec<String>,
    } sections {}
}
layer! {
    /// `[kubernetes]`.
    KubernetesLayer {
        /// Whether kubeconfigs may run programs for their credentials.
        allow_exec: bool,
        /// Whether kubeconfigs may name files.
        allow_files: bool,
        /// Whether certificates may stay unchecked, and plain HTTP be spoken.
        allow_insecure: bool,
    } sections {}
}
layer! {
    /// `[secrets]`.
    SecretsLayer {
        /// Environment variables that manifests may name.
        env: Vec<String>,
        /// Folders whose files manifests may name.
        folders: Vec<PathBuf>,
        /// Clusters whose Secrets manifests may name.
        clusters: Vec<String>,
    } sections {}
}
layer! {
    /// `[sim]`.
    SimLayer {
        /// File that keeps the state of simulated hosts.
        state: PathBuf,
    } sections {}
}

/// How an environment variable's text is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Flag,
    Number,
    /// Separated by commas.
    List,
    /// Never shown, not even when it is wrong.
    Secret,
}

/// Every setting that the environment may give, as `section.key`. The variable is `DROVER_`, then the same in capitals.
pub(super) const VARIABLES: &[(&str, Form)] = &[
    ("repo", Form::Text),
    ("branch", Form::Text),
    ("tag", Form::Text),
    ("commit", Form::Text),
    ("path", Form::Text),
    ("state-dir", Form::Text),
    ("listen", Form::Text),
    ("poll-interval", Form::Text),
    ("poll-jitter", Form::Number),
    ("drift-interval", Form::Text),
    ("grace-time", Form::Text),
    ("git.ssh-key", Form::Text),
    ("git.ssh-agent", Form::Flag),
    ("git.known-hosts", Form::Text),
    ("git.token-file", Form::Text),
    ("git.token", Form::Secret),
    ("git.username", Form::Text),
    ("git.ca-file", Form::Text),
    ("git.proxy", Form::Text),
    ("git.allow-insecure", Form::Flag),
    ("git.timeout", Form::Text),
    ("git.max-fetch", Form::Text),
    ("git.shallow", Form::Flag),
    ("webhook.secret-file", Form::Text),
    ("webhook.secret", Form::Secret),
    ("log.format", Form::Text),
    ("log.level", Form::Text),
    ("libvirt.ssh-key", Form::Text),
    ("libvirt.known-hosts", Form::Text),
    ("libvirt.uri-parameters", Form::List),
    ("kubernetes.allow-exec", Form::Flag),
    ("kubernetes.allow-files", Form::Flag),
    ("kubernetes.allow-insecure", Form::Flag),
    ("secrets.env", Form::List),
    ("secrets.folders", Form::List),
    ("secrets.clusters", Form::List),
    ("sim.state", Form::Text),
];

/// The environment variable of a setting: `DROVER_GIT_TOKEN_FILE` for `git.token-file`.
pub(super) fn variable(key: &str) -> String {
    format!("DROVER_{}", key.replace(['.', '-'], "_").to_uppercase())
}

impl Layer {
    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError::new(&name, format!("the configuration cannot be read: {e}")))?;
        Self::from_toml(&name, &text)
    }

    /// Reads TOML text; `name` is the file in errors.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|e| {
            // The library's own form quotes the whole line, in which a secret may stand by mistake.
            let place = match e.span() {
                Some(span) => {
                    let before = text.get(..span.start).unwrap_or(text);
                    let line = before.matches('\n').count() + 1;
                    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                    format!("{name}:{line}:{column}")
                }
                None => name.to_owned(),
            };
            let why = e.message().replace('\n', " ");
            let error = ConfigError::new(place, &why);
            if why.contains("unknown field `token`") {
                error.hint("tokens do not stand here: name a file as `token-file`, or set DROVER_GIT_TOKEN")
            } else if why.contains("unknown field `secret`") {
                error.hint("secrets do not stand here: name a file as `secret-file`, or set DROVER_WEBHOOK_SECRET")
            } else {
                error
            }
        })
    }

    /// Reads the `DROVER_…` variables of an environment; empty ones count as not set, others are not looked at.
    pub fn from_env(env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let set: std::collections::BTreeMap<String, String> = env.filter(|(_, v)| !v.is_empty()).collect();
        let mut root = toml::Table::new();
        let mut layer = Self::default();
        for (key, form) in VARIABLES {
            let name = variable(key);
            let Some(text) = set.get(&name) else { continue };
            let value = match form {
                Form::Text => toml::Value::String(text.clone()),
                Form::Flag => toml::Value::Boolean(match text.to_ascii_lowercase().as_str() {
                    "true" | "1" | "yes" | "on" => true,
                    "false" | "0" | "no" | "off" => false,
                    _ => return Err(ConfigError::new(name, format!("`{text}` is neither `true` nor `false`"))),
                }),
                Form::Number => toml::Value::Float(
                    text.parse().map_err(|_| ConfigError::new(&name, format!("`{text}` is not a number")))?,
                ),
                Form::List => text
                    .split(',')
                    .map(str::trim)
                    .filter(|s| !s.is_empty())
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
                    .into(),
                Form::Secret => {
                    let secret = Some(Secret::new(text.trim().to_owned()));
                    match *key {
                        "git.token" => layer.git.token = secret,
                        _ => layer.webhook.secret = secret,
                    }
                    continue;
                }
            };
            let table: toml::Table = match key.split_once('.') {
                Some((section, key)) => {
                    [(section.to_owned(), toml::Table::from_iter([(key.to_owned(), value)]).into())]
                        .into_iter()
                        .collect()
                }
                None => [((*key).to_owned(), value)].into_iter().collect(),
            };
            // One at a time, so that an error names its variable.
            Self::deserialize(toml::Value::Table(table.clone()))
                .map_err(|e| ConfigError::new(&name, e.message().replace('\n', " ")))?;
            for (section, value) in table {
                match (root.get_mut(&section), value) {
                    (Some(toml::Value::Table(there)), toml::Value::Table(more)) => there.extend(more),
                    (_, value) => {
                        root.insert(section, value);
                    }
                }
            }
        }
        let read = Self::deserialize(toml::Value::Table(root))
            .map_err(|e| ConfigError::new("the environment", e.message().replace('\n', " ")))?;
        Ok(layer.over(read))
    }

    /// These settings, and `lower`'s where there are none.
    #[must_use]
    pub fn merge(self, mut lower: Self) -> Self {
        // Branch, tag and commit are one choice: who names one of them replaces whatever was named before.
        if self.branch.is_some() || self.tag.is_some() || self.commit.is_some() {
            (lower.branch, lower.tag, lower.commit) = (None, None, None);
        }
        // So are a credential and the file that it stands in.
        if self.git.token.is_some() || self.git.token_file.is_some() {
            (lower.git.token, lower.git.token_file) = (None, None);
        }
        if self.webhook.secret.is_some() || self.webhook.secret_file.is_some() {
            (lower.webhook.secret, lower.webhook.secret_file) = (None, None);
        }
        self.over(lower)
    }
}
