//! The dashboard on a screen in memory, and what keys do to it.

use std::time::{Duration, SystemTime};

use ratatui::{
    Terminal as Ratatui,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};

use super::{
    keys::press,
    model::{Action, Change, Dialog, Look, Model, Pane, Terminal},
    view::draw,
};
use crate::{
    api::{
        Lifetime,
        types::{
            BanEntry, Health, HealthCheck, Interface, Mode, SchemaVersion, Status, Top, TopSource, Traffic,
        },
    },
    bans::{Scope, Target},
    dataplane::XdpMode,
};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_500_000)
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn source(text: &str, packets: f64, dropped: f64) -> TopSource {
    TopSource {
        target: target(text),
        packets_per_second: packets,
        dropped_per_second: dropped,
        class: Some("register".to_owned()),
        hits: 0,
        last_hit: None,
        banned: false,
        banned_by: None,
        expires_in_seconds: None,
        allowed: false,
        trusted: false,
        proven: false,
        rule: None,
        reason: String::new(),
    }
}

fn ban(text: &str, age: u64, rule: Option<&str>, reason: &str) -> BanEntry {
    BanEntry {
        target: target(text),
        origin: if rule.is_some() { "detector" } else { "manual" }.to_owned(),
        rule: rule.map(str::to_owned),
        reason: reason.to_owned(),
        scope: Scope::Sip,
        created: now() - Duration::from_secs(age),
        expires: Some(now() + Duration::from_secs(3_540)),
        expires_in_seconds: Some(3_540),
        hits: 12,
        last_hit: None,
        evidence: None,
    }
}

fn status() -> Status {
    let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    Status {
        schema_version: SchemaVersion,
        version: "0.1.0".to_owned(),
        abi_version: 1,
        mode: Mode::Enforce,
        uptime_seconds: 93_784,
        interfaces: vec![
            Interface {
                problem: None,
                name: "eth0".to_owned(),
                xdp_mode: Some(XdpMode::Native),
                attached: true,
                egress: Some("tcx".to_owned()),
                egress_problem: None,
            },
            Interface {
                problem: None,
                name: "eth1".to_owned(),
                xdp_mode: Some(XdpMode::Generic),
                attached: true,
                egress: None,
                egress_problem: Some("no TCX".to_owned()),
            },
        ],
        bans: 4_321,
        allowed: 3,
        trusted: 140,
        endpoints: 0,
        rights: None,
        proven: 150,
        would_ban: counts(&[]),
        counters: counts(&[
            ("drop-ban-address", 81_234_567),
            ("drop-ban-network", 4_711),
            ("drop-limit-register", 99_120),
            ("drop-unknown-budget", 12),
            ("pass-request", 1_890_001),
            ("pass-other-port", 12_890_001),
        ]),
        would_drop: counts(&[]),
        classes: counts(&[
            ("register", 1_700_000),
            ("invite", 120_000),
            ("options", 90_000),
            ("keepalive", 45),
            ("subscribe", 0),
            ("garbage", 1),
            ("other", 0),
            ("response", 20_011),
        ]),
        events: Default::default(),
        tables: Vec::new(),
    }
}

