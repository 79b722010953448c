//! The lab itself, on real namespaces. Needs root: `cargo test -p xtask --test lab -- --ignored`.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use xtask::lab::{
    Netns, SourceCounters, Topology, WorkDir, sweep,
    traffic::{self, Burst},
};

#[test]
#[ignore = "needs root"]
fn packets_cross_the_router_and_are_counted_by_source() {
    sweep().unwrap();
    let dir = WorkDir::new("test").unwrap();
    let topology = Topology::new(&[10], &[11], &[21]).unwrap();
    let pairs = [
        (Topology::attacker_v4(21), Topology::server_v4(10)),
        (Topology::attacker_v6(21), Topology::server_v6(10)),
    ];
    let counters = SourceCounters::install(&topology.edge, &dir, &pairs.map(|(from, _)| from)).unwrap();
    for (from, to) in pairs {
        let to = SocketAddr::new(to, 5060);
        let receiver = traffic::socket(&topology.edge, to).unwrap();
        let start = Instant::now();
        let burst = Burst {
            count: 50,
            rate: Some(1000),
            limit: Duration::from_secs(2),
        };
        let sent = traffic::send(
            topology.attacker(21).unwrap(),
            SocketAddr::new(from, 4000),
            to,
            burst,
            |n, packet| {
                packet.extend_from_slice(n.to_string().as_bytes());
            },
        )
        .unwrap();
        assert_eq!((sent.packets, sent.refused), (50, 0));
        receiver.recv(&mut [0; 16]).unwrap();
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "the first to {to} took {:?}",
            start.elapsed()
        );
        assert_eq!(traffic::drain(&receiver, Duration::from_millis(200)).unwrap(), 49);
        assert_eq!(counters.read(&topology.edge).unwrap()[&from], 50);
    }
}

#[test]
#[ignore = "needs root"]
fn a_namespace_goes_with_everything_in_it() {
    let netns = Netns::new("test").unwrap();
    let name = netns.name().to_owned();
    let mut sleeper = netns
        .spawn(std::process::Command::new("sleep").arg("60"))
        .unwrap();
    drop(netns);
    assert!(!sleeper.wait().unwrap().success(), "killed with its namespace");
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
}
