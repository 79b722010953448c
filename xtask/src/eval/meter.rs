//! Packets of attackers and customers, on both sides of the protection.
//!
//! The router marks what comes from either side in the DSCP field, because spoofed packets can't be told by their
//! source; the server's host counts by mark, behind every firewall: what is counted reaches Kamailio's socket.

use std::time::Instant;

use anyhow::{Context as _, Result};
use xtask::lab::{Netns, Site, workdir::path_str};

const ROUTER: &str = r#"table inet sipf_eval {
  counter attack { }
  counter customer { }
  chain marking {
    type filter hook prerouting priority mangle; policy accept;
    iifname "wild0" ip dscp set cs1
    iifname "wild0" ip6 dscp set cs1
    iifname "office0" ip dscp set cs2
    iifname "office0" ip6 dscp set cs2
  }
  chain counting {
    type filter hook forward priority 0; policy accept;
    iifname "wild0" oifname "edge0" meta l4proto { tcp, udp } counter name attack
    iifname "office0" oifname "edge0" meta l4proto { tcp, udp } counter name customer
    ip daddr 10.0.0.0/8 drop
    ip6 daddr 2001:db9::/32 drop
  }
}
"#;
const EDGE: &str = r"table inet sipf_eval {
  counter attack { }
  counter customer { }
  chain counting {
    type filter hook input priority 10; policy accept;
    meta l4proto { tcp, udp } ip dscp cs1 counter name attack
    meta l4proto { tcp, udp } ip6 dscp cs1 counter name attack
    meta l4proto { tcp, udp } ip dscp cs2 counter name customer
    meta l4proto { tcp, udp } ip6 dscp cs2 counter name customer
  }
}
";

/// Packets of either side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Packets {
    pub(super) sent: u64,
    pub(super) reached: u64,
}

impl Packets {
    /// What came after `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(earlier.sent),
            reached: self.reached.saturating_sub(earlier.reached),
        }
    }
}

/// All counters at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) attack: Packets,
    pub(super) customer: Packets,
}

/// Starts counting.
pub(super) fn install(site: &Site) -> Result<()> {
    let load = |netns: &Netns, name, rules| -> Result<()> {
        let file = site.dir.write(name, rules)?;
        netns.run("nft", &["-f", path_str(&file)?]).map(drop)
    };
    load(&site.topology.router, "router.nft", ROUTER)?;
    load(&site.topology.edge, "edge.nft", EDGE)
}

/// Reads all counters.
pub(super) fn read(site: &Site) -> Result<Reading> {
    let at = Instant::now();
    // In this order: what reached the server was sent, so `reached` can't exceed `sent`.
    let [reached, customer_reached] = counters(&site.topology.edge)?;
    let [sent, customer_sent] = counters(&site.topology.router)?;
    Ok(Reading {
        at,
        attack: Packets { sent, reached },
        customer: Packets {
            sent: customer_sent,
            reached: customer_reached,
        },
    })
}

fn counters(netns: &Netns) -> Result<[u64; 2]> {
    parse(&netns.run("nft", &["-j", "list", "counters", "table", "inet", "sipf_eval"])?)
}

fn parse(json: &str) -> Result<[u64; 2]> {
    let value: serde_json::Value = serde_json::from_str(json).context("nft's JSON")?;
    let objects = value["nftables"]
        .as_array()
        .context("nft's JSON has no `nftables`")?;
    let packets = |name: &str| {
        objects
            .iter()
            .map(|object| &object["counter"])
            .find(|counter| counter["name"] == name)
            .and_then(|counter| counter["packets"].as_u64())
            .with_context(|| format!("nft has no counter {name}"))
    };
    Ok([packets("attack")?, packets("customer")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        let json = r#"{"nftables": [{"metainfo": {}}, {"counter": {"name": "customer", "packets": 3}},
            {"counter": {"name": "attack", "packets": 9}}]}"#;
        assert_eq!(parse(json).unwrap(), [9, 3]);
        assert!(parse(r#"{"nftables": []}"#).is_err());
    }
}
