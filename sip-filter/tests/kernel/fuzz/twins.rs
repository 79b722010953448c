//! Host and kernel, given the same steps.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sip_filter::{
    bans::Target,
    dataplane::{
        Comparison, Counters, EventRing, HostPlane, Image, ImageError, KernelBan, LoadOptions, LoadedProgram,
    },
};
use sip_filter_common::{
    abi::{EventHeader, Family, counter_index},
    verdict::{Action, Reason},
};

use super::world::{self, Packet, Start, Step};

/// Where they stopped being alike: the index of the step, and how.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) step: usize,
    pub(crate) how: String,
}

pub(crate) struct Twins {
    host: HostPlane,
    host_image: Box<dyn Image>,
    kernel: LoadedProgram,
    kernel_image: Box<dyn Image>,
    ring: EventRing,
    comparison: Comparison,
    /// Events of each kind, those of strays among them in the place of none.
    pub(super) events: [u64; 5],
    /// Whether the kernel takes frames in parts.
    splits: bool,
}

impl Twins {
    pub(crate) fn new(start: &Start, splits: bool) -> Self {
        let Start { sizes, config, ports } = start;
        let (host, host_image) = HostPlane::new(config, sizes, &ports.udp, &ports.tcp);
        let options = LoadOptions {
            sizes: *sizes,
            config: *config,
            udp_ports: ports.udp.clone(),
            tcp_ports: ports.tcp.clone(),
            log: false,
            test_clock: true,
        };
        let (kernel, kernel_image) = LoadedProgram::load("test", &options).unwrap();
        Self {
            ring: kernel.event_ring().unwrap(),
            comparison: Comparison::new(&kernel).unwrap(),
            host,
            host_image,
            kernel,
            kernel_image,
            events: [0; 5],
            splits,
        }
    }

    /// Whether the running kernel can be told how much of a frame lies in its first buffer (6.18).
    pub(crate) fn kernel_splits(start: &Start) -> bool {
        Self::new(start, true)
            .kernel
            .test_run_split(&[0; 100], 20)
            .is_ok()
    }

    pub(super) fn counters(&self) -> Counters {
        self.host.counters()
    }

    /// Packets of each reason that has any, enforced and simulated.
    pub(crate) fn packets_by_reason(&self) -> Vec<(Reason, u64)> {
        let counters = self.counters();
        let of = |reason: Reason| -> u64 {
            let families = Family::ALL
                .into_iter()
                .flat_map(|family| [(family, false), (family, true)]);
            families
                .map(|(family, simulated)| counters.by_reason[counter_index(reason as u8, family, simulated)])
                .sum()
        };
        let all = Reason::ALL.iter().map(|reason| (*reason, of(*reason)));
        all.filter(|(_, packets)| *packets > 0).collect()
    }

    /// Takes the steps. Verdicts are compared at each packet; what it leaves behind, at the end of all or, if asked to
    /// be `careful`, at each step.
    pub(crate) fn take(&mut self, steps: &[Step], careful: bool) -> Result<(), Mismatch> {
        for (index, step) in steps.iter().enumerate() {
            let mut taken = self.step(step);
            let is_last = index + 1 == steps.len();
            if careful || is_last {
                taken = taken.and_then(|()| self.compare());
            }
            if is_last {
                taken = taken.and_then(|()| self.compare_hits());
            }
            taken.map_err(|how| Mismatch { step: index, how })?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Packet(packet) => return self.packet(packet),
            Step::Configure(config) => {
                self.host.set_config(config);
                self.kernel.set_config(config).unwrap();
            }
            Step::Protect(ports) => {
                self.host.set_ports(&ports.udp, &ports.tcp);
                self.kernel.set_ports(&ports.udp, &ports.tcp).unwrap();
            }
            _ => {
                let host = write(&mut *self.host_image, step);
                let kernel = write(&mut *self.kernel_image, step);
                // Either may be full, but both at once.
                if host.is_ok() != kernel.is_ok() {
                    return Err(format!("writing tables: host {host:?}, kernel {kernel:?}"));
                }
            }
        }
        Ok(())
    }

