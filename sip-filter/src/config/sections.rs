//! The sections of the configuration, with their defaults.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::text;
use crate::{bans::Target, dataplane::TableSizes};

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

/// What is done at the start about an interface of the configuration that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingInterface {
    /// The others are filtered, and it is as soon as it comes.
    #[default]
    Wait,
    /// The daemon does not start.
    Fail,
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

/// `[trust]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Whether a registration that succeeded makes its source trusted, for as long as it lasts.
    pub enabled: bool,
    /// Trusted sources at once.
    pub max: u32,
    /// Endpoints of trusted sources at once.
    pub endpoints: u32,
    /// Endpoints of one trusted source.
    pub endpoints_per_source: u32,
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
    /// Endpoints of trusted sources, both families.
    pub endpoints: u32,
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
    /// Responses reported per remote party and window.
    pub responses_per_source: u32,
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

/// `[conditions]`: when something is said to be wrong, see [`crate::conditions`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Packets dropped a second, over ten seconds, that make a flood; 0: never.
    pub flood_rate: u32,
    /// Bans by rules within `mass_ban_window` that may be too many; 0: never.
    pub mass_ban: u32,
    /// See `mass_ban`.
    #[serde(with = "crate::units::duration")]
    pub mass_ban_window: Duration,
    /// How long the filter may simulate; 0: for ever.
    #[serde(with = "crate::units::duration")]
    pub simulate_max: Duration,
    /// Use of a table, in percent, above which it is nearly full.
    pub table_full_percent: u32,
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

impl Default for Protect {
    fn default() -> Self {
        Self {
            udp_ports: vec![5060],
            tcp_ports: vec![5060, 5061],
        }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            enabled: true,
            max: 100_000,
            endpoints: 300_000,
            endpoints_per_source: 512,
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
            endpoints: 300_000,
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            snapshot_bytes: 768,
            per_source: 512,
            per_window: 4_096,
            responses_per_source: 512,
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

impl Default for Conditions {
    fn default() -> Self {
        Self {
            flood_rate: 1_000,
            mass_ban: 100,
            mass_ban_window: Duration::from_secs(600),
            simulate_max: Duration::from_secs(86_400),
            table_full_percent: 80,
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
            endpoints,
        } = *self;
        TableSizes {
            ban4,
            ban6,
            ban6_hosts,
            networks,
            sources,
            trust,
            endpoints,
        }
    }
}
