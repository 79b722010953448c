//! `cargo xtask demo`: real attackers against a real SIP server behind the filter, while real phones call.
//!
//! It passes only if every attacker is banned, nothing of it reaches the server from then on, and no phone
//! loses a call or a registration. Without the filter the same run fails, which shows that it can.

mod attacker;
pub(crate) mod filter;
pub(crate) mod phones;
mod verdict;
mod view;

use std::{
    ffi::OsStr,
    net::IpAddr,
    os::unix::process::CommandExt as _,
    panic,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use xtask::lab::{self, Site, SourceCounters, command, interrupt};

use self::{
    attacker::Attacker,
    filter::Filter,
    phones::RunningPhone,
    verdict::{AttackerRecord, PhoneRecord, Sample, Verdict},
    view::View,
};
use crate::{process::Privilege, setup, toolchain_record::ToolchainRecord};

/// How often counters and bans are read.
const SAMPLING: Duration = Duration::from_millis(100);
const TOOLS: [&str; 7] = ["ip", "nft", "kamailio", "sipp", "svmap", "svwar", "svcrack"];

/// Options of the demonstration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run the attacks against the bare server: the demonstration must fail then
    #[arg(long, hide = true)]
    without_filter: bool,
    /// Demonstrate this sip-filter instead of the one built from here
    #[arg(long, hide = true, value_name = "FILE", conflicts_with = "without_filter")]
    binary: Option<PathBuf>,
}

/// Runs the demonstration. The last line it prints is the verdict.
///
/// # Errors
/// If signals can't be handled; everything later is a verdict.
pub(crate) fn run(args: &Args) -> Result<()> {
    interrupt::install()?;
    // Errors are a verdict too, and by now everything has been cleaned up.
    let outcome = panic::catch_unwind(|| prepare(args).and_then(|binary| perform(binary.as_deref())));
    let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("the demonstration itself panicked")));
    let (verdict, code) = match outcome {
        Ok(Verdict::Pass(text)) => (format!("PASS {text}"), 0),
        Ok(Verdict::Fail(text)) => (format!("FAIL {text}"), 1),
        Err(error) => (format!("FAIL {}", format!("{error:#}").replace('\n', " | ")), 1),
    };
    println!("\ndemo: {verdict}");
    // Not an error, which would print one more line. Everything has been dropped by now.
    std::process::exit(code)
}

/// Makes sure that everything needed is there, root's rights last; returns the filter's binary.
fn prepare(args: &Args) -> Result<Option<PathBuf>> {
    let needs_build = !args.without_filter && args.binary.is_none();
    let has_tools = TOOLS.into_iter().all(command::exists);
    if !has_tools || (needs_build && ToolchainRecord::load().is_none()) {
        setup::run()?;
    }
    let binary = match &args.binary {
        Some(binary) => Some(std::path::absolute(binary)?),
        None => needs_build.then(|| filter::build("release")).transpose()?,
    };
    interrupt::check()?;
    if Privilege::look() != Privilege::Root {
        return Err(become_root(binary.as_deref()));
    }
    lab::sweep()?;
    Ok(binary)
}

/// Continues as root with what the user has built; returns only if that fails.
fn become_root(binary: Option<&Path>) -> anyhow::Error {
    let Ok(program) = std::env::current_exe() else {
        return anyhow!("can't find myself");
    };
    let mut args: Vec<&OsStr> = vec!["demo".as_ref()];
    match binary {
        Some(binary) => args.extend(["--binary".as_ref(), binary.as_os_str()]),
        None => args.push("--without-filter".as_ref()),
    }
    match Privilege::look().command(&program.to_string_lossy(), args) {
        Some(mut command) => anyhow!(command.exec()).context("can't become root"),
        None => anyhow!("network namespaces and XDP need root, and there is no sudo"),
    }
}

/// Sets the scene, lets everything happen, and tears down.
fn perform(binary: Option<&Path>) -> Result<Verdict> {
    let mut view = View::new();
    view.event("building the network and starting the SIP server");
    let accounts = phones::accounts();
    let whole = phones::DURATION + phones::PATIENCE + Duration::from_secs(20);
    let mut site = Site::start("demo", &phones::HOSTS, &attacker::HOSTS, &accounts, whole)?;
    let user = accounts
        .first()
        .map(|phone| phone.user.as_str())
        .context("no accounts")?;
    let attackers = attacker::all(user);
    let sources: Vec<IpAddr> = attackers.iter().map(Attacker::address).collect();
    let sent = SourceCounters::install(&site.topology.router, &site.dir, &sources)?;
    let reached = SourceCounters::install(&site.topology.edge, &site.dir, &sources)?;

    let filter = match binary {
        Some(binary) => {
            let filter = Filter::start(&site.topology.edge, &site.dir, binary.to_owned(), "")?;
            view.event("sip-filter protects the server's interface");
            Some(filter)
        }
        None => {
            view.event("NO FILTER: the server is on its own");
            None
        }
    };
    let phones = accounts
        .iter()
        .map(|phone| RunningPhone::start(&site, phone))
        .collect::<Result<_>>()?;
    view.event(&format!("{} phones register and call", accounts.len()));

    let mut scene = Scene {
        view,
        attackers,
        phones,
        filter,
        sent,
        reached,
    };
    if let Err(error) = scene.play(&mut site) {
        if let Some(filter) = &scene.filter {
            eprint_log(&filter.log());
        }
        return Err(error);
    }
    scene.conclude(&site)
}

