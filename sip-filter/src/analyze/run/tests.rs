use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use sip_filter_common::abi::{Address, EventKind};

use super::*;
use crate::detect::DetectConfig;

/// A plane without limits: bans and reports like the real one, as simply as can be.
#[derive(Default)]
struct Model {
    bans: HashMap<Target, Duration>,
    events: Vec<(EventHeader, Vec<u8>)>,
    full: bool,
}

impl Plane for Model {
    fn run(&mut self, frame: &[u8], now: u64) -> Verdict {
        let reason = self.judge(frame, now);
        Verdict {
            reason,
            simulated: false,
        }
    }

    fn run_egress(&mut self, _: &[u8], _: u64) {}

    fn take_events(&mut self) -> Vec<(EventHeader, Vec<u8>)> {
        std::mem::take(&mut self.events)
    }

    fn ban(&mut self, target: Target, ban: KernelBan) -> Result<(), ImageError> {
        if self.full {
            return Err(ImageError::Full {
                interface: "capture".to_owned(),
                table: "IPv4 ban",
                entries: 0,
                setting: "tables.ban4",
            });
        }
        self.bans.insert(target, ban.expires.unwrap());
        Ok(())
    }

    fn trust(&mut self, _: Target, _: Option<Duration>) -> Result<(), ImageError> {
        Ok(())
    }

    fn at_home(&mut self, _: Endpoint, _: Duration) -> Result<(), ImageError> {
        Ok(())
    }
}

impl Model {
    fn judge(&mut self, frame: &[u8], now: u64) -> Reason {
        let Some((source, class)) = look_at(frame) else {
            return Reason::PassNotIp;
        };
        let banned = |until: &Duration| now < until.as_nanos() as u64;
        if self.bans.get(&Target::of_source(source, 64)).is_some_and(banned) {
            return Reason::DropBanAddress;
        }
        let payload = frame[42..].to_vec();
        let class = class.unwrap();
        let header = EventHeader {
            time: now,
            source: Address::from_ip(source),
            count: 1,
            kind: EventKind::Snapshot as u8,
            class: class as u8,
            protocol: 17,
            captured: payload.len() as u16,
            ..EventHeader::default()
        };
        self.events.push((header, payload));
        if class.is_request() {
            Reason::PassRequest
        } else {
            Reason::PassResponse
        }
    }
}

fn frame(from: [u8; 4], payload: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([0; 6], [1; 6])
        .ipv4(from, [192, 0, 2, 1], 64)
        .udp(5060, 5060)
        .write(&mut frame, payload.as_bytes())
        .unwrap();
    frame
}

const REGISTER: &str = "REGISTER sip:example.com SIP/2.0\r\nUser-Agent: probe\r\n\r\n";
const ATTACKER: [u8; 4] = [203, 0, 113, 7];
const PHONE: [u8; 4] = [198, 51, 100, 9];

/// A flood of 100 REGISTERs a second for 20 seconds, beside a phone that sends one a second.
fn flood() -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    let mut write = |millis: u64, from, payload| {
        let data = frame(from, payload);
        let time = Duration::from_millis(1_700_000_000_000 + millis);
        writer
            .write_packet(&PcapPacket::new(time, data.len() as u32, &data))
            .unwrap();
    };
    for tick in 0..2_000 {
        write(tick * 10, ATTACKER, REGISTER);
        if tick % 100 == 0 {
            write(tick * 10, PHONE, REGISTER);
            write(tick * 10, [192, 0, 2, 1], "SIP/2.0 200 OK\r\n\r\n");
        }
    }
    writer.into_writer()
}

fn run(bytes: &[u8], config: DetectConfig, options: &Options) -> Report {
    let mut engine = Engine::new(config, 64);
    analyze(bytes, &mut Model::default(), &mut engine, options).unwrap()
}

#[test]
fn a_flood_is_banned_and_the_phone_beside_it_is_not() {
    let report = run(&flood(), DetectConfig::default(), &Options::default());
    assert_eq!(report.packets, 2_040);
    assert!(report.error.is_none() && report.notes.is_empty());
    let [attacker, others @ ..] = &report.sources[..] else {
        panic!("no sources");
    };
    assert_eq!(attacker.source.to_string(), "203.0.113.7");
    assert_eq!(
        (attacker.packets, attacker.classes[Class::Register as usize]),
        (2_000, 500)
    );
    assert_eq!(attacker.dropped_by_ban, 1_500);
    assert_eq!(report.would_be_dropped(), 1_500);
    let [ban] = &attacker.bans[..] else {
        panic!("{:?}", attacker.bans);
    };
    assert_eq!(
        humantime::format_rfc3339_millis(ban.time).to_string(),
        "2023-11-14T22:13:24.990Z"
    );
    assert_eq!((ban.evidence.count, ban.ban_for_seconds), (500, 30));
    assert_eq!(
        ban.evidence.sample,
        ["REGISTER sip:example.com SIP/2.0; User-Agent: probe"]
    );
    assert_eq!(others.len(), 2);
    assert!(
        others
            .iter()
            .all(|source| source.bans.is_empty() && source.dropped_by_ban == 0)
    );
}

#[test]
fn own_packets_are_skipped_and_shadow_rules_stop_nothing() {
    let options = Options {
        own: vec!["192.0.2.0/24".parse().unwrap()],
    };
    let mut config = DetectConfig::default();
    config.flood_register.shadow = true;
    let report = run(&flood(), config, &options);
    assert_eq!(report.skipped_own, 20);
    assert_eq!((report.sources.len(), report.would_be_dropped()), (2, 0));
    assert!(report.sources[0].bans[0].shadow);
    assert!(report.human(10, None).contains("(shadow)"));
}

#[test]
fn a_capture_cut_short_is_analysed_as_far_as_it_goes() {
    let bytes = flood();
    let report = run(
        &bytes[..bytes.len() - 1],
        DetectConfig::default(),
        &Options::default(),
    );
    assert_eq!(report.packets, 2_039);
    assert_eq!(report.sources[0].dropped_by_ban, 1_499);
    let told = report.error.as_ref().unwrap().to_string();
    assert!(told.contains("after 2039 whole packets"), "{told}");
    assert_eq!(report.json()["error"], told);
}

#[test]
fn a_ban_that_cannot_be_made_is_told() {
    let mut engine = Engine::new(DetectConfig::default(), 64);
    let mut plane = Model {
        full: true,
        ..Model::default()
    };
    let report = analyze(&flood()[..], &mut plane, &mut engine, &Options::default()).unwrap();
    assert_eq!(report.notes.len(), 1);
    assert!(
        report.human(10, None).contains("note: the IPv4 ban table"),
        "{}",
        report.human(10, None)
    );
}

#[test]
fn the_three_forms() {
    let report = run(&flood(), DetectConfig::default(), &Options::default());
    insta::assert_snapshot!("human", report.human(2, None));
    insta::assert_snapshot!("raw", report.raw());
    insta::assert_json_snapshot!("json", report.json());
}

#[test]
fn packets_out_of_order_are_tolerated() {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    let data = frame(ATTACKER, REGISTER);
    for second in [100_000, 3, 99_999, 100_001] {
        writer
            .write_packet(&PcapPacket::new(
                Duration::from_secs(second),
                data.len() as u32,
                &data,
            ))
            .unwrap();
    }
    let report = run(
        &writer.into_writer(),
        DetectConfig::default(),
        &Options::default(),
    );
    assert_eq!(report.sources[0].packets, 4);
}
