//! What attackers do, and when they are stopped.

use super::*;

#[test]
fn five_refused_in_a_minute_are_a_full_ban() {
    let mut site = Site::new();
    for number in 1..=5 {
        assert_eq!(site.bans(), [], "{number}");
        site.register(source(1), "1001", false);
        site.wait(10_000);
    }
    assert_eq!(site.bans(), [(Rule::AuthFailure, 5, true)]);
    // One of them a minute too early.
    let mut site = Site::new();
    site.register(source(1), "1001", false);
    site.wait(60_001);
    for _ in 0..4 {
        site.register(source(1), "1001", false);
    }
    assert_eq!(site.bans(), []);
}

#[test]
fn guesses_that_look_like_one_request_are_counted_one_by_one() {
    let mut site = Site::new();
    let challenged = site.begin(source(1), "1001");
    let guess = |site: &mut Site, response: u32| site.guess(source(1), "1001", &challenged, response);
    for response in 0..4 {
        guess(&mut site, response);
    }
    // The last is sent again, as is its answer.
    let asked = guess(&mut site, 3);
    for _ in 0..20 {
        site.answer(&asked, 401, "");
    }
    assert_eq!(site.bans(), []);
    guess(&mut site, 4);
    site.answer(&asked, 401, "");
    assert_eq!(site.bans(), [(Rule::AuthFailure, 5, true)]);
}

#[test]
fn one_try_in_twenty_seconds_is_stopped_within_minutes() {
    let mut site = Site::new();
    let begin = site.now;
    while site.bans().is_empty() {
        site.wait(20_000);
        site.register(source(1), "1001", false);
        assert!(site.now - begin <= Duration::from_secs(240));
    }
    assert_eq!(site.now - begin, Duration::from_secs(240));
}

#[test]
fn a_login_in_between_resets() {
    let mut site = Site::new();
    for _ in 0..10 {
        for _ in 0..4 {
            site.register(source(1), "1001", false);
        }
        site.register(source(1), "1001", true);
    }
    assert_eq!(site.bans(), []);
    // But not for other accounts: who has one may still not guess those of others.
    for number in 0..19 {
        site.register(source(1), "1002", false);
        site.register(source(1), "1001", true);
        assert_eq!(site.bans(), [], "{number}");
    }
    site.register(source(1), "1002", false);
    assert_eq!(site.bans(), [(Rule::AuthFailure, 20, true)]);
}

#[test]
fn many_accounts_with_one_password_each() {
    let mut site = Site::new();
    for number in 0..8 {
        assert_eq!(site.bans(), [], "{number}");
        site.register(source(1), &format!("{number}"), false);
        site.wait(6_000);
    }
    let bans = decisions(std::mem::take(&mut site.said));
    assert_eq!((bans[0].rule, bans[0].evidence.accounts), (Rule::AccountScan, 8));
    assert!(bans[0].proven && !bans[0].evidence.sample.is_empty());
    // Slower: one in two minutes.
    let mut site = Site::new();
    for number in 0..20 {
        assert_eq!(site.bans(), [], "{number}");
        site.register(source(1), &format!("{number}"), false);
        site.wait(120_000);
    }
    assert_eq!(site.bans(), [(Rule::AccountScan, 20, true)]);
}

fn probe(site: &mut Site, method: &str, user: &str, status: u16) {
    let asked = site.ask(source(1), method, (user, user), None, site::CONTACT);
    match status {
        401 => site.challenge(&asked),
        status => site.answer(&asked, status, ""),
    }
}

#[test]
fn accounts_that_do_not_exist() {
    for method in ["REGISTER", "OPTIONS"] {
        for status in [403, 404] {
            let mut site = Site::new();
            for number in 0..8 {
                assert_eq!(site.bans(), [], "{method} {status} {number}");
                probe(&mut site, method, &format!("{number}"), status);
                site.wait(5);
            }
            // The address may be forged: the ban is short, and the next probe after it begins another, before it is
            // answered.
            assert_eq!(site.bans(), [(Rule::AccountScan, 8, false)]);
            site.wait(30_000);
            probe(&mut site, method, "9", status);
            assert_eq!(site.bans(), [(Rule::AccountScan, 8, false)]);
            // A minute later, nothing is left of it.
            site.wait(60_000);
            probe(&mut site, method, "10", status);
            assert_eq!(site.bans(), []);
        }
    }
}

#[test]
fn accounts_abandoned_after_their_challenge() {
    let mut site = Site::new();
    for number in 0..8 {
        probe(&mut site, "REGISTER", &format!("{number}"), 401);
        site.wait(100);
    }
    assert_eq!(site.bans(), []);
    // Five seconds after the eighth challenge, the first moment at which all eight count.
    site.wait(4_800);
    probe(&mut site, "REGISTER", "8", 401);
    assert_eq!(site.bans(), []);
    site.wait(100);
    probe(&mut site, "REGISTER", "9", 401);
    assert_eq!(site.bans(), [(Rule::AccountScan, 8, false)]);
    // One that is asked for again and again is a phone without a password.
    let mut site = Site::new();
    for _ in 0..100 {
        probe(&mut site, "REGISTER", "1001", 401);
        site.wait(5_000);
    }
    assert_eq!(site.bans(), []);
}

