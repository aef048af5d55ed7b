//! Standard input as a tree of one file.

use crate::load::tree::STDIN;
use crate::load::{MemoryTree, TreeError};
use std::io::Read;

/// Reads manifests from standard input, or from anything else that is read once, up to `limit` bytes.
pub fn read(mut input: impl Read, limit: u64) -> Result<MemoryTree, TreeError> {
    let mut bytes = Vec::new();
    input
        .by_ref()
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| TreeError::Io { path: STDIN.into(), why: e.to_string() })?;
    if bytes.len() as u64 > limit {
        return Err(TreeError::TooLarge { path: STDIN.into(), size: bytes.len() as u64, limit });
    }
    Ok(MemoryTree::stdin(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Tree;

    #[test]
    fn what_is_too_long_is_refused_without_reading_it_all() {
        let tree = read(&b"a: 1\n"[..], 5).unwrap();
        assert_eq!(tree.list().unwrap().files[0].path, "-");
        let error = read(std::io::repeat(b'x'), 1 << 20).unwrap_err();
        assert!(matches!(error, TreeError::TooLarge { limit: 1_048_576, .. }));
    }
}
