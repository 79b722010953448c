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
    /// A header names a known scanner.
    ScannerSignature,
}

impl Rule {
    /// Number of rules.
    pub const COUNT: usize = 5;

    /// All rules, in the order of their declaration: `ALL[rule as usize] == rule`.
    pub const ALL: [Self; Self::COUNT] = [
        Self::FloodRegister,
        Self::FloodInvite,
        Self::FloodOptions,
        Self::FloodOther,
        Self::ScannerSignature,
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
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
