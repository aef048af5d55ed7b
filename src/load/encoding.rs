//! From bytes to text, and from offsets to lines and columns.

use crate::finding::{Code, Finding, Source};
use crate::yaml::number;

/// Turns a file's bytes into text, or says why that is not possible.
pub(super) fn decode<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Finding>> {
    let refuse = |offset: usize, what: String| {
        let (line, column) = place_of(bytes, offset);
        Finding::new(Code::NotUtf8, format!("{what} at byte {offset}"))
            .at(Source { file: file.to_owned(), line, column })
            .hint("save the file as UTF-8 text")
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Box::new(refuse(0, "the file looks like UTF-16: byte order mark".into())));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        Box::new(refuse(
            at,
            format!("the byte 0x{:02x} is not part of UTF-8 text", bytes.get(at).copied().unwrap_or(0)),
        ))
    })?;
    if let Some(at) = text.bytes().position(|b| (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) || b == 0x7f) {
        let byte = bytes[at];
        let what = if byte == 0 { "a NUL byte".into() } else { format!("the control character 0x{byte:02x}") };
        return Err(Box::new(refuse(at, what)));
    }
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Line and column of a byte offset.
fn place_of(bytes: &[u8], offset: usize) -> (u32, u32) {
    let before = &bytes[..offset.min(bytes.len())];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    (number(line), number(column))
}
