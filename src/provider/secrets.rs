//! Secret values that manifests name (`secretRef`), within the bounds that the operator set.
//!
//! *Guarantees*: nothing is read that the operator's configuration does not name: no other variable, no file outside of its
//! folders (symbolic links are followed first, and what they lead to counts), no other cluster's Secrets. A value comes back
//! as a [`Secret`], which no output can show; no error has a value, or a part of one, in it. A file is read at each use, so a
//! rotated value counts without a restart.
//!
//! Keys of Kubernetes Secrets come through [`SecretKeys`], so that this file knows no provider.

use crate::model::{Secret, SecretKey, SecretRef};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// Most bytes of a value: what a Kubernetes Secret can hold.
const MAX_BYTES: u64 = 1 << 20;

/// Variables of Drover's own credentials. No pattern lets a manifest have them.
const OWN: [&str; 2] = ["DROVER_GIT_TOKEN", "DROVER_WEBHOOK_SECRET"];

/// What manifests may name (`[secrets]` of the operator's configuration).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretBounds {
    /// Environment variables: names, or beginnings of names followed by `*`.
    pub env: Vec<String>,
    /// Folders: files in them and below.
    pub folders: Vec<PathBuf>,
    /// Clusters whose Secrets may be read: names of Clusters, or `*` for all.
    pub clusters: BTreeSet<String>,
}

impl Default for SecretBounds {
    fn default() -> Self {
        Self {
            env: vec!["DROVER_SECRET_*".into()],
            folders: vec!["/etc/drover/secrets".into()],
            clusters: BTreeSet::new(),
        }
    }
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {why}")]
pub struct SecretFault {
    /// Where the value was looked for: "the file `/etc/…`".
    pub what: String,
    /// Why there is none, as the rest of a sentence.
    pub why: String,
    /// What to do.
    pub hint: String,
    /// Whether it may be there later.
    pub transient: bool,
}

/// Reads keys of Secrets in clusters.
#[async_trait]
pub trait SecretKeys: Send + Sync {
    /// The value of a key, by `deadline`.
    ///
    /// # Errors
    /// Why there is none, and whether that may pass.
    async fn value(&self, key: &SecretKey, deadline: Instant) -> Result<Secret<Vec<u8>>, SecretFault>;
}

/// No clusters: their Secrets cannot be read.
pub struct NoClusters;

#[async_trait]
impl SecretKeys for NoClusters {
    async fn value(&self, key: &SecretKey, _: Instant) -> Result<Secret<Vec<u8>>, SecretFault> {
        let what = SecretRef::Kubernetes(key.clone()).to_string();
        let hint = "use a file or a variable".to_owned();
        Err(SecretFault { what, why: "cannot be read here: no cluster can be reached".into(), hint, transient: false })
    }
}

impl SecretBounds {
    /// The value, by `deadline`. Blank space at both ends of a file's or a variable's text is not part of it, because editors
    /// and `echo` add line ends; a key of a Kubernetes Secret is taken as it is.
    pub async fn resolve(
        &self,
        reference: &SecretRef,
        keys: &dyn SecretKeys,
        deadline: Instant,
    ) -> Result<Secret<Vec<u8>>, SecretFault> {
        let fault =
            |why: String, hint: String| SecretFault { what: reference.to_string(), why, hint, transient: false };
        match reference {
            SecretRef::Env(name) => self.variable(name).map_err(|(why, hint)| fault(why, hint)),
            SecretRef::File(path) => {
                let (folders, path) = (self.folders.clone(), PathBuf::from(path));
                // A folder of the operator's may be on a network.
                let read = tokio::task::spawn_blocking(move || read_file(&folders, &path));
                let read = tokio::time::timeout_at(deadline, read).await;
                match read {
                    Ok(Ok(result)) => result.map_err(|(why, hint)| fault(why, hint)),
                    Ok(Err(_)) | Err(_) => {
                        let hint = "look whether its file system hangs".to_owned();
                        Err(SecretFault { transient: true, ..fault("could not be read in time".into(), hint) })
                    }
                }
            }
            SecretRef::Kubernetes(key) => {
                if !self.clusters.contains("*") && !self.clusters.contains(&key.cluster) {
                    let hint = format!(
                        "have the operator add `{}` to `clusters` in `[secrets]` of Drover's configuration",
                        key.cluster
                    );
                    return Err(fault("is not one of those that manifests may name".into(), hint));
                }
                keys.value(key, deadline).await
            }
        }
    }

