//! What Drover has to say about its input or about the world: severity, a stable code, a message, the place it is about,
//! and what to do. Findings are collected, never thrown one at a time.

mod code;
mod nearest;

pub use code::Code;
pub(crate) use nearest::nearest;

use crate::model::ResourceId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Nothing is carried out for this commit (manifests) or this resource (world).
    Error,
    /// Carried out, but probably not what is wanted.
    Warning,
    /// Worth knowing.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Path below the repository's root.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing to tell the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code, listed with cause and cure in docs/findings.md.
    pub code: Code,
    /// What is wrong, on what. Lower case, no full stop, names in backticks.
    pub message: String,
    /// The resource it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceId>,
    /// The node it is about, as people write it: `spec.disks[0].size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Other places it is about (the other of two duplicates).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Source>,
}

impl Finding {
    /// A finding of the code's own severity.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            severity: code.severity(),
            code,
            message: message.into(),
            resource: None,
            path: None,
            source: None,
            hint: None,
            related: Vec::new(),
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the resource.
    #[must_use]
    pub fn on(mut self, id: ResourceId) -> Self {
        self.resource = Some(id);
        self
    }

    /// Names the place.
    #[must_use]
    pub fn at(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Names the node of a manifest, its resource and its place at once.
    #[must_use]
    pub fn of<S>(mut self, manifest: &crate::model::Manifest<S>, path: &str) -> Self {
        self.resource = Some(manifest.id());
        self.source = Some(manifest.origin.source_of(path));
        self.path = Some(path.to_owned());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn see(mut self, source: Source) -> Self {
        self.related.push(source);
        self
    }

    /// With another severity than the code's own.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Tells whether it stops what it is about.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Sorts findings by place (file, line, column), then code and message, and drops exact repetitions: the order in which
/// they are shown everywhere.
pub fn sort(findings: &mut Vec<Finding>) {
    findings.sort_by(|a, b| {
        (a.source.is_none(), &a.source, &a.resource, a.severity, a.code, &a.message).cmp(&(
            b.source.is_none(),
            &b.source,
            &b.resource,
            b.severity,
            b.code,
            &b.message,
        ))
    });
    findings.dedup();
}
