//! Colour for terminals.

use std::borrow::Cow;

/// Puts colour around text, or leaves it as it is. What is painted must say the same without colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    fn sgr<'a>(self, code: &str, text: &'a str) -> Cow<'a, str> {
        if self.0 && !text.is_empty() { Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m")) } else { Cow::Borrowed(text) }
    }

    /// Made, done.
    pub fn green(self, text: &str) -> Cow<'_, str> {
        self.sgr("32", text)
    }

    /// Removed, failed.
    pub fn red(self, text: &str) -> Cow<'_, str> {
        self.sgr("31", text)
    }

    /// Changed, held back.
    pub fn yellow(self, text: &str) -> Cow<'_, str> {
        self.sgr("33", text)
    }

    /// Moved.
    pub fn cyan(self, text: &str) -> Cow<'_, str> {
        self.sgr("36", text)
    }

    /// Headings.
    pub fn bold(self, text: &str) -> Cow<'_, str> {
        self.sgr("1", text)
    }

    /// Side notes.
    pub fn dim(self, text: &str) -> Cow<'_, str> {
        self.sgr("2", text)
    }
}