    /// The same as text.
    pub async fn text(
        &self,
        reference: &SecretRef,
        keys: &dyn SecretKeys,
        deadline: Instant,
    ) -> Result<Secret<String>, SecretFault> {
        let bytes = self.resolve(reference, keys, deadline).await?;
        match std::str::from_utf8(bytes.expose()) {
            Ok(text) => Ok(Secret::new(text.trim().to_owned())),
            Err(_) => Err(SecretFault {
                what: reference.to_string(),
                why: "is not UTF-8 text".into(),
                hint: "save it as text; a certificate belongs there in PEM".into(),
                transient: false,
            }),
        }
    }

    fn allows_variable(&self, name: &str) -> bool {
        !OWN.contains(&name)
            && self.env.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            })
    }

    fn variable(&self, name: &str) -> Result<Secret<Vec<u8>>, (String, String)> {
        if !self.allows_variable(name) {
            let allowed = listed(self.env.iter().map(String::as_str));
            let hint = format!(
                "manifests may name {allowed}; name it like that, or have the operator add it to `env` in `[secrets]` of \
                 Drover's configuration"
            );
            return Err(("is not one of those that manifests may name".into(), hint));
        }
        let Some(value) = std::env::var_os(name) else {
            return Err(("is not set".into(), "set it where Drover runs".into()));
        };
        // A variable that is no text is no credential either.
        let text = value.into_string().map_err(|_| ("is not UTF-8 text".to_owned(), "set it to a text".to_owned()))?;
        match text.trim() {
            "" => Err(("is empty".into(), "set it where Drover runs".into())),
            text => Ok(Secret::new(text.as_bytes().to_vec())),
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn read_file(folders: &[PathBuf], path: &Path) -> Result<Secret<Vec<u8>>, (String, String)> {
    let outside = || {
        let allowed = listed(folders.iter().filter_map(|f| f.to_str()));
        let hint = format!(
            "manifests may name files below {allowed}; put it there, or have the operator add its folder to `folders` in \
             `[secrets]` of Drover's configuration"
        );
        ("is outside of the folders that manifests may name".to_owned(), hint)
    };
    // As it is written first: whether a file is there that nobody may name is not for a manifest to find out.
    let is_plain = path.is_absolute() && !path.components().any(|c| matches!(c, std::path::Component::ParentDir));
    if !is_plain || !folders.iter().any(|f| path.starts_with(f)) {
        return Err(outside());
    }
    let cannot = |e: std::io::Error| (format!("cannot be read: {e}"), "see to the file and its rights".to_owned());
    let real = path.canonicalize().map_err(cannot)?;
    let is_inside = folders.iter().filter_map(|f| f.canonicalize().ok()).any(|f| real.starts_with(f));
    if !is_inside {
        let (_, hint) = outside();
        return Err(("is a symbolic link that leads out of the folders that manifests may name".into(), hint));
    }
    // Its kind before it is opened: opening a pipe waits for whoever writes into it.
    if !real.metadata().map_err(cannot)?.is_file() {
        return Err(("is not a regular file".into(), "name a file".into()));
    }
    let file = std::fs::File::open(&real).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if meta.mode() & 0o027 != 0 {
        let hint = format!("run `chmod 600 {}`; in Kubernetes set `defaultMode: 0440`", path.display());
        return Err((
            format!("can be read by others, or changed by its group (mode {:04o})", meta.mode() & 0o7777),
            hint,
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err((format!("has more than {MAX_BYTES} bytes"), "name the right file".into()));
    }
    match bytes.trim_ascii() {
        [] => Err(("is empty".into(), "write the value into it".into())),
        value => Ok(Secret::new(value.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::Duration;

    fn bounds(folder: &Path) -> SecretBounds {
        SecretBounds { folders: vec![folder.to_owned()], ..SecretBounds::default() }
    }

    async fn resolve(bounds: &SecretBounds, reference: SecretRef) -> Result<Secret<String>, SecretFault> {
        bounds.text(&reference, &NoClusters, Instant::now() + Duration::from_secs(5)).await
    }

    fn write(path: &Path, content: &str, mode: u32) -> SecretRef {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        SecretRef::File(path.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_file_in_the_folder_is_read_without_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(&dir.path().join("token"), "s3cr3t\n", 0o600);
        assert_eq!(resolve(&bounds(dir.path()), file).await.unwrap().expose(), "s3cr3t");
    }

    #[tokio::test]
    async fn links_within_the_folder_are_followed_and_those_out_of_it_are_not() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&dir.path().join("..data"), "inside", 0o600);
        write(&other.path().join("key"), "outside", 0o600);
        symlink(dir.path().join("..data"), dir.path().join("in")).unwrap();
        symlink(other.path().join("key"), dir.path().join("out")).unwrap();
        symlink(other.path(), dir.path().join("folder")).unwrap();
        let file = |name: &str| SecretRef::File(dir.path().join(name).to_str().unwrap().to_owned());
        let bounds = bounds(dir.path());
        assert_eq!(resolve(&bounds, file("in")).await.unwrap().expose(), "inside");
        for name in ["out", "folder/key"] {
            let error = resolve(&bounds, file(name)).await.unwrap_err();
            assert!(error.why.contains("leads out"), "{error}");
        }
        for path in [other.path().join("key").to_str().unwrap().to_owned(), format!("{}/../x", dir.path().display())] {
            let error = resolve(&bounds, SecretRef::File(path)).await.unwrap_err();
            assert!(error.why.contains("outside") && error.hint.contains("`folders`"), "{error}");
        }
    }

    #[tokio::test]
    async fn files_that_are_no_secrets_are_refused_without_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let open = write(&dir.path().join("open"), "s3cr3t", 0o644);
        let large = write(&dir.path().join("large"), &"s3cr3t".repeat(300_000), 0o600);
        let empty = write(&dir.path().join("empty"), " \n", 0o600);
        let folder = SecretRef::File(dir.path().to_str().unwrap().to_owned());
        for (reference, why) in [(open, "by others"), (large, "more than"), (empty, "empty"), (folder, "regular")] {
            let error = resolve(&bounds(dir.path()), reference).await.unwrap_err();
            assert!(error.why.contains(why) && !format!("{error:?}").contains("s3cr3t"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn only_listed_variables_are_read_and_drovers_own_never() {
        let all = SecretBounds { env: vec!["*".into()], ..SecretBounds::default() };
        assert!(all.allows_variable("HOME") && !all.allows_variable("DROVER_GIT_TOKEN"));
        let some = SecretBounds { env: vec!["S3_KEY".into(), "OCP_*".into()], ..SecretBounds::default() };
        for (name, allowed) in [("S3_KEY", true), ("S3_KEYS", false), ("OCP_4", true), ("HOME", false)] {
            assert_eq!(some.allows_variable(name), allowed, "{name}");
        }
        let error = resolve(&SecretBounds::default(), SecretRef::Env("HOME".into())).await.unwrap_err();
        assert!(error.to_string().contains("`HOME`") && error.hint.contains("`DROVER_SECRET_*`"), "{error:?}");
        let error = resolve(&SecretBounds::default(), SecretRef::Env("DROVER_SECRET_NONE".into())).await.unwrap_err();
        assert_eq!(error.why, "is not set");
    }

    #[tokio::test]
    async fn secrets_of_clusters_are_read_only_where_the_operator_lists_the_cluster() {
        let key = |cluster: &str| {
            let text = |t: &str| t.to_owned();
            SecretRef::Kubernetes(SecretKey {
                cluster: text(cluster),
                namespace: text("n"),
                name: text("s"),
                key: text("k"),
            })
        };
        let bounds = SecretBounds { clusters: ["a".to_owned()].into(), ..SecretBounds::default() };
        assert!(resolve(&bounds, key("a")).await.unwrap_err().why.contains("no cluster can be reached"));
        assert!(resolve(&bounds, key("b")).await.unwrap_err().hint.contains("add `b`"));
    }
}
