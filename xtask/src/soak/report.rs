//! What a soak came to: lines, figures as CSV, and a plot.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{
    judge::{Finding, Sample, median},
    sample::Log,
};
use crate::{
    mixin::Panel,
    pictures::{Line, Shown, draw},
};

const MIB: f64 = 1_048_576.0;
/// Rows of the file; points of a line.
const MOST_ROWS: usize = 400;
const MOST_POINTS: usize = 240;

/// Prints how it went.
pub(super) fn print(samples: &[Sample], findings: &[Finding], log: &Log) {
    println!();
    for Finding { good, text } in findings {
        println!("{} {text}", if *good { "ok  " } else { "FAIL" });
    }
    if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
        let core = (last.processor - first.processor) / (last.second - first.second).max(1.0);
        println!(
            "\nThe daemon took {:.1} % of a core. {}",
            core * 100.0,
            line(last)
        );
    }
    if !log.messages.is_empty() {
        println!("\nWarnings and errors of its log:");
    }
    for (message, count) in &log.messages {
        println!("{count:>6} × {message}");
    }
    println!();
}

/// One sample, for people.
pub(super) fn line(sample: &Sample) -> String {
    format!(
        "{:>5.0} s: {:.1} MiB own, {} descriptors, {} threads, {} bans, {} in the kernel's table, {} passed, {} \
         dropped, {} customers' requests, {} failed",
        sample.second,
        sample.own as f64 / MIB,
        sample.descriptors,
        sample.threads,
        sample.bans,
        sample.table,
        sample.passed,
        sample.dropped,
        sample.tried,
        sample.failed
    )
}

