//! Rules by example, and the whole list against a model that has no index of any kind.

use proptest::prelude::*;

use super::*;

const START: Clock = Clock {
    wall: SystemTime::UNIX_EPOCH,
    boot: Duration::from_secs(1_000),
};

fn clock(seconds: u64) -> Clock {
    Clock {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        ..START
    }
    .after(Duration::from_secs(seconds))
}

fn ban(target: &str, origin: Origin, seconds: Option<u64>) -> NewBan {
    NewBan {
        target: target.parse().unwrap(),
        rule: (origin == Origin::Detector).then_some(Rule::FloodInvite),
        origin,
        reason: "because".to_owned(),
        scope: Scope::Sip,
        lifetime: seconds.map(Duration::from_secs),
        created: None,
        evidence: None,
    }
}

fn remaining(list: &BanList, target: &str, now: Clock) -> Option<u64> {
    let deadline = list.get(target.parse().unwrap()).unwrap().deadline?;
    Some(deadline.checked_sub(now.boot).unwrap().as_secs())
}

#[test]
fn a_hand_ban_replaces_an_automatic_one() {
    let mut list = BanList::default();
    list.ban(ban("192.0.2.1", Origin::Detector, Some(600)), clock(0));
    list.add_hits("192.0.2.1".parse().unwrap(), 7, clock(1));
    let (outcome, change) = list.ban(ban("192.0.2.1", Origin::Manual, Some(60)), clock(10));
    assert_eq!(outcome, Outcome::Replaced);
    assert_eq!(remaining(&list, "192.0.2.1", clock(10)), Some(60));
    let entry = change.unwrap().after.unwrap();
    assert_eq!((entry.ban.rule, entry.ban.hits), (None, 0));
    let past: Vec<_> = list.history().of("192.0.2.1".parse().unwrap()).collect();
    assert_eq!(past.len(), 1);
    assert_eq!(
        (past[0].ended_by, &past[0].origin, past[0].ended),
        (EndedBy::Replaced, &Origin::Detector, clock(10).wall)
    );
}

#[test]
fn an_automatic_ban_never_shortens_a_hand_ban_but_may_lengthen_it() {
    let mut list = BanList::default();
    list.ban(ban("192.0.2.1", Origin::Manual, Some(600)), clock(0));
    let (outcome, change) = list.ban(ban("192.0.2.1", Origin::Detector, Some(300)), clock(0));
    assert_eq!((outcome, change), (Outcome::Unchanged, None));
    let (outcome, change) = list.ban(ban("192.0.2.1", Origin::Detector, Some(900)), clock(0));
    assert_eq!(outcome, Outcome::Extended);
    let entry = change.unwrap().after.unwrap();
    assert_eq!(entry.ban.origin, Origin::Manual);
    assert_eq!(remaining(&list, "192.0.2.1", clock(0)), Some(900));

    // The same end again is no change: nothing to write, nothing to report.
    list.ban(ban("192.0.2.3", Origin::Detector, Some(900)), clock(0));
    let mut again = ban("192.0.2.3", Origin::Detector, Some(900));
    again.reason = "another".to_owned();
    assert_eq!(list.ban(again, clock(0)), (Outcome::Unchanged, None));

    list.ban(ban("192.0.2.2", Origin::Manual, None), clock(0));
    for origin in [Origin::Detector, Origin::Import] {
        let (outcome, _) = list.ban(ban("192.0.2.2", origin, Some(900)), clock(0));
        assert_eq!(outcome, Outcome::Unchanged);
    }
}

#[test]
fn a_ban_made_longer_keeps_its_start_and_its_hits() {
    let mut list = BanList::default();
    for origin in [Origin::Detector, Origin::Manual] {
        let target = if origin == Origin::Manual {
            "192.0.2.1"
        } else {
            "192.0.2.2"
        };
        list.ban(ban(target, origin.clone(), Some(60)), clock(0));
        list.add_hits(target.parse().unwrap(), 7, clock(1));
        list.ban(ban(target, origin, Some(600)), clock(30));
        let entry = list.get(target.parse().unwrap()).unwrap();
        assert_eq!((entry.ban.created, entry.ban.hits), (clock(0).wall, 7));
        assert_eq!(remaining(&list, target, clock(30)), Some(600));
        assert_eq!(list.history().of(target.parse().unwrap()).count(), 0);
    }
}

