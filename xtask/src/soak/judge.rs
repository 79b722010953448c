//! What the samples of a soak mean. Pure, so that it can be shown to fail.

/// What was seen at one moment. Counts are since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sample {
    /// Seconds since the traffic began.
    pub(super) second: f64,
    /// Bytes that the daemon alone has written: heap and stacks.
    pub(super) own: u64,
    /// Bytes resident, and resident in proportion; both with the kernel tables that it has mapped.
    pub(super) resident: u64,
    pub(super) proportional: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
    /// Entries of the kernel's table of IPv4 bans, counted in the table itself.
    pub(super) table: u64,
    /// Entries of all tables of bans and trust, as the daemon counts them.
    pub(super) entries: u64,
    /// Bans on the list.
    pub(super) bans: u64,
    /// Bytes of the store's file.
    pub(super) store: u64,
    /// Processor time of the daemon, in seconds.
    pub(super) processor: f64,
    pub(super) passed: u64,
    pub(super) dropped: u64,
    /// Entries by which tables and list differed.
    pub(super) drift: u64,
    /// Bans that the kernel was found not to enforce.
    pub(super) self_test_failures: u64,
    /// Events that found the ring buffer full, and all events the rules have looked at.
    pub(super) lost: u64,
    pub(super) observed: u64,
    /// Registrations and calls of customers, and those that failed.
    pub(super) tried: u64,
    pub(super) failed: u64,
    /// Those that the server gave up for want of an answer by the called party, which sits beside it: they came through
    /// the filter both ways.
    pub(super) unanswered: u64,
    /// Packets of banned sources that reached the server.
    pub(super) leaked: u64,
    /// Lines of the log at level error.
    pub(super) errors: u64,
}

/// What is known besides the samples.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    /// Descriptors of the daemon before the traffic and after it, when all is quiet.
    pub(super) descriptors: (u64, u64),
    /// At the end, when all is quiet: IPv4 bans on the list, and entries in the kernel's table.
    pub(super) list_and_table: (u64, u64),
    /// What the actors found wrong, in words.
    pub(super) complaints: Vec<String>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) good: bool,
    pub(super) text: String,
}

/// How much a figure may grow from the second quarter of the run to the last.
struct Allowance {
    what: &'static str,
    value: fn(&Sample) -> f64,
    /// What it is divided by for people, and the unit then.
    unit: (f64, &'static str),
    /// Which part of the samples of a quarter lies below what is compared. Of what comes and goes, the low ones tell
    /// whether something stays.
    at: f64,
    /// In the figure's own unit; the larger of the two counts.
    absolute: f64,
    relative: f64,
    /// More in a run that is [`SHORT`]: its caches still fill, and what comes and goes may be there for a whole quarter.
    short: f64,
}

const MIB: f64 = 1_048_576.0;

/// Seconds of a run below which it is short.
const SHORT: f64 = 600.0;

/// The first quarter is warm-up. `absolute` is for long runs.
const GROWTH: [Allowance; 6] = [
    Allowance {
        what: "own memory",
        value: |sample| sample.own as f64,
        unit: (MIB, " MiB"),
        at: 0.5,
        absolute: 2.0 * MIB,
        relative: 0.05,
        short: 16.0 * MIB,
    },
    Allowance {
        what: "file descriptors",
        value: |sample| sample.descriptors as f64,
        unit: (1.0, ""),
        at: 0.5,
        absolute: 3.0,
        relative: 0.0,
        short: 0.0,
    },
    Allowance {
        what: "threads",
        value: |sample| sample.threads as f64,
        unit: (1.0, ""),
        at: 0.5,
        absolute: 4.0,
        relative: 0.0,
        short: 0.0,
    },
    Allowance {
        what: "entries of the kernel's table of IPv4 bans",
        value: |sample| sample.table as f64,
        unit: (1.0, ""),
        at: 0.1,
        absolute: 100.0,
        relative: 0.1,
        short: 300.0,
    },
    Allowance {
        what: "entries of all tables",
        value: |sample| sample.entries as f64,
        unit: (1.0, ""),
        at: 0.1,
        absolute: 100.0,
        relative: 0.1,
        short: 300.0,
    },
    Allowance {
        what: "store",
        value: |sample| sample.store as f64,
        unit: (MIB, " MiB"),
        at: 0.5,
        absolute: 4.0 * MIB,
        relative: 0.25,
        short: 0.0,
    },
];

/// Looks at everything.
pub(super) fn judge(samples: &[Sample], ends: &Ends) -> Vec<Finding> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return vec![finding(false, "no samples were taken".to_owned())];
    };
    let mut findings: Vec<Finding> = GROWTH
        .iter()
        .map(|allowance| growth(allowance, samples))
        .collect();
    findings.extend(counts(first, last));
    let (before, after) = ends.descriptors;
    findings.push(finding(
        after <= before + 1,
        format!("file descriptors at rest: {before} before the traffic, {after} after it"),
    ));
    let (list, table) = ends.list_and_table;
    findings.push(finding(
        list == table && list > 0,
        format!("at rest: {list} IPv4 bans on the list, {table} entries in the kernel's table"),
    ));
    findings.extend(ends.complaints.iter().map(|text| finding(false, text.clone())));
    findings
}

