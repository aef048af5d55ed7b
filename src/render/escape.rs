//! Foreign text made harmless: for terminals, Markdown, JSON and the workflow commands of GitHub.
//!
//! Names, messages and values come from repositories, hypervisors and guests. Whatever of them is shown goes through one
//! of these functions, so that it cannot move the cursor, forge a line, reverse what is read, or become markup.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Tells whether a character changes how the text around it is shown, or is not shown itself: C0, DEL and C1 controls,
/// bidirectional controls, invisible and separating characters, language tags.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escape_if<'a>(text: &'a str, dangerous: impl Fn(char) -> bool) -> Cow<'a, str> {
    if !text.contains(&dangerous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if dangerous(c) => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' if dangerous(c) => out.push_str("\\t"),
            c if dangerous(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A text for one line of a terminal or a log: line breaks and tabs are escaped too.
pub fn line(text: &str) -> Cow<'_, str> {
    escape_if(text, is_dangerous)
}

/// A text of several lines for a terminal: line breaks and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape_if(text, |c| is_dangerous(c) && c != '\n' && c != '\t')
}

/// A text within Markdown (paragraph, list, table cell), shown as it is: no emphasis, link, mention, HTML or table edge
/// comes of it. On one line.
pub fn markdown(text: &str) -> String {
    let text = line(text);
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // GitHub and GitLab look for mentions and issues in what was rendered, where a reference is a character
            // again: a comment behind it ends the word.
            '@' | '#' => {
                let _ = write!(out, "&#{};<!-- -->", u32::from(c));
            }
            // As references, not with backslashes: these hold within table cells, HTML and autolinks alike. `:` would
            // make a bare address a link.
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '!' | '|' | '~' | ':' | '"' | '\'' | '$' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    // At the beginning of a line these make lists, headings and quotes; a bare `www.` makes a link.
    if let Some(first) = out.chars().next().filter(|c| matches!(c, '-' | '+' | '=' | '.')) {
        out.replace_range(..1, &format!("&#{};", u32::from(first)));
    }
    out.replace("www.", "www&#46;")
}

/// A name or value within Markdown, as code. On one line, fit for table cells.
pub fn markdown_code(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || " -_./:=+,()[]{}#@*'\"<>&~!%^;$?".contains(c);
    if !text.is_empty() && text.trim() == text && text.chars().all(plain) {
        return format!("`{text}`");
    }
    format!("<code>{}</code>", markdown(text))
}

/// A block of several lines within Markdown, as code of a language (`diff`), with a fence that nothing in it closes.
pub fn markdown_block(text: &str, language: &str) -> String {
    let text = lines(text);
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

/// JSON text in which no string shows anything but itself: the characters that JSON allows and terminals obey are written
/// as escapes. They can only stand within strings, so the value stays the same.
pub fn json(text: &str) -> Cow<'_, str> {
    let dangerous = |c: char| is_dangerous(c) && c != '\n';
    if !text.contains(dangerous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if dangerous(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The message of a GitHub workflow command.
pub fn github_message(text: &str) -> String {
    lines(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a GitHub workflow command.
pub fn github_property(text: &str) -> String {
    line(text).replace('%', "%25").replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOSTILE: &str =
        "a\u{1b}[31m\r\n\u{7}\u{9b}2J\u{202e}\u{200b}\u{7f}\u{1b}]8;;http://x\u{1b}\\`|<b>[x](javascript:y) @all #1";

    #[test]
    fn a_terminal_shows_controls_instead_of_obeying_them() {
        assert_eq!(line("plain – ä 漢"), "plain – ä 漢");
        assert!(matches!(line("plain"), Cow::Borrowed(_)));
        assert_eq!(line("a\u{1b}[2J\r\n\t\u{9b}\u{202e}"), "a\\u{1b}[2J\\r\\n\\t\\u{9b}\\u{202e}");
        assert_eq!(lines("a\n\tb\rc\u{1b}"), "a\n\tb\\rc\\u{1b}");
    }

    #[test]
    fn markdown_is_not_made_by_names() {
        let shown = markdown(HOSTILE);
        for bad in ["<b>", "](", "`", "|", "@all", " #1", "\n", "http://", "javascript:"] {
            assert!(!shown.contains(bad), "{bad:?} in {shown}");
        }
        assert_eq!(markdown("web-1 at kvm-a.example.com"), "web-1 at kvm-a.example.com");
        assert_eq!(markdown("- x"), "&#45; x");
        assert_eq!(markdown_code("web-1"), "`web-1`");
        assert_eq!(markdown_code("a`b|c"), "<code>a&#96;b&#124;c</code>");
    }

    #[test]
    fn a_block_is_not_closed_by_what_is_in_it() {
        let block = markdown_block("+ ````\n+ x\u{1b}\n", "diff");
        assert_eq!(block, "`````diff\n+ ````\n+ x\\u{1b}\n`````\n");
    }

    #[test]
    fn workflow_commands_are_not_forged() {
        assert_eq!(github_message("a\n::error::b%"), "a%0A::error::b%25");
        assert_eq!(github_property("a,line=3:b"), "a%2Cline=3%3Ab");
    }

    proptest! {
        #[test]
        fn nothing_dangerous_gets_through(text in "\\PC*|[\u{0}-\u{a0}\u{2000}-\u{2070}`|<>&]*") {
            prop_assert!(!line(&text).contains(is_dangerous));
            prop_assert!(!markdown(&text).contains(is_dangerous));
            prop_assert!(!markdown(&text).replace("<!-- -->", "").contains(['|', '`', '<', '[', '\n']));
            prop_assert!(!markdown_code(&text).contains(is_dangerous));
            let written = serde_json::to_string(&text).unwrap();
            let safe = json(&written);
            prop_assert!(!safe.contains(is_dangerous));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
    }
}
