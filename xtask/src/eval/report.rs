//! The figures as a table for the terminal, as a page of the documentation and as CSV.

use std::{fmt::Write as _, fs, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};
use xtask::lab::{command, workdir::path_str};

use super::{
    agreement::Agreement,
    csv, is_attack,
    judge::{Verdict, is_served},
    protection::Protection,
    scenario::{self, Scenario},
    trial::{Attacked, Outcome},
};
use crate::process::workspace;

/// One line while things go on.
pub(super) fn brief(outcome: &Outcome) -> String {
    let customers = customers(outcome);
    let mut text = match &outcome.attack {
        Some(attacked) => format!("{}; {customers}", stopped(attacked)),
        None => customers,
    };
    if let Some(agreement) = &outcome.agreement {
        let _ = write!(text, "; analyze agrees: {}", agreement.words());
    }
    text
}

/// Whether and how an attack was stopped.
fn stopped(attacked: &Attacked) -> String {
    let Attacked {
        verdict,
        rules,
        logins,
        ..
    } = attacked;
    let mut text = match verdict {
        Verdict::Stopped { requests: 0, .. } => "stopped at once".to_owned(),
        Verdict::Stopped { after, requests } => {
            format!(
                "stopped after {}, {} requests",
                seconds(*after),
                number(*requests)
            )
        }
        Verdict::TooLate { after, requests } => {
            format!(
                "stopped TOO LATE, after {}, {} requests, {}",
                seconds(*after),
                number(*requests),
                learnt(attacked)
            )
        }
        Verdict::Contained { share } => format!("contained, {} passed", percent(*share)),
        Verdict::Served { .. } => {
            let word = if verdict.is_good() {
                "customer served"
            } else {
                "customer NOT served"
            };
            format!("{word}, {} passed", percent(share(attacked)))
        }
        Verdict::No => format!("NOT stopped, {} passed", percent(share(attacked))),
        Verdict::Void => "sent nothing".to_owned(),
    };
    if let Some((requests, answered)) = attacked.impersonated {
        let _ = write!(
            text,
            ", {} of the customer's {} requests answered",
            percent(answered as f64 / requests.max(1) as f64),
            number(requests)
        );
    }
    if !rules.is_empty() {
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let _ = write!(text, " ({})", rules.join(", "));
    }
    if let (true, Some(longest)) = (attacked.forged, attacked.longest) {
        let _ = write!(text, ", no ban over {}", seconds(longest));
    }
    if !attacked.alarms.is_empty() {
        let alarms: Vec<&str> = attacked.alarms.iter().map(String::as_str).collect();
        let _ = write!(text, ", alarm: {}", alarms.join(", "));
    }
    if *logins > 0 {
        text.push_str(", password FOUND");
    }
    text
}

fn share(attacked: &Attacked) -> f64 {
    attacked.total.reached as f64 / attacked.total.sent.max(1) as f64
}

/// How customers fared.
fn customers(outcome: &Outcome) -> String {
    let served = &outcome.customers;
    if !served.hurt() {
        return format!("all {} served", number(served.tally.tried));
    }
    let mut text = format!(
        "HURT: {} of {} failed",
        number(served.tally.failed),
        number(served.tally.tried)
    );
    if served.lossy() {
        let _ = write!(
            text,
            ", {} of {} packets lost",
            number(served.lost),
            number(served.sent)
        );
    }
    if !served.banned.is_empty() {
        let _ = write!(text, ", banned: {}", served.banned.join(", "));
    }
    text
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.2} s", time.as_secs_f64())
    } else if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} s", time.as_secs())
    }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        each if each < 0.1 => "under 0.1 %".to_owned(),
        each if each < 10.0 => format!("{each:.1} %"),
        each => format!("{each:.0} %"),
    }
}

/// A number with its thousands apart.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The protections that were judged, in order.
fn judged(outcomes: &[Outcome]) -> Vec<Protection> {
    let seen = |protection: &Protection| outcomes.iter().any(|outcome| outcome.protection == *protection);
    Protection::ALL.into_iter().filter(seen).collect()
}

/// The scenarios that were played, in order.
fn played(outcomes: &[Outcome]) -> impl Iterator<Item = &'static Scenario> {
    let seen = |scenario: &&Scenario| outcomes.iter().any(|outcome| outcome.scenario == scenario.name);
    scenario::ALL.iter().filter(seen)
}

fn of<'a>(outcomes: &'a [Outcome], scenario: &Scenario, protection: Protection) -> Option<&'a Outcome> {
    outcomes
        .iter()
        .find(|outcome| outcome.scenario == scenario.name && outcome.protection == protection)
}

/// Prints everything.
pub(super) fn print(outcomes: &[Outcome]) {
    for (title, attacks) in [("Attackers", true), ("Customers", false)] {
        let mut scenarios = played(outcomes)
            .filter(|s| is_attack(s.name) == attacks)
            .peekable();
        if scenarios.peek().is_some() {
            println!("\n{title}");
        }
        for scenario in scenarios {
            println!("  {} - {}", scenario.name, scenario.story());
            for protection in judged(outcomes) {
                if let Some(outcome) = of(outcomes, scenario, protection) {
                    println!("    {:<11} {}", protection.name(), brief(outcome));
                }
            }
        }
    }
    println!();
}

