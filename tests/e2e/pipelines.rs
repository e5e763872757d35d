//! What pipelines are given to run, run: the commands of the action for GitHub and of the job for GitLab, read from their files.

use std::fs;
use std::path::Path;

use granit_parser::{Event, Parser};
use serde_json::{Map, Value};
use squall_tests::needs;
use squall_tests::squall::{Finished, Squall, binary};
use squall_tests::world::World;

use crate::trial::{CUT, ECHO, calm, document};

/// A file of the repository, as JSON would say it. Every scalar is a text.
pub fn yaml(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    let mut root = Value::Null;
    for event in Parser::new_from_str(&text) {
        let (event, _) = event.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let done = match event {
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::SequenceStart(..) => {
                open.push((Value::Array(Vec::new()), None));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((Value::Object(Map::new()), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().expect("it was begun").0,
            _ => continue,
        };
        match open.last_mut() {
            None => root = done,
            Some((Value::Array(items), _)) => items.push(done),
            Some((Value::Object(map), key)) => match key.take() {
                Some(key) => drop(map.insert(key, done)),
                None => *key = done.as_str().map(str::to_owned),
            },
            Some(_) => unreachable!("only lists and maps are opened"),
        }
    }
    root
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value:#}"))
}

/// Runs a script on the first host as a runner does: in the checkout, with `squall` on the path.
fn script(world: &World, program: &[&str], script: &str, variables: &[(&str, String)]) -> Finished {
    let host = &world.hosts[0];
    let mut command = host.netns.command(program[0]);
    command.args(&program[1..]).arg(script).current_dir(&world.directory);
    let mut squall = Squall::with(command, script, &world.directory);
    let own = binary("squall").parent().expect("it stands in a directory").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    squall = squall.env("PATH", format!("{own}:{path}")).env("SQUALL_STATE_DIR", &host.state);
    for (name, value) in variables {
        squall = squall.env(name, value);
    }
    squall.run()
}

/// Two experiments in a checkout: one holds, one deviates.
fn checkout(world: &World) {
    let directory = world.directory.join("chaos");
    fs::create_dir(&directory).expect("the world's directory can be written");
    let cut = document(ECHO, &[&CUT.replace("for: 3s", "for: 2s")]);
    for (name, text) in [("deviates", cut), ("holds", calm(&["wait: 2s"]))] {
        let text = text.replace("title: A test", &format!("title: {name}"));
        fs::write(directory.join(format!("{name}.yaml")), text).expect("it can be written");
    }
}

#[test]
fn the_action_for_github_runs() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    checkout(&world);
    let action = yaml(".github/actions/squall/action.yml");
    let step = world.file("step.md", "");
    let steps = action["runs"]["steps"].as_array().expect("a list");
    assert_eq!(steps.len(), 2);
    let mut last = None;
    for one in steps {
        assert_eq!(text(&one["shell"]), "bash");
        let mut variables = vec![
            ("GITHUB_ACTIONS", "true".to_owned()),
            ("GITHUB_ACTION_PATH", "/nonexistent".to_owned()),
            ("GITHUB_WORKSPACE", world.directory.display().to_string()),
            ("GITHUB_STEP_SUMMARY", step.clone()),
        ];
        for (name, value) in one["env"].as_object().into_iter().flatten() {
            let value = text(value);
            let input = value.strip_prefix("${{ inputs.").and_then(|rest| rest.strip_suffix(" }}"));
            let value = match input.unwrap_or_else(|| panic!("`{value}` is not an input")) {
                "arguments" => "--history history.ndjson",
                input => text(&action["inputs"][input]["default"]),
            };
            variables.push((name, value.to_owned()));
        }
        assert!(last.is_none_or(|last: Finished| last.status.success()), "a step that fails ends the job");
        // The runner's own way to call a script of the shell `bash`.
        let program = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c"];
        last = Some(script(&world, &program, text(&one["run"]), &variables));
    }
    let finished = last.expect("there are steps");
    finished.expect_exit(5).expect_told("::error file=chaos/deviates.yaml,line=4,title=echo answers::");
    assert!(fs::read_to_string(&step).expect("it is there").contains("1 of 2 experiments deviated"));
    let results = world.directory.join("squall-results");
    for name in ["junit.xml", "report.md"] {
        assert!(fs::read_to_string(results.join(name)).expect(name).contains("deviated"), "{name}");
    }
    assert_eq!(fs::read_dir(results.join("events")).expect("a directory").count(), 2);
    assert_eq!(squall_tests::squall::lines(&world.directory.join("history.ndjson")).len(), 2);
}

#[test]
fn the_job_for_gitlab_runs() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    checkout(&world);
    let job = yaml("docs/ci/gitlab.yml")["squall"].clone();
    let mut variables = vec![
        ("GITLAB_CI", "true".to_owned()),
        ("CI_PROJECT_DIR", world.directory.display().to_string()),
        ("CI_COMMIT_SHA", "4fed8650123456789".to_owned()),
    ];
    for (name, value) in job["variables"].as_object().expect("a map") {
        variables.push((name, text(value).to_owned()));
    }
    // The runner makes one script of all lines.
    let lines: Vec<&str> = job["script"].as_array().expect("a list").iter().map(text).collect();
    let finished = script(&world, &["sh", "-e", "-c"], &lines.join("\n"), &variables);
    finished.expect_exit(5).expect_told("  deviated  deviates\n");
    assert!(!finished.story().contains("::error"), "{}", finished.story());
    let report = |kind: &str| {
        let path = world.directory.join(text(&job["artifacts"]["reports"][kind]));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    assert!(report("junit").contains("<failure"));
    let quality: Value = serde_json::from_str(&report("codequality")).expect("JSON");
    assert_eq!(quality[0]["location"]["path"], "chaos/deviates.yaml", "{quality:#}");
}
