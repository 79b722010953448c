//! One scenario under one protection.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use xtask::lab::{Site, interrupt, process::tail};

use super::{
    attack, customers,
    customers::{Habit, Tally},
    joined,
    judge::{Course, Verdict},
    meter::{self, Packets, Reading},
    protection::{Guardian, Protection},
    scenario::{Goal, Play, Scenario},
    tap::{self, Tap},
};

/// How long the phones work before anything else happens.
const WARM_UP: Duration = Duration::from_secs(4);
/// How often counters and bans are read.
const SAMPLING: Duration = Duration::from_millis(400);

/// What came of it: plain figures.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) scenario: &'static str,
    pub(super) protection: Protection,
    pub(super) attack: Option<Attacked>,
    pub(super) customers: Served,
}

/// The attackers' side.
#[derive(Debug, Clone)]
pub(super) struct Attacked {
    pub(super) verdict: Verdict,
    /// The rules of bans on attackers.
    pub(super) rules: BTreeSet<String>,
    /// Addresses and networks banned that aren't customers'.
    pub(super) bans: usize,
    /// The longest of these bans.
    pub(super) longest: Option<Duration>,
    /// From the start of the attack until a ban on an attacker was first seen.
    pub(super) banned_after: Option<Duration>,
    pub(super) total: Packets,
    pub(super) after: Packets,
    pub(super) refused: u64,
    pub(super) accounts: usize,
    pub(super) logins: u64,
    /// The rules of alarms, which ban nobody.
    pub(super) alarms: BTreeSet<String>,
    /// Whether its packets came in the names of others.
    pub(super) forged: bool,
}

/// The customers' side.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) tally: Tally,
    /// Packets that left the phones and didn't reach the server.
    pub(super) lost: u64,
    pub(super) sent: u64,
    /// Whether what these packets are for depends on each of them.
    pub(super) precious: bool,
    /// Bans that hit customers, with their rules.
    pub(super) banned: Vec<String>,
}

impl Served {
    pub(super) fn hurt(&self) -> bool {
        self.tally.failed > 0 || !self.banned.is_empty() || self.lossy()
    }

    /// Whether more than a hundredth of a tunnel's packets were lost.
    pub(super) fn lossy(&self) -> bool {
        self.precious && self.lost * 100 > self.sent
    }
}

/// What is the same for all trials of a run.
#[derive(Debug, Clone)]
pub(super) struct Conditions {
    /// Everything is shortened.
    pub(super) brief: bool,
    /// The sip-filter to judge.
    pub(super) binary: Option<PathBuf>,
    /// Where to keep the logs of server and protection, and what passed between them and the world.
    pub(super) logs: Option<PathBuf>,
}

/// Plays it.
pub(super) fn play(scenario: &Scenario, protection: Protection, conditions: &Conditions) -> Result<Outcome> {
    let accounts = customers::accounts();
    let phones = [&customers::BASE[..], &[customers::SPECIAL]].concat();
    let longest = Duration::from_secs(900);
    let role = format!("eval-{}-{}", scenario.name, protection.name());
    let mut site = Site::guarded(
        &role,
        &phones,
        &[attack::HOST],
        &accounts,
        longest,
        protection.guard(),
    )?;
    meter::install(&site)?;
    let mut guardian = Guardian::start(protection, &site, conditions.binary.as_deref())?;
    let name = format!("{}-{}", scenario.name, protection.name());
    if let Some(dir) = &conditions.logs {
        fs::create_dir_all(dir)?;
    }
    let capture = conditions
        .logs
        .as_ref()
        .map(|dir| dir.join(format!("{name}.pcap")));
    let scene = Scene {
        site: &site,
        // Half a gigabyte would tell nothing more.
        capture: capture.filter(|_| scenario.weight < super::CAPACITY),
        scenario,
        brief: conditions.brief,
    };
    let played = scene.play(&mut guardian).with_context(|| match guardian.log() {
        log if log.is_empty() => protection.name().to_owned(),
        log => format!("{}; its last words: {}", protection.name(), tail(&log, 5)),
    });
    let (course, seen, tally) = played?;
    site.kamailio.check()?;
    if let Some(dir) = &conditions.logs {
        fs::write(dir.join(format!("{name}-protection.log")), guardian.log())?;
        fs::write(dir.join(format!("{name}-kamailio.log")), site.kamailio.log())?;
    }

    let customer = match (course.readings.first(), course.readings.last()) {
        (Some(first), Some(last)) => last.customer.since(first.customer),
        _ => Packets::default(),
    };
    let (hit, others): (Vec<_>, Vec<_>) = guardian
        .bans
        .iter()
        .partition(|(net, _)| customers::is_customer(net));
    let alarms = guardian.alarms()?;
    let attacked = scenario.goal().map(|goal| {
        let first = others.iter().map(|(_, ban)| ban.at).min();
        Attacked {
            verdict: course.verdict(goal, course.readings.last().map_or(course.start, |last| last.at)),
            rules: others.iter().map(|(_, ban)| ban.rule.clone()).collect(),
            bans: others.len(),
            longest: others.iter().map(|(_, ban)| ban.left).max(),
            banned_after: first.map(|at| at.saturating_duration_since(course.start)),
            total: course.total(),
            after: course.after(goal),
            refused: seen.refused,
            accounts: seen.accounts.len(),
            logins: seen.logins,
            alarms,
            forged: goal == Goal::Contained,
        }
    });
    Ok(Outcome {
        scenario: scenario.name,
        protection,
        attack: attacked,
        customers: Served {
            tally,
            lost: customer.sent.saturating_sub(customer.reached),
            sent: customer.sent,
            precious: matches!(scenario.play, Play::Customer(Habit::KeepAlives)),
            banned: hit
                .iter()
                .map(|(net, ban)| format!("{} ({})", net.addr(), ban.rule))
                .collect(),
        },
    })
}

