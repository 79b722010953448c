//! The scenarios, all of them, as data.

use std::{net::IpAddr, time::Duration};

use xtask::lab::{scanners::Disguise, sipp::Flood, spoof};

use super::{
    attack::{Attack, Name},
    customers::{self, Habit},
    judge::Learnt,
};

/// The User-Agent of a scanner that wants to pass as a desk phone.
const DESK_PHONE: &str = "Yealink SIP-T46S 66.86.0.15";
const SECOND: Duration = Duration::from_secs(1);

/// Something that happens to the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    /// Its name, for `--only` and the table.
    pub(super) name: &'static str,
    /// What happens.
    pub(super) play: Play,
    /// Over IPv6.
    pub(super) v6: bool,
    /// Whether `--quick` plays it.
    pub(super) quick: bool,
    /// How much of the machine it takes; see [`super::CAPACITY`].
    pub(super) weight: u32,
    /// Scanners are to be known by what they do: the rule that knows them by their looks only reports.
    pub(super) by_behaviour: bool,
}

/// Who is on the stage beside the phones that always are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Play {
    Attack(Attack),
    Customer(Habit),
}

/// What it takes to say that an attack was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The server answers the attacker no more for this long, while the attacker goes on.
    NoAnswer(Duration),
    /// Nothing of it reaches the server any more, for what is never answered.
    NoPacket(Duration),
    /// At most [`super::judge::CONTAINED`] of it reach the server: nobody can be banned for forged packets.
    Contained,
    /// The customer in whose name it comes is served all the same: it is let through by the operator's own word, or
    /// nobody could tell the two apart.
    CustomerServed,
}

const fn attack(name: &'static str, attack: Attack) -> Scenario {
    Scenario {
        name,
        play: Play::Attack(attack),
        v6: false,
        quick: false,
        weight: 2,
        by_behaviour: false,
    }
}

const fn customer(name: &'static str, habit: Habit) -> Scenario {
    Scenario {
        name,
        play: Play::Customer(habit),
        v6: false,
        quick: false,
        weight: 1,
        by_behaviour: false,
    }
}

impl Scenario {
    const fn v6(mut self) -> Self {
        self.v6 = true;
        self
    }

    const fn quick(mut self) -> Self {
        self.quick = true;
        self
    }

    const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    const fn by_behaviour(mut self) -> Self {
        self.by_behaviour = true;
        self
    }

    pub(super) fn goal(&self) -> Option<Goal> {
        let Play::Attack(attack) = self.play else {
            return None;
        };
        Some(match attack {
            Attack::Guess { every, .. } => Goal::NoAnswer(every * 3 + SECOND),
            Attack::Garbage => Goal::NoPacket(SECOND * 6),
            // It can't be told from the customer: whoever stops it stops the customer.
            TWIN => Goal::CustomerServed,
            Attack::Spoof { whose, .. } => match whose {
                Name::Allowed => Goal::CustomerServed,
                Name::Customer | Name::Stranger | Name::Everybody => Goal::Contained,
            },
            _ => Goal::NoAnswer(SECOND * 6),
        })
    }

    /// How long an attack goes on unless it is stopped before.
    pub(super) fn limit(&self, brief: bool) -> Duration {
        match self.play {
            Play::Attack(Attack::Guess { every, sources: 1 }) => every * 15,
            Play::Attack(Attack::Guess { every, .. }) => every * 16,
            _ if brief => SECOND * 12,
            // The rate may be more than the machine can send.
            Play::Attack(Attack::Spoof { count, .. }) if count > 500_000 => SECOND * 40,
            Play::Attack(Attack::Spoof { .. }) => SECOND * 24,
            _ => SECOND * 20,
        }
    }

    /// The customer in whose name it comes.
    pub(super) fn impersonated(&self) -> Option<IpAddr> {
        let Play::Attack(Attack::Spoof { whose, .. }) = self.play else {
            return None;
        };
        match whose {
            Name::Customer | Name::Allowed => Some(customers::victim(self.v6)),
            Name::Stranger | Name::Everybody => None,
        }
    }

