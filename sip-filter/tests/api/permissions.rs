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
