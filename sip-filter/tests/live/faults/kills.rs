//! SIGKILL at random moments of all that the daemon does, with traffic running and an operator at work.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::sys::signal::Signal;
use sip_filter::{
    api::{
        Lifetime,
        client::Client,
        types::{BanRequest, Unban},
    },
    bans::Scope,
};
use xtask::lab::Process;

use super::{
    random::Random,
    setting,
    witness::{BANNED, Witness},
};
use crate::{
    rig::{Daemon, Rig, ask, usable},
    wire::{Probe, passed, sip_probes},
};

const SOON: Duration = Duration::from_secs(20);
/// By how much the end of a ban may differ: the kernel keeps it to 268 ms, and the list is of whole seconds.
const TOLERANCE: Duration = Duration::from_millis(1_300);
/// Entries of a list that is imported.
const IMPORTED: u32 = 3_000;

/// What the daemon is at when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Bans,
    Expiry,
    Reload,
    Upgrade,
    Import,
    Shutdown,
}

const PHASES: [Phase; 7] = [
    Phase::Start,
    Phase::Bans,
    Phase::Expiry,
    Phase::Reload,
    Phase::Upgrade,
    Phase::Import,
    Phase::Shutdown,
];

/// The earliest and the latest at which a ban ends, as time passes between a request and its answer; `None` is never.
type End = Option<(SystemTime, SystemTime)>;

/// Whether two ends can be the same.
fn agree(one: End, other: End) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.0 <= other.1 + TOLERANCE && other.0 <= one.1 + TOLERANCE,
        (one, other) => one == other,
    }
}

/// What the operator was told, by target.
#[derive(Debug, Default)]
struct Ledger {
    /// Acknowledged, and when they end.
    bans: BTreeMap<String, End>,
    /// Asked for, and no answer came: either is right.
    doubtful: BTreeSet<String>,
}

/// Targets an operator bans and lifts, and from where they would send.
fn pool(number: u64) -> (String, IpAddr) {
    // The list writes no zeros.
    let number = number + 1;
    let (target, source) = match number % 4 {
        0 => (
            format!("2001:db8:bad:{number}::/64"),
            format!("2001:db8:bad:{number}::7"),
        ),
        1 => (format!("198.18.{number}.0/24"), format!("198.18.{number}.9")),
        _ => (
            format!("203.0.113.{}", 100 + number),
            format!("203.0.113.{}", 100 + number),
        ),
    };
    (target, source.parse().unwrap())
}

const POOL: u64 = 32;

fn probe(source: IpAddr) -> Probe {
    sip_probes(source).swap_remove(0)
}

/// Bans and lifts targets of its half of the pool until nobody answers any more; `after` is the first it is not told of.
fn operate(
    client: &Client,
    half: u64,
    mut random: Random,
    mut ledger: Ledger,
    acknowledged: &mut u64,
) -> Ledger {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    loop {
        let (target, _) = pool(random.below(POOL / 2) * 2 + half);
        ledger.doubtful.insert(target.clone());
        let lifetime = Duration::from_secs(300 + random.below(3_000));
        let asked = SystemTime::now();
        let done = if random.below(3) == 0 {
            let request = Unban::Targets(vec![target.parse().unwrap()]);
            runtime.block_on(client.unban(&request)).map(|_| None)
        } else {
            let request = BanRequest {
                targets: vec![target.parse().unwrap()],
                lifetime: Some(Lifetime::For(lifetime)),
                reason: "the operator".to_owned(),
                scope: Scope::default(),
                force: false,
            };
            runtime
                .block_on(client.ban(&request))
                .map(|_| Some((asked + lifetime, SystemTime::now() + lifetime)))
        };
        let Ok(end) = done else { return ledger };
        match end {
            Some(end) => drop(ledger.bans.insert(target.clone(), Some(end))),
            None => drop(ledger.bans.remove(&target)),
        }
        ledger.doubtful.remove(&target);
        *acknowledged += 1;
    }
}

struct Trial {
    rig: Rig,
    random: Random,
    ledger: Ledger,
    /// How long each phase took when nobody disturbed it.
    times: BTreeMap<&'static str, Duration>,
    /// Whether the imported list is to be there; `None`: some of it may be.
    imported: Option<bool>,
    counters: BTreeMap<String, u64>,
    /// Names of pins and files of an undisturbed daemon.
    pins: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    reloads: u32,
    /// Changes that were acknowledged.
    acknowledged: u64,
}

