//! The model drawn. Everything fits: what has no room is left out from the least important on, and an address is never
//! cut.

use std::time::SystemTime;

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    dialog,
    model::{Model, Pane},
    tables::{ban_rows, source_rows},
    traffic,
};
use crate::{
    api::types::{Interface, Mode, name_of},
    cli::text::{clean, rough},
};

/// Heights of the parts, from top to bottom.
struct Heights {
    head: u16,
    traffic: u16,
    sources: u16,
    bans: u16,
}

impl Heights {
    fn of(height: u16, pane: Pane, traffic_wanted: u16) -> Self {
        let head = if height < 10 { 1 } else { 2 };
        let rest = height.saturating_sub(head + 1);
        let traffic = match height {
            0..12 => 0,
            _ => (rest / 3).min(traffic_wanted),
        };
        let bans = match height {
            0..16 => 0,
            _ => (rest / 4).clamp(3, 14),
        };
        let sources = rest - traffic - bans;
        // No room for both: the one in use is shown.
        if bans == 0 && pane == Pane::Bans {
            return Self {
                head,
                traffic,
                sources: 0,
                bans: sources,
            };
        }
        Self {
            head,
            traffic,
            sources,
            bans,
        }
    }
}

/// Draws all of it, as of `now`.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now: SystemTime) {
    let area = frame.area();
    let heights = Heights::of(area.height, model.pane, traffic::wanted(model));
    let mut y = area.y;
    let mut part = |height: u16| {
        let part = Rect { y, height, ..area }.intersection(area);
        y = y.saturating_add(height);
        part
    };
    let [head, traffic, sources, bans] =
        [heights.head, heights.traffic, heights.sources, heights.bans].map(&mut part);
    let foot = part(1);
    frame.render_widget(Paragraph::new(head_lines(model)), head);
    traffic::draw(frame, model, traffic);
    frame.render_widget(Paragraph::new(source_rows(model, sources)), sources);
    frame.render_widget(Paragraph::new(ban_rows(model, bans, now)), bans);
    frame.render_widget(Paragraph::new(foot_line(model, foot.width)), foot);
    dialog::draw(frame, model);
}

/// "Look here": bold and, if colours are wanted, in one. Without colours it must still stand out.
pub(super) fn alert(model: &Model) -> Style {
    let style = Style::new().add_modifier(Modifier::BOLD);
    if model.terminal.colour {
        style.fg(Color::Red)
    } else {
        style.add_modifier(Modifier::REVERSED)
    }
}

pub(super) fn coloured(model: &Model, colour: Color) -> Style {
    if model.terminal.colour {
        Style::new().fg(colour)
    } else {
        Style::new()
    }
}

pub(super) fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn head_lines(model: &Model) -> Vec<Line<'static>> {
    vec![first_line(model), second_line(model)]
}

fn first_line(model: &Model) -> Line<'static> {
    let Some(look) = &model.look else {
        return Line::from("sip-filter: asking the daemon …");
    };
    let status = &look.status;
    let mut spans = Vec::new();
    match status.mode {
        Mode::Enforce => spans.push(Span::styled(
            "ENFORCE",
            bold().patch(coloured(model, Color::Green)),
        )),
        Mode::Simulate => spans.push(Span::styled(
            " SIMULATE: NOTHING IS DROPPED ",
            alert(model).add_modifier(Modifier::REVERSED),
        )),
    }
    if model.paused {
        spans.push(Span::styled("  PAUSED", alert(model)));
    }
    spans.push(Span::raw("  "));
    spans.push(if look.health.healthy {
        Span::raw("healthy")
    } else {
        Span::styled("NOT HEALTHY", alert(model))
    });
    spans.push(Span::raw(format!(
        "  bans {}  allowed {}  trusted {}  up {}  v{}",
        status.bans,
        status.allowed,
        status.trusted,
        rough(status.uptime_seconds),
        clean(&status.version),
    )));
    if model.read_only.is_some() {
        spans.push(Span::styled("  read-only", bold()));
    }
    Line::from(spans)
}

