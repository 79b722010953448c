//! Panels as SVG: little more than lines, a scale, and a legend, so that the files stay small and need no library.

use std::fmt::Write as _;

use super::{Line, Shown, scene::Mark};

/// Told apart by people who see colours differently, too (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];

/// A panel of lines, and how many of them lie side by side.
const PANEL: (f64, f64) = (490.0, 200.0);
const COLUMNS: usize = 2;
/// A panel with one number.
const STAT: (f64, f64) = (163.0, 80.0);
const STATS: usize = 6;
/// Room for the scale on the left, the title above, and the times below a plot.
const LEFT: f64 = 52.0;
const TOP: f64 = 26.0;
const BELOW: f64 = 18.0;
/// Room for the legend on the right.
const LEGEND: f64 = 165.0;
/// As many lines as a legend has room for.
const MOST: usize = 12;

/// The second at which numbers are read, in the middle of a flood.
const MOMENT: f64 = 90.0;

/// The panels of one row, `seconds` long.
pub(crate) fn row(panels: &[Shown], marks: &[Mark], seconds: u32) -> String {
    let stats = panels.iter().filter(|shown| shown.panel.kind == "stat").count();
    let plots = panels.len() - stats;
    let stats_height = stats.div_ceil(STATS) as f64 * STAT.1;
    let height = stats_height + plots.div_ceil(COLUMNS) as f64 * PANEL.1;
    let width = PANEL.0 * COLUMNS as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"10\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let (mut stat, mut plot) = (0, 0);
    for shown in panels {
        let body = if shown.panel.kind == "stat" {
            let at = ((stat % STATS) as f64 * STAT.0, (stat / STATS) as f64 * STAT.1);
            stat += 1;
            (at, number(shown))
        } else {
            let at = (
                (plot % COLUMNS) as f64 * PANEL.0,
                stats_height + (plot / COLUMNS) as f64 * PANEL.1,
            );
            plot += 1;
            (at, lines(shown, marks, seconds))
        };
        let ((x, y), body) = body;
        push(
            &mut svg,
            &format!("<g transform=\"translate({x} {y})\">\n{body}</g>\n"),
        );
    }
    svg + "</svg>\n"
}

fn push(svg: &mut String, text: &str) {
    svg.push_str(text);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn title(shown: &Shown) -> String {
    format!(
        "<text x=\"8\" y=\"16\" font-size=\"12\" font-weight=\"bold\">{}</text>\n",
        escape(&shown.panel.title)
    )
}

/// One number, or one word.
fn number(shown: &Shown) -> String {
    let value = shown.lines.first().and_then(|line| {
        let point = line.points.iter().rfind(|point| point.0 <= MOMENT)?;
        Some((line, point.1))
    });
    let text = match value {
        None => "no data".to_owned(),
        // A label is shown, not the number of hosts that have it.
        Some((line, _)) if shown.panel.title == "Version" => line.legend.clone(),
        Some((_, value)) => {
            let word = shown
                .panel
                .words
                .iter()
                .find(|(number, _)| number.parse() == Ok(value));
            word.map_or_else(|| label(value, &shown.panel.unit), |(_, word)| word.clone())
        }
    };
    format!(
        "{}<rect x=\"6\" y=\"24\" width=\"{}\" height=\"48\" rx=\"4\" fill=\"#eef3f7\"/>\n\
         <text x=\"{}\" y=\"55\" font-size=\"20\" text-anchor=\"middle\">{}</text>\n",
        title(shown),
        STAT.0 - 12.0,
        STAT.0 / 2.0,
        escape(&text)
    )
}

/// Where things are in a plot.
struct Scale {
    seconds: f64,
    top: f64,
}

impl Scale {
    fn x(&self, second: f64) -> f64 {
        LEFT + second / self.seconds * (PANEL.0 - LEFT - LEGEND)
    }

    fn y(&self, value: f64) -> f64 {
        let height = PANEL.1 - TOP - BELOW;
        TOP + height - value / self.top * height
    }
}

/// Lines over time, or areas one on the other.
fn lines(shown: &Shown, marks: &[Mark], seconds: u32) -> String {
    let (mut drawn, legends) = visible(shown);
    if shown.panel.stacked {
        stack(&mut drawn);
    }
    let points = || drawn.iter().flat_map(|line| &line.points);
    let scale = Scale {
        seconds: f64::from(seconds),
        top: nice(points().map(|point| point.1).fold(0.0, f64::max)),
    };
    let mut svg = title(shown);
    push(&mut svg, &grid(&scale, &shown.panel.unit, marks));
    // The highest of a stack first, so that the lower ones are seen.
    for (number, line) in drawn.iter().enumerate().rev() {
        let colour = COLOURS[number % COLOURS.len()];
        for path in pieces(line, &scale) {
            let shape = if shown.panel.stacked {
                let (first, last) = ends(&path);
                let base = scale.y(0.0);
                format!("<polygon fill=\"{colour}\" points=\"{first},{base:.0} {path} {last},{base:.0}\"/>\n")
            } else {
                format!(
                    "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{path}\"/>\n"
                )
            };
            push(&mut svg, &shape);
        }
    }
    push(&mut svg, &legend(&legends, drawn.is_empty()));
    svg
}

/// Lines that are ever above zero, as many as there is room for; where all are zero, those, as that is the message.
/// Then their legends, with a last one that says how many were left out.
fn visible(shown: &Shown) -> (Vec<Line>, Vec<String>) {
    let rises = |line: &&Line| line.points.iter().any(|point| point.1 > 0.0);
    let mut lines: Vec<Line> = shown.lines.iter().filter(rises).cloned().collect();
    if lines.is_empty() {
        lines = shown.lines.clone();
    }
    let left_out = lines.len().saturating_sub(MOST);
    lines.truncate(MOST);
    let mut legends: Vec<String> = lines.iter().map(|line| line.legend.clone()).collect();
    let zero = shown.lines.len() - lines.len() - left_out;
    if left_out > 0 {
        legends.push(format!("and {left_out} more"));
    }
    if zero > 0 {
        legends.push(format!("({zero} always 0)"));
    }
    (lines, legends)
}

/// Adds to each line what lies below it.
fn stack(lines: &mut [Line]) {
    let mut times: Vec<f64> = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|point| point.0))
        .collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let mut below = vec![0.0; times.len()];
    for line in lines {
        let mut points = Vec::new();
        for (time, below) in times.iter().zip(&mut below) {
            let own = line.points.iter().find(|point| point.0 == *time);
            *below += own.map_or(0.0, |point| point.1);
            points.push((*time, *below));
        }
        line.points = points;
    }
}

