//! `cargo xtask soak`: one daemon, a long time, and everything that happens to one: customers, attackers of all kinds,
//! bans by rules and by hand that end, allowances, imports, reloads, followers and scrapes. It fails if anything grows
//! that should not, if a customer is hurt, or if a packet of a banned source reaches the server.

mod attackers;
mod customers;
mod judge;
mod operator;
mod report;
mod sample;

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::lab::{self, Site, SourceCounters, interrupt, workdir::path_str};

use self::{judge::Ends, sample::Sampler};
use crate::{
    demo::filter::{self, Filter},
    process::{Privilege, workspace},
};

/// Bans that stay from the beginning to the end.
const PERMANENT: u32 = 500;
/// How long those of the last minute may take to end.
const SETTLE: Duration = Duration::from_secs(40);
/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);

/// Short bans, so that many end; memories so small that the traffic fills them within minutes. Attackers share a
/// network with those by whom bans by hand are tried, so none is made of it.
const SETTINGS: &str = "[tables]\nban4 = 100000\n[log]\nformat = \"json\"\n\
                        [detect]\nunproven_ban = \"8s\"\nmax_sources = 10000\nmax_accounts = 10000\n\
                        max_transactions = 10000\n[detect.network-aggregate]\nenabled = false\n";
/// Buckets of a table for 100,000 bans.
const BUCKETS: u32 = 32_768;
/// What every other reload adds.
const OTHER: &str = "[protect]\nudp_ports = [5060, 5070]\n[limits.options]\nrate = \"40/s\"\n\
                     [detect.garbage]\nthreshold = 90\n[events]\nper_source = 256\n[conditions]\nflood_rate = 500\n";

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long the traffic goes on; less, if a file `stop` appears in the directory of --out
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Build the daemon without optimisation, which is quicker
    #[arg(long)]
    debug_build: bool,
    /// Run this sip-filter instead of one built from here
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Write the figures to bench-results/soak.csv and the plot to docs/img/soak.svg
    #[arg(long, conflicts_with = "out")]
    record: bool,
    /// Write both to this directory
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    out: PathBuf,
    /// Do what must make it fail: shows that it can
    #[arg(long, hide = true, value_enum)]
    sabotage: Option<Sabotage>,
}

/// What must make a soak fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sabotage {
    /// Followers of the events that never go.
    Followers,
    /// Bans that never end.
    Bans,
    /// A customer is banned by hand.
    Customer,
    /// A source that should be banned is let through.
    Leak,
}

/// What all actors share.
struct Stage<'a> {
    site: &'a Site,
    filter: &'a Filter,
    /// What of attackers and of those banned by hand reached the server.
    reached: &'a SourceCounters,
    sabotage: Option<Sabotage>,
    /// A file that ends the run early when it appears.
    early: PathBuf,
    stop: AtomicBool,
    tried: AtomicU64,
    failed: AtomicU64,
    unanswered: AtomicU64,
    /// Packets of banned sources that reached the server, and stretches of time in which that was looked for.
    leaked: AtomicU64,
    watched: AtomicU64,
    complaints: Mutex<Vec<String>>,
}

impl Stage<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && !interrupt::requested()
    }

    /// Sleeps, but not past the end.
    fn rest(&self, time: Duration) {
        let start = Instant::now();
        while self.goes_on() {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn complain(&self, text: String) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        // The first few tell it all.
        if complaints.len() < 10 {
            println!(
                "at {}: {text}",
                humantime::format_rfc3339_seconds(SystemTime::now())
            );
            complaints.push(text);
        }
    }

    /// Runs an actor; if it cannot go on, that is a finding, not the end of the others.
    fn play(&self, who: &str, actor: impl FnOnce(&Self) -> Result<()>) {
        if let Err(error) = actor(self)
            && !interrupt::requested()
        {
            self.complain(format!("{who}: {error:#}"));
        }
    }
}

