//! Looks each second at what may be wrong, and keeps the set of [conditions](crate::conditions) as it is.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use sip_filter_common::{
    abi::{Counters, Family, counter_index},
    verdict::{Action, Reason},
};

use super::{
    controller::Controller,
    journal::{JournalEvent, JournalKind},
    plane::{Plane, Tended},
};
use crate::{
    bans::{Clock, Origin},
    conditions::{Change, Conditions, Kind},
    config::Config,
    dataplane::{AttachMode, Egress, XdpMode},
    units,
};

/// Time over which the rate of dropped packets is measured.
const RATE_OVER: Duration = Duration::from_secs(10);

/// A flood is over when it was below the rate for so long.
const FLOOD_HOLD: Duration = Duration::from_secs(60);

/// Losses of events are over when there was none for so long.
const LOSS_HOLD: Duration = Duration::from_secs(60);

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// Boot time and packets dropped so far, oldest first, over [`RATE_OVER`].
    dropped: VecDeque<(Duration, u64)>,
    /// Boot time and bans made by rules so far, oldest first, over `conditions.mass_ban_window`.
    banned: VecDeque<(Duration, u64)>,
    /// Boot time since which the filter simulates.
    simulating: Option<Duration>,
    /// Events lost so far, by interface.
    lost: HashMap<String, u64>,
}

impl Judge {
    /// Raises what was lost since the last look. What earlier runs lost, they have told.
    fn note_lost(&mut self, conditions: &Conditions, interface: &str, lost: u64, now: Duration) {
        let before = self.lost.insert(interface.to_owned(), lost).unwrap_or(lost);
        if lost <= before {
            return;
        }
        let text = format!(
            "detection does not keep up on {interface}: {} events were lost within a moment",
            lost - before
        );
        conditions.raise_until(Kind::EventsLost, interface, text, now + LOSS_HOLD);
    }
}

impl Controller {
    /// Brings the conditions up to date with what can be seen from here.
    pub fn judge(&mut self, clock: Clock) {
        let conditions = self.conditions.clone();
        let failing = |why| format!("what is in force cannot be saved and would not survive a reboot: {why}");
        conditions.set(Kind::StoreFailing, "", self.unsaved().map(failing));
        let mut dropped = 0;
        for plane in &mut self.planes {
            judge_plane(&conditions, plane.as_mut(), &self.config);
            if let Ok(counters) = plane.counters() {
                dropped += stopped(&counters);
                self.judge
                    .note_lost(&conditions, plane.name(), counters.events_lost, clock.boot);
            }
        }
        let of = |subject: &str| subject.split('/').next().unwrap_or_default().to_owned();
        let names: Vec<String> = self.planes.iter().map(|plane| plane.name().to_owned()).collect();
        for kind in [
            Kind::GenericMode,
            Kind::AnswersUnseen,
            Kind::MapNearlyFull,
            Kind::Drift,
            Kind::BannedSourcePasses,
            Kind::NotPinned,
            Kind::EventsLost,
        ] {
            conditions.retain(kind, |subject| subject.is_empty() || names.contains(&of(subject)));
        }
        self.judge_flood(dropped, clock);
        self.judge_bans(clock);
        self.judge_mode(clock);
        conditions.sweep(clock.boot);
        self.note_changes(clock);
    }

    /// Writes down what became wrong or right.
    fn note_changes(&mut self, clock: Clock) {
        use tokio::sync::broadcast::error::TryRecvError;
        loop {
            let (kind, condition, state) = match self.changes.try_recv() {
                Ok(Change::Raised(condition)) => (JournalKind::ConditionRaised, condition, ""),
                Ok(Change::Cleared(condition)) => (JournalKind::ConditionCleared, condition, "over: "),
                Err(TryRecvError::Lagged(_)) => continue,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            };
            let message = format!("{}: {state}{}", condition.name.name(), condition.text);
            // It has a line of log already.
            self.journal
                .record_silently(JournalEvent::new(clock.wall, kind, message));
        }
    }

    fn judge_flood(&mut self, dropped: u64, clock: Clock) {
        let limit = self.config.conditions.flood_rate;
        let Some((rate, seconds)) = window(&mut self.judge.dropped, RATE_OVER, dropped, clock.boot)
            .filter(|(_, seconds)| *seconds > 0.0)
            .map(|(packets, seconds)| (packets as f64 / seconds, seconds))
        else {
            return;
        };
        // A burst is no flood: the window must be there.
        if limit > 0 && seconds >= RATE_OVER.as_secs_f64() * 0.9 && rate >= f64::from(limit) {
            let verb = if self.config.simulate {
                "would be dropped (simulate mode)"
            } else {
                "are dropped"
            };
            self.conditions.raise_until(
                Kind::FloodOngoing,
                "",
                format!("{rate:.0} packets a second {verb}"),
                clock.boot + FLOOD_HOLD,
            );
        }
    }