/// Coordinates of a line, in pieces where there are gaps.
fn pieces(line: &Line, scale: &Scale) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut before = f64::NEG_INFINITY;
    for (second, value) in &line.points {
        // A long run has points further apart.
        if second - before > (scale.seconds / 100.0).max(2.5) {
            pieces.push(String::new());
        }
        before = *second;
        if let Some(piece) = pieces.last_mut() {
            // Writing to a string cannot fail.
            let _ = write!(piece, "{:.0},{:.1} ", scale.x(*second), scale.y(*value));
        }
    }
    for piece in &mut pieces {
        piece.truncate(piece.trim_end().len());
        // One point alone is a short line, lest it be invisible.
        if let (false, Some((x, y))) = (piece.contains(' '), piece.split_once(',')) {
            let x: f64 = x.parse().unwrap_or_default();
            *piece = format!("{},{y} {},{y}", x - 2.0, x + 2.0);
        }
    }
    pieces
}

/// The first and the last horizontal coordinate of a path.
fn ends(path: &str) -> (&str, &str) {
    let x = |point: Option<&str>| -> Option<(usize, usize)> {
        let point = point?;
        let start = point.as_ptr() as usize - path.as_ptr() as usize;
        Some((start, start + point.find(',')?))
    };
    let mut points = path.split(' ');
    let first = x(points.next()).unwrap_or((0, 0));
    let last = x(points.next_back()).unwrap_or(first);
    (&path[first.0..first.1], &path[last.0..last.1])
}

fn grid(scale: &Scale, unit: &str, marks: &[Mark]) -> String {
    let mut svg = String::new();
    let (right, bottom) = (scale.x(scale.seconds), scale.y(0.0));
    for step in 0..=4 {
        let value = scale.top * f64::from(step) / 4.0;
        let y = scale.y(value);
        push(
            &mut svg,
            &format!(
                "<path d=\"M{LEFT} {y:.0}H{right:.0}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.0}\" \
                 text-anchor=\"end\" fill=\"#555\">{}</text>\n",
                LEFT - 4.0,
                y + 3.0,
                label(value, unit)
            ),
        );
    }
    let minutes = (scale.seconds / 60.0) as u32;
    for minute in (0..=minutes).step_by(minutes.div_ceil(6).max(1) as usize) {
        let (x, second) = (scale.x(f64::from(minute) * 60.0), f64::from(minute) * 60.0);
        push(
            &mut svg,
            &format!(
                "<text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{}</text>\n",
                bottom + 13.0,
                clock(second)
            ),
        );
    }
    for mark in marks {
        let x = scale.x(f64::from(mark.at));
        push(
            &mut svg,
            &format!(
                "<path d=\"M{x:.0} {TOP}V{bottom:.0}\" stroke=\"#aaa\" stroke-dasharray=\"2 3\"/><text x=\"{:.0}\" \
                 y=\"{}\" fill=\"#888\" font-size=\"9\">{}</text>\n",
                x + 2.0,
                TOP + 8.0,
                mark.letter
            ),
        );
    }
    svg
}

