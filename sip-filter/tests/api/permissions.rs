//! Who may write, asked of the kernel by a process of another user. Needs root.

use std::{os::unix::fs::PermissionsExt, process::Command};

use sip_filter::api::Limits;

use crate::support::Daemon;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_may_look_but_not_touch() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: becoming another user needs root");
        return;
    }
    let daemon = Daemon::start(Limits::default());
    // Open to all: here it is the peer's identity that must protect, not the file mode.
    for (path, mode) in [(daemon.socket.parent().unwrap(), 0o755), (&*daemon.socket, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let ask = |uid: u32, arguments: &[&str]| {
        use std::os::unix::process::CommandExt as _;
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--unix-socket"])
            .arg(&daemon.socket)
            .args(arguments)
            .uid(uid)
            .gid(uid)
            .output()
            .expect("curl is installed");
        String::from_utf8(output.stdout).unwrap()
    };
    let read = tokio::task::block_in_place(|| ask(65_534, &["http://x/v1/status"]));
    assert!(read.contains("\"mode\":\"enforce\""), "{read}");
    let body = r#"{"targets":["203.0.113.7"]}"#;
    let write = tokio::task::block_in_place(|| ask(65_534, &["-d", body, "http://x/v1/bans"]));
    assert!(write.contains("\"code\":\"denied\""), "{write}");
    assert!(write.contains("may look but not change"), "{write}");
    assert!(daemon.service.bans.lock().unwrap().is_empty());
    let root = tokio::task::block_in_place(|| ask(0, &["-d", body, "http://x/v1/bans"]));
    assert!(root.contains("\"outcome\":\"banned\""), "{root}");
}
