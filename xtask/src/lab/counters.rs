//! Packets by source address, counted by nftables.
//!
//! The hook is `prerouting`, which comes after XDP: in the server's namespace it counts only what the filter
//! let through. In a router before the server, it counts what was sent.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use anyhow::{Context as _, Result};

use super::{Netns, WorkDir, workdir::path_str};

const TABLE: &str = "sipf_lab";

/// Counters of UDP and TCP packets, one for each source address. They go with the namespace.
///
/// Other protocols don't count: a host that reports a closed port by ICMP attacks nobody.
#[derive(Debug)]
pub struct SourceCounters {
    sources: Vec<IpAddr>,
}

impl SourceCounters {
    /// Starts counting in `netns`; once per namespace.
    ///
    /// # Errors
    /// If nftables refuses the rules.
    pub fn install(netns: &Netns, dir: &WorkDir, sources: &[IpAddr]) -> Result<Self> {
        let rules = dir.write(&format!("{}.nft", netns.name()), &render(sources))?;
        netns.run("nft", &["-f", path_str(&rules)?])?;
        Ok(Self {
            sources: sources.to_vec(),
        })
    }

    /// Reads all counters at once.
    ///
    /// # Errors
    /// If nftables fails or writes something unexpected.
    pub fn read(&self, netns: &Netns) -> Result<BTreeMap<IpAddr, u64>> {
        parse(
            &netns.run("nft", &["-j", "list", "counters", "table", "inet", TABLE])?,
            &self.sources,
        )
    }
}

fn render(sources: &[IpAddr]) -> String {
    let mut rules = format!("table inet {TABLE} {{\n");
    for index in 0..sources.len() {
        let _ = writeln!(rules, "  counter source{index} {{ }}");
    }
    rules.push_str("  chain count {\n    type filter hook prerouting priority raw; policy accept;\n");
    for (index, source) in sources.iter().enumerate() {
        let family = if source.is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(
            rules,
            "    {family} saddr {source} meta l4proto {{ tcp, udp }} counter name source{index}"
        );
    }
    rules.push_str("  }\n}\n");
    rules
}

fn parse(json: &str, sources: &[IpAddr]) -> Result<BTreeMap<IpAddr, u64>> {
    let value: serde_json::Value = serde_json::from_str(json).context("nft's JSON")?;
    let objects = value["nftables"]
        .as_array()
        .context("nft's JSON has no `nftables`")?;
    let mut counts = BTreeMap::new();
    for counter in objects.iter().filter_map(|object| object.get("counter")) {
        let index = counter["name"]
            .as_str()
            .and_then(|name| name.strip_prefix("source"));
        let source = index
            .and_then(|index| index.parse::<usize>().ok())
            .and_then(|index| sources.get(index));
        if let (Some(source), Some(packets)) = (source, counter["packets"].as_u64()) {
            counts.insert(*source, packets);
        }
    }
    anyhow::ensure!(
        counts.len() == sources.len(),
        "nft reports {} of {} counters",
        counts.len(),
        sources.len()
    );
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"counter": {"family": "inet", "name": "source0", "table": "sipf_lab", "packets": 7, "bytes": 700}},
        {"counter": {"family": "inet", "name": "source1", "table": "sipf_lab", "packets": 0, "bytes": 0}}]}"#;

    #[test]
    fn counters_are_told_apart_by_source() {
        let sources: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let counts = parse(JSON, &sources).unwrap();
        assert_eq!(counts[&sources[0]], 7);
        assert_eq!(counts[&sources[1]], 0);
    }

    #[test]
    fn a_missing_counter_is_an_error() {
        let sources: [IpAddr; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|a| a.parse().unwrap());
        assert!(parse(JSON, &sources).is_err());
    }
}
