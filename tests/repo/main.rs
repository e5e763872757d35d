//! The repository itself: what it says of its own files is true.

mod stopping;
mod threats;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use squall_tests::squall::binary;

/// The longest that a source file may be, in lines. From 300 on ask whether it is one thing.
const LONGEST: usize = 500;
/// Names that say nothing about what a file holds.
const DUMPS: [&str; 4] = ["util", "utils", "helpers", "common"];
/// The only place where `unsafe` may stand.
const UNSAFE: &str = "agent/src/host/sys";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the workspace").to_owned()
}

/// The paths of all files below a directory that end in a suffix, relative to the repository.
fn files(directory: &str, suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                let relative = path.strip_prefix(root()).expect("it is below the root");
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no `*{suffix}` below `{directory}`: this test looks in the wrong place");
    found
}

fn sources() -> Vec<String> {
    ["agent", "controller", "experiments", "tests"].iter().flat_map(|member| files(member, ".rs")).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("`{path}`: {error}"))
}

/// Runs `squall` with a state directory that nobody else has, and without a terminal.
fn squall(arguments: &[&str]) -> Output {
    let state = std::env::temp_dir().join(format!("squall-repo-{}", std::process::id()));
    let mut command = Command::new(binary("squall"));
    command
        .args(arguments)
        .env("SQUALL_STATE_DIR", state)
        .stdin(std::process::Stdio::null())
        .current_dir(root());
    command.output().expect("squall can be run")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter_map(|path| {
            let lines = read(&path).lines().count();
            (lines > LONGEST).then(|| format!("{path}: {lines} lines"))
        })
        .collect();
    assert!(long.is_empty(), "split by nouns: {long:#?}");
}

#[test]
fn no_file_is_named_for_nothing() {
    let dumps: Vec<String> = sources()
        .into_iter()
        .filter(|path| {
            let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
            parts.iter().any(|part| DUMPS.contains(part) || *part == "misc")
        })
        .collect();
    assert!(dumps.is_empty(), "name the concept or inline it: {dumps:#?}");
}

