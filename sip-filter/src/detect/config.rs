//! Settings of the detection rules.
//!
//! The thresholds of the flood rules are far above what a customer's site sends; those of the other rules go by what
//! the server answered. What keeps a mistake cheap: a source that has not shown that its address is its own is banned
//! for moments only, one that has registered is not banned for volume, an IPv6 source is one /64, and the allow-list
//! wins in the kernel.

mod rules;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use self::rules::MOST;
pub use self::rules::{
    AccountScanSettings, AuthFailureSettings, DialplanSettings, DistributedSettings, NetworkSettings,
    RuleSettings, SignatureSettings,
};
use super::{Rule, signature};

/// `[detect]`: settings of all rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectConfig {
    /// Length of a proven source's first ban.
    #[serde(with = "crate::units::duration")]
    pub ban_time: Duration,
    /// Longest ban. Each offence within [`Self::memory`] doubles the time up to this.
    #[serde(with = "crate::units::duration")]
    pub ban_time_max: Duration,
    /// How long after the end of a ban it still counts as an earlier offence.
    #[serde(with = "crate::units::duration")]
    pub memory: Duration,
    /// Longest ban of a source that has not shown that its address is its own: it may be forged. It does not double.
    #[serde(with = "crate::units::duration")]
    pub unproven_ban: Duration,
    /// How long a source is believed to own its address.
    #[serde(with = "crate::units::duration")]
    pub proof_lifetime: Duration,
    /// How long a registration makes trusted if the server does not say how long it lasts.
    #[serde(with = "crate::units::duration")]
    pub trust_time: Duration,
    /// How long a registration makes trusted at most, whatever the server says.
    #[serde(with = "crate::units::duration")]
    pub trust_time_max: Duration,
    /// Sources counted at the same time; about 200 to 1000 bytes each.
    pub max_sources: u32,
    /// Pairs of source and account remembered; about 100 bytes each, 300 where there were failures.
    pub max_accounts: u32,
    /// Requests remembered until they are answered, and challenges until they are; about 200 bytes each.
    pub max_transactions: u32,
    /// REGISTER requests.
    #[serde(rename = "flood-register", deserialize_with = "rules::rule::<_, 10, 500>")]
    pub flood_register: RuleSettings,
    /// INVITE requests.
    #[serde(rename = "flood-invite", deserialize_with = "rules::rule::<_, 10, 1500>")]
    pub flood_invite: RuleSettings,
    /// OPTIONS requests.
    #[serde(rename = "flood-options", deserialize_with = "rules::rule::<_, 10, 500>")]
    pub flood_options: RuleSettings,
    /// All other traffic on protected ports.
    #[serde(rename = "flood-other", deserialize_with = "rules::rule::<_, 10, 5000>")]
    pub flood_other: RuleSettings,
    /// Requests with the marks of a scanner.
    #[serde(rename = "scanner-signature")]
    pub scanner_signature: SignatureSettings,
    /// Refused credentials.
    #[serde(rename = "auth-failure")]
    pub auth_failure: AuthFailureSettings,
    /// Accounts tried without success.
    #[serde(rename = "account-scan")]
    pub account_scan: AccountScanSettings,
    /// Numbers dialled in vain.
    #[serde(rename = "dialplan-probe")]
    pub dialplan_probe: DialplanSettings,
    /// What is not SIP.
    #[serde(rename = "garbage", deserialize_with = "rules::rule::<_, 60, 100>")]
    pub garbage: RuleSettings,
    /// Credentials for one account refused to many sources.
    #[serde(rename = "distributed-auth")]
    pub distributed_auth: DistributedSettings,
    /// Bans in one network.
    #[serde(rename = "network-aggregate")]
    pub network_aggregate: NetworkSettings,
}

/// Shortest and longest window.
const WINDOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

