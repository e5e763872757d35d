//! The end of the audit log, as a controller's reports publish it: it stands in all of them, and a log that was cut off or
//! written anew since does not hold it.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use squall_controller::report;
use squall_experiments::muster::{Line, Muster};
use squall_tests::needs;

use crate::serve::Fleet;

const SLOW: &str = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";

#[test]
fn every_report_publishes_the_end_of_the_audit_log_and_another_log_does_not_hold_it() {
    needs!(Root, Nftables, Queue, Nginx);
    let mut fleet = Fleet::new(1);
    fleet.runs(SLOW, "1s").run().expect_exit(0);
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let run = runs["runs"][0]["id"].as_str().expect("a run").to_owned();
    let events = fleet.asks(&["show", &run, "--events"]).run().expect_exit(0).stdout.clone();
    let file = fleet.world.file("run.ndjson", &events);

    // It stands in every report that is made of the events.
    let verdict = |more: &[&str]| {
        let verdict = fleet.controller().squall(&[&["verdict", &file], more].concat()).run();
        verdict.expect_exit(0);
        verdict
    };
    let json = verdict(&["--format", "json"]).json();
    let head = format!(
        "{}:{}",
        json["audit"]["seq"].as_u64().expect("a number"),
        json["audit"]["hash"].as_str().expect("a hash")
    );
    let page = fleet.world.directory.join("page.html").display().to_string();
    verdict(&[]).expect_told(&format!("audit log: {head}"));
    verdict(&["--host", "web-1", "--html", &page]).expect_told(&format!("audit log: {head}"));
    assert_eq!(verdict(&["--host", "web-1", "--format", "json"]).json()["audit"], json["audit"]);
    assert!(fs::read_to_string(&page).expect("a page").contains(&head), "the page of one host has it");
    let lines: Vec<Line> =
        events.lines().map(|line| serde_json::from_str(line).expect("a line of a log")).collect();
    let muster = Muster::of(&lines).expect("a run");
    assert!(report::markdown(&muster.as_suite()).contains(&head), "so has Markdown");
    let report = fleet.world.file("report.json", serde_json::to_string(&json).expect("JSON"));

    // What is decided later does not take it away.
    fleet.asks(&["tokens", "new", "later"]).run().expect_exit(0);
    let hash = head.split_once(':').expect("number and hash").1;
    for published in [["--head", &head], ["--head", hash], ["--report", &file], ["--report", &report]] {
        let verified = fleet.asks(&[&["audit", "verify"], &published[..]].concat()).run();
        verified.expect_exit(0).expect_told("whole: ").expect_told(&format!("{head} is in the log"));
    }
    let entries = fleet.asks(&["audit", "head", "--format", "json"]).run().expect_exit(0).json();
    let entries = entries["seq"].as_u64().expect("a number");

    // Another hash at a place of the log, a place behind its end, and what is no head at all.
    let other = format!("1:{hash}");
    fleet.asks(&["audit", "verify", "--head", &other]).run().expect_exit(4).expect_told("written anew");
    let behind = format!("{}:{hash}", entries + 7);
    fleet.asks(&["audit", "verify", "--head", &behind]).run().expect_exit(4).expect_told("cut off");
    let json =
        fleet.asks(&["audit", "verify", "--head", &behind, "--format", "json"]).run().expect_exit(4).json();
    assert_eq!(
        (&json["published"]["in-chain"], json["whole"].is_null()),
        (&Value::Bool(false), false),
        "{json}"
    );
    fleet.asks(&["audit", "verify", "--head", "7:x"]).run().expect_exit(2).expect_told("is no head");
    let none = fleet.world.file("none.ndjson", "{}\n");
    fleet.asks(&["audit", "verify", "--report", &none]).run().expect_exit(2).expect_told("none.ndjson");

    // A log that somebody has written anew is whole, and not the one that was published.
    let mut controller = fleet.controller.take().expect("it was started");
    controller.signal(Signal::TERM);
    controller.finish().expect_exit(0);
    fleet.data = fleet.world.place("anew");
    fleet.serve();
    for number in 0..entries {
        fleet.asks(&["tokens", "new", &format!("t{number}")]).run().expect_exit(0);
    }
    let verified = fleet.asks(&["audit", "verify", "--report", &file]).run();
    verified.expect_exit(4).expect_told("whole: ").expect_told("NOT IN THE LOG").expect_told("written anew");
    fleet.end();
}
