//! Who must not be banned.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::SystemTime,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{PrefixMap, Target};
use crate::detect::Rule;

/// Why a ban was refused: each says what to do if it is meant after all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target lies in the allow-list.
    #[error("{target} is allow-listed by {by} ({origin}); a ban would have no effect")]
    Allowed {
        /// Whom to ban.
        target: Target,
        /// The allow-list's entry.
        by: Target,
        /// Where the entry is from.
        origin: AllowOrigin,
    },
    /// An address of this host.
    #[error("{0} is an address of this host")]
    OwnAddress(Target),
    /// A network in which this host lies.
    #[error("{target} contains {own}, an address of this host")]
    ContainsOwn {
        /// Whom to ban.
        target: Target,
        /// The address.
        own: IpAddr,
    },
    /// A network that is too large to be no mistake.
    #[error("{target} is wider than /{widest} (`{setting}`)")]
    TooWide {
        /// Whom to ban.
        target: Target,
        /// The configured limit.
        widest: u8,
        /// Its key.
        setting: &'static str,
    },
    /// A rule that goes by volume alone, and a source with a registration in force.
    #[error("{target} is trusted: {account} is registered from it, and {rule} goes by volume alone")]
    Trusted {
        /// Whom to ban.
        target: Target,
        /// Who is registered.
        account: String,
        /// The rule.
        rule: Rule,
    },
    /// A network that a rule would ban for what others in it do.
    #[error("{target} contains {inside}, which is {standing}")]
    Contains {
        /// Whom to ban.
        target: Target,
        /// Who must not suffer.
        inside: Target,
        /// Why: "allow-listed" or "trusted".
        standing: &'static str,
    },
    /// It would end at once.
    #[error("a ban of {0} for no time at all does nothing")]
    NoTime(Target),
}

impl Refusal {
    /// What to do if it is meant all the same.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Allowed {
                origin: AllowOrigin::Config,
                ..
            } => "take it out of `allow.networks` in the configuration first",
            Self::Allowed { .. } => "take it from the allow-list first: `sip-filter allow remove`",
            Self::OwnAddress(_) => "addresses of this host cannot be banned",
            Self::ContainsOwn { .. } | Self::TooWide { .. } => "if you mean it, use --force",
            Self::Trusted { .. } | Self::Contains { .. } => {
                "if you mean it, ban it by hand: `sip-filter ban`"
            }
            Self::NoTime(_) => "give a duration such as 1h, or `permanent`",
        }
    }
}

/// Where an allow-list entry is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllowOrigin {
    /// `allow.networks` of the configuration.
    Config,
    /// `sip-filter allow add`.
    Operator,
}

impl std::fmt::Display for AllowOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Config => "configuration",
            Self::Operator => "added by an operator",
        })
    }
}

/// An entry of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Where it is from.
    pub origin: AllowOrigin,
    /// Why, for people.
    pub comment: String,
    /// When it was added; unknown for the configuration's.
    pub created: Option<SystemTime>,
}

/// The allow-list of all sources, and the rules for what may be banned.
#[derive(Clone, Debug)]
pub struct Policy {
    config: PrefixMap<()>,
    operator: PrefixMap<Allowed>,
    own: BTreeSet<IpAddr>,
    widest4: u8,
    widest6: u8,
}

impl Policy {
    /// From the configuration; nothing added by an operator, no own addresses.
    #[must_use]
    pub fn new(config: &crate::config::Config) -> Self {
        let mut policy = Self {
            config: PrefixMap::default(),
            operator: PrefixMap::default(),
            own: BTreeSet::new(),
            widest4: 0,
            widest6: 0,
        };
        policy.configure(config);
        policy
    }

    /// Takes over another configuration.
    pub fn configure(&mut self, config: &crate::config::Config) {
        self.config = PrefixMap::default();
        for target in &config.allow.networks {
            self.config.insert(*target, ());
        }
        self.widest4 = config.bans.widest_prefix4;
        self.widest6 = config.bans.widest_prefix6;
    }

    /// Takes over the addresses of this host; tells whether they changed.
    pub fn set_own(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        let own = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
        let changed = self.own != own;
        self.own = own;
        changed
    }

    /// Adds an operator's entry; returns the one it replaces.
    pub fn allow(&mut self, target: Target, entry: Allowed) -> Option<Allowed> {
        self.operator.insert(target, entry)
    }

    /// Removes an operator's entry.
    pub fn disallow(&mut self, target: Target) -> Option<Allowed> {
        self.operator.remove(target)
    }

    /// Whether the configuration has exactly this entry.
    #[must_use]
    pub fn in_config(&self, target: Target) -> bool {
        self.config.get(target).is_some()
    }

    /// What operators added.
    pub fn operator_entries(&self) -> impl Iterator<Item = (Target, &Allowed)> {
        self.operator.iter()
    }

    /// The operator's entry for exactly this target.
    #[must_use]
    pub fn operator_entry(&self, target: Target) -> Option<&Allowed> {
        self.operator.get(target)
    }

    /// The entry that exempts all of `target`, the most specific one.
    #[must_use]
    pub fn allowed_by(&self, target: Target) -> Option<(Target, AllowOrigin)> {
        let operator = self.operator.covering(target).next();
        let config = self.config.covering(target).next();
        [
            operator.map(|(by, _)| (by, AllowOrigin::Operator)),
            config.map(|(by, ())| (by, AllowOrigin::Config)),
        ]
        .into_iter()
        .flatten()
        .max_by_key(|(by, _)| by.net().prefix_len())
    }

    /// An entry that exempts a part of `target`.
    #[must_use]
    pub fn allowed_within(&self, target: Target) -> Option<Target> {
        let operator = self.operator.within(target).map(|(inside, _)| inside);
        operator
            .chain(self.config.within(target).map(|(inside, ())| inside))
            .next()
    }

