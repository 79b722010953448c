//! Taking samples: of the process, of its metrics, of the kernel's table, of what passes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    net::IpAddr,
    path::PathBuf,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use serde_json::Value;
use xtask::lab::{interrupt, kernel_table::KernelTable, usage, wait};

use super::{BUCKETS, PERMANENT, SETTLE, Stage, attackers, judge::Sample};
use crate::demo::filter::scrape;

/// A ban on the list, told from a later one of the same target by when it was made.
type Bans = BTreeMap<IpNet, String>;

/// Takes samples of one daemon.
pub(super) struct Sampler {
    pid: u32,
    table: KernelTable,
    store: PathBuf,
    log: Log,
    /// The list before the counters of the last sample, and that after them.
    lists: [Bans; 2],
    reached: BTreeMap<IpAddr, u64>,
}

/// What the daemon's log says.
#[derive(Debug, Default)]
pub(super) struct Log {
    path: PathBuf,
    read: u64,
    errors: u64,
    /// Messages of warnings and errors, and how often each was logged.
    pub(super) messages: BTreeMap<String, u64>,
}

impl Sampler {
    pub(super) fn new(stage: &Stage<'_>) -> Result<Self> {
        Ok(Self {
            pid: stage.filter.id(),
            table: KernelTable::of_daemon(stage.filter.pins(), BUCKETS)?,
            store: stage.site.dir.path().join("state/bans.redb"),
            log: Log {
                path: stage.filter.log_file().to_owned(),
                ..Log::default()
            },
            lists: Default::default(),
            reached: BTreeMap::new(),
        })
    }

    /// Samples until the end.
    pub(super) fn take(
        &mut self,
        stage: &Stage<'_>,
        length: Duration,
        every: Duration,
    ) -> Result<Vec<Sample>> {
        let start = Instant::now();
        let mut samples = Vec::new();
        let (mut told, mut missed) = (0, 0);
        while start.elapsed() < length && !stage.early.exists() {
            interrupt::check()?;
            let begun = Instant::now();
            match self.sample(stage, start.elapsed().as_secs_f64()) {
                Ok(sample) => samples.push(sample),
                // A busy machine may be late with one; many are a fault.
                Err(error) if missed < 5 + samples.len() / 100 => {
                    missed += 1;
                    println!("no sample: {error:#}");
                    // What lies between is not known.
                    self.reached.clear();
                }
                Err(error) => return Err(error),
            }
            let tenth = (start.elapsed().as_secs_f64() / length.as_secs_f64() * 10.0) as u32;
            if let Some(sample) = samples.last().filter(|_| tenth > told) {
                told = tenth;
                println!("{}", super::report::line(sample));
            }
            thread::sleep(every.saturating_sub(begun.elapsed()));
        }
        Ok(samples)
    }

    pub(super) fn descriptors(&self) -> Result<u64> {
        usage::descriptors(self.pid)
    }

    fn sample(&mut self, stage: &Stage<'_>, second: f64) -> Result<Sample> {
        self.look_for_leaks(stage)?;
        let memory = usage::memory(self.pid)?;
        let metrics = scrape(&stage.site.topology.edge)?;
        let sum = |name: &str| sum(&metrics, name);
        Ok(Sample {
            second,
            own: memory.private,
            resident: memory.resident(),
            proportional: memory.proportional,
            descriptors: self.descriptors()?,
            threads: usage::threads(self.pid)?,
            table: self.table.entries(),
            entries: sum("bpf_map_entries")?,
            bans: sum("bans")?,
            store: self.store.metadata().map_or(0, |data| data.len()),
            processor: usage::cpu(self.pid)?.as_secs_f64(),
            passed: sum("passed_packets_total")?,
            dropped: sum("dropped_packets_total")?,
            drift: sum("drift_entries_total")?,
            self_test_failures: sum("self_test_failures_total")?,
            lost: sum("events_lost_total")?,
            observed: sum("detector_observations_total")?,
            tried: stage.tried.load(Ordering::Relaxed),
            failed: stage.failed.load(Ordering::Relaxed),
            unanswered: stage.unanswered.load(Ordering::Relaxed),
            leaked: stage.leaked.load(Ordering::Relaxed),
            errors: self.log.errors()?,
        })
    }

    /// What a source sent that was banned from before the last counters until after these, must not have arrived.
    fn look_for_leaks(&mut self, stage: &Stage<'_>) -> Result<()> {
        let reached = stage.reached.read(&stage.site.topology.edge)?;
        let list = bans(stage)?;
        for phone in super::customers::accounts() {
            if let Some((net, _)) = list.iter().find(|(net, _)| net.contains(&phone.address)) {
                stage.complain(format!("the customer at {} is banned: {net}", phone.address));
            }
        }
        for (address, count) in &reached {
            // The one that is let go again and again is watched by the operator.
            if *address == attackers::now_and_then() {
                continue;
            }
            let banned = |list: &Bans| {
                let ban = list.iter().find(|(net, _)| net.contains(address))?;
                Some((*ban.0, ban.1.clone()))
            };
            let (before, now) = (banned(&self.lists[0]), banned(&list));
            if let Some(last) = self.reached.get(address)
                && now.is_some()
                && before == now
            {
                stage.watched.fetch_add(1, Ordering::Relaxed);
                stage.leaked.fetch_add(count - last, Ordering::Relaxed);
            }
        }
        self.lists.swap(0, 1);
        self.lists[1] = list;
        self.reached = reached;
        Ok(())
    }

