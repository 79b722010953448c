//! What happens when no daemon answers, and what needs none.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::{binary_for_others, sip_filter, sip_filter_with};

const NOWHERE: &str = "/nonexistent/api.sock";

#[test]
fn an_unreachable_daemon_is_3_and_says_what_to_do() {
    for arguments in [
        &["status"][..],
        &["list"],
        &["ban", "203.0.113.7"],
        &["unban", "203.0.113.7"],
        &["check", "203.0.113.7"],
        &["allow", "list"],
        &["export"],
        &["top"],
        &["events"],
        &["mode", "enforce"],
        &["config", "show"],
        &["config", "reload"],
        &["health"],
    ] {
        let ran = sip_filter(Path::new(NOWHERE), arguments);
        assert_eq!(ran.code, Some(3), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains(NOWHERE), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("systemctl status sip-filter"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("sip-filter run"), "{}", ran.stderr);
    }
    let ran = sip_filter_with(Path::new(NOWHERE), &["import", "-"], "203.0.113.7\n");
    assert_eq!(ran.code, Some(3));
}

#[test]
fn a_socket_for_others_names_its_group() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: becoming another user needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let rights =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    rights(dir.path(), 0o755);
    rights(&socket, 0o660);
    let binary = binary_for_others(dir.path());
    let refused = || {
        let mut command = Command::new(&binary);
        command.arg("--socket").arg(&socket).arg("status");
        let output = command.uid(65_534).gid(65_534).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        stderr
    };
    // Nobody should join that of root.
    let text = refused();
    assert!(
        text.contains("for root alone") && text.contains("`socket_group`"),
        "{text}"
    );
    assert!(!text.contains("usermod"), "{text}");
    // `daemon`, on every Debian.
    std::os::unix::fs::chown(&socket, None, Some(1)).unwrap();
    let text = refused();
    assert!(text.contains("root and the group `daemon`"), "{text}");
    assert!(text.contains("usermod -aG daemon USER"), "{text}");
}

#[test]
fn bad_input_is_2_before_the_daemon_is_asked() {
    for (arguments, words) in [
        (&["ban", "300.1.1.1"][..], "`300.1.1.1`"),
        (&["ban", "203.0.113.7", "host.example"], "`host.example`"),
        (&["ban", "203.0.113.7", "-d", "tomorrow"], "`tomorrow`"),
        (&["ban", "203.0.113.7/24"], "write 203.0.113.0/24 for the network"),
        (
            &["allow", "add", "2001:db8::1/64"],
            "write 2001:db8::/64 for the network",
        ),
        (&["unban", "--all"], "--yes"),
        (&["frobnicate"], "frobnicate"),
        (&[], "Usage"),
    ] {
        let ran = sip_filter(Path::new(NOWHERE), arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
    let ran = sip_filter_with(Path::new(NOWHERE), &["import", "-"], "203.0.113.7\n\nnobody\n");
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("standard input: line 3: `nobody` is neither"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("nothing was imported"), "{}", ran.stderr);
    let ran = sip_filter(Path::new(NOWHERE), &["import", "/dev/zero"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr
            .contains("/dev/zero cannot be read as a list of bans: line 1"),
        "{}",
        ran.stderr
    );
    let ran = sip_filter(Path::new(NOWHERE), &["import", "/nonexistent/list"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("cannot read /nonexistent/list: No such file"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_configuration_without_interface_is_valid_but_not_silently() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    for (text, warned) in [
        ("interfaces = []\n", true),
        ("", false),
        ("interfaces = [\"eth0\"]\n", false),
    ] {
        std::fs::write(&file, text).unwrap();
        let ran = sip_filter(Path::new(NOWHERE), &["config", "check", file.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.contains("is a valid configuration"), "{}", ran.stdout);
        assert_eq!(
            ran.stderr.contains("names no interface"),
            warned,
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn what_is_valid_and_would_not_start_here_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let pins = dir.path().join("pins");
    let text = format!(
        "socket_group = \"no-such-group\"\nadmin_group = \"root\"\n[protect]\nudp_ports = [5060, 5070, 5060]\n\
         [bpf]\npin_root = \"{}\"\n",
        pins.display()
    );
    std::fs::write(&file, text).unwrap();
    let ran = sip_filter(Path::new(NOWHERE), &["config", "check", file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let pins = format!("bpf.pin_root: {}", pins.display());
    for words in [
        "socket_group: there is no group `no-such-group`",
        &pins,
        "protect.udp_ports: 5060 is listed twice",
    ] {
        assert!(
            ran.stderr.contains(&format!("warning: {words}")),
            "no `{words}` in {}",
            ran.stderr
        );
    }
    assert_eq!(ran.stderr.lines().count(), 3, "{}", ran.stderr);
}

#[test]
fn a_negative_length_is_no_option() {
    for verb in [&["ban", "203.0.113.7"][..], &["import", "-"]] {
        let ran = sip_filter(Path::new(NOWHERE), &[verb, &["-d", "-5s"]].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("`-5s` is none of these"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("tip:"), "{}", ran.stderr);
    }
}

#[test]
fn help_completions_and_manual_need_no_daemon() {
    let ran = sip_filter(Path::new(NOWHERE), &["--help"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.contains("Exit codes: 0 done"), "{}", ran.stdout);
    for verb in [
        "run", "ban", "unban", "list", "check", "import", "export", "status", "analyze", "detach",
    ] {
        assert!(
            ran.stdout.contains(&format!("\n  {verb} ")),
            "{verb}: {}",
            ran.stdout
        );
        assert_eq!(sip_filter(Path::new(NOWHERE), &[verb, "--help"]).code, Some(0));
    }
    for shell in ["bash", "zsh", "fish"] {
        let ran = sip_filter(Path::new(NOWHERE), &["completions", shell]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("unban"));
    }
    let ran = sip_filter(Path::new(NOWHERE), &["man"]);
    assert!(ran.stdout.contains(".TH sip-filter 1"), "{}", ran.stdout);
    let dir = tempfile::tempdir().unwrap();
    let ran = sip_filter(
        Path::new(NOWHERE),
        &["man", "--dir", dir.path().to_str().unwrap()],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for page in ["sip-filter.1", "sip-filter-ban.1", "sip-filter-allow-add.1"] {
        assert!(dir.path().join(page).exists(), "{page}");
    }
}

#[test]
fn detaching_what_is_not_attached_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    // The loopback interface is there everywhere.
    let ran = sip_filter(Path::new(NOWHERE), &["detach", "lo", "--pin-root", root]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let said = format!("nothing is pinned for lo under {root}; nothing changed");
    assert!(ran.stdout.starts_with(&said), "{}", ran.stdout);
    let ran = sip_filter(Path::new(NOWHERE), &["detach", "no-such-if", "--pin-root", root]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("no interface `no-such-if` here; there are: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sip-filter"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
}
