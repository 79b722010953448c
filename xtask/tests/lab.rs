//! The lab itself, on real namespaces and with the real programs.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use xtask::lab::{
    Netns, Process, Site, SourceCounters, Topology, WorkDir,
    client::{Client, Shape},
    command,
    frames::Link,
    netns,
    scanners::Scan,
    sipp::{Pace, Phone, Sipp},
    spoof::Forger,
    sweep,
    traffic::{self, Burst},
    usable, wait,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn packets_cross_the_router_and_are_counted_by_source() {
    if !usable(&["nft"]) {
        return;
    }
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
        let attacker = topology.attacker(21).unwrap();
        let start = Instant::now();
        let burst = Burst {
            count: 50,
            rate: Some(1000),
            limit: SECOND * 2,
        };
        let sent = traffic::send(attacker, SocketAddr::new(from, 4000), to, burst, |n, packet| {
            packet.extend_from_slice(n.to_string().as_bytes());
        })
        .unwrap();
        assert_eq!((sent.packets, sent.refused), (50, 0));
        receiver.recv(&mut [0; 16]).unwrap();
        // A second or two would mean that the link was still mute.
        assert!(
            start.elapsed() < Duration::from_millis(700),
            "the first to {to} took {:?}",
            start.elapsed()
        );
        assert_eq!(traffic::drain(&receiver, Duration::from_millis(200)).unwrap(), 49);
        assert_eq!(counters.read(&topology.edge).unwrap()[&from], 50);
    }
}

#[test]
fn vlan_interfaces_reach_each_other() {
    if !usable(&[]) {
        return;
    }
    let (left, right) = (Netns::new("left").unwrap(), Netns::new("right").unwrap());
    netns::connect((&left, "eth0"), (&right, "eth0")).unwrap();
    for (host, address) in [(&left, "192.0.2.1/24"), (&right, "192.0.2.2/24")] {
        let vlan = match host.add_vlan("eth0", 100) {
            Err(error) if error.to_string().contains("Unknown device type") => return,
            vlan => vlan.unwrap(),
        };
        assert_eq!(vlan, "eth0.100");
        host.add_address(&vlan, address).unwrap();
    }
    let to: SocketAddr = "192.0.2.2:5060".parse().unwrap();
    let receiver = traffic::socket(&right, to).unwrap();
    let burst = Burst {
        count: 3,
        rate: None,
        limit: SECOND,
    };
    let from = "192.0.2.1:4000".parse().unwrap();
    traffic::send(&left, from, to, burst, |_, packet| packet.push(b'x')).unwrap();
    assert_eq!(traffic::drain(&receiver, SECOND / 2).unwrap(), 3);
}

#[test]
fn a_frame_arrives_as_it_was_sent() {
    if !usable(&[]) {
        return;
    }
    let (left, right) = (Netns::new("left").unwrap(), Netns::new("right").unwrap());
    netns::connect((&left, "eth0"), (&right, "eth0")).unwrap();
    let mut sender = Link::open(&left, "eth0").unwrap();
    let mut receiver = Link::open(&right, "eth0").unwrap();
    // To everybody, from nobody, of an EtherType for experiments.
    let frame: Vec<u8> = [[0xff; 6], [2; 6]]
        .concat()
        .into_iter()
        .chain([0x88, 0xb5])
        .chain(0..50)
        .collect();
    sender.send(&frame).unwrap();
    let got = receiver
        .receive(SECOND, |frame| frame.get(12..14) == Some(&[0x88, 0xb5]))
        .unwrap();
    assert_eq!(got, Some(frame));
    assert_eq!(
        receiver
            .receive(SECOND / 10, |frame| frame.get(12) == Some(&0x88))
            .unwrap(),
        None
    );
}

#[test]
fn a_namespace_goes_with_everything_in_it() {
    if !usable(&[]) {
        return;
    }
    let netns = Netns::new("test").unwrap();
    let name = netns.name().to_owned();
    let mut sleeper = netns.spawn(Command::new("sleep").arg("60")).unwrap();
    drop(netns);
    assert!(!sleeper.wait().unwrap().success(), "killed with its namespace");
    assert!(!Path::new("/run/netns").join(name).exists());
}

