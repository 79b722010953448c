//! What customers do. None of it may be held against them.

use super::*;
use crate::detect::{Alarm, Proven};

const OFFICE: u32 = 80;

fn alarms(site: &Site) -> Vec<&Alarm> {
    let mut alarms = Vec::new();
    for said in &site.said {
        if let Conclusion::Alarm(alarm) = said {
            alarms.push(alarm);
        }
    }
    alarms
}

/// All phones of an office ask at once; `slow` of them answer their challenges only after five seconds.
fn office(site: &mut Site, slow: usize) {
    let users: Vec<String> = (0..OFFICE).map(|number| format!("{}", 2000 + number)).collect();
    let challenged: Vec<_> = users
        .iter()
        .map(|user| {
            site.wait(1);
            site.begin(source(1), user)
        })
        .collect();
    site.wait(300);
    let (late, early) = users.split_at(slow);
    for (user, challenged) in early.iter().zip(&challenged[slow..]) {
        site.wait(1);
        site.finish(source(1), user, challenged, true);
    }
    site.wait(5_000);
    for (user, challenged) in late.iter().zip(&challenged) {
        site.finish(source(1), user, challenged, true);
    }
}

#[test]
fn eighty_phones_behind_one_address_register_at_once() {
    for slow in [0, 20, 79] {
        let mut site = Site::new();
        office(&mut site, slow);
        assert_eq!(site.bans(), [], "{slow}");
        let target = site.engine.target(source(1));
        let standing = site.engine.standing(target, site.now);
        assert_eq!(standing.accounts, 80);
        assert_eq!(standing.proven, Some(Proof::Registration));
        assert!(standing.trusted_until.is_some());
        // Each hour again.
        for _ in 0..3 {
            site.wait(3_500_000);
            office(&mut site, slow);
        }
        // After an outage that outlasted the registrations.
        site.wait(3 * 3_600_000);
        office(&mut site, slow);
        assert_eq!(site.bans(), []);
    }
}

/// Their answers were not shown to the engine, only counted: what was not seen must not count against anybody.
#[test]
fn answers_that_were_not_shown_are_not_abandoned_challenges() {
    for (kind, class) in [
        (EventKind::Snapshot, Class::Register),
        (EventKind::Response, Class::Response),
    ] {
        let mut site = Site::new();
        for phone in 0..64 {
            site.begin(source(1), &format!("{phone}"));
        }
        site.wait(67);
        site.missed(source(1), kind, class, 96);
        site.wait(10_000);
        site.begin(source(1), "again");
        assert_eq!(site.bans(), [], "{kind:?}");
    }
}

/// Forty phones on a bad line, each of which takes longer to answer than anybody should wait.
#[test]
fn late_answers_take_back_what_was_taken_for_abandoned() {
    let mut site = Site::new();
    let challenged: Vec<_> = (0..40)
        .map(|phone| site.begin(source(1), &format!("{phone}")))
        .collect();
    site.wait(8_000);
    for (phone, challenged) in challenged.iter().enumerate() {
        site.finish(source(1), &format!("{phone}"), challenged, true);
        site.wait(50);
    }
    assert_eq!(site.bans(), []);
    let standing = site.engine.standing(site.engine.target(source(1)), site.now);
    assert_eq!(standing.accounts, 40);
}

#[test]
fn one_phone_in_an_office_tries_a_wrong_password_for_ever() {
    let mut site = Site::new();
    office(&mut site, 0);
    site.said.clear();
    for minute in 0..180 {
        if minute % 30 == 0 {
            office(&mut site, 0);
        }
        site.register(source(1), "3000", false);
        site.wait(20_000);
        site.register(source(1), "3000", false);
        site.wait(10_000);
    }
    let alarms = alarms(&site);
    assert!(alarms.len() > 10, "{}", alarms.len());
    assert_eq!(alarms[0].account.as_deref(), Some("3000"));
    assert_eq!(alarms[0].target, Some(site.engine.target(source(1))));
    assert_eq!(site.bans(), []);
}

#[test]
fn a_wrong_password_every_minute_for_three_hours() {
    for tries in [1, 2] {
        let mut site = Site::new();
        for _ in 0..180 {
            for _ in 0..tries {
                site.register(source(1), "1001", false);
            }
            site.wait(60_000);
        }
        assert_eq!(site.bans(), []);
        site.register(source(1), "1001", true);
        assert_eq!(site.bans(), []);
    }
}

#[test]
fn a_password_mistyped_once_and_mended() {
    let mut site = Site::new();
    for _ in 0..20 {
        for _ in 0..4 {
            site.register(source(1), "1001", false);
            site.wait(2_000);
        }
        site.register(source(1), "1001", true);
        site.wait(2_000);
    }
    assert_eq!(site.bans(), []);
}

#[test]
fn a_stale_nonce_is_no_failure() {
    let mut site = Site::new();
    for number in 0..50 {
        let challenged = site.begin(source(1), "1001");
        let asked = site.ask(
            source(1),
            "REGISTER",
            ("1001", "1001"),
            Some(&challenged.nonce),
            site::CONTACT,
        );
        let more = format!("WWW-Authenticate: Digest realm=\"x\", nonce=\"s{number}\", stale=TRUE\r\n");
        site.answer(&asked, 401, &more);
        site.wait(1_000);
    }
    assert_eq!(site.bans(), []);
}

