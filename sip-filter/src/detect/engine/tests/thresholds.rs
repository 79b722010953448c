//! Every rule, and everything it counts: one below the threshold does nothing, at it the rule decides, and what has left
//! the window is forgotten.
//!
//! [`cases`] matches on [`Rule`] and takes the settings of each rule apart, so that a rule or a setting without a place
//! here does not compile.

use std::net::Ipv6Addr;

use super::*;
use crate::detect::{
    AccountScanSettings, AuthFailureSettings, DialplanSettings, DistributedSettings, NetworkSettings,
    RuleSettings, SignatureSettings,
};

/// Something a rule counts.
struct Case {
    name: &'static str,
    rule: Rule,
    /// Whether it ends in an alarm, not a ban.
    alarm: bool,
    threshold: u64,
    /// The count and the threshold that the evidence names.
    evidence: (u64, u64),
    window: Duration,
    /// Between one step and the next.
    pace: Duration,
    /// Other rules that have to do with it as well.
    beside: &'static [Rule],
    prepare: fn(&mut Site),
    /// What counts once; the number makes it different from others where that matters.
    step: fn(&mut Site, u64),
    /// After that, what makes the engine look.
    look: fn(&mut Site),
    change: fn(&mut DetectConfig),
}

impl Case {
    fn new(
        name: &'static str,
        rule: Rule,
        (threshold, window): (u64, Duration),
        step: fn(&mut Site, u64),
    ) -> Self {
        Self {
            name,
            rule,
            alarm: false,
            threshold,
            evidence: (threshold, threshold),
            window,
            pace: Duration::from_millis(1),
            beside: &[],
            prepare: |_| {},
            step,
            look: |_| {},
            change: |_| {},
        }
    }

    fn pace(self, seconds: u64) -> Self {
        let pace = Duration::from_secs(seconds);
        Self { pace, ..self }
    }

    fn look(self, look: fn(&mut Site)) -> Self {
        Self { look, ..self }
    }

    fn prepare(self, prepare: fn(&mut Site)) -> Self {
        Self { prepare, ..self }
    }

    fn site(&self) -> Site {
        let mut config = DetectConfig::default();
        (self.change)(&mut config);
        let mut site = Site::with(config);
        (self.prepare)(&mut site);
        site.said.clear();
        site
    }

    fn steps(&self, site: &mut Site, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            (self.step)(site, number);
            site.now += self.pace;
        }
    }

    /// What the rule said since the last call: count and threshold; nobody else may have said anything.
    fn found(&self, site: &mut Site, when: &str) -> Vec<(u64, u64)> {
        (self.look)(site);
        let mut found = Vec::new();
        for said in std::mem::take(&mut site.said) {
            let (rule, alarm, evidence) = match said {
                Conclusion::Ban(ban) => (ban.rule, false, ban.evidence),
                Conclusion::Alarm(alarm) => (alarm.rule, true, alarm.evidence),
                _ => continue,
            };
            if (rule, alarm) == (self.rule, self.alarm) {
                found.push((evidence.count, evidence.threshold));
            } else {
                assert!(self.beside.contains(&rule), "{}, {when}: {rule}", self.name);
            }
        }
        found
    }

    fn check(&self) {
        let Self { name, threshold, .. } = *self;
        let mut site = self.site();
        if threshold > 1 {
            self.steps(&mut site, 1..=threshold - 1);
        }
        assert_eq!(self.found(&mut site, "below"), [], "{name}: one below");
        self.steps(&mut site, threshold..=threshold);
        assert_eq!(
            self.found(&mut site, "at"),
            [self.evidence],
            "{name}: at the threshold"
        );
        if threshold == 1 {
            return;
        }
        // The first leaves the window before the last comes.
        let mut site = self.site();
        self.steps(&mut site, 1..=1);
        site.now += self.window;
        self.steps(&mut site, 2..=threshold);
        assert_eq!(
            self.found(&mut site, "expiry"),
            [],
            "{name}: one has left the window"
        );
        self.steps(&mut site, threshold + 1..=threshold + 1);
        let found = self.found(&mut site, "after expiry");
        assert_eq!(found, [self.evidence], "{name}: as many within the window");
    }
}