    /// Waits until only those bans are left that nobody lifts; returns how many IPv4 addresses are then on the list and
    /// in the kernel's table.
    pub(super) fn settle(&self, stage: &Stage<'_>) -> Result<(u64, u64)> {
        stage.filter.ask(&["unban", "--origin", "detector"])?;
        let left = || -> Result<u64> {
            let addresses = bans(stage)?
                .into_keys()
                .filter(|net| net.addr().is_ipv4() && net.prefix_len() == 32);
            Ok(addresses.count() as u64)
        };
        // With the one that is banned for good.
        let expected = u64::from(PERMANENT) + 1;
        // An entry is taken out within a second after its ban has ended. If this waits in vain, what is left is judged.
        let settled = || Ok(left()? == expected && self.table.entries() == expected);
        let _ = wait::until("the end of brief bans", SETTLE, settled);
        Ok((left()?, self.table.entries()))
    }

    pub(super) fn into_log(mut self) -> Result<Log> {
        self.log.errors()?;
        Ok(self.log)
    }
}

impl Log {
    /// Lines at level error so far.
    fn errors(&mut self) -> Result<u64> {
        let mut file = File::open(&self.path).with_context(|| self.path.display().to_string())?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // What has no end yet is read the next time.
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text.get(..complete).unwrap_or_default().lines() {
            self.note(line);
        }
        self.read += complete as u64;
        Ok(self.errors)
    }

    fn note(&mut self, line: &str) {
        let entry: Value = serde_json::from_str(line).unwrap_or_default();
        let level = entry["level"].as_str().unwrap_or("?");
        match level {
            // What is no JSON was not logged but written by a panic or the like.
            "ERROR" | "?" => self.errors += 1,
            "WARN" => {}
            _ => return,
        }
        let message = entry["fields"]["message"].as_str().unwrap_or(line);
        // Numbers and addresses differ from one to the next.
        let words = message
            .split_whitespace()
            .filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
        let message: Vec<&str> = words.take(12).collect();
        *self
            .messages
            .entry(format!("{level} {}", message.join(" ")))
            .or_default() += 1;
    }
}

fn bans(stage: &Stage<'_>) -> Result<Bans> {
    let list: Value = serde_json::from_str(&stage.filter.ask(&["list", "-o", "json"])?)?;
    let bans = list["bans"].as_array().context("the list has no `bans`")?;
    bans.iter()
        .map(|ban| {
            let target = ban["target"].as_str().context("a ban of nobody")?;
            let net = target
                .parse()
                .or_else(|_| target.parse::<IpAddr>().map(IpNet::from))?;
            Ok((net, ban["created"].to_string()))
        })
        .collect()
}

/// The sum of all series of a metric; zero if it has none yet.
fn sum(metrics: &str, name: &str) -> Result<u64> {
    let name = format!("sip_filter_{name}");
    let mut sum = 0.0;
    for line in metrics.lines() {
        let Some(rest) = line
            .strip_prefix(&name)
            .filter(|rest| rest.starts_with(['{', ' ']))
        else {
            continue;
        };
        let value = rest
            .rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok());
        sum += value.with_context(|| format!("metrics: {line}"))?;
    }
    Ok(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_metric_add_up_and_others_do_not() {
        let metrics = "# TYPE sip_filter_bans gauge\nsip_filter_bans{origin=\"manual\"} 2\n\
                       sip_filter_bans{origin=\"import\"} 40\nsip_filter_bans_added_total{rule=\"\"} 7\n\
                       sip_filter_events_lost_total 3\n";
        assert_eq!(sum(metrics, "bans").unwrap(), 42);
        assert_eq!(sum(metrics, "events_lost_total").unwrap(), 3);
        assert_eq!(sum(metrics, "drift_entries_total").unwrap(), 0);
        assert!(sum("sip_filter_bans many", "bans").is_err());
    }

    #[test]
    fn errors_count_and_so_does_what_is_no_log() {
        let mut log = Log::default();
        for line in [
            r#"{"level":"INFO","fields":{"message":"banned 192.0.2.1"}}"#,
            r#"{"level":"WARN","fields":{"message":"flood of 7 packets"}}"#,
            r#"{"level":"WARN","fields":{"message":"flood of 9 packets"}}"#,
            r#"{"level":"ERROR","fields":{"message":"no room"}}"#,
            "thread 'detect' panicked",
        ] {
            log.note(line);
        }
        assert_eq!(log.errors, 2);
        assert_eq!(log.messages.get("WARN flood of packets"), Some(&2));
    }
}