fn look() -> Look {
    let series = |pairs: &[(&str, u32)]| {
        let of = |seed: u32| (0..300).map(|n: u32| n * n * seed % 1_009 + seed).collect();
        pairs
            .iter()
            .map(|(name, seed)| ((*name).to_owned(), of(*seed)))
            .collect()
    };
    Look {
        status: status(),
        health: Health {
            schema_version: SchemaVersion,
            healthy: true,
            conditions: Vec::new(),
            checks: vec![HealthCheck {
                name: "store".to_owned(),
                ok: true,
                message: "changes are saved".to_owned(),
            }],
        },
        top: Top {
            schema_version: SchemaVersion,
            sources: vec![
                TopSource {
                    hits: 81_000_000,
                    class: None,
                    banned: true,
                    proven: true,
                    rule: Some("auth-failure".to_owned()),
                    reason: "30 refused credentials in 10m".to_owned(),
                    ..source("203.0.113.7", 12_345.6, 12_345.6)
                },
                source("2001:db8:1234:5678::/64", 240.0, 140.0),
                TopSource {
                    hits: 4_711,
                    banned: true,
                    banned_by: Some(target("198.51.100.0/24")),
                    reason: "hosting company that does not answer\u{1b}[2J".to_owned(),
                    ..source("198.51.100.23", 44.0, 44.0)
                },
                TopSource {
                    trusted: true,
                    class: Some("subscribe".to_owned()),
                    ..source("192.0.2.80", 3.2, 0.0)
                },
                TopSource {
                    allowed: true,
                    ..source("192.0.2.81", 1.0, 0.0)
                },
            ],
            newest_bans: vec![
                ban(
                    "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff",
                    4,
                    None,
                    "toll fraud, see ticket 4711 for all that is known about it",
                ),
                ban(
                    "203.0.113.7",
                    61,
                    Some("auth-failure"),
                    "30 refused credentials in 10m",
                ),
                ban(
                    "203.0.113.8",
                    7_200,
                    Some("scanner-signature"),
                    "User-Agent: friendly-scanner",
                ),
            ],
            traffic: Traffic {
                classes: series(&[("register", 5), ("invite", 1), ("response", 2)]),
                counters: series(&[
                    ("drop-ban-address", 40),
                    ("drop-limit-register", 3),
                    ("pass-request", 7),
                ]),
                would_drop: series(&[]),
            },
        },
    }
}

fn model() -> Model {
    let mut model = Model::new(Terminal {
        colour: false,
        unicode: true,
    });
    model.looked(Ok(Box::new(look())));
    model
}

fn terminal(model: &Model, width: u16, height: u16) -> Ratatui<TestBackend> {
    let mut terminal = Ratatui::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, now())).unwrap();
    terminal
}