/// Plays and judges.
///
/// # Errors
/// If it can't be played, or the verdict is bad.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        args.minutes >= 0.5 && args.minutes <= 10_000.0,
        "--minutes {}: at least half a minute",
        args.minutes
    );
    if Privilege::look() != Privilege::Root {
        bail!("network namespaces and XDP need root");
    }
    interrupt::install()?;
    let profile = if args.debug_build { "dev" } else { "release" };
    let binary = match &args.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => filter::build(profile)?,
    };
    lab::sweep()?;
    let (samples, ends, log) = play(binary, args)?;
    let findings = judge::judge(&samples, &ends);
    report::print(&samples, &findings, &log);
    let files = if args.record {
        [
            workspace().join("bench-results/soak.csv"),
            workspace().join("docs/img/soak.svg"),
        ]
    } else {
        ["soak.csv", "soak.svg"].map(|name| workspace().join(&args.out).join(name))
    };
    report::write(&samples, &files)?;
    let bad = findings.iter().filter(|finding| !finding.good).count();
    let minutes = samples.last().map_or(0.0, |last| (last.second / 60.0).round());
    ensure!(
        bad == 0,
        "soak of {minutes} min ({profile} build): {bad} findings are bad"
    );
    println!("soak of {minutes} min ({profile} build): all is well");
    Ok(())
}

fn play(binary: PathBuf, args: &Args) -> Result<(Vec<judge::Sample>, Ends, sample::Log)> {
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let accounts = customers::accounts();
    let site = Site::start(
        "soak",
        &customers::HOSTS,
        &attackers::hosts(),
        &accounts,
        length + SETTLE * 4,
    )?;
    let edge = &site.topology.edge;
    let filter = Filter::start(edge, &site.dir, binary, SETTINGS)?;
    let reached = SourceCounters::install(edge, &site.dir, &attackers::addresses())?;
    let permanent: String = (0..PERMANENT)
        .map(|n| format!("10.200.{}.{}\n", n / 250, n % 250 + 1))
        .collect();
    let file = site.dir.write("permanent.txt", &permanent)?;
    filter.ask(&["import", path_str(&file)?, "-d", "permanent"])?;
    let stage = Stage {
        site: &site,
        filter: &filter,
        reached: &reached,
        sabotage: args.sabotage,
        early: workspace().join(&args.out).join("stop"),
        stop: AtomicBool::new(false),
        tried: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        unanswered: AtomicU64::new(0),
        leaked: AtomicU64::new(0),
        watched: AtomicU64::new(0),
        complaints: Mutex::new(Vec::new()),
    };
    let mut sampler = Sampler::new(&stage)?;
    thread::sleep(EVERY * 2);
    let before = sampler.descriptors()?;
    let samples = act(&stage, &mut sampler, &accounts, length);
    let samples = samples.with_context(|| format!("the daemon's log ends so:\n{}", filter.log()))?;
    let mut ends = Ends {
        list_and_table: sampler.settle(&stage)?,
        ..Ends::default()
    };
    // Connections that have just ended are closed by then.
    thread::sleep(EVERY * 2);
    ends.descriptors = (before, sampler.descriptors()?);
    if stage.watched.load(Ordering::Relaxed) == 0 {
        stage.complain("nobody looked for packets of banned sources".to_owned());
    }
    ends.complaints = stage
        .complaints
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let log = sampler.into_log()?;
    Ok((samples, ends, log))
}

/// Everybody acts while samples are taken.
fn act(
    stage: &Stage<'_>,
    sampler: &mut Sampler,
    accounts: &[lab::sipp::Phone],
    length: Duration,
) -> Result<Vec<judge::Sample>> {
    thread::scope(|scope| {
        let customers: Vec<_> = accounts
            .iter()
            .zip(0u8..)
            .map(|(phone, number)| {
                scope.spawn(move || {
                    stage.play("a customer", |stage| customers::live(stage, phone, number == 0));
                })
            })
            .collect();
        // Whoever is to be trusted registers first.
        stage.rest(EVERY * 3);
        scope.spawn(|| stage.play("attackers", attackers::attack));
        scope.spawn(|| stage.play("forged scanners", attackers::forged_scanners));
        scope.spawn(|| stage.play("the source banned for good", attackers::banned_for_good));
        scope.spawn(|| stage.play("the source banned now and then", attackers::banned_now_and_then));
        scope.spawn(|| stage.play("operator", operator::operate));
        scope.spawn(|| stage.play("lists and reloads", operator::keep_lists));
        let samples = sampler.take(stage, length, EVERY);
        stage.stop.store(true, Ordering::Relaxed);
        drop(customers);
        samples
    })
}
