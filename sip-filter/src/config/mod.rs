//! The configuration: what may be set, its defaults, and how it reaches the kernel program.
//!
//! Reading has two steps. Serde checks the shape and every value by itself (`load`); `check` then looks at what
//! a type cannot express. Both report file, line and key.

mod alarms;
mod check;
mod difference;
mod limits;
mod load;
mod locate;
mod pattern;
mod sections;
mod text;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sip_filter_common::{abi, sip::Class};

pub use self::{
    alarms::{Alarms, Alertmanager, Exec, Syslog, SyslogTarget, SyslogTargetError, Webhook},
    limits::{Budget, LimitRate, LimitSetting, Limits, TrustedLimits},
    load::{ConfigError, DEFAULT_PATH, Overrides, Problem, Source},
    pattern::{is_pattern, matches},
    sections::{
        Allow, BanSettings, Bpf, Conditions, Events, Log, LogFormat, Metrics, MissingInterface, OnStop,
        Protect, Tables, Trust,
    },
};
use crate::{dataplane::AttachMode, detect::DetectConfig, privileges::Privileges};

/// Copies of dropped frames per CPU and window (67 ms) while somebody captures them: about 1,000 a second.
const DROP_CAPTURES_PER_WINDOW: u32 = 64;

/// In place of an interface: all that have a default route when the daemon starts.
pub const AUTO: &str = "auto";

/// Everything an operator can set. `Config::default()` is what runs without a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Network interfaces to filter on, patterns among them; [`AUTO`] stands for those with a default route.
    pub interfaces: Vec<String>,
    /// What is done at the start about those that are not there.
    pub missing_interface: MissingInterface,
    /// Decide and count, drop nothing.
    pub simulate: bool,
    /// Directory of the durable state.
    pub state_dir: PathBuf,
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Group that may read over the socket.
    #[serde(with = "text::or_empty")]
    pub socket_group: Option<String>,
    /// Group that may also write; root always may.
    #[serde(with = "text::or_empty")]
    pub admin_group: Option<String>,
    /// What becomes of the kernel program when the daemon stops.
    pub on_stop: OnStop,
    /// What becomes of the capabilities when everything is attached.
    pub privileges: Privileges,
    /// How to attach.
    pub xdp_mode: AttachMode,
    /// Leading bits by which IPv6 sources are counted and banned.
    pub ipv6_source_prefix: u8,
    /// Which ports are protected.
    pub protect: Protect,
    /// Who is never dropped.
    pub allow: Allow,
    /// Limits per source by traffic class.
    pub limits: Limits,
    /// Limits per trusted source.
    pub limits_trusted: TrustedLimits,
    /// Limits of all untrusted sources together.
    pub budget: Budget,
    /// Sources with a registration in force.
    pub trust: Trust,
    /// Bans by hand.
    pub bans: BanSettings,
    /// Sizes of the kernel tables.
    pub tables: Tables,
    /// What the kernel reports.
    pub events: Events,
    /// Detection rules.
    pub detect: DetectConfig,
    /// Where numbers are published.
    pub metrics: Metrics,
    /// When something is wrong.
    pub conditions: Conditions,
    /// Who is told.
    pub alarms: Alarms,
    /// The BPF file system.
    pub bpf: Bpf,
    /// Logging.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interfaces: vec![AUTO.to_owned()],
            missing_interface: MissingInterface::Wait,
            simulate: false,
            state_dir: "/var/lib/sip-filter".into(),
            socket: "/run/sip-filter/api.sock".into(),
            socket_group: None,
            admin_group: None,
            on_stop: OnStop::Keep,
            privileges: Privileges::Drop,
            xdp_mode: AttachMode::Auto,
            ipv6_source_prefix: 64,
            protect: Protect::default(),
            allow: Allow::default(),
            limits: Limits::default(),
            limits_trusted: TrustedLimits::default(),
            budget: Budget::default(),
            trust: Trust::default(),
            bans: BanSettings::default(),
            tables: Tables::default(),
            events: Events::default(),
            detect: DetectConfig::default(),
            metrics: Metrics::default(),
            conditions: Conditions::default(),
            alarms: Alarms::default(),
            bpf: Bpf::default(),
            log: Log::default(),
        }
    }
}

impl Config {
    /// The part the kernel program reads. The flags that tell which networks exist are the data plane's to add.
    #[must_use]
    pub fn kernel(&self, seed: [u64; 2]) -> abi::Config {
        abi::Config {
            seed,
            flags: if self.simulate { abi::flags::SIMULATE } else { 0 },
            source_prefix6: u32::from(self.ipv6_source_prefix),
            snapshot_bytes: self.events.snapshot_bytes,
            snapshots_per_source: self.events.per_source,
            events_per_window: self.events.per_window,
            responses_per_source: self.events.responses_per_source,
            drop_captures_per_window: DROP_CAPTURES_PER_WINDOW,
            limits: std::array::from_fn(|index| {
                let class = Class::ALL[index % Class::COUNT];
                let plain = self.limits.of(class);
                if index < Class::COUNT {
                    return plain.kernel();
                }
                // Whoever raises a plain limit only must not hold trusted sources tighter than strangers.
                self.limits_trusted.0.of(class).looser(plain).kernel()
            }),
            unknown_budget: Class::ALL.map(|class| self.budget.limits.of(class).kernel()),
            fresh_budget: Class::ALL.map(|class| self.budget.fresh(class)),
        }
    }

