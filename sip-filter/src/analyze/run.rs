//! Runs a capture through the pipeline and the engine.

use std::{
    collections::HashMap,
    io::Read,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use sip_filter_common::{
    abi::EventHeader,
    packet::{self, Packet as _, Transport},
    sip::{Class, classify},
    table::Plain,
    verdict::{Action, Reason, Verdict},
};

use super::{
    AlarmReport, BanReport, Capture, CaptureError, Report, SourceReport,
    link::{self, Link},
};
use crate::{
    bans::{Endpoint, Target},
    dataplane::{ImageError, KernelBan},
    detect::{AtHome, Conclusion, Decision, Engine, Observation},
};

/// A data plane without a kernel: the pipeline with tables in memory.
pub trait Plane {
    /// Decides on one Ethernet frame at `now`, nanoseconds since boot.
    fn run(&mut self, frame: &[u8], now: u64) -> Verdict;

    /// Looks at one Ethernet frame that leaves the server at `now`, nanoseconds since boot.
    fn run_egress(&mut self, frame: &[u8], now: u64);

    /// Events since the last call, oldest first, with their excerpts of payload.
    fn take_events(&mut self) -> Vec<(EventHeader, Vec<u8>)>;

    /// Bans a target for the packets that follow.
    ///
    /// # Errors
    /// [`ImageError`] if there is no room.
    fn ban(&mut self, target: Target, ban: KernelBan) -> Result<(), ImageError>;

    /// Trusts a source until a time since boot, or no more.
    ///
    /// # Errors
    /// [`ImageError`] if there is no room.
    fn trust(&mut self, target: Target, until: Option<Duration>) -> Result<(), ImageError>;

    /// Makes an endpoint its source's own until a time since boot.
    ///
    /// # Errors
    /// [`ImageError`] if there is no room.
    fn at_home(&mut self, endpoint: Endpoint, until: Duration) -> Result<(), ImageError>;
}

/// What an analysis can be told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Addresses of the servers themselves. A capture has both directions: packets from these addresses are what
    /// the server sent, and are only looked at for its answers. (Captures on "any" mark sent packets by themselves.)
    /// Without them, what leaves a protected port counts as received and as sent.
    pub own: Vec<Target>,
}

/// Boot time of the first packet: the kernel's clock, too, never is zero, and packets out of order may come before
/// the first.
const START: Duration = Duration::from_secs(3600);

/// Sources reported one by one; what others send is summed up.
const MAX_SOURCES: usize = 1_000_000;

/// Runs a capture through `plane` and `engine` in the capture's own time.
///
/// A capture that is broken or cut short is analysed as far as it can be read; [`Report::error`] then says where it
/// broke.
///
/// # Errors
/// [`CaptureError`] if `reader` is no capture at all.
pub fn analyze<R: Read>(
    reader: R,
    plane: &mut impl Plane,
    engine: &mut Engine,
    options: &Options,
) -> Result<Report, CaptureError> {
    let mut capture = Capture::new(reader)?;
    let mut analysis = Analysis::new(plane, engine, options);
    let mut frame = Vec::new();
    loop {
        match capture.next_frame() {
            Ok(Some(packet)) => {
                if packet.cut {
                    analysis.report.cut_packets += 1;
                }
                match link::to_ethernet(packet.link, packet.data, &mut frame) {
                    Link::Frame => analysis.packet(packet.time, &frame),
                    Link::Outgoing => {
                        analysis.report.skipped_outgoing += 1;
                        analysis.sent(packet.time, &frame);
                    }
                    Link::Unknown => analysis.report.skipped_link += 1,
                }
            }
            Ok(None) => break,
            Err(error) => {
                analysis.report.error = Some(error);
                break;
            }
        }
    }
    analysis.report.packets = capture.packets();
    Ok(analysis.finish())
}

struct Analysis<'a, P> {
    plane: &'a mut P,
    engine: &'a mut Engine,
    options: &'a Options,
    report: Report,
    sources: HashMap<Target, SourceReport>,
    /// Time of the first packet, since the Unix epoch.
    epoch: Option<Duration>,
    last: Duration,
    conclusions: Vec<Conclusion>,
}

impl<'a, P: Plane> Analysis<'a, P> {
    fn new(plane: &'a mut P, engine: &'a mut Engine, options: &'a Options) -> Self {
        Self {
            plane,
            engine,
            options,
            report: Report::default(),
            sources: HashMap::new(),
            epoch: None,
            last: START,
            conclusions: Vec::new(),
        }
    }

    fn packet(&mut self, time: Option<Duration>, frame: &[u8]) {
        let looked_at = look_at(frame);
        if let Some((source, _)) = looked_at
            && self.options.own.iter().any(|own| own.contains(source))
        {
            self.report.skipped_own += 1;
            self.sent(time, frame);
            return;
        }
        let now = self.clock(time);
        let nanos = nanos(now);
        let verdict = self.plane.run(frame, nanos);
        let wall = self.engine.wall(now);
        self.report.first_seen.get_or_insert(wall);
        self.report.last_seen = Some(wall);
        *self.report.reasons.entry(verdict.reason.name()).or_default() += 1;
        if let Some((source, class)) = looked_at {
            self.tally(source, class, verdict.reason, wall);
        }
        if self.options.own.is_empty() {
            self.plane.run_egress(frame, nanos);
        }
        self.events();
    }