    /// Whom the operator has allow-listed, where the protection knows such a list.
    pub(super) fn allowed(&self) -> Option<IpAddr> {
        match self.play {
            Play::Attack(Attack::Spoof {
                whose: Name::Allowed, ..
            }) => Some(customers::victim(self.v6)),
            _ => None,
        }
    }

    /// What an attacker may learn before it is stopped.
    pub(super) fn most(&self) -> Option<Learnt> {
        let (refused, accounts) = match self.play {
            Play::Attack(Attack::Crack(_)) if self.by_behaviour => (5, usize::MAX),
            Play::Attack(Attack::War(_)) if self.by_behaviour => (u64::MAX, 10),
            Play::Attack(Attack::GuessTcp { .. }) => (5, usize::MAX),
            _ => return None,
        };
        Some(Learnt { refused, accounts })
    }

    /// sip-filter's configuration, where it is not to be the default.
    pub(super) fn settings(&self) -> String {
        let mut settings = String::new();
        if self.by_behaviour {
            settings.push_str("[detect.scanner-signature]\nshadow = true\n");
        }
        if let Some(allowed) = self.allowed() {
            settings.push_str(&format!("[allow]\nnetworks = [\"{allowed}\"]\n"));
        }
        settings
    }

    /// Whether a customer uses TCP.
    pub(super) fn tcp(&self) -> bool {
        matches!(
            self.play,
            Play::Attack(Attack::GuessTcp { .. } | Attack::FloodTcp(_))
        )
    }

    /// Whether it looks for accounts or passwords.
    pub(super) fn guesses(&self) -> bool {
        matches!(
            self.play,
            Play::Attack(Attack::War(_) | Attack::Crack(_) | Attack::Guess { .. } | Attack::GuessTcp { .. })
        )
    }

    /// What happens, in a sentence.
    pub(super) fn story(&self) -> String {
        let story = match self.play {
            Play::Attack(attack) => match attack {
                Attack::Map => "svmap looks for servers (OPTIONS)".to_owned(),
                Attack::War(disguise) => format!("svwar tries 1,020 extensions (REGISTER){}", how(disguise)),
                Attack::Crack(disguise) => {
                    format!("svcrack tries 9,000 passwords of an account (REGISTER){}", how(disguise))
                }
                Attack::Guess { sources: 1, every } => {
                    format!("one password every {} s from one address", every.as_secs())
                }
                Attack::Guess { sources, every } => format!(
                    "{sources} addresses try passwords of one account, each one every {} s",
                    every.as_secs()
                ),
                Attack::Flood(flood, rate) => format!("{rate} {flood:?} requests a second from one address"),
                TWIN => format!(
                    "{TWIN_RATE} forged requests a second that nothing tells from those of a registered customer"
                ),
                Attack::Spoof { whose, rate, count, .. } => {
                    let name = match whose {
                        Name::Customer => "in the name of a registered customer, from another distance",
                        Name::Allowed => "in the name of a registered customer that is allow-listed",
                        Name::Stranger => "in the name of an uninvolved address",
                        Name::Everybody => return format!(
                            "{rate} forged requests a second, {count} at most, each from another address"
                        ),
                    };
                    format!("{rate} forged requests a second {name}")
                }
                Attack::GuessTcp { anew } => format!(
                    "5 passwords of an account a second over TCP, {}; a customer registers and calls over TCP",
                    if anew { "each with a connection of its own" } else { "over one connection" }
                ),
                Attack::FloodTcp(rate) => format!(
                    "{rate} REGISTER requests a second from one address over TCP; a customer registers and calls over TCP"
                ),
                Attack::DialPlan => "an unregistered caller tries 2 numbers a second with 16 prefixes".to_owned(),
                Attack::Garbage => "100 packets of random bytes a second".to_owned(),
            },
            Play::Customer(habit) => match habit {
                Habit::Office => "80 phones behind one address register at once after an outage, and again".to_owned(),
                Habit::Watching => "a PBX sends OPTIONS each second".to_owned(),
                Habit::Mistyped => "a phone sends a wrong password once, then the right one".to_owned(),
                Habit::WrongPassword => {
                    "a phone sends a wrong password each minute for nine minutes, then the right one".to_owned()
                }
                Habit::Forgetful => {
                    "a phone sends four wrong passwords and then the right one, fifteen times over".to_owned()
                }
                Habit::CallCentre => "a registered call centre sends 50 INVITEs a second (25 calls)".to_owned(),
                Habit::KeepAlives => {
                    "a registered phone, CRLF, STUN and a WireGuard tunnel (20 packets a second) on the SIP port"
                        .to_owned()
                }
                Habit::Fragments => "calls with INVITEs of over 4,000 bytes, in fragments".to_owned(),
                Habit::LongUri => "calls with a Request-URI of over 600 bytes".to_owned(),
            },
        };
        let story = match self.v6 {
            true => format!("{story}, over IPv6"),
            false => story,
        };
        match (self.by_behaviour, self.most()) {
            (
                true,
                Some(Learnt {
                    accounts: usize::MAX,
                    refused,
                }),
            ) => format!(
                "{story}; sip-filter's rule for scanners only reports, so that others must stop it, within {refused} \
                 refused passwords"
            ),
            (true, Some(Learnt { accounts, .. })) => format!(
                "{story}; sip-filter's rule for scanners only reports, so that others must stop it, within {accounts} \
                 accounts"
            ),
            (_, Some(Learnt { refused, .. })) => {
                format!("{story}; to be stopped within {refused} refused passwords")
            }
            _ => story,
        }
    }
}

