//! A data plane in memory, with all the ways to fail.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use ipnet::IpNet;
use sip_filter_common::{abi, verdict::Reason};
use tokio::sync::mpsc;

use super::{PacketEvent, Plane, Tended};
use crate::{
    bans::{Endpoint, Target},
    config::Config,
    dataplane::{Counters, Cursor, DataplaneError, Egress, Image, ImageError, KernelBan, TableFill, XdpMode},
};

/// What a fake holds; the test keeps a handle of it.
#[derive(Default)]
pub(super) struct State {
    pub(super) bans: HashMap<Target, KernelBan>,
    pub(super) allowed: Vec<IpNet>,
    pub(super) config: Option<Config>,
    pub(super) attached: bool,
    pub(super) hits: Vec<(Target, u64)>,
    pub(super) sink: Option<mpsc::Sender<Vec<PacketEvent>>>,
    pub(super) events_lost: u64,
    pub(super) index: u32,
    pub(super) refuse_attach: bool,
    /// Packets dropped so far.
    pub(super) dropped: u64,
    /// Room for bans.
    pub(super) room: Option<usize>,
    /// Room for allowed networks.
    pub(super) room_allowed: Option<usize>,
    pub(super) refuse_config: bool,
    /// Trusted sources, and until when.
    pub(super) trust: BTreeMap<Target, Duration>,
    /// Their endpoints, and until when.
    pub(super) endpoints: BTreeMap<Endpoint, Duration>,
    /// Calls that wrote one.
    pub(super) trust_writes: usize,
    /// Room for trusted sources.
    pub(super) room_trust: Option<usize>,
    /// What was there when it was attached: bans and trusted sources.
    pub(super) at_attach: (usize, usize),
    /// Whether copies of dropped frames are asked for.
    pub(super) captures: bool,
    /// Entries read, written, visited and reported so far.
    pub(super) handled: usize,
    /// What is found around the program.
    pub(super) tended: Tended,
}

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn plane(&self) -> Box<dyn Plane> {
        self.named("fake0")
    }

    pub(super) fn named(&self, name: &str) -> Box<dyn Plane> {
        Box::new(FakePlane(self.clone(), name.to_owned()))
    }

    pub(super) fn targets(&self) -> Vec<String> {
        let mut targets: Vec<_> = self.state().bans.keys().copied().collect();
        targets.sort_unstable();
        targets.iter().map(ToString::to_string).collect()
    }
}

struct FakePlane(Fake, String);

fn full(table: &'static str, entries: usize) -> ImageError {
    ImageError::Full {
        interface: "fake0".to_owned(),
        table,
        entries,
        setting: "tables.ban4",
    }
}

impl Plane for FakePlane {
    fn name(&self) -> &str {
        &self.1
    }

    fn index(&self) -> u32 {
        self.0.state().index
    }

    fn rename(&mut self, name: &str) -> Result<(), DataplaneError> {
        name.clone_into(&mut self.1);
        Ok(())
    }

    fn add_base(&mut self, before: &Counters) {
        let index = abi::counter_index(Reason::DropBanAddress as u8, abi::Family::V4, false);
        self.0.state().dropped += before.by_reason[index];
    }

    fn xdp_mode(&self) -> Option<XdpMode> {
        self.0.state().attached.then_some(XdpMode::Generic)
    }

    fn egress(&self) -> Egress {
        Egress::Tcx
    }

    fn tend(&mut self) -> Tended {
        self.0.state().tended.clone()
    }

    fn counters(&self) -> Result<Counters, DataplaneError> {
        let mut by_reason = [0; abi::COUNTER_WORDS];
        by_reason[abi::counter_index(Reason::DropBanAddress as u8, abi::Family::V4, false)] =
            self.0.state().dropped;
        Ok(Box::new(abi::Counters {
            by_reason,
            by_class: [0; sip_filter_common::sip::Class::COUNT],
            events_lost: self.0.state().events_lost,
            events_suppressed: 0,
        }))
    }

    fn configure(&mut self, config: &Config, capture_drops: bool) -> Result<(), DataplaneError> {
        let mut state = self.0.state();
        if state.refuse_config {
            return Err(DataplaneError::Write {
                what: "configuration",
                source: io::Error::other("no"),
            });
        }
        state.config = Some(config.clone());
        state.captures = capture_drops;
        Ok(())
    }

