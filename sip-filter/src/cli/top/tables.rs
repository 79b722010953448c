//! The two lists.

use std::time::SystemTime;

use ratatui::{
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    model::{Model, Pane},
    view::{coloured, heading, short, short_count},
};
use crate::{
    api::types::{BanEntry, TopSource},
    bans::Target,
    cli::text::{clean, ends, rough},
};

/// A column: its head, its cells, whether numbers (to the right), and how early it gives way when there is no room
/// (0 never does).
struct Column {
    head: &'static str,
    cells: Vec<String>,
    number: bool,
    gives_way: u8,
}

impl Column {
    fn new(head: &'static str, gives_way: u8, cells: impl Iterator<Item = String>) -> Self {
        Self {
            head,
            cells: cells.collect(),
            number: false,
            gives_way,
        }
    }

    fn number(self) -> Self {
        Self { number: true, ..self }
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(self.head.len())
    }
}

/// Lines of columns that fit `width`, the head first. The last column takes what is left and is cut there.
fn lines(mut columns: Vec<Column>, width: usize) -> Vec<String> {
    // The mark, and a space before each column.
    let needed = |columns: &[Column]| {
        let (last, others) = match columns.split_last() {
            Some((last, others)) => (last, others),
            None => return 0,
        };
        // Text that is cut is still text, if some of it is left.
        let last = if last.gives_way == 0 {
            last.width()
        } else {
            last.width().min(10)
        };
        others.iter().map(|column| column.width() + 1).sum::<usize>() + last + 1
    };
    while needed(&columns) > width {
        let weakest = columns
            .iter()
            .enumerate()
            .max_by_key(|(_, column)| column.gives_way);
        match weakest {
            Some((index, column)) if column.gives_way > 0 => columns.remove(index),
            _ => break,
        };
    }
    let rows = columns.first().map_or(0, |column| column.cells.len());
    let widths: Vec<usize> = columns.iter().map(Column::width).collect();
    let line = |text: &dyn Fn(&Column) -> String| {
        let cells = columns.iter().zip(&widths).map(|(column, width)| {
            let text = text(column);
            if column.number {
                format!("{text:>width$}")
            } else {
                format!("{text:<width$}")
            }
        });
        cells.collect::<Vec<_>>().join(" ")
    };
    let head = line(&|column| column.head.to_owned());
    let body = (0..rows).map(|row| line(&|column| column.cells[row].clone()));
    std::iter::once(head).chain(body).collect()
}

/// The rows that are seen with the mark among them: from which on, and how many.
fn seen(rows: usize, room: usize, mark: Option<usize>) -> (usize, usize) {
    let from = mark.unwrap_or(0).saturating_sub(room.saturating_sub(1));
    (from, rows.saturating_sub(from).min(room))
}

/// Puts heading, lines and mark together.
fn list(
    model: &Model,
    pane: Pane,
    title: String,
    (columns, styles): (Vec<Column>, Vec<Style>),
    mark: Option<usize>,
    area: Rect,
) -> Vec<Line<'static>> {
    let active = model.pane == pane;
    let width = usize::from(area.width);
    let mut texts = lines(columns, width).into_iter();
    let head = texts.next().unwrap_or_default();
    // On two lines only if there is room for both and some rows.
    let mut out = if area.height >= 4 {
        vec![
            heading(title, area.width, active),
            Line::styled(format!(" {head}"), Style::new().add_modifier(Modifier::DIM)),
        ]
    } else {
        vec![heading(title, area.width, active)]
    };
    for (row, (text, style)) in texts.zip(styles).enumerate() {
        let marked = active && mark == Some(row);
        let lead = if marked { ">" } else { " " };
        let text: String = text.chars().take(width.saturating_sub(1)).collect();
        let style = if marked {
            style.add_modifier(Modifier::REVERSED)
        } else {
            style
        };
        out.push(Line::from(Span::styled(format!("{lead}{text}"), style)));
    }
    out
}

fn room(area: Rect) -> usize {
    let heads = if area.height >= 4 { 2 } else { 1 };
    usize::from(area.height).saturating_sub(heads)
}

fn filter_note(model: &Model) -> String {
    if model.filter.is_empty() {
        return String::new();
    }
    format!(", filter: {}", clean(&model.filter))
}