#[test]
fn every_rule_keeps_to_its_thresholds() {
    for rule in Rule::ALL {
        let cases = cases(rule);
        assert!(!cases.is_empty(), "{rule}");
        for case in cases {
            assert_eq!(case.rule, rule, "{}", case.name);
            case.check();
        }
    }
    for case in alarms() {
        case.check();
    }
}

fn cases(rule: Rule) -> Vec<Case> {
    let config = DetectConfig::default();
    match rule {
        Rule::FloodRegister => vec![counted("REGISTER", rule, config.flood_register, |site, _| {
            plain(site, Class::Register);
        })],
        Rule::FloodInvite => vec![counted("INVITE", rule, config.flood_invite, |site, _| {
            plain(site, Class::Invite);
        })],
        Rule::FloodOptions => vec![counted("OPTIONS", rule, config.flood_options, |site, _| {
            plain(site, Class::Options);
        })],
        Rule::FloodOther => others(config.flood_other),
        Rule::ScannerSignature => marks(&config.scanner_signature),
        Rule::AuthFailure => refused(&config.auth_failure, &config.distributed_auth),
        Rule::AccountScan => accounts(&config.account_scan),
        Rule::DialplanProbe => numbers(&config.dialplan_probe),
        Rule::Garbage => vec![counted("garbage", rule, config.garbage, |site, _| {
            plain(site, Class::Garbage);
        })],
        Rule::DistributedAuth => distributed(&config.distributed_auth),
        Rule::NetworkAggregate => networks(&config.network_aggregate),
    }
}

fn counted(name: &'static str, rule: Rule, settings: RuleSettings, step: fn(&mut Site, u64)) -> Case {
    let RuleSettings {
        enabled: _,
        window,
        threshold,
        shadow: _,
    } = settings;
    Case::new(name, rule, (threshold, window), step)
}

fn plain(site: &mut Site, class: Class) {
    site.engine
        .observe(&packet(site.now, source(1), class), &mut site.said);
}

fn others(settings: RuleSettings) -> Vec<Case> {
    let case = |name, step| Case {
        change: |config| config.garbage.enabled = false,
        ..counted(name, Rule::FloodOther, settings, step)
    };
    vec![
        case("SUBSCRIBE", |site, _| plain(site, Class::Subscribe)),
        case("other request", |site, _| plain(site, Class::OtherRequest)),
        case("response", |site, _| plain(site, Class::Response)),
        case("keep-alive", |site, _| plain(site, Class::KeepAlive)),
        case("flood of garbage", |site, _| plain(site, Class::Garbage)),
    ]
}

/// One is enough by default, below which there is nothing to try: three here.
fn marks(settings: &SignatureSettings) -> Vec<Case> {
    let SignatureSettings {
        enabled: _,
        window,
        threshold,
        shadow: _,
        user_agents,
        extra_user_agents: _,
        from_tags,
        addresses,
        own_contact,
    } = settings;
    assert!(user_agents.iter().any(|agent| agent == "friendly-scanner*"));
    assert!(user_agents.iter().any(|agent| agent == "smap"));
    assert_eq!(
        (&from_tags[..], &addresses[..]),
        (&["3206210844".to_owned()][..], &["100@1.1.1.1".to_owned()][..])
    );
    let case = |name, step| Case {
        change: |config| {
            config.scanner_signature.threshold = 3;
            config.scanner_signature.extra_user_agents = vec!["Evil/*".to_owned()];
        },
        ..Case::new(name, Rule::ScannerSignature, (3, *window), step)
    };
    let first = |name, step| Case {
        change: |config| config.scanner_signature.extra_user_agents = vec!["Evil/*".to_owned()],
        ..Case::new(name, Rule::ScannerSignature, (*threshold, *window), step)
    };
    let agent: fn(&mut Site, u64) =
        |site, _| marked(site, ("a@h", "1"), "b@h", "User-Agent: friendly-scanner 9\r\n");
    let exact: fn(&mut Site, u64) = |site, _| marked(site, ("a@h", "1"), "b@h", "User-Agent: SMAP\r\n");
    let extra: fn(&mut Site, u64) = |site, _| marked(site, ("a@h", "1"), "b@h", "User-Agent: evil/2\r\n");
    let tag: fn(&mut Site, u64) = |site, _| marked(site, ("a@h", "3206210844"), "b@h", "");
    let both: fn(&mut Site, u64) = |site, _| marked(site, ("100@1.1.1.1", "1"), "100@1.1.1.1", "");
    let mut all = Vec::new();
    for (name, step) in [
        ("prefix of a User-Agent", agent),
        ("whole User-Agent", exact),
        ("User-Agent of the operator's", extra),
        ("tag in From", tag),
        ("address in From and To", both),
    ] {
        all.extend([case(name, step), first(name, step)]);
    }
    // Those of the window weigh as one mark, which is enough.
    all.push(Case {
        evidence: (1, *threshold),
        ..Case::new(
            "own Contact",
            Rule::ScannerSignature,
            (*own_contact, *window),
            |site, _| marked(site, ("a@h", "1"), "b@h", "Contact: <sip:a@192.0.2.10>\r\n"),
        )
    });
    all
}

