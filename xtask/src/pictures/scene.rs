//! What happens while Prometheus looks on: three minutes of an edge host, phones and attackers included.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow};
use xtask::lab::{
    Netns, Process, Site, Topology, interrupt,
    scanners::Scan,
    sipp::{Flood, Pace, Phone, Sipp},
    spoof::Forger,
    traffic::{self, Burst},
    workdir::path_str,
};

use super::{Shown, query};
use crate::{
    demo::{filter::Filter, phones},
    mixin::Panel,
};

/// Something that happens, and the letter by which pictures name it.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(super) letter: char,
    /// Seconds since the beginning.
    pub(super) at: u32,
    pub(super) what: &'static str,
}

const fn mark(letter: char, at: u32, what: &'static str) -> Mark {
    Mark { letter, at, what }
}

/// All that happens; who does what is in [`Scene::act`].
pub(super) const MARKS: [Mark; 8] = [
    mark('A', 15, "`svcrack` and `svwar` attack while the filter simulates"),
    mark('B', 45, "`sip-filter mode enforce`"),
    mark('C', 55, "300 addresses are imported, 20 banned by hand for 40 s"),
    mark(
        'D',
        70,
        "a flood of REGISTER from one address, 1000 a second for 25 s",
    ),
    mark('E', 80, "`svmap` scans the servers, and somebody sends garbage"),
    mark(
        'F',
        105,
        "a flood of INVITE from forged addresses, 2000 a second for 20 s",
    ),
    mark('G', 140, "a flood of INVITE by IPv6, 500 a second for 20 s"),
    mark('H', 165, "`sip-filter unban --all`"),
];

/// The whole, in seconds.
pub(super) const LENGTH: u32 = 180;

/// Last parts of the attackers' addresses, in the order in which they attack.
const ATTACKERS: [u8; 6] = [21, 22, 23, 24, 25, 26];

/// Small tables and short patience, so that three minutes show what otherwise takes a day.
const SETTINGS: &str = "[tables]\nban4 = 400\n[conditions]\nflood_rate = 200\nsimulate_max = \"20s\"\n\
                        table_full_percent = 40\n[alarms]\nhold_up = \"2s\"\nhold_down = \"5s\"\n\
                        [alarms.exec]\ncommand = [\"/bin/true\"]\n";

/// Everybody on the stage; ends in this order.
struct Scene<'scope> {
    running: Vec<Process>,
    sipps: Vec<Sipp>,
    senders: Vec<ScopedJoinHandle<'scope, Result<()>>>,
}

/// Plays it all and asks the panels' queries.
///
/// # Errors
/// If somebody cannot play.
pub(super) fn play(binary: PathBuf, panels: Vec<Panel>) -> Result<Vec<Shown>> {
    let accounts = phones::accounts();
    let whole = Duration::from_secs(u64::from(LENGTH) + 30);
    let site = Site::start("pictures", &phones::HOSTS, &ATTACKERS, &accounts, whole)?;
    let edge = &site.topology.edge;
    let filter = Filter::start(edge, &site.dir, binary, SETTINGS)?;
    filter.ask(&["mode", "simulate"])?;
    let _prometheus = query::start(edge, &site.dir)?;
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    thread::scope(|scope| -> Result<()> {
        let mut scene = Scene {
            running: Vec::new(),
            sipps: phones(&site, &accounts)?,
            senders: Vec::new(),
        };
        let keep_alive = SocketAddr::new(accounts.first().context("no phones")?.address, 5070);
        let phones = &site.topology.phones;
        let send = move || plain(phones, keep_alive, (2, LENGTH), b"\r\n\r\n");
        scene.senders.push(scope.spawn(send));
        let begin = Instant::now();
        for Mark { letter, at, what } in &MARKS {
            sleep_until(begin, *at)?;
            println!("{at:>4} s  {letter}  {what}");
            scene.act(scope, *letter, &site, &filter)?;
        }
        sleep_until(begin, LENGTH)?;
        for sender in scene.senders.drain(..) {
            sender.join().map_err(|_| anyhow!("a sender panicked"))??;
        }
        Ok(())
    })?;
    panels
        .into_iter()
        .map(|panel| query::show(edge, panel, start, LENGTH))
        .collect()
}

