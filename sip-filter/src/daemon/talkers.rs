//! Who sends how much, of those that were reported lately: banned or not.
//!
//! The kernel program reports requests, payload that is not SIP, and whatever exceeds a limit; what bans stop is
//! counted with the ban. Responses and keep-alives within their limits, segments of a stream and what allow-listed
//! sources send are not reported, and not counted here.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use sip_filter_common::sip::Class;

use crate::bans::Target;

/// Rates are means over this time at least and twice it at most.
const SPAN: Duration = Duration::from_secs(5);

/// Sources are kept in so many sets, chosen by a keyed hash: nobody can aim at another's.
const SETS: usize = 512;

/// Sources of one set. When a set is full, a new source takes the place of the one that sends least, so a flood of
/// addresses that send little pushes out its own.
const WAYS: usize = 8;

/// What was counted in one span.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    classes: [u32; Class::COUNT],
    limited: u32,
    banned: u32,
}

impl Counts {
    fn packets(&self) -> u64 {
        let classes: u64 = self.classes.iter().map(|count| u64::from(*count)).sum();
        classes + u64::from(self.banned)
    }
}

/// One source.
#[derive(Clone, Copy, Debug)]
struct Talker {
    target: Target,
    /// When it was first counted.
    since: Duration,
    /// Number of the current span.
    span: u64,
    now: Counts,
    before: Counts,
}

impl Talker {
    const fn new(target: Target, since: Duration) -> Self {
        const NONE: Counts = Counts {
            classes: [0; Class::COUNT],
            limited: 0,
            banned: 0,
        };
        Self {
            target,
            since,
            span: since.as_secs() / SPAN.as_secs(),
            now: NONE,
            before: NONE,
        }
    }

    fn advance(&mut self, span: u64) {
        match span.saturating_sub(self.span) {
            // An event of an earlier span, which came late, counts in the current one.
            0 => return,
            1 => self.before = self.now,
            _ => self.before = Counts::default(),
        }
        self.now = Counts::default();
        self.span = span;
    }

    fn weight(&self, span: u64) -> u64 {
        match span.saturating_sub(self.span) {
            0 => self.now.packets() + self.before.packets(),
            1 => self.now.packets(),
            _ => 0,
        }
    }
}

/// What a source sends, in packets a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Who: an address, an IPv6 prefix, or a banned network.
    pub target: Target,
    /// All that was counted.
    pub packets: f64,
    /// Of these, what was over a limit or stopped by a ban.
    pub dropped: f64,
    /// The class it sends most of; what a ban stops is not classified.
    pub class: Option<Class>,
}

/// Fixed memory, about half a megabyte.
pub struct Talkers {
    sets: Vec<[Option<Talker>; WAYS]>,
    hash: RandomState,
}

impl std::fmt::Debug for Talkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talkers").finish_non_exhaustive()
    }
}

impl Default for Talkers {
    fn default() -> Self {
        Self {
            sets: vec![[None; WAYS]; SETS],
            hash: RandomState::new(),
        }
    }
}

impl Talkers {
    /// Counts packets of a class that were reported at a boot time.
    pub fn seen(&mut self, target: Target, class: Class, packets: u32, limited: bool, now: Duration) {
        let counts = self.counts(target, now);
        let counted = &mut counts.classes[class as usize];
        *counted = counted.saturating_add(packets);
        if limited {
            counts.limited = counts.limited.saturating_add(packets);
        }
    }

    /// Counts packets a ban has stopped, as of a boot time.
    pub fn stopped(&mut self, target: Target, packets: u64, now: Duration) {
        let counts = self.counts(target, now);
        counts.banned = counts
            .banned
            .saturating_add(u32::try_from(packets).unwrap_or(u32::MAX));
    }

    fn counts(&mut self, target: Target, now: Duration) -> &mut Counts {
        let span = now.as_secs() / SPAN.as_secs();
        // The remainder fits.
        let set = &mut self.sets[(self.hash.hash_one(target) % SETS as u64) as usize];
        let known = set
            .iter()
            .position(|way| way.is_some_and(|talker| talker.target == target));
        let way = known.unwrap_or_else(|| {
            let weights = set.iter().enumerate();
            let least = weights
                .min_by_key(|(_, way)| way.map_or((0, 0), |talker| (talker.weight(span) + 1, talker.span)));
            let way = least.map_or(0, |(way, _)| way);
            set[way] = None;
            way
        });
        let talker = set[way].get_or_insert_with(|| Talker::new(target, now));
        talker.advance(span);
        &mut talker.now
    }

