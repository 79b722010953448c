//! Every packet is counted exactly once, also those that come while programs and tables are replaced.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal::Signal,
    unistd::Pid,
};
use sip_filter::detect::Rule;
use xtask::lab::{frames::Link, wait};

use super::{interfaces::SMALL, random::Random, setting};
use crate::{
    exactness::{counted, difference, mix},
    rig::{Daemon, INTERFACE, Rig, SENDER, usable},
};

const SENDERS: usize = 2;

/// What happens to the daemon while packets come at full rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Reload,
    Restart,
    Kill,
    Upgrade,
    Tables,
    /// Starts that are killed at a random moment, so that several runs' counters lie about.
    KilledStarts,
}

const CHANGES: [Change; 6] = [
    Change::Reload,
    Change::Restart,
    Change::Kill,
    Change::Upgrade,
    Change::Tables,
    Change::KilledStarts,
];

fn config(rig: &Rig, number: u32) {
    let rules: String = Rule::ALL
        .iter()
        .map(|rule| format!("[detect.{rule}]\nenabled = false\n"))
        .collect();
    let ports = if number.is_multiple_of(2) {
        "[5060]"
    } else {
        "[5060, 5090]"
    };
    let rest = format!(
        "[protect]\nudp_ports = {ports}\n[limits.options]\nrate = \"{}/s\"\n{SMALL}{rules}",
        50 + number
    );
    rig.config("main", "", &rest);
}

fn received(rig: &Rig) -> u64 {
    let json = rig
        .server
        .ip(&["-s", "-j", "link", "show", "dev", INTERFACE])
        .unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// Sends the mix round by round from a CPU of its own until told to stop; counts the rounds.
fn send(rig: &Rig, cpu: usize, mix: &[Vec<u8>], stop: &AtomicBool, rounds: &AtomicU64) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).unwrap();
    // On a machine with one processor all run there.
    let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
    let mut link = Link::open(&rig.sender, SENDER).unwrap();
    while !stop.load(Ordering::Relaxed) {
        for frame in mix {
            link.send(frame).unwrap();
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

struct Trial {
    rig: Rig,
    mix: Vec<Vec<u8>>,
    /// How long a start takes.
    start: Duration,
}

impl Trial {
    fn change(&self, change: Change, (configs, random): (&mut u32, &mut Random), daemon: Daemon) -> Daemon {
        match change {
            Change::Reload => {
                for _ in 0..5 {
                    *configs += 1;
                    config(&self.rig, *configs);
                    let report = daemon.json(&["config", "reload"]);
                    let changed = report["changed"].to_string();
                    assert!(changed.contains("protect.udp_ports"), "{report}");
                }
                return daemon;
            }
            // Bans and allowed networks change flags, which are part of the configuration.
            Change::Tables => {
                for _ in 0..3 {
                    daemon.done(&["ban", "203.0.113.128/28"]);
                    daemon.done(&["allow", "add", "203.0.113.64"]);
                    daemon.done(&["unban", "203.0.113.128/28"]);
                    daemon.done(&["allow", "remove", "203.0.113.64"]);
                }
                return daemon;
            }
            Change::Restart => drop(daemon.stop()),
            Change::Kill => daemon.kill(),
            Change::KilledStarts => {
                daemon.kill();
                for _ in 0..4 {
                    let mut process = self.rig.spawn("main", &[]);
                    thread::sleep(random.within(self.start));
                    process.signal(Signal::SIGKILL);
                    process.wait(Duration::from_secs(20)).unwrap();
                }
            }
            Change::Upgrade => {
                daemon.stop();
                let root = self.rig.pin_root("main");
                let version = std::fs::read_dir(&root).unwrap().flatten().next().unwrap();
                std::fs::rename(version.path(), root.join("v0")).unwrap();
            }
        }
        self.rig.start("main", &[])
    }

    fn settled(&self, frames: u64) {
        wait::until("all frames", Duration::from_secs(60), || {
            Ok(received(&self.rig) >= frames)
        })
        .unwrap();
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn two_processors_at_full_rate_lose_no_count_over_reloads_restarts_kills_and_upgrades() {
    if !usable(&["tc"]) {
        return;
    }
    let wanted: u64 = setting("PACKETS", 1);
    let rig = Rig::new("counted");
    for netns in [&rig.sender, &rig.server] {
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    }
    let queue = [
        "qdisc", "replace", "dev", SENDER, "root", "pfifo", "limit", "10000",
    ];
    rig.sender.run("tc", &queue).unwrap();
    config(&rig, 0);
    let begun = Instant::now();
    let mut daemon = rig.start("main", &[]);
    daemon.done(&["allow", "add", "198.51.100.130"]);
    daemon.done(&[
        "ban",
        "198.51.100.0/24",
        "2001:db8:bad:1::/64",
        "2001:db8:bad:2::9",
    ]);
    let start = begun.elapsed();
    let trial = Trial {
        rig,
        mix: mix(),
        start,
    };
    let mut random = Random::seeded("two_processors_at_full_rate");
    let mut configs = 0;
    // One round by itself, to know what each round comes to.
    thread::sleep(Duration::from_millis(300));
    let (before, quiet) = (counted(&daemon), received(&trial.rig));
    let mut link = Link::open(&trial.rig.sender, SENDER).unwrap();
    trial.mix.iter().for_each(|frame| link.send(frame).unwrap());
    trial.settled(quiet + trial.mix.len() as u64);
    let one = difference(&counted(&daemon), &before);
    assert_eq!(one.values().sum::<u64>(), trial.mix.len() as u64, "{one:?}");

    let mut total = 0;
    let mut by_change = BTreeMap::new();
    while total == 0 || total < wanted {
        for change in CHANGES {
            let (before, quiet) = (counted(&daemon), received(&trial.rig));
            let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
            daemon = thread::scope(|scope| {
                for cpu in 0..SENDERS {
                    let (trial, stop, rounds) = (&trial, &stop, &rounds);
                    scope.spawn(move || send(&trial.rig, cpu, &trial.mix, stop, rounds));
                }
                let daemon = trial.change(change, (&mut configs, &mut random), daemon);
                stop.store(true, Ordering::Relaxed);
                daemon
            });
            let rounds = rounds.load(Ordering::Relaxed);
            let sent = rounds * trial.mix.len() as u64;
            trial.settled(quiet + sent);
            let got = difference(&counted(&daemon), &before);
            let sum = got.values().sum::<u64>();
            assert_eq!(sum, sent, "{change:?}: counted and sent; {got:?}");
            for (reason, packets) in &one {
                assert_eq!(got.get(reason), Some(&(packets * rounds)), "{change:?}: {reason}");
            }
            *by_change.entry(format!("{change:?}")).or_insert(0) += sent;
            total += sent;
        }
    }
    println!("{total} packets, all counted once: {by_change:?}");
    assert!(total > 50_000, "{total} packets are no load");
}
