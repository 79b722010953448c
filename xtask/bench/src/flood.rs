//! A flood of frames that a BPF program makes, beside something else.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::net::if_::if_nametoindex;
use xtask::lab::{Netns, interrupt, spoof::Mac};

use crate::{
    Session,
    generator::Traffic,
    kernel::{Program, Programs},
};

/// Frames handed to the kernel at once at most. A call costs milliseconds before its first frame and after its last,
/// whatever it sends: with 8,192 at once, a flood stood still for most of the time, and whoever it hit recovered.
const CHUNK: u32 = 262_144;
/// Pause of a flood with a rate: each call into the kernel costs something whatever it sends.
const PAUSE: Duration = Duration::from_millis(2);
/// Where the destination lies in an untagged IPv4 frame.
const DESTINATION: usize = 30;

/// Frames a second; `None` is what one processor can.
pub(crate) type Pace = Option<u32>;

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) frames: u64,
    pub(crate) took: Duration,
}

impl Sent {
    /// Frames a second.
    pub(crate) fn rate(self) -> f64 {
        self.frames as f64 / self.took.as_secs_f64()
    }
}

/// A sequence of frames, ready to be sent from an interface.
pub(crate) struct Flood<'a> {
    netns: &'a Netns,
    programs: Programs,
    program: Program,
    traffic: Traffic,
}

impl<'a> Flood<'a> {
    /// Frames to be sent from `interface` of `netns`; what is at the other end takes them by XDP, or by GRO.
    pub(crate) fn new(
        session: &Session,
        (netns, interface): (&'a Netns, &str),
        mut traffic: Traffic,
    ) -> Result<Self> {
        let index = netns.enter(|| if_nametoindex(interface))?;
        traffic.plan.interface = u64::from(index.with_context(|| format!("no interface {interface}"))?);
        let mut programs = Programs::load(&session.programs)?;
        programs.set_plan(&traffic.plan, &traffic.heads)?;
        let program = programs.program("vary_then_send")?;
        Ok(Self {
            netns,
            programs,
            program,
            traffic,
        })
    }

    /// Sends while `work` is done, which sees how many frames were sent, and at most `limit` frames.
    pub(crate) fn during<T>(
        &mut self,
        pace: Pace,
        limit: u64,
        work: impl FnOnce(&AtomicU64) -> Result<T>,
    ) -> Result<(T, Sent)> {
        self.programs.reset(&self.traffic.plan)?;
        let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let (netns, program, frame) = (self.netns, &self.program, &self.traffic.frame);
        let (result, took) = thread::scope(|scope| {
            let sender =
                scope.spawn(|| netns.enter(|| send(program, frame, (pace, limit), &count, &over))?);
            let result = work(&count);
            over.store(true, Ordering::Relaxed);
            let took = sender.join().map_err(|_| anyhow!("the flood panicked"))?;
            Ok::<_, anyhow::Error>((result, took?))
        })?;
        let frames = self.programs.state()?.sent;
        ensure!(frames > 0, "the flood sent nothing");
        Ok((result?, Sent { frames, took }))
    }
}

fn send(
    program: &Program,
    frame: &[u8],
    (pace, limit): (Pace, u64),
    count: &AtomicU64,
    over: &AtomicBool,
) -> Result<Duration> {
    let start = Instant::now();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) && !interrupt::requested() && sent < limit {
        let due = match pace {
            None => CHUNK,
            Some(rate) => {
                let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                u32::try_from(due.saturating_sub(sent)).unwrap_or(CHUNK)
            }
        };
        let due = due.min(CHUNK).min(u32::try_from(limit - sent).unwrap_or(CHUNK));
        if due > 0 {
            program.send(frame, due)?;
            sent += u64::from(due);
            count.store(sent, Ordering::Relaxed);
        }
        if pace.is_some() {
            thread::sleep(PAUSE);
        }
    }
    Ok(start.elapsed())
}

/// Addresses the frames of `traffic` to a host.
pub(crate) fn aim(mut traffic: Traffic, mac: Mac, address: Ipv4Addr) -> Result<Traffic> {
    let words = |bytes: &[u8]| -> u64 {
        let pairs = bytes.chunks_exact(2);
        pairs
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]))
            .sum()
    };
    let frame = &mut traffic.frame;
    ensure!(frame.get(12..14) == Some(&[8, 0]), "not an IPv4 frame");
    frame[..6].copy_from_slice(&mac);
    let place = frame
        .get_mut(DESTINATION..DESTINATION + 4)
        .context("a frame without destination")?;
    // The sum of the header without checksum and source, which the plan holds.
    traffic.plan.checksum = traffic.plan.checksum + words(&address.octets()) - words(place);
    place.copy_from_slice(&address.octets());
    Ok(traffic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{Shape, Sources};

    #[test]
    fn the_checksum_follows_the_destination() {
        let traffic = Shape::request("REGISTER").from(Sources::from(1, 4));
        let aimed = aim(traffic.clone(), [2; 6], Ipv4Addr::new(192, 0, 2, 10)).unwrap();
        assert_eq!(aimed.plan.checksum, traffic.plan.checksum + 9);
        assert_eq!(&aimed.frame[30..34], [192, 0, 2, 10]);
        assert_eq!(&aimed.frame[..6], [2; 6]);
    }
}