impl Default for DetectConfig {
    fn default() -> Self {
        Self {
            ban_time: Duration::from_secs(3600),
            ban_time_max: Duration::from_secs(7 * 24 * 3600),
            memory: Duration::from_secs(24 * 3600),
            unproven_ban: Duration::from_secs(30),
            proof_lifetime: Duration::from_secs(24 * 3600),
            trust_time: Duration::from_secs(3600),
            trust_time_max: Duration::from_secs(24 * 3600),
            max_sources: 100_000,
            max_accounts: 100_000,
            max_transactions: 100_000,
            flood_register: RuleSettings::new(10, 500),
            flood_invite: RuleSettings::new(10, 1500),
            flood_options: RuleSettings::new(10, 500),
            flood_other: RuleSettings::new(10, 5000),
            scanner_signature: SignatureSettings::default(),
            auth_failure: AuthFailureSettings::default(),
            account_scan: AccountScanSettings::default(),
            dialplan_probe: DialplanSettings::default(),
            garbage: RuleSettings::new(60, 100),
            distributed_auth: DistributedSettings::default(),
            network_aggregate: NetworkSettings::default(),
        }
    }
}

impl DetectConfig {
    /// What `rule` has in common with the others.
    #[must_use]
    pub const fn settings(&self, rule: Rule) -> RuleSettings {
        match rule {
            Rule::FloodRegister => self.flood_register,
            Rule::FloodInvite => self.flood_invite,
            Rule::FloodOptions => self.flood_options,
            Rule::FloodOther => self.flood_other,
            Rule::ScannerSignature => self.scanner_signature.common(),
            Rule::AuthFailure => self.auth_failure.common(),
            Rule::AccountScan => self.account_scan.common(),
            Rule::DialplanProbe => self.dialplan_probe.common(),
            Rule::Garbage => self.garbage,
            Rule::DistributedAuth => self.distributed_auth.common(),
            Rule::NetworkAggregate => self.network_aggregate.common(),
        }
    }

    /// What is wrong with values that are well-formed by themselves: pairs of a key below `detect` and a sentence
    /// for the operator. Empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut problem = |key: String, text: String| problems.push((key, text));
        if self.ban_time < Duration::from_secs(1) {
            problem("ban_time".into(), "must be at least 1s".into());
        }
        if self.ban_time_max < self.ban_time {
            problem(
                "ban_time_max".into(),
                "must not be shorter than `ban_time`".into(),
            );
        }
        for (key, time) in [
            ("unproven_ban", self.unproven_ban),
            ("proof_lifetime", self.proof_lifetime),
            ("trust_time", self.trust_time),
            ("trust_time_max", self.trust_time_max),
        ] {
            if time < Duration::from_secs(1) {
                problem(key.into(), "must be at least 1s".into());
            }
        }
        for (key, value) in [
            ("max_sources", self.max_sources),
            ("max_accounts", self.max_accounts),
            ("max_transactions", self.max_transactions),
        ] {
            if !(1_000..=10_000_000).contains(&value) {
                problem(
                    key.into(),
                    format!("is {value}, must be between 1000 and 10000000"),
                );
            }
        }
        for rule in Rule::ALL {
            let settings = self.settings(rule);
            if settings.threshold == 0 {
                let text = "must be at least 1; to switch a rule off, set `enabled = false`";
                problem(format!("{rule}.threshold"), text.into());
            }
            if !(WINDOW.0..=WINDOW.1).contains(&settings.window) {
                problem(format!("{rule}.window"), "must be between 1s and 24h".into());
            }
        }
        rules::problems(self, &mut problem);
        let signature = &self.scanner_signature;
        for (key, list) in [
            ("user_agents", &signature.user_agents),
            ("extra_user_agents", &signature.extra_user_agents),
        ] {
            for text in list {
                if text.trim_end_matches('*').trim().len() < signature::SHORTEST {
                    problem(
                        format!("{}.{key}", Rule::ScannerSignature),
                        format!(
                            "`{text}` has fewer than {} characters and would match ordinary phones",
                            signature::SHORTEST
                        ),
                    );
                }
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests;
