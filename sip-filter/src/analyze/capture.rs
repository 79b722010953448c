//! Reads captures packet by packet: pcap and pcapng, whole or broken.

use std::{
    io::{self, Read},
    time::Duration,
};

use pcap_file::{
    Endianness, PcapError, TsResolution,
    pcap::PcapParser,
    pcapng::{PcapNgParser, blocks::interface_description::InterfaceDescriptionOption},
};

/// Bytes read from the file at once.
const CHUNK: usize = 256 * 1024;
/// Longest record of a capture. Beyond it a length is taken for damage: no packet is that long.
const LONGEST_RECORD: usize = 16 * 1024 * 1024;

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file ends within a record.
    #[error(
        "the capture is cut short: it ends at byte {length}, within the record that begins at byte {offset}, \
         after {packets} whole packets"
    )]
    Truncated {
        /// Length of the file.
        length: u64,
        /// Where the record begins.
        offset: u64,
        /// Packets read before.
        packets: u64,
    },
    /// A record makes no sense.
    #[error("the capture is damaged at byte {offset}, after {packets} whole packets: {detail}")]
    Damaged {
        /// Where the record begins.
        offset: u64,
        /// Packets read before.
        packets: u64,
        /// What is wrong.
        detail: String,
    },
    /// Another kind of file.
    #[error("this is neither a pcap nor a pcapng capture{hint}")]
    NotACapture {
        /// What it may be.
        hint: &'static str,
    },
    /// The file could not be read.
    #[error("cannot read the capture at byte {offset}")]
    Read {
        /// How far it could be read.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// One packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Time since the Unix epoch; `None` if the capture does not tell.
    pub time: Option<Duration>,
    /// Link type, as in the registry of tcpdump.org.
    pub link: u32,
    /// The bytes that were captured.
    pub data: &'a [u8],
    /// Whether the packet was longer than what was captured.
    pub cut: bool,
}

/// A capture being read.
pub struct Capture<R> {
    input: Input<R>,
    format: Format,
    packets: u64,
    /// The packet last read; its bytes are copied out of the input buffer, which moves.
    frame: Vec<u8>,
}

enum Format {
    Pcap(PcapParser),
    PcapNg(PcapNgParser),
}

/// What a record says of the packet in it; the bytes are in [`Capture::frame`].
struct Meta {
    time: Option<Duration>,
    link: u32,
    cut: bool,
}

impl<R: Read> Capture<R> {
    /// Begins to read a capture.
    ///
    /// # Errors
    /// [`CaptureError`] if it is none.
    pub fn new(reader: R) -> Result<Self, CaptureError> {
        let mut input = Input::new(reader);
        while input.bytes().len() < 4 && input.more()? {}
        let format = match input.bytes() {
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => {
                Format::PcapNg(input.record(0, PcapNgParser::new)?.ok_or(NOTHING)?)
            }
            [0xa1, 0xb2, 0xc3 | 0x3c, 0xd4 | 0x4d, ..] | [0xd4 | 0x4d, 0xc3 | 0x3c, 0xb2, 0xa1, ..] => {
                Format::Pcap(input.record(0, PcapParser::new)?.ok_or(NOTHING)?)
            }
            [] => return Err(NOTHING),
            [0x1f, 0x8b, ..] => {
                return Err(CaptureError::NotACapture {
                    hint: "; it is compressed, unpack it with gunzip first",
                });
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                return Err(CaptureError::NotACapture {
                    hint: "; it is compressed, unpack it with zstd -d first",
                });
            }
            _ => return Err(CaptureError::NotACapture { hint: "" }),
        };
        Ok(Self {
            input,
            format,
            packets: 0,
            frame: Vec::new(),
        })
    }

    /// The next packet, or `None` at the end.
    ///
    /// # Errors
    /// [`CaptureError`] if the capture is broken there; nothing can be read after it.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let meta = loop {
            let frame = &mut self.frame;
            let meta = match &mut self.format {
                Format::Pcap(parser) => self
                    .input
                    .record(self.packets, |bytes| pcap_packet(parser, bytes, frame))?
                    .map(Some),
                Format::PcapNg(parser) => self
                    .input
                    .record(self.packets, |bytes| pcapng_block(parser, bytes, frame))?,
            };
            match meta {
                None => return Ok(None),
                // A block without a packet.
                Some(None) => {}
                Some(Some(meta)) => break meta,
            }
        };
        self.packets += 1;
        Ok(Some(Frame {
            time: meta.time,
            link: meta.link,
            data: &self.frame,
            cut: meta.cut,
        }))
    }

    /// Packets read so far.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }
}

const NOTHING: CaptureError = CaptureError::NotACapture {
    hint: "; it is empty",
};

type Parsed<'a, T> = Result<(&'a [u8], T), PcapError>;

/// The record is read raw: the checked form refuses packets that were longer than the snapshot length, which is
/// what that length is for.
fn pcap_packet<'a>(parser: &PcapParser, bytes: &'a [u8], frame: &mut Vec<u8>) -> Parsed<'a, Meta> {
    let (rest, packet) = parser.next_raw_packet(bytes)?;
    let nanos = match parser.header().ts_resolution {
        TsResolution::MicroSecond => u64::from(packet.ts_frac) * 1_000,
        TsResolution::NanoSecond => u64::from(packet.ts_frac),
    };
    frame.clear();
    frame.extend_from_slice(&packet.data);
    let meta = Meta {
        time: Some(Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(nanos)),
        // The upper bits tell about checksums at the end of frames.
        link: u32::from(parser.header().datalink) & 0xffff,
        cut: packet.orig_len > packet.incl_len,
    };
    Ok((rest, meta))
}

