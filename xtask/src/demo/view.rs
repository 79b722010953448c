//! What the user sees: events as lines, and on a terminal the state of everybody below them.

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    time::{Duration, Instant},
};

use super::{
    attacker::Attacker,
    phones::RunningPhone,
    verdict::{AttackerRecord, PhoneRecord},
};

/// How often the picture changes.
const REFRESH: Duration = Duration::from_millis(250);

/// The view.
#[derive(Debug)]
pub(crate) struct View {
    start: Instant,
    live: bool,
    drawn: usize,
    last: Option<Instant>,
}

impl View {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            live: stdout().is_terminal(),
            drawn: 0,
            last: None,
        }
    }

    /// Says that something happened.
    pub(crate) fn event(&mut self, text: &str) {
        self.erase();
        println!("{:6.1} s  {text}", self.start.elapsed().as_secs_f32());
    }

    /// Shows how things stand, on a terminal, and not too often.
    pub(crate) fn picture(&mut self, attackers: &[Attacker], phones: &[RunningPhone]) {
        if !self.live || self.last.is_some_and(|last| last.elapsed() < REFRESH) {
            return;
        }
        self.last = Some(Instant::now());
        let mut lines = vec![String::new()];
        for attacker in attackers {
            let AttackerRecord {
                name, ban, samples, ..
            } = &attacker.record;
            let (sent, reached) = samples
                .last()
                .map_or((0, 0), |sample| (sample.sent, sample.reached));
            let state = match ban {
                Some(ban) => format!("banned: {}", ban.rule),
                None if attacker.is_active() => "attacking".to_owned(),
                None => "waiting".to_owned(),
            };
            lines.push(format!(
                "  {name:<15} {sent:>7} sent {reached:>7} reached the server  {state}"
            ));
        }
        for phone in phones {
            let PhoneRecord {
                user,
                planned,
                registrations,
                calls,
                ..
            } = &phone.record;
            lines.push(format!(
                "  phone {user:<9} {:>3} of {planned} registrations {:>3} of {planned} calls",
                registrations.completed, calls.completed
            ));
        }
        self.erase();
        for line in &lines {
            println!("{line}");
        }
        self.drawn = lines.len();
        let _ = stdout().flush();
    }

    /// Removes the picture, for instance before the summary.
    pub(crate) fn erase(&mut self) {
        if self.drawn > 0 {
            // Up to the picture's first line, then clear to the end of the screen.
            print!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}

/// Prints who did what.
pub(crate) fn summary(attackers: &[AttackerRecord], phones: &[PhoneRecord]) {
    println!("\nAttackers: packets until 100 ms after the ban, and from then on");
    println!(
        "  {:<15} {:<18} {:>8} {:<18} {:>8} {:>8} {:>8} {:>8}",
        "", "from", "banned", "by rule", "sent", "reached", "sent", "reached"
    );
    for attacker in attackers {
        let before = attacker.before();
        let (time, rule) = match (attacker.time_to_ban(), &attacker.ban) {
            (Some(time), Some(ban)) => (format!("{:.1} s", time.as_secs_f32()), ban.rule.as_str()),
            _ => ("never".to_owned(), ""),
        };
        let (sent, reached) = attacker
            .after()
            .map_or(("-".to_owned(), "-".to_owned()), |after| {
                (after.sent.to_string(), after.reached.to_string())
            });
        println!(
            "  {:<15} {:<18} {time:>8} {rule:<18} {:>8} {:>8} {sent:>8} {reached:>8}",
            attacker.name,
            attacker.address.to_string(),
            before.sent,
            before.reached
        );
    }
    for attacker in attackers.iter().filter(|attacker| !attacker.loot.is_empty()) {
        let (count, shown) = (
            attacker.loot.len(),
            attacker.loot.get(..3).unwrap_or(&attacker.loot),
        );
        println!(
            "  {} found {count}: {}{}",
            attacker.name,
            shown.join(", "),
            if count > 3 { ", …" } else { "" }
        );
    }
    println!("\nPhones: completed of tried");
    for PhoneRecord {
        user,
        address,
        registrations,
        calls,
        banned,
        ..
    } in phones
    {
        println!(
            "  {user} {:<20} {:>3} of {:>3} registrations {:>3} of {:>3} calls {:>3} repeated requests  {}",
            address.to_string(),
            registrations.completed,
            registrations.tried,
            calls.completed,
            calls.tried,
            registrations.repeated + calls.repeated,
            banned
                .as_ref()
                .map(|rule| format!("BANNED: {rule}"))
                .unwrap_or_default()
        );
    }
}

/// Prints the part of a scrape that tells the story: what was dropped and banned, and isn't zero.
pub(crate) fn metrics(scrape: &str) {
    println!("\nMetrics (excerpt)");
    let telling = |line: &&str| {
        line.starts_with("sip_filter_")
            && !line.ends_with(" 0")
            && ["drop", "ban", "detect", "packets"]
                .iter()
                .any(|word| line.contains(word))
            && !line.contains("_bucket")
    };
    for line in scrape.lines().filter(telling).take(16) {
        println!("  {line}");
    }
}
