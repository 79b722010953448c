//! Trust, the budget of unknown sources, copies of dropped frames, and the server's answers: host and kernel equal.

use std::{net::IpAddr, time::Duration};

use sip_filter::bans::{Endpoint, Scope};
use sip_filter_common::{
    abi::{Config, EventKind, Limit, flags},
    verdict::Reason,
};

use crate::{
    NOW,
    frames::{CLIENT4, Frame, SERVER4, client6, request, server6},
    kernel_or_skip,
    pair::{Pair, config},
    reason,
};

#[test]
fn trusted_sources_have_limits_of_their_own_until_trust_ends() {
    if !kernel_or_skip("trusted_sources_have_limits_of_their_own_until_trust_ends") {
        return;
    }
    for (source, target) in [
        (IpAddr::from(CLIENT4), "203.0.113.7"),
        (client6().into(), "2001:db8:1:2::/64"),
    ] {
        let mut pair = Pair::new(&config());
        pair.trust(target, Some(NOW + Duration::from_secs(60)));
        pair.at_home(home(source), Some(NOW + Duration::from_secs(80)));
        let frame = Frame::udp(source, &request("INVITE")).build();
        let passed = |pair: &mut Pair, now| {
            let verdicts = (0..80).map(|_| pair.run("invite", &frame, now).0.reason);
            verdicts.filter(|reason| *reason == Reason::PassRequest).count()
        };
        assert_eq!(passed(&mut pair, NOW), 50, "{target}: burst of a trusted source");
        assert_eq!(
            passed(&mut pair, NOW + Duration::from_secs(90)),
            5,
            "{target}: trust ended"
        );
        pair.trust(target, None);
        assert_eq!(passed(&mut pair, NOW + Duration::from_secs(120)), 5, "{target}");
    }
}

/// From where [`Frame::udp`] comes.
fn home(source: IpAddr) -> Endpoint {
    Endpoint {
        address: source,
        protocol: 17,
        port: 40_000,
        hops: 64,
    }
}

#[test]
fn what_strays_in_the_name_of_a_trusted_source_takes_nothing_from_it() {
    if !kernel_or_skip("what_strays_in_the_name_of_a_trusted_source_takes_nothing_from_it") {
        return;
    }
    for (source, target) in [
        (IpAddr::from(CLIENT4), "203.0.113.7"),
        (client6().into(), "2001:db8:1:2::/64"),
    ] {
        let mut pair = Pair::new(&Config {
            // Strays do not take from it, either.
            unknown_budget: [Limit::new(1, 1_000_000_000, 1); 8],
            ..config()
        });
        pair.trust(target, Some(NOW + Duration::from_secs(600)));
        pair.at_home(home(source), Some(NOW + Duration::from_secs(60)));
        let own = Frame::udp(source, &request("INVITE"));
        let port = |port| Frame {
            ports: (port, 5060),
            ..own.clone()
        };
        let strays = [
            port(40_001),
            Frame {
                hops: 63,
                ..own.clone()
            },
            Frame::tcp(source, &request("INVITE")),
        ];
        let passed = |pair: &mut Pair, frame: &Frame, now| {
            let verdicts = (0..80).map(|_| pair.run("invite", &frame.build(), now));
            let mut passed = 0;
            for (verdict, events) in verdicts {
                passed += u32::from(verdict.reason == Reason::PassRequest);
                for (header, _) in events {
                    let at_home = (header.source_port, header.hops, header.protocol) == (40_000, 64, 17);
                    let ended = now == NOW + Duration::from_secs(70) || now == NOW + Duration::from_secs(90);
                    let stray = !at_home || ended;
                    assert_eq!(header.stray, u8::from(stray), "{target}: {header:?}");
                    assert_eq!(header.hops, frame.hops);
                }
            }
            passed
        };
        // Together they have what a stranger has.
        let all: u32 = strays.iter().map(|frame| passed(&mut pair, frame, NOW)).sum();
        assert_eq!(all, 5, "{target}: strays");
        assert_eq!(passed(&mut pair, &own, NOW), 50, "{target}: its own");
        let later = NOW + Duration::from_secs(50);
        let all: u32 = strays.iter().map(|frame| passed(&mut pair, frame, later)).sum();
        assert_eq!(all, 5, "{target}: strays later");

        let ended = NOW + Duration::from_secs(70);
        assert_eq!(
            passed(&mut pair, &own, ended),
            5,
            "{target}: the endpoint has ended"
        );
        let later = NOW + Duration::from_secs(80);
        pair.at_home(home(source), Some(NOW + Duration::from_secs(600)));
        assert_eq!(
            passed(&mut pair, &own, later),
            50,
            "{target}: it registered again"
        );
        pair.at_home(home(source), None);
        let later = NOW + Duration::from_secs(90);
        assert_eq!(passed(&mut pair, &own, later), 5, "{target}: taken back");
    }
}

