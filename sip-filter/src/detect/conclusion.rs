//! What the engine concludes from what it saw.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Rule;
use crate::bans::{Endpoint, Evidence, Scope, Target};

/// What follows from an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// A rule decided to ban.
    Ban(Decision),
    /// Somebody should know; nothing is stopped.
    Alarm(Alarm),
    /// A source has registered, or renewed its registration.
    Trusted(Trusted),
    /// An endpoint of a trusted source is its own. Comes after what makes the source trusted.
    AtHome(AtHome),
    /// A source has shown that it receives what we send to its address.
    Proven(Proven),
    /// The last registration of a source has ended.
    Distrusted(Target),
}

/// What a rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When, on the clock of the observations.
    pub time: Duration,
    /// Whom it concerns.
    pub target: Target,
    /// Which rule.
    pub rule: Rule,
    /// How long to ban.
    pub ban_for: Duration,
    /// Decide and report only, do not enforce.
    pub shadow: bool,
    /// How often this target was banned before, within the memory of the engine. Bans of unproven sources are not
    /// counted.
    pub earlier_offences: u32,
    /// Whether the source has shown that the address is its own. If not, the ban is short.
    pub proven: bool,
    /// A ban of the same target by the same rule that still stands is to be prolonged, not made anew.
    pub sliding: bool,
    /// What to stop.
    pub scope: Scope,
    /// What the rule saw; its wall-clock times are those of [`super::Engine::wall`].
    pub evidence: Evidence,
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// When, on the clock of the observations.
    pub time: Duration,
    /// Which rule.
    pub rule: Rule,
    /// Whom it concerns, if it is a source.
    pub target: Option<Target>,
    /// Which account it concerns, printable characters only.
    pub account: Option<String>,
    /// The rule only rehearses.
    pub shadow: bool,
    /// What the rule saw.
    pub evidence: Evidence,
    /// One line for people.
    pub message: String,
}

/// A registration that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// When, on the clock of the observations.
    pub time: Duration,
    /// Who registered.
    pub target: Target,
    /// The account, printable characters only.
    pub account: String,
    /// When the registration ends, on the clock of the observations.
    pub until: Duration,
}

/// An endpoint from which a registration succeeded, or credentials that answered a challenge of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtHome {
    /// When, on the clock of the observations.
    pub time: Duration,
    /// Whose it is.
    pub target: Target,
    /// From where its request came.
    pub endpoint: Endpoint,
    /// When that ends, on the clock of the observations.
    pub until: Duration,
}

/// A source that has shown that its address is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// When, on the clock of the observations.
    pub time: Duration,
    /// Who.
    pub target: Target,
    /// How.
    pub by: Proof,
    /// How long this is believed, on the clock of the observations.
    pub until: Duration,
}

/// How a source has shown that it receives what we send to its address, so that the address is not forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// It returned a nonce of a challenge we sent to it.
    Nonce,
    /// It completed a registration with credentials.
    Registration,
    /// It carried SIP both ways over TCP.
    Tcp,
}

impl Proof {
    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nonce => "nonce",
            Self::Registration => "registration",
            Self::Tcp => "tcp",
        }
    }
}

/// What the engine knows of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How it is proven, if it is.
    pub proven: Option<Proof>,
    /// Until when it is trusted, on the clock of the observations.
    pub trusted_until: Option<Duration>,
    /// Accounts registered from it now.
    pub accounts: usize,
    /// What the rules count of it, where that is not zero.
    pub counters: Vec<Counter>,
}

/// What a rule counts of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The rule.
    pub rule: Rule,
    /// What it counted within its window, as of the source's last packet.
    pub count: u64,
    /// What would decide.
    pub threshold: u64,
}
