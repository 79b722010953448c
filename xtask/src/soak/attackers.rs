//! Attackers, real and forged. Rates are modest: it is their number and variety that counts here.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use xtask::lab::{
    Process, Site, Topology,
    client::Client,
    scanners::Scan,
    sipp::{Flood, Pace, Sipp},
    spoof::Forger,
    traffic::{self, Burst},
};

use super::{Sabotage, Stage, customers};

/// Last part of the address that is banned by hand from the beginning to the end.
const FOR_GOOD: u8 = 41;
/// Of the one that is banned, let go, allowed and forbidden again.
const NOW_AND_THEN: u8 = 42;
/// Where forged packets come from.
const FORGER: u8 = 43;
/// Those that act in turn; the one with IPv6 is [`SIXTH`].
const TURNS: [u8; 7] = [21, 22, 23, 24, 25, 26, 27];
const SIXTH: u8 = 25;
/// One turn.
const TURN: Duration = Duration::from_secs(4);
/// Forged addresses of scanners; each comes again when its ban has long ended.
const SCANNERS: u32 = 512;
const SCANNERS_A_SECOND: u32 = 10;
/// Forged addresses of floods: more than are remembered.
const CROWD: u32 = 20_000;

pub(super) fn hosts() -> Vec<u8> {
    TURNS
        .into_iter()
        .chain([FOR_GOOD, NOW_AND_THEN, FORGER])
        .collect()
}

/// The addresses whose packets are counted behind the filter.
pub(super) fn addresses() -> Vec<IpAddr> {
    TURNS
        .into_iter()
        .map(address)
        .chain([for_good(), now_and_then()])
        .collect()
}

fn address(host: u8) -> IpAddr {
    if host == SIXTH {
        Topology::attacker_v6(host)
    } else {
        Topology::attacker_v4(host)
    }
}

pub(super) fn for_good() -> IpAddr {
    Topology::attacker_v4(FOR_GOOD)
}

pub(super) fn now_and_then() -> IpAddr {
    Topology::attacker_v4(NOW_AND_THEN)
}

/// Ordinary questions from an address that is banned by hand before it asks the first.
pub(super) fn banned_for_good(stage: &Stage<'_>) -> Result<()> {
    stage
        .filter
        .ask(&["ban", &for_good().to_string(), "-d", "permanent", "-R", "soak"])?;
    if stage.sabotage == Some(Sabotage::Leak) {
        stage.filter.ask(&["allow", "add", &for_good().to_string()])?;
    }
    // What was on its way when it was banned is through by the time the next sample is taken.
    ask_options(stage, FOR_GOOD, 10)
}

/// The same from one that is banned now and then, by [`super::operator`].
pub(super) fn banned_now_and_then(stage: &Stage<'_>) -> Result<()> {
    ask_options(stage, NOW_AND_THEN, 20)
}

fn ask_options(stage: &Stage<'_>, host: u8, rate: u32) -> Result<()> {
    let from = SocketAddr::new(address(host), 5060);
    let server = Site::server_for(from.ip());
    let client = Client::new(stage.site.topology.attacker(host)?, from, server, "nobody")?;
    let mut packet = Vec::new();
    for serial in 0.. {
        if !stage.goes_on() {
            break;
        }
        packet.clear();
        request(&mut packet, ("OPTIONS", "LabPhone/2.0"), serial, from, server);
        client.send(&packet)?;
        stage.rest(Duration::from_secs(1) / rate);
    }
    Ok(())
}

/// Scanners by the name they give themselves, each from another forged address: short bans, again and again.
pub(super) fn forged_scanners(stage: &Stage<'_>) -> Result<()> {
    let host = stage.site.topology.attacker(FORGER)?;
    let mut forger = Forger::new((host, "eth0"), (&stage.site.topology.router, "wild0"))?;
    let mut serial = 0u32;
    while stage.goes_on() {
        let burst = Burst {
            count: SCANNERS_A_SECOND.into(),
            rate: Some(SCANNERS_A_SECOND),
            limit: Duration::from_secs(2),
        };
        let server = Site::server_v4();
        forger.send(
            server,
            burst,
            || !stage.goes_on(),
            |_, payload| {
                serial += 1;
                let from = SocketAddr::new(Ipv4Addr::from(0x0a10_0000 | (serial % SCANNERS)).into(), 5060);
                request(
                    payload,
                    ("OPTIONS", "friendly-scanner"),
                    serial.into(),
                    from,
                    server,
                );
                from
            },
        );
        stage.rest(Duration::from_millis(50));
    }
    Ok(())
}

/// Everybody in turn, and after each round again, having been let go.
pub(super) fn attack(stage: &Stage<'_>) -> Result<()> {
    let mut round = 0u32;
    while stage.goes_on() {
        for host in TURNS {
            if !stage.goes_on() {
                break;
            }
            let banned = if host == SIXTH {
                "2001:db8:bad::/64".to_owned()
            } else {
                address(host).to_string()
            };
            stage.filter.ask(&["unban", &banned])?;
            turn(stage, host)?;
        }
        if stage.goes_on() {
            forge(stage, round, None)?;
        }
        if stage.goes_on() {
            // In a customer's name, from another port than his.
            let name = customers::accounts()
                .get(1)
                .map(|phone| SocketAddr::new(phone.address, 5099));
            forge(stage, round, name)?;
        }
        round += 1;
    }
    Ok(())
}

