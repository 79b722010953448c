//! Captures: the reader, and a whole analysis.

use std::{io::Read, sync::LazyLock, time::Duration};

use sip_filter::{
    analyze::{Capture, CaptureError, SCHEMA_VERSION},
    bans::Target,
    config::Config,
};

/// Reads a capture.
pub fn capture(file: &[u8]) {
    let (frames, error) = read(file);
    let bytes: usize = frames.iter().map(|frame| frame.data.len()).sum();
    assert!(
        bytes <= file.len(),
        "{bytes} bytes of packets out of {}",
        file.len()
    );
    let (trickled, trickled_error) = read(Trickle(file));
    assert!(
        frames == trickled && error == trickled_error,
        "it matters how the file arrives"
    );
    // What comes before a cut is read as if nothing were cut.
    let (part, part_error) = read(&file[..file.len() / 2]);
    assert!(frames.starts_with(&part), "a cut changes what comes before it");
    assert!(part_error.is_some() || part.len() <= frames.len());
    let Some(error) = error else { return };
    assert!(error.len() < 400, "{error}");
}

#[derive(Debug, PartialEq)]
struct Owned {
    time: Option<Duration>,
    link: u32,
    cut: bool,
    data: Vec<u8>,
}

/// All packets, and what is wrong after them.
fn read(reader: impl Read) -> (Vec<Owned>, Option<String>) {
    let mut capture = match Capture::new(reader) {
        Ok(capture) => capture,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut frames = Vec::new();
    loop {
        match capture.next_frame() {
            Ok(Some(frame)) => frames.push(Owned {
                time: frame.time,
                link: frame.link,
                cut: frame.cut,
                data: frame.data.to_vec(),
            }),
            Ok(None) => return (frames, None),
            Err(error) => {
                located(&error, frames.len() as u64);
                assert_eq!(capture.packets(), frames.len() as u64);
                return (frames, Some(error.to_string()));
            }
        }
    }
}

/// An error says where, and after how many packets.
fn located(error: &CaptureError, read: u64) {
    match error {
        CaptureError::Truncated {
            length,
            offset,
            packets,
        } => assert!(offset < length && *packets == read, "{error}"),
        CaptureError::Damaged { packets, .. } => assert_eq!(*packets, read, "{error}"),
        CaptureError::NotACapture { .. } | CaptureError::Read { .. } => {
            panic!("{error}, after {read} packets")
        }
    }
}

/// A file that comes byte by byte.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let take = buffer.len().min(1);
        self.0.read(&mut buffer[..take])
    }
}

/// With tables that are made quickly.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = "[protect]\ntcp_ports = [5060, 5061]\n[tables]\nban4 = 1024\nban6 = 1024\nban6_hosts = 1024\n\
                networks = 1024\nsources = 1024\ntrust = 1024\nendpoints = 1024\n";
    Config::parse(text, "fuzz").expect("a valid configuration")
});

/// Judges a capture as `sip-filter analyze` does: every link layer, the pipeline, the engine, and all three reports.
pub fn analysis(file: &[u8]) {
    let own: [Target; 1] = ["192.0.2.1".parse().expect("an address")];
    for own in [&own[..], &[]] {
        let Ok(report) = sip_filter::cli::judge("fuzz", file, &CONFIG, own) else {
            return;
        };
        let reasons: u64 = report.reasons.values().sum();
        let skipped = report.skipped_link + report.skipped_outgoing + report.skipped_own;
        assert_eq!(reasons + skipped, report.packets, "every packet has one reason");
        assert_eq!(report.json()["schema_version"], SCHEMA_VERSION);
        assert_eq!(report.raw().lines().count(), report.sources.len());
        assert!(report.human(10, Some(80)).len() < 100_000 + 1_000 * report.alarms.len());
        assert!(report.sources.len() as u64 <= report.packets);
    }
}
