//! Where a command writes: results to standard output, everything else to standard error.

use super::args::{Global, When};
use super::exit::CliError;
use crate::finding::Severity;
use crate::render::Paint;
use crate::render::escape::line as terminal;
use crate::render::wrap::Wrapped;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

/// A command's two outputs, and what they can show.
pub struct Output {
    /// Results.
    pub stdout: Box<dyn Write>,
    /// Colour for `stdout`.
    pub paint: Paint,
    /// Colour for standard error.
    pub err_paint: Paint,
    /// Whether progress may be drawn: standard error is a terminal that can.
    pub bars: bool,
    /// Characters in a line of `stdout`, where it is a terminal.
    pub width: Option<usize>,
    /// The same of standard error.
    err_width: Option<usize>,
}

/// Wide enough that no line is broken: for what is not a terminal.
const ANY_WIDTH: usize = usize::MAX;

fn width<T: AsFd>(of: &T) -> Option<usize> {
    terminal_size::terminal_size_of(of).map(|(width, _)| usize::from(width.0))
}

impl Output {
    /// The process's own outputs. This is where flags, `NO_COLOR`, `TERM` and the terminal are weighed.
    pub fn of_process(global: &Global) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let colour = |is_terminal: bool| match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => is_terminal && !dumb && !set("NO_COLOR"),
        };
        Self {
            stdout: Box::new(io::stdout()),
            paint: Paint(colour(stdout)),
            err_paint: Paint(colour(stderr)),
            bars: stderr && !dumb && global.color != When::Never,
            width: width(&io::stdout()),
            err_width: width(&io::stderr()),
        }
    }

    /// `stdout` for text: on a terminal its lines are broken between words. To be flushed in the end.
    pub fn prose(&mut self) -> Wrapped<&mut dyn Write> {
        Wrapped::new(&mut *self.stdout, self.width.unwrap_or(ANY_WIDTH))
    }

    /// The same for standard error.
    fn err_prose(&self) -> Wrapped<io::Stderr> {
        Wrapped::new(io::stderr(), self.err_width.unwrap_or(ANY_WIDTH))
    }

    /// Tells the user something that is not the result. Nobody reading is no reason to stop.
    pub fn note(&self, text: &str) {
        let _ = writeln!(self.err_prose(), "{}", terminal(text));
    }

    /// Warns.
    pub fn warn(&self, text: &str) {
        self.labelled(Severity::Warning, text, None);
    }

    /// Shows why a command failed.
    pub fn error(&self, error: &CliError) {
        self.labelled(Severity::Error, &error.text(), error.hint_text());
    }

    fn labelled(&self, severity: Severity, text: &str, hint: Option<&str>) {
        let label = format!("{severity}:");
        let label = match severity {
            Severity::Error => self.err_paint.red(&label),
            Severity::Warning => self.err_paint.yellow(&label),
            Severity::Info => self.err_paint.cyan(&label),
        };
        let mut stderr = self.err_prose();
        let _ = writeln!(stderr, "{label} {}", terminal(text));
        if let Some(hint) = hint {
            let _ = writeln!(stderr, "\nhint: {}", terminal(hint));
        }
    }
}

#[cfg(test)]
impl Output {
    /// Outputs of which a test reads the first: a terminal of this width, or none.
    pub fn into(stdout: Box<dyn Write>, width: Option<usize>) -> Self {
        let no = Paint(false);
        Self { stdout, paint: no, err_paint: no, bars: false, width, err_width: width }
    }
}
