//! Where the driver cannot run XDP, the filter works all the same.

use std::net::SocketAddr;

use xtask::lab::traffic;

use crate::{
    rig::{INTERFACE, Rig, usable},
    wire::{passed, sip_probes},
};

#[test]
fn a_driver_without_xdp_gets_generic_mode_and_a_warning() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("modes");
    // The loopback's driver has no XDP.
    rig.config("main", "interfaces = [\"lo\"]\nxdp_mode = \"native\"", "");
    rig.fail_to_start("main", &[])
        .refused(1, &["cannot filter on lo", "native mode"]);
    assert_eq!(rig.xdp("lo"), None);
    assert!(rig.pins().is_empty());

    rig.config("main", "interfaces = [\"lo\"]", "");
    let daemon = rig.start("main", &[]);
    let status = daemon.json(&["status"]);
    assert_eq!(status["interfaces"][0]["xdp_mode"], "generic", "{status}");
    assert_eq!(status["interfaces"][0]["attached"], true);
    assert_eq!(rig.xdp("lo").unwrap().0, "generic");
    assert!(daemon.done(&["status"]).contains("lo attached (generic)"));
    let log = daemon.process.log();
    assert!(log.contains("WARN") && log.contains("generic mode"), "{log}");
    assert!(daemon.done(&["health"]).contains("generic"));

    // 127.0.0.2 is on the loopback, but no address of the host.
    let server: SocketAddr = "127.0.0.1:5060".parse().unwrap();
    let arrives = || {
        let receiver = traffic::socket(&rig.server, server).unwrap();
        let sender = traffic::socket(&rig.server, "127.0.0.2:0".parse().unwrap()).unwrap();
        sender.send_to(b"OPTIONS sip:x SIP/2.0\r\n\r\n", server).unwrap();
        traffic::drain(&receiver, std::time::Duration::from_millis(300)).unwrap()
    };
    assert_eq!(arrives(), 1);
    daemon.done(&["ban", "127.0.0.2"]);
    assert_eq!(arrives(), 0);
    assert_eq!(daemon.counter("drop-ban-address"), 1);

    // A restart takes it over as it is.
    daemon.kill();
    let daemon = rig.start("main", &[]);
    assert_eq!(daemon.json(&["status"])["interfaces"][0]["xdp_mode"], "generic");
    assert_eq!(arrives(), 0);
}

#[test]
fn generic_mode_on_request_stops_the_same() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("modes");
    rig.config("main", "xdp_mode = \"generic\"", "");
    let daemon = rig.start("main", &[]);
    assert_eq!(rig.xdp(INTERFACE).unwrap().0, "generic");
    assert!(!daemon.process.log().contains("WARN"), "{}", daemon.process.log());
    let source = "203.0.113.7".parse().unwrap();
    // The kernel takes the outer tag off before generic XDP runs, and the filter never sees it.
    let probes = sip_probes(source);
    assert_eq!(passed(&rig, &probes).len(), probes.len());
    daemon.done(&["ban", "203.0.113.7"]);
    assert!(passed(&rig, &probes).is_empty());

    // A link cannot change its mode: what is attached stays as it is until it is detached, and that is said.
    daemon.stop();
    rig.config("main", "xdp_mode = \"native\"", "");
    let daemon = rig.start("main", &[]);
    assert_eq!(daemon.json(&["status"])["interfaces"][0]["xdp_mode"], "generic");
    let log = daemon.process.log();
    assert!(log.contains("WARN") && log.contains("sip-filter detach"), "{log}");
    assert!(passed(&rig, &probes).is_empty());
}
