//! Who has shown that its address is its own, and who is registered.

use std::time::Duration;

use super::{DetectConfig, Proof, bounded::Bounded};
use crate::bans::Target;

/// Accounts registered from one source that are remembered; beyond that, the one that ends first gives way.
const ACCOUNTS: usize = 1024;

/// Proofs and registrations. Both take something only the owner of an address can do, so no flood of forged packets
/// gets in here.
#[derive(Debug)]
pub(super) struct Standings {
    proofs: Bounded<Target, Proved>,
    trust: Bounded<Target, Vec<Registration>>,
}

#[derive(Clone, Copy, Debug)]
struct Proved {
    by: Proof,
    since: Duration,
    until: Duration,
    /// When the server last accepted credentials of this source.
    success: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Registration {
    account: u64,
    since: Duration,
    until: Duration,
}

impl Proved {
    fn holds(&self, now: Duration) -> bool {
        within(self.since, self.until, now)
    }
}

/// Whether a span holds `now`. A time before the span by more than its length means that the clock was set back.
fn within(since: Duration, until: Duration, now: Duration) -> bool {
    now < until && since.saturating_sub(now) <= until.saturating_sub(since)
}

impl Standings {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            proofs: Bounded::new(capacity),
            trust: Bounded::new(capacity),
        }
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.proofs.set_capacity(capacity, |_| false);
        self.trust.set_capacity(capacity, |_| false);
    }

    /// Sources proven, sources trusted; ended ones may be among them.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.proofs.len(), self.trust.len())
    }

    pub(super) fn proof(&self, target: Target, now: Duration) -> Option<Proof> {
        let proved = self.proofs.get(&target)?;
        proved.holds(now).then_some(proved.by)
    }

    /// Until when the source is trusted, if it is.
    pub(super) fn trusted_until(&self, target: Target, now: Duration) -> Option<Duration> {
        let registrations = self.trust.get(&target)?;
        let live = registrations
            .iter()
            .filter(|one| within(one.since, one.until, now));
        live.map(|one| one.until).max()
    }

    /// Accounts registered from the source.
    pub(super) fn accounts(&self, target: Target, now: Duration) -> usize {
        let count = |list: &Vec<Registration>| {
            list.iter()
                .filter(|one| within(one.since, one.until, now))
                .count()
        };
        self.trust.get(&target).map_or(0, count)
    }

    /// Whether the server accepted credentials of the source within the time before `now`.
    pub(super) fn succeeded(&self, target: Target, now: Duration, within: Duration) -> bool {
        let proved = self.proofs.get(&target);
        proved
            .and_then(|proved| proved.success)
            .is_some_and(|at| at.abs_diff(now) < within)
    }

    /// Notes a proof; until when it is believed, if that is worth telling.
    pub(super) fn prove(
        &mut self,
        target: Target,
        by: Proof,
        now: Duration,
        config: &DetectConfig,
    ) -> Option<Duration> {
        let until = now.saturating_add(config.proof_lifetime);
        let known = self.proofs.get(&target).filter(|known| known.holds(now));
        let rank = |proof| match proof {
            Proof::Nonce => 0,
            Proof::Tcp => 1,
            Proof::Registration => 2,
        };
        if let Some(known) = known {
            let fresh = known.until.saturating_sub(now) > config.proof_lifetime / 2;
            if rank(by) < rank(known.by) || by == known.by && fresh {
                return None;
            }
        }
        self.put_proof(target, by, now, until);
        Some(until)
    }

    pub(super) fn put_proof(&mut self, target: Target, by: Proof, since: Duration, until: Duration) {
        let proved = self.proofs.touch(
            target,
            |old| !old.holds(since),
            || Proved {
                by,
                since,
                until,
                success: None,
            },
        );
        (proved.by, proved.since, proved.until) = (by, since, until);
        // Whoever proved it more than once is not a passer-by.
        if by != Proof::Nonce {
            self.proofs.protect(&target);
        }
    }

    /// Notes that credentials were accepted.
    pub(super) fn note_success(&mut self, target: Target, now: Duration) {
        if let Some(proved) = self.proofs.get_mut(&target) {
            proved.success = Some(now);
            self.proofs.protect(&target);
        }
    }

    pub(super) fn register(&mut self, target: Target, account: u64, now: Duration, until: Duration) {
        let dead = |list: &Vec<Registration>| list.iter().all(|one| !within(one.since, one.until, now));
        let list = self.trust.touch(target, dead, Vec::new);
        list.retain(|one| one.account != account && within(one.since, one.until, now));
        if list.len() >= ACCOUNTS
            && let Some(first) = (0..list.len()).min_by_key(|index| list[*index].until)
        {
            list.swap_remove(first);
        }
        list.push(Registration {
            account,
            since: now,
            until,
        });
        self.trust.protect(&target);
    }

    /// Ends a registration; whether it was the last of its source.
    pub(super) fn unregister(&mut self, target: Target, account: u64, now: Duration) -> bool {
        let Some(list) = self.trust.get_mut(&target) else {
            return false;
        };
        list.retain(|one| one.account != account && within(one.since, one.until, now));
        let last = list.is_empty();
        if last {
            self.trust.remove(&target);
        }
        last
    }

    /// Whether a trusted source lies in `network`.
    pub(super) fn trusted_within(&self, network: Target, now: Duration) -> bool {
        let live = |list: &Vec<Registration>| list.iter().any(|one| within(one.since, one.until, now));
        self.trust
            .iter()
            .any(|(target, list)| network.contains(target.net().addr()) && live(list))
    }

    /// Ends all registrations of a source.
    pub(super) fn distrust(&mut self, target: Target) {
        self.trust.remove(&target);
        if let Some(proved) = self.proofs.get_mut(&target) {
            proved.success = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn the_last_registration_decides() {
        let target = "192.0.2.1".parse().unwrap();
        let mut standings = Standings::new(10);
        standings.register(target, 1, at(0), at(60));
        standings.register(target, 2, at(0), at(100));
        assert_eq!(standings.trusted_until(target, at(1)), Some(at(100)));
        assert_eq!(standings.accounts(target, at(99)), 1);
        assert!(!standings.unregister(target, 1, at(1)));
        assert!(standings.unregister(target, 2, at(1)));
        assert_eq!(standings.trusted_until(target, at(1)), None);
        standings.register(target, 2, at(0), at(100));
        assert_eq!(standings.trusted_until(target, at(100)), None);
        assert!(standings.trusted_within("192.0.2.0/24".parse().unwrap(), at(99)));
        assert!(!standings.trusted_within("192.0.3.0/24".parse().unwrap(), at(99)));
        // A clock set back by far does not prolong it.
        assert_eq!(standings.trusted_until(target, Duration::from_secs(1)), None);
        for account in 0..3_000 {
            standings.register(target, account, at(0), at(100 + account));
        }
        assert_eq!(standings.accounts(target, at(0)), ACCOUNTS);
    }

    #[test]
    fn a_proof_is_told_when_it_is_new_better_or_half_over() {
        let (target, config) = ("192.0.2.1".parse().unwrap(), DetectConfig::default());
        let mut standings = Standings::new(10);
        let mut prove = |by, seconds| standings.prove(target, by, at(seconds), &config).is_some();
        assert!(prove(Proof::Nonce, 0));
        assert!(!prove(Proof::Nonce, 1));
        assert!(prove(Proof::Registration, 2));
        assert!(!prove(Proof::Nonce, 3) && !prove(Proof::Registration, 4));
        assert!(prove(Proof::Registration, 2 + 12 * 3600));
        assert_eq!(standings.proof(target, at(36 * 3600)), Some(Proof::Registration));
        assert_eq!(standings.proof(target, at(36 * 3600 + 2)), None);
    }
}
