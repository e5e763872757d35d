//! Several experiments as one gate, and what a pipeline is told of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::needs;
use squall_tests::squall::{Background, lines};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{CUT, ECHO, LONG, SOON, calm, document};

/// Puts experiments into a directory of a world; gives its path.
fn suite(world: &World, experiments: &[(&str, String)]) -> String {
    let directory = world.directory.join("suite");
    fs::create_dir(&directory).expect("the world's directory can be written");
    for (name, text) in experiments {
        let title = format!("title: {}", name.trim_end_matches(".yaml"));
        fs::write(directory.join(name), text.replace("title: A test", &title)).expect("it can be written");
    }
    directory.display().to_string()
}

/// The events of each run of a suite, in the order in which they began.
fn runs(events: &str) -> Vec<Vec<Value>> {
    let entries = fs::read_dir(events).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| lines(file)).collect()
}

/// Waits until some run has had an event of a kind.
#[track_caller]
fn event(run: &mut Background, events: &str, kind: &str) {
    holds(kind, PATIENCE, || {
        assert!(!run.ended(), "it ended without `{kind}`: {}", run.story());
        runs(events).iter().flatten().any(|event| event["event"] == kind)
    });
}

/// An experiment that holds within seconds.
fn held() -> String {
    calm(&["wait: 2s"])
}

#[test]
fn a_suite_is_as_bad_as_its_worst_and_tells_the_pipeline_where() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let cut = document(ECHO, &[&CUT.replace("for: 3s", "for: 2s")]);
    let directory = suite(&world, &[("b-holds.yaml", held()), ("a-deviates.yaml", cut)]);
    let path = |name: &str| world.directory.join(name).display().to_string();
    let [junit, quality, history, step, events, pages] =
        ["junit.xml", "quality.json", "history.ndjson", "step.md", "events", "pages"].map(path);
    fs::write(&step, "what an earlier step said\n").expect("it can be written");
    let arguments = [
        "run",
        "--ci",
        &directory,
        "--junit",
        &junit,
        "--code-quality",
        &quality,
        "--history",
        &history,
        "--build",
        "b1",
        "--events",
        &events,
        "--html",
        &pages,
    ];
    let squall = world.hosts[0].squall(&arguments).env("GITHUB_ACTIONS", "true");
    let squall = squall.env("GITHUB_STEP_SUMMARY", &step).env("GITHUB_WORKSPACE", &world.directory);
    let finished = squall.run();
    finished.expect_exit(5);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // In the order of their names, whatever they were made in.
    assert!(
        finished.stdout.contains("  deviated  a-deviates\n")
            && finished.stdout.contains("  held      b-holds\n"),
        "{}",
        finished.story()
    );
    let last = "deviated: 1 of 2 experiments deviated, 1 held (exit 5)\n";
    assert!(finished.stdout.ends_with(last), "{}", finished.story());
    assert!(finished.stdout.contains("resilience score 50 of 100"), "{}", finished.story());
    let annotations: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with("::")).collect();
    let [annotation] = annotations[..] else { panic!("one thing did not hold: {}", finished.story()) };
    assert!(
        annotation.starts_with("::error file=suite/a-deviates.yaml,line=4,title=echo answers::"),
        "{annotation}"
    );
    assert!(finished.stderr.contains("injected (took"), "the log tells what happens: {}", finished.story());
    assert!(!finished.story().contains(['\r', '\u{1b}']), "{}", finished.story());
    let page = read(&step);
    assert!(page.starts_with("what an earlier step said\n## Squall: deviated: 1 of 2"), "{page}");
    let xml = read(&junit);
    assert_eq!(xml.matches("<testsuite ").count(), 2, "{xml}");
    let quality: Value = serde_json::from_str(&read(&quality)).expect("JSON");
    assert_eq!(quality[0]["location"]["path"], "suite/a-deviates.yaml", "{quality:#}");
    let begun = runs(&events);
    assert_eq!(begun.len(), 2);
    assert_eq!(begun[0][0]["title"], "a-deviates");
    // A page for each run, by its name, that only its owner reads.
    for (run, word) in begun.iter().zip(["deviated", "held"]) {
        let page = Path::new(&pages).join(format!("{}.html", run[0]["run"].as_str().expect("a name")));
        let text = read(&page.display().to_string());
        let title = run[0]["title"].as_str().expect("a title");
        assert!(text.ends_with("</html>\n") && text.contains(title) && text.contains(word), "{text}");
        let mode = fs::metadata(&page).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", page.display());
    }
    assert_eq!(fs::read_dir(&pages).expect("a directory").count(), 2);
    let entries = lines(Path::new(&history));
    assert_eq!((entries.len(), &entries[0]["exit"], &entries[1]["build"]), (2, &5.into(), &"b1".into()));

    // The same once more: the history tells since when.
    let holds = format!("{directory}/b-holds.yaml");
    let again = world.hosts[0]
        .squall(&["run", &holds, "--history", &history, "--repeat", "2", "--format", "json"])
        .run();
    let report = again.expect_exit(0).json();
    let story = report["experiments"][0]["story"].as_str().unwrap_or_default();
    assert!(story.starts_with("held twice since ") && story.ends_with("(build b1)"), "{story}");
    let seeds: Vec<&Value> = (0..2).map(|at| &report["experiments"][0]["runs"][at]["seed"]).collect();
    assert_ne!(seeds[0], seeds[1], "{report:#}");
    // What deviated is not in this suite, and is not forgotten.
    assert_eq!(report["score"]["percent"], 50.0, "{report:#}");
}

