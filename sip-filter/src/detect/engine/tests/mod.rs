mod attackers;
mod bounds;
mod customers;
mod endpoints;
mod hostile;
mod site;
mod thresholds;
mod volume;

use std::net::Ipv4Addr;

use sip_filter_common::sip::Class;

use self::site::Site;
use super::*;
use crate::detect::Decision;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(1_700_000_000_000 + millis)
}

fn source(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))
}

fn packet(time: Duration, source: IpAddr, class: Class) -> Observation<'static> {
    Observation {
        time,
        source,
        source_port: 5060,
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        destination_port: 5060,
        protocol: 17,
        class,
        kind: EventKind::Snapshot,
        hops: 64,
        stray: false,
        count: 1,
        payload: b"",
    }
}

fn decisions(conclusions: Vec<Conclusion>) -> Vec<Decision> {
    let decision = |conclusion| match conclusion {
        Conclusion::Ban(decision) => Some(decision),
        _ => None,
    };
    conclusions.into_iter().filter_map(decision).collect()
}

impl Engine {
    fn see(&mut self, observation: Observation<'_>) -> Vec<Decision> {
        let mut conclusions = Vec::new();
        self.observe(&observation, &mut conclusions);
        decisions(conclusions)
    }
}
