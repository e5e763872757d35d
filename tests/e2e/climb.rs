//! Where a system gives way: one parameter harder from run to run. The shipped ramp finds it on a host (`shipped`).

use serde_json::Value;
use squall_tests::needs;
use squall_tests::trial::Trial;
use squall_tests::world::World;

use crate::serve::{Fleet, URL};

/// A request on a new connection takes two round trips: with a delay of more than a second it is not answered in time.
const TEXT: &str = "squall: 1
title: The page comes in time, however far away it is
hypothesis:
  - name: the page comes
    http: { url: \"http://10.77.1.2/\", timeout: 2s }
    expect: { status: 200 }
    every: 100ms
method:
  - name: the page is far away
    fault: { latency: { delay: 1ms, to: [\"10.77.1.2:80\"] } }
    for: 1s
ramp: { parameter: latency.delay, levels: [20ms, 200ms, 1500ms] }
recovery: 15s
";

#[test]
fn one_step_is_the_file_with_its_value_and_a_ramp_runs_alone() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let host = &world.hosts[0];
    let trial = Trial::with(&world, host, TEXT, &["--var", "latency.delay=30ms"]);
    let events = trial.events.clone();
    let report: Value = trial.finish().expect_exit(0).json();
    assert_eq!(report["origin"]["step"]["at"], "30ms", "{report:#}");
    let intent = report["parts"][0]["changes"][0]["what"].as_str().unwrap_or_default();
    assert!(intent.contains("delay by 30ms"), "{intent}");
    assert!(events.is_file());
    let file = world.file("far.yaml", TEXT);
    host.squall(&["run", &file, "--repeat", "2"])
        .run()
        .expect_exit(2)
        .expect_told("a sequence of runs of its own");
    let outside = host.squall(&["run", &file, "--var", "latency.delay=9s"]).run();
    outside.expect_exit(3).expect_told("does not lie between");
    host.squall(&["check", &file]).run().expect_exit(0).expect_told("a ramp of at most 3 steps");
}

#[test]
fn a_ramp_over_a_fleet_is_a_run_of_the_controller_for_each_step() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(2);
    let text = "squall: 1\ntitle: A page of every host\non: { labels: { role: web } }\nhypothesis:\n  - name: the page is there\n    \
                http: { url: \"http://127.0.0.1:8080/\", timeout: 1200ms }\n    every: 100ms\n\
                method:\n  - fault: { latency: { delay: 1ms, to: [\"127.0.0.1:8080\"] } }\n    for: 2s\n\
                ramp: { parameter: latency.delay, levels: [10ms, 2s, 3s] }\nrecovery: 15s\n";
    let file = fleet.world.file("ramp.yaml", text);
    let climbed = fleet.asks(&["run", &file, "--controller", URL]).run();
    climbed.expect_exit(5).expect_told("gives way between 10ms and 2s");
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let states: Vec<&str> = (0..2).filter_map(|at| runs["runs"][at]["state"].as_str()).collect();
    assert_eq!(states, ["deviated", "held"], "{runs:#}");
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(2), "3s was not tried: {runs:#}");
    // The report is made again from the events that the controller keeps.
    let steps = fleet.world.place("steps");
    for run in runs["runs"].as_array().into_iter().flatten() {
        let run = run["id"].as_str().expect("a name");
        let events = fleet.asks(&["show", run, "--events"]).run().expect_exit(0).stdout.clone();
        std::fs::write(steps.join(format!("{run}.ndjson")), events).expect("it can be written");
    }
    let again = fleet.controller().squall(&["verdict", &steps.display().to_string()]).run();
    again.expect_exit(5).expect_told("gives way between 10ms and 2s");
    // Whoever submits it by other ways is told what it is.
    let submitted = fleet.asks(&["plan", &file, "--submit"]).run();
    submitted.expect_exit(4).expect_told("this experiment is a ramp of `latency.delay`");
    fleet.end();
}