#[test]
fn a_process_goes_with_its_children() {
    if !usable(&["sh", "sleep"]) {
        return;
    }
    let dir = WorkDir::new("test").unwrap();
    let netns = Netns::new("test").unwrap();
    let mut shell = Command::new("sh");
    // Deaf to SIGTERM, and so is its child.
    shell.args(["-c", "trap '' TERM; sleep 60 & echo child $!; wait"]);
    let mut process = Process::spawn(&netns, "shell", dir.path(), shell).unwrap();
    process.wait_for_line("child ", SECOND * 2).unwrap();
    let child: u32 = process.log().trim().trim_start_matches("child ").parse().unwrap();
    drop(process);
    let ended = || match std::fs::read_to_string(format!("/proc/{child}/stat")) {
        // Dead, but its new parent hasn't looked yet.
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    wait::until("end of the grandchild", SECOND * 2, || Ok(ended())).unwrap();
}

#[test]
fn what_a_dead_run_left_is_swept() {
    if !usable(&[]) {
        return;
    }
    // No process can have this number.
    let name = "sipf-4194305-test";
    command::run("ip", &["netns", "add", name]).unwrap();
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    sweep().unwrap();
    assert!(!Path::new("/run/netns").join(name).exists());
    assert!(!dir.exists());
}

#[test]
fn a_site_serves_phones_and_scanners_over_both_protocols() {
    if !usable(&["kamailio", "sipp", "svwar", "nft", "timeout"]) {
        return;
    }
    let phones = [Topology::phone_v4(11), Topology::phone_v6(11)].map(|address| Phone {
        address,
        user: "1001".to_owned(),
        password: "secret".to_owned(),
    });
    let limit = SECOND * 15;
    let site = Site::start("test", &[11], &[21], &phones[..1], limit * 2).unwrap();
    let edge = &site.topology.edge;
    wait::for_port(edge, Site::server_v6(), SECOND).unwrap();
    let pace = Pace {
        rate: 2,
        every: SECOND,
        count: 2,
        limit,
    };
    for phone in &phones {
        let (netns, server) = (&site.topology.phones, Site::server_for(phone.address));
        let mut register = Sipp::register(netns, &site.dir, "register", phone, 5060, server, pace).unwrap();
        let mut call = Sipp::call(netns, &site.dir, "call", phone, 5062, server, pace).unwrap();
        for sipp in [&mut register, &mut call] {
            assert!(
                sipp.process.wait(limit).unwrap().success(),
                "{}",
                sipp.process.log()
            );
            let stats = sipp.stats().unwrap();
            assert_eq!((stats.tried, stats.completed, stats.failed), (2, 2, 0));
        }
    }
    // Somebody without the password gets nothing.
    let stranger = Phone {
        password: "guess".to_owned(),
        ..phones[0].clone()
    };
    let (netns, server) = (&site.topology.phones, Site::server_v4());
    let mut register = Sipp::register(netns, &site.dir, "stranger", &stranger, 5060, server, pace).unwrap();
    assert!(!register.process.wait(limit).unwrap().success());
    assert_eq!(register.stats().unwrap().completed, 0);

    let sources = [Topology::attacker_v4(21), Topology::attacker_v6(21)];
    let counters = SourceCounters::install(edge, &site.dir, &sources).unwrap();
    for source in sources {
        let scan = Scan::War {
            server: Site::server_for(source).ip(),
            extensions: "1000-1003".to_owned(),
        };
        let attacker = site.topology.attacker(21).unwrap();
        let mut svwar = scan.start(attacker, &site.dir, "svwar", limit).unwrap();
        svwar.wait(limit).unwrap();
        assert!(
            counters.read(edge).unwrap()[&source] >= 4,
            "{source}: {}",
            svwar.log()
        );
        assert!(svwar.log().contains("1001"), "{}", svwar.log());
    }
}

#[test]
fn our_own_client_registers_and_calls_like_a_phone() {
    if !usable(&["kamailio", "sipp"]) {
        return;
    }
    let phones = [Topology::phone_v4(11), Topology::phone_v6(11)].map(|address| Phone {
        address,
        user: "1001".to_owned(),
        password: "secret".to_owned(),
    });
    let site = Site::start("test", &[11], &[21], &phones[..1], SECOND * 30).unwrap();
    let large = Shape {
        long_uri: 600,
        long_body: 4000,
    };
    for phone in &phones {
        let (local, server) = (
            SocketAddr::new(phone.address, 5060),
            Site::server_for(phone.address),
        );
        let client = Client::new(&site.topology.phones, local, server, &phone.user).unwrap();
        assert_eq!(client.options().unwrap().status, Some(200));
        assert_eq!(client.register("wrong").unwrap().status, Some(401));
        assert_eq!(client.register("secret").unwrap().status, Some(200));
        assert_eq!(client.probe("0097259").unwrap().status, Some(407));
        for shape in [Shape::default(), large] {
            let call = client.call("2000", "secret", shape).unwrap();
            assert!(call.succeeded(), "{call:?}");
            assert!(call.took < SECOND, "nothing had to be sent again: {call:?}");
        }
    }
}

#[test]
fn forged_packets_arrive_in_the_name_of_others() {
    if !usable(&["ip"]) {
        return;
    }
    let topology = Topology::new(&[10], &[11], &[21]).unwrap();
    let attacker = topology.attacker(21).unwrap();
    let mut forger = Forger::new((attacker, "eth0"), (&topology.router, "wild0")).unwrap();
    let burst = Burst {
        count: 20,
        rate: Some(1000),
        limit: SECOND * 2,
    };
    for (victim, server) in [
        (Topology::phone_v4(11), Topology::server_v4(10)),
        (Topology::phone_v6(11), Topology::server_v6(10)),
    ] {
        let (victim, server) = (SocketAddr::new(victim, 5062), SocketAddr::new(server, 5060));
        let receiver = traffic::socket(&topology.edge, server).unwrap();
        let sent = forger.send(
            server,
            burst,
            || false,
            |number, payload| {
                payload.extend_from_slice(number.to_string().as_bytes());
                victim
            },
        );
        assert_eq!((sent.packets, sent.refused), (20, 0));
        let mut buffer = [0; 16];
        let (length, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"0"[..], victim));
        assert_eq!(traffic::drain(&receiver, Duration::from_millis(200)).unwrap(), 19);
    }
}
