//! The tables of the rules.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::{DetectConfig, WINDOW, signature};

/// What every rule has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RuleSettings {
    /// Whether the rule runs.
    pub enabled: bool,
    /// Packets are counted over this time.
    #[serde(with = "crate::units::duration")]
    pub window: Duration,
    /// So many packets within the window make an offence.
    pub threshold: u64,
    /// Decide and report, but ban nobody.
    pub shadow: bool,
}

impl RuleSettings {
    pub(super) const fn new(seconds: u64, threshold: u64) -> Self {
        Self {
            enabled: true,
            window: Duration::from_secs(seconds),
            threshold,
            shadow: false,
        }
    }
}

/// Adds a settings struct with the four fields every rule has and some of its own.
macro_rules! settings {
    (
        $(#[$doc:meta])* $name:ident: $window:literal, $threshold:literal;
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr),* $(,)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// Whether the rule runs.
            pub enabled: bool,
            /// What is counted is counted over this time.
            #[serde(with = "crate::units::duration")]
            pub window: Duration,
            /// So much within the window makes an offence.
            pub threshold: u64,
            /// Decide and report, but do nothing.
            pub shadow: bool,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    enabled: true,
                    window: Duration::from_secs($window),
                    threshold: $threshold,
                    shadow: false,
                    $($field: $default,)*
                }
            }
        }

        impl $name {
            /// What the rule has in common with the others.
            #[must_use]
            pub const fn common(&self) -> RuleSettings {
                RuleSettings {
                    enabled: self.enabled,
                    window: self.window,
                    threshold: self.threshold,
                    shadow: self.shadow,
                }
            }
        }
    };
}

settings! {
    /// `[detect.scanner-signature]`: requests.
    SignatureSettings: 60, 1;
    /// User-Agents of scanners. A trailing `*` makes it a prefix, otherwise the whole value must be equal; case
    /// does not matter. Setting this replaces the list that comes with sip-filter.
    user_agents: Vec<String> = signature::DEFAULT.iter().map(|text| (*text).to_owned()).collect(),
    /// More of them, in addition to [`Self::user_agents`].
    extra_user_agents: Vec<String> = Vec::new(),
    /// Tags in From which only scanners send.
    from_tags: Vec<String> = vec!["3206210844".to_owned()],
    /// `user@host` which only scanners have in both From and To.
    addresses: Vec<String> = vec!["100@1.1.1.1".to_owned()],
    /// So many REGISTER requests within the window whose Contact is our own address weigh as one mark of a scanner;
    /// 0 switches this off.
    own_contact: u64 = 3,
}

settings! {
    /// `[detect.auth-failure]`: refused credentials of one source for one account.
    ///
    /// A phone with a wrong password tries again once a minute, some twice, and must not be locked out before its
    /// owner comes to mend it: 10 in 5 minutes. Guessing passwords is faster. Two windows tell them apart:
    /// `burst_threshold` in `burst_window` stops a program within its first tries, `threshold` in `window` one that
    /// takes its time (one try in 20 seconds: after 4 minutes).
    AuthFailureSettings: 300, 12;
    /// The shorter window.
    #[serde(with = "crate::units::duration")]
    burst_window: Duration = Duration::from_secs(60),
    /// So many refused within the shorter window make an offence.
    burst_threshold: u64 = 5,
    /// So many times more are needed of a trusted source: its other phones work, and would be banned with it. At
    /// the threshold itself there is an alarm.
    trusted_factor: u64 = 4,
}

settings! {
    /// `[detect.account-scan]`: different accounts of one source that the server refused, or that were challenged and
    /// never showed credentials.
    AccountScanSettings: 60, 8;
    /// The longer window, against those who take their time.
    #[serde(with = "crate::units::duration")]
    slow_window: Duration = Duration::from_secs(3600),
    /// So many different accounts within the longer window make an offence.
    slow_threshold: u64 = 20,
    /// How long a challenged source may take to send credentials.
    #[serde(with = "crate::units::duration")]
    patience: Duration = Duration::from_secs(5),
}

