//! Where a system gives way: one parameter harder from run to run. The shipped ramp finds it on a host (`shipped`).

use squall_tests::needs;
use squall_tests::world::World;

use crate::serve::{Fleet, URL};

/// Every host asks itself for the page, and waits so long for it. A request on a new connection takes two round trips.
const TEXT: &str = "squall: 1
title: A page of every host
on: { labels: { role: web } }
hypothesis:
  - name: the page is there
    http: { url: \"http://127.0.0.1:8080/\", timeout: 1200ms }
    every: 100ms
method:
  - fault: { latency: { delay: 1ms, to: [\"127.0.0.1:8080\"] } }
    for: 3s
ramp: { parameter: latency.delay, levels: [2s, 2500ms, 3s] }
recovery: 15s
";

#[test]
fn a_ramp_over_a_fleet_is_a_run_of_the_controller_for_each_step() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(1);
    let file = fleet.world.file("ramp.yaml", TEXT);
    let climbed = fleet.asks(&["run", &file, "--controller", URL]).run();
    let found = "`latency.delay` deviated at 2s already, the mildest that was to be tried";
    climbed.expect_exit(5).expect_told(found);
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let states: Vec<&str> =
        runs["runs"].as_array().into_iter().flatten().filter_map(|run| run["state"].as_str()).collect();
    assert_eq!(states, ["deviated"], "nothing harder was tried: {runs:#}");
    // The report is made again from the events that the controller keeps.
    let steps = fleet.world.place("steps");
    let run = runs["runs"][0]["id"].as_str().expect("a name");
    let events = fleet.asks(&["show", run, "--events"]).run().expect_exit(0).stdout.clone();
    std::fs::write(steps.join(format!("{run}.ndjson")), events).expect("it can be written");
    let again = fleet.controller().squall(&["verdict", &steps.display().to_string()]).run();
    again.expect_exit(5).expect_told(found);
    // Whoever submits it by other ways is told what it is.
    let submitted = fleet.asks(&["plan", &file, "--submit"]).run();
    submitted.expect_exit(4).expect_told("this experiment is a ramp of `latency.delay`");
    fleet.end();
}

#[test]
fn one_step_is_the_file_with_its_value_and_a_ramp_runs_alone() {
    needs!(Root);
    let world = World::new(1);
    let host = &world.hosts[0];
    let file = world.file("ramp.yaml", TEXT.replace("on: { labels: { role: web } }\n", ""));
    let with = |verb: &str, more: &[&str]| host.squall(&[&[verb, &file], more].concat()).run();
    with("check", &[]).expect_exit(0).expect_told("a ramp of at most 3 steps");
    with("plan", &["--var", "latency.delay=2200ms"]).expect_exit(0).expect_told("delay by 2s200ms");
    with("plan", &["--var", "latency.delay=9s"]).expect_exit(3).expect_told("does not lie between");
    with("run", &["--repeat", "2"]).expect_exit(2).expect_told("a sequence of runs of its own");
}