/// What the screen shows, lines without their trailing spaces.
fn screen(model: &Model, width: u16, height: u16) -> String {
    let terminal = terminal(model, width, height);
    let cells = &terminal.backend().buffer().content;
    let lines = cells.chunks(width.into()).map(|line| {
        let text: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn key(model: &mut Model, code: KeyCode) -> Option<Action> {
    press(model, KeyEvent::new(code, KeyModifiers::NONE))
}

fn keys(model: &mut Model, text: &str) {
    for character in text.chars() {
        assert_eq!(key(model, KeyCode::Char(character)), None);
    }
}

#[test]
fn screens() {
    insta::assert_snapshot!("80x24", screen(&model(), 80, 24));
    insta::assert_snapshot!("200x50", screen(&model(), 200, 50));
    insta::assert_snapshot!("40x12", screen(&model(), 40, 12));
    insta::assert_snapshot!("20x5", screen(&model(), 20, 5));
}

#[test]
fn nothing_is_too_small_or_too_large() {
    let mut shown = vec![model(), Model::new(model().terminal)];
    for code in ['b', 'a', '?', '/'] {
        let mut with_dialog = model();
        key(&mut with_dialog, KeyCode::Char(code));
        shown.push(with_dialog);
    }
    for model in &shown {
        for width in [0, 1, 2, 3, 7, 20, 33, 79, 250] {
            for height in [0, 1, 2, 3, 4, 5, 9, 11, 12, 15, 16, 90] {
                terminal(model, width, height);
            }
        }
    }
}

#[test]
fn addresses_are_never_cut() {
    let mut model = model();
    let long = "2001:db8:1111:2222:3333:4444:5555:6666";
    let mut look = look();
    look.top.sources[0].target = target(long);
    model.looked(Ok(Box::new(look)));
    for width in [50, 60, 80, 100] {
        let text = screen(&model, width, 24);
        assert!(text.contains(long), "{text}");
        assert!(text.contains("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"), "{text}");
    }
}

#[test]
fn what_attackers_write_does_not_reach_the_terminal_as_it_is() {
    assert!(!screen(&model(), 200, 50).contains('\u{1b}'));
    assert!(screen(&model(), 200, 50).contains("\\u{1b}[2J"));
}

#[test]
fn simulation_cannot_be_overlooked() {
    let mut look = look();
    look.status.mode = Mode::Simulate;
    look.status.would_drop = std::mem::take(&mut look.status.counters);
    look.top.traffic.would_drop = std::mem::take(&mut look.top.traffic.counters);
    let mut model = model();
    model.looked(Ok(Box::new(look)));
    insta::assert_snapshot!("simulate-80x24", screen(&model, 80, 24));
    key(&mut model, KeyCode::Char('a'));
    assert!(screen(&model, 100, 24).contains("The filter simulates"));
}

#[test]
fn trouble_is_shown() {
    let mut model = model();
    model.looked(Err("the daemon is not running: /run/x does not exist".to_owned()));
    let text = screen(&model, 80, 24);
    assert!(
        text.contains("daemon not reachable, retrying: the daemon is not running"),
        "{text}"
    );
    assert!(text.contains("203.0.113.7"), "the last answer stays: {text}");

    let mut look = look();
    look.health.healthy = false;
    look.health.checks[0].ok = false;
    look.health.checks[0].message = "changes cannot be saved".to_owned();
    look.status.interfaces[0].attached = false;
    model.looked(Ok(Box::new(look)));
    let text = screen(&model, 80, 24);
    for words in ["NOT HEALTHY", "changes cannot be saved", "eth0: not attached"] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
}

#[test]
fn colours_only_add() {
    let mut plain = model();
    plain.looked(Err("gone".to_owned()));
    let mut coloured = plain.clone();
    coloured.terminal.colour = true;
    assert_eq!(screen(&plain, 80, 24), screen(&coloured, 80, 24));
    let has_colour = |model: &Model| {
        let terminal = terminal(model, 80, 24);
        let cells = &terminal.backend().buffer().content;
        cells
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(has_colour(&coloured));
    assert!(!has_colour(&plain));
}

#[test]
fn a_plain_terminal_gets_plain_characters() {
    let mut model = model();
    model.terminal.unicode = false;
    key(&mut model, KeyCode::Char('a'));
    let text = screen(&model, 80, 24);
    assert!(text.is_ascii(), "{text}");
}

#[test]
fn a_ban_takes_a_length_and_a_yes() {
    let mut model = model();
    keys(&mut model, "jb");
    insta::assert_snapshot!("ban-dialog", screen(&model, 80, 24));
    keys(&mut model, "1x");
    key(&mut model, KeyCode::Enter);
    assert!(
        matches!(&model.dialog, Some(Dialog::Duration { error: Some(_), .. })),
        "{:?}",
        model.dialog
    );
    key(&mut model, KeyCode::Backspace);
    keys(&mut model, "d");
    assert_eq!(key(&mut model, KeyCode::Enter), None);
    assert!(screen(&model, 80, 24).contains("Ban 2001:db8:1234:5678::/64 for 1d?"));
    // Neither Enter nor any other key is a yes.
    for code in [KeyCode::Enter, KeyCode::Char(' '), KeyCode::Char('b')] {
        assert_eq!(key(&mut model, code), None);
    }
    let day = Lifetime::For(Duration::from_secs(86_400));
    let change = Change::Ban(target("2001:db8:1234:5678::/64"), day);
    assert_eq!(key(&mut model, KeyCode::Char('y')), Some(Action::Change(change)));

    keys(&mut model, "b");
    key(&mut model, KeyCode::Enter);
    assert!(screen(&model, 80, 24).contains("for 1h?"));
    assert_eq!(key(&mut model, KeyCode::Char('n')), None);
    assert!(model.dialog.is_none());
}

#[test]
fn a_change_concerns_what_was_marked_though_rows_move() {
    let mut model = model();
    keys(&mut model, "jj");
    assert_eq!(model.selected(), Some(target("198.51.100.23")));
    let mut moved = look();
    moved.top.sources.reverse();
    moved.top.sources[0].packets_per_second = 9e9;
    model.looked(Ok(Box::new(moved)));
    assert_eq!(model.selected(), Some(target("198.51.100.23")));
    // It lies in a banned network: that ban is the one to lift.
    keys(&mut model, "u");
    assert_eq!(
        model.dialog,
        Some(Dialog::Confirm(Change::Unban(target("198.51.100.0/24"))))
    );
    // It leaves the list under the dialog: the dialog keeps its target, the mark stays in its row.
    let mut gone = look();
    gone.top.sources.remove(2);
    model.looked(Ok(Box::new(gone)));
    let change = Change::Unban(target("198.51.100.0/24"));
    assert_eq!(key(&mut model, KeyCode::Char('y')), Some(Action::Change(change)));
    assert_eq!(model.selected(), Some(target("192.0.2.81")));
}

#[test]
fn who_may_only_read_is_told_so() {
    let mut model = model();
    model.read_only = Some("user `noc` may look but not change anything".to_owned());
    for character in ['b', 'u', 'a'] {
        keys(&mut model, &character.to_string());
        assert!(model.dialog.is_none());
        let text = screen(&model, 80, 24);
        assert!(text.contains("may look but not change anything"), "{text}");
        assert!(text.contains("read-only"), "{text}");
    }
    assert!(matches!(
        key(&mut model, KeyCode::Char('d')),
        Some(Action::Check(_))
    ));
}

#[test]
fn filter_sort_pause() {
    let mut model = model();
    keys(&mut model, "/limited");
    assert!(screen(&model, 80, 24).contains("filter: limited"));
    assert_eq!(model.sources().len(), 1);
    key(&mut model, KeyCode::Enter);
    assert_eq!(model.selected(), Some(target("2001:db8:1234:5678::/64")));
    keys(&mut model, "/");
    keys(&mut model, "zzz");
    assert_eq!(model.selected(), None);
    key(&mut model, KeyCode::Esc);
    assert_eq!(model.filter, "limited");
    key(&mut model, KeyCode::Esc);
    assert_eq!(model.sources().len(), 5);

    keys(&mut model, "sss");
    assert_eq!(model.sources()[0].target, target("192.0.2.80"));
    keys(&mut model, "p");
    let mut empty = look();
    empty.top.sources.clear();
    model.looked(Ok(Box::new(empty.clone())));
    assert_eq!(model.sources().len(), 5);
    assert!(screen(&model, 80, 24).contains("PAUSED"));
    keys(&mut model, "p");
    model.looked(Ok(Box::new(empty)));
    assert_eq!(model.sources().len(), 0);
    keys(&mut model, "b");
    assert!(screen(&model, 80, 24).contains("nothing is selected"));
}

#[test]
fn the_other_list() {
    let mut model = model();
    key(&mut model, KeyCode::Tab);
    assert_eq!(model.pane, Pane::Bans);
    keys(&mut model, "j");
    keys(&mut model, "u");
    let change = Change::Unban(target("203.0.113.7"));
    assert_eq!(key(&mut model, KeyCode::Char('y')), Some(Action::Change(change)));
    // On a screen with room for one list, it is the one in use.
    assert!(screen(&model, 60, 10).contains("NEWEST BANS"));
    assert!(!screen(&model, 60, 10).contains("TOP SOURCES"));
}

#[test]
fn the_way_out() {
    let mut model = model();
    assert_eq!(key(&mut model, KeyCode::Char('q')), Some(Action::Quit));
    keys(&mut model, "/q");
    assert_eq!(model.filter, "q");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(press(&mut model, interrupt), Some(Action::Quit));
}