#[test]
fn an_operator_may_shorten_his_ban_and_repeating_changes_nothing() {
    let mut list = BanList::default();
    list.ban(ban("192.0.2.1", Origin::Manual, None), clock(0));
    let (outcome, change) = list.ban(ban("192.0.2.1", Origin::Manual, None), clock(5));
    assert_eq!((outcome, change), (Outcome::Unchanged, None));
    let (outcome, _) = list.ban(ban("192.0.2.1", Origin::Manual, Some(60)), clock(5));
    assert_eq!(outcome, Outcome::Replaced);
    assert_eq!(remaining(&list, "192.0.2.1", clock(5)), Some(60));
}

#[test]
fn stepping_the_wall_clock_moves_the_shown_end_and_not_the_ban() {
    let mut list = BanList::default();
    list.ban(ban("192.0.2.1", Origin::Manual, Some(600)), clock(0));
    let mut stepped = clock(100);
    stepped.wall += Duration::from_secs(86_400);
    assert!(list.expire(stepped).is_empty());
    let shown = list.get("192.0.2.1".parse().unwrap()).unwrap().at(stepped);
    assert_eq!(
        shown.expires.unwrap().duration_since(stepped.wall).unwrap(),
        Duration::from_secs(500)
    );
    stepped.wall = SystemTime::UNIX_EPOCH;
    stepped.boot += Duration::from_secs(500);
    assert_eq!(list.expire(stepped).len(), 1);
}

#[test]
fn an_ended_ban_does_not_count_even_before_it_is_collected() {
    let mut list = BanList::default();
    list.ban(ban("192.0.2.1", Origin::Manual, Some(60)), clock(0));
    let (outcome, change) = list.ban(ban("192.0.2.1", Origin::Detector, Some(30)), clock(60));
    assert_eq!(outcome, Outcome::Added);
    let change = change.unwrap();
    assert_eq!(change.past.as_ref().unwrap().ended_by, EndedBy::Expired);
    assert_eq!(remaining(&list, "192.0.2.1", clock(60)), Some(30));
    list.revert(&change);
    assert_eq!(list.get(change.target), change.before.as_ref());
    assert_eq!(list.history().of(change.target).count(), 0);
}

#[test]
fn check_names_all_covering_bans_most_specific_first() {
    let mut list = BanList::default();
    for target in [
        "192.0.2.0/24",
        "192.0.0.0/16",
        "192.0.2.7",
        "192.0.3.0/24",
        "::/0",
    ] {
        list.ban(ban(target, Origin::Manual, None), clock(0));
    }
    let names = |ip: &str| -> Vec<String> {
        list.check(ip.parse().unwrap())
            .map(|entry| entry.ban.target.to_string())
            .collect()
    };
    assert_eq!(names("192.0.2.7"), ["192.0.2.7", "192.0.2.0/24", "192.0.0.0/16"]);
    assert_eq!(names("::ffff:192.0.2.8"), ["192.0.2.0/24", "192.0.0.0/16"]);
    assert_eq!(names("2001:db8::1"), ["::/0"]);
    assert_eq!(names("198.51.100.1"), [""; 0]);
}

/// The model: a plain vector, searched from end to end.
#[derive(Default)]
struct Model(Vec<(Target, Origin, Option<Duration>)>);

impl Model {
    fn collect(&mut self, now: Clock) -> usize {
        let before = self.0.len();
        self.0.retain(|(_, _, end)| end.is_none_or(|end| end > now.boot));
        before - self.0.len()
    }

    fn ban(&mut self, new: &NewBan, now: Clock) {
        self.collect_one(new.target, now);
        let end = new.lifetime.map(|lifetime| now.boot + lifetime);
        let far = |end: Option<Duration>| end.unwrap_or(Duration::MAX);
        match self.0.iter_mut().find(|(target, ..)| *target == new.target) {
            None => self.0.push((new.target, new.origin.clone(), end)),
            Some((_, origin, old)) => match (&new.origin, &*origin) {
                (Origin::Manual, _) | (Origin::Import, Origin::Import | Origin::Detector) => {
                    *origin = new.origin.clone();
                    *old = end;
                }
                (Origin::Import, Origin::Manual) | (Origin::Detector, _) => {
                    if far(end) > far(*old) {
                        *old = end;
                    }
                }
            },
        }
    }

