//! Which interfaces to filter on, when the configuration leaves that to the host.

use std::{fs, io};

use crate::config::AUTO;

/// Flags of routes (`linux/route.h`): in use; refuses what it matches.
const RTF_UP: u32 = 0x0001;
const RTF_REJECT: u32 = 0x0200;

/// The interfaces of the configuration, with those that have a default route now in place of [`AUTO`]; each once.
///
/// # Errors
/// If the kernel's routes cannot be read.
pub(crate) fn resolve(configured: &[String]) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in configured {
        let found = if name == AUTO {
            with_default_route()?
        } else {
            vec![name.clone()]
        };
        for name in found {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

fn with_default_route() -> io::Result<Vec<String>> {
    let mut names = routes4(&fs::read_to_string("/proc/net/route")?);
    match fs::read_to_string("/proc/net/ipv6_route") {
        Ok(table) => names.extend(routes6(&table)),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(names)
}

fn usable(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (RTF_UP | RTF_REJECT) == RTF_UP)
}

/// Interface, destination, gateway, flags, references, uses, metric, mask, …
fn routes4(table: &str) -> Vec<String> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, "00000000", _, flags, _, _, _, "00000000", ..] = fields[..] else {
            return None;
        };
        usable(flags).then(|| name.to_owned())
    };
    table.lines().filter_map(default).collect()
}

/// Destination, its length, source, its length, next hop, metric, references, uses, flags, interface.
fn routes6(table: &str) -> Vec<String> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, _, _, _, _, flags, name] = fields[..] else {
            return None;
        };
        let any = destination.bytes().all(|digit| digit == b'0');
        (any && usable(flags)).then(|| name.to_owned())
    };
    table.lines().filter_map(default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t016BA8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t006BA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
";

    const ROUTES6: &str = "\
20010db8ffff00000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8ffff00000000000000000002 00000400 00000001 00000000 00000003     eth2
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn only_default_routes_in_use_count() {
        assert_eq!(routes4(ROUTES4), ["eth1"]);
        assert_eq!(routes6(ROUTES6), ["eth2"]);
    }

    #[test]
    fn names_are_kept_and_each_counts_once() {
        let names = ["eth7", "eth8", "eth7"].map(str::to_owned);
        assert_eq!(resolve(&names).unwrap(), ["eth7", "eth8"]);
    }
}