/// Writes figures and plot.
pub(super) fn write(samples: &[Sample], files: &[PathBuf; 2]) -> Result<()> {
    let [csv_file, plot_file] = files;
    for (file, text) in [(csv_file, csv(samples)), (plot_file, plot(samples))] {
        let directory = file.parent().context("a file without directory")?;
        fs::create_dir_all(directory)?;
        fs::write(file, text).with_context(|| format!("can't write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// All samples, or every so many of a long run.
fn csv(samples: &[Sample]) -> String {
    let mut text = String::from(
        "second,own_bytes,resident_bytes,proportional_bytes,descriptors,threads,bans,table_entries,all_entries,\
         store_bytes,processor_seconds,passed,dropped,drift,self_test_failures,lost,observed,tried,failed,unanswered,leaked,errors\n",
    );
    let step = samples.len().div_ceil(MOST_ROWS).max(1);
    let last = samples
        .last()
        .filter(|_| !samples.len().is_multiple_of(step) || step > 1);
    for sample in samples.iter().step_by(step).chain(last) {
        let s = sample;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:.1},{},{},{},{},{},{},{},{},{},{:.2},{},{},{},{},{},{},{},{},{},{},{}",
            s.second,
            s.own,
            s.resident,
            s.proportional,
            s.descriptors,
            s.threads,
            s.bans,
            s.table,
            s.entries,
            s.store,
            s.processor,
            s.passed,
            s.dropped,
            s.drift,
            s.self_test_failures,
            s.lost,
            s.observed,
            s.tried,
            s.failed,
            s.unanswered,
            s.leaked,
            s.errors
        );
    }
    text
}

/// A line of a plot: its name, and what it shows of a sample.
type Curve = (&'static str, fn(&Sample) -> f64);

fn plot(samples: &[Sample]) -> String {
    let levels: [(&str, &[Curve]); 4] = [
        (
            "Memory, MiB",
            &[
                ("with mapped tables (RSS)", |s| s.resident as f64 / MIB),
                ("in proportion (PSS)", |s| s.proportional as f64 / MIB),
                ("own", |s| s.own as f64 / MIB),
            ],
        ),
        (
            "Descriptors and threads",
            &[
                ("file descriptors", |s| s.descriptors as f64),
                ("threads", |s| s.threads as f64),
            ],
        ),
        (
            "Bans",
            &[
                ("on the list", |s| s.bans as f64),
                ("IPv4, in the kernel", |s| s.table as f64),
                ("entries of all tables", |s| s.entries as f64),
            ],
        ),
        ("Store, MiB", &[("bans.redb", |s| s.store as f64 / MIB)]),
    ];
    let rates: [(&str, &[Curve]); 3] = [
        (
            "Packets",
            &[("passed", |s| s.passed as f64), ("dropped", |s| s.dropped as f64)],
        ),
        (
            "Registrations and calls of customers",
            &[("tried", |s| s.tried as f64), ("failed", |s| s.failed as f64)],
        ),
        ("Processor", &[("of one core", |s| s.processor)]),
    ];
    let zero: (&str, &[Curve]) = (
        "What must stay zero",
        &[
            ("of the banned, passed", |s| s.leaked as f64),
            ("drift", |s| s.drift as f64),
            ("events lost", |s| s.lost as f64),
            ("errors in the log", |s| s.errors as f64),
        ],
    );
    let mut panels: Vec<Shown> = levels
        .iter()
        .map(|(title, curves)| shown(title, "short", curves, samples, false))
        .collect();
    panels.extend(rates.iter().map(|(title, curves)| {
        let unit = if *title == "Processor" {
            "percentunit"
        } else {
            "cps"
        };
        shown(title, unit, curves, samples, true)
    }));
    panels.push(shown(zero.0, "short", zero.1, samples, false));
    let seconds = samples.last().map_or(1, |last| last.second.ceil() as u32);
    draw::row(&panels, &[], seconds.max(1))
}

fn shown(title: &str, unit: &str, curves: &[Curve], samples: &[Sample], rate: bool) -> Shown {
    let lines = curves.iter().map(|(legend, value)| Line {
        legend: (*legend).to_owned(),
        points: points(samples, *value, rate),
    });
    Shown {
        panel: Panel {
            row: "Soak".to_owned(),
            title: title.to_owned(),
            kind: "timeseries".to_owned(),
            unit: unit.to_owned(),
            stacked: false,
            queries: Vec::new(),
            words: Vec::new(),
        },
        lines: lines.collect(),
    }
}

/// Medians, or rates, of parts of the run.
fn points(samples: &[Sample], value: fn(&Sample) -> f64, rate: bool) -> Vec<(f64, f64)> {
    // A rate takes two samples at least, and says more of more.
    let least = if rate { 2 + samples.len() / 100 } else { 1 };
    let part = samples.len().div_ceil(MOST_POINTS).max(least);
    samples
        .chunks(part)
        .filter_map(|chunk| {
            let (first, last) = (chunk.first()?, chunk.last()?);
            let middle = f64::midpoint(first.second, last.second);
            if !rate {
                return Some((middle, median(chunk.iter().map(value))?));
            }
            let time = last.second - first.second;
            (time > 0.0).then(|| (middle, (value(last) - value(first)) / time))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Sample> {
        (0..1000u32)
            .map(|second| Sample {
                second: f64::from(second),
                passed: u64::from(second) * 5,
                own: 1 << 20,
                ..Sample::default()
            })
            .collect()
    }

    #[test]
    fn a_long_run_is_thinned_and_its_last_sample_kept() {
        let text = csv(&samples());
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 1 + 334 + 1);
        assert!(rows.last().unwrap().starts_with("999.0,1048576,"));
        let columns = |row: &str| row.split(',').count();
        assert_eq!(columns(rows[0]), columns(rows[1]));
    }

    #[test]
    fn a_plot_shows_levels_and_rates() {
        let picture = plot(&samples());
        for word in ["Memory, MiB", ">own<", ">passed<", "What must stay zero"] {
            assert!(picture.contains(word), "{word}");
        }
        let rate = points(&samples(), |s| s.passed as f64, true);
        assert!(rate.iter().all(|point| (point.1 - 5.0).abs() < 1e-9));
    }
}
