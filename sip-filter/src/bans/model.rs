//! What a ban is.

use std::{fmt, net::IpAddr, str::FromStr, time::SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::detect::Rule;

/// A banned or allowed source: one address or one network, always canonical (host bits zero, IPv4-mapped IPv6
/// addresses turned into IPv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target(IpNet);

impl Target {
    /// One address.
    #[must_use]
    pub fn address(ip: IpAddr) -> Self {
        Self(IpNet::from(ip.to_canonical()))
    }

    /// A network; host bits are cleared.
    #[must_use]
    pub fn network(net: IpNet) -> Self {
        let net = net.trunc();
        match net {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
                Some(v4) => Self(IpNet::V4(ipnet::Ipv4Net::new_assert(v4, v6.prefix_len() - 96))),
                None => Self(net),
            },
            _ => Self(net),
        }
    }

    /// As a network; a single address has the longest prefix.
    #[must_use]
    pub fn net(self) -> IpNet {
        self.0
    }

    /// The address, if this is a single one.
    #[must_use]
    pub fn as_address(self) -> Option<IpAddr> {
        (self.0.prefix_len() == self.0.max_prefix_len()).then(|| self.0.addr())
    }

    /// Whether `ip` lies within.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }

    /// The key under which `ip` is counted and banned by itself: IPv4 exact, IPv6 by its first `prefix6` bits.
    #[must_use]
    pub fn of_source(ip: IpAddr, prefix6: u8) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(v6) => Self::network(
                ipnet::Ipv6Net::new(v6, prefix6.min(128))
                    .map_or_else(|_| IpNet::from(IpAddr::V6(v6)), IpNet::V6),
            ),
            v4 => Self::address(v4),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_address() {
            Some(ip) => ip.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

/// The text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is neither an address nor a network.
    #[error("`{0}` is neither an IP address nor a network such as 203.0.113.0/24 or 2001:db8::/64")]
    Neither(String),
    /// A network, written by an address in it: either may have been meant.
    #[error("`{text}` is an address within a network; write {network} for the network, or the address alone")]
    HostBits {
        /// What was written.
        text: String,
        /// The network.
        network: Target,
    },
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::address(ip));
        }
        let net: IpNet = text.parse().map_err(|_| TargetError::Neither(text.to_owned()))?;
        let network = Self::network(net);
        // `203.0.113.7/24` for `203.0.113.7` would lock out 255 others.
        if net.trunc() != net {
            return Err(TargetError::HostBits {
                text: text.to_owned(),
                network,
            });
        }
        Ok(network)
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What a ban stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Traffic to protected ports, and later fragments of UDP datagrams, whose port cannot be seen.
    #[default]
    Sip,
    /// Everything from the source.
    All,
}

/// Who made a ban. Other origins (fleet, feeds) will come; unknown ones in a store are kept as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An operator, by hand.
    Manual,
    /// An import of a file.
    Import,
    /// A detection rule.
    Detector,
}

/// What a detection rule saw: enough for an operator to judge the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Packets of the rule's kind within the window.
    pub count: u64,
    /// The rule's threshold.
    pub threshold: u64,
    /// The rule's window, seconds.
    pub window_seconds: u64,
    /// First packet counted.
    #[serde(with = "crate::units::rfc3339")]
    pub first_seen: SystemTime,
    /// The deciding packet.
    #[serde(with = "crate::units::rfc3339")]
    pub last_seen: SystemTime,
    /// Different accounts or numbers among them, where the rule looks at these.
    #[serde(default)]
    pub accounts: u64,
    /// Whether the source had shown that the address is its own.
    #[serde(default)]
    pub proven: bool,
    /// Sample of what was sent: start line and User-Agent, printable characters only, shortened.
    pub sample: Vec<String>,
}

/// One entry of the ban list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub target: Target,
    /// Who banned.
    pub origin: Origin,
    /// The detection rule, if one decided.
    pub rule: Option<Rule>,
    /// Why, for people.
    pub reason: String,
    /// What is stopped.
    pub scope: Scope,
    /// When the ban was made.
    pub created: SystemTime,
    /// When it ends; `None` is permanent.
    pub expires: Option<SystemTime>,
    /// Packets dropped by it. Exact up to 31 a second (for networks always), an unbiased estimate above.
    pub hits: u64,
    /// When the last one was dropped, to about a second.
    pub last_hit: Option<SystemTime>,
    /// What the rule saw. In a box, because most bans of a long list were imported and have none.
    pub evidence: Option<Box<Evidence>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_canonical() {
        for (text, canonical) in [
            ("203.0.113.7", "203.0.113.7"),
            (" 203.0.113.7/32 ", "203.0.113.7"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8::/64", "2001:db8::/64"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), canonical);
            assert_eq!(canonical.parse::<Target>().unwrap(), target);
        }
        for bad in [
            "",
            "300.1.1.1",
            "1.2.3.4/33",
            "::1/129",
            "host.example",
            "1.2.3.4:5060",
        ] {
            assert_eq!(bad.parse::<Target>(), Err(TargetError::Neither(bad.to_owned())));
        }
        for (text, network) in [
            ("203.0.113.7/24", "203.0.113.0/24"),
            ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("203.0.113.7/0", "0.0.0.0/0"),
        ] {
            let expected = TargetError::HostBits {
                text: text.to_owned(),
                network: network.parse().unwrap(),
            };
            assert_eq!(text.parse::<Target>(), Err(expected));
        }
    }

    #[test]
    fn ipv6_sources_are_counted_by_prefix() {
        let ip: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
        assert_eq!(Target::of_source(ip, 64).to_string(), "2001:db8:1:2::/64");
        assert_eq!(
            Target::of_source("::ffff:192.0.2.1".parse().unwrap(), 64).to_string(),
            "192.0.2.1"
        );
    }
}