/// What must be zero, and what must not be.
fn counts(first: &Sample, last: &Sample) -> Vec<Finding> {
    let grown = |value: fn(&Sample) -> u64| value(last).saturating_sub(value(first));
    let none = |what: &str, count: u64| finding(count == 0, format!("{what}: {count}"));
    let (tried, failed) = (grown(|s| s.tried), grown(|s| s.failed));
    let unanswered = grown(|s| s.unanswered);
    let (lost, observed) = (grown(|s| s.lost), grown(|s| s.observed));
    let traffic = (grown(|s| s.passed), grown(|s| s.dropped));
    vec![
        finding(
            tried > 0 && failed == 0,
            format!("customers: {tried} registrations and calls, {failed} failed"),
        ),
        finding(
            unanswered * 200 <= tried,
            format!(
                "calls that the called party did not answer in time (408), behind the filter: {unanswered}"
            ),
        ),
        none(
            "packets of banned sources that reached the server",
            grown(|s| s.leaked),
        ),
        none("entries by which list and tables differed", grown(|s| s.drift)),
        none(
            "bans not enforced when asked of the kernel",
            grown(|s| s.self_test_failures),
        ),
        none("errors in the log", last.errors),
        finding(
            observed > 0 && lost == 0,
            format!("events: {observed} looked at, {lost} lost"),
        ),
        finding(
            traffic.0 > 0 && traffic.1 > 0,
            format!("packets: {} passed, {} dropped", traffic.0, traffic.1),
        ),
    ]
}

fn growth(allowance: &Allowance, samples: &[Sample]) -> Finding {
    let Allowance {
        what,
        value,
        unit: (divisor, unit),
        at,
        absolute,
        relative,
        short,
    } = allowance;
    let length = samples.last().map_or(0.0, |last| last.second);
    let quarter = |number: f64| {
        let bounds = length * (number - 1.0) / 4.0..=length * number / 4.0;
        let of_quarter = samples.iter().filter(|sample| bounds.contains(&sample.second));
        quantile(*at, of_quarter.map(value))
    };
    let (Some(before), Some(after)) = (quarter(2.0), quarter(4.0)) else {
        return finding(false, format!("{what}: too few samples"));
    };
    let more = if length < SHORT { *short } else { 0.0 };
    let allowed = (before * relative).max(*absolute) + more;
    let show = |value: f64| format!("{:.*}{unit}", usize::from(*divisor > 1.0), value / divisor);
    let slope = slope(samples, *value).map_or_else(String::new, |slope| {
        format!(", {:+.2}{unit} an hour", slope * 3600.0 / divisor)
    });
    finding(
        after - before <= allowed,
        format!(
            "{what}: {} in the second quarter, {} in the last ({} more allowed){slope}",
            show(before),
            show(after),
            show(allowed)
        ),
    )
}

/// Growth a second after the first quarter: the median slope of all pairs of twelve medians (Theil and Sen), which no
/// single peak moves.
fn slope(samples: &[Sample], value: fn(&Sample) -> f64) -> Option<f64> {
    let warm = samples.get(samples.len() / 4..)?;
    let part = warm.len().div_ceil(12).max(1);
    let points: Vec<(f64, f64)> = warm
        .chunks(part)
        .filter_map(|chunk| {
            Some((
                median(chunk.iter().map(|sample| sample.second))?,
                median(chunk.iter().map(value))?,
            ))
        })
        .collect();
    let pairs = points.iter().enumerate().flat_map(|(index, left)| {
        let later = points.get(index + 1..).unwrap_or_default();
        later
            .iter()
            .map(move |right| (right.1 - left.1) / (right.0 - left.0))
    });
    median(pairs)
}

/// The middle one; none of nothing.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    quantile(0.5, values)
}

fn quantile(at: f64, values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() as f64 * at) as usize).copied()
}