/// The last line: what sip-filter achieved, or everybody.
pub(super) fn verdict(outcomes: &[Outcome]) -> String {
    let each = |protection: Protection| {
        let mine = || {
            outcomes
                .iter()
                .filter(move |outcome| outcome.protection == protection)
        };
        let attacks = || mine().filter_map(|outcome| outcome.attack.as_ref());
        // What is let through on purpose counts by what it is for.
        let to_stop = attacks().filter(|attacked| !matches!(attacked.verdict, Verdict::Served { .. }));
        let (all, good) = to_stop.fold((0, 0), |(all, good), attacked| {
            (all + 1, good + u32::from(attacked.verdict.is_good()))
        });
        let mut text = format!("{}: {good} of {all} attacks stopped", protection.name());
        let in_a_name = attacks().filter_map(|attacked| attacked.impersonated);
        let (all, good) = in_a_name.fold((0, 0), |(all, good), (requests, answered)| {
            (all + 1, good + u32::from(is_served(requests, answered)))
        });
        if all > 0 {
            let _ = write!(
                text,
                ", {good} of {all} floods in a customer's name left that customer at least 99 % of its answers"
            );
        }
        let hurt = mine().filter(|outcome| outcome.customers.hurt()).count();
        let _ = write!(text, ", customers hurt in {hurt} of {} scenarios", mine().count());
        let compared = || mine().filter_map(|outcome| outcome.agreement.as_ref());
        let whole = compared().filter(|agreement| !matches!(agreement, Agreement::NotCompared(_)));
        let same = compared().filter(|agreement| matches!(agreement, Agreement::Same(_)));
        if compared().next().is_some() {
            let _ = write!(
                text,
                ", analyze agrees in {} of {} captures",
                same.count(),
                whole.count()
            );
        }
        text
    };
    judged(outcomes)
        .into_iter()
        .map(each)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Writes the CSV, and the page of the documentation if the whole was played.
pub(super) fn write(outcomes: &[Outcome], whole: bool, binary: Option<&Path>) -> Result<()> {
    let page = format!("{}{}", page(outcomes), versions(binary));
    let root = workspace();
    let put = |path: &str, text: &str| -> Result<()> {
        let file = root.join(path);
        fs::create_dir_all(file.parent().context("a file without directory")?)?;
        fs::write(&file, text).with_context(|| format!("can't write {path}"))?;
        println!("written: {path}");
        Ok(())
    };
    if whole {
        put("bench-results/detection.csv", &csv::csv(outcomes))?;
        put("docs/detection.md", &page)
    } else {
        // Part of the picture must not replace the whole.
        put("target/eval/detection.csv", &csv::csv(outcomes))?;
        put("target/eval/detection.md", &page)
    }
}

/// What took part, since figures without it mean little.
fn versions(binary: Option<&Path>) -> String {
    let mut text = "\n## What took part\n\n".to_owned();
    let mut line = |what: &str, program: &Path, argument: &str| {
        let words = path_str(program)
            .and_then(|program| command::run(program, &[argument]))
            .unwrap_or_default();
        let first = words.lines().next().unwrap_or("unknown").trim().to_owned();
        let _ = writeln!(
            text,
            "- {what}: {}",
            first
                .trim_start_matches("version: ")
                .trim_start_matches("sip-filter ")
                .trim_start_matches("kamailio ")
        );
    };
    if let Some(binary) = binary {
        line("sip-filter", binary, "--version");
    }
    line("Kamailio", Path::new("kamailio"), "-v");
    line("fail2ban", Path::new("fail2ban-server"), "--version");
    line("Linux", Path::new("uname"), "-r");
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let _ = writeln!(
        text,
        "- processors: {cpus}, shared by everything, attackers included"
    );
    text
}

const HEAD: &str = "# Detection: a scoreboard

Written by `cargo xtask eval`, from one run of it; edit the program, not this page. The raw figures are in
[`bench-results/detection.csv`](../bench-results/detection.csv).
";

const METHOD: &str = "
## How this was measured

Each cell is a run of its own, in network namespaces: a router, a host with Kamailio, attackers on one side and
phones on the other. Three phones, one of them over IPv6, register and call every two seconds in every run; they are
customers, too. The protections stand as they come:

- **none**: the bare server.
- **sip-filter**: this project with its default configuration.
- **pike**: the test at the head of the configuration file that Kamailio comes with, `WITH_ANTIFLOOD` defined: pike
  with 16 requests in 2 s, a ban of 300 s by htable, and silence towards the User-Agents of some scanners.
- **fail2ban**: 5 failures in 600 s, ban of 600 s, by its nftables action. Kamailio logs refused credentials and
  unknown users, not first challenges.

*Stopped* means: the server answered the attacker no more, while the attacker went on for at least six seconds and
three packets (guessing: three tries); garbage, which nobody answers, is stopped when nothing more reaches the server.
Time and requests are those until the last answer, seen by a tap on the router. *Contained* means that at most 10 %
of a forged flood reached the server. *Reached* counts packets at the socket of Kamailio, behind every firewall;
pike works behind that point, so that its attackers keep the server busy.

Guessing over TCP, and by scanners that sip-filter is to know by what they do alone, is stopped *too late* if the
attacker was told more than the scenario grants. A flood in the name of a customer whom the operator has allow-listed
cannot be stopped without that customer, and need not be: it counts by whether the customer is *served*, that is, got at
least 99 % of its requests answered while the flood went on. fail2ban has the address in `ignoreip` then; pike's
sample knows no such list.

*Analyze agrees* means: `sip-filter analyze`, with the configuration of that run and a capture of tcpdump's on the
router, comes to the same set of decisions as the running daemon reported: source or network, rule, and whether it was
a full ban, a short one, a rehearsal or an alarm. Million-packet floods are not captured. A flood of several methods can
reach the thresholds of two rules within the 67 ms in which the kernel program gathers its counts; which of them bans
the source is then a matter of the moment, and is shown as a difference.

A customer is *hurt* if a request got no or the wrong answer in 10 s, retransmissions included, or if a ban covered
its address.
";

fn page(outcomes: &[Outcome]) -> String {
    let protections = judged(outcomes);
    let mut text = HEAD.to_owned();
    let row = |text: &mut String, cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let head = |text: &mut String, cells: &[&str]| {
        let cells: Vec<String> = cells.iter().map(|cell| (*cell).to_owned()).collect();
        row(text, &cells);
        row(text, &vec!["---".to_owned(); cells.len()]);
    };
    let names: Vec<&str> = protections.iter().map(|protection| protection.name()).collect();
    let _ = writeln!(text, "\n{}.", verdict(outcomes).replace("; ", ".\n"));

    text.push_str("\n## Attackers: stopped?\n\n");
    head(&mut text, &[&["scenario"], &names[..]].concat());
    let cells = |scenario: &Scenario, cell: &dyn Fn(&Outcome) -> String| {
        let mut cells = vec![scenario.name.to_owned()];
        cells.extend(
            protections
                .iter()
                .map(|protection| of(outcomes, scenario, *protection).map_or("–".to_owned(), cell)),
        );
        cells
    };
    let attacks = || played(outcomes).filter(|scenario| is_attack(scenario.name));
    for scenario in attacks() {
        let cell = |outcome: &Outcome| outcome.attack.as_ref().map(stopped).unwrap_or_default();
        row(&mut text, &cells(scenario, &cell));
    }
    text.push_str("\n## Attackers: packets that reached the server\n\nUntil the attack was stopped + from then on; all of them where it wasn't.\n\n");
    head(&mut text, &[&["scenario"], &names[..]].concat());
    for scenario in attacks() {
        let cell = |outcome: &Outcome| outcome.attack.as_ref().map(reached).unwrap_or_default();
        row(&mut text, &cells(scenario, &cell));
    }
    text.push_str("\n## Guessing: credentials refused, accounts that the server said something about\n\n");
    head(&mut text, &[&["scenario"], &names[..]].concat());
    for scenario in attacks().filter(|scenario| scenario.guesses()) {
        let cell = |outcome: &Outcome| outcome.attack.as_ref().map(learnt).unwrap_or_default();
        row(&mut text, &cells(scenario, &cell));
    }
    text.push_str("\n## Customers: requests that failed, phones that were banned\n\n");
    head(&mut text, &[&["scenario"], &names[..]].concat());
    for scenario in played(outcomes) {
        row(&mut text, &cells(scenario, &customers));
    }
    text.push_str("\n## `sip-filter analyze` on a capture of the same run\n\n");
    head(&mut text, &["scenario", "the same decisions?"]);
    for outcome in outcomes {
        if let Some(agreement) = &outcome.agreement {
            row(&mut text, &[outcome.scenario.to_owned(), agreement.words()]);
        }
    }
    text.push_str(METHOD);
    text.push_str("\n## The scenarios\n\n");
    for scenario in played(outcomes) {
        let _ = writeln!(text, "- **{}**: {}.", scenario.name, scenario.story());
    }
    text
}

fn learnt(attacked: &Attacked) -> String {
    format!(
        "{} refused, {} accounts",
        number(attacked.refused),
        number(attacked.accounts as u64)
    )
}

fn reached(attacked: &Attacked) -> String {
    let (total, after) = (attacked.total, attacked.after);
    match attacked.verdict {
        Verdict::Stopped { .. } | Verdict::TooLate { .. } => format!(
            "{} + {} of {}",
            number(total.reached - after.reached),
            number(after.reached),
            number(after.sent)
        ),
        _ => format!("{} of {}", number(total.reached), number(total.sent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_easy_to_read() {
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(number(999), "999");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.0004), "under 0.1 %");
        assert_eq!(percent(0.0456), "4.6 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(seconds(Duration::from_millis(1250)), "1.2 s");
    }
}
