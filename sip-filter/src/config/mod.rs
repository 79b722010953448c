//! The configuration: what may be set, its defaults, and how it reaches the kernel program.
//!
//! Reading has two steps. Serde checks the shape and every value by itself (`load`); `check` then looks at what
//! a type cannot express. Both report file, line and key.

mod check;
mod difference;
mod limits;
mod load;
mod locate;
mod text;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use sip_filter_common::{abi, sip::Class};

pub use self::{
    limits::{LimitRate, LimitSetting, Limits},
    load::{ConfigError, DEFAULT_PATH, Overrides, Problem, Source},
};
use crate::{
    bans::Target,
    dataplane::{AttachMode, TableSizes},
    detect::DetectConfig,
};

/// Everything an operator can set. `Config::default()` is what runs without a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Network interfaces to filter on.
    pub interfaces: Vec<String>,
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
    /// The BPF file system.
    pub bpf: Bpf,
    /// Logging.
    pub log: Log,
}

/// What becomes of the kernel program when the daemon stops in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// It stays attached: bans and limits hold through a restart or an upgrade.
    #[default]
    Keep,
    /// It is detached and its pins are removed.
    Detach,
}

/// `[protect]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protect {
    /// UDP ports of the SIP server.
    pub udp_ports: Vec<u16>,
    /// TCP ports of the SIP server.
    pub tcp_ports: Vec<u16>,
}

/// `[allow]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Addresses and networks that are never dropped. More are added with `sip-filter allow add`.
    pub networks: Vec<Target>,
}

/// `[bans]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BanSettings {
    /// Length of a ban by hand without `--duration`; `None` is permanent.
    #[serde(with = "crate::units::ban_time")]
    pub hand_duration: Option<Duration>,
    /// Shortest IPv4 prefix that is banned without `--force`.
    pub widest_prefix4: u8,
    /// Shortest IPv6 prefix that is banned without `--force`.
    pub widest_prefix6: u8,
}

/// `[tables]`: entries for which the kernel tables have room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tables {
    /// Banned IPv4 addresses.
    pub ban4: u32,
    /// Banned IPv6 /64 networks.
    pub ban6: u32,
    /// Banned single IPv6 addresses.
    pub ban6_hosts: u32,
    /// Banned and allowed networks of other lengths.
    pub networks: u32,
    /// Sources whose rates are remembered.
    pub sources: u32,
    /// Trusted sources of each family.
    pub trust: u32,
}

/// `[events]`: what the kernel program reports for detection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Bytes of payload in a snapshot.
    pub snapshot_bytes: u32,
    /// Snapshots per source and window (67 ms).
    pub per_source: u32,
    /// Events per CPU and window.
    pub per_window: u32,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address of the `/metrics` endpoint.
    #[serde(with = "text::or_empty")]
    pub listen: Option<SocketAddr>,
    /// Directory of node_exporter's textfile collector.
    #[serde(with = "text::or_empty_path")]
    pub textfile: Option<PathBuf>,
    /// How often the text file is written.
    #[serde(with = "crate::units::duration")]
    pub textfile_interval: Duration,
}

/// `[bpf]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bpf {
    /// Directory of the pins, in a BPF file system.
    pub pin_root: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level, or a filter such as `info,sip_filter::detect=debug`.
    pub level: String,
    /// Form of the lines.
    pub format: LogFormat,
    /// Let the kernel program log the events it reports, at level debug.
    pub kernel: bool,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text; without times when the journal adds them.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            simulate: false,
            state_dir: "/var/lib/sip-filter".into(),
            socket: "/run/sip-filter/api.sock".into(),
            socket_group: None,
            admin_group: None,
            on_stop: OnStop::Keep,
            xdp_mode: AttachMode::Auto,
            ipv6_source_prefix: 64,
            protect: Protect::default(),
            allow: Allow::default(),
            limits: Limits::default(),
            bans: BanSettings::default(),
            tables: Tables::default(),
            events: Events::default(),
            detect: DetectConfig::default(),
            metrics: Metrics::default(),
            bpf: Bpf::default(),
            log: Log::default(),
        }
    }
}

impl Default for Protect {
    fn default() -> Self {
        Self {
            udp_ports: vec![5060],
            tcp_ports: vec![5060, 5061],
        }
    }
}

impl Default for BanSettings {
    fn default() -> Self {
        Self {
            hand_duration: Some(Duration::from_secs(3600)),
            widest_prefix4: 16,
            widest_prefix6: 32,
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            ban4: 1_000_000,
            ban6: 250_000,
            ban6_hosts: 65_536,
            networks: 131_072,
            sources: 262_144,
            trust: 100_000,
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            snapshot_bytes: 768,
            per_source: 64,
            per_window: 1_024,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9798))),
            textfile: None,
            textfile_interval: Duration::from_secs(15),
        }
    }
}

impl Default for Bpf {
    fn default() -> Self {
        Self {
            pin_root: "/sys/fs/bpf/sip-filter".into(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
            kernel: false,
        }
    }
}

impl Tables {
    /// As the data plane takes them.
    #[must_use]
    pub const fn sizes(&self) -> TableSizes {
        let Self {
            ban4,
            ban6,
            ban6_hosts,
            networks,
            sources,
            trust,
        } = *self;
        TableSizes {
            ban4,
            ban6,
            ban6_hosts,
            networks,
            sources,
            trust,
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
            responses_per_source: self.events.per_source,
            drop_captures_per_window: 64,
            limits: std::array::from_fn(|index| self.limits.of(Class::ALL[index % Class::COUNT]).kernel()),
            unknown_budget: [abi::Limit::UNLIMITED; Class::COUNT],
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
            ("interfaces", self.interfaces != new.interfaces),
            ("state_dir", self.state_dir != new.state_dir),
            ("socket", self.socket != new.socket),
            ("socket_group", self.socket_group != new.socket_group),
            ("admin_group", self.admin_group != new.admin_group),
            ("xdp_mode", self.xdp_mode != new.xdp_mode),
            ("protect", self.protect != new.protect),
            (
                "ipv6_source_prefix",
                self.ipv6_source_prefix != new.ipv6_source_prefix,
            ),
            ("tables", self.tables != new.tables),
            ("metrics", self.metrics != new.metrics),
            ("bpf", self.bpf != new.bpf),
            ("log", self.log != new.log),
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
            interfaces: old.interfaces,
            state_dir: old.state_dir,
            socket: old.socket,
            socket_group: old.socket_group,
            admin_group: old.admin_group,
            xdp_mode: old.xdp_mode,
            protect: old.protect,
            ipv6_source_prefix: old.ipv6_source_prefix,
            tables: old.tables,
            metrics: old.metrics,
            bpf: old.bpf,
            log: old.log,
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
        assert_eq!(
            old.restart_needed(&new),
            ["interfaces", "ipv6_source_prefix", "tables"]
        );
        let effective = old.reloaded(new);
        assert_eq!(
            effective,
            Config {
                simulate: true,
                ..Config::default()
            }
        );
        assert!(old.restart_needed(&effective).is_empty());
    }
}