impl Trial {
    fn config(&mut self) {
        self.reloads += 1;
        let rules: String = sip_filter::detect::Rule::ALL
            .iter()
            .map(|rule| format!("[detect.{rule}]\nenabled = false\n"))
            .collect();
        let rest = format!(
            "[tables]\nban4 = 16384\nban6 = 4096\nban6_hosts = 1024\nnetworks = 4096\nsources = 16384\ntrust = 1024\n\
             endpoints = 1024\n[limits.options]\nrate = \"{}/s\"\nburst = 400\n{rules}",
            50 + self.reloads % 2
        );
        self.rig.config("main", "", &rest);
    }

    fn list_file(&self) -> String {
        let list: String = (0..IMPORTED)
            .map(|number| format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + number)))
            .collect();
        let path = self.rig.dir.write("list.txt", &list).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs each phase once without a kill, and notes how long it takes.
    fn measure(&mut self, mut daemon: Daemon) -> Daemon {
        let file = self.list_file();
        let mut time = |name, work: &mut dyn FnMut()| {
            let begun = Instant::now();
            work();
            self.times.insert(name, begun.elapsed());
        };
        time("reload", &mut || drop(daemon.done(&["config", "reload"])));
        time("import", &mut || drop(daemon.done(&["import", &file])));
        daemon.done(&["unban", "--origin", "import"]);
        let begun = Instant::now();
        drop(daemon.stop());
        self.times.insert("stop", begun.elapsed());
        let begun = Instant::now();
        let process = self.rig.spawn("main", &[]);
        daemon = Daemon::started(process, self.rig.path("main.sock"));
        self.times.insert("start", begun.elapsed());
        println!("undisturbed: {:?}", self.times);
        daemon
    }

    /// A random moment of a phase.
    fn moment(&mut self, name: &str) -> Duration {
        let time = self.times[name];
        self.random.within(time)
    }

    /// Starts a daemon, and kills it at a moment of its start.
    fn kill_starting(&mut self) -> Duration {
        let moment = self.moment("start");
        let mut process = self.rig.spawn("main", &[]);
        thread::sleep(moment);
        kill(&mut process);
        moment
    }

    /// Kills the daemon at a moment of a phase; says which.
    fn kill_at(&mut self, phase: Phase, mut daemon: Daemon) -> Duration {
        match phase {
            Phase::Start => {
                daemon.kill();
                self.kill_starting()
            }
            Phase::Upgrade => {
                daemon.stop();
                let root = self.rig.pin_root("main");
                let version = std::fs::read_dir(&root).unwrap().flatten().next().unwrap();
                std::fs::rename(version.path(), root.join("v0")).unwrap();
                self.kill_starting()
            }
            Phase::Bans => self.kill_under_operators(daemon),
            Phase::Expiry => {
                let ends: Vec<String> = (0..6).map(|_| pool(self.random.below(POOL)).0).collect();
                let mut arguments = vec!["ban", "-d", "2s"];
                arguments.extend(ends.iter().map(String::as_str));
                let (asked, two) = (SystemTime::now(), Duration::from_secs(2));
                daemon.done(&arguments);
                let end = (asked + two, SystemTime::now() + two);
                for target in ends {
                    // A ban that lasts longer is made shorter by an operator's word.
                    self.ledger.bans.insert(target, Some(end));
                }
                let moment = Duration::from_millis(1_600) + self.random.within(Duration::from_millis(1_600));
                thread::sleep(moment);
                daemon.kill();
                moment
            }
            Phase::Reload => {
                self.config();
                self.kill_during(daemon, "reload", &["config", "reload"]).0
            }
            Phase::Import => {
                let file = self.list_file();
                self.imported = None;
                let (moment, done) = self.kill_during(daemon, "import", &["import", &file]);
                if done {
                    self.imported = Some(true);
                }
                moment
            }
            Phase::Shutdown => {
                let moment = self.moment("stop");
                daemon.process.signal(Signal::SIGTERM);
                thread::sleep(moment);
                kill(&mut daemon.process);
                moment
            }
        }
    }

    /// Kills the daemon while a verb runs; returns whether that was told that it is done.
    fn kill_during(&mut self, daemon: Daemon, name: &str, arguments: &[&str]) -> (Duration, bool) {
        let moment = self.moment(name);
        let socket = daemon.socket().to_owned();
        let done = thread::scope(|scope| {
            let verb = scope.spawn(|| ask(&socket, arguments));
            thread::sleep(moment);
            daemon.kill();
            verb.join().unwrap().code == Some(0)
        });
        (moment, done)
    }

    fn kill_under_operators(&mut self, daemon: Daemon) -> Duration {
        let moment = self.random.within(Duration::from_millis(600));
        let client = Client::new(daemon.socket());
        let ledger = std::mem::take(&mut self.ledger);
        let is_of =
            |half: u64, target: &str| (0..POOL).any(|number| number % 2 == half && pool(number).0 == target);
        let mut halves = [0, 1].map(|half| {
            let bans = ledger.bans.iter().filter(|(target, _)| is_of(half, target));
            let part = Ledger {
                bans: bans.map(|(target, end)| (target.clone(), *end)).collect(),
                doubtful: BTreeSet::new(),
            };
            (half, self.random.fork(), part)
        });
        let mut counts = [0; 2];
        thread::scope(|scope| {
            let operators: Vec<_> = halves
                .iter_mut()
                .zip(&mut counts)
                .map(|((half, random, part), count)| {
                    let (half, random, part) = (*half, random.fork(), std::mem::take(part));
                    let client = &client;
                    scope.spawn(move || operate(client, half, random, part, count))
                })
                .collect();
            thread::sleep(moment);
            daemon.kill();
            for operator in operators {
                let part = operator.join().unwrap();
                self.ledger.bans.extend(part.bans);
                self.ledger.doubtful.extend(part.doubtful);
            }
        });
        self.acknowledged += counts.iter().sum::<u64>();
        moment
    }

    /// Everything acknowledged is there, nothing lifted is back, and nothing is left over.
    fn verify(&mut self, daemon: &Daemon, when: &str) {
        let (mut listed, mut imported) = (BTreeMap::new(), 0);
        let before = SystemTime::now();
        let bans = daemon.bans();
        let asked = (before, SystemTime::now());
        for ban in bans {
            let target = ban["target"].as_str().unwrap().to_owned();
            // Whole seconds, so it lasts up to one longer.
            let left = ban["expires_in_seconds"].as_u64().map(Duration::from_secs);
            let end = left.map(|left| (asked.0 + left, asked.1 + left + Duration::from_secs(1)));
            match ban["origin"].as_str() {
                Some("import") => imported += 1,
                _ => drop(listed.insert(target, end)),
            }
        }
        assert_eq!(
            listed.remove(BANNED),
            Some(None),
            "{when}: the ban without an end"
        );
        match self.imported {
            Some(true) => assert_eq!(imported, IMPORTED, "{when}: the imported list"),
            Some(false) => assert_eq!(imported, 0, "{when}: of a list that was lifted"),
            None => {}
        }
        if imported > 0 {
            daemon.done(&["unban", "--origin", "import"]);
        }
        self.imported = Some(false);
        self.compare(&listed, asked.1, when);
        // What was in doubt is known now; of all others, the end first acknowledged is the one to hold.
        self.ledger.bans.retain(|target, _| listed.contains_key(target));
        for (target, end) in listed {
            if self.ledger.doubtful.remove(&target) || !self.ledger.bans.contains_key(&target) {
                self.ledger.bans.insert(target, end);
            }
        }
        self.ledger.doubtful.clear();
        self.probe(when);
        self.count(daemon, when);
        self.leftovers(when);
        let health = daemon.ask(&["health"]);
        assert_eq!(health.code, Some(0), "{when}: {health:?}");
    }

    fn compare(&self, listed: &BTreeMap<String, End>, now: SystemTime, when: &str) {
        for (target, wanted) in &self.ledger.bans {
            if self.ledger.doubtful.contains(target) {
                continue;
            }
            match listed.get(target) {
                Some(found) => assert!(
                    agree(*found, *wanted),
                    "{when}: {target} ends at {found:?}, not at {wanted:?}"
                ),
                None => assert!(
                    wanted.is_some_and(|(earliest, _)| earliest < now + TOLERANCE),
                    "{when}: the ban of {target} was acknowledged and is lost; it was to end at {wanted:?}"
                ),
            }
        }
        for target in listed.keys() {
            let known = self.ledger.bans.contains_key(target) || self.ledger.doubtful.contains(target);
            assert!(known, "{when}: {target} is banned, though it was lifted");
        }
    }

    /// The kernel does what the list says.
    fn probe(&self, when: &str) {
        let soon = SystemTime::now() + Duration::from_secs(15);
        let (mut probes, mut free) = (Vec::new(), BTreeSet::new());
        for (target, source) in (0..POOL).map(pool) {
            match self.ledger.bans.get(&target) {
                // Over before the answer is there.
                Some(Some((end, _))) if *end < soon => continue,
                Some(_) => {}
                None => drop(free.insert(probe(source).name)),
            }
            probes.push(probe(source));
        }
        assert_eq!(passed(&self.rig, &probes), free, "{when}: who passes");
    }

    fn count(&mut self, daemon: &Daemon, when: &str) {
        let status = daemon.json(&["status"]);
        for (reason, packets) in status["counters"].as_object().unwrap() {
            let packets = packets.as_u64().unwrap();
            let before = self.counters.insert(reason.clone(), packets).unwrap_or(0);
            assert!(
                packets >= before,
                "{when}: {reason} went from {before} to {packets}"
            );
        }
    }

    /// Pins and files are those of a daemon that was never killed.
    fn leftovers(&mut self, when: &str) {
        let names = |paths: Vec<PathBuf>| -> BTreeSet<PathBuf> {
            let kept = paths.into_iter().filter(|path| !path.ends_with("BASE"));
            kept.collect()
        };
        let pins = names(self.rig.pins());
        let state = std::fs::read_dir(self.rig.path("main-state")).unwrap();
        let files: BTreeSet<PathBuf> = state.map(|entry| entry.unwrap().path()).collect();
        if self.pins.is_empty() {
            (self.pins, self.files) = (pins, files);
            return;
        }
        assert_eq!(pins, self.pins, "{when}: pins");
        assert_eq!(files, self.files, "{when}: files of the state");
    }
}

