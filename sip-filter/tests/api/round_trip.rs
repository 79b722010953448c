//! Every call there and back.

use sip_filter::{
    api::{ApiError, ErrorKind, Lifetime, Limits, Service as _, client::ClientError, types::*},
    bans::Scope,
};

use crate::{
    client,
    support::{
        Daemon,
        fake::{Fake, target},
    },
};

fn ban(targets: &[&str]) -> BanRequest {
    BanRequest {
        targets: targets.iter().map(|text| target(text)).collect(),
        lifetime: Some(Lifetime::For(std::time::Duration::from_secs(3600))),
        reason: "test".to_owned(),
        scope: Scope::Sip,
        force: false,
    }
}

fn api_error(error: ClientError) -> ApiError {
    match error {
        ClientError::Api(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call() {
    let daemon = Daemon::start(Limits::default());
    let client = client(&daemon);

    let banned = client
        .ban(&ban(&["203.0.113.7", "2001:db8::/64", "203.0.113.0/24"]))
        .await
        .unwrap();
    assert_eq!(banned.mode, Mode::Enforce);
    assert_eq!(banned.results.len(), 3);
    assert!(
        banned
            .results
            .iter()
            .all(|result| result.outcome == BanOutcome::Banned)
    );
    assert_eq!(banned.results[0].expires_in_seconds, Some(3600));
    let again = client.ban(&ban(&["203.0.113.7"])).await.unwrap();
    assert_eq!(again.results[0].outcome, BanOutcome::Unchanged);

    let all = client.bans(&BanFilter::default()).await.unwrap();
    assert_eq!(all.bans, daemon.service.bans(&BanFilter::default()).unwrap());
    for (filter, count) in [
        (
            BanFilter {
                contained: Some("203.0.0.0/16".parse().unwrap()),
                ..BanFilter::default()
            },
            2,
        ),
        (
            BanFilter {
                origin: Some("nobody & nothing".to_owned()),
                ..BanFilter::default()
            },
            0,
        ),
        (
            BanFilter {
                origin: Some("manual".to_owned()),
                limit: Some(1),
                ..BanFilter::default()
            },
            1,
        ),
    ] {
        assert_eq!(
            client.bans(&filter).await.unwrap().bans.len(),
            count,
            "{filter:?}"
        );
    }

    let check = client.check("203.0.113.7".parse().unwrap()).await.unwrap();
    assert!(check.banned);
    assert_eq!(check.bans[0].target, target("203.0.113.7"));
    assert_eq!(check.bans[1].target, target("203.0.113.0/24"));

    let lifted = client
        .unban(&Unban::Targets(vec![
            target("203.0.113.7"),
            target("198.51.100.9"),
        ]))
        .await
        .unwrap();
    assert!(lifted.results[0].removed);
    assert_eq!(lifted.results[0].still_banned_by, Some(target("203.0.113.0/24")));
    assert!(!lifted.results[1].removed);
    assert_eq!(
        client
            .unban(&Unban::Origin("manual".to_owned()))
            .await
            .unwrap()
            .results
            .len(),
        2
    );
    assert!(client.unban(&Unban::All(true)).await.unwrap().results.is_empty());

    let import = ImportRequest {
        entries: vec![ImportEntry {
            target: target("198.51.100.9"),
            lifetime: None,
            reason: String::new(),
            scope: Scope::All,
            origin: None,
            rule: None,
            created: None,
        }],
        dry_run: false,
        skip_invalid: false,
        force: false,
    };
    assert_eq!(client.import(&import).await.unwrap().added, 1);

    let add = AllowAdd {
        targets: vec![target("198.51.100.0/24")],
        comment: "trunk".to_owned(),
    };
    assert!(client.allow(&add).await.unwrap().results[0].changed);
    assert!(!client.allow(&add).await.unwrap().results[0].changed);
    assert_eq!(client.allowed().await.unwrap().allow.len(), 2);
    let remove = AllowRemove { targets: add.targets };
    assert!(client.disallow(&remove).await.unwrap().results[0].changed);

    assert_eq!(client.status().await.unwrap(), daemon.service.status().unwrap());
    assert_eq!(
        client
            .top(TopQuery { limit: 5, seconds: 0 })
            .await
            .unwrap()
            .sources
            .len(),
        1
    );
    assert_eq!(
        client.set_mode(Mode::Simulate).await.unwrap().previous,
        Mode::Enforce
    );
    assert_eq!(client.config().await.unwrap(), daemon.service.config().unwrap());
    assert_eq!(client.reload().await.unwrap(), daemon.service.reload().unwrap());
    assert!(client.health().await.unwrap().healthy);
    *daemon.service.healthy.lock().unwrap() = false;
    assert!(!client.health().await.unwrap().healthy);
    daemon.stop().await;
}

#[tokio::test]
async fn errors_arrive_as_they_were_meant() {
    let daemon = Daemon::start(Limits::default());
    let client = client(&daemon);
    let refused = api_error(client.ban(&ban(&["203.0.113.7", "192.0.2.1"])).await.unwrap_err());
    assert_eq!(refused.kind, ErrorKind::Refused);
    assert_eq!(refused.message, "192.0.2.1 is allow-listed");
    assert!(refused.hint.unwrap().contains("allow remove"));
    assert!(daemon.service.bans.lock().unwrap().is_empty(), "all or nothing");

    let full = api_error(client.ban(&ban(&["192.0.2.2"])).await.unwrap_err());
    assert_eq!(full.kind, ErrorKind::Full);

    // A defect in one request is no reason to stop serving.
    let failed = api_error(client.check("192.0.2.3".parse().unwrap()).await.unwrap_err());
    assert_eq!(failed.kind, ErrorKind::Internal);
    client.status().await.unwrap();
}

#[tokio::test]
async fn events_are_followed_without_gap_or_repetition() {
    let daemon = Daemon::start(Limits::default());
    let client = client(&daemon);
    let mut latest = client.events(10, false).await.unwrap();
    assert_eq!(latest.next().await.unwrap().unwrap().kind, "ban");
    assert_eq!(latest.next().await.unwrap(), None);

    let mut events = client.events(10, true).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().kind, "ban");
    // The event that was both among the latest and in the subscription comes once.
    let repeated = daemon.service.recent_events(1).unwrap().remove(0);
    daemon.service.events.send(repeated).unwrap();
    daemon.service.events.send(Fake::event("unban", "one")).unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().message, "one");

    // Whoever stops reading is told what it missed.
    for number in 0..5000 {
        daemon
            .service
            .events
            .send(Fake::event("ban", &format!("{number} {}", "x".repeat(1000))))
            .unwrap();
        if number % 100 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    let mut seen = 0;
    let missed = loop {
        let event = events.next().await.unwrap().unwrap();
        if event.kind == "missed" {
            break event.message;
        }
        seen += 1;
    };
    assert!(seen < 5000);
    assert!(missed.ends_with("events are missing here: this client reads too slowly"));

    // A stopping daemon ends the stream instead of waiting for its followers.
    let started = std::time::Instant::now();
    let drain = tokio::spawn(async move { while let Ok(Some(_)) = events.next().await {} });
    daemon.stop().await;
    drain.await.unwrap();
    assert!(started.elapsed() < std::time::Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_packets_come_until_there_were_enough() {
    let daemon = Daemon::start(Limits {
        captures: 1,
        ..Limits::default()
    });
    let client = client(&daemon);
    for limit in [0, 1_000_001] {
        let refused = api_error(client.drops(limit).await.unwrap_err());
        assert_eq!(refused.kind, ErrorKind::Usage, "{limit}");
    }
    let mut drops = client.drops(4).await.unwrap();
    assert_eq!(
        api_error(client.drops(1).await.unwrap_err()).kind,
        ErrorKind::Busy
    );
    for number in 0..2 {
        daemon
            .service
            .drops
            .send(Fake::dropped(vec![number; 60]))
            .unwrap();
        let packet = drops.next().await.unwrap().unwrap();
        assert_eq!(packet, Fake::dropped(vec![number; 60]));
    }
    // More at once than the feed holds: what is missing is counted.
    for number in 0..100 {
        daemon
            .service
            .drops
            .send(Fake::dropped(vec![number; 900]))
            .unwrap();
    }
    let (mut next, mut missed) = (0, 0);
    for _ in 0..2 {
        let packet = drops.next().await.unwrap().unwrap();
        next += packet.missed;
        missed += packet.missed;
        assert_eq!(u64::from(packet.frame.0[0]), next);
        next += 1;
    }
    assert!(missed <= 98, "{missed}");
    assert_eq!(drops.next().await.unwrap(), None, "that was enough");

    // Who goes makes room, though nothing is dropped.
    let drops = client.drops(1).await.unwrap();
    assert_eq!(daemon.service.drops.receiver_count(), 1);
    drop(drops);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
    while daemon.service.drops.receiver_count() > 0 {
        assert!(std::time::Instant::now() < deadline, "it goes on copying");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    client.drops(1).await.unwrap();
}

#[tokio::test]
async fn without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let missing = sip_filter::api::client::Client::new(&path)
        .status()
        .await
        .unwrap_err();
    assert!(missing.is_unreachable());
    assert!(missing.to_string().contains("does not exist"), "{missing}");
    assert!(missing.hint().unwrap().contains("systemctl status sip-filter"));

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let stale = sip_filter::api::client::Client::new(&path)
        .status()
        .await
        .unwrap_err();
    assert!(stale.is_unreachable());
    assert!(stale.to_string().contains("left over"), "{stale}");
}