fn marked(site: &mut Site, (from, tag): (&str, &str), to: &str, more: &str) {
    let text =
        format!("REGISTER sip:h SIP/2.0\r\nFrom: <sip:{from}>;tag={tag}\r\nTo: <sip:{to}>\r\n{more}\r\n");
    let seen = Observation {
        payload: text.as_bytes(),
        ..packet(site.now, source(1), Class::Register)
    };
    site.engine.observe(&seen, &mut site.said);
}

fn guess(site: &mut Site, _: u64) {
    site.register(source(1), "1001", false);
}

/// So that no account has too many of its own.
fn guess_three(site: &mut Site, number: u64) {
    site.register(source(1), ["1001", "1002", "1003"][number as usize % 3], false);
}

/// Another phone of the source works.
fn customer(site: &mut Site) {
    site.register(source(1), "2000", true);
}

fn refused(settings: &AuthFailureSettings, distributed: &DistributedSettings) -> Vec<Case> {
    let AuthFailureSettings {
        enabled: _,
        window,
        threshold,
        shadow: _,
        burst_window,
        burst_threshold,
        trusted_factor,
    } = *settings;
    let case = |name, most, window, step| Case::new(name, Rule::AuthFailure, (most, window), step);
    vec![
        case("one account, fast", burst_threshold, burst_window, guess),
        case("one account, slowly", threshold, window, guess).pace(22),
        case(
            "three accounts, fast",
            burst_threshold * 2,
            burst_window,
            guess_three,
        ),
        case("three accounts, slowly", threshold * 2, window, guess_three).pace(11),
        Case {
            beside: &[Rule::AuthFailure],
            ..case(
                "of a customer, fast",
                burst_threshold * trusted_factor,
                burst_window,
                guess,
            )
        }
        .prepare(customer),
        Case {
            beside: &[Rule::AuthFailure],
            ..case("of a customer, slowly", threshold * trusted_factor, window, guess)
        }
        .prepare(customer)
        .pace(5),
        case("an account under attack", distributed.failures, window, guess).prepare(|site| {
            for number in 0..20 {
                site.register(source(100 + number), "1001", false);
            }
        }),
    ]
}

/// A customer's failures are told before they are too many.
fn alarms() -> Vec<Case> {
    let settings = DetectConfig::default().auth_failure;
    let case = |name, most, window| Case {
        alarm: true,
        ..Case::new(name, Rule::AuthFailure, (most, window), guess)
    };
    vec![
        case(
            "alarm of a customer, fast",
            settings.burst_threshold,
            settings.burst_window,
        )
        .prepare(customer),
        case("alarm of a customer, slowly", settings.threshold, settings.window)
            .prepare(customer)
            .pace(22),
    ]
}

fn asked(site: &mut Site, method: &str, number: u64, status: u16) {
    let user = format!("{number}");
    let asked = site.ask(source(1), method, (&user, &user), None, site::CONTACT);
    match status {
        0 => {}
        401 => site.challenge(&asked),
        status => site.answer(&asked, status, ""),
    }
}

/// Later than anybody would wait for credentials, the source asks once more and is not answered yet.
fn after_patience(site: &mut Site) {
    site.wait(5_000);
    asked(site, "REGISTER", 999, 0);
}