fn kill(process: &mut Process) {
    process.signal(Signal::SIGKILL);
    process.wait(SOON).unwrap();
}

#[test]
fn killed_at_random_moments_nothing_acknowledged_is_lost() {
    if !usable(&["tc"]) {
        return;
    }
    let kills: u32 = setting("KILLS", 14);
    let mut trial = Trial {
        rig: Rig::new("kills"),
        random: Random::seeded("killed_at_random_moments_nothing_acknowledged_is_lost"),
        ledger: Ledger::default(),
        times: BTreeMap::new(),
        imported: Some(false),
        counters: BTreeMap::new(),
        pins: BTreeSet::new(),
        files: BTreeSet::new(),
        reloads: 0,
        acknowledged: 0,
    };
    trial.config();
    let daemon = trial.rig.start("main", &[]);
    let witness = Witness::begin(&trial.rig, &daemon, Duration::from_secs(3_600));
    let mut daemon = trial.measure(daemon);
    trial.verify(&daemon, "before the first kill");
    let mut slowest = Duration::ZERO;
    for round in 0..kills {
        let phase = PHASES[round as usize % PHASES.len()];
        let moment = trial.kill_at(phase, daemon);
        let when = format!("kill {round}, {moment:?} into {phase:?}");
        witness.nothing_leaked(&when);
        let begun = Instant::now();
        daemon = trial.rig.start("main", &[]);
        slowest = slowest.max(begun.elapsed());
        trial.verify(&daemon, &when);
        witness.nothing_leaked(&when);
        if round % 20 == 19 {
            println!("{when}: all as it should be");
        }
    }
    let testimony = witness.end(&trial.rig);
    println!(
        "{kills} kills, {} changes of the ban list acknowledged meanwhile, slowest start {slowest:?}: {testimony}",
        trial.acknowledged
    );
    assert!(kills < 14 || trial.acknowledged > 20, "the operators had no time");
}