fn turn(stage: &Stage<'_>, host: u8) -> Result<()> {
    let server = Site::server_for(address(host));
    match host {
        21 => scan(
            stage,
            host,
            &Scan::War {
                server: server.ip(),
                extensions: "2000-9999".to_owned(),
            },
        ),
        22 => {
            let (user, passwords) = ("1001".to_owned(), "3000-9999".to_owned());
            scan(
                stage,
                host,
                &Scan::Crack {
                    server: server.ip(),
                    user,
                    passwords,
                },
            )
        }
        23 => scan(
            stage,
            host,
            &Scan::Map {
                targets: Site::server_range(),
            },
        ),
        24 => flood(stage, host, Flood::Register, 150),
        SIXTH => flood(stage, host, Flood::Invite, 400),
        26 => {
            let burst = Burst {
                count: 180,
                rate: Some(60),
                limit: TURN,
            };
            let from = SocketAddr::new(address(host), 0);
            let netns = stage.site.topology.attacker(host)?;
            traffic::send(netns, from, server, burst, |number, buffer| {
                buffer.extend([0xff, 0xfe, number as u8]);
                buffer.extend(b" no SIP at all");
            })?;
            Ok(())
        }
        _ => guess_over_tcp(stage, host, server),
    }
}

fn scan(stage: &Stage<'_>, host: u8, scan: &Scan) -> Result<()> {
    let netns = stage.site.topology.attacker(host)?;
    let process = scan.start(netns, &stage.site.dir, &format!("scan-{host}"), TURN)?;
    wait_for(stage, process)
}

fn flood(stage: &Stage<'_>, host: u8, flood: Flood, rate: u32) -> Result<()> {
    let from = SocketAddr::new(address(host), 5060);
    let pace = Pace {
        rate,
        every: Duration::from_secs(1),
        count: rate * TURN.as_secs() as u32,
        limit: TURN,
    };
    let netns = stage.site.topology.attacker(host)?;
    let name = format!("flood-{host}");
    let sipp = Sipp::flood(
        netns,
        &stage.site.dir,
        &name,
        flood,
        from,
        Site::server_for(from.ip()),
        pace,
    )?;
    wait_for(stage, sipp.process)
}

fn wait_for(stage: &Stage<'_>, mut process: Process) -> Result<()> {
    let mut waited = Duration::ZERO;
    while process.status()?.is_none() && stage.goes_on() && waited < TURN * 2 {
        stage.rest(Duration::from_millis(50));
        waited += Duration::from_millis(50);
    }
    process.stop();
    Ok(())
}

/// Wrong passwords over TCP, which proves the address.
fn guess_over_tcp(stage: &Stage<'_>, host: u8, server: SocketAddr) -> Result<()> {
    let netns = stage.site.topology.attacker(host)?;
    // Once it is banned, it has no connection.
    let Ok(client) = Client::tcp(netns, SocketAddr::new(address(host), 0), server, "1001") else {
        return Ok(());
    };
    let client = client.hasty();
    for number in 0..8 {
        if !stage.goes_on() || client.register(&format!("secret{number}")).is_err() {
            break;
        }
    }
    Ok(())
}

/// A flood of INVITE: each in another name, or all in one.
fn forge(stage: &Stage<'_>, round: u32, name: Option<SocketAddr>) -> Result<()> {
    let host = stage.site.topology.attacker(FORGER)?;
    let mut forger = Forger::new((host, "eth0"), (&stage.site.topology.router, "wild0"))?;
    let (rate, server) = (400, Site::server_v4());
    let burst = Burst {
        count: u64::from(rate) * TURN.as_secs(),
        rate: Some(rate),
        limit: TURN,
    };
    let mut serial = round * rate * TURN.as_secs() as u32;
    forger.send(
        server,
        burst,
        || !stage.goes_on(),
        |_, payload| {
            serial = serial.wrapping_add(1);
            // In no order; odd multiples visit each of them.
            let stranger =
                Ipv4Addr::from(0x0b00_0000 | (serial % CROWD).wrapping_mul(0x9e37_79b1) & 0x00ff_ffff);
            let from = name.unwrap_or(SocketAddr::new(stranger.into(), 5060));
            request(payload, ("INVITE", "Z 5.6.1"), serial.into(), from, server);
            from
        },
    );
    Ok(())
}

fn request(
    payload: &mut Vec<u8>,
    (method, agent): (&str, &str),
    serial: u64,
    from: SocketAddr,
    server: SocketAddr,
) {
    let text = format!(
        "{method} sip:1001@{server} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKk{serial:x}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@{from}>;tag={serial:x}\r\nTo: <sip:1001@{server}>\r\n\
         Call-ID: {serial:x}@{from}\r\nCSeq: 1 {method}\r\nUser-Agent: {agent}\r\nContent-Length: 0\r\n\r\n"
    );
    payload.extend(text.as_bytes());
}