/// What is wrong if something is, then the interfaces.
fn second_line(model: &Model) -> Line<'static> {
    if let Some(why) = &model.lost {
        let text = format!(" daemon not reachable, retrying: {} ", clean(why));
        return Line::styled(text, alert(model).add_modifier(Modifier::REVERSED));
    }
    let Some(look) = &model.look else {
        return Line::default();
    };
    let mut spans = Vec::new();
    for check in look.health.checks.iter().filter(|check| !check.ok) {
        spans.push(Span::styled(format!("{}  ", clean(&check.message)), alert(model)));
    }
    let warnings = look
        .health
        .conditions
        .iter()
        .filter(|condition| !condition.name.is_fault());
    for condition in warnings {
        spans.push(Span::styled(
            format!("{}  ", clean(&condition.text)),
            alert(model),
        ));
    }
    for interface in &look.status.interfaces {
        spans.extend(interface_spans(model, interface));
    }
    Line::from(spans)
}

fn interface_spans(model: &Model, interface: &Interface) -> [Span<'static>; 2] {
    let name = clean(&interface.name);
    match interface.xdp_mode {
        Some(mode) if interface.attached => {
            let egress = interface.egress.as_ref();
            let responses = match egress {
                Some(egress) => Span::raw(format!(", responses seen ({})  ", clean(egress))),
                None => Span::styled(", responses not seen  ", alert(model)),
            };
            [Span::raw(format!("{name}: XDP {}", name_of(&mode))), responses]
        }
        _ => [
            Span::raw(format!("{name}: ")),
            Span::styled("not attached  ", alert(model)),
        ],
    }
}

const KEYS: [(&str, &str); 10] = [
    ("?", "help"),
    ("q", "quit"),
    ("b", "ban"),
    ("u", "unban"),
    ("a", "allow"),
    ("d", "details"),
    ("/", "filter"),
    ("s", "sort"),
    ("p", "pause"),
    ("Tab", "list"),
];

fn foot_line(model: &Model, width: u16) -> Line<'static> {
    if let Some(dialog::Typing { before, text }) = dialog::typing(model) {
        return Line::from(vec![
            Span::styled(before, bold()),
            Span::raw(text),
            Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
        ]);
    }
    if let Some(message) = &model.message {
        let style = if message.bad { alert(model) } else { bold() };
        return Line::styled(clean(&message.text).into_owned(), style);
    }
    let gap = if width >= 90 { "   " } else { " " };
    let mut spans = Vec::new();
    for (key, what) in KEYS {
        spans.push(Span::styled(key, bold()));
        spans.push(Span::raw(format!(" {what}{gap}")));
    }
    Line::from(spans)
}

/// A heading over the whole width.
pub(super) fn heading(text: String, width: u16, active: bool) -> Line<'static> {
    let text: String = text.chars().take(width.into()).collect();
    let padding = usize::from(width).saturating_sub(text.chars().count());
    let style = if active {
        bold().add_modifier(Modifier::UNDERLINED)
    } else {
        Style::new().add_modifier(Modifier::UNDERLINED)
    };
    Line::styled(format!("{text}{}", " ".repeat(padding)), style)
}

/// A number in at most five characters: `999`, `12.3k`, `4.5M`.
pub(super) fn short(number: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.iter().find(|(unit, _)| number >= *unit * 0.9995) {
        Some((unit, letter)) => match number / unit {
            number if number >= 99.95 => format!("{number:.0}{letter}"),
            number => format!("{number:.1}{letter}"),
        },
        None if number == 0.0 || number >= 9.95 => format!("{number:.0}"),
        None => format!("{number:.1}"),
    }
}

/// The same for what comes in whole numbers only.
pub(super) fn short_count(number: u64) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        short(number as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::{short, short_count};

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (0.1, "0.1"),
            (9.94, "9.9"),
            (10.0, "10"),
            (999.0, "999"),
            (999.9, "1.0k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (999_960.0, "1.0M"),
            (4_500_000_000.0, "4.5G"),
        ] {
            assert_eq!(short(number), text, "{number}");
            assert!(text.len() <= 5);
        }
        assert_eq!(short_count(7), "7");
        assert_eq!(short_count(7_100), "7.1k");
    }
}
