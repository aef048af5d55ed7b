//! Plans and findings as text, Markdown, JSON, SARIF: one view, several writers. Does not print.

pub mod escape;
pub mod findings;
