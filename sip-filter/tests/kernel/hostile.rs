//! Packets made to hurt, through host and kernel: none is dropped for being malformed, and none gets past a ban.

use std::collections::BTreeMap;

use sip_filter::bans::Scope;
use sip_filter_common::{
    abi::{Config, Limit},
    sip::Class,
    verdict::{Action, Reason},
};

use crate::{
    NOW,
    frames::{self, CLIENT4, Frame, client6, request},
    fuzz::{Packet, Ports, Start, Step, Twins, torture},
    kernel_or_skip,
    pair::{Pair, config, sizes},
    reason,
};

/// Nothing is limited, so whatever is dropped was dropped for what it looks like.
fn unlimited() -> Start {
    Start {
        sizes: sizes(),
        config: Config {
            limits: [Limit::UNLIMITED; 2 * Class::COUNT],
            ..config()
        },
        ports: Ports {
            udp: vec![5060],
            tcp: vec![5060, 5061],
        },
    }
}

fn arrives(frame: &[u8], linear: Option<usize>) -> Step {
    Step::Packet(Packet {
        frame: frame.to_vec(),
        linear: linear.map(|linear| linear as u32),
        now: NOW.as_nanos() as u64,
        leaves: false,
    })
}

/// Runs frames that no ban concerns through both, and returns how many of them each reason has.
fn none_is_dropped(steps: &[Step]) -> BTreeMap<&'static str, u64> {
    crate::pair::stay_on_this_cpu();
    let start = unlimited();
    let mut twins = Twins::new(&start, Twins::kernel_splits(&start));
    for batch in steps.chunks(500) {
        if let Err(mismatch) = twins.take(batch, false) {
            panic!("{mismatch:?}, in a batch that ends with {:?}", batch.last());
        }
    }
    let counted = twins.packets_by_reason();
    for (reason, packets) in &counted {
        assert_eq!(
            reason.action(),
            Action::Pass,
            "{packets} dropped: {}",
            reason.name()
        );
    }
    assert_eq!(
        counted.iter().map(|(_, packets)| packets).sum::<u64>(),
        steps.len() as u64,
        "every packet counts exactly once"
    );
    counted
        .into_iter()
        .map(|(reason, packets)| (reason.name(), packets))
        .collect()
}

#[test]
fn no_fixture_is_dropped_cut_anywhere_or_in_several_buffers() {
    if !kernel_or_skip("no_fixture_is_dropped_cut_anywhere_or_in_several_buffers") {
        return;
    }
    let mut steps = Vec::new();
    for fixture in frames::all() {
        let frame = &fixture.frame[..];
        steps.extend((14..=frame.len()).map(|length| arrives(&frame[..length], None)));
        // The first buffer may end anywhere, within a header or within its fields.
        steps.extend((0..frame.len().min(200)).map(|linear| arrives(frame, Some(linear))));
    }
    let counted = none_is_dropped(&steps);
    println!("{} frames: {counted:?}", steps.len());
    assert!(counted["pass-truncated"] > 1_000, "{counted:?}");
}

/// RFC 4475 and RFC 5118, each message whole and cut anywhere, over UDP and TCP.
#[test]
fn no_torture_message_is_dropped() {
    if !kernel_or_skip("no_torture_message_is_dropped") {
        return;
    }
    let messages = torture();
    assert_eq!(messages.len(), 61);
    let mut steps = Vec::new();
    let mut whole = Vec::new();
    for (_, message) in &messages {
        for frame in [
            Frame::udp(CLIENT4, message),
            Frame::udp(client6(), message).vlan(0x8100),
            Frame::tcp(CLIENT4, message),
        ] {
            whole.push(arrives(&frame.build(), None));
        }
        for length in 0..message.len() {
            steps.push(arrives(&Frame::udp(CLIENT4, &message[..length]).build(), None));
        }
    }
    let counted = none_is_dropped(&whole);
    // 61 messages in three frames each: five are responses, one is no SIP at all.
    assert_eq!(
        (counted["pass-request"], counted["pass-response"]),
        (55 * 3, 5 * 3),
        "{counted:?}"
    );
    assert_eq!(
        (counted["pass-other-payload"], counted["pass-stream"]),
        (2, 1),
        "{counted:?}"
    );
    let counted = none_is_dropped(&steps);
    println!("{} messages cut short: {counted:?}", steps.len());
}