#[test]
fn a_call_centre_with_credentials_whose_nonce_ends_in_the_middle() {
    let mut site = Site::new();
    let asked = site.ask(source(1), "INVITE", ("centre", "5550000"), None, "");
    site.challenge(&asked);
    let first = site.ask(source(1), "INVITE", ("centre", "5550000"), Some(&asked.nonce), "");
    site.answer(&first, 200, "");
    for number in 0..3_000 {
        site.wait(20);
        let number = number % 2_000;
        let dialled = format!("555{number:04}");
        let call = site.ask(source(1), "INVITE", ("centre", &dialled), Some(&asked.nonce), "");
        // The server forgets the nonce for a while, and does not say so.
        match number {
            1_000..1_200 => site.answer(&call, 407, ""),
            1_500..1_600 => site.answer(&call, 404, ""),
            _ => site.answer(&call, 200, ""),
        }
    }
    assert_eq!(site.bans(), []);
}

#[test]
fn a_call_centre_that_does_not_register() {
    let mut site = Site::new();
    // 50 calls a second, each challenged first, a fifth of them to numbers that do not exist, the rest ring.
    for number in 0..15_000 {
        site.wait(20);
        let number = format!("0049{number:07}");
        let asked = site.ask(source(1), "INVITE", ("centre", &number), None, "");
        site.challenge(&asked);
        let asked = site.ask(source(1), "INVITE", ("centre", &number), Some(&asked.nonce), "");
        if number.ends_with(['3', '8']) {
            site.answer(&asked, 404, "");
        }
    }
    // And one whose address is all it shows.
    for number in 0..15_000 {
        site.wait(20);
        let status = [200, 486, 404, 480, 487][number % 5];
        site.dial(source(2), &format!("0049{number:07}"), status);
    }
    assert_eq!(site.bans(), []);
}

#[test]
fn an_exchange_that_asks_each_second() {
    let mut site = Site::new();
    for number in 0..3_600 {
        let status = [200, 404, 401][number / 1_200];
        let asked = site.ask(source(1), "OPTIONS", ("ping", "ping"), None, "");
        site.answer(&asked, status, "");
        site.wait(1_000);
    }
    assert_eq!(site.bans(), []);
}

#[test]
fn nothing_is_held_against_a_customer_that_others_can_send_in_its_name() {
    let mut site = Site::new();
    site.register(source(1), "1001", true);
    site.said.clear();
    for number in 0..2_000 {
        site.wait(5);
        let user = format!("{number}");
        let guess = site.ask(
            source(1),
            "REGISTER",
            ("1001", "1001"),
            Some("made up"),
            site::CONTACT,
        );
        site.answer(&guess, 401, "");
        let probe = site.ask(source(1), "REGISTER", (&user, &user), None, site::CONTACT);
        site.answer(&probe, 404, "");
        let scan = site.ask(
            source(1),
            "OPTIONS",
            (&user, &user),
            None,
            "User-Agent: sipvicious\r\n",
        );
        site.answer(&scan, 404, "");
        site.dial(source(1), &format!("{number}5551234"), 404);
    }
    assert_eq!(site.said, []);
}

#[test]
fn forged_requests_in_an_unknown_name_ban_for_moments_only() {
    let mut site = Site::new();
    for number in 0..5_000 {
        site.wait(20);
        let user = format!("{}", number % 3);
        let guess = site.ask(
            source(1),
            "REGISTER",
            (&user, &user),
            Some("made up"),
            site::CONTACT,
        );
        site.answer(&guess, 401, "");
    }
    let bans = decisions(std::mem::take(&mut site.said));
    assert!(bans.len() > 2);
    assert!(
        bans.iter()
            .all(|ban| ban.ban_for <= Duration::from_secs(30) && !ban.proven)
    );
    let target = site.engine.target(source(1));
    assert_eq!(site.engine.standing(target, site.now).proven, None);
}

#[test]
fn trust_begins_ends_and_is_told() {
    let mut site = Site::new();
    let target = site.engine.target(source(1));
    site.register(source(1), "1001", true);
    let until = site.now + Duration::from_secs(3600);
    assert!(matches!(
        &site.said[..],
        [
            Conclusion::Proven(Proven { by: Proof::Nonce, .. }),
            Conclusion::Proven(Proven { by: Proof::Registration, .. }),
            Conclusion::Trusted(trusted),
            Conclusion::AtHome(_),
        ] if trusted.account == "1001" && trusted.until == until && trusted.target == target
    ));
    site.register(source(1), "1002", true);
    site.said.clear();
    let gone = |site: &mut Site, user: &str| {
        let challenged = site.begin(source(1), user);
        let more = "Contact: *\r\nExpires: 0\r\n";
        let asked = site.ask(source(1), "REGISTER", (user, user), Some(&challenged.nonce), more);
        site.answer(&asked, 200, "");
        std::mem::take(&mut site.said)
    };
    assert_eq!(gone(&mut site, "1001"), []);
    assert_eq!(gone(&mut site, "1002"), [Conclusion::Distrusted(target)]);
    assert_eq!(site.engine.standing(target, site.now).trusted_until, None);
    // Without a time the server named, and with one that is too long.
    for (more, seconds) in [
        ("Contact: <sip:x@10.9.9.9>\r\n", 3_600),
        ("Contact: <sip:x@10.9.9.9>\r\nExpires: 60\r\n", 60),
        (
            "Contact: <sip:y@10.9.9.8>;expires=5, <sip:x@10.9.9.9>;expires=99999999\r\n",
            86_400,
        ),
    ] {
        let challenged = site.begin(source(1), "1001");
        let asked = site.ask(
            source(1),
            "REGISTER",
            ("1001", "1001"),
            Some(&challenged.nonce),
            site::CONTACT,
        );
        site.answer(&asked, 200, more);
        let until = site.engine.standing(target, site.now).trusted_until;
        assert_eq!(until, Some(site.now + Duration::from_secs(seconds)));
    }
}
