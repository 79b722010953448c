//! What a run leaves: tables on the terminal, rows, plots, and the generated parts of the page.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    environment::Environment,
    goals::{Bound, Figure, GOALS, Outcome},
    plot::{self, Labels, Series},
    row::{Row, Rows},
    workspace,
};

/// A plot of rows of one group.
#[derive(Debug)]
pub(super) struct Plot {
    /// Name of the file, without `.svg`.
    pub(super) name: &'static str,
    /// Group whose page section shows it.
    pub(super) group: &'static str,
    pub(super) labels: Labels,
    pub(super) series: Vec<Series>,
}

/// Where the parts of a run go.
#[derive(Debug)]
struct Places {
    csv: PathBuf,
    page: PathBuf,
    images: PathBuf,
}

impl Places {
    fn of(whole: bool, out: Option<&Path>) -> Self {
        let root = workspace();
        match out {
            None if whole => Self {
                csv: root.join("bench-results/performance.csv"),
                page: root.join("docs/performance.md"),
                images: root.join("docs/img"),
            },
            // Part of the picture must not replace the whole.
            _ => {
                let dir = out.map_or_else(|| root.join("target/bench"), Path::to_owned);
                Self {
                    csv: dir.join("performance.csv"),
                    page: dir.join("performance.md"),
                    images: dir.join("img"),
                }
            }
        }
    }
}

/// Prints one table for each group, beside `earlier` figures if there are any, and the goals.
pub(super) fn print(rows: &Rows, earlier: Option<&Rows>) {
    let mut last = "";
    for row in rows.iter() {
        if row.group != last {
            println!("\n{}", row.group);
            last = &row.group;
        }
        let before = earlier
            .and_then(|earlier| earlier.like(row))
            .map(|before| {
                format!(
                    "   before {:>8}, now × {:.2}",
                    figure(before.value),
                    row.value / before.value
                )
            })
            .unwrap_or_default();
        println!(
            "  {:<20} {:<38} {:<12} {:>12} {:<5} ±{:>3.0} %{before}",
            row.subject,
            row.case,
            row.metric,
            figure(row.value),
            row.unit,
            row.spread * 50.0
        );
    }
    println!("\ngoals");
    for goal in &GOALS {
        let outcome = goal.outcome(rows);
        println!("  {:>2} {:<12} {}", goal.number, outcome.text(), goal.text);
        if outcome == Outcome::NotMeasured {
            continue;
        }
        for goal_figure in goal.figures {
            if let Some(value) = goal_figure.source.value(rows) {
                println!(
                    "       {:<34} {:>9}  goal {}{}",
                    goal_figure.what,
                    figure(value),
                    bound(goal_figure.bound),
                    limit(goal_figure, rows)
                );
            }
        }
    }
}

/// Writes rows, plots and page.
///
/// # Errors
/// If a file can't be read or written.
pub(super) fn write(
    rows: &Rows,
    plots: &[Plot],
    environment: &Environment,
    whole: bool,
    out: Option<&Path>,
) -> Result<()> {
    let places = Places::of(whole, out);
    for dir in [
        places.csv.parent(),
        places.page.parent(),
        Some(places.images.as_path()),
    ] {
        let dir = dir.context("a file without directory")?;
        fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    }
    for plot in plots {
        let file = places.images.join(plot.name).with_extension("svg");
        plot::curves(&file, &plot.labels, &plot.series)?;
    }
    put(&places.csv, &rows.to_csv(&environment.lines()))?;
    // The text around the generated parts is written by hand, in the page of the source tree.
    let source = workspace().join("docs/performance.md");
    let text = fs::read_to_string(&source).with_context(|| format!("can't read {}", source.display()))?;
    put(&places.page, &fill(&text, &sections(rows, plots, environment))?)
}

fn put(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("can't write {}", file.display()))?;
    let shown = file.strip_prefix(workspace()).unwrap_or(file);
    println!("written: {}", shown.display());
    Ok(())
}

/// The generated sections by name.
fn sections(rows: &Rows, plots: &[Plot], environment: &Environment) -> BTreeMap<String, String> {
    let mut sections = BTreeMap::new();
    let mut lines = String::new();
    for line in environment.lines() {
        let _ = writeln!(lines, "- {line}");
    }
    sections.insert("environment".to_owned(), lines);
    sections.insert("goals".to_owned(), goals(rows));
    for row in rows.iter() {
        if !sections.contains_key(&row.group) {
            sections.insert(row.group.clone(), group(rows, plots, &row.group));
        }
    }
    sections
}

fn goals(rows: &Rows) -> String {
    let mut text = String::from("| # | goal | figures | |\n|---|---|---|---|\n");
    for goal in &GOALS {
        let figures: Vec<String> = goal
            .figures
            .iter()
            .map(|goal_figure| {
                let value = goal_figure.source.value(rows);
                format!(
                    "{}: {} ({}{})",
                    goal_figure.what,
                    value.map_or_else(|| "–".to_owned(), figure),
                    bound(goal_figure.bound),
                    limit(goal_figure, rows)
                )
            })
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            goal.number,
            goal.text,
            figures.join("<br>"),
            goal.outcome(rows).text()
        );
    }
    text
}

