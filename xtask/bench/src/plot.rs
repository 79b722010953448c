//! Cost curves as SVG, both axes logarithmic or the vertical one linear.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, IntoDrawingArea as _, IntoFont as _, IntoLogRange as _, LineSeries,
    PathElement, RGBColor, SVGBackend, SeriesLabelPosition, ShapeStyle, WHITE,
};

/// One line of a plot.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// Pairs of what was varied and what was measured; the former is above zero.
    pub(super) points: Vec<(f64, f64)>,
}

/// What stands around the lines.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) title: &'static str,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
}

/// Told apart by people who see colours differently, too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Draws `series` over a logarithmic horizontal axis and a vertical one from zero.
///
/// # Errors
/// If there is nothing to draw, or the file can't be written.
pub(super) fn curves(file: &Path, labels: &Labels, series: &[Series]) -> Result<()> {
    let points = || series.iter().flat_map(|series| &series.points);
    ensure!(points().count() > 0, "nothing to draw for {}", file.display());
    let x_max = points().map(|point| point.0).fold(1.0, f64::max);
    let x_min = points().map(|point| point.0).fold(x_max, f64::min);
    let y_max = points().map(|point| point.1).fold(0.0, f64::max) * 1.15;
    let failed = |error: &dyn std::fmt::Display| anyhow!("can't draw {}: {error}", file.display());

    let root = SVGBackend::new(file, (760, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(labels.title, ("sans-serif", 18).into_font())
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d((x_min..x_max * 1.2).log_scale(), 0.0..y_max)
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_label_formatter(&|x| count(*x))
        .light_line_style(WHITE)
        .draw()
        .map_err(|error| failed(&error))?;
    for (series, colour) in series.iter().zip(COLOURS.into_iter().cycle()) {
        chart
            .draw_series(LineSeries::new(
                series.points.iter().copied(),
                ShapeStyle::from(colour).stroke_width(2),
            ))
            .map_err(|error| failed(&error))?
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        chart
            .draw_series(
                series
                    .points
                    .iter()
                    .map(|point| Circle::new(*point, 3, ShapeStyle::from(colour).filled())),
            )
            .map_err(|error| failed(&error))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()
        .map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}

/// A number of things as people say it: 1, 10 k, 1 M.
pub(super) fn count(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", short(v / 1e6)),
        v if v >= 1e3 => format!("{} k", short(v / 1e3)),
        v => short(v),
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_lines_and_axes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plot.svg");
        let labels = Labels {
            title: "Cost",
            x: "bans",
            y: "ns per packet",
        };
        let series = Series {
            name: "a ban that is hit".to_owned(),
            points: vec![(1.0, 5.0), (1e3, 6.0), (1e6, 30.0)],
        };
        curves(&file, &labels, &[series]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["<svg", "Cost", "ns per packet", "a ban that is hit", "1 M"] {
            assert!(text.contains(word), "{word}");
        }
        assert!(curves(&file, &labels, &[]).is_err());
    }

    #[test]
    fn counts_read_as_people_say_them() {
        assert_eq!([1.0, 16e3, 1.5e6, 1e7].map(count), ["1", "16 k", "1.5 M", "10 M"]);
    }
}
