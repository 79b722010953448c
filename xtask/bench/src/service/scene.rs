//! Kamailio, phones, and the flood.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::lab::{
    Site, Topology, interrupt,
    process::tail,
    sipp::{Deed, Pace as Attempts, Phone, Sipp},
    spoof::mac,
    topology::EDGE_INTERFACE,
};

use super::guard::{Guard, Protection};
use crate::{
    Session,
    flood::{self, Flood, Pace},
    generator::{Shape, Sources},
};

/// Sources of the flood.
const FLOODERS: Sources = Sources::from(1, 8);
/// Customers, each at an address of its own.
const PHONES: std::ops::RangeInclusive<u8> = 11..=130;
/// What they do together: less than a tenth of what Kamailio can on this machine, and nobody of them more than pike
/// takes.
const REGISTRATIONS: u32 = 80;
const CALLS: u32 = 40;
/// How much longer phones may take than they are given work for: a call lasts half a second, and whoever is not
/// answered tries again after half a second, then after one more.
const GRACE: Duration = Duration::from_millis(2_500);
/// The flood begins so much earlier, so that nobody profits from being slow to react.
const LEAD: Duration = Duration::from_millis(700);

/// What was served during a flood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    /// Frames a second of the flood.
    pub(super) flood: f64,
    /// Calls a second that went from INVITE to BYE as they should.
    pub(super) calls: f64,
    /// Registrations a second that were accepted.
    pub(super) registrations: f64,
    /// Part of what was tried that was not completed.
    pub(super) failed: f64,
}

/// A service with one protection.
pub(super) struct Scene<'a> {
    session: &'a Session,
    guard: Guard,
    site: Site,
    phones: Vec<Phone>,
    rounds: AtomicU32,
}

impl<'a> Scene<'a> {
    pub(super) fn start(session: &'a Session, protection: Protection) -> Result<Self> {
        let phones: Vec<Phone> = PHONES
            .map(|number| Phone {
                address: Topology::phone_v4(number),
                user: "1001".to_owned(),
                password: "correct-horse".to_owned(),
            })
            .collect();
        let numbers: Vec<u8> = PHONES.collect();
        let account = phones.get(..1).context("no phones")?;
        let limit = Duration::from_secs(600);
        let site = Site::guarded("service", &numbers, &[], account, limit, protection.own())?;
        // Answers to the flooders leave the server, as they do in earnest, and end here.
        let router = &site.topology.router;
        router.ip(&["route", "add", "blackhole", "default"])?;
        let guard = Guard::start(protection, session, &site)?;
        let scene = Self {
            session,
            guard,
            site,
            phones,
            rounds: AtomicU32::new(0),
        };
        // Everybody registers before anything happens.
        let count = u32::try_from(scene.phones.len())?;
        let mut first = scene.phones(Deed::Register, count * 2 / 3, count, Duration::from_secs(10))?;
        finish(&mut first, Duration::from_secs(10))?;
        let stats = first.stats()?;
        ensure!(
            stats.completed == u64::from(count),
            "{} of {count} phones registered without a flood: {}",
            stats.completed,
            tail(&first.process.log(), 8)
        );
        Ok(scene)
    }

    /// Has the phones work for `length` during a flood.
    pub(super) fn serve(&self, pace: Option<Pace>, length: Duration) -> Result<Served> {
        let Some(pace) = pace else {
            return self.work(length);
        };
        let topology = &self.site.topology;
        let IpAddr::V4(server) = Site::server_v4().ip() else {
            bail!("the server has no IPv4 address");
        };
        let traffic = Shape::request("REGISTER").from(FLOODERS);
        let traffic = flood::aim(traffic, mac(&topology.edge, EDGE_INTERFACE)?, server)?;
        let mut flood = Flood::new(self.session, (&topology.router, self.guard.way()), traffic)?;
        let (served, sent) = flood.during(pace, u64::MAX, |_| {
            thread::sleep(LEAD);
            self.work(length)
        })?;
        self.guard.check()?;
        Ok(Served {
            flood: sent.rate(),
            ..served
        })
    }

    fn work(&self, length: Duration) -> Result<Served> {
        let count = |rate: u32| (f64::from(rate) * length.as_secs_f64()) as u32;
        let mut work = [
            self.phones(Deed::Register, REGISTRATIONS, count(REGISTRATIONS), length)?,
            self.phones(Deed::Call, CALLS, count(CALLS), length)?,
        ];
        let until = Instant::now() + length + GRACE;
        for sipp in &mut work {
            finish(sipp, until.saturating_duration_since(Instant::now()))?;
        }
        let [registrations, calls] = [work[0].stats()?.completed, work[1].stats()?.completed];
        let wanted = f64::from(count(REGISTRATIONS) + count(CALLS));
        Ok(Served {
            flood: 0.0,
            calls: calls as f64 / length.as_secs_f64(),
            registrations: registrations as f64 / length.as_secs_f64(),
            failed: 1.0 - (calls + registrations) as f64 / wanted,
        })
    }

    /// Starts the phones.
    fn phones(&self, deed: Deed, rate: u32, count: u32, length: Duration) -> Result<Sipp> {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        let attempts = Attempts {
            rate,
            every: Duration::from_secs(1),
            count,
            limit: length + GRACE * 2,
        };
        // A port of its own each time: late answers of the round before are nobody's.
        let port = 10_000 + 100 * u16::try_from(round)?;
        Sipp::crowd(
            &self.site.topology.phones,
            &self.site.dir,
            &format!("phones-{round}"),
            (deed, &self.phones),
            port,
            Site::server_v4(),
            attempts,
        )
    }
}

/// Waits for the end of the phones' work, and ends it when the time has come; SIPp then writes its last figures.
fn finish(sipp: &mut Sipp, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while sipp.process.status()?.is_none() {
        interrupt::check()?;
        if start.elapsed() >= limit {
            // As an operator's `q` does: no new calls, and an orderly end.
            sipp.process.stop();
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