    /// A packet that the server sent.
    fn sent(&mut self, time: Option<Duration>, frame: &[u8]) {
        let now = self.clock(time);
        self.plane.run_egress(frame, nanos(now));
        self.events();
    }

    fn events(&mut self) {
        for (header, payload) in self.plane.take_events() {
            if let Some(observation) = Observation::from_event(&header, &payload) {
                self.engine.observe(&observation, &mut self.conclusions);
            }
        }
        for conclusion in std::mem::take(&mut self.conclusions) {
            match conclusion {
                Conclusion::Ban(decision) => self.decided(decision),
                Conclusion::Alarm(alarm) => {
                    let time = self.engine.wall(alarm.time);
                    self.report.alarms.push(AlarmReport::new(time, alarm));
                }
                Conclusion::Trusted(trusted) => self.trust(trusted.target, Some(trusted.until)),
                Conclusion::Distrusted(target) => self.trust(target, None),
                Conclusion::AtHome(home) => self.at_home(home),
                Conclusion::Proven(_) => {}
            }
        }
    }

    /// The time of a packet on the clock of pipeline and engine, which begins with the first packet. A packet
    /// without a time has that of the packet before it.
    fn clock(&mut self, time: Option<Duration>) -> Duration {
        let Some(time) = time else {
            return self.last;
        };
        let epoch = *self.epoch.get_or_insert_with(|| {
            let wall = SystemTime::UNIX_EPOCH.checked_add(time);
            self.engine
                .set_wall(START, wall.unwrap_or(SystemTime::UNIX_EPOCH));
            time
        });
        self.last = START.saturating_add(time).saturating_sub(epoch);
        self.last
    }

    /// Adds a packet to its source, if it had to do with SIP or a ban.
    fn tally(&mut self, source: IpAddr, class: Option<Class>, reason: Reason, wall: SystemTime) {
        let banned = matches!(reason, Reason::DropBanAddress | Reason::DropBanNetwork);
        let dropped = matches!(reason.action(), Action::Drop);
        let class = match reason {
            Reason::PassRequest
            | Reason::PassResponse
            | Reason::PassKeepAlive
            | Reason::PassOtherPayload
            | Reason::PassAllowed => class,
            Reason::PassStream | Reason::PassAllowedBanned => None,
            _ if banned => None,
            _ if dropped => class,
            _ => return,
        };
        let Some(entry) = self.entry(self.engine.target(source)) else {
            self.report.unlisted_packets += 1;
            return;
        };
        entry.packets += 1;
        entry.first_seen.get_or_insert(wall);
        entry.last_seen = Some(wall);
        if let Some(class) = class {
            entry.classes[class as usize] += 1;
        }
        entry.throttled += u64::from(dropped && !banned);
        entry.dropped_by_ban += u64::from(banned);
    }

    fn trust(&mut self, target: Target, until: Option<Duration>) {
        if let Err(error) = self.plane.trust(target, until) {
            self.note(error.to_string());
        }
    }

    fn at_home(&mut self, home: AtHome) {
        if let Err(error) = self.plane.at_home(home.endpoint, home.until) {
            self.note(error.to_string());
        }
    }

    fn note(&mut self, text: String) {
        if !self.report.notes.contains(&text) {
            self.report.notes.push(text);
        }
    }

    fn entry(&mut self, target: Target) -> Option<&mut SourceReport> {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&target) {
            return None;
        }
        Some(
            self.sources
                .entry(target)
                .or_insert_with(|| SourceReport::new(target)),
        )
    }

    fn decided(&mut self, decision: Decision) {
        let mut failed = None;
        if !decision.shadow {
            let ban = KernelBan {
                scope: decision.scope,
                expires: Some(decision.time.saturating_add(decision.ban_for)),
            };
            failed = self.plane.ban(decision.target, ban).err();
        }
        if let Some(error) = failed {
            self.note(error.to_string());
        }
        let ban = BanReport::new(self.engine.wall(decision.time), &decision);
        if let Some(entry) = self.entry(decision.target) {
            entry.bans.push(ban);
        }
    }

    fn finish(mut self) -> Report {
        let mut sources: Vec<SourceReport> = self.sources.into_values().collect();
        // Who was acted upon first; and a fixed order, whatever the hash map made of it.
        sources.sort_by_key(|source| {
            let stopped = source.throttled + source.dropped_by_ban;
            (
                std::cmp::Reverse((!source.bans.is_empty(), stopped, source.packets)),
                source.source,
            )
        });
        self.report.sources = sources;
        self.report
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Source and class of a frame, as the pipeline sees them.
fn look_at(frame: &[u8]) -> Option<(IpAddr, Option<Class>)> {
    let network = packet::network(&frame).ok()?;
    let class = match packet::transport(&frame, &network, &Plain) {
        Transport::Ports(ports) => {
            let head = frame.head(ports.payload, ports.payload_len);
            Some(classify(&head, ports.payload_len))
        }
        _ => None,
    };
    Some((network.source.address().to_ip(), class))
}

#[cfg(test)]
mod tests;
