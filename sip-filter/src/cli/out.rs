//! Where output goes: data to standard output, the rest to standard error.

use std::{
    fmt::Display,
    io::{self, BufWriter, IsTerminal as _, Write},
};

use serde::Serialize;

use super::{
    args::{Format, Global},
    exit::Error,
    text::wrapped,
};

/// Standard output and standard error, in the form the user asked for.
pub struct Out {
    /// The form.
    pub format: Format,
    quiet: bool,
    colour: bool,
    data: BufWriter<Box<dyn Write + Send>>,
}

impl Out {
    /// For this process.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        let stdout = io::stdout();
        // https://no-color.org: set and not empty.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format: global.output,
            quiet: global.quiet,
            colour: stdout.is_terminal() && !refused,
            data: BufWriter::new(Box::new(stdout)),
        }
    }

    /// Width to fit tables into; none when the output is not a terminal.
    pub(super) fn width(&self) -> Option<u16> {
        if !io::stdout().is_terminal() {
            return None;
        }
        // One that does not know its size has none: nothing is wrapped.
        let (width, _) = ratatui::crossterm::terminal::size().ok()?;
        (width > 0).then_some(width)
    }

    /// Whether colours are wanted.
    pub(super) const fn colours(&self) -> bool {
        self.colour
    }

    /// `text` in a colour that says "look here", if colours are wanted.
    pub(super) fn alert(&self, text: &str) -> String {
        if self.colour {
            format!("\x1b[1;31m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Writes text as it is.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Error> {
        self.data.write_all(text.as_bytes()).map_err(Error::Output)
    }

    /// Writes sentences, on a terminal broken between words.
    pub(super) fn sentences(&mut self, text: &str) -> Result<(), Error> {
        let text = wrapped(text, self.width());
        self.line(text.trim_end_matches('\n'))
    }

    /// Writes a line.
    pub(super) fn line(&mut self, line: impl Display) -> Result<(), Error> {
        writeln!(self.data, "{line}").map_err(Error::Output)
    }

    /// Writes what was changed, unless quiet.
    pub(super) fn changed(&mut self, line: impl Display) -> Result<(), Error> {
        if self.quiet {
            return Ok(());
        }
        self.line(line)
    }

    /// Writes JSON on one line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.data, value).map_err(|error| Error::Output(error.into()))?;
        self.text("\n")
    }

    /// Writes fields separated by tabs; a missing one is `-`, since shells swallow empty fields.
    pub(super) fn raw(&mut self, fields: &[&str]) -> Result<(), Error> {
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                self.text("\t")?;
            }
            // Tabs and line ends, among others, would break the format.
            self.text(if field.is_empty() { "-" } else { "" })?;
            self.text(&super::text::clean(field))?;
        }
        self.text("\n")
    }

    /// Whether only data and errors are wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Hands over what was written so far.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.data.flush().map_err(Error::Output)
    }

    /// Says something on standard error, unless quiet.
    pub(super) fn note(&self, line: impl Display) {
        if !self.quiet {
            self.warn(line);
        }
    }

    /// Says something on standard error. If nobody listens there, nobody can be told.
    pub(super) fn warn(&self, line: impl Display) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}