const fn finding(good: bool, text: String) -> Finding {
    Finding { good, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour without fault, which goes up and down as a real one does.
    fn hour() -> (Vec<Sample>, Ends) {
        let samples = (0..=3600u32)
            .map(|second| {
                let wave = u64::from(second % 20);
                let count = u64::from(second);
                Sample {
                    second: f64::from(second),
                    // It fills its caches in the first ten minutes.
                    own: 20_000_000 + 10_000 * count.min(600) + 50_000 * wave,
                    descriptors: 40 + wave % 3,
                    threads: 9 + wave % 2,
                    table: 700 + 10 * wave,
                    entries: 900 + 10 * wave,
                    bans: 700 + 10 * wave,
                    store: 3 << 20,
                    processor: 0.1 * f64::from(second),
                    passed: 100 * count,
                    dropped: 1000 * count,
                    observed: 50 * count,
                    tried: 2 * count,
                    ..Sample::default()
                }
            })
            .collect();
        let ends = Ends {
            descriptors: (38, 38),
            list_and_table: (501, 501),
            complaints: Vec::new(),
        };
        (samples, ends)
    }

    fn bad(samples: &[Sample], ends: &Ends) -> Vec<String> {
        let findings = judge(samples, ends).into_iter();
        findings
            .filter(|finding| !finding.good)
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn an_hour_without_fault_is_good() {
        let (samples, ends) = hour();
        assert_eq!(bad(&samples, &ends), [""; 0]);
    }

    /// The name of what is changed, and the change.
    type Change = (&'static str, fn(&mut Sample));

    #[test]
    fn what_grows_slowly_without_end_is_found() {
        let leaks: [Change; 6] = [
            // 1.2 KiB a second.
            ("own memory", |sample| sample.own += 1_229 * sample.second as u64),
            ("file descriptors", |sample| {
                sample.descriptors += sample.second as u64 / 400
            }),
            ("threads", |sample| sample.threads += sample.second as u64 / 300),
            ("entries of the kernel's", |sample| {
                sample.table += sample.second as u64 / 8
            }),
            ("entries of all tables", |sample| {
                sample.entries += sample.second as u64 / 8
            }),
            ("store", |sample| sample.store += 3_000 * sample.second as u64),
        ];
        for (what, leak) in leaks {
            let (mut samples, ends) = hour();
            samples.iter_mut().for_each(leak);
            let bad = bad(&samples, &ends);
            assert!(bad.len() == 1 && bad[0].starts_with(what), "{what}: {bad:?}");
        }
    }

    #[test]
    fn one_thing_that_must_not_happen_is_enough() {
        let events: [Change; 6] = [
            ("customers", |last| last.failed = 1),
            ("packets of banned sources", |last| last.leaked = 1),
            ("entries by which list", |last| last.drift = 1),
            ("bans not enforced", |last| last.self_test_failures = 1),
            ("errors in the log", |last| last.errors = 1),
            ("events", |last| last.lost = 1),
        ];
        for (what, event) in events {
            let (mut samples, ends) = hour();
            samples.last_mut().into_iter().for_each(event);
            let bad = bad(&samples, &ends);
            assert!(bad.len() == 1 && bad[0].starts_with(what), "{what}: {bad:?}");
        }
    }

    #[test]
    fn a_called_party_that_seldom_answers_shows_nothing_of_the_filter() {
        let (mut samples, ends) = hour();
        samples
            .last_mut()
            .into_iter()
            .for_each(|last| last.unanswered = 36);
        assert_eq!(bad(&samples, &ends), [""; 0]);
        samples
            .last_mut()
            .into_iter()
            .for_each(|last| last.unanswered = 37);
        assert_eq!(bad(&samples, &ends).len(), 1);
    }

    #[test]
    fn a_run_without_customers_or_attackers_shows_nothing() {
        let silent: [Change; 3] = [
            ("customers", |sample| sample.tried = 0),
            ("packets: ", |sample| sample.dropped = 0),
            ("events", |sample| sample.observed = 0),
        ];
        for (what, silence) in silent {
            let (mut samples, ends) = hour();
            samples.iter_mut().for_each(silence);
            let bad = bad(&samples, &ends);
            assert!(bad.len() == 1 && bad[0].starts_with(what), "{what}: {bad:?}");
        }
        assert_eq!(judge(&[], &Ends::default()).len(), 1);
    }

    #[test]
    fn what_is_left_at_the_end_is_found() {
        let (samples, ends) = hour();
        let left = Ends {
            descriptors: (38, 40),
            ..ends.clone()
        };
        assert_eq!(bad(&samples, &left).len(), 1);
        let differs = Ends {
            list_and_table: (501, 502),
            ..ends.clone()
        };
        assert_eq!(bad(&samples, &differs).len(), 1);
        let complaint = Ends {
            complaints: vec!["it limps".to_owned()],
            ..ends
        };
        assert_eq!(bad(&samples, &complaint), ["it limps"]);
    }
}