    fn packet(&mut self, packet: &Packet) -> Result<(), String> {
        let Packet {
            frame,
            linear,
            now,
            leaves,
        } = packet;
        let (frame, linear) = if self.splits {
            (
                &frame[..],
                linear.map_or(frame.len(), |linear| frame.len().min(linear as usize)),
            )
        } else {
            // An older kernel decides itself how long frames are split.
            let length = frame.len().min(world::LINEAR);
            (&frame[..length], length)
        };
        let host = &mut self.host;
        let decision = catch_unwind(AssertUnwindSafe(|| {
            if *leaves {
                host.run_egress(frame, *now);
                return None;
            }
            Some(host.run_split(frame, linear, *now))
        }))
        .map_err(|_| "the host panicked, see above".to_owned())?;
        self.kernel.set_clock(*now);
        let Some(decision) = decision else {
            return match self.kernel.test_run_egress(frame) {
                Ok(-1) => Ok(()),
                other => Err(format!("egress only looks, but: {other:?}")),
            };
        };
        let action = if linear < frame.len() {
            self.kernel.test_run_split(frame, linear as u32)
        } else {
            self.kernel.test_run(frame)
        };
        let expected = match decision.action() {
            Action::Drop => 1,
            Action::Pass => 2,
        };
        match action {
            Ok(action) if action == expected => Ok(()),
            other => Err(format!("the host says {decision:?}, the kernel {other:?}")),
        }
    }

    fn compare(&mut self) -> Result<(), String> {
        if let Some(difference) = self.comparison.difference(&self.host, &self.kernel).unwrap() {
            return Err(difference);
        }
        let (host, kernel) = (self.host.take_events(), self.ring.take());
        if let Some(difference) = different_event(&host, &kernel) {
            return Err(difference);
        }
        for (header, _) in &host {
            self.events[usize::from(header.kind) & 7] += 1;
            self.events[0] += u64::from(header.stray);
        }
        Ok(())
    }

    /// Hits of every ban since the last call. Up to 31 both count exactly. Above they are estimates, which the kernel's
    /// side brings to the exact sum; that may also make them less than 32.
    fn compare_hits(&mut self) -> Result<(), String> {
        let [host, kernel] = [&mut self.host_image, &mut self.kernel_image].map(|image| {
            let mut hits: Vec<(Target, u64)> = Vec::new();
            image.take_hits(&mut |target, count| hits.push((target, count)));
            hits.sort_unstable();
            hits
        });
        let is_same = |((target, host), (other, kernel)): (&(Target, u64), &(Target, u64))| {
            target == other && (host == kernel || *host > EXACT_HITS)
        };
        if host.len() == kernel.len() && host.iter().zip(&kernel).all(is_same) {
            return Ok(());
        }
        Err(format!("hits: host {host:?}, kernel {kernel:?}"))
    }
}

/// See `sip_filter_common::table::hits`.
const EXACT_HITS: u64 = 31;

fn write(image: &mut dyn Image, step: &Step) -> Result<(), ImageError> {
    match step {
        Step::Ban(target, scope, expires) => image.put(
            *target,
            KernelBan {
                scope: *scope,
                expires: *expires,
            },
        ),
        Step::Unban(target) => image.remove(*target),
        Step::Allow(networks) => image.set_allowed(networks),
        Step::Trust(target, until) => image.set_trust(*target, *until),
        Step::Home(endpoint, until) => image.set_endpoint(*endpoint, *until),
        Step::Configure(_) | Step::Protect(_) | Step::Packet(_) => Ok(()),
    }
}

type Event = (EventHeader, Vec<u8>);

fn different_event(host: &[Event], kernel: &[Event]) -> Option<String> {
    if host == kernel {
        return None;
    }
    let first = host.iter().zip(kernel).position(|(host, kernel)| host != kernel);
    let first = first.unwrap_or(host.len().min(kernel.len()));
    Some(format!(
        "events: {} on the host, {} in the kernel; the first that differ: host {:?}, kernel {:?}",
        host.len(),
        kernel.len(),
        host.get(first),
        kernel.get(first)
    ))
}