/// One table: a line for each case and metric, a column for each subject.
fn group(rows: &Rows, plots: &[Plot], name: &str) -> String {
    let mut subjects: Vec<&str> = Vec::new();
    let mut lines: Vec<(&str, &str, &str)> = Vec::new();
    for row in rows.of_group(name) {
        if !subjects.contains(&row.subject.as_str()) {
            subjects.push(&row.subject);
        }
        let line = (row.case.as_str(), row.metric.as_str(), row.unit.as_str());
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let mut text = format!("| case | figure | {} |\n", subjects.join(" | "));
    let _ = writeln!(text, "|---|---|{}", "---:|".repeat(subjects.len()));
    for (case, metric, unit) in lines {
        let cell = |subject: &&str| {
            let is_here = |row: &&Row| {
                row.case == case && row.metric == metric && row.unit == unit && row.subject == *subject
            };
            rows.of_group(name).find(is_here).map_or_else(
                || "–".to_owned(),
                |row| format!("{} ± {:.0} %", figure(row.value), row.spread * 50.0),
            )
        };
        let cells: Vec<String> = subjects.iter().map(cell).collect();
        let metric = [metric, unit].join(" ");
        let _ = writeln!(text, "| {case} | {} | {} |", metric.trim(), cells.join(" | "));
    }
    for plot in plots.iter().filter(|plot| plot.group == name) {
        let _ = writeln!(text, "\n![{}](img/{}.svg)", plot.labels.title, plot.name);
    }
    text
}

/// Replaces what stands between `<!-- bench:NAME -->` and `<!-- bench:end -->`. Sections without rows become empty,
/// so that the page never shows two runs at once.
fn fill(page: &str, sections: &BTreeMap<String, String>) -> Result<String> {
    let mut text = String::new();
    let mut generated = false;
    let mut missing: Vec<&String> = sections.keys().collect();
    for line in page.lines() {
        if line == END {
            generated = false;
        }
        if !generated {
            let _ = writeln!(text, "{line}");
        }
        let name = line
            .strip_prefix("<!-- bench:")
            .and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(name) = name.filter(|_| line != END) {
            generated = true;
            missing.retain(|section| *section != name);
            let section = sections.get(name).map_or("Not measured.\n", String::as_str);
            let _ = writeln!(text, "\n{section}");
        }
    }
    anyhow::ensure!(
        !generated && missing.is_empty(),
        "docs/performance.md: each section needs `<!-- bench:NAME -->` and `{END}`; without: {missing:?}"
    );
    Ok(text)
}

const END: &str = "<!-- bench:end -->";

/// What the least program reaches, if that was measured.
fn limit(goal_figure: &Figure, rows: &Rows) -> String {
    let limit = goal_figure.limit.and_then(|source| source.value(rows));
    limit.map_or_else(String::new, |value| format!("; least program {}", figure(value)))
}

fn bound(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(limit) => format!("≥ {}", limit_text(limit)),
        Bound::AtMost(limit) => format!("≤ {}", limit_text(limit)),
    }
}

fn limit_text(limit: f64) -> String {
    format!("{limit}")
}

/// Three digits that count.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.01 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# P\n\n<!-- bench:goals -->\n\nold\n\n<!-- bench:end -->\n\ntext\n\n<!-- bench:micro -->\n<!-- bench:end -->\n";

    #[test]
    fn only_generated_parts_of_the_page_change() {
        let section = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let filled = fill(PAGE, &BTreeMap::from([section("goals", "new\n")])).unwrap();
        assert!(filled.contains("\nnew\n") && !filled.contains("old") && filled.contains("\ntext\n"));
        assert!(filled.contains("<!-- bench:micro -->\n\nNot measured."));
        let again = fill(&filled, &BTreeMap::from([section("goals", "new\n")])).unwrap();
        assert_eq!(filled, again);
        assert!(
            fill(PAGE, &BTreeMap::from([section("wire", "x\n")])).is_err(),
            "a section without a place"
        );
        assert!(
            fill("<!-- bench:goals -->\n", &BTreeMap::new()).is_err(),
            "no end"
        );
    }

    #[test]
    fn the_page_has_a_place_for_every_group() {
        let page = fs::read_to_string(workspace().join("docs/performance.md")).unwrap();
        let names = <xtask::bench::Group as clap::ValueEnum>::value_variants()
            .iter()
            .map(|group| (group.name().to_owned(), String::new()));
        fill(&page, &names.collect()).unwrap();
    }

    #[test]
    fn subjects_become_columns() {
        let mut rows = Rows::default();
        for (subject, value) in [("bare", 6.0), ("sip-filter", 5.9)] {
            rows.push(Row::of(("peers", subject, "1 ban", "rate"), "Mpps", &[value]).unwrap());
        }
        let table = group(&rows, &[], "peers");
        assert!(table.contains("| case | figure | bare | sip-filter |"), "{table}");
        assert!(
            table.contains("| 1 ban | rate Mpps | 6.00 ± 0 % | 5.90 ± 0 % |"),
            "{table}"
        );
    }
}
