use super::*;

fn names(conditions: &Conditions) -> Vec<String> {
    let current = conditions.current();
    let name = |condition: &Condition| format!("{} {}", condition.name.name(), condition.subject);
    current.iter().map(name).collect()
}

#[test]
fn a_condition_is_raised_once_and_cleared_once() {
    let conditions = Conditions::default();
    let (current, mut changes) = conditions.follow();
    assert!(current.is_empty());
    conditions.raise(Kind::Detached, "eth0", "one");
    let since = conditions.current()[0].since;
    conditions.raise(Kind::Detached, "eth0", "two");
    conditions.raise(Kind::Detached, "eth1", "three");
    assert_eq!(names(&conditions), ["detached eth0", "detached eth1"]);
    let first = &conditions.current()[0];
    assert_eq!(
        (first.since, first.text.as_str()),
        (since, "two"),
        "renewed, not raised again"
    );
    conditions.clear(Kind::Detached, "eth0");
    conditions.clear(Kind::Detached, "eth0");
    conditions.clear(Kind::Drift, "eth1");
    assert_eq!(names(&conditions), ["detached eth1"]);
    let seen: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
    let [
        Change::Raised(first),
        Change::Raised(second),
        Change::Cleared(last),
    ] = &seen[..]
    else {
        panic!("{seen:?}")
    };
    assert_eq!((first.text.as_str(), second.text.as_str()), ("one", "three"));
    assert_eq!(last.text, "two", "as it was last");
    assert_eq!(conditions.raised_total()[0], (Kind::Detached, 2));
    // Who comes late finds what is there.
    assert_eq!(conditions.follow().0.len(), 1);
}

#[test]
fn what_is_only_noticed_when_it_happens_ends_by_itself() {
    let conditions = Conditions::default();
    let at = Duration::from_secs;
    conditions.raise_until(Kind::DistributedAuth, "", "alice", at(100));
    conditions.raise(Kind::StoreFailing, "", "stays");
    conditions.sweep(at(99));
    assert_eq!(conditions.current().len(), 2);
    conditions.raise_until(Kind::DistributedAuth, "", "alice", at(200));
    conditions.sweep(at(199));
    assert!(conditions.is_raised(Kind::DistributedAuth, ""));
    conditions.sweep(at(200));
    assert_eq!(names(&conditions), ["store-failing "]);
}

#[test]
fn subjects_that_are_gone_take_their_conditions_with_them() {
    let conditions = Conditions::default();
    for subject in ["eth0/ban4", "eth1/ban4"] {
        conditions.raise(Kind::MapNearlyFull, subject, "x");
    }
    conditions.raise(Kind::Detached, "eth1", "x");
    conditions.retain(Kind::MapNearlyFull, |subject| subject.starts_with("eth0/"));
    assert_eq!(names(&conditions), ["detached eth1", "map-nearly-full eth0/ban4"]);
    conditions.set(Kind::Detached, "eth1", None);
    conditions.set(Kind::Drift, "eth0", Some("x".to_owned()));
    assert_eq!(names(&conditions), ["map-nearly-full eth0/ban4", "drift eth0"]);
}

#[test]
fn names_are_those_of_the_json_and_every_condition_says_what_to_do() {
    for kind in Kind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        assert!(kind.remedy().len() > 20, "{}", kind.name());
        assert!(
            kind.severity() != Severity::Critical || kind.is_fault(),
            "what is critical makes health fail: {}",
            kind.name()
        );
    }
    let conditions = Conditions::default();
    conditions.raise(Kind::Detached, "eth0", "x");
    let json = serde_json::to_value(&conditions.current()[0]).unwrap();
    assert_eq!(json["name"], "detached");
    assert_eq!(json["severity"], "critical");
    let back: Condition = serde_json::from_value(json).unwrap();
    assert_eq!(back.name, Kind::Detached);
}
