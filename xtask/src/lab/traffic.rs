//! A plain UDP sender and receiver for tests that need exact packets rather than a real program.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Netns, interrupt};

/// How many packets, how fast, and for how long at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Packets to send.
    pub count: u64,
    /// Packets a second; `None` is as fast as one thread can.
    pub rate: Option<u32>,
    /// When to stop in any case.
    pub limit: Duration,
}

/// What a burst came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Packets that the kernel took.
    pub packets: u64,
    /// Packets that it refused, mostly for a full queue.
    pub refused: u64,
    /// Time from the first packet to the last.
    pub elapsed: Duration,
}

/// Sends `burst` from inside `netns`; `payload` makes the packet of each number, from 0.
///
/// # Errors
/// If no socket can be had at `from`.
pub fn send(
    netns: &Netns,
    from: SocketAddr,
    to: SocketAddr,
    burst: Burst,
    mut payload: impl FnMut(u64, &mut Vec<u8>) + Send,
) -> Result<Sent> {
    let socket = socket(netns, from)?;
    socket
        .connect(to)
        .with_context(|| format!("no way from {from} to {to}"))?;
    let start = Instant::now();
    let mut sent = Sent {
        packets: 0,
        refused: 0,
        elapsed: Duration::ZERO,
    };
    let mut buffer = Vec::with_capacity(1500);
    for number in 0..burst.count {
        // Sleeping is coarse: after it, everything that fell due goes out at once.
        if let Some(due) = burst
            .rate
            .map(|rate| Duration::from_secs_f64(number as f64 / f64::from(rate)))
        {
            let ahead = due.saturating_sub(start.elapsed());
            if !ahead.is_zero() {
                thread::sleep(ahead);
            }
        }
        if start.elapsed() >= burst.limit || interrupt::requested() {
            break;
        }
        buffer.clear();
        payload(number, &mut buffer);
        match socket.send(&buffer) {
            Ok(_) => sent.packets += 1,
            Err(_) => sent.refused += 1,
        }
    }
    sent.elapsed = start.elapsed();
    Ok(sent)
}

/// Opens a UDP socket inside `netns`, for instance to count what arrives.
///
/// # Errors
/// If `at` can't be had.
pub fn socket(netns: &Netns, at: SocketAddr) -> Result<UdpSocket> {
    netns
        .enter(|| UdpSocket::bind(at))?
        .with_context(|| format!("can't bind {at}"))
}

/// Counts the packets that arrive at `socket` until none came for `quiet`.
///
/// # Errors
/// If the socket fails.
pub fn drain(socket: &UdpSocket, quiet: Duration) -> Result<u64> {
    socket.set_read_timeout(Some(quiet))?;
    let mut buffer = [0; 65_536];
    let mut packets = 0;
    while socket.recv(&mut buffer).is_ok() {
        packets += 1;
    }
    Ok(packets)
}
