//! Bans by hand, and what they stop.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpListener},
};

use crate::{
    rig::{Rig, SERVER4, SERVER6, usable},
    wire::{Probe, connects, media_probe, names, passed, reaches, sip_probes},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn bans_stop_sip_however_it_is_wrapped_and_the_allow_list_wins() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("bans");
    let in_network = sip_probes(ip("203.0.113.7"));
    let exempt = sip_probes(ip("203.0.113.50"));
    let in_prefix = sip_probes(ip("2001:db8:bad:1::7"));
    let host = sip_probes(ip("2001:db8:bad:2::9"));
    let strangers = [
        sip_probes(ip("198.51.100.9")),
        sip_probes(ip("2001:db8:bad:2::a")),
    ];
    let media =
        ["203.0.113.7", "2001:db8:bad:1::7", "2001:db8:bad:2::9"].map(|source| media_probe(ip(source)));
    let every: Vec<&[Probe]> = vec![
        &in_network,
        &exempt,
        &in_prefix,
        &host,
        &strangers[0],
        &strangers[1],
        &media,
    ];
    let send = || -> BTreeSet<String> { every.iter().flat_map(|probes| passed(&rig, probes)).collect() };
    let all: BTreeSet<String> = every.iter().flat_map(|probes| names(probes)).collect();
    assert_eq!(send(), all, "before the bans everything passes");
    for reason in ["drop-ban-address", "drop-ban-network", "pass-allowed-banned"] {
        assert_eq!(daemon.counter(reason), 0, "{reason}");
    }

    daemon.done(&["allow", "add", "203.0.113.50", "-R", "a customer"]);
    daemon.done(&["ban", "203.0.113.0/24"]);
    daemon.done(&["ban", "2001:db8:bad:1::/64"]);
    daemon.done(&["ban", "2001:db8:bad:2::9"]);
    let free: BTreeSet<String> = [&exempt[..], &strangers[0], &strangers[1], &media]
        .iter()
        .flat_map(|probes| names(probes))
        .collect();
    let now = send();
    let leaked: Vec<_> = now.difference(&free).collect();
    let lost: Vec<_> = free.difference(&now).collect();
    assert!(
        leaked.is_empty() && lost.is_empty(),
        "passed: {leaked:#?}, did not pass: {lost:#?}"
    );
    assert_eq!(daemon.counter("drop-ban-network"), in_network.len() as u64);
    assert_eq!(
        daemon.counter("drop-ban-address"),
        (in_prefix.len() + host.len()) as u64
    );
    assert_eq!(daemon.counter("pass-allowed-banned"), exempt.len() as u64);

    daemon.done(&[
        "unban",
        "203.0.113.0/24",
        "2001:db8:bad:1::/64",
        "2001:db8:bad:2::9",
    ]);
    assert_eq!(send(), all, "and after them again");
}

#[test]
fn a_ban_of_everything_stops_everything() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("bans");
    for source in ["203.0.113.7", "2001:db8:bad:1::7", "2001:db8:bad:2::9"] {
        let mut probes = sip_probes(ip(source));
        probes.push(media_probe(ip(source)));
        daemon.done(&["ban", source, "--scope", "all"]);
        assert_eq!(passed(&rig, &probes), BTreeSet::new(), "{source}");
    }
}

#[test]
fn bans_stop_real_connections_and_datagrams() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("bans");
    let sources = [
        "203.0.113.7",
        "203.0.113.50",
        "2001:db8:bad:1::7",
        "2001:db8:bad:2::9",
    ]
    .map(|s| rig.add_source(s));
    let server =
        |source: IpAddr, port| SocketAddr::new(if source.is_ipv4() { SERVER4 } else { SERVER6 }, port);
    let listen = |address, port| {
        let at = SocketAddr::new(address, port);
        rig.server.enter(|| TcpListener::bind(at)).unwrap().unwrap()
    };
    let _listeners = [
        listen(SERVER4, 5060),
        listen(SERVER4, 5070),
        listen(SERVER6, 5060),
        listen(SERVER6, 5070),
    ];
    let reachable = |source: IpAddr, port| {
        let to = server(source, port);
        let (tcp, udp) = (connects(&rig.sender, source, to), reaches(&rig, source, to));
        assert_eq!(tcp, udp, "TCP and UDP from {source} to port {port}");
        tcp
    };
    for source in sources {
        assert!(reachable(source, 5060) && reachable(source, 5070), "{source}");
    }
    daemon.done(&["allow", "add", "203.0.113.50"]);
    daemon.done(&[
        "ban",
        "203.0.113.0/24",
        "2001:db8:bad:1::/64",
        "2001:db8:bad:2::9",
    ]);
    let [v4, exempt, v6, v6_host] = sources;
    for source in [v4, v6, v6_host] {
        assert!(!reachable(source, 5060), "{source} is banned");
        assert!(reachable(source, 5070), "{source}: other ports are not touched");
    }
    assert!(reachable(exempt, 5060));
    daemon.done(&[
        "ban",
        "203.0.113.0/24",
        "2001:db8:bad:1::/64",
        "2001:db8:bad:2::9",
        "--scope",
        "all",
    ]);
    for source in [v4, v6, v6_host] {
        assert!(!reachable(source, 5070), "{source} is banned from everything");
    }
    assert!(reachable(exempt, 5060) && reachable(exempt, 5070));

    // Hits reach `list` and `top` within a second or two.
    let hits =
        |daemon: &crate::rig::Daemon| daemon.bans().iter().all(|ban| ban["hits"].as_u64().unwrap() > 0);
    xtask::lab::wait::until("hits of every ban", std::time::Duration::from_secs(10), || {
        Ok(hits(&daemon))
    })
    .unwrap();
    let top = daemon.json(&["top", "-n", "2"]);
    assert_eq!(top["sources"].as_array().unwrap().len(), 2, "{top}");
    let rate = |n: usize| top["sources"][n]["packets_per_second"].as_f64();
    assert!(rate(0) >= rate(1), "{top}");
    assert!(top["sources"][0]["hits"].as_u64() > Some(0), "{top}");
    assert_eq!(top["sources"][0]["banned"], true);
}
