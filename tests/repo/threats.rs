//! The threat model's tables: each row names tests, and these are there.

use std::collections::BTreeSet;

use super::{read, root, sources};

/// The threats that a controller of a fleet must have an answer to, each with words of its row.
const NAMED: [&str; 6] = [
    "a stolen viewer token",
    "a compromised controller",
    "a compromised host",
    "a malicious experiment file",
    "replayed or reordered frames",
    "a hostile web page",
];

/// The rows of every table whose last column names tests, without its two first lines.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut names_tests = false;
    for line in page.lines() {
        let Some(cells) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
            names_tests = false;
            continue;
        };
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        match cells.last() {
            Some(&("test" | "tested by")) => names_tests = true,
            Some(last) if names_tests && !last.starts_with("--") => rows.push(cells),
            _ => {}
        }
    }
    rows
}

/// Every function of the sources that is a test.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in sources() {
        let text = read(&path);
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            match line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
                Some(rest) if is_test => {
                    found.insert(rest.split(['(', '<']).next().unwrap_or_default().to_owned());
                    is_test = false;
                }
                _ => {
                    is_test = line.starts_with("#[test]")
                        || line.starts_with("#[tokio::test")
                        || is_test && line.starts_with('#')
                }
            }
        }
    }
    found
}

#[test]
fn every_threat_has_a_test_that_is_there() {
    let page = read("docs/security.md");
    let (rows, tests) = (rows(&page), tests());
    assert!(
        rows.len() > 25 && tests.len() > 500,
        "{} rows, {} tests: this looks in the wrong place",
        rows.len(),
        tests.len()
    );
    let mut wrong = Vec::new();
    for row in &rows {
        let [threat, .., named] = &row[..] else { panic!("a row of one cell: {row:?}") };
        let names: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            wrong.push(format!("{threat}: no test is named"));
        }
        for name in names {
            let there = if name.contains('/') { root().join(name).exists() } else { tests.contains(name) };
            if !there {
                wrong.push(format!("{threat}: there is no test `{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/security.md: {wrong:#?}");
    for threat in NAMED {
        assert!(rows.iter().any(|row| row[0] == threat), "docs/security.md says nothing of {threat}");
    }
}
