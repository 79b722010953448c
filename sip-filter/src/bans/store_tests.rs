//! What must survive does, and what cannot be read is left as it was.

use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::bans::{AllowOrigin, BanList, EndedBy, NewBan, Origin, Receipt, Scope, Writer};

const DAY: Duration = Duration::from_secs(86_400);

fn clock(boot: u64) -> Clock {
    Clock {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        boot: Duration::from_secs(boot),
    }
}

fn entry(target: &str, seconds: Option<u64>, clock: Clock) -> Entry {
    let new = NewBan {
        target: target.parse().unwrap(),
        origin: Origin::Detector,
        rule: Some(crate::detect::Rule::FloodInvite),
        reason: "because \u{1F4DE}".to_owned(),
        scope: Scope::All,
        lifetime: seconds.map(Duration::from_secs),
        created: None,
        evidence: None,
    };
    BanList::default().ban(new, clock).1.unwrap().after.unwrap()
}

fn batch_of(entries: &[Entry], clock: Clock, boot_id: &BootId) -> Batch {
    let mut batch = Batch::default();
    for entry in entries {
        batch.put_ban(entry, clock, boot_id);
    }
    batch
}

#[test]
fn what_is_written_is_read_back_without_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    let boot = BootId::new("a");
    let entries = [
        entry("192.0.2.1", Some(600), clock(50)),
        entry("2001:db8::/64", None, clock(50)),
    ];
    let allowed = Allowed {
        origin: AllowOrigin::Operator,
        comment: "carrier".to_owned(),
        created: Some(clock(50).wall),
    };
    let past = Past {
        origin: Origin::Manual,
        rule: None,
        reason: String::new(),
        created: clock(0).wall,
        ended: clock(0).wall,
        ended_by: EndedBy::Unbanned,
    };
    let mut store = Store::open(dir.path()).unwrap();
    let mut batch = batch_of(&entries, clock(50), &boot);
    batch.put_allowed("198.51.100.0/24".parse().unwrap(), &allowed);
    batch.put_history("192.0.2.1".parse().unwrap(), [&past].into_iter());
    batch.put_history("192.0.2.9".parse().unwrap(), std::iter::empty());
    store.write(&batch).unwrap();
    // What the disk holds at this moment is what a kill leaves behind.
    let killed = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join(FILE), killed.path().join(FILE)).unwrap();

    for directory in [killed.path(), dir.path()] {
        if directory == dir.path() {
            assert!(matches!(Store::open(directory), Err(StoreError::InUse { .. })));
            store.database = None;
        }
        let loaded = Store::open(directory).unwrap().load(clock(60), &boot).unwrap();
        assert_eq!(loaded.unreadable, 0);
        let ends: Vec<_> = loaded
            .bans
            .iter()
            .map(|entry| (entry.ban.target, entry.deadline))
            .collect();
        assert_eq!(
            ends,
            [entries[0].clone(), entries[1].clone()].map(|entry| (entry.ban.target, entry.deadline))
        );
        assert_eq!(loaded.bans[1].ban, entries[1].ban);
        assert_eq!(
            loaded.allowed,
            [("198.51.100.0/24".parse().unwrap(), allowed.clone())]
        );
        assert_eq!(
            loaded.history,
            [("192.0.2.1".parse().unwrap(), vec![past.clone()])]
        );
    }
}

#[test]
fn after_a_restart_boot_time_counts_and_after_a_reboot_wall_time() {
    let dir = tempfile::tempdir().unwrap();
    let boot = BootId::new("a");
    let mut store = Store::open(dir.path()).unwrap();
    let entries = [entry("192.0.2.1", Some(600), clock(1_000))];
    store.write(&batch_of(&entries, clock(1_000), &boot)).unwrap();

    // Same boot, 100 s later, the wall clock a day off.
    let mut now = clock(1_100);
    now.wall += DAY;
    let loaded = store.load(now, &boot).unwrap();
    assert_eq!(loaded.bans[0].deadline, Some(Duration::from_secs(1_600)));

    // Another boot 100 s of wall time later: 500 s remain of the 600, if the clock is right. Until that is known, all of
    // them do, whatever it says.
    let end = clock(1_000).wall + Duration::from_secs(600);
    let mut now = clock(20);
    for wall in [
        now.wall + Duration::from_secs(100),
        now.wall - 9_999 * DAY,
        now.wall + 9_999 * DAY,
    ] {
        now.wall = wall;
        let loaded = store.load(now, &BootId::new("b")).unwrap();
        assert_eq!(loaded.bans[0].deadline, Some(Duration::from_secs(620)));
        assert_eq!(loaded.unsettled, [(loaded.bans[0].ban.target, end)]);
    }
}