#[test]
fn an_interruption_ends_the_whole_suite() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let directory = suite(&world, &[("a.yaml", document(ECHO, &[LONG])), ("b.yaml", held())]);
    let events = world.directory.join("events").display().to_string();
    let junit = world.directory.join("junit.xml").display().to_string();
    let arguments = ["run", &directory, "--events", &events, "--junit", &junit];
    let mut run = world.hosts[0].squall(&arguments).start();
    event(&mut run, &events, "measured");
    run.signal(Signal::INT);
    let finished = run.finish();
    finished.expect_exit(6).expect_told("  interrupted  a\n").expect_told("  not run      b\n");
    finished.expect_told("interrupted: 1 of 2 experiments interrupted, 1 not run");
    assert_eq!(runs(&events).len(), 1, "the second must not begin");
    let xml = fs::read_to_string(&junit).expect("the file was asked for");
    assert!(xml.contains("<skipped message=\"not run\">"), "{xml}");
    world.restored(SOON);
}

#[test]
fn a_bad_file_is_found_before_anything_is_done() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let bad = held().replace("wait:", "wiat:");
    let directory =
        suite(&world, &[("a.yaml", held()), ("b.yaml", bad), ("c.yaml", "squall: 1\n".to_owned())]);
    let squall = world.hosts[0].squall(&["run", "--ci", &directory]).env("GITHUB_ACTIONS", "true");
    let finished = squall.env("GITHUB_WORKSPACE", &world.directory).run();
    finished.expect_exit(3).expect_told("suite/b.yaml:8").expect_told("suite/c.yaml");
    finished.expect_told("::error file=suite/b.yaml,line=8,col=");
    assert!(!world.hosts[0].state.join("runs").exists(), "something was run: {}", finished.story());
    world.hosts[0].squall(&["check", &directory]).run().expect_exit(3).expect_told("a.yaml: valid, 1 claim");
    let empty = world.place("empty").display().to_string();
    world.hosts[0].squall(&["run", &empty]).run().expect_exit(3).expect_told("holds no experiment");
}

#[test]
fn experiments_run_at_the_same_time_where_none_wants_what_another_has() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let refuse =
        |port: u16| calm(&[&format!("{{ fault: {{ refuse: {{ to: [\"10.77.1.2:{port}\"] }} }}, for: 2s }}")]);
    let all = [("a.yaml", refuse(7)), ("b.yaml", refuse(7)), ("c.yaml", refuse(8))];
    let directory = suite(&world, &all);
    let events = world.directory.join("events").display().to_string();
    let finished = world.hosts[0].squall(&["run", &directory, "--events", &events, "--parallel", "3"]).run();
    // Nobody calls: what is refused is not measured, and nothing was refused to be done.
    finished.expect_exit(8);
    let runs = runs(&events);
    let order: Vec<&str> = runs.iter().filter_map(|run| run[0]["title"].as_str()).collect();
    assert_eq!(order, ["a", "c", "b"], "the second waits for the first: {}", finished.story());
    assert!(finished.stderr.contains("[c] experiment 3 of 3: c"), "{}", finished.story());
    let report = finished.stdout.find("  a\n").zip(finished.stdout.find("  b\n"));
    assert!(report.is_some_and(|(a, b)| a < b), "reported in their order: {}", finished.story());
}
