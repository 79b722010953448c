//! Who may write, asked of the kernel by a process of another user. Needs root.

use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

use sip_filter::api::Limits;

use crate::support::Daemon;

const NOBODY: u32 = 65_534;
const BAN: &[&str] = &["-d", r#"{"targets":["203.0.113.7"]}"#, "http://x/v1/bans"];

/// Open to all: here it is the peer's identity that must protect, not the file mode.
fn open_to_all(daemon: &Daemon) {
    for (path, mode) in [(daemon.socket.parent().unwrap(), 0o755), (&*daemon.socket, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn curl(daemon: &Daemon, uid: u32, arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--unix-socket"])
        .arg(&daemon.socket)
        .args(arguments)
        .uid(uid)
        .gid(uid);
    let output = tokio::task::block_in_place(|| curl.output()).expect("curl is installed");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_may_look_but_not_touch() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: becoming another user needs root");
        return;
    }
    let daemon = Daemon::start(Limits::default());
    open_to_all(&daemon);
    let read = curl(&daemon, NOBODY, &["http://x/v1/status"]);
    assert!(read.contains("\"mode\":\"enforce\""), "{read}");
    let write = curl(&daemon, NOBODY, BAN);
    assert!(write.contains("\"code\":\"denied\""), "{write}");
    assert!(write.contains("may look but not change"), "{write}");
    assert!(daemon.service.bans.lock().unwrap().is_empty());
    // Reading what customers send is no mere look, however the path is spelt.
    for path in [
        "v1/drops",
        "v1/drops?",
        "v1//drops",
        "./v1/drops",
        "v1/dr%6fps",
        "v1/drops/",
    ] {
        let url = format!("http://x/{path}?limit=1");
        let drops = curl(&daemon, NOBODY, &["--path-as-is", "--max-time", "5", &url]);
        let refused = drops.contains("\"code\":\"denied\"") || drops.contains("\"code\":\"not-found\"");
        assert!(refused, "{path}: {drops}");
    }
    let absolute = curl(
        &daemon,
        NOBODY,
        &[
            "--request-target",
            "http://x/v1/drops?limit=1",
            "--max-time",
            "5",
            "http://x/",
        ],
    );
    assert!(absolute.contains("\"code\":\"denied\""), "{absolute}");
    let root = curl(&daemon, 0, BAN);
    assert!(root.contains("\"outcome\":\"banned\""), "{root}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_the_admin_group_may_write() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: becoming another user needs root");
        return;
    }
    let group = nix::unistd::Group::from_gid(NOBODY.into()).unwrap().unwrap().name;
    let daemon = Daemon::start_with_admins(Limits::default(), Some(&group));
    open_to_all(&daemon);
    let member = curl(&daemon, NOBODY, BAN);
    assert!(member.contains("\"outcome\":\"banned\""), "{member}");
    let stranger = curl(&daemon, 65_533, BAN);
    assert!(
        stranger.contains(&format!("a member of the group `{group}`")),
        "{stranger}"
    );
}

/// Not only who asks counts, but who can ask at all: the socket with the mode it really has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_for_its_group_and_changes_are_for_admins() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: becoming another user needs root");
        return;
    }
    let name = |gid: u32| nix::unistd::Group::from_gid(gid.into()).unwrap().unwrap().name;
    let (readers, admins) = (NOBODY, 1);
    let daemon = Daemon::start_for(Limits::default(), Some(&name(readers)), Some(&name(admins)));
    let directory = daemon.socket.parent().unwrap();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let as_user = |gid: &str, groups: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65531", &format!("--regid={gid}"), groups, "--"])
            .args(["curl", "--silent", "--show-error", "--unix-socket"])
            .arg(&daemon.socket)
            .args(arguments);
        let output =
            tokio::task::block_in_place(|| command.output()).expect("setpriv and curl are installed");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    const STATUS: &[&str] = &["http://x/v1/status"];
    // curl: 7 is "could not connect".
    let outsider = |arguments| as_user("65531", "--clear-groups", arguments).0;
    assert_eq!((outsider(STATUS), outsider(BAN)), (Some(7), Some(7)));

    for (gid, groups) in [("65534", "--clear-groups"), ("65531", "--groups=65534")] {
        let (code, text) = as_user(gid, groups, STATUS);
        assert!(
            code == Some(0) && text.contains("\"mode\":\"enforce\""),
            "{code:?} {text}"
        );
        let (_, text) = as_user(gid, groups, BAN);
        assert!(text.contains("\"code\":\"denied\""), "{text}");
    }
    assert!(daemon.service.bans.lock().unwrap().is_empty());

    // An admin has to be able to open it, too.
    assert_eq!(as_user("1", "--clear-groups", BAN).0, Some(7));
    let (_, text) = as_user("1", "--groups=65534", BAN);
    assert!(text.contains("\"outcome\":\"banned\""), "{text}");
    assert!(curl(&daemon, 0, BAN).contains("\"outcome\":\"unchanged\""));
}
