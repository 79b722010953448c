//! Tests that documents name as the proof of a promise exist.

use std::collections::BTreeSet;

use super::{File, Finding};

/// The documents that promise.
const DOCUMENTS: [&str; 2] = ["SECURITY.md", "docs/reliability.md"];

/// What looks like the name of a test and is none.
const NO_TESTS: [&str; 2] = ["no_new_privs", "bpf_prog_test_run"];

/// Names of tests in these documents that no test has, with the document.
pub(super) fn broken(files: &[File]) -> Vec<(&'static str, Finding)> {
    let tests: BTreeSet<&str> = files
        .iter()
        .filter(|file| file.is_rust())
        .flat_map(tests)
        .collect();
    let mut findings = Vec::new();
    for document in DOCUMENTS {
        let Some(file) = files.iter().find(|file| file.path == document) else {
            findings.push((document, (1, "is missing".to_owned())));
            continue;
        };
        for (line, text) in file.lines() {
            let missing = named(text).filter(|name| !tests.contains(name));
            findings.extend(missing.map(|name| (document, (line, format!("there is no test `{name}`")))));
        }
    }
    findings
}

/// What stands in backticks and is the name of a test: words joined by underscores, perhaps after a path of modules.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| {
        let name = text.rsplit("::").next()?;
        let is_path = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:".contains(&b));
        let is_sentence = name.matches('_').count() >= 2 && !name.starts_with("sip_filter_");
        (is_path && is_sentence && !NO_TESTS.contains(&name)).then_some(name)
    })
}

/// Functions under an attribute that makes them tests.
fn tests(file: &File) -> Vec<&str> {
    let mut is_test = false;
    let mut found = Vec::new();
    for (_, line) in file.code() {
        let line = line.trim();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && let Some((name, _)) = rest.split_once(['(', '<'])
            && std::mem::take(&mut is_test)
        {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn only_tests_that_exist_can_be_named() {
        let source = "#[test]\nfn bans_hold_for_good() {}\nfn helps_the_tests(a: u8) {}\n\
                      #[tokio::test(flavor = \"current_thread\")]\n#[ignore]\nasync fn it_goes_on_forever() {}\n\
                      // #[test]\nfn is_commented_out() {}\n";
        let document = "| It holds | `bans_hold_for_good`, `live::it_goes_on_forever` |\n\
                        `helps_the_tests` and `is_commented_out`\n`bans_hold_for_godo`\n\
                        `socket_group`, `sip_filter_drift_entries_total`, `no_new_privs`, `a_b_c.rs`, bans_are_told\n";
        let files = [
            file("sip-filter/src/a.rs", source),
            file("SECURITY.md", document),
            file("docs/reliability.md", ""),
        ];
        let lines: Vec<(&str, usize)> = broken(&files)
            .iter()
            .map(|(path, (line, _))| (*path, *line))
            .collect();
        assert_eq!(
            lines,
            [("SECURITY.md", 2), ("SECURITY.md", 2), ("SECURITY.md", 3)]
        );
    }

    #[test]
    fn a_document_that_went_away_is_missed() {
        assert_eq!(broken(&[file("SECURITY.md", "")]).len(), 1);
    }
}
