use std::borrow::Cow;

use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter, RawPcapPacket},
    pcapng::{
        PcapNgWriter,
        blocks::{enhanced_packet::EnhancedPacketBlock, interface_description::InterfaceDescriptionBlock},
    },
};
use proptest::prelude::*;

use super::*;

const PACKETS: [&[u8]; 3] = [b"first", b"the second one", b""];

fn time(number: usize) -> Duration {
    Duration::from_micros(1_700_000_000_123_456 + number as u64)
}

fn pcap() -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    for (number, data) in PACKETS.into_iter().enumerate() {
        writer
            .write_packet(&PcapPacket::new(time(number), data.len() as u32, data))
            .unwrap();
    }
    writer.into_writer()
}

fn pcapng(stamp: impl Fn(usize) -> u64, options: Vec<InterfaceDescriptionOption<'static>>) -> Vec<u8> {
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    writer
        .write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options,
        })
        .unwrap();
    for (number, data) in PACKETS.into_iter().enumerate() {
        writer
            .write_pcapng_block(EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::from_nanos(stamp(number)),
                original_len: data.len() as u32,
                data: Cow::Borrowed(data),
                options: Vec::new(),
            })
            .unwrap();
    }
    writer.into_inner()
}

fn micros(number: usize) -> u64 {
    time(number).as_micros() as u64
}

type Packets = Vec<(Option<Duration>, Vec<u8>)>;

/// Everything that can be read, and how it ended.
fn read(bytes: &[u8]) -> (Packets, Option<CaptureError>) {
    let mut packets = Vec::new();
    let mut capture = match Capture::new(bytes) {
        Ok(capture) => capture,
        Err(error) => return (packets, Some(error)),
    };
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => packets.push((frame.time, frame.data.to_vec())),
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some(error)),
        }
    }
}

fn expected() -> Packets {
    PACKETS
        .into_iter()
        .enumerate()
        .map(|(number, data)| (Some(time(number)), data.to_vec()))
        .collect()
}

#[test]
fn pcap_and_pcapng_read_the_same() {
    let nanos = |number| time(number).as_nanos() as u64;
    let shifted = |number| (time(number) - Duration::from_secs(1_600_000_000)).as_micros() as u64;
    for bytes in [
        pcap(),
        pcapng(micros, vec![]),
        pcapng(nanos, vec![InterfaceDescriptionOption::IfTsResol(9)]),
        pcapng(
            shifted,
            vec![InterfaceDescriptionOption::IfTsOffset(1_600_000_000)],
        ),
    ] {
        let (packets, error) = read(&bytes);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(packets, expected());
    }
}

#[test]
fn resolutions_are_powers_of_ten_or_two() {
    let of = |stamp, resolution| time_of(stamp, &[InterfaceDescriptionOption::IfTsResol(resolution)]);
    assert_eq!(of(1_500, 3), Duration::from_millis(1_500));
    assert_eq!(of(3 << 9, 0x80 | 10), Duration::from_millis(1_500));
    assert_eq!(of(u64::MAX, 0), Duration::from_secs(u64::MAX));
    for resolution in 0..=u8::MAX {
        let _ = of(u64::MAX, resolution);
    }
}

#[test]
fn a_packet_longer_than_what_was_captured_is_read() {
    let header = PcapHeader {
        snaplen: 4,
        datalink: DataLink::from(0x0400_0001),
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    writer
        .write_raw_packet(&RawPcapPacket {
            ts_sec: 1,
            ts_frac: u32::MAX,
            incl_len: 4,
            orig_len: 1_500,
            data: Cow::Borrowed(b"head"),
        })
        .unwrap();
    let bytes = writer.into_writer();
    let mut capture = Capture::new(&bytes[..]).unwrap();
    let frame = capture.next_frame().unwrap().unwrap();
    assert_eq!((frame.data, frame.cut, frame.link), (&b"head"[..], true, 1));
}

#[test]
fn cut_anywhere_everything_before_is_read_and_the_place_is_named() {
    for bytes in [pcap(), pcapng(micros, vec![])] {
        let mut most = 0;
        for length in 0..bytes.len() {
            let (packets, error) = read(&bytes[..length]);
            assert_eq!(packets, expected()[..packets.len()]);
            assert!(packets.len() >= most);
            most = packets.len();
            match error {
                // Cut between two records, it looks whole.
                None => {}
                Some(CaptureError::Truncated {
                    length: told,
                    offset,
                    packets: before,
                }) => {
                    assert_eq!((told, before), (length as u64, packets.len() as u64));
                    assert!(offset < told);
                }
                Some(CaptureError::NotACapture { .. }) => assert!(length < 4),
                Some(error) => panic!("{length}: {error}"),
            }
        }
    }
}

#[test]
fn damage_is_named() {
    let mut bytes = pcap();
    let record = bytes.len() - 16;
    bytes[record + 8..record + 12].copy_from_slice(&[0xff; 4]);
    let (packets, error) = read(&bytes);
    assert_eq!(packets.len(), 2);
    assert_eq!(
        error.unwrap().to_string(),
        format!(
            "the capture is cut short: it ends at byte {}, within the record that begins at byte {record}, \
             after 2 whole packets",
            bytes.len()
        )
    );
    bytes.resize(bytes.len() + LONGEST_RECORD + CHUNK, 0);
    let told = read(&bytes).1.unwrap().to_string();
    assert_eq!(
        told,
        format!(
            "the capture is damaged at byte {record}, after 2 whole packets: a record claims to be longer than 16 MiB"
        )
    );
}

#[test]
fn other_files_are_told_from_captures() {
    for (bytes, told) in [
        (
            &b""[..],
            "this is neither a pcap nor a pcapng capture; it is empty",
        ),
        (b"hello", "this is neither a pcap nor a pcapng capture"),
        (
            b"\x1f\x8b\x08\0",
            "this is neither a pcap nor a pcapng capture; it is compressed, unpack it with gunzip first",
        ),
    ] {
        assert_eq!(read(bytes).1.unwrap().to_string(), told);
    }
}

/// Gives one byte at a time, as a pipe may.
struct Drop1<'a>(&'a [u8]);

impl Read for Drop1<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let one = into.len().min(1);
        self.0.read(&mut into[..one])
    }
}

#[test]
fn how_the_bytes_arrive_does_not_matter() {
    let bytes = pcapng(micros, vec![]);
    let mut capture = Capture::new(Drop1(&bytes)).unwrap();
    while capture.next_frame().unwrap().is_some() {}
    assert_eq!(capture.packets(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_panics(ng: bool, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = if ng { pcapng(micros, vec![InterfaceDescriptionOption::IfTsResol(6)]) } else { pcap() };
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let (packets, _) = read(&bytes);
        prop_assert!(packets.len() <= 8);
    }
}