    /// Whether this is an address of the host.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip.to_canonical())
    }

    /// All entries, by target; one that is in both is shown as the configuration's.
    #[must_use]
    pub fn entries(&self) -> Vec<(Target, Allowed)> {
        let config = self.config.keys().map(|target| {
            let entry = Allowed {
                origin: AllowOrigin::Config,
                comment: String::new(),
                created: None,
            };
            (*target, entry)
        });
        let operator = self
            .operator
            .iter()
            .filter(|(target, _)| !self.in_config(*target))
            .map(|(target, entry)| (target, entry.clone()));
        let mut entries: Vec<_> = config.chain(operator).collect();
        entries.sort_unstable_by_key(|(target, _)| *target);
        entries
    }

    /// What the kernel must let pass: the allow-list and the host's own addresses.
    #[must_use]
    pub fn kernel_networks(&self) -> Vec<IpNet> {
        let own = self.own.iter().map(|ip| Target::address(*ip));
        let all: BTreeSet<Target> = self
            .config
            .keys()
            .chain(self.operator.keys())
            .copied()
            .chain(own)
            .collect();
        all.into_iter().map(Target::net).collect()
    }

    /// Whether `target` may be banned. `force` overrides what only guards against slips.
    ///
    /// # Errors
    /// [`Refusal`] if not.
    pub fn permit(&self, target: Target, force: bool) -> Result<(), Refusal> {
        if let Some(ip) = target.as_address()
            && self.own.contains(&ip)
        {
            return Err(Refusal::OwnAddress(target));
        }
        if let Some((by, origin)) = self.allowed_by(target) {
            return Err(Refusal::Allowed { target, by, origin });
        }
        if force {
            return Ok(());
        }
        if let Some(own) = self.own_within(target) {
            return Err(Refusal::ContainsOwn { target, own });
        }
        let (widest, setting) = match target.net() {
            IpNet::V4(_) => (self.widest4, "bans.widest_prefix4"),
            IpNet::V6(_) => (self.widest6, "bans.widest_prefix6"),
        };
        if target.net().prefix_len() < widest {
            return Err(Refusal::TooWide {
                target,
                widest,
                setting,
            });
        }
        Ok(())
    }

    fn own_within(&self, target: Target) -> Option<IpAddr> {
        // Loopback needs no guard of its own: it never comes in on a filtered interface, and it is among the own
        // addresses, so 0.0.0.0/0 and ::/0 are caught even on a host that has no other.
        let loopback = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        self.own
            .iter()
            .chain(&loopback)
            .find(|ip| target.contains(**ip))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn policy(allow: &[&str], own: &[&str]) -> Policy {
        let mut config = Config::default();
        config.allow.networks = allow.iter().map(|text| text.parse().unwrap()).collect();
        let mut policy = Policy::new(&config);
        policy.set_own(own.iter().map(|text| text.parse::<IpAddr>().unwrap()));
        policy
    }

    fn refusal(policy: &Policy, target: &str, force: bool) -> String {
        match policy.permit(target.parse().unwrap(), force) {
            Ok(()) => String::new(),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn nobody_is_locked_out_by_mistake() {
        let policy = policy(
            &["198.51.100.0/24", "2001:db8:a::/48"],
            &["203.0.113.5", "2001:db8:b::5"],
        );
        for (target, plain, forced) in [
            ("192.0.2.1", "", ""),
            (
                "198.51.100.7",
                "198.51.100.7 is allow-listed by 198.51.100.0/24 (configuration); a ban would have no effect",
                "198.51.100.7 is allow-listed by 198.51.100.0/24 (configuration); a ban would have no effect",
            ),
            (
                "198.51.100.128/25",
                "198.51.100.128/25 is allow-listed by 198.51.100.0/24 (configuration); a ban would have no effect",
                "198.51.100.128/25 is allow-listed by 198.51.100.0/24 (configuration); a ban would have no effect",
            ),
            // Allow-listed addresses inside are exempted by the kernel program.
            ("198.51.0.0/16", "", ""),
            (
                "203.0.113.5",
                "203.0.113.5 is an address of this host",
                "203.0.113.5 is an address of this host",
            ),
            (
                "203.0.113.0/24",
                "203.0.113.0/24 contains 203.0.113.5, an address of this host",
                "",
            ),
            (
                "2001:db8:b::/64",
                "2001:db8:b::/64 contains 2001:db8:b::5, an address of this host",
                "",
            ),
            (
                "10.0.0.0/8",
                "10.0.0.0/8 is wider than /16 (`bans.widest_prefix4`)",
                "",
            ),
            ("10.0.0.0/16", "", ""),
            (
                "fc00::/31",
                "fc00::/31 is wider than /32 (`bans.widest_prefix6`)",
                "",
            ),
        ] {
            assert_eq!(refusal(&policy, target, false), plain, "{target}");
            assert_eq!(refusal(&policy, target, true), forced, "{target} forced");
        }
    }

    #[test]
    fn the_kernel_is_told_of_every_exemption_once() {
        let mut policy = policy(&["198.51.100.0/24", "203.0.113.5"], &["203.0.113.5"]);
        let target = "192.0.2.1".parse().unwrap();
        policy.allow(
            target,
            Allowed {
                origin: AllowOrigin::Operator,
                comment: String::new(),
                created: None,
            },
        );
        let names: Vec<_> = policy.kernel_networks().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["192.0.2.1/32", "198.51.100.0/24", "203.0.113.5/32"]);
        assert_eq!(policy.allowed_by(target), Some((target, AllowOrigin::Operator)));
        assert!(!policy.set_own(["203.0.113.5".parse().unwrap()]));
        assert!(policy.set_own([]));
    }
}
