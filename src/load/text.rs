//! Words for findings.

pub(super) use crate::finding::nearest;

/// A foreign text for use in a message: at most 60 characters, control characters escaped.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    // Within backticks quotes need no escape.
    short = short.replace("\\'", "'").replace("\\\"", "\"");
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

/// `a`, `b` or `c`: quoted words, at most 12 of them.
pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|w| format!("`{}`", shorten(w))).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        many if many.len() > 12 => format!("{}, … ({} in all)", many[..12].join(", "), many.len()),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// A JSON pointer as people write it: `/spec/disks/0/size` is `spec.disks[0].size`.
pub(super) fn path(pointer: &str) -> String {
    let mut out = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            out += &format!("[{part}]");
        } else if !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            if !out.is_empty() {
                out.push('.');
            }
            out += &part;
        } else {
            out += &format!("[\"{}\"]", shorten(&part));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let fields = ["memory", "maxMemory", "machine", "cpus", "host"];
        assert_eq!(nearest("memroy", fields), Some("memory"));
        assert_eq!(nearest("Memory", fields), Some("memory"));
        assert_eq!(nearest("cpu", fields), Some("cpus"));
        assert_eq!(nearest("hots", fields), Some("host"));
        assert_eq!(nearest("banana", fields), None);
        assert_eq!(nearest(&"m".repeat(1 << 20), fields), None);
    }

    #[test]
    fn pointers_read_as_people_write_them() {
        assert_eq!(path("/spec/disks/0/size"), "spec.disks[0].size");
        assert_eq!(path("/metadata/annotations/drover~1adopt"), "metadata.annotations[\"drover/adopt\"]");
        assert_eq!(path(""), "");
    }

    #[test]
    fn foreign_text_is_shortened_and_harmless() {
        assert_eq!(shorten("a\u{1b}[31m\u{202e}"), "a\\u{1b}[31m\\u{202e}");
        assert_eq!(shorten("it's \"so\""), "it's \"so\"");
        assert_eq!(shorten(&"x".repeat(100)).chars().count(), 61);
    }
}
