//! Random worlds for host and kernel: packets built from parts that may be wrong, tables that change, a clock that goes
//! on. After each batch verdicts, counters, events and tables must be the same.
//!
//! `cargo xtask fuzz` runs this for longer. A world depends on the seed and its number only, so that what was found is
//! found again.

mod packets;
mod payloads;
mod random;
mod shrink;
mod twins;
mod world;

use std::{
    fmt::Write as _,
    str::FromStr,
    time::{Duration, Instant},
};

pub(crate) use payloads::torture;
pub(crate) use twins::Twins;
pub(crate) use world::{Packet, Ports, Start, Step};

use payloads::Corpus;
use shrink::{Case, Shrink};
use sip_filter::dataplane::{Counters, no_counters};
use sip_filter_common::{
    abi::{Family, counter_index},
    verdict::Reason,
};
use twins::Mismatch;
use world::World;

use crate::kernel_or_skip;

/// Packets between two comparisons of everything.
const BATCH: usize = 250;
/// Packets of a world; then the program is loaded anew.
const WORLD: u64 = 25_000;
/// From so many packets on, every reason must have been reached.
const ENOUGH: u64 = 100_000;

/// What was asked for, in the environment: `cargo xtask fuzz` sets it.
struct Options {
    packets: u64,
    seconds: Option<u64>,
    seed: u64,
    /// Run this world only.
    world: Option<u64>,
}

impl Options {
    fn from_environment() -> Self {
        Self {
            packets: variable("PACKETS").unwrap_or(ENOUGH),
            seconds: variable("SECONDS"),
            seed: variable("SEED").unwrap_or(1),
            world: variable("WORLD"),
        }
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let name = format!("SIP_FILTER_FUZZ_{name}");
    let value = std::env::var(&name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
    )
}

/// What a run amounted to.
struct Tally {
    packets: u64,
    leaving: u64,
    split: u64,
    changes: u64,
    worlds: u64,
    counters: Counters,
    events: [u64; 5],
}

impl Tally {
    fn new() -> Self {
        Self {
            packets: 0,
            leaving: 0,
            split: 0,
            changes: 0,
            worlds: 0,
            counters: no_counters(),
            events: [0; 5],
        }
    }

    fn add_steps(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Packet(packet) => {
                    self.packets += 1;
                    self.leaving += u64::from(packet.leaves);
                    self.split += u64::from(packet.linear.is_some());
                }
                _ => self.changes += 1,
            }
        }
    }

    fn add_world(&mut self, twins: &Twins) {
        self.worlds += 1;
        for (sum, count) in self
            .counters
            .by_reason
            .iter_mut()
            .zip(&twins.counters().by_reason)
        {
            *sum += count;
        }
        for (sum, count) in self.events.iter_mut().zip(twins.events) {
            *sum += count;
        }
    }

    /// Packets of a reason, enforced and simulated, by family.
    fn of(&self, reason: Reason) -> [[u64; 2]; Family::COUNT] {
        Family::ALL.map(|family| {
            [false, true]
                .map(|simulated| self.counters.by_reason[counter_index(reason as u8, family, simulated)])
        })
    }

    fn table(&self, took: Duration) -> String {
        let mut text = format!(
            "{} packets in {:.1} s, {:.0} a second; {} worlds, {} changes of tables and settings; {} packets left the \
             server, {} came in several buffers\n",
            self.packets,
            took.as_secs_f64(),
            self.packets as f64 / took.as_secs_f64(),
            self.worlds,
            self.changes,
            self.leaving,
            self.split,
        );
        let [stray, snapshot, over, response, dropped] = self.events;
        let _ = writeln!(
            text,
            "events: {snapshot} snapshots, {over} over a limit, {response} responses, {dropped} copies; {stray} of strays"
        );
        let _ = writeln!(
            text,
            "{:24} {:>12} {:>12} {:>12} {:>12}",
            "reason", "other", "IPv4", "IPv6", "simulated"
        );
        for reason in Reason::ALL {
            let [other, v4, v6] = self.of(*reason);
            let simulated = other[1] + v4[1] + v6[1];
            let _ = writeln!(
                text,
                "{:24} {:>12} {:>12} {:>12} {:>12}",
                reason.name(),
                other[0],
                v4[0],
                v6[0],
                simulated
            );
        }
        text
    }

    /// Reasons that no packet reached, though one can.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for reason in Reason::ALL {
            let [other, v4, v6] = self.of(*reason);
            let expected: &[(&str, u64)] = match reason {
                // Tables of fixed size: no packet makes a look-up fail.
                Reason::PassMapError => &[],
                Reason::PassNotIp => &[("", other[0])],
                _ if *reason as u8 >= Reason::FIRST_DROP => &[
                    (" over IPv4", v4[0]),
                    (" over IPv6", v6[0]),
                    (" simulated", v4[1] + v6[1]),
                ],
                _ => &[(" over IPv4", v4[0] + other[0]), (" over IPv6", v6[0] + other[0])],
            };
            let none = expected.iter().filter(|(_, count)| *count == 0);
            missing.extend(none.map(|(how, _)| format!("{}{how}", reason.name())));
        }
        for (kind, count) in ["stray", "snapshot", "over-limit", "response", "copy"]
            .iter()
            .zip(self.events)
        {
            if count == 0 {
                missing.push(format!("events: {kind}"));
            }
        }
        missing
    }
}