#[test]
fn an_end_further_ahead_than_a_deadline_can_tell_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let boot = BootId::new("a");
    let mut store = Store::open(dir.path()).unwrap();
    let millennia = 7_000 * 365 * 86_400;
    let far = entry("192.0.2.1", Some(millennia), clock(1_000));
    store
        .write(&batch_of(std::slice::from_ref(&far), clock(1_000), &boot))
        .unwrap();
    for (now, boot) in [(clock(1_000), boot), (clock(1_000), BootId::new("b"))] {
        let loaded = store.load(now, &boot).unwrap();
        assert_eq!(loaded.bans[0].ban.expires, far.ban.expires);
        assert_eq!(loaded.bans[0].deadline, far.deadline);
    }
}

#[test]
fn trust_and_proof_live_on_for_the_time_that_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (boot, later_boot) = (BootId::new("a"), BootId::new("b"));
    let mut store = Store::open(dir.path()).unwrap();
    let (phone, pbx) = ("192.0.2.1".parse().unwrap(), "2001:db8::/64".parse().unwrap());
    let mut batch = Batch::default();
    let home = |port| Endpoint {
        address: [192, 0, 2, 1].into(),
        protocol: 17,
        port,
        hops: 57,
    };
    let endpoints = |trust: Duration| {
        [
            (home(5060), trust),
            (home(40_000), trust - Duration::from_millis(2_500)),
        ]
    };
    let until = Duration::from_secs(1_600);
    batch.put_trust(
        phone,
        ("al\"ice", until),
        endpoints(until).into_iter(),
        clock(1_000),
        &boot,
    );
    batch.put_proof(pbx, Proof::Tcp, Duration::from_secs(1_300), clock(1_000), &boot);
    batch.put_proof(
        phone,
        Proof::Nonce,
        Duration::from_secs(1_300),
        clock(1_000),
        &boot,
    );
    batch.remove_proof(phone);
    store.write(&batch).unwrap();

    // A restart while the wall clock is stepped, and a reboot 100 s of wall time later.
    let mut stepped = clock(1_100);
    stepped.wall += DAY;
    let mut rebooted = clock(20);
    rebooted.wall += Duration::from_secs(100);
    for (now, boot, ends) in [
        (stepped, &boot, [1_600, 1_300]),
        (rebooted, &later_boot, [520, 220]),
    ] {
        let loaded = store.load(now, boot).unwrap();
        let [trust, proof] = ends.map(Duration::from_secs);
        let expected = LoadedTrust {
            target: phone,
            account: "al\"ice".to_owned(),
            until: trust,
            endpoints: endpoints(trust).to_vec(),
        };
        assert_eq!(loaded.trust, [expected]);
        assert_eq!(loaded.proof, [(pbx, Proof::Tcp, proof)]);
        assert_eq!(loaded.unreadable, 0);
    }
}

#[test]
fn a_store_from_before_there_was_trust_opens_and_gets_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let boot = BootId::new("a");
    let mut store = Store::open(dir.path()).unwrap();
    store
        .write(&batch_of(&[entry("192.0.2.1", None, clock(0))], clock(0), &boot))
        .unwrap();
    {
        let transaction = store.database.as_ref().unwrap().begin_write().unwrap();
        for table in [Table::Trust, Table::Proof] {
            assert!(transaction.delete_table(table.definition()).unwrap());
        }
        transaction.commit().unwrap();
    }
    drop(store);
    let mut store = Store::open(dir.path()).unwrap();
    let loaded = store.load(clock(0), &boot).unwrap();
    assert_eq!(
        (loaded.bans.len(), loaded.trust.len(), loaded.unreadable),
        (1, 0, 0)
    );
    let mut batch = Batch::default();
    batch.put_trust(
        "192.0.2.1".parse().unwrap(),
        ("bob", DAY),
        std::iter::empty(),
        clock(0),
        &boot,
    );
    store.write(&batch).unwrap();
    assert_eq!(store.load(clock(0), &boot).unwrap().trust.len(), 1);
}