fn sleep_until(begin: Instant, second: u32) -> Result<()> {
    let due = Duration::from_secs(second.into());
    while begin.elapsed() < due {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Phones that register and call all the time.
fn phones(site: &Site, accounts: &[Phone]) -> Result<Vec<Sipp>> {
    let pace = Pace {
        rate: 1,
        every: Duration::from_secs(2),
        count: LENGTH / 2,
        limit: Duration::from_secs(LENGTH.into()),
    };
    let mut sipps = Vec::new();
    for phone in accounts {
        let (netns, server) = (&site.topology.phones, Site::server_for(phone.address));
        let name = |what: &str| format!("{what}-{}", phone.user);
        sipps.push(Sipp::register(
            netns,
            &site.dir,
            &name("register"),
            phone,
            5060,
            server,
            pace,
        )?);
        sipps.push(Sipp::call(
            netns,
            &site.dir,
            &name("call"),
            phone,
            5062,
            server,
            pace,
        )?);
    }
    Ok(sipps)
}

impl<'scope> Scene<'scope> {
    /// What a mark says.
    fn act<'env>(
        &mut self,
        scope: &'scope thread::Scope<'scope, 'env>,
        letter: char,
        site: &'env Site,
        filter: &Filter,
    ) -> Result<()> {
        let server = Site::server_v4().ip();
        match letter {
            'A' => {
                let (user, passwords) = ("1001".to_owned(), "3000-9999".to_owned());
                self.scan(
                    site,
                    0,
                    &Scan::Crack {
                        server,
                        user,
                        passwords,
                    },
                    40,
                )?;
                let extensions = "2000-9999".to_owned();
                self.scan(site, 1, &Scan::War { server, extensions }, 70)
            }
            'B' => filter.ask(&["mode", "enforce"]).map(drop),
            'C' => ban(site, filter),
            'D' => self.flood(site, 3, Flood::Register, (false, 1000, 25)),
            'E' => {
                let targets = Site::server_range();
                self.scan(site, 2, &Scan::Map { targets }, 10)?;
                let host = site.topology.attacker(ATTACKERS[5])?;
                let from = SocketAddr::new(Topology::attacker_v4(ATTACKERS[5]), 4000);
                let send = move || plain(host, from, (20, 10), b"\xff\xfe no SIP at all");
                self.senders.push(scope.spawn(send));
                Ok(())
            }
            'F' => {
                self.senders.push(scope.spawn(|| forge(site)));
                Ok(())
            }
            'G' => self.flood(site, 4, Flood::Invite, (true, 500, 20)),
            _ => filter.ask(&["unban", "--all", "--yes"]).map(drop),
        }
    }

    fn scan(&mut self, site: &Site, attacker: usize, scan: &Scan, seconds: u64) -> Result<()> {
        let host = ATTACKERS[attacker];
        let netns = site.topology.attacker(host)?;
        let process = scan.start(
            netns,
            &site.dir,
            &format!("scan-{host}"),
            Duration::from_secs(seconds),
        )?;
        self.running.push(process);
        Ok(())
    }

    fn flood(
        &mut self,
        site: &Site,
        attacker: usize,
        flood: Flood,
        (v6, rate, seconds): (bool, u32, u32),
    ) -> Result<()> {
        let host = ATTACKERS[attacker];
        let from = if v6 {
            Topology::attacker_v6(host)
        } else {
            Topology::attacker_v4(host)
        };
        let pace = Pace {
            rate,
            every: Duration::from_secs(1),
            count: rate * seconds,
            limit: Duration::from_secs(seconds.into()),
        };
        let netns = site.topology.attacker(host)?;
        let (from, server) = (SocketAddr::new(from, 5060), Site::server_for(from));
        let sipp = Sipp::flood(
            netns,
            &site.dir,
            &format!("flood-{host}"),
            flood,
            from,
            server,
            pace,
        )?;
        self.sipps.push(sipp);
        Ok(())
    }
}

/// Addresses of nobody, by a list and by hand.
fn ban(site: &Site, filter: &Filter) -> Result<()> {
    let list: String = (0..300u32)
        .map(|number| format!("10.9.{}.{}\n", number / 250, number % 250 + 1))
        .collect();
    let file = site.dir.write("list.txt", &list)?;
    filter.ask(&["import", path_str(&file)?])?;
    let addresses: Vec<String> = (1..=20).map(|last| format!("10.8.0.{last}")).collect();
    let mut ban = vec!["ban", "-d", "40s"];
    ban.extend(addresses.iter().map(String::as_str));
    filter.ask(&ban).map(drop)
}

/// The same payload at a steady rate for some seconds.
fn plain(host: &Netns, from: SocketAddr, (rate, seconds): (u32, u32), payload: &[u8]) -> Result<()> {
    let burst = Burst {
        count: u64::from(rate * seconds),
        rate: Some(rate),
        limit: Duration::from_secs(seconds.into()),
    };
    traffic::send(host, from, Site::server_v4(), burst, |_, buffer| {
        buffer.extend(payload)
    })
    .map(drop)
}

/// A flood in everybody's name.
fn forge(site: &Site) -> Result<()> {
    let host = site.topology.attacker(ATTACKERS[5])?;
    let mut forger = Forger::new((host, "eth0"), (&site.topology.router, "wild0"))?;
    let burst = Burst {
        count: 40_000,
        rate: Some(2000),
        limit: Duration::from_secs(20),
    };
    let server = Site::server_v4();
    let sent = forger.send(server, burst, interrupt::requested, |number, payload| {
        // Each address once, in no order.
        let hash = (number as u32).wrapping_mul(0x9e37_79b1);
        let from = Ipv4Addr::from(0x0b00_0000 | (hash >> 8));
        let text = format!(
            "INVITE sip:1001@{server} SIP/2.0\r\nVia: SIP/2.0/UDP {from}:5060;branch=z9hG4bK{hash:x}\r\n\
             From: <sip:a@{from}>;tag={hash:x}\r\nTo: <sip:1001@{server}>\r\nCall-ID: {hash:x}@{from}\r\n\
             CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        payload.extend(text.as_bytes());
        SocketAddr::new(IpAddr::V4(from), 5060)
    });
    (sent.packets > 0)
        .then_some(())
        .context("no forged packet could be sent")
}
