//! The dashboard in a terminal, with traffic.

use std::{fs, net::SocketAddr, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::lab::command;

use crate::{
    rig::{Daemon, Rig, SERVER4, SERVER6, usable},
    tmux::Screen,
    wire::{Flood, register},
};

const SMALL: (u16, u16) = (80, 24);
const LONG: &str = "2001:db8:1111:2222:3333:4444:5555:6666";
const PREFIX: &str = "2001:db8:1111:2222::/64";

/// The binary as a user at a terminal runs it; then the shell tells how it ended and what the terminal is like.
fn shell(daemon: &Daemon, arguments: &str) -> String {
    format!(
        "LC_ALL=C.UTF-8 {} --socket {} top {arguments}; echo \"ended with $?\"; stty -a; exec sleep 120",
        env!("CARGO_BIN_EXE_sip-filter"),
        daemon.socket().display()
    )
}

fn options(number: u64) -> Vec<u8> {
    String::from_utf8(register(number))
        .unwrap()
        .replace("REGISTER", "OPTIONS")
        .into_bytes()
}

/// Somebody who is banned by detection, and somebody who is not.
fn traffic(rig: &Rig) -> [Flood; 2] {
    let loud = rig.add_source("203.0.113.7");
    let quiet = rig.add_source(LONG);
    let limit = Duration::from_secs(240);
    [
        Flood::start(
            &rig.sender,
            SocketAddr::new(loud, 4000),
            SocketAddr::new(SERVER4, 5060),
            600,
            limit,
            register,
        ),
        Flood::start(
            &rig.sender,
            SocketAddr::new(quiet, 4000),
            SocketAddr::new(SERVER6, 5060),
            3,
            limit,
            options,
        ),
    ]
}

fn banned(daemon: &Daemon, target: &str) -> bool {
    daemon.bans().iter().any(|ban| ban["target"] == target)
}

/// The terminal is as a shell expects it.
fn restored(screen: &Screen) {
    // `stty -a` prints several lines: the last of them may come a moment after the first.
    let text = screen.when("the modes of a shell's terminal", |text| {
        text.contains("ended with 0")
            && ["icanon", "echo", "isig"]
                .iter()
                .all(|mode| text.split_whitespace().any(|word| word == *mode))
    });
    assert!(!screen.on_other_screen(), "{text}");
}

#[test]
fn sources_are_seen_and_banned_from_the_dashboard() {
    if !usable(&["tmux", "stty"]) {
        return;
    }
    let (rig, daemon) = Rig::started("top");
    let _traffic = traffic(&rig);
    let screen = Screen::run(&rig, "top", SMALL, &shell(&daemon, "--interval 500ms"));
    // Both are seen, the address of neither is cut, and why the one is banned.
    let text = screen.when("both sources", |text| {
        let line = |words: &[&str]| {
            text.lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        };
        line(&["203.0.113.7", "banned"])
            && line(&["203.0.113.7", "flood-register"])
            && line(&[PREFIX, "passes", "options"])
    });
    println!("{text}");
    for words in [
        "ENFORCE",
        "healthy",
        "sip0: XDP native",
        "responses seen",
        "ban-address",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80));

    // One is banned by hand: with a length, and a yes.
    screen.keys(&["/"]);
    screen.keys(&["-l", "2222"]);
    screen.shows(&["filter: 2222", "TOP SOURCES by rate (1,"]);
    screen.keys(&["Enter", "b"]);
    screen.shows(&["for how long?", PREFIX]);
    screen.keys(&["2", "h", "Enter"]);
    screen.shows(&["Ban 2001:db8:1111:2222::/64 for 2h?"]);
    assert!(!banned(&daemon, PREFIX), "nothing before the yes");
    screen.keys(&["y"]);
    screen.shows(&["banned 2001:db8:1111:2222::/64 for 2h"]);
    assert!(banned(&daemon, PREFIX));
    screen.when("the ban's effect", |text| {
        text.lines()
            .any(|line| line.contains(PREFIX) && line.contains(" banned"))
    });
    screen.keys(&["d"]);
    screen.shows(&[
        "check 2001:db8:1111:2222::",
        "by manual, scope sip",
        "by hand in top",
    ]);
    screen.keys(&["Escape"]);
    screen.when("no dialog", |text| !text.contains("by manual"));
    screen.keys(&["u"]);
    screen.shows(&["Lift the ban of 2001:db8:1111:2222::/64?"]);
    screen.keys(&["y"]);
    screen.shows(&["unbanned 2001:db8:1111:2222::/64"]);
    assert!(!banned(&daemon, PREFIX));

    // What the daemon refuses is shown, with what to do about it.
    daemon.done(&["allow", "add", PREFIX]);
    screen.keys(&["b", "Enter"]);
    screen.shows(&["for 1h?"]);
    screen.keys(&["y"]);
    screen.shows(&["allow"]);
    assert!(!banned(&daemon, PREFIX));

    screen.resize(200, 50);
    screen.keys(&["Escape"]);
    let wide = screen.when("the width", |text| {
        text.contains("WHY") && text.contains("TOP SOURCES by rate (2)")
    });
    println!("{wide}");
    assert!(wide.lines().count() > 24, "{wide}");
    screen.resize(20, 5);
    screen.when("little", |text| {
        text.lines().any(|line| line.starts_with("ENFORCE"))
    });
    screen.resize(80, 24);
    screen.shows(&["NEWEST BANS"]);
    screen.keys(&["q"]);
    restored(&screen);
}

