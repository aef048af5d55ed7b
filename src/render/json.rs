//! JSON, streamed: a plan of any size is never built as one text.

use super::escape;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::io::{self, Write};

/// Writes a value as indented JSON with a newline at its end. Characters that a terminal would obey are written as
/// escapes, so that the value is the same and looking at it is safe.
pub fn write<T: Serialize>(out: &mut dyn Write, value: &T) -> io::Result<()> {
    let mut buffered = io::BufWriter::with_capacity(1 << 16, out);
    value.serialize(&mut Serializer::with_formatter(&mut buffered, Harmless(PrettyFormatter::new())))?;
    buffered.write_all(b"\n")?;
    buffered.flush()
}

/// Indented, with harmless strings.
struct Harmless<'a>(PrettyFormatter<'a>);

/// Hands calls on as they are.
macro_rules! hand_on {
    ($($name:ident($($argument:ident: $type:ty)?);)+) => { $(
        fn $name<W: ?Sized + Write>(&mut self, out: &mut W $(, $argument: $type)?) -> io::Result<()> {
            self.0.$name(out $(, $argument)?)
        }
    )+ };
}

impl Formatter for Harmless<'_> {
    hand_on! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        out.write_all(escape::json(fragment).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn strings_are_harmless_and_the_value_stays_the_same() {
        let value = json!({"a\u{202e}": ["\u{9b}31m \u{1b}[0m \n \"", 1.5, null, [], {}], "b": "ä ✓"});
        let mut out = Vec::new();
        write(&mut out, &value).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains(['\u{202e}', '\u{9b}', '\u{1b}']), "{text}");
        assert!(text.contains("ä ✓"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        let plain = serde_json::to_string_pretty(&json!({"a": [1, {"b": []}]})).unwrap() + "\n";
        let mut out = Vec::new();
        write(&mut out, &json!({"a": [1, {"b": []}]})).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), plain);
    }
}
