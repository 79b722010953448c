//! Limits that change while packets flow.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nix::sys::signal::Signal;
use xtask::lab::{traffic, traffic::Burst, wait};

use crate::rig::{Rig, SERVER4, usable};

/// How many of 100 OPTIONS sent at once arrive.
fn arrive(rig: &Rig, source: IpAddr) -> u64 {
    let server = SocketAddr::new(SERVER4, 5060);
    let receiver = traffic::socket(&rig.server, server).unwrap();
    let burst = Burst {
        count: 100,
        rate: None,
        limit: Duration::from_secs(5),
    };
    let sent = traffic::send(
        &rig.sender,
        SocketAddr::new(source, 4000),
        server,
        burst,
        |_, packet| {
            packet.extend_from_slice(b"OPTIONS sip:x@example.com SIP/2.0\r\nContent-Length: 0\r\n\r\n");
        },
    )
    .unwrap();
    assert_eq!((sent.packets, sent.refused), (100, 0));
    traffic::drain(&receiver, Duration::from_millis(200)).unwrap()
}

#[test]
fn a_reload_changes_limits_at_once_and_a_bad_one_changes_nothing() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("limits");
    // So slow that nothing is earned back within the test.
    let limit = |burst: u32| format!("[limits.options]\nrate = \"1/h\"\nburst = {burst}");
    rig.config("main", "", &limit(30));
    let daemon = rig.start("main", &[]);
    let sources = [
        "203.0.113.1",
        "203.0.113.2",
        "203.0.113.3",
        "203.0.113.4",
        "203.0.113.5",
    ]
    .map(|s| rig.add_source(s));
    assert_eq!(arrive(&rig, sources[0]), 30);
    assert_eq!(arrive(&rig, sources[0]), 0);
    assert_eq!(daemon.counter("drop-limit-options"), 170);

    rig.config("main", "", &limit(50));
    daemon.done(&["config", "reload"]);
    assert_eq!(arrive(&rig, sources[1]), 50);

    rig.config("main", "", &limit(7));
    daemon.process.signal(Signal::SIGHUP);
    wait::until("the reload", Duration::from_secs(10), || {
        Ok(daemon.done(&["config", "show"]).contains("burst = 7\n"))
    })
    .unwrap();
    assert_eq!(arrive(&rig, sources[2]), 7);

    rig.config("main", "", &limit(0));
    daemon
        .ask(&["config", "reload"])
        .refused(1, &["limits.options.burst", "0"]);
    assert_eq!(arrive(&rig, sources[3]), 7, "the limit of before");

    // Whoever is allow-listed has none.
    daemon.done(&["allow", "add", "203.0.113.5"]);
    assert_eq!(arrive(&rig, sources[4]), 100);
    daemon.done(&["allow", "remove", "203.0.113.5"]);
    assert_eq!(arrive(&rig, sources[4]), 7);
}
