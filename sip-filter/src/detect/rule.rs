//! The rules' names.

use serde::{Deserialize, Serialize};

/// A detection rule. The names are part of the interface and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Too many REGISTER requests.
    FloodRegister,
    /// Too many INVITE requests.
    FloodInvite,
    /// Too many OPTIONS requests.
    FloodOptions,
    /// Too many requests of other methods, or other traffic on a protected port.
    FloodOther,
    /// Requests that bear the marks of a known scanner.
    ScannerSignature,
    /// Credentials refused again and again.
    AuthFailure,
    /// Many accounts tried without success.
    AccountScan,
    /// Many numbers dialled in vain by somebody who is not registered.
    DialplanProbe,
    /// Much that is not SIP.
    Garbage,
    /// Credentials for one account refused to many sources. Alarms only.
    DistributedAuth,
    /// Many bans in one network.
    NetworkAggregate,
}

impl Rule {
    /// Number of rules.
    pub const COUNT: usize = 11;

    /// All rules, in the order of their declaration: `ALL[rule as usize] == rule`.
    pub const ALL: [Self; Self::COUNT] = [
        Self::FloodRegister,
        Self::FloodInvite,
        Self::FloodOptions,
        Self::FloodOther,
        Self::ScannerSignature,
        Self::AuthFailure,
        Self::AccountScan,
        Self::DialplanProbe,
        Self::Garbage,
        Self::DistributedAuth,
        Self::NetworkAggregate,
    ];

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FloodRegister => "flood-register",
            Self::FloodInvite => "flood-invite",
            Self::FloodOptions => "flood-options",
            Self::FloodOther => "flood-other",
            Self::ScannerSignature => "scanner-signature",
            Self::AuthFailure => "auth-failure",
            Self::AccountScan => "account-scan",
            Self::DialplanProbe => "dialplan-probe",
            Self::Garbage => "garbage",
            Self::DistributedAuth => "distributed-auth",
            Self::NetworkAggregate => "network-aggregate",
        }
    }

    /// Whether the rule goes by volume alone. Trusted sources are never banned by such a rule.
    #[must_use]
    pub const fn by_volume(self) -> bool {
        matches!(
            self,
            Self::FloodRegister | Self::FloodInvite | Self::FloodOptions | Self::FloodOther | Self::Garbage
        )
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