/// Packet blocks are read by hand: the parser takes every time stamp for nanoseconds, whatever the interface says.
fn pcapng_block<'a>(
    parser: &mut PcapNgParser,
    bytes: &'a [u8],
    frame: &mut Vec<u8>,
) -> Parsed<'a, Option<Meta>> {
    const OBSOLETE: u32 = 2;
    const SIMPLE: u32 = 3;
    const ENHANCED: u32 = 6;

    let (rest, block) = parser.next_raw_block(bytes)?;
    let big = matches!(parser.section().endianness, Endianness::Big);
    let word = |index: usize| -> Option<u32> {
        let bytes = *block.body.get(index * 4..)?.first_chunk()?;
        Some(if big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    };
    let fields = || -> Option<(u32, Option<u64>, u32, u32, usize)> {
        let stamp = || Some(u64::from(word(1)?) << 32 | u64::from(word(2)?));
        match block.type_ {
            ENHANCED => Some((word(0)?, Some(stamp()?), word(3)?, word(4)?, 20)),
            OBSOLETE => {
                let interface = if big { word(0)? >> 16 } else { word(0)? & 0xffff };
                Some((interface, Some(stamp()?), word(3)?, word(4)?, 20))
            }
            SIMPLE => {
                let snaplen = match parser.interfaces().first()?.snaplen {
                    0 => u32::MAX,
                    snaplen => snaplen,
                };
                Some((0, None, word(0)?.min(snaplen), word(0)?, 4))
            }
            _ => None,
        }
    };
    if !matches!(block.type_, ENHANCED | OBSOLETE | SIMPLE) {
        return Ok((rest, None));
    }
    let (interface, stamp, captured, original, begin) = fields().ok_or(PcapError::InvalidField(
        "a packet block is too short, or before any interface",
    ))?;
    let data = (block.body.get(begin..))
        .and_then(|data| data.get(..captured as usize))
        .ok_or(PcapError::InvalidField("a packet is longer than its block"))?;
    let interface =
        (parser.interfaces().get(interface as usize)).ok_or(PcapError::InvalidInterfaceId(interface))?;
    frame.clear();
    frame.extend_from_slice(data);
    let meta = Meta {
        time: stamp.map(|stamp| time_of(stamp, &interface.options)),
        link: u32::from(interface.linktype),
        cut: original > captured,
    };
    Ok((rest, Some(meta)))
}

/// A time stamp in the resolution that the interface states, microseconds if it states none.
fn time_of(stamp: u64, options: &[InterfaceDescriptionOption<'_>]) -> Duration {
    let (mut per_second, mut offset) = (1_000_000_u64, 0);
    for option in options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => {
                let exponent = u32::from(value & 0x7f);
                let base: u64 = if value & 0x80 == 0 { 10 } else { 2 };
                per_second = base.checked_pow(exponent).unwrap_or(u64::MAX);
            }
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = *seconds,
            _ => {}
        }
    }
    let nanos = u128::from(stamp % per_second) * 1_000_000_000 / u128::from(per_second);
    let seconds = (stamp / per_second).saturating_add(offset);
    // Below a second, so it fits.
    Duration::new(seconds, u32::try_from(nanos).unwrap_or(0))
}

/// The file, buffered, with the place it was read to.
struct Input<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Bytes at the beginning of the buffer that were used.
    used: usize,
    /// Place in the file of the first byte of the buffer.
    base: u64,
}

impl<R: Read> Input<R> {
    const fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            used: 0,
            base: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    fn offset(&self) -> u64 {
        self.base + self.used as u64
    }

    /// Reads more; false at the end of the file.
    fn more(&mut self) -> Result<bool, CaptureError> {
        self.buffer.drain(..self.used);
        self.base += self.used as u64;
        self.used = 0;
        let old = self.buffer.len();
        let read = (&mut self.reader)
            .take(CHUNK as u64)
            .read_to_end(&mut self.buffer)
            .map_err(|source| CaptureError::Read {
                offset: self.base + old as u64,
                source,
            })?;
        Ok(read > 0)
    }

    /// Parses one record, reading as much as it needs; `None` at the end of the file.
    fn record<T>(
        &mut self,
        packets: u64,
        mut parse: impl FnMut(&[u8]) -> Parsed<'_, T>,
    ) -> Result<Option<T>, CaptureError> {
        loop {
            let bytes = self.bytes();
            let damaged = |detail: String| CaptureError::Damaged {
                offset: self.offset(),
                packets,
                detail,
            };
            match parse(bytes) {
                Ok((rest, value)) => {
                    self.used = self.buffer.len() - rest.len();
                    return Ok(Some(value));
                }
                Err(PcapError::IncompleteBuffer) if bytes.len() > LONGEST_RECORD => {
                    return Err(damaged("a record claims to be longer than 16 MiB".to_owned()));
                }
                Err(PcapError::IncompleteBuffer) => {
                    if !self.more()? {
                        return if self.bytes().is_empty() {
                            Ok(None)
                        } else {
                            Err(CaptureError::Truncated {
                                length: self.base + self.buffer.len() as u64,
                                offset: self.offset(),
                                packets,
                            })
                        };
                    }
                }
                Err(error) => return Err(damaged(error.to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
