//! `cargo xtask tidy`: house rules that no lint knows, as far as a look at the text can check them.

mod promises;

use std::{fs, process::Command};

use anyhow::{Context as _, bail};
use sip_filter_common::verdict::Reason;

use crate::process::{output, workspace};

/// Longer than this, and a file is more than one idea.
const MAX_LINES: usize = 600;

/// Where a rule is broken: a line, counted from 1, and what is wrong there.
type Finding = (usize, String);

/// The rules. Each sees one file.
const RULES: [fn(&File) -> Vec<Finding>; 7] = [
    aya_only_in_dataplane,
    packet_memory_in_one_module,
    common_without_std,
    no_allow,
    short_files,
    no_machine_paths,
    reasons_as_in_source,
];

/// Where the table of reasons begins and ends in the README.
const REASONS_BEGIN: &str = "<!-- reasons:begin -->";
const REASONS_END: &str = "<!-- reasons:end -->";

/// A file of the source tree, its path relative to the root.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file is the module `module` (a path without `.rs`) or lies in it.
    fn in_module(&self, module: &str) -> bool {
        self.path
            .strip_prefix(module)
            .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Lines with comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines()
            .map(|(number, line)| (number, line.split_once("//").map_or(line, |(code, _)| code)))
    }

    /// Like [`File::code`], without the items under `#[cfg(test)]`. The end of an item is where rustfmt puts it:
    /// a closing brace as far to the right as the attribute.
    fn code_without_tests(&self) -> Vec<(usize, &str)> {
        let mut kept = Vec::new();
        let mut test_item: Option<String> = None;
        for (number, line) in self.code() {
            match &test_item {
                None => match line.trim_end().strip_suffix("#[cfg(test)]") {
                    Some(indent) => test_item = Some(format!("{indent}}}")),
                    None => kept.push((number, line)),
                },
                Some(end) => {
                    let indent = &end[..end.len() - 1];
                    let same_level =
                        line.starts_with(indent) && !line[indent.len()..].starts_with([' ', '}']);
                    if line.starts_with(end.as_str()) || (same_level && line.trim_end().ends_with(';')) {
                        test_item = None;
                    }
                }
            }
        }
        kept
    }
}

/// What stands before and after each place where `word` is an identifier of its own.
fn around_word<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .map(move |(start, _)| (&line[..start], &line[start + word.len()..]))
        .filter(move |(before, after)| !before.ends_with(part_of_name) && !after.starts_with(part_of_name))
}

fn has_word(line: &str, word: &str) -> bool {
    around_word(line, word).next().is_some()
}

/// Whether the crate `name` is named in `line`: in a path, or to be used under another name.
fn names_crate(line: &str, name: &str) -> bool {
    around_word(line, name).any(|(before, after)| after.starts_with("::") || before.ends_with("use "))
}

fn aya_only_in_dataplane(file: &File) -> Vec<Finding> {
    let has_leave = ["sip-filter/src/dataplane", "xtask/bench/src/kernel"];
    if !file.is_rust() || has_leave.into_iter().any(|module| file.in_module(module)) {
        return Vec::new();
    }
    let named = |line: &str| {
        ["aya", "aya_log", "aya_obj"]
            .into_iter()
            .find(|name| names_crate(line, name))
    };
    let finding = |name| {
        format!("`{name}` may be named in sip-filter/src/dataplane and xtask/bench/src/kernel.rs only")
    };
    file.code()
        .filter_map(|(number, line)| Some((number, finding(named(line)?))))
        .collect()
}

fn packet_memory_in_one_module(file: &File) -> Vec<Finding> {
    let has_leave = ["sip-filter-ebpf/src/packet", "sip-filter-ebpf/src/bench/packet"];
    let applies = file.path.starts_with("sip-filter-ebpf/src/");
    if !applies || has_leave.into_iter().any(|module| file.in_module(module)) {
        return Vec::new();
    }
    let finding =
        "packet memory (`data_end`) may be touched in sip-filter-ebpf/src/packet.rs and bench/packet.rs only";
    file.code()
        .filter(|(_, line)| has_word(line, "data_end"))
        .map(|(number, _)| (number, finding.to_owned()))
        .collect()
}

fn common_without_std(file: &File) -> Vec<Finding> {
    let tests = file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
    if !file.path.starts_with("sip-filter-common/src/") || !file.is_rust() || tests {
        return Vec::new();
    }
    file.code_without_tests()
        .into_iter()
        .filter(|(_, line)| has_word(line, "std"))
        .map(|(number, _)| {
            (
                number,
                "sip-filter-common runs in the kernel: no `std` outside tests".to_owned(),
            )
        })
        .collect()
}