#[test]
fn trust_from_before_there_were_endpoints_is_read() {
    let record =
        br#"{"account":"bob","until":"2026-01-01T00:00:00Z","deadline":{"boot_id":"a","nanoseconds":7}}"#;
    let target = "192.0.2.1".parse().unwrap();
    let expected = LoadedTrust {
        target,
        account: "bob".to_owned(),
        until: Duration::from_nanos(7),
        endpoints: Vec::new(),
    };
    assert_eq!(
        read_trust(target, record, clock(0), &BootId::new("a")).unwrap(),
        expected
    );
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    {
        let store = Store::open(dir.path()).unwrap();
        let transaction = store.database.as_ref().unwrap().begin_write().unwrap();
        transaction
            .open_table(META)
            .unwrap()
            .insert(SCHEMA_KEY, SCHEMA + 2)
            .unwrap();
        transaction.commit().unwrap();
    }
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 3, .. }), "{error}");
    assert!(error.to_string().starts_with(&format!(
        "{} was written by a newer sip-filter (schema 3, this version reads 1)",
        path.display()
    )));
    let again = Store::open(dir.path()).unwrap_err();
    assert!(matches!(again, StoreError::Newer { found: 3, .. }));
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    {
        let boot = BootId::new("a");
        let mut store = Store::open(dir.path()).unwrap();
        let entries: Vec<_> = (0..200)
            .map(|host| entry(&format!("192.0.2.{host}"), None, clock(0)))
            .collect();
        store.write(&batch_of(&entries, clock(0), &boot)).unwrap();
    }
    let good = std::fs::read(&path).unwrap();
    let mut scribbled = good.clone();
    for byte in scribbled.iter_mut().skip(4_096).step_by(7) {
        *byte ^= 0x55;
    }
    let garbage = vec![b'x'; 100_000];
    for bad in [garbage, good[..good.len() / 3].to_vec(), scribbled] {
        std::fs::write(&path, &bad).unwrap();
        let error = Store::open(dir.path())
            .and_then(|store| store.load(clock(0), &BootId::new("a")))
            .unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(
            error.to_string().starts_with(&path.display().to_string()),
            "{error}"
        );
        assert!(std::fs::read(&path).unwrap() == bad, "changed");
    }
}

/// Damage at many places: it is found, or undone, and nobody is banned who was not.
#[test]
fn no_damage_makes_bans_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let boot = BootId::new("a");
    let known: std::collections::BTreeSet<String> = {
        let mut store = Store::open(dir.path()).unwrap();
        // Several commits, so that there are earlier states to go back to.
        let entries: Vec<_> = (0..120)
            .map(|host| entry(&format!("192.0.2.{host}"), None, clock(0)))
            .collect();
        for some in entries.chunks(40) {
            store.write(&batch_of(some, clock(0), &boot)).unwrap();
        }
        entries.iter().map(|entry| entry.ban.target.to_string()).collect()
    };
    let good = std::fs::read(&path).unwrap();
    let places = 200;
    let (mut refused, mut whole) = (0, 0);
    for number in 0..places {
        let mut bad = good.clone();
        let at = number * good.len() / places + number % 13;
        if number % 10 == 9 {
            bad.truncate(at);
        } else {
            bad[at] ^= 1 << (number % 8);
        }
        std::fs::write(&path, &bad).unwrap();
        match Store::open(dir.path()).and_then(|store| store.load(clock(0), &boot)) {
            Err(error) => {
                refused += 1;
                assert!(
                    matches!(error, StoreError::Damaged { .. } | StoreError::Newer { .. }),
                    "{error}"
                );
                assert!(
                    error.to_string().starts_with(&path.display().to_string()),
                    "{error}"
                );
            }
            Ok(loaded) => {
                let found = loaded.bans.iter().map(|entry| entry.ban.target.to_string());
                let found: std::collections::BTreeSet<String> = found.collect();
                assert!(found.is_subset(&known), "at {at}: {found:?}");
                whole += usize::from(found == known);
            }
        }
    }
    println!("{places} damages: {refused} refused, {whole} without a loss");
    assert!(refused > 0 && whole > 0);
}

