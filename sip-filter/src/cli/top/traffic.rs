//! Packets by verdict and by class: the last second, all since the start, and the last minutes as bars.

use std::collections::BTreeMap;

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    model::{Look, Model, Terminal},
    view::{alert, coloured, heading, short_count},
};
use crate::cli::text::clean;

/// Seconds of traffic to ask for.
pub(super) const SECONDS: usize = 300;

/// Narrower than this, classes are left out.
const BOTH: u16 = 66;

/// One line.
struct Row {
    label: String,
    total: u64,
    series: Vec<u32>,
    style: Style,
}

impl Row {
    fn now(&self) -> u32 {
        self.series.last().copied().unwrap_or(0)
    }
}

/// Lines it would fill, the heading included.
pub(super) fn wanted(model: &Model) -> u16 {
    let Some(look) = &model.look else { return 0 };
    let rows = verdicts(model, look).len().max(look.status.classes.len()) + 1;
    u16::try_from(rows).unwrap_or(u16::MAX)
}

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let Some(look) = &model.look else { return };
    if area.height == 0 {
        return;
    }
    let left = if area.width < BOTH {
        area.width
    } else {
        area.width * 11 / 20
    };
    let parts = [
        ("VERDICT", verdicts(model, look), 17, Rect { width: left, ..area }),
        (
            "CLASS",
            classes(look),
            10,
            Rect {
                x: area.x + left,
                width: area.width - left,
                ..area
            },
        ),
    ];
    for (title, rows, label, part) in parts {
        let lines = table(title, &rows, label, part, model.terminal);
        frame.render_widget(Paragraph::new(lines), part);
    }
}

fn table(title: &str, rows: &[Row], label: usize, area: Rect, terminal: Terminal) -> Vec<Line<'static>> {
    let head = format!("{title:<label$} {:>5} {:>6} LAST 5 MIN", "/S", "TOTAL");
    let bars = usize::from(area.width).saturating_sub(label + 1 + 5 + 1 + 6 + 1 + 1);
    let mut lines = vec![heading(head, area.width, false)];
    for row in rows.iter().take(usize::from(area.height).saturating_sub(1)) {
        let name: String = row.label.chars().take(label).collect();
        let numbers = format!(
            "{name:<label$} {:>5} {:>6} ",
            short_count(row.now().into()),
            short_count(row.total),
        );
        lines.push(Line::from(vec![
            Span::styled(numbers, row.style),
            Span::raw(spark(&row.series, bars, terminal.unicode)),
        ]));
    }
    lines
}

/// Passed and dropped, each dropped reason below: first those at work now, then by total.
fn verdicts(model: &Model, look: &Look) -> Vec<Row> {
    let (status, traffic) = (&look.status, &look.top.traffic);
    let part = |title: &str, prefix: &str, totals: &BTreeMap<String, u64>, series, style| {
        let of = |name: &&String| name.starts_with(prefix);
        let names: Vec<&String> = totals.keys().filter(of).collect();
        sum(title, &names, totals, series, style)
    };
    let mut rows = vec![part(
        "passed",
        "pass-",
        &status.counters,
        &traffic.counters,
        Style::new(),
    )];
    let enforced = part(
        "dropped",
        "drop-",
        &status.counters,
        &traffic.counters,
        coloured(model, Color::Yellow),
    );
    let simulated = part(
        "WOULD DROP",
        "drop-",
        &status.would_drop,
        &traffic.would_drop,
        alert(model),
    );
    if !model.simulates() || enforced.total > 0 {
        rows.push(enforced);
        rows.extend(reasons(&status.counters, &traffic.counters));
    }
    if model.simulates() {
        let at = 1;
        rows.splice(
            at..at,
            std::iter::once(simulated).chain(reasons(&status.would_drop, &traffic.would_drop)),
        );
    }
    rows
}

fn reasons(totals: &BTreeMap<String, u64>, series: &BTreeMap<String, Vec<u32>>) -> Vec<Row> {
    let drops = totals.iter().filter_map(|(name, total)| {
        let reason = name.strip_prefix("drop-").filter(|_| *total > 0)?;
        Some(Row {
            label: format!(" {}", clean(reason)),
            total: *total,
            series: series.get(name).cloned().unwrap_or_default(),
            style: Style::new(),
        })
    });
    let mut rows: Vec<Row> = drops.collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.now(), row.total)));
    rows
}

fn sum(
    title: &str,
    names: &[&String],
    totals: &BTreeMap<String, u64>,
    series: &BTreeMap<String, Vec<u32>>,
    style: Style,
) -> Row {
    let mut sums: Vec<u32> = Vec::new();
    for one in names.iter().filter_map(|name| series.get(*name)) {
        sums.resize(sums.len().max(one.len()), 0);
        // All of one answer have the same length; were they not, the newest would still be the last.
        for (sum, packets) in sums.iter_mut().rev().zip(one.iter().rev()) {
            *sum = sum.saturating_add(*packets);
        }
    }
    Row {
        label: title.to_owned(),
        total: names
            .iter()
            .filter_map(|name| totals.get(*name))
            .fold(0, |sum, packets| sum.saturating_add(*packets)),
        series: sums,
        style,
    }
}

/// The classes with the most packets lately first.
fn classes(look: &Look) -> Vec<Row> {
    let traffic = &look.top.traffic.classes;
    let rows = look.status.classes.iter().map(|(name, total)| Row {
        label: clean(name).into_owned(),
        total: *total,
        series: traffic.get(name).cloned().unwrap_or_default(),
        style: Style::new(),
    });
    let mut rows: Vec<Row> = rows.collect();
    // By total only: rows that change places each second cannot be read.
    rows.sort_by_key(|row| std::cmp::Reverse(row.total));
    rows
}

/// Bars from the past to now, the last at the right: each stands for the busiest second of its time.
fn spark(series: &[u32], cells: usize, unicode: bool) -> String {
    let bars: &[char] = if unicode {
        &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        &['.', ':', '-', '=', '+', '*', '#', '@']
    };
    if cells == 0 {
        return String::new();
    }
    let of_cell = SECONDS.div_ceil(cells).max(1);
    let peaks = series
        .rchunks(of_cell)
        .take(cells)
        .map(|seconds| seconds.iter().copied().max().unwrap_or(0));
    let mut peaks: Vec<u32> = peaks.collect();
    peaks.reverse();
    let top = peaks.iter().copied().max().unwrap_or(0);
    let bar = |peak: u32| match (peak, top) {
        (0, _) | (_, 0) => ' ',
        (peak, top) => {
            let level = u64::from(peak) * (bars.len() as u64 - 1) / u64::from(top);
            bars[level as usize]
        }
    };
    let padding = " ".repeat(cells - peaks.len());
    padding + &peaks.into_iter().map(bar).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::spark;

    #[test]
    fn bars_end_now() {
        assert_eq!(spark(&[1, 0, 4, 8], 300, false).trim_start(), ". =@");
        assert_eq!(spark(&[1, 0, 4, 8], 300, true).chars().count(), 300);
        // Ten seconds each: a burst of one second is seen.
        let mut series = vec![0; 300];
        (series[5], series[299]) = (9, 9);
        assert_eq!(spark(&series, 30, false), format!("@{}@", " ".repeat(28)));
        assert_eq!(spark(&[], 3, true), "   ");
        assert_eq!(spark(&[1], 0, true), "");
    }
}
