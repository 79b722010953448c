//! From where trusted sources are believed to be themselves.

use super::{site::*, *};
use crate::{
    bans::Endpoint,
    detect::{Alarm, AtHome},
};

/// Endpoints learnt since the last call: protocol, port, hop limit, and for how long.
fn learnt(site: &mut Site) -> Vec<(u8, u16, u8, u64)> {
    let now = site.now;
    let said = std::mem::take(&mut site.said).into_iter();
    said.filter_map(|said| match said {
        Conclusion::AtHome(AtHome {
            endpoint: Endpoint {
                protocol, port, hops, ..
            },
            until,
            ..
        }) => Some((protocol, port, hops, until.saturating_sub(now).as_secs())),
        _ => None,
    })
    .collect()
}

#[test]
fn a_registration_teaches_from_where_it_came() {
    let mut site = Site::new();
    site.place = (31_000, 57);
    let challenged = site.begin(source(1), "1001");
    assert_eq!(learnt(&mut site), []);
    let asked = site.ask(
        source(1),
        "REGISTER",
        ("1001", "1001"),
        Some(&challenged.nonce),
        CONTACT,
    );
    // The answer has another hop limit, and goes to the port in Via.
    site.place = (5060, 64);
    site.answer(&asked, 200, "Contact: <sip:x@10.9.9.9>;expires=600\r\n");
    assert_eq!(learnt(&mut site), [(17, 31_000, 57, 600)]);
    // Another phone behind the same address, by TCP.
    (site.place, site.protocol) = ((50_123, 58), 6);
    site.register(source(1), "1002", true);
    assert_eq!(learnt(&mut site), [(6, 50_123, 58, 3_600)]);
}

#[test]
fn accepted_credentials_teach_as_long_as_trust_lasts() {
    let mut site = Site::new();
    let call = |site: &mut Site, from| {
        let asked = site.ask(from, "INVITE", ("1001", "100"), None, "");
        site.challenge(&asked);
        let nonce = asked.nonce;
        let again = site.ask(from, "INVITE", ("1001", "100"), Some(&nonce), "");
        site.answer(&again, 200, "");
        learnt(site)
    };
    assert_eq!(call(&mut site, source(1)), [], "it is not registered");
    site.register(source(1), "1001", true);
    learnt(&mut site);
    site.wait(600_000);
    site.place = (40_000, 60);
    assert_eq!(call(&mut site, source(1)), [(17, 40_000, 60, 3_000)]);
    site.wait(3_000_000);
    assert_eq!(call(&mut site, source(1)), [], "trust has ended");
}

#[test]
fn what_a_forger_sends_teaches_nothing() {
    let mut site = Site::new();
    site.register(source(1), "1001", true);
    learnt(&mut site);
    site.place = (5060, 50);
    // Without a password, with a wrong one, and with a nonce of his own.
    let challenged = site.begin(source(1), "1001");
    let forged = site.ask(source(1), "REGISTER", ("1001", "1001"), Some("mine"), CONTACT);
    site.challenge(&forged);
    site.finish(source(1), "1001", &challenged, false);
    // An open server answers OPTIONS and calls, too.
    let asked = site.ask(source(1), "OPTIONS", ("1001", "1001"), None, "");
    site.answer(&asked, 200, "");
    site.dial(source(1), "100", 200);
    // A REGISTER without Contact only asks.
    let asked = site.ask(source(1), "REGISTER", ("1001", "1001"), None, "");
    site.answer(&asked, 200, "Contact: <sip:x@10.9.9.9>;expires=600\r\n");
    assert_eq!(learnt(&mut site), []);
    // What two places sent alike is nobody's.
    let challenged = site.begin(source(1), "1001");
    let _ = site.guess(source(1), "1001", &challenged, 1);
    site.place = (5060, 64);
    let asked = site.guess(source(1), "1001", &challenged, 2);
    site.answer(&asked, 200, "Contact: <sip:x@10.9.9.9>;expires=600\r\n");
    assert_eq!(learnt(&mut site), []);
}

fn all(engine: &mut Engine, seen: Observation<'_>) -> Vec<Conclusion> {
    let mut said = Vec::new();
    engine.observe(&seen, &mut said);
    said
}

#[test]
fn a_flood_of_strays_is_reported_and_not_held_against_the_source() {
    let mut engine = Engine::new(DetectConfig::default(), 64);
    let target = engine.target(source(1));
    engine.restore_trust(target, "1001", ms(600_000));
    engine.restore_proof(target, Proof::Registration, ms(600_000));
    let threshold = engine.config().settings(Rule::FloodRegister).threshold;
    let stray = |time, count| Observation {
        kind: EventKind::OverLimit,
        stray: true,
        hops: 50,
        count,
        ..packet(time, source(1), Class::Register)
    };
    let below = u32::try_from(threshold - 1).unwrap();
    assert_eq!(all(&mut engine, stray(ms(0), below)), []);
    let said = all(&mut engine, stray(ms(10), 1));
    let [
        Conclusion::Alarm(Alarm {
            rule: Rule::FloodRegister,
            target: Some(of),
            evidence,
            message,
            ..
        }),
    ] = &said[..]
    else {
        panic!("{said:?}");
    };
    assert_eq!((*of, evidence.count), (target, threshold));
    assert!(message.contains("probably forged") && message.contains("hop limit 50"));
    // Once a minute.
    assert_eq!(all(&mut engine, stray(ms(1_000), below)), []);
    assert_eq!(all(&mut engine, stray(ms(61_000), below + 1)).len(), 1);
    // What it sends itself is another matter, and who is not trusted has no strays.
    let own = Observation {
        stray: false,
        ..stray(ms(200_000), below + 1)
    };
    assert_eq!(all(&mut engine, own), []);
    assert!(matches!(
        &all(&mut engine, stray(ms(700_000), below + 1))[..],
        [Conclusion::Ban(_)]
    ));
}
