//! Where a system gives way: one parameter harder from run to run. The shipped ramp finds it on a host (`shipped`).

use serde_json::Value;
use squall_tests::needs;
use squall_tests::squall::Finished;
use squall_tests::wait::{PATIENCE, until};
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
    let steps = fleet.world.directory.join("steps").display().to_string();
    let junit = fleet.world.directory.join("steps.xml");
    let run =
        ["run", &file, "--controller", URL, "--events", &steps, "--junit", &junit.display().to_string()];
    let climbed = fleet.asks(&run).run();
    let found = "`latency.delay` deviated at 2s already, the mildest that was to be tried";
    climbed.expect_exit(5).expect_told(found);
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let states: Vec<&str> =
        runs["runs"].as_array().into_iter().flatten().filter_map(|run| run["state"].as_str()).collect();
    assert_eq!(states, ["deviated"], "nothing harder was tried: {runs:#}");
    // What is written of it is each step on each host, and the report is made again from the events.
    let cases = std::fs::read_to_string(&junit).expect("it was asked for");
    assert!(
        cases.contains("A page of every host on web-1, latency.delay at 2s") && cases.contains("<failure"),
        "{cases}"
    );
    fleet.controller().squall(&["verdict", &steps]).run().expect_exit(5).expect_told(found);
    let run = runs["runs"][0]["id"].as_str().expect("a name");
    let kept = fleet.asks(&["show", run, "--events"]).run().expect_exit(0).stdout.clone();
    let written = std::fs::read_to_string(format!("{steps}/{run}.ndjson")).expect("it was asked for");
    assert_eq!(kept.lines().count(), written.lines().count(), "all that the controller keeps");
    // What a run of a controller does not have is not passed over.
    for (option, value) in [("--repeat", "2"), ("--history", "h.ndjson"), ("--html", "page.html")] {
        let refused = fleet.asks(&["run", &file, "--controller", URL, option, value]).run();
        refused.expect_exit(2).expect_told("is for a run of this host, not for one of a controller");
    }
    // Whoever submits it by other ways is told what it is.
    let submitted = fleet.asks(&["plan", &file, "--submit"]).run();
    submitted.expect_exit(4).expect_told("this experiment is a ramp of `latency.delay`");
    let night = "schedule: 1\nname: night\nwhen: { cron: \"0 0 1 1 *\" }\n";
    let schedules = |more: &str| {
        let night = fleet.world.file("night.yaml", format!("{night}{more}"));
        fleet.asks(&["schedule", "add", &night, "--experiment", &file]).run()
    };
    let refused = schedules("");
    refused.expect_exit(4).expect_told("this experiment is a ramp of `latency.delay`");
    refused.expect_told("of a schedule `vars: { latency.delay: … }`");
    fleet
        .asks(&["schedule", "show", "night"])
        .run()
        .expect_exit(2)
        .expect_told("there is no schedule `night`");
    schedules("vars: { latency.delay: 2200ms }\n").expect_exit(0);
    fleet.end();
}

/// Two hosts, and a search that has three steps where the system is well again after the second: the third lies between the others.
const SEARCHED: &str = "squall: 1
title: A page of every host
on: { labels: { role: web } }
hypothesis:
  - name: the page is there
    http: { url: \"http://127.0.0.1:8080/\", timeout: 2s }
    every: 100ms
method:
  - fault: { latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] } }
    for: 4s
ramp: { parameter: latency.delay, levels: [20ms, 4s], within: 3900ms }
recovery: 15s
";

/// The states of all runs, the oldest first.
fn states(fleet: &Fleet) -> Vec<String> {
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let state = |run: &Value| run["state"].as_str().unwrap_or_default().to_owned();
    runs["runs"].as_array().into_iter().flatten().rev().map(state).collect()
}

#[test]
fn a_step_after_which_one_host_of_two_is_not_well_again_ends_the_ramp() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(2);
    let file = fleet.world.file("ramp.yaml", SEARCHED);
    let search = || fleet.asks(&["run", &file, "--controller", URL, "--format", "json"]);
    // Each event is a line, and so is what all steps come to, the last one.
    let ladder = |told: &Finished| -> Value {
        let mut lines =
            told.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
        lines.next_back().expect("something was told")
    };
    let steps = |ladder: &Value| {
        let step = |step: &Value| (step["verdict"].clone(), step["recovered"].clone());
        ladder["steps"].as_array().into_iter().flatten().map(step).collect::<Vec<_>>()
    };
    // Both hosts are well again after what was too much for them: the search goes on between the two values.
    let found = ladder(search().run().expect_exit(5));
    let came = steps(&found);
    assert_eq!(came.len(), 3, "{found:#}");
    assert_eq!(came[..2], [("held".into(), true.into()), ("deviated".into(), true.into())], "{found:#}");
    assert_eq!(states(&fleet).len(), 3);

    // As before, but while the second step is on, the page of one host goes away, and stays away.
    let second = search().start();
    until("the second step on both hosts", PATIENCE * 4, || {
        let on = || fleet.world.hosts[1..].iter().all(|host| host.tables() == ["table inet squall"]);
        (states(&fleet).len() == 5 && on()).then_some(())
    });
    let host = &fleet.world.hosts[2];
    let gone = "add table inet gone; add chain inet gone in { type filter hook input priority 0 ; }; \
                add rule inet gone in tcp dport 8080 reject with tcp reset";
    host.look(&["nft", gone]);
    let found = second.finish();
    host.look(&["nft", "delete", "table", "inet", "gone"]);
    let found = ladder(found.expect_exit(5));
    let came = steps(&found);
    assert_eq!(came, [("held".into(), true.into()), ("deviated".into(), false.into())], "{found:#}");
    let said = found["sentence"].as_str().unwrap_or_default();
    assert!(said.ends_with("after 4s it did not hold again in time, so nothing more was tried"), "{said}");
    assert_eq!(states(&fleet)[3..], ["held", "deviated"], "nothing was tried between them");
    fleet.are_clean();
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
