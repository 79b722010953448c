//! One measurement, and a whole run of them.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

/// What a row is found by: group, subject, case, metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static str,
);

/// A measurement: the median of several rounds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// What belongs together: `micro`, `peers`, …
    pub(super) group: String,
    /// What was measured: `sip-filter`, `nftables ingress`, …
    pub(super) subject: String,
    /// Under what conditions: `clean REGISTER`, `16 k bans`, …
    pub(super) case: String,
    /// Which figure of it: `cost`, `rate`, …
    pub(super) metric: String,
    /// The median.
    pub(super) value: f64,
    /// `ns`, `Mpps`, …; empty for a ratio or a count.
    pub(super) unit: String,
    /// Rounds that went into it.
    pub(super) samples: usize,
    /// (largest - smallest) / median.
    pub(super) spread: f64,
}

impl Row {
    /// The median and the spread of `samples`.
    ///
    /// # Errors
    /// If there are none.
    pub(super) fn of(
        (group, subject, case, metric): (&str, &str, &str, &str),
        unit: &str,
        samples: &[f64],
    ) -> Result<Self> {
        let value =
            median(samples).with_context(|| format!("{group} / {subject} / {case}: nothing was measured"))?;
        let largest = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let smallest = samples.iter().copied().fold(f64::INFINITY, f64::min);
        let spread = if value == 0.0 {
            0.0
        } else {
            (largest - smallest) / value.abs()
        };
        Ok(Self {
            group: group.to_owned(),
            subject: subject.to_owned(),
            case: case.to_owned(),
            metric: metric.to_owned(),
            value,
            unit: unit.to_owned(),
            samples: samples.len(),
            spread,
        })
    }
}

/// The middle of some numbers; `None` if there are none.
pub(super) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The rows of a run, in the order of measuring.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<Row>);

const HEAD: &str = "group,subject,case,metric,value,unit,samples,spread";

impl Rows {
    /// Adds a row.
    pub(super) fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    /// All rows.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.0.iter()
    }

    /// The rows of a group.
    pub(super) fn of_group(&self, group: &str) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(move |row| row.group == group)
    }

    /// The row of this name.
    pub(super) fn find(&self, key: Key) -> Option<&Row> {
        let Key(group, subject, case, metric) = key;
        self.0.iter().find(|row| {
            row.group == group && row.subject == subject && row.case == case && row.metric == metric
        })
    }

    /// The row of the same name as `row`.
    pub(super) fn like(&self, row: &Row) -> Option<&Row> {
        let name = |row: &Row| [&row.group, &row.subject, &row.case, &row.metric].map(String::clone);
        self.0.iter().find(|other| name(other) == name(row))
    }

    /// The value of the row of this name.
    pub(super) fn value(&self, key: Key) -> Option<f64> {
        self.find(key).map(|row| row.value)
    }

    /// As CSV. Lines of `preface` come first, each after `# `.
    pub(super) fn to_csv(&self, preface: &[String]) -> String {
        let mut text = String::new();
        for line in preface {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "{HEAD}");
        for row in &self.0 {
            // Names are ours and hold no comma; a test sees to it.
            let _ = writeln!(
                text,
                "{},{},{},{},{:.6},{},{},{:.3}",
                row.group, row.subject, row.case, row.metric, row.value, row.unit, row.samples, row.spread
            );
        }
        text
    }

    /// Reads what [`Self::to_csv`] wrote.
    ///
    /// # Errors
    /// If a line isn't one of ours.
    pub(super) fn from_csv(text: &str) -> Result<Self> {
        let mut lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
        ensure!(
            lines.next().is_some_and(|(_, line)| line == HEAD),
            "the first line of the table must be `{HEAD}`"
        );
        let rows = lines.map(|(index, line)| {
            parse(line).with_context(|| format!("line {}: `{line}` is no row", index + 1))
        });
        Ok(Self(rows.collect::<Result<_>>()?))
    }
}

fn parse(line: &str) -> Result<Row> {
    let fields: Vec<&str> = line.split(',').collect();
    let [group, subject, case, metric, value, unit, samples, spread] = fields[..] else {
        anyhow::bail!("{} fields instead of 8", fields.len());
    };
    Ok(Row {
        group: group.to_owned(),
        subject: subject.to_owned(),
        case: case.to_owned(),
        metric: metric.to_owned(),
        value: value.parse()?,
        unit: unit.to_owned(),
        samples: samples.parse()?,
        spread: spread.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: (&str, &str, &str, &str) = ("peers", "nftables ingress", "16 k bans", "rate");

    #[test]
    fn a_row_is_the_median_and_says_how_far_the_rounds_lie_apart() {
        let row = Row::of(NAME, "Mpps", &[2.0, 9.0, 4.0]).unwrap();
        assert_eq!((row.value, row.samples, row.spread), (4.0, 3, 7.0 / 4.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
        assert!(Row::of(NAME, "Mpps", &[]).is_err());
    }

    #[test]
    fn rows_survive_the_file() {
        let mut rows = Rows::default();
        rows.push(Row::of(NAME, "Mpps", &[1.25, 1.5]).unwrap());
        rows.push(Row::of(("micro", "sip-filter", "garbage", "cost"), "ns", &[-0.5]).unwrap());
        let text = rows.to_csv(&["kernel: 6.18".to_owned()]);
        assert!(text.starts_with("# kernel: 6.18\ngroup,"));
        let again = Rows::from_csv(&text).unwrap();
        let (Some(first), Some(second)) = (again.0.first(), again.0.get(1)) else {
            panic!("rows are missing");
        };
        assert_eq!((first.value, second.value), (1.375, -0.5));
        assert_eq!(again.value(Key(NAME.0, NAME.1, NAME.2, NAME.3)), Some(1.375));
        assert!(Rows::from_csv("x\n").is_err());
        assert!(Rows::from_csv(&text.replace("1.375000", "fast")).is_err());
    }
}