fn accounts(settings: &AccountScanSettings) -> Vec<Case> {
    let AccountScanSettings {
        enabled: _,
        window,
        threshold,
        shadow: _,
        slow_window,
        slow_threshold,
        patience,
    } = *settings;
    assert_eq!(patience, Duration::from_secs(5));
    let fast = |name, step| Case::new(name, Rule::AccountScan, (threshold, window), step);
    let slow = |name, step| Case::new(name, Rule::AccountScan, (slow_threshold, slow_window), step).pace(150);
    let credentials: fn(&mut Site, u64) =
        |site, number| site.register(source(1), &format!("{number}"), false);
    let unknown: fn(&mut Site, u64) = |site, number| asked(site, "REGISTER", number, 404);
    let forbidden: fn(&mut Site, u64) = |site, number| asked(site, "REGISTER", number, 403);
    let options: fn(&mut Site, u64) = |site, number| asked(site, "OPTIONS", number, 404);
    let abandoned: fn(&mut Site, u64) = |site, number| asked(site, "REGISTER", number, 401);
    vec![
        fast("credentials, fast", credentials),
        slow("credentials, slowly", credentials),
        fast("unknown accounts, fast", unknown),
        slow("unknown accounts, slowly", unknown),
        fast("forbidden accounts, fast", forbidden),
        slow("forbidden accounts, slowly", forbidden),
        fast("OPTIONS, fast", options),
        slow("OPTIONS, slowly", options),
        fast("abandoned challenges, fast", abandoned).look(after_patience),
        slow("abandoned challenges, slowly", abandoned).look(after_patience),
    ]
}

fn numbers(settings: &DialplanSettings) -> Vec<Case> {
    let DialplanSettings {
        enabled: _,
        window,
        threshold,
        shadow: _,
        variants,
        patience,
    } = *settings;
    assert_eq!(patience, Duration::from_secs(5));
    let all = |name, step| Case::new(name, Rule::DialplanProbe, (threshold, window), step);
    let alike = |name, step| Case::new(name, Rule::DialplanProbe, (variants, window), step);
    let look: fn(&mut Site) = |site| {
        site.wait(5_000);
        site.ask(source(1), "INVITE", ("caller", "9995551234"), None, "");
    };
    vec![
        all("numbers that do not exist", |site, number| {
            site.dial(source(1), &format!("0049{number}"), 404);
        }),
        all("numbers that are forbidden", |site, number| {
            site.dial(source(1), &format!("0049{number}"), 403);
        }),
        all("numbers whose challenge is abandoned", |site, number| {
            site.dial(source(1), &format!("0049{number}"), 407);
        })
        .look(look),
        alike("one number with prefixes", |site, number| {
            site.dial(source(1), &format!("{number}5551234"), 404);
        }),
        alike("one number with prefixes, abandoned", |site, number| {
            site.dial(source(1), &format!("{number}5551234"), 407);
        })
        .look(look),
    ]
}

fn distributed(settings: &DistributedSettings) -> Vec<Case> {
    let DistributedSettings {
        enabled: _,
        window,
        threshold,
        shadow: _,
        // Of auth-failure, with which it is tried.
        failures: _,
    } = *settings;
    vec![Case {
        alarm: true,
        ..Case::new(
            "one account",
            Rule::DistributedAuth,
            (threshold, window),
            |site, number| {
                site.register(source(number as u32), "1001", false);
            },
        )
    }]
}

fn networks(settings: &NetworkSettings) -> Vec<Case> {
    let NetworkSettings {
        enabled: _,
        window,
        threshold,
        shadow: _,
        prefix4,
        prefix6,
        // Has a test of its own.
        max_networks: _,
    } = *settings;
    assert_eq!((prefix4, prefix6), (24, 48));
    let case = |name, step| Case {
        beside: &[Rule::AuthFailure],
        ..Case::new(name, Rule::NetworkAggregate, (threshold, window), step)
    };
    vec![
        case("bans in a /24", |site, number| {
            banned(site, source(number as u32))
        }),
        case("bans in a /48", |site, number| {
            banned(
                site,
                Ipv6Addr::new(0x2001, 0xdb8, 1, number as u16, 0, 0, 0, 1).into(),
            );
        }),
    ]
}

/// Has a source banned that has proven its address.
fn banned(site: &mut Site, from: IpAddr) {
    for _ in 0..5 {
        site.register(from, &format!("of {from}"), false);
    }
}