fn legend(legends: &[String], empty: bool) -> String {
    let x = PANEL.0 - LEGEND + 8.0;
    if empty {
        return format!(
            "<text x=\"{x}\" y=\"{}\" fill=\"#555\">nothing to show</text>\n",
            TOP + 8.0
        );
    }
    let mut svg = String::new();
    for (number, legend) in legends.iter().enumerate() {
        let y = TOP + 8.0 + 13.0 * number as f64;
        // What says how many were left out has no line.
        let swatch = if legend.starts_with('(') || legend.starts_with("and ") {
            String::new()
        } else {
            let colour = COLOURS[number % COLOURS.len()];
            format!(
                "<rect x=\"{x}\" y=\"{}\" width=\"9\" height=\"4\" fill=\"{colour}\"/>",
                y - 6.0
            )
        };
        push(
            &mut svg,
            &format!(
                "{swatch}<text x=\"{}\" y=\"{y}\">{}</text>\n",
                x + 12.0,
                escape(legend)
            ),
        );
    }
    svg
}

/// The next number at or above that makes a good end of a scale in four steps.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    let fits = steps.iter().map(|step| step * power).find(|top| *top >= value);
    fits.unwrap_or(power * 10.0)
}

/// A value with its unit, as short as it can be.
fn label(value: f64, unit: &str) -> String {
    if unit == "percentunit" {
        return format!("{} %", short(value * 100.0));
    }
    let (value, prefix) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let unit = match unit {
        "pps" => "/s",
        "bps" => "b/s",
        "cps" => "/s",
        _ => "",
    };
    format!("{} {prefix}{unit}", short(value)).trim_end().to_owned()
}

fn short(value: f64) -> String {
    let text = if value.abs() < 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.1}")
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Minutes and seconds.
pub(super) fn clock(second: f64) -> String {
    let second = second as u32;
    format!("{}:{:02}", second / 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixin::Panel;

    fn shown(stacked: bool, lines: &[(&str, &[(f64, f64)])]) -> Shown {
        Shown {
            panel: Panel {
                row: "Row".to_owned(),
                title: "A < B".to_owned(),
                kind: "timeseries".to_owned(),
                unit: "pps".to_owned(),
                stacked,
                queries: Vec::new(),
                words: Vec::new(),
            },
            lines: lines
                .iter()
                .map(|(legend, points)| Line {
                    legend: (*legend).to_owned(),
                    points: points.to_vec(),
                })
                .collect(),
        }
    }

    #[test]
    fn a_gap_stays_a_gap_and_zero_is_only_mentioned() {
        let points = [(0.0, 1.0), (2.0, 2.0), (20.0, 3.0), (22.0, 1500.0)];
        let svg = row(
            &[shown(false, &[("dropped", &points), ("other", &[(0.0, 0.0)])])],
            &[],
            22,
        );
        assert_eq!(svg.matches("<polyline").count(), 2);
        for word in ["A &lt; B", ">dropped<", ">(1 always 0)<", ">1.6 k/s<"] {
            assert!(svg.contains(word), "{word}: {svg}");
        }
    }

    #[test]
    fn what_is_stacked_adds_up() {
        let shown = shown(true, &[("a", &[(0.0, 1.0), (2.0, 1.0)]), ("b", &[(2.0, 2.0)])]);
        let mut lines = shown.lines;
        stack(&mut lines);
        assert_eq!(lines[1].points, [(0.0, 1.0), (2.0, 3.0)]);
    }

    #[test]
    fn scales_end_at_or_above_the_highest_value() {
        for value in [0.003, 0.9, 1.0, 17.0, 999.0, 1001.0] {
            let top = nice(value);
            assert!(top >= value && top <= value * 2.0, "{value} {top}");
        }
        assert_eq!(label(0.605, "percentunit"), "60.5 %");
        assert_eq!(
            [0.0, 40.0, 2.5e6].map(|value| label(value, "short")),
            ["0", "40", "2.5 M"]
        );
        assert_eq!(clock(105.0), "1:45");
    }
}