    fn image(&mut self) -> &mut dyn Image {
        self
    }

    fn attach(&mut self) -> Result<(), DataplaneError> {
        let mut state = self.0.state();
        if state.refuse_attach {
            return Err(DataplaneError::OtherProgram {
                interface: self.1.clone(),
                program: "id 7".to_owned(),
            });
        }
        state.attached = true;
        state.at_attach = (state.bans.len(), state.trust.len());
        Ok(())
    }

    fn start_events(&mut self, sink: mpsc::Sender<Vec<PacketEvent>>) -> Result<(), DataplaneError> {
        self.0.state().sink = Some(sink);
        Ok(())
    }

    fn detach(&mut self) -> Result<(), DataplaneError> {
        self.0.state().attached = false;
        Ok(())
    }

    fn give_up(&mut self) {
        self.0.state().attached = false;
    }
}

impl Image for FakePlane {
    fn put(&mut self, target: Target, ban: KernelBan) -> Result<(), ImageError> {
        let mut state = self.0.state();
        state.handled += 1;
        let entries = state.bans.len();
        if !state.bans.contains_key(&target) && state.room.is_some_and(|room| entries >= room) {
            return Err(full("ban", entries));
        }
        state.bans.insert(target, ban);
        Ok(())
    }

    fn remove(&mut self, target: Target) -> Result<(), ImageError> {
        let mut state = self.0.state();
        state.handled += 1;
        state.bans.remove(&target);
        Ok(())
    }

    fn set_trust(&mut self, target: Target, until: Option<Duration>) -> Result<(), ImageError> {
        let mut state = self.0.state();
        let Some(until) = until else {
            state.trust.remove(&target);
            return Ok(());
        };
        let entries = state.trust.len();
        if !state.trust.contains_key(&target) && state.room_trust.is_some_and(|room| entries >= room) {
            return Err(full("trust", entries));
        }
        state.trust_writes += 1;
        state.trust.insert(target, until);
        Ok(())
    }

    fn set_endpoint(&mut self, endpoint: Endpoint, until: Option<Duration>) -> Result<(), ImageError> {
        let endpoints = &mut self.0.state().endpoints;
        match until {
            Some(until) => endpoints.insert(endpoint, until),
            None => endpoints.remove(&endpoint),
        };
        Ok(())
    }

    fn set_allowed(&mut self, networks: &[IpNet]) -> Result<(), ImageError> {
        let mut state = self.0.state();
        if state.room_allowed.is_some_and(|room| networks.len() > room) {
            return Err(full("network", state.allowed.len()));
        }
        state.allowed = networks.to_vec();
        Ok(())
    }

    fn get(&self, target: Target) -> Option<KernelBan> {
        let mut state = self.0.state();
        state.handled += 1;
        state.bans.get(&target).copied()
    }

    fn visit_exact(&self, from: Cursor, visit: &mut dyn FnMut(Target, KernelBan)) -> Option<Cursor> {
        let mut state = self.0.state();
        let mut bans: Vec<_> = state.bans.iter().map(|(target, ban)| (*target, *ban)).collect();
        bans.sort_unstable_by_key(|(target, _)| *target);
        let part = bans
            .into_iter()
            .skip(from.bucket as usize)
            .take(Cursor::PART as usize);
        let visited = part.map(|(target, ban)| visit(target, ban)).count();
        state.handled += visited;
        let next = from.behind(u32::try_from(visited).unwrap());
        (next.table == 0).then_some(next)
    }

    fn recount(&mut self) {}

    fn fill(&self) -> Vec<TableFill> {
        let state = self.0.state();
        vec![TableFill {
            name: "ban4",
            setting: "tables.ban4",
            entries: state.bans.len(),
            capacity: state.room.unwrap_or(usize::MAX),
        }]
    }

    fn take_some_hits(&mut self, report: &mut dyn FnMut(Target, u64)) -> bool {
        let mut state = self.0.state();
        let left = state.hits.len().saturating_sub(512);
        let some = state.hits.split_off(left);
        state.handled += some.len();
        for (target, packets) in some {
            report(target, packets);
        }
        left > 0
    }
}
