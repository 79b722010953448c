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
use xtask::lab::{
    Site,
    capture::Tcpdump,
    decisions::{Action, Decisions},
    frames::Link,
    interrupt,
    process::tail,
};

use super::{
    agreement::Agreement,
    attack, customers,
    customers::{Habit, Life, Tally},
    joined,
    judge::{Course, Learnt, Verdict},
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
    /// Whether an analysis of the packets decides the same; of protections that can analyse.
    pub(super) agreement: Option<Agreement>,
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
    /// Of the customer in whose name they came: requests meanwhile, and how many succeeded.
    pub(super) impersonated: Option<(u64, u64)>,
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
    let mut guardian = Guardian::start(protection, &site, conditions.binary.as_deref(), scenario)?;
    let name = format!("{}-{}", scenario.name, protection.name());
    if let Some(dir) = &conditions.logs {
        fs::create_dir_all(dir)?;
    }
    let recorder = record(&site, scenario, protection, conditions, &name)?;
    let scene = Scene {
        site: &site,
        scenario,
        brief: conditions.brief,
    };
    let played = scene.play(&mut guardian).with_context(|| match guardian.log() {
        log if log.is_empty() => protection.name().to_owned(),
        log => format!("{}; its last words: {}", protection.name(), tail(&log, 5)),
    });
    let (course, seen, tally) = played?;
    site.kamailio.check()?;
    let decisions = guardian.decisions()?;
    let agreement = compare(&guardian, &decisions, recorder)?;
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
    let alarms: BTreeSet<String> = decisions
        .iter()
        .filter(|decision| decision.action == Action::Alarm)
        .map(|decision| decision.rule.clone())
        .collect();
    let learnt = Learnt {
        refused: seen.refused,
        accounts: seen.accounts.len(),
    };
    let attacked = scenario.goal().map(|goal| {
        let first = others.iter().map(|(_, ban)| ban.at).min();
        Attacked {
            verdict: {
                let end = course.readings.last().map_or(course.start, |last| last.at);
                let verdict = course.verdict(goal, end);
                scenario
                    .most()
                    .map_or(verdict, |most| verdict.within(learnt, most))
            },
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
            forged: matches!(goal, Goal::Contained | Goal::CustomerServed),
            impersonated: scenario.impersonated().map(|_| course.impersonated),
        }
    });
    Ok(Outcome {
        scenario: scenario.name,
        protection,
        attack: attacked,
        agreement,
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

/// Begins to record what comes to the server's interface and leaves it, before the protection touches it. Where it is
/// for a comparison only, the file goes with the site; a million packets would tell nothing more.
fn record(
    site: &Site,
    scenario: &Scenario,
    protection: Protection,
    conditions: &Conditions,
    name: &str,
) -> Result<Option<Tcpdump>> {
    let file = match &conditions.logs {
        Some(dir) => dir.join(format!("{name}.pcap")),
        None if protection == Protection::SipFilter => site.dir.path().join("trial.pcap"),
        None => return Ok(None),
    };
    if scenario.weight >= super::CAPACITY {
        return Ok(None);
    }
    let router = &site.topology.router;
    Tcpdump::start(router, &site.dir, "edge0", &file, "ip or ip6").map(Some)
}

/// Whether what was recorded leads to the same decisions.
fn compare(
    guardian: &Guardian,
    decisions: &Decisions,
    recorder: Option<Tcpdump>,
) -> Result<Option<Agreement>> {
    let file = match recorder.map(Tcpdump::finish) {
        Some(Ok((file, _))) => file,
        Some(Err(error)) => return Ok(Some(Agreement::NotCompared(format!("{error:#}")))),
        None => return Ok(None),
    };
    let analysis = guardian.analyze(&file)?;
    Ok(analysis.map(|analysis| Agreement::of(decisions, &analysis)))
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
}

impl Scene<'_> {
    fn play(&self, guardian: &mut Guardian) -> Result<(Course, tap::Seen, Tally)> {
        let Self {
            site,
            scenario,
            brief,
        } = *self;
        let tap = Tap::new();
        let link = Link::open(&site.topology.router, "edge0")?;
        let (stop, stop_phones) = (AtomicBool::new(false), AtomicBool::new(false));
        let attacked = AtomicBool::new(false);
        let limit = scenario.limit(brief);
        thread::scope(|scope| {
            let curtain = Curtain {
                stops: [&stop, &stop_phones],
                tap: &tap,
            };
            let watching = scope.spawn(|| tap.watch(link));
            let accounts = customers::accounts();
            let phones: Vec<_> = accounts
                .into_iter()
                .take(customers::BASE.len())
                .zip(0..)
                .map(|(phone, number)| {
                    let life = Life {
                        stop: &stop_phones,
                        attacked: &attacked,
                        impersonated: scenario.impersonated() == Some(phone.address),
                        tcp: scenario.tcp() && number == 1,
                    };
                    scope.spawn(move || customers::live(site, &phone, life))
                })
                .collect();
            customers::rest(WARM_UP, &stop);
            let mut course = Course {
                start: Instant::now(),
                last_answer: None,
                sent: 0,
                knocks: 0,
                impersonated: (0, 0),
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
                    attacked.store(true, Ordering::Relaxed);
                    while course.start.elapsed() < limit && !attacking.is_finished() {
                        self.observe(&mut course, &tap, guardian)?;
                        if course.is_stopped(goal, Instant::now()) {
                            break;
                        }
                    }
                    attacked.store(false, Ordering::Relaxed);
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
            course.impersonated = tally.impersonated;
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
        course.knocks = seen.knocks;
        thread::sleep(SAMPLING.saturating_sub(begun.elapsed()));
        Ok(())
    }
}