#[test]
fn chains_of_any_depth_pass_and_hide_nobody_who_is_banned() {
    if !kernel_or_skip("chains_of_any_depth_pass_and_hide_nobody_who_is_banned") {
        return;
    }
    let options = request("OPTIONS");
    let mut chains = Vec::new();
    for kind in [0, 43, 44, 51, 60, 135, 139, 140] {
        for depth in 0..=30 {
            // A fragment header in the middle of a chain is one of a packet that was not cut.
            let body = vec![0; if kind == 51 { 12 } else { 8 }];
            let frame = Frame {
                extensions: vec![(kind, body); depth],
                ..Frame::udp(client6(), &options)
            };
            chains.push((format!("{depth} of {kind}"), frame.build()));
        }
    }
    none_is_dropped(
        &chains
            .iter()
            .map(|(_, frame)| arrives(frame, None))
            .collect::<Vec<_>>(),
    );
    let mut tagged = Vec::new();
    for depth in 0..=30 {
        for source in [CLIENT4.into(), client6().into()] {
            let source: std::net::IpAddr = source;
            let frame = (0..depth).fold(Frame::udp(source, &options), |frame, _| frame.vlan(0x8100));
            tagged.push(arrives(&frame.build(), None));
        }
    }
    none_is_dropped(&tagged);
    let mut pair = Pair::new(&config());
    pair.ban("2001:db8:1:2::/64", Scope::Sip, None);
    for (name, frame) in &chains {
        let (verdict, _) = pair.run(name, frame, NOW);
        assert_eq!(verdict.reason, Reason::DropBanAddress, "{name}");
    }
}

/// Whatever pieces a sender cuts SIP into, the server must not be able to put it together again if it is banned.
#[test]
fn fragments_of_any_size_are_let_through_but_from_who_is_banned() {
    if !kernel_or_skip("fragments_of_any_size_are_let_through_but_from_who_is_banned") {
        return;
    }
    let options = request("OPTIONS");
    let firsts = |source: std::net::IpAddr| {
        let whole = [Frame::udp(source, &options), Frame::tcp(source, &options)];
        let mut frames = Vec::new();
        for frame in whole {
            for size in (8..=options.len()).step_by(8) {
                for padding in [0, 18] {
                    frames.push(Frame {
                        fragment: Some((0, true)),
                        segment_max: size,
                        padding,
                        ..frame.clone()
                    });
                }
            }
        }
        frames
    };
    // Later pieces at any place, also over what came before.
    let later = |source: std::net::IpAddr| {
        let places = [1, 2, 3, 10, 185, 8_189, 8_191];
        places.map(|place| Frame {
            fragment: Some((place, place % 2 == 0)),
            ..Frame::udp(source, &options[..(place as usize).min(40)])
        })
    };
    for (source, ban) in [
        (std::net::IpAddr::from(CLIENT4), "203.0.113.7"),
        (client6().into(), "2001:db8:1:2::/64"),
    ] {
        let steps: Vec<Step> = firsts(source)
            .iter()
            .chain(&later(source))
            .map(|frame| arrives(&frame.build(), None))
            .collect();
        none_is_dropped(&steps);
        let mut pair = Pair::new(&config());
        pair.ban(ban, Scope::Sip, None);
        for frame in firsts(source) {
            let is_tcp = frame.protocol == 6;
            let name = format!("{source}, first {} bytes, tcp {is_tcp}", frame.segment_max);
            let got = reason(&mut pair, &name, &frame);
            assert_eq!(got, Reason::DropBanAddress, "{name}");
        }
        for frame in later(source) {
            assert_eq!(reason(&mut pair, "later", &frame), Reason::DropBanAddress);
        }
    }
}