settings! {
    /// `[detect.dialplan-probe]`: different numbers dialled in vain by a source that is not trusted.
    DialplanSettings: 60, 10;
    /// So many different numbers with the same last seven digits make an offence: somebody looks for a prefix.
    variants: u64 = 5,
    /// How long a challenged source may take to send credentials.
    #[serde(with = "crate::units::duration")]
    patience: Duration = Duration::from_secs(5),
}

settings! {
    /// `[detect.distributed-auth]`: different sources whose credentials for one account were refused.
    DistributedSettings: 600, 10;
    /// While an account is attacked, so many refused credentials for it are enough to ban a source that never had
    /// success with any account.
    failures: u64 = 2,
}

settings! {
    /// `[detect.network-aggregate]`: different proven sources of one network that were banned.
    NetworkSettings: 3600, 5;
    /// Size of an IPv4 network.
    prefix4: u8 = 24,
    /// Size of an IPv6 network.
    prefix6: u8 = 48,
    /// Networks banned by this rule at the same time.
    max_networks: u32 = 64,
}

/// What is wrong with values particular to a rule.
pub(super) fn problems(config: &DetectConfig, problem: &mut impl FnMut(String, String)) {
    for (key, window) in [
        ("auth-failure.burst_window", config.auth_failure.burst_window),
        ("account-scan.slow_window", config.account_scan.slow_window),
    ] {
        if !(WINDOW.0..=WINDOW.1).contains(&window) {
            problem(key.into(), "must be between 1s and 24h".into());
        }
    }
    for (key, value) in [
        (
            "auth-failure.burst_threshold",
            config.auth_failure.burst_threshold,
        ),
        ("auth-failure.trusted_factor", config.auth_failure.trusted_factor),
        ("account-scan.slow_threshold", config.account_scan.slow_threshold),
        ("dialplan-probe.variants", config.dialplan_probe.variants),
        ("distributed-auth.failures", config.distributed_auth.failures),
    ] {
        if value == 0 {
            problem(key.into(), "must be at least 1".into());
        }
    }
    for (key, value) in [
        ("account-scan.threshold", config.account_scan.threshold),
        ("account-scan.slow_threshold", config.account_scan.slow_threshold),
        ("dialplan-probe.threshold", config.dialplan_probe.threshold),
        ("dialplan-probe.variants", config.dialplan_probe.variants),
        ("distributed-auth.threshold", config.distributed_auth.threshold),
        ("network-aggregate.threshold", config.network_aggregate.threshold),
    ] {
        if value > MOST as u64 {
            problem(key.into(), format!("is {value}, must be at most {MOST}"));
        }
    }
    let network = &config.network_aggregate;
    if !(8..=32).contains(&network.prefix4) {
        problem(
            "network-aggregate.prefix4".into(),
            "must be between 8 and 32".into(),
        );
    }
    if !(16..=64).contains(&network.prefix6) {
        problem(
            "network-aggregate.prefix6".into(),
            "must be between 16 and 64".into(),
        );
    }
}

/// Largest threshold of a rule that has to remember what it counted.
pub(in crate::detect) const MOST: usize = 100;

/// A rule's table as written: what is absent keeps the default *of that rule*.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    enabled: Option<bool>,
    window: Option<Window>,
    threshold: Option<u64>,
    shadow: Option<bool>,
}

#[derive(Deserialize)]
struct Window(#[serde(with = "crate::units::duration")] Duration);

pub(super) fn rule<'de, D: Deserializer<'de>, const SECONDS: u64, const THRESHOLD: u64>(
    deserializer: D,
) -> Result<RuleSettings, D::Error> {
    let written = Written::deserialize(deserializer)?;
    let default = RuleSettings::new(SECONDS, THRESHOLD);
    Ok(RuleSettings {
        enabled: written.enabled.unwrap_or(default.enabled),
        window: written.window.map_or(default.window, |window| window.0),
        threshold: written.threshold.unwrap_or(default.threshold),
        shadow: written.shadow.unwrap_or(default.shadow),
    })
}
