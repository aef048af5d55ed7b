//! Words for findings.

pub(super) use crate::yaml::shorten;

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
