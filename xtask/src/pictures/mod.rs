//! `cargo xtask dashboard-pictures`: what each panel of the dashboard shows, drawn from a real run. The real daemon
//! protects a real server from real attackers, a real Prometheus scrapes it each second, and each panel's own queries
//! are asked for what is drawn. Grafana itself is not needed.

pub(crate) mod draw;
mod query;
pub(crate) mod scene;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use xtask::lab::{self, interrupt};

use crate::{
    demo::filter,
    mixin::{self, Panel},
    process::{Privilege, workspace},
};

/// Where the pictures are, from the root of the source tree.
const DIRECTORY: &str = "docs/dashboard";

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run this sip-filter instead of the one built from here
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Draw here
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    out: PathBuf,
}

/// A panel with what its queries answered.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) panel: Panel,
    pub(crate) lines: Vec<Line>,
}

/// One line of a panel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) legend: String,
    /// Seconds since the beginning of the run, and the value then.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Plays the scene and draws it.
///
/// # Errors
/// If it can't be played, or a query has no answer.
pub(crate) fn run(args: &Args) -> Result<()> {
    interrupt::install()?;
    if Privilege::look() != Privilege::Root {
        bail!("network namespaces and XDP need root");
    }
    let binary = match &args.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => filter::build("release")?,
    };
    lab::sweep()?;
    let panels = mixin::panels()?;
    let shown = scene::play(binary, panels)?;
    let out = workspace().join(&args.out);
    fs::create_dir_all(&out)?;
    let mut rows: Vec<(String, Vec<Shown>)> = Vec::new();
    for panel in shown {
        match rows.last_mut() {
            Some((row, panels)) if *row == panel.panel.row => panels.push(panel),
            _ => rows.push((panel.panel.row.clone(), vec![panel])),
        }
    }
    for (row, panels) in &rows {
        let file = out.join(file_name(row));
        fs::write(&file, draw::row(panels, &scene::MARKS, scene::LENGTH))
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// The picture of a row.
fn file_name(row: &str) -> String {
    format!("{}.svg", row.to_lowercase().replace(' ', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_is_drawn_and_described() {
        let page = fs::read_to_string(workspace().join("docs/dashboard.md")).unwrap();
        for panel in mixin::panels().unwrap() {
            let name = file_name(&panel.row);
            assert!(
                page.contains(&format!("(dashboard/{name})")),
                "{name} is not shown"
            );
            let picture = fs::read_to_string(workspace().join(DIRECTORY).join(&name)).unwrap();
            assert!(
                picture.contains(&format!(">{}<", panel.title)),
                "no `{}` in {name}",
                panel.title
            );
            assert!(
                page.contains(&format!("**{}**", panel.title)),
                "docs/dashboard.md does not say what `{}` means",
                panel.title
            );
        }
        for mark in &scene::MARKS {
            let row = format!(
                "| {} | {} | {} |",
                mark.letter,
                draw::clock(mark.at as f64),
                mark.what
            );
            assert!(page.contains(&row), "docs/dashboard.md lacks `{row}`");
        }
    }
}