#[test]
fn numbers_dialled_in_vain() {
    for status in [403, 404, 484] {
        let mut site = Site::new();
        for number in 0..10 {
            assert_eq!(site.bans(), [], "{status} {number}");
            site.dial(source(1), &format!("00{number}"), status);
            site.wait(5_000);
        }
        assert_eq!(site.bans(), [(Rule::DialplanProbe, 10, false)]);
    }
    // Challenged, and no credentials come.
    let mut site = Site::new();
    for number in 0..10 {
        site.dial(source(1), &format!("00{number}"), 407);
    }
    site.wait(5_000);
    assert_eq!(site.bans(), []);
    site.dial(source(1), "0011", 407);
    assert_eq!(site.bans(), [(Rule::DialplanProbe, 10, false)]);
    // Too slowly.
    let mut site = Site::new();
    for number in 0..100 {
        site.dial(source(1), &format!("00{number}"), 404);
        site.wait(7_000);
    }
    assert_eq!(site.bans(), []);
}

#[test]
fn one_number_with_many_prefixes() {
    let mut site = Site::new();
    for prefix in ["", "9", "00", "900", "011"] {
        assert_eq!(site.bans(), [], "{prefix}");
        site.dial(source(1), &format!("{prefix}441234567"), 404);
    }
    assert_eq!(site.bans(), [(Rule::DialplanProbe, 5, false)]);
}

#[test]
fn one_account_attacked_from_fifty_sources() {
    let mut site = Site::new();
    // The owner, who knows the password, but once mistypes it.
    site.register(source(0), "1001", true);
    for round in 0..2 {
        for number in 1..=50 {
            site.register(source(number), "1001", false);
            let alarms: Vec<_> = site
                .said
                .iter()
                .filter(|said| matches!(said, Conclusion::Alarm(_)))
                .collect();
            assert_eq!(
                alarms.len(),
                usize::from(round == 0 && number == 10),
                "{round} {number}"
            );
            if let [Conclusion::Alarm(alarm)] = alarms[..] {
                assert_eq!(alarm.account.as_deref(), Some("1001"));
                assert_eq!((alarm.evidence.count, alarm.target), (10, None));
            }
            let bans = site.bans();
            let banned = bans.iter().any(|(rule, ..)| *rule == Rule::AuthFailure);
            assert_eq!(banned, round == 1, "{round} {number}: {bans:?}");
            site.wait(5_000);
        }
    }
    for _ in 0..3 {
        site.register(source(0), "1001", false);
    }
    site.register(source(0), "1001", true);
    assert_eq!(site.bans(), []);
}

#[test]
fn many_bans_in_one_network_are_one() {
    let attack = |site: &mut Site, number: u32| {
        for _ in 0..5 {
            site.register(source(number), &format!("{number}"), false);
        }
        decisions(std::mem::take(&mut site.said))
    };
    let mut site = Site::new();
    for number in 1..5 {
        assert_eq!(attack(&mut site, number).len(), 1);
    }
    // The neighbours' network does not count.
    assert_eq!(attack(&mut site, 256).len(), 1);
    let bans = attack(&mut site, 5);
    assert_eq!(bans.len(), 2);
    assert_eq!(bans[1].rule, Rule::NetworkAggregate);
    assert_eq!(bans[1].target.to_string(), "10.0.0.0/24");
    assert_eq!(
        (bans[1].evidence.count, bans[1].ban_for),
        (5, Duration::from_secs(3600))
    );
    // Not if a customer lives there.
    let mut site = Site::new();
    site.register(source(77), "77", true);
    for number in 1..10 {
        assert_eq!(attack(&mut site, number).len(), 1);
    }
    // Not if they are an hour apart.
    let mut site = Site::new();
    for number in 1..10 {
        assert_eq!(attack(&mut site, number).len(), 1);
        site.wait(900_000);
    }
    // And not more networks than configured.
    let mut config = DetectConfig::default();
    config.network_aggregate.max_networks = 2;
    let mut site = Site::with(config);
    let mut networks = 0;
    for number in 0..(256 * 4) {
        if number % 256 < 5 {
            networks += attack(&mut site, number)
                .iter()
                .filter(|ban| ban.rule == Rule::NetworkAggregate)
                .count();
        }
    }
    assert_eq!(networks, 2);
}

#[test]
fn a_scanner_that_hides_its_name() {
    let mut site = Site::new();
    let contact = "Contact: <sip:x@192.0.2.10>\r\n";
    for number in 0..3 {
        assert_eq!(site.bans(), [], "{number}");
        let user = format!("{number}");
        let asked = site.ask(source(1), "REGISTER", (&user, &user), None, contact);
        site.challenge(&asked);
    }
    assert_eq!(site.bans(), [(Rule::ScannerSignature, 1, false)]);
}

#[test]
fn tcp_proves_when_it_is_answered() {
    let mut site = Site::new();
    site.protocol = 6;
    let target = site.engine.target(source(1));
    let asked = site.ask(source(1), "OPTIONS", ("a", "a"), None, "");
    assert_eq!(site.engine.standing(target, site.now).proven, None);
    site.answer(&asked, 404, "");
    assert_eq!(site.engine.standing(target, site.now).proven, Some(Proof::Tcp));
    for number in 1..8 {
        probe(&mut site, "OPTIONS", &format!("{number}"), 404);
    }
    assert_eq!(site.bans(), [(Rule::AccountScan, 8, true)]);
}
