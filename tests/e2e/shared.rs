//! What two controllers on one database do for each other: halts of the other's hosts, and a game day of one that is gone.

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds, until};

use crate::twins::Twins;

/// An experiment over all hosts that a controller has.
fn slow(twins: &Twins, name: &str, lasts: &str) -> String {
    twins.world.file(
        name,
        format!(
            "squall: 1\ntitle: A slow page\non: {{ labels: {{ role: web }} }}\nhypothesis:\n  - name: the page is there\n    \
             http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\nmethod:\n  \
             - fault: {{ latency: {{ delay: 20ms, to: [\"127.0.0.1:8080\"] }} }}\n    for: {lasts}\nrecovery: 20s\n"
        ),
    )
}

const LISTENING: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'squall listens'";

#[test]
fn a_host_is_halted_by_whichever_controller_is_asked_also_where_they_do_not_hear_each_other() {
    needs!(Root, Nftables, Queue, Nginx, Postgres);
    let twins = Twins::new();
    let file = slow(&twins, "slow.yaml", "80s");
    let (asked, has) = (Twins::url(0), Twins::url(1));
    holds("both of them to listen", PATIENCE, || twins.query(LISTENING) == "2");
    for deaf in [false, true] {
        if deaf {
            // Who is connected stays; nobody else comes in.
            twins.query("ALTER DATABASE fleet ALLOW_CONNECTIONS false");
            twins.query("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'squall listens'");
            holds("nobody to listen", PATIENCE, || twins.query(LISTENING) == "0");
        }
        let followed = twins.asks(1, &["run", &file, "--controller", &has]).start();
        holds("the fault", PATIENCE, || !twins.world.hosts[2].tables().is_empty());
        let halt = twins.asks(0, &["halt", "--controller", &asked, "--host", "web-2"]).run();
        halt.expect_exit(0).expect_told("web-2: undone");
        assert!(twins.world.hosts[2].tables().is_empty(), "{}", halt.story());
        followed.finish().expect_exit(6);
    }
    // One that nobody has is not said to be halted; one of its own is not asked for elsewhere.
    let nobody = twins.asks(0, &["halt", "--controller", &asked, "--host", "web-3", "--host", "web-1"]).run();
    nobody.expect_exit(4).expect_told("web-3: not reached").expect_told("no controller on this database");
    assert!(!nobody.stdout.contains("web-1: not reached"), "{}", nobody.story());
    twins.query("ALTER DATABASE fleet ALLOW_CONNECTIONS true");
    holds("both of them to listen again", PATIENCE, || twins.query(LISTENING) == "2");
    twins.end();
}

const DAY: &str = "gameday: 1
name: drill
title: The page is slow
steps:
  - { name: slow, experiment: long.yaml }
  - { name: short, experiment: short.yaml }
";

/// The day, as one of them shows it.
fn shown(twins: &Twins, at: usize) -> Option<Value> {
    let shown = twins.asks(at, &["gameday", "show", "drill", "--format", "json"]).run();
    (shown.status.code() == Some(0)).then(|| shown.json())
}

/// The day, as soon as a step is in a state.
fn when(twins: &Twins, at: usize, step: usize, state: &str) -> Value {
    until(&format!("step {step} to be {state}"), PATIENCE * 4, || {
        shown(twins, at).filter(|shown| shown["course"]["steps"][step]["state"] == state)
    })
}

/// The attempts of a step, once the last of so many injects.
fn injects(twins: &Twins, at: usize, step: usize, attempts: usize) -> Vec<Value> {
    until(&format!("fault {attempts} of step {step}"), PATIENCE * 2, || {
        let shown = shown(twins, at)?;
        let all = shown["course"]["steps"][step]["attempts"].as_array()?.clone();
        assert!(all.len() <= attempts, "{shown}");
        (all.len() == attempts && all[attempts - 1]["fault_began"].is_u64()).then_some(all)
    })
}

