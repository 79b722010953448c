//! From keys to changes of the model, and to what has to be done outside of it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Action, Change, Dialog, Model, Pane};
use crate::{api::Lifetime, bans::Target, cli::values};

/// Rows of a page.
const PAGE: isize = 10;

/// A ban's length until another is typed.
const USUAL: &str = "1h";

/// What a key does. Returns what has to be done outside.
pub(super) fn press(model: &mut Model, key: KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if control && key.code == KeyCode::Char('c') {
        return Some(Action::Quit);
    }
    model.message = None;
    match model.dialog.take() {
        None => browse(model, key.code),
        Some(Dialog::Filter { before }) => {
            type_filter(model, key.code, before);
            None
        }
        Some(Dialog::Duration {
            target, text, fresh, ..
        }) => type_duration(model, key.code, target, text, fresh),
        Some(Dialog::Confirm(change)) => confirm(model, key.code, change),
        Some(Dialog::Text { title, lines, from }) => {
            read(model, key.code, title, lines, from);
            None
        }
        Some(Dialog::Help) => None,
    }
}

fn browse(model: &mut Model, key: KeyCode) -> Option<Action> {
    match key {
        KeyCode::Char('q') => return Some(Action::Quit),
        KeyCode::Down | KeyCode::Char('j') => model.go(1),
        KeyCode::Up | KeyCode::Char('k') => model.go(-1),
        KeyCode::PageDown => model.go(PAGE),
        KeyCode::PageUp => model.go(-PAGE),
        KeyCode::Home | KeyCode::Char('g') => model.go(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => model.go(isize::MAX),
        KeyCode::Tab => model.turn_to(match model.pane {
            Pane::Sources => Pane::Bans,
            Pane::Bans => Pane::Sources,
        }),
        KeyCode::Char('s') => {
            model.sort = model.sort.next();
            model.say(format!("sorted by {}", model.sort.name()));
        }
        KeyCode::Char('p') => model.paused = !model.paused,
        KeyCode::Char('/') => {
            model.dialog = Some(Dialog::Filter {
                before: model.filter.clone(),
            });
        }
        KeyCode::Esc => model.filter_by(String::new()),
        KeyCode::Char('?' | 'h') => model.dialog = Some(Dialog::Help),
        KeyCode::Char('d') | KeyCode::Enter => {
            // A network is asked for by its first address.
            return selected(model).map(|target| Action::Check(target.net().addr()));
        }
        KeyCode::Char(key @ ('b' | 'u' | 'a')) => change(model, key),
        _ => {}
    }
    None
}

fn selected(model: &mut Model) -> Option<Target> {
    let selected = model.selected();
    if selected.is_none() {
        model.complain("nothing is selected: the list is empty");
    }
    selected
}

/// Opens the dialog for a change, if it may be made.
fn change(model: &mut Model, key: char) {
    if let Some(why) = model.read_only.clone() {
        model.complain(why);
        return;
    }
    let Some(target) = selected(model) else { return };
    model.dialog = Some(match key {
        'b' => Dialog::Duration {
            target,
            text: USUAL.to_owned(),
            fresh: true,
            error: None,
        },
        'u' => match model.ban_of(target) {
            Some(ban) => Dialog::Confirm(Change::Unban(ban)),
            None => return model.complain(format!("{target} is not banned")),
        },
        _ => Dialog::Confirm(Change::Allow(target)),
    });
}

fn type_filter(model: &mut Model, key: KeyCode, before: String) {
    let mut text = model.filter.clone();
    match key {
        KeyCode::Enter => return,
        KeyCode::Esc => return model.filter_by(before),
        key => edit(&mut text, key),
    }
    model.filter_by(text);
    model.dialog = Some(Dialog::Filter { before });
}

fn type_duration(
    model: &mut Model,
    key: KeyCode,
    target: Target,
    mut text: String,
    fresh: bool,
) -> Option<Action> {
    let mut error = None;
    match key {
        KeyCode::Esc => {
            model.say("nothing was changed");
            return None;
        }
        KeyCode::Enter => match lifetime(&text) {
            Ok(lifetime) => {
                model.dialog = Some(Dialog::Confirm(Change::Ban(target, lifetime)));
                return None;
            }
            Err(why) => error = Some(why),
        },
        key => {
            if fresh && matches!(key, KeyCode::Char(_)) {
                text.clear();
            }
            edit(&mut text, key);
        }
    }
    model.dialog = Some(Dialog::Duration {
        target,
        text,
        fresh: false,
        error,
    });
    None
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    values::lifetime(text.trim())
}

fn confirm(model: &mut Model, key: KeyCode, change: Change) -> Option<Action> {
    match key {
        KeyCode::Char('y' | 'Y') => return Some(Action::Change(change)),
        KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => model.say("nothing was changed"),
        // Not by accident, and not by a key that was meant for something else.
        _ => model.dialog = Some(Dialog::Confirm(change)),
    }
    None
}

fn read(model: &mut Model, key: KeyCode, title: String, lines: Vec<String>, from: usize) {
    let last = lines.len().saturating_sub(1);
    let from = match key {
        KeyCode::Down | KeyCode::Char('j') => (from + 1).min(last),
        KeyCode::Up | KeyCode::Char('k') => from.saturating_sub(1),
        KeyCode::PageDown | KeyCode::Char(' ') => (from + PAGE.unsigned_abs()).min(last),
        KeyCode::PageUp => from.saturating_sub(PAGE.unsigned_abs()),
        _ => return,
    };
    model.dialog = Some(Dialog::Text { title, lines, from });
}

/// A line of text under the keys.
fn edit(text: &mut String, key: KeyCode) {
    match key {
        KeyCode::Backspace => {
            text.pop();
        }
        KeyCode::Char(character) if !character.is_control() && text.chars().count() < 60 => {
            text.push(character);
        }
        _ => {}
    }
}