#[expect(clippy::print_stderr, reason = "diagnostics go there")]
fn eprint_log(log: &str) {
    eprintln!("sip-filter's last words:\n{log}");
}

/// Everybody on the stage.
struct Scene {
    // Ends first, in this order: the attackers, the phones, the filter; then the site.
    view: View,
    attackers: Vec<Attacker>,
    phones: Vec<RunningPhone>,
    filter: Option<Filter>,
    sent: SourceCounters,
    reached: SourceCounters,
}

impl Scene {
    /// The main loop, until everybody is done.
    fn play(&mut self, site: &mut Site) -> Result<()> {
        let start = Instant::now();
        let end = phones::DURATION + phones::PATIENCE + Duration::from_secs(5);
        loop {
            interrupt::check()?;
            let now = start.elapsed();
            site.kamailio.check()?;
            // Before the attackers are started, so that each has a sample without a packet.
            self.observe(site)?;
            for attacker in &mut self.attackers {
                let was_active = attacker.is_active();
                let (name, address) = (attacker.record.name, attacker.address());
                if attacker.tick(now, site)? {
                    self.view.event(&format!("{name} attacks from {address}"));
                } else if was_active && attacker.finished {
                    self.view.event(&format!("{name} ends"));
                }
            }
            let mut busy = self.attackers.iter().any(|attacker| !attacker.finished);
            for phone in &mut self.phones {
                phone.tick()?;
                busy |= !phone.finished()?;
            }
            self.view.picture(&self.attackers, &self.phones);
            if !busy {
                // What was in flight when the last attacker ended has arrived by the next sample.
                thread::sleep(SAMPLING);
                return self.observe(site);
            }
            if now > end {
                bail!("not everybody was done after {} s", end.as_secs());
            }
            thread::sleep(SAMPLING.saturating_sub(start.elapsed() - now));
        }
    }

    /// Reads bans and counters.
    fn observe(&mut self, site: &Site) -> Result<()> {
        if let Some(filter) = &mut self.filter {
            filter.check()?;
            for listed in filter.bans()? {
                for attacker in &mut self.attackers {
                    let address = attacker.address();
                    if attacker.record.ban.is_none() && listed.covers(address) {
                        attacker.record.ban = Some(listed.ban.clone());
                        let AttackerRecord { name, .. } = attacker.record;
                        self.view
                            .event(&format!("{name} is BANNED by {}", listed.ban.rule));
                    }
                }
                for phone in &mut self.phones {
                    if phone.record.banned.is_none() && listed.covers(phone.record.address) {
                        phone.record.banned = Some(listed.ban.rule.clone());
                        self.view
                            .event(&format!("phone {} is banned, which is WRONG", phone.record.user));
                    }
                }
            }
        }
        let at = SystemTime::now();
        // In this order: what reached the server was sent, so `reached` can't exceed `sent`.
        let reached = self.reached.read(&site.topology.edge)?;
        let sent = self.sent.read(&site.topology.router)?;
        for attacker in &mut self.attackers {
            let count =
                |counts: &std::collections::BTreeMap<_, _>| counts.get(&attacker.record.address).copied();
            if let (Some(sent), Some(reached)) = (count(&sent), count(&reached)) {
                attacker.record.samples.push(Sample { at, sent, reached });
            }
        }
        Ok(())
    }

    /// The summary and the verdict.
    fn conclude(mut self, site: &Site) -> Result<Verdict> {
        self.view.erase();
        for phone in &mut self.phones {
            phone.tick()?;
        }
        let attackers: Vec<AttackerRecord> = self.attackers.into_iter().map(|each| each.record).collect();
        let phones: Vec<PhoneRecord> = self.phones.into_iter().map(|each| each.record).collect();
        view::summary(&attackers, &phones);
        if let Some(filter) = &self.filter {
            view::metrics(&filter::scrape(&site.topology.edge)?);
            println!("\n{}", filter.status()?.trim_end());
        }
        Ok(Verdict::of(&attackers, &phones))
    }
}
