//! `events --pcap`: what is dropped, as a capture. tcpdump never sees it.

use std::{
    borrow::Cow,
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

use pcap_file::{
    DataLink, PcapError,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};
use serde::Serialize;

use super::{
    args::{EventsArgs, Format},
    exit::{Error, Exit},
    out::Out,
    text::count,
};
use crate::api::{
    Lines,
    client::{Client, ClientError},
    types::{DroppedPacket, SchemaVersion},
};

/// Packets captured without `--limit`.
const PACKETS: u64 = 1_000;

/// How long a capture waits without `--timeout`: nobody shall leave one behind.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What was captured; as JSON, the answer of `events --pcap -o json`.
#[derive(Debug, Default, Serialize)]
struct Captured {
    schema_version: SchemaVersion,
    /// Packets written.
    packets: u64,
    /// Packets that are missing, because they came faster than they could be written.
    missed: u64,
    /// Why it ended: `limit`, `timeout` or `interrupted`.
    ended_by: &'static str,
}

pub(super) async fn capture(
    client: &Client,
    args: &EventsArgs,
    path: &Path,
    out: &mut Out,
) -> Result<Exit, Error> {
    let limit = args.limit.map_or(PACKETS, |limit| limit as u64);
    // Asked for first: a capture that is refused leaves no file.
    let packets = client.drops(limit).await?;
    let to_stdout = path.as_os_str() == "-";
    let name = path.display().to_string();
    let failed = |source| Error::File {
        action: "write",
        path: name.clone(),
        source,
    };
    let file = if to_stdout {
        // Past the buffer of standard output: whoever reads it sees a packet at once.
        File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?)
    } else {
        // It holds what customers say and their credentials.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path).map_err(failed)?
    };
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(file, header).map_err(|error| failed(io_error(error)))?;
    out.note(format_args!(
        "capturing up to {} that are dropped; Ctrl-C ends it",
        count(usize::try_from(limit).unwrap_or(usize::MAX), "packet")
    ));
    let mut captured = Captured::default();
    let timeout = args.timeout.unwrap_or(TIMEOUT);
    captured.ended_by = tokio::select! {
        result = record(packets, &mut writer, &mut captured) => {
            result.map_err(|problem| match problem {
                Problem::Client(error) => Error::Client(error),
                Problem::File(source) if to_stdout => Error::Output(source),
                Problem::File(source) => failed(source),
            })?;
            if captured.packets < limit {
                return Err(Error::Client(ClientError::Ended));
            }
            "limit"
        }
        () = tokio::time::sleep(timeout) => "timeout",
        result = tokio::signal::ctrl_c() => {
            result.map_err(|error| Error::Local(Box::new(error)))?;
            "interrupted"
        }
    };
    report(&captured, &name, to_stdout, out)?;
    Ok(Exit::Done)
}

enum Problem {
    Client(ClientError),
    File(io::Error),
}

async fn record(
    mut packets: Lines<DroppedPacket>,
    writer: &mut PcapWriter<File>,
    captured: &mut Captured,
) -> Result<(), Problem> {
    while let Some(packet) = packets.next().await.map_err(Problem::Client)? {
        let time = packet
            .time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let frame = &packet.frame.0;
        let record = PcapPacket {
            timestamp: time,
            // A frame is never longer than the excerpt says, nor shorter than the excerpt.
            orig_len: packet.length.max(u32::try_from(frame.len()).unwrap_or(u32::MAX)),
            data: Cow::Borrowed(frame),
        };
        writer
            .write_packet(&record)
            .map_err(|error| Problem::File(io_error(error)))?;
        captured.packets += 1;
        captured.missed += packet.missed;
    }
    Ok(())
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

fn report(captured: &Captured, name: &str, to_stdout: bool, out: &mut Out) -> Result<(), Error> {
    let packets = count(usize::try_from(captured.packets).unwrap_or(usize::MAX), "packet");
    let sentence = match captured.missed {
        0 => format!("captured {packets} to {name}"),
        missed => format!("captured {packets} to {name}; {missed} more came too fast"),
    };
    if to_stdout {
        // The data stands there already.
        out.note(sentence);
        return Ok(());
    }
    match out.format {
        Format::Json => out.json(captured),
        Format::Human => out.changed(sentence),
        Format::Raw => out.raw(&[
            "captured",
            &captured.packets.to_string(),
            &captured.missed.to_string(),
            captured.ended_by,
        ]),
    }
}