fn how(disguise: Disguise) -> String {
    match disguise {
        Disguise::None => String::new(),
        Disguise::Compact => ", compact headers, no User-Agent".to_owned(),
        Disguise::Agent(agent) => format!(", as `{agent}`"),
    }
}

const AGENT: Disguise = Disguise::Agent(DESK_PHONE);
const SLOW: Attack = Attack::Guess {
    sources: 1,
    every: Duration::from_secs(20),
};
const DISTRIBUTED: Attack = Attack::Guess {
    sources: 50,
    every: Duration::from_secs(2),
};

const STRANGER: Attack = Attack::Spoof {
    whose: Name::Stranger,
    rate: 1000,
    count: 100_000,
    hops: spoof::HOPS,
};
const ALLOWED: Attack = Attack::Spoof {
    whose: Name::Allowed,
    rate: 1000,
    count: 100_000,
    hops: spoof::HOPS,
};
/// By a forger who knows the customer's port and stands seven hops further away.
const CUSTOMER: Attack = Attack::Spoof {
    whose: Name::Customer,
    rate: 20_000,
    count: 480_000,
    hops: spoof::HOPS - 7,
};
const TWIN_RATE: u32 = 1000;
/// By a forger who has everything right.
const TWIN: Attack = Attack::Spoof {
    whose: Name::Customer,
    rate: TWIN_RATE,
    count: 100_000,
    hops: spoof::HOPS,
};

const MILLION: Attack = Attack::Spoof {
    whose: Name::Everybody,
    rate: 50_000,
    count: 1_000_000,
    hops: spoof::HOPS,
};
const THOUSANDS: Attack = Attack::Spoof {
    whose: Name::Everybody,
    rate: 3_000,
    count: 100_000,
    hops: spoof::HOPS,
};