    /// The effective configuration as TOML, as `sip-filter config show` prints it.
    ///
    /// # Errors
    /// If a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Keys whose value differs in `new` but only takes effect at a restart, because tables, sockets or attachments
    /// are made from them.
    #[must_use]
    pub fn restart_needed(&self, new: &Self) -> Vec<&'static str> {
        [
            ("state_dir", self.state_dir != new.state_dir),
            ("socket", self.socket != new.socket),
            ("socket_group", self.socket_group != new.socket_group),
            ("admin_group", self.admin_group != new.admin_group),
            ("privileges", self.privileges != new.privileges),
            ("xdp_mode", self.xdp_mode != new.xdp_mode),
            (
                "ipv6_source_prefix",
                self.ipv6_source_prefix != new.ipv6_source_prefix,
            ),
            ("tables", self.tables != new.tables),
            ("metrics.listen", self.metrics.listen != new.metrics.listen),
            ("bpf", self.bpf != new.bpf),
            ("log.format", self.log.format != new.log.format),
            ("log.kernel", self.log.kernel != new.log.kernel),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// `new`, but with this configuration's value for every key of [`Config::restart_needed`]: what is in force
    /// after a reload.
    #[must_use]
    pub fn reloaded(&self, new: Self) -> Self {
        let old = self.clone();
        Self {
            state_dir: old.state_dir,
            socket: old.socket,
            socket_group: old.socket_group,
            admin_group: old.admin_group,
            privileges: old.privileges,
            xdp_mode: old.xdp_mode,
            ipv6_source_prefix: old.ipv6_source_prefix,
            tables: old.tables,
            metrics: Metrics {
                listen: old.metrics.listen,
                ..new.metrics
            },
            bpf: old.bpf,
            log: Log {
                level: new.log.level,
                ..old.log
            },
            ..new
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kernel_settings_follow() {
        let config = Config {
            simulate: true,
            ..Config::default()
        };
        let kernel = config.kernel([1, 2]);
        assert_eq!(kernel.seed, [1, 2]);
        assert_eq!(kernel.flags, abi::flags::SIMULATE);
        assert_eq!(kernel.source_prefix6, 64);
        assert_eq!(kernel.snapshot_bytes, 768);
        // 20 a second is one each 50 ms; 400 at once are 399 ahead of time.
        assert_eq!(
            kernel.limits[Class::Register as usize],
            abi::Limit {
                interval: 50_000_000,
                tolerance: 399 * 50_000_000
            }
        );
    }

    #[test]
    fn a_trusted_source_is_never_held_tighter_than_a_stranger() {
        let text = "limits.register = { rate = \"unlimited\" }\nlimits.invite.burst = 9000\nbudget.options.rate = \"1/s\"";
        let kernel = Config::parse(text, "x").unwrap().kernel([0, 0]);
        assert_eq!(
            kernel.limits[Class::COUNT + Class::Register as usize],
            abi::Limit::UNLIMITED
        );
        assert_eq!(
            kernel.limits[Class::COUNT + Class::Invite as usize],
            abi::Limit::new(1_000, 1_000_000_000, 9_000)
        );
        assert_eq!(
            kernel.unknown_budget[Class::Options as usize],
            abi::Limit::new(1, 1_000_000_000, 1_000)
        );
        assert_eq!(kernel.responses_per_source, 512);
    }

    /// Dotted keys of all values in a table.
    fn keys(prefix: &str, table: &toml::Table, into: &mut BTreeSet<String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => keys(&format!("{prefix}{key}."), inner, into),
                _ => drop(into.insert(format!("{prefix}{key}"))),
            }
        }
    }

    #[test]
    fn the_example_is_complete_and_holds_the_defaults() {
        const EXAMPLE: &str = include_str!("../../../packaging/config.toml");
        let example = Config::parse(EXAMPLE, "packaging/config.toml").unwrap();
        assert_eq!(
            example.to_toml().unwrap(),
            Config::default().to_toml().unwrap(),
            "packaging/config.toml states another value than the default"
        );
        assert_eq!(example, Config::default());

        let (mut stated, mut known) = (BTreeSet::new(), BTreeSet::new());
        keys("", &EXAMPLE.parse().unwrap(), &mut stated);
        keys(
            "",
            &Config::default().to_toml().unwrap().parse().unwrap(),
            &mut known,
        );
        let missing: Vec<_> = known.difference(&stated).collect();
        assert!(missing.is_empty(), "packaging/config.toml lacks {missing:#?}");
    }

    #[test]
    fn what_needs_a_restart_stays_as_it_was_after_a_reload() {
        let old = Config::default();
        let mut new = Config {
            simulate: true,
            ipv6_source_prefix: 56,
            interfaces: vec!["eth7".to_owned()],
            ..Config::default()
        };
        new.tables.ban4 = 7;
        assert_eq!(old.restart_needed(&new), ["ipv6_source_prefix", "tables"]);
        let effective = old.reloaded(new);
        assert_eq!(
            effective,
            Config {
                simulate: true,
                interfaces: vec!["eth7".to_owned()],
                ..Config::default()
            }
        );
        assert!(old.restart_needed(&effective).is_empty());
    }
}
