//! One edit of a domain definition: what `xmlPatches` holds and what a plan says about a definition.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One edit. `at` selects elements by a small subset of XPath: `/domain/devices/disk[target/@dev='vda']/driver`; each
/// step is a name or `*` and may carry `[@attr='v']`, `[child/@attr='v']`, `[child='text']` or `[n]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Edit {
    /// Sets the text of the element at `at`, making the element where its parent has none.
    SetText {
        /// Which element.
        at: String,
        /// Its new text.
        text: String,
    },
    /// Sets an attribute of the element at `at`, making the element where its parent has none.
    SetAttribute {
        /// Which element.
        at: String,
        /// The attribute.
        name: String,
        /// Its new value.
        value: String,
    },
    /// Removes an attribute.
    RemoveAttribute {
        /// Which element.
        at: String,
        /// The attribute.
        name: String,
    },
    /// Adds an element as the last child of the one at `at`.
    Add {
        /// Which parent.
        at: String,
        /// The element.
        xml: String,
    },
    /// Puts an element in the place of the one at `at`, or adds it to the parent where there is none.
    Replace {
        /// Which element.
        at: String,
        /// The new element.
        xml: String,
    },
    /// Removes every element that `at` selects.
    Remove {
        /// Which elements.
        at: String,
    },
}

impl Edit {
    /// Where it edits: its selector.
    pub fn at(&self) -> &str {
        match self {
            Self::SetText { at, .. }
            | Self::SetAttribute { at, .. }
            | Self::RemoveAttribute { at, .. }
            | Self::Add { at, .. }
            | Self::Replace { at, .. }
            | Self::Remove { at } => at,
        }
    }
}

/// Why an edit cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The definition or a fragment is not XML.
    #[error("not XML: {0}")]
    NotXml(String),
    /// The selector is not of the supported form.
    #[error("`{selector}` is not a selector: {why}")]
    Selector {
        /// The selector.
        selector: String,
        /// What is wrong with it.
        why: String,
    },
    /// The selector selects nothing.
    #[error("`{0}` selects nothing in the definition")]
    Nothing(String),
}
