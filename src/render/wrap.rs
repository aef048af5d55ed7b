//! Lines that are no longer than a terminal is wide: broken between words, and further in than where they began, so that
//! the columns that the eye follows stay free. Colours count as nothing.

use std::io::{self, Write};

/// Narrower than this nothing is wrapped any more: there would be no room beside the indent.
const NARROWEST: usize = 40;

/// How much further in a line goes on.
const HANG: usize = 4;

/// Wraps what is written through it.
pub struct Wrapped<W: Write> {
    to: W,
    width: usize,
    line: Vec<u8>,
}

impl<W: Write> Wrapped<W> {
    /// Lines of at most `width` characters.
    pub fn new(to: W, width: usize) -> Self {
        Self { to, width, line: Vec::new() }
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        match std::str::from_utf8(&line) {
            // Bytes are never fewer than what is seen.
            Ok(text) if self.width >= NARROWEST && text.len() > self.width => {
                for (i, part) in wrap(text, self.width).iter().enumerate() {
                    if i > 0 {
                        self.to.write_all(b"\n")?;
                    }
                    self.to.write_all(part.as_bytes())?;
                }
                Ok(())
            }
            _ => self.to.write_all(&line),
        }
    }
}

impl<W: Write> Write for Wrapped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            match part.split_last() {
                Some((b'\n', text)) => {
                    self.line.extend_from_slice(text);
                    self.end_line()?;
                    self.to.write_all(b"\n")?;
                }
                _ => self.line.extend_from_slice(part),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.end_line()?;
        self.to.flush()
    }
}

/// A line in parts of at most `width` visible characters, where there is a blank to break at.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let indent = line.len() - line.trim_start_matches(' ').len();
    // Halfway in at most: a deep indent must not leave a column of single words.
    let hang = " ".repeat((indent + HANG).min(width / 2));
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut seen = 0;
    // The last blank that may be broken at: where in `part`, and what was seen up to it.
    let mut blank: Option<(usize, usize)> = None;
    let mut in_colour = false;
    let mut begun = false;
    for c in line.chars() {
        if c == '\u{1b}' {
            in_colour = true;
        }
        if in_colour {
            part.push(c);
            in_colour = c != 'm';
            continue;
        }
        if c == ' ' && begun {
            blank = Some((part.len(), seen));
        }
        begun |= c != ' ';
        part.push(c);
        seen += 1;
        if seen > width
            && let Some((at, before)) = blank.take()
        {
            let rest = part.split_off(at);
            parts.push(std::mem::take(&mut part));
            part.push_str(&hang);
            part.push_str(rest.trim_start_matches(' '));
            seen = hang.len() + (seen - before).saturating_sub(1);
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(text: &str, width: usize) -> String {
        let mut out = Vec::new();
        let mut to = Wrapped::new(&mut out, width);
        to.write_all(text.as_bytes()).unwrap();
        to.flush().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_long_line_goes_on_further_in_and_breaks_between_words() {
        let text = "  = hint: the others go all the same; what is named has to be moved by hand\nshort\n";
        let shown = wrapped(text, 44);
        assert_eq!(
            shown,
            "  = hint: the others go all the same; what\n      is named has to be moved by hand\nshort\n"
        );
        assert!(shown.lines().all(|l| l.chars().count() <= 44));
    }

    #[test]
    fn colours_take_no_room_and_a_word_that_is_too_long_stays_whole() {
        let coloured = format!("\u{1b}[31m{}\u{1b}[0m {}", "a".repeat(40), "b".repeat(60));
        assert_eq!(wrapped(&coloured, 45), format!("\u{1b}[31m{}\u{1b}[0m\n    {}", "a".repeat(40), "b".repeat(60)));
        let fits = format!("\u{1b}[31m{}\u{1b}[0m end", "a".repeat(40));
        assert_eq!(wrapped(&fits, 45), fits);
        assert_eq!(wrapped(&"x ".repeat(100), 20), "x ".repeat(100), "a terminal that is too narrow is left alone");
    }
}
