//! What is asked of the controller, and its answers.

use std::time::{Duration, SystemTime};

use super::known::{ProvenBy, TrustedBy};
use crate::{
    bans::{Ban, Origin, Outcome, Past, Refusal, Scope, Target},
    detect::Rule,
};

/// How long a ban is to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// As configured: `bans.hand_duration`.
    #[default]
    Configured,
    /// From now.
    For(Duration),
    /// Until a time of the wall clock.
    Until(SystemTime),
    /// Without end.
    Permanent,
}

/// A ban by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanOrder {
    /// Whom.
    pub targets: Vec<Target>,
    /// How long.
    pub length: Length,
    /// Why, for people.
    pub reason: String,
    /// What to stop.
    pub scope: Scope,
    /// Overrides what only guards against slips.
    pub force: bool,
}

/// What became of one target of a [`BanOrder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanDone {
    /// What.
    pub outcome: Outcome,
    /// The ban now in force.
    pub ban: Ban,
    /// The one in force before, if it was another.
    pub before: Option<Ban>,
}

/// Which bans to lift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unban {
    /// Exactly these.
    Targets(Vec<Target>),
    /// All of an origin.
    Origin(Origin),
    /// All.
    All,
}

/// What became of one target of an [`Unban`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnbanDone {
    /// Who.
    pub target: Target,
    /// Whether there was a ban to lift.
    pub removed: bool,
    /// A wider ban in which the target still lies.
    pub still_banned_by: Option<Target>,
}

/// Which bans to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this origin.
    pub origin: Option<Origin>,
    /// Only those within this network.
    pub within: Option<Target>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Everything known about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether a ban takes effect on it.
    pub banned: bool,
    /// Bans in which it lies, the most specific first.
    pub bans: Vec<Ban>,
    /// The allow-list entry that exempts it; its own for an address of the host.
    pub allowed_by: Option<Target>,
    /// The registration that makes its source trusted.
    pub trust: Option<TrustedBy>,
    /// How its source has proven that the address is its own.
    pub proof: Option<ProvenBy>,
    /// Earlier bans of it and of what covers it, newest first.
    pub history: Vec<(Target, Past)>,
}

/// An entry of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportBan {
    /// Who.
    pub target: Target,
    /// How long.
    pub length: Length,
    /// Why.
    pub reason: String,
    /// What to stop.
    pub scope: Scope,
    /// Who banned.
    pub origin: Origin,
    /// The detection rule.
    pub rule: Option<Rule>,
    /// When the ban was made; now if unknown.
    pub created: Option<SystemTime>,
}

/// How to import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Report only.
    pub dry_run: bool,
    /// Leave out what is refused, instead of refusing all.
    pub skip_refused: bool,
    /// Overrides what only guards against slips.
    pub force: bool,
}

/// What an import did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// New bans.
    pub added: u64,
    /// Bans that changed.
    pub replaced: u64,
    /// Bans that stayed as they were.
    pub unchanged: u64,
    /// What was left out: position from 0, target, why.
    pub skipped: Vec<(usize, Target, Refusal)>,
}
