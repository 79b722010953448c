//! The lexical rules of header values: white space, quotes, lists, parameters, numbers.
//!
//! A folded value still holds its line ends, so CR and LF count as white space here.

pub(super) const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

pub(super) const fn is_white(byte: u8) -> bool {
    is_line_end(byte) || is_space(byte)
}

/// RFC 3261 §25.1: `token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~")`.
pub(super) const fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
        )
}

/// Whether this is a token.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_char(*byte))
}

/// Without the white space around it.
pub(super) const fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// What stands before and after the byte at `index`.
pub(super) fn split_around(text: &[u8], index: usize) -> (&[u8], &[u8]) {
    let (before, from) = text.split_at(index.min(text.len()));
    (before, from.get(1..).unwrap_or_default())
}

/// What stands before and after the first `byte`, quoted or not.
pub(super) fn split_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let index = text.iter().position(|other| *other == byte)?;
    Some(split_around(text, index))
}

/// The first word and what follows it, both without white space around them.
pub(super) fn first_word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = trim(text);
    let end = text.iter().position(|byte| is_white(*byte)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, trim(rest))
}

/// A number in decimal; one too large for 32 bits counts as the largest.
pub(super) fn number(text: &[u8]) -> Option<u32> {
    let text = trim(text);
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u32, |value, byte| {
        let digit = u32::from(byte.checked_sub(b'0')?);
        (digit < 10).then(|| value.saturating_mul(10).saturating_add(digit))
    })
}

/// Where a quoted string ends whose opening quote is not part of `text`: the index of the closing quote.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

/// The first `byte` outside quoted strings. With `angles`, nothing between `<` and `>` counts either.
pub(super) fn find_bare(text: &[u8], byte: u8, angles: bool) -> Option<usize> {
    #[derive(Clone, Copy)]
    enum State {
        Bare,
        Quoted,
        Escaped,
        Angle,
    }
    let mut state = State::Bare;
    text.iter().position(|current| {
        state = match (state, *current) {
            (State::Bare, found) if found == byte => return true,
            (State::Bare, b'<') if angles => State::Angle,
            (State::Bare, b'"') | (State::Escaped, _) => State::Quoted,
            (State::Quoted, b'\\') => State::Escaped,
            (State::Quoted, b'"') | (State::Angle, b'>') => State::Bare,
            (state, _) => state,
        };
        false
    })
}

/// Where the last `<…>` outside quoted strings ends: the index after its `>`, 0 if there is none. A `>` that closes
/// nothing is a character like others.
pub(super) fn closed_angles(text: &[u8]) -> usize {
    let (mut end, mut quoted, mut escaped, mut angle) = (0, false, false, false);
    for (index, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !angle => quoted = !quoted,
            b'<' if !quoted => angle = true,
            b'>' if angle => (end, angle) = (index + 1, false),
            _ => {}
        }
    }
    end
}

/// The values in a list separated by commas, without white space around them; empty ones are left out.
#[derive(Clone, Debug)]
pub(super) struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    pub(super) const fn new(value: &'a [u8]) -> Self {
        Self { rest: value }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = find_bare(self.rest, b',', true).unwrap_or(self.rest.len());
            let (item, rest) = split_around(self.rest, end);
            self.rest = rest;
            let item = trim(item);
            if !item.is_empty() {
                return Some(item);
            }
        }
        None
    }
}

/// A parameter: `name`, `name=value` or `name="value"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param<'a> {
    pub(super) name: &'a [u8],
    /// The value without its quotes, empty where there is none. Quoted pairs stand in it as they came.
    pub(super) value: &'a [u8],
}

/// Iterator over parameters. A quote opens a string at the beginning of a value only, as servers have it. One that
/// is never closed ends the parameters.
#[derive(Clone, Debug)]
pub(super) struct Params<'a> {
    rest: &'a [u8],
    separator: u8,
}

impl<'a> Params<'a> {
    /// The parameters in `text`, which may begin with a separator.
    pub(super) const fn new(text: &'a [u8], separator: u8) -> Self {
        Self {
            rest: text,
            separator,
        }
    }

    /// The value of the first parameter of this name.
    pub(super) fn value_of(&self, name: &str) -> Option<&'a [u8]> {
        self.clone()
            .find(|param| param.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|param| param.value)
    }

    fn up_to_separator(&self, text: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let end = text.iter().position(|byte| *byte == self.separator);
        split_around(text, end.unwrap_or(text.len()))
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        loop {
            self.rest = trim(self.rest);
            if self.rest.is_empty() {
                return None;
            }
            let end = self
                .rest
                .iter()
                .position(|byte| *byte == self.separator || *byte == b'=');
            let (name, after) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            let name = trim(name);
            let mut value = &[][..];
            if let Some((b'=', text)) = after.split_first() {
                let text = trim(text);
                if let Some((b'"', text)) = text.split_first() {
                    let Some(end) = closing_quote(text) else {
                        self.rest = &[];
                        return None;
                    };
                    let (quoted, beyond) = split_around(text, end);
                    value = quoted;
                    (_, self.rest) = self.up_to_separator(beyond);
                } else {
                    let (bare, beyond) = self.up_to_separator(text);
                    value = trim(bare);
                    self.rest = beyond;
                }
            } else {
                self.rest = after.get(1..).unwrap_or_default();
            }
            if !name.is_empty() {
                return Some(Param { name, value });
            }
        }
    }
}

#[cfg(test)]
mod tests;