    fn collect_one(&mut self, target: Target, now: Clock) {
        self.0
            .retain(|(other, _, end)| *other != target || end.is_none_or(|end| end > now.boot));
    }

    fn covering(&self, ip: IpAddr) -> Vec<Target> {
        let mut found: Vec<_> = self
            .0
            .iter()
            .map(|(target, ..)| *target)
            .filter(|target| target.contains(ip))
            .collect();
        found.sort_by_key(|target| std::cmp::Reverse(target.net().prefix_len()));
        found
    }

    fn sorted(&self) -> Vec<(Target, Origin, Option<Duration>)> {
        let mut all = self.0.clone();
        all.sort();
        all
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ban(NewBan),
    /// Ban, and take it back as if a table had been full.
    Refused(NewBan),
    Unban(Target),
    Pass(u64),
    Expire,
}

/// Few addresses, so that operations meet.
fn some_target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0_u8..6, prop_oneof![Just(32_u8), 29..=32_u8, Just(24), Just(0)])
            .prop_map(|(host, length)| format!("192.0.2.{host}/{length}")),
        (0_u8..4, prop_oneof![Just(128_u8), Just(64), Just(48), Just(127)])
            .prop_map(|(host, length)| format!("2001:db8::{host}/{length}")),
    ]
    .prop_map(|text| Target::network(text.parse().unwrap()))
}

fn some_ban() -> impl Strategy<Value = NewBan> {
    let origin = prop_oneof![Just(Origin::Manual), Just(Origin::Import), Just(Origin::Detector)];
    (some_target(), origin, prop::option::weighted(0.8, 1_u64..100)).prop_map(|(target, origin, lifetime)| {
        NewBan {
            target,
            ..ban("::", origin, lifetime)
        }
    })
}

fn some_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => some_ban().prop_map(Step::Ban),
        2 => some_ban().prop_map(Step::Refused),
        2 => some_target().prop_map(Step::Unban),
        3 => (0_u64..40).prop_map(Step::Pass),
        2 => Just(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn the_list_does_what_the_model_does(steps in prop::collection::vec(some_step(), 1..80)) {
        let (mut list, mut model, mut now) = (BanList::default(), Model::default(), clock(0));
        for step in steps {
            match step {
                Step::Ban(new) => {
                    model.ban(&new, now);
                    let (outcome, change) = list.ban(new, now);
                    prop_assert_eq!(outcome == Outcome::Unchanged, change.is_none());
                }
                Step::Refused(new) => {
                    let before: Vec<_> = list.history().of(new.target).cloned().collect();
                    let target = new.target;
                    if let (_, Some(change)) = list.ban(new, now) {
                        list.revert(&change);
                    }
                    let after: Vec<_> = list.history().of(target).cloned().collect();
                    // A full history loses its oldest for good; that is all that may be missing.
                    prop_assert!(before == after || before[1..] == after);
                }
                Step::Unban(target) => {
                    let had = model.0.iter().any(|(other, ..)| *other == target);
                    model.0.retain(|(other, ..)| *other != target);
                    prop_assert_eq!(list.unban(target, now).is_some(), had);
                }
                Step::Pass(seconds) => now = now.after(Duration::from_secs(seconds)),
                Step::Expire => {
                    let gone = model.collect(now);
                    prop_assert_eq!(list.expire(now).len(), gone);
                }
            }
            let mut all: Vec<_> = list
                .iter()
                .map(|entry| (entry.ban.target, entry.ban.origin.clone(), entry.deadline))
                .collect();
            all.sort();
            prop_assert_eq!(&all, &model.sorted());
            for ip in ["192.0.2.0", "192.0.2.5", "198.51.100.1", "2001:db8::3", "2001:db8:0:1::"] {
                let ip: IpAddr = ip.parse().unwrap();
                let found: Vec<_> = list.check(ip).map(|entry| entry.ban.target).collect();
                prop_assert_eq!(found, model.covering(ip));
            }
        }
    }
}