/// The runs of the day, each with the hosts that it was injected on, in their order.
fn runs(twins: &Twins, at: usize) -> Vec<(String, Vec<String>)> {
    let runs = twins.asks(at, &["runs", "--format", "json"]).run().expect_exit(0).json();
    let runs = runs["runs"].as_array().expect("runs").clone();
    assert!(
        runs.iter().all(|run| run["by"].as_str().is_some_and(|by| by.starts_with("gameday:"))),
        "{runs:#?}"
    );
    let injected = |run: &Value| {
        let id = run["id"].as_str().expect("an id").to_owned();
        let events = twins.asks(at, &["show", &id, "--events"]).run().expect_exit(0).stdout.clone();
        let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let hosts = events.filter(|event| event["event"] == "injected");
        let mut hosts: Vec<String> = hosts.map(|event| event["host"].to_string()).collect();
        hosts.sort();
        (id, hosts)
    };
    runs.iter().rev().map(injected).collect()
}

#[test]
fn a_game_day_is_driven_on_by_another_controller_and_nothing_of_it_begins_twice() {
    needs!(Root, Nftables, Queue, Nginx, Postgres);
    let mut twins = Twins::new();
    slow(&twins, "long.yaml", "80s");
    slow(&twins, "short.yaml", "2s");
    let file = twins.world.file("day.yaml", DAY);
    let followed = twins.asks(0, &["gameday", "run", &file]).start();
    when(&twins, 1, 0, "asked");
    twins.asks(1, &["gameday", "go", "drill", "slow"]).run().expect_exit(0);
    injects(&twins, 1, 0, 1);

    // It dies in the middle of the step; whoever followed it there is not told that the day is over.
    twins.dies(0);
    let asked = when(&twins, 1, 0, "asked");
    let why = asked["course"]["steps"][0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("the controller ended in the middle of it"), "{asked}");
    assert_eq!(runs(&twins, 1).len(), 1, "nobody has said go to a second one");
    drop(followed);

    // The other one drives it on, over both hosts, which have come to it.
    holds("both hosts on the other one", PATIENCE * 2, || twins.has(1) == 2);
    twins.asks(1, &["gameday", "go", "drill", "slow"]).run().expect_exit(0);
    injects(&twins, 1, 0, 2);

    // It hangs in the middle of its run: the first, which is back, drives the day on. When it goes on it has lost the day.
    twins.serves(0);
    twins.controllers[1].as_mut().expect("it was started").signal(Signal::STOP);
    let asked = when(&twins, 0, 0, "asked");
    assert_eq!(asked["course"]["steps"][0]["attempts"].as_array().map(Vec::len), Some(2), "{asked}");
    twins.asks(0, &["gameday", "no-go", "drill", "slow", "--reason", "twice is enough"]).run().expect_exit(0);
    when(&twins, 0, 1, "asked");
    holds("both hosts on the first one", PATIENCE * 2, || twins.has(0) == 2);
    twins.asks(0, &["gameday", "go", "drill", "short"]).run().expect_exit(0);
    twins.controllers[1].as_mut().expect("it was started").signal(Signal::CONT);
    holds("the other one to know", PATIENCE * 2, || {
        let other = twins.controllers[1].as_ref().expect("it was started").story();
        other.contains("another controller carries the game day on")
    });
    let over =
        until("the day to end", PATIENCE * 4, || shown(&twins, 0).filter(|day| day["state"] == "ended"));
    assert_eq!(over["figures"]["steps"][1]["exit"], 0, "{over}");

    let known = |at: usize| -> Vec<String> {
        let attempts = over["course"]["steps"][at]["attempts"].as_array().expect("attempts");
        attempts.iter().map(|attempt| attempt["run"].as_str().expect("a run").to_owned()).collect()
    };
    let runs = runs(&twins, 0);
    let names: Vec<String> = runs.iter().map(|(run, _)| run.clone()).collect();
    assert_eq!(names, [known(0), known(1)].concat(), "each run is in the record, and there is no other");
    let hosts: Vec<usize> = runs.iter().map(|(_, hosts)| hosts.len()).collect();
    assert_eq!(hosts, [1, 2, 2], "on each host once: {runs:?}");
    twins.asks(1, &["audit", "verify"]).run().expect_exit(0);
    twins.end();
}
