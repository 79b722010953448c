//! Every verb against a daemon.

use std::{io::BufRead as _, path::Path, process::Stdio};

use sip_filter::api::{Limits, types::Mode};

use crate::{
    Ran, sip_filter, sip_filter_with,
    support::{Daemon, fake::Fake},
};

/// Runs the binary while the daemon's threads go on.
fn run(daemon: &Daemon, line: &str) -> Ran {
    let arguments: Vec<_> = line.split(' ').collect();
    tokio::task::block_in_place(|| sip_filter(&daemon.socket, &arguments))
}

fn import(daemon: &Daemon, line: &str, input: &str) -> Ran {
    let arguments: Vec<_> = line.split(' ').collect();
    tokio::task::block_in_place(|| sip_filter_with(&daemon.socket, &arguments, input))
}

fn bans(daemon: &Daemon) -> usize {
    daemon.service.bans.lock().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_is_said() {
    let daemon = Daemon::start(Limits::default());
    for (line, code, stdout) in [
        (
            "ban 203.0.113.7 -d 1h -R x",
            0,
            "banned 203.0.113.7 for 1h (scope sip)\n",
        ),
        (
            "ban 203.0.113.7 -d 1h -R x",
            0,
            "203.0.113.7 was already banned for 1h (scope sip)\n",
        ),
        (
            "ban 203.0.113.7 203.0.113.0/24 -d permanent --scope all",
            0,
            "changed the ban of 203.0.113.7: now permanently (scope all)\n\
             banned 203.0.113.0/24 permanently (scope all)\n",
        ),
        (
            "check 203.0.113.7 -o raw",
            0,
            "203.0.113.7\tbanned\t203.0.113.7\t-\t-\t-\n",
        ),
        ("unban 203.0.113.7", 0, "unbanned 203.0.113.7\n"),
        (
            "unban 198.51.100.1",
            0,
            "198.51.100.1 was not banned; nothing changed\n",
        ),
        ("unban --origin detector", 0, "no such bans; nothing changed\n"),
        ("unban --all --yes", 0, "unbanned 203.0.113.0/24\n"),
        (
            "check 203.0.113.7 -o raw",
            1,
            "203.0.113.7\tnot-banned\t-\t-\t-\t-\n",
        ),
        ("check 192.0.2.1 -o raw", 1, "192.0.2.1\tallowed\t-\t-\t-\t-\n"),
        (
            "allow add 198.51.100.0/24",
            0,
            "allow-listed 198.51.100.0/24: nothing from it is dropped\n",
        ),
        (
            "allow add 198.51.100.0/24",
            0,
            "198.51.100.0/24 was already allow-listed; nothing changed\n",
        ),
        (
            "allow remove 198.51.100.0/24",
            0,
            "removed 198.51.100.0/24 from the allow-list\n",
        ),
        ("allow list -o raw", 0, "192.0.2.1\tconfig\t-\thead office\n"),
        (
            "mode simulate",
            0,
            "the mode is now simulate (was enforce): nothing is dropped, what would be is counted\n",
        ),
        (
            "mode simulate",
            0,
            "the mode was already simulate; nothing changed\n",
        ),
        ("ban 203.0.113.8 -q", 0, ""),
        ("health -o raw", 0, "attached\tok\teth0 (native)\n"),
        ("config show -q", 0, "simulate = false\n"),
        ("config reload", 0, "configuration reloaded; changed: bans.time\n"),
    ] {
        let ran = run(&daemon, line);
        assert_eq!(ran.code, Some(code), "{line}: {}", ran.stderr);
        assert_eq!(ran.stdout, stdout, "{line}");
    }
    *daemon.service.healthy.lock().unwrap() = false;
    let ran = run(&daemon, "health");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout.contains("attached: FAILED: eth0 is down"),
        "{}",
        ran.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_reach_standard_error() {
    let daemon = Daemon::start(Limits::default());
    run(&daemon, "ban 203.0.113.7 203.0.113.0/24");
    let ran = run(&daemon, "unban 203.0.113.7 -q");
    assert_eq!(ran.stdout, "");
    assert!(
        ran.stderr
            .contains("203.0.113.7 still lies in the ban of 203.0.113.0/24"),
        "{}",
        ran.stderr
    );
    run(&daemon, "ban 203.0.113.9");
    for (line, note) in [
        ("list -n 1", "1 ban of more; `--limit`"),
        ("list -n 2", "2 bans\n"),
        ("list", "2 bans\n"),
    ] {
        let ran = run(&daemon, line);
        assert!(ran.stderr.starts_with(note), "{line}: {}", ran.stderr);
        assert_eq!(
            ran.stdout.contains("203.0.113.9"),
            line != "list -n 1",
            "{}",
            ran.stdout
        );
    }
    *daemon.service.mode.lock().unwrap() = Mode::Simulate;
    let ran = run(&daemon, "ban 203.0.113.7");
    assert!(
        ran.stderr.contains("the filter simulates and drops nothing"),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_is_4_and_full_is_5() {
    let daemon = Daemon::start(Limits::default());
    let ran = run(&daemon, "ban 203.0.113.7 192.0.2.1");
    assert_eq!(ran.code, Some(4));
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "error: 192.0.2.1 is allow-listed\nhint: take it from the allow-list first: `sip-filter allow remove \
         192.0.2.1`\n"
    );
    assert_eq!(bans(&daemon), 0, "all or nothing");
    assert_eq!(run(&daemon, "ban 192.0.2.2").code, Some(5));
    assert_eq!(run(&daemon, "check 192.0.2.3").code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_for_people_and_programs() {
    let daemon = Daemon::start(Limits::default());
    let ran = run(&daemon, "list");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
    let mut ban = Fake::detected();
    ban.reason = "evil\x1b[2Jagent".to_owned();
    daemon.service.bans.lock().unwrap().push(ban);

    let ran = run(&daemon, "list");
    let mut lines = ran.stdout.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("TARGET       ENDS    SCOPE  ORIGIN    RULE"),
        "{}",
        ran.stdout
    );
    let row = lines.next().unwrap();
    assert!(
        row.starts_with("203.0.113.7  in 59m  sip    detector  scanner-signature  1234"),
        "{row}"
    );
    assert!(row.ends_with("evil\\u{1b}[2Jagent"), "{row}");
    assert!(!ran.stdout.contains('\x1b'), "no colour in a pipe");

    let ran = run(&daemon, "list --evidence");
    insta::assert_snapshot!("list-evidence", without_ages(&ran.stdout));
    let ran = run(&daemon, "list -o raw");
    assert_eq!(
        ran.stdout,
        "203.0.113.7\tdetector\tscanner-signature\tsip\t2026-11-24T05:59:00Z\t2026-11-24T06:59:00Z\t3540\t1234\t\
         2026-11-24T05:59:57Z\tevil\\u{1b}[2Jagent\n"
    );
    let ran = run(&daemon, "list -o json");
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["bans"][0]["target"], "203.0.113.7");
    assert_eq!(ran.stdout.lines().count(), 1);

    insta::assert_snapshot!("status", run(&daemon, "status").stdout);
    let check = run(&daemon, "check 203.0.113.7");
    assert_eq!(check.code, Some(0));
    insta::assert_snapshot!("check", without_ages(&check.stdout));
    let top = run(&daemon, "top").stdout;
    assert!(top.starts_with("PKT/S   DROP/S  HITS  SOURCE "), "{top}");
    assert!(
        top.contains("\n1234.5  1000.0  1234  203.0.113.7  banned "),
        "{top}"
    );
    for verb in [
        "status",
        "check 203.0.113.7",
        "top",
        "allow list",
        "health",
        "config show",
        "export",
    ] {
        let ran = run(&daemon, &format!("{verb} -o json"));
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(json["schema_version"], 1, "{verb}");
    }
}

/// How long ago something was depends on when the test runs.
fn without_ages(text: &str) -> String {
    let words: Vec<_> = text.split(' ').collect();
    let blank = |(index, word): (usize, &&str)| match words.get(index + 1) {
        Some(next) if next.starts_with("ago") => "N".to_owned(),
        _ => (*word).to_owned(),
    };
    words.iter().enumerate().map(blank).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_are_imports() {
    let daemon = Daemon::start(Limits::default());
    for line in [
        "ban 203.0.113.7 -d 1h -R one,\"two\"",
        "ban 2001:db8::/64 -d permanent --scope all",
    ] {
        assert_eq!(run(&daemon, line).code, Some(0));
    }
    // The fake's clock stands still, the program's does not: an end that is surely ahead.
    daemon.service.bans.lock().unwrap()[0].expires =
        Some(humantime::parse_rfc3339("2124-01-01T00:00:00.25Z").unwrap());
    let before = daemon.service.bans.lock().unwrap().clone();
    let exported = run(&daemon, "export").stdout;
    assert_eq!(exported.lines().count(), 4, "one ban per line: {exported}");
    let csv = run(&daemon, "export --format csv").stdout;
    let plain = run(&daemon, "export --format plain").stdout;
    assert_eq!(plain, "203.0.113.7\n2001:db8::/64\n");

    daemon.service.bans.lock().unwrap().clear();
    let ran = import(&daemon, "import -", &exported);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        "imported standard input: 2 new, 0 changed, 0 already so\n"
    );
    assert_eq!(*daemon.service.bans.lock().unwrap(), before);
    assert!(
        import(&daemon, "import -", &exported)
            .stdout
            .contains("0 new, 0 changed, 2 already so")
    );

    let ran = run(&daemon, "import /dev/null");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, "there is nothing in /dev/null: no ban was imported\n");

    daemon.service.bans.lock().unwrap().clear();
    let ran = import(&daemon, "import -", &csv);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(daemon.service.bans.lock().unwrap()[0].reason, before[0].reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_is_all_or_nothing() {
    let daemon = Daemon::start(Limits::default());
    // Three chunks, and the trouble in the last one.
    let mut list: String = (0..25_000_u32)
        .map(|number| format!("{}\n", std::net::Ipv4Addr::from(0x0a00_0000 + number)))
        .collect();
    list.push_str("# the office\n192.0.2.1\n");
    let ran = import(&daemon, "import -", &list);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("standard input: line 25002: 192.0.2.1 is allow-listed"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("nothing was imported"), "{}", ran.stderr);
    assert_eq!(bans(&daemon), 0);

    let ran = import(
        &daemon,
        "import - --dry-run --skip-invalid -o json",
        "198.51.100.1\n192.0.2.1\n",
    );
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["added"], 1);
    assert_eq!(json["skipped"][0]["number"], 2);
    assert_eq!(bans(&daemon), 0);

    let ran = import(
        &daemon,
        "import - --skip-invalid -d 7d",
        "198.51.100.1\nnobody\n192.0.2.1\n198.51.100.2\n",
    );
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.stdout,
        "imported standard input: 2 new, 0 changed, 0 already so, 2 left out\n"
    );
    assert!(ran.stderr.contains("line 2: `nobody`"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("line 3: 192.0.2.1 is allow-listed"),
        "{}",
        ran.stderr
    );
    assert_eq!(bans(&daemon), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_reads_why_even_if_its_request_is_long() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: becoming another user needs root");
        return;
    }
    let daemon = Daemon::start(Limits::default());
    let directory = daemon.socket.parent().unwrap();
    for (path, mode) in [(directory, 0o755), (&*daemon.socket, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // More than the socket buffers hold: the answer comes while the request is still being sent.
    let list = directory.join("list");
    let lines: String = (0..9_000_u32)
        .map(|number| {
            format!(
                "{},1h,{}\n",
                std::net::Ipv4Addr::from(0x0a00_0000 + number),
                "x".repeat(200)
            )
        })
        .collect();
    std::fs::write(&list, lines).unwrap();
    let mut import = std::process::Command::new(crate::binary_for_others(directory));
    import
        .arg("--socket")
        .arg(&daemon.socket)
        .arg("import")
        .arg(&list)
        .uid(65_534)
        .gid(65_534);
    let output = tokio::task::block_in_place(|| import.output().unwrap());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("may look but not change anything"), "{stderr}");
    assert_eq!(bans(&daemon), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_line_by_line_and_end_with_the_daemon() {
    let daemon = Daemon::start(Limits::default());
    let ran = run(&daemon, "events");
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.stdout,
        "2026-11-24T06:00:00Z ban            banned 203.0.113.7 for 1h: scanner-signature\n"
    );
    let mut child = spawn_follow(&daemon.socket);
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || tokio::task::block_in_place(|| lines.next().unwrap().unwrap());
    assert!(next().contains("\"kind\":\"ban\""));
    daemon.service.events.send(Fake::event("unban", "gone")).unwrap();
    assert!(next().contains("\"message\":\"gone\""));
    daemon.stop().await;
    let code = tokio::task::block_in_place(|| child.wait().unwrap().code());
    assert_eq!(code, Some(3));
}

fn spawn_follow(socket: &Path) -> std::process::Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_sip-filter"))
        .args(["events", "-f", "-o", "json", "--socket"])
        .arg(socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_status_is_a_record_on_each_line() {
    let daemon = Daemon::start(Limits::default());
    let ran = run(&daemon, "status -o raw");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let records: Vec<Vec<&str>> = ran
        .stdout
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let value = |keys: &[&str]| {
        let record = records.iter().find(|record| record.starts_with(keys));
        record.and_then(|record| record.get(keys.len())).copied()
    };
    assert_eq!(value(&["mode"]), Some("enforce"));
    assert_eq!(value(&["interface", "eth0"]), Some("attached"));
    for keys in [
        &["uptime_seconds"][..],
        &["bans"],
        &["trusted"],
        &["events", "lost"],
        &["events", "suppressed"],
    ] {
        let number = value(keys).and_then(|text| text.parse::<u64>().ok());
        assert!(number.is_some(), "{keys:?}: {}", ran.stdout);
    }
    assert!(records.iter().all(|record| record.len() >= 2), "{}", ran.stdout);
}
