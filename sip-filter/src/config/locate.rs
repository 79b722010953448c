//! Finds the line of a key in a file, and the key at a place.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// A parsed file with the place of every key and value.
pub(super) struct Located<'a> {
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

impl<'a> Located<'a> {
    /// Parses `text`.
    pub(super) fn parse(text: &'a str) -> Result<Self, toml::de::Error> {
        Ok(Self {
            text,
            root: DeTable::parse(text)?,
        })
    }

    /// The dotted key whose name or value lies at `span`.
    pub(super) fn key_at(&self, span: &Range<usize>) -> Option<String> {
        key_in(self.root.get_ref(), span)
    }

    /// The line of an error at `span`. Of an array toml names only the whole; the element is the one that the
    /// message quotes.
    pub(super) fn line_of_error(&self, span: &Range<usize>, message: &str) -> usize {
        let element = array_at(self.root.get_ref(), span).and_then(|array| {
            array.iter().find(|element| {
                element
                    .get_ref()
                    .as_str()
                    .is_some_and(|text| message.contains(&format!("`{text}`")))
            })
        });
        line_at(
            self.text,
            element.map_or(span.start, |element| element.span().start),
        )
    }

    /// The line of a dotted key, if the file has it.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        let mut table = self.root.get_ref();
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            let value = table.get(part)?;
            match value.get_ref() {
                DeValue::Table(inner) if parts.peek().is_some() => table = inner,
                _ => return Some(line_at(self.text, value.span().start)),
            }
        }
        None
    }
}

/// The line, counted from 1, of a byte offset.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn key_in(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        // The table's own span may be its header only, so its contents are searched whatever it says.
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(rest) = key_in(inner, span)
        {
            return Some(format!("{name}.{rest}"));
        }
        let holds = |outer: Range<usize>| outer.start <= span.start && span.start < outer.end;
        (holds(key.span()) || holds(value.span())).then(|| name.to_string())
    })
}

fn array_at<'t, 'a>(table: &'t DeTable<'a>, span: &Range<usize>) -> Option<&'t DeArray<'a>> {
    table.iter().find_map(|(_, value)| match value.get_ref() {
        DeValue::Table(inner) => array_at(inner, span),
        DeValue::Array(array) if value.span() == *span => Some(array),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_lines() {
        let text = "a = 1\n\n[b.c]\nd = [1,\n 2]\n[e]\nf.g = 'x'\n";
        let file = Located::parse(text).unwrap();
        assert_eq!(file.line_of("a"), Some(1));
        assert_eq!(file.line_of("b.c.d"), Some(4));
        assert_eq!(file.line_of("e.f.g"), Some(7));
        assert_eq!(file.line_of("e.f.h"), None);
        assert_eq!(file.line_of("z"), None);
        let at = |needle: &str| {
            let start = text.find(needle).unwrap();
            file.key_at(&(start..start + 1))
        };
        assert_eq!(at("1\n\n").as_deref(), Some("a"));
        assert_eq!(at(" 2]").as_deref(), Some("b.c.d"));
        assert_eq!(at("'x'").as_deref(), Some("e.f.g"));
    }
}
