//! Credentials of the operator: from the environment or from a file that nobody else can read.

use crate::model::Secret;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a credential comes from. A file is read at each use, so that a rotated credential is picked up without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The value itself, from the environment.
    Value(Secret<String>),
    /// A file that holds it.
    File(PathBuf),
}

/// Why a credential cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credential file `{}` {why}", path.display())]
pub struct SecretError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub why: String,
}

/// Credentials are short; a larger file is a mistake.
const MAX_BYTES: u64 = 64 << 10;

impl SecretSource {
    /// The value. Blank space at both ends is not part of it, because editors and `echo` add line ends.
    ///
    /// Refuses a file that is empty, larger than 64 KiB, not a regular file, not UTF-8, or that users other than its owner
    /// and group can read or that its group can change.
    pub fn read(&self) -> Result<Secret<String>, SecretError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => read_file(path).map_err(|why| SecretError { path: path.clone(), why }),
        }
    }
}

fn read_file(path: &Path) -> Result<Secret<String>, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    let meta = file.metadata().map_err(|e| format!("cannot be examined: {e}"))?;
    if !meta.is_file() {
        return Err("is not a regular file".into());
    }
    if meta.mode() & 0o027 != 0 {
        return Err(format!(
            "can be read by others, or changed by its group (mode {:04o}): run `chmod 600 {}`; in Kubernetes set `defaultMode: 0440`",
            meta.mode() & 0o7777,
            path.display()
        ));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|e| format!("cannot be read: {e}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    match text.trim() {
        "" => Err("is empty".into()),
        value => Ok(Secret::new(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(dir: &Path, content: &str, mode: u32) -> SecretSource {
        let path = dir.join(format!("secret-{mode:o}-{}", content.len()));
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        SecretSource::File(path)
    }

    #[test]
    fn a_line_end_is_not_part_of_the_value() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(file(dir.path(), "s3cr3t\n", 0o600).read().unwrap().expose(), "s3cr3t");
        assert_eq!(file(dir.path(), "group", 0o640).read().unwrap().expose(), "group");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_without_showing_its_content() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o604, 0o620, 0o666] {
            let error = file(dir.path(), "s3cr3t", mode).read().unwrap_err().to_string();
            assert!(error.contains("chmod 600") && !error.contains("s3cr3t"), "{error}");
        }
        assert!(file(dir.path(), "\n", 0o600).read().unwrap_err().why.contains("empty"));
        assert!(SecretSource::File(dir.path().into()).read().unwrap_err().why.contains("regular"));
        assert!(SecretSource::File(dir.path().join("none")).read().unwrap_err().why.contains("opened"));
        assert!(file(dir.path(), &"x".repeat(70_000), 0o600).read().unwrap_err().why.contains("more than"));
    }
}
