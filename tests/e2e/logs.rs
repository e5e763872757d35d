//! Logs for whoever collects them: each line that controller and agent write is one JSON object, whatever happens to them.

use rustix::process::Signal;
use serde_json::{Map, Value};
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::serve::{Fleet, Manner, URL};
use crate::trial::SOON;

/// The lines of a log, each of which must be an object with a time, a level and a message.
fn objects(log: &str) -> Vec<Map<String, Value>> {
    let object = |line: &str| -> Map<String, Value> {
        let object = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: `{line}` of\n{log}"));
        for name in ["timestamp", "level", "message"] {
            let there = |object: &Map<String, Value>| object.get(name).is_some_and(Value::is_string);
            assert!(there(&object), "no `{name}`: {line}");
        }
        object
    };
    log.lines().map(object).collect()
}

fn says(log: &[Map<String, Value>], words: &str, member: &str, value: &str) -> bool {
    let meant =
        |line: &&Map<String, Value>| line["message"].as_str().is_some_and(|said| said.contains(words));
    log.iter().filter(meant).any(|line| line.get(member).is_some_and(|said| said == value))
}

#[test]
fn every_line_of_a_controller_and_its_agents_is_one_json_object_without_secrets() {
    needs!(Root, Nftables, Queue, Nginx);
    let json = || vec!["--log-format".to_owned(), "json".to_owned()];
    let environment = vec![("SQUALL_LOG", "debug".to_owned())];
    let manner = Manner { controller: json(), agents: json(), environment, ..Manner::default() };
    let mut fleet = Fleet::like(1, manner);
    let secret = "hunter2-and-more";
    fleet.world.place("data/secrets");
    fleet.world.file("data/secrets/shop", secret);
    let document = fleet.world.file(
        "secret.yaml",
        "squall: 1\ntitle: A page\non: { pick: all }\nhypothesis:\n  - name: the page is there\n    \
         http: { url: \"http://127.0.0.1:8080/?${secret:shop}\", timeout: 2s }\n    every: 100ms\nmethod:\n  \
         - fault: { latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] } }\n    for: 1s\n",
    );
    fleet.asks(&["run", &document, "--controller", URL]).run().expect_exit(0);
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let run = runs["runs"][0]["id"].as_str().expect("a run").to_owned();

    // What is said when something is not there, too.
    let mut controller = fleet.controller.take().expect("it was started");
    controller.signal(Signal::TERM);
    holds("the controller to end", PATIENCE, || controller.ended());
    let lost = || fleet.linked[0].stderr().lines().any(|line| line.contains("\"WARN\""));
    holds("the agent to say that it is cut off", PATIENCE, lost);
    let first = controller.stderr();
    fleet.serve();
    fleet.holds_connected();

    let (controller, agent) = (objects(&first), objects(&fleet.linked[0].stderr()));
    assert!(says(&controller, "a run begins", "run", &run), "{first}");
    assert!(says(&controller, "held", "run", &run), "{first}");
    for what in ["has joined", "is connected"] {
        assert!(says(&controller, what, "host", "web-1"), "`{what}`: {first}");
        assert!(says(&agent, what, "host", "web-1"), "`{what}`: {}", fleet.linked[0].stderr());
    }
    let token = std::fs::read_to_string(fleet.data.join("admin-token")).expect("it was written");
    let join = std::fs::read_to_string(fleet.world.directory.join("token-web-1")).expect("it was written");
    for hidden in [secret, token.trim(), join.trim()] {
        for log in [&first, &fleet.linked[0].stderr()] {
            assert!(!hidden.is_empty() && !log.contains(hidden), "`{hidden}` stands in {log}");
        }
    }
    fleet.end();
}

#[test]
fn why_nothing_begins_is_one_json_object_too() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    let config = world.file("controller.yaml", "schedules: 7\nbudgett: {}\n");
    let data = world.place("data").display().to_string();
    let serve = ["serve", "--data", &data, "--config", &config, "--log-format", "json"];
    let refused = host.squall(&serve).run();
    let said = objects(&refused.expect_exit(4).stderr);
    assert!(
        said.iter().any(|line| line["level"] == "ERROR"
            && line["message"].as_str().is_some_and(|said| said.contains("budget"))),
        "{}",
        refused.story()
    );
    let refused = host.agent(&["run", "--controller", "https://10.77.0.9", "--log-format", "json"]).run();
    let said = objects(&refused.expect_exit(4).stderr);
    let last = said.last().expect("it says why");
    assert_eq!(last["level"], "ERROR");
    assert!(last["help"].as_str().is_some_and(|help| help.contains("--join-file")), "{}", refused.story());
    world.restored(SOON);
}
