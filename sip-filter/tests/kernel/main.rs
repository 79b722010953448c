//! The kernel program against the host pipeline: same packets, same tables, same clock, same everything.

#[cfg(test)]
mod customers;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod syscall;
#[cfg(test)]
mod verifier;

use std::time::Duration;

use frames::{CLIENT4, Frame, client6, request};
use pair::{Pair, config, simulating};
use sip_filter::bans::Scope;
use sip_filter_common::{abi::EventKind, sip::Class, verdict::Reason};

/// Whether to go on; panics where skipping is not allowed.
fn kernel_or_skip(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let required = std::env::var_os("SIP_FILTER_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(
        !required,
        "{test} needs root and SIP_FILTER_REQUIRE_KERNEL=1 forbids skipping it"
    );
    skipped(test);
    false
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn skipped(test: &str) {
    eprintln!("SKIPPED {test}: it loads programs into the kernel, which needs root");
}

const NOW: Duration = Duration::from_secs(1_000);

fn reason(pair: &mut Pair, name: &str, frame: &Frame) -> Reason {
    pair.run(name, &frame.build(), NOW).0.reason
}

#[test]
fn every_fixture_has_its_reason() {
    if !kernel_or_skip("every_fixture_has_its_reason") {
        return;
    }
    let mut pair = Pair::new(&config());
    let expected = |name: &str| match name {
        "arp" => Reason::PassNotIp,
        "response" => Reason::PassResponse,
        "keep-alive CRLF CRLF"
        | "empty datagram, padded"
        | "padding that looks like SIP"
        | "STUN binding request" => Reason::PassKeepAlive,
        "garbage" | "one byte" => Reason::PassOtherPayload,
        "other port" | "media" | "icmp" | "IPv6 no next header" => Reason::PassOtherPort,
        "three tags" | "IPv6 nine extensions" => Reason::PassTooDeep,
        "IPv4 header too short"
        | "IPv4 total length too short"
        | "IPv4 version 6"
        | "TCP data offset too short"
        | "IPv6 mapped source" => Reason::PassTruncated,
        "later fragment" | "later TCP fragment" | "IPv6 later fragment" => Reason::PassFragment,
        "TCP SYN" | "TCP middle of a message" | "TCP keep-alive" | "TLS" => Reason::PassStream,
        _ => Reason::PassRequest,
    };
    for (n, fixture) in frames::all().into_iter().enumerate() {
        // each at a time of its own, so that no limit is reached
        let (decision, _) = pair.run(
            fixture.name,
            &fixture.frame,
            NOW + Duration::from_secs(10 * n as u64),
        );
        assert_eq!(decision.reason, expected(fixture.name), "{}", fixture.name);
    }
}

#[test]
fn fixtures_agree_at_every_length_whether_banned_or_not() {
    if !kernel_or_skip("fixtures_agree_at_every_length_whether_banned_or_not") {
        return;
    }
    for scope in [None, Some(Scope::Sip), Some(Scope::All)] {
        let mut pair = Pair::new(&config());
        if let Some(scope) = scope {
            pair.ban("203.0.113.0/24", scope, None);
            pair.ban("2001:db8:1:2::/64", scope, None);
        }
        let mut frames = 0;
        for fixture in frames::all() {
            for length in (0..fixture.frame.len().min(200)).chain([fixture.frame.len()]) {
                let name = format!("{} cut to {length}", fixture.name);
                let (decision, _) = pair.run(&name, &fixture.frame[..length], NOW);
                if scope.is_none() && length < fixture.frame.len() {
                    let is_ban = matches!(decision.reason, Reason::DropBanAddress | Reason::DropBanNetwork);
                    assert!(!is_ban, "{name}");
                }
                frames += u64::from(length >= 14);
            }
        }
        assert_eq!(pair.packets_counted(), frames, "every packet counts exactly once");
    }
}

#[test]
fn bans_stop_sip_in_every_wrapping_and_allowances_win() {
    if !kernel_or_skip("bans_stop_sip_in_every_wrapping_and_allowances_win") {
        return;
    }
    let options = request("OPTIONS");
    let wrappings = |source: std::net::IpAddr| {
        let udp = Frame::udp(source, &options);
        let extensions = if source.is_ipv6() {
            vec![(0, vec![0; 8]), (60, vec![0; 16])]
        } else {
            Vec::new()
        };
        let ip_options = if source.is_ipv4() { vec![1; 8] } else { Vec::new() };
        vec![
            ("plain", udp.clone()),
            ("tcp", Frame::tcp(source, &options)),
            ("tcp syn", Frame::tcp(source, b"")),
            ("vlan", udp.clone().vlan(0x8100)),
            ("qinq", udp.clone().vlan(0x88a8).vlan(0x8100)),
            (
                "options",
                Frame {
                    options: ip_options,
                    extensions,
                    ..udp.clone()
                },
            ),
            (
                "first fragment",
                Frame {
                    fragment: Some((0, true)),
                    ..udp.clone()
                },
            ),
            (
                "later fragment",
                Frame {
                    fragment: Some((100, false)),
                    ..udp.clone()
                },
            ),
            ("keep-alive", Frame::udp(source, b"\r\n\r\n")),
            (
                // As small as a first fragment may be: two ports and a sequence number.
                "tiny first fragment of tcp",
                Frame {
                    fragment: Some((0, true)),
                    segment_max: 8,
                    padding: 18,
                    ..Frame::tcp(source, b"")
                },
            ),
        ]
    };
    for (ban, inside, outside, reason_expected) in [
        (
            "203.0.113.7",
            "203.0.113.7",
            "203.0.113.8",
            Reason::DropBanAddress,
        ),
        (
            "203.0.113.0/24",
            "203.0.113.7",
            "203.0.114.7",
            Reason::DropBanNetwork,
        ),
        ("0.0.0.0/1", "9.9.9.9", "203.0.113.7", Reason::DropBanNetwork),
        (
            "2001:db8:1:2::/64",
            "2001:db8:1:2::7",
            "2001:db8:1:3::7",
            Reason::DropBanAddress,
        ),
        (
            "2001:db8:1:2::7",
            "2001:db8:1:2::7",
            "2001:db8:1:2::8",
            Reason::DropBanAddress,
        ),
        (
            "2001:db8:1::/56",
            "2001:db8:1:2::7",
            "2001:db8:1:100::7",
            Reason::DropBanNetwork,
        ),
        (
            "2001::/20",
            "2001:db8:1:2::7",
            "2001:1000::7",
            Reason::DropBanNetwork,
        ),
    ] {
        let mut pair = Pair::new(&config());
        pair.ban(ban, Scope::Sip, None);
        for (name, frame) in wrappings(inside.parse().unwrap()) {
            assert_eq!(
                reason(&mut pair, name, &frame),
                reason_expected,
                "{ban}: {name} from {inside}"
            );
        }
        for (name, frame) in wrappings(outside.parse().unwrap()) {
            let got = reason(&mut pair, name, &frame);
            assert!(
                !matches!(got, Reason::DropBanAddress | Reason::DropBanNetwork),
                "{ban}: {name} from {outside}"
            );
        }
        let media = Frame::udp(inside.parse::<std::net::IpAddr>().unwrap(), &[0x80; 172]).port(20_000);
        assert_eq!(
            reason(&mut pair, "media", &media),
            Reason::PassOtherPort,
            "scope sip lets media pass"
        );
        assert_eq!(pair.hits(), [(ban.parse().unwrap(), 10)]);
        pair.ban(ban, Scope::All, None);
        assert_eq!(
            reason(&mut pair, "media", &media),
            reason_expected,
            "scope all stops media"
        );

        pair.allow(&[inside]);
        for (name, frame) in wrappings(inside.parse().unwrap()) {
            assert_eq!(
                reason(&mut pair, name, &frame),
                Reason::PassAllowedBanned,
                "{name} from allowed {inside}"
            );
        }
        pair.allow(&[]);
        pair.unban(ban);
        for (name, frame) in wrappings(inside.parse().unwrap()) {
            let got = reason(&mut pair, name, &frame);
            assert!(
                !matches!(got, Reason::DropBanAddress | Reason::DropBanNetwork),
                "{ban} lifted: {name}"
            );
        }
    }
}

/// A chain of extension headers may lead further than the program reads; it must not be led back to the front.
#[test]
fn a_chain_beyond_what_is_read_hides_no_port() {
    if !kernel_or_skip("a_chain_beyond_what_is_read_hides_no_port") {
        return;
    }
    let mut pair = Pair::new(&config());
    let options = request("OPTIONS");
    for length in [1_984, 2_000, 2_032, 2_048] {
        let frame = Frame {
            extensions: vec![(60, vec![0; length]); 2],
            ..Frame::udp(client6(), &options)
        };
        // Whether the last header begins within what is read or beyond it.
        let within = 14 + 40 + 2 * length <= 4_035;
        let open = reason(&mut pair, "long chain", &frame);
        let expected = if within {
            Reason::PassRequest
        } else {
            Reason::PassTooDeep
        };
        assert_eq!(open, expected, "{length}");
        pair.ban("2001:db8:1:2::/64", Scope::Sip, None);
        let banned = reason(&mut pair, "long chain, banned", &frame);
        assert_eq!(banned, Reason::DropBanAddress, "{length}");
        pair.unban("2001:db8:1:2::/64");
    }
}

#[test]
fn an_expired_ban_hides_no_other_and_bans_end_in_the_kernel() {
    if !kernel_or_skip("an_expired_ban_hides_no_other_and_bans_end_in_the_kernel") {
        return;
    }
    let end = NOW + Duration::from_secs(5);
    let (before, after) = (
        NOW + Duration::from_millis(4_999),
        NOW + Duration::from_millis(5_300),
    );
    let frame4 = Frame::udp(CLIENT4, &request("OPTIONS")).build();
    let frame6 = Frame::udp(client6(), &request("OPTIONS")).build();
    let mut pair = Pair::new(&config());
    pair.ban("203.0.113.7", Scope::Sip, Some(end));
    pair.ban("2001:db8:1:2::/64", Scope::Sip, Some(end));
    for frame in [&frame4, &frame6] {
        assert_eq!(pair.run("before", frame, before).0.reason, Reason::DropBanAddress);
        assert_eq!(pair.run("after", frame, after).0.reason, Reason::PassRequest);
    }
    pair.ban("203.0.113.0/24", Scope::Sip, None);
    pair.ban("2001:db8:1:2::7", Scope::Sip, None);
    assert_eq!(
        pair.run("network behind", &frame4, after).0.reason,
        Reason::DropBanNetwork
    );
    assert_eq!(
        pair.run("host behind", &frame6, after).0.reason,
        Reason::DropBanAddress
    );
}

#[test]
fn limits_hold_by_source_and_class_and_report_once_a_window() {
    if !kernel_or_skip("limits_hold_by_source_and_class_and_report_once_a_window") {
        return;
    }
    let mut pair = Pair::new(&config());
    let register = Frame::udp(CLIENT4, &request("REGISTER")).build();
    let mut over_limit = Vec::new();
    let (mut passed, mut told) = (0, 0);
    // 200 packets in two seconds against 10/s after a burst of 5
    for n in 0..200_u32 {
        let (decision, events) = pair.run("register", &register, NOW + Duration::from_millis(10) * n);
        match decision.reason {
            Reason::PassRequest => passed += 1,
            Reason::DropLimitRegister => {}
            other => panic!("{other:?}"),
        }
        told += events
            .iter()
            .map(|(event, _)| u64::from(event.count))
            .sum::<u64>();
        over_limit.extend(
            events
                .into_iter()
                .filter(|(event, _)| event.kind == EventKind::OverLimit as u8),
        );
    }
    assert_eq!(passed, 5 + 19);
    assert!(
        (20..=31).contains(&over_limit.len()),
        "one event a window of 67 ms, got {}",
        over_limit.len()
    );
    let counted: u32 = over_limit.iter().map(|(event, _)| event.count).sum();
    assert!(
        counted <= 176 && counted > 176 - 10,
        "dropped packets are accounted for, got {counted}"
    );
    // The kernel says how many are yet to be told: all of the 200 are known.
    let untold = |since| pair.untold(CLIENT4.into(), Class::Register, since);
    assert_eq!(told + untold(NOW), 200, "{told} were told");
    assert!(untold(NOW) > 0, "a window that has just begun");
    assert_eq!(untold(NOW + Duration::from_secs(3)), 0, "too long ago");
    assert_eq!(
        pair.untold(CLIENT4.into(), Class::Invite, NOW),
        0,
        "another class"
    );
    // another class and another source have their own
    for (name, frame) in [
        ("invite", Frame::udp(CLIENT4, &request("INVITE"))),
        (
            "neighbour",
            Frame::udp(
                "203.0.113.8".parse::<std::net::IpAddr>().unwrap(),
                &request("REGISTER"),
            ),
        ),
        ("IPv6", Frame::udp(client6(), &request("REGISTER"))),
    ] {
        assert_eq!(reason(&mut pair, name, &frame), Reason::PassRequest);
    }
    // IPv6 is counted by /64
    let sibling = |n: u16| -> std::net::IpAddr { format!("2001:db8:1:2::{n:x}").parse().unwrap() };
    for n in 0..5 {
        let _ = reason(
            &mut pair,
            "sibling",
            &Frame::udp(sibling(n), &request("REGISTER")),
        );
    }
    let last = reason(
        &mut pair,
        "sibling",
        &Frame::udp(sibling(99), &request("REGISTER")),
    );
    assert_eq!(last, Reason::DropLimitRegister);
}

#[test]
fn simulation_passes_and_counts_what_it_would_have_dropped() {
    if !kernel_or_skip("simulation_passes_and_counts_what_it_would_have_dropped") {
        return;
    }
    let mut pair = Pair::new(&simulating());
    pair.ban("203.0.113.7", Scope::All, None);
    let (decision, _) = pair.run("banned", &Frame::udp(CLIENT4, &request("OPTIONS")).build(), NOW);
    assert_eq!(decision.reason, Reason::DropBanAddress);
    assert!(decision.simulated);
    assert_eq!(decision.action(), sip_filter_common::verdict::Action::Pass);
}

#[test]
fn snapshots_carry_the_payload_and_are_capped() {
    if !kernel_or_skip("snapshots_carry_the_payload_and_are_capped") {
        return;
    }
    let mut pair = Pair::new(&config());
    let payload = request("OPTIONS");
    let frame = Frame::udp(client6(), &payload).vlan(0x8100).build();
    let mut events = Vec::new();
    for _ in 0..5 {
        events.extend(pair.run("options", &frame, NOW).1);
    }
    assert_eq!(events.len(), 4, "four a source and window");
    let (header, excerpt) = &events[0];
    assert_eq!(header.source.to_ip(), std::net::IpAddr::V6(client6()));
    assert_eq!(
        header.destination.to_ip(),
        std::net::IpAddr::V6(frames::server6())
    );
    assert_eq!((header.source_port, header.destination_port), (40_000, 5060));
    assert_eq!(excerpt, &payload[..payload.len().min(512)]);
    // what was not sent is in the count of the next one
    let next = pair.run("options", &frame, NOW + Duration::from_secs(1)).1;
    assert_eq!(next[0].0.count, 2);
}

#[test]
fn hits_of_a_flooder_are_exact() {
    if !kernel_or_skip("hits_of_a_flooder_are_exact") {
        return;
    }
    let mut pair = Pair::new(&config());
    pair.ban("203.0.113.7", Scope::Sip, None);
    pair.ban("203.0.113.8", Scope::Sip, None);
    let flooder = Frame::udp(CLIENT4, &request("OPTIONS")).build();
    let other = Frame::udp(
        "203.0.113.8".parse::<std::net::IpAddr>().unwrap(),
        &request("OPTIONS"),
    )
    .build();
    for round in 1..4 {
        for n in 0..1_000 {
            let _ = pair.run("flooder", &flooder, NOW);
            if n % 100 == 0 {
                let _ = pair.run("other", &other, NOW);
            }
        }
        let hits = [("203.0.113.7", 1_000), ("203.0.113.8", 10)];
        assert_eq!(
            pair.hits(),
            hits.map(|(target, count)| (target.parse().unwrap(), count)),
            "round {round}"
        );
    }
}
