//! From a mismatch to as few steps as still show it.

use std::time::{Duration, Instant};

use super::{
    twins::{Mismatch, Twins},
    world::{Packet, SHORTEST_LEAVING, Start, Step},
};

/// Each try loads the program anew, so they are bounded.
const TRIES: usize = 150;
const LONGEST: Duration = Duration::from_secs(90);

/// Steps that end in a mismatch, and how they do.
pub(super) struct Case {
    pub(super) steps: Vec<Step>,
    pub(super) how: String,
}

pub(super) struct Shrink<'a> {
    start: &'a Start,
    splits: bool,
    tries: usize,
    began: Instant,
    best: Case,
}

impl<'a> Shrink<'a> {
    /// Finds the step at which it first shows and makes what leads there small.
    pub(super) fn run(start: &'a Start, splits: bool, steps: Vec<Step>, how: String) -> Case {
        let mut shrink = Self {
            start,
            splits,
            tries: 0,
            began: Instant::now(),
            best: Case { steps, how },
        };
        let all = std::mem::take(&mut shrink.best.steps);
        shrink.best.steps.clone_from(&all);
        // Compared at each step, it shows where it comes from; but that takes long, so it is done once.
        if !shrink.careful(&all) {
            return shrink.best;
        }
        shrink.without_other_packets();
        shrink.in_pieces();
        shrink.smaller_frame();
        shrink.best
    }

    fn careful(&mut self, steps: &[Step]) -> bool {
        match Twins::new(self.start, self.splits).take(steps, true) {
            Ok(()) => false,
            Err(Mismatch { step, how }) => {
                self.best = Case {
                    steps: steps[..=step].to_vec(),
                    how,
                };
                true
            }
        }
    }

    fn may_try(&self) -> bool {
        self.tries < TRIES && self.began.elapsed() < LONGEST
    }

    /// Whether these steps still end in a mismatch; if so, they are the best so far.
    fn fails(&mut self, steps: Vec<Step>) -> bool {
        if !self.may_try() {
            return false;
        }
        self.tries += 1;
        match Twins::new(self.start, self.splits).take(&steps, false) {
            Ok(()) => false,
            Err(Mismatch { step, how }) => {
                let steps = steps[..=step].to_vec();
                self.best = Case { steps, how };
                true
            }
        }
    }

    fn without_other_packets(&mut self) {
        let last = self.best.steps.len() - 1;
        let steps = self.best.steps.iter().enumerate();
        let fewer = steps
            .filter(|(index, step)| *index == last || !matches!(step, Step::Packet(_)))
            .map(|(_, step)| step.clone())
            .collect();
        self.fails(fewer);
    }

    /// Leaves out pieces, from large to small (A. Zeller, R. Hildebrandt, "Simplifying and isolating failure-inducing
    /// input", 2002).
    fn in_pieces(&mut self) {
        let mut size = self.best.steps.len() / 2;
        while size > 0 && self.may_try() {
            let mut start = 0;
            while start + size < self.best.steps.len() && self.may_try() {
                let mut fewer = self.best.steps.clone();
                fewer.drain(start..start + size);
                if !self.fails(fewer) {
                    start += size;
                }
            }
            size /= 2;
        }
    }

    fn smaller_frame(&mut self) {
        let with = |best: &Case, change: &dyn Fn(&mut Packet)| {
            let mut steps = best.steps.clone();
            if let Some(Step::Packet(packet)) = steps.last_mut() {
                change(packet);
            }
            steps
        };
        let length = match self.best.steps.last() {
            Some(Step::Packet(packet)) => packet.frame.len(),
            _ => return,
        };
        let whole = with(&self.best, &|packet| packet.linear = None);
        self.fails(whole);
        let mut cut = length / 2;
        while cut > 0 && self.may_try() {
            let shorter = with(&self.best, &|packet| {
                let length = packet.frame.len().saturating_sub(cut).max(if packet.leaves {
                    SHORTEST_LEAVING
                } else {
                    14
                });
                packet.frame.truncate(length);
            });
            if !self.fails(shorter) {
                cut /= 2;
            }
        }
    }
}
