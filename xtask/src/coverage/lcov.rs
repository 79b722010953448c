//! Which lines ran, from the text that `llvm-cov export --format=lcov` writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Lines of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) ran: usize,
    /// Those that never ran.
    pub(super) missed: BTreeSet<usize>,
}

impl Lines {
    pub(super) fn total(&self) -> usize {
        self.ran + self.missed.len()
    }

    pub(super) fn percent(&self) -> f64 {
        self.ran as f64 * 100.0 / self.total().max(1) as f64
    }

    /// Lines that never ran, as ranges.
    pub(super) fn ranges(&self) -> String {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for line in &self.missed {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == *line => *end = *line,
                _ => ranges.push((*line, *line)),
            }
        }
        let text = ranges.iter().map(|(start, end)| match start == end {
            true => start.to_string(),
            false => format!("{start}–{end}"),
        });
        text.collect::<Vec<_>>().join(", ")
    }
}

/// Files below `root`, by their path from there. Tests at the end of a file, and files of tests, are left out; `source`
/// reads a file.
pub(super) fn parse(
    lcov: &str,
    root: &Path,
    source: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, Lines> {
    let mut files = BTreeMap::new();
    let mut current: Option<(String, usize, Lines)> = None;
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            current = Path::new(path)
                .strip_prefix(root)
                .ok()
                .and_then(Path::to_str)
                .filter(|path| is_program(path))
                .map(|path| {
                    let end = source(path).map_or(usize::MAX, |text| first_test(&text));
                    (path.to_owned(), end, Lines::default())
                });
        } else if let (Some((_, end, lines)), Some(data)) = (&mut current, line.strip_prefix("DA:")) {
            let mut numbers = data.split(',').map(str::parse::<u64>);
            if let (Some(Ok(number)), Some(Ok(count))) = (numbers.next(), numbers.next())
                && (number as usize) < *end
            {
                if count > 0 {
                    lines.ran += 1;
                } else {
                    lines.missed.insert(number as usize);
                }
            }
        } else if line == "end_of_record"
            && let Some((path, _, lines)) = current.take()
            && lines.total() > 0
        {
            files.insert(path, lines);
        }
    }
    files
}

fn is_program(path: &str) -> bool {
    let is_test = path.ends_with("tests.rs") || path.ends_with("fake.rs") || path.contains("/tests/");
    (path.starts_with("sip-filter/src/") || path.starts_with("sip-filter-common/src/")) && !is_test
}

/// The line, from 1, at which the tests at the end of a file begin.
fn first_test(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let is_start =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines
        .windows(2)
        .position(is_start)
        .map_or(usize::MAX, |index| index + 1)
}

/// The module of a file: a crate's part that has a directory, or a file beside those.
pub(super) fn module(path: &str) -> String {
    let Some((name, rest)) = path.split_once("/src/") else {
        return path.to_owned();
    };
    let first = rest.split('/').next().unwrap_or(rest);
    format!("{name} {}", first.strip_suffix(".rs").unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LCOV: &str = "SF:/x/sip-filter/src/api/mod.rs\nFN:1,f\nDA:1,5\nDA:2,0\nDA:3,0\nDA:5,0\nDA:9,1\nLF:5\nend_of_record\n\
                        SF:/x/sip-filter/src/api/tests.rs\nDA:1,0\nend_of_record\n\
                        SF:/home/registry/aya/src/lib.rs\nDA:1,0\nend_of_record\n\
                        SF:/x/sip-filter-common/src/limiter.rs\nDA:7,1\nend_of_record\n";

    #[test]
    fn lines_of_the_program_count_and_those_of_tests_do_not() {
        let source = |_: &str| Some("a\nb\nc\nd\ne\n\n#[cfg(test)]\nmod tests {\n}\n".to_owned());
        let files = parse(LCOV, Path::new("/x"), source);
        assert_eq!(
            files.len(),
            1,
            "that of the limiter has only tests there: {files:?}"
        );
        let api = &files["sip-filter/src/api/mod.rs"];
        assert_eq!((api.ran, api.total()), (1, 4));
        assert_eq!(api.ranges(), "2–3, 5");
        assert!((api.percent() - 25.0).abs() < 1e-9);
        let files = parse(LCOV, Path::new("/x"), |_| None);
        assert_eq!(files.len(), 2);
        assert_eq!(files["sip-filter/src/api/mod.rs"].ran, 2);
    }

    #[test]
    fn modules_are_directories_or_files_beside_them() {
        assert_eq!(
            module("sip-filter/src/detect/engine/decide.rs"),
            "sip-filter detect"
        );
        assert_eq!(
            module("sip-filter-common/src/limiter.rs"),
            "sip-filter-common limiter"
        );
    }
}