pub(super) fn source_rows(model: &Model, area: Rect) -> Vec<Line<'static>> {
    if area.height == 0 {
        return Vec::new();
    }
    let all = model.sources();
    let targets: Vec<Target> = all.iter().map(|source| source.target).collect();
    let mark = model.row(Pane::Sources, &targets);
    let (from, count) = seen(all.len(), room(area), mark);
    let shown = &all[from..from + count];
    let title = format!(
        "TOP SOURCES by {} ({}{})",
        model.sort.name(),
        all.len(),
        filter_note(model)
    );
    let styles = shown
        .iter()
        .map(|source| match source.state() {
            "banned" => coloured(model, Color::Red),
            "limited" => coloured(model, Color::Yellow),
            "allowed" => coloured(model, Color::Green),
            _ => Style::new(),
        })
        .collect();
    let mark = mark.and_then(|mark| mark.checked_sub(from));
    list(
        model,
        Pane::Sources,
        title,
        (source_columns(shown, model.simulates()), styles),
        mark,
        area,
    )
}

pub(super) fn why(source: &TopSource) -> String {
    let rule = source.rule.as_deref().unwrap_or_default();
    let by = source.banned_by.map(|by| format!("in {by}"));
    let parts = [by.as_deref().unwrap_or_default(), rule, &source.reason];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    clean(&parts.join(": ")).into_owned()
}

fn source_columns(sources: &[&TopSource], simulates: bool) -> Vec<Column> {
    let each = |cell: fn(&TopSource) -> String| sources.iter().map(move |source| cell(source));
    let dropped = if simulates { "WOULD/S" } else { "DROP/S" };
    vec![
        Column::new("PKT/S", 0, each(|source| short(source.packets_per_second))).number(),
        Column::new(dropped, 5, each(|source| short(source.dropped_per_second))).number(),
        Column::new("HITS", 4, each(|source| short_count(source.hits))).number(),
        Column::new("SOURCE", 0, each(|source| source.target.to_string())),
        Column::new("STATE", 2, each(|source| source.state().to_owned())),
        Column::new("KNOWN", 6, each(|source| source.standing().to_owned())),
        Column::new(
            "CLASS",
            3,
            each(|source| clean(source.class.as_deref().unwrap_or("-")).into_owned()),
        ),
        Column::new("WHY", 7, each(why)),
    ]
}

pub(super) fn ban_rows(model: &Model, area: Rect, now: SystemTime) -> Vec<Line<'static>> {
    if area.height == 0 {
        return Vec::new();
    }
    let all = model.bans();
    let targets: Vec<Target> = all.iter().map(|ban| ban.target).collect();
    let mark = model.row(Pane::Bans, &targets);
    let (from, count) = seen(all.len(), room(area), mark);
    let shown = &all[from..from + count];
    let total = model.look.as_ref().map_or(0, |look| look.status.bans);
    let title = format!("NEWEST BANS ({} of {total}{})", all.len(), filter_note(model));
    let mark = mark.and_then(|mark| mark.checked_sub(from));
    list(
        model,
        Pane::Bans,
        title,
        (ban_columns(shown, now), vec![Style::new(); shown.len()]),
        mark,
        area,
    )
}

fn ban_columns(bans: &[&BanEntry], now: SystemTime) -> Vec<Column> {
    let each = |cell: fn(&BanEntry) -> String| bans.iter().map(move |ban| cell(ban));
    let age = bans.iter().map(|ban| {
        let age = now.duration_since(ban.created).unwrap_or_default();
        rough(age.as_secs())
    });
    vec![
        Column::new("AGE", 0, age).number(),
        Column::new("ENDS", 1, each(|ban| ends(ban.expires_in_seconds))),
        Column::new("TARGET", 0, each(|ban| ban.target.to_string())),
        Column::new("BY", 3, each(by)),
        Column::new("REASON", 4, each(|ban| clean(&ban.reason).into_owned())),
    ]
}

/// The rule, or who banned without one.
fn by(ban: &BanEntry) -> String {
    clean(ban.rule.as_deref().unwrap_or(&ban.origin)).into_owned()
}
