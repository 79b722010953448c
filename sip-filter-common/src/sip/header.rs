//! The lines of a message's head, and the headers they make.

use super::text::{closed_angles, is_line_end, is_space};

/// One header as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name, without the space that may stand before the colon.
    pub name: &'a [u8],
    /// The value without surrounding white space. A folded value still holds its line ends: see [`unfold`].
    pub value: &'a [u8],
    /// Whether the end of the value was seen; the last header of a message cut short may go on.
    pub complete: bool,
}

impl<'a> Header<'a> {
    /// The value, unless it may go on or is empty.
    #[must_use]
    pub fn whole(&self) -> Option<&'a [u8]> {
        (self.complete && !self.value.is_empty()).then_some(self.value)
    }

    /// The part of the value that a cut cannot have changed: of one that may go on, all up to the last delimiter. So
    /// half an account's name is never taken for an account.
    #[must_use]
    pub fn whole_part(&self) -> &'a [u8] {
        if self.complete {
            return self.value;
        }
        let separator = self.value.iter().rposition(|byte| matches!(byte, b';' | b','));
        let end = closed_angles(self.value).max(separator.unwrap_or(0));
        self.value.split_at(end.min(self.value.len())).0
    }
}

/// Iterator over the headers of a [`Message`](super::Message).
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
    whole: bool,
}

impl<'a> Headers<'a> {
    /// The headers in what follows a start line, and whether that is all there is of the message.
    pub(super) const fn new(rest: &'a [u8], whole: bool) -> Self {
        Self { rest, whole }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        loop {
            let begin = self.rest;
            let mut line = split_line(begin);
            if line.text.is_empty() {
                // The blank line, or the end of what was captured.
                self.rest = &[];
                return None;
            }
            // A line that begins with white space continues the one before (§7.3.1).
            let mut length = line.text.len();
            while line.ended && line.rest.first().is_some_and(|byte| is_space(*byte)) {
                line = split_line(line.rest);
                length = begin.len() - line.rest.len() - line.end_length;
            }
            self.rest = line.rest;
            let (text, _) = begin.split_at(length.min(begin.len()));
            // Without a colon it is no header; servers skip such a line, and so do we.
            if let Some(colon) = text.iter().position(|byte| *byte == b':') {
                let (name, value) = text.split_at(colon);
                return Some(Header {
                    name: name.trim_ascii(),
                    value: value.get(1..).unwrap_or_default().trim_ascii(),
                    // After a line end, more of the value can still follow on a folded line.
                    complete: self.whole || line.ended && !line.rest.is_empty(),
                });
            }
        }
    }
}

/// The bytes of a header's value with every fold (a line end and the white space around it) turned into one space.
pub fn unfold(value: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = value;
    core::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if !is_space(byte) && !is_line_end(byte) {
            return Some(byte);
        }
        let run = after
            .iter()
            .position(|byte| !is_space(*byte) && !is_line_end(*byte))
            .unwrap_or(after.len());
        let (space, beyond) = after.split_at(run);
        if is_line_end(byte) || space.iter().any(|byte| is_line_end(*byte)) {
            rest = beyond;
            return Some(b' ');
        }
        Some(byte)
    })
}

pub(super) struct Line<'a> {
    /// The line without its end.
    pub(super) text: &'a [u8],
    /// What follows the line's end.
    pub(super) rest: &'a [u8],
    /// Length of the line's end: 2, 1, or 0 where the text ran out.
    pub(super) end_length: usize,
    /// Whether there was an end.
    pub(super) ended: bool,
}

/// Splits at the first LF, or CR LF.
pub(super) fn split_line(bytes: &[u8]) -> Line<'_> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        // A CR whose LF was cut off belongs to the line's end.
        let text = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        return Line {
            text,
            rest: &[],
            end_length: bytes.len() - text.len(),
            ended: false,
        };
    };
    let (line, rest) = bytes.split_at(end);
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    Line {
        text,
        rest: rest.get(1..).unwrap_or_default(),
        end_length: line.len() - text.len() + 1,
        ended: true,
    }
}

#[cfg(test)]
mod tests;
