//! A capture's way through the real pipeline and engine.

use std::{io::Read, time::Duration};

use sip_filter_common::{abi::EventHeader, verdict::Verdict};

use super::exit::Error;
use crate::{
    analyze::{self, Options, Plane, Report},
    bans::{Endpoint, Target},
    config::Config,
    dataplane::{HostPlane, Image, ImageError, KernelBan},
    detect::Engine,
};

/// Seed of the hashes: the same capture always gives the same report.
const SEED: [u64; 2] = [0x7369_702d_6669_6c74, 0x6572_2d63_6170_7475];

struct Host {
    plane: HostPlane,
    image: Box<dyn Image>,
    trusts: bool,
}

impl Plane for Host {
    fn run(&mut self, frame: &[u8], now: u64) -> Verdict {
        self.plane.run(frame, now)
    }

    fn run_egress(&mut self, frame: &[u8], now: u64) {
        self.plane.run_egress(frame, now);
    }

    fn take_events(&mut self) -> Vec<(EventHeader, Vec<u8>)> {
        self.plane.take_events()
    }

    fn ban(&mut self, target: Target, ban: KernelBan) -> Result<(), ImageError> {
        self.image.put(target, ban)
    }

    fn trust(&mut self, target: Target, until: Option<Duration>) -> Result<(), ImageError> {
        if !self.trusts {
            return Ok(());
        }
        self.image.set_trust(target, until)
    }

    fn at_home(&mut self, endpoint: Endpoint, until: Duration) -> Result<(), ImageError> {
        if !self.trusts {
            return Ok(());
        }
        self.image.set_endpoint(endpoint, Some(until))
    }
}

/// Judges a capture as the daemon would have, with this configuration; `own` are the servers in it.
///
/// # Errors
/// [`Error::Input`] if `reader` is no capture, [`Error::Local`] if the configured allow-list has no room.
pub fn judge(name: &str, reader: impl Read, config: &Config, own: &[Target]) -> Result<Report, Error> {
    let sizes = config.tables.sizes();
    let (plane, mut image) = HostPlane::new(
        &config.kernel(SEED),
        &sizes,
        &config.protect.udp_ports,
        &config.protect.tcp_ports,
    );
    let allowed: Vec<_> = config.allow.networks.iter().map(|target| target.net()).collect();
    image
        .set_allowed(&allowed)
        .map_err(|error| Error::Local(Box::new(error)))?;
    let mut engine = Engine::new(config.detect.clone(), config.ipv6_source_prefix);
    let options = Options { own: own.to_vec() };
    analyze::analyze(
        reader,
        &mut Host {
            plane,
            image,
            trusts: config.trust.enabled,
        },
        &mut engine,
        &options,
    )
    .map_err(|error| Error::Input(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{analyze::SourceReport, detect::Rule};

    fn run(name: &str, own: &[Target], change: impl Fn(&mut Config)) -> Vec<SourceReport> {
        let path = format!("{}/tests/captures/{name}.pcap", env!("CARGO_MANIFEST_DIR"));
        let mut config = Config::default();
        change(&mut config);
        let file = std::fs::File::open(path).unwrap();
        let report = judge(name, file, &config, own).map_err(|_| name).unwrap();
        let mut sources = report.sources;
        sources.retain(|source| !source.bans.is_empty());
        sources
    }

    fn blind(config: &mut Config) {
        config.detect.scanner_signature.enabled = false;
    }

    #[test]
    fn recorded_attackers_are_stopped_by_the_rule_that_is_for_them() {
        let own = ["192.0.2.0/24".parse().unwrap()];
        for own in [&own[..], &[]] {
            for name in ["svmap", "svwar", "svcrack"] {
                let [attacker] = &run(name, own, |_| {})[..] else {
                    panic!("{name}");
                };
                assert_eq!(attacker.source.to_string(), "203.0.113.21");
                assert_eq!(attacker.bans[0].rule, Rule::ScannerSignature, "{name}");
            }
            let [svwar] = &run("svwar", own, blind)[..] else {
                panic!("svwar");
            };
            assert_eq!(svwar.bans[0].rule, Rule::AccountScan);
            assert_eq!(svwar.bans[0].ban_for_seconds, 30);
            assert_eq!(svwar.packets - svwar.dropped_by_ban, 8);
            let [svcrack] = &run("svcrack", own, blind)[..] else {
                panic!("svcrack");
            };
            assert_eq!(svcrack.bans[0].rule, Rule::AuthFailure);
            assert_eq!(
                (svcrack.bans[0].evidence.count, svcrack.bans[0].ban_for_seconds),
                (5, 3600)
            );
            assert!(svcrack.bans[0].evidence.proven);
            // One without credentials, five with.
            assert_eq!(svcrack.packets - svcrack.dropped_by_ban, 6);
            assert!(run("phone", own, |_| {}).is_empty());
        }
    }
}
