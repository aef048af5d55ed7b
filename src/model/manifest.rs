//! A manifest and where it stands.

use super::{KindName, ResourceId};
use crate::finding::Source;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `metadata` of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name: unique within its kind; lower-case letters, digits, `-` and `.`, at most 63 bytes.
    pub name: String,
    /// Labels, for selectors and anti-affinity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations. Drover reads those that begin with `drover/`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where each node of a document stands: a compact map from JSON pointer (`/spec/disks/0/size`) to line and column.
/// Pointers are kept as 64-bit hashes, because tens of thousands of manifests are held in memory at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(Vec<(Pointer, u32, u32)>);

/// A JSON pointer under construction, as the hash that [`Positions`] keeps: going one step down costs the step, not the
/// whole pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer(u64);

impl Pointer {
    /// The whole document.
    pub const ROOT: Self = Self(FNV_OFFSET);

    /// The value of a key of a mapping.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        let slash = fnv1a(self.0, b"/");
        if !key.contains(['~', '/']) {
            return Self(fnv1a(slash, key.as_bytes()));
        }
        // RFC 6901, section 3.
        Self(fnv1a(slash, key.replace('~', "~0").replace('/', "~1").as_bytes()))
    }

    /// An item of a sequence.
    #[must_use]
    pub fn index(self, index: usize) -> Self {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = index;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        Self(fnv1a(fnv1a(self.0, b"/"), &digits[at..]))
    }
}

impl Positions {
    /// Builds the map from `(pointer, line, column)`; lines and columns count from 1.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a str, u32, u32)>) -> Self {
        Self::from_pointers(
            nodes.into_iter().map(|(p, l, c)| (Pointer(fnv1a(FNV_OFFSET, p.as_bytes())), l, c)).collect(),
        )
    }

    /// Builds the map from pointers that are hashed already. Of two positions of one pointer the first one stays.
    pub fn from_pointers(mut nodes: Vec<(Pointer, u32, u32)>) -> Self {
        nodes.sort_unstable();
        nodes.dedup_by_key(|e| e.0);
        nodes.shrink_to_fit();
        Self(nodes)
    }

    /// The position of exactly this node.
    pub fn exact(&self, pointer: &str) -> Option<(u32, u32)> {
        let pointer = Pointer(fnv1a(FNV_OFFSET, pointer.as_bytes()));
        let i = self.0.binary_search_by_key(&pointer, |e| e.0).ok()?;
        Some((self.0[i].1, self.0[i].2))
    }

    /// The position of a node, or of its nearest ancestor that has one.
    pub fn nearest(&self, pointer: &str) -> Option<(u32, u32)> {
        let mut p = pointer;
        loop {
            if let Some(place) = self.exact(p) {
                return Some(place);
            }
            p = &p[..p.rfind('/')?];
        }
    }
}

/// FNV-1a, 64 bits: stable between runs and builds, which `std`'s hashers do not promise.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with a hash.
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// Where a manifest came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Path below the repository's root (or as given, for a folder or `-`).
    pub file: Arc<str>,
    /// The Git blob it was read from; the place for a cache by content.
    pub blob: Option<Arc<str>>,
    /// First line of the document, from 1.
    pub line: u32,
    /// First column of the document, from 1.
    pub column: u32,
    /// Positions of its nodes.
    pub positions: Positions,
}

impl Origin {
    /// The place of the whole document.
    pub fn source(&self) -> Source {
        Source { file: self.file.to_string(), line: self.line, column: self.column }
    }

    /// The place of one node, by its path as people write it (`spec.disks[0].size`) or its JSON pointer; the nearest
    /// ancestor's place where the node itself is not written.
    pub fn source_of(&self, path: &str) -> Source {
        let pointer = if path.starts_with('/') || path.is_empty() {
            path.to_owned()
        } else {
            format!("/{}", path.replace('[', "/").replace(']', "").replace('.', "/"))
        };
        match self.positions.nearest(&pointer) {
            Some((line, column)) => Source { file: self.file.to_string(), line, column },
            None => self.source(),
        }
    }
}

/// One resource as Git says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest<S> {
    /// The kind.
    pub kind: KindName,
    /// Name, labels and annotations.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: S,
    /// Where it stands.
    pub origin: Origin,
}

impl<S> Manifest<S> {
    /// Its identity.
    pub fn id(&self) -> ResourceId {
        ResourceId { kind: self.kind.clone(), name: self.metadata.name.clone() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }
}

/// Which state of the repository something was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// The commit's full id; `null` for a folder or standard input.
    pub commit: Option<String>,
    /// The commit that a change is compared with (`--base`).
    pub base: Option<String>,
    /// The folder, repository or `-`, without credentials.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_written_stands_where_its_parent_does() {
        let origin = Origin {
            file: "vms.yaml".into(),
            positions: Positions::new([("", 1, 1), ("/spec", 4, 1), ("/spec/disks/0", 7, 5)]),
            ..Default::default()
        };
        assert_eq!(origin.source_of("spec.disks[0].size").line, 7);
        assert_eq!(origin.source_of("/spec/host").line, 4);
        assert_eq!(origin.source_of("metadata.name").line, 1);
    }

    #[test]
    fn a_pointer_built_in_steps_is_the_pointer_written_whole() {
        let p = Positions::from_pointers(vec![
            (Pointer::ROOT.key("spec").key("disks").index(120).key("size"), 7, 5),
            (Pointer::ROOT.key("metadata").key("annotations").key("drover/adopt~x"), 9, 3),
        ]);
        assert_eq!(p.exact("/spec/disks/120/size"), Some((7, 5)));
        assert_eq!(p.exact("/metadata/annotations/drover~1adopt~0x"), Some((9, 3)));
        assert_eq!(p.exact("/spec/disks/12"), None);
    }
}
