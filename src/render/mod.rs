//! What people and programs are shown: one [`view`] of a plan and three writers over it (terminal, Markdown, JSON);
//! findings as text, JSON, GitHub's workflow commands and SARIF; tables of what was observed and of what was done.
//!
//! *Promises*: equal input gives equal bytes; text that comes from outside (names, messages of other systems) is escaped
//! for the place it lands in; colour never carries meaning alone. Nothing here prints: every writer is given where to.

pub mod escape;
pub mod findings;
pub mod json;
pub mod markdown;
mod moves;
mod paint;
mod prechecks;
pub mod table;
pub mod text;
mod value;
pub mod view;
pub mod wrap;

pub use paint::Paint;
