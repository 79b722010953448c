//! The operator, and those who look on: bans by hand and whether they hold, allowances, lists, reloads, followers.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{Process, workdir::path_str};

use super::{OTHER, SETTINGS, Sabotage, Stage, attackers};

/// A ban by hand that is to end by itself.
const BRIEF: Duration = Duration::from_secs(4);
/// What was on its way when a ban was made has arrived by then.
const ON_ITS_WAY: Duration = Duration::from_millis(150);
/// Within this, who may send is seen to arrive; it sends 20 packets a second.
const SOON: Duration = Duration::from_secs(15);

/// Bans one source in every way, and sees that it is stopped as long and only as long.
pub(super) fn operate(stage: &Stage<'_>) -> Result<()> {
    let source = attackers::now_and_then().to_string();
    let ask = |args: &[&str]| stage.filter.ask(args).map(drop);
    while stage.goes_on() {
        arrives(stage, "before any ban")?;
        let start = Instant::now();
        ask(&["ban", &source, "-d", "4s", "-R", "soak, for a moment"])?;
        // Its end may come while we look, on a busy machine: then nothing is concluded.
        stopped(stage, Duration::from_millis(2_500), || start.elapsed() < BRIEF)?;
        arrives(stage, "after its ban has ended")?;

        ask(&["ban", &source, "-d", "permanent", "-R", "soak, for good"])?;
        stopped(stage, Duration::from_secs(1), || true)?;
        ask(&["allow", "add", &source, "-R", "soak"])?;
        arrives(stage, "allowed")?;
        ask(&["allow", "remove", &source])?;
        stopped(stage, Duration::from_secs(1), || true)?;
        ask(&["unban", &source])?;
        arrives(stage, "after its ban was lifted")?;

        ask(&["ban", "100.64.0.0/16", "203.0.113.40/30", "-d", "3s"])?;
        stopped(stage, Duration::from_millis(1_500), || true)?;
        ask(&["unban", "203.0.113.40/30"])?;
        arrives(stage, "after the ban of its network was lifted")?;
    }
    Ok(())
}

/// Makes sure that nothing of the source arrives for a time, if the ban lasted until it was read.
fn stopped(stage: &Stage<'_>, time: Duration, lasted: impl Fn() -> bool) -> Result<()> {
    thread::sleep(ON_ITS_WAY);
    let before = arrived(stage)?;
    stage.rest(time);
    let after = arrived(stage)?;
    if lasted() && stage.goes_on() {
        stage.watched.fetch_add(1, Ordering::Relaxed);
        stage.leaked.fetch_add(after - before, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits until something of the source arrives.
fn arrives(stage: &Stage<'_>, when: &str) -> Result<()> {
    let (start, before) = (Instant::now(), arrived(stage)?);
    while stage.goes_on() && arrived(stage)? == before {
        ensure!(
            start.elapsed() < SOON,
            "{} is stopped {when}",
            attackers::now_and_then()
        );
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn arrived(stage: &Stage<'_>) -> Result<u64> {
    let counts = stage.reached.read(&stage.site.topology.edge)?;
    counts
        .get(&attackers::now_and_then())
        .copied()
        .context("no counter")
}

/// Imports, exports, reloads, questions, and followers that come and go beside one that stays.
pub(super) fn keep_lists(stage: &Stage<'_>) -> Result<()> {
    let list: String = (0..300u32)
        .map(|n| format!("10.201.{}.{}\n", n / 250, n % 250 + 1))
        .collect();
    let list = stage.site.dir.write("brief.txt", &list)?;
    let _stays = follow(stage, "follower")?;
    let mut followers = Vec::new();
    let ask = |args: &[&str]| stage.filter.ask(args);
    let mut round = 0u32;
    while stage.goes_on() {
        let follower = follow(stage, &format!("follower-{round}"))?;
        ask(&["import", path_str(&list)?, "-d", "3s", "-R", "soak"])?;
        stage.rest(Duration::from_secs(2));
        let exported = ask(&["export", "--format", "plain"])?.lines().count();
        ensure!(
            exported >= super::PERMANENT as usize,
            "only {exported} bans exported"
        );
        stage
            .filter
            .configure(&[SETTINGS, if round.is_multiple_of(2) { OTHER } else { "" }].concat())?;
        ask(&["config", "reload"])?;
        for question in [
            &["status"][..],
            &["events", "-n", "50"],
            &["health"],
            &["allow", "list"],
        ] {
            // Health fails while something is wrong, as it does under attack.
            if let Err(error) = ask(question)
                && question != ["health"]
            {
                return Err(error);
            }
        }
        // Either says that it is banned, or, by failing, that it is not.
        let _ = ask(&["check", &attackers::for_good().to_string()]);
        stage.rest(Duration::from_secs(2));
        round += 1;
        match stage.sabotage {
            Some(Sabotage::Followers) => followers.push(follower),
            Some(Sabotage::Bans) => forever(stage, round)?,
            _ => drop(follower),
        }
    }
    Ok(())
}

fn follow(stage: &Stage<'_>, name: &str) -> Result<Process> {
    let command = stage.filter.command(&["events", "-f", "-o", "raw"]);
    Process::spawn(&stage.site.topology.edge, name, stage.site.dir.path(), command)
}

/// Bans that nobody lifts.
fn forever(stage: &Stage<'_>, round: u32) -> Result<()> {
    let list: String = (1..=200)
        .map(|last| format!("10.210.{}.{last}\n", round % 250))
        .collect();
    let list = stage.site.dir.write("forever.txt", &list)?;
    stage
        .filter
        .ask(&["import", path_str(&list)?, "-d", "permanent"])
        .map(drop)
}
