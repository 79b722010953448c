//! What the types of the configuration cannot express.

use std::{collections::HashSet, path::Path, time::Duration};

use sip_filter_common::{abi, sip::Class};

use super::Config;

/// A key and what is wrong with its value.
pub(super) type Finding = (String, String);

/// Everything that is wrong, not only the first thing.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |key: &str, message: String| findings.push((key.to_owned(), message));

    let mut seen = HashSet::new();
    for name in &config.interfaces {
        // IFNAMSIZ is 16 with the final zero; the rest is the kernel's dev_valid_name().
        let valid = (1..=15).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if !valid {
            wrong(
                "interfaces",
                format!("\"{name}\" is not the name of a network interface"),
            );
        }
        if !seen.insert(name) {
            wrong("interfaces", format!("\"{name}\" is listed twice"));
        }
    }

    let paths = [
        ("state_dir", Some(&config.state_dir)),
        ("socket", Some(&config.socket)),
        ("metrics.textfile", config.metrics.textfile.as_ref()),
        ("bpf.pin_root", Some(&config.bpf.pin_root)),
    ];
    for (key, path) in paths {
        if let Some(path) = path
            && !path.is_absolute()
        {
            wrong(key, format!("\"{}\" must be an absolute path", path.display()));
        }
    }
    if config.socket.as_os_str().len() > SOCKET_PATH_MAX {
        wrong(
            "socket",
            format!(
                "\"{}\" is longer than the {SOCKET_PATH_MAX} bytes a Unix socket may have",
                config.socket.display()
            ),
        );
    }
    if config.socket.file_name().is_none() || config.socket == Path::new("/") {
        wrong("socket", format!("\"{}\" names no file", config.socket.display()));
    }

    if config.protect.udp_ports.is_empty() && config.protect.tcp_ports.is_empty() {
        wrong(
            "protect.udp_ports",
            "with no TCP port either, nothing would be protected".to_owned(),
        );
    }
    for (key, ports) in [
        ("protect.udp_ports", &config.protect.udp_ports),
        ("protect.tcp_ports", &config.protect.tcp_ports),
    ] {
        if ports.contains(&0) {
            wrong(key, "0 is not a port".to_owned());
        }
    }

    let mut range = |key: &str, value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            wrong(key, format!("{value} is not between {least} and {most}"));
        }
    };
    for class in Class::ALL {
        for (section, limits) in [
            ("limits", &config.limits),
            ("limits_trusted", &config.limits_trusted.0),
            ("budget", &config.budget.limits),
        ] {
            range(
                &format!("{section}.{}.burst", class.name()),
                limits.of(class).burst.into(),
                1,
                BURST_MAX,
            );
        }
    }
    range("trust.max", config.trust.max.into(), 1, TRUST_MAX);
    range("trust.endpoints", config.trust.endpoints.into(), 1, TRUST_MAX);
    range(
        "trust.endpoints_per_source",
        config.trust.endpoints_per_source.into(),
        1,
        ENDPOINTS_MAX,
    );
    range(
        "budget.fresh_part",
        config.budget.fresh_part.into(),
        1,
        FRESH_PART_MAX,
    );
    // The kernel program keys sources by at most the upper half of an address.
    range("ipv6_source_prefix", config.ipv6_source_prefix.into(), 32, 64);
    range("bans.widest_prefix4", config.bans.widest_prefix4.into(), 0, 32);
    range("bans.widest_prefix6", config.bans.widest_prefix6.into(), 0, 128);
    for (key, entries) in [
        ("tables.ban4", config.tables.ban4),
        ("tables.ban6", config.tables.ban6),
        ("tables.ban6_hosts", config.tables.ban6_hosts),
        ("tables.networks", config.tables.networks),
        ("tables.sources", config.tables.sources),
        ("tables.trust", config.tables.trust),
        ("tables.endpoints", config.tables.endpoints),
    ] {
        range(key, entries.into(), 64, TABLE_MAX);
    }
    range(
        "events.snapshot_bytes",
        config.events.snapshot_bytes.into(),
        64,
        abi::SNAPSHOT_MAX as u64,
    );
    range("events.per_source", config.events.per_source.into(), 1, 1_000_000);
    range("events.per_window", config.events.per_window.into(), 1, 1_000_000);
    range(
        "events.responses_per_source",
        config.events.responses_per_source.into(),
        1,
        1_000_000,
    );

    range(
        "conditions.table_full_percent",
        config.conditions.table_full_percent.into(),
        1,
        100,
    );

    if config.bans.hand_duration == Some(Duration::ZERO) {
        wrong(
            "bans.hand_duration",
            "a ban of no length does nothing; write \"permanent\" for one without end".to_owned(),
        );
    }
    if config.metrics.textfile_interval < Duration::from_secs(1) {
        wrong("metrics.textfile_interval", "is shorter than a second".to_owned());
    }
    let window = config.conditions.mass_ban_window;
    if window < Duration::from_secs(1) {
        wrong(
            "conditions.mass_ban_window",
            "is shorter than a second".to_owned(),
        );
    }
    // As a filter, a word that is no level is the name of a module, of which everything is logged, and nothing else.
    let word = config
        .log
        .level
        .chars()
        .all(|letter| letter.is_ascii_alphanumeric());
    if word
        && config
            .log
            .level
            .parse::<tracing::level_filters::LevelFilter>()
            .is_err()
    {
        wrong(
            "log.level",
            format!(
                "\"{}\" is not \"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\"",
                config.log.level
            ),
        );
    }
    if let Some(all) = config
        .allow
        .networks
        .iter()
        .find(|network| network.net().prefix_len() == 0)
    {
        wrong(
            "allow.networks",
            format!("\"{all}\" would exempt everybody; to drop nothing, set `simulate = true`"),
        );
    }
    if let Err(error) = config.log.level.parse::<tracing_subscriber::EnvFilter>() {
        wrong(
            "log.level",
            format!(
                "\"{}\" is not a level such as \"info\" or a filter: {error}",
                config.log.level
            ),
        );
    }
    for (key, message) in config.alarms.problems() {
        wrong(&format!("alarms.{key}"), message);
    }
    for (key, message) in config.detect.problems() {
        wrong(&format!("detect.{key}"), message);
    }
    findings
}

/// `sun_path` has 108 bytes, the last of which is zero.
const SOCKET_PATH_MAX: usize = 107;

/// With the slowest rate, one an hour, the tolerance of this burst still fits 64 bits of nanoseconds.
const BURST_MAX: u64 = 1_000_000;

/// The controller remembers each with its account, about 200 bytes.
const TRUST_MAX: u64 = 10_000_000;
/// They are kept in one record of the store.
const ENDPOINTS_MAX: u64 = 16_384;
const FRESH_PART_MAX: u64 = 1_000;

/// 2²⁶ entries are 0.5 to 1 GiB of kernel memory; more is surely a slip of the pen.
const TABLE_MAX: u64 = 1 << 26;