/// All of them, in the order of the table.
pub(super) const ALL: &[Scenario] = &[
    attack("svmap", Attack::Map).quick(),
    attack("svmap-v6", Attack::Map).v6(),
    attack("svwar", Attack::War(Disguise::None)).quick(),
    attack("svwar-compact", Attack::War(Disguise::Compact)),
    attack("svwar-agent", Attack::War(AGENT)).quick(),
    attack("svwar-v6", Attack::War(Disguise::None)).v6(),
    attack("svcrack", Attack::Crack(Disguise::None)),
    attack("svcrack-compact", Attack::Crack(Disguise::Compact)),
    attack("svcrack-agent", Attack::Crack(AGENT)).quick(),
    attack("svcrack-v6", Attack::Crack(Disguise::None)).v6(),
    attack("svwar-behaviour", Attack::War(Disguise::None)).by_behaviour(),
    attack("svwar-behaviour-compact", Attack::War(Disguise::Compact)).by_behaviour(),
    attack("svwar-behaviour-agent", Attack::War(AGENT)).by_behaviour(),
    attack("svcrack-behaviour", Attack::Crack(Disguise::None)).by_behaviour(),
    attack("svcrack-behaviour-compact", Attack::Crack(Disguise::Compact)).by_behaviour(),
    attack("svcrack-behaviour-agent", Attack::Crack(AGENT)).by_behaviour(),
    attack("slow-guessing", SLOW).weight(0),
    attack("slow-guessing-v6", SLOW).v6().weight(0),
    attack("distributed-guessing", DISTRIBUTED).quick(),
    attack("guessing-tcp", Attack::GuessTcp { anew: false }),
    attack("guessing-tcp-anew", Attack::GuessTcp { anew: true }),
    attack("flood-register", Attack::Flood(Flood::Register, 1000)).weight(4),
    attack("flood-register-v6", Attack::Flood(Flood::Register, 1000))
        .v6()
        .weight(4),
    attack("flood-register-tcp", Attack::FloodTcp(1000)).weight(4),
    attack("flood-invite", Attack::Flood(Flood::Invite, 1000))
        .quick()
        .weight(4),
    attack("flood-invite-v6", Attack::Flood(Flood::Invite, 1000))
        .v6()
        .weight(4),
    attack("flood-options", Attack::Flood(Flood::Options, 1000)).weight(4),
    attack("spoofed-customer", CUSTOMER)
        .quick()
        .weight(super::CAPACITY),
    attack("spoofed-customer-v6", CUSTOMER)
        .v6()
        .weight(super::CAPACITY),
    attack("spoofed-twin", TWIN).weight(4),
    attack("spoofed-allowed", ALLOWED).weight(4),
    attack("spoofed-allowed-v6", ALLOWED).v6().weight(4),
    attack("spoofed-stranger", STRANGER).weight(4),
    attack("spoofed-thousands", THOUSANDS).quick().weight(4),
    attack("spoofed-million", MILLION).weight(super::CAPACITY),
    attack("spoofed-million-v6", MILLION).v6().weight(super::CAPACITY),
    attack("dial-plan", Attack::DialPlan).quick().weight(1),
    attack("dial-plan-v6", Attack::DialPlan).v6().weight(1),
    attack("garbage", Attack::Garbage).quick().weight(1),
    customer("office", Habit::Office).quick(),
    customer("office-v6", Habit::Office).v6(),
    customer("pbx-options", Habit::Watching).quick(),
    customer("mistyped-password", Habit::Mistyped).quick(),
    customer("forgetful", Habit::Forgetful).quick(),
    customer("wrong-password", Habit::WrongPassword).weight(0),
    customer("call-centre", Habit::CallCentre).quick().weight(2),
    customer("call-centre-v6", Habit::CallCentre).v6().weight(2),
    customer("keep-alives", Habit::KeepAlives).quick(),
    customer("fragments", Habit::Fragments),
    customer("fragments-v6", Habit::Fragments).v6(),
    customer("long-uri", Habit::LongUri),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_some_are_quick() {
        let names: std::collections::HashSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(
            ALL.iter()
                .any(|scenario| scenario.quick && scenario.goal().is_some())
        );
        assert!(
            ALL.iter()
                .all(|scenario| scenario.weight <= super::super::CAPACITY)
        );
    }
}
