//! From events of the kernel program to bans: a thread of its own, so that neither the API nor the disk delays it.

use std::{
    sync::{PoisonError, mpsc as std_mpsc},
    time::{Duration, SystemTime},
};

use sip_filter_common::abi::EventKind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ControlHandle, PacketEvent};
use crate::{
    bans::{Clock, Target},
    detect::{Conclusion, DetectConfig, Observation, Proof},
};

/// What the daemon needs of the detection engine.
pub trait Detector: Send {
    /// Takes note of what was seen, and appends what follows from it.
    fn observe(&mut self, observation: &Observation<'_>, conclusions: &mut Vec<Conclusion>);

    /// States what the wall clock shows at a boot time.
    fn set_wall(&mut self, time: Duration, wall: SystemTime);

    /// Puts back the memory of earlier bans.
    fn restore_offences(&mut self, target: Target, count: u32, ended: SystemTime);

    /// Puts back a registration, which ends at a boot time.
    fn restore_trust(&mut self, target: Target, account: &str, until: Duration);

    /// Puts back a proof, which is believed until a boot time.
    fn restore_proof(&mut self, target: Target, by: Proof, until: Duration);

    /// Forgets a target an operator let go.
    fn forget(&mut self, target: Target);

    /// A ban that was decided is not in force, for want of room: without being told, the engine would take the target for
    /// banned as long as the ban was to be.
    fn not_enforced(&mut self, target: Target, now: SystemTime);

    /// Ends the trust in a target, until it registers again.
    fn distrust(&mut self, target: Target);

    /// Puts new settings in force.
    fn reload(&mut self, config: DetectConfig);
}

/// What others have to tell the engine.
#[derive(Debug)]
pub(super) enum Instruction {
    /// An operator let these go.
    Forget(Vec<Target>),
    /// These are not to be trusted any more.
    Distrust(Vec<Target>),
    /// New settings.
    Reload(Box<DetectConfig>),
}

/// Requests that passed are compared with the ban list: some, and so often, that a flood costs nothing more.
const LOOK_AT: usize = 32;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Feeds the engine and carries out what it decides, until `shutdown` or until all senders are gone.
pub(super) async fn watch(
    handle: ControlHandle,
    mut detector: Box<dyn Detector>,
    mut events: mpsc::Receiver<Vec<PacketEvent>>,
    instructions: std_mpsc::Receiver<Instruction>,
    prefix6: u8,
    shutdown: CancellationToken,
) {
    let mut conclusions = Vec::new();
    let mut looked = Duration::ZERO;
    loop {
        let batch = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            batch = events.recv() => match batch {
                Some(batch) => batch,
                None => break,
            },
        };
        // They concern what is yet to be observed, so before a batch is early enough.
        for instruction in instructions.try_iter() {
            match instruction {
                Instruction::Forget(targets) => {
                    targets.into_iter().for_each(|target| detector.forget(target))
                }
                Instruction::Distrust(targets) => {
                    targets.into_iter().for_each(|target| detector.distrust(target))
                }
                Instruction::Reload(config) => detector.reload(*config),
            }
        }
        let clock = Clock::now();
        detector.set_wall(clock.boot, clock.wall);
        let mut floods = Vec::new();
        note_talkers(&handle, &batch, prefix6);
        let mut passed = Vec::new();
        let look = clock.boot.saturating_sub(looked) >= LOOK_EVERY;
        for event in &batch {
            if handle.drops.take(event, clock) {
                continue;
            }
            let Some(observation) = observation(event) else {
                continue;
            };
            if observation.kind == EventKind::OverLimit {
                let target = Target::of_source(observation.source, prefix6);
                floods.push((target, observation.class, event.header.dropped != 0));
            }
            if look && observation.kind == EventKind::Snapshot && passed.len() < LOOK_AT {
                passed.push((observation.source, observation.time));
            }
            detector.observe(&observation, &mut conclusions);
            // At once: the packets behind this one are to be dropped by the kernel, not to be looked at here.
            if !conclusions.is_empty() {
                let (distrusted, unenforced) = handle.with(|controller, clock| {
                    for conclusion in conclusions.drain(..) {
                        controller.conclude(conclusion, clock);
                    }
                    (controller.take_distrusted(), controller.take_unenforced())
                });
                distrusted
                    .into_iter()
                    .for_each(|target| detector.distrust(target));
                unenforced
                    .into_iter()
                    .for_each(|target| detector.not_enforced(target, clock.wall));
            }
        }
        if !passed.is_empty() {
            looked = clock.boot;
            handle.with(|controller, clock| controller.suspect(&passed, clock));
        }
        if !floods.is_empty() {
            handle.with(|controller, clock| {
                for (target, class, dropped) in floods {
                    controller.note_flood(target, class, dropped, clock);
                }
            });
        }
    }
}

/// Counts who sends what: under a lock that is taken once for a batch.
fn note_talkers(handle: &ControlHandle, batch: &[PacketEvent], prefix6: u8) {
    let mut talkers = handle.talkers.lock().unwrap_or_else(PoisonError::into_inner);
    for observation in batch.iter().filter_map(observation) {
        let limited = match observation.kind {
            EventKind::Snapshot => false,
            EventKind::OverLimit => true,
            EventKind::Response | EventKind::Dropped => continue,
        };
        talkers.seen(
            Target::of_source(observation.source, prefix6),
            observation.class,
            observation.count,
            limited,
            observation.time,
        );
    }
}

/// An event as the engine sees it; `None` if it is of a kind or class of another version.
pub(super) fn observation(event: &PacketEvent) -> Option<Observation<'_>> {
    Observation::from_event(&event.header, &event.payload)
}
