//! Notices a push to a repository on this machine at once.
//!
//! *Guarantees*: nothing is read in the watching thread; a change of a reference wakes the daemon once, however many
//! files it touches. *Assumptions*: polling goes on as well, so that a lost event costs time and nothing else.

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;

/// A watch on a repository's references. Ends when dropped.
pub(super) struct RefWatch {
    _watcher: RecommendedWatcher,
    dir: PathBuf,
    identity: Option<(u64, u64)>,
}

impl RefWatch {
    /// Watches the repository folder `dir` (`.git`, or a bare repository) and tells `changed`.
    pub(super) fn start(dir: &Path, changed: Arc<Notify>) -> Result<Self, notify::Error> {
        let root = dir.to_owned();
        let refs = dir.join("refs");
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error means that events were lost: look.
            let relevant =
                event.map_or(true, |e| changes_something(e.kind) && e.paths.iter().any(|p| is_reference(&root, p)));
            if relevant {
                changed.notify_one();
            }
        })?;
        watcher.watch(&refs, RecursiveMode::Recursive)?;
        // For `packed-refs` and `HEAD`, which are replaced and not written.
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(Self { _watcher: watcher, dir: dir.to_owned(), identity: identity(&refs) })
    }

    /// Whether it still watches what is at that place now: a repository that was removed and made again is another.
    pub(super) fn is_current(&self) -> bool {
        self.identity.is_some() && identity(&self.dir.join("refs")) == self.identity
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// Reading a repository causes events, too; taking them for changes would make the daemon wake itself for ever.
fn changes_something(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn is_reference(root: &Path, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(root) else { return false };
    inside.starts_with("refs")
        || inside.to_str().is_some_and(|name| {
            matches!(name, "HEAD" | "HEAD.lock" | "packed-refs" | "packed-refs.lock" | "packed-refs.new")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_references_count() {
        let root = Path::new("/r");
        for (path, expected) in [
            ("/r/refs/heads/main", true),
            ("/r/packed-refs", true),
            ("/r/HEAD", true),
            ("/r/objects/aa", false),
            ("/r/config", false),
        ] {
            assert_eq!(is_reference(root, Path::new(path)), expected, "{path}");
        }
        assert!(!changes_something(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(changes_something(EventKind::Access(AccessKind::Close(AccessMode::Write))));
    }
}