    /// The rates as of a boot time, the highest first, at most `limit`; who sent nothing lately is left out.
    #[must_use]
    pub fn rates(&self, limit: usize, now: Duration) -> Vec<Rate> {
        let span = now.as_secs() / SPAN.as_secs();
        let talkers = self.sets.iter().flatten().flatten();
        let mut rates: Vec<Rate> = talkers
            .filter(|talker| talker.weight(span) > 0)
            .map(|talker| {
                let mut talker = *talker;
                talker.advance(span);
                rate(&talker, now)
            })
            .collect();
        rates.sort_unstable_by(|a, b| {
            let rate = b.packets.total_cmp(&a.packets);
            rate.then_with(|| a.target.cmp(&b.target))
        });
        rates.truncate(limit);
        rates
    }
}

/// The mean over the last span in full and the part of the current one that has passed. (One that reaches back
/// exactly one span would need the times of the packets.)
fn rate(talker: &Talker, now: Duration) -> Rate {
    let start = Duration::from_secs(talker.span * SPAN.as_secs());
    let known = now.saturating_sub(talker.since).max(Duration::from_secs(1));
    let seconds = (SPAN + now.saturating_sub(start)).min(known).as_secs_f64();
    let per_second = |count: u64| count as f64 / seconds;
    let (now, before) = (&talker.now, &talker.before);
    let of_class = |class: Class| now.classes[class as usize].saturating_add(before.classes[class as usize]);
    let dropped = [now.limited, now.banned, before.limited, before.banned];
    Rate {
        target: talker.target,
        packets: per_second(now.packets() + before.packets()),
        dropped: per_second(dropped.iter().map(|count| u64::from(*count)).sum()),
        class: Class::ALL
            .into_iter()
            .filter(|class| of_class(*class) > 0)
            .max_by_key(|class| of_class(*class)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn rates_follow_what_is_sent() {
        let mut talkers = Talkers::default();
        for second in 100..110 {
            let now = at(second * 1000);
            talkers.seen(target("203.0.113.7"), Class::Register, 30, false, now);
            talkers.seen(target("203.0.113.7"), Class::Register, 10, true, now);
            talkers.seen(target("203.0.113.7"), Class::Invite, 5, false, now);
            talkers.stopped(target("2001:db8::/64"), 100, now);
        }
        let rates = talkers.rates(10, at(110_000));
        assert_eq!(rates.len(), 2);
        let [banned, limited] = rates[..] else { panic!() };
        assert_eq!(banned.target, target("2001:db8::/64"));
        assert_eq!(
            (banned.packets, banned.dropped, banned.class),
            (100.0, 100.0, None)
        );
        assert_eq!(limited.target, target("203.0.113.7"));
        assert_eq!(
            (limited.packets, limited.dropped, limited.class),
            (45.0, 10.0, Some(Class::Register))
        );
        assert_eq!(talkers.rates(1, at(110_000)), [banned]);

        // Silence shows within two spans.
        assert!(talkers.rates(10, at(114_000))[0].packets < 60.0);
        assert!(talkers.rates(10, at(115_000)).is_empty());
    }

    #[test]
    fn who_has_just_begun_has_its_rate_at_once() {
        let mut talkers = Talkers::default();
        for n in 0..200 {
            talkers.seen(
                target("203.0.113.7"),
                Class::Invite,
                5,
                false,
                at(52_000 + 10 * n),
            );
        }
        assert_eq!(talkers.rates(1, at(54_000))[0].packets, 500.0);
        // Less than a second is taken for one: a single packet is no flood.
        talkers.seen(target("203.0.113.8"), Class::Invite, 1, false, at(53_999));
        assert_eq!(talkers.rates(2, at(54_000))[1].packets, 1.0);
    }

    #[test]
    fn a_flood_of_addresses_does_not_push_out_who_sends_more() {
        let mut talkers = Talkers::default();
        let loud: Vec<Target> = (0..50).map(|n| target(&format!("198.51.100.{n}"))).collect();
        for round in 0..10_u32 {
            let now = at(1_000 * u64::from(round));
            for source in &loud {
                talkers.seen(*source, Class::Options, 20, false, now);
            }
            for n in 0..20_000_u32 {
                let forged = std::net::Ipv4Addr::from(0x0b00_0000 + round * 20_000 + n);
                talkers.seen(Target::address(forged.into()), Class::Register, 1, false, now);
            }
        }
        let rates = talkers.rates(50, at(10_000));
        let mut found: Vec<Target> = rates.iter().map(|rate| rate.target).collect();
        found.sort_unstable();
        assert_eq!(found, loud);
        assert!(
            rates.iter().all(|rate| (rate.packets - 20.0).abs() < 0.01),
            "{rates:?}"
        );
        assert_eq!(talkers.rates(usize::MAX, at(10_000)).len(), SETS * WAYS);
    }
}
