//! Makes text from outside harmless for the place it is shown in.

use std::borrow::Cow;
use std::fmt::Write;

/// Text for one line of a terminal or a log: control characters (ESC, CR, BEL, C1), bidirectional overrides and invisible
/// characters are written out as `\u{…}`.
pub fn terminal(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Text for a paragraph or table cell of GitHub's or GitLab's Markdown, where it appears as it is: no emphasis, link,
/// mention, HTML or table border comes of it.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in terminal(text).chars() {
        match c {
            '&' | '<' | '>' | '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '@' | '~' | '!' | '$' => {
                // An entity is text in every position, also where a backslash would be shown.
                let _ = write!(out, "&#{};", c as u32);
            }
            _ => out.push(c),
        }
    }
    out
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