#[test]
fn while_the_budget_is_short_those_who_return_go_first() {
    if !kernel_or_skip("while_the_budget_is_short_those_who_return_go_first") {
        return;
    }
    let mut pair = Pair::new(&Config {
        unknown_budget: [Limit::new(200, 1_000_000_000, 400); 8],
        fresh_budget: [Limit::new(25, 1_000_000_000, 50); 8],
        ..config()
    });
    let from = |n: u32, net| {
        Frame::udp(
            IpAddr::from([net, 1, (n >> 8) as u8, n as u8]),
            &request("REGISTER"),
        )
        .build()
    };
    let (mut forged, mut at_once, mut waiting, mut late) = (Vec::new(), 0, Vec::new(), 0);
    for n in 0..10_000_u32 {
        // 1,000 a second from a source of its own each, and 20 newcomers a second who send again after 500 ms.
        let now = NOW + Duration::from_millis(1) * n;
        let reason = pair.run("forged", &from(n, 10), now).0.reason;
        if reason == Reason::PassRequest {
            forged.push(n);
        } else {
            assert_eq!(reason, Reason::DropUnknownBudget);
        }
        if n % 50 == 0 {
            match pair.run("newcomer", &from(n, 100), now).0.reason {
                Reason::PassRequest => at_once += 1,
                _ => waiting.push(n),
            }
        }
        if let Some(first) = n.checked_sub(500).filter(|first| waiting.contains(first)) {
            late += usize::from(pair.run("again", &from(first, 100), now).0.reason == Reason::PassRequest);
        }
    }
    waiting.retain(|first| *first < 9_500);
    assert!(waiting.len() > 100, "{} at once", at_once);
    assert_eq!(late, waiting.len(), "each comes in with its second packet");
    // Half the burst with what came back meanwhile, the burst of the part, and 25 a second.
    assert!(forged.len() + at_once <= 250 + 50 + 250 + 16, "{}", forged.len());
    assert!(forged.len() >= 400, "{}", forged.len());
}

#[test]
fn unknown_sources_share_a_budget_and_trusted_ones_do_not_compete() {
    if !kernel_or_skip("unknown_sources_share_a_budget_and_trusted_ones_do_not_compete") {
        return;
    }
    let mut pair = Pair::new(&Config {
        unknown_budget: [Limit::new(100, 1_000_000_000, 200); 8],
        ..config()
    });
    pair.trust("203.0.113.7", Some(NOW + Duration::from_secs(60)));
    pair.at_home(home(CLIENT4.into()), Some(NOW + Duration::from_secs(60)));
    let customer = Frame::udp(CLIENT4, &request("REGISTER"));
    let (mut admitted, mut over_budget) = (0_u32, 0);
    for n in 0..2_000_u32 {
        // each packet from a source of its own, 1,000 a second
        let source = IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
        let frame = Frame::udp(source, &request("REGISTER")).build();
        match pair
            .run("spoofed", &frame, NOW + Duration::from_millis(1) * n)
            .0
            .reason
        {
            Reason::PassRequest => admitted += 1,
            Reason::DropUnknownBudget => over_budget += 1,
            other => panic!("{other:?}"),
        }
        if n % 200 == 0 {
            let (decision, _) = pair.run("customer", &customer.build(), NOW + Duration::from_millis(1) * n);
            assert_eq!(
                decision.reason,
                Reason::PassRequest,
                "a trusted customer at packet {n}"
            );
        }
    }
    // two seconds at 100/s after a burst of 200, to a batch of 16
    assert!((384..=416).contains(&admitted), "{admitted}");
    assert_eq!(admitted + over_budget, 2_000);
}

#[test]
fn dropped_frames_are_copied_only_when_asked_for() {
    if !kernel_or_skip("dropped_frames_are_copied_only_when_asked_for") {
        return;
    }
    for (asked, copies) in [(0, 0), (flags::CAPTURE_DROPS, 8)] {
        let mut pair = Pair::new(&Config {
            flags: asked,
            ..config()
        });
        pair.ban("2001:db8:1:2::/64", Scope::All, None);
        let frame = Frame::udp(client6(), &request("INVITE")).vlan(0x8100).build();
        let mut events = Vec::new();
        for _ in 0..20 {
            events.extend(pair.run("banned", &frame, NOW).1);
        }
        assert_eq!(events.len(), copies);
        for (header, copy) in events {
            assert_eq!(header.kind, EventKind::Dropped as u8);
            assert_eq!(header.class, Reason::DropBanAddress as u8);
            assert_eq!(copy, frame);
        }
    }
}