/// A change that was taken back, or made again and again, asks for no more room than what it is in the end.
#[test]
fn what_waits_for_a_disk_does_not_grow_with_time() {
    let boot = BootId::new("a");
    let mut waiting = Batch::default();
    for _ in 0..1_000 {
        waiting.append(batch_of(&[entry("192.0.2.1", None, clock(0))], clock(0), &boot));
        let mut back = Batch::default();
        back.remove_ban("192.0.2.2".parse().unwrap());
        waiting.append(back);
    }
    assert_eq!((waiting.0.len(), waiting.removals()), (2, 1));
    waiting.forget(&batch_of(
        &[entry("192.0.2.1", Some(9), clock(0))],
        clock(0),
        &boot,
    ));
    assert_eq!(waiting.0.len(), 1);
}

#[test]
fn a_record_that_cannot_be_understood_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let future = br#"{"origin":"fleet","created":"2030-01-01T00:00:00Z","expires":null}"#;
    let target: Target = "192.0.2.1".parse().unwrap();
    store
        .write(&Batch([((Table::Bans, target), Some(future.to_vec()))].into()))
        .unwrap();
    for _ in 0..2 {
        let loaded = store.load(clock(0), &BootId::new("a")).unwrap();
        assert_eq!((loaded.bans.len(), loaded.unreadable), (0, 1));
    }
}

#[test]
fn fifty_thousand_bans_are_saved_in_few_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let boot = BootId::new("a");
    let entries: Vec<_> = (0_u32..50_000)
        .map(|host| {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + host);
            entry(&ip.to_string(), Some(86_400), clock(0))
        })
        .collect();
    let mut store = Store::open(dir.path()).unwrap();
    let start = Instant::now();
    store.write(&batch_of(&entries, clock(0), &boot)).unwrap();
    let took = start.elapsed();
    assert_eq!(store.load(clock(0), &boot).unwrap().bans.len(), 50_000);
    // A release build on an idle machine takes well under two seconds; one transaction a ban would take minutes. Between
    // them there is room for any machine that is busy with something else.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn the_writer_has_written_when_it_says_so_and_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let boot = BootId::new("a");
    let writer = Writer::start(Store::open(dir.path()).unwrap()).unwrap();
    let receipts: Vec<Receipt> = (0..100)
        .map(|host| {
            let entries = [entry(&format!("192.0.2.{host}"), None, clock(0))];
            writer.submit(batch_of(&entries, clock(0), &boot))
        })
        .collect();
    for receipt in receipts {
        receipt.wait().unwrap();
    }
    let killed = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join(FILE), killed.path().join(FILE)).unwrap();
    let count = |path: &Path| {
        Store::open(path)
            .unwrap()
            .load(clock(0), &boot)
            .unwrap()
            .bans
            .len()
    };
    assert_eq!(count(killed.path()), 100);

    let mut batch = Batch::default();
    batch.remove_ban("192.0.2.7".parse().unwrap());
    writer.submit(batch).detach();
    assert!(writer.trouble().is_none());
    drop(writer);
    assert_eq!(count(dir.path()), 99);
}

#[test]
fn only_the_daemon_and_its_group_reach_the_store_and_only_the_daemon_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(Store::open(&state).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // Some systems' umask takes more away; nothing may add to it.
    assert_eq!(mode(&state) & !0o750, 0);
    assert_eq!(mode(&state.join(FILE)), 0o600);
    // One that somebody opened up, or that is from before, is closed again.
    std::fs::set_permissions(state.join(FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&state).unwrap());
    assert_eq!(mode(&state.join(FILE)), 0o600);
}
