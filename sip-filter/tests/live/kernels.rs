//! What differs from kernel to kernel. `cargo xtask kernels` runs this on several.

use std::time::Duration;

use nix::sys::utsname::uname;
use xtask::lab::{wait, workdir::path_str};

use crate::{
    rig::{Daemon, INTERFACE, Rig, SERVER4, usable},
    trust::{NONCE, exchange, register, socket},
};

/// Whether links of programs at an interface's queueing layer exist: Linux 6.6.
fn has_tcx() -> bool {
    let name = uname().unwrap();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 6)
}

/// Our classifiers at the interface, attached in the old way.
fn classifiers(rig: &Rig) -> usize {
    let text = rig
        .server
        .run("tc", &["filter", "show", "dev", INTERFACE, "egress"])
        .unwrap();
    text.matches("direct-action").count()
}

#[track_caller]
fn observes(rig: &Rig, daemon: &Daemon) {
    let (way, in_the_old_way) = if has_tcx() { ("tcx", 0) } else { ("clsact", 1) };
    let status = daemon.json(&["status"]);
    assert_eq!(status["interfaces"][0]["egress"], way, "{status}");
    assert_eq!(classifiers(rig), in_the_old_way);
}

/// A phone registers, twice as the registrar wants it; only the registrar's answers tell that it succeeded.
fn becomes_trusted(rig: &Rig, daemon: &Daemon) {
    let source = rig.add_source("203.0.113.9");
    let registrar = rig.server.enter(|| socket((SERVER4, 5060).into())).unwrap();
    let phone = rig.sender.enter(|| socket((source, 5060).into())).unwrap();
    assert!(exchange(&phone, &registrar, &register(1, None)).contains("401"));
    assert!(exchange(&phone, &registrar, &register(2, Some(NONCE))).contains("200"));
    wait::until("trust", Duration::from_secs(30), || {
        let text = daemon.ask(&["check", "203.0.113.9", "-o", "json"]).stdout;
        let known: serde_json::Value = serde_json::from_str(&text)?;
        Ok(known["trust"].is_object())
    })
    .unwrap();
}

#[test]
fn answers_are_observed_once_in_the_way_the_kernel_has() {
    if !usable(&["tc"]) {
        return;
    }
    let (rig, daemon) = Rig::started("kernels");
    observes(&rig, &daemon);
    becomes_trusted(&rig, &daemon);
    // What a daemon that was killed left behind is replaced, and so is what one leaves that has given up the right to
    // take it off.
    daemon.kill();
    let daemon = rig.start("main", &[]);
    observes(&rig, &daemon);
    daemon.stop();
    let daemon = rig.start("main", &[]);
    observes(&rig, &daemon);
    daemon.stop();
    // A link of a program ends with its daemon. A classifier of old stays, without effect, since the daemon has given up
    // the right to change the interface, and root takes it off.
    assert_eq!(classifiers(&rig), usize::from(!has_tcx()));
    let root = rig.pin_root("main");
    let detach = || {
        rig.output(&crate::rig::command(&[
            "detach",
            INTERFACE,
            "--pin-root",
            path_str(&root).unwrap(),
        ]))
    };
    let ran = detach();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = "took off sip0 the classifier of answers";
    assert_eq!(ran.stdout.contains(told), !has_tcx(), "{ran:?}");
    assert_eq!(classifiers(&rig), 0);
    assert_eq!(rig.xdp(INTERFACE), None);
    assert!(detach().stdout.contains("nothing is pinned for sip0"));

    // The same if only the classifier was left.
    rig.config("main", "on_stop = \"detach\"", "");
    let daemon = rig.start("main", &[]);
    observes(&rig, &daemon);
    daemon.stop();
    assert!(rig.pins().is_empty(), "{:?}", rig.pins());
    assert_eq!(classifiers(&rig), usize::from(!has_tcx()));
    let ran = detach();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stdout.contains(told), !has_tcx(), "{ran:?}");
    assert_eq!(classifiers(&rig), 0);
}

#[test]
#[ignore = "for kernels older than the oldest the filter works on; `cargo xtask kernels` runs it there"]
fn what_a_kernel_lacks_is_said_in_one_sentence() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("kernels");
    rig.config("main", "", "");
    let ran = rig.fail_to_start("main", &[]);
    ran.refused(
        1,
        &[
            "cannot filter on sip0",
            "lacks",
            "XDP frames in several buffers (Linux 5.18)",
            "sip-filter needs Linux 5.19 or later",
        ],
    );
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    assert_eq!(rig.xdp(INTERFACE), None);
    assert!(rig.pins().is_empty(), "{:?}", rig.pins());
}