#[test]
fn host_and_kernel_decide_alike() {
    if !kernel_or_skip("host_and_kernel_decide_alike") {
        return;
    }
    crate::pair::stay_on_this_cpu();
    let options = Options::from_environment();
    let corpus = Corpus::new();
    let splits = Twins::kernel_splits(&World::new(0, 0).start);
    println!("seed {}, frames in several buffers: {splits}", options.seed);
    let (mut tally, began, mut told) = (Tally::new(), Instant::now(), Instant::now());
    let worlds = options.world.map_or(0..=u64::MAX, |world| world..=world);
    for number in worlds {
        let is_over = match options.seconds {
            _ if options.world.is_some() => false,
            Some(seconds) => began.elapsed() >= Duration::from_secs(seconds),
            None => tally.packets >= options.packets,
        };
        if is_over {
            break;
        }
        run_world((options.seed, number), splits, &corpus, &mut tally);
        if told.elapsed() > Duration::from_secs(60) {
            println!("world {number}, {} packets", tally.packets);
            told = Instant::now();
        }
    }
    println!("{}", tally.table(began.elapsed()));
    if tally.packets >= ENOUGH {
        assert_eq!(tally.missing(), [""; 0], "never reached");
    }
}

fn run_world((seed, number): (u64, u64), splits: bool, corpus: &Corpus, tally: &mut Tally) {
    let mut world = World::new(seed, number);
    let start = world.start.clone();
    let mut twins = Twins::new(&start, splits);
    for batch in 0..WORLD as usize / BATCH {
        let steps = world.batch(corpus, BATCH);
        if let Err(Mismatch { how, .. }) = twins.take(&steps, false) {
            // The same steps again, from the beginning.
            let mut again = World::new(seed, number);
            let steps = (0..=batch).flat_map(|_| again.batch(corpus, BATCH)).collect();
            println!("mismatch in world {number}: {how}");
            let case = Shrink::run(&start, splits, steps, how);
            panic!("{}", describe((seed, number), &start, &case));
        }
        tally.add_steps(&steps);
    }
    tally.add_world(&twins);
}

/// All that is needed to see it again.
fn describe((seed, number): (u64, u64), start: &Start, case: &Case) -> String {
    let mut text = format!(
        "host and kernel differ: {}\nagain: cargo xtask fuzz --seed {seed} --world {number}\nsizes {:?}\nconfig {:?}\nports {:?}\n\
         {} steps lead there:\n",
        case.how,
        start.sizes,
        start.config,
        start.ports,
        case.steps.len()
    );
    let from = case.steps.len().saturating_sub(200);
    for step in &case.steps[from..] {
        let _ = match step {
            Step::Packet(packet) => writeln!(
                text,
                "{} at {}, linear {:?}: {}",
                if packet.leaves { "leaves" } else { "arrives" },
                packet.now,
                packet.linear,
                packet
                    .frame
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            ),
            other => writeln!(text, "{other:?}"),
        };
    }
    text
}
