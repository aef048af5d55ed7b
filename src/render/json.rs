//! JSON, streamed: a plan of any size is never built as one text.

use serde::Serialize;
use std::io::{self, Write};

/// Writes a value as indented JSON with a newline at its end.
pub fn write<T: Serialize>(out: &mut dyn Write, value: &T) -> io::Result<()> {
    let mut buffered = io::BufWriter::with_capacity(1 << 16, out);
    serde_json::to_writer_pretty(&mut buffered, value).map_err(io::Error::from)?;
    buffered.write_all(b"\n")?;
    buffered.flush()
}