#[test]
fn unsafe_stands_in_one_place() {
    let word = concat!("un", "safe");
    let mut outside = Vec::new();
    let mut inside = 0;
    for path in sources() {
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = code.contains(&format!("{word} {{"))
                || ["fn", "impl", "trait", "extern"]
                    .iter()
                    .any(|item| code.contains(&format!("{word} {item}")));
            let allows = code.contains(&format!("{word}_code"));
            if path.starts_with(UNSAFE) {
                inside += usize::from(opens);
            } else if opens || allows {
                outside.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    // The line by which a module of the agent allows it to its own file is the one exception.
    outside.retain(|line| {
        !(line.starts_with("agent/src/host/mod.rs") && line.contains(&format!("{word}_code")))
    });
    assert!(outside.is_empty(), "system calls stand in `{UNSAFE}`: {outside:#?}");
    assert!(inside > 0, "there is none in `{UNSAFE}` either: this test looks for the wrong thing");
}

/// The members that a member's manifest names.
fn needs(member: &str) -> BTreeSet<String> {
    let manifest = read(&format!("{member}/Cargo.toml"));
    let names = manifest.lines().filter_map(|line| line.strip_prefix("squall-"));
    names.filter_map(|rest| Some(rest.split(['.', ' ', '=']).next()?.to_owned())).collect()
}

#[test]
fn dependencies_point_one_way() {
    assert_eq!(needs("experiments"), BTreeSet::new(), "the model needs nobody");
    assert_eq!(needs("agent"), BTreeSet::from(["experiments".to_owned()]));
    let controller = needs("controller");
    assert!(
        controller.is_subset(&BTreeSet::from(["agent".to_owned(), "experiments".to_owned()])),
        "{controller:?}"
    );
}

#[test]
fn the_model_does_no_input_and_output() {
    for path in files("experiments/src", ".rs") {
        if path.contains("tests") {
            continue;
        }
        for word in
            ["std::fs", "std::net::Tcp", "std::net::Udp", "std::process::Command", "tokio::", "std::thread"]
        {
            assert!(!read(&path).contains(word), "`{path}` uses `{word}`: the model is pure");
        }
    }
}

#[test]
fn only_the_command_line_knows_the_agent() {
    let strangers: Vec<String> = files("controller/src", ".rs")
        .into_iter()
        .filter(|path| !path.starts_with("controller/src/cli") && path != "controller/src/main.rs")
        .filter(|path| read(path).contains("squall_agent"))
        .collect();
    assert!(strangers.is_empty(), "the controller's library must not use the agent: {strangers:#?}");
}

#[test]
fn nobody_calls_network_tools() {
    for path in files("agent/src", ".rs").into_iter().chain(files("controller/src", ".rs")) {
        // Tests may look with them.
        if path.contains("tests") {
            continue;
        }
        let text = read(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for tool in ["tc", "iptables", "nft", "ip", "ss", "kill", "nsenter", "unshare"] {
            let call = format!("Command::new(\"{tool}\")");
            assert!(!code.contains(&call), "`{path}` calls `{tool}`: use netlink and system calls");
        }
    }
}

#[test]
fn the_changelog_has_a_place_for_what_comes() {
    let text = read("docs/changelog.md");
    let section = text.split("## Unreleased").nth(1).expect("a section `## Unreleased`");
    let section = section.split("\n## ").next().unwrap_or_default();
    assert!(section.trim().len() > 40, "the section `## Unreleased` is empty");
}

#[test]
fn the_faults_page_is_what_the_catalogue_says() {
    let output = squall(&["faults", "--markdown"]);
    assert!(output.status.success(), "{}", said(&output));
    let page = read("docs/faults.md");
    assert_eq!(
        page,
        String::from_utf8_lossy(&output.stdout),
        "docs/faults.md is stale: `squall faults --markdown >docs/faults.md`"
    );
}

#[test]
fn every_shipped_experiment_passes_check_and_is_run_by_a_test() {
    let shipped = files("experiments/shipped", ".yaml");
    let tests = ["tests/e2e/shipped.rs", "tests/e2e/releases.rs", "tests/e2e/gamedays.rs"].map(read).concat()
        + &demo();
    for path in &shipped {
        let check: &[&str] =
            if path.contains("/gamedays/") { &["gameday", "check", path] } else { &["check", path] };
        let output = squall(check);
        assert!(output.status.success(), "{path}: {}", said(&output));
        let name = Path::new(path).file_name().expect("a file has a name").to_string_lossy().into_owned();
        assert!(tests.contains(&name), "no test runs `{name}`");
    }
}

/// The sources of the demo, which embeds the experiments that it runs; `tests/e2e/demo.rs` runs the demo.
fn demo() -> String {
    let files = files("controller/src/cli", ".rs").into_iter();
    files.filter(|path| path.contains("demo")).map(|path| read(&path)).collect()
}

#[test]
fn every_experiment_in_the_pages_passes_check() {
    let mut checked = 0;
    for page in files("docs", ".md").into_iter().chain(["README.md".to_owned()]) {
        for (number, block) in blocks(&read(&page), "yaml").into_iter().enumerate() {
            // A fragment shows a step; only a whole document can be checked.
            if !block.contains("squall: 1") {
                continue;
            }
            let name = format!("squall-page-{}-{number}.yaml", std::process::id());
            let file = std::env::temp_dir().join(name);
            fs::write(&file, &block).expect("the temporary directory can be written");
            let output = squall(&["check", &file.display().to_string()]);
            fs::remove_file(&file).expect("it was just written");
            assert!(output.status.success(), "{page}, block {number}:\n{block}\n{}", said(&output));
            checked += 1;
        }
    }
    assert!(checked > 0, "no page shows a whole experiment: a newcomer has nothing to copy");
}

/// The fenced blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = page.split(fence.as_str()).skip(1);
    parts.filter_map(|rest| Some(rest.split("```").next()?.to_owned())).collect()
}

#[test]
fn every_command_in_the_pages_exists() {
    let verbs = said(&squall(&["--help"]));
    let mut seen = 0;
    for page in files("docs", ".md").into_iter().chain(["README.md".to_owned()]) {
        for block in blocks(&read(&page), "sh") {
            for line in block.lines() {
                let words: Vec<&str> = line.trim_start_matches("$ ").split_whitespace().collect();
                let verb = match &words[..] {
                    ["squall", verb, ..] | ["sudo", "squall", verb, ..] => verb,
                    ["cargo", "run", rest @ ..] => {
                        let at = rest.iter().position(|word| *word == "--");
                        at.and_then(|at| rest.get(at + 1)).expect("`cargo run` is shown with a verb")
                    }
                    ["tests/run", ..] => {
                        assert!(root().join("tests/run").exists());
                        continue;
                    }
                    _ => continue,
                };
                let known = verbs.lines().any(|line| line.split_whitespace().next() == Some(verb));
                assert!(known, "{page} shows `{line}`, and there is no verb `{verb}`");
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "no page shows a command: this test looks for the wrong thing");
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    for page in files("docs", ".md").into_iter().chain(["README.md".to_owned()]) {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let place = root().join(&page).parent().expect("a page stands in a directory").join(path);
            assert!(place.exists(), "{page} links to `{target}`, which is not there");
        }
    }
}
