//! What lies over the lists.

use ratatui::{
    Frame,
    layout::Rect,
    style::Modifier,
    symbols::border,
    text::Line,
    widgets::{Block, Clear, Paragraph, Wrap},
};

use super::{
    model::{Change, Dialog, Model},
    view::{alert, bold},
};
use crate::cli::text::{clean, wrapped};

/// A line that is being typed.
pub(super) struct Typing {
    pub(super) before: &'static str,
    pub(super) text: String,
}

/// The filter is typed in the last line, so that the list can be seen.
pub(super) fn typing(model: &Model) -> Option<Typing> {
    match model.dialog {
        Some(Dialog::Filter { .. }) => Some(Typing {
            before: "filter: ",
            text: clean(&model.filter).into_owned(),
        }),
        _ => None,
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    match &model.dialog {
        None | Some(Dialog::Filter { .. }) => {}
        Some(Dialog::Duration {
            target, text, error, ..
        }) => {
            let mut lines = vec![
                Line::from(format!("Ban {target} for how long?")),
                Line::from(vec![
                    format!("{} ", clean(text)).into(),
                    ratatui::text::Span::styled(" ", bold().add_modifier(Modifier::REVERSED)),
                ]),
            ];
            lines.push(match error {
                Some(error) => Line::styled(clean(error).into_owned(), alert(model)),
                None => Line::from("90s, 1h30m, 7d or permanent; Enter goes on, Esc leaves"),
            });
            popup(frame, model, "ban", lines, 0);
        }
        Some(Dialog::Confirm(change)) => {
            let mut lines = vec![Line::from(question(change))];
            if model.simulates() {
                lines.push(Line::from(
                    "The filter simulates: no ban takes effect before `sip-filter mode enforce`.",
                ));
            }
            lines.push(Line::styled("y yes   n no", bold()));
            popup(frame, model, "sure?", lines, 0);
        }
        Some(Dialog::Text { title, lines, from }) => {
            let room = frame.area().width.saturating_sub(4);
            let lines = wrapped(&lines.join("\n"), Some(room));
            let lines = lines.lines().map(|line| Line::from(line.to_owned())).collect();
            let title = format!("{title} - arrows scroll, Esc closes");
            popup(frame, model, &title, lines, *from);
        }
        Some(Dialog::Help) => {
            let lines = HELP.lines().map(Line::from).collect();
            popup(frame, model, "keys - any key closes", lines, 0);
        }
    }
}

fn question(change: &Change) -> String {
    match change {
        Change::Ban(target, lifetime) => format!("Ban {target} {lifetime}?"),
        Change::Unban(target) => format!("Lift the ban of {target}?"),
        Change::Allow(target) => format!("Put {target} on the allow-list? Nothing from it is dropped then."),
    }
}

const HELP: &str = "\
arrows j k PgUp PgDn g G  move           Tab  other list
b  ban (asks how long)                   u    unban
a  allow: never drop                     d    details, as of `check`
/  filter by any word                    Esc  no filter
s  sort: rate, dropped, hits, source     p    pause
q  quit

Counted of a source: requests, what is not SIP, what is over a limit, what
a ban stops; IPv6 by prefix. KNOWN: `trusted` is registered, `proven` owns
its address. Bars: the busiest second of each time, scaled by row.";

/// A box in the middle, as large as its text and the screen permit.
fn popup(frame: &mut Frame<'_>, model: &Model, title: &str, lines: Vec<Line<'static>>, from: usize) {
    let area = frame.area();
    let longest = lines
        .iter()
        .map(Line::width)
        .max()
        .unwrap_or(0)
        .max(title.len() + 2);
    let width = u16::try_from(longest + 4).unwrap_or(u16::MAX).min(area.width);
    let inner = usize::from(width.saturating_sub(4)).max(1);
    // Wrapping at words may take a line more than the letters alone would.
    let wrapped = |line: &Line<'_>| match line.width() {
        width if width <= inner => 1,
        width => width / inner + 2,
    };
    let height: usize = lines.iter().map(wrapped).sum();
    let height = u16::try_from(height + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let ascii = border::Set {
        top_left: "+",
        top_right: "+",
        bottom_left: "+",
        bottom_right: "+",
        vertical_left: "|",
        vertical_right: "|",
        horizontal_top: "-",
        horizontal_bottom: "-",
    };
    let borders = if model.terminal.unicode {
        border::PLAIN
    } else {
        ascii
    };
    let block = Block::bordered()
        .border_set(borders)
        .title(format!(" {} ", clean(title)))
        .padding(ratatui::widgets::Padding::horizontal(1));
    let text = Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .scroll((u16::try_from(from).unwrap_or(u16::MAX), 0))
        .block(block);
    frame.render_widget(Clear, place);
    frame.render_widget(text, place);
}