fn no_allow(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    let allows = |line: &str| {
        ["#[", "#![", "cfg_attr("].iter().any(|attribute| {
            line.split_once(attribute).is_some_and(|(_, rest)| {
                rest.starts_with("allow(") || (attribute.len() > 3 && has_word(rest, "allow"))
            })
        })
    };
    file.code()
        .filter(|(_, line)| allows(line))
        .map(|(number, _)| (number, "mend it, or `#[expect(…, reason = \"…\")]` it".to_owned()))
        .collect()
}

fn short_files(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    if !file.is_rust() || lines <= MAX_LINES {
        return Vec::new();
    }
    vec![(
        lines,
        format!("{lines} lines, more than {MAX_LINES}: find the second idea and move it out"),
    )]
}

fn no_machine_paths(file: &File) -> Vec<Finding> {
    // Put together here, lest this file break its own rule.
    let paths = ["work", "root"].map(|dir| format!("/{dir}/"));
    let named = |line: &str| {
        paths.iter().find(|path| {
            line.match_indices(path.as_str()).any(|(start, _)| {
                !line[..start].ends_with(|c: char| c.is_alphanumeric() || "._-/}*".contains(c))
            })
        })
    };
    let finding = |path: &String| format!("`{path}` is a path of somebody's machine");
    file.lines()
        .filter_map(|(number, line)| Some((number, finding(named(line)?))))
        .collect()
}

/// The table of reasons, line by line, as the README has to have it.
fn reasons_table() -> Vec<String> {
    let mut table = vec![
        "| No. | Reason | Meaning |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    table.extend(Reason::ALL.iter().map(|reason| {
        let meaning = reason.describe().replace('|', "\\|");
        format!("| {} | `{}` | {meaning} |", *reason as u8, reason.name())
    }));
    table
}

fn reasons_as_in_source(file: &File) -> Vec<Finding> {
    if file.path != "README.md" {
        return Vec::new();
    }
    let place = |marker| {
        file.lines()
            .find(|(_, line)| *line == marker)
            .map(|(number, _)| number)
    };
    let (Some(begin), Some(end)) = (place(REASONS_BEGIN), place(REASONS_END)) else {
        return vec![(
            1,
            format!("no table of reasons between `{REASONS_BEGIN}` and `{REASONS_END}`"),
        )];
    };
    let mut found = file
        .lines()
        .skip(begin)
        .take_while(|(number, _)| *number < end)
        .filter(|(_, line)| !line.is_empty());
    let mut wanted = reasons_table().into_iter();
    loop {
        let (number, difference) = match (found.next(), wanted.next()) {
            (None, None) => return Vec::new(),
            (Some((_, line)), Some(wanted)) if line == wanted => continue,
            (Some((number, _)), Some(wanted)) => (number, format!("must read `{wanted}`")),
            (Some((number, _)), None) => (number, "is of no reason".to_owned()),
            (None, Some(wanted)) => (end, format!("lacks `{wanted}`")),
        };
        return vec![(
            number,
            format!("the table of reasons differs from sip-filter-common/src/verdict.rs: {difference}"),
        )];
    }
}

/// `cargo xtask tidy`
pub(crate) fn run() -> anyhow::Result<()> {
    let files = source_files()?;
    let mut broken = 0;
    for file in &files {
        for (line, finding) in RULES.iter().flat_map(|rule| rule(file)) {
            println!("{}:{line}: {finding}", file.path);
            broken += 1;
        }
    }
    for (document, (line, finding)) in promises::broken(&files) {
        println!("{document}:{line}: {finding}");
        broken += 1;
    }
    if broken > 0 {
        bail!("{broken} house rule(s) broken");
    }
    println!("house rules kept in {} files", files.len());
    Ok(())
}