/// Tells everybody to stop, whatever way the stage is left.
struct Curtain<'a> {
    stops: [&'a AtomicBool; 2],
    tap: &'a Tap,
}

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        for stop in self.stops {
            stop.store(true, Ordering::Relaxed);
        }
        self.tap.stop();
    }
}

struct Scene<'a> {
    site: &'a Site,
    scenario: &'a Scenario,
    brief: bool,
    /// Where to keep the packets.
    capture: Option<PathBuf>,
}

impl Scene<'_> {
    fn play(&self, guardian: &mut Guardian) -> Result<(Course, tap::Seen, Tally)> {
        let Self {
            site,
            scenario,
            brief,
            ref capture,
        } = *self;
        let tap = Tap::new();
        let (stop, stop_phones) = (AtomicBool::new(false), AtomicBool::new(false));
        let limit = scenario.limit(brief);
        thread::scope(|scope| {
            let curtain = Curtain {
                stops: [&stop, &stop_phones],
                tap: &tap,
            };
            let watching = scope.spawn(|| tap.watch(&site.topology.router, capture.as_deref()));
            let accounts = customers::accounts();
            let phones: Vec<_> = accounts
                .into_iter()
                .take(customers::BASE.len())
                .map(|phone| {
                    let stop = &stop_phones;
                    scope.spawn(move || customers::live(site, &phone, stop))
                })
                .collect();
            customers::rest(WARM_UP, &stop);
            let mut course = Course {
                start: Instant::now(),
                last_answer: None,
                sent: 0,
                readings: vec![meter::read(site)?],
            };
            let mut tally = Tally::default();
            course.start = Instant::now();
            match scenario.play {
                Play::Attack(attack) => {
                    let attacking = scope.spawn({
                        let stop = &stop;
                        move || attack.play(site, scenario.v6, limit, stop)
                    });
                    let goal = scenario.goal().unwrap_or(Goal::Contained);
                    while course.start.elapsed() < limit && !attacking.is_finished() {
                        self.observe(&mut course, &tap, guardian)?;
                        if course.is_stopped(goal, Instant::now()) {
                            break;
                        }
                    }
                    stop.store(true, Ordering::Relaxed);
                    joined(attacking)?;
                }
                Play::Customer(habit) => {
                    let living = scope.spawn({
                        let stop = &stop;
                        move || habit.play(site, scenario.v6, brief, stop)
                    });
                    while !living.is_finished() {
                        self.observe(&mut course, &tap, guardian)?;
                    }
                    tally.add(joined(living)?);
                }
            }
            self.observe(&mut course, &tap, guardian)?;
            stop_phones.store(true, Ordering::Relaxed);
            for phone in phones {
                tally.add(joined(phone)?);
            }
            guardian.look(site)?;
            drop(curtain);
            joined(watching)?;
            interrupt::check()?;
            Ok((course, tap.seen(), tally))
        })
    }

    fn observe(&self, course: &mut Course, tap: &Tap, guardian: &mut Guardian) -> Result<()> {
        interrupt::check()?;
        let begun = Instant::now();
        guardian.look(self.site)?;
        let reading: Reading = meter::read(self.site)?;
        let seen = tap.seen();
        course.readings.push(reading);
        course.last_answer = seen.last_answer;
        course.sent = seen.sent;
        thread::sleep(SAMPLING.saturating_sub(begun.elapsed()));
        Ok(())
    }
}