#[test]
fn the_dashboard_outlives_the_daemon_and_leaves_the_terminal_as_it_was() {
    if !usable(&["tmux", "stty"]) {
        return;
    }
    let (rig, daemon) = Rig::started("top");
    daemon.done(&["ban", "203.0.113.99", "-R", "before"]);
    let screen = Screen::run(&rig, "top", SMALL, &shell(&daemon, ""));
    screen.shows(&["203.0.113.99"]);
    daemon.stop();
    screen.shows(&["daemon not reachable, retrying", "203.0.113.99"]);
    let daemon = rig.start("main", &["--simulate"]);
    let text = screen.shows(&["SIMULATE: NOTHING IS DROPPED"]);
    assert!(!text.contains("not reachable"), "{text}");

    // A signal leaves no raw terminal behind.
    let shell_pid = screen.pid();
    let children = fs::read_to_string(format!("/proc/{shell_pid}/task/{shell_pid}/children")).unwrap();
    let top: i32 = children.trim().parse().unwrap();
    kill(Pid::from_raw(top), Signal::SIGTERM).unwrap();
    restored(&screen);

    // Without a terminal, or when asked to, it prints and ends.
    let plain = daemon.done(&["top"]);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let once = Screen::run(&rig, "once", SMALL, &shell(&daemon, "--once"));
    once.shows(&["ended with 0"]);
}

#[test]
fn a_member_of_the_group_looks_and_changes_nothing() {
    if !usable(&["tmux", "stty", "setpriv"]) {
        return;
    }
    let rig = Rig::new("top");
    rig.config("main", "socket_group = \"nogroup\"", "");
    let daemon = rig.start("main", &[]);
    daemon.done(&["ban", "203.0.113.99"]);
    let binary = rig.path("sip-filter");
    // The build directory may be closed to others.
    command::run(
        "cp",
        &[env!("CARGO_BIN_EXE_sip-filter"), binary.to_str().unwrap()],
    )
    .unwrap();
    let line = shell(&daemon, "").replace(
        env!("CARGO_BIN_EXE_sip-filter"),
        &format!(
            "NO_COLOR=1 setpriv --reuid=65534 --regid=65534 --clear-groups -- {}",
            binary.display()
        ),
    );
    let screen = Screen::run(&rig, "top", SMALL, &line);
    screen.shows(&["203.0.113.99", "read-only"]);
    screen.keys(&["Tab"]);
    for key in ["b", "u", "a"] {
        screen.keys(&[key]);
        screen.shows(&["may look but not change anything"]);
        screen.keys(&["j"]);
        screen.when("no message", |text| !text.contains("may look but"));
    }
    screen.keys(&["d"]);
    screen.shows(&["203.0.113.99 is banned"]);
    // Together they would be one key, Alt and q.
    screen.keys(&["Escape"]);
    screen.when("no dialog", |text| !text.contains("is banned"));
    screen.keys(&["q"]);
    restored(&screen);
    assert!(banned(&daemon, "203.0.113.99"));
}
