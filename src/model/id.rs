//! Names and identities.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The longest name a resource may have, in bytes (a DNS label, RFC 1123).
pub const NAME_MAX: usize = 63;

/// The name of a kind, as written in `kind:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KindName(Cow<'static, str>);

impl KindName {
    /// Names a kind known at compile time.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for KindName {
    fn from(name: &str) -> Self {
        Self(Cow::Owned(name.to_owned()))
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a resource: kind and name, never the file it stands in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ResourceId {
    /// The kind.
    pub kind: KindName,
    /// The name, unique within its kind.
    pub name: String,
}

impl ResourceId {
    /// Makes an identity.
    pub fn new(kind: KindName, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is written.
    #[error("the name is empty")]
    Empty,
    /// Longer than [`NAME_MAX`].
    #[error("the name has {0} bytes; at most {NAME_MAX} are allowed")]
    TooLong(usize),
    /// A character outside the allowed set, shown escaped.
    #[error("the name contains `{0}`; allowed are a-z, 0-9, `-` and `.`, with a letter or digit first and last")]
    Character(String),
}

/// Checks a resource name: lower-case letters, digits, `-` and `.`, starting and ending with a letter or digit, at most
/// [`NAME_MAX`] bytes (RFC 1123, as Kubernetes uses it). This keeps paths, options and control characters out of every
/// system a name is handed to.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if let Some(bad) = name.chars().find(|c| !plain(*c) && *c != '-' && *c != '.') {
        return Err(NameError::Character(bad.escape_default().to_string()));
    }
    for edge in [name.chars().next(), name.chars().next_back()].into_iter().flatten() {
        if !plain(edge) {
            return Err(NameError::Character(edge.to_string()));
        }
    }
    if name.contains("..") {
        return Err(NameError::Character("..".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_other_systems_could_misread_are_refused() {
        for good in ["a", "web-1", "kvm-a.example.com", "0"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a..b", "a b", "a\n", "\u{202e}a", "ä", &long] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
