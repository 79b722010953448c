//! Settings of the detection rules.
//!
//! The thresholds are far above what a customer's site sends, because in this version a source is judged by volume
//! and by what it calls itself, and its address may be forged. Three choices keep a mistake cheap: the first ban is
//! short and only repeated offences make it long, an IPv6 source is one /64, and the allow-list wins in the kernel.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Rule, signature};

/// `[detect]`: settings of all rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectConfig {
    /// Length of a source's first ban. Short: whoever forges a victim's address should gain little.
    #[serde(with = "crate::units::duration")]
    pub ban_time: Duration,
    /// Longest ban. Each offence within [`Self::memory`] doubles the time up to this.
    #[serde(with = "crate::units::duration")]
    pub ban_time_max: Duration,
    /// How long after the end of a ban it still counts as an earlier offence.
    #[serde(with = "crate::units::duration")]
    pub memory: Duration,
    /// Sources counted at the same time; about 200 to 600 bytes each.
    pub max_sources: u32,
    /// REGISTER requests.
    #[serde(rename = "flood-register", deserialize_with = "flood::<_, 500>")]
    pub flood_register: RuleSettings,
    /// INVITE requests.
    #[serde(rename = "flood-invite", deserialize_with = "flood::<_, 1500>")]
    pub flood_invite: RuleSettings,
    /// OPTIONS requests.
    #[serde(rename = "flood-options", deserialize_with = "flood::<_, 500>")]
    pub flood_options: RuleSettings,
    /// All other traffic on protected ports.
    #[serde(rename = "flood-other", deserialize_with = "flood::<_, 5000>")]
    pub flood_other: RuleSettings,
    /// Requests whose User-Agent names a scanner.
    #[serde(rename = "scanner-signature")]
    pub scanner_signature: SignatureSettings,
}

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

/// `[detect.scanner-signature]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureSettings {
    /// Whether the rule runs.
    pub enabled: bool,
    /// Requests are counted over this time.
    #[serde(with = "crate::units::duration")]
    pub window: Duration,
    /// So many requests within the window make an offence.
    pub threshold: u64,
    /// Decide and report, but ban nobody.
    pub shadow: bool,
    /// User-Agents of scanners. A trailing `*` makes it a prefix, otherwise the whole value must be equal; case
    /// does not matter. Setting this replaces the list that comes with sip-filter.
    pub user_agents: Vec<String>,
    /// More of them, in addition to [`Self::user_agents`].
    pub extra_user_agents: Vec<String>,
}

/// Shortest and longest window.
const WINDOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

impl Default for DetectConfig {
    fn default() -> Self {
        Self {
            ban_time: Duration::from_secs(60),
            ban_time_max: Duration::from_secs(7 * 24 * 3600),
            memory: Duration::from_secs(24 * 3600),
            max_sources: 100_000,
            flood_register: RuleSettings::flood(500),
            flood_invite: RuleSettings::flood(1500),
            flood_options: RuleSettings::flood(500),
            flood_other: RuleSettings::flood(5000),
            scanner_signature: SignatureSettings::default(),
        }
    }
}

impl RuleSettings {
    const fn flood(threshold: u64) -> Self {
        Self {
            enabled: true,
            window: Duration::from_secs(10),
            threshold,
            shadow: false,
        }
    }
}

impl Default for SignatureSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            window: Duration::from_secs(60),
            threshold: 1,
            shadow: false,
            user_agents: signature::DEFAULT.iter().map(|text| (*text).to_owned()).collect(),
            extra_user_agents: Vec::new(),
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
            Rule::ScannerSignature => RuleSettings {
                enabled: self.scanner_signature.enabled,
                window: self.scanner_signature.window,
                threshold: self.scanner_signature.threshold,
                shadow: self.scanner_signature.shadow,
            },
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
        if !(1_000..=10_000_000).contains(&self.max_sources) {
            problem(
                "max_sources".into(),
                format!("is {}, must be between 1000 and 10000000", self.max_sources),
            );
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

fn flood<'de, D: Deserializer<'de>, const THRESHOLD: u64>(deserializer: D) -> Result<RuleSettings, D::Error> {
    let written = Written::deserialize(deserializer)?;
    let default = RuleSettings::flood(THRESHOLD);
    Ok(RuleSettings {
        enabled: written.enabled.unwrap_or(default.enabled),
        window: written.window.map_or(default.window, |window| window.0),
        threshold: written.threshold.unwrap_or(default.threshold),
        shadow: written.shadow.unwrap_or(default.shadow),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_keeps_the_default_of_its_rule() {
        let config: DetectConfig = toml::from_str(
            "ban_time = '2m'\n[flood-invite]\nshadow = true\n[flood-other]\nthreshold = 7\nwindow = 30",
        )
        .unwrap();
        let mut expected = DetectConfig {
            ban_time: Duration::from_secs(120),
            ..DetectConfig::default()
        };
        expected.flood_invite.shadow = true;
        expected.flood_other.threshold = 7;
        expected.flood_other.window = Duration::from_secs(30);
        assert_eq!(config, expected);
        assert_eq!(config.flood_invite.threshold, 1500);
        assert_eq!(
            toml::from_str::<DetectConfig>("").unwrap(),
            DetectConfig::default()
        );
        assert_eq!(
            toml::from_str::<DetectConfig>("[flood-invite]\n[flood-options]").unwrap(),
            DetectConfig::default()
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = toml::to_string(&DetectConfig::default()).unwrap();
        assert_eq!(
            toml::from_str::<DetectConfig>(&text).unwrap(),
            DetectConfig::default()
        );
        assert!(
            text.contains("[flood-register]\nenabled = true\nwindow = \"10s\"\nthreshold = 500\n"),
            "{text}"
        );
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            "[flood-bye]",
            "[flood-invite]\ntreshold = 1",
            "[scanner-signature]\nagents = []",
            "x = 1",
        ] {
            assert!(toml::from_str::<DetectConfig>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn problems_are_named() {
        assert_eq!(DetectConfig::default().problems(), []);
        let mut config = DetectConfig {
            ban_time: Duration::ZERO,
            max_sources: 1,
            memory: Duration::ZERO,
            ..DetectConfig::default()
        };
        config.ban_time_max = Duration::ZERO;
        config.flood_options.threshold = 0;
        config.flood_other.window = Duration::from_millis(999);
        config.scanner_signature.extra_user_agents = vec!["ab*".into(), "*".into(), "abc".into()];
        let keys: Vec<String> = config.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "ban_time",
                "max_sources",
                "flood-options.threshold",
                "flood-other.window",
                "scanner-signature.extra_user_agents",
                "scanner-signature.extra_user_agents",
            ]
        );
        config = DetectConfig {
            ban_time_max: Duration::from_secs(59),
            ..DetectConfig::default()
        };
        assert_eq!(config.problems()[0].0, "ban_time_max");
    }
}