#[test]
fn final_responses_are_reported_to_their_remote_party() {
    if !kernel_or_skip("final_responses_are_reported_to_their_remote_party") {
        return;
    }
    let response = |status: &str| {
        format!("SIP/2.0 {status}\r\nVia: SIP/2.0/UDP 203.0.113.7\r\nCSeq: 1 REGISTER\r\n\r\n").into_bytes()
    };
    for (server, client) in [
        (IpAddr::from(SERVER4), IpAddr::from(CLIENT4)),
        (server6().into(), client6().into()),
    ] {
        let mut pair = Pair::new(&config());
        let leaving = |payload: &[u8], port| {
            let frame = Frame {
                destination: client,
                ports: (port, 40_000),
                ..Frame::udp(server, payload)
            };
            frame.build()
        };
        let payload = response("401 Unauthorized");
        let events = pair.leave("401", &leaving(&payload, 5060), NOW);
        let [(header, excerpt)] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(header.kind, EventKind::Response as u8);
        assert_eq!(
            (header.source.to_ip(), header.destination.to_ip()),
            (client, server)
        );
        assert_eq!((header.source_port, header.destination_port), (40_000, 5060));
        assert_eq!(excerpt, &payload);
        for (name, frame) in [
            ("provisional", leaving(&response("183 Session Progress"), 5060)),
            ("another port", leaving(&payload, 5070)),
            ("a request", leaving(&request("OPTIONS"), 5060)),
            ("keep-alive", leaving(b"\r\n\r\n", 5060)),
            (
                "fragment",
                Frame {
                    fragment: Some((10, false)),
                    ..Frame::udp(server, &payload)
                }
                .build(),
            ),
        ] {
            assert_eq!(pair.leave(name, &frame, NOW), [], "{name}");
        }
        let many: usize = (0..20)
            .map(|_| pair.leave("many", &leaving(&payload, 5060), NOW).len())
            .sum();
        assert_eq!(many, 3, "four a window");
        let tcp = Frame {
            destination: client,
            ports: (5061, 40_001),
            ..Frame::tcp(server, &response("200 OK"))
        };
        assert_eq!(
            pair.leave("tcp", &tcp.build(), NOW + Duration::from_secs(1))
                .len(),
            1
        );
    }
}

#[test]
fn a_forged_flood_in_a_customers_name_leaves_other_customers_alone() {
    if !kernel_or_skip("a_forged_flood_in_a_customers_name_leaves_other_customers_alone") {
        return;
    }
    let mut pair = Pair::new(&config());
    let flood = Frame::udp(CLIENT4, &request("REGISTER"));
    for _ in 0..500 {
        let _ = reason(&mut pair, "flood", &flood);
    }
    let neighbour = Frame::udp(IpAddr::from([203, 0, 113, 8]), &request("REGISTER"));
    assert_eq!(reason(&mut pair, "neighbour", &neighbour), Reason::PassRequest);
}

#[test]
fn what_the_budget_stops_is_part_of_the_count_of_who_goes_over_its_limit() {
    if !kernel_or_skip("what_the_budget_stops_is_part_of_the_count_of_who_goes_over_its_limit") {
        return;
    }
    let mut pair = Pair::new(&Config {
        // A packet now and then, for all together.
        unknown_budget: [Limit::new(1, 3_600_000_000_000, 1); 8],
        ..config()
    });
    let (flooder, neighbour) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    // A CPU takes so many packets at once from the budget.
    for n in 0..16 {
        let other = Frame::udp(IpAddr::from([10, 1, 0, n]), &request("INVITE")).build();
        assert_eq!(pair.run("other", &other, NOW).0.reason, Reason::PassRequest);
    }
    let mut count = |source, packets: u64, gap: Duration| {
        let frame = Frame::udp(source, &request("INVITE")).build();
        let mut told = 0;
        for n in 0..packets {
            let (verdict, events) = pair.run("invite", &frame, NOW + gap * n as u32);
            assert!(verdict.reason as u8 >= Reason::FIRST_DROP, "{verdict:?}");
            for (header, _) in events {
                assert_eq!(header.kind, EventKind::OverLimit as u8);
                told += u64::from(header.count);
            }
        }
        told
    };
    // Beyond its own limit: told of are all packets but the first, when it was fresh, and those since the last event.
    let told = count(flooder, 1_000, Duration::from_millis(1));
    assert!((900..=999).contains(&told), "{told}");
    // Within its own limit: it has done nothing, whatever it sends again.
    let told = count(neighbour, 20, Duration::from_secs(5));
    assert_eq!(told, 0);
}