/// What git tracks, or would if it were added; binary files left out.
fn source_files() -> anyhow::Result<Vec<File>> {
    let mut git = Command::new("git");
    git.current_dir(workspace())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list =
        output(&mut git).context("`git ls-files` failed: the rules are checked in a git checkout only")?;
    // A file that was removed but is still tracked cannot be read, and need not be.
    let read = |path: &str| {
        fs::read_to_string(workspace().join(path)).ok().map(|text| File {
            path: path.to_owned(),
            text,
        })
    };
    Ok(list.split_terminator('\0').filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: fn(&File) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        rule(&file).into_iter().map(|(line, _)| line).collect()
    }

    // What the rules look for is spelt in capitals below, lest this file break them itself.

    #[test]
    fn aya_outside_the_data_plane_is_found() {
        let text = "use AYA::Ebpf;\n// AYA::Ebpf in a comment\nlet x = AYA_log::init();\nuse AYA as x;\n\
                    AYA_build::x(); papAYA::y(); \"AYA=debug\"\n"
            .replace("AYA", "aya");
        assert_eq!(
            lines(aya_only_in_dataplane, "sip-filter/src/daemon/mod.rs", &text),
            [1, 3, 4]
        );
        assert_eq!(
            lines(aya_only_in_dataplane, "sip-filter/src/dataplane_tools.rs", &text),
            [1, 3, 4]
        );
        assert!(lines(aya_only_in_dataplane, "sip-filter/src/dataplane/load.rs", &text).is_empty());
        assert!(lines(aya_only_in_dataplane, "sip-filter/src/dataplane.rs", &text).is_empty());
        assert!(lines(aya_only_in_dataplane, "xtask/bench/src/kernel.rs", &text).is_empty());
        assert_eq!(
            lines(aya_only_in_dataplane, "xtask/bench/src/rig.rs", &text),
            [1, 3, 4]
        );
        assert!(
            lines(
                aya_only_in_dataplane,
                "sip-filter-ebpf/src/main.rs",
                "use aya_ebpf::macros::xdp;"
            )
            .is_empty()
        );
    }

    #[test]
    fn packet_memory_outside_its_module_is_found() {
        let text = "let end = ctx.data_end();\nlet data_ends = 1;\n";
        assert_eq!(
            lines(packet_memory_in_one_module, "sip-filter-ebpf/src/main.rs", text),
            [1]
        );
        for own in ["packet.rs", "bench/packet.rs"] {
            let path = format!("sip-filter-ebpf/src/{own}");
            assert!(lines(packet_memory_in_one_module, &path, text).is_empty());
        }
        assert_eq!(
            lines(
                packet_memory_in_one_module,
                "sip-filter-ebpf/src/bench/main.rs",
                text
            ),
            [1]
        );
    }

    #[test]
    fn std_in_common_is_found_outside_tests_only() {
        let text = "use std::fmt;\n\
                    #[cfg(test)]\nextern crate std;\n\
                    fn f() -> std::io::Result<()> {}\n\
                    #[cfg(test)]\nmod tests {\n    use std::vec;\n    fn g() {\n    }\n}\n\
                    pub use std::net;\nuse core::mem;\n";
        assert_eq!(
            lines(common_without_std, "sip-filter-common/src/abi.rs", text),
            [1, 4, 11]
        );
        assert!(lines(common_without_std, "sip-filter-common/src/table/tests.rs", text).is_empty());
        assert!(lines(common_without_std, "sip-filter/src/lib.rs", text).is_empty());
    }

    #[test]
    fn a_nested_test_item_ends_where_it_ends() {
        let text = "mod a {\n    #[cfg(test)]\n    fn f() {\n        std::x();\n    }\n    use std::y;\n}\n";
        assert_eq!(lines(common_without_std, "sip-filter-common/src/a.rs", text), [6]);
    }

    #[test]
    fn allow_attributes_are_found() {
        let text = "#[ALLOW(dead_code)]\n#![ALLOW(unused)]\n#[cfg_attr(test, ALLOW(unused))]\n\
                    #[expect(dead_code, reason = \"none\")]\nrules.ALLOW(address);\n"
            .replace("ALLOW", "allow");
        assert_eq!(lines(no_allow, "sip-filter/src/lib.rs", &text), [1, 2, 3]);
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(lines(short_files, "sip-filter/src/lib.rs", &"\n".repeat(600)).is_empty());
        assert_eq!(
            lines(short_files, "sip-filter/src/lib.rs", &"\n".repeat(601)),
            [601]
        );
        assert!(lines(short_files, "docs/long.md", &"\n".repeat(601)).is_empty());
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let text = "cd /WORK/main\n\"/ROOT/.cargo\"\ntarget/WORK/x\nhttps://example.org/ROOT/x\n/workshop/ /rooted\n"
            .replace("WORK", "work")
            .replace("ROOT", "root");
        assert_eq!(lines(no_machine_paths, "README.md", &text), [1, 2]);
    }

    #[test]
    fn a_table_of_reasons_that_differs_from_the_source_is_found() {
        let readme = |rows: &[String]| {
            let mut text = vec!["# x".to_owned(), REASONS_BEGIN.to_owned()];
            text.extend_from_slice(rows);
            text.extend([String::new(), REASONS_END.to_owned()]);
            text.join("\n")
        };
        let check = |text: &str| lines(reasons_as_in_source, "README.md", text);
        let table = reasons_table();
        assert_eq!(table.len(), Reason::ALL.len() + 2);
        assert!(check(&readme(&table)).is_empty());

        let mut reworded = table.clone();
        reworded[3] = reworded[3].replace("IP traffic", "Traffic");
        assert_eq!(check(&readme(&reworded)), [6]);
        let mut missing = table.clone();
        missing.pop();
        assert_eq!(check(&readme(&missing)), [4 + missing.len()], "at the end");
        let mut retired = table.clone();
        retired.push("| 63 | `drop-nothing` | Was here once. |".to_owned());
        assert_eq!(check(&readme(&retired)), [3 + table.len()]);
        assert_eq!(check("# no table\n"), [1]);
        assert!(lines(reasons_as_in_source, "docs/README.md", "").is_empty());
    }
}
