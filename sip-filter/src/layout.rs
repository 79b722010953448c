//! Columns and lines that fit a terminal. Words are never broken: an address cut in two is no address.

use ratatui::text::Span;

/// Text that is left for the last column must have at least this room, or it gets lines of its own.
const LEAST: usize = 20;

/// Spaces between columns.
const GAP: usize = 2;

/// How far lines that belong to the one above are set in.
const INDENT: usize = 4;

/// Columns under a header, without lines. `width` is that of the terminal, if there is one to fit into: the last column
/// is then wrapped, and if there is no room for that, the last columns of each row follow on a line of their own, with
/// their names.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(index, head)| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            cells.map(|cell| columns(cell)).max().unwrap_or(0).max(head.len())
        })
        .collect();
    let width = width.map_or(usize::MAX, usize::from);
    let before = |count: usize| widths[..count].iter().map(|width| width + GAP).sum::<usize>();
    let last = header.len().saturating_sub(1);
    let fits = before(last) + widths.last().copied().unwrap_or(0) <= width;
    let mut text = String::new();
    if fits || before(last) + LEAST <= width {
        let room = width.saturating_sub(before(last));
        line(&mut text, header, &widths);
        for row in rows {
            let (cells, end) = row.split_at(last.min(row.len()));
            let end = end.first().map_or("", String::as_str);
            let mut parts = wrap(end, room, room).into_iter();
            let first = parts.next().unwrap_or_default();
            let cells: Vec<&str> = cells.iter().map(String::as_str).chain([first.as_str()]).collect();
            line(&mut text, &cells, &widths);
            for part in parts {
                text.push_str(&" ".repeat(before(last)));
                text.push_str(&part);
                text.push('\n');
            }
        }
        return text;
    }
    // As many columns as fit; one at least.
    let count = (1..=last)
        .rev()
        .find(|count| before(*count) <= width + GAP)
        .unwrap_or(1);
    line(&mut text, &header[..count], &widths);
    for row in rows {
        let cells: Vec<&str> = row[..count.min(row.len())].iter().map(String::as_str).collect();
        line(&mut text, &cells, &widths);
        let others = header.iter().zip(row).skip(count);
        let named = others
            .filter(|(_, cell)| !cell.is_empty() && *cell != "-")
            .map(|(head, cell)| format!("{}: {cell}", head.to_lowercase()));
        let named = named.collect::<Vec<_>>().join(", ");
        for part in wrap(&named, width.saturating_sub(INDENT), width.saturating_sub(INDENT)) {
            if !part.is_empty() {
                text.push_str(&" ".repeat(INDENT));
                text.push_str(&part);
                text.push('\n');
            }
        }
    }
    text
}

fn line(text: &mut String, cells: &[&str], widths: &[usize]) {
    let start = text.len();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(cell);
        text.push_str(&" ".repeat((width + GAP).saturating_sub(columns(cell))));
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

/// Lines broken between words where they are wider than the terminal; what follows is set in further than the line.
pub(crate) fn wrapped(text: &str, width: Option<u16>) -> String {
    let Some(width) = width.map(usize::from) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let body = line.trim_start();
        let lead = line.len() - body.len();
        let indent = lead + INDENT;
        let parts = wrap(body, width.saturating_sub(lead), width.saturating_sub(indent));
        for (number, part) in parts.iter().enumerate() {
            out.push_str(&" ".repeat(if number == 0 { lead } else { indent }));
            out.push_str(part);
            out.push('\n');
        }
    }
    out
}

/// Breaks a line between words into a first part of at most `first` columns and others of at most `room`; a word that
/// is longer stays whole.
fn wrap(text: &str, first: usize, room: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = columns(word);
        let limit = if parts.len() == 1 { first } else { room };
        match parts.last_mut() {
            Some(part) if used == 0 && part.is_empty() => {
                part.push_str(word);
                used = length;
            }
            Some(part) if used + 1 + length <= limit => {
                part.push(' ');
                part.push_str(word);
                used += 1 + length;
            }
            _ => {
                parts.push(word.to_owned());
                used = length;
            }
        }
    }
    parts
}

/// Columns that text takes on a terminal; what sets a colour takes none.
fn columns(text: &str) -> usize {
    let mut rest = text;
    let mut sum = 0;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        sum += Span::raw(before).width();
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    sum + Span::raw(rest).width()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "2001:db8:1111:2222:3333:4444:5555:6666";

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        vec![
            row([
                LONG,
                "in 59m",
                "scanner-signature",
                "User-Agent of a scanner in 12 requests",
            ]),
            row(["192.0.2.1", "never", "-", ""]),
        ]
    }

    const HEADER: [&str; 4] = ["TARGET", "ENDS", "RULE", "REASON"];

    #[test]
    fn wide_enough_is_one_line_each() {
        for width in [None, Some(107), Some(200)] {
            let text = table(&HEADER, &rows(), width);
            assert_eq!(
                text,
                format!(
                    "TARGET                                  ENDS    RULE               REASON\n\
                     {LONG}  in 59m  scanner-signature  User-Agent of a scanner in 12 requests\n\
                     192.0.2.1                               never   -\n"
                )
            );
        }
    }

    #[test]
    fn the_last_column_is_wrapped_between_words() {
        let text = table(&HEADER, &rows(), Some(92));
        assert!(text.lines().all(|line| line.len() <= 92), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.contains(&format!("\n{}in 12 requests", " ".repeat(67))),
            "{text}"
        );
    }

    #[test]
    fn what_has_no_room_follows_below() {
        assert_eq!(
            table(&HEADER, &rows(), Some(60)),
            format!(
                "TARGET                                  ENDS\n\
                 {LONG}  in 59m\n    \
                     rule: scanner-signature, reason: User-Agent of a scanner\n    \
                     in 12 requests\n\
                 192.0.2.1                               never\n"
            )
        );
        // Too narrow for an address: it stays whole.
        assert!(table(&HEADER, &rows(), Some(10)).contains(LONG));
        assert_eq!(table(&HEADER, &[], Some(0)).lines().count(), 1);
    }

    #[test]
    fn sentences_break_between_words() {
        let text = format!("one\n  the source {LONG} is banned\n");
        assert_eq!(wrapped(&text, None), text);
        assert_eq!(wrapped(&text, Some(80)), text);
        assert_eq!(
            wrapped(&text, Some(45)),
            format!("one\n  the source\n      {LONG}\n      is banned\n")
        );
        assert_eq!(columns("\u{1b}[1;31mFAILED\u{1b}[0m: 漢"), 10);
    }
}
