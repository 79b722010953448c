//! The whole daemon with a fake data plane and a fake engine.

use std::{
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use sip_filter_common::{
    abi::{Address, EventHeader, EventKind},
    sip::Class,
};

use super::*;
use crate::{
    bans::{Evidence, Scope, Target},
    config::Overrides,
    daemon::{BanOrder, Length, PacketEvent, Unban, fake::Fake},
    detect::{Conclusion, Decision, DetectConfig, Observation, Proof, Rule},
};

/// Bans every third request of a source.
#[derive(Default)]
struct EveryThird {
    seen: std::collections::HashMap<Target, u64>,
    restored: Arc<Mutex<Vec<String>>>,
}

impl Detector for EveryThird {
    fn observe(&mut self, observation: &Observation<'_>, conclusions: &mut Vec<Conclusion>) {
        let target = Target::of_source(observation.source, 64);
        let seen = self.seen.entry(target).or_default();
        *seen += 1;
        if *seen >= 3 {
            conclusions.push(Conclusion::Ban(Decision {
                time: observation.time,
                target,
                rule: Rule::FloodInvite,
                ban_for: Duration::from_secs(60),
                shadow: false,
                earlier_offences: 0,
                proven: true,
                sliding: false,
                scope: Scope::Sip,
                evidence: Evidence {
                    count: *seen,
                    threshold: 3,
                    window_seconds: 1,
                    first_seen: SystemTime::UNIX_EPOCH,
                    last_seen: SystemTime::UNIX_EPOCH,
                    accounts: 0,
                    proven: true,
                    sample: Vec::new(),
                },
            }));
        }
    }

    fn set_wall(&mut self, _: Duration, _: SystemTime) {}

    fn restore_offences(&mut self, target: Target, count: u32, _: SystemTime) {
        self.seen.insert(target, u64::from(count));
    }

    fn restore_trust(&mut self, target: Target, account: &str, _: Duration) {
        self.restored.lock().unwrap().push(format!("{target} {account}"));
    }

    fn restore_proof(&mut self, target: Target, by: Proof, _: Duration) {
        self.restored
            .lock()
            .unwrap()
            .push(format!("{target} {}", by.name()));
    }

    fn forget(&mut self, target: Target) {
        self.seen.remove(&target);
    }

    fn not_enforced(&mut self, target: Target, _: SystemTime) {
        self.restored
            .lock()
            .unwrap()
            .push(format!("{target} not enforced"));
    }

    fn distrust(&mut self, target: Target) {
        self.restored.lock().unwrap().push(format!("distrust {target}"));
    }

    fn reload(&mut self, _: DetectConfig) {}
}

/// One interface, which never changes.
struct Fixed;

impl Interfaces for Fixed {
    fn present(&mut self) -> std::io::Result<Vec<(String, u32)>> {
        Ok(vec![("fake0".to_owned(), 0)])
    }

    fn prepare(&mut self, _: &str, _: &Config) -> Result<Box<dyn Plane>, crate::dataplane::DataplaneError> {
        Err(crate::dataplane::DataplaneError::Object("not to be asked for"))
    }
}

/// From MCAST-TEST-NET, which is nobody's source: the addresses for documentation may be those of a test machine.
fn invite(last: u8) -> PacketEvent {
    PacketEvent {
        header: EventHeader {
            source: Address::v4([233, 252, 0, last]),
            kind: EventKind::Snapshot as u8,
            class: Class::Invite as u8,
            count: 1,
            ..EventHeader::default()
        },
        payload: Bytes::new(),
    }
}

fn start(directory: &std::path::Path, plane: &Fake, on_stop: OnStop) -> Daemon {
    let path = directory.join("config.toml");
    if !path.exists() {
        std::fs::write(&path, "").unwrap();
    }
    let source = Source {
        path: Some(path),
        overrides: Overrides {
            state_dir: Some(directory.join("state")),
            ..Overrides::default()
        },
    };
    let mut config = source.load().unwrap();
    config.on_stop = on_stop;
    let detector = Box::<EveryThird>::default();
    Daemon::start(
        source,
        config,
        vec![plane.plane()],
        Box::new(Fixed),
        detector,
        CancellationToken::new(),
    )
    .unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "waited in vain: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn stop(daemon: Daemon) {
    daemon.shutdown().cancel();
    daemon.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_become_bans_that_survive() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Fake::default();
    let daemon = start(dir.path(), &plane, OnStop::Keep);
    let sink = plane.state().sink.clone().unwrap();
    sink.send(vec![invite(1), invite(1), invite(2)]).await.unwrap();
    let sent = Instant::now();
    sink.send(vec![invite(1)]).await.unwrap();
    until("the ban", || plane.targets() == ["233.252.0.1"]).await;
    let took = sent.elapsed();
    assert!(took < Duration::from_millis(100), "{took:?} from packet to ban");

    // What an operator lets go, starts anew.
    let handle = daemon.handle().clone();
    let unban = Unban::Targets(vec!["233.252.0.1".parse().unwrap()]);
    tokio::task::spawn_blocking(move || handle.unban(&unban))
        .await
        .unwrap()
        .unwrap();
    assert!(plane.targets().is_empty());
    sink.send(vec![invite(1), invite(2), invite(2)]).await.unwrap();
    until("the other ban", || plane.targets() == ["233.252.0.2"]).await;

    drop(sink);
    stop(daemon).await;
    assert!(plane.state().attached, "the program stays");
    let plane = Fake::default();
    let daemon = start(dir.path(), &plane, OnStop::Detach);
    assert_eq!(plane.targets(), ["233.252.0.2"]);
    stop(daemon).await;
    assert!(!plane.state().attached, "the program is taken out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regular_work_ends_bans_and_fetches_hits() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Fake::default();
    let daemon = start(dir.path(), &plane, OnStop::Keep);
    let handle = daemon.handle().clone();
    let order = BanOrder {
        targets: vec!["233.252.0.1".parse().unwrap()],
        length: Length::For(Duration::from_millis(1_500)),
        reason: String::new(),
        scope: Scope::Sip,
        force: false,
    };
    plane.state().hits = vec![(order.targets[0], 5)];
    tokio::task::spawn_blocking(move || handle.ban(&order))
        .await
        .unwrap()
        .unwrap();
    let handle = daemon.handle().clone();
    until("the end of the ban", || plane.targets().is_empty()).await;
    assert!(handle.list(&crate::daemon::Filter::default()).is_empty());
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_leaves_the_old_one_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Fake::default();
    let daemon = start(dir.path(), &plane, OnStop::Keep);
    let handle = daemon.handle().clone();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, "simulate = true\n\nlimits.invite.rate = \"fast\"\n").unwrap();
    let bad = handle.clone();
    let error = tokio::task::spawn_blocking(move || bad.reload())
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("config.toml:3: limits.invite.rate: \"fast\""),
        "{error}"
    );
    assert!(!handle.simulates());
    let events = handle.recent_events(usize::MAX);
    let told = events.iter().any(|event| event.kind == JournalKind::ReloadFailed);
    assert!(told, "{events:?}");
    let rejected = || {
        let conditions = handle.conditions();
        conditions.is_raised(crate::conditions::Kind::ConfigRejected, "")
    };
    assert!(rejected());

    std::fs::write(&path, "simulate = true\n").unwrap();
    // As systemd does it. The process is the test's own, and the daemon has its handler in place.
    nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGHUP).unwrap();
    until("the reload", || handle.simulates()).await;
    assert!(plane.state().config.as_ref().unwrap().simulate);
    until("the end of the condition", || !rejected()).await;
    // The command line's state directory wins over the file also at a reload.
    assert_eq!(handle.config().state_dir, dir.path().join("state"));
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_do_not_share_a_state() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), &Fake::default(), OnStop::Keep);
    let source = daemon.handle().source().clone();
    let config = source.load().unwrap();
    let plane = Fake::default();
    let detector = Box::<EveryThird>::default();
    let second = Daemon::start(
        source,
        config,
        vec![plane.plane()],
        Box::new(Fixed),
        detector,
        CancellationToken::new(),
    );
    assert!(
        second
            .unwrap_err()
            .to_string()
            .ends_with("another sip-filter runs with this state directory")
    );
    assert!(!plane.state().attached);
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_told_what_was_known_before() {
    use crate::detect::{Conclusion, Proven, Trusted};
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path(), &Fake::default(), OnStop::Keep);
    let handle = daemon.handle().clone();
    tokio::task::spawn_blocking(move || {
        handle.with(|controller, clock| {
            let (time, until) = (clock.boot, clock.boot + Duration::from_secs(600));
            let target = "233.252.0.1".parse().unwrap();
            let account = "alice".to_owned();
            for conclusion in [
                Conclusion::Trusted(Trusted {
                    time,
                    target,
                    account,
                    until,
                }),
                Conclusion::Proven(Proven {
                    time,
                    target,
                    by: Proof::Tcp,
                    until,
                }),
            ] {
                controller.conclude(conclusion, clock);
            }
        });
    })
    .await
    .unwrap();
    // Nothing was saved but by the stop.
    stop(daemon).await;
    let plane = Fake::default();
    let source = Source {
        path: Some(dir.path().join("config.toml")),
        overrides: Overrides {
            state_dir: Some(dir.path().join("state")),
            ..Overrides::default()
        },
    };
    let config = source.load().unwrap();
    let detector = EveryThird::default();
    let restored = Arc::clone(&detector.restored);
    let planes = vec![plane.plane()];
    let daemon = Daemon::start(
        source,
        config,
        planes,
        Box::new(Fixed),
        Box::new(detector),
        CancellationToken::new(),
    )
    .unwrap();
    assert_eq!(
        *restored.lock().unwrap(),
        ["233.252.0.1 alice", "233.252.0.1 tcp"]
    );
    assert_eq!(plane.state().at_attach, (0, 1));

    let order = BanOrder {
        targets: vec!["233.252.0.0/24".parse().unwrap()],
        length: Length::Configured,
        reason: String::new(),
        scope: Scope::Sip,
        force: false,
    };
    let handle = daemon.handle().clone();
    tokio::task::spawn_blocking(move || handle.ban(&order))
        .await
        .unwrap()
        .unwrap();
    // The engine hears of it with the next packet.
    let sink = plane.state().sink.clone().unwrap();
    sink.send(vec![invite(9)]).await.unwrap();
    until("the end of trust", || {
        restored
            .lock()
            .unwrap()
            .last()
            .is_some_and(|last| last == "distrust 233.252.0.1")
    })
    .await;
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_hears_of_a_ban_that_no_table_took() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Fake::default();
    plane.state().room = Some(0);
    let path = dir.path().join("config.toml");
    std::fs::write(&path, "").unwrap();
    let source = Source {
        path: Some(path),
        overrides: Overrides {
            state_dir: Some(dir.path().join("state")),
            ..Overrides::default()
        },
    };
    let config = source.load().unwrap();
    let detector = EveryThird::default();
    let told = Arc::clone(&detector.restored);
    let planes = vec![plane.plane()];
    let shutdown = CancellationToken::new();
    let daemon = Daemon::start(
        source,
        config,
        planes,
        Box::new(Fixed),
        Box::new(detector),
        shutdown,
    )
    .unwrap();
    let sink = plane.state().sink.clone().unwrap();
    sink.send(vec![invite(1); 3]).await.unwrap();
    until("the refusal", || {
        *told.lock().unwrap() == ["233.252.0.1 not enforced"]
    })
    .await;
    assert!(plane.targets().is_empty());
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_frames_are_copied_while_somebody_captures() {
    use sip_filter_common::verdict::Reason;
    let dir = tempfile::tempdir().unwrap();
    let plane = Fake::default();
    let daemon = start(dir.path(), &plane, OnStop::Keep);
    let sink = plane.state().sink.clone().unwrap();
    let ask = || {
        let handle = daemon.handle().clone();
        async {
            tokio::task::spawn_blocking(move || handle.capture_drops())
                .await
                .unwrap()
        }
    };
    let (mut frames, first) = ask().await.unwrap();
    let (_, second) = ask().await.unwrap();
    assert!(plane.state().captures);

    let clock = Clock::now();
    let mut event = invite(1);
    event.header.kind = EventKind::Dropped as u8;
    event.header.class = Reason::DropUnknownBudget as u8;
    event.header.time = u64::try_from((clock.boot - Duration::from_secs(5)).as_nanos()).unwrap();
    event.header.payload_len = 1_500;
    event.header.captured = 4;
    event.payload = Bytes::from_static(b"wire");
    sink.send(vec![event; 5]).await.unwrap();
    let frame = frames.recv().await.unwrap();
    assert_eq!((frame.reason, frame.length), (Reason::DropUnknownBudget, 1_500));
    assert_eq!(frame.frame, "wire");
    // Five seconds ago, but for the nanoseconds between two readings of two clocks.
    let ago = clock.wall.duration_since(frame.time).unwrap();
    assert!(
        ago.abs_diff(Duration::from_secs(5)) < Duration::from_secs(1),
        "{ago:?}"
    );
    // They are no observations: five would have made a ban.
    sink.send(vec![invite(2); 3]).await.unwrap();
    until("the ban", || plane.targets() == ["233.252.0.2"]).await;

    // A reload does not end it, the last client does.
    drop(first);
    let handle = daemon.handle().clone();
    tokio::task::spawn_blocking(move || handle.reload())
        .await
        .unwrap()
        .unwrap();
    assert!(plane.state().captures);
    drop(second);
    until("the end of the capture", || !plane.state().captures).await;

    plane.state().refuse_config = true;
    assert!(ask().await.is_err());
    plane.state().refuse_config = false;
    let (_, third) = ask().await.unwrap();
    drop(third);
    until("the end of the capture", || !plane.state().captures).await;
    stop(daemon).await;
}