    fn judge_bans(&mut self, clock: Clock) {
        let settings = &self.config.conditions;
        let (limit, over) = (u64::from(settings.mass_ban), settings.mass_ban_window);
        let by_rules = self.totals.added.iter();
        let by_rules = by_rules.filter(|((origin, _), _)| *origin == Origin::Detector);
        let banned = by_rules.map(|(_, count)| *count).sum();
        let Some((new, _)) = window(&mut self.judge.banned, over, banned, clock.boot) else {
            return;
        };
        let over = units::format_duration(over);
        let text = || format!("rules have banned {new} sources within {over}: a rule may be wrong");
        self.conditions
            .set(Kind::MassBan, "", (limit > 0 && new >= limit).then(text));
    }

    fn judge_mode(&mut self, clock: Clock) {
        let limit = self.config.conditions.simulate_max;
        let since = &mut self.judge.simulating;
        if self.config.simulate {
            since.get_or_insert(clock.boot);
        } else {
            *since = None;
        }
        let since = since.map(|since| clock.boot.saturating_sub(since));
        let too_long = since.filter(|since| !limit.is_zero() && *since >= limit);
        let text = |since: Duration| {
            let since = units::format_duration(Duration::from_secs(since.as_secs()));
            format!("nothing has been dropped for {since}: the filter simulates")
        };
        self.conditions.set(Kind::SimulateTooLong, "", too_long.map(text));
    }
}

fn judge_plane(conditions: &Conditions, plane: &mut dyn Plane, config: &Config) {
    let name = plane.name().to_owned();
    let mode = plane.xdp_mode();
    let generic = mode == Some(XdpMode::Generic) && config.xdp_mode != AttachMode::Generic;
    let text = format!("the filter runs on {name} in generic mode, which works but is slower");
    conditions.set(Kind::GenericMode, &name, generic.then_some(text));
    let Tended { answers, unpinned } = plane.tend();
    let unseen = match plane.egress() {
        Egress::None(why) if mode.is_some() => Some(format!("answers that leave {name} are not seen: {why}")),
        _ => answers,
    };
    let unpinned = unpinned.map(|why| format!("the filter on {name} would end with the daemon: {why}"));
    conditions.set(Kind::NotPinned, &name, unpinned);
    conditions.set(Kind::AnswersUnseen, &name, unseen);
    let percent = config.conditions.table_full_percent as usize;
    for table in plane.image().fill() {
        let limit = table.capacity.saturating_mul(percent) / 100;
        let text = || {
            format!(
                "table {} of {name} holds {} of {} entries; its setting is `{}`",
                table.name, table.entries, table.capacity, table.setting
            )
        };
        let subject = format!("{name}/{}", table.name);
        conditions.set(Kind::MapNearlyFull, &subject, (table.entries > limit).then(text));
    }
}

/// Notes a count and tells how much it has grown within the time, and in how many seconds. `None` at first, and when it
/// has been set back.
fn window(
    seen: &mut VecDeque<(Duration, u64)>,
    over: Duration,
    count: u64,
    now: Duration,
) -> Option<(u64, f64)> {
    if seen.back().is_some_and(|(_, before)| count < *before) {
        seen.clear();
    }
    // One a second at most, whatever the window, and of a long one not every second.
    let step = (over / 100).max(Duration::from_millis(900));
    let due = |(then, _): &(Duration, u64)| now.saturating_sub(*then) >= step;
    while seen.len() > 1
        && seen
            .get(1)
            .is_some_and(|(then, _)| now.saturating_sub(*then) >= over)
    {
        seen.pop_front();
    }
    let grown = seen
        .front()
        .map(|(then, before)| (count - before, now.saturating_sub(*then).as_secs_f64()));
    if seen.back().is_none_or(due) {
        seen.push_back((now, count));
    }
    grown
}

/// Packets that were dropped, or would have been.
fn stopped(counters: &Counters) -> u64 {
    let drops = Reason::ALL
        .iter()
        .filter(|reason| reason.action() == Action::Drop);
    let packets = |reason: &Reason| -> u64 {
        let of = |family, simulated| counters.by_reason[counter_index(*reason as u8, family, simulated)];
        Family::ALL
            .map(|family| of(family, false) + of(family, true))
            .iter()
            .sum()
    };
    drops.map(packets).sum()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
