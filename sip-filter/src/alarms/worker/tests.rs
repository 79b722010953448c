use std::{
    sync::mpsc::{Receiver as Inbox, Sender, channel},
    time::SystemTime,
};

use super::*;
use crate::{
    alarms::Status,
    api::types::Mode,
    conditions::{Condition, Kind, Severity},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn alarm(subject: &str, ended: bool) -> Alarm {
    let condition = Condition {
        name: Kind::Detached,
        subject: subject.into(),
        severity: Severity::Critical,
        since: SystemTime::UNIX_EPOCH,
        text: String::new(),
        remedy: String::new(),
    };
    let ended = ended.then_some(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    Alarm::new(condition, ended, "host", Mode::Enforce)
}

/// Fails so many times, and tells of each attempt.
#[derive(Debug)]
struct Fake {
    failures: u32,
    is_final: bool,
    repeat: Option<Duration>,
    attempts: Sender<Vec<Alarm>>,
}

impl Receiver for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn repeat(&self) -> Option<Duration> {
        self.repeat
    }

    fn deliver(&mut self, alarms: &[Alarm]) -> Result<(), DeliveryError> {
        self.attempts.send(alarms.to_vec()).unwrap();
        let (url, answer) = (String::new(), String::new());
        match self.failures.checked_sub(1) {
            None => return Ok(()),
            Some(left) => self.failures = left,
        }
        Err(if self.is_final {
            DeliveryError::Refused {
                url,
                status: 400,
                answer,
            }
        } else {
            DeliveryError::Unavailable { url, status: 503 }
        })
    }
}

fn start(failures: u32, is_final: bool, repeat: Option<Duration>) -> (Worker, Inbox<Vec<Alarm>>, Counts) {
    start_with(failures, is_final, repeat, Conditions::default())
}

fn start_with(
    failures: u32,
    is_final: bool,
    repeat: Option<Duration>,
    conditions: Conditions,
) -> (Worker, Inbox<Vec<Alarm>>, Counts) {
    let (attempts, inbox) = channel();
    let counts = Counts::default();
    let fake = Fake {
        failures,
        is_final,
        repeat,
        attempts,
    };
    (
        Worker::start(Box::new(fake), counts.clone(), conditions).unwrap(),
        inbox,
        counts,
    )
}

#[test]
fn what_fails_is_tried_again_in_its_latest_state() {
    let (worker, inbox, counts) = start(1, false, None);
    worker.put(alarm("eth0", false));
    assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), [alarm("eth0", false)]);
    // While the worker pauses, it is over.
    worker.put(alarm("eth0", true));
    assert_eq!(
        inbox.recv_timeout(PATIENCE).unwrap(),
        [alarm("eth0", true)],
        "once, resolved"
    );
    worker.stop();
    assert!(inbox.try_recv().is_err(), "nothing else");
    let count = counts.get()[0].1;
    assert_eq!(
        (count.delivered, count.failed, count.refused, count.waiting),
        (1, 1, 0, 0)
    );
}

#[test]
fn a_receiver_that_is_gone_is_a_condition_until_it_is_back() {
    let conditions = Conditions::default();
    let raised = || conditions.is_raised(Kind::AlarmsUndelivered, "fake");
    let (worker, inbox, _) = start_with(3, false, None, conditions.clone());
    worker.put(alarm("eth0", false));
    for _ in 0..2 {
        inbox.recv_timeout(PATIENCE).unwrap();
        assert!(!raised(), "it may only be restarted");
    }
    // After the third failure, and before the fourth attempt 4 s later.
    inbox.recv_timeout(PATIENCE).unwrap();
    let end = Instant::now() + PATIENCE;
    while !raised() {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(
        conditions.current()[0].text.contains("fake"),
        "{:?}",
        conditions.current()
    );
    inbox.recv_timeout(PATIENCE).unwrap();
    worker.stop();
    assert!(!raised());
    // What is refused for good need not be tried three times.
    let (worker, inbox, _) = start_with(1, true, None, conditions.clone());
    worker.put(alarm("eth0", false));
    inbox.recv_timeout(PATIENCE).unwrap();
    worker.stop();
    assert!(raised());
}

#[test]
fn what_is_refused_for_good_is_not_tried_again() {
    let (worker, inbox, counts) = start(1, true, None);
    worker.put(alarm("eth0", false));
    inbox.recv_timeout(PATIENCE).unwrap();
    worker.put(alarm("eth1", false));
    assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), [alarm("eth1", false)]);
    worker.stop();
    let count = counts.get()[0].1;
    assert_eq!((count.delivered, count.failed, count.refused), (1, 1, 1));
}

#[test]
fn what_goes_on_is_told_again_to_those_who_ask_for_it() {
    let (worker, inbox, counts) = start(0, false, Some(Duration::from_millis(50)));
    worker.put(alarm("eth0", false));
    for _ in 0..3 {
        let told = inbox.recv_timeout(PATIENCE).unwrap();
        assert_eq!(told[0].status, Status::Firing);
    }
    worker.put(alarm("eth0", true));
    let over = std::iter::from_fn(|| inbox.recv_timeout(PATIENCE).ok())
        .find(|told| told[0].status == Status::Resolved);
    assert_eq!(over.unwrap().len(), 1);
    assert!(
        inbox.recv_timeout(Duration::from_millis(300)).is_err(),
        "nothing goes on"
    );
    worker.stop();
    assert_eq!(counts.get()[0].1.delivered, 2, "repetitions are no deliveries");
}

#[test]
fn stopping_makes_one_last_attempt_and_waits_no_longer() {
    let (worker, inbox, _) = start(u32::MAX, false, None);
    worker.put(alarm("eth0", false));
    inbox.recv_timeout(PATIENCE).unwrap();
    worker.stop();
    assert!(inbox.try_iter().count() <= 2);
}

#[test]
fn what_waits_is_bounded() {
    let outbox = Outbox::default();
    let taken = (0..10_000)
        .filter(|number| outbox.put(alarm(&number.to_string(), false)))
        .count();
    assert_eq!(taken, outbox.len());
    assert!(taken < 1_000, "{taken}");
    assert!(outbox.put(alarm("0", true)), "a newer state needs no room");
}
